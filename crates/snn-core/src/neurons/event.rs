//! Leaky integrate-and-fire neurons in continuous time, simulated from event to event, with exact gradients.
//!
//! Bacho and Chu (2023), Neural Computation 35(10); arXiv 2212.09500. Synapses decay with `tau_s`, membranes with
//! `tau = 2 tau_s`, and only this ratio lets the spike time be written down. With `c = threshold / tau` and
//! `d = reset / tau`:
//!
//! ```text
//! dI/dt = -I/tau_s + sum of w_j delta(t - t_j),   dV/dt = -V/tau + I,   V -= reset at an own spike          (EV-1)
//! V(t)/tau = b e^(-s/tau) - a e^(-2s/tau)  until the next event,   s = t - now                               (EV-2)
//! at an input:      a += w,  b += w;      after s seconds:  b *= e^(-s/tau),  a *= e^(-2s/tau)               (EV-3)
//! x = sqrt(b^2 - 4 a c),   y = 2a / (b + x),   next spike at now + tau ln y,   then b -= d y                  (EV-4)
//! ```
//!
//! A spike counts if it comes after the last event and not after the next one; at equality with the next it comes
//! before that input. A neuron that has filled its buffer of `capacity` spikes is finished: the buffer is a part of the
//! model. State is relative to the last event, so that nothing overflows however long the simulation.
//!
//! Seen from a spike, where `y = 1` and `b - a = c`, the root is `x = a - c = dV/dt`: the slope with which the membrane
//! meets the threshold. It is all that the gradient needs:
//!
//! ```text
//! dt_i/dw_j = -1/x_i sum over p of j before t_i of k(t_i - t_p),    k(s) = tau (e^(-s/tau) - e^(-2s/tau))     (EV-5)
//! dt_i/dt_p = w_j/x_i k'(t_i - t_p),   dt_i/dt_k = reset/(tau x_i) e^(-(t_i - t_k)/tau) for own k before i       (EV-6)
//! ```

use crate::error::{Error, Result};
use crate::real::Real;

/// Constants of a population of event-driven neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventNeuron {
    /// Synaptic time constant, s, above 0; the membrane's is twice that.
    pub tau_s: f64,
    /// Threshold of the membrane, above 0.
    pub threshold: f64,
    /// What the membrane loses at a spike, 0 or more; the threshold unless something else is wanted.
    pub reset: f64,
    /// No spike is kept after this time, s; infinity for none.
    pub end: f64,
    /// Spikes after which a neuron is finished for the sample, at least 1.
    pub capacity: u32,
    /// Slopes below this share of `threshold / tau` count as that share in the backward pass; 0 for exact gradients,
    /// which have no bound where a membrane hardly reaches the threshold.
    pub least_slope: f64,
}

impl EventNeuron {
    /// Neurons that are reset by their threshold, with exact gradients.
    #[must_use]
    pub const fn new(tau_s: f64, threshold: f64, end: f64, capacity: u32) -> Self {
        Self { tau_s, threshold, reset: threshold, end, capacity, least_slope: 0.0 }
    }

    /// Checks every constant.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] naming the one that is out of range.
    pub fn check(&self) -> Result<()> {
        let above = |x: f64| x > 0.0 && x.is_finite();
        let checks = [
            ("tau_s", self.tau_s, above(self.tau_s), "(0, inf)"),
            ("threshold", self.threshold, above(self.threshold), "(0, inf)"),
            ("reset", self.reset, self.reset >= 0.0 && self.reset.is_finite(), "[0, inf)"),
            ("end", self.end, self.end > 0.0, "(0, inf]"),
            ("capacity", f64::from(self.capacity), self.capacity > 0, "[1, 2^32)"),
            ("least_slope", self.least_slope, (0.0..=1.0).contains(&self.least_slope), "[0, 1]"),
        ];
        match checks.into_iter().find(|(_, _, fits, _)| !fits) {
            Some((param, value, _, range)) => Err(Error::Domain { op: "event neuron", param, value, range }),
            None => Ok(()),
        }
    }

