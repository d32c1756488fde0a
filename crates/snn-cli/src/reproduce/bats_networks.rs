//! The networks of BATS on images: accuracy, loss, spikes and silent neurons over the epochs.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::Experiment;
use snn_train::config::LossConfig;
use snn_train::presets::{self, Preset};

use super::study::{Sets, Size, Study, Trained, accuracies, best, cell, mean_series, monitored};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Comparison, ComparisonRow, Deviation, Figure, Lines, Measured, Panel, Profile, Record, Report,
    Stroke, Table,
};
use crate::usage;

/// A target: networks on one data set.
struct Target {
    name: &'static str,
    title: &'static str,
    sets: Sets,
    networks: &'static [Network],
}

/// A network of a target.
struct Network {
    preset: &'static str,
    /// In legends and tables.
    name: &'static str,
    smoke: Size,
    quick: Size,
    /// The runs of the follow-up that are of the same network.
    logged: Option<Logged>,
}

/// What the follow-up's logs say: the best test of each run.
struct Logged {
    accuracy: Measured,
    epochs: u32,
    /// Spikes of hidden and output neurons for a test image, of the weights that come with it.
    spikes: Option<[f64; 2]>,
}

/// The command's names of these targets, with what each shows.
pub(super) const TARGETS: [(&str, &str); 4] = [
    ("bats-mnist", "BATS: MNIST by spike counts and by first spikes, epoch by epoch"),
    ("bats-emnist", "BATS: EMNIST by spike counts, epoch by epoch"),
    ("bats-fashion", "BATS: Fashion-MNIST by spike counts, epoch by epoch"),
    ("bats-conv", "BATS: a convolutional network on MNIST, epoch by epoch"),
];

const fn sets(task: &'static str, published: &'static str) -> Sets {
    Sets { task, published, stand_in: "digits-sim" }
}

const ALL: [Target; 4] = [
    Target {
        name: TARGETS[0].0,
        title: "BATS: event-driven networks on MNIST",
        sets: sets("MNIST", "mnist"),
        networks: &[
            Network {
                preset: "bats-mnist",
                name: "counts",
                smoke: Size::new(6000, 2000, 3),
                quick: Size::new(0, 0, 10),
                logged: Some(Logged {
                    accuracy: Measured { mean: 98.85, sd: Some(0.06), n: Some(5) },
                    epochs: 30,
                    spikes: Some([494.388, 38.728]),
                }),
            },
            Network {
                preset: "bats-mnist-ttfs",
                name: "first spikes",
                smoke: Size::new(6000, 2000, 3),
                quick: Size::new(0, 0, 10),
                logged: Some(Logged {
                    accuracy: Measured { mean: 97.85, sd: None, n: Some(1) },
                    epochs: 30,
                    spikes: None,
                }),
            },
        ],
    },
    Target {
        name: TARGETS[1].0,
        title: "BATS: event-driven networks on EMNIST",
        sets: sets("EMNIST balanced", "emnist-balanced"),
        networks: &[Network {
            preset: "bats-emnist",
            name: "counts",
            smoke: Size::new(6000, 2000, 3),
            quick: Size::new(0, 0, 10),
            logged: None,
        }],
    },
    Target {
        name: TARGETS[2].0,
        title: "BATS: event-driven networks on Fashion-MNIST",
        sets: sets("Fashion-MNIST", "fashion-mnist"),
        networks: &[Network {
            preset: "bats-fashion",
            name: "counts",
            smoke: Size::new(4000, 1000, 3),
            quick: Size::new(20_000, 0, 10),
            logged: None,
        }],
    },
    Target {
        name: TARGETS[3].0,
        title: "BATS: a convolutional event-driven network on MNIST",
        sets: sets("MNIST", "mnist"),
        networks: &[Network {
            preset: "bats-mnist-conv",
            name: "counts",
            smoke: Size::new(1500, 500, 3),
            quick: Size::new(10_000, 2000, 10),
            logged: None,
        }],
    },
];

fn seeds(profile: Profile) -> Vec<u64> {
    if profile == Profile::Paper { (1..=5).collect() } else { vec![1] }
}

impl Network {
    fn preset(&self) -> Result<Preset> {
        Ok(presets::find(self.preset)?)
    }

