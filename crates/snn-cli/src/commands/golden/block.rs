//! Runners of the block system.

use anyhow::{Context, Result, bail};
use snn_core::backend::{Leak, LeakGrad};
use snn_core::neurons::block::{BlockNeuron, Start};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Activity, Backend, Conv, Kind, Lanes, Layer, Map, Pass, Signal, Surrogate, Tensor};
use snn_train::config::{
    Init, IntegratorConfig, LayerConfig, LeakyConfig, LeakyModel, ModelConfig, OptimiserConfig, ReadoutConfig,
    ReadoutNeuron, Reduce, SurrogateConfig,
};
use snn_train::layers::block::BlockCell;
use snn_train::layers::conv::Convolution;
use snn_train::layers::decay::Decay;
use snn_train::layers::dense::Dense;
use snn_train::layers::lif::LifCell;
use snn_train::layers::{Cell, PoolLayer, Projection, Readout};
use snn_train::losses::CrossEntropy;
use snn_train::optim::Optimiser;
use snn_train::stack::Stack;

use super::arrays::{activity, dense_weight, host, lift, set, upload, weight_back};
use super::{Implementation, host_only, on_devices, transforms};

/// The kinds of the system.
pub(super) const KINDS: &[&str] = &[
    "block_neurons",
    "block_linear",
    "block_readout",
    "block_model",
    "block_conv_pool",
    "block_transforms",
    "block_yinyang",
];

/// Everything that implements a kind, or nothing for a kind of another system.
pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    match kind {
        "block_neurons" => on_devices!(neurons),
        "block_linear" => on_devices!(linear),
        "block_readout" => on_devices!(readout),
        "block_model" => on_devices!(model),
        "block_conv_pool" => on_devices!(conv_pool),
        "block_transforms" => host_only("snn-data f32", transforms::transforms),
        "block_yinyang" => host_only("snn-data f32", transforms::yinyang),
        _ => Ok(None),
    }
}

/// Golden arrays put time last; ours put neurons last.
const SWAP: [usize; 3] = [0, 2, 1];

/// `[B, T, N]` on the device back to the `[B, N, T]` of golden arrays.
fn back(lanes: Lanes, data: Vec<f64>) -> Vec<f64> {
    Array { shape: vec![lanes.batch, lanes.steps, lanes.width], data }.permuted(&SWAP).data
}

/// `[B, T, N]` of a case, or zeros where it has no such array.
fn sequence(case: &Case, name: &str, lanes: Lanes) -> Vec<f64> {
    case.find(name).map_or_else(|| vec![0.0; lanes.len()], |a| a.permuted(&SWAP).data)
}

fn surrogate(case: &Case) -> Result<Surrogate> {
    Ok(Surrogate::FastSigmoid { scale: case.option("scale")? })
}

/// The neuron of a case, of either family.
enum Neuron {
    Lif(LifNeuron),
    Block(BlockNeuron),
}

impl Neuron {
    fn of(case: &Case) -> Result<Self> {
        let clamp: String = case.option("clamp_gradient")?;
        if clamp != "closed" {
            bail!("clamp_gradient `{clamp}` is not supported, only `closed`");
        }
        let threshold = case.entry.options.get("threshold").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
        let method: String = case.option("method")?;
        let lif = |kind| Ok(Self::Lif(LifNeuron { kind, surrogate: surrogate(case)?, threshold }));
        match method.as_str() {
            "block" => {
                let start = match case.entry.options.get("v_init").and_then(serde_json::Value::as_str) {
                    Some("undecayed") => Start::Undecayed,
                    _ => Start::Decayed,
                };
                Ok(Self::Block(BlockNeuron { surrogate: surrogate(case)?, threshold, start }))
            }
            "std_multi" => lif(LifKind::Multi { reset: Path::Attached }),
            "std_single" => lif(LifKind::Single { mask: Path::Attached }),
            "integrator" => lif(LifKind::Integrator),
            other => bail!("unknown method `{other}`"),
        }
    }

