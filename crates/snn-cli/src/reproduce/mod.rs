//! `snn reproduce`: the figures and tables of the papers, computed.

mod bats_combinations;
mod bats_convergence;
mod bats_networks;
mod bats_stdp;
mod blocks_figure4;
mod blocks_figure5;
mod blocks_libraries;
mod blocks_speed;
mod digits;
mod figure1;
mod figure2;
mod figure3;
mod figure4;
mod paralif_biology;
mod paralif_robustness;
mod paralif_time;
mod spsn_table;
mod study;
mod ttfs_chain;
mod ttfs_cifar10;
mod ttfs_finetune;
mod ttfs_gradients;
mod ttfs_mnist;
mod ttfs_robustness;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::args::Reproduce;
use crate::console;
use crate::report::{Report, Written};
use crate::usage;

/// The targets in the order of the papers, and what each shows.
const TARGETS: &[(&str, &str)] = &[
    ("figure1", "block paper: the stages of the block model on one neuron"),
    ("figure2", "block paper: where gradients flow"),
    ("figure3", "block paper: speed of block and sequential neurons, as published and fused"),
    ("figure4", "block paper: accuracy, speed, activity, training from silence"),
    (spsn_table::TARGET, "SPSN: accuracy and time of an epoch on spoken digits, beside LIF"),
    (paralif_time::TARGET, "ParaLIF: running time of parallel and sequential neurons, beside PyTorch"),
    (paralif_biology::TARGET, "ParaLIF: features of biological neurons in single neurons"),
    (paralif_robustness::TARGET, "ParaLIF: accuracy under noise on spoken digits"),
    bats_networks::TARGETS[0],
    bats_networks::TARGETS[1],
    bats_networks::TARGETS[2],
    bats_networks::TARGETS[3],
    (bats_combinations::TARGET, "BATS: networks trained by one reading of their output spikes, tested by others"),
    (bats_convergence::TARGET, "BATS: how often a layer learns the order of two spikes, by its first weights"),
    (bats_stdp::TARGET, "EvSpikeSim: digits by reward-modulated STDP, one image at a time"),
    (ttfs_mnist::TARGET, "TTFS: single-spike networks from scratch, beside networks of rectifiers from the same seeds"),
    (ttfs_finetune::TARGET, "TTFS: networks of rectifiers mapped to neurons that spike once, and fine-tuned"),
    (ttfs_cifar10::TARGET, "TTFS: from rectifiers to spikes on colour images, with published weights where they are"),
    (
        ttfs_robustness::TARGET,
        "TTFS: noise, coarse times, coarse weights and short windows, and what fine-tuning repairs",
    ),
    (ttfs_gradients::TARGET, "TTFS: vanishing and exploding gradients, unless the slope at the threshold is constant"),
    (blocks_speed::TARGET, "Blocks: speed of adaptive neurons by refractory period and layers, beside PyTorch"),
    (blocks_figure4::TARGET, "Blocks: accuracy and time of an epoch over refractory periods, on SHD and N-MNIST"),
    (blocks_figure5::TARGET, "Blocks: adaptive neurons fitted to recorded ones, by step and refractory period"),
    (blocks_libraries::TARGET, "Blocks: forward passes beside those of other libraries"),
];

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    if args.list {
        return TARGETS.iter().try_for_each(|(name, what)| console::line(format_args!("{name}  {what}")));
    }
    match args.target.as_deref().unwrap_or_default() {
        "figure1" => figure1::run(args),
        "figure2" => figure2::run(args),
        "figure3" => figure3::run(args, quiet),
        "figure4" => figure4::run(args, quiet),
        spsn_table::TARGET => spsn_table::run(args, quiet),
        paralif_time::TARGET => paralif_time::run(args, quiet),
        paralif_biology::TARGET => paralif_biology::run(args),
        paralif_robustness::TARGET => paralif_robustness::run(args, quiet),
        bats_combinations::TARGET => bats_combinations::run(args, quiet),
        bats_convergence::TARGET => bats_convergence::run(args, quiet),
        bats_stdp::TARGET => bats_stdp::run(args, quiet),
        blocks_speed::TARGET => blocks_speed::run(args, quiet),
        blocks_figure4::TARGET => blocks_figure4::run(args, quiet),
        blocks_figure5::TARGET => blocks_figure5::run(args, quiet),
        blocks_libraries::TARGET => blocks_libraries::run(args, quiet),
        ttfs_mnist::TARGET => ttfs_mnist::run(args, quiet),
        ttfs_finetune::TARGET => ttfs_finetune::run(args, quiet),
        ttfs_cifar10::TARGET => ttfs_cifar10::run(args, quiet),
        ttfs_robustness::TARGET => ttfs_robustness::run(args, quiet),
        ttfs_gradients::TARGET => ttfs_gradients::run(args, quiet),
        name if bats_networks::TARGETS.iter().any(|(known, _)| *known == name) => bats_networks::run(name, args, quiet),
        other => {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            let hint = snn_train::config::nearest(other, names.iter().copied());
            Err(usage(format!("no target `{other}`; there are {}{hint}", names.join(", "))))
        }
    }
}

/// What names a job of timing: everything that its result depends on.
#[derive(Debug, Serialize)]
struct TimingJob<'a, C> {
    target: &'static str,
    cell: C,
    threads: usize,
    device: &'a str,
    machine: &'a str,
    /// The version, of peers.
    torch: &'a str,
}

/// The command line that repeats a run.
fn command(args: &Reproduce) -> String {
    let mut line =
        format!("cargo xtask reproduce {} --profile {}", args.target.as_deref().unwrap_or_default(), args.profile);
    if !args.sets.is_empty() {
        line.push_str(&format!(" --sets {}", args.sets.join(",")));
    }
    if args.peer_python.is_some() {
        line.push_str(" --peer-python PYTHON");
    }
    if args.train_noise {
        line.push_str(" --train-noise");
    }
    line
}

/// Writes a report and says where it is.
fn publish(report: &Report, directory: &Path) -> Result<()> {
    let Written { html, markdown, results, figures } = report.write(directory)?;
    for path in figures.iter().filter(|p| p.extension().is_some_and(|e| e == "png")) {
        console::line(format_args!("figure: {}", path.display()))?;
    }
    console::line(format_args!("report: {}", html.display()))?;
    console::line(format_args!("        {}", markdown.display()))?;
    console::line(format_args!("numbers: {}", results.display()))
}
