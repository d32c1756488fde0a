//! Layers: something linear (dense, convolution) turns activity into current, a neuron family turns current into
//! activity. One file each; the neuron files have the names of [`snn_core::neurons`].

pub mod block;
pub mod clocked;
pub mod conv;
pub mod decay;
pub mod dense;
pub mod init;
pub mod lif;
pub mod pool;
pub mod readout;

use std::fmt::Debug;

use snn_core::{Activity, Backend, Lanes, Parameter, Result, Tensor};

pub use clocked::Clocked;
pub use pool::PoolLayer;
pub use readout::Readout;

/// The linear half of a layer: activity in, current out.
///
/// Rows of the current are steps for clocked inputs and samples for [`Activity::Values`].
pub trait Projection<B: Backend>: Debug + Send {
    /// Computes the current of every row.
    ///
    /// # Errors
    ///
    /// If the input does not fit, or the device fails.
    fn forward(&mut self, device: &B, input: &Activity<B>, rows: usize, current: &mut B::Buffer<B::Real>)
    -> Result<()>;

    /// Computes the gradients of the weights, of the bias from `sums` (the gradient summed over time, `[B, N]`), and,
    /// if wanted, of the input.
    ///
    /// # Errors
    ///
    /// As `forward`.
    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()>;

    /// Weight and bias.
    fn parameters(&self) -> [&Parameter<B>; 2];

    /// Weight and bias, to be updated.
    fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2];
}

/// The neuron half of a layer: current in, spikes out, in place.
pub trait Cell<B: Backend>: Debug + Send {
    /// Turns the current in `state` into whatever [`Cell::backward`] needs, and writes the spikes.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()>;

    /// Turns the gradient on the spikes into the gradient on the current, sums it over time into `sums`, and computes
    /// the gradients of the cell's own parameters.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn backward(
        &mut self,
        device: &B,
        lanes: Lanes,
        state: &B::Buffer<B::Real>,
        grad: &mut B::Buffer<B::Real>,
        grad_membrane: Option<&B::Buffer<B::Real>>,
        sums: &mut B::Buffer<B::Real>,
    ) -> Result<()>;

    /// The family's name.
    fn name(&self) -> &'static str;

    /// The parameters.
    fn parameters(&self) -> Vec<&Parameter<B>>;

    /// The parameters, to be updated.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>>;
}
