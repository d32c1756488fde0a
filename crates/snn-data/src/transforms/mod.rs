//! From a sample to what the first layer takes: augmentation, then an encoding, for a whole batch.

pub mod augment;
pub mod bins;
pub mod encode;
pub mod raster;
mod rows;

pub use augment::Augment;
pub use bins::{Cut, Rule};
pub use encode::Encode;

use snn_core::random::{Purpose, Stream};
use snn_core::{Events, Kind, Map, Signal, Spikes};

use crate::error::{Error, Result};
use crate::loader::Input;
use crate::source::{Sample, SourceKind};
use bins::{Clock, NOWHERE};
use raster::Events as Binned;
use rows::Rows;

/// The second coordinate of the draws of [`Encode::Rate`], where other draws have the epoch.
const NO_EPOCH: u32 = u32::MAX;

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
    // Times: the spike of every byte.
    times_of_byte: Vec<Option<f32>>,
    // Events: the input that a stored unit is counted for.
    inputs: Vec<u32>,
}

/// Memory that a pipeline needs from batch to batch.
#[derive(Debug, Default)]
pub struct Scratch {
    rows: Rows,
    events: Binned,
    raster: augment::RasterWork,
    times: Vec<f32>,
    spikes: Vec<(f32, u32)>,
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
        encode.check(kind)?;
        let mut step_of_byte = Vec::new();
        let mut times_of_byte = Vec::new();
        let mut inputs = Vec::new();
        let signal = match (&encode, kind) {
            (&Encode::Latency { steps }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                step_of_byte.extend((0..=255_u8).map(|b| encode::latency_step(f32::from(b) / 255.0, steps) as u32));
                Signal { kind: Kind::Spikes, steps, map }
            }
            (&Encode::Rate { steps, .. }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                Signal { kind: Kind::Spikes, steps, map }
            }
            (&Encode::Repeat { steps, .. }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                Signal { kind: Kind::Values, steps, map }
            }
            (Encode::Values { .. }, _) => {
                let Some(map) = values else { return misfit("images or vectors") };
                Signal { kind: Kind::Values, steps: 1, map }
            }
            (Encode::Columns { .. }, SourceKind::Images(map)) => {
                Signal { kind: Kind::Sequence, steps: map.width, map: Map::new(map.height, 1, map.channels) }
            }
            (Encode::Columns { .. }, _) => return misfit("images"),
            (
                &(Encode::Bin { steps, .. } | Encode::Align { steps, .. } | Encode::Frames { steps, .. }),
                SourceKind::Events { units, sensor },
            ) => {
                let (map, all) = encode.choice().inputs(units, sensor);
                inputs = all;
                Signal { kind: Kind::Spikes, steps, map }
            }
            (Encode::Bin { .. } | Encode::Align { .. } | Encode::Frames { .. }, _) => return misfit("events"),
            (Encode::Times { .. }, SourceKind::Spikes { .. }) => return misfit("images, vectors or events"),
            (&Encode::Times { window_ms, most }, _) => {
                times_of_byte.extend((0..=255_u8).map(|b| encode::spike_time(f64::from(b) / 255.0, window_ms)));
                match (values, kind) {
                    (Some(map), _) => Signal { kind: Kind::Trains, steps: 1, map },
                    (None, SourceKind::Events { units, sensor }) => {
                        let (map, all) = encode.choice().inputs(units, sensor);
                        inputs = all;
                        Signal { kind: Kind::Trains, steps: most, map }
                    }
                    (None, _) => return misfit("images, vectors or events"),
                }
            }
            (Encode::Ready, SourceKind::Spikes { steps, width }) => Signal::flat(Kind::Spikes, steps, width),
            (Encode::Ready, _) => return misfit("spikes that are already in time steps"),
        };
        for step in &augment {
            step.check(kind, signal.map)?;
            if matches!(encode, Encode::Times { .. }) && step.needs_bins() {
                let want = "an encoding with time steps";
                return Err(Error::config(format!("augmentation {}", step.name()), "encoding times", want));
            }
        }
        Ok(Self { encode, augment, kind, signal, step_of_byte, times_of_byte, inputs })
    }

    /// What a model is given for each sample: spikes in steps or in continuous time, values without time or the same in
    /// every step, or a sequence of values.
    ///
    /// Its steps are those of every batch, except for [`Encode::Align`], where they are a bound.
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
        scratch.rows.clear();
        match (self.signal.kind, &mut *input) {
            (Kind::Values, Input::Values(values)) | (Kind::Sequence, Input::Sequence(values)) => values.clear(),
            (Kind::Trains, Input::Trains(events)) => events.start(self.signal.width()),
            (Kind::Trains, other) => *other = Input::Trains(Events::new(self.signal.width())),
            (Kind::Values, other) => *other = Input::Values(Vec::new()),
            (Kind::Sequence, other) => *other = Input::Sequence(Vec::new()),
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
        let width = self.signal.width();
        match (&self.encode, input) {
            (Encode::Latency { .. }, _) if self.augment.is_empty() && matches!(self.kind, SourceKind::Images(_)) => {
                let steps = sample.pixels.iter().map(|&p| self.step_of_byte[usize::from(p)]);
                scratch.rows.push_one_each(self.signal.steps, steps);
            }
            (&Encode::Latency { steps }, _) => {
                self.prepare_values(sample, &mut random, scratch);
                let Scratch { rows, image, .. } = scratch;
                rows.push_one_each(steps, image.iter().map(|&x| encode::latency_step(x, steps) as u32));
            }
            (&Encode::Rate { steps, seed }, _) => {
                self.prepare_values(sample, &mut random, scratch);
                let mut draws = Stream::new(seed, Purpose::Augment, [NO_EPOCH, index]);
                scratch.rows.push_rates(steps, &scratch.image, &mut draws);
            }
            (Encode::Repeat { .. } | Encode::Values { .. }, Input::Values(values)) => {
                self.prepare_values(sample, &mut random, scratch);
                values.extend_from_slice(&scratch.image);
            }
            (Encode::Columns { .. }, Input::Sequence(values)) => {
                self.prepare_values(sample, &mut random, scratch);
                if let SourceKind::Images(map) = self.kind {
                    encode::columns(map, &scratch.image, values);
                }
            }
            (&Encode::Times { window_ms, most }, Input::Trains(events)) => {
                let dropped = self.spike_times(sample, (window_ms, most), &mut random, scratch);
                events.push(&scratch.spikes).expect("sources give finite times and units in range");
                return dropped;
            }
            (Encode::Repeat { .. } | Encode::Values { .. } | Encode::Columns { .. } | Encode::Times { .. }, _) => {
                unreachable!("`start` gave the input its kind")
            }
            (Encode::Bin { .. } | Encode::Align { .. } | Encode::Frames { .. }, _) => {
                let mut noise = Stream::new(seed, Purpose::Noise, [epoch, index]);
                let (steps, dropped) = self.bin(sample, &mut random, scratch);
                let Scratch { rows, events, raster, .. } = scratch;
                for step in &self.augment {
                    step.apply_events((steps, self.signal.map), events, raster, (&mut random, &mut noise));
                }
                rows.push_events((steps, width), events);
                return dropped;
            }
            (Encode::Ready, _) => scratch.rows.push_ready(&sample.offsets, &sample.units),
        }
        0
    }

    /// The spikes of a sample in continuous time, ascending; gives how many events it has beyond them.
    fn spike_times(&self, sample: &Sample, limits: (f64, usize), random: &mut Stream, scratch: &mut Scratch) -> u64 {
        let (window_ms, most) = limits;
        scratch.spikes.clear();
        let mut dropped = 0;
        if let SourceKind::Events { .. } = self.kind {
            let Scratch { times, spikes, counts, .. } = scratch;
            let warp = augment::TimeWarp::draw(&self.augment, random);
            let times = if warp.is_identity() {
                &sample.times
            } else {
                warp.apply_all(&sample.times, times, random);
                &*times
            };
            let end = (window_ms / 1000.0) as f32;
            let kept = |(&time, &unit): (&f32, &u32)| {
                let unit = self.inputs[unit as usize];
                (unit != NOWHERE && (0.0..=end).contains(&time)).then_some((time, unit))
            };
            spikes.extend(times.iter().zip(&sample.units).filter_map(kept));
            spikes.sort_by(|x, y| x.0.total_cmp(&y.0));
            counts.clear();
            counts.resize(self.signal.width(), 0);
            spikes.retain(|&(_, unit)| {
                counts[unit as usize] += 1;
                counts[unit as usize] <= most
            });
            dropped = (times.len() - spikes.len()) as u64;
        } else if self.augment.is_empty() && matches!(self.kind, SourceKind::Images(_)) {
            let spikes = sample.pixels.iter().map(|&p| self.times_of_byte[usize::from(p)]);
            scratch.spikes.extend(spikes.zip(0..).filter_map(|(time, unit)| Some((time?, unit))));
        } else {
            self.prepare_values(sample, random, scratch);
            let times = scratch.image.iter().map(|&x| encode::spike_time(x.into(), window_ms));
            scratch.spikes.extend(times.zip(0..).filter_map(|(time, unit)| Some((time?, unit))));
        }
        scratch.spikes.sort_by(|x, y| x.0.total_cmp(&y.0));
        dropped
    }

    /// Puts the events of a sample into steps; gives its number of steps, and how many events lie in none.
    fn bin(&self, sample: &Sample, random: &mut Stream, scratch: &mut Scratch) -> (usize, u64) {
        let Scratch { times, events, .. } = scratch;
        let warp = augment::TimeWarp::draw(&self.augment, random);
        let times = if warp.is_identity() {
            &sample.times
        } else {
            warp.apply_all(&sample.times, times, random);
            &*times
        };
        let steps = &mut events.steps;
        match self.encode {
            Encode::Align { steps: most, dt_ms, rule, half, .. } => {
                Clock::new(dt_ms, rule, half, most).bins(times, steps);
            }
            Encode::Frames { steps: count, by, .. } => bins::frames(times, count, by, steps),
            Encode::Bin { steps: most, dt_ms, .. } => {
                steps.clear();
                steps.extend(times.iter().map(|&time| encode::bin_step(time, dt_ms, most).unwrap_or(NOWHERE)));
            }
            _ => unreachable!("the encodings of events"),
        }
        // Bins that are not there wrap around to 0, so that the maximum of all is one more than the largest.
        let (longest, inside) = steps.iter().fold((0, 0_u64), |(longest, inside), &step| {
            (step.wrapping_add(1).max(longest), inside + u64::from(step != NOWHERE))
        });
        let length = match self.encode {
            Encode::Align { .. } => longest.max(1) as usize,
            _ => self.signal.steps,
        };
        let dropped = steps.len() as u64 - inside;
        events.units.clear();
        events.units.extend(sample.units.iter().map(|&unit| self.inputs[unit as usize]));
        events.filter_map(|step, unit| (step, unit));
        (length, dropped)
    }

    /// Completes the batch.
    pub(crate) fn finish(&self, scratch: &mut Scratch, input: &mut Input) {
        if let Input::Spikes(spikes) = input {
            scratch.rows.write(self.signal.width(), spikes);
        }
    }

    /// The values of an image or a vector: scaled to `[0, 1]`, normalised, augmented, and moved to a range of their own.
    fn prepare_values(&self, sample: &Sample, random: &mut Stream, scratch: &mut Scratch) {
        let Scratch { image, spare, .. } = scratch;
        image.clear();
        match self.kind {
            SourceKind::Images(_) => image.extend(sample.pixels.iter().map(|&p| f32::from(p) / 255.0)),
            _ => image.extend_from_slice(&sample.values),
        }
        if let Encode::Repeat { mean, std, .. } | Encode::Columns { mean, std } | Encode::Values { mean, std, .. } =
            &self.encode
        {
            encode::normalise(image, mean, std);
        }
        if let SourceKind::Images(map) = self.kind {
            for step in &self.augment {
                step.apply(map, image, spare, random);
            }
        }
        if let Encode::Values { low, high, .. } = self.encode {
            encode::rescale(image, low, high);
        }
    }
}
