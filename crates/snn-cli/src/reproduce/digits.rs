//! What the studies on spoken digits share: the data, a training run that continues where it stopped, tests under noise.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use snn_core::backend::Memory as _;
use snn_cpu::Cpu;
use snn_data::{Augment, Encode, Loader, LoaderOptions, OpenOptions};
use snn_train::config::{FilterConfig, LayerConfig, NeuronConfig, PerNeuron, ReadoutNeuron};
use snn_train::trainer::{
    BatchProgress, EpochRecord, MeanLogits, Observer, RunOptions, Split, Unobserved, Upload, build_model,
};
use snn_train::{Experiment, Stack, checkpoint};

use crate::args::Reproduce;
use crate::console;
use crate::report::jobs::stable_hash;
use crate::report::{DataLabel, Deviation, Jobs, Profile};
use crate::usage;

/// The published data set and what stands in for it.
const SETS: [&str; 2] = ["shd", "spoken-digits"];

/// What a study runs on.
pub(super) struct Digits {
    pub(super) device: Cpu,
    pub(super) data: OpenOptions,
    pub(super) set: &'static str,
    pub(super) label: DataLabel,
    pub(super) jobs: Jobs,
    target: &'static str,
    unfinished: PathBuf,
    quiet: bool,
    profile: Profile,
}

/// What a trained network came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trained {
    /// Of every epoch.
    pub(super) losses: Vec<f64>,
    /// Of every epoch, while the weights moved.
    pub(super) accuracies: Vec<f64>,
    /// Mean of an epoch, the first one left out.
    pub(super) epoch_seconds: f64,
    /// One for every condition and repeat of the test.
    pub(super) tests: Vec<Vec<Tested>>,
}

/// One pass over the test split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tested {
    pub(super) accuracy: f64,
    /// Mean spikes of a step, summed over the neurons of each hidden layer.
    pub(super) rates: Vec<f64>,
    pub(super) seconds: f64,
}

impl Trained {
    /// Whether hardly any spike leaves the last hidden layer, where there are spikes: such a network knows nothing.
    pub(super) fn is_silent(&self) -> bool {
        let rates = self.tests.first().and_then(|repeats| repeats.first()).map(|t| &t.rates);
        rates.and_then(|r| r.last()).is_some_and(|&rate| rate < 1e-3)
    }
}

/// A condition of the test: noise of that signal-to-noise ratio in dB, or none.
pub(super) type Noise = Option<f32>;

/// An experiment on a set with a seed, shortened as the profile says.
pub(super) fn shortened(mut e: Experiment, profile: Profile, set: &str, seed: u64) -> Experiment {
    set.clone_into(&mut e.data.set);
    e.train.seed = seed;
    e.train.evaluate_every = 0;
    match profile {
        Profile::Smoke => {
            coarsen(&mut e, 5);
            (e.data.train_samples, e.data.test_samples) = (1000, 400);
            (e.train.epochs, e.train.batch) = (8, 32);
            e.train.optimiser.learning_rate = 5e-3;
        }
        Profile::Quick => {
            coarsen(&mut e, 5);
            e.data.train_samples = 3200;
            (e.train.epochs, e.train.batch) = (15, 32);
            e.train.optimiser.learning_rate = 2e-3;
        }
        Profile::Paper => {}
    }
    e
}

/// The noise as augmentation.
pub(super) fn flips(noise: Noise) -> Vec<Augment> {
    noise.map(|snr_db| Augment::FlipNoise { snr_db }).into_iter().collect()
}

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    experiment: &'a Experiment,
    tests: &'a [Noise],
    repeats: u32,
    data: &'a str,
    device: String,
}

