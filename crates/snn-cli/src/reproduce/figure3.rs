//! Figure 3 of the block paper (arXiv 2205.15286): how much faster the block model is than the sequential neuron.
//!
//! The publication compares two algorithms of its PyTorch code: the single-spike neuron, one operation per line and
//! time step, and the block model, two convolutions over all steps. Both are kept here ([`snn_cpu::published`]) and
//! give the published comparison; the fused layers that training uses are timed on the same inputs, so that the
//! figure shows what fusion adds. Every curve says which is which.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::json;
use snn_core::backend::Memory;
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;

use super::TimingJob;
use crate::args::Reproduce;
use crate::bench::LayerModel::{self, Block, BlockConvolution, Single, SingleStepwise};
use crate::bench::layer::{LayerCell, LayerTime, cell_bytes, peer_cell, time_layer};
use crate::bench::peer::{PeerCell, PeerTime, Peers};
use crate::console;
use crate::report::{
    Axis, Comparison, ComparisonRow, Deviation, Figure, Heat, Jobs, Kind, Lines, Machine, Marker, Measured, Panel,
    Profile, Record, Report, Scale, Series, Stroke, machine,
};

/// The command's name of this figure.
const TARGET: &str = "figure3";

/// Inputs of the first layer, as published.
const INPUTS: usize = 1000;

/// Steps of panels c and d, as published.
const STEPS: usize = 128;

/// Neurons of panel b, and of panels e and f, as published.
const FEW: usize = 100;
const MANY: usize = 1000;

/// The four ways to compute a layer, in the order of their colours.
const MODELS: [LayerModel; 4] = [SingleStepwise, BlockConvolution, Single, Block];

/// What a profile runs.
#[derive(Debug)]
struct Plan {
    /// Time steps of the grid.
    steps: Vec<usize>,
    /// Neurons of the grid; [`FEW`] and [`MANY`] are among them.
    neurons: Vec<usize>,
    /// Batch sizes of panels b, e, f; the last one is that of all other panels.
    batches: Vec<usize>,
    /// Layers of panel c, and its neurons per layer.
    layers: (Vec<usize>, Vec<usize>),
    /// Neurons of panel d.
    large: Vec<usize>,
    repeats: usize,
    /// Whether peers run on the whole grid, or for [`FEW`] and [`MANY`] neurons only.
    peer_grid: bool,
    /// Peers are left out where one pass forward and backward would take longer, in seconds.
    peer_limit: f64,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        let powers = |from: u32, to: u32| (from..=to).map(|e| 1_usize << e).collect();
        match profile {
            Profile::Smoke => Self {
                steps: vec![8, 32, 128, 512, 1024],
                neurons: vec![FEW, 400, MANY],
                batches: vec![32],
                layers: (vec![1, 2, 3], vec![200, 800]),
                large: vec![2000, 4000],
                repeats: 3,
                peer_grid: false,
                peer_limit: 2.0,
            },
            Profile::Quick => Self {
                steps: powers(3, 10),
                neurons: vec![FEW, 200, 400, 700, MANY],
                batches: vec![32, 64],
                layers: (vec![1, 2, 3, 4, 5], vec![200, 400, 800]),
                large: vec![2000, 5000, 10_000],
                repeats: 4,
                peer_grid: false,
                peer_limit: 15.0,
            },
            Profile::Paper => Self {
                steps: powers(3, 11),
                neurons: (1..=10).map(|i| 100 * i).collect(),
                batches: vec![32, 64, 128],
                layers: (vec![1, 2, 3, 4, 5], (1..=10).map(|i| 100 * i).collect()),
                large: (1..=10).map(|i| 2000 * i).collect(),
                repeats: 10,
                peer_grid: true,
                peer_limit: 120.0,
            },
        }
    }

    /// The batch size of the panels that show one.
    fn batch(&self) -> usize {
        self.batches.last().copied().unwrap_or(1)
    }

    fn cell(&self, model: LayerModel, batch: usize, steps: usize, n: usize, layers: usize) -> LayerCell {
        LayerCell { layers, ..LayerCell::new(model, [batch, steps, INPUTS, n], self.repeats) }
    }

    /// Every cell once, cheap ones first.
    fn cells(&self) -> Vec<LayerCell> {
        let mut shapes: Vec<(usize, usize, usize, usize)> = Vec::new();
        for &steps in &self.steps {
            shapes.extend(self.neurons.iter().map(|&n| (self.batch(), steps, n, 1)));
            shapes.extend(self.batches.iter().flat_map(|&b| [FEW, MANY].map(|n| (b, steps, n, 1))));
        }
        for &n in &self.layers.1 {
            shapes.extend(self.layers.0.iter().map(|&l| (self.batch(), STEPS, n, l)));
        }
        shapes.extend(self.large.iter().map(|&n| (self.batch(), STEPS, n, 1)));
        shapes.sort_by_key(|&(b, t, n, l)| (b * t * n * l, b, t, n, l));
        shapes.dedup();
        let cells = shapes.iter().flat_map(|&(b, t, n, l)| MODELS.map(|model| self.cell(model, b, t, n, l)));
        cells.collect()
    }

    /// What the peers are asked for: the sequential neuron (fair and sliced) and the block model.
    fn peer_cells(&self, threads: usize) -> Vec<PeerCell> {
        let mut cells = Vec::new();
        for &steps in &self.steps {
            for &n in &self.neurons {
                if !self.peer_grid && n != FEW && n != MANY {
                    continue;
                }
                for (peer, sliced) in PEERS {
                    let ours = self.cell(Block, self.batch(), steps, n, 1);
                    let cell = peer_cell(peer, &ours, threads, sliced);
                    if peer_estimate(&cell) <= self.peer_limit {
                        cells.push(cell);
                    }
                }
            }
        }
        cells
    }
}

