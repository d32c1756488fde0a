//! The recording of a neuron as a model is fitted to it: for each stimulus the trials, for each trial the segments.
//!
//! A folder of recordings has the layout of the AllenSDK: `cells.json`, `ephys_features.csv`, and for every specimen a
//! folder `specimen_ID` with `ephys.nwb` and `ephys_sweeps.json`. Any of the tables may be missing.

use std::path::{Path, PathBuf};

use super::allen;
use super::detect::Detector;
use super::npz;
use super::nwb::{NwbFile, Sweep};
use super::slice::{self, NOISE_WINDOWS_S, Picks};
use crate::error::{Error, Result};

/// The most windows of a sweep.
const MOST_WINDOWS: usize = 1024;
/// The most bins of a window.
const MOST_BINS: f64 = 1e8;

/// Whether spike times are read or detected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpikeChoice {
    /// Those in the file where it has any for a sweep, detected ones otherwise.
    #[default]
    Either,
    /// Those in the file; a sweep without any is an error.
    Stored,
    /// Always detected.
    Detected,
}

/// Where the spikes of a trial come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpikesFrom {
    /// The file has them.
    File,
    /// The detector found them in the voltage.
    Detector,
}

/// What to read of a recording, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The stimuli that must be there, by name.
    pub stimuli: Vec<String>,
    /// The windows of each sweep, from and to, s.
    pub windows_s: Vec<[f64; 2]>,
    /// How much of the beginning of each window is kept, s; nothing for all.
    pub keep_s: Option<f64>,
    /// Samples per second that are picked, Hz.
    pub rate_hz: f64,
    /// The width of a spike bin, s.
    pub bin_s: f64,
    /// Whether spike times are read or detected.
    pub spikes: SpikeChoice,
    /// The detector.
    pub detector: Detector,
    /// Whether the voltage is kept too.
    pub voltage: bool,
}

impl Default for ReadOptions {
    /// `Noise 1` and `Noise 2`, three windows of 3 s, samples at 10 kHz, bins of 0.1 ms, stored spikes where there are any.
    fn default() -> Self {
        Self {
            stimuli: ["Noise 1", "Noise 2"].map(str::to_owned).to_vec(),
            windows_s: NOISE_WINDOWS_S.to_vec(),
            keep_s: None,
            rate_hz: 10_000.0,
            bin_s: 1e-4,
            spikes: SpikeChoice::Either,
            detector: Detector::default(),
            voltage: true,
        }
    }
}

impl ReadOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if !(self.bin_s > 0.0 && self.bin_s <= 3600.0) {
            return Err(Error::config("bin_s", self.bin_s.to_string(), "a positive number of seconds up to an hour"));
        }
        if self.keep_s.is_some_and(|keep| !(keep > 0.0 && keep <= 3600.0)) {
            let got = self.keep_s.unwrap_or_default().to_string();
            return Err(Error::config("keep_s", got, "a positive number of seconds up to an hour"));
        }
        if self.windows_s.is_empty() || self.windows_s.len() > MOST_WINDOWS {
            let got = format!("{} windows", self.windows_s.len());
            return Err(Error::config("windows_s", got, format!("1..={MOST_WINDOWS}")));
        }
        Ok(())
    }

    /// How many of `picked` samples are kept, and how many bins cover them.
    pub(crate) fn kept(&self, picked: usize) -> (usize, usize) {
        let kept = match self.keep_s {
            Some(keep) => picked.min((keep * self.rate_hz).round() as usize).max(1),
            None => picked,
        };
        let bins = (kept as f64 / self.rate_hz / self.bin_s).round().clamp(1.0, MOST_BINS);
        (kept, bins as usize)
    }
}

/// One neuron.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The file that the traces are from.
    pub file: PathBuf,
    /// The number of the specimen, where it is known.
    pub specimen: Option<u64>,
    /// What to print beside results if this is no recording of a real neuron.
    pub label: Option<String>,
    /// The resting potential, mV, where it is known.
    pub rest_mv: Option<f64>,
    /// The voltage at the threshold of spikes during long square currents, mV, where it is known.
    pub threshold_mv: Option<f64>,
    /// The kind of dendrite, `spiny` or `aspiny`, where it is known.
    pub dendrite: Option<String>,
    /// The transgenic line, where it is known.
    pub line: Option<String>,
    /// The time between samples, ms.
    pub step_ms: f64,
    /// The width of a spike bin, ms.
    pub bin_ms: f64,
    /// The stimuli in the order in which they were asked for.
    pub stimuli: Vec<Stimulus>,
}

