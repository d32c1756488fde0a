//! Figure 2 of the block paper: where gradients flow, in the block and in the sequential neuron.

use anyhow::Result;
use snn_core::neurons::block::{self, BlockNeuron};
use snn_core::neurons::lif::{self, LifKind, LifNeuron, Path};

use super::figure1::{current, steps};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{Cell, Column, Figure, Lines, Measured, Panel, Report, Series, Table};

/// Decay of the lane shown.
const BETA: f64 = 0.8;

/// The gradient on the current when a unit gradient reaches every output step.
fn gradients(current: &[f64]) -> [(&'static str, Vec<f64>); 4] {
    let ones = vec![1.0; current.len()];
    let mut out = vec![0.0; current.len()];
    let neuron = BlockNeuron::default();
    let membrane = block::stages(&neuron, BETA, 0.0, current).membrane;
    block::adjoint(&neuron, BETA, 0.0, &membrane, &ones, None, &mut out);
    let block = out.clone();
    let mut sequential = |kind| {
        let neuron = LifNeuron::new(kind);
        let state = lif::trace(&neuron, BETA, 0.0, current).state;
        lif::adjoint(&neuron, BETA, 0.0, &state, &ones, None, &mut out);
        out.clone()
    };
    let multi = sequential(LifKind::Multi { reset: Path::Attached });
    let single = sequential(LifKind::Single { mask: Path::Attached });
    let detached = sequential(LifKind::Single { mask: Path::Detached });
    [
        ("block", block),
        ("multi-spike", multi),
        ("single-spike, as published", single),
        ("single-spike, mask detached", detached),
    ]
}

pub(crate) fn run(args: &Reproduce) -> Result<()> {
    let active = current();
    // The same bouts, too weak to cross: what a silent neuron learns.
    let silent: Vec<f64> = active.iter().map(|i| 0.3 * i).collect();
    let panel = |title: &str, current: &[f64], of: &[usize]| {
        let all = gradients(current);
        let series = of.iter().map(|&i| Series::new(all[i].0, steps(&all[i].1)).line().colour(i)).collect();
        Panel::new(title, "step", "gradient on the current", Lines::new(series))
    };
    let figure = Figure::new("figure2", "Where gradients flow", 2)
        .caption(format!("Decay {BETA}; a unit gradient arrives at every output step. Computed by the adjoints."))
        .panel(panel("block, firing", &active, &[0]))
        .panel(panel("sequential, firing", &active, &[1, 2, 3]))
        .panel(panel("block, silent", &silent, &[0]))
        .panel(panel("sequential, silent", &silent, &[1, 2, 3]));

    let mut report = Report::new("figure2", "Block paper, figure 2: where gradients flow", args.profile);
    report.command = command(args);
    let size = |g: &[f64]| g.iter().map(|v| v.abs()).sum::<f64>() / g.len() as f64;
    let mut table = Table::new(
        "sizes",
        "Mean absolute gradient on the current",
        vec![Column::words("neuron"), Column::numbers("firing", ""), Column::numbers("silent", "")],
    );
    for ((name, firing), (_, silent)) in gradients(&active).iter().zip(&gradients(&silent)) {
        table.row([
            Cell::text(*name),
            Cell::number(Measured::value(size(firing)), 4),
            Cell::number(Measured::value(size(silent)), 4),
        ]);
    }
    report.summary = vec![
        "In the block, a gradient on any output step reaches every earlier step through the double sum, whether or not \
         the neuron fired; after the spike of a sequential single-spike neuron nothing is left to learn from."
            .into(),
        "All neurons have a gradient in silence, because the surrogate's slope is never zero; the block's is larger by the \
         double sum, which grows with the square of the remaining steps."
            .into(),
    ];
    report.tables = vec![table];
    report.figures = vec![figure];
    publish(&report, &args.out.join("figure2"))
}
