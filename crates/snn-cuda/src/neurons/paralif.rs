//! Parallel leaky neurons: filters and firing in one pass over time; equations in [`snn_core::neurons::paralif`].
//!
//! Of few and long lanes, the adjoints of firing and of the filters are launches of their own.

use snn_core::Lanes;
use snn_core::backend::{DecayMap, FilterGrad, Filters, Fire, Noise, ParaLifOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::paralif::{BernoulliGradient, Firing, Generator, Normaliser};
use snn_core::random::SpikeDraws;

use super::{Split, check_filter_grad, check_filters, scan, size, stride, surrogate, wide_scan};
use crate::device::Cuda;
use crate::kernels::PARALIF;
use crate::launch::{Fields, Launch};
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// A map of decays as the kernels number it.
pub(super) const fn map(map: DecayMap) -> i32 {
    match map {
        DecayMap::Direct => 0,
        DecayMap::Sigmoid => 1,
    }
}

/// Firing, checked and as kernels take it.
struct Plan<'a> {
    fields: Fields,
    surrogate: Fields,
    /// Absent where nothing reads them.
    threshold: Option<&'a Buffer<f32>>,
    stride: i32,
    noise: Option<&'a Buffer<f32>>,
    draws: Fields,
}

impl<'a> Plan<'a> {
    /// Neurons that do not fire.
    fn silent() -> Self {
        let fields = [0; 5].into_iter().fold(Fields::new("Firing"), Fields::int).float(0.0).float(1.0);
        let draws = [0; 4].into_iter().fold(Fields::new("Draws"), Fields::unsigned);
        let surrogate = surrogate(snn_core::Surrogate::BLOCK);
        Self { fields, surrogate, threshold: None, stride: 0, noise: None, draws }
    }

    fn new(op: &'static str, lanes: Lanes, fire: Option<Fire<'a, Cuda>>) -> Result<Self> {
        let Some(Fire { firing, threshold, noise }) = fire else { return Ok(Self::silent()) };
        let mut plan = Self::silent();
        let mut drawn = 0;
        if firing.generator.is_stochastic() {
            match noise {
                Noise::Given(noise) => {
                    check_len(op, "noise", noise.len(), lanes.len())?;
                    plan.noise = Some(noise);
                }
                Noise::Drawn(draws) => {
                    drawn = 1;
                    plan.draws = draws_fields(draws);
                }
            }
        } else {
            plan.stride = stride(op, "threshold", threshold, lanes.width)?;
            plan.threshold = Some(threshold);
        }
        let Firing { normaliser, generator, delayed } = firing;
        let (mut weighted, mut padding, mut temperature) = (0, 0.0, 1.0);
        let number = match generator {
            Generator::Threshold { surrogate: slope } => {
                plan.surrogate = surrogate(slope);
                1
            }
            Generator::Delta { surrogate: slope, pad_normalised } => {
                plan.surrogate = surrogate(slope);
                // N(0) of the others is 0.
                padding = if pad_normalised && normaliser == Normaliser::Sigmoid { 0.5 } else { 0.0 };
                2
            }
            Generator::Bernoulli(gradient) => {
                weighted = i32::from(gradient == BernoulliGradient::ProbabilityWeighted);
                3
            }
            Generator::Gumbel { temperature: tau } => {
                temperature = tau;
                4
            }
        };
        let normaliser = match normaliser {
            Normaliser::Identity => 0,
            Normaliser::Sigmoid => 1,
            Normaliser::Tanh => 2,
            Normaliser::ReluTanh => 3,
        };
        let ints = [number, normaliser, i32::from(delayed), weighted, drawn];
        plan.fields = ints.into_iter().fold(Fields::new("Firing"), Fields::int).float(padding).float(temperature);
        Ok(plan)
    }
}

fn draws_fields(draws: SpikeDraws) -> Fields {
    let [low, high] = draws.key();
    Fields::new("Draws").unsigned(low).unsigned(high).unsigned(draws.pass).unsigned(draws.population)
}

/// The five arguments that filters are to a kernel, or their absence.
fn with_filters<'a>(launch: Launch<'a>, filters: Option<&Filters<'_, Cuda>>, strides: [i32; 2]) -> Launch<'a> {
    launch
        .arg(filters.and_then(|f| f.alpha))
        .arg(strides[0])
        .arg(filters.map(|f| f.beta))
        .arg(strides[1])
        .arg(filters.map_or(0, |f| map(f.map)))
}

