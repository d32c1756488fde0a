//! Drawn digits before a moving event camera, in the style of N-MNIST.
//!
//! The image of [`super::digits`] is blurred, put on a 34 x 34 sensor and moved along three saccades of about 84 ms, with a
//! little tremor. A pixel whose log intensity has risen or fallen by its threshold since its last event gives an on or
//! off event. Thresholds differ per sample and pixel, pixels have their own latency, events jitter and there is
//! background.
//!
//! Simplified against the recordings: the intensity is followed in steps of 1 ms on an interpolated log image, and the path
//! is the same for all samples up to its noise.

use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use rand_distr::{Distribution, Exp1, StandardNormal};
use snn_core::random::{Purpose, Stream};

use crate::error::Result;
use crate::formats::nmnist::SENSOR;
use crate::source::{Sample, Source, SourceKind, check_index};
use crate::synth::{Recipe, digits};

const SIDE: usize = 34;
/// Where the camera comes to rest after each saccade, pixels relative to the start.
const STOPS: [[f32; 2]; 4] = [[0.0, 0.0], [2.9, 5.6], [5.8, 0.0], [0.0, 0.0]];
const STARTS_MS: [f32; 3] = [5.0, 110.0, 215.0];
const SACCADE_MS: f32 = 84.0;
const ON: f32 = 0.325;
const OFF: f32 = 0.31;
const REST_MS: f32 = 0.9;
const BACKGROUND: f32 = 75.0;

#[derive(Debug)]
struct Camera {
    name: String,
    class_names: Vec<String>,
    samples: usize,
    split: u32,
    seed: u64,
}

/// The split that `recipe` describes.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Camera {
        name: recipe.name("nmnist-sim"),
        class_names: (0..10).map(|c| c.to_string()).collect(),
        samples: recipe.samples,
        split: recipe.split(),
        seed: recipe.seed.unwrap_or(0),
    }))
}

/// Three taps of a normal of 0.7 pixels along rows or columns.
fn blur(image: &mut [f32; 784]) {
    const TAPS: [f32; 2] = [0.58, 0.21];
    for stride in [1, 28] {
        let old = *image;
        for (at, x) in image.iter_mut().enumerate() {
            let place = at / stride % 28;
            let before = if place > 0 { old[at - stride] } else { 0.0 };
            let after = if place < 27 { old[at + stride] } else { 0.0 };
            *x = TAPS[0] * old[at] + TAPS[1] * (before + after);
        }
    }
}

impl Camera {
    fn record(&self, index: usize, into: &mut Sample) {
        let mut pixels = Vec::new();
        into.label = digits::draw(self.seed, self.split, index, &mut pixels);
        let mut image: [f32; 784] = std::array::from_fn(|i| f32::from(pixels[i]) / 255.0);
        blur(&mut image);
        let dark = 0.16_f32.ln();
        let log = image.map(|x| (x + 0.16).ln() - dark);

        let mut random = Stream::new(self.seed, Purpose::Synthesis, [16 + self.split, index as u32]);
        let mut normal = |deviation: f32| {
            let z: f32 = StandardNormal.sample(&mut random);
            deviation * z
        };
        let corner = [-0.1 + normal(0.3), 0.8 + normal(0.3)];
        let starts = STARTS_MS.map(|t| t + normal(2.0));
        let lasts = [0; 3].map(|_| SACCADE_MS + normal(3.0));
        let length_ms = (307.7 + normal(4.5)).clamp(297.0, 336.0);
        let bright = (1.0 + normal(0.08)).clamp(0.7, 1.3);
        let tremor = [25.0 + 20.0 * random.unit(), TAU * random.unit(), 0.12 * random.unit()];
        // The image's place on the sensor at each millisecond.
        let path: Vec<[f32; 2]> = (0..length_ms as usize)
            .map(|ms| {
                let time = ms as f32;
                let mut at = corner;
                for (i, (start, last)) in starts.iter().zip(lasts).enumerate() {
                    let share = 0.5 - 0.5 * (PI * ((time - start) / last).clamp(0.0, 1.0)).cos();
                    at[0] += share * (STOPS[i + 1][0] - STOPS[i][0]);
                    at[1] += share * (STOPS[i + 1][1] - STOPS[i][1]);
                }
                let shake = tremor[2] * (TAU * time / tremor[0] + tremor[1]).sin();
                [at[0] + shake, at[1] - shake]
            })
            .collect();

        let mut events: Vec<(f32, u32)> = Vec::with_capacity(5000);
        for (pixel, lit) in lit_pixels(&log, &path).into_iter().enumerate() {
            let (x, y) = ((pixel % SIDE) as f32, (pixel / SIDE) as f32);
            let mut normal = |deviation: f32| {
                let z: f32 = StandardNormal.sample(&mut random);
                deviation * z
            };
            // Only the image's shift over time makes events: where it stays dark there are none.
            if !lit {
                continue;
            }
            let own = bright * (1.0 + normal(0.12)).clamp(0.5, 1.5);
            let latency_ms: f32 = (0.48 + normal(0.2)).max(0.05);
            let look = |at: &[f32; 2]| sample_log(&log, x - at[0], y - at[1]);
            let mut level = look(&path[0]);
            let (mut before, mut last_ms) = (level, f32::NEG_INFINITY);
            for (ms, at) in path.iter().enumerate().skip(1) {
                let now = look(at);
                if now == before {
                    continue;
                }
                loop {
                    let (step, on) = if now > level { (ON * own, 1) } else { (-OFF * own, 0) };
                    if (now - level).abs() < step.abs() {
                        break;
                    }
                    level += step;
                    let crossed = ((level - before) / (now - before)).clamp(0.0, 1.0);
                    let time_ms = (ms - 1) as f32 + crossed + latency_ms + normal(0.06);
                    if time_ms - last_ms >= REST_MS && time_ms > 0.0 {
                        last_ms = time_ms;
                        events.push((time_ms * 1e-3, pixel as u32 + 1156 * on));
                    }
                }
                before = now;
            }
        }
        let mut at_ms = 0.0;
        loop {
            let gap: f32 = Exp1.sample(&mut random);
            at_ms += gap * length_ms / BACKGROUND;
            if at_ms >= length_ms {
                break;
            }
            events.push((at_ms * 1e-3, random.below(2312)));
        }
        events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        into.times.extend(events.iter().map(|e| e.0));
        into.units.extend(events.iter().map(|e| e.1));
    }
}

