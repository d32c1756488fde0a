//! Votes: every class is the mean of a group of neighbouring inputs. A projection that learns nothing.

use snn_core::backend::Gemm;
use snn_core::{Activity, Backend, Kind, Parameter, Pass, Real, Result, Tensor};

use super::Projection;

/// Group means as a product with a fixed matrix `[M, K]`.
#[derive(Debug)]
pub struct Groups<B: Backend> {
    inputs: usize,
    classes: usize,
    share: B::Buffer<B::Real>,
}

impl<B: Backend> Groups<B> {
    /// `classes` groups of `inputs / classes` inputs; a rest votes for nothing.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, inputs: usize, classes: usize) -> Result<Self> {
        let group = inputs / classes.max(1);
        let mut share = vec![B::Real::ZERO; inputs * classes];
        for unit in 0..group * classes {
            share[unit * classes + unit / group] = B::Real::lit(1.0 / group as f64);
        }
        Ok(Self { inputs, classes, share: device.buffer_from(&share)? })
    }
}

impl<B: Backend> Projection<B> for Groups<B> {
    fn forward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        rows: usize,
        _: Pass,
        current: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        match input {
            Activity::Spikes(spikes) => device.spikes_gemm(spikes, self.classes, &self.share, None, current),
            Activity::Sequence(x) => {
                device.gemm(Gemm::new(rows, self.classes, self.inputs), &x.data, &self.share, current)
            }
            other => Err(other.unwanted("vote", Kind::Spikes)),
        }
    }

    fn backward(
        &mut self,
        device: &B,
        _: &Activity<B>,
        rows: usize,
        grad: &B::Buffer<B::Real>,
        _: &B::Buffer<B::Real>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let gemm = Gemm::new(rows, self.inputs, self.classes).b_transposed();
        grad_input.map_or(Ok(()), |out| device.gemm(gemm, grad, &self.share, &mut out.data))
    }

    fn repeats(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![]
    }
}
