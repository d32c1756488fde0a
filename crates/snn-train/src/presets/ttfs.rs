//! The experiments of TTFS (Nature Communications 15, 6793): spiking networks from scratch, networks of rectifiers, and
//! fine-tuning of the former after they were mapped from the latter.
//!
//! A network is a list of convolutions by their channels with pools between them, and of dense layers by their width.

use snn_data::Encode;

use super::Preset;
use crate::config::{
    DataConfig, Experiment, Init, Keep, LayerConfig, ModelConfig, NeuronConfig, NoOptions, OptimiserConfig,
    OptimiserKind, ReadoutConfig, ReadoutNeuron, Reduce, ScheduleConfig, TrainConfig, TtfsConfig,
};

/// One part of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A convolution 3x3 with so many channels.
    C(usize),
    /// Max pooling 2x2.
    P,
    /// A dense layer.
    D(usize),
}

use Part::{C, D, P};

/// The fully connected network with two layers of weights.
const FC2: &[Part] = &[D(340)];
/// Small convolutional networks.
const SMALL: &[Part] = &[C(16), P, C(32), P, D(128)];
const SMALL_COLOUR: &[Part] = &[C(32), C(32), P, C(64), C(64), P, C(128), P, D(128)];
/// VGG16 for maps of 28x28 and of 32x32.
const VGG: &[Part] = &[
    C(64),
    C(64),
    C(128),
    C(128),
    P,
    C(256),
    C(256),
    C(256),
    P,
    C(512),
    C(512),
    C(512),
    P,
    C(512),
    C(512),
    C(512),
    P,
    D(512),
    D(512),
];
const VGG_COLOUR: &[Part] = &[
    C(64),
    C(64),
    P,
    C(128),
    C(128),
    P,
    C(256),
    C(256),
    C(256),
    P,
    C(512),
    C(512),
    C(512),
    P,
    C(512),
    C(512),
    C(512),
    P,
    D(512),
];

/// The share of the newest batch in running statistics, and what is added to variances: those of Keras.
const MOMENTUM: f64 = 0.01;
const EPS: f64 = 1e-3;

/// A data set: its name in presets and in the registry, how its values are standardised, and where spike times begin
/// and end.
struct Set {
    name: &'static str,
    set: &'static str,
    mean_and_std: Option<[f32; 2]>,
}

const SETS: [Set; 4] = [
    Set { name: "mnist", set: "mnist", mean_and_std: None },
    Set { name: "fashion", set: "fashion-mnist", mean_and_std: None },
    Set { name: "cifar10", set: "cifar10", mean_and_std: Some([120.707, 64.15]) },
    Set { name: "cifar100", set: "cifar100", mean_and_std: Some([121.936, 68.389]) },
];

impl Set {
    fn is_colour(&self) -> bool {
        self.mean_and_std.is_some()
    }

    /// What the network sees: for spikes values in [0, 1], for rectifiers the standardised ones.
    fn encode(&self, stage: Stage) -> Encode {
        let of_byte = |x: f32| vec![x / 255.0];
        let (mean, std) = self.mean_and_std.map_or((vec![], vec![]), |[mean, std]| (of_byte(mean), of_byte(std)));
        let (low, high) = if self.is_colour() && stage != Stage::Relu { (-3.0, 3.0) } else { (0.0, 1.0) };
        Encode::Values { mean, std, low, high }
    }
}

/// Which of a network's three trainings it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Scratch,
    Relu,
    Tune,
}

/// A network's name in presets and titles, its parts, whether rectifiers are followed by batch normalisation, and whether
/// it trains as the published VGG without it: plain gradient descent, weight decay, He's initial weights.
struct Net {
    name: &'static str,
    title: &'static str,
    parts: &'static [Part],
    norm: bool,
    plain: bool,
}

