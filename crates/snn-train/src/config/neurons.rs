//! Neurons: the models with their constants.

use serde::{Deserialize, Serialize};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, LimitGradient, Limits};
use snn_core::neurons::cuba::Recurrence;
use snn_core::neurons::event::EventNeuron;
use snn_core::neurons::lif::Path;
use snn_core::neurons::paralif::{BernoulliGradient, FiringMode};
use snn_core::neurons::ttfs::{Grid, Perturbation};

use super::{Init, out_of_range};
use crate::error::{Error, Result};

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
    /// The adaptive neuron with a refractory period, in steps or in blocks.
    Alif(AlifConfig),
    /// No neuron: a rectifier. From values it gives values, otherwise every step is rectified for itself.
    Relu(NoOptions),
    /// The event-driven neuron of BATS, in continuous time.
    Event(EventConfig),
    /// The neuron that spikes at most once, at a time that is the activation of a rectifier.
    Ttfs(TtfsConfig),
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

impl From<RecurrentConfig> for Recurrence {
    fn from(config: RecurrentConfig) -> Self {
        match config {
            RecurrentConfig::None => Self::None,
            RecurrentConfig::Spike => Self::Spike,
            RecurrentConfig::Relu => Self::Relu,
        }
    }
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

impl From<BernoulliConfig> for BernoulliGradient {
    fn from(config: BernoulliConfig) -> Self {
        match config {
            BernoulliConfig::ProbabilityWeighted => Self::ProbabilityWeighted,
            BernoulliConfig::Identity => Self::Identity,
        }
    }
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

/// The event-driven neuron; equations in [`snn_core::neurons::event`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventConfig {
    /// Synaptic time constant, s; the membrane's is twice that.
    pub tau_s: f64,
    /// Threshold.
    pub threshold: f64,
    /// What a spike takes from the membrane; absent for the threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<f64>,
    /// No spike is kept after this time, s; absent for no such time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
    /// Most spikes of a neuron; with the last of them it is finished for the sample.
    pub spikes: u32,
    /// Backwards, slopes at the threshold count as at least this share of threshold over membrane time constant; 0 for
    /// exact gradients.
    pub least_slope: f64,
    /// What makes silent neurons fire again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingConfig>,
}

impl Default for EventConfig {
    fn default() -> Self {
        Self { tau_s: 0.13, threshold: 0.2, reset: None, end: None, spikes: 30, least_slope: 0.0, scaling: None }
    }
}

impl From<EventConfig> for EventNeuron {
    fn from(c: EventConfig) -> Self {
        Self {
            tau_s: c.tau_s,
            threshold: c.threshold,
            reset: c.reset.unwrap_or(c.threshold),
            end: c.end.unwrap_or(f64::INFINITY),
            capacity: c.spikes,
            least_slope: c.least_slope,
        }
    }
}

/// Synaptic scaling of silent neurons: in every sample in which at least the share `silent` of a layer's neurons does not
/// fire, the gradient on each weight of such a neuron falls by `factor` times the weight's magnitude, so that the
/// weight grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingConfig {
    /// The share, in `[0, 1]`.
    pub silent: f64,
    /// The factor, 0 or more.
    pub factor: f64,
}

impl EventConfig {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        let wrong = |e: snn_core::Error| match e {
            snn_core::Error::Domain { param, value, range, .. } => {
                let name = if param == "capacity" { "spikes" } else { param };
                out_of_range(&format!("{key}.{name}"), &value, &format!("in {range}"))
            }
            other => Error::config(key, other.to_string()),
        };
        EventNeuron::from(*self).check().map_err(wrong)?;
        let Some(scaling) = self.scaling else { return Ok(()) };
        if !(0.0..=1.0).contains(&scaling.silent) {
            return Err(out_of_range(&format!("{key}.scaling.silent"), &scaling.silent, "in [0, 1]"));
        }
        if !(scaling.factor >= 0.0 && scaling.factor.is_finite()) {
            return Err(out_of_range(&format!("{key}.scaling.factor"), &scaling.factor, "0 or more"));
        }
        Ok(())
    }
}

/// Neurons of the model `ttfs`; maths in [`snn_core::neurons::ttfs`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtfsConfig {
    /// The activation that the window is made for: at the start it is `1 + margin` times as long. X_n of the paper.
    pub range: f64,
    /// See `range`.
    pub margin: f64,
    /// After a training step the window is at least so many times as long as the largest activation of the batch; 0 for a
    /// window that stays.
    pub growth: f64,
    /// A neuron that would fire before its window fires at the window's start; its activation is cut there.
    pub limited: bool,
    /// Of a convolution: one shift for each region of the map in which the same part of the kernel lies inside, which an
    /// offset that is fused into the weights needs. One for the whole map otherwise.
    pub borders: bool,
    /// What the membrane rises with where it meets the threshold.
    pub slope: SlopeConfig,
    /// Standard deviation of noise on spike times, in training and test; on the times of the input in tests alone.
    pub noise: f64,
    /// Bits of the times that reach this layer and leave it; 0 for any time.
    pub time_bits: u32,
    /// Bits of the weights in use; learning goes on in full precision. 0 for any weight.
    pub weight_bits: u32,
    /// The least quantised weight.
    pub weight_low: f64,
    /// The largest.
    pub weight_high: f64,
}

