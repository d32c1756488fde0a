//! The two published forms of the adaptive neuron against the original implementation's numbers, and against each other.

use std::path::PathBuf;

use snn_core::backend::{AlifGrad, AlifOps, AlifParameters, LinAlg, SpikeMemory};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Constants, Limits};
use snn_core::neurons::lif::Path;
use snn_core::testkit::golden::{Case, Precision, read_index};
use snn_core::testkit::{Inputs, assert_close, wide};
use snn_core::{Lanes, Surrogate};
use snn_cpu::Cpu;
use snn_cpu::published::{
    AlifBlocksTape, AlifGradients, AlifStepwiseTape, alif_blocks_backward, alif_blocks_forward, alif_stepwise_backward,
    alif_stepwise_forward,
};

/// Arrays with time last become arrays with neurons last, and back.
fn turned(case: &Case, name: &str) -> Vec<f64> {
    case.array(name).unwrap().permuted(&[0, 2, 1]).data
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&v| v as f32).collect()
}

fn path(attached: bool) -> Path {
    if attached { Path::Attached } else { Path::Detached }
}

/// One golden layer: what it is made of.
struct Layer {
    neuron: AlifNeuron,
    lanes: Lanes,
    inputs: usize,
    taps: usize,
    raw: [Vec<f64>; 3],
    weight: Vec<f32>,
    x: Vec<f64>,
    w_in: Vec<f64>,
    current: Vec<f32>,
}

impl Layer {
    fn new(case: &Case) -> Self {
        let size = |name: &str| case.option::<usize>(name).unwrap();
        let (lanes, inputs, taps) = (Lanes::new(size("B"), size("T"), size("N")), size("M"), size("R"));
        let surrogate = match case.entry.options["surrogate"]["name"].as_str().unwrap() {
            "mg" => Surrogate::MULTI_GAUSSIAN,
            "fast_sigmoid" => Surrogate::BLOCK,
            "box_car" => Surrogate::BOXCAR,
            other => panic!("surrogate {other}"),
        };
        let spikes = path(!case.option::<bool>("detach_spike_grad").unwrap());
        let recurrent = case.option("recurrent").unwrap();
        let neuron = AlifNeuron {
            surrogate,
            refractory: size("L") as u32,
            adapts: case.option("adapt").unwrap(),
            recurrent,
            gradient: AlifGradient::Blocks { spikes },
            limits: Limits::PUBLISHED,
        };
        let array = |name: &str| case.array(name).unwrap().data.clone();
        let (x, w_in, bias) = (turned(case, "x"), array("param_w_in"), array("param_bias"));
        let mut current = vec![0.0; lanes.len()];
        for (row, out) in current.chunks_mut(lanes.width).enumerate() {
            let t = row % lanes.steps;
            for (n, out) in out.iter_mut().enumerate() {
                *out = bias[n];
                for ago in 0..taps.min(t + 1) {
                    for m in 0..inputs {
                        *out += w_in[(n * inputs + m) * taps + taps - 1 - ago] * x[(row - ago) * inputs + m];
                    }
                }
            }
        }
        let weight = case.array("param_w_rec").unwrap().permuted(&[1, 0]).data;
        let weight = if recurrent { narrow(&weight) } else { Vec::new() };
        let raw = ["param_beta_raw", "param_p_raw", "param_b_raw"].map(array);
        Self { neuron, lanes, inputs, taps, raw, weight, x, w_in, current: narrow(&current) }
    }

    /// Constants as used.
    fn constants(&self) -> [Vec<f32>; 3] {
        let limits = self.neuron.limits;
        let [beta, decay, strength] = &self.raw;
        [
            beta.iter().map(|&r| limits.beta(r) as f32).collect(),
            decay.iter().map(|&r| limits.decay(r) as f32).collect(),
            strength.iter().map(|&r| limits.strength(r) as f32).collect(),
        ]
    }

    /// `[B, T, N]` as the golden arrays have it.
    fn back(&self, x: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        for b in 0..self.lanes.batch {
            for t in 0..self.lanes.steps {
                for n in 0..self.lanes.width {
                    let at = (b * self.lanes.steps + t) * self.lanes.width + n;
                    out[(b * self.lanes.width + n) * self.lanes.steps + t] = f64::from(x[at]);
                }
            }
        }
        out
    }