/// Peers and whether their time loops slice the current.
const PEERS: [(&str, bool); 3] = [("single", false), ("single", true), ("block", false)];

/// Everything that was measured.
#[derive(Debug, Default)]
struct Measurements {
    ours: BTreeMap<(LayerModel, usize, usize, usize, usize), LayerTime>,
    peers: BTreeMap<(String, usize, usize, usize), PeerTime>,
    left_out: Vec<String>,
}

/// Which pass of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
    Total,
}

impl Pass {
    fn of(self, forward: f64, backward: f64) -> f64 {
        match self {
            Self::Forward => forward,
            Self::Backward => backward,
            Self::Total => forward + backward,
        }
    }
}

impl Measurements {
    /// Median seconds of one of our cells.
    fn ours(&self, model: LayerModel, pass: Pass, batch: usize, steps: usize, n: usize, layers: usize) -> Option<f64> {
        let time = self.ours.get(&(model, batch, steps, n, layers))?;
        Some(pass.of(time.forward_s(), time.backward_s()))
    }

    /// Median seconds of a peer's cell, one layer.
    fn peer(&self, peer: &str, pass: Pass, batch: usize, steps: usize, n: usize) -> Option<f64> {
        let time = self.peers.get(&(peer.to_owned(), batch, steps, n))?;
        Some(pass.of(time.forward_s, time.backward_s))
    }

    /// Time of the first over time of the second.
    fn speed_up(&self, pair: Pair, pass: Pass, batch: usize, steps: usize, n: usize, layers: usize) -> Option<f64> {
        let time = |side: Side| match side {
            Side::Ours(model) => self.ours(model, pass, batch, steps, n, layers),
            Side::Peer(peer) => self.peer(peer, pass, batch, steps, n).filter(|_| layers == 1),
        };
        Some(time(pair.0)? / time(pair.1)?)
    }
}

