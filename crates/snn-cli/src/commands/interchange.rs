//! `snn import` and `snn export`: weights of other programs.

use std::path::Path;

use anyhow::{Context, Result};
use snn_core::{Kind, Signal};
use snn_cpu::Cpu;
use snn_data::OpenOptions;
use snn_train::config::ReadoutNeuron;
use snn_train::interchange::npy;
use snn_train::interchange::npz::{self, Naming};
use snn_train::trainer::{RunOptions, Split, build_model};
use snn_train::{Experiment, Stack, checkpoint};

use super::data_dir;
use crate::args::{Export, Import, WeightNames};
use crate::{console, usage};

pub(crate) fn import(args: &Import) -> Result<()> {
    let device = Cpu::new(1)?;
    let experiment = super::experiment(&args.experiment, &args.changes)?;
    experiment.check()?;
    let stack = if args.weights.is_dir() {
        let (stack, notes) = if npy::needs_data(&experiment) {
            let mut stack = for_data(&device, &experiment, args.data_dir.as_deref())?;
            let notes = npy::load(&device, &args.weights, &mut stack)?;
            (stack, notes)
        } else {
            npy::import(&device, &args.weights, &experiment)?
        };
        notes.iter().for_each(console::message);
        stack
    } else {
        let (stack, unused) = npz::import(&device, &args.weights, &experiment)?;
        if !unused.is_empty() {
            console::message(format_args!("arrays without a place in the model, left out: {}", unused.join(", ")));
        }
        stack
    };
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let text = experiment.to_toml();
    checkpoint::write_atomic(&args.out.join("config.toml"), text.as_bytes())?;
    let path = args.out.join("model.safetensors");
    checkpoint::save_model(&device, &path, &stack, &text)?;
    let count: usize = stack.parameters().map(|(_, p)| p.value.len()).sum();
    console::line(format_args!("{}: {} with {count} parameters", path.display(), experiment.name))
}

pub(crate) fn export(args: &Export) -> Result<()> {
    let device = Cpu::new(1)?;
    let path = if args.model.is_dir() { args.model.join("model.safetensors") } else { args.model.clone() };
    let experiment = Experiment::from_toml(&path.display().to_string(), &checkpoint::experiment_of(&path)?)?;
    let event_driven = matches!(experiment.model.readout.neuron, ReadoutNeuron::Event(_));
    if event_driven != (args.names == WeightNames::Bats) {
        let (of, right) = if event_driven {
            ("event-driven", "`--names bats`")
        } else {
            ("other than event-driven", "`--names spsn` or `--names paralif`")
        };
        return Err(usage(format!("{}: neurons are {of}; export them with {right}", path.display())));
    }
    let mut stack = if npy::needs_data(&experiment) {
        for_data(&device, &experiment, args.data_dir.as_deref())?
    } else {
        without_data(&device, &path, &experiment)?
    };
    checkpoint::load_model(&device, &path, &mut stack)?;
    match args.names {
        WeightNames::Spsn => npz::export(&device, &stack, Naming::Spsn, &args.out)?,
        WeightNames::Paralif => npz::export(&device, &stack, Naming::ParaLif, &args.out)?,
        WeightNames::Bats => npy::export(&device, &stack, &args.out)?,
    }
    console::line(format_args!("{}: weights of {}", args.out.display(), path.display()))
}

/// The model of an experiment for its test data.
fn for_data(device: &Cpu, experiment: &Experiment, data: Option<&Path>) -> Result<Stack<Cpu>> {
    let data = OpenOptions { data_dir: data_dir(data), ..OpenOptions::default() };
    let split = Split::test(experiment, &RunOptions { data, ..RunOptions::default() })?;
    Ok(build_model(device, experiment, &split)?)
}

/// The model of a weights file; its sizes come from the file, so that no data is needed.
fn without_data(device: &Cpu, path: &Path, experiment: &Experiment) -> Result<Stack<Cpu>> {
    let last = experiment.model.layers.len();
    let sizes = |layer: usize| match checkpoint::shape_of(path, &format!("{layer}.weight"))?[..] {
        [inputs, outputs] => Ok((inputs, outputs)),
        ref other => {
            anyhow::bail!("{}: layer {layer} has weights {other:?}; only dense models are exported", path.display())
        }
    };
    let ((inputs, _), (_, classes)) = (sizes(0)?, sizes(last)?);
    let kind =
        if matches!(experiment.model.readout.neuron, ReadoutNeuron::Event(_)) { Kind::Trains } else { Kind::Spikes };
    let signal = Signal::flat(kind, 1, inputs);
    Ok(Stack::build(device, &experiment.model, signal, classes, experiment.train.seed)?)
}