    fn compare(&self, case: &Case, prefix: &str, got: &AlifGradients) {
        let name = |what: &str| format!("{prefix}_grad_{what}");
        let limits = self.neuron.limits;
        let [beta, decay, strength] = &self.raw;
        let on = |raw: &[f64], grad: &[f32], f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            raw.iter().zip(grad).map(|(&r, &g)| f(r, f64::from(g))).collect()
        };
        case.compare(&name("beta_raw"), &on(beta, &got.beta, &|r, g| limits.on_beta(r, g)));
        case.compare(&name("p_raw"), &on(decay, &got.decay, &|r, g| limits.on_decay(r, g)));
        case.compare(&name("b_raw"), &on(strength, &got.strength, &|r, g| limits.on_strength(r, g)));
        let (n, m, r) = (self.lanes.width, self.inputs, self.taps);
        let turn = |i: usize| if self.weight.is_empty() { 0.0 } else { f64::from(got.weight[i % n * n + i / n]) };
        case.compare(&name("w_rec"), &(0..n * n).map(turn).collect::<Vec<_>>());
        let (mut w_in, mut bias) = (vec![0.0; self.w_in.len()], vec![0.0; n]);
        for (row, grad) in got.current.chunks(n).enumerate() {
            for (target, &g) in grad.iter().enumerate() {
                bias[target] += f64::from(g);
                for ago in 0..r.min(row % self.lanes.steps + 1) {
                    for source in 0..m {
                        let at = (target * m + source) * r + r - 1 - ago;
                        w_in[at] += f64::from(g) * self.x[(row - ago) * m + source];
                    }
                }
            }
        }
        case.compare(&name("w_in"), &w_in);
        case.compare(&name("bias"), &bias);
    }
}

/// All golden layers.
fn layers() -> Vec<(Case, Layer)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../snn-core/golden/alif-blocks"));
    let entries = read_index(&folder).unwrap().cases.into_iter().filter(|entry| entry.kind == "alif_layer");
    let cases = entries.map(|entry| Case::open(&folder, &entry, Precision::Single).unwrap());
    cases.map(|case| (Layer::new(&case), case)).map(|(layer, case)| (case, layer)).collect()
}

/// Fails with what a case recorded; arrays that this test does not look at are no failure.
fn finish(case: Case) {
    let file = case.path.display().to_string();
    let failures = case.finish().err().unwrap_or_default();
    let failures: Vec<_> = failures.into_iter().filter(|f| !f.ends_with("nobody read this array")).collect();
    assert!(failures.is_empty(), "{file}: {failures:?}");
}

#[test]
fn blocks_give_the_original_spikes_membranes_and_gradients() {
    let cpu = Cpu::new(2).unwrap();
    let all = layers();
    assert!(all.len() >= 18);
    for (case, layer) in all {
        let Layer { neuron, lanes, current, .. } = &layer;
        let [beta, decay, strength] = layer.constants();
        let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &layer.weight };
        let mut tape = AlifBlocksTape::default();
        let spikes = alif_blocks_forward(&cpu, *lanes, neuron, &c, current, &mut tape).unwrap();
        case.compare("spikes", &layer.back(&spikes));
        case.compare("blk_mem", &layer.back(&tape.membrane(*lanes)));
        case.compare("blk_z", &layer.back(&tape.crossings(*lanes)));
        if !case.option::<bool>("membrane_adjoint").unwrap() {
            let grad = narrow(&turned(&case, "upstream_spikes"));
            let got = alif_blocks_backward(&cpu, *lanes, neuron, &c, &grad, &tape).unwrap();
            layer.compare(&case, "blk", &got);
        }
        finish(case);
    }
}

