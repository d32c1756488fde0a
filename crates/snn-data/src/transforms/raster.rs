//! Augmentation of binned samples: images `[T, N]` of counts, held as lists of events.
//!
//! An image of events is nearly all zeros, so nothing here walks it: each event is taken to where it belongs, and noise
//! jumps from flip to flip. A unit that is listed k times in one step counts k.
//!
//! The affine map of [`Affine`] has the time axis as height and the inputs as width. Output pixel `(i, j)` takes the
//! nearest input pixel, and is zero outside:
//!
//! ```text
//! row    = rint((i - T/2 + 1/2)        / scale + T/2 - 1/2)     (AFFINE-1)
//! column = rint((j - N/2 + 1/2 - move) / scale + N/2 - 1/2)     (AFFINE-2)
//! ```
//!
//! with `rint` to even at ties. Rows and columns ascend with `i` and `j`, so the outputs that take a given input form an
//! interval per axis: those intervals are computed once per sample, and each event goes to their product. Enlarging
//! thus repeats events, shrinking loses some.

use rand::RngCore;
use snn_core::Map;
use snn_core::random::Stream;

use super::bins::NOWHERE;
use super::rows::Sorter;

/// Events of one sample: the step and the input of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Steps.
    pub steps: Vec<u32>,
    /// Inputs, as many.
    pub units: Vec<u32>,
}

impl Events {
    /// Events in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Removes every event, keeping the memory.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.units.clear();
    }

    /// Appends an event.
    #[inline]
    pub fn push(&mut self, step: u32, unit: u32) {
        self.steps.push(step);
        self.units.push(unit);
    }

    /// Gives every event the step and the input that `change` says, and removes those whose step or input is
    /// [`NOWHERE`] then.
    #[inline]
    pub(crate) fn filter_map(&mut self, change: impl Fn(u32, u32) -> (u32, u32)) {
        let mut kept = 0;
        let units = &mut self.units[..self.steps.len()];
        for at in 0..self.steps.len() {
            let (step, unit) = change(self.steps[at], units[at]);
            // Every event is written, and the next one over it where it is not kept: no branch to guess.
            (self.steps[kept], units[kept]) = (step, unit);
            kept += usize::from(step != NOWHERE && unit != NOWHERE);
        }
        self.steps.truncate(kept);
        self.units.truncate(kept);
    }
}

/// The outputs that take each input of an axis of `len`: input `s` those from `starts[s]` up to `starts[s + 1]`.
fn inverse_axis(len: usize, shift: f64, scale: f64, starts: &mut Vec<u32>) {
    let half = len as f64 / 2.0;
    let source = |i: usize| ((i as f64 - half + 0.5 - shift) / scale + half - 0.5).round_ties_even();
    starts.clear();
    let mut output = 0;
    let mut next = source(0);
    for input in 0..=len {
        while output < len && next < input as f64 {
            output += 1;
            next = source(output);
        }
        starts.push(output as u32);
    }
}

/// A scaling of a `[T, N]` image about its centre and a move along the inputs (equations AFFINE-1 and AFFINE-2).
///
/// ```
/// use snn_data::transforms::raster::{Affine, Events};
/// let (mut affine, mut out) = (Affine::default(), Events::default());
/// let events = Events { steps: vec![0, 2], units: vec![1, 4] };
/// affine.set(3, 5, 1.0, 1.0);
/// affine.apply(&events, &mut out);
/// // Input 4 moved out of the image.
/// assert_eq!(out, Events { steps: vec![0], units: vec![2] });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affine {
    rows: Vec<u32>,
    columns: Vec<u32>,
}

impl Affine {
    /// Prepares for images of `steps` rows and `width` columns, moved by `shift` columns and scaled by `scale`.
    ///
    /// # Panics
    ///
    /// If `scale` is not positive.
    pub fn set(&mut self, steps: usize, width: usize, shift: f64, scale: f64) {
        assert!(scale > 0.0, "scale {scale}");
        inverse_axis(steps, 0.0, scale, &mut self.rows);
        inverse_axis(width, shift, scale, &mut self.columns);
    }

