//! DVS Gesture: hand gestures before an event camera of 128 x 128 pixels, in two editions.
//!
//! *Pre-processed*: a tar archive per split with `<user>_<lighting>/<class>.npy`, classes 0 to 10, each a table
//! `[events, 4]` of x, y, polarity and time in milliseconds.
//!
//! *Original*: AEDAT 3.1 recordings of several gestures each, beside each a table `<recording>_labels.csv` with the lines
//! `class,start,end`, classes 1 to 11, times in microseconds, start inclusive. A recording is a text header of lines that
//! begin with `#`, the last one `#!END-HEADER`, then packets: 28 bytes little-endian (event type and source, 16 bits each;
//! event size, place of the time stamp, overflows of the clock, capacity, events, valid events, 32 bits each) and the
//! events. A polarity event (type 1) has 8 bytes: a word with valid (bit 0), polarity (bit 1), y (bits 2 to 16) and
//! x (bits 17 to 31), and the time in microseconds, 31 bits.
//!
//! The last class, gestures of the subjects' own choice, is left out in either edition, so that ten remain. Units are
//! numbered `x + 128 y + 16384 p`. Both are written from public descriptions.

use std::path::Path;

use snn_core::Map;

use crate::error::{Error, Result};
use crate::formats::npy::Table;

/// The sensor: 128 x 128 pixels, off and on events.
pub const SENSOR: Map = Map::new(128, 128, 2);
/// The classes that count; one more is in the files.
pub const CLASSES: u32 = 10;
/// A recording, or a gesture cut out of one, is smaller.
pub const MOST_BYTES: u64 = 1 << 30;
/// Bytes of a packet's header.
const PACKET: usize = 28;
/// The type of polarity events, and their size in bytes.
const POLARITY: (i16, usize) = (1, 8);

/// What an archive entry of the pre-processed edition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A gesture of this class.
    Gesture(u32),
    /// A gesture of the class that is left out.
    Other,
    /// Something else.
    Foreign,
}

/// What the name of an entry of the pre-processed edition says.
///
/// # Errors
///
/// [`Error::Malformed`] if it is an npy file whose name is not a class.
pub fn parse_name(file: &Path, name: &str) -> Result<Entry> {
    let Some(stem) = name.rsplit('/').next().and_then(|n| n.strip_suffix(".npy")) else { return Ok(Entry::Foreign) };
    match stem.parse::<u32>() {
        Ok(class) if class < CLASSES && stem.len() == 1 => Ok(Entry::Gesture(class)),
        Ok(CLASSES) => Ok(Entry::Other),
        _ => {
            let want = "`<user>_<lighting>/<class 0 to 10>.npy`";
            Err(Error::malformed(file, format!("entry {name:?}"), "another name", want))
        }
    }
}

/// The unit of an event; nothing off the sensor, or if a number is not whole.
fn unit(x: f64, y: f64, polarity: f64) -> Option<u32> {
    let whole = |v: f64, below: usize| (v >= 0.0 && v < below as f64 && v.fract() == 0.0).then_some(v as u32);
    let (x, y) = (whole(x, SENSOR.width)?, whole(y, SENSOR.height)?);
    Some(x + 128 * y + 16_384 * whole(polarity, SENSOR.channels)?)
}

/// Decodes a gesture of the pre-processed edition into units and times in seconds, replacing what is there.
///
/// # Errors
///
/// [`Error::Malformed`] if it is no npy table of four columns, has no events, an event lies off the sensor, or a time is
/// no number, negative, or earlier than the one before.
pub fn decode_table(bytes: &[u8], file: &Path, place: &str, units: &mut Vec<u32>, times: &mut Vec<f32>) -> Result<()> {
    units.clear();
    times.clear();
    let table = Table::parse(bytes, file, place)?;
    let (rows, columns) = table.shape();
    if columns != 4 || rows == 0 {
        let want = "at least one event of x, y, polarity and time";
        return Err(Error::malformed(file, place, format!("{rows} rows of {columns} columns"), want));
    }
    let mut before = 0.0;
    for event in 0..rows {
        let [x, y, polarity, time_ms] = [0, 1, 2, 3].map(|column| table.at(event, column));
        let wrong = |got: String, want: &str| Error::malformed(file, place, format!("event {event}: {got}"), want);
        let Some(unit) = unit(x, y, polarity) else {
            let want = "whole numbers, x and y in 0..=127, polarity 0 or 1";
            return Err(wrong(format!("x {x}, y {y}, polarity {polarity}"), want));
        };
        if !(time_ms.is_finite() && time_ms >= before) {
            return Err(wrong(format!("{time_ms} ms after {before} ms"), "finite times that do not decrease"));
        }
        before = time_ms;
        units.push(unit);
        times.push((time_ms * 1e-3) as f32);
    }
    Ok(())
}

