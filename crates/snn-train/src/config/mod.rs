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

mod model;
mod neurons;
mod train;

use serde::{Deserialize, Serialize};
use snn_data::{Augment, Encode};

use crate::error::{Error, Result};

pub use model::*;
pub use neurons::*;
pub use train::*;

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
        let changed: Self = change(self, assignment)?;
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
            ScheduleConfig::Decay { factor, .. } if !(*factor > 0.0 && factor.is_finite()) => {
                return fail("train.schedule.factor", factor, "a number above 0");
            }
            ScheduleConfig::Decay { steps, .. } if !(*steps > 0.0 && steps.is_finite()) => {
                return fail("train.schedule.steps", steps, "a number above 0");
            }
            ScheduleConfig::Exponential { factor } if !(*factor > 0.0 && factor.is_finite()) => {
                return fail("train.schedule.factor", factor, "a number above 0");
            }
            ScheduleConfig::Step { factor, .. } if !(*factor > 0.0 && factor.is_finite()) => {
                return fail("train.schedule.factor", factor, "a number above 0");
            }
            ScheduleConfig::Step { floor, .. } if !(0.0..=1.0).contains(floor) => {
                return fail("train.schedule.floor", floor, "in [0, 1]");
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
        if let LossConfig::Targets { on, off } = &t.loss
            && !(on.is_finite() && off.is_finite())
        {
            return fail("train.loss.on, off", &format_args!("{on}, {off}"), "numbers");
        }
        if !(t.wake_labels >= 0.0 && t.wake_labels.is_finite()) {
            return fail("train.wake_labels", &t.wake_labels, "0 or more");
        }
        if t.wake_labels > 0.0 && !matches!(self.model.readout.neuron, ReadoutNeuron::Event(_)) {
            return fail(
                "train.wake_labels",
                &t.wake_labels,
                "0: only event-driven models have labels that can be silent",
            );
        }
        if !(0.0..=1.0).contains(&t.collapse) {
            return fail("train.collapse", &t.collapse, "in [0, 1]");
        }
        if t.keep == Keep::BestTestAccuracy && t.evaluate_every != 1 {
            return fail("train.evaluate_every", &t.evaluate_every, "1 to keep the best test accuracy");
        }
        if t.monitor != MonitorConfig::default() && !matches!(self.model.readout.neuron, ReadoutNeuron::Event(_)) {
            return fail("train.monitor.per_epoch", &t.monitor.per_epoch, "0: only event-driven models have monitors");
        }
        self.model.readout.init.check("model.readout.init")?;
        for (i, layer) in self.model.layers.iter().enumerate() {
            let key = |name: &str| format!("model.layers.{i}.{name}");
            if let LayerConfig::Dense { init, .. } | LayerConfig::Conv { init, .. } = layer {
                init.check(&key("init"))?;
            }
            let (neuron, width) = match layer {
                LayerConfig::Dense { width, neuron, .. } => {
                    if *width == 0 {
                        return fail(&key("width"), width, "at least 1");
                    }
                    (neuron, Some(*width))
                }
                LayerConfig::Conv { neuron, .. } => (neuron, None),
                LayerConfig::Pool { .. } | LayerConfig::AvgPool { .. } => continue,
                LayerConfig::Norm { momentum, eps } => {
                    NormConfig::Batch { momentum: *momentum, eps: *eps }.check(&format!("model.layers.{i}"))?;
                    continue;
                }
                LayerConfig::Dropout { p } if (0.0..1.0).contains(p) => continue,
                LayerConfig::Dropout { p } => return fail(&key("p"), p, "in [0, 1)"),
            };
            if let LayerConfig::Dense { norm: Some(norm), .. } | LayerConfig::Conv { norm: Some(norm), .. } = layer {
                norm.check(&key("norm"))?;
                if self.model.cache == CachePolicy::Recompute {
                    let reason = "must be `store` with normalised layers, which count every forward pass";
                    return Err(Error::config("model.cache", reason));
                }
            }
            if let LayerConfig::Dense { field, delays, .. } = layer {
                if !(1..=4096).contains(field) {
                    return Err(out_of_range(&key("field"), field, "1 to 4096 steps"));
                }
                if delays.is_some() && *field != 1 {
                    return Err(Error::config(key("field"), "a layer has either delays or a receptive field"));
                }
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
            ReadoutNeuron::Event(c) => {
                c.cell.check("model.readout.neuron.cell")?;
                c.read.check("model.readout.neuron.read")?;
                if t.rates != RateConfig::default() {
                    return fail("train.rates.limit", &t.rates.limit, "0 for event-driven neurons: they have no steps");
                }
            }
            ReadoutNeuron::Filter(filter) => filter.check("model.readout.neuron", None)?,
            _ => {}
        }
        self.model.readout.check_quantise()?;
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

fn tenth() -> f64 {
    0.1
}

/// `of` with the value at a dotted key set, unchecked.
///
/// # Errors
///
/// [`Error::Config`] if there is no such key (naming the nearest) or the value does not fit.
pub fn change<T: Serialize + serde::de::DeserializeOwned>(of: &T, assignment: &str) -> Result<T> {
    let place = format!("--set {assignment}");
    let (key, value) = assignment.split_once('=').ok_or_else(|| Error::config(&place, "expected KEY=VALUE"))?;
    // A bare word is a string: `--set data.set=mnist` needs no quotes.
    let value: toml::Value = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut tree = toml::Value::try_from(of).expect("every field has a TOML form");
    let mut at = &mut tree;
    let mut walked = String::new();
    // A key that is not there may be one without a value so far: then it can be set, and only then.
    let mut absent = None;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        at = match at {
            toml::Value::Table(table) => {
                if !table.contains_key(part) {
                    let hint = nearest(part, table.keys().map(String::as_str));
                    let known = table.keys().cloned().collect::<Vec<_>>().join(", ");
                    let within = if walked.is_empty() { String::new() } else { format!(" in `{walked}`") };
                    let error = Error::config(&place, format!("no key `{part}`{within}{hint}; it has {known}"));
                    if parts.peek().is_some() {
                        return Err(error);
                    }
                    absent = Some(error);
                }
                table.entry(part).or_insert(toml::Value::Boolean(false))
            }
            toml::Value::Array(list) => {
                let len = list.len();
                let index = part.parse().ok().filter(|&i: &usize| i < len);
                let index = index
                    .ok_or_else(|| Error::config(&place, format!("`{walked}` has entries 0..{len}, not `{part}`")))?;
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
    tree.try_into().map_err(|e| absent.unwrap_or_else(|| explain(&place, &e)))
}

/// The error of a value that is out of its range.
pub(crate) fn out_of_range(key: &str, value: &dyn std::fmt::Display, want: &str) -> Error {
    Error::config(format!("{key} = {value}"), format!("must be {want}"))
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
    fn set_gives_a_value_to_what_had_none() {
        let mut e = example();
        e.set("model.layers.0.neuron={model='paralif',mode='SD'}").unwrap();
        e.set("model.layers.0.neuron.threshold=0.01").unwrap();
        let LayerConfig::Dense { neuron: NeuronConfig::Paralif(c), .. } = &e.model.layers[0] else { panic!() };
        assert_eq!(c.threshold, Some(PerNeuron::Shared(0.01)));
        let message = e.set("model.layers.0.neuron.treshold=0.01").unwrap_err().to_string();
        assert!(message.contains("did you mean `threshold`"), "{message}");
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
