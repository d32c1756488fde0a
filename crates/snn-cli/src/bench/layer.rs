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
//! algorithms of [`snn_cpu::published`] after dense products, as the publication timed them. `alif-*` are adaptive
//! neurons with a refractory period, see `alif.rs`.
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
//! Recurrent `alif` layers have a second product, of N inputs and as many events as output spikes. Of further layers only
//! the scans count.
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
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Pass, Real, Signal, Spikes, Tensor};
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;
use snn_cpu::published::{
    ConvolutionTape, StepwiseTape, convolution_backward, convolution_forward, stepwise_backward, stepwise_forward,
};
use snn_data::synth::poisson::{Rate, poisson_spikes};
use snn_train::config::{CubaConfig, FilterConfig, Init, ParaLifConfig, PerNeuron, RecurrentConfig};
use snn_train::layers::alif::AlifCell;
use snn_train::layers::block::BlockCell;
use snn_train::layers::cuba::CubaCell;
use snn_train::layers::decay::Decay;
use snn_train::layers::dense::Dense;
use snn_train::layers::lif::LifCell;
use snn_train::layers::paralif::ParaLifCell;
use snn_train::layers::{Cell, Clocked, Projection};

use super::alif;
use super::device::Timeable;
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
    /// The adaptive neuron with a refractory period, one fused pass per direction, the gradient of its steps.
    AlifSteps,
    /// The same neuron, one fused pass per direction, the gradient of the block model.
    AlifBlocks,
    /// The same neuron as published: dense products and one operation per line and time step.
    AlifStepwise,
    /// Its block model as published: dense products and two convolutions over each block.
    AlifBlocksPublished,
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
            Self::AlifSteps => "alif-steps",
            Self::AlifBlocks => "alif-blocks",
            Self::AlifStepwise => "alif-stepwise",
            Self::AlifBlocksPublished => "alif-blocks-published",
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
            Self::AlifSteps | Self::AlifStepwise => "alif",
            Self::AlifBlocks | Self::AlifBlocksPublished => "alif-block",
        }
    }

    /// Whether this is an algorithm as published, kept for comparison only.
    pub(crate) fn as_published(self) -> bool {
        matches!(self, Self::BlockConvolution | Self::SingleStepwise | Self::AlifStepwise | Self::AlifBlocksPublished)
    }

    /// Whether the neurons have a refractory period that is asked for.
    pub(crate) fn is_alif(self) -> bool {
        matches!(self, Self::AlifSteps | Self::AlifBlocks | Self::AlifStepwise | Self::AlifBlocksPublished)
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
    /// Refractory period of `alif` in steps; 40 without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refractory: Option<u32>,
    /// Whether `alif` has no recurrent connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) feed_forward: bool,
}

impl LayerCell {
    /// One layer with the published input, forward and backward.
    pub(crate) fn new(model: LayerModel, [batch, steps, n_in, n]: [usize; 4], repeats: usize) -> Self {
        Self {
            model,
            batch,
            steps,
            n_in,
            n,
            layers: 1,
            density: None,
            repeats,
            seed: 0,
            tau: None,
            forward_only: false,
            refractory: None,
            feed_forward: false,
        }
    }

    /// Neurons times samples times steps, of all layers.
    pub(crate) fn neuron_steps(&self) -> f64 {
        (self.batch * self.steps * self.n * self.layers) as f64
    }

    /// The filters of the models that have them.
    fn filter(&self) -> FilterConfig {
        let given = self.tau.map(PerNeuron::Shared);
        let own = FilterConfig::default();
        FilterConfig { tau_mem: given.clone().unwrap_or(own.tau_mem), tau_syn: given.or(own.tau_syn), ..own }
    }

