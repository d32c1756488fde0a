//! The convergence study of BATS: how often one layer learns the order of two spikes, by the distribution of its first
//! weights.
//!
//! Every start trains in memory on both samples at once, with neither logs nor checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;
use snn_core::{Backend, Pass};
use snn_cpu::Cpu;
use snn_data::{Batch, Loader, LoaderOptions, OpenOptions};
use snn_train::config::Init;
use snn_train::losses::Loss;
use snn_train::optim::{Optimiser, gradient_norm};
use snn_train::presets;
use snn_train::trainer::{RunOptions, Split, Upload};
use snn_train::{Experiment, Stack};

use super::{command, publish};
use crate::args::Reproduce;
use crate::console;
use crate::report::files::write_atomically;
use crate::report::{
    Axis, Cell, Column, DataLabel, Deviation, Figure, Heat, Jobs, Lines, Machine, Panel, Profile, Record, Report,
    Scale, Series, Table, csv,
};
use crate::usage;

/// The command's name of this target.
pub(super) const TARGET: &str = "bats-convergence";

/// The generated set of the study.
const SET: &str = "spike-order";

/// The losses by their presets.
const LOSSES: [(&str, &str, &str); 2] =
    [("bats-toy-count", "counts", "count"), ("bats-toy-ttfs", "first spikes", "first-spike")];

/// Means and deviations end here.
const END: f64 = 2.4;

/// The cells of a grid and how often each is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    /// Steps of means, and of deviations, from 0 to [`END`].
    steps: u32,
    starts: u64,
}

impl Grid {
    const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self { steps: 6, starts: 20 },
            Profile::Quick => Self { steps: 12, starts: 30 },
            Profile::Paper => PUBLISHED,
        }
    }

    /// Its means, which are its deviations as well.
    fn values(self) -> Vec<f64> {
        let step = END / f64::from(self.steps);
        (0..=self.steps).map(|i| (f64::from(i) * step * 1e9).round() / 1e9).collect()
    }
}

const PUBLISHED: Grid = Grid { steps: 12, starts: 100 };

/// What names a job: a row of the grid.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    experiment: &'a Experiment,
    mean: f64,
    deviations: &'a [f64],
    starts: u64,
    machine: String,
}

/// The best accuracy of every start, `[deviation][start]`.
type Row = Vec<Vec<f64>>;

/// Both samples.
struct Toy {
    split: Split,
    batch: Batch,
}

impl Toy {
    fn open(experiment: &Experiment, data: OpenOptions) -> Result<Self> {
        let split = Split::train(experiment, &RunOptions { data, ..RunOptions::default() })?;
        let options = LoaderOptions { batch: split.len(), threads: 0, ..LoaderOptions::default() };
        let mut loader = Loader::new(split.source.clone(), split.pipeline.clone(), options)?;
        let batch = loader.next().context("the data has no sample")??;
        Ok(Self { split, batch })
    }

    /// Trains one start and gives its best accuracy after an epoch, of all epochs.
    fn start<B: Backend>(&self, device: &B, experiment: &Experiment, seed: u64) -> Result<f64> {
        let (config, pipeline) = (&experiment.train, &self.split.pipeline);
        let classes = self.split.source.classes();
        let mut stack = Stack::build(device, &experiment.model, pipeline.signal(), classes, seed)?;
        let mut optimiser = Optimiser::new(device, config.optimiser, &stack)?;
        let mut loss = Loss::new(device, config.loss)?;
        let mut upload = Upload::new(device, pipeline.signal());
        let input = upload.batch(device, &self.batch)?;
        let mut best = 0.0_f64;
        for finished in 0..=config.epochs {
            stack.forward(device, input, Pass::train(optimiser.step() as u32))?;
            let scores = loss.forward(device, stack.output(), &self.batch.labels)?;
            if finished > 0 {
                best = best.max(scores.accuracy());
            }
            if finished == config.epochs || best == 1.0 {
                break;
            }
            stack.backward(device, input, loss.grad())?;
            let norm = gradient_norm(device, &stack)?;
            if norm > 0.0 && norm.is_finite() {
                optimiser.update(device, &mut stack, config.optimiser.learning_rate)?;
            } else if config.optimiser.momentum == 0.0 {
                // Nothing moves any more, so all epochs to come are like this one.
                best = best.max(scores.accuracy());
                break;
            }
        }
        Ok(best)
    }