impl Digits {
    /// SHD or a copy of it where there is one, generated spoken digits otherwise.
    pub(super) fn open(target: &'static str, args: &Reproduce, quiet: bool) -> Result<Self> {
        let data = args.place.open_options();
        let here = |set: &str| {
            let splits = snn_data::info(set, &data.data_dir)?;
            anyhow::Ok(splits.iter().all(|s| s.converted.is_some() || s.downloaded))
        };
        let set = match &args.sets[..] {
            [] if here(SETS[0])? => SETS[0],
            [] => SETS[1],
            [name] => match SETS.into_iter().find(|set| set == name) {
                Some(set) => set,
                None => {
                    let hint = snn_train::config::nearest(name, SETS);
                    return Err(usage(format!("--sets {name}: {target} runs on {}{hint}", SETS.join(" or "))));
                }
            },
            _ => return Err(usage(format!("--sets: {target} runs on one of {}", SETS.join(", ")))),
        };
        let source = snn_data::open(set, "train", &data)?;
        let label = match source.label() {
            Some(label) if label.contains(set) => format!("{label} (not the published data set)"),
            Some(label) => format!("{set}: {label} (not the published data set)"),
            None => set.to_owned(),
        };
        let as_published = set == SETS[0] && source.label().is_none();
        let directory = args.out.join(target);
        Ok(Self {
            device: args.place.processor()?,
            data,
            set,
            label: DataLabel { task: "SHD".into(), label, as_published },
            jobs: Jobs::open(&directory, args.profile)?,
            target,
            unfinished: directory.join("unfinished"),
            quiet,
            profile: args.profile,
        })
    }

