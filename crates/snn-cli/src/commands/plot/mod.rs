//! `snn plot`: the course of runs, from their logs and snapshots.
//!
//! | file | from | made |
//! |---|---|---|
//! | `training.{svg,png,csv}` | epochs | always, all runs in one |
//! | `monitors.{svg,png,csv}`, `monitors/SPLIT-NAME.{npz,csv,png}` | monitors | for each run that has some |
//! | `raster.{png,gif}`, `heat-LAYER.{png,gif}` | snapshots | for each run that has some |
//! | `runs.{svg,png,csv}` | tests | for several runs |

mod compare;
mod monitors;
mod run_log;
mod snapshots;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::args::Plot;
use crate::console;
use crate::report::draw::draw;
use crate::report::{Axis, Figure, Lines, Panel, csv, files};
use run_log::RunLog;

pub(crate) fn run(args: &Plot) -> Result<()> {
    let runs: Vec<RunLog> = args.runs.iter().map(|r| RunLog::read(r)).collect::<Result<_>>()?;
    if let Some(empty) = runs.iter().find(|run| run.epochs.is_empty() && run.monitors.is_empty()) {
        anyhow::bail!("{}: the log holds no finished epoch yet", empty.name);
    }
    let out = args.out.as_deref().unwrap_or(&args.runs[0]);
    if runs.iter().any(|run| !run.epochs.is_empty()) {
        console::line(write_figure(out, &training(&runs))?.display())?;
    }
    if runs.len() > 1
        && let Some(figure) = compare::figure(&runs)
    {
        console::line(write_figure(out, &figure)?.display())?;
    }
    for (run, directory) in runs.iter().zip(directories(args, &runs)) {
        for written in monitors::write(run, &directory)?.into_iter().chain(snapshots::write(run, &directory)?) {
            console::line(written.display())?;
        }
    }
    Ok(())
}

/// Where the pictures of single runs go: a run's own directory, or one in `--out` for each of several runs.
fn directories(args: &Plot, runs: &[RunLog]) -> Vec<PathBuf> {
    let Some(out) = &args.out else { return args.runs.clone() };
    if runs.len() == 1 {
        return vec![out.clone()];
    }
    let mut taken: Vec<PathBuf> = Vec::new();
    for run in runs {
        let stem = files::file_stem(&run.name);
        let numbered = (2..).map(|k| format!("{stem}-{k}"));
        let free =
            std::iter::once(stem.clone()).chain(numbered).map(|name| out.join(name)).find(|d| !taken.contains(d));
        taken.extend(free);
    }
    taken
}

fn training(runs: &[RunLog]) -> Figure {
    let each = |field: &str, scale: f64| {
        Lines::new(runs.iter().enumerate().map(|(i, run)| run.series(&run.name, field, scale).colour(i)).collect())
    };
    let mut accuracy = each("accuracy", 100.0);
    for (i, run) in runs.iter().enumerate() {
        let test = run.series(&format!("{} (test)", run.name), "test_accuracy", 100.0).colour(i).dots();
        if !test.points.is_empty() {
            accuracy.series.push(test);
        }
    }
    Figure::new("training", "Training", 2)
        .panel(Panel::new("loss", "epoch", Axis::linear("mean training loss"), each("loss", 1.0)))
        .panel(Panel::new("accuracy", "epoch", "accuracy (%)", accuracy))
        .panel(
            Panel::new("activity", "epoch", "hidden spikes per sample", each("spikes_per_sample", 1.0))
                .without_legend(),
        )
        .panel(Panel::new("time", "epoch", "seconds per epoch", each("seconds", 1.0)).without_legend())
}

/// Writes a figure as SVG, PNG and CSV; says where the PNG is.
pub(super) fn write_figure(directory: &Path, figure: &Figure) -> Result<PathBuf> {
    let picture = draw(figure).with_context(|| figure.name.clone())?;
    let path = |ending: &str| directory.join(format!("{}.{ending}", figure.name));
    files::write_atomically(&path("svg"), picture.svg().as_bytes())?;
    files::write_atomically(&path("csv"), csv::figure_csv(figure).as_bytes())?;
    files::write_atomically(&path("png"), &picture.png()?)?;
    Ok(path("png"))
}