/// Something that was timed.
#[derive(Debug, Clone, Copy)]
enum Side {
    Ours(LayerModel),
    Peer(&'static str),
}

/// A baseline and what is compared with it.
type Pair = (Side, Side);

/// The published comparison, by our versions of the published algorithms.
const AS_PUBLISHED: Pair = (Side::Ours(SingleStepwise), Side::Ours(BlockConvolution));
/// What training here gains over the published baseline.
const FUSED_BLOCK: Pair = (Side::Ours(SingleStepwise), Side::Ours(Block));
/// Both models in their best form.
const BOTH_FUSED: Pair = (Side::Ours(Single), Side::Ours(Block));
/// The published comparison in PyTorch, with a time loop that unbinds the current once.
const TORCH: Pair = (Side::Peer("single"), Side::Peer("block"));
/// The same with the published time loop.
const TORCH_SLICED: Pair = (Side::Peer("single+sliced"), Side::Peer("block"));
/// PyTorch's sequential neuron against our block.
const TORCH_FUSED: Pair = (Side::Peer("single"), Side::Ours(Block));

/// Runs the reproduction.
pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let directory = args.out.join(TARGET);
    let cpu = args.place.processor()?;
    let plan = Plan::new(args.profile);
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let mut report = Report::new(TARGET, "Speed of the block model, figure 3 of arXiv 2205.15286", args.profile);
    let measured = measure(&cpu, &plan, peers.as_ref(), &jobs, &report.machine, quiet)?;
    describe(&mut report, &plan, &measured, &cpu, peers.as_ref());
    report.comparisons = comparisons(&plan, &measured);
    report.figures = figures(&plan, &measured, peers.as_ref());
    report.records = records(&measured);
    report.notes.extend(measured.left_out.iter().cloned());
    report.notes.extend(jobs.notes());
    report.command = super::command(args);
    report.seeds = vec![0];
    report.seconds = jobs.counts().seconds;
    for line in &report.summary {
        console::line(line)?;
    }
    super::publish(&report, &directory)
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
    let (device, line) = (cpu.describe(), machine.line());
    let torch = peers.map_or("", Peers::version);
    let threads = cpu.threads();
    let memory = machine.memory_gib.map_or(f64::INFINITY, |gib| 0.8 * gib * (1_u64 << 30) as f64);
    let (fit, too_large): (Vec<_>, Vec<_>) = plan.cells().into_iter().partition(|cell| cell_bytes(cell) <= memory);
    for cell in &too_large {
        let gib = cell_bytes(cell) / (1_u64 << 30) as f64;
        measured.left_out.push(format!("Left out for want of memory ({gib:.1} GiB): {}.", name(cell)));
    }
    let peer_cells = if peers.is_some() { plan.peer_cells(threads) } else { Vec::new() };
    let ours = |cell| TimingJob { target: TARGET, cell, threads, device: &device, machine: &line, torch: "" };
    let theirs = |cell| TimingJob { target: TARGET, cell, threads, device: &device, machine: &line, torch };
    let open: Vec<&LayerCell> = fit.iter().filter(|cell| !jobs.is_done(&ours(*cell))).collect();
    let open_peers: Vec<&PeerCell> = peer_cells.iter().filter(|cell| !jobs.is_done(&theirs(*cell))).collect();
    let left = open.len() + open_peers.len();
    if !quiet && left > 0 {
        let limits = Limits::measure(cpu);
        let seconds = open.iter().map(|cell| estimate(&limits, cell)).sum::<f64>()
            + open_peers.iter().map(|cell| 3.0 + (cell.repeats + 1) as f64 * peer_estimate(cell)).sum::<f64>();
        console::message(format_args!(
            "{} of {} timings to be done, about {} on this machine if nothing else runs; an interrupted run continues",
            left,
            fit.len() + peer_cells.len(),
            machine::duration(seconds)
        ));
    }
    let bar = console::bar(quiet, (fit.len() + peer_cells.len()) as u64, "[{bar:30}] {pos}/{len} {msg}");
    for cell in &fit {
        bar.set_message(name(cell));
        let time = jobs.run(&ours(cell), || time_layer(cpu, cell)).with_context(|| name(cell))?;
        measured.ours.insert((cell.model, cell.batch, cell.steps, cell.n, cell.layers), time);
        bar.inc(1);
    }
    for cell in &peer_cells {
        let Some(peers) = peers else { break };
        bar.set_message(format!("torch {}, batch {}, T {}, n {}", cell.peer, cell.batch, cell.steps, cell.n));
        let time = jobs.run(&theirs(cell), || peers.time(cell))?;
        measured.peers.insert((time.peer.clone(), cell.batch, cell.steps, cell.n), time);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn name(cell: &LayerCell) -> String {
    let LayerCell { model, batch, steps, n, layers, .. } = cell;
    let layers = if *layers == 1 { String::new() } else { format!(", {layers} layers") };
    format!("{}, batch {batch}, T {steps}, n {n}{layers}", model.name())
}

/// About how long a cell takes, from what its algorithm has to do and what the machine can do.
fn estimate(limits: &Limits, cell: &LayerCell) -> f64 {
    let rows = (cell.batch * cell.steps) as f64;
    let (lanes, layers) = (rows * cell.n as f64, cell.layers as f64);
    let between = 2.0 * (layers - 1.0) * lanes * cell.n as f64;
    let (fma, adds, copy) = (0.7 * limits.fma.all, limits.row_add.all, limits.copy.all);
    // As many events as the generator gives: half of the inputs in short runs, 100 per input in long ones.
    let events = rows * cell.n_in as f64 * (100.0 / cell.steps as f64).min(0.7);
    let dense = (4.0 * lanes * cell.n_in as f64 + 3.0 * between) / fma;
    let sparse = 2.0 * 1.5 * events * cell.n as f64 / adds + between / fma;
    let operations = 18.0 * layers * cell.steps as f64;
    let pass = match cell.model {
        BlockConvolution => dense + 2.0 * 1.5 * lanes * layers * cell.steps as f64 / adds,
        SingleStepwise => dense + operations * 20e-6 + 18.0 * 24.0 * lanes * layers / copy,
        _ => dense.min(sparse) + 40.0 * lanes * layers / copy,
    };
    (cell.repeats + 1) as f64 * (pass + 15e-9 * events)
}

/// About how long one pass of a peer takes; measured once on two cores, good for a decision only.
fn peer_estimate(cell: &PeerCell) -> f64 {
    let (lanes, steps) = ((cell.batch * cell.steps * cell.n) as f64, cell.steps as f64);
    match (cell.peer.as_str(), cell.sliced) {
        ("block", _) => 5e-8 * lanes + 2.7e-9 * lanes * steps,
        (_, true) => 5e-8 * lanes + 1e-9 * lanes * steps,
        _ => 5e-8 * lanes,
    }
}

/// The largest and smallest value, and the one in the middle.
fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    Some((*sorted.first()?, sorted[sorted.len() / 2], *sorted.last()?))
}

/// Speed-ups over the whole grid.
fn over_grid(plan: &Plan, measured: &Measurements, pair: Pair, pass: Pass) -> Option<(f64, f64, f64)> {
    let cells = plan.steps.iter().flat_map(|&t| plan.neurons.iter().map(move |&n| (t, n)));
    range(cells.filter_map(|(t, n)| measured.speed_up(pair, pass, plan.batch(), t, n, 1)))
}

fn describe(report: &mut Report, plan: &Plan, measured: &Measurements, cpu: &Cpu, peers: Option<&Peers>) {
    let batch = plan.batch();
    let mut say = |what: &str, pair: Pair| {
        if let Some((low, middle, high)) = over_grid(plan, measured, pair, Pass::Total) {
            report.summary.push(format!(
                "{what}: speed-up {low:.2} to {high:.2} over the grid of n and T (median {middle:.2}; forward and backward \
                 together, batch {batch})."
            ));
        }
    };
    say("The published comparison, step by step against convolutions, both as published", AS_PUBLISHED);
    say("The fused block against the published step-by-step baseline", FUSED_BLOCK);
    say("The fused block against the fused sequential neuron", BOTH_FUSED);
    say("In PyTorch, its sequential neuron against its block", TORCH);
    say("In PyTorch, the sequential neuron with the published slicing against the block", TORCH_SLICED);
    say("Our fused block against PyTorch's sequential neuron", TORCH_FUSED);
    let last = plan.steps.last().copied().unwrap_or(STEPS);
    let at = |pair| measured.speed_up(pair, Pass::Forward, batch, last, MANY, 1);
    if let (Some(published), Some(fused)) = (at(AS_PUBLISHED), at(FUSED_BLOCK)) {
        report.summary.push(format!(
            "At the longest runs (T {last}, n {MANY}) the forward speed-up of the published algorithm is {published:.2}, \
             because its cost grows with the square of T; that of the fused scan, linear in T, is {fused:.2}."
        ));
    }
    report.deviations = vec![
        Deviation::new("device", "GPU (one NVIDIA A100), PyTorch", cpu.describe()).why(
            "a CPU has no launch overhead to hide: speed-ups by parallel steps are smaller, times are not comparable",
        ),
        Deviation::new(
            "published algorithms",
            "PyTorch convolutions (cuDNN) and autograd",
            "the same operations in Rust, backward by hand, whole-array intermediates kept",
        )
        .why("the comparison is between algorithms in one program"),
        Deviation::new(
            "slicing of the current",
            "the sequential model slices the current in every step, its backward pass is quadratic in T",
            "linear in T; in PyTorch both forms are timed",
        )
        .why("the published baseline is slowed by an artefact of its code"),
        Deviation::new("spike input of the fused layers", "dense", "row lists; dense products where that is cheaper"),
    ];
    let mut fewer = |what: &str, published: &str, here: String| {
        if published != here {
            report.deviations.push(Deviation::new(what, published, here));
        }
    };
    let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    fewer("timings per cell", "10", plan.repeats.to_string());
    fewer("batch size of panels a, c, d", "128", batch.to_string());
    fewer("batch sizes of panels b, e, f", "32, 64, 128", list(&plan.batches));
    fewer("T of the grid", "8, 16, 32, 64, 128, 256, 512, 1024, 2048", list(&plan.steps));
    fewer("n of the grid", "100, 200, 300, 400, 500, 600, 700, 800, 900, 1000", list(&plan.neurons));
    fewer("layers of panel c", "1, 2, 3, 4, 5", list(&plan.layers.0));
    fewer("n of panel d", "2000, 4000, 6000, 8000, 10000, 12000, 14000, 16000, 18000, 20000", list(&plan.large));
    if let Some(peers) = peers {
        report.versions.push(("torch".to_owned(), peers.version().to_owned()));
        report
            .notes
            .push(format!("PyTorch was left out where one pass was expected to take more than {} s.", plan.peer_limit));
    }
    report.notes.push(
        "Times are medians on this machine while other work may have run on it; ratios of neighbouring cells can differ \
         by a few per cent from run to run."
            .to_owned(),
    );
}

/// Published values that the publication's code or figure gives; `fig` marks those read off the figure.
mod published {
    /// Smallest and largest speed-up over the grid, all passes together, batch 128.
    pub(super) const GRID: (f64, f64) = (0.432_1, 17.256_5);
    /// Panel d: smallest and largest (fig).
    pub(super) const LARGE: (f64, f64) = (2.2, 4.5);
    /// Panel e, forward speed-up at n 1000 for T 8, 16, ..., 2048 (fig).
    pub(super) const FORWARD: [(usize, [f64; 9]); 3] = [
        (32, [1.4, 2.7, 4.1, 6.3, 11.1, 5.1, 4.9, 3.1, 1.6]),
        (64, [1.3, 1.6, 2.6, 3.7, 6.0, 2.7, 2.9, 1.6, 0.75]),
        (128, [1.2, 1.3, 1.9, 2.1, 2.2, 2.2, 1.4, 0.6, 0.4]),
    ];
    /// Panel c, speed-up for 1 to 5 layers of n neurons, batch 128 (fig).
    pub(super) const LAYERS: [(usize, [f64; 5]); 3] =
        [(200, [8.0, 8.9, 11.0, 9.3, 9.1]), (400, [5.0, 4.6, 4.5, 5.6, 5.6]), (800, [3.9, 3.0, 3.7, 4.9, 5.0])];
    /// Panel b, log10 seconds of both passes at n 100 (fig): T, sequential, block, for batch 32, 64, 128.
    pub(super) const SECONDS: [(usize, [f64; 3], [f64; 3]); 5] = [
        (8, [-2.0; 3], [-2.7; 3]),
        (64, [-1.43; 3], [-2.9, -2.8, -2.55]),
        (128, [-1.13; 3], [-2.7, -2.55, -2.4]),
        (512, [-0.55; 3], [-1.85, -1.55, -1.3]),
        (2048, [0.05, 0.17, 0.35], [-0.9, -0.55, -0.3]),
    ];
    /// Panel f, backward over forward of the block at n 1000: T 8 and T 2048 (fig).
    pub(super) const BACKWARD: [(usize, f64); 2] = [(8, 1.0), (2048, 3.5)];
}

fn comparisons(plan: &Plan, measured: &Measurements) -> Vec<Comparison> {
    let batch = plan.batch();
    let other_batch = |b: usize| if b == 128 { String::new() } else { format!("batch {b} here, 128 published") };
    let value = |v: Option<f64>| v.map(Measured::value);

    let title = "Speed-up of the block model: step-by-step baseline over convolutions, both as published";
    let mut speed = Comparison::new("speed-up", title);
    let grid = [Pass::Forward, Pass::Backward, Pass::Total].map(|pass| over_grid(plan, measured, AS_PUBLISHED, pass));
    let grid: Vec<_> = grid.into_iter().flatten().collect();
    let (low, high) = (range(grid.iter().map(|g| g.0)).map(|r| r.0), range(grid.iter().map(|g| g.2)).map(|r| r.2));
    for (quantity, published, ours) in
        [("smallest speed-up", published::GRID.0, low), ("largest speed-up", published::GRID.1, high)]
    {
        let row = ComparisonRow::new("a: grid of n and T, forward, backward and both", quantity, "x");
        speed.row(row.published(published).ours_if(value(ours)).ratio().note(other_batch(batch)));
    }
    for (n, values) in published::LAYERS {
        for (i, published) in values.into_iter().enumerate() {
            let ours = measured.speed_up(AS_PUBLISHED, Pass::Total, batch, STEPS, n, i + 1);
            if ours.is_some() {
                let row = ComparisonRow::new(format!("c: T {STEPS}, n {n}, layers: {}", i + 1), "speed-up", "x");
                speed.row(row.published(published).ours_if(value(ours)).ratio().note(other_batch(batch)));
            }
        }
    }
    let large =
        range(plan.large.iter().filter_map(|&n| measured.speed_up(AS_PUBLISHED, Pass::Total, batch, STEPS, n, 1)));
    for (quantity, published, ours) in [
        ("smallest speed-up", published::LARGE.0, large.map(|r| r.0)),
        ("largest speed-up", published::LARGE.1, large.map(|r| r.2)),
    ] {
        let row = ComparisonRow::new(format!("d: T {STEPS}, n of 2000 and more"), quantity, "x");
        speed.row(row.published(published).ours_if(value(ours)).ratio().note(other_batch(batch)));
    }
    for (batch, values) in published::FORWARD {
        for (i, published) in values.into_iter().enumerate() {
            let steps = 8 << i;
            let ours = measured.speed_up(AS_PUBLISHED, Pass::Forward, batch, steps, MANY, 1);
            if ours.is_some() {
                let row = ComparisonRow::new(format!("e: n {MANY}, batch {batch}, T {steps}"), "forward speed-up", "x");
                speed.row(row.published(published).ours_if(value(ours)).ratio());
            }
        }
    }
    for (steps, published) in published::BACKWARD {
        let time = |pass| measured.ours(BlockConvolution, pass, batch, steps, MANY, 1);
        let ours = time(Pass::Backward).zip(time(Pass::Forward)).map(|(b, f)| b / f);
        let row = ComparisonRow::new(format!("f: n {MANY}, T {steps}"), "backward / forward of the block", "");
        speed.row(row.published(published).ours_if(value(ours)).ratio().note(other_batch(batch)));
    }
    speed.note(
        "Published values of panel a come from the publication's code; those of panels c to f are read off its figure.",
    );
    speed.note(
        "The published ones were measured on a GPU, ours on a CPU: the trends are comparable, the values are not.",
    );

    let title = "Panel b: seconds of both passes, n 100, one hidden layer";
    let mut seconds = Comparison::new("seconds", title);
    for (i, &b) in [32, 64, 128].iter().enumerate() {
        for (steps, single, block) in published::SECONDS {
            for (model, published) in [(SingleStepwise, single[i]), (BlockConvolution, block[i])] {
                let ours = measured.ours(model, Pass::Total, b, steps, FEW, 1);
                if ours.is_some() {
                    let what = format!("{}, batch {b}, T {steps}", model.name());
                    let row = ComparisonRow::new(what, "time", "s").decimals(4);
                    seconds.row(row.published(10_f64.powf(published)).ours_if(value(ours)).other_data("on a CPU"));
                }
            }
        }
    }
    seconds.note("Published times are from a GPU and read off a figure (a logarithmic axis: about 10 % uncertain).");
    vec![speed, seconds].into_iter().filter(|c| !c.rows.is_empty()).collect()
}

const COLOURS: [usize; 6] = [0, 1, 2, 3, 4, 5];

/// How an algorithm is called in legends.
fn label(model: LayerModel) -> &'static str {
    match model {
        SingleStepwise => "single, step by step (as published)",
        BlockConvolution => "block, convolutions (as published)",
        Single => "single, fused",
        Block => "block, fused",
        other => other.name(),
    }
}