    fn size(&self, profile: Profile) -> Option<Size> {
        match profile {
            Profile::Smoke => Some(self.smoke),
            Profile::Quick => Some(self.quick),
            Profile::Paper => None,
        }
    }
}

/// A network's runs: seed, what was run, what it came to.
type Runs = Vec<(u64, Experiment, Trained)>;

pub(crate) fn run(name: &str, args: &Reproduce, quiet: bool) -> Result<()> {
    let target = ALL.iter().find(|t| t.name == name).ok_or_else(|| usage(format!("no target `{name}`")))?;
    let study = Study::open(target.name, &target.sets, args, quiet)?;
    let size = |network: &Network| network.size(args.profile);
    let found = train(&study, target.networks, size, &seeds(args.profile))?;
    publish(&report(target, args, &study, &found)?, &study.directory)
}

fn train(
    study: &Study,
    networks: &[Network],
    size: impl Fn(&Network) -> Option<Size>,
    seeds: &[u64],
) -> Result<Vec<Runs>> {
    let mut planned: Vec<Vec<(u64, Experiment)>> = Vec::new();
    for network in networks {
        let experiment = network.preset()?.experiment;
        let of = |&seed| anyhow::Ok((seed, study.shorten(experiment.clone(), size(network), seed)?));
        planned.push(seeds.iter().map(of).collect::<Result<_>>()?);
    }
    study.announce(planned.iter().flatten().map(|(_, e)| e))?;
    let each = |(network, runs): (&Network, Vec<(u64, Experiment)>)| {
        let one = |(seed, e): (u64, Experiment)| {
            let trained = study.run(&format!("{}, {}, seed {seed}", study.label.task, network.name), &e, true)?;
            Ok((seed, e, trained))
        };
        runs.into_iter().map(one).collect()
    };
    networks.iter().zip(planned).map(each).collect()
}

/// A quantity over seeds.
fn measured(runs: &Runs, of: impl Fn(&Trained) -> Option<f64>) -> Option<Measured> {
    let values: Option<Vec<f64>> = runs.iter().map(|(_, _, t)| of(t)).collect();
    Measured::of(&values?)
}

/// The test accuracy of the best epoch.
fn best_accuracy(t: &Trained) -> Option<f64> {
    best(&accuracies(t, None)).map(|(_, accuracy)| accuracy)
}

/// The test accuracy of the last epoch.
fn last_accuracy(t: &Trained) -> Option<f64> {
    accuracies(t, None).last().map(|(_, accuracy)| *accuracy)
}

/// The test accuracy of the epoch with the best training accuracy: a choice that has not seen the test set.
fn chosen_accuracy(t: &Trained) -> Option<f64> {
    let training: Vec<(f64, f64)> =
        t.summary.history.iter().map(|r| (f64::from(r.epoch), 100.0 * r.accuracy)).collect();
    let (epoch, _) = best(&training)?;
    accuracies(t, None).into_iter().find(|(e, _)| *e == epoch).map(|(_, accuracy)| accuracy)
}

/// A monitor at the epoch with the best test.
fn at_best(t: &Trained, monitor: &str) -> Option<f64> {
    let (epoch, _) = best(&accuracies(t, None))?;
    monitored(t, monitor).into_iter().find(|(e, _)| *e == epoch).map(|(_, value)| value)
}

/// The spiking layers by the number of their monitors, with their names.
fn layers(t: &Trained) -> Vec<(usize, String)> {
    let Some(last) = t.tests.last() else { return Vec::new() };
    let count = (0..).take_while(|k| last.get(&format!("spikes/{k}")).is_some()).count();
    let name = |k: usize| match (k + 1 == count, count) {
        (true, _) => "output".into(),
        (false, 2) => "hidden".into(),
        (false, _) => format!("layer {}", k + 1),
    };
    (0..count).map(|k| (k, name(k))).collect()
}

fn show(m: Option<Measured>, decimals: usize) -> String {
    m.map_or_else(|| "-".into(), |m| Measured { n: None, ..m }.show(decimals))
}

