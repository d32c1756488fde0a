//! The reference backend: every operation as its definition, in plain loops over dense arrays.
//!
//! It is the yardstick of the other backends. On `f64` it gives the values that golden files are held against; on
//! [`Dual`](crate::Dual) numbers the exact directional derivative of a whole model, surrogates included, because its
//! spikes are dense arrays of the scalar and carry derivatives along. It is slow on purpose.

mod alif;
mod cuba;
mod delays;
mod event;
mod fit;
mod paralif;
mod ttfs;

use std::convert::Infallible;

use crate::backend::{
    BlockOps, ChannelNorm, Gemm, Leak, LeakGrad, LifOps, LinAlg, Memory, Optimise, SpikeMemory, TimeReduction, Update,
    UpdateRule, UpdateSlot,
};
use crate::error::{Error, Result, check_len};
use crate::neurons::block::{self, BlockNeuron};
use crate::neurons::lif::{self, LifKind, LifNeuron};
use crate::neurons::{LeakAdjoint, clamp_mask};
use crate::real::{Element, Real};
use crate::shape::{Conv, Lanes, Pool};
use crate::signal::Spikes;

/// The reference backend on scalars `R`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference<R: Real>(std::marker::PhantomData<R>);

impl<R: Real> Reference<R> {
    /// The reference backend.
    #[must_use]
    pub const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// Spikes as a dense array `[B, T, N]` of scalars.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseSpikes<R> {
    /// The size.
    pub lanes: Lanes,
    /// Counts, `[B, T, N]`.
    pub values: Vec<R>,
}

impl<R: Real> Memory for Reference<R> {
    type Real = R;
    type Buffer<T: Element> = Vec<T>;
    type Recording = Infallible;

    fn describe(&self) -> String {
        format!("reference, {}", R::NAME)
    }
    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }
    fn zeros<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        Ok(vec![T::default(); len])
    }
    fn len<T: Element>(&self, buffer: &Vec<T>) -> usize {
        buffer.len()
    }
    fn resize<T: Element>(&self, buffer: &mut Vec<T>, len: usize) -> Result<()> {
        buffer.resize(len, T::default());
        Ok(())
    }
    fn upload<T: Element>(&self, host: &[T], device: &mut Vec<T>) -> Result<()> {
        check_len("upload", "device", device.len(), host.len())?;
        device.copy_from_slice(host);
        Ok(())
    }
    fn download<T: Element>(&self, device: &Vec<T>, host: &mut [T]) -> Result<()> {
        check_len("download", "host", host.len(), device.len())?;
        host.copy_from_slice(device);
        Ok(())
    }
    fn copy<T: Element>(&self, from: &Vec<T>, to: &mut Vec<T>) -> Result<()> {
        self.upload(from, to)
    }
    fn fill<T: Element>(&self, buffer: &mut Vec<T>, value: T) -> Result<()> {
        buffer.fill(value);
        Ok(())
    }
    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

impl<R: Real> SpikeMemory for Reference<R> {
    type Spikes = DenseSpikes<R>;

    fn spikes(&self) -> DenseSpikes<R> {
        DenseSpikes { lanes: Lanes::new(0, 0, 0), values: vec![] }
    }
    fn upload_spikes(&self, host: &Spikes, device: &mut DenseSpikes<R>) -> Result<()> {
        *device = DenseSpikes { lanes: host.lanes(), values: host.to_dense() };
        Ok(())
    }
    fn download_spikes(&self, device: &DenseSpikes<R>) -> Result<Spikes> {
        let values: Vec<f64> = device.values.iter().map(|x| x.value()).collect();
        Spikes::from_dense(device.lanes, &values)
    }
    fn spike_lanes(&self, spikes: &DenseSpikes<R>) -> Lanes {
        spikes.lanes
    }
    fn events_per_sample(&self, spikes: &DenseSpikes<R>) -> Result<Vec<u32>> {
        let per_sample = (spikes.lanes.steps * spikes.lanes.width).max(1);
        Ok(spikes.values.chunks(per_sample).map(|c| c.iter().map(|x| x.value() as u32).sum()).collect())
    }
    fn delay_spikes(&self, spikes: &DenseSpikes<R>, late: usize, out: &mut DenseSpikes<R>) -> Result<()> {
        let lanes = spikes.lanes;
        let at = |i: usize| match i / lanes.width % lanes.steps >= late {
            true => spikes.values[i - late * lanes.width],
            false => R::ZERO,
        };
        *out = DenseSpikes { lanes, values: (0..lanes.len()).map(at).collect() };
        Ok(())
    }
    fn add_spikes(&self, a: &DenseSpikes<R>, b: &DenseSpikes<R>, out: &mut DenseSpikes<R>) -> Result<()> {
        check_len("add_spikes", "b", b.values.len(), a.values.len())?;
        *out = DenseSpikes { lanes: a.lanes, values: a.values.iter().zip(&b.values).map(|(&x, &y)| x + y).collect() };
        Ok(())
    }
}