fn figures(plan: &Plan, measured: &Measurements, peers: Option<&Peers>) -> Vec<Figure> {
    let batch = plan.batch();
    let title = format!("Speed of the block model on a CPU (batch {batch} unless said)");
    let heat = |title: &str, pair, pass| heat(plan, measured, title, pair, pass);
    let main = Figure::new(TARGET, title, 3)
        .caption(format!(
            "Speed-ups are times of the baseline over times of the block; above 1 the block is faster. \"As published\" \
             are our versions of the published algorithms (one operation per line and time step; two convolutions), \
             \"fused\" are the layers that training uses. a: forward and backward together. b, e, f: n = {FEW}, {MANY}, \
             {MANY}; fainter lines are smaller batches. c, d: T = {STEPS}, forward and backward."
        ))
        .panel(heat("as published: step by step / convolutions", AS_PUBLISHED, Pass::Total).letter("a"))
        .panel(heat("step by step / fused block", FUSED_BLOCK, Pass::Total).letter("a'"))
        .panel(heat("fused single / fused block", BOTH_FUSED, Pass::Total).letter("a''"))
        .panel(seconds_panel(plan, measured).letter("b"))
        .panel(layers_panel(plan, measured).letter("c"))
        .panel(large_panel(plan, measured).letter("d"))
        .panel(forward_panel(plan, measured).letter("e"))
        .panel(ratio_panel(plan, measured).letter("f"));
    let passes = Figure::new("figure3-passes", "Panel a by pass", 2)
        .caption(format!("As panel a, forward and backward apart, batch {batch}."))
        .panel(heat("as published, forward", AS_PUBLISHED, Pass::Forward))
        .panel(heat("as published, backward", AS_PUBLISHED, Pass::Backward))
        .panel(heat("step by step / fused block, forward", FUSED_BLOCK, Pass::Forward))
        .panel(heat("step by step / fused block, backward", FUSED_BLOCK, Pass::Backward));
    let mut figures = vec![main, passes];
    if let Some(peers) = peers {
        let lines = |n: usize, pairs: &[(&str, Pair)]| {
            let series = pairs.iter().enumerate().map(|(i, &(name, pair))| {
                let at = |&t: &usize| Some((t as f64, measured.speed_up(pair, Pass::Total, batch, t, n, 1)?));
                Series::new(name, plan.steps.iter().filter_map(at)).colour(COLOURS[i])
            });
            let lines = Lines::new(series.collect()).reference(1.0, "equal");
            Panel::new(format!("n = {n}"), Axis::log2("T (steps)"), Axis::log2("speed-up"), lines)
        };
        let pairs = [
            ("torch single / torch block", TORCH),
            ("torch single, sliced / torch block", TORCH_SLICED),
            ("torch single / our fused block", TORCH_FUSED),
        ];
        let mut figure = Figure::new("figure3-torch", format!("PyTorch {} on the same CPU", peers.version()), 2)
            .caption(format!(
                "Forward and backward together, batch {batch}, same threads. \"Sliced\": the time loop slices the current \
                 at every step, as published, which makes its backward pass quadratic in T; the other form unbinds it \
                 once. Missing points would have taken too long."
            ))
            .panel(lines(FEW, &pairs).without_legend())
            .panel(lines(MANY, &pairs));
        if plan.peer_grid {
            figure = figure.panel(heat("torch single / torch block", TORCH, Pass::Total)).panel(heat(
                "torch single / our fused block",
                TORCH_FUSED,
                Pass::Total,
            ));
        }
        figures.push(figure);
    }
    figures
}

