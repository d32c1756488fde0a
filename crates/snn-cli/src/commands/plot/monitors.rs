//! Every monitor of a run as numbers and as a line, and all of them in one figure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use snn_train::monitor::{self, Phase};

use super::run_log::RunLog;
use super::write_figure;
use crate::report::draw::draw;
use crate::report::{Axis, Figure, Kind, Lines, Panel, Series, csv, files};

/// Both phases with their colours, the same in every picture.
const PHASES: [(Phase, usize); 2] = [(Phase::Train, 0), (Phase::Test, 1)];

/// Writes the pictures and numbers of all monitors; names the overview, if there is anything to see.
pub(super) fn write(run: &RunLog, directory: &Path) -> Result<Option<PathBuf>> {
    let names = names(run);
    if names.is_empty() {
        return Ok(None);
    }
    for name in &names {
        for (phase, colour) in PHASES {
            let course = run.course(phase, name);
            if !course.is_empty() {
                write_one(&directory.join("monitors"), phase, name, &course, |title, label| {
                    let lines = Lines::new(vec![series("", &course, colour)]);
                    Panel::new(title, epochs(run), values(label, &[&course]), lines)
                })?;
            }
        }
    }
    write_figure(directory, &overview(run, &names)).map(Some)
}

/// The names of all monitors in a fixed order: what a run is judged by first, layers counted up, unknown names last.
fn names(run: &RunLog) -> Vec<String> {
    const FAMILIES: [&str; 9] = [
        "accuracy",
        "loss",
        "non_finite",
        "silent_labels",
        "silent_neurons",
        "spikes",
        "weight_norm",
        "learning_rate",
        "seconds",
    ];
    let place = |name: &&String| {
        let (family, member) = name.split_once('/').unwrap_or((name, ""));
        let family = FAMILIES.iter().position(|known| *known == family).unwrap_or(FAMILIES.len());
        let layer: String = member.chars().take_while(char::is_ascii_digit).collect();
        (family, layer.parse::<u32>().unwrap_or(u32::MAX))
    };
    let names: BTreeSet<&String> = run.monitors.iter().flat_map(|r| &r.values).map(|(name, _)| name).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(place);
    names.into_iter().cloned().collect()
}

/// An axis from the start of training to the last record: the same in every picture of a run.
fn epochs(run: &RunLog) -> Axis {
    let last = run.monitors.iter().map(|record| record.epoch).filter(|epoch| epoch.is_finite()).fold(0.0, f64::max);
    Axis::linear("epoch").limits(0.0, if last > 0.0 { last } else { 1.0 })
}

/// An axis that follows the data; a course that never changes lies in the middle of one from zero.
fn values(label: impl Into<String>, courses: &[&[(f64, f64)]]) -> Axis {
    let axis = Axis::linear(label);
    let mut all = courses.iter().flat_map(|course| course.iter().map(|(_, value)| *value));
    let first = all.next().unwrap_or(0.0);
    match all.all(|value| value == first) {
        true if first > 0.0 => axis.limits(0.0, 2.0 * first),
        true if first == 0.0 => axis.limits(0.0, 1.0),
        _ => axis,
    }
}

fn series(name: &str, course: &[(f64, f64)], colour: usize) -> Series {
    Series::new(name, course.iter().copied()).colour(colour)
}

fn write_one(
    directory: &Path,
    phase: Phase,
    name: &str,
    course: &[(f64, f64)],
    panel: impl FnOnce(String, String) -> Panel,
) -> Result<()> {
    let stem = files::file_stem(&format!("{}-{name}", phase.name()));
    let path = |ending: &str| directory.join(format!("{stem}.{ending}"));
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    monitor::write_course(&path("npz"), course)?;
    let header = vec!["epoch".to_owned(), name.to_owned()];
    let rows = course.iter().map(|(epoch, value)| vec![epoch.to_string(), value.to_string()]);
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    files::write_atomically(&path("csv"), csv::write(&rows).as_bytes())?;
    let figure = Figure::new(&*stem, "", 1).panel(panel(stem.clone(), monitor::label(name)));
    files::write_atomically(&path("png"), &draw(&figure)?.png()?)
}

/// A panel for each monitor; training and test share it.
fn overview(run: &RunLog, names: &[String]) -> Figure {
    let columns = if names.len() > 24 { 5 } else { 3 };
    let mut figure = Figure::new("monitors", format!("Monitors of {}", run.name), columns);
    for name in names {
        let courses = PHASES.map(|(phase, colour)| (phase, colour, run.course(phase, name)));
        let drawn = courses.iter().filter(|(_, _, course)| !course.is_empty());
        let lines = drawn.map(|(phase, colour, course)| {
            let series = series(phase.name(), course, *colour);
            // Ten records an epoch are a line, one is a point on it.
            if *phase == Phase::Train { series.line() } else { series }
        });
        let y = values("", &courses.each_ref().map(|(_, _, course)| &**course));
        figure = figure.panel(Panel::new(monitor::label(name), epochs(run), y, Lines::new(lines.collect())));
    }
    // One legend is enough: the first panel's that shows the most.
    let shown = |panel: &Panel| if let Kind::Lines(lines) = &panel.kind { lines.series.len() } else { 0 };
    let most = figure.panels.iter().map(shown).max().unwrap_or(0);
    let keeper = figure.panels.iter().position(|panel| shown(panel) == most);
    for (index, panel) in figure.panels.iter_mut().enumerate() {
        panel.legend = keeper == Some(index);
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;
    use snn_train::monitor::MonitorRecord;

    fn run(names: &[&str]) -> RunLog {
        let values = names.iter().map(|name| ((*name).to_owned(), 0.0)).collect();
        let mut run = RunLog::empty(Path::new("runs/a"));
        run.monitors.push(MonitorRecord { split: Phase::Train, epoch: 0.5, values });
        run
    }

    #[test]
    fn monitors_stand_in_a_fixed_order() {
        let run = run(&["own", "spikes/10", "seconds", "spikes/2", "weight_norm/0.weight", "loss", "accuracy"]);
        let want = ["accuracy", "loss", "spikes/2", "spikes/10", "weight_norm/0.weight", "seconds", "own"];
        assert_eq!(names(&run), want);
    }

    #[test]
    fn one_panel_has_the_legend_and_all_have_one_axis() {
        let mut run = run(&["loss", "learning_rate"]);
        run.monitors.push(MonitorRecord { split: Phase::Test, epoch: 2.0, values: vec![("loss".to_owned(), 3.0)] });
        let figure = overview(&run, &names(&run));
        assert_eq!(figure.panels.iter().map(|p| p.legend).collect::<Vec<_>>(), [true, false]);
        assert!(figure.panels.iter().all(|p| p.x.limits == Some((0.0, 2.0))));
        assert_eq!((figure.panels[0].y.limits, figure.panels[1].y.limits), (None, Some((0.0, 1.0))));
    }
}
