//! The command line: what can be typed, and what it means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::report::Profile;

/// Train, evaluate, benchmark and reproduce spiking neural networks.
#[derive(Debug, Parser)]
#[command(name = "snn", version, max_term_width = 110, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print results only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a preset or a configuration file.
    Train(Train),
    /// Test a trained model.
    #[command(after_help = EVAL_HELP)]
    Eval(Eval),
    /// Write a trained model's prediction for every sample of a split.
    Predict(Predict),
    /// Show layers, shapes, parameters and memory of an experiment before running it.
    Info(Info),
    /// List all presets with the published row that each stands for.
    Presets(Presets),
    /// List, download, convert and describe data sets.
    #[command(subcommand)]
    Data(Data),
    /// Time the hot operations, or a layer against a peer.
    Bench(BenchArgs),
    /// Draw the course of one or several runs.
    Plot(Plot),
    /// Make a model of weights that another program trained.
    Import(Import),
    /// Write a model's weights for another program.
    Export(Export),
    /// Make a network of neurons that spike once of a trained network of rectifiers, or the other way round.
    Map(Map),
    /// Fit adaptive neurons to recorded cells, all in one batch.
    #[command(after_help = FIT_HELP)]
    FitNeuron(FitNeuron),
    /// Compute a figure or table of a paper.
    Reproduce(Reproduce),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Run golden cases on the reference and on every backend.
    #[command(hide = true)]
    Golden(Golden),
    /// Check and measure a GPU: every operation against the reference, the golden files and the processor, then speed.
    GpuCheck(GpuCheck),
}

/// What else `snn eval` can do.
const EVAL_HELP: &str = r#"The output spikes of event-driven neurons can be read in any way, whatever the model was trained for:
  snn eval RUN --set 'model.readout.neuron.read={kind="first-spike",tau=0.005}' --set 'train.loss={kind="cross-entropy"}'
  snn eval RUN --set 'model.readout.neuron.read={kind="count"}' --set 'train.loss={kind="targets",on=15,off=3}'
  snn eval RUN --set 'model.readout.neuron.read={kind="decay",rate=1}' --set 'train.loss={kind="targets",on=15,off=3}'
Weights that another program trained, in a folder of `*_weights.npy`:
  snn eval FOLDER --experiment bats-count-count"#;

/// How cells are named, and what can be set.
const FIT_HELP: &str = r#"Cells:
  snn fit-neuron --synthetic 4 --out fits/synthetic            neurons whose parameters are known, generated first
  snn fit-neuron 488359338 485931158 --out fits/mouse          specimens that `snn data download allen-cells` fetched
  snn fit-neuron recordings/ my-cell.nwb other.npz --out fits  folders of recordings, NWB 1.x files, arrays i, v, s, fs
Settings, with `--set KEY=VALUE`: dt_ms, refractory_ms, field, tau_ms, first_tau_ms, match_rates, epochs, patience,
learning_rate, relative_steps, final_share, starts, seed, gradient (steps, blocks), wide_limits; protocol.fit,
protocol.test (names of stimuli), protocol.trials (first, all), protocol.scale (fit, each), protocol.seconds."#;

