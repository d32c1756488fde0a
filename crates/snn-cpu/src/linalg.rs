//! Dense linear algebra and fixed-order reductions, and the [`LinAlg`] trait that gathers the linear operations.

use rayon::prelude::*;
use snn_core::backend::{ChannelNorm, Gemm, LinAlg, Memory, TimeReduction};
use snn_core::error::{Error, Result, check_len};
use snn_core::{Conv, Lanes, Pool, Spikes};

use crate::memory::{Cpu, PIECE};
use crate::product::{Strides, add, sgemm};
use crate::{conv, norm, pool, simd, sparse, thin};

/// Rows that are summed together: fixed, so the order of the sum is.
const SUM_ROWS: usize = 256;

/// Pieces into which a product is cut: enough for many cores, never depending on how many there are.
const PIECES: usize = 16;

/// Fewest rows or columns of a piece: each piece packs the other operand anew, which must not dominate.
const MIN_PIECE: usize = 256;

impl Cpu {
    /// Applies `each` to the entries of two arrays of the same length, in pieces.
    fn zip_pieces(&self, x: &[f32], y: &mut [f32], each: impl Fn(f32, &mut f32) + Sync) {
        self.each_piece(y.chunks_mut(PIECE).zip(x.chunks(PIECE)), |(y, x)| {
            simd::run(
                #[inline(always)]
                || y.iter_mut().zip(x).for_each(|(y, &x)| each(x, y)),
            );
        });
    }

    /// Applies `each` to every entry, in pieces.
    fn map_pieces(&self, x: &mut [f32], each: impl Fn(&mut f32) + Sync) {
        self.each_piece(x.chunks_mut(PIECE), |x| {
            simd::run(
                #[inline(always)]
                || x.iter_mut().for_each(&each),
            );
        });
    }
}

/// Whether a reduction of a single step is that step.
fn is_the_step(reduction: TimeReduction, lanes: Lanes) -> bool {
    lanes.steps == 1 && reduction != TimeReduction::SoftmaxSum
}