/// One pair of a convolution: output neuron, input neuron, weight.
fn conv_pairs(conv: &Conv) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
    let (m, o, k) = (conv.input, conv.output(), conv.kernel_width);
    (0..o.len()).flat_map(move |out| {
        let (c_out, x, y) = (out % o.channels, out / o.channels % o.width, out / (o.channels * o.width));
        (0..conv.fan_in()).filter_map(move |tap| {
            let (c, kx, ky) = (tap % m.channels, tap / m.channels % k, tap / (m.channels * k));
            let (row, column) = (conv.source(y, ky, m.height)?, conv.source_column(x, kx, m.width)?);
            Some((out, (row * m.width + column) * m.channels + c, tap * o.channels + c_out))
        })
    })
}

impl<R: Real> LinAlg for Reference<R> {
    fn gemm(&self, g: Gemm, a: &Vec<R>, b: &Vec<R>, c: &mut Vec<R>) -> Result<()> {
        check_len("gemm", "a", a.len(), g.m * g.k)?;
        check_len("gemm", "b", b.len(), g.k * g.n)?;
        check_len("gemm", "c", c.len(), g.m * g.n)?;
        for i in 0..g.m {
            for j in 0..g.n {
                let mut sum = if g.accumulate { c[i * g.n + j] } else { R::ZERO };
                for l in 0..g.k {
                    let x = if g.transpose_a { a[l * g.m + i] } else { a[i * g.k + l] };
                    let y = if g.transpose_b { b[j * g.k + l] } else { b[l * g.n + j] };
                    sum += x * y;
                }
                c[i * g.n + j] = sum;
            }
        }
        Ok(())
    }

    fn spikes_gemm(
        &self,
        spikes: &DenseSpikes<R>,
        width: usize,
        weight: &Vec<R>,
        bias: Option<&Vec<R>>,
        out: &mut Vec<R>,
    ) -> Result<()> {
        let lanes = spikes.lanes;
        self.gemm(Gemm::new(lanes.rows(), width, lanes.width), &spikes.values, weight, out)?;
        bias.map_or(Ok(()), |bias| self.add_bias(lanes.rows(), bias, out))
    }

    fn spikes_gemm_weight_grad(
        &self,
        spikes: &DenseSpikes<R>,
        width: usize,
        grad: &Vec<R>,
        grad_weight: &mut Vec<R>,
    ) -> Result<()> {
        let lanes = spikes.lanes;
        self.gemm(Gemm::new(lanes.width, width, lanes.rows()).a_transposed(), &spikes.values, grad, grad_weight)
    }

    fn sum_rows(&self, rows: usize, width: usize, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("sum_rows", "x", x.len(), rows * width)?;
        check_len("sum_rows", "out", out.len(), width)?;
        out.fill(R::ZERO);
        for row in x.chunks(width.max(1)) {
            for (o, &v) in out.iter_mut().zip(row) {
                *o += v;
            }
        }
        Ok(())
    }

    fn repeat_steps(&self, lanes: Lanes, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("repeat_steps", "x", x.len(), lanes.batch * lanes.width)?;
        check_len("repeat_steps", "out", out.len(), lanes.len())?;
        for (row, out) in out.chunks_mut(lanes.width.max(1)).enumerate() {
            let b = row / lanes.steps;
            out.copy_from_slice(&x[b * lanes.width..(b + 1) * lanes.width]);
        }
        Ok(())
    }

    fn sum_steps(&self, lanes: Lanes, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("sum_steps", "x", x.len(), lanes.len())?;
        check_len("sum_steps", "out", out.len(), lanes.batch * lanes.width)?;
        out.fill(R::ZERO);
        for (row, x) in x.chunks(lanes.width.max(1)).enumerate() {
            let b = row / lanes.steps;
            for (o, &v) in out[b * lanes.width..(b + 1) * lanes.width].iter_mut().zip(x) {
                *o += v;
            }
        }
        Ok(())
    }

    fn add_bias(&self, rows: usize, bias: &Vec<R>, x: &mut Vec<R>) -> Result<()> {
        check_len("add_bias", "x", x.len(), rows * bias.len())?;
        for row in x.chunks_mut(bias.len().max(1)) {
            row.iter_mut().zip(bias).for_each(|(x, &b)| *x += b);
        }
        Ok(())
    }

    fn add_assign(&self, x: &Vec<R>, y: &mut Vec<R>) -> Result<()> {
        check_len("add_assign", "x", x.len(), y.len())?;
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
        Ok(())
    }

