//! NWB 1.x: intracellular recordings in HDF5, as the Allen Cell Types Database publishes them.
//!
//! | path | what |
//! |---|---|
//! | `/acquisition/timeseries/Sweep_N` | the response: of a current clamp the voltage |
//! | `/stimulus/presentation/Sweep_N` | what was injected: of a current clamp the current |
//! | `.../data`, attributes `conversion`, `unit` | the samples |
//! | `.../starting_time`, attribute `rate` | when the sweep began on the clock of the session (s); samples per second (Hz) |
//! | `.../aibs_stimulus_name` | the protocol, for example `Noise 1` |
//! | `/epochs/Experiment_N/stimulus/{idx_start, count}` | the samples that are valid, without the test pulse before them |
//! | `/epochs/Sweep_N/{stimulus, response}/timeseries` | links to the two groups above |
//! | `/analysis/spike_times/Sweep_N` | spike times in seconds from the sweep's beginning; `aibs_spike_times` in older files |
//! | `/general/generated_by` | names and values by turns, among them the `version` of the pipeline |
//!
//! **Units.** Early files hold SI values with a wrong factor beside them: the attribute `conversion` is applied only if
//! the pipeline's version is 1.1 or later. The values of current clamps must be plausible after that: below 0.2 V and
//! 10 nA.
//!
//! Strings may be of fixed or variable length, in ASCII or UTF-8. Files are read as if they were hostile; the rest is
//! the C library's, see the page on data sets.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::h5::File;

/// The most members of a group that is listed.
const MOST_MEMBERS: usize = 1 << 16;
/// The most samples of a sweep: five minutes at 200 kHz.
const MOST_SAMPLES: usize = 60_000_000;
/// The most stored spike times of a sweep.
const MOST_SPIKES: usize = 1 << 20;
/// What no membrane reaches, V.
const MOST_VOLTS: f64 = 0.2;
/// What no electrode of these set-ups injects, A.
const MOST_AMPERES: f64 = 1e-8;

/// What the amplifier controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// The current was injected, the voltage recorded.
    Current,
    /// The voltage was held, the current recorded.
    Voltage,
}

/// What is known of a sweep besides its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// The number in `Sweep_N`; there are gaps where sweeps failed quality control.
    pub number: u32,
    /// What the amplifier controlled.
    pub clamp: Clamp,
    /// The protocol, for example `Noise 1` or `Long Square`.
    pub stimulus: String,
    /// Samples per second, Hz.
    pub rate_hz: f64,
    /// When the sweep began on the clock of the session, s.
    pub start_s: f64,
    /// Samples of stimulus and response.
    pub samples: usize,
    /// The samples that are valid.
    pub range: Range<usize>,
    /// Spike times in seconds from the beginning of the sweep, ascending, if the file has any for it.
    pub spike_times_s: Option<Vec<f64>>,
    /// What stored values were multiplied by to be in SI units: of the stimulus, of the response.
    pub factors: [f64; 2],
}

/// One of the two traces of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Stimulus,
    Response,
}

/// An open NWB file.
#[derive(Debug)]
pub struct NwbFile {
    file: File,
    path: PathBuf,
    format: Option<String>,
    pipeline: Option<String>,
    label: Option<String>,
    sweeps: Vec<u32>,
}

