//! The follow-up of BATS: networks trained by one reading of their output spikes and tested by another.
//!
//! After every epoch all readings score the same network, so a training serves all combinations that begin with it.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::Experiment;
use snn_train::presets;

use super::study::{Sets, Size, Study, Trained, accuracies, accuracy, best, cell, mean_series};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Boxes, Cell, Column, Comparison, ComparisonRow, Deviation, Figure, Lines, Measured, Panel, Profile, Record,
    Report, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "bats-combinations";

const SETS: Sets = Sets { task: "MNIST", published: "mnist", stand_in: "digits-sim" };

/// A network and how it is trained.
struct Training {
    preset: &'static str,
    name: &'static str,
    /// Hidden spikes for a test image, of the weights that come with the logs.
    spikes: Option<f64>,
}

const TRAININGS: [Training; 5] = [
    Training { preset: "bats-count-count", name: "counts", spikes: Some(494.388) },
    Training { preset: "bats-decay-decay", name: "decaying counts, rate 6", spikes: None },
    Training { preset: "bats-decay-logged", name: "decaying counts, rate 1", spikes: Some(489.023) },
    Training { preset: "bats-ttfs-ttfs", name: "first spikes", spikes: Some(1435.925) },
    Training { preset: "bats-ttfs-single", name: "first spikes of single-spike neurons", spikes: None },
];

/// A training with a way to read the tested network.
struct Combination {
    /// Trained by, tested by.
    name: &'static str,
    preset: &'static str,
    /// Which of [`TRAININGS`].
    training: usize,
    /// None for the reading that the network is trained by.
    reading: Option<&'static str>,
    /// The best epoch of every logged run.
    logged: Option<Measured>,
}

const fn logged(mean: f64, sd: f64) -> Option<Measured> {
    Some(Measured { mean, sd: Some(sd), n: Some(5) })
}

/// The combinations, and the decaying count with the constants of the logged runs.
const COMBINATIONS: [Combination; 7] = [
    Combination {
        name: "count / count",
        preset: "bats-count-count",
        training: 0,
        reading: None,
        logged: logged(98.85, 0.06),
    },
    Combination {
        name: "count / first spike",
        preset: "bats-count-ttfs",
        training: 0,
        reading: Some("first spike"),
        logged: logged(97.65, 0.12),
    },
    Combination { name: "decay 6 / decay 6", preset: "bats-decay-decay", training: 1, reading: None, logged: None },
    Combination {
        name: "decay 1 / decay 1",
        preset: "bats-decay-logged",
        training: 2,
        reading: None,
        logged: logged(98.91, 0.02),
    },
    Combination {
        name: "first spike / first spike",
        preset: "bats-ttfs-ttfs",
        training: 3,
        reading: None,
        logged: logged(97.79, 0.08),
    },
    Combination {
        name: "first spike / count",
        preset: "bats-ttfs-count",
        training: 3,
        reading: Some("count"),
        logged: logged(95.5, 0.3),
    },
    Combination {
        name: "single spike / first spike",
        preset: "bats-ttfs-single",
        training: 4,
        reading: None,
        logged: Some(Measured { mean: 97.85, sd: None, n: Some(1) }),
    },
];

fn seeds(profile: Profile) -> Vec<u64> {
    match profile {
        Profile::Smoke => vec![1],
        Profile::Quick => vec![1, 2],
        Profile::Paper => (1..=5).collect(),
    }
}

fn size(profile: Profile) -> Option<Size> {
    match profile {
        Profile::Smoke => Some(Size::new(5000, 1000, 3)),
        Profile::Quick => Some(Size::new(20_000, 0, 10)),
        Profile::Paper => None,
    }
}

/// A training's runs: seed, what was run, what it came to.
type Runs = Vec<(u64, Experiment, Trained)>;

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let study = Study::open(TARGET, &SETS, args, quiet)?;
    let found = train(&study, size(args.profile), &seeds(args.profile))?;
    publish(&report(args, &study, &found)?, &study.directory)
}

