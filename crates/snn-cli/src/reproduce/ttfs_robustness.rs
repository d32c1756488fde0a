//! Mapped networks under noisy spike times, coarse times, coarse weights and short windows, before and after an epoch of
//! fine-tuning under the same.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_core::neurons::ttfs::Grid;
use snn_train::mapping::Network;
use snn_train::{Experiment, presets};

use super::study::{Size, Study};
use super::ttfs_chain::{
    LATENCY, Mapped, Source, Tuned, Windows, deviations, experiment, jobs, neurons, number, studies, tuning,
};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Deviation, Figure, Lines, Panel, Profile, Record, Report, Series, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "ttfs-robustness";

/// The published set that it runs on.
const SETS: [&str; 2] = ["mnist", "fashion-mnist"];

/// What is done to a network.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    /// Noise of that standard deviation on all times.
    Noise(f64),
    /// Bits of times.
    TimeBits(u32),
    /// Bits of weights.
    WeightBits(u32),
    /// Windows for that quantile of activations, with neurons that fire at the window's start at the latest.
    Quantile(f64),
}

/// The panels: title, axis.
const KINDS: [(&str, &str); 4] = [
    ("noise on spike times", "standard deviation (windows of the input)"),
    ("coarse times", "bits of a time"),
    ("coarse weights", "bits of a weight"),
    ("short windows", "quantile of activations that windows hold"),
];

impl Damage {
    /// Which of [`KINDS`].
    fn kind(self) -> usize {
        match self {
            Self::Noise(_) => 0,
            Self::TimeBits(_) => 1,
            Self::WeightBits(_) => 2,
            Self::Quantile(_) => 3,
        }
    }

    fn level(self) -> f64 {
        match self {
            Self::Noise(x) | Self::Quantile(x) => x,
            Self::TimeBits(bits) | Self::WeightBits(bits) => f64::from(bits),
        }
    }

    /// How windows follow from activations: fixed, since their length matters here.
    fn windows(self) -> Windows {
        match self {
            Self::Quantile(q) => Windows { quantile: Some(q), limited: true, ..Windows::TIGHT },
            _ => Windows::TIGHT,
        }
    }

    /// Does it to the layers of an experiment with the weights of a source.
    fn apply(self, e: &mut Experiment, study: &Study, source: &Source) -> Result<()> {
        let bounds = match self {
            Self::WeightBits(bits) => study.of_weights("range of weights", source, bits, |n| bounds(n, bits))?,
            _ => vec![],
        };
        for (at, neuron) in neurons(&mut e.model).enumerate() {
            match self {
                Self::Noise(std) => neuron.noise = std,
                Self::TimeBits(bits) => neuron.time_bits = bits,
                Self::WeightBits(bits) => {
                    let bound = bounds[at];
                    (neuron.weight_bits, neuron.weight_low, neuron.weight_high) = (bits, -bound, bound);
                }
                Self::Quantile(_) => {}
            }
        }
        Ok(())
    }
}

/// The range of coarse weights of each layer that spikes.
fn bounds(network: &Network, bits: u32) -> Result<Vec<f64>> {
    let layers = network.values.iter().filter(|v| v.name == "window").map(|v| v.layer);
    let weights = |layer| network.values.iter().find(|v| v.layer == layer && v.name == "weight");
    layers.map(|layer| finest(bits, weights(layer).map_or(&[], |v| &v.data))).collect()
}

/// The bound b for which weights of so many bits in [-b, b] are nearest to what they stand for, by the squared error.
fn finest(bits: u32, weights: &[f64]) -> Result<f64> {
    const STEPS: u32 = 40;
    let largest = weights.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
    if largest == 0.0 {
        return Ok(1.0);
    }
    let mut best = (f64::INFINITY, largest);
    for step in 1..=STEPS {
        let bound = largest * f64::from(step) / f64::from(STEPS);
        let grid = Grid::new(bits, -bound, bound)?;
        let error: f64 = weights.iter().map(|&w| (f64::from(grid.level(w as f32)) - w).powi(2)).sum();
        if error < best.0 {
            best = (error, bound);
        }
    }
    Ok(best.1)
}

