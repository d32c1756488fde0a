//! Parallel leaky neurons: SPSN (arXiv 2306.12666) and ParaLIF (doi 10.1088/2634-4386/adb7fe).
//!
//! With current `X`, synaptic decay `alpha` and membrane decay `beta`, states before step 0 being zero:
//!
//! ```text
//! s[t] = alpha s[t-1] + X[t];   v[t] = beta v[t-1] + (1 - beta) s[t]                       (PAR-1, eq. 15)
//! z    = F(v)                                                                            (PAR-2, eqs. 16 to 19)
//! ```
//!
//! Firing never acts back on `v`: the two filters are linear and run for themselves. `F` is a normaliser `p = N(v)`
//! followed by a generator:
//!
//! | generator | spike | gradient to `v`, from `g` on the spikes |
//! |---|---|---|
//! | Bernoulli | `U < p` | `g p N'(v)` (as the published code does) or `g N'(v)` |
//! | Gumbel-Softmax | `y > 1/2`, `y = sigma((2 v + L) / tau)` | `g (2 / tau) y (1 - y)` |
//! | delta | `p[t] - p[t-1] > theta` | `(d[t] - d[t+1]) N'(v)`, `d = g S'(p[t] - p[t-1] - theta)` |
//! | threshold | `p > theta` | `d N'(v)`, `d = g S'(p - theta)` |
//!
//! `U` is uniform; `L` is logistic, the difference of the two Gumbel variables of the published code. The threshold is
//! learned as `theta = max(raw, 0)`, with `dL/dtheta = -sum d`. The adjoint of the filters runs backwards in time:
//!
//! ```text
//! p[t] = g[t] + beta p[t+1];   q[t] = (1 - beta) p[t] + alpha q[t+1];   dL/dX = q
//! dL/dalpha = sum q[t] s[t-1];   dL/dbeta = sum p[t] (v[t-1] - s[t])
//! ```
//!
//! Only `v` has to be kept: `s[t] = v[t-1] + (v[t] - v[t-1]) / (1 - beta)`.
//!
//! The published code integrates by FFT and pads its three factors to `2 T`, too short for the product: for sequences
//! below about twelve time constants, later inputs leak into earlier steps. This is the exact causal recurrence.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::real::Real;
use crate::surrogate::Surrogate;

/// What happens to the membrane before it is compared or drawn against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normaliser {
    /// `v`.
    Identity,
    /// `1 / (1 + exp(-v))`.
    Sigmoid,
    /// `tanh v`.
    Tanh,
    /// `max(tanh v, 0)`.
    ReluTanh,
}

/// The logistic function.
pub fn sigmoid<R: Real>(x: R) -> R {
    R::ONE / (R::ONE + (-x).exp())
}

impl Normaliser {
    /// `p = N(v)`.
    pub fn apply<R: Real>(self, v: R) -> R {
        let tanh = |v: R| sigmoid(v + v) * R::lit(2.0) - R::ONE;
        match self {
            Self::Identity => v,
            Self::Sigmoid => sigmoid(v),
            Self::Tanh => tanh(v),
            Self::ReluTanh if v > R::ZERO => tanh(v),
            Self::ReluTanh => R::ZERO,
        }
    }

    /// `N'(v)`, from `v` and `p = N(v)`.
    pub fn slope<R: Real>(self, v: R, p: R) -> R {
        match self {
            Self::Identity => R::ONE,
            Self::Sigmoid => p * (R::ONE - p),
            Self::Tanh => R::ONE - p * p,
            Self::ReluTanh if v > R::ZERO => R::ONE - p * p,
            Self::ReluTanh => R::ZERO,
        }
    }
}

/// How a Bernoulli spike passes a gradient on to its probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BernoulliGradient {
    /// Times the probability, as the published code does.
    ProbabilityWeighted,
    /// Unchanged: the straight-through estimator.
    Identity,
}