    fn add_scaled(&self, factor: f64, x: &Vec<R>, y: &mut Vec<R>) -> Result<()> {
        check_len("add_scaled", "x", x.len(), y.len())?;
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += R::lit(factor) * x);
        Ok(())
    }

    fn add_constant(&self, value: f64, x: &mut Vec<R>) -> Result<()> {
        x.iter_mut().for_each(|x| *x += R::lit(value));
        Ok(())
    }

    fn relu(&self, x: &mut Vec<R>) -> Result<()> {
        x.iter_mut().filter(|x| **x <= R::ZERO).for_each(|x| *x = R::ZERO);
        Ok(())
    }

    fn relu_grad(&self, y: &Vec<R>, grad: &mut Vec<R>) -> Result<()> {
        check_len("relu_grad", "y", y.len(), grad.len())?;
        grad.iter_mut().zip(y).filter(|(_, y)| **y <= R::ZERO).for_each(|(g, _)| *g = R::ZERO);
        Ok(())
    }

    fn delay(&self, lanes: Lanes, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("delay", "x", x.len(), lanes.len())?;
        check_len("delay", "out", out.len(), lanes.len())?;
        for i in 0..lanes.len() {
            let step = i / lanes.width % lanes.steps;
            out[i] = if step > 0 { x[i - lanes.width] } else { R::ZERO };
        }
        Ok(())
    }

    fn unfold_steps(&self, lanes: Lanes, taps: usize, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("unfold_steps", "x", x.len(), lanes.len())?;
        check_len("unfold_steps", "out", out.len(), lanes.len() * taps)?;
        for (i, out) in out.chunks_mut(taps.max(1)).enumerate() {
            let step = i / lanes.width % lanes.steps;
            for (d, out) in out.iter_mut().enumerate() {
                *out = if d <= step { x[i - d * lanes.width] } else { R::ZERO };
            }
        }
        Ok(())
    }

    fn fold_steps(&self, lanes: Lanes, taps: usize, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("fold_steps", "x", x.len(), lanes.len() * taps)?;
        check_len("fold_steps", "out", out.len(), lanes.len())?;
        for (i, out) in out.iter_mut().enumerate() {
            let step = i / lanes.width % lanes.steps;
            let later = (0..taps.min(lanes.steps - step)).map(|d| x[(i + d * lanes.width) * taps + d]);
            *out = later.fold(R::ZERO, |sum, x| sum + x);
        }
        Ok(())
    }

    fn advance(&self, lanes: Lanes, x: &mut Vec<R>) -> Result<()> {
        check_len("advance", "x", x.len(), lanes.len())?;
        for i in 0..lanes.len() {
            let step = i / lanes.width % lanes.steps;
            x[i] = if step + 1 < lanes.steps { x[i + lanes.width] } else { R::ZERO };
        }
        Ok(())
    }

    fn conv_spikes(
        &self,
        conv: &Conv,
        spikes: &DenseSpikes<R>,
        weight: &Vec<R>,
        bias: Option<&Vec<R>>,
        out: &mut Vec<R>,
    ) -> Result<()> {
        self.conv_dense(conv, spikes.lanes.rows(), &spikes.values, weight, bias, out)
    }

    fn conv_spikes_weight_grad(
        &self,
        conv: &Conv,
        spikes: &DenseSpikes<R>,
        grad: &Vec<R>,
        grad_weight: &mut Vec<R>,
    ) -> Result<()> {
        self.conv_dense_weight_grad(conv, spikes.lanes.rows(), &spikes.values, grad, grad_weight)
    }

    fn conv_dense(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Vec<R>,
        weight: &Vec<R>,
        bias: Option<&Vec<R>>,
        out: &mut Vec<R>,
    ) -> Result<()> {
        let (n_in, n_out) = (conv.input.len(), conv.output().len());
        check_len("conv", "input", input.len(), rows * n_in)?;
        check_len("conv", "weight", weight.len(), conv.fan_in() * conv.channels)?;
        check_len("conv", "out", out.len(), rows * n_out)?;
        out.fill(R::ZERO);
        for r in 0..rows {
            for (o, i, w) in conv_pairs(conv) {
                out[r * n_out + o] += input[r * n_in + i] * weight[w];
            }
        }
        bias.map_or(Ok(()), |bias| self.add_bias(rows * n_out / conv.channels, bias, out))
    }

    fn conv_dense_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Vec<R>,
        grad: &Vec<R>,
        grad_weight: &mut Vec<R>,
    ) -> Result<()> {
        let (n_in, n_out) = (conv.input.len(), conv.output().len());
        check_len("conv", "input", input.len(), rows * n_in)?;
        check_len("conv", "grad", grad.len(), rows * n_out)?;
        check_len("conv", "grad_weight", grad_weight.len(), conv.fan_in() * conv.channels)?;
        grad_weight.fill(R::ZERO);
        for r in 0..rows {
            for (o, i, w) in conv_pairs(conv) {
                grad_weight[w] += input[r * n_in + i] * grad[r * n_out + o];
            }
        }
        Ok(())
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        rows: usize,
        grad: &Vec<R>,
        weight: &Vec<R>,
        grad_input: &mut Vec<R>,
    ) -> Result<()> {
        let (n_in, n_out) = (conv.input.len(), conv.output().len());
        check_len("conv", "grad", grad.len(), rows * n_out)?;
        check_len("conv", "grad_input", grad_input.len(), rows * n_in)?;
        grad_input.fill(R::ZERO);
        for r in 0..rows {
            for (o, i, w) in conv_pairs(conv) {
                grad_input[r * n_in + i] += weight[w] * grad[r * n_out + o];
            }
        }
        Ok(())
    }

    fn pool_spikes(&self, pool: &Pool, spikes: &DenseSpikes<R>, out: &mut DenseSpikes<R>) -> Result<()> {
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len("pool", "spikes", spikes.lanes.width, n_in)?;
        *out = DenseSpikes { lanes: spikes.lanes.with_width(n_out), values: Vec::new() };
        for row in spikes.values.chunks(n_in.max(1)) {
            out.values.extend((0..n_out).map(|o| row[first_maximum(pool, row, o)]));
        }
        Ok(())
    }

    fn pool_spikes_grad(
        &self,
        pool: &Pool,
        spikes: &DenseSpikes<R>,
        grad: &Vec<R>,
        grad_input: &mut Vec<R>,
    ) -> Result<()> {
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len("pool", "grad", grad.len(), spikes.lanes.rows() * n_out)?;
        check_len("pool", "grad_input", grad_input.len(), spikes.lanes.rows() * n_in)?;
        grad_input.fill(R::ZERO);
        for (r, row) in spikes.values.chunks(n_in.max(1)).enumerate() {
            for o in 0..n_out {
                grad_input[r * n_in + first_maximum(pool, row, o)] = grad[r * n_out + o];
            }
        }
        Ok(())
    }

    fn pool_mean(&self, pool: &Pool, rows: usize, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len("pool_mean", "x", x.len(), rows * n_in)?;
        check_len("pool_mean", "out", out.len(), rows * n_out)?;
        let share = R::lit(1.0 / pool.size() as f64);
        for r in 0..rows {
            for o in 0..n_out {
                let units = (0..pool.size()).map(|rank| x[r * n_in + pool.source(o, rank)]);
                out[r * n_out + o] = units.fold(R::ZERO, |sum, x| sum + x) * share;
            }
        }
        Ok(())
    }

    fn pool_spikes_mean(&self, pool: &Pool, spikes: &DenseSpikes<R>, out: &mut Vec<R>) -> Result<()> {
        self.pool_mean(pool, spikes.lanes.rows(), &spikes.values, out)
    }

    fn pool_mean_grad(&self, pool: &Pool, rows: usize, grad: &Vec<R>, grad_input: &mut Vec<R>) -> Result<()> {
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len("pool_mean", "grad", grad.len(), rows * n_out)?;
        check_len("pool_mean", "grad_input", grad_input.len(), rows * n_in)?;
        let share = R::lit(1.0 / pool.size() as f64);
        for r in 0..rows {
            for unit in 0..n_in {
                let from = pool.target(unit).map(|(o, _)| grad[r * n_out + o]);
                grad_input[r * n_in + unit] = from.map_or(R::ZERO, |g| g * share);
            }
        }
        Ok(())
    }

    fn pool_max(
        &self,
        pool: &Pool,
        rows: usize,
        sign: Option<&Vec<R>>,
        x: &Vec<R>,
        out: &mut Vec<R>,
        at: &mut Vec<u32>,
    ) -> Result<()> {
        const OP: &str = "pool_max";
        let (n_in, n_out, channels) = (pool.input.len(), pool.output().len(), pool.input.channels);
        check_len(OP, "x", x.len(), rows * n_in)?;
        check_len(OP, "out", out.len(), rows * n_out)?;
        check_len(OP, "at", at.len(), rows * n_out)?;
        sign.map_or(Ok(()), |sign| check_len(OP, "sign", sign.len(), channels))?;
        for r in 0..rows {
            for o in 0..n_out {
                let sign = sign.map_or(R::ONE, |sign| sign[o % channels]);
                let value = |rank: usize| x[r * n_in + pool.source(o, rank)];
                let best =
                    (1..pool.size()).fold(0, |best, k| if sign * value(k) > sign * value(best) { k } else { best });
                (out[r * n_out + o], at[r * n_out + o]) = (value(best), best as u32);
            }
        }
        Ok(())
    }

    fn pool_max_grad(
        &self,
        pool: &Pool,
        rows: usize,
        at: &Vec<u32>,
        grad: &Vec<R>,
        grad_input: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "pool_max_grad";
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len(OP, "at", at.len(), rows * n_out)?;
        check_len(OP, "grad", grad.len(), rows * n_out)?;
        check_len(OP, "grad_input", grad_input.len(), rows * n_in)?;
        grad_input.fill(R::ZERO);
        for (i, (&rank, &g)) in at.iter().zip(grad).enumerate() {
            grad_input[i / n_out * n_in + pool.source(i % n_out, rank as usize)] = g;
        }
        Ok(())
    }

    fn channel_moments(&self, x: &Vec<R>, mean: &mut Vec<R>, variance: &mut Vec<R>) -> Result<()> {
        const OP: &str = "channel_moments";
        let channels = mean.len();
        check_len(OP, "variance", variance.len(), channels)?;
        check_len(OP, "x", x.len(), x.len() / channels.max(1) * channels)?;
        let share = R::lit(channels as f64 / x.len() as f64);
        for c in 0..channels {
            let column = || x.iter().skip(c).step_by(channels);
            mean[c] = column().fold(R::ZERO, |sum, &x| sum + x) * share;
            variance[c] = column().fold(R::ZERO, |sum, &x| sum + (x - mean[c]) * (x - mean[c])) * share;
        }
        Ok(())
    }

    fn normalise_channels(
        &self,
        norm: ChannelNorm<'_, Self>,
        x: &mut Vec<R>,
        normalised: Option<&mut Vec<R>>,
    ) -> Result<()> {
        let channels = check_norm("normalise_channels", &norm, x.len())?;
        let mut given = vec![R::ZERO; x.len()];
        for (i, x) in x.iter_mut().enumerate() {
            let c = i % channels;
            given[i] = (*x - norm.mean[c]) / (norm.variance[c] + R::lit(norm.eps)).sqrt();
            *x = norm.gain[c] * given[i] + norm.offset[c];
        }
        normalised.map_or(Ok(()), |out| {
            check_len("normalise_channels", "normalised", out.len(), given.len())?;
            *out = given;
            Ok(())
        })
    }

    fn normalise_channels_grad(
        &self,
        norm: ChannelNorm<'_, Self>,
        grad: &Vec<R>,
        normalised: &mut Vec<R>,
        grad_gain: &mut Vec<R>,
        grad_offset: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "normalise_channels_grad";
        let channels = check_norm(OP, &norm, grad.len())?;
        check_len(OP, "normalised", normalised.len(), grad.len())?;
        check_len(OP, "grad_gain", grad_gain.len(), channels)?;
        check_len(OP, "grad_offset", grad_offset.len(), channels)?;
        let share = R::lit(channels as f64 / grad.len() as f64);
        for c in 0..channels {
            let (mut on_gain, mut on_offset) = (R::ZERO, R::ZERO);
            for i in (c..grad.len()).step_by(channels) {
                on_gain += grad[i] * normalised[i];
                on_offset += grad[i];
            }
            (grad_gain[c], grad_offset[c]) = (on_gain, on_offset);
            let factor = norm.gain[c] / (norm.variance[c] + R::lit(norm.eps)).sqrt();
            for i in (c..grad.len()).step_by(channels) {
                normalised[i] = factor * (grad[i] - share * (on_offset + normalised[i] * on_gain));
            }
        }
        Ok(())
    }

    fn mask_spikes(&self, mask: &Vec<R>, spikes: &DenseSpikes<R>, out: &mut DenseSpikes<R>) -> Result<()> {
        let lanes = spikes.lanes;
        check_len("mask_spikes", "mask", mask.len(), lanes.batch * lanes.width)?;
        let mut values = spikes.values.clone();
        for (i, x) in values.iter_mut().enumerate() {
            if mask[mask_at(lanes, i)] == R::ZERO {
                *x = R::ZERO;
            }
        }
        *out = DenseSpikes { lanes, values };
        Ok(())
    }

    fn mask_values(&self, lanes: Lanes, mask: &Vec<R>, x: &mut Vec<R>) -> Result<()> {
        check_len("mask_values", "mask", mask.len(), lanes.batch * lanes.width)?;
        check_len("mask_values", "x", x.len(), lanes.len())?;
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= mask[mask_at(lanes, i)]);
        Ok(())
    }

    fn reduce_time(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Vec<R>,
        out: &mut Vec<R>,
        at: &mut Vec<u32>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "out", out.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "at", at.len(), lanes.batch * lanes.width)?;
        let share = R::lit(1.0 / lanes.steps as f64);
        for lane in 0..out.len() {
            let (mut best, mut step) = (R::ZERO, 0);
            for t in 0..lanes.steps {
                let v = x[step_of(lanes, lane, t)];
                match reduction {
                    TimeReduction::Sum => best += v,
                    TimeReduction::Mean => best += share * v,
                    TimeReduction::Last => best = v,
                    TimeReduction::SoftmaxSum => best += softmax(row_of(lanes, lane, t, x))[lane % lanes.width],
                    TimeReduction::Max if t == 0 || v > best => (best, step) = (v, t),
                    TimeReduction::Max => {}
                }
            }
            (out[lane], at[lane]) = (best, step as u32);
        }
        Ok(())
    }

    fn reduce_time_grad(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Vec<R>,
        grad: &Vec<R>,
        at: &Vec<u32>,
        grad_x: &mut Vec<R>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "grad", grad.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "grad_x", grad_x.len(), lanes.len())?;
        let share = R::lit(1.0 / lanes.steps as f64);
        for lane in 0..grad.len() {
            for t in 0..lanes.steps {
                grad_x[step_of(lanes, lane, t)] = match reduction {
                    TimeReduction::Sum => grad[lane],
                    TimeReduction::Mean => share * grad[lane],
                    TimeReduction::Last if t + 1 == lanes.steps => grad[lane],
                    TimeReduction::Max if at[lane] as usize == t => grad[lane],
                    TimeReduction::Last | TimeReduction::Max => R::ZERO,
                    TimeReduction::SoftmaxSum => {
                        let p = softmax(row_of(lanes, lane, t, x));
                        let incoming = &grad[lane / lanes.width * lanes.width..][..lanes.width];
                        let mean = p.iter().zip(incoming).fold(R::ZERO, |sum, (&p, &g)| sum + p * g);
                        p[lane % lanes.width] * (grad[lane] - mean)
                    }
                };
            }
        }
        Ok(())
    }

    fn softmax_cross_entropy(
        &self,
        classes: usize,
        logits: &Vec<R>,
        targets: &Vec<u32>,
        losses: &mut Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        check_len("softmax_cross_entropy", "logits", logits.len(), targets.len() * classes)?;
        check_len("softmax_cross_entropy", "losses", losses.len(), targets.len())?;
        check_len("softmax_cross_entropy", "grad", grad.len(), logits.len())?;
        let batch = R::lit(targets.len() as f64);
        for (b, &target) in targets.iter().enumerate() {
            if target as usize >= classes {
                return Err(Error::Unit { op: "softmax_cross_entropy", unit: target, width: classes });
            }
            let row = &logits[b * classes..(b + 1) * classes];
            let top = row.iter().fold(row[0], |m, &x| if x > m { x } else { m }).detach();
            if top.value() == f64::NEG_INFINITY {
                losses[b] = R::lit(f64::INFINITY);
                grad[b * classes..(b + 1) * classes].fill(R::ZERO);
                continue;
            }
            let mut sum = R::ZERO;
            row.iter().for_each(|&x| sum += (x - top).exp());
            losses[b] = sum.ln() - (row[target as usize] - top);
            for (k, &x) in row.iter().enumerate() {
                let hit = if k == target as usize { R::ONE } else { R::ZERO };
                grad[b * classes + k] = ((x - top).exp() / sum - hit) / batch;
            }
        }
        Ok(())
    }

    fn soft_cross_entropy(
        &self,
        classes: usize,
        logits: &Vec<R>,
        targets: &Vec<R>,
        losses: &mut Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        let batch = check_soft("soft_cross_entropy", classes, logits, targets, losses, grad)?;
        for b in 0..losses.len() {
            let row = &logits[b * classes..(b + 1) * classes];
            let top = row.iter().fold(row[0], |m, &x| if x > m { x } else { m }).detach();
            if top.value() == f64::NEG_INFINITY {
                losses[b] = R::lit(f64::INFINITY);
                grad[b * classes..(b + 1) * classes].fill(R::ZERO);
                continue;
            }
            let sum = row.iter().fold(R::ZERO, |sum, &x| sum + (x - top).exp());
            let targets = &targets[b * classes..(b + 1) * classes];
            let most = targets.iter().fold(targets[0], |m, &t| if t > m { t } else { m });
            losses[b] = R::ZERO;
            for (k, (&x, &target)) in row.iter().zip(targets).enumerate() {
                if x.value() != f64::NEG_INFINITY || target >= most {
                    losses[b] += target * (sum.ln() - (x - top));
                }
                grad[b * classes + k] = ((x - top).exp() / sum - target) / batch;
            }
        }
        Ok(())
    }

    fn squared_error(
        &self,
        classes: usize,
        outputs: &Vec<R>,
        targets: &Vec<R>,
        losses: &mut Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        let batch = check_soft("squared_error", classes, outputs, targets, losses, grad)?;
        let share = R::lit(1.0 / classes as f64);
        for (b, loss) in losses.iter_mut().enumerate() {
            *loss = R::ZERO;
            for i in b * classes..(b + 1) * classes {
                let error = outputs[i] - targets[i];
                *loss += share * error * error;
                grad[i] = R::lit(2.0) * share * error / batch;
            }
        }
        Ok(())
    }
}

