//! The experiments of the block paper (arXiv 2205.15286): its table of data sets, the convolutional and VGG models,
//! the robustness runs of figure 4d, and the tutorial.

use snn_data::{Augment, Encode};

use super::{Preset, Published};
use crate::config::{
    DataConfig, Experiment, Init, IntegratorConfig, LayerConfig, LeakyConfig, LeakyModel, ModelConfig, NeuronConfig,
    OptimiserConfig, ReadoutConfig, ReadoutNeuron, Reduce, ScheduleConfig, SurrogateConfig, TrainConfig,
};

/// A data set with the settings that all its experiments share.
struct Setting {
    set: &'static str,
    title: &'static str,
    encode: Encode,
    augment: Vec<Augment>,
    epochs: u32,
    batch: usize,
    learning_rate: f64,
    milestones: [u32; 3],
    hidden: usize,
    init: Init,
}

fn latency(steps: usize) -> Encode {
    Encode::Latency { steps }
}

fn noise() -> Augment {
    Augment::Noise { sigma: 0.05, prob: 0.5 }
}

fn mnist_augment() -> Vec<Augment> {
    vec![Augment::Perspective { distortion: 0.4, prob: 0.7 }, Augment::Crop { padding: 3 }, noise()]
}

fn fashion_augment() -> Vec<Augment> {
    let perspective = Augment::Perspective { distortion: 0.1, prob: 0.3 };
    vec![perspective, Augment::Flip { prob: 0.5 }, Augment::Crop { padding: 1 }, noise()]
}

const FAN_IN: Init = Init::FanIn { gain: 1.0 };

fn yinyang() -> Setting {
    Setting {
        set: "yinyang",
        title: "Yin-Yang",
        encode: latency(100),
        augment: vec![],
        epochs: 200,
        batch: 128,
        learning_rate: 1e-3,
        // Two milestones; the third lies after the end.
        milestones: [50, 100, 1000],
        hidden: 120,
        init: Init::Uniform { bound: 2.0 },
    }
}

fn mnist() -> Setting {
    Setting {
        set: "mnist",
        title: "MNIST",
        augment: mnist_augment(),
        epochs: 140,
        milestones: [15, 90, 120],
        hidden: 800,
        init: FAN_IN,
        ..yinyang()
    }
}

fn fashion() -> Setting {
    Setting { set: "fashion-mnist", title: "Fashion-MNIST", augment: fashion_augment(), hidden: 1000, ..mnist() }
}

fn nmnist() -> Setting {
    Setting {
        set: "nmnist",
        title: "N-MNIST",
        encode: Encode::Bin { steps: 300, dt_ms: 1.0, units: 1156 },
        augment: vec![],
        epochs: 200,
        learning_rate: 2e-4,
        milestones: [30, 60, 90],
        hidden: 300,
        ..mnist()
    }
}

fn shd() -> Setting {
    let encode = Encode::Bin { steps: 500, dt_ms: 2.0, units: 700 };
    Setting { set: "shd", title: "SHD", encode, ..nmnist() }
}

impl Setting {
    fn data(&self) -> DataConfig {
        DataConfig {
            set: self.set.into(),
            train: "train".into(),
            test: "test".into(),
            encode: self.encode.clone(),
            augment: self.augment.clone(),
            test_augment: vec![],
            train_samples: 0,
            test_samples: 0,
            classes: 0,
        }
    }

    fn train(&self) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch: self.batch,
            optimiser: OptimiserConfig { learning_rate: self.learning_rate, ..OptimiserConfig::default() },
            schedule: ScheduleConfig::Milestones {
                epochs: self.milestones.into_iter().filter(|&m| m < self.epochs).collect(),
                factor: 0.1,
                reload_best: true,
            },
            ..TrainConfig::default()
        }
    }

    fn linear(&self, row: &Row) -> ModelConfig {
        let neuron = row.model.with(LeakyConfig { learn_beta: row.learn, ..LeakyConfig::default() });
        let hidden = LayerConfig::dense(self.hidden, neuron, self.init);
        let integrator = IntegratorConfig { learn_beta: row.learn, ..IntegratorConfig::default() };
        let readout = readout(row.reduce, FAN_IN, integrator);
        ModelConfig { layers: vec![hidden], readout, ..ModelConfig::default() }
    }
}

