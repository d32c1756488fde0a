//! What the targets of TTFS share: a network of rectifiers, the network of neurons that spike once that it is mapped to,
//! and the latter's fine-tuning. Each step is a job of its own, so that an interrupted run goes on where it stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use snn_core::backend::Memory as _;
use snn_cpu::Cpu;
use snn_data::formats::keras as keras_file;
use snn_train::config::{Keep, LayerConfig, ModelConfig, TtfsConfig};
use snn_train::interchange::keras;
use snn_train::mapping::{self, Agreement, Network, RangeRule};
use snn_train::presets;
use snn_train::sparsity::{Census, Sparsity};
use snn_train::trainer::{RunOptions, Split, build_model, evaluate_seen};
use snn_train::{Experiment, Stack, Summary, checkpoint};

use super::digits::differences;
use super::study::{Size, Study, asked, is_here, label};
use crate::args::Reproduce;
use crate::report::jobs::stable_hash;
use crate::report::{Cell, Column, Deviation, Measured, Profile, Table};

/// Samples that run together where nothing is learned.
const BATCH: usize = 128;

/// The share of the newest batch in running statistics where there are few batches.
const SHORT_MOMENTUM: f64 = 0.1;

/// What runs where no published set is at hand.
pub(super) const STAND_IN: &str = "digits-sim";

/// What the published set is called in print.
fn task(set: &str) -> &'static str {
    match set {
        "fashion-mnist" => "Fashion-MNIST",
        "cifar10" => "CIFAR-10",
        _ => "MNIST",
    }
}

/// A study for each set that runs: those asked for; without any, generated digits in the smoke profile, every published
/// set at hand in that of the paper, the first of them otherwise. `published` begins with the one that digits stand in for.
pub(super) fn studies(
    target: &'static str,
    published: &[&'static str],
    args: &Reproduce,
    quiet: bool,
) -> Result<Vec<Study>> {
    let options = args.place.open_options();
    let known: Vec<&'static str> = published.iter().copied().chain([STAND_IN]).collect();
    let mut sets = asked(target, &known, args)?;
    if sets.is_empty() && args.profile != Profile::Smoke {
        for set in published {
            if is_here(set, &options)? {
                sets.push(set);
            }
        }
        if args.profile == Profile::Quick {
            sets.truncate(1);
        }
    }
    if sets.is_empty() {
        sets.push(STAND_IN);
    }
    let open = |set: &'static str| {
        let of = if set == STAND_IN { published[0] } else { set };
        Study::on(target, set, label(task(of), of, set, &options)?, args, quiet)
    };
    sets.into_iter().map(open).collect()
}

/// A preset of TTFS for the set of a study, of the size a profile asks for.
pub(super) fn experiment(study: &Study, family: &str, size: Option<Size>, seed: u64) -> Result<Experiment> {
    let of = match (study.set, study.label.task.as_str()) {
        (_, "CIFAR-10") => "cifar10",
        ("fashion-mnist", _) => "fashion",
        _ => "mnist",
    };
    let preset = presets::find(&format!("ttfs-{of}-{family}"))?;
    let mut e = study.shorten(preset.experiment, size, seed)?;
    // As in the original: the last weights, whatever the test says.
    e.train.keep = Keep::Last;
    if study.profile == Profile::Smoke {
        // A run of few batches never gets away from the statistics that it begins with otherwise.
        momenta(&mut e).for_each(|m| *m = SHORT_MOMENTUM);
    }
    Ok(e)
}

/// The share of the newest batch in the running statistics of each normalisation.
fn momenta(e: &mut Experiment) -> impl Iterator<Item = &mut f64> {
    e.model.layers.iter_mut().filter_map(|layer| match layer {
        LayerConfig::Norm { momentum, .. } => Some(momentum),
        _ => None,
    })
}

/// One pass over the test split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tested {
    /// Per cent.
    pub(super) accuracy: f64,
    pub(super) loss: Option<f64>,
    pub(super) samples: usize,
    pub(super) seconds: f64,
    /// Of neurons that spike once.
    pub(super) sparsity: Option<Sparsity>,
}

