//! Properties of the CPU backend that hold for any input: what the models promise, that places do not matter, that
//! the published algorithms agree, and that the number of threads does not show.

use proptest::prelude::*;
use snn_core::backend::{
    AlifGrad, AlifOps, AlifParameters, BlockOps, ChannelNorm, CubaOps, CubaParameters, DecayMap, DelayKernel, DelayOps,
    Delays, EventOps, FilterGrad, Filters, Fire, FitOps, Gemm, Leak, LeakGrad, LifOps, LinAlg, Memory, Noise, Optimise,
    ParaLifOps, Recurrent, SpikeMemory, TimeReduction, TtfsOps, Update, UpdateRule, UpdateSlot,
};
use snn_core::fit::{Raster, VanRossum};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Limits};
use snn_core::neurons::block::{self, BlockNeuron};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::neurons::event::EventNeuron;
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::neurons::paralif::FiringMode;
use snn_core::neurons::ttfs::{Perturbation, TtfsNeuron};
use snn_core::random::SpikeDraws;
use snn_core::reference::Reference;
use snn_core::testkit::{Inputs, assert_close, relative_difference, wide};
use snn_core::{Borders, Conv, Events, Lanes, Map, Pool, Spikes, Surrogate, Synapses, Trains};
use snn_cpu::Cpu;
use snn_cpu::published::{
    ConvolutionTape, StepwiseTape, convolution_backward, convolution_forward, stepwise_backward, stepwise_forward,
};

const SINGLE: LifNeuron = LifNeuron::new(LifKind::Single { mask: Path::Attached });
const MULTI: LifNeuron = LifNeuron::new(LifKind::Multi { reset: Path::Attached });

/// The neuron models with spikes.
#[derive(Debug, Clone, Copy)]
enum Model {
    Block,
    Single,
    Multi,
}

const MODELS: [Model; 3] = [Model::Block, Model::Single, Model::Multi];

/// Everything that a forward and a backward pass give.
#[derive(Debug, Clone, PartialEq)]
struct Passes {
    spikes: Spikes,
    membrane: Vec<f32>,
    grad: Vec<f32>,
    grad_beta: Vec<f32>,
    sum: Vec<f32>,
}

fn passes(cpu: &Cpu, model: Model, lanes: Lanes, beta: &Vec<f32>, current: &[f32], grad: &[f32]) -> Passes {
    let leak = || Leak { beta_raw: beta, initial: None };
    let (mut state, mut grad) = (current.to_vec(), grad.to_vec());
    let lane_count = lanes.batch * lanes.width;
    let (mut grad_beta, mut sum) = (vec![0.0; lane_count], vec![0.0; lane_count]);
    let leak_grad = LeakGrad { beta: Some(&mut grad_beta), current_sum: Some(&mut sum), membrane: None, initial: None };
    let mut spikes = cpu.spikes();
    match model {
        Model::Block => {
            let neuron = BlockNeuron::default();
            cpu.block_forward(&neuron, lanes, leak(), &mut state, &mut spikes).unwrap();
            cpu.block_backward(&neuron, lanes, leak(), &state, &mut grad, leak_grad).unwrap();
        }
        Model::Single | Model::Multi => {
            let neuron = if matches!(model, Model::Single) { SINGLE } else { MULTI };
            cpu.lif_forward(&neuron, lanes, leak(), &mut state, &mut spikes).unwrap();
            cpu.lif_backward(&neuron, lanes, leak(), &state, &mut grad, leak_grad).unwrap();
            cpu.lif_membrane(&neuron, lanes, &mut state).unwrap();
        }
    }
    Passes { spikes, membrane: state, grad, grad_beta, sum }
}

/// Sizes around vector widths, decays, currents from silent to busy, gradients.
#[derive(Debug, Clone)]
struct Case {
    lanes: Lanes,
    beta: Vec<f32>,
    current: Vec<f32>,
    grad: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let width = prop_oneof![1_usize..5, 15_usize..20, 30_usize..70];
    (1_usize..4, 1_usize..40, width, 0_u64..1 << 40, prop_oneof![Just(0.05_f32), Just(0.4), Just(1.4)]).prop_map(
        |(batch, steps, width, seed, scale)| {
            let (lanes, mut inputs) = (Lanes::new(batch, steps, width), Inputs::new(seed));
            Case {
                lanes,
                beta: inputs.uniform(width, 0.0, 1.0),
                current: inputs.uniform(lanes.len(), -0.6 * scale, scale),
                grad: inputs.uniform(lanes.len(), -1.0, 1.0),
            }
        },
    )
}

/// Equal as numbers: a zero has no sign here.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