fn readout(reduce: Reduce, init: Init, integrator: IntegratorConfig) -> ReadoutConfig {
    ReadoutConfig { reduce, init, neuron: ReadoutNeuron::Integrator(integrator), ..ReadoutConfig::default() }
}

/// A row of the published table.
struct Row {
    model: LeakyModel,
    learn: bool,
    reduce: Reduce,
    published: Published,
}

impl Row {
    fn new(model: LeakyModel, learn: bool, reduce: Reduce, published: Published) -> Self {
        Self { model, learn, reduce, published }
    }

    /// What distinguishes the row from the plain block, learned decay, sum readout.
    fn suffix(&self, plain: Reduce) -> String {
        let model = match self.model {
            LeakyModel::Block => "",
            LeakyModel::Single => "-single",
            LeakyModel::Multi => "-multi",
        };
        let beta = if self.learn { "" } else { "-fixed-beta" };
        let reduce = match self.reduce {
            r if r == plain => "",
            Reduce::Max => "-max",
            _ => "-sum",
        };
        format!("{model}{beta}{reduce}")
    }

    fn title(&self) -> String {
        let model = match self.model {
            LeakyModel::Block => "block",
            LeakyModel::Single => "single-spike LIF",
            LeakyModel::Multi => "multi-spike LIF",
        };
        let beta = if self.learn { "learned" } else { "fixed" };
        let reduce = if self.reduce == Reduce::Sum { "sum" } else { "max" };
        format!("{model}, {beta} decay, {reduce} readout")
    }
}

/// Accuracy, spikes and epoch time; a deviation of 0 stands for a single run.
fn published(accuracy: (f64, f64), spikes: (f64, f64), seconds: f64) -> Published {
    let given = |x: f64| (x > 0.0).then_some(x);
    Published {
        accuracy: accuracy.0,
        accuracy_sd: given(accuracy.1),
        spikes: given(spikes.0),
        spikes_sd: given(spikes.1),
        epoch_seconds: given(seconds),
    }
}

