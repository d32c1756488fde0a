//! Runners of the TTFS golden files.
//!
//! Golden files hold absolute times; layers work on earliness, `x = t_min - t` of inputs and `x = t_max - t` of outputs,
//! which is formed in double precision. A gradient on a time is minus the one on its earliness.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use snn_core::neurons::ttfs;
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Activity, Backend, Borders, Conv, Kind, Layer, Map, Pass, Signal, Tensor};
use snn_data::formats::keras;
use snn_train::config::{
    Init, LayerConfig, ModelConfig, NeuronConfig, NoOptions, OptimiserConfig, OptimiserKind, ReadoutConfig,
    ReadoutNeuron, ScheduleConfig, TtfsConfig,
};
use snn_train::interchange;
use snn_train::layers::{MaxPool, TtfsLayer};
use snn_train::losses::CrossEntropy;
use snn_train::mapping::{self, Network, Values};
use snn_train::optim::Optimiser;
use snn_train::sparsity::window_lengths;
use snn_train::stack::Stack;

use super::arrays::{host, lift, set};
use super::{Implementation, on_devices};

pub(super) const KINDS: &[&str] = &["dense", "readout", "conv2d", "maxpool", "train", "trajectory", "map", "keras_h5"];

pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    match kind {
        "dense" => on_devices!(dense),
        "readout" => on_devices!(readout),
        "conv2d" => on_devices!(conv2d),
        "maxpool" => on_devices!(maxpool),
        "train" => on_devices!(train),
        "trajectory" => on_devices!(trajectory),
        "map" => on_devices!(map),
        "keras_h5" => on_devices!(keras_h5),
        _ => Ok(None),
    }
}

/// `end - t` of every entry.
fn before(end: f64, times: &[f64]) -> Vec<f64> {
    times.iter().map(|t| end - t).collect()
}

fn negative(x: &[f64]) -> Vec<f64> {
    before(0.0, x)
}

/// A tensor `[B, N]` of an array whose first axis are samples.
fn rows<B: Backend>(device: &B, array: &Array, data: &[f64]) -> Result<Tensor<B>> {
    let batch = array.shape.first().copied().unwrap_or_default();
    Ok(Tensor { shape: vec![batch, data.len() / batch.max(1)], data: device.buffer_from(&lift::<B>(data))? })
}

/// The map of a sample.
fn map_of(array: &Array) -> Map {
    match array.shape[..] {
        [_, height, width, channels] => Map::new(height, width, channels),
        _ => Map::new(1, 1, array.shape[1..].iter().product()),
    }
}

/// The windows of a case of a single layer.
struct Windows {
    start: f64,
    end: f64,
}

impl Windows {
    fn of(case: &Case) -> Result<Self> {
        Ok(Self { start: case.option("t_min")?, end: case.option("t_max")? })
    }

    /// Neurons with this window, which does not grow.
    fn neuron(&self) -> TtfsConfig {
        TtfsConfig { range: self.end - self.start, margin: 0.0, growth: 0.0, ..TtfsConfig::default() }
    }
}

/// Of thresholds `[9, C]` those of the regions that a map has, or of one row the row itself.
fn regions(borders: &Borders, rows: &[f64]) -> Result<Vec<f64>> {
    if borders.regions() == 1 && borders.nine().is_none() {
        return Ok(rows.to_vec());
    }
    let channels = rows.len() / 9;
    let mut shift = vec![0.0; borders.regions() * channels];
    for (row, region) in nine(borders)?.into_iter().enumerate() {
        if let Some(region) = region {
            shift[region * channels..][..channels].copy_from_slice(&rows[row * channels..][..channels]);
        }
    }
    Ok(shift)
}

/// The inverse of [`regions`]; `absent` holds the thresholds of rows that the map has no region for.
fn nine_rows(borders: &Borders, shift: &[f64], absent: &[f64]) -> Result<Vec<f64>> {
    if borders.regions() == 1 && borders.nine().is_none() {
        return Ok(shift.to_vec());
    }
    let channels = shift.len() / borders.regions();
    let mut rows = absent.to_vec();
    for (row, region) in nine(borders)?.into_iter().enumerate() {
        if let Some(region) = region {
            rows[row * channels..][..channels].copy_from_slice(&shift[region * channels..][..channels]);
        }
    }
    Ok(rows)
}

fn nine(borders: &Borders) -> Result<[Option<usize>; 9]> {
    borders.nine().context("the regions are not those of the nine thresholds")
}

