//! An experiment as data: what to train, on what, and how.
//!
//! A file is TOML. Unknown keys are errors that name the nearest right one; every value is checked in
//! [`Experiment::check`], before any data is read.
//!
//! ```
//! let text = r#"
//!     [data]
//!     set = "yinyang"
//!     encode = { kind = "latency", steps = 100 }
//!     [model]
//!     layers = [{ kind = "dense", width = 120, neuron = { model = "block" } }]
//! "#;
//! let experiment = snn_train::Experiment::from_toml("example.toml", text)?;
//! assert_eq!(experiment.train.batch, 128);
//! let typo = text.replace("width", "widht");
//! let error = snn_train::Experiment::from_toml("example.toml", &typo).unwrap_err();
//! assert!(error.to_string().contains("did you mean `width`"));
//! # Ok::<(), snn_train::Error>(())
//! ```

use serde::{Deserialize, Serialize};
use snn_core::neurons::paralif::FiringMode;
use snn_data::{Augment, Encode};

use crate::error::{Error, Result};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// A name for reports.
    #[serde(default)]
    pub name: String,
    /// What to train on.
    pub data: DataConfig,
    /// The model.
    pub model: ModelConfig,
    /// How to train.
    #[serde(default)]
    pub train: TrainConfig,
}

/// What to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The data set's name in the registry, or a generated set.
    pub set: String,
    /// The split that is trained on.
    #[serde(default = "train_split")]
    pub train: String,
    /// The split that is tested on.
    #[serde(default = "test_split")]
    pub test: String,
    /// How a sample becomes input over time.
    pub encode: Encode,
    /// Augmentation of training samples, in this order.
    #[serde(default)]
    pub augment: Vec<Augment>,
    /// The same for test samples: noise, for a study of robustness.
    #[serde(default)]
    pub test_augment: Vec<Augment>,
    /// Train on the first so many samples only; 0 for all.
    #[serde(default)]
    pub train_samples: usize,
    /// Test on the first so many samples only; 0 for all.
    #[serde(default)]
    pub test_samples: usize,
    /// Outputs of the model, if not as many as the data has classes; 0 for the latter.
    #[serde(default)]
    pub classes: usize,
}

fn train_split() -> String {
    "train".into()
}

fn test_split() -> String {
    "test".into()
}

/// The model: hidden layers and a readout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hidden layers, from the input on.
    #[serde(default)]
    pub layers: Vec<LayerConfig>,
    /// The readout.
    #[serde(default)]
    pub readout: ReadoutConfig,
}

/// A hidden layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LayerConfig {
    /// Every input to every neuron.
    Dense {
        /// Neurons.
        width: usize,
        /// The neurons.
        #[serde(default)]
        neuron: NeuronConfig,
        /// Initial weights.
        #[serde(default)]
        init: Init,
        /// The layer's input is added to its spikes (from the second hidden layer on, widths equal).
        #[serde(default)]
        skip: bool,
        /// Whether there is a bias; a normalisation has an offset in its place.
        #[serde(default = "yes")]
        bias: bool,
        /// Normalisation of the currents, every neuron for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<NormConfig>,
        /// Learned delays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delays: Option<DelaysConfig>,
    },
    /// Convolution of maps, every step for itself.
    Conv {
        /// Output channels.
        channels: usize,
        /// Side of the kernel, or its rows.
        kernel: usize,
        /// Columns of the kernel, if not as many as rows: 1 for the one-dimensional convolution of a map of width 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel_width: Option<usize>,
        /// Step between positions.
        #[serde(default = "one")]
        stride: usize,
        /// Zeros on each side, or above and below.
        #[serde(default)]
        padding: usize,
        /// Zeros left and right, if not as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding_width: Option<usize>,
        /// The neurons.
        #[serde(default)]
        neuron: NeuronConfig,
        /// Initial weights.
        #[serde(default)]
        init: Init,
        /// Whether every channel has a bias; a normalisation has an offset in its place.
        #[serde(default = "yes")]
        bias: bool,
        /// Normalisation of the currents, every channel for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<NormConfig>,
    },
    /// Max pooling of spikes.
    Pool {
        /// Side of the window, and step; or its rows.
        window: usize,
        /// Columns of the window, if not as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_width: Option<usize>,
    },
    /// Mean pooling of spikes or values; gives values.
    AvgPool {
        /// Side of the window, and step; or its rows.
        window: usize,
        /// Columns of the window, if not as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_width: Option<usize>,
    },
    /// Dropout: in training a share of the units is silenced, for all steps of a sample; see
    /// [`crate::layers::dropout`].
    Dropout {
        /// The share.
        p: f64,
    },
}

fn yes() -> bool {
    true
}

/// Normalisation of currents; see [`crate::layers::norm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NormConfig {
    /// Over the batch, its steps and positions.
    Batch {
        /// Share of the newest batch in the running statistics.
        #[serde(default = "tenth")]
        momentum: f64,
        /// Added to the variance.
        #[serde(default = "small")]
        eps: f64,
    },
}

