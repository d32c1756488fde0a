//! Runners of the BATS golden files.
//!
//! Arrays of spikes hold `+inf` in empty slots; a device lists events in ascending time. Numbers that the index gives in
//! absolute time come from slopes at the spikes: `x = slope e^(t/tau)`, `a = (slope + c) e^(2t/tau)`, `y = e^(t/tau)`.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use snn_core::backend::{TrainReadout, Update, UpdateRule, UpdateSlot};
use snn_core::neurons::event::{self, EventNeuron, Fired};
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Activity, Backend, Conv, Events, Kind, Layer, Map, Pass, Pool, Real, Signal, Synapses, Tensor, Trains};
use snn_data::{Encode, Input, Loader, LoaderOptions, OpenOptions, Pipeline};
use snn_train::config::{EventConfig, Init, LossConfig};
use snn_train::layers::{EventLayer, MergeLayer, TrainReader};
use snn_train::losses::{Loss, argmax};

use super::arrays::{host, lift, upload};
use super::{Implementation, host_only, on_devices, stream};

/// The kinds of the system that the project's own copy has; `trained` needs published weights, which it has not.
pub(super) const KINDS: &[&str] = &[
    "lif",
    "two_layer",
    "conv_net",
    "optimiser",
    "toy_train",
    "first_spike_regression",
    "mnist_train",
    "latency_code",
    "ttfs_loss",
    "reset_errors",
    "pool",
    "synaptic_scaling",
    "hash_weights",
    "event_infer",
];

pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    match kind {
        "lif" => on_devices!(lif),
        "two_layer" => on_devices!(two_layer),
        "conv_net" => on_devices!(conv_net),
        "optimiser" => on_devices!(optimiser),
        "toy_train" => on_devices!(toy_train),
        "first_spike_regression" => on_devices!(first_spike_regression),
        "mnist_train" => on_devices!(mnist_train),
        "trained" => on_devices!(trained),
        "ttfs_loss" => on_devices!(ttfs_loss),
        "pool" => on_devices!(pool),
        "synaptic_scaling" => on_devices!(synaptic_scaling),
        "reset_errors" => host_only("snn-core f64", reset_errors),
        "latency_code" => host_only("snn-data f32", latency_code),
        "hash_weights" => host_only("host f64", hash_weights),
        "event_infer" => Ok(Some(stream::event_infer())),
        _ => Ok(None),
    }
}

/// Spike times `[B, N, K]` as events; entry `k` of the list says where event `k` came from.
fn events(times: &Array) -> Result<(Events, Vec<usize>)> {
    let [_, units, slots] = times.shape[..] else { bail!("spike times have axes {:?}", times.shape) };
    let (mut events, mut sources) = (Events::new(units), Vec::new());
    for (b, sample) in times.data.chunks((units * slots).max(1)).enumerate() {
        let mut list: Vec<(f32, u32, usize)> = sample
            .iter()
            .enumerate()
            .filter(|(_, t)| t.is_finite())
            .map(|(at, &t)| (t as f32, (at / slots) as u32, b * units * slots + at))
            .collect();
        list.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)).then(x.2.cmp(&y.2)));
        events.push(&list.iter().map(|e| (e.0, e.1)).collect::<Vec<_>>())?;
        sources.extend(list.iter().map(|e| e.2));
    }
    Ok((events, sources))
}

fn trains<B: Backend>(device: &B, times: &Array) -> Result<Trains<B>> {
    let mut trains = Trains::empty(device, 0)?;
    trains.upload(device, &events(times)?.0)?;
    Ok(trains)
}

/// The place of every event in an array `[B, N, slots]`.
fn places<B: Backend>(device: &B, trains: &Trains<B>, slots: usize) -> Result<Vec<usize>> {
    let (offsets, units) = (device.to_host(&trains.offsets)?, device.to_host(&trains.units)?);
    let mut places = Vec::with_capacity(units.len());
    for (b, sample) in offsets.windows(2).enumerate() {
        let mut counts = vec![0; trains.width];
        for &unit in &units[sample[0] as usize..sample[1] as usize] {
            let count = &mut counts[unit as usize];
            if *count >= slots {
                bail!("neuron {unit} of sample {b} fires more than {slots} times");
            }
            places.push((b * trains.width + unit as usize) * slots + *count);
            *count += 1;
        }
    }
    Ok(places)
}

/// One number per event as an array `[B, N, slots]` with `empty` where there is no event.
fn padded<B: Backend>(device: &B, trains: &Trains<B>, slots: usize, values: &[f64], empty: f64) -> Result<Vec<f64>> {
    let mut array = vec![empty; trains.batch(device) * trains.width * slots];
    for (place, value) in places(device, trains, slots)?.into_iter().zip(values) {
        array[place] = *value;
    }
    Ok(array)
}

/// The numbers of an array `[B, N, slots]` at the events.
fn at_events<B: Backend>(device: &B, trains: &Trains<B>, array: &Array) -> Result<Vec<B::Real>> {
    let slots = array.shape.last().copied().unwrap_or_default();
    Ok(lift::<B>(&places(device, trains, slots)?.into_iter().map(|p| array.data[p]).collect::<Vec<_>>()))
}

fn times<B: Backend>(device: &B, trains: &Trains<B>) -> Result<Vec<f64>> {
    host(device, &trains.times)
}

