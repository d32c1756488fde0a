//! Dense products of a few rows: layers with a small batch, where every product reads or writes the weights about once.
//!
//! * forward, `c[m, n] = a[m, k] b[k, n]` with small `m`: a tile of `c` stays in registers while the rows of `b` pass
//!   by once; rows whose input is 0 in all samples (background of an image, silent neurons) are not even read;
//! * weight gradient, `c[m, n] = a[k, m]^T b[k, n]` with small `k`: each row of `c` is the sum of the few rows of `b`
//!   whose factor is not 0;
//! * input gradient of a narrow layer, `c[m, n] = a[m, k] b[n, k]^T` with small `m` and `k`: as forward, on a
//!   transposed copy of `b`.
//!
//! A factor of exactly 0 adds nothing, also where the weight is not finite. Pieces depend on sizes alone.

use std::sync::Mutex;

use pulp::{Simd, WithSimd};
use snn_core::backend::Gemm;

use crate::memory::{Cpu, lock};
use crate::simd;

/// Most samples of a thin product.
const SAMPLES: usize = 16;

/// Samples whose sums are in registers together.
const ROWS: usize = 8;

/// Vectors of a tile's row: with [`ROWS`] samples they fill 24 of 32 registers; half of that where there are 16.
const VECTORS: usize = 3;

/// Most inner entries of a product whose second operand is turned round first.
const TURNED: usize = 32;

/// Multiply-adds of a piece, at least: some microseconds.
const PIECE_WORK: usize = 1 << 16;

/// Does the product if it is a thin one, and says whether it was. Sizes are checked.
pub(crate) fn product(cpu: &Cpu, g: Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> bool {
    let Gemm { m, n, k, .. } = g;
    if m * n * k == 0 {
        return false;
    }
    match (g.transpose_a, g.transpose_b) {
        (false, false) if m <= SAMPLES => few_rows(cpu, g, a, b, c),
        (false, true) if m <= SAMPLES && k <= TURNED => cpu.with_scratch(n * k, |turned| {
            for (j, row) in b.chunks_exact(k).enumerate() {
                row.iter().enumerate().for_each(|(i, &value)| turned[i * n + j] = value);
            }
            few_rows(cpu, Gemm { transpose_b: false, ..g }, a, turned, c);
        }),
        (true, false) if k <= SAMPLES => few_terms(cpu, g, a, b, c),
        _ => return false,
    }
    true
}

/// `c[m, n] = a[m, k] b[k, n]`, few rows.
fn few_rows(cpu: &Cpu, g: Gemm, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Gemm { m, n, k, .. } = g;
    for (a, c) in a.chunks(ROWS * k).zip(c.chunks_mut(ROWS * n)) {
        let rows = c.len() / n;
        let mut used = vec![false; k];
        for row in a.chunks_exact(k) {
            used.iter_mut().zip(row).for_each(|(used, &x)| *used |= x != 0.0);
        }
        let used: Vec<u32> = (0..k as u32).filter(|&i| used[i as usize]).collect();
        // Whole tiles of the widest vectors; a piece has work enough to be worth a thread.
        let tile = 16 * VECTORS;
        let width = tile * (PIECE_WORK / (tile * k * m)).max(1);
        let c = Mutex::new(c);
        let work = |from: usize| {
            let mut columns = from..(from + width).min(n);
            while !columns.is_empty() {
                let at = columns.start;
                let mut sums = [[0.0; 16 * VECTORS]; ROWS];
                let done = simd::vectorise(Tile { a, b, n, k, at, end: columns.end, used: &used, sums: &mut sums });
                let mut c = lock(&c);
                for (row, sums) in (0..rows).zip(&sums) {
                    let c = &mut c[row * n + at..][..done];
                    if g.accumulate {
                        c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                    } else {
                        c.copy_from_slice(&sums[..done]);
                    }
                }
                columns.start += done;
            }
        };
        cpu.each_piece((0..n.div_ceil(width)).map(|piece| piece * width), work);
    }
}

/// Some columns of a few rows of `c`.
struct Tile<'a> {
    a: &'a [f32],
    b: &'a [f32],
    n: usize,
    k: usize,
    /// The first column.
    at: usize,
    /// The column after the last.
    end: usize,
    /// Rows of `b` that count.
    used: &'a [u32],
    sums: &'a mut [[f32; 16 * VECTORS]; ROWS],
}

impl WithSimd for Tile<'_> {
    /// The number of columns done.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let rows = self.a.len() / self.k;
        match (rows, S::REGISTER_COUNT) {
            (0..=1, _) => self.columns::<S, 1>(simd),
            (2..=4, _) => self.columns::<S, 4>(simd),
            (_, ..=16) => self.columns::<S, 4>(simd),
            _ => self.columns::<S, ROWS>(simd),
        }
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn columns<S: Simd, const R: usize>(self, simd: S) -> usize {
        let vectors = (self.end - self.at).div_ceil(S::F32_LANES);
        match vectors {
            1 => self.run::<S, R, 1>(simd),
            2 => self.run::<S, R, 2>(simd),
            _ => self.run::<S, R, VECTORS>(simd),
        }
    }

    /// `V` vectors of columns, the last of which may lie partly beyond the end; samples `R` at a time.
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) -> usize {
        let Self { a, b, n, k, at, end, used, sums } = self;
        let lanes = S::F32_LANES;
        let width = (V * lanes).min(end - at);
        let rows = a.len() / k;
        for (group, sums) in sums.chunks_mut(R).enumerate() {
            if group * R >= rows {
                break;
            }
            // Rows that do not exist repeat the last one: their sums are never read.
            let x: [&[f32]; R] = std::array::from_fn(|r| &a[(group * R + r).min(rows - 1) * k..][..k]);
            let mut acc = [[simd.splat_f32s(0.0); V]; R];
            for &i in used {
                let i = i as usize;
                let row = &b[i * n + at..][..width];
                let mut w = [simd.splat_f32s(0.0); V];
                for (v, w) in w.iter_mut().enumerate() {
                    let part = &row[v * lanes..((v + 1) * lanes).min(width)];
                    *w = simd.partial_load_f32s(part);
                }
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = simd.splat_f32s(x[i]);
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = simd.mul_add_f32s(x, w, *acc);
                    }
                }
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                let flat: &[f32] = bytemuck::cast_slice(&acc);
                sums[..width].copy_from_slice(&flat[..width]);
            }
        }
        width
    }
}

/// `c[m, n] = a[k, m]^T b[k, n]`, few terms.
fn few_terms(cpu: &Cpu, g: Gemm, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Gemm { m, n, .. } = g;
    let rows = (PIECE_WORK / (4 * n)).max(1);
    cpu.each_piece(c.chunks_mut(rows * n).enumerate(), |(piece, c)| {
        simd::run(
            #[inline(always)]
            || {
                for (row, c) in (piece * rows..).zip(c.chunks_exact_mut(n)) {
                    let mut fresh = !g.accumulate;
                    for (a, b) in a.chunks_exact(m).zip(b.chunks_exact(n)) {
                        let x = a[row];
                        if x == 0.0 {
                            continue;
                        }
                        if fresh {
                            c.iter_mut().zip(b).for_each(|(c, &b)| *c = x * b);
                            fresh = false;
                        } else {
                            c.iter_mut().zip(b).for_each(|(c, &b)| *c += x * b);
                        }
                    }
                    if fresh {
                        c.fill(0.0);
                    }
                }
            },
        );
    });
}
