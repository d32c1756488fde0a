//! The speed figures of the Blocks paper (arXiv 2311.11390): how much faster adaptive neurons run one refractory period
//! at a time than one step at a time.
//!
//! The publication compares its block model with a loop over time in Python that writes into an array of all steps in
//! each step, so that its backward pass is quadratic in the number of steps. Both run here in PyTorch, beside the fair
//! form of the loop; the same two algorithms run in this program ([`snn_cpu::published`]), and the fused scans that
//! training uses. Which share of the published speed-up is the algorithm's, and which is overhead, can then be read off
//! rows of one run.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::json;
use snn_core::backend::Memory;
use snn_cpu::Cpu;

use super::ttfs_chain::{Demand, demands_summary, demands_table};
use super::{TimingJob, command, publish};
use crate::args::Reproduce;
use crate::bench::LayerModel::{self, AlifBlocks, AlifBlocksPublished, AlifSteps, AlifStepwise};
use crate::bench::layer::{LayerCell, LayerTime, cell_bytes, peer_cell, time_layer};
use crate::bench::peer::{PeerCell, PeerTime, Peers};
use crate::bench::timing::show;
use crate::console;
use crate::report::{
    Axis, Cell, Column, Deviation, Figure, Jobs, Lines, Machine, Marker, Measured, Panel, Profile, Record, Report,
    Series, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "blocks-speed";

/// Inputs of the first layer, as published.
const INPUTS: usize = 1000;

/// Refractory periods of the demands, their neurons, steps and samples.
const ASKED: [u32; 3] = [10, 40, 100];
const NEURONS: usize = 128;
const STEPS: usize = 1024;
const BATCH: usize = 32;

/// Everything that is timed, in the order of tables: ours, then PyTorch.
const SIDES: [Side; 7] = [
    Side::Ours(AlifSteps),
    Side::Ours(AlifBlocks),
    Side::Ours(AlifStepwise),
    Side::Ours(AlifBlocksPublished),
    Side::Peer("alif"),
    Side::Peer("alif-published"),
    Side::Peer("alif-block"),
];

/// Something that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours(LayerModel),
    Peer(&'static str),
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours(AlifSteps) => "steps, fused",
            Self::Ours(AlifBlocks) => "blocks, fused",
            Self::Ours(AlifStepwise) => "steps, operation by operation",
            Self::Ours(AlifBlocksPublished) => "blocks as published",
            Self::Ours(other) => other.name(),
            Self::Peer("alif") => "PyTorch: loop, fair",
            Self::Peer("alif-published") => "PyTorch: loop as published",
            Self::Peer(_) => "PyTorch: blocks as published",
        }
    }
}

/// A baseline, what is compared with it, what the quotient is called, and its colour.
type Pair = (Side, Side, &'static str, usize);

/// The published comparison.
const PUBLISHED: Pair =
    (Side::Peer("alif-published"), Side::Peer("alif-block"), "PyTorch: loop as published / blocks", 0);
/// The same with the loop's defect mended.
const FAIR: Pair = (Side::Peer("alif"), Side::Peer("alif-block"), "PyTorch: fair loop / blocks", 1);
/// Both published algorithms in this program.
const OWN_PUBLISHED: Pair =
    (Side::Ours(AlifStepwise), Side::Ours(AlifBlocksPublished), "ours, as published: steps / blocks", 2);
/// Both fused.
const FUSED: Pair = (Side::Ours(AlifSteps), Side::Ours(AlifBlocks), "ours, fused: steps / blocks", 3);
/// What a user gains over PyTorch's blocks.
const OVER_BLOCKS: Pair = (Side::Peer("alif-block"), Side::Ours(AlifBlocks), "PyTorch: blocks / our blocks", 4);
/// What a user gains over PyTorch's fair loop.
const OVER_LOOP: Pair = (Side::Peer("alif"), Side::Ours(AlifSteps), "PyTorch: fair loop / our steps", 5);

const PAIRS: [Pair; 6] = [PUBLISHED, FAIR, OWN_PUBLISHED, FUSED, OVER_BLOCKS, OVER_LOOP];

/// The size of a layer, or of several equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    layers: usize,
    n: usize,
    steps: usize,
    batch: usize,
    refractory: u32,
}

impl Shape {
    fn new(steps: usize, batch: usize, refractory: u32) -> Self {
        Self { layers: 1, n: NEURONS, steps, batch, refractory }
    }