/// How a normalised membrane becomes spikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Generator {
    /// A spike with probability `p`.
    Bernoulli(BernoulliGradient),
    /// A spike if the noisy membrane is positive; `temperature` shapes the gradient.
    Gumbel {
        /// tau.
        temperature: f64,
    },
    /// A spike where `p` rises by more than the threshold within a step.
    Delta {
        /// Slope of the comparison in the backward pass.
        surrogate: Surrogate,
        /// What comes before the first step: `N(0)`, so that silence is silent, or 0 as published. They differ for the
        /// sigmoid, which starts with a spike of every neuron as published.
        pad_normalised: bool,
    },
    /// A spike wherever `p` is above the threshold.
    Threshold {
        /// Slope of the comparison in the backward pass.
        surrogate: Surrogate,
    },
}

impl Generator {
    /// Whether spikes depend on random draws.
    #[must_use]
    pub const fn is_stochastic(&self) -> bool {
        matches!(self, Self::Bernoulli(_) | Self::Gumbel { .. })
    }
}

/// How membranes become spikes: `F`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Firing {
    /// N.
    pub normaliser: Normaliser,
    /// The generator.
    pub generator: Generator,
    /// The membrane is taken one step late, 0 at step 0: the hidden state of the recurrent variant (eq. 22).
    pub delayed: bool,
}

/// The published firing modes. First letters: S sigmoid, T tanh, TR rectified tanh, none identity; last letter: B
/// Bernoulli, D delta, T threshold. GS is Gumbel-Softmax, plain T the bare threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the published ones; the table is above")]
pub enum FiringMode {
    GS,
    SB,
    TRB,
    D,
    SD,
    TD,
    TRD,
    T,
    ST,
    TT,
    TRT,
}

impl FiringMode {
    /// All modes, in the published order.
    pub const ALL: [Self; 11] =
        [Self::GS, Self::SB, Self::TRB, Self::D, Self::SD, Self::TD, Self::TRD, Self::T, Self::ST, Self::TT, Self::TRT];

    /// The published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GS => "GS",
            Self::SB => "SB",
            Self::TRB => "TRB",
            Self::D => "D",
            Self::SD => "SD",
            Self::TD => "TD",
            Self::TRD => "TRD",
            Self::T => "T",
            Self::ST => "ST",
            Self::TT => "TT",
            Self::TRT => "TRT",
        }
    }

    /// The normaliser of the mode.
    #[must_use]
    pub const fn normaliser(self) -> Normaliser {
        match self {
            Self::GS | Self::D | Self::T => Normaliser::Identity,
            Self::SB | Self::SD | Self::ST => Normaliser::Sigmoid,
            Self::TD | Self::TT => Normaliser::Tanh,
            Self::TRB | Self::TRD | Self::TRT => Normaliser::ReluTanh,
        }
    }

    /// Whether the mode draws random numbers.
    #[must_use]
    pub const fn is_stochastic(self) -> bool {
        matches!(self, Self::GS | Self::SB | Self::TRB)
    }

    /// Whether the mode compares successive steps.
    #[must_use]
    pub const fn is_delta(self) -> bool {
        matches!(self, Self::D | Self::SD | Self::TD | Self::TRD)
    }

    /// The threshold that a layer starts with: 0.1 for delta modes, `N(1)` for threshold modes. (With the published 1,
    /// the normalised modes never reach it and start silent.)
    #[must_use]
    pub fn default_threshold(self) -> f64 {
        if self.is_delta() { 0.1 } else { self.normaliser().apply(1.0) }
    }

    /// The mode with its published options.
    #[must_use]
    pub const fn firing(self, surrogate: Surrogate) -> Firing {
        let generator = match self {
            Self::GS => Generator::Gumbel { temperature: 1.0 },
            Self::SB | Self::TRB => Generator::Bernoulli(BernoulliGradient::ProbabilityWeighted),
            Self::D | Self::SD | Self::TD | Self::TRD => Generator::Delta { surrogate, pad_normalised: false },
            Self::T | Self::ST | Self::TT | Self::TRT => Generator::Threshold { surrogate },
        };
        Firing { normaliser: self.normaliser(), generator, delayed: false }
    }
}

