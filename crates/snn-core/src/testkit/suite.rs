//! The behaviour of a backend, written once: every case runs the same inputs on the backend and on the `f64`
//! reference and compares. [`backend_suite!`](crate::backend_suite) instantiates all cases for a device.
//!
//! Sizes are odd on purpose: 1, 31, 33, 257 sit beside vector widths and tiles.

mod alif;

pub use alif::{alif_matches_reference, fitting_matches_reference};

use super::{Inputs, assert_close, wide};
use crate::backend::{
    Census, ChannelNorm, CubaParameters, DecayMap, DelayKernel, Delays, FilterGrad, Filters, Fire, Gemm, Leak,
    LeakGrad, Noise, Recurrent, TimeReduction, TrainReadout, Update, UpdateRule, UpdateSlot,
};
use crate::neurons::block::{BlockNeuron, Start};
use crate::neurons::cuba::{CubaNeuron, Recurrence};
use crate::neurons::event::EventNeuron;
use crate::neurons::lif::{LifKind, LifNeuron, Path};
use crate::neurons::paralif::{BernoulliGradient, Firing, FiringMode, Generator};
use crate::neurons::ttfs::{Grid, Perturbation, TtfsNeuron};
use crate::random::SpikeDraws;
use crate::reference::Reference;
use crate::{Backend, Borders, Conv, Element, Events, Lanes, Map, Pool, Real, Spikes, Surrogate, Synapses, Trains};

/// Largest relative difference between `f32` and the `f64` reference for sums of a few thousand terms.
const CLOSE: f64 = 2e-5;

/// The two sides of a comparison.
#[derive(Debug)]
struct Pair<'a, B: Backend> {
    device: &'a B,
    reference: Reference<f64>,
}

/// A buffer on both sides.
#[derive(Debug)]
struct Both<B: Backend> {
    device: B::Buffer<B::Real>,
    reference: Vec<f64>,
}

impl<'a, B: Backend> Pair<'a, B> {
    fn new(device: &'a B) -> Self {
        Self { device, reference: Reference::new() }
    }

    fn upload(&self, x: &[f32]) -> Both<B> {
        let lifted: Vec<B::Real> = x.iter().map(|&v| B::Real::lit(v.into())).collect();
        Both { device: self.device.buffer_from(&lifted).unwrap(), reference: wide(x) }
    }

    /// A buffer with rubbish in it: operations must overwrite.
    fn rubbish(&self, len: usize) -> Both<B> {
        self.upload(&vec![7.5; len])
    }

    fn spikes(&self, host: &Spikes) -> (B::Spikes, <Reference<f64> as crate::backend::SpikeMemory>::Spikes) {
        use crate::backend::SpikeMemory;
        let mut device = self.device.spikes();
        self.device.upload_spikes(host, &mut device).unwrap();
        let mut reference = self.reference.spikes();
        self.reference.upload_spikes(host, &mut reference).unwrap();
        (device, reference)
    }

    fn host(&self, x: &B::Buffer<B::Real>) -> Vec<f64> {
        self.device.to_host(x).unwrap().iter().map(|v| v.value()).collect()
    }

    fn compare(&self, what: &str, both: &Both<B>, tolerance: f64) {
        assert_close(what, &self.host(&both.device), &both.reference, tolerance);
    }

    fn same<T: Element>(&self, what: &str, device: &B::Buffer<T>, reference: &[T]) {
        assert_eq!(self.device.to_host(device).unwrap(), reference, "{what}");
    }
}

/// `gemm` in every orientation, overwriting and accumulating.
pub fn gemm_matches_reference<B: Backend>(device: &B) {
    use crate::backend::LinAlg;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(1);
    for (m, n, k) in [(1, 1, 1), (31, 33, 7), (257, 10, 31), (3, 257, 129), (1200, 5, 64), (40, 700, 3)] {
        let (a, b) = (pair.upload(&inputs.uniform(m * k, -1.0, 1.0)), pair.upload(&inputs.uniform(k * n, -1.0, 1.0)));
        for flags in 0..8 {
            let g = Gemm {
                transpose_a: flags & 1 != 0,
                transpose_b: flags & 2 != 0,
                accumulate: flags & 4 != 0,
                ..Gemm::new(m, n, k)
            };
            let mut c = pair.rubbish(m * n);
            device.gemm(g, &a.device, &b.device, &mut c.device).unwrap();
            pair.reference.gemm(g, &a.reference, &b.reference, &mut c.reference).unwrap();
            pair.compare(&format!("{g:?}"), &c, CLOSE);
        }
    }
}

/// Products of spikes with weights and the weight gradient, from empty to nearly full.
pub fn spikes_gemm_matches_reference<B: Backend>(device: &B) {
    use crate::backend::LinAlg;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(2);
    let sizes =
        [(1, 1, 1, 1), (2, 31, 33, 10), (3, 200, 140, 97), (2, 9, 600, 257), (2, 40, 90, 128), (1, 20, 50, 230)];
    for ((batch, steps, n_in, n), density) in sizes.into_iter().flat_map(|s| [0.0, 0.01, 0.2, 0.9].map(|d| (s, d))) {
        let lanes = Lanes::new(batch, steps, n_in);
        let (x, x_ref) = pair.spikes(&inputs.spikes(lanes, density));
        let weight = pair.upload(&inputs.uniform(n_in * n, -1.0, 1.0));
        let bias = pair.upload(&inputs.uniform(n, -1.0, 1.0));
        for bias in [None, Some(&bias)] {
            let mut out = pair.rubbish(lanes.rows() * n);
            device.spikes_gemm(&x, n, &weight.device, bias.map(|b| &b.device), &mut out.device).unwrap();
            let bias = bias.map(|b| &b.reference);
            pair.reference.spikes_gemm(&x_ref, n, &weight.reference, bias, &mut out.reference).unwrap();
            pair.compare(&format!("spikes_gemm {lanes:?} {n} density {density}"), &out, CLOSE);
        }
        let grad = pair.upload(&inputs.uniform(lanes.rows() * n, -1.0, 1.0));
        let mut gw = pair.rubbish(n_in * n);
        device.spikes_gemm_weight_grad(&x, n, &grad.device, &mut gw.device).unwrap();
        pair.reference.spikes_gemm_weight_grad(&x_ref, n, &grad.reference, &mut gw.reference).unwrap();
        pair.compare(&format!("weight gradient {lanes:?} {n} density {density}"), &gw, CLOSE);
    }
}

/// Convolution of spikes and of dense maps, weight and input gradients.
pub fn convolution_matches_reference<B: Backend>(device: &B) {
    use crate::backend::LinAlg;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(3);
    let geometries = [
        Conv::new(Map::new(5, 4, 3), 7, 3, 1, 1).unwrap(),
        Conv::new(Map::new(7, 7, 2), 33, 5, 1, 2).unwrap(),
        Conv::new(Map::new(9, 8, 1), 4, 3, 2, 0).unwrap(),
        Conv::new(Map::new(3, 3, 31), 1, 1, 1, 0).unwrap(),
        Conv::rectangle(Map::new(9, 1, 5), 7, [3, 1], 1, [1, 0]).unwrap(),
        Conv::rectangle(Map::new(4, 7, 2), 3, [2, 5], 2, [0, 2]).unwrap(),
    ];
    for conv in &geometries {
        let lanes = Lanes::new(3, 4, conv.input.len());
        let (rows, n_out, n_weight) = (lanes.rows(), conv.output().len(), conv.fan_in() * conv.channels);
        let host = inputs.spikes(lanes, 0.3);
        let (x, x_ref) = pair.spikes(&host);
        let dense = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        let weight = pair.upload(&inputs.uniform(n_weight, -1.0, 1.0));
        let bias = pair.upload(&inputs.uniform(conv.channels, -1.0, 1.0));
        let grad = pair.upload(&inputs.uniform(rows * n_out, -1.0, 1.0));
        let r = &pair.reference;

        let mut out = pair.rubbish(rows * n_out);
        device.conv_spikes(conv, &x, &weight.device, Some(&bias.device), &mut out.device).unwrap();
        r.conv_spikes(conv, &x_ref, &weight.reference, Some(&bias.reference), &mut out.reference).unwrap();
        pair.compare("conv_spikes", &out, CLOSE);

        let mut out = pair.rubbish(rows * n_out);
        device.conv_dense(conv, rows, &dense.device, &weight.device, None, &mut out.device).unwrap();
        r.conv_dense(conv, rows, &dense.reference, &weight.reference, None, &mut out.reference).unwrap();
        pair.compare("conv_dense", &out, CLOSE);

        let mut gw = pair.rubbish(n_weight);
        device.conv_spikes_weight_grad(conv, &x, &grad.device, &mut gw.device).unwrap();
        r.conv_spikes_weight_grad(conv, &x_ref, &grad.reference, &mut gw.reference).unwrap();
        pair.compare("conv_spikes_weight_grad", &gw, CLOSE);

        let mut gw = pair.rubbish(n_weight);
        device.conv_dense_weight_grad(conv, rows, &dense.device, &grad.device, &mut gw.device).unwrap();
        r.conv_dense_weight_grad(conv, rows, &dense.reference, &grad.reference, &mut gw.reference).unwrap();
        pair.compare("conv_dense_weight_grad", &gw, CLOSE);

        let mut gx = pair.rubbish(lanes.len());
        device.conv_input_grad(conv, rows, &grad.device, &weight.device, &mut gx.device).unwrap();
        r.conv_input_grad(conv, rows, &grad.reference, &weight.reference, &mut gx.reference).unwrap();
        pair.compare("conv_input_grad", &gx, CLOSE);
    }
}

