//! Augmentation of training samples.
//!
//! Images are real values in channel-last maps; the order of the list is the order of work. Event times are changed
//! before they are binned: all events of a sample are stretched by one factor, then each is jittered. Binned events are
//! changed after that, again in the order of the list; see [`raster`].

use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use snn_core::Map;
use snn_core::random::Stream;

use crate::error::{Error, Result};
use crate::source::SourceKind;
use crate::transforms::raster::{self, Affine, Events, FlipWork};

/// One step of augmentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Augment {
    /// Random perspective of images: each corner moves inward by up to `distortion` times half the side.
    Perspective {
        /// Share of the half side, in `[0, 1]`.
        distortion: f32,
        /// Probability that anything happens.
        prob: f32,
    },
    /// Mirrors images left to right.
    Flip {
        /// Probability that anything happens.
        prob: f32,
    },
    /// Zeros all round, then a random window of the old size.
    Crop {
        /// Zeros on each side, pixels.
        padding: usize,
    },
    /// Normal noise on every pixel, its deviation uniform in `[0, sigma]` per image, clamped to `[0, 1]`.
    Noise {
        /// Largest deviation.
        sigma: f32,
        /// Probability that anything happens.
        prob: f32,
    },
    /// Normal noise on every event time, its deviation uniform in `[0, sigma_ms]` per sample; negative times drop out.
    Jitter {
        /// Largest deviation in milliseconds.
        sigma_ms: f32,
        /// Probability that anything happens.
        prob: f32,
    },
    /// All event times of a sample multiplied by a factor uniform in `[low, high]`.
    Stretch {
        /// Smallest factor.
        low: f32,
        /// Largest factor.
        high: f32,
        /// Probability that anything happens.
        prob: f32,
    },
    /// A rectangle of an image filled with 0: its share of the area uniform in `[low, high]`, its sides up to 1 : 3.3.
    Erase {
        /// Probability that anything happens.
        prob: f32,
        /// Smallest share of the area, in `[0, 1]`.
        low: f32,
        /// Largest share of the area, in `[low, 1]`.
        high: f32,
    },
    /// Random elastic deformation of images: a grid of control points over the whole image moves, each point by normal
    /// amounts, the pixels between them by bilinear interpolation, and each pixel takes its nearest source. What comes
    /// from outside is 0.
    Elastic {
        /// Control points along each axis, at least 2.
        points: usize,
        /// Deviation of their moves along each axis, pixels.
        sigma: f32,
    },
    /// Binned events as an image `[T, N]` of the sample's own length, moved along N and scaled about its centre.
    ///
    /// The move is uniform in `[-shift N, shift N]` inputs, rounded half to even; the factor, for both axes, uniform in
    /// `[1 - scale, 1 + scale]`. Enlarging repeats events, shrinking loses some; see [`raster::Affine`].
    ///
    /// Events of a sensor move by up to `shift` of its height and of its width instead, and nothing is scaled:
    /// neither space nor time, so `scale` must be 0.
    Affine {
        /// Largest move as a share of the inputs, in `[0, 1]`.
        shift: f32,
        /// Largest change of scale, in `[0, 0.99]`.
        #[serde(default)]
        scale: f32,
    },
    /// Every entry of a sample's binned `[T, N]` image flips with probability `mean / 10^(snr_db / 20)`, where the mean is
    /// that of the image: 0 becomes 1, any count becomes 0.
    ///
    /// The draws are those of noise, a function of seed, epoch and sample. This is also how robustness is tested.
    FlipNoise {
        /// Ratio of signal to noise in decibels, the power of the signal taken as the square of the mean.
        snr_db: f32,
    },
}