    /// The starts of a mean with each deviation, shared out among `workers` threads.
    ///
    /// Start k has seed k, counted from 1, in every cell: its weights are the same normal numbers, moved and stretched.
    fn row(&self, experiment: &Experiment, mean: f64, deviations: &[f64], starts: u64, workers: usize) -> Result<Row> {
        let cells: Vec<Experiment> = deviations
            .iter()
            .map(|&deviation| {
                let mut cell = experiment.clone();
                cell.model.readout.init = Init::Normal { mean, deviation };
                cell
            })
            .collect();
        let each = usize::try_from(starts)?;
        let (all, next) = (cells.len() * each, AtomicUsize::new(0));
        let work = || -> Result<Vec<(usize, f64)>> {
            // Two samples are too few for the threads of a device: each worker has its own.
            let device = Cpu::new(1)?;
            let mut found = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= all {
                    return Ok(found);
                }
                found.push((i, self.start(&device, &cells[i / each], (i % each) as u64 + 1)?));
            }
        };
        let found: Vec<Result<Vec<(usize, f64)>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(anyhow!("a worker died")))).collect()
        });
        let mut row = vec![vec![f64::NAN; each]; cells.len()];
        for found in found {
            for (i, accuracy) in found? {
                row[i / each][i % each] = accuracy;
            }
        }
        Ok(row)
    }
}

/// The mean accuracy of every cell in per cent, `[mean][deviation]`.
fn averages(rows: &[Row]) -> Vec<Vec<f64>> {
    let average = |starts: &Vec<f64>| 100.0 * starts.iter().sum::<f64>() / starts.len().max(1) as f64;
    rows.iter().map(|row| row.iter().map(average).collect()).collect()
}

/// What was found with a loss.
struct Found {
    experiment: Experiment,
    /// `[mean][deviation]`, per cent.
    averages: Vec<Vec<f64>>,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    if args.sets.iter().any(|set| set != SET) {
        return Err(usage(format!("--sets {}: {TARGET} runs on {SET}, which it makes", args.sets.join(","))));
    }
    let grid = Grid::of(args.profile);
    let directory = args.out.join(TARGET);
    let jobs = Jobs::open(&directory, args.profile)?;
    let workers = match args.place.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let found = study(args, &jobs, grid, workers, quiet)?;
    for ((_, _, stem), found) in LOSSES.iter().zip(&found) {
        let path = directory.join(format!("accuracy-{stem}-{}.csv", args.profile));
        write_atomically(&path, table_csv(grid, found).as_bytes())?;
    }
    publish(&report(args, &jobs, grid, workers, &found, &directory)?, &directory)
}

