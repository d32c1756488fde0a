//! Parallel neurons on the reference backend, lane by lane.

use super::{DenseSpikes, Reference, step_of};
use crate::backend::{DecayMap, FilterGrad, Filters, Fire, Noise, ParaLifOps};
use crate::error::{Result, check_len};
use crate::neurons::paralif::{self, Generator, sigmoid};
use crate::random::{open_unit_f32, unit_f32};
use crate::real::Real;
use crate::shape::Lanes;

/// The entry of a neuron in a list that holds one for all or one each.
pub(super) fn entry<R: Real>(list: &[R], neuron: usize) -> R {
    if list.len() == 1 { list[0] } else { list[neuron] }
}

pub(super) fn check_list<R: Real>(op: &'static str, arg: &'static str, list: &[R], width: usize) -> Result<()> {
    if list.len() == 1 { Ok(()) } else { check_len(op, arg, list.len(), width) }
}

pub(super) fn check_filters<R: Real>(
    op: &'static str,
    filters: &Filters<'_, Reference<R>>,
    width: usize,
) -> Result<()> {
    check_list(op, "beta", filters.beta, width)?;
    filters.alpha.map_or(Ok(()), |alpha| check_list(op, "alpha", alpha, width))
}

/// Checks the gradients' places: one entry for each lane.
pub(super) fn check_grads<R: Real>(op: &'static str, lanes: Lanes, grads: &FilterGrad<'_, Reference<R>>) -> Result<()> {
    if let Some(m) = grads.membrane {
        check_len(op, "grad_membrane", m.len(), lanes.len())?;
    }
    let places = [
        ("grad_alpha", &grads.alpha),
        ("grad_beta", &grads.beta),
        ("grad_threshold", &grads.threshold),
        ("current_sum", &grads.current_sum),
    ];
    for (arg, buffer) in places {
        if let Some(b) = buffer {
            check_len(op, arg, b.len(), lanes.batch * lanes.width)?;
        }
    }
    Ok(())
}

/// The decays of a neuron and the derivatives of their map.
pub(super) fn decays<R: Real>(filters: &Filters<'_, Reference<R>>, neuron: usize) -> [(R, R); 2] {
    let map = |list: &[R]| {
        let raw = entry(list, neuron);
        match filters.map {
            DecayMap::Direct => (raw, R::ONE),
            DecayMap::Sigmoid => {
                let d = sigmoid(raw);
                (d, d * (R::ONE - d))
            }
        }
    };
    [filters.alpha.map_or((R::ZERO, R::ZERO), |list| map(list)), map(filters.beta)]
}

/// A threshold as used, and the derivative of that.
pub(super) fn rectified<R: Real>(list: &[R], neuron: usize) -> (R, R) {
    let raw = entry(list, neuron);
    if raw > R::ZERO { (raw, R::ONE) } else { (R::ZERO, R::ZERO) }
}

impl<R: Real> Reference<R> {
    fn check_fire(op: &'static str, lanes: Lanes, fire: &Fire<'_, Self>) -> Result<()> {
        if !fire.firing.generator.is_stochastic() {
            return check_list(op, "threshold", fire.threshold, lanes.width);
        }
        match fire.noise {
            Noise::Given(noise) => check_len(op, "noise", noise.len(), lanes.len()),
            Noise::Drawn(_) => Ok(()),
        }
    }

    /// The noise of one lane.
    fn noise(lanes: Lanes, lane: usize, fire: &Fire<'_, Self>) -> Vec<f64> {
        if !fire.firing.generator.is_stochastic() {
            return vec![];
        }
        let at = |t: usize| match fire.noise {
            Noise::Given(noise) => noise[step_of(lanes, lane, t)].value(),
            Noise::Drawn(draws) => {
                let bits = draws.bits(lane / lanes.width, t, lane % lanes.width, lanes.width);
                match fire.firing.generator {
                    Generator::Gumbel { .. } => {
                        let u = f64::from(open_unit_f32(bits));
                        (u / (1.0 - u)).ln()
                    }
                    _ => f64::from(unit_f32(bits)),
                }
            }
        };
        (0..lanes.steps).map(at).collect()
    }
}

