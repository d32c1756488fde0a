//! Initial weights, drawn from the counter-based generator: a function of seed, layer and position alone.

use rand_distr::{Distribution, Normal};
use snn_core::random::{Purpose, Stream};
use snn_core::{Backend, Parameter, Real, Result};

use crate::config::Init;

/// Draws the weights `shape` of layer `layer`.
///
/// # Errors
///
/// If the device has no memory left.
pub fn weights<B: Backend>(
    device: &B,
    init: Init,
    shape: &[usize],
    (fan_in, fan_out): (usize, usize),
    (seed, layer): (u64, usize),
) -> Result<Parameter<B>> {
    let mut stream = Stream::new(seed, Purpose::Init, [layer as u32, 0]);
    let len = shape.iter().product();
    let uniform = |bound: f64, stream: &mut Stream| B::Real::lit(f64::from(stream.unit() * 2.0 - 1.0) * bound);
    let values: Vec<B::Real> = match init {
        Init::FanIn { gain } => {
            let bound = gain / (fan_in as f64).sqrt();
            (0..len).map(|_| uniform(bound, &mut stream)).collect()
        }
        Init::GlorotUniform => {
            let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
            (0..len).map(|_| uniform(bound, &mut stream)).collect()
        }
        Init::Uniform { bound } => (0..len).map(|_| uniform(bound, &mut stream)).collect(),
        Init::Between { low, high } => {
            (0..len).map(|_| B::Real::lit(low + (high - low) * f64::from(stream.unit()))).collect()
        }
        Init::GlorotNormal | Init::Normal { .. } => {
            let (mean, deviation) = match init {
                Init::Normal { mean, deviation } => (mean, deviation),
                _ => (0.0, (2.0 / (fan_in + fan_out) as f64).sqrt()),
            };
            let normal = Normal::new(mean, deviation).expect("a configuration's deviation is not negative");
            (0..len).map(|_| B::Real::lit(normal.sample(&mut stream))).collect()
        }
    };
    Parameter::new(device, "weight", shape, &values)
}

/// A bias of zeros.
///
/// # Errors
///
/// If the device has no memory left.
pub fn bias<B: Backend>(device: &B, width: usize) -> Result<Parameter<B>> {
    Parameter::new(device, "bias", &[width], &vec![B::Real::ZERO; width])
}