fn closest_to_threshold(case: &Case) -> f64 {
    let neuron = BlockNeuron::default();
    let lanes = case.lanes;
    let mut least = f64::INFINITY;
    for b in 0..lanes.batch {
        for n in 0..lanes.width {
            let current: Vec<f64> =
                (0..lanes.steps).map(|t| f64::from(case.current[(b * lanes.steps + t) * lanes.width + n])).collect();
            let membrane = block::stages(&neuron, f64::from(case.beta[n]), 0.0, &current).membrane;
            least = membrane.iter().fold(least, |m, v| m.min((v - 1.0).abs()));
        }
    }
    least
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn single_spike_models_fire_once_at_most(case in case()) {
        let cpu = Cpu::new(2).unwrap();
        for model in [Model::Block, Model::Single] {
            let p = passes(&cpu, model, case.lanes, &case.beta, &case.current, &case.grad);
            let dense: Vec<f32> = p.spikes.to_dense();
            for b in 0..case.lanes.batch {
                for n in 0..case.lanes.width {
                    let at = |t: usize| dense[(b * case.lanes.steps + t) * case.lanes.width + n];
                    prop_assert!((0..case.lanes.steps).map(at).sum::<f32>() <= 1.0, "{model:?}");
                }
            }
        }
    }

    #[test]
    fn block_spikes_equal_those_of_the_sequential_neuron(case in case()) {
        let cpu = Cpu::new(2).unwrap();
        let [block, single] = [Model::Block, Model::Single].map(|m| {
            passes(&cpu, m, case.lanes, &case.beta, &case.current, &case.grad).spikes
        });
        prop_assert_eq!(block, single);
    }

    #[test]
    fn silence_after_the_end_changes_nothing_before(case in case(), more in 1_usize..9) {
        let cpu = Cpu::new(2).unwrap();
        let (lanes, longer) = (case.lanes, Lanes { steps: case.lanes.steps + more, ..case.lanes });
        let (sample, pad) = (lanes.steps * lanes.width, more * lanes.width);
        let padded = |x: &[f32]| -> Vec<f32> {
            x.chunks(sample).flat_map(|c| c.iter().copied().chain(std::iter::repeat_n(0.0, pad))).collect()
        };
        let cut = |x: &[f32]| -> Vec<f32> { x.chunks(sample + pad).flat_map(|c| c[..sample].to_vec()).collect() };
        for model in MODELS {
            let short = passes(&cpu, model, lanes, &case.beta, &case.current, &case.grad);
            let long = passes(&cpu, model, longer, &case.beta, &padded(&case.current), &padded(&case.grad));
            prop_assert!(same(&cut(&long.spikes.to_dense()), &short.spikes.to_dense()), "{model:?}: spikes");
            prop_assert!(same(&cut(&long.membrane), &short.membrane), "{model:?}: membrane");
            prop_assert!(same(&cut(&long.grad), &short.grad), "{model:?}: gradient");
            prop_assert!(same(&long.grad_beta, &short.grad_beta), "{model:?}: gradient on the decay");
        }
    }

    #[test]
    fn permuting_neurons_permutes_results(case in case(), by in 1_usize..70) {
        let cpu = Cpu::new(2).unwrap();
        let width = case.lanes.width;
        // A rotation and a reversal: every neuron changes its place in vectors and tiles.
        let from = |n: usize| (width - 1 - n + by) % width;
        let permuted = |x: &[f32]| -> Vec<f32> {
            x.chunks(width).flat_map(|row| (0..width).map(|n| row[from(n)]).collect::<Vec<_>>()).collect()
        };
        for model in MODELS {
            let plain = passes(&cpu, model, case.lanes, &case.beta, &case.current, &case.grad);
            let (beta, current, grad) = (permuted(&case.beta), permuted(&case.current), permuted(&case.grad));
            let moved = passes(&cpu, model, case.lanes, &beta, &current, &grad);
            prop_assert!(same(&moved.spikes.to_dense(), &permuted(&plain.spikes.to_dense())), "{model:?}: spikes");
            prop_assert!(same(&moved.membrane, &permuted(&plain.membrane)), "{model:?}: membrane");
            prop_assert!(same(&moved.grad, &permuted(&plain.grad)), "{model:?}: gradient");
            prop_assert!(same(&moved.grad_beta, &permuted(&plain.grad_beta)), "{model:?}: gradient on the decay");
        }
    }

    #[test]
    fn published_algorithms_equal_the_fused_scans(case in case()) {
        // A convolution rounds otherwise than a recurrence: a membrane on the threshold may fall to either side.
        prop_assume!(closest_to_threshold(&case) > 1e-4);
        let (cpu, lanes, scale) = (Cpu::new(2).unwrap(), case.lanes, 10.0);
        let close = |what: &str, got: &[f32], want: &[f32]| {
            let difference = relative_difference(&wide(got), &wide(want));
            prop_assert!(difference <= 1e-4, "{what}: {difference}");
            Ok(())
        };

        let mut tape = StepwiseTape::default();
        let spikes = stepwise_forward(&cpu, lanes, &case.beta, &case.current, &mut tape).unwrap();
        let (grad, grad_beta) = stepwise_backward(&cpu, lanes, &case.beta, scale, &case.grad, &tape).unwrap();
        let fused = passes(&cpu, Model::Single, lanes, &case.beta, &case.current, &case.grad);
        prop_assert!(same(&spikes, &fused.spikes.to_dense()), "step by step: spikes");
        close("step by step: gradient", &grad, &fused.grad)?;
        close("step by step: gradient on the decay", &grad_beta, &fused.grad_beta)?;

        let mut tape = ConvolutionTape::default();
        let spikes = convolution_forward(&cpu, lanes, &case.beta, &case.current, &mut tape).unwrap();
        let (grad, grad_beta) = convolution_backward(&cpu, lanes, &case.beta, scale, &case.grad, &tape).unwrap();
        let fused = passes(&cpu, Model::Block, lanes, &case.beta, &case.current, &case.grad);
        prop_assert!(same(&spikes, &fused.spikes.to_dense()), "convolution: spikes");
        close("convolution: gradient", &grad, &fused.grad)?;
        close("convolution: gradient on the decay", &grad_beta, &fused.grad_beta)?;
    }
}