impl<R: Real> ParaLifOps for Reference<R> {
    fn paralif_forward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        state: &mut Vec<R>,
        spikes: &mut DenseSpikes<R>,
    ) -> Result<()> {
        const OP: &str = "paralif_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        filters.as_ref().map_or(Ok(()), |f| check_filters(OP, f, lanes.width))?;
        fire.as_ref().map_or(Ok(()), |f| Self::check_fire(OP, lanes, f))?;
        let mut fired = vec![R::ZERO; state.len()];
        for lane in 0..lanes.batch * lanes.width {
            let neuron = lane % lanes.width;
            let mut v: Vec<R> = (0..lanes.steps).map(|t| state[step_of(lanes, lane, t)]).collect();
            if let Some(filters) = &filters {
                let [(alpha, _), (beta, _)] = decays(filters, neuron);
                v = paralif::filter(alpha, beta, &v).1;
                v.iter().enumerate().for_each(|(t, &v)| state[step_of(lanes, lane, t)] = v);
            }
            if let Some(fire) = &fire {
                let (threshold, _) = rectified(fire.threshold, neuron);
                let z = paralif::fire(&fire.firing, threshold, &Self::noise(lanes, lane, fire), &v);
                z.iter().enumerate().for_each(|(t, &z)| fired[step_of(lanes, lane, t)] = z);
            }
        }
        if fire.is_some() {
            *spikes = DenseSpikes { lanes, values: fired };
        }
        Ok(())
    }

    fn paralif_backward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        membrane: &Vec<R>,
        grad: &mut Vec<R>,
        mut grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "paralif_backward";
        check_len(OP, "membrane", membrane.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        check_grads(OP, lanes, &grads)?;
        filters.as_ref().map_or(Ok(()), |f| check_filters(OP, f, lanes.width))?;
        fire.as_ref().map_or(Ok(()), |f| Self::check_fire(OP, lanes, f))?;
        for place in [&mut grads.alpha, &mut grads.beta, &mut grads.threshold].into_iter().flatten() {
            place.fill(R::ZERO);
        }
        for lane in 0..lanes.batch * lanes.width {
            let gather = |x: &[R]| -> Vec<R> { (0..lanes.steps).map(|t| x[step_of(lanes, lane, t)]).collect() };
            let (neuron, v, mut g) = (lane % lanes.width, gather(membrane), gather(grad));
            if let Some(fire) = &fire {
                let (threshold, mask) = rectified(fire.threshold, neuron);
                let noise = Self::noise(lanes, lane, fire);
                let on_threshold;
                (g, on_threshold) = paralif::fire_adjoint(&fire.firing, threshold, &noise, &v, &g);
                if let Some(out) = grads.threshold.as_deref_mut() {
                    out[lane] = mask * on_threshold;
                }
            }
            if let Some(given) = grads.membrane {
                g.iter_mut().zip(gather(given)).for_each(|(g, given)| *g += given);
            }
            if let Some(filters) = &filters {
                let [(alpha, alpha_slope), (beta, beta_slope)] = decays(filters, neuron);
                let adjoint = paralif::filter_adjoint(alpha, beta, &v, &g);
                g = adjoint.current;
                if let Some(out) = grads.alpha.as_deref_mut() {
                    out[lane] = alpha_slope * adjoint.alpha;
                }
                if let Some(out) = grads.beta.as_deref_mut() {
                    out[lane] = beta_slope * adjoint.beta;
                }
            }
            if let Some(out) = grads.current_sum.as_deref_mut() {
                out[lane] = g.iter().fold(R::ZERO, |sum, &g| sum + g);
            }
            g.iter().enumerate().for_each(|(t, &g)| grad[step_of(lanes, lane, t)] = g);
        }
        Ok(())
    }
}
