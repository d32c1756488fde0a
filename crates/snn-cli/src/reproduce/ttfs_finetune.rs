//! Networks of rectifiers as networks of neurons that spike once: accuracy before the mapping, after it, and after an epoch
//! of fine-tuning.

use std::collections::BTreeMap;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_train::mapping::TIE;
use snn_train::{Experiment, presets};

use super::study::{Size, Study, cell};
use super::ttfs_chain::{
    Demand, LATENCY, Mapped, Outcome, SPIKES, Source, Tested, Tuned, Windows, demands_summary, demands_table,
    deviations, differ, experiment, jobs, over, studies, tuning,
};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{Axis, Bars, Cell, Column, Figure, Measured, Panel, Profile, Record, Report, Table};

/// The command's name of this target.
pub(super) const TARGET: &str = "ttfs-finetune";

/// The published sets that it runs on.
const SETS: [&str; 2] = ["mnist", "fashion-mnist"];

/// What fine-tuning may cost, in points of accuracy.
const LOST: f64 = 0.1;

/// A network by its name in presets.
struct Net {
    family: &'static str,
    name: &'static str,
    smoke: Option<Size>,
    quick: Option<Size>,
}

const NETS: [Net; 5] = [
    Net { family: "fc2", name: "784-340-10", smoke: Some(Size::new(2000, 500, 2)), quick: Some(Size::new(0, 0, 5)) },
    Net {
        family: "conv",
        name: "small conv",
        smoke: Some(Size::new(600, 200, 3)),
        quick: Some(Size::new(20_000, 0, 2)),
    },
    Net {
        family: "conv-bn",
        name: "small conv, norm",
        smoke: Some(Size::new(600, 200, 3)),
        quick: Some(Size::new(20_000, 0, 2)),
    },
    Net { family: "vgg", name: "VGG16", smoke: None, quick: None },
    Net { family: "vgg-bn", name: "VGG16, norm", smoke: None, quick: None },
];

impl Net {
    /// Of a profile: nothing if the network is not part of it, else how much of the protocol.
    fn size(&self, profile: Profile) -> Option<Option<Size>> {
        match profile {
            Profile::Smoke => self.smoke.map(Some),
            Profile::Quick => self.quick.map(Some),
            Profile::Paper => Some(None),
        }
    }
}

fn seeds(profile: Profile) -> Vec<u64> {
    if profile == Profile::Smoke { vec![1] } else { vec![1, 2, 3] }
}

/// The three stages of a network.
pub(super) struct Chain {
    pub(super) seed: u64,
    pub(super) relu: Experiment,
    pub(super) tune: Experiment,
    /// Missing where weights came from a file.
    pub(super) trained: Option<Outcome>,
    pub(super) mapped: Mapped,
    pub(super) tuned: Tuned,
}

impl Chain {
    /// The test of the rectifiers, of the mapped network, and of the fine-tuned one.
    pub(super) fn tests(&self) -> [&Tested; 3] {
        [&self.mapped.before, &self.mapped.after, &self.tuned.outcome.tested]
    }

    /// Points that fine-tuning gains.
    pub(super) fn gain(&self) -> f64 {
        self.tuned.outcome.tested.accuracy - self.mapped.after.accuracy
    }
}

/// Trains, maps and fine-tunes.
pub(super) fn chain(study: &Study, name: &str, relu: Experiment, tune: Experiment, seed: u64) -> Result<Chain> {
    let trained = study.scratch(name, &relu)?;
    let chain = from(study, name, &Source::trained(relu), tune, seed)?;
    Ok(Chain { trained: Some(trained), ..chain })
}

/// Maps and fine-tunes.
pub(super) fn from(study: &Study, name: &str, source: &Source, tune: Experiment, seed: u64) -> Result<Chain> {
    let mapped = study.map(name, source, &Windows::PUBLISHED)?;
    let tune = tuning(tune, &mapped)?;
    let tuned = study.tune(&format!("{name}, fine-tuned"), source, &Windows::PUBLISHED, &tune)?;
    Ok(Chain { seed, relu: source.experiment.clone(), tune, trained: None, mapped, tuned })
}

/// The experiments of a network: of its rectifiers, and of the fine-tuning, which is one epoch. Where the latter's rate is
/// that of the former's first epoch, it goes on with that of its last update.
pub(super) fn planned(study: &Study, family: &str, size: Option<Size>, seed: u64) -> Result<[Experiment; 2]> {
    let relu = experiment(study, &format!("{family}-relu"), size, seed)?;
    let mut tune = experiment(study, &format!("{family}-finetune"), size.map(|s| Size { epochs: 1, ..s }), seed)?;
    let rate = &mut tune.train.optimiser.learning_rate;
    let last = study.last_rate(&relu)?;
    // Two digits say it.
    *rate = rate.min(format!("{last:.1e}").parse().unwrap_or(last));
    Ok([relu, tune])
}

