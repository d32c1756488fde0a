//! Leaky integrate-and-fire neurons, simulated step by step (baselines of arXiv 2205.15286).
//!
//! With current `I`, decay `beta`, threshold `theta`, and `v[-1]` the initial membrane:
//!
//! ```text
//! u[t] = beta v[t-1] + I[t]                                                     (LIF-1)
//! multi-spike       S = H(u - theta);  v = u - theta S                          (LIF-2)
//! single-spike      h = H(u - theta);  S = h (1 - m);  v = u (1 - m);
//!                   m = max(m, S)      with m from the step before              (LIF-3)
//! integrator        v = u, no spikes                                            (LIF-4)
//! ```
//!
//! The published code differentiates *through* the reset (LIF-2) and through the mask `m`, whose maximum splits
//! ties half and half (LIF-3). Both paths can be detached. The adjoints, `t` running backwards, are
//!
//! ```text
//! multi   gv = beta lam;  lam = gU + gv + (gS - theta gv) s(u)      detached: lam = gU + gv + gS s(u)
//! single  w = 1, 1/2 or 0 for S > m, S = m, S < m;  gs = gS + w Gm;  gv = gV + beta lam
//!         lam = (1 - m) (gv + gs s(u));  Gm = (1 - w) Gm - gs h - gv u      detached: Gm = 0
//! all     dL/dI = lam;  dL/dbeta += lam v[t-1]
//! ```
//!
//! The returned membrane is `u` (multi-spike), `v` (single-spike: 0 after the spike), `v = u` (integrator).

use crate::neurons::LeakAdjoint;
use crate::real::Real;
use crate::surrogate::Surrogate;

/// Whether gradients flow through a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// They do, as in the published code.
    Attached,
    /// The path is a constant for the backward pass.
    Detached,
}

/// Which sequential neuron.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifKind {
    /// Any number of spikes, reset by subtraction.
    Multi {
        /// The reset.
        reset: Path,
    },
    /// At most one spike.
    Single {
        /// The mask that silences the neuron after its spike.
        mask: Path,
    },
    /// No spikes, no reset: a readout.
    Integrator,
}

/// The constants of a sequential neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LifNeuron {
    /// Which model.
    pub kind: LifKind,
    /// Slope of the spike function in the backward pass.
    pub surrogate: Surrogate,
    /// Threshold, strict.
    pub threshold: f64,
}

impl LifNeuron {
    /// A neuron with threshold 1 and the block model's surrogate.
    #[must_use]
    pub const fn new(kind: LifKind) -> Self {
        Self { kind, surrogate: Surrogate::BLOCK, threshold: 1.0 }
    }

    /// The leaky integrator of a readout.
    pub const INTEGRATOR: Self = Self::new(LifKind::Integrator);
}

/// One lane of a forward pass, each field of length T.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace<R> {
    /// u, before reset or mask: what the adjoint needs.
    pub state: Vec<R>,
    /// The membrane that the model returns.
    pub membrane: Vec<R>,
    /// S; zeros for the integrator.
    pub spikes: Vec<R>,
}

/// The larger of two numbers; on a tie the derivative is the mean of both.
fn max_half<R: Real>(a: R, b: R) -> R {
    if a.value() == b.value() {
        (a + b) * R::lit(0.5)
    } else if a > b {
        a
    } else {
        b
    }
}

/// Runs the model on one lane.
///
/// * `beta` — decay per step, already clamped to `[0, 1]`.
/// * `initial` — membrane before step 0, threshold units.
/// * `current` — `[T]`, threshold units per step.
///
/// ```
/// use snn_core::neurons::lif::{LifKind, LifNeuron, Path, trace};
/// let neuron = LifNeuron::new(LifKind::Multi { reset: Path::Attached });
/// let t = trace(&neuron, 0.5_f64, 0.0, &[0.8, 0.8, 0.2, 0.9, 0.1]);
/// assert_eq!(t.spikes, [0.0, 1.0, 0.0, 1.0, 0.0]);
/// ```
pub fn trace<R: Real>(neuron: &LifNeuron, beta: R, initial: R, current: &[R]) -> Trace<R> {
    let mut trace = Trace { state: vec![], membrane: vec![], spikes: vec![] };
    let theta = R::lit(neuron.threshold);
    let (mut v, mut m) = (initial, R::ZERO);
    for &i in current {
        let u = beta * v + i;
        let h = u.spike(theta, &neuron.surrogate);
        let (membrane, s);
        match neuron.kind {
            LifKind::Multi { reset } => {
                s = h;
                v = u - theta * if reset == Path::Attached { s } else { s.detach() };
                membrane = u;
            }
            LifKind::Single { mask } => {
                s = h * (R::ONE - m);
                v = u * (R::ONE - m);
                m = max_half(m, s);
                if mask == Path::Detached {
                    m = m.detach();
                }
                membrane = v;
            }
            LifKind::Integrator => {
                s = R::ZERO;
                v = u;
                membrane = u;
            }
        }
        trace.state.push(u);
        trace.membrane.push(membrane);
        trace.spikes.push(s);
    }
    trace
}

