//! Synthetic sessions: recordings in the published format of neurons whose parameters are known.
//!
//! A neuron is the adaptive leaky integrate-and-fire neuron of [`snn_core::neurons::alif`] at 10 kHz, with
//!
//! ```text
//! I[t] = gain i[t] + bias + noise sqrt(1 - beta^2) n[t]                                   (SESSION-1)
//! ```
//!
//! for an injected current `i` in pA and independent normal `n`, other in every sweep, so that the membrane fluctuates by
//! `noise` of the threshold. Thresholds begin at 1. Per neuron are drawn, evenly in these ranges:
//!
//! | parameter | range | |
//! |---|---|---|
//! | membrane time constant | 10 to 30 ms | `beta = exp(-0.1 ms / tau)` |
//! | adaptation time constant | 50 to 95 ms | `decay`; up to 95 ms it is below the published limit of 0.999 |
//! | adaptation strength | 0.05 to 0.2 | what a spike adds to the threshold |
//! | refractory period | 2 ms | 20 steps |
//! | rheobase | 40 to 150 pA | `gain = (1 - beta - bias) / rheobase` |
//! | bias | -0.1 to 0.1 of `1 - beta` | per step |
//! | resting potential, threshold | -76 to -66 mV, -48 to -40 mV | the scale of the voltage |
//!
//! and drawn again until the neuron, without noise, fires at 5 to 30 Hz during the first stimulus. An input that is
//! normalised to a peak of 0.01, as the published fits have it, then needs a weight of about 1 to 3.
//!
//! The stimuli are those of the Allen Cell Types Database: `Noise 1` and, from other seeds, `Noise 2`, each of three
//! segments of 3 s of pink noise (1 to 100 Hz, standard deviation 0.2 of the mean) that begin at 2, 10 and 18 s with
//! means of 0.75, 1 and 1.25 rheobases; and one `Long Square` of 1.5 rheobases. The neuron is at rest, without bias,
//! before each segment. The current is drawn at 10 kHz and held for five samples, so that picking gives it back exactly.
//!
//! The voltage is the membrane over its threshold, between resting potential and threshold, with a spike of fixed form
//! (0.4 ms up, 0.8 ms down) and noise of 0.03 mV, in steps of 1/32 mV. A spike in step `k` is stored 0.04 ms after the
//! step's beginning, inside bin `k` whatever is rounded, and the voltage rises from the next sample on.

use std::collections::BTreeMap;
use std::path::Path;

use rand_distr::{Distribution, StandardNormal};
use serde_json::{Value, json};
use snn_core::Surrogate;
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Constants, Limits, trace};
use snn_core::neurons::lif;
use snn_core::random::{Purpose, Stream};

use super::allen::{self, SWEEP_TABLE, TABLES};
use super::slice::NOISE_WINDOWS_S;
use crate::error::{Error, Result};
use crate::h5::File;
use crate::progress::Progress;
use crate::store::Temporary;

/// What `snn data generate` calls these sessions.
pub const NAME: &str = "allen-sim";
/// What readers are told to print beside results.
pub const LABEL: &str = "synthetic recording";

/// Steps of the model per second.
const STEP_HZ: f64 = 10_000.0;
/// Samples per second.
const RATE_HZ: f64 = 50_000.0;
/// Samples per step.
const HOLD: usize = 5;
/// Refractory period, steps.
const REFRACTORY: u32 = 20;
/// The length of a sweep of noise, and of the long square, s.
const NOISE_S: f64 = 21.2;
const SQUARE_S: f64 = 3.0;
/// When the long square begins and ends, s.
const SQUARE: [f64; 2] = [1.02, 2.02];
/// Where the valid samples begin.
const EXPERIMENT: usize = 37_500;
/// Samples of the rise and of the fall of a spike.
const RISE: usize = 20;
const FALL: usize = 40;
/// The peak of a spike, and how far below rest it falls, mV.
const PEAK_MV: f64 = 30.0;
const AFTER_MV: f64 = 5.0;
/// The most neurons, and the most sweeps of a stimulus.
const MOST_CELLS: usize = 10_000;
const MOST_SWEEPS: usize = 100;
/// Draws before a neuron that fires in the wanted range is given up.
const MOST_DRAWS: u32 = 1000;

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// Neurons; they are numbered from 1.
    pub cells: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Fluctuation of the membrane that differs from sweep to sweep, in thresholds.
    pub noise: f64,
    /// Sweeps of `Noise 1`.
    pub fit_sweeps: usize,
    /// Sweeps of `Noise 2`.
    pub test_sweeps: usize,
}