/// Which pixels of the sensor ever see anything but darkness.
fn lit_pixels(log: &[f32; 784], path: &[[f32; 2]]) -> Vec<bool> {
    let mut lit = vec![false; SIDE * SIDE];
    let mut before = [f32::NAN; 2];
    for at in path {
        let place = at.map(f32::floor);
        if place == before {
            continue;
        }
        before = place;
        for (i, _) in log.iter().enumerate().filter(|(_, x)| **x > 0.0) {
            let (x, y) = ((i % 28) as f32 + place[0], (i / 28) as f32 + place[1]);
            for (x, y) in [(x, y), (x + 1.0, y), (x, y + 1.0), (x + 1.0, y + 1.0)] {
                if (0.0..34.0).contains(&x) && (0.0..34.0).contains(&y) {
                    lit[y as usize * SIDE + x as usize] = true;
                }
            }
        }
    }
    lit
}

/// The log image at (x, y), bilinear, 0 outside.
fn sample_log(log: &[f32; 784], x: f32, y: f32) -> f32 {
    if !(x > -1.0 && y > -1.0 && x < 28.0 && y < 28.0) {
        return 0.0;
    }
    let (left, top) = (x.floor(), y.floor());
    let (u, v) = (x - left, y - top);
    let (left, top) = (left as isize, top as isize);
    let at = |row: isize, column: isize| {
        let inside = (0..28).contains(&row) && (0..28).contains(&column);
        if inside { log[(row * 28 + column) as usize] } else { 0.0 }
    };
    (at(top, left) * (1.0 - u) + at(top, left + 1) * u) * (1.0 - v)
        + (at(top + 1, left) * (1.0 - u) + at(top + 1, left + 1) * u) * v
}

impl Source for Camera {
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
        SourceKind::Events { units: SENSOR.len(), sensor: Some(SENSOR) }
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        self.record(index, into);
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        Some(self.samples as u64 * 8 * 4000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_look_like_those_of_nmnist() {
        let set = source(Recipe { train: true, samples: 20, seed: None }).unwrap();
        let (mut total, mut on, mut saccades, mut sample) = (0, 0, [0; 3], Sample::default());
        for index in 0..20 {
            set.read(index, &mut sample).unwrap();
            assert!(sample.times.is_sorted() && sample.units.iter().all(|&u| u < 2312));
            assert!((0.29..0.34).contains(sample.times.last().unwrap()));
            total += sample.units.len();
            on += sample.units.iter().filter(|&&u| u >= 1156).count();
            sample.times.iter().for_each(|&t| saccades[((t / 0.105) as usize).min(2)] += 1);
        }
        let mean = total / 20;
        assert!((2000..7500).contains(&mean), "{mean} events on average");
        assert!((0.4..0.6).contains(&(on as f64 / total as f64)), "{on} on events of {total}");
        assert!(saccades.iter().all(|&s| s > total / 5), "{saccades:?}");
    }
}
