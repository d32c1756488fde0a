//! From networks of rectifiers to networks of neurons that spike at most once, and back.
//!
//! A dense layer, a convolution or a readout of a rectifier network has the weights of its single-spike twin; see
//! [`snn_core::neurons::ttfs`]. What lies between them is fused into the weights of the next one: the range `[p, q]` of the
//! data, which spike times see as `[0, 1]`, and batch normalisation behind a rectifier. Both multiply each channel of an
//! input by a factor and add an offset:
//!
//! ```text
//! y = kappa x + beta:   range: kappa = q - p, beta = p;   norm: kappa = gain / sqrt(variance + eps), beta = offset - mean kappa
//! W'[c, o] = kappa_c W[c, o],   b'_o = b_o + sum over the taps inside the map of beta_c W[c, o]           (MAP-1)
//! ```
//!
//! The zeros around a map have no offset, so `b'` differs where the kernel leaves the map: the shift then has a row for each
//! of the [`Borders`]. A maximum over windows becomes a minimum in channels with a negative factor behind it: the pool
//! has signs. Normalisation *before* a rectifier is fused into the layer itself. Dropout goes.
//!
//! [`estimate_windows`] makes windows as long as what the layers do with data.

use serde::{Deserialize, Serialize};
use snn_core::{Backend, Borders, Conv, Kind, Map, Pass, Real, Signal};
use snn_data::{Batch, Encode, LoaderOptions};

use crate::config::{
    Experiment, LayerConfig, ModelConfig, NeuronConfig, NoOptions, NormConfig, ReadoutNeuron, SlopeConfig, TtfsConfig,
};
use crate::error::{Error, Result};
use crate::losses::argmax;
use crate::stack::Stack;
use crate::trainer::{RunOptions, Split, Upload};

/// A network as data: its configuration and the values of its parameters, layer by layer, in double precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The layers.
    pub model: ModelConfig,
    /// What it takes.
    pub input: Signal,
    /// The values of each parameter, in the order of [`Stack::parameters`].
    pub values: Vec<Values>,
}

/// The values of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// The layer of the stack.
    pub layer: usize,
    /// The parameter's name.
    pub name: String,
    /// Axes.
    pub shape: Vec<usize>,
    /// Entries.
    pub data: Vec<f64>,
}

impl Network {
    /// Takes the values from a stack that was built from `model`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn of<B: Backend>(device: &B, model: &ModelConfig, stack: &Stack<B>) -> Result<Self> {
        let values = stack.parameters().map(|(layer, p)| {
            let data = device.to_host(&p.value.data)?.into_iter().map(Real::value).collect();
            Ok(Values { layer, name: p.name.to_owned(), shape: p.value.shape.clone(), data })
        });
        Ok(Self { model: model.clone(), input: stack.input(), values: values.collect::<Result<_>>()? })
    }

    /// Builds the stack on a device.
    ///
    /// # Errors
    ///
    /// If the layers do not fit each other, or the values the layers.
    pub fn build<B: Backend>(&self, device: &B) -> Result<Stack<B>> {
        let mut stack = Stack::build(device, &self.model, self.input, self.classes(), 0)?;
        let wanted = stack.parameters().map(|(layer, p)| (layer, p.name.to_owned(), p.value.shape.clone()));
        let wanted: Vec<_> = wanted.collect();
        for ((layer, name, shape), parameter) in wanted.into_iter().zip(stack.parameters_mut()) {
            let of = |v: &&Values| v.layer == layer && v.name == name;
            let Some(values) = self.values.iter().find(of).filter(|v| v.shape == shape) else {
                return Err(Error::config(
                    format!("layer {layer}: {name}"),
                    format!("has no values of shape {shape:?}"),
                ));
            };
            let lifted: Vec<B::Real> = values.data.iter().map(|&x| B::Real::lit(x)).collect();
            device.upload(&lifted, &mut parameter.value.data)?;
        }
        Ok(stack)
    }

    /// Outputs.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.values.iter().rfind(|v| v.name == "weight").and_then(|v| v.shape.last().copied()).unwrap_or(0)
    }

    fn find(&self, layer: usize, name: &str) -> Option<&[f64]> {
        self.values.iter().find(|v| v.layer == layer && v.name == name).map(|v| &v.data[..])
    }

    fn get(&self, layer: usize, name: &str) -> Result<&[f64]> {
        self.find(layer, name).ok_or_else(|| Error::config(format!("layer {layer}"), format!("has no `{name}`")))
    }

    /// Factor and offset of a normalisation whose parameters are those of `layer`.
    fn norm(&self, layer: usize, eps: f64) -> Result<Affine> {
        let [gain, offset, mean, variance] =
            ["norm_gain", "norm_offset", "norm_mean", "norm_variance"].map(|name| self.get(layer, name));
        let (gain, offset, mean, variance) = (gain?, offset?, mean?, variance?);
        let factor: Vec<f64> = gain.iter().zip(variance).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let offset = offset.iter().zip(mean.iter().zip(&factor)).map(|(o, (m, k))| o - m * k).collect();
        Ok(Affine { factor, offset, shifts: true, turns: true })
    }
}

