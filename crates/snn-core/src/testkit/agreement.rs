//! Two backends on the same inputs: whether spikes are the same, and how far gradients lie apart.
//!
//! The suite holds a backend against the `f64` reference with bounds for rounding. This holds two backends of the same
//! precision against each other, where more can be asked: the same spikes, one by one.

use super::{Inputs, relative_difference, wide};
use crate::backend::{
    AlifGrad, AlifParameters, Backend, CubaParameters, DecayMap, FilterGrad, Filters, Fire, Gemm, Leak, LeakGrad,
    Noise, Recurrent,
};
use crate::error::Result;
use crate::neurons::alif::{AlifGradient, AlifNeuron, Limits};
use crate::neurons::block::BlockNeuron;
use crate::neurons::cuba::{CubaNeuron, Recurrence};
use crate::neurons::event::EventNeuron;
use crate::neurons::lif::{LifKind, LifNeuron, Path};
use crate::neurons::paralif::FiringMode;
use crate::neurons::ttfs::TtfsNeuron;
use crate::random::SpikeDraws;
use crate::{Borders, Events, Lanes, Real, Spikes, Surrogate, Synapses, Trains};

/// What became of one comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// What was computed.
    pub what: String,
    /// Spikes of the first backend.
    pub events: usize,
    /// Spikes that only one of the two has.
    pub differing: usize,
    /// The largest difference of a gradient relative to the largest entry of its array.
    pub difference: f64,
}

/// What a case came to on one backend.
#[derive(Debug, Default)]
struct Outcome {
    spikes: Vec<Spikes>,
    values: Vec<Vec<f64>>,
}

/// Neurons and products.
#[derive(Debug, Clone, Copy)]
enum Case {
    Lif(LifNeuron),
    Block(BlockNeuron),
    ParaLif(FiringMode),
    Cuba(CubaNeuron),
    Alif(AlifNeuron),
    Event,
    Ttfs,
    Product,
    SpikesProduct,
}

/// Runs every neuron family and the products on both backends, `lanes` in size.
///
/// # Errors
///
/// If a device fails.
pub fn agreement<A: Backend, B: Backend>(first: &A, second: &B, lanes: Lanes) -> Result<Vec<Agreement>> {
    let lif = |kind| Case::Lif(LifNeuron::new(kind));
    let alif = |gradient| {
        Case::Alif(AlifNeuron {
            surrogate: Surrogate::BLOCK,
            refractory: 8,
            adapts: true,
            recurrent: true,
            gradient,
            limits: Limits::PUBLISHED,
        })
    };
    let cuba = |recurrence| {
        let surrogate = Surrogate::FastSigmoid { scale: 10.0 };
        Case::Cuba(CubaNeuron { surrogate, refractory: 0, fires: true, recurrence })
    };
    let mut cases = vec![
        ("leaky integrator".to_owned(), Case::Lif(LifNeuron::INTEGRATOR)),
        ("LIF, many spikes".into(), lif(LifKind::Multi { reset: Path::Attached })),
        ("LIF, one spike".into(), lif(LifKind::Single { mask: Path::Attached })),
        ("block".into(), Case::Block(BlockNeuron::default())),
        ("CUBA".into(), cuba(Recurrence::None)),
        ("CUBA, recurrent".into(), cuba(Recurrence::Spike)),
        (
            "ALIF, recurrent, steps".into(),
            alif(AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Attached }),
        ),
        ("ALIF, recurrent, blocks".into(), alif(AlifGradient::Blocks { spikes: Path::Detached })),
        ("event-based".into(), Case::Event),
        ("time to first spike".into(), Case::Ttfs),
        ("dense product".into(), Case::Product),
        ("product of spikes".into(), Case::SpikesProduct),
    ];
    cases.extend(FiringMode::ALL.iter().map(|mode| (format!("ParaLIF-{mode:?}"), Case::ParaLif(*mode))));
    let compare = |(what, case): (String, Case)| {
        let (a, b) = (run(first, case, lanes)?, run(second, case, lanes)?);
        let differing = a.spikes.iter().zip(&b.spikes).map(|(a, b)| differing(a, b)).sum();
        let difference = a.values.iter().zip(&b.values).map(|(a, b)| relative_difference(b, a)).fold(0.0, f64::max);
        Ok(Agreement { what, events: a.spikes.iter().map(Spikes::events).sum(), differing, difference })
    };
    cases.into_iter().map(compare).collect()
}

/// Events that only one of two activities has.
fn differing(a: &Spikes, b: &Spikes) -> usize {
    let (a, b) = (a.to_dense::<f64>(), b.to_dense::<f64>());
    let apart: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
    apart as usize + a.len().abs_diff(b.len())
}

/// Buffers with random numbers and zeros.
struct Maker<'a, D: Backend> {
    device: &'a D,
    inputs: Inputs,
}