/// Checks the sizes of a loss with a target for every class; gives the number of samples.
fn check_soft<R: Real>(
    op: &'static str,
    classes: usize,
    outputs: &[R],
    targets: &[R],
    losses: &[R],
    grad: &[R],
) -> Result<R> {
    check_len(op, "outputs", outputs.len(), losses.len() * classes)?;
    check_len(op, "targets", targets.len(), outputs.len())?;
    check_len(op, "grad", grad.len(), outputs.len())?;
    Ok(R::lit(losses.len() as f64))
}

/// Where the entry `i` of `[B, T, N]` lies in `[B, N]`.
fn mask_at(lanes: Lanes, i: usize) -> usize {
    i / (lanes.steps * lanes.width) * lanes.width + i % lanes.width
}

/// Checks the sizes of a normalisation; gives the number of channels.
fn check_norm<R: Real>(op: &'static str, norm: &ChannelNorm<'_, Reference<R>>, len: usize) -> Result<usize> {
    let channels = norm.mean.len();
    for (arg, list) in [("variance", norm.variance), ("gain", norm.gain), ("offset", norm.offset)] {
        check_len(op, arg, list.len(), channels)?;
    }
    check_len(op, "x", len, len / channels.max(1) * channels)?;
    Ok(channels)
}

/// The first unit, row-major, that attains the maximum of output unit `o`'s window.
fn first_maximum<R: Real>(pool: &Pool, row: &[R], o: usize) -> usize {
    let units = (0..pool.size()).map(|rank| pool.source(o, rank));
    units.reduce(|best, unit| if row[unit] > row[best] { unit } else { best }).expect("a window has units")
}