fn small() -> f64 {
    1e-5
}

impl NormConfig {
    /// Batch normalisation with the usual constants.
    pub const BATCH: Self = Self::Batch { momentum: 0.1, eps: 1e-5 };
}

/// Learned delays; see [`crate::layers::delays`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DelaysConfig {
    /// Delays: 0 to `max - 1` steps.
    pub max: usize,
    /// Width of the bell around a delay at the start, steps.
    pub sigma: f64,
    /// Its width at the end.
    pub sigma_end: f64,
    /// The share of the epochs in which the width falls, exponentially.
    pub anneal: f64,
    /// Factor on the learning rate of the delays.
    pub rate: f64,
    /// Whether evaluation rounds delays to whole steps.
    pub round: bool,
}

impl Default for DelaysConfig {
    fn default() -> Self {
        Self { max: 25, sigma: 12.0, sigma_end: 0.23, anneal: 0.25, rate: 100.0, round: true }
    }
}

impl DelaysConfig {
    /// The width of the bell after `finished` of `epochs` epochs.
    ///
    /// ```
    /// let delays = snn_train::config::DelaysConfig { sigma: 8.0, sigma_end: 0.5, ..Default::default() };
    /// assert_eq!([0, 1, 2, 8].map(|e| delays.sigma_after(e, 8)), [8.0, 2.0, 0.5, 0.5]);
    /// ```
    #[must_use]
    pub fn sigma_after(&self, finished: u32, epochs: u32) -> f64 {
        let done = f64::from(finished) / (self.anneal * f64::from(epochs)).max(1.0);
        self.sigma * (self.sigma_end / self.sigma).powf(done.min(1.0))
    }

    fn check(&self, key: &str) -> Result<()> {
        if !(1..=4096).contains(&self.max) {
            return Err(out_of_range(&format!("{key}.max"), &self.max, "1 to 4096"));
        }
        for (name, value) in [("sigma", self.sigma), ("sigma_end", self.sigma_end)] {
            if !(value >= 0.01 && value.is_finite()) {
                return Err(out_of_range(&format!("{key}.{name}"), &value, "0.01 or more"));
            }
        }
        if !(self.anneal > 0.0 && self.anneal <= 1.0) {
            return Err(out_of_range(&format!("{key}.anneal"), &self.anneal, "above 0, at most 1"));
        }
        if !(self.rate >= 0.0 && self.rate.is_finite()) {
            return Err(out_of_range(&format!("{key}.rate"), &self.rate, "0 or more"));
        }
        Ok(())
    }
}

fn one() -> usize {
    1
}

impl LayerConfig {
    /// A dense layer with a bias and nothing special.
    #[must_use]
    pub fn dense(width: usize, neuron: NeuronConfig, init: Init) -> Self {
        Self::Dense { width, neuron, init, skip: false, bias: true, norm: None, delays: None }
    }

    /// A convolution with a square kernel, stride 1, a bias and nothing special.
    #[must_use]
    pub fn conv(channels: usize, kernel: usize, padding: usize, neuron: NeuronConfig, init: Init) -> Self {
        Self::Conv {
            channels,
            kernel,
            kernel_width: None,
            stride: 1,
            padding,
            padding_width: None,
            neuron,
            init,
            bias: true,
            norm: None,
        }
    }

    /// Max pooling in square windows.
    #[must_use]
    pub const fn pool(window: usize) -> Self {
        Self::Pool { window, window_width: None }
    }
}

/// The neurons of a layer, by model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub enum NeuronConfig {
    /// The single-spike block model.
    Block(LeakyConfig),
    /// The sequential neuron with at most one spike.
    Single(LeakyConfig),
    /// The sequential neuron with reset by subtraction.
    Multi(LeakyConfig),
    /// The parallel neuron of SPSN and ParaLIF.
    Paralif(ParaLifConfig),
    /// The current-based neuron with reset to zero: the baseline of SPSN and ParaLIF.
    Cuba(CubaConfig),
    /// No neuron: the rectified current of every step for itself.
    Relu(ReluConfig),
}

impl Default for NeuronConfig {
    fn default() -> Self {
        Self::Block(LeakyConfig::default())
    }
}

/// The models that share [`LeakyConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeakyModel {
    /// [`NeuronConfig::Block`].
    Block,
    /// [`NeuronConfig::Single`].
    Single,
    /// [`NeuronConfig::Multi`].
    Multi,
}

impl LeakyModel {
    /// Neurons of this model.
    #[must_use]
    pub fn with(self, config: LeakyConfig) -> NeuronConfig {
        match self {
            Self::Block => NeuronConfig::Block(config),
            Self::Single => NeuronConfig::Single(config),
            Self::Multi => NeuronConfig::Multi(config),
        }
    }
}