fn train(study: &Study, size: Option<Size>, seeds: &[u64]) -> Result<Vec<Runs>> {
    let mut planned: Vec<Vec<(u64, Experiment)>> = Vec::new();
    for training in &TRAININGS {
        let mut experiment = presets::find(training.preset)?.experiment;
        // The pictures of every epoch belong to the targets that keep their runs.
        experiment.train.monitor = Default::default();
        let of = |&seed| anyhow::Ok((seed, study.shorten(experiment.clone(), size, seed)?));
        planned.push(seeds.iter().map(of).collect::<Result<_>>()?);
    }
    study.announce(planned.iter().flatten().map(|(_, e)| e))?;
    let each = |(training, runs): (&Training, Vec<(u64, Experiment)>)| {
        let one = |(seed, e): (u64, Experiment)| {
            let trained = study.run(&format!("{}, seed {seed}", training.name), &e, false)?;
            Ok((seed, e, trained))
        };
        runs.into_iter().map(one).collect()
    };
    TRAININGS.iter().zip(planned).map(each).collect()
}

/// The courses of a combination, one per seed.
fn courses(combination: &Combination, found: &[Runs]) -> Vec<Vec<(f64, f64)>> {
    found[combination.training].iter().map(|(_, _, t)| accuracies(t, combination.reading)).collect()
}

/// The accuracy of every run's best epoch.
fn bests(combination: &Combination, found: &[Runs]) -> Vec<f64> {
    courses(combination, found).iter().filter_map(|course| Some(best(course)?.1)).collect()
}

/// The accuracy of every run's last epoch.
fn lasts(combination: &Combination, found: &[Runs]) -> Vec<f64> {
    courses(combination, found).iter().filter_map(|course| Some(course.last()?.1)).collect()
}

fn report(args: &Reproduce, study: &Study, found: &[Runs]) -> Result<Report> {
    let title = "BATS: trained by one reading of the output spikes, tested by another";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = vec![study.label.clone()];
    report.seeds = seeds(args.profile);
    report.notes = study.jobs.notes();
    report.seconds = study.jobs.counts().seconds;
    report.versions = vec![("device".into(), study.device.describe())];
    report.summary = summary(study, found);
    report.comparisons = vec![comparison(study, found)];
    report.tables = vec![results(found), stability(found)];
    report.deviations = all_deviations(args, study, found)?;
    report.figures = vec![curves(study, found), boxes(study, found)];
    for (training, runs) in TRAININGS.iter().zip(found) {
        for (seed, experiment, t) in runs {
            let of = COMBINATIONS.iter().filter(|c| TRAININGS[c.training].preset == training.preset);
            let numbers = of.flat_map(|c| {
                let course = accuracies(t, c.reading);
                let (top, last) = (best(&course).map(|p| p.1), course.last().map(|p| p.1));
                let number = |value: Option<f64>| value.map_or(f64::NAN, |v| v / 100.0);
                [(format!("{}: best", c.preset), number(top)), (format!("{}: last", c.preset), number(last))]
            });
            report.records.push(Record {
                what: format!("trained by {}", training.name),
                configuration: serde_json::to_value(experiment)?,
                seed: Some(*seed),
                numbers: numbers.collect::<BTreeMap<_, _>>(),
                details: serde_json::json!({ "epochs": t.summary.history, "collapsed": t.summary.collapsed }),
            });
        }
    }
    Ok(report)
}

fn show(values: &[f64]) -> String {
    Measured::of(values).map_or_else(|| "-".into(), |m| format!("{} %", Measured { n: None, ..m }.show(2)))
}