/// Where data is, and on what the work runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Directory of data sets [default: $SNN_DATA_DIR, or `data`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Device: `cpu`, or `cuda[:N]` for an NVIDIA GPU; `cuda[:N],tf32` computes dense products less exactly.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads; 0 takes one per core. Results do not depend on it.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Changes {
    /// Change a value, for example `train.batch=64` or `model.layers.0.width=300`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Epochs to train.
    #[arg(long)]
    pub(crate) epochs: Option<u32>,
    /// Seed of weights, order and augmentation.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// A preset (see `snn presets`) or a configuration file; with `--resume` the one in `--out` by default.
    #[arg(value_name = "PRESET|FILE", required_unless_present = "resume")]
    pub(crate) experiment: Option<String>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Directory of the result, logs and checkpoints [default: `runs/NAME`, the next free one].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Begin with the weights of a run whose layers are the same: its directory, or a `model.safetensors`. To fine-tune a
    /// mapped network, say; without it weights are drawn from the seed.
    #[arg(long, value_name = "RUN")]
    pub(crate) from: Option<PathBuf>,
    /// Go on from the last checkpoint in `--out`.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Read samples from disk in every epoch, however small the set is.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Print one JSON object per line; the last one holds the result.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The weights: an npz archive with the names of the SPSN or the ParaLIF repository, a folder of `*_weights.npy` as
    /// BATS writes them, or an HDF5 file (`.h5`, `.hdf5`) of Keras.
    pub(crate) weights: PathBuf,
    /// The preset or configuration file whose layers the weights belong to.
    #[arg(long = "as", value_name = "PRESET|FILE")]
    pub(crate) experiment: String,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// The directory that receives `model.safetensors` and `config.toml`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Let layers that a file of Keras does not have keep their initial values.
    #[arg(long)]
    pub(crate) keep_missing: bool,
    /// Directory of data sets, which say how large the maps of a convolutional model are [default: $SNN_DATA_DIR, or
    /// `data`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The model: `model.safetensors` of a run, or the run's directory.
    pub(crate) model: PathBuf,
    /// The npz archive to write, the HDF5 file for `--names keras`, or the folder for `--names bats`.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) out: PathBuf,
    /// Whose names the arrays get.
    #[arg(long, value_enum, default_value_t = WeightNames::Paralif)]
    pub(crate) names: WeightNames,
    /// Directory of data sets, which say how large the maps of a convolutional model are [default: $SNN_DATA_DIR, or
    /// `data`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A run that is mapped, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Map {
    /// The trained network: `model.safetensors` of a run, or the run's directory.
    pub(crate) model: PathBuf,
    /// The directory that receives `model.safetensors` and `config.toml`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// From spikes to rectifiers.
    #[arg(long, conflicts_with_all = ["range", "quantile", "limited"])]
    pub(crate) back: bool,
    /// Inputs between which spike times of inputs lie [default: 0 1, or -3 3 if inputs are standardised].
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"], allow_negative_numbers = true)]
    pub(crate) range: Option<Vec<f64>>,
    /// Make windows for this quantile of the activations in place of the largest.
    #[arg(long, value_name = "SHARE")]
    pub(crate) quantile: Option<f64>,
    /// Neurons that would fire before their window fire at its start, and windows stay as they are.
    #[arg(long)]
    pub(crate) limited: bool,
    /// Make windows for the first so many training samples only; 0 for all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) samples: usize,
    /// Where data is.
    #[command(flatten)]
    pub(crate) place: Place,
}

/// The naming of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightNames {
    /// `k.fc.weight`, as the SPSN repository.
    Spsn,
    /// `2k.weight`, as the ParaLIF repository.
    Paralif,
    /// A folder of `Hidden layer 1_weights.npy` and so on, as BATS; for event-driven neurons.
    Bats,
    /// An HDF5 file with `conv2d_1`, `dense_1` and so on, as Keras; for rectifiers and neurons that spike once.
    Keras,
}

