//! From recordings to what cells are fitted to, and how well fitted cells explain recordings.

use serde::{Deserialize, Serialize};
use snn_core::{Backend, Lanes, Spikes};
use snn_data::ephys::{Recording, Segment, Stimulus};

use super::{FitConfig, FitSet, Fitted, GRID_MS, Simulated, fit};
use crate::error::{Error, Result};
use crate::metrics::{Explained, smooth};

/// The largest current of a cell's recordings of a stimulus, in the model's units.
const PEAK: f32 = 0.01;

/// Widths of the bells that spike trains are smoothed with, ms.
pub const SIGMAS_MS: [f64; 3] = [5.0, 10.0, 15.0];

/// Which repetitions of a stimulus cells are fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trials {
    /// The first, as published.
    First,
    /// As many as every cell has.
    All,
}

/// What currents are measured by: a hundred times the largest of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// That of the stimulus that cells are fitted to, for both stimuli.
    Fit,
    /// That of each stimulus, as published: where the two differ, a fitted cell is driven too much or too little.
    Each,
}

/// How well a fitted cell explains its recording, by the width of the smoothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Width of the bell, ms.
    pub sigma_ms: f64,
    /// What is explained.
    pub explained: Explained,
}

/// The recording of `stimulus` of a cell.
///
/// # Errors
///
/// [`Error::Config`] naming the file if there is none.
pub fn stimulus<'a>(cell: &'a Recording, stimulus: &str) -> Result<&'a Stimulus> {
    let found = cell.stimulus(stimulus).filter(|s| s.trials.first().is_some_and(|t| !t.segments.is_empty()));
    found.ok_or_else(|| {
        Error::config(cell.file.display().to_string(), format!("has no recording of the stimulus `{stimulus}`"))
    })
}

/// Puts the recordings of `name` of all cells side by side: every cell's currents are divided by a hundred times its peak
/// in the stimulus `scale`, and cut to `seconds` from the beginning of each window.
///
/// # Errors
///
/// [`Error::Config`] naming the file whose segments or rates differ from those of the first cell, or that do not fit the
/// configuration.
pub fn batch(
    config: &FitConfig,
    cells: &[Recording],
    (name, scale): (&str, &str),
    trials: Trials,
    seconds: f64,
) -> Result<FitSet> {
    let first = cells.first().ok_or_else(|| Error::config("cells", "at least one is needed"))?;
    let recorded: Vec<&Stimulus> = cells.iter().map(|c| stimulus(c, name)).collect::<Result<_>>()?;
    let repetitions = match trials {
        Trials::First => 1,
        Trials::All => recorded.iter().map(|s| s.trials.len()).min().unwrap_or(1),
    };
    let input_ms = config.input_ms();
    for cell in cells {
        for (what, got, want) in [("samples", cell.step_ms, input_ms), ("bins of spikes", cell.bin_ms, GRID_MS)] {
            if (got - want).abs() > 1e-9 {
                let file = cell.file.display();
                return Err(Error::config(format!("{file}: {what} of {got} ms"), format!("must be of {want} ms")));
            }
        }
    }
    let (samples, bins) = ((seconds * 1e3 / input_ms).round() as usize, (seconds * 1e3 / GRID_MS).round() as usize);
    let segments = recorded[0].trials[0].segments.len();
    let mut peaks = Vec::with_capacity(cells.len());
    for (cell, stimulus) in cells.iter().zip(&recorded) {
        let wrong = |got: String, want: String| {
            Err(Error::config(format!("{}: `{name}` has {got}", cell.file.display()), format!("must have {want}")))
        };
        for trial in &stimulus.trials[..repetitions] {
            if trial.segments.len() != segments {
                let want = format!("{segments} as in {}", first.file.display());
                return wrong(format!("{} segments in sweep {}", trial.segments.len(), trial.sweep), want);
            }
            if let Some(short) = trial.segments.iter().find(|s| s.current_pa.len() < samples) {
                let got = format!("a segment of {} samples in sweep {}", short.current_pa.len(), trial.sweep);
                return wrong(got, format!("{samples}, which is {seconds} s"));
            }
        }
        let peak = self::stimulus(cell, scale)?.peak_pa();
        if peak <= 0.0 {
            return wrong(format!("a largest current of {peak} pA"), "one above 0".into());
        }
        peaks.push(peak);
    }
    let lanes = Lanes::new(repetitions * segments, samples, cells.len());
    let mut current = vec![0.0; lanes.len()];
    let mut rows = vec![Vec::new(); lanes.batch * bins];
    for (n, stimulus) in recorded.iter().enumerate() {
        let scale = PEAK / peaks[n];
        let all = stimulus.trials[..repetitions].iter().flat_map(|t| &t.segments);
        for (b, segment) in all.enumerate() {
            for (t, x) in segment.current_pa[..samples].iter().enumerate() {
                current[(b * samples + t) * cells.len() + n] = x * scale;
            }
            for &bin in segment.spikes.iter().filter(|&&bin| (bin as usize) < bins) {
                rows[b * bins + bin as usize].push(n as u32);
            }
        }
    }
    Ok(FitSet { lanes, current, spikes: Spikes::from_rows(lanes.batch, bins, cells.len(), rows)? })
}

