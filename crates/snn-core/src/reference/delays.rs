//! Projections with delays on the reference backend.

use super::{DenseSpikes, Reference, softmax};
use crate::backend::{DelayKernel, DelayOps, Delays};
use crate::error::{Error, Result, check_len};
use crate::real::Real;
use crate::shape::Lanes;

/// The share of every delay in one synapse.
fn shares<R: Real>(delays: usize, position: R, sigma: Option<R>) -> Vec<R> {
    match sigma {
        Some(sigma) => {
            let distance = |d: usize| (R::lit(d as f64) - position) / sigma;
            let exponents: Vec<R> = (0..delays).map(|d| R::lit(-0.5) * distance(d) * distance(d)).collect();
            softmax(&exponents)
        }
        None => {
            let peak = (position.value() + 0.5).floor();
            (0..delays).map(|d| if d as f64 == peak { R::ONE } else { R::ZERO }).collect()
        }
    }
}

/// Checks weights and positions; gives the number of inputs and sigma.
fn check_kernel<R: Real>(
    op: &'static str,
    delays: Delays,
    parameters: &DelayKernel<'_, Reference<R>>,
    kernel: &[R],
) -> Result<(usize, Option<R>)> {
    let inputs = parameters.weight.len() / delays.width.max(1);
    check_len(op, "weight", parameters.weight.len(), inputs * delays.width)?;
    check_len(op, "position", parameters.position.len(), inputs * delays.width)?;
    check_len(op, "kernel", kernel.len(), inputs * delays.delays * delays.width)?;
    if let Some(sigma) = parameters.sigma {
        check_len(op, "sigma", sigma.len(), 1)?;
    }
    Ok((inputs, parameters.sigma.map(|s| s[0])))
}

/// Checks the buffers of a product.
fn check_product<R: Real>(op: &'static str, delays: Delays, lanes: Lanes, kernel: &[R], out: &[R]) -> Result<()> {
    check_len(op, "kernel", kernel.len(), lanes.width * delays.delays * delays.width)?;
    check_len(op, "out", out.len(), lanes.rows() * delays.width)
}

/// Calls `visit(input entry, kernel entry, output entry)` for everything that is connected.
fn each(delays: Delays, lanes: Lanes, mut visit: impl FnMut(usize, usize, usize)) {
    for b in 0..lanes.batch {
        for t in 0..lanes.steps {
            for d in 0..delays.delays.min(lanes.steps - t) {
                for i in 0..lanes.width {
                    for n in 0..delays.width {
                        let (from, to) = (b * lanes.steps + t, b * lanes.steps + t + d);
                        visit(
                            from * lanes.width + i,
                            (i * delays.delays + d) * delays.width + n,
                            to * delays.width + n,
                        );
                    }
                }
            }
        }
    }
}

impl<R: Real> DelayOps for Reference<R> {
    fn delay_kernel(&self, delays: Delays, parameters: DelayKernel<'_, Self>, kernel: &mut Vec<R>) -> Result<()> {
        let (inputs, sigma) = check_kernel("delay_kernel", delays, &parameters, kernel)?;
        for synapse in 0..inputs * delays.width {
            let (i, n) = (synapse / delays.width, synapse % delays.width);
            for (d, share) in shares(delays.delays, parameters.position[synapse], sigma).into_iter().enumerate() {
                kernel[(i * delays.delays + d) * delays.width + n] = parameters.weight[synapse] * share;
            }
        }
        Ok(())
    }

    fn delay_kernel_grad(
        &self,
        delays: Delays,
        parameters: DelayKernel<'_, Self>,
        grad_kernel: &Vec<R>,
        grad_weight: &mut Vec<R>,
        grad_position: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "delay_kernel_grad";
        let (inputs, sigma) = check_kernel(OP, delays, &parameters, grad_kernel)?;
        check_len(OP, "grad_weight", grad_weight.len(), inputs * delays.width)?;
        check_len(OP, "grad_position", grad_position.len(), inputs * delays.width)?;
        let Some(sigma) = sigma else { return Err(Error::shape(OP, "sigma", &[0], "[1]")) };
        for synapse in 0..inputs * delays.width {
            let (i, n) = (synapse / delays.width, synapse % delays.width);
            let share = shares(delays.delays, parameters.position[synapse], Some(sigma));
            let delay = |d: usize| R::lit(d as f64);
            let centre = (0..delays.delays).fold(R::ZERO, |sum, d| sum + share[d] * delay(d));
            let (mut on_weight, mut on_position) = (R::ZERO, R::ZERO);
            for d in 0..delays.delays {
                let g = grad_kernel[(i * delays.delays + d) * delays.width + n] * share[d];
                on_weight += g;
                on_position += g * (delay(d) - centre);
            }
            grad_weight[synapse] = on_weight;
            grad_position[synapse] = parameters.weight[synapse] * on_position / (sigma * sigma);
        }
        Ok(())
    }

    fn delay_forward(&self, delays: Delays, spikes: &DenseSpikes<R>, kernel: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_product("delay_forward", delays, spikes.lanes, kernel, out)?;
        out.fill(R::ZERO);
        each(delays, spikes.lanes, |x, k, o| out[o] += spikes.values[x] * kernel[k]);
        Ok(())
    }

    fn delay_weight_grad(
        &self,
        delays: Delays,
        spikes: &DenseSpikes<R>,
        grad: &Vec<R>,
        grad_kernel: &mut Vec<R>,
    ) -> Result<()> {
        check_product("delay_weight_grad", delays, spikes.lanes, grad_kernel, grad)?;
        grad_kernel.fill(R::ZERO);
        each(delays, spikes.lanes, |x, k, o| grad_kernel[k] += spikes.values[x] * grad[o]);
        Ok(())
    }

    fn delay_input_grad(
        &self,
        delays: Delays,
        lanes: Lanes,
        grad: &Vec<R>,
        kernel: &Vec<R>,
        grad_input: &mut Vec<R>,
    ) -> Result<()> {
        check_product("delay_input_grad", delays, lanes, kernel, grad)?;
        check_len("delay_input_grad", "grad_input", grad_input.len(), lanes.len())?;
        grad_input.fill(R::ZERO);
        each(delays, lanes, |x, k, o| grad_input[x] += kernel[k] * grad[o]);
        Ok(())
    }

    fn clamp(&self, low: f64, high: f64, x: &mut Vec<R>) -> Result<()> {
        x.iter_mut().for_each(|x| *x = x.clamp_closed(low, high));
        Ok(())
    }
}
