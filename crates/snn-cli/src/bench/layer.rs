//! A whole layer with the published protocol: affine map and neurons, forward, and backward of the sum of spikes.
//!
//! * Input: synthetic spikes, a fresh batch for every timing, made outside of it.
//! * Weights uniform within the root of 1 / inputs, bias 0, one learnable decay of 0.9 per neuron, surrogate scale 10.
//! * Backward: gradients of weights, bias and decays; none of the input (but between layers, where there are several).
//!   The incoming gradient, all ones, is set up outside the timing.
//! * The first of `repeats + 1` batches is dropped; what is reported are medians.
//!
//! `block`, `single`, `multi`, `cuba` and `paralif` are the layers that training uses; the last two with fixed time
//! constants, `paralif` with a learned threshold. `block-convolution` and `single-stepwise` run the
//! algorithms of [`snn_cpu::published`] after dense products, as the publication timed them.
//!
//! # The floor
//!
//! A time that no implementation of the linear-time algorithm on this machine should be able to beat, from the limits
//! measured in the same run with all threads of the device. With B samples, T steps, M inputs, N neurons and E input
//! events in the batch:
//!
//! ```text
//! dense   = 2 * (2 B T M N) operations / multiply-add peak        current, weight gradient
//! sparse  = 2 * (E N) elements / row-add rate                     current, weight gradient
//! scans   = (8 + 12) B T N bytes / copy bandwidth                 forward:  current read, membrane written
//!                                                                 backward: membrane read, gradient read and written
//! floor   = min(dense, sparse) + scans
//! ```
//!
//! Not counted: reading and writing of currents and gradients by the products, row lists, everything of size `[B, N]`.
//! Where all arrays stay in cache, `scans` is too long, because copy bandwidth is that of main memory; a share of the
//! floor above 1 is then possible.

use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use snn_core::backend::{Gemm, LinAlg, Memory};
use snn_core::neurons::block::BlockNeuron;
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::{Activity, Kind, Lanes, Layer, Pass, Signal, Spikes, Tensor};
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;
use snn_cpu::published::{
    ConvolutionTape, StepwiseTape, convolution_backward, convolution_forward, stepwise_backward, stepwise_forward,
};
use snn_data::synth::poisson::{Rate, poisson_spikes};
use snn_train::config::{CubaConfig, FilterConfig, Init, ParaLifConfig, PerNeuron, RecurrentConfig};
use snn_train::layers::block::BlockCell;
use snn_train::layers::cuba::CubaCell;
use snn_train::layers::decay::Decay;
use snn_train::layers::dense::Dense;
use snn_train::layers::lif::LifCell;
use snn_train::layers::paralif::ParaLifCell;
use snn_train::layers::{Cell, Clocked, Projection};

use super::peer::{PeerCell, PeerTime, Peers};
use super::timing::{self, median};
use crate::args::BenchArgs;
use crate::console;
use crate::report::{Cell as TableCell, Column, Table};

/// Decay per step at the start.
const BETA: f64 = 0.9;

/// Expected events of an input per sequence are drawn from 0 to this; the published generator.
const RATE: f64 = 200.0;

/// What the neurons of a layer are, and how they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LayerModel {
    /// The block model, one fused pass per direction.
    Block,
    /// The sequential single-spike neuron, one fused pass per direction.
    Single,
    /// The sequential multi-spike neuron, one fused pass per direction.
    Multi,
    /// The block model as published: dense products and two convolutions over all steps.
    BlockConvolution,
    /// The single-spike neuron as published: dense products and one operation per line and time step.
    SingleStepwise,
    /// The sequential baseline of ParaLIF, one fused pass per direction.
    Cuba,
    /// ParaLIF-T, one fused pass per direction.
    ParalifT,
    /// ParaLIF-D, one fused pass per direction.
    ParalifD,
    /// SPSN-SB, one fused pass per direction, random numbers drawn in it.
    ParalifSb,
    /// SPSN-GS, one fused pass per direction, random numbers drawn in it.
    ParalifGs,
    /// ParaLIF-T with its recurrent connection: two passes and a product.
    ParalifTRecurrent,
}

