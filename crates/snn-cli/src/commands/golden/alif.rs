//! Runners of the alif-blocks system.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use snn_core::fit::{Raster, VanRossum};
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Activity, Backend, Kind, Lanes, Parameter, Pass, Signal, Spikes, Tensor};
use snn_train::Stack;
use snn_train::config::{
    AlifConfig, AlifGradientConfig, Init, IntegratorConfig, LayerConfig, LimitGradientConfig, LimitsConfig,
    ModelConfig, NeuronConfig, OptimiserConfig, ReadoutConfig, ReadoutNeuron, Reduce, ResetPath, SurrogateConfig,
};
use snn_train::fit::Cells;
use snn_train::layers::Cell as _;
use snn_train::layers::alif::AlifCell;
use snn_train::layers::project::{self, Around, Past};
use snn_train::losses::CrossEntropy;
use snn_train::metrics::{Explained, smooth};
use snn_train::optim::Optimiser;

use super::arrays::{activity, host, lift, set};
use super::{Implementation, ephys, on_devices};

/// The kinds of the system.
pub(super) const KINDS: &[&str] = &[
    "alif_layer",
    "alif_network",
    "alif_integrator",
    "alif_neuron_fit",
    "alif_metrics",
    "alif_events",
    "alif_spikedetect",
    "nwb",
];

/// Everything that implements a kind, or nothing for a kind of another system.
pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    match kind {
        "alif_layer" => on_devices!(layer),
        "alif_network" => on_devices!(network),
        "alif_integrator" => on_devices!(integrator),
        "alif_neuron_fit" => on_devices!(neuron_fit),
        "alif_metrics" => on_devices!(metrics),
        kind => ephys::implementations(kind),
    }
}

/// Golden arrays put time last; ours put neurons last.
const SWAP: [usize; 3] = [0, 2, 1];

/// `[B, T, N]` on the device back to the `[B, N, T]` of golden arrays.
fn back(lanes: Lanes, data: Vec<f64>) -> Vec<f64> {
    Array { shape: vec![lanes.batch, lanes.steps, lanes.width], data }.permuted(&SWAP).data
}

/// Weights `[N, 1, M, R]` of golden files, the present step last, as the `[M, R, N]` of ours, the present step first.
fn field_weight(array: &Array) -> Vec<f64> {
    let turned = array.permuted(&[2, 3, 0, 1]);
    flip_steps(&turned.data, turned.shape[1], turned.shape[2])
}

/// The way back of [`field_weight`].
fn field_weight_back(inputs: usize, steps: usize, outputs: usize, data: &[f64]) -> Vec<f64> {
    Array { shape: vec![inputs, steps, outputs], data: flip_steps(data, steps, outputs) }.permuted(&[2, 0, 1]).data
}

fn flip_steps(data: &[f64], steps: usize, outputs: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = data.chunks(outputs).collect();
    rows.chunks(steps).flat_map(|rows| rows.iter().rev().copied().flatten().copied()).collect()
}

#[derive(Debug, Deserialize)]
struct SurrogateOption {
    name: String,
    gamma: Option<f64>,
    height: Option<f64>,
    width: Option<f64>,
    offset: Option<f64>,
    side_width: Option<f64>,
    scale: Option<f64>,
}

