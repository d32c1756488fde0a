//! Single-spike networks trained from scratch on images, beside networks of rectifiers from the same seed: the paper says
//! that both take the same course.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::mapping::Agreement;
use snn_train::{Experiment, presets};

use super::study::{Size, Study, cell, mean_series};
use super::ttfs_chain::{
    Demand, LATENCY, Outcome, SPIKES, demands_summary, demands_table, deviations, differ, experiment, jobs, number,
    over, studies,
};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Figure, Lines, Marker, Measured, Panel, Profile, Record, Report, Series, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "ttfs-mnist";

/// The published sets that it runs on.
const SETS: [&str; 2] = ["mnist", "fashion-mnist"];

/// Test accuracy of the published program on MNIST after each epoch, per cent: one run, seed 1, made for this project.
const REFERENCE: [f64; 10] = [97.04, 97.39, 97.77, 97.93, 97.89, 98.05, 98.29, 98.31, 98.27, 98.27];

/// The network of spikes and its twin.
const KINDS: [(&str, &str); 2] = [("fc2", "spikes"), ("fc2-relu", "rectifiers")];

/// How far both may be apart at the end, in points of accuracy.
const APART: f64 = 0.15;
/// What the network of spikes must reach on MNIST, per cent.
const REACHED: f64 = 98.0;

fn size(profile: Profile) -> Option<Size> {
    match profile {
        Profile::Smoke => Some(Size::new(2000, 500, 3)),
        Profile::Quick => Some(Size::new(0, 0, 10)),
        Profile::Paper => None,
    }
}

fn seeds(profile: Profile) -> Vec<u64> {
    if profile == Profile::Paper { vec![1, 2, 3] } else { vec![1] }
}

/// Both networks from one seed.
struct Pair {
    seed: u64,
    experiments: [Experiment; 2],
    outcomes: [Outcome; 2],
    /// Of the outputs for the test set, after training.
    agreed: Agreement,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let studies = studies(TARGET, &SETS, args, quiet)?;
    let found = train(&studies, args.profile, size(args.profile))?;
    publish(&report(args, &studies, &found)?, &args.out.join(TARGET))
}

fn train(studies: &[Study], profile: Profile, size: Option<Size>) -> Result<Vec<Vec<Pair>>> {
    let mut planned = Vec::new();
    for study in studies {
        let mut pairs = Vec::new();
        for seed in seeds(profile) {
            pairs
                .push((seed, [experiment(study, KINDS[0].0, size, seed)?, experiment(study, KINDS[1].0, size, seed)?]));
        }
        study.announce(pairs.iter().flat_map(|(_, both)| both))?;
        planned.push(pairs);
    }
    let of_study = |(study, pairs): (&Study, Vec<(u64, [Experiment; 2])>)| {
        let one = |(seed, experiments): (u64, [Experiment; 2])| {
            let name = |kind: usize| format!("{}, {}, seed {seed}", study.set, KINDS[kind].1);
            let outcomes = [study.scratch(&name(0), &experiments[0])?, study.scratch(&name(1), &experiments[1])?];
            let agreed = study.compare(&experiments[0], &experiments[1])?;
            Ok(Pair { seed, experiments, outcomes, agreed })
        };
        pairs.into_iter().map(one).collect()
    };
    studies.iter().zip(planned).map(of_study).collect()
}

fn report(args: &Reproduce, studies: &[Study], found: &[Vec<Pair>]) -> Result<Report> {
    let title = "TTFS: single-spike networks from scratch, beside networks of rectifiers from the same seeds";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = studies.iter().map(|s| s.label.clone()).collect();
    report.seeds = seeds(args.profile);
    (report.notes, report.seconds) = jobs(studies);
    report.notes.extend(single(studies, found));
    report.versions = studies.first().map(|s| ("device".into(), s.device.describe())).into_iter().collect();
    let demands = demands(args.profile, studies, found);
    report.summary = summary(studies, found);
    report.summary.extend(demands_summary(&demands));
    report.tables = vec![results(studies, found)];
    report.tables.extend(studies.iter().zip(found).map(|(study, pairs)| epochs(study, pairs)));
    report.tables.push(demands_table(&demands));
    let mut experiments = Vec::new();
    for (study, pair) in studies.iter().zip(found).filter_map(|(study, pairs)| Some((study, pairs.first()?))) {
        for (e, (_, kind)) in pair.experiments.iter().zip(KINDS) {
            experiments.push((format!("{kind}, {}", study.set), presets::find(&e.name)?.experiment, e.clone()));
        }
    }
    report.deviations = deviations(&studies.iter().collect::<Vec<_>>(), &experiments);
    report.figures = vec![figure(studies, found)];
    for (study, pairs) in studies.iter().zip(found) {
        for pair in pairs {
            for ((_, kind), (e, o)) in KINDS.iter().zip(pair.experiments.iter().zip(&pair.outcomes)) {
                report.records.push(record(study, kind, pair, e, o)?);
            }
        }
    }
    Ok(report)
}