/// The row of step `t` that holds lane `lane`.
fn row_of<R>(lanes: Lanes, lane: usize, t: usize, x: &[R]) -> &[R] {
    let start = step_of(lanes, lane, t) - lane % lanes.width;
    &x[start..start + lanes.width]
}

fn softmax<R: Real>(row: &[R]) -> Vec<R> {
    let top = row.iter().fold(row[0], |m, &x| if x > m { x } else { m }).detach();
    let mut sum = R::ZERO;
    row.iter().for_each(|&x| sum += (x - top).exp());
    row.iter().map(|&x| (x - top).exp() / sum).collect()
}

/// Where step `t` of lane `lane = b * N + n` lies in `[B, T, N]`.
fn step_of(lanes: Lanes, lane: usize, t: usize) -> usize {
    (lane / lanes.width * lanes.steps + t) * lanes.width + lane % lanes.width
}

/// Checks the buffers that all scans share; gives the raw decay of every neuron.
fn check_leak<R: Real>(op: &'static str, lanes: Lanes, leak: &Leak<'_, Reference<R>>, state: usize) -> Result<()> {
    check_len(op, "state", state, lanes.len())?;
    if leak.beta_raw.len() != 1 {
        check_len(op, "beta", leak.beta_raw.len(), lanes.width)?;
    }
    leak.initial.map_or(Ok(()), |v| check_len(op, "initial", v.len(), lanes.batch * lanes.width))
}