    /// Membrane time constant, s.
    #[must_use]
    pub const fn tau(&self) -> f64 {
        2.0 * self.tau_s
    }

    /// The threshold over the membrane time constant: `c` of the equations.
    #[must_use]
    pub const fn level(&self) -> f64 {
        self.threshold / self.tau()
    }

    /// The reset over the membrane time constant: `d` of the equations.
    #[must_use]
    pub const fn drop(&self) -> f64 {
        self.reset / self.tau()
    }

    /// The slope that the backward pass divides by.
    #[inline(always)]
    #[must_use]
    pub fn guarded<R: Real>(&self, slope: R) -> R {
        let least = R::lit(self.least_slope * self.level());
        if slope < least { least } else { slope }
    }
}

/// A spike of a neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fired<R> {
    /// When, s.
    pub time: R,
    /// `dV/dt` at that moment, 1/s times the unit of the threshold.
    pub slope: R,
}

/// The spikes of one neuron from its inputs: pairs of time (s) and weight, ascending in time.
pub fn spikes<R: Real>(neuron: &EventNeuron, inputs: &[(R, R)]) -> Vec<Fired<R>> {
    let (tau, c, d) = (R::lit(neuron.tau()), R::lit(neuron.level()), R::lit(neuron.drop()));
    let end = R::lit(neuron.end);
    let (two, four) = (R::lit(2.0), R::lit(4.0));
    let mut fired: Vec<Fired<R>> = Vec::new();
    let (mut a, mut b) = (R::ZERO, R::ZERO);
    for (i, &(now, weight)) in inputs.iter().enumerate() {
        if i > 0 {
            let decay = ((inputs[i - 1].0 - now) / tau).exp();
            b *= decay;
            a *= decay * decay;
        }
        a += weight;
        b += weight;
        let next = inputs.get(i + 1).map(|input| input.0);
        let mut last = now;
        loop {
            let square = b * b - four * a * c;
            let x = if square > R::ZERO { square.sqrt() } else { R::ZERO };
            let y = two * a / (b + x);
            let time = now + tau * y.ln();
            // Comparisons with NaN are false: such a state fires never.
            let rises = x > R::ZERO && y > R::ZERO;
            let comes = rises && time > last && time <= end && next.is_none_or(|next| time <= next);
            if !comes {
                break;
            }
            fired.push(Fired { time, slope: x / y });
            if fired.len() == neuron.capacity as usize {
                return fired;
            }
            last = time;
            b -= d * y;
        }
    }
    fired
}

/// The membrane at time `t`, just before whatever happens then: the sum of what inputs and resets left (EV-1).
pub fn membrane<R: Real>(neuron: &EventNeuron, inputs: &[(R, R)], fired: &[Fired<R>], t: R) -> R {
    let tau = R::lit(neuron.tau());
    let mut v = R::ZERO;
    for &(time, weight) in inputs.iter().filter(|input| input.0 < t) {
        v += weight * kernel(neuron, t - time);
    }
    for own in fired.iter().filter(|own| own.time < t) {
        v -= R::lit(neuron.reset) * ((own.time - t) / tau).exp();
    }
    v
}

/// The membrane that an input of weight 1 leaves after `s` seconds: `k` of (EV-5).
pub fn kernel<R: Real>(neuron: &EventNeuron, s: R) -> R {
    let tau = R::lit(neuron.tau());
    let slow = (-s / tau).exp();
    tau * (slow - slow * slow)
}

/// The derivative of [`kernel`] by `s`.
pub fn kernel_slope<R: Real>(neuron: &EventNeuron, s: R) -> R {
    let slow = (-s / R::lit(neuron.tau())).exp();
    R::lit(2.0) * slow * slow - slow
}