    fn cell<B: Backend>(&self, decay: Decay<B>) -> Box<dyn Cell<B>> {
        match self {
            Self::Lif(n) => Box::new(LifCell::new(*n, decay)),
            Self::Block(n) => Box::new(BlockCell::new(*n, decay)),
        }
    }

    fn is_integrator(&self) -> bool {
        matches!(self, Self::Lif(LifNeuron { kind: LifKind::Integrator, .. }))
    }
}

fn neurons<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let neuron = Neuron::of(case)?;
    let lanes = Lanes::new(case.option("B")?, case.option("T")?, case.option("N")?);
    let lane_count = lanes.batch * lanes.width;
    let raw = case.array("beta_raw")?.clone();
    let beta = upload(device, &raw)?;
    let initial = case.find("v_init").map(|v| upload(device, v)).transpose()?;
    let leak = || Leak { beta_raw: &beta, initial: initial.as_ref() };
    let mut state = device.buffer_from(&lift::<B>(&sequence(case, "current", lanes)))?;
    let mut grad = device.buffer_from(&lift::<B>(&sequence(case, "gout_spikes", lanes)))?;
    let membrane_grad =
        case.find("gout_mem").map(|_| device.buffer_from(&lift::<B>(&sequence(case, "gout_mem", lanes))));
    let membrane_grad = membrane_grad.transpose()?;
    let (mut grad_beta, mut grad_initial) = (device.zeros(lane_count)?, device.zeros(lane_count)?);
    let leak_grad = LeakGrad {
        membrane: membrane_grad.as_ref(),
        beta: Some(&mut grad_beta),
        initial: initial.is_some().then_some(&mut grad_initial),
        current_sum: None,
    };
    let mut spikes = device.spikes();
    match &neuron {
        Neuron::Lif(n) => {
            device.lif_forward(n, lanes, leak(), &mut state, &mut spikes)?;
            device.lif_backward(n, lanes, leak(), &state, &mut grad, leak_grad)?;
            device.lif_membrane(n, lanes, &mut state)?;
        }
        Neuron::Block(n) => {
            device.block_forward(n, lanes, leak(), &mut state, &mut spikes)?;
            device.block_backward(n, lanes, leak(), &state, &mut grad, leak_grad)?;
            // The fused pass never forms the faulty spikes and their double sum: they follow from its membrane.
            let membrane = back(lanes, host(device, &state)?);
            let (faulty, latency) = double_sum(n.threshold, lanes.steps, &membrane);
            case.compare("faulty", &faulty);
            case.compare("z", &latency);
        }
    }
    case.compare_result("membrane", &back(lanes, host(device, &state)?));
    if !neuron.is_integrator() {
        case.compare("spikes", &back(lanes, device.download_spikes(&spikes)?.to_dense()));
    }
    case.compare_result("grad_current", &back(lanes, host(device, &grad)?));
    case.compare_result("grad_v_init", &host(device, &grad_initial)?);
    let mut summed = device.zeros(raw.data.len())?;
    device.sum_rows(lane_count / raw.data.len(), raw.data.len(), &grad_beta, &mut summed)?;
    case.compare_result("grad_beta_raw", &host(device, &summed)?);
    let clamped: Vec<f64> = raw.data.iter().map(|b| b.clamp(0.0, 1.0)).collect();
    case.compare_result("beta", &clamped);
    Ok(())
}

/// Faulty spikes and their double cumulative sum, from membranes `[.., T]`.
fn double_sum(threshold: f64, steps: usize, membrane: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut faulty, mut latency) = (Vec::new(), Vec::new());
    for lane in membrane.chunks(steps) {
        let (mut count, mut z) = (0.0, 0.0);
        for &v in lane {
            let f = f64::from(v > threshold);
            count += f;
            z += count;
            faulty.push(f);
            latency.push(z);
        }
    }
    (faulty, latency)
}

