//! The demonstration of EvSpikeSim: one layer learns handwritten digits by reward-modulated STDP, one image at a time.
//!
//! Every pixel fires once, the brighter the earlier. Ten output neurons sum up pairs of their own and their inputs'
//! spikes in a trace per synapse; after each image the trace, times the number of spikes that a neuron lacks, moves
//! the weights. There are no gradients and no batches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use snn_core::random::{Permutation, Purpose, Stream};
use snn_core::stream::{Event, PairStdp, RewardStdp, StreamLayer, StreamNeuron};
use snn_data::{OpenOptions, Sample, Source, SourceKind};

use super::study::Sets;
use super::{command, publish};
use crate::args::Reproduce;
use crate::console;
use crate::report::{
    Axis, Cell, Column, DataLabel, Deviation, Figure, Heat, Jobs, Lines, Measured, Panel, Profile, Record, Report,
    Scale, Series, Table,
};

/// The command's name of this demonstration.
pub(super) const TARGET: &str = "bats-stdp";

/// The data set of the demonstration and what stands in for it.
const SETS: Sets = Sets { task: "MNIST", published: "mnist", stand_in: "digits-sim" };

/// Side of an image.
const SIDE: usize = 28;
const INPUTS: usize = SIDE * SIDE;
const CLASSES: usize = 10;

/// Time of the darkest pixel that fires, seconds.
const WINDOW: f64 = 0.010;
/// Synaptic time constant, seconds.
const TAU_S: f64 = 0.010;
/// Threshold and reset, in units of `V / tau`.
const THRESHOLD: f64 = 1.0;

/// The demonstration's rule: its traces decay with the membrane.
const RULE: RewardStdp = RewardStdp { stdp: PairStdp::new(2.0 * TAU_S), learning_rate: 3e-4, target: 30.0, other: 5.0 };

/// Points of a learning curve.
const POINTS: usize = 50;

/// How much of the protocol runs; 0 samples are all.
#[derive(Debug, Clone, Copy, Serialize)]
struct Size {
    train: usize,
    test: usize,
    runs: u64,
}

const fn size(profile: Profile) -> Size {
    match profile {
        Profile::Smoke => Size { train: 5000, test: 1000, runs: 1 },
        Profile::Quick => Size { train: 0, test: 0, runs: 1 },
        Profile::Paper => Size { train: 0, test: 0, runs: 3 },
    }
}

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    data: &'a str,
    seed: u64,
    size: Size,
    constants: [f64; 7],
    machine: String,
}

/// A stretch of a learning run, measured while the weights moved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stretch {
    /// Samples seen up to its end.
    seen: usize,
    /// Share of right answers from the very beginning.
    accuracy: f64,
    /// Share of right answers in this stretch.
    here: f64,
    /// Mean squared error of the counts, summed over the neurons.
    loss: f64,
    /// Mean spikes of the label's neuron.
    label_spikes: f64,
    /// Mean spikes of another neuron.
    other_spikes: f64,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
    curve: Vec<Stretch>,
    accuracy: f64,
    /// Mean spikes of each neuron for each label of the test split, `[label][neuron]`.
    counts: Vec<Vec<f64>>,
    /// Share of right answers of each label.
    recall: Vec<f64>,
    /// `[I, N]`.
    weights: Vec<f32>,
    /// How often each pixel fired while the layer learned.
    fired: Vec<u32>,
    train: usize,
    test: usize,
    /// Mean inputs of a sample.
    events: f64,
    /// Seconds of a sample: inference with traces, weight step, inference without traces.
    seconds: [f64; 3],
}

/// The spikes of an image, earliest first: `window (1 - p / 255)`, none for a black pixel.
fn encode(pixels: &[u8], events: &mut Vec<Event<f32>>) {
    events.clear();
    // Pixels of one brightness fire together, in the order of the image.
    let mut order: Vec<u32> = (0..pixels.len() as u32).filter(|&i| pixels[i as usize] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(pixels[i as usize]));
    events.extend(order.into_iter().map(|i| {
        let bright = f64::from(pixels[i as usize]) / 255.0;
        Event::new(i, (WINDOW * (1.0 - bright)) as f32)
    }));
}

