//! A projection behind dropout: spikes stay spikes, and the factor that makes up for the dropped ones comes here.

use snn_core::{Activity, Backend, Lanes, Mode, Parameter, Pass, Result, Tensor};

use super::{Projection, init};

/// A projection without a bias whose current is multiplied in training, and a bias that is added after that.
#[derive(Debug)]
pub struct Gained<B: Backend> {
    inner: Box<dyn Projection<B>>,
    gain: f64,
    bias: Option<Parameter<B>>,
}

impl<B: Backend> Gained<B> {
    /// `gain` acts in training alone; with `bias`, one for each of so many channels.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, inner: Box<dyn Projection<B>>, gain: f64, bias: Option<usize>) -> Result<Self> {
        Ok(Self { inner, gain, bias: bias.map(|channels| init::bias(device, channels)).transpose()? })
    }
}

impl<B: Backend> Projection<B> for Gained<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        pass: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        self.inner.forward(device, input, rows, pass, current)?;
        if pass.mode == Mode::Train {
            device.scale(self.gain, current)?;
        }
        match &self.bias {
            Some(bias) => device.add_bias(device.len(current) / bias.value.len(), &bias.value.data, current),
            None => Ok(()),
        }
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        grad: &B::Buffer<B::Real>,
        sums: &B::Buffer<B::Real>,
        mut grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        self.inner.backward(device, input, rows, grad, sums, grad_input.as_deref_mut())?;
        for p in self.inner.parameters_mut() {
            device.scale(self.gain, &mut p.grad.data)?;
        }
        if let Some(grad_input) = grad_input {
            device.scale(self.gain, &mut grad_input.data)?;
        }
        match &mut self.bias {
            Some(bias) => {
                let channels = bias.value.len();
                device.sum_rows(device.len(sums) / channels, channels, sums, &mut bias.grad.data)
            }
            None => Ok(()),
        }
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.inner.set_epoch(device, finished, epochs)
    }

    fn repeats(&self) -> bool {
        self.inner.repeats()
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.inner.parameters().into_iter().chain(&self.bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.inner.parameters_mut().into_iter().chain(&mut self.bias).collect()
    }

    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        self.inner.extra_bytes(lanes, mode)
    }
}