/// Neurons of the models `block`, `single` and `multi`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakyConfig {
    /// Initial decay per step.
    pub beta: f64,
    /// Whether the decay is learned.
    pub learn_beta: bool,
    /// Whether all neurons of the layer share one decay.
    pub shared_beta: bool,
    /// Threshold, strict.
    pub threshold: f64,
    /// Slope of the spike function in the backward pass.
    pub surrogate: SurrogateConfig,
    /// Whether the published artefact paths (reset of `multi`, mask of `single`) take part in the backward pass.
    pub reset_path: ResetPath,
}

impl Default for LeakyConfig {
    fn default() -> Self {
        Self {
            beta: (-0.1_f64).exp(),
            learn_beta: true,
            shared_beta: false,
            threshold: 1.0,
            surrogate: SurrogateConfig::FastSigmoid { scale: 10.0 },
            reset_path: ResetPath::Attached,
        }
    }
}

/// One number for all neurons of a layer, or one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerNeuron {
    /// The same for all.
    Shared(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl PerNeuron {
    /// The numbers.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        match self {
            Self::Shared(x) => std::slice::from_ref(x),
            Self::Each(list) => list,
        }
    }
}

/// The synaptic and the membrane filter of SPSN, ParaLIF and their baseline.
///
/// Time constants are in steps: the papers' 20 ms at their fixed step of 1 ms are 20, whatever the length of a bin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Membrane time constant, steps, above 0.
    pub tau_mem: PerNeuron,
    /// Synaptic time constant, steps, above 0; a table without it has no synaptic filter.
    #[serde(default = "no_filter", skip_serializing_if = "Option::is_none")]
    pub tau_syn: Option<PerNeuron>,
    /// Whether the time constants are learned: as the logistic function of a stored number.
    pub learn_tau: bool,
    /// How that number starts.
    pub tau_init: TauInit,
}

/// The defaults of [`FilterConfig`] hold where there is no table at all.
fn no_filter() -> Option<PerNeuron> {
    None
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            tau_mem: PerNeuron::Shared(20.0),
            tau_syn: Some(PerNeuron::Shared(20.0)),
            learn_tau: false,
            tau_init: TauInit::Logit,
        }
    }
}

/// How learned time constants start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TauInit {
    /// At the given time constant.
    Logit,
    /// As the published code does: the decay itself is taken for the stored number, so that every time constant starts
    /// with a decay between 0.5 and 0.731.
    Reference,
}

/// What a recurrent connection carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecurrentConfig {
    /// There is none.
    #[default]
    None,
    /// Spikes.
    Spike,
    /// The rectified membrane.
    Relu,
}

/// The parallel neuron; options in [`snn_core::neurons::paralif`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParaLifConfig {
    /// The firing mode: GS, SB, TRB, D, SD, TD, TRD, T, ST, TT or TRT.
    pub mode: String,
    /// The filters.
    pub filter: FilterConfig,
    /// Threshold at the start, not negative; absent for that of the mode: 0.1 for delta modes, `N(1)` for threshold
    /// modes. Stochastic modes have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<PerNeuron>,
    /// Whether the threshold is learned.
    pub learn_threshold: bool,
    /// Slope of the comparison in the backward pass.
    pub surrogate: SurrogateConfig,
    /// The recurrent connection.
    pub recurrent: RecurrentConfig,
    /// How Bernoulli spikes pass gradients on.
    pub bernoulli_gradient: BernoulliConfig,
    /// Temperature of Gumbel-Softmax.
    pub temperature: f64,
    /// Delta modes: whether the value before the first step is `N(0)` instead of the published 0.
    pub pad_normalised: bool,
    /// How stochastic modes fire in evaluation.
    pub evaluate: EvaluateConfig,
}

impl Default for ParaLifConfig {
    fn default() -> Self {
        Self {
            mode: "D".into(),
            filter: FilterConfig::default(),
            threshold: None,
            learn_threshold: true,
            surrogate: SurrogateConfig::FastSigmoid { scale: 100.0 },
            recurrent: RecurrentConfig::None,
            bernoulli_gradient: BernoulliConfig::ProbabilityWeighted,
            temperature: 1.0,
            pad_normalised: false,
            evaluate: EvaluateConfig::Random,
        }
    }
}

/// How Bernoulli spikes pass gradients on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BernoulliConfig {
    /// Times the probability, as the published code does.
    ProbabilityWeighted,
    /// Unchanged.
    Identity,
}

/// How stochastic modes fire in evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluateConfig {
    /// At random, as published.
    Random,
    /// Where a spike is more likely than none.
    Majority,
}

/// The current-based neuron; equations in [`snn_core::neurons::cuba`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CubaConfig {
    /// The filters.
    pub filter: FilterConfig,
    /// Threshold at the start, not negative.
    pub threshold: PerNeuron,
    /// Whether the threshold is learned.
    pub learn_threshold: bool,
    /// Slope of the spike function in the backward pass.
    pub surrogate: SurrogateConfig,
    /// The recurrent connection.
    pub recurrent: RecurrentConfig,
    /// Refractory period in steps; a period of `k` blocks the input of `k - 1` steps, as published.
    pub refractory: u32,
}