/// Runs a layer with a gradient on its times and compares everything.
fn one_layer<B: Backend>(device: &B, case: &Case, layer: &mut TtfsLayer<B>, weight: &str) -> Result<()> {
    let windows = Windows::of(case)?;
    let times = case.array("t_in")?;
    let shift = case.array("D")?;
    let borders = layer.borders().clone();
    let values = [case.array(weight)?.data.clone(), regions(&borders, &shift.data)?];
    for (parameter, data) in layer.parameters_mut().into_iter().zip(&values) {
        set(device, parameter, data)?;
    }
    let input = Activity::Times(rows(device, times, &before(windows.start, &times.data))?);
    layer.forward(device, &input, Pass::train(0))?;
    let earliness = host(device, &layer.output().numbers("golden")?.data)?;
    case.compare("x_out", &earliness);
    case.compare("t_out", &before(windows.end, &earliness));
    if case.find("fired").is_some() {
        case.compare("fired", &earliness.iter().map(|x| f64::from(u8::from(*x > 0.0))).collect::<Vec<_>>());
    }
    let upstream = case.array("grad_t_out")?;
    let mut grad = rows(device, upstream, &negative(&upstream.data))?;
    let mut on_input = rows(device, times, &vec![0.0; times.data.len()])?;
    layer.backward(device, &input, &mut grad, Some(&mut on_input))?;
    let parameters = layer.parameters();
    case.compare("grad_t_in", &negative(&host(device, &on_input.data)?));
    case.compare(&format!("grad_{weight}"), &host(device, &parameters[0].grad.data)?);
    let on_shift = host(device, &parameters[1].grad.data)?;
    case.compare("grad_D", &nine_rows(&borders, &on_shift, &vec![0.0; shift.data.len()])?);
    Ok(())
}

fn dense<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let weight = case.array("W")?;
    let bits: u32 = case.option("weight_bits")?;
    let (low, high): (f64, f64) = (case.option("w_min")?, case.option("w_max")?);
    let neuron = TtfsConfig { weight_bits: bits, weight_low: low, weight_high: high, ..Windows::of(case)?.neuron() };
    let input = Signal::flat(Kind::Times, 1, weight.shape[0]);
    let mut layer = TtfsLayer::dense(device, input, weight.shape[1], &neuron, Init::default(), (0, 0))?;
    one_layer(device, case, &mut layer, "W")?;
    if bits > 0 {
        let grid = ttfs::Grid::new(bits, low, high)?;
        let mut quantised = device.zeros(weight.data.len())?;
        device.quantise(&grid, &device.buffer_from(&lift::<B>(&weight.data))?, &mut quantised)?;
        case.compare("W_quantised", &host(device, &quantised)?);
    }
    Ok(())
}

/// The convolution of a golden kernel `[kh, kw, i, o]` over a map.
fn convolution(map: Map, kernel: &Array, padding: &str) -> Result<Conv> {
    let [rows, columns, _, channels] = kernel.shape[..] else { bail!("a kernel has axes {:?}", kernel.shape) };
    let zeros = match padding {
        "same" => [rows / 2, columns / 2],
        "valid" => [0, 0],
        other => bail!("unknown padding `{other}`"),
    };
    Ok(Conv::rectangle(map, channels, [rows, columns], 1, zeros)?)
}

fn conv2d<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let map = map_of(case.array("t_in")?);
    let conv = convolution(map, case.array("kernel")?, &case.option::<String>("padding")?)?;
    let neuron = TtfsConfig { borders: case.option("nine")?, ..Windows::of(case)?.neuron() };
    let input = Signal { kind: Kind::Times, steps: 1, map };
    let mut layer = TtfsLayer::convolution(device, input, conv, &neuron, Init::default(), (0, 0))?;
    one_layer(device, case, &mut layer, "kernel")
}

fn maxpool<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let times = case.array("t_in")?;
    let end: f64 = case.option("t_max")?;
    let window: usize = case.option("pool")?;
    let signal = Signal { kind: Kind::Times, steps: 1, map: map_of(times) };
    let input = Activity::Times(rows(device, times, &before(end, &times.data))?);
    for variant in case.option::<Vec<String>>("variants")? {
        let mut layer = MaxPool::new(device, signal, [window; 2], true)?;
        let sign = &case.array(&format!("sign_{variant}"))?.data;
        layer.parameters_mut().into_iter().try_for_each(|p| set(device, p, sign))?;
        layer.forward(device, &input, Pass::train(0))?;
        let earliness = host(device, &layer.output().numbers("golden")?.data)?;
        case.compare(&format!("t_out_{variant}"), &before(end, &earliness));
        let upstream = case.array(&format!("grad_out_{variant}"))?;
        let mut grad = rows(device, upstream, &upstream.data)?;
        let mut on_input = rows(device, times, &vec![0.0; times.data.len()])?;
        layer.backward(device, &input, &mut grad, Some(&mut on_input))?;
        case.compare(&format!("grad_t_in_{variant}"), &host(device, &on_input.data)?);
    }
    Ok(())
}

