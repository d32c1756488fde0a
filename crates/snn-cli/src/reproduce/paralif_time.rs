//! The running times of SPSN and ParaLIF: parallel neurons against the sequential one.
//!
//! * The published figure: forward passes of one sample, 128 neurons, time constants of 1 ms, over the number of steps.
//! * A training step of a layer 700 -> 128, batch 128, 2 % of the inputs active, forward and backward.
//! * What drawing random numbers costs: the scan of a stochastic neuron that draws them, against the one that is given
//!   them.
//!
//! The publication compares an FFT over all steps with a loop over time in Python, whose backward pass is quadratic in the
//! number of steps because the loop slices the current (its gradient is a full array for each step). PyTorch versions of
//! all of these run beside ours on the same machine in the same run: the loop fed by one unbind (the fair form), the
//! sliced loop as published, and the FFT.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;
use snn_core::Lanes;
use snn_core::backend::Memory;
use snn_core::neurons::paralif::FiringMode;
use snn_cpu::Cpu;

use super::{TimingJob, command, publish};
use crate::args::Reproduce;
use crate::bench::LayerModel::{self, Cuba, ParalifD, ParalifGs, ParalifSb, ParalifT, ParalifTRecurrent};
use crate::bench::filtered::{FilteredNeuron, FilteredScan};
use crate::bench::layer::{LayerCell, LayerTime, peer_cell, time_layer};
use crate::bench::peer::{PeerCell, PeerTime, Peers};
use crate::bench::timing::{Times, show};
use crate::console;
use crate::report::{
    Axis, Bars, Cell, Column, Comparison, ComparisonRow, Deviation, Figure, Jobs, Lines, Marker, Measured, Panel,
    Profile, Record, Report, Series, Stroke, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "paralif-time";

/// Neurons of both parts.
const NEURONS: usize = 128;

/// Steps of the layer.
const LAYER_STEPS: [usize; 2] = [250, 1000];

/// Samples, inputs and share of active inputs of the layer.
const LAYER: (usize, usize, f64) = (128, 700, 0.02);

/// The step number at which the published figure is read off.
const READ_AT: usize = 5000;

/// Seconds read off the published figure at [`READ_AT`] steps on its CPU.
const PUBLISHED: [(&str, f64); 3] = [("LIF", 0.20), ("ParaLIF, step by step", 0.21), ("ParaLIF, parallel", 0.003)];

/// Neurons of the layer, and how they are called.
const MODELS: [(LayerModel, &str); 6] = [
    (Cuba, "LIF"),
    (ParalifT, "T"),
    (ParalifD, "D"),
    (ParalifSb, "SB"),
    (ParalifGs, "GS"),
    (ParalifTRecurrent, "T rec."),
];

/// Stochastic modes whose drawing is measured.
const STOCHASTIC: [FiringMode; 2] = [FiringMode::SB, FiringMode::GS];

/// What a profile runs.
#[derive(Debug)]
struct Plan {
    /// Steps of the forward passes.
    steps: Vec<usize>,
    repeats: usize,
    /// Largest number of steps for which PyTorch's sliced loop is run forward and backward.
    sliced_limit: usize,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => {
                Self { steps: vec![100, 300, 1000, READ_AT, 10_000], repeats: 3, sliced_limit: LAYER_STEPS[0] }
            }
            Profile::Quick => Self {
                steps: vec![100, 200, 500, 1000, 2000, READ_AT, 10_000],
                repeats: 7,
                sliced_limit: LAYER_STEPS[0],
            },
            Profile::Paper => Self {
                steps: vec![100, 200, 500, 1000, 2000, READ_AT, 10_000],
                repeats: 15,
                sliced_limit: LAYER_STEPS[1],
            },
        }
    }

    /// A forward pass of one sample.
    fn forward(&self, model: LayerModel, steps: usize) -> LayerCell {
        // Sixteen timings at least: the passes are short.
        let repeats = self.repeats.max(16);
        LayerCell {
            batch: 1,
            n_in: NEURONS,
            density: Some(0.05),
            repeats,
            tau: Some(1.0),
            forward_only: true,
            ..self.layer(model, steps)
        }
    }

    /// A training step of a layer.
    fn layer(&self, model: LayerModel, steps: usize) -> LayerCell {
        let (batch, n_in, density) = LAYER;
        LayerCell { density: Some(density), ..LayerCell::new(model, [batch, steps, n_in, NEURONS], self.repeats) }
    }

    /// All cells of ours.
    fn cells(&self) -> Vec<LayerCell> {
        let forward = self.steps.iter().flat_map(|&t| [Cuba, ParalifT].map(|m| self.forward(m, t)));
        forward.chain(LAYER_STEPS.iter().flat_map(|&t| MODELS.map(|(m, _)| self.layer(m, t)))).collect()
    }

    /// All cells of PyTorch.
    fn peer_cells(&self, threads: usize) -> Vec<PeerCell> {
        let mut cells = Vec::new();
        for &steps in &self.steps {
            for peer in FORWARD_PEERS {
                let mut cell = peer_cell(peer, &self.forward(Cuba, steps), threads, false);
                cell.repeats = if steps > 2000 { self.repeats } else { cell.repeats };
                cells.push(cell);
            }
        }
        for steps in LAYER_STEPS {
            cells.extend(MODELS.map(|(m, _)| peer_cell(m.peer(), &self.layer(m, steps), threads, false)));
            if steps <= self.sliced_limit {
                let mut cell = peer_cell(Cuba.peer(), &self.layer(Cuba, steps), threads, true);
                cell.repeats = cell.repeats.min(3);
                cells.push(cell);
            }
        }
        cells
    }
}

