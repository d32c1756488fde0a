//! A projection and a rectifier: of values, as the networks have it that single-spike networks equal, or every step for
//! itself, the Non-Spiking baseline of SPSN.

use snn_core::{Activity, Backend, Kind, Layer, Mode, Parameter, Pass, Result, Signal, Tensor};

use super::Projection;

/// A projection followed by a rectifier.
#[derive(Debug)]
pub struct ReluLayer<B: Backend> {
    input: Signal,
    output: Signal,
    projection: Box<dyn Projection<B>>,
    sums: B::Buffer<B::Real>,
    given: Activity<B>,
}

impl<B: Backend> ReluLayer<B> {
    /// Puts the two together; `output` is taken as values if the input is, and as a sequence otherwise.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, input: Signal, output: Signal, projection: Box<dyn Projection<B>>) -> Result<Self> {
        let empty = Tensor::zeros(device, &[0])?;
        let (kind, given) = match input.kind {
            Kind::Values => (Kind::Values, Activity::Values(empty)),
            _ => (Kind::Sequence, Activity::Sequence(empty)),
        };
        let output = Signal { kind, ..output };
        Ok(Self { input, output, projection, sums: device.zeros(0)?, given })
    }
}

impl<B: Backend> Layer<B> for ReluLayer<B> {
    fn name(&self) -> String {
        format!("relu {} -> {}", self.input.width(), self.output.width())
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        self.output
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        if input.kind() != self.input.kind {
            return Err(input.unwanted("relu", self.input.kind));
        }
        let lanes = input.lanes(device, self.output.steps, self.output.width());
        let given = match &mut self.given {
            Activity::Values(given) => {
                given.resize(device, &[lanes.batch, lanes.width])?;
                given
            }
            Activity::Sequence(given) => {
                given.resize(device, &[lanes.batch, lanes.steps, lanes.width])?;
                given
            }
            other => return Err(other.unwanted("the layer's output", self.output.kind)),
        };
        self.projection.forward(device, input, lanes.rows(), pass, &mut given.data)?;
        device.relu(&mut given.data)
    }

    fn output(&self) -> &Activity<B> {
        &self.given
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
        let lanes = input.lanes(device, self.output.steps, self.output.width());
        let (Activity::Values(given) | Activity::Sequence(given)) = &self.given else {
            return Err(self.given.unwanted("the layer's output", self.output.kind));
        };
        device.relu_grad(&given.data, &mut grad_output.data)?;
        device.resize(&mut self.sums, lanes.batch * lanes.width)?;
        device.sum_steps(lanes, &grad_output.data, &mut self.sums)?;
        self.projection.backward(device, input, lanes.rows(), &grad_output.data, &self.sums, grad_input)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.projection.parameters()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.projection.parameters_mut()
    }

    fn repeats(&self) -> bool {
        self.projection.repeats()
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let lanes = self.output.lanes(batch);
        lanes.len() * size_of::<B::Real>() + self.projection.extra_bytes(lanes, mode)
    }
}
