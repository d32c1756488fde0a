//! Figure 4 of the block paper: accuracy, speed, activity, and training from silence.
//!
//! Panels: a, the accuracy that the block model loses against the multi-spike neuron; b, how much longer an epoch of
//! the sequential single-spike neuron takes; c, the spikes that the block model saves against the multi-spike neuron;
//! d, loss and activity of models that start without any hidden spike.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use snn_core::backend::Memory;
use snn_cpu::Cpu;
use snn_data::OpenOptions;
use snn_train::config::ScheduleConfig;
use snn_train::presets::{self, Published};
use snn_train::trainer::{BatchProgress, EpochRecord, Observer, RunOptions};
use snn_train::{Experiment, Summary};

use super::{command, publish};
use crate::args::Reproduce;
use crate::console;
use crate::report::machine::duration;
use crate::report::{
    Axis, Bars, Comparison, ComparisonRow, DataLabel, Deviation, Figure, Jobs, Lines, Measured, Panel, Profile, Record,
    Report, Series,
};
use crate::usage;

/// A task of the figure.
struct Task {
    /// Name on the axes.
    title: &'static str,
    /// The published data set and the prefix of its presets.
    set: &'static str,
    /// The generated set that stands in where the published one is not at hand; none for a generated task.
    stand_in: Option<&'static str>,
    /// Values read off the published figure: accuracy lost (%), speed-up, spikes saved (%).
    panels: [f64; 3],
    /// Whether panel d shows it.
    silent: bool,
    smoke: Size,
    quick: Size,
}

/// How much of a task a shortened profile runs.
#[derive(Clone, Copy)]
struct Size {
    epochs: u32,
    train: usize,
    test: usize,
    silent_epochs: u32,
    learning_rate: f64,
}

const fn size(epochs: u32, train: usize, test: usize, silent_epochs: u32, learning_rate: f64) -> Size {
    Size { epochs, train, test, silent_epochs, learning_rate }
}

const TASKS: [Task; 5] = [
    Task {
        title: "Yin-Yang",
        set: "yinyang",
        stand_in: None,
        panels: [0.27, 13.98, 44.0],
        silent: true,
        smoke: size(12, 0, 0, 12, 1e-3),
        quick: size(60, 0, 0, 40, 1e-3),
    },
    Task {
        title: "MNIST",
        set: "mnist",
        stand_in: Some("digits-sim"),
        panels: [0.29, 4.6, 50.0],
        silent: true,
        smoke: size(4, 8000, 2000, 4, 1e-3),
        quick: size(10, 0, 0, 10, 1e-3),
    },
    Task {
        title: "F-MNIST",
        set: "fashion-mnist",
        stand_in: None,
        panels: [2.0, 4.3, 53.0],
        silent: false,
        smoke: size(4, 8000, 2000, 4, 1e-3),
        quick: size(10, 0, 0, 10, 1e-3),
    },
    Task {
        title: "N-MNIST",
        set: "nmnist",
        stand_in: Some("nmnist-sim"),
        panels: [1.7, 4.6, 81.0],
        silent: false,
        smoke: size(6, 1000, 200, 4, 1e-3),
        quick: size(20, 0, 0, 10, 5e-4),
    },
    Task {
        title: "SHD",
        set: "shd",
        stand_in: Some("spoken-digits"),
        panels: [0.7, 4.4, 72.0],
        silent: true,
        smoke: size(6, 2000, 500, 6, 1e-3),
        quick: size(30, 0, 0, 20, 5e-4),
    },
];

/// The methods by the suffix of their preset.
const METHODS: [(&str, &str); 3] = [("", "block"), ("-multi", "multi-spike"), ("-single", "single-spike")];

