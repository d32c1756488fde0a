//! The chain from rectifiers to fine-tuned spikes on colour images, with the published weights of VGG16 where they are.

use std::path::PathBuf;

use anyhow::Result;
use snn_core::backend::Memory as _;
use snn_data::{OpenOptions, registry};
use snn_train::{Experiment, presets};

use super::study::{Size, Study};
use super::ttfs_chain::{Demand, Source, demands_summary, demands_table, deviations, jobs, number, studies};
use super::ttfs_finetune::{Chain, agreement, chain, from, mapping_demand, panel, planned, protocol, record, stages};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Deviation, Figure, Lines, Marker, Panel, Profile, Report, Series, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "ttfs-cifar10";

/// The weights of a published model, by their name in the registry, and the network that they are of.
const PUBLISHED: &str = "cifar10vgg";
const PUBLISHED_FAMILY: &str = "vgg-bn";

/// Training accuracy that the network of rectifiers must reach, per cent.
const LEARNED: f64 = 50.0;

/// What a profile runs: a network by its name in presets and in print, its size, and the size of what runs with published
/// weights, which the smoke profile leaves out.
struct Plan {
    family: &'static str,
    name: &'static str,
    size: Option<Size>,
    pretrained: Option<Option<Size>>,
    seed: u64,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        let (family, name, seed) = ("conv-bn", "small VGG, norm", 1);
        match profile {
            Profile::Smoke => Self { family, name, size: Some(Size::new(400, 200, 2)), pretrained: None, seed },
            Profile::Quick => {
                let pretrained = Some(Some(Size::new(1000, 1000, 1)));
                Self { family, name, size: Some(Size::new(10_000, 2000, 5)), pretrained, seed }
            }
            Profile::Paper => {
                Self { family: PUBLISHED_FAMILY, name: "VGG16, norm", size: None, pretrained: Some(None), seed }
            }
        }
    }
}

/// The file of published weights, where it is at hand.
fn published(options: &OpenOptions) -> Option<PathBuf> {
    let weights = registry::weights().iter().find(|w| w.name == PUBLISHED)?;
    let path = options.data_dir.join("downloads").join(&weights.name).join(&weights.file);
    path.is_file().then_some(path)
}

/// A chain with what it is called.
struct Named {
    name: &'static str,
    chain: Chain,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let studies = studies(TARGET, &["cifar10"], args, quiet)?;
    let plan = Plan::new(args.profile);
    let mut found = Vec::new();
    for study in &studies {
        found.push(train(study, &plan)?);
    }
    publish(&report(args, &plan, &studies, &found)?, &args.out.join(TARGET))
}

fn train(study: &Study, plan: &Plan) -> Result<Vec<Named>> {
    let [relu, tune] = planned(study, plan.family, plan.size, plan.seed)?;
    let file = published(&study.data).filter(|_| study.set == "cifar10");
    let pretrained = match (file, plan.pretrained) {
        (Some(file), Some(size)) => Some((file, planned(study, PUBLISHED_FAMILY, size, plan.seed)?)),
        _ => None,
    };
    study.announce([&relu, &tune].into_iter().chain(pretrained.as_ref().map(|(_, [_, tune])| tune)))?;
    let mut list = Vec::new();
    if let Some((file, [relu, tune])) = pretrained {
        let name = "VGG16, published weights";
        let source = Source::file(relu, &file)?;
        list.push(Named { name, chain: from(study, &format!("{}, {name}", study.set), &source, tune, plan.seed)? });
    }
    let chain = chain(study, &format!("{}, {}", study.set, plan.name), relu, tune, plan.seed)?;
    list.push(Named { name: plan.name, chain });
    Ok(list)
}

