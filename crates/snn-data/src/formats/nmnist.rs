//! N-MNIST: recordings of an event camera, five bytes per event.
//!
//! An event is a 40-bit big-endian word: x (8 bits), y (8), polarity (1, on = brighter), time in microseconds (23).
//! An event with y = 240 is no spike but says that the clock has wrapped: it and all later ones get 8192 us more.
//! Units are numbered `x + 34 y + 1156 p`. A sample is named `Train/<digit>/<index>.bin`, the index being the place of the
//! image in MNIST, counted from 1.

use std::path::Path;

use snn_core::Map;

use crate::error::{Error, Result};

/// The sensor: 34 x 34 pixels, off and on events.
pub const SENSOR: Map = Map::new(34, 34, 2);
/// y of an event that says the clock has wrapped.
const OVERFLOW: u8 = 240;
/// What a wrapped clock adds, in microseconds.
const WRAP_US: u64 = 8192;
/// A recording has under 64 KiB; this is generous.
pub const MOST_BYTES: u64 = 4 << 20;

/// What to do with events that are not in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Refuse the file.
    #[default]
    Strict,
    /// Sort by time, equal times staying in the order of the file.
    Sort,
}

/// Decodes a recording into units and times in seconds, replacing what is there.
///
/// `file` and `place` name the recording in errors.
///
/// # Errors
///
/// [`Error::Malformed`] if the recording is empty or ends inside an event, an event lies off the sensor, or time runs
/// backwards under [`Order::Strict`].
pub fn decode(
    bytes: &[u8],
    file: &Path,
    place: &str,
    order: Order,
    units: &mut Vec<u32>,
    times: &mut Vec<f32>,
) -> Result<()> {
    units.clear();
    times.clear();
    if bytes.is_empty() {
        return Err(Error::malformed(file, place, "no events", "at least one"));
    }
    let left = bytes.len() % 5;
    if left != 0 {
        let got = format!("{} bytes, {left} left over", bytes.len());
        return Err(Error::malformed(file, place, got, "a multiple of 5 bytes"));
    }
    let mut wraps = 0;
    let mut before = 0;
    let mut sorted = true;
    let mut events = Vec::with_capacity(bytes.len() / 5);
    for (index, word) in bytes.chunks_exact(5).enumerate() {
        let [x, y, high, middle, low] = *word else { unreachable!("chunks of five") };
        if y == OVERFLOW {
            wraps += 1;
            continue;
        }
        if x >= 34 || y >= 34 {
            return Err(Error::malformed(file, place, format!("event {index} at x {x}, y {y}"), "x and y in 0..=33"));
        }
        let clock = u64::from(high & 0x7F) << 16 | u64::from(middle) << 8 | u64::from(low);
        let time_us = clock + wraps * WRAP_US;
        if time_us < before {
            if order == Order::Strict {
                let got = format!("event {index} at {time_us} us after one at {before} us");
                return Err(Error::malformed(file, place, got, "times that do not decrease"));
            }
            sorted = false;
        }
        before = time_us;
        events.push((time_us, u32::from(x) + 34 * u32::from(y) + 1156 * u32::from(high >> 7)));
    }
    if !sorted {
        events.sort_by_key(|&(time_us, _)| time_us);
    }
    units.extend(events.iter().map(|e| e.1));
    // Exactly as the published converter: the whole microseconds, times 1e-6, in single precision.
    times.extend(events.iter().map(|e| (e.0 as f64 * 1e-6) as f32));
    Ok(())
}

/// Encodes events as a recording; the opposite of [`decode`], for recordings below 8.4 s.
#[must_use]
pub fn encode(units: &[u32], times: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len() * 5);
    for (&unit, &time) in units.iter().zip(times) {
        let time_us = (f64::from(time) * 1e6).round() as u32;
        let [_, high, middle, low] = time_us.to_be_bytes();
        let polarity = (unit / 1156) as u8;
        bytes.extend([(unit % 34) as u8, (unit % 1156 / 34) as u8, polarity << 7 | high & 0x7F, middle, low]);
    }
    bytes
}

