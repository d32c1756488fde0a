//! Scans beyond the suite: lanes cut in time, sizes beside words and chunks, layers wider than a block of threads.

mod common;

use common::device;
use snn_core::backend::{
    AlifGrad, AlifOps, AlifParameters, CubaOps, CubaParameters, DecayMap, FilterGrad, Filters, Fire, FitOps, Leak,
    LeakGrad, Memory, Noise, Recurrent, SpikeMemory,
};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, LimitGradient, Limits};
use snn_core::neurons::block::{BlockNeuron, Start};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::neurons::paralif::{Firing, FiringMode};
use snn_core::random::SpikeDraws;
use snn_core::reference::Reference;
use snn_core::testkit::{Inputs, assert_close};
use snn_core::{Lanes, Real, Surrogate};
use snn_cuda::Cuda;
use snn_cuda::neurons::{Split, alif, block, cuba, lif, paralif};

/// What an operation gave, by name.
type Results = Vec<(&'static str, Vec<f64>)>;

const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (2, 7, 31), (1, 8, 33), (3, 9, 257), (2, 300, 33), (1, 300, 257), (2, 65, 1)];

fn buffer<M: Memory>(device: &M, x: &[f32]) -> M::Buffer<M::Real> {
    let lifted: Vec<M::Real> = x.iter().map(|&v| M::Real::lit(v.into())).collect();
    device.buffer_from(&lifted).unwrap()
}

fn host<M: Memory>(device: &M, x: &M::Buffer<M::Real>) -> Vec<f64> {
    device.to_host(x).unwrap().iter().map(|v| v.value()).collect()
}

fn dense<M: SpikeMemory>(device: &M, spikes: &M::Spikes) -> Vec<f64> {
    device.download_spikes(spikes).unwrap().to_dense()
}

/// Spikes are the same, and so are the values named in `exact`.
fn assert_near(what: &str, got: &Results, want: &Results, exact: &[&str], tolerance: f64) {
    for ((name, got), (_, want)) in got.iter().zip(want) {
        if *name == "spikes" || exact.contains(name) {
            assert_eq!(got, want, "{what}: {name}");
        } else {
            assert_close(&format!("{what}: {name}"), got, want, tolerance);
        }
    }
}

fn assert_same(what: &str, got: &Results, want: &Results) {
    for ((name, got), (_, want)) in got.iter().zip(want) {
        let bits = |list: &[f64]| list.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(got), bits(want), "{what}: {name}");
    }
}

/// A clocked neuron of a family whose lanes can be cut.
#[derive(Debug, Clone, Copy)]
enum Neuron {
    Lif(LifNeuron),
    Block(BlockNeuron),
}

fn leaky(device: &Cuda, neuron: Neuron, split: Split, lanes: Lanes) -> Results {
    let mut inputs = Inputs::new(lanes.len() as u64);
    let count = lanes.batch * lanes.width;
    let beta = buffer(device, &inputs.uniform(if lanes.batch == 1 { 1 } else { lanes.width }, 0.7, 1.01));
    let initial = buffer(device, &inputs.uniform(count, -0.5, 0.9));
    let mut state = buffer(device, &inputs.uniform(lanes.len(), -0.3, 0.35));
    let mut grad = buffer(device, &inputs.uniform(lanes.len(), -1.0, 1.0));
    let membrane = buffer(device, &inputs.uniform(lanes.len(), -1.0, 1.0));
    let [mut on_beta, mut on_initial, mut sum] = [0; 3].map(|_| buffer(device, &vec![7.5; count]));
    let mut spikes = device.spikes();
    let leak = || Leak { beta_raw: &beta, initial: (lanes.width != 31).then_some(&initial) };
    let leak_grad = LeakGrad {
        membrane: (lanes.steps != 65).then_some(&membrane),
        beta: Some(&mut on_beta),
        initial: Some(&mut on_initial),
        current_sum: Some(&mut sum),
    };
    match neuron {
        Neuron::Lif(n) => {
            lif::forward(device, split, &n, lanes, leak(), &mut state, &mut spikes).unwrap();
            lif::backward(device, split, &n, lanes, leak(), &state, &mut grad, leak_grad).unwrap();
        }
        Neuron::Block(n) => {
            block::forward(device, split, &n, lanes, leak(), &mut state, &mut spikes).unwrap();
            block::backward(device, split, &n, lanes, leak(), &state, &mut grad, leak_grad).unwrap();
        }
    }
    vec![
        ("spikes", dense(device, &spikes)),
        ("state", host(device, &state)),
        ("gradient on the current", host(device, &grad)),
        ("gradient on beta", host(device, &on_beta)),
        ("gradient on the initial membrane", host(device, &on_initial)),
        ("sum", host(device, &sum)),
    ]
}

