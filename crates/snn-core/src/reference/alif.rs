//! Adaptive neurons on the reference backend, sample by sample.

use super::{DenseSpikes, Reference};
use crate::backend::{AlifGrad, AlifOps, AlifParameters};
use crate::error::{Error, Result, check_len};
use crate::neurons::alif::{self, AlifNeuron, Constants};
use crate::real::Real;
use crate::shape::Lanes;

/// The constants of every neuron, as used.
struct Owned<R> {
    beta: Vec<R>,
    decay: Vec<R>,
    strength: Vec<R>,
    weight: Vec<R>,
}

impl<R: Real> Owned<R> {
    fn new(
        op: &'static str,
        neuron: &AlifNeuron,
        width: usize,
        parameters: &AlifParameters<'_, Reference<R>>,
    ) -> Result<Self> {
        for (name, list) in [("beta", parameters.beta), ("decay", parameters.decay), ("strength", parameters.strength)]
        {
            check_len(op, name, list.len(), width)?;
        }
        let weight = match (neuron.recurrent, parameters.recurrent) {
            (false, None) => vec![],
            (true, Some(weight)) => {
                check_len(op, "recurrent weight", weight.len(), width * width)?;
                weight.clone()
            }
            (_, got) => {
                let want = "weights exactly if the neuron is recurrent";
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        };
        let limits = neuron.limits;
        Ok(Self {
            beta: parameters.beta.iter().map(|&x| limits.beta(x)).collect(),
            decay: parameters.decay.iter().map(|&x| limits.decay(x)).collect(),
            strength: parameters.strength.iter().map(|&x| limits.strength(x)).collect(),
            weight,
        })
    }

    fn constants(&self) -> Constants<'_, R> {
        let Self { beta, decay, strength, weight } = self;
        Constants { beta, decay, strength, weight }
    }
}

impl<R: Real> AlifOps for Reference<R> {
    fn alif_forward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &mut Vec<R>,
        spikes: &mut DenseSpikes<R>,
    ) -> Result<()> {
        const OP: &str = "alif_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        let owned = Owned::new(OP, neuron, lanes.width, &parameters)?;
        let mut values = Vec::with_capacity(lanes.len());
        for sample in state.chunks_mut((lanes.steps * lanes.width).max(1)) {
            let trace = alif::trace(neuron, &owned.constants(), sample);
            sample.copy_from_slice(&trace.state);
            values.extend(trace.spikes);
        }
        *spikes = DenseSpikes { lanes, values };
        Ok(())
    }

    fn alif_backward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Vec<R>,
        grad: &mut Vec<R>,
        grads: AlifGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "alif_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let owned = Owned::new(OP, neuron, lanes.width, &parameters)?;
        let AlifGrad { membrane, mut current_sum, beta, decay, strength } = grads;
        if let Some(m) = membrane {
            check_len(OP, "grad_membrane", m.len(), lanes.len())?;
        }
        if let Some(sum) = &current_sum {
            check_len(OP, "current_sum", sum.len(), lanes.batch * lanes.width)?;
        }
        let (sample, width) = (lanes.steps * lanes.width, lanes.width);
        let mut totals = [vec![R::ZERO; width], vec![R::ZERO; width], vec![R::ZERO; width]];
        for b in 0..lanes.batch {
            let cut = b * sample..(b + 1) * sample;
            let given = membrane.map(|m| &m[cut.clone()]);
            let adjoint = alif::adjoint(neuron, &owned.constants(), &state[cut.clone()], &grad[cut.clone()], given);
            for (total, part) in totals.iter_mut().zip([&adjoint.beta, &adjoint.decay, &adjoint.strength]) {
                total.iter_mut().zip(part).for_each(|(t, &p)| *t += p);
            }
            if let Some(sum) = current_sum.as_deref_mut() {
                for n in 0..width {
                    sum[b * width + n] = (0..lanes.steps).fold(R::ZERO, |sum, t| sum + adjoint.current[t * width + n]);
                }
            }
            grad[cut].copy_from_slice(&adjoint.current);
        }
        let limits = neuron.limits;
        let on_raw = [
            |limits: alif::Limits, raw: R, g: R| limits.on_beta(raw, g),
            |limits: alif::Limits, raw: R, g: R| limits.on_decay(raw, g),
            |limits: alif::Limits, raw: R, g: R| limits.on_strength(raw, g),
        ];
        let raw = [parameters.beta, parameters.decay, parameters.strength];
        for (((place, total), raw), on_raw) in [beta, decay, strength].into_iter().zip(totals).zip(raw).zip(on_raw) {
            let Some(out) = place else { continue };
            check_len(OP, "gradient on a constant", out.len(), width)?;
            for n in 0..width {
                out[n] = on_raw(limits, raw[n], total[n]);
            }
        }
        Ok(())
    }

    fn alif_thresholds(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Vec<R>,
        thresholds: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "alif_thresholds";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "thresholds", thresholds.len(), lanes.len())?;
        let owned = Owned::new(OP, neuron, lanes.width, &parameters)?;
        let (sample, width) = ((lanes.steps * lanes.width).max(1), lanes.width.max(1));
        for (state, out) in state.chunks(sample).zip(thresholds.chunks_mut(sample)) {
            for n in 0..lanes.width {
                let (p, b) = (owned.decay[n], owned.strength[n]);
                let replay = alif::replay(neuron, p, b, state.iter().skip(n).step_by(width).copied());
                let limits = replay.adaptation.iter().map(|&a| alif::threshold(neuron, b, a));
                out.iter_mut().skip(n).step_by(width).zip(limits).for_each(|(o, limit)| *o = limit);
            }
        }
        Ok(())
    }
}