impl fmt::Display for FiringMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FiringMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| Error::Name {
            what: "firing mode",
            got: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Runs the two filters on one lane: the synaptic trace `s` and the membrane `v`, each `[T]` (PAR-1).
///
/// ```
/// use snn_core::neurons::paralif::filter;
/// let (s, v) = filter(0.5_f64, 0.5, &[1.0, 0.0, 0.0]);
/// assert_eq!(s, [1.0, 0.5, 0.25]);
/// assert_eq!(v, [0.5, 0.5, 0.375]); // (1 - beta) (m + 1) beta^m
/// ```
pub fn filter<R: Real>(alpha: R, beta: R, current: &[R]) -> (Vec<R>, Vec<R>) {
    let (mut s, mut v) = (R::ZERO, R::ZERO);
    current
        .iter()
        .map(|&x| {
            s = alpha * s + x;
            v = beta * v + (R::ONE - beta) * s;
            (s, v)
        })
        .unzip()
}

/// The gradients that the filters' adjoint gives on one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterAdjoint<R> {
    /// On the current, `[T]`.
    pub current: Vec<R>,
    /// On alpha.
    pub alpha: R,
    /// On beta.
    pub beta: R,
}

/// The adjoint of [`filter`] on one lane, from the gradient on the membrane.
pub fn filter_adjoint<R: Real>(alpha: R, beta: R, membrane: &[R], grad: &[R]) -> FilterAdjoint<R> {
    let inverse = R::ONE / (R::ONE - beta);
    let at = |t: usize, back: usize| t.checked_sub(back).map_or(R::ZERO, |t| membrane[t]);
    let (mut p, mut q) = (R::ZERO, R::ZERO);
    let mut out = FilterAdjoint { current: vec![R::ZERO; grad.len()], alpha: R::ZERO, beta: R::ZERO };
    for t in (0..grad.len()).rev() {
        p = grad[t] + beta * p;
        q = (R::ONE - beta) * p + alpha * q;
        out.current[t] = q;
        out.alpha += q * (at(t, 2) + (at(t, 1) - at(t, 2)) * inverse);
        out.beta += p * (at(t, 1) - at(t, 0)) * inverse;
    }
    out
}

/// The membrane that firing sees at step `t`.
fn seen<R: Real>(firing: &Firing, membrane: &[R], t: usize) -> R {
    match firing.delayed {
        true => t.checked_sub(1).map_or(R::ZERO, |t| membrane[t]),
        false => membrane[t],
    }
}

/// `p` before step 0.
fn padding<R: Real>(normaliser: Normaliser, normalised: bool) -> R {
    if normalised { normaliser.apply(R::ZERO) } else { R::ZERO }
}

/// Fires on one lane (PAR-2).
///
/// `noise` holds for each step the uniform `U` of Bernoulli modes or the logistic `L` of Gumbel-Softmax; other modes do
/// not read it.
pub fn fire<R: Real>(firing: &Firing, threshold: R, noise: &[f64], membrane: &[R]) -> Vec<R> {
    let normaliser = firing.normaliser;
    let mut before = match firing.generator {
        Generator::Delta { pad_normalised, .. } => padding(normaliser, pad_normalised),
        _ => R::ZERO,
    };
    let spike = |t: usize| {
        let v = seen(firing, membrane, t);
        let p = normaliser.apply(v);
        match &firing.generator {
            Generator::Bernoulli(gradient) => {
                let value = f64::from(noise[t] < p.value());
                match gradient {
                    // The derivative of p^2 / 2 is p times that of p.
                    BernoulliGradient::ProbabilityWeighted => (p * p * R::lit(0.5)).straight_through(value),
                    BernoulliGradient::Identity => p.straight_through(value),
                }
            }
            Generator::Gumbel { temperature } => {
                let y = gumbel(v, noise[t], *temperature);
                y.straight_through(f64::from(y.value() > 0.5))
            }
            Generator::Delta { surrogate, .. } => {
                let rise = p - before;
                before = p;
                rise.spike(threshold, surrogate)
            }
            Generator::Threshold { surrogate } => p.spike(threshold, surrogate),
        }
    };
    (0..membrane.len()).map(spike).collect()
}