/// What a job came to.
#[derive(Clone, Serialize, Deserialize)]
struct Outcome {
    accuracy: f64,
    spikes: f64,
    epoch_seconds: f64,
    losses: Vec<f64>,
    epoch_spikes: Vec<f64>,
    /// Hidden spikes per sample in the first batch of all.
    first_spikes: f64,
}

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    experiment: &'a Experiment,
    data: String,
    device: String,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let device = args.place.processor()?;
    let data = args.place.open_options();
    let directory = args.out.join("figure4");
    let jobs = Jobs::open(&directory, args.profile)?;
    let mut study = Study { args, quiet, device, data, jobs, results: BTreeMap::new(), labels: Vec::new() };
    let tasks = study.tasks()?;
    if args.profile == Profile::Paper {
        study.announce(&tasks)?;
    }
    for (task, set) in &tasks {
        for (suffix, method) in METHODS {
            for seed in study.seeds() {
                let experiment = study.experiment(task, set, suffix, seed)?;
                study.job(task, method, seed, experiment)?;
            }
        }
        if task.silent {
            let experiment = study.experiment(task, set, "-silent", 1)?;
            study.job(task, "silent", 1, experiment)?;
        }
    }
    publish(&study.report(&tasks)?, &directory)
}

/// The runs of a task and method: seed, what was run, what it came to.
type Runs = Vec<(u64, Experiment, Outcome)>;

/// A run of the target: what is asked for, and what was found so far.
struct Study<'a> {
    args: &'a Reproduce,
    quiet: bool,
    device: Cpu,
    data: OpenOptions,
    jobs: Jobs,
    results: BTreeMap<(String, String), Runs>,
    labels: Vec<DataLabel>,
}