impl NwbFile {
    /// Opens a file and lists its sweeps.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is no complete HDF5 file, or has no sweep.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open_foreign(path)?;
        let mut sweeps = Vec::new();
        let place = ["/epochs", "/acquisition/timeseries"].into_iter().find(|place| file.has(place));
        let place = place.ok_or_else(|| file.wrong("/epochs", "missing", "the sweeps of an NWB 1.x file"))?;
        for name in file.members(place, MOST_MEMBERS)? {
            sweeps.extend(name.strip_prefix("Sweep_").and_then(|n| n.parse::<u32>().ok()));
        }
        if sweeps.is_empty() {
            return Err(file.wrong(place, "no member Sweep_0, Sweep_1, ...", "the sweeps of an NWB 1.x file"));
        }
        sweeps.sort_unstable();
        sweeps.dedup();
        let format = match file.has("/nwb_version") {
            true => file.texts("/nwb_version", 1)?.into_iter().next(),
            false => None,
        };
        let mut generated = Vec::new();
        if file.has("/general/generated_by") {
            generated = file.texts("/general/generated_by", MOST_MEMBERS)?;
        }
        let value = |key: &str| generated.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1].clone());
        let (pipeline, label) = (value("version"), value("synthetic"));
        Ok(Self { file, path: path.to_owned(), format, pipeline, label, sweeps })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format, for example `NWB-1.0.5_beta`, if the file says.
    #[must_use]
    pub fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    /// The version of the pipeline that wrote the file, if it says.
    #[must_use]
    pub fn pipeline_version(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }

    /// What to print beside results if this is no recording of a real neuron.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The numbers of all sweeps, ascending.
    #[must_use]
    pub fn sweeps(&self) -> &[u32] {
        &self.sweeps
    }

    /// An [`Error::Malformed`] at `place` of this file.
    pub(crate) fn wrong(&self, place: &str, got: impl Into<String>, want: impl Into<String>) -> Error {
        self.file.wrong(place, got, want)
    }

    /// A number that belongs to the file as a whole: a dataset of one entry.
    pub(crate) fn number(&self, place: &str) -> Result<Option<f64>> {
        if !self.file.has(place) {
            return Ok(None);
        }
        let (_, values) = self.file.array(place, 1)?;
        Ok(values.first().copied())
    }

    /// What is known of sweep `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] naming the path inside the file: the sweep is not there, something it needs is missing or of
    /// another type, stimulus and response differ in length or rate, the rate is not positive, the valid range lies
    /// outside the samples, or spike times are not ascending.
    pub fn sweep(&self, number: u32) -> Result<Sweep> {
        let [stimulus, response] = [Side::Stimulus, Side::Response].map(|side| self.group(number, side));
        let (stimulus, response) = (stimulus?, response?);
        let unit_place = format!("{stimulus}/data");
        let unit = self.file.text_of(&unit_place, "unit")?;
        let clamp = match unit.as_deref().and_then(|u| u.trim().chars().next()) {
            Some('A' | 'a') => Clamp::Current,
            Some('V' | 'v') => Clamp::Voltage,
            _ => {
                let got = unit.map_or("no attribute unit".into(), |u| format!("unit {u:?}"));
                return Err(self.file.wrong(&unit_place, got, "amperes or volts"));
            }
        };
        let samples = self.len(&stimulus)?;
        let recorded = self.len(&response)?;
        if samples != recorded {
            let want = format!("{samples}, as many as {stimulus}/data");
            return Err(self.file.wrong(&format!("{response}/data"), format!("{recorded} samples"), want));
        }
        let clock = format!("{stimulus}/starting_time");
        let rate_hz = self.rate(&stimulus)?;
        let other = self.rate(&response)?;
        if rate_hz != other {
            let got = format!("a rate of {other} Hz");
            return Err(self.file.wrong(
                &format!("{response}/starting_time"),
                got,
                format!("{rate_hz} Hz, as {clock}"),
            ));
        }
        let start = self.number(&clock)?.filter(|s| s.is_finite());
        let start_s = start.ok_or_else(|| self.file.wrong(&clock, "no number", "a time in seconds"))?;
        let Some(name) = self.stimulus_name(number)? else {
            let place = format!("{response}/aibs_stimulus_name");
            return Err(self.file.wrong(&place, "missing", "the name of the stimulus"));
        };
        let factors = [self.factor(&stimulus)?, self.factor(&response)?];
        Ok(Sweep {
            number,
            clamp,
            stimulus: name,
            rate_hz,
            start_s,
            samples,
            range: self.range(number, samples)?,
            spike_times_s: self.spike_times(number)?,
            factors,
        })
    }

    /// The stimulus of sweep `number`, if the file names it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if there is no such sweep or the name is no text.
    pub fn stimulus_name(&self, number: u32) -> Result<Option<String>> {
        for side in [Side::Response, Side::Stimulus] {
            let place = format!("{}/aibs_stimulus_name", self.group(number, side)?);
            if self.file.has(&place) {
                return Ok(self.file.texts(&place, 1)?.first().map(|name| name.trim().to_owned()));
            }
        }
        Ok(None)
    }

    /// Samples `range` of what was injected: A of a current clamp, V of a voltage clamp.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the range is not inside the sweep, or the values of a current clamp are not plausible.
    pub fn stimulus(&self, sweep: &Sweep, range: Range<usize>) -> Result<Vec<f64>> {
        self.samples(sweep, Side::Stimulus, range)
    }

    /// Samples `range` of what was recorded: V of a current clamp, A of a voltage clamp.
    ///
    /// # Errors
    ///
    /// As [`NwbFile::stimulus`].
    pub fn response(&self, sweep: &Sweep, range: Range<usize>) -> Result<Vec<f64>> {
        self.samples(sweep, Side::Response, range)
    }

    /// Refuses sweeps of a voltage clamp.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] naming the sweep.
    pub fn need_current_clamp(&self, sweep: &Sweep) -> Result<()> {
        match sweep.clamp {
            Clamp::Current => Ok(()),
            Clamp::Voltage => {
                let place = format!("Sweep_{}", sweep.number);
                Err(self.wrong(&place, "a voltage clamp", "a current clamp"))
            }
        }
    }

    /// The group of one of the traces.
    fn group(&self, number: u32, side: Side) -> Result<String> {
        let (direct, linked) = match side {
            Side::Stimulus => ("/stimulus/presentation", "stimulus"),
            Side::Response => ("/acquisition/timeseries", "response"),
        };
        let direct = format!("{direct}/Sweep_{number}");
        if self.file.has(&direct) {
            return Ok(direct);
        }
        let linked = format!("/epochs/Sweep_{number}/{linked}/timeseries");
        if self.file.has(&linked) {
            return Ok(linked);
        }
        let there: Vec<String> = self.sweeps.iter().take(40).map(u32::to_string).collect();
        let more = if self.sweeps.len() > there.len() { ", ..." } else { "" };
        Err(self.wrong(&direct, "missing", format!("one of the sweeps of the file: {}{more}", there.join(", "))))
    }

    fn len(&self, group: &str) -> Result<usize> {
        let place = format!("{group}/data");
        let (_, n) = self.file.series(&place, MOST_SAMPLES)?;
        if n == 0 {
            return Err(self.wrong(&place, "no samples", "at least one"));
        }
        Ok(n)
    }

    fn rate(&self, group: &str) -> Result<f64> {
        let place = format!("{group}/starting_time");
        let rate = self.file.number_of(&place, "rate")?;
        match rate {
            Some(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
            Some(rate) => Err(self.wrong(&place, format!("a rate of {rate} Hz"), "a positive sampling rate")),
            None => Err(self.wrong(&place, "no attribute rate", "the sampling rate in Hz")),
        }
    }

    /// What stored values are multiplied by.
    fn factor(&self, group: &str) -> Result<f64> {
        let place = format!("{group}/data");
        let parts = self.pipeline.as_deref().unwrap_or_default().trim().split('.').map(str::parse::<u64>);
        let version: Vec<u64> = parts.map_while(Result::ok).collect();
        if version[..] < [1, 1][..] {
            return Ok(1.0);
        }
        match self.file.number_of(&place, "conversion")? {
            Some(factor) if factor.is_finite() && factor != 0.0 => Ok(factor),
            Some(factor) => Err(self.wrong(&place, format!("conversion {factor}"), "a factor to SI units")),
            None => Err(self.wrong(&place, "no attribute conversion", "a factor to SI units")),
        }
    }

    /// The samples that are valid: those of the experiment, or of the whole sweep where the file does not say.
    fn range(&self, number: u32, samples: usize) -> Result<Range<usize>> {
        let experiment = format!("/epochs/Experiment_{number}/stimulus");
        let whole = format!("/epochs/Sweep_{number}/stimulus");
        let (epoch, from_zero) = if self.file.has(&experiment) { (experiment, false) } else { (whole, true) };
        let count = |name: &str| -> Result<usize> {
            let place = format!("{epoch}/{name}");
            let value = self.number(&place)?;
            let whole = value.filter(|x| *x >= 0.0 && *x <= MOST_SAMPLES as f64 && x.fract() == 0.0);
            let got = value.map_or_else(|| "missing".into(), |x| x.to_string());
            whole.map(|x| x as usize).ok_or_else(|| self.wrong(&place, got, "a number of samples"))
        };
        let (start, count) = (count("idx_start")?, count("count")?);
        if from_zero && start != 0 {
            return Err(self.wrong(&format!("{epoch}/idx_start"), start.to_string(), "0, the beginning of the sweep"));
        }
        if count == 0 || start + count > samples {
            let got = format!("{count} samples from {start}");
            return Err(self.wrong(&epoch, got, format!("at least one, inside the {samples} of the sweep")));
        }
        Ok(start..start + count)
    }

    fn spike_times(&self, number: u32) -> Result<Option<Vec<f64>>> {
        let places = ["spike_times", "aibs_spike_times"].map(|group| format!("/analysis/{group}/Sweep_{number}"));
        let Some(place) = places.iter().find(|place| self.file.has(place)) else { return Ok(None) };
        let (dataset, n) = self.file.series(place, MOST_SPIKES)?;
        let times: Vec<f64> = self.file.read(place, &dataset, 0..n)?;
        if let Some(wrong) = times.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
            return Err(self.wrong(place, format!("time {wrong}"), "finite and not negative"));
        }
        if let Some(at) = times.windows(2).position(|t| t[1] < t[0]) {
            let got = format!("{} s after {} s at spike {}", times[at + 1], times[at], at + 1);
            return Err(self.wrong(place, got, "times that do not decrease"));
        }
        Ok(Some(times))
    }

    fn samples(&self, sweep: &Sweep, side: Side, range: Range<usize>) -> Result<Vec<f64>> {
        let place = format!("{}/data", self.group(sweep.number, side)?);
        let (dataset, n) = self.file.series(&place, MOST_SAMPLES)?;
        if range.start > range.end || range.end > n {
            return Err(self.wrong(&place, format!("samples {range:?} asked for"), format!("a range inside 0..{n}")));
        }
        let start = range.start;
        let mut values: Vec<f64> = self.file.read(&place, &dataset, range)?;
        let factor = sweep.factors[usize::from(side == Side::Response)];
        if factor != 1.0 {
            values.iter_mut().for_each(|x| *x *= factor);
        }
        if sweep.clamp == Clamp::Current {
            let (limit, unit) = if side == Side::Stimulus { (MOST_AMPERES, "A") } else { (MOST_VOLTS, "V") };
            if let Some(at) = values.iter().position(|x| x.is_nan() || x.abs() >= limit) {
                let got = format!("{:e} {unit} at sample {}", values[at], start + at);
                return Err(self.wrong(&place, got, format!("less than {limit:e} {unit}; is the unit right?")));
            }
        }
        Ok(values)
    }
}