/// Max pooling of spikes and counts, ties included.
pub fn pooling_matches_reference<B: Backend>(device: &B) {
    use crate::backend::{LinAlg, SpikeMemory};
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(4);
    for (map, window) in [
        (Map::new(4, 6, 3), [2, 2]),
        (Map::new(5, 5, 1), [2, 2]),
        (Map::new(6, 6, 2), [3, 3]),
        (Map::new(1, 1, 31), [1, 1]),
        (Map::new(9, 1, 4), [2, 1]),
    ] {
        let pool = Pool::rectangle(map, window).unwrap();
        let lanes = Lanes::new(2, 5, map.len());
        let (x, x_ref) = pair.spikes(&inputs.spikes(lanes, 0.4));
        let (mut out, mut out_ref) = (device.spikes(), pair.reference.spikes());
        device.pool_spikes(&pool, &x, &mut out).unwrap();
        pair.reference.pool_spikes(&pool, &x_ref, &mut out_ref).unwrap();
        assert_eq!(device.download_spikes(&out).unwrap().to_dense::<f64>(), out_ref.values);
        let grad = pair.upload(&inputs.uniform(out_ref.values.len(), -1.0, 1.0));
        let mut gx = pair.rubbish(lanes.len());
        device.pool_spikes_grad(&pool, &x, &grad.device, &mut gx.device).unwrap();
        pair.reference.pool_spikes_grad(&pool, &x_ref, &grad.reference, &mut gx.reference).unwrap();
        pair.compare("pool_spikes_grad", &gx, 0.0);

        let r = &pair.reference;
        let mut means = pair.rubbish(out_ref.values.len());
        device.pool_spikes_mean(&pool, &x, &mut means.device).unwrap();
        r.pool_spikes_mean(&pool, &x_ref, &mut means.reference).unwrap();
        pair.compare("pool_spikes_mean", &means, CLOSE);
        let values = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        device.pool_mean(&pool, lanes.rows(), &values.device, &mut means.device).unwrap();
        r.pool_mean(&pool, lanes.rows(), &values.reference, &mut means.reference).unwrap();
        pair.compare("pool_mean", &means, CLOSE);
        let mut gx = pair.rubbish(lanes.len());
        device.pool_mean_grad(&pool, lanes.rows(), &grad.device, &mut gx.device).unwrap();
        r.pool_mean_grad(&pool, lanes.rows(), &grad.reference, &mut gx.reference).unwrap();
        pair.compare("pool_mean_grad", &gx, CLOSE);

        // Few different values, so that windows have ties, and among them zeros.
        let coarse: Vec<f32> = inputs.uniform(lanes.len(), -2.0, 2.0).iter().map(|x| x.round()).collect();
        let values = pair.upload(&coarse);
        let sign: Vec<f32> = (0..map.channels).map(|c| if c % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let sign = pair.upload(&sign);
        for sign in [None, Some(&sign)] {
            let (mut at, mut at_ref) =
                (device.zeros::<u32>(out_ref.values.len()).unwrap(), vec![9; out_ref.values.len()]);
            let mut best = pair.rubbish(out_ref.values.len());
            let rows = lanes.rows();
            device.pool_max(&pool, rows, sign.map(|s| &s.device), &values.device, &mut best.device, &mut at).unwrap();
            let of_reference = sign.map(|s| &s.reference);
            r.pool_max(&pool, rows, of_reference, &values.reference, &mut best.reference, &mut at_ref).unwrap();
            pair.compare("pool_max", &best, 0.0);
            pair.same("pool_max: at", &at, &at_ref);
            let mut gx = pair.rubbish(lanes.len());
            device.pool_max_grad(&pool, rows, &at, &grad.device, &mut gx.device).unwrap();
            r.pool_max_grad(&pool, rows, &at_ref, &grad.reference, &mut gx.reference).unwrap();
            pair.compare("pool_max_grad", &gx, 0.0);
        }
    }
}

/// Normalisation of channels: moments, the map with and without its trace, the adjoint.
pub fn normalisation_matches_reference<B: Backend>(device: &B) {
    use crate::backend::LinAlg;
    let pair = Pair::new(device);
    let r = &pair.reference;
    let mut inputs = Inputs::new(7);
    for (rows, channels) in [(2, 1), (31, 33), (700, 128), (40_000, 3), (5, 1100)] {
        let mut list = |low, high| pair.upload(&inputs.uniform(channels, low, high));
        let (gain, offset) = (list(0.5, 1.5), list(-0.5, 0.5));
        // A mean far above the deviation: a difference of large sums would be lost here.
        let mut x = pair.upload(&inputs.uniform(rows * channels, 7.0, 9.0));
        let grad = pair.upload(&inputs.uniform(rows * channels, -1.0, 1.0));
        let what = |name: &str| format!("{name} of {rows} rows, {channels} channels");

        let (mut mean, mut variance) = (pair.rubbish(channels), pair.rubbish(channels));
        device.channel_moments(&x.device, &mut mean.device, &mut variance.device).unwrap();
        r.channel_moments(&x.reference, &mut mean.reference, &mut variance.reference).unwrap();
        pair.compare(&what("mean"), &mean, CLOSE);
        pair.compare(&what("variance"), &variance, CLOSE);

        let norm = ChannelNorm::<B> {
            eps: 1e-2,
            mean: &mean.device,
            variance: &variance.device,
            gain: &gain.device,
            offset: &offset.device,
        };
        let norm_ref = ChannelNorm::<Reference<f64>> {
            eps: 1e-2,
            mean: &mean.reference,
            variance: &variance.reference,
            gain: &gain.reference,
            offset: &offset.reference,
        };
        let mut plain = pair.host(&x.device);
        let mut untraced = device.buffer_from(&plain.drain(..).map(B::Real::lit).collect::<Vec<_>>()).unwrap();
        device.normalise_channels(norm, &mut untraced, None).unwrap();
        let mut trace = pair.rubbish(rows * channels);
        device.normalise_channels(norm, &mut x.device, Some(&mut trace.device)).unwrap();
        r.normalise_channels(norm_ref, &mut x.reference, Some(&mut trace.reference)).unwrap();
        pair.compare(&what("map"), &x, CLOSE);
        assert_close(&what("map without a trace"), &pair.host(&untraced), &x.reference, CLOSE);
        let (mut on_gain, mut on_offset) = (pair.rubbish(channels), pair.rubbish(channels));
        let (g, o) = (&mut on_gain.device, &mut on_offset.device);
        device.normalise_channels_grad(norm, &grad.device, &mut trace.device, g, o).unwrap();
        let (g, o) = (&mut on_gain.reference, &mut on_offset.reference);
        r.normalise_channels_grad(norm_ref, &grad.reference, &mut trace.reference, g, o).unwrap();
        pair.compare(&what("gradient on the input"), &trace, 4.0 * CLOSE);
        pair.compare(&what("gradient on the gain"), &on_gain, 4.0 * CLOSE);
        pair.compare(&what("gradient on the offset"), &on_offset, CLOSE);
    }
}

/// Masks of spikes and of values.
pub fn masks_match_reference<B: Backend>(device: &B) {
    use crate::backend::{LinAlg, SpikeMemory};
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(8);
    for (batch, steps, width) in [(1, 1, 1), (3, 31, 33), (2, 9, 257)] {
        let lanes = Lanes::new(batch, steps, width);
        let mask = inputs.uniform(batch * width, -0.5, 0.5).into_iter().map(|x| x.max(0.0)).collect::<Vec<_>>();
        let mask = pair.upload(&mask);
        let (x, x_ref) = pair.spikes(&inputs.spikes(lanes, 0.3));
        let (mut out, mut out_ref) = (device.spikes(), pair.reference.spikes());
        device.mask_spikes(&mask.device, &x, &mut out).unwrap();
        pair.reference.mask_spikes(&mask.reference, &x_ref, &mut out_ref).unwrap();
        assert_eq!(device.download_spikes(&out).unwrap().to_dense::<f64>(), out_ref.values);
        let mut values = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        device.mask_values(lanes, &mask.device, &mut values.device).unwrap();
        pair.reference.mask_values(lanes, &mask.reference, &mut values.reference).unwrap();
        pair.compare("mask_values", &values, CLOSE);
    }
}

/// Projections with delays: kernels of every width, products with few and many events, gradients.
pub fn delays_match_reference<B: Backend>(device: &B) {
    use crate::backend::DelayOps;
    let pair = Pair::new(device);
    let r = &pair.reference;
    let mut inputs = Inputs::new(9);
    for (lanes, width, reach, sigma, density) in [
        (Lanes::new(1, 1, 1), 1, 1, Some(0.5), 1.0),
        (Lanes::new(2, 9, 31), 33, 25, Some(12.0), 0.02),
        (Lanes::new(3, 31, 17), 10, 5, Some(0.23), 0.3),
        (Lanes::new(37, 5, 3), 129, 4, Some(1.0), 0.9),
        (Lanes::new(2, 12, 40), 7, 6, None, 0.01),
    ] {
        let delays = Delays { width, delays: reach };
        let synapses = lanes.width * width;
        let weight = pair.upload(&inputs.uniform(synapses, -1.0, 1.0));
        let position = pair.upload(&inputs.uniform(synapses, 0.0, (reach - 1) as f32));
        let bell = sigma.map(|s| pair.upload(&[s]));
        let what = |name: &str| format!("{name} of {delays:?}, {lanes:?}, sigma {sigma:?}, density {density}");
        let parameters = DelayKernel::<B> {
            weight: &weight.device,
            position: &position.device,
            sigma: bell.as_ref().map(|s| &s.device),
        };
        let parameters_ref = DelayKernel::<Reference<f64>> {
            weight: &weight.reference,
            position: &position.reference,
            sigma: bell.as_ref().map(|s| &s.reference),
        };
        let mut kernel = pair.rubbish(synapses * reach);
        device.delay_kernel(delays, parameters, &mut kernel.device).unwrap();
        r.delay_kernel(delays, parameters_ref, &mut kernel.reference).unwrap();
        pair.compare(&what("kernel"), &kernel, CLOSE);

        let (x, x_ref) = pair.spikes(&inputs.spikes(lanes, density));
        let mut out = pair.rubbish(lanes.rows() * width);
        device.delay_forward(delays, &x, &kernel.device, &mut out.device).unwrap();
        r.delay_forward(delays, &x_ref, &kernel.reference, &mut out.reference).unwrap();
        pair.compare(&what("delay_forward"), &out, CLOSE);

        let grad = pair.upload(&inputs.uniform(lanes.rows() * width, -1.0, 1.0));
        let mut on_kernel = pair.rubbish(synapses * reach);
        device.delay_weight_grad(delays, &x, &grad.device, &mut on_kernel.device).unwrap();
        r.delay_weight_grad(delays, &x_ref, &grad.reference, &mut on_kernel.reference).unwrap();
        pair.compare(&what("gradient on the kernel"), &on_kernel, CLOSE);
        let mut on_input = pair.rubbish(lanes.len());
        device.delay_input_grad(delays, lanes, &grad.device, &kernel.device, &mut on_input.device).unwrap();
        r.delay_input_grad(delays, lanes, &grad.reference, &kernel.reference, &mut on_input.reference).unwrap();
        pair.compare(&what("gradient on the input"), &on_input, CLOSE);

        let (mut on_weight, mut on_position) = (pair.rubbish(synapses), pair.rubbish(synapses));
        let (w, p) = (&mut on_weight.device, &mut on_position.device);
        let done = device.delay_kernel_grad(delays, parameters, &on_kernel.device, w, p);
        let (w, p) = (&mut on_weight.reference, &mut on_position.reference);
        let done_ref = r.delay_kernel_grad(delays, parameters_ref, &on_kernel.reference, w, p);
        assert_eq!((done.is_ok(), done_ref.is_ok()), (sigma.is_some(), sigma.is_some()));
        if sigma.is_some() {
            pair.compare(&what("gradient on the weights"), &on_weight, 4.0 * CLOSE);
            pair.compare(&what("gradient on the positions"), &on_position, 10.0 * CLOSE);
        }
        let mut moved = pair.upload(&inputs.uniform(synapses, -2.0, 2.0));
        device.clamp(-0.5, 1.0, &mut moved.device).unwrap();
        r.clamp(-0.5, 1.0, &mut moved.reference).unwrap();
        pair.compare("clamp", &moved, 0.0);
    }
}

/// Every clocked neuron, forward and backward, with shared and per-neuron decay, initial membrane, and gradients on
/// spikes and membrane.
pub fn neurons_match_reference<B: Backend>(device: &B) {
    let mut neurons = vec![Neuron::Lif(LifNeuron::INTEGRATOR)];
    for path in [Path::Attached, Path::Detached] {
        neurons.push(Neuron::Lif(LifNeuron::new(LifKind::Multi { reset: path })));
        neurons.push(Neuron::Lif(LifNeuron::new(LifKind::Single { mask: path })));
    }
    for start in [Start::Decayed, Start::Undecayed] {
        neurons.push(Neuron::Block(BlockNeuron { start, ..BlockNeuron::default() }));
    }
    for surrogate in [Surrogate::BOXCAR, Surrogate::MULTI_GAUSSIAN, Surrogate::ARCTAN] {
        neurons.push(Neuron::Block(BlockNeuron { surrogate, threshold: 0.8, ..BlockNeuron::default() }));
    }
    for (seed, neuron) in neurons.iter().enumerate() {
        for (i, (batch, steps, width)) in [(1, 1, 1), (2, 33, 31), (3, 20, 257), (1, 7, 1100)].into_iter().enumerate() {
            neuron_case(device, neuron, Lanes::new(batch, steps, width), i % 2 == 0, (seed * 10 + i) as u64);
        }
    }
}

/// A neuron of either clocked family.
#[derive(Debug)]
enum Neuron {
    Lif(LifNeuron),
    Block(BlockNeuron),
}

impl Neuron {
    #[expect(clippy::type_complexity, reason = "decay and initial membrane, a pair of buffers")]
    fn run<B: Backend>(
        &self,
        device: &B,
        lanes: Lanes,
        (beta, initial): (&B::Buffer<B::Real>, &B::Buffer<B::Real>),
        state: &mut B::Buffer<B::Real>,
        grad: &mut B::Buffer<B::Real>,
        leak_grad: LeakGrad<'_, B>,
    ) -> B::Spikes {
        let leak = || Leak { beta_raw: beta, initial: Some(initial) };
        let mut spikes = device.spikes();
        match self {
            Self::Lif(n) => {
                device.lif_forward(n, lanes, leak(), state, &mut spikes).unwrap();
                device.lif_backward(n, lanes, leak(), state, grad, leak_grad).unwrap();
                device.lif_membrane(n, lanes, state).unwrap();
            }
            Self::Block(n) => {
                device.block_forward(n, lanes, leak(), state, &mut spikes).unwrap();
                device.block_backward(n, lanes, leak(), state, grad, leak_grad).unwrap();
            }
        }
        spikes
    }
}

fn neuron_case<B: Backend>(device: &B, neuron: &Neuron, lanes: Lanes, shared: bool, seed: u64) {
    use crate::backend::SpikeMemory;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(100 + seed);
    let lane_count = lanes.batch * lanes.width;
    // Some raw decays lie outside [0, 1], where they are clamped and their gradient is 0.
    let beta = pair.upload(&inputs.uniform(if shared { 1 } else { lanes.width }, -0.1, 1.05));
    let initial = pair.upload(&inputs.uniform(lane_count, -0.5, 0.9));
    let mut state = pair.upload(&inputs.uniform(lanes.len(), -0.5, 0.9));
    let grad = inputs.uniform(lanes.len(), -1.0, 1.0);
    let silent = matches!(neuron, Neuron::Lif(LifNeuron { kind: LifKind::Integrator, .. }));
    let mut grad = pair.upload(&if silent { vec![0.0; lanes.len()] } else { grad });
    let membrane = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
    let [mut g_beta, mut g_initial, mut g_sum] = [0; 3].map(|_| pair.rubbish(lane_count));

    let what = format!("{neuron:?} {lanes:?}");
    let got = neuron.run(
        device,
        lanes,
        (&beta.device, &initial.device),
        &mut state.device,
        &mut grad.device,
        LeakGrad {
            membrane: Some(&membrane.device),
            beta: Some(&mut g_beta.device),
            initial: Some(&mut g_initial.device),
            current_sum: Some(&mut g_sum.device),
        },
    );
    let want = neuron.run(
        &pair.reference,
        lanes,
        (&beta.reference, &initial.reference),
        &mut state.reference,
        &mut grad.reference,
        LeakGrad {
            membrane: Some(&membrane.reference),
            beta: Some(&mut g_beta.reference),
            initial: Some(&mut g_initial.reference),
            current_sum: Some(&mut g_sum.reference),
        },
    );
    if !silent {
        let got = device.download_spikes(&got).unwrap();
        assert_eq!(got.to_dense::<f64>(), want.values, "{what}: spikes");
        let per_sample: Vec<u32> = got.events_per_sample().map(|n| n as u32).collect();
        assert_eq!(per_sample, pair.reference.events_per_sample(&want).unwrap());
    }
    pair.compare(&format!("{what}: membrane"), &state, CLOSE);
    pair.compare(&format!("{what}: gradient on the current"), &grad, CLOSE);
    pair.compare(&format!("{what}: gradient on the decay"), &g_beta, CLOSE);
    pair.compare(&format!("{what}: gradient on the initial membrane"), &g_initial, CLOSE);
    pair.compare(&format!("{what}: gradient summed over time"), &g_sum, CLOSE);
}

/// The gradients of a filtered neuron: alpha, beta, threshold, sum of the current.
struct LaneGrads<B: Backend>([Both<B>; 4]);

impl<B: Backend> LaneGrads<B> {
    fn new(pair: &Pair<'_, B>, lanes: Lanes) -> Self {
        Self([0; 4].map(|_| pair.rubbish(lanes.batch * lanes.width)))
    }

    fn places<'a>(&'a mut self, membrane: Option<&'a Both<B>>) -> (FilterGrad<'a, B>, FilterGrad<'a, Reference<f64>>) {
        let [a, b, t, s] = &mut self.0;
        let device = FilterGrad {
            membrane: membrane.map(|m| &m.device),
            alpha: Some(&mut a.device),
            beta: Some(&mut b.device),
            threshold: Some(&mut t.device),
            current_sum: Some(&mut s.device),
        };
        let reference = FilterGrad {
            membrane: membrane.map(|m| &m.reference),
            alpha: Some(&mut a.reference),
            beta: Some(&mut b.reference),
            threshold: Some(&mut t.reference),
            current_sum: Some(&mut s.reference),
        };
        (device, reference)
    }

    fn compare(&self, pair: &Pair<'_, B>, what: &str) {
        for (both, name) in self.0.iter().zip(["alpha", "beta", "threshold", "sum of the current"]) {
            pair.compare(&format!("{what}: gradient on the {name}"), both, 4.0 * CLOSE);
        }
    }
}

