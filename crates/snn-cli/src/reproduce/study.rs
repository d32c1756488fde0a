//! What the targets on images share: the data, training runs that continue where they stopped, courses over epochs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snn_core::backend::Memory as _;
use snn_cpu::Cpu;
use snn_data::OpenOptions;
use snn_train::config::{Keep, LossConfig};
use snn_train::monitor::{MonitorRecord, Phase};
use snn_train::trainer::{EpochRecord, RunOptions};
use snn_train::{Experiment, Summary};

use super::digits::{Watch, differences, estimate};
use crate::args::Reproduce;
use crate::console;
use crate::report::figure::Point;
use crate::report::jobs::stable_hash;
use crate::report::machine::duration;
use crate::report::{Cell, ComparisonRow, DataLabel, Deviation, Jobs, Measured, Profile, Series};
use crate::usage;

/// A published data set by its name here and in print, and the generated one that stands in for it.
pub(super) struct Sets {
    pub(super) task: &'static str,
    pub(super) published: &'static str,
    pub(super) stand_in: &'static str,
}

impl Sets {
    /// The set that runs, with its label: the one asked for, else the published one where it is at hand.
    pub(super) fn choose(
        &self,
        target: &str,
        args: &Reproduce,
        options: &OpenOptions,
    ) -> Result<(&'static str, DataLabel)> {
        let set = match &asked(target, &[self.published, self.stand_in], args)?[..] {
            [] if is_here(self.published, options)? => self.published,
            [] => self.stand_in,
            [set] => set,
            _ => return Err(usage(format!("--sets: {target} runs on one of {}, {}", self.published, self.stand_in))),
        };
        Ok((set, label(self.task, self.published, set, options)?))
    }
}

/// The sets that `--sets` names, which must be among those that a target runs on.
pub(super) fn asked(target: &str, known: &[&'static str], args: &Reproduce) -> Result<Vec<&'static str>> {
    let one = |name: &String| match known.iter().find(|set| *set == name) {
        Some(set) => Ok(*set),
        None => {
            let hint = snn_train::config::nearest(name, known.iter().copied());
            Err(usage(format!("--sets {name}: {target} runs on {}{hint}", known.join(" or "))))
        }
    };
    args.sets.iter().map(one).collect()
}

/// Whether all splits of a set are at hand.
pub(super) fn is_here(set: &str, options: &OpenOptions) -> Result<bool> {
    let splits = snn_data::info(set, &options.data_dir)?;
    Ok(splits.iter().all(|s| s.converted.is_some() || s.downloaded))
}

/// What to call the data where `set` runs for the published one.
pub(super) fn label(task: &str, published: &str, set: &str, options: &OpenOptions) -> Result<DataLabel> {
    let source = snn_data::open(set, "train", options)?;
    let label = match source.label() {
        Some(label) if label.contains(set) => format!("{label} (not the published data set)"),
        Some(label) => format!("{set}: {label} (not the published data set)"),
        None => set.to_owned(),
    };
    let as_published = set == published && source.label().is_none();
    Ok(DataLabel { task: task.into(), label, as_published })
}

/// How much of an experiment a shortened profile runs; 0 samples are all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    pub(super) train: usize,
    pub(super) test: usize,
    pub(super) epochs: u32,
}

impl Size {
    pub(super) const fn new(train: usize, test: usize, epochs: u32) -> Self {
        Self { train, test, epochs }
    }
}

/// What a trained network came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trained {
    pub(super) summary: Summary,
    /// The monitors of every test, where the experiment has monitors.
    pub(super) tests: Vec<MonitorRecord>,
}

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    experiment: &'a Experiment,
    data: &'a str,
    device: String,
}

/// What a target runs on.
pub(super) struct Study {
    pub(super) device: Cpu,
    pub(super) set: &'static str,
    pub(super) label: DataLabel,
    pub(super) jobs: Jobs,
    pub(super) directory: PathBuf,
    pub(super) profile: Profile,
    pub(super) data: OpenOptions,
    pub(super) target: &'static str,
    quiet: bool,
}

impl Study {
    pub(super) fn open(target: &'static str, sets: &Sets, args: &Reproduce, quiet: bool) -> Result<Self> {
        let (set, label) = sets.choose(target, args, &args.place.open_options())?;
        Self::on(target, set, label, args, quiet)
    }

    /// A study on a set that was chosen before.
    pub(super) fn on(
        target: &'static str,
        set: &'static str,
        label: DataLabel,
        args: &Reproduce,
        quiet: bool,
    ) -> Result<Self> {
        let directory = args.out.join(target);
        Ok(Self {
            device: args.place.processor()?,
            jobs: Jobs::open(&directory, args.profile)?,
            profile: args.profile,
            set,
            label,
            directory,
            data: args.place.open_options(),
            target,
            quiet,
        })
    }

