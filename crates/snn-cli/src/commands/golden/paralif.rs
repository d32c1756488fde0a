//! Runners of the paralif system.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use snn_core::backend::{FilterGrad, Fire, Noise};
use snn_core::neurons::paralif::{FiringMode, Generator, gumbel as soft_spike};
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Parameter, Pass, Real, Signal, Surrogate, Tensor};
use snn_train::Stack;
use snn_train::config::{
    BernoulliConfig, CubaConfig, FilterConfig, Init, NoOptions, OptimiserConfig, OptimiserKind, ParaLifConfig,
    PerNeuron, RateConfig, ReadoutConfig, ReadoutNeuron, RecurrentConfig, Reduce, SurrogateConfig,
};
use snn_train::layers::cuba::CubaCell;
use snn_train::layers::dense::Dense;
use snn_train::layers::paralif::{GivenNoise, ParaLifCell};
use snn_train::layers::{Cell, Clocked, Projection, Readout, ReluLayer};
use snn_train::losses::{CrossEntropy, argmax};
use snn_train::optim::Optimiser;
use snn_train::trainer::RatePenalty;

use super::arrays::{activity, dense_weight, host, lift, set, upload, weight_back};
use super::{Implementation, host_only, on_devices, transforms};

/// The kinds of the system that the project's own copy has; `trained` needs published weights, which it has not.
pub(super) const KINDS: &[&str] =
    &["lif_layer", "paralif_layer", "gumbel", "network", "augment", "binning", "yinyang", "bio_features"];

/// Everything that implements a kind, or nothing for a kind of another system.
pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    match kind {
        "lif_layer" => on_devices!(layer),
        "paralif_layer" => on_devices!(layer),
        "gumbel" => on_devices!(gumbel),
        "network" => on_devices!(network),
        "trained" => on_devices!(trained),
        "bio_features" => on_devices!(biology),
        "augment" => host_only("snn-data f32", transforms::affine),
        "binning" => host_only("snn-data f32", transforms::binning),
        "yinyang" => host_only("snn-data f32", transforms::yinyang_rates),
        _ => Ok(None),
    }
}

/// A number, the word `array`, or nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Given {
    Number(f64),
    Word(String),
}

#[derive(Debug, Clone, Default, Deserialize)]
struct SurrogateOption {
    #[serde(default)]
    prefix: String,
    name: Option<String>,
    scale: Option<f64>,
}

impl SurrogateOption {
    fn config(&self) -> Result<SurrogateConfig> {
        Ok(match (self.name.as_deref(), self.scale) {
            (Some("fastsig"), Some(scale)) => SurrogateConfig::FastSigmoid { scale },
            (Some("atan"), Some(alpha)) => SurrogateConfig::Arctan { alpha },
            // Modes without a comparison.
            (None, _) => SurrogateConfig::FastSigmoid { scale: 100.0 },
            (name, scale) => bail!("unknown surrogate {name:?} {scale:?}"),
        })
    }
}

fn recurrent(name: Option<&str>) -> Result<RecurrentConfig> {
    Ok(match name {
        None | Some("none") => RecurrentConfig::None,
        Some("spike") => RecurrentConfig::Spike,
        Some("relu") => RecurrentConfig::Relu,
        Some(other) => bail!("unknown recurrence `{other}`"),
    })
}

/// A time constant in steps: a number of seconds or an array of them.
fn steps_of(case: &Case, given: &Given, array: &str, dt: f64) -> Result<PerNeuron> {
    Ok(match given {
        Given::Number(seconds) => PerNeuron::Shared(seconds / dt),
        Given::Word(_) => PerNeuron::Each(case.array(array)?.data.iter().map(|tau| tau / dt).collect()),
    })
}

fn filter(case: &Case, learn_tau: bool) -> Result<FilterConfig> {
    let dt: f64 = case.option("dt")?;
    let (syn, mem): (Option<Given>, Given) = (case.option("tau_syn")?, case.option("tau_mem")?);
    Ok(FilterConfig {
        tau_mem: steps_of(case, &mem, "in/tau_mem", dt)?,
        tau_syn: syn.map(|syn| steps_of(case, &syn, "in/tau_syn", dt)).transpose()?,
        learn_tau,
        ..FilterConfig::default()
    })
}

