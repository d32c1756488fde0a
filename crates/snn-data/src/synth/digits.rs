//! Drawn digits, in the style of MNIST: 28 x 28 bytes, white strokes on black.
//!
//! Each digit is one or two lines through fixed points. A sample moves every point a little, turns, slants, scales and
//! shifts the whole, draws it with a pen of random width, and adds a little noise to the ink.

use std::sync::Arc;

use rand_distr::{Distribution, StandardNormal};
use snn_core::Map;
use snn_core::random::{Purpose, Stream};

use crate::error::Result;
use crate::source::{Sample, Source, SourceKind, check_index};
use crate::synth::Recipe;

/// Side of an image.
pub const SIDE: usize = 28;

/// The points of each digit in the unit square, x to the right, y down.
const GLYPHS: [&[[f32; 2]]; 10] = [
    &[
        [0.5, 0.08],
        [0.3, 0.16],
        [0.21, 0.38],
        [0.22, 0.64],
        [0.33, 0.86],
        [0.5, 0.93],
        [0.68, 0.85],
        [0.79, 0.62],
        [0.78, 0.36],
        [0.69, 0.15],
        [0.5, 0.08],
    ],
    &[[0.36, 0.24], [0.54, 0.08], [0.53, 0.5], [0.52, 0.93]],
    &[[0.22, 0.27], [0.33, 0.12], [0.55, 0.08], [0.74, 0.2], [0.7, 0.42], [0.45, 0.68], [0.2, 0.91], [0.82, 0.89]],
    &[
        [0.22, 0.15],
        [0.5, 0.08],
        [0.73, 0.2],
        [0.66, 0.4],
        [0.42, 0.48],
        [0.7, 0.55],
        [0.79, 0.73],
        [0.6, 0.91],
        [0.2, 0.86],
    ],
    &[[0.62, 0.93], [0.63, 0.5], [0.64, 0.08], [0.4, 0.36], [0.17, 0.63], [0.5, 0.63], [0.86, 0.62]],
    &[[0.76, 0.1], [0.3, 0.11], [0.26, 0.45], [0.54, 0.4], [0.77, 0.57], [0.72, 0.81], [0.46, 0.92], [0.2, 0.84]],
    &[
        [0.7, 0.09],
        [0.4, 0.28],
        [0.24, 0.58],
        [0.3, 0.84],
        [0.54, 0.92],
        [0.75, 0.77],
        [0.67, 0.57],
        [0.45, 0.53],
        [0.26, 0.66],
    ],
    &[[0.18, 0.12], [0.5, 0.11], [0.81, 0.1], [0.6, 0.5], [0.42, 0.92]],
    &[
        [0.5, 0.48],
        [0.29, 0.32],
        [0.34, 0.14],
        [0.5, 0.08],
        [0.67, 0.14],
        [0.71, 0.31],
        [0.5, 0.48],
        [0.25, 0.66],
        [0.29, 0.85],
        [0.5, 0.93],
        [0.73, 0.85],
        [0.76, 0.66],
        [0.5, 0.48],
    ],
    &[
        [0.74, 0.34],
        [0.55, 0.48],
        [0.31, 0.41],
        [0.27, 0.2],
        [0.48, 0.08],
        [0.69, 0.15],
        [0.74, 0.34],
        [0.68, 0.68],
        [0.52, 0.93],
    ],
];

#[derive(Debug)]
struct Digits {
    name: String,
    class_names: Vec<String>,
    samples: usize,
    split: u32,
    seed: u64,
}

/// The split that `recipe` describes.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Digits {
        name: recipe.name("digits-sim"),
        class_names: (0..10).map(|c| c.to_string()).collect(),
        samples: recipe.samples,
        split: recipe.split(),
        seed: recipe.seed.unwrap_or(0),
    }))
}

/// Draws sample `index` of a split into `pixels`, `[28, 28]`; returns the digit.
pub(crate) fn draw(seed: u64, split: u32, index: usize, pixels: &mut Vec<u8>) -> u32 {
    let mut random = Stream::new(seed, Purpose::Synthesis, [8 + split, index as u32]);
    let digit = index % 10;
    let mut between = |low: f32, high: f32| low + (high - low) * random.unit();
    let (angle, slant) = (between(-0.22, 0.22), between(-0.25, 0.25));
    let (wide, tall) = (between(14.0, 21.0), between(17.5, 22.0));
    let (right, down) = (between(-2.0, 2.0), between(-2.0, 2.0));
    let (pen, ink, soft) = (between(0.75, 1.7), between(0.8, 1.0), between(0.8, 1.3));
    let (sin, cos) = angle.sin_cos();
    let points: Vec<[f32; 2]> = GLYPHS[digit]
        .iter()
        .map(|&[x, y]| {
            let (x, y) = ((x - 0.5 + between(-0.04, 0.04)) * wide, (y - 0.5 + between(-0.04, 0.04)) * tall);
            let x = x - slant * y;
            [14.0 + right + cos * x - sin * y, 14.0 + down + sin * x + cos * y]
        })
        .collect();
    pixels.clear();
    for at in 0..SIDE * SIDE {
        let (x, y) = ((at % SIDE) as f32 + 0.5, (at / SIDE) as f32 + 0.5);
        let nearest = points.windows(2).map(|ends| distance([x, y], ends[0], ends[1])).fold(f32::MAX, f32::min);
        let shade = ((pen - nearest) / soft + 0.5).clamp(0.0, 1.0) * ink;
        let shade = if shade > 0.0 {
            let normal: f32 = StandardNormal.sample(&mut random);
            shade + 0.03 * normal
        } else {
            0.0
        };
        pixels.push((255.0 * shade).clamp(0.0, 255.0) as u8);
    }
    digit as u32
}

/// Distance of a point from a line between two points.
fn distance(p: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let along = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy).max(1e-9);
    let along = along.clamp(0.0, 1.0);
    (p[0] - a[0] - along * dx).hypot(p[1] - a[1] - along * dy)
}

impl Source for Digits {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        Some("generated look-alike")
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Images(Map::new(SIDE, SIDE, 1))
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        into.label = draw(self.seed, self.split, index, &mut into.pixels);
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        Some((self.samples * SIDE * SIDE) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_told_apart_by_their_mean_images() {
        let (mut means, mut pixels) = (vec![vec![0.0_f32; 784]; 10], Vec::new());
        for index in 0..600 {
            let digit = draw(0, 0, index, &mut pixels);
            means[digit as usize].iter_mut().zip(&pixels).for_each(|(m, &p)| *m += f32::from(p) / 60.0);
        }
        let right = (0..200).filter(|&index| {
            let digit = draw(0, 1, index, &mut pixels);
            let distance = |m: &[f32]| m.iter().zip(&pixels).map(|(m, &p)| (m - f32::from(p)).powi(2)).sum::<f32>();
            let best = (0..10).min_by(|&a, &b| distance(&means[a]).total_cmp(&distance(&means[b])));
            best == Some(digit as usize)
        });
        let right = right.count();
        // Better than chance by far, and not so easy that nothing is left to learn.
        assert!((110..198).contains(&right), "{right} of 200");
    }

    #[test]
    fn images_look_like_those_of_mnist() {
        let mut pixels = Vec::new();
        for index in 0..50 {
            draw(3, 0, index, &mut pixels);
            let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / 784.0 / 255.0;
            assert!((0.03..0.35).contains(&mean), "sample {index}: mean {mean}");
            assert_eq!(pixels[0], 0, "the corner is background");
        }
    }
}