/// A filter pair with rubbish-free decays: shared or per neuron, stored directly or through the logistic function.
fn filter_pair<B: Backend>(pair: &Pair<'_, B>, inputs: &mut Inputs, width: usize, option: usize) -> (Both<B>, Both<B>) {
    let len = if option & 1 == 0 { 1 } else { width };
    let mut list =
        || pair.upload(&if option & 2 == 0 { inputs.uniform(len, 0.5, 0.95) } else { inputs.uniform(len, -1.0, 3.0) });
    (list(), list())
}

/// Parallel neurons in every mode, with and without filters, delay, learned decays; noise given and drawn.
pub fn paralif_matches_reference<B: Backend>(device: &B) {
    let mut inputs = Inputs::new(41);
    let fast = Surrogate::FastSigmoid { scale: 100.0 };
    let mut firings: Vec<Firing> = FiringMode::ALL.iter().map(|m| m.firing(fast)).collect();
    firings.extend([FiringMode::D, FiringMode::TT].map(|m| m.firing(Surrogate::ARCTAN)));
    let with = |mode: FiringMode, generator| Firing { generator, ..mode.firing(fast) };
    firings.push(with(FiringMode::GS, Generator::Gumbel { temperature: 0.7 }));
    firings.push(with(FiringMode::SB, Generator::Bernoulli(BernoulliGradient::Identity)));
    firings.push(with(FiringMode::SD, Generator::Delta { surrogate: fast, pad_normalised: true }));
    for (i, firing) in firings.iter().enumerate() {
        for (j, (batch, steps, width)) in [(1, 1, 1), (2, 31, 33), (3, 9, 257)].into_iter().enumerate() {
            for delayed in [false, true] {
                let option = i + j;
                let fire = Some((Firing { delayed, ..*firing }, option & 1 == 0));
                paralif_case(device, &mut inputs, Lanes::new(batch, steps, width), option, !delayed, fire);
            }
        }
    }
    for option in 0..4 {
        paralif_case(device, &mut inputs, Lanes::new(2, 17, 31), option, true, None);
    }
}