/// Lets what moves a spike move the spikes after it (EV-6): `grads` enters as the gradient on every spike time alone and
/// leaves as that with the later spikes' share.
pub fn through_resets<R: Real>(neuron: &EventNeuron, fired: &[Fired<R>], grads: &mut [R]) {
    let tau = R::lit(neuron.tau());
    for k in (0..fired.len()).rev() {
        for i in k + 1..fired.len() {
            let share = R::lit(neuron.drop()) / neuron.guarded(fired[i].slope);
            let passed = grads[i] * share * ((fired[k].time - fired[i].time) / tau).exp();
            grads[k] += passed;
        }
    }
}

/// The share of neurons that did not fire, of every sample, from counts `[B, N]`.
#[must_use]
pub fn silent_shares(counts: &[u32], width: usize) -> Vec<f64> {
    let silent = |sample: &[u32]| sample.iter().filter(|c| **c == 0).count() as f64 / width as f64;
    counts.chunks(width.max(1)).map(silent).collect()
}

/// Synaptic scaling: by which share of their magnitude the gradients on the weights of each lane fall, so that neurons
/// which are silent come back.
///
/// `counts [B, N]` with neuron `site * lanes + lane`; `shares [B]` of silent neurons. Every silent neuron of a sample whose
/// share is at least `threshold` counts `factor`, on average over the batch.
#[must_use]
pub fn scaling_amounts(
    counts: &[u32],
    shares: &[f64],
    (sites, lanes): (usize, usize),
    threshold: f64,
    factor: f64,
) -> Vec<f64> {
    let mut amounts = vec![0.0; lanes];
    let unit = factor / shares.len().max(1) as f64;
    for (sample, _) in counts.chunks((sites * lanes).max(1)).zip(shares).filter(|(_, share)| **share >= threshold) {
        for (n, _) in sample.iter().enumerate().filter(|(_, count)| **count == 0) {
            amounts[n % lanes] += unit;
        }
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKED: EventNeuron =
        EventNeuron { tau_s: 0.1, threshold: 0.1, reset: 0.1, end: 0.5, capacity: 9, least_slope: 0.0 };
    const INPUTS: [(f64, f64); 3] = [(0.02, 3.0), (0.05, 2.0), (0.12, -4.0)];

    #[test]
    fn worked_example() {
        let fired = spikes(&WORKED, &INPUTS);
        let times: Vec<f64> = fired.iter().map(|f| f.time).collect();
        assert!((times[0] - 0.057_727_162).abs() < 1e-9 && (times[1] - 0.090_374_797).abs() < 1e-9, "{times:?}");
        // In absolute time the root is larger by the exponential of the spike's own time.
        for (f, x) in fired.iter().zip([4.548_957_997, 3.645_006_862]) {
            assert!((f.slope * (f.time / 0.2).exp() - x).abs() < 1e-8);
        }
        let mut grads = [1.0, 2.0];
        through_resets(&WORKED, &fired, &mut grads);
        assert!((grads[0] - 1.366_146_25).abs() < 1e-8 && grads[1] == 2.0);
    }

    #[test]
    fn slope_is_that_of_the_membrane() {
        let fired = spikes(&WORKED, &INPUTS);
        for (i, f) in fired.iter().enumerate() {
            let v = |t: f64| membrane(&WORKED, &INPUTS, &fired[..i], t);
            assert!((v(f.time) - WORKED.threshold).abs() < 1e-12);
            assert!(((v(f.time + 1e-7) - v(f.time - 1e-7)) / 2e-7 - f.slope).abs() < 1e-6);
        }
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let wrong = |neuron: EventNeuron| neuron.check().unwrap_err().to_string();
        assert_eq!(wrong(EventNeuron { capacity: 0, ..WORKED }), "event neuron: capacity = 0 is outside [1, 2^32)");
        assert_eq!(wrong(EventNeuron { tau_s: f64::NAN, ..WORKED }), "event neuron: tau_s = NaN is outside (0, inf)");
        assert_eq!(wrong(EventNeuron { end: -1.0, ..WORKED }), "event neuron: end = -1 is outside (0, inf]");
        WORKED.check().unwrap();
    }
}
