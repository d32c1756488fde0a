//! Reference maths of the neuron families: one file each, one lane at a time, straight from the equations.
//!
//! Every family has the model itself (generic over [`Real`], so dual numbers give its exact
//! derivative with surrogates) and the adjoint that the fast backends implement.

pub mod alif;
pub mod block;
pub mod cuba;
pub mod event;
pub mod lif;
pub mod paralif;
pub mod ttfs;

use crate::real::Real;

/// The gradients that a leaky scan's adjoint gives beside the one on the current.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeakAdjoint<R> {
    /// On the decay (after clamping).
    pub beta: R,
    /// On the membrane before step 0.
    pub initial: R,
}

/// The gradient mask of `clamp(raw, 0, 1)`: 1 inside and on the bounds, 0 beyond.
#[inline(always)]
pub fn clamp_mask<R: Real>(raw: R) -> R {
    if raw >= R::ZERO && raw <= R::ONE { R::ONE } else { R::ZERO }
}