fn paralif_case<B: Backend>(
    device: &B,
    inputs: &mut Inputs,
    lanes: Lanes,
    option: usize,
    filtered: bool,
    fire: Option<(Firing, bool)>,
) {
    use crate::backend::ParaLifOps;
    let pair = Pair::new(device);
    let what = format!("{fire:?} {lanes:?} option {option}, filters {filtered}");
    let (alpha, beta) = filter_pair(&pair, inputs, lanes.width, option);
    let map = if option & 2 == 0 { DecayMap::Direct } else { DecayMap::Sigmoid };
    let with_alpha = option & 4 == 0;
    // Some stored thresholds are negative, which counts as 0.
    let threshold = pair.upload(&inputs.uniform(if option & 1 == 0 { 1 } else { lanes.width }, -0.1, 0.6));
    let noise = pair.upload(&inputs.uniform(lanes.len(), 0.0, 1.0));
    let draws = SpikeDraws { seed: 7, pass: option as u32, population: 1 };
    let mut state = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.5));
    let mut grad = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
    let membrane = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
    let mut spikes = device.spikes();
    let mut spikes_ref = crate::backend::SpikeMemory::spikes(&pair.reference);

    let filters =
        filtered.then_some(Filters::<B> { alpha: with_alpha.then_some(&alpha.device), beta: &beta.device, map });
    let fired = fire.map(|(firing, drawn)| Fire::<B> {
        firing,
        threshold: &threshold.device,
        noise: if drawn { Noise::Drawn(draws) } else { Noise::Given(&noise.device) },
    });
    let filters_ref = filtered.then_some(Filters::<Reference<f64>> {
        alpha: with_alpha.then_some(&alpha.reference),
        beta: &beta.reference,
        map,
    });
    let fired_ref = fire.map(|(firing, drawn)| Fire::<Reference<f64>> {
        firing,
        threshold: &threshold.reference,
        noise: if drawn { Noise::Drawn(draws) } else { Noise::Given(&noise.reference) },
    });
    device.paralif_forward(lanes, filters, fired, &mut state.device, &mut spikes).unwrap();
    pair.reference.paralif_forward(lanes, filters_ref, fired_ref, &mut state.reference, &mut spikes_ref).unwrap();
    pair.compare(&format!("{what}: membrane"), &state, CLOSE);
    if fire.is_some() {
        assert_eq!(device.download_spikes(&spikes).unwrap().to_dense::<f64>(), spikes_ref.values, "{what}: spikes");
    }
    let mut rows = LaneGrads::new(&pair, lanes);
    let given = (option & 8 == 0).then_some(&membrane);
    let (places, places_ref) = rows.places(given);
    let places = FilterGrad { alpha: places.alpha.filter(|_| with_alpha), ..places };
    let places_ref = FilterGrad { alpha: places_ref.alpha.filter(|_| with_alpha), ..places_ref };
    device.paralif_backward(lanes, filters, fired, &state.device, &mut grad.device, places).unwrap();
    let r = &pair.reference;
    r.paralif_backward(lanes, filters_ref, fired_ref, &state.reference, &mut grad.reference, places_ref).unwrap();
    pair.compare(&format!("{what}: gradient on the current"), &grad, 4.0 * CLOSE);
    rows.compare(&pair, &what);
}