/// `y = factor x + offset` for each channel.
#[derive(Debug, Clone)]
struct Affine {
    factor: Vec<f64>,
    offset: Vec<f64>,
    // Whether there can be an offset, and a factor of either sign: what a layer behind it must be prepared for, whatever the
    // numbers are, so that networks of one shape have twins of one shape.
    shifts: bool,
    turns: bool,
}

impl Affine {
    fn all(channels: usize, factor: f64, offset: f64) -> Self {
        Self { factor: vec![factor; channels], offset: vec![offset; channels], shifts: offset != 0.0, turns: false }
    }

    /// This one, then `next`.
    fn then(&self, next: &Self) -> Self {
        let factor = self.factor.iter().zip(&next.factor).map(|(a, b)| a * b).collect();
        let offsets = self.offset.iter().zip(next.factor.iter().zip(&next.offset));
        let offset = offsets.map(|(x, (k, b))| k * x + b).collect();
        Self { factor, offset, shifts: self.shifts || next.shifts, turns: self.turns || next.turns }
    }
}

/// Fuses what comes before a layer into its weights `[.., c, o]`, whose rows are input channels in turn, and its bias.
fn fuse(before: &Affine, weight: &[f64], bias: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (channels, outputs) = (before.factor.len(), bias.len());
    let mut shift = bias.to_vec();
    let mut fused = Vec::with_capacity(weight.len());
    for (row, weights) in weight.chunks(outputs.max(1)).enumerate() {
        let c = row % channels;
        fused.extend(weights.iter().map(|w| before.factor[c] * w));
        shift.iter_mut().zip(weights).for_each(|(b, w)| *b += before.offset[c] * w);
    }
    (fused, shift)
}

/// The shift of a convolution in every region: (MAP-1) with the taps that lie inside alone.
fn bordered(conv: &Conv, borders: &Borders, before: &Affine, weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let (channels, outputs) = (conv.input.channels, bias.len());
    let shift = |region: usize| {
        let [rows, columns] = borders.inside(region);
        let mut shift = bias.to_vec();
        for (tap, weights) in weight.chunks((channels * outputs).max(1)).enumerate() {
            if rows.contains(&(tap / conv.kernel_width)) && columns.contains(&(tap % conv.kernel_width)) {
                for (c, weights) in weights.chunks(outputs).enumerate() {
                    shift.iter_mut().zip(weights).for_each(|(b, w)| *b += before.offset[c] * w);
                }
            }
        }
        shift
    };
    (0..borders.regions()).flat_map(shift).collect()
}

/// What normalisation before a rectifier does to the weights and the bias of its layer.
fn scaled(norm: &Affine, weight: &[f64], bias: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let outputs = bias.len();
    let weight = weight.iter().enumerate().map(|(i, w)| w * norm.factor[i % outputs]).collect();
    let bias = bias.iter().zip(norm.factor.iter().zip(&norm.offset)).map(|(b, (k, o))| k * b + o).collect();
    (weight, bias)
}

