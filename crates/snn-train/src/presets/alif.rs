//! The experiments of the adaptive block simulation (arXiv 2311.11390): recurrent networks of two hidden layers on SHD
//! and N-MNIST over refractory periods, surrogates and attached spikes; and the same networks as they should be trained.
//!
//! Numbers in names are refractory periods in steps. The figures of the paper label them in milliseconds, steps times
//! the length of a step.

use snn_data::Encode;

use super::{Preset, Published};
use crate::config::{
    AlifConfig, AlifGradientConfig, DataConfig, Experiment, Init, IntegratorConfig, LayerConfig, LimitGradientConfig,
    LimitsConfig, ModelConfig, NeuronConfig, OptimiserConfig, ReadoutConfig, ReadoutNeuron, Reduce, ResetPath,
    ScheduleConfig, SurrogateConfig, TrainConfig,
};

/// A data set with what all its experiments share.
struct Setting {
    set: &'static str,
    title: &'static str,
    dt_ms: f32,
    steps: usize,
    units: usize,
    epochs: u32,
    schedule: ScheduleConfig,
    /// Published accuracies, per cent, and seconds of an epoch: the control, then 10, 20, .. 50 steps.
    accuracy: [f64; 6],
    seconds: [f64; 6],
}

fn shd() -> Setting {
    Setting {
        set: "shd",
        title: "SHD",
        dt_ms: 2.0,
        steps: 600,
        units: 700,
        epochs: 40,
        schedule: ScheduleConfig::Milestones { epochs: vec![15], factor: 0.1, reload_best: true },
        accuracy: [87.5, 86.0, 84.8, 85.4, 82.7, 81.2],
        seconds: [268.0, 67.0, 39.5, 28.5, 22.6, 20.1],
    }
}

fn nmnist() -> Setting {
    Setting {
        set: "nmnist",
        title: "N-MNIST",
        dt_ms: 1.0,
        steps: 400,
        units: 1156,
        epochs: 20,
        schedule: ScheduleConfig::Constant,
        accuracy: [97.8, 96.6, 95.9, 95.6, 91.6, 91.9],
        seconds: [2032.0, 331.0, 197.0, 177.0, 191.0, 191.0],
    }
}

const SURROGATES: [(&str, &str, SurrogateConfig); 3] = [
    ("", "", SurrogateConfig::MULTI_GAUSSIAN),
    ("-fast-sigmoid", ", fast sigmoid", SurrogateConfig::FastSigmoid { scale: 10.0 }),
    ("-boxcar", ", boxcar", SurrogateConfig::Boxcar { half_width: 0.5 }),
];

/// Accuracies on SHD with the other surrogates, 10 to 50 steps.
const OTHERS: [[f64; 5]; 2] = [[85.4, 85.0, 84.6, 81.9, 79.8], [81.3, 73.5, 67.9, 66.2, 59.0]];

/// Accuracies on SHD at 30 steps with attached spikes, by surrogate.
const ATTACHED: [f64; 3] = [30.6, 71.9, 45.0];

/// All presets of the paper, and ours.
pub(super) fn presets() -> Vec<Preset> {
    let (shd, nmnist) = (shd(), nmnist());
    let mut all = Vec::new();
    for setting in [&shd, &nmnist] {
        all.push(setting.control());
        for (i, refractory) in (10..=50).step_by(10).enumerate() {
            let published = published(setting.accuracy[i + 1], Some(setting.seconds[i + 1]));
            all.push(setting.blocks(refractory, 0, ResetPath::Detached, published));
        }
    }
    for (i, accuracies) in OTHERS.iter().enumerate() {
        for (refractory, &accuracy) in (10..=50).step_by(10).zip(accuracies) {
            all.push(shd.blocks(refractory, i + 1, ResetPath::Detached, published(accuracy, None)));
        }
    }
    for (i, accuracy) in ATTACHED.into_iter().enumerate() {
        all.push(shd.blocks(30, i, ResetPath::Attached, published(accuracy, None)));
    }
    all.extend([shd.ours(), nmnist.ours()]);
    all
}

