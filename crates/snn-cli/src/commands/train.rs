//! `snn train`: one experiment from data to a model file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use snn_core::Backend;
use snn_train::trainer::{RunOptions, Summary};

use super::{experiment, model_file, peak_bytes};
use crate::args::Train;
use crate::console::{self, Watch};
use crate::device::on_device;
use crate::usage;

/// The last line of `--json`.
#[derive(Serialize)]
struct ResultLine<'a> {
    event: &'static str,
    name: &'a str,
    test_accuracy: f64,
    test_loss: f64,
    spikes_per_sample: f64,
    seconds: f64,
    epoch_seconds: f64,
    peak_bytes: Option<u64>,
    parameters: usize,
    data_label: Option<&'a str>,
    collapsed: Option<u32>,
    device: String,
    out: String,
}

pub(crate) fn run(args: &Train, quiet: bool) -> Result<()> {
    on_device!(args.place.device()?, device => train(&device, args, quiet))
}

fn train<B: Backend>(device: &B, args: &Train, quiet: bool) -> Result<()> {
    let saved = args.out.as_ref().map(|out| out.join("config.toml"));
    let which = match (&args.experiment, &saved) {
        (Some(which), _) => which.clone(),
        (None, Some(saved)) if saved.is_file() => saved.display().to_string(),
        _ => return Err(usage("--resume: the directory holds no run; name a preset or a configuration file")),
    };
    let experiment = experiment(&which, &args.changes)?;
    let out = match &args.out {
        Some(out) => {
            if !args.resume && holds_run(out) {
                let out = out.display();
                return Err(usage(format!(
                    "--out {out}: holds a run already; add --resume to go on with it, or choose another"
                )));
            }
            out.clone()
        }
        None => free_directory(&experiment.name),
    };
    let mut data = args.place.open_options();
    if args.stream {
        data.memory = 0;
    }
    std::fs::create_dir_all(&out).map_err(|e| anyhow::anyhow!("{}: {e}", out.display()))?;
    let weights = args.from.as_deref().map(model_file);
    let options = RunOptions { data, out: Some(out.clone()), weights, resume: args.resume, log_batches: true };
    let mut watch = Watch::new(quiet || args.json, args.json);
    let summary = snn_train::run(device, &experiment, &options, &mut watch)?;
    watch.finish()?;
    print(&experiment.name, &summary, &out, args.json, device.describe())
}

fn print(name: &str, s: &Summary, out: &Path, json: bool, device: String) -> Result<()> {
    if json {
        return console::json(&ResultLine {
            event: "result",
            name,
            test_accuracy: s.test_accuracy,
            test_loss: s.test_loss,
            spikes_per_sample: s.spikes_per_sample,
            seconds: s.seconds,
            epoch_seconds: s.epoch_seconds,
            peak_bytes: peak_bytes(),
            parameters: s.parameters,
            data_label: s.data_label.as_deref(),
            collapsed: s.collapsed,
            device,
            out: out.display().to_string(),
        });
    }
    let label = s.data_label.as_ref().map_or(String::new(), |l| format!(" on {l}, not the published data set"));
    let (accuracy, spikes) = (100.0 * s.test_accuracy, s.spikes_per_sample);
    console::line(format_args!(
        "test accuracy {accuracy:.2} %{label}, {spikes:.1} spikes per sample, {:.1} s of training",
        s.seconds
    ))?;
    console::line(format_args!("model, log and checkpoints: {}", out.display()))
}

fn holds_run(out: &Path) -> bool {
    out.join("checkpoints/manifest.json").exists() || out.join("model.safetensors").exists()
}

/// `runs/NAME`, or the first of `runs/NAME-2`, `runs/NAME-3`, ... that holds no run.
fn free_directory(name: &str) -> PathBuf {
    let name = if name.is_empty() { "run" } else { name };
    let candidates = std::iter::once(name.to_owned()).chain((2..).map(|i: u32| format!("{name}-{i}")));
    let mut directories = candidates.map(|n| Path::new("runs").join(n));
    directories.find(|d| !d.exists()).unwrap_or_else(|| Path::new("runs").join(name))
}