/// The bits of every operation's result on inputs large enough to be cut into many pieces.
fn everything(cpu: &Cpu) -> Vec<(String, Vec<u32>)> {
    let mut results: Vec<(String, Vec<u32>)> = Vec::new();
    let mut inputs = Inputs::new(77);
    let mut keep = |what: String, values: &[f32]| results.push((what, values.iter().map(|v| v.to_bits()).collect()));

    let (m, n, k) = (301, 97, 263);
    let (a, b) = (inputs.uniform(m * k, -1.0, 1.0), inputs.uniform(k * n, -1.0, 1.0));
    for flags in 0..8 {
        let gemm = Gemm {
            transpose_a: flags & 1 != 0,
            transpose_b: flags & 2 != 0,
            accumulate: flags & 4 != 0,
            ..Gemm::new(m, n, k)
        };
        let mut c = vec![0.5; m * n];
        cpu.gemm(gemm, &a, &b, &mut c).unwrap();
        keep(format!("{gemm:?}"), &c);
    }

    for density in [0.01, 0.2, 0.8] {
        let (lanes, width) = (Lanes::new(5, 61, 531), 133);
        let x = inputs.spikes(lanes, density);
        let (weight, bias) = (inputs.uniform(lanes.width * width, -1.0, 1.0), inputs.uniform(width, -1.0, 1.0));
        let mut out = vec![0.0; lanes.rows() * width];
        cpu.spikes_gemm(&x, width, &weight, Some(&bias), &mut out).unwrap();
        keep(format!("spikes_gemm {density}"), &out);
        let mut grad_weight = vec![0.0; lanes.width * width];
        cpu.spikes_gemm_weight_grad(&x, width, &out, &mut grad_weight).unwrap();
        keep(format!("spikes_gemm_weight_grad {density}"), &grad_weight);
    }

    let conv = Conv::new(Map::new(13, 11, 5), 19, 3, 1, 1).unwrap();
    let (rows, n_in, n_out) = (4 * 23, conv.input.len(), conv.output().len());
    let x = inputs.spikes(Lanes::new(4, 23, n_in), 0.2);
    let weight = inputs.uniform(conv.fan_in() * conv.channels, -1.0, 1.0);
    let bias = inputs.uniform(conv.channels, -1.0, 1.0);
    let (dense, grad) = (inputs.uniform(rows * n_in, -1.0, 1.0), inputs.uniform(rows * n_out, -1.0, 1.0));
    let (mut out, mut gx) = (vec![0.0; rows * n_out], vec![0.0; rows * n_in]);
    let mut gw = vec![0.0; weight.len()];
    cpu.conv_spikes(&conv, &x, &weight, Some(&bias), &mut out).unwrap();
    keep("conv_spikes".into(), &out);
    cpu.conv_spikes_weight_grad(&conv, &x, &grad, &mut gw).unwrap();
    keep("conv_spikes_weight_grad".into(), &gw);
    cpu.conv_dense(&conv, rows, &dense, &weight, None, &mut out).unwrap();
    keep("conv_dense".into(), &out);
    cpu.conv_dense_weight_grad(&conv, rows, &dense, &grad, &mut gw).unwrap();
    keep("conv_dense_weight_grad".into(), &gw);
    cpu.conv_input_grad(&conv, rows, &grad, &weight, &mut gx).unwrap();
    keep("conv_input_grad".into(), &gx);

    let pool = Pool::new(conv.input, 2).unwrap();
    let mut pooled = cpu.spikes();
    cpu.pool_spikes(&pool, &x, &mut pooled).unwrap();
    keep("pool_spikes".into(), &pooled.to_dense::<f32>());
    let grad = inputs.uniform(rows * pool.output().len(), -1.0, 1.0);
    cpu.pool_spikes_grad(&pool, &x, &grad, &mut gx).unwrap();
    keep("pool_spikes_grad".into(), &gx);
    let (mut best, mut at) = (vec![0.0; grad.len()], vec![0; grad.len()]);
    cpu.pool_max(&pool, rows, None, &dense, &mut best, &mut at).unwrap();
    keep("pool_max".into(), &best);
    cpu.pool_max_grad(&pool, rows, &at, &grad, &mut gx).unwrap();
    keep("pool_max_grad".into(), &gx);
    let borders = Borders::of(&conv);
    let (shift, window) = (inputs.uniform(borders.regions() * conv.channels, -0.5, 0.5), vec![1.0]);
    let mut earliness = out.clone();
    cpu.ttfs_forward(&TtfsNeuron { limited: true }, &borders, &shift, None, &window, &mut earliness).unwrap();
    keep("ttfs_forward".into(), &earliness);
    let (mut g, mut g_shift) = (inputs.uniform(out.len(), -1.0, 1.0), vec![0.0; shift.len()]);
    cpu.ttfs_backward(&TtfsNeuron { limited: true }, &borders, &window, &earliness, &mut g, &mut g_shift).unwrap();
    keep("ttfs_backward".into(), &g);
    keep("ttfs_backward, shift".into(), &g_shift);
    let draws = SpikeDraws { seed: 1, pass: 2, population: 3 };
    let perturbation = Perturbation { noise: 0.3, bits: 6, limited: true };
    cpu.ttfs_perturb(&perturbation, draws, rows, &window, &earliness, &mut g).unwrap();
    keep("ttfs_perturb".into(), &g);
    let mut sum = cpu.spikes();
    cpu.add_spikes(&x, &x, &mut sum).unwrap();
    keep("add_spikes".into(), &sum.to_dense::<f32>());

    let lanes = Lanes::new(7, 53, 1301);
    let (beta, current) = (inputs.uniform(lanes.width, 0.0, 1.0), inputs.uniform(lanes.len(), -0.3, 0.7));
    let grad = inputs.uniform(lanes.len(), -1.0, 1.0);
    for model in MODELS {
        let p = passes(cpu, model, lanes, &beta, &current, &grad);
        keep(format!("{model:?} spikes"), &p.spikes.to_dense::<f32>());
        for (what, values) in
            [("membrane", &p.membrane), ("gradient", &p.grad), ("decay", &p.grad_beta), ("sum", &p.sum)]
        {
            keep(format!("{model:?} {what}"), values);
        }
    }
    for surrogate in [Surrogate::BOXCAR, Surrogate::MULTI_GAUSSIAN, Surrogate::ARCTAN] {
        let neuron = BlockNeuron { surrogate, ..BlockNeuron::default() };
        let (mut state, mut spikes, mut g) = (current.clone(), cpu.spikes(), grad.clone());
        let leak = || Leak { beta_raw: &beta, initial: None };
        cpu.block_forward(&neuron, lanes, leak(), &mut state, &mut spikes).unwrap();
        cpu.block_backward(&neuron, lanes, leak(), &state, &mut g, LeakGrad::default()).unwrap();
        keep(format!("block {surrogate:?}"), &g);
    }

    dense_products(cpu, &mut inputs, &mut keep);
    filtered(cpu, &mut inputs, &mut keep);
    adaptive(cpu, &mut inputs, &mut keep);
    networks(cpu, &mut inputs, &mut keep);
    continuous(cpu, &mut inputs, &mut keep);

    let mut out = vec![0.0; lanes.width];
    cpu.sum_rows(lanes.rows(), lanes.width, &current, &mut out).unwrap();
    keep("sum_rows".into(), &out);
    let mut x = current.clone();
    cpu.add_bias(lanes.rows(), &out, &mut x).unwrap();
    cpu.add_assign(&grad, &mut x).unwrap();
    cpu.scale(0.3, &mut x).unwrap();
    keep("add_bias, add_assign, scale".into(), &x);
    let mut per_sample = vec![0.0; lanes.batch * lanes.width];
    cpu.sum_steps(lanes, &current, &mut per_sample).unwrap();
    keep("sum_steps".into(), &per_sample);
    cpu.repeat_steps(lanes, &per_sample, &mut x).unwrap();
    keep("repeat_steps".into(), &x);
    use TimeReduction::{Last, Max, Mean, SoftmaxSum, Sum};
    for reduction in [Sum, Max, Mean, Last, SoftmaxSum] {
        let mut at = vec![0; per_sample.len()];
        cpu.reduce_time(reduction, lanes, &current, &mut per_sample, &mut at).unwrap();
        keep(format!("reduce_time {reduction:?}"), &per_sample);
        cpu.reduce_time_grad(reduction, lanes, &current, &per_sample, &at, &mut x).unwrap();
        keep(format!("reduce_time_grad {reduction:?}"), &x);
    }
    let targets: Vec<u32> = (0..lanes.batch as u32).collect();
    let (mut losses, mut g) = (vec![0.0; lanes.batch], vec![0.0; per_sample.len()]);
    cpu.softmax_cross_entropy(lanes.width, &per_sample, &targets, &mut losses, &mut g).unwrap();
    keep("losses".into(), &losses);
    keep("loss gradient".into(), &g);

    let adam = UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: false };
    for rule in [
        adam,
        UpdateRule::Sgd { momentum: 0.9, nesterov: true },
        UpdateRule::Adamax { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
    ] {
        let mut value = current.clone();
        let (mut first, mut second) = (vec![0.0; value.len()], vec![0.0; value.len()]);
        for step in 1..=2 {
            let update = Update { rule, learning_rate: 0.01, weight_decay: 0.1, step };
            let slot =
                UpdateSlot { value: &mut value, grad: &grad, first: &mut first, second: &mut second, decays: true };
            cpu.update(&update, &mut [slot]).unwrap();
        }
        keep(format!("{rule:?}"), &value);
    }
    let squares = cpu.sum_of_squares(&current).unwrap().to_bits();
    results.push(("sum_of_squares".into(), vec![squares as u32, (squares >> 32) as u32]));
    let (mut copy, mut filled) = (vec![0.0_f32; current.len()], vec![0.0_f32; current.len()]);
    cpu.copy(&current, &mut copy).unwrap();
    cpu.fill(&mut filled, 0.25).unwrap();
    results.push(("copy, fill".into(), copy.iter().chain(&filled).map(|v| v.to_bits()).collect()));
    results
}

