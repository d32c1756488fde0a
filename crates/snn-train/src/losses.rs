//! Losses: a value for each sample and the gradient of the batch mean.

use snn_core::{Activity, Backend, Real, Tensor};

use crate::config::LossConfig;
use crate::error::{Error, Result};

/// Softmax cross entropy of logits, mean over the batch; buffers live as long as the model.
#[derive(Debug)]
pub struct CrossEntropy<B: Backend> {
    targets: B::Buffer<u32>,
    losses: B::Buffer<B::Real>,
    /// The gradient on the logits, `[B, K]`.
    pub grad: Tensor<B>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Samples.
    pub samples: usize,
    /// Sum of the samples' losses, those that are infinite left out.
    pub loss_sum: f64,
    /// Samples with infinite loss: of a network in continuous time, one whose class did not fire.
    pub infinite: usize,
    /// Samples whose largest logit is that of their class.
    pub correct: usize,
}

impl Scores {
    /// Adds another batch.
    pub fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.loss_sum += other.loss_sum;
        self.infinite += other.infinite;
        self.correct += other.correct;
    }

    /// Mean loss of the samples that have a finite one; infinite if none has.
    #[must_use]
    pub fn loss(&self) -> f64 {
        match self.samples - self.infinite {
            0 if self.samples > 0 => f64::INFINITY,
            finite => self.loss_sum / finite.max(1) as f64,
        }
    }

    /// Share of samples with infinite loss.
    #[must_use]
    pub fn infinite_share(&self) -> f64 {
        self.infinite as f64 / self.samples.max(1) as f64
    }

    /// Share of correct samples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.samples.max(1) as f64
    }
}

impl<B: Backend> CrossEntropy<B> {
    /// A loss without a batch.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B) -> Result<Self> {
        Ok(Self { targets: device.zeros(0)?, losses: device.zeros(0)?, grad: Tensor::zeros(device, &[0])? })
    }

    /// Computes losses, predictions and the gradient of a batch.
    ///
    /// # Errors
    ///
    /// If `logits` are no values, a label is not below the number of logits, or the device fails.
    pub fn forward(&mut self, device: &B, logits: &Activity<B>, labels: &[u32]) -> Result<Scores> {
        self.queue(device, logits, labels)?;
        scores(device, &self.losses, logits.values("the loss")?, labels)
    }

    fn queue(&mut self, device: &B, logits: &Activity<B>, labels: &[u32]) -> Result<()> {
        let logits = logits.values("the loss")?;
        let classes = logits.len() / labels.len().max(1);
        check_labels(labels, classes)?;
        device.resize(&mut self.targets, labels.len())?;
        device.upload(labels, &mut self.targets)?;
        device.resize(&mut self.losses, labels.len())?;
        self.grad.resize(device, &logits.shape)?;
        device.softmax_cross_entropy(classes, &logits.data, &self.targets, &mut self.losses, &mut self.grad.data)?;
        Ok(())
    }
}

/// Labels are checked here, because a device that finds a wrong one could not say so without being waited for.
fn check_labels(labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().find(|&&label| label as usize >= classes) {
        Some(&unit) => Err(Error::Core(snn_core::Error::Unit { op: "the loss", unit, width: classes })),
        None => Ok(()),
    }
}

/// What a batch came to.
fn scores<B: Backend>(device: &B, losses: &B::Buffer<B::Real>, logits: &Tensor<B>, labels: &[u32]) -> Result<Scores> {
    let losses = device.to_host(losses)?;
    let values = device.to_host(&logits.data)?;
    let classes = logits.len() / labels.len().max(1);
    let correct = values.chunks(classes.max(1)).zip(labels).filter(|(row, label)| argmax(row) == **label as usize);
    let losses = losses.iter().map(|l| l.value());
    let infinite = losses.clone().filter(|&l| l == f64::INFINITY).count();
    let loss_sum = losses.filter(|&l| l != f64::INFINITY).sum();
    Ok(Scores { samples: labels.len(), loss_sum, infinite, correct: correct.count() })
}

