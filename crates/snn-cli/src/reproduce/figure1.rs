//! Figure 1 of the block paper: how the stages of the block model work, on one lane.

use anyhow::Result;
use snn_core::neurons::block::{BlockNeuron, stages};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path, trace};

use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{Cell, Column, Figure, Lines, Measured, Panel, Report, Series, Table};

/// Steps shown.
const STEPS: usize = 40;

/// Decay of the lane shown.
const BETA: f64 = 0.8;

/// Two bouts of input with a pause between: more than one crossing, so that every stage has something to do.
pub(super) fn current() -> Vec<f64> {
    (0..STEPS).map(|t| if (6..14).contains(&t) || (22..30).contains(&t) { 0.42 } else { 0.02 }).collect()
}

/// One point per step.
pub(super) fn steps(values: &[f64]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(t, &v)| (t as f64, v)).collect()
}

pub(crate) fn run(args: &Reproduce) -> Result<()> {
    let current = current();
    let neuron = BlockNeuron::default();
    let s = stages(&neuron, BETA, 0.0, &current);
    let sequential = trace(&LifNeuron::new(LifKind::Single { mask: Path::Attached }), BETA, 0.0, &current);
    let line = |name: &str, values: &[f64]| Lines::new(vec![Series::new(name, steps(values)).line()]);
    let membrane = line("block", &s.membrane).reference(neuron.threshold, "threshold");
    let loop_membrane = line("sequential", &sequential.membrane).reference(neuron.threshold, "threshold");
    let figure = Figure::new("figure1", "The stages of the block model on one neuron", 2)
        .caption(format!("Decay {BETA}, threshold 1. Every curve is computed by the reference model."))
        .panel(Panel::new("input current I", "step", "threshold units", line("I", &current)).without_legend())
        .panel(Panel::new("membrane without reset V", "step", "threshold units", membrane).without_legend())
        .panel(Panel::new("faulty spikes F", "step", "spikes", line("F", &s.faulty)).without_legend())
        .panel(Panel::new("latency code z", "step", "double sum of F", line("z", &s.latency)).without_legend())
        .panel(Panel::new("output spike S", "step", "spikes", line("S", &s.spikes)).without_legend())
        .panel(
            Panel::new("the sequential neuron's membrane", "step", "threshold units", loop_membrane).without_legend(),
        );

    let mut report = Report::new("figure1", "Block paper, figure 1: the stages of the block model", args.profile);
    report.command = command(args);
    let first = |values: &[f64]| values.iter().position(|&v| v == 1.0);
    report.summary = vec![
        format!(
            "The membrane crosses the threshold {} times; the double sum is 1 at the first crossing alone, so the block \
             emits one spike, at step {}.",
            s.faulty.iter().sum::<f64>(),
            first(&s.spikes).map_or_else(|| "-".into(), |t| t.to_string())
        ),
        format!(
            "The sequential single-spike neuron, simulated step by step, gives {} spike train.",
            if s.spikes == sequential.spikes { "the same" } else { "ANOTHER" }
        ),
        "The time axis is the only axis that the sequential neuron has to walk; in the block, every stage is a linear \
         map over all steps at once, which we compute as one pass."
            .into(),
    ];
    let mut table = Table::new(
        "stages",
        "The stages, step by step",
        ["step", "I", "V", "F", "z", "S"].map(|c| Column::numbers(c, "")).into(),
    );
    for (t, &i) in current.iter().enumerate() {
        let row = [t as f64, i, s.membrane[t], s.faulty[t], s.latency[t], s.spikes[t]];
        table.row(row.into_iter().zip([0, 2, 3, 0, 0, 0]).map(|(v, d)| Cell::number(Measured::value(v), d)));
    }
    report.tables = vec![table];
    report.figures = vec![figure];
    publish(&report, &args.out.join("figure1"))
}
