//! How well trained networks of ParaLIF hold out against noise: each bit of a test sample flips with a probability that
//! follows from the signal-to-noise ratio. Networks are trained without noise, or on request under that of the test.
//!
//! With the mean of a sample taken for its amplitude, a bit flips with probability `mean / 10^(snr / 20)`.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::Experiment;
use snn_train::presets;

use super::digits::{Digits, Noise, Trained, differences, flips, shortened};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Deviation, Figure, Lines, Measured, Panel, Profile, Record, Report, Series, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "paralif-robustness";

/// Noise of the test, as published.
const NOISE: [Noise; 6] = [None, Some(20.0), Some(15.0), Some(10.0), Some(5.0), Some(0.0)];

/// Where the test without noise stands on the axis of signal-to-noise ratios.
const CLEAN: f64 = 26.0;

/// Accuracy of guessing among 20 classes, per cent.
const CHANCE: f64 = 5.0;

/// What a profile runs.
struct Plan {
    /// Neurons by the suffix of their presets.
    neurons: Vec<&'static str>,
    seeds: Vec<u64>,
    /// Tests under each noise.
    repeats: u32,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self { neurons: vec!["lif", "t", "sb"], seeds: vec![0], repeats: 2 },
            Profile::Quick => Self { neurons: vec!["lif", "t", "d", "sd", "sb", "gs"], seeds: vec![0, 1], repeats: 3 },
            Profile::Paper => Self {
                neurons: vec!["lif", "gs", "sb", "trb", "d", "sd", "td", "trd", "t", "st", "tt", "trt"],
                seeds: vec![0],
                repeats: 5,
            },
        }
    }
}

fn name(suffix: &str) -> String {
    if suffix == "lif" { "LIF".into() } else { suffix.to_uppercase() }
}

fn show(noise: Noise) -> String {
    noise.map_or_else(|| "none".into(), |snr| format!("{snr} dB"))
}

/// The experiment of a neuron, shortened as the profile says.
fn experiment(suffix: &str, profile: Profile, set: &str, seed: u64, training_noise: Noise) -> Result<Experiment> {
    let preset = presets::find(&format!("paralif-robustness-{suffix}"))?;
    let mut e = shortened(preset.experiment, profile, set, seed);
    e.data.augment = flips(training_noise);
    Ok(e)
}

/// Accuracies in per cent by neuron, whether it was trained under the noise, and noise: one for every seed and repeat.
type Found = BTreeMap<(usize, bool, usize), Vec<f64>>;

/// One training: which neuron, seed, and noise in training (with its place in [`NOISE`]).
type Training = (usize, u64, Option<usize>, Experiment);

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let digits = Digits::open(TARGET, args, quiet)?;
    let plan = Plan::new(args.profile);
    // Training without noise serves all tests; training under noise serves the test under the same.
    let noisy = if args.train_noise { 1..NOISE.len() } else { 0..0 };
    let mut trainings: Vec<Training> = Vec::new();
    for (n, suffix) in plan.neurons.iter().enumerate() {
        for &seed in &plan.seeds {
            for at in std::iter::once(None).chain(noisy.clone().map(Some)) {
                let noise = at.and_then(|at| NOISE[at]);
                trainings.push((n, seed, at, experiment(suffix, args.profile, digits.set, seed, noise)?));
            }
        }
    }
    digits.announce(trainings.iter().map(|t| &t.3))?;
    let (mut found, mut records, mut silent) = (Found::new(), Vec::new(), Vec::new());
    for (n, seed, at, experiment) in &trainings {
        let title = name(plan.neurons[*n]);
        let under = at.map_or(String::new(), |at| format!(", trained at {}", show(NOISE[at])));
        let own = at.map(|at| [NOISE[at]]);
        let tests: &[Noise] = own.as_ref().map_or(&NOISE[..], |own| &own[..]);
        let trained = digits.run(&format!("{title}, seed {seed}{under}"), experiment, tests, plan.repeats)?;
        if trained.is_silent() {
            silent.push(format!("{title}, seed {seed}{under},"));
        }
        for (i, repeats) in trained.tests.iter().enumerate() {
            let accuracies = repeats.iter().map(|t| 100.0 * t.accuracy);
            found.entry((*n, at.is_some(), at.unwrap_or(i))).or_default().extend(accuracies);
        }
        records.push(record(&title, &under, *seed, experiment, tests, &trained)?);
    }
    let mut report = Report::new(TARGET, "ParaLIF: accuracy under noise on spoken digits", args.profile);
    report.command = command(args);
    report.data = vec![digits.label.clone()];
    report.seeds.clone_from(&plan.seeds);
    report.notes = digits.jobs.notes();
    report.seconds = digits.jobs.counts().seconds;
    report.versions = vec![("device".into(), digits.device.describe())];
    report.summary = summary(&plan, &found, &silent);
    report.deviations = deviations(args, &digits, &plan, trainings.first().map(|t| &t.3))?;
    report.tables = vec![table(&plan, &found)];
    report.figures = vec![figure(&digits, &plan, &found)];
    report.records = records;
    publish(&report, &args.out.join(TARGET))
}

