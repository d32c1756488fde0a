//! Elementary functions and random draws in the form that loops over slices vectorise: no branches, no calls.

use snn_core::random::{MULTIPLIERS, SpikeDraws, WEYL};

/// `exp(x)` within 2 units in the last place; arguments beyond `[-87, 88]` are taken as the nearest bound.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's series to the seventh power: the next term is below 5e-9.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    p * f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23)
}

/// The multi-Gaussian surrogate (SUR-3) with [`exp`].
#[inline(always)]
pub(crate) fn multi_gaussian(height: f64, width: f64, gain: f64, u: f32) -> f32 {
    let bell = |mean: f64, deviation: f64, factor: f64| {
        let d = (u - mean as f32) * (1.0 / deviation) as f32;
        exp(-0.5 * (d * d)) * (factor / ((2.0 * std::f64::consts::PI).sqrt() * deviation)) as f32
    };
    let sides = bell(width, 6.0 * width, gain * height) + bell(-width, 6.0 * width, gain * height);
    bell(0.0, width, gain * (1.0 + height)) - sides
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Near zero the difference below would cancel; there the series does.
    let s = x * x;
    let small = x * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0)))));
    let large = 1.0 - 2.0 / (1.0 + exp(x + x));
    if s < 0.0625 { small } else { large }
}

/// The random bits of all neurons of one sample and step; see [`SpikeDraws`].
///
/// `out` has four entries for each block, so that the last ones may lie beyond the layer.
#[inline(always)]
pub(crate) fn draw_row(draws: &SpikeDraws, sample: usize, step: usize, width: usize, out: &mut [u32]) {
    let blocks = SpikeDraws::blocks(width);
    let (start, key) = (draws.counter(sample, step, width), draws.key());
    let (a, rest) = out[..4 * blocks].split_at_mut(blocks);
    let (b, rest) = rest.split_at_mut(blocks);
    let (c, d) = rest.split_at_mut(blocks);
    draw_blocks(start, key, a, b, c, d);
}

/// Blocks that are computed side by side: a register of the widest vectors holds as many words.
const SIDE: usize = 16;

#[inline(always)]
fn draw_blocks(start: [u32; 4], key: [u32; 2], a: &mut [u32], b: &mut [u32], c: &mut [u32], d: &mut [u32]) {
    let rows = a.chunks_mut(SIDE).zip(b.chunks_mut(SIDE)).zip(c.chunks_mut(SIDE).zip(d.chunks_mut(SIDE)));
    for (at, ((a, b), (c, d))) in (0_u32..).step_by(SIDE).zip(rows) {
        let words = philox_side(start, key, at);
        for (out, words) in [a, b, c, d].into_iter().zip(&words) {
            match <&mut [u32; SIDE]>::try_from(&mut *out) {
                Ok(out) => *out = *words,
                Err(_) => out.copy_from_slice(&words[..out.len()]),
            }
        }
    }
}

/// [`SIDE`] blocks of [`snn_core::random::philox`], whose counters differ in the first word alone; word by word.
#[inline(always)]
fn philox_side(start: [u32; 4], mut key: [u32; 2], at: u32) -> [[u32; SIDE]; 4] {
    let mut words = start.map(|word| [word; SIDE]);
    for (k, word) in (0_u32..).zip(&mut words[0]) {
        *word = word.wrapping_add(at + k);
    }
    for _ in 0..10 {
        let [x0, x1, x2, x3] = words;
        for k in 0..SIDE {
            let a = u64::from(MULTIPLIERS[0]) * u64::from(x0[k]);
            let b = u64::from(MULTIPLIERS[1]) * u64::from(x2[k]);
            words[0][k] = (b >> 32) as u32 ^ x1[k] ^ key[0];
            words[1][k] = b as u32;
            words[2][k] = (a >> 32) as u32 ^ x3[k] ^ key[1];
            words[3][k] = a as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use snn_core::Surrogate;

    fn ulps(got: f32, want: f64) -> f64 {
        (f64::from(got) - want).abs() / (want.abs().max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON))
    }

    #[test]
    fn the_multi_gaussian_is_the_surrogate() {
        for i in -4000..4000 {
            let u = i as f32 * 2e-3;
            let want = Surrogate::MULTI_GAUSSIAN.slope(f64::from(u));
            let got = multi_gaussian(0.15, 0.5, 0.5, u);
            assert!((f64::from(got) - want).abs() < 2e-7, "{u}: {got} against {want}");
        }
        assert!(multi_gaussian(0.15, 0.5, 0.5, 1e20).abs() < 1e-37);
    }

    proptest! {
        #[test]
        fn elementary_functions_are_accurate(x in -40.0_f32..40.0, y in -1.0_f32..1.0) {
            for x in [x, y, 0.01 * y, 1e-4 * y] {
                let wide = f64::from(x);
                prop_assert!(ulps(exp(x), wide.exp()) < 2.5, "exp {x}");
                prop_assert!(ulps(sigmoid(x), 1.0 / (1.0 + (-wide).exp())) < 4.0, "sigmoid {x}");
                prop_assert!(ulps(tanh(x), wide.tanh()) < 6.0, "tanh {x}");
            }
        }

        #[test]
        fn rows_of_draws_equal_single_draws(seed: u64, pass: u32, width in 1_usize..70, step in 0_usize..2000) {
            let draws = SpikeDraws { seed, pass, population: 3 };
            let mut row = vec![0; 4 * SpikeDraws::blocks(width)];
            draw_row(&draws, 5, step, width, &mut row);
            for (n, &bits) in row[..width].iter().enumerate() {
                prop_assert_eq!(bits, draws.bits(5, step, n, width));
            }
        }
    }

    #[test]
    fn extremes_stay_finite() {
        assert_eq!((sigmoid(-1e9), sigmoid(1e9)), (1.0 / (1.0 + exp(88.0)), 1.0));
        assert_eq!((tanh(-1e9), tanh(1e9)), (-1.0, 1.0));
        assert!(exp(f32::MAX).is_finite() && exp(f32::MIN) > 0.0);
    }
}
