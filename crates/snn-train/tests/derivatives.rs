//! Whole models: the backward pass on `f64` against the derivative of the loss on dual numbers.
//!
//! The reference backend runs the same layers on dual numbers, whose forward pass carries the derivative of the loss
//! along one direction in the space of all parameters. The gradients of the backward pass, times that direction, must
//! give the same number.

use snn_core::backend::SpikeMemory;
use snn_core::reference::Reference;
use snn_core::testkit::Inputs;
use snn_core::{Activity, Backend, Dual, Events, Kind, Lanes, Map, Pass, Real, Signal, Spikes, Tensor, Trains};
use snn_train::config::{LossConfig, ModelConfig};
use snn_train::losses::Loss;
use snn_train::{Experiment, Stack};

/// The model of a configuration that says nothing else.
fn model(text: &str) -> ModelConfig {
    let text = format!("data = {{ set = 'yinyang', encode = {{ kind = 'latency', steps = 2 }} }}\n{text}");
    Experiment::from_toml("test", &text).unwrap().model
}

/// What a model is fed.
enum Input {
    Spikes(Spikes),
    Values(Vec<f32>),
    Sequence(Lanes, Vec<f32>),
    Trains(Events),
}

impl Input {
    fn activity<B: Backend>(&self, device: &B, batch: usize) -> Activity<B> {
        match self {
            Self::Spikes(host) => {
                let mut spikes = device.spikes();
                device.upload_spikes(host, &mut spikes).unwrap();
                Activity::Spikes(spikes)
            }
            Self::Trains(host) => {
                let mut trains = Trains::empty(device, 0).unwrap();
                trains.upload(device, host).unwrap();
                Activity::Trains(trains)
            }
            Self::Values(host) => {
                Activity::Values(Tensor { shape: vec![batch, host.len() / batch], data: lift(device, host) })
            }
            Self::Sequence(lanes, host) => {
                let shape = vec![lanes.batch, lanes.steps, lanes.width];
                Activity::Sequence(Tensor { shape, data: lift(device, host) })
            }
        }
    }
}

fn lift<B: Backend>(device: &B, host: &[f32]) -> B::Buffer<B::Real> {
    let lifted: Vec<B::Real> = host.iter().map(|&v| B::Real::lit(v.into())).collect();
    device.buffer_from(&lifted).unwrap()
}

/// Checks a model along several directions; gives the hidden spikes of the batch and the parameters without a gradient.
fn check(name: &str, model: &ModelConfig, signal: Signal, density: f32) -> (u64, Vec<String>) {
    check_loss(name, model, signal, density, LossConfig::default())
}