fn counts<B: Backend>(device: &B, trains: &Trains<B>) -> Result<Vec<f64>> {
    let mut counts = device.zeros::<u32>(trains.batch(device) * trains.width)?;
    device.count_trains(trains, &mut counts)?;
    Ok(device.to_host(&counts)?.into_iter().map(f64::from).collect())
}

/// Compares times and counts of a layer, `PREFIX_times` and `PREFIX_counts`, and gives the slots of the former.
fn compare_spikes<B: Backend>(device: &B, case: &Case, prefix: &str, trains: &Trains<B>) -> Result<usize> {
    let name = format!("{prefix}_times");
    let slots = case.array(&name)?.shape.last().copied().unwrap_or_default();
    case.compare_both(&name, &padded(device, trains, slots, &times(device, trains)?, f64::INFINITY)?);
    case.compare(&format!("{prefix}_counts"), &counts(device, trains)?);
    Ok(slots)
}

/// The constants of a layer; their names end in `suffix`.
fn neuron(case: &Case, suffix: &str) -> Result<EventNeuron> {
    let number = |name: &str| case.option::<f64>(&format!("{name}{suffix}"));
    Ok(EventNeuron {
        tau_s: case.option("tau_s")?,
        threshold: number("theta")?,
        reset: number("delta_theta")?,
        end: case.option::<Option<f64>>("t_max")?.unwrap_or(f64::INFINITY),
        capacity: case.option(&format!("max_n_spike{suffix}"))?,
        least_slope: 0.0,
    })
}

fn config(neuron: &EventNeuron) -> EventConfig {
    EventConfig {
        tau_s: neuron.tau_s,
        threshold: neuron.threshold,
        reset: Some(neuron.reset),
        end: neuron.end.is_finite().then_some(neuron.end),
        spikes: neuron.capacity,
        ..EventConfig::default()
    }
}

/// A layer with the weights `[J, I]` of a golden file.
fn dense<B: Backend>(device: &B, neuron: &EventNeuron, weights: &Array) -> Result<EventLayer<B>> {
    let [outputs, inputs] = weights.shape[..] else { bail!("weights have axes {:?}", weights.shape) };
    let input = Signal::flat(Kind::Trains, 1, inputs);
    let mut layer = EventLayer::dense(device, input, outputs, &config(neuron), Init::default(), (1, 0))?;
    set_weight(device, &mut layer, &weights.permuted(&[1, 0]).data)?;
    Ok(layer)
}

fn set_weight<B: Backend>(device: &B, layer: &mut EventLayer<B>, values: &[f64]) -> Result<()> {
    let mut parameters = layer.parameters_mut();
    let weight = parameters.first_mut().context("an event layer has weights")?;
    Ok(device.upload(&lift::<B>(values), &mut weight.value.data)?)
}

/// The weights of a layer, `[I, J]` as `[J, I]`.
fn weight<B: Backend>(device: &B, layer: &EventLayer<B>, gradient: bool) -> Result<Vec<f64>> {
    let parameters = layer.parameters();
    let parameter = parameters.first().context("an event layer has weights")?;
    let tensor = if gradient { &parameter.grad } else { &parameter.value };
    let array = Array { shape: tensor.shape.clone(), data: host(device, &tensor.data)? };
    let order: &[usize] = if array.shape.len() == 2 { &[1, 0] } else { &[3, 0, 1, 2] };
    Ok(array.permuted(order).data)
}

fn scaled(values: Vec<f64>, factor: f64) -> Vec<f64> {
    values.into_iter().map(|v| v * factor).collect()
}

/// A gradient on events as the tensor that layers take.
fn tensor<B: Backend>(device: &B, values: &[B::Real]) -> Result<Tensor<B>> {
    Ok(Tensor { shape: vec![values.len()], data: device.buffer_from(values)? })
}

fn lif<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (neuron, weights) = (neuron(case, "")?, case.array("weights")?);
    let pre = case.array("pre_times")?;
    case.array("pre_counts")?;
    let input = trains(device, pre)?;
    let mut layer = dense(device, &neuron, weights)?;
    layer.forward(device, &Activity::Trains(input), Pass::train(0))?;
    let out = layer.output().trains("lif")?;
    let slots = compare_spikes(device, case, "post", out)?;
    let (t, slopes) = (times(device, out)?, host(device, layer.slopes())?);
    let (tau, c) = (neuron.tau(), neuron.level());
    let of = |value: &dyn Fn(f64, f64) -> f64, empty: f64| {
        let values: Vec<f64> = t.iter().zip(&slopes).map(|(&t, &x)| value(t, x)).collect();
        padded(device, out, slots, &values, empty)
    };
    case.compare("x", &of(&|t, x| x * (t / tau).exp(), f64::INFINITY)?);
    case.compare("a", &of(&|t, x| (x + c) * (2.0 * t / tau).exp(), f64::INFINITY)?);
    case.compare("post_exp_tau", &of(&|t, _| (t / tau).exp(), f64::INFINITY)?);
    if !case.option::<bool>("backward")? {
        return Ok(());
    }
    case.compare("f1", &of(&|t, x| tau / x * (-2.0 * t / tau).exp(), 0.0)?);
    case.compare("f2", &of(&|t, x| tau / x * (-t / tau).exp(), 0.0)?);

    // Gradients are those of every sample for itself.
    let errors = case.array("errors_in")?;
    let pre_slots = pre.shape[2];
    let (mut after, mut on_weights, mut on_inputs) = (vec![], vec![], vec![]);
    let row = |array: &Array, b: usize| {
        let size = array.shape[1] * array.shape[2];
        Array { shape: vec![1, array.shape[1], array.shape[2]], data: array.data[b * size..(b + 1) * size].to_vec() }
    };
    for b in 0..pre.shape[0] {
        let input = Activity::Trains(trains(device, &row(pre, b))?);
        layer.forward(device, &input, Pass::train(0))?;
        let out = layer.output().trains("lif")?;
        let mut grad = tensor(device, &at_events(device, out, &row(errors, b))?)?;
        let mut grad_input = tensor(device, &vec![B::Real::ZERO; input.trains("lif")?.events(device)])?;
        layer.backward(device, &input, &mut grad, Some(&mut grad_input))?;
        let out = layer.output().trains("lif")?;
        after.extend(padded(device, out, slots, &host(device, &grad.data)?, 0.0)?);
        on_weights.extend(weight(device, &layer, true)?);
        let grad_input = host(device, &grad_input.data)?;
        on_inputs.extend(padded(device, input.trains("lif")?, pre_slots, &grad_input, 0.0)?);
    }
    case.compare("errors_after_recurrent", &after);
    case.compare_both("grad_w", &on_weights);
    case.compare_both("pre_errors", &on_inputs);
    Ok(())
}