/// Current-based neurons: surrogates, refractory periods, recurrence, learned decays, readouts.
pub fn cuba_matches_reference<B: Backend>(device: &B) {
    use crate::backend::CubaOps;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(43);
    let mut option = 0;
    for recurrence in [Recurrence::None, Recurrence::Spike, Recurrence::Relu] {
        for (refractory, fires) in [(0, true), (1, true), (4, true), (0, false)] {
            for (batch, steps, width) in [(1, 1, 1), (3, 31, 33), (2, 12, 129)] {
                option += 1;
                let lanes = Lanes::new(batch, steps, width);
                let surrogate =
                    if option % 2 == 0 { Surrogate::ARCTAN } else { Surrogate::FastSigmoid { scale: 10.0 } };
                let neuron = CubaNeuron { surrogate, refractory, fires, recurrence };
                let what = format!("{neuron:?} {lanes:?}");
                let (alpha, beta) = filter_pair(&pair, &mut inputs, width, option);
                let map = if option & 2 == 0 { DecayMap::Direct } else { DecayMap::Sigmoid };
                let threshold = pair.upload(&inputs.uniform(if option & 1 == 0 { 1 } else { width }, 0.2, 0.6));
                let size = 1.0 / (width as f32).sqrt();
                let weight = pair.upload(&inputs.uniform(width * width, -size, size));
                let bias = pair.upload(&inputs.uniform(width, -0.1, 0.1));
                let mut state = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.5));
                let mut grad = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
                let membrane = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
                let mut synaptic = pair.rubbish(lanes.len());
                let recurrent = recurrence != Recurrence::None;

                let parameters = CubaParameters::<B> {
                    filters: Filters { alpha: Some(&alpha.device), beta: &beta.device, map },
                    threshold: &threshold.device,
                    recurrent: recurrent.then_some(Recurrent { weight: &weight.device, bias: &bias.device }),
                };
                let parameters_ref = CubaParameters::<Reference<f64>> {
                    filters: Filters { alpha: Some(&alpha.reference), beta: &beta.reference, map },
                    threshold: &threshold.reference,
                    recurrent: recurrent.then_some(Recurrent { weight: &weight.reference, bias: &bias.reference }),
                };
                let (mut spikes, mut spikes_ref) =
                    (device.spikes(), crate::backend::SpikeMemory::spikes(&pair.reference));
                let (state_dev, synaptic_dev) = (&mut state.device, Some(&mut synaptic.device));
                device.cuba_forward(&neuron, lanes, parameters, state_dev, synaptic_dev, &mut spikes).unwrap();
                let (r, s_ref) = (&pair.reference, Some(&mut synaptic.reference));
                r.cuba_forward(&neuron, lanes, parameters_ref, &mut state.reference, s_ref, &mut spikes_ref).unwrap();
                pair.compare(&format!("{what}: membrane"), &state, CLOSE);
                pair.compare(&format!("{what}: synaptic trace"), &synaptic, CLOSE);
                if fires {
                    let got = device.download_spikes(&spikes).unwrap();
                    assert_eq!(got.to_dense::<f64>(), spikes_ref.values, "{what}: spikes");
                    let mut late = device.spikes();
                    device.delay_spikes(&spikes, 1, &mut late).unwrap();
                    let mut late_ref = crate::backend::SpikeMemory::spikes(r);
                    crate::backend::SpikeMemory::delay_spikes(r, &spikes_ref, 1, &mut late_ref).unwrap();
                    assert_eq!(device.download_spikes(&late).unwrap().to_dense::<f64>(), late_ref.values, "{what}");
                }
                let mut rows = LaneGrads::new(&pair, lanes);
                let (places, places_ref) = rows.places(Some(&membrane));
                let (s, g) = (Some(&synaptic.device), &mut grad.device);
                device.cuba_backward(&neuron, lanes, parameters, &state.device, s, g, places).unwrap();
                let (s, g) = (Some(&synaptic.reference), &mut grad.reference);
                r.cuba_backward(&neuron, lanes, parameters_ref, &state.reference, s, g, places_ref).unwrap();
                pair.compare(&format!("{what}: gradient on the current"), &grad, 4.0 * CLOSE);
                rows.compare(&pair, &what);
                device.cuba_membrane(&neuron, lanes, &threshold.device, &mut state.device).unwrap();
                r.cuba_membrane(&neuron, lanes, &threshold.reference, &mut state.reference).unwrap();
                pair.compare(&format!("{what}: membrane after the reset"), &state, CLOSE);
            }
        }
    }
}

