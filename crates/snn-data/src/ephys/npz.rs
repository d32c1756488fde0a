//! Recordings from elsewhere, as plain arrays in one `.npz` file.
//!
//! | array | shape | what |
//! |---|---|---|
//! | `fs` | one number | samples per second, Hz |
//! | `i` | `[trials, samples]` or `[trials, segments, samples]` | the injected current, pA |
//! | `v` | as `i` | the voltage, mV; optional if there is `s` |
//! | `s` | as `i` but for the last axis | when the neuron fired; optional if there is `v`: spikes are then detected |
//!
//! `s` is a raster where it holds whole numbers (or has the shape of `i`): entries that are not 0 are spikes, and its last
//! axis covers the time from the beginning. It holds times in seconds where it has real numbers: a row ends with NaN.
//! A raster shorter than the current has bins of the width that the reader is told, a raster of as many or more entries
//! as the current spans all of it.
//!
//! The arrays `i`, `v`, `s` are the first stimulus that is asked for; those of the second are called `i_test`, `v_test`,
//! `s_test`.

use std::collections::BTreeMap;
use std::path::Path;

use super::recording::{ReadOptions, Recording, Segment, SpikeChoice, SpikesFrom, Stimulus, Trial};
use super::slice::{self, Picks};
use crate::archive::{Limits, Zip};
use crate::error::{Error, Result};
use crate::formats::npy::Array;

/// How much a file may unpack to.
const LIMITS: Limits = Limits { entry: 1 << 30, total: 2 << 30 };
/// What the names of the arrays of each stimulus end in.
const ENDINGS: [&str; 2] = ["", "_test"];

struct Numbers {
    shape: Vec<usize>,
    real: bool,
    values: Vec<f64>,
}

/// The arrays of a file, by name.
struct Arrays<'a> {
    path: &'a Path,
    arrays: BTreeMap<String, Numbers>,
}

impl Arrays<'_> {
    fn wrong(&self, place: &str, got: impl Into<String>, want: impl Into<String>) -> Error {
        Error::malformed(self.path, format!("array {place}"), got, want)
    }

    fn need(&self, name: &str) -> Result<&Numbers> {
        self.arrays.get(name).ok_or_else(|| {
            let there: Vec<&str> = self.arrays.keys().map(String::as_str).collect();
            self.wrong(name, "missing", format!("one of the arrays of the file: {}", there.join(", ")))
        })
    }
}

/// Reads a file; the windows of `options` do not apply, a segment is a row of `i`.
///
/// # Errors
///
/// [`Error::Malformed`] naming the array: it is missing, has another shape or type, or holds what is no number;
/// [`Error::Config`] if the rates do not fit.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Recording> {
    options.check()?;
    if options.stimuli.len() > ENDINGS.len() {
        let want = format!("at most {}, as an npz file has", ENDINGS.len());
        return Err(Error::config("stimuli", options.stimuli.len().to_string(), want));
    }
    let mut zip = Zip::open(path, LIMITS)?;
    let names: Vec<String> = ENDINGS.iter().flat_map(|e| ["i", "v", "s"].map(|n| format!("{n}{e}"))).collect();
    let mut arrays = BTreeMap::new();
    for (name, index) in zip.files().to_vec() {
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        if name == "fs" || names.contains(&name) {
            let bytes = zip.read(index)?;
            let array = Array::parse(&bytes, path, &name)?;
            let (shape, real) = (array.shape().to_vec(), array.is_float());
            arrays.insert(name, Numbers { shape, real, values: array.values() });
        }
    }
    let arrays = Arrays { path, arrays };
    let rate_hz = match arrays.need("fs")?.values[..] {
        [rate] if rate > 0.0 && rate.is_finite() => rate,
        _ => return Err(arrays.wrong("fs", "something else", "one positive number, the sampling rate in Hz")),
    };
    let mut stimuli = Vec::new();
    for (name, ending) in options.stimuli.iter().zip(ENDINGS) {
        stimuli.push(Stimulus { name: name.clone(), trials: trials(&arrays, ending, rate_hz, options)? });
    }
    Ok(Recording { stimuli, ..Recording::empty(path, options) })
}

