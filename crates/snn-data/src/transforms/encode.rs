//! Encodings: what a value or an event becomes in time steps.

use serde::{Deserialize, Serialize};
use snn_core::Map;

use crate::error::{Error, Result};
use crate::source::SourceKind;
use crate::transforms::bins::{Choice, Clock, Cut, Rule};

/// The longest step in milliseconds; no recording is that long.
const MOST_DT_MS: f32 = 1e6;
/// The most input units.
const MOST_UNITS: usize = 1 << 28;
/// The most steps.
const MOST_STEPS: usize = 1 << 20;

/// How a sample becomes input over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Encode {
    /// One spike per input of an image or a vector, the earlier the larger the value; see [`latency_step`].
    Latency {
        /// Time steps, T.
        steps: usize,
    },
    /// Events counted in steps of `dt_ms`; those after the window are dropped.
    Bin {
        /// Time steps, T.
        steps: usize,
        /// Length of a step in milliseconds.
        dt_ms: f32,
        /// Input units; a stored unit counts for unit modulo this. 0 or absent keeps all of them.
        #[serde(default)]
        units: usize,
    },
    /// Events counted in windows of `dt_ms`, as many as the sample has: sequences of different lengths, right-aligned.
    ///
    /// A sample has one step more than its largest bin, and one step if it has no event. A batch has as many steps as its
    /// longest sample; empty steps come before the others, so that all samples end together. The signal of a pipeline
    /// gives the bound `steps`, [`snn_core::Spikes::lanes`] of a batch the number it has.
    Align {
        /// Most time steps; events in later bins are dropped.
        steps: usize,
        /// Length of a window in milliseconds.
        dt_ms: f32,
        /// The bin of an event: `floor` (default) or `ceil` of `time / window`.
        #[serde(default)]
        rule: Rule,
        /// Divides in half precision, the one in which published files hold their times: time, window and quotient are
        /// rounded to it. Single precision otherwise.
        #[serde(default)]
        half: bool,
        /// Input units; a stored unit counts for unit modulo this. 0 or absent keeps all of them.
        #[serde(default)]
        units: usize,
        /// Neighbouring units that are summed to one input, after folding; must divide their number.
        #[serde(default = "one")]
        group: usize,
        /// Rows and columns that a sensor is resized to, each taking its nearest old one; 0 or absent for its own.
        #[serde(default)]
        side: usize,
        /// The only channel (polarity) of a sensor whose events count; absent for all.
        ///
        /// Events of the others still say how long the sample is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<usize>,
    },
    /// The events of each sample cut into as many frames as there are steps, and counted.
    Frames {
        /// Time steps, T.
        steps: usize,
        /// Frames of equally many events (`number`, default) or of equal length (`time`).
        #[serde(default)]
        by: Cut,
        /// Rows and columns that a sensor is resized to, each taking its nearest old one; 0 or absent for its own.
        #[serde(default)]
        side: usize,
    },
    /// Values in `[0, 1]` of images or vectors as the probability of a spike, drawn for each step and input.
    ///
    /// The draws are a function of `seed` and the sample's index: every epoch has the same.
    Rate {
        /// Time steps, T.
        steps: usize,
        /// Seed of the draws.
        #[serde(default)]
        seed: u64,
    },
    /// The columns of an image one after the other: T = W steps of H C values, row by row, normalised as in
    /// [`Encode::Repeat`].
    Columns {
        /// Subtracted from each channel's values in `[0, 1]`; empty for no normalisation.
        #[serde(default)]
        mean: Vec<f32>,
        /// Divides each channel after that.
        #[serde(default)]
        std: Vec<f32>,
    },
    /// The values themselves as a current that is the same in every step, normalised first.
    ///
    /// Normalisation comes before augmentation: the zeros around a cropped image are the mean colour.
    Repeat {
        /// Time steps, T.
        steps: usize,
        /// Subtracted from each channel's values in `[0, 1]`; empty for no normalisation.
        #[serde(default)]
        mean: Vec<f32>,
        /// Divides each channel after that.
        #[serde(default)]
        std: Vec<f32>,
    },
    /// Values without time: `((v - mean) / std - low) / (high - low)` of each value `v` in `[0, 1]` of an image or a vector.
    ///
    /// Augmentation comes between the two steps: the zeros around a cropped image are the mean colour, so that their value
    /// is `(0 - low) / (high - low)`.
    Values {
        /// Subtracted from values in `[0, 1]`: one number for all channels or one for each; empty for none.
        #[serde(default)]
        mean: Vec<f32>,
        /// Divides after that; as many numbers as means.
        #[serde(default)]
        std: Vec<f32>,
        /// What becomes 0.
        #[serde(default)]
        low: f32,
        /// What becomes 1; above `low`.
        #[serde(default = "unit")]
        high: f32,
    },
    /// Spikes in continuous time, for event-driven neurons.
    ///
    /// An input of an image or a vector fires once at `window (1 - x)`, and not at all where its value `x` is 0 or less;
    /// see [`spike_time`]. The events of a recording keep their times; those after the window, and those after the
    /// first `most` of an input, are dropped.
    Times {
        /// When a value of 0 would fire, or where recordings are cut, in milliseconds.
        window_ms: f64,
        /// Events of a recording that are kept for each input.
        #[serde(default = "most_events")]
        most: usize,
    },
    /// Spikes that are already in time steps.
    #[serde(deserialize_with = "no_keys")]
    Ready,
}

