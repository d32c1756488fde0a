//! The table of SPSN: accuracy and time of an epoch of LIF, SPSN-SB, SPSN-GS and a network without spikes, on SHD, in
//! three columns: basic, augmented, augmented with regularised rates.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::Experiment;
use snn_train::presets::{self, Preset};

use super::digits::{Digits, Trained, differences, shortened};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Bars, Comparison, ComparisonRow, Deviation, Figure, Lines, Measured, Panel, Profile, Record, Report, Series,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "spsn-table";

/// A neuron by the suffix of its presets, with the published rates of its hidden layers in each column: mean spikes of
/// a step, summed over the 128 neurons of the layer.
struct Neuron {
    suffix: &'static str,
    name: &'static str,
    rates: [Option<[f64; 3]>; 3],
}

const NEURONS: [Neuron; 4] = [
    Neuron { suffix: "lif", name: "LIF", rates: [Some([3.2, 5.0, 13.8]), Some([5.7, 6.5, 11.5]), None] },
    Neuron {
        suffix: "sb",
        name: "SPSN-SB",
        rates: [Some([63.4, 52.7, 58.4]), Some([55.0, 54.2, 46.6]), Some([49.2, 29.5, 29.6])],
    },
    Neuron {
        suffix: "gs",
        name: "SPSN-GS",
        rates: [Some([59.1, 66.4, 54.4]), Some([57.9, 62.5, 57.9]), Some([16.0, 11.5, 9.7])],
    },
    Neuron { suffix: "nonspiking", name: "Non-Spiking", rates: [None; 3] },
];

/// The columns by the suffix of their presets.
const COLUMNS: [(&str, &str); 3] = [("", "basic"), ("-augment", "augmented"), ("-reg", "regularised")];

/// Seed, what was run, what it came to.
type Runs = Vec<(u64, Experiment, Trained)>;

/// What was found, by neuron and column.
type Found = BTreeMap<(usize, usize), Runs>;

/// The preset of a neuron and column, if there is one: nothing is to be regularised without spikes.
fn preset(neuron: &Neuron, column: usize) -> Option<Preset> {
    presets::find(&format!("spsn-shd-{}{}", neuron.suffix, COLUMNS[column].0)).ok()
}

fn seeds(profile: Profile) -> Vec<u64> {
    match profile {
        Profile::Smoke => vec![0],
        Profile::Quick => vec![0, 1],
        Profile::Paper => vec![0, 1, 2],
    }
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let digits = Digits::open(TARGET, args, quiet)?;
    let cells: Vec<(usize, usize, u64, Experiment)> = NEURONS
        .iter()
        .enumerate()
        .flat_map(|(n, neuron)| (0..COLUMNS.len()).filter_map(move |c| Some((n, c, preset(neuron, c)?.experiment))))
        .flat_map(|(n, c, e)| seeds(args.profile).into_iter().map(move |seed| (n, c, seed, e.clone())))
        .map(|(n, c, seed, e)| (n, c, seed, shortened(e, args.profile, digits.set, seed)))
        .collect();
    digits.announce(cells.iter().map(|(_, _, _, e)| e))?;
    let mut found = Found::new();
    for (n, c, seed, experiment) in cells {
        let name = format!("{}, {}, seed {seed}", NEURONS[n].name, COLUMNS[c].1);
        let trained = digits.run(&name, &experiment, &[None], 1)?;
        found.entry((n, c)).or_default().push((seed, experiment, trained));
    }
    publish(&report(args, &digits, &found)?, &args.out.join(TARGET))
}

/// A quantity over seeds.
fn measured(found: &Found, cell: (usize, usize), of: impl Fn(&Trained) -> Option<f64>) -> Option<Measured> {
    let values: Option<Vec<f64>> = found.get(&cell)?.iter().map(|(_, _, t)| of(t)).collect();
    Measured::of(&values?)
}

/// Test accuracy in per cent.
fn accuracy(t: &Trained) -> Option<f64> {
    Some(100.0 * t.tests.first()?.first()?.accuracy)
}

fn report(args: &Reproduce, digits: &Digits, found: &Found) -> Result<Report> {
    let title = "SPSN: accuracy and time of an epoch on spoken digits";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = vec![digits.label.clone()];
    report.seeds = seeds(args.profile);
    report.notes = digits.jobs.notes();
    report.seconds = digits.jobs.counts().seconds;
    report.versions = vec![("device".into(), digits.device.describe())];
    report.summary = summary(found);
    report.comparisons = vec![comparison(args, digits, found)];
    report.deviations = deviations(args, digits, found);
    report.figures = vec![figure(digits, found)];
    for (&(n, c), runs) in found {
        for (seed, experiment, t) in runs {
            let test = t.tests.first().and_then(|tests| tests.first());
            report.records.push(Record {
                what: format!("{}, {}", NEURONS[n].name, COLUMNS[c].1),
                configuration: serde_json::to_value(experiment)?,
                seed: Some(*seed),
                numbers: BTreeMap::from([
                    ("test_accuracy".to_owned(), test.map_or(f64::NAN, |t| t.accuracy)),
                    ("test_seconds".to_owned(), test.map_or(f64::NAN, |t| t.seconds)),
                    ("epoch_seconds".to_owned(), t.epoch_seconds),
                ]),
                details: serde_json::json!({
                    "loss": t.losses, "training_accuracy": t.accuracies, "rates": test.map(|t| &t.rates),
                }),
            });
        }
    }
    Ok(report)
}

