//! Dense projection: every input to every neuron, bias at every step.

use snn_core::backend::Gemm;
use snn_core::neurons::ttfs::Grid;
use snn_core::{Activity, Backend, Kind, Lanes, Mode, Parameter, Pass, Result, Tensor};

use super::{Projection, init};
use crate::config::Init;

/// Weights `[M, N]` (inputs by outputs) and, unless it is left out, a bias `[N]`.
#[derive(Debug)]
pub struct Dense<B: Backend> {
    inputs: usize,
    outputs: usize,
    weight: Parameter<B>,
    bias: Option<Parameter<B>>,
    // The values that weights in use can take, and these weights.
    grid: Option<Grid>,
    coarse: B::Buffer<B::Real>,
}

impl<B: Backend> Dense<B> {
    /// A projection with fresh weights.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, inputs: usize, outputs: usize, init: Init, seed: (u64, usize)) -> Result<Self> {
        let weight = init::weights(device, init, &[inputs, outputs], (inputs, outputs), seed)?;
        let (bias, coarse) = (Some(init::bias(device, outputs)?), device.zeros(0)?);
        Ok(Self { inputs, outputs, weight, bias, grid: None, coarse })
    }

    /// The same projection with coarse weights.
    #[must_use]
    pub fn quantised(self, grid: Grid) -> Self {
        Self { grid: Some(grid), ..self }
    }

    /// The weights in use.
    fn used(&self) -> &B::Buffer<B::Real> {
        if self.grid.is_some() { &self.coarse } else { &self.weight.value.data }
    }

    /// The same projection without a bias.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }
}

impl<B: Backend> Projection<B> for Dense<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        _: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        if let Some(grid) = &self.grid {
            device.resize(&mut self.coarse, self.weight.value.len())?;
            device.quantise(grid, &self.weight.value.data, &mut self.coarse)?;
        }
        let (weight, bias) = (self.used(), self.bias.as_ref().map(|b| &b.value.data));
        match input {
            Activity::Spikes(spikes) => device.spikes_gemm(spikes, self.outputs, weight, bias, current),
            Activity::Sequence(x) | Activity::Values(x) | Activity::Times(x) => {
                device.gemm(Gemm::new(rows, self.outputs, self.inputs), &x.data, weight, current)?;
                bias.map_or(Ok(()), |bias| device.add_bias(rows, bias, current))
            }
            other => Err(other.unwanted("dense", Kind::Spikes)),
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
        let (m, n) = (self.inputs, self.outputs);
        let grad_weight = &mut self.weight.grad.data;
        match input {
            Activity::Spikes(spikes) => device.spikes_gemm_weight_grad(spikes, n, grad, grad_weight)?,
            Activity::Sequence(x) | Activity::Values(x) | Activity::Times(x) => {
                device.gemm(Gemm::new(m, n, rows).a_transposed(), &x.data, grad, grad_weight)?;
            }
            other => return Err(other.unwanted("dense", Kind::Spikes)),
        }
        if let Some(grid) = &self.grid {
            device.quantise_grad(grid, &self.weight.value.data, grad_weight)?;
        }
        if let Some(bias) = &mut self.bias {
            device.sum_rows(device.len(sums) / n, n, sums, &mut bias.grad.data)?;
        }
        if let Some(grad_input) = grad_input {
            device.gemm(Gemm::new(rows, m, n).b_transposed(), grad, self.used(), &mut grad_input.data)?;
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

    fn extra_bytes(&self, _: Lanes, _: Mode) -> usize {
        if self.grid.is_some() { self.weight.value.len() * size_of::<B::Real>() } else { 0 }
    }
}