#[test]
fn leaky_lanes_cut_in_time_give_the_same() {
    let device = device();
    let mut neurons = vec![Neuron::Lif(LifNeuron::INTEGRATOR)];
    for (surrogate, start) in [(Surrogate::BLOCK, Start::Decayed), (Surrogate::MULTI_GAUSSIAN, Start::Undecayed)] {
        neurons.push(Neuron::Block(BlockNeuron { surrogate, start, ..BlockNeuron::default() }));
    }
    neurons.push(Neuron::Lif(LifNeuron::new(LifKind::Multi { reset: Path::Attached })));
    neurons.push(Neuron::Lif(LifNeuron::new(LifKind::Single { mask: Path::Attached })));
    for neuron in neurons {
        for (batch, steps, width) in SIZES {
            let lanes = Lanes::new(batch, steps, width);
            let what = format!("{neuron:?} {lanes:?}");
            let whole = leaky(&device, neuron, Split::Lanes, lanes);
            assert!(steps < 300 || whole[0].1.is_empty() || whole[0].1.contains(&1.0), "{what}: no spikes");
            let cut = leaky(&device, neuron, Split::Time, lanes);
            assert_near(&what, &cut, &whole, &["state"], 2e-5);
            assert_same(&what, &leaky(&device, neuron, Split::Lanes, lanes), &whole);
            assert_same(&what, &leaky(&device, neuron, Split::Time, lanes), &cut);
        }
    }
}

fn parallel(device: &Cuda, fire: Option<(Firing, bool)>, option: usize, split: Split, lanes: Lanes) -> Results {
    let mut inputs = Inputs::new(lanes.len() as u64 + 7);
    let (count, width) = (lanes.batch * lanes.width, lanes.width);
    let len = if option.is_multiple_of(2) { 1 } else { width };
    let alpha = buffer(device, &inputs.uniform(len, 0.5, 0.95));
    let beta = buffer(device, &inputs.uniform(len, 0.5, 0.95));
    let threshold = buffer(device, &inputs.uniform(len, 0.1, 0.6));
    let noise = buffer(device, &inputs.uniform(lanes.len(), 0.0, 1.0));
    let mut state = buffer(device, &inputs.uniform(lanes.len(), -1.0, 1.5));
    let mut grad = buffer(device, &inputs.uniform(lanes.len(), -1.0, 1.0));
    let membrane = buffer(device, &inputs.uniform(lanes.len(), -1.0, 1.0));
    let mut places = [0; 4].map(|_| buffer(device, &vec![7.5; count]));
    let mut spikes = device.spikes();
    let map = if option.is_multiple_of(3) { DecayMap::Sigmoid } else { DecayMap::Direct };
    let filters = (option % 4 != 3).then_some(Filters { alpha: (option % 4 != 2).then_some(&alpha), beta: &beta, map });
    let fire = fire.map(|(firing, drawn)| Fire {
        firing,
        threshold: &threshold,
        noise: if drawn { Noise::Drawn(SpikeDraws { seed: 3, pass: 1, population: 2 }) } else { Noise::Given(&noise) },
    });
    paralif::forward(device, split, lanes, filters, fire, &mut state, &mut spikes).unwrap();
    let [on_alpha, on_beta, on_threshold, sum] = &mut places;
    let grads = FilterGrad {
        membrane: (!option.is_multiple_of(5)).then_some(&membrane),
        alpha: Some(on_alpha),
        beta: Some(on_beta),
        threshold: Some(on_threshold),
        current_sum: Some(sum),
    };
    paralif::backward(device, split, lanes, filters, fire, &state, &mut grad, grads).unwrap();
    let mut results = vec![
        ("spikes", dense(device, &spikes)),
        ("membrane", host(device, &state)),
        ("gradient on the current", host(device, &grad)),
    ];
    let names = ["gradient on alpha", "gradient on beta", "gradient on the threshold", "sum"];
    results.extend(names.into_iter().zip(places.iter().map(|place| host(device, place))));
    results
}

