//! A spiking layer of a clocked model: a projection and a population of neurons, fused in one buffer.
//!
//! The projection writes the current into a buffer, the cell turns it into its state in place, and the backward pass
//! reads it from there: one array `[B, T, N]` per layer is all that training keeps.

use snn_core::{Activity, Backend, Kind, Lanes, Layer, Mode, Parameter, Pass, Result, Signal, Tensor};

use super::{Cell, Projection};

/// A projection followed by neurons.
#[derive(Debug)]
pub struct Clocked<B: Backend> {
    input: Signal,
    output: Signal,
    projection: Box<dyn Projection<B>>,
    cell: Box<dyn Cell<B>>,
    skip: bool,
    state: Tensor<B>,
    sums: B::Buffer<B::Real>,
    // With a skip connection: the neurons' own spikes, before the input is added.
    own: B::Spikes,
    given: Activity<B>,
    // For an input that is the same at every step: its current, computed once.
    once: Tensor<B>,
    rate_gradient: f64,
    // Whether the state goes after the forward pass; the pass by which it comes back.
    recompute: bool,
    last: Pass,
}

impl<B: Backend> Clocked<B> {
    /// Puts the two halves together.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(
        device: &B,
        input: Signal,
        output: Signal,
        projection: Box<dyn Projection<B>>,
        cell: Box<dyn Cell<B>>,
        skip: bool,
    ) -> Result<Self> {
        Ok(Self {
            input,
            output,
            projection,
            cell,
            skip,
            state: Tensor::zeros(device, &[0])?,
            sums: device.zeros(0)?,
            own: device.spikes(),
            given: Activity::Spikes(device.spikes()),
            once: Tensor::zeros(device, &[0])?,
            rate_gradient: 0.0,
            recompute: false,
            last: Pass::train(0),
        })
    }

    /// Lets go of the state after every forward pass, and computes it again for the backward pass.
    #[must_use]
    pub fn recomputing(mut self) -> Self {
        self.recompute = true;
        self
    }

    fn lanes(&self, device: &B, input: &Activity<B>) -> Lanes {
        input.lanes(device, self.output.steps, self.output.width())
    }

    /// The neurons' state of the last forward pass, `[B, T, N]`: what the family's backward pass starts from. Empty in a
    /// layer that computes it again.
    pub fn state(&self) -> &Tensor<B> {
        &self.state
    }

    /// Fills state and spikes.
    fn run(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let lanes = self.lanes(device, input);
        self.state.resize(device, &[lanes.batch, lanes.steps, lanes.width])?;
        if let Activity::Values(_) = input {
            self.once.resize(device, &[lanes.batch, lanes.width])?;
            self.projection.forward(device, input, lanes.batch, pass, &mut self.once.data)?;
            device.repeat_steps(lanes, &self.once.data, &mut self.state.data)?;
        } else {
            self.projection.forward(device, input, lanes.rows(), pass, &mut self.state.data)?;
        }
        let Activity::Spikes(given) = &mut self.given else {
            return Err(self.given.unwanted("the layer's output", Kind::Spikes));
        };
        if self.skip {
            self.cell.forward(device, lanes, pass, &mut self.state.data, &mut self.own)?;
            device.add_spikes(&self.own, input.spikes("a skip connection")?, given)
        } else {
            self.cell.forward(device, lanes, pass, &mut self.state.data, given)
        }
    }
}

impl<B: Backend> Layer<B> for Clocked<B> {
    fn name(&self) -> String {
        let skip = if self.skip { " + skip" } else { "" };
        if self.output.map.height == 1 {
            format!("{} {} -> {}{skip}", self.cell.name(), self.input.width(), self.output.width())
        } else {
            format!("{} {} -> {}{skip}", self.cell.name(), self.input.map, self.output.map)
        }
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        self.output
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        self.run(device, input, pass)?;
        self.last = pass;
        if self.recompute {
            self.state = Tensor::zeros(device, &[0])?;
        }
        Ok(())
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn spikes(&self) -> Option<&B::Spikes> {
        match &self.given {
            _ if self.skip => Some(&self.own),
            Activity::Spikes(s) => Some(s),
            _ => None,
        }
    }

    fn recurrent_spikes(&self) -> Option<&B::Spikes> {
        self.cell.recurrent_spikes()
    }

    fn set_rate_gradient(&mut self, on_spikes: f64, on_recurrent: f64) {
        self.rate_gradient = on_spikes;
        self.cell.set_recurrent_rate_gradient(on_recurrent);
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.projection.set_epoch(device, finished, epochs)
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let lanes = self.lanes(device, input);
        if self.recompute {
            self.run(device, input, self.last)?;
        }
        device.resize(&mut self.sums, lanes.batch * lanes.width)?;
        // The gradient on the sum reaches the skipped input unchanged; it is added at the end, because the cell
        // overwrites it.
        let skipped = if self.skip && grad_input.is_some() {
            let mut copy = Tensor::zeros(device, &grad_output.shape)?;
            device.copy(&grad_output.data, &mut copy.data)?;
            Some(copy)
        } else {
            None
        };
        if self.rate_gradient != 0.0 {
            device.add_constant(self.rate_gradient, &mut grad_output.data)?;
        }
        self.cell.backward(device, lanes, &self.state.data, &mut grad_output.data, None, &mut self.sums)?;
        let (rows, grad) = match input {
            Activity::Values(_) => (lanes.batch, &self.sums),
            _ => (lanes.rows(), &grad_output.data),
        };
        if self.recompute {
            self.state = Tensor::zeros(device, &[0])?;
        }
        match (grad_input, skipped) {
            (Some(grad_input), Some(skipped)) => {
                self.projection.backward(device, input, rows, grad, &self.sums, Some(&mut *grad_input))?;
                device.add_assign(&skipped.data, &mut grad_input.data)
            }
            (grad_input, _) => self.projection.backward(device, input, rows, grad, &self.sums, grad_input),
        }
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let mut all = self.projection.parameters();
        all.extend(self.cell.parameters());
        all
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let mut all = self.projection.parameters_mut();
        all.extend(self.cell.parameters_mut());
        all
    }

    fn repeats(&self) -> bool {
        !self.recompute && self.projection.repeats() && self.cell.repeats()
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let real = size_of::<B::Real>();
        let lanes = self.output.lanes(batch);
        // The state; row lists with a spike per neuron; for training the sums, and with a skip connection a second pair
        // of row lists and a copy of the gradient.
        let lists = lanes.rows() * size_of::<usize>() + batch * lanes.width * size_of::<u32>();
        let sums = if mode == Mode::Train { 3 * batch * lanes.width * real } else { 0 };
        let copy = if mode == Mode::Train && self.skip { lanes.len() * real } else { 0 };
        let halves = self.projection.extra_bytes(lanes, mode) + self.cell.extra_bytes(lanes, mode);
        // One state at a time is in memory, which the gradients of the largest layer stand for.
        let state = if self.recompute { 0 } else { lanes.len() * real };
        state + lists * if self.skip { 2 } else { 1 } + sums + copy + halves
    }
}