impl Augment {
    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Perspective { .. } => "perspective",
            Self::Flip { .. } => "flip",
            Self::Crop { .. } => "crop",
            Self::Noise { .. } => "noise",
            Self::Jitter { .. } => "jitter",
            Self::Stretch { .. } => "stretch",
            Self::Erase { .. } => "erase",
            Self::Elastic { .. } => "elastic",
            Self::Affine { .. } => "affine",
            Self::FlipNoise { .. } => "flip-noise",
        }
    }

    /// Whether the step changes events after they were put into bins.
    pub(crate) fn needs_bins(&self) -> bool {
        matches!(self, Self::Affine { .. } | Self::FlipNoise { .. })
    }

    /// Checks that the step is one for samples of `kind` whose encoded steps form `map`.
    pub(crate) fn check(&self, kind: SourceKind, map: Map) -> Result<()> {
        let what = |name: &str| format!("augmentation {}{name}", self.name());
        let bound = |name: &str, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::config(what(&format!(": {name}")), value.to_string(), format!("{low}..={high}")))
        };
        let (images, events) = (matches!(kind, SourceKind::Images(_)), matches!(kind, SourceKind::Events { .. }));
        match *self {
            Self::Jitter { .. } | Self::Stretch { .. } | Self::Affine { .. } | Self::FlipNoise { .. } if !events => {
                Err(Error::config(what(""), kind.to_string(), "events"))
            }
            Self::Perspective { .. }
            | Self::Flip { .. }
            | Self::Crop { .. }
            | Self::Noise { .. }
            | Self::Erase { .. }
            | Self::Elastic { .. }
                if !images =>
            {
                Err(Error::config(what(""), kind.to_string(), "images"))
            }
            Self::Perspective { distortion, prob } => {
                bound("distortion", distortion, 0.0, 1.0).and(bound("prob", prob, 0.0, 1.0))
            }
            Self::Flip { prob } => bound("prob", prob, 0.0, 1.0),
            Self::Crop { padding } => bound("padding", padding as f32, 0.0, 4096.0),
            Self::Noise { sigma, prob } => bound("sigma", sigma, 0.0, 1e3).and(bound("prob", prob, 0.0, 1.0)),
            Self::Jitter { sigma_ms, prob } => bound("sigma_ms", sigma_ms, 0.0, 1e6).and(bound("prob", prob, 0.0, 1.0)),
            Self::Stretch { low, high, prob } => {
                bound("low", low, 1e-3, 1e3).and(bound("high", high, low, 1e3)).and(bound("prob", prob, 0.0, 1.0))
            }
            Self::Erase { prob, low, high } => {
                bound("prob", prob, 0.0, 1.0).and(bound("low", low, 0.0, 1.0)).and(bound("high", high, low, 1.0))
            }
            Self::Elastic { points, sigma } => {
                bound("points", points as f32, 2.0, 64.0).and(bound("sigma", sigma, 0.0, 1e3))
            }
            Self::Affine { scale, .. } if is_sensor(map) && scale != 0.0 => {
                Err(Error::config(what(": scale"), format!("{scale} for a sensor {map}"), "0, which only moves"))
            }
            Self::Affine { shift, scale } => bound("shift", shift, 0.0, 1.0).and(bound("scale", scale, 0.0, 0.99)),
            Self::FlipNoise { snr_db } => bound("snr_db", snr_db, -200.0, 200.0),
        }
    }

    /// Changes an image of size `map`; `spare` is memory to work in.
    ///
    /// Steps for events leave an image alone.
    pub fn apply(&self, map: Map, image: &mut Vec<f32>, spare: &mut Vec<f32>, random: &mut Stream) {
        match *self {
            Self::Perspective { distortion, prob } => {
                if random.unit() >= prob {
                    return;
                }
                let end = random_corners(map, distortion, random);
                spare.resize(image.len(), 0.0);
                warp_perspective(map, image, &corners(map), &end, spare);
                std::mem::swap(image, spare);
            }
            Self::Flip { prob } => {
                if random.unit() >= prob {
                    return;
                }
                for row in image.chunks_exact_mut(map.width * map.channels) {
                    for left in 0..map.width / 2 {
                        let right = map.width - 1 - left;
                        for c in 0..map.channels {
                            row.swap(left * map.channels + c, right * map.channels + c);
                        }
                    }
                }
            }
            Self::Crop { padding } => {
                let mut shift = || random.below(2 * padding as u32 + 1) as isize - padding as isize;
                let (dy, dx) = (shift(), shift());
                shift_image(map, image, dy, dx, spare);
                std::mem::swap(image, spare);
            }
            Self::Noise { sigma, prob } => {
                if random.unit() >= prob {
                    return;
                }
                let sigma = random.unit() * sigma;
                for x in image {
                    let normal: f32 = StandardNormal.sample(random);
                    *x = (*x + sigma * normal).clamp(0.0, 1.0);
                }
            }
            Self::Erase { prob, low, high } => {
                if random.unit() < prob {
                    erase(map, image, (low, high), random);
                }
            }
            Self::Elastic { points, sigma } => {
                spare.resize(image.len(), 0.0);
                deform(map, image, (points, sigma), random, spare);
                std::mem::swap(image, spare);
            }
            Self::Jitter { .. } | Self::Stretch { .. } | Self::Affine { .. } | Self::FlipNoise { .. } => {}
        }
    }

    /// Changes the binned events of a sample, which has `steps` steps of inputs `map`; `work` is memory to work in.
    ///
    /// Steps for images and for event times leave them alone.
    pub(crate) fn apply_events(
        &self,
        (steps, map): (usize, Map),
        events: &mut Events,
        work: &mut RasterWork,
        (random, noise): (&mut Stream, &mut Stream),
    ) {
        match *self {
            Self::Affine { shift, scale } => {
                let drawn = Draw::new((shift, scale), map, random);
                if is_sensor(map) {
                    raster::shift_sensor(map, (drawn.down, drawn.right), events, &mut work.table);
                } else {
                    work.affine.set(steps, map.len(), drawn.right as f64, drawn.scale);
                    work.affine.apply(events, &mut work.out);
                    std::mem::swap(events, &mut work.out);
                }
            }
            Self::FlipNoise { snr_db } => {
                let probability = raster::flip_probability(events.len(), steps * map.len(), snr_db.into());
                raster::flip((steps, map.len()), probability, events, noise, &mut work.flip);
            }
            _ => {}
        }
    }
}