impl Default for CubaConfig {
    fn default() -> Self {
        Self {
            filter: FilterConfig::default(),
            threshold: PerNeuron::Shared(1.0),
            learn_threshold: false,
            surrogate: SurrogateConfig::FastSigmoid { scale: 100.0 },
            recurrent: RecurrentConfig::None,
            refractory: 0,
        }
    }
}

/// What has no option: the Non-Spiking baseline, readouts without neurons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReluConfig {}

/// Whether gradients flow through reset or mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetPath {
    /// As published.
    Attached,
    /// Cut.
    Detached,
}

/// Surrogate derivatives; formulae in [`snn_core::surrogate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SurrogateConfig {
    /// Fast sigmoid.
    FastSigmoid {
        /// Steepness.
        scale: f64,
    },
    /// Boxcar.
    Boxcar {
        /// Half width.
        half_width: f64,
    },
    /// Multi-Gaussian.
    MultiGaussian {
        /// Height of the side lobes.
        height: f64,
        /// Width of the centre.
        width: f64,
        /// Overall factor.
        gain: f64,
    },
    /// Arctan.
    Arctan {
        /// Steepness.
        alpha: f64,
    },
}

impl From<SurrogateConfig> for snn_core::Surrogate {
    fn from(config: SurrogateConfig) -> Self {
        match config {
            SurrogateConfig::FastSigmoid { scale } => Self::FastSigmoid { scale },
            SurrogateConfig::Boxcar { half_width } => Self::Boxcar { half_width },
            SurrogateConfig::MultiGaussian { height, width, gain } => Self::MultiGaussian { height, width, gain },
            SurrogateConfig::Arctan { alpha } => Self::Arctan { alpha },
        }
    }
}

/// The readout: a projection, neurons that do not fire, a reduction over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadoutConfig {
    /// How the membrane becomes a logit.
    pub reduce: Reduce,
    /// Initial weights.
    pub init: Init,
    /// The neurons.
    pub neuron: ReadoutNeuron,
    /// Whether every output has a bias.
    pub bias: bool,
    /// Learned delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delays: Option<DelaysConfig>,
}

impl Default for ReadoutConfig {
    fn default() -> Self {
        let neuron = ReadoutNeuron::Integrator(IntegratorConfig::default());
        Self { reduce: Reduce::Sum, init: Init::default(), neuron, bias: true, delays: None }
    }
}

/// The neurons of a readout, by model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub enum ReadoutNeuron {
    /// The leaky integrator of the block model.
    Integrator(IntegratorConfig),
    /// The filters of SPSN, ParaLIF and their baseline.
    Filter(FilterConfig),
    /// The current itself.
    None(ReluConfig),
    /// Neither projection nor neurons: the last layer's neurons vote, in as many groups of neighbours as there are
    /// classes, and the current of a class is the mean over its group.
    Vote(ReluConfig),
}

/// The leaky integrator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntegratorConfig {
    /// Initial decay per step.
    pub beta: f64,
    /// Whether the decay is learned.
    pub learn_beta: bool,
    /// Whether all outputs share one decay.
    pub shared_beta: bool,
}

impl Default for IntegratorConfig {
    fn default() -> Self {
        Self { beta: (-0.05_f64).exp(), learn_beta: true, shared_beta: false }
    }
}

/// How the readout's membrane becomes a logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Sum over time.
    Sum,
    /// Maximum over time.
    Max,
    /// Mean over time.
    Mean,
    /// The last step.
    Last,
    /// The sum over time of the softmax over the classes; ParaLIF calls it `cumsum`.
    SoftmaxSum,
}

impl From<Reduce> for snn_core::backend::TimeReduction {
    fn from(reduce: Reduce) -> Self {
        match reduce {
            Reduce::Sum => Self::Sum,
            Reduce::Max => Self::Max,
            Reduce::Mean => Self::Mean,
            Reduce::Last => Self::Last,
            Reduce::SoftmaxSum => Self::SoftmaxSum,
        }
    }
}

/// Initial weights; biases start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Init {
    /// Uniform in `+-gain sqrt(1 / fan_in)`.
    FanIn {
        /// Factor of the bound.
        gain: f64,
    },
    /// Uniform in `+-bound`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal with variance `2 / (fan_in + fan_out)`.
    GlorotNormal,
}

impl Init {
    /// Kaiming's uniform weights for linear neurons: `+-sqrt(3 / fan_in)`.
    pub const KAIMING: Self = Self::FanIn { gain: 1.732_050_807_568_877_2 };
}