fn record(
    title: &str,
    under: &str,
    seed: u64,
    experiment: &Experiment,
    tests: &[Noise],
    trained: &Trained,
) -> Result<Record> {
    let mean =
        |tests: &[super::digits::Tested]| tests.iter().map(|t| t.accuracy).sum::<f64>() / tests.len().max(1) as f64;
    let numbers = tests
        .iter()
        .zip(&trained.tests)
        .map(|(noise, tests)| (format!("accuracy, noise {}", show(*noise)), mean(tests)));
    Ok(Record {
        what: format!("{title}{under}"),
        configuration: serde_json::to_value(experiment)?,
        seed: Some(seed),
        numbers: numbers.collect(),
        details: serde_json::json!({ "loss": trained.losses, "tests": trained.tests }),
    })
}

fn at(found: &Found, neuron: usize, noisy: bool, noise: usize) -> Option<Measured> {
    Measured::of(found.get(&(neuron, noisy, noise))?)
}

fn summary(plan: &Plan, found: &Found, silent: &[String]) -> Vec<String> {
    let ranked = |noise: usize| {
        let mut list: Vec<(f64, &str)> =
            (0..plan.neurons.len()).filter_map(|n| Some((at(found, n, false, noise)?.mean, plan.neurons[n]))).collect();
        list.sort_by(|a, b| b.0.total_cmp(&a.0));
        list.into_iter().map(|(v, suffix)| format!("{} {v:.1} %", name(suffix))).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        format!("Without noise: {}.", ranked(0)),
        format!("Under noise of 10 dB: {}.", ranked(3)),
        format!("Under noise of 0 dB: {}.", ranked(NOISE.len() - 1)),
    ];
    // A network that has learned nothing has nothing to lose.
    let learned = (0..plan.neurons.len()).filter(|&n| at(found, n, false, 0).is_some_and(|m| m.mean > 2.0 * CHANCE));
    let losses = learned.filter_map(|n| {
        let lost = at(found, n, false, 0)?.mean - at(found, n, false, 3)?.mean;
        Some((lost, name(plan.neurons[n])))
    });
    if let Some((lost, steadiest)) = losses.min_by(|a, b| a.0.total_cmp(&b.0)) {
        lines.push(format!(
            "Of the networks at twice chance or more, {steadiest} loses least from no noise to 10 dB: {lost:.1} points."
        ));
    }
    lines.extend(
        silent.iter().map(|who| {
            format!("{who} is silent: hardly a spike reaches its last hidden layer, and it stays at chance.")
        }),
    );
    let gains: Vec<String> = (0..plan.neurons.len())
        .filter_map(|n| {
            let gain = at(found, n, true, 3)?.mean - at(found, n, false, 3)?.mean;
            Some(format!("{} by {gain:+.1} points", name(plan.neurons[n])))
        })
        .collect();
    if !gains.is_empty() {
        lines.push(format!("Training under noise of 10 dB changes the accuracy under it: {}.", gains.join(", ")));
    }
    lines
}