/// A network by its name in presets and in print.
type Net = (&'static str, &'static str);

/// What a profile runs.
struct Plan {
    nets: Vec<Net>,
    size: Option<Size>,
    damages: Vec<Damage>,
    seed: u64,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        let fc2 = ("fc2", "784-340-10");
        let list = |noise: &[f64], times: &[u32], weights: &[u32], quantiles: &[f64]| {
            let noise = noise.iter().map(|&x| Damage::Noise(x));
            let times = times.iter().map(|&b| Damage::TimeBits(b));
            let weights = weights.iter().map(|&b| Damage::WeightBits(b));
            noise.chain(times).chain(weights).chain(quantiles.iter().map(|&q| Damage::Quantile(q))).collect()
        };
        let all = || {
            let (times, weights): (Vec<u32>, Vec<u32>) = ((1..=8).collect(), (2..=8).collect());
            list(&[0.05, 0.1, 0.2, 0.4, 0.8], &times, &weights, &[0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0])
        };
        let seed = 1;
        match profile {
            Profile::Smoke => {
                let damages = list(&[0.1, 0.4], &[1, 3], &[2, 4], &[0.9, 1.0]);
                Self { nets: vec![fc2], size: Some(Size::new(1500, 500, 2)), damages, seed }
            }
            Profile::Quick => Self { nets: vec![fc2], size: Some(Size::new(0, 0, 3)), damages: all(), seed },
            Profile::Paper => Self { nets: vec![fc2, ("conv", "small conv")], size: None, damages: all(), seed },
        }
    }
}

/// A network with what became of it under each damage.
struct Found {
    net: Net,
    relu: Experiment,
    /// Undamaged.
    mapped: Mapped,
    /// The same, fine-tuned as all others.
    clean: Tuned,
    under: Vec<(Damage, Experiment, Tuned)>,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let mut studies = studies(TARGET, &SETS, args, quiet)?;
    // One set tells the story.
    studies.truncate(args.sets.len().max(1));
    let plan = Plan::new(args.profile);
    let mut found = Vec::new();
    for study in &studies {
        found.push(train(study, &plan)?);
    }
    publish(&report(args, &plan, &studies, &found)?, &args.out.join(TARGET))
}

/// The fine-tuning of a network. Rates that keep a network as it is repair nothing: it is that of training from scratch.
fn tune_preset(study: &Study, net: Net, plan: &Plan) -> Result<Experiment> {
    let size = plan.size.map(|s| Size { epochs: 1, ..s });
    let mut e = experiment(study, &format!("{}-finetune", net.0), size, plan.seed)?;
    e.train.optimiser.learning_rate = 5e-4;
    Ok(e)
}

fn train(study: &Study, plan: &Plan) -> Result<Vec<Found>> {
    let mut planned = Vec::new();
    for &net in &plan.nets {
        let relu = experiment(study, &format!("{}-relu", net.0), plan.size, plan.seed)?;
        planned.push((net, relu, tune_preset(study, net, plan)?));
    }
    let each = planned
        .iter()
        .flat_map(|(_, relu, tune)| std::iter::once(relu).chain(std::iter::repeat_n(tune, plan.damages.len() + 1)));
    study.announce(each)?;
    planned.into_iter().map(|(net, relu, preset)| suffer(study, plan, net, relu, &preset)).collect()
}

fn suffer(study: &Study, plan: &Plan, net: Net, relu: Experiment, preset: &Experiment) -> Result<Found> {
    let name = format!("{}, {}", study.set, net.1);
    study.scratch(&name, &relu)?;
    let source = Source::trained(relu.clone());
    let mapped = study.map(&name, &source, &Windows::TIGHT)?;
    let e = tuning(preset.clone(), &mapped)?;
    let clean = study.tune(&format!("{name}, undamaged"), &source, &Windows::TIGHT, &e)?;
    let mut under = Vec::new();
    for &damage in &plan.damages {
        let what = format!("{name}, {} {}", KINDS[damage.kind()].0, damage.level());
        let windows = damage.windows();
        let own = if windows == Windows::TIGHT { None } else { Some(study.map(&what, &source, &windows)?) };
        let mut e = tuning(preset.clone(), own.as_ref().unwrap_or(&mapped))?;
        damage.apply(&mut e, study, &source)?;
        let tuned = study.tune(&what, &source, &windows, &e)?;
        under.push((damage, e, tuned));
    }
    Ok(Found { net, relu, mapped, clean, under })
}