fn labels(onehot: &Array) -> Vec<u32> {
    let classes = onehot.shape.last().copied().unwrap_or(1);
    onehot.data.chunks(classes).map(|row| row.iter().position(|&y| y == 1.0).unwrap_or_default() as u32).collect()
}

/// A readout of the membrane.
fn membrane() -> ReadoutConfig {
    ReadoutConfig { neuron: ReadoutNeuron::None(NoOptions {}), ..ReadoutConfig::default() }
}

fn readout<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (times, weight) = (case.array("t_in")?, case.array("W")?);
    let x = before(case.option("t_min")?, &times.data);
    let input = Signal::flat(Kind::Times, 1, weight.shape[0]);
    let model = ModelConfig { layers: vec![], readout: membrane(), ..ModelConfig::default() };
    let mut stack = Stack::build(device, &model, input, weight.shape[1], 0)?;
    for (parameter, name) in stack.parameters_mut().zip(["W", "D"]) {
        set(device, parameter, &case.array(name)?.data)?;
    }
    let input = Activity::Times(rows(device, times, &x)?);
    stack.forward(device, &input, Pass::train(0))?;
    let mut loss = CrossEntropy::new(device)?;
    let scores = loss.forward(device, stack.output(), &labels(case.array("y_onehot")?))?;
    case.compare("logits", &host(device, &stack.output().values("golden")?.data)?);
    case.compare("loss", &[scores.loss()]);
    stack.backward(device, &input, &loss.grad)?;
    for ((_, parameter), name) in stack.parameters().zip(["grad_W", "grad_D"]) {
        case.compare(name, &host(device, &parameter.grad.data)?);
    }
    // The stack's only layer leaves its input alone; the gradient on it is the product that any layer gives.
    let mut on_input = device.zeros(x.len())?;
    let (batch, inputs) = (times.shape[0], weight.shape[0]);
    let product = snn_core::backend::Gemm::new(batch, inputs, weight.shape[1]).b_transposed();
    let weights = device.buffer_from(&lift::<B>(&weight.data))?;
    device.gemm(product, &loss.grad.data, &weights, &mut on_input)?;
    case.compare("grad_t_in", &negative(&host(device, &on_input)?));
    Ok(())
}

/// A layer of a golden network.
#[derive(Debug, Clone, Deserialize)]
struct GoldenLayer {
    op: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    padding: String,
    #[serde(default)]
    nine: bool,
    #[serde(default = "two")]
    size: usize,
    #[serde(default)]
    bn: Option<String>,
}

const fn two() -> usize {
    2
}

impl GoldenLayer {
    fn has_weights(&self) -> bool {
        matches!(&self.op[..], "conv2d" | "dense" | "readout")
    }
}

/// How windows follow from activations.
#[derive(Debug, Deserialize)]
struct WindowRule {
    margin: f64,
    #[serde(default)]
    growth: f64,
    #[serde(rename = "readout_X_n")]
    readout: f64,
    #[serde(default)]
    readout_t_max_after_step: f64,
}

/// A model of the golden layers; `neuron` gives the neurons of the n-th hidden layer.
fn model(
    layers: &[GoldenLayer],
    weight: impl Fn(&str) -> Result<Array>,
    neuron: impl Fn(usize, &GoldenLayer) -> NeuronConfig,
    eps: Option<f64>,
) -> Result<ModelConfig> {
    let mut configs = Vec::new();
    let mut hidden = 0;
    for layer in layers {
        match &layer.op[..] {
            "conv2d" => {
                let shape = weight(&layer.name)?.shape;
                let zeros = if layer.padding == "same" { shape[0] / 2 } else { 0 };
                configs.push(LayerConfig::Conv {
                    channels: shape[3],
                    kernel: shape[0],
                    kernel_width: None,
                    stride: 1,
                    padding: zeros,
                    padding_width: None,
                    neuron: neuron(hidden, layer),
                    init: Init::default(),
                    bias: true,
                    norm: None,
                });
                hidden += 1;
            }
            "dense" => {
                configs.push(LayerConfig::Dense {
                    width: weight(&layer.name)?.shape[1],
                    neuron: neuron(hidden, layer),
                    init: Init::default(),
                    skip: false,
                    bias: true,
                    norm: None,
                    delays: None,
                    field: 1,
                });
                hidden += 1;
            }
            "pool" => configs.push(LayerConfig::Pool { window: layer.size, window_width: None, signed: false }),
            "flatten" | "readout" => {}
            other => bail!("unknown op `{other}`"),
        }
        if let (Some(_), Some(eps)) = (&layer.bn, eps) {
            configs.push(LayerConfig::Norm { momentum: 0.01, eps });
        }
    }
    Ok(ModelConfig { layers: configs, readout: membrane(), ..ModelConfig::default() })
}

