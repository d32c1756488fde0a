//! Events in time: the step that an event falls into, and the input that its unit counts for.
//!
//! A window of fixed length begins at time zero and two rules say where its borders belong: [`Rule::Floor`] counts an
//! event in bin `floor(q)`, [`Rule::Ceil`] in `ceil(q)`, with `q = time / window`. Published sets store times as half
//! floats and published code divides them as such, which moves events: [`Arithmetic`] says in which numbers to divide.
//! [`Edges`] is the ceil rule for windows that are no multiple of the unit.

use half::f16;
use serde::{Deserialize, Serialize};
use snn_core::Map;

/// What no step and no input has as its number: an event that is left out.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// To which bin an event between two borders belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// To the border before it: `floor(time / window)`.
    #[default]
    Floor,
    /// To the border at or after it: `ceil(time / window)`.
    Ceil,
}

/// How the events of a sample are cut into frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Frames of equally many events, up to one.
    #[default]
    Number,
    /// Frames of equal length between the first and the last event.
    Time,
}

/// The numbers that a time is divided in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Half precision: time, window and quotient are each rounded to it.
    Half,
    /// Single precision.
    Single,
    /// Double precision.
    Double,
}

impl Arithmetic {
    /// `time / window`, both in seconds, in these numbers.
    ///
    /// ```
    /// use snn_data::transforms::bins::Arithmetic;
    /// // Half floats near 1000 are half apart, and 0.001 is 0.0010004 among them.
    /// assert_eq!(Arithmetic::Half.quotient(1.0, 0.001), 999.5);
    /// assert_eq!(Arithmetic::Double.quotient(1.0, 0.001), 1000.0);
    /// ```
    #[must_use]
    pub fn quotient(self, time_s: f64, window_s: f64) -> f64 {
        match self {
            // The quotient of two halves in single precision, rounded once more, is the nearest half.
            Self::Half => {
                let [time, window] = [time_s, window_s].map(|x| f16::from_f64(x).to_f32());
                f16::from_f32(time / window).to_f64()
            }
            Self::Single => f64::from(time_s as f32 / window_s as f32),
            Self::Double => time_s / window_s,
        }
    }
}

impl Rule {
    /// The bin of a quotient `time / window` that is not negative.
    #[must_use]
    pub fn bin(self, quotient: f64) -> usize {
        match self {
            Self::Floor => quotient as usize,
            Self::Ceil => quotient.ceil() as usize,
        }
    }
}

/// Evenly spaced borders, as SPSN lays them over the times of a whole file.
///
/// With `D` the whole part of the file's largest quotient and a window of `w` units there are `M = floor(D / w) + 1`
/// borders, evenly from 0 to `D`: their distance is `w` only where `w` divides `D`.
#[derive(Debug, Clone, PartialEq)]
pub struct Edges {
    edges: Vec<f64>,
}

impl Edges {
    /// Borders for quotients up to `largest`, `window` units apart or a little more.
    ///
    /// # Panics
    ///
    /// If `window` is not positive, or there would be more than 2^28 borders.
    #[must_use]
    pub fn new(largest: f64, window: f64) -> Self {
        let last = largest.floor();
        let count = (last / window).floor() + 1.0;
        assert!(window > 0.0 && (1.0..=268_435_456.0).contains(&count), "{count} borders, {window} apart");
        let gaps = count as usize - 1;
        let distance = last / gaps as f64;
        let mut edges: Vec<f64> = (0..gaps).map(|i| i as f64 * distance).collect();
        edges.push(if gaps == 0 { 0.0 } else { last });
        Self { edges }
    }

    /// Borders, M; the largest bin there can be.
    #[must_use]
    pub fn count(&self) -> usize {
        self.edges.len()
    }

    /// The first border that is not below `quotient`; M if there is none.
    #[must_use]
    pub fn bin(&self, quotient: f64) -> usize {
        self.edges.partition_point(|&edge| edge < quotient)
    }
}

/// A window of fixed length, ready to bin many events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Seconds, rounded already if `half`.
    window_s: f32,
    rule: Rule,
    half: bool,
    /// Bins; later events are in none.
    steps: usize,
}

impl Clock {
    pub(crate) fn new(dt_ms: f32, rule: Rule, half: bool, steps: usize) -> Self {
        let window_s = f64::from(dt_ms) / 1000.0;
        let window_s = if half { f16::from_f64(window_s).to_f32() } else { window_s as f32 };
        Self { window_s, rule, half, steps }
    }

    /// The length of a window in seconds; 0 if it rounds to nothing.
    pub(crate) fn window_s(&self) -> f32 {
        self.window_s
    }

