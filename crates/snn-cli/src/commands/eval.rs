//! `snn eval` and `snn predict`: a trained model on a split.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};
use snn_core::{Backend, Real};
use snn_data::{Loader, LoaderOptions};
use snn_train::interchange::npy;
use snn_train::sparsity::{Census, Sparsity};
use snn_train::trainer::{Evaluation, MeanLogits, RunOptions, Split, Upload, build_model, evaluate_seen};
use snn_train::{Experiment, Stack, checkpoint};

use super::{apply, model_file};
use crate::args::{Changes, Eval, Predict};
use crate::device::on_device;
use crate::{console, usage};

/// A model with its experiment, ready to run.
struct Loaded<B: Backend> {
    experiment: Experiment,
    split: Split,
    stack: Stack<B>,
    path: PathBuf,
}

fn load<B: Backend>(device: &B, args: &Eval) -> Result<Loaded<B>> {
    let run = args.model.join("model.safetensors");
    let model = args.model.display();
    let (path, mut experiment) = match &args.experiment {
        Some(which) if npy::is_folder(&args.model) || !(args.model.is_file() || run.is_file()) => {
            (args.model.clone(), super::experiment(which, &Changes::default())?)
        }
        Some(_) => {
            return Err(usage(format!("--experiment: {model} carries its own experiment, which `--set` can change")));
        }
        None if !run.is_file() && npy::is_folder(&args.model) => {
            return Err(usage(format!("{model}: a folder of weights; say whose layers they are with `--experiment`")));
        }
        None => {
            let path = model_file(&args.model);
            let text = checkpoint::experiment_of(&path)?;
            let experiment = Experiment::from_toml(&path.display().to_string(), &text)?;
            (path, experiment)
        }
    };
    apply(&mut experiment, &args.set)?;
    if let Some(split) = &args.split {
        experiment.data.test.clone_from(split);
    }
    let split = Split::test(&experiment, &RunOptions { data: args.place.open_options(), ..RunOptions::default() })?;
    let mut stack = build_model(device, &experiment, &split)?;
    if args.experiment.is_some() {
        npy::load(device, &path, &mut stack)?.iter().for_each(console::message);
    } else {
        checkpoint::load_model(device, &path, &mut stack)?;
    }
    Ok(Loaded { experiment, split, stack, path })
}

pub(crate) fn run(args: &Eval) -> Result<()> {
    on_device!(args.place.device()?, device => eval(&device, args))
}

fn eval<B: Backend>(device: &B, args: &Eval) -> Result<()> {
    let mut m = load(device, args)?;
    let mut census = Census::new();
    let result = evaluate_seen(device, &mut m.stack, &m.split, &m.experiment.train, |stack, batch, _, _| {
        census.add(device, stack, batch)
    })?;
    let sparsity = census.report(device, &m.stack)?;
    let label = m.split.source.label();
    if args.json {
        let mut line = json!({
            "event": "result",
            "model": m.path.display().to_string(),
            "data": m.split.source.name(),
            "data_label": label,
            "test_accuracy": result.accuracy,
            "test_loss": result.loss,
            "spikes_per_sample": result.spikes_per_sample,
            "spikes_per_layer": result.spikes_per_layer,
            "samples": result.samples,
        });
        if m.stack.is_event_driven() {
            let readings = result.readings.iter().map(|(name, share)| (name.replace(' ', "_"), Value::from(*share)));
            line["infinite_share"] = result.infinite_share.into();
            line["readings"] = readings.collect::<Map<_, _>>().into();
        }
        if let Some(sparsity) = &sparsity {
            line["sparsity"] = serde_json::to_value(sparsity)?;
        }
        return console::json(&line);
    }
    let label = label.map_or(String::new(), |l| format!(" ({l}: not the published data set)"));
    console::line(format_args!(
        "{}{label}: accuracy {:.2} %, loss {:.4}, {:.1} spikes per sample, {} samples",
        m.split.source.name(),
        100.0 * result.accuracy,
        result.loss,
        result.spikes_per_sample,
        result.samples
    ))?;
    if let Some(sparsity) = &sparsity {
        return first_spikes(sparsity);
    }
    if m.stack.is_event_driven() { readings(&m.stack, &result) } else { Ok(()) }
}