/// A layer's name with its weights and shifts, or their gradients.
type Named = (String, Vec<f64>, Vec<f64>);

/// A network that is trained step by step, with what the golden files call its layers.
struct Trained<B: Backend> {
    stack: Stack<B>,
    names: Vec<String>,
    // The layer of the stack, and its regions, by name.
    at: Vec<(usize, Borders)>,
}

impl<B: Backend> Trained<B> {
    fn new(
        device: &B,
        case: &Case,
        model: &ModelConfig,
        input: Signal,
        classes: usize,
        (weights, shifts): (&str, &str),
    ) -> Result<Self> {
        let layers: Vec<GoldenLayer> = case.option("layers")?;
        let names: Vec<String> = layers.into_iter().filter(GoldenLayer::has_weights).map(|l| l.name).collect();
        let mut stack = Stack::build(device, model, input, classes, 0)?;
        let at: Vec<(usize, Borders)> = stack
            .layers()
            .enumerate()
            .filter(|(_, layer)| layer.parameters().iter().any(|p| p.name == "weight"))
            .map(|(i, layer)| (i, borders(model, i, layer.input())))
            .collect();
        for (name, (i, borders)) in names.iter().zip(&at) {
            let weight = case.array(&format!("step0_{name}_{weights}"))?.data.clone();
            let shift = case.array(&format!("step0_{name}_{shifts}"))?;
            let shift = regions(borders, &shift.data)?;
            set_layer(device, &mut stack, *i, &[("weight", &weight), ("shift", &shift), ("bias", &shift)])?;
        }
        Ok(Self { stack, names, at })
    }

    /// Weights and shifts of every layer, or their gradients.
    fn each(&self, device: &B, gradient: bool) -> Result<Vec<Named>> {
        let all: Vec<_> = self.stack.parameters().collect();
        let of = |i: usize, wanted: &[&str]| {
            let p = all.iter().find(|(layer, p)| *layer == i && wanted.contains(&p.name)).context("a parameter")?.1;
            host(device, if gradient { &p.grad.data } else { &p.value.data })
        };
        let layer = |(name, (i, borders)): (&String, &(usize, Borders))| {
            let shift = of(*i, &["shift", "bias"])?;
            let absent = vec![0.0; shift.len() / borders.regions() * 9];
            Ok((name.clone(), of(*i, &["weight"])?, nine_rows(borders, &shift, &absent)?))
        };
        self.names.iter().zip(&self.at).map(layer).collect()
    }
}

/// Sets those of a layer's parameters that it has.
fn set_layer<B: Backend>(device: &B, stack: &mut Stack<B>, layer: usize, values: &[(&str, &[f64])]) -> Result<()> {
    let owners: Vec<usize> = stack.parameters().map(|(i, _)| i).collect();
    for (owner, parameter) in owners.into_iter().zip(stack.parameters_mut()) {
        if let Some((_, data)) = values.iter().find(|(name, _)| owner == layer && *name == parameter.name) {
            set(device, parameter, data)?;
        }
    }
    Ok(())
}

/// The regions of a layer of a model.
fn borders(model: &ModelConfig, layer: usize, input: Signal) -> Borders {
    match model.layers.get(layer) {
        Some(LayerConfig::Conv { channels, kernel, padding, neuron: NeuronConfig::Ttfs(c), .. }) if c.borders => {
            Conv::new(input.map, *channels, *kernel, 1, *padding).map_or(Borders::none(1), |conv| Borders::of(&conv))
        }
        _ => Borders::none(1),
    }
}

