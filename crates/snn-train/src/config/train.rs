//! How to train: optimiser, schedule, loss, penalties.

use serde::{Deserialize, Serialize};

use super::{NoOptions, tenth};

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Epochs.
    pub epochs: u32,
    /// Samples per batch.
    pub batch: usize,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// The learning rate's course.
    pub schedule: ScheduleConfig,
    /// The loss.
    pub loss: LossConfig,
    /// Which weights are the result.
    pub keep: Keep,
    /// Gradients are scaled down to this norm if theirs is larger; 0 for never.
    pub clip_norm: f64,
    /// Of event-driven models: where a sample's class does not fire, and so has no gradient, the gradient on each weight of
    /// that output neuron falls by this factor times the weight's magnitude, so that the weight grows. 0 for never.
    pub wake_labels: f64,
    /// A run stops after an epoch whose training accuracy is below this share of the best epoch's: it has collapsed. 0 for
    /// never.
    pub collapse: f64,
    /// What firing rates may be without a penalty.
    pub rates: RateConfig,
    /// Evaluations take the mean of the logits over so many passes, which differ where neurons fire at random.
    pub evaluate_draws: u32,
    /// Test accuracy is measured every so many epochs, and after the last; 0 for the latter only.
    pub evaluate_every: u32,
    /// What is written down beside the record of every epoch.
    pub monitor: MonitorConfig,
    /// A checkpoint is written every so many batches beside the one after each epoch; 0 for none.
    pub checkpoint_batches: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 128,
            seed: 1,
            optimiser: OptimiserConfig::default(),
            schedule: ScheduleConfig::Constant,
            loss: LossConfig::default(),
            keep: Keep::BestTrainingLoss,
            clip_norm: 0.0,
            wake_labels: 0.0,
            collapse: 0.0,
            rates: RateConfig::default(),
            evaluate_draws: 1,
            evaluate_every: 10,
            monitor: MonitorConfig::default(),
            checkpoint_batches: 0,
        }
    }
}

/// The loss; see [`crate::losses`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// Softmax cross entropy.
    CrossEntropy {
        /// The share of a label that is spread evenly over all classes.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// Mean squared error to 1 for the class and 0 for the others.
    #[serde(deserialize_with = "no_keys")]
    Mse,
    /// Half the squared distance to `on` for the class and `off` for the others, summed over the outputs.
    Targets {
        /// What the output of the class should be.
        on: f64,
        /// What the others should be.
        off: f64,
    },
}

/// Refuses keys beside the kind, which the derived code lets pass for variants without fields.
fn no_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<(), D::Error> {
    NoOptions::deserialize(deserializer).map(|NoOptions {}| ())
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0 }
    }
}

/// Regularisation of firing rates, in spikes per neuron and step: the loss grows by the square of what the sum of all
/// hidden neurons' rates has above the limit times their number (eq. 21 of the SPSN paper).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Limit of the mean rate of hidden neurons; 0 for no penalty.
    pub limit: f64,
    /// The same for what recurrent layers of parallel neurons send to themselves.
    pub recurrent_limit: f64,
}

/// Monitors of a model in continuous time: what they measure is in [`crate::monitor`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// Records of the training set in each epoch; 0 for no monitors. The test set has one for each time it is measured.
    pub per_epoch: u32,
    /// Whether every measurement of the test set leaves the spikes of its first sample, and the mean spike counts of
    /// every neuron by class.
    pub snapshots: bool,
}

/// Which weights a run gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those after the epoch with the lowest training loss, as the block paper does.
    BestTrainingLoss,
    /// Those after the epoch with the highest training accuracy.
    BestTrainingAccuracy,
    /// Those after the epoch with the highest test accuracy, as BATS does; the accuracy of such a choice flatters. Takes
    /// `evaluate_every = 1`.
    BestTestAccuracy,
    /// Those after the last epoch.
    Last,
}

/// The optimiser and its constants; rules in [`snn_core::backend::UpdateRule`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// Which.
    pub kind: OptimiserKind,
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// First decay constant of the Adam family.
    pub beta1: f64,
    /// Second decay constant of the Adam family.
    pub beta2: f64,
    /// Epsilon of the Adam family.
    pub eps: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov momentum for SGD.
    pub nesterov: bool,
    /// Weight decay, on weights alone.
    pub weight_decay: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            kind: OptimiserKind::Adam,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

/// The optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimiserKind {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam.
    Adam,
    /// Adam as Keras has it: epsilon is added to the root of the raw second moment, outside of the correction of its
    /// bias.
    #[serde(rename = "keras-adam")]
    KerasAdam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// Adam with Nesterov's look ahead.
    NAdam,
    /// Adamax.
    Adamax,
}

/// The learning rate's course; see [`crate::schedule`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// The same throughout.
    Constant,
    /// Multiplied by `factor` after each of `epochs`.
    Milestones {
        /// After how many finished epochs.
        epochs: Vec<u32>,
        /// The factor.
        #[serde(default = "tenth")]
        factor: f64,
        /// The block paper's rule: at a milestone the weights go back to the best so far and the optimiser starts
        /// afresh.
        #[serde(default)]
        reload_best: bool,
    },
    /// Multiplied by `factor` after every epoch.
    Exponential {
        /// The factor.
        factor: f64,
    },
    /// Multiplied by `factor` after every so many epochs.
    Step {
        /// Epochs at one rate.
        every: u32,
        /// The factor.
        factor: f64,
        /// The rate never falls below this share of the initial one.
        #[serde(default)]
        floor: f64,
    },
    /// Multiplied by `factor` over every so many updates, a little at each of them.
    Decay {
        /// The factor.
        factor: f64,
        /// Updates in which the rate falls by it.
        steps: f64,
    },
    /// Half a cosine from the initial rate to `floor` times it, after a linear rise over `warmup` epochs.
    Cosine {
        /// Epochs of rise.
        #[serde(default)]
        warmup: u32,
        /// Share of the initial rate at the end.
        #[serde(default)]
        floor: f64,
    },
    /// One rise and one fall, each half a cosine, a step for each epoch: from a 25th of `peak` times the initial rate to
    /// `peak` times it, then down to a 250,000th.
    OneCycle {
        /// The highest rate, in initial rates.
        peak: f64,
        /// Share of the epochs in which the rate rises.
        #[serde(default = "three_tenths")]
        warmup: f64,
    },
}

fn three_tenths() -> f64 {
    0.3
}