    /// The neurons of layer `index`.
    fn neurons<D: Backend>(&self, device: &D, index: usize) -> Result<Box<dyn Cell<D>>> {
        let decay = || Decay::new(device, self.n, BETA, false, true);
        let lif = |kind| Ok::<_, anyhow::Error>(LifCell::new(LifNeuron::new(kind), decay()?));
        let seed = (self.seed, index);
        let paralif = |mode: &str, recurrent| {
            let config = ParaLifConfig { mode: mode.into(), recurrent, filter: self.filter(), ..Default::default() };
            ParaLifCell::new(device, &config, self.n, seed)
        };
        Ok(match self.model {
            LayerModel::Block | LayerModel::BlockConvolution => {
                Box::new(BlockCell::new(BlockNeuron::default(), decay()?))
            }
            LayerModel::Single | LayerModel::SingleStepwise => Box::new(lif(LifKind::Single { mask: Path::Attached })?),
            LayerModel::Multi => Box::new(lif(LifKind::Multi { reset: Path::Attached })?),
            LayerModel::Cuba => {
                let config = CubaConfig { filter: self.filter(), ..CubaConfig::default() };
                Box::new(CubaCell::new(device, &config, self.n, seed)?)
            }
            LayerModel::ParalifT => Box::new(paralif("T", RecurrentConfig::None)?),
            LayerModel::ParalifD => Box::new(paralif("D", RecurrentConfig::None)?),
            LayerModel::ParalifSb => Box::new(paralif("SB", RecurrentConfig::None)?),
            LayerModel::ParalifGs => Box::new(paralif("GS", RecurrentConfig::None)?),
            LayerModel::ParalifTRecurrent => Box::new(paralif("T", RecurrentConfig::Spike)?),
            LayerModel::AlifSteps
            | LayerModel::AlifBlocks
            | LayerModel::AlifStepwise
            | LayerModel::AlifBlocksPublished => Box::new(AlifCell::new(device, &alif::config(self), self.n, seed)?),
        })
    }
}

/// What it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerTime {
    /// Seconds of every forward pass.
    pub(crate) forward: Vec<f64>,
    /// Seconds of every backward pass.
    pub(crate) backward: Vec<f64>,
    /// Mean input events of a batch.
    pub(crate) events: f64,
    /// Mean of the last output, spikes per neuron and step: equal models must agree.
    pub(crate) output_mean: f64,
    /// Seconds of the forward pass that is dropped, the first one.
    #[serde(default)]
    pub(crate) first_forward: f64,
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
pub(crate) fn time_layer<D: Timeable>(device: &D, cell: &LayerCell) -> Result<LayerTime> {
    let mut network: Box<dyn Timed<D>> =
        if cell.model.as_published() { device.published(cell)? } else { Box::new(Fused::new(device, cell)?) };
    let rate = cell.density.map_or(Rate::UpTo(RATE), Rate::Density);
    let mut time = LayerTime::default();
    for i in 0..=cell.repeats {
        let input = poisson_spikes(cell.batch, cell.steps, cell.n_in, rate, (cell.seed << 32) + i as u64);
        let events = input.events() as f64;
        network.load(device, input)?;
        device.synchronise()?;
        let start = Instant::now();
        network.forward(device)?;
        let forward = start.elapsed().as_secs_f64();
        network.prepare_backward(device)?;
        device.synchronise()?;
        let start = Instant::now();
        if !cell.forward_only {
            network.backward(device)?;
        }
        let backward = if cell.forward_only { 0.0 } else { start.elapsed().as_secs_f64() };
        if i == 0 {
            time.first_forward = forward;
        } else {
            time.forward.push(forward);
            time.backward.push(backward);
            time.events += events / cell.repeats as f64;
        }
    }
    time.output_mean = network.output_events(device)? / (cell.batch * cell.steps * cell.n) as f64;
    Ok(time)
}

/// A network whose passes are timed.
pub(crate) trait Timed<D> {
    fn load(&mut self, device: &D, input: Spikes) -> Result<()>;
    fn forward(&mut self, device: &D) -> Result<()>;
    fn prepare_backward(&mut self, device: &D) -> Result<()>;
    fn backward(&mut self, device: &D) -> Result<()>;
    fn output_events(&self, device: &D) -> Result<f64>;
}

pub(super) fn projections<D: Backend>(device: &D, cell: &LayerCell) -> Result<Vec<Dense<D>>> {
    let sizes = std::iter::once(cell.n_in).chain(std::iter::repeat(cell.n)).take(cell.layers);
    let dense = sizes
        .enumerate()
        .map(|(i, inputs)| Dense::new(device, inputs, cell.n, Init::FanIn { gain: 1.0 }, (cell.seed, i)));
    Ok(dense.collect::<snn_core::Result<_>>()?)
}

/// The layers of training.
pub(crate) struct Fused<D: Backend> {
    layers: Vec<Clocked<D>>,
    input: Activity<D>,
    // The gradient on each layer's output.
    grads: Vec<Tensor<D>>,
}

