//! Networks of neurons that spike at most once: they equal networks of rectifiers, whatever the layers; windows grow and
//! count what does not fit; runs resume with the same bits.

use proptest::prelude::*;
use snn_core::reference::Reference;
use snn_core::testkit::{Inputs, relative_difference, wide};
use snn_core::{Activity, Backend, Kind, Layer, Map, Pass, Real, Signal, Tensor};
use snn_train::checkpoint::{Checkpoints, Progress};
use snn_train::config::{
    Init, LayerConfig, ModelConfig, NeuronConfig, NoOptions, NormConfig, OptimiserConfig, OptimiserKind, ReadoutConfig,
    ReadoutNeuron, Reduce, TtfsConfig,
};
use snn_train::losses::Loss;
use snn_train::mapping::{Network, to_rectifiers, to_spikes};
use snn_train::optim::Optimiser;
use snn_train::sparsity::window_lengths;
use snn_train::{Experiment, Stack};

const BATCH: usize = 3;
const CLASSES: usize = 4;

fn readout() -> ReadoutConfig {
    ReadoutConfig { neuron: ReadoutNeuron::None(NoOptions {}), reduce: Reduce::Last, ..ReadoutConfig::default() }
}

fn values<B: Backend>(device: &B, x: &[f64]) -> Activity<B> {
    let lifted: Vec<B::Real> = x.iter().map(|&v| B::Real::lit(v)).collect();
    Activity::Values(Tensor { shape: vec![BATCH, x.len() / BATCH], data: device.buffer_from(&lifted).unwrap() })
}

fn outputs<B: Backend>(device: &B, network: &Network, x: &[f64]) -> Vec<f64> {
    let mut stack = network.build(device).unwrap();
    stack.forward(device, &values(device, x), Pass::evaluate(0)).unwrap();
    device.to_host(&stack.output().values("test").unwrap().data).unwrap().into_iter().map(Real::value).collect()
}

/// One part of a random network; those that do not fit the map any more are left out.
#[derive(Debug, Clone)]
enum Part {
    Conv { channels: usize, kernel: usize, same: bool, norm_before: bool },
    Norm,
    Pool(usize),
    Dropout,
    Dense(usize),
}

fn part() -> impl Strategy<Value = Part> {
    let conv =
        (1_usize..5, 0_usize..3, any::<bool>(), any::<bool>()).prop_map(|(channels, half, same, norm_before)| {
            Part::Conv { channels, kernel: 2 * half + 1, same, norm_before }
        });
    prop_oneof![4 => conv, 3 => Just(Part::Norm), 2 => (2_usize..4).prop_map(Part::Pool), 1 => Just(Part::Dropout)]
}

/// A model of rectifiers: at most 14 layers with weights, convolutions first.
fn model(map: Map, parts: &[Part], dense: &[(usize, bool)]) -> ModelConfig {
    let relu = NeuronConfig::Relu(NoOptions {});
    let (mut layers, mut map) = (vec![], map);
    let all = parts.iter().cloned().chain(
        dense.iter().flat_map(|&(width, norm)| std::iter::once(Part::Dense(width)).chain(norm.then_some(Part::Norm))),
    );
    for part in all {
        let layer = match part {
            Part::Conv { channels, kernel, same, norm_before } => {
                let padding = if same { kernel / 2 } else { 0 };
                if map.height + 2 * padding < kernel || map.width + 2 * padding < kernel {
                    continue;
                }
                map = Map::new(map.height + 2 * padding + 1 - kernel, map.width + 2 * padding + 1 - kernel, channels);
                let mut conv = LayerConfig::conv(channels, kernel, padding, relu.clone(), Init::HE);
                if let (LayerConfig::Conv { norm, bias, .. }, true) = (&mut conv, norm_before) {
                    (*norm, *bias) = (Some(NormConfig::Batch { momentum: 0.1, eps: 1e-3 }), false);
                }
                conv
            }
            Part::Norm => LayerConfig::Norm { momentum: 0.1, eps: 1e-3 },
            Part::Pool(window) if window <= map.height && window <= map.width => {
                map = Map::new(map.height / window, map.width / window, map.channels);
                LayerConfig::pool(window)
            }
            Part::Pool(_) => continue,
            Part::Dropout => LayerConfig::Dropout { p: 0.3 },
            Part::Dense(width) => LayerConfig::dense(width, relu.clone(), Init::HE),
        };
        layers.push(layer);
    }
    ModelConfig { layers, readout: readout(), ..ModelConfig::default() }
}