    /// Replaces `out` by the transformed events.
    ///
    /// # Panics
    ///
    /// If an event lies outside the image that was prepared for.
    pub fn apply(&self, events: &Events, out: &mut Events) {
        out.clear();
        for (&step, &unit) in events.steps.iter().zip(&events.units) {
            let (step, unit) = (step as usize, unit as usize);
            for row in self.rows[step]..self.rows[step + 1] {
                for column in self.columns[unit]..self.columns[unit + 1] {
                    out.push(row, column);
                }
            }
        }
    }
}

/// Moves the events of a sensor by `(down, right)` pixels; those that leave it are gone. Time stays as it is.
///
/// `table` is memory to work in.
///
/// # Panics
///
/// If an input does not belong to `map`.
pub fn shift_sensor(map: Map, (down, right): (i64, i64), events: &mut Events, table: &mut Vec<u32>) {
    table.clear();
    for row in 0..map.height as i64 {
        for column in 0..map.width as i64 {
            let (row, column) = (row + down, column + right);
            let inside = (0..map.height as i64).contains(&row) && (0..map.width as i64).contains(&column);
            let first = (row * map.width as i64 + column) * map.channels as i64;
            let to = |channel| if inside { (first + channel) as u32 } else { NOWHERE };
            table.extend((0..map.channels as i64).map(to));
        }
    }
    events.filter_map(|step, unit| (step, table[unit as usize]));
}

/// The probability that a bit flips: the mean of the image over `10^(snr / 20)`, at most 1.
///
/// * `events` and `cells` — what the image holds, and of how many entries T N it is made.
/// * `snr_db` — ratio of signal to noise in decibels, the signal's power taken as the square of the mean.
#[must_use]
pub fn flip_probability(events: usize, cells: usize, snr_db: f64) -> f64 {
    (events as f64 / cells.max(1) as f64 / 10.0_f64.powf(snr_db / 20.0)).min(1.0)
}

/// Memory that [`flip`] needs.
#[derive(Debug, Default)]
pub struct FlipWork {
    sorter: Sorter,
    counts: Vec<u32>,
    units: Vec<u32>,
}