fn summary(study: &Study, found: &[Runs]) -> Vec<String> {
    let runs = found.iter().map(Vec::len).max().unwrap_or(0);
    let seeds = if runs > 1 { format!("means of {runs} seeds") } else { "one seed".into() };
    let mut lines = vec![format!(
        "{} ({seeds}). Test accuracy of the best and of the last epoch, trained by / tested by: {}.",
        study.label.label,
        COMBINATIONS
            .iter()
            .map(|c| format!("{} {} and {}", c.name, show(&bests(c, found)), show(&lasts(c, found))))
            .collect::<Vec<_>>()
            .join("; ")
    )];
    for (own, other) in [(0, 1), (4, 5)] {
        let (own, other) = (&COMBINATIONS[own], &COMBINATIONS[other]);
        let fall: Vec<f64> = bests(other, found).iter().zip(lasts(other, found)).map(|(b, l)| b - l).collect();
        let when: Vec<f64> = courses(other, found).iter().filter_map(|course| Some(best(course)?.0)).collect();
        let (Some(fall), Some(when), Some(mine), Some(theirs)) = (
            Measured::of(&fall),
            Measured::of(&when),
            Measured::of(&bests(own, found)),
            Measured::of(&bests(other, found)),
        ) else {
            continue;
        };
        lines.push(format!(
            "Trained by {}, tested by {}: at best {:.2} points below its own reading, in epoch {:.0} on average; the last \
             epoch is {:.2} points below that.",
            TRAININGS[own.training].name,
            other.reading.unwrap_or("its own reading"),
            mine.mean - theirs.mean,
            when.mean,
            fall.mean,
        ));
    }
    let collapsed: Vec<String> = TRAININGS
        .iter()
        .zip(found)
        .flat_map(|(training, runs)| runs.iter().map(move |run| (training, run)))
        .filter_map(|(training, (seed, _, t))| {
            t.summary.collapsed.map(|epoch| format!("{}, seed {seed}, in epoch {epoch}", training.name))
        })
        .collect();
    lines.push(if collapsed.is_empty() {
        "No training collapsed. In the published logs most trainings by first spikes collapse between epochs 26 and 30."
            .into()
    } else {
        format!(
            "Training collapsed, and was ended, in {}: {}. In the published logs most trainings by first spikes collapse \
             between epochs 26 and 30.",
            if collapsed.len() == 1 { "one run".into() } else { format!("{} runs", collapsed.len()) },
            collapsed.join("; ")
        )
    });
    lines
}

fn comparison(study: &Study, found: &[Runs]) -> Comparison {
    let mut table = Comparison::new("published", "Beside the logs of the follow-up");
    for c in &COMBINATIONS {
        let mut row = ComparisonRow::new(c.name, "test accuracy, best epoch", "%");
        row.published = c.logged;
        table.row(study.labelled(row.ours_if(Measured::of(&bests(c, found)))));
    }
    for (training, runs) in TRAININGS.iter().zip(found) {
        if let Some(published) = training.spikes {
            let spikes: Vec<f64> = runs.iter().map(|(_, _, t)| t.summary.spikes_per_sample).collect();
            let row = ComparisonRow::new(format!("trained by {}", training.name), "hidden spikes per test image", "")
                .published(Measured::value(published))
                .decimals(1)
                .ratio()
                .note("published: of the weights that come with the logs");
            table.row(study.labelled(row.ours_if(Measured::of(&spikes))));
        }
    }
    table.note(
        "A combination is named by what it is trained by and what it is tested by; the number behind decay is its rate \
         in 1/s. Rate 6 is how the published script stands and has no logs; the logged runs have rate 1. Both have the \
         best of all tests of a run.",
    );
    table
}

