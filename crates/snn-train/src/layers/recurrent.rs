//! The weights of a recurrent connection within a layer.

use snn_core::backend::{Gemm, Recurrent};
use snn_core::{Backend, Lanes, Parameter, Result};

use super::init;
use crate::config::Init;

/// What a recurrent connection carried, for its weights.
#[derive(Debug)]
pub enum Carried<'a, B: Backend> {
    /// Spikes.
    Spikes(&'a B::Spikes),
    /// Values `[B, T, N]`.
    Values(&'a B::Buffer<B::Real>),
}

impl<B: Backend> Clone for Carried<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Carried<'_, B> {}

/// Weights `[N, N]`, source by target, and a bias `[N]` that acts at every step.
#[derive(Debug)]
pub struct RecurrentWeights<B: Backend> {
    width: usize,
    weight: Parameter<B>,
    bias: Parameter<B>,
}

impl<B: Backend> RecurrentWeights<B> {
    /// Fresh weights for `width` neurons.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, width: usize, init: Init, seed: (u64, usize)) -> Result<Self> {
        // A stream of its own, beside that of the layer's weights.
        let seed = (seed.0, seed.1 | 1 << 16);
        let weight = init::weights(device, init, &[width, width], (width, width), seed)?;
        let rename = |p: Parameter<B>, name| Parameter { name, ..p };
        Ok(Self {
            width,
            weight: rename(weight, "recurrent_weight"),
            bias: rename(init::bias(device, width)?, "recurrent_bias"),
        })
    }

    /// As the operations take them.
    pub fn view(&self) -> Recurrent<'_, B> {
        Recurrent { weight: &self.weight.value.data, bias: &self.bias.value.data }
    }

    /// `current = carried R + c_r`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn forward(
        &self,
        device: &B,
        lanes: Lanes,
        carried: Carried<'_, B>,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let (weight, bias) = (&self.weight.value.data, &self.bias.value.data);
        match carried {
            Carried::Spikes(spikes) => device.spikes_gemm(spikes, self.width, weight, Some(bias), current),
            Carried::Values(x) => {
                device.gemm(Gemm::new(lanes.rows(), self.width, self.width), x, weight, current)?;
                device.add_bias(lanes.rows(), bias, current)
            }
        }
    }

    /// The gradients of weights and bias from that on the current, `[B, T, N]`, and from its sums over time, `[B, N]`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn weight_grad(
        &mut self,
        device: &B,
        lanes: Lanes,
        carried: Carried<'_, B>,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
    ) -> Result<()> {
        let (n, out) = (self.width, &mut self.weight.grad.data);
        match carried {
            Carried::Spikes(spikes) => device.spikes_gemm_weight_grad(spikes, n, grad, out)?,
            Carried::Values(x) => device.gemm(Gemm::new(n, n, lanes.rows()).a_transposed(), x, grad, out)?,
        }
        device.sum_rows(lanes.batch, n, sums, &mut self.bias.grad.data)
    }

    /// The gradient on what was carried.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn carried_grad(
        &self,
        device: &B,
        lanes: Lanes,
        grad: &B::Buffer<B::Real>,
        out: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let gemm = Gemm::new(lanes.rows(), self.width, self.width).b_transposed();
        device.gemm(gemm, grad, &self.weight.value.data, out)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.weight, &self.bias]
    }

    /// Weight and bias, to be updated.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.weight, &mut self.bias]
    }
}