    /// An experiment on this data with a seed and of that size; without a size as it stands.
    ///
    /// It is tested after every epoch, and the weights of the best test are kept, as the original does.
    pub(super) fn shorten(&self, mut e: Experiment, size: Option<Size>, seed: u64) -> Result<Experiment> {
        self.set.clone_into(&mut e.data.set);
        e.train.seed = seed;
        e.train.evaluate_every = 1;
        e.train.keep = Keep::BestTestAccuracy;
        if let Some(size) = size {
            // A set may be smaller than what is asked for: then it is all of it.
            let part = |split: &str, samples: usize| {
                let all = snn_data::open(self.set, split, &self.data)?.len();
                anyhow::Ok(if samples < all { samples } else { 0 })
            };
            e.data.train_samples = part(&e.data.train, size.train)?;
            e.data.test_samples = part(&e.data.test, size.test)?;
            e.train.epochs = size.epochs;
        }
        Ok(e)
    }

    pub(super) fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            console::message(text);
        }
    }

    /// The directory of a run: readable, and different for anything that its numbers depend on.
    pub(super) fn run_directory(&self, experiment: &Experiment) -> PathBuf {
        let hash = stable_hash(format!("{}\n{}", experiment.to_toml(), self.label.label).as_bytes());
        let name = format!("{}-seed-{}-{:08x}", experiment.name, experiment.train.seed, hash as u32);
        self.directory.join("runs").join(self.profile.name()).join(name)
    }

    /// Trains, or takes the stored result; a run that was interrupted goes on from its last checkpoint.
    ///
    /// Where `keep` says so, log, snapshots and weights stay in the run's directory.
    pub(super) fn run(&self, name: &str, experiment: &Experiment, keep: bool) -> Result<Trained> {
        let job = Job { target: self.target, experiment, data: &self.label.label, device: self.device.describe() };
        let done = self.jobs.is_done(&job);
        let how = if done { "done before".into() } else { format!("{} epochs", experiment.train.epochs) };
        self.say(format!("{name}: {how}"));
        self.jobs.run(&job, || {
            let out = self.run_directory(experiment);
            let summary = self.train(name, experiment, &out, None)?;
            let tests = tests(&out.join("log.jsonl"))?;
            // Without a checkpoint the directory holds a result that no other run takes for its beginning.
            let spent = if keep { out.join("checkpoints") } else { out };
            std::fs::remove_dir_all(&spent).with_context(|| spent.display().to_string())?;
            if !keep {
                // Both stay if another run is in them.
                let profile = spent.parent().unwrap_or(&spent);
                let _ = std::fs::remove_dir(profile).and_then(|()| std::fs::remove_dir(self.directory.join("runs")));
            }
            Ok(Trained { summary, tests })
        })
    }

    /// Trains in a directory, from the last checkpoint that lies there, else with weights of a file or of the seed.
    pub(super) fn train(
        &self,
        name: &str,
        experiment: &Experiment,
        out: &Path,
        weights: Option<PathBuf>,
    ) -> Result<Summary> {
        let out = Some(out.to_owned());
        let options = RunOptions { data: self.data.clone(), out, weights, resume: true, ..RunOptions::default() };
        let mut watch = Watch::new(self.quiet, name, experiment.train.epochs);
        let summary = snn_train::run(&self.device, experiment, &options, &mut watch)?;
        watch.finish();
        Ok(summary)
    }

    /// Prints how long all of these will take, from a few batches of each.
    pub(super) fn announce<'e>(&self, experiments: impl IntoIterator<Item = &'e Experiment>) -> Result<()> {
        if self.profile != Profile::Paper || self.quiet {
            return Ok(());
        }
        let total = estimate(&self.device, &self.data, self.set, 20, experiments)?;
        self.say(format!("the full protocol will take about {} on this machine", duration(total)));
        Ok(())
    }

    /// A row whose numbers are not compared where they rest on other data or on part of the protocol.
    pub(super) fn labelled(&self, row: ComparisonRow) -> ComparisonRow {
        match (self.label.as_published, self.profile) {
            (false, _) => row.other_data(&self.label.label),
            (true, Profile::Paper) => row,
            _ => row.other_data(format!("{}, shortened run", self.label.label)),
        }
    }

    /// What differs between published experiments and those that ran: data, protocol, guards, machine. What all of them
    /// share is said once.
    pub(super) fn deviations(&self, pairs: &[(&str, Experiment, &Experiment)]) -> Vec<Deviation> {
        let mut found: Vec<(Vec<&str>, Deviation)> = Vec::new();
        for (name, published, here) in pairs {
            for deviation in differences(published, here) {
                match found.iter_mut().find(|(_, known)| *known == deviation) {
                    Some((of, _)) => of.push(name),
                    None => found.push((vec![name], deviation)),
                }
            }
        }
        let mut list: Vec<Deviation> = Vec::new();
        if let (false, Some((_, published, _))) = (self.label.as_published, pairs.first()) {
            list.push(Deviation::new("data", &published.data.set, &self.label.label));
        }
        list.extend(found.into_iter().filter(|(_, deviation)| deviation.what != "data").map(|(of, mut deviation)| {
            if of.len() < pairs.len() {
                deviation.what = format!("{} ({})", deviation.what, of.join("; "));
            }
            deviation
        }));
        list.push(
            Deviation::new("updates with gradients that are not finite", "applied", "left out")
                .why("they turn weights into NaN"),
        );
        let smoothing = |e: &Experiment| match e.train.loss {
            LossConfig::CrossEntropy { label_smoothing } => label_smoothing,
            _ => 0.0,
        };
        if let Some((_, _, here)) = pairs.iter().find(|(_, _, here)| smoothing(here) > 0.0) {
            let share = format!("{} of each label for all classes", smoothing(here));
            let why = "without it classes fall silent late in training, and silence has no gradient";
            list.push(Deviation::new("smoothing of labels, first spikes", "none", share).why(why));
        }
        let collapse = pairs.first().map_or(0.0, |(_, _, here)| here.train.collapse);
        if collapse > 0.0 {
            let share = 100.0 * collapse;
            let rule = format!("the run ends when training accuracy falls below {share:.0} % of its best");
            list.push(Deviation::new("collapsed training", "goes on", rule).why("it does not come back"));
        }
        list.push(Deviation::new("hardware", "a GPU, not named", self.device.describe()).why("times do not compare"));
        list
    }
}

