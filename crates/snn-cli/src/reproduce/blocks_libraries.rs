//! The library comparison of the Blocks paper (arXiv 2311.11390): one forward pass of a layer in several libraries.
//!
//! The published notebook times one call of each, not warmed up, by the clock of the host and without waiting for the
//! GPU, and gives each library another refractory period: blocks 50 steps, the loop 1, the others none. Here every row is
//! timed on a CPU, where there is nothing to wait for; the first call stands beside the median of those after it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snn_core::backend::Memory;
use snn_cpu::Cpu;

use super::{TimingJob, command, publish};
use crate::args::Reproduce;
use crate::bench::LayerModel::{self, AlifBlocks, AlifBlocksPublished, AlifSteps, AlifStepwise};
use crate::bench::layer::{LayerCell, peer_cell, time_layer};
use crate::bench::peer::Peers;
use crate::bench::timing::show;
use crate::console;
use crate::report::{
    Axis, Bars, Cell, Column, Deviation, Figure, Jobs, Measured, Panel, Profile, Record, Report, Table,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "blocks-libraries";

/// Inputs and neurons, as published.
const SIZE: [usize; 2] = [200, 100];

/// Refractory periods of blocks and of the loop, as published, in steps.
const PERIODS: [u32; 2] = [50, 1];

/// What is timed: a name, where it runs, and its refractory period, none for neurons without one.
const ROWS: [(&str, Side, Option<u32>); 9] = [
    ("blocks, fused", Side::Ours(AlifBlocks), Some(PERIODS[0])),
    ("steps, fused", Side::Ours(AlifSteps), Some(PERIODS[1])),
    ("blocks as published", Side::Ours(AlifBlocksPublished), Some(PERIODS[0])),
    ("steps, one by one", Side::Ours(AlifStepwise), Some(PERIODS[1])),
    ("PyTorch blocks", Side::Peer("alif-block"), Some(PERIODS[0])),
    ("PyTorch loop", Side::Peer("alif"), Some(PERIODS[1])),
    ("Norse", Side::Peer("norse"), None),
    ("SpikingJelly", Side::Peer("spikingjelly"), None),
    ("snnTorch", Side::Peer("snntorch"), None),
];

/// Published seconds.
const PUBLISHED: [(&str, f64); 4] = [("Norse", 0.3080), ("SpikingJelly", 0.1869), ("loop", 0.3317), ("blocks", 0.0163)];

/// Where something runs.
#[derive(Debug, Clone, Copy)]
enum Side {
    Ours(LayerModel),
    Peer(&'static str),
}

/// Samples, steps and timings.
#[derive(Debug, Clone, Copy)]
struct Plan {
    batch: usize,
    steps: usize,
    repeats: usize,
}

impl Plan {
    fn new(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self { batch: 8, steps: 200, repeats: 3 },
            Profile::Quick => Self { batch: 128, steps: 1000, repeats: 5 },
            Profile::Paper => Self { batch: 128, steps: 1000, repeats: 10 },
        }
    }

    fn cell(&self, model: LayerModel, refractory: Option<u32>) -> LayerCell {
        let [n_in, n] = SIZE;
        let cell = LayerCell::new(model, [self.batch, self.steps, n_in, n], self.repeats);
        LayerCell { refractory, feed_forward: true, forward_only: true, ..cell }
    }
}

/// Seconds of the first call, and of those after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Calls {
    first: Option<f64>,
    median: f64,
    all: Vec<f64>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Outcome {
    Timed(Calls),
    /// The Python package that is missing.
    Missing(String),
}

impl Outcome {
    fn calls(&self) -> Option<&Calls> {
        match self {
            Self::Timed(calls) => Some(calls),
            Self::Missing(_) => None,
        }
    }
}

type Outcomes = BTreeMap<&'static str, Outcome>;

/// Runs the reproduction.
pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let directory = args.out.join(TARGET);
    let cpu = args.place.processor()?;
    let plan = Plan::new(args.profile);
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let title = "Adaptive neurons beside other libraries, forward passes, arXiv 2311.11390";
    let mut report = Report::new(TARGET, title, args.profile);
    let outcomes = measure(&cpu, plan, peers.as_ref(), &jobs, &report.machine.line(), quiet)?;
    report.command = command(args);
    report.summary = summary(plan, &outcomes);
    report.deviations = deviations(&cpu, plan);
    report.tables = vec![table(plan, &outcomes), published_table()];
    report.figures = vec![figure(plan, &outcomes)];
    report.records = records(plan, &outcomes);
    report.notes = jobs.notes();
    report.notes.push(match &peers {
        Some(_) => "Libraries ran on the same machine in the same run, with as many threads, without gradients. Their \
                    neurons are those that they call leaky integrate-and-fire, with their own constants."
            .into(),
        None => {
            "No library was run: name a Python that has PyTorch, and those of Norse, SpikingJelly and snnTorch that \
                 are wanted, with --peer-python."
                .into()
        }
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

fn measure(cpu: &Cpu, plan: Plan, peers: Option<&Peers>, jobs: &Jobs, machine: &str, quiet: bool) -> Result<Outcomes> {
    let (device, threads) = (cpu.describe(), cpu.threads());
    let torch = peers.map_or("", Peers::version);
    let mut outcomes = Outcomes::new();
    let bar = console::bar(quiet, ROWS.len() as u64, "[{bar:30}] {pos}/{len} {msg}");
    for (name, side, refractory) in ROWS {
        bar.set_message(name);
        bar.tick();
        match (side, peers) {
            (Side::Ours(model), _) => {
                let cell = plan.cell(model, refractory);
                let job = TimingJob { target: TARGET, cell: &cell, threads, device: &device, machine, torch: "" };
                let time = jobs.run(&job, || time_layer(cpu, &cell)).context(name)?;
                let median = time.forward_s();
                let calls = Calls { first: Some(time.first_forward), median, all: time.forward };
                outcomes.insert(name, Outcome::Timed(calls));
            }
            (Side::Peer(_), None) => {}
            (Side::Peer(peer), Some(peers)) => {
                let cell = peer_cell(peer, &plan.cell(AlifSteps, refractory), threads, false);
                let outcome = || -> Result<Outcome> {
                    Ok(match peers.time_if_installed(&cell)? {
                        Ok(time) => Outcome::Timed(Calls {
                            first: time.first_forward_s,
                            median: time.forward_s,
                            all: time.forward_all,
                        }),
                        Err(library) => Outcome::Missing(library),
                    })
                };
                let job = TimingJob { target: TARGET, cell: &cell, threads, device: &device, machine, torch };
                let mut found = jobs.run(&job, outcome).context(name)?;
                // What was missing may be there by now.
                if found.calls().is_none() {
                    found = outcome().context(name)?;
                }
                outcomes.insert(name, found);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(outcomes)
}

fn layer(plan: Plan) -> String {
    format!("{} -> {}, T {}, batch {}", SIZE[0], SIZE[1], plan.steps, plan.batch)
}

fn table(plan: Plan, outcomes: &Outcomes) -> Table {
    let columns = vec![
        Column::words("form"),
        Column::numbers("refractory period", "steps"),
        Column::numbers("first call", ""),
        Column::numbers("later calls, median", ""),
        Column::numbers("neuron-steps", "M/s"),
        Column::numbers("time / our blocks", ""),
    ];
    let mut table = Table::new("rows", format!("One forward pass, {}, no recurrence", layer(plan)), columns);
    let ours = outcomes.get(ROWS[0].0).and_then(Outcome::calls).map(|c| c.median);
    for (name, _, refractory) in ROWS {
        let mut row = vec![Cell::text(name), Cell::text(refractory.map_or_else(|| "none".into(), |l| l.to_string()))];
        match outcomes.get(name) {
            Some(Outcome::Timed(calls)) => {
                row.push(calls.first.map_or_else(|| Cell::missing("not said"), |s| Cell::text(show(s))));
                row.push(Cell::text(show(calls.median)));
                let rate = 1e-6 * (plan.steps * plan.batch * SIZE[1]) as f64 / calls.median;
                row.push(Cell::number(Measured::value(rate), 1));
                let ratio = ours.map(|ours| Measured::value(calls.median / ours));
                row.push(ratio.map_or_else(|| Cell::missing("not run"), |r| Cell::number(r, 1)));
            }
            Some(Outcome::Missing(library)) => {
                row.extend(std::iter::repeat_n(Cell::missing(format!("{library} is not installed")), 4));
            }
            None => row.extend(std::iter::repeat_n(Cell::missing("not run"), 4)),
        }
        table.row(row);
    }
    table.note(
        "Refractory periods as published: blocks are 51 steps long, the loop has a period of one step, and the \
         neurons of the libraries have none and no adaptation: these rows are not one model.",
    );
    table.note("First call: fresh buffers and caches; the libraries' import and set-up do not count.");
    table
}

fn published_table() -> Table {
    let columns = vec![Column::words("form"), Column::numbers("one call", "s")];
    let mut table = Table::new("published", "Published: one forward pass, 200 -> 100, T 1000, batch 128", columns);
    for (name, seconds) in PUBLISHED {
        table.row([Cell::text(name), Cell::number(Measured::value(seconds), 4)]);
    }
    table.note(
        "A GPU that is not named, one call without warm-up, by the host's clock and without waiting for the device: a \
         hint, no measurement.",
    );
    table
}

fn summary(plan: Plan, outcomes: &Outcomes) -> Vec<String> {
    let calls = |i: usize| outcomes.get(ROWS[i].0).and_then(Outcome::calls);
    let mut lines = Vec::new();
    if let (Some(blocks), Some(steps)) = (calls(0), calls(1)) {
        let first = |calls: &Calls| calls.first.map_or_else(String::new, |s| format!(" (first call {})", show(s)));
        lines.push(format!(
            "Forward pass of a layer {}: our blocks {}{}, our steps {}{}.",
            layer(plan),
            show(blocks.median),
            first(blocks),
            show(steps.median),
            first(steps)
        ));
    }
    let others = (4..ROWS.len()).filter_map(|i| Some((ROWS[i].0, calls(i)?.median / calls(0)?.median)));
    let others: Vec<String> = others.map(|(name, ratio)| format!("{name} {ratio:.1}")).collect();
    if !others.is_empty() {
        lines.push(format!("Times as long as our blocks, later calls: {}.", others.join(", ")));
    }
    let missing = ROWS.iter().filter(|row| matches!(outcomes.get(row.0), Some(Outcome::Missing(_))));
    let missing: Vec<&str> = missing.map(|row| row.0).collect();
    if !missing.is_empty() {
        lines.push(format!("Not installed: {}.", missing.join(", ")));
    }
    lines
}

fn deviations(cpu: &Cpu, plan: Plan) -> Vec<Deviation> {
    let mut list = vec![
        Deviation::new("hardware", "a GPU, not named", cpu.describe()).why("absolute times do not compare"),
        Deviation::new("timing", "one call, not warmed up, not synchronised", "first call and median of later ones"),
        Deviation::new("libraries", "Norse, SpikingJelly", "Norse, SpikingJelly, snnTorch, as far as installed"),
        Deviation::new("input", "not stated", "the synthetic spikes of the speed figures"),
    ];
    if (plan.batch, plan.steps) != (128, 1000) {
        list.push(Deviation::new("batch and T", "128, 1000", format!("{}, {}", plan.batch, plan.steps)));
    }
    list
}

fn figure(plan: Plan, outcomes: &Outcomes) -> Figure {
    let rows: Vec<_> = ROWS.iter().filter_map(|row| Some((row.0, outcomes.get(row.0)?.calls()?))).collect();
    let bars = |of: &dyn Fn(&Calls) -> Option<f64>| -> Vec<Option<(f64, Option<f64>)>> {
        rows.iter().map(|(_, calls)| of(calls).map(|s| (1e3 * s, None))).collect()
    };
    let here = Bars::new(rows.iter().map(|row| row.0))
        .group("first call", bars(&|calls| calls.first))
        .group("later calls", bars(&|calls| Some(calls.median)));
    let there =
        Bars::new(PUBLISHED.map(|row| row.0)).published("one call", PUBLISHED.map(|row| Some((1e3 * row.1, None))));
    let times = rows.iter().flat_map(|(_, calls)| calls.first.into_iter().chain([calls.median]));
    let (low, high) = times.fold((f64::INFINITY, 0.0_f64), |(low, high), s| (low.min(1e3 * s), high.max(1e3 * s)));
    let ms = Axis::log10("ms");
    // Bars on a logarithmic axis need a foot; the shortest shows half a decade.
    let ms = if high > 0.0 { ms.limits(low / 3.0, 2.0 * high) } else { ms };
    Figure::new(TARGET, "One forward pass of a layer of spiking neurons", 1)
        .caption(format!(
            "a: {}, no recurrence, on this CPU; neurons and refractory periods differ between rows, see the table. \
             b: published, T 1000, batch 128, on a GPU that is not named, without waiting for it.",
            layer(plan)
        ))
        .panel(Panel::new("here", "", ms, here))
        .panel(Panel::new("published, on a GPU", "", Axis::linear("ms").limits(0.0, 400.0), there))
}

fn records(plan: Plan, outcomes: &Outcomes) -> Vec<Record> {
    let record = |&(name, _, refractory): &(&'static str, Side, Option<u32>)| {
        let calls = outcomes.get(name)?.calls()?;
        let mut numbers = BTreeMap::from([("forward_s".to_owned(), calls.median)]);
        numbers.extend(calls.first.map(|s| ("first_forward_s".to_owned(), s)));
        Some(Record {
            what: name.to_owned(),
            configuration: json!({ "batch": plan.batch, "steps": plan.steps, "n_in": SIZE[0], "n": SIZE[1],
                "refractory": refractory }),
            seed: Some(0),
            numbers,
            details: json!({ "forward_all": calls.all }),
        })
    };
    ROWS.iter().filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_is_named() {
        let plan = Plan::new(Profile::Smoke);
        let timed = |ms: f64| Outcome::Timed(Calls { first: None, median: 1e-3 * ms, all: vec![1e-3 * ms] });
        let mut outcomes = Outcomes::from([(ROWS[0].0, timed(1.0)), (ROWS[1].0, timed(2.0)), ("Norse", timed(30.0))]);
        outcomes.insert("snnTorch", Outcome::Missing("snntorch".into()));
        let lines = summary(plan, &outcomes);
        assert_eq!(lines[1], "Times as long as our blocks, later calls: Norse 30.0.");
        assert_eq!(lines[2], "Not installed: snnTorch.");
        assert!(table(plan, &outcomes).terminal().contains("snntorch is not installed"));
        assert_eq!((records(plan, &outcomes).len(), figure(plan, &outcomes).panels.len()), (3, 2));
        assert!(summary(plan, &Outcomes::new()).is_empty());
    }
}