fn report(target: &Target, args: &Reproduce, study: &Study, found: &[Runs]) -> Result<Report> {
    let mut report = Report::new(target.name, target.title, args.profile);
    report.command = command(args);
    report.data = vec![study.label.clone()];
    report.seeds = seeds(args.profile);
    report.notes = study.jobs.notes();
    report.notes.extend(plots(study, found));
    report.seconds = study.jobs.counts().seconds;
    report.versions = vec![("device".into(), study.device.describe())];
    report.summary = summary(target, study, found);
    report.comparisons = vec![comparison(target, study, found)];
    report.tables = vec![results(target, found)];
    for (network, runs) in target.networks.iter().zip(found) {
        report.tables.extend(runs.first().map(|(seed, _, t)| epochs(network, *seed, t)));
    }
    report.deviations = all_deviations(target, study, found)?;
    report.figures = vec![figure(target, study, found)];
    for (network, runs) in target.networks.iter().zip(found) {
        for (seed, experiment, t) in runs {
            let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
            report.records.push(Record {
                what: format!("{}, {}", target.sets.task, network.name),
                configuration: serde_json::to_value(experiment)?,
                seed: Some(*seed),
                numbers: BTreeMap::from([
                    ("best_test_accuracy".to_owned(), number(best_accuracy(t)) / 100.0),
                    ("last_test_accuracy".to_owned(), number(last_accuracy(t)) / 100.0),
                    ("chosen_test_accuracy".to_owned(), number(chosen_accuracy(t)) / 100.0),
                    ("hidden_spikes_per_image".to_owned(), t.summary.spikes_per_sample),
                    ("epoch_seconds".to_owned(), t.summary.epoch_seconds),
                ]),
                details: serde_json::json!({
                    "epochs": t.summary.history, "tests": t.tests, "collapsed": t.summary.collapsed,
                }),
            });
        }
    }
    Ok(report)
}

/// How to draw the runs that are still there.
fn plots(study: &Study, found: &[Runs]) -> Option<String> {
    let directories = found.iter().flatten().map(|(_, e, _)| study.run_directory(e)).filter(|d| d.is_dir());
    let directories: Vec<String> = directories.map(|d| d.display().to_string()).collect();
    (!directories.is_empty()).then(|| {
        format!(
            "The runs are kept: rasters and heat maps of every epoch, also animated, and all monitors as pictures and \
             arrays are made by: snn plot {}",
            directories.join(" ")
        )
    })
}

fn summary(target: &Target, study: &Study, found: &[Runs]) -> Vec<String> {
    let mut lines = Vec::new();
    for (network, runs) in target.networks.iter().zip(found) {
        let Some((_, e, first)) = runs.first() else { continue };
        let over = if runs.len() > 1 { format!(", mean of {} seeds", runs.len()) } else { String::new() };
        lines.push(format!(
            "{} by {}: test accuracy {} % after the best of {} epochs and {} % after the last{over}; the epoch with the best \
             training accuracy has {} %.",
            study.label.label,
            network.name,
            show(measured(runs, best_accuracy), 2),
            e.train.epochs,
            show(measured(runs, last_accuracy), 2),
            show(measured(runs, chosen_accuracy), 2),
        ));
        let spikes: Vec<String> = layers(first)
            .into_iter()
            .map(|(k, name)| {
                let spikes = measured(runs, |t| at_best(t, &format!("spikes/{k}")));
                let silent = measured(runs, |t| at_best(t, &format!("silent_neurons/{k}")));
                format!("{name}: {} ({} % of the neurons silent)", show(spikes, 1), show(silent, 1))
            })
            .collect();
        if !spikes.is_empty() {
            lines.push(format!("Spikes of a test image by {}: {}.", network.name, spikes.join(", ")));
        }
        for (seed, e, t) in runs {
            if let Some(epoch) = t.summary.collapsed {
                let planned = e.train.epochs;
                lines.push(format!(
                    "{}, seed {seed}: training collapsed in epoch {epoch} of {planned} and was ended there.",
                    network.name
                ));
            }
        }
    }
    lines
}