/// The raw decay and the initial membrane of a lane.
fn lane_leak<R: Real>(leak: &Leak<'_, Reference<R>>, width: usize, lane: usize) -> (R, R) {
    let raw = if leak.beta_raw.len() == 1 { leak.beta_raw[0] } else { leak.beta_raw[lane % width] };
    (raw, leak.initial.map_or(R::ZERO, |v| v[lane]))
}

/// Runs `model` on every lane: current in, `(state, spikes)` out.
fn forward_lanes<R: Real>(
    lanes: Lanes,
    leak: &Leak<'_, Reference<R>>,
    state: &mut [R],
    spikes: Option<&mut DenseSpikes<R>>,
    model: impl Fn(R, R, &[R]) -> (Vec<R>, Vec<R>),
) {
    let mut fired = vec![R::ZERO; state.len()];
    for lane in 0..lanes.batch * lanes.width {
        let (raw, initial) = lane_leak(leak, lanes.width, lane);
        let current: Vec<R> = (0..lanes.steps).map(|t| state[step_of(lanes, lane, t)]).collect();
        let (u, s) = model(raw.clamp_closed(0.0, 1.0), initial, &current);
        for t in 0..lanes.steps {
            state[step_of(lanes, lane, t)] = u[t];
            fired[step_of(lanes, lane, t)] = s[t];
        }
    }
    if let Some(spikes) = spikes {
        *spikes = DenseSpikes { lanes, values: fired };
    }
}