/// The neuron with most spikes, the first of several.
fn answer(counts: &[u32]) -> usize {
    let most = counts.iter().max();
    counts.iter().position(|c| Some(c) == most).unwrap_or(0)
}

/// Sums over a stretch.
#[derive(Debug, Default)]
struct Sums {
    samples: usize,
    hits: usize,
    loss: f64,
    label_spikes: f64,
    other_spikes: f64,
}

impl Sums {
    fn add(&mut self, counts: &[u32], label: usize) {
        self.samples += 1;
        self.hits += usize::from(answer(counts) == label);
        for (neuron, &count) in counts.iter().enumerate() {
            let (wanted, spikes) = if neuron == label {
                (RULE.target, &mut self.label_spikes)
            } else {
                (RULE.other, &mut self.other_spikes)
            };
            *spikes += f64::from(count);
            self.loss += (wanted - f64::from(count)).powi(2);
        }
    }

    fn stretch(&self, seen: usize, all_hits: usize) -> Stretch {
        let samples = self.samples.max(1) as f64;
        Stretch {
            seen,
            accuracy: all_hits as f64 / seen.max(1) as f64,
            here: self.hits as f64 / samples,
            loss: self.loss / samples,
            label_spikes: self.label_spikes / samples,
            other_spikes: self.other_spikes / (samples * (CLASSES - 1) as f64),
        }
    }
}

/// The data of a run.
struct Data {
    train: snn_data::InMemory,
    test: snn_data::InMemory,
}

impl Data {
    fn open(set: &str, options: &OpenOptions) -> Result<Self> {
        let split = |name: &str| {
            let source = snn_data::open(set, name, options)?;
            let SourceKind::Images(map) = source.kind() else { bail!("{set} holds {}, no images", source.kind()) };
            if map.len() != INPUTS || source.classes() != CLASSES {
                bail!("{set} holds images {map} of {} classes, not 28 x 28 of 10", source.classes());
            }
            Ok(snn_data::InMemory::new(&*source)?)
        };
        Ok(Self { train: split("train")?, test: split("test")? })
    }
}

/// Samples of a split that are used.
fn share(wanted: usize, source: &dyn Source) -> usize {
    if wanted == 0 { source.len() } else { wanted.min(source.len()) }
}

