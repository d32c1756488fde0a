//! Projections from a configuration: the linear part, and around it what dropout and normalisation ask for.

use snn_core::neurons::ttfs::Grid;
use snn_core::{Backend, Conv, Result, Signal};

use super::Projection;
use super::conv::Convolution;
use super::delays::Delayed;
use super::dense::Dense;
use super::field::Field;
use super::gain::Gained;
use super::norm::Normed;
use super::vote::Groups;
use crate::config::{DelaysConfig, Init, NormConfig, QuantiseConfig, ReadoutConfig, ReadoutNeuron};

/// What surrounds the linear part.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// A bias; a normalisation has an offset in its place.
    pub bias: bool,
    /// The normalisation of channels.
    pub norm: Option<NormConfig>,
    /// The factor of training that dropout before the projection asks for.
    pub gain: f64,
}

impl Around {
    /// Whether the linear part has the bias itself.
    fn is_plain(&self) -> bool {
        self.bias && self.norm.is_none() && self.gain == 1.0
    }

    /// Puts everything around a linear part that has no bias unless this is [plain](Around::is_plain).
    fn wrap<B: Backend>(
        self,
        device: &B,
        mut linear: Box<dyn Projection<B>>,
        channels: usize,
    ) -> Result<Box<dyn Projection<B>>> {
        if self.is_plain() {
            return Ok(linear);
        }
        let bias = (self.bias && self.norm.is_none()).then_some(channels);
        if bias.is_some() || self.gain != 1.0 {
            linear = Box::new(Gained::new(device, linear, self.gain, bias)?);
        }
        match self.norm {
            Some(norm) => Ok(Box::new(Normed::new(device, linear, channels, norm)?)),
            None => Ok(linear),
        }
    }
}

/// How a dense layer looks back in time.
#[derive(Debug, Clone, Copy)]
pub enum Past<'a> {
    /// Not at all.
    None,
    /// With a learned delay for each synapse.
    Delays(&'a DelaysConfig),
    /// With a weight for each of the last steps.
    Field(usize),
}

/// A dense projection.
///
/// # Errors
///
/// If the device has no memory left.
pub fn dense<B: Backend>(
    device: &B,
    (inputs, outputs): (usize, usize),
    init: Init,
    past: Past<'_>,
    around: Around,
    seed: (u64, usize),
) -> Result<Box<dyn Projection<B>>> {
    let linear: Box<dyn Projection<B>> = match past {
        Past::Field(steps) => Box::new(Field::new(device, (inputs, outputs), steps, init, around.is_plain(), seed)?),
        Past::Delays(delays) => {
            Box::new(Delayed::new(device, (inputs, outputs), delays, init, around.is_plain(), seed)?)
        }
        Past::None => {
            let dense = Dense::new(device, inputs, outputs, init, seed)?;
            Box::new(if around.is_plain() { dense } else { dense.without_bias() })
        }
    };
    around.wrap(device, linear, outputs)
}

/// A convolution.
///
/// # Errors
///
/// If the device has no memory left.
pub fn convolution<B: Backend>(
    device: &B,
    conv: Conv,
    init: Init,
    around: Around,
    seed: (u64, usize),
) -> Result<Box<dyn Projection<B>>> {
    let linear = Convolution::new(device, conv, init, seed)?;
    let linear = Box::new(if around.is_plain() { linear } else { linear.without_bias() });
    around.wrap(device, linear, conv.channels)
}

/// The projection of a readout; `gain` as in [`Around`].
///
/// # Errors
///
/// If the device has no memory left.
pub fn readout<B: Backend>(
    device: &B,
    input: Signal,
    classes: usize,
    config: &ReadoutConfig,
    gain: f64,
    seed: (u64, usize),
) -> Result<Box<dyn Projection<B>>> {
    if let ReadoutNeuron::Vote(_) = config.neuron {
        let around = Around { bias: false, norm: None, gain };
        return around.wrap(device, Box::new(Groups::new(device, input.width(), classes)?), classes);
    }
    let around = Around { bias: config.bias, norm: None, gain };
    let sizes = (input.width(), classes);
    if let Some(QuantiseConfig { bits, low, high }) = config.quantise {
        let linear = Dense::new(device, sizes.0, sizes.1, config.init, seed)?.quantised(Grid::new(bits, low, high)?);
        let linear = if around.is_plain() { linear } else { linear.without_bias() };
        return around.wrap(device, Box::new(linear), classes);
    }
    let past = config.delays.as_ref().map_or(Past::None, Past::Delays);
    dense(device, sizes, config.init, past, around, seed)
}