impl Tested {
    /// Spikes of all layers before their windows, per sample.
    pub(super) fn early(&self) -> Option<f64> {
        Some(self.sparsity.as_ref()?.layers.iter().map(|l| l.early_per_sample).sum())
    }

    pub(super) fn latency(&self) -> Option<f64> {
        self.sparsity.as_ref().map(|s| s.latency)
    }
}

/// What a training came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) summary: Summary,
    pub(super) tested: Tested,
    /// Training samples of an epoch.
    pub(super) samples: usize,
    /// Of neurons that spike once: the largest activation of each layer over the training set.
    pub(super) ranges: Vec<f64>,
}

impl Outcome {
    /// Test accuracy after each epoch, in per cent.
    pub(super) fn course(&self) -> Vec<(f64, f64)> {
        let last = self.summary.history.len();
        let at = |(i, r): (usize, &snn_train::trainer::EpochRecord)| {
            // The last weights are tested as the result.
            let share = r.test_accuracy.or((i + 1 == last).then_some(self.summary.test_accuracy))?;
            Some((f64::from(r.epoch), 100.0 * share))
        };
        self.summary.history.iter().enumerate().filter_map(at).collect()
    }

    /// Training accuracy of the last epoch, in per cent.
    pub(super) fn training_accuracy(&self) -> Option<f64> {
        self.summary.history.last().map(|r| 100.0 * r.accuracy)
    }

    pub(super) fn images_per_second(&self) -> f64 {
        self.samples as f64 / self.summary.epoch_seconds
    }
}

/// Where the weights of rectifiers come from: from training, or from a file of Keras with a digest of what it holds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Source {
    pub(super) experiment: Experiment,
    file: Option<(PathBuf, u64)>,
}

impl Source {
    /// Weights that training leads to.
    pub(super) fn trained(experiment: Experiment) -> Self {
        Self { experiment, file: None }
    }

    /// Weights of a file.
    pub(super) fn file(experiment: Experiment, path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Self { experiment, file: Some((path.to_owned(), stable_hash(&bytes) as u64)) })
    }
}

/// How windows of a mapped network follow from the activations that come up in training data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Windows {
    /// Of the activations of neurons that fire; the largest without one.
    pub(super) quantile: Option<f64>,
    /// Whether neurons that would fire before their window fire at its start.
    pub(super) limited: bool,
    pub(super) margin: f64,
    pub(super) growth: f64,
}

impl Windows {
    /// As published.
    pub(super) const PUBLISHED: Self = Self { quantile: None, limited: false, margin: 0.5, growth: 10.0 };
    /// Exactly as long as the largest activation, and fixed.
    pub(super) const TIGHT: Self = Self { quantile: None, limited: false, margin: 0.0, growth: 0.0 };
}

/// What a mapping came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mapped {
    /// The mapped network's experiment: as text, numbers keep all their digits.
    experiment: String,
    /// The activation of each layer that its window is made for.
    pub(super) ranges: Vec<f64>,
    /// The largest difference of two outputs of both networks, and the largest output.
    pub(super) difference: f64,
    pub(super) largest: f64,
    /// Test samples whose best two outputs are clearly apart, and those of them that both networks put into one class.
    pub(super) clear: usize,
    pub(super) same: usize,
    pub(super) before: Tested,
    pub(super) after: Tested,
    /// Of fusing the weights and of the pass over the training samples.
    pub(super) seconds: f64,
    pub(super) samples: usize,
}

impl Mapped {
    pub(super) fn experiment(&self) -> Result<Experiment> {
        Ok(Experiment::from_toml("the mapped network", &self.experiment)?)
    }

    pub(super) fn images_per_second(&self) -> f64 {
        self.samples as f64 / self.seconds
    }
}

