//! The time of every family's scans.

use anyhow::Result;
use snn_core::backend::{
    AlifOps, AlifParameters, BlockOps, CubaOps, CubaParameters, DecayMap, FilterGrad, Filters, Fire, Leak, LeakGrad,
    LifOps, Memory, Noise, ParaLifOps, SpikeMemory,
};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Limits};
use snn_core::neurons::block::BlockNeuron;
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::neurons::paralif::FiringMode;
use snn_core::random::SpikeDraws;
use snn_core::{Lanes, Surrogate};
use snn_cuda::Cuda;

use super::each;

/// Seconds of the forward and backward scan of every family without recurrent connections.
pub(super) fn scan_times(device: &Cuda, lanes: Lanes) -> Result<Vec<(&'static str, [f64; 2])>> {
    let (mut state, mut grad) = (device.zeros(lanes.len())?, device.zeros(lanes.len())?);
    let beta = device.buffer_from(&vec![0.9_f32; lanes.width])?;
    let half = device.buffer_from(&vec![0.5_f32; lanes.width])?;
    let mut spikes = device.spikes();
    let mut all = Vec::new();
    let mut time = |name, forward: &mut dyn FnMut() -> Result<()>, backward: &mut dyn FnMut() -> Result<()>| {
        let times = [each(device, 10, forward)?, each(device, 10, backward)?];
        all.push((name, times));
        Ok::<_, anyhow::Error>(())
    };
    // Both closures use the same buffers, one after the other.
    let buffers = std::cell::RefCell::new((&mut state, &mut grad, &mut spikes));
    let leak = || Leak { beta_raw: &beta, initial: None };
    let lifs = [
        ("leaky integrator", LifNeuron::INTEGRATOR),
        ("LIF, many spikes", LifNeuron::new(LifKind::Multi { reset: Path::Attached })),
        ("LIF, one spike", LifNeuron::new(LifKind::Single { mask: Path::Attached })),
    ];
    for (name, neuron) in lifs {
        time(
            name,
            &mut || {
                let (state, _, spikes) = &mut *buffers.borrow_mut();
                Ok(device.lif_forward(&neuron, lanes, leak(), state, spikes)?)
            },
            &mut || {
                let (state, grad, _) = &mut *buffers.borrow_mut();
                Ok(device.lif_backward(&neuron, lanes, leak(), state, grad, LeakGrad::default())?)
            },
        )?;
    }
    let block = BlockNeuron::default();
    time(
        "block",
        &mut || {
            let (state, _, spikes) = &mut *buffers.borrow_mut();
            Ok(device.block_forward(&block, lanes, leak(), state, spikes)?)
        },
        &mut || {
            let (state, grad, _) = &mut *buffers.borrow_mut();
            Ok(device.block_backward(&block, lanes, leak(), state, grad, LeakGrad::default())?)
        },
    )?;
    let filters = Filters::<Cuda> { alpha: Some(&half), beta: &beta, map: DecayMap::Direct };
    for (name, mode) in [("ParaLIF-T", FiringMode::T), ("SPSN-SB", FiringMode::SB)] {
        let fire = Fire::<Cuda> {
            firing: mode.firing(Surrogate::FastSigmoid { scale: 100.0 }),
            threshold: &half,
            noise: Noise::Drawn(SpikeDraws { seed: 1, pass: 1, population: 1 }),
        };
        time(
            name,
            &mut || {
                let (state, _, spikes) = &mut *buffers.borrow_mut();
                Ok(device.paralif_forward(lanes, Some(filters), Some(fire), state, spikes)?)
            },
            &mut || {
                let (state, grad, _) = &mut *buffers.borrow_mut();
                Ok(device.paralif_backward(lanes, Some(filters), Some(fire), state, grad, FilterGrad::default())?)
            },
        )?;
    }
    let cuba = CubaNeuron {
        surrogate: Surrogate::FastSigmoid { scale: 10.0 },
        refractory: 0,
        fires: true,
        recurrence: Recurrence::None,
    };
    let parameters = CubaParameters::<Cuda> { filters, threshold: &half, recurrent: None };
    time(
        "CUBA",
        &mut || {
            let (state, _, spikes) = &mut *buffers.borrow_mut();
            Ok(device.cuba_forward(&cuba, lanes, parameters, state, None, spikes)?)
        },
        &mut || {
            let (state, grad, _) = &mut *buffers.borrow_mut();
            Ok(device.cuba_backward(&cuba, lanes, parameters, state, None, grad, FilterGrad::default())?)
        },
    )?;
    let parameters = AlifParameters::<Cuda> { beta: &beta, decay: &beta, strength: &half, recurrent: None };
    let gradients = [
        ("ALIF, steps", AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached }),
        ("ALIF, blocks", AlifGradient::Blocks { spikes: Path::Detached }),
    ];
    for (name, gradient) in gradients {
        let neuron = AlifNeuron {
            surrogate: Surrogate::MULTI_GAUSSIAN,
            refractory: 40,
            adapts: true,
            recurrent: false,
            gradient,
            limits: Limits::PUBLISHED,
        };
        time(
            name,
            &mut || {
                let (state, _, spikes) = &mut *buffers.borrow_mut();
                Ok(device.alif_forward(&neuron, lanes, parameters, state, spikes)?)
            },
            &mut || {
                let (state, grad, _) = &mut *buffers.borrow_mut();
                Ok(device.alif_backward(&neuron, lanes, parameters, state, grad, Default::default())?)
            },
        )?;
    }
    Ok(all)
}
