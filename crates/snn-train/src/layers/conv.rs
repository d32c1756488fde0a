//! Convolutional projection: the same kernel at every position of every step, one bias per channel.

use snn_core::{Activity, Backend, Conv, Kind, Parameter, Pass, Result, Tensor};

use super::{Projection, init};
use crate::config::Init;

/// Weights `[rows, columns, c_in, c_out]` and, unless it is left out, a bias `[c_out]`.
#[derive(Debug)]
pub struct Convolution<B: Backend> {
    conv: Conv,
    weight: Parameter<B>,
    bias: Option<Parameter<B>>,
}

impl<B: Backend> Convolution<B> {
    /// A projection with fresh weights.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, conv: Conv, init: Init, seed: (u64, usize)) -> Result<Self> {
        let (c_in, c_out) = (conv.input.channels, conv.channels);
        let (rows, columns) = (conv.kernel, conv.kernel_width);
        let fans = (conv.fan_in(), rows * columns * c_out);
        let weight = init::weights(device, init, &[rows, columns, c_in, c_out], fans, seed)?;
        Ok(Self { conv, weight, bias: Some(init::bias(device, c_out)?) })
    }

    /// The same projection without a bias.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }
}

impl<B: Backend> Projection<B> for Convolution<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        _: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let (weight, bias) = (&self.weight.value.data, self.bias.as_ref().map(|b| &b.value.data));
        match input {
            Activity::Spikes(spikes) => device.conv_spikes(&self.conv, spikes, weight, bias, current),
            Activity::Sequence(x) | Activity::Values(x) | Activity::Times(x) => {
                device.conv_dense(&self.conv, rows, &x.data, weight, bias, current)
            }
            other => Err(other.unwanted("conv", Kind::Spikes)),
        }
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
        let grad_weight = &mut self.weight.grad.data;
        match input {
            Activity::Spikes(spikes) => device.conv_spikes_weight_grad(&self.conv, spikes, grad, grad_weight)?,
            Activity::Sequence(x) | Activity::Values(x) | Activity::Times(x) => {
                device.conv_dense_weight_grad(&self.conv, rows, &x.data, grad, grad_weight)?;
            }
            other => return Err(other.unwanted("conv", Kind::Spikes)),
        }
        let channels = self.conv.channels;
        if let Some(bias) = &mut self.bias {
            device.sum_rows(device.len(sums) / channels, channels, sums, &mut bias.grad.data)?;
        }
        if let Some(grad_input) = grad_input {
            device.conv_input_grad(&self.conv, rows, grad, &self.weight.value.data, &mut grad_input.data)?;
        }
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        [&self.weight].into_iter().chain(&self.bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        [&mut self.weight].into_iter().chain(&mut self.bias).collect()
    }
}