fn trials(arrays: &Arrays<'_>, ending: &str, rate_hz: f64, options: &ReadOptions) -> Result<Vec<Trial>> {
    let [i_name, v_name, s_name] = ["i", "v", "s"].map(|n| format!("{n}{ending}"));
    let i = arrays.need(&i_name)?;
    let (rows, segments, samples) = match i.shape[..] {
        [rows, samples] => (rows, 1, samples),
        [rows, segments, samples] => (rows, segments, samples),
        _ => {
            let got = format!("shape {:?}", i.shape);
            return Err(arrays.wrong(&i_name, got, "two or three axes: trials, segments, samples"));
        }
    };
    if i.values.is_empty() {
        return Err(arrays.wrong(&i_name, format!("shape {:?}", i.shape), "axes that are not empty"));
    }
    let v = arrays.arrays.get(&v_name);
    let s = arrays.arrays.get(&s_name);
    if let Some(v) = v.filter(|v| v.shape != i.shape) {
        return Err(arrays.wrong(&v_name, format!("shape {:?}", v.shape), format!("{:?}, that of {i_name}", i.shape)));
    }
    let axes = i.shape.len();
    if let Some(s) = s.filter(|s| s.shape.len() != axes || s.shape[..axes - 1] != i.shape[..axes - 1]) {
        let want = format!("{:?} but for the last axis, as {i_name}", i.shape);
        return Err(arrays.wrong(&s_name, format!("shape {:?}", s.shape), want));
    }
    for (name, numbers) in [(&i_name, Some(i)), (&v_name, v)] {
        if let Some(at) = numbers.and_then(|n| n.values.iter().position(|x| !x.is_finite())) {
            return Err(arrays.wrong(name, format!("entry {at} is no number"), "finite values"));
        }
    }
    let from = match (options.spikes, s, v) {
        (SpikeChoice::Detected, _, Some(_)) => SpikesFrom::Detector,
        (SpikeChoice::Detected, _, None) => {
            return Err(arrays.wrong(&v_name, "missing", "a voltage, in which spikes are to be detected"));
        }
        (_, Some(_), _) => SpikesFrom::File,
        (SpikeChoice::Either, None, Some(_)) => SpikesFrom::Detector,
        (_, None, _) => return Err(arrays.wrong(&s_name, "missing", "spikes")),
    };
    let seconds = samples as f64 / rate_hz;
    let picks = Picks::new([0.0, seconds], rate_hz, options.rate_hz)?;
    let (kept, bins) = options.kept(picks.count());
    let pick = |row: &[f64]| row.iter().step_by(picks.every).take(kept).map(|&x| x as f32).collect::<Vec<f32>>();
    let mut trials = Vec::new();
    for trial in 0..rows {
        let mut parts = Vec::new();
        for segment in 0..segments {
            let row = trial * segments + segment;
            let voltage = v.map(|v| &v.values[row * samples..(row + 1) * samples]);
            let spike_times_s = match (from, s, voltage) {
                (SpikesFrom::Detector, _, Some(voltage)) => {
                    let found = options.detector.detect(rate_hz, voltage, &[[0.0, seconds]])?;
                    found.into_iter().flatten().map(|spike| spike.threshold as f64 / rate_hz).collect()
                }
                (_, Some(s), _) => {
                    let width = s.shape.last().copied().unwrap_or(0);
                    let row = &s.values[row * width..(row + 1) * width];
                    if s.real && width != samples {
                        times(row).map_err(|got| arrays.wrong(&s_name, got, "ascending times in seconds, then NaN"))?
                    } else {
                        let bin_s = if width >= samples { seconds / width as f64 } else { options.bin_s };
                        let fired = row.iter().enumerate().filter(|(_, x)| **x != 0.0);
                        // The middle of the bin, so that no rounding takes it to another.
                        fired.map(|(at, _)| (at as f64 + 0.5) * bin_s).collect()
                    }
                }
                _ => Vec::new(),
            };
            parts.push(Segment {
                start_s: 0.0,
                current_pa: pick(&i.values[row * samples..(row + 1) * samples]),
                voltage_mv: voltage.filter(|_| options.voltage).map(pick).unwrap_or_default(),
                spikes: slice::bins(&spike_times_s, options.bin_s, bins),
                spike_times_s,
            });
        }
        trials.push(Trial { sweep: trial as u32, rate_hz, spikes_from: from, segments: parts });
    }
    Ok(trials)
}

/// The times of a row, which ends with NaN.
fn times(row: &[f64]) -> Result<Vec<f64>, String> {
    let end = row.iter().position(|t| t.is_nan()).unwrap_or(row.len());
    if row[end..].iter().any(|t| !t.is_nan()) {
        return Err("a time after NaN".into());
    }
    let times = &row[..end];
    if let Some(wrong) = times.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
        return Err(format!("time {wrong}"));
    }
    match times.windows(2).find(|t| t[1] < t[0]) {
        Some(t) => Err(format!("{} s after {} s", t[1], t[0])),
        None => Ok(times.to_vec()),
    }
}