    /// Puts the bin of every time into `steps`: [`NOWHERE`] if there is none.
    pub(crate) fn bins(&self, times_s: &[f32], steps: &mut Vec<u32>) {
        let (window, bound) = (self.window_s, self.steps as f32);
        let whole = |q: f32| if q >= 0.0 && q < bound { q as u32 } else { NOWHERE };
        let up = |q: f32| {
            let low = q as u32;
            let bin = low + u32::from((low as f32) < q);
            if q >= 0.0 && q <= bound && bin < self.steps as u32 { bin } else { NOWHERE }
        };
        let half = |time: f32| round_to_half(round_to_half(time) / window);
        steps.clear();
        match (self.rule, self.half) {
            (Rule::Floor, false) => steps.extend(times_s.iter().map(|t| whole(t / window))),
            (Rule::Floor, true) => steps.extend(times_s.iter().map(|&t| whole(half(t)))),
            (Rule::Ceil, false) => steps.extend(times_s.iter().map(|t| up((t / window).min(bound + 1.0)))),
            (Rule::Ceil, true) => steps.extend(times_s.iter().map(|&t| up(half(t).min(bound + 1.0)))),
        }
    }
}

/// The nearest number of half precision, ties to even.
#[inline]
fn round_to_half(x: f32) -> f32 {
    let bits = x.to_bits();
    // From the smallest normal half to the largest number that does not round to infinity, and not negative.
    if (0x3880_0000..0x477F_F000).contains(&bits) {
        // 23 bits of fraction become 10: half a unit is added, less a little where the last bit kept is even.
        f32::from_bits((bits + 0x0FFF + (bits >> 13 & 1)) & !0x1FFF)
    } else {
        f16::from_f32(x).to_f32()
    }
}

/// Puts the frame of every event into `steps`; [`NOWHERE`] for times that are not numbers.
pub(crate) fn frames(times_s: &[f32], count: usize, by: Cut, steps: &mut Vec<u32>) {
    steps.clear();
    let known = times_s.iter().filter(|t| !t.is_nan());
    match by {
        Cut::Number => {
            let (total, mut seen) = (known.count() as u64, 0);
            steps.extend(times_s.iter().map(|t| {
                if t.is_nan() {
                    return NOWHERE;
                }
                seen += 1;
                ((seen - 1) * count as u64 / total) as u32
            }));
        }
        Cut::Time => {
            let (first, last) = known.fold((f32::MAX, f32::MIN), |(low, high), &t| (low.min(t), high.max(t)));
            let length = f64::from(last) - f64::from(first);
            let scale = if length > 0.0 { count as f64 / length } else { 0.0 };
            let most = count as u32 - 1;
            steps.extend(times_s.iter().map(|&t| {
                let frame = ((f64::from(t) - f64::from(first)) * scale) as u32;
                if t.is_nan() { NOWHERE } else { frame.min(most) }
            }));
        }
    }
}

/// Which inputs the recorded units become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// A unit counts for unit modulo this; 0 for all.
    pub(crate) units: usize,
    /// Neighbouring inputs that are summed.
    pub(crate) group: usize,
    /// Rows and columns that a sensor is resized to; 0 for its own.
    pub(crate) side: usize,
    /// The one channel of a sensor whose events count.
    pub(crate) channel: Option<usize>,
}

impl Choice {
    /// All units as they are.
    pub(crate) const ALL: Self = Self { units: 0, group: 1, side: 0, channel: None };

    /// The inputs before folding: their number, and the map of a sensor that remains one.
    pub(crate) fn recorded(&self, units: usize, sensor: Option<Map>) -> (usize, Option<Map>) {
        let Some(map) = sensor else { return (units, None) };
        let (height, width) = if self.side == 0 { (map.height, map.width) } else { (self.side, self.side) };
        let map = Map::new(height, width, if self.channel.is_some() { 1 } else { map.channels });
        (map.len(), Some(map))
    }

    /// The inputs after folding, before grouping.
    pub(crate) fn folded(&self, units: usize, sensor: Option<Map>) -> usize {
        if self.units == 0 { self.recorded(units, sensor).0 } else { self.units }
    }

    /// The map of the inputs, and for every recorded unit the input that it counts for, or [`NOWHERE`].
    pub(crate) fn inputs(&self, units: usize, sensor: Option<Map>) -> (Map, Vec<u32>) {
        let (count, kept) = self.recorded(units, sensor);
        let wanted = self.folded(units, sensor);
        let place = |unit: usize| match sensor {
            Some(map) => self.place(unit, map),
            None => Some(unit),
        };
        if self.group > 1 {
            let input = |u| place(u).map_or(NOWHERE, |u| (u % wanted / self.group) as u32);
            return (Map::new(1, 1, wanted / self.group), (0..units).map(input).collect());
        }
        let input = |u| place(u).map_or(NOWHERE, |u| binned_unit(u, wanted, kept));
        (binned_map(wanted, count, kept), (0..units).map(input).collect())
    }

