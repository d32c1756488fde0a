//! Why networks of neurons that spike once are hard to train unless the slope at the threshold is constant: gradients
//! and Jacobians before the first step, then training beside rectifiers that begin with the same effective weights.
//!
//! Everything trains in memory, by plain gradient descent: an optimiser that scales gradients would hide their size.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use snn_core::backend::Memory as _;
use snn_cpu::Cpu;
use snn_data::{Encode, Loader, LoaderOptions};
use snn_train::config::{
    DataConfig, Init, LayerConfig, ModelConfig, NeuronConfig, NoOptions, OptimiserConfig, OptimiserKind, ReadoutConfig,
    ReadoutNeuron, Reduce, SlopeConfig, TrainConfig, TtfsConfig,
};
use snn_train::losses::Loss;
use snn_train::mapping::Network;
use snn_train::propagation::{EffectiveWeights, Eigenvalue, Learner, SideBySide, effective_weights, hidden_gradients};
use snn_train::trainer::{RunOptions, Split, Upload, build_model, evaluate};
use snn_train::{Experiment, Stack};

use super::study::{Study, cell};
use super::ttfs_chain::{Demand, demands_summary, demands_table, number, over, studies};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::figure::Point;
use crate::report::{
    Axis, Cell, Column, Deviation, Figure, Lines, Marker, Panel, Profile, Record, Report, Series, Stroke, Table,
};
use crate::usage;

/// The command's name of this target.
pub(super) const TARGET: &str = "ttfs-gradients";

/// The networks in the order of tables and colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Model {
    Rectifiers,
    One,
    Naive,
    Smart,
}

impl Model {
    const ALL: [Self; 4] = [Self::Rectifiers, Self::One, Self::Naive, Self::Smart];
    /// Those that spike.
    const SPIKING: [Self; 3] = [Self::One, Self::Naive, Self::Smart];

    fn name(self) -> &'static str {
        match self {
            Self::Rectifiers => "rectifiers",
            Self::One => "slope 1 (B1)",
            Self::Naive => "alpha1, naive",
            Self::Smart => "alpha1, smart",
        }
    }

    fn neuron(self) -> NeuronConfig {
        let spikes = |slope| NeuronConfig::Ttfs(TtfsConfig { slope, ..TtfsConfig::default() });
        match self {
            Self::Rectifiers => NeuronConfig::Relu(NoOptions {}),
            Self::One => spikes(SlopeConfig::One),
            Self::Naive => spikes(SlopeConfig::AlphaNaive),
            Self::Smart => spikes(SlopeConfig::AlphaSmart),
        }
    }

    /// The curve of a model, its colour and its marks: slope 1 lies on rectifiers and must leave them to be seen.
    fn series(self, name: &str, points: impl IntoIterator<Item = impl Into<Point>>) -> Series {
        let colour = Self::ALL.iter().position(|m| *m == self).unwrap_or(0);
        let series = Series::new(name, points).colour(colour);
        if self == Self::One { series.marker(Marker::Ring).stroke(Stroke::Dashed) } else { series }
    }
}

/// How much a profile runs.
#[derive(Debug, Clone, PartialEq)]
struct Protocol {
    samples: usize,
    test: usize,
    epochs: u32,
    /// Hidden layers and neurons of each, of the networks that train.
    depths: Vec<usize>,
    width: usize,
    seeds: Vec<u64>,
    /// The same of those that are looked at before the first step.
    looked: Vec<usize>,
    looked_width: usize,
    draws: u64,
}

impl Protocol {
    fn of(profile: Profile) -> Self {
        let quick = Self {
            samples: 8000,
            test: 2000,
            epochs: 2,
            depths: vec![2, 8],
            width: 64,
            seeds: vec![1],
            looked: vec![2, 4, 8, 16],
            looked_width: 64,
            draws: 5,
        };
        match profile {
            Profile::Smoke => Self {
                samples: 200,
                test: 200,
                epochs: 1,
                depths: vec![2, 6],
                width: 32,
                looked: vec![2, 6],
                looked_width: 32,
                draws: 2,
                ..quick
            },
            Profile::Quick => quick,
            Profile::Paper => Self {
                depths: vec![2, 4, 8, 16],
                seeds: vec![1, 2, 3],
                looked: vec![2, 4, 8, 16, 32],
                looked_width: 128,
                draws: 10,
                ..quick
            },
        }
    }