/// PyTorch's forms of the published figure: LIF, ParaLIF step by step, ParaLIF by FFT.
const FORWARD_PEERS: [&str; 3] = ["lif", "paralif-t-loop", "paralif-t"];

/// Seconds of both directions of a scan: median of each.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, Serialize)]
struct ScanTime {
    forward: f64,
    backward: f64,
}

impl ScanTime {
    fn total(self) -> f64 {
        self.forward + self.backward
    }
}

/// Everything that was measured; keys are model, steps, and whether it is a forward pass alone.
#[derive(Debug, Default)]
struct Measurements {
    ours: BTreeMap<(LayerModel, usize, bool), LayerTime>,
    peers: BTreeMap<(String, usize, bool), PeerTime>,
    /// Scans by name and steps.
    scans: BTreeMap<(String, usize), ScanTime>,
}

impl Measurements {
    fn forward(&self, model: LayerModel, steps: usize) -> Option<f64> {
        Some(self.ours.get(&(model, steps, true))?.forward_s())
    }

    fn layer(&self, model: LayerModel, steps: usize) -> Option<f64> {
        Some(self.ours.get(&(model, steps, false))?.total_s())
    }

    fn peer(&self, peer: &str, steps: usize, forward_only: bool) -> Option<f64> {
        let time = self.peers.get(&(peer.to_owned(), steps, forward_only))?;
        Some(if forward_only { time.forward_s } else { time.total_s() })
    }

    /// PyTorch's time over ours, for the layer.
    fn ratio(&self, model: LayerModel, steps: usize) -> Option<f64> {
        Some(self.peer(model.peer(), steps, false)? / self.layer(model, steps)?)
    }