    fn name(&self) -> String {
        let Self { layers, n, steps, batch, refractory } = self;
        let layers = if *layers == 1 { String::new() } else { format!(", {layers} layers") };
        format!("refractory period {refractory}, T {steps}, batch {batch}, n {n}{layers}")
    }
}

/// What a profile runs.
#[derive(Debug)]
struct Plan {
    refractory: Vec<u32>,
    /// Steps and samples of the grid.
    steps: Vec<usize>,
    batches: Vec<usize>,
    /// Layers, their neurons, and steps and samples of that part; its refractory period is 40.
    layers: (Vec<usize>, Vec<usize>, usize, usize),
    repeats: usize,
    /// Seconds that one pass of PyTorch may take.
    peer_limit: f64,
}

/// The refractory period over which layers are counted.
const LAYERS_AT: u32 = 40;

impl Plan {
    fn new(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self {
                refractory: ASKED.into(),
                steps: vec![256],
                batches: vec![4],
                layers: (vec![1, 2], vec![NEURONS], 256, 4),
                repeats: 2,
                peer_limit: 2.0,
            },
            Profile::Quick => Self {
                refractory: vec![10, 20, 40, 70, 100],
                steps: vec![512, STEPS],
                batches: vec![BATCH],
                layers: (vec![1, 2, 3], vec![NEURONS], STEPS, BATCH),
                repeats: 4,
                peer_limit: 15.0,
            },
            Profile::Paper => Self {
                refractory: (1..=10).map(|i| 10 * i).collect(),
                steps: vec![512, STEPS, 2048],
                batches: vec![BATCH, 64, 128],
                layers: (vec![1, 2, 3, 4, 5], vec![NEURONS, 256, 512], STEPS, 64),
                repeats: 10,
                peer_limit: 200.0,
            },
        }
    }

    /// The grid of refractory periods.
    fn grid(&self) -> impl Iterator<Item = Shape> + '_ {
        let sizes = self.steps.iter().flat_map(|&t| self.batches.iter().map(move |&b| (t, b)));
        sizes.flat_map(|(t, b)| self.refractory.iter().map(move |&l| Shape::new(t, b, l)))
    }

    /// The grid of layers.
    fn stacks(&self) -> impl Iterator<Item = Shape> + '_ {
        let (layers, neurons, steps, batch) = &self.layers;
        let sizes = neurons.iter().flat_map(move |&n| layers.iter().map(move |&l| (n, l)));
        sizes.map(|(n, layers)| Shape { n, layers, ..Shape::new(*steps, *batch, LAYERS_AT) })
    }

    /// Every shape once, cheap ones first.
    fn shapes(&self) -> Vec<Shape> {
        let all: BTreeSet<Shape> = self.grid().chain(self.stacks()).collect();
        let mut all: Vec<Shape> = all.into_iter().collect();
        all.sort_by_key(|s| s.layers * s.n * s.steps * s.batch);
        all
    }

    fn cell(&self, model: LayerModel, shape: Shape) -> LayerCell {
        let Shape { layers, n, steps, batch, refractory } = shape;
        // What takes milliseconds is timed more often: a pause of the machine weighs more there.
        let fused = matches!(model, AlifSteps | AlifBlocks);
        let repeats = if fused { 4 * self.repeats } else { self.repeats };
        let cell = LayerCell::new(model, [batch, steps, INPUTS, n], repeats);
        LayerCell { layers, refractory: Some(refractory), ..cell }
    }

    /// A peer's cell, none if it would take too long; fewer timings of what is slow.
    fn peer_cell(&self, peer: &str, shape: Shape, threads: usize) -> Option<PeerCell> {
        let cell = peer_cell(peer, &self.cell(AlifSteps, shape), threads, false);
        let seconds = peer_estimate(&cell);
        let repeats = if seconds > 5.0 { 1 } else { self.repeats };
        (seconds <= self.peer_limit).then_some(PeerCell { repeats, ..cell })
    }
}

/// About how long one pass of a peer takes; measured once on two cores, good for a decision only.
fn peer_estimate(cell: &PeerCell) -> f64 {
    let lanes = (cell.batch * cell.steps * cell.n * cell.layers) as f64;
    let quadratic = if cell.peer == "alif-published" { 2e-9 * cell.steps as f64 } else { 0.0 };
    lanes * (1.4e-7 + quadratic)
}

/// Everything that was measured.
#[derive(Debug, Default)]
struct Measurements {
    ours: BTreeMap<(LayerModel, Shape), LayerTime>,
    peers: BTreeMap<(String, Shape), PeerTime>,
    left_out: Vec<String>,
}

