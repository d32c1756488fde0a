//! Batch normalisation of currents: a projection whose channels have mean 0 and variance 1 over the batch.
//!
//! ```text
//! h = (x - mean) / sqrt(variance + eps),   current = gain h + offset                                  (NRM-1)
//! running = (1 - momentum) running + momentum batch                                                 (NRM-2)
//! ```
//!
//! Statistics are those of a channel over samples, steps and positions; training takes those of the batch, evaluation
//! the running ones. The running variance is that of a sample (`R - 1` in place of `R`), as is usual. The offset stands in
//! for the bias, which the projection inside must not have.

use snn_core::backend::ChannelNorm;
use snn_core::{Activity, Backend, Lanes, Mode, Parameter, Pass, Real, Result, Tensor};

use super::Projection;
use crate::config::NormConfig;

/// A projection with normalised channels.
#[derive(Debug)]
pub struct Normed<B: Backend> {
    inner: Box<dyn Projection<B>>,
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

impl<B: Backend> Normed<B> {
    /// Normalises the `channels` channels of a projection without a bias.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, inner: Box<dyn Projection<B>>, channels: usize, config: NormConfig) -> Result<Self> {
        let NormConfig::Batch { momentum, eps } = config;
        let parameter = |name, start| Parameter::new(device, name, &[channels], &vec![start; channels]);
        let (zero, one) = (B::Real::ZERO, B::Real::ONE);
        Ok(Self {
            inner,
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
        let Self { momentum, eps, gain, offset, mean, variance, batch, trace, .. } = self;
        let (eps, gain, offset) = (*eps, &gain.value.data, &offset.value.data);
        if pass.mode == Mode::Evaluate {
            let norm = ChannelNorm { eps, mean: &mean.value.data, variance: &variance.value.data, gain, offset };
            return device.normalise_channels(norm, current, None);
        }
        let [batch_mean, batch_variance] = batch;
        device.channel_moments(current, batch_mean, batch_variance)?;
        let count = device.len(current) as f64 / mean.value.len().max(1) as f64;
        let sample = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        for (running, now, factor) in [(mean, &*batch_mean, 1.0), (variance, &*batch_variance, sample)] {
            device.scale(1.0 - *momentum, &mut running.value.data)?;
            device.add_scaled(*momentum * factor, now, &mut running.value.data)?;
        }
        device.resize(trace, device.len(current))?;
        let norm = ChannelNorm { eps, mean: batch_mean, variance: batch_variance, gain, offset };
        device.normalise_channels(norm, current, Some(trace))
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
        let Self { inner, eps, gain, offset, batch: [mean, variance], trace, .. } = self;
        let norm = ChannelNorm { eps: *eps, mean, variance, gain: &gain.value.data, offset: &offset.value.data };
        device.normalise_channels_grad(norm, grad, trace, &mut gain.grad.data, &mut offset.grad.data)?;
        // The sums are those of another gradient; nothing inside reads them, as there is no bias.
        inner.backward(device, input, rows, trace, sums, grad_input)
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.inner.set_epoch(device, finished, epochs)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let mut all = self.inner.parameters();
        all.extend([&self.gain, &self.offset, &self.mean, &self.variance]);
        all
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let mut all = self.inner.parameters_mut();
        all.extend([&mut self.gain, &mut self.offset, &mut self.mean, &mut self.variance]);
        all
    }

    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        let trace = if mode == Mode::Train { lanes.len() * size_of::<B::Real>() } else { 0 };
        trace + self.inner.extra_bytes(lanes, mode)
    }
}