fn comparison(target: &Target, study: &Study, found: &[Runs]) -> Comparison {
    let mut table = Comparison::new("published", "Beside published numbers");
    for (network, runs) in target.networks.iter().zip(found) {
        let logged = network.logged.as_ref();
        let mut row = ComparisonRow::new(network.name, "test accuracy, best epoch", "%");
        row.published = logged.map(|l| l.accuracy);
        if let Some(l) = logged {
            row = row.note(format!("published: best of {} epochs", l.epochs));
        }
        table.row(study.labelled(row.ours_if(measured(runs, best_accuracy))));
        if let Some([hidden, output]) = logged.and_then(|l| l.spikes) {
            for (what, k, published) in [("hidden", 0, hidden), ("output", 1, output)] {
                let row = ComparisonRow::new(network.name, format!("{what} spikes per test image"), "")
                    .published(Measured::value(published))
                    .decimals(1)
                    .ratio()
                    .note("published: of the weights that come with the logs");
                table.row(study.labelled(row.ours_if(measured(runs, |t| at_best(t, &format!("spikes/{k}"))))));
            }
        }
    }
    table.note(match target.networks.iter().any(|n| n.logged.is_some()) {
        true => "Published: the logs of the follow-up, which trains the same networks for 30 epochs.",
        false => "The original publishes no log of this network.",
    });
    table
}

fn results(target: &Target, found: &[Runs]) -> Table {
    let numbers = [
        ("best test", "%"),
        ("last test", "%"),
        ("test where training was best", "%"),
        ("hidden spikes per image", ""),
        ("loss infinite, last epoch", "% of images"),
        ("updates left out", ""),
        ("seconds per epoch", "s"),
    ];
    let columns = std::iter::once(Column::words("network"));
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let mut table = Table::new("results", "What the runs came to", columns);
    for (network, runs) in target.networks.iter().zip(found) {
        let cell = |of: &dyn Fn(&Trained) -> Option<f64>, decimals| cell(measured(runs, of), decimals);
        let infinite = |t: &Trained| t.summary.history.last().map(|r| 100.0 * r.infinite_share);
        let skipped = |t: &Trained| Some(t.summary.history.iter().map(|r| r.skipped_updates as f64).sum());
        table.row([
            Cell::text(network.name),
            cell(&best_accuracy, 2),
            cell(&last_accuracy, 2),
            cell(&chosen_accuracy, 2),
            cell(&|t| Some(t.summary.spikes_per_sample), 1),
            cell(&infinite, 2),
            cell(&skipped, 0),
            cell(&|t| Some(t.summary.epoch_seconds), 1),
        ]);
    }
    table.note(
        "Hidden spikes: of the weights that were kept, those of the best test, as in the original. The best of many tests \
         flatters; the epoch with the best training accuracy is chosen without the test set. A loss is infinite where \
         the class of an image does not fire.",
    );
    table
}

/// The course of one run: every epoch of a short one, every tenth of a long one.
fn epochs(network: &Network, seed: u64, t: &Trained) -> Table {
    let numbers = [
        ("epoch", ""),
        ("loss", ""),
        ("training accuracy", "%"),
        ("test accuracy", "%"),
        ("hidden spikes", "per training image"),
        ("silent hidden neurons", "%"),
        ("silent labels", "% of test images"),
        ("time", "s"),
    ];
    let columns = numbers.map(|(title, unit)| Column::numbers(title, unit)).into();
    let title = format!("Epoch by epoch: {}, seed {seed}", network.name);
    let mut table = Table::new(format!("epochs-{}", network.preset), title, columns);
    let history = &t.summary.history;
    let every = if history.len() > 12 { 10 } else { 1 };
    for (i, r) in history.iter().enumerate() {
        if (i + 1) % every != 0 && i != 0 && i + 1 != history.len() {
            continue;
        }
        let record = t.tests.iter().find(|record| record.epoch == f64::from(r.epoch));
        let test = |name: &str| record.and_then(|record| record.get(name));
        let cell = |value: Option<f64>| cell(value.map(Measured::value), 2);
        // Of all hidden layers the one with the most silent neurons.
        let hidden = layers(t).len().saturating_sub(1);
        let silent = (0..hidden).filter_map(|k| test(&format!("silent_neurons/{k}"))).reduce(f64::max);
        table.row([
            Cell::number(f64::from(r.epoch), 0),
            Cell::number(r.loss, 4),
            Cell::number(100.0 * r.accuracy, 2),
            cell(r.test_accuracy.map(|a| 100.0 * a)),
            Cell::number(r.spikes_per_sample, 1),
            cell(silent),
            cell(test("silent_labels")),
            Cell::number(r.seconds, 1),
        ]);
    }
    table.note(
        "Silent: without a spike for any test image; where there are several hidden layers, in the one with the most. \
         Silent labels: test images whose own output neuron does not fire.",
    );
    table
}