/// A loss of the index.
#[derive(Debug, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum LossOption {
    CountClass { r_true: f64, r_false: f64 },
    Decay { r_true: f64, r_false: f64, lambda: f64, form: Option<String> },
    Ttfs { tau_l: f64 },
    Count { targets: String },
    Time { targets: String, missing: f64 },
}

/// What a loss made of a batch.
struct Judged<B: Backend> {
    predicted: Vec<f64>,
    losses: Vec<f64>,
    /// The gradient of every sample's own loss, one number per event.
    errors: Vec<B::Real>,
}

impl LossOption {
    fn name(&self) -> &'static str {
        match self {
            Self::CountClass { .. } => "count_class",
            Self::Decay { .. } => "decay",
            Self::Ttfs { .. } => "ttfs",
            Self::Count { .. } => "count",
            Self::Time { .. } => "time",
        }
    }

    fn judge<B: Backend>(
        &self,
        device: &B,
        case: &Case,
        out: &Activity<B>,
        labels: Option<&Array>,
    ) -> Result<Judged<B>> {
        let trains = out.trains("a loss")?;
        let (batch, width, events) = (trains.batch(device), trains.width, trains.events(device));
        let (read, loss) = match *self {
            Self::CountClass { r_true, r_false } => {
                (TrainReadout::Count, Some(LossConfig::Targets { on: r_true, off: r_false }))
            }
            Self::Decay { r_true, r_false, lambda, ref form } => {
                let exact = form.as_deref() == Some("exact");
                (TrainReadout::Decay { rate: lambda, exact }, Some(LossConfig::Targets { on: r_true, off: r_false }))
            }
            Self::Ttfs { tau_l } => {
                (TrainReadout::FirstSpike { tau: tau_l }, Some(LossConfig::CrossEntropy { label_smoothing: 0.0 }))
            }
            Self::Count { .. } => (TrainReadout::Count, None),
            Self::Time { missing, .. } => (TrainReadout::FirstTime { missing }, None),
        };
        let mut reader = TrainReader::new(device, Signal::flat(Kind::Trains, 1, width), read)?;
        reader.forward(device, out, Pass::train(0))?;
        let values = host(device, &reader.output().values("a loss")?.data)?;
        let predicted = values.chunks(width.max(1)).map(|row| argmax(row) as f64).collect();
        let mut errors = tensor(device, &vec![B::Real::ZERO; events])?;
        let losses = match self {
            Self::Time { targets, missing } => {
                let targets = upload(device, case.array(targets)?)?;
                let mut losses = device.zeros(batch)?;
                device.spike_time_loss(trains, &targets, *missing, &mut losses, &mut errors.data)?;
                host(device, &losses)?
            }
            Self::Count { targets } => {
                // Half the sum of squares in place of the mean over outputs and batch.
                let targets = upload(device, case.array(targets)?)?;
                let (mut losses, mut grad) = (device.zeros(batch)?, Tensor::zeros(device, &[batch, width])?);
                let outputs = &reader.output().values("a loss")?.data;
                device.squared_error(width, outputs, &targets, &mut losses, &mut grad.data)?;
                device.scale(0.5 * (width * batch) as f64, &mut grad.data)?;
                reader.backward(device, out, &mut grad, Some(&mut errors))?;
                scaled(host(device, &losses)?, 0.5 * width as f64)
            }
            _ => {
                let labels: Vec<u32> = labels.context("labels")?.data.iter().map(|&l| l as u32).collect();
                let mut loss = Loss::new(device, loss.context("a loss of labels")?)?;
                loss.forward(device, reader.output(), &labels)?;
                let mut grad = Tensor::zeros(device, &[batch, width])?;
                device.copy(&loss.grad().data, &mut grad.data)?;
                device.scale(batch as f64, &mut grad.data)?;
                reader.backward(device, out, &mut grad, Some(&mut errors))?;
                host(device, loss.losses())?
            }
        };
        Ok(Judged { predicted, losses, errors: device.to_host(&errors.data)? })
    }
}

