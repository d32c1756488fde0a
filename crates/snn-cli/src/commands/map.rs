//! `snn map`: a trained network of rectifiers as one of neurons that spike once, or back.

use anyhow::{Result, bail};
use snn_core::Backend;
use snn_train::config::TtfsConfig;
use snn_train::mapping::{self, Network, RangeRule, TIE};
use snn_train::trainer::{RunOptions, Split, build_model};
use snn_train::{Experiment, Stack, checkpoint};

use super::model_file;
use crate::args::Map;
use crate::device::on_device;
use crate::{console, usage};

/// Samples that run together, at least: nothing is learned here.
const BATCH: usize = 128;

/// A network with its experiment.
struct Net<B: Backend> {
    experiment: Experiment,
    network: Network,
    stack: Stack<B>,
    test: Split,
}

pub(crate) fn run(args: &Map) -> Result<()> {
    on_device!(args.place.device()?, device => map(&device, args))
}

fn map<B: Backend>(device: &B, args: &Map) -> Result<()> {
    let options = RunOptions { data: args.place.open_options(), ..RunOptions::default() };
    let mut source = load(device, args, &options)?;
    if args.out.join("model.safetensors").exists() {
        let out = args.out.display();
        return Err(usage(format!("--out {out}: holds a model already; choose another directory")));
    }
    let mut mapped = if args.back { back(device, &source, &options)? } else { there(device, &source, args, &options)? };
    let (from, to) = ((&mut source.stack, &source.test), (&mut mapped.stack, &mapped.test));
    let found = mapping::compare(device, from, to, source.experiment.train.batch.max(BATCH))?;
    let percent = |correct: usize| 100.0 * correct as f64 / found.samples.max(1) as f64;
    console::line(format_args!(
        "test accuracy {:.2} % before, {:.2} % after; outputs differ by at most {:.2e} ({:.1e} of the largest)",
        percent(found.correct),
        percent(found.others_correct),
        found.difference,
        found.difference / found.largest.max(f64::MIN_POSITIVE)
    ))?;
    console::line(format_args!(
        "the same class for {} of {} samples whose two best outputs differ by more than {TIE:.0e}, of {}",
        found.same, found.clear, found.samples
    ))?;
    if !args.limited && found.same < found.clear {
        bail!("the networks do not agree: that is a mistake in the mapping, please report it; nothing was written");
    }
    std::fs::create_dir_all(&args.out).map_err(|e| anyhow::anyhow!("{}: {e}", args.out.display()))?;
    let text = mapped.experiment.to_toml();
    checkpoint::write_atomic(&args.out.join("config.toml"), text.as_bytes())?;
    checkpoint::save_model(device, &args.out.join("model.safetensors"), &mapped.stack, &text)?;
    console::line(format_args!("model and configuration: {}", args.out.display()))
}

fn load<B: Backend>(device: &B, args: &Map, options: &RunOptions) -> Result<Net<B>> {
    let path = model_file(&args.model);
    let text = checkpoint::experiment_of(&path)?;
    let experiment = Experiment::from_toml(&path.display().to_string(), &text)?;
    let test = Split::test(&experiment, options)?;
    let mut stack = build_model(device, &experiment, &test)?;
    checkpoint::load_model(device, &path, &mut stack)?;
    let network = Network::of(device, &experiment.model, &stack)?;
    Ok(Net { experiment, network, stack, test })
}

/// The stack of a network, and the test samples of its experiment.
fn open<B: Backend>(device: &B, experiment: Experiment, network: Network, options: &RunOptions) -> Result<Net<B>> {
    let test = Split::test(&experiment, options)?;
    let stack = network.build(device)?;
    Ok(Net { experiment, network, stack, test })
}

fn there<B: Backend>(device: &B, source: &Net<B>, args: &Map, options: &RunOptions) -> Result<Net<B>> {
    let neuron = TtfsConfig {
        limited: args.limited,
        margin: if args.limited { 0.0 } else { 0.5 },
        growth: if args.limited { 0.0 } else { 10.0 },
        ..TtfsConfig::default()
    };
    let range = args.range.as_deref().and_then(|range| Some((*range.first()?, *range.get(1)?)));
    let (mut experiment, mut network) =
        mapping::spiking_experiment(&source.experiment, &source.network, range, &neuron)?;
    let rule = args.quantile.map_or(RangeRule::Largest, RangeRule::Quantile);
    let batch = experiment.train.batch.max(BATCH);
    let own = experiment.data.train_samples;
    if args.samples > 0 {
        experiment.data.train_samples = args.samples;
    }
    let (ranges, _) = mapping::fit_windows(device, &mut experiment, &mut network, options, batch, rule)?;
    experiment.data.train_samples = own;
    let list = ranges.iter().map(|x| format!("{x:.3}")).collect::<Vec<_>>().join(", ");
    console::line(format_args!("activations that windows are made for: {list}"))?;
    open(device, experiment, network, options)
}

fn back<B: Backend>(device: &B, source: &Net<B>, options: &RunOptions) -> Result<Net<B>> {
    let network = mapping::to_rectifiers(&source.network)?;
    let mut experiment = source.experiment.clone();
    experiment.name = format!("{}-relu", experiment.name);
    experiment.model = network.model.clone();
    open(device, experiment, network, options)
}
