//! Batches, prepared in the background.
//!
//! Batch k is a function of the data, the pipeline, `(seed, epoch, k)` and nothing else: not of the number of threads, not
//! of the batches before it. A run that stops in the middle of an epoch goes on with [`LoaderOptions::first_batch`].

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use snn_core::random::Permutation;
use snn_core::{Events, Spikes};

use crate::error::{Error, Result};
use crate::source::{Sample, Source};
use crate::transforms::{Pipeline, Scratch};

/// What the first layer is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Spikes or event counts `[B, T, N]`.
    Spikes(Spikes),
    /// Spikes in continuous time.
    Trains(Events),
    /// Values `[B, N]`, without time or the same in every step.
    Values(Vec<f32>),
    /// Values `[B, T, N]`, other ones in every step.
    Sequence(Vec<f32>),
}

impl Input {
    /// The memory of an input, empty.
    fn empty() -> Self {
        Self::Values(Vec::new())
    }
}

/// Some samples, ready for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Which batch of the epoch this is.
    pub index: usize,
    /// Which samples of the source, B.
    pub samples: Vec<u32>,
    /// Their classes, B.
    pub labels: Vec<u32>,
    /// Their input.
    pub input: Input,
    /// Events that lay outside the window and were dropped.
    pub dropped: u64,
}

/// In what order samples come, and how many at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Samples per batch, B; the last batch of an epoch may have fewer.
    pub batch: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// The epoch, from 0; every epoch has its own order and augmentation.
    pub epoch: u32,
    /// Whether samples come in a random order.
    pub shuffle: bool,
    /// Batches of the epoch to leave out, for going on in the middle of it.
    pub first_batch: usize,
    /// Use only so many samples, the first ones of the source.
    pub limit: Option<usize>,
    /// Background threads; 0 prepares each batch when it is asked for.
    pub threads: usize,
    /// Batches that each thread prepares ahead.
    pub prefetch: usize,
}

impl Default for LoaderOptions {
    /// Batches of 128 in the order of the source, one thread that is two batches ahead.
    fn default() -> Self {
        Self { batch: 128, seed: 0, epoch: 0, shuffle: false, first_batch: 0, limit: None, threads: 1, prefetch: 2 }
    }
}

/// What every thread knows.
#[derive(Debug)]
struct Plan {
    source: Arc<dyn Source>,
    pipeline: Arc<Pipeline>,
    options: LoaderOptions,
    samples: usize,
    spare: Mutex<Vec<Input>>,
}

/// Prepares the batches of one epoch, in order.
///
/// ```
/// use std::sync::Arc;
/// use snn_data::{Encode, Loader, LoaderOptions, OpenOptions, Pipeline, open};
///
/// let source = open("yinyang", "test", &OpenOptions::default())?;
/// let pipeline = Pipeline::new(Encode::Latency { steps: 30 }, vec![], source.kind())?;
/// let options = LoaderOptions { batch: 100, shuffle: true, ..LoaderOptions::default() };
/// let loader = Loader::new(source, Arc::new(pipeline), options)?;
/// assert_eq!(loader.batches(), 100);
/// for batch in loader {
///     assert_eq!(batch?.labels.len(), 100);
/// }
/// # Ok::<(), snn_data::Error>(())
/// ```
#[derive(Debug)]
pub struct Loader {
    plan: Arc<Plan>,
    // Batch k comes from worker k modulo their number, so their order needs no further care.
    workers: Vec<Worker>,
    local: (Sample, Scratch),
    next: usize,
    dropped: u64,
    failed: bool,
}

#[derive(Debug)]
struct Worker {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts preparing.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the pipeline was made for another kind of samples, the source is empty, a batch would have no
    /// sample, or the first batch lies beyond the end.
    pub fn new(source: Arc<dyn Source>, pipeline: Arc<Pipeline>, options: LoaderOptions) -> Result<Self> {
        if pipeline.kind() != source.kind() {
            let want = pipeline.kind().to_string();
            return Err(Error::config(format!("data set {}", source.name()), source.kind().to_string(), want));
        }
        if options.batch == 0 {
            return Err(Error::config("batch size", "0", "at least 1"));
        }
        let samples = options.limit.unwrap_or(usize::MAX).min(source.len());
        if samples == 0 || samples > u32::MAX as usize {
            return Err(Error::config(
                format!("data set {}", source.name()),
                format!("{samples} samples"),
                "1..=4294967295",
            ));
        }
        let plan = Plan { source, pipeline, samples, spare: Mutex::new(Vec::new()), options };
        let (first, batches) = (plan.options.first_batch, plan.batches());
        if first > batches {
            return Err(Error::config("first batch", first.to_string(), format!("at most {batches}")));
        }
        let plan = Arc::new(plan);
        let threads = plan.options.threads.min(batches - first);
        let workers = (0..threads).map(|i| Worker::spawn(&plan, first + i, threads)).collect::<Result<_>>()?;
        Ok(Self { plan, workers, local: Default::default(), next: first, dropped: 0, failed: false })
    }