/// Logistics of pairs of uniforms, or uniforms as they are.
fn noise(array: &Array, lanes: Lanes) -> Vec<f64> {
    if array.data.len() == lanes.len() {
        return array.data.clone();
    }
    let gumbel = |u: f64| -(-u.ln()).ln();
    array.data.chunks(2).map(|pair| gumbel(pair[0]) - gumbel(pair[1])).collect()
}

/// A cell of either family.
enum Neurons<B: Backend> {
    Cuba(CubaCell<B>),
    Parallel(ParaLifCell<B>),
}

impl<B: Backend> Neurons<B> {
    fn cell(&mut self) -> &mut dyn Cell<B> {
        match self {
            Self::Cuba(cell) => cell,
            Self::Parallel(cell) => cell,
        }
    }

    fn boxed(self) -> Box<dyn Cell<B>> {
        match self {
            Self::Cuba(cell) => Box::new(cell),
            Self::Parallel(cell) => Box::new(cell),
        }
    }
}

/// The neurons of a layer case.
fn neurons<B: Backend>(
    device: &B,
    case: &Case,
    lanes: Lanes,
    surrogate: SurrogateConfig,
    pad_normalised: bool,
) -> Result<Neurons<B>> {
    let (fires, learn_tau): (bool, bool) = (case.option("fire")?, case.option("learn_tau")?);
    let filter = filter(case, learn_tau)?;
    let threshold = match case.option::<Option<Given>>("threshold")? {
        None => None,
        Some(Given::Number(x)) => Some(PerNeuron::Shared(x)),
        Some(Given::Word(_)) => Some(PerNeuron::Each(case.array("in/threshold")?.data.clone())),
    };
    let learn_threshold = threshold.is_some();
    let recurrent = recurrent(case.option::<Option<String>>("recurrent")?.as_deref())?;
    let dt: f64 = case.option("dt")?;
    let mut built = if case.entry.kind == "lif_layer" {
        let config = CubaConfig {
            filter,
            threshold: threshold.unwrap_or(PerNeuron::Shared(1.0)),
            learn_threshold,
            surrogate,
            recurrent,
            refractory: (case.option::<f64>("refractory")? / dt).round() as u32,
        };
        let cell = CubaCell::new(device, &config, lanes.width, (0, 0))?;
        Neurons::Cuba(if fires { cell } else { cell.without_firing() })
    } else {
        let mode: Option<String> = case.option("mode")?;
        let identity = case.option::<Option<String>>("sb_gradient")?.as_deref() == Some("identity");
        let config = ParaLifConfig {
            mode: mode.unwrap_or_else(|| "T".into()),
            filter,
            threshold,
            learn_threshold,
            surrogate,
            recurrent,
            bernoulli_gradient: if identity { BernoulliConfig::Identity } else { BernoulliConfig::ProbabilityWeighted },
            temperature: case.option::<Option<f64>>("gs_temperature")?.unwrap_or(1.0),
            pad_normalised,
            ..ParaLifConfig::default()
        };
        let mut cell = ParaLifCell::new(device, &config, lanes.width, (0, 0))?;
        if let Some(out) = case.find("in/u").or_else(|| case.find("in/u_out")) {
            let hidden = case.find("in/u_hidden").map(|u| device.buffer_from(&lift::<B>(&noise(u, lanes))));
            let out = device.buffer_from(&lift::<B>(&noise(out, lanes)))?;
            cell.give_noise(GivenNoise { out, hidden: hidden.transpose()? });
        }
        Neurons::Parallel(if fires { cell } else { cell.without_firing() })
    };
    for parameter in built.cell().parameters_mut() {
        let (array, transposed) = match parameter.name {
            "alpha" if learn_tau => ("in/alpha_raw", false),
            "beta" if learn_tau => ("in/beta_raw", false),
            "recurrent_weight" => ("in/rec_weight", true),
            "recurrent_bias" => ("in/rec_bias", false),
            _ => continue,
        };
        let array = case.array(array)?;
        set(device, parameter, &if transposed { dense_weight(array) } else { array.data.clone() })?;
    }
    Ok(built)
}

/// The mean over samples and steps of every neuron.
fn rates(lanes: Lanes, spikes: &[f64]) -> Vec<f64> {
    let sum = |n: usize| spikes.iter().skip(n).step_by(lanes.width).sum::<f64>();
    (0..lanes.width).map(|n| sum(n) / lanes.rows() as f64).collect()
}

fn dense_spikes<B: Backend>(device: &B, spikes: &B::Spikes) -> Result<Vec<f64>> {
    Ok(device.download_spikes(spikes)?.to_dense())
}

