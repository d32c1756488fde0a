//! `snn fit-neuron`: adaptive neurons for recorded cells, all in one batch.
//!
//! | file | holds |
//! |---|---|
//! | `summary.md` | a line for each cell |
//! | `summary.{svg,png,csv}` | how much of the cells is explained |
//! | `cells/NAME.{svg,png,csv}` | current, membrane, recorded and fitted spikes, the course of the loss |
//! | `fit.json` | configuration, constants, scores |

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use snn_data::ephys::{ReadOptions, Recording, Segment, SpikeChoice, SpikesFrom, Stimulus, allen, session};
use snn_train::config::{AlifGradientConfig, change};
use snn_train::fit::recorded::{Outcome, Protocol, SIGMAS_MS, fit_recorded};
use snn_train::fit::{CellFit, FitConfig, GRID_MS, Simulated};

use super::{data_dir, plot};
use crate::args::FitNeuron;
use crate::console::{self, Transfers};
use crate::device::on_device;
use crate::report::{Axis, Boxes, Cell, Column, Figure, Lines, Measured, Panel, Raster, Series, Table, files};
use crate::usage;

pub(crate) fn run(args: &FitNeuron, quiet: bool) -> Result<()> {
    let mut config = if args.published { FitConfig::published() } else { FitConfig::default() };
    let mut protocol = if args.published { Protocol::published() } else { Protocol::default() };
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    for assignment in &args.set {
        match assignment.strip_prefix("protocol.") {
            Some(own) => protocol = change(&protocol, own)?,
            None => config = change(&config, assignment)?,
        }
    }
    config.check()?;
    let chosen = args.place.device()?;
    let out = free(&args.out)?;
    let read = ReadOptions {
        stimuli: vec![protocol.fit.clone(), protocol.test.clone()],
        rate_hz: 1000.0 / config.input_ms(),
        spikes: if args.detect { SpikeChoice::Detected } else { SpikeChoice::Either },
        voltage: false,
        ..ReadOptions::default()
    };
    let cells = open(args, &out, &read, quiet)?;
    let every = (config.epochs / 10).max(1);
    let report = |epoch: u32, best: &[f64]| {
        if !quiet && (epoch + 1).is_multiple_of(every) {
            let mean = best.iter().sum::<f64>() / best.len().max(1) as f64;
            console::message(format_args!("epoch {:>4}: mean of the least distances {mean:.4}", epoch + 1));
        }
        true
    };
    let outcome = on_device!(chosen, device => fit_recorded(&device, &config, &protocol, &cells, report))?;
    let table = summary(&cells, &config, &outcome);
    write(&out, &cells, &config, &protocol, &outcome, &table)?;
    console::line(table.terminal())?;
    console::line(format_args!("{}", out.display()))
}

/// The directory of the result; one that holds a fit already is left alone.
fn free(out: &Path) -> Result<PathBuf> {
    if out.join("fit.json").exists() {
        return Err(usage(format!("--out {}: holds a fit already; choose another directory", out.display())));
    }
    Ok(out.to_owned())
}

/// Reads all cells that the arguments name.
fn open(args: &FitNeuron, out: &Path, read: &ReadOptions, quiet: bool) -> Result<Vec<Recording>> {
    let mut cells = Vec::new();
    if args.synthetic > 0 {
        let folder = out.join("sessions");
        let options = session::SessionOptions {
            cells: args.synthetic,
            seed: args.seed.unwrap_or_default(),
            ..session::SessionOptions::default()
        };
        for id in session::write(&folder, &options, &mut Transfers::new(quiet))? {
            cells.push(Recording::open_specimen(&folder, id, read)?);
        }
    }
    for cell in &args.cells {
        let path = Path::new(cell);
        match cell.parse::<u64>() {
            Ok(id) => {
                let folder = allen::folder(&data_dir(args.place.data_dir.as_deref()));
                cells.push(Recording::open_specimen(&folder, id, read)?);
            }
            Err(_) if path.is_dir() => {
                let ids = allen::specimens(path);
                if ids.is_empty() {
                    return Err(usage(format!(
                        "{cell}: no recordings; expected folders `specimen_ID` with `ephys.nwb`"
                    )));
                }
                for id in ids {
                    cells.push(Recording::open_specimen(path, id, read)?);
                }
            }
            Err(_) if path.is_file() => cells.push(Recording::open(path, read)?),
            Err(_) => {
                let want = "a file (.nwb, .npz), a folder of recordings or the number of a specimen";
                return Err(usage(format!("{cell}: no such recording; expected {want}")));
            }
        }
    }
    if cells.is_empty() {
        let want = "files, folders or numbers of specimens, or `--synthetic N`";
        return Err(usage(format!("no cells: name {want}")));
    }
    Ok(cells)
}