/// Optimiser and schedule of a case.
fn optimiser(case: &Case) -> Result<(OptimiserConfig, ScheduleConfig)> {
    #[derive(Deserialize)]
    struct Options {
        name: String,
        lr: f64,
        #[serde(default)]
        decay_rate: f64,
        #[serde(default)]
        decay_steps: f64,
        #[serde(default)]
        beta1: f64,
        #[serde(default)]
        beta2: f64,
        #[serde(default)]
        eps: f64,
        #[serde(default)]
        momentum: f64,
        #[serde(default)]
        nesterov: bool,
    }
    let options: Options = case.option("optimizer")?;
    let l2: f64 = case.option("l2")?;
    let plain = OptimiserConfig { learning_rate: options.lr, weight_decay: 2.0 * l2, ..OptimiserConfig::default() };
    Ok(match &options.name[..] {
        "adam" => (
            OptimiserConfig {
                kind: OptimiserKind::KerasAdam,
                beta1: options.beta1,
                beta2: options.beta2,
                eps: options.eps,
                ..plain
            },
            ScheduleConfig::Decay { factor: options.decay_rate, steps: options.decay_steps },
        ),
        "sgd" => (
            OptimiserConfig {
                kind: OptimiserKind::Sgd,
                momentum: options.momentum,
                nesterov: options.nesterov,
                ..plain
            },
            ScheduleConfig::Constant,
        ),
        other => bail!("unknown optimizer `{other}`"),
    })
}

/// The spiking neurons of hidden layer `n`.
fn spiking(ranges: &[f64], rule: &WindowRule) -> impl Fn(usize, &GoldenLayer) -> NeuronConfig {
    move |n, layer| {
        NeuronConfig::Ttfs(TtfsConfig {
            range: ranges[n],
            margin: rule.margin,
            growth: rule.growth,
            borders: layer.nine,
            ..TtfsConfig::default()
        })
    }
}

/// The windows of all layers as `[L, 3]`; `readout` is the last column of the last row.
fn ranges<B: Backend>(device: &B, stack: &Stack<B>, readout: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
    let lengths = window_lengths(device, stack)?;
    let mut windows = ttfs::windows(&[&lengths[..], &[0.0]].concat());
    if let Some([_, start, end]) = windows.last_mut() {
        *end = readout(*start);
    }
    Ok(windows.concat())
}

fn train<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let layers: Vec<GoldenLayer> = case.option("layers")?;
    let (peaks, rule): (Vec<f64>, WindowRule) = (case.option("X_n")?, case.option("window")?);
    let weight = |name: &str| case.array(&format!("step0_{name}_W")).cloned().map_err(Into::into);
    let config = model(&layers, weight, spiking(&peaks, &rule), None)?;
    let (times, onehot) = (case.array("x_times")?, case.array("y_onehot")?);
    let input = Signal { kind: Kind::Values, steps: 1, map: map_of(times) };
    let classes = onehot.shape[1];
    let mut net = Trained::new(device, case, &config, input, classes, ("W", "D"))?;
    let at_start = |start: f64| start + (1.0 + rule.margin) * rule.readout;
    case.compare("step0_ranges", &ranges(device, &net.stack, at_start)?);

    let (config, schedule) = optimiser(case)?;
    let l2: f64 = case.option("l2")?;
    let mut optimiser = Optimiser::new(device, config, &net.stack)?;
    let mut loss = CrossEntropy::new(device)?;
    let (batch, cycle): (usize, usize) = (case.option("batch")?, case.option("row_cycle")?);
    let (x, labels) = (before(1.0, &times.data), labels(onehot));
    let width = x.len() / labels.len();
    for step in 0..case.option("steps")? {
        let name = |what: &str| format!("step{}_{what}", step + 1);
        let first = step % cycle * batch;
        let data = device.buffer_from(&lift::<B>(&x[first * width..][..batch * width]))?;
        let input = Activity::Values(Tensor { shape: vec![batch, width], data });
        let windows = ttfs::windows(&window_lengths(device, &net.stack)?);
        net.stack.forward(device, &input, Pass::train(0))?;
        let scores = loss.forward(device, net.stack.output(), &labels[first..][..batch])?;
        case.compare(&name("logits"), &host(device, &net.stack.output().values("golden")?.data)?);
        case.compare(&name("ce_loss"), &[scores.loss()]);
        let before_update = net.each(device, false)?;
        let squares: f64 = before_update.iter().flat_map(|(_, weight, _)| weight).map(|w| w * w).sum();
        case.compare(&name("loss"), &[scores.loss() + l2 * squares]);
        let mut earliest = Vec::new();
        for (first, window) in net.stack.layers().filter_map(Layer::first_spikes).zip(&windows) {
            let peak = host(device, &first.census.peaks)?.into_iter().fold(0.0, f64::max);
            earliest.push(window[2] - peak);
        }
        case.compare(&name("min_ti"), &earliest);
        net.stack.backward(device, &input, &loss.grad)?;
        for ((layer, weight, shift), (_, value, _)) in net.each(device, true)?.into_iter().zip(&before_update) {
            // The penalty on weights is the optimiser's business here.
            let weight: Vec<f64> = weight.iter().zip(value).map(|(g, w)| g + 2.0 * l2 * w).collect();
            case.compare(&name(&format!("grad_{layer}_W")), &weight);
            case.compare(&name(&format!("grad_{layer}_D")), &shift);
        }
        let factor = schedule.factor_at(optimiser.step());
        optimiser.update(device, &mut net.stack, config.learning_rate * factor)?;
        for (layer, weight, shift) in net.each(device, false)? {
            case.compare(&name(&format!("{layer}_W")), &weight);
            case.compare(&name(&format!("{layer}_D")), &shift);
        }
        case.compare(&name("ranges"), &ranges(device, &net.stack, |_| rule.readout_t_max_after_step)?);
    }
    let data = device.buffer_from(&lift::<B>(&x))?;
    let all = Activity::Values(Tensor { shape: vec![labels.len(), width], data });
    net.stack.forward(device, &all, Pass::evaluate(0))?;
    case.compare("eval_logits_after", &host(device, &net.stack.output().values("golden")?.data)?);
    Ok(())
}