impl Default for Init {
    fn default() -> Self {
        Self::FanIn { gain: 1.0 }
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Epochs.
    pub epochs: u32,
    /// Samples per batch.
    pub batch: usize,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// The learning rate's course.
    pub schedule: ScheduleConfig,
    /// The loss.
    pub loss: LossConfig,
    /// Which weights are the result.
    pub keep: Keep,
    /// Gradients are scaled down to this norm if theirs is larger; 0 for never.
    pub clip_norm: f64,
    /// What firing rates may be without a penalty.
    pub rates: RateConfig,
    /// Evaluations take the mean of the logits over so many passes, which differ where neurons fire at random.
    pub evaluate_draws: u32,
    /// Test accuracy is measured every so many epochs, and after the last; 0 for the latter only.
    pub evaluate_every: u32,
    /// A checkpoint is written every so many batches beside the one after each epoch; 0 for none.
    pub checkpoint_batches: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 128,
            seed: 1,
            optimiser: OptimiserConfig::default(),
            schedule: ScheduleConfig::Constant,
            loss: LossConfig::default(),
            keep: Keep::BestTrainingLoss,
            clip_norm: 0.0,
            rates: RateConfig::default(),
            evaluate_draws: 1,
            evaluate_every: 10,
            checkpoint_batches: 0,
        }
    }
}

/// The loss; see [`crate::losses`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// Softmax cross entropy.
    CrossEntropy {
        /// The share of a label that is spread evenly over all classes.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// Mean squared error to 1 for the class and 0 for the others.
    #[serde(deserialize_with = "no_keys")]
    Mse,
}

/// Refuses keys beside the kind, which the derived code lets pass for variants without fields.
fn no_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<(), D::Error> {
    ReluConfig::deserialize(deserializer).map(|ReluConfig {}| ())
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0 }
    }
}

/// Regularisation of firing rates, in spikes per neuron and step: the loss grows by the square of what the sum of all
/// hidden neurons' rates has above the limit times their number (eq. 21 of the SPSN paper).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Limit of the mean rate of hidden neurons; 0 for no penalty.
    pub limit: f64,
    /// The same for what recurrent layers of parallel neurons send to themselves.
    pub recurrent_limit: f64,
}

/// Which weights a run gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those after the epoch with the lowest training loss, as the block paper does.
    BestTrainingLoss,
    /// Those after the last epoch.
    Last,
}

/// The optimiser and its constants; rules in [`snn_core::backend::UpdateRule`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// Which.
    pub kind: OptimiserKind,
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// First decay constant of the Adam family.
    pub beta1: f64,
    /// Second decay constant of the Adam family.
    pub beta2: f64,
    /// Epsilon of the Adam family.
    pub eps: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov momentum for SGD.
    pub nesterov: bool,
    /// Weight decay, on weights alone.
    pub weight_decay: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            kind: OptimiserKind::Adam,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

/// The optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimiserKind {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// Adamax.
    Adamax,
}

/// The learning rate's course; see [`crate::schedule`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// The same throughout.
    Constant,
    /// Multiplied by `factor` after each of `epochs`.
    Milestones {
        /// After how many finished epochs.
        epochs: Vec<u32>,
        /// The factor.
        #[serde(default = "tenth")]
        factor: f64,
        /// The block paper's rule: at a milestone the weights go back to the best so far and the optimiser starts
        /// afresh.
        #[serde(default)]
        reload_best: bool,
    },
    /// Multiplied by `factor` after every epoch.
    Exponential {
        /// The factor.
        factor: f64,
    },
    /// Multiplied by `factor` after every so many epochs.
    Step {
        /// Epochs at one rate.
        every: u32,
        /// The factor.
        factor: f64,
    },
    /// Half a cosine from the initial rate to `floor` times it, after a linear rise over `warmup` epochs.
    Cosine {
        /// Epochs of rise.
        #[serde(default)]
        warmup: u32,
        /// Share of the initial rate at the end.
        #[serde(default)]
        floor: f64,
    },
    /// One rise and one fall, each half a cosine, a step for each epoch: from a 25th of `peak` times the initial rate to
    /// `peak` times it, then down to a 250,000th.
    OneCycle {
        /// The highest rate, in initial rates.
        peak: f64,
        /// Share of the epochs in which the rate rises.
        #[serde(default = "three_tenths")]
        warmup: f64,
    },
}

fn three_tenths() -> f64 {
    0.3
}

fn tenth() -> f64 {
    0.1
}