/// The network with random parameters: factors of normalisation of either sign, statistics that are none of its own.
fn random(model: &ModelConfig, input: Signal, seed: u64) -> Network {
    let device = Reference::<f64>::new();
    let stack = Stack::build(&device, model, input, CLASSES, seed).unwrap();
    let mut network = Network::of(&device, model, &stack).unwrap();
    let mut inputs = Inputs::new(seed);
    for v in &mut network.values {
        let (low, high) = match &v.name[..] {
            "weight" => continue,
            "norm_gain" => (-1.5, 1.5),
            "norm_variance" => (0.2, 2.0),
            _ => (-0.5, 0.5),
        };
        v.data = wide(&inputs.uniform(v.data.len(), low, high));
    }
    network
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_network_of_rectifiers_has_a_spiking_twin(
        (height, width, channels) in (1_usize..9, 1_usize..9, 1_usize..4),
        parts in prop::collection::vec(part(), 0..14),
        dense in prop::collection::vec((1_usize..9, any::<bool>()), 0..4),
        (low, span) in prop_oneof![Just((0.0, 1.0)), (-3.0..1.0_f64, 0.5..6.0_f64)],
        seed: u64,
    ) {
        let map = Map::new(height, width, channels);
        let input = Signal { kind: Kind::Values, steps: 1, map };
        let relu = random(&model(map, &parts, &dense), input, seed);
        let x01 = wide(&Inputs::new(seed ^ 1).uniform(BATCH * map.len(), 0.0, 1.0));
        let x: Vec<f64> = x01.iter().map(|x| low + span * x).collect();
        let twin = to_spikes(&relu, (low, low + span), &TtfsConfig::default()).unwrap();
        let double = Reference::<f64>::new();
        let (want, got) = (outputs(&double, &relu, &x), outputs(&double, &twin, &x01));
        prop_assert!(relative_difference(&got, &want) < 1e-9, "{got:?} for {want:?} of {:?}", relu.model);
        // In single precision as well, where sums of large terms lose digits that no layout of them could keep.
        let single = outputs(&Reference::<f32>::new(), &twin, &x01);
        prop_assert!(relative_difference(&single, &want) < 1e-3, "{single:?} for {want:?}");
    }

    #[test]
    fn a_spiking_network_without_borders_has_a_twin_of_rectifiers(
        dense in prop::collection::vec((1_usize..9, Just(false)), 1..6),
        seed: u64,
    ) {
        let input = Signal::flat(Kind::Values, 1, 7);
        let relu = random(&model(input.map, &[], &dense), input, seed);
        let twin = to_spikes(&relu, (0.0, 1.0), &TtfsConfig::default()).unwrap();
        prop_assert_eq!(to_rectifiers(&twin).unwrap(), relu);
    }
}

