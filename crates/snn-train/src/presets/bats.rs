//! The experiments of BATS (arXiv 2212.09500) and of the follow-up that trains with one loss and tests with another.
//!
//! Hidden and output neurons have `tau_s = 130 ms`; images become one spike per pixel within 100 ms.

use snn_data::{Augment, Encode};

use super::{Preset, Published};
use crate::config::{
    DataConfig, EventConfig, EventReadoutConfig, Experiment, Init, Keep, LayerConfig, LossConfig, ModelConfig,
    MonitorConfig, NeuronConfig, OptimiserConfig, OptimiserKind, ReadConfig, ReadoutConfig, ReadoutNeuron,
    ScheduleConfig, TrainConfig,
};

/// The published temperature of the first-spike loss, s.
const TAU_LOSS: f64 = 0.005;
const COUNTS: LossConfig = LossConfig::Targets { on: 15.0, off: 3.0 };
const FIRST: LossConfig = LossConfig::CrossEntropy { label_smoothing: 0.0 };
const SIGNED: Init = Init::Between { low: -1.0, high: 1.0 };
const POSITIVE: Init = Init::Between { low: 0.0, high: 1.0 };

/// First-spike networks collapse late in training, here as in the original: once the loss is small, all that is left to
/// learn from are other classes' spikes that hardly come to be; they are pushed away until classes fall silent, and
/// silence has no gradient. A little of every label for the other classes keeps them firing.
const SMOOTHED: LossConfig = LossConfig::CrossEntropy { label_smoothing: 0.1 };

/// A hidden layer: neurons, threshold, buffer.
type Hidden = (usize, f64, u32);

/// What the experiments differ in.
struct Run {
    name: &'static str,
    title: String,
    set: &'static str,
    hidden: Vec<Hidden>,
    /// Threshold and buffer.
    output: (f64, u32),
    end: f64,
    read: ReadConfig,
    loss: LossConfig,
    learning_rate: f64,
    epochs: u32,
    batch: usize,
    init: Init,
    schedule: ScheduleConfig,
    published: Option<f64>,
}

fn cell(threshold: f64, spikes: u32, end: f64) -> EventConfig {
    EventConfig { threshold, spikes, end: Some(end), ..EventConfig::default() }
}

/// Half the rate after every ten epochs, down to `floor` times the first.
fn halving(floor: f64) -> ScheduleConfig {
    ScheduleConfig::Step { every: 10, factor: 0.5, floor }
}

/// Training as published, but for the choice of weights and a stop should training collapse.
fn train(run: &Run) -> TrainConfig {
    TrainConfig {
        epochs: run.epochs,
        batch: run.batch,
        optimiser: OptimiserConfig {
            kind: OptimiserKind::Adam,
            learning_rate: run.learning_rate,
            ..OptimiserConfig::default()
        },
        schedule: run.schedule.clone(),
        loss: run.loss,
        keep: Keep::BestTrainingAccuracy,
        collapse: 0.8,
        evaluate_every: 1,
        monitor: MonitorConfig { per_epoch: 10, snapshots: true },
        ..TrainConfig::default()
    }
}

fn readout(output: (f64, u32), end: f64, read: ReadConfig, init: Init) -> ReadoutConfig {
    let neuron = ReadoutNeuron::Event(EventReadoutConfig { cell: cell(output.0, output.1, end), read });
    ReadoutConfig { neuron, init, bias: false, ..ReadoutConfig::default() }
}

fn data(set: &str, window_ms: f64) -> DataConfig {
    DataConfig {
        set: set.into(),
        train: "train".into(),
        test: "test".into(),
        encode: Encode::Times { window_ms, most: 64 },
        augment: vec![],
        test_augment: vec![],
        train_samples: 0,
        test_samples: 0,
        classes: 0,
    }
}

fn preset(run: Run) -> Preset {
    let dense = |&(width, threshold, spikes): &Hidden| LayerConfig::Dense {
        width,
        neuron: NeuronConfig::Event(cell(threshold, spikes, run.end)),
        init: run.init,
        skip: false,
        bias: false,
        norm: None,
        delays: None,
        field: 1,
    };
    let model = ModelConfig {
        layers: run.hidden.iter().map(dense).collect(),
        readout: readout(run.output, run.end, run.read, run.init),
        ..ModelConfig::default()
    };
    let experiment = Experiment { name: run.name.into(), data: data(run.set, 100.0), model, train: train(&run) };
    let published = run.published.map(|accuracy| Published { accuracy, ..Published::default() });
    Preset { name: run.name.into(), title: run.title, published, experiment }
}

/// The count network of MNIST; other experiments change what they need.
fn count(name: &'static str, title: &str) -> Run {
    Run {
        name,
        title: title.into(),
        set: "mnist",
        hidden: vec![(800, 0.2, 30)],
        output: (1.3, 30),
        end: 0.2,
        read: ReadConfig::Count,
        loss: COUNTS,
        learning_rate: 3e-3,
        epochs: 30,
        batch: 50,
        init: SIGNED,
        schedule: ScheduleConfig::Constant,
        published: None,
    }
}