impl Measurements {
    /// Seconds forward and backward.
    fn passes(&self, side: Side, shape: Shape) -> Option<(f64, f64)> {
        match side {
            Side::Ours(model) => self.ours.get(&(model, shape)).map(|t| (t.forward_s(), t.backward_s())),
            Side::Peer(peer) => self.peers.get(&(peer.to_owned(), shape)).map(|t| (t.forward_s, t.backward_s)),
        }
    }

    fn total(&self, side: Side, shape: Shape) -> Option<f64> {
        self.passes(side, shape).map(|(forward, backward)| forward + backward)
    }

    /// Time of the first over time of the second.
    fn ratio(&self, pair: Pair, shape: Shape) -> Option<f64> {
        Some(self.total(pair.0, shape)? / self.total(pair.1, shape)?)
    }

    /// The smallest and the largest value over some shapes.
    fn range(&self, shapes: impl Iterator<Item = Shape>, of: impl Fn(Shape) -> Option<f64>) -> Option<(f64, f64)> {
        let found = shapes.filter_map(of).fold((f64::INFINITY, 0.0_f64), |(low, high), r| (low.min(r), high.max(r)));
        (found.1 > 0.0).then_some(found)
    }
}

/// Runs the reproduction.
pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let directory = args.out.join(TARGET);
    let cpu = args.place.processor()?;
    let plan = Plan::new(args.profile);
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let title = "Adaptive neurons in blocks and in steps, speed figures of arXiv 2311.11390";
    let mut report = Report::new(TARGET, title, args.profile);
    let measured = measure(&cpu, &plan, peers.as_ref(), &jobs, &report.machine, quiet)?;
    let demands = demands(args.profile, &measured);
    report.command = command(args);
    report.summary = summary(&plan, &measured);
    report.summary.extend(demands_summary(&demands));
    report.deviations = deviations(&cpu, &plan);
    report.tables = vec![rows_table(&plan, &measured), ratio_table(&plan, &measured), demands_table(&demands)];
    report.tables.extend([published::table(), published::layers_table()]);
    report.figures = vec![figure(&plan, &measured), layers_figure(&plan, &measured)];
    report.records = records(&measured);
    report.notes = measured.left_out.clone();
    report.notes.extend(jobs.notes());
    report.notes.push(match &peers {
        Some(_) => {
            "PyTorch ran on the same machine in the same run, with as many threads; fused layers ran before and \
                    after it. Other work on the machine can move a ratio by half."
                .into()
        }
        None => "PyTorch was not run: name a Python that has it with --peer-python.".into(),
    });
    report.versions = vec![("device".into(), cpu.describe())];
    report.versions.extend(peers.iter().map(|p| ("torch".to_owned(), p.version().to_owned())));
    report.seeds = vec![0, 1];
    report.seconds = jobs.counts().seconds;
    for line in &report.summary {
        console::line(line)?;
    }
    publish(&report, &directory)
}