#[test]
fn layers_without_a_twin_are_named() {
    let of = |text: &str, input: Signal| {
        let text = format!("data = {{ set = 'x', encode = {{ kind = 'values' }} }}\nmodel = {{ {text} }}");
        let model = Experiment::from_toml("test", &text).unwrap().model;
        random(&model, input, 1)
    };
    let maps = Signal { kind: Kind::Values, steps: 1, map: Map::new(4, 4, 2) };
    let (range, neuron) = ((0.0, 1.0), TtfsConfig::default());
    let relu = "{ kind = 'dense', width = 5, neuron = { model = 'relu' } }";
    let none = "readout = { neuron = { model = 'none' } }";
    let net = of(&format!("layers = [{relu}], {none}"), maps);
    assert!(to_spikes(&net, (1.0, 1.0), &neuron).unwrap_err().to_string().contains("range 1 to 1"));
    let mut spiking = to_spikes(&net, range, &neuron).unwrap();
    let message = to_spikes(&spiking, range, &neuron).unwrap_err().to_string();
    assert!(message.contains("layer 0") && message.contains("has no single-spike twin"), "{message}");
    let message = to_rectifiers(&net).unwrap_err().to_string();
    assert!(message.contains("layer 0") && message.contains("other neurons than ttfs"), "{message}");
    spiking.values.remove(0);
    let message = spiking.build(&Reference::<f64>::new()).unwrap_err().to_string();
    assert!(message.contains("layer 0: weight") && message.contains("[32, 5]"), "{message}");
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let check = |text: &str, input: Signal, want: &str| {
        let text = format!("data = {{ set = 'x', encode = {{ kind = 'values' }} }}\nmodel = {{ {text} }}");
        let built = Experiment::from_toml("test", &text)
            .and_then(|e| Stack::build(&Reference::<f32>::new(), &e.model, input, 3, 1).map(|_| ()));
        let message = built.unwrap_err().to_string();
        assert!(message.contains(want), "{text}: {message}");
    };
    let values = Signal { kind: Kind::Values, steps: 1, map: Map::new(4, 4, 2) };
    let spikes = Signal { kind: Kind::Spikes, steps: 5, ..values };
    let ttfs = |more: &str| format!("layers = [{{ kind = 'dense', width = 5, neuron = {{ model = 'ttfs'{more} }} }}]");
    let none = "readout = { neuron = { model = 'none' } }";
    check(&format!("{}, {none}", ttfs("")), spikes, "data.encode = { kind = \"values\" }");
    check(&ttfs(""), values, "with the neuron `none` also values and spike times");
    check(&ttfs(", range = 0.0"), values, "neuron.range = 0: must be a number above 0");
    check(&ttfs(", range = -3.0"), values, "neuron.range = -3");
    check(&ttfs(", growth = 0.5"), values, "growth = 0.5: must be 0, or 1 or more");
    check(&ttfs(", time_bits = 99"), values, "time_bits = 99: must be in [0, 16]");
    check(&ttfs(", weight_bits = 4, weight_low = 0.5"), values, "weight_low = 0.5");
    check(&ttfs(", noise = -1.0"), values, "noise = -1");
    check(&ttfs(", weight_bits = 4, slope = 'alpha-smart'"), values, "must be 0 where the slope depends");
    let coarse =
        |more: &str| format!("{}, readout = {{ quantise = {{ {more} }}, neuron = {{ model = 'none' }} }}", ttfs(""));
    check(&coarse("bits = 0"), values, "model.readout.quantise");
    check(&coarse("bits = 4, low = 0.5"), values, "low = 0.5");
    let voting = "readout = { quantise = { bits = 4 }, neuron = { model = 'vote' } }";
    check(&format!("{}, {voting}", ttfs("")), values, "only a dense readout without delays");
    let skip = "layers = [{ kind = 'dense', width = 32, skip = true, neuron = { model = 'ttfs' } }]";
    check(&format!("{skip}, {none}"), values, "skip");
    let conv =
        "layers = [{ kind = 'conv', channels = 2, kernel = 3, neuron = { model = 'ttfs', slope = 'alpha-naive' } }]";
    check(&format!("{conv}, {none}"), values, "must be `one` in convolutions");
    let block = "layers = [{ kind = 'dense', width = 5, neuron = { model = 'ttfs' } }, { kind = 'dense', width = 5 }]";
    check(block, values, "layer 1");
    check("layers = [{ kind = 'norm' }]", spikes, "values: put it behind a rectifier");
    for kind in [Kind::Spikes, Kind::Trains] {
        let signed = "layers = [{ kind = 'pool', window = 2, signed = true }]";
        check(signed, Signal { kind, ..spikes }, "values or spike times, if it is signed");
    }
    let dropout =
        "layers = [{ kind = 'dense', width = 5, neuron = { model = 'ttfs' } }, { kind = 'dropout', p = 0.5 }]";
    check(dropout, values, "layer 1");
}

/// A spiking network for tests of training, whose windows begin too short.
fn small(more: &str) -> (ModelConfig, Signal) {
    let neuron = format!("neuron = {{ model = 'ttfs', range = 0.2{more} }}");
    let text = format!(
        "data = {{ set = 'x', encode = {{ kind = 'values' }} }}\n\
         model = {{ layers = [{{ kind = 'conv', channels = 3, kernel = 3, padding = 1, {neuron} }}, \
         {{ kind = 'pool', window = 2 }}, {{ kind = 'dense', width = 6, {neuron} }}], \
         readout = {{ neuron = {{ model = 'none' }} }} }}"
    );
    let model = Experiment::from_toml("test", &text).unwrap().model;
    (model, Signal { kind: Kind::Values, steps: 1, map: Map::new(6, 5, 2) })
}

type Device = Reference<f32>;

fn train_batch(device: &Device, stack: &mut Stack<Device>, optimiser: &mut Optimiser<Device>, epoch: u32) {
    let mut loss = Loss::new(device, Default::default()).unwrap();
    let input = values(device, &wide(&Inputs::new(epoch.into()).uniform(BATCH * 60, 0.0, 1.0)));
    stack.forward(device, &input, Pass::train(optimiser.step() as u32)).unwrap();
    loss.forward(device, stack.output(), &[0, 1, 2]).unwrap();
    stack.backward(device, &input, loss.grad()).unwrap();
    optimiser.update(device, stack, 0.01).unwrap();
}