/// Ends of the colour scale of all heat maps: equal colours mean equal speed-ups.
fn colour_limits(plan: &Plan, measured: &Measurements) -> (f64, f64) {
    let pairs = [AS_PUBLISHED, FUSED_BLOCK, BOTH_FUSED, TORCH, TORCH_FUSED];
    let ranges = pairs.iter().filter_map(|&pair| over_grid(plan, measured, pair, Pass::Total));
    let most = ranges.map(|(low, _, high)| high.max(1.0 / low)).fold(2.0, f64::max);
    (1.0 / most, most)
}

fn heat(plan: &Plan, measured: &Measurements, title: &str, pair: Pair, pass: Pass) -> Panel {
    let row = |&n: &usize| {
        plan.steps.iter().map(|&t| measured.speed_up(pair, pass, plan.batch(), t, n, 1)).collect::<Vec<_>>()
    };
    let values: Vec<_> = plan.neurons.iter().map(row).collect();
    let names = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>();
    let (low, high) = colour_limits(plan, measured);
    let heat = Heat::new(names(&plan.steps), names(&plan.neurons), values, "speed-up");
    let heat = heat.diverging(Scale::Log2, 1.0).limits(low, high);
    Panel::new(title, "T (steps)", "n (neurons)", heat)
}

/// One line per batch size: the last batch in full colour and with a name, smaller ones fainter.
fn batch_series(plan: &Plan, name: &str, colour: usize, value: impl Fn(usize, usize) -> Option<f64>) -> Vec<Series> {
    let count = plan.batches.len();
    let of = |(i, &batch): (usize, &usize)| {
        let points: Vec<(f64, f64)> = plan.steps.iter().filter_map(|&t| Some((t as f64, value(batch, t)?))).collect();
        let last = i + 1 == count;
        Series::new(if last { name } else { "" }, points).colour(colour).fade(if last {
            0.0
        } else {
            0.6 - 0.25 * i as f64
        })
    };
    plan.batches.iter().enumerate().map(of).collect()
}