fn measure(
    cpu: &Cpu,
    plan: &Plan,
    peers: Option<&Peers>,
    jobs: &Jobs,
    machine: &Machine,
    quiet: bool,
) -> Result<Measurements> {
    let mut measured = Measurements::default();
    let (device, threads, line) = (cpu.describe(), cpu.threads(), machine.line());
    let memory = machine.memory_gib.map_or(f64::INFINITY, |gib| 0.8 * gib * (1_u64 << 30) as f64);
    let torch = peers.map_or("", Peers::version);
    let shapes = plan.shapes();
    let bar = console::bar(quiet, shapes.len() as u64, "[{bar:30}] {pos}/{len} {msg}");
    let ours = |cell: &LayerCell| {
        let job = TimingJob { target: TARGET, cell, threads, device: &device, machine: &line, torch: "" };
        jobs.run(&job, || time_layer(cpu, cell))
    };
    for shape in shapes {
        // Fused layers run before and after everything else: load that comes and goes falls on all of them.
        for (seed, side) in SIDES.into_iter().map(|s| (0, s)).chain(SIDES[..2].iter().map(|&s| (1, s))) {
            bar.set_message(format!("{}, {}", side.name(), shape.name()));
            bar.tick();
            match side {
                Side::Ours(model) => {
                    let cell = LayerCell { seed, ..plan.cell(model, shape) };
                    let bytes = cell_bytes(&cell);
                    if bytes > memory {
                        let gib = bytes / (1_u64 << 30) as f64;
                        let name = side.name();
                        measured.left_out.push(format!("Left out, {gib:.1} GiB: {name}, {}.", shape.name()));
                        continue;
                    }
                    let time = ours(&cell).with_context(|| format!("{}, {}", side.name(), shape.name()))?;
                    let all = measured.ours.entry((model, shape)).or_default();
                    all.forward.extend(time.forward);
                    all.backward.extend(time.backward);
                    (all.events, all.output_mean) = (time.events, time.output_mean);
                }
                Side::Peer(peer) => {
                    let Some(peers) = peers else { continue };
                    let Some(cell) = plan.peer_cell(peer, shape, threads) else {
                        measured.left_out.push(format!("Left out, too slow: {}, {}.", side.name(), shape.name()));
                        continue;
                    };
                    let job =
                        TimingJob { target: TARGET, cell: &cell, threads, device: &device, machine: &line, torch };
                    let time = jobs.run(&job, || peers.time(&cell))?;
                    measured.peers.insert((peer.to_owned(), shape), time);
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

/// The project's demands; they hold for the layer of the published figure at 1024 steps and 32 samples.
fn demands(profile: Profile, measured: &Measurements) -> Vec<Demand> {
    let asked = profile != Profile::Smoke;
    let shape = |l| Shape::new(STEPS, BATCH, l);
    let one = |what: String, limit: &'static str, found: Option<f64>, met: &dyn Fn(f64) -> bool| Demand {
        what,
        limit,
        found: found.map_or_else(|| "not run".into(), |x| format!("{x:.2}")),
        met: found.is_some_and(met),
        asked: asked && found.is_some(),
    };
    let mut list = Vec::new();
    for pair in [OVER_BLOCKS, OVER_LOOP] {
        for l in ASKED {
            let what = format!("{}, refractory period {l}", pair.2);
            list.push(one(what, "at least 8", measured.ratio(pair, shape(l)), &|x| x >= 8.0));
        }
    }
    for side in [Side::Ours(AlifSteps), Side::Ours(AlifBlocks)] {
        let range = measured.range(ASKED.into_iter().map(shape), |s| measured.total(side, s));
        let what = format!("{}: longest / shortest time over refractory periods", side.name());
        list.push(one(what, "at most 1.5", range.map(|(low, high)| high / low), &|x| x <= 1.5));
    }
    list
}

/// The size at which rows are shown: that of the demands, or the largest there is.
fn shown(plan: &Plan) -> (usize, usize) {
    let has = plan.steps.contains(&STEPS) && plan.batches.contains(&BATCH);
    let last = |list: &[usize]| list.last().copied().unwrap_or(1);
    if has { (STEPS, BATCH) } else { (last(&plan.steps), last(&plan.batches)) }
}

fn rows_table(plan: &Plan, measured: &Measurements) -> Table {
    let (steps, batch) = shown(plan);
    let mut columns = vec![Column::words("form")];
    for l in ASKED {
        columns.extend(["forward", "backward", "total"].map(|name| Column::numbers(format!("L {l}: {name}"), "")));
        columns.push(Column::numbers("neuron-steps", "M/s"));
    }
    let title = format!("One layer {INPUTS} -> {NEURONS}, T {steps}, batch {batch}, by refractory period L");
    let mut table = Table::new("rows", title, columns);
    for side in SIDES {
        let mut row = vec![Cell::text(side.name())];
        for l in ASKED {
            match measured.passes(side, Shape::new(steps, batch, l)) {
                Some((forward, backward)) => {
                    let total = forward + backward;
                    row.extend([forward, backward, total].map(|s| Cell::text(show(s))));
                    let rate = 1e-6 * (steps * batch * NEURONS) as f64 / total;
                    row.push(Cell::number(Measured::value(rate), 1));
                }
                None => row.extend(std::iter::repeat_n(Cell::missing("not run"), 4)),
            }
        }
        table.row(row);
    }
    table.note(
        "Steps and blocks fire the same spikes, but their gradients are two different functions: those of blocks grow \
         with the square of the refractory period. Fused: what training uses.",
    );
    table
}

fn ratio_table(plan: &Plan, measured: &Measurements) -> Table {
    let (steps, batch) = shown(plan);
    let mut columns = vec![Column::words("time / time")];
    columns.extend(plan.refractory.iter().map(|l| Column::numbers(format!("L {l}"), "")));
    let title = format!("Ratios of times at T {steps}, batch {batch}, forward and backward, by refractory period L");
    let mut table = Table::new("ratios", title, columns);
    for pair in PAIRS {
        let cells = plan.refractory.iter().map(|&l| measured.ratio(pair, Shape::new(steps, batch, l)));
        let cells = cells.map(|r| r.map_or_else(|| Cell::missing("not run"), |r| Cell::number(Measured::value(r), 2)));
        table.row([Cell::text(pair.2)].into_iter().chain(cells));
    }
    table.note("Above 1 the second is faster.");
    table
}

/// "a to b times", or "a times" where both read the same.
fn times((low, high): (f64, f64)) -> String {
    let (low, high) = (format!("{low:.1}"), format!("{high:.1}"));
    if low == high { format!("{low} times") } else { format!("{low} to {high} times") }
}

fn summary(plan: &Plan, measured: &Measurements) -> Vec<String> {
    let (steps, batch) = shown(plan);
    let cells = || plan.refractory.iter().map(|&l| Shape::new(steps, batch, l));
    let over = |pair: Pair| measured.range(cells(), |s| measured.ratio(pair, s));
    let mut lines = Vec::new();
    let defect: Pair = (PUBLISHED.0, FAIR.0, "", 0);
    if let (Some(published), Some(fair), Some(defect)) = (over(PUBLISHED), over(FAIR), over(defect)) {
        lines.push(format!(
            "PyTorch, T {steps}, batch {batch}: the loop as published takes {} as long as the blocks, the same loop \
             without writes into an array of all steps {}. With these writes the loop takes {} as long as without.",
            times(published),
            times(fair),
            times(defect)
        ));
    }
    if let Some(own) = over(OWN_PUBLISHED) {
        lines.push(format!(
            "The two published algorithms in this program, T {steps}, batch {batch}: operation by operation, steps take {} \
             as long as blocks.",
            times(own)
        ));
    }
    if let Some(fused) = over(FUSED) {
        lines.push(format!(
            "Fused into one pass over time, T {steps}, batch {batch}, steps take {} as long as blocks: {}",
            times(fused),
            match fused {
                (_, high) if high <= 1.3 =>
                    "blocks have no advantage of their own left, so what they gain in other rows is overhead per step, not \
                     work.",
                _ => "a part of the advantage stays.",
            }
        ));
    }
    let growth = |side: Side| {
        let at = |l| measured.total(side, Shape::new(steps, batch, l));
        Some(at(*ASKED.last()?)? / at(ASKED[0])?)
    };
    let named = |side: Side| Some(format!("{} {:.2}", side.name(), growth(side)?));
    let grown: Vec<String> = SIDES.into_iter().filter_map(named).collect();
    if !grown.is_empty() {
        lines.push(format!(
            "From a refractory period of {} steps to one of {}, time changes by these factors: {}. Published blocks do K \
             multiply-adds per value and convolution, K the refractory period and one; scans do the same for all periods.",
            ASKED[0],
            ASKED[2],
            grown.join("; ")
        ));
    }
    if let (Some(blocks), Some(fair)) = (over(OVER_BLOCKS), over(OVER_LOOP)) {
        lines.push(format!(
            "PyTorch's blocks take {} as long as ours, PyTorch's fair loop {} as long as our steps.",
            times(blocks),
            times(fair)
        ));
    }
    lines
}

fn deviations(cpu: &Cpu, plan: &Plan) -> Vec<Deviation> {
    let mut list = vec![
        Deviation::new("hardware", "a GPU, not named", cpu.describe())
            .why("a CPU has no kernel launches to save; absolute times and speed-ups do not compare"),
        Deviation::new(
            "baseline",
            "a loop that writes into an array of all steps",
            "that loop, and the same without these writes",
        )
        .why("with them the backward pass is quadratic in T; both are shown"),
        Deviation::new("spike input of the fused layers", "dense", "row lists; dense products where that is cheaper"),
        Deviation::new(
            "carry of the adaptation in the fused blocks",
            "divided by p",
            "without the division: the same values, and spikes where p is 0",
        ),
    ];
    let mut fewer = |what: &str, published: &str, here: String| {
        if published != here {
            list.push(Deviation::new(what, published, here));
        }
    };
    let join = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let periods: Vec<usize> = plan.refractory.iter().map(|&l| l as usize).collect();
    let (layers, neurons, steps, batch) = &plan.layers;
    fewer("refractory periods (steps)", "10, 20, 30, 40, 50, 60, 70, 80, 90, 100", join(&periods));
    fewer("T", "512, 1024, 2048", join(&plan.steps));
    fewer("batch sizes", "32, 64, 128", join(&plan.batches));
    fewer("layers", "1, 2, 3, 4, 5", join(layers));
    fewer("neurons of the layers", "128, 256, 512", join(neurons));
    fewer("T and batch of the layers", "1024, 64", format!("{steps}, {batch}"));
    fewer("timings per cell, but four times as many of fused scans", "10", plan.repeats.to_string());
    list
}

/// Speed-ups over something, one line per pair.
fn pair_series(
    measured: &Measurements,
    pairs: &[Pair],
    points: impl Iterator<Item = (f64, Shape)> + Clone,
) -> Vec<Series> {
    let of = |&pair: &Pair| {
        let at = points.clone().filter_map(|(x, shape)| Some((x, measured.ratio(pair, shape)?)));
        let points: Vec<(f64, f64)> = at.collect();
        let line = Series::new(pair.2, points).colour(pair.3);
        match (pair.0, pair.1) {
            (Side::Peer(_), Side::Peer(_)) => line.stroke(Stroke::Dashed).marker(Marker::Triangle),
            (Side::Peer(_), _) => line.marker(Marker::Square),
            _ => line,
        }
    };
    pairs.iter().map(of).filter(|series| !series.points.is_empty()).collect()
}

const PERIODS: &str = "refractory period (steps)";

fn figure(plan: &Plan, measured: &Measurements) -> Figure {
    let (steps, batch) = shown(plan);
    let mut figure = Figure::new(TARGET, "Adaptive neurons: what blocks of a refractory period gain", 2).caption(format!(
        "One layer {INPUTS} -> {NEURONS}, forward and backward. Speed-ups are times of the first over times of the second; \
         above 1 the second is faster. \"As published\": the loop writes into an array of all steps. Last panel: the \
         published speed-ups, read off the publication's figure (about +-0.3), on a GPU that is not named: never to be \
         compared point by point."
    ));
    let rates = SIDES.iter().enumerate().filter_map(|(i, &side)| {
        let at = |&l: &u32| {
            let total = measured.total(side, Shape::new(steps, batch, l))?;
            Some((f64::from(l), 1e-6 * (steps * batch * NEURONS) as f64 / total))
        };
        let points: Vec<(f64, f64)> = plan.refractory.iter().filter_map(at).collect();
        let line = Series::new(side.name(), points).colour(i);
        let line =
            if matches!(side, Side::Peer(_)) { line.stroke(Stroke::Dashed).marker(Marker::Triangle) } else { line };
        (!line.points.is_empty()).then_some(line)
    });
    let title = format!("throughput, T {steps}, batch {batch}");
    let lines = Lines::new(rates.collect());
    figure = figure.panel(Panel::new(title, PERIODS, Axis::log10("million neuron-steps per second"), lines));
    for (t, b) in plan.steps.iter().flat_map(|&t| plan.batches.iter().map(move |&b| (t, b))) {
        let points = plan.refractory.iter().map(|&l| (f64::from(l), Shape::new(t, b, l)));
        let lines = Lines::new(pair_series(measured, &PAIRS, points)).reference(1.0, "equal");
        let panel = Panel::new(format!("T {t}, batch {b}"), PERIODS, Axis::log2("speed-up"), lines);
        let first = (t, b) == (plan.steps[0], plan.batches[0]);
        figure = figure.panel(if first { panel } else { panel.without_legend() });
    }
    // The last panel fills its row.
    let span = 2 - figure.panels.len() % 2;
    figure.panel(published::panel().span(span))
}

fn layers_figure(plan: &Plan, measured: &Measurements) -> Figure {
    let (layers, neurons, steps, batch) = &plan.layers;
    let mut figure = Figure::new("blocks-speed-layers", "Several layers of adaptive neurons", 2).caption(format!(
        "T {steps}, batch {batch}, refractory period {LAYERS_AT} steps, {INPUTS} inputs, forward and backward; speed-ups \
         as in the other figure. Last panel: published (read off the publication's figure, T 1024, batch 64, on a GPU)."
    ));
    for &n in neurons {
        let stack = |&layers: &usize| (layers as f64, Shape { layers, n, ..Shape::new(*steps, *batch, LAYERS_AT) });
        let lines = Lines::new(pair_series(measured, &PAIRS, layers.iter().map(stack))).reference(1.0, "equal");
        let panel =
            Panel::new(format!("{n} neurons per layer"), whole("layers", layers), Axis::log2("speed-up"), lines);
        figure = figure.panel(if n == neurons[0] { panel } else { panel.without_legend() });
    }
    figure.panel(published::layers_panel())
}

/// An axis of small whole numbers.
fn whole(label: &str, values: &[usize]) -> Axis {
    Axis::linear(label).names(values.iter().map(|&v| (v as f64, v.to_string())))
}

/// The published speed-ups of blocks over the published loop, forward and backward.
mod published {
    use super::{Axis, Cell, Column, Lines, Measured, PERIODS, Panel, Series, Table, whole};

    /// For refractory periods of 10, 20, ..., 100 steps: T, batch, values read off the figure.
    const GRID: [(usize, usize, [f64; 10]); 9] = [
        (512, 32, [5.0, 9.8, 13.6, 18.8, 19.9, 23.8, 29.0, 32.6, 34.2, 36.0]),
        (512, 64, [4.9, 9.0, 12.5, 17.4, 18.8, 21.9, 24.1, 28.9, 29.5, 28.0]),
        (512, 128, [5.8, 10.0, 14.0, 18.1, 19.8, 21.3, 21.2, 21.7, 21.5, 18.5]),
        (1024, 32, [5.3, 9.5, 13.4, 17.9, 22.5, 27.8, 29.6, 34.3, 36.2, 38.7]),
        (1024, 64, [6.2, 11.0, 15.2, 19.6, 23.3, 29.1, 32.0, 36.0, 35.6, 34.1]),
        (1024, 128, [9.5, 16.3, 22.0, 27.8, 29.4, 32.3, 32.8, 33.8, 31.8, 29.6]),
        (2048, 32, [6.8, 11.7, 17.3, 22.3, 25.0, 30.2, 37.1, 41.1, 45.9, 49.0]),
        (2048, 64, [10.4, 17.8, 26.0, 33.2, 36.8, 43.9, 48.7, 51.3, 53.4, 52.3]),
        (2048, 128, [14.7, 25.0, 33.4, 39.9, 43.4, 48.6, 51.5, 51.9, 51.0, 49.4]),
    ];

    /// For 1 to 5 layers: neurons per layer, values read off the figure.
    const LAYERS: [(usize, [f64; 5]); 3] = [
        (128, [21.3, 22.4, 23.1, 23.4, 23.7]),
        (256, [30.3, 30.8, 31.5, 32.4, 32.6]),
        (512, [32.0, 32.9, 33.2, 33.3, 33.3]),
    ];

    fn cells(values: &[f64]) -> impl Iterator<Item = Cell> + '_ {
        values.iter().map(|&v| Cell::number(Measured::value(v), 1))
    }

    pub(super) fn table() -> Table {
        let mut columns = vec![Column::numbers("T", ""), Column::numbers("batch", "")];
        columns.extend((1..=10).map(|i| Column::numbers(format!("L {}", 10 * i), "")));
        let title = "Published: speed-up of blocks over the published loop, by refractory period L";
        let mut table = Table::new("published", title, columns);
        for (steps, batch, values) in &GRID {
            let head = [steps, batch].map(|v| Cell::text(v.to_string()));
            table.row(head.into_iter().chain(cells(values)));
        }
        table.note(
            "Read off a figure, about +-0.3; a GPU that is not named; the loop has a backward pass quadratic in T.",
        );
        table
    }

    pub(super) fn layers_table() -> Table {
        let mut columns = vec![Column::numbers("neurons per layer", "")];
        columns.extend(
            (1..=5).map(|l| Column::numbers(if l == 1 { "1 layer".into() } else { format!("{l} layers") }, "")),
        );
        let title = "Published: speed-up of blocks over the published loop, by layers (T 1024, batch 64, L 40)";
        let mut table = Table::new("published-layers", title, columns);
        for (n, values) in &LAYERS {
            table.row([Cell::text(n.to_string())].into_iter().chain(cells(values)));
        }
        table.note("Read off a figure, about +-0.3.");
        table
    }

    pub(super) fn panel() -> Panel {
        let series = GRID.iter().enumerate().map(|(i, (steps, batch, values))| {
            let points = values.iter().enumerate().map(|(k, &v)| (10.0 * (k + 1) as f64, v));
            let fade = 0.3 * (i % 3) as f64;
            Series::new(format!("T {steps}, batch {batch}"), points).published().colour(i / 3).fade(fade)
        });
        Panel::new("published, on a GPU", PERIODS, Axis::log2("speed-up"), Lines::new(series.collect()))
    }

    pub(super) fn layers_panel() -> Panel {
        let series = LAYERS.iter().enumerate().map(|(i, (n, values))| {
            let points = values.iter().enumerate().map(|(k, &v)| ((k + 1) as f64, v));
            Series::new(format!("{n} neurons"), points).published().colour(i)
        });
        let lines = Lines::new(series.collect());
        Panel::new(
            "published, on a GPU",
            whole("layers", &[1, 2, 3, 4, 5]),
            Axis::linear("speed-up").limits(0.0, 40.0),
            lines,
        )
    }
}

fn records(measured: &Measurements) -> Vec<Record> {
    let configuration = |s: &Shape| {
        json!({ "batch": s.batch, "steps": s.steps, "n_in": INPUTS, "n": s.n, "layers": s.layers,
            "refractory": s.refractory })
    };
    let ours = measured.ours.iter().map(|((model, shape), time)| Record {
        what: model.name().to_owned(),
        configuration: configuration(shape),
        seed: Some(0),
        numbers: [
            ("forward_s".to_owned(), time.forward_s()),
            ("backward_s".to_owned(), time.backward_s()),
            ("input_events".to_owned(), time.events),
            ("output_mean".to_owned(), time.output_mean),
        ]
        .into(),
        details: json!({ "forward_all": time.forward, "backward_all": time.backward }),
    });
    let peers = measured.peers.iter().map(|((peer, shape), time)| Record {
        what: format!("torch {peer}"),
        configuration: configuration(shape),
        seed: Some(0),
        numbers: [("forward_s".to_owned(), time.forward_s), ("backward_s".to_owned(), time.backward_s)].into(),
        details: json!({ "forward_all": time.forward_all, "backward_all": time.backward_all, "torch": time.torch }),
    });
    ours.chain(peers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(plan: &Plan, ours: f64, peers: f64) -> Measurements {
        let mut measured = Measurements::default();
        for shape in plan.shapes() {
            for side in SIDES {
                match side {
                    Side::Ours(model) => {
                        let time =
                            LayerTime { forward: vec![ours], backward: vec![2.0 * ours], ..LayerTime::default() };
                        measured.ours.insert((model, shape), time);
                    }
                    Side::Peer(peer) => {
                        let slow = if peer == "alif-published" { 10.0 } else { 1.0 };
                        let time = PeerTime { forward_s: peers, backward_s: slow * peers, ..PeerTime::default() };
                        measured.peers.insert((peer.to_owned(), shape), time);
                    }
                }
            }
        }
        measured
    }

    #[test]
    fn demands_are_asked_where_their_layer_was_run() {
        let smoke = demands(Profile::Smoke, &filled(&Plan::new(Profile::Smoke), 1.0, 1.0));
        assert!(smoke.iter().all(|d| !d.asked));
        let plan = Plan::new(Profile::Quick);
        let slow = demands(Profile::Quick, &filled(&plan, 1.0, 1.0));
        assert!(slow.iter().all(|d| d.asked) && slow.iter().filter(|d| d.met).count() == 2);
        let fast = demands(Profile::Quick, &filled(&plan, 1.0, 12.0));
        assert!(fast.len() == 8 && fast.iter().all(|d| d.met));
        assert!(demands(Profile::Quick, &Measurements::default()).iter().all(|d| !d.asked && d.found == "not run"));
    }

    #[test]
    fn a_report_is_made_from_any_measurements() {
        for profile in [Profile::Smoke, Profile::Quick, Profile::Paper] {
            let plan = Plan::new(profile);
            let measured = filled(&plan, 1.0, 1.0);
            let panels = plan.steps.len() * plan.batches.len() + 2;
            assert_eq!(figure(&plan, &measured).panels.len(), panels);
            assert_eq!(figure(&plan, &Measurements::default()).panels.len(), panels);
            assert_eq!(rows_table(&plan, &measured).rows.len(), SIDES.len());
            assert_eq!(summary(&plan, &measured).len(), 5);
            assert!(summary(&plan, &Measurements::default()).is_empty());
            assert!(summary(&plan, &measured)[0].contains("5.5 times"), "{:?}", summary(&plan, &measured));
        }
    }

    #[test]
    fn the_published_loop_is_left_out_where_it_would_take_minutes() {
        let plan = Plan::new(Profile::Quick);
        let slow = Shape::new(8 * STEPS, BATCH, 10);
        assert!(plan.peer_cell("alif-published", slow, 2).is_none() && plan.peer_cell("alif", slow, 2).is_some());
        let shape = Shape::new(STEPS, BATCH, 10);
        assert_eq!(plan.peer_cell("alif-published", shape, 2).map(|c| c.repeats), Some(1));
    }
}