impl Default for SessionOptions {
    /// Four neurons with three and four sweeps, and a noise of 0.02.
    fn default() -> Self {
        Self { cells: 4, seed: 0, noise: 0.02, fit_sweeps: 3, test_sweeps: 4 }
    }
}

/// The parameters of a synthetic neuron.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Truth {
    /// Decay of the membrane per step of 0.1 ms.
    pub beta: f64,
    /// Decay of the adaptation per step.
    pub decay: f64,
    /// What a spike adds to the threshold.
    pub strength: f64,
    /// Refractory period, steps.
    pub refractory: u32,
    /// What 1 pA adds to the membrane in a step.
    pub gain: f64,
    /// What is added in every step.
    pub bias: f64,
    /// Fluctuation of the membrane, thresholds.
    pub noise: f64,
    /// The smallest constant current that fires, pA.
    pub rheobase_pa: f64,
    /// Resting potential, mV.
    pub rest_mv: f64,
    /// Threshold, mV.
    pub threshold_mv: f64,
}

/// What a neuron did in each step of one segment.
struct Response {
    /// The membrane over its threshold; 1 or more in a step with a spike.
    level: Vec<f64>,
    /// The steps with a spike.
    spikes: Vec<u32>,
}

impl Truth {
    fn fields(&self) -> [(&'static str, f64); 10] {
        [
            ("beta", self.beta),
            ("decay", self.decay),
            ("strength", self.strength),
            ("refractory", self.refractory.into()),
            ("gain", self.gain),
            ("bias", self.bias),
            ("noise", self.noise),
            ("rheobase_pa", self.rheobase_pa),
            ("rest_mv", self.rest_mv),
            ("threshold_mv", self.threshold_mv),
        ]
    }

    /// The parameters that [`allen::Cell::truth`] holds; nothing if any is missing.
    #[must_use]
    pub fn from_fields(fields: &BTreeMap<String, f64>) -> Option<Self> {
        let field = |name: &str| fields.get(name).copied();
        Some(Self {
            beta: field("beta")?,
            decay: field("decay")?,
            strength: field("strength")?,
            refractory: field("refractory")? as u32,
            gain: field("gain")?,
            bias: field("bias")?,
            noise: field("noise")?,
            rheobase_pa: field("rheobase_pa")?,
            rest_mv: field("rest_mv")?,
            threshold_mv: field("threshold_mv")?,
        })
    }

    fn draw(random: &mut Stream, noise: f64) -> Self {
        let mut within = |low: f64, high: f64| low + (high - low) * f64::from(random.unit());
        let (membrane_ms, adaptation_ms) = (within(10.0, 30.0), within(50.0, 95.0));
        let (beta, decay) = ((-0.1 / membrane_ms).exp(), (-0.1 / adaptation_ms).exp());
        let strength = within(0.05, 0.2);
        let (rheobase_pa, bias) = (within(40.0, 150.0), within(-0.1, 0.1) * (1.0 - beta));
        let gain = (1.0 - beta - bias) / rheobase_pa;
        let (rest_mv, threshold_mv) = (within(-76.0, -66.0).round(), within(-48.0, -40.0).round());
        Self { beta, decay, strength, refractory: REFRACTORY, gain, bias, noise, rheobase_pa, rest_mv, threshold_mv }
    }

    /// The steps in which the neuron fires in answer to `current_pa`, one entry per step of 0.1 ms, from rest and without
    /// noise.
    #[must_use]
    pub fn spikes(&self, current_pa: &[f32]) -> Vec<u32> {
        self.respond(current_pa, None).spikes
    }

    fn respond(&self, current_pa: &[f32], mut random: Option<&mut Stream>) -> Response {
        let neuron = AlifNeuron {
            surrogate: Surrogate::MULTI_GAUSSIAN,
            refractory: self.refractory,
            adapts: true,
            recurrent: false,
            gradient: AlifGradient::Steps { spikes: lif::Path::Detached, adaptation: lif::Path::Detached },
            limits: Limits::PUBLISHED,
        };
        let scale = self.noise * (1.0 - self.beta * self.beta).sqrt();
        let drive = |&pa: &f32| {
            let noise: f64 = random.as_deref_mut().map_or(0.0, |r| StandardNormal.sample(r));
            self.gain * f64::from(pa) + self.bias + scale * noise
        };
        let drive: Vec<f64> = current_pa.iter().map(drive).collect();
        let (beta, decay, strength) = ([self.beta], [self.decay], [self.strength]);
        let constants = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &[] };
        let run = trace(&neuron, &constants, &drive);
        let spikes = (0..).zip(&run.spikes).filter(|(_, s)| **s > 0.0).map(|(k, _)| k).collect();
        let level = run.state.iter().zip(&run.threshold).map(|(v, theta)| v / theta).collect();
        Response { level, spikes }
    }
}

