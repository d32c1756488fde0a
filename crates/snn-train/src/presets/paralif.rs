//! The experiments of SPSN (arXiv 2306.12666) and ParaLIF (doi 10.1088/2634-4386/adb7fe): spoken digits, gestures,
//! handwritten digits from a sensor, Yin-Yang, with every neuron of the two repositories.

use snn_core::neurons::paralif::FiringMode;
use snn_data::transforms::bins::Rule;
use snn_data::{Augment, Encode};

use super::{Preset, Published};
use crate::config::{
    CubaConfig, DataConfig, Experiment, FilterConfig, Init, Keep, LayerConfig, ModelConfig, NeuronConfig, NoOptions,
    OptimiserConfig, OptimiserKind, ParaLifConfig, RateConfig, ReadoutConfig, ReadoutNeuron, RecurrentConfig, Reduce,
    ScheduleConfig, TrainConfig,
};

/// The neurons that the command lines name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neuron {
    /// The sequential baseline.
    Lif,
    /// The same with a learned threshold.
    LifLearned,
    /// A parallel neuron.
    Parallel(FiringMode),
    /// No neuron.
    NonSpiking,
}

impl Neuron {
    /// As it stands in the name of a preset.
    fn suffix(self) -> String {
        match self {
            Self::Lif => "lif".into(),
            Self::LifLearned => "lif-lt".into(),
            Self::Parallel(mode) => mode.name().to_lowercase(),
            Self::NonSpiking => "nonspiking".into(),
        }
    }

    fn title(self, system: &str) -> String {
        match self {
            Self::Lif => "LIF".into(),
            Self::LifLearned => "LIF, learned threshold".into(),
            Self::Parallel(mode) => format!("{system}-{mode}"),
            Self::NonSpiking => "Non-Spiking".into(),
        }
    }

    fn config(self, recurrent: RecurrentConfig) -> NeuronConfig {
        let cuba = |learn_threshold| CubaConfig { learn_threshold, recurrent, ..CubaConfig::default() };
        match self {
            Self::Lif => NeuronConfig::Cuba(cuba(false)),
            Self::LifLearned => NeuronConfig::Cuba(cuba(true)),
            Self::Parallel(mode) => {
                NeuronConfig::Paralif(ParaLifConfig { mode: mode.name().into(), recurrent, ..ParaLifConfig::default() })
            }
            Self::NonSpiking => NeuronConfig::Relu(NoOptions {}),
        }
    }

    /// `layers` hidden layers of `width` neurons and a readout that takes the mean over time.
    fn model(self, layers: usize, width: usize, recurrent: RecurrentConfig) -> ModelConfig {
        let layer = LayerConfig::dense(width, self.config(recurrent), Init::KAIMING);
        let neuron = match self {
            Self::NonSpiking => ReadoutNeuron::None(NoOptions {}),
            _ => ReadoutNeuron::Filter(FilterConfig::default()),
        };
        ModelConfig {
            layers: vec![layer; layers],
            readout: ReadoutConfig { reduce: Reduce::Mean, init: Init::KAIMING, neuron, ..ReadoutConfig::default() },
            ..ModelConfig::default()
        }
    }
}

/// A data set with what all its runs share.
struct Setting {
    set: &'static str,
    /// How the set is called in names of presets.
    short: &'static str,
    title: &'static str,
    encode: Encode,
    augment: Vec<Augment>,
    epochs: u32,
    batch: usize,
    layers: usize,
    width: usize,
    recurrent_width: usize,
}

/// Right-aligned windows of `dt_ms`, at most `steps` of them.
fn windows(steps: usize, dt_ms: f32, rule: Rule, units: usize) -> Encode {
    Encode::Align { steps, dt_ms, rule, half: false, units, group: 1, side: 0, channel: None }
}

/// The recordings of SHD are below 1.4 s.
const SHD_STEPS: usize = 1400;

impl Setting {
    fn shd() -> Self {
        Self {
            set: "shd",
            short: "shd",
            title: "SHD",
            encode: windows(SHD_STEPS, 1.0, Rule::Floor, 700),
            augment: vec![Augment::Affine { shift: 0.05, scale: 0.15 }],
            epochs: 200,
            batch: 64,
            layers: 3,
            width: 128,
            recurrent_width: 256,
        }
    }