#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// The model: `model.safetensors` of a run, or the run's directory; with `--experiment` a folder of
    /// `*_weights.npy`.
    pub(crate) model: PathBuf,
    /// The preset or configuration file whose layers a folder of `*_weights.npy` belongs to.
    #[arg(long, value_name = "PRESET|FILE")]
    pub(crate) experiment: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Change a value of the model's experiment, for example `data.set=shd`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The split.
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Predict {
    #[command(flatten)]
    pub(crate) eval: Eval,
    /// The file to write, as CSV [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A preset (see `snn presets`) or a configuration file.
    #[arg(value_name = "PRESET|FILE", required_unless_present = "devices")]
    pub(crate) experiment: Option<String>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// List the devices that `--device` can name here, and what is missing for others.
    #[arg(long, conflicts_with = "experiment")]
    pub(crate) devices: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    /// State the memory of `snn train --stream`.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Presets {
    /// Only names that contain this.
    pub(crate) filter: Option<String>,
    /// Print one preset's configuration, ready to be edited.
    #[arg(long, value_name = "NAME", conflicts_with = "filter")]
    pub(crate) show: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// List data sets: published and generated.
    List,
    /// Download and verify data sets.
    Download(Download),
    /// Convert downloaded data sets to HDF5.
    Convert(Names),
    /// Say what is there of data sets.
    Info(Names),
    /// Write a generated set to a converted file, at any size.
    Generate(Generate),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Names {
    /// Data sets.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Directory of data sets [default: $SNN_DATA_DIR, or `data`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    #[command(flatten)]
    pub(crate) names: Names,
    /// A directory or an address that holds the files under their published names; of weights also the file itself.
    #[arg(long, visible_alias = "from", value_name = "DIR|URL|FILE")]
    pub(crate) mirror: Option<String>,
    /// Use only what is there already.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Accept a subset or look-alike; its results then carry its label.
    #[arg(long)]
    pub(crate) accept_nonstandard: bool,
    /// Of recordings: the specimens, or `published` for all that the published rule takes [default: a short list].
    #[arg(long, value_name = "ID,ID,...|published", value_parser = wanted_cells)]
    pub(crate) cells: Option<snn_data::ephys::allen::Wanted>,
}

fn wanted_cells(text: &str) -> Result<snn_data::ephys::allen::Wanted, String> {
    use snn_data::ephys::allen::{Selection, Wanted};
    if text == "published" {
        return Ok(Wanted::Selected(Selection::default()));
    }
    let id = |part: &str| part.trim().parse().map_err(|_| format!("`{part}` is no number of a specimen"));
    text.split(',').map(id).collect::<Result<_, _>>().map(Wanted::Listed)
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The generated set (see `snn data list`).
    pub(crate) name: String,
    /// The split.
    #[arg(long, default_value = "train")]
    pub(crate) split: String,
    /// Samples; of `allen-sim` neurons.
    #[arg(long)]
    pub(crate) samples: Option<usize>,
    /// Seed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The file to write; of `allen-sim` the folder.
    #[arg(long, value_name = "FILE.h5|DIR")]
    pub(crate) out: PathBuf,
    /// Write the variable-length layout of SHD instead of the project's own.
    #[arg(long)]
    pub(crate) vlen: bool,
}

/// Which cells to fit, and how.
#[derive(Debug, Args)]
pub(crate) struct FitNeuron {
    /// Files, folders of recordings, or numbers of downloaded specimens.
    #[arg(value_name = "CELL")]
    pub(crate) cells: Vec<String>,
    /// Also so many generated cells; they go to `sessions` in the result.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) synthetic: usize,
    /// Seed of the generated cells and of the starting points.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The published protocol in place of ours.
    #[arg(long)]
    pub(crate) published: bool,
    /// Detect spikes in the voltage even where a file has them.
    #[arg(long)]
    pub(crate) detect: bool,
    /// Change a setting, for example `refractory_ms=4`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Directory of the result.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// What to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchWhat {
    /// Every hot operation at a small, a typical and a large size.
    Ops,
    /// A whole layer: projection and neurons, forward and backward.
    Layer,
    /// Event-driven training of the published network, per image.
    Events,
    /// Training steps of whole single-spike networks: 784-340-10 and VGG16.
    Networks,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to time.
    #[arg(default_value = "ops")]
    pub(crate) what: BenchWhat,
    /// Directory of data sets, for `events`: on MNIST if it is there, on generated digits otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// Neuron models of the layer, comma separated.
    #[arg(long, value_delimiter = ',', default_value = "block,single")]
    pub(crate) model: Vec<crate::bench::LayerModel>,
    /// Batch sizes, comma separated [default: 64; 8 of `networks`].
    #[arg(long, value_delimiter = ',')]
    pub(crate) batch: Vec<usize>,
    /// Time steps, comma separated.
    #[arg(long, value_delimiter = ',', default_value = "128")]
    pub(crate) steps: Vec<usize>,
    /// Inputs of the layer.
    #[arg(long, default_value_t = 1000)]
    pub(crate) n_in: usize,
    /// Neurons, comma separated.
    #[arg(long, value_delimiter = ',', default_value = "100")]
    pub(crate) n: Vec<usize>,
    /// Equal layers, one on top of the other.
    #[arg(long, default_value_t = 1)]
    pub(crate) layers: usize,
    /// Refractory periods of `alif-*` models in steps, comma separated.
    #[arg(long, value_delimiter = ',', default_value = "40")]
    pub(crate) refractory: Vec<u32>,
    /// Leave the recurrent connections of `alif-*` models out.
    #[arg(long)]
    pub(crate) feed_forward: bool,
    /// Leave the backward pass out.
    #[arg(long)]
    pub(crate) forward_only: bool,
    /// Share of active inputs; without it the published synthetic spikes, U(0, 200) events per sequence and input. A fifth
    /// for the dense network of `networks`, as MNIST has it.
    #[arg(long)]
    pub(crate) density: Option<f64>,
    /// Timings per cell, at least; one more comes first and is dropped.
    #[arg(long, default_value_t = 10)]
    pub(crate) repeats: usize,
    /// Peers to time in the same run, comma separated (names of the peer script; `auto` for the model's own).
    #[arg(long, value_delimiter = ',')]
    pub(crate) peer: Vec<String>,
    /// A Python with torch, for the peers.
    #[arg(long, value_name = "PYTHON")]
    pub(crate) peer_python: Option<PathBuf>,
    /// Device: `cpu`, or `cuda[:N]` for an NVIDIA GPU; `cuda[:N],tf32` computes dense products less exactly.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads; 0 takes one per core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Let the peers' time loops slice the current at every step, as the published code does.
    #[arg(long, requires = "peer_python")]
    pub(crate) sliced: bool,
    /// Only operations or networks whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Print one JSON object per line, or write everything to FILE as JSON and print tables.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) json: Option<Option<PathBuf>>,
    /// Compare with an earlier run's `--json FILE`.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Plot {
    /// Directories of runs.
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Where to write pictures and their numbers [default: the first run, and each run for what is its own].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Reproduce {
    /// What: see `--list`.
    #[arg(required_unless_present = "list")]
    pub(crate) target: Option<String>,
    /// List the targets.
    #[arg(long)]
    pub(crate) list: bool,
    /// How much: minutes, tens of minutes, or the published protocol.
    #[arg(long, default_value = "smoke")]
    pub(crate) profile: Profile,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Directory of results.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) out: PathBuf,
    /// A Python with torch, to time the peers in the same run (figure3, paralif-time, blocks-speed, blocks-libraries).
    #[arg(long, value_name = "PYTHON")]
    pub(crate) peer_python: Option<PathBuf>,
    /// Data sets to use, comma separated [default: all that are present, or built-in ones].
    #[arg(long, value_delimiter = ',')]
    pub(crate) sets: Vec<String>,
    /// Also train under the noise of each test (paralif-robustness).
    #[arg(long)]
    pub(crate) train_noise: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GpuCheck {
    /// The GPU, by its number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) gpu: usize,
    /// Only some parts, comma separated [default: all].
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub(crate) only: Vec<crate::commands::GpuPart>,
    /// Folder of golden cases [default: the project's copy].
    #[arg(long, value_name = "DIR")]
    pub(crate) golden: Option<PathBuf>,
    /// A Python with torch, for the peers that `layers` are timed against.
    #[arg(long, value_name = "PYTHON")]
    pub(crate) peer_python: Option<PathBuf>,
    /// Small sizes: whether everything runs, not how fast.
    #[arg(long)]
    pub(crate) small: bool,
    /// Write everything to FILE as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Golden {
    /// The system, a folder's name; all of them without one.
    pub(crate) system: Option<String>,
    /// Folder of systems, or the system's own [default: the project's copy].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Directory of data sets, for cases that need one.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The GPU, by its number; without one its runs are skipped, or fail where SNN_REQUIRE_CUDA is 1.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) gpu: usize,
}