/// Flips every entry of a `[T, N]` image with the given probability: 0 becomes 1, any count becomes 0.
///
/// Events come out in the order of steps, then inputs. The work is that of sorting the events and of the flips,
/// whose distances are drawn.
///
/// # Panics
///
/// If an event lies outside the image.
pub fn flip(
    (steps, width): (usize, usize),
    probability: f64,
    events: &mut Events,
    random: &mut Stream,
    work: &mut FlipWork,
) {
    if probability <= 0.0 {
        return;
    }
    let FlipWork { sorter, counts, units } = work;
    counts.clear();
    counts.resize(steps, 0);
    units.resize(events.len(), 0);
    sorter.sort(width, events, counts, units);
    events.clear();
    // Distances are geometric. At probability 1 the divisor is minus infinity and every distance 0.
    let divisor = (-probability).ln_1p();
    let mut gap = || {
        let uniform = 1.0 - (random.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0;
        (uniform.ln() / divisor) as u64
    };
    // The next flip, counted from the beginning of the row.
    let mut next = gap();
    let mut rest = &units[..];
    for (step, &count) in (0..).zip(&*counts) {
        let mut row;
        (row, rest) = rest.split_at(count as usize);
        while next < width as u64 {
            let unit = next as u32;
            let before = row.iter().position(|&u| u >= unit).unwrap_or(row.len());
            row[..before].iter().for_each(|&u| events.push(step, u));
            // All events of the entry go.
            let there = row[before..].iter().take_while(|&&u| u == unit).count();
            row = &row[before + there..];
            if there == 0 {
                events.push(step, unit);
            }
            next = next.saturating_add(1).saturating_add(gap());
        }
        row.iter().for_each(|&u| events.push(step, u));
        next -= width as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snn_core::random::Purpose;

    use super::*;

    fn stream(sample: u32) -> Stream {
        Stream::new(3, Purpose::Noise, [0, sample])
    }

    fn events(list: &[(u32, u32)]) -> Events {
        Events { steps: list.iter().map(|e| e.0).collect(), units: list.iter().map(|e| e.1).collect() }
    }

    fn moved(map: Map, by: (i64, i64), list: &[(u32, u32)]) -> Events {
        let mut events = events(list);
        shift_sensor(map, by, &mut events, &mut Vec::new());
        events
    }

    #[test]
    fn sensor_moves_and_loses_what_leaves_it() {
        let map = Map::new(3, 4, 2);
        let unit = |row: u32, column: u32, channel: u32| (row * 4 + column) * 2 + channel;
        let list = [(0, unit(0, 0, 1)), (5, unit(2, 1, 0)), (6, unit(1, 3, 1))];
        assert_eq!(moved(map, (0, 0), &list), events(&list));
        assert_eq!(moved(map, (1, 0), &list), events(&[(0, unit(1, 0, 1)), (6, unit(2, 3, 1))]));
        assert_eq!(moved(map, (-1, 1), &list), events(&[(5, unit(1, 2, 0))]));
        assert!(moved(map, (9, -9), &list).is_empty());
    }

    #[test]
    fn certain_flip_inverts_the_image() {
        let mut image = events(&[(1, 2), (0, 1), (1, 2)]);
        flip((2, 3), 1.0, &mut image, &mut stream(0), &mut FlipWork::default());
        assert_eq!(image, events(&[(0, 0), (0, 2), (1, 0), (1, 1)]));
        flip((2, 3), 0.0, &mut image, &mut stream(0), &mut FlipWork::default());
        assert_eq!(image.len(), 4);
    }

    #[test]
    fn flips_come_as_often_as_they_should() {
        let (steps, width, density) = (200, 50, 100);
        let set: Vec<_> = (0..density).map(|i| (i * 2, i % 50)).collect();
        for (snr_db, probability) in [(0.0, 0.01), (20.0, 0.001), (-20.0, 0.1)] {
            assert!((flip_probability(density as usize, steps * width, snr_db) - probability).abs() < 1e-12);
            let (mut gone, mut new) = (0, 0);
            for sample in 0..400 {
                let mut image = events(&set);
                flip((steps, width), probability, &mut image, &mut stream(sample), &mut FlipWork::default());
                let left = image.steps.iter().zip(&image.units).filter(|e| set.contains(&(*e.0, *e.1))).count();
                (gone, new) = (gone + density as usize - left, new + image.len() - left);
            }
            for (got, cells) in [(gone, 100.0), (new, 9900.0)] {
                let want = probability * cells * 400.0;
                let deviation = (want * (1.0 - probability)).sqrt();
                assert!((got as f64 - want).abs() < 4.0 * deviation, "{snr_db} dB: {got} flips, expected {want}");
            }
        }
    }

    proptest! {
        #[test]
        fn unmoved_and_unscaled_image_stays(
            (steps, width) in (1_usize..60, 1_usize..60),
            list in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        ) {
            let list: Vec<_> = list.iter().map(|(s, u)| (s.index(steps) as u32, u.index(width) as u32)).collect();
            let (mut affine, mut out) = (Affine::default(), Events::default());
            affine.set(steps, width, 0.0, 1.0);
            affine.apply(&events(&list), &mut out);
            prop_assert_eq!(out, events(&list));
        }

        #[test]
        fn affine_is_the_nearest_pixel_of_the_formula(
            (steps, width) in (1_usize..40, 1_usize..40),
            (shift, scale) in (-10_i32..10, 0.3_f64..3.0),
        ) {
            // An image in which every pixel is set once: the output has a pixel where the source lies inside.
            let all: Vec<_> = (0..steps as u32).flat_map(|s| (0..width as u32).map(move |u| (s, u))).collect();
            let (mut affine, mut out) = (Affine::default(), Events::default());
            affine.set(steps, width, shift.into(), scale);
            affine.apply(&events(&all), &mut out);
            let source = |i: u32, len: usize, shift: f64| {
                let half = len as f64 / 2.0;
                ((f64::from(i) - half + 0.5 - shift) / scale + half - 0.5).round_ties_even()
            };
            let inside = |x: f64, len: usize| (0.0..len as f64).contains(&x);
            let want: Vec<_> = all
                .iter()
                .copied()
                .filter(|&(s, u)| inside(source(s, steps, 0.0), steps) && inside(source(u, width, shift.into()), width))
                .collect();
            let mut got: Vec<_> = out.steps.into_iter().zip(out.units).collect();
            got.sort_unstable();
            prop_assert_eq!(got, want);
        }
    }
}