/// What a fine-tuning came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tuned {
    /// The mapped network under the conditions of the training.
    pub(super) before: Tested,
    pub(super) outcome: Outcome,
}

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    what: &'static str,
    experiment: Option<&'a Experiment>,
    source: Option<&'a Source>,
    windows: Option<&'a Windows>,
    bits: Option<u32>,
    data: &'a str,
    device: String,
}

/// What a network of rectifiers is mapped to.
struct Twin {
    experiment: Experiment,
    stack: Stack<Cpu>,
    test: Split,
    ranges: Vec<f64>,
    seconds: f64,
    samples: usize,
}

impl Study {
    fn options(&self) -> RunOptions {
        RunOptions { data: self.data.clone(), ..RunOptions::default() }
    }

    fn job<'a>(&'a self, what: &'static str) -> Job<'a> {
        let (data, device) = (&*self.label.label, self.device.describe());
        Job { target: self.target, what, experiment: None, source: None, windows: None, bits: None, data, device }
    }

    /// The learning rate of the last update of a training.
    pub(super) fn last_rate(&self, e: &Experiment) -> Result<f64> {
        let t = &e.train;
        let batches = Split::train(e, &self.options())?.len().div_ceil(t.batch.max(1));
        let updates = (batches as u64 * u64::from(t.epochs)).saturating_sub(1);
        let epochs = t.schedule.factor(t.epochs.saturating_sub(1), t.epochs);
        Ok(t.optimiser.learning_rate * epochs * t.schedule.factor_at(updates))
    }

    /// A pass over the test split, in batches that do not depend on the training.
    fn pass(&self, e: &Experiment, stack: &mut Stack<Cpu>, split: &Split) -> Result<Tested> {
        let start = Instant::now();
        let mut config = e.train.clone();
        config.batch = config.batch.max(BATCH);
        let mut census = Census::new();
        let device = &self.device;
        let found =
            evaluate_seen(device, stack, split, &config, |stack, batch, _, _| census.add(device, stack, batch))?;
        if found.samples == 0 {
            bail!("the test split of {} is empty", self.set);
        }
        Ok(Tested {
            accuracy: 100.0 * found.accuracy,
            loss: found.loss.is_finite().then_some(found.loss),
            samples: found.samples,
            seconds: start.elapsed().as_secs_f64(),
            sparsity: census.report(device, stack)?,
        })
    }

    /// The largest activations of neurons that spike once over the training samples; none of other networks.
    fn ranges(&self, e: &Experiment, stack: &mut Stack<Cpu>, rule: RangeRule) -> Result<(Vec<f64>, usize)> {
        let mut fit = e.clone();
        fit.data.augment.clear();
        let split = Split::train(&fit, &self.options())?;
        if stack.layers().all(|layer| layer.first_spikes().is_none()) {
            return Ok((vec![], split.len()));
        }
        Ok((mapping::estimate_windows(&self.device, stack, &split, e.train.batch.max(BATCH), rule)?, split.len()))
    }

    /// Trains in a directory, then tests.
    fn learn(&self, name: &str, e: &Experiment, out: &Path, weights: Option<PathBuf>) -> Result<Outcome> {
        let summary = self.train(name, e, out, weights)?;
        let test = Split::test(e, &self.options())?;
        let mut stack = build_model(&self.device, e, &test)?;
        checkpoint::load_model(&self.device, &out.join("model.safetensors"), &mut stack)?;
        let tested = self.pass(e, &mut stack, &test)?;
        let (ranges, samples) = self.ranges(e, &mut stack, RangeRule::Largest)?;
        Ok(Outcome { summary, tested, samples, ranges })
    }

    /// Trains from a seed, or takes the stored result; the weights stay in the run's directory.
    pub(super) fn scratch(&self, name: &str, e: &Experiment) -> Result<Outcome> {
        let job = Job { experiment: Some(e), ..self.job("training") };
        self.announce_job(name, &job, &epochs(e, ""));
        self.jobs.run(&job, || {
            let out = self.run_directory(e);
            let outcome = self.learn(name, e, &out, None)?;
            remove(&out.join("checkpoints"))?;
            Ok(outcome)
        })
    }