impl<D: Backend> Maker<'_, D> {
    fn uniform(&mut self, len: usize, low: f32, high: f32) -> Result<D::Buffer<D::Real>> {
        let values = self.inputs.uniform(len, low, high);
        self.device.buffer_from(&values.iter().map(|&x| D::Real::lit(x.into())).collect::<Vec<_>>())
    }

    fn zeros(&self, len: usize) -> Result<D::Buffer<D::Real>> {
        self.device.zeros(len)
    }

    fn host(&self, buffer: &D::Buffer<D::Real>) -> Result<Vec<f64>> {
        Ok(self.device.to_host(buffer)?.iter().map(|x| x.value()).collect())
    }
}

fn run<D: Backend>(device: &D, case: Case, lanes: Lanes) -> Result<Outcome> {
    let mut make = Maker { device, inputs: Inputs::new(77) };
    let (len, width) = (lanes.len(), lanes.width);
    let per_lane = lanes.batch * width;
    let mut state = make.uniform(len, -0.5, 0.9)?;
    let mut grad = make.uniform(len, -1.0, 1.0)?;
    let beta = make.uniform(width, 0.5, 0.99)?;
    let mut spikes = device.spikes();
    let mut out = Outcome::default();
    match case {
        Case::Lif(_) | Case::Block(_) => {
            let [mut on_beta, mut on_sum] = [make.zeros(per_lane)?, make.zeros(per_lane)?];
            let leak = || Leak { beta_raw: &beta, initial: None };
            let grads = LeakGrad { beta: Some(&mut on_beta), current_sum: Some(&mut on_sum), ..LeakGrad::default() };
            match case {
                Case::Lif(neuron) => {
                    if neuron.kind == LifKind::Integrator {
                        device.fill(&mut grad, D::Real::ZERO)?;
                    }
                    device.lif_forward(&neuron, lanes, leak(), &mut state, &mut spikes)?;
                    device.lif_backward(&neuron, lanes, leak(), &state, &mut grad, grads)?;
                }
                Case::Block(neuron) => {
                    device.block_forward(&neuron, lanes, leak(), &mut state, &mut spikes)?;
                    device.block_backward(&neuron, lanes, leak(), &state, &mut grad, grads)?;
                }
                _ => {}
            }
            out.spikes.push(device.download_spikes(&spikes)?);
            out.values = vec![make.host(&state)?, make.host(&grad)?, make.host(&on_beta)?, make.host(&on_sum)?];
        }
        Case::ParaLif(mode) => {
            let alpha = make.uniform(width, 0.5, 0.99)?;
            let threshold = make.uniform(1, 0.1, 0.2)?;
            let mut on_threshold = make.zeros(per_lane)?;
            let filters = Some(Filters::<D> { alpha: Some(&alpha), beta: &beta, map: DecayMap::Direct });
            let draws = SpikeDraws { seed: 3, pass: 1, population: 2 };
            let fire = Some(Fire::<D> {
                firing: mode.firing(Surrogate::FastSigmoid { scale: 100.0 }),
                threshold: &threshold,
                noise: Noise::Drawn(draws),
            });
            device.paralif_forward(lanes, filters, fire, &mut state, &mut spikes)?;
            let grads = FilterGrad { threshold: Some(&mut on_threshold), ..FilterGrad::default() };
            device.paralif_backward(lanes, filters, fire, &state, &mut grad, grads)?;
            out.spikes.push(device.download_spikes(&spikes)?);
            out.values = vec![make.host(&state)?, make.host(&grad)?, make.host(&on_threshold)?];
        }
        Case::Cuba(neuron) => {
            let alpha = make.uniform(width, 0.5, 0.99)?;
            let threshold = make.uniform(width, 0.8, 1.2)?;
            let side = 1.0 / (width as f32).sqrt();
            let (weight, bias) = (make.uniform(width * width, -side, side)?, make.uniform(width, -0.1, 0.1)?);
            let (mut synaptic, mut on_alpha) = (make.zeros(len)?, make.zeros(per_lane)?);
            let recurrent = neuron.recurrence != Recurrence::None;
            let parameters = CubaParameters::<D> {
                filters: Filters { alpha: Some(&alpha), beta: &beta, map: DecayMap::Direct },
                threshold: &threshold,
                recurrent: recurrent.then_some(Recurrent { weight: &weight, bias: &bias }),
            };
            device.cuba_forward(&neuron, lanes, parameters, &mut state, Some(&mut synaptic), &mut spikes)?;
            let grads = FilterGrad { alpha: Some(&mut on_alpha), ..FilterGrad::default() };
            device.cuba_backward(&neuron, lanes, parameters, &state, Some(&synaptic), &mut grad, grads)?;
            out.spikes.push(device.download_spikes(&spikes)?);
            out.values = vec![make.host(&state)?, make.host(&grad)?, make.host(&on_alpha)?];
        }
        Case::Alif(neuron) => {
            let (decay, strength) = (make.uniform(width, 0.8, 0.99)?, make.uniform(width, 0.5, 1.5)?);
            let side = 0.5 / (width as f32).sqrt();
            let weight = make.uniform(width * width, -side, side)?;
            let [mut on_beta, mut on_decay] = [make.zeros(width)?, make.zeros(width)?];
            let parameters =
                AlifParameters::<D> { beta: &beta, decay: &decay, strength: &strength, recurrent: Some(&weight) };
            device.alif_forward(&neuron, lanes, parameters, &mut state, &mut spikes)?;
            let grads = AlifGrad { beta: Some(&mut on_beta), decay: Some(&mut on_decay), ..AlifGrad::default() };
            device.alif_backward(&neuron, lanes, parameters, &state, &mut grad, grads)?;
            out.spikes.push(device.download_spikes(&spikes)?);
            out.values = vec![make.host(&state)?, make.host(&grad)?, make.host(&on_beta)?, make.host(&on_decay)?];
        }
        Case::Event => {
            let neuron = EventNeuron::new(0.03, 0.02, 1.0, 8);
            let synapses = Synapses::Dense { inputs: width, outputs: width };
            let mut host = Events::new(width);
            for _ in 0..lanes.batch {
                let mut times = make.inputs.uniform(width, 0.0, 0.1);
                times.sort_by(f32::total_cmp);
                host.push(&times.iter().zip(0..).map(|(&time, unit)| (time, unit)).collect::<Vec<_>>())?;
            }
            let (mut input, mut trains) = (Trains::empty(device, width)?, Trains::empty(device, width)?);
            input.upload(device, &host)?;
            let weight = make.uniform(width * width, -0.5, 1.0)?;
            let (mut slopes, mut on_weight) = (make.zeros(0)?, make.zeros(width * width)?);
            device.event_forward(&neuron, &synapses, &weight, &input, &mut trains, &mut slopes)?;
            let got = trains.download(device)?;
            let mut on_spikes = make.uniform(got.len(), -1.0, 1.0)?;
            device.event_backward(
                &neuron,
                &synapses,
                &weight,
                &input,
                &trains,
                &slopes,
                &mut on_spikes,
                &mut on_weight,
                None,
            )?;
            let rows = (0..got.batch()).map(|b| got.sample(b).1.to_vec());
            out.spikes.push(Spikes::from_rows(got.batch(), 1, width, rows)?);
            let times = (0..got.batch()).flat_map(|b| wide(got.sample(b).0)).collect();
            out.values = vec![times, make.host(&on_weight)?];
        }
        Case::Ttfs => {
            let neuron = TtfsNeuron { limited: false };
            let borders = Borders::none(1);
            let (shift, window) = (make.uniform(width, -0.2, 0.2)?, make.uniform(1, 2.0, 2.1)?);
            let mut x = make.uniform(per_lane, -1.0, 1.0)?;
            let (mut on_x, mut on_shift) = (make.uniform(per_lane, -1.0, 1.0)?, make.zeros(width)?);
            device.ttfs_forward(&neuron, &borders, &shift, None, &window, &mut x)?;
            device.ttfs_backward(&neuron, &borders, &window, &x, &mut on_x, &mut on_shift)?;
            out.values = vec![make.host(&x)?, make.host(&on_x)?, make.host(&on_shift)?];
        }
        Case::Product => {
            let weight = make.uniform(width * width, -1.0, 1.0)?;
            let mut product = make.zeros(len)?;
            device.gemm(Gemm::new(lanes.rows(), width, width), &state, &weight, &mut product)?;
            out.values.push(make.host(&product)?);
        }
        Case::SpikesProduct => {
            let host = make.inputs.spikes(lanes, 0.05);
            device.upload_spikes(&host, &mut spikes)?;
            let (weight, mut on_weight) = (make.uniform(width * width, -1.0, 1.0)?, make.zeros(width * width)?);
            let mut product = make.zeros(len)?;
            device.spikes_gemm(&spikes, width, &weight, None, &mut product)?;
            device.spikes_gemm_weight_grad(&spikes, width, &grad, &mut on_weight)?;
            out.values = vec![make.host(&product)?, make.host(&on_weight)?];
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;

    #[test]
    fn a_backend_agrees_with_itself_and_every_family_fires() {
        let (device, lanes) = (Reference::<f64>::new(), Lanes::new(2, 30, 9));
        for found in agreement(&device, &device, lanes).unwrap() {
            assert_eq!((found.differing, found.difference), (0, 0.0), "{found:?}");
            let silent = ["leaky integrator", "time to first spike", "dense product", "product of spikes"];
            assert!(found.events > 0 || silent.contains(&&*found.what), "{found:?}");
        }
    }

    #[test]
    fn other_rounding_shows() {
        let found = agreement(&Reference::<f64>::new(), &Reference::<f32>::new(), Lanes::new(2, 30, 9)).unwrap();
        assert!(found.iter().all(|f| f.difference > 0.0 && f.difference < 1e-3), "{found:?}");
    }
}