/// What the name of an archive entry says: the split's folder, the class and the index, or nothing if it is no recording.
///
/// # Errors
///
/// [`Error::Malformed`] if it is a recording in a folder that is not one digit.
pub fn parse_name(file: &Path, name: &str) -> Result<Option<(u32, u64)>> {
    let mut parts = name.rsplit('/');
    let Some(stem) = parts.next().and_then(|n| n.strip_suffix(".bin")) else { return Ok(None) };
    let folder = parts.next().unwrap_or_default();
    let (&[digit @ b'0'..=b'9'], Ok(index)) = (folder.as_bytes(), stem.parse()) else {
        let want = "`<Train or Test>/<one digit>/<index>.bin`";
        return Err(Error::malformed(file, format!("entry {name:?}"), "another name", want));
    };
    Ok(Some((u32::from(digit - b'0'), index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(bytes: &[u8], order: Order) -> Result<(Vec<u32>, Vec<f32>)> {
        let (mut units, mut times) = (Vec::new(), Vec::new());
        decode(bytes, Path::new("Train.zip"), "3/7.bin", order, &mut units, &mut times)?;
        Ok((units, times))
    }

    fn error(bytes: &[u8]) -> String {
        run(bytes, Order::Strict).unwrap_err().to_string()
    }

    #[test]
    fn an_event_has_place_polarity_and_time() {
        let (units, times) = run(&[10, 20, 0x80, 0x01, 0x02, 33, 33, 0x7F, 0xFF, 0xFF], Order::Strict).unwrap();
        assert_eq!(units, [10 + 34 * 20 + 1156, 33 + 34 * 33]);
        assert_eq!(times, [0.000_258, 8.388_607]);
    }

    #[test]
    fn overflow_markers_add_up() {
        let (units, times) =
            run(&[1, 1, 0, 0, 9, 0, 240, 0, 0, 0, 0, 240, 0, 0, 0, 2, 1, 0, 0, 1], Order::Strict).unwrap();
        assert_eq!(units, [35, 36]);
        assert_eq!(times, [9e-6, 0.016_385]);
    }

    #[test]
    fn broken_recordings_are_refused() {
        assert_eq!(error(&[]), "Train.zip: 3/7.bin: no events, expected at least one");
        assert_eq!(error(&[0; 7]), "Train.zip: 3/7.bin: 7 bytes, 2 left over, expected a multiple of 5 bytes");
        assert!(error(&[34, 0, 0, 0, 0]).contains("event 0 at x 34, y 0"));
        assert!(error(&[0, 34, 0, 0, 0]).contains("event 0 at x 0, y 34"));
        let backwards = [0, 0, 0, 0, 9, 1, 0, 0, 0, 8];
        assert!(error(&backwards).contains("event 1 at 8 us after one at 9 us"));
        assert_eq!(run(&backwards, Order::Sort).unwrap(), (vec![1, 0], vec![8e-6, 9e-6]));
    }

    #[test]
    fn names_say_class_and_index() {
        let parse = |name| parse_name(Path::new("Train.zip"), name);
        assert_eq!(parse("Train/5/00001.bin").unwrap(), Some((5, 1)));
        assert_eq!(parse("Test/0/123456.bin").unwrap(), Some((0, 123_456)));
        assert_eq!(parse("Train/readme.txt").unwrap(), None);
        for wrong in ["Train/12/00001.bin", "Train/x/00001.bin", "00001.bin", "Train/5/a.bin"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("another name"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = run(&bytes, Order::Strict);
            let _ = run(&bytes, Order::Sort);
        }

        #[test]
        fn decode_inverts_encode(mut events in prop::collection::vec((0_u32..2312, 0_u32..8_000_000), 1..50)) {
            events.sort_by_key(|e| e.1);
            let units: Vec<u32> = events.iter().map(|e| e.0).collect();
            let times: Vec<f32> = events.iter().map(|e| (f64::from(e.1) * 1e-6) as f32).collect();
            prop_assert_eq!(run(&encode(&units, &times), Order::Strict).unwrap(), (units, times));
        }
    }
}
