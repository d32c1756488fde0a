//! The tutorial's second program: adaptive neurons with a refractory period, and a fit of one to a recording.

use std::time::Instant;

use snn_core::backend::Memory;
use snn_core::{Activity, Kind, Layer, Pass, Signal, Spikes, Tensor};
use snn_cpu::Cpu;
use snn_data::Silent;
use snn_data::ephys::session::{self, SessionOptions};
use snn_data::ephys::{ReadOptions, Recording};
use snn_data::synth::poisson::{Rate, poisson_spikes};
use snn_train::config::{AlifConfig, AlifGradientConfig, Init};
use snn_train::fit::FitConfig;
use snn_train::fit::recorded::{Protocol, fit_recorded};
use snn_train::layers::Clocked;
use snn_train::layers::alif::AlifCell;
use snn_train::layers::field::Field;

const INPUTS: usize = 100;
const NEURONS: usize = 20;
const STEPS: usize = 1000;
const BATCH: usize = 16;

/// Spikes and the gradient of the weights of one layer, whose gradients are those of `gradient`.
fn pass(device: &Cpu, gradient: AlifGradientConfig) -> snn_core::Result<(Vec<f32>, Vec<f32>)> {
    let neurons = AlifConfig { refractory: 40, gradient, ..AlifConfig::default() };
    // Every neuron sees the last 20 steps of its inputs.
    let field = Field::new(device, (INPUTS, NEURONS), 20, Init::Uniform { bound: 0.05 }, true, (1, 0))?;
    let cell = AlifCell::new(device, &neurons, NEURONS, (1, 0))?;
    let signal = |width| Signal::flat(Kind::Spikes, STEPS, width);
    let mut layer = Clocked::new(device, signal(INPUTS), signal(NEURONS), Box::new(field), Box::new(cell), false)?;

    let input = Activity::Spikes(poisson_spikes(BATCH, STEPS, INPUTS, Rate::UpTo(200.0), 7));
    let start = Instant::now();
    layer.forward(device, &input, Pass::train(0))?;
    let forward = start.elapsed();
    // The loss is the number of spikes: its gradient on every spike is 1.
    let mut grad = Tensor::zeros(device, &[BATCH, STEPS, NEURONS])?;
    device.upload(&vec![1.0; BATCH * STEPS * NEURONS], &mut grad.data)?;
    let start = Instant::now();
    layer.backward(device, &input, &mut grad, None)?;
    println!("{gradient:?}: forward {forward:.1?}, backward {:.1?}", start.elapsed());
    let spikes: &Spikes = layer.spikes().expect("the neurons fire");
    Ok((spikes.to_dense(), device.to_host(&layer.parameters()[0].grad.data)?))
}

/// Two gradients of the same spikes, then the constants of a neuron from its recording.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Cpu::new(0)?;
    let (spikes, of_steps) = pass(&device, AlifGradientConfig::Steps)?;
    let (same, of_blocks) = pass(&device, AlifGradientConfig::Blocks)?;
    assert_eq!(spikes, same);
    let size = |grad: &[f32]| grad.iter().map(|g| g * g).sum::<f32>().sqrt();
    let count: f32 = spikes.iter().sum();
    println!("{count} equal spikes; gradients as long as {:.0} and {:.0}", size(&of_steps), size(&of_blocks));
    assert_ne!(of_steps, of_blocks);

    let folder = std::env::temp_dir().join(format!("snn-adaptive-{}", std::process::id()));
    let options = SessionOptions { cells: 1, seed: 3, fit_sweeps: 1, test_sweeps: 2, ..SessionOptions::default() };
    session::write(&folder, &options, &mut Silent)?;
    let cell = Recording::open_specimen(&folder, 1, &ReadOptions::default())?;
    let config = FitConfig { epochs: 100, ..FitConfig::default() };
    let outcome = fit_recorded(&device, &config, &Protocol::default(), &[cell], |_, _| true)?;
    let (fit, scores) = (&outcome.fitted.cells[0], &outcome.scores[0]);
    println!("membrane: {:.1} ms; distance {:.3}", -config.dt_ms / fit.beta.ln(), fit.loss);
    for score in scores {
        println!("explained at {} ms: {:.3}", score.sigma_ms, score.explained.normalised().unwrap_or(f64::NAN));
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