/// A current as files hold it.
fn amperes(pa: f64) -> f32 {
    (pa * 1e-12) as f32
}

/// Three seconds of pink noise of mean 0 and standard deviation 1, 1 to 100 Hz, at 10 kHz.
fn pink(random: &mut Stream) -> Vec<f64> {
    let steps = 30_000;
    let mut sum = vec![0.0; steps];
    for wave in 3..=300_u32 {
        // Power falls with the inverse of the frequency; the lines are a third of a hertz apart.
        let amplitude = 1.0 / f64::from(wave).sqrt();
        let phase = std::f64::consts::TAU * f64::from(random.unit());
        let (turn_im, turn_re) = (std::f64::consts::TAU * f64::from(wave) / steps as f64).sin_cos();
        let (im, re) = phase.sin_cos();
        let (mut re, mut im) = (amplitude * re, amplitude * im);
        for value in &mut sum {
            *value += re;
            (re, im) = (re * turn_re - im * turn_im, re * turn_im + im * turn_re);
        }
    }
    let mean = sum.iter().sum::<f64>() / steps as f64;
    let deviation = (sum.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / steps as f64).sqrt();
    sum.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
    sum
}

/// What is injected during a segment, at 10 kHz.
struct Part {
    start_s: f64,
    amperes: Vec<f32>,
}

impl Part {
    /// The current as readers of the file give it.
    fn current_pa(&self) -> Vec<f32> {
        self.amperes.iter().map(|&a| (f64::from(a) * 1e12) as f32).collect()
    }
}

/// A kind of sweep.
struct Protocol {
    name: &'static str,
    seconds: f64,
    parts: Vec<Part>,
}

impl Protocol {
    /// Noise in steps of a quarter of a pA, so that files pack well.
    fn noise(name: &'static str, rheobase_pa: f64, random: &mut Stream) -> Self {
        let part = |([start_s, _], level): ([f64; 2], f64)| {
            let mean = level * rheobase_pa;
            let current = |x: f64| amperes((mean * (1.0 + 0.2 * x) * 4.0).round() / 4.0);
            Part { start_s, amperes: pink(random).into_iter().map(current).collect() }
        };
        Self { name, seconds: NOISE_S, parts: NOISE_WINDOWS_S.into_iter().zip([0.75, 1.0, 1.25]).map(part).collect() }
    }

    fn square(rheobase_pa: f64) -> Self {
        let steps = ((SQUARE[1] - SQUARE[0]) * STEP_HZ).round() as usize;
        let amperes = vec![amperes((rheobase_pa * 1.5).round()); steps];
        Self { name: "Long Square", seconds: SQUARE_S, parts: vec![Part { start_s: SQUARE[0], amperes }] }
    }

    fn peak_pa(&self) -> f32 {
        self.parts.iter().flat_map(Part::current_pa).fold(0.0, f32::max)
    }
}

/// One sweep as it is written.
struct Written {
    number: u32,
    name: &'static str,
    spikes: usize,
}

