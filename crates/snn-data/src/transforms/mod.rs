//! From a sample to what the first layer takes: augmentation, then an encoding, for a whole batch.

pub mod augment;
pub mod encode;

pub use augment::Augment;
pub use encode::Encode;

use snn_core::random::{Purpose, Stream};
use snn_core::{Kind, Lanes, Map, Signal, Spikes};

use crate::error::{Error, Result};
use crate::loader::Input;
use crate::source::{Sample, SourceKind};

/// How samples of one kind become the input of a model.
///
/// A sample's augmentation draws from the stream of `(seed, epoch, sample)`: it is the same whatever batch the sample
/// is in and whichever thread prepares it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    encode: Encode,
    augment: Vec<Augment>,
    kind: SourceKind,
    signal: Signal,
    // Latency: the step of every byte.
    step_of_byte: Vec<u32>,
    // Bin: the unit that a stored unit is counted for.
    unit_map: Vec<u32>,
}

/// Memory that a pipeline needs from batch to batch.
#[derive(Debug, Default)]
pub struct Scratch {
    // (step, unit) of every event of the batch, and where each sample's begin.
    steps: Vec<u32>,
    units: Vec<u32>,
    starts: Vec<usize>,
    counts: Vec<usize>,
    image: Vec<f32>,
    spare: Vec<f32>,
}

impl Pipeline {
    /// Checks that the encoding and every augmentation fit the samples.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the setting that is out of range or does not fit `kind`.
    pub fn new(encode: Encode, augment: Vec<Augment>, kind: SourceKind) -> Result<Self> {
        let misfit = |want: &str| Err(Error::config(format!("encoding {}", encode.name()), kind.to_string(), want));
        let values = match kind {
            SourceKind::Images(map) => Some(map),
            SourceKind::Vectors(width) => Some(Map::new(1, 1, width)),
            SourceKind::Events { .. } | SourceKind::Spikes { .. } => None,
        };
        for step in &augment {
            step.check(kind)?;
        }
        encode.check(kind)?;
        let mut step_of_byte = Vec::new();
        let mut unit_map = Vec::new();
        let signal = match (&encode, kind) {
            (&Encode::Latency { steps }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                step_of_byte.extend((0..=255_u8).map(|b| encode::latency_step(f32::from(b) / 255.0, steps) as u32));
                Signal { kind: Kind::Spikes, steps, map }
            }
            (&Encode::Repeat { steps, .. }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                Signal { kind: Kind::Values, steps, map }
            }
            (&Encode::Bin { steps, units: wanted, .. }, SourceKind::Events { units, sensor }) => {
                let wanted = if wanted == 0 { units } else { wanted };
                let map = encode::binned_map(wanted, units, sensor);
                unit_map.extend((0..units).map(|u| encode::binned_unit(u, wanted, sensor)));
                Signal { kind: Kind::Spikes, steps, map }
            }
            (Encode::Bin { .. }, _) => return misfit("events"),
            (Encode::Ready, SourceKind::Spikes { steps, width }) => Signal::flat(Kind::Spikes, steps, width),
            (Encode::Ready, _) => return misfit("spikes that are already in time steps"),
        };
        Ok(Self { encode, augment, kind, signal, step_of_byte, unit_map })
    }