/// A gesture within a recording of the original edition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gesture {
    /// The class; nothing for the one that is left out.
    pub class: Option<u32>,
    /// Where it begins, microseconds.
    pub start_us: u64,
    /// Where it has ended, microseconds.
    pub end_us: u64,
}

/// Reads a table of gestures; a first line of words is passed over.
///
/// # Errors
///
/// [`Error::Malformed`] if a line is not three whole numbers, the class is not in `1..=11`, or a gesture ends before it
/// begins.
pub fn parse_labels(text: &[u8], file: &Path, place: &str) -> Result<Vec<Gesture>> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let mut gestures = Vec::new();
    for (at, line) in lines.skip_while(|(at, line)| *at == 0 && line.starts_with(|c: char| c.is_alphabetic())) {
        let numbers: Option<Vec<u64>> = line.split(',').map(|field| field.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[class, start_us, end_us]) if (1..=u64::from(CLASSES) + 1).contains(&class) && start_us <= end_us => {
                let class = Some(class as u32 - 1).filter(|class| *class < CLASSES);
                gestures.push(Gesture { class, start_us, end_us });
            }
            _ => {
                let want = "`class 1 to 11,start,end` in microseconds";
                let line: String = line.chars().take(60).collect();
                return Err(Error::malformed(file, format!("{place}: line {}", at + 1), format!("{line:?}"), want));
            }
        }
    }
    Ok(gestures)
}

/// The events of a recording: times in microseconds and units.
///
/// Events that are marked as invalid and those of other types are passed over.
///
/// # Errors
///
/// [`Error::Malformed`] if it is no AEDAT 3 file, ends inside a packet, holds polarity events of another size, or an event
/// lies off the sensor or is earlier than the one before.
pub fn decode_aedat(bytes: &[u8], file: &Path, place: &str) -> Result<Vec<(u64, u32)>> {
    let wrong = |at: usize, got: String, want: &str| Error::malformed(file, format!("{place}: byte {at}"), got, want);
    let mut at = header_length(bytes).ok_or_else(|| wrong(0, "no header".into(), "`#!AER-DAT3` to `#!END-HEADER`"))?;
    let mut events: Vec<(u64, u32)> = Vec::new();
    while at < bytes.len() {
        let Some(header) = bytes.get(at..at + PACKET) else {
            return Err(wrong(at, format!("{} bytes left", bytes.len() - at), "a packet header of 28 bytes"));
        };
        let number = |from: usize| i32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes"));
        let kind = i16::from_le_bytes([header[0], header[1]]);
        let (size, overflows, count) = (number(4), number(12), number(20));
        let start = at + PACKET;
        let length = usize::try_from(size).ok().zip(usize::try_from(count).ok()).and_then(|(s, n)| s.checked_mul(n));
        let body = length.and_then(|length| bytes.get(start..start.checked_add(length)?));
        let (Some(body), Ok(overflows)) = (body, u64::try_from(overflows)) else {
            let got = format!("a packet of {count} events of {size} bytes, {} bytes left", bytes.len() - start);
            return Err(wrong(at, got, "a packet that lies in the file"));
        };
        if kind == POLARITY.0 {
            if size as usize != POLARITY.1 {
                return Err(wrong(at, format!("polarity events of {size} bytes"), "8 bytes"));
            }
            for (index, event) in body.chunks_exact(POLARITY.1).enumerate() {
                let here = start + index * POLARITY.1;
                if let Some(event) = polarity_event(event, overflows).map_err(|got| wrong(here, got, "0..=127"))? {
                    if let Some(last) = events.last().filter(|last| last.0 > event.0) {
                        let got = format!("{} us after {} us", event.0, last.0);
                        return Err(wrong(here, got, "times that do not decrease"));
                    }
                    events.push(event);
                }
            }
        }
        at = start + body.len();
    }
    Ok(events)
}

/// Bytes of the text header.
fn header_length(bytes: &[u8]) -> Option<usize> {
    const LAST: &[u8] = b"#!END-HEADER";
    if !bytes.starts_with(b"#!AER-DAT3") {
        return None;
    }
    let mut at = 0;
    loop {
        let line = bytes[at..].iter().position(|&b| b == b'\n').map(|end| &bytes[at..=at + end])?;
        at += line.len();
        if !line.starts_with(b"#") {
            return None;
        }
        if line.starts_with(LAST) {
            return Some(at);
        }
    }
}