/// Writes recordings of new neurons into `folder`, in the layout of the AllenSDK; gives their numbers.
///
/// Everything is a function of the options; recordings of another session in the folder are replaced.
///
/// # Errors
///
/// [`Error::Config`] if an option is out of range or the folder holds cells that are not synthetic; [`Error::Io`] if
/// it cannot be written.
pub fn write(folder: &Path, options: &SessionOptions, progress: &mut dyn Progress) -> Result<Vec<u64>> {
    let range = |what: &str, got: usize, most: usize| match (1..=most).contains(&got) {
        true => Ok(()),
        false => Err(Error::config(what, got.to_string(), format!("1..={most}"))),
    };
    range("cells", options.cells, MOST_CELLS)?;
    range("fit_sweeps", options.fit_sweeps, MOST_SWEEPS)?;
    range("test_sweeps", options.test_sweeps, MOST_SWEEPS)?;
    if !(0.0..=1.0).contains(&options.noise) {
        return Err(Error::config("noise", options.noise.to_string(), "0 to 1, in thresholds"));
    }
    if let Some(real) = allen::read_cells(folder)?.into_iter().find(|c| c.label.is_none()) {
        let got = format!("{}, which has specimen {} of a real neuron", folder.display(), real.id);
        return Err(Error::config("folder", got, "a folder without real recordings"));
    }
    let (mut cells, mut features, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    progress.start(NAME, Some(options.cells as u64));
    for cell in 0..options.cells as u32 {
        let id = u64::from(cell) + 1;
        let (truth, protocols) = draw(cell, options)?;
        let path = allen::nwb_path(folder, id);
        let temporary = Temporary::beside(&path)?;
        let sweeps = write_file(&temporary.path, id, &truth, &protocols, (cell, options))?;
        temporary.keep(&path)?;
        let row = |s: &Written| {
            let seconds = if s.name == "Long Square" { SQUARE_S } else { NOISE_S };
            json!({
                "sweep_number": s.number, "stimulus_name": s.name, "num_spikes": s.spikes, "specimen_id": id,
                "stimulus_start_time": 0.0, "stimulus_duration": seconds,
            })
        };
        let rows: Vec<Value> = sweeps.iter().map(row).collect();
        allen::write_rows(&allen::specimen_folder(folder, id).join(SWEEP_TABLE), &rows)?;
        let parameters: serde_json::Map<String, Value> =
            truth.fields().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        cells.push(json!({
            "specimen__id": id, "specimen__name": format!("{LABEL} {id}"), "donor__species": "Mus musculus",
            "donor__disease_state": "", "structure__layer": "4",
            "tag__dendrite_type": if cell % 2 == 0 { "spiny" } else { "aspiny" }, "line_name": "",
            "synthetic": LABEL, "true_parameters": parameters,
        }));
        features.push(json!({
            "specimen_id": id, "vrest": truth.rest_mv, "threshold_v_long_square": truth.threshold_mv,
        }));
        ids.push(id);
        progress.advance(1);
    }
    allen::write_rows(&folder.join(TABLES[0]), &cells)?;
    allen::write_csv(&folder.join(TABLES[1]), &features)?;
    progress.finish();
    Ok(ids)
}

/// Draws a neuron that fires as often as a real one, and its stimuli.
fn draw(cell: u32, options: &SessionOptions) -> Result<(Truth, [Protocol; 3])> {
    let stream = |use_of: u32| Stream::new(options.seed, Purpose::Synthesis, [cell, use_of]);
    for draw in 0..MOST_DRAWS {
        let truth = Truth::draw(&mut stream(1000 + draw), options.noise);
        let [first, second] =
            [("Noise 1", 0), ("Noise 2", 1)].map(|(name, s)| Protocol::noise(name, truth.rheobase_pa, &mut stream(s)));
        let counts: Vec<usize> = first.parts.iter().map(|part| truth.spikes(&part.current_pa()).len()).collect();
        let hertz = counts.iter().sum::<usize>() as f64 / 9.0;
        if (5.0..=30.0).contains(&hertz) {
            return Ok((truth, [Protocol::square(truth.rheobase_pa), first, second]));
        }
    }
    let got = format!("no neuron {cell} that fires in {MOST_DRAWS} draws");
    Err(Error::config("seed", got, "another seed"))
}

/// Writes one neuron; gives what was written.
fn write_file(
    path: &Path,
    id: u64,
    truth: &Truth,
    [square, first, second]: &[Protocol; 3],
    (cell, options): (u32, &SessionOptions),
) -> Result<Vec<Written>> {
    let file = File::create(path)?;
    file.write_string("/nwb_version", "NWB-1.0.5_beta")?;
    file.write_string("/identifier", &format!("{NAME} {id}, seed {}", options.seed))?;
    file.write_string("/session_start_time", "none: computed")?;
    file.write_strings("/file_create_date", &["none: computed".to_owned()])?;
    file.write_string("/session_description", &format!("{LABEL}: a computed neuron in the format of recordings"))?;
    let generated = ["pipeline", "snn-data", "version", "1.0", "synthetic", LABEL].map(str::to_owned);
    file.write_strings("/general/generated_by", &generated)?;
    file.write_number("/general/aibs_specimen_id", id as i64)?;
    file.write_string("/general/subject/species", "none: computed")?;
    for (name, value) in truth.fields() {
        file.write_number(&format!("/general/simulated_neuron/{name}"), value)?;
    }
    for folder in ["/acquisition", "/acquisition/timeseries", "/stimulus", "/stimulus/presentation", "/epochs"] {
        file.group(folder)?;
    }
    file.group("/analysis")?;
    file.group("/analysis/spike_times")?;
    file.set_scalar("/analysis/spike_times", "neurodata_type", "Custom")?;

    // Numbers with gaps, the two noises by turns.
    let mut sweeps = vec![(5, square)];
    sweeps.extend((0..options.fit_sweeps as u32).map(|k| (10 + 3 * k, first)));
    sweeps.extend((0..options.test_sweeps as u32).map(|k| (11 + 3 * k, second)));
    sweeps.sort_by_key(|s| s.0);
    let mut written = Vec::new();
    let mut clock_s = 10.0;
    for (number, protocol) in sweeps {
        let mut random = Stream::new(options.seed, Purpose::Noise, [cell, number]);
        let sweep = Sweep::record(protocol, truth, &mut random);
        sweep.write(&file, number, protocol, clock_s)?;
        clock_s += protocol.seconds + 8.0;
        written.push(Written { number, name: protocol.name, spikes: sweep.times.len() });
    }
    file.close()?;
    Ok(written)
}

/// The traces of one sweep, at 50 kHz.
struct Sweep {
    amperes: Vec<f32>,
    volts: Vec<f32>,
    times: Vec<f64>,
}

impl Sweep {
    fn record(protocol: &Protocol, truth: &Truth, random: &mut Stream) -> Self {
        let samples = (protocol.seconds * RATE_HZ) as usize + 11;
        let mut injected = vec![0.0_f32; samples];
        let mut level = vec![0.0_f64; samples];
        let mut onsets = Vec::new();
        // A test pulse, which the valid samples leave out.
        injected[2500..5000].fill(amperes(-10.0));
        for part in &protocol.parts {
            let start = (part.start_s * RATE_HZ).round() as usize;
            let Response { level: levels, spikes } = truth.respond(&part.current_pa(), Some(&mut *random));
            for (step, &current) in part.amperes.iter().enumerate() {
                let at = start + step * HOLD;
                injected[at..at + HOLD].fill(current);
                // Straight lines between the steps, and none down from a spike.
                let here = levels[step].min(1.0);
                let next = levels.get(step + 1).copied().unwrap_or(here).min(1.0);
                let next = if levels[step] > 1.0 { here } else { next };
                for k in 0..HOLD {
                    level[at + k] = here + (next - here) * k as f64 / HOLD as f64;
                }
            }
            onsets.extend(spikes.into_iter().map(|step| start + step as usize * HOLD + 3));
        }
        let mut mv: Vec<f64> = level.iter().map(|x| truth.rest_mv + (truth.threshold_mv - truth.rest_mv) * x).collect();
        for (i, &onset) in onsets.iter().enumerate() {
            let from = mv[onset];
            let rise = |k: usize| (1.0 - (std::f64::consts::PI * k as f64 / RISE as f64).cos()) / 2.0;
            let fall = |k: usize| (1.0 + (std::f64::consts::PI * k as f64 / FALL as f64).cos()) / 2.0;
            let low = truth.rest_mv - AFTER_MV;
            let end = onsets.get(i + 1).copied().unwrap_or(samples).min(onset + 1000).min(samples);
            for (k, mv) in mv[onset..end].iter_mut().enumerate() {
                *mv = match k {
                    _ if k < RISE => from + (PEAK_MV - from) * rise(k),
                    _ if k < RISE + FALL => low + (PEAK_MV - low) * fall(k - RISE),
                    // Back to where the membrane is within milliseconds.
                    _ => *mv - AFTER_MV * (-((k - RISE - FALL) as f64) / (0.003 * RATE_HZ)).exp(),
                };
            }
        }
        let volts = mv.into_iter().map(|mv| {
            let noise: f64 = StandardNormal.sample(random);
            (((mv + 0.03 * noise) * 32.0).round() / 32.0 * 1e-3) as f32
        });
        let volts = volts.collect();
        let times = onsets.iter().map(|&onset| (onset - 1) as f64 / RATE_HZ).collect();
        Self { amperes: injected, volts, times }
    }

    fn write(&self, file: &File, number: u32, protocol: &Protocol, clock_s: f64) -> Result<()> {
        let samples = self.amperes.len();
        let places =
            [format!("/stimulus/presentation/Sweep_{number}"), format!("/acquisition/timeseries/Sweep_{number}")];
        let kinds = ["CurrentClampStimulusSeries", "CurrentClampSeries"];
        for (i, place) in places.iter().enumerate() {
            file.group(place)?;
            let ancestry = ["TimeSeries", "PatchClampSeries", kinds[i]].map(str::to_owned);
            file.set_attribute(place, "ancestry", &ancestry)?;
            file.set_scalar(place, "neurodata_type", "TimeSeries")?;
            file.set_scalar(place, "source", "computed")?;
            let data = format!("{place}/data");
            file.write_packed(&data, if i == 0 { &self.amperes } else { &self.volts }, 16_384)?;
            file.set_number(&data, "conversion", 1.0_f64)?;
            file.set_number(&data, "resolution", f64::NAN)?;
            file.set_scalar(&data, "unit", if i == 0 { "Amps" } else { "Volts" })?;
            let clock = format!("{place}/starting_time");
            file.write_number(&clock, clock_s)?;
            file.set_number(&clock, "rate", RATE_HZ)?;
            file.set_scalar(&clock, "unit", "Seconds")?;
            file.write_number(&format!("{place}/num_samples"), samples as i64)?;
            file.write_string(&format!("{place}/aibs_stimulus_name"), protocol.name)?;
            file.write_number(&format!("{place}/aibs_stimulus_amplitude_pa"), f64::from(protocol.peak_pa()))?;
        }
        let last = samples - 111;
        for (name, start, end) in [("Sweep", 0, samples), ("TestPulse", 0, 7500), ("Experiment", EXPERIMENT, last)] {
            let epoch = format!("/epochs/{name}_{number}");
            file.group(&epoch)?;
            file.write_number(&format!("{epoch}/start_time"), clock_s + start as f64 / RATE_HZ)?;
            file.write_number(&format!("{epoch}/stop_time"), clock_s + end as f64 / RATE_HZ)?;
            file.write_string(&format!("{epoch}/description"), &format!("{name} {number}"))?;
            for (side, target) in ["stimulus", "response"].into_iter().zip(&places) {
                let side = format!("{epoch}/{side}");
                file.group(&side)?;
                file.write_number(&format!("{side}/idx_start"), start as i64)?;
                file.write_number(&format!("{side}/count"), (end - start) as i64)?;
                file.link(target, &format!("{side}/timeseries"))?;
            }
        }
        file.write(&format!("/analysis/spike_times/Sweep_{number}"), &self.times)
    }
}