pub(super) fn presets() -> Vec<Preset> {
    use LeakyModel::{Block, Multi, Single};
    use Reduce::{Max, Sum};
    let p = published;
    let tables = [
        (
            yinyang(),
            vec![
                Row::new(Block, true, Sum, p((98.02, 0.16), (78.11, 1.85), 1.41)),
                Row::new(Multi, true, Sum, p((94.46, 2.90), (140.05, 19.20), 15.41)),
                Row::new(Single, true, Sum, p((92.77, 7.09), (79.18, 0.90), 19.78)),
            ],
        ),
        (
            mnist(),
            vec![
                Row::new(Block, true, Sum, p((97.91, 0.08), (116.62, 5.75), 14.06)),
                Row::new(Block, true, Max, p((97.36, 0.02), (246.63, 0.0), 14.21)),
                Row::new(Block, false, Sum, p((90.51, 0.53), (790.05, 0.0), 12.45)),
                Row::new(Block, false, Max, p((64.74, 0.88), (449.46, 0.0), 10.64)),
                Row::new(Multi, true, Sum, p((98.20, 0.21), (232.07, 69.58), 62.19)),
                Row::new(Single, true, Sum, p((97.87, 0.08), (211.76, 12.08), 65.05)),
            ],
        ),
        (
            fashion(),
            vec![
                Row::new(Block, true, Sum, p((89.05, 0.23), (244.69, 3.64), 16.17)),
                Row::new(Block, true, Max, p((88.28, 0.07), (622.21, 0.0), 16.79)),
                Row::new(Block, false, Sum, p((85.34, 0.14), (126.88, 0.0), 11.93)),
                Row::new(Block, false, Max, p((53.72, 1.37), (512.44, 0.0), 12.42)),
                Row::new(Multi, true, Sum, p((90.88, 0.16), (517.83, 9.58), 65.90)),
                Row::new(Single, true, Sum, p((89.93, 0.25), (538.19, 12.48), 68.89)),
            ],
        ),
        (
            nmnist(),
            vec![
                Row::new(Block, true, Sum, p((96.34, 0.16), (109.81, 2.55), 41.93)),
                Row::new(Block, false, Sum, p((95.91, 0.11), (145.98, 0.0), 36.29)),
                Row::new(Multi, true, Sum, p((97.99, 0.06), (588.87, 36.78), 181.59)),
                Row::new(Single, true, Sum, p((97.48, 0.21), (150.95, 21.69), 191.91)),
            ],
        ),
        (
            shd(),
            vec![
                Row::new(Block, true, Sum, p((70.32, 0.25), (236.05, 0.28), 11.28)),
                Row::new(Block, false, Sum, p((44.51, 2.17), (274.46, 0.0), 8.69)),
                Row::new(Multi, true, Sum, p((70.82, 1.67), (847.55, 41.97), 45.81)),
                Row::new(Single, true, Sum, p((68.92, 0.21), (192.03, 1.41), 50.12)),
            ],
        ),
    ];
    let mut all = Vec::new();
    for (setting, rows) in &tables {
        for row in rows {
            all.push(preset(setting, "", row.suffix(Sum), row.title(), Some(row.published), setting.linear(row)));
        }
    }
    let none = (0.0, 0.0);
    let conv_tables = [
        (
            Setting { encode: latency(8), batch: 64, milestones: [30, 60, 90], ..mnist() },
            Max,
            vec![
                Row::new(Block, true, Max, p((99.34, 0.03), none, 23.44)),
                Row::new(Block, true, Sum, p((99.22, 0.0), none, 23.35)),
                Row::new(Block, false, Max, p((99.29, 0.0), none, 19.96)),
                Row::new(Block, false, Sum, p((99.27, 0.0), none, 21.43)),
                Row::new(Multi, true, Max, p((99.47, 0.04), none, 29.44)),
                Row::new(Single, true, Max, p((99.35, 0.04), none, 32.35)),
            ],
        ),
        (
            Setting { encode: latency(8), batch: 64, milestones: [30, 60, 90], ..fashion() },
            Sum,
            vec![
                Row::new(Block, true, Sum, p((90.59, 0.23), none, 24.11)),
                Row::new(Block, true, Max, p((90.40, 0.0), none, 24.00)),
                Row::new(Block, false, Sum, p((90.34, 0.0), none, 22.53)),
                Row::new(Block, false, Max, p((90.14, 0.0), none, 19.54)),
                Row::new(Multi, true, Sum, p((91.17, 0.21), none, 29.96)),
                Row::new(Single, true, Sum, p((90.81, 0.34), none, 33.61)),
            ],
        ),
    ];
    for (setting, plain, rows) in &conv_tables {
        for row in rows {
            let title = format!("convolutional, {}", row.title());
            all.push(preset(setting, "-conv", row.suffix(*plain), title, Some(row.published), convolutional(row)));
        }
    }
    all.push(vgg());
    for setting in [yinyang(), mnist(), shd()] {
        all.push(silent(setting));
    }
    all.extend(tutorial());
    all
}

fn preset(
    setting: &Setting,
    kind: &str,
    suffix: String,
    title: String,
    published: Option<Published>,
    model: ModelConfig,
) -> Preset {
    let name = format!("block-{}{kind}{suffix}", setting.set);
    Preset {
        title: format!("{}: {title}", setting.title),
        published,
        experiment: Experiment { name: name.clone(), data: setting.data(), model, train: setting.train() },
        name,
    }
}