    fn ntidigits() -> Self {
        Self {
            set: "n-tidigits",
            short: "ntidigits",
            title: "N-TIDIGITS",
            encode: windows(4000, 1.0, Rule::Floor, 64),
            augment: vec![],
            epochs: 300,
            ..Self::shd()
        }
    }

    fn nmnist() -> Self {
        let (rule, units) = (Rule::Floor, 0);
        Self {
            set: "nmnist",
            short: "nmnist",
            title: "N-MNIST",
            encode: Encode::Align {
                steps: 80,
                dt_ms: 5.0,
                rule,
                half: false,
                units,
                group: 1,
                side: 0,
                channel: Some(0),
            },
            augment: vec![],
            epochs: 50,
            batch: 256,
            layers: 2,
            width: 128,
            recurrent_width: 128,
        }
    }

    fn dvs() -> Self {
        let (rule, units) = (Rule::Floor, 0);
        Self {
            set: "dvs-gesture",
            short: "dvs-gesture",
            title: "DVS Gesture",
            encode: Encode::Align {
                steps: 4000,
                dt_ms: 5.0,
                rule,
                half: false,
                units,
                group: 1,
                side: 64,
                channel: None,
            },
            augment: vec![Augment::Affine { shift: 0.05, scale: 0.0 }],
            batch: 16,
            ..Self::nmnist()
        }
    }

    fn yinyang() -> Self {
        Self {
            set: "yinyang-paralif",
            short: "yinyang",
            title: "Yin-Yang",
            encode: Encode::Rate { steps: 10_000, seed: 0 },
            augment: vec![],
            epochs: 20,
            batch: 64,
            layers: 1,
            width: 128,
            recurrent_width: 128,
        }
    }

    fn data(&self, augment: Vec<Augment>) -> DataConfig {
        DataConfig {
            set: self.set.into(),
            train: "train".into(),
            test: "test".into(),
            encode: self.encode.clone(),
            augment,
            test_augment: vec![],
            train_samples: 0,
            test_samples: 0,
            classes: 0,
        }
    }

    fn train(&self, schedule: ScheduleConfig) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch: self.batch,
            seed: 0,
            optimiser: OptimiserConfig { kind: OptimiserKind::Adamax, ..OptimiserConfig::default() },
            schedule,
            keep: Keep::Last,
            ..TrainConfig::default()
        }
    }
}

fn preset(
    name: String,
    title: String,
    published: Option<Published>,
    data: DataConfig,
    model: ModelConfig,
    train: TrainConfig,
) -> Preset {
    let experiment = Experiment { name: name.clone(), data, model, train };
    Preset { name, title, published, experiment }
}

/// The learning rate halves every 25 epochs.
const HALVING: ScheduleConfig = ScheduleConfig::Step { every: 25, factor: 0.5, floor: 0.0 };

/// The three runs of the SPSN repository for each of its neurons: basic, augmented, augmented and regularised.
fn spsn() -> impl Iterator<Item = Preset> {
    use FiringMode::{GS, SB};
    let shd = Setting { encode: windows(SHD_STEPS, 1.0, Rule::Ceil, 700), ..Setting::shd() };
    let published = |accuracy, epoch_seconds| {
        Some(Published { accuracy, epoch_seconds: Some(epoch_seconds), ..Published::default() })
    };
    let rows = [
        (Neuron::Lif, [published(71.38, 252.3), published(83.04, 261.8), None], 0.1),
        (Neuron::Parallel(SB), [published(77.16, 5.51), published(86.09, 10.72), published(89.71, 10.74)], 0.4),
        (Neuron::Parallel(GS), [published(75.66, 6.81), published(86.09, 12.29), published(89.40, 12.24)], 0.1),
        (Neuron::NonSpiking, [published(71.82, 1.51), published(66.08, 6.73), None], 0.0),
    ];
    rows.into_iter().flat_map(move |(neuron, results, limit)| {
        let runs = [
            ("", "", false, 0.0),
            ("-augment", ", augmented", true, 0.0),
            ("-reg", ", augmented, rates regularised", true, limit),
        ];
        let runs = runs.into_iter().zip(results).filter(move |(run, _)| run.0 != "-reg" || limit > 0.0);
        let presets: Vec<Preset> = runs
            .map(|((suffix, words, augmented, limit), published)| {
                let augment = if augmented { vec![Augment::Affine { shift: 0.1, scale: 0.3 }] } else { vec![] };
                let mut train = shd.train(ScheduleConfig::Constant);
                train.rates = RateConfig { limit, recurrent_limit: 0.0 };
                let model = neuron.model(shd.layers, shd.width, RecurrentConfig::None);
                let name = format!("spsn-shd-{}{suffix}", neuron.suffix());
                preset(
                    name,
                    format!("SHD: {}{words}", neuron.title("SPSN")),
                    published,
                    shd.data(augment),
                    model,
                    train,
                )
            })
            .collect();
        presets
    })
}