impl<D: Backend> Fused<D> {
    pub(crate) fn new(device: &D, cell: &LayerCell) -> Result<Self> {
        let mut layers = Vec::new();
        let mut grads = Vec::new();
        let mut input = Signal::flat(Kind::Spikes, cell.steps, cell.n_in);
        for dense in projections(device, cell)? {
            let output = Signal::flat(Kind::Spikes, cell.steps, cell.n);
            let neurons = cell.neurons(device, layers.len())?;
            layers.push(Clocked::new(device, input, output, Box::new(dense), neurons, false)?);
            grads.push(Tensor::zeros(device, &[cell.batch, cell.steps, cell.n])?);
            input = output;
        }
        Ok(Self { layers, input: Activity::Spikes(device.spikes()), grads })
    }

    /// Queues the forward pass.
    pub(crate) fn queue_forward(&mut self, device: &D) -> snn_core::Result<()> {
        for i in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(i);
            let input = before.last().map_or(&self.input, Layer::output);
            rest[0].forward(device, input, Pass::train(0))?;
        }
        Ok(())
    }

    /// Queues the incoming gradient, all ones.
    pub(crate) fn queue_ones(&mut self, device: &D) -> snn_core::Result<()> {
        self.grads.last_mut().map_or(Ok(()), |grad| device.fill(&mut grad.data, D::Real::ONE))
    }

    /// Queues the backward pass.
    pub(crate) fn queue_backward(&mut self, device: &D) -> snn_core::Result<()> {
        for i in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (earlier, grad) = self.grads.split_at_mut(i);
            let input = before.last().map_or(&self.input, Layer::output);
            rest[0].backward(device, input, &mut grad[0], earlier.last_mut())?;
        }
        Ok(())
    }
}

impl<D: Backend> Timed<D> for Fused<D> {
    fn load(&mut self, device: &D, input: Spikes) -> Result<()> {
        if let Activity::Spikes(spikes) = &mut self.input {
            device.upload_spikes(&input, spikes)?;
        }
        Ok(())
    }

    fn forward(&mut self, device: &D) -> Result<()> {
        self.queue_forward(device)?;
        Ok(device.synchronise()?)
    }

    fn prepare_backward(&mut self, device: &D) -> Result<()> {
        Ok(self.queue_ones(device)?)
    }

    fn backward(&mut self, device: &D) -> Result<()> {
        self.queue_backward(device)?;
        Ok(device.synchronise()?)
    }

    fn output_events(&self, device: &D) -> Result<f64> {
        let Some(output) = self.layers.last().and_then(|l| l.spikes()) else { return Ok(0.0) };
        Ok(device.events_per_sample(output)?.into_iter().map(f64::from).sum())
    }
}

/// Dense products and the published neuron algorithms.
pub(super) struct Published {
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
    pub(super) fn new(cpu: &Cpu, cell: &LayerCell) -> Result<Self> {
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

impl Timed<Cpu> for Published {
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

    fn output_events(&self, _: &Cpu) -> Result<f64> {
        Ok(self.layers.last().map_or(0.0, |l| l.spikes.iter().map(|&s| f64::from(s)).sum()))
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
        // State, gradient, and the spikes that recurrent connections carried.
        LayerModel::AlifSteps | LayerModel::AlifBlocks => {
            9.0 * layers * lanes + 8.0 * inputs.min(RATE * inputs / cell.steps as f64)
        }
        // Current, spikes, four arrays of the tape; then the gradients on spikes and current, and the latter in blocks.
        LayerModel::AlifBlocksPublished => 4.0 * (7.0 * layers * lanes + 2.0 * lanes) + 8.0 * inputs,
        // Current, spikes and five arrays of the tape; then the gradients on spikes and current.
        LayerModel::AlifStepwise => 4.0 * (8.0 * layers * lanes + lanes) + 8.0 * inputs,
        // Current, membrane, spikes; then the gradients on spikes and current.
        LayerModel::BlockConvolution => 4.0 * (3.0 * layers * lanes + 2.0 * lanes) + 8.0 * inputs,
        // Current, spikes and four arrays of the tape; then two gradients.
        LayerModel::SingleStepwise => 4.0 * (6.0 * layers * lanes + 2.0 * lanes) + 8.0 * inputs,
    }
}

/// The floor under one layer's time; see the module's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    dense: f64,
    sparse: f64,
    recurrent: f64,
    scans: f64,
}

impl Floor {
    pub(crate) fn new(limits: &Limits, cell: &LayerCell, time: &LayerTime) -> Self {
        let lanes = (cell.batch * cell.steps * cell.n) as f64;
        let passes = if cell.forward_only { 1.0 } else { 2.0 };
        let dense = |inputs: usize| passes * 2.0 * lanes * inputs as f64 / limits.fma.all;
        let sparse = |events: f64| passes * events * cell.n as f64 / limits.row_add.all;
        let recurrent = cell.model.is_alif() && !cell.feed_forward;
        let bytes = if cell.forward_only { 8.0 } else { 20.0 };
        Self {
            dense: dense(cell.n_in),
            sparse: sparse(time.events),
            recurrent: if recurrent { dense(cell.n).min(sparse(time.output_mean * lanes)) } else { 0.0 },
            scans: bytes * lanes * cell.layers as f64 / limits.copy.all,
        }
    }

