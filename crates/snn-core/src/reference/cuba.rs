//! Current-based neurons on the reference backend, sample by sample.

use super::paralif::{check_filters, check_grads, check_list, decays, rectified};
use super::{DenseSpikes, Reference};
use crate::backend::{CubaOps, CubaParameters, FilterGrad};
use crate::error::{Error, Result, check_len};
use crate::neurons::cuba::{self, Constants, CubaNeuron, Recurrence};
use crate::real::Real;
use crate::shape::Lanes;

/// The constants of every neuron, and the derivatives of the maps they went through.
struct Owned<R> {
    alpha: Vec<R>,
    beta: Vec<R>,
    threshold: Vec<R>,
    slopes: [Vec<R>; 3],
    weight: Vec<R>,
    bias: Vec<R>,
}

impl<R: Real> Owned<R> {
    fn new(
        op: &'static str,
        neuron: &CubaNeuron,
        width: usize,
        parameters: &CubaParameters<'_, Reference<R>>,
    ) -> Result<Self> {
        check_filters(op, &parameters.filters, width)?;
        if neuron.fires {
            check_list(op, "threshold", parameters.threshold, width)?;
        }
        let (mut weight, mut bias) = (vec![], vec![]);
        match (neuron.recurrence, &parameters.recurrent) {
            (Recurrence::None, None) => {}
            (Recurrence::Spike | Recurrence::Relu, Some(recurrent)) => {
                check_len(op, "recurrent weight", recurrent.weight.len(), width * width)?;
                check_len(op, "recurrent bias", recurrent.bias.len(), width)?;
                (weight, bias) = (recurrent.weight.clone(), recurrent.bias.clone());
            }
            (_, got) => {
                let want = format_args!("weights exactly if the neuron is recurrent ({:?})", neuron.recurrence);
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        }
        let decays: Vec<_> = (0..width).map(|n| decays(&parameters.filters, n)).collect();
        let thresholds: Vec<_> = (0..width)
            .map(|n| if neuron.fires { rectified(parameters.threshold, n) } else { (R::ZERO, R::ZERO) })
            .collect();
        let values = |i: usize| decays.iter().map(|d| d[i]).unzip();
        let ((alpha, alpha_slope), (beta, beta_slope)) = (values(0), values(1));
        let (threshold, threshold_slope) = thresholds.into_iter().unzip();
        Ok(Self { alpha, beta, threshold, slopes: [alpha_slope, beta_slope, threshold_slope], weight, bias })
    }

    fn constants(&self) -> Constants<'_, R> {
        let Self { alpha, beta, threshold, weight, bias, .. } = self;
        Constants { alpha, beta, threshold, weight, bias }
    }
}

impl<R: Real> CubaOps for Reference<R> {
    fn cuba_forward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &mut Vec<R>,
        mut synaptic: Option<&mut Vec<R>>,
        spikes: &mut DenseSpikes<R>,
    ) -> Result<()> {
        const OP: &str = "cuba_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        let owned = Owned::new(OP, neuron, lanes.width, &parameters)?;
        if let Some(s) = &synaptic {
            check_len(OP, "synaptic", s.len(), lanes.len())?;
        }
        let sample = lanes.steps * lanes.width;
        let mut fired = Vec::with_capacity(lanes.len());
        for b in 0..lanes.batch {
            let trace = cuba::trace(neuron, &owned.constants(), &state[b * sample..(b + 1) * sample]);
            state[b * sample..(b + 1) * sample].copy_from_slice(&trace.state);
            if let Some(s) = synaptic.as_deref_mut() {
                s[b * sample..(b + 1) * sample].copy_from_slice(&trace.synaptic);
            }
            fired.extend(trace.spikes);
        }
        if neuron.fires {
            *spikes = DenseSpikes { lanes, values: fired };
        }
        Ok(())
    }

    fn cuba_backward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &Vec<R>,
        synaptic: Option<&Vec<R>>,
        grad: &mut Vec<R>,
        mut grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "cuba_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        check_grads(OP, lanes, &grads)?;
        let owned = Owned::new(OP, neuron, lanes.width, &parameters)?;
        if grads.alpha.is_some() {
            check_len(OP, "synaptic", synaptic.map_or(0, Vec::len), lanes.len())?;
        }
        let (sample, width, constants) = (lanes.steps * lanes.width, lanes.width, owned.constants());
        for b in 0..lanes.batch {
            let cut = b * sample..(b + 1) * sample;
            let u = &state[cut.clone()];
            // The adjoint takes the synaptic trace for both decays; (1 - beta) m s = u - beta v gives the part of it
            // that beta needs, and where alpha is not wanted the rest may be anything.
            let s = synaptic.map_or_else(|| taken(neuron, &constants, u), |s| s[cut.clone()].to_vec());
            let trace = cuba::Trace { state: u.to_vec(), synaptic: s, spikes: vec![] };
            let given = grads.membrane.map(|g| &g[cut.clone()]);
            let adjoint = cuba::adjoint(neuron, &constants, &trace, &grad[cut.clone()], given);
            for n in 0..width {
                let lane = b * width + n;
                let places = [&mut grads.alpha, &mut grads.beta, &mut grads.threshold];
                let values = [&adjoint.alpha, &adjoint.beta, &adjoint.threshold];
                for ((place, value), slope) in places.into_iter().zip(values).zip(&owned.slopes) {
                    if let Some(out) = place.as_deref_mut() {
                        out[lane] = slope[n] * value[n];
                    }
                }
                if let Some(out) = grads.current_sum.as_deref_mut() {
                    out[lane] = (0..lanes.steps).fold(R::ZERO, |sum, t| sum + adjoint.current[t * width + n]);
                }
            }
            grad[cut].copy_from_slice(&adjoint.current);
        }
        Ok(())
    }

    fn cuba_membrane(&self, neuron: &CubaNeuron, lanes: Lanes, threshold: &Vec<R>, state: &mut Vec<R>) -> Result<()> {
        check_len("cuba_membrane", "state", state.len(), lanes.len())?;
        if neuron.fires {
            check_list("cuba_membrane", "threshold", threshold, lanes.width)?;
            for (i, u) in state.iter_mut().enumerate() {
                if *u > rectified(threshold, i % lanes.width).0 {
                    *u = R::ZERO;
                }
            }
        }
        Ok(())
    }
}

/// The synaptic trace where the membrane took it in, from the membrane alone.
fn taken<R: Real>(neuron: &CubaNeuron, c: &Constants<'_, R>, state: &[R]) -> Vec<R> {
    let width = c.beta.len();
    let after = |i: usize| {
        let fires = neuron.fires && state[i] > c.threshold[i % width];
        if fires { R::ZERO } else { state[i] }
    };
    let at = |i: usize| {
        let before = i.checked_sub(width).map_or(R::ZERO, after);
        let beta = c.beta[i % width];
        (state[i] - beta * before) / (R::ONE - beta)
    };
    (0..state.len()).map(at).collect()
}
