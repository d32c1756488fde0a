//! Dense projection with learned delays: every synapse has a weight and a position; maths in
//! [`snn_core::backend::DelayOps`].
//!
//! The bell around a position begins wide, so that a gradient is felt from afar, and is narrowed in the first part of
//! training: after `e` of `E` epochs, of which a share `a` is for that,
//!
//! ```text
//! sigma = sigma_start (sigma_end / sigma_start)^min(1, e / (a E))                                       (DLY-4)
//! ```
//!
//! Sigma is a parameter that is not learned, so that a model file says how its delays are to be read.

use snn_core::backend::{DelayKernel, Delays};
use snn_core::random::{Purpose, Stream};
use snn_core::{Activity, Backend, Kind, Lanes, Mode, Parameter, Pass, Real, Result, Tensor};

use super::{Projection, init};
use crate::config::{DelaysConfig, Init};

/// Weights and positions `[M, N]` and a bias `[N]`.
#[derive(Debug)]
pub struct Delayed<B: Backend> {
    config: DelaysConfig,
    delays: Delays,
    weight: Parameter<B>,
    position: Parameter<B>,
    sigma: Parameter<B>,
    bias: Option<Parameter<B>>,
    // `[M, D, N]`
    kernel: B::Buffer<B::Real>,
    grad_kernel: B::Buffer<B::Real>,
}

impl<B: Backend> Delayed<B> {
    /// A projection with fresh weights and positions that are spread evenly over the range.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(
        device: &B,
        (inputs, outputs): (usize, usize),
        config: &DelaysConfig,
        init: Init,
        bias: bool,
        seed: (u64, usize),
    ) -> Result<Self> {
        let shape = [inputs, outputs];
        // A stream of its own, beside that of the layer's weights.
        let mut stream = Stream::new(seed.0, Purpose::Init, [seed.1 as u32 | 1 << 17, 0]);
        let last = (config.max - 1) as f64;
        let positions: Vec<B::Real> =
            (0..inputs * outputs).map(|_| B::Real::lit(f64::from(stream.unit()) * last)).collect();
        let entries = inputs * config.max * outputs;
        Ok(Self {
            delays: Delays { width: outputs, delays: config.max },
            weight: init::weights(device, init, &shape, (inputs, outputs), seed)?,
            position: Parameter::new(device, "position", &shape, &positions)?.with_rate(config.rate),
            sigma: Parameter::new(device, "sigma", &[1], &[B::Real::lit(config.sigma)])?.with_learnable(false),
            bias: bias.then(|| init::bias(device, outputs)).transpose()?,
            kernel: device.zeros(entries)?,
            grad_kernel: device.zeros(0)?,
            config: config.clone(),
        })
    }
}

fn spikes_of<B: Backend>(input: &Activity<B>) -> Result<&B::Spikes> {
    match input {
        Activity::Spikes(spikes) => Ok(spikes),
        other => Err(other.unwanted("a projection with delays", Kind::Spikes)),
    }
}

impl<B: Backend> Projection<B> for Delayed<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        pass: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let spikes = spikes_of(input)?;
        // Beyond the range a position would have no gradient and never come back.
        device.clamp(0.0, (self.delays.delays - 1) as f64, &mut self.position.value.data)?;
        let rounded = self.config.round && pass.mode == Mode::Evaluate;
        let parameters = DelayKernel {
            weight: &self.weight.value.data,
            position: &self.position.value.data,
            sigma: (!rounded).then_some(&self.sigma.value.data),
        };
        device.delay_kernel(self.delays, parameters, &mut self.kernel)?;
        device.delay_forward(self.delays, spikes, &self.kernel, current)?;
        self.bias.as_ref().map_or(Ok(()), |bias| device.add_bias(rows, &bias.value.data, current))
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        _: usize,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let spikes = spikes_of(input)?;
        let Self { delays, weight, position, sigma, bias, kernel, grad_kernel, .. } = self;
        device.resize(grad_kernel, device.len(kernel))?;
        device.delay_weight_grad(*delays, spikes, grad, grad_kernel)?;
        let parameters =
            DelayKernel { weight: &weight.value.data, position: &position.value.data, sigma: Some(&sigma.value.data) };
        let (on_weight, on_position) = (&mut weight.grad.data, &mut position.grad.data);
        device.delay_kernel_grad(*delays, parameters, grad_kernel, on_weight, on_position)?;
        if let Some(bias) = bias {
            let n = delays.width;
            device.sum_rows(device.len(sums) / n, n, sums, &mut bias.grad.data)?;
        }
        match grad_input {
            Some(out) => device.delay_input_grad(*delays, device.spike_lanes(spikes), grad, kernel, &mut out.data),
            None => Ok(()),
        }
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        let sigma = self.config.sigma_after(finished, epochs);
        device.upload(&[B::Real::lit(sigma)], &mut self.sigma.value.data)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        [&self.weight, &self.position, &self.sigma].into_iter().chain(&self.bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        [&mut self.weight, &mut self.position, &mut self.sigma].into_iter().chain(&mut self.bias).collect()
    }

    fn extra_bytes(&self, _: Lanes, mode: Mode) -> usize {
        let kernels = if mode == Mode::Train { 2 } else { 1 };
        kernels * self.weight.value.len() * self.delays.delays * size_of::<B::Real>()
    }
}