impl Default for TtfsConfig {
    fn default() -> Self {
        Self {
            range: 1000.0,
            margin: 0.5,
            growth: 10.0,
            limited: false,
            borders: false,
            slope: SlopeConfig::One,
            noise: 0.0,
            time_bits: 0,
            weight_bits: 0,
            weight_low: -1.0,
            weight_high: 1.0,
        }
    }
}

/// The slope of the membrane at the threshold, and what weights are then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlopeConfig {
    /// 1, whatever the input: a weight is the weight of a rectifier. The B1-model.
    One,
    /// `1 + sum of the weights`: currents stay on. Weights are drawn as those of a rectifier, which their ratios to the
    /// slope then are not. The alpha1-model, naive.
    AlphaNaive,
    /// The same neuron, with weights that at the start have the ratios of a rectifier's. The alpha1-model, smart.
    AlphaSmart,
}

impl TtfsConfig {
    /// The length of the window at the start.
    #[must_use]
    pub fn window(&self) -> f64 {
        (1.0 + self.margin) * self.range
    }

    pub(super) fn check(&self, key: &str) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let checks = [
            ("range", self.range, positive(self.range), "a number above 0"),
            ("margin", self.margin, self.margin > -1.0 && self.margin.is_finite(), "a number above -1"),
            (
                "growth",
                self.growth,
                self.growth == 0.0 || (1.0..f64::INFINITY).contains(&self.growth),
                "0, or 1 or more",
            ),
        ];
        for (name, value, fits, want) in checks {
            if !fits {
                return Err(out_of_range(&format!("{key}.{name}"), &value, want));
            }
        }
        let wrong = |e: snn_core::Error| match e {
            snn_core::Error::Domain { param, value, range, .. } => {
                let name = match param {
                    "bits" => "weight_bits",
                    "low" => "weight_low",
                    "high" => "weight_high",
                    other => other,
                };
                out_of_range(&format!("{key}.{name}"), &value, &format!("in {range}"))
            }
            other => Error::config(key, other.to_string()),
        };
        let times = Perturbation { noise: self.noise, bits: self.time_bits, limited: self.limited };
        times.check().map_err(wrong)?;
        if self.weight_bits > 0 {
            Grid::new(self.weight_bits, self.weight_low, self.weight_high).map_err(wrong)?;
            if self.slope != SlopeConfig::One {
                let reason = "must be 0 where the slope depends on the weights";
                return Err(Error::config(format!("{key}.weight_bits = {}", self.weight_bits), reason));
            }
        }
        Ok(())
    }
}

/// The adaptive neuron with a refractory period; equations in [`snn_core::neurons::alif`].
///
/// The defaults are the sound ones: gradients of the steps, cut where spikes feed back, and an adaptation that can learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlifConfig {
    /// Refractory period L in steps; recurrent connections take L + 1.
    pub refractory: u32,
    /// Initial decay of the membrane per step.
    pub beta: f64,
    /// Initial decay p of the adaptation per step.
    pub decay: f64,
    /// Initial strength b of the adaptation; published 1.8, which is clipped to 1 and never learns.
    pub strength: f64,
    /// Whether beta is learned.
    pub learn_beta: bool,
    /// Whether p is learned.
    pub learn_decay: bool,
    /// Whether b is learned.
    pub learn_strength: bool,
    /// Whether thresholds rise with every spike.
    pub adapt: bool,
    /// Whether the neurons feed each other.
    pub recurrent: bool,
    /// Initial recurrent weights; without one every neuron feeds itself with weight 1, as published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurrent_init: Option<Init>,
    /// Slope of the spike function in the backward pass.
    pub surrogate: SurrogateConfig,
    /// Which model the gradients are those of.
    pub gradient: AlifGradientConfig,
    /// Spikes as they reset membranes and feed other neurons.
    pub spike_path: ResetPath,
    /// Spikes as they raise thresholds. In blocks they share the way of `spike_path`.
    pub adaptation_path: ResetPath,
    /// The ranges that constants are clipped to.
    pub limits: LimitsConfig,
}

/// Which model the gradients of adaptive neurons are those of. The spikes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlifGradientConfig {
    /// The steps.
    Steps,
    /// The block model: larger by about `(L + 1)^2 / 2`.
    Blocks,
}

