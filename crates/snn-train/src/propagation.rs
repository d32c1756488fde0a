//! How gradients pass through deep networks of neurons that spike once, and how such networks move when they learn.
//!
//! Stanojevic et al. (2024), Nature Communications 15, 6793, on vanishing and exploding gradients. A neuron whose
//! currents `J` stay on meets its threshold with the slope `B`, and is a rectifier with effective weights `w`; see
//! [`snn_core::neurons::ttfs`]. Of one neuron with N inputs:
//!
//! ```text
//! B = 1 + sum of J,     w = J / B,     dx_i / dx_j = w_ij where neuron i fires, 0 where it does not       (PROP-1)
//! dw = P dJ,            P = (I - w 1^T) / B                                                               (PROP-2)
//! dJ = -rate P^T g,     dw = -rate P P^T g,     P P^T = (I - w 1^T - 1 w^T + N w w^T) / B^2               (PROP-3)
//! ```
//!
//! with `g` the gradient on `w`. A slope that is always 1 makes both matrices the identity: gradients are those of
//! rectifiers and so is the way that weights take. Everything here is without units; times are in units of the input's
//! window. What is measured is the network as it is; nothing here assumes (PROP-3).

use nalgebra::{DMatrix, linalg::Schur};
use snn_core::neurons::ttfs::{effective_weight, slope};
use snn_core::{Activity, Backend, Pass, Real};

use crate::config::{LayerConfig, ModelConfig, SlopeConfig, TrainConfig};
use crate::error::{Error, Result};
use crate::losses::{Loss, Scores};
use crate::mapping::{Network, to_rectifiers};
use crate::optim::{Optimiser, gradient_norm};
use crate::stack::Stack;

/// The weights of a layer as those of rectifiers.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveWeights {
    /// The layer of the stack.
    pub layer: usize,
    /// Axes of the weights, the last one the neurons or channels.
    pub shape: Vec<usize>,
    /// `w` of (PROP-1), in the order of the shape; 0 of neurons without a positive slope, which never fire.
    pub weight: Vec<f64>,
    /// `B` of each neuron or channel; 1 where it does not depend on the weights.
    pub slopes: Vec<f64>,
    /// Whether the slopes depend on the weights.
    pub sloped: bool,
}

impl EffectiveWeights {
    /// How many neurons have no positive slope.
    #[must_use]
    pub fn without_slope(&self) -> usize {
        self.slopes.len() - self.slopes.iter().filter(|slope| **slope > 0.0).count()
    }

    /// The eigenvalues of the Jacobian of a dense layer with as many inputs as neurons, all of which fire; none of
    /// others.
    ///
    /// # Errors
    ///
    /// As [`eigenvalues`].
    pub fn spectrum(&self) -> Result<Option<Vec<Eigenvalue>>> {
        match self.shape[..] {
            [inputs, outputs] if inputs == outputs => eigenvalues(&self.weight, inputs).map(Some),
            _ => Ok(None),
        }
    }

    /// `P P^T g` of (PROP-3) for gradients `g` on the effective weights, by neuron: what a step of gradient descent on
    /// the currents does to the effective weights, by minus the learning rate. 0 for neurons without a positive slope,
    /// and `g` itself where slopes are 1 whatever the weights are.
    #[must_use]
    pub fn skewed(&self, gradient: &[f64]) -> Vec<f64> {
        if !self.sloped {
            return gradient.to_vec();
        }
        let width = self.slopes.len().max(1);
        let fan_in = (self.weight.len() / width) as f64;
        let (mut sums, mut products) = (vec![0.0; width], vec![0.0; width]);
        for (i, (w, g)) in self.weight.iter().zip(gradient).enumerate() {
            sums[i % width] += g;
            products[i % width] += w * g;
        }
        let skew = |(i, (w, g)): (usize, (&f64, &f64))| {
            let (sum, product, slope) = (sums[i % width], products[i % width], self.slopes[i % width]);
            if slope > 0.0 { (g - w * sum - product + fan_in * w * product) / (slope * slope) } else { 0.0 }
        };
        self.weight.iter().zip(gradient).enumerate().map(skew).collect()
    }
}

/// The effective weights of every layer that has weights, the readout last; see (PROP-1).
///
/// Those of a rectifier, a readout and a neuron with slope 1 are the weights themselves; normalisation is left out.
#[must_use]
pub fn effective_weights(network: &Network) -> Vec<EffectiveWeights> {
    let of = |values: &crate::mapping::Values| {
        let width = values.shape.last().copied().unwrap_or(1).max(1);
        let neurons = network.model.layers.get(values.layer).and_then(LayerConfig::ttfs);
        let sloped = neurons.is_some_and(|c| c.slope != SlopeConfig::One);
        let (slopes, weight) = if sloped {
            let column = |n: usize| slope(values.data.iter().skip(n).step_by(width).copied());
            let slopes: Vec<f64> = (0..width).map(column).collect();
            let of = |(i, j): (usize, &f64)| effective_weight(*j, slopes[i % width]);
            let weight = values.data.iter().enumerate().map(of).collect();
            (slopes, weight)
        } else {
            (vec![1.0; width], values.data.clone())
        };
        EffectiveWeights { layer: values.layer, shape: values.shape.clone(), weight, slopes, sloped }
    };
    network.values.iter().filter(|v| v.name == "weight").map(of).collect()
}