/// What a cell is called.
pub(crate) fn name(cell: &Recording) -> String {
    match cell.specimen {
        Some(id) => id.to_string(),
        None => cell.file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// What cells are called, each in its own way: names are those of files.
fn names(cells: &[Recording]) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for cell in cells {
        let first = name(cell);
        let numbered = (2..).map(|k| format!("{first}-{k}"));
        let taken_by_none = |name: &String| !taken.iter().any(|t| files::file_stem(t) == files::file_stem(name));
        let free = std::iter::once(first.clone()).chain(numbered).find(taken_by_none);
        taken.extend(free);
    }
    taken
}

/// Time constants and the like, in units that do not depend on the step.
struct Readable {
    membrane_ms: f64,
    adaptation_ms: f64,
}

impl Readable {
    fn of(config: &FitConfig, fit: &CellFit) -> Self {
        let limits = snn_core::neurons::alif::Limits::from(config.neurons().limits);
        let tau = |decay: f64| if decay > 0.0 { -config.dt_ms / decay.ln() } else { 0.0 };
        Self { membrane_ms: tau(limits.beta(fit.beta)), adaptation_ms: tau(limits.decay(fit.decay)) }
    }
}

/// A line for each cell.
fn summary(cells: &[Recording], config: &FitConfig, outcome: &Outcome) -> Table {
    let sigmas = SIGMAS_MS.map(|sigma| Column::numbers(format!("explained, {sigma} ms"), ""));
    let mut columns = vec![
        Column::words("cell"),
        Column::numbers("recorded spikes", ""),
        Column::numbers("fitted spikes", ""),
        Column::numbers("distance", ""),
        Column::numbers("repeats itself, 15 ms", ""),
    ];
    columns.extend(sigmas);
    columns.extend([
        Column::numbers("membrane", "ms"),
        Column::numbers("adaptation", "ms"),
        Column::words("spikes from"),
        Column::words("label"),
    ]);
    let mut table = Table::new("summary", "Fitted cells", columns);
    let number = |x: Option<f64>, decimals| match x {
        Some(x) => Cell::number(Measured::value(x), decimals),
        None => Cell::missing("silent"),
    };
    let (names, seconds) = (names(cells), seconds(config, outcome));
    for (n, (cell, fit)) in cells.iter().zip(&outcome.fitted.cells).enumerate() {
        let test = cell.stimuli.last();
        let trials = test.map_or(0, |s| s.trials.len()).max(1);
        let segments = test.iter().flat_map(|s| &s.trials).flat_map(|t| &t.segments);
        let recorded: usize = segments.map(|s| in_view(s, seconds).count()).sum();
        let fitted: usize = outcome.on_test.spikes.iter().map(|stretch| stretch[n].len()).sum();
        let scores = &outcome.scores[n];
        let readable = Readable::of(config, fit);
        let from = test.and_then(|s| s.trials.first()).map_or("", |t| match t.spikes_from {
            SpikesFrom::File => "file",
            SpikesFrom::Detector => "detector",
        });
        let mut row = vec![
            Cell::text(&names[n]),
            number(Some(recorded as f64 / trials as f64), 1),
            number(Some(fitted as f64), 0),
            number(Some(fit.loss), 4),
            number(scores.last().and_then(|s| s.explained.norm), 3),
        ];
        row.extend(scores.iter().map(|s| number(s.explained.normalised(), 3)));
        row.extend([
            number(Some(readable.membrane_ms), 1),
            number(Some(readable.adaptation_ms), 1),
            Cell::text(from),
            Cell::text(cell.label.clone().unwrap_or_default()),
        ]);
        table.row(row);
    }
    table.note(
        "Spikes are those of the stimulus that was not fitted to, of the recordings in the mean of the repetitions. \
         Explained is the explained temporal variance over that with which the recording repeats itself.",
    );
    table
}

/// How much of each window was used, s.
fn seconds(config: &FitConfig, outcome: &Outcome) -> f64 {
    outcome.on_test.lanes.steps as f64 * config.dt_ms / 1e3
}

/// The times of a segment's spikes that were used, s.
pub(crate) fn in_view(segment: &Segment, seconds: f64) -> impl Iterator<Item = f64> {
    let times = segment.spikes.iter().map(|&bin| f64::from(bin) * GRID_MS / 1e3);
    times.filter(move |t| *t + 1e-9 < seconds)
}

/// The segment of a stimulus in which the cell fires most, over all repetitions.
pub(crate) fn liveliest(stimulus: &Stimulus, seconds: f64) -> usize {
    let segments = stimulus.trials.iter().map(|t| t.segments.len()).min().unwrap_or(0);
    let spikes = |b: usize| stimulus.trials.iter().map(|t| in_view(&t.segments[b], seconds).count()).sum::<usize>();
    (0..segments).rev().max_by_key(|&b| spikes(b)).unwrap_or(0)
}

/// The picture of one cell: the segment with most spikes of the stimulus that was not fitted to, and how the fit went.
fn picture(cell: &Recording, name: &str, config: &FitConfig, outcome: &Outcome, n: usize) -> Result<Figure> {
    let stimulus = cell.stimuli.last().context("no stimulus")?;
    let fit = &outcome.fitted.cells[n];
    let Simulated { lanes, membrane, threshold, spikes } = &outcome.on_test;
    let seconds = seconds(config, outcome);
    let shown = liveliest(stimulus, seconds);
    let trial = stimulus.trials.first().context("no sweep")?;
    let segment = trial.segments.get(shown).context("no segment")?;
    // A point for every millisecond shows all there is to see.
    let thin = |ms: f64| ((1.0 / ms).round() as usize).max(1);
    let own = |list: &[f64]| -> Vec<(f64, f64)> {
        let stretch = list.iter().skip(shown * lanes.steps * lanes.width).take(lanes.steps * lanes.width);
        let lane = stretch.skip(n).step_by(lanes.width).enumerate().step_by(thin(config.dt_ms));
        lane.map(|(t, &v)| (t as f64 * config.dt_ms / 1e3, v)).collect()
    };
    let current = segment.current_pa.iter().enumerate().map(|(t, &i)| (t as f64 * cell.step_ms / 1e3, f64::from(i)));
    let current = current.take_while(|(t, _)| *t < seconds).step_by(thin(cell.step_ms));
    let time = || Axis::linear("time (s)").limits(0.0, seconds);
    let fitted = spikes[shown][n].iter().map(|&t| (t as f64 * GRID_MS / 1e3, 0.0));
    // The sweeps from top to bottom, the model below them.
    let sweeps = stimulus.trials.len();
    let height = |k: usize| (sweeps - k) as f64;
    let recorded = stimulus.trials.iter().enumerate().flat_map(|(k, trial)| {
        trial.segments.get(shown).into_iter().flat_map(move |s| in_view(s, seconds).map(move |t| (t, height(k))))
    });
    let raster = Raster::default().group("fitted", fitted.collect()).group("recorded", recorded.collect());
    let rows = stimulus.trials.iter().enumerate().map(|(k, t)| (height(k), format!("sweep {}", t.sweep)));
    let rows = Axis::linear("").limits(-0.6, sweeps as f64 + 0.6).names(rows.chain([(0.0, "fitted".to_owned())]));
    let score = outcome.scores[n].last().and_then(|s| s.explained.normalised());
    let score = score.map_or("silent".into(), |x| format!("{:.1} % explained at 15 ms", 100.0 * x));
    let history = fit.history.iter().enumerate().map(|(epoch, &loss)| (epoch as f64 + 1.0, loss));
    let label = cell.label.as_ref().map_or(String::new(), |l| format!(" ({l})"));
    Ok(Figure::new(files::file_stem(name), format!("Cell {name}{label}: {score}"), 2)
        .caption(format!(
            "The segment of `{}` with most spikes, which was not fitted to: injected current, membrane and threshold of \
             the fitted neuron in thresholds at rest, its spikes below those of every sweep of the recording, and the \
             distance from the recorded spikes of `{}` while it was fitted.",
            stimulus.name,
            cell.stimuli.first().map_or("", |s| s.name.as_str())
        ))
        .panel(Panel::new(
            format!("{}, {} to {} s", stimulus.name, segment.start_s, segment.start_s + seconds),
            time(),
            Axis::linear("current (pA)"),
            Lines::new(vec![Series::new("", current).line()]),
        ))
        .panel(Panel::new(
            "fitted neuron",
            time(),
            Axis::linear("thresholds at rest"),
            Lines::new(vec![
                Series::new("membrane", own(membrane)).line().colour(0),
                Series::new("threshold", own(threshold)).line().colour(1),
            ]),
        ))
        .panel(Panel::new("spikes", time(), rows, raster).without_legend())
        .panel(Panel::new(
            "fitting",
            Axis::linear("epoch"),
            Axis::linear("van Rossum distance"),
            Lines::new(vec![Series::new("", history).line()]),
        )))
}

/// How much is explained of all cells.
fn overview(outcome: &Outcome) -> Figure {
    let values = |k: usize| -> Vec<f64> {
        outcome.scores.iter().filter_map(|s| s[k].explained.normalised()).map(|x| x.max(0.0)).collect()
    };
    let samples: Vec<Vec<f64>> = (0..SIGMAS_MS.len()).map(values).collect();
    let most = samples.iter().flatten().copied().fold(1.0, f64::max);
    let boxes = Boxes::new(SIGMAS_MS.map(|sigma| format!("{sigma} ms"))).group("", samples);
    let y = Axis::linear("explained temporal variance").limits(0.0, 1.02 * most);
    Figure::new("summary", "How much of the cells is explained", 1)
        .caption(
            "By the width of the bell that spikes are smoothed with; a dot for each cell. Below 0 counts as 0, silent \
             cells are left out.",
        )
        .panel(Panel::new("", "smoothing of spikes", y, boxes).without_legend())
}

fn write(
    out: &Path,
    cells: &[Recording],
    config: &FitConfig,
    protocol: &Protocol,
    outcome: &Outcome,
    table: &Table,
) -> Result<()> {
    let pictures = out.join("cells");
    std::fs::create_dir_all(&pictures).with_context(|| pictures.display().to_string())?;
    let names = names(cells);
    for (n, (cell, name)) in cells.iter().zip(&names).enumerate() {
        plot::write_figure(&pictures, &picture(cell, name, config, outcome, n)?)?;
    }
    plot::write_figure(out, &overview(outcome))?;
    files::write_atomically(&out.join("summary.md"), table.markdown().as_bytes())?;
    let fits: Vec<serde_json::Value> = cells
        .iter()
        .zip(&outcome.fitted.cells)
        .zip(&outcome.scores)
        .zip(&names)
        .map(|(((cell, fit), scores), name)| {
            let readable = Readable::of(config, fit);
            let scores: Vec<_> = scores
                .iter()
                .map(|s| {
                    let e = &s.explained;
                    json!({ "sigma_ms": s.sigma_ms, "raw": e.raw, "norm": e.norm, "explained": e.normalised() })
                })
                .collect();
            json!({
                "cell": name, "file": cell.file, "label": cell.label, "constants": fit, "scores": scores,
                "membrane_ms": readable.membrane_ms, "adaptation_ms": readable.adaptation_ms,
            })
        })
        .collect();
    let gradient = match config.gradient {
        AlifGradientConfig::Steps => "of the steps",
        AlifGradientConfig::Blocks => "of the block model",
    };
    let all = json!({ "config": config, "protocol": protocol, "gradient": gradient, "cells": fits });
    files::write_atomically(&out.join("fit.json"), serde_json::to_string_pretty(&all)?.as_bytes())
}