/// [`ParaLifOps::paralif_forward`] with the split given.
///
/// # Errors
///
/// As there.
pub fn forward(
    device: &Cuda,
    split: Split,
    lanes: Lanes,
    filters: Option<Filters<'_, Cuda>>,
    fire: Option<Fire<'_, Cuda>>,
    state: &mut Buffer<f32>,
    spikes: &mut CudaSpikes,
) -> Result<()> {
    const OP: &str = "paralif_forward";
    check_len(OP, "state", state.len(), lanes.len())?;
    let strides = filters.as_ref().map_or(Ok([0; 2]), |f| check_filters(OP, f, lanes.width))?;
    let plan = Plan::new(OP, lanes, fire)?;
    if fire.is_none() && filters.is_none() {
        return Ok(());
    }
    let words = fire.map(|_| spikes.overwrite(device, lanes, 1)).transpose()?;
    let relay = split == Split::Time && filters.is_some();
    let launch = match (split, relay) {
        (Split::Lanes, _) => scan(device, &PARALIF, "paralif_forward", lanes),
        (Split::Time, true) => wide_scan(device, &PARALIF, "paralif_forward_relay", lanes),
        (Split::Time, false) => wide_scan(device, &PARALIF, "paralif_forward", lanes),
    };
    let launch = with_filters(launch.arg(state), filters.as_ref(), strides)
        .arg(plan.threshold)
        .arg(plan.stride)
        .arg(plan.noise)
        .arg(words)
        .arg(size(device, lanes)?)
        .arg(plan.fields)
        .arg(plan.draws);
    if relay { launch.run() } else { launch.arg(i32::from(split == Split::Time)).run() }
}

/// [`ParaLifOps::paralif_backward`] with the split given.
///
/// # Errors
///
/// As there.
#[expect(clippy::too_many_arguments, reason = "those of the operation, and the split")]
pub fn backward(
    device: &Cuda,
    split: Split,
    lanes: Lanes,
    filters: Option<Filters<'_, Cuda>>,
    fire: Option<Fire<'_, Cuda>>,
    membrane: &Buffer<f32>,
    grad: &mut Buffer<f32>,
    mut grads: FilterGrad<'_, Cuda>,
) -> Result<()> {
    const OP: &str = "paralif_backward";
    check_len(OP, "membrane", membrane.len(), lanes.len())?;
    check_len(OP, "grad", grad.len(), lanes.len())?;
    let strides = filters.as_ref().map_or(Ok([0; 2]), |f| check_filters(OP, f, lanes.width))?;
    let plan = Plan::new(OP, lanes, fire)?;
    check_filter_grad(OP, lanes, &grads)?;
    // Cut in time, the filters go back after firing has.
    let after = filters.as_ref().filter(|_| split == Split::Time);
    let fused = filters.as_ref().filter(|_| split == Split::Lanes);
    let last = after.map(|_| (grads.alpha.take(), grads.beta.take(), grads.current_sum.take()));
    let launch = match split {
        Split::Lanes => scan(device, &PARALIF, "paralif_backward", lanes),
        Split::Time => wide_scan(device, &PARALIF, "paralif_backward", lanes),
    };
    with_filters(launch.arg(membrane), fused, strides)
        .arg(plan.threshold)
        .arg(plan.stride)
        .arg(plan.noise)
        .arg(grads.membrane)
        .arg(&mut *grad)
        .arg(grads.alpha)
        .arg(grads.beta)
        .arg(grads.threshold)
        .arg(grads.current_sum)
        .arg(size(device, lanes)?)
        .arg(plan.fields)
        .arg(plan.draws)
        .arg(plan.surrogate)
        .arg(i32::from(split == Split::Time))
        .run()?;
    let Some((on_alpha, on_beta, sum)) = last else { return Ok(()) };
    with_filters(wide_scan(device, &PARALIF, "paralif_filter_grad", lanes).arg(membrane), after, strides)
        .arg(grad)
        .arg(on_alpha)
        .arg(on_beta)
        .arg(sum)
        .arg(size(device, lanes)?)
        .run()
}

impl ParaLifOps for Cuda {
    fn paralif_forward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        state: &mut Buffer<f32>,
        spikes: &mut CudaSpikes,
    ) -> Result<()> {
        forward(self, self.split(lanes), lanes, filters, fire, state, spikes)
    }

    fn paralif_backward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        membrane: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        backward(self, self.split(lanes), lanes, filters, fire, membrane, grad, grads)
    }
}