/// All trials of one stimulus.
#[derive(Debug, Clone, PartialEq)]
pub struct Stimulus {
    /// For example `Noise 1`.
    pub name: String,
    /// The trials; all have segments of the same lengths.
    pub trials: Vec<Trial>,
}

/// One presentation of a stimulus.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The number of the sweep.
    pub sweep: u32,
    /// The rate that it was recorded at, Hz.
    pub rate_hz: f64,
    /// Where the spikes are from.
    pub spikes_from: SpikesFrom,
    /// The windows.
    pub segments: Vec<Segment>,
}

/// One window of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// When the window begins, seconds from the beginning of the sweep.
    pub start_s: f64,
    /// The injected current, pA, one entry per step.
    pub current_pa: Vec<f32>,
    /// The voltage, mV, as many entries; empty if it was not asked for.
    pub voltage_mv: Vec<f32>,
    /// All spikes of the window, seconds from its beginning.
    pub spike_times_s: Vec<f64>,
    /// The bins with a spike that lie in what is kept of the window, ascending.
    pub spikes: Vec<u32>,
}

impl Stimulus {
    /// The largest current of all trials, pA: inputs of models are often measured by it.
    #[must_use]
    pub fn peak_pa(&self) -> f32 {
        let currents = self.trials.iter().flat_map(|t| &t.segments).flat_map(|s| &s.current_pa);
        currents.copied().fold(f32::MIN, f32::max)
    }
}

impl Recording {
    /// One without stimuli.
    pub(crate) fn empty(file: &Path, options: &ReadOptions) -> Self {
        Self {
            file: file.to_owned(),
            specimen: None,
            label: None,
            rest_mv: None,
            threshold_mv: None,
            dendrite: None,
            line: None,
            step_ms: 1000.0 / options.rate_hz,
            bin_ms: 1000.0 * options.bin_s,
            stimuli: Vec::new(),
        }
    }

    /// Reads the file of one neuron: `.npz` arrays ([`npz::read`]) or NWB 1.x.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] naming the file and the path inside it, [`Error::Config`] if a setting is out of range or does
    /// not fit the recording.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
            return npz::read(path, options);
        }
        options.check()?;
        let file = NwbFile::open(path)?;
        let mut names = Vec::new();
        for &number in file.sweeps() {
            names.extend(file.stimulus_name(number)?.map(|name| (number, name)));
        }
        let stimuli = options.stimuli.iter().map(|name| read_stimulus(&file, &names, name, options));
        let stimuli = stimuli.collect::<Result<_>>()?;
        let specimen = file.number("/general/aibs_specimen_id").ok().flatten().map(|id| id as u64);
        let label = file.label().map(str::to_owned);
        Ok(Self { specimen, label, stimuli, ..Self::empty(path, options) })
    }

    /// Reads specimen `id` of a folder of recordings, with what its tables say of it.
    ///
    /// # Errors
    ///
    /// As [`Recording::open`]; [`Error::Config`] naming the specimens that are there if this one is not.
    pub fn open_specimen(folder: &Path, id: u64, options: &ReadOptions) -> Result<Self> {
        let path = allen::nwb_path(folder, id);
        if !path.is_file() {
            let there: Vec<String> = allen::specimens(folder).iter().take(20).map(u64::to_string).collect();
            let want = match there.len() {
                0 => format!(
                    "recordings; there are none in {}: `snn data download allen-cells --cells {id}` fetches one",
                    folder.display()
                ),
                _ => format!("one of those in {}: {}", folder.display(), there.join(", ")),
            };
            return Err(Error::config("specimen", id.to_string(), want));
        }
        let mut recording = Self::open(&path, options)?;
        recording.specimen = Some(id);
        if let Some(cell) = allen::read_cells(folder)?.into_iter().find(|cell| cell.id == id) {
            recording.dendrite = cell.dendrite;
            recording.line = cell.line;
        }
        if let Some(features) = allen::read_features(folder)?.into_iter().find(|f| f.id == id) {
            recording.rest_mv = features.rest_mv;
            recording.threshold_mv = features.threshold_mv;
        }
        Ok(recording)
    }

    /// The stimulus of this name, if it was asked for.
    #[must_use]
    pub fn stimulus(&self, name: &str) -> Option<&Stimulus> {
        self.stimuli.iter().find(|s| s.name == name)
    }
}