/// What a mapping must do.
pub(super) fn mapping_demand(what: String, chains: &[&Chain]) -> Demand {
    let sum = |of: fn(&Mapped) -> usize| chains.iter().map(|c| of(&c.mapped)).sum::<usize>();
    let (same, clear) = (sum(|m| m.same), sum(|m| m.clear));
    Demand {
        what: format!("{what}: same class by spikes and rectifiers"),
        limit: "every test image that is no tie",
        found: format!("{same} of {clear}"),
        met: same == clear,
        asked: true,
    }
}

/// A network's chains, one for each seed.
type Runs<'n> = (&'n Net, Vec<Chain>);

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let studies = studies(TARGET, &SETS, args, quiet)?;
    let mut plan = Vec::new();
    for study in &studies {
        let mut nets = Vec::new();
        for net in &NETS {
            let Some(size) = net.size(args.profile) else { continue };
            for seed in seeds(args.profile) {
                nets.push((net, seed, planned(study, net.family, size, seed)?));
            }
        }
        study.announce(nets.iter().flat_map(|(_, _, both)| both))?;
        plan.push(nets);
    }
    let mut found: Vec<Vec<Runs<'_>>> = Vec::new();
    for (study, nets) in studies.iter().zip(plan) {
        let mut of_study: Vec<Runs<'_>> = Vec::new();
        for (net, seed, [relu, tune]) in nets {
            let done = chain(study, &format!("{}, {}, seed {seed}", study.set, net.name), relu, tune, seed)?;
            match of_study.last_mut() {
                Some((last, chains)) if last.family == net.family => chains.push(done),
                _ => of_study.push((net, vec![done])),
            }
        }
        found.push(of_study);
    }
    publish(&report(args, &studies, &found)?, &args.out.join(TARGET))
}