fn results(found: &[Runs]) -> Table {
    let columns = vec![
        Column::words("trained by, tested by"),
        Column::numbers("best epoch", "%"),
        Column::numbers("where training was best", "%"),
        Column::numbers("last epoch", "%"),
        Column::numbers("best epoch is", ""),
    ];
    let mut table = Table::new("results", "Test accuracy of every combination", columns);
    for c in &COMBINATIONS {
        let cell = |values: &[f64], decimals| cell(Measured::of(values), decimals);
        let chosen: Vec<f64> = found[c.training].iter().filter_map(|(_, _, t)| chosen(t, c.reading)).collect();
        let when: Vec<f64> = courses(c, found).iter().filter_map(|course| Some(best(course)?.0)).collect();
        table.row([
            Cell::text(c.name),
            cell(&bests(c, found), 2),
            cell(&chosen, 2),
            cell(&lasts(c, found), 2),
            cell(&when, 1),
        ]);
    }
    table.note(
        "The best of many tests flatters; the epoch with the best training accuracy is chosen without the test set. A \
         network is trained once and tested by every reading after each epoch.",
    );
    table
}

/// The test accuracy of the epoch with the best training accuracy.
fn chosen(t: &Trained, reading: Option<&str>) -> Option<f64> {
    let top = t.summary.history.iter().reduce(|top, r| if r.accuracy > top.accuracy { r } else { top })?;
    accuracy(top, reading)
}

fn stability(found: &[Runs]) -> Table {
    let columns = vec![
        Column::words("trained by"),
        Column::numbers("seed", ""),
        Column::numbers("epochs run", ""),
        Column::numbers("planned", ""),
        Column::words("collapsed"),
        Column::numbers("infinite losses, worst epoch", "% of images"),
        Column::numbers("updates left out", ""),
        Column::numbers("seconds per epoch", "s"),
    ];
    let mut table = Table::new("stability", "Late collapse", columns);
    for (training, runs) in TRAININGS.iter().zip(found) {
        for (seed, e, t) in runs {
            let history = &t.summary.history;
            let worst = history.iter().map(|r| 100.0 * r.infinite_share).fold(0.0, f64::max);
            let skipped: usize = history.iter().map(|r| r.skipped_updates).sum();
            table.row([
                Cell::text(training.name),
                Cell::number(*seed as f64, 0),
                Cell::number(history.len() as f64, 0),
                Cell::number(f64::from(e.train.epochs), 0),
                Cell::text(t.summary.collapsed.map_or("no".into(), |epoch| format!("epoch {epoch}"))),
                Cell::number(worst, 2),
                Cell::number(skipped as f64, 0),
                Cell::number(t.summary.epoch_seconds, 1),
            ]);
        }
    }
    table.note(
        "A loss is infinite where the class of an image does not fire; updates whose gradient is not finite are left out. \
         A collapsed run ends.",
    );
    table
}

fn all_deviations(args: &Reproduce, study: &Study, found: &[Runs]) -> Result<Vec<Deviation>> {
    let mut pairs = Vec::new();
    for (training, runs) in TRAININGS.iter().zip(found) {
        if let Some((_, here, _)) = runs.first() {
            pairs.push((training.name, presets::find(training.preset)?.experiment, here));
        }
    }
    let mut list = study.deviations(&pairs);
    list.push(Deviation::new("runs", "5 (single-spike neurons: 1)", seeds(args.profile).len().to_string()));
    if args.profile == Profile::Paper {
        list.push(
            Deviation::new(
                "epochs of training by first spikes, tested by counts",
                "10 in the script, 30 in the logs",
                "30",
            )
            .why("it is the training that is tested by first spikes as well"),
        );
    }
    Ok(list)
}

fn caption(study: &Study, found: &[Runs], what: &str) -> String {
    let runs = found.iter().map(Vec::len).max().unwrap_or(0);
    let over = if runs > 1 { format!("{runs} seeds") } else { "One seed".into() };
    format!(
        "Data: {}. {over}. A combination is what a network is trained by, then what it is tested by. {what}",
        study.label.label
    )
}