/// Time and unit of an event of 8 bytes; nothing for one that is not valid, its place for one off the sensor.
fn polarity_event(event: &[u8], overflows: u64) -> Result<Option<(u64, u32)>, String> {
    let word = |from: usize| u32::from_le_bytes(event[from..from + 4].try_into().expect("four bytes"));
    let (data, time) = (word(0), word(4));
    if data & 1 == 0 {
        return Ok(None);
    }
    let (polarity, y, x) = (data >> 1 & 1, data >> 2 & 0x7FFF, data >> 17);
    let unit = unit(x.into(), y.into(), polarity.into()).ok_or_else(|| format!("x {x}, y {y}"))?;
    if time >> 31 != 0 {
        return Err(format!("time {}", time as i32));
    }
    Ok(Some((overflows << 31 | u64::from(time), unit)))
}

/// The part of a recording's events that belongs to a gesture, as units and times in seconds since its beginning.
pub fn cut(events: &[(u64, u32)], gesture: &Gesture, units: &mut Vec<u32>, times: &mut Vec<f32>) {
    let [first, end] = [gesture.start_us, gesture.end_us].map(|at| events.partition_point(|event| event.0 < at));
    units.clear();
    times.clear();
    units.extend(events[first..end].iter().map(|event| event.1));
    times.extend(events[first..end].iter().map(|event| ((event.0 - gesture.start_us) as f64 * 1e-6) as f32));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rows: &[[f64; 4]]) -> Vec<u8> {
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, 4), }}", rows.len()).into_bytes();
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header);
        bytes.extend(rows.iter().flatten().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    fn decode(rows: &[[f64; 4]]) -> Result<(Vec<u32>, Vec<f32>)> {
        let (mut units, mut times) = (vec![9], vec![9.0]);
        decode_table(&table(rows), Path::new("t.tar.gz"), "3.npy", &mut units, &mut times)?;
        Ok((units, times))
    }

    #[test]
    fn a_row_is_place_polarity_and_time() {
        let got = decode(&[[3.0, 2.0, 1.0, 0.0], [127.0, 127.0, 0.0, 1500.0]]).unwrap();
        assert_eq!(got, (vec![3 + 256 + 16_384, 16_383], vec![0.0, 1.5]));
    }

    #[test]
    fn broken_tables_are_refused() {
        let good = [1.0, 1.0, 1.0, 5.0];
        for (row, want) in [
            ([128.0, 0.0, 0.0, 6.0], "event 1: x 128, y 0, polarity 0, expected whole numbers"),
            ([0.0, -1.0, 0.0, 6.0], "event 1: x 0, y -1"),
            ([0.5, 0.0, 0.0, 6.0], "event 1: x 0.5"),
            ([0.0, f64::NAN, 0.0, 6.0], "event 1: x 0, y NaN"),
            ([0.0, 0.0, 2.0, 6.0], "polarity 2"),
            ([0.0, 0.0, 0.0, 4.0], "event 1: 4 ms after 5 ms, expected finite times that do not decrease"),
            ([0.0, 0.0, 0.0, f64::NAN], "event 1: NaN ms after 5 ms"),
            ([0.0, 0.0, 0.0, f64::INFINITY], "event 1: inf ms after 5 ms"),
        ] {
            let got = decode(&[good, row]).unwrap_err().to_string();
            assert!(got.contains(want), "{got} is not {want}");
        }
        assert!(decode(&[]).unwrap_err().to_string().contains("0 rows of 4 columns"));
        assert!(decode(&[[1.0, 1.0, 1.0, -5.0]]).unwrap_err().to_string().contains("-5 ms after 0 ms"));
    }

    #[test]
    fn names_say_the_class() {
        let parse = |name| parse_name(Path::new("t"), name);
        assert_eq!(parse("ibmGestureTrain/user01_led/7.npy").unwrap(), Entry::Gesture(7));
        assert_eq!(parse("user01_led/10.npy").unwrap(), Entry::Other);
        assert_eq!(parse("user01_led/readme.txt").unwrap(), Entry::Foreign);
        for name in ["a/11.npy", "a/-1.npy", "a/x.npy", "a/07.npy", ".npy"] {
            assert!(parse(name).unwrap_err().to_string().contains("another name"), "{name}");
        }
    }

    #[test]
    fn labels_are_lines_of_three_numbers() {
        let parse = |text: &str| parse_labels(text.as_bytes(), Path::new("d"), "a.csv");
        let got = parse("class,startTime_usec,endTime_usec\r\n1,5,20\r\n11,20,30\r\n\r\n").unwrap();
        let first = Gesture { class: Some(0), start_us: 5, end_us: 20 };
        assert_eq!(got, [first, Gesture { class: None, start_us: 20, end_us: 30 }]);
        for text in ["1,5", "0,5,9", "12,5,9", "1,9,5", "1,5,x", "a\nb", "1,5,99999999999999999999999"] {
            assert!(parse(text).unwrap_err().to_string().contains("expected `class 1 to 11,start,end`"), "{text}");
        }
    }

    fn packet(kind: i16, size: i32, overflows: i32, count: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), 1_i16.to_le_bytes()].concat();
        bytes.extend([size, 4, overflows, count, count, count].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(body);
        bytes
    }

    fn event(valid: bool, x: u32, y: u32, polarity: u32, time_us: i32) -> Vec<u8> {
        let data = u32::from(valid) | polarity << 1 | y << 2 | x << 17;
        [data.to_le_bytes(), time_us.to_le_bytes()].concat()
    }

    fn aedat(packets: &[Vec<u8>]) -> Vec<u8> {
        [b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n".to_vec(), packets.concat()].concat()
    }

    fn run(bytes: &[u8]) -> Result<Vec<(u64, u32)>> {
        decode_aedat(bytes, Path::new("d.tar.gz"), "user01.aedat")
    }

    #[test]
    fn packets_are_decoded_and_gestures_are_cut_out() {
        let first = [event(true, 3, 2, 1, 100), event(false, 500, 2, 1, 1), event(true, 0, 1, 0, 250)].concat();
        let packets =
            [packet(1, 8, 0, 3, &first), packet(6, 5, 0, 2, &[0; 10]), packet(1, 8, 1, 1, &event(true, 9, 0, 0, 7))];
        let events = run(&aedat(&packets)).unwrap();
        assert_eq!(events, [(100, 3 + 256 + 16_384), (250, 128), ((1 << 31) + 7, 9)]);
        let (mut units, mut times) = (vec![1], vec![1.0]);
        let gesture = Gesture { class: Some(0), start_us: 100, end_us: 251 };
        cut(&events, &gesture, &mut units, &mut times);
        assert_eq!((units, times), (vec![3 + 256 + 16_384, 128], vec![0.0, 0.000_15]));
    }

    #[test]
    fn broken_recordings_are_refused() {
        let whole = event(true, 1, 1, 1, 9);
        for (bytes, want) in [
            (b"#!AER-DAT2.0\n#!END-HEADER\n".to_vec(), "user01.aedat: byte 0: no header"),
            (b"#!AER-DAT3.1\n#!END-HEAD".to_vec(), "no header"),
            (b"#!AER-DAT3.1\nbinary\n#!END-HEADER\n".to_vec(), "no header"),
            (aedat(&[vec![0; 27]]), "27 bytes left, expected a packet header of 28 bytes"),
            (aedat(&[packet(1, 8, 0, 2, &whole)]), "a packet of 2 events of 8 bytes, 8 bytes left"),
            (aedat(&[packet(1, 8, 0, i32::MAX, &whole)]), "a packet that lies in the file"),
            (aedat(&[packet(1, 8, 0, -1, &whole)]), "a packet of -1 events"),
            (aedat(&[packet(1, -8, 0, 1, &whole)]), "events of -8 bytes"),
            (aedat(&[packet(1, 8, -1, 1, &whole)]), "a packet that lies in the file"),
            (aedat(&[packet(1, 4, 0, 2, &whole)]), "polarity events of 4 bytes, expected 8 bytes"),
            (aedat(&[packet(1, 8, 0, 1, &event(true, 128, 0, 0, 1))]), "x 128, y 0, expected 0..=127"),
            (aedat(&[packet(1, 8, 0, 1, &event(true, 0, 0, 0, -1))]), "time -1"),
            (
                aedat(&[packet(1, 8, 0, 2, &[whole.clone(), event(true, 1, 1, 1, 8)].concat())]),
                "8 us after 9 us, expected times that do not decrease",
            ),
        ] {
            let got = run(&bytes).unwrap_err().to_string();
            assert!(got.contains(want), "{got} is not {want}");
        }
        // Packets without events of any size are no reason to stop, nor to go round in circles.
        assert_eq!(run(&aedat(&[packet(3, 0, 0, i32::MAX, &[]), packet(3, 9, 0, 0, &[])])).unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = run(&bytes);
            let _ = run(&aedat(std::slice::from_ref(&bytes)));
            let _ = parse_labels(&bytes, Path::new("d"), "a.csv");
            let _ = decode_table(&bytes, Path::new("d"), "a.npy", &mut Vec::new(), &mut Vec::new());
        }
    }
}