/// One run: learning, one image after the other, then the test.
fn learn(data: &Data, size: Size, seed: u64, quiet: bool) -> Result<Outcome> {
    let neuron = StreamNeuron::new(TAU_S, THRESHOLD);
    let mut random = Stream::new(seed, Purpose::Init, [0, 0]);
    let initial: Vec<f32> = (0..INPUTS * CLASSES).map(|_| 2.0 * random.unit() - 1.0).collect();
    let mut layer = StreamLayer::plastic(neuron, INPUTS, CLASSES, &initial, RULE)?;

    let train = share(size.train, &data.train);
    let bar = console::bar(quiet, train as u64, "learning [{bar:30}] {pos}/{len} images {msg} {eta:>4}");
    let order = Permutation::new(data.train.len() as u32, seed, 0);
    let (mut sample, mut events) = (Sample::default(), Vec::new());
    let (mut sums, mut curve, mut hits) = (Sums::default(), Vec::new(), 0);
    let (mut fired, mut inputs) = (vec![0_u32; INPUTS], 0_usize);
    let (mut inference, mut step) = (Duration::ZERO, Duration::ZERO);
    for seen in 1..=train {
        data.train.read(order.at(seen as u32 - 1) as usize, &mut sample)?;
        encode(&sample.pixels, &mut events);
        inputs += events.len();
        events.iter().for_each(|e| fired[e.unit as usize] += 1);
        let start = Instant::now();
        layer.infer(&events)?;
        inference += start.elapsed();
        let label = sample.label as usize;
        sums.add(layer.counts(), label);
        hits += usize::from(answer(layer.counts()) == label);
        let start = Instant::now();
        layer.reward(sample.label)?;
        step += start.elapsed();
        // Stretches end after equal shares of the run.
        if seen * POINTS / train > (seen - 1) * POINTS / train {
            let stretch = std::mem::take(&mut sums).stretch(seen, hits);
            bar.set_position(seen as u64);
            bar.set_message(format!("accuracy {:.1} %", 100.0 * stretch.here));
            curve.push(stretch);
        }
    }
    bar.finish_and_clear();

    let mut tester = StreamLayer::new(neuron, INPUTS, CLASSES, layer.weights())?;
    let test = share(size.test, &data.test);
    let mut elapsed = Duration::ZERO;
    let (mut counts, mut right, mut of) = (vec![vec![0.0; CLASSES]; CLASSES], [0_usize; CLASSES], [0_usize; CLASSES]);
    for index in 0..test {
        data.test.read(index, &mut sample)?;
        encode(&sample.pixels, &mut events);
        let start = Instant::now();
        tester.infer(&events)?;
        elapsed += start.elapsed();
        let label = sample.label as usize;
        of[label] += 1;
        right[label] += usize::from(answer(tester.counts()) == label);
        counts[label].iter_mut().zip(tester.counts()).for_each(|(sum, &c)| *sum += f64::from(c));
    }
    for (row, &n) in counts.iter_mut().zip(&of) {
        row.iter_mut().for_each(|sum| *sum /= n.max(1) as f64);
    }
    let per = |time: Duration, samples: usize| time.as_secs_f64() / samples.max(1) as f64;
    Ok(Outcome {
        curve,
        accuracy: right.iter().sum::<usize>() as f64 / test.max(1) as f64,
        counts,
        recall: right.iter().zip(&of).map(|(&r, &n)| r as f64 / n.max(1) as f64).collect(),
        weights: layer.weights().to_vec(),
        fired,
        train,
        test,
        events: inputs as f64 / train.max(1) as f64,
        seconds: [per(inference, train), per(step, train), per(elapsed, test)],
    })
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let options = args.place.open_options();
    let directory = args.out.join(TARGET);
    let (set, label) = SETS.choose(TARGET, args, &options)?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let size = size(args.profile);
    let machine = crate::report::Machine::detect().line();
    let constants = [WINDOW, TAU_S, THRESHOLD, RULE.stdp.tau_pre, RULE.learning_rate, RULE.target, RULE.other];
    let mut data = None;
    let mut runs = Vec::new();
    for seed in 1..=size.runs {
        let job = Job { target: TARGET, data: &label.label, seed, size, constants, machine: machine.clone() };
        if !quiet {
            let how = if jobs.is_done(&job) { "done before" } else { "one pass" };
            console::message(format_args!("{}, seed {seed}: {how}", label.label));
        }
        runs.push(jobs.run(&job, || {
            let data = match &mut data {
                Some(data) => data,
                none => none.insert(Data::open(set, &options)?),
            };
            learn(data, size, seed, quiet)
        })?);
    }
    let mut report =
        Report::new(TARGET, "EvSpikeSim: digits by reward-modulated STDP, one image at a time", args.profile);
    report.command = command(args);
    report.seeds = (1..=size.runs).collect();
    report.notes = jobs.notes();
    report.seconds = jobs.counts().seconds;
    report.summary = summary(&runs, &label);
    report.deviations = deviations(&runs[0], &label);
    report.tables = vec![results(&runs), classes(&runs[0])];
    report.figures = vec![learning(&runs[0], &label), weights(&runs[0], &label)];
    report.records = records(&runs, constants)?;
    report.data = vec![label];
    publish(&report, &directory)
}

