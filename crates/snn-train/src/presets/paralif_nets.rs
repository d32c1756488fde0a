//! The networks that the ParaLIF repository puts its neuron into: convolutional networks for event cameras, sequential
//! CIFAR-10, and networks with learned delays.

use snn_data::transforms::bins::{Cut, Rule};
use snn_data::{Augment, Encode};

use super::{Preset, Published};
use crate::config::{
    CubaConfig, DataConfig, DelaysConfig, Experiment, FilterConfig, Init, Keep, LayerConfig, LossConfig, ModelConfig,
    NeuronConfig, NoOptions, NormConfig, OptimiserConfig, OptimiserKind, ParaLifConfig, PerNeuron, ReadoutConfig,
    ReadoutNeuron, Reduce, ScheduleConfig, SurrogateConfig, TrainConfig,
};

fn preset(name: &str, title: &str, data: DataConfig, model: ModelConfig, train: TrainConfig) -> Preset {
    let experiment = Experiment { name: name.to_owned(), data, model, train };
    let published: Option<Published> = None;
    Preset { name: name.to_owned(), title: title.to_owned(), published, experiment }
}

fn data(set: &str, encode: Encode, augment: Vec<Augment>) -> DataConfig {
    DataConfig {
        set: set.into(),
        train: "train".into(),
        test: "test".into(),
        encode,
        augment,
        test_augment: vec![],
        train_samples: 0,
        test_samples: 0,
        classes: 0,
    }
}

/// A membrane filter alone.
fn membrane(tau_mem: f64, learn_tau: bool) -> FilterConfig {
    FilterConfig { tau_mem: PerNeuron::Shared(tau_mem), tau_syn: None, learn_tau, ..FilterConfig::default() }
}

/// A ParaLIF-T with threshold 1 and a fixed threshold.
fn threshold_neuron(filter: FilterConfig, alpha: f64) -> NeuronConfig {
    NeuronConfig::Paralif(ParaLifConfig {
        mode: "T".into(),
        filter,
        threshold: Some(PerNeuron::Shared(1.0)),
        learn_threshold: false,
        surrogate: SurrogateConfig::Arctan { alpha },
        ..ParaLifConfig::default()
    })
}

fn adam(weight_decay: f64) -> OptimiserConfig {
    OptimiserConfig { kind: OptimiserKind::Adam, learning_rate: 1e-3, weight_decay, ..OptimiserConfig::default() }
}

/// A convolution with a square kernel of side 3, normalised, without a bias.
fn normalised_conv(channels: usize, kernel_width: Option<usize>, neuron: NeuronConfig) -> LayerConfig {
    LayerConfig::Conv {
        channels,
        kernel: 3,
        kernel_width,
        stride: 1,
        padding: 1,
        padding_width: kernel_width.map(|k| k / 2),
        neuron,
        init: Init::default(),
        bias: false,
        norm: Some(NormConfig::BATCH),
    }
}

fn without_bias(width: usize, neuron: NeuronConfig) -> LayerConfig {
    let init = Init::default();
    LayerConfig::Dense { width, neuron, init, skip: false, bias: false, norm: None, delays: None, field: 1 }
}

const HALF: LayerConfig = LayerConfig::Dropout { p: 0.5 };

/// The network of `plif_net` on maps whose side is halved by each of `blocks` blocks; ten neurons vote for each class.
fn plif_net(neuron: &NeuronConfig, blocks: usize, side: usize, classes: usize) -> ModelConfig {
    const CHANNELS: usize = 128;
    let mut layers = Vec::new();
    for _ in 0..blocks {
        layers.extend([normalised_conv(CHANNELS, None, neuron.clone()), LayerConfig::pool(2)]);
    }
    let flat = CHANNELS * (side >> blocks) * (side >> blocks);
    layers.extend([HALF, without_bias(flat / 4, neuron.clone()), HALF, without_bias(10 * classes, neuron.clone())]);
    let neuron = ReadoutNeuron::Vote(NoOptions {});
    let readout = ReadoutConfig { reduce: Reduce::Mean, neuron, ..ReadoutConfig::default() };
    ModelConfig { layers, readout, ..ModelConfig::default() }
}

fn convolutional() -> Vec<Preset> {
    // The decay starts at one half and is learned, one for each layer.
    let filter = || membrane(std::f64::consts::LOG2_E, true);
    let lif = NeuronConfig::Cuba(CubaConfig {
        filter: filter(),
        surrogate: SurrogateConfig::Arctan { alpha: 2.0 },
        ..CubaConfig::default()
    });
    let mut all = Vec::new();
    for (suffix, words, neuron) in [("", "ParaLIF-T", threshold_neuron(filter(), 2.0)), ("-lif", "LIF", lif)] {
        let train = |epochs, batch| TrainConfig {
            epochs,
            batch,
            seed: 0,
            optimiser: adam(0.0),
            schedule: ScheduleConfig::Cosine { warmup: 0, floor: 0.0 },
            loss: LossConfig::Mse,
            keep: Keep::Last,
            ..TrainConfig::default()
        };
        let frames = |steps| Encode::Frames { steps, by: Cut::Number, side: 0 };
        all.push(preset(
            &format!("paralif-conv-nmnist{suffix}"),
            &format!("N-MNIST, convolutional: {words}"),
            data("nmnist", frames(10), vec![]),
            plif_net(&neuron, 2, 34, 10),
            train(100, 64),
        ));
        let shift = vec![Augment::Affine { shift: 0.15, scale: 0.0 }];
        all.push(preset(
            &format!("paralif-conv-dvs-gesture{suffix}"),
            &format!("DVS Gesture, convolutional: {words}"),
            data("dvs-gesture", frames(20), shift),
            plif_net(&neuron, 5, 128, DVS_CLASSES),
            train(250, 3),
        ));
    }
    all
}