/// The same with another loss than cross entropy.
fn check_loss(name: &str, model: &ModelConfig, signal: Signal, density: f32, loss: LossConfig) -> (u64, Vec<String>) {
    const BATCH: usize = 3;
    const CLASSES: usize = 4;
    let (plain, dual) = (Reference::<f64>::new(), Reference::<Dual>::new());
    let mut inputs = Inputs::new(11);
    let input = match signal.kind {
        Kind::Values => Input::Values(inputs.uniform(BATCH * signal.width(), -1.0, 1.0)),
        Kind::Sequence => {
            let lanes = Lanes::new(BATCH, signal.steps, signal.width());
            Input::Sequence(lanes, inputs.uniform(lanes.len(), -1.0, 1.0))
        }
        Kind::Trains => {
            let mut events = Events::new(signal.width());
            for _ in 0..BATCH {
                let mut times = inputs.uniform(signal.width(), 0.0, 0.1);
                times.sort_by(f32::total_cmp);
                let units = inputs.uniform(signal.width(), 0.0, signal.width() as f32);
                let list: Vec<_> = times.into_iter().zip(units.into_iter().map(|u| u as u32)).collect();
                events.push(&list).unwrap();
            }
            Input::Trains(events)
        }
        _ => Input::Spikes(inputs.spikes(Lanes::new(BATCH, signal.steps, signal.width()), density)),
    };
    let labels = [0_u32, 3, 1];

    let mut stack = Stack::build(&plain, model, signal, CLASSES, 5).unwrap();
    // Biases and decays start equal everywhere; different ones test more.
    for p in stack.parameters_mut() {
        let moved = inputs.uniform(p.value.len(), -0.05, 0.05);
        p.value.data.iter_mut().zip(moved).for_each(|(x, d)| *x += f64::from(d));
    }
    let activity = input.activity(&plain, BATCH);
    let (mut loss, mut twin_loss) = (Loss::new(&plain, loss).unwrap(), Loss::new(&dual, loss).unwrap());
    stack.forward(&plain, &activity, Pass::train(0)).unwrap();
    loss.forward(&plain, stack.output(), &labels).unwrap();
    stack.backward(&plain, &activity, loss.grad()).unwrap();
    let spikes = stack.layers().filter_map(|l| l.spikes());
    let clocked: u64 = spikes.flat_map(|s| plain.events_per_sample(s).unwrap()).map(u64::from).sum();
    let first = stack.layers().filter_map(|l| l.first_spikes()).flat_map(|f| &f.census.fired);
    let spikes = clocked
        + stack.layers().filter_map(|l| l.trains()).map(|t| t.events(&plain) as u64).sum::<u64>()
        + first.map(|&n| u64::from(n)).sum::<u64>();

    let mut twin = Stack::build(&dual, model, signal, CLASSES, 5).unwrap();
    // Running statistics and the like are not learned, so they have no gradient.
    let names: Vec<Option<String>> =
        stack.parameters().map(|(i, p)| p.learnable.then(|| format!("{i}.{}", p.name))).collect();
    let mut dead = Vec::new();
    // Along each parameter on its own, so that a fault is named, and along all of them at once.
    for wanted in names.iter().flatten().map(Some).chain([None]) {
        let (mut want, mut scale) = (0.0, 0.0);
        for ((p, q), name) in stack.parameters().zip(twin.parameters_mut()).zip(&names) {
            let moves = name.as_ref().is_some_and(|name| wanted.is_none_or(|w| w == name));
            let direction = inputs.uniform(p.1.value.len(), -1.0, 1.0);
            for (i, d) in direction.into_iter().enumerate() {
                let d = if moves { f64::from(d) } else { 0.0 };
                q.value.data[i] = Dual::new(p.1.value.data[i], d);
                want += p.1.grad.data[i] * d;
                scale += (p.1.grad.data[i] * d).abs();
            }
        }
        let activity = input.activity(&dual, BATCH);
        twin.forward(&dual, &activity, Pass::train(0)).unwrap();
        twin_loss.forward(&dual, twin.output(), &labels).unwrap();
        let got = twin_loss.losses().iter().map(|l| l.derivative).sum::<f64>() / BATCH as f64;
        let place = wanted.map_or("all parameters", |w| w.as_str());
        assert!(
            (got - want).abs() <= 1e-9 * scale.max(1e-12),
            "{name}, {place}: {got} on dual numbers, {want} backwards"
        );
        if scale == 0.0 {
            dead.push(place.to_owned());
        }
    }
    (spikes, dead)
}

/// As [`check`], for a model that spikes and whose parameters all have a gradient: others would test little.
fn check_lively(name: &str, model: &ModelConfig, signal: Signal, density: f32) {
    let (spikes, dead) = check(name, model, signal, density);
    assert!(spikes > 0, "{name}: no spike");
    assert!(dead.is_empty(), "{name}: no gradient on {dead:?}");
}

const WIDE: &str = "init = { kind = 'fan-in', gain = 3.0 }";

#[test]
fn dense_models_of_every_neuron_have_exact_gradients() {
    for neuron in ["block", "single", "multi"] {
        for path in ["attached", "detached"] {
            for reduce in ["sum", "max"] {
                let layer = |width: usize| {
                    format!(
                        "{{ kind = 'dense', width = {width}, neuron = {{ model = '{neuron}', reset_path = '{path}' }}, {WIDE} }}"
                    )
                };
                let text =
                    format!("model = {{ layers = [{}, {}], readout = {{ reduce = '{reduce}' }} }}", layer(7), layer(5));
                let name = format!("{neuron} {path} {reduce}");
                check_lively(&name, &model(&text), Signal::flat(Kind::Spikes, 9, 6), 0.3);
            }
        }
    }
}

#[test]
fn silent_block_model_has_exact_gradients() {
    let text = "model = { layers = [{ kind = 'dense', width = 7, init = { kind = 'fan-in', gain = 0.01 } }] }";
    let (spikes, dead) = check("silent", &model(text), Signal::flat(Kind::Spikes, 12, 6), 0.2);
    assert_eq!(spikes, 0, "the weights are too small for a spike");
    // No spike reaches the readout's weights, but everything before them learns.
    assert_eq!(dead, ["1.weight"]);
}