/// The network of rectifiers whose weights are the effective weights of a single-spike network, and whose outputs are
/// its outputs.
///
/// # Errors
///
/// As [`to_rectifiers`].
pub fn twin(network: &Network) -> Result<Network> {
    let mut even = network.clone();
    for effective in effective_weights(network).into_iter().filter(|e| e.sloped) {
        for values in even.values.iter_mut().filter(|v| v.layer == effective.layer) {
            match &values.name[..] {
                "weight" => values.data.clone_from(&effective.weight),
                // Without a slope no shift makes a neuron fire.
                "shift" => {
                    for (shift, slope) in values.data.iter_mut().zip(effective.slopes.iter().cycle()) {
                        *shift = if *slope > 0.0 { *shift } else { shift.min(0.0) };
                    }
                }
                _ => {}
            }
        }
    }
    even.model.layers.iter_mut().filter_map(LayerConfig::ttfs_mut).for_each(|c| c.slope = SlopeConfig::One);
    to_rectifiers(&even)
}

/// An eigenvalue of a real matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eigenvalue {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

impl Eigenvalue {
    /// Its distance from 0.
    #[must_use]
    pub fn modulus(&self) -> f64 {
        self.re.hypot(self.im)
    }
}

/// Steps of the QR algorithm for each row of a matrix; two or three are usual.
const STEPS_PER_ROW: usize = 200;

/// The eigenvalues of a matrix of `side` rows, given row by row or column by column.
///
/// # Errors
///
/// If it is not square, an entry is not finite, or the iteration does not end.
pub fn eigenvalues(matrix: &[f64], side: usize) -> Result<Vec<Eigenvalue>> {
    let wrong = |reason: String| Err(Error::config("eigenvalues", reason));
    if matrix.len() != side * side {
        return wrong(format!("{} entries are no square matrix of {side} rows", matrix.len()));
    }
    if let Some(x) = matrix.iter().find(|x| !x.is_finite()) {
        return wrong(format!("an entry is {x}; all must be finite"));
    }
    if side == 0 {
        return Ok(vec![]);
    }
    let matrix = DMatrix::from_column_slice(side, side, matrix);
    let Some(schur) = Schur::try_new(matrix, f64::EPSILON, STEPS_PER_ROW * side) else {
        return wrong(format!("no convergence in {} steps", STEPS_PER_ROW * side));
    };
    let values = schur.complex_eigenvalues();
    Ok(values.iter().map(|z| Eigenvalue { re: z.re, im: z.im }).collect())
}

/// The norm of the gradient on the output of each hidden layer, the first layer first, of the mean loss of a batch.
///
/// Infinite or not a number where the network's arithmetic is no more.
///
/// # Errors
///
/// If the input does not fit or the device fails.
pub fn hidden_gradients<B: Backend>(
    device: &B,
    stack: &mut Stack<B>,
    loss: &mut Loss<B>,
    input: &Activity<B>,
    labels: &[u32],
) -> Result<Vec<f64>> {
    stack.forward(device, input, Pass::train(0))?;
    loss.forward(device, stack.output(), labels)?;
    let hidden = stack.layers().len() - 1;
    let mut norms = vec![0.0; hidden];
    stack.backward_seen(device, input, loss.grad(), |layer, gradient| {
        if let Some(norm) = norms.get_mut(layer) {
            let squares = device.to_host(&gradient.data)?.into_iter().map(|g| g.value() * g.value());
            *norm = squares.sum::<f64>().sqrt();
        }
        Ok(())
    })?;
    Ok(norms)
}

/// A network that learns step by step until it diverges.
#[derive(Debug)]
pub struct Learner<B: Backend> {
    model: ModelConfig,
    stack: Stack<B>,
    optimiser: Optimiser<B>,
    loss: Loss<B>,
    rate: f64,
    scores: Scores,
    diverged: Option<u64>,
}