impl LinAlg for Cpu {
    fn gemm(&self, g: Gemm, a: &Vec<f32>, b: &Vec<f32>, c: &mut Vec<f32>) -> Result<()> {
        let Gemm { m, n, k, .. } = g;
        check_len("gemm", "a", a.len(), m * k)?;
        check_len("gemm", "b", b.len(), k * n)?;
        check_len("gemm", "c", c.len(), m * n)?;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let sa = if g.transpose_a { Strides { row: 1, column: m } } else { Strides::rows(k) };
        let sb = if g.transpose_b { Strides { row: 1, column: k } } else { Strides::rows(n) };
        if thin::product(self, g, a, b, c) {
            return Ok(());
        }
        // Rows are cut where there are many, columns only for a few long rows; pieces of columns are computed
        // into scratch, because they interleave in `c`.
        let rows = m.div_ceil(PIECES).max(MIN_PIECE).min(m);
        let columns = if m >= 4 * MIN_PIECE { n } else { n.div_ceil(PIECES).max(MIN_PIECE).min(n) };
        if rows == m && columns == n {
            sgemm(m, n, k, (a, sa), (b, sb), (c, Strides::rows(n)), g.accumulate);
            return Ok(());
        }
        self.install(|| {
            c.par_chunks_mut(rows * n).enumerate().for_each(|(p, c)| {
                let (at, m) = (p * rows, c.len() / n);
                let a = &a[at * sa.row..];
                if columns == n {
                    sgemm(m, n, k, (a, sa), (b, sb), (c, Strides::rows(n)), g.accumulate);
                    return;
                }
                let pieces: Vec<(usize, Vec<f32>)> = (0..n)
                    .into_par_iter()
                    .step_by(columns)
                    .map(|from| {
                        let width = columns.min(n - from);
                        let mut out = vec![0.0; m * width];
                        sgemm(
                            m,
                            width,
                            k,
                            (a, sa),
                            (&b[from * sb.column..], sb),
                            (&mut out, Strides::rows(width)),
                            false,
                        );
                        (from, out)
                    })
                    .collect();
                for (from, piece) in pieces {
                    let width = piece.len() / m;
                    for (row, piece) in c.chunks_mut(n).zip(piece.chunks(width)) {
                        let row = &mut row[from..from + width];
                        if g.accumulate {
                            row.iter_mut().zip(piece).for_each(|(c, &x)| *c += x);
                        } else {
                            row.copy_from_slice(piece);
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn spikes_gemm(
        &self,
        spikes: &Spikes,
        width: usize,
        weight: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        sparse::forward(self, spikes, width, weight, bias.map(Vec::as_slice), out)
    }

    fn spikes_gemm_weight_grad(
        &self,
        spikes: &Spikes,
        width: usize,
        grad: &Vec<f32>,
        grad_weight: &mut Vec<f32>,
    ) -> Result<()> {
        sparse::weight_grad(self, spikes, width, grad, grad_weight)
    }

    fn sum_rows(&self, rows: usize, width: usize, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("sum_rows", "x", x.len(), rows * width)?;
        check_len("sum_rows", "out", out.len(), width)?;
        if width == 0 {
            return Ok(());
        }
        if rows <= SUM_ROWS {
            sum_into(x, out);
            return Ok(());
        }
        self.with_scratch(rows.div_ceil(SUM_ROWS) * width, |partial| {
            let pieces = partial.chunks_exact_mut(width).zip(x.chunks(SUM_ROWS * width));
            self.each_piece(pieces, |(sum, rows)| sum_into(rows, sum));
            sum_into(partial, out);
        });
        Ok(())
    }

    fn repeat_steps(&self, lanes: Lanes, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("repeat_steps", "x", x.len(), lanes.batch * lanes.width)?;
        check_len("repeat_steps", "out", out.len(), lanes.len())?;
        if lanes.steps == 1 {
            return self.copy(x, out);
        }
        if lanes.is_empty() {
            return Ok(());
        }
        self.install(|| {
            let samples = out.par_chunks_mut(lanes.steps * lanes.width).zip(x.par_chunks(lanes.width));
            samples.for_each(|(out, x)| out.chunks_mut(lanes.width).for_each(|row| row.copy_from_slice(x)));
        });
        Ok(())
    }

    fn sum_steps(&self, lanes: Lanes, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("sum_steps", "x", x.len(), lanes.len())?;
        check_len("sum_steps", "out", out.len(), lanes.batch * lanes.width)?;
        if lanes.steps == 1 {
            return self.copy(x, out);
        }
        out.fill(0.0);
        if lanes.is_empty() {
            return Ok(());
        }
        self.install(|| {
            let samples = out.par_chunks_mut(lanes.width).zip(x.par_chunks(lanes.steps * lanes.width));
            samples.for_each(|(out, x)| x.chunks_exact(lanes.width).for_each(|row| add(row, out)));
        });
        Ok(())
    }

    fn add_bias(&self, rows: usize, bias: &Vec<f32>, x: &mut Vec<f32>) -> Result<()> {
        check_len("add_bias", "x", x.len(), rows * bias.len())?;
        if bias.is_empty() {
            return Ok(());
        }
        let together = (PIECE / bias.len()).max(1);
        self.each_piece(x.chunks_mut(together * bias.len()), |rows| {
            simd::run(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact_mut(bias.len()) {
                        row.iter_mut().zip(bias).for_each(|(x, &b)| *x += b);
                    }
                },
            );
        });
        Ok(())
    }

    fn add_assign(&self, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        check_len("add_assign", "x", x.len(), y.len())?;
        self.each_piece(y.chunks_mut(PIECE).zip(x.chunks(PIECE)), |(y, x)| add(x, y));
        Ok(())
    }

    fn add_scaled(&self, factor: f64, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        check_len("add_scaled", "x", x.len(), y.len())?;
        let factor = factor as f32;
        self.zip_pieces(
            x,
            y,
            #[inline(always)]
            |x, y| *y += factor * x,
        );
        Ok(())
    }

    fn add_constant(&self, value: f64, x: &mut Vec<f32>) -> Result<()> {
        self.map_pieces(
            x,
            #[inline(always)]
            |x| *x += value as f32,
        );
        Ok(())
    }

    fn relu(&self, x: &mut Vec<f32>) -> Result<()> {
        self.map_pieces(
            x,
            #[inline(always)]
            |x| *x = x.max(0.0),
        );
        Ok(())
    }

    fn relu_grad(&self, y: &Vec<f32>, grad: &mut Vec<f32>) -> Result<()> {
        check_len("relu_grad", "y", y.len(), grad.len())?;
        self.zip_pieces(
            y,
            grad,
            #[inline(always)]
            |y, g| *g = if y > 0.0 { *g } else { 0.0 },
        );
        Ok(())
    }

    fn delay(&self, lanes: Lanes, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("delay", "x", x.len(), lanes.len())?;
        check_len("delay", "out", out.len(), lanes.len())?;
        let sample = (lanes.steps * lanes.width).max(1);
        self.install(|| {
            out.par_chunks_mut(sample).zip(x.par_chunks(sample)).for_each(|(out, x)| {
                let (first, rest) = out.split_at_mut(lanes.width);
                first.fill(0.0);
                rest.copy_from_slice(&x[..rest.len()]);
            });
        });
        Ok(())
    }

    fn unfold_steps(&self, lanes: Lanes, taps: usize, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("unfold_steps", "x", x.len(), lanes.len())?;
        check_len("unfold_steps", "out", out.len(), lanes.len() * taps)?;
        let (row, width) = ((lanes.width * taps).max(1), lanes.width);
        self.install(|| {
            out.par_chunks_mut(row).with_min_len(16).enumerate().for_each(|(at, out)| {
                let step = at % lanes.steps;
                for (i, out) in out.chunks_mut(taps).enumerate() {
                    for (d, out) in out.iter_mut().enumerate() {
                        *out = if d <= step { x[(at - d) * width + i] } else { 0.0 };
                    }
                }
            });
        });
        Ok(())
    }

    fn fold_steps(&self, lanes: Lanes, taps: usize, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("fold_steps", "x", x.len(), lanes.len() * taps)?;
        check_len("fold_steps", "out", out.len(), lanes.len())?;
        let width = lanes.width.max(1);
        self.install(|| {
            out.par_chunks_mut(width).with_min_len(16).enumerate().for_each(|(at, out)| {
                let later = taps.min(lanes.steps - at % lanes.steps);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = (0..later).map(|d| x[((at + d) * width + i) * taps + d]).sum();
                }
            });
        });
        Ok(())
    }

    fn advance(&self, lanes: Lanes, x: &mut Vec<f32>) -> Result<()> {
        check_len("advance", "x", x.len(), lanes.len())?;
        let sample = (lanes.steps * lanes.width).max(1);
        self.install(|| {
            x.par_chunks_mut(sample).for_each(|x| {
                x.copy_within(lanes.width.., 0);
                let last = x.len() - lanes.width;
                x[last..].fill(0.0);
            });
        });
        Ok(())
    }

    fn conv_spikes(
        &self,
        conv: &Conv,
        spikes: &Spikes,
        weight: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        conv::spikes_forward(self, conv, spikes, weight, bias.map(Vec::as_slice), out)
    }

    fn conv_spikes_weight_grad(
        &self,
        conv: &Conv,
        spikes: &Spikes,
        grad: &Vec<f32>,
        grad_weight: &mut Vec<f32>,
    ) -> Result<()> {
        conv::spikes_weight_grad(self, conv, spikes, grad, grad_weight)
    }

    fn conv_dense(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Vec<f32>,
        weight: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        conv::dense_forward(self, conv, rows, input, weight, bias.map(Vec::as_slice), out)
    }

    fn conv_dense_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Vec<f32>,
        grad: &Vec<f32>,
        grad_weight: &mut Vec<f32>,
    ) -> Result<()> {
        conv::dense_weight_grad(self, conv, rows, input, grad, grad_weight)
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        rows: usize,
        grad: &Vec<f32>,
        weight: &Vec<f32>,
        grad_input: &mut Vec<f32>,
    ) -> Result<()> {
        conv::input_grad(self, conv, rows, grad, weight, grad_input)
    }

    fn pool_spikes(&self, pool: &Pool, spikes: &Spikes, out: &mut Spikes) -> Result<()> {
        pool::forward(self, pool, spikes, out)
    }

    fn pool_spikes_grad(&self, pool: &Pool, spikes: &Spikes, grad: &Vec<f32>, grad_input: &mut Vec<f32>) -> Result<()> {
        pool::backward(self, pool, spikes, grad, grad_input)
    }

    fn pool_mean(&self, pool: &Pool, rows: usize, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        pool::mean(self, pool, rows, x, out)
    }

    fn pool_spikes_mean(&self, pool: &Pool, spikes: &Spikes, out: &mut Vec<f32>) -> Result<()> {
        pool::spikes_mean(self, pool, spikes, out)
    }

    fn pool_mean_grad(&self, pool: &Pool, rows: usize, grad: &Vec<f32>, grad_input: &mut Vec<f32>) -> Result<()> {
        pool::mean_grad(self, pool, rows, grad, grad_input)
    }

    fn pool_max(
        &self,
        pool: &Pool,
        rows: usize,
        sign: Option<&Vec<f32>>,
        x: &Vec<f32>,
        out: &mut Vec<f32>,
        at: &mut Vec<u32>,
    ) -> Result<()> {
        pool::max(self, pool, rows, sign.map(Vec::as_slice), x, out, at)
    }

    fn pool_max_grad(
        &self,
        pool: &Pool,
        rows: usize,
        at: &Vec<u32>,
        grad: &Vec<f32>,
        grad_input: &mut Vec<f32>,
    ) -> Result<()> {
        pool::max_grad(self, pool, rows, at, grad, grad_input)
    }

    fn channel_moments(&self, x: &Vec<f32>, mean: &mut Vec<f32>, variance: &mut Vec<f32>) -> Result<()> {
        norm::moments(self, x, mean, variance)
    }

    fn normalise_channels(
        &self,
        norm: ChannelNorm<'_, Self>,
        x: &mut Vec<f32>,
        normalised: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        norm::forward(self, &norm, x, normalised)
    }

    fn normalise_channels_grad(
        &self,
        norm: ChannelNorm<'_, Self>,
        grad: &Vec<f32>,
        normalised: &mut Vec<f32>,
        grad_gain: &mut Vec<f32>,
        grad_offset: &mut Vec<f32>,
    ) -> Result<()> {
        norm::backward(self, &norm, grad, normalised, grad_gain, grad_offset)
    }

    fn mask_spikes(&self, mask: &Vec<f32>, spikes: &Spikes, out: &mut Spikes) -> Result<()> {
        let lanes = spikes.lanes();
        check_len("mask_spikes", "mask", mask.len(), lanes.batch * lanes.width)?;
        let of_row = |row: usize| &mask[row / lanes.steps * lanes.width..][..lanes.width];
        let kept = |row: usize| spikes.row(row).iter().copied().filter(move |&u| of_row(row)[u as usize] != 0.0);
        let lengths: Vec<usize> =
            self.install(|| (0..lanes.rows()).into_par_iter().with_min_len(64).map(|row| kept(row).count()).collect());
        let (_, units) = out.reserve(lanes, lengths);
        units.iter_mut().zip((0..lanes.rows()).flat_map(kept)).for_each(|(to, unit)| *to = unit);
        Ok(())
    }

    fn mask_values(&self, lanes: Lanes, mask: &Vec<f32>, x: &mut Vec<f32>) -> Result<()> {
        check_len("mask_values", "mask", mask.len(), lanes.batch * lanes.width)?;
        check_len("mask_values", "x", x.len(), lanes.len())?;
        if lanes.is_empty() {
            return Ok(());
        }
        self.install(|| {
            let samples = x.par_chunks_mut(lanes.steps * lanes.width).zip(mask.par_chunks(lanes.width));
            samples.for_each(|(x, mask)| {
                x.chunks_exact_mut(lanes.width).for_each(|row| row.iter_mut().zip(mask).for_each(|(x, m)| *x *= m));
            });
        });
        Ok(())
    }

    fn reduce_time(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Vec<f32>,
        out: &mut Vec<f32>,
        at: &mut Vec<u32>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "out", out.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "at", at.len(), lanes.batch * lanes.width)?;
        at.fill(0);
        if reduction == TimeReduction::Sum || lanes.is_empty() || is_the_step(reduction, lanes) {
            return self.sum_steps(lanes, x, out);
        }
        let share = 1.0 / lanes.steps as f32;
        self.install(|| {
            let samples = out.par_chunks_mut(lanes.width).zip(at.par_chunks_mut(lanes.width));
            samples.zip(x.par_chunks(lanes.steps * lanes.width)).for_each(|((out, at), x)| {
                let rows = x.chunks_exact(lanes.width);
                match reduction {
                    TimeReduction::Max => maximum(rows, out, at),
                    TimeReduction::Last => rows.last().into_iter().for_each(|row| out.copy_from_slice(row)),
                    TimeReduction::Sum | TimeReduction::Mean => {
                        out.fill(0.0);
                        rows.for_each(|row| add(row, out));
                        out.iter_mut().for_each(|sum| *sum *= share);
                    }
                    TimeReduction::SoftmaxSum => {
                        out.fill(0.0);
                        let mut p = vec![0.0; lanes.width];
                        for row in rows {
                            softmax(row, &mut p);
                            add(&p, out);
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn reduce_time_grad(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Vec<f32>,
        grad: &Vec<f32>,
        at: &Vec<u32>,
        grad_x: &mut Vec<f32>,
    ) -> Result<()> {
        check_len("reduce_time", "x", x.len(), lanes.len())?;
        check_len("reduce_time", "grad", grad.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "at", at.len(), lanes.batch * lanes.width)?;
        check_len("reduce_time", "grad_x", grad_x.len(), lanes.len())?;
        if reduction == TimeReduction::Sum || lanes.is_empty() || is_the_step(reduction, lanes) {
            return self.repeat_steps(lanes, grad, grad_x);
        }
        let (sample, width, share) = (lanes.steps * lanes.width, lanes.width, 1.0 / lanes.steps as f32);
        self.install(|| {
            grad_x.par_chunks_mut(sample).zip(grad.par_chunks(width)).enumerate().for_each(|(b, (out, grad))| {
                match reduction {
                    TimeReduction::Sum | TimeReduction::Mean => {
                        let row: Vec<f32> = grad.iter().map(|g| g * share).collect();
                        out.chunks_exact_mut(width).for_each(|out| out.copy_from_slice(&row));
                    }
                    TimeReduction::Last => {
                        out.fill(0.0);
                        out[sample - width..].copy_from_slice(grad);
                    }
                    TimeReduction::Max => {
                        out.fill(0.0);
                        for (n, (&t, &g)) in at[b * width..(b + 1) * width].iter().zip(grad).enumerate() {
                            out[t as usize * width + n] = g;
                        }
                    }
                    TimeReduction::SoftmaxSum => {
                        let x = &x[b * sample..(b + 1) * sample];
                        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                            softmax(x, out);
                            let mean: f32 = out.iter().zip(grad).map(|(p, g)| p * g).sum();
                            out.iter_mut().zip(grad).for_each(|(p, g)| *p *= g - mean);
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn softmax_cross_entropy(
        &self,
        classes: usize,
        logits: &Vec<f32>,
        targets: &Vec<u32>,
        losses: &mut Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "softmax_cross_entropy";
        check_len(OP, "logits", logits.len(), targets.len() * classes)?;
        check_len(OP, "losses", losses.len(), targets.len())?;
        check_len(OP, "grad", grad.len(), logits.len())?;
        let scale = 1.0 / targets.len() as f32;
        for (b, &target) in targets.iter().enumerate() {
            if target as usize >= classes {
                return Err(Error::Unit { op: OP, unit: target, width: classes });
            }
            let row = &logits[b * classes..(b + 1) * classes];
            let grad = &mut grad[b * classes..(b + 1) * classes];
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if top == f32::NEG_INFINITY && !row.iter().any(|x| x.is_nan()) {
                losses[b] = f32::INFINITY;
                grad.fill(0.0);
                continue;
            }
            let mut sum = 0.0;
            for (g, &x) in grad.iter_mut().zip(row) {
                *g = (x - top).exp();
                sum += *g;
            }
            losses[b] = sum.ln() - (row[target as usize] - top);
            grad.iter_mut().for_each(|g| *g *= scale / sum);
            grad[target as usize] -= scale;
        }
        Ok(())
    }

    fn soft_cross_entropy(
        &self,
        classes: usize,
        logits: &Vec<f32>,
        targets: &Vec<f32>,
        losses: &mut Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        check_soft("soft_cross_entropy", classes, logits, targets, losses, grad)?;
        let scale = 1.0 / losses.len() as f32;
        for (b, loss) in losses.iter_mut().enumerate() {
            let cut = b * classes..(b + 1) * classes;
            let (row, targets, grad) = (&logits[cut.clone()], &targets[cut.clone()], &mut grad[cut]);
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if top == f32::NEG_INFINITY && !row.iter().any(|x| x.is_nan()) {
                *loss = f32::INFINITY;
                grad.fill(0.0);
                continue;
            }
            let sum: f32 = row.iter().map(|&x| (x - top).exp()).sum();
            let most = targets.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let counts = |(x, t): &(&f32, &f32)| **x != f32::NEG_INFINITY || **t >= most;
            *loss = row.iter().zip(targets).filter(counts).map(|(&x, &t)| t * (sum.ln() - (x - top))).sum();
            for ((g, &x), &t) in grad.iter_mut().zip(row).zip(targets) {
                *g = ((x - top).exp() / sum - t) * scale;
            }
        }
        Ok(())
    }

    fn squared_error(
        &self,
        classes: usize,
        outputs: &Vec<f32>,
        targets: &Vec<f32>,
        losses: &mut Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        check_soft("squared_error", classes, outputs, targets, losses, grad)?;
        let (share, scale) = (1.0 / classes as f32, 2.0 / outputs.len() as f32);
        for (b, loss) in losses.iter_mut().enumerate() {
            let cut = b * classes..(b + 1) * classes;
            *loss = 0.0;
            for ((g, &x), &t) in grad[cut.clone()].iter_mut().zip(&outputs[cut.clone()]).zip(&targets[cut]) {
                *loss += share * (x - t) * (x - t);
                *g = scale * (x - t);
            }
        }
        Ok(())
    }
}

/// Checks the sizes of a loss with a target for every class.
fn check_soft(
    op: &'static str,
    classes: usize,
    outputs: &[f32],
    targets: &[f32],
    losses: &[f32],
    grad: &[f32],
) -> Result<()> {
    check_len(op, "outputs", outputs.len(), losses.len() * classes)?;
    check_len(op, "targets", targets.len(), outputs.len())?;
    check_len(op, "grad", grad.len(), outputs.len())
}

/// The maximum of every column, and the first row that has it.
fn maximum<'a>(mut rows: impl Iterator<Item = &'a [f32]>, out: &mut [f32], at: &mut [u32]) {
    rows.next().into_iter().for_each(|row| out.copy_from_slice(row));
    for (t, row) in (1..).zip(rows) {
        for ((best, at), &v) in out.iter_mut().zip(at.iter_mut()).zip(row) {
            if v > *best {
                (*best, *at) = (v, t);
            }
        }
    }
}

/// The softmax of a row.
fn softmax(row: &[f32], out: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (p, &x) in out.iter_mut().zip(row) {
        *p = (x - top).exp();
        sum += *p;
    }
    out.iter_mut().for_each(|p| *p /= sum);
}

/// `out = the sum of the rows of x`, in order, on one thread.
fn sum_into(x: &[f32], out: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || {
            out.fill(0.0);
            for row in x.chunks_exact(out.len()) {
                out.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
            }
        },
    );
}