impl LayerModel {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Single => "single",
            Self::Multi => "multi",
            Self::BlockConvolution => "block-convolution",
            Self::SingleStepwise => "single-stepwise",
            Self::Cuba => "cuba",
            Self::ParalifT => "paralif-t",
            Self::ParalifD => "paralif-d",
            Self::ParalifSb => "paralif-sb",
            Self::ParalifGs => "paralif-gs",
            Self::ParalifTRecurrent => "paralif-t-recurrent",
        }
    }

    /// The peer that computes the same.
    pub(crate) fn peer(self) -> &'static str {
        match self {
            Self::Block | Self::BlockConvolution => "block",
            Self::Single | Self::SingleStepwise => "single",
            Self::Multi => "multi",
            Self::Cuba => "lif",
            Self::ParalifT => "paralif-t",
            Self::ParalifD => "paralif-d",
            Self::ParalifSb => "spsn-sb",
            Self::ParalifGs => "spsn-gs",
            Self::ParalifTRecurrent => "paralif-t-recurrent",
        }
    }

    /// Whether this is an algorithm as published, kept for comparison only.
    pub(crate) fn as_published(self) -> bool {
        matches!(self, Self::BlockConvolution | Self::SingleStepwise)
    }
}

/// What is timed: one or several equal layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerCell {
    /// Neurons.
    pub(crate) model: LayerModel,
    /// Samples.
    pub(crate) batch: usize,
    /// Time steps.
    pub(crate) steps: usize,
    /// Inputs of the first layer.
    pub(crate) n_in: usize,
    /// Neurons of each layer.
    pub(crate) n: usize,
    /// Layers.
    pub(crate) layers: usize,
    /// Share of active inputs; the published rates without one.
    pub(crate) density: Option<f64>,
    /// Timings; one more comes first and is dropped.
    pub(crate) repeats: usize,
    /// Seed of weights and inputs.
    pub(crate) seed: u64,
    /// Time constants of `cuba` and `paralif` in steps; 20 without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tau: Option<f64>,
    /// Whether the backward pass is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forward_only: bool,
}

impl LayerCell {
    /// The filters of the models that have them.
    fn filter(&self) -> FilterConfig {
        let given = self.tau.map(PerNeuron::Shared);
        let own = FilterConfig::default();
        FilterConfig { tau_mem: given.clone().unwrap_or(own.tau_mem), tau_syn: given.or(own.tau_syn), ..own }
    }

    /// The neurons of layer `index`.
    fn neurons(&self, cpu: &Cpu, index: usize) -> Result<Box<dyn Cell<Cpu>>> {
        let decay = || Decay::new(cpu, self.n, BETA, false, true);
        let lif = |kind| Ok::<_, anyhow::Error>(LifCell::new(LifNeuron::new(kind), decay()?));
        let seed = (self.seed, index);
        let paralif = |mode: &str, recurrent| {
            let config = ParaLifConfig { mode: mode.into(), recurrent, filter: self.filter(), ..Default::default() };
            ParaLifCell::new(cpu, &config, self.n, seed)
        };
        Ok(match self.model {
            LayerModel::Block | LayerModel::BlockConvolution => {
                Box::new(BlockCell::new(BlockNeuron::default(), decay()?))
            }
            LayerModel::Single | LayerModel::SingleStepwise => Box::new(lif(LifKind::Single { mask: Path::Attached })?),
            LayerModel::Multi => Box::new(lif(LifKind::Multi { reset: Path::Attached })?),
            LayerModel::Cuba => {
                let config = CubaConfig { filter: self.filter(), ..CubaConfig::default() };
                Box::new(CubaCell::new(cpu, &config, self.n, seed)?)
            }
            LayerModel::ParalifT => Box::new(paralif("T", RecurrentConfig::None)?),
            LayerModel::ParalifD => Box::new(paralif("D", RecurrentConfig::None)?),
            LayerModel::ParalifSb => Box::new(paralif("SB", RecurrentConfig::None)?),
            LayerModel::ParalifGs => Box::new(paralif("GS", RecurrentConfig::None)?),
            LayerModel::ParalifTRecurrent => Box::new(paralif("T", RecurrentConfig::Spike)?),
        })
    }
}

