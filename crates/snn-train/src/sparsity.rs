//! How much a network of neurons that spike at most once fires, when, and what that costs.
//!
//! The measure of the paper is spikes per neuron: hidden neurons that fire, summed over layers and samples, by hidden
//! neurons times samples. Units of a convolution count one by one, pools are no neurons, and outputs do not spike. With
//! the input layer counted in, an input that is not 0 counting as a spike, the number is another one; both are given.

use serde::{Deserialize, Serialize};
use snn_core::neurons::ttfs::{INPUT_WINDOW, windows};
use snn_core::{Backend, Layer, Real};
use snn_data::{Batch, Input};

use crate::error::Result;
use crate::stack::Stack;

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerTimes {
    /// The layer.
    pub name: String,
    /// Its neurons.
    pub neurons: usize,
    /// Share of neurons that fire, mean over the samples.
    pub spikes_per_neuron: f64,
    /// Spikes per sample that would have come before the window.
    pub early_per_sample: f64,
    /// Where the window begins and ends.
    pub window: [f64; 2],
    /// The earliest spike; absent if there was none, as for the next two.
    pub earliest: Option<f64>,
    /// The mean time of the spikes.
    pub mean: Option<f64>,
    /// The latest spike.
    pub latest: Option<f64>,
}

/// A whole network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sparsity {
    /// Samples.
    pub samples: usize,
    /// Spikes per hidden neuron.
    pub hidden: f64,
    /// Spikes per input.
    pub input: f64,
    /// Spikes per hidden neuron or input.
    pub with_input: f64,
    /// When the last window ends, which is when the outputs are read.
    pub latency: f64,
    /// Additions of a weight that a spike causes, per sample, by connections; connections of a rectifier network each cost
    /// a multiplication and an addition. Spikes of the input count.
    pub operations: f64,
    /// Connections.
    pub connections: f64,
    /// Layer by layer.
    pub layers: Vec<LayerTimes>,
}

/// Sums over batches, layer by layer.
#[derive(Debug, Clone, Default)]
struct Sums {
    fired: u64,
    early: u64,
    sum: f64,
    most: f64,
    least: f64,
}

/// Watches an evaluation; see [`evaluate_seen`](crate::trainer::evaluate_seen).
#[derive(Debug, Default)]
pub struct Census {
    samples: usize,
    layers: Vec<Sums>,
    // By layer of the stack: what of its input is not 0; first the inputs of the network.
    active: Vec<u64>,
}

impl Census {
    /// Nothing seen so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a batch after its forward pass; models without such neurons are left alone.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn add<B: Backend>(&mut self, device: &B, stack: &Stack<B>, batch: &Batch) -> Result<()> {
        if stack.layers().all(|layer| layer.first_spikes().is_none()) {
            return Ok(());
        }
        self.samples += batch.labels.len();
        let inputs = match &batch.input {
            Input::Values(values) => values.iter().filter(|&&x| x > 0.0).count() as u64,
            _ => 0,
        };
        self.active.resize(stack.layers().len(), 0);
        self.active[0] += inputs;
        for (layer, active) in stack.layers().zip(&mut self.active[1..]) {
            let given = device.to_host(&layer.output().numbers("the census")?.data)?;
            *active += given.iter().filter(|x| x.value() != 0.0).count() as u64;
        }
        let first: Vec<_> = stack.layers().filter_map(Layer::first_spikes).collect();
        self.layers.resize(first.len(), Sums { least: f64::INFINITY, ..Sums::default() });
        for (sums, first) in self.layers.iter_mut().zip(first) {
            for x in device.to_host(first.earliness)?.iter().map(|x| x.value()).filter(|x| *x > 0.0) {
                sums.fired += 1;
                sums.sum += x;
                sums.most = sums.most.max(x);
                sums.least = sums.least.min(x);
            }
            sums.early += device.to_host(&first.census.early)?.into_iter().map(u64::from).sum::<u64>();
        }
        Ok(())
    }

    /// What the batches came to; absent for a model without such neurons.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn report<B: Backend>(&self, device: &B, stack: &Stack<B>) -> Result<Option<Sparsity>> {
        if self.layers.is_empty() || self.samples == 0 {
            return Ok(None);
        }
        let samples = self.samples as f64;
        let first: Vec<_> = stack.layers().filter(|l| l.first_spikes().is_some()).collect();
        let windows = windows(&window_lengths(device, stack)?);
        let layers = first.iter().zip(&self.layers).zip(&windows).map(|((layer, sums), &[_, start, end])| {
            let (neurons, fired) = (layer.output_signal().width(), sums.fired as f64);
            let at = |x: f64| (sums.fired > 0).then_some(end - x);
            LayerTimes {
                name: layer.name(),
                neurons,
                spikes_per_neuron: fired / (neurons as f64 * samples),
                early_per_sample: sums.early as f64 / samples,
                window: [start, end],
                earliest: at(sums.most),
                mean: at(sums.sum / fired.max(1.0)),
                latest: at(sums.least),
            }
        });
        let layers: Vec<LayerTimes> = layers.collect();
        let inputs = stack.input().width() as f64;
        let neurons: f64 = layers.iter().map(|l| l.neurons as f64).sum();
        let (spikes, input_spikes) = (self.layers.iter().map(|l| l.fired).sum::<u64>() as f64, self.active[0] as f64);
        let (operations, connections) = self.operations(stack);
        Ok(Some(Sparsity {
            samples: self.samples,
            hidden: spikes / (neurons * samples),
            input: input_spikes / (inputs * samples),
            with_input: (spikes + input_spikes) / ((neurons + inputs) * samples),
            latency: windows.last().map_or(INPUT_WINDOW, |w| w[2]),
            operations,
            connections,
            layers,
        }))
    }

    /// Additions per sample and connections: every connection of a layer is as often in use as the mean input is active.
    fn operations<B: Backend>(&self, stack: &Stack<B>) -> (f64, f64) {
        let (mut operations, mut connections) = (0.0, 0.0);
        for (layer, &active) in stack.layers().zip(&self.active) {
            let weights = layer.parameters().into_iter().find(|p| p.name == "weight").map(|p| p.value.shape.clone());
            let Some(shape) = weights else { continue };
            let positions = match shape[..] {
                [_, _, _, channels] => layer.output_signal().width() / channels.max(1),
                _ => 1,
            };
            let of_layer = (shape.iter().product::<usize>() * positions) as f64;
            connections += of_layer;
            operations += of_layer * active as f64 / (layer.input().width() * self.samples) as f64;
        }
        (operations, connections)
    }
}

/// The lengths of the windows of all layers of neurons that spike at most once.
///
/// # Errors
///
/// If the device fails.
pub fn window_lengths<B: Backend>(device: &B, stack: &Stack<B>) -> Result<Vec<f64>> {
    let mut lengths = Vec::new();
    for first in stack.layers().filter_map(Layer::first_spikes) {
        lengths.extend(device.to_host(first.window)?.into_iter().map(Real::value));
    }
    Ok(lengths)
}
