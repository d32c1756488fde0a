//! The scalars on which the reference maths runs: `f32`, `f64` and dual numbers.
//!
//! A reference model is written once over [`Real`]. On `f64` it gives values; on [`Dual`] it gives
//! the exact derivative along one direction, with each spike's derivative replaced by its surrogate,
//! so that a hand-written adjoint can be checked to rounding error:
//!
//! ```
//! use snn_core::{Dual, Real};
//! // d/dx (x * exp(-x)) at x = 2 is (1 - x) exp(-x)
//! let x = Dual::new(2.0, 1.0);
//! let y = x * (-x).exp();
//! assert!((y.derivative + (-2.0f64).exp()).abs() < 1e-15);
//! ```

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::surrogate::Surrogate;

/// A plain value that can lie in a device buffer.
pub trait Element: Copy + Default + PartialEq + Debug + Send + Sync + 'static {}

impl Element for f32 {}
impl Element for f64 {}
impl Element for Dual {}
impl Element for u8 {}
impl Element for u32 {}

/// A real scalar that knows how to take a spike.
pub trait Real:
    Element
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;

    /// The name of the type as reports print it: `f32`, `f64`, `dual`.
    const NAME: &'static str;

    /// Lifts a constant (its derivative is zero).
    fn lit(x: f64) -> Self;

    /// The value without its derivative.
    fn value(self) -> f64;

    /// The exponential function.
    fn exp(self) -> Self;

    /// The natural logarithm.
    fn ln(self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// The absolute value; the derivative at zero is zero.
    fn abs(self) -> Self;

    /// The same value as a constant: its derivative is cut off.
    fn detach(self) -> Self;

    /// The Heaviside step of `self - threshold`, strict: 1 if `self > threshold`, else 0.
    /// A dual number carries the surrogate's slope as the derivative.
    fn spike(self, threshold: Self, surrogate: &Surrogate) -> Self;

    /// A given value whose derivative is passed on unchanged from `self`: the straight-through rule.
    fn straight_through(self, value: f64) -> Self;

    /// `self` clamped to `[low, high]`; the derivative passes inside and *on* the bounds (closed rule).
    fn clamp_closed(self, low: f64, high: f64) -> Self;
}

macro_rules! plain_real {
    ($type:ty, $name:literal) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAME: &'static str = $name;

            #[inline(always)]
            fn lit(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn value(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn exp(self) -> Self {
                <$type>::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$type>::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$type>::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$type>::abs(self)
            }
            #[inline(always)]
            fn detach(self) -> Self {
                self
            }
            #[inline(always)]
            fn spike(self, threshold: Self, _: &Surrogate) -> Self {
                if self > threshold { 1.0 } else { 0.0 }
            }
            #[inline(always)]
            fn straight_through(self, value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn clamp_closed(self, low: f64, high: f64) -> Self {
                self.clamp(low as $type, high as $type)
            }
        }
    };
}

plain_real!(f32, "f32");
plain_real!(f64, "f64");

/// A value and its derivative along one direction (forward-mode differentiation in `f64`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Dual {
    /// The value.
    pub value: f64,
    /// The derivative.
    pub derivative: f64,
}

impl Dual {
    /// A value that moves with the given derivative.
    #[must_use]
    pub const fn new(value: f64, derivative: f64) -> Self {
        Self { value, derivative }
    }
}

impl PartialOrd for Dual {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Add for Dual {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self::new(self.value + o.value, self.derivative + o.derivative)
    }
}
impl Sub for Dual {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self::new(self.value - o.value, self.derivative - o.derivative)
    }
}
impl Mul for Dual {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Self::new(self.value * o.value, self.derivative * o.value + self.value * o.derivative)
    }
}
impl Div for Dual {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let value = self.value / o.value;
        Self::new(value, (self.derivative - value * o.derivative) / o.value)
    }
}
impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self::new(-self.value, -self.derivative)
    }
}
impl AddAssign for Dual {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}
impl SubAssign for Dual {
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}
impl MulAssign for Dual {
    fn mul_assign(&mut self, o: Self) {
        *self = *self * o;
    }
}

impl Real for Dual {
    const ZERO: Self = Self::new(0.0, 0.0);
    const ONE: Self = Self::new(1.0, 0.0);
    const NAME: &'static str = "dual";

    fn lit(x: f64) -> Self {
        Self::new(x, 0.0)
    }
    fn value(self) -> f64 {
        self.value
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self::new(value, value * self.derivative)
    }
    fn ln(self) -> Self {
        Self::new(self.value.ln(), self.derivative / self.value)
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Self::new(value, 0.5 * self.derivative / value)
    }
    fn abs(self) -> Self {
        let sign = if self.value == 0.0 { 0.0 } else { self.value.signum() };
        Self::new(self.value.abs(), sign * self.derivative)
    }
    fn detach(self) -> Self {
        Self::lit(self.value)
    }
    fn spike(self, threshold: Self, surrogate: &Surrogate) -> Self {
        let over = self - threshold;
        Self::new(f64::from(over.value > 0.0), surrogate.slope(over.value) * over.derivative)
    }
    fn straight_through(self, value: f64) -> Self {
        Self::new(value, self.derivative)
    }
    fn clamp_closed(self, low: f64, high: f64) -> Self {
        let inside = (low..=high).contains(&self.value);
        Self::new(self.value.clamp(low, high), if inside { self.derivative } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dual_arithmetic_matches_a_difference_quotient(x in 0.2..3.0f64, y in 0.2..3.0f64) {
            fn f<R: Real>(x: R, y: R) -> R {
                (x * y + (x / y).exp()).ln() - (x * x + y).sqrt() * (y - x).abs()
            }
            prop_assume!((x - y).abs() > 1e-3);
            let h = 1e-6;
            let numeric = (f(x + h, y) - f(x - h, y)) / (2.0 * h);
            let exact = f(Dual::new(x, 1.0), Dual::lit(y)).derivative;
            prop_assert!((numeric - exact).abs() < 1e-6 * (1.0 + exact.abs()));
        }
    }

    #[test]
    fn clamp_passes_its_derivative_on_the_bounds_and_not_beyond() {
        for (x, slope) in [(-0.1, 0.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.1, 0.0)] {
            assert_eq!(Dual::new(x, 1.0).clamp_closed(0.0, 1.0).derivative, slope, "at {x}");
        }
    }
}
