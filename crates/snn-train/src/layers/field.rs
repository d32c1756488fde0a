//! Dense projection of the last steps of every input: a receptive field in time.
//!
//! ```text
//! I[t,n] = c_n + sum over i and d < R of W[i,d,n] x[t-d,i]                                              (FLD-1)
//! ```
//!
//! Spikes are taken as they are, like those of learned delays; sequences are laid out with their past beside them.

use snn_core::backend::{Delays, Gemm};
use snn_core::{Activity, Backend, Kind, Lanes, Mode, Parameter, Pass, Result, Tensor};

use super::{Projection, init};
use crate::config::Init;

/// Weights `[M, R, N]` (inputs, steps back, outputs) and, unless it is left out, a bias `[N]`.
#[derive(Debug)]
pub struct Field<B: Backend> {
    inputs: usize,
    taps: Delays,
    weight: Parameter<B>,
    bias: Option<Parameter<B>>,
    // Of a sequence: `[B, T, M, R]`.
    unfolded: B::Buffer<B::Real>,
}

impl<B: Backend> Field<B> {
    /// A projection with fresh weights that sees `steps` steps.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(
        device: &B,
        (inputs, outputs): (usize, usize),
        steps: usize,
        init: Init,
        bias: bool,
        seed: (u64, usize),
    ) -> Result<Self> {
        Ok(Self {
            inputs,
            taps: Delays { width: outputs, delays: steps },
            weight: init::weights(device, init, &[inputs, steps, outputs], (inputs * steps, outputs), seed)?,
            bias: bias.then(|| init::bias(device, outputs)).transpose()?,
            unfolded: device.zeros(0)?,
        })
    }
}

impl<B: Backend> Projection<B> for Field<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        _: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let (weight, seen) = (&self.weight.value.data, self.inputs * self.taps.delays);
        match input {
            Activity::Spikes(spikes) => device.delay_forward(self.taps, spikes, weight, current)?,
            Activity::Sequence(x) => {
                let lanes = Lanes::new(x.shape[0], x.shape[1], self.inputs);
                device.resize(&mut self.unfolded, rows * seen)?;
                device.unfold_steps(lanes, self.taps.delays, &x.data, &mut self.unfolded)?;
                device.gemm(Gemm::new(rows, self.taps.width, seen), &self.unfolded, weight, current)?;
            }
            other => return Err(other.unwanted("a receptive field", Kind::Spikes)),
        }
        self.bias.as_ref().map_or(Ok(()), |bias| device.add_bias(rows, &bias.value.data, current))
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let Self { inputs, taps, weight, bias, unfolded } = self;
        let (n, seen) = (taps.width, *inputs * taps.delays);
        if let Some(bias) = bias {
            device.sum_rows(device.len(sums) / n, n, sums, &mut bias.grad.data)?;
        }
        match input {
            Activity::Spikes(spikes) => {
                device.delay_weight_grad(*taps, spikes, grad, &mut weight.grad.data)?;
                grad_input.map_or(Ok(()), |out| {
                    let lanes = device.spike_lanes(spikes);
                    device.delay_input_grad(*taps, lanes, grad, &weight.value.data, &mut out.data)
                })
            }
            Activity::Sequence(x) => {
                device.gemm(Gemm::new(seen, n, rows).a_transposed(), unfolded, grad, &mut weight.grad.data)?;
                grad_input.map_or(Ok(()), |out| {
                    let lanes = Lanes::new(x.shape[0], x.shape[1], *inputs);
                    device.gemm(Gemm::new(rows, seen, n).b_transposed(), grad, &weight.value.data, unfolded)?;
                    device.fold_steps(lanes, taps.delays, unfolded, &mut out.data)
                })
            }
            other => Err(other.unwanted("a receptive field", Kind::Spikes)),
        }
    }

    fn repeats(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        [&self.weight].into_iter().chain(&self.bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        [&mut self.weight].into_iter().chain(&mut self.bias).collect()
    }

    fn extra_bytes(&self, lanes: Lanes, _: Mode) -> usize {
        // A bound: spikes need none of it.
        lanes.rows() * self.inputs * self.taps.delays * size_of::<B::Real>()
    }
}