/// The single-spike network that equals a network of rectifiers on data in `[low, high]`, which it sees as `[0, 1]`.
///
/// `neuron` says what its layers are apart from their shifts and windows; see [`estimate_windows`] for the latter.
///
/// # Errors
///
/// [`Error::Config`] naming the first layer that has no twin.
pub fn to_spikes(network: &Network, (low, high): (f64, f64), neuron: &TtfsConfig) -> Result<Network> {
    if !(low < high && low.is_finite() && high.is_finite()) {
        return Err(Error::config(format!("range {low} to {high}"), "must be two numbers, the lower one first"));
    }
    if neuron.slope != SlopeConfig::One {
        return Err(Error::config("neuron.slope", "must be `one`: weights are not those of rectifiers otherwise"));
    }
    let mut twin = Network {
        model: ModelConfig { layers: vec![], readout: network.model.readout.clone(), ..ModelConfig::default() },
        input: Signal { kind: Kind::Values, steps: 1, ..network.input },
        values: vec![],
    };
    let mut map = network.input.map;
    let mut before = Affine::all(map.channels, high - low, low);
    for (i, layer) in network.model.layers.iter().enumerate() {
        let stranger =
            |what: &str| Err(Error::config(format!("layer {i}"), format!("{what} has no single-spike twin; {TWINS}")));
        let at = |e: snn_core::Error| Error::config(format!("layer {i}"), e.to_string());
        match layer {
            LayerConfig::Dense {
                width,
                neuron: NeuronConfig::Relu(_),
                init,
                norm,
                delays: None,
                skip: false,
                field: 1,
                ..
            } => {
                let (weight, bias) = network.own(i, *norm, *width)?;
                let (weight, shift) = fuse(&before, &weight, &bias);
                let config = TtfsConfig { borders: false, ..*neuron };
                let layer = LayerConfig::Dense {
                    width: *width,
                    neuron: NeuronConfig::Ttfs(config),
                    init: *init,
                    skip: false,
                    bias: true,
                    norm: None,
                    delays: None,
                    field: 1,
                };
                twin.push(layer, &[map.len(), *width], weight, 1, shift, config.window());
                map = Map::new(1, 1, *width);
                before = Affine::all(*width, 1.0, 0.0);
            }
            LayerConfig::Conv {
                channels,
                kernel,
                kernel_width,
                stride,
                padding,
                padding_width,
                neuron: NeuronConfig::Relu(_),
                init,
                norm,
                ..
            } => {
                let sides = [*kernel, kernel_width.unwrap_or(*kernel)];
                let zeros = [*padding, padding_width.unwrap_or(*padding)];
                let conv = Conv::rectangle(map, *channels, sides, *stride, zeros).map_err(at)?;
                let (weight, bias) = network.own(i, *norm, *channels)?;
                let borders = before.shifts && zeros != [0, 0];
                let (fused, shift, regions) = if borders {
                    let borders = Borders::of(&conv);
                    let (fused, _) = fuse(&before, &weight, &bias);
                    (fused, bordered(&conv, &borders, &before, &weight, &bias), borders.regions())
                } else {
                    let (fused, shift) = fuse(&before, &weight, &bias);
                    (fused, shift, 1)
                };
                let config = TtfsConfig { borders, ..*neuron };
                let layer = LayerConfig::Conv {
                    channels: *channels,
                    kernel: *kernel,
                    kernel_width: *kernel_width,
                    stride: *stride,
                    padding: *padding,
                    padding_width: *padding_width,
                    neuron: NeuronConfig::Ttfs(config),
                    init: *init,
                    bias: true,
                    norm: None,
                };
                let shape = [sides[0], sides[1], map.channels, *channels];
                twin.push(layer, &shape, fused, regions, shift, config.window());
                map = conv.output();
                before = Affine::all(*channels, 1.0, 0.0);
            }
            LayerConfig::Norm { eps, .. } => before = before.then(&network.norm(i, *eps)?),
            LayerConfig::Pool { window, window_width, signed } => {
                // Signs of the network itself, then those of what is fused across the pool. Normalisation before a pool
                // has its factor behind it.
                let own = network.find(i, "sign").map_or(vec![1.0; map.channels], <[f64]>::to_vec);
                let sign: Vec<f64> =
                    own.iter().zip(&before.factor).map(|(s, k)| if *k < 0.0 { -s } else { *s }).collect();
                let signed = *signed || before.turns;
                let at_layer = twin.model.layers.len();
                let (rows, columns) = (*window, window_width.unwrap_or(*window));
                twin.model.layers.push(LayerConfig::Pool { window: *window, window_width: *window_width, signed });
                if signed {
                    let (name, shape) = ("sign".to_owned(), vec![map.channels]);
                    twin.values.push(Values { layer: at_layer, name, shape, data: sign });
                }
                map = Map::new(map.height / rows.max(1), map.width / columns.max(1), map.channels);
            }
            LayerConfig::Dropout { .. } => {}
            LayerConfig::AvgPool { .. } => return stranger("mean pooling"),
            LayerConfig::Dense { .. } => {
                return stranger("a dense layer with other neurons, a skip connection or delays");
            }
            LayerConfig::Conv { .. } => return stranger("a convolution with other neurons"),
        }
    }
    let last = network.model.layers.len();
    if !matches!(network.model.readout.neuron, ReadoutNeuron::None(_)) || network.model.readout.delays.is_some() {
        return Err(Error::config(
            "readout",
            "must have the neuron `none` and no delays: the membrane is read as it is",
        ));
    }
    let weight = network.get(last, "weight")?;
    let classes = weight.len() / map.len().max(1);
    let bias = network.find(last, "bias").map_or(vec![0.0; classes], <[f64]>::to_vec);
    let (weight, bias) = fuse(&before, weight, &bias);
    twin.model.readout.bias = true;
    let layer = twin.model.layers.len();
    twin.values.push(Values { layer, name: "weight".into(), shape: vec![map.len(), classes], data: weight });
    twin.values.push(Values { layer, name: "bias".into(), shape: vec![classes], data: bias });
    Ok(twin)
}