fn two_layer<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let input = Activity::Trains(trains(device, case.array("pre_times")?)?);
    case.array("pre_counts")?;
    let mut hidden = dense(device, &neuron(case, "_h")?, case.array("weights_h")?)?;
    let mut output = dense(device, &neuron(case, "_o")?, case.array("weights_o")?)?;
    hidden.forward(device, &input, Pass::train(0))?;
    output.forward(device, hidden.output(), Pass::train(0))?;
    compare_spikes(device, case, "h", hidden.output().trains("h")?)?;
    let slots = compare_spikes(device, case, "o", output.output().trains("o")?)?;
    let labels = case.array("labels")?;
    for loss in case.option::<Vec<LossOption>>("losses")? {
        let name = loss.name();
        let judged = loss.judge(device, case, output.output(), Some(labels))?;
        case.compare(&format!("{name}_pred"), &judged.predicted);
        case.compare(&format!("{name}_loss"), &judged.losses);
        let out = output.output().trains("o")?;
        let errors: Vec<f64> = judged.errors.iter().map(|e| e.value()).collect();
        case.compare(&format!("{name}_errors"), &padded(device, out, slots, &errors, 0.0)?);
        let stored = at_events(device, out, case.array(&format!("{name}_errors"))?)?;
        let mut grad = tensor(device, &stored)?;
        let mut below = tensor(device, &vec![B::Real::ZERO; hidden.output().trains("h")?.events(device)])?;
        output.backward(device, hidden.output(), &mut grad, Some(&mut below))?;
        hidden.backward(device, &input, &mut below, None)?;
        let mean = 1.0 / labels.data.len() as f64;
        case.compare_both(&format!("{name}_grad_o"), &scaled(weight(device, &output, true)?, mean));
        case.compare_both(&format!("{name}_grad_h"), &scaled(weight(device, &hidden, true)?, mean));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct LayerOption {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    weights: Option<String>,
    theta: Option<f64>,
    delta_theta: Option<f64>,
    max_n_spike: Option<u32>,
    window: Option<usize>,
}

/// A layer of a stack that is built from a case.
enum Built<B: Backend> {
    Event(Box<EventLayer<B>>),
    Merge(MergeLayer<B>),
}

impl<B: Backend> Built<B> {
    fn layer(&mut self) -> &mut dyn Layer<B> {
        match self {
            Self::Event(layer) => &mut **layer,
            Self::Merge(layer) => layer,
        }
    }

    fn output(&self) -> &Activity<B> {
        match self {
            Self::Event(layer) => layer.output(),
            Self::Merge(layer) => layer.output(),
        }
    }
}

fn conv_net<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let [height, width, channels]: [usize; 3] = case.option("in_shape")?;
    let mut signal = Signal { kind: Kind::Trains, steps: 1, map: Map::new(height, width, channels) };
    let input = Activity::Trains(trains(device, case.array("pre_times")?)?);
    case.array("pre_counts")?;
    let options: Vec<LayerOption> = case.option("layers")?;
    let mut layers: Vec<Built<B>> = Vec::new();
    for option in &options {
        let neuron = || -> Result<EventNeuron> {
            Ok(EventNeuron {
                tau_s: case.option("tau_s")?,
                threshold: option.theta.context("theta")?,
                reset: option.delta_theta.context("delta_theta")?,
                end: case.option::<Option<f64>>("t_max")?.unwrap_or(f64::INFINITY),
                capacity: option.max_n_spike.context("max_n_spike")?,
                least_slope: 0.0,
            })
        };
        let weights = option.weights.as_ref().map(|name| case.array(name)).transpose()?;
        let built = match (&*option.kind, weights) {
            ("pool", None) => Built::Merge(MergeLayer::new(device, signal, [option.window.context("window")?; 2])?),
            ("conv", Some(weights)) => {
                let conv =
                    Conv::rectangle(signal.map, weights.shape[0], [weights.shape[1], weights.shape[2]], 1, [0; 2])?;
                let config = config(&neuron()?);
                let mut layer = EventLayer::convolution(device, signal, conv, &config, Init::default(), (1, 0))?;
                set_weight(device, &mut layer, &weights.permuted(&[1, 2, 3, 0]).data)?;
                Built::Event(Box::new(layer))
            }
            ("dense", Some(weights)) => Built::Event(Box::new(dense(device, &neuron()?, weights)?)),
            (kind, _) => bail!("unknown layer `{kind}`, or its weights are missing"),
        };
        layers.push(built);
        let at = layers.len() - 1;
        let (before, rest) = layers.split_at_mut(at);
        let given = before.last().map_or(&input, |l| l.output());
        rest[0].layer().forward(device, given, Pass::train(0))?;
        signal = rest[0].layer().output_signal();
        compare_spikes(device, case, &option.name, rest[0].output().trains("conv_net")?)?;
    }
    let out = layers.last().context("a net has layers")?.output();
    let labels = case.array("labels")?;
    let judged = case.option::<LossOption>("loss")?.judge(device, case, out, Some(labels))?;
    case.compare("loss", &judged.losses);
    let errors: Vec<f64> = judged.errors.iter().map(|e| e.value()).collect();
    let stored = case.array("errors")?;
    case.compare("errors", &padded(device, out.trains("out")?, stored.shape[2], &errors, 0.0)?);
    let mut grad = tensor(device, &at_events(device, out.trains("out")?, stored)?)?;
    for (at, option) in options.iter().enumerate().rev() {
        let (before, rest) = layers.split_at_mut(at);
        let given = before.last().map_or(&input, |l| l.output());
        let mut below = tensor(device, &vec![B::Real::ZERO; given.trains("below")?.events(device)])?;
        rest[0].layer().backward(device, given, &mut grad, Some(&mut below))?;
        if let Built::Event(layer) = &rest[0] {
            let gradient = scaled(weight(device, layer, true)?, 1.0 / labels.data.len() as f64);
            case.compare(&format!("{}_grad", option.name), &gradient);
        }
        let name = format!("{}_pre_errors", option.name);
        if let Some(want) = case.find(&name) {
            let slots = want.shape[2];
            case.compare(&name, &padded(device, given.trains("below")?, slots, &host(device, &below.data)?, 0.0)?);
        }
        grad = below;
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct OptimiserOption {
    name: String,
    lr: f64,
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
}

impl OptimiserOption {
    fn rule(&self) -> Result<UpdateRule> {
        let number = |x: Option<f64>| x.context("a constant of the Adam family");
        Ok(match &*self.name {
            "gd" => UpdateRule::Sgd { momentum: 0.0, nesterov: false },
            "adam" => UpdateRule::Adam {
                beta1: number(self.beta1)?,
                beta2: number(self.beta2)?,
                eps: number(self.eps)?,
                decoupled: false,
            },
            "nadam" => {
                UpdateRule::NAdam { beta1: number(self.beta1)?, beta2: number(self.beta2)?, eps: number(self.eps)? }
            }
            other => bail!("unknown optimiser `{other}`"),
        })
    }
}

/// The state of an optimiser for one array.
struct Moments<B: Backend> {
    first: B::Buffer<B::Real>,
    second: B::Buffer<B::Real>,
    step: u64,
}

impl<B: Backend> Moments<B> {
    fn new(device: &B, len: usize) -> Result<Self> {
        Ok(Self { first: device.zeros(len)?, second: device.zeros(len)?, step: 0 })
    }

    fn update(
        &mut self,
        device: &B,
        option: &OptimiserOption,
        value: &mut B::Buffer<B::Real>,
        grad: &B::Buffer<B::Real>,
    ) -> Result<()> {
        self.step += 1;
        let update = Update { rule: option.rule()?, learning_rate: option.lr, weight_decay: 0.0, step: self.step };
        let (first, second) = (&mut self.first, &mut self.second);
        Ok(device.update(&update, &mut [UpdateSlot { value, grad, first, second, decays: false }])?)
    }
}

fn optimiser<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (steps, tensors): (usize, usize) = (case.option("steps")?, case.option("tensors")?);
    for option in case.option::<Vec<OptimiserOption>>("optimisers")? {
        for i in 1..=tensors {
            let grads = case.array(&format!("grad_{i}"))?;
            let len = grads.data.len() / steps;
            let mut moments = Moments::new(device, len)?;
            let mut deltas = Vec::new();
            for grad in grads.data.chunks(len) {
                // A step from zero is the step itself.
                let mut value = device.zeros(len)?;
                moments.update(device, &option, &mut value, &device.buffer_from(&lift::<B>(grad))?)?;
                deltas.extend(host(device, &value)?);
            }
            case.compare(&format!("{}_delta_{i}", option.name), &deltas);
        }
    }
    Ok(())
}

/// Updates the weights of a layer from the sum of gradients over `batch` samples.
fn step<B: Backend>(
    device: &B,
    layer: &mut EventLayer<B>,
    moments: &mut Moments<B>,
    option: &OptimiserOption,
    batch: usize,
) -> Result<()> {
    let mut parameters = layer.parameters_mut();
    let parameter = parameters.first_mut().context("an event layer has weights")?;
    device.scale(1.0 / batch as f64, &mut parameter.grad.data)?;
    moments.update(device, option, &mut parameter.value.data, &parameter.grad.data)
}

fn toy_train<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let input = Activity::Trains(trains(device, case.array("pre_times")?)?);
    let (initial, labels) = (case.array("weights_init")?, case.array("labels")?);
    let mut layer = dense(device, &neuron(case, "")?, initial)?;
    let (loss, option): (LossOption, OptimiserOption) = (case.option("loss")?, case.option("optimiser")?);
    let slots = case.array("post_times")?.shape[3];
    let mut moments = Moments::new(device, initial.data.len())?;
    let (mut weights, mut losses, mut spikes) = (vec![], vec![], vec![]);
    for _ in 0..case.option::<usize>("epochs")? {
        layer.forward(device, &input, Pass::train(0))?;
        let out = layer.output().trains("toy")?;
        spikes.extend(padded(device, out, slots, &times(device, out)?, f64::INFINITY)?);
        let judged = loss.judge(device, case, layer.output(), Some(labels))?;
        losses.extend(judged.losses);
        layer.backward(device, &input, &mut tensor(device, &judged.errors)?, None)?;
        step(device, &mut layer, &mut moments, &option, labels.data.len())?;
        weights.extend(weight(device, &layer, false)?);
    }
    case.compare("weights", &weights);
    case.compare("loss", &losses);
    case.compare("post_times", &spikes);
    Ok(())
}

