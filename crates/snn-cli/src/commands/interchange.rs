//! `snn import` and `snn export`: weights of other programs.

use std::path::Path;

use anyhow::{Context, Result};
use snn_core::{Kind, Signal};
use snn_cpu::Cpu;
use snn_data::formats::keras as file;
use snn_data::{Encode, OpenOptions};
use snn_train::config::{LayerConfig, ReadoutNeuron};
use snn_train::interchange::npz::{self, Naming};
use snn_train::interchange::{keras, npy};
use snn_train::trainer::{RunOptions, Split, build_model};
use snn_train::{Experiment, Stack, checkpoint};

use super::{data_dir, model_file};
use crate::args::{Export, Import, WeightNames};
use crate::{console, usage};

pub(crate) fn import(args: &Import) -> Result<()> {
    let device = Cpu::new(1)?;
    let experiment = super::experiment(&args.experiment, &args.changes)?;
    experiment.check()?;
    let hdf5 = args.weights.extension().is_some_and(|e| ["h5", "hdf5"].iter().any(|h| e.eq_ignore_ascii_case(h)));
    let of_keras = hdf5 && !args.weights.is_dir();
    if args.keep_missing && !of_keras {
        return Err(usage("--keep-missing: only files of Keras (`.h5`, `.hdf5`) may lack layers"));
    }
    let stack = if of_keras {
        import_keras(&device, args, &experiment)?
    } else if args.weights.is_dir() {
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

/// The model of an experiment with the weights of a Keras file; what does not fit is said line by line.
fn import_keras(device: &Cpu, args: &Import, experiment: &Experiment) -> Result<Stack<Cpu>> {
    let weights = file::read(&args.weights)?;
    let axes = |name: &str| match weights.layer(name)?.weights.first()?.shape[..] {
        [inputs, outputs] => Some([inputs, outputs]),
        _ => None,
    };
    let sizes = || {
        let dense = experiment.model.layers.iter().filter(|l| matches!(l, LayerConfig::Dense { .. })).count();
        let [inputs, _] = axes("dense_1")?;
        let [_, classes] = axes("dense_output").or_else(|| axes(&format!("dense_{}", dense + 1)))?;
        Some((inputs, classes))
    };
    let sizes = of_vectors(experiment).then(sizes).flatten();
    let mut stack = match sizes {
        Some(sizes) => for_vectors(device, experiment, sizes)?,
        None => for_data(device, experiment, args.data_dir.as_deref())?,
    };
    let found = keras::compare(&stack, &weights);
    let missing = found.missing.iter().filter(|_| !args.keep_missing);
    let wrong: Vec<String> = missing.map(|n| format!("{n}: missing")).chain(found.mismatches).collect();
    if !wrong.is_empty() {
        let path = args.weights.display();
        wrong.iter().for_each(|line| console::message(format_args!("{path}: {line}")));
        let more = if found.missing.is_empty() || args.keep_missing {
            ""
        } else {
            "; layers that are missing may keep their initial values with `--keep-missing`"
        };
        let places = if wrong.len() == 1 { "1 place".to_owned() } else { format!("{} places", wrong.len()) };
        anyhow::bail!("{path}: does not fit {} in {places}, see above{more}", experiment.name);
    }
    let report = keras::import(device, &mut stack, &weights, args.keep_missing)?;
    if !report.kept.is_empty() {
        console::message(format_args!("layers that keep their initial values: {}", report.kept.join(", ")));
    }
    if stack.layers().any(|layer| layer.input().kind == Kind::Times) {
        console::message(format_args!("windows are not in such files: they are as long as the experiment says"));
    }
    Ok(stack)
}

/// Whether the sizes of a model on values follow from its weights: there are only dense layers.
fn of_vectors(experiment: &Experiment) -> bool {
    let layers = &experiment.model.layers;
    matches!(experiment.data.encode, Encode::Values { .. })
        && matches!(layers.first(), Some(LayerConfig::Dense { .. }))
        && layers
            .iter()
            .all(|l| matches!(l, LayerConfig::Dense { .. } | LayerConfig::Norm { .. } | LayerConfig::Dropout { .. }))
}

/// The model of dense layers for so many values and classes.
fn for_vectors(device: &Cpu, experiment: &Experiment, (inputs, classes): (usize, usize)) -> Result<Stack<Cpu>> {
    let signal = Signal::flat(Kind::Values, 1, inputs);
    Ok(Stack::build(device, &experiment.model, signal, classes, experiment.train.seed)?)
}

pub(crate) fn export(args: &Export) -> Result<()> {
    let device = Cpu::new(1)?;
    let path = model_file(&args.model);
    let experiment = Experiment::from_toml(&path.display().to_string(), &checkpoint::experiment_of(&path)?)?;
    let event_driven = matches!(experiment.model.readout.neuron, ReadoutNeuron::Event(_));
    if event_driven != (args.names == WeightNames::Bats) {
        let (of, right) = if event_driven {
            ("event-driven", "`--names bats`")
        } else {
            ("other than event-driven", "`--names spsn`, `--names paralif` or `--names keras`")
        };
        return Err(usage(format!("{}: neurons are {of}; export them with {right}", path.display())));
    }
    let maps = args.names == WeightNames::Keras && !of_vectors(&experiment);
    let mut stack = if maps || npy::needs_data(&experiment) {
        for_data(&device, &experiment, args.data_dir.as_deref())?
    } else {
        without_data(&device, &path, &experiment)?
    };
    checkpoint::load_model(&device, &path, &mut stack)?;
    match args.names {
        WeightNames::Spsn => npz::export(&device, &stack, Naming::Spsn, &args.out)?,
        WeightNames::Paralif => npz::export(&device, &stack, Naming::ParaLif, &args.out)?,
        WeightNames::Bats => npy::export(&device, &stack, &args.out)?,
        WeightNames::Keras => file::write(&args.out, &keras::export(&device, &stack)?)?,
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
    if of_vectors(experiment) {
        return for_vectors(device, experiment, (inputs, classes));
    }
    let kind =
        if matches!(experiment.model.readout.neuron, ReadoutNeuron::Event(_)) { Kind::Trains } else { Kind::Spikes };
    let signal = Signal::flat(kind, 1, inputs);
    Ok(Stack::build(device, &experiment.model, signal, classes, experiment.train.seed)?)
}