/// The monitors of all tests in a run's log.
fn tests(log: &Path) -> Result<Vec<MonitorRecord>> {
    let text = std::fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let records = lines.filter(|line| line["event"] == "monitor").map(|line| MonitorRecord::deserialize(&line));
    let records: Vec<MonitorRecord> = records.collect::<Result<_, _>>().with_context(|| log.display().to_string())?;
    Ok(records.into_iter().filter(|record| record.split == Phase::Test).collect())
}

/// Test accuracy of an epoch in percent, by the network's own reading or by the one of that name.
pub(super) fn accuracy(record: &EpochRecord, reading: Option<&str>) -> Option<f64> {
    let share = match reading {
        None => record.test_accuracy,
        Some(name) => record.test_readings.iter().find(|(known, _)| known == name).map(|(_, share)| *share),
    };
    share.map(|share| 100.0 * share)
}

/// The accuracy of every tested epoch: `(epoch, percent)`.
pub(super) fn accuracies(run: &Trained, reading: Option<&str>) -> Vec<(f64, f64)> {
    let point = |r: &EpochRecord| Some((f64::from(r.epoch), accuracy(r, reading)?));
    run.summary.history.iter().filter_map(point).collect()
}

/// A monitor's course over the tests.
pub(super) fn monitored(run: &Trained, name: &str) -> Vec<(f64, f64)> {
    run.tests.iter().filter_map(|record| Some((record.epoch, record.get(name)?))).collect()
}

/// The point of the largest value, the earliest if tied.
pub(super) fn best(course: &[(f64, f64)]) -> Option<(f64, f64)> {
    course.iter().copied().reduce(|top, point| if point.1 > top.1 { point } else { top })
}

/// Mean and sample standard deviation of courses at each epoch, over the runs that got there.
pub(super) fn mean_course(courses: &[Vec<(f64, f64)>]) -> Vec<Point> {
    let mut epochs: Vec<f64> = courses.iter().flatten().map(|point| point.0).collect();
    epochs.sort_by(f64::total_cmp);
    epochs.dedup();
    let at = |epoch: f64| {
        let values: Vec<f64> = courses.iter().flatten().filter(|point| point.0 == epoch).map(|point| point.1).collect();
        let m = Measured::of(&values)?;
        Some(Point { x: epoch, y: m.mean, low: m.sd.map(|sd| m.mean - sd), high: m.sd.map(|sd| m.mean + sd) })
    };
    epochs.into_iter().filter_map(at).collect()
}

/// A line of the mean course, with a band where there are several runs.
pub(super) fn mean_series(name: &str, courses: &[Vec<(f64, f64)>]) -> Series {
    Series::new(name, mean_course(courses)).band()
}

/// A table's cell of a quantity over runs; of a single run without their number.
pub(super) fn cell(m: Option<Measured>, decimals: usize) -> Cell {
    match m {
        Some(Measured { mean, n: Some(1), .. }) => Cell::number(mean, decimals),
        Some(m) => Cell::number(m, decimals),
        None => Cell::missing(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses_of_unequal_length_are_averaged_where_they_are() {
        let points = mean_course(&[vec![(1.0, 90.0), (2.0, 96.0), (3.0, 98.0)], vec![(1.0, 94.0), (2.0, 92.0)]]);
        let got: Vec<(f64, f64, bool)> = points.iter().map(|p| (p.x, p.y, p.low.is_some())).collect();
        assert_eq!(got, [(1.0, 92.0, true), (2.0, 94.0, true), (3.0, 98.0, false)]);
        // Deviations of 2 on either side: sum of squares 8, divided by 2 - 1.
        assert!((points[0].high.unwrap() - 92.0 - 8_f64.sqrt()).abs() < 1e-12);
        assert_eq!(best(&[(1.0, 97.0), (2.0, 98.0), (3.0, 98.0)]), Some((2.0, 98.0)));
    }
}
