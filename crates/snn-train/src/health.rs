//! Health: silent, saturated and exploding layers, with a hint on what to change.

use serde::{Deserialize, Serialize};
use snn_core::{Backend, Real};

use crate::error::Result;
use crate::stack::Stack;

/// The state of one layer on one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerHealth {
    /// The layer.
    pub name: String,
    /// Mean spikes per sample; absent for layers that do not spike.
    pub spikes_per_sample: Option<f64>,
    /// Share of neurons that no sample made fire.
    pub silent: Option<f64>,
    /// Share of neurons that fire in more than nine of ten steps, or, if they fire once at most, at the first step of
    /// every sample; in continuous time, of those that fill their buffer in every sample; of those that spike at most
    /// once, at the start of their window in every sample.
    pub saturated: Option<f64>,
    /// Norm of the gradients of the layer's parameters.
    pub gradient_norm: f64,
}

/// Looks at every layer after a backward pass.
///
/// # Errors
///
/// If the device fails.
pub fn examine<B: Backend>(device: &B, stack: &Stack<B>) -> Result<Vec<LayerHealth>> {
    let mut report = Vec::new();
    for layer in stack.layers() {
        let mut squares = 0.0;
        for p in layer.parameters().into_iter().filter(|p| p.learnable) {
            squares += device.sum_of_squares(&p.grad.data)?;
        }
        let mut health = LayerHealth {
            name: layer.name(),
            spikes_per_sample: None,
            silent: None,
            saturated: None,
            gradient_norm: squares.sqrt(),
        };
        if let Some(spikes) = layer.spikes() {
            let spikes = device.download_spikes(spikes)?;
            let lanes = spikes.lanes();
            let (mut fired, mut at_start) = (vec![0_usize; lanes.width], vec![0_usize; lanes.width]);
            for row in 0..lanes.rows() {
                for &unit in spikes.row(row) {
                    fired[unit as usize] += 1;
                    at_start[unit as usize] += usize::from(row % lanes.steps == 0);
                }
            }
            let share = |count: usize| count as f64 / lanes.width.max(1) as f64;
            let busy = lanes.rows() * 9 / 10;
            let stuck = fired.iter().zip(&at_start).filter(|&(&f, &s)| f > busy.max(1) || s == lanes.batch);
            health.spikes_per_sample = Some(spikes.events() as f64 / lanes.batch.max(1) as f64);
            health.saturated = Some(share(stuck.count()));
            health.silent = Some(share(fired.iter().filter(|&&f| f == 0).count()));
        }
        if let Some(trains) = layer.trains() {
            let signal = layer.output_signal();
            let (width, batch) = (signal.width(), trains.batch(device));
            let mut counts = device.zeros::<u32>(batch * width)?;
            device.count_trains(trains, &mut counts)?;
            let counts = device.to_host(&counts)?;
            let share = |fits: &dyn Fn(u32) -> bool| {
                let all = |n: &usize| counts.iter().skip(*n).step_by(width).all(|&count| fits(count));
                (0..width).filter(all).count() as f64 / width as f64
            };
            health.spikes_per_sample = Some(trains.events(device) as f64 / batch.max(1) as f64);
            health.silent = Some(share(&|count| count == 0));
            // A buffer of one is full at the first spike: that says nothing.
            health.saturated = (signal.steps > 1).then(|| share(&|count| count as usize >= signal.steps));
        }
        if let Some(first) = layer.first_spikes() {
            let (earliness, window) = (device.to_host(first.earliness)?, device.to_host(first.window)?);
            let width = layer.output_signal().width().max(1);
            let share = |fits: &dyn Fn(&B::Real) -> bool| {
                (0..width).filter(|n| earliness.iter().skip(*n).step_by(width).all(fits)).count() as f64 / width as f64
            };
            let fired = device.to_host(&first.census.fired)?;
            health.spikes_per_sample =
                Some(fired.iter().map(|&n| f64::from(n)).sum::<f64>() / fired.len().max(1) as f64);
            health.silent = Some(share(&|x| x.value() <= 0.0));
            health.saturated = Some(share(&|x| *x >= window[0]));
        }
        report.push(health);
    }
    Ok(report)
}

impl LayerHealth {
    /// What is wrong and what to change, if anything is.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let name = &self.name;
        if !self.gradient_norm.is_finite() || self.gradient_norm > 1e6 {
            let norm = self.gradient_norm;
            return Some(format!(
                "{name}: gradients explode (norm {norm:.1e}); set train.clip_norm or lower the learning rate"
            ));
        }
        if self.silent == Some(1.0) {
            return Some(format!(
                "{name}: no neuron fires; raise the gain of its init or lower its threshold (the block model trains from \
                 silence, given time)"
            ));
        }
        if self.saturated.is_some_and(|s| s > 0.5) {
            return Some(format!(
                "{name}: most neurons fire at once or always; lower the gain of its init or its beta"
            ));
        }
        None
    }
}