fn trajectory<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let layers: Vec<GoldenLayer> = case.option("layers")?;
    let (peaks, rule): (Vec<f64>, WindowRule) = (case.option("X_n")?, case.option("window")?);
    let steps: usize = case.option("steps")?;
    let (x, onehot) = (case.array("relu_inputs")?, case.array("y_onehot")?);
    let (batch, cycle): (usize, usize) = (case.option("batch")?, case.option("row_cycle")?);
    let (labels, width) = (labels(onehot), map_of(x).len());
    for (which, shifts) in [("relu", "b"), ("snn", "D")] {
        let weight = |name: &str| case.array(&format!("step0_{name}_W")).cloned().map_err(Into::into);
        let spikes = spiking(&peaks, &rule);
        let neuron = |n: usize, layer: &GoldenLayer| match which {
            "relu" => NeuronConfig::Relu(NoOptions {}),
            _ => spikes(n, layer),
        };
        let config = model(&layers, weight, neuron, None)?;
        let input = Signal { kind: Kind::Values, steps: 1, map: map_of(x) };
        let mut net = Trained::new(device, case, &config, input, onehot.shape[1], ("W", "b"))?;
        let (config, schedule) = optimiser(case)?;
        let mut optimiser = Optimiser::new(device, config, &net.stack)?;
        let mut loss = CrossEntropy::new(device)?;
        for step in 0..steps {
            let first = step % cycle * batch;
            let data = device.buffer_from(&lift::<B>(&x.data[first * width..][..batch * width]))?;
            let input = Activity::Values(Tensor { shape: vec![batch, width], data });
            net.stack.forward(device, &input, Pass::train(0))?;
            loss.forward(device, net.stack.output(), &labels[first..][..batch])?;
            net.stack.backward(device, &input, &loss.grad)?;
            let factor = schedule.factor_at(optimiser.step());
            optimiser.update(device, &mut net.stack, config.learning_rate * factor)?;
        }
        for (layer, weight, shift) in net.each(device, false)? {
            case.compare(&format!("step{steps}_{which}_{layer}_W"), &weight);
            case.compare(&format!("step{steps}_{which}_{layer}_{shifts}"), &shift);
        }
    }
    Ok(())
}

/// The rectifier network of a case, its parameters as `value` gives them by layer and what they are.
fn rectifiers(
    case: &Case,
    layers: &[GoldenLayer],
    input: Map,
    value: impl Fn(&str, &str) -> Result<Array>,
) -> Result<Network> {
    let eps: f64 = case.option("bn_eps")?;
    let relu = |_: usize, _: &GoldenLayer| NeuronConfig::Relu(NoOptions {});
    let model = model(layers, |name| value(name, "W"), relu, Some(eps))?;
    let (mut at, mut values) = (0, Vec::new());
    for layer in layers.iter().filter(|l| l.op != "flatten") {
        let mut add = |layer: usize, name: &str, array: Array| {
            values.push(Values { layer, name: name.into(), shape: array.shape, data: array.data });
        };
        if layer.has_weights() {
            add(at, "weight", value(&layer.name, "W")?);
            add(at, "bias", value(&layer.name, "b")?);
        }
        at += 1;
        if let Some(norm) = &layer.bn {
            for (name, golden) in
                [("norm_gain", "gamma"), ("norm_offset", "beta"), ("norm_mean", "mean"), ("norm_variance", "var")]
            {
                add(at, name, value(norm, golden)?);
            }
            at += 1;
        }
    }
    Ok(Network { model, input: Signal { kind: Kind::Values, steps: 1, map: input }, values })
}

