//! Dense linear algebra, what shifts and reduces arrays along time, and the [`LinAlg`] trait that gathers the linear
//! operations.

use snn_core::backend::{ChannelNorm, Gemm, LinAlg, Memory, TimeReduction};
use snn_core::error::{Result, check_len};
use snn_core::{Conv, Lanes, Pool};

use crate::device::Cuda;
use crate::kernels::LINALG;
use crate::launch::Launch;
use crate::memory::Buffer;
use crate::norm::{across, columns};
use crate::spikes::{CudaSpikes, words_of};

impl Launch<'_> {
    /// A thread for each of `len` entries of rows of `[B, T, N]`, and what they are.
    fn entries(self, len: usize, lanes: Lanes) -> Self {
        self.threads(len).arg(len as i64).arg(lanes.steps as i32).arg(lanes.width as i32)
    }
}

impl Cuda {
    /// A square matrix with rows and columns exchanged.
    pub(crate) fn transposed(&self, x: &Buffer<f32>, width: usize) -> Result<Buffer<f32>> {
        let mut out = self.scratch(x.len())?;
        let tiles = width.div_ceil(32);
        let launch = self.launch(&LINALG, "transpose").grid(tiles, tiles, 1).block(32, 8);
        launch.arg(x).arg(&mut out).arg(width as i32).run()?;
        Ok(out)
    }

    /// `out[b, t, :] = factor * x[b, :]`; the lengths have been checked.
    fn repeat_scaled(&self, lanes: Lanes, factor: f32, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        self.launch(&LINALG, "repeat_steps").arg(x).arg(out).entries(lanes.len(), lanes).arg(factor).run()
    }
}

impl LinAlg for Cuda {
    fn gemm(&self, g: Gemm, a: &Buffer<f32>, b: &Buffer<f32>, c: &mut Buffer<f32>) -> Result<()> {
        check_len("gemm", "a", a.len(), g.m * g.k)?;
        check_len("gemm", "b", b.len(), g.k * g.n)?;
        check_len("gemm", "c", c.len(), g.m * g.n)?;
        self.product(g, a, b, c)
    }

    fn spikes_gemm(
        &self,
        spikes: &CudaSpikes,
        width: usize,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "spikes_gemm";
        let lanes = spikes.lanes();
        check_len(OP, "weight", weight.len(), lanes.width * width)?;
        check_len(OP, "out", out.len(), lanes.rows() * width)?;
        bias.map_or(Ok(()), |bias| check_len(OP, "bias", bias.len(), width))?;
        self.spikes_product(spikes, width, weight, bias, out)
    }

    fn spikes_gemm_weight_grad(
        &self,
        spikes: &CudaSpikes,
        width: usize,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "spikes_gemm_weight_grad";
        let lanes = spikes.lanes();
        check_len(OP, "grad", grad.len(), lanes.rows() * width)?;
        check_len(OP, "grad_weight", grad_weight.len(), lanes.width * width)?;
        self.spikes_weight_grad(spikes, width, grad, grad_weight)
    }

    fn sum_rows(&self, rows: usize, width: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("sum_rows", "x", x.len(), rows * width)?;
        check_len("sum_rows", "out", out.len(), width)?;
        self.sum_all_rows(rows, width, x, out)
    }

    fn repeat_steps(&self, lanes: Lanes, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("repeat_steps", "x", x.len(), lanes.batch * lanes.width)?;
        check_len("repeat_steps", "out", out.len(), lanes.len())?;
        if lanes.steps == 1 {
            return self.copy(x, out);
        }
        self.repeat_scaled(lanes, 1.0, x, out)
    }

    fn sum_steps(&self, lanes: Lanes, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("sum_steps", "x", x.len(), lanes.len())?;
        check_len("sum_steps", "out", out.len(), lanes.batch * lanes.width)?;
        if lanes.steps == 1 {
            return self.copy(x, out);
        }
        self.sum_each_sample(lanes, 1.0, x, out)
    }

    fn add_bias(&self, rows: usize, bias: &Buffer<f32>, x: &mut Buffer<f32>) -> Result<()> {
        check_len("add_bias", "x", x.len(), rows * bias.len())?;
        let len = x.len();
        self.launch(&LINALG, "add_bias").threads(len).arg(bias).arg(bias.len() as i32).arg(len as i64).arg(x).run()
    }

    fn add_assign(&self, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
        check_len("add_assign", "x", x.len(), y.len())?;
        let len = y.len();
        self.launch(&LINALG, "add_assign").threads(len).arg(x).arg(y).arg(len as i64).run()
    }

    fn add_scaled(&self, factor: f64, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
        check_len("add_scaled", "x", x.len(), y.len())?;
        let len = y.len();
        self.launch(&LINALG, "add_scaled").threads(len).arg(factor as f32).arg(x).arg(y).arg(len as i64).run()
    }