#[test]
fn skip_connections_and_shared_decays_have_exact_gradients() {
    for neuron in ["block", "single", "multi"] {
        let shared = format!("neuron = {{ model = '{neuron}', shared_beta = true }}");
        let text = format!(
            "model = {{ layers = [{{ kind = 'dense', width = 6, {shared}, {WIDE} }}, \
             {{ kind = 'dense', width = 6, skip = true, {shared}, {WIDE} }}, \
             {{ kind = 'dense', width = 6, skip = true, {shared}, {WIDE} }}], readout = {{ neuron = {{ model = 'integrator', shared_beta = true }} }} }}"
        );
        check_lively(&format!("skip {neuron}"), &model(&text), Signal::flat(Kind::Spikes, 8, 6), 0.3);
    }
}

#[test]
fn convolutional_models_have_exact_gradients() {
    for neuron in ["block", "single", "multi"] {
        let conv = |channels: usize, stride: usize| {
            format!(
                "{{ kind = 'conv', channels = {channels}, kernel = 3, stride = {stride}, padding = 1, \
                 neuron = {{ model = '{neuron}' }}, {WIDE} }}"
            )
        };
        let pool = "{ kind = 'pool', window = 2 }";
        let dense = format!("{{ kind = 'dense', width = 5, neuron = {{ model = '{neuron}' }}, {WIDE} }}");
        let text = format!(
            "model = {{ layers = [{}, {pool}, {}, {pool}, {dense}], readout = {{ reduce = 'max' }} }}",
            conv(3, 1),
            conv(2, 1)
        );
        let maps = Signal { kind: Kind::Spikes, steps: 5, map: Map::new(6, 5, 2) };
        check_lively(&format!("conv {neuron}"), &model(&text), maps, 0.2);
        // An image as a constant current, and a stride.
        let text = format!("model = {{ layers = [{}, {dense}] }}", conv(3, 2));
        let image = Signal { kind: Kind::Values, ..maps };
        check_lively(&format!("constant current {neuron}"), &model(&text), image, 0.0);
    }
}

/// Filtered neurons with everything learned; small time constants, so that short sequences show all of the filters.
fn filtered_model(neuron: &str, reduce: &str) -> ModelConfig {
    let filter = "filter = { tau_mem = 4.0, tau_syn = 3.0, learn_tau = true }";
    let layer = |width: usize, each: &str| {
        format!("{{ kind = 'dense', width = {width}, neuron = {{ {neuron}, {filter}{each} }}, {WIDE} }}")
    };
    let each = if neuron.contains("threshold") { "" } else { ", learn_threshold = true" };
    model(&format!(
        "model = {{ layers = [{}, {}], readout = {{ reduce = '{reduce}', neuron = {{ model = 'filter', \
         tau_mem = [3.0, 4.0, 5.0, 6.0], tau_syn = 2.0, learn_tau = true }} }} }}",
        layer(7, each),
        layer(5, each)
    ))
}

#[test]
fn parallel_models_of_every_mode_have_exact_gradients() {
    let signal = Signal::flat(Kind::Spikes, 11, 6);
    for (i, mode) in snn_core::neurons::paralif::FiringMode::ALL.iter().enumerate() {
        let reduce = ["mean", "last", "softmax-sum", "max", "sum"][i % 5];
        for recurrent in ["none", "spike", "relu"] {
            let low = if mode.is_stochastic() { "" } else { ", threshold = 0.05" };
            let neuron = format!("model = 'paralif', mode = '{mode}', recurrent = '{recurrent}'{low}");
            let name = format!("{mode} {recurrent} {reduce}");
            let (spikes, dead) = check(&name, &filtered_model(&neuron, reduce), signal, 0.4);
            assert!(spikes > 0 && dead.is_empty(), "{name}: {spikes} spikes, no gradient on {dead:?}");
        }
    }
}

#[test]
fn current_based_models_have_exact_gradients() {
    let signal = Signal::flat(Kind::Spikes, 11, 6);
    for recurrent in ["none", "spike", "relu"] {
        for refractory in [0, 3] {
            let options = format!("recurrent = '{recurrent}', refractory = {refractory}");
            let surrogate = "surrogate = { kind = 'arctan', alpha = 2.0 }, threshold = 0.3, learn_threshold = true";
            let neuron = format!("model = 'cuba', {options}, {surrogate}");
            let name = format!("cuba {recurrent}, refractory {refractory}");
            check_lively(&name, &filtered_model(&neuron, "mean"), signal, 0.5);
        }
    }
}