/// A quantity over the runs.
fn over(runs: &[Outcome], of: impl Fn(&Outcome) -> f64) -> Measured {
    let values: Vec<f64> = runs.iter().map(of).collect();
    if let [one] = values[..] {
        return Measured::value(one);
    }
    Measured::of(&values).unwrap_or(Measured::value(f64::NAN))
}

fn seen_accuracy(o: &Outcome) -> f64 {
    100.0 * o.curve.last().map_or(f64::NAN, |s| s.accuracy)
}

/// A percentage over the runs.
fn percent(runs: &[Outcome], of: impl Fn(&Outcome) -> f64) -> String {
    let m = over(runs, of);
    m.sd.map_or_else(|| format!("{:.2} %", m.mean), |sd| format!("{:.2} ± {sd:.2} %", m.mean))
}

fn summary(runs: &[Outcome], label: &DataLabel) -> Vec<String> {
    let micros = |i: usize| over(runs, |o| 1e6 * o.seconds[i]).mean;
    let first = &runs[0];
    let seeds = if runs.len() > 1 { format!(" ({} seeds)", runs.len()) } else { String::new() };
    let lowest = first.curve.iter().min_by(|x, y| x.loss.total_cmp(&y.loss));
    let (lowest, last) = (lowest.cloned().unwrap_or_default(), first.curve.last().cloned().unwrap_or_default());
    vec![
        format!(
            "{}: {} of {} test images are answered right after one pass over {} images{seeds}. While it learned, the layer \
             answered {} right, each image before its reward.",
            label.label,
            percent(runs, |o| 100.0 * o.accuracy),
            first.test,
            first.train,
            percent(runs, seen_accuracy),
        ),
        format!(
            "The loss is lowest after {} images ({:.0}), and {:.0} at the end. The other neurons end at {:.1} spikes where \
             {} are wanted: a neuron that stays silent has empty traces, and no reward makes it fire.",
            lowest.seen, lowest.loss, last.loss, last.other_spikes, RULE.other
        ),
        format!(
            "One image has {:.0} input spikes on average. On one thread its inference takes {:.0} µs with all traces and \
             {:.0} µs without; the weight step takes {:.0} µs.",
            first.events,
            micros(0),
            micros(2),
            micros(1)
        ),
        "The demonstration publishes no accuracy, so there is nothing to compare with.".into(),
        format!(
            "What is odd in it: it defines a threshold of 5.0 but passes 1.0, which is used here; it declares 800 inputs \
             for the {INPUTS} pixels, and the others never fire. A synapse whose pixel is always black keeps its \
             initial weight."
        ),
    ]
}

fn deviations(run: &Outcome, label: &DataLabel) -> Vec<Deviation> {
    let mut list = vec![
        Deviation::new("inputs", "800", INPUTS.to_string()).why("16 of them never fire"),
        Deviation::new("random numbers", "of the C++ library, one seed", "Philox; order and weights by seed"),
    ];
    if !label.as_published {
        list.push(Deviation::new("data", "mnist", &label.label));
    }
    for (what, published, here) in [("training images", 60_000, run.train), ("test images", 10_000, run.test)] {
        if published != here {
            list.push(Deviation::new(what, published.to_string(), here.to_string()));
        }
    }
    list
}

fn results(runs: &[Outcome]) -> Table {
    let mut table =
        Table::new("results", "What the runs came to", vec![Column::words("quantity"), Column::numbers("value", "")]);
    let last = |o: &Outcome| o.curve.last().cloned().unwrap_or_default();
    let mut row = |what: &str, value: Measured, decimals| {
        table.row([Cell::text(what), Cell::number(value, decimals)]);
    };
    row("test accuracy (%)", over(runs, |o| 100.0 * o.accuracy), 2);
    row("accuracy over all images seen (%)", over(runs, seen_accuracy), 2);
    row("accuracy over the last stretch seen (%)", over(runs, |o| 100.0 * last(o).here), 2);
    row("spikes of the label's neuron, last stretch (wanted 30)", over(runs, |o| last(o).label_spikes), 2);
    row("spikes of another neuron, last stretch (wanted 5)", over(runs, |o| last(o).other_spikes), 2);
    row("input spikes of an image", over(runs, |o| o.events), 1);
    row("inference with traces (µs per image)", over(runs, |o| 1e6 * o.seconds[0]), 1);
    row("inference without traces (µs per image)", over(runs, |o| 1e6 * o.seconds[2]), 1);
    row("weight step (µs per image)", over(runs, |o| 1e6 * o.seconds[1]), 1);
    table.note("A stretch is a fiftieth of the run. Times are of one thread, without reading and encoding the image.");
    table
}