    fn add_constant(&self, value: f64, x: &mut Buffer<f32>) -> Result<()> {
        let len = x.len();
        self.launch(&LINALG, "add_constant").threads(len).arg(value as f32).arg(x).arg(len as i64).run()
    }

    fn relu(&self, x: &mut Buffer<f32>) -> Result<()> {
        let len = x.len();
        self.launch(&LINALG, "relu").threads(len).arg(x).arg(len as i64).run()
    }

    fn relu_grad(&self, y: &Buffer<f32>, grad: &mut Buffer<f32>) -> Result<()> {
        check_len("relu_grad", "y", y.len(), grad.len())?;
        self.launch(&LINALG, "relu_grad").threads(y.len()).arg(y).arg(grad).arg(y.len() as i64).run()
    }

    fn delay(&self, lanes: Lanes, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("delay", "x", x.len(), lanes.len())?;
        check_len("delay", "out", out.len(), lanes.len())?;
        self.launch(&LINALG, "delay").arg(x).arg(out).entries(lanes.len(), lanes).run()
    }

    fn unfold_steps(&self, lanes: Lanes, taps: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("unfold_steps", "x", x.len(), lanes.len())?;
        check_len("unfold_steps", "out", out.len(), lanes.len() * taps)?;
        let launch = self.launch(&LINALG, "unfold_steps").arg(x).arg(out);
        launch.entries(lanes.len() * taps, lanes).arg(taps as i32).run()
    }

    fn fold_steps(&self, lanes: Lanes, taps: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("fold_steps", "x", x.len(), lanes.len() * taps)?;
        check_len("fold_steps", "out", out.len(), lanes.len())?;
        self.launch(&LINALG, "fold_steps").arg(x).arg(out).entries(lanes.len(), lanes).arg(taps as i32).run()
    }

    fn advance(&self, lanes: Lanes, x: &mut Buffer<f32>) -> Result<()> {
        check_len("advance", "x", x.len(), lanes.len())?;
        self.launch(&LINALG, "advance").arg(x).entries(lanes.batch * lanes.width, lanes).run()
    }

    fn conv_spikes(
        &self,
        conv: &Conv,
        spikes: &CudaSpikes,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        self.convolve_spikes(conv, spikes, weight, bias, out)
    }

    fn conv_spikes_weight_grad(
        &self,
        conv: &Conv,
        spikes: &CudaSpikes,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        self.convolve_spikes_weight_grad(conv, spikes, grad, grad_weight)
    }

    fn conv_dense(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Buffer<f32>,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        self.convolve_dense(conv, rows, input, weight, bias, out)
    }