fn report(args: &Reproduce, plan: &Plan, studies: &[Study], found: &[Vec<Named>]) -> Result<Report> {
    let title = "TTFS: from rectifiers to spikes on colour images";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = studies.iter().map(|s| s.label.clone()).collect();
    report.seeds = vec![plan.seed];
    (report.notes, report.seconds) = jobs(studies);
    report.notes.push(protocol());
    if !found.iter().flatten().any(|n| n.chain.trained.is_none()) {
        let when = if plan.pretrained.is_some() { "" } else { " and the profile is quick or paper" };
        report.notes.push(format!(
            "The published weights of VGG16 run as well where they lie in the data directory{when}: snn data download \
             {PUBLISHED} --from FILE"
        ));
    }
    report.versions = studies.first().map(|s| ("device".into(), s.device.describe())).into_iter().collect();
    let demands = demands(args.profile, studies, found);
    report.summary = summary(studies, found);
    report.summary.extend(demands_summary(&demands));
    let mut rows = Vec::new();
    for (study, named) in studies.iter().zip(found) {
        rows.extend(named.iter().map(|n| (study.set, n.name, std::slice::from_ref(&n.chain))));
    }
    report.tables = vec![stages(&rows), speed(&rows), agreement(&rows), demands_table(&demands)];
    report.deviations = all_deviations(args.profile, studies, found)?;
    report.figures = vec![figure(studies, found)];
    for (study, named) in studies.iter().zip(found) {
        for n in named {
            report.records.push(record(&format!("{}, {}", study.set, n.name), &n.chain)?);
        }
    }
    Ok(report)
}

fn all_deviations(profile: Profile, studies: &[Study], found: &[Vec<Named>]) -> Result<Vec<Deviation>> {
    let mut experiments: Vec<(String, Experiment, Experiment)> = Vec::new();
    for n in found.iter().flatten() {
        let c = &n.chain;
        let parts = [(c.trained.is_some().then_some(&c.relu), "rectifiers"), (Some(&c.tune), "fine-tuning")];
        for (e, what) in parts {
            let Some(e) = e else { continue };
            experiments.push((format!("{}, {what}", n.name), presets::find(&e.name)?.experiment, e.clone()));
        }
    }
    let mut list = deviations(&studies.iter().collect::<Vec<_>>(), &experiments);
    if profile != Profile::Paper {
        list.push(Deviation::new("network", "VGG16", "a small one in its manner").why("time"));
    }
    if profile == Profile::Paper {
        let why = "the recipe of the published weights is another program's";
        list.push(
            Deviation::new("rectifiers", "published weights", "also trained here, without augmentation").why(why),
        );
    }
    Ok(list)
}

fn demands(profile: Profile, studies: &[Study], found: &[Vec<Named>]) -> Vec<Demand> {
    let mut list = Vec::new();
    for (study, named) in studies.iter().zip(found) {
        for n in named {
            let what = format!("{}, {}", study.set, n.name);
            list.push(mapping_demand(what.clone(), &[&n.chain]));
            if let Some(trained) = &n.chain.trained {
                let accuracy = trained.training_accuracy().unwrap_or(0.0);
                list.push(Demand {
                    what: format!("{what}: training accuracy of rectifiers"),
                    limit: "at least 50 %",
                    found: format!("{accuracy:.1} %"),
                    met: accuracy >= LEARNED,
                    asked: profile != Profile::Smoke,
                });
            }
        }
    }
    list
}

fn summary(studies: &[Study], found: &[Vec<Named>]) -> Vec<String> {
    let mut lines = Vec::new();
    for (study, named) in studies.iter().zip(found) {
        for Named { name, chain } in named {
            let [relu, mapped, tuned] = chain.tests().map(|t| t.accuracy);
            let training = chain.trained.as_ref().map_or(String::new(), |t| {
                let share = t.training_accuracy().unwrap_or(f64::NAN);
                format!(
                    " ({share:.1} % of the training images in the last epoch, {:.0} a second)",
                    t.images_per_second()
                )
            });
            lines.push(format!(
                "{}, {name}: test accuracy {relu:.2} % by rectifiers{training}, {mapped:.2} % mapped, {tuned:.2} % after \
                 fine-tuning; {:.3} spikes per hidden neuron, outputs are read at {:.1}.",
                study.label.label,
                chain.mapped.after.sparsity.as_ref().map_or(f64::NAN, |s| s.hidden),
                chain.mapped.after.latency().unwrap_or(f64::NAN),
            ));
        }
    }
    lines
}

