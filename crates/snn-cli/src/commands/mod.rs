//! The subcommands, one file each.

mod data;
mod eval;
pub(crate) mod fit_neuron;
mod golden;
mod gpu_check;
mod info;
mod interchange;
mod map;
mod plot;
mod presets;
mod train;

pub(crate) use gpu_check::Part as GpuPart;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::CommandFactory;
use snn_data::OpenOptions;
use snn_train::{Experiment, presets as published};

use crate::args::{Changes, Cli, Command, Place};
use crate::usage;

/// Runs a parsed command line.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let quiet = cli.quiet;
    match cli.command {
        Command::Train(args) => train::run(&args, quiet),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => eval::predict(&args),
        Command::Info(args) => info::run(&args),
        Command::Presets(args) => presets::run(&args),
        Command::Data(args) => data::run(&args, quiet),
        Command::Bench(args) => crate::bench::run(&args, quiet),
        Command::Plot(args) => plot::run(&args),
        Command::Import(args) => interchange::import(&args),
        Command::Export(args) => interchange::export(&args),
        Command::Map(args) => map::run(&args),
        Command::FitNeuron(args) => fit_neuron::run(&args, quiet),
        Command::Reproduce(args) => crate::reproduce::run(&args, quiet),
        Command::Golden(args) => golden::run(&args),
        Command::GpuCheck(args) => gpu_check::run(&args, quiet),
        Command::Completions { shell } => {
            // Written at once: the generator itself panics where a reader has gone.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "snn", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
    }
}

/// The directory of data sets: the argument, `$SNN_DATA_DIR`, or `data`.
pub(crate) fn data_dir(argument: Option<&Path>) -> PathBuf {
    argument
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("SNN_DATA_DIR").filter(|v| !v.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("data"))
}

impl Place {
    /// How data sets are opened.
    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions { data_dir: data_dir(self.data_dir.as_deref()), ..OpenOptions::default() }
    }
}

/// The experiment of that name or file, with changes.
pub(crate) fn experiment(which: &str, changes: &Changes) -> Result<Experiment> {
    let path = Path::new(which);
    let mut experiment = if path.extension().is_some_and(|e| e == "toml") || path.is_file() {
        let text = std::fs::read_to_string(path).map_err(|e| usage(format!("{which}: {e}")))?;
        let mut experiment = Experiment::from_toml(which, &text)?;
        if experiment.name.is_empty() {
            experiment.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        experiment
    } else {
        published::find(which)?.experiment
    };
    apply(&mut experiment, &changes.set)?;
    if let Some(epochs) = changes.epochs {
        experiment.train.epochs = epochs;
    }
    if let Some(seed) = changes.seed {
        experiment.train.seed = seed;
    }
    Ok(experiment)
}

/// The weights file of a run, given by its directory or by itself.
pub(crate) fn model_file(model: &Path) -> PathBuf {
    if model.is_dir() { model.join("model.safetensors") } else { model.to_owned() }
}

/// Applies `--set KEY=VALUE` arguments.
pub(crate) fn apply(experiment: &mut Experiment, set: &[String]) -> Result<()> {
    Ok(set.iter().try_for_each(|s| experiment.set(s))?)
}

/// The most memory that this process has held, if the system tells.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}