/// `a` is better, worse, or neither: the difference of means against the spread of both, where there are several seeds.
fn verdict(a: &Measured, b: &Measured) -> &'static str {
    let spread = match (a.sd, b.sd) {
        (Some(x), Some(y)) => x.hypot(y),
        _ => 0.0,
    };
    match a.mean - b.mean {
        d if d.abs() <= spread => "within the spread of",
        d if d > 0.0 => "above",
        d if d < 0.0 => "below",
        _ => "equal to",
    }
}

/// The order that was found, in computed sentences.
fn summary(found: &Found) -> Vec<String> {
    let at = |n: usize, c: usize| measured(found, (n, c), accuracy);
    let mut lines = Vec::new();
    let runs = found.values().map(Vec::len).max().unwrap_or(0);
    for (c, (_, column)) in COLUMNS.iter().enumerate() {
        let Some(lif) = at(0, c) else { continue };
        let others = (1..NEURONS.len()).filter_map(|n| {
            let m = at(n, c)?;
            Some(format!("{} {:.1} % ({} LIF)", NEURONS[n].name, m.mean, verdict(&m, &lif)))
        });
        let others: Vec<String> = others.collect();
        lines.push(format!("Test accuracy, {column}: LIF {:.1} %, {}.", lif.mean, others.join(", ")));
    }
    let parallel = [1, 2].into_iter().flat_map(|n| (0..COLUMNS.len()).map(move |c| (n, c)));
    let judged: Vec<bool> = parallel.filter_map(|(n, c)| Some(verdict(&at(n, c)?, &at(0, c)?) != "below")).collect();
    let matched = judged.iter().filter(|&&m| m).count();
    lines.push(format!(
        "The parallel neurons at least match LIF in {matched} of {} pairs (published: in all that it reports).",
        judged.len()
    ));
    for (of, over, what, published) in [
        (1, 0, "Augmentation", "raises the accuracy of LIF, SB and GS and lowers that of Non-Spiking"),
        (2, 1, "Regularising the rates", "raises the accuracy of SB and GS"),
    ] {
        let changes: Vec<String> = NEURONS
            .iter()
            .enumerate()
            .filter_map(|(n, neuron)| {
                let (a, b) = (at(n, of)?, at(n, over)?);
                Some(format!(
                    "{} by {:+.1} points ({} {})",
                    neuron.name,
                    a.mean - b.mean,
                    verdict(&a, &b),
                    COLUMNS[over].1
                ))
            })
            .collect();
        lines.push(format!("{what} changes {} (published: it {published}).", changes.join(", ")));
    }
    let seconds = |n: usize| measured(found, (n, 0), |t| Some(t.epoch_seconds)).map(|m| m.mean);
    if let (Some(lif), Some(sb), Some(gs)) = (seconds(0), seconds(1), seconds(2)) {
        lines.push(format!(
            "An epoch of LIF takes {:.2} times as long as one of SB and {:.2} times as one of GS (published: 46 and 37 times, \
             its LIF being a loop over time in Python).",
            lif / sb,
            lif / gs
        ));
    }
    for (&(n, c), runs) in found {
        let silent = runs.iter().filter(|(_, _, t)| t.is_silent()).count();
        if silent > 0 {
            lines.push(format!(
                "{}, {}, is silent in {silent} of {} runs: hardly a spike reaches its last hidden layer, and it stays at \
                 chance.",
                NEURONS[n].name,
                COLUMNS[c].1,
                runs.len()
            ));
        }
    }
    if runs < 2 {
        lines.push("One seed: differences of a few points mean nothing.".into());
    }
    lines
}