#[test]
fn adaptive_models_have_exact_gradients() {
    for kind in [Kind::Spikes, Kind::Sequence] {
        for gradient in ["steps", "blocks"] {
            for (spikes, adaptation) in
                [("detached", "attached"), ("attached", "attached"), ("detached", "detached"), ("attached", "detached")]
            {
                for (refractory, field) in [(0, 1), (2, 3)] {
                    let paths = format!("spike_path = '{spikes}', adaptation_path = '{adaptation}'");
                    let constants = format!("refractory = {refractory}, beta = 0.8, decay = 0.7, strength = 0.5");
                    let neuron = format!("model = 'alif', gradient = '{gradient}', {paths}, {constants}");
                    let layer = |width| {
                        format!(
                            "{{ kind = 'dense', width = {width}, neuron = {{ {neuron} }}, field = {field}, {WIDE} }}"
                        )
                    };
                    let name = format!("alif {gradient}, {paths}, {constants}, field {field}, {kind:?}");
                    let model = model(&format!("model = {{ layers = [{}, {}] }}", layer(7), layer(5)));
                    check_lively(&name, &model, Signal::flat(kind, 14, 6), 0.5);
                }
            }
        }
    }
}

#[test]
fn rectified_models_have_exact_gradients() {
    let layer = format!("{{ kind = 'dense', width = 6, neuron = {{ model = 'relu' }}, {WIDE} }}");
    let text = format!(
        "model = {{ layers = [{layer}, {layer}], readout = {{ reduce = 'mean', neuron = {{ model = 'none' }} }} }}"
    );
    let (_, dead) = check("relu", &model(&text), Signal::flat(Kind::Spikes, 5, 6), 0.4);
    assert!(dead.is_empty(), "no gradient on {dead:?}");
}

/// Parallel neurons that fire often enough for a small model to be lively.
const PARALLEL: &str = "neuron = { model = 'paralif', mode = 'T', threshold = 0.3, learn_threshold = true, \
                        surrogate = { kind = 'arctan', alpha = 2.0 }, filter = { tau_mem = 1.44, learn_tau = true } }";

#[test]
fn normalised_models_have_exact_gradients() {
    let norm = "norm = { kind = 'batch' }";
    let dense = |width: usize, norm: &str| format!("{{ kind = 'dense', width = {width}, {PARALLEL}, {WIDE}{norm} }}");
    let readout = "readout = { reduce = 'mean', neuron = { model = 'none' } }";
    let text = format!(
        "model = {{ layers = [{}, {}], {readout} }}",
        dense(7, &format!(", {norm}")),
        dense(5, &format!(", {norm}"))
    );
    check_lively("normalised dense", &model(&text), Signal::flat(Kind::Spikes, 9, 6), 0.4);
    check_lively("normalised dense of values", &model(&text), Signal::flat(Kind::Values, 9, 6), 0.0);
    check_lively("normalised dense of a sequence", &model(&text), Signal::flat(Kind::Sequence, 9, 6), 0.0);

    let conv = |channels: usize, options: &str| {
        format!("{{ kind = 'conv', channels = {channels}, kernel = 3, padding = 1, {PARALLEL}, {WIDE}{options} }}")
    };
    let pool = "{ kind = 'pool', window = 2 }";
    for options in [format!(", {norm}"), ", bias = false".into()] {
        let layers = format!("{}, {pool}, {}, {pool}, {}", conv(3, &options), conv(4, &options), dense(5, ""));
        let text = format!("model = {{ layers = [{layers}], {readout} }}");
        let maps = Signal { kind: Kind::Spikes, steps: 5, map: Map::new(6, 5, 2) };
        check_lively(&format!("conv{options}"), &model(&text), maps, 0.3);
    }
}

#[test]
fn one_dimensional_convolutions_and_mean_pools_have_exact_gradients() {
    let conv = |channels: usize| {
        format!(
            "{{ kind = 'conv', channels = {channels}, kernel = 3, kernel_width = 1, padding = 1, padding_width = 0, \
             {PARALLEL}, {WIDE}, norm = {{ kind = 'batch', eps = 1e-3 }} }}"
        )
    };
    let pool = "{ kind = 'avg-pool', window = 2, window_width = 1 }";
    let dense = format!("{{ kind = 'dense', width = 5, {PARALLEL}, {WIDE} }}");
    let layers = format!("{}, {}, {pool}, {pool}, {}, {pool}, {dense}", conv(3), conv(2), conv(4));
    let text =
        format!("model = {{ layers = [{layers}], readout = {{ reduce = 'mean', neuron = {{ model = 'none' }} }} }}");
    let column = Signal { kind: Kind::Sequence, steps: 6, map: Map::new(9, 1, 3) };
    check_lively("columns", &model(&text), column, 0.0);
    check_lively("spiking columns", &model(&text), Signal { kind: Kind::Spikes, ..column }, 0.3);
}