fn one() -> usize {
    1
}

fn unit() -> f32 {
    1.0
}

fn most_events() -> usize {
    64
}

/// Refuses keys beside the kind, which the derived code lets pass for variants without fields.
fn no_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

/// The time (s) at which an input of value `x` in `[0, 1]` fires in a window of `window_ms`: the earlier the larger, and
/// never for 0.
///
/// ```
/// use snn_data::transforms::encode::spike_time;
/// assert_eq!([1.0, 0.25, 0.0].map(|x| spike_time(x, 100.0)), [Some(0.0), Some(0.075), None]);
/// ```
#[must_use]
pub fn spike_time(x: f64, window_ms: f64) -> Option<f32> {
    (x > 0.0).then(|| (window_ms / 1000.0 * (1.0 - x.min(1.0))) as f32)
}

impl Encode {
    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Bin { .. } => "bin",
            Self::Align { .. } => "align",
            Self::Frames { .. } => "frames",
            Self::Rate { .. } => "rate",
            Self::Columns { .. } => "columns",
            Self::Repeat { .. } => "repeat",
            Self::Values { .. } => "values",
            Self::Times { .. } => "times",
            Self::Ready => "ready",
        }
    }

    /// How the recorded units become inputs, of the encodings of events.
    pub(crate) fn choice(&self) -> Choice {
        match *self {
            Self::Bin { units, .. } => Choice { units, ..Choice::ALL },
            Self::Align { units, group, side, channel, .. } => Choice { units, group, side, channel },
            Self::Frames { side, .. } => Choice { side, ..Choice::ALL },
            _ => Choice::ALL,
        }
    }

    pub(crate) fn check(&self, kind: SourceKind) -> Result<()> {
        match *self {
            Self::Latency { steps } | Self::Rate { steps, .. } => self.check_steps(steps),
            Self::Frames { steps, .. } => self.check_steps(steps).and(self.check_inputs(kind)),
            Self::Bin { steps, dt_ms, .. } => {
                self.check_steps(steps).and(self.check_window(dt_ms, false)).and(self.check_inputs(kind))
            }
            Self::Align { steps, dt_ms, half, .. } => {
                self.check_steps(steps).and(self.check_window(dt_ms, half)).and(self.check_inputs(kind))
            }
            Self::Repeat { steps, ref mean, ref std } => {
                self.check_steps(steps).and(self.check_normalisation(mean, std, kind))
            }
            Self::Columns { ref mean, ref std } => self.check_normalisation(mean, std, kind),
            Self::Values { ref mean, ref std, low, high } => {
                self.check_normalisation(mean, std, kind).and(self.check_range(low, high))
            }
            Self::Times { window_ms, most } => {
                if !(window_ms > 0.0 && window_ms <= MOST_DT_MS.into()) {
                    let want = format!("a positive number of milliseconds up to {MOST_DT_MS}");
                    return Err(self.wrong("window_ms", window_ms, want));
                }
                if most == 0 {
                    return Err(self.wrong("most", most, "at least 1"));
                }
                Ok(())
            }
            Self::Ready => Ok(()),
        }
    }

    /// An error in the setting `name`.
    fn wrong(&self, name: &str, got: impl ToString, want: impl Into<String>) -> Error {
        Error::config(format!("encoding {}: {name}", self.name()), got.to_string(), want)
    }

    fn check_steps(&self, steps: usize) -> Result<()> {
        if (1..=MOST_STEPS).contains(&steps) { Ok(()) } else { Err(self.wrong("steps", steps, "1..=1048576")) }
    }

    fn check_window(&self, dt_ms: f32, half: bool) -> Result<()> {
        if !(dt_ms > 0.0 && dt_ms <= MOST_DT_MS) {
            return Err(self.wrong("dt_ms", dt_ms, format!("a positive number of milliseconds up to {MOST_DT_MS}")));
        }
        let window_s = Clock::new(dt_ms, Rule::Floor, half, 1).window_s();
        if !window_s.is_normal() {
            let want = "a window that does not round to nothing";
            return Err(self.wrong("dt_ms", format!("{dt_ms}, which is {window_s} s when rounded"), want));
        }
        Ok(())
    }

    fn check_inputs(&self, kind: SourceKind) -> Result<()> {
        let SourceKind::Events { units, sensor } = kind else { return Ok(()) };
        let Choice { units: wanted, group, side, channel } = self.choice();
        if wanted > MOST_UNITS {
            return Err(self.wrong("units", wanted, format!("at most {MOST_UNITS}")));
        }
        match sensor {
            None if side > 0 => return Err(self.wrong("side", side, "0, as these events lie on no sensor")),
            Some(map) if side > map.height.min(map.width) => {
                let want = format!("at most {}, the sensor being {map}", map.height.min(map.width));
                return Err(self.wrong("side", side, want));
            }
            _ => {}
        }
        if let Some(channel) = channel {
            match sensor {
                None => return Err(self.wrong("channel", channel, "none, as these events lie on no sensor")),
                Some(map) if channel >= map.channels => {
                    return Err(self.wrong("channel", channel, format!("below {}", map.channels)));
                }
                _ => {}
            }
        }
        let inputs = self.choice().folded(units, sensor);
        if group == 0 || !inputs.is_multiple_of(group) {
            return Err(self.wrong("group", group, format!("at least 1, and a divisor of the {inputs} units")));
        }
        Ok(())
    }

    fn check_normalisation(&self, mean: &[f32], std: &[f32], kind: SourceKind) -> Result<()> {
        let one_for_all = matches!(self, Self::Values { .. });
        let channels = match kind {
            SourceKind::Images(map) => map.channels,
            // A vector is a map of one pixel.
            SourceKind::Vectors(width) if one_for_all => width,
            _ => 0,
        };
        // Where there are no values, the pipeline says so.
        let fits = mean.is_empty() || mean.len() == channels || one_for_all && (mean.len() == 1 || channels == 0);
        if mean.len() != std.len() || !fits {
            let got = format!("{} means, {} deviations", mean.len(), std.len());
            let one = if one_for_all { "one of each, " } else { "" };
            let want = format!("none, {one}or one of each for all {channels} channels");
            return Err(self.wrong("mean, std", got, want));
        }
        if std.iter().any(|s| !(*s > 0.0 && s.is_finite())) || mean.iter().any(|m| !m.is_finite()) {
            return Err(self.wrong("mean, std", format!("{mean:?}, {std:?}"), "finite, std above 0"));
        }
        Ok(())
    }

    fn check_range(&self, low: f32, high: f32) -> Result<()> {
        let range = high - low;
        if low.is_finite() && range.is_finite() && range > 0.0 {
            return Ok(());
        }
        Err(self.wrong("low, high", format!("{low}, {high}"), "finite numbers, high above low"))
    }
}