fn model(net: &Net, colour: bool, stage: Stage) -> ModelConfig {
    let init = if net.plain { Init::HE } else { Init::GlorotUniform };
    let mut layers = Vec::new();
    // Whether an offset is fused into the next layer, of the data's range or of a normalisation.
    let mut fused = colour;
    for part in net.parts {
        let neuron = |borders| match stage {
            Stage::Relu => NeuronConfig::Relu(NoOptions {}),
            Stage::Scratch => NeuronConfig::Ttfs(TtfsConfig::default()),
            Stage::Tune => NeuronConfig::Ttfs(TtfsConfig { borders, ..TtfsConfig::default() }),
        };
        match *part {
            C(channels) => layers.push(LayerConfig::conv(channels, 3, 1, neuron(fused), init)),
            D(width) => layers.push(LayerConfig::dense(width, neuron(false), init)),
            P => {
                let signed = stage == Stage::Tune && net.norm;
                layers.push(LayerConfig::Pool { window: 2, window_width: None, signed });
                continue;
            }
        }
        fused = net.norm;
        if net.norm && stage == Stage::Relu {
            layers.push(LayerConfig::Norm { momentum: MOMENTUM, eps: EPS });
        }
    }
    let readout = ReadoutConfig {
        neuron: ReadoutNeuron::None(NoOptions {}),
        reduce: Reduce::Last,
        init: Init::GlorotUniform,
        ..ReadoutConfig::default()
    };
    ModelConfig { layers, readout, ..ModelConfig::default() }
}

fn train(net: &Net, stage: Stage) -> TrainConfig {
    let learning_rate = if stage == Stage::Tune && net.name != "fc2" { 1e-6 } else { 5e-4 };
    let (optimiser, schedule) = if net.plain {
        // The penalty 5e-4 W^2 has the gradient 2 x 5e-4 W.
        let sgd = OptimiserConfig {
            kind: OptimiserKind::Sgd,
            momentum: 0.9,
            weight_decay: 1e-3,
            ..OptimiserConfig::default()
        };
        (sgd, ScheduleConfig::Constant)
    } else {
        let adam = OptimiserConfig { kind: OptimiserKind::KerasAdam, eps: 1e-7, ..OptimiserConfig::default() };
        (adam, ScheduleConfig::Decay { factor: 0.9, steps: 5000.0 })
    };
    TrainConfig {
        epochs: if stage == Stage::Tune { 1 } else { 10 },
        batch: 8,
        optimiser: OptimiserConfig { learning_rate, ..optimiser },
        schedule,
        keep: Keep::Last,
        evaluate_every: 1,
        ..TrainConfig::default()
    }
}

fn preset(set: &Set, net: &Net, stage: Stage) -> Preset {
    let (ending, what) = match stage {
        Stage::Scratch => ("", "spikes, from scratch"),
        Stage::Relu => ("-relu", "rectifiers"),
        Stage::Tune => ("-finetune", "spikes, to begin with a mapped network"),
    };
    let name = format!("ttfs-{}-{}{ending}", set.name, net.name);
    let data = DataConfig {
        set: set.set.into(),
        train: "train".into(),
        test: "test".into(),
        encode: set.encode(stage),
        augment: vec![],
        test_augment: vec![],
        train_samples: 0,
        test_samples: 0,
        classes: 0,
    };
    let model = model(net, set.is_colour(), stage);
    let experiment = Experiment { name: name.clone(), data, model, train: train(net, stage) };
    Preset { title: format!("{}, {}, {what}", set.set, net.title), name, published: None, experiment }
}

/// All of them.
pub(super) fn presets() -> Vec<Preset> {
    let mut all = Vec::new();
    for set in &SETS {
        let (small, vgg) = if set.is_colour() { (SMALL_COLOUR, VGG_COLOUR) } else { (SMALL, VGG) };
        let small_title = "small convolutional network";
        let nets = [
            Net { name: "fc2", title: "784-340-10", parts: FC2, norm: false, plain: false },
            Net { name: "conv", title: small_title, parts: small, norm: false, plain: false },
            Net {
                name: "conv-bn",
                title: "small convolutional network, normalised",
                parts: small,
                norm: true,
                plain: false,
            },
            Net { name: "vgg", title: "VGG16", parts: vgg, norm: false, plain: true },
            Net { name: "vgg-bn", title: "VGG16, normalised", parts: vgg, norm: true, plain: false },
        ];
        for net in nets.iter().filter(|net| net.name != "fc2" || !set.is_colour()) {
            // A network of spikes has no normalisation of its own.
            let stages: &[Stage] =
                if net.norm { &[Stage::Relu, Stage::Tune] } else { &[Stage::Scratch, Stage::Relu, Stage::Tune] };
            all.extend(stages.iter().map(|&stage| preset(set, net, stage)));
        }
    }
    all
}