fn report(args: &Reproduce, studies: &[Study], found: &[Vec<Runs<'_>>]) -> Result<Report> {
    let title = "TTFS: networks of rectifiers mapped to neurons that spike once, and fine-tuned";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = studies.iter().map(|s| s.label.clone()).collect();
    report.seeds = seeds(args.profile);
    (report.notes, report.seconds) = jobs(studies);
    report.notes.push(protocol());
    report.versions = studies.first().map(|s| ("device".into(), s.device.describe())).into_iter().collect();
    let demands = demands(args.profile, studies, found);
    report.summary = summary(studies, found);
    report.summary.extend(demands_summary(&demands));
    let mut rows = Vec::new();
    for (study, nets) in studies.iter().zip(found) {
        rows.extend(nets.iter().map(|(net, chains)| (study.set, net.name, &chains[..])));
    }
    report.tables = vec![stages(&rows), agreement(&rows), demands_table(&demands)];
    let mut experiments = Vec::new();
    for (study, (net, chains)) in
        studies.iter().zip(found).flat_map(|(study, nets)| nets.iter().map(move |n| (study, n)))
    {
        if let Some(first) = chains.first() {
            for (e, what) in [(&first.relu, "rectifiers"), (&first.tune, "fine-tuning")] {
                let name = if studies.len() > 1 { format!("{}, {}", study.set, net.name) } else { net.name.to_owned() };
                experiments.push((format!("{name}, {what}"), presets::find(&e.name)?.experiment, e.clone()));
            }
        }
    }
    report.deviations = deviations(&studies.iter().collect::<Vec<_>>(), &experiments);
    report.figures = vec![figure(studies, found)];
    for (study, nets) in studies.iter().zip(found) {
        for (net, chains) in nets {
            for chain in chains {
                report.records.push(record(&format!("{}, {}", study.set, net.name), chain)?);
            }
        }
    }
    Ok(report)
}

/// What the stages are.
pub(super) fn protocol() -> String {
    "Protocol: a network of rectifiers is trained; the range of the data and its batch normalisation are fused into the \
     weights; windows are 1.5 times as long as the largest activation X_n of a training image; then one epoch of training \
     as a network of spikes, at the preset's rate or, if that is lower, the rate at which the training ended, in which windows grow to 10 times the largest activation of a batch, as published. The \
     original makes all windows for activations up to 1000 and leaves the X_n that it computes aside. By hand: snn train \
     PRESET-relu --out relu; snn map relu --out snn; snn train PRESET-finetune --from snn; snn eval snn"
        .into()
}

/// The numbers of a chain.
pub(super) fn record(what: &str, c: &Chain) -> Result<Record> {
    let [relu, mapped, tuned] = c.tests();
    let mut numbers = BTreeMap::from([
        ("accuracy_of_rectifiers".to_owned(), relu.accuracy / 100.0),
        ("accuracy_mapped".to_owned(), mapped.accuracy / 100.0),
        ("accuracy_tuned".to_owned(), tuned.accuracy / 100.0),
        ("largest_difference_of_outputs".to_owned(), c.mapped.difference),
        ("largest_output".to_owned(), c.mapped.largest),
        ("mapping_seconds".to_owned(), c.mapped.seconds),
        ("tuning_images_per_second".to_owned(), c.tuned.outcome.images_per_second()),
    ]);
    for (stage, test) in [("mapped", mapped), ("tuned", tuned)] {
        numbers.extend(test.sparsity.iter().flat_map(|s| {
            [(format!("spikes_per_hidden_neuron_{stage}"), s.hidden), (format!("latency_{stage}"), s.latency)]
        }));
    }
    Ok(Record {
        what: what.to_owned(),
        configuration: serde_json::json!({ "rectifiers": c.relu, "fine-tuning": c.tune }),
        seed: Some(c.seed),
        numbers,
        details: serde_json::json!({
            "trained": c.trained, "mapped": c.mapped, "tuned": c.tuned,
        }),
    })
}

fn demands(profile: Profile, studies: &[Study], found: &[Vec<Runs<'_>>]) -> Vec<Demand> {
    let mut list = Vec::new();
    for (study, nets) in studies.iter().zip(found) {
        for (net, chains) in nets {
            let what = format!("{}, {}", study.set, net.name);
            list.push(mapping_demand(what.clone(), &chains.iter().collect::<Vec<_>>()));
            let mean = chains.iter().map(Chain::gain).sum::<f64>() / chains.len().max(1) as f64;
            list.push(Demand {
                what: format!("{what}: mean change of accuracy by fine-tuning"),
                limit: "at most 0.1 points lost",
                found: format!("{mean:+.2} points{}", error(chains)),
                // Accuracies are multiples of a hundredth, but not in binary.
                met: mean >= -LOST - 1e-6,
                asked: profile != Profile::Smoke && study.label.as_published,
            });
        }
    }
    list
}

/// How sure an accuracy of the first chain is.
fn error(chains: &[Chain]) -> String {
    let of = |t: &Tested| {
        let share = t.accuracy / 100.0;
        100.0 * (share * (1.0 - share) / t.samples as f64).sqrt()
    };
    chains.first().map_or_else(String::new, |c| {
        format!(", with a standard error of {:.2} for each accuracy", of(&c.mapped.after))
    })
}

fn summary(studies: &[Study], found: &[Vec<Runs<'_>>]) -> Vec<String> {
    let mut lines = Vec::new();
    for (study, nets) in studies.iter().zip(found) {
        for (net, chains) in nets {
            let stage = |i: usize| over(chains.iter().map(|c| Some(c.tests()[i].accuracy)));
            let [relu, mapped, tuned] =
                [0, 1, 2].map(|i| stage(i).map_or_else(|| "-".into(), |m| Measured { n: None, ..m }.show(2)));
            lines.push(format!(
                "{}, {}: {relu} % by rectifiers, {mapped} % mapped, {tuned} % after fine-tuning; outputs of the first two {}.",
                study.label.label,
                net.name,
                differ(chains.iter().map(|c| c.mapped.difference / c.mapped.largest)),
            ));
        }
    }
    lines
}

/// Accuracy, spikes and latency of the stages: data, network and its chains.
pub(super) fn stages(rows: &[(&str, &str, &[Chain])]) -> Table {
    let numbers = [
        ("rectifiers", "% test accuracy"),
        ("mapped", "% test accuracy"),
        ("fine-tuned", "% test accuracy"),
        ("spikes per hidden neuron, mapped", ""),
        ("fine-tuned", ""),
        ("per input", ""),
        ("both, mapped", ""),
        ("latency, mapped", ""),
        ("fine-tuned", ""),
        ("early spikes, fine-tuned", "per image"),
    ];
    let columns = ["data", "network"].map(Column::words).into_iter();
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let mut table = Table::new("stages", "The three stages", columns);
    for (set, name, chains) in rows {
        let of = |value: &dyn Fn(&Chain) -> Option<f64>, decimals| cell(over(chains.iter().map(value)), decimals);
        let sparsity = |t: &Tested, value: fn(&snn_train::sparsity::Sparsity) -> f64| t.sparsity.as_ref().map(value);
        table.row([
            Cell::text(*set),
            Cell::text(*name),
            of(&|c| Some(c.tests()[0].accuracy), 2),
            of(&|c| Some(c.tests()[1].accuracy), 2),
            of(&|c| Some(c.tests()[2].accuracy), 2),
            of(&|c| sparsity(c.tests()[1], |s| s.hidden), 3),
            of(&|c| sparsity(c.tests()[2], |s| s.hidden), 3),
            of(&|c| sparsity(c.tests()[1], |s| s.input), 3),
            of(&|c| sparsity(c.tests()[1], |s| s.with_input), 3),
            of(&|c| c.tests()[1].latency(), 2),
            of(&|c| c.tests()[2].latency(), 2),
            of(&|c| c.tests()[2].early(), 3),
        ]);
    }
    table.note(SPIKES);
    table.note(LATENCY);
    table
}

/// How exact the mapping is.
pub(super) fn agreement(rows: &[(&str, &str, &[Chain])]) -> Table {
    let numbers = [
        ("largest difference of outputs", ""),
        ("largest output", ""),
        ("test images", ""),
        ("not tied", ""),
        ("same class", ""),
        ("mapping", "s"),
        ("X_n, layer by layer", ""),
    ];
    let columns = ["data", "network"].map(Column::words).into_iter();
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let mut table = Table::new("agreement", "Networks of rectifiers and mapped networks", columns);
    for (set, name, chains) in rows {
        for chain in *chains {
            let m = &chain.mapped;
            let name = if chains.len() > 1 { format!("{name}, seed {}", chain.seed) } else { (*name).to_owned() };
            let ranges: Vec<String> = m.ranges.iter().map(|x| format!("{x:.2}")).collect();
            table.row([
                Cell::text(*set),
                Cell::text(name),
                Cell::text(if m.difference > 0.0 { format!("{:.1e}", m.difference) } else { "0".into() }),
                Cell::number(m.largest, 2),
                Cell::number(m.before.samples as f64, 0),
                Cell::number(m.clear as f64, 0),
                Cell::number(m.same as f64, 0),
                Cell::number(m.seconds, 2),
                Cell::text(ranges.join(", ")),
            ]);
        }
    }
    table.note(format!(
        "Not tied: the best two outputs differ by more than {TIE:.0e}. Single precision. The time of a mapping is mostly \
         the pass over the training images that gives X_n."
    ));
    table
}

/// A panel with the stages of networks side by side.
pub(super) fn panel(title: &str, rows: &[(&str, &[Chain])]) -> Panel {
    let mut bars = Bars::new(rows.iter().map(|(name, _)| *name));
    for (i, stage) in ["rectifiers", "mapped", "fine-tuned"].iter().enumerate() {
        let values = rows.iter().map(|(_, chains)| {
            let m = over(chains.iter().map(|c| Some(c.tests()[i].accuracy)))?;
            Some((m.mean, m.sd))
        });
        bars = bars.group(*stage, values).colour(i);
    }
    // Bars that nearly fill the panel show nothing: the axis begins below the least of them.
    let all = rows.iter().flat_map(|(_, chains)| *chains).flat_map(Chain::tests).map(|t| t.accuracy);
    let (low, high) = all.fold((100.0_f64, 0.0_f64), |(low, high), a| (low.min(a), high.max(a)));
    let room = (high - low).max(0.1 * (100.0 - low)).max(0.3);
    let bottom = (10.0 * (low - room).max(0.0)).floor() / 10.0;
    let axis = Axis::linear("test accuracy (%)").limits(bottom, high + 0.4 * room);
    Panel::new(title, "", axis, bars)
}

fn figure(studies: &[Study], found: &[Vec<Runs<'_>>]) -> Figure {
    let labels: Vec<&str> = studies.iter().map(|s| &*s.label.label).collect();
    let mut figure = Figure::new(TARGET, "Rectifiers, mapped, fine-tuned", studies.len()).caption(format!(
        "Data: {}. A mapped network says what its rectifiers say; axes do not begin at 0.",
        labels.join("; ")
    ));
    for (study, nets) in studies.iter().zip(found) {
        let rows: Vec<(&str, &[Chain])> = nets.iter().map(|(net, chains)| (net.name, &chains[..])).collect();
        figure = figure.panel(panel(study.set, &rows));
    }
    figure
}