    pub(super) fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            console::message(text);
        }
    }

    /// Trains, then tests under each noise `repeats` times, or takes the stored result.
    ///
    /// A run that was interrupted goes on from its last checkpoint.
    pub(super) fn run(&self, name: &str, experiment: &Experiment, tests: &[Noise], repeats: u32) -> Result<Trained> {
        let (data, device) = (&*self.label.label, self.device.describe());
        let job = Job { target: self.target, experiment, tests, repeats, data, device };
        let done = self.jobs.is_done(&job);
        let how = if done { "done before".into() } else { format!("{} epochs", experiment.train.epochs) };
        self.say(format!("{name}: {how}"));
        self.jobs.run(&job, || {
            let hash = stable_hash(format!("{}\n{data}", experiment.to_toml()).as_bytes());
            let out = self.unfinished.join(format!("{hash:032x}"));
            let options =
                RunOptions { data: self.data.clone(), out: Some(out.clone()), resume: true, ..RunOptions::default() };
            let mut watch = Watch::new(self.quiet, name, experiment.train.epochs);
            let summary = snn_train::run(&self.device, experiment, &options, &mut watch)?;
            watch.finish();
            let mut trained = Trained {
                losses: summary.history.iter().map(|r| r.loss).collect(),
                accuracies: summary.history.iter().map(|r| r.accuracy).collect(),
                epoch_seconds: summary.epoch_seconds,
                tests: Vec::new(),
            };
            for &noise in tests {
                trained.tests.push(self.test(experiment, &out, noise, repeats)?);
            }
            // The result is in the job's file: logs and checkpoints served only to go on.
            std::fs::remove_dir_all(&out)?;
            // Stays if another run is in it.
            let _ = std::fs::remove_dir(&self.unfinished);
            Ok(trained)
        })
    }

    fn test(&self, experiment: &Experiment, out: &Path, noise: Noise, repeats: u32) -> Result<Vec<Tested>> {
        let mut experiment = experiment.clone();
        experiment.data.test_augment = flips(noise);
        let options = RunOptions { data: self.data.clone(), ..RunOptions::default() };
        let split = Split::test(&experiment, &options)?;
        let mut stack = build_model(&self.device, &experiment, &split)?;
        checkpoint::load_model(&self.device, &out.join("model.safetensors"), &mut stack)?;
        (0..repeats).map(|repeat| self.pass(&experiment, &split, &mut stack, repeat)).collect()
    }

    /// One pass over a split; every repeat has its own noise and its own random spikes.
    fn pass(&self, experiment: &Experiment, split: &Split, stack: &mut Stack<Cpu>, repeat: u32) -> Result<Tested> {
        let device = &self.device;
        let start = Instant::now();
        let mut upload = Upload::new(device, split.pipeline.signal());
        let mut logits = MeanLogits::new(device, experiment.train.evaluate_draws)?;
        let options = LoaderOptions {
            batch: experiment.train.batch,
            epoch: repeat,
            limit: Some(split.len()),
            ..LoaderOptions::default()
        };
        let (mut correct, mut samples, mut steps, mut spikes) = (0_usize, 0_usize, 0.0, Vec::<f64>::new());
        let loader = Loader::new(split.source.clone(), split.pipeline.clone(), options)?;
        let batches = loader.batches();
        for batch in loader {
            let batch = batch?;
            let input = upload.batch(device, &batch)?;
            let index = repeat as usize * batches + batch.index;
            let output = logits.run(device, stack, input, index, |stack| {
                let layers: Vec<_> = stack.layers().filter_map(|l| l.spikes()).collect();
                spikes.resize(layers.len(), 0.0);
                for (sum, layer) in spikes.iter_mut().zip(&layers) {
                    *sum += layer.events() as f64;
                }
                steps += layers.first().map_or(0.0, |l| l.lanes().rows() as f64);
                Ok(())
            })?;
            let output = &output.values("a test")?.data;
            let rows = output.chunks(output.len() / batch.labels.len().max(1));
            correct +=
                rows.zip(&batch.labels).filter(|(row, l)| snn_train::losses::argmax(row) == **l as usize).count();
            samples += batch.labels.len();
        }
        if samples == 0 {
            bail!("the test split of {} is empty", self.set);
        }
        Ok(Tested {
            accuracy: correct as f64 / samples as f64,
            rates: spikes.into_iter().map(|s| s / f64::max(steps, 1.0)).collect(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Prints how long all of these will take, from a few batches of each.
    pub(super) fn announce<'e>(&self, experiments: impl IntoIterator<Item = &'e Experiment>) -> Result<()> {
        if self.profile != Profile::Paper || self.quiet {
            return Ok(());
        }
        let total = estimate(&self.device, &self.data, self.set, 4, experiments)?;
        let total = crate::report::machine::duration(total);
        self.say(format!("the full protocol will take about {total} on this machine"));
        Ok(())
    }
}

/// Seconds that experiments on a set will take, from so many batches of each.
pub(super) fn estimate<'e>(
    device: &Cpu,
    data: &OpenOptions,
    set: &str,
    batches: usize,
    experiments: impl IntoIterator<Item = &'e Experiment>,
) -> Result<f64> {
    let mut total = 0.0;
    let samples = snn_data::open(set, "train", data)?.len();
    for experiment in experiments {
        let mut pilot = experiment.clone();
        pilot.data.train_samples = (batches * pilot.train.batch).min(samples);
        pilot.data.test_samples = pilot.train.batch;
        pilot.train.epochs = 2;
        let options = RunOptions { data: data.clone(), ..RunOptions::default() };
        let found = snn_train::run(device, &pilot, &options, &mut Unobserved)?;
        let epochs = f64::from(experiment.train.epochs);
        total += found.epoch_seconds * samples as f64 / pilot.data.train_samples as f64 * epochs;
    }
    Ok(total)
}

/// Makes windows `factor` times as long; time constants stay what they are in milliseconds.
fn coarsen(e: &mut Experiment, factor: usize) {
    if let Encode::Align { steps, dt_ms, .. } = &mut e.data.encode {
        *steps = steps.div_ceil(factor);
        *dt_ms *= factor as f32;
    }
    let shorten = |filter: &mut FilterConfig| {
        for tau in [Some(&mut filter.tau_mem), filter.tau_syn.as_mut()].into_iter().flatten() {
            match tau {
                PerNeuron::Shared(x) => *x /= factor as f64,
                PerNeuron::Each(list) => list.iter_mut().for_each(|x| *x /= factor as f64),
            }
        }
    };
    for layer in &mut e.model.layers {
        match layer {
            LayerConfig::Dense { neuron: NeuronConfig::Paralif(c), .. } => shorten(&mut c.filter),
            LayerConfig::Dense { neuron: NeuronConfig::Cuba(c), .. } => shorten(&mut c.filter),
            _ => {}
        }
    }
    if let ReadoutNeuron::Filter(filter) = &mut e.model.readout.neuron {
        shorten(filter);
    }
}

/// What differs between a published experiment and the one that ran.
pub(super) fn differences(published: &Experiment, here: &Experiment) -> Vec<Deviation> {
    let mut list = Vec::new();
    let mut differ = |what: &str, published: String, here: String| {
        if published != here {
            list.push(Deviation::new(what, published, here));
        }
    };
    let samples = |n: usize| if n == 0 { "all".to_owned() } else { n.to_string() };
    let window = |e: &Experiment| match &e.data.encode {
        Encode::Align { dt_ms, .. } => format!("{dt_ms} ms"),
        other => format!("{other:?}"),
    };
    differ("data", published.data.set.clone(), here.data.set.clone());
    differ("epochs", published.train.epochs.to_string(), here.train.epochs.to_string());
    differ("training samples", samples(published.data.train_samples), samples(here.data.train_samples));
    differ("test samples", samples(published.data.test_samples), samples(here.data.test_samples));
    differ("time window", window(published), window(here));
    differ("batch", published.train.batch.to_string(), here.train.batch.to_string());
    let rate = |e: &Experiment| format!("{}", e.train.optimiser.learning_rate);
    differ("learning rate", rate(published), rate(here));
    list
}

/// Shows progress.
pub(super) struct Watch {
    bar: indicatif::ProgressBar,
}

impl Watch {
    pub(super) fn new(quiet: bool, name: &str, epochs: u32) -> Self {
        let bar = console::bar(quiet, u64::from(epochs), "{prefix} [{bar:30}] {pos}/{len} epochs {msg} {eta:>4}");
        bar.set_prefix(name.to_owned());
        Self { bar }
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Watch {
    fn batch(&mut self, p: &BatchProgress) {
        self.bar.set_message(format!("loss {:.3} accuracy {:.1} %", p.loss, 100.0 * p.accuracy));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.bar.set_position(u64::from(record.epoch));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_study_tests_under_each_noise_and_never_trains_twice() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", "spsn-table", "--threads", "1", "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let mut e = snn_train::presets::find("spsn-shd-sb").unwrap().experiment;
        coarsen(&mut e, 50);
        e.data.set = "spoken-digits".into();
        (e.data.train_samples, e.data.test_samples, e.train.batch, e.train.epochs) = (48, 40, 16, 1);
        let tests = [None, Some(0.0)];
        let open = || Digits::open("study", &args, true).unwrap();
        let digits = open();
        assert_eq!((digits.set, digits.label.as_published), ("spoken-digits", false));
        let trained = digits.run("SB", &e, &tests, 2).unwrap();
        assert_eq!((trained.losses.len(), trained.tests.len()), (1, 2));
        for repeats in &trained.tests {
            assert_eq!((repeats.len(), repeats[0].rates.len()), (2, 3));
            assert!(repeats[0].rates != repeats[1].rates && repeats.iter().all(|t| t.rates.iter().all(|r| *r < 128.0)));
        }
        let again = open();
        let reused = again.run("SB", &e, &tests, 2).unwrap();
        assert_eq!((reused.tests[0][0].rates.clone(), again.jobs.counts().run), (trained.tests[0][0].rates.clone(), 0));
        assert!(!again.unfinished.exists());
    }

    #[test]
    fn longer_windows_keep_time_constants_in_milliseconds() {
        for name in ["spsn-shd-sb", "spsn-shd-lif", "spsn-shd-nonspiking"] {
            let published = snn_train::presets::find(name).unwrap().experiment;
            let mut e = published.clone();
            coarsen(&mut e, 5);
            e.check().unwrap();
            let text = e.to_toml();
            assert_eq!(text.contains("tau_mem = 4.0"), name != "spsn-shd-nonspiking", "{text}");
            assert!(!text.contains("tau_mem = 20.0") && text.contains("dt_ms = 5.0") && text.contains("steps = 280"));
            let found = differences(&published, &e);
            assert_eq!((found.len(), &*found[0].here), (1, "5 ms"));
        }
    }
}