fn first_spike_regression<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let pre = case.array("pre_times")?;
    let targets = case.array("targets")?;
    let (batch, inputs, outputs) = (pre.shape[0], pre.shape[1], targets.shape[1]);
    let input = Activity::Trains(trains(device, pre)?);
    let initial = Array { shape: vec![outputs, inputs], data: vec![case.option("init_weight")?; outputs * inputs] };
    let mut layer = dense(device, &neuron(case, "")?, &initial)?;
    let option: OptimiserOption = case.option("optimiser")?;
    let mut moments = Moments::new(device, outputs * inputs)?;
    let wanted: Vec<usize> = case.option("weight_epochs")?;
    let on_device = upload(device, targets)?;
    let (mut firsts, mut weights) = (vec![], vec![]);
    for epoch in 1..=case.option::<usize>("epochs")? {
        layer.forward(device, &input, Pass::train(0))?;
        let out = layer.output().trains("regression")?;
        let mut values = device.zeros(batch * outputs)?;
        device.read_trains(&TrainReadout::FirstTime { missing: f64::INFINITY }, out, &mut values)?;
        firsts.extend(host(device, &values)?.into_iter().map(|t| -t));
        let (mut losses, mut grad) = (device.zeros(batch)?, tensor(device, &vec![B::Real::ZERO; out.events(device)])?);
        device.spike_time_loss(out, &on_device, 1.0, &mut losses, &mut grad.data)?;
        layer.backward(device, &input, &mut grad, None)?;
        step(device, &mut layer, &mut moments, &option, batch)?;
        if wanted.contains(&epoch) {
            weights.extend(weight(device, &layer, false)?);
        }
    }
    case.compare("first_spike_per_epoch", &firsts);
    case.compare("weights_after", &weights);
    Ok(())
}