/// Whether the inputs lie on a sensor and not in a row.
fn is_sensor(map: Map) -> bool {
    map.height * map.width > 1
}

/// Memory that changes of binned events need.
#[derive(Debug, Default)]
pub(crate) struct RasterWork {
    affine: Affine,
    out: Events,
    table: Vec<u32>,
    flip: FlipWork,
}

/// What [`Augment::Affine`] does to one sample.
struct Draw {
    /// Inputs, or columns of a sensor.
    right: i64,
    /// Rows of a sensor.
    down: i64,
    scale: f64,
}

impl Draw {
    /// Four uniform numbers in the order of the published code: angle, which is always 0, move along the width, move
    /// along the height, scale.
    fn new((shift, scale): (f32, f32), map: Map, random: &mut Stream) -> Self {
        let mut within = |most: f64| most * (2.0 * f64::from(random.unit()) - 1.0);
        let (wide, high) = if is_sensor(map) { (map.width, map.height) } else { (map.len(), 0) };
        let shift = f64::from(shift);
        within(0.0);
        let right = within(shift * wide as f64).round_ties_even() as i64;
        let down = within(shift * high as f64).round_ties_even() as i64;
        Self { right, down, scale: 1.0 + within(scale.into()) }
    }
}

/// Fills a random rectangle with zeros; nothing happens if ten draws give none that fits.
fn erase(map: Map, image: &mut [f32], (low, high): (f32, f32), random: &mut Stream) {
    const MOST_LOG_RATIO: f32 = 1.194; // ln 3.3
    for _ in 0..10 {
        let area = (map.height * map.width) as f32 * (low + (high - low) * random.unit());
        let ratio = (MOST_LOG_RATIO * (2.0 * random.unit() - 1.0)).exp();
        let (rows, columns) = ((area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize);
        if rows > map.height || columns > map.width {
            continue;
        }
        let top = random.below((map.height - rows + 1) as u32) as usize;
        let left = random.below((map.width - columns + 1) as u32) as usize;
        for row in image.chunks_exact_mut(map.width * map.channels).skip(top).take(rows) {
            row[left * map.channels..(left + columns) * map.channels].fill(0.0);
        }
        return;
    }
}

/// Takes every pixel from where a random elastic grid says.
fn deform(map: Map, image: &[f32], (points, sigma): (usize, f32), random: &mut Stream, out: &mut [f32]) {
    let moves: Vec<[f32; 2]> = (0..points * points)
        .map(|_| {
            [(); 2].map(|()| {
                let normal: f32 = StandardNormal.sample(random);
                sigma * normal
            })
        })
        .collect();
    // The cell of the grid that a pixel lies in, and where in it.
    let place = |at: usize, side: usize| {
        let x = at as f32 * (points - 1) as f32 / (side.max(2) - 1) as f32;
        let cell = (x as usize).min(points - 2);
        (cell, x - cell as f32)
    };
    for (row, out) in out.chunks_exact_mut(map.width * map.channels).enumerate() {
        let (top, y) = place(row, map.height);
        for (column, out) in out.chunks_exact_mut(map.channels).enumerate() {
            let (left, x) = place(column, map.width);
            let corner = |down: usize, right: usize| moves[(top + down) * points + left + right];
            let source = |axis: usize, at: usize| {
                let upper = corner(0, 0)[axis] * (1.0 - x) + corner(0, 1)[axis] * x;
                let lower = corner(1, 0)[axis] * (1.0 - x) + corner(1, 1)[axis] * x;
                (at as f32 + upper * (1.0 - y) + lower * y).round()
            };
            let (from_row, from_column) = (source(0, row), source(1, column));
            let inside = (0.0..map.height as f32).contains(&from_row) && (0.0..map.width as f32).contains(&from_column);
            if inside {
                let from = (from_row as usize * map.width + from_column as usize) * map.channels;
                out.copy_from_slice(&image[from..from + map.channels]);
            } else {
                out.fill(0.0);
            }
        }
    }
}

/// Moves an image by `(dy, dx)`: output pixel (r, c) is input pixel (r + dy, c + dx), zero outside.
fn shift_image(map: Map, image: &[f32], dy: isize, dx: isize, out: &mut Vec<f32>) {
    out.clear();
    out.resize(image.len(), 0.0);
    let columns = (-dx).max(0)..(map.width as isize - dx).min(map.width as isize);
    for row in 0..map.height as isize {
        let from = row + dy;
        if !(0..map.height as isize).contains(&from) || columns.is_empty() {
            continue;
        }
        let at = |r: isize, c: isize| (r as usize * map.width + c as usize) * map.channels;
        let len = columns.clone().count() * map.channels;
        let (to, from) = (at(row, columns.start), at(from, columns.start + dx));
        out[to..to + len].copy_from_slice(&image[from..from + len]);
    }
}

/// The corners of a map as (x, y): top left, top right, bottom right, bottom left.
#[must_use]
pub fn corners(map: Map) -> [[f64; 2]; 4] {
    let (right, bottom) = ((map.width - 1) as f64, (map.height - 1) as f64);
    [[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]]
}

/// Corners that each moved inward by whole pixels, uniform in `0..=distortion * half the side`.
fn random_corners(map: Map, distortion: f32, random: &mut Stream) -> [[f64; 2]; 4] {
    let most = |side: usize| (f64::from(distortion) * (side / 2) as f64) as u32 + 1;
    let (most_x, most_y) = (most(map.width), most(map.height));
    let (right, bottom) = ((map.width - 1) as f64, (map.height - 1) as f64);
    let [top_left, top_right, bottom_right, bottom_left] =
        std::array::from_fn(|_| [f64::from(random.below(most_x)), f64::from(random.below(most_y))]);
    [
        top_left,
        [right - top_right[0], top_right[1]],
        [right - bottom_right[0], bottom - bottom_right[1]],
        [bottom_left[0], bottom - bottom_left[1]],
    ]
}

/// Warps a channel-last image so that its corners `start` come to lie at `end`.
///
/// The homography H takes `end` to `start`; output pixel (x, y) samples the input at `H(x + 0.5, y + 0.5) - 0.5`,
/// bilinear, zero outside. `out` has the size of `image`. A degenerate set of corners gives an empty image.
///
/// # Panics
///
/// If `image` or `out` does not have the size of `map`.
pub fn warp_perspective(map: Map, image: &[f32], start: &[[f64; 2]; 4], end: &[[f64; 2]; 4], out: &mut [f32]) {
    assert!(image.len() == map.len() && out.len() == map.len(), "images of {map}");
    out.fill(0.0);
    let Some(h) = homography(end, start) else { return };
    let (height, width, channels) = (map.height as isize, map.width as isize, map.channels);
    for (index, pixel) in out.chunks_exact_mut(channels).enumerate() {
        let (x, y) = ((index % map.width) as f64 + 0.5, (index / map.width) as f64 + 0.5);
        let scale = h[6] * x + h[7] * y + 1.0;
        let from_x = ((h[0] * x + h[1] * y + h[2]) / scale - 0.5) as f32;
        let from_y = ((h[3] * x + h[4] * y + h[5]) / scale - 0.5) as f32;
        // Outside, infinite and NaN alike are black.
        if !(from_x > -1.0 && from_y > -1.0 && from_x < width as f32 && from_y < height as f32) {
            continue;
        }
        let (left, top) = (from_x.floor(), from_y.floor());
        let (u, v) = (from_x - left, from_y - top);
        let (left, top) = (left as isize, top as isize);
        for (row, column, share) in [
            (top, left, (1.0 - u) * (1.0 - v)),
            (top, left + 1, u * (1.0 - v)),
            (top + 1, left, (1.0 - u) * v),
            (top + 1, left + 1, u * v),
        ] {
            if (0..height).contains(&row) && (0..width).contains(&column) {
                let from = &image[(row * width + column) as usize * channels..][..channels];
                pixel.iter_mut().zip(from).for_each(|(out, x)| *out += share * x);
            }
        }
    }
}

/// The eight coefficients that take each corner of `from` to that of `to`; nothing if three of them lie on a line.
fn homography(from: &[[f64; 2]; 4], to: &[[f64; 2]; 4]) -> Option<[f64; 8]> {
    let mut rows = [[0.0; 9]; 8];
    for (i, (&[x, y], &[u, v])) in from.iter().zip(to).enumerate() {
        rows[2 * i] = [x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y, u];
        rows[2 * i + 1] = [0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y, v];
    }
    // Gauss-Jordan with pivoting.
    for column in 0..8 {
        let pivot = (column..8).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        rows.swap(column, pivot);
        let lead = rows[column];
        if lead[column].abs() < 1e-12 {
            return None;
        }
        for (i, row) in rows.iter_mut().enumerate() {
            let factor = if i == column { continue } else { row[column] / lead[column] };
            row.iter_mut().zip(&lead).for_each(|(x, l)| *x -= factor * l);
        }
    }
    Some(std::array::from_fn(|i| rows[i][8] / rows[i][i]))
}

/// What happens to the event times of one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeWarp {
    factor: f32,
    sigma_s: f32,
}