#[test]
fn parallel_lanes_cut_in_time_give_the_same() {
    let device = device();
    let mut option = 0;
    let modes = FiringMode::ALL.map(|mode| Some(mode.firing(Surrogate::FastSigmoid { scale: 10.0 })));
    for firing in [None].into_iter().chain(modes) {
        for delayed in [false, true] {
            for (batch, steps, width) in SIZES {
                option += 1;
                let lanes = Lanes::new(batch, steps, width);
                let fire = firing.map(|firing| (Firing { delayed, ..firing }, option % 2 == 0));
                let what = format!("{fire:?} {lanes:?} option {option}");
                let whole = parallel(&device, fire, option, Split::Lanes, lanes);
                let cut = parallel(&device, fire, option, Split::Time, lanes);
                assert_near(&what, &cut, &whole, &["membrane"], 5e-5);
                assert_same(&what, &parallel(&device, fire, option, Split::Time, lanes), &cut);
            }
        }
    }
}

#[test]
fn few_and_long_lanes_are_cut() {
    let split = |batch, steps, width| Split::of(Lanes::new(batch, steps, width), 132);
    assert_eq!(split(1, 256, 33), Split::Time);
    assert_eq!(split(1, 255, 33), Split::Lanes);
    assert_eq!(split(1056, 1000, 32), Split::Lanes);
    assert_eq!(split(1055, 1000, 32), Split::Time);
}

fn current_based<B: CubaOps>(device: &B, neuron: &CubaNeuron, lanes: Lanes) -> Results {
    let mut inputs = Inputs::new(lanes.len() as u64 + 11);
    let (count, width) = (lanes.batch * lanes.width, lanes.width);
    let size = 1.0 / (width as f32).sqrt();
    let mut list = |len, low, high| buffer(device, &inputs.uniform(len, low, high));
    let (alpha, beta, threshold) = (list(width, 0.5, 0.95), list(1, -1.0, 1.0), list(width, 0.2, 0.6));
    let (weight, bias) = (list(width * width, -size, size), list(width, -0.1, 0.1));
    let (mut state, mut grad) = (list(lanes.len(), -1.0, 1.5), list(lanes.len(), -1.0, 1.0));
    let membrane = list(lanes.len(), -1.0, 1.0);
    let mut places = [0; 4].map(|_| buffer(device, &vec![7.5; count]));
    let mut synaptic = buffer(device, &vec![7.5; lanes.len()]);
    let mut spikes = device.spikes();
    let parameters = CubaParameters {
        filters: Filters { alpha: Some(&alpha), beta: &beta, map: DecayMap::Sigmoid },
        threshold: &threshold,
        recurrent: (neuron.recurrence != Recurrence::None).then_some(Recurrent { weight: &weight, bias: &bias }),
    };
    device.cuba_forward(neuron, lanes, parameters, &mut state, Some(&mut synaptic), &mut spikes).unwrap();
    let [on_alpha, on_beta, on_threshold, sum] = &mut places;
    let grads = FilterGrad {
        membrane: Some(&membrane),
        alpha: Some(on_alpha),
        beta: Some(on_beta),
        threshold: Some(on_threshold),
        current_sum: Some(sum),
    };
    device.cuba_backward(neuron, lanes, parameters, &state, Some(&synaptic), &mut grad, grads).unwrap();
    let mut results = vec![
        ("spikes", dense(device, &spikes)),
        ("membrane", host(device, &state)),
        ("synaptic trace", host(device, &synaptic)),
        ("gradient on the current", host(device, &grad)),
    ];
    let names = ["gradient on alpha", "gradient on beta", "gradient on the threshold", "sum"];
    results.extend(names.into_iter().zip(places.iter().map(|place| host(device, place))));
    results
}

/// Widths where a thread has one neuron, several, and too many for shared memory.
#[test]
fn recurrent_current_based_layers_may_be_wide() {
    let (device, reference) = (device(), Reference::<f64>::new());
    let surrogate = Surrogate::FastSigmoid { scale: 10.0 };
    for recurrence in [Recurrence::None, Recurrence::Spike, Recurrence::Relu] {
        for (batch, steps, width) in [(2, 300, 1), (1, 60, 31), (2, 9, 256), (2, 8, 300), (2, 3, 1300), (1, 3, 2000)] {
            let lanes = Lanes::new(batch, steps, width);
            let neuron = CubaNeuron { surrogate, refractory: 3, fires: true, recurrence };
            let what = format!("{neuron:?} {lanes:?}");
            let got = current_based(&device, &neuron, lanes);
            assert_near(&what, &got, &current_based(&reference, &neuron, lanes), &[], 1e-4);
            assert_same(&what, &current_based(&device, &neuron, lanes), &got);
        }
    }
}