/// The hash that stands in for random weights, `[shape]`.
fn hashed(len: usize, (low, high): (f64, f64), salt: u64) -> Vec<f64> {
    let word = |i: usize| {
        let mut k = ((i as u64 + salt * 1_000_003) * 2_654_435_761) as u32;
        k = (k ^ (k >> 15)).wrapping_mul(2_246_822_519);
        k ^ (k >> 13)
    };
    (0..len).map(|i| f64::from((low + (high - low) * f64::from(word(i)) / 4_294_967_296.0) as f32)).collect()
}

fn hash_weights(case: &Case) -> Result<()> {
    let shape: Vec<usize> = case.option("shape")?;
    let bounds = (case.option("lo")?, case.option("hi")?);
    case.compare("weights", &hashed(shape.iter().product(), bounds, case.option("salt")?));
    Ok(())
}

/// The batches of MNIST's images in file order, and their labels.
fn mnist(case: &Case, batch: usize, images: usize) -> Result<Loader> {
    let split: String = case.option("split")?;
    let source =
        snn_data::open("mnist", &split, &OpenOptions { data_dir: super::data_folder(), ..Default::default() })?;
    let window_ms = 1000.0 * case.option::<f64>("time_window")?;
    let pipeline = Pipeline::new(Encode::Times { window_ms, most: 1 }, vec![], source.kind())?;
    let options = LoaderOptions { batch, limit: Some(images), ..LoaderOptions::default() };
    Ok(Loader::new(source, std::sync::Arc::new(pipeline), options)?)
}

/// The trains of a batch.
fn uploaded<B: Backend>(device: &B, input: &Input) -> Result<Activity<B>> {
    let Input::Trains(host) = input else { bail!("the encoding gave something else than spike trains") };
    let mut trains = Trains::empty(device, 0)?;
    trains.upload(device, host)?;
    Ok(Activity::Trains(trains))
}

fn latency_code(case: &Case) -> Result<()> {
    let images: Vec<usize> = case.option("images")?;
    let shape = &case.array("times")?.shape;
    let slots = shape[2];
    let last = images.iter().max().copied().unwrap_or_default();
    let (mut times, mut counts, mut labels) = (vec![], vec![], vec![]);
    for (index, batch) in mnist(case, 1, last + 1)?.enumerate() {
        let batch = batch?;
        let Input::Trains(events) = &batch.input else { bail!("no spike trains") };
        if !images.contains(&index) {
            continue;
        }
        let (mut t, mut n) = (vec![f64::INFINITY; shape[1] * slots], vec![0.0; shape[1]]);
        let (event_times, units) = events.sample(0);
        for (&time, &unit) in event_times.iter().zip(units) {
            t[unit as usize * slots] = f64::from(time);
            n[unit as usize] += 1.0;
        }
        times.extend(t);
        counts.extend(n);
        labels.push(f64::from(batch.labels[0]));
    }
    case.compare("times", &times);
    case.compare("counts", &counts);
    case.compare("labels", &labels);
    Ok(())
}

#[derive(Debug, Deserialize)]
struct InitOption {
    lo: f64,
    hi: f64,
    salt_h: u64,
    salt_o: u64,
}