#[test]
fn steps_give_the_original_spikes_and_gradients() {
    let cpu = Cpu::new(2).unwrap();
    for (case, layer) in layers() {
        let AlifGradient::Blocks { spikes } = layer.neuron.gradient else { panic!("blocks first") };
        let gradient = AlifGradient::Steps { spikes, adaptation: Path::Attached };
        let (neuron, lanes) = (AlifNeuron { gradient, ..layer.neuron }, layer.lanes);
        let [beta, decay, strength] = layer.constants();
        let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &layer.weight };
        let mut tape = AlifStepwiseTape::default();
        let spikes = alif_stepwise_forward(&cpu, lanes, &neuron, &c, &layer.current, &mut tape).unwrap();
        case.compare("spikes", &layer.back(&spikes));
        if !case.option::<bool>("membrane_adjoint").unwrap() {
            let grad = narrow(&turned(&case, "upstream_spikes"));
            let got = alif_stepwise_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap();
            layer.compare(&case, "ctl", &got);
        }
        finish(case);
    }
}

/// A layer that fires often.
fn busy(recurrent: bool, p: f32) -> (AlifNeuron, Lanes, [Vec<f32>; 3], Vec<f32>, Vec<f32>) {
    let lanes = Lanes::new(3, 57, 20);
    let neuron = AlifNeuron {
        surrogate: Surrogate::MULTI_GAUSSIAN,
        refractory: 4,
        adapts: true,
        recurrent,
        gradient: AlifGradient::Blocks { spikes: Path::Detached },
        limits: Limits::PUBLISHED,
    };
    let mut inputs = Inputs::new(3);
    let constants = [vec![0.9; lanes.width], vec![p; lanes.width], vec![0.5; lanes.width]];
    let weight = if recurrent { inputs.uniform(lanes.width * lanes.width, -0.2, 0.3) } else { Vec::new() };
    let current = inputs.uniform(lanes.len(), -0.2, 0.7);
    (neuron, lanes, constants, weight, current)
}

/// The published carry of the adaptation divides by p: at exactly 0 thresholds after a spike are not numbers, every
/// comparison with them is false, and spikes are lost without an error. The steps know nothing of it.
#[test]
fn the_published_carry_loses_spikes_where_p_is_zero() {
    let cpu = Cpu::new(1).unwrap();
    for (p, lost) in [(0.7, false), (1e-6, false), (0.0, true)] {
        let (neuron, lanes, [beta, decay, strength], weight, current) = busy(true, p);
        let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &weight };
        let mut tape = AlifBlocksTape::default();
        let blocks = alif_blocks_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
        let mut tape = AlifStepwiseTape::default();
        let steps = alif_stepwise_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
        let count = |s: &[f32]| s.iter().sum::<f32>();
        assert_eq!(blocks != steps, lost, "p {p}");
        assert!(!lost || count(&blocks) < 0.5 * count(&steps), "{} of {}", count(&blocks), count(&steps));
    }
}

#[test]
fn blocks_and_steps_agree_and_threads_do_not_show() {
    for recurrent in [false, true] {
        let (neuron, lanes, [beta, decay, strength], weight, current) = busy(recurrent, 0.8);
        let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &weight };
        let grad = Inputs::new(4).uniform(lanes.len(), -1.0, 1.0);
        let run = |threads: usize| {
            let cpu = Cpu::new(threads).unwrap();
            let mut tape = AlifBlocksTape::default();
            let blocks = alif_blocks_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
            let blocks_grad = alif_blocks_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap();
            let mut tape = AlifStepwiseTape::default();
            let steps = alif_stepwise_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
            let steps_grad = alif_stepwise_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap();
            assert_eq!(blocks, steps);
            assert!(blocks.iter().sum::<f32>() > 100.0);
            (blocks, blocks_grad, steps_grad)
        };
        assert_eq!(run(1), run(3));
    }
}

/// Blocks of one step without adaptation are the steps themselves, gradients included.
#[test]
fn without_refractory_period_and_adaptation_gradients_agree() {
    let cpu = Cpu::new(2).unwrap();
    let (neuron, lanes, [beta, decay, strength], weight, current) = busy(true, 0.8);
    let neuron = AlifNeuron { refractory: 0, adapts: false, ..neuron };
    let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &weight };
    let grad = Inputs::new(4).uniform(lanes.len(), -1.0, 1.0);
    let mut tape = AlifBlocksTape::default();
    alif_blocks_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
    let blocks = alif_blocks_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap();
    let gradient = AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached };
    let neuron = AlifNeuron { gradient, ..neuron };
    let mut tape = AlifStepwiseTape::default();
    alif_stepwise_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
    let steps = alif_stepwise_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap();
    assert_close("current", &wide(&blocks.current), &wide(&steps.current), 1e-5);
    assert_close("beta", &wide(&blocks.beta), &wide(&steps.beta), 1e-5);
    assert_close("weight", &wide(&blocks.weight), &wide(&steps.weight), 1e-5);
}