    fn announce_job(&self, name: &str, job: &Job<'_>, how: &str) {
        let how = if self.jobs.is_done(job) { "done before" } else { how };
        self.say(format!("{name}: {how}"));
    }

    /// The weights of a finished training; it runs again if they are gone.
    fn weights(&self, e: &Experiment) -> Result<PathBuf> {
        let out = self.run_directory(e);
        let path = out.join("model.safetensors");
        if !path.is_file() {
            self.say(format!("{}: its weights are gone, so it trains again", e.name));
            self.train(&e.name, e, &out, None)?;
            remove(&out.join("checkpoints"))?;
        }
        Ok(path)
    }

    /// The network of a source with its test split.
    fn open_source(&self, source: &Source) -> Result<(Stack<Cpu>, Split)> {
        let test = Split::test(&source.experiment, &self.options())?;
        let mut stack = build_model(&self.device, &source.experiment, &test)?;
        match &source.file {
            Some((path, _)) => {
                let file = keras_file::read(path)?;
                keras::import(&self.device, &mut stack, &file, false).with_context(|| path.display().to_string())?;
            }
            None => checkpoint::load_model(&self.device, &self.weights(&source.experiment)?, &mut stack)?,
        }
        Ok((stack, test))
    }

    /// What a network is mapped to, before its windows fit anything.
    fn fuse(&self, source: &Source, stack: &Stack<Cpu>, windows: &Windows) -> Result<(Experiment, Network)> {
        let Windows { limited, margin, growth, .. } = *windows;
        let neuron = TtfsConfig { limited, margin, growth, ..TtfsConfig::default() };
        let network = Network::of(&self.device, &source.experiment.model, stack)?;
        Ok(mapping::spiking_experiment(&source.experiment, &network, None, &neuron)?)
    }

    /// What a network is mapped to, with windows that fit the training samples.
    fn twin(&self, source: &Source, stack: &Stack<Cpu>, windows: &Windows) -> Result<Twin> {
        let start = Instant::now();
        let (mut experiment, mut network) = self.fuse(source, stack, windows)?;
        let rule = windows.quantile.map_or(RangeRule::Largest, RangeRule::Quantile);
        let (batch, options) = (experiment.train.batch.max(BATCH), self.options());
        let (ranges, samples) =
            mapping::fit_windows(&self.device, &mut experiment, &mut network, &options, batch, rule)?;
        let stack = network.build(&self.device)?;
        let seconds = start.elapsed().as_secs_f64();
        let test = Split::test(&experiment, &self.options())?;
        Ok(Twin { experiment, stack, test, ranges, seconds, samples })
    }

    /// Where the weights of a mapped network lie.
    fn mapped_path(&self, source: &Source, windows: &Windows) -> Result<PathBuf> {
        let hash = stable_hash(&serde_json::to_vec(&(source, windows))?);
        let trained = self.run_directory(&source.experiment);
        let name = trained.file_name().unwrap_or_default().to_string_lossy();
        Ok(trained.with_file_name(format!("{name}-mapped-{:08x}", hash as u32)).join("model.safetensors"))
    }

    fn store(&self, twin: &Twin, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(checkpoint::save_model(&self.device, path, &twin.stack, &twin.experiment.to_toml())?)
    }

