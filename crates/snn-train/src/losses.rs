//! Losses: a value for each sample and the gradient of the batch mean.

use snn_core::{Activity, Backend, Tensor};

use crate::error::Result;

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
    /// Sum of the samples' losses.
    pub loss_sum: f64,
    /// Samples whose largest logit is that of their class.
    pub correct: usize,
}

impl Scores {
    /// Adds another batch.
    pub fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
    }

    /// Mean loss.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.samples.max(1) as f64
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
        use snn_core::Real;
        let logits = logits.values("the loss")?;
        let classes = logits.len() / labels.len().max(1);
        device.resize(&mut self.targets, labels.len())?;
        device.upload(labels, &mut self.targets)?;
        device.resize(&mut self.losses, labels.len())?;
        self.grad.resize(device, &logits.shape)?;
        device.softmax_cross_entropy(classes, &logits.data, &self.targets, &mut self.losses, &mut self.grad.data)?;
        let losses = device.to_host(&self.losses)?;
        let values = device.to_host(&logits.data)?;
        let correct = values.chunks(classes.max(1)).zip(labels).filter(|(row, label)| argmax(row) == **label as usize);
        Ok(Scores { samples: labels.len(), loss_sum: losses.iter().map(|l| l.value()).sum(), correct: correct.count() })
    }
}

/// The index of the largest entry, the first if tied.
pub fn argmax<R: PartialOrd>(row: &[R]) -> usize {
    row.iter().enumerate().fold(0, |best, (k, x)| if *x > row[best] { k } else { best })
}