/// The experiment and the network that a trained network of rectifiers is mapped to; see [`to_spikes`].
///
/// Its data are scaled as those of `experiment`, and then from `range` to `[0, 1]`. Without a range it is `[0, 1]`, or `[-3, 3]`
/// of standardised values, as published.
///
/// # Errors
///
/// [`Error::Config`] if the data are no [`Encode::Values`], and as [`to_spikes`].
pub fn spiking_experiment(
    experiment: &Experiment,
    network: &Network,
    range: Option<(f64, f64)>,
    neuron: &TtfsConfig,
) -> Result<(Experiment, Network)> {
    let Encode::Values { mean, std, low, high } = experiment.data.encode.clone() else {
        let reason = "only networks on data.encode = { kind = \"values\" } have a single-spike twin";
        return Err(Error::config("data.encode", reason));
    };
    let usual = if mean.is_empty() && std.is_empty() { (0.0, 1.0) } else { (-3.0, 3.0) };
    let (bottom, top) = range.unwrap_or(usual);
    let network = to_spikes(network, (bottom, top), neuron)?;
    let mut twin = experiment.clone();
    twin.name = format!("{}-snn", twin.name);
    twin.model = network.model.clone();
    // Values are scaled twice, which is scaling once.
    let [low, high] = [bottom, top].map(|x| low + x as f32 * (high - low));
    twin.data.encode = Encode::Values { mean, std, low, high };
    Ok((twin, network))
}

/// The network of rectifiers that equals a single-spike network; it takes the same data in `[0, 1]`.
///
/// # Errors
///
/// [`Error::Config`] naming the first layer that has no twin: one with several regions, or with a slope of its own.
pub fn to_rectifiers(network: &Network) -> Result<Network> {
    let mut twin = network.clone();
    for (i, layer) in twin.model.layers.iter_mut().enumerate() {
        match layer {
            LayerConfig::Dense { neuron, .. } | LayerConfig::Conv { neuron, .. } => {
                let NeuronConfig::Ttfs(config) = neuron else {
                    return Err(Error::config(format!("layer {i}"), "has other neurons than ttfs"));
                };
                if config.borders || config.slope != SlopeConfig::One {
                    let reason = "has no twin: its shift depends on the place, or its slope on the weights";
                    return Err(Error::config(format!("layer {i}"), reason));
                }
                *neuron = NeuronConfig::Relu(NoOptions {});
            }
            _ => {}
        }
    }
    twin.values.retain(|v| v.name != "window");
    for values in twin.values.iter_mut().filter(|v| v.name == "shift") {
        values.name = "bias".into();
        values.shape.remove(0);
    }
    Ok(twin)
}

/// What messages say of layers that can be mapped.
const TWINS: &str =
    "dense layers and convolutions of rectifiers, batch normalisation, max pooling and dropout have one";