/// Forward alone: other families are never cut in time.
#[test]
fn relays_give_the_same_bits() {
    let device = device();
    let surrogate = Surrogate::BLOCK;
    for (batch, steps, width) in SIZES {
        let lanes = Lanes::new(batch, steps, width);
        let mut inputs = Inputs::new(lanes.len() as u64 + 17);
        let mut list = |len, low, high| buffer(&device, &inputs.uniform(len, low, high));
        let (alpha, beta, strength) = (list(width, 0.5, 0.95), list(width, 0.5, 0.95), list(width, 0.0, 1.0));
        let current = list(lanes.len(), -0.5, 1.5);
        let (mut state, mut trace, mut spikes) =
            (list(lanes.len(), 0.0, 1.0), list(lanes.len(), 0.0, 1.0), device.spikes());
        for refractory in [0, 4] {
            let neuron = CubaNeuron { surrogate, refractory, fires: true, recurrence: Recurrence::None };
            let filters = Filters { alpha: Some(&alpha), beta: &beta, map: DecayMap::Direct };
            let parameters = CubaParameters { filters, threshold: &alpha, recurrent: None };
            let [whole, relay] = [Split::Lanes, Split::Time].map(|split| {
                device.copy(&current, &mut state).unwrap();
                let synaptic = Some(&mut trace);
                cuba::forward(&device, split, &neuron, lanes, parameters, &mut state, synaptic, &mut spikes).unwrap();
                [
                    ("spikes", dense(&device, &spikes)),
                    ("state", host(&device, &state)),
                    ("trace", host(&device, &trace)),
                ]
            });
            assert_same(&format!("{neuron:?} {lanes:?}"), &relay.into(), &whole.into());
            for gradient in [
                AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Attached },
                AlifGradient::Blocks { spikes: Path::Attached },
            ] {
                let limits = Limits::PUBLISHED;
                let neuron = AlifNeuron { surrogate, refractory, adapts: true, recurrent: false, gradient, limits };
                let parameters = AlifParameters { beta: &beta, decay: &alpha, strength: &strength, recurrent: None };
                let [whole, relay] = [Split::Lanes, Split::Time].map(|split| {
                    device.copy(&current, &mut state).unwrap();
                    alif::forward(&device, split, &neuron, lanes, parameters, &mut state, &mut spikes).unwrap();
                    [("spikes", dense(&device, &spikes)), ("state", host(&device, &state))]
                });
                assert_same(&format!("{neuron:?} {lanes:?}"), &relay.into(), &whole.into());
            }
        }
    }
}

fn adaptive<B: AlifOps>(device: &B, neuron: &AlifNeuron, lanes: Lanes) -> Results {
    let mut inputs = Inputs::new(lanes.len() as u64 + 13);
    let (count, width) = (lanes.batch * lanes.width, lanes.width);
    let size = 0.5 / (width as f32).sqrt();
    let mut list = |len, low, high| buffer(device, &inputs.uniform(len, low, high));
    let (beta, decay, strength) = (list(width, 0.5, 1.02), list(width, -0.9, 1.02), list(width, -0.9, 1.2));
    let weight = list(width * width, -size, size);
    let (mut state, mut grad) = (list(lanes.len(), -0.5, 0.9), list(lanes.len(), -1.0, 1.0));
    let membrane = list(lanes.len(), -1.0, 1.0);
    let mut places = [width, width, width, count].map(|len| buffer(device, &vec![7.5; len]));
    let mut thresholds = buffer(device, &vec![7.5; lanes.len()]);
    let mut spikes = device.spikes();
    let parameters = AlifParameters {
        beta: &beta,
        decay: &decay,
        strength: &strength,
        recurrent: neuron.recurrent.then_some(&weight),
    };
    device.alif_forward(neuron, lanes, parameters, &mut state, &mut spikes).unwrap();
    device.alif_thresholds(neuron, lanes, parameters, &state, &mut thresholds).unwrap();
    let [on_beta, on_decay, on_strength, sum] = &mut places;
    let grads = AlifGrad {
        membrane: Some(&membrane),
        current_sum: Some(sum),
        beta: Some(on_beta),
        decay: Some(on_decay),
        strength: Some(on_strength),
    };
    device.alif_backward(neuron, lanes, parameters, &state, &mut grad, grads).unwrap();
    let mut results = vec![
        ("spikes", dense(device, &spikes)),
        ("membrane", host(device, &state)),
        ("thresholds", host(device, &thresholds)),
        ("gradient on the current", host(device, &grad)),
    ];
    let names = ["gradient on beta", "gradient on the decay", "gradient on the strength", "sum"];
    results.extend(names.into_iter().zip(places.iter().map(|place| host(device, place))));
    results
}