fn decay_of<B: Backend>(device: &B, case: &Case, width: usize) -> Result<Decay<B>> {
    Ok(Decay::new(device, width, 0.0, case.option("beta_shared")?, case.option("beta_learnable")?)?)
}

fn linear<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let neuron = Neuron::of(case)?;
    let lanes = Lanes::new(case.option("B")?, case.option("T")?, case.option("N")?);
    let inputs: usize = case.option("M")?;
    let input = activity(device, lanes.with_width(inputs), &case.array("x")?.permuted(&SWAP).data)?;
    let mut dense = Dense::new(device, inputs, lanes.width, Init::default(), (0, 0))?;
    let [weight, bias]: [_; 2] = dense.parameters_mut().try_into().expect("a fresh projection has a weight and a bias");
    set(device, weight, &dense_weight(case.array("weight")?))?;
    set(device, bias, &case.array("bias")?.data)?;
    let mut cell = neuron.cell(decay_of(device, case, lanes.width)?);
    set(device, cell.parameters_mut()[0], &case.array("beta_raw")?.data)?;

    let (mut state, mut spikes) = (device.zeros(lanes.len())?, device.spikes());
    dense.forward(device, &input, lanes.rows(), Pass::train(0), &mut state)?;
    cell.forward(device, lanes, Pass::train(0), &mut state, &mut spikes)?;
    let mut grad = device.buffer_from(&lift::<B>(&sequence(case, "gout_spikes", lanes)))?;
    let membrane_grad =
        case.find("gout_mem").map(|_| device.buffer_from(&lift::<B>(&sequence(case, "gout_mem", lanes))));
    let membrane_grad = membrane_grad.transpose()?;
    let mut sums = device.zeros(lanes.batch * lanes.width)?;
    cell.backward(device, lanes, &state, &mut grad, membrane_grad.as_ref(), &mut sums)?;
    let mut grad_x = Tensor::zeros(device, &[lanes.batch, lanes.steps, inputs])?;
    dense.backward(device, &input, lanes.rows(), &grad, &sums, Some(&mut grad_x))?;
    if let Neuron::Lif(n) = &neuron {
        device.lif_membrane(n, lanes, &mut state)?;
    }

    case.compare("spikes", &back(lanes, device.download_spikes(&spikes)?.to_dense()));
    case.compare_result("membrane", &back(lanes, host(device, &state)?));
    case.compare_result("grad_x", &back(lanes.with_width(inputs), host(device, &grad_x.data)?));
    let [weight, bias]: [_; 2] = dense.parameters().try_into().expect("a fresh projection has a weight and a bias");
    case.compare_result("grad_weight", &weight_back(inputs, lanes.width, host(device, &weight.grad.data)?));
    case.compare_result("grad_bias", &host(device, &bias.grad.data)?);
    case.compare_result("grad_beta_raw", &host(device, &cell.parameters()[0].grad.data)?);
    Ok(())
}

/// The labels of a case.
fn targets(case: &Case) -> Result<Vec<u32>> {
    Ok(case.array("target")?.data.iter().map(|&t| t as u32).collect())
}

/// Sets weight, bias and decay of a layer from golden arrays.
fn set_layer<B: Backend>(device: &B, layer: &mut dyn Layer<B>, arrays: [&Array; 3]) -> Result<()> {
    let mut parameters = layer.parameters_mut();
    let [weight, bias, beta] = arrays;
    set(device, parameters[0], &dense_weight(weight))?;
    set(device, parameters[1], &bias.data)?;
    set(device, parameters[2], &beta.data)
}

fn integrator(shared_beta: bool, learn_beta: bool) -> ReadoutNeuron {
    ReadoutNeuron::Integrator(IntegratorConfig { shared_beta, learn_beta, ..IntegratorConfig::default() })
}

