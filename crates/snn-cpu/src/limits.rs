//! What this machine can do at best, measured by fixed loops: the yardsticks of the speed benchmarks.
//!
//! | limit | loop |
//! |---|---|
//! | copy bandwidth | `copy_from_slice` between two arrays far larger than any cache; bytes read plus bytes written |
//! | multiply-adds | independent fused multiply-adds that never leave the registers; two operations each |
//! | row adds | one weight row added to an accumulator row, both in the first-level cache; elements added |
//!
//! Each is the best of several rounds, because whatever else the machine does can only make a round slower.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::Cpu;
use crate::product::add;

/// Entries of each of the two arrays that are copied: 128 MiB.
const COPY: usize = 1 << 25;

/// Columns of a row add.
pub const ROW: usize = 256;

/// Weight rows: with the accumulator they fill half of a first-level cache of 48 KiB.
const ROWS: usize = 23;

/// Chains of multiply-adds: more than latency times units of today's cores, fewer than 16 registers less operands.
const CHAINS: usize = 12;

/// Rounds of which the best counts, at least, and seconds that they fill, at least: long enough to meet a moment when
/// other programs leave the machine alone.
const ROUNDS: usize = 25;
const SECONDS: f64 = 0.3;

/// A rate of one thread alone, and of all threads of the device at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// One thread, the others idle.
    pub one: f64,
    /// All threads together.
    pub all: f64,
}

/// The measured limits of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Threads of the device.
    pub threads: usize,
    /// Bytes per second of a copy, read and written bytes both counted.
    pub copy: Rate,
    /// Floating point operations per second of fused multiply-adds in `f32`, two per multiply-add.
    pub fma: Rate,
    /// Elements per second of row adds.
    pub row_add: Rate,
}

impl Limits {
    /// Measures all of them; takes about two seconds and 256 MiB.
    #[must_use]
    pub fn measure(cpu: &Cpu) -> Self {
        Self { threads: cpu.threads(), copy: copy_bandwidth(cpu), fma: fma_peak(cpu), row_add: row_adds(cpu) }
    }
}

/// Seconds of the best round.
fn best(mut round: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let (mut best, mut rounds) = (f64::INFINITY, 0);
    while rounds < ROUNDS || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

/// The rate of `work`, which does `amount` of something, on one thread and on every thread at once.
fn rate(cpu: &Cpu, amount: f64, work: impl Fn() + Sync) -> Rate {
    let one = best(&work);
    let all = best(|| {
        cpu.install(|| rayon::broadcast(|_| work()));
    });
    Rate { one: amount / one, all: amount * cpu.threads() as f64 / all }
}

/// Copies arrays that no cache holds, one long stretch per thread.
#[must_use]
pub fn copy_bandwidth(cpu: &Cpu) -> Rate {
    let (from, mut to) = (vec![1.0_f32; COPY], vec![0.0_f32; COPY]);
    let bytes = (2 * COPY * size_of::<f32>()) as f64;
    let one = best(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    let stretch = COPY.div_ceil(cpu.threads());
    let all = best(|| {
        let (from, to) = (black_box(&from), black_box(&mut to));
        cpu.install(|| {
            to.par_chunks_mut(stretch).zip(from.par_chunks(stretch)).for_each(|(to, from)| to.copy_from_slice(from))
        });
    });
    Rate { one: bytes / one, all: bytes / all }
}

/// Fused multiply-adds in registers, in the widest vectors of the machine.
#[must_use]
pub fn fma_peak(cpu: &Cpu) -> Rate {
    const STEPS: usize = 1 << 20;
    let lanes = Arch::new().dispatch(Width);
    rate(cpu, (2 * STEPS * CHAINS * lanes) as f64, || {
        black_box(Arch::new().dispatch(Chains { steps: STEPS }));
    })
}

/// Lanes of the widest vector.
struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Every chain follows `x = a x + b`, which stays near 1 whatever the number of steps.
struct Chains {
    steps: usize,
}

impl WithSimd for Chains {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let a = simd.splat_f32s(black_box(0.999));
        let b = simd.splat_f32s(black_box(0.001));
        // Different starts, unknown to the compiler: equal chains would be computed once.
        let mut chains = [simd.splat_f32s(0.0); CHAINS];
        for (k, chain) in chains.iter_mut().enumerate() {
            *chain = simd.splat_f32s(black_box(k as f32));
        }
        for _ in 0..self.steps {
            for chain in &mut chains {
                *chain = simd.mul_add_f32s(*chain, a, b);
            }
        }
        chains.into_iter().fold(0.0, |sum, chain| sum + simd.reduce_sum_f32s(chain))
    }
}

/// Adds weight rows of [`ROW`] columns to one accumulator row, everything in the first-level cache.
#[must_use]
pub fn row_adds(cpu: &Cpu) -> Rate {
    const SWEEPS: usize = 1 << 14;
    rate(cpu, (SWEEPS * ROWS * ROW) as f64, || {
        let weight = black_box(vec![1e-6_f32; ROWS * ROW]);
        let mut sum = black_box(vec![0.0_f32; ROW]);
        for _ in 0..SWEEPS {
            weight.chunks_exact(ROW).for_each(|row| add(row, &mut sum));
        }
        black_box(sum);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_finite_and_are_all_computed() {
        let lanes = Arch::new().dispatch(Width);
        let sum = Arch::new().dispatch(Chains { steps: 10_000 });
        assert!((sum - (CHAINS * lanes) as f32).abs() < 0.1 * (CHAINS * lanes) as f32, "{sum}");
    }
}