impl Experiment {
    /// Reads and checks a configuration; `place` is its file name, for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the file, the line, and what would be right.
    pub fn from_toml(place: &str, text: &str) -> Result<Self> {
        let experiment: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|at| text.bytes().take(at.start).filter(|&b| b == b'\n').count() + 1);
            explain(&line.map_or_else(|| place.to_owned(), |line| format!("{place}:{line}")), &e)
        })?;
        experiment.check()?;
        Ok(experiment)
    }

    /// The configuration as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field has a TOML form")
    }

    /// Sets the value at a dotted key, as in `train.optimiser.learning_rate=0.01` or `model.layers.0.width=300`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no such key (naming the nearest) or the value does not fit.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let place = format!("--set {assignment}");
        let (key, value) = assignment.split_once('=').ok_or_else(|| Error::config(&place, "expected KEY=VALUE"))?;
        // A bare word is a string: `--set data.set=mnist` needs no quotes.
        let value: toml::Value = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut t| t.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let mut tree = toml::Value::try_from(&*self).expect("every field has a TOML form");
        let mut at = &mut tree;
        let mut walked = String::new();
        for part in key.split('.') {
            at = match at {
                toml::Value::Table(table) => {
                    let names: Vec<String> = table.keys().cloned().collect();
                    table.get_mut(part).ok_or_else(|| {
                        let hint = nearest(part, names.iter().map(String::as_str));
                        let known = names.join(", ");
                        Error::config(&place, format!("no key `{part}` in `{walked}`{hint}; it has {known}"))
                    })?
                }
                toml::Value::Array(list) => {
                    let len = list.len();
                    let index = part.parse().ok().filter(|&i: &usize| i < len);
                    let index = index.ok_or_else(|| {
                        Error::config(&place, format!("`{walked}` has entries 0..{len}, not `{part}`"))
                    })?;
                    &mut list[index]
                }
                _ => return Err(Error::config(&place, format!("`{walked}` is a single value, it has no `{part}`"))),
            };
            walked = if walked.is_empty() { part.to_owned() } else { format!("{walked}.{part}") };
        }
        *at = match (&*at, value) {
            (toml::Value::Float(_), toml::Value::Integer(i)) => toml::Value::Float(i as f64),
            (_, value) => value,
        };
        let changed: Self = tree.try_into().map_err(|e| explain(&place, &e))?;
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// Checks every value that the types do not.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the key, its value and the allowed range.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &str, value: &dyn std::fmt::Display, want: &str| {
            Err(Error::config(format!("{key} = {value}"), format!("must be {want}")))
        };
        let t = &self.train;
        if t.batch == 0 {
            return fail("train.batch", &t.batch, "at least 1");
        }
        let o = &t.optimiser;
        if !(o.learning_rate > 0.0 && o.learning_rate.is_finite()) {
            return fail("train.optimiser.learning_rate", &o.learning_rate, "a number above 0");
        }
        for (key, value) in [("beta1", o.beta1), ("beta2", o.beta2), ("momentum", o.momentum)] {
            if !(0.0..1.0).contains(&value) {
                return fail(&format!("train.optimiser.{key}"), &value, "in [0, 1)");
            }
        }
        for (key, value) in
            [("optimiser.eps", o.eps), ("optimiser.weight_decay", o.weight_decay), ("clip_norm", t.clip_norm)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return fail(&format!("train.{key}"), &value, "0 or more");
            }
        }
        match &t.schedule {
            ScheduleConfig::Milestones { epochs, factor, .. } => {
                if !epochs.is_sorted_by(|a, b| a < b) || epochs.first() == Some(&0) {
                    return fail("train.schedule.epochs", &format_args!("{epochs:?}"), "ascending epochs from 1 on");
                }
                if !(*factor > 0.0 && factor.is_finite()) {
                    return fail("train.schedule.factor", factor, "a number above 0");
                }
            }
            ScheduleConfig::Exponential { factor } if !(*factor > 0.0 && factor.is_finite()) => {
                return fail("train.schedule.factor", factor, "a number above 0");
            }
            ScheduleConfig::Step { factor, .. } if !(*factor > 0.0 && factor.is_finite()) => {
                return fail("train.schedule.factor", factor, "a number above 0");
            }
            ScheduleConfig::Step { every: 0, .. } => return fail("train.schedule.every", &0, "at least 1"),
            ScheduleConfig::Cosine { floor, .. } if !(0.0..=1.0).contains(floor) => {
                return fail("train.schedule.floor", floor, "in [0, 1]");
            }
            ScheduleConfig::OneCycle { peak, .. } if !(*peak > 0.0 && peak.is_finite()) => {
                return fail("train.schedule.peak", peak, "a number above 0");
            }
            ScheduleConfig::OneCycle { warmup, .. } if !(*warmup > 0.0 && *warmup < 1.0) => {
                return fail("train.schedule.warmup", warmup, "between 0 and 1");
            }
            _ => {}
        }
        if let LossConfig::CrossEntropy { label_smoothing } = &t.loss
            && !(0.0..1.0).contains(label_smoothing)
        {
            return fail("train.loss.label_smoothing", label_smoothing, "in [0, 1)");
        }
        for (i, layer) in self.model.layers.iter().enumerate() {
            let key = |name: &str| format!("model.layers.{i}.{name}");
            let (neuron, width) = match layer {
                LayerConfig::Dense { width, neuron, .. } => {
                    if *width == 0 {
                        return fail(&key("width"), width, "at least 1");
                    }
                    (neuron, Some(*width))
                }
                LayerConfig::Conv { neuron, .. } => (neuron, None),
                LayerConfig::Pool { .. } | LayerConfig::AvgPool { .. } => continue,
                LayerConfig::Dropout { p } if (0.0..1.0).contains(p) => continue,
                LayerConfig::Dropout { p } => return fail(&key("p"), p, "in [0, 1)"),
            };
            if let LayerConfig::Dense { norm: Some(norm), .. } | LayerConfig::Conv { norm: Some(norm), .. } = layer {
                norm.check(&key("norm"))?;
            }
            if let LayerConfig::Dense { delays: Some(delays), .. } = layer {
                delays.check(&key("delays"))?;
            }
            neuron.check(&key("neuron"), width)?;
        }
        match &self.model.readout.neuron {
            ReadoutNeuron::Integrator(c) if !c.beta.is_finite() => {
                return fail("model.readout.neuron.beta", &c.beta, "a number");
            }
            ReadoutNeuron::Filter(filter) => filter.check("model.readout.neuron", None)?,
            _ => {}
        }
        if let Some(delays) = &self.model.readout.delays {
            delays.check("model.readout.delays")?;
        }
        for (key, value) in [("limit", t.rates.limit), ("recurrent_limit", t.rates.recurrent_limit)] {
            if !(value >= 0.0 && value.is_finite()) {
                return fail(&format!("train.rates.{key}"), &value, "0 or more");
            }
        }
        if !(1..=1024).contains(&t.evaluate_draws) {
            return fail("train.evaluate_draws", &t.evaluate_draws, "1 to 1024");
        }
        Ok(())
    }
}

