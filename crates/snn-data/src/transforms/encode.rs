//! Encodings: what a value or an event becomes in time steps.

use serde::{Deserialize, Serialize};
use snn_core::Map;

use crate::error::{Error, Result};
use crate::source::SourceKind;

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
    /// Spikes that are already in time steps.
    #[serde(deserialize_with = "no_keys")]
    Ready,
}

/// Refuses keys beside the kind, which the derived code lets pass for variants without fields.
fn no_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

impl Encode {
    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Bin { .. } => "bin",
            Self::Repeat { .. } => "repeat",
            Self::Ready => "ready",
        }
    }

    pub(crate) fn check(&self, kind: SourceKind) -> Result<()> {
        let setting = |name: &str| format!("encoding {}: {name}", self.name());
        match self {
            &Self::Latency { steps } | &Self::Bin { steps, .. } | &Self::Repeat { steps, .. }
                if steps == 0 || steps > 1 << 20 =>
            {
                Err(Error::config(setting("steps"), steps.to_string(), "1..=1048576"))
            }
            &Self::Bin { dt_ms, .. } if !(dt_ms > 0.0 && dt_ms.is_finite()) => {
                Err(Error::config(setting("dt_ms"), dt_ms.to_string(), "a positive number of milliseconds"))
            }
            Self::Repeat { mean, std, .. } => {
                let channels = match kind {
                    SourceKind::Images(map) => map.channels,
                    _ => 0,
                };
                if mean.len() != std.len() || !(mean.is_empty() || mean.len() == channels) {
                    let got = format!("{} means, {} deviations", mean.len(), std.len());
                    let want = format!("none, or one of each for all {channels} channels");
                    return Err(Error::config(setting("mean, std"), got, want));
                }
                if std.iter().any(|s| !(*s > 0.0 && s.is_finite())) || mean.iter().any(|m| !m.is_finite()) {
                    return Err(Error::config(
                        setting("mean, std"),
                        format!("{mean:?}, {std:?}"),
                        "finite, std above 0",
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
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

/// Subtracts the mean and divides by the deviation of each channel of a channel-last image; empty lists change nothing.
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
    fn units_fold_and_reorder() {
        let sensor = Some(Map::new(34, 34, 2));
        assert_eq!(binned_map(1156, 2312, sensor), Map::new(34, 34, 1));
        assert_eq!(binned_unit(1156 + 34 + 5, 1156, sensor), 39);
        assert_eq!(binned_map(2312, 2312, sensor), Map::new(34, 34, 2));
        assert_eq!(binned_unit(1156 + 34 + 5, 2312, sensor), 2 * 39 + 1);
        assert_eq!((binned_map(70, 700, None), binned_unit(699, 70, None)), (Map::new(1, 1, 70), 69));
    }

    #[test]
    fn configurations_read_back_and_unknown_keys_are_refused() {
        let read = |text: &str| serde_json::from_str::<Encode>(text);
        for encode in [
            Encode::Latency { steps: 8 },
            Encode::Bin { steps: 500, dt_ms: 2.0, units: 700 },
            Encode::Repeat { steps: 4, mean: vec![0.5], std: vec![0.2] },
            Encode::Ready,
        ] {
            assert_eq!(read(&serde_json::to_string(&encode).unwrap()).unwrap(), encode);
        }
        assert!(read(r#"{"kind":"latency","steps":8,"step":1}"#).is_err());
        assert!(read(r#"{"kind":"ready","steps":8}"#).is_err());
        assert!(read(r#"{"kind":"rate"}"#).is_err());
    }
}