/// Runs an adjoint on every lane: `(beta, initial, state, grad_spikes, grad_membrane, grad_current)`.
fn backward_lanes<R: Real>(
    op: &'static str,
    lanes: Lanes,
    leak: &Leak<'_, Reference<R>>,
    state: &[R],
    grad: &mut [R],
    leak_grad: LeakGrad<'_, Reference<R>>,
    adjoint: impl Fn(R, R, &[R], &[R], Option<&[R]>, &mut [R]) -> LeakAdjoint<R>,
) -> Result<()> {
    check_leak(op, lanes, leak, state.len())?;
    check_len(op, "grad", grad.len(), lanes.len())?;
    let LeakGrad { membrane, mut beta, mut initial, mut current_sum } = leak_grad;
    if let Some(m) = membrane {
        check_len(op, "grad_membrane", m.len(), lanes.len())?;
    }
    for (arg, buffer) in [("grad_beta", &beta), ("grad_initial", &initial), ("current_sum", &current_sum)] {
        if let Some(b) = buffer {
            check_len(op, arg, b.len(), lanes.batch * lanes.width)?;
        }
    }
    let mut out = vec![R::ZERO; lanes.steps];
    for lane in 0..lanes.batch * lanes.width {
        let gather = |x: &[R]| -> Vec<R> { (0..lanes.steps).map(|t| x[step_of(lanes, lane, t)]).collect() };
        let (raw, start) = lane_leak(leak, lanes.width, lane);
        let gm = membrane.map(|m| gather(m));
        let g = adjoint(raw.clamp_closed(0.0, 1.0), start, &gather(state), &gather(grad), gm.as_deref(), &mut out);
        out.iter().enumerate().for_each(|(t, &v)| grad[step_of(lanes, lane, t)] = v);
        if let Some(b) = beta.as_deref_mut() {
            b[lane] = g.beta * clamp_mask(raw);
        }
        if let Some(i) = initial.as_deref_mut() {
            i[lane] = g.initial;
        }
        if let Some(s) = current_sum.as_deref_mut() {
            s[lane] = R::ZERO;
            out.iter().for_each(|&v| s[lane] += v);
        }
    }
    Ok(())
}