impl TimeWarp {
    /// Draws factor and deviation.
    pub(crate) fn draw(list: &[Augment], random: &mut Stream) -> Self {
        let mut warp = Self { factor: 1.0, sigma_s: 0.0 };
        for step in list {
            match *step {
                Augment::Jitter { sigma_ms, prob } if random.unit() < prob => {
                    warp.sigma_s = random.unit() * sigma_ms * 1e-3;
                }
                Augment::Stretch { low, high, prob } if random.unit() < prob => {
                    warp.factor *= low + random.unit() * (high - low);
                }
                _ => {}
            }
        }
        warp
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.factor == 1.0 && self.sigma_s == 0.0
    }

    /// Puts the changed times of all events into `out`.
    pub(crate) fn apply_all(&self, times_s: &[f32], out: &mut Vec<f32>, random: &mut Stream) {
        out.clear();
        out.extend(times_s.iter().map(|&time| self.apply(time, random)));
    }

    /// The changed time of one event; NaN, which no bin takes, for one that was moved before the start.
    fn apply(&self, time_s: f32, random: &mut Stream) -> f32 {
        let mut time = time_s * self.factor;
        if self.sigma_s > 0.0 {
            let normal: f32 = StandardNormal.sample(random);
            time += self.sigma_s * normal;
        }
        if time < 0.0 { f32::NAN } else { time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snn_core::random::Purpose;

    fn stream(sample: u32) -> Stream {
        Stream::new(1, Purpose::Augment, [0, sample])
    }

    /// A 3 x 4 map of two channels whose entries say where they came from.
    fn numbered() -> (Map, Vec<f32>) {
        (Map::new(3, 4, 2), (0..24).map(|i| i as f32 / 100.0 + 0.1).collect())
    }

    #[test]
    fn corners_that_stay_leave_the_image_as_it_is() {
        let (map, image) = numbered();
        let mut out = vec![9.0; 24];
        warp_perspective(map, &image, &corners(map), &corners(map), &mut out);
        assert!(out.iter().zip(&image).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn corners_that_move_inward_shrink_the_image() {
        let (map, mut out) = (Map::new(28, 28, 1), vec![0.0; 784]);
        let end = [[7.0, 7.0], [20.0, 7.0], [20.0, 20.0], [7.0, 20.0]];
        warp_perspective(map, &[1.0; 784], &corners(map), &end, &mut out);
        assert_eq!((out[0], out[28 * 14 + 14], out[28 * 27 + 27]), (0.0, 1.0, 0.0));
        let area = out.iter().sum::<f32>();
        assert!((180.0..215.0).contains(&area), "{area}");
    }

    #[test]
    fn corners_on_a_line_give_an_empty_image() {
        let (map, image) = numbered();
        let mut out = vec![9.0; 24];
        warp_perspective(map, &image, &corners(map), &[[1.0, 1.0]; 4], &mut out);
        assert_eq!(out, [0.0; 24]);
    }

    #[test]
    fn flip_mirrors_columns_and_keeps_channels() {
        let (map, image) = numbered();
        let (mut flipped, mut spare) = (image.clone(), Vec::new());
        Augment::Flip { prob: 1.0 }.apply(map, &mut flipped, &mut spare, &mut stream(0));
        assert_eq!(flipped[..8], [image[6], image[7], image[4], image[5], image[2], image[3], image[0], image[1]]);
        Augment::Flip { prob: 1.0 }.apply(map, &mut flipped, &mut spare, &mut stream(1));
        assert_eq!(flipped, image);
        Augment::Flip { prob: 0.0 }.apply(map, &mut flipped, &mut spare, &mut stream(2));
        assert_eq!(flipped, image);
    }

    #[test]
    fn crop_reaches_every_shift_and_fills_with_zeros() {
        let (map, image) = numbered();
        let mut seen = std::collections::HashSet::new();
        for sample in 0..300 {
            let (mut cropped, mut spare) = (image.clone(), Vec::new());
            Augment::Crop { padding: 1 }.apply(map, &mut cropped, &mut spare, &mut stream(sample));
            let shift = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))).find(|&(dy, dx)| {
                (0..24).all(|i| {
                    let (row, column) = (i / 8 + dy, i % 8 / 2 + dx);
                    let inside = (0..3).contains(&row) && (0..4).contains(&column);
                    let want = if inside { image[(row * 8 + column * 2 + i % 2) as usize] } else { 0.0 };
                    cropped[i as usize] == want
                })
            });
            seen.insert(shift.expect("one of the nine windows"));
        }
        assert_eq!(seen.len(), 9);
        let (mut whole, mut spare) = (image.clone(), Vec::new());
        Augment::Crop { padding: 0 }.apply(map, &mut whole, &mut spare, &mut stream(0));
        assert_eq!(whole, image);
    }

    #[test]
    fn crop_by_more_than_the_image_is_empty_at_worst() {
        let (map, image) = numbered();
        for sample in 0..100 {
            let (mut cropped, mut spare) = (image.clone(), Vec::new());
            Augment::Crop { padding: 9 }.apply(map, &mut cropped, &mut spare, &mut stream(sample));
            assert_eq!(cropped.len(), 24);
        }
    }

    #[test]
    fn noise_stays_within_bounds_and_has_the_size_asked_for() {
        let map = Map::new(100, 100, 1);
        let (mut total, mut spare) = (0.0, Vec::new());
        for sample in 0..20 {
            let mut image = vec![0.5; map.len()];
            Augment::Noise { sigma: 0.1, prob: 1.0 }.apply(map, &mut image, &mut spare, &mut stream(sample));
            assert!(image.iter().all(|x| (0.0..=1.0).contains(x)));
            total += (image.iter().map(|x| (x - 0.5).powi(2)).sum::<f32>() / 1e4).sqrt();
        }
        assert!((0.03..0.07).contains(&(total / 20.0)), "mean deviation {}", total / 20.0);
    }

    #[test]
    fn configurations_read_back_and_misfits_are_refused_with_numbers() {
        let read = |text: &str| toml::from_str::<Augment>(text);
        let affine = read("kind = \"affine\"\nshift = 0.05\nscale = 0.15").unwrap();
        assert_eq!(affine, Augment::Affine { shift: 0.05, scale: 0.15 });
        let noise = read("kind = \"flip-noise\"\nsnr_db = 10.0").unwrap();
        assert_eq!(noise, Augment::FlipNoise { snr_db: 10.0 });
        let erase = read("kind = \"erase\"\nprob = 0.1\nlow = 0.02\nhigh = 0.4").unwrap();
        assert_eq!(erase, Augment::Erase { prob: 0.1, low: 0.02, high: 0.4 });
        assert!(read("kind = \"affine\"\nshift = 0.05\nangle = 3").is_err());

        let events = |sensor| SourceKind::Events { units: 8, sensor };
        let (row, map) = (Map::new(1, 1, 8), Map::new(2, 2, 2));
        assert!([&affine, &noise].iter().all(|a| a.check(events(None), row).is_ok()));
        assert!(Augment::Affine { shift: 0.1, scale: 0.0 }.check(events(Some(map)), map).is_ok());
        for (step, kind, map, want) in [
            (affine, events(Some(map)), map, "augmentation affine: scale: 0.15 for a sensor 2x2x2, expected 0"),
            (Augment::Affine { shift: 1.5, scale: 0.0 }, events(None), row, "affine: shift: 1.5, expected 0..=1"),
            (Augment::Affine { shift: 0.1, scale: 1.0 }, events(None), row, "affine: scale: 1, expected 0..=0.99"),
            (Augment::FlipNoise { snr_db: f32::NAN }, events(None), row, "snr_db: NaN, expected -200..=200"),
            (noise, SourceKind::Images(map), map, "augmentation flip-noise: images 2x2x2, expected events"),
            (erase, events(None), row, "augmentation erase: events of 8 units, expected images"),
        ] {
            let got = step.check(kind, map).unwrap_err().to_string();
            assert!(got.contains(want), "{got} is not {want}");
        }
    }

    #[test]
    fn erased_rectangle_has_the_share_asked_for() {
        let (map, mut spare) = (Map::new(40, 30, 2), Vec::new());
        for sample in 0..200 {
            let mut image = vec![1.0; map.len()];
            Augment::Erase { prob: 1.0, low: 0.1, high: 0.2 }.apply(map, &mut image, &mut spare, &mut stream(sample));
            let gone: Vec<usize> = (0..map.len()).filter(|&i| image[i] == 0.0).collect();
            // Rounding the sides changes the area by a few pixels.
            assert!((100..280).contains(&(gone.len() / 2)), "{}", gone.len());
            let columns: std::collections::BTreeSet<_> = gone.iter().map(|i| i % 60).collect();
            let rows: std::collections::BTreeSet<_> = gone.iter().map(|i| i / 60).collect();
            assert_eq!(columns.len() * rows.len(), gone.len(), "a full rectangle, all channels");
        }
        let mut image = vec![1.0; map.len()];
        Augment::Erase { prob: 1.0, low: 1.0, high: 1.0 }.apply(map, &mut image, &mut spare, &mut stream(0));
        Augment::Erase { prob: 0.0, low: 0.5, high: 0.5 }.apply(map, &mut image, &mut spare, &mut stream(0));
        assert_eq!(image.len(), map.len());
    }

    #[test]
    fn elastic_grid_moves_what_it_should() {
        let (map, image) = numbered();
        let mut spare = Vec::new();
        let mut still = image.clone();
        Augment::Elastic { points: 2, sigma: 0.0 }.apply(map, &mut still, &mut spare, &mut stream(0));
        assert_eq!(still, image);
        let map = Map::new(28, 28, 1);
        let bar: Vec<f32> = (0..784).map(|i| if (10..18).contains(&(i % 28)) { 1.0 } else { 0.0 }).collect();
        let mut changed = 0;
        for sample in 0..50 {
            let mut bent = bar.clone();
            Augment::Elastic { points: 3, sigma: 1.5 }.apply(map, &mut bent, &mut spare, &mut stream(sample));
            assert!(bent.iter().all(|x| *x == 0.0 || *x == 1.0), "nearest neighbours");
            let mass: f32 = bent.iter().sum();
            assert!((120.0..330.0).contains(&mass), "{mass}");
            changed += usize::from(bent != bar);
        }
        assert!(changed > 45, "{changed}");
    }

    #[test]
    fn moves_and_scales_stay_within_their_bounds() {
        let (mut right, mut down, mut scale) = (0, 0, 0.0_f64);
        for sample in 0..2000 {
            let flat = Draw::new((0.1, 0.3), Map::new(1, 1, 700), &mut stream(sample));
            assert_eq!(flat.down, 0);
            right = right.max(flat.right.abs());
            scale = scale.max((flat.scale - 1.0).abs());
            let sensor = Draw::new((0.1, 0.0), Map::new(30, 50, 2), &mut stream(sample));
            assert!(sensor.right.abs() <= 5 && sensor.scale == 1.0);
            down = down.max(sensor.down.abs());
        }
        assert!((69..=70).contains(&right) && down == 3 && (0.29..=0.3001).contains(&scale), "{right} {down} {scale}");
    }

    #[test]
    fn random_corners_move_inward_by_whole_pixels() {
        let map = Map::new(28, 28, 1);
        let mut most = 0.0_f64;
        for sample in 0..500 {
            for (got, corner) in random_corners(map, 0.4, &mut stream(sample)).iter().zip(corners(map)) {
                for axis in 0..2 {
                    let inward = if corner[axis] == 0.0 { got[axis] } else { corner[axis] - got[axis] };
                    assert!((0.0..=5.0).contains(&inward) && inward.fract() == 0.0, "{inward}");
                    most = most.max(inward);
                }
            }
        }
        assert_eq!(most, 5.0);
    }
}