fn study(args: &Reproduce, jobs: &Jobs, grid: Grid, workers: usize, quiet: bool) -> Result<Vec<Found>> {
    let values = grid.values();
    let machine = Machine::detect().line();
    let mut found = Vec::new();
    for (preset, name, _) in LOSSES {
        let experiment = presets::find(preset)?.experiment;
        let toy = Toy::open(&experiment, args.place.open_options())?;
        let bar = console::bar(quiet, values.len() as u64, "{prefix} [{bar:30}] {pos}/{len} means {eta:>4}");
        bar.set_prefix(name);
        let mut rows = Vec::new();
        for &mean in &values {
            let (starts, deviations, machine) = (grid.starts, &values[..], machine.clone());
            let job = Job { target: TARGET, experiment: &experiment, mean, deviations, starts, machine };
            rows.push(jobs.run(&job, || toy.row(&experiment, mean, &values, starts, workers))?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        found.push(Found { averages: averages(&rows), experiment });
    }
    Ok(found)
}

/// Rows of mean, deviation and accuracy, as the original writes them.
fn table_csv(grid: Grid, found: &Found) -> String {
    let values = grid.values();
    let mut rows = vec![["Mean", "Std", "Accuracy"].map(str::to_owned).to_vec()];
    for (mean, row) in values.iter().zip(&found.averages) {
        for (deviation, accuracy) in values.iter().zip(row) {
            rows.push(vec![mean.to_string(), deviation.to_string(), format!("{accuracy:.4}")]);
        }
    }
    csv::write(&rows)
}

/// A cell of the grid with its accuracy.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spot {
    mean: f64,
    deviation: f64,
    accuracy: f64,
}

fn spots(grid: Grid, found: &Found) -> Vec<Spot> {
    let values = grid.values();
    let row = |(&mean, row): (&f64, &Vec<f64>)| -> Vec<Spot> {
        values.iter().zip(row).map(|(&deviation, &accuracy)| Spot { mean, deviation, accuracy }).collect()
    };
    values.iter().zip(&found.averages).flat_map(row).collect()
}

fn mean_accuracy(spots: &[Spot]) -> f64 {
    spots.iter().map(|s| s.accuracy).sum::<f64>() / spots.len().max(1) as f64
}

/// The number of cells in which all starts learn.
fn solved(spots: &[Spot]) -> usize {
    spots.iter().filter(|s| s.accuracy == 100.0).count()
}

fn report(
    args: &Reproduce,
    jobs: &Jobs,
    grid: Grid,
    workers: usize,
    found: &[Found],
    directory: &Path,
) -> Result<Report> {
    let mut report = Report::new(TARGET, "BATS: convergence by the distribution of the first weights", args.profile);
    report.command = command(args);
    report.data = vec![DataLabel { task: "order of two spikes".into(), label: SET.into(), as_published: true }];
    report.seeds = vec![1, grid.starts];
    report.seeds.dedup();
    report.notes = jobs.notes();
    let stems = LOSSES.map(|(_, _, stem)| format!("accuracy-{stem}-{}.csv", args.profile));
    report.notes.push(format!(
        "Seeds: {} starts in every cell, start k with seed k, 1 to {}. The same start has the same normal numbers in all \
         cells, moved and stretched to the cell's mean and deviation.",
        grid.starts, grid.starts
    ));
    report.notes.push(format!(
        "The grids as columns Mean, Std, Accuracy (%) are in {} of {}.",
        stems.join(" and "),
        directory.display()
    ));
    report.seconds = jobs.counts().seconds;
    report.versions = vec![("device".into(), format!("cpu, {workers} starts at a time, one thread each"))];
    report.summary = summary(grid, found);
    report.deviations = deviations(grid);
    report.tables = vec![results(grid, found)];
    report.figures = vec![figure(grid, found)];
    for ((preset, name, _), found) in LOSSES.iter().zip(found) {
        let spots = spots(grid, found);
        report.records.push(Record {
            what: format!("{preset}, trained by {name}"),
            configuration: serde_json::to_value(&found.experiment)?,
            seed: None,
            numbers: BTreeMap::from([
                ("mean_accuracy".to_owned(), mean_accuracy(&spots) / 100.0),
                ("solved_cells".to_owned(), solved(&spots) as f64),
                ("starts".to_owned(), grid.starts as f64),
            ]),
            details: serde_json::json!({ "values": grid.values(), "accuracy_percent": found.averages }),
        });
    }
    Ok(report)
}

fn summary(grid: Grid, found: &[Found]) -> Vec<String> {
    let cells = grid.values().len().pow(2);
    let mut lines = Vec::new();
    for ((_, name, _), found) in LOSSES.iter().zip(found) {
        let spots = spots(grid, found);
        let live: Vec<Spot> = spots.iter().copied().filter(|s| s.mean > 0.0 || s.deviation > 0.0).collect();
        let least = live.iter().copied().min_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
        let worst = least.map_or_else(String::new, |s| {
            format!(
                "; the least but for weights of zero is {:.1} % at mean {} and deviation {}",
                s.accuracy, s.mean, s.deviation
            )
        });
        lines.push(format!(
            "Trained by {name}: the best accuracy of {} epochs is {:.1} % on average over {cells} cells of {} starts; all \
             starts learn in {} cells{worst}.",
            found.experiment.train.epochs,
            mean_accuracy(&spots),
            grid.starts,
            solved(&spots),
        ));
    }
    if let [first, second] = found {
        let better =
            spots(grid, first).iter().zip(spots(grid, second)).filter(|(a, b)| a.accuracy > b.accuracy).count();
        let worse = spots(grid, first).iter().zip(spots(grid, second)).filter(|(a, b)| a.accuracy < b.accuracy).count();
        lines.push(format!(
            "Training by {} is ahead in {better} cells and behind in {worse}. The original shows its grids as pictures \
             without numbers, so nothing is compared.",
            LOSSES[0].1
        ));
    }
    lines.push(
        "An output spike tells the order only if it comes after the first of the two inputs that change places. Large \
         weights make a neuron fire before: where it has one spike, nothing is left to learn from; where it has several, \
         later ones tell."
            .into(),
    );
    lines.push(
        "Chance is 50 %: a network without output spikes names the first class for both samples. With a deviation of 0 \
         all starts are the same."
            .into(),
    );
    lines
}

fn deviations(grid: Grid) -> Vec<Deviation> {
    let mut list = Vec::new();
    let size = |g: Grid| format!("{n} x {n}, 0 to {END}", n = g.steps + 1);
    if grid.steps != PUBLISHED.steps {
        list.push(Deviation::new("grid of means and deviations", size(PUBLISHED), size(grid)));
    }
    if grid.starts != PUBLISHED.starts {
        list.push(Deviation::new("starts per cell", PUBLISHED.starts.to_string(), grid.starts.to_string()));
    }
    list.push(
        Deviation::new("first weights", "drawn anew in every cell", "the same normal numbers in every cell")
            .why("cells differ by mean and deviation alone"),
    );
    list.push(
        Deviation::new("end of a start", "after all epochs", "when both samples are right or nothing moves any more")
            .why("the best accuracy is the same"),
    );
    list.push(Deviation::new("updates with gradients that are not finite", "applied", "left out"));
    list
}

/// The accuracy by mean and by deviation, as averages over the other.
fn results(grid: Grid, found: &[Found]) -> Table {
    let mut columns = vec![Column::numbers("mean or deviation", "")];
    for (_, name, _) in LOSSES {
        columns.push(Column::numbers(format!("{name}, by mean"), "%"));
        columns.push(Column::numbers(format!("{name}, by deviation"), "%"));
    }
    let mut table =
        Table::new("margins", "Accuracy by mean, over all deviations, and by deviation, over all means", columns);
    for (i, value) in grid.values().into_iter().enumerate() {
        let mut row = vec![Cell::number(value, 2)];
        for found in found {
            row.push(Cell::number(by_mean(found, i), 1));
            row.push(Cell::number(by_deviation(found, i), 1));
        }
        table.row(row);
    }
    table
}

fn by_mean(found: &Found, i: usize) -> f64 {
    found.averages[i].iter().sum::<f64>() / found.averages[i].len() as f64
}

fn by_deviation(found: &Found, i: usize) -> f64 {
    found.averages.iter().map(|row| row[i]).sum::<f64>() / found.averages.len() as f64
}

fn figure(grid: Grid, found: &[Found]) -> Figure {
    let values = grid.values();
    let names = || values.iter().map(|v| format!("{v:.1}"));
    let cells = |of: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<Option<f64>>> {
        let row = |m| (0..values.len()).map(|d| Some(of(m, d))).collect();
        (0..values.len()).map(row).collect()
    };
    let whole = |v: f64| v.round();
    let mut figure = Figure::new(TARGET, "One layer that learns the order of two spikes", 2).caption(format!(
        "The best accuracy of {} epochs, mean over {} starts in every cell; chance is 50 %.",
        found.first().map_or(0, |f| f.experiment.train.epochs),
        grid.starts
    ));
    for ((_, name, _), found) in LOSSES.iter().zip(found) {
        let heat =
            Heat::new(names(), names(), cells(&|m, d| whole(found.averages[m][d])), "accuracy (%)").limits(50.0, 100.0);
        figure = figure.panel(Panel::new(
            format!("trained by {name}"),
            "standard deviation of the weights",
            "mean of the weights",
            heat,
        ));
    }
    if let [first, second] = found {
        let of = |m: usize, d: usize| whole(first.averages[m][d] - second.averages[m][d]);
        let heat = Heat::new(names(), names(), cells(&of), "points").diverging(Scale::Linear, 0.0).limits(-50.0, 50.0);
        let heat = Heat { annotate: false, ..heat };
        let title = format!("{} minus {}", LOSSES[0].1, LOSSES[1].1);
        figure = figure.panel(Panel::new(title, "standard deviation of the weights", "mean of the weights", heat));
    }
    let series = LOSSES.iter().zip(found).enumerate().map(|(colour, ((_, name, _), found))| {
        Series::new(*name, values.iter().enumerate().map(|(i, v)| (*v, by_mean(found, i)))).colour(colour)
    });
    let lines = Lines::new(series.collect());
    figure.panel(Panel::new(
        "over all deviations",
        "mean of the weights",
        Axis::linear("accuracy (%)").limits(45.0, 102.0),
        lines,
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn toy(preset: &str) -> (Experiment, Toy) {
        let experiment = presets::find(preset).unwrap().experiment;
        let toy = Toy::open(&experiment, OpenOptions::default()).unwrap();
        (experiment, toy)
    }

    #[test]
    fn averages_are_those_of_a_calculation_by_hand() {
        // Cells of starts: (0.5, 0.5, 1.0, 1.0) is 75 %, and so on.
        let rows = [vec![vec![0.5, 0.5, 1.0, 1.0], vec![1.0, 1.0, 1.0, 1.0]], vec![vec![0.5, 0.0], vec![0.5, 0.5]]];
        assert_eq!(averages(&rows), [[75.0, 100.0], [25.0, 50.0]]);
        let (experiment, _) = toy("bats-toy-count");
        let found = Found { averages: averages(&rows), experiment };
        assert_eq!((by_mean(&found, 0), by_deviation(&found, 0)), (87.5, 50.0));
        let grid = Grid { steps: 1, starts: 4 };
        let spots = spots(grid, &found);
        assert_eq!(spots[1], Spot { mean: 0.0, deviation: 2.4, accuracy: 100.0 });
        assert_eq!((solved(&spots), mean_accuracy(&spots)), (1, 62.5));
        let text = "Mean,Std,Accuracy\n0,0,75.0000\n0,2.4,100.0000\n2.4,0,25.0000\n2.4,2.4,50.0000\n";
        assert_eq!(table_csv(grid, &found).replace('\r', ""), text);
    }

    #[test]
    fn the_grid_is_the_published_one() {
        let values = PUBLISHED.values();
        assert_eq!((values.len(), values[1], values[6], values[12]), (13, 0.2, 1.2, 2.4));
    }

    #[test]
    fn a_tiny_grid_is_what_its_starts_come_to() {
        for (preset, _, _) in LOSSES {
            let (experiment, toy) = toy(preset);
            // Weights of zero never fire: the first class for both samples. Nothing can move them.
            let silent = toy.row(&experiment, 0.0, &[0.0], 2, 1).unwrap();
            assert_eq!(averages(&[silent]), [[50.0]]);
            // The row holds the starts one by one, however many work on it.
            let deviations = [0.0, 1.2];
            let row = toy.row(&experiment, 1.0, &deviations, 5, 1).unwrap();
            assert_eq!(row, toy.row(&experiment, 1.0, &deviations, 5, 3).unwrap());
            for (deviation, starts) in deviations.into_iter().zip(&row) {
                let mut cell = experiment.clone();
                cell.model.readout.init = Init::Normal { mean: 1.0, deviation };
                let one = |seed| toy.start(&Cpu::new(2).unwrap(), &cell, seed).unwrap();
                assert_eq!(*starts, (1..=5).map(one).collect::<Vec<f64>>(), "{preset}");
            }
            // Equal weights of 1 fire between the inputs that change places.
            assert_eq!(row[0], [1.0; 5], "{preset}");
        }
    }

    #[test]
    fn both_losses_are_reported_and_nothing_runs_twice() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", TARGET, "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let (grid, directory) = (Grid { steps: 1, starts: 2 }, place.path().join("out"));
        let jobs = Jobs::open(&directory, Profile::Smoke).unwrap();
        let found = study(&args, &jobs, grid, 1, true).unwrap();
        let report = super::report(&args, &jobs, grid, 1, &found, &directory).unwrap();
        assert_eq!((report.figures[0].panels.len(), report.tables[0].rows.len()), (4, 2));
        study(&args, &jobs, grid, 1, true).unwrap();
        assert_eq!((jobs.counts().run, jobs.counts().reused), (4, 4));
    }
}
