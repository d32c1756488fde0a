//! Layers of neurons that spike at most once: dense and convolutional, trained as the rectifiers that they equal.
//!
//! What flows is earliness; see [`snn_core::neurons::ttfs`]. The parameters are `weight`, `shift` `[R, C]` with a row for
//! each region of the map ([`Borders`]), and the length of the `window`, which grows with the largest activation of a
//! training batch after each step.
//!
//! The published layout of a convolution with fused offsets has nine thresholds per channel, of which a map uses those
//! that it has regions for: [`Borders::nine`] says which.

use snn_core::backend::{Census, Gemm};
use snn_core::neurons::ttfs::{self, Grid, Perturbation, TtfsNeuron};
use snn_core::random::SpikeDraws;
use snn_core::{
    Activity, Backend, Borders, Conv, FirstSpikes, Kind, Layer, Map, Mode, Parameter, Pass, Real, Result, Signal,
    Synapses, Tensor,
};

use super::init;
use crate::config::{Init, SlopeConfig, TtfsConfig};

/// The weights of a neuron with a slope of its own begin with a sum below this: from 1 on it never fires.
const LARGEST_SUM: f64 = 0.9;

/// The numbers of the draws of a layer's input begin here, those of its own times at 0.
const INPUT_DRAWS: u32 = 0x0080_0000;

/// A layer of neurons that spike at most once with the weights that reach them.
#[derive(Debug)]
pub struct TtfsLayer<B: Backend> {
    input: Signal,
    output: Signal,
    synapses: Synapses,
    borders: Borders,
    config: TtfsConfig,
    grid: Option<Grid>,
    seed: (u64, usize),
    weight: Parameter<B>,
    shift: Parameter<B>,
    window: Parameter<B>,
    // The weights in use, where they are not the parameter itself, and the slopes they were divided by.
    used: B::Buffer<B::Real>,
    slope: B::Buffer<B::Real>,
    // Of the first layer: the length of the input's window, and the input after what disturbs it.
    input_window: B::Buffer<B::Real>,
    arrived: Activity<B>,
    // Earliness before anything disturbs it, if something does.
    clean: B::Buffer<B::Real>,
    census: Census<B>,
    draw: u32,
    given: Activity<B>,
}

impl<B: Backend> TtfsLayer<B> {
    /// Every input to every one of `width` neurons; weights `[M, N]`.
    ///
    /// # Errors
    ///
    /// If a constant is out of range or the device has no memory left.
    pub fn dense(
        device: &B,
        input: Signal,
        width: usize,
        config: &TtfsConfig,
        init: Init,
        seed: (u64, usize),
    ) -> Result<Self> {
        let (inputs, outputs) = (input.width(), width);
        let weight = init::weights(device, init, &[inputs, outputs], (inputs, outputs), seed)?;
        let synapses = Synapses::Dense { inputs, outputs };
        Self::new(device, input, Map::new(1, 1, width), synapses, Borders::none(1), config, weight, seed)
    }

    /// A convolution of maps; weights `[k, k, c_in, c_out]`.
    ///
    /// # Errors
    ///
    /// As [`TtfsLayer::dense`].
    pub fn convolution(
        device: &B,
        input: Signal,
        conv: Conv,
        config: &TtfsConfig,
        init: Init,
        seed: (u64, usize),
    ) -> Result<Self> {
        let shape = [conv.kernel, conv.kernel_width, conv.input.channels, conv.channels];
        let fans = (conv.fan_in(), conv.kernel * conv.kernel_width * conv.channels);
        let weight = init::weights(device, init, &shape, fans, seed)?;
        let map = conv.output();
        let borders = if config.borders { Borders::of(&conv) } else { Borders::none(map.height * map.width) };
        Self::new(device, input, map, Synapses::Conv(conv), borders, config, weight, seed)
    }

    #[expect(clippy::too_many_arguments, reason = "what the two kinds of layers have in common")]
    fn new(
        device: &B,
        input: Signal,
        map: Map,
        synapses: Synapses,
        borders: Borders,
        config: &TtfsConfig,
        weight: Parameter<B>,
        seed: (u64, usize),
    ) -> Result<Self> {
        let bits = config.weight_bits;
        let grid = (bits > 0).then(|| Grid::new(bits, config.weight_low, config.weight_high)).transpose()?;
        let (regions, channels) = (borders.regions(), map.channels);
        let shift = Parameter::new(device, "shift", &[regions, channels], &vec![B::Real::ZERO; regions * channels])?;
        let window = Parameter::new(device, "window", &[1], &[B::Real::lit(config.window())])?;
        let empty = || Tensor::zeros(device, &[0]);
        Ok(Self {
            input,
            output: Signal { kind: Kind::Times, steps: 1, map },
            synapses,
            borders,
            config: *config,
            grid,
            seed,
            weight,
            shift,
            window: window.with_learnable(false),
            used: device.zeros(0)?,
            slope: device.zeros(0)?,
            input_window: device.buffer_from(&[B::Real::lit(ttfs::INPUT_WINDOW)])?,
            arrived: Activity::Values(empty()?),
            clean: device.zeros(0)?,
            census: Census::empty(device)?,
            draw: 0,
            given: Activity::Times(empty()?),
        })
    }