/// Reductions, broadcasts and the loss.
pub fn reductions_match_reference<B: Backend>(device: &B) {
    use crate::backend::LinAlg;
    let pair = Pair::new(device);
    let r = &pair.reference;
    let mut inputs = Inputs::new(5);
    for (batch, steps, width) in [(1, 1, 1), (3, 31, 33), (4, 200, 10)] {
        let lanes = Lanes::new(batch, steps, width);
        let x = pair.upload(&inputs.uniform(lanes.len(), -1.0, 1.0));
        let small = pair.upload(&inputs.uniform(batch * width, -1.0, 1.0));
        let bias = pair.upload(&inputs.uniform(width, -1.0, 1.0));

        let mut out = pair.rubbish(width);
        device.sum_rows(lanes.rows(), width, &x.device, &mut out.device).unwrap();
        r.sum_rows(lanes.rows(), width, &x.reference, &mut out.reference).unwrap();
        pair.compare("sum_rows", &out, CLOSE);

        let mut out = pair.rubbish(lanes.len());
        device.repeat_steps(lanes, &small.device, &mut out.device).unwrap();
        r.repeat_steps(lanes, &small.reference, &mut out.reference).unwrap();
        pair.compare("repeat_steps", &out, 0.0);
        device.add_bias(lanes.rows(), &bias.device, &mut out.device).unwrap();
        r.add_bias(lanes.rows(), &bias.reference, &mut out.reference).unwrap();
        device.add_assign(&x.device, &mut out.device).unwrap();
        r.add_assign(&x.reference, &mut out.reference).unwrap();
        device.add_scaled(-0.3, &x.device, &mut out.device).unwrap();
        r.add_scaled(-0.3, &x.reference, &mut out.reference).unwrap();
        device.add_constant(0.25, &mut out.device).unwrap();
        r.add_constant(0.25, &mut out.reference).unwrap();
        pair.compare("add_bias, add_assign, add_scaled, add_constant", &out, CLOSE);

        let mut late = pair.rubbish(lanes.len());
        device.delay(lanes, &x.device, &mut late.device).unwrap();
        r.delay(lanes, &x.reference, &mut late.reference).unwrap();
        pair.compare("delay", &late, 0.0);
        device.advance(lanes, &mut late.device).unwrap();
        r.advance(lanes, &mut late.reference).unwrap();
        pair.compare("advance", &late, 0.0);
        device.relu(&mut late.device).unwrap();
        r.relu(&mut late.reference).unwrap();
        device.relu_grad(&late.device, &mut out.device).unwrap();
        r.relu_grad(&late.reference, &mut out.reference).unwrap();
        pair.compare("relu", &late, 0.0);
        pair.compare("relu_grad", &out, CLOSE);

        use TimeReduction::{Last, Max, Mean, SoftmaxSum, Sum};
        for reduction in [Sum, Max, Mean, Last, SoftmaxSum] {
            let mut out = pair.rubbish(batch * width);
            let (mut at, mut at_ref) = (device.zeros(batch * width).unwrap(), vec![9; batch * width]);
            device.reduce_time(reduction, lanes, &x.device, &mut out.device, &mut at).unwrap();
            r.reduce_time(reduction, lanes, &x.reference, &mut out.reference, &mut at_ref).unwrap();
            pair.compare("reduce_time", &out, CLOSE);
            pair.same("step of the maximum", &at, &at_ref);
            let mut gx = pair.rubbish(lanes.len());
            device.reduce_time_grad(reduction, lanes, &x.device, &small.device, &at, &mut gx.device).unwrap();
            r.reduce_time_grad(reduction, lanes, &x.reference, &small.reference, &at_ref, &mut gx.reference).unwrap();
            pair.compare("reduce_time_grad", &gx, CLOSE);
        }

        let targets: Vec<u32> = (0..batch).map(|b| (b % width) as u32).collect();
        let device_targets = device.buffer_from(&targets).unwrap();
        let (mut losses, mut grad) = (pair.rubbish(batch), pair.rubbish(batch * width));
        device
            .softmax_cross_entropy(width, &small.device, &device_targets, &mut losses.device, &mut grad.device)
            .unwrap();
        r.softmax_cross_entropy(width, &small.reference, &targets, &mut losses.reference, &mut grad.reference).unwrap();
        pair.compare("losses", &losses, CLOSE);
        pair.compare("gradient of the loss", &grad, CLOSE);

        let mut shares = inputs.uniform(batch * width, 0.0, 1.0);
        for row in shares.chunks_mut(width) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
        let shares = pair.upload(&shares);
        let (l, g) = (&mut losses.device, &mut grad.device);
        device.soft_cross_entropy(width, &small.device, &shares.device, l, g).unwrap();
        let (l, g) = (&mut losses.reference, &mut grad.reference);
        r.soft_cross_entropy(width, &small.reference, &shares.reference, l, g).unwrap();
        pair.compare("losses of shares", &losses, CLOSE);
        pair.compare("gradient of the loss of shares", &grad, 4.0 * CLOSE);
        let (l, g) = (&mut losses.device, &mut grad.device);
        device.squared_error(width, &small.device, &shares.device, l, g).unwrap();
        let (l, g) = (&mut losses.reference, &mut grad.reference);
        r.squared_error(width, &small.reference, &shares.reference, l, g).unwrap();
        pair.compare("squared errors", &losses, CLOSE);
        pair.compare("gradient of the squared error", &grad, CLOSE);
    }
}

/// Every optimiser rule over several steps.
pub fn updates_match_reference<B: Backend>(device: &B) {
    use crate::backend::Optimise;
    let pair = Pair::new(device);
    let rules = [
        UpdateRule::Sgd { momentum: 0.0, nesterov: false },
        UpdateRule::Sgd { momentum: 0.9, nesterov: false },
        UpdateRule::Sgd { momentum: 0.9, nesterov: true },
        UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: false },
        UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true },
        UpdateRule::NAdam { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        UpdateRule::Adamax { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
    ];
    for (rule, weight_decay) in rules.into_iter().flat_map(|r| [0.0, 0.1].map(|w| (r, w))) {
        let mut inputs = Inputs::new(6);
        let mut p = pair.upload(&inputs.uniform(257, -1.0, 1.0));
        let [mut first, mut second] = [0; 2].map(|_| pair.upload(&[0.0; 257]));
        for step in 1..=3 {
            let g = pair.upload(&inputs.uniform(257, -1.0, 1.0));
            let update = Update { rule, learning_rate: 0.01, weight_decay, step };
            let slot = UpdateSlot {
                value: &mut p.device,
                grad: &g.device,
                first: &mut first.device,
                second: &mut second.device,
                decays: true,
            };
            device.update(&update, &mut [slot]).unwrap();
            let slot = UpdateSlot {
                value: &mut p.reference,
                grad: &g.reference,
                first: &mut first.reference,
                second: &mut second.reference,
                decays: true,
            };
            pair.reference.update(&update, &mut [slot]).unwrap();
        }
        pair.compare(&format!("{rule:?}, decay {weight_decay}"), &p, CLOSE);
        let want = p.reference.iter().map(|x| x * x).sum::<f64>();
        assert!((device.sum_of_squares(&p.device).unwrap() / want - 1.0).abs() < CLOSE);
    }
}