/// Widths as above, and refractory periods below, beside and above a chunk of steps, and longer than the run.
#[test]
fn adaptive_layers_may_be_wide() {
    let (device, reference) = (device(), Reference::<f64>::new());
    let limits = Limits { gradient: LimitGradient::Inward, ..Limits::PUBLISHED };
    let gradients = [
        AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Attached },
        AlifGradient::Blocks { spikes: Path::Attached },
    ];
    for gradient in gradients {
        for (i, (batch, steps, width)) in
            [(2, 40, 1), (1, 70, 31), (9, 5, 33), (2, 20, 256), (2, 19, 300), (1, 12, 700)].into_iter().enumerate()
        {
            for (refractory, recurrent) in
                [(0, true), (0, false), (1, true), (7, true), (8, true), (13, false), (u32::MAX, true)]
            {
                let lanes = Lanes::new(batch, steps, width);
                let surrogate = [Surrogate::MULTI_GAUSSIAN, Surrogate::BOXCAR, Surrogate::ARCTAN][i % 3];
                // The reference counts the steps of a block in a vector.
                let stated = AlifNeuron { surrogate, refractory, adapts: true, recurrent, gradient, limits };
                let neuron = AlifNeuron { refractory: refractory.min(1000), ..stated };
                let what = format!("{stated:?} {lanes:?}");
                let got = adaptive(&device, &stated, lanes);
                assert_near(&what, &got, &adaptive(&reference, &neuron, lanes), &[], 4e-4);
                assert_same(&what, &adaptive(&device, &stated, lanes), &got);
            }
        }
    }
}

fn own_current<B: FitOps>(device: &B, lanes: Lanes, taps: usize) -> Results {
    let mut inputs = Inputs::new(lanes.len() as u64 + 19);
    let width = lanes.width;
    let mut list = |len| buffer(device, &inputs.uniform(len, -1.0, 1.0));
    let (x, weight, bias, grad) = (list(lanes.len()), list(taps * width), list(width), list(lanes.len()));
    let (mut out, mut on_weight, mut on_bias) = (list(lanes.len()), list(taps * width), list(width));
    device.own_current(lanes, &x, &weight, &bias, &mut out).unwrap();
    device.own_current_grad(lanes, &x, &grad, &mut on_weight, &mut on_bias).unwrap();
    let names = ["current", "gradient on the weights", "gradient on the biases"];
    names.into_iter().zip([&out, &on_weight, &on_bias].map(|list| host(device, list))).collect()
}

/// More taps than a block has, more steps than a tile, more samples than chunks of sums.
#[test]
fn own_currents_may_be_long() {
    let (device, reference) = (device(), Reference::<f64>::new());
    for (batch, steps, width, taps) in [(2, 600, 33, 70), (600, 3, 1, 2), (1, 9, 5, 100)] {
        let lanes = Lanes::new(batch, steps, width);
        let got = own_current(&device, lanes, taps);
        assert_near(&format!("{lanes:?}"), &got, &own_current(&reference, lanes, taps), &[], 2e-5);
        assert_same(&format!("{lanes:?}"), &own_current(&device, lanes, taps), &got);
    }
}

/// Nothing fails where there are no samples, steps or neurons.
#[test]
fn empty_scans_are_fine() {
    let device = device();
    for (batch, steps, width) in [(0, 5, 3), (2, 0, 3), (2, 5, 0)] {
        let lanes = Lanes::new(batch, steps, width);
        for split in [Split::Lanes, Split::Time] {
            for neuron in [Neuron::Block(BlockNeuron::default()), Neuron::Lif(LifNeuron::INTEGRATOR)] {
                leaky(&device, neuron, split, lanes);
            }
            let fire = FiringMode::SD.firing(Surrogate::ARCTAN);
            parallel(&device, Some((fire, false)), 1, split, lanes);
        }
        let surrogate = Surrogate::ARCTAN;
        for recurrence in [Recurrence::None, Recurrence::Relu] {
            current_based(&device, &CubaNeuron { surrogate, refractory: 3, fires: true, recurrence }, lanes);
        }
        for recurrent in [false, true] {
            let gradient = AlifGradient::Blocks { spikes: Path::Attached };
            let limits = Limits::PUBLISHED;
            adaptive(
                &device,
                &AlifNeuron { surrogate, refractory: 2, adapts: true, recurrent, gradient, limits },
                lanes,
            );
        }
    }
}