/// The error of a value that is out of its range.
fn out_of_range(key: &str, value: &dyn std::fmt::Display, want: &str) -> Error {
    Error::config(format!("{key} = {value}"), format!("must be {want}"))
}

impl PerNeuron {
    /// Checks every number, and how many there are where the width of the layer is known.
    fn check(&self, key: &str, width: Option<usize>, fits: impl Fn(f64) -> bool, want: &str) -> Result<()> {
        if let (Self::Each(list), Some(width)) = (self, width)
            && list.len() != width
        {
            let reason = format!("must be one for all or one for each of the {width} neurons");
            return Err(Error::config(format!("{key} has {} numbers", list.len()), reason));
        }
        match self.values().iter().find(|x| !fits(**x)) {
            Some(x) => Err(out_of_range(key, x, want)),
            None => Ok(()),
        }
    }
}

impl NormConfig {
    fn check(&self, key: &str) -> Result<()> {
        let Self::Batch { momentum, eps } = self;
        if !(*momentum > 0.0 && *momentum <= 1.0) {
            return Err(out_of_range(&format!("{key}.momentum"), momentum, "above 0, at most 1"));
        }
        if !(*eps > 0.0 && eps.is_finite()) {
            return Err(out_of_range(&format!("{key}.eps"), eps, "a number above 0"));
        }
        Ok(())
    }
}

impl FilterConfig {
    fn check(&self, key: &str, width: Option<usize>) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let want = "a number of steps above 0";
        self.tau_mem.check(&format!("{key}.tau_mem"), width, positive, want)?;
        self.tau_syn.as_ref().map_or(Ok(()), |tau| tau.check(&format!("{key}.tau_syn"), width, positive, want))
    }
}

impl NeuronConfig {
    fn check(&self, key: &str, width: Option<usize>) -> Result<()> {
        let threshold = |list: &PerNeuron| {
            list.check(&format!("{key}.threshold"), width, |x| x >= 0.0 && x.is_finite(), "0 or a number above 0")
        };
        match self {
            Self::Block(c) | Self::Single(c) | Self::Multi(c) => {
                if !(c.threshold > 0.0 && c.threshold.is_finite()) {
                    return Err(out_of_range(&format!("{key}.threshold"), &c.threshold, "a number above 0"));
                }
                if !c.beta.is_finite() {
                    return Err(out_of_range(&format!("{key}.beta"), &c.beta, "a number"));
                }
                Ok(())
            }
            Self::Paralif(c) => {
                c.firing_mode(key)?;
                c.filter.check(&format!("{key}.filter"), width)?;
                if !(c.temperature > 0.0 && c.temperature.is_finite()) {
                    return Err(out_of_range(&format!("{key}.temperature"), &c.temperature, "a number above 0"));
                }
                c.threshold.as_ref().map_or(Ok(()), threshold)
            }
            Self::Cuba(c) => c.filter.check(&format!("{key}.filter"), width).and(threshold(&c.threshold)),
            Self::Relu(_) => Ok(()),
        }
    }
}

impl ParaLifConfig {
    /// The firing mode; `key` is where it stands, for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the modes.
    pub fn firing_mode(&self, key: &str) -> Result<FiringMode> {
        self.mode
            .parse()
            .map_err(|e: snn_core::Error| Error::config(format!("{key}.mode = {}", self.mode), e.to_string()))
    }
}

/// `; did you mean ...?` for the nearest known word, or nothing if none is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let best = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k)).min();
    match best {
        Some((distance, k)) if distance <= k.len().max(3) / 3 + 1 => format!("; did you mean `{k}`?"),
        _ => String::new(),
    }
}

