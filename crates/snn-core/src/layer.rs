//! Layers: the parts of a model, each with a forward and a hand-written backward.

use std::fmt::Debug;

use crate::backend::Backend;
use crate::error::Result;
use crate::shape::Signal;
use crate::signal::Activity;
use crate::tensor::Tensor;

/// A trainable (or fixed) array of a layer.
#[derive(Debug)]
pub struct Parameter<B: Backend> {
    /// What it is within its layer: `weight`, `bias`, `beta`.
    pub name: &'static str,
    /// The values.
    pub value: Tensor<B>,
    /// The gradient of the last backward pass, of the same shape.
    pub grad: Tensor<B>,
    /// Whether the optimiser updates it.
    pub learnable: bool,
    /// Whether weight decay applies (weights, not biases or decays).
    pub decays: bool,
}

impl<B: Backend> Parameter<B> {
    /// A parameter with the given initial values.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, name: &'static str, shape: &[usize], values: &[B::Real]) -> Result<Self> {
        let mut value = Tensor::zeros(device, shape)?;
        device.upload(values, &mut value.data)?;
        Ok(Self { name, value, grad: Tensor::zeros(device, shape)?, learnable: true, decays: name == "weight" })
    }

    /// The same parameter, learnable or fixed.
    #[must_use]
    pub fn with_learnable(self, learnable: bool) -> Self {
        Self { learnable, ..self }
    }
}

/// Whether a pass prepares a backward pass or only wants the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A backward pass will follow.
    Train,
    /// No backward pass follows; caches need not be kept.
    Evaluate,
}

/// One layer of a model.
///
/// A layer owns its parameters, its output and whatever its backward pass needs, so that buffers live as long as
/// the model and keep their addresses. It is written once, generic over the backend.
///
/// The order of calls is `forward`, then `backward` with the same input. Gradients on an activity are dense
/// tensors of the activity's size: `[B, T, N]` for sequences and spikes, `[B, N]` for values and times,
/// `[B, N, K]` for trains.
pub trait Layer<B: Backend>: Debug + Send {
    /// A short name for messages and reports, such as `block 784 -> 800`.
    fn name(&self) -> String;

    /// What the layer takes for one sample.
    fn input(&self) -> Signal;

    /// What the layer gives for one sample.
    fn output_signal(&self) -> Signal;

    /// Computes the output.
    ///
    /// # Errors
    ///
    /// If the input is of the wrong kind or size, or the device fails.
    fn forward(&mut self, device: &B, input: &Activity<B>, mode: Mode) -> Result<()>;

    /// The output of the last `forward`.
    fn output(&self) -> &Activity<B>;

    /// The spikes that the layer's own neurons fired in the last `forward`, if it has any: what activity counts and
    /// health reports look at. Differs from the output where a skip connection adds to it.
    fn spikes(&self) -> Option<&B::Spikes> {
        None
    }

    /// Computes the gradients of the parameters and, if `grad_input` is given, of the input.
    ///
    /// `grad_output` may be used as scratch: its contents are unspecified afterwards.
    ///
    /// # Errors
    ///
    /// As `forward`.
    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()>;

    /// The parameters, in a fixed order.
    fn parameters(&self) -> Vec<&Parameter<B>>;

    /// The parameters, to be updated.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>>;

    /// Bytes that the layer will hold on the device for its activity and caches, without its parameters.
    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize;
}
