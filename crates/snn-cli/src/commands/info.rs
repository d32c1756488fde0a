//! `snn info`: what an experiment is and what it will need, before it runs.

use anyhow::Result;
use snn_core::{Backend, Kind, Mode};
use snn_cpu::Cpu;
use snn_cuda::libraries::Needed;
use snn_data::{OpenOptions, SourceKind, store, synth};
use snn_train::Stack;
use snn_train::trainer::{RunOptions, Split, build_model};

use super::experiment;
use crate::args::Info;
use crate::console;
use crate::device::on_device;
use crate::report::{Cell, Column, Measured, Table};

/// Bytes that the program holds without a model: code, libraries, thread stacks. Measured on a model of 150 parameters.
const PROGRAM_BYTES: usize = 13 << 20;

/// What the HDF5 library holds for an open file: caches of chunks and of the file's structure, conversion buffers.
/// Measured, streaming a set of 8,156 samples against generating it.
const HDF5_BYTES: usize = 10 << 20;

/// Sizes of a batch in memory at once: two that wait, one that waits for room, one being prepared from lists twice its
/// size, one in work, its copy on the device, and its events sorted by unit for the weight gradient.
const BATCHES: usize = 9;

/// A kept sample beside its values: the lists' headers and the allocator's share.
const KEPT_SAMPLE_BYTES: usize = 256;

pub(crate) fn run(args: &Info) -> Result<()> {
    if args.devices {
        return devices(args.json);
    }
    on_device!(args.place.device()?, device => describe(&device, args))
}

/// What `--device` can name here, and what is missing.
fn devices(json: bool) -> Result<()> {
    let cpu = snn_core::backend::Memory::describe(&Cpu::new(0)?);
    let gpus = gpus();
    if json {
        let list = |d: &snn_cuda::DeviceInfo| {
            serde_json::json!({
                "device": format!("cuda:{}", d.index), "name": d.name, "memory_bytes": d.memory,
                "compute_capability": format!("{}.{}", d.capability.0, d.capability.1),
                "multiprocessors": d.multiprocessors,
            })
        };
        let found: Vec<_> = gpus.as_ref().map(|gpus| gpus.iter().map(list).collect()).unwrap_or_default();
        return console::json(&serde_json::json!({ "cpu": cpu, "cuda": found, "cuda_missing": gpus.err() }));
    }
    console::line(format_args!("cpu     {}", cpu.trim_start_matches("cpu, ")))?;
    match gpus {
        Ok(gpus) => gpus.iter().try_for_each(console::line),
        Err(reason) => console::line(format_args!("cuda    none: {reason}")),
    }
}

/// The GPUs that can be used, or what is missing.
fn gpus() -> Result<Vec<snn_cuda::DeviceInfo>, String> {
    let devices = snn_cuda::devices().map_err(|error| match error {
        snn_core::Error::Device { reason, .. } => reason,
        other => other.to_string(),
    })?;
    if devices.is_empty() {
        return Err("the driver finds no GPU".into());
    }
    Needed::all_present(&Needed::ALL)?;
    Ok(devices)
}

fn describe<B: Backend>(device: &B, args: &Info) -> Result<()> {
    let experiment = experiment(args.experiment.as_deref().unwrap_or_default(), &args.changes)?;
    let mut data = args.place.open_options();
    if args.stream {
        data.memory = 0;
    }
    let options = RunOptions { data, ..RunOptions::default() };
    let (split, test) = (Split::train(&experiment, &options)?, Split::test(&experiment, &options)?);
    let stack = build_model(device, &experiment, &split)?;
    let batch = experiment.train.batch.min(split.len());
    let memory = Memory::estimate(&stack, &split, &test, batch, &options.data);

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
            Cell::number(Measured::value(count as f64), 0),
            Cell::number(Measured::value(mib(layer.activity_bytes(batch, Mode::Train))), 1),
        ]);
    }
    console::line(table.terminal())?;
    let label = split.source.label().map_or(String::new(), |l| format!(" [{l}: not the published data set]"));
    console::line(format_args!(
        "data: {}{label}, {} samples of {}",
        split.source.name(),
        split.len(),
        split.source.kind()
    ))?;
    console::line(format_args!("input: {}", stack.input()))?;
    let total: usize = stack.parameters().map(|(_, p)| p.value.len()).sum();
    console::line(format_args!("parameters: {total}"))?;
    console::line(format_args!(
        "memory while training, batch {batch}: {:.0} MiB (model and activities {:.0}, optimiser {:.0}, checkpoints {:.0}, \
         data {:.0}, program {:.0})",
        mib(memory.total()),
        mib(memory.model),
        mib(memory.optimiser),
        mib(memory.checkpoint),
        mib(memory.data),
        mib(memory.program),
    ))
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Where a training run's memory goes.
struct Memory {
    model: usize,
    optimiser: usize,
    checkpoint: usize,
    data: usize,
    program: usize,
}

impl Memory {
    fn estimate<B: Backend>(stack: &Stack<B>, train: &Split, test: &Split, batch: usize, data: &OpenOptions) -> Self {
        let sum = |learned_only: bool| -> usize {
            let counted = stack.parameters().filter(|(_, p)| p.learnable || !learned_only);
            counted.map(|(_, p)| p.value.len() * size_of::<B::Real>()).sum()
        };
        let state = sum(false) + 2 * sum(true);
        // The backend multiplies by a packed copy of the weights of the layer in work.
        let weights = stack.parameters().filter(|(_, p)| p.name == "weight");
        let packed = weights.map(|(_, p)| p.value.len() * size_of::<B::Real>()).max().unwrap_or(0);
        Self {
            model: stack.memory_bytes(batch, Mode::Train) + packed,
            // Two moments of every learned parameter.
            optimiser: 2 * sum(true),
            // A checkpoint is put together in memory: every array on its own, then the whole file.
            checkpoint: 2 * state,
            data: kept_bytes(train, data) + kept_bytes(test, data) + BATCHES * batch_bytes(stack, train, batch),
            program: PROGRAM_BYTES + if is_file(train, data) { HDF5_BYTES } else { 0 },
        }
    }

    fn total(&self) -> usize {
        self.model + self.optimiser + self.checkpoint + self.data + self.program
    }
}

/// Whether samples come from an HDF5 file.
fn is_file(split: &Split, data: &OpenOptions) -> bool {
    let name = split.source.name();
    let (set, part) = name.split_once('/').unwrap_or((name, ""));
    synth::find(set).is_none() || store::converted_path(&data.data_dir, set, part).exists()
}

/// Bytes of the samples that stay in memory once they have been read.
fn kept_bytes(split: &Split, data: &OpenOptions) -> usize {
    let source = &split.source;
    match source.memory() {
        Some(bytes) if bytes <= data.memory => {
            split.len() * (bytes as usize / source.len().max(1) + KEPT_SAMPLE_BYTES) + source.len() * size_of::<usize>()
        }
        _ => 0,
    }
}

/// Bytes of one batch as it comes from the loader.
fn batch_bytes<B: Backend>(stack: &Stack<B>, split: &Split, batch: usize) -> usize {
    let signal = stack.input();
    let events = match split.source.kind() {
        // One spike per input.
        SourceKind::Images(_) | SourceKind::Vectors(_) => signal.width(),
        // A unit and a time each, four bytes both.
        _ => split.source.memory().map_or(0, |bytes| bytes as usize / split.source.len().max(1) / 8),
    };
    match signal.kind {
        Kind::Spikes => batch * (events * size_of::<u32>() + signal.steps * size_of::<usize>()),
        _ => batch * signal.width() * size_of::<f32>(),
    }
}