/// The soft spike of Gumbel-Softmax: `sigma((2 v + L) / tau)`.
pub fn gumbel<R: Real>(v: R, logistic: f64, temperature: f64) -> R {
    sigmoid((v + v + R::lit(logistic)) / R::lit(temperature))
}

/// The adjoint of [`fire`] on one lane: the gradients on the membrane, `[T]`, and on the threshold.
pub fn fire_adjoint<R: Real>(
    firing: &Firing,
    threshold: R,
    noise: &[f64],
    membrane: &[R],
    grad_spikes: &[R],
) -> (Vec<R>, R) {
    let (normaliser, steps) = (firing.normaliser, membrane.len());
    let v = |t: usize| seen(firing, membrane, t);
    let p = |t: usize| normaliser.apply(v(t));
    let mut grad_threshold = R::ZERO;
    let mut seen_grad: Vec<R> = match &firing.generator {
        Generator::Bernoulli(gradient) => (0..steps)
            .map(|t| match gradient {
                BernoulliGradient::ProbabilityWeighted => grad_spikes[t] * p(t) * normaliser.slope(v(t), p(t)),
                BernoulliGradient::Identity => grad_spikes[t] * normaliser.slope(v(t), p(t)),
            })
            .collect(),
        Generator::Gumbel { temperature } => (0..steps)
            .map(|t| {
                let y = gumbel(v(t), noise[t], *temperature);
                grad_spikes[t] * R::lit(2.0 / temperature) * y * (R::ONE - y)
            })
            .collect(),
        Generator::Delta { surrogate, pad_normalised } => {
            let before = |t: usize| t.checked_sub(1).map_or(padding(normaliser, *pad_normalised), p);
            let d: Vec<R> =
                (0..steps).map(|t| grad_spikes[t] * surrogate.slope(p(t) - before(t) - threshold)).collect();
            d.iter().for_each(|&d| grad_threshold -= d);
            let after = |t: usize| d.get(t + 1).copied().unwrap_or(R::ZERO);
            (0..steps).map(|t| (d[t] - after(t)) * normaliser.slope(v(t), p(t))).collect()
        }
        Generator::Threshold { surrogate } => (0..steps)
            .map(|t| {
                let d = grad_spikes[t] * surrogate.slope(p(t) - threshold);
                grad_threshold -= d;
                d * normaliser.slope(v(t), p(t))
            })
            .collect(),
    };
    if firing.delayed && steps > 0 {
        // What step t + 1 saw was the membrane of step t; step 0 saw a constant.
        seen_grad.rotate_left(1);
        seen_grad[steps - 1] = R::ZERO;
    }
    (seen_grad, grad_threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_mode_names_the_modes() {
        let error = "SX".parse::<FiringMode>().unwrap_err().to_string();
        assert!(error.contains("SX") && error.contains("GS, SB, TRB, D, SD, TD, TRD, T, ST, TT, TRT"), "{error}");
    }

    /// Silence fires a sigmoid delta neuron once, at the start, unless the padding is normalised.
    #[test]
    fn published_padding_fires_sigmoid_delta_at_the_start() {
        let mut firing = FiringMode::SD.firing(Surrogate::FastSigmoid { scale: 100.0 });
        assert_eq!(fire(&firing, 0.1_f64, &[], &[0.0; 3]), [1.0, 0.0, 0.0]);
        firing.generator = match firing.generator {
            Generator::Delta { surrogate, .. } => Generator::Delta { surrogate, pad_normalised: true },
            other => other,
        };
        assert_eq!(fire(&firing, 0.1_f64, &[], &[0.0; 3]), [0.0; 3]);
    }

    #[test]
    fn causal_filter_does_not_see_the_future() {
        let (_, v) = filter(0.95_f64, 0.95, &[0.0, 0.0, 1.0]);
        assert_eq!(v[..2], [0.0, 0.0]);
    }
}