#[test]
fn models_with_dropout_have_exact_gradients() {
    let drop = "{ kind = 'dropout', p = 0.4 }";
    let dense = |width: usize, more: &str| format!("{{ kind = 'dense', width = {width}, {PARALLEL}, {WIDE}{more} }}");
    let readout = "readout = { reduce = 'mean', neuron = { model = 'filter', tau_mem = 2.0 } }";
    let layers = format!("{drop}, {}, {drop}, {}, {drop}", dense(9, ""), dense(8, ", norm = { kind = 'batch' }"));
    let text = format!("model = {{ layers = [{layers}], {readout} }}");
    for kind in [Kind::Spikes, Kind::Sequence, Kind::Values] {
        check_lively(&format!("dropout of {kind}"), &model(&text), Signal::flat(kind, 7, 12), 0.5);
    }
    // Through pools, of which the second kind takes the factor over.
    let conv = format!("{{ kind = 'conv', channels = 3, kernel = 3, {PARALLEL}, {WIDE} }}");
    let pools = "{ kind = 'pool', window = 2 }, { kind = 'avg-pool', window = 2 }";
    let text = format!("model = {{ layers = [{conv}, {drop}, {pools}, {}], {readout} }}", dense(5, ""));
    let maps = Signal { kind: Kind::Spikes, steps: 5, map: Map::new(10, 10, 2) };
    check_lively("dropout before pools", &model(&text), maps, 0.4);
}

#[test]
fn votes_and_their_losses_have_exact_gradients() {
    let dense = |width: usize| format!("{{ kind = 'dense', width = {width}, {PARALLEL}, {WIDE} }}");
    for reduce in ["mean", "sum"] {
        let readout = format!("readout = {{ reduce = '{reduce}', neuron = {{ model = 'vote' }} }}");
        let text = format!("model = {{ layers = [{}, {}], {readout} }}", dense(7), dense(12));
        for loss in [LossConfig::default(), LossConfig::CrossEntropy { label_smoothing: 0.2 }, LossConfig::Mse] {
            let name = format!("votes, {reduce}, {loss:?}");
            let (spikes, dead) = check_loss(&name, &model(&text), Signal::flat(Kind::Spikes, 7, 6), 0.4, loss);
            assert!(spikes > 0 && dead.is_empty(), "{name}: {spikes} spikes, no gradient on {dead:?}");
        }
    }
    let text = format!(
        "model = {{ layers = [{}, {{ kind = 'dropout', p = 0.3 }}], readout = {{ reduce = 'mean', \
         neuron = {{ model = 'vote' }} }} }}",
        dense(8)
    );
    check_lively("votes behind dropout", &model(&text), Signal::flat(Kind::Spikes, 7, 6), 0.5);
}

#[test]
fn models_with_learned_delays_have_exact_gradients() {
    for sigma in ["3.0", "0.4"] {
        let delays = format!("delays = {{ max = 5, sigma = {sigma} }}");
        let dense = |width: usize, more: &str| {
            format!("{{ kind = 'dense', width = {width}, {PARALLEL}, {WIDE}, {delays}{more} }}")
        };
        let norm = ", norm = { kind = 'batch' }";
        let readout = format!("readout = {{ reduce = 'softmax-sum', {delays}, neuron = {{ model = 'none' }} }}");
        let plain = format!("{}, {}", dense(7, ""), dense(6, norm));
        let dropped = format!("{}, {{ kind = 'dropout', p = 0.3 }}, {}", dense(7, norm), dense(6, ""));
        for layers in [plain, dropped] {
            let text = format!("model = {{ layers = [{layers}], {readout} }}");
            check_lively(&format!("delays, sigma {sigma}"), &model(&text), Signal::flat(Kind::Spikes, 9, 6), 0.4);
        }
    }
}

