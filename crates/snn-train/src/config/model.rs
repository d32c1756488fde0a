//! The model: hidden layers and a readout.

use serde::{Deserialize, Serialize};
use snn_core::backend::TrainReadout;
use snn_core::neurons::ttfs::Grid;

use super::neurons::{EventConfig, FilterConfig, NeuronConfig, NoOptions, TtfsConfig};
use super::{out_of_range, tenth};
use crate::error::{Error, Result};

/// The model: hidden layers and a readout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hidden layers, from the input on.
    #[serde(default)]
    pub layers: Vec<LayerConfig>,
    /// The readout.
    #[serde(default)]
    pub readout: ReadoutConfig,
    /// What hidden layers keep of a forward pass for the backward pass.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache: CachePolicy,
}

/// What a layer of neurons in time steps keeps of a forward pass for the backward pass. Gradients are the same, bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CachePolicy {
    /// The state of its neurons, a number for each neuron and step.
    #[default]
    Store,
    /// Its spikes alone: the backward pass runs the layer once more. One such state is in memory at a time.
    Recompute,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
        /// Whether there is a bias; a normalisation has an offset in its place. Event-driven neurons have none.
        #[serde(default = "yes")]
        bias: bool,
        /// Normalisation of the currents, every neuron for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<NormConfig>,
        /// Learned delays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delays: Option<DelaysConfig>,
        /// Steps that every neuron sees of its inputs, the present one included: a receptive field in time.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        field: usize,
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
        /// Whether every channel has a bias; a normalisation has an offset in its place. Event-driven neurons have none.
        #[serde(default = "yes")]
        bias: bool,
        /// Normalisation of the currents, every channel for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        norm: Option<NormConfig>,
    },
    /// Max pooling of spikes in steps, of values and of spike times; in continuous time a neuron has all spikes of its
    /// window.
    Pool {
        /// Side of the window, and step; or its rows.
        window: usize,
        /// Columns of the window, if not as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_width: Option<usize>,
        /// Of values and times: every channel has a sign, and where it is negative the least is taken. A network with
        /// normalised layers needs it when it is mapped to spikes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        signed: bool,
    },
    /// Batch normalisation of values, every channel for itself: after a rectifier, say. That of currents is the option
    /// `norm` of a layer.
    Norm {
        /// Share of the newest batch in the running statistics.
        #[serde(default = "tenth")]
        momentum: f64,
        /// Added to the variance.
        #[serde(default = "small")]
        eps: f64,
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

    pub(super) fn check(&self, key: &str) -> Result<()> {
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(n: &usize) -> bool {
    *n == 1
}

impl LayerConfig {
    /// The options of the layer's neurons, if they spike at most once.
    #[must_use]
    pub fn ttfs(&self) -> Option<&TtfsConfig> {
        match self {
            Self::Dense { neuron: NeuronConfig::Ttfs(c), .. } | Self::Conv { neuron: NeuronConfig::Ttfs(c), .. } => {
                Some(c)
            }
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn ttfs_mut(&mut self) -> Option<&mut TtfsConfig> {
        match self {
            Self::Dense { neuron: NeuronConfig::Ttfs(c), .. } | Self::Conv { neuron: NeuronConfig::Ttfs(c), .. } => {
                Some(c)
            }
            _ => None,
        }
    }

    /// A dense layer with a bias and nothing special.
    #[must_use]
    pub fn dense(width: usize, neuron: NeuronConfig, init: Init) -> Self {
        Self::Dense { width, neuron, init, skip: false, bias: true, norm: None, delays: None, field: 1 }
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
        Self::Pool { window, window_width: None, signed: false }
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
    /// Coarse weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantise: Option<QuantiseConfig>,
}

impl Default for ReadoutConfig {
    fn default() -> Self {
        let neuron = ReadoutNeuron::Integrator(IntegratorConfig::default());
        Self { reduce: Reduce::Sum, init: Init::default(), neuron, bias: true, delays: None, quantise: None }
    }
}

/// Weights in use that take few values; learning goes on in full precision. See [`snn_core::neurons::ttfs::Grid`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantiseConfig {
    /// Bits of a weight.
    pub bits: u32,
    /// The least weight.
    #[serde(default = "minus_one")]
    pub low: f64,
    /// The largest weight.
    #[serde(default = "plus_one")]
    pub high: f64,
}

fn minus_one() -> f64 {
    -1.0
}

fn plus_one() -> f64 {
    1.0
}

impl ReadoutConfig {
    /// Checks that weights can be coarse, if they are to be.
    pub(super) fn check_quantise(&self) -> Result<()> {
        let Some(QuantiseConfig { bits, low, high }) = self.quantise else { return Ok(()) };
        let key = "model.readout.quantise";
        Grid::new(bits, low, high).map_err(|e| Error::config(key, e.to_string()))?;
        if self.delays.is_some() || matches!(self.neuron, ReadoutNeuron::Event(_) | ReadoutNeuron::Vote(_)) {
            return Err(Error::config(key, "only a dense readout without delays has weights that can be coarse"));
        }
        Ok(())
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
    None(NoOptions),
    /// Event-driven neurons whose spike trains are read; there is no reduction over time and no bias.
    Event(EventReadoutConfig),
    /// Neither projection nor neurons: the last layer's neurons vote, in as many groups of neighbours as there are
    /// classes, and the current of a class is the mean over its group.
    Vote(NoOptions),
}

/// A layer of event-driven neurons, one for each class, and what their spike trains say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventReadoutConfig {
    /// The neurons.
    pub cell: EventConfig,
    /// How their spikes become outputs.
    pub read: ReadConfig,
}

impl Default for EventReadoutConfig {
    fn default() -> Self {
        Self { cell: EventConfig { threshold: 1.3, ..EventConfig::default() }, read: ReadConfig::Count }
    }
}

/// How spike trains become outputs; see [`TrainReadout`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ReadConfig {
    /// The first spike over `-tau`: softmax cross entropy on it is the loss of time-to-first-spike networks.
    FirstSpike {
        /// Temperature, s.
        tau: f64,
    },
    /// Minus the time of the first spike, s.
    FirstTime {
        /// The time of a spike that did not come, s.
        missing: f64,
    },
    /// The number of spikes.
    Count,
    /// The sum of `e^(-rate t)` over the spikes.
    Decay {
        /// 1/s.
        rate: f64,
        /// Whether the gradient is the derivative; otherwise 1 earlier for every spike, as published.
        #[serde(default)]
        exact: bool,
    },
}

impl From<ReadConfig> for TrainReadout {
    fn from(config: ReadConfig) -> Self {
        match config {
            ReadConfig::FirstSpike { tau } => Self::FirstSpike { tau },
            ReadConfig::FirstTime { missing } => Self::FirstTime { missing },
            ReadConfig::Count => Self::Count,
            ReadConfig::Decay { rate, exact } => Self::Decay { rate, exact },
        }
    }
}

impl ReadConfig {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        let (name, value, fits) = match *self {
            Self::FirstSpike { tau } => ("tau", tau, tau > 0.0 && tau.is_finite()),
            Self::FirstTime { missing } => ("missing", missing, missing > 0.0 && missing.is_finite()),
            Self::Decay { rate, .. } => ("rate", rate, rate > 0.0 && rate.is_finite()),
            Self::Count => return Ok(()),
        };
        if fits { Ok(()) } else { Err(out_of_range(&format!("{key}.{name}"), &value, "a number above 0")) }
    }
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
    /// Uniform in `+-sqrt(6 / (fan_in + fan_out))`.
    GlorotUniform,
    /// Uniform in `[low, high)`.
    Between {
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// Normal.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation, 0 or more.
        deviation: f64,
    },
}

impl Init {
    /// Kaiming's uniform weights for linear neurons: `+-sqrt(3 / fan_in)`.
    pub const KAIMING: Self = Self::FanIn { gain: 1.732_050_807_568_877_2 };

    /// He's uniform weights for rectifiers: `+-sqrt(6 / fan_in)`.
    pub const HE: Self = Self::FanIn { gain: 2.449_489_742_783_178 };
}

impl Default for Init {
    fn default() -> Self {
        Self::FanIn { gain: 1.0 }
    }
}

impl NormConfig {
    pub(super) fn check(&self, key: &str) -> Result<()> {
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

impl Init {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        let numbers: &[(&str, f64)] = match self {
            Self::FanIn { gain } => &[("gain", *gain)],
            Self::Uniform { bound } => &[("bound", *bound)],
            Self::GlorotNormal | Self::GlorotUniform => &[],
            Self::Between { low, high } => &[("low", *low), ("high", *high)],
            Self::Normal { mean, deviation } => &[("mean", *mean), ("deviation", *deviation)],
        };
        if let Some((name, value)) = numbers.iter().find(|(_, v)| !v.is_finite()) {
            return Err(out_of_range(&format!("{key}.{name}"), value, "a number"));
        }
        match self {
            Self::Between { low, high } if low > high => {
                Err(out_of_range(&format!("{key}.high"), high, &format!("at least low = {low}")))
            }
            Self::Normal { deviation, .. } if *deviation < 0.0 => {
                Err(out_of_range(&format!("{key}.deviation"), deviation, "0 or more"))
            }
            _ => Ok(()),
        }
    }
}