/// Numbers of which most are 0, like the background of an image.
fn mostly_zero(inputs: &mut Inputs, len: usize) -> Vec<f32> {
    inputs.uniform(len, -4.0, 1.0).into_iter().map(|x| x.max(0.0)).collect()
}

/// Dense convolutions in every way that they are cut, and products of a few rows.
fn dense_products(cpu: &Cpu, inputs: &mut Inputs, keep: &mut impl FnMut(String, &[f32])) {
    for (map, channels, rows) in [
        (Map::new(13, 11, 5), 19, 40),
        (Map::new(8, 8, 64), 96, 17),
        (Map::new(7, 8, 64), 96, 17),
        (Map::new(2, 2, 176), 177, 3),
        (Map::new(2, 2, 176), 177, 90),
    ] {
        let conv = Conv::new(map, channels, 3, 1, 1).unwrap();
        let results = convolved(cpu, inputs, &conv, rows);
        results.iter().for_each(|x| keep(format!("{conv:?}, {rows} maps"), x));
    }
    for (m, n, k) in [(8, 340, 784), (8, 784, 30), (784, 340, 8), (3, 1000, 300)] {
        for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true)] {
            let gemm = Gemm { transpose_a, transpose_b, ..Gemm::new(m, n, k) };
            let (a, b) = (mostly_zero(inputs, m * k), inputs.uniform(k * n, -1.0, 1.0));
            let mut c = vec![0.5; m * n];
            cpu.gemm(gemm, &a, &b, &mut c).unwrap();
            keep(format!("{gemm:?}"), &c);
        }
    }
}