/// Event-driven models, where the loss has a derivative: first spikes and exact decaying counts.
#[test]
fn event_driven_models_have_exact_gradients() {
    let event = "neuron = { model = 'event', tau_s = 0.05, threshold = 0.02, end = 0.3, spikes = 6 }";
    let init = "init = { kind = 'between', low = -0.1, high = 0.5 }";
    let targets = LossConfig::Targets { on: 2.0, off: 0.5 };
    for (read, loss) in [
        ("{ kind = 'first-spike', tau = 0.02 }", LossConfig::default()),
        ("{ kind = 'first-spike', tau = 0.02 }", LossConfig::CrossEntropy { label_smoothing: 0.1 }),
        ("{ kind = 'first-time', missing = 1.0 }", LossConfig::Targets { on: -0.02, off: -0.2 }),
        ("{ kind = 'decay', rate = 3.0, exact = true }", targets),
    ] {
        let cell = "{ tau_s = 0.05, threshold = 0.03, spikes = 5 }";
        let readout = format!("{{ {init}, neuron = {{ model = 'event', cell = {cell}, read = {read} }} }}");
        let dense = format!("{{ kind = 'dense', width = 9, {event}, {init} }}");
        let conv = format!("{{ kind = 'conv', channels = 3, kernel = 3, {event}, {init} }}");
        let pool = "{ kind = 'pool', window = 2 }";
        let flat = Signal::flat(Kind::Trains, 1, 12);
        let map = Signal { kind: Kind::Trains, steps: 1, map: Map::new(6, 5, 2) };
        for (name, layers, signal) in
            [("dense", format!("{dense}, {dense}"), flat), ("convolutional", format!("{conv}, {pool}, {dense}"), map)]
        {
            let model = model(&format!("model = {{ layers = [{layers}], readout = {readout} }}"));
            let (spikes, dead) = check_loss(&format!("{name}, {read}"), &model, signal, 0.0, loss);
            assert!(spikes > 20 && dead.is_empty(), "{name}, {read}: {spikes} spikes, no gradient on {dead:?}");
        }
    }
}

#[test]
fn first_spike_networks_have_exact_gradients() {
    let maps = Signal { kind: Kind::Values, steps: 1, map: Map::new(5, 6, 2) };
    let readout = "readout = { neuron = { model = 'none' }, reduce = 'last' }";
    for more in [
        "",
        ", borders = true",
        ", limited = true, range = 0.3, growth = 0.0",
        ", noise = 0.1",
        ", time_bits = 6, range = 0.5, limited = true, growth = 0.0",
        ", weight_bits = 6",
    ] {
        let ttfs = format!("neuron = {{ model = 'ttfs'{more} }}");
        let dense = ttfs.replace(", borders = true", "");
        let layers = format!(
            "{{ kind = 'conv', channels = 3, kernel = 3, padding = 1, {ttfs} }}, \
             {{ kind = 'pool', window = 2, signed = true }}, {{ kind = 'dense', width = 8, {dense} }}"
        );
        let model = model(&format!("model = {{ layers = [{layers}], {readout} }}"));
        check_lively(&format!("first spikes{more}"), &model, maps, 0.0);
    }
    let coarse = readout.replace(" }, reduce", " }, quantise = { bits = 6 }, reduce");
    let dense = "{ kind = 'dense', width = 8, neuron = { model = 'ttfs' } }";
    check_lively("coarse readout", &model(&format!("model = {{ layers = [{dense}], {coarse} }}")), maps, 0.0);
    for slope in ["alpha-naive", "alpha-smart"] {
        let dense = format!("{{ kind = 'dense', width = 8, neuron = {{ model = 'ttfs', slope = '{slope}' }} }}");
        let model = model(&format!("model = {{ layers = [{dense}, {dense}], {readout} }}"));
        check_lively(slope, &model, maps, 0.0);
    }
}

#[test]
fn rectifier_networks_have_exact_gradients() {
    let maps = Signal { kind: Kind::Values, steps: 1, map: Map::new(5, 6, 2) };
    let relu = "neuron = { model = 'relu' }";
    let layers = format!(
        "{{ kind = 'conv', channels = 3, kernel = 3, padding = 1, {relu} }}, {{ kind = 'norm' }}, \
         {{ kind = 'pool', window = 2 }}, {{ kind = 'dropout', p = 0.3 }}, {{ kind = 'dense', width = 8, {relu} }}, \
         {{ kind = 'norm' }}"
    );
    let readout = "readout = { neuron = { model = 'none' }, reduce = 'last' }";
    let model = model(&format!("model = {{ layers = [{layers}], {readout} }}"));
    let (_, dead) = check("rectifiers", &model, maps, 0.0);
    assert_eq!(dead, Vec::<String>::new());
}