fn seconds_panel(plan: &Plan, measured: &Measurements) -> Panel {
    let mut series: Vec<Series> = Vec::new();
    for (colour, model) in MODELS.into_iter().enumerate() {
        let at = |b, t| measured.ours(model, Pass::Total, b, t, FEW, 1).map(f64::log10);
        series.extend(batch_series(plan, label(model), colour, at));
    }
    let torch = [("single", "torch single"), ("single+sliced", "torch single, sliced"), ("block", "torch block")];
    for (i, (peer, name)) in torch.into_iter().enumerate() {
        let at = |&t: &usize| Some((t as f64, measured.peer(peer, Pass::Total, plan.batch(), t, FEW)?.log10()));
        let points: Vec<(f64, f64)> = plan.steps.iter().filter_map(at).collect();
        if !points.is_empty() {
            let line = Series::new(name, points).colour([0, 4, 1][i]).stroke(Stroke::Dashed).marker(Marker::Triangle);
            series.push(line);
        }
    }
    let title = format!("time of both passes, n = {FEW}");
    Panel::new(title, Axis::log2("T (steps)"), "log10 seconds", Lines::new(series))
}

/// The pairs that panels c, d and e show.
const PAIRS: [(&str, Pair, usize); 3] = [
    ("as published: step by step / convolutions", AS_PUBLISHED, 1),
    ("step by step / fused block", FUSED_BLOCK, 3),
    ("fused single / fused block", BOTH_FUSED, 2),
];