fn all_deviations(target: &Target, study: &Study, found: &[Runs]) -> Result<Vec<Deviation>> {
    let mut pairs = Vec::new();
    for (network, runs) in target.networks.iter().zip(found) {
        if let Some((_, here, _)) = runs.first() {
            pairs.push((network.name, network.preset()?.experiment, here));
        }
    }
    Ok(study.deviations(&pairs))
}

/// What a loss is measured in.
fn loss_label(e: &Experiment) -> &'static str {
    match e.train.loss {
        LossConfig::Targets { .. } => "half the squared error",
        LossConfig::Mse => "squared error",
        LossConfig::CrossEntropy { .. } => "cross entropy",
    }
}

fn figure(target: &Target, study: &Study, found: &[Runs]) -> Figure {
    let several = target.networks.len() > 1;
    let networks = || target.networks.iter().zip(found).enumerate();
    let courses = |runs: &Runs, of: &dyn Fn(&Trained) -> Vec<(f64, f64)>| -> Vec<Vec<(f64, f64)>> {
        runs.iter().map(|(_, _, t)| of(t)).collect()
    };
    let mut accuracy = Lines::default();
    for (colour, (network, runs)) in networks() {
        let name = |phase: &str| if several { format!("{}, {phase}", network.name) } else { phase.to_owned() };
        let training = |t: &Trained| -> Vec<(f64, f64)> {
            t.summary.history.iter().map(|r| (f64::from(r.epoch), 100.0 * r.accuracy)).collect()
        };
        let test = mean_series(&name("test"), &courses(runs, &|t| accuracies(t, None)));
        accuracy.series.push(test.colour(colour));
        accuracy.series.push(mean_series(&name("training"), &courses(runs, &training)).line().colour(colour).fade(0.5));
    }
    let mut figure = Figure::new(target.name, target.title, if several { 3 } else { 2 })
        .caption(format!(
            "Data: {}. {} Silent neurons fire for no test image, silent labels are test images whose own output neuron \
             does not fire.",
            study.label.label,
            match found.iter().map(Vec::len).max() {
                Some(n) if n > 1 => format!("Means and standard deviations over {n} seeds."),
                _ => "One seed.".into(),
            }
        ))
        .panel(Panel::new("accuracy", "epoch", "%", accuracy));
    for (colour, (network, runs)) in networks() {
        let loss = |t: &Trained| -> Vec<(f64, f64)> {
            t.summary.history.iter().map(|r| (f64::from(r.epoch), r.loss)).collect()
        };
        let lines = Lines::new(vec![mean_series("", &courses(runs, &loss)).colour(colour)]);
        let title = if several { format!("training loss, {}", network.name) } else { "training loss".into() };
        let label = runs.first().map_or("loss", |(_, e, _)| loss_label(e));
        figure = figure.panel(Panel::new(title, "epoch", label, lines).without_legend());
    }
    let labels = |runs: &Runs, name: &str| mean_series(name, &courses(runs, &|t| monitored(t, "silent_labels")));
    for (monitor, title, label) in
        [("spikes", "spikes of a test image", "spikes"), ("silent_neurons", "silent neurons", "%")]
    {
        let mut lines = Lines::default();
        for (n, (network, runs)) in networks() {
            let Some((_, _, first)) = runs.first() else { continue };
            let all = layers(first);
            for (k, layer) in &all {
                let name = if several { format!("{}, {layer}", network.name) } else { layer.clone() };
                let of = |t: &Trained| monitored(t, &format!("{monitor}/{k}"));
                let series = mean_series(&name, &courses(runs, &of));
                // Among several networks the colour is the network's, and the output is dashed.
                let output = several && k + 1 == all.len();
                let series = series.colour(if several { n } else { *k });
                lines.series.push(if output { series.stroke(Stroke::Dashed) } else { series });
            }
            if monitor != "spikes" && !several {
                lines.series.push(labels(runs, "labels").colour(6).stroke(Stroke::Dashed));
            }
        }
        let y = if monitor == "spikes" { decades(label, &lines) } else { axis(label, &lines) };
        let title = if monitor != "spikes" && !several { "silent neurons and labels" } else { title };
        figure = figure.panel(Panel::new(title, "epoch", y, lines));
    }
    if several {
        let series = networks().map(|(colour, (network, runs))| labels(runs, network.name).colour(colour));
        let lines = Lines::new(series.collect());
        figure = figure.panel(Panel::new("silent labels", "epoch", axis("% of test images", &lines), lines));
    }
    figure
}