/// How one of the networks is trained by hand.
fn single(studies: &[Study], found: &[Vec<Pair>]) -> Option<String> {
    let (study, pair) = (studies.first()?, found.first()?.first()?);
    let [spikes, twin] = &pair.experiments;
    let of = |e: &Experiment| {
        format!("snn train {} --set data.set=\\\"{}\\\" --set train.seed={}", e.name, study.set, pair.seed)
    };
    let of = |e: &Experiment| of(e).replace('\\', "");
    Some(format!(
        "Protocol: {} epochs, batches of {}, Adam of Keras with a learning rate of {} that falls by a factor 0.9 in 5000 \
         steps, tests after each epoch, the last weights count. By hand: {}; {}",
        spikes.train.epochs,
        spikes.train.batch,
        spikes.train.optimiser.learning_rate,
        of(spikes),
        of(twin)
    ))
}

fn record(study: &Study, kind: &str, pair: &Pair, e: &Experiment, o: &Outcome) -> Result<Record> {
    let mut numbers = BTreeMap::from([
        ("test_accuracy".to_owned(), o.tested.accuracy / 100.0),
        ("test_loss".to_owned(), o.tested.loss.unwrap_or(f64::NAN)),
        ("training_accuracy".to_owned(), o.training_accuracy().unwrap_or(f64::NAN) / 100.0),
        ("epoch_seconds".to_owned(), o.summary.epoch_seconds),
        ("largest_difference_of_outputs".to_owned(), pair.agreed.difference),
    ]);
    numbers.extend(o.tested.sparsity.iter().flat_map(|s| {
        [
            ("spikes_per_hidden_neuron".to_owned(), s.hidden),
            ("spikes_per_input".to_owned(), s.input),
            ("spikes_per_neuron_and_input".to_owned(), s.with_input),
            ("latency".to_owned(), s.latency),
        ]
    }));
    Ok(Record {
        what: format!("{}, {kind}", study.set),
        configuration: serde_json::to_value(e)?,
        seed: Some(pair.seed),
        numbers,
        details: serde_json::json!({
            "epochs": o.summary.history, "test": o.tested, "largest_activations": o.ranges, "twins": pair.agreed,
        }),
    })
}

/// The largest difference of both accuracies after any epoch, in points.
fn farthest(pair: &Pair) -> f64 {
    let [spikes, twin] = &pair.outcomes;
    let apart = spikes.course().into_iter().zip(twin.course()).map(|(a, b)| (a.1 - b.1).abs());
    apart.fold(0.0, f64::max)
}

fn ends_apart(pair: &Pair) -> f64 {
    (pair.outcomes[0].tested.accuracy - pair.outcomes[1].tested.accuracy).abs()
}

fn demands(profile: Profile, studies: &[Study], found: &[Vec<Pair>]) -> Vec<Demand> {
    let mut list = Vec::new();
    for (study, pairs) in studies.iter().zip(found) {
        let apart = pairs.iter().map(ends_apart).fold(0.0, f64::max);
        list.push(Demand {
            what: format!("{}: test accuracies of spikes and rectifiers at the end", study.set),
            limit: "at most 0.15 points apart",
            found: format!("{apart:.3} points"),
            met: apart <= APART,
            asked: true,
        });
        if study.label.task != "MNIST" {
            continue;
        }
        let least = pairs.iter().map(|p| p.outcomes[0].tested.accuracy).fold(f64::INFINITY, f64::min);
        list.push(Demand {
            what: format!("{}: test accuracy of spikes at the end", study.set),
            limit: "at least 98.0 %",
            found: format!("{least:.2} %"),
            met: least >= REACHED,
            asked: profile != Profile::Smoke && study.label.as_published,
        });
    }
    list
}