fn readout<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (batch, steps): (usize, usize) = (case.option("B")?, case.option("T")?);
    let (inputs, classes): (usize, usize) = (case.option("M")?, case.option("C")?);
    let lanes = Lanes::new(batch, steps, inputs);
    let input = activity(device, lanes, &case.array("x")?.permuted(&SWAP).data)?;
    let labels = targets(case)?;
    for mode in case.option::<Vec<String>>("readouts")? {
        let config = ReadoutConfig {
            reduce: reduce(&mode)?,
            neuron: integrator(case.option("beta_shared")?, case.option("beta_learnable")?),
            ..ReadoutConfig::default()
        };
        let kind = if matches!(input, Activity::Spikes(_)) { Kind::Spikes } else { Kind::Sequence };
        let mut layer = Readout::new(device, Signal::flat(kind, steps, inputs), classes, &config, (0, 0))?;
        set_layer(device, &mut layer, [case.array("weight")?, case.array("bias")?, case.array("beta_raw")?])?;
        layer.forward(device, &input, Pass::train(0))?;
        case.compare_result("membrane", &back(lanes.with_width(classes), host(device, &layer.membrane().data)?));
        if mode == "max" {
            let at: Vec<f64> = device.to_host(layer.step_of_maximum())?.into_iter().map(f64::from).collect();
            case.compare("max_argmax_t", &at);
        }
        let mut loss = CrossEntropy::new(device)?;
        let scores = loss.forward(device, layer.output(), &labels)?;
        let logits = layer.output().values("golden")?;
        case.compare_result(&format!("{mode}_logits"), &host(device, &logits.data)?);
        case.compare_result(&format!("{mode}_loss"), &[scores.loss()]);
        let mut grad_x = Tensor::zeros(device, &[batch, steps, inputs])?;
        layer.backward(device, &input, &mut loss.grad, Some(&mut grad_x))?;
        case.compare_result(&format!("{mode}_grad_x"), &back(lanes, host(device, &grad_x.data)?));
        compare_layer_grads(device, case, &format!("{mode}_"), "", inputs, classes, &layer.parameters())?;
    }
    Ok(())
}

fn reduce(mode: &str) -> Result<Reduce> {
    match mode {
        "sum" => Ok(Reduce::Sum),
        "max" => Ok(Reduce::Max),
        other => bail!("unknown readout `{other}`"),
    }
}

/// Compares the gradients of weight, bias and decay.
fn compare_layer_grads<B: Backend>(
    device: &B,
    case: &Case,
    prefix: &str,
    suffix: &str,
    inputs: usize,
    outputs: usize,
    parameters: &[&snn_core::Parameter<B>],
) -> Result<()> {
    let grad = |i: usize| host(device, &parameters[i].grad.data);
    case.compare_result(&format!("{prefix}grad_weight{suffix}"), &weight_back(inputs, outputs, grad(0)?));
    case.compare_result(&format!("{prefix}grad_bias{suffix}"), &grad(1)?);
    case.compare_result(&format!("{prefix}grad_beta_raw{suffix}"), &grad(2)?);
    Ok(())
}