/// Output, weight gradient and input gradient of a convolution of random maps.
fn convolved(cpu: &Cpu, inputs: &mut Inputs, conv: &Conv, rows: usize) -> [Vec<f32>; 3] {
    let (n_in, n_out) = (rows * conv.input.len(), rows * conv.output().len());
    let weight = inputs.uniform(conv.fan_in() * conv.channels, -1.0, 1.0);
    let bias = inputs.uniform(conv.channels, -1.0, 1.0);
    let (x, grad) = (inputs.uniform(n_in, -1.0, 1.0), inputs.uniform(n_out, -1.0, 1.0));
    // Old contents must not show.
    let [mut out, mut gw, mut gx] = [n_out, weight.len(), n_in].map(|len| vec![f32::NAN; len]);
    cpu.conv_dense(conv, rows, &x, &weight, Some(&bias), &mut out).unwrap();
    cpu.conv_dense_weight_grad(conv, rows, &x, &grad, &mut gw).unwrap();
    cpu.conv_input_grad(conv, rows, &grad, &weight, &mut gx).unwrap();
    [out, gw, gx]
}

/// The filtered families: all modes of the parallel neuron, a recurrent current-based one.
fn filtered(cpu: &Cpu, inputs: &mut Inputs, keep: &mut impl FnMut(String, &[f32])) {
    let lanes = Lanes::new(7, 41, 150);
    let (alpha, beta) = (inputs.uniform(lanes.width, 0.0, 0.9), inputs.uniform(lanes.width, 0.0, 0.9));
    let (current, grad) = (inputs.uniform(lanes.len(), -1.0, 2.0), inputs.uniform(lanes.len(), -1.0, 1.0));
    let (weight, bias) = (inputs.uniform(lanes.width * lanes.width, -0.1, 0.1), inputs.uniform(lanes.width, -0.1, 0.1));
    let filters = Filters { alpha: Some(&alpha), beta: &beta, map: DecayMap::Direct };
    let surrogate = Surrogate::FastSigmoid { scale: 100.0 };
    let threshold = vec![0.3];
    let mut rows = [0; 4].map(|_| vec![0.0; lanes.batch * lanes.width]);
    for mode in FiringMode::ALL {
        let draws = SpikeDraws { seed: 3, pass: 9, population: 1 };
        let fire = Some(Fire { firing: mode.firing(surrogate), threshold: &threshold, noise: Noise::Drawn(draws) });
        let (mut state, mut spikes, mut g) = (current.clone(), cpu.spikes(), grad.clone());
        cpu.paralif_forward(lanes, Some(filters), fire, &mut state, &mut spikes).unwrap();
        cpu.paralif_backward(lanes, Some(filters), fire, &state, &mut g, places(&mut rows)).unwrap();
        keep(format!("{mode} spikes"), &spikes.to_dense::<f32>());
        rows.iter().chain([&state, &g]).for_each(|x| keep(format!("{mode}"), x));
    }
    for recurrence in [Recurrence::Spike, Recurrence::Relu] {
        let neuron = CubaNeuron { surrogate, refractory: 3, fires: true, recurrence };
        let recurrent = Some(Recurrent { weight: &weight, bias: &bias });
        let parameters = CubaParameters { filters, threshold: &threshold, recurrent };
        let (mut state, mut spikes, mut g) = (current.clone(), cpu.spikes(), grad.clone());
        let mut synaptic = vec![0.0; lanes.len()];
        cpu.cuba_forward(&neuron, lanes, parameters, &mut state, Some(&mut synaptic), &mut spikes).unwrap();
        let trace = Some(&synaptic);
        cpu.cuba_backward(&neuron, lanes, parameters, &state, trace, &mut g, places(&mut rows)).unwrap();
        let mut late = cpu.spikes();
        cpu.delay_spikes(&spikes, 1, &mut late).unwrap();
        keep(format!("cuba {recurrence:?} spikes"), &late.to_dense::<f32>());
        rows.iter().chain([&state, &g, &synaptic]).for_each(|x| keep(format!("cuba {recurrence:?}"), x));
    }
}

