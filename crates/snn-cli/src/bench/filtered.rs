//! One scan of neurons with a synaptic and a membrane filter: the sequential baseline and parallel neurons.
//!
//! The noise of stochastic neurons is drawn in the scan, or given as an array: the difference is what drawing costs,
//! less the time of reading the array.

use anyhow::Result;
use snn_core::backend::{CubaOps, CubaParameters, DecayMap, FilterGrad, Filters, Fire, Memory, Noise, ParaLifOps};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::neurons::paralif::FiringMode;
use snn_core::random::SpikeDraws;
use snn_core::{Lanes, Spikes, Surrogate};
use snn_cpu::Cpu;

use super::timing::{self, Times};

/// Which neurons, and where their noise comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilteredNeuron {
    /// The sequential neuron with a reset.
    Cuba,
    /// A parallel neuron that draws its noise, if it needs any.
    Drawn(FiringMode),
    /// A parallel neuron whose noise is an array.
    Given(FiringMode),
}

impl FilteredNeuron {
    /// Those that are timed with every operation.
    pub(crate) const ALL: [Self; 7] = [
        Self::Cuba,
        Self::Drawn(FiringMode::T),
        Self::Drawn(FiringMode::D),
        Self::Drawn(FiringMode::SB),
        Self::Given(FiringMode::SB),
        Self::Drawn(FiringMode::GS),
        Self::Given(FiringMode::GS),
    ];

    /// The name in tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Cuba => "cuba".into(),
            Self::Drawn(mode) => format!("paralif {mode}"),
            Self::Given(mode) => format!("paralif {mode}, given noise,"),
        }
    }

    /// Whether the forward pass reads an array of noise.
    pub(crate) fn reads_noise(self) -> bool {
        matches!(self, Self::Given(mode) if mode.is_stochastic())
    }

    /// Whether the backward pass reads it as well.
    pub(crate) fn slope_reads_noise(self) -> bool {
        matches!(self, Self::Given(FiringMode::GS))
    }
}

/// A scan with its buffers.
#[derive(Debug)]
pub(crate) struct FilteredScan {
    neuron: FilteredNeuron,
    lanes: Lanes,
    current: Vec<f32>,
    noise: Vec<f32>,
    decay: Vec<f32>,
    threshold: Vec<f32>,
    state: Vec<f32>,
    grad: Vec<f32>,
    threshold_grad: Vec<f32>,
    current_sum: Vec<f32>,
    pub(crate) spikes: Spikes,
}

/// Scans are timed with this slope.
const SURROGATE: Surrogate = Surrogate::FastSigmoid { scale: 100.0 };

impl FilteredScan {
    /// A scan whose membranes hover about the threshold: neurons fire, but not all the time.
    pub(crate) fn new(cpu: &Cpu, neuron: FilteredNeuron, lanes: Lanes) -> Result<Self> {
        let per_lane = lanes.batch * lanes.width;
        let uniform = |len: usize, salt: u32| {
            let bits = move |i: usize| (i as u32).wrapping_mul(2_654_435_769).wrapping_add(salt);
            (0..len).map(move |i| snn_core::random::open_unit_f32(bits(i)))
        };
        let noise: Vec<f32> = match neuron {
            FilteredNeuron::Given(FiringMode::GS) => uniform(lanes.len(), 7).map(|u| (u / (1.0 - u)).ln()).collect(),
            FilteredNeuron::Given(_) => uniform(lanes.len(), 7).collect(),
            _ => Vec::new(),
        };
        let mode = match neuron {
            FilteredNeuron::Cuba => FiringMode::T,
            FilteredNeuron::Drawn(mode) | FilteredNeuron::Given(mode) => mode,
        };
        Ok(Self {
            neuron,
            lanes,
            current: uniform(lanes.len(), 0).map(|u| 0.2 * u - 0.05).collect(),
            noise,
            // 20 steps, both filters.
            decay: vec![(-0.05_f32).exp()],
            threshold: vec![mode.default_threshold() as f32],
            state: cpu.zeros(lanes.len())?,
            grad: cpu.zeros(lanes.len())?,
            threshold_grad: cpu.zeros(per_lane)?,
            current_sum: cpu.zeros(per_lane)?,
            spikes: Spikes::new(),
        })
    }

