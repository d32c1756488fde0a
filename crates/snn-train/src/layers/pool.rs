//! Max pooling of spikes, every step for itself.

use snn_core::{Activity, Backend, Kind, Layer, Mode, Pass, Pool, Result, Signal, Tensor};

/// A pooling layer; it has no parameters.
#[derive(Debug)]
pub struct PoolLayer<B: Backend> {
    input: Signal,
    pool: Pool,
    given: Activity<B>,
}

impl<B: Backend> PoolLayer<B> {
    /// Pools maps of `input` in windows of side `window`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub fn new(device: &B, input: Signal, window: usize) -> Result<Self> {
        Self::rectangle(device, input, [window; 2])
    }

    /// Pools maps of `input` in windows of `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub fn rectangle(device: &B, input: Signal, window: [usize; 2]) -> Result<Self> {
        Ok(Self { input, pool: Pool::rectangle(input.map, window)?, given: Activity::Spikes(device.spikes()) })
    }
}

impl<B: Backend> Layer<B> for PoolLayer<B> {
    fn name(&self) -> String {
        format!("pool {} -> {}", self.input.map, self.pool.output())
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal { map: self.pool.output(), ..self.input }
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, _: Pass) -> Result<()> {
        match &mut self.given {
            Activity::Spikes(given) => device.pool_spikes(&self.pool, input.spikes("pool")?, given),
            other => Err(other.unwanted("pool", Kind::Spikes)),
        }
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
        grad_input.map_or(Ok(()), |grad_input| {
            device.pool_spikes_grad(&self.pool, input.spikes("pool")?, &grad_output.data, &mut grad_input.data)
        })
    }

    fn repeats(&self) -> bool {
        true
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        let lanes = self.output_signal().lanes(batch);
        lanes.rows() * size_of::<usize>() + batch * lanes.width * size_of::<u32>()
    }
}
