//! The training loop: data in, weights and records out, resumable at any batch with the same bits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use snn_core::backend::TrainReadout;
use snn_core::{Activity, Backend, Kind, Layer, Pass, Real, Signal, Tensor, Trains};
use snn_data::{Batch, Encode, Input, Loader, LoaderOptions, OpenOptions, Pipeline, Sample, Source};

use crate::checkpoint::{self, Checkpoints, Progress};
use crate::config::{Experiment, Keep, RateConfig, TrainConfig};
use crate::error::{Error, Result};
use crate::health::{self, LayerHealth};
use crate::log::{JsonLines, TensorBoard};
use crate::losses::{Loss, Scores, argmax};
use crate::monitor::{MonitorRecord, Phase};
use crate::optim::{self, Optimiser};
use crate::schedule::Turn;
use crate::stack::Stack;
use crate::watch::Watch;

/// One finished epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Mean training loss; infinite, and absent in JSON, if no sample has a finite one.
    #[serde(deserialize_with = "infinite_if_absent")]
    pub loss: f64,
    /// Training accuracy, measured while the weights moved.
    pub accuracy: f64,
    /// Hidden spikes per training sample.
    pub spikes_per_sample: f64,
    /// Share of training samples with infinite loss, which the mean leaves out: their class did not fire.
    #[serde(default)]
    pub infinite_share: f64,
    /// Updates left out because their gradient was not finite.
    #[serde(default)]
    pub skipped_updates: usize,
    /// Of neurons that spike at most once: spikes per training sample that would have come before their window.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub early_per_sample: f64,
    /// The learning rate, that of the last update if it changes within the epoch.
    pub learning_rate: f64,
    /// Test accuracy, if it was measured after this epoch.
    pub test_accuracy: Option<f64>,
    /// Of a model in continuous time, where it was tested: accuracy by other ways of reading its output spikes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_readings: Vec<(String, f64)>,
    /// Seconds of the epoch, evaluation excluded.
    pub seconds: f64,
    /// Of these, forward passes.
    pub forward_seconds: f64,
    /// Of these, backward passes.
    pub backward_seconds: f64,
    /// Of these, waiting for data.
    pub data_seconds: f64,
}

/// JSON has no infinity.
fn infinite_if_absent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Samples.
    pub samples: usize,
    /// Share of correct samples.
    pub accuracy: f64,
    /// Mean loss; infinite, and absent in JSON, if no sample has a finite one.
    #[serde(deserialize_with = "infinite_if_absent")]
    pub loss: f64,
    /// Share of samples with infinite loss.
    pub infinite_share: f64,
    /// Hidden spikes per sample.
    pub spikes_per_sample: f64,
    /// The same for every spiking layer; in continuous time the output neurons come last.
    pub spikes_per_layer: Vec<f64>,
    /// Of a model in continuous time: the share of correct samples by other ways of reading its output spikes.
    pub readings: Vec<(String, f64)>,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Test accuracy of the result.
    pub test_accuracy: f64,
    /// Test loss of the result.
    #[serde(deserialize_with = "infinite_if_absent")]
    pub test_loss: f64,
    /// Hidden spikes per test sample.
    pub spikes_per_sample: f64,
    /// Training time in seconds, over all sessions of the run.
    pub seconds: f64,
    /// Mean seconds of an epoch, the first one left out if there are several.
    pub epoch_seconds: f64,
    /// Trainable and fixed parameters.
    pub parameters: usize,
    /// The data's label if it is no published set.
    pub data_label: Option<String>,
    /// The epoch after which the run was given up because it had collapsed.
    pub collapsed: Option<u32>,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
}

/// What watches a run; every method does nothing unless it is overridden.
pub trait Observer {
    /// The model is built and the data is open.
    fn started(&mut self, info: &RunInfo) {
        let _ = info;
    }
    /// A batch is done.
    fn batch(&mut self, progress: &BatchProgress) {
        let _ = progress;
    }
    /// An epoch is done.
    fn epoch(&mut self, record: &EpochRecord) {
        let _ = record;
    }
    /// A monitor has something to say.
    fn monitor(&mut self, record: &MonitorRecord) {
        let _ = record;
    }
    /// The layers' state on the first batch of an epoch.
    fn health(&mut self, epoch: u32, report: &[LayerHealth]) {
        let _ = (epoch, report);
    }
    /// Something that a person may want to know.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// What a run is about to do.
#[derive(Debug, Clone, Serialize)]
pub struct RunInfo {
    /// The experiment's name.
    pub name: String,
    /// The training split.
    pub data: String,
    /// The data's label if it is no published set.
    pub data_label: Option<String>,
    /// Training samples.
    pub train_samples: usize,
    /// Test samples.
    pub test_samples: usize,
    /// Parameters.
    pub parameters: usize,
    /// Layers in words.
    pub layers: Vec<String>,
    /// The device in words.
    pub device: String,
    /// Epochs that are finished already.
    pub finished_epochs: u32,
    /// Epochs in all.
    pub epochs: u32,
}

/// Where an epoch stands.
#[derive(Debug, Clone, Copy)]
pub struct BatchProgress {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Finished batches.
    pub batch: usize,
    /// Batches of the epoch.
    pub batches: usize,
    /// Mean loss so far in this epoch.
    pub loss: f64,
    /// Accuracy so far in this epoch.
    pub accuracy: f64,
    /// Hidden spikes per sample of this batch.
    pub spikes_per_sample: f64,
}

/// Where a run reads and writes.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Where data is.
    pub data: OpenOptions,
    /// Directory of logs, checkpoints and the result; nothing is written without one.
    pub out: Option<PathBuf>,
    /// The weights to begin with, a `model.safetensors` of the same layers; drawn from the seed without one. A run that is
    /// resumed does not read them again.
    pub weights: Option<PathBuf>,
    /// Go on from the last checkpoint in `out`, if there is one.
    pub resume: bool,
    /// Log loss and spikes of every batch.
    pub log_batches: bool,
}