/// An axis that begins at 0 and ends above all values.
fn axis(label: &str, lines: &Lines) -> Axis {
    let tops = lines.series.iter().flat_map(|s| &s.points).map(|p| p.high.unwrap_or(p.y));
    let top = tops.filter(|v| v.is_finite()).fold(0.0, f64::max);
    Axis::linear(label).limits(0.0, if top > 0.0 { 1.08 * top } else { 1.0 })
}

/// A logarithmic axis of whole decades.
fn decades(label: &str, lines: &Lines) -> Axis {
    let values = || lines.series.iter().flat_map(|s| &s.points).map(|p| p.y).filter(|v| v.is_finite() && *v > 0.0);
    let (low, high) = values().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let axis = Axis::log10(label);
    if high == 0.0 {
        return axis;
    }
    let floor = low.log10().floor();
    axis.limits(10_f64.powf(floor), 10_f64.powf(high.log10().ceil().max(floor + 1.0)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::report::Kind;

    #[test]
    fn every_network_has_a_preset_on_its_set() {
        for target in &ALL {
            for network in target.networks {
                assert_eq!(network.preset().unwrap().experiment.data.set, target.sets.published, "{}", network.preset);
            }
            assert!(TARGETS.iter().any(|(name, _)| *name == target.name));
        }
    }

    #[test]
    fn logged_accuracies_are_those_of_the_presets() {
        for (network, same) in ALL[0].networks.iter().zip(["bats-count-count", "bats-ttfs-single"]) {
            let (here, logged) = (network.preset().unwrap().experiment, presets::find(same).unwrap());
            assert_eq!((&here.model, &here.data), (&logged.experiment.model, &logged.experiment.data));
            let accuracy = network.logged.as_ref().map(|l| l.accuracy.mean);
            assert_eq!(accuracy, logged.published.map(|p| p.accuracy));
        }
    }

    #[test]
    fn a_tiny_run_reports_every_epoch_and_stays_for_plots() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", "bats-mnist", "--threads", "1", "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let target = &ALL[0];
        let open = || Study::open(target.name, &target.sets, &args, true).unwrap();
        let study = open();
        assert_eq!((study.set, study.label.as_published), ("digits-sim", false));
        let size = |_: &Network| Some(Size::new(60, 40, 2));
        let found = train(&study, target.networks, size, &[1]).unwrap();
        let report = super::report(target, &args, &study, &found).unwrap();
        for (runs, layers) in found.iter().zip([2, 2]) {
            let (_, e, t) = &runs[0];
            assert_eq!((accuracies(t, None).len(), t.tests.len(), super::layers(t).len()), (2, 2, layers));
            assert!(accuracies(t, Some("count")).len() == 2 && at_best(t, "spikes/0").unwrap() > 0.0);
            let directory = study.run_directory(e);
            assert!(directory.join("log.jsonl").is_file() && directory.join("snapshots/epoch-0002.npz").is_file());
            assert!(!directory.join("checkpoints").exists());
        }
        assert!(report.notes.iter().any(|note| note.contains("snn plot")), "{:?}", report.notes);
        let panels: Vec<&str> = report.figures[0].panels.iter().map(|p| &*p.title).collect();
        assert_eq!(panels.len(), 6, "{panels:?}");
        let Kind::Lines(spikes) = &report.figures[0].panels[3].kind else { panic!("{panels:?}") };
        assert_eq!(spikes.series.len(), 4);
        assert!(report.comparisons[0].rows.iter().all(|row| row.compared().is_none()));
        assert_eq!(report.tables[1].rows.len(), 2);
        let again = open();
        train(&again, target.networks, size, &[1]).unwrap();
        assert_eq!((again.jobs.counts().run, again.jobs.counts().reused), (0, 2));
    }
}