/// The fused scans and both published forms are one model: equal spikes, gradients equal up to rounding.
#[test]
fn fused_scans_agree_with_the_published_forms() {
    let cpu = Cpu::new(2).unwrap();
    for recurrent in [false, true] {
        for (refractory, adapts) in [(0, false), (0, true), (4, true), (9, false), (70, true)] {
            let (neuron, lanes, [beta, decay, strength], weight, current) = busy(recurrent, 0.8);
            let c = Constants { beta: &beta, decay: &decay, strength: &strength, weight: &weight };
            let grad = Inputs::new(4).uniform(lanes.len(), -1.0, 1.0);
            let steps = AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached };
            for gradient in [steps, AlifGradient::Blocks { spikes: Path::Detached }] {
                let neuron = AlifNeuron { refractory, adapts, gradient, ..neuron };
                let (spikes, published) = if neuron.in_blocks() {
                    let mut tape = AlifBlocksTape::default();
                    let spikes = alif_blocks_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
                    (spikes, alif_blocks_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap())
                } else {
                    let mut tape = AlifStepwiseTape::default();
                    let spikes = alif_stepwise_forward(&cpu, lanes, &neuron, &c, &current, &mut tape).unwrap();
                    (spikes, alif_stepwise_backward(&cpu, lanes, &neuron, &c, &grad, &tape).unwrap())
                };
                let what = format!("refractory {refractory}, adapts {adapts}, recurrent {recurrent}, {gradient:?}");
                let fused = fused(&cpu, &neuron, lanes, [&beta, &decay, &strength], &weight, &current, &grad);
                assert_eq!(fused.0, spikes, "{what}");
                let rows = [
                    ("current", &fused.1.current, &published.current),
                    ("beta", &fused.1.beta, &published.beta),
                    ("decay", &fused.1.decay, &published.decay),
                    ("strength", &fused.1.strength, &published.strength),
                    ("weight", &fused.1.weight, &published.weight),
                ];
                for (name, got, want) in rows {
                    assert_close(&format!("{what}: {name}"), &wide(got), &wide(want), 3e-5);
                }
            }
        }
    }
}

/// Spikes and gradients of the fused scans.
fn fused(
    cpu: &Cpu,
    neuron: &AlifNeuron,
    lanes: Lanes,
    [beta, decay, strength]: [&Vec<f32>; 3],
    weight: &Vec<f32>,
    current: &[f32],
    grad: &[f32],
) -> (Vec<f32>, AlifGradients) {
    let recurrent = neuron.recurrent.then_some(weight);
    let parameters = || AlifParameters { beta, decay, strength, recurrent };
    let (mut state, mut spikes, mut late) = (current.to_vec(), cpu.spikes(), cpu.spikes());
    cpu.alif_forward(neuron, lanes, parameters(), &mut state, &mut spikes).unwrap();
    let row = || vec![0.0; lanes.width];
    let (beta_grad, decay_grad, strength_grad) = (row(), row(), row());
    let mut out = AlifGradients {
        current: grad.to_vec(),
        beta: beta_grad,
        decay: decay_grad,
        strength: strength_grad,
        weight: vec![0.0; weight.len()],
    };
    let grads = AlifGrad {
        beta: Some(&mut out.beta),
        decay: Some(&mut out.decay),
        strength: Some(&mut out.strength),
        ..AlifGrad::default()
    };
    cpu.alif_backward(neuron, lanes, parameters(), &state, &mut out.current, grads).unwrap();
    if neuron.recurrent {
        cpu.delay_spikes(&spikes, neuron.block(), &mut late).unwrap();
        cpu.spikes_gemm_weight_grad(&late, lanes.width, &out.current, &mut out.weight).unwrap();
    }
    (spikes.to_dense(), out)
}