/// Accuracy over the epochs, and the error on a scale that shows small ones.
fn curves(study: &Study, found: &[Runs]) -> Figure {
    let lines = |of: fn(f64) -> f64| {
        let series = COMBINATIONS.iter().enumerate().map(|(colour, c)| {
            let course = |course: Vec<(f64, f64)>| course.into_iter().map(|(epoch, a)| (epoch, of(a))).collect();
            let courses: Vec<Vec<(f64, f64)>> = courses(c, found).into_iter().map(course).collect();
            let series = mean_series(c.name, &courses).colour(colour);
            if c.reading.is_some() { series.stroke(Stroke::Dashed) } else { series }
        });
        Lines::new(series.collect())
    };
    let bands = if found.iter().any(|runs| runs.len() > 1) { " Bands are standard deviations." } else { "" };
    let accuracy = Panel::new("test accuracy", "epoch", Axis::linear("%").limits(0.0, 100.0), lines(|a| a));
    let error = Panel::new("test error", "epoch", Axis::log10("%"), lines(|a| 100.0 - a));
    Figure::new(TARGET, "Trained by one reading, tested by another", 2)
        .caption(caption(
            study,
            found,
            &format!(
                "Dashed: tested by another reading than trained by. The number behind decay is its rate in 1/s.{bands}"
            ),
        ))
        .panel(accuracy)
        .panel(error.without_legend())
}

/// Best and last accuracy of every run.
fn boxes(study: &Study, found: &[Runs]) -> Figure {
    let of = |values: fn(&Combination, &[Runs]) -> Vec<f64>| {
        let mut boxes = Boxes::new([""]);
        for (colour, c) in COMBINATIONS.iter().enumerate() {
            boxes = boxes.group(c.name, [values(c, found)]).colour(colour);
        }
        boxes
    };
    Figure::new(format!("{TARGET}-boxes"), "Single runs", 2)
        .caption(caption(study, found, "Every dot is a run; a box reaches from the first to the third quartile."))
        .panel(Panel::new("best epoch", "", "test accuracy (%)", of(bests)))
        .panel(Panel::new("last epoch", "", "test accuracy (%)", of(lasts)).without_legend())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn combinations_of_one_training_have_presets_that_differ_in_name_only() {
        for c in &COMBINATIONS {
            let (own, training) = (presets::find(c.preset).unwrap(), &TRAININGS[c.training]);
            let trained = presets::find(training.preset).unwrap();
            let renamed = Experiment { name: trained.experiment.name.clone(), ..own.experiment };
            assert_eq!(renamed, trained.experiment, "{}", c.name);
            assert_eq!(own.published.map(|p| p.accuracy), c.logged.map(|m| m.mean), "{}", c.name);
            assert_eq!(c.reading.is_some(), own.name != trained.name, "{}", c.name);
        }
    }

    #[test]
    fn a_network_is_trained_once_and_tested_by_every_reading() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", TARGET, "--threads", "1", "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let open = || Study::open(TARGET, &SETS, &args, true).unwrap();
        let study = open();
        let found = train(&study, Some(Size::new(50, 40, 2)), &[1]).unwrap();
        assert_eq!(study.jobs.counts().run, TRAININGS.len());
        for c in &COMBINATIONS {
            let courses = courses(c, &found);
            assert_eq!((courses.len(), courses[0].len()), (1, 2), "{}", c.name);
        }
        // The network's own reading is one of all readings.
        for (training, reading) in [(0, "count"), (3, "first spike")] {
            let t = &found[training][0].2;
            assert_eq!(accuracies(t, None), accuracies(t, Some(reading)));
        }
        let report = super::report(&args, &study, &found).unwrap();
        assert_eq!((report.tables[1].rows.len(), report.records.len()), (5, 5));
        assert_eq!(report.figures[1].panels.len(), 2);
        assert!(report.comparisons[0].rows.iter().all(|row| row.compared().is_none()));
        assert!(!study.directory.join("runs").exists());
        train(&open(), Some(Size::new(50, 40, 2)), &[1]).unwrap();
    }
}