/// Adaptive neurons with every gradient, and what fitting needs.
fn adaptive(cpu: &Cpu, inputs: &mut Inputs, keep: &mut impl FnMut(String, &[f32])) {
    let lanes = Lanes::new(5, 43, 150);
    let (beta, decay) = (inputs.uniform(lanes.width, 0.5, 1.0), inputs.uniform(lanes.width, 0.0, 0.99));
    let strength = inputs.uniform(lanes.width, 0.0, 1.2);
    let weight = inputs.uniform(lanes.width * lanes.width, -0.05, 0.05);
    let (current, grad) = (inputs.uniform(lanes.len(), -0.5, 0.9), inputs.uniform(lanes.len(), -1.0, 1.0));
    let gradients = [
        AlifGradient::Steps { spikes: Path::Attached, adaptation: Path::Attached },
        AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached },
        AlifGradient::Blocks { spikes: Path::Detached },
    ];
    for gradient in gradients {
        let (surrogate, limits) = (Surrogate::MULTI_GAUSSIAN, Limits::PUBLISHED);
        let neuron = AlifNeuron { surrogate, refractory: 4, adapts: true, recurrent: true, gradient, limits };
        let parameters = AlifParameters { beta: &beta, decay: &decay, strength: &strength, recurrent: Some(&weight) };
        let (mut state, mut spikes, mut g) = (current.clone(), cpu.spikes(), grad.clone());
        cpu.alif_forward(&neuron, lanes, parameters, &mut state, &mut spikes).unwrap();
        let mut places = [(); 3].map(|()| vec![0.0; lanes.width]);
        let [on_beta, on_decay, on_strength] = &mut places;
        let grads =
            AlifGrad { beta: Some(on_beta), decay: Some(on_decay), strength: Some(on_strength), ..AlifGrad::default() };
        cpu.alif_backward(&neuron, lanes, parameters, &state, &mut g, grads).unwrap();
        let name = format!("{gradient:?}");
        keep(format!("{name} spikes"), &spikes.to_dense::<f32>());
        places.iter().chain([&state, &g]).for_each(|x| keep(name.clone(), x));
        let (mut distance, mut on_spikes) = (vec![0.0; lanes.width], vec![0.0; lanes.len()]);
        let target = inputs.spikes(lanes, 0.1);
        let filter = VanRossum { tau: 10.0, dt: 0.1 };
        cpu.van_rossum(&filter, Raster::Spread(1), &spikes, &target, &mut distance, &mut on_spikes).unwrap();
        [&distance, &on_spikes].iter().for_each(|x| keep(format!("{name} distance"), x));
        let (mut on_weight, mut on_bias) = (vec![0.0; 3 * lanes.width], vec![0.0; lanes.width]);
        cpu.own_current_grad(lanes, &current, &g, &mut on_weight, &mut on_bias).unwrap();
        [&on_weight, &on_bias].iter().for_each(|x| keep(format!("{name} own weights"), x));
    }
}

/// What convolutional networks and learned delays need: normalisation, mean pooling, masks, delays, losses.
fn networks(cpu: &Cpu, inputs: &mut Inputs, keep: &mut impl FnMut(String, &[f32])) {
    let pool = Pool::new(Map::new(12, 10, 19), 2).unwrap();
    let lanes = Lanes::new(9, 23, pool.input.len());
    let channels = pool.input.channels;
    let (mut x, grad) = (inputs.uniform(lanes.len(), -1.0, 2.0), inputs.uniform(lanes.len(), -1.0, 1.0));
    let [mut mean, mut variance, mut on_gain, mut on_offset] = [0; 4].map(|_| vec![0.0; channels]);
    cpu.channel_moments(&x, &mut mean, &mut variance).unwrap();
    let (gain, offset) = (inputs.uniform(channels, 0.5, 1.5), inputs.uniform(channels, -0.5, 0.5));
    let norm = ChannelNorm { eps: 1e-5, mean: &mean, variance: &variance, gain: &gain, offset: &offset };
    let mut trace = vec![0.0; lanes.len()];
    cpu.normalise_channels(norm, &mut x, Some(&mut trace)).unwrap();
    cpu.normalise_channels_grad(norm, &grad, &mut trace, &mut on_gain, &mut on_offset).unwrap();
    for list in [&x, &trace, &mean, &variance, &on_gain, &on_offset] {
        keep("normalised channels".into(), list);
    }
    let spikes = inputs.spikes(lanes, 0.1);
    let mut pooled = vec![0.0; lanes.rows() * pool.output().len()];
    cpu.pool_spikes_mean(&pool, &spikes, &mut pooled).unwrap();
    keep("pool_spikes_mean".into(), &pooled);
    cpu.pool_mean(&pool, lanes.rows(), &grad, &mut pooled).unwrap();
    keep("pool_mean".into(), &pooled);
    cpu.pool_mean_grad(&pool, lanes.rows(), &pooled, &mut trace).unwrap();
    keep("pool_mean_grad".into(), &trace);
    let mask: Vec<f32> = inputs.uniform(lanes.batch * lanes.width, -1.0, 1.0).into_iter().map(|x| x.max(0.0)).collect();
    let mut masked = cpu.spikes();
    cpu.mask_spikes(&mask, &spikes, &mut masked).unwrap();
    keep("mask_spikes".into(), &masked.to_dense::<f32>());
    cpu.mask_values(lanes, &mask, &mut x).unwrap();
    keep("mask_values".into(), &x);

    for (lanes, density) in [(Lanes::new(5, 40, 60), 0.02), (Lanes::new(70, 40, 60), 0.5)] {
        let delays = Delays { width: 50, delays: 9 };
        let synapses = lanes.width * delays.width;
        let (weight, position) = (inputs.uniform(synapses, -1.0, 1.0), inputs.uniform(synapses, 0.0, 8.0));
        let sigma = vec![1.5];
        let parameters = DelayKernel { weight: &weight, position: &position, sigma: Some(&sigma) };
        let mut kernel = vec![0.0; synapses * delays.delays];
        cpu.delay_kernel(delays, parameters, &mut kernel).unwrap();
        let spikes = inputs.spikes(lanes, density);
        let mut out = vec![0.0; lanes.rows() * delays.width];
        cpu.delay_forward(delays, &spikes, &kernel, &mut out).unwrap();
        let (mut on_kernel, mut on_input) = (vec![0.0; kernel.len()], vec![0.0; lanes.len()]);
        cpu.delay_weight_grad(delays, &spikes, &out, &mut on_kernel).unwrap();
        cpu.delay_input_grad(delays, lanes, &out, &kernel, &mut on_input).unwrap();
        let (mut on_weight, mut on_position) = (vec![0.0; synapses], vec![0.0; synapses]);
        cpu.delay_kernel_grad(delays, parameters, &on_kernel, &mut on_weight, &mut on_position).unwrap();
        cpu.clamp(-0.1, 0.1, &mut out).unwrap();
        for list in [&kernel, &out, &on_kernel, &on_input, &on_weight, &on_position] {
            keep(format!("delays, density {density}"), list);
        }
    }
    let (outputs, targets) = (inputs.uniform(40, -1.0, 1.0), inputs.uniform(40, 0.0, 0.2));
    let (mut losses, mut g) = (vec![0.0; 4], vec![0.0; 40]);
    cpu.soft_cross_entropy(10, &outputs, &targets, &mut losses, &mut g).unwrap();
    keep("soft_cross_entropy".into(), &losses);
    cpu.squared_error(10, &outputs, &targets, &mut losses, &mut g).unwrap();
    keep("squared_error".into(), &g);
}