    /// Maps a network of rectifiers and compares both, or takes the stored result.
    pub(super) fn map(&self, name: &str, source: &Source, windows: &Windows) -> Result<Mapped> {
        let job = Job { source: Some(source), windows: Some(windows), ..self.job("mapping") };
        self.announce_job(&format!("{name}, mapped"), &job, "fits the windows to the training set");
        self.jobs.run(&job, || {
            let (mut stack, test) = self.open_source(source)?;
            let mut twin = self.twin(source, &stack, windows)?;
            let (from, to) = ((&mut stack, &test), (&mut twin.stack, &twin.test));
            let agreed = mapping::compare(&self.device, from, to, source.experiment.train.batch.max(BATCH))?;
            let before = self.pass(&source.experiment, &mut stack, &test)?;
            let after = self.pass(&twin.experiment, &mut twin.stack, &twin.test)?;
            self.store(&twin, &self.mapped_path(source, windows)?)?;
            Ok(Mapped {
                experiment: twin.experiment.to_toml(),
                ranges: twin.ranges,
                difference: agreed.difference,
                largest: agreed.largest,
                clear: agreed.clear,
                same: agreed.same,
                before,
                after,
                seconds: twin.seconds,
                samples: twin.samples,
            })
        })
    }

    /// Something that follows from the weights of a mapped network and a number of bits, or the stored result.
    pub(super) fn of_weights<T: Serialize + DeserializeOwned>(
        &self,
        what: &'static str,
        source: &Source,
        bits: u32,
        work: impl FnOnce(&Network) -> Result<T>,
    ) -> Result<T> {
        self.jobs.run(&Job { source: Some(source), bits: Some(bits), ..self.job(what) }, || {
            let (stack, _) = self.open_source(source)?;
            work(&self.fuse(source, &stack, &Windows::TIGHT)?.1)
        })
    }

    /// Tests a mapped network under the conditions of an experiment, trains it under them, tests it again.
    pub(super) fn tune(&self, name: &str, source: &Source, windows: &Windows, e: &Experiment) -> Result<Tuned> {
        let job = Job { experiment: Some(e), source: Some(source), windows: Some(windows), ..self.job("fine-tuning") };
        self.announce_job(name, &job, &epochs(e, " of fine-tuning"));
        self.jobs.run(&job, || {
            let path = self.mapped_path(source, windows)?;
            if !path.is_file() {
                let (stack, _) = self.open_source(source)?;
                self.store(&self.twin(source, &stack, windows)?, &path)?;
            }
            let test = Split::test(e, &self.options())?;
            let mut stack = build_model(&self.device, e, &test)?;
            checkpoint::load_model(&self.device, &path, &mut stack)?;
            let before = self.pass(e, &mut stack, &test)?;
            let out = self.run_directory(e);
            let outcome = self.learn(name, e, &out, Some(path))?;
            // Nothing goes on from here.
            remove(&out)?;
            Ok(Tuned { before, outcome })
        })
    }

    /// Compares the outputs of two trained networks on the test set.
    pub(super) fn compare(&self, first: &Experiment, second: &Experiment) -> Result<Agreement> {
        let source = Source::trained(second.clone());
        let job = Job { experiment: Some(first), source: Some(&source), ..self.job("comparison") };
        self.jobs.run(&job, || {
            let (mut stack, test) = self.open_source(&Source::trained(first.clone()))?;
            let (mut other, other_test) = self.open_source(&source)?;
            Ok(mapping::compare(&self.device, (&mut stack, &test), (&mut other, &other_test), BATCH)?)
        })
    }
}

fn epochs(e: &Experiment, what: &str) -> String {
    let plural = if e.train.epochs == 1 { "" } else { "s" };
    format!("{} epoch{plural}{what}", e.train.epochs)
}

fn remove(directory: &Path) -> Result<()> {
    std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())
}

/// The experiment that a mapped network is fine-tuned by: the training of one, the layers of the other.
pub(super) fn tuning(preset: Experiment, mapped: &Mapped) -> Result<Experiment> {
    let Experiment { model, data, .. } = mapped.experiment()?;
    let mut e = Experiment { model, ..preset };
    e.data.encode = data.encode;
    Ok(e)
}

/// The neurons that spike once, layer by layer, to be changed.
pub(super) fn neurons(model: &mut ModelConfig) -> impl Iterator<Item = &mut TtfsConfig> {
    model.layers.iter_mut().filter_map(LayerConfig::ttfs_mut)
}

