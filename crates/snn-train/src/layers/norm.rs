//! Batch normalisation: channels that have mean 0 and variance 1 over the batch. Of currents, as a projection around
//! another one, or of values, as a layer of its own.
//!
//! ```text
//! h = (x - mean) / sqrt(variance + eps),   y = gain h + offset                                        (NRM-1)
//! running = (1 - momentum) running + momentum batch                                                 (NRM-2)
//! ```
//!
//! Statistics are those of a channel over samples, steps and positions; training takes those of the batch, evaluation
//! the running ones. The running variance is that of a sample (`R - 1` in place of `R`), as is usual. The offset stands in
//! for the bias, which a projection inside must not have.

use snn_core::backend::ChannelNorm;
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Mode, Parameter, Pass, Real, Result, Signal, Tensor};

use super::Projection;
use crate::config::NormConfig;

/// The normalisation itself: its parameters, and what a backward pass needs.
#[derive(Debug)]
struct BatchNorm<B: Backend> {
    momentum: f64,
    eps: f64,
    gain: Parameter<B>,
    offset: Parameter<B>,
    // Running statistics: parameters that are not learned, so that checkpoints carry them.
    mean: Parameter<B>,
    variance: Parameter<B>,
    batch: [B::Buffer<B::Real>; 2],
    // h of the last training pass, then the gradient on x.
    trace: B::Buffer<B::Real>,
}

impl<B: Backend> BatchNorm<B> {
    fn new(device: &B, channels: usize, config: NormConfig) -> Result<Self> {
        let NormConfig::Batch { momentum, eps } = config;
        let parameter = |name, start| Parameter::new(device, name, &[channels], &vec![start; channels]);
        let (zero, one) = (B::Real::ZERO, B::Real::ONE);
        Ok(Self {
            momentum,
            eps,
            gain: parameter("norm_gain", one)?,
            offset: parameter("norm_offset", zero)?,
            mean: parameter("norm_mean", zero)?.with_learnable(false),
            variance: parameter("norm_variance", one)?.with_learnable(false),
            batch: [device.zeros(channels)?, device.zeros(channels)?],
            trace: device.zeros(0)?,
        })
    }

    /// Normalises in place.
    fn forward(&mut self, device: &B, pass: Pass, x: &mut B::Buffer<B::Real>) -> Result<()> {
        let Self { momentum, eps, gain, offset, mean, variance, batch, trace } = self;
        let (eps, gain, offset) = (*eps, &gain.value.data, &offset.value.data);
        if pass.mode == Mode::Evaluate {
            let norm = ChannelNorm { eps, mean: &mean.value.data, variance: &variance.value.data, gain, offset };
            return device.normalise_channels(norm, x, None);
        }
        let [batch_mean, batch_variance] = batch;
        device.channel_moments(x, batch_mean, batch_variance)?;
        let count = device.len(x) as f64 / mean.value.len().max(1) as f64;
        let sample = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        for (running, now, factor) in [(mean, &*batch_mean, 1.0), (variance, &*batch_variance, sample)] {
            device.scale(1.0 - *momentum, &mut running.value.data)?;
            device.add_scaled(*momentum * factor, now, &mut running.value.data)?;
        }
        device.resize(trace, device.len(x))?;
        let norm = ChannelNorm { eps, mean: batch_mean, variance: batch_variance, gain, offset };
        device.normalise_channels(norm, x, Some(trace))
    }

    /// The gradient on what was normalised, from the one on what came of it.
    fn backward(&mut self, device: &B, grad: &B::Buffer<B::Real>) -> Result<&B::Buffer<B::Real>> {
        let Self { eps, gain, offset, batch: [mean, variance], trace, .. } = self;
        let norm = ChannelNorm { eps: *eps, mean, variance, gain: &gain.value.data, offset: &offset.value.data };
        device.normalise_channels_grad(norm, grad, trace, &mut gain.grad.data, &mut offset.grad.data)?;
        Ok(trace)
    }

    fn parameters(&self) -> [&Parameter<B>; 4] {
        [&self.gain, &self.offset, &self.mean, &self.variance]
    }

    fn parameters_mut(&mut self) -> [&mut Parameter<B>; 4] {
        [&mut self.gain, &mut self.offset, &mut self.mean, &mut self.variance]
    }
}

/// A projection with normalised channels.
#[derive(Debug)]
pub struct Normed<B: Backend> {
    inner: Box<dyn Projection<B>>,
    norm: BatchNorm<B>,
}

impl<B: Backend> Normed<B> {
    /// Normalises the `channels` channels of a projection without a bias.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, inner: Box<dyn Projection<B>>, channels: usize, config: NormConfig) -> Result<Self> {
        Ok(Self { inner, norm: BatchNorm::new(device, channels, config)? })
    }
}

impl<B: Backend> Projection<B> for Normed<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        pass: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        self.inner.forward(device, input, rows, pass, current)?;
        self.norm.forward(device, pass, current)
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let inside = self.norm.backward(device, grad)?;
        // The sums are those of another gradient; nothing inside reads them, as there is no bias.
        self.inner.backward(device, input, rows, inside, sums, grad_input)
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.inner.set_epoch(device, finished, epochs)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.inner.parameters().into_iter().chain(self.norm.parameters()).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.inner.parameters_mut().into_iter().chain(self.norm.parameters_mut()).collect()
    }

    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        let trace = if mode == Mode::Train { lanes.len() * size_of::<B::Real>() } else { 0 };
        trace + self.inner.extra_bytes(lanes, mode)
    }
}

/// A layer that normalises the channels of values.
#[derive(Debug)]
pub struct NormLayer<B: Backend> {
    signal: Signal,
    norm: BatchNorm<B>,
    given: Activity<B>,
}

impl<B: Backend> NormLayer<B> {
    /// Normalises every channel of `signal`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, signal: Signal, config: NormConfig) -> Result<Self> {
        let norm = BatchNorm::new(device, signal.map.channels, config)?;
        Ok(Self { signal, norm, given: Activity::Values(Tensor::zeros(device, &[0])?) })
    }
}

impl<B: Backend> Layer<B> for NormLayer<B> {
    fn name(&self) -> String {
        format!("norm {}", self.signal.map)
    }

    fn input(&self) -> Signal {
        self.signal
    }

    fn output_signal(&self) -> Signal {
        self.signal
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let x = input.values("norm")?;
        let Activity::Values(given) = &mut self.given else {
            return Err(self.given.unwanted("the layer's output", Kind::Values));
        };
        given.resize(device, &x.shape)?;
        device.copy(&x.data, &mut given.data)?;
        self.norm.forward(device, pass, &mut given.data)
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn backward(
        &mut self,
        device: &B,
        _: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let inside = self.norm.backward(device, &grad_output.data)?;
        grad_input.map_or(Ok(()), |grad_input| device.copy(inside, &mut grad_input.data))
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.norm.parameters().to_vec()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.norm.parameters_mut().into_iter().collect()
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let arrays = if mode == Mode::Train { 2 } else { 1 };
        arrays * self.signal.lanes(batch).len() * size_of::<B::Real>()
    }
}
