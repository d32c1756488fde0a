//! Max pooling of values and of spike times, where the most is the earliest.
//!
//! A normalisation with a negative gain behind the pool turns a maximum into a minimum. Where it is fused into the next
//! layer's weights, the channel has the sign -1 here: `y = sign max(sign x)`.

use snn_core::{Activity, Backend, Kind, Layer, Mode, Parameter, Pass, Pool, Real, Result, Signal, Tensor};

/// A max pooling layer.
#[derive(Debug)]
pub struct MaxPool<B: Backend> {
    input: Signal,
    pool: Pool,
    sign: Option<Parameter<B>>,
    at: B::Buffer<u32>,
    given: Activity<B>,
}

impl<B: Backend> MaxPool<B> {
    /// Pools maps of `input`, values or times, in windows of `[rows, columns]`; a `signed` one has a fixed sign for each
    /// channel, 1 at the start.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub fn new(device: &B, input: Signal, window: [usize; 2], signed: bool) -> Result<Self> {
        let empty = Tensor::zeros(device, &[0])?;
        let given = if input.kind == Kind::Times { Activity::Times(empty) } else { Activity::Values(empty) };
        let channels = input.map.channels;
        let ones = vec![B::Real::ONE; channels];
        let sign = signed.then(|| Parameter::new(device, "sign", &[channels], &ones)).transpose()?;
        Ok(Self {
            input,
            pool: Pool::rectangle(input.map, window)?,
            sign: sign.map(|sign| sign.with_learnable(false)),
            at: device.zeros(0)?,
            given,
        })
    }
}

impl<B: Backend> Layer<B> for MaxPool<B> {
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
        let x = input.numbers("pool")?;
        let (rows, width) = (x.shape[0], self.pool.output().len());
        let (Activity::Values(given) | Activity::Times(given)) = &mut self.given else {
            return Err(self.given.unwanted("the layer's output", self.input.kind));
        };
        given.resize(device, &[rows, width])?;
        device.resize(&mut self.at, rows * width)?;
        let sign = self.sign.as_ref().map(|sign| &sign.value.data);
        device.pool_max(&self.pool, rows, sign, &x.data, &mut given.data, &mut self.at)
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
        let rows = input.numbers("pool")?.shape[0];
        device.pool_max_grad(&self.pool, rows, &self.at, &grad_output.data, &mut grad_input.data)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.sign.iter().collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.sign.iter_mut().collect()
    }

    fn repeats(&self) -> bool {
        true
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        self.output_signal().lanes(batch).len() * (size_of::<B::Real>() + size_of::<u32>())
    }
}