fn layer<B: Backend>(device: &B, case: &Case) -> Result<()> {
    for surrogate in case.option::<Vec<SurrogateOption>>("surrogates")? {
        run_layer(device, case, &surrogate, false, "out/")?;
    }
    if let Some(sequential) = case.option::<Option<BTreeMap<String, serde_json::Value>>>("sequential")? {
        // The step-by-step form of the original normalises what comes before the first step.
        let pad = sequential.get("pad_with_normalised_zero").and_then(serde_json::Value::as_bool).unwrap_or(false);
        let prefix = sequential.get("prefix").and_then(serde_json::Value::as_str).unwrap_or("sequential/");
        let surrogates = case.option::<Vec<SurrogateOption>>("surrogates")?;
        run_layer(device, case, &surrogates[0], pad, &format!("out/{prefix}"))?;
    }
    Ok(())
}

/// Forward and backward of one layer, results under `out`.
fn run_layer<B: Backend>(
    device: &B,
    case: &Case,
    surrogate: &SurrogateOption,
    pad_normalised: bool,
    out: &str,
) -> Result<()> {
    let linear: bool = case.option("linear")?;
    let x = case.array(if linear { "in/x" } else { "in/X" })?;
    let [batch, steps, inputs] = x.shape[..] else { bail!("the input has shape {:?}", x.shape) };
    let width = if linear { case.array("in/weight")?.shape[0] } else { inputs };
    let lanes = Lanes::new(batch, steps, width);
    let mut built = neurons(device, case, lanes, surrogate.config()?, pad_normalised)?;

    let mut state = device.zeros(lanes.len())?;
    let mut projection = None;
    if linear {
        let input = activity(device, lanes.with_width(inputs), &x.data)?;
        let mut dense = Dense::new(device, inputs, width, Init::default(), (0, 0))?;
        let [weight, bias]: [_; 2] =
            dense.parameters_mut().try_into().expect("a fresh projection has a weight and a bias");
        set(device, weight, &dense_weight(case.array("in/weight")?))?;
        set(device, bias, &case.array("in/bias")?.data)?;
        dense.forward(device, &input, lanes.rows(), Pass::train(0), &mut state)?;
        projection = Some((dense, input));
    } else {
        device.upload(&lift::<B>(&x.data), &mut state)?;
    }
    let mut spikes = device.spikes();
    built.cell().forward(device, lanes, Pass::train(0), &mut state, &mut spikes)?;
    let fires: bool = case.option("fire")?;
    if fires {
        let spikes = dense_spikes(device, &spikes)?;
        case.compare(&format!("{out}spk"), &spikes);
        case.compare(&format!("{out}rate"), &rates(lanes, &spikes));
    }
    let membrane = host(device, &state)?;
    match &built {
        Neurons::Parallel(cell) => {
            let fired = cell.recurrent_membrane().map(|m| host(device, m)).transpose()?;
            case.compare(&format!("{out}mem"), fired.as_ref().unwrap_or(&membrane));
            if let Some(hidden) = cell.hidden_values() {
                case.compare(&format!("{out}hidden_state"), &host(device, hidden)?);
            }
            if let Some(hidden) = cell.recurrent_spikes() {
                let hidden = dense_spikes(device, hidden)?;
                case.compare(&format!("{out}hidden_state"), &hidden);
                case.compare(&format!("{out}rate_rec"), &rates(lanes, &hidden));
            }
        }
        Neurons::Cuba(cell) => {
            let threshold = cell.parameters().into_iter().find(|p| p.name == "threshold");
            let threshold = threshold.map(|p| host(device, &p.value.data)).transpose()?.unwrap_or_default();
            let over = |(i, u): (usize, &f64)| u - threshold[if threshold.len() == 1 { 0 } else { i % width }];
            case.compare(
                &format!("{out}mem_minus_thr_before_reset"),
                &membrane.iter().enumerate().map(over).collect::<Vec<_>>(),
            );
            let mut after = device.zeros(lanes.len())?;
            device.copy(&state, &mut after)?;
            cell.membrane(device, lanes, &mut after)?;
            case.compare(&format!("{out}mem_after_reset"), &host(device, &after)?);
        }
    }
    if out != "out/" {
        return Ok(());
    }

    let out = format!("{out}{}", surrogate.prefix);
    let given = |name: &str| case.find(name).map(|g| upload(device, g)).transpose();
    let zeros = || device.zeros(lanes.len());
    let (on_spikes, on_membrane) = (given("in/g_spk")?, given("in/g_mem")?);
    // Parallel neurons that do not fire take the gradient on their membrane in its place.
    let (mut grad, on_membrane) = match (&built, fires) {
        (Neurons::Parallel(_), false) => (on_membrane.map_or_else(zeros, Ok)?, None),
        _ => (on_spikes.map_or_else(zeros, Ok)?, on_membrane),
    };
    let mut sums = device.zeros(lanes.batch * lanes.width)?;
    built.cell().backward(device, lanes, &state, &mut grad, on_membrane.as_ref(), &mut sums)?;
    case.compare(&format!("{out}d_X"), &host(device, &grad)?);
    if let Some((mut dense, input)) = projection {
        let mut grad_x = Tensor::zeros(device, &[batch, steps, inputs])?;
        dense.backward(device, &input, lanes.rows(), &grad, &sums, Some(&mut grad_x))?;
        case.compare(&format!("{out}d_x"), &host(device, &grad_x.data)?);
        let [weight, bias]: [_; 2] = dense.parameters().try_into().expect("a fresh projection has a weight and a bias");
        case.compare(&format!("{out}d_weight"), &weight_back(inputs, width, host(device, &weight.grad.data)?));
        case.compare(&format!("{out}d_bias"), &host(device, &bias.grad.data)?);
    }
    let learn_tau: bool = case.option("learn_tau")?;
    for p in built.cell().parameters() {
        let (value, grad) = (host(device, &p.value.data)?, host(device, &p.grad.data)?);
        match p.name {
            "threshold" if p.learnable => case.compare(&format!("{out}d_threshold"), &grad),
            "recurrent_weight" => case.compare(&format!("{out}d_rec_weight"), &weight_back(width, width, grad)),
            "recurrent_bias" => case.compare(&format!("{out}d_rec_bias"), &grad),
            "alpha" | "beta" => {
                let logistic = |x: &f64| 1.0 / (1.0 + (-x).exp());
                let used = if learn_tau { value.iter().map(logistic).collect() } else { value };
                case.compare(&format!("{out}{}_eff", p.name), &used);
                if learn_tau {
                    case.compare(&format!("{out}d_{}_raw", p.name), &grad);
                }
            }
            _ => {}
        }
    }
    if !built.cell().parameters().iter().any(|p| p.name == "alpha") {
        case.compare(&format!("{out}alpha_eff"), &[0.0]);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Variant {
    prefix: String,
    hard: bool,
    temperature: f64,
}

fn gumbel<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let v = case.array("in/v")?;
    let lanes = Lanes::new(v.shape[0], 1, v.shape[1]);
    let logistic = noise(case.array("in/u")?, lanes);
    let (noise, threshold) = (device.buffer_from(&lift::<B>(&logistic))?, device.zeros(1)?);
    for Variant { prefix, hard, temperature } in case.option::<Vec<Variant>>("variants")? {
        let mut firing = FiringMode::GS.firing(Surrogate::ARCTAN);
        firing.generator = Generator::Gumbel { temperature };
        let fire = Some(Fire { firing, threshold: &threshold, noise: Noise::Given(&noise) });
        let (mut state, mut grad) = (upload(device, v)?, upload(device, case.array("in/g_out")?)?);
        let mut spikes = device.spikes();
        device.paralif_forward(lanes, None, fire, &mut state, &mut spikes)?;
        device.paralif_backward(lanes, None, fire, &state, &mut grad, FilterGrad::default())?;
        let soft = |(&v, &l): (&f64, &f64)| soft_spike(B::Real::lit(v), l, temperature).value();
        let y = if hard { dense_spikes(device, &spikes)? } else { v.data.iter().zip(&logistic).map(soft).collect() };
        case.compare(&format!("out/{prefix}y"), &y);
        case.compare(&format!("out/{prefix}d_v"), &host(device, &grad)?);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Run {
    prefix: String,
    stimulus: String,
    amplitude: f64,
    tau_mem: f64,
    threshold: f64,
    neuron: String,
    mode: Option<String>,
}

fn biology<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let dt: f64 = case.option("dt")?;
    for run in case.option::<Vec<Run>>("runs")? {
        let stimulus = case.array(&run.stimulus)?;
        let lanes = Lanes::new(1, stimulus.data.len(), 1);
        let current: Vec<f64> = stimulus.data.iter().map(|x| run.amplitude * x).collect();
        let filter =
            FilterConfig { tau_mem: PerNeuron::Shared(run.tau_mem / dt), tau_syn: None, ..FilterConfig::default() };
        let threshold = PerNeuron::Shared(run.threshold);
        let (mut state, mut spikes) = (device.buffer_from(&lift::<B>(&current))?, device.spikes());
        if run.neuron == "lif" {
            let config = CubaConfig { filter, threshold, ..CubaConfig::default() };
            let mut cell = CubaCell::new(device, &config, 1, (0, 0))?;
            cell.forward(device, lanes, Pass::evaluate(0), &mut state, &mut spikes)?;
            cell.membrane(device, lanes, &mut state)?;
        } else {
            let mode = run.mode.context("a parallel neuron has a mode")?;
            let config = ParaLifConfig { mode, filter, threshold: Some(threshold), ..ParaLifConfig::default() };
            let mut cell = ParaLifCell::new(device, &config, 1, (0, 0))?;
            cell.forward(device, lanes, Pass::evaluate(0), &mut state, &mut spikes)?;
        }
        case.compare(&format!("{}spk", run.prefix), &dense_spikes(device, &spikes)?);
        case.compare(&format!("{}mem", run.prefix), &host(device, &state)?);
    }
    Ok(())
}

/// A layer of a network case.
#[derive(Debug, Clone, Deserialize)]
struct NetLayer {
    weight: String,
    bias: String,
    neuron: String,
    mode: Option<String>,
    threshold: Option<Given>,
    recurrent: Option<String>,
    rec_weight: Option<String>,
    rec_bias: Option<String>,
    alpha_raw: Option<String>,
    beta_raw: Option<String>,
    noise: Option<String>,
    rate: Option<String>,
    spikes: Option<String>,
}

#[derive(Deserialize)]
struct Setting {
    prefix: String,
    loss: String,
    theta_reg: f64,
    theta_reg_rec: f64,
}

#[derive(Deserialize)]
struct Adamax {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    steps: u32,
}

fn reduce(name: &str) -> Result<Reduce> {
    Ok(match name {
        "last" => Reduce::Last,
        "max" => Reduce::Max,
        "mean" => Reduce::Mean,
        "cumsum" => Reduce::SoftmaxSum,
        other => bail!("unknown reduction `{other}`"),
    })
}

/// A network built from its description, with the name of each parameter in the case; fixed ones have none.
struct Net<B: Backend> {
    hidden: Vec<Box<dyn Layer<B>>>,
    readout: Readout<B>,
    names: Vec<Option<String>>,
}

/// How a network's arrays are stored.
struct Storage<'a> {
    /// What stands before the names of parameters.
    parameters: &'a str,
    /// The sizes of the input.
    lanes: Lanes,
    kind: Kind,
    /// How stored noise becomes uniforms.
    decode: Option<(f64, f64)>,
}

impl<B: Backend> Net<B> {
    fn build(device: &B, case: &Case, layers: &[NetLayer], reduction: Reduce, storage: &Storage<'_>) -> Result<Self> {
        let Storage { parameters: place, lanes, kind, decode } = *storage;
        let surrogate = case.option::<Option<SurrogateOption>>("surrogate")?.unwrap_or_default().config()?;
        let array = |name: &str| case.array(&format!("{place}{name}"));
        let mut signal = Signal::flat(kind, lanes.steps, lanes.width);
        let (mut hidden, mut names): (Vec<Box<dyn Layer<B>>>, _) = (Vec::new(), Vec::new());
        let Some((last, rest)) = layers.split_last() else { bail!("a network without layers") };
        for l in rest {
            let weight = array(&l.weight)?;
            let (width, inputs) = (weight.shape[0], weight.shape[1]);
            names.extend([Some(l.weight.clone()), Some(l.bias.clone())]);
            let dense = Box::new(Dense::new(device, inputs, width, Init::default(), (0, 0))?);
            let output = Signal::flat(Kind::Spikes, lanes.steps, width);
            let built: Box<dyn Layer<B>> = if l.neuron == "relu" {
                Box::new(ReluLayer::new(device, signal, output, dense)?)
            } else {
                let (cell, own) = net_cell(device, case, l, lanes.with_width(width), surrogate, decode)?;
                names.extend(own);
                Box::new(Clocked::new(device, signal, output, dense, cell, false)?)
            };
            signal = built.output_signal();
            hidden.push(built);
        }
        let neuron = match last.neuron.as_str() {
            "none" => ReadoutNeuron::None(NoOptions {}),
            _ => ReadoutNeuron::Filter(filter(case, last.beta_raw.is_some())?),
        };
        names.extend([Some(last.weight.clone()), Some(last.bias.clone())]);
        if let ReadoutNeuron::Filter(filter) = &neuron {
            names.extend(filter.tau_syn.iter().map(|_| last.alpha_raw.clone()));
            names.push(last.beta_raw.clone());
        }
        let classes = array(&last.weight)?.shape[0];
        let config = ReadoutConfig { reduce: reduction, neuron, ..ReadoutConfig::default() };
        let mut net = Self { hidden, readout: Readout::new(device, signal, classes, &config, (0, 0))?, names };
        let names = net.names.clone();
        for (parameter, name) in net.parameters_mut().zip(names) {
            let Some(name) = name else { continue };
            let array = array(&name)?;
            let square = parameter.value.shape.len() == 2;
            set(device, parameter, &if square { dense_weight(array) } else { array.data.clone() })?;
        }
        Ok(net)
    }

    fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter<B>> {
        self.hidden.iter_mut().flat_map(|l| l.parameters_mut()).chain(self.readout.parameters_mut())
    }

    fn forward(&mut self, device: &B, input: &Activity<B>) -> Result<()> {
        for i in 0..self.hidden.len() {
            let (before, rest) = self.hidden.split_at_mut(i);
            rest[0].forward(device, before.last().map_or(input, |l| l.output()), Pass::train(0))?;
        }
        let last = self.hidden.last().map_or(input, |l| l.output());
        Ok(self.readout.forward(device, last, Pass::train(0))?)
    }

    fn into_stack(self, device: &B, signal: Signal) -> Result<(Stack<B>, Vec<Option<String>>)> {
        let mut layers = self.hidden;
        layers.push(Box::new(self.readout));
        Ok((Stack::new(device, signal, layers)?, self.names))
    }
}

/// A cell, and the names of its parameters in the case; fixed ones have none.
type NamedCell<B> = (Box<dyn Cell<B>>, Vec<Option<String>>);

/// The cell of a network's layer.
fn net_cell<B: Backend>(
    device: &B,
    case: &Case,
    l: &NetLayer,
    lanes: Lanes,
    surrogate: SurrogateConfig,
    decode: Option<(f64, f64)>,
) -> Result<NamedCell<B>> {
    let filter = filter(case, l.beta_raw.is_some())?;
    let recurrent = recurrent(l.recurrent.as_deref())?;
    let (learn_threshold, threshold) = match &l.threshold {
        Some(Given::Word(_)) => (true, Some(PerNeuron::Shared(1.0))),
        Some(Given::Number(x)) => (false, Some(PerNeuron::Shared(*x))),
        None => (false, None),
    };
    let mut names: Vec<Option<String>> = filter.tau_syn.iter().map(|_| l.alpha_raw.clone()).collect();
    names.push(l.beta_raw.clone());
    if threshold.is_some() {
        names.push(match &l.threshold {
            Some(Given::Word(name)) => Some(name.clone()),
            _ => None,
        });
    }
    if recurrent != RecurrentConfig::None {
        names.extend([l.rec_weight.clone(), l.rec_bias.clone()]);
    }
    let neurons = if l.neuron == "lif" {
        let threshold = threshold.context("a sequential neuron has a threshold")?;
        let config = CubaConfig { filter, threshold, learn_threshold, surrogate, recurrent, refractory: 0 };
        Neurons::Cuba(CubaCell::new(device, &config, lanes.width, (0, 0))?)
    } else {
        let mode = l.mode.clone().context("a parallel neuron has a mode")?;
        let temperature = case.option::<Option<f64>>("gs_temperature")?.unwrap_or(1.0);
        let config = ParaLifConfig {
            mode,
            filter,
            threshold,
            learn_threshold,
            surrogate,
            recurrent,
            temperature,
            ..ParaLifConfig::default()
        };
        let mut cell = ParaLifCell::new(device, &config, lanes.width, (0, 0))?;
        if let Some(name) = &l.noise {
            let mut array = case.array(name)?.clone();
            if let Some((offset, divisor)) = decode {
                array.data.iter_mut().for_each(|k| *k = (*k + offset) / divisor);
            }
            let out = device.buffer_from(&lift::<B>(&noise(&array, lanes)))?;
            cell.give_noise(GivenNoise { out, hidden: None });
        }
        Neurons::Parallel(cell)
    };
    Ok((neurons.boxed(), names))
}

fn network<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let layers: Vec<NetLayer> = case.option("layers")?;
    let x = case.array("in/x")?;
    let lanes = Lanes::new(x.shape[0], x.shape[1], x.shape[2]);
    let input = activity(device, lanes, &x.data)?;
    let labels: Vec<u32> = case.array("in/y")?.data.iter().map(|&y| y as u32).collect();
    let storage = Storage { parameters: "in/param/", lanes, kind: input.kind(), decode: None };
    let adamax: Adamax = case.option("optimizer")?;
    let optimiser = OptimiserConfig {
        kind: OptimiserKind::Adamax,
        learning_rate: adamax.lr,
        beta1: adamax.beta1,
        beta2: adamax.beta2,
        eps: adamax.eps,
        weight_decay: adamax.weight_decay,
        ..OptimiserConfig::default()
    };
    for (i, setting) in case.option::<Vec<Setting>>("settings")?.into_iter().enumerate() {
        let mut net = Net::build(device, case, &layers, reduce(&setting.loss)?, &storage)?;
        if i == 0 {
            net.forward(device, &input)?;
            case.compare("out/readout_mem", &host(device, &net.readout.membrane().data)?);
            for (l, built) in layers.iter().zip(&net.hidden) {
                if let (Some(rate), Some(spikes)) = (&l.rate, built.spikes()) {
                    let lanes = device.spike_lanes(spikes);
                    case.compare(rate, &rates(lanes, &dense_spikes(device, spikes)?));
                }
            }
        }
        let (mut stack, names) = net.into_stack(device, Signal::flat(storage.kind, lanes.steps, lanes.width))?;
        let mut optimiser = Optimiser::new(device, optimiser, &stack)?;
        let mut loss = CrossEntropy::new(device)?;
        let config = RateConfig { limit: setting.theta_reg, recurrent_limit: setting.theta_reg_rec };
        let prefix = &setting.prefix;
        let mut history = Vec::new();
        for step in 0..adamax.steps {
            stack.forward(device, &input, Pass::train(step))?;
            let scores = loss.forward(device, stack.output(), &labels)?;
            let penalty = RatePenalty::of(device, &stack, &config)?;
            history.push(scores.loss() + penalty.value);
            stack.set_rate_gradient(penalty.on_spikes, penalty.on_recurrent);
            stack.backward(device, &input, &loss.grad)?;
            if step == 0 {
                case.compare(&format!("{prefix}loss"), &history);
                for ((_, p), name) in stack.parameters().zip(&names) {
                    if let (Some(name), true) = (name, p.learnable) {
                        case.compare(&format!("{prefix}grad/{name}"), &stored(device, p, false)?);
                    }
                }
            }
            optimiser.update(device, &mut stack, adamax.lr)?;
        }
        case.compare(&format!("{prefix}loss_hist_3steps"), &history);
        let after = format!("{prefix}param_after_3steps/");
        for ((_, p), name) in stack.parameters().zip(&names) {
            if let Some(name) = name {
                case.compare(&format!("{after}{name}"), &stored(device, p, true)?);
            }
        }
        // Thresholds that no neuron uses, such as a readout's, stay as they are.
        let unused = case.entry.arrays.keys().filter_map(|array| array.strip_prefix("in/param/"));
        for name in unused.filter(|name| !names.iter().flatten().any(|used| used == name)) {
            case.compare(&format!("{after}{name}"), &case.array(&format!("in/param/{name}"))?.data);
        }
    }
    Ok(())
}