/// Reads the sweeps of one stimulus, of which `names` says the numbers. Sweeps of others are not looked at.
fn read_stimulus(file: &NwbFile, names: &[(u32, String)], name: &str, options: &ReadOptions) -> Result<Stimulus> {
    let mine = names.iter().filter(|(_, n)| n == name).map(|(number, _)| file.sweep(*number));
    let mine = mine.collect::<Result<Vec<Sweep>>>()?;
    if mine.is_empty() {
        let mut names: Vec<&str> = names.iter().map(|(_, n)| n.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let got = format!("no sweep of stimulus `{name}`");
        return Err(file.wrong("sweeps", got, format!("one of `{}`", names.join("`, `"))));
    }
    for sweep in &mine {
        file.need_current_clamp(sweep)?;
    }
    let end_s = options.windows_s.iter().fold(0.0, |end, w| w[1].max(end));
    let seconds = |s: &Sweep| s.range.end as f64 / s.rate_hz;
    let (long, short): (Vec<&Sweep>, Vec<&Sweep>) =
        mine.iter().partition(|s| (end_s * s.rate_hz) as usize <= s.range.end);
    if !short.is_empty() {
        let list = |sweeps: &[&Sweep]| {
            let one = |s: &&Sweep| format!("sweep {} of {:.4} s", s.number, seconds(s));
            sweeps.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let want = match long.len() {
            0 => format!("at least {end_s} s, the end of the last window"),
            _ => format!("at least {end_s} s, as has {}", list(&long)),
        };
        return Err(file.wrong(&format!("stimulus `{name}`"), list(&short), want));
    }
    let trials = mine.iter().map(|sweep| read_trial(file, sweep, options)).collect::<Result<_>>()?;
    Ok(Stimulus { name: name.to_owned(), trials })
}

fn read_trial(file: &NwbFile, sweep: &Sweep, options: &ReadOptions) -> Result<Trial> {
    let at = |e: Error| match e {
        Error::Config { what, got, want } => {
            file.wrong(&format!("Sweep_{}", sweep.number), format!("{what}: {got}"), want)
        }
        other => other,
    };
    let rate_hz = sweep.rate_hz;
    let windows = &options.windows_s;
    let picks = windows.iter().map(|&w| Picks::new(w, rate_hz, options.rate_hz)).collect::<Result<Vec<_>>>();
    let picks = picks.map_err(at)?;
    let stored = sweep.spike_times_s.as_deref().filter(|_| options.spikes != SpikeChoice::Detected);
    let (spikes_from, times) = match stored {
        Some(times) => {
            let inside = |&[start, end]: &[f64; 2]| -> Vec<f64> {
                times.iter().filter(|t| (start..=end).contains(*t)).map(|t| t - start).collect()
            };
            (SpikesFrom::File, windows.iter().map(inside).collect::<Vec<_>>())
        }
        None if options.spikes == SpikeChoice::Stored => {
            let place = format!("/analysis/spike_times/Sweep_{}", sweep.number);
            return Err(file.wrong(&place, "missing", "stored spike times"));
        }
        None => {
            let mut voltage = file.response(sweep, 0..sweep.range.end)?;
            voltage.iter_mut().for_each(|v| *v *= 1e3);
            let found = options.detector.detect(rate_hz, &voltage, windows).map_err(at)?;
            let since = |(spikes, window): (Vec<super::Spike>, &[f64; 2])| {
                spikes.iter().map(|s| s.threshold as f64 / rate_hz - window[0]).collect::<Vec<f64>>()
            };
            (SpikesFrom::Detector, found.into_iter().zip(windows).map(since).collect())
        }
    };
    let mut segments = Vec::new();
    for ((picks, window), spike_times_s) in picks.iter().zip(windows).zip(times) {
        let (kept, bins) = options.kept(picks.count());
        let range = picks.range.start..picks.range.end.min(picks.range.start + kept.saturating_mul(picks.every));
        let pick = |values: Vec<f64>, unit: f64| -> Vec<f32> {
            values.iter().step_by(picks.every).map(|x| (x * unit) as f32).collect()
        };
        let current_pa = pick(file.stimulus(sweep, range.clone())?, 1e12);
        let voltage_mv = if options.voltage { pick(file.response(sweep, range)?, 1e3) } else { Vec::new() };
        let spikes = slice::bins(&spike_times_s, options.bin_s, bins);
        segments.push(Segment { start_s: window[0], current_pa, voltage_mv, spike_times_s, spikes });
    }
    Ok(Trial { sweep: sweep.number, rate_hz, spikes_from, segments })
}