/// The loss of a configuration: cross entropy of labels, plain or smoothed, or squared error.
///
/// A smoothed label gives its class `1 - s + s / K` and the other classes `s / K` each.
#[derive(Debug)]
pub struct Loss<B: Backend> {
    config: LossConfig,
    hard: CrossEntropy<B>,
    // `[B, K]`
    shares: B::Buffer<B::Real>,
}

impl<B: Backend> Loss<B> {
    /// A loss without a batch.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: LossConfig) -> Result<Self> {
        Ok(Self { config, hard: CrossEntropy::new(device)?, shares: device.zeros(0)? })
    }

    /// Computes losses, predictions and the gradient of a batch.
    ///
    /// # Errors
    ///
    /// As [`Loss::queue`].
    pub fn forward(&mut self, device: &B, logits: &Activity<B>, labels: &[u32]) -> Result<Scores> {
        self.queue(device, logits, labels)?;
        self.scores(device, logits, labels)
    }

    /// Reads what the queued losses came to, for which the host waits.
    ///
    /// # Errors
    ///
    /// If `logits` are no values or the device fails.
    pub fn scores(&self, device: &B, logits: &Activity<B>, labels: &[u32]) -> Result<Scores> {
        scores(device, &self.hard.losses, logits.values("the loss")?, labels)
    }

    /// Queues losses and the gradient of a batch.
    ///
    /// # Errors
    ///
    /// If `logits` are no values, a label is not below the number of logits, or the device fails.
    pub fn queue(&mut self, device: &B, logits: &Activity<B>, labels: &[u32]) -> Result<()> {
        // The share of the class, and that of every other one, from the number of classes.
        let (own, other) = match self.config {
            LossConfig::CrossEntropy { label_smoothing: 0.0 } => return self.hard.queue(device, logits, labels),
            LossConfig::CrossEntropy { label_smoothing } => (1.0 - label_smoothing, label_smoothing),
            LossConfig::Mse => (1.0, 0.0),
            LossConfig::Targets { on, off } => (on - off, off),
        };
        let outputs = logits.values("the loss")?;
        let classes = outputs.len() / labels.len().max(1);
        let other = if let LossConfig::CrossEntropy { .. } = self.config { other / classes as f64 } else { other };
        check_labels(labels, classes)?;
        let mut shares = vec![B::Real::lit(other); outputs.len()];
        for (row, &label) in shares.chunks_mut(classes.max(1)).zip(labels) {
            row[label as usize] = B::Real::lit(own + other);
        }
        device.resize(&mut self.shares, shares.len())?;
        device.upload(&shares, &mut self.shares)?;
        let CrossEntropy { losses, grad, .. } = &mut self.hard;
        device.resize(losses, labels.len())?;
        grad.resize(device, &outputs.shape)?;
        match self.config {
            LossConfig::CrossEntropy { .. } => {
                device.soft_cross_entropy(classes, &outputs.data, &self.shares, losses, &mut grad.data)?;
            }
            LossConfig::Mse => device.squared_error(classes, &outputs.data, &self.shares, losses, &mut grad.data)?,
            LossConfig::Targets { .. } => {
                device.squared_error(classes, &outputs.data, &self.shares, losses, &mut grad.data)?;
                // Half the sum in place of the mean.
                let factor = 0.5 * classes as f64;
                device.scale(factor, losses)?;
                device.scale(factor, &mut grad.data)?;
            }
        }
        Ok(())
    }

    /// The gradient on the logits, `[B, K]`, of the mean loss of the last batch.
    pub fn grad(&self) -> &Tensor<B> {
        &self.hard.grad
    }

    /// The losses of the last batch, `[B]`.
    pub fn losses(&self) -> &B::Buffer<B::Real> {
        &self.hard.losses
    }
}

/// The index of the largest entry, the first if tied.
pub fn argmax<R: PartialOrd>(row: &[R]) -> usize {
    row.iter().enumerate().fold(0, |best, (k, x)| if *x > row[best] { k } else { best })
}