fn layers_panel(plan: &Plan, measured: &Measurements) -> Panel {
    // As in the publication: three widths tell the trend.
    let widths: Vec<usize> = plan.layers.1.iter().copied().filter(|n| [200, 400, 800].contains(n)).collect();
    let mut series = Vec::new();
    for (i, &n) in widths.iter().enumerate() {
        for (name, pair, colour) in [(PAIRS[0].0, PAIRS[0].1, PAIRS[0].2), (PAIRS[1].0, PAIRS[1].1, PAIRS[1].2)] {
            let at = |&l: &usize| Some((l as f64, measured.speed_up(pair, Pass::Total, plan.batch(), STEPS, n, l)?));
            let points: Vec<(f64, f64)> = plan.layers.0.iter().filter_map(at).collect();
            let marker = [Marker::Disc, Marker::Square, Marker::Triangle][i];
            let short = name.split(':').next().unwrap_or(name);
            let line = Series::new(format!("{short}, n {n}"), points).colour(colour).fade(0.25 * i as f64);
            series.push(line.marker(marker));
        }
    }
    let lines = Lines::new(series).reference(1.0, "equal");
    Panel::new("several layers", "layers", Axis::log2("speed-up"), lines)
}

fn large_panel(plan: &Plan, measured: &Measurements) -> Panel {
    let series = PAIRS.map(|(name, pair, colour)| {
        let at = |&n: &usize| Some((n as f64, measured.speed_up(pair, Pass::Total, plan.batch(), STEPS, n, 1)?));
        Series::new(name, plan.large.iter().filter_map(at)).colour(colour)
    });
    let lines = Lines::new(series.into()).reference(1.0, "equal");
    Panel::new("large layers", "n (neurons)", Axis::log2("speed-up"), lines)
}