fn classes(run: &Outcome) -> Table {
    let columns = [("recall", "%"), ("spikes of its neuron", ""), ("most spikes of another", "")];
    let columns = columns.map(|(title, unit)| Column::numbers(title, unit));
    let columns = std::iter::once(Column::words("digit")).chain(columns).collect();
    let mut table = Table::new("classes", "The test, digit by digit (first seed)", columns);
    for (digit, (counts, recall)) in run.counts.iter().zip(&run.recall).enumerate() {
        let others = counts.iter().enumerate().filter(|(n, _)| *n != digit).map(|(_, c)| *c);
        table.row([
            Cell::text(digit.to_string()),
            Cell::number(100.0 * recall, 1),
            Cell::number(counts[digit], 1),
            Cell::number(others.fold(0.0, f64::max), 1),
        ]);
    }
    table
}

/// Accuracy, spikes and loss over the images seen, and the counts of the test.
fn learning(run: &Outcome, label: &DataLabel) -> Figure {
    let line = |name: &str, of: fn(&Stretch) -> f64| {
        Series::new(name, run.curve.iter().map(|s| (s.seen as f64, of(s)))).line()
    };
    let accuracy = Lines::new(vec![
        line("each fiftieth", |s| 100.0 * s.here).colour(4),
        line("all so far", |s| 100.0 * s.accuracy).colour(0),
    ]);
    let spikes = Lines::new(vec![
        line("the label's neuron", |s| s.label_spikes).colour(0),
        line("another neuron", |s| s.other_spikes).colour(1),
    ])
    .reference(RULE.target, "wanted")
    .reference(RULE.other, "wanted");
    let loss = Lines::new(vec![line("loss", |s| s.loss)]);
    let digits = || (0..CLASSES).map(|d| d.to_string());
    let counts = run.counts.iter().map(|row| row.iter().map(|c| Some((10.0 * c).round() / 10.0)).collect()).collect();
    let counts = Heat::new(digits(), digits(), counts, "spikes");
    Figure::new(TARGET, "Learning digits by reward-modulated STDP", 2)
        .caption(format!(
            "Data: {}. One pass, one image at a time, first seed. An image counts before its reward. The loss is \
             the squared difference to the wanted counts, summed over the neurons.",
            label.label
        ))
        .panel(Panel::new(
            "right answers while learning",
            "images seen",
            Axis::linear("%").limits(0.0, 100.0),
            accuracy,
        ))
        .panel(Panel::new("output spikes of an image", "images seen", Axis::linear("spikes").limits(0.0, 36.0), spikes))
        .panel(Panel::new("loss", "images seen", "squared spikes", loss).without_legend())
        .panel(Panel::new("mean spikes in the test", "neuron", "digit", counts))
}