#[test]
fn windows_grow_to_ten_times_what_they_must_hold_and_spikes_before_them_are_counted() {
    let (model, input) = small("");
    let device = Device::new();
    let mut stack = Stack::build(&device, &model, input, CLASSES, 1).unwrap();
    let mut optimiser = Optimiser::new(&device, OptimiserConfig::default(), &stack).unwrap();
    let before = window_lengths(&device, &stack).unwrap();
    assert!(before.iter().all(|x| (x - 0.3).abs() < 1e-6), "{before:?}");
    train_batch(&device, &mut stack, &mut optimiser, 1);
    let census = |stack: &Stack<Device>| {
        let of = |l: &dyn Layer<Device>| {
            l.first_spikes().map(|first| {
                let peak = first.census.peaks.iter().fold(0.0_f32, |m, &x| m.max(x));
                (f64::from(peak), first.census.early.iter().sum::<u32>(), first.census.fired.iter().sum::<u32>())
            })
        };
        stack.layers().filter_map(of).collect::<Vec<_>>()
    };
    let seen = census(&stack);
    let after = window_lengths(&device, &stack).unwrap();
    for (&(peak, early, fired), (&was, &is)) in seen.iter().zip(before.iter().zip(&after)) {
        assert_eq!(early > 0, peak > was, "peak {peak}, window {was}");
        assert!(early <= fired);
        assert!((is - was.max(10.0 * peak)).abs() < 1e-5 * is, "{is} from {was} and {peak}");
    }
    assert!(seen[0].1 > 0, "the test needs a window that is too short");
    train_batch(&device, &mut stack, &mut optimiser, 2);
    assert!(census(&stack).iter().all(|(_, early, _)| *early == 0));
    let again = window_lengths(&device, &stack).unwrap();
    assert!(again.iter().zip(&after).all(|(a, b)| a >= b), "windows only grow");
}

#[test]
fn limited_neurons_hold_their_window() {
    let (model, input) = small(", limited = true, growth = 0.0");
    let device = Device::new();
    let mut stack = Stack::build(&device, &model, input, CLASSES, 1).unwrap();
    let mut optimiser = Optimiser::new(&device, OptimiserConfig::default(), &stack).unwrap();
    train_batch(&device, &mut stack, &mut optimiser, 1);
    assert!(window_lengths(&device, &stack).unwrap().iter().all(|x| (x - 0.3).abs() < 1e-6));
    for first in stack.layers().filter_map(Layer::first_spikes) {
        assert_eq!(first.census.early.iter().sum::<u32>(), 0);
        assert!(first.census.peaks.iter().all(|&x| x <= first.window[0]));
    }
}

#[test]
fn noisy_quantised_networks_resume_with_the_same_bits() {
    let (model, input) = small(", noise = 0.05, time_bits = 6, weight_bits = 5");
    let device = Device::new();
    let config = OptimiserConfig { kind: OptimiserKind::KerasAdam, ..OptimiserConfig::default() };
    let parameters = |stack: &Stack<Device>| -> Vec<Vec<u32>> {
        stack.parameters().map(|(_, p)| p.value.data.iter().map(|x| x.to_bits()).collect()).collect()
    };
    let fresh = || {
        let stack = Stack::build(&device, &model, input, CLASSES, 1).unwrap();
        let optimiser = Optimiser::new(&device, config, &stack).unwrap();
        (stack, optimiser)
    };
    let (mut whole, mut optimiser) = fresh();
    (0..6).for_each(|epoch| train_batch(&device, &mut whole, &mut optimiser, epoch));

    let folder = tempfile::tempdir().unwrap();
    let (mut stack, mut optimiser) = fresh();
    (0..3).for_each(|epoch| train_batch(&device, &mut stack, &mut optimiser, epoch));
    let checkpoints = Checkpoints::new(folder.path().to_owned(), "experiment".into()).unwrap();
    let progress = Progress { epoch: 3, optimiser_step: optimiser.step(), ..Progress::default() };
    checkpoints.save(&device, &stack, &optimiser, &progress, 0).unwrap();
    let (mut stack, mut optimiser) = fresh();
    let (found, _) = checkpoints.resume(&device, &mut stack, &mut optimiser).unwrap().unwrap();
    assert_eq!(found.epoch, 3);
    (3..6).for_each(|epoch| train_batch(&device, &mut stack, &mut optimiser, epoch));
    assert_eq!(parameters(&stack), parameters(&whole));
}