impl Network {
    /// Weight and bias of a layer, with normalisation before its rectifier fused in.
    fn own(&self, layer: usize, norm: Option<NormConfig>, outputs: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let weight = self.get(layer, "weight")?;
        let bias = self.find(layer, "bias").map_or(vec![0.0; outputs], <[f64]>::to_vec);
        match norm {
            Some(NormConfig::Batch { eps, .. }) => Ok(scaled(&self.norm(layer, eps)?, weight, &bias)),
            None => Ok((weight.to_vec(), bias)),
        }
    }

    fn push(
        &mut self,
        config: LayerConfig,
        shape: &[usize],
        weight: Vec<f64>,
        regions: usize,
        shift: Vec<f64>,
        window: f64,
    ) {
        let layer = self.model.layers.len();
        let channels = shift.len() / regions.max(1);
        self.model.layers.push(config);
        let mut value = |name: &str, shape: &[usize], data| {
            self.values.push(Values { layer, name: name.into(), shape: shape.to_vec(), data });
        };
        value("weight", shape, weight);
        value("shift", &[regions, channels], shift);
        value("window", &[1], vec![window]);
    }

    /// Sets the activations that the windows of the spiking layers are made for, in the configuration and the windows.
    ///
    /// # Panics
    ///
    /// If there are not as many as spiking layers.
    pub fn set_ranges(&mut self, ranges: &[f64]) {
        let mut ranges = ranges.iter();
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            let Some(config) = layer.ttfs_mut() else { continue };
            config.range = *ranges.next().expect("one range for each spiking layer");
            for window in self.values.iter_mut().filter(|v| v.layer == i && v.name == "window") {
                window.data = vec![config.window()];
            }
        }
    }
}

/// How the activation that a window is made for follows from those that come up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RangeRule {
    /// The largest.
    Largest,
    /// A quantile of those of neurons that fire, in `(0, 1]`.
    Quantile(f64),
}

/// Bins between 0 and the largest activation, for quantiles.
const BINS: usize = 4096;

/// The activation X_n of every spiking layer of `stack` over the samples of `split`, after `batch` at a time.
///
/// A layer that never fires gets the smallest positive number of single precision: a window must have a length.
///
/// # Errors
///
/// If the data cannot be read or the device fails.
pub fn estimate_windows<B: Backend>(
    device: &B,
    stack: &mut Stack<B>,
    split: &Split,
    batch: usize,
    rule: RangeRule,
) -> Result<Vec<f64>> {
    if let RangeRule::Quantile(share) = rule
        && !(share > 0.0 && share <= 1.0)
    {
        return Err(Error::config(format!("quantile {share}"), "must be above 0, at most 1"));
    }
    let mut largest: Vec<f64> = Vec::new();
    each_batch(device, stack, split, batch, |stack, _| {
        let peaks = stack.layers().filter_map(|l| l.first_spikes()).map(|first| {
            let peaks = device.to_host(&first.census.peaks)?;
            Ok(peaks.into_iter().map(Real::value).fold(0.0, f64::max))
        });
        let peaks: Vec<f64> = peaks.collect::<Result<_>>()?;
        largest.resize(peaks.len(), 0.0);
        largest.iter_mut().zip(peaks).for_each(|(most, peak)| *most = peak.max(*most));
        Ok(())
    })?;
    if let RangeRule::Quantile(share) = rule {
        let mut counts = vec![vec![0_u64; BINS]; largest.len()];
        each_batch(device, stack, split, batch, |stack, _| {
            for ((first, counts), most) in
                stack.layers().filter_map(|l| l.first_spikes()).zip(&mut counts).zip(&largest)
            {
                for x in device.to_host(first.earliness)?.iter().map(|x| x.value()).filter(|x| *x > 0.0) {
                    counts[((x / most * BINS as f64) as usize).min(BINS - 1)] += 1;
                }
            }
            Ok(())
        })?;
        for (most, counts) in largest.iter_mut().zip(&counts) {
            let wanted = share * counts.iter().sum::<u64>() as f64;
            let mut below = 0.0;
            let bin = counts.iter().position(|&n| {
                below += n as f64;
                below >= wanted
            });
            // The upper edge of the bin that holds the quantile.
            *most *= bin.map_or(1.0, |bin| (bin + 1) as f64 / BINS as f64);
        }
    }
    Ok(largest.into_iter().map(|x| x.max(f32::MIN_POSITIVE.into())).collect())
}