/// A TOML error as one line, with the nearest known key for an unknown one.
fn explain(place: &str, error: &toml::de::Error) -> Error {
    let message = error.message().replace('\n', " ");
    // serde lists the known names in back-quotes after the unknown one.
    let mut names = message.split('`').skip(1).step_by(2);
    let hint = match names.next() {
        Some(unknown) if message.contains("unknown") => nearest(unknown, names),
        _ => String::new(),
    };
    Error::config(place, format!("{message}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Experiment {
        let text = "[data]\nset = 'yinyang'\nencode = { kind = 'latency', steps = 10 }\n[model]\n\
                    layers = [{ kind = 'dense', width = 3 }]";
        Experiment::from_toml("x.toml", text).unwrap()
    }

    #[test]
    fn toml_round_trip_is_exact() {
        let e = example();
        assert_eq!(Experiment::from_toml("y.toml", &e.to_toml()).unwrap(), e);
    }

    #[test]
    fn absent_synaptic_filter_stays_absent() {
        let mut e = example();
        e.set("model.layers.0.neuron={model='paralif',mode='T',filter={tau_mem=2.0}}").unwrap();
        let again = Experiment::from_toml("y.toml", &e.to_toml()).unwrap();
        assert_eq!(again, e);
        let LayerConfig::Dense { neuron: NeuronConfig::Paralif(c), .. } = &again.model.layers[0] else { panic!() };
        assert_eq!((&c.filter.tau_syn, c.filter.tau_mem.values()), (&None, &[2.0][..]));
    }

    #[test]
    fn set_reaches_every_depth() {
        let mut e = example();
        for s in [
            "train.epochs=3",
            "model.layers.0.width=7",
            "model.layers.0.neuron.model=multi",
            "train.optimiser.learning_rate=1",
        ] {
            e.set(s).unwrap();
        }
        assert_eq!((e.train.epochs, e.train.optimiser.learning_rate), (3, 1.0));
        assert!(matches!(&e.model.layers[0], LayerConfig::Dense { width: 7, neuron: NeuronConfig::Multi(_), .. }));
    }

    #[test]
    fn set_names_the_nearest_key() {
        let message = example().set("train.epoch=3").unwrap_err().to_string();
        assert!(message.contains("did you mean `epochs`"), "{message}");
        let message = example().set("model.layers.4.width=3").unwrap_err().to_string();
        assert!(message.contains("entries 0..1"), "{message}");
        let message = example().set("model.layers.0.neuron.model=blok").unwrap_err().to_string();
        assert!(message.contains("did you mean `block`"), "{message}");
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (set, want) in [
            ("train.batch=0", "train.batch = 0: must be at least 1"),
            ("train.optimiser.learning_rate=-1", "learning_rate = -1: must be a number above 0"),
            ("train.optimiser.beta1=1.5", "beta1 = 1.5: must be in [0, 1)"),
            ("model.layers.0.width=0", "model.layers.0.width = 0: must be at least 1"),
            ("model.layers.0.neuron={model='paralif',mode='TX'}", "unknown firing mode `TX`; it is one of GS, SB"),
            ("model.layers.0.neuron={model='paralif',threshold=[1,2]}", "threshold has 2 numbers: must be one for all"),
            (
                "model.layers.0.neuron={model='cuba',filter={tau_mem=0}}",
                "filter.tau_mem = 0: must be a number of steps",
            ),
            ("model.layers.0.neuron={model='cuba',filter={tau_syn=[5,5,-1]}}", "filter.tau_syn = -1: must be a number"),
            ("train.rates={limit=-1}", "train.rates.limit = -1: must be 0 or more"),
            ("train.loss={kind='cross-entropy',label_smoothing=1}", "label_smoothing = 1: must be in [0, 1)"),
            ("train.loss={kind='mse',label_smoothing=0.1}", "unknown field `label_smoothing`"),
            ("train.schedule={kind='one-cycle',peak=0}", "train.schedule.peak = 0: must be a number above 0"),
            ("train.schedule={kind='one-cycle',peak=5,warmup=1}", "train.schedule.warmup = 1: must be between 0 and 1"),
            ("model.layers.0={kind='dropout',p=1}", "model.layers.0.p = 1: must be in [0, 1)"),
            (
                "model.layers.0={kind='dense',width=3,norm={kind='batch',momentum=0}}",
                "norm.momentum = 0: must be above 0",
            ),
            (
                "model.layers.0={kind='conv',channels=3,kernel=3,norm={kind='batch',eps=-1}}",
                "norm.eps = -1: must be a number",
            ),
            (
                "model.layers.0={kind='dense',width=3,delays={max=0}}",
                "model.layers.0.delays.max = 0: must be 1 to 4096",
            ),
            (
                "model.layers.0={kind='dense',width=3,delays={sigma_end=0}}",
                "delays.sigma_end = 0: must be 0.01 or more",
            ),
            (
                "model.layers.0={kind='dense',width=3,delays={anneal=2}}",
                "delays.anneal = 2: must be above 0, at most 1",
            ),
        ] {
            let message = example().set(set).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