/// A data set, opened with the pipeline that an experiment gives it.
#[derive(Debug)]
pub struct Split {
    /// The samples.
    pub source: Arc<dyn Source>,
    /// How they become input.
    pub pipeline: Arc<Pipeline>,
    limit: Option<usize>,
}

impl Split {
    /// Opens the training split of an experiment, with augmentation.
    ///
    /// # Errors
    ///
    /// If the data is not there or the encoding does not fit it.
    pub fn train(experiment: &Experiment, options: &RunOptions) -> Result<Self> {
        let data = &experiment.data;
        Self::open(experiment, &data.train, data.augment.clone(), data.train_samples, options)
    }

    /// Opens the test split of an experiment, with the augmentation of test samples alone.
    ///
    /// # Errors
    ///
    /// As [`Split::train`].
    pub fn test(experiment: &Experiment, options: &RunOptions) -> Result<Self> {
        let data = &experiment.data;
        Self::open(experiment, &data.test, data.test_augment.clone(), data.test_samples, options)
    }

    fn open(
        experiment: &Experiment,
        split: &str,
        augment: Vec<snn_data::Augment>,
        samples: usize,
        options: &RunOptions,
    ) -> Result<Self> {
        let source = snn_data::open(&experiment.data.set, split, &options.data)?;
        let pipeline = Pipeline::new(experiment.data.encode.clone(), augment, source.kind())?;
        check_window(&experiment.data.encode, &*source)?;
        Ok(Self { source, pipeline: Arc::new(pipeline), limit: (samples > 0).then_some(samples) })
    }

    /// Samples that will be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limit.unwrap_or(usize::MAX).min(self.source.len())
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn loader(&self, options: LoaderOptions) -> Result<Loader> {
        let options = LoaderOptions { limit: self.limit, ..options };
        Ok(Loader::new(self.source.clone(), self.pipeline.clone(), options)?)
    }
}

/// Refuses a window that is longer than the data: all events would fall into one step.
///
/// The first samples stand for all of them.
fn check_window(encode: &Encode, source: &dyn Source) -> Result<()> {
    const SAMPLES: usize = 32;
    let window = match *encode {
        Encode::Align { dt_ms, .. } => dt_ms,
        Encode::Bin { steps, dt_ms, .. } if steps > 1 => dt_ms,
        _ => return Ok(()),
    };
    let (mut sample, mut longest) = (Sample::default(), 0.0_f32);
    for index in 0..source.len().min(SAMPLES) {
        source.read(index, &mut sample)?;
        longest = sample.times.iter().fold(longest, |longest, &time| longest.max(1000.0 * time));
    }
    if longest > 0.0 && window > longest {
        let reason = format!("the window is longer than the data: {} ends after {longest} ms", source.name());
        return Err(Error::config(format!("data.encode.dt_ms = {window}"), reason));
    }
    Ok(())
}

/// Puts a batch on the device, in buffers that are used again.
#[derive(Debug)]
pub struct Upload<B: Backend> {
    signal: Signal,
    activity: Activity<B>,
}

impl<B: Backend> Upload<B> {
    /// No batch yet; `signal` is what the pipeline gives for a sample.
    pub fn new(device: &B, signal: Signal) -> Self {
        Self { signal, activity: Activity::Spikes(device.spikes()) }
    }

    /// The activity of a kind as a tensor of the given axes, with the host's values.
    fn dense(&mut self, device: &B, kind: Kind, shape: &[usize], host: &[f32]) -> Result<()> {
        if self.activity.kind() != kind {
            let empty = Tensor::zeros(device, &[0])?;
            self.activity = if kind == Kind::Values { Activity::Values(empty) } else { Activity::Sequence(empty) };
        }
        if let Activity::Values(x) | Activity::Sequence(x) = &mut self.activity {
            x.resize(device, shape)?;
            let lifted: Vec<B::Real> = host.iter().map(|&v| B::Real::lit(v.into())).collect();
            device.upload(&lifted, &mut x.data)?;
        }
        Ok(())
    }