    /// Seconds that drawing takes in one training step: the scans that draw less those that are given the noise.
    fn drawing(&self, mode: FiringMode, steps: usize) -> Option<(f64, f64)> {
        let scan = |neuron: FilteredNeuron| self.scans.get(&(neuron.name(), steps)).map(|t| t.total());
        let (drawn, given) = (scan(FilteredNeuron::Drawn(mode))?, scan(FilteredNeuron::Given(mode))?);
        Some(((drawn - given).max(0.0), drawn))
    }
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let directory = args.out.join(TARGET);
    let cpu = args.place.processor()?;
    let plan = Plan::new(args.profile);
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let mut report = Report::new(TARGET, "ParaLIF: running time of parallel and sequential neurons", args.profile);
    let measured = measure(&cpu, &plan, peers.as_ref(), &jobs, &report.machine.line(), quiet)?;
    report.command = command(args);
    report.summary = summary(&measured, peers.is_some());
    report.deviations = deviations(&cpu, &plan);
    report.comparisons = vec![comparison(&measured)];
    report.tables = vec![bars_table(&measured), layer_table(&measured), drawing_table(&measured)];
    report.figures = vec![figure(&plan, &measured, peers.as_ref())];
    report.records = records(&measured);
    report.notes = jobs.notes();
    report.notes.push(match &peers {
        Some(_) => "PyTorch ran on the same machine in the same run, with as many threads, each cell between two timings of ours; \
                    medians throughout. Other work on the machine can move a ratio by half.".into(),
        None => "PyTorch was not run: name a Python that has it with --peer-python.".into(),
    });
    report.versions = vec![("device".into(), cpu.describe())];
    report.versions.extend(peers.iter().map(|p| ("torch".to_owned(), p.version().to_owned())));
    report.seeds = vec![0];
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
    machine: &str,
    quiet: bool,
) -> Result<Measurements> {
    let mut measured = Measurements::default();
    let (device, threads) = (cpu.describe(), cpu.threads());
    let torch = peers.map_or("", Peers::version);
    let (cells, peer_cells) = (plan.cells(), if peers.is_some() { plan.peer_cells(threads) } else { Vec::new() });
    let scans: Vec<(FilteredNeuron, usize)> = LAYER_STEPS
        .iter()
        .flat_map(|&t| STOCHASTIC.map(|m| [(FilteredNeuron::Drawn(m), t), (FilteredNeuron::Given(m), t)]))
        .flatten()
        .collect();
    let bar =
        console::bar(quiet, (cells.len() + peer_cells.len() + scans.len()) as u64, "[{bar:30}] {pos}/{len} {msg}");
    let ours = |cell: &LayerCell| {
        let job = TimingJob { target: TARGET, cell, threads, device: &device, machine, torch: "" };
        jobs.run(&job, || time_layer(cpu, cell)).with_context(|| cell.model.name())
    };
    // Each of our cells is followed by its peers, and a layer runs once more after them: load that comes and goes then
    // falls on both sides.
    let mut left = peer_cells.clone();
    for cell in &cells {
        bar.set_message(format!("{}, T {}", cell.model.name(), cell.steps));
        let mut time = ours(cell)?;
        bar.inc(1);
        let own = |peer: &PeerCell| {
            let same = peer.steps == cell.steps && peer.forward_only == cell.forward_only;
            same && (cell.forward_only || peer.peer == cell.model.peer())
        };
        let (here, later) = left.into_iter().partition::<Vec<_>, _>(own);
        left = later;
        for peer_cell in &here {
            let Some(peers) = peers else { break };
            bar.set_message(format!("torch {}, T {}", peer_cell.peer, peer_cell.steps));
            let job = TimingJob { target: TARGET, cell: peer_cell, threads, device: &device, machine, torch };
            let time = jobs.run(&job, || peers.time(peer_cell))?;
            measured.peers.insert((time.peer.clone(), peer_cell.steps, peer_cell.forward_only), time);
            bar.inc(1);
        }
        if !here.is_empty() && !cell.forward_only {
            let again = ours(&LayerCell { seed: 1, ..cell.clone() })?;
            time.forward.extend(again.forward);
            time.backward.extend(again.backward);
        }
        measured.ours.insert((cell.model, cell.steps, cell.forward_only), time);
    }
    for (neuron, steps) in scans {
        bar.set_message(format!("{} T {steps}", neuron.name()));
        let cell = json!({ "scan": neuron.name(), "steps": steps, "repeats": plan.repeats });
        let job = TimingJob { target: TARGET, cell, threads, device: &device, machine, torch: "" };
        let time = jobs.run(&job, || {
            let lanes = Lanes::new(LAYER.0, steps, NEURONS);
            let (forward, backward): (Times, Times) = FilteredScan::times(cpu, neuron, lanes, plan.repeats.max(9))?;
            Ok(ScanTime { forward: forward.median, backward: backward.median })
        })?;
        measured.scans.insert((neuron.name(), steps), time);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

/// A demand on speed: what is compared, the limit, and what was found at each number of steps.
struct Demand {
    what: String,
    limit: String,
    at: [Option<(f64, bool)>; 2],
}

/// The project's demands, each for both lengths of the layer.
fn demands(measured: &Measurements) -> Vec<Demand> {
    let at_least = |what: String, limit: f64, of: &dyn Fn(usize) -> Option<f64>| Demand {
        what,
        limit: format!("at least {limit}"),
        at: LAYER_STEPS.map(|t| of(t).map(|v| (v, v >= limit))),
    };
    let at_most = |what: String, limit: f64, of: &dyn Fn(usize) -> Option<f64>| Demand {
        what,
        limit: format!("at most {limit}"),
        at: LAYER_STEPS.map(|t| of(t).map(|v| (v, v <= limit))),
    };
    let mut list = Vec::new();
    for (model, name) in MODELS.into_iter().skip(1) {
        list.push(at_least(format!("PyTorch's FFT / our {name}"), 8.0, &|t| measured.ratio(model, t)));
    }
    list.push(at_least("PyTorch's LIF loop, fair / our LIF".into(), 6.0, &|t| measured.ratio(Cuba, t)));
    for (model, name) in [(ParalifT, "T"), (ParalifSb, "SB")] {
        let ratio = |t| Some(measured.layer(Cuba, t)? / measured.layer(model, t)?);
        list.push(at_most(format!("our LIF / our {name}"), 1.5, &ratio));
    }
    for (mode, model) in [(FiringMode::SB, ParalifSb), (FiringMode::GS, ParalifGs)] {
        let share = |t| Some(measured.drawing(mode, t)?.0 / measured.layer(model, t)?);
        list.push(at_most(format!("drawing / layer, {mode}"), 0.25, &share));
    }
    list
}

fn bars_table(measured: &Measurements) -> Table {
    let mut columns = vec![Column::words("ratio of times"), Column::words("wanted")];
    for t in LAYER_STEPS {
        columns.extend([Column::numbers(format!("T {t}"), ""), Column::words("")]);
    }
    let mut table = Table::new("demands", "Demands on a training step of the layer", columns);
    for demand in demands(measured) {
        let mut row = vec![Cell::text(demand.what), Cell::text(demand.limit)];
        for found in demand.at {
            match found {
                Some((value, met)) => {
                    row.push(Cell::number(Measured::value(value), 2));
                    row.push(Cell::text(if met { "met" } else { "MISSED" }));
                }
                None => row.extend([Cell::missing("not run"), Cell::text("")]),
            }
        }
        table.row(row);
    }
    table.note(
        "Layer 700 -> 128, batch 128, 2 % of the inputs active, forward and backward. Drawing: scans that draw, less scans \
         that are given the noise as an array (whose reading is not drawing).",
    );
    table
}

fn layer_table(measured: &Measurements) -> Table {
    let mut columns = vec![Column::words("neuron")];
    for t in LAYER_STEPS {
        let names = ["forward", "backward", "total", "PyTorch", "PyTorch / ours"];
        columns.extend(names.map(|name| Column::numbers(format!("T {t}: {name}"), "")));
    }
    let mut table = Table::new("layer", "A training step of the layer 700 -> 128, batch 128", columns);
    let time = |seconds: Option<f64>| seconds.map_or_else(|| Cell::missing("not run"), |s| Cell::text(show(s)));
    for (model, name) in MODELS {
        let mut row = vec![Cell::text(name)];
        for t in LAYER_STEPS {
            let ours = measured.ours.get(&(model, t, false));
            row.extend([
                time(ours.map(LayerTime::forward_s)),
                time(ours.map(LayerTime::backward_s)),
                time(ours.map(LayerTime::total_s)),
                time(measured.peer(model.peer(), t, false)),
            ]);
            let ratio = measured.ratio(model, t);
            row.push(ratio.map_or_else(|| Cell::missing("not run"), |r| Cell::number(Measured::value(r), 1)));
        }
        table.row(row);
    }
    let mut row = vec![Cell::text("LIF, PyTorch slices the current")];
    for t in LAYER_STEPS {
        let sliced = measured.peer("lif+sliced", t, false);
        let ratio = sliced.zip(measured.layer(Cuba, t)).map(|(s, o)| s / o);
        row.extend([Cell::text(""), Cell::text(""), Cell::text(""), time(sliced)]);
        row.push(ratio.map_or_else(|| Cell::missing("not run"), |r| Cell::number(Measured::value(r), 1)));
    }
    table.row(row);
    table.note(
        "PyTorch: LIF as a loop over time fed by one unbind; T, D, SB, GS by FFT as published; last row, the published loop.",
    );
    table
}

fn drawing_table(measured: &Measurements) -> Table {
    let columns = vec![
        Column::words("mode"),
        Column::numbers("T", ""),
        Column::numbers("scans that draw", ""),
        Column::numbers("drawing", ""),
        Column::numbers("of the scans", "%"),
        Column::numbers("of the layer", "%"),
    ];
    let mut table = Table::new("drawing", "What drawing random numbers takes, forward and backward", columns);
    for (mode, model) in [(FiringMode::SB, ParalifSb), (FiringMode::GS, ParalifGs)] {
        for t in LAYER_STEPS {
            let Some((drawing, scans)) = measured.drawing(mode, t) else { continue };
            let share = |whole: f64| Cell::number(Measured::value(100.0 * drawing / whole), 0);
            table.row([
                Cell::text(mode.name()),
                Cell::number(Measured::value(t as f64), 0),
                Cell::text(show(scans)),
                Cell::text(show(drawing)),
                share(scans),
                measured.layer(model, t).map_or_else(|| Cell::missing("not run"), share),
            ]);
        }
    }
    table.note(
        "GS draws twice: its slope depends on the noise, which the backward pass draws again instead of reading it.",
    );
    table
}

fn summary(measured: &Measurements, with_peers: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let found: Vec<Demand> = demands(measured);
    let all = found.iter().flat_map(|d| d.at.iter().flatten());
    let (met, known) = (all.clone().filter(|(_, met)| *met).count(), all.count());
    lines.push(format!("{met} of the {known} demands that could be measured are met."));
    for t in LAYER_STEPS {
        if let (Some(lif), Some(t_mode)) = (measured.layer(Cuba, t), measured.layer(ParalifT, t)) {
            lines.push(format!(
                "A training step of the layer, T {t}: LIF {}, ParaLIF-T {}; fused, the sequential neuron takes {:.2} times \
                 as long as the parallel one.",
                show(lif),
                show(t_mode),
                lif / t_mode
            ));
        }
    }
    if with_peers {
        let ratios: Vec<f64> =
            MODELS.iter().skip(1).flat_map(|(m, _)| LAYER_STEPS.map(|t| measured.ratio(*m, t))).flatten().collect();
        let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), &r| (l.min(r), h.max(r)));
        lines.push(format!("PyTorch's FFT takes {low:.1} to {high:.1} times as long as our parallel neurons."));
        let lif: Vec<String> =
            LAYER_STEPS.iter().filter_map(|&t| Some(format!("{:.1} (T {t})", measured.ratio(Cuba, t)?))).collect();
        lines.push(format!("PyTorch's fair LIF loop takes {} times as long as our LIF.", lif.join(" and ")));
    }
    let forward = |model| measured.forward(model, READ_AT);
    if let (Some(lif), Some(parallel)) = (forward(Cuba), forward(ParalifT)) {
        lines.push(format!(
            "One sample, forward, T {READ_AT}: LIF {}, ParaLIF-T {}. Published, on a CPU without a name: 200 ms and about 3 ms; \
             most of that gap is the loop over time in Python.",
            show(lif),
            show(parallel)
        ));
    }
    lines
}

