//! `snn plot`: the course of runs, from their logs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::args::Plot;
use crate::console;
use crate::report::draw::draw;
use crate::report::{Axis, Figure, Lines, Panel, Series, csv, files};

/// What one run's log says of every epoch.
struct Course {
    name: String,
    epochs: Vec<Value>,
}

impl Course {
    fn read(run: &Path) -> Result<Self> {
        let path = run.join("log.jsonl");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: is no run's log", path.display()))?;
        let epochs = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|v| v["event"] == "epoch")
            .collect();
        Ok(Self { name: run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned(), epochs })
    }

    fn series(&self, name: &str, field: &str, scale: f64) -> Series {
        let points = self.epochs.iter().filter_map(|e| Some((e["epoch"].as_f64()?, e[field].as_f64()? * scale)));
        Series::new(name, points.collect::<Vec<_>>())
    }
}

pub(crate) fn run(args: &Plot) -> Result<()> {
    let courses: Vec<Course> = args.runs.iter().map(|r| Course::read(r)).collect::<Result<_>>()?;
    if let Some(empty) = courses.iter().find(|c| c.epochs.is_empty()) {
        anyhow::bail!("{}: the log holds no finished epoch yet", empty.name);
    }
    let each = |field: &str, scale: f64| {
        Lines::new(courses.iter().enumerate().map(|(i, c)| c.series(&c.name, field, scale).colour(i)).collect())
    };
    let mut accuracy = each("accuracy", 100.0);
    for (i, course) in courses.iter().enumerate() {
        let test = course.series(&format!("{} (test)", course.name), "test_accuracy", 100.0).colour(i).dots();
        if !test.points.is_empty() {
            accuracy.series.push(test);
        }
    }
    let figure = Figure::new("training", "Training", 2)
        .panel(Panel::new("loss", "epoch", Axis::linear("mean training loss"), each("loss", 1.0)))
        .panel(Panel::new("accuracy", "epoch", "accuracy (%)", accuracy))
        .panel(Panel::new("activity", "epoch", "hidden spikes per sample", each("spikes_per_sample", 1.0)))
        .panel(Panel::new("time", "epoch", "seconds per epoch", each("seconds", 1.0)));
    let out = args.out.as_deref().unwrap_or(&args.runs[0]);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let picture = draw(&figure)?;
    for (name, bytes) in [
        ("training.svg", picture.svg().into_bytes()),
        ("training.png", picture.png()?),
        ("training.csv", csv::figure_csv(&figure).into_bytes()),
    ] {
        files::write_atomically(&out.join(name), &bytes)?;
    }
    console::line(format_args!("{}", out.join("training.png").display()))
}