    /// Copies the input of a batch.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn batch(&mut self, device: &B, batch: &Batch) -> Result<&Activity<B>> {
        match &batch.input {
            Input::Spikes(host) => {
                if self.activity.kind() != Kind::Spikes {
                    self.activity = Activity::Spikes(device.spikes());
                }
                if let Activity::Spikes(spikes) = &mut self.activity {
                    device.upload_spikes(host, spikes)?;
                }
            }
            Input::Trains(host) => {
                if self.activity.kind() != Kind::Trains {
                    self.activity = Activity::Trains(Trains::empty(device, 0)?);
                }
                if let Activity::Trains(trains) = &mut self.activity {
                    trains.upload(device, host)?;
                }
            }
            Input::Values(host) => {
                self.dense(device, Kind::Values, &[batch.labels.len(), self.signal.width()], host)?;
            }
            Input::Sequence(host) => {
                let shape = [batch.labels.len(), self.signal.steps, self.signal.width()];
                self.dense(device, Kind::Sequence, &shape, host)?;
            }
        }
        Ok(&self.activity)
    }
}

/// Spikes of the last forward pass, per spiking layer; in continuous time the output neurons come last.
fn spikes_per_layer<B: Backend>(device: &B, stack: &Stack<B>) -> Result<Vec<u64>> {
    let sum = |counts: snn_core::Result<Vec<u32>>| counts.map(|n| n.into_iter().map(u64::from).sum());
    let of = |layer: &dyn Layer<B>| match (layer.spikes(), layer.trains(), layer.first_spikes()) {
        (Some(spikes), _, _) => Some(sum(device.events_per_sample(spikes))),
        (None, Some(trains), _) => Some(Ok(trains.events(device) as u64)),
        (None, None, Some(first)) => Some(sum(device.to_host(&first.census.fired))),
        (None, None, None) => None,
    };
    Ok(stack.layers().filter_map(of).collect::<snn_core::Result<_>>()?)
}

/// Spikes of the last forward pass that would have come before their window, of neurons that spike at most once.
fn early_spikes<B: Backend>(device: &B, stack: &Stack<B>) -> Result<u64> {
    let mut sum = 0;
    for first in stack.layers().filter_map(Layer::first_spikes) {
        sum += device.to_host(&first.census.early)?.into_iter().map(u64::from).sum::<u64>();
    }
    Ok(sum)
}

/// Of the spikes of all layers those of hidden neurons.
fn hidden<'a, B: Backend, T>(stack: &Stack<B>, layers: &'a [T]) -> &'a [T] {
    &layers[..layers.len() - usize::from(stack.is_event_driven())]
}

/// The logits of a batch in evaluation: the mean over several passes, which differ where neurons fire at random.
#[derive(Debug)]
pub struct MeanLogits<B: Backend> {
    draws: u32,
    mean: Activity<B>,
}

impl<B: Backend> MeanLogits<B> {
    /// The mean over `draws` passes, at least one.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, draws: u32) -> Result<Self> {
        Ok(Self { draws: draws.max(1), mean: Activity::Values(Tensor::zeros(device, &[0])?) })
    }

    /// Runs the model on batch `index`; `after` sees it after each pass.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn run(
        &mut self,
        device: &B,
        stack: &mut Stack<B>,
        input: &Activity<B>,
        index: usize,
        mut after: impl FnMut(&Stack<B>) -> Result<()>,
    ) -> Result<&Activity<B>> {
        for draw in 0..self.draws {
            stack.forward(device, input, Pass::evaluate(index as u32 * self.draws + draw))?;
            after(stack)?;
            let logits = stack.output().values("the mean over passes")?;
            if let Activity::Values(mean) = &mut self.mean {
                mean.resize(device, &logits.shape)?;
                if draw == 0 {
                    device.fill(&mut mean.data, B::Real::ZERO)?;
                }
                device.add_scaled(1.0 / f64::from(self.draws), &logits.data, &mut mean.data)?;
            }
        }
        Ok(&self.mean)
    }
}

/// The penalty on firing rates: its value, and its gradient on every spike and every recurrent spike.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RatePenalty {
    /// What it adds to the loss.
    pub value: f64,
    /// On every hidden spike.
    pub on_spikes: f64,
    /// On every spike that a layer sent to itself.
    pub on_recurrent: f64,
}

