//! A data set that can be read: samples by index, from any thread.

use std::fmt;
use std::sync::{Arc, OnceLock};

use snn_core::Map;

use crate::error::{Error, Result};

/// What the samples of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// Images of bytes, channel-last.
    Images(Map),
    /// Vectors of this many values.
    Vectors(usize),
    /// Lists of events.
    Events {
        /// Input units.
        units: usize,
        /// The sensor, where the units form one: unit = `row * W + column + H * W * channel`, as recorded.
        sensor: Option<Map>,
    },
    /// Spikes that are already in time steps.
    Spikes {
        /// Time steps.
        steps: usize,
        /// Input units.
        width: usize,
    },
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images(map) => write!(f, "images {map}"),
            Self::Vectors(width) => write!(f, "vectors of {width} values"),
            Self::Events { units, .. } => write!(f, "events of {units} units"),
            Self::Spikes { steps, width } => write!(f, "spikes of {width} units over {steps} steps"),
        }
    }
}

/// One sample, as read; the kind of its source says which of the lists are in use.
///
/// The lists are buffers: [`Source::read`] empties and fills them, so that one sample serves a whole epoch.
#[derive(Debug, Default, PartialEq)]
pub struct Sample {
    /// The class.
    pub label: u32,
    /// Images: bytes `[H, W, C]`, 0 is the background.
    pub pixels: Vec<u8>,
    /// Vectors: values in `[0, 1]`.
    pub values: Vec<f32>,
    /// Events: the unit of each event. Spikes: the units of all steps, one step after the other.
    pub units: Vec<u32>,
    /// Events: the time of each event in seconds, ascending.
    pub times: Vec<f32>,
    /// Spikes: where each step begins in `units`, T + 1 entries.
    pub offsets: Vec<usize>,
}

impl Sample {
    /// Empties every list, keeping the memory.
    pub fn clear(&mut self) {
        self.label = 0;
        self.pixels.clear();
        self.values.clear();
        self.units.clear();
        self.times.clear();
        self.offsets.clear();
    }

    /// Bytes that the lists take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pixels.len() + 4 * (self.values.len() + self.units.len() + self.times.len()) + 8 * self.offsets.len()
    }
}

impl Clone for Sample {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies without giving up the memory of the lists.
    fn clone_from(&mut self, from: &Self) {
        self.label = from.label;
        self.pixels.clone_from(&from.pixels);
        self.values.clone_from(&from.values);
        self.units.clone_from(&from.units);
        self.times.clone_from(&from.times);
        self.offsets.clone_from(&from.offsets);
    }
}

/// A split of a data set: samples by index, in any order, from any thread.
pub trait Source: Send + Sync + fmt::Debug {
    /// The data set and its split, for example `mnist/train`.
    fn name(&self) -> &str;
    /// Samples.
    fn len(&self) -> usize;
    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Classes; every label is below.
    fn classes(&self) -> usize {
        self.class_names().len()
    }
    /// The name of every class, in the order of the labels.
    fn class_names(&self) -> &[String];
    /// What to print beside every result when this is not the published data set: the name of a reduced or
    /// simulated copy.
    fn label(&self) -> Option<&str>;
    /// What the samples are.
    fn kind(&self) -> SourceKind;
    /// Reads sample `index` into the buffers of `into`.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if there is no such sample, and whatever reading the file can give.
    fn read(&self, index: usize, into: &mut Sample) -> Result<()>;
    /// About how many bytes all samples would take in memory; nothing if keeping them there would gain nothing.
    fn memory(&self) -> Option<u64> {
        None
    }
}

/// The error for an index beyond the end.
pub(crate) fn check_index(source: &dyn Source, index: usize) -> Result<()> {
    if index < source.len() {
        return Ok(());
    }
    Err(Error::Index { set: source.name().to_owned(), index, len: source.len() })
}

