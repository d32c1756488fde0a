//! `snn import` and `snn export`: weights of other programs.

use std::path::Path;

use anyhow::{Context, Result};
use snn_core::{Kind, Signal};
use snn_cpu::Cpu;
use snn_train::interchange::npz::{self, Naming};
use snn_train::{Experiment, Stack, checkpoint};

use crate::args::{Export, Import, WeightNames};
use crate::console;

pub(crate) fn import(args: &Import) -> Result<()> {
    let device = Cpu::new(1)?;
    let experiment = super::experiment(&args.experiment, &args.changes)?;
    experiment.check()?;
    let (stack, unused) = npz::import(&device, &args.weights, &experiment)?;
    if !unused.is_empty() {
        console::message(format_args!("arrays without a place in the model, left out: {}", unused.join(", ")));
    }
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
    let mut stack = without_data(&device, &path)?;
    checkpoint::load_model(&device, &path, &mut stack)?;
    let naming = match args.names {
        WeightNames::Spsn => Naming::Spsn,
        WeightNames::Paralif => Naming::ParaLif,
    };
    npz::export(&device, &stack, naming, &args.out)?;
    console::line(format_args!("{}: weights of {}", args.out.display(), path.display()))
}

/// The model of a weights file; its sizes come from the file, so that no data is needed.
fn without_data(device: &Cpu, path: &Path) -> Result<Stack<Cpu>> {
    let experiment = Experiment::from_toml(&path.display().to_string(), &checkpoint::experiment_of(path)?)?;
    let last = experiment.model.layers.len();
    let sizes = |layer: usize| match checkpoint::shape_of(path, &format!("{layer}.weight"))?[..] {
        [inputs, outputs] => Ok((inputs, outputs)),
        ref other => {
            anyhow::bail!("{}: layer {layer} has weights {other:?}; only dense models are exported", path.display())
        }
    };
    let ((inputs, _), (_, classes)) = (sizes(0)?, sizes(last)?);
    let signal = Signal::flat(Kind::Spikes, 1, inputs);
    Ok(Stack::build(device, &experiment.model, signal, classes, experiment.train.seed)?)
}