impl RatePenalty {
    /// The penalty of the last forward pass.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn of<B: Backend>(device: &B, stack: &Stack<B>, config: &RateConfig) -> Result<Self> {
        let own: Vec<_> = stack.layers().filter_map(|l| l.spikes()).collect();
        let recurrent: Vec<_> = stack.layers().filter_map(|l| l.recurrent_spikes()).collect();
        let (first, on_spikes) = Self::hinge(device, &own, config.limit)?;
        let (second, on_recurrent) = Self::hinge(device, &recurrent, config.recurrent_limit)?;
        Ok(Self { value: first + second, on_spikes, on_recurrent })
    }

    /// The square of what the sum of all rates has above the limit, and its derivative by a spike.
    fn hinge<B: Backend>(device: &B, layers: &[&B::Spikes], limit: f64) -> Result<(f64, f64)> {
        if limit == 0.0 {
            return Ok((0.0, 0.0));
        }
        let (mut rates, mut neurons, mut rows) = (0.0, 0, 0);
        for spikes in layers {
            let lanes = device.spike_lanes(spikes);
            let events: u64 = device.events_per_sample(spikes)?.into_iter().map(u64::from).sum();
            (neurons, rows) = (neurons + lanes.width, lanes.rows());
            rates += events as f64 / lanes.rows().max(1) as f64;
        }
        let excess = (rates - limit * neurons as f64).max(0.0);
        Ok((excess * excess, 2.0 * excess / rows.max(1) as f64))
    }
}

/// Runs a model over a split without training.
///
/// # Errors
///
/// If the data or the device fails.
pub fn evaluate<B: Backend>(
    device: &B,
    stack: &mut Stack<B>,
    split: &Split,
    config: &TrainConfig,
) -> Result<Evaluation> {
    evaluate_seen(device, stack, split, config, |_, _, _, _| Ok(()))
}

/// As [`evaluate`]; `seen` is called after every batch.
///
/// # Errors
///
/// As [`evaluate`], and what `seen` gives.
pub fn evaluate_seen<B: Backend>(
    device: &B,
    stack: &mut Stack<B>,
    split: &Split,
    config: &TrainConfig,
    mut seen: impl FnMut(&Stack<B>, &Batch, Scores, &Loss<B>) -> Result<()>,
) -> Result<Evaluation> {
    let mut scores = Scores::default();
    let mut spikes: Vec<u64> = Vec::new();
    let mut upload = Upload::new(device, split.pipeline.signal());
    let mut loss = Loss::new(device, config.loss)?;
    let mut logits = MeanLogits::new(device, config.evaluate_draws)?;
    let mut readings = Readings::new(device, stack)?;
    for next in split.loader(LoaderOptions { batch: config.batch, ..LoaderOptions::default() })? {
        let next = next?;
        let input = upload.batch(device, &next)?;
        let logits = logits.run(device, stack, input, next.index, |stack| {
            let layers = spikes_per_layer(device, stack)?;
            spikes.resize(layers.len(), 0);
            spikes.iter_mut().zip(layers).for_each(|(sum, n)| *sum += n);
            Ok(())
        })?;
        let batch = loss.forward(device, logits, &next.labels)?;
        scores.add(batch);
        readings.add(device, stack, &next.labels)?;
        seen(stack, &next, batch, &loss)?;
    }
    let per_sample = |n: u64| n as f64 / (scores.samples.max(1) * config.evaluate_draws.max(1) as usize) as f64;
    Ok(Evaluation {
        samples: scores.samples,
        accuracy: scores.accuracy(),
        loss: scores.loss(),
        infinite_share: scores.infinite_share(),
        spikes_per_sample: per_sample(hidden(stack, &spikes).iter().sum()),
        spikes_per_layer: spikes.into_iter().map(per_sample).collect(),
        readings: readings.shares(scores.samples),
    })
}

/// The ways in which the output spikes of a model in continuous time can be read, whatever it was trained for.
struct Readings<B: Backend> {
    ways: Vec<(&'static str, TrainReadout, usize)>,
    values: B::Buffer<B::Real>,
}

impl<B: Backend> Readings<B> {
    fn new(device: &B, stack: &Stack<B>) -> Result<Self> {
        let ways: &[_] = match stack.is_event_driven() {
            true => &[
                ("count", TrainReadout::Count, 0),
                ("first spike", TrainReadout::FirstSpike { tau: 1.0 }, 0),
                ("decaying count", TrainReadout::Decay { rate: 1.0, exact: true }, 0),
            ],
            false => &[],
        };
        Ok(Self { ways: ways.to_vec(), values: device.zeros(0)? })
    }

    fn add(&mut self, device: &B, stack: &Stack<B>, labels: &[u32]) -> Result<()> {
        let Some(trains) = stack.output_trains() else { return Ok(()) };
        for (_, way, correct) in &mut self.ways {
            device.resize(&mut self.values, labels.len() * trains.width)?;
            device.read_trains(way, trains, &mut self.values)?;
            let values = device.to_host(&self.values)?;
            let rows = values.chunks(trains.width.max(1)).zip(labels);
            *correct += rows.filter(|(row, label)| argmax(row) == **label as usize).count();
        }
        Ok(())
    }