    /// All depths, each once.
    fn all_depths(&self) -> Vec<usize> {
        let mut all = [&self.looked[..], &self.depths].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The learning rate and the samples of a batch.
const RATE: f64 = 0.01;
const BATCH: usize = 32;

/// From this depth on gradients must be clearly apart, by at least this factor.
const DEEP: usize = 8;
const APART: f64 = 100.0;

/// How far slope 1 may leave the way of rectifiers.
const FARTHEST: f64 = 1e-5;
const LEAST_COSINE: f64 = 0.9999;

/// Which layer's Jacobian is shown: the first that is square.
const SHOWN: usize = 1;
/// Real and imaginary parts are shown from minus these to these; a panel is that much wider than high.
const PLANE: [f64; 2] = [3.1, 2.5];
/// As many eigenvalues are shown of a model at most.
const DOTS: usize = 320;
/// Eigenvalues of a square matrix of independent entries with variance 2 over its side lie within this.
const CIRCLE: f64 = std::f64::consts::SQRT_2;

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    what: &'static str,
    experiment: &'a Experiment,
    data: &'a str,
    device: String,
}

/// A network before its first step. Numbers that are not finite are none.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Look {
    /// Norm of the gradient on the output of each hidden layer, the first one first.
    gradients: Vec<Option<f64>>,
    /// Share of hidden neurons without a positive slope.
    without_slope: f64,
    /// Eigenvalues of the second hidden layer, real and imaginary part.
    spectrum: Vec<(f64, f64)>,
    /// The largest modulus of each square hidden layer.
    largest: Vec<f64>,
}

/// What a training came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Learnt {
    diverged: Option<u64>,
    /// Of the last epoch, while the weights moved; in per cent, as the test. None after divergence.
    training: Option<f64>,
    test: Option<f64>,
}

/// Cosine and distance after a step.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    step: u64,
    cosine: Option<f64>,
    distance: Option<f64>,
}

/// A network and its twin.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trained {
    spikes: Learnt,
    twin: Learnt,
    /// As of [`Look`], after the last step.
    without_slope: f64,
    steps: Vec<Step>,
}

/// The jobs of one model and depth, by seed.
struct Found<T> {
    model: Model,
    depth: usize,
    runs: Vec<(Experiment, T)>,
}

fn of<T>(found: &[Found<T>], model: Model, depth: usize) -> Option<&Found<T>> {
    found.iter().find(|f| f.model == model && f.depth == depth)
}

impl<T> Found<T> {
    fn results(&self) -> impl Iterator<Item = &T> {
        self.runs.iter().map(|(_, found)| found)
    }
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let studies = studies(TARGET, &["mnist"], args, quiet)?;
    let [study] = &studies[..] else {
        return Err(usage(format!("--sets {}: {TARGET} runs on one set", args.sets.join(","))));
    };
    let protocol = Protocol::of(args.profile);
    let (looks, trainings) = (look_at_all(study, &protocol)?, train_all(study, &protocol)?);
    publish(&report(args, study, &protocol, &looks, &trainings)?, &args.out.join(TARGET))
}

fn experiment(study: &Study, protocol: &Protocol, model: Model, depth: usize, width: usize, seed: u64) -> Experiment {
    let layers = (0..depth).map(|_| LayerConfig::dense(width, model.neuron(), Init::HE)).collect();
    let readout = ReadoutConfig {
        neuron: ReadoutNeuron::None(NoOptions {}),
        reduce: Reduce::Last,
        init: Init::GlorotUniform,
        ..ReadoutConfig::default()
    };
    let optimiser = OptimiserConfig {
        kind: OptimiserKind::Sgd,
        learning_rate: RATE,
        momentum: 0.0,
        weight_decay: 0.0,
        ..OptimiserConfig::default()
    };
    Experiment {
        name: format!("{}, {depth} hidden layers", model.name()),
        data: DataConfig {
            set: study.set.into(),
            train: "train".into(),
            test: "test".into(),
            encode: Encode::Values { mean: vec![], std: vec![], low: 0.0, high: 1.0 },
            augment: vec![],
            test_augment: vec![],
            train_samples: protocol.samples,
            test_samples: protocol.test,
            classes: 0,
        },
        model: ModelConfig { layers, readout, ..ModelConfig::default() },
        train: TrainConfig { epochs: protocol.epochs, batch: BATCH, seed, optimiser, ..TrainConfig::default() },
    }
}

fn options(study: &Study) -> RunOptions {
    RunOptions { data: study.data.clone(), ..RunOptions::default() }
}

fn loader(e: &Experiment, split: &Split, epoch: u32) -> Result<Loader> {
    let (batch, seed, limit) = (e.train.batch, e.train.seed, Some(split.len()));
    let options = LoaderOptions { batch, seed, epoch, shuffle: true, limit, ..LoaderOptions::default() };
    Ok(Loader::new(split.source.clone(), split.pipeline.clone(), options)?)
}

fn job<'a>(study: &'a Study, what: &'static str, experiment: &'a Experiment) -> Job<'a> {
    Job { target: TARGET, what, experiment, data: &study.label.label, device: study.device.describe() }
}

fn look_at_all(study: &Study, protocol: &Protocol) -> Result<Vec<Found<Look>>> {
    let mut all = Vec::new();
    for &depth in &protocol.looked {
        for model in Model::ALL {
            let mut runs = Vec::new();
            for seed in 1..=protocol.draws {
                let e = experiment(study, protocol, model, depth, protocol.looked_width, seed);
                let found = study.jobs.run(&job(study, "start", &e), || look(study, &e))?;
                runs.push((e, found));
            }
            all.push(Found { model, depth, runs });
        }
        study.say(format!("{depth} hidden layers before the first step: done"));
    }
    Ok(all)
}