/// The constants of a case's Adam.
#[derive(serde::Deserialize)]
struct AdamOptions {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

fn model<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let sizes: Vec<usize> = case.option("layer_sizes")?;
    let (hidden, skip): (usize, bool) = (case.option("n_hidden_layers")?, case.option("skip")?);
    let (shared, learn): (bool, bool) = (case.option("beta_shared")?, case.option("beta_learnable")?);
    let method: String = case.option("method")?;
    let model = match method.as_str() {
        "block" => LeakyModel::Block,
        "std_single" => LeakyModel::Single,
        "std_multi" => LeakyModel::Multi,
        other => bail!("unknown method `{other}`"),
    };
    let neuron = model.with(LeakyConfig {
        learn_beta: learn,
        shared_beta: shared,
        surrogate: SurrogateConfig::FastSigmoid { scale: case.option("scale")? },
        threshold: case.option("threshold")?,
        ..LeakyConfig::default()
    });
    let layer = |i: usize| LayerConfig::Dense {
        width: sizes[i + 1],
        neuron: neuron.clone(),
        init: Init::default(),
        // The input joins the output from the second hidden layer on.
        skip: skip && i > 0,
        bias: true,
        norm: None,
        delays: None,
        field: 1,
    };
    let mode: String = case.option("readout")?;
    let config = ModelConfig {
        layers: (0..hidden).map(layer).collect(),
        readout: ReadoutConfig {
            reduce: reduce(&mode)?,
            neuron: integrator(shared, learn),
            ..ReadoutConfig::default()
        },
        ..ModelConfig::default()
    };
    let (batch, steps): (usize, usize) = (case.option("B")?, case.option("T")?);
    let lanes = Lanes::new(batch, steps, sizes[0]);
    let input = activity(device, lanes, &case.array("x")?.permuted(&SWAP).data)?;
    let kind = if matches!(input, Activity::Spikes(_)) { Kind::Spikes } else { Kind::Sequence };
    let classes = sizes[hidden + 1];
    let mut stack = Stack::build(device, &config, Signal::flat(kind, steps, sizes[0]), classes, 0)?;
    let arrays = (0..=hidden).map(|i| {
        Ok([case.array(&format!("weight{i}"))?, case.array(&format!("bias{i}"))?, case.array(&format!("beta_raw{i}"))?])
    });
    let arrays: Vec<[&Array; 3]> = arrays.collect::<Result<_>>()?;
    let per_layer: Vec<Vec<f64>> =
        arrays.iter().flat_map(|[w, b, beta]| [dense_weight(w), b.data.clone(), beta.data.clone()]).collect();
    for (parameter, data) in stack.parameters_mut().zip(&per_layer) {
        set(device, parameter, data)?;
    }

    let adam: AdamOptions = case.option("adam")?;
    let optimiser = OptimiserConfig {
        learning_rate: adam.lr,
        beta1: adam.beta1,
        beta2: adam.beta2,
        eps: adam.eps,
        weight_decay: adam.weight_decay,
        ..OptimiserConfig::default()
    };
    let mut optimiser = Optimiser::new(device, optimiser, &stack)?;
    let labels = targets(case)?;
    let mut loss = CrossEntropy::new(device)?;
    let (mut losses, mut counts) = (Vec::new(), Vec::new());
    for step in 0..case.option("steps")? {
        stack.forward(device, &input, Pass::train(0))?;
        let scores = loss.forward(device, stack.output(), &labels)?;
        losses.push(scores.loss());
        for (i, layer) in stack.layers().take(hidden).enumerate() {
            let spikes = device.download_spikes(layer.spikes().context("a hidden layer has spikes")?)?;
            counts.push(spikes.events() as f64);
            if step == 0 {
                case.compare(&format!("spikes{i}"), &back(spikes.lanes(), spikes.to_dense()));
            }
        }
        stack.backward(device, &input, &loss.grad)?;
        if step == 0 {
            case.compare_result("logits", &host(device, &stack.output().values("golden")?.data)?);
            case.compare_result("loss", &[scores.loss()]);
            for (i, layer) in stack.layers().enumerate() {
                compare_layer_grads(device, case, "", &i.to_string(), sizes[i], sizes[i + 1], &layer.parameters())?;
            }
        }
        optimiser.update(device, &mut stack, adam.lr)?;
        if step == 0 {
            for (i, layer) in stack.layers().enumerate() {
                let parameters = layer.parameters();
                let value = |k: usize| host(device, &parameters[k].value.data);
                case.compare_result(&format!("adam1_weight{i}"), &weight_back(sizes[i], sizes[i + 1], value(0)?));
                case.compare_result(&format!("adam1_bias{i}"), &value(1)?);
                case.compare_result(&format!("adam1_beta_raw{i}"), &value(2)?);
            }
        }
    }
    case.compare_result("adam_losses", &losses);
    case.compare("spike_counts_per_step", &counts);
    Ok(())
}

