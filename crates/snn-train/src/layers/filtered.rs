//! What cells with a synaptic and a membrane filter own: decays and thresholds, shared or per neuron, fixed or learned.

use snn_core::backend::{DecayMap, FilterGrad, Filters};
use snn_core::{Backend, Lanes, Parameter, Real, Result};

use crate::config::{FilterConfig, PerNeuron, TauInit};

/// The parameters of a population of filtered neurons, with scratch for their gradients.
#[derive(Debug)]
pub struct Filtered<B: Backend> {
    alpha: Option<Parameter<B>>,
    beta: Parameter<B>,
    threshold: Option<Parameter<B>>,
    map: DecayMap,
    // Gradients of every lane, in the order of the parameters.
    places: [B::Buffer<B::Real>; 3],
    sum: B::Buffer<B::Real>,
    no_threshold: B::Buffer<B::Real>,
}

/// Whether gradients replace what is there or add to it, for neurons that run their filters twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// The first of several uses, or the only one.
    Set,
    /// A further use.
    Add,
}

fn parameter<B: Backend>(device: &B, name: &'static str, list: &[f64], learnable: bool) -> Result<Parameter<B>> {
    let values: Vec<B::Real> = list.iter().map(|&x| B::Real::lit(x)).collect();
    Ok(Parameter::new(device, name, &[values.len()], &values)?.with_learnable(learnable))
}

impl<B: Backend> Filtered<B> {
    /// The parameters of a layer; lists must have one entry or one for each neuron. Without a threshold the neurons are
    /// a readout or fire at random.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, filter: &FilterConfig, threshold: Option<(&PerNeuron, bool)>) -> Result<Self> {
        let learn = filter.learn_tau;
        let stored = |tau: &PerNeuron| -> Vec<f64> {
            let start = |tau: f64| match (learn, filter.tau_init) {
                // The logit of exp(-1 / tau).
                (true, TauInit::Logit) => -(1.0 / tau).exp_m1().ln(),
                _ => (-1.0 / tau).exp(),
            };
            tau.values().iter().map(|&tau| start(tau)).collect()
        };
        let alpha = filter.tau_syn.as_ref().map(|tau| parameter(device, "alpha", &stored(tau), learn)).transpose()?;
        let threshold =
            threshold.map(|(list, learn)| parameter(device, "threshold", list.values(), learn)).transpose()?;
        Ok(Self {
            alpha,
            beta: parameter(device, "beta", &stored(&filter.tau_mem), learn)?,
            threshold,
            map: if learn { DecayMap::Sigmoid } else { DecayMap::Direct },
            places: [device.zeros(0)?, device.zeros(0)?, device.zeros(0)?],
            sum: device.zeros(0)?,
            no_threshold: device.zeros(1)?,
        })
    }

    /// Whether alpha is learned, whose gradient needs the synaptic trace.
    pub fn learns_alpha(&self) -> bool {
        self.alpha.as_ref().is_some_and(|p| p.learnable)
    }

    /// Whether any time constant is learned.
    pub fn learns_tau(&self) -> bool {
        self.beta.learnable || self.learns_alpha()
    }

    /// The filters.
    pub fn filters(&self) -> Filters<'_, B> {
        Filters { alpha: self.alpha.as_ref().map(|p| &p.value.data), beta: &self.beta.value.data, map: self.map }
    }

    /// The thresholds; a single 0 if there are none.
    pub fn threshold(&self) -> &B::Buffer<B::Real> {
        self.threshold.as_ref().map_or(&self.no_threshold, |p| &p.value.data)
    }

    /// Runs an adjoint with the right places for its gradients, given the filters, the thresholds and the places, and
    /// sums the gradients of all lanes.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn backward(
        &mut self,
        device: &B,
        lanes: Lanes,
        collect: Collect,
        grads: FilterGrad<'_, B>,
        adjoint: impl FnOnce(Filters<'_, B>, &B::Buffer<B::Real>, FilterGrad<'_, B>) -> Result<()>,
    ) -> Result<()> {
        let lane_count = lanes.batch * lanes.width;
        let Self { alpha, beta, threshold, map, places, sum, no_threshold } = self;
        let learnable = |p: Option<&Parameter<B>>| p.is_some_and(|p| p.learnable);
        let wanted = [learnable(alpha.as_ref()), beta.learnable, learnable(threshold.as_ref())];
        for (place, wanted) in places.iter_mut().zip(wanted) {
            if wanted {
                device.resize(place, lane_count)?;
            }
        }
        let [on_alpha, on_beta, on_threshold] = places;
        let filters = Filters { alpha: alpha.as_ref().map(|p| &p.value.data), beta: &beta.value.data, map: *map };
        let places = FilterGrad {
            alpha: wanted[0].then_some(&mut *on_alpha),
            beta: wanted[1].then_some(&mut *on_beta),
            threshold: wanted[2].then_some(&mut *on_threshold),
            ..grads
        };
        adjoint(filters, threshold.as_ref().map_or(&*no_threshold, |p| &p.value.data), places)?;
        let parameters = [alpha.as_mut(), Some(beta), threshold.as_mut()];
        for ((p, place), _) in
            parameters.into_iter().zip([on_alpha, on_beta, on_threshold]).zip(wanted).filter(|(_, wanted)| *wanted)
        {
            let Some(p) = p else { continue };
            let len = p.value.len();
            match collect {
                Collect::Set => device.sum_rows(lane_count / len, len, place, &mut p.grad.data)?,
                Collect::Add => {
                    device.resize(sum, len)?;
                    device.sum_rows(lane_count / len, len, place, sum)?;
                    device.add_assign(sum, &mut p.grad.data)?;
                }
            }
        }
        Ok(())
    }

    /// The parameters.
    pub fn parameters(&self) -> Vec<&Parameter<B>> {
        self.alpha.iter().chain([&self.beta]).chain(&self.threshold).collect()
    }

    /// The parameters, to be updated.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        self.alpha.iter_mut().chain([&mut self.beta]).chain(&mut self.threshold).collect()
    }
}