fn summary(studies: &[Study], found: &[Vec<Pair>]) -> Vec<String> {
    let mut lines = Vec::new();
    for (study, pairs) in studies.iter().zip(found) {
        let accuracy = |kind: usize| over(pairs.iter().map(|p| Some(p.outcomes[kind].tested.accuracy)));
        let show = |kind: usize| accuracy(kind).map_or_else(|| "-".into(), |m| Measured { n: None, ..m }.show(2));
        lines.push(format!(
            "{}: test accuracy {} % by spikes and {} % by rectifiers. After no epoch are they more than {:.2} points \
             apart, and at the end their outputs for the test images {}.",
            study.label.label,
            show(0),
            show(1),
            pairs.iter().map(farthest).fold(0.0, f64::max),
            differ(pairs.iter().map(|p| p.agreed.difference / p.agreed.largest)),
        ));
        let sparsity = |of: fn(&snn_train::sparsity::Sparsity) -> f64| {
            over(pairs.iter().map(|p| p.outcomes[0].tested.sparsity.as_ref().map(of))).map_or(f64::NAN, |m| m.mean)
        };
        let early = pairs.iter().filter_map(|p| p.outcomes[0].tested.early()).fold(0.0, f64::max);
        lines.push(format!(
            "Spikes on {}: {:.3} per hidden neuron, {:.3} per input, {:.3} per neuron or input; {early} early spikes per \
             test image. Outputs are read at {:.0}: the windows are made for activations up to 1000, as published, while the \
             largest is {:.1}.",
            study.set,
            sparsity(|s| s.hidden),
            sparsity(|s| s.input),
            sparsity(|s| s.with_input),
            sparsity(|s| s.latency),
            pairs.iter().flat_map(|p| &p.outcomes[0].ranges).copied().fold(0.0, f64::max),
        ));
    }
    lines
}

fn results(studies: &[Study], found: &[Vec<Pair>]) -> Table {
    let numbers = [
        ("test accuracy", "%"),
        ("test loss", ""),
        ("training accuracy", "%"),
        ("spikes per hidden neuron", ""),
        ("per input", ""),
        ("both", ""),
        ("latency", ""),
        ("latency with windows for what comes up", ""),
        ("early spikes, test", "per image"),
        ("early spikes, training", "per image"),
        ("epoch", "s"),
    ];
    let columns = ["data", "network"].map(Column::words).into_iter();
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let mut table = Table::new("results", "What the runs came to", columns);
    for (study, pairs) in studies.iter().zip(found) {
        for (kind, (_, name)) in KINDS.iter().enumerate() {
            let of = |value: &dyn Fn(&Outcome) -> Option<f64>, decimals| {
                cell(over(pairs.iter().map(|p| value(&p.outcomes[kind]))), decimals)
            };
            let sparsity =
                |o: &Outcome, value: fn(&snn_train::sparsity::Sparsity) -> f64| o.tested.sparsity.as_ref().map(value);
            // As published, half as long again as the largest activation.
            let fitted = |o: &Outcome| (!o.ranges.is_empty()).then(|| 1.0 + 1.5 * o.ranges.iter().sum::<f64>());
            let early = |o: &Outcome| {
                let worst = o.summary.history.iter().map(|r| r.early_per_sample).fold(0.0, f64::max);
                o.tested.sparsity.as_ref().map(|_| worst)
            };
            table.row([
                Cell::text(study.set),
                Cell::text(*name),
                of(&|o| Some(o.tested.accuracy), 2),
                of(&|o| o.tested.loss, 4),
                of(&|o| o.training_accuracy(), 2),
                of(&|o| sparsity(o, |s| s.hidden), 3),
                of(&|o| sparsity(o, |s| s.input), 3),
                of(&|o| sparsity(o, |s| s.with_input), 3),
                of(&|o| o.tested.latency(), 0),
                of(&fitted, 2),
                of(&|o| o.tested.early(), 3),
                of(&early, 3),
                of(&|o| Some(o.summary.epoch_seconds), 2),
            ]);
        }
    }
    table.note(SPIKES);
    table.note(LATENCY);
    table.note(
        "Windows for what comes up are 1.5 times as long as the largest activation of a training image. Early spikes in \
         training: of the epoch with the most.",
    );
    table
}