/// The first batch of the training on networks that have learned nothing.
fn look(study: &Study, e: &Experiment) -> Result<Look> {
    let device = &study.device;
    let split = Split::train(e, &options(study))?;
    let batch = loader(e, &split, 0)?.next().context("the data has no sample")??;
    let mut stack = build_model(device, e, &split)?;
    let mut upload = Upload::new(device, split.pipeline.signal());
    let input = upload.batch(device, &batch)?;
    let mut loss = Loss::new(device, e.train.loss)?;
    let norms = hidden_gradients(device, &mut stack, &mut loss, input, &batch.labels)?;
    let hidden = hidden_weights(device, e, &stack)?;
    let (mut spectrum, mut largest) = (vec![], vec![]);
    for layer in &hidden {
        let Some(found) = layer.spectrum()? else { continue };
        largest.push(found.iter().map(Eigenvalue::modulus).fold(0.0, f64::max));
        if layer.layer == SHOWN {
            spectrum = found.into_iter().map(|z| (z.re, z.im)).collect();
        }
    }
    Ok(Look {
        gradients: norms.into_iter().map(|g| Some(g).filter(|g| g.is_finite())).collect(),
        without_slope: without_slope(&hidden),
        spectrum,
        largest,
    })
}

/// The effective weights of the hidden layers.
fn hidden_weights(device: &Cpu, e: &Experiment, stack: &Stack<Cpu>) -> Result<Vec<EffectiveWeights>> {
    let weights = effective_weights(&Network::of(device, &e.model, stack)?);
    Ok(weights.into_iter().filter(|w| w.layer < e.model.layers.len()).collect())
}

/// The share of neurons without a positive slope.
fn without_slope(layers: &[EffectiveWeights]) -> f64 {
    let neurons: usize = layers.iter().map(|w| w.slopes.len()).sum();
    let without: usize = layers.iter().map(EffectiveWeights::without_slope).sum();
    without as f64 / neurons.max(1) as f64
}

fn train_all(study: &Study, protocol: &Protocol) -> Result<Vec<Found<Trained>>> {
    let mut all = Vec::new();
    for &depth in &protocol.depths {
        for model in Model::SPIKING {
            let mut runs = Vec::new();
            for &seed in &protocol.seeds {
                let e = experiment(study, protocol, model, depth, protocol.width, seed);
                let job = job(study, "training", &e);
                let done = if study.jobs.is_done(&job) { "done before" } else { "trains beside its twin" };
                study.say(format!("{}, seed {seed}: {done}", e.name));
                let found = study.jobs.run(&job, || train(study, &e))?;
                runs.push((e, found));
            }
            all.push(Found { model, depth, runs });
        }
    }
    Ok(all)
}

fn train(study: &Study, e: &Experiment) -> Result<Trained> {
    let device = &study.device;
    let (split, test) = (Split::train(e, &options(study))?, Split::test(e, &options(study))?);
    let stack: Stack<Cpu> = build_model(device, e, &split)?;
    let mut both = SideBySide::new(device, &e.model, stack, &e.train)?;
    let mut upload = Upload::new(device, split.pipeline.signal());
    let mut steps = Vec::new();
    let mut training = [None; 2];
    for epoch in 0..e.train.epochs {
        for batch in loader(e, &split, epoch)? {
            let batch = batch?;
            let input = upload.batch(device, &batch)?;
            let apart = both.step(device, input, &batch.labels)?;
            steps.extend(apart.map(|a| Step { step: a.step, cosine: a.cosine, distance: a.distance }));
        }
        training = [&mut both.spikes, &mut both.twin].map(|learner| Some(100.0 * learner.take_scores().accuracy()));
    }
    let learnt = |learner: &mut Learner<Cpu>, training: Option<f64>| {
        let diverged = learner.diverged();
        if diverged.is_some() {
            return anyhow::Ok(Learnt { diverged, training: None, test: None });
        }
        let tested = evaluate(device, learner.stack(), &test, &e.train)?;
        // A last step that ends all sense shows in the test.
        let test = Some(100.0 * tested.accuracy).filter(|_| tested.loss.is_finite());
        Ok(Learnt { diverged, training, test })
    };
    let [of_spikes, of_twin] = training;
    let (spikes, twin) = (learnt(&mut both.spikes, of_spikes)?, learnt(&mut both.twin, of_twin)?);
    let without_slope = without_slope(&hidden_weights(device, e, both.spikes.stack())?);
    Ok(Trained { spikes, twin, without_slope, steps })
}

/// The middle of several values, or the mean of the middle two; infinite where it is not finite.
fn median(values: impl IntoIterator<Item = Option<f64>>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().map(|v| v.unwrap_or(f64::INFINITY)).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => 0.5 * (values[(n - 1) / 2] + values[n / 2]),
    }
}

/// Least, middle and largest gradient on the output of a hidden layer.
fn gradient(looks: &Found<Look>, layer: usize) -> Point {
    let all = || looks.results().map(move |l| l.gradients.get(layer).copied().flatten());
    let finite = || all().flatten();
    Point {
        x: layer as f64 + 1.0,
        y: median(all()),
        low: Some(finite().fold(f64::INFINITY, f64::min)),
        high: Some(finite().fold(f64::NEG_INFINITY, f64::max)),
    }
}