/// Accuracy on training images, and images per second.
fn speed(rows: &[(&str, &str, &[Chain])]) -> Table {
    let numbers = [
        ("rectifiers", "% training accuracy"),
        ("fine-tuning", "% training accuracy"),
        ("training", "images/s"),
        ("mapping", "images/s"),
        ("fine-tuning", "images/s"),
        ("test, rectifiers", "images/s"),
        ("test, mapped", "images/s"),
    ];
    let columns = ["data", "network"].map(Column::words).into_iter();
    let columns = columns.chain(numbers.map(|(title, unit)| Column::numbers(title, unit))).collect();
    let mut table = Table::new("speed", "Training accuracy and images per second", columns);
    for (set, name, chains) in rows {
        for c in *chains {
            let per_second = |t: &super::ttfs_chain::Tested| Some(t.samples as f64 / t.seconds);
            table.row([
                Cell::text(*set),
                Cell::text(*name),
                number(c.trained.as_ref().and_then(|t| t.training_accuracy()), 1),
                number(c.tuned.outcome.training_accuracy(), 1),
                number(c.trained.as_ref().map(|t| t.images_per_second()), 0),
                number(Some(c.mapped.images_per_second()), 0),
                number(Some(c.tuned.outcome.images_per_second()), 0),
                number(per_second(&c.mapped.before), 0),
                number(per_second(&c.mapped.after), 0),
            ]);
        }
    }
    table.note(
        "Training accuracy: of the last epoch, measured while the weights move. Mapping: training images that X_n is taken \
         from. Training runs in batches of the protocol, mapping and tests in batches of 128; the test of the mapped \
         network also counts spikes.",
    );
    table
}

fn figure(studies: &[Study], found: &[Vec<Named>]) -> Figure {
    let labels: Vec<&str> = studies.iter().map(|s| &*s.label.label).collect();
    let mut figure = Figure::new(TARGET, "Rectifiers, mapped, fine-tuned", 3).caption(format!(
        "Data: {}. A mapped network says what its rectifiers say. Spikes per neuron of the mapped network, layer by layer \
         from the first.",
        labels.join("; ")
    ));
    for (study, named) in studies.iter().zip(found) {
        let rows: Vec<(&str, &[Chain])> = named.iter().map(|n| (n.name, std::slice::from_ref(&n.chain))).collect();
        figure = figure.panel(panel(study.set, &rows));
        let (mut courses, mut layers) = (Lines::default(), Lines::default());
        let (mut epochs, mut deepest) = (1.0_f64, 1.0_f64);
        for (i, n) in named.iter().enumerate() {
            let of = |what: &str| if named.len() > 1 { format!("{}, {what}", n.name) } else { what.to_owned() };
            if let Some(trained) = &n.chain.trained {
                let training = trained.summary.history.iter().map(|r| (f64::from(r.epoch), 100.0 * r.accuracy));
                let training: Vec<(f64, f64)> = training.collect();
                epochs = epochs.max(training.len() as f64);
                courses.series.push(Series::new(of("training"), training).colour(i).fade(0.5));
                courses.series.push(Series::new(of("test"), trained.course()).colour(i));
            }
            for (stage, test, is_tuned) in
                [("mapped", &n.chain.mapped.after, false), ("fine-tuned", &n.chain.tuned.outcome.tested, true)]
            {
                let Some(sparsity) = &test.sparsity else { continue };
                let points = sparsity.layers.iter().enumerate().map(|(k, l)| (k as f64 + 1.0, l.spikes_per_neuron));
                let points: Vec<(f64, f64)> = points.collect();
                deepest = deepest.max(points.len() as f64);
                // Where both are equal, rings lie on dots.
                let series = Series::new(of(stage), points).colour(2 * i + usize::from(is_tuned));
                let tuned = |s: Series| s.marker(Marker::Ring).stroke(Stroke::Dashed);
                layers.series.push(if is_tuned { tuned(series) } else { series });
            }
        }
        let whole = |label: &str, last: f64| {
            Axis::linear(label).limits(0.5, last + 0.5).names((1..=last as usize).map(|k| (k as f64, k.to_string())))
        };
        figure = figure
            .panel(Panel::new("training of the rectifiers", whole("epoch", epochs), "accuracy (%)", courses))
            .panel(Panel::new(
                "spikes",
                whole("layer", deepest),
                Axis::linear("spikes per neuron").limits(0.0, 1.0),
                layers,
            ));
    }
    figure
}