/// Whether the reference's numbers are of the same task: all of MNIST.
fn is_comparable(study: &Study, pairs: &[Pair]) -> bool {
    let whole = |p: &Pair| p.experiments[0].data.train_samples == 0 && p.experiments[0].data.test_samples == 0;
    study.set == "mnist" && study.label.as_published && pairs.iter().all(whole)
}

/// The course of both networks.
fn epochs(study: &Study, pairs: &[Pair]) -> Table {
    let with_reference = is_comparable(study, pairs);
    let mut columns = vec![
        Column::numbers("epoch", ""),
        Column::numbers("spikes", "% test accuracy"),
        Column::numbers("rectifiers", "% test accuracy"),
        Column::numbers("farthest apart", "points"),
        Column::numbers("training loss, spikes", ""),
        Column::numbers("training loss, rectifiers", ""),
    ];
    if with_reference {
        columns.push(Column::numbers("reference program, run by us", "% test accuracy"));
    }
    let title = format!("Epoch by epoch: {}", study.label.label);
    let mut table = Table::new(format!("epochs-{}", study.set), title, columns);
    let courses = |kind: usize| pairs.iter().map(move |p| p.outcomes[kind].course());
    let count = courses(0).chain(courses(1)).map(|c| c.len()).min().unwrap_or(0);
    for i in 0..count {
        let accuracy = |kind: usize| cell(over(courses(kind).map(|c| c.get(i).map(|p| p.1))), 2);
        let loss =
            |kind: usize| cell(over(pairs.iter().map(|p| p.outcomes[kind].summary.history.get(i).map(|r| r.loss))), 4);
        let apart = courses(0).zip(courses(1)).map(|(a, b)| (a[i].1 - b[i].1).abs()).fold(0.0, f64::max);
        let mut row =
            vec![Cell::number(i as f64 + 1.0, 0), accuracy(0), accuracy(1), Cell::number(apart, 3), loss(0), loss(1)];
        if with_reference {
            row.push(number(REFERENCE.get(i).copied(), 2));
        }
        table.row(row);
    }
    if with_reference {
        table.note(
            "Reference: the published program with its default options on MNIST, one run from seed 1, made for this \
             project and not taken from the paper. Its seed draws other weights than ours.",
        );
    }
    table
}

fn figure(studies: &[Study], found: &[Vec<Pair>]) -> Figure {
    let several = found.iter().map(Vec::len).max().unwrap_or(0);
    let spread =
        if several > 1 { format!(" Means and standard deviations over {several} seeds.") } else { String::new() };
    let labels: Vec<&str> = studies.iter().map(|s| &*s.label.label).collect();
    let mut figure = Figure::new(TARGET, "Spikes and rectifiers from the same seeds", 2).caption(format!(
        "Data: {}. Rings of rectifiers lie on the dots of spikes where both are equal.{spread}",
        labels.join("; ")
    ));
    for (study, pairs) in studies.iter().zip(found) {
        let epochs = pairs.first().map_or(0, |p| p.outcomes[0].summary.history.len());
        let axis = || {
            let named = (1..=epochs).map(|epoch| (epoch as f64, epoch.to_string()));
            Axis::linear("epoch").limits(0.5, epochs as f64 + 0.5).names(named)
        };
        let series = |kind: usize, of: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| {
            let courses: Vec<_> = pairs.iter().map(|p| of(&p.outcomes[kind])).collect();
            let line = mean_series(KINDS[kind].1, &courses).colour(kind);
            if kind == 1 { line.marker(Marker::Ring).stroke(Stroke::Dashed) } else { line }
        };
        let both = |of: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| vec![series(0, of), series(1, of)];
        let mut accuracy = both(&Outcome::course);
        if is_comparable(study, pairs) {
            let points = REFERENCE.iter().take(epochs).enumerate().map(|(i, &y)| (i as f64 + 1.0, y));
            accuracy
                .push(Series::new("reference program, run by us", points).colour(6).fade(0.3).marker(Marker::Diamond));
        }
        let loss = |o: &Outcome| -> Vec<(f64, f64)> {
            o.summary.history.iter().map(|r| (f64::from(r.epoch), r.loss)).collect()
        };
        let title = |what: &str| if studies.len() > 1 { format!("{what}, {}", study.set) } else { what.to_owned() };
        figure = figure
            .panel(Panel::new(title("test accuracy"), axis(), "accuracy (%)", Lines::new(accuracy)))
            .panel(Panel::new(title("training loss"), axis(), "cross entropy", Lines::new(both(&loss))));
    }
    figure
}