fn deviations(cpu: &Cpu, plan: &Plan) -> Vec<Deviation> {
    let mut list = vec![
        Deviation::new("hardware", "a CPU and a GPU, not named", cpu.describe()).why("absolute times do not compare"),
        Deviation::new("parallel neuron", "FFT over all steps", "two first-order filters in one pass over time")
            .why("the same function, exact and causal, and linear in the number of steps"),
        Deviation::new(
            "inputs of the forward passes",
            "not stated",
            format!("{NEURONS}, 5 % active, product included"),
        ),
        Deviation::new("steps", "10^2 to 10^4", plan.steps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    ];
    if plan.sliced_limit < LAYER_STEPS[1] {
        list.push(
            Deviation::new("published LIF loop, forward and backward", "every T", format!("T {}", plan.sliced_limit))
                .why("its backward pass is quadratic in T; the paper profile runs it"),
        );
    }
    list
}

fn comparison(measured: &Measurements) -> Comparison {
    let mut table =
        Comparison::new("forward", format!("Forward pass of one sample, T {READ_AT}, {NEURONS} neurons, CPU"));
    let ours = [measured.forward(Cuba, READ_AT), None, measured.forward(ParalifT, READ_AT)];
    for ((what, seconds), ours) in PUBLISHED.into_iter().zip(ours) {
        let row = ComparisonRow::new(what, "forward", "ms").published(1e3 * seconds);
        let row = row.ours_if(ours.map(|s| Measured::value(1e3 * s))).decimals(3).other_data("this machine");
        table.row(if ours.is_none() { row.note("ours has one form of the parallel neuron") } else { row });
    }
    for (what, peer) in [
        ("LIF, PyTorch loop here", "lif"),
        ("ParaLIF, PyTorch step by step here", "paralif-t-loop"),
        ("ParaLIF, PyTorch FFT here", "paralif-t"),
    ] {
        let seconds = measured.peer(peer, READ_AT, true).map(|s| Measured::value(1e3 * s));
        let row = ComparisonRow::new(what, "forward", "ms").ours_if(seconds).decimals(3);
        table.row(row.other_data("this machine").note("PyTorch"));
    }
    table.note("Published: read off the figure; the CPU is not named.");
    table
}

/// Milliseconds.
fn ms(seconds: f64) -> f64 {
    1e3 * seconds
}

fn figure(plan: &Plan, measured: &Measurements, peers: Option<&Peers>) -> Figure {
    let over = |of: &dyn Fn(usize) -> Option<f64>| -> Vec<(f64, f64)> {
        plan.steps.iter().filter_map(|&t| Some((t as f64, ms(of(t)?)))).collect()
    };
    let mut series = vec![
        Series::new("our LIF", over(&|t| measured.forward(Cuba, t))).colour(1),
        Series::new("our ParaLIF-T", over(&|t| measured.forward(ParalifT, t))).colour(0),
    ];
    if peers.is_some() {
        let torch = [
            ("PyTorch LIF, loop", "lif", 1),
            ("PyTorch ParaLIF, loop", "paralif-t-loop", 2),
            ("PyTorch ParaLIF, FFT", "paralif-t", 0),
        ];
        series.extend(torch.map(|(name, peer, colour)| {
            let line = Series::new(name, over(&|t| measured.peer(peer, t, true))).colour(colour);
            line.stroke(Stroke::Dashed).marker(Marker::Triangle)
        }));
    }
    for ((_, seconds), (name, colour)) in
        PUBLISHED.into_iter().zip([("published LIF", 1), ("published loop", 2), ("published FFT", 0)])
    {
        let point = [(READ_AT as f64, ms(seconds))];
        series.push(Series::new(name, point).published().dots().colour(colour));
    }
    let forward =
        Panel::new("forward, one sample, 128 neurons", Axis::log10("T (steps)"), Axis::log10("ms"), Lines::new(series));
    let mut figure = Figure::new(TARGET, "Running time of parallel and sequential neurons on a CPU", 3).caption(format!(
        "a: forward pass alone, time constants 1 ms; circles are read off the published figure, on a CPU without a name. b, \
         c: forward and backward of a layer 700 -> 128, batch 128, 2 % of the inputs active. {} LIF of PyTorch: the loop fed \
         by one unbind; its parallel neurons: FFT.",
        peers.map_or_else(|| "PyTorch was not run.".into(), |p| format!("PyTorch {} in the same run.", p.version()))
    ));
    figure = figure.panel(forward);
    for t in LAYER_STEPS {
        let mut bars = Bars::new(MODELS.map(|(_, name)| name))
            .group("ours", MODELS.map(|(m, _)| measured.layer(m, t).map(|s| (ms(s), None))));
        if peers.is_some() {
            bars = bars.group("PyTorch", MODELS.map(|(m, _)| measured.peer(m.peer(), t, false).map(|s| (ms(s), None))));
        }
        figure = figure.panel(Panel::new(format!("layer, T {t}"), "", Axis::log10("ms"), bars));
    }
    figure
}

fn records(measured: &Measurements) -> Vec<Record> {
    let ours = measured.ours.iter().map(|(&(model, steps, forward_only), time)| Record {
        what: model.name().to_owned(),
        configuration: json!({ "steps": steps, "forward_only": forward_only }),
        seed: Some(0),
        numbers: [("forward_s".to_owned(), time.forward_s()), ("backward_s".to_owned(), time.backward_s())].into(),
        details: json!({ "forward_all": time.forward, "backward_all": time.backward, "output_mean": time.output_mean }),
    });
    let peers = measured.peers.iter().map(|((peer, steps, forward_only), time)| Record {
        what: format!("torch {peer}"),
        configuration: json!({ "steps": steps, "forward_only": forward_only, "torch": time.torch }),
        seed: Some(0),
        numbers: [("forward_s".to_owned(), time.forward_s), ("backward_s".to_owned(), time.backward_s)].into(),
        details: json!({ "forward_all": time.forward_all, "backward_all": time.backward_all }),
    });
    let scans = measured.scans.iter().map(|((name, steps), time)| Record {
        what: format!("scan of {name}"),
        configuration: json!({ "steps": steps, "batch": LAYER.0, "width": NEURONS }),
        seed: Some(0),
        numbers: [("forward_s".to_owned(), time.forward), ("backward_s".to_owned(), time.backward)].into(),
        details: json!(null),
    });
    ours.chain(peers).chain(scans).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_made_from_any_measurements() {
        let plan = Plan::new(Profile::Smoke);
        let mut measured = Measurements::default();
        assert!(demands(&measured).iter().all(|d| d.at == [None, None]));
        for cell in plan.cells() {
            let time = LayerTime { forward: vec![1e-3], backward: vec![2e-3], ..LayerTime::default() };
            measured.ours.insert((cell.model, cell.steps, cell.forward_only), time);
        }
        for cell in plan.peer_cells(1) {
            let peer = if cell.sliced { format!("{}+sliced", cell.peer) } else { cell.peer.clone() };
            let all = vec![0.02];
            let time = PeerTime {
                peer: peer.clone(),
                forward_s: 0.02,
                backward_s: 0.0,
                forward_all: all.clone(),
                backward_all: all,
                torch: "2".into(),
                threads: 1,
                first_forward_s: None,
            };
            measured.peers.insert((peer, cell.steps, cell.forward_only), time);
        }
        assert_eq!(measured.ratio(Cuba, LAYER_STEPS[0]).map(|r| (r * 100.0).round()), Some(667.0));
        let lif = demands(&measured).into_iter().find(|d| d.what == "our LIF / our T").unwrap();
        assert_eq!(lif.at, [Some((1.0, true)); 2]);
        assert_eq!(layer_table(&measured).rows.len(), MODELS.len() + 1);
        assert_eq!(figure(&plan, &measured, None).panels.len(), 3);
    }
}