fn report(args: &Reproduce, plan: &Plan, studies: &[Study], found: &[Vec<Found>]) -> Result<Report> {
    let title = "TTFS: noise, coarse times, coarse weights and short windows, before and after fine-tuning";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = studies.iter().map(|s| s.label.clone()).collect();
    report.seeds = vec![plan.seed];
    (report.notes, report.seconds) = jobs(studies);
    report.notes.extend(notes(found));
    report.versions = studies.first().map(|s| ("device".into(), s.device.describe())).into_iter().collect();
    for (study, nets) in studies.iter().zip(found) {
        for f in nets {
            report.summary.extend(summary(study, f));
            report.tables.push(table(study, f));
            report.figures.push(figure(study, f));
            for (damage, e, tuned) in &f.under {
                report.records.push(record(study, f, *damage, e, tuned, plan)?);
            }
        }
    }
    report.deviations = all_deviations(studies, found)?;
    Ok(report)
}

fn notes(found: &[Vec<Found>]) -> Vec<String> {
    let mut list = vec![
        "Protocol: a network of rectifiers is trained and mapped; its windows are as long as the largest activation X_n of \
         a training image and stay so. The mapped network is tested under each damage, trained for one epoch under it \
         from the mapped weights with the learning rate of training from scratch, and tested again, with the same noise."
            .to_owned(),
        "Noise: of one standard deviation for all times, silent neurons included, in units of time, of which the window of \
         the input is one. The times of the input are noisy in tests alone, as published, so that fine-tuning cannot learn \
         to live with that part. Coarse times: 2^bits evenly spaced times in each window, that of the input included, with \
         its end among them. Coarse weights: those of hidden layers, 2^bits values in [-b, b], with the b of each layer for \
         which they are nearest to the mapped ones; gradients go straight through; outputs keep their weights. Short \
         windows: as long as a quantile of the activations of the neurons that fire; who would fire earlier fires when the \
         window begins."
            .to_owned(),
    ];
    for f in found.iter().flatten() {
        let ranges: Vec<String> = f.mapped.ranges.iter().map(|x| format!("{x:.2}")).collect();
        list.push(format!(
            "Windows of {}: 1 (input), then {}. By hand: snn train {} --out relu; snn map relu --out snn (--quantile Q \
             --limited for short windows); snn eval snn --set model.layers.0.neuron.noise=0.1",
            f.net.1,
            ranges.join(", "),
            f.relu.name
        ));
    }
    list
}

fn record(study: &Study, f: &Found, damage: Damage, e: &Experiment, tuned: &Tuned, plan: &Plan) -> Result<Record> {
    let after = &tuned.outcome.tested;
    Ok(Record {
        what: format!("{}, {}, {}", study.set, f.net.1, KINDS[damage.kind()].0),
        configuration: serde_json::to_value(e)?,
        seed: Some(plan.seed),
        numbers: BTreeMap::from([
            ("level".to_owned(), damage.level()),
            ("accuracy_undamaged".to_owned(), f.mapped.after.accuracy / 100.0),
            ("accuracy_before".to_owned(), tuned.before.accuracy / 100.0),
            ("accuracy_after".to_owned(), after.accuracy / 100.0),
            ("latency".to_owned(), tuned.before.latency().unwrap_or(f64::NAN)),
        ]),
        details: serde_json::json!({ "before": tuned.before, "after": after, "epochs": tuned.outcome.summary.history }),
    })
}