impl<R: Real> LifOps for Reference<R> {
    fn lif_forward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Vec<R>,
        spikes: &mut DenseSpikes<R>,
    ) -> Result<()> {
        check_leak("lif_forward", lanes, &leak, state.len())?;
        let spikes = (neuron.kind != LifKind::Integrator).then_some(spikes);
        forward_lanes(lanes, &leak, state, spikes, |beta, initial, current| {
            let trace = lif::trace(neuron, beta, initial, current);
            (trace.state, trace.spikes)
        });
        Ok(())
    }

    fn lif_backward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Vec<R>,
        grad: &mut Vec<R>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        backward_lanes("lif_backward", lanes, &leak, state, grad, leak_grad, |beta, start, u, gs, gm, out| {
            lif::adjoint(neuron, beta, start, u, gs, gm, out)
        })
    }

    fn lif_membrane(&self, neuron: &LifNeuron, lanes: Lanes, state: &mut Vec<R>) -> Result<()> {
        check_len("lif_membrane", "state", state.len(), lanes.len())?;
        if let LifKind::Single { .. } = neuron.kind {
            for lane in 0..lanes.batch * lanes.width {
                let mut spent = false;
                for t in 0..lanes.steps {
                    let u = &mut state[step_of(lanes, lane, t)];
                    let fires = *u > R::lit(neuron.threshold);
                    if spent {
                        *u = R::ZERO;
                    }
                    spent |= fires;
                }
            }
        }
        Ok(())
    }
}

impl<R: Real> BlockOps for Reference<R> {
    fn block_forward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Vec<R>,
        spikes: &mut DenseSpikes<R>,
    ) -> Result<()> {
        check_leak("block_forward", lanes, &leak, state.len())?;
        forward_lanes(lanes, &leak, state, Some(spikes), |beta, initial, current| {
            let stages = block::stages(neuron, beta, initial, current);
            (stages.membrane, stages.spikes)
        });
        Ok(())
    }

    fn block_backward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Vec<R>,
        grad: &mut Vec<R>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        backward_lanes("block_backward", lanes, &leak, state, grad, leak_grad, |beta, start, v, gs, gm, out| {
            block::adjoint(neuron, beta, start, v, gs, gm, out)
        })
    }
}

impl<R: Real> Optimise for Reference<R> {
    fn update(&self, update: &Update, slots: &mut [UpdateSlot<'_, Self>]) -> Result<()> {
        for slot in slots {
            let len = slot.value.len();
            for (arg, got) in [("grad", slot.grad.len()), ("first", slot.first.len()), ("second", slot.second.len())] {
                check_len("update", arg, got, len)?;
            }
            let decay = R::lit(if slot.decays { update.weight_decay } else { 0.0 });
            for i in 0..len {
                let (p, g) = (&mut slot.value[i], slot.grad[i]);
                update_one(update, decay, p, g, &mut slot.first[i], &mut slot.second[i]);
            }
        }
        Ok(())
    }

    fn sum_of_squares(&self, x: &Vec<R>) -> Result<f64> {
        Ok(x.iter().map(|v| v.value() * v.value()).sum())
    }

    fn scale(&self, factor: f64, x: &mut Vec<R>) -> Result<()> {
        x.iter_mut().for_each(|v| *v *= R::lit(factor));
        Ok(())
    }
}

/// One entry of an optimiser step; the rules are those of [`UpdateRule`].
fn update_one<R: Real>(update: &Update, decay: R, p: &mut R, g: R, first: &mut R, second: &mut R) {
    let lr = R::lit(update.learning_rate);
    let bias = |beta: f64| R::lit(1.0 - beta.powf(update.step as f64));
    let blend = |old: R, new: R, beta: f64| old * R::lit(beta) + new * R::lit(1.0 - beta);
    match update.rule {
        UpdateRule::Sgd { momentum, nesterov } => {
            let g = g + decay * *p;
            if momentum == 0.0 {
                *p -= lr * g;
                return;
            }
            let m = R::lit(momentum);
            *first = m * *first + g;
            *p -= lr * if nesterov { g + m * *first } else { *first };
        }
        UpdateRule::Adam { beta1, beta2, eps, decoupled } => {
            let g = if decoupled {
                *p *= R::ONE - lr * decay;
                g
            } else {
                g + decay * *p
            };
            *first = blend(*first, g, beta1);
            *second = blend(*second, g * g, beta2);
            let size = (*second / bias(beta2)).sqrt() + R::lit(eps);
            *p -= lr * (*first / bias(beta1)) / size;
        }
        UpdateRule::NAdam { beta1, beta2, eps } => {
            let g = g + decay * *p;
            *first = blend(*first, g, beta1);
            *second = blend(*second, g * g, beta2);
            let size = (*second / bias(beta2)).sqrt() + R::lit(eps);
            *p -= lr * (blend(*first, g, beta1) / bias(beta1)) / size;
        }
        UpdateRule::Adamax { beta1, beta2, eps } => {
            let g = g + decay * *p;
            *first = blend(*first, g, beta1);
            let (old, new) = (*second * R::lit(beta2), g.abs() + R::lit(eps));
            *second = if old > new { old } else { new };
            *p -= lr / bias(beta1) * *first / *second;
        }
    }
}
