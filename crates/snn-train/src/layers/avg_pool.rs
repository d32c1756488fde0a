//! Mean pooling of spikes or values, every step for itself; the means of spikes are no counts, so it gives a sequence.

use snn_core::{Activity, Backend, Kind, Layer, Mode, Pass, Pool, Result, Signal, Tensor};

/// A mean pooling layer; it has no parameters.
#[derive(Debug)]
pub struct AvgPool<B: Backend> {
    input: Signal,
    pool: Pool,
    // Behind dropout of spikes: the factor of training.
    gain: f64,
    given: Activity<B>,
}

impl<B: Backend> AvgPool<B> {
    /// Pools maps of `input` in windows of `[rows, columns]`; training multiplies by `gain`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub fn new(device: &B, input: Signal, window: [usize; 2], gain: f64) -> Result<Self> {
        let given = Activity::Sequence(Tensor::zeros(device, &[0])?);
        Ok(Self { input, pool: Pool::rectangle(input.map, window)?, gain, given })
    }
}

impl<B: Backend> Layer<B> for AvgPool<B> {
    fn name(&self) -> String {
        format!("average pool {} -> {}", self.input.map, self.pool.output())
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal { kind: Kind::Sequence, map: self.pool.output(), ..self.input }
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let lanes = input.lanes(device, self.input.steps, self.pool.output().len());
        let Activity::Sequence(given) = &mut self.given else {
            return Err(self.given.unwanted("the layer's output", Kind::Sequence));
        };
        given.resize(device, &[lanes.batch, lanes.steps, lanes.width])?;
        match input {
            Activity::Spikes(spikes) => device.pool_spikes_mean(&self.pool, spikes, &mut given.data)?,
            Activity::Sequence(x) => device.pool_mean(&self.pool, lanes.rows(), &x.data, &mut given.data)?,
            other => return Err(other.unwanted("average pool", Kind::Spikes)),
        }
        if pass.mode == Mode::Train && self.gain != 1.0 { device.scale(self.gain, &mut given.data) } else { Ok(()) }
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        if self.gain != 1.0 {
            device.scale(self.gain, &mut grad_output.data)?;
        }
        let rows = input.lanes(device, self.input.steps, 1).rows();
        device.pool_mean_grad(&self.pool, rows, &grad_output.data, &mut grad_input.data)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        self.output_signal().lanes(batch).len() * size_of::<B::Real>()
    }
}