    /// Batches of a whole epoch, those left out included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.plan.batches()
    }

    /// Samples of a whole epoch.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.plan.samples
    }

    /// Events outside the window, in the batches delivered so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Gives a batch's memory back, so that a coming one need not allocate.
    pub fn recycle(&self, batch: Batch) {
        if let Ok(mut spare) = self.plan.spare.lock()
            && spare.len() < 2 * self.workers.len().max(1)
        {
            spare.push(batch.input);
        }
    }
}

/// Prepares one batch on the calling thread: batch `index` of the epoch that `options` describe.
///
/// # Errors
///
/// As [`Loader::new`], and whatever reading the samples can give.
pub fn load_batch(
    source: Arc<dyn Source>,
    pipeline: Arc<Pipeline>,
    options: LoaderOptions,
    index: usize,
) -> Result<Batch> {
    let options = LoaderOptions { first_batch: index, threads: 0, ..options };
    let mut loader = Loader::new(source, pipeline, options)?;
    let batches = loader.batches();
    loader.next().unwrap_or_else(|| Err(Error::config("batch", index.to_string(), format!("below {batches}"))))
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.plan.batches() {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let batch = if self.workers.is_empty() {
            let (sample, scratch) = &mut self.local;
            self.plan.prepare(index, sample, scratch)
        } else {
            let worker = (index - self.plan.options.first_batch) % self.workers.len();
            let batches = self.workers[worker].batches.as_ref().expect("taken only when dropped");
            batches.recv().unwrap_or(Err(Error::LoaderStopped { batch: index }))
        };
        match &batch {
            Ok(batch) => self.dropped += batch.dropped,
            Err(_) => self.failed = true,
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = if self.failed { 0 } else { self.plan.batches() - self.next };
        (left.min(1), Some(left))
    }
}

impl Plan {
    fn batches(&self) -> usize {
        self.samples.div_ceil(self.options.batch)
    }

    fn prepare(&self, index: usize, sample: &mut Sample, scratch: &mut Scratch) -> Result<Batch> {
        let LoaderOptions { batch, seed, epoch, shuffle, .. } = self.options;
        let order = Permutation::new(self.samples as u32, seed, epoch);
        let positions = index * batch..((index + 1) * batch).min(self.samples);
        let samples: Vec<u32> = positions.map(|p| if shuffle { order.at(p as u32) } else { p as u32 }).collect();
        let spare = self.spare.lock().ok().and_then(|mut s| s.pop());
        let mut input = spare.unwrap_or_else(Input::empty);
        let mut labels = Vec::with_capacity(samples.len());
        let mut dropped = 0;
        self.pipeline.start(scratch, &mut input);
        for &at in &samples {
            self.source.read(at as usize, sample)?;
            labels.push(sample.label);
            dropped += self.pipeline.push((seed, epoch, at), sample, scratch, &mut input);
        }
        self.pipeline.finish(scratch, &mut input);
        Ok(Batch { index, samples, labels, input, dropped })
    }
}

impl Worker {
    fn spawn(plan: &Arc<Plan>, first: usize, stride: usize) -> Result<Self> {
        let (send, receive) = sync_channel(plan.options.prefetch.max(1));
        let plan = Arc::clone(plan);
        let thread = std::thread::Builder::new()
            .name("snn-loader".into())
            .spawn(move || run(&plan, first, stride, &send))
            .map_err(|source| Error::Io { path: "loader thread".into(), action: "start", source })?;
        Ok(Self { batches: Some(receive), thread: Some(thread) })
    }
}

fn run(plan: &Plan, first: usize, stride: usize, send: &SyncSender<Result<Batch>>) {
    let (mut sample, mut scratch) = Default::default();
    for index in (first..plan.batches()).step_by(stride) {
        let batch = plan.prepare(index, &mut sample, &mut scratch);
        let failed = batch.is_err();
        // Nobody listens any more once the loader is dropped.
        if send.send(batch).is_err() || failed {
            return;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing the channel ends a thread that waits for room in it.
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has shown itself as `LoaderStopped`.
            let _ = thread.join();
        }
    }
}