fn comparison(args: &Reproduce, digits: &Digits, found: &Found) -> Comparison {
    let mut table = Comparison::new("table", "Accuracy, time of an epoch, activity");
    let labelled = |row: ComparisonRow| match (digits.label.as_published, args.profile) {
        (false, _) => row.other_data(&digits.label.label),
        (true, Profile::Paper) => row,
        _ => row.other_data(format!("{}, shortened run", digits.label.label)),
    };
    for (n, neuron) in NEURONS.iter().enumerate() {
        for (c, (_, column)) in COLUMNS.iter().enumerate() {
            let Some(preset) = preset(neuron, c) else { continue };
            let what = format!("{}, {column}", neuron.name);
            let mut row = ComparisonRow::new(&what, "test accuracy", "%");
            row.published = preset.published.map(|p| Measured::value(p.accuracy));
            table.row(labelled(row.ours_if(measured(found, (n, c), accuracy))));
            let mut row = ComparisonRow::new(&what, "epoch", "s");
            row.published = preset.published.and_then(|p| p.epoch_seconds).map(Measured::value);
            if row.published.is_some() {
                row = row.note("published on a GPU that is not named");
            }
            table.row(labelled(row.ratio().ours_if(measured(found, (n, c), |t| Some(t.epoch_seconds)))));
            for layer in 0..3 {
                let ours = measured(found, (n, c), |t| t.tests.first()?.first()?.rates.get(layer).copied());
                if ours.is_some() {
                    let quantity = format!("spikes per step, layer {}", layer + 1);
                    let mut row = ComparisonRow::new(&what, quantity, "").decimals(1);
                    row.published = neuron.rates[c].map(|r| Measured::value(r[layer]));
                    table.row(labelled(row.ours_if(ours)));
                }
            }
        }
    }
    table.note(
        "Published: one run with seed 0 each. Spikes per step: summed over the 128 neurons of a layer, test split.",
    );
    table
}

fn deviations(args: &Reproduce, digits: &Digits, found: &Found) -> Vec<Deviation> {
    let mut list = vec![
        Deviation::new("hardware", "a GPU, not named", digits.device.describe()).why("epoch times do not compare"),
    ];
    if let (Some(published), Some((_, here, _))) = (preset(&NEURONS[0], 0), found.values().flatten().next()) {
        list.extend(differences(&published.experiment, here));
    }
    list.push(
        Deviation::new("integration", "FFT padded to 2 T", "the exact causal filters")
            .why("the published padding lets later inputs leak into earlier steps of short sequences"),
    );
    list.push(Deviation::new("seeds", "1", seeds(args.profile).len().to_string()));
    list.retain(|d| d.published != d.here);
    list
}

fn figure(digits: &Digits, found: &Found) -> Figure {
    let names = || COLUMNS.map(|(_, name)| name);
    let mut bars = Bars::new(names());
    for (n, neuron) in NEURONS.iter().enumerate() {
        let values = (0..COLUMNS.len()).map(|c| measured(found, (n, c), accuracy).map(|m| (m.mean, m.sd)));
        bars = bars.group(neuron.name, values).colour(n);
    }
    let mut published = Bars::new(names());
    for (n, neuron) in NEURONS.iter().enumerate() {
        let values = (0..COLUMNS.len()).map(|c| Some((preset(neuron, c)?.published?.accuracy, None)));
        published = published.published(neuron.name, values).colour(n);
    }
    let mut figure = Figure::new(TARGET, "SPSN on spoken digits", 3)
        .caption(format!(
            "Data of a, c to e: {}; error bars are standard deviations over seeds. b: the published values on SHD. c to e: \
             mean training accuracy over seeds.",
            digits.label.label
        ))
        .panel(Panel::new("test accuracy", "", Axis::linear("%").limits(0.0, 112.0), bars))
        .panel(Panel::new("test accuracy, published", "", Axis::linear("%").limits(0.0, 112.0), published));
    let seconds = Bars::new(NEURONS.map(|n| n.name)).group(
        "ours",
        (0..NEURONS.len()).map(|n| measured(found, (n, 0), |t| Some(t.epoch_seconds)).map(|m| (m.mean, m.sd))),
    );
    figure = figure.panel(Panel::new("time of an epoch, basic", "", "s", seconds));
    for (c, (_, column)) in COLUMNS.iter().enumerate() {
        let series = NEURONS.iter().enumerate().filter_map(|(n, neuron)| {
            let runs = found.get(&(n, c))?;
            let epochs = runs.first()?.2.accuracies.len();
            let mean = |e: usize| 100.0 * runs.iter().map(|(_, _, t)| t.accuracies[e]).sum::<f64>() / runs.len() as f64;
            let points = (0..epochs).map(|e| ((e + 1) as f64, mean(e)));
            Some(Series::new(neuron.name, points).line().colour(n))
        });
        let lines = Lines::new(series.collect());
        let y = Axis::linear("training accuracy (%)").limits(0.0, 100.0);
        figure = figure.panel(Panel::new(format!("training, {column}"), "epoch", y, lines));
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_but_one_has_a_preset() {
        let missing: Vec<(&str, usize)> = NEURONS
            .iter()
            .flat_map(|n| (0..3).filter(move |&c| preset(n, c).is_none()).map(move |c| (n.name, c)))
            .collect();
        assert_eq!(missing, [("Non-Spiking", 2)]);
    }

    #[test]
    fn differences_below_the_spread_are_no_order() {
        let of = |values: &[f64]| Measured::of(values).unwrap();
        assert_eq!(verdict(&of(&[70.0, 74.0]), &of(&[71.0, 75.0])), "within the spread of");
        assert_eq!(verdict(&of(&[80.0, 81.0]), &of(&[71.0, 72.0])), "above");
        assert_eq!(verdict(&of(&[60.0]), &of(&[71.0])), "below");
    }
}
