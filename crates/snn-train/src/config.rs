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
    },
    /// Convolution of maps, every step for itself.
    Conv {
        /// Output channels.
        channels: usize,
        /// Side of the kernel.
        kernel: usize,
        /// Step between positions.
        #[serde(default = "one")]
        stride: usize,
        /// Zeros on each side.
        #[serde(default)]
        padding: usize,
        /// The neurons.
        #[serde(default)]
        neuron: NeuronConfig,
        /// Initial weights.
        #[serde(default)]
        init: Init,
    },
    /// Max pooling of spikes.
    Pool {
        /// Side of the window, and step.
        window: usize,
    },
}

fn one() -> usize {
    1
}

/// The neurons of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NeuronConfig {
    /// The model.
    pub model: NeuronModel,
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

impl Default for NeuronConfig {
    fn default() -> Self {
        Self {
            model: NeuronModel::Block,
            beta: (-0.1_f64).exp(),
            learn_beta: true,
            shared_beta: false,
            threshold: 1.0,
            surrogate: SurrogateConfig::FastSigmoid { scale: 10.0 },
            reset_path: ResetPath::Attached,
        }
    }
}

/// The neuron models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeuronModel {
    /// The single-spike block model.
    Block,
    /// The sequential neuron with at most one spike.
    Single,
    /// The sequential neuron with reset by subtraction.
    Multi,
}

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

/// The integrator readout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadoutConfig {
    /// How the membrane becomes a logit.
    pub reduce: Reduce,
    /// Initial decay per step.
    pub beta: f64,
    /// Whether the decay is learned.
    pub learn_beta: bool,
    /// Whether all outputs share one decay.
    pub shared_beta: bool,
    /// Initial weights.
    pub init: Init,
}

impl Default for ReadoutConfig {
    fn default() -> Self {
        let beta = (-0.05_f64).exp();
        Self { reduce: Reduce::Sum, beta, learn_beta: true, shared_beta: false, init: Init::default() }
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
    /// Which weights are the result.
    pub keep: Keep,
    /// Gradients are scaled down to this norm if theirs is larger; 0 for never.
    pub clip_norm: f64,
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
            keep: Keep::BestTrainingLoss,
            clip_norm: 0.0,
            evaluate_every: 10,
            checkpoint_batches: 0,
        }
    }
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
    /// Half a cosine from the initial rate to `floor` times it, after a linear rise over `warmup` epochs.
    Cosine {
        /// Epochs of rise.
        #[serde(default)]
        warmup: u32,
        /// Share of the initial rate at the end.
        #[serde(default)]
        floor: f64,
    },
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
            ScheduleConfig::Cosine { floor, .. } if !(0.0..=1.0).contains(floor) => {
                return fail("train.schedule.floor", floor, "in [0, 1]");
            }
            _ => {}
        }
        for (i, layer) in self.model.layers.iter().enumerate() {
            let key = |name: &str| format!("model.layers.{i}.{name}");
            let neuron = match layer {
                LayerConfig::Dense { width, neuron, .. } => {
                    if *width == 0 {
                        return fail(&key("width"), width, "at least 1");
                    }
                    neuron
                }
                LayerConfig::Conv { neuron, .. } => neuron,
                LayerConfig::Pool { .. } => continue,
            };
            if !(neuron.threshold > 0.0 && neuron.threshold.is_finite()) {
                return fail(&key("neuron.threshold"), &neuron.threshold, "a number above 0");
            }
            if !neuron.beta.is_finite() {
                return fail(&key("neuron.beta"), &neuron.beta, "a number");
            }
        }
        if !self.model.readout.beta.is_finite() {
            return fail("model.readout.beta", &self.model.readout.beta, "a number");
        }
        Ok(())
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
        assert!(
            matches!(&e.model.layers[0], LayerConfig::Dense { width: 7, neuron, .. } if neuron.model == NeuronModel::Multi)
        );
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
        ] {
            let message = example().set(set).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