/// Layers of event-driven neurons, wide, narrow and convolutional, as bits.
fn continuous(cpu: &Cpu, inputs: &mut Inputs, keep: &mut impl FnMut(String, &[f32])) {
    let map = Map::new(9, 8, 3);
    for synapses in [
        Synapses::Dense { inputs: map.len(), outputs: 300 },
        Synapses::Dense { inputs: map.len(), outputs: 10 },
        Synapses::Conv(Conv::new(map, 70, 3, 1, 0).unwrap()),
    ] {
        let neuron = EventNeuron::new(0.05, 0.03, 0.2, 9);
        let host = trains(inputs, 21, map.len(), 70);
        let weight = inputs.uniform(synapses.rows() * synapses.sites().1, -0.6, 1.0);
        let mut input = Trains::empty(cpu, 0).unwrap();
        input.upload(cpu, &host).unwrap();
        let (mut out, mut slopes) = (Trains::empty(cpu, 0).unwrap(), vec![]);
        cpu.event_forward(&neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        let mut grad = inputs.uniform(slopes.len(), -1.0, 1.0);
        let (mut on_weight, mut on_input) = (vec![0.0; weight.len()], vec![0.0; host.len()]);
        cpu.event_backward(
            &neuron,
            &synapses,
            &weight,
            &input,
            &out,
            &slopes,
            &mut grad,
            &mut on_weight,
            Some(&mut on_input),
        )
        .unwrap();
        assert!(slopes.len() > 500, "{synapses:?} fires {} times", slopes.len());
        let units: Vec<f32> = out.units.iter().map(|&u| u as f32).collect();
        for list in [&out.times, &units, &slopes, &grad, &on_weight, &on_input] {
            keep(format!("events, {synapses:?}"), list);
        }
    }
}

/// Samples of up to `most` events; every third of them shares its time with the one before.
fn trains(inputs: &mut Inputs, batch: usize, width: usize, most: usize) -> Events {
    let mut events = Events::new(width);
    for sample in 0..batch {
        let mut times = inputs.uniform(most - sample % 7, 0.0, 0.1);
        times.sort_by(f32::total_cmp);
        (2..times.len()).step_by(3).for_each(|i| times[i] = times[i - 1]);
        let units = inputs.uniform(times.len(), 0.0, width as f32).into_iter().map(|u| u as u32);
        events.push(&times.into_iter().zip(units).collect::<Vec<_>>()).unwrap();
    }
    events
}

/// The order in which events at one instant are given makes no difference, not even in the last bit.
#[test]
fn tied_events_may_come_in_any_order() {
    let (cpu, mut inputs) = (Cpu::new(2).unwrap(), Inputs::new(5));
    let neuron = EventNeuron::new(0.05, 0.03, f64::INFINITY, 9);
    let synapses = Synapses::Dense { inputs: 40, outputs: 33 };
    let weight = inputs.uniform(40 * 33, -0.6, 1.0);
    let list: Vec<(f32, u32)> = (0..60).map(|i| (0.01 * (i / 6) as f32, (i * 7 % 40) as u32)).collect();
    let run = |list: &[(f32, u32)]| {
        let mut host = Events::new(40);
        host.push(list).unwrap();
        let mut input = Trains::empty(&cpu, 0).unwrap();
        input.upload(&cpu, &host).unwrap();
        let (mut out, mut slopes) = (Trains::empty(&cpu, 0).unwrap(), vec![]);
        cpu.event_forward(&neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        (out.times, out.units, slopes)
    };
    let want = run(&list);
    assert!(want.0.len() > 50);
    let mut turned = list;
    turned.chunks_mut(6).for_each(<[_]>::reverse);
    assert_eq!(run(&turned), want);
}

/// What is fed through a layer at a wild scale: nothing panics, spikes ascend, buffers hold.
#[test]
fn no_weights_break_a_layer() {
    let (cpu, mut inputs) = (Cpu::new(2).unwrap(), Inputs::new(6));
    let host = trains(&mut inputs, 5, 40, 50);
    let mut input = Trains::empty(&cpu, 0).unwrap();
    input.upload(&cpu, &host).unwrap();
    let synapses = Synapses::Dense { inputs: 40, outputs: 70 };
    for (scale, tau_s) in
        [(1e-30, 0.05), (1e30, 0.05), (f32::NAN, 0.05), (f32::INFINITY, 0.05), (1.0, 1e-6), (1.0, 1e6)]
    {
        let neuron = EventNeuron::new(tau_s, 0.03, f64::INFINITY, 9);
        let weight: Vec<f32> = inputs.uniform(40 * 70, -0.6, 1.0).into_iter().map(|w| w * scale).collect();
        let (mut out, mut slopes) = (Trains::empty(&cpu, 0).unwrap(), vec![]);
        cpu.event_forward(&neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        assert!(out.times.iter().all(|t| t.is_finite() && *t >= 0.0), "{scale} {tau_s}");
        assert_eq!(scale.is_nan(), out.times.is_empty() && scale.is_nan());
        for sample in out.offsets.windows(2) {
            assert!(out.times[sample[0] as usize..sample[1] as usize].is_sorted());
        }
        let mut counts = vec![0; 5 * 70];
        cpu.count_trains(&out, &mut counts).unwrap();
        assert!(counts.iter().all(|c| *c <= 9));
    }
}

#[test]
fn convolutions_of_odd_shapes_match_the_reference() {
    let (cpu, exact) = (Cpu::new(2).unwrap(), Reference::<f64>::new());
    let mut geometries = vec![
        // Narrower than the kernel, and hardly anything but padding.
        Conv::new(Map::new(1, 1, 3), 5, 3, 1, 1).unwrap(),
        Conv::new(Map::new(2, 1, 5), 3, 5, 1, 2).unwrap(),
        Conv::new(Map::new(2, 3, 4), 3, 3, 1, 4).unwrap(),
        Conv::new(Map::new(3, 2, 2), 3, 2, 3, 5).unwrap(),
        Conv::rectangle(Map::new(4, 9, 3), 5, [1, 4], 1, [0, 3]).unwrap(),
        // Weights that are read once: with few positions, and with many.
        Conv::new(Map::new(2, 2, 176), 177, 3, 1, 1).unwrap(),
        Conv::new(Map::new(3, 3, 40), 730, 3, 1, 0).unwrap(),
        Conv::new(Map::new(3, 3, 130), 250, 3, 2, 1).unwrap(),
    ];
    // Tiles of 2x2 outputs: padding from none to more than the kernel has, several pieces, a last one that is smaller.
    for (map, channels, padding) in [
        (Map::new(8, 8, 64), 64, 1),
        (Map::new(6, 10, 80), 64, 0),
        (Map::new(10, 4, 64), 112, 2),
        (Map::new(4, 2, 64), 64, 4),
    ] {
        geometries.push(Conv::new(map, channels, 3, 1, padding).unwrap());
    }
    for (channels, stride) in [1, 3, 5, 64].into_iter().flat_map(|c| [(c, 1), (c, 2)]) {
        geometries.push(Conv::new(Map::new(6, 7, channels), 66 - channels, 3, stride, 1).unwrap());
    }
    for conv in &geometries {
        for rows in [0, 1, 3, 17] {
            let mut inputs = Inputs::new(9);
            let got = convolved(&cpu, &mut inputs, conv, rows);
            let mut inputs = Inputs::new(9);
            let (n_in, n_out) = (rows * conv.input.len(), rows * conv.output().len());
            let weight = wide(&inputs.uniform(conv.fan_in() * conv.channels, -1.0, 1.0));
            let bias = wide(&inputs.uniform(conv.channels, -1.0, 1.0));
            let (x, grad) = (wide(&inputs.uniform(n_in, -1.0, 1.0)), wide(&inputs.uniform(n_out, -1.0, 1.0)));
            let [mut out, mut gw, mut gx] = [n_out, weight.len(), n_in].map(|len| vec![0.0; len]);
            exact.conv_dense(conv, rows, &x, &weight, Some(&bias), &mut out).unwrap();
            exact.conv_dense_weight_grad(conv, rows, &x, &grad, &mut gw).unwrap();
            exact.conv_input_grad(conv, rows, &grad, &weight, &mut gx).unwrap();
            for ((what, got), want) in ["out", "grad_weight", "grad_input"].iter().zip(&got).zip([out, gw, gx]) {
                assert_close(&format!("{what}, {rows} maps, {conv:?}"), &wide(got), &want, 2e-6);
            }
        }
    }
}

#[test]
fn products_of_a_few_rows_match_the_reference() {
    let (cpu, exact, mut inputs) = (Cpu::new(2).unwrap(), Reference::<f64>::new(), Inputs::new(10));
    for (few, n, many) in [(1, 1, 1), (2, 10, 33), (5, 16, 340), (8, 97, 784), (9, 340, 30), (16, 700, 129)] {
        for zeros in [false, true] {
            for flags in 0..8 {
                let (transpose_a, transpose_b) = (flags & 1 != 0, flags & 2 != 0);
                let (m, k) = if transpose_a { (many, few) } else { (few, many) };
                let g = Gemm { transpose_a, transpose_b, accumulate: flags & 4 != 0, ..Gemm::new(m, n, k) };
                let a = if zeros { mostly_zero(&mut inputs, m * k) } else { inputs.uniform(m * k, -1.0, 1.0) };
                let (b, mut c) = (inputs.uniform(k * n, -1.0, 1.0), inputs.uniform(m * n, -1.0, 1.0));
                let mut want = wide(&c);
                cpu.gemm(g, &a, &b, &mut c).unwrap();
                exact.gemm(g, &wide(&a), &wide(&b), &mut want).unwrap();
                assert_close(&format!("{g:?}"), &wide(&c), &want, 2e-6);
            }
        }
    }
}

fn places(rows: &mut [Vec<f32>; 4]) -> FilterGrad<'_, Cpu> {
    let [alpha, beta, threshold, sum] = rows;
    let (alpha, beta, threshold) = (Some(alpha), Some(beta), Some(threshold));
    FilterGrad { membrane: None, alpha, beta, threshold, current_sum: Some(sum) }
}

#[test]
fn every_operation_gives_the_same_bits_on_any_number_of_threads() {
    let want = everything(&Cpu::new(1).unwrap());
    for threads in [2, 3, 7] {
        for ((what, got), (_, want)) in everything(&Cpu::new(threads).unwrap()).iter().zip(&want) {
            assert!(got == want, "{what}: {threads} threads give other bits than one");
        }
    }
}