/// A source held in memory as a whole.
pub struct InMemory {
    name: String,
    class_names: Vec<String>,
    label: Option<String>,
    kind: SourceKind,
    labels: Vec<u32>,
    // One flat list per kind of buffer: a set of a million small samples costs no million allocations.
    pixels: Vec<u8>,
    values: Vec<f32>,
    units: Vec<u32>,
    times: Vec<f32>,
    offsets: Vec<usize>,
    // Events: where each sample starts in `units`, B + 1 entries.
    starts: Vec<usize>,
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory")
            .field("name", &self.name)
            .field("len", &self.labels.len())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl InMemory {
    /// Reads all of `source`.
    ///
    /// # Errors
    ///
    /// The first error of the source.
    pub fn new(source: &dyn Source) -> Result<Self> {
        let mut this = Self::empty(source.name(), source.kind(), source.class_names().to_vec());
        this.label = source.label().map(str::to_owned);
        let mut sample = Sample::default();
        for index in 0..source.len() {
            source.read(index, &mut sample)?;
            this.push(&sample);
        }
        Ok(this)
    }

    /// A source without samples, to be filled with [`InMemory::push`].
    #[must_use]
    pub fn empty(name: &str, kind: SourceKind, class_names: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            class_names,
            label: None,
            kind,
            labels: Vec::new(),
            pixels: Vec::new(),
            values: Vec::new(),
            units: Vec::new(),
            times: Vec::new(),
            offsets: Vec::new(),
            starts: vec![0],
        }
    }

    /// Appends a sample of the source's kind.
    ///
    /// # Panics
    ///
    /// If the sample does not have the size that the kind says, or its label is not below the class count.
    pub fn push(&mut self, sample: &Sample) {
        assert!((sample.label as usize) < self.class_names.len(), "label {} of {self:?}", sample.label);
        match self.kind {
            SourceKind::Images(map) => assert_eq!(sample.pixels.len(), map.len(), "pixels of {self:?}"),
            SourceKind::Vectors(width) => assert_eq!(sample.values.len(), width, "values of {self:?}"),
            SourceKind::Events { .. } => assert_eq!(sample.units.len(), sample.times.len(), "events of {self:?}"),
            SourceKind::Spikes { steps, .. } => assert_eq!(sample.offsets.len(), steps + 1, "steps of {self:?}"),
        }
        self.labels.push(sample.label);
        self.pixels.extend_from_slice(&sample.pixels);
        self.values.extend_from_slice(&sample.values);
        self.units.extend_from_slice(&sample.units);
        self.times.extend_from_slice(&sample.times);
        self.offsets.extend_from_slice(&sample.offsets);
        self.starts.push(self.units.len());
    }

    /// Marks the source as not being the published data set; see [`Source::label`].
    #[must_use]
    pub fn with_label(mut self, label: Option<String>) -> Self {
        self.label = label;
        self
    }
}

impl Source for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    fn kind(&self) -> SourceKind {
        self.kind
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        into.label = self.labels[index];
        let events = self.starts[index]..self.starts[index + 1];
        match self.kind {
            SourceKind::Images(map) => into.pixels.extend_from_slice(&self.pixels[index * map.len()..][..map.len()]),
            SourceKind::Vectors(width) => into.values.extend_from_slice(&self.values[index * width..][..width]),
            SourceKind::Events { .. } => {
                into.units.extend_from_slice(&self.units[events.clone()]);
                into.times.extend_from_slice(&self.times[events]);
            }
            SourceKind::Spikes { steps, .. } => {
                into.units.extend_from_slice(&self.units[events]);
                into.offsets.extend_from_slice(&self.offsets[index * (steps + 1)..][..steps + 1]);
            }
        }
        Ok(())
    }
}

/// A source that keeps every sample once it has been read.
#[derive(Debug)]
pub(crate) struct Cached {
    inner: Arc<dyn Source>,
    samples: Vec<OnceLock<Box<Sample>>>,
}

impl Cached {
    /// Keeps the samples of `source` if they take at most `memory` bytes.
    pub(crate) fn wrap(source: Arc<dyn Source>, memory: u64) -> Arc<dyn Source> {
        match source.memory() {
            Some(bytes) if bytes <= memory => {
                let samples = (0..source.len()).map(|_| OnceLock::new()).collect();
                Arc::new(Self { inner: source, samples })
            }
            _ => source,
        }
    }
}

impl Source for Cached {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn label(&self) -> Option<&str> {
        self.inner.label()
    }

    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        if let Some(kept) = self.samples[index].get() {
            into.clone_from(kept);
            return Ok(());
        }
        self.inner.read(index, into)?;
        // Two threads may both have read it: they read the same.
        let _ = self.samples[index].set(Box::new(into.clone()));
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        self.inner.memory()
    }
}