/// Values or gradient of a parameter in the layout of the case.
fn stored<B: Backend>(device: &B, p: &Parameter<B>, value: bool) -> Result<Vec<f64>> {
    let data = host(device, if value { &p.value.data } else { &p.grad.data })?;
    Ok(match p.value.shape[..] {
        [inputs, outputs] => weight_back(inputs, outputs, data),
        _ => data,
    })
}

#[derive(Deserialize)]
struct Decode {
    offset: f64,
    divisor: f64,
}

fn trained<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let layers: Vec<NetLayer> = case.option("layers")?;
    let [batch, steps, inputs]: [usize; 3] = case.option("x_shape")?;
    let lanes = Lanes::new(batch, steps, inputs);
    let mut x = vec![0.0; lanes.len()];
    for row in case.array("in/x_bti")?.data.chunks(3) {
        x[((row[0] as usize * steps) + row[1] as usize) * inputs + row[2] as usize] = 1.0;
    }
    let decode = case.option::<Option<Decode>>("noise_decode")?.map(|d| (d.offset, d.divisor));
    let storage = Storage { parameters: "param/", lanes, kind: Kind::Spikes, decode };
    let reduction = reduce(&case.option::<String>("reduction")?)?;
    let mut net = Net::build(device, case, &layers, reduction, &storage)?;
    let mut input = activity(device, lanes, &x)?;
    for (i, (l, built)) in layers.iter().zip(&mut net.hidden).enumerate() {
        built.forward(device, &input, Pass::train(0))?;
        let own = lanes.with_width(built.output_signal().width());
        if let Some(spikes) = built.spikes() {
            let spikes = dense_spikes(device, spikes)?;
            case.compare(l.spikes.as_deref().context("a spiking layer has spikes")?, &spikes);
            case.compare(l.rate.as_deref().context("a spiking layer has rates")?, &rates(own, &spikes));
        }
        // Each layer is checked on the stored spikes of the one before it, or on real values as they come.
        input = match &l.spikes {
            Some(name) => activity(device, own, &case.array(name)?.data)?,
            None => copy(device, built.output())?,
        };
        if case.option::<Option<usize>>("hidden_last_layer")? == Some(i) {
            let stride: usize = case.option("hidden_last_stride")?;
            if let Activity::Sequence(x) = built.output() {
                let rows = host(device, &x.data)?;
                let kept = rows.chunks(own.width).enumerate().filter(|(row, _)| row % steps % stride == 0);
                case.compare("out/hidden_last", &kept.flat_map(|(_, row)| row.to_vec()).collect::<Vec<_>>());
            }
        }
    }
    if let Some(l) = layers.first().filter(|l| l.neuron != "relu") {
        first_membrane(device, case, l, &storage, &x)?;
    }
    net.readout.forward(device, &input, Pass::train(0))?;
    case.compare("out/readout_mem", &host(device, &net.readout.membrane().data)?);
    let logits = host(device, &net.readout.output().values("golden")?.data)?;
    case.compare("out/logits_mean", &logits);
    let best: Vec<f64> = logits.chunks(logits.len() / batch).map(|row| argmax(row) as f64).collect();
    case.compare("out/pred_mean", &best);
    Ok(())
}