    pub(crate) fn total(&self) -> f64 {
        self.dense.min(self.sparse) + self.recurrent + self.scans
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
    /// Neuron-steps per second.
    fn throughput(&self) -> f64 {
        self.cell.neuron_steps() / self.time.total_s()
    }

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
        let mut key = format!(
            "{}, batch {}, T {}, {} -> {}, {input}, {} threads",
            c.model.name(),
            c.batch,
            c.steps,
            c.n_in,
            c.n,
            self.threads
        );
        if c.model.is_alif() {
            key.push_str(&format!(", refractory {}", c.refractory.unwrap_or(alif::REFRACTORY)));
            key.push_str(if c.feed_forward { ", feed-forward" } else { "" });
        }
        if c.layers > 1 {
            key.push_str(&format!(", {} layers", c.layers));
        }
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
            "layers": c.layers,
            "refractory": c.refractory,
            "input": input,
            "input_density": self.time.events / (c.batch * c.steps * c.n_in) as f64,
            "output_mean": self.time.output_mean,
            "threads": self.threads,
            "forward_s": self.time.forward_s(),
            "backward_s": self.time.backward_s(),
            "median_s": self.time.total_s(),
            "neuron_steps_per_s": self.throughput(),
            "forward_all": self.time.forward,
            "backward_all": self.time.backward,
            "peers": peers,
            "ratio": self.peers.first().map(|p| self.ratio(p)),
            "floor_s": self.floor.total(),
            "floor": { "dense_s": self.floor.dense, "sparse_s": self.floor.sparse,
                "recurrent_s": self.floor.recurrent, "scans_s": self.floor.scans },
            "floor_share": self.share(),
        })
    }
}

/// Times all cells of the command line.
pub(crate) fn run<D: Timeable>(
    device: &D,
    limits: &Limits,
    args: &BenchArgs,
    quiet: bool,
    lines: bool,
) -> Result<Vec<Outcome>> {
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    // A Python alone asks for the model's own peer.
    let auto = vec!["auto".to_owned()];
    let names = if args.peer.is_empty() { &auto } else { &args.peer };
    let bar = console::bar(quiet, 0, "{spinner} {msg}");
    let mut outcomes = Vec::new();
    for cell in cells(args) {
        let LayerCell { model, batch, steps, n, .. } = cell;
        bar.set_message(format!("{}, batch {batch}, T {steps}, n {n}", model.name()));
        bar.tick();
        let time = time_layer(device, &cell)?;
        let floor = Floor::new(limits, &cell, &time);
        let mut outcome = Outcome { threads: device.threads(), floor, time, peers: Vec::new(), cell };
        for name in names.iter().filter(|_| peers.is_some()) {
            let name = if name == "auto" { model.peer() } else { name };
            bar.set_message(format!("peer {name}, batch {batch}, T {steps}, n {n}"));
            bar.tick();
            let cell = PeerCell {
                device: D::PEER.to_owned(),
                ..peer_cell(name, &outcome.cell, device.threads(), args.sliced)
            };
            if let Some(peers) = &peers {
                outcome.peers.push(peers.time(&cell)?);
            }
        }
        if lines {
            console::json(&outcome.json())?;
        }
        outcomes.push(outcome);
    }
    bar.finish_and_clear();
    Ok(outcomes)
}