    /// The regions of the map, one for each row of the shift.
    #[must_use]
    pub fn borders(&self) -> &Borders {
        &self.borders
    }

    fn neuron(&self) -> TtfsNeuron {
        TtfsNeuron { limited: self.config.limited }
    }

    /// What happens to the times that this layer gives.
    fn perturbation(&self) -> Perturbation {
        Perturbation { noise: self.config.noise, bits: self.config.time_bits, limited: self.config.limited }
    }

    /// What happens to the input of the first layer: noise is for tests alone, and no time lies before the window.
    fn input_perturbation(&self, mode: Mode) -> Perturbation {
        if self.input.kind == Kind::Times {
            return Perturbation::default();
        }
        let noise = if mode == Mode::Evaluate { self.config.noise } else { 0.0 };
        Perturbation { noise, bits: self.config.time_bits, limited: true }
    }

    fn draws(&self, first: u32) -> SpikeDraws {
        SpikeDraws { seed: self.seed.0, pass: self.draw, population: first + self.seed.1 as u32 }
    }

    /// Whether the weights in use are not the parameter itself.
    fn derives_weights(&self) -> bool {
        self.grid.is_some() || self.config.slope != SlopeConfig::One
    }

    /// Computes the weights in use.
    fn derive_weights(&mut self, device: &B) -> Result<()> {
        if !self.derives_weights() {
            return Ok(());
        }
        device.resize(&mut self.used, self.weight.value.len())?;
        match &self.grid {
            Some(grid) => device.quantise(grid, &self.weight.value.data, &mut self.used),
            None => {
                device.resize(&mut self.slope, self.output.map.channels)?;
                device.ttfs_slope(&self.weight.value.data, &mut self.slope, &mut self.used)
            }
        }
    }
}

/// Turns the weights of rectifiers `[M, N]` into the currents of neurons with a slope of their own, and gives the factor by
/// which what reads each neuron must enlarge it.
///
/// The weights of a neuron must add up to less than 1. Where they do not, the neuron is made smaller, and the next layer's
/// weights are to be larger by as much: a network of rectifiers stays the same.
///
/// # Errors
///
/// If the device fails.
pub fn rectifiers_to_currents<B: Backend>(device: &B, weight: &mut Parameter<B>) -> Result<Vec<f64>> {
    let width = weight.value.shape.last().copied().unwrap_or(1);
    let mut values = device.to_host(&weight.value.data)?;
    let mut outgoing = Vec::with_capacity(width);
    for n in 0..width {
        let sum: f64 = values.iter().skip(n).step_by(width).map(|w| w.value()).sum();
        let halvings = if sum < LARGEST_SUM { 0 } else { (sum / LARGEST_SUM).log2().floor() as i32 + 1 };
        let factor = 0.5_f64.powi(halvings);
        for w in values.iter_mut().skip(n).step_by(width) {
            *w = B::Real::lit(ttfs::current_of(factor * w.value(), factor * sum));
        }
        outgoing.push(1.0 / factor);
    }
    device.upload(&values, &mut weight.value.data)?;
    Ok(outgoing)
}

/// Multiplies what weights `[M, N]` read of each input by its factor.
///
/// # Errors
///
/// If the device fails.
pub fn enlarge_inputs<B: Backend>(device: &B, weight: &mut Parameter<B>, factors: &[f64]) -> Result<()> {
    let mut values = device.to_host(&weight.value.data)?;
    let width = values.len() / factors.len().max(1);
    for (row, factor) in values.chunks_mut(width.max(1)).zip(factors) {
        row.iter_mut().for_each(|w| *w *= B::Real::lit(*factor));
    }
    device.upload(&values, &mut weight.value.data)
}