/// What it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerTime {
    /// Seconds of every forward pass.
    pub(crate) forward: Vec<f64>,
    /// Seconds of every backward pass.
    pub(crate) backward: Vec<f64>,
    /// Mean input events of a batch.
    pub(crate) events: f64,
    /// Mean of the last output, spikes per neuron and step: equal models must agree.
    pub(crate) output_mean: f64,
}

impl LayerTime {
    /// Median of the forward pass.
    pub(crate) fn forward_s(&self) -> f64 {
        median(&self.forward)
    }

    /// Median of the backward pass.
    pub(crate) fn backward_s(&self) -> f64 {
        median(&self.backward)
    }

    /// Medians of both, added.
    pub(crate) fn total_s(&self) -> f64 {
        self.forward_s() + self.backward_s()
    }
}

/// Times a cell.
///
/// # Errors
///
/// If the device fails, most likely for want of memory.
pub(crate) fn time_layer(cpu: &Cpu, cell: &LayerCell) -> Result<LayerTime> {
    let mut network: Box<dyn Timed> =
        if cell.model.as_published() { Box::new(Published::new(cpu, cell)?) } else { Box::new(Fused::new(cpu, cell)?) };
    let rate = cell.density.map_or(Rate::UpTo(RATE), Rate::Density);
    let mut time = LayerTime { forward: Vec::new(), backward: Vec::new(), events: 0.0, output_mean: 0.0 };
    for i in 0..=cell.repeats {
        let input = poisson_spikes(cell.batch, cell.steps, cell.n_in, rate, (cell.seed << 32) + i as u64);
        let events = input.events() as f64;
        network.load(cpu, input)?;
        let start = Instant::now();
        network.forward(cpu)?;
        let forward = start.elapsed().as_secs_f64();
        network.prepare_backward(cpu)?;
        let start = Instant::now();
        if !cell.forward_only {
            network.backward(cpu)?;
        }
        let backward = if cell.forward_only { 0.0 } else { start.elapsed().as_secs_f64() };
        if i > 0 {
            time.forward.push(forward);
            time.backward.push(backward);
            time.events += events / cell.repeats as f64;
        }
    }
    time.output_mean = network.output_events() / (cell.batch * cell.steps * cell.n) as f64;
    Ok(time)
}

/// A network whose passes are timed.
trait Timed {
    fn load(&mut self, cpu: &Cpu, input: Spikes) -> Result<()>;
    fn forward(&mut self, cpu: &Cpu) -> Result<()>;
    fn prepare_backward(&mut self, cpu: &Cpu) -> Result<()>;
    fn backward(&mut self, cpu: &Cpu) -> Result<()>;
    fn output_events(&self) -> f64;
}

fn projections(cpu: &Cpu, cell: &LayerCell) -> Result<Vec<Dense<Cpu>>> {
    let sizes = std::iter::once(cell.n_in).chain(std::iter::repeat(cell.n)).take(cell.layers);
    let dense =
        sizes.enumerate().map(|(i, inputs)| Dense::new(cpu, inputs, cell.n, Init::FanIn { gain: 1.0 }, (cell.seed, i)));
    Ok(dense.collect::<snn_core::Result<_>>()?)
}

/// The layers of training.
struct Fused {
    lanes: Lanes,
    layers: Vec<Clocked<Cpu>>,
    input: Activity<Cpu>,
    // The gradient on each layer's output.
    grads: Vec<Tensor<Cpu>>,
}

impl Fused {
    fn new(cpu: &Cpu, cell: &LayerCell) -> Result<Self> {
        let mut layers = Vec::new();
        let mut grads = Vec::new();
        let mut input = Signal::flat(Kind::Spikes, cell.steps, cell.n_in);
        for dense in projections(cpu, cell)? {
            let output = Signal::flat(Kind::Spikes, cell.steps, cell.n);
            let neurons = cell.neurons(cpu, layers.len())?;
            layers.push(Clocked::new(cpu, input, output, Box::new(dense), neurons, false)?);
            grads.push(Tensor::zeros(cpu, &[cell.batch, cell.steps, cell.n])?);
            input = output;
        }
        let lanes = Lanes::new(cell.batch, cell.steps, cell.n);
        Ok(Self { lanes, layers, input: Activity::Spikes(Spikes::new()), grads })
    }
}