    fn conv_dense_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Buffer<f32>,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        self.convolve_dense_weight_grad(conv, rows, input, grad, grad_weight)
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        rows: usize,
        grad: &Buffer<f32>,
        weight: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        self.convolve_input_grad(conv, rows, grad, weight, grad_input)
    }

    fn pool_spikes(&self, pool: &Pool, spikes: &CudaSpikes, out: &mut CudaSpikes) -> Result<()> {
        self.largest_counts(pool, spikes, out)
    }

    fn pool_spikes_grad(
        &self,
        pool: &Pool,
        spikes: &CudaSpikes,
        grad: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        self.largest_counts_grad(pool, spikes, grad, grad_input)
    }

    fn pool_mean(&self, pool: &Pool, rows: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        self.means(pool, rows, x, out)
    }

    fn pool_spikes_mean(&self, pool: &Pool, spikes: &CudaSpikes, out: &mut Buffer<f32>) -> Result<()> {
        self.mean_counts(pool, spikes, out)
    }

    fn pool_mean_grad(&self, pool: &Pool, rows: usize, grad: &Buffer<f32>, grad_input: &mut Buffer<f32>) -> Result<()> {
        self.means_grad(pool, rows, grad, grad_input)
    }

    fn pool_max(
        &self,
        pool: &Pool,
        rows: usize,
        sign: Option<&Buffer<f32>>,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
        at: &mut Buffer<u32>,
    ) -> Result<()> {
        self.maxima(pool, rows, sign, x, out, at)
    }

    fn pool_max_grad(
        &self,
        pool: &Pool,
        rows: usize,
        at: &Buffer<u32>,
        grad: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        self.maxima_grad(pool, rows, at, grad, grad_input)
    }

    fn channel_moments(&self, x: &Buffer<f32>, mean: &mut Buffer<f32>, variance: &mut Buffer<f32>) -> Result<()> {
        self.moments(x, mean, variance)
    }

    fn normalise_channels(
        &self,
        norm: ChannelNorm<'_, Self>,
        x: &mut Buffer<f32>,
        normalised: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        self.normalise(&norm, x, normalised)
    }

    fn normalise_channels_grad(
        &self,
        norm: ChannelNorm<'_, Self>,
        grad: &Buffer<f32>,
        normalised: &mut Buffer<f32>,
        grad_gain: &mut Buffer<f32>,
        grad_offset: &mut Buffer<f32>,
    ) -> Result<()> {
        self.normalise_grad(&norm, grad, normalised, grad_gain, grad_offset)
    }

    fn mask_spikes(&self, mask: &Buffer<f32>, spikes: &CudaSpikes, out: &mut CudaSpikes) -> Result<()> {
        let lanes = spikes.lanes();
        check_len("mask_spikes", "mask", mask.len(), lanes.batch * lanes.width)?;
        let words = lanes.batch * words_of(lanes.width);
        let mut bits = self.scratch::<u32>(words)?;
        self.launch(&LINALG, "mask_bits")
            .warps(words)
            .arg(mask)
            .arg(&mut bits)
            .arg(lanes.batch as i32)
            .arg(lanes.width as i32)
            .run()?;
        let kept = out.overwrite(self, lanes, spikes.planes() as usize)?;
        let len = kept.len();
        self.launch(&LINALG, "mask_spikes")
            .threads(len)
            .arg(&bits)
            .arg(spikes.words())
            .arg(kept)
            .arg(len as i64)
            .arg(spikes.rows())
            .arg(lanes.steps as i32)
            .arg(spikes.words_per_row())
            .run()
    }

    fn mask_values(&self, lanes: Lanes, mask: &Buffer<f32>, x: &mut Buffer<f32>) -> Result<()> {
        check_len("mask_values", "mask", mask.len(), lanes.batch * lanes.width)?;
        check_len("mask_values", "x", x.len(), lanes.len())?;
        self.launch(&LINALG, "mask_values").arg(mask).arg(x).entries(lanes.len(), lanes).run()
    }

    fn reduce_time(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
        at: &mut Buffer<u32>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "out", out.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "at", at.len(), lanes.batch * lanes.width)?;
        if lanes.is_empty() {
            self.clear_buffer(at)?;
            return self.clear_buffer(out);
        }
        if reduction == TimeReduction::Max {
            return self
                .launch(&LINALG, "largest_steps")
                .grid(lanes.batch * across(lanes.width), 1, 1)
                .block(256, 1)
                .arg(x)
                .arg(out)
                .arg(at)
                .arg(lanes.steps as i32)
                .arg(lanes.width as i32)
                .arg(columns(lanes.width) as i32)
                .run();
        }
        self.clear_buffer(at)?;
        match reduction {
            TimeReduction::Sum | TimeReduction::Max => self.sum_steps(lanes, x, out),
            TimeReduction::Mean => self.sum_each_sample(lanes, 1.0 / lanes.steps as f32, x, out),
            TimeReduction::Last => {
                self.launch(&LINALG, "last_steps").arg(x).arg(&mut *out).entries(out.len(), lanes).run()
            }
            TimeReduction::SoftmaxSum => self.softmax_sum(lanes, x, out),
        }
    }

    fn reduce_time_grad(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Buffer<f32>,
        grad: &Buffer<f32>,
        at: &Buffer<u32>,
        grad_x: &mut Buffer<f32>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "grad", grad.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "at", at.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "grad_x", grad_x.len(), lanes.len())?;
        let place = |at: Option<&Buffer<u32>>, grad_x: &mut Buffer<f32>| {
            self.launch(&LINALG, "place_steps").arg(grad).arg(at).arg(grad_x).entries(lanes.len(), lanes).run()
        };
        match reduction {
            TimeReduction::Sum => self.repeat_steps(lanes, grad, grad_x),
            TimeReduction::Mean => self.repeat_scaled(lanes, 1.0 / lanes.steps as f32, grad, grad_x),
            TimeReduction::Last => place(None, grad_x),
            TimeReduction::Max => place(Some(at), grad_x),
            TimeReduction::SoftmaxSum => self.softmax_sum_grad(lanes, x, grad, grad_x),
        }
    }

    // The host does not see the targets: one that is no class gives a loss and a gradient that are no numbers.
    fn softmax_cross_entropy(
        &self,
        classes: usize,
        logits: &Buffer<f32>,
        targets: &Buffer<u32>,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        self.cross_entropy(classes, logits, targets, losses, grad)
    }

    fn soft_cross_entropy(
        &self,
        classes: usize,
        logits: &Buffer<f32>,
        targets: &Buffer<f32>,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        self.soft_loss("soft_cross_entropy", classes, logits, targets, losses, grad)
    }

    fn squared_error(
        &self,
        classes: usize,
        outputs: &Buffer<f32>,
        targets: &Buffer<f32>,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        self.soft_loss("squared_error", classes, outputs, targets, losses, grad)
    }
}