fn mnist_train<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (batch, steps): (usize, usize) = (case.option("batch")?, case.option("steps")?);
    let (n_hidden, n_output): (usize, usize) = (case.option("n_hidden")?, case.option("n_output")?);
    let init: InitOption = case.option("init")?;
    let array = |shape: [usize; 2], salt: u64| Array {
        data: hashed(shape.iter().product(), (init.lo, init.hi), salt),
        shape: shape.to_vec(),
    };
    let (weights_h, weights_o) = (array([n_hidden, 784], init.salt_h), array([n_output, n_hidden], init.salt_o));
    case.compare("init_h_row0", &weights_h.data[..784]);
    case.compare("init_o", &weights_o.data);
    let mut layers =
        [dense(device, &neuron(case, "_h")?, &weights_h)?, dense(device, &neuron(case, "_o")?, &weights_o)?];
    let mut moments = [Moments::new(device, weights_h.data.len())?, Moments::new(device, weights_o.data.len())?];
    let (loss, option): (LossOption, OptimiserOption) = (case.option("loss")?, case.option("optimiser")?);
    let rows: usize = case.option::<usize>("rows_h")? * 784;
    let mut records: Vec<(&str, Vec<f64>)> = [
        "loss",
        "accuracy",
        "hidden_spikes",
        "output_spikes",
        "grad_norm_h",
        "grad_norm_o",
        "weight_norm_h",
        "weight_norm_o",
    ]
    .map(|name| (name, vec![]))
    .into();
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    for (index, next) in mnist(case, batch, batch * steps)?.enumerate() {
        let next = next?;
        let input = uploaded(device, &next.input)?;
        let [hidden, output] = &mut layers;
        hidden.forward(device, &input, Pass::train(0))?;
        output.forward(device, hidden.output(), Pass::train(0))?;
        let labels = Array { shape: vec![batch], data: next.labels.iter().map(|&l| f64::from(l)).collect() };
        let judged = loss.judge(device, case, output.output(), Some(&labels))?;
        let finite: Vec<f64> = judged.losses.iter().copied().filter(|l| l.is_finite()).collect();
        let hits = judged.predicted.iter().zip(&labels.data).filter(|(p, l)| p == l).count();
        let hidden_events = hidden.output().trains("h")?.events(device);
        let output_events = output.output().trains("o")?.events(device);
        let mut below = tensor(device, &vec![B::Real::ZERO; hidden_events])?;
        output.backward(device, hidden.output(), &mut tensor(device, &judged.errors)?, Some(&mut below))?;
        hidden.backward(device, &input, &mut below, None)?;
        let mean = 1.0 / batch as f64;
        let grad_h = scaled(weight(device, hidden, true)?, mean);
        let grad_o = scaled(weight(device, output, true)?, mean);
        if index == 0 {
            case.compare("step0_grad_h_rows", &grad_h[..rows]);
            case.compare("step0_grad_o", &grad_o);
        }
        for (layer, moments) in layers.iter_mut().zip(&mut moments) {
            step(device, layer, moments, &option, batch)?;
        }
        let values = [
            finite.iter().sum::<f64>() / finite.len().max(1) as f64,
            hits as f64 * mean,
            hidden_events as f64 * mean,
            output_events as f64 * mean,
            norm(&grad_h),
            norm(&grad_o),
            norm(&weight(device, &layers[0], false)?),
            norm(&weight(device, &layers[1], false)?),
        ];
        records.iter_mut().zip(values).for_each(|((_, list), value)| list.push(value));
    }
    let early: usize = case.option("early_steps")?;
    for (name, values) in &records {
        case.compare(&format!("{name}_early"), &values[..early]);
        case.compare(&format!("{name}_late"), &values[early..]);
    }
    case.compare("final_o", &weight(device, &layers[1], false)?);
    case.compare("final_h_rows", &weight(device, &layers[0], false)?[..rows]);
    Ok(())
}

#[derive(Debug, Deserialize)]
struct MetricOption {
    name: String,
    lambda: Option<f64>,
}

fn trained<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let mut hidden = dense(device, &neuron(case, "_h")?, case.array("weights_h")?)?;
    let mut output = dense(device, &neuron(case, "_o")?, case.array("weights_o")?)?;
    let images: usize = case.option("n_images")?;
    let metrics: Vec<MetricOption> = case.option("metrics")?;
    let first_images: usize = case.option("n_first_spike")?;
    let mut predicted: Vec<Vec<f64>> = vec![vec![]; metrics.len()];
    let mut hits = vec![0_usize; metrics.len()];
    let (mut hidden_counts, mut output_counts, mut firsts) = (vec![], vec![], vec![]);
    for batch in mnist(case, 50, images)? {
        let batch = batch?;
        let input = uploaded(device, &batch.input)?;
        hidden.forward(device, &input, Pass::evaluate(0))?;
        output.forward(device, hidden.output(), Pass::evaluate(0))?;
        let (h, o) = (hidden.output().trains("h")?, output.output().trains("o")?);
        hidden_counts.extend(counts(device, h)?.chunks(h.width).map(|c| c.iter().sum::<f64>()));
        output_counts.extend(counts(device, o)?);
        let read = |readout| -> Result<Vec<f64>> {
            let mut values = device.zeros(batch.labels.len() * o.width)?;
            device.read_trains(&readout, o, &mut values)?;
            host(device, &values)
        };
        firsts.extend(read(TrainReadout::FirstTime { missing: f64::INFINITY })?.into_iter().map(|t| -t));
        for ((metric, predicted), hits) in metrics.iter().zip(&mut predicted).zip(&mut hits) {
            let values = read(match (&*metric.name, metric.lambda) {
                ("count", _) => TrainReadout::Count,
                ("first_spike", _) => TrainReadout::FirstSpike { tau: 1.0 },
                ("decay", Some(rate)) => TrainReadout::Decay { rate, exact: false },
                (other, _) => bail!("unknown metric `{other}`"),
            })?;
            for (row, &label) in values.chunks(o.width).zip(&batch.labels) {
                let class = argmax(row);
                predicted.push(class as f64);
                *hits += usize::from(class == label as usize);
            }
        }
    }
    for ((metric, predicted), hits) in metrics.iter().zip(&predicted).zip(hits) {
        case.compare(&format!("pred_{}", metric.name), predicted);
        case.compare(&format!("accuracy_{}", metric.name), &[100.0 * hits as f64 / images as f64]);
    }
    case.compare("hidden_spikes_per_image", &hidden_counts);
    case.compare("output_counts", &output_counts);
    let width = output_counts.len() / images;
    case.compare("output_first_spike", &firsts[..first_images * width]);
    case.compare("mean_hidden_spikes", &[hidden_counts.iter().sum::<f64>() / images as f64]);
    case.compare("mean_output_spikes", &[output_counts.iter().sum::<f64>() / images as f64]);
    Ok(())
}

