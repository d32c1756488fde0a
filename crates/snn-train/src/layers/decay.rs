//! The decay that leaky cells share: one parameter for the layer or one per neuron, fixed or learned.

use snn_core::backend::{Leak, LeakGrad};
use snn_core::{Backend, Lanes, Parameter, Real, Result};

/// The raw decay (used as `clamp(raw, 0, 1)`) and scratch for its gradient.
#[derive(Debug)]
pub struct Decay<B: Backend> {
    beta: Parameter<B>,
    lanes: B::Buffer<B::Real>,
}

impl<B: Backend> Decay<B> {
    /// `width` decays, or one if `shared`, that start at `beta`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, width: usize, beta: f64, shared: bool, learnable: bool) -> Result<Self> {
        let len = if shared { 1 } else { width };
        let beta = Parameter::new(device, "beta", &[len], &vec![B::Real::lit(beta); len])?;
        Ok(Self { beta: beta.with_learnable(learnable), lanes: device.zeros(0)? })
    }

    /// The leak without an initial membrane.
    pub fn leak(&self) -> Leak<'_, B> {
        Leak { beta_raw: &self.beta.value.data, initial: None }
    }

    /// Runs an adjoint with the right places for its gradients, and sums the decay's.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn backward(
        &mut self,
        device: &B,
        lanes: Lanes,
        grad_membrane: Option<&B::Buffer<B::Real>>,
        sums: &mut B::Buffer<B::Real>,
        adjoint: impl FnOnce(Leak<'_, B>, LeakGrad<'_, B>) -> Result<()>,
    ) -> Result<()> {
        let lane_count = lanes.batch * lanes.width;
        if self.beta.learnable {
            device.resize(&mut self.lanes, lane_count)?;
        }
        let beta = self.beta.learnable.then_some(&mut self.lanes);
        let leak = Leak { beta_raw: &self.beta.value.data, initial: None };
        adjoint(leak, LeakGrad { membrane: grad_membrane, beta, initial: None, current_sum: Some(sums) })?;
        if self.beta.learnable {
            let len = self.beta.value.len();
            device.sum_rows(lane_count / len, len, &self.lanes, &mut self.beta.grad.data)?;
        }
        Ok(())
    }

    /// The parameter.
    pub fn parameter(&self) -> &Parameter<B> {
        &self.beta
    }

    /// The parameter, to be updated.
    pub fn parameter_mut(&mut self) -> &mut Parameter<B> {
        &mut self.beta
    }
}