    /// What a model is given for each sample: spikes, or values that are the same in every step.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// The kind of samples that the pipeline was made for.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The same encoding without augmentation, for evaluation.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self { augment: Vec::new(), ..self.clone() }
    }

    /// Begins a batch.
    pub(crate) fn start(&self, scratch: &mut Scratch, input: &mut Input) {
        scratch.steps.clear();
        scratch.units.clear();
        scratch.starts.clear();
        scratch.starts.push(0);
        match (self.signal.kind, &mut *input) {
            (Kind::Values, Input::Values(values)) => values.clear(),
            (Kind::Values, other) => *other = Input::Values(Vec::new()),
            (_, Input::Spikes(_)) => {}
            (_, other) => *other = Input::Spikes(Spikes::new()),
        }
    }

    /// Adds a sample to the batch; returns the events that lie after the window.
    pub(crate) fn push(
        &self,
        (seed, epoch, index): (u64, u32, u32),
        sample: &Sample,
        scratch: &mut Scratch,
        input: &mut Input,
    ) -> u64 {
        let mut random = Stream::new(seed, Purpose::Augment, [epoch, index]);
        let dropped = match &self.encode {
            Encode::Latency { .. } if self.augment.is_empty() && matches!(self.kind, SourceKind::Images(_)) => {
                scratch.steps.extend(sample.pixels.iter().map(|&p| self.step_of_byte[usize::from(p)]));
                0
            }
            &Encode::Latency { steps } => {
                self.prepare_values(sample, &mut random, scratch);
                scratch.steps.extend(scratch.image.iter().map(|&x| encode::latency_step(x, steps) as u32));
                0
            }
            Encode::Repeat { .. } => {
                self.prepare_values(sample, &mut random, scratch);
                if let Input::Values(values) = input {
                    values.extend_from_slice(&scratch.image);
                }
                0
            }
            &Encode::Bin { steps, dt_ms, .. } => {
                let warp = augment::TimeWarp::draw(&self.augment, &mut random);
                let before = scratch.units.len();
                for (&unit, &time) in sample.units.iter().zip(&sample.times) {
                    let time = if warp.is_identity() { time } else { warp.apply(time, &mut random) };
                    if let Some(step) = encode::bin_step(time, dt_ms, steps) {
                        scratch.units.push(self.unit_map[unit as usize]);
                        scratch.steps.push(step);
                    }
                }
                (sample.units.len() - (scratch.units.len() - before)) as u64
            }
            Encode::Ready => {
                scratch.units.extend_from_slice(&sample.units);
                for (step, ends) in sample.offsets.windows(2).enumerate() {
                    scratch.steps.extend(std::iter::repeat_n(step as u32, ends[1] - ends[0]));
                }
                0
            }
        };
        scratch.starts.push(scratch.steps.len());
        dropped
    }

    /// Completes the batch.
    pub(crate) fn finish(&self, scratch: &mut Scratch, input: &mut Input) {
        let Input::Spikes(spikes) = input else { return };
        let batch = scratch.starts.len() - 1;
        let lanes = Lanes::new(batch, self.signal.steps, self.signal.width());
        let listed = !matches!(self.encode, Encode::Latency { .. });
        // A counting sort by step: how many events each row gets, then every event to its row. Events of one row
        // stay in the order of the sample, which for images is the order of the units that rows must have.
        let Scratch { steps, units, starts, counts, .. } = scratch;
        counts.clear();
        counts.resize(lanes.rows(), 0);
        for (sample, ends) in starts.windows(2).enumerate() {
            let rows = &mut counts[sample * lanes.steps..][..lanes.steps];
            for &step in &steps[ends[0]..ends[1]] {
                rows[step as usize] += 1;
            }
        }
        let (offsets, out) = spikes.reserve(lanes, counts.iter().copied());
        counts.copy_from_slice(&offsets[..lanes.rows()]);
        for (sample, ends) in starts.windows(2).enumerate() {
            let next = &mut counts[sample * lanes.steps..][..lanes.steps];
            let mut place = |step: u32, unit: u32| {
                let at = &mut next[step as usize];
                out[*at] = unit;
                *at += 1;
            };
            if listed {
                steps[ends[0]..ends[1]].iter().zip(&units[ends[0]..ends[1]]).for_each(|(&s, &u)| place(s, u));
            } else {
                steps[ends[0]..ends[1]].iter().zip(0..).for_each(|(&s, u)| place(s, u));
            }
        }
        // Rows of spikes ascend; events of one step come in the order of their times.
        if listed {
            spikes.sort_rows();
        }
    }

    /// The values of an image or a vector: scaled to `[0, 1]`, normalised, augmented.
    fn prepare_values(&self, sample: &Sample, random: &mut Stream, scratch: &mut Scratch) {
        let Scratch { image, spare, .. } = scratch;
        image.clear();
        let map = match self.kind {
            SourceKind::Images(map) => {
                image.extend(sample.pixels.iter().map(|&p| f32::from(p) / 255.0));
                map
            }
            _ => {
                image.extend_from_slice(&sample.values);
                return;
            }
        };
        if let Encode::Repeat { mean, std, .. } = &self.encode {
            encode::normalise(image, mean, std);
        }
        for step in &self.augment {
            step.apply(map, image, spare, random);
        }
    }
}