/// All cells of the command line.
fn cells(args: &BenchArgs) -> Vec<LayerCell> {
    let batches: &[usize] = if args.batch.is_empty() { &[64] } else { &args.batch };
    let mut cells = Vec::new();
    for &model in &args.model {
        let periods = match model.is_alif() {
            true => args.refractory.iter().copied().map(Some).collect(),
            false => vec![None],
        };
        for (&batch, &steps) in batches.iter().flat_map(|b| args.steps.iter().map(move |t| (b, t))) {
            for (&n, &refractory) in args.n.iter().flat_map(|n| periods.iter().map(move |p| (n, p))) {
                let cell = LayerCell::new(model, [batch, steps, args.n_in, n], args.repeats);
                let feed_forward = model.is_alif() && args.feed_forward;
                let forward_only = args.forward_only;
                let (layers, density) = (args.layers, args.density);
                cells.push(LayerCell { layers, density, refractory, feed_forward, forward_only, ..cell });
            }
        }
    }
    cells
}

/// The peer's side of a cell.
pub(crate) fn peer_cell(peer: &str, cell: &LayerCell, threads: usize, sliced: bool) -> PeerCell {
    PeerCell {
        device: "cpu".to_owned(),
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
        refractory: cell.refractory,
        layers: cell.layers,
        feed_forward: cell.feed_forward,
    }
}

/// All cells as a table.
pub(crate) fn table(outcomes: &[Outcome]) -> Table {
    let mut columns = vec![
        Column::words("model"),
        Column::numbers("batch", ""),
        Column::numbers("T", ""),
        Column::numbers("n", ""),
        Column::numbers("refractory", ""),
        Column::numbers("active inputs", "%"),
        Column::numbers("forward", ""),
        Column::numbers("backward", ""),
        Column::numbers("total", ""),
        Column::numbers("neuron-steps", "M/s"),
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
            c.refractory.map_or_else(String::new, |r| r.to_string()),
            format!("{:.1}", 100.0 * o.time.events / (c.batch * c.steps * c.n_in) as f64),
            timing::show(o.time.forward_s()),
            timing::show(o.time.backward_s()),
            timing::show(o.time.total_s()),
            format!("{:.1}", 1e-6 * o.throughput()),
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
            table.row(std::iter::repeat_n(String::new(), 12).chain(more).map(TableCell::text));
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
        LayerCell { layers, seed: 1, ..LayerCell::new(model, [3, 40, 30, 20], 2) }
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

    /// All four forms of the adaptive neuron fire the same spikes, with and without recurrent connections.
    #[test]
    fn adaptive_layers_agree() {
        let cpu = Cpu::new(2).unwrap();
        for (feed_forward, layers) in [(false, 1), (true, 1), (false, 2)] {
            let mean = |model| {
                let refractory = Some(5);
                let cell = LayerCell {
                    refractory,
                    feed_forward,
                    steps: 100,
                    n: 64,
                    density: Some(0.5),
                    ..cell(model, layers)
                };
                time_layer(&cpu, &cell).unwrap().output_mean
            };
            let all = [LayerModel::AlifSteps, LayerModel::AlifBlocks, LayerModel::AlifStepwise];
            let [steps, blocks, stepwise] = all.map(mean);
            let published = mean(LayerModel::AlifBlocksPublished);
            assert!(steps > 0.0 && (steps, steps) == (blocks, stepwise), "{steps} {blocks} {stepwise}");
            assert!((steps - published).abs() <= 0.01 * steps, "{steps} {published}");
        }
    }

    #[test]
    fn the_floor_takes_the_cheaper_product() {
        let rate = |x: f64| snn_cpu::limits::Rate { one: x, all: x };
        let limits = Limits { threads: 1, copy: rate(20.0), fma: rate(4.0), row_add: rate(2.0) };
        let cell = LayerCell { batch: 1, steps: 1, n_in: 10, n: 1, ..cell(LayerModel::Block, 1) };
        let floor = |cell: &LayerCell, events: f64| {
            Floor::new(&limits, cell, &LayerTime { events, output_mean: 0.5, ..LayerTime::default() }).total()
        };
        assert_eq!(floor(&cell, 1.0), 1.0 + 1.0);
        assert_eq!(floor(&cell, 1000.0), 10.0 + 1.0);
        // The recurrent product has half an event here.
        let recurrent = LayerCell { model: LayerModel::AlifSteps, ..cell };
        assert_eq!(floor(&recurrent, 1.0), 1.0 + 0.5 + 1.0);
        assert_eq!(floor(&LayerCell { feed_forward: true, ..recurrent }, 1.0), 1.0 + 1.0);
    }

    #[test]
    fn names_on_the_command_line_are_the_names_in_files() {
        for model in LayerModel::value_variants() {
            assert_eq!(model.to_possible_value().unwrap().get_name(), model.name());
            assert_eq!(serde_json::to_value(model).unwrap(), model.name());
        }
    }
}
