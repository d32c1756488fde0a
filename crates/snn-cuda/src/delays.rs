//! Projections with delays; definitions in [`snn_core::backend::DelayOps`].
//!
//! Forward, and for the gradient on the kernel, spikes are walked as in products without delays, once for each delay. The
//! gradient on inputs is dense: a product for each delay, batched over the samples, on gradients that begin that many
//! steps later.

use snn_core::Lanes;
use snn_core::backend::{DelayKernel, DelayOps, Delays, Gemm, Memory};
use snn_core::error::{Error, Result, check_len};

use crate::device::{Cuda, Matrix};
use crate::kernels::DELAYS;
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// Checks weights and positions; gives the number of synapses.
fn check_kernel(
    op: &'static str,
    delays: Delays,
    parameters: &DelayKernel<'_, Cuda>,
    kernel: &Buffer<f32>,
) -> Result<usize> {
    let inputs = parameters.weight.len() / delays.width.max(1);
    check_len(op, "weight", parameters.weight.len(), inputs * delays.width)?;
    check_len(op, "position", parameters.position.len(), inputs * delays.width)?;
    check_len(op, "kernel", kernel.len(), inputs * delays.delays * delays.width)?;
    parameters.sigma.map_or(Ok(()), |sigma| check_len(op, "sigma", sigma.len(), 1))?;
    Ok(inputs * delays.width)
}

fn check_product(
    op: &'static str,
    delays: Delays,
    lanes: Lanes,
    kernel: &Buffer<f32>,
    out: &Buffer<f32>,
) -> Result<()> {
    check_len(op, "kernel", kernel.len(), lanes.width * delays.delays * delays.width)?;
    check_len(op, "out", out.len(), lanes.rows() * delays.width)
}

impl DelayOps for Cuda {
    fn delay_kernel(&self, delays: Delays, parameters: DelayKernel<'_, Self>, kernel: &mut Buffer<f32>) -> Result<()> {
        let synapses = check_kernel("delay_kernel", delays, &parameters, kernel)?;
        self.launch(&DELAYS, "delay_kernel")
            .threads(synapses)
            .arg(parameters.weight)
            .arg(parameters.position)
            .arg(parameters.sigma)
            .arg(synapses as i64)
            .arg(delays.delays as i32)
            .arg(delays.width as i32)
            .arg(kernel)
            .run()
    }

    fn delay_kernel_grad(
        &self,
        delays: Delays,
        parameters: DelayKernel<'_, Self>,
        grad_kernel: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
        grad_position: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "delay_kernel_grad";
        let synapses = check_kernel(OP, delays, &parameters, grad_kernel)?;
        check_len(OP, "grad_weight", grad_weight.len(), synapses)?;
        check_len(OP, "grad_position", grad_position.len(), synapses)?;
        if parameters.sigma.is_none() {
            return Err(Error::shape(OP, "sigma", &[0], "[1]"));
        }
        self.launch(&DELAYS, "delay_kernel_grad")
            .threads(synapses)
            .arg(parameters.weight)
            .arg(parameters.position)
            .arg(parameters.sigma)
            .arg(grad_kernel)
            .arg(synapses as i64)
            .arg(delays.delays as i32)
            .arg(delays.width as i32)
            .arg(grad_weight)
            .arg(grad_position)
            .run()
    }

    fn delay_forward(
        &self,
        delays: Delays,
        spikes: &CudaSpikes,
        kernel: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        check_product("delay_forward", delays, lanes, kernel, out)?;
        self.launch(&DELAYS, "delay_forward")
            .rows_of_events(lanes.rows(), delays.width)
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(spikes.words_per_row())
            .arg(lanes.steps as i32)
            .arg(delays.delays as i32)
            .arg(delays.width as i32)
            .arg(kernel)
            .arg(out)
            .run()
    }

    fn delay_weight_grad(
        &self,
        delays: Delays,
        spikes: &CudaSpikes,
        grad: &Buffer<f32>,
        grad_kernel: &mut Buffer<f32>,
    ) -> Result<()> {
        check_product("delay_weight_grad", delays, spikes.lanes(), grad_kernel, grad)?;
        self.late_weight_grad(spikes, delays.delays, delays.width, grad, grad_kernel)
    }

    fn delay_input_grad(
        &self,
        delays: Delays,
        lanes: Lanes,
        grad: &Buffer<f32>,
        kernel: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        check_product("delay_input_grad", delays, lanes, kernel, grad)?;
        check_len("delay_input_grad", "grad_input", grad_input.len(), lanes.len())?;
        if lanes.is_empty() || delays.width * delays.delays == 0 {
            return self.clear_buffer(grad_input);
        }
        let n = delays.width;
        for d in 0..delays.delays.min(lanes.steps) {
            let product = Gemm::new(lanes.steps - d, lanes.width, n).b_transposed();
            let product = if d > 0 { product.accumulating() } else { product };
            let at = |buffer: &Buffer<f32>, entry: usize| buffer.address() + (entry * size_of::<f32>()) as u64;
            let late = Matrix { address: at(grad, d * n), row: n, step: lanes.steps * n };
            let weight = Matrix { address: at(kernel, d * n), row: delays.delays * n, step: 0 };
            let out = Matrix { address: at(grad_input, 0), row: lanes.width, step: lanes.steps * lanes.width };
            self.queue_products(product, [late, weight, out], lanes.batch)?;
        }
        Ok(())
    }

    fn clamp(&self, low: f64, high: f64, x: &mut Buffer<f32>) -> Result<()> {
        let len = self.len(x);
        self.launch(&DELAYS, "clamp").threads(len).arg(low as f32).arg(high as f32).arg(len as i64).arg(x).run()
    }
}