    fn shares(&self, samples: usize) -> Vec<(String, f64)> {
        let share = |correct: usize| correct as f64 / samples.max(1) as f64;
        self.ways.iter().map(|&(name, _, correct)| (name.to_owned(), share(correct))).collect()
    }
}

/// The model of an experiment for the data of a split.
///
/// # Errors
///
/// If the layers do not fit.
pub fn build_model<B: Backend>(device: &B, experiment: &Experiment, split: &Split) -> Result<Stack<B>> {
    let classes = match experiment.data.classes {
        0 => split.source.classes(),
        n if n < split.source.classes() => {
            let reason = format!("the data has {} classes, so at least as many are needed", split.source.classes());
            return Err(Error::config(format!("data.classes = {n}"), reason));
        }
        n => n,
    };
    Stack::build(device, &experiment.model, split.pipeline.signal(), classes, experiment.train.seed)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum LogLine<'a> {
    Run { info: &'a RunInfo, experiment: &'a str },
    Batch { epoch: u32, batch: usize, loss: f64, spikes_per_sample: f64, gradient_norm: Option<f64> },
    Health { epoch: u32, layers: &'a [LayerHealth] },
    Epoch(&'a EpochRecord),
    Monitor(&'a MonitorRecord),
    Result(&'a Summary),
}

/// Trains an experiment on a device.
///
/// With an output directory the run writes `config.toml`, `log.jsonl`, a TensorBoard file, `checkpoints/` and at the
/// end `model.safetensors`. The result has the same bits for any number of threads, and whether or not the run was
/// interrupted and resumed.
///
/// # Errors
///
/// Whatever the configuration, the data, the device or the disk gives; [`Error::Diverged`] if the loss stops being a
/// number. What was saved before stays.
pub fn run<B: Backend>(
    device: &B,
    experiment: &Experiment,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    experiment.check()?;
    let (train, test) = (Split::train(experiment, options)?, Split::test(experiment, options)?);
    let mut stack = build_model(device, experiment, &train)?;
    if let Some(weights) = &options.weights {
        checkpoint::load_model(device, weights, &mut stack)?;
    }
    let mut optimiser = Optimiser::new(device, experiment.train.optimiser, &stack)?;
    let text = experiment.to_toml();
    let mut progress = Progress::default();
    let mut log_bytes = 0;
    let checkpoints = match &options.out {
        Some(out) => {
            let checkpoints = Checkpoints::new(out.join("checkpoints"), text.clone())?;
            if options.resume {
                match checkpoints.resume(device, &mut stack, &mut optimiser)? {
                    Some((found, bytes)) => {
                        (progress, log_bytes) = (found, bytes);
                        observer.note(&format!("resumed after epoch {}, batch {}", progress.epoch, progress.batch));
                    }
                    None => observer.note("no checkpoint yet: starting from the beginning"),
                }
            }
            checkpoint::write_atomic(&out.join("config.toml"), text.as_bytes())?;
            Some(checkpoints)
        }
        None => None,
    };
    let info = RunInfo {
        name: experiment.name.clone(),
        data: train.source.name().to_owned(),
        data_label: train.source.label().map(str::to_owned),
        train_samples: train.len(),
        test_samples: test.len(),
        parameters: stack.parameters().map(|(_, p)| p.value.len()).sum(),
        layers: stack.layers().map(|l| l.name()).collect(),
        device: device.describe(),
        finished_epochs: progress.epoch,
        epochs: experiment.train.epochs,
    };
    observer.started(&info);
    if snn_data::registry::find(&experiment.data.set).is_ok_and(|set| set.format.is_experimental()) {
        let set = &experiment.data.set;
        observer.note(&format!("{set}: the reader is experimental, written from public descriptions of the format"));
    }
    let mut log = options.out.as_ref().map(|out| JsonLines::open(&out.join("log.jsonl"), log_bytes)).transpose()?;
    let board = options.out.as_ref().map(|out| TensorBoard::create(out, unix_seconds())).transpose()?;
    if let (Some(log), 0) = (&mut log, log_bytes) {
        log.write(&LogLine::Run { info: &info, experiment: &text })?;
    }
    let monitor = experiment.train.monitor;
    let watch = if monitor.per_epoch > 0 { Some(Watch::new(device, &stack, monitor.snapshots)?) } else { None };
    let mut session = Session {
        watch,
        started: Instant::now(),
        upload: Upload::new(device, train.pipeline.signal()),
        loss: Loss::new(device, experiment.train.loss)?,
        best: None,
        device,
        experiment,
        options,
        train,
        test,
        stack,
        optimiser,
        progress,
        checkpoints,
        log,
        board,
        observer,
    };
    while session.progress.epoch < experiment.train.epochs && session.progress.collapsed.is_none() {
        session.epoch()?;
    }
    session.finish(&info)
}

/// Everything that a run in progress holds.
struct Session<'a, B: Backend> {
    device: &'a B,
    experiment: &'a Experiment,
    options: &'a RunOptions,
    train: Split,
    test: Split,
    stack: Stack<B>,
    optimiser: Optimiser<B>,
    upload: Upload<B>,
    loss: Loss<B>,
    progress: Progress,
    watch: Option<Watch<B>>,
    // When the current epoch began.
    started: Instant,
    // The best weights of a run that writes no checkpoints.
    best: Option<Vec<Vec<B::Real>>>,
    checkpoints: Option<Checkpoints>,
    log: Option<JsonLines>,
    board: Option<TensorBoard>,
    observer: &'a mut dyn Observer,
}

/// Single precision holds the squares of gradients up to this norm.
const LARGEST_NORM: f64 = 1e19;

/// Where the time of an epoch goes.
#[derive(Default)]
struct Clock {
    forward: f64,
    backward: f64,
    data: f64,
}

impl<B: Backend> Session<'_, B> {
    /// One epoch, or what is left of it.
    fn epoch(&mut self) -> Result<()> {
        let config = &self.experiment.train;
        let finished = self.progress.epoch;
        if self.progress.batch == 0
            && config.schedule.turn(finished) == Turn::ReloadBest
            && self.progress.best.is_some()
        {
            self.load_best()?;
            self.optimiser.reset(self.device)?;
        }
        let learning_rate = config.optimiser.learning_rate * config.schedule.factor(finished, config.epochs);
        let start = Instant::now();
        self.started = start;
        self.stack.set_epoch(self.device, finished, config.epochs)?;
        let mut clock = Clock::default();
        let mut loader = self.train.loader(LoaderOptions {
            batch: config.batch,
            seed: config.seed,
            epoch: finished,
            shuffle: true,
            first_batch: self.progress.batch,
            ..LoaderOptions::default()
        })?;
        let batches = loader.batches();
        let mut waiting = Instant::now();
        while let Some(batch) = loader.next() {
            let batch = batch?;
            clock.data += waiting.elapsed().as_secs_f64();
            self.batch(&batch, batches, learning_rate, &mut clock)?;
            loader.recycle(batch);
            let every = config.checkpoint_batches;
            if every > 0 && self.progress.batch.is_multiple_of(every) && self.progress.batch < batches {
                self.save()?;
            }
            waiting = Instant::now();
        }
        if loader.dropped() > 0 && finished == 0 {
            let dropped = loader.dropped();
            self.observer.note(&format!("{dropped} events lie after the last time step and are left out"));
        }
        let seconds = start.elapsed().as_secs_f64();
        let last = self.optimiser.step().saturating_sub(1);
        self.end_epoch(learning_rate * config.schedule.factor_at(last), seconds, &clock)
    }

    fn batch(&mut self, batch: &Batch, batches: usize, learning_rate: f64, clock: &mut Clock) -> Result<()> {
        let (device, epoch) = (self.device, self.progress.epoch + 1);
        let config = &self.experiment.train;
        let start = Instant::now();
        let input = self.upload.batch(device, batch)?;
        self.stack.forward(device, input, Pass::train(self.optimiser.step() as u32))?;
        self.loss.queue(device, self.stack.output(), &batch.labels)?;
        let mut penalty = 0.0;
        if config.rates != RateConfig::default() {
            let rates = RatePenalty::of(device, &self.stack, &config.rates)?;
            penalty = rates.value;
            self.stack.set_rate_gradient(rates.on_spikes, rates.on_recurrent);
        }
        clock.forward += start.elapsed().as_secs_f64();
        let start = Instant::now();
        // Queued before anything is read, so that the device has work while the host waits.
        self.stack.backward(device, input, self.loss.grad())?;
        let mut scores = self.loss.scores(device, self.stack.output(), &batch.labels)?;
        scores.loss_sum += penalty * scores.samples as f64;
        let spikes: u64 = hidden(&self.stack, &spikes_per_layer(device, &self.stack)?).iter().sum();
        let early = early_spikes(device, &self.stack)?;
        if let Some(watch) = &mut self.watch {
            watch.batch(device, Phase::Train, &self.stack, &batch.labels, (scores, &self.loss))?;
        }
        let events = self.stack.is_event_driven();
        if !scores.loss_sum.is_finite() || (scores.infinite > 0 && !events) {
            let hint = "lower train.optimiser.learning_rate or set train.clip_norm".into();
            return Err(Error::Diverged { loss: scores.loss(), epoch, batch: batch.index + 1, hint });
        }
        if config.wake_labels > 0.0 {
            optim::wake_labels(device, &mut self.stack, &batch.labels, config.wake_labels)?;
        }
        let norm = match config.clip_norm {
            0.0 if events => Some(optim::gradient_norm(device, &self.stack)?),
            0.0 => None,
            limit => Some(optim::clip_norm(device, &mut self.stack, limit)?),
        };
        if batch.index == 0 {
            let report = health::examine(device, &self.stack)?;
            self.observer.health(epoch, &report);
            if let Some(log) = &mut self.log {
                log.write(&LogLine::Health { epoch, layers: &report })?;
            }
        }
        // Event-driven neurons that hardly reach their threshold have gradients without a bound; their squares, too, must
        // be numbers.
        if events && !norm.is_some_and(|norm| norm < LARGEST_NORM) {
            self.progress.scores.skipped += 1;
        } else {
            let within = config.schedule.factor_at(self.optimiser.step());
            self.optimiser.update(device, &mut self.stack, learning_rate * within)?;
        }
        clock.backward += start.elapsed().as_secs_f64();

        self.progress.scores.add(scores, (spikes, early));
        self.progress.batch = batch.index + 1;
        self.progress.optimiser_step = self.optimiser.step();
        let spikes_per_sample = spikes as f64 / scores.samples.max(1) as f64;
        if let (Some(log), true) = (&mut self.log, self.options.log_batches) {
            let (batch, loss) = (batch.index + 1, scores.loss());
            log.write(&LogLine::Batch { epoch, batch, loss, spikes_per_sample, gradient_norm: norm })?;
        }
        // A record is due where another part of the epoch is over.
        let per_epoch = config.monitor.per_epoch as usize;
        let part = |done: usize| done * per_epoch / batches.max(1);
        if part(batch.index + 1) > part(batch.index) {
            let at = f64::from(epoch - 1) + (batch.index + 1) as f64 / batches as f64;
            self.monitor(Phase::Train, at, (self.started.elapsed().as_secs_f64(), Some(learning_rate)))?;
        }
        let so_far = self.progress.scores.scores();
        self.observer.batch(&BatchProgress {
            epoch,
            batch: batch.index + 1,
            batches,
            loss: so_far.loss(),
            accuracy: so_far.accuracy(),
            spikes_per_sample,
        });
        Ok(())
    }

    fn end_epoch(&mut self, learning_rate: f64, seconds: f64, clock: &Clock) -> Result<()> {
        let config = &self.experiment.train;
        let finished = self.progress.epoch + 1;
        let sums = std::mem::take(&mut self.progress.scores);
        let scores = sums.scores();
        let every = config.evaluate_every;
        let choosing = config.keep == Keep::BestTestAccuracy;
        let wanted = every > 0 && finished.is_multiple_of(every) && (finished < config.epochs || choosing);
        let test = if wanted { Some(self.measure(finished)?) } else { None };
        let record = EpochRecord {
            epoch: finished,
            loss: scores.loss(),
            accuracy: scores.accuracy(),
            spikes_per_sample: sums.spikes as f64 / scores.samples.max(1) as f64,
            infinite_share: scores.infinite_share(),
            skipped_updates: sums.skipped,
            early_per_sample: sums.early as f64 / scores.samples.max(1) as f64,
            learning_rate,
            test_accuracy: test.as_ref().map(|t| t.accuracy),
            test_readings: test.map(|t| t.readings).unwrap_or_default(),
            seconds,
            forward_seconds: clock.forward,
            backward_seconds: clock.backward,
            data_seconds: clock.data,
        };
        self.observer.epoch(&record);
        if let Some(log) = &mut self.log {
            log.write(&LogLine::Epoch(&record))?;
        }
        if let Some(board) = &mut self.board {
            let mut scalars = vec![
                ("train/loss", record.loss),
                ("train/accuracy", record.accuracy),
                ("train/spikes_per_sample", record.spikes_per_sample),
                ("train/learning_rate", record.learning_rate),
            ];
            scalars.extend(record.test_accuracy.map(|a| ("test/accuracy", a)));
            board.scalars(unix_seconds(), finished.into(), &scalars)?;
        }
        self.progress.seconds += seconds;
        self.progress.epoch = finished;
        self.progress.batch = 0;
        let rank = match config.keep {
            Keep::BestTrainingLoss | Keep::Last => record.loss,
            Keep::BestTrainingAccuracy => -record.accuracy,
            Keep::BestTestAccuracy => -record.test_accuracy.unwrap_or_default(),
        };
        let top = self.progress.history.iter().fold(0.0_f64, |top, r| top.max(r.accuracy));
        if record.accuracy < config.collapse * top {
            self.progress.collapsed = Some(finished);
            let (now, top) = (100.0 * record.accuracy, 100.0 * top);
            self.observer.note(&format!(
                "collapsed: training accuracy {now:.1} % after epoch {finished}, at best {top:.1} %; the run ends here \
                 with the weights of epoch {}",
                self.progress.best_epoch
            ));
        }
        self.progress.history.push(record);
        if rank.is_finite() && self.progress.best.is_none_or(|best| rank < best) {
            (self.progress.best, self.progress.best_epoch) = (Some(rank), finished);
            match &self.checkpoints {
                Some(checkpoints) => checkpoints.save_best(self.device, &self.stack, finished)?,
                None => {
                    let values = self.stack.parameters().map(|(_, p)| self.device.to_host(&p.value.data));
                    self.best = Some(values.collect::<snn_core::Result<_>>()?);
                }
            }
        }
        self.save()
    }

    /// Measures the test set, and writes down what the monitors say of it.
    fn measure(&mut self, finished: u32) -> Result<Evaluation> {
        let (device, config) = (self.device, &self.experiment.train);
        let start = Instant::now();
        let mut watch = self.watch.take();
        let test = evaluate_seen(device, &mut self.stack, &self.test, config, |stack, batch, scores, loss| {
            let Some(watch) = &mut watch else { return Ok(()) };
            if batch.index == 0 && config.monitor.snapshots {
                watch.keep_raster(device, stack, batch.labels[0])?;
            }
            watch.batch(device, Phase::Test, stack, &batch.labels, (scores, loss))
        })?;
        self.watch = watch;
        if let (Some(watch), Some(out)) = (&mut self.watch, &self.options.out)
            && let Some(snapshot) = watch.snapshot(finished)
        {
            snapshot.write(out)?;
        }
        self.monitor(Phase::Test, f64::from(finished), (start.elapsed().as_secs_f64(), None))?;
        Ok(test)
    }

    /// Writes down what the monitors of a phase say.
    fn monitor(&mut self, phase: Phase, epoch: f64, time_and_rate: (f64, Option<f64>)) -> Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let record = watch.record(self.device, phase, &self.stack, epoch, time_and_rate)?;
        self.observer.monitor(&record);
        self.log.as_mut().map_or(Ok(()), |log| log.write(&LogLine::Monitor(&record)))
    }

    fn save(&mut self) -> Result<()> {
        let log_bytes = self.log.as_ref().map_or(0, JsonLines::bytes);
        match &self.checkpoints {
            Some(c) => c.save(self.device, &self.stack, &self.optimiser, &self.progress, log_bytes),
            None => Ok(()),
        }
    }

    fn load_best(&mut self) -> Result<()> {
        if let Some(checkpoints) = &self.checkpoints {
            return checkpoints.load_best(self.device, &mut self.stack, self.progress.best_epoch);
        }
        for (p, values) in self.stack.parameters_mut().zip(self.best.iter().flatten()) {
            self.device.upload(values, &mut p.value.data)?;
        }
        Ok(())
    }

    fn finish(mut self, info: &RunInfo) -> Result<Summary> {
        let config = &self.experiment.train;
        let last = config.keep == Keep::Last && self.progress.collapsed.is_none();
        if !last && self.progress.best.is_some() {
            self.load_best()?;
        }
        let test = evaluate(self.device, &mut self.stack, &self.test, config)?;
        if let Some(out) = &self.options.out {
            let text = self.experiment.to_toml();
            checkpoint::save_model(self.device, &out.join("model.safetensors"), &self.stack, &text)?;
        }
        let history = self.progress.history;
        let counted = &history[usize::from(history.len() > 1)..];
        let epoch_seconds = counted.iter().map(|r| r.seconds).sum::<f64>() / counted.len().max(1) as f64;
        let summary = Summary {
            test_accuracy: test.accuracy,
            test_loss: test.loss,
            spikes_per_sample: test.spikes_per_sample,
            seconds: self.progress.seconds,
            epoch_seconds,
            parameters: info.parameters,
            data_label: info.data_label.clone(),
            collapsed: self.progress.collapsed,
            history,
        };
        if let Some(log) = &mut self.log {
            log.write(&LogLine::Result(&summary))?;
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use snn_data::{InMemory, SourceKind};

    use super::*;
    use crate::presets;

    #[test]
    fn window_longer_than_the_data_is_refused_with_both_numbers() {
        let mut source = InMemory::empty("short", SourceKind::Events { units: 3, sensor: None }, vec!["0".into()]);
        source.push(&Sample { units: vec![0, 2], times: vec![0.25, 0.75], ..Sample::default() });
        let bin = |steps, dt_ms| Encode::Bin { steps, dt_ms, units: 0 };
        let align = |dt_ms| match presets::find("paralif-shd-d").unwrap().experiment.data.encode {
            Encode::Align { steps, rule, half, units, group, side, channel, .. } => {
                Encode::Align { steps, dt_ms, rule, half, units, group, side, channel }
            }
            other => panic!("{other:?}"),
        };
        for encode in [align(5.0), align(750.0), bin(10, 5.0), bin(1, 1000.0)] {
            check_window(&encode, &source).unwrap();
        }
        for encode in [align(1000.0), bin(2, 1000.0)] {
            let message = check_window(&encode, &source).unwrap_err().to_string();
            let want = "data.encode.dt_ms = 1000: the window is longer than the data: short ends after 750 ms";
            assert_eq!(message, want);
        }
    }
}