/// Something that must hold.
pub(super) struct Demand {
    pub(super) what: String,
    pub(super) limit: &'static str,
    pub(super) found: String,
    pub(super) met: bool,
    /// Whether it holds for these data and this profile at all.
    pub(super) asked: bool,
}

/// All demands with what was found.
pub(super) fn demands_table(demands: &[Demand]) -> Table {
    let columns = ["demand", "limit", "found", "met"].map(Column::words).into();
    let mut table = Table::new("demands", "Demands", columns);
    for d in demands {
        let met = match (d.met, d.asked) {
            (true, _) => "yes",
            (false, true) => "NO",
            (false, false) => "no, not asked of these data in this profile",
        };
        table.row([d.what.as_str(), d.limit, d.found.as_str(), met].map(Cell::text));
    }
    table
}

/// One sentence on all demands, and one on each that is not met.
pub(super) fn demands_summary(demands: &[Demand]) -> Vec<String> {
    let asked: Vec<&Demand> = demands.iter().filter(|d| d.asked).collect();
    let met = asked.iter().filter(|d| d.met).count();
    let mut lines = match asked.len() {
        0 => vec!["No demand holds for these data in this profile.".to_owned()],
        all => vec![format!("{met} of {all} demands are met.")],
    };
    let missed = asked.iter().filter(|d| !d.met);
    lines.extend(missed.map(|d| format!("Not met: {}: {}, the limit is {}.", d.what, d.found, d.limit)));
    lines
}

/// What spikes per neuron are.
pub(super) const SPIKES: &str = "Spikes per hidden neuron: hidden neurons that fire, summed over layers and test images, by \
    hidden neurons times images; units of a convolution count one by one, pools are no neurons, outputs do not spike. Per \
    input: inputs that are not 0 by inputs. Both: all of these together.";

/// What latency is.
pub(super) const LATENCY: &str = "Latency: when the last window ends and the outputs are read, in units of the input's window, \
    which is [0, 1]. Early spikes: those that would have come before their window, which is no spike any more, although the \
    arithmetic goes on as if it were.";

/// How far outputs of two networks are apart; of each pair the largest difference as a share of the largest output.
pub(super) fn differ(shares: impl IntoIterator<Item = f64>) -> String {
    match shares.into_iter().fold(0.0, f64::max) {
        0.0 => "do not differ at all".into(),
        share => format!("differ by at most {share:.1e} of the largest"),
    }
}

/// A number that there may be none of.
pub(super) fn number(value: Option<f64>, decimals: usize) -> Cell {
    value.filter(|v| v.is_finite()).map_or_else(|| Cell::missing("-"), |v| Cell::number(v, decimals))
}

/// A quantity over runs.
pub(super) fn over(values: impl IntoIterator<Item = Option<f64>>) -> Option<Measured> {
    Measured::of(&values.into_iter().collect::<Option<Vec<f64>>>()?)
}

/// What differs from the published protocol: the sets, what `experiments` (name, as published, here) leave out, the machine.
pub(super) fn deviations(studies: &[&Study], experiments: &[(String, Experiment, Experiment)]) -> Vec<Deviation> {
    let mut list: Vec<Deviation> = Vec::new();
    for study in studies.iter().filter(|s| !s.label.as_published) {
        list.push(Deviation::new("data", &study.label.task, &study.label.label));
    }
    let mut found: Vec<(Vec<&str>, Deviation)> = Vec::new();
    for (name, published, here) in experiments {
        for deviation in
            differences(published, here).into_iter().filter(|d| d.what != "data" && d.what != "time window")
        {
            match found.iter_mut().find(|(_, known)| *known == deviation) {
                Some((of, _)) => of.push(name),
                None => found.push((vec![name], deviation)),
            }
        }
    }
    list.extend(found.into_iter().map(|(of, mut deviation)| {
        if of.len() < experiments.len() {
            deviation.what = format!("{} ({})", deviation.what, of.join("; "));
        }
        deviation
    }));
    list.push(
        Deviation::new(
            "arithmetic",
            "double precision, absolute times",
            "single precision, times before a window's end",
        )
        .why("the latter loses nothing at any depth"),
    );
    if let Some(study) = studies.first() {
        list.push(Deviation::new("hardware", "a GPU, not named", study.device.describe()).why("times do not compare"));
    }
    list
}