    /// Puts the current back.
    pub(crate) fn reset(&mut self, cpu: &Cpu) -> Result<()> {
        Ok(cpu.copy(&self.current, &mut self.state)?)
    }

    /// Sets the gradient on the spikes to 1.
    pub(crate) fn reset_grad(&mut self, cpu: &Cpu) -> Result<()> {
        Ok(cpu.fill(&mut self.grad, 1.0)?)
    }

    /// The forward scan, from the current to membrane and spikes.
    pub(crate) fn forward(&mut self, cpu: &Cpu) -> Result<()> {
        let Self { neuron, lanes, noise, decay, threshold, state, spikes, .. } = self;
        let filters = Filters { alpha: Some(&*decay), beta: &*decay, map: DecayMap::Direct };
        match fire(*neuron, threshold, noise) {
            Some(fire) => cpu.paralif_forward(*lanes, Some(filters), Some(fire), state, spikes)?,
            None => {
                let parameters = CubaParameters { filters, threshold, recurrent: None };
                cpu.cuba_forward(&LIF, *lanes, parameters, state, None, spikes)?;
            }
        }
        Ok(())
    }

    /// The backward scan, from the gradient on the spikes to that on the current.
    pub(crate) fn backward(&mut self, cpu: &Cpu) -> Result<()> {
        let Self { neuron, lanes, noise, decay, threshold, state, grad, threshold_grad, current_sum, .. } = self;
        let filters = Filters { alpha: Some(&*decay), beta: &*decay, map: DecayMap::Direct };
        let grads =
            FilterGrad { threshold: Some(threshold_grad), current_sum: Some(current_sum), ..FilterGrad::default() };
        match fire(*neuron, threshold, noise) {
            Some(fire) => cpu.paralif_backward(*lanes, Some(filters), Some(fire), state, grad, grads)?,
            None => {
                let parameters = CubaParameters { filters, threshold, recurrent: None };
                cpu.cuba_backward(&LIF, *lanes, parameters, state, None, grad, grads)?;
            }
        }
        Ok(())
    }

    /// Times both directions.
    pub(crate) fn times(cpu: &Cpu, neuron: FilteredNeuron, lanes: Lanes, repeats: usize) -> Result<(Times, Times)> {
        let mut scan = Self::new(cpu, neuron, lanes)?;
        let forward = timing::repeat(repeats, &mut scan, |s| s.reset(cpu), |s| s.forward(cpu))?;
        let backward = timing::repeat(repeats, &mut scan, |s| s.reset_grad(cpu), |s| s.backward(cpu))?;
        Ok((forward, backward))
    }
}

const LIF: CubaNeuron = CubaNeuron { surrogate: SURROGATE, refractory: 0, fires: true, recurrence: Recurrence::None };

/// How a parallel neuron fires; none for the sequential one.
fn fire<'a>(neuron: FilteredNeuron, threshold: &'a Vec<f32>, noise: &'a Vec<f32>) -> Option<Fire<'a, Cpu>> {
    let (mode, noise) = match neuron {
        FilteredNeuron::Cuba => return None,
        FilteredNeuron::Drawn(mode) => (mode, Noise::Drawn(SpikeDraws { seed: 0, pass: 0, population: 0 })),
        FilteredNeuron::Given(mode) => (mode, Noise::Given(noise)),
    };
    Some(Fire { firing: mode.firing(SURROGATE), threshold, noise })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Given and drawn noise have the same law, so the same share of steps fires.
    #[test]
    fn given_noise_fires_as_often_as_drawn_noise() {
        let cpu = Cpu::new(1).unwrap();
        let lanes = Lanes::new(4, 200, 32);
        for mode in [FiringMode::SB, FiringMode::GS] {
            let rate = |neuron| {
                let mut scan = FilteredScan::new(&cpu, neuron, lanes).unwrap();
                scan.reset(&cpu).unwrap();
                scan.forward(&cpu).unwrap();
                scan.spikes.density()
            };
            let (drawn, given) = (rate(FilteredNeuron::Drawn(mode)), rate(FilteredNeuron::Given(mode)));
            assert!((drawn - given).abs() < 0.02 && drawn > 0.5, "{mode}: {drawn} {given}");
        }
    }
}
