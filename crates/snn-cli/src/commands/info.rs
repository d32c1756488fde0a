//! `snn info`: what an experiment is and what it will need, before it runs.

use anyhow::Result;
use snn_core::{Backend, Kind, Mode};
use snn_data::SourceKind;
use snn_train::Stack;
use snn_train::trainer::{RunOptions, Split, build_model};

use super::experiment;
use crate::args::Info;
use crate::console;
use crate::report::{Cell, Column, Table};

/// Bytes that the program holds before any data: code, libraries, thread stacks.
const PROGRAM_BYTES: usize = 24 << 20;

/// Batches that are in flight beside the one on the device.
const BATCHES_AHEAD: usize = 4;

pub(crate) fn run(args: &Info) -> Result<()> {
    let experiment = experiment(&args.which.experiment, &args.which.changes)?;
    let device = args.place.device()?;
    let options = RunOptions { data: args.place.open_options(), ..RunOptions::default() };
    let split = Split::train(&experiment, &options)?;
    let stack = build_model(&device, &experiment, &split)?;
    let batch = experiment.train.batch.min(split.len());
    let memory = Memory::estimate(&device, &stack, &split, batch, options.data.memory);

    if args.json {
        let layers = stack.layers().map(|l| {
            let parameters: Vec<_> =
                l.parameters().iter().map(|p| serde_json::json!({ "name": p.name, "shape": p.value.shape, "learned": p.learnable })).collect();
            serde_json::json!({ "name": l.name(), "input": l.input().to_string(), "output": l.output_signal().to_string(), "parameters": parameters })
        });
        return console::json(&serde_json::json!({
            "name": experiment.name,
            "data": split.source.name(),
            "data_label": split.source.label(),
            "samples": split.len(),
            "layers": layers.collect::<Vec<_>>(),
            "parameters": stack.parameters().map(|(_, p)| p.value.len()).sum::<usize>(),
            "batch": batch,
            "peak_bytes": memory.total(),
        }));
    }
    let mut table = Table::new(
        "layers",
        experiment.name.clone(),
        vec![
            Column::words("layer"),
            Column::words("gives"),
            Column::words("parameters"),
            Column::numbers("values", ""),
            Column::numbers("activity", "MiB per batch"),
        ],
    );
    for layer in stack.layers() {
        let parameters = layer.parameters();
        let shapes: Vec<String> = parameters
            .iter()
            .map(|p| format!("{} {:?}{}", p.name, p.value.shape, if p.learnable { "" } else { " fixed" }))
            .collect();
        let count: usize = parameters.iter().map(|p| p.value.len()).sum();
        table.row([
            Cell::text(layer.name()),
            Cell::text(layer.output_signal().to_string()),
            Cell::text(shapes.join(", ")),
            Cell::number(snn_to_measured(count as f64), 0),
            Cell::number(snn_to_measured(mib(layer.activity_bytes(batch, Mode::Train))), 1),
        ]);
    }
    console::line(table.terminal())?;
    let label = split.source.label().map_or(String::new(), |l| format!(" [{l}: not the published data set]"));
    console::line(format_args!("data: {}{label}, {} samples of {}", split.source.name(), split.len(), split.source.kind()))?;
    console::line(format_args!("input: {}", stack.input()))?;
    let total: usize = stack.parameters().map(|(_, p)| p.value.len()).sum();
    console::line(format_args!("parameters: {total}"))?;
    console::line(format_args!(
        "memory while training, batch {batch}: {:.0} MiB (model and activities {:.0}, optimiser {:.0}, data {:.0}, program {:.0})",
        mib(memory.total()),
        mib(memory.model),
        mib(memory.optimiser),
        mib(memory.data),
        mib(PROGRAM_BYTES),
    ))
}

fn snn_to_measured(value: f64) -> crate::report::Measured {
    crate::report::Measured::value(value)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Where a training run's memory goes.
struct Memory {
    model: usize,
    optimiser: usize,
    data: usize,
}

impl Memory {
    fn estimate<B: Backend>(device: &B, stack: &Stack<B>, split: &Split, batch: usize, keep: u64) -> Self {
        let _ = device;
        let learned: usize = stack.parameters().filter(|(_, p)| p.learnable).map(|(_, p)| p.value.len()).sum();
        let set = split.source.memory().filter(|&bytes| bytes <= keep).unwrap_or(0) as usize;
        Self {
            model: stack.memory_bytes(batch, Mode::Train),
            optimiser: 2 * learned * size_of::<B::Real>(),
            data: set + (BATCHES_AHEAD + 1) * batch_bytes(stack, split, batch),
        }
    }

    fn total(&self) -> usize {
        self.model + self.optimiser + self.data + PROGRAM_BYTES
    }
}

/// Bytes of one batch as it comes from the loader.
fn batch_bytes<B: Backend>(stack: &Stack<B>, split: &Split, batch: usize) -> usize {
    let signal = stack.input();
    let events = match split.source.kind() {
        // One spike per input.
        SourceKind::Images(_) | SourceKind::Vectors(_) => signal.width(),
        _ => split.source.memory().map_or(0, |bytes| bytes as usize / split.source.len().max(1) / 8),
    };
    match signal.kind {
        Kind::Spikes => batch * (events * 4 + signal.steps * 8),
        _ => batch * signal.width() * 4,
    }
}