/// What to call the runs of several studies: notes of all of them, and their seconds.
pub(super) fn jobs(studies: &[Study]) -> (Vec<String>, f64) {
    let notes = studies.iter().flat_map(|s| s.jobs.notes()).collect();
    (notes, studies.iter().map(|s| s.jobs.counts().seconds).sum())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn weights_of_a_file_are_mapped_as_trained_ones_and_lost_ones_are_trained_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", "ttfs-mnist", "--threads", "1", "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let studies = studies("ttfs-mnist", &["mnist", "fashion-mnist"], &args, true).unwrap();
        let [study] = &studies[..] else { panic!("digits alone") };
        assert_eq!((study.set, study.label.as_published), (STAND_IN, false));
        let size = Some(Size::new(64, 40, 1));
        let relu = experiment(study, "conv-bn-relu", size, 3).unwrap();
        let trained = study.scratch("tiny", &relu).unwrap();
        assert_eq!((trained.samples, trained.course().len(), trained.ranges.len()), (64, 1, 0));
        assert!((trained.course()[0].1 - trained.tested.accuracy).abs() < 1e-9 && trained.tested.sparsity.is_none());

        let source = Source::trained(relu.clone());
        let (stack, _) = study.open_source(&source).unwrap();
        let file = place.path().join("tiny.h5");
        keras_file::write(&file, &keras::export(&study.device, &stack).unwrap()).unwrap();
        let imported = Source::file(relu.clone(), &file).unwrap();
        let mapped = [&source, &imported].map(|s| study.map("tiny", s, &Windows::PUBLISHED).unwrap());
        assert_eq!(mapped[0].ranges, mapped[1].ranges);
        for m in &mapped {
            assert!(m.ranges.len() == 3 && m.same == m.clear && m.clear > 30, "{m:?}");
            assert!(m.difference < 1e-5 * m.largest, "{m:?}");
            let sum: f64 = m.ranges.iter().sum();
            assert!((m.after.latency().unwrap() - 1.0 - 1.5 * sum).abs() < 1e-4 * sum, "{m:?}");
        }
        assert_ne!(
            study.mapped_path(&source, &Windows::PUBLISHED).unwrap(),
            study.mapped_path(&imported, &Windows::PUBLISHED).unwrap()
        );

        // Everything that was stored beside the jobs is lost.
        std::fs::remove_dir_all(study.directory.join("runs")).unwrap();
        let tune = tuning(experiment(study, "conv-bn-finetune", size, 3).unwrap(), &mapped[0]).unwrap();
        let tuned = study.tune("tiny", &source, &Windows::PUBLISHED, &tune).unwrap();
        assert_eq!(tuned.before.accuracy, mapped[0].after.accuracy);
        assert!(tuned.outcome.ranges.len() == 3 && !study.run_directory(&tune).exists());
        let (run, reused) = (study.jobs.counts().run, study.jobs.counts().reused);
        study.tune("tiny", &source, &Windows::PUBLISHED, &tune).unwrap();
        assert_eq!((study.jobs.counts().run, study.jobs.counts().reused), (run, reused + 1));
    }

    #[test]
    fn demands_that_are_not_asked_do_not_count() {
        let demand = |met, asked| Demand { what: "it".into(), limit: "1", found: "2".into(), met, asked };
        assert_eq!(demands_summary(&[demand(false, false)]), ["No demand holds for these data in this profile."]);
        let lines = demands_summary(&[demand(true, true), demand(false, true), demand(false, false)]);
        assert_eq!(lines, ["1 of 2 demands are met.", "Not met: it: 2, the limit is 1."]);
        assert_eq!(demands_table(&[demand(true, true), demand(false, false)]).rows.len(), 2);
    }
}