/// A sequence once more.
fn copy<B: Backend>(device: &B, activity: &Activity<B>) -> Result<Activity<B>> {
    match activity {
        Activity::Sequence(x) => {
            let data = device.buffer_from(&device.to_host(&x.data)?)?;
            Ok(Activity::Sequence(Tensor { shape: x.shape.clone(), data }))
        }
        other => bail!("expected a sequence, not {}", other.kind()),
    }
}

/// The membrane of the first layer for the first sample: of a sequential neuron after its reset.
fn first_membrane<B: Backend>(device: &B, case: &Case, l: &NetLayer, storage: &Storage<'_>, x: &[f64]) -> Result<()> {
    let weight = case.array(&format!("{}{}", storage.parameters, l.weight))?;
    let lanes = Lanes { batch: 1, ..storage.lanes };
    let input = activity(device, lanes, &x[..lanes.len()])?;
    let own = lanes.with_width(weight.shape[0]);
    let mut dense = Dense::new(device, lanes.width, own.width, Init::default(), (0, 0))?;
    let [w, b]: [_; 2] = dense.parameters_mut().try_into().expect("a fresh projection has a weight and a bias");
    set(device, w, &dense_weight(weight))?;
    set(device, b, &case.array(&format!("{}{}", storage.parameters, l.bias))?.data)?;
    let (mut state, mut spikes) = (device.zeros(own.len())?, device.spikes());
    dense.forward(device, &input, own.rows(), Pass::train(0), &mut state)?;
    if l.neuron == "lif" {
        let config = CubaConfig { filter: filter(case, false)?, ..CubaConfig::default() };
        let mut cell = CubaCell::new(device, &config, own.width, (0, 0))?;
        cell.forward(device, own, Pass::evaluate(0), &mut state, &mut spikes)?;
        cell.membrane(device, own, &mut state)?;
    } else {
        let mut cell = ParaLifCell::readout(device, &filter(case, false)?)?;
        cell.forward(device, own, Pass::evaluate(0), &mut state, &mut spikes)?;
    }
    case.compare("out/mem_0_sample0", &host(device, &state)?);
    Ok(())
}