/// A mapped network and what it did.
struct Mapped {
    network: Network,
    peaks: Vec<f64>,
    fired: Vec<f64>,
    neurons: Vec<f64>,
    earliness: Vec<Vec<f64>>,
    logits: Vec<f64>,
    ranges: Vec<f64>,
}

/// Maps a network, estimates its windows on `fit` and runs it on `test`, both in `[low, high]`.
fn map_and_run<B: Backend>(device: &B, case: &Case, relu: &Network, fit: &Array, test: &Array) -> Result<Mapped> {
    let (low, high): (f64, f64) = (case.option("p")?, case.option("q")?);
    let rule: WindowRule = case.option("window")?;
    let neuron = TtfsConfig { margin: rule.margin, growth: 0.0, ..TtfsConfig::default() };
    let mut network = mapping::to_spikes(relu, (low, high), &neuron)?;
    let scaled = |x: &Array| {
        let x01: Vec<f64> = x.data.iter().map(|v| (v - low) / (high - low)).collect();
        Ok::<_, anyhow::Error>(Activity::Values(rows(device, x, &x01)?))
    };
    let mut stack = network.build(device)?;
    stack.forward(device, &scaled(fit)?, Pass::evaluate(0))?;
    let mut peaks = Vec::new();
    for first in stack.layers().filter_map(Layer::first_spikes) {
        peaks.push(host(device, &first.census.peaks)?.into_iter().fold(0.0, f64::max));
    }
    network.set_ranges(&peaks);
    let mut stack = network.build(device)?;
    stack.forward(device, &scaled(test)?, Pass::evaluate(0))?;
    let (mut fired, mut neurons, mut earliness) = (vec![], vec![], vec![]);
    for layer in stack.layers() {
        let Some(first) = layer.first_spikes() else { continue };
        fired.push(device.to_host(&first.census.fired)?.into_iter().map(f64::from).sum());
        neurons.push(layer.output_signal().width() as f64);
        earliness.push(host(device, first.earliness)?);
    }
    let ranges = ranges(device, &stack, |start| start + (1.0 + rule.margin) * rule.readout)?;
    let logits = host(device, &stack.output().values("golden")?.data)?;
    Ok(Mapped { network, peaks, fired, neurons, earliness, logits, ranges })
}

/// The outputs of a network of rectifiers.
fn relu_logits<B: Backend>(device: &B, relu: &Network, test: &Array) -> Result<Vec<f64>> {
    let mut stack = relu.build(device)?;
    stack.forward(device, &Activity::Values(rows(device, test, &test.data)?), Pass::evaluate(0))?;
    host(device, &stack.output().values("golden")?.data)
}

/// Compares the parameters of a mapped network with arrays of names that begin with `prefix`, those that there are.
fn compare_mapped(case: &Case, layers: &[GoldenLayer], network: &Network, prefix: &str) -> Result<()> {
    let mut map = network.input.map;
    for (at, layer) in layers.iter().filter(|l| l.op != "flatten").enumerate() {
        let find = |name: &str| network.values.iter().find(|v| v.layer == at && v.name == name).map(|v| &v.data);
        let of = |what: &str| format!("{prefix}{}_{what}", layer.name);
        if let (Some(_), Some(weight)) = (case.find(&of("W")), find("weight")) {
            case.compare(&of("W"), weight);
        }
        match network.model.layers.get(at) {
            Some(LayerConfig::Conv { channels, kernel, padding, neuron: NeuronConfig::Ttfs(c), .. }) => {
                let conv = Conv::new(map, *channels, *kernel, 1, *padding)?;
                map = conv.output();
                if let (Some(want), Some(shift)) = (case.find(&of("D")), find("shift")) {
                    let borders = if c.borders { Borders::of(&conv) } else { Borders::none(1) };
                    // Thresholds of regions that the map does not have mean nothing and do not exist here.
                    case.compare(&of("D"), &nine_rows(&borders, shift, &want.data)?);
                }
            }
            Some(LayerConfig::Pool { window, .. }) => {
                map = Map::new(map.height / window, map.width / window, map.channels);
                let name = if prefix == "snn_" { of("sign") } else { format!("{}_sign", layer.name) };
                if let Some(want) = case.find(&name) {
                    case.compare(&name, find("sign").unwrap_or(&vec![1.0; want.data.len()]));
                }
            }
            _ => {
                if let (Some(_), Some(shift)) = (case.find(&of("D")), find("shift").or(find("bias"))) {
                    case.compare(&of("D"), shift);
                }
            }
        }
    }
    Ok(())
}