/// Two convolutions with pooling and a wide dense layer; every decay starts at 1.
fn convolutional(row: &Row) -> ModelConfig {
    let neuron = || row.model.with(LeakyConfig { learn_beta: row.learn, beta: 1.0, ..LeakyConfig::default() });
    let conv = |channels| LayerConfig::conv(channels, 5, 2, neuron(), FAN_IN);
    let pool = || LayerConfig::pool(2);
    let dense = LayerConfig::dense(1000, neuron(), FAN_IN);
    ModelConfig {
        layers: vec![conv(32), pool(), conv(64), pool(), dense],
        readout: readout(
            row.reduce,
            FAN_IN,
            IntegratorConfig { learn_beta: row.learn, beta: 1.0, ..IntegratorConfig::default() },
        ),
        ..ModelConfig::default()
    }
}

/// CIFAR-10: seven hidden layers, the image as a constant current, all decays 1 and fixed.
fn vgg() -> Preset {
    let setting = Setting {
        set: "cifar10",
        title: "CIFAR-10",
        encode: Encode::Repeat { steps: 4, mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2023, 0.1994, 0.2010] },
        augment: vec![Augment::Flip { prob: 0.5 }, Augment::Crop { padding: 4 }],
        epochs: 140,
        milestones: [50, 100, 120],
        ..mnist()
    };
    let neuron = |scale| {
        NeuronConfig::Block(LeakyConfig {
            beta: 1.0,
            learn_beta: false,
            shared_beta: true,
            surrogate: SurrogateConfig::FastSigmoid { scale },
            ..LeakyConfig::default()
        })
    };
    let conv = |channels, init| LayerConfig::conv(channels, 3, 1, neuron(1.0), init);
    let later = |channels| conv(channels, Init::FanIn { gain: 4.0 });
    let pool = || LayerConfig::pool(2);
    let wide = Init::FanIn { gain: 2.0 };
    let dense = |width| LayerConfig::dense(width, neuron(10.0), wide);
    let model = ModelConfig {
        layers: vec![
            conv(128, Init::GlorotNormal),
            pool(),
            later(256),
            later(256),
            pool(),
            later(512),
            later(512),
            pool(),
            dense(2048),
            dense(1000),
        ],
        readout: readout(Reduce::Sum, wide, IntegratorConfig { beta: 1.0, learn_beta: false, shared_beta: true }),
        ..ModelConfig::default()
    };
    let title = "VGG, block, fixed decay, sum readout".to_owned();
    preset(&setting, "-vgg", String::new(), title, Some(published((82.14, 0.0), (0.0, 0.0), 0.0)), model)
}

/// Figure 4d: weights so small at the start that no hidden neuron fires.
fn silent(setting: Setting) -> Preset {
    let setting = Setting { init: Init::FanIn { gain: 0.1 }, ..setting };
    let row = Row::new(LeakyModel::Block, true, Reduce::Sum, Published::default());
    let title = "block, from silence (figure 4d)".to_owned();
    let mut preset = preset(&setting, "-silent", String::new(), title, None, setting.linear(&row));
    preset.experiment.train.schedule = ScheduleConfig::Constant;
    preset
}

/// The published tutorial: SHD with a fixed shared and with a learned decay, 80 epochs at one rate.
fn tutorial() -> [Preset; 2] {
    [(true, 66.0), (false, 18.0)].map(|(learn, accuracy)| {
        let setting = Setting { epochs: 80, learning_rate: 4e-4, ..shd() };
        let row = Row::new(LeakyModel::Block, learn, Reduce::Sum, published((accuracy, 0.0), (0.0, 0.0), 0.0));
        let mut model = setting.linear(&row);
        if let [LayerConfig::Dense { neuron: NeuronConfig::Block(neuron), .. }] = &mut model.layers[..] {
            neuron.shared_beta = !learn;
        }
        let suffix = row.suffix(Reduce::Sum);
        let title = format!("tutorial, {}", row.title());
        let mut preset = preset(&setting, "-tutorial", suffix, title, Some(row.published), model);
        preset.experiment.train.schedule = ScheduleConfig::Constant;
        preset
    })
}