/// Neurons that spike at most once: with and without borders and limits, what perturbs their times, their census, the
/// slopes of the older neuron, quantised weights.
pub fn ttfs_matches_reference<B: Backend>(device: &B) {
    use crate::backend::TtfsOps;
    let pair = Pair::new(device);
    let r = &pair.reference;
    let mut inputs = Inputs::new(15);
    let draws = SpikeDraws { seed: 5, pass: 3, population: 2 };
    let bordered = |height, width, kernel: usize| {
        Borders::of(&Conv::new(Map::new(height, width, 2), 1, kernel, 1, kernel / 2).unwrap())
    };
    let layers = [
        (1, Borders::none(1), 1),
        (17, Borders::none(1), 257),
        (3, Borders::none(31), 33),
        (3, bordered(5, 4, 3), 31),
        (2, bordered(2, 2, 3), 16),
        (2, bordered(1, 3, 3), 5),
        (9, bordered(7, 6, 5), 3),
    ];
    for ((batch, borders, channels), limited) in layers.iter().flat_map(|l| [false, true].map(|limited| (l, limited))) {
        let what = format!("{batch} samples, {} regions, {channels} channels, limited {limited}", borders.regions());
        let neuron = TtfsNeuron { limited };
        let len = batch * borders.positions() * channels;
        let shift = pair.upload(&inputs.uniform(borders.regions() * channels, -0.5, 0.5));
        let window = pair.upload(&[0.7]);
        let slope = pair.upload(&inputs.uniform(*channels, -0.5, 1.5));
        let host = inputs.uniform(len, -1.0, 1.0);
        let grad = inputs.uniform(len, -1.0, 1.0);
        let mut x = pair.upload(&host);
        for slope in [Some(&slope), None] {
            x = pair.upload(&host);
            let of = (slope.map(|s| &s.device), slope.map(|s| &s.reference));
            device.ttfs_forward(&neuron, borders, &shift.device, of.0, &window.device, &mut x.device).unwrap();
            r.ttfs_forward(&neuron, borders, &shift.reference, of.1, &window.reference, &mut x.reference).unwrap();
            pair.compare(&what, &x, 1e-6);
        }
        let mut g = pair.upload(&grad);
        let mut g_shift = pair.rubbish(borders.regions() * channels);
        device.ttfs_backward(&neuron, borders, &window.device, &x.device, &mut g.device, &mut g_shift.device).unwrap();
        r.ttfs_backward(&neuron, borders, &window.reference, &x.reference, &mut g.reference, &mut g_shift.reference)
            .unwrap();
        pair.compare(&what, &g, 0.0);
        pair.compare(&what, &g_shift, CLOSE);

        let rows = *batch;
        let (mut census, mut census_ref) = (Census::empty(device).unwrap(), Census::empty(r).unwrap());
        device.ttfs_census(rows, &window.device, &x.device, &mut census).unwrap();
        r.ttfs_census(rows, &window.reference, &x.reference, &mut census_ref).unwrap();
        assert_close(&what, &pair.host(&census.peaks), &census_ref.peaks, 1e-6);
        pair.same(&what, &census.fired, &census_ref.fired);
        pair.same(&what, &census.early, &census_ref.early);
        let mut longer = pair.upload(&[0.7]);
        device.ttfs_grow(10.0, &census.peaks, &mut longer.device).unwrap();
        r.ttfs_grow(10.0, &census_ref.peaks, &mut longer.reference).unwrap();
        pair.compare(&what, &longer, 1e-6);

        for (noise, bits, tolerance) in [(0.2, 0, 1e-6), (0.0, 3, 1e-6), (0.1, 5, 1e-6)] {
            let perturbation = Perturbation { noise, bits, limited };
            let mut out = pair.rubbish(len);
            device.ttfs_perturb(&perturbation, draws, rows, &window.device, &x.device, &mut out.device).unwrap();
            r.ttfs_perturb(&perturbation, draws, rows, &window.reference, &x.reference, &mut out.reference).unwrap();
            pair.compare(&format!("{what}: {perturbation:?}"), &out, tolerance);
            let mut g = pair.upload(&grad);
            device.ttfs_perturb_grad(&perturbation, draws, rows, &window.device, &x.device, &mut g.device).unwrap();
            r.ttfs_perturb_grad(&perturbation, draws, rows, &window.reference, &x.reference, &mut g.reference).unwrap();
            pair.compare(&format!("{what}: gradient of {perturbation:?}"), &g, 0.0);
        }
    }

    for (m, n) in [(1, 1), (31, 33), (257, 9)] {
        let current = pair.upload(&inputs.uniform(m * n, -0.4, 0.5));
        let (mut slope, mut weight) = (pair.rubbish(n), pair.rubbish(m * n));
        device.ttfs_slope(&current.device, &mut slope.device, &mut weight.device).unwrap();
        r.ttfs_slope(&current.reference, &mut slope.reference, &mut weight.reference).unwrap();
        pair.compare("slopes", &slope, CLOSE);
        pair.compare("effective weights", &weight, 1e-3);
        let mut grad = pair.upload(&inputs.uniform(m * n, -1.0, 1.0));
        device.ttfs_slope_grad(&slope.device, &weight.device, &mut grad.device).unwrap();
        r.ttfs_slope_grad(&slope.reference, &weight.reference, &mut grad.reference).unwrap();
        pair.compare("gradient through slopes", &grad, 1e-3);
    }

    let x = pair.upload(&inputs.uniform(1000, -1.5, 1.5));
    for (bits, low, high) in [(1, -1.0, 1.0), (4, -1.0, 1.0), (8, -0.3, 1.2)] {
        let grid = Grid::new(bits, low, high).unwrap();
        let (mut out, mut grad) = (pair.rubbish(1000), pair.rubbish(1000));
        device.quantise(&grid, &x.device, &mut out.device).unwrap();
        r.quantise(&grid, &x.reference, &mut out.reference).unwrap();
        pair.compare("quantise", &out, 0.0);
        device.quantise_grad(&grid, &x.device, &mut grad.device).unwrap();
        r.quantise_grad(&grid, &x.reference, &mut grad.reference).unwrap();
        pair.compare("quantise_grad", &grad, 0.0);
    }
}

/// A wrong size is an error that names the argument, never a panic.
pub fn wrong_sizes_are_errors<B: Backend>(device: &B) {
    let short = device.zeros(3).unwrap();
    let mut out = device.zeros(4).unwrap();
    let e = device.gemm(Gemm::new(2, 2, 2), &short, &short, &mut out).unwrap_err();
    assert_eq!(e.to_string(), "gemm: `a` has shape [3], expected [4]");
    let leak = Leak { beta_raw: &short, initial: None };
    let mut spikes = device.spikes();
    let mut state = device.zeros(8).unwrap();
    let lanes = Lanes::new(1, 4, 2);
    let e = device.block_forward(&BlockNeuron::default(), lanes, leak, &mut state, &mut spikes).unwrap_err();
    assert_eq!(e.to_string(), "block_forward: `beta` has shape [3], expected [2]");
    assert!(device.upload(&[B::Real::ZERO; 5], &mut out).is_err());
}

impl<B: Backend> Pair<'_, B> {
    /// The same events on both sides.
    fn trains(&self, host: &Events) -> (Trains<B>, Trains<Reference<f64>>) {
        let mut device = Trains::empty(self.device, 0).unwrap();
        device.upload(self.device, host).unwrap();
        let mut reference = Trains::empty(&self.reference, 0).unwrap();
        reference.upload(&self.reference, host).unwrap();
        (device, reference)
    }
}

/// Random events, up to `most` for each sample; the last sample has none.
fn events(inputs: &mut Inputs, batch: usize, width: usize, most: usize) -> Events {
    let mut events = Events::new(width);
    for sample in 0..batch {
        let count = if sample + 1 < batch { most - sample % 3 } else { 0 };
        let (times, units) = (inputs.uniform(count, 0.0, 0.1), inputs.uniform(count, 0.0, width as f32));
        let mut list: Vec<(f32, u32)> = times.into_iter().zip(units.into_iter().map(|u| u as u32)).collect();
        // Some events come at one instant.
        list.chunks_mut(5).for_each(|c| c[0].0 = c[c.len() - 1].0);
        list.sort_by(|x, y| x.0.total_cmp(&y.0));
        events.push(&list).unwrap();
    }
    events
}

/// Layers of event-driven neurons: spikes, slopes and every gradient, dense and convolutional.
pub fn event_neurons_match_reference<B: Backend>(device: &B) {
    use crate::backend::EventOps;
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(21);
    let map = Map::new(6, 5, 3);
    let layers = [
        (Synapses::Dense { inputs: 1, outputs: 1 }, 3, 4, 3.0),
        (Synapses::Dense { inputs: 31, outputs: 33 }, 4, 40, 1.0),
        (Synapses::Dense { inputs: 33, outputs: 257 }, 17, 31, 1.0),
        (Synapses::Dense { inputs: 257, outputs: 31 }, 2, 60, 0.8),
        (Synapses::Conv(Conv::new(map, 17, 3, 1, 0).unwrap()), 3, 50, 1.0),
        (Synapses::Conv(Conv::rectangle(map, 5, [3, 2], 2, [1, 0]).unwrap()), 2, 50, 1.5),
    ];
    for (i, (synapses, batch, most, gain)) in layers.into_iter().enumerate() {
        let neuron = EventNeuron {
            reset: [0.02, 0.05, 0.0][i % 3],
            end: [0.12, f64::INFINITY][i % 2],
            ..EventNeuron::new(0.03, 0.02, 1.0, [4, 30, 9][i % 3])
        };
        let host = events(&mut inputs, batch, synapses.inputs(), most);
        let (input, ref_input) = pair.trains(&host);
        let count = synapses.rows() * synapses.sites().1;
        let weight = pair.upload(&inputs.uniform(count, -0.6 * gain, gain));
        let (mut out, mut ref_out) = pair.trains(&Events::new(0));
        let mut slopes = pair.rubbish(3);
        device.event_forward(&neuron, &synapses, &weight.device, &input, &mut out, &mut slopes.device).unwrap();
        let Both { reference: slopes_ref, .. } = &mut slopes;
        pair.reference
            .event_forward(&neuron, &synapses, &weight.reference, &ref_input, &mut ref_out, slopes_ref)
            .unwrap();
        assert!(ref_out.times.len() > batch - 1, "layer {i} fires {} times", ref_out.times.len());
        pair.same("offsets", &out.offsets, &ref_out.offsets);
        pair.same("units", &out.units, &ref_out.units);
        assert_close("times", &pair.host(&out.times), &ref_out.times, CLOSE);
        pair.compare("slopes", &slopes, 2e-4);

        let mut grad = pair.upload(&inputs.uniform(ref_out.times.len(), -1.0, 1.0));
        let (mut grad_weight, mut grad_input) = (pair.rubbish(count), pair.rubbish(host.len()));
        device
            .event_backward(
                &neuron,
                &synapses,
                &weight.device,
                &input,
                &out,
                &slopes.device,
                &mut grad.device,
                &mut grad_weight.device,
                Some(&mut grad_input.device),
            )
            .unwrap();
        pair.reference
            .event_backward(
                &neuron,
                &synapses,
                &weight.reference,
                &ref_input,
                &ref_out,
                &slopes.reference,
                &mut grad.reference,
                &mut grad_weight.reference,
                Some(&mut grad_input.reference),
            )
            .unwrap();
        pair.compare("gradient through resets", &grad, 1e-3);
        pair.compare("weight gradient", &grad_weight, 1e-3);
        pair.compare("gradient on input times", &grad_input, 1e-3);
    }
}