impl Timed for Fused {
    fn load(&mut self, _: &Cpu, input: Spikes) -> Result<()> {
        self.input = Activity::Spikes(input);
        Ok(())
    }

    fn forward(&mut self, cpu: &Cpu) -> Result<()> {
        for i in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(i);
            let input = before.last().map_or(&self.input, Layer::output);
            rest[0].forward(cpu, input, Pass::train(0))?;
        }
        Ok(cpu.synchronise()?)
    }

    fn prepare_backward(&mut self, cpu: &Cpu) -> Result<()> {
        if let Some(grad) = self.grads.last_mut() {
            cpu.fill(&mut grad.data, 1.0)?;
        }
        Ok(())
    }

    fn backward(&mut self, cpu: &Cpu) -> Result<()> {
        for i in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (earlier, grad) = self.grads.split_at_mut(i);
            let input = before.last().map_or(&self.input, Layer::output);
            rest[0].backward(cpu, input, &mut grad[0], earlier.last_mut())?;
        }
        Ok(cpu.synchronise()?)
    }

    fn output_events(&self) -> f64 {
        let output = self.layers.last().and_then(|l| l.spikes());
        output.map_or(0.0, |s| s.density() * self.lanes.len() as f64)
    }
}

/// Dense products and the published neuron algorithms.
struct Published {
    stepwise: bool,
    lanes: Lanes,
    beta: Vec<f32>,
    layers: Vec<PublishedLayer>,
    input: Vec<f32>,
    grad: Vec<f32>,
}

struct PublishedLayer {
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    // Gradients: weight, bias, decay.
    grads: [Vec<f32>; 3],
    current: Vec<f32>,
    spikes: Vec<f32>,
    stepwise: StepwiseTape,
    convolution: ConvolutionTape,
}

impl Published {
    fn new(cpu: &Cpu, cell: &LayerCell) -> Result<Self> {
        let lanes = Lanes::new(cell.batch, cell.steps, cell.n);
        let mut layers = Vec::new();
        for (i, dense) in projections(cpu, cell)?.iter().enumerate() {
            let pair: [_; 2] = dense.parameters().try_into().expect("a fresh projection has a weight and a bias");
            let [weight, bias] = pair.map(|p| p.value.data.clone());
            layers.push(PublishedLayer {
                inputs: if i == 0 { cell.n_in } else { cell.n },
                grads: [vec![0.0; weight.len()], vec![0.0; cell.n], vec![0.0; cell.n]],
                weight,
                bias,
                current: cpu.zeros(lanes.len())?,
                spikes: Vec::new(),
                stepwise: StepwiseTape::default(),
                convolution: ConvolutionTape::default(),
            });
        }
        let stepwise = cell.model == LayerModel::SingleStepwise;
        Ok(Self {
            stepwise,
            lanes,
            beta: vec![BETA as f32; cell.n],
            layers,
            input: Vec::new(),
            grad: cpu.zeros(lanes.len())?,
        })
    }
}

/// Surrogate scale of the published models.
const SCALE: f32 = 10.0;

impl Timed for Published {
    fn load(&mut self, _: &Cpu, input: Spikes) -> Result<()> {
        self.input = input.to_dense();
        Ok(())
    }

