//! The single-spike block model (Taylor, King, Harper, arXiv 2205.15286).
//!
//! The published model computes, for one lane with current `I` and decay `beta`,
//!
//! ```text
//! V[t] = beta V[t-1] + I[t]                     membrane without reset                  (BLOCK-1)
//! F[t] = H(V[t] - theta)                        faulty spikes, maybe many               (BLOCK-2)
//! z[t] = sum over j <= t of (t - j + 1) F[j]    latency code: a double cumulative sum   (BLOCK-3)
//! S[t] = 1 if z[t] = 1 else 0                   the first crossing alone                (BLOCK-4)
//! ```
//!
//! and differentiates it with a surrogate for `H` and the identity for BLOCK-4, whatever `z` is. Its adjoint is
//!
//! ```text
//! a += gS[t];  B += a                           dL/dF[t] = B, adjoint of BLOCK-3        (BLOCK-5)
//! lam = B s(V[t] - theta) + gV[t] + beta lam    dL/dI[t] = lam                          (BLOCK-6)
//! dL/dbeta += lam V[t-1]                                                                (BLOCK-7)
//! ```
//!
//! with `t` running backwards. Everything is in step units; the threshold is strict.

use crate::neurons::LeakAdjoint;
use crate::real::Real;
use crate::surrogate::Surrogate;

/// What the membrane before step 0 contributes to step 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// `beta * initial`: it decays as at any other step.
    #[default]
    Decayed,
    /// `initial`, as in the published block code.
    Undecayed,
}

/// The constants of a block neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockNeuron {
    /// Slope of the spike function in the backward pass.
    pub surrogate: Surrogate,
    /// Threshold, strict.
    pub threshold: f64,
    /// How an initial membrane enters.
    pub start: Start,
}

impl Default for BlockNeuron {
    fn default() -> Self {
        Self { surrogate: Surrogate::BLOCK, threshold: 1.0, start: Start::Decayed }
    }
}

/// The four stages of the model for one lane, each of length T.
#[derive(Debug, Clone, PartialEq)]
pub struct Stages<R> {
    /// V, BLOCK-1.
    pub membrane: Vec<R>,
    /// F, BLOCK-2.
    pub faulty: Vec<R>,
    /// z, BLOCK-3.
    pub latency: Vec<R>,
    /// S, BLOCK-4.
    pub spikes: Vec<R>,
}

/// Runs the model on one lane, stage by stage.
///
/// * `beta` — decay per step, already clamped to `[0, 1]`.
/// * `initial` — membrane before step 0, threshold units.
/// * `current` — `[T]`, threshold units per step.
///
/// ```
/// use snn_core::neurons::block::{BlockNeuron, stages};
/// let s = stages(&BlockNeuron::default(), 0.5_f64, 0.0, &[0.8, 0.8, 0.2, 0.9, 0.1]);
/// assert_eq!(s.latency, [0.0, 1.0, 2.0, 4.0, 6.0]);
/// assert_eq!(s.spikes, [0.0, 1.0, 0.0, 0.0, 0.0]);
/// ```
pub fn stages<R: Real>(neuron: &BlockNeuron, beta: R, initial: R, current: &[R]) -> Stages<R> {
    let mut stages = Stages { membrane: vec![], faulty: vec![], latency: vec![], spikes: vec![] };
    let mut v = initial;
    let (mut count, mut z) = (R::ZERO, R::ZERO);
    for (t, &i) in current.iter().enumerate() {
        let decay = if t == 0 && neuron.start == Start::Undecayed { R::ONE } else { beta };
        v = decay * v + i;
        let f = v.spike(R::lit(neuron.threshold), &neuron.surrogate);
        count += f;
        z += count;
        stages.membrane.push(v);
        stages.faulty.push(f);
        stages.latency.push(z);
        stages.spikes.push(z.straight_through(if z.value() == 1.0 { 1.0 } else { 0.0 }));
    }
    stages
}

/// The adjoint on one lane (BLOCK-5 to BLOCK-7).
///
/// * `membrane` — V of the forward pass; `grad_spikes`, `grad_membrane` — incoming gradients, `[T]`.
/// * `grad_current` — receives dL/dI, `[T]`.
pub fn adjoint<R: Real>(
    neuron: &BlockNeuron,
    beta: R,
    initial: R,
    membrane: &[R],
    grad_spikes: &[R],
    grad_membrane: Option<&[R]>,
    grad_current: &mut [R],
) -> LeakAdjoint<R> {
    let (mut single, mut double, mut lam, mut grad_beta) = (R::ZERO, R::ZERO, R::ZERO, R::ZERO);
    for t in (0..membrane.len()).rev() {
        single += grad_spikes[t];
        double += single;
        let q = double * neuron.surrogate.slope(membrane[t] - R::lit(neuron.threshold))
            + grad_membrane.map_or(R::ZERO, |g| g[t]);
        lam = q + beta * lam;
        grad_current[t] = lam;
        if t > 0 {
            grad_beta += lam * membrane[t - 1];
        }
    }
    match neuron.start {
        Start::Undecayed => LeakAdjoint { beta: grad_beta, initial: lam },
        Start::Decayed => LeakAdjoint { beta: grad_beta + lam * initial, initial: beta * lam },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the published model's description.
    #[test]
    fn worked_example_gives_its_gradients() {
        let neuron = BlockNeuron::default();
        let s = stages(&neuron, 0.5_f64, 0.0, &[0.8, 0.8, 0.2, 0.9, 0.1]);
        assert_eq!(s.faulty, [0.0, 1.0, 0.0, 1.0, 0.0]);
        let mut grad = [0.0; 5];
        let g = adjoint(&neuron, 0.5, 0.0, &s.membrane, &[0.0, 1.0, 0.0, 0.0, 1.0], None, &mut grad);
        let want = [1.159_615_93, 0.763_676_3, 0.416_241_5, 0.165_816_33, 0.081_632_65];
        for (got, want) in grad.iter().zip(want) {
            assert!((got - want).abs() < 5e-9, "{got} {want}");
        }
        assert!((g.beta - 1.349_206_35).abs() < 5e-9);
    }
}
