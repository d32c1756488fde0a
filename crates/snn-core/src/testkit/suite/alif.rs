//! Adaptive neurons, and what fitting recorded ones needs.

use super::{CLOSE, Pair};
use crate::backend::{AlifGrad, AlifOps as _, AlifParameters, FitOps as _, LinAlg as _, SpikeMemory};
use crate::fit::{Raster, VanRossum};
use crate::neurons::alif::{AlifGradient, AlifNeuron, LimitGradient, Limits};
use crate::neurons::lif::Path;
use crate::reference::Reference;
use crate::testkit::Inputs;
use crate::{Backend, Lanes, Surrogate};

const GRADIENTS: [AlifGradient; 5] = [
    AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached },
    AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Detached },
    AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Attached },
    AlifGradient::Blocks { spikes: Path::Detached },
    AlifGradient::Blocks { spikes: Path::Attached },
];

/// Adaptive neurons: every gradient, latencies, recurrence, constants beyond their limits.
pub fn alif_matches_reference<B: Backend>(device: &B) {
    let surrogates = [Surrogate::MULTI_GAUSSIAN, Surrogate::BLOCK, Surrogate::ARCTAN];
    let sizes = [(1, 1, 1), (3, 31, 33), (2, 12, 129), (2, 41, 70)];
    let mut option = 0;
    for gradient in GRADIENTS {
        for (refractory, adapts, recurrent) in
            [(0, true, true), (3, true, false), (7, false, true), (5, true, true), (50, true, true)]
        {
            for (batch, steps, width) in sizes {
                option += 1;
                let limits = match option % 2 {
                    0 => Limits::PUBLISHED,
                    _ => Limits { gradient: LimitGradient::Inward, ..Limits::PUBLISHED },
                };
                let surrogate = surrogates[option % 3];
                let neuron = AlifNeuron { surrogate, refractory, adapts, recurrent, gradient, limits };
                alif_case(device, &neuron, Lanes::new(batch, steps, width), option as u64);
            }
        }
    }
}

fn alif_case<B: Backend>(device: &B, neuron: &AlifNeuron, lanes: Lanes, seed: u64) {
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(100 + seed);
    let what = format!("{neuron:?} {lanes:?}");
    let (width, r) = (lanes.width, &pair.reference);
    let beta = pair.upload(&inputs.uniform(width, 0.5, 1.02));
    let decay = pair.upload(&inputs.uniform(width, -0.9, 1.02));
    let strength = pair.upload(&inputs.uniform(width, -0.9, 1.2));
    let size = 0.5 / (width as f32).sqrt();
    let weight = pair.upload(&inputs.uniform(width * width, -size, size));
    let mut state = pair.upload(&inputs.uniform(lanes.len(), -0.5, 0.9));
    let mut grad = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
    let membrane = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
    let parameters = AlifParameters::<B> {
        beta: &beta.device,
        decay: &decay.device,
        strength: &strength.device,
        recurrent: neuron.recurrent.then_some(&weight.device),
    };
    let parameters_ref = AlifParameters::<Reference<f64>> {
        beta: &beta.reference,
        decay: &decay.reference,
        strength: &strength.reference,
        recurrent: neuron.recurrent.then_some(&weight.reference),
    };
    let (mut spikes, mut spikes_ref) = (device.spikes(), r.spikes());
    device.alif_forward(neuron, lanes, parameters, &mut state.device, &mut spikes).unwrap();
    r.alif_forward(neuron, lanes, parameters_ref, &mut state.reference, &mut spikes_ref).unwrap();
    let got = device.download_spikes(&spikes).unwrap();
    assert_eq!(got.to_dense::<f64>(), spikes_ref.values, "{what}: spikes");
    pair.compare(&format!("{what}: membrane"), &state, CLOSE);

    let mut thresholds = pair.rubbish(lanes.len());
    device.alif_thresholds(neuron, lanes, parameters, &state.device, &mut thresholds.device).unwrap();
    r.alif_thresholds(neuron, lanes, parameters_ref, &state.reference, &mut thresholds.reference).unwrap();
    pair.compare(&format!("{what}: thresholds"), &thresholds, CLOSE);

    let late_by = neuron.block();
    let (mut late, mut late_ref) = (device.spikes(), r.spikes());
    device.delay_spikes(&spikes, late_by, &mut late).unwrap();
    r.delay_spikes(&spikes_ref, late_by, &mut late_ref).unwrap();
    assert_eq!(device.download_spikes(&late).unwrap().to_dense::<f64>(), late_ref.values, "{what}: delayed spikes");

    let given = !seed.is_multiple_of(4);
    let mut places = [width, width, width, lanes.batch * width].map(|len| pair.rubbish(len));
    let [on_beta, on_decay, on_strength, sum] = &mut places;
    let grads = AlifGrad {
        membrane: given.then_some(&membrane.device),
        current_sum: Some(&mut sum.device),
        beta: Some(&mut on_beta.device),
        decay: Some(&mut on_decay.device),
        strength: Some(&mut on_strength.device),
    };
    device.alif_backward(neuron, lanes, parameters, &state.device, &mut grad.device, grads).unwrap();
    let grads = AlifGrad {
        membrane: given.then_some(&membrane.reference),
        current_sum: Some(&mut sum.reference),
        beta: Some(&mut on_beta.reference),
        decay: Some(&mut on_decay.reference),
        strength: Some(&mut on_strength.reference),
    };
    r.alif_backward(neuron, lanes, parameters_ref, &state.reference, &mut grad.reference, grads).unwrap();
    pair.compare(&format!("{what}: gradient on the current"), &grad, 4.0 * CLOSE);
    for (name, place) in ["beta", "decay", "strength", "sum"].iter().zip(&places) {
        pair.compare(&format!("{what}: gradient on {name}"), place, 10.0 * CLOSE);
    }
}