fn ttfs_loss<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let spikes = case.array("times")?;
    let out = Activity::Trains(trains(device, spikes)?);
    let loss = LossOption::Ttfs { tau_l: case.option("tau_l")? };
    let judged = loss.judge(device, case, &out, Some(case.array("labels")?))?;
    case.compare("pred", &judged.predicted);
    case.compare("loss", &judged.losses);
    let errors: Vec<f64> = judged.errors.iter().map(|e| e.value()).collect();
    let trains = out.trains("ttfs")?;
    let mut errors = padded(device, trains, spikes.shape[2], &errors, 0.0)?;
    // The original also pulls at the label's spike that did not come, which nobody reads.
    let want = case.array("errors")?;
    for ((error, want), time) in errors.iter_mut().zip(&want.data).zip(&spikes.data) {
        if time.is_infinite() {
            *error = *want;
        }
    }
    case.compare("errors", &errors);
    Ok(())
}

fn reset_errors(case: &Case) -> Result<()> {
    let (x, y, errors) = (case.array("x")?, case.array("post_exp_tau")?, case.array("errors_in")?);
    let drop: f64 = case.option("delta_theta_over_tau")?;
    // With a membrane time constant of 1 s the logarithm of y is the spike's time.
    let neuron = EventNeuron { reset: drop, ..EventNeuron::new(0.5, 1.0, f64::INFINITY, 1) };
    let slots = x.shape[2];
    let mut after = errors.data.clone();
    let rows = x.data.chunks(slots).zip(y.data.chunks(slots)).zip(after.chunks_mut(slots));
    for ((x, y), errors) in rows {
        let filled: Vec<usize> = (0..slots).filter(|&s| y[s].is_finite()).collect();
        let fired: Vec<Fired<f64>> = filled.iter().map(|&s| Fired { time: y[s].ln(), slope: x[s] / y[s] }).collect();
        let mut grads: Vec<f64> = filled.iter().map(|&s| errors[s]).collect();
        event::through_resets(&neuron, &fired, &mut grads);
        filled.iter().zip(grads).for_each(|(&s, g)| errors[s] = g);
    }
    case.compare("errors_out", &after);
    Ok(())
}

fn pool<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let [height, width, channels]: [usize; 3] = case.option("in_shape")?;
    let pool = Pool::new(Map::new(height, width, channels), case.option("window")?)?;
    let (host_events, sources) = events(case.array("in_times")?)?;
    case.array("in_counts")?;
    let mut input = Trains::empty(device, 0)?;
    input.upload(device, &host_events)?;
    let (mut out, mut source) = (Trains::empty(device, 0)?, device.zeros::<u32>(0)?);
    device.merge_trains(&pool, &input, &mut out, &mut source)?;
    let slots = compare_spikes(device, case, "out", &out)?;
    let from: Vec<f64> = device.to_host(&source)?.into_iter().map(|e| sources[e as usize] as f64).collect();
    case.compare("out_source", &padded(device, &out, slots, &from, -1.0)?);
    Ok(())
}

fn synaptic_scaling<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (weights, counts, shares) = (case.array("weights")?, case.array("counts")?, case.array("silent_ratio")?);
    let [outputs, inputs] = weights.shape[..] else { bail!("weights have axes {:?}", weights.shape) };
    let (threshold, factor): (f64, f64) = (case.option("threshold")?, case.option("factor")?);
    let weight = device.buffer_from(&lift::<B>(&weights.permuted(&[1, 0]).data))?;
    let sites = Synapses::Dense { inputs, outputs }.sites();
    let mut grads = Vec::new();
    for (counts, share) in counts.data.chunks(outputs).zip(&shares.data) {
        let counts: Vec<u32> = counts.iter().map(|&c| c as u32).collect();
        let amounts = event::scaling_amounts(&counts, &[*share], sites, threshold, factor);
        let (amounts, mut grad) = (device.buffer_from(&lift::<B>(&amounts))?, device.zeros(inputs * outputs)?);
        device.scale_synapses(&amounts, &weight, &mut grad)?;
        grads.extend(Array { shape: vec![inputs, outputs], data: host(device, &grad)? }.permuted(&[1, 0]).data);
    }
    case.compare("grad", &grads);
    Ok(())
}