    /// Where a unit lies on the sensor that is left after choosing a channel and resizing; nothing if it is not on it.
    ///
    /// Resizing takes for each new row and column the nearest old one, `floor(new * old_side / side)`: what lies on the
    /// others is left out.
    fn place(&self, unit: usize, map: Map) -> Option<usize> {
        let plane = map.height * map.width;
        let (channel, row, column) = (unit / plane, unit % plane / map.width, unit % map.width);
        let channel = match self.channel {
            Some(wanted) if wanted != channel => return None,
            Some(_) => 0,
            None => channel,
        };
        if self.side == 0 {
            return Some(channel * plane + row * map.width + column);
        }
        let resized = |at: usize, from: usize| {
            let to = (at * self.side).div_ceil(from);
            (to < self.side && to * from / self.side == at).then_some(to)
        };
        let (row, column) = (resized(row, map.height)?, resized(column, map.width)?);
        Some((channel * self.side + row) * self.side + column)
    }
}

/// The map that the binned units form.
///
/// Recorded units of a sensor are channel-first, maps are channel-last: keeping all units reorders them, folding
/// them onto one channel leaves `row * W + column`.
#[must_use]
pub fn binned_map(wanted: usize, units: usize, sensor: Option<Map>) -> Map {
    match sensor {
        Some(map) if wanted == units && map.len() == units => map,
        Some(map) if wanted == map.height * map.width => Map::new(map.height, map.width, 1),
        _ => Map::new(1, 1, wanted),
    }
}