/// The first-spike network of MNIST with buffers of so many spikes.
fn first(name: &'static str, title: &str, spikes: u32) -> Run {
    Run {
        hidden: vec![(800, 0.7, spikes)],
        output: (2.0, spikes),
        end: 1.0,
        read: ReadConfig::FirstSpike { tau: TAU_LOSS },
        loss: SMOOTHED,
        learning_rate: 2e-3,
        init: POSITIVE,
        ..count(name, title)
    }
}

/// The convolutional network: two stages of convolution and pooling, one dense layer.
fn convolutional() -> Preset {
    let run = Run {
        loss: LossConfig::Targets { on: 30.0, off: 3.0 },
        epochs: 100,
        batch: 20,
        schedule: halving(1e-4 / 3e-3),
        ..count("bats-mnist-conv", "MNIST, convolutions 15C5-P2-40C5-P2-300, spike counts, elastic deformation")
    };
    let conv = |channels, threshold, spikes| {
        LayerConfig::conv(channels, 5, 0, NeuronConfig::Event(cell(threshold, spikes, run.end)), SIGNED)
    };
    let dense = NeuronConfig::Event(cell(0.6, 10, run.end));
    let mut preset = preset(Run { hidden: vec![(300, 0.6, 10)], ..run });
    let model = &mut preset.experiment.model;
    model.layers = vec![
        conv(15, 0.04, 1),
        LayerConfig::pool(2),
        conv(40, 0.8, 3),
        LayerConfig::pool(2),
        LayerConfig::dense(300, dense, SIGNED),
    ];
    model.readout = readout((0.3, 30), 0.2, ReadConfig::Count, SIGNED);
    preset.experiment.data.augment = vec![Augment::Elastic { points: 2, sigma: 1.0 }];
    preset
}

/// The convergence study: one layer, two samples, weights of a mean and a deviation that the study varies.
fn toy(name: &'static str, title: &str, read: ReadConfig, loss: LossConfig, spikes: u32) -> Preset {
    let init = Init::Normal { mean: 1.0, deviation: 1.0 };
    let run = Run { epochs: 50, batch: 2, set: "spike-order", ..count(name, title) };
    let mut readout = readout((1.0, spikes), 10.0, read, init);
    if let ReadoutNeuron::Event(c) = &mut readout.neuron {
        c.cell.tau_s = 1.0;
    }
    let train = TrainConfig {
        optimiser: OptimiserConfig { kind: OptimiserKind::Sgd, learning_rate: 0.1, ..OptimiserConfig::default() },
        loss,
        collapse: 0.0,
        monitor: MonitorConfig::default(),
        ..train(&run)
    };
    let model = ModelConfig { readout, ..ModelConfig::default() };
    let experiment = Experiment { name: name.into(), data: data("spike-order", 10_000.0), model, train };
    Preset { name: name.into(), title: title.into(), published: None, experiment }
}

/// All of them.
pub(super) fn presets() -> Vec<Preset> {
    let decay = |rate| ReadConfig::Decay { rate, exact: false };
    let runs = vec![
        Run { epochs: 100, ..count("bats-mnist", "MNIST, 800 neurons, spike counts") },
        first("bats-mnist-ttfs", "MNIST, 800 neurons with one spike, first spikes", 1),
        Run {
            set: "emnist-balanced",
            epochs: 100,
            ..count("bats-emnist", "EMNIST balanced, 800 neurons, spike counts")
        },
        Run {
            set: "fashion-mnist",
            hidden: vec![(400, 0.13, 5), (400, 0.45, 5)],
            output: (0.7, 20),
            learning_rate: 5e-4,
            epochs: 100,
            batch: 5,
            schedule: halving(0.2),
            ..count("bats-fashion", "Fashion-MNIST, 400-400 neurons, spike counts")
        },
        Run { published: Some(98.85), ..count("bats-count-count", "MNIST, trained and tested by spike count") },
        Run {
            published: Some(97.65),
            ..count("bats-count-ttfs", "MNIST, trained by spike count, to be tested by first spike")
        },
        Run {
            read: decay(6.0),
            loss: LossConfig::Targets { on: 10.0, off: 0.7 },
            ..count("bats-decay-decay", "MNIST, trained and tested by decaying spike count, as the script stands")
        },
        Run {
            read: decay(1.0),
            epochs: 50,
            published: Some(98.91),
            ..count("bats-decay-logged", "MNIST, decaying spike count with the constants of the logged runs")
        },
        Run {
            published: Some(97.79),
            ..first("bats-ttfs-ttfs", "MNIST, trained and tested by first spike, 30 spikes per neuron", 30)
        },
        Run {
            published: Some(95.5),
            ..first("bats-ttfs-count", "MNIST, trained by first spike, to be tested by spike count", 30)
        },
        Run {
            published: Some(97.85),
            ..first("bats-ttfs-single", "MNIST, trained and tested by first spike, one spike per neuron", 1)
        },
    ];
    let mut all: Vec<Preset> = runs.into_iter().map(preset).collect();
    all.push(convolutional());
    let by_count = LossConfig::Targets { on: 10.0, off: 0.0 };
    all.push(toy("bats-toy-count", "Convergence study: two samples, spike counts", ReadConfig::Count, by_count, 10));
    let by_first = ReadConfig::FirstSpike { tau: 0.1 };
    all.push(toy("bats-toy-ttfs", "Convergence study: two samples, first spikes", by_first, FIRST, 1));
    all
}