/// The ranges that the constants of adaptive neurons are clipped to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Of beta.
    pub beta: [f64; 2],
    /// Of p.
    pub decay: [f64; 2],
    /// Of b.
    pub strength: [f64; 2],
    /// What gradients do at the ends and beyond.
    pub gradient: LimitGradientConfig,
}

/// What gradients do at the ends of a range and beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitGradientConfig {
    /// They are 0, as published.
    Open,
    /// They pass where they lead back inside.
    Inward,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let Limits { beta, decay, strength, .. } = Limits::PUBLISHED;
        Self { beta, decay, strength, gradient: LimitGradientConfig::Inward }
    }
}

impl From<LimitsConfig> for Limits {
    fn from(c: LimitsConfig) -> Self {
        let gradient = match c.gradient {
            LimitGradientConfig::Open => LimitGradient::Open,
            LimitGradientConfig::Inward => LimitGradient::Inward,
        };
        Self { beta: c.beta, decay: c.decay, strength: c.strength, gradient }
    }
}

impl Default for AlifConfig {
    fn default() -> Self {
        Self {
            refractory: 10,
            beta: (-0.1_f64).exp(),
            decay: (-1.0_f64 / 75.0).exp(),
            strength: 0.9,
            learn_beta: true,
            learn_decay: true,
            learn_strength: true,
            adapt: true,
            recurrent: true,
            recurrent_init: None,
            surrogate: SurrogateConfig::MULTI_GAUSSIAN,
            gradient: AlifGradientConfig::Steps,
            spike_path: ResetPath::Detached,
            adaptation_path: ResetPath::Attached,
            limits: LimitsConfig::default(),
        }
    }
}

impl AlifConfig {
    /// The neuron.
    #[must_use]
    pub fn neuron(&self) -> AlifNeuron {
        let path = |p| match p {
            ResetPath::Attached => Path::Attached,
            ResetPath::Detached => Path::Detached,
        };
        let (spikes, adaptation) = (path(self.spike_path), path(self.adaptation_path));
        AlifNeuron {
            surrogate: self.surrogate.into(),
            refractory: self.refractory,
            adapts: self.adapt,
            recurrent: self.recurrent,
            gradient: match self.gradient {
                AlifGradientConfig::Steps => AlifGradient::Steps { spikes, adaptation },
                AlifGradientConfig::Blocks => AlifGradient::Blocks { spikes },
            },
            limits: self.limits.into(),
        }
    }

    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if self.refractory > 1 << 20 {
            return Err(out_of_range(&format!("{key}.refractory"), &self.refractory, "0 to 1048576 steps"));
        }
        for (name, value) in [("beta", self.beta), ("decay", self.decay), ("strength", self.strength)] {
            if !value.is_finite() {
                return Err(out_of_range(&format!("{key}.{name}"), &value, "a number"));
            }
        }
        let LimitsConfig { beta, decay, strength, .. } = self.limits;
        for (name, [low, high], most) in [("beta", beta, 1.0), ("decay", decay, 1.0), ("strength", strength, f64::MAX)]
        {
            if !(0.0 <= low && low < high && high <= most) {
                let want =
                    if most == 1.0 { "two numbers in 0 to 1, ascending" } else { "two numbers from 0, ascending" };
                return Err(out_of_range(&format!("{key}.limits.{name}"), &format_args!("[{low}, {high}]"), want));
            }
        }
        Ok(())
    }
}

/// What has no option: the Non-Spiking baseline, readouts without neurons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// Whether gradients flow along a path.
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

impl SurrogateConfig {
    /// The multi-Gaussian with the published constants.
    pub const MULTI_GAUSSIAN: Self = Self::MultiGaussian { height: 0.15, width: 0.5, gain: 0.5 };
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

impl PerNeuron {
    /// Checks every number, and how many there are where the width of the layer is known.
    pub(super) fn check(&self, key: &str, width: Option<usize>, fits: impl Fn(f64) -> bool, want: &str) -> Result<()> {
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

impl FilterConfig {
    pub(super) fn check(&self, key: &str, width: Option<usize>) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let want = "a number of steps above 0";
        self.tau_mem.check(&format!("{key}.tau_mem"), width, positive, want)?;
        self.tau_syn.as_ref().map_or(Ok(()), |tau| tau.check(&format!("{key}.tau_syn"), width, positive, want))
    }
}

impl NeuronConfig {
    pub(super) fn check(&self, key: &str, width: Option<usize>) -> Result<()> {
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
            Self::Alif(c) => c.check(key),
            Self::Relu(_) => Ok(()),
            Self::Event(c) => c.check(key),
            Self::Ttfs(c) => c.check(key),
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