/// The input that a recorded unit counts for; see [`binned_map`].
#[must_use]
pub fn binned_unit(unit: usize, wanted: usize, sensor: Option<Map>) -> u32 {
    let folded = unit % wanted;
    match sensor {
        Some(map) if wanted == map.len() => {
            let plane = map.height * map.width;
            (folded % plane * map.channels + folded / plane) as u32
        }
        _ => folded as u32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bins(clock: Clock, times: &[f32]) -> Vec<u32> {
        let mut steps = vec![7];
        clock.bins(times, &mut steps);
        steps
    }

    #[test]
    fn rules_differ_between_borders_only() {
        let times = [0.0, 0.0005, 0.001, 0.0015, 0.003, 0.0031];
        assert_eq!(bins(Clock::new(1.0, Rule::Floor, false, 4), &times), [0, 0, 1, 1, 3, 3]);
        assert_eq!(bins(Clock::new(1.0, Rule::Ceil, false, 4), &times), [0, 1, 1, 2, 3, NOWHERE]);
        for rule in [Rule::Floor, Rule::Ceil] {
            let none = [-0.001, f32::NAN, f32::INFINITY, 0.005, 3e38];
            assert_eq!(bins(Clock::new(1.0, rule, false, 4), &none), [NOWHERE; 5]);
            assert_eq!(bins(Clock::new(1.0, rule, true, 4), &none), [NOWHERE; 5]);
        }
    }

    #[test]
    fn edges_are_evenly_spaced_over_the_file() {
        let edges = Edges::new(10.9, 4.0);
        // D = 10, so three borders 0, 5, 10.
        assert_eq!((edges.count(), [0.0, 0.1, 5.0, 5.1, 10.0, 10.5].map(|q| edges.bin(q))), (3, [0, 1, 1, 2, 2, 3]));
        assert_eq!((Edges::new(0.4, 1.0).count(), Edges::new(0.4, 1.0).bin(0.4)), (1, 1));
    }

    #[test]
    fn frames_hold_equally_many_events_or_last_equally_long() {
        let times = [0.1, 0.2, 0.3, f32::NAN, 0.4, 1.1];
        let cut = |count, by| {
            let mut steps = Vec::new();
            frames(&times, count, by, &mut steps);
            steps
        };
        assert_eq!(cut(5, Cut::Number), [0, 1, 2, NOWHERE, 3, 4]);
        assert_eq!(cut(2, Cut::Number), [0, 0, 0, NOWHERE, 1, 1]);
        assert_eq!(cut(2, Cut::Time), [0, 0, 0, NOWHERE, 0, 1]);
        let mut steps = Vec::new();
        frames(&[0.5, 0.5], 3, Cut::Time, &mut steps);
        assert_eq!(steps, [0, 0]);
        frames(&[], 3, Cut::Number, &mut steps);
        assert!(steps.is_empty());
    }

    #[test]
    fn units_fold_and_reorder() {
        let sensor = Some(Map::new(34, 34, 2));
        assert_eq!(binned_map(1156, 2312, sensor), Map::new(34, 34, 1));
        assert_eq!(binned_unit(1156 + 34 + 5, 1156, sensor), 39);
        assert_eq!(binned_map(2312, 2312, sensor), Map::new(34, 34, 2));
        assert_eq!(binned_unit(1156 + 34 + 5, 2312, sensor), 2 * 39 + 1);
        assert_eq!((binned_map(70, 700, None), binned_unit(699, 70, None)), (Map::new(1, 1, 70), 69));
    }

    #[test]
    fn one_channel_is_kept_and_the_others_are_left_out() {
        let sensor = Some(Map::new(34, 34, 2));
        let (map, inputs) = Choice { channel: Some(1), ..Choice::ALL }.inputs(2312, sensor);
        assert_eq!((map, inputs[39], inputs[1156 + 39]), (Map::new(34, 34, 1), NOWHERE, 39));
    }

    #[test]
    fn neighbours_are_summed_in_groups() {
        let (map, inputs) = Choice { group: 5, ..Choice::ALL }.inputs(700, None);
        assert_eq!((map, inputs[4], inputs[5], inputs[699]), (Map::new(1, 1, 140), 0, 1, 139));
    }

    #[test]
    fn resizing_takes_the_nearest_row_and_column() {
        let sensor = Some(Map::new(4, 4, 2));
        let (map, inputs) = Choice { side: 2, ..Choice::ALL }.inputs(32, sensor);
        assert_eq!(map, Map::new(2, 2, 2));
        let kept: Vec<(usize, u32)> = inputs.iter().copied().enumerate().filter(|e| e.1 != NOWHERE).collect();
        assert_eq!(kept, [(0, 0), (2, 2), (8, 4), (10, 6), (16, 1), (18, 3), (24, 5), (26, 7)]);
        let (map, inputs) = Choice { side: 3, ..Choice::ALL }.inputs(16, Some(Map::new(4, 4, 1)));
        // Rows and columns 0, 1, 2 of the new sensor are 0, 1, 2 of the old one.
        assert_eq!((map, inputs[10], inputs[3], inputs[12]), (Map::new(3, 3, 1), 8, NOWHERE, NOWHERE));
    }

    #[test]
    fn every_half_is_reached_by_rounding_as_the_library_does() {
        for bits in 0..0x7C00_u16 {
            let (here, next) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let middle = if next.is_finite() { (here + next) / 2.0 } else { 65_520.0 };
            for x in [here, middle, f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1)] {
                assert_eq!(round_to_half(x), f16::from_f32(x).to_f32(), "{x}");
            }
        }
    }

    proptest! {
        #[test]
        fn floor_is_integer_division_on_whole_milliseconds(ms in 0_u32..4000, window in 1_u32..50) {
            // Quotients of whole numbers below 2^12 are never so close below a whole one that double rounding hides it.
            let quotient = Arithmetic::Double.quotient(f64::from(ms), f64::from(window));
            prop_assert_eq!(Rule::Floor.bin(quotient) as u32, ms / window);
            prop_assert_eq!(Rule::Ceil.bin(quotient) as u32, ms.div_ceil(window));
        }

        #[test]
        fn many_events_are_binned_as_each_alone(
            times in prop::collection::vec(0.0_f32..3.0, 1..40),
            (dt_ms, half, ceil) in (0.5_f32..20.0, any::<bool>(), any::<bool>()),
        ) {
            let rule = if ceil { Rule::Ceil } else { Rule::Floor };
            let arithmetic = if half { Arithmetic::Half } else { Arithmetic::Single };
            let want: Vec<u32> = times
                .iter()
                .map(|&t| rule.bin(arithmetic.quotient(t.into(), f64::from(dt_ms) / 1000.0)))
                .map(|bin| if bin < 500 { bin as u32 } else { NOWHERE })
                .collect();
            prop_assert_eq!(bins(Clock::new(dt_ms, rule, half, 500), &times), want);
        }

        #[test]
        fn nearest_rows_are_those_of_an_image_resize(from in 1_usize..60, side in 1_usize..60) {
            prop_assume!(side <= from);
            let mut want = vec![None; from];
            (0..side).for_each(|new| want[new * from / side] = Some(new * side));
            let (map, choice) = (Map::new(from, from, 1), Choice { side, ..Choice::ALL });
            let got: Vec<_> = (0..from).map(|row| choice.place(row * from, map)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