/// The weights of each neuron as an image.
fn weights(run: &Outcome, label: &DataLabel) -> Figure {
    // The few largest weights must not make all others pale.
    let mut sizes: Vec<f32> = run
        .weights
        .chunks(CLASSES)
        .zip(&run.fired)
        .filter(|(_, f)| **f > 0)
        .flat_map(|(w, _)| w)
        .map(|w| w.abs())
        .collect();
    sizes.sort_by(f32::total_cmp);
    let reach = sizes.get(sizes.len() * 99 / 100).map_or(1.0, |w| f64::from(*w).max(1e-6));
    let blank = || vec![String::new(); SIDE];
    let figure = Figure::new("bats-stdp-weights", "The weights of the ten neurons", 5).caption(format!(
        "Data: {}. Each map holds the weights of one neuron, blue above 0 and brown below, after one pass; pixels that \
         never fired are grey. The colours end at ±{reach:.2}, which 1 % of the weights exceed. First seed.",
        label.label
    ));
    (0..CLASSES).fold(figure, |figure, digit| {
        let pixel = |y: usize, x: usize| {
            let input = y * SIDE + x;
            (run.fired[input] > 0).then(|| f64::from(run.weights[input * CLASSES + digit]))
        };
        // The first row is drawn at the bottom.
        let rows = (0..SIDE).rev().map(|y| (0..SIDE).map(|x| pixel(y, x)).collect()).collect();
        let mut heat = Heat::new(blank(), blank(), rows, "").diverging(Scale::Linear, 0.0).limits(-reach, reach);
        heat.annotate = false;
        let title = format!("{digit} ({:.0} % recognised)", 100.0 * run.recall[digit]);
        figure.panel(Panel::new(title, "", "", heat).letter(" "))
    })
}

fn records(runs: &[Outcome], constants: [f64; 7]) -> Result<Vec<Record>> {
    let names = ["window_s", "tau_s", "threshold", "trace_tau_s", "learning_rate", "target", "other"];
    let configuration: BTreeMap<&str, f64> = names.into_iter().zip(constants).collect();
    let record = |(seed, o): (usize, &Outcome)| {
        Ok(Record {
            what: "reward-modulated STDP".into(),
            configuration: serde_json::to_value(&configuration)?,
            seed: Some(seed as u64 + 1),
            numbers: BTreeMap::from([
                ("test_accuracy".to_owned(), o.accuracy),
                ("seen_accuracy".to_owned(), seen_accuracy(o) / 100.0),
                ("inference_seconds".to_owned(), o.seconds[0]),
                ("weight_step_seconds".to_owned(), o.seconds[1]),
                ("inference_without_traces_seconds".to_owned(), o.seconds[2]),
            ]),
            details: serde_json::json!({ "curve": o.curve, "test_counts": o.counts }),
        })
    };
    runs.iter().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn bright_pixels_fire_first_and_black_ones_never() {
        let mut events = Vec::new();
        encode(&[0, 51, 255, 255, 1], &mut events);
        let units: Vec<u32> = events.iter().map(|e| e.unit).collect();
        assert_eq!(units, [2, 3, 1, 4]);
        let times: Vec<f32> = events.iter().map(|e| e.time).collect();
        assert_eq!(times, [0.0, 0.0, 0.008, (0.01 * (254.0 / 255.0)) as f32]);
        assert_eq!([answer(&[1, 4, 4]), answer(&[0, 0])], [1, 0]);
    }

    #[test]
    fn the_layer_learns_generated_digits_and_reports() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name).display().to_string();
        let (out, data) = (folder("out"), folder("data"));
        let line = ["snn", "reproduce", TARGET, "--out", &out, "--data-dir", &data];
        let Command::Reproduce(args) = Cli::parse_from(line).command else { unreachable!("the line says so") };
        let options = args.place.open_options();
        let (set, label) = SETS.choose(TARGET, &args, &options).unwrap();
        assert_eq!((set, label.as_published), ("digits-sim", false));
        let data = Data::open(set, &OpenOptions { samples: Some(1500), ..options }).unwrap();
        let size = Size { train: 1500, test: 300, runs: 1 };
        let outcome = learn(&data, size, 1, true).unwrap();
        assert_eq!((outcome.train, outcome.test, outcome.curve.len()), (1500, 300, POINTS));
        assert_eq!(outcome.curve[POINTS - 1].seen, 1500);
        assert!(outcome.accuracy > 0.4, "accuracy {}", outcome.accuracy);
        assert_eq!(weights(&outcome, &label).panels.len(), CLASSES);
    }
}