/// The step in which a value in `[0, 1]` spikes: `trunc((1 - x) * (T - 1))` in single precision.
///
/// Every value spikes exactly once; 0 does so in the last step. Values outside are taken as the nearest bound.
///
/// ```
/// use snn_data::transforms::encode::latency_step;
/// assert_eq!([1.0, 0.5, 0.0].map(|x| latency_step(x, 100)), [0, 49, 99]);
/// ```
#[inline]
#[must_use]
pub fn latency_step(x: f32, steps: usize) -> usize {
    ((1.0 - x.clamp(0.0, 1.0)) * (steps - 1) as f32) as usize
}

/// The step that an event falls into: `time * 1000 / dt`, in single precision, rounded half to even; nothing if that
/// is not in `0..steps`.
///
/// ```
/// use snn_data::transforms::encode::bin_step;
/// assert_eq!([0.0009, 0.001, 0.003, 0.2].map(|t| bin_step(t, 2.0, 100)), [Some(0), Some(0), Some(2), None]);
/// ```
#[inline]
#[must_use]
pub fn bin_step(time_s: f32, dt_ms: f32, steps: usize) -> Option<u32> {
    let step = (time_s * 1000.0 / dt_ms).round_ties_even();
    // Minus zero is not below zero; NaN is in no range.
    (step >= 0.0 && step < steps as f32).then_some(step as u32)
}