/// Makes the windows of a network for what its layers do with the training samples of its experiment, without augmentation,
/// `batch` at a time. Gives the activations, and the number of samples.
///
/// # Errors
///
/// As [`estimate_windows`].
pub fn fit_windows<B: Backend>(
    device: &B,
    experiment: &mut Experiment,
    network: &mut Network,
    options: &RunOptions,
    batch: usize,
    rule: RangeRule,
) -> Result<(Vec<f64>, usize)> {
    let mut fit = experiment.clone();
    fit.data.augment.clear();
    let split = Split::train(&fit, options)?;
    let ranges = estimate_windows(device, &mut network.build(device)?, &split, batch, rule)?;
    network.set_ranges(&ranges);
    experiment.model = network.model.clone();
    Ok((ranges, split.len()))
}

/// Outputs whose best two differ by less than this are a tie, which rounding may break either way.
pub const TIE: f64 = 1e-4;

/// How far the outputs of two networks agree over the samples of their splits, `batch` at a time.
///
/// # Errors
///
/// If the data cannot be read or the device fails.
pub fn compare<B: Backend>(
    device: &B,
    (stack, split): (&mut Stack<B>, &Split),
    (other, other_split): (&mut Stack<B>, &Split),
    batch: usize,
) -> Result<Agreement> {
    let classes = stack.layers().last().map_or(1, |l| l.output_signal().width()).max(1);
    let (first, labels) = outputs(device, stack, split, batch)?;
    let (second, _) = outputs(device, other, other_split, batch)?;
    let mut agreement = Agreement::default();
    for ((a, b), &label) in first.chunks(classes).zip(second.chunks(classes)).zip(&labels) {
        for (x, y) in a.iter().zip(b) {
            agreement.difference = agreement.difference.max((x - y).abs());
            agreement.largest = agreement.largest.max(x.abs());
        }
        let (best, others) = (argmax(a), argmax(b));
        agreement.correct += usize::from(best == label as usize);
        agreement.others_correct += usize::from(others == label as usize);
        let next = a.iter().enumerate().filter(|(k, _)| *k != best).fold(f64::NEG_INFINITY, |m, (_, x)| m.max(*x));
        agreement.samples += 1;
        if a[best] - next > TIE {
            agreement.clear += 1;
            agreement.same += usize::from(others == best);
        }
    }
    Ok(agreement)
}

/// The outputs of a model for every sample of a split, one after the other, and the labels.
fn outputs<B: Backend>(device: &B, stack: &mut Stack<B>, split: &Split, batch: usize) -> Result<(Vec<f64>, Vec<u32>)> {
    let (mut outputs, mut labels) = (Vec::new(), Vec::new());
    each_batch(device, stack, split, batch, |stack, batch| {
        labels.extend_from_slice(&batch.labels);
        let values = device.to_host(&stack.output().values("the comparison")?.data)?;
        outputs.extend(values.into_iter().map(Real::value));
        Ok(())
    })?;
    Ok((outputs, labels))
}

/// How far two networks agree; see [`compare`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The largest difference of two outputs.
    pub difference: f64,
    /// The largest output.
    pub largest: f64,
    /// Samples.
    pub samples: usize,
    /// Of these, those that the first network puts into their class.
    pub correct: usize,
    /// The same of the second network.
    pub others_correct: usize,
    /// Of the samples, those whose best two outputs differ by more than [`TIE`].
    pub clear: usize,
    /// Of these, those for which both networks say the same class.
    pub same: usize,
}

/// Runs a model on every batch of a split, in order.
fn each_batch<B: Backend>(
    device: &B,
    stack: &mut Stack<B>,
    split: &Split,
    batch: usize,
    mut after: impl FnMut(&Stack<B>, &Batch) -> Result<()>,
) -> Result<()> {
    let mut upload = Upload::new(device, split.pipeline.signal());
    for (index, next) in split.loader(LoaderOptions { batch, ..LoaderOptions::default() })?.enumerate() {
        let next = next?;
        let input = upload.batch(device, &next)?;
        stack.forward(device, input, Pass::evaluate(index as u32))?;
        after(stack, &next)?;
    }
    Ok(())
}