/// Pooling, readouts and losses of spike trains.
pub fn train_operations_match_reference<B: Backend>(device: &B) {
    use crate::backend::{EventOps, LinAlg};
    let pair = Pair::new(device);
    let mut inputs = Inputs::new(22);
    let map = Map::new(5, 6, 3);
    let host = events(&mut inputs, 4, map.len(), 90);
    let (input, ref_input) = pair.trains(&host);

    let pool = Pool::new(map, 2).unwrap();
    let (mut out, mut ref_out) = pair.trains(&Events::new(0));
    let (mut source, mut ref_source) = (device.buffer_from(&[9_u32]).unwrap(), vec![]);
    device.merge_trains(&pool, &input, &mut out, &mut source).unwrap();
    pair.reference.merge_trains(&pool, &ref_input, &mut ref_out, &mut ref_source).unwrap();
    pair.same("pooled offsets", &out.offsets, &ref_out.offsets);
    pair.same("pooled units", &out.units, &ref_out.units);
    pair.same("sources", &source, &ref_source);
    assert_close("pooled times", &pair.host(&out.times), &ref_out.times, 0.0);
    let grad = pair.upload(&inputs.uniform(ref_source.len(), -1.0, 1.0));
    let mut grad_input = pair.rubbish(host.len());
    device.merge_trains_grad(&source, &grad.device, &mut grad_input.device).unwrap();
    pair.reference.merge_trains_grad(&ref_source, &grad.reference, &mut grad_input.reference).unwrap();
    pair.compare("pooled gradient", &grad_input, 0.0);

    let rows = host.batch() * host.width();
    for readout in [
        TrainReadout::FirstSpike { tau: 0.02 },
        TrainReadout::FirstTime { missing: 1.0 },
        TrainReadout::Count,
        TrainReadout::Decay { rate: 6.0, exact: false },
        TrainReadout::Decay { rate: 6.0, exact: true },
    ] {
        let mut values = pair.rubbish(rows);
        device.read_trains(&readout, &input, &mut values.device).unwrap();
        pair.reference.read_trains(&readout, &ref_input, &mut values.reference).unwrap();
        // Infinities must meet infinities; for the comparison they are numbers.
        let finite = |x: &[f64]| x.iter().map(|v| if v.is_finite() { *v } else { -77.0 }).collect::<Vec<_>>();
        assert_close("values", &finite(&pair.host(&values.device)), &finite(&values.reference), CLOSE);
        let mut on_values = inputs.uniform(rows, -1.0, 1.0);
        on_values[0] = f32::NAN;
        let (on_values, mut grad) = (pair.upload(&on_values), pair.rubbish(host.len()));
        device.read_trains_grad(&readout, &input, &on_values.device, &mut grad.device).unwrap();
        pair.reference.read_trains_grad(&readout, &ref_input, &on_values.reference, &mut grad.reference).unwrap();
        pair.compare("gradient of values", &grad, CLOSE);
    }

    let mut times = inputs.uniform(rows * 2, 0.0, 0.1);
    times[0] = f32::INFINITY;
    let (targets, mut losses) = (pair.upload(&times), pair.rubbish(host.batch()));
    let mut grad = pair.rubbish(host.len());
    device.spike_time_loss(&input, &targets.device, 1.0, &mut losses.device, &mut grad.device).unwrap();
    pair.reference
        .spike_time_loss(&ref_input, &targets.reference, 1.0, &mut losses.reference, &mut grad.reference)
        .unwrap();
    pair.compare("time losses", &losses, CLOSE);
    pair.compare("gradient of time losses", &grad, CLOSE);

    let (mut counts, mut ref_counts) = (device.zeros::<u32>(rows).unwrap(), vec![0; rows]);
    device.count_trains(&input, &mut counts).unwrap();
    pair.reference.count_trains(&ref_input, &mut ref_counts).unwrap();
    pair.same("counts", &counts, &ref_counts);

    let mut losses = pair.rubbish(2);
    let logits = pair.upload(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    let mut grad = pair.rubbish(4);
    let labels = device.buffer_from(&[0_u32, 1]).unwrap();
    device.softmax_cross_entropy(2, &logits.device, &labels, &mut losses.device, &mut grad.device).unwrap();
    assert_eq!(pair.host(&losses.device), [f64::INFINITY; 2], "silent labels");
    assert_eq!(pair.host(&grad.device), [-0.5, 0.5, 0.0, 0.0], "silent samples pull at nothing");

    // The same with shares: one that fires alone, a silent class, a silent sample, a class among others.
    let infinity = f32::NEG_INFINITY;
    let logits = pair.upload(&[1.0, infinity, 1.0, infinity, infinity, infinity, 0.5, 1.0]);
    let shares = pair.upload(&[0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.9]);
    let (mut losses, mut grad) = (pair.rubbish(4), pair.rubbish(8));
    device.soft_cross_entropy(2, &logits.device, &shares.device, &mut losses.device, &mut grad.device).unwrap();
    let (losses_ref, grad_ref) = (&mut losses.reference, &mut grad.reference);
    pair.reference.soft_cross_entropy(2, &logits.reference, &shares.reference, losses_ref, grad_ref).unwrap();
    let got = pair.host(&losses.device);
    assert_eq!(got[..3], [0.0, f64::INFINITY, f64::INFINITY], "shares of silent classes");
    assert_eq!(got[..3], losses.reference[..3]);
    assert_close("shares of classes", &got[3..], &losses.reference[3..], CLOSE);
    pair.compare("gradient of shares", &grad, CLOSE);
}

/// Turns every case of the suite into a `#[test]` on the device that an expression gives; `table Backend` gives a list
/// of the cases by name instead.
#[macro_export]
macro_rules! backend_suite {
    (table $backend:ty) => {
        $crate::backend_suite!(@list table $backend)
    };
    (@list $form:ident $device:tt) => {
        $crate::backend_suite! { @$form $device, [
            gemm_matches_reference,
            spikes_gemm_matches_reference,
            convolution_matches_reference,
            pooling_matches_reference,
            normalisation_matches_reference,
            masks_match_reference,
            delays_match_reference,
            neurons_match_reference,
            paralif_matches_reference,
            cuba_matches_reference,
            alif_matches_reference,
            fitting_matches_reference,
            event_neurons_match_reference,
            ttfs_matches_reference,
            train_operations_match_reference,
            reductions_match_reference,
            updates_match_reference,
            wrong_sizes_are_errors,
        ] }
    };
    (@table $backend:ty, [$($case:ident),* $(,)?]) => {
        [$((stringify!($case), $crate::testkit::suite::$case as fn(&$backend))),*]
    };
    (@tests $device:expr, [$($case:ident),* $(,)?]) => {
        $(
            #[test]
            fn $case() {
                $crate::testkit::suite::$case(&$device);
            }
        )*
    };
    ($device:expr) => {
        $crate::backend_suite!(@list tests $device);
    };
}