impl Study<'_> {
    fn seeds(&self) -> Vec<u64> {
        if self.args.profile == Profile::Paper { vec![1, 2, 3] } else { vec![1] }
    }

    /// The tasks that can run, with the data set that each will use.
    fn tasks(&mut self) -> Result<Vec<(&'static Task, String)>> {
        let wanted = &self.args.sets;
        if let Some(unknown) = wanted.iter().find(|w| TASKS.iter().all(|t| t.set != **w)) {
            let names: Vec<&str> = TASKS.iter().map(|t| t.set).collect();
            let hint = snn_train::config::nearest(unknown, names.iter().copied());
            return Err(usage(format!("--sets {unknown}: is no task of figure 4; it has {}{hint}", names.join(", "))));
        }
        let mut chosen = Vec::new();
        for task in &TASKS {
            if !wanted.is_empty() && !wanted.iter().any(|w| w == task.set) {
                continue;
            }
            let generated = snn_data::synth::find(task.set).is_some();
            let here = generated
                || snn_data::info(task.set, &self.data.data_dir)?.iter().all(|s| s.converted.is_some() || s.downloaded);
            let set = match (here, task.stand_in) {
                (true, _) => task.set,
                (false, Some(stand_in)) => stand_in,
                (false, None) => {
                    self.say(format!("{}: {} is not here and has no stand-in; left out", task.title, task.set));
                    continue;
                }
            };
            let source = snn_data::open(set, "train", &self.data)?;
            let label = match source.label() {
                Some(label) if label.contains(set) => format!("{label} (not the published data set)"),
                Some(label) => format!("{set}: {label} (not the published data set)"),
                None => set.to_owned(),
            };
            let as_published = here && source.label().is_none();
            self.labels.push(DataLabel { task: task.title.into(), label, as_published });
            chosen.push((task, set.to_owned()));
        }
        Ok(chosen)
    }

    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            console::message(text);
        }
    }

    /// The preset of a task and method, shortened as the profile says.
    fn experiment(&self, task: &Task, set: &str, suffix: &str, seed: u64) -> Result<Experiment> {
        let mut e = presets::find(&format!("block-{}{suffix}", task.set))?.experiment;
        set.clone_into(&mut e.data.set);
        e.train.seed = seed;
        e.train.evaluate_every = 0;
        let size = match self.args.profile {
            Profile::Smoke => task.smoke,
            Profile::Quick => task.quick,
            Profile::Paper => return Ok(e),
        };
        e.data.augment.clear();
        (e.data.train_samples, e.data.test_samples) = (size.train, size.test);
        e.train.optimiser.learning_rate = size.learning_rate;
        if suffix == "-silent" {
            e.train.epochs = size.silent_epochs;
        } else {
            e.train.epochs = size.epochs;
            let milestone = (size.epochs * 3).div_ceil(4).max(1);
            e.train.schedule = ScheduleConfig::Milestones { epochs: vec![milestone], factor: 0.1, reload_best: false };
        }
        Ok(e)
    }

    /// Runs a job, or takes its stored result.
    fn job(&mut self, task: &Task, method: &str, seed: u64, experiment: Experiment) -> Result<()> {
        let data = self.labels.iter().find(|l| l.task == task.title).map_or(String::new(), |l| l.label.clone());
        // Accuracy and spikes do not depend on threads, but the seconds do.
        let job = Job { experiment: &experiment, data, device: self.device.describe() };
        let name = format!("{}, {method}, seed {seed}", task.title);
        if self.jobs.is_done(&job) {
            self.say(format!("{name}: done before"));
        } else {
            self.say(format!("{name}: {} epochs", experiment.train.epochs));
        }
        let (device, data, quiet) = (&self.device, &self.data, self.quiet);
        let outcome = self.jobs.run(&job, || {
            let mut watch = Watch::new(quiet, &name, experiment.train.epochs);
            let options = RunOptions { data: data.clone(), ..RunOptions::default() };
            let summary = snn_train::run(device, &experiment, &options, &mut watch)?;
            Ok(watch.outcome(&summary))
        })?;
        let key = (task.title.to_owned(), method.to_owned());
        self.results.entry(key).or_default().push((seed, experiment, outcome));
        Ok(())
    }

    /// Prints how long the full protocol will take, from a few batches of every job.
    fn announce(&self, tasks: &[(&'static Task, String)]) -> Result<()> {
        let mut total = 0.0;
        for (task, set) in tasks {
            let mut suffixes: Vec<(&str, usize)> = METHODS.iter().map(|(s, _)| (*s, self.seeds().len())).collect();
            if task.silent {
                suffixes.push(("-silent", 1));
            }
            for (suffix, runs) in suffixes {
                let mut e = self.experiment(task, set, suffix, 1)?;
                let samples = snn_data::open(&e.data.set, "train", &self.data)?.len();
                let epochs = f64::from(e.train.epochs);
                e.data.train_samples = (10 * e.train.batch).min(samples);
                e.data.test_samples = e.train.batch;
                e.train.epochs = 2;
                let options = RunOptions { data: self.data.clone(), ..RunOptions::default() };
                let pilot = snn_train::run(&self.device, &e, &options, &mut snn_train::trainer::Unobserved)?;
                total += pilot.epoch_seconds * samples as f64 / e.data.train_samples as f64 * epochs * runs as f64;
            }
        }
        self.say(format!("the full protocol will take about {} on this machine", duration(total)));
        Ok(())
    }

    /// A quantity of a task and method over seeds.
    fn measured(&self, task: &Task, method: &str, of: impl Fn(&Outcome) -> f64) -> Option<Measured> {
        let runs = self.results.get(&(task.title.to_owned(), method.to_owned()))?;
        let values: Vec<f64> = runs.iter().map(|(_, _, o)| of(o)).collect();
        Measured::of(&values)
    }

    /// What the three bar panels show of a task: accuracy lost (%), epoch time ratio, spikes saved (%).
    fn panels(&self, task: &Task) -> [Option<f64>; 3] {
        let mean = |method: &str, of: fn(&Outcome) -> f64| self.measured(task, method, of).map(|m| m.mean);
        let lost = |of: fn(&Outcome) -> f64| {
            let (block, multi) = (mean("block", of)?, mean("multi-spike", of)?);
            (multi > 0.0).then(|| 100.0 * (1.0 - block / multi))
        };
        let ratio = || Some(mean("single-spike", |o| o.epoch_seconds)? / mean("block", |o| o.epoch_seconds)?);
        [lost(|o| o.accuracy), ratio(), lost(|o| o.spikes)]
    }

    fn report(&self, tasks: &[(&'static Task, String)]) -> Result<Report> {
        let args = self.args;
        let mut report = Report::new(
            "figure4",
            "Block paper, figure 4: accuracy, speed, activity, training from silence",
            args.profile,
        );
        report.command = command(args);
        report.data.clone_from(&self.labels);
        report.seeds = self.seeds();
        report.notes = self.jobs.notes();
        report.seconds = self.jobs.counts().seconds;
        report.versions = vec![("device".into(), self.device.describe())];
        report.figures = vec![self.figure(tasks)];
        report.summary = self.summary(tasks);
        report.comparisons = vec![self.panel_comparison(tasks), self.table_comparison(tasks)?];
        report.deviations = self.deviations(tasks);
        for ((task, method), runs) in &self.results {
            for (seed, experiment, o) in runs {
                report.records.push(Record {
                    what: format!("{task}, {method}"),
                    configuration: serde_json::to_value(experiment)?,
                    seed: Some(*seed),
                    numbers: BTreeMap::from([
                        ("test_accuracy".to_owned(), o.accuracy),
                        ("spikes_per_sample".to_owned(), o.spikes),
                        ("epoch_seconds".to_owned(), o.epoch_seconds),
                    ]),
                    details: serde_json::json!({ "loss": o.losses, "spikes_per_epoch": o.epoch_spikes }),
                });
            }
        }
        Ok(report)
    }

    fn figure(&self, tasks: &[(&'static Task, String)]) -> Figure {
        let names = || tasks.iter().map(|(t, _)| t.title);
        let bars = |i: usize, reference: Option<(f64, &str)>| {
            let bars = Bars::new(names())
                .group("ours", tasks.iter().map(|(t, _)| self.panels(t)[i].map(|v| (v, None))))
                .published("published", tasks.iter().map(|(t, _)| Some((t.panels[i], None))));
            match reference {
                Some((value, label)) => bars.reference(value, label),
                None => bars,
            }
        };
        let mut curves = Lines::default();
        for (i, (task, _)) in tasks.iter().filter(|(t, _)| t.silent).enumerate() {
            let Some(runs) = self.results.get(&(task.title.to_owned(), "silent".to_owned())) else { continue };
            let Some((_, _, o)) = runs.first() else { continue };
            let over_time = |values: &[f64]| -> Vec<(f64, f64)> {
                let last = (values.len().max(2) - 1) as f64;
                values.iter().enumerate().map(|(k, &v)| (k as f64 / last, v)).collect()
            };
            let activity: Vec<f64> = std::iter::once(o.first_spikes).chain(o.epoch_spikes.iter().copied()).collect();
            let loss = Series::new(format!("{}: loss", task.title), over_time(&o.losses));
            curves.series.push(loss.normalised().colour(i));
            let spikes = Series::new(format!("{}: spikes", task.title), over_time(&activity));
            curves.series.push(spikes.normalised().colour(i).fade(0.55).line());
        }
        let data: Vec<String> = self.labels.iter().map(|l| format!("{}: {}", l.task, l.label)).collect();
        Figure::new("figure4", "The block model against sequential neurons", 2)
            .caption(format!(
                "Data: {}. Hollow bars are the published values, on the published data sets.",
                data.join("; ")
            ))
            .panel(Panel::new("accuracy lost against multi-spike", "", "1 - block / multi (%)", bars(0, None)))
            .panel(Panel::new("epoch time of single-spike over block", "", "ratio", bars(1, Some((1.0, "equal")))))
            .panel(Panel::new("spikes saved against multi-spike", "", "1 - block / multi (%)", bars(2, None)))
            .panel(Panel::new(
                "training from silence",
                "training time (share of the run)",
                Axis::linear("share of the maximum").limits(0.0, 1.0),
                curves,
            ))
    }

    fn summary(&self, tasks: &[(&'static Task, String)]) -> Vec<String> {
        let mut lines = Vec::new();
        for (task, _) in tasks {
            let mean =
                |method: &str, of: fn(&Outcome) -> f64| self.measured(task, method, of).map_or(f64::NAN, |m| m.mean);
            let accuracy = |method: &str| 100.0 * mean(method, |o| o.accuracy);
            let data = self.labels.iter().find(|l| l.task == task.title).map_or("", |l| &l.label);
            lines.push(format!(
                "{} on {data}: test accuracy {:.2} % (block), {:.2} % (multi-spike), {:.2} % (single-spike); hidden spikes \
                 per sample {:.0}, {:.0}, {:.0}; seconds per epoch {:.2}, {:.2}, {:.2}.",
                task.title,
                accuracy("block"),
                accuracy("multi-spike"),
                accuracy("single-spike"),
                mean("block", |o| o.spikes),
                mean("multi-spike", |o| o.spikes),
                mean("single-spike", |o| o.spikes),
                mean("block", |o| o.epoch_seconds),
                mean("multi-spike", |o| o.epoch_seconds),
                mean("single-spike", |o| o.epoch_seconds),
            ));
        }
        lines.push(
            "Both neurons of panel b are ours and fused into one pass over time: the sequential neuron is no longer the \
             step-by-step loop that the paper timed, so a ratio near 1 means that the baseline has become fast. Figure 3 \
             times the published algorithms as well."
                .into(),
        );
        for (task, _) in tasks.iter().filter(|(t, _)| t.silent) {
            if let Some((_, e, o)) =
                self.results.get(&(task.title.to_owned(), "silent".to_owned())).and_then(|runs| runs.first())
            {
                lines.push(format!(
                    "{} from silence: {:.1} hidden spikes per sample in the first batch, {:.1} in the last of {} epochs; \
                     test accuracy {:.1} %.",
                    task.title,
                    o.first_spikes,
                    o.epoch_spikes.last().copied().unwrap_or(0.0),
                    e.train.epochs,
                    100.0 * o.accuracy
                ));
            }
        }
        lines
    }

    fn panel_comparison(&self, tasks: &[(&'static Task, String)]) -> Comparison {
        let mut table = Comparison::new("panels", "What the bars of panels a to c show");
        for (task, _) in tasks {
            let quantities = [
                ("a: accuracy lost", "%", 2),
                ("b: epoch time, single over block", "x", 2),
                ("c: spikes saved", "%", 0),
            ];
            for (i, (quantity, unit, decimals)) in quantities.into_iter().enumerate() {
                let row = ComparisonRow::new(task.title, quantity, unit)
                    .published(Measured::value(task.panels[i]))
                    .ours_if(self.panels(task)[i].map(Measured::value))
                    .decimals(decimals);
                table.row(self.labelled(task, row));
            }
        }
        table.note("Published: read off the figure; they come from another set of runs than the table below.");
        table
    }

    fn table_comparison(&self, tasks: &[(&'static Task, String)]) -> Result<Comparison> {
        let mut table = Comparison::new("table", "Accuracy, activity and epoch time of every method");
        for (task, _) in tasks {
            for (suffix, method) in METHODS {
                let published = presets::find(&format!("block-{}{suffix}", task.set))?.published.unwrap_or_default();
                let Published { accuracy, accuracy_sd, spikes, spikes_sd, epoch_seconds } = published;
                let what = format!("{}, {method}", task.title);
                let with =
                    |mean: f64, sd: Option<f64>| sd.map_or(Measured::value(mean), |sd| Measured::with_sd(mean, sd));
                let row = ComparisonRow::new(&what, "test accuracy", "%")
                    .published(with(accuracy, accuracy_sd))
                    .ours_if(self.measured(task, method, |o| 100.0 * o.accuracy));
                table.row(self.labelled(task, row));
                let mut row = ComparisonRow::new(&what, "spikes per sample", "").decimals(1);
                row.published = spikes.map(|s| with(s, spikes_sd));
                table.row(self.labelled(task, row.ours_if(self.measured(task, method, |o| o.spikes))));
                let mut row = ComparisonRow::new(&what, "epoch", "s").note("published on one NVIDIA A100");
                row.published = epoch_seconds.map(Measured::value);
                table.row(self.labelled(task, row.ours_if(self.measured(task, method, |o| o.epoch_seconds)).ratio()));
            }
        }
        Ok(table)
    }

    /// A row whose numbers are not compared where they rest on other data or on part of it.
    fn labelled(&self, task: &Task, row: ComparisonRow) -> ComparisonRow {
        let shortened = self.args.profile == Profile::Smoke;
        match self.labels.iter().find(|l| l.task == task.title) {
            Some(label) if !label.as_published => row.other_data(&label.label),
            Some(label) if shortened => row.other_data(format!("{}, shortened run", label.label)),
            _ => row,
        }
    }

    fn deviations(&self, tasks: &[(&'static Task, String)]) -> Vec<Deviation> {
        let mut list = vec![Deviation::new("hardware", "one NVIDIA A100", self.device.describe())];
        for (task, set) in tasks {
            let (Ok(full), Ok(here)) =
                (presets::find(&format!("block-{}", task.set)), self.experiment(task, set, "", 1))
            else {
                continue;
            };
            let full = full.experiment;
            let mut differ = |what: &str, published: String, here: String| {
                if published != here {
                    list.push(Deviation::new(format!("{}: {what}", task.title), published, here));
                }
            };
            differ("data", full.data.set.clone(), set.clone());
            differ("epochs", full.train.epochs.to_string(), here.train.epochs.to_string());
            let samples = |n: usize| if n == 0 { "all".to_owned() } else { format!("{n}") };
            differ("training samples", samples(full.data.train_samples), samples(here.data.train_samples));
            let rate = |e: &Experiment| format!("{:.0e}", e.train.optimiser.learning_rate);
            differ("learning rate", rate(&full), rate(&here));
            let augment = |e: &Experiment| if e.data.augment.is_empty() { "none" } else { "as published" }.to_owned();
            differ("augmentation", augment(&full), augment(&here));
            let schedule = |e: &Experiment| match &e.train.schedule {
                ScheduleConfig::Milestones { epochs, reload_best, .. } => {
                    format!("rate / 10 after {epochs:?}{}", if *reload_best { ", best weights reloaded" } else { "" })
                }
                other => format!("{other:?}"),
            };
            differ("schedule", schedule(&full), schedule(&here));
        }
        if self.seeds().len() < 3 {
            list.push(Deviation::new("runs", "3 or more per method", format!("{}", self.seeds().len())));
        }
        for task in TASKS.iter().filter(|t| !tasks.iter().any(|(chosen, _)| chosen.title == t.title)) {
            list.push(
                Deviation::new(task.title, "shown", "left out").why("its data set is not here or was not asked for"),
            );
        }
        list
    }
}

/// Shows progress and keeps what panel d draws.
struct Watch {
    bar: indicatif::ProgressBar,
    first_spikes: Option<f64>,
}

impl Watch {
    fn new(quiet: bool, name: &str, epochs: u32) -> Self {
        let bar = console::bar(quiet, u64::from(epochs), "{prefix} [{bar:30}] {pos}/{len} epochs {msg} {eta:>4}");
        bar.set_prefix(name.to_owned());
        Self { bar, first_spikes: None }
    }

    fn outcome(self, s: &Summary) -> Outcome {
        self.bar.finish_and_clear();
        Outcome {
            accuracy: s.test_accuracy,
            spikes: s.spikes_per_sample,
            epoch_seconds: s.epoch_seconds,
            losses: s.history.iter().map(|r| r.loss).collect(),
            epoch_spikes: s.history.iter().map(|r| r.spikes_per_sample).collect(),
            first_spikes: self.first_spikes.unwrap_or(0.0),
        }
    }
}

impl Observer for Watch {
    fn batch(&mut self, p: &BatchProgress) {
        self.first_spikes.get_or_insert(p.spikes_per_sample);
        self.bar.set_message(format!("loss {:.3} accuracy {:.1} %", p.loss, 100.0 * p.accuracy));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.bar.set_position(u64::from(record.epoch));
    }
}