fn summary(study: &Study, f: &Found) -> Vec<String> {
    let clean = f.mapped.after.accuracy;
    let mut lines = vec![format!(
        "{}, {}: {clean:.2} % undamaged and {:.2} % after an epoch of training without damage; outputs are read at {:.2}.",
        study.label.label,
        f.net.1,
        f.clean.outcome.tested.accuracy,
        f.mapped.after.latency().unwrap_or(f64::NAN)
    )];
    for (kind, (title, _)) in KINDS.iter().enumerate() {
        let of_kind = f.under.iter().filter(|(d, _, _)| d.kind() == kind);
        let worst = of_kind.min_by(|a, b| a.2.before.accuracy.total_cmp(&b.2.before.accuracy));
        let Some((damage, _, tuned)) = worst else { continue };
        let unit = match damage {
            Damage::Noise(x) => format!("a standard deviation of {x}"),
            Damage::TimeBits(1) => "1 bit".into(),
            Damage::TimeBits(bits) | Damage::WeightBits(bits) => format!("{bits} bits"),
            Damage::Quantile(q) => {
                format!(
                    "windows for a quantile of {q}, outputs read at {:.2}",
                    tuned.before.latency().unwrap_or(f64::NAN)
                )
            }
        };
        lines.push(format!(
            "{}: worst with {unit}, {:.2} % before and {:.2} % after fine-tuning.",
            sentence(title),
            tuned.before.accuracy,
            tuned.outcome.tested.accuracy
        ));
    }
    lines
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn table(study: &Study, f: &Found) -> Table {
    let numbers = [
        ("level", ""),
        ("before", "% test accuracy"),
        ("after", "% test accuracy"),
        ("lost before", "points"),
        ("lost after", "points"),
        ("latency", ""),
        ("spikes per hidden neuron, before", ""),
        ("after", ""),
        ("early spikes, after", "per image"),
    ];
    let columns = std::iter::once(Column::words("damage"));
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let name = format!("{}-{}", study.set, f.net.0);
    let mut table = Table::new(name, format!("Before and after fine-tuning: {}, {}", study.set, f.net.1), columns);
    let clean = &f.mapped.after;
    let all = std::iter::once((None, &f.clean)).chain(f.under.iter().map(|(d, _, tuned)| (Some(*d), tuned)));
    for (damage, tuned) in all {
        let (before, after) = (&tuned.before, &tuned.outcome.tested);
        let decimals = match damage {
            Some(Damage::Noise(_)) => 2,
            Some(Damage::Quantile(_)) => 3,
            _ => 0,
        };
        table.row([
            Cell::text(damage.map_or("none", |d| KINDS[d.kind()].0)),
            number(damage.map(Damage::level), decimals),
            Cell::number(before.accuracy, 2),
            Cell::number(after.accuracy, 2),
            Cell::number(clean.accuracy - before.accuracy, 2),
            Cell::number(clean.accuracy - after.accuracy, 2),
            number(before.latency(), 2),
            number(before.sparsity.as_ref().map(|s| s.hidden), 3),
            number(after.sparsity.as_ref().map(|s| s.hidden), 3),
            number(after.early(), 3),
        ]);
    }
    table.note(
        "Lost: against the mapped network without damage; a negative number is a gain, since an epoch of training is one. \
         Spikes are counted without noise; one whose coarse time is the end of its window is none.",
    );
    table.note(LATENCY);
    table
}

fn all_deviations(studies: &[Study], found: &[Vec<Found>]) -> Result<Vec<Deviation>> {
    let mut experiments = Vec::new();
    for f in found.first().into_iter().flatten() {
        let parts = [(Some(&f.relu), "rectifiers"), (f.under.first().map(|(_, e, _)| e), "fine-tuning")];
        for (e, what) in parts {
            let Some(e) = e else { continue };
            experiments.push((format!("{}, {what}", f.net.1), presets::find(&e.name)?.experiment, e.clone()));
        }
    }
    let mut list = deviations(&studies.iter().collect::<Vec<_>>(), &experiments);
    let why = "the published range leaves hardly a weight at few bits";
    list.push(Deviation::new("range of coarse weights", "-1 to 1", "that of the least error, layer by layer").why(why));
    list.push(
        Deviation::new("coarse times", "fail in the published program", "as its text means them")
            .why("its range of times is of the wrong kind"),
    );
    list.push(
        Deviation::new(
            "windows",
            "for activations up to 1000, quantiles are read and not used",
            "for those of the data",
        )
        .why("otherwise neither a grid of times nor a quantile means anything"),
    );
    Ok(list)
}

fn figure(study: &Study, f: &Found) -> Figure {
    let clean = f.mapped.after.accuracy;
    let mut figure = Figure::new(
        format!("{TARGET}-{}-{}", study.set, f.net.0),
        format!("{}, {}: accuracy under damage", study.set, f.net.1),
        2,
    )
    .caption(format!(
        "Data: {}. The mapped network under each damage, before and after one epoch of training under the same. The \
         line is the mapped network without damage, {clean:.2} %; an epoch of training without damage leads to {:.2} %.",
        study.label.label,
        f.clean.outcome.tested.accuracy
    ));
    for (kind, (title, axis)) in KINDS.iter().enumerate() {
        let points = |of: &dyn Fn(&Tuned) -> f64| -> Vec<(f64, f64)> {
            let of_kind = f.under.iter().filter(|(d, _, _)| d.kind() == kind);
            of_kind.map(|(d, _, t)| (d.level(), of(t))).collect()
        };
        let before = points(&|t| t.before.accuracy);
        let after = points(&|t| t.outcome.tested.accuracy);
        // Levels of noise double, and quantiles crowd at 1: each level has a place of its own there.
        let places = kind == 0 || kind == 3;
        let levels: Vec<f64> = before.iter().map(|p| p.0).collect();
        let put = |list: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
            let place = |(i, p): (usize, (f64, f64))| if places { (i as f64, p.1) } else { p };
            list.into_iter().enumerate().map(place).collect()
        };
        let x = if places {
            let names = levels.iter().enumerate().map(|(i, level)| (i as f64, level.to_string()));
            Axis::linear(*axis).limits(-0.4, levels.len() as f64 - 0.6).names(names)
        } else {
            let (first, last) = (levels.first().copied().unwrap_or(0.0), levels.last().copied().unwrap_or(1.0));
            let names = levels.iter().map(|&level| (level, level.to_string()));
            Axis::linear(*axis).limits(first - 0.4, last + 0.4).names(names)
        };
        let least = before.iter().chain(&after).map(|p| p.1).fold(clean, f64::min);
        let top = after.iter().map(|p| p.1).fold(clean, f64::max);
        // Differences by chance alone must not fill a panel.
        let room = (top - least).max(2.0);
        let y = Axis::linear("test accuracy (%)").limits((least - 0.1 * room).max(0.0), (top + 0.1 * room).min(100.5));
        let series = vec![
            Series::new("before fine-tuning", put(before)).colour(0).stroke(Stroke::Dashed),
            Series::new("after", put(after)).colour(1),
        ];
        let panel = Panel::new(*title, x, y, Lines::new(series).reference(clean, "undamaged"));
        figure = figure.panel(if kind == 0 { panel } else { panel.without_legend() });
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finest_grid_leaves_out_a_lonely_weight_at_few_bits_and_keeps_it_at_many() {
        let mut weights: Vec<f64> = (0..2000).map(|i| (f64::from(i) - 999.5) / 1e4).collect();
        weights.push(1.0);
        let (few, many) = (finest(2, &weights).unwrap(), finest(8, &weights).unwrap());
        assert!(few < 0.3 && many > 0.9, "{few} {many}");
        assert_eq!(finest(4, &[0.0, 0.0]).unwrap(), 1.0);
    }

    #[test]
    fn every_damage_of_every_profile_has_a_panel_and_windows_of_its_own_only_for_quantiles() {
        for profile in [Profile::Smoke, Profile::Quick, Profile::Paper] {
            let plan = Plan::new(profile);
            for kind in 0..KINDS.len() {
                assert!(plan.damages.iter().filter(|d| d.kind() == kind).count() > 1, "{profile} {kind}");
            }
            for damage in plan.damages {
                assert_eq!(damage.windows() == Windows::TIGHT, !matches!(damage, Damage::Quantile(_)));
            }
        }
    }
}