fn published(accuracy: f64, epoch_seconds: Option<f64>) -> Published {
    Published { accuracy, epoch_seconds, ..Published::default() }
}

impl Setting {
    /// Decay per step of a time constant in milliseconds.
    fn decay(&self, tau_ms: f64) -> f64 {
        (-f64::from(self.dt_ms) / tau_ms).exp()
    }

    /// The published neurons: an adaptation that is clipped to strength 1 and never learns.
    fn neuron(&self, refractory: u32, gradient: AlifGradientConfig) -> AlifConfig {
        AlifConfig {
            refractory,
            beta: self.decay(20.0),
            decay: self.decay(150.0),
            strength: 1.8,
            gradient,
            limits: LimitsConfig { gradient: LimitGradientConfig::Open, ..LimitsConfig::default() },
            ..AlifConfig::default()
        }
    }

    fn control(&self) -> Preset {
        let title = format!("{}: step by step, no refractory period", self.title);
        let published = published(self.accuracy[0], Some(self.seconds[0]));
        let neuron = self.neuron(0, AlifGradientConfig::Steps);
        self.preset(format!("blocks-{}-control", self.set), title, Some(published), &neuron, self.train())
    }

    fn blocks(&self, refractory: u32, surrogate: usize, path: ResetPath, published: Published) -> Preset {
        let (suffix, words, surrogate) = SURROGATES[surrogate];
        let attached = path == ResetPath::Attached;
        let name = format!("blocks-{}-{refractory}{suffix}{}", self.set, if attached { "-attached" } else { "" });
        let title = format!(
            "{}: in blocks, refractory for {refractory} steps{words}{}",
            self.title,
            if attached { ", spikes attached" } else { "" }
        );
        let neuron = AlifConfig { surrogate, spike_path: path, ..self.neuron(refractory, AlifGradientConfig::Blocks) };
        self.preset(name, title, Some(published), &neuron, self.train())
    }

    /// The gradient of the steps, an adaptation that learns, a rate that falls, the last weights: nothing is chosen by
    /// looking at data that were trained on.
    fn ours(&self) -> Preset {
        let neuron = AlifConfig {
            strength: AlifConfig::default().strength,
            limits: LimitsConfig::default(),
            ..self.neuron(10, AlifGradientConfig::Steps)
        };
        let train = TrainConfig {
            schedule: ScheduleConfig::Cosine { warmup: 0, floor: 0.0 },
            keep: crate::config::Keep::Last,
            ..self.train()
        };
        let title = format!("{}: sound gradients, refractory for 10 steps", self.title);
        self.preset(format!("alif-{}", self.set), title, None, &neuron, train)
    }

    fn train(&self) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch: 64,
            optimiser: OptimiserConfig { eps: 1e-5, ..OptimiserConfig::default() },
            schedule: self.schedule.clone(),
            evaluate_every: 5,
            ..TrainConfig::default()
        }
    }

    fn preset(
        &self,
        name: String,
        title: String,
        published: Option<Published>,
        neuron: &AlifConfig,
        train: TrainConfig,
    ) -> Preset {
        let fan_in = Init::FanIn { gain: 1.0 };
        let hidden = || LayerConfig::dense(256, NeuronConfig::Alif(neuron.clone()), fan_in);
        let integrator = IntegratorConfig { beta: self.decay(20.0), ..IntegratorConfig::default() };
        let model = ModelConfig {
            layers: vec![hidden(), hidden()],
            readout: ReadoutConfig {
                reduce: Reduce::Sum,
                init: fan_in,
                neuron: ReadoutNeuron::Integrator(integrator),
                ..ReadoutConfig::default()
            },
            ..ModelConfig::default()
        };
        let data = DataConfig {
            set: self.set.into(),
            train: "train".into(),
            test: "test".into(),
            encode: Encode::Bin { steps: self.steps, dt_ms: self.dt_ms, units: self.units },
            augment: vec![],
            test_augment: vec![],
            train_samples: 0,
            test_samples: 0,
            classes: 0,
        };
        Preset { title, published, experiment: Experiment { name: name.clone(), data, model, train }, name }
    }
}