fn forward_panel(plan: &Plan, measured: &Measurements) -> Panel {
    let series = PAIRS.iter().flat_map(|&(name, pair, colour)| {
        batch_series(plan, name, colour, |b, t| measured.speed_up(pair, Pass::Forward, b, t, MANY, 1))
    });
    let lines = Lines::new(series.collect()).reference(1.0, "equal");
    Panel::new(format!("forward pass, n = {MANY}"), Axis::log2("T (steps)"), Axis::log2("speed-up"), lines)
}

fn ratio_panel(plan: &Plan, measured: &Measurements) -> Panel {
    let mut series = Vec::new();
    for (model, colour) in [(BlockConvolution, 1), (Block, 3)] {
        let at = |b, t| {
            let time = |pass| measured.ours(model, pass, b, t, MANY, 1);
            Some(time(Pass::Backward)? / time(Pass::Forward)?)
        };
        series.extend(batch_series(plan, label(model), colour, at));
    }
    let kind: Kind = Lines::new(series).reference(1.0, "equal").into();
    Panel::new(format!("backward / forward, n = {MANY}"), Axis::log2("T (steps)"), "time ratio", kind)
}

fn records(measured: &Measurements) -> Vec<Record> {
    let ours = measured.ours.iter().map(|(&(model, batch, steps, n, layers), time)| Record {
        what: format!("{}, {}", model.name(), if model.as_published() { "as published" } else { "fused" }),
        configuration: json!({ "batch": batch, "steps": steps, "n_in": INPUTS, "n": n, "layers": layers }),
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
    let peers = measured.peers.iter().map(|((peer, batch, steps, n), time)| Record {
        what: format!("torch {peer}"),
        configuration: json!({ "batch": batch, "steps": steps, "n_in": INPUTS, "n": n, "layers": 1, "torch": time.torch }),
        seed: Some(0),
        numbers: [("forward_s".to_owned(), time.forward_s), ("backward_s".to_owned(), time.backward_s)].into(),
        details: json!({ "forward_all": time.forward_all, "backward_all": time.backward_all }),
    });
    ours.chain(peers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_holds_what_the_panels_need_and_nothing_twice() {
        for profile in [Profile::Smoke, Profile::Quick, Profile::Paper] {
            let plan = Plan::new(profile);
            assert!(plan.neurons.contains(&FEW) && plan.neurons.contains(&MANY));
            let cells = plan.cells();
            assert!(cells.iter().enumerate().all(|(i, a)| cells[i + 1..].iter().all(|b| a != b)));
            for &steps in &plan.steps {
                for &n in &plan.neurons {
                    assert!(cells.contains(&plan.cell(Block, plan.batch(), steps, n, 1)));
                }
            }
        }
    }

    #[test]
    fn speed_ups_divide_the_baseline_by_the_block() {
        let mut measured = Measurements::default();
        let time = |f, b| LayerTime { forward: vec![f], backward: vec![b], ..LayerTime::default() };
        measured.ours.insert((SingleStepwise, 1, 2, 3, 1), time(4.0, 8.0));
        measured.ours.insert((Block, 1, 2, 3, 1), time(1.0, 2.0));
        assert_eq!(measured.speed_up(FUSED_BLOCK, Pass::Total, 1, 2, 3, 1), Some(4.0));
        assert_eq!(measured.speed_up(FUSED_BLOCK, Pass::Forward, 1, 2, 3, 1), Some(4.0));
        assert_eq!(measured.speed_up(AS_PUBLISHED, Pass::Total, 1, 2, 3, 1), None);
    }

    #[test]
    fn a_report_is_written_from_few_measurements() {
        let plan = Plan::new(Profile::Smoke);
        let mut measured = Measurements::default();
        for cell in plan.cells() {
            let time = LayerTime { forward: vec![1e-3], backward: vec![2e-3], ..LayerTime::default() };
            measured.ours.insert((cell.model, cell.batch, cell.steps, cell.n, cell.layers), time);
        }
        let figures = figures(&plan, &measured, None);
        assert_eq!((figures.len(), figures[0].panels.len()), (2, 8));
        assert!(comparisons(&plan, &measured).iter().all(|c| !c.rows.is_empty()));
    }
}