/// What there is to say of neurons that spike at most once.
fn first_spikes(s: &Sparsity) -> Result<()> {
    console::line(format_args!(
        "spikes per neuron: {:.3} hidden, {:.3} input, {:.3} both; {:.3} additions per connection; latency {:.4}",
        s.hidden,
        s.input,
        s.with_input,
        s.operations / s.connections,
        s.latency
    ))?;
    for layer in &s.layers {
        let times = match (layer.earliest, layer.mean, layer.latest) {
            (Some(earliest), Some(mean), Some(latest)) => {
                format!("spikes from {earliest:.4} to {latest:.4}, mean {mean:.4}")
            }
            _ => "no spikes".into(),
        };
        let [start, end] = layer.window;
        let early = match layer.early_per_sample {
            0.0 => String::new(),
            early => format!(", {early:.3} per sample before it"),
        };
        console::line(format_args!(
            "{}: {:.3} spikes per neuron, window {start:.4} to {end:.4}, {times}{early}",
            layer.name, layer.spikes_per_neuron
        ))?;
    }
    Ok(())
}

/// What there is to say of a model in continuous time alone.
fn readings<B: Backend>(stack: &Stack<B>, result: &Evaluation) -> Result<()> {
    let shares = result.readings.iter().map(|(name, share)| format!("by {name} {:.2} %", 100.0 * share));
    console::line(format_args!("accuracy {}", shares.collect::<Vec<_>>().join(", ")))?;
    if result.infinite_share > 0.0 {
        let share = 100.0 * result.infinite_share;
        console::line(format_args!("{share:.2} % of the samples have an infinite loss, which the mean leaves out"))?;
    }
    let spiking = stack.layers().enumerate().filter(|(_, layer)| layer.trains().is_some());
    for ((at, layer), spikes) in spiking.zip(&result.spikes_per_layer) {
        console::line(format_args!("layer {at} ({}): {spikes:.3} spikes per sample", layer.name()))?;
    }
    Ok(())
}

pub(crate) fn predict(args: &Predict) -> Result<()> {
    on_device!(args.eval.place.device()?, device => predictions(&device, args))
}

fn predictions<B: Backend>(device: &B, args: &Predict) -> Result<()> {
    let mut m = load(device, &args.eval)?;
    let mut text = BufWriter::new(Vec::new());
    let names = m.split.source.class_names();
    writeln!(text, "sample,label,predicted,correct,confidence,{}", quoted(names))?;
    let mut upload = Upload::new(device, m.split.pipeline.signal());
    let mut passes = MeanLogits::new(device, m.experiment.train.evaluate_draws)?;
    let limit = Some(m.split.len());
    let options = LoaderOptions { batch: m.experiment.train.batch, limit, ..LoaderOptions::default() };
    for batch in Loader::new(m.split.source.clone(), m.split.pipeline.clone(), options)? {
        let batch = batch?;
        let input = upload.batch(device, &batch)?;
        let logits = passes.run(device, &mut m.stack, input, batch.index, |_| Ok(()))?;
        let logits = device.to_host(&logits.values("predict")?.data)?;
        let logits: Vec<f32> = logits.iter().map(|x| x.value() as f32).collect();
        let rows = logits.chunks(logits.len() / batch.labels.len().max(1));
        for ((sample, label), row) in batch.samples.iter().zip(&batch.labels).zip(rows) {
            let predicted = snn_train::losses::argmax(row);
            let confidence = confidence(row, predicted);
            let correct = predicted == *label as usize;
            write!(text, "{sample},{label},{predicted},{correct},{confidence:.6}")?;
            for logit in row {
                write!(text, ",{logit}")?;
            }
            writeln!(text)?;
        }
    }
    let bytes = text.into_inner()?;
    match &args.out {
        Some(path) => Ok(checkpoint::write_atomic(Path::new(path), &bytes)?),
        None => Ok(std::io::stdout().write_all(&bytes)?),
    }
}

/// Class names as CSV fields.
fn quoted(names: &[String]) -> String {
    let fields = names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\"")));
    fields.collect::<Vec<_>>().join(",")
}

/// The softmax share of one logit; equal shares for all if each is minus infinity, as of neurons that never fired.
fn confidence(row: &[f32], of: usize) -> f64 {
    let top = row[of].value();
    if top == f64::NEG_INFINITY {
        return 1.0 / row.len() as f64;
    }
    1.0 / row.iter().map(|x| (x.value() - top).exp()).sum::<f64>()
}