impl SurrogateOption {
    fn config(&self) -> Result<SurrogateConfig> {
        match (self.name.as_str(), self.scale, self.gamma, self.height, self.width) {
            ("fast_sigmoid", Some(scale), ..) => Ok(SurrogateConfig::FastSigmoid { scale }),
            ("box_car", ..) => Ok(SurrogateConfig::Boxcar { half_width: 0.5 }),
            ("mg", _, Some(gain), Some(height), Some(width))
                if self.offset == Some(width) && self.side_width == Some(6.0 * width) =>
            {
                Ok(SurrogateConfig::MultiGaussian { height, width, gain })
            }
            _ => bail!("unknown surrogate {self:?}"),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Clip {
    beta: [f64; 2],
    p_abs: [f64; 2],
    b_abs: [f64; 2],
    gradient: String,
}

/// One of the two forms of a case: the prefix of its arrays, and the neurons.
fn forms(case: &Case, paths: [&str; 2]) -> Result<[(&'static str, AlifConfig); 2]> {
    let clip: Clip = case.option("clip")?;
    if !clip.gradient.starts_with("open") {
        bail!("clip.gradient `{}` is not supported, only `open`", clip.gradient);
    }
    let attached: String = case.option("control_adaptation")?;
    if attached != "attached" || case.option::<f64>("theta0")? != 1.0 {
        bail!("only attached adaptation and thresholds that begin at 1 are supported");
    }
    let path = |key: &str| -> Result<ResetPath> {
        Ok(if case.option::<bool>(key)? { ResetPath::Detached } else { ResetPath::Attached })
    };
    let config = AlifConfig {
        refractory: case.option("L")?,
        adapt: case.option("adapt")?,
        recurrent: case.option("recurrent")?,
        surrogate: case.option::<SurrogateOption>("surrogate")?.config()?,
        adaptation_path: ResetPath::Attached,
        limits: LimitsConfig {
            beta: clip.beta,
            decay: clip.p_abs,
            strength: clip.b_abs,
            gradient: LimitGradientConfig::Open,
        },
        ..AlifConfig::default()
    };
    let [steps, blocks] = [path(paths[0])?, path(paths[1])?];
    Ok([
        ("ctl", AlifConfig { gradient: AlifGradientConfig::Steps, spike_path: steps, ..config.clone() }),
        ("blk", AlifConfig { gradient: AlifGradientConfig::Blocks, spike_path: blocks, ..config }),
    ])
}

/// The golden name of a parameter of ours.
fn golden_name(ours: &str) -> &str {
    match ours {
        "weight" => "w_in",
        "recurrent_weight" => "w_rec",
        "beta" => "beta_raw",
        "decay" => "p_raw",
        "strength" => "b_raw",
        other => other,
    }
}

/// Values of a golden parameter in our layout.
fn ours(name: &str, array: &Array) -> Vec<f64> {
    match name {
        "weight" => field_weight(array),
        "recurrent_weight" => array.permuted(&[1, 0]).data,
        _ => array.data.clone(),
    }
}

/// Ours in the golden layout, of a parameter of `outputs` neurons that see `field` steps.
fn golden(name: &str, data: Vec<f64>, field: usize, outputs: usize) -> Vec<f64> {
    match name {
        "weight" => field_weight_back(data.len() / (field * outputs), field, outputs, &data),
        "recurrent_weight" => Array { shape: vec![outputs, outputs], data }.permuted(&[1, 0]).data,
        _ => data,
    }
}

fn layer<B: Backend>(device: &B, case: &Case) -> Result<()> {
    for (prefix, config) in forms(case, ["detach_spike_grad"; 2])? {
        run_layer(device, case, prefix, &config)?;
    }
    Ok(())
}

fn run_layer<B: Backend>(device: &B, case: &Case, prefix: &str, config: &AlifConfig) -> Result<()> {
    let lanes = Lanes::new(case.option("B")?, case.option("T")?, case.option("N")?);
    let (inputs, field): (usize, usize) = (case.option("M")?, case.option("R")?);
    let around = Around { bias: true, norm: None, gain: 1.0 };
    // The receptive field of one step is a dense layer; both must do.
    let past = if field == 1 { Past::None } else { Past::Field(field) };
    let mut projection = project::dense(device, (inputs, lanes.width), Init::default(), past, around, (0, 0))?;
    let mut cell = AlifCell::new(device, config, lanes.width, (0, 0))?;
    for p in projection.parameters_mut().into_iter().chain(cell.parameters_mut()) {
        set(device, p, &ours(p.name, case.array(&format!("param_{}", golden_name(p.name)))?))?;
    }
    let swapped = |name: &str| anyhow::Ok(case.array(name)?.permuted(&SWAP).data);
    let input = activity(device, lanes.with_width(inputs), &swapped("x")?)?;
    let (mut state, mut spikes) = (device.zeros(lanes.len())?, device.spikes());
    projection.forward(device, &input, lanes.rows(), Pass::train(0), &mut state)?;
    cell.forward(device, lanes, Pass::train(0), &mut state, &mut spikes)?;

    let fired: Vec<f64> = device.download_spikes(&spikes)?.to_dense();
    let (membrane, thresholds) = (host(device, &state)?, cell.thresholds(device, lanes, &state)?);
    case.compare("spikes", &back(lanes, fired.clone()));
    case.compare(&format!("{prefix}_mem"), &back(lanes, membrane.clone()));
    case.compare(&format!("{prefix}_v_th"), &back(lanes, thresholds.clone()));
    if prefix == "blk" {
        case.compare("blk_z", &back(lanes, crossings(lanes, config.refractory as usize + 1, &membrane, &thresholds)));
    }
    let upstream = swapped("upstream_spikes")?;
    let on_membrane = if case.option("membrane_adjoint")? { Some(swapped("upstream_mem")?) } else { None };
    let product = |g: &[f64], x: &[f64]| g.iter().zip(x).map(|(g, x)| g * x).sum::<f64>();
    let loss = product(&upstream, &fired) + on_membrane.as_ref().map_or(0.0, |g| product(g, &membrane));
    case.compare(&format!("{prefix}_loss"), &[loss]);

    let mut grad = device.buffer_from(&lift::<B>(&upstream))?;
    let on_membrane = on_membrane.map(|g| device.buffer_from(&lift::<B>(&g))).transpose()?;
    let mut sums = device.zeros(lanes.batch * lanes.width)?;
    cell.backward(device, lanes, &state, &mut grad, on_membrane.as_ref(), &mut sums)?;
    let mut grad_x = Tensor::zeros(device, &[lanes.batch, lanes.steps, inputs])?;
    projection.backward(device, &input, lanes.rows(), &grad, &sums, Some(&mut grad_x))?;
    case.compare(&format!("{prefix}_grad_x"), &back(lanes.with_width(inputs), host(device, &grad_x.data)?));
    for p in projection.parameters().into_iter().chain(cell.parameters()) {
        let grad = golden(p.name, host(device, &p.grad.data)?, field, lanes.width);
        case.compare(&format!("{prefix}_grad_{}", golden_name(p.name)), &grad);
    }
    if !config.recurrent {
        // Weights that take no part have no gradient; ours do not exist.
        case.array("param_w_rec")?;
        case.compare(&format!("{prefix}_grad_w_rec"), &vec![0.0; lanes.width * lanes.width]);
    }
    Ok(())
}

/// z: how often the membrane lay above the threshold in its block so far, summed once more.
fn crossings(lanes: Lanes, block: usize, membrane: &[f64], thresholds: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; lanes.len()];
    for lane in 0..lanes.batch * lanes.width {
        let (mut once, mut twice) = (0.0, 0.0);
        for t in 0..lanes.steps {
            if t % block == 0 {
                (once, twice) = (0.0, 0.0);
            }
            let i = (lane / lanes.width * lanes.steps + t) * lanes.width + lane % lanes.width;
            once += f64::from(u8::from(membrane[i] > thresholds[i]));
            twice += once;
            out[i] = twice;
        }
    }
    out
}

/// The arrays of a network's layers by the golden names of layer and parameter.
fn named<'a, B: Backend>(
    stack: &'a Stack<B>,
    layers: &'a [String],
) -> impl Iterator<Item = (String, &'a Parameter<B>)> {
    stack.parameters().map(|(i, p)| (format!("{}_{}", layers[i], golden_name(p.name)), p))
}

#[derive(Debug, Deserialize)]
struct AdamOptions {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

fn network<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let sizes: [usize; 3] = [case.option("M")?, case.option("H")?, case.option("C")?];
    let lanes = Lanes::new(case.option("B")?, case.option("T")?, sizes[0]);
    let names: Vec<String> = case.option("layers")?;
    let adam: AdamOptions = case.option("adam")?;
    let labels: Vec<u32> = case.array("labels")?.data.iter().map(|&l| l as u32).collect();
    let input = activity(device, lanes, &case.array("x")?.permuted(&SWAP).data)?;
    for (prefix, neuron) in forms(case, ["detach_control", "detach_blocks"])? {
        let layer = || LayerConfig::dense(sizes[1], NeuronConfig::Alif(neuron.clone()), Init::default());
        let integrator = IntegratorConfig { learn_beta: true, ..IntegratorConfig::default() };
        let config = ModelConfig {
            layers: vec![layer(), layer()],
            readout: ReadoutConfig {
                reduce: Reduce::Sum,
                neuron: ReadoutNeuron::Integrator(integrator),
                ..ReadoutConfig::default()
            },
            ..ModelConfig::default()
        };
        let kind = if matches!(input, Activity::Spikes(_)) { Kind::Spikes } else { Kind::Sequence };
        let mut stack = Stack::build(device, &config, Signal::flat(kind, lanes.steps, sizes[0]), sizes[2], 0)?;
        let values: Vec<Vec<f64>> = named(&stack, &names)
            .map(|(name, p)| Ok(ours(p.name, case.array(&format!("init_{name}"))?)))
            .collect::<Result<_>>()?;
        for (p, values) in stack.parameters_mut().zip(&values) {
            set(device, p, values)?;
        }
        let optimiser = OptimiserConfig {
            learning_rate: adam.lr,
            beta1: adam.beta1,
            beta2: adam.beta2,
            eps: adam.eps,
            weight_decay: adam.weight_decay,
            ..OptimiserConfig::default()
        };
        let mut optimiser = Optimiser::new(device, optimiser, &stack)?;
        let mut loss = CrossEntropy::new(device)?;
        let mut losses = Vec::new();
        for step in 0..case.option("steps")? {
            stack.forward(device, &input, Pass::train(0))?;
            let scores = loss.forward(device, stack.output(), &labels)?;
            losses.push(scores.loss());
            stack.backward(device, &input, &loss.grad)?;
            if step == 0 {
                case.compare(&format!("{prefix}_logits"), &host(device, &stack.output().values("golden")?.data)?);
                for (layer, name) in stack.layers().zip(&names).take(2) {
                    let spikes = device.download_spikes(layer.spikes().context("a hidden layer has spikes")?)?;
                    case.compare(&format!("{prefix}_{name}_spikes"), &back(spikes.lanes(), spikes.to_dense()));
                }
                compare_all(device, case, &format!("{prefix}_grad"), &stack, &names, sizes, |p| &p.grad.data)?;
            }
            optimiser.update(device, &mut stack, adam.lr)?;
        }
        case.compare(&format!("{prefix}_losses"), &losses);
        compare_all(device, case, &format!("{prefix}_final"), &stack, &names, sizes, |p| &p.value.data)?;
    }
    Ok(())
}

/// Compares what `of` takes of every parameter of a network.
fn compare_all<B: Backend>(
    device: &B,
    case: &Case,
    prefix: &str,
    stack: &Stack<B>,
    names: &[String],
    sizes: [usize; 3],
    of: impl Fn(&Parameter<B>) -> &B::Buffer<B::Real>,
) -> Result<()> {
    for (name, p) in named(stack, names) {
        let outputs = if name.starts_with(names[2].as_str()) { sizes[2] } else { sizes[1] };
        case.compare(&format!("{prefix}_{name}"), &golden(p.name, host(device, of(p))?, 1, outputs));
    }
    Ok(())
}

/// The readout: one integrator, which the block model computes as one block; both forms must agree.
fn integrator<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let lanes = Lanes::new(case.option("B")?, case.option("T")?, case.option("C")?);
    let inputs: usize = case.option("M")?;
    let config = ReadoutConfig {
        neuron: ReadoutNeuron::Integrator(IntegratorConfig { learn_beta: true, ..IntegratorConfig::default() }),
        ..ReadoutConfig::default()
    };
    let around = Around { bias: true, norm: None, gain: 1.0 };
    let mut projection = project::dense(device, (inputs, lanes.width), config.init, Past::None, around, (0, 0))?;
    for p in projection.parameters_mut() {
        set(device, p, &ours(p.name, case.array(&format!("param_{}", golden_name(p.name)))?))?;
    }
    let beta = device.buffer_from(&lift::<B>(&case.array("param_beta_raw")?.data))?;
    let leak = || snn_core::backend::Leak { beta_raw: &beta, initial: None };
    let neuron = snn_core::neurons::lif::LifNeuron::new(snn_core::neurons::lif::LifKind::Integrator);
    let input = activity(device, lanes.with_width(inputs), &case.array("x")?.permuted(&SWAP).data)?;
    let mut state = device.zeros(lanes.len())?;
    projection.forward(device, &input, lanes.rows(), Pass::train(0), &mut state)?;
    device.lif_forward(&neuron, lanes, leak(), &mut state, &mut device.spikes())?;
    let membrane = host(device, &state)?;
    let mut sum = device.zeros(lanes.batch * lanes.width)?;
    device.sum_steps(lanes, &state, &mut sum)?;

    let upstream = device.buffer_from(&lift::<B>(&case.array("upstream")?.permuted(&SWAP).data))?;
    let mut grad = device.zeros(lanes.len())?;
    let lane_count = lanes.batch * lanes.width;
    let (mut on_beta, mut sums) = (device.zeros(lane_count)?, device.zeros(lane_count)?);
    let leak_grad = snn_core::backend::LeakGrad {
        membrane: Some(&upstream),
        beta: Some(&mut on_beta),
        initial: None,
        current_sum: Some(&mut sums),
    };
    device.lif_backward(&neuron, lanes, leak(), &state, &mut grad, leak_grad)?;
    let mut grad_x = Tensor::zeros(device, &[lanes.batch, lanes.steps, inputs])?;
    projection.backward(device, &input, lanes.rows(), &grad, &sums, Some(&mut grad_x))?;
    let mut total = device.zeros(lanes.width)?;
    device.sum_rows(lanes.batch, lanes.width, &on_beta, &mut total)?;
    for prefix in ["ctl", "blk"] {
        case.compare(&format!("{prefix}_mem"), &back(lanes, membrane.clone()));
        case.compare(&format!("{prefix}_logits"), &host(device, &sum)?);
        case.compare(&format!("{prefix}_grad_x"), &back(lanes.with_width(inputs), host(device, &grad_x.data)?));
        case.compare(&format!("{prefix}_grad_beta_raw"), &host(device, &total)?);
        for p in projection.parameters() {
            let grad = golden(p.name, host(device, &p.grad.data)?, 1, lanes.width);
            case.compare(&format!("{prefix}_grad_{}", golden_name(p.name)), &grad);
        }
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct VanRossumOption {
    len: usize,
    tau: f64,
    dt: f64,
}

/// Events `[entry, 3]` of sample, neuron and step.
fn entries(spikes: &Spikes, at: impl Fn(usize) -> usize) -> Vec<f64> {
    let lanes = spikes.lanes();
    let mut list: Vec<[usize; 3]> = (0..lanes.rows())
        .flat_map(|row| spikes.row(row).iter().map(move |&n| [row / lanes.steps, n as usize, row % lanes.steps]))
        .map(|[b, n, t]| [b, n, at(t)])
        .collect();
    list.sort_unstable();
    list.dedup();
    list.into_iter().flatten().map(|i| i as f64).collect()
}

/// One neuron on a long current.
fn neuron_fit<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let (batch, steps): (usize, usize) = (case.option("B")?, case.option("T")?);
    let (window, pool): (usize, usize) = (case.option("downsample")?, case.option("output_pool")?);
    let lanes = Lanes::new(batch, steps, 1);
    let peak: f64 = case.option("current_peak")?;
    // As the original has it: scaled in single precision, then the mean of each window.
    let fine: Vec<f32> = case.array("current_u8")?.data.iter().map(|&u| u as f32 / 255.0 * peak as f32).collect();
    let current: Vec<f64> =
        fine.chunks(window).map(|w| w.iter().map(|&x| f64::from(x)).sum::<f64>() / window as f64).collect();
    let raster = if pool > 1 { Raster::Pool(pool) } else { Raster::Spread(window) };
    let VanRossumOption { len, tau, dt } = case.option("van_rossum")?;
    let target_idx = case.array("target_idx")?;
    let events = target_idx.shape[1];
    let mut rows = vec![Vec::new(); batch * len];
    for (i, &t) in target_idx.data.iter().enumerate() {
        rows[i / events * len + t as usize] = vec![0_u32];
    }
    let mut target = device.spikes();
    device.upload_spikes(&Spikes::from_rows(batch, len, 1, rows)?, &mut target)?;

    for (prefix, config) in forms(case, ["detach_spike_grad"; 2])? {
        let mut cells = Cells::new(device, &config, 1, 1, 1.0)?;
        for p in cells.parameters_mut() {
            set(device, p, &case.array(&format!("param_{}", golden_name(p.name)))?.data)?;
        }
        // The original's weight of a neuron with itself takes no part.
        case.array("param_w_rec")?;
        let current = device.buffer_from(&lift::<B>(&current))?;
        cells.forward(device, lanes, &current)?;
        let spikes = device.download_spikes(cells.spikes())?;
        case.compare(&format!("{prefix}_coarse_spike_idx"), &entries(&spikes, |t| t));
        let fine = |t: usize| if pool > 1 { t / pool } else { t * window };
        case.compare(&format!("{prefix}_fine_spike_idx"), &entries(&spikes, fine));
        let membrane = back(lanes, host(device, cells.state())?);
        let first: Vec<f64> = membrane.chunks(steps).flat_map(|m| &m[..200]).copied().collect();
        case.compare(&format!("{prefix}_mem_first200"), &first);
        let distance = cells.distances(device, lanes, (&VanRossum { tau, dt }, raster, &target))?;
        cells.backward(device, lanes, &current)?;
        case.compare(&format!("{prefix}_loss"), &distance);
        for p in cells.parameters() {
            case.compare(&format!("{prefix}_grad_{}", golden_name(p.name)), &host(device, &p.grad.data)?);
        }
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct SmoothingOption {
    sigma: f64,
    raw: String,
    norm: String,
    normalised: String,
    smoothed_pred: String,
}

#[derive(Debug, Deserialize)]
struct DistanceOption {
    tau: f64,
    dt: f64,
    value: String,
    gradient: String,
}

fn metrics<B: Backend>(device: &B, case: &Case) -> Result<()> {
    let steps: usize = case.option("T")?;
    let (trials, pred) = (case.array("trials")?, case.array("pred")?);
    let segments: usize = case.option("segments")?;
    for option in case.option::<Vec<SmoothingOption>>("smoothing")? {
        let smoothed = |trial: &[f64]| -> Vec<f64> {
            trial.chunks(steps).flat_map(|segment| smooth(segment, option.sigma)).collect()
        };
        let model = smoothed(&pred.data);
        let recorded: Vec<Vec<f64>> = trials.data.chunks(segments * steps).map(smoothed).collect();
        let explained = Explained::of(&recorded, &model);
        case.compare(&option.smoothed_pred, &model);
        case.compare(&option.raw, &[explained.raw.context("silent trains")?]);
        case.compare(&option.norm, &[explained.norm.context("silent trains")?]);
        case.compare(&option.normalised, &[explained.normalised().context("silent trains")?]);
    }
    let lanes = Lanes::new(segments, steps, 1);
    let trial: usize = case.option("van_rossum_trial")?;
    let trains = |data: &[f64]| -> Result<B::Spikes> {
        let mut spikes = device.spikes();
        device.upload_spikes(&Spikes::from_dense(lanes, data)?, &mut spikes)?;
        Ok(spikes)
    };
    let (spikes, target) = (trains(&pred.data)?, trains(&trials.data[trial * lanes.len()..][..lanes.len()])?);
    for DistanceOption { tau, dt, value, gradient } in case.option::<Vec<DistanceOption>>("van_rossum")? {
        let (mut distance, mut grad) = (device.zeros(1)?, device.zeros(lanes.len())?);
        let filter = VanRossum { tau, dt };
        device.van_rossum(&filter, Raster::Spread(1), &spikes, &target, &mut distance, &mut grad)?;
        case.compare(&value, &host(device, &distance)?);
        case.compare(&gradient, &host(device, &grad)?);
    }
    Ok(())
}
