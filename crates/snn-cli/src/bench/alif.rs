//! Layers of adaptive neurons with a refractory period, and the published forms of them.
//!
//! Decays of membrane and adaptation 0.9, strength of the adaptation 1 (1.8 before its clip), recurrent weights the
//! identity, multi-Gaussian surrogate, spikes detached: the published benchmark's layer. Backward gives the gradients of
//! all weights, of the bias, and of the three constants of every neuron.

use anyhow::Result;
use snn_core::backend::{Gemm, LinAlg, Memory};
use snn_core::neurons::alif::{AlifNeuron, Constants};
use snn_core::{Lanes, Spikes};
use snn_cpu::Cpu;
use snn_cpu::published::{
    AlifBlocksTape, AlifGradients, AlifStepwiseTape, alif_blocks_backward, alif_blocks_forward, alif_stepwise_backward,
    alif_stepwise_forward,
};
use snn_train::config::{AlifConfig, AlifGradientConfig};
use snn_train::layers::Projection as _;

use super::layer::{LayerCell, LayerModel, Timed, projections};

/// The refractory period where none is asked for, in steps.
pub(crate) const REFRACTORY: u32 = 40;

/// The neurons of a cell.
pub(super) fn config(cell: &LayerCell) -> AlifConfig {
    let in_blocks = matches!(cell.model, LayerModel::AlifBlocks | LayerModel::AlifBlocksPublished);
    AlifConfig {
        refractory: cell.refractory.unwrap_or(REFRACTORY),
        beta: 0.9,
        decay: 0.9,
        strength: 1.8,
        recurrent: !cell.feed_forward,
        gradient: if in_blocks { AlifGradientConfig::Blocks } else { AlifGradientConfig::Steps },
        ..AlifConfig::default()
    }
}

/// The constants of every neuron as used, and the recurrent weights, none without recurrence.
#[derive(Debug)]
struct Own {
    beta: Vec<f32>,
    decay: Vec<f32>,
    strength: Vec<f32>,
    weight: Vec<f32>,
}

impl Own {
    fn new(config: &AlifConfig, width: usize) -> Self {
        let limits = config.neuron().limits;
        let list = |value: f64| vec![value as f32; width];
        let identity = (0..width * width).map(|i| if i % (width + 1) == 0 { 1.0 } else { 0.0 });
        Self {
            beta: list(limits.beta(config.beta)),
            decay: list(limits.decay(config.decay)),
            strength: list(limits.strength(config.strength)),
            weight: identity.filter(|_| config.recurrent).collect(),
        }
    }

    fn constants(&self) -> Constants<'_, f32> {
        Constants { beta: &self.beta, decay: &self.decay, strength: &self.strength, weight: &self.weight }
    }
}

/// Dense products and the published forms.
pub(super) struct Published {
    neuron: AlifNeuron,
    lanes: Lanes,
    blocks: bool,
    own: Own,
    layers: Vec<PublishedLayer>,
    input: Vec<f32>,
    grad: Vec<f32>,
}

struct PublishedLayer {
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    weight_grad: Vec<f32>,
    bias_grad: Vec<f32>,
    grads: AlifGradients,
    current: Vec<f32>,
    spikes: Vec<f32>,
    stepwise: AlifStepwiseTape,
    blocks: AlifBlocksTape,
}

impl Published {
    pub(super) fn new(cpu: &Cpu, cell: &LayerCell) -> Result<Self> {
        let (lanes, config) = (Lanes::new(cell.batch, cell.steps, cell.n), config(cell));
        let mut layers = Vec::new();
        for (i, dense) in projections(cpu, cell)?.iter().enumerate() {
            let pair: [_; 2] = dense.parameters().try_into().expect("a fresh projection has a weight and a bias");
            let [weight, bias] = pair.map(|p| p.value.data.clone());
            layers.push(PublishedLayer {
                inputs: if i == 0 { cell.n_in } else { cell.n },
                weight_grad: vec![0.0; weight.len()],
                bias_grad: vec![0.0; bias.len()],
                weight,
                bias,
                grads: AlifGradients::default(),
                current: cpu.zeros(lanes.len())?,
                spikes: Vec::new(),
                stepwise: AlifStepwiseTape::default(),
                blocks: AlifBlocksTape::default(),
            });
        }
        let blocks = cell.model == LayerModel::AlifBlocksPublished;
        let (neuron, own) = (config.neuron(), Own::new(&config, cell.n));
        Ok(Self { neuron, lanes, blocks, own, layers, input: Vec::new(), grad: cpu.zeros(lanes.len())? })
    }
}

impl Timed<Cpu> for Published {
    fn load(&mut self, _: &Cpu, input: Spikes) -> Result<()> {
        self.input = input.to_dense();
        Ok(())
    }

    fn forward(&mut self, cpu: &Cpu) -> Result<()> {
        let (neuron, lanes, c) = (self.neuron, self.lanes, self.own.constants());
        for i in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (input, layer) = (before.last().map_or(&self.input, |l| &l.spikes), &mut rest[0]);
            cpu.gemm(Gemm::new(lanes.rows(), lanes.width, layer.inputs), input, &layer.weight, &mut layer.current)?;
            cpu.add_bias(lanes.rows(), &layer.bias, &mut layer.current)?;
            layer.spikes = if self.blocks {
                alif_blocks_forward(cpu, lanes, &neuron, &c, &layer.current, &mut layer.blocks)?
            } else {
                alif_stepwise_forward(cpu, lanes, &neuron, &c, &layer.current, &mut layer.stepwise)?
            };
        }
        Ok(())
    }

    fn prepare_backward(&mut self, cpu: &Cpu) -> Result<()> {
        Ok(cpu.fill(&mut self.grad, 1.0)?)
    }

    fn backward(&mut self, cpu: &Cpu) -> Result<()> {
        let (neuron, lanes, c) = (self.neuron, self.lanes, self.own.constants());
        for i in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(i);
            let (input, layer) = (before.last().map_or(&self.input, |l| &l.spikes), &mut rest[0]);
            layer.grads = if self.blocks {
                alif_blocks_backward(cpu, lanes, &neuron, &c, &self.grad, &layer.blocks)?
            } else {
                alif_stepwise_backward(cpu, lanes, &neuron, &c, &self.grad, &layer.stepwise)?
            };
            let current = &layer.grads.current;
            let gemm = Gemm::new(layer.inputs, lanes.width, lanes.rows()).a_transposed();
            cpu.gemm(gemm, input, current, &mut layer.weight_grad)?;
            cpu.sum_rows(lanes.rows(), lanes.width, current, &mut layer.bias_grad)?;
            if i > 0 {
                let gemm = Gemm::new(lanes.rows(), layer.inputs, lanes.width).b_transposed();
                cpu.gemm(gemm, current, &layer.weight, &mut self.grad)?;
            }
        }
        Ok(())
    }

    fn output_events(&self, _: &Cpu) -> Result<f64> {
        Ok(self.layers.last().map_or(0.0, |l| l.spikes.iter().map(|&s| f64::from(s)).sum()))
    }
}