fn table(plan: &Plan, found: &Found) -> Table {
    let mut columns = vec![Column::words("neuron"), Column::words("training")];
    columns.extend(NOISE.map(|noise| Column::numbers(format!("noise {}", show(noise)), "%")));
    let mut table = Table::new("accuracy", "Test accuracy under noise", columns);
    for (n, suffix) in plan.neurons.iter().enumerate() {
        for noisy in [false, true] {
            let cells: Vec<Option<Measured>> = (0..NOISE.len()).map(|i| at(found, n, noisy, i)).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let head = [name(suffix), if noisy { "under the same noise" } else { "without noise" }.into()];
            let cells = cells.into_iter().map(|m| m.map_or_else(|| Cell::missing("-"), |m| Cell::number(m, 1)));
            table.row(head.map(Cell::text).into_iter().chain(cells));
        }
    }
    table.note(format!(
        "Mean and standard deviation over seeds and tests ({} under each noise); the tests of one network differ by their \
         noise and random spikes.",
        plan.repeats
    ));
    table
}

fn deviations(args: &Reproduce, digits: &Digits, plan: &Plan, here: Option<&Experiment>) -> Result<Vec<Deviation>> {
    let mut list = Vec::new();
    if let Some(here) = here {
        let published = presets::find(&format!("paralif-robustness-{}", plan.neurons[0]))?.experiment;
        list.extend(differences(&published, here));
    }
    if plan.repeats != 5 {
        list.push(Deviation::new("tests under each noise", "5", plan.repeats.to_string()));
    }
    if args.profile != Profile::Paper {
        let names: Vec<String> = plan.neurons.iter().map(|s| name(s)).collect();
        list.push(Deviation::new("neurons", "LIF and the modes of ParaLIF", names.join(", ")));
    }
    list.push(Deviation::new("numbers to compare with", "none stored in the repository", "not compared"));
    list.push(Deviation::new("hardware", "not named", digits.device.describe()));
    Ok(list)
}

fn figure(digits: &Digits, plan: &Plan, found: &Found) -> Figure {
    let panel = |noisy: bool, title: &str| {
        let series = plan.neurons.iter().enumerate().filter_map(|(n, suffix)| {
            let points: Vec<(f64, f64, f64)> = (0..NOISE.len())
                .filter_map(|i| {
                    let m = at(found, n, noisy, i)?;
                    Some((NOISE[i].map_or(CLEAN, f64::from), m.mean, m.sd.unwrap_or(0.0)))
                })
                .collect();
            (!points.is_empty()).then(|| Series::new(name(suffix), points).colour(n))
        });
        let series: Vec<Series> = series.collect();
        let ticks = NOISE.map(|noise| noise.map_or((CLEAN, "none".into()), |snr| (f64::from(snr), format!("{snr}"))));
        let x = Axis::linear("signal-to-noise ratio of the test (dB)").limits(-1.0, CLEAN + 1.0).names(ticks);
        let lines = Lines::new(series).reference(CHANCE, "chance");
        Panel::new(title, x, Axis::linear("test accuracy (%)").limits(0.0, 100.0), lines)
    };
    let noisy = found.keys().any(|key| key.1);
    let mut figure = Figure::new(TARGET, "Accuracy under noise", if noisy { 2 } else { 1 })
        .caption(format!(
            "Data: {}. Means and standard deviations over seeds and {} tests under each noise; \"none\" is the test without \
             noise.",
            digits.label.label, plan.repeats
        ))
        .panel(panel(false, "trained without noise"));
    if noisy {
        figure = figure.panel(panel(true, "trained under the noise of the test"));
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_neuron_of_every_profile_has_a_preset() {
        for profile in [Profile::Smoke, Profile::Quick, Profile::Paper] {
            for suffix in Plan::new(profile).neurons {
                for noise in NOISE {
                    experiment(suffix, profile, "spoken-digits", 1, noise).unwrap().check().unwrap();
                }
            }
        }
    }
}