fn conv_pool<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let neuron = Neuron::of(case)?;
    let (batch, steps): (usize, usize) = (case.option("B")?, case.option("T")?);
    let map = Map::new(case.option("H")?, case.option("W")?, case.option("C")?);
    let (kernel, channels): (usize, usize) = (case.option("kernel")?, case.option("O")?);
    let conv = Conv::new(map, channels, kernel, case.option("stride")?, case.option("padding")?)?;
    let out = conv.output();
    let lanes = Lanes::new(batch, steps, out.len());
    // Golden maps are `B, C, T, H, W`; ours are `B, T, H, W, C`.
    let to_ours = [0, 2, 3, 4, 1];
    let to_golden = [0, 4, 1, 2, 3];
    let in_lanes = lanes.with_width(map.len());
    let input = activity(device, in_lanes, &case.array("x")?.permuted(&to_ours).data)?;

    let mut projection = Convolution::new(device, conv, Init::default(), (0, 0))?;
    let [weight, bias]: [_; 2] =
        projection.parameters_mut().try_into().expect("a fresh projection has a weight and a bias");
    set(device, weight, &case.array("weight")?.permuted(&[2, 3, 1, 0]).data)?;
    set(device, bias, &case.array("bias")?.data)?;
    let mut cell = neuron.cell(decay_of(device, case, out.len())?);
    let beta = Array { shape: vec![channels, out.height, out.width], data: case.array("beta_raw")?.data.clone() };
    set(device, cell.parameters_mut()[0], &beta.permuted(&[1, 2, 0]).data)?;
    let signal = Signal { kind: Kind::Spikes, steps, map: out };
    let mut pool = PoolLayer::new(device, signal, case.option("pool")?)?;

    let (mut state, mut spikes) = (device.zeros(lanes.len())?, device.spikes());
    projection.forward(device, &input, lanes.rows(), Pass::train(0), &mut state)?;
    cell.forward(device, lanes, Pass::train(0), &mut state, &mut spikes)?;
    let spikes = Activity::Spikes(spikes);
    pool.forward(device, &spikes, Pass::train(0))?;

    let pooled = pool.output_signal().map;
    let mut grad_pooled = Tensor::zeros(device, &[batch, steps, pooled.len()])?;
    device.upload(&lift::<B>(&case.array("gout_pooled")?.permuted(&to_ours).data), &mut grad_pooled.data)?;
    let mut grad = Tensor::zeros(device, &[batch, steps, out.len()])?;
    pool.backward(device, &spikes, &mut grad_pooled, Some(&mut grad))?;
    let mut sums = device.zeros(batch * out.len())?;
    cell.backward(device, lanes, &state, &mut grad.data, None, &mut sums)?;
    let mut grad_x = Tensor::zeros(device, &[batch, steps, map.len()])?;
    projection.backward(device, &input, lanes.rows(), &grad.data, &sums, Some(&mut grad_x))?;

    let maps = |map: Map, data: Vec<f64>| {
        Array { shape: vec![batch, steps, map.height, map.width, map.channels], data }.permuted(&to_golden).data
    };
    let dense = |spikes: &B::Spikes| anyhow::Ok(device.download_spikes(spikes)?.to_dense::<f64>());
    case.compare("spikes", &maps(out, dense(spikes.spikes("golden")?)?));
    case.compare("pooled", &maps(pooled, dense(pool.output().spikes("golden")?)?));
    case.compare_result("grad_x", &maps(map, host(device, &grad_x.data)?));
    let [weight, bias]: [_; 2] =
        projection.parameters().try_into().expect("a fresh projection has a weight and a bias");
    let grad_weight =
        Array { shape: vec![kernel, kernel, map.channels, channels], data: host(device, &weight.grad.data)? };
    case.compare_result("grad_weight", &grad_weight.permuted(&[3, 2, 0, 1]).data);
    case.compare_result("grad_bias", &host(device, &bias.grad.data)?);
    let grad_beta =
        Array { shape: vec![out.height, out.width, channels], data: host(device, &cell.parameters()[0].grad.data)? };
    case.compare_result("grad_beta_raw", &grad_beta.permuted(&[2, 0, 1]).data);
    Ok(())
}