impl<B: Backend> Layer<B> for TtfsLayer<B> {
    fn name(&self) -> String {
        let slope = if self.config.slope == SlopeConfig::One { "ttfs" } else { "ttfs alpha" };
        match &self.synapses {
            Synapses::Dense { inputs, outputs } => format!("{slope} {inputs} -> {outputs}"),
            Synapses::Conv(conv) => format!("{slope} conv {} -> {}", conv.input, conv.output()),
        }
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        self.output
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let x = input.numbers("ttfs")?;
        let (rows, width) = (x.shape[0], self.output.width());
        self.draw = pass.draw;
        self.derive_weights(device)?;
        let perturbation = self.input_perturbation(pass.mode);
        let draws = self.draws(INPUT_DRAWS);
        let x = if perturbation.is_none() {
            &x.data
        } else {
            let Activity::Values(arrived) = &mut self.arrived else {
                return Err(self.arrived.unwanted("the layer's input", Kind::Values));
            };
            arrived.resize(device, &x.shape)?;
            device.ttfs_perturb(&perturbation, draws, rows, &self.input_window, &x.data, &mut arrived.data)?;
            &self.arrived.numbers("ttfs")?.data
        };
        let weight = if self.derives_weights() { &self.used } else { &self.weight.value.data };
        let slope = (self.config.slope != SlopeConfig::One).then_some(&self.slope);
        let (neuron, perturbation, draws) = (self.neuron(), self.perturbation(), self.draws(0));
        let Activity::Times(given) = &mut self.given else {
            return Err(self.given.unwanted("the layer's output", Kind::Times));
        };
        given.resize(device, &[rows, width])?;
        match &self.synapses {
            Synapses::Dense { inputs, outputs } => {
                device.gemm(Gemm::new(rows, *outputs, *inputs), x, weight, &mut given.data)?;
            }
            Synapses::Conv(conv) => device.conv_dense(conv, rows, x, weight, None, &mut given.data)?,
        }
        let (shift, window) = (&self.shift.value.data, &self.window.value.data);
        device.ttfs_forward(&neuron, &self.borders, shift, slope, window, &mut given.data)?;
        if !perturbation.is_none() {
            device.resize(&mut self.clean, rows * width)?;
            device.copy(&given.data, &mut self.clean)?;
            device.ttfs_perturb(&perturbation, draws, rows, window, &self.clean, &mut given.data)?;
        }
        // A window must hold what arrives; but noise is no spike, so that of neurons with noisy times those count that fired
        // without it.
        device.ttfs_census(rows, window, &given.data, &mut self.census)?;
        if perturbation.noise > 0.0 {
            let peaks = std::mem::replace(&mut self.census.peaks, device.zeros(rows)?);
            device.ttfs_census(rows, window, &self.clean, &mut self.census)?;
            self.census.peaks = peaks;
        }
        Ok(())
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn first_spikes(&self) -> Option<FirstSpikes<'_, B>> {
        let earliness = match &self.given {
            _ if self.config.noise > 0.0 => &self.clean,
            Activity::Times(given) => &given.data,
            _ => return None,
        };
        Some(FirstSpikes { earliness, census: &self.census, window: &self.window.value.data })
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let x = input.numbers("ttfs")?;
        let rows = x.shape[0];
        let (neuron, perturbation, draws) = (self.neuron(), self.perturbation(), self.draws(0));
        let window = &self.window.value.data;
        let grad = &mut grad_output.data;
        let earliness = if perturbation.is_none() {
            &self.given.numbers("ttfs")?.data
        } else {
            device.ttfs_perturb_grad(&perturbation, draws, rows, window, &self.clean, grad)?;
            &self.clean
        };
        device.ttfs_backward(&neuron, &self.borders, window, earliness, grad, &mut self.shift.grad.data)?;

        // A backward pass follows a forward pass of training, where the input has no noise.
        let on_input = self.input_perturbation(Mode::Train);
        let arrived = if on_input.is_none() { &x.data } else { &self.arrived.numbers("ttfs")?.data };
        let used = if self.derives_weights() { &self.used } else { &self.weight.value.data };
        let grad_weight = &mut self.weight.grad.data;
        match &self.synapses {
            Synapses::Dense { inputs, outputs } => {
                device.gemm(Gemm::new(*inputs, *outputs, rows).a_transposed(), arrived, grad, grad_weight)?;
            }
            Synapses::Conv(conv) => device.conv_dense_weight_grad(conv, rows, arrived, grad, grad_weight)?,
        }
        if let Some(grid) = &self.grid {
            device.quantise_grad(grid, &self.weight.value.data, grad_weight)?;
        } else if self.config.slope != SlopeConfig::One {
            device.ttfs_slope_grad(&self.slope, &self.used, grad_weight)?;
        }
        if let Some(grad_input) = grad_input {
            match &self.synapses {
                Synapses::Dense { inputs, outputs } => {
                    let product = Gemm::new(rows, *inputs, *outputs).b_transposed();
                    device.gemm(product, grad, used, &mut grad_input.data)?;
                }
                Synapses::Conv(conv) => device.conv_input_grad(conv, rows, grad, used, &mut grad_input.data)?,
            }
            if !on_input.is_none() {
                let (draws, window) = (self.draws(INPUT_DRAWS), &self.input_window);
                device.ttfs_perturb_grad(&on_input, draws, rows, window, &x.data, &mut grad_input.data)?;
            }
        }
        if self.config.growth > 0.0 {
            device.ttfs_grow(self.config.growth, &self.census.peaks, &mut self.window.value.data)?;
        }
        Ok(())
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![&self.weight, &self.shift, &self.window]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![&mut self.weight, &mut self.shift, &mut self.window]
    }

    fn repeats(&self) -> bool {
        self.config.noise == 0.0
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let real = size_of::<B::Real>();
        let own = if self.perturbation().is_none() { 1 } else { 2 };
        let input = if self.input_perturbation(mode).is_none() { 0 } else { batch * self.input.width() };
        let weights = if self.derives_weights() { self.weight.value.len() } else { 0 };
        (own * batch * self.output.width() + input + weights) * real
    }
}
