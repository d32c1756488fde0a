//! Several runs of the same experiments: how much they differ from seed to seed.

use crate::report::figure::Point;
use crate::report::{Axis, Boxes, Figure, Lines, Panel, Series};

use super::run_log::RunLog;

/// Runs of one experiment that differ in nothing but the seed.
struct Group<'a> {
    name: String,
    runs: Vec<&'a RunLog>,
}

/// Groups in the order of their first runs.
///
/// Runs belong together if their experiments are equal but for the seed; the same seed again begins a new group, since
/// a copy is no sample. Groups of equal names are told apart by the directory of their first run.
fn groups(runs: &[RunLog]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let fits = |group: &&mut Group<'_>| {
            let first = group.runs[0];
            (&first.experiment, &first.protocol) == (&run.experiment, &run.protocol)
                && group.runs.iter().all(|other| other.seed != run.seed)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: run.experiment.clone(), runs: vec![run] }),
        }
    }
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    for group in &mut groups {
        if names.iter().filter(|name| **name == group.name).count() > 1 {
            group.name = format!("{} ({})", group.name, group.runs[0].name);
        }
    }
    groups
}

/// Mean and sample standard deviation, the latter of at least two values.
fn mean_and_sd(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}

/// The mean course of a group's runs: at each epoch over the runs that were tested there.
fn mean_course(courses: &[Vec<(f64, f64)>]) -> Vec<(f64, f64, Option<f64>)> {
    let mut epochs: Vec<f64> = courses.iter().flatten().map(|point| point.0).collect();
    epochs.sort_by(f64::total_cmp);
    epochs.dedup();
    let at = |epoch: f64| {
        let points = courses.iter().flatten().filter(|point| point.0 == epoch);
        let (mean, sd) = mean_and_sd(&points.map(|point| point.1).collect::<Vec<_>>());
        (epoch, mean, sd)
    };
    epochs.into_iter().map(at).collect()
}

/// The figure `runs`, if any run was tested.
pub(super) fn figure(runs: &[RunLog]) -> Option<Figure> {
    let groups = groups(runs);
    let mut curves = Vec::new();
    let mut accuracy = Boxes::new(["best epoch", "last epoch"]);
    let mut loss = Boxes::new(["last epoch"]);
    let (mut tested, mut has_loss) = (false, false);
    for (colour, group) in groups.iter().enumerate() {
        let courses: Vec<Vec<(f64, f64)>> = group.runs.iter().map(|run| run.test_accuracy()).collect();
        tested |= courses.iter().any(|course| !course.is_empty());
        let name = format!("{} (n = {})", group.name, group.runs.len());
        let points = mean_course(&courses).into_iter().map(|(epoch, mean, sd)| Point {
            x: epoch,
            y: mean,
            low: sd.map(|sd| mean - sd),
            high: sd.map(|sd| mean + sd),
        });
        curves.push(Series::new(&*name, points).colour(colour).band());
        let best = courses.iter().filter_map(|course| course.iter().map(|point| point.1).reduce(f64::max));
        let last = courses.iter().filter_map(|course| course.last().map(|point| point.1));
        accuracy = accuracy.group(&*name, [best.collect(), last.collect()]).colour(colour);
        let losses: Vec<f64> = group.runs.iter().filter_map(|run| run.test_loss()).collect();
        has_loss |= !losses.is_empty();
        loss = loss.group(name, [losses]).colour(colour);
    }
    if !tested {
        return None;
    }
    let curves = Panel::new("mean and sample standard deviation", "epoch", "test accuracy (%)", Lines::new(curves));
    let accuracy = Panel::new("accuracy of single runs", "", "test accuracy (%)", accuracy);
    let figure = Figure::new("runs", "Test results over runs", 3).panel(curves).panel(accuracy.without_legend());
    let loss = Panel::new("loss of single runs", "", Axis::linear("test loss"), loss);
    Some(if has_loss { figure.panel(loss.without_legend()) } else { figure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;

    fn run(name: &str, protocol: &str, seed: u32, accuracies: &[f64]) -> RunLog {
        let epochs = accuracies.iter().enumerate();
        let epochs = epochs.map(|(i, a)| serde_json::json!({ "epoch": i + 1, "test_accuracy": a / 100.0 }));
        RunLog {
            experiment: "digits".into(),
            protocol: protocol.into(),
            seed: seed.to_string(),
            epochs: epochs.collect(),
            result: Some(serde_json::json!({ "test_loss": 0.5 })),
            ..RunLog::empty(name.as_ref())
        }
    }

    #[test]
    fn runs_that_differ_in_the_seed_alone_are_one_group() {
        let runs = [
            run("a", "wide", 1, &[]),
            run("b", "narrow", 1, &[]),
            run("c", "wide", 2, &[]),
            run("d", "wide", 1, &[]),
            run("e", "wide", 3, &[]),
        ];
        let groups = groups(&runs);
        let got: Vec<(&str, Vec<&str>)> =
            groups.iter().map(|g| (&*g.name, g.runs.iter().map(|r| &*r.name).collect())).collect();
        let want = [("digits (a)", vec!["a", "c", "e"]), ("digits (b)", vec!["b"]), ("digits (d)", vec!["d"])];
        assert_eq!(got, want);
    }

    #[test]
    fn a_group_is_drawn_as_mean_deviation_and_boxes() {
        // The second run is shorter and falls back from its best.
        let runs = [run("a", "", 1, &[90.0, 96.0, 98.0]), run("b", "", 2, &[94.0, 92.0])];
        let figure = figure(&runs).unwrap();
        let Kind::Lines(lines) = &figure.panels[0].kind else { panic!() };
        assert_eq!(lines.series[0].name, "digits (n = 2)");
        let points = &lines.series[0].points;
        // Deviations of 2 from means of 92 and 94: sums of squares 8, divided by n - 1 = 1.
        let sd = 8_f64.sqrt();
        for (point, (x, y, sd)) in points.iter().zip([(1.0, 92.0, Some(sd)), (2.0, 94.0, Some(sd)), (3.0, 98.0, None)])
        {
            let Point { low, high, .. } = *point;
            let near = |got: Option<f64>, want: Option<f64>| match (got, want) {
                (Some(got), Some(want)) => (got - want).abs() < 1e-9,
                (got, want) => got == want,
            };
            assert!(point.x == x && (point.y - y).abs() < 1e-9, "{point:?}");
            assert!(near(low, sd.map(|sd| y - sd)) && near(high, sd.map(|sd| y + sd)), "{point:?}");
        }
        let Kind::Boxes(boxes) = &figure.panels[1].kind else { panic!() };
        assert_eq!(boxes.groups[0].samples, [[98.0, 94.0], [98.0, 92.0]]);
        let Kind::Boxes(boxes) = &figure.panels[2].kind else { panic!() };
        assert_eq!(boxes.groups[0].samples, [[0.5, 0.5]]);
        assert!(super::figure(&[run("a", "", 1, &[]), run("b", "", 2, &[])]).is_none());
    }
}