/// A train of `bins` bins.
fn train(spikes: impl Iterator<Item = usize>, bins: usize) -> Vec<f64> {
    let mut out = vec![0.0; bins];
    spikes.filter(|&t| t < bins).for_each(|t| out[t] = 1.0);
    out
}

/// How well the spikes of cell `n` of a simulation of `name` explain the repetitions of that stimulus: the model's answer
/// to the first is held against all.
///
/// # Errors
///
/// [`Error::Config`] naming the file if it has no such recording.
pub fn score(cell: &Recording, name: &str, simulated: &Simulated, n: usize, seconds: f64) -> Result<Vec<Score>> {
    let stimulus = stimulus(cell, name)?;
    let bins = (seconds * 1e3 / GRID_MS).round() as usize;
    let segments = stimulus.trials[0].segments.len();
    let recorded = |segment: &Segment| train(segment.spikes.iter().map(|&t| t as usize), bins);
    let scores = SIGMAS_MS.map(|sigma_ms| {
        let sigma = sigma_ms / GRID_MS;
        let trial =
            |segments: &[Segment]| -> Vec<f64> { segments.iter().flat_map(|s| smooth(&recorded(s), sigma)).collect() };
        let trials: Vec<Vec<f64>> = stimulus.trials.iter().map(|t| trial(&t.segments)).collect();
        let model: Vec<f64> =
            (0..segments).flat_map(|b| smooth(&train(simulated.spikes[b][n].iter().copied(), bins), sigma)).collect();
        Score { sigma_ms, explained: Explained::of(&trials, &model) }
    });
    Ok(scores.into())
}

/// What recorded cells are fitted to and judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protocol {
    /// The stimulus that cells are fitted to.
    pub fit: String,
    /// The stimulus that they are judged by.
    pub test: String,
    /// Which repetitions of the first they are fitted to.
    pub trials: Trials,
    /// How much of the beginning of each window is used, s.
    pub seconds: f64,
    /// What currents are measured by.
    pub scale: Scale,
}

impl Protocol {
    /// As published: the first repetition, and a scale of its own for each stimulus.
    #[must_use]
    pub fn published() -> Self {
        Self { trials: Trials::First, scale: Scale::Each, ..Self::default() }
    }
}

impl Default for Protocol {
    /// `Noise 1` and `Noise 2`, all repetitions, the first second of each window, one scale.
    fn default() -> Self {
        Self { fit: "Noise 1".into(), test: "Noise 2".into(), trials: Trials::All, seconds: 1.0, scale: Scale::Fit }
    }
}

/// Fitted cells, and what they make of both stimuli.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The cells.
    pub fitted: Fitted,
    /// Their answer to the stimulus that they were fitted to.
    pub on_fit: Simulated,
    /// Their answer to the other one.
    pub on_test: Simulated,
    /// How well each explains the other one, by the width of the smoothing.
    pub scores: Vec<Vec<Score>>,
}

/// Fits all cells in one batch and judges them; `seen` as in [`fit`].
///
/// # Errors
///
/// [`Error::Config`] for options and recordings that do not fit, and if the device fails.
pub fn fit_recorded<B: Backend>(
    device: &B,
    config: &FitConfig,
    protocol: &Protocol,
    cells: &[Recording],
    seen: impl FnMut(u32, &[f64]) -> bool,
) -> Result<Outcome> {
    let Protocol { fit: first, test, trials, seconds, scale } = protocol;
    config.check()?;
    let set = batch(config, cells, (first, first), *trials, *seconds)?;
    let scale = if *scale == Scale::Fit { first } else { test };
    let held_out = batch(config, cells, (test, scale), Trials::First, *seconds)?;
    let fitted = fit(device, config, &set, seen)?;
    let (on_fit, on_test) = (fitted.simulate(device, &set)?, fitted.simulate(device, &held_out)?);
    let scores = cells.iter().enumerate().map(|(n, cell)| score(cell, test, &on_test, n, *seconds));
    let scores = scores.collect::<Result<_>>()?;
    Ok(Outcome { fitted, on_fit, on_test, scores })
}