fn first_gradient(looks: &[Found<Look>], model: Model, depth: usize) -> Option<f64> {
    of(looks, model, depth).map(|found| gradient(found, 0).y)
}

/// How often the first of two gradients is the second.
fn ratio(looks: &[Found<Look>], model: Model, to: Model, depth: usize) -> Option<f64> {
    Some(first_gradient(looks, model, depth)? / first_gradient(looks, to, depth)?)
}

/// The twins of the networks of a model.
fn twins(trainings: &[Found<Trained>], model: Model, depth: usize) -> Vec<&Learnt> {
    of(trainings, model, depth).map_or_else(Vec::new, |found| found.results().map(|t| &t.twin).collect())
}

/// The network of a model among those that trained: rectifiers are the twin of slope 1, which begins with the same
/// weights.
fn learnt(trainings: &[Found<Trained>], model: Model, depth: usize) -> Vec<&Learnt> {
    let from = if model == Model::Rectifiers { Model::One } else { model };
    let own = |t| -> &Learnt {
        let t: &Trained = t;
        if model == Model::Rectifiers { &t.twin } else { &t.spikes }
    };
    of(trainings, from, depth).map_or_else(Vec::new, |found| found.results().map(own).collect())
}

fn report(
    args: &Reproduce,
    study: &Study,
    protocol: &Protocol,
    looks: &[Found<Look>],
    trainings: &[Found<Trained>],
) -> Result<Report> {
    let title = "TTFS: gradients and trajectories, with a constant slope at the threshold and without";
    let mut report = Report::new(TARGET, title, args.profile);
    report.command = command(args);
    report.data = vec![study.label.clone()];
    report.seeds = protocol.seeds.clone();
    report.notes = study.jobs.notes();
    report.notes.extend(notes(protocol));
    report.seconds = study.jobs.counts().seconds;
    report.versions = vec![("device".into(), study.device.describe())];
    let demands = demands(protocol, looks, trainings);
    report.summary = summary(protocol, looks, trainings);
    report.summary.extend(demands_summary(&demands));
    report.deviations = deviations(study, protocol);
    report.tables = vec![results(protocol, looks, trainings), demands_table(&demands)];
    report.figures = vec![start_figure(protocol, looks), training_figure(protocol, trainings)];
    for found in looks {
        for (e, look) in &found.runs {
            report.records.push(Record {
                what: format!("{}, before the first step", e.name),
                configuration: serde_json::to_value(e)?,
                seed: Some(e.train.seed),
                numbers: BTreeMap::from([("share_without_slope".to_owned(), look.without_slope)]),
                details: serde_json::to_value(look)?,
            });
        }
    }
    for found in trainings {
        for (e, trained) in &found.runs {
            report.records.push(Record {
                what: format!("{}, training", e.name),
                configuration: serde_json::to_value(e)?,
                seed: Some(e.train.seed),
                numbers: BTreeMap::new(),
                details: serde_json::to_value(trained)?,
            });
        }
    }
    Ok(report)
}

fn notes(protocol: &Protocol) -> Vec<String> {
    vec![
        "Models: rectifiers; single-spike neurons whose membrane rises with slope 1 (B1); neurons whose currents J \
         stay on, so that it rises with B = 1 + sum of J, and whose effective weights are J / B (alpha1). Naive: J is \
         drawn as the weights of rectifiers. Smart: J is such that J / B is what is drawn; where the weights of a \
         neuron add up to 0.9 or more it is made half as large or less, as from 1 on there is no such J, and the weights \
         behind it are larger by as much: the network is that of rectifiers."
            .into(),
        format!(
            "Twins: beside every spiking network a network of rectifiers trains from the same effective weights, on \
             the same batches of {BATCH} in the same order, by plain gradient descent with rate {RATE}. Cosine: \
             between what a step does to the effective weights of both. Distance: between the effective weights of \
             both, by the way that the twin has gone. Both over all hidden layers. The network called rectifiers is \
             the twin of slope 1."
        ),
        format!(
            "Gradients: norm of the gradient of the mean loss of the first batch on the outputs of a layer; medians \
             over {} draws of the weights, seeds 1 to {}. Eigenvalues: of the effective weights of a hidden layer with \
             as many inputs as neurons, the Jacobian where all neurons fire.",
            protocol.draws, protocol.draws
        ),
        "Diverged: loss or gradient were no finite numbers any more; nothing moves from there.".into(),
    ]
}

fn deviations(study: &Study, protocol: &Protocol) -> Vec<Deviation> {
    let mut list = Vec::new();
    if !study.label.as_published {
        list.push(Deviation::new("data", &study.label.task, &study.label.label));
    }
    list.push(
        Deviation::new(
            "protocol",
            "no number is compared",
            format!(
                "{} training samples, epochs: {}, width {}, depths {}",
                protocol.samples,
                protocol.epochs,
                protocol.width,
                list_of(&protocol.depths)
            ),
        )
        .why("chosen for this report: the question is what differs between the models"),
    );
    list.push(Deviation::new("hardware", "a GPU, not named", study.device.describe()).why("times do not compare"));
    list
}

