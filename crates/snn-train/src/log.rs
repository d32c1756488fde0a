//! Logs of a run: JSON lines for programs, TensorBoard event files for eyes.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// A file of JSON objects, one per line.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl JsonLines {
    /// Opens `path` and keeps its first `keep` bytes: what a resumed run had logged at its checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        let open = || {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            let bytes = keep.min(file.metadata()?.len());
            file.set_len(bytes)?;
            file.seek(SeekFrom::Start(bytes))?;
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Appends one object.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line =
            serde_json::to_vec(record).map_err(|e| Error::config(self.path.display().to_string(), e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io(&self.path))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A TensorBoard event file of scalars.
///
/// Records are framed as TFRecords: length, masked CRC-32C of the length, payload, masked CRC-32C of the payload; the
/// payload is a protobuf `Event` with the fields that scalars need.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Starts `events.out.tfevents.<seconds>.<run>` in `directory`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn create(directory: &Path, unix_seconds: f64) -> Result<Self> {
        let path = directory.join(format!("events.out.tfevents.{}.snn", unix_seconds as u64));
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut board = Self { path, file };
        let mut version = Vec::new();
        double(&mut version, 1, unix_seconds);
        bytes(&mut version, 3, b"brain.Event:2");
        board.record(&version)?;
        Ok(board)
    }

    /// Writes scalars of one step.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn scalars(&mut self, unix_seconds: f64, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        double(&mut event, 1, unix_seconds);
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, payload: &[u8]) -> Result<()> {
        self.file.write_all(&frame(payload)).map_err(Error::io(&self.path))
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(payload);
    out.extend(masked(crc32c(payload)).to_le_bytes());
    out
}

/// CRC-32 with the Castagnoli polynomial, bit by bit: a log line is short.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0x82F6_3B78 } else { c >> 1 })
    })
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C and the test vectors of RFC 3720.
    #[test]
    fn crc32c_gives_known_answers() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
    }

    #[test]
    fn event_file_can_be_walked() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(dir.path(), 12.0).unwrap();
        board.scalars(13.0, 300, &[("loss", 0.5), ("accuracy", 0.25)]).unwrap();
        let file = std::fs::read(&board.path).unwrap();
        let (mut at, mut payloads) = (0, Vec::new());
        while at < file.len() {
            let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
            payloads.push(&file[at + 12..at + 12 + length]);
            assert_eq!(file[at..at + 16 + length], frame(&file[at + 12..at + 12 + length]));
            at += 16 + length;
        }
        assert_eq!(payloads.len(), 2);
        assert!(payloads[1].windows(8).any(|w| w == b"accuracy"));
        assert_eq!(payloads[1][9..12], [0x10, 0xAC, 0x02], "step 300 as a varint");
    }

    #[test]
    fn reopened_log_drops_what_came_after_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = JsonLines::open(&path, 0).unwrap();
        log.write(&1).unwrap();
        let kept = log.bytes();
        log.write(&2).unwrap();
        JsonLines::open(&path, kept).unwrap().write(&3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n3\n");
    }
}