fn map<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let layers: Vec<GoldenLayer> = case.option("layers")?;
    let (fit, test) = (case.array("x_fit")?, case.array("x_test")?);
    let value = |layer: &str, what: &str| case.array(&format!("relu_{layer}_{what}")).cloned().map_err(Into::into);
    let relu = rectifiers(case, &layers, map_of(test), value)?;
    case.compare("relu_logits", &relu_logits(device, &relu, test)?);
    let mapped = map_and_run(device, case, &relu, fit, test)?;
    case.compare("X_n", &mapped.peaks);
    case.compare("ranges", &mapped.ranges);
    case.compare("snn_logits", &mapped.logits);
    if case.find("fused_relu_logits").is_some() {
        // The fused network of rectifiers is the spiking one without its windows: the twin where there is one.
        let fused = match mapping::to_rectifiers(&mapped.network) {
            Ok(twin) => {
                let (low, high): (f64, f64) = (case.option("p")?, case.option("q")?);
                let x01 = test.data.iter().map(|v| (v - low) / (high - low)).collect();
                relu_logits(device, &twin, &Array { shape: test.shape.clone(), data: x01 })?
            }
            Err(_) => mapped.logits.clone(),
        };
        case.compare("fused_relu_logits", &fused);
    }
    if case.find("input_times_test").is_some() {
        let (low, high): (f64, f64) = (case.option("p")?, case.option("q")?);
        let times: Vec<f64> = test.data.iter().map(|v| 1.0 - (v - low) / (high - low)).collect();
        case.compare("input_times_test", &times);
    }
    if case.find("spikes_per_layer").is_some() {
        case.compare("spikes_per_layer", &mapped.fired);
        case.compare("neurons_per_layer", &mapped.neurons);
    }
    for ((layer, earliness), window) in
        layers.iter().filter(|l| l.has_weights()).zip(&mapped.earliness).zip(mapped.ranges.chunks(3))
    {
        let name = format!("times_{}", layer.name);
        if case.find(&name).is_some() {
            case.compare(&name, &before(window[2], earliness));
        }
    }
    compare_mapped(case, &layers, &mapped.network, "snn_")
}

fn keras_h5<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let file = keras::read(&case.path)?;
    let layers: Vec<GoldenLayer> = case.option("layers")?;
    // Arrays come in the order of the layout: kernel, bias; gamma, beta, moving mean, moving variance.
    let value = |layer: &str, what: &str| {
        let at = ["W", "b"].iter().position(|w| *w == what);
        let at = at.or(["gamma", "beta", "mean", "var"].iter().position(|w| *w == what)).context("an array")?;
        let array = file.layer(layer).and_then(|l| l.weights.get(at)).with_context(|| format!("{layer}: {what}"))?;
        Ok(Array { shape: array.shape.clone(), data: array.values.clone() })
    };
    let images = case.array("images_u8")?;
    let relu = rectifiers(case, &layers, map_of(images), value)?;
    let (mean, std, eps): (f64, f64, f64) = (case.option("mean")?, case.option("std")?, case.option("std_eps")?);
    let standard = |x: &Array| {
        let data = x.data.iter().map(|v| (v - mean) / (std + eps)).collect();
        Array { shape: x.shape.clone(), data }
    };
    let (fit, test) = (standard(case.array("fit_images_u8")?), standard(images));
    case.compare("relu_logits", &relu_logits(device, &relu, &test)?);
    // The assignment by names must find what the list of layers says.
    let mut assigned = Stack::build(device, &relu.model, relu.input, relu.classes(), 1)?;
    interchange::keras::import(device, &mut assigned, &file, false)?;
    if Network::of(device, &relu.model, &assigned)? != Network::of(device, &relu.model, &relu.build(device)?)? {
        case.fail("weights assigned by layer names differ from those of the case's list".into());
    }
    let mapped = map_and_run(device, case, &relu, &fit, &test)?;
    case.compare("X_n", &mapped.peaks);
    case.compare("ranges", &mapped.ranges);
    case.compare("snn_logits", &mapped.logits);
    case.compare("spikes_per_layer", &mapped.fired);
    case.compare("neurons_per_layer", &mapped.neurons);
    compare_mapped(case, &layers, &mapped.network, "fused_")
}
