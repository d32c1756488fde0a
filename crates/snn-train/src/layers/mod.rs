//! Layers: something linear (dense, convolution) turns activity into current, a neuron family turns current into
//! activity. One file each; the neuron files have the names of [`snn_core::neurons`].

pub mod alif;
pub mod avg_pool;
pub mod block;
pub mod clocked;
pub mod conv;
pub mod cuba;
pub mod decay;
pub mod delays;
pub mod dense;
pub mod dropout;
pub mod event;
pub mod field;
pub mod filtered;
pub mod gain;
pub mod init;
pub mod lif;
pub mod max_pool;
pub mod norm;
pub mod paralif;
pub mod pool;
pub mod project;
pub mod readout;
pub mod recurrent;
pub mod relu;
pub mod ttfs;
pub mod vote;

use std::fmt::Debug;

use snn_core::{Activity, Backend, Lanes, Mode, Parameter, Pass, Result, Tensor};

pub use avg_pool::AvgPool;
pub use clocked::Clocked;
pub use dropout::Dropout;
pub use event::{EventLayer, MergeLayer, TrainReader};
pub use max_pool::MaxPool;
pub use norm::NormLayer;
pub use pool::PoolLayer;
pub use readout::Readout;
pub use relu::ReluLayer;
pub use ttfs::TtfsLayer;

/// The linear half of a layer: activity in, current out.
///
/// Rows of the current are steps for clocked inputs and samples for [`Activity::Values`].
pub trait Projection<B: Backend>: Debug + Send {
    /// Computes the current of every row.
    ///
    /// # Errors
    ///
    /// If the input does not fit, or the device fails.
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        pass: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()>;

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

    /// Says how far training is; see [`snn_core::Layer::set_epoch`].
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        let _ = (device, finished, epochs);
        Ok(())
    }

    /// Whether passes queue the same work every time; see [`snn_core::Layer::repeats`].
    fn repeats(&self) -> bool {
        false
    }

    /// Weight, bias and what else there is, in a fixed order.
    fn parameters(&self) -> Vec<&Parameter<B>>;

    /// The same, to be updated.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>>;

    /// Bytes that the projection holds beside its parameters, for a current of the given size.
    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        let _ = (lanes, mode);
        0
    }
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
        pass: Pass,
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

    /// Whether passes queue the same work every time; see [`snn_core::Layer::repeats`].
    fn repeats(&self) -> bool {
        false
    }

    /// The family's name.
    fn name(&self) -> &str;

    /// The parameters.
    fn parameters(&self) -> Vec<&Parameter<B>>;

    /// The parameters, to be updated.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>>;

    /// The spikes that the cell sent to itself, if it fires a hidden state of its own.
    fn recurrent_spikes(&self) -> Option<&B::Spikes> {
        None
    }

    /// Sets the gradient on every such spike; see [`snn_core::Layer::set_rate_gradient`].
    fn set_recurrent_rate_gradient(&mut self, gradient: f64) {
        let _ = gradient;
    }

    /// Bytes that the cell holds beside the layer's state and spikes.
    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        let _ = (lanes, mode);
        0
    }
}