    fn forward(&mut self, cpu: &Cpu) -> Result<()> {
        let (lanes, beta) = (self.lanes, &self.beta);
        for i in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (input, layer) = (before.last().map_or(&self.input, |l| &l.spikes), &mut rest[0]);
            let gemm = Gemm::new(lanes.rows(), lanes.width, layer.inputs);
            cpu.gemm(gemm, input, &layer.weight, &mut layer.current)?;
            cpu.add_bias(lanes.rows(), &layer.bias, &mut layer.current)?;
            layer.spikes = if self.stepwise {
                stepwise_forward(cpu, lanes, beta, &layer.current, &mut layer.stepwise)?
            } else {
                convolution_forward(cpu, lanes, beta, &layer.current, &mut layer.convolution)?
            };
        }
        Ok(())
    }

    fn prepare_backward(&mut self, cpu: &Cpu) -> Result<()> {
        Ok(cpu.fill(&mut self.grad, 1.0)?)
    }

    fn backward(&mut self, cpu: &Cpu) -> Result<()> {
        let (lanes, beta) = (self.lanes, &self.beta);
        for i in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (input, layer) = (before.last().map_or(&self.input, |l| &l.spikes), &mut rest[0]);
            let (current, decay) = if self.stepwise {
                stepwise_backward(cpu, lanes, beta, SCALE, &self.grad, &layer.stepwise)?
            } else {
                convolution_backward(cpu, lanes, beta, SCALE, &self.grad, &layer.convolution)?
            };
            let [weight_grad, bias_grad, beta_grad] = &mut layer.grads;
            let gemm = Gemm::new(layer.inputs, lanes.width, lanes.rows()).a_transposed();
            cpu.gemm(gemm, input, &current, weight_grad)?;
            cpu.sum_rows(lanes.rows(), lanes.width, &current, bias_grad)?;
            cpu.sum_rows(lanes.batch, lanes.width, &decay, beta_grad)?;
            if i > 0 {
                let gemm = Gemm::new(lanes.rows(), layer.inputs, lanes.width).b_transposed();
                cpu.gemm(gemm, &current, &layer.weight, &mut self.grad)?;
            }
        }
        Ok(())
    }

    fn output_events(&self) -> f64 {
        self.layers.last().map_or(0.0, |l| l.spikes.iter().map(|&s| f64::from(s)).sum())
    }
}

/// Bytes that a cell needs at most, all arrays `[B, T, ...]` counted.
pub(crate) fn cell_bytes(cell: &LayerCell) -> f64 {
    let rows = (cell.batch * cell.steps) as f64;
    let (inputs, lanes) = (rows * cell.n_in as f64, rows * cell.n as f64);
    let layers = cell.layers as f64;
    match cell.model {
        // State and gradient; the input as row lists, while a new one is made.
        LayerModel::Block
        | LayerModel::Single
        | LayerModel::Multi
        | LayerModel::Cuba
        | LayerModel::ParalifT
        | LayerModel::ParalifD
        | LayerModel::ParalifSb
        | LayerModel::ParalifGs => 8.0 * layers * lanes + 8.0 * inputs.min(RATE * inputs / cell.steps as f64),
        // The same, the second membrane and two more gradients.
        LayerModel::ParalifTRecurrent => 20.0 * layers * lanes + 8.0 * inputs.min(RATE * inputs / cell.steps as f64),
        // Current, membrane, spikes; then the gradients on spikes and current.
        LayerModel::BlockConvolution => 4.0 * (3.0 * layers * lanes + 2.0 * lanes) + 8.0 * inputs,
        // Current, spikes and four arrays of the tape; then two gradients.
        LayerModel::SingleStepwise => 4.0 * (6.0 * layers * lanes + 2.0 * lanes) + 8.0 * inputs,
    }
}

/// The floor under one layer's time; see the module's head.
#[derive(Clone, Copy, Debug)]
struct Floor {
    dense: f64,
    sparse: f64,
    scans: f64,
}

impl Floor {
    fn new(limits: &Limits, cell: &LayerCell, events: f64) -> Self {
        let lanes = (cell.batch * cell.steps * cell.n) as f64;
        Self {
            dense: 4.0 * lanes * cell.n_in as f64 / limits.fma.all,
            sparse: 2.0 * events * cell.n as f64 / limits.row_add.all,
            scans: 20.0 * lanes / limits.copy.all,
        }
    }

    fn total(&self) -> f64 {
        self.dense.min(self.sparse) + self.scans
    }
}

/// One cell with its peers.
#[derive(Debug)]
pub(crate) struct Outcome {
    cell: LayerCell,
    threads: usize,
    time: LayerTime,
    floor: Floor,
    peers: Vec<PeerTime>,
}

impl Outcome {
    fn share(&self) -> f64 {
        self.floor.total() / self.time.total_s()
    }

    fn ratio(&self, peer: &PeerTime) -> f64 {
        peer.total_s() / self.time.total_s()
    }