/// Subtracts the mean and divides by the deviation of each channel of a channel-last image; lists of one number stand for
/// all channels, empty ones change nothing.
pub fn normalise(image: &mut [f32], mean: &[f32], std: &[f32]) {
    if mean.is_empty() {
        return;
    }
    for pixel in image.chunks_exact_mut(mean.len()) {
        for ((x, m), s) in pixel.iter_mut().zip(mean).zip(std) {
            *x = (*x - m) / s;
        }
    }
}

/// Moves and scales values so that `low` becomes 0 and `high` 1.
///
/// ```
/// use snn_data::transforms::encode::rescale;
/// let mut x = [-3.0, 0.0, 3.0];
/// rescale(&mut x, -3.0, 3.0);
/// assert_eq!(x, [0.0, 0.5, 1.0]);
/// ```
pub fn rescale(values: &mut [f32], low: f32, high: f32) {
    // Without a range of its own a value keeps its bits.
    if (low, high) != (0.0, 1.0) {
        values.iter_mut().for_each(|x| *x = (*x - low) / (high - low));
    }
}

/// Appends the columns of a channel-last image to `out`, `[W, H, C]`.
///
/// # Panics
///
/// If `image` does not have the size of `map`.
pub fn columns(map: Map, image: &[f32], out: &mut Vec<f32>) {
    assert_eq!(image.len(), map.len(), "an image {map}");
    for column in 0..map.width {
        for row in 0..map.height {
            out.extend_from_slice(&image[(row * map.width + column) * map.channels..][..map.channels]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_spike_as_in_the_published_table() {
        let step = |byte: u8, steps| latency_step(f32::from(byte) / 255.0, steps);
        assert_eq!([0, 1, 127, 128, 254, 255].map(|b| step(b, 100)), [99, 98, 49, 49, 0, 0]);
        assert_eq!([0, 1, 36, 37, 255].map(|b| step(b, 8)), [7, 6, 6, 5, 0]);
        assert_eq!([0.3, 0.0].map(|x| latency_step(x, 1)), [0, 0]);
    }

    #[test]
    fn half_steps_round_to_even_and_late_events_fall_out() {
        assert_eq!([0.0005, 0.0015, 0.0025].map(|t| bin_step(t, 1.0, 3)), [Some(0), Some(2), Some(2)]);
        assert_eq!([0.003, -0.001, f32::NAN, f32::INFINITY].map(|t| bin_step(t, 1.0, 3)), [None; 4]);
    }

    #[test]
    fn configurations_read_back_and_unknown_keys_are_refused() {
        let read = |text: &str| serde_json::from_str::<Encode>(text);
        for encode in [
            Encode::Latency { steps: 8 },
            Encode::Bin { steps: 500, dt_ms: 2.0, units: 700 },
            Encode::Repeat { steps: 4, mean: vec![0.5], std: vec![0.2] },
            Encode::Frames { steps: 10, by: Cut::Time, side: 32 },
            Encode::Rate { steps: 100, seed: 4 },
            Encode::Columns { mean: vec![0.5], std: vec![0.2] },
            Encode::Values { mean: vec![0.5], std: vec![0.2], low: -3.0, high: 3.0 },
            aligned(Some(1)),
            aligned(None),
            Encode::Ready,
        ] {
            assert_eq!(read(&serde_json::to_string(&encode).unwrap()).unwrap(), encode);
            assert_eq!(toml::from_str::<Encode>(&toml::to_string(&encode).unwrap()).unwrap(), encode);
        }
        let short = Encode::Align {
            steps: 1500,
            dt_ms: 1.0,
            rule: Rule::Floor,
            half: false,
            units: 0,
            group: 1,
            side: 0,
            channel: None,
        };
        assert_eq!(read(r#"{"kind":"align","steps":1500,"dt_ms":1.0}"#).unwrap(), short);
        assert!(read(r#"{"kind":"align","steps":1500,"dt_ms":1.0,"rule":"round"}"#).is_err());
        assert!(read(r#"{"kind":"align","steps":1500,"dt_ms":1.0,"unit":5}"#).is_err());
        assert!(read(r#"{"kind":"latency","steps":8,"step":1}"#).is_err());
        assert!(read(r#"{"kind":"ready","steps":8}"#).is_err());
        assert!(read(r#"{"kind":"rate"}"#).is_err());
        let plain = Encode::Values { mean: vec![], std: vec![], low: 0.0, high: 1.0 };
        assert_eq!(read(r#"{"kind":"values"}"#).unwrap(), plain);
        assert!(read(r#"{"kind":"values","steps":1}"#).is_err());
    }

    fn aligned(channel: Option<usize>) -> Encode {
        Encode::Align { steps: 9, dt_ms: 5.0, rule: Rule::Ceil, half: true, units: 8, group: 2, side: 2, channel }
    }

    #[test]
    fn alignment_that_cannot_be_is_refused_with_numbers() {
        let spoken = SourceKind::Events { units: 700, sensor: None };
        let camera = SourceKind::Events { units: 2312, sensor: Some(snn_core::Map::new(34, 34, 2)) };
        let text = |kind: SourceKind, settings: &str| {
            let encode: Encode = serde_json::from_str(&format!(r#"{{"kind":"align",{settings}}}"#)).unwrap();
            encode.check(kind).unwrap_err().to_string()
        };
        for (kind, settings, want) in [
            (spoken, r#""steps":0,"dt_ms":1"#, "encoding align: steps: 0, expected 1..=1048576"),
            (spoken, r#""steps":9,"dt_ms":0"#, "dt_ms: 0, expected a positive number of milliseconds up to 1000000"),
            (spoken, r#""steps":9,"dt_ms":-2"#, "dt_ms: -2, expected"),
            (spoken, r#""steps":9,"dt_ms":2e6"#, "dt_ms: 2000000, expected"),
            (spoken, r#""steps":9,"dt_ms":1e-5,"half":true"#, "dt_ms: 0.00001, which is 0 s when rounded, expected"),
            (spoken, r#""steps":9,"dt_ms":1,"group":0"#, "group: 0, expected at least 1, and a divisor of the 700"),
            (spoken, r#""steps":9,"dt_ms":1,"group":3"#, "group: 3, expected at least 1, and a divisor of the 700"),
            (spoken, r#""steps":9,"dt_ms":1,"units":70,"group":4"#, "divisor of the 70 units"),
            (spoken, r#""steps":9,"dt_ms":1,"side":5"#, "side: 5, expected 0, as these events lie on no sensor"),
            (spoken, r#""steps":9,"dt_ms":1,"channel":0"#, "channel: 0, expected none"),
            (camera, r#""steps":9,"dt_ms":1,"channel":2"#, "channel: 2, expected below 2"),
            (camera, r#""steps":9,"dt_ms":1,"side":35"#, "side: 35, expected at most 34, the sensor being 34x34x2"),
        ] {
            let got = text(kind, settings);
            assert!(got.contains(want), "{got} is not {want}");
        }
    }
}
