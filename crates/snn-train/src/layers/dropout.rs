//! Dropout: in training a share of the units is silenced, anew for every sample and batch.
//!
//! There is one draw for each sample and unit, the same at every step: a unit is out for the whole presentation, so that
//! the neurons behind it see a constant network. A draw is a function of the seed, the layer, the number of the pass
//! and the place in the batch.
//!
//! What stays is multiplied by `1 / (1 - p)`, so that evaluation, which drops nothing, sees the same mean. Values are
//! multiplied here; spikes stay spikes, and the next projection multiplies its current; see
//! [`Gained`](super::gain::Gained).

use snn_core::random::{Purpose, Stream};
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Mode, Pass, Real, Result, Signal, Tensor};

/// A dropout layer; it has no parameters.
#[derive(Debug)]
pub struct Dropout<B: Backend> {
    input: Signal,
    p: f64,
    seed: (u64, usize),
    // `[B, N]`: 0 for what is dropped.
    mask: B::Buffer<B::Real>,
    given: Activity<B>,
}

impl<B: Backend> Dropout<B> {
    /// Drops a share `p` of the units; layer `seed.1` of a run with seed `seed.0`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, input: Signal, p: f64, seed: (u64, usize)) -> Result<Self> {
        let empty = || Tensor::zeros(device, &[0]);
        let given = match input.kind {
            Kind::Sequence => Activity::Sequence(empty()?),
            Kind::Values => Activity::Values(empty()?),
            _ => Activity::Spikes(device.spikes()),
        };
        Ok(Self { input, p, seed, mask: device.zeros(0)?, given })
    }

    /// The factor on what stays.
    #[must_use]
    pub fn gain(p: f64) -> f64 {
        1.0 / (1.0 - p)
    }

    /// The size of an activity or a gradient on it; without time, one step.
    fn lanes(shape: &[usize]) -> Lanes {
        match *shape {
            [batch, steps, width] => Lanes::new(batch, steps, width),
            _ => Lanes::new(shape[0], 1, shape[1..].iter().product()),
        }
    }

    fn draw(&mut self, device: &B, lanes: Lanes, pass: Pass) -> Result<()> {
        let len = lanes.batch * lanes.width;
        device.resize(&mut self.mask, len)?;
        if pass.mode == Mode::Evaluate {
            return device.fill(&mut self.mask, B::Real::ONE);
        }
        let stays = if self.input.kind == Kind::Spikes { 1.0 } else { Self::gain(self.p) };
        let mut stream = Stream::new(self.seed.0, Purpose::Dropout, [pass.draw, self.seed.1 as u32]);
        let entry = |_| B::Real::lit(if f64::from(stream.unit()) < self.p { 0.0 } else { stays });
        let mask: Vec<B::Real> = (0..len).map(entry).collect();
        device.upload(&mask, &mut self.mask)
    }
}

impl<B: Backend> Layer<B> for Dropout<B> {
    fn name(&self) -> String {
        format!("dropout {} of {}", self.p, self.input.width())
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        self.input
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let lanes = Self::lanes(&input.shape(device));
        self.draw(device, lanes, pass)?;
        match (&mut self.given, input) {
            (Activity::Spikes(given), Activity::Spikes(spikes)) => device.mask_spikes(&self.mask, spikes, given),
            (Activity::Sequence(given), Activity::Sequence(x)) | (Activity::Values(given), Activity::Values(x)) => {
                given.resize(device, &x.shape)?;
                device.copy(&x.data, &mut given.data)?;
                device.mask_values(lanes, &self.mask, &mut given.data)
            }
            (_, other) => Err(other.unwanted("dropout", self.input.kind)),
        }
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn backward(
        &mut self,
        device: &B,
        _: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        device.copy(&grad_output.data, &mut grad_input.data)?;
        device.mask_values(Self::lanes(&grad_output.shape), &self.mask, &mut grad_input.data)
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        let (lanes, real) = (self.input.lanes(batch), size_of::<B::Real>());
        let given = match self.input.kind {
            Kind::Spikes => lanes.rows() * size_of::<usize>() + batch * lanes.width * size_of::<u32>(),
            Kind::Values => batch * lanes.width * real,
            _ => lanes.len() * real,
        };
        given + batch * lanes.width * real
    }
}