/// The gestures that count.
const DVS_CLASSES: usize = 10;

/// The columns of an image one after the other, convolved along the column.
fn sequential_cifar() -> Preset {
    // Time constants of 0.05 ms and 1 ms at a step of 1 ms.
    let filter = FilterConfig { tau_syn: Some(PerNeuron::Shared(1.0)), ..membrane(0.05, false) };
    let neuron = NeuronConfig::Paralif(ParaLifConfig { mode: "GS".into(), filter, ..ParaLifConfig::default() });
    let mut layers = Vec::new();
    for _ in 0..2 {
        layers.extend((0..3).map(|_| normalised_conv(128, Some(1), neuron.clone())));
        layers.push(LayerConfig::AvgPool { window: 2, window_width: Some(1) });
    }
    layers.push(LayerConfig::dense(256, neuron, Init::default()));
    let readout =
        ReadoutConfig { reduce: Reduce::Mean, neuron: ReadoutNeuron::None(NoOptions {}), ..ReadoutConfig::default() };
    let encode = Encode::Columns { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] };
    // In place of the published "wide trivial augmentation", mixup and cutmix: the usual crops and flips.
    let augment = vec![
        Augment::Flip { prob: 0.5 },
        Augment::Crop { padding: 4 },
        Augment::Erase { prob: 0.1, low: 0.02, high: 0.33 },
    ];
    let optimiser =
        OptimiserConfig { kind: OptimiserKind::Sgd, learning_rate: 0.1, momentum: 0.9, ..OptimiserConfig::default() };
    let train = TrainConfig {
        epochs: 300,
        batch: 128,
        seed: 0,
        optimiser,
        schedule: ScheduleConfig::Cosine { warmup: 0, floor: 0.0 },
        loss: LossConfig::CrossEntropy { label_smoothing: 0.1 },
        keep: Keep::Last,
        ..TrainConfig::default()
    };
    preset(
        "paralif-sequential-cifar10",
        "CIFAR-10 column by column: ParaLIF-GS",
        data("cifar10", encode, augment),
        ModelConfig { layers, readout, ..ModelConfig::default() },
        train,
    )
}

/// Two hidden layers and a readout whose synapses all have delays.
fn learned_delays() -> [Preset; 2] {
    // 0.32 ms at a step of 1 ms: a decay of 0.044.
    let filter = membrane(0.32, false);
    // Delays begin to learn at 100 times the weights' first rate; with one cycle their peak is the published 0.1.
    let delays = DelaysConfig { rate: 20.0, ..DelaysConfig::default() };
    let hidden = || LayerConfig::Dense {
        width: 256,
        neuron: threshold_neuron(filter.clone(), 5.0),
        init: Init::KAIMING,
        skip: false,
        bias: false,
        norm: Some(NormConfig::BATCH),
        delays: Some(delays.clone()),
        field: 1,
    };
    let drop = || LayerConfig::Dropout { p: 0.4 };
    let model = || ModelConfig {
        layers: vec![hidden(), drop(), hidden(), drop()],
        readout: ReadoutConfig {
            reduce: Reduce::SoftmaxSum,
            init: Init::KAIMING,
            neuron: ReadoutNeuron::Filter(filter.clone()),
            bias: false,
            delays: Some(delays.clone()),
            quantise: None,
        },
        ..ModelConfig::default()
    };
    let train = || TrainConfig {
        epochs: 150,
        batch: 256,
        seed: 0,
        optimiser: adam(1e-5),
        schedule: ScheduleConfig::OneCycle { peak: 5.0, warmup: 0.3 },
        keep: Keep::Last,
        ..TrainConfig::default()
    };
    let windows = |steps, units, group| Encode::Align {
        steps,
        dt_ms: 10.0,
        rule: Rule::Floor,
        half: false,
        units,
        group,
        side: 0,
        channel: None,
    };
    [
        preset(
            "paralif-delays-shd",
            "SHD, learned delays: ParaLIF-T",
            data("shd", windows(140, 700, 5), vec![]),
            model(),
            train(),
        ),
        preset(
            "paralif-delays-ntidigits",
            "N-TIDIGITS, learned delays: ParaLIF-T",
            data("n-tidigits", windows(400, 64, 1), vec![]),
            model(),
            train(),
        ),
    ]
}

pub(super) fn presets() -> Vec<Preset> {
    let mut all = convolutional();
    all.push(sequential_cifar());
    all.extend(learned_delays());
    all
}