/// The runs of the ParaLIF repository: each data set at its best configuration with every neuron; for SHD also without
/// augmentation, regularised, recurrent; and the winners that its first version names.
fn paralif() -> Vec<Preset> {
    let neurons = || [Neuron::Lif, Neuron::LifLearned].into_iter().chain(FiringMode::ALL.map(Neuron::Parallel));
    let one =
        |s: &Setting, kind: &str, words: &str, neuron: Neuron, recurrent: RecurrentConfig, augment: Vec<Augment>| {
            let (layers, width) = match recurrent {
                RecurrentConfig::None => (s.layers, s.width),
                _ => (1, s.recurrent_width),
            };
            let name = format!("paralif-{}-{}{kind}", s.short, neuron.suffix());
            let title = format!("{}: {}{words}", s.title, neuron.title("ParaLIF"));
            preset(name, title, None, s.data(augment), neuron.model(layers, width, recurrent), s.train(HALVING))
        };
    let plain = RecurrentConfig::None;
    let mut all = Vec::new();
    let shd = Setting::shd();
    for neuron in neurons() {
        let augment = || shd.augment.clone();
        all.push(one(&shd, "", "", neuron, plain, vec![]));
        all.push(one(&shd, "-augment", ", augmented", neuron, plain, augment()));
        let mut regularised = one(&shd, "-reg", ", augmented, rates regularised", neuron, plain, augment());
        regularised.experiment.train.rates.limit = 0.1;
        all.push(regularised);
        all.push(one(&shd, "-recurrent", ", recurrent", neuron, RecurrentConfig::Spike, augment()));
        all.push(one(&shd, "-recurrent-relu", ", recurrent (relu)", neuron, RecurrentConfig::Relu, augment()));
    }
    for setting in [Setting::ntidigits(), Setting::nmnist(), Setting::dvs(), Setting::yinyang()] {
        all.extend(neurons().map(|neuron| one(&setting, "", "", neuron, plain, setting.augment.clone())));
    }
    let best = [
        (Setting::shd(), FiringMode::SD, RecurrentConfig::Spike),
        (Setting::ntidigits(), FiringMode::D, RecurrentConfig::Spike),
        (Setting { encode: one_millisecond_nmnist(), ..Setting::nmnist() }, FiringMode::SD, plain),
        (Setting::dvs(), FiringMode::SD, plain),
        (Setting::yinyang(), FiringMode::GS, plain),
    ];
    for (setting, mode, recurrent) in best {
        let neuron = Neuron::Parallel(mode);
        let mut winner = one(&setting, "-best", ", the named best", neuron, recurrent, setting.augment.clone());
        winner.name = format!("paralif-{}-best", setting.short);
        winner.experiment.name.clone_from(&winner.name);
        all.push(winner);
    }
    all
}

/// The first version took N-MNIST in steps of 1 ms.
fn one_millisecond_nmnist() -> Encode {
    let (rule, units) = (Rule::Floor, 0);
    Encode::Align { steps: 400, dt_ms: 1.0, rule, half: false, units, group: 1, side: 0, channel: Some(0) }
}

/// Three layers without augmentation, tested under noise: trained by the robustness study.
fn robustness() -> impl Iterator<Item = Preset> {
    let shd = Setting { epochs: 100, ..Setting::shd() };
    let neurons = [Neuron::Lif].into_iter().chain(FiringMode::ALL.map(Neuron::Parallel));
    neurons.map(move |neuron| {
        let name = format!("paralif-robustness-{}", neuron.suffix());
        let model = neuron.model(shd.layers, shd.width, RecurrentConfig::None);
        let title = format!("SHD, for the robustness study: {}", neuron.title("ParaLIF"));
        preset(name, title, None, shd.data(vec![]), model, shd.train(HALVING))
    })
}

pub(super) fn presets() -> Vec<Preset> {
    spsn().chain(paralif()).chain(robustness()).collect()
}
