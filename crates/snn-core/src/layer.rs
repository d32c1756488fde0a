//! Layers: the parts of a model, each with a forward and a hand-written backward.

use std::fmt::Debug;

use crate::backend::{Backend, Census};
use crate::error::Result;
use crate::shape::Signal;
use crate::signal::{Activity, Trains};
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
    /// Factor on the learning rate; 1 for nearly everything.
    pub rate: f64,
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
        Ok(Self {
            name,
            value,
            grad: Tensor::zeros(device, shape)?,
            learnable: true,
            decays: name == "weight",
            rate: 1.0,
        })
    }

    /// The same parameter, learnable or fixed.
    #[must_use]
    pub fn with_learnable(self, learnable: bool) -> Self {
        Self { learnable, ..self }
    }

    /// The same parameter with another factor on its learning rate.
    #[must_use]
    pub fn with_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
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

/// A pass through a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// What it is for.
    pub mode: Mode,
    /// Which draws random layers make: passes with the same number make the same ones.
    pub draw: u32,
}

impl Pass {
    /// A pass that a backward pass follows; number it by the optimiser's steps.
    #[must_use]
    pub const fn train(draw: u32) -> Self {
        Self { mode: Mode::Train, draw: draw & 0x7FFF_FFFF }
    }

    /// A pass for its output alone; its draws are none of training's.
    #[must_use]
    pub const fn evaluate(draw: u32) -> Self {
        Self { mode: Mode::Evaluate, draw: draw | 0x8000_0000 }
    }
}

/// What a layer of neurons that spike at most once did; see [`crate::neurons::ttfs`].
#[derive(Debug)]
pub struct FirstSpikes<'a, B: Backend> {
    /// How early each neuron fired, `[B, N]`, without noise.
    pub earliness: &'a B::Buffer<B::Real>,
    /// What each sample came to.
    pub census: &'a Census<B>,
    /// The length of the layer's window, one entry.
    pub window: &'a B::Buffer<B::Real>,
}

/// One layer of a model.
///
/// A layer owns its parameters, its output and whatever its backward pass needs, so that buffers live as long as
/// the model and keep their addresses. It is written once, generic over the backend.
///
/// The order of calls is `forward`, then `backward` with the same input. Gradients on an activity are dense
/// tensors of the activity's size: `[B, T, N]` for sequences and spikes, `[B, N]` for values and times,
/// one entry per event for trains.
pub trait Layer<B: Backend>: Debug + Send {
    /// A short name for messages and reports, such as `block 784 -> 800`.
    fn name(&self) -> String;

    /// What the layer takes for one sample.
    fn input(&self) -> Signal;

    /// What the layer gives for one sample.
    fn output_signal(&self) -> Signal;

    /// Computes the output. Inputs over time may have fewer steps than the layer's signal says.
    ///
    /// # Errors
    ///
    /// If the input is of the wrong kind or size, or the device fails.
    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()>;

    /// The output of the last `forward`.
    fn output(&self) -> &Activity<B>;

    /// The spikes that the layer's own neurons fired in the last `forward`, if it has any: what activity counts and
    /// health reports look at. Differs from the output where a skip connection adds to it.
    fn spikes(&self) -> Option<&B::Spikes> {
        None
    }

    /// The spike trains that the layer's own neurons fired in the last `forward`, if they fire in continuous time.
    fn trains(&self) -> Option<&Trains<B>> {
        None
    }

    /// The only spikes of the layer's own neurons in the last `forward`, if they spike at most once.
    fn first_spikes(&self) -> Option<FirstSpikes<'_, B>> {
        None
    }

    /// The spikes that the layer sent to itself in the last `forward`, if it is recurrent and fires a hidden state of
    /// its own.
    fn recurrent_spikes(&self) -> Option<&B::Spikes> {
        None
    }

    /// Sets a gradient on every spike, and on every recurrent spike, that the following backward passes add to what
    /// reaches them from above: how firing rates are regularised.
    fn set_rate_gradient(&mut self, on_spikes: f64, on_recurrent: f64) {
        let _ = (on_spikes, on_recurrent);
    }

    /// Says that `finished` of `epochs` epochs are done: for what changes in the course of training beside the
    /// learning rate.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        let _ = (device, finished, epochs);
        Ok(())
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

    /// Whether passes over inputs of one size queue the same work every time: nothing is drawn, copied from or to the
    /// host, or chosen by what was computed. Such passes can be recorded, see
    /// [`Memory::record`](crate::backend::Memory::record).
    fn repeats(&self) -> bool {
        false
    }

    /// The parameters, in a fixed order; none unless the layer says so.
    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![]
    }

    /// The parameters, to be updated.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![]
    }

    /// Bytes that the layer will hold on the device for its activity and caches, without its parameters.
    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize;
}