    /// The record for files and JSON lines.
    pub(crate) fn json(&self) -> Value {
        let c = &self.cell;
        let input = c.density.map_or("published rates".to_owned(), |d| format!("density {d}"));
        let key = format!(
            "{}, batch {}, T {}, {} -> {}, {input}, {} threads",
            c.model.name(),
            c.batch,
            c.steps,
            c.n_in,
            c.n,
            self.threads
        );
        let peers: Vec<Value> =
            self.peers.iter().map(|p| json!({ "timing": p, "total_s": p.total_s(), "ratio": self.ratio(p) })).collect();
        json!({
            "kind": "layer",
            "key": key,
            "model": c.model,
            "algorithm": if c.model.as_published() { "as published" } else { "fused" },
            "batch": c.batch,
            "steps": c.steps,
            "n_in": c.n_in,
            "n": c.n,
            "input": input,
            "input_density": self.time.events / (c.batch * c.steps * c.n_in) as f64,
            "output_mean": self.time.output_mean,
            "threads": self.threads,
            "forward_s": self.time.forward_s(),
            "backward_s": self.time.backward_s(),
            "median_s": self.time.total_s(),
            "forward_all": self.time.forward,
            "backward_all": self.time.backward,
            "peers": peers,
            "ratio": self.peers.first().map(|p| self.ratio(p)),
            "floor_s": self.floor.total(),
            "floor": { "dense_s": self.floor.dense, "sparse_s": self.floor.sparse, "scans_s": self.floor.scans },
            "floor_share": self.share(),
        })
    }
}