fn list_of(depths: &[usize]) -> String {
    depths.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The largest distance and the least cosine of a model over all steps, depths and seeds; none if nothing was compared.
fn extremes(trainings: &[Found<Trained>], model: Model) -> Option<(f64, f64)> {
    let steps = || trainings.iter().filter(|f| f.model == model).flat_map(Found::results).flat_map(|t| &t.steps);
    let distance = steps().filter_map(|s| s.distance).reduce(f64::max)?;
    let cosine = steps().filter_map(|s| s.cosine).reduce(f64::min)?;
    Some((distance, cosine))
}

fn demands(protocol: &Protocol, looks: &[Found<Look>], trainings: &[Found<Trained>]) -> Vec<Demand> {
    let mut list = Vec::new();
    let (distance, cosine) = extremes(trainings, Model::One).unwrap_or((f64::NAN, f64::NAN));
    list.push(Demand {
        what: "slope 1: distance from the way of rectifiers, after any step".into(),
        limit: "at most 1e-5",
        found: short(distance),
        met: distance <= FARTHEST,
        asked: true,
    });
    list.push(Demand {
        what: "slope 1: cosine with the step of rectifiers, at any step".into(),
        limit: "at least 0.9999",
        found: format!("{cosine:.6}"),
        met: cosine >= LEAST_COSINE,
        asked: true,
    });
    for &depth in protocol.looked.iter().filter(|d| **d >= DEEP) {
        let times = ratio(looks, Model::Naive, Model::One, depth).unwrap_or(f64::NAN);
        list.push(Demand {
            what: format!("{depth} hidden layers: gradient at the first one, alpha1 naive by slope 1"),
            limit: "at least 100",
            found: short(times),
            met: times >= APART,
            asked: true,
        });
    }
    list
}

fn mean_of(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A number of any size with three digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !size.is_finite() => "not finite".into(),
        size if (0.001..1000.0).contains(&size) => {
            let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// The cosine of the first steps of a model and its twin, mean over the seeds.
fn first_cosine(trainings: &[Found<Trained>], model: Model, depth: usize) -> Option<f64> {
    mean_of(of(trainings, model, depth)?.results().map(|t| t.steps.iter().find(|s| s.step == 1)?.cosine))
}

/// The accuracy of networks in words, or where they diverged.
fn outcome(learnt: &[&Learnt]) -> String {
    let finished: Vec<Option<f64>> = learnt.iter().filter(|l| l.test.is_some()).map(|l| l.test).collect();
    let diverged: Vec<String> = learnt.iter().filter_map(|l| l.diverged).map(|step| step.to_string()).collect();
    let mut parts = Vec::new();
    if let Some(m) = over(finished.iter().copied()).filter(|_| !finished.is_empty()) {
        parts.push(if finished.len() == 1 { format!("{:.1}", m.mean) } else { m.show(1) });
    }
    if !diverged.is_empty() {
        parts.push(format!("diverged at step {}", diverged.join(", ")));
    }
    if finished.len() + diverged.len() < learnt.len() {
        parts.push("no finite loss in the test".into());
    }
    parts.join("; ")
}

fn summary(protocol: &Protocol, looks: &[Found<Look>], trainings: &[Found<Trained>]) -> Vec<String> {
    let mut lines = Vec::new();
    let shares = |model| {
        mean_of(
            looks.iter().filter(|f| f.model == model).flat_map(Found::results).map(|l| Some(100.0 * l.without_slope)),
        )
    };
    if let Some(&deepest) = protocol.looked.last() {
        let gradient = |model| first_gradient(looks, model, deepest).unwrap_or(f64::NAN);
        lines.push(format!(
            "Before the first step, {deepest} hidden layers of {} neurons: the gradient at the first one has the norm \
             {} with rectifiers, {} with slope 1, {} with alpha1 naive and {} with alpha1 smart (medians of {} draws). \
             Of the naive neurons {:.0} % have no positive slope and never fire; of the smart ones {:.0} %.",
            protocol.looked_width,
            short(gradient(Model::Rectifiers)),
            short(gradient(Model::One)),
            short(gradient(Model::Naive)),
            short(gradient(Model::Smart)),
            protocol.draws,
            shares(Model::Naive).unwrap_or(f64::NAN),
            shares(Model::Smart).unwrap_or(f64::NAN),
        ));
    }
    for &depth in &protocol.depths {
        let all = Model::ALL.map(|m| format!("{} with {}", outcome(&learnt(trainings, m, depth)), m.name()));
        let twins = [Model::Naive, Model::Smart]
            .map(|m| format!("{} from those of {}", outcome(&twins(trainings, m, depth)), m.name()));
        let lost = |model| {
            let found = of(trainings, model, depth);
            let share = found.and_then(|f| mean_of(f.results().map(|t| Some(100.0 * t.without_slope))));
            share.map_or_else(|| "-".to_owned(), |share| format!("{share:.0}"))
        };
        lines.push(format!(
            "Test accuracy (%) after {} epoch{} on {} samples, {depth} hidden layers: {}. Rectifiers that begin with \
             the effective weights of the others: {}. Without a positive slope are by then {} % of the neurons of \
             alpha1, naive, and {} % of those of alpha1, smart.",
            protocol.epochs,
            if protocol.epochs == 1 { "" } else { "s" },
            protocol.samples,
            all.join(", "),
            twins.join(", "),
            lost(Model::Naive),
            lost(Model::Smart),
        ));
    }
    if let Some(&deepest) = protocol.depths.last() {
        let first = |model| first_cosine(trainings, model, deepest).map_or_else(|| "-".to_owned(), short);
        lines.push(format!(
            "The same gradient leads elsewhere: in the very first step, where network and twin are still equal, the \
             cosine between what happens to their effective weights is {} with slope 1, {} with alpha1 naive and {} \
             with alpha1 smart at {deepest} hidden layers.",
            first(Model::One),
            first(Model::Naive),
            first(Model::Smart),
        ));
    }
    lines
}

fn results(protocol: &Protocol, looks: &[Found<Look>], trainings: &[Found<Trained>]) -> Table {
    let columns = vec![
        Column::words("model"),
        Column::numbers("hidden layers", ""),
        Column::numbers("neurons without a positive slope", "%"),
        Column::numbers("after training", "%"),
        Column::numbers("gradient at the first layer", ""),
        Column::numbers("by rectifiers'", ""),
        Column::numbers("largest eigenvalue modulus", ""),
        Column::words("training accuracy (%)"),
        Column::words("test accuracy (%)"),
        Column::words("test accuracy of its twin (%)"),
        Column::numbers("cosine, first step", ""),
        Column::numbers("cosine, mean", ""),
        Column::numbers("final distance", ""),
    ];
    let mut table = Table::new("results", "Before the first step, and after training", columns);
    for depth in protocol.all_depths() {
        for model in Model::ALL {
            let looked = of(looks, model, depth);
            let start = |value: &dyn Fn(&Found<Look>) -> f64, show: fn(f64) -> String| {
                looked.map_or_else(|| Cell::missing("not looked at"), |found| Cell::text(show(value(found))))
            };
            let networks = learnt(trainings, model, depth);
            let words = |text: String| if text.is_empty() { Cell::missing("not trained") } else { Cell::text(text) };
            let training = networks.iter().filter(|l| l.training.is_some()).map(|l| l.training);
            let training: Vec<_> = training.collect();
            let training = if training.is_empty() { words(outcome(&networks)) } else { cell(over(training), 1) };
            let pairs = of(trainings, model, depth);
            let cosine = pairs.and_then(|f| mean_of(f.results().flat_map(|t| t.steps.iter().map(|s| s.cosine))));
            let last = |t: &Trained| t.steps.last().and_then(|s| s.distance);
            let distance = pairs.and_then(|f| mean_of(f.results().map(last)));
            table.row([
                Cell::text(model.name()),
                Cell::number(depth as f64, 0),
                start(&|f| 100.0 * mean_of(f.results().map(|l| Some(l.without_slope))).unwrap_or(f64::NAN), |v| {
                    format!("{v:.1}")
                }),
                number(pairs.and_then(|f| mean_of(f.results().map(|t| Some(100.0 * t.without_slope)))), 1),
                start(&|f| gradient(f, 0).y, short),
                start(&|_| ratio(looks, model, Model::Rectifiers, depth).unwrap_or(f64::NAN), short),
                start(&|f| median(f.results().map(|l| l.largest.iter().copied().reduce(f64::max))), short),
                training,
                words(outcome(&networks)),
                if model == Model::Rectifiers {
                    Cell::missing("")
                } else {
                    words(outcome(&twins(trainings, model, depth)))
                },
                number(first_cosine(trainings, model, depth), 4),
                number(cosine, 4),
                distance.map_or_else(|| Cell::missing(""), |d| Cell::text(short(d))),
            ]);
        }
    }
    table.note(format!(
        "Before the first step: width {}, {} draws of the weights; share of neurons as a mean, gradient and eigenvalue \
         as medians, the eigenvalue the largest of all square hidden layers. Training: width {}, seeds {}.",
        protocol.looked_width,
        protocol.draws,
        protocol.width,
        protocol.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    ));
    table.note(
        "Cosine: mean over all steps. Distance: after the last step in which neither network had diverged. Effective \
         weights have no bound where a slope comes close to 0, and so has the distance.",
    );
    table
}

/// How pale the curve of a depth is: the deepest is full.
fn fade(depths: &[usize], depth: usize) -> f64 {
    let behind = depths.iter().filter(|d| **d > depth).count();
    0.75 * behind as f64 / depths.len().saturating_sub(1).max(1) as f64
}

/// The names of the deepest networks' curves are in the legend.
fn name(depths: &[usize], model: Model, depth: usize) -> &'static str {
    if depths.last() == Some(&depth) { model.name() } else { "" }
}

fn start_figure(protocol: &Protocol, looks: &[Found<Look>]) -> Figure {
    let depths = &protocol.looked;
    let deepest = depths.last().copied().unwrap_or(0);
    let mut figure = Figure::new(TARGET, "Before the first step: gradients and Jacobians", 3).caption(format!(
        "{} neurons in each hidden layer. a: medians of {} draws, at {} hidden layers with the range from the least to \
         the largest; paler curves are networks of {} layers. b: the same at the first layer. c to f: eigenvalues of \
         the effective weights of the second hidden layer, up to {DOTS} of the first draws; the circle has the radius \
         1.41, within which those of independent weights of variance 2 / width lie; what lies outside of the axes is \
         counted in the title.",
        protocol.looked_width,
        protocol.draws,
        deepest,
        list_of(&depths[..depths.len().saturating_sub(1)]),
    ));
    let mut curves = Vec::new();
    for &depth in depths {
        for model in Model::ALL {
            let Some(found) = of(looks, model, depth) else { continue };
            let points = (0..depth).map(|layer| gradient(found, layer));
            let spread = depth == deepest;
            let points = points.map(|p| if spread { p } else { Point { low: None, high: None, ..p } });
            let series = model.series(name(depths, model, depth), points).fade(fade(depths, depth)).band();
            curves.push(if depth > 8 { series.line() } else { series });
        }
    }
    figure = figure.panel(Panel::new(
        "gradient on each hidden layer",
        "hidden layer",
        Axis::log10("norm"),
        Lines::new(curves),
    ));
    let first = Model::ALL.map(|model| {
        let at = |depth: &usize| Some(Point { x: *depth as f64, ..gradient(of(looks, model, *depth)?, 0) });
        model.series(model.name(), depths.iter().filter_map(at)).band()
    });
    let ticks = depths.iter().map(|d| (*d as f64, d.to_string()));
    figure = figure.panel(
        Panel::new(
            "gradient on the first hidden layer",
            Axis::log2("number of hidden layers").names(ticks),
            Axis::log10("norm"),
            Lines::new(first.into()),
        )
        .without_legend(),
    );
    for model in Model::ALL {
        // The second layer is the same whatever comes behind it.
        let draws = DOTS / protocol.looked_width;
        let all: Vec<(f64, f64)> = of(looks, model, deepest)
            .map_or_else(Vec::new, |f| f.results().take(draws).flat_map(|l| l.spectrum.clone()).collect());
        let inside = |z: &(f64, f64)| z.0.abs() <= PLANE[0] && z.1.abs() <= PLANE[1];
        let shown: Vec<(f64, f64)> = all.iter().copied().filter(inside).collect();
        let outside = all.len() - shown.len();
        let circle = (0..=120).map(|i| {
            let angle = f64::from(i) * std::f64::consts::TAU / 120.0;
            (CIRCLE * angle.cos(), CIRCLE * angle.sin())
        });
        let series = vec![
            Series::new("", circle).line().colour(6).fade(0.5),
            model.series("", shown).marker(Marker::Disc).dots(),
        ];
        let title = format!("{}: {outside} of {} outside", model.name(), all.len());
        let axis = |label: &str, end: f64| Axis::linear(label).limits(-end, end);
        figure = figure.panel(
            Panel::new(title, axis("real part", PLANE[0]), axis("imaginary part", PLANE[1]), Lines::new(series))
                .without_legend(),
        );
    }
    figure
}

/// The parts of a doubling of the steps over which courses are means.
const PARTS: f64 = 4.0;

/// The course of a quantity over the steps: means over seeds and over a [`PARTS`]th of each doubling.
fn course(found: &Found<Trained>, value: fn(&Step) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut bins: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for step in found.results().flat_map(|t| &t.steps) {
        if let Some(y) = value(step) {
            let x = step.step as f64;
            bins.entry((PARTS * x.log2()) as u64).or_default().push((x, y));
        }
    }
    let mean =
        |points: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    bins.into_values().map(|points| (mean(&points, |p| p.0), mean(&points, |p| p.1))).collect()
}

fn training_figure(protocol: &Protocol, trainings: &[Found<Trained>]) -> Figure {
    let depths = &protocol.depths;
    let seeds = match protocol.seeds.len() {
        1 => "One seed.".to_owned(),
        n => format!("Means of {n} seeds, in a with standard deviations."),
    };
    let mut figure = Figure::new(format!("{TARGET}-training"), "Training beside rectifiers from the same weights", 3)
        .caption(format!(
            "{} neurons in each hidden layer, plain gradient descent with rate {RATE}. {seeds} Networks that diverged \
             have no point in a; squares are the twins, rectifiers that begin with the effective weights of a spiking \
             network. b, c: against the network's own twin until one of both diverges, late steps as means; full \
             colours are {} hidden layers, paler ones {}. Slope 1 has the distance 0 and no curve in c unless it \
             leaves rectifiers.",
            protocol.width,
            depths.last().copied().unwrap_or(0),
            list_of(&depths[..depths.len().saturating_sub(1)]),
        ));
    let point = |depth: usize, networks: &[&Learnt]| {
        let tests: Vec<Option<f64>> = networks.iter().filter(|l| l.test.is_some()).map(|l| l.test).collect();
        let m = over(tests)?;
        let spread = |sign: f64| m.sd.map(|sd| m.mean + sign * sd);
        Some(Point { x: depth as f64, y: m.mean, low: spread(-1.0), high: spread(1.0) })
    };
    let mut accuracy: Vec<Series> = Vec::new();
    for model in Model::ALL {
        let at = |depth: &usize| point(*depth, &learnt(trainings, model, *depth));
        accuracy.push(model.series(model.name(), depths.iter().filter_map(at)));
    }
    for model in [Model::Naive, Model::Smart] {
        let at = |depth: &usize| point(*depth, &twins(trainings, model, *depth));
        let series = model.series(&format!("{}: twin", model.name()), depths.iter().filter_map(at));
        accuracy.push(series.marker(Marker::Square).stroke(Stroke::Dashed).fade(0.4));
    }
    let ticks = depths.iter().map(|d| (*d as f64, d.to_string()));
    figure = figure.panel(Panel::new(
        "test accuracy",
        Axis::log2("number of hidden layers").names(ticks),
        Axis::linear("%").limits(0.0, 100.0),
        Lines::new(accuracy).reference(10.0, "chance"),
    ));
    let curves = |value: fn(&Step) -> Option<f64>| {
        let mut list = Vec::new();
        for &depth in depths {
            for model in Model::SPIKING {
                let Some(found) = of(trainings, model, depth) else { continue };
                let series = model.series(name(depths, model, depth), course(found, value));
                list.push(series.line().fade(fade(depths, depth)));
            }
        }
        Lines::new(list)
    };
    figure
        .panel(Panel::new(
            "cosine with the twin's step",
            Axis::log10("step"),
            Axis::linear("cosine").limits(-0.1, 1.05),
            curves(|s| s.cosine),
        ))
        .panel(
            Panel::new(
                "distance from the twin",
                Axis::log10("step"),
                Axis::log10("distance by the twin's way"),
                curves(|s| s.distance.filter(|d| *d > 0.0)),
            )
            .without_legend(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_count_what_is_not_finite_as_the_largest() {
        assert_eq!(median([Some(3.0), Some(1.0), Some(2.0)]), 2.0);
        assert_eq!(median([Some(3.0), Some(1.0)]), 2.0);
        assert_eq!(median([Some(3.0), None, Some(1.0)]), 3.0);
        assert_eq!(median([Some(3.0), None, None]), f64::INFINITY);
        assert!(median([]).is_nan());
    }

    #[test]
    fn outcomes_name_what_diverged() {
        let learnt = |diverged, test| Learnt { diverged, training: None, test };
        let (good, bad) = (learnt(None, Some(78.04)), learnt(Some(7), None));
        assert_eq!(outcome(&[&good]), "78.0");
        assert_eq!(outcome(&[&good, &bad]), "78.0; diverged at step 7");
        assert_eq!(outcome(&[&bad, &bad]), "diverged at step 7, 7");
        assert_eq!(outcome(&[&learnt(None, None)]), "no finite loss in the test");
        assert_eq!(outcome(&[]), "");
    }

    #[test]
    fn numbers_of_any_size_are_short() {
        let shown = [0.0, 0.203, 1.0, 12.34, 812.3, 4.3e5, 2.5e-6].map(short);
        assert_eq!(shown, ["0", "0.203", "1.00", "12.3", "812", "4.30e5", "2.50e-6"]);
        assert_eq!((short(-0.0203), short(f64::INFINITY)), ("-0.0203".to_owned(), "not finite".to_owned()));
    }

    #[test]
    fn courses_are_means_over_parts_of_a_doubling() {
        let step = |step: u64| Step { step, cosine: Some(step as f64), distance: None };
        let learnt = Learnt { diverged: None, training: None, test: None };
        let trained =
            Trained { spikes: learnt.clone(), twin: learnt, without_slope: 0.0, steps: (1..=12).map(step).collect() };
        let experiment = snn_train::presets::find("ttfs-mnist-fc2").unwrap().experiment;
        let found = Found { model: Model::Smart, depth: 2, runs: vec![(experiment, trained)] };
        let xs: Vec<f64> = course(&found, |s| s.cosine).into_iter().map(|p| p.0).collect();
        // From 8 on the parts end below 9.5, 11.3 and 13.5.
        assert_eq!(xs, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5, 10.5, 12.0]);
        assert!(course(&found, |s| s.distance).is_empty());
    }

    #[test]
    fn paler_curves_are_shallower_networks() {
        let depths = [2, 4, 8];
        assert_eq!(depths.map(|d| fade(&depths, d)), [0.75, 0.375, 0.0]);
        assert_eq!((name(&depths, Model::Smart, 4), name(&depths, Model::Smart, 8)), ("", "alpha1, smart"));
        assert_eq!(fade(&[2], 2), 0.0);
    }
}