/// Inputs of neurons' own, spike train distances, and the receptive field over time.
pub fn fitting_matches_reference<B: Backend>(device: &B) {
    let pair = Pair::new(device);
    let r = &pair.reference;
    let mut inputs = Inputs::new(61);
    for (batch, steps, width, taps) in [(1, 1, 1, 1), (3, 31, 33, 4), (2, 12, 5, 20), (2, 200, 70, 1)] {
        let lanes = Lanes::new(batch, steps, width);
        let x = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        let weight = pair.upload(&inputs.uniform(taps * width, -1.0, 1.0));
        let bias = pair.upload(&inputs.uniform(width, -1.0, 1.0));
        let mut out = pair.rubbish(lanes.len());
        device.own_current(lanes, &x.device, &weight.device, &bias.device, &mut out.device).unwrap();
        r.own_current(lanes, &x.reference, &weight.reference, &bias.reference, &mut out.reference).unwrap();
        pair.compare("own current", &out, CLOSE);
        let grad = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        let (mut on_weight, mut on_bias) = (pair.rubbish(taps * width), pair.rubbish(width));
        let places = (&mut on_weight.device, &mut on_bias.device);
        device.own_current_grad(lanes, &x.device, &grad.device, places.0, places.1).unwrap();
        let places = (&mut on_weight.reference, &mut on_bias.reference);
        r.own_current_grad(lanes, &x.reference, &grad.reference, places.0, places.1).unwrap();
        pair.compare("own weights", &on_weight, CLOSE);
        pair.compare("own biases", &on_bias, CLOSE);

        let mut unfolded = pair.rubbish(lanes.len() * taps);
        device.unfold_steps(lanes, taps, &x.device, &mut unfolded.device).unwrap();
        r.unfold_steps(lanes, taps, &x.reference, &mut unfolded.reference).unwrap();
        pair.compare("unfolded steps", &unfolded, 0.0);
        let mut folded = pair.rubbish(lanes.len());
        device.fold_steps(lanes, taps, &unfolded.device, &mut folded.device).unwrap();
        r.fold_steps(lanes, taps, &unfolded.reference, &mut folded.reference).unwrap();
        pair.compare("folded steps", &folded, CLOSE);

        for (raster, density) in
            [(Raster::Spread(1), 0.1), (Raster::Spread(7), 0.2), (Raster::Pool(1), 0.3), (Raster::Spread(3), 0.0)]
        {
            let grid = Lanes::new(batch, raster.grid_steps(steps), width);
            let (spikes, spikes_ref) = pair.spikes(&inputs.spikes(lanes, density));
            let (target, target_ref) = pair.spikes(&inputs.spikes(grid, 0.4 * density));
            van_rossum_case(&pair, raster, [&spikes, &target], [&spikes_ref, &target_ref], lanes);
        }
        if steps % 2 == 0 {
            let (spikes, spikes_ref) = pair.spikes(&inputs.spikes(lanes, 0.3));
            let grid = Lanes::new(batch, steps / 2, width);
            let (target, target_ref) = pair.spikes(&inputs.spikes(grid, 0.2));
            van_rossum_case(&pair, Raster::Pool(2), [&spikes, &target], [&spikes_ref, &target_ref], lanes);
        }
        let (spikes, _) = pair.spikes(&inputs.spikes(lanes, 0.3));
        let (mut distance, mut grad) = (pair.rubbish(width).device, pair.rubbish(lanes.len()).device);
        let filter = VanRossum { tau: 5.0, dt: 0.1 };
        let wrong = device.van_rossum(&filter, Raster::Spread(2), &spikes, &spikes, &mut distance, &mut grad);
        assert!(wrong.is_err(), "a target of another length");
    }
}

fn van_rossum_case<B: Backend>(
    pair: &Pair<'_, B>,
    raster: Raster,
    [spikes, target]: [&B::Spikes; 2],
    [spikes_ref, target_ref]: [&<Reference<f64> as SpikeMemory>::Spikes; 2],
    lanes: Lanes,
) {
    let filter = VanRossum { tau: 9.0, dt: 0.4 };
    let (mut distance, mut grad) = (pair.rubbish(lanes.width), pair.rubbish(lanes.len()));
    let (d, g) = (&mut distance.device, &mut grad.device);
    pair.device.van_rossum(&filter, raster, spikes, target, d, g).unwrap();
    let (d, g) = (&mut distance.reference, &mut grad.reference);
    pair.reference.van_rossum(&filter, raster, spikes_ref, target_ref, d, g).unwrap();
    pair.compare(&format!("distance, {raster:?}"), &distance, CLOSE);
    pair.compare(&format!("gradient of the distance, {raster:?}"), &grad, CLOSE);
}