/// The adjoint on one lane.
///
/// * `state` — u of the forward pass; `grad_spikes`, `grad_membrane` — incoming gradients, `[T]`.
/// * `grad_current` — receives dL/dI, `[T]`.
pub fn adjoint<R: Real>(
    neuron: &LifNeuron,
    beta: R,
    initial: R,
    state: &[R],
    grad_spikes: &[R],
    grad_membrane: Option<&[R]>,
    grad_current: &mut [R],
) -> LeakAdjoint<R> {
    let theta = R::lit(neuron.threshold);
    let fires = |t: usize| state[t] > theta;
    let spike_at = (0..state.len()).find(|&t| fires(t)).unwrap_or(state.len());
    let (mut lam, mut grad_mask, mut grad_beta) = (R::ZERO, R::ZERO, R::ZERO);
    for t in (0..state.len()).rev() {
        let u = state[t];
        let slope = neuron.surrogate.slope(u - theta);
        let gm = grad_membrane.map_or(R::ZERO, |g| g[t]);
        let carried = beta * lam;
        lam = match neuron.kind {
            LifKind::Integrator => gm + carried,
            LifKind::Multi { reset: Path::Attached } => gm + carried + (grad_spikes[t] - theta * carried) * slope,
            LifKind::Multi { reset: Path::Detached } => gm + carried + grad_spikes[t] * slope,
            LifKind::Single { mask } => {
                // S against m: 1 against 0 at the spike, 0 against 1 after it, 0 against 0 before it.
                let w = R::lit([0.5, 1.0, 0.0][1 + usize::from(t > spike_at) - usize::from(t < spike_at)]);
                let alive = if t <= spike_at { R::ONE } else { R::ZERO };
                let gs = grad_spikes[t] + w * grad_mask;
                let gv = gm + carried;
                if mask == Path::Attached {
                    let h = if fires(t) { R::ONE } else { R::ZERO };
                    grad_mask = (R::ONE - w) * grad_mask - gs * h - gv * u;
                }
                alive * (gv + gs * slope)
            }
        };
        grad_current[t] = lam;
        if t > 0 {
            let before = t - 1;
            let v = match neuron.kind {
                LifKind::Multi { .. } if fires(before) => state[before] - theta,
                LifKind::Single { .. } if before > spike_at => R::ZERO,
                _ => state[before],
            };
            grad_beta += lam * v;
        }
    }
    LeakAdjoint { beta: grad_beta + lam * initial, initial: beta * lam }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(kind: LifKind, want: [f64; 5], want_beta: f64) {
        let neuron = LifNeuron::new(kind);
        let t = trace(&neuron, 0.5_f64, 0.0, &[0.8, 0.8, 0.2, 0.9, 0.1]);
        let mut grad = [0.0; 5];
        let g = adjoint(&neuron, 0.5, 0.0, &t.state, &[0.0, 1.0, 0.0, 0.0, 1.0], None, &mut grad);
        for (got, want) in grad.iter().zip(want) {
            assert!((got - want).abs() < 5e-9, "{grad:?}");
        }
        assert!((g.beta - want_beta).abs() < 5e-9);
    }

    /// The worked examples of the published model's description.
    #[test]
    fn worked_examples_give_their_gradients() {
        let multi = LifKind::Multi { reset: Path::Attached };
        example(multi, [0.049_666_8, 0.111_750_31, 0.001_438_2, 0.002_922_05, 0.010_519_4], 0.091_090_47);
        let single = LifKind::Single { mask: Path::Attached };
        example(single, [0.0, 0.111_111_11, 0.0, 0.0, 0.0], 0.088_888_89);
    }
}
