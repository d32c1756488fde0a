//! Cells of adaptive neurons; maths in [`snn_core::neurons::alif`].

use snn_core::backend::{AlifGrad, AlifParameters};
use snn_core::neurons::alif::AlifNeuron;
use snn_core::{Backend, Lanes, Mode, Parameter, Pass, Real, Result};

use super::{Cell, init};
use crate::config::AlifConfig;

/// A population of adaptive neurons: beta, p, b `[N]` and recurrent weights `[N, N]`, source by target.
#[derive(Debug)]
pub struct AlifCell<B: Backend> {
    neuron: AlifNeuron,
    constants: Constants<B>,
    recurrent: Option<Parameter<B>>,
    // The spikes as they arrive.
    late: B::Spikes,
}

/// The constants of every neuron of a population.
#[derive(Debug)]
pub struct Constants<B: Backend> {
    beta: Parameter<B>,
    decay: Parameter<B>,
    strength: Parameter<B>,
}

impl<B: Backend> Constants<B> {
    /// The constants that a configuration starts with, for each of `width` neurons.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: &AlifConfig, width: usize) -> Result<Self> {
        let list = |name, start: f64, learned: bool| {
            let values = vec![B::Real::lit(start); width];
            Ok(Parameter::new(device, name, &[width], &values)?.with_learnable(learned))
        };
        Ok(Self {
            beta: list("beta", config.beta, config.learn_beta)?,
            decay: list("decay", config.decay, config.learn_decay && config.adapt)?,
            strength: list("strength", config.strength, config.learn_strength && config.adapt)?,
        })
    }

    /// As the operations take them.
    pub fn view<'a>(&'a self, recurrent: Option<&'a Parameter<B>>) -> AlifParameters<'a, B> {
        AlifParameters {
            beta: &self.beta.value.data,
            decay: &self.decay.value.data,
            strength: &self.strength.value.data,
            recurrent: recurrent.map(|w| &w.value.data),
        }
    }

    /// Runs the adjoint into the places of the gradients.
    ///
    /// # Errors
    ///
    /// If the device fails.
    #[expect(clippy::too_many_arguments, reason = "what the adjoint takes")]
    pub fn backward(
        &mut self,
        device: &B,
        neuron: &AlifNeuron,
        lanes: Lanes,
        recurrent: Option<&Parameter<B>>,
        state: &B::Buffer<B::Real>,
        grad: &mut B::Buffer<B::Real>,
        grads: AlifGrad<'_, B>,
    ) -> Result<()> {
        let Self { beta, decay, strength } = self;
        let parameters = AlifParameters {
            beta: &beta.value.data,
            decay: &decay.value.data,
            strength: &strength.value.data,
            recurrent: recurrent.map(|w| &w.value.data),
        };
        let grads = AlifGrad {
            beta: beta.learnable.then_some(&mut beta.grad.data),
            decay: decay.learnable.then_some(&mut decay.grad.data),
            strength: strength.learnable.then_some(&mut strength.grad.data),
            ..grads
        };
        device.alif_backward(neuron, lanes, parameters, state, grad, grads)
    }

    /// Beta, p and b.
    pub fn parameters(&self) -> [&Parameter<B>; 3] {
        [&self.beta, &self.decay, &self.strength]
    }

    /// Beta, p and b, to be updated.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 3] {
        [&mut self.beta, &mut self.decay, &mut self.strength]
    }
}

impl<B: Backend> AlifCell<B> {
    /// Neurons as configured.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: &AlifConfig, width: usize, seed: (u64, usize)) -> Result<Self> {
        let neuron = config.neuron();
        let recurrent = neuron.recurrent.then(|| match config.recurrent_init {
            // A stream of its own, beside that of the layer's weights.
            Some(init) => {
                let seed = (seed.0, seed.1 | 1 << 16);
                let weight = init::weights(device, init, &[width, width], (width, width), seed)?;
                Ok(Parameter { name: "recurrent_weight", ..weight })
            }
            None => {
                let identity: Vec<B::Real> = (0..width * width)
                    .map(|i| if i / width == i % width { B::Real::ONE } else { B::Real::ZERO })
                    .collect();
                Parameter::new(device, "recurrent_weight", &[width, width], &identity)
            }
        });
        Ok(Self {
            neuron,
            constants: Constants::new(device, config, width)?,
            recurrent: recurrent.transpose()?,
            late: device.spikes(),
        })
    }
}

impl<B: Backend> AlifCell<B> {
    /// The threshold of every step, `[B, T, N]`, from the state of a forward pass.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn thresholds(&self, device: &B, lanes: Lanes, state: &B::Buffer<B::Real>) -> Result<Vec<f64>> {
        let mut out = device.zeros(lanes.len())?;
        let parameters = self.constants.view(self.recurrent.as_ref());
        device.alif_thresholds(&self.neuron, lanes, parameters, state, &mut out)?;
        Ok(device.to_host(&out)?.iter().map(|x| x.value()).collect())
    }
}

impl<B: Backend> Cell<B> for AlifCell<B> {
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        pass: Pass,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()> {
        let parameters = self.constants.view(self.recurrent.as_ref());
        device.alif_forward(&self.neuron, lanes, parameters, state, spikes)?;
        if self.neuron.recurrent && pass.mode == Mode::Train {
            device.delay_spikes(spikes, self.neuron.block(), &mut self.late)?;
        }
        Ok(())
    }

    fn backward(
        &mut self,
        device: &B,
        lanes: Lanes,
        state: &B::Buffer<B::Real>,
        grad: &mut B::Buffer<B::Real>,
        grad_membrane: Option<&B::Buffer<B::Real>>,
        sums: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let grads = AlifGrad { membrane: grad_membrane, current_sum: Some(sums), ..AlifGrad::default() };
        self.constants.backward(device, &self.neuron, lanes, self.recurrent.as_ref(), state, grad, grads)?;
        match &mut self.recurrent {
            Some(w) => device.spikes_gemm_weight_grad(&self.late, lanes.width, grad, &mut w.grad.data),
            None => Ok(()),
        }
    }

    fn repeats(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        match (self.neuron.recurrent, self.neuron.in_blocks()) {
            (true, false) => "recurrent alif",
            (true, true) => "recurrent alif in blocks",
            (false, false) => "alif",
            (false, true) => "alif in blocks",
        }
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        self.constants.parameters().into_iter().chain(&self.recurrent).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.constants.parameters_mut().into_iter().chain(&mut self.recurrent).collect()
    }
}