/// Times all cells of the command line.
pub(crate) fn run(cpu: &Cpu, limits: &Limits, args: &BenchArgs, quiet: bool, lines: bool) -> Result<Vec<Outcome>> {
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    // A Python alone asks for the model's own peer.
    let auto = vec!["auto".to_owned()];
    let names = if args.peer.is_empty() { &auto } else { &args.peer };
    let batches: &[usize] = if args.batch.is_empty() { &[64] } else { &args.batch };
    let bar = console::bar(quiet, 0, "{spinner} {msg}");
    let mut outcomes = Vec::new();
    for &model in &args.model {
        for &batch in batches {
            for &steps in &args.steps {
                for &n in &args.n {
                    let cell = LayerCell {
                        model,
                        batch,
                        steps,
                        n_in: args.n_in,
                        n,
                        layers: 1,
                        density: args.density,
                        repeats: args.repeats,
                        seed: 0,
                        tau: None,
                        forward_only: false,
                    };
                    bar.set_message(format!("{}, batch {batch}, T {steps}, n {n}", model.name()));
                    bar.tick();
                    let time = time_layer(cpu, &cell)?;
                    let floor = Floor::new(limits, &cell, time.events);
                    let mut outcome = Outcome { threads: cpu.threads(), floor, time, peers: Vec::new(), cell };
                    for name in names.iter().filter(|_| peers.is_some()) {
                        let name = if name == "auto" { model.peer() } else { name };
                        bar.set_message(format!("peer {name}, batch {batch}, T {steps}, n {n}"));
                        bar.tick();
                        let cell = peer_cell(name, &outcome.cell, cpu.threads(), args.sliced);
                        if let Some(peers) = &peers {
                            outcome.peers.push(peers.time(&cell)?);
                        }
                    }
                    if lines {
                        console::json(&outcome.json())?;
                    }
                    outcomes.push(outcome);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(outcomes)
}

/// The peer's side of a cell.
pub(crate) fn peer_cell(peer: &str, cell: &LayerCell, threads: usize, sliced: bool) -> PeerCell {
    PeerCell {
        peer: peer.to_owned(),
        batch: cell.batch,
        steps: cell.steps,
        n_in: cell.n_in,
        n: cell.n,
        density: cell.density,
        repeats: cell.repeats,
        threads,
        sliced,
        tau: cell.tau,
        forward_only: cell.forward_only,
    }
}

/// All cells as a table.
pub(crate) fn table(outcomes: &[Outcome]) -> Table {
    let mut columns = vec![
        Column::words("model"),
        Column::numbers("batch", ""),
        Column::numbers("T", ""),
        Column::numbers("n", ""),
        Column::numbers("active inputs", "%"),
        Column::numbers("forward", ""),
        Column::numbers("backward", ""),
        Column::numbers("total", ""),
        Column::numbers("floor", ""),
        Column::numbers("share of floor", "%"),
    ];
    let with_peers = outcomes.iter().any(|o| !o.peers.is_empty());
    if with_peers {
        columns.push(Column::words("peer"));
        columns.extend(["forward", "backward", "total"].map(|title| Column::numbers(title, "")));
        columns.push(Column::numbers("peer / ours", ""));
    }
    let mut table = Table::new("layers", "Layers, medians", columns);
    for o in outcomes {
        let c = &o.cell;
        let ours = [
            c.model.name().to_owned(),
            c.batch.to_string(),
            c.steps.to_string(),
            c.n.to_string(),
            format!("{:.1}", 100.0 * o.time.events / (c.batch * c.steps * c.n_in) as f64),
            timing::show(o.time.forward_s()),
            timing::show(o.time.backward_s()),
            timing::show(o.time.total_s()),
            timing::show(o.floor.total()),
            format!("{:.0}", 100.0 * o.share()),
        ];
        let peers = o.peers.iter().map(|p| {
            let times = [p.forward_s, p.backward_s, p.total_s()].map(timing::show);
            [p.peer.clone()].into_iter().chain(times).chain([format!("{:.1}", o.ratio(p))]).collect::<Vec<_>>()
        });
        let mut peers = peers.collect::<Vec<_>>().into_iter();
        let first = ours.into_iter().chain(peers.next().unwrap_or_default());
        table.row(first.map(TableCell::text));
        for more in peers {
            table.row(std::iter::repeat_n(String::new(), 10).chain(more).map(TableCell::text));
        }
    }
    table.note("Floor: the cheaper of dense products at the multiply-add peak and row adds at their rate, plus one");
    table.note("pass of the scans over their arrays at copy bandwidth, forward and backward, all threads.");
    if with_peers {
        table.note("Peers ran on the same machine in the same run, with as many threads and the same repeats.");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(model: LayerModel, layers: usize) -> LayerCell {
        LayerCell {
            model,
            batch: 3,
            steps: 40,
            n_in: 30,
            n: 20,
            layers,
            density: None,
            repeats: 2,
            seed: 1,
            tau: None,
            forward_only: false,
        }
    }

    /// The published and the fused algorithm are one model: they fire the same spikes.
    #[test]
    fn published_and_fused_layers_agree() {
        let cpu = Cpu::new(2).unwrap();
        for layers in [1, 2] {
            for (fused, published) in
                [(LayerModel::Block, LayerModel::BlockConvolution), (LayerModel::Single, LayerModel::SingleStepwise)]
            {
                let fused = time_layer(&cpu, &cell(fused, layers)).unwrap();
                let published = time_layer(&cpu, &cell(published, layers)).unwrap();
                assert_eq!((fused.forward.len(), fused.events), (2, published.events));
                // One spike per neuron and sequence is too little to drive a second layer.
                assert!(fused.output_mean > 0.0 || layers > 1);
                assert!(
                    (fused.output_mean - published.output_mean).abs() <= 0.02 * fused.output_mean,
                    "{fused:?} {published:?}"
                );
            }
        }
    }

    #[test]
    fn the_floor_takes_the_cheaper_product() {
        let rate = |x: f64| snn_cpu::limits::Rate { one: x, all: x };
        let limits = Limits { threads: 1, copy: rate(20.0), fma: rate(4.0), row_add: rate(2.0) };
        let cell = LayerCell { batch: 1, steps: 1, n_in: 10, n: 1, ..cell(LayerModel::Block, 1) };
        assert_eq!(Floor::new(&limits, &cell, 1.0).total(), 1.0 + 1.0);
        assert_eq!(Floor::new(&limits, &cell, 1000.0).total(), 10.0 + 1.0);
    }

    #[test]
    fn names_on_the_command_line_are_the_names_in_files() {
        for model in LayerModel::value_variants() {
            assert_eq!(model.to_possible_value().unwrap().get_name(), model.name());
            assert_eq!(serde_json::to_value(model).unwrap(), model.name());
        }
    }
}