impl<B: Backend> Learner<B> {
    /// Learns by the optimiser and the loss of a configuration, with a rate that stays.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, model: &ModelConfig, stack: Stack<B>, config: &TrainConfig) -> Result<Self> {
        Ok(Self {
            model: model.clone(),
            optimiser: Optimiser::new(device, config.optimiser, &stack)?,
            loss: Loss::new(device, config.loss)?,
            rate: config.optimiser.learning_rate,
            scores: Scores::default(),
            diverged: None,
            stack,
        })
    }

    /// The network.
    pub fn stack(&mut self) -> &mut Stack<B> {
        &mut self.stack
    }

    /// The step, counted from 1, in which loss or gradient were not finite for the first time. Since then nothing
    /// moves.
    #[must_use]
    pub fn diverged(&self) -> Option<u64> {
        self.diverged
    }

    /// What the batches since the last call came to, each before its step.
    pub fn take_scores(&mut self) -> Scores {
        std::mem::take(&mut self.scores)
    }

    /// One step; none after divergence.
    ///
    /// # Errors
    ///
    /// If the input does not fit or the device fails.
    pub fn step(&mut self, device: &B, input: &Activity<B>, labels: &[u32]) -> Result<()> {
        if self.diverged.is_some() {
            return Ok(());
        }
        let done = self.optimiser.step();
        self.stack.forward(device, input, Pass::train(done as u32))?;
        let scores = self.loss.forward(device, self.stack.output(), labels)?;
        if scores.infinite > 0 || !scores.loss_sum.is_finite() {
            self.diverged = Some(done + 1);
            return Ok(());
        }
        self.scores.add(scores);
        self.stack.backward(device, input, self.loss.grad())?;
        if !gradient_norm(device, &self.stack)?.is_finite() {
            self.diverged = Some(done + 1);
            return Ok(());
        }
        self.optimiser.update(device, &mut self.stack, self.rate)
    }

    /// The effective weights of all hidden layers, one after the other.
    fn weights(&self, device: &B) -> Result<Vec<f64>> {
        let network = Network::of(device, &self.model, &self.stack)?;
        let hidden = self.model.layers.len();
        Ok(effective_weights(&network).into_iter().filter(|e| e.layer < hidden).flat_map(|e| e.weight).collect())
    }
}

/// How far two networks are apart after a step; both begin with the same effective weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Apart {
    /// Steps taken.
    pub step: u64,
    /// The cosine between what the step did to the effective weights of both; none if one of them did not move.
    pub cosine: Option<f64>,
    /// The distance between the effective weights of both, by that which the twin has gone since the start; none if it
    /// has not moved.
    pub distance: Option<f64>,
}

/// A single-spike network and its twin of rectifiers that learn side by side, from the same effective weights and the
/// same data. What is compared are the effective weights of all hidden layers; readouts are rectifiers' in both.
#[derive(Debug)]
pub struct SideBySide<B: Backend> {
    /// The network of neurons that spike once.
    pub spikes: Learner<B>,
    /// Its twin.
    pub twin: Learner<B>,
    start: Vec<f64>,
    last: [Vec<f64>; 2],
    steps: u64,
}

impl<B: Backend> SideBySide<B> {
    /// The networks before their first step.
    ///
    /// # Errors
    ///
    /// If the network has no twin, or the device has no memory left.
    pub fn new(device: &B, model: &ModelConfig, stack: Stack<B>, config: &TrainConfig) -> Result<Self> {
        let rectifiers = twin(&Network::of(device, model, &stack)?)?;
        let twin = Learner::new(device, &rectifiers.model, rectifiers.build(device)?, config)?;
        let spikes = Learner::new(device, model, stack, config)?;
        let last = [spikes.weights(device)?, twin.weights(device)?];
        Ok(Self { start: last[1].clone(), last, spikes, twin, steps: 0 })
    }

    /// One step of both; nothing is compared from where one of them diverges.
    ///
    /// # Errors
    ///
    /// As [`Learner::step`].
    pub fn step(&mut self, device: &B, input: &Activity<B>, labels: &[u32]) -> Result<Option<Apart>> {
        self.spikes.step(device, input, labels)?;
        self.twin.step(device, input, labels)?;
        self.steps += 1;
        if self.spikes.diverged.is_some() || self.twin.diverged.is_some() {
            return Ok(None);
        }
        let now = [self.spikes.weights(device)?, self.twin.weights(device)?];
        let [spikes, twin] = [0, 1].map(|k| difference(&now[k], &self.last[k]));
        let (gone, apart) = (norm(&difference(&now[1], &self.start)), norm(&difference(&now[0], &now[1])));
        self.last = now;
        let distance = (gone > 0.0).then(|| apart / gone).filter(|d| d.is_finite());
        Ok(Some(Apart { step: self.steps, cosine: cosine(&spikes, &twin), distance }))
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The cosine between two vectors; none if one of them is 0 or not finite.
#[must_use]
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let lengths = norm(a) * norm(b);
    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    (lengths > 0.0).then(|| product / lengths).filter(|c| c.is_finite())
}
