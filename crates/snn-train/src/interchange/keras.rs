//! Weights of Keras models, for networks of rectifiers and of neurons that spike once.
//!
//! Layers are told apart by what they hold and numbered in their order, every kind for itself:
//!
//! | layer | name there | arrays there, in this order | ours |
//! |---|---|---|---|
//! | convolution | `conv2d_1` ... | kernel `[kh, kw, c_in, c_out]`, bias `[c_out]` | `weight`, `bias` or `shift` |
//! | fused convolution | the same | kernel, bias `[9, c_out]`, two flags `[1]` | `weight`, `shift` |
//! | dense layer, readout last | `dense_1` ... | kernel `[in, out]`, bias `[out]` | `weight`, `bias` or `shift` |
//! | normalisation | `batch_normalization_1` ... | gamma, beta, moving mean, moving variance, each `[C]` | `norm_gain`, `norm_offset`, `norm_mean`, `norm_variance` |
//! | pooling of spike times | `max_min_pool2d`, `max_min_pool2d_1` ... | sign `[1, 1, 1, C]` | `sign` |
//!
//! The readout of a network without convolutions is called `dense_output`, and both names are read. Names of arrays do not
//! matter, their order does. Layers of the file without arrays are passed over.
//!
//! The nine rows of a fused convolution are those of [`snn_core::Borders::nine`]; they count where the first flag (a
//! normalisation was fused into this layer) is set and the second (it was before the rectifier) is not, otherwise the first
//! row is the bias everywhere. The lengths of windows are not in such files.

use std::collections::{BTreeMap, BTreeSet};

use snn_core::{Backend, Borders, Conv, Kind, Layer, Real};
use snn_data::formats::keras::{KerasArray, KerasFile, KerasLayer};

use crate::error::{Error, Result};
use crate::stack::Stack;

/// Rows of the bias of a fused convolution.
const ROWS: usize = 9;
/// The parameters of a normalisation with the names of the arrays.
const NORM: [(&str, &str); 4] = [
    ("norm_gain", "gamma"),
    ("norm_offset", "beta"),
    ("norm_mean", "moving_mean"),
    ("norm_variance", "moving_variance"),
];

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Layers of the file that were taken.
    pub taken: Vec<String>,
    /// Layers that the file does not have and that kept their values.
    pub kept: Vec<String>,
}

/// How a file fits a model; see [`compare`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Everything that does not fit, a sentence each.
    pub mismatches: Vec<String>,
    /// Layers of the model that the file does not have.
    pub missing: Vec<String>,
    report: Report,
    // The values of parameters, by layer and name.
    values: BTreeMap<(usize, &'static str), Vec<f64>>,
}

/// A layer of the model as Keras has it.
struct Place {
    layer: usize,
    // The name that is written comes first.
    names: Vec<String>,
    part: Part,
}

enum Part {
    /// A projection with its bias.
    Weights { kernel: Vec<usize>, bias: Option<Bias> },
    /// The four arrays of a normalisation, of so many channels.
    Norm(usize),
    /// The signs of a pooling layer of so many channels: whether it keeps them, and whether the file must have them.
    Sign { channels: usize, kept: bool, needed: bool },
}

/// A bias or shift of a layer.
struct Bias {
    /// `bias` or `shift`.
    parameter: &'static str,
    outputs: usize,
    /// How many there are for each output.
    regions: usize,
    /// The region of each of the nine rows, of a convolution that has them.
    nine: Option<[Option<usize>; ROWS]>,
    /// Whether it belongs to a convolution of neurons that spike once.
    fused: bool,
}

/// Gives a model the weights of a file. Nothing is changed unless everything fits.
///
/// With `keep_missing`, layers that the file does not have keep their values.
///
/// # Errors
///
/// [`Error::Config`] naming everything that does not fit, with both shapes; or if the device fails.
pub fn import<B: Backend>(device: &B, stack: &mut Stack<B>, file: &KerasFile, keep_missing: bool) -> Result<Report> {
    let found = compare(stack, file);
    let missing = found.missing.iter().filter(|_| !keep_missing).map(|name| format!("{name}: missing in the file"));
    let wrong: Vec<String> = missing.chain(found.mismatches).collect();
    if !wrong.is_empty() {
        return Err(Error::config("weights that do not fit the model", wrong.join("; ")));
    }
    let layers: Vec<usize> = stack.parameters().map(|(layer, _)| layer).collect();
    for (parameter, layer) in stack.parameters_mut().zip(layers) {
        if let Some(values) = found.values.get(&(layer, parameter.name)) {
            let values: Vec<B::Real> = values.iter().map(|&x| B::Real::lit(x)).collect();
            device.upload(&values, &mut parameter.value.data)?;
        }
    }
    Ok(Report { kept: found.missing, ..found.report })
}

/// Says how a file fits a model.
#[must_use]
pub fn compare<B: Backend>(stack: &Stack<B>, file: &KerasFile) -> Comparison {
    let (places, unknown) = places(stack);
    let mut found = Comparison { mismatches: unknown, ..Comparison::default() };
    let mut used = BTreeSet::new();
    for place in &places {
        let Some(layer) = place.names.iter().find_map(|name| file.layer(name)) else {
            if !matches!(place.part, Part::Sign { needed: false, .. }) {
                found.missing.push(place.names.join(" or "));
            }
            continue;
        };
        used.insert(layer.name.as_str());
        found.report.taken.push(layer.name.clone());
        place.take::<B>(layer, &mut found);
    }
    for layer in file.layers.iter().filter(|l| !l.weights.is_empty() && !used.contains(l.name.as_str())) {
        found.mismatches.push(format!("{}: nothing in the model takes its arrays {}", layer.name, shapes(layer)));
    }
    found
}

/// The weights of a model as a file.
///
/// # Errors
///
/// [`Error::Config`] naming what Keras has no place for; or if the device fails.
pub fn export<B: Backend>(device: &B, stack: &Stack<B>) -> Result<KerasFile> {
    let (places, unknown) = places(stack);
    if !unknown.is_empty() {
        return Err(Error::config("weights for Keras", unknown.join("; ")));
    }
    let mut values = BTreeMap::new();
    for (layer, parameter) in stack.parameters() {
        let host = device.to_host(&parameter.value.data)?;
        values.insert((layer, parameter.name), host.iter().map(|x| x.value()).collect::<Vec<f64>>());
    }
    let of = |layer: usize, name: &'static str| values.get(&(layer, name)).cloned().unwrap_or_default();
    let mut layers = Vec::new();
    for place in places {
        let name = place.names[0].clone();
        let array = |what: &str, shape: &[usize], values: Vec<f64>| KerasArray {
            name: format!("{name}/{what}:0"),
            shape: shape.to_vec(),
            values,
        };
        let weights = match place.part {
            Part::Weights { ref kernel, ref bias } => {
                let mut weights = vec![array("kernel", kernel, of(place.layer, "weight"))];
                if let Some(bias) = bias {
                    let given = of(place.layer, bias.parameter);
                    if bias.fused {
                        let nine = bias.rows(&given).ok_or_else(|| {
                            let reason = format!("{name}: its {} shifts have no place in nine rows", bias.regions);
                            Error::config("weights for Keras", reason)
                        })?;
                        let flag = f64::from(u8::from(bias.regions > 1));
                        weights.push(array("bias", &[ROWS, bias.outputs], nine));
                        weights.push(array("BN", &[1], vec![flag]));
                        weights.push(array("BN_before_ReLU", &[1], vec![0.0]));
                    } else {
                        weights.push(array("bias", &[bias.outputs], given));
                    }
                }
                weights
            }
            Part::Norm(channels) => {
                NORM.iter().map(|(ours, theirs)| array(theirs, &[channels], of(place.layer, ours))).collect()
            }
            Part::Sign { channels, kept, needed } => {
                let signs = if kept { of(place.layer, "sign") } else { vec![1.0; channels] };
                // Networks of rectifiers have no such layer unless they need it.
                if !needed && kept && signs.iter().all(|s| *s > 0.0) {
                    continue;
                }
                vec![array("sign", &[1, 1, 1, channels], signs)]
            }
        };
        layers.push(KerasLayer { name, weights });
    }
    Ok(KerasFile { layers })
}

/// What of a model goes where, and what has no place.
fn places<B: Backend>(stack: &Stack<B>) -> (Vec<Place>, Vec<String>) {
    let (mut places, mut unknown) = (Vec::new(), Vec::new());
    let spikes = stack.layers().any(|l| l.input().kind == Kind::Times || l.output_signal().kind == Kind::Times);
    let (mut convolutions, mut dense, mut norms, mut pools) = (0, 0, 0, 0);
    for (index, layer) in stack.layers().enumerate() {
        let parameters = layer.parameters();
        let names: Vec<&str> = parameters.iter().map(|p| p.name).filter(|name| *name != "window").collect();
        let shape = |name: &str| parameters.iter().find(|p| p.name == name).map(|p| &p.value.shape[..]);
        let (before, after) = (layer.input(), layer.output_signal());
        let smaller = after.map.height < before.map.height || after.map.width < before.map.width;
        if layer.name().starts_with("ttfs alpha") {
            let why = "its weights are currents, not those of a rectifier";
            unknown.push(format!("layer {index} ({}): {why}", layer.name()));
            continue;
        }
        let pool = names == ["sign"] || names.is_empty() && before.kind == Kind::Times && smaller;
        let (names, part) = match (shape("weight"), names.as_slice()) {
            (Some(kernel @ ([_, _] | [_, _, _, _])), ["weight"] | ["weight", "bias" | "shift"]) => {
                let bias = shape("bias").or(shape("shift")).map(|shape| {
                    let parameter = if names.contains(&"bias") { "bias" } else { "shift" };
                    Bias::of(layer, parameter, kernel, shape)
                });
                let name = if kernel.len() == 4 {
                    convolutions += 1;
                    format!("conv2d_{convolutions}")
                } else {
                    dense += 1;
                    format!("dense_{dense}")
                };
                (vec![name], Part::Weights { kernel: kernel.to_vec(), bias })
            }
            (None, found) if found.len() == NORM.len() && NORM.iter().all(|(name, _)| found.contains(name)) => {
                norms += 1;
                let channels = shape("norm_gain").map_or(0, |s| s.iter().product());
                (vec![format!("batch_normalization_{norms}")], Part::Norm(channels))
            }
            (None, found) if pool => {
                let name = if pools == 0 { "max_min_pool2d".into() } else { format!("max_min_pool2d_{pools}") };
                pools += 1;
                let kept = found == ["sign"];
                (vec![name], Part::Sign { channels: before.map.channels, kept, needed: spikes })
            }
            (_, []) => continue,
            (_, found) => {
                let held = found.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                unknown.push(format!("layer {index} ({}): Keras has no layer with {held}", layer.name()));
                continue;
            }
        };
        places.push(Place { layer: index, names, part });
    }
    // The readout has a name of its own where there is nothing but dense layers.
    let readout =
        places.iter_mut().rev().find(|p| matches!(&p.part, Part::Weights { kernel, .. } if kernel.len() == 2));
    if let Some(readout) = readout {
        readout.names.push("dense_output".into());
        if convolutions == 0 {
            readout.names.reverse();
        }
    }
    (places, unknown)
}

impl Place {
    /// Takes the arrays of a layer of the file, or says what is wrong with them.
    fn take<B: Backend>(&self, layer: &KerasLayer, found: &mut Comparison) {
        let at = self.layer;
        let place = |array: &KerasArray| format!("{}/{}", layer.name, array.name);
        let mut wrong = Vec::new();
        // Shape and values of an array; what fails both is reported once.
        let mut check = |array: &KerasArray, want: &[&[usize]]| -> Option<Vec<f64>> {
            if !want.iter().any(|want| array.shape == *want) {
                let want: Vec<String> = want.iter().map(|shape| format!("{shape:?}")).collect();
                let (got, want) = (&array.shape, want.join(" or "));
                wrong.push(format!("{} has shape {got:?}, layer {at} wants {want}", place(array)));
                return None;
            }
            if let Some(x) = array.values.iter().find(|x| !B::Real::lit(**x).value().is_finite()) {
                wrong.push(format!("{} holds {x}, expected finite numbers", place(array)));
                return None;
            }
            Some(array.values.clone())
        };
        let mut values = Vec::new();
        let mut want_arrays = None;
        match (&self.part, &layer.weights[..]) {
            (Part::Weights { kernel, bias: None }, [weight]) => {
                values.extend(check(weight, &[kernel]).map(|v| ("weight", v)));
            }
            (Part::Weights { kernel, bias: Some(bias) }, [weight, given, flags @ ..])
                if flags.is_empty() || flags.len() == 2 && kernel.len() == 4 =>
            {
                values.extend(check(weight, &[kernel]).map(|v| ("weight", v)));
                let (one, nine) = ([bias.outputs], [ROWS, bias.outputs]);
                let given_values = if kernel.len() == 4 { check(given, &[&one, &nine]) } else { check(given, &[&one]) };
                let flags: Vec<Option<bool>> =
                    flags.iter().map(|f| check(f, &[&[1], &[]]).map(|v| v.iter().any(|x| *x != 0.0))).collect();
                if let Some(given_values) = given_values
                    && !flags.contains(&None)
                {
                    let rows = given.shape.len() == 2;
                    let regional = rows && flags.first() == Some(&Some(true)) && flags.get(1) == Some(&Some(false));
                    match bias.ours(&given_values, regional) {
                        Ok(ours) => values.push((bias.parameter, ours)),
                        Err(reason) => wrong.push(format!("{}: layer {at} {reason}", place(given))),
                    }
                }
            }
            (Part::Weights { bias, .. }, _) => {
                want_arrays = Some(match bias {
                    None => "1: kernel",
                    Some(bias) if bias.fused => "2: kernel, bias; or 4: kernel, bias, and two flags",
                    Some(_) => "2: kernel, bias",
                });
            }
            (Part::Norm(channels), arrays) if arrays.len() == NORM.len() => {
                for ((ours, _), array) in NORM.into_iter().zip(arrays) {
                    values.extend(check(array, &[&[*channels]]).map(|v| (ours, v)));
                }
                if values.iter().any(|(name, v)| *name == "norm_variance" && v.iter().any(|x| *x < 0.0)) {
                    wrong.push(format!("{} holds a variance below 0", place(&arrays[3])));
                }
            }
            (Part::Norm(_), _) => want_arrays = Some("4: gamma, beta, moving mean, moving variance"),
            (Part::Sign { channels, kept, .. }, [sign]) => {
                if let Some(signs) = check(sign, &[&[1, 1, 1, *channels], &[*channels]]) {
                    let signs: Vec<f64> = signs.iter().map(|s| if *s < 0.0 { -1.0 } else { 1.0 }).collect();
                    if *kept {
                        values.push(("sign", signs));
                    } else if signs.contains(&-1.0) {
                        let reason = "takes no least of a channel: it needs `signed = true`";
                        wrong.push(format!("{}: layer {at} {reason}", place(sign)));
                    }
                }
            }
            (Part::Sign { .. }, _) => want_arrays = Some("1: sign"),
        }
        if let Some(want) = want_arrays {
            wrong.push(format!("{}: it has arrays {}, layer {at} wants {want}", layer.name, shapes(layer)));
        }
        found.mismatches.extend(wrong);
        found.values.extend(values.into_iter().map(|(name, v)| ((at, name), v)));
    }
}

impl Bias {
    fn of<B: Backend>(layer: &dyn Layer<B>, parameter: &'static str, kernel: &[usize], shape: &[usize]) -> Self {
        let outputs = shape.last().copied().unwrap_or(0);
        let regions = if shape.len() == 2 { shape[0] } else { 1 };
        let nine = match *kernel {
            [rows, columns, ..] if kernel.len() == 4 && regions > 1 => {
                let (from, to) = (layer.input().map, layer.output_signal().map);
                // Steps of one: what is around the map follows from the sizes.
                let around = |to: usize, kernel: usize, from: usize| {
                    (to + kernel).checked_sub(from + 1).filter(|twice| twice.is_multiple_of(2)).map(|twice| twice / 2)
                };
                let zeros = around(to.height, rows, from.height).zip(around(to.width, columns, from.width));
                let conv = zeros
                    .and_then(|(h, w)| Conv::rectangle(from, outputs, [rows, columns], 1, [h, w]).ok())
                    .filter(|conv| conv.output() == to);
                conv.map(|conv| Borders::of(&conv)).filter(|b| b.regions() == regions).and_then(|b| b.nine())
            }
            _ => None,
        };
        Self { parameter, outputs, regions, nine, fused: kernel.len() == 4 && parameter == "shift" }
    }

    /// Nine rows of the values of all regions, if they can be written so.
    fn rows(&self, given: &[f64]) -> Option<Vec<f64>> {
        let n = self.outputs;
        let of_row = if self.regions == 1 {
            let mut first = [None; ROWS];
            first[0] = Some(0);
            first
        } else {
            self.nine?
        };
        let mut rows = vec![0.0; ROWS * n];
        for (row, region) in of_row.into_iter().enumerate() {
            if let Some(region) = region {
                rows[row * n..][..n].copy_from_slice(&given[region * n..][..n]);
            }
        }
        Some(rows)
    }

    /// The values of all regions, of one row or of nine.
    fn ours(&self, given: &[f64], regional: bool) -> Result<Vec<f64>, &'static str> {
        let n = self.outputs;
        if !regional {
            return Ok(given[..n].repeat(self.regions));
        }
        if self.regions == 1 {
            let same = given.chunks_exact(n.max(1)).all(|row| row == &given[..n]);
            let reason = "has one shift for the whole map, the file others at its borders: it needs `borders = true`";
            return if same { Ok(given[..n].to_vec()) } else { Err(reason) };
        }
        let nine = self.nine.ok_or("is no convolution 3x3 with one zero around, which nine rows are made for")?;
        let mut ours = vec![0.0; self.regions * n];
        for (row, region) in nine.into_iter().enumerate() {
            if let Some(region) = region {
                ours[region * n..][..n].copy_from_slice(&given[row * n..][..n]);
            }
        }
        Ok(ours)
    }
}

/// The shapes of the arrays of a layer.
fn shapes(layer: &KerasLayer) -> String {
    let shapes: Vec<String> = layer.weights.iter().map(|w| format!("{:?}", w.shape)).collect();
    if shapes.is_empty() { "none".into() } else { shapes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Experiment;
    use snn_core::reference::Reference;
    use snn_core::{Activity, Map, Pass, Signal, Tensor};

    type Device = Reference<f32>;

    /// Two convolutions with normalisations, a pool and a dense layer.
    const RELU: &str = "[
        { kind = 'conv', channels = 2, kernel = 3, padding = 1, neuron = { model = 'relu' } },
        { kind = 'norm', eps = 1e-3 },
        { kind = 'conv', channels = 3, kernel = 3, padding = 1, neuron = { model = 'relu' } },
        { kind = 'norm', eps = 1e-3 },
        { kind = 'pool', window = 2, signed = true },
        { kind = 'dropout', p = 0.5 },
        { kind = 'dense', width = 5, neuron = { model = 'relu' } },
        { kind = 'norm', eps = 1e-3 },
    ]";
    const DENSE: &str = "[{ kind = 'dense', width = 5, neuron = { model = 'relu' } }]";
    /// The same network of neurons that spike once, with borders in the second convolution.
    const SPIKES: &str = "[
        { kind = 'conv', channels = 2, kernel = 3, padding = 1, neuron = { model = 'ttfs' } },
        { kind = 'conv', channels = 3, kernel = 3, padding = 1, neuron = { model = 'ttfs', borders = true } },
        { kind = 'pool', window = 2, signed = true },
        { kind = 'dense', width = 5, neuron = { model = 'ttfs' } },
    ]";

    fn build(layers: &str) -> Stack<Device> {
        let layers = layers.replace('\n', " ").replace(", ]", "]");
        let text = format!(
            "data = {{ set = 'x', encode = {{ kind = 'values' }} }}\n\
             model = {{ layers = {layers}, readout = {{ neuron = {{ model = 'none' }} }} }}"
        );
        let model = Experiment::from_toml("test", &text).unwrap().model;
        let input = Signal { kind: Kind::Values, steps: 1, map: Map::new(6, 4, 2) };
        Stack::build(&Reference::new(), &model, input, 4, 1).unwrap()
    }

    /// Gives every parameter values of its own; variances stay positive.
    fn fill(stack: &mut Stack<Device>, start: f32) {
        for (i, p) in stack.parameters_mut().enumerate().filter(|(_, p)| p.name != "window") {
            for (k, x) in p.value.data.iter_mut().enumerate() {
                *x = start + (i * 100 + k) as f32 / 64.0;
            }
            if p.name == "sign" {
                p.value.data.iter_mut().enumerate().for_each(|(k, x)| *x = if k % 2 == 0 { -1.0 } else { 1.0 });
            }
        }
    }

    fn values(stack: &Stack<Device>) -> Vec<(usize, &'static str, Vec<f32>)> {
        stack.parameters().map(|(layer, p)| (layer, p.name, p.value.data.clone())).collect()
    }

    fn names(file: &KerasFile) -> Vec<&str> {
        file.layers.iter().map(|l| l.name.as_str()).collect()
    }

    fn edited(file: &KerasFile, name: &str, edit: impl FnOnce(&mut KerasLayer)) -> KerasFile {
        let mut file = file.clone();
        edit(file.layers.iter_mut().find(|l| l.name == name).unwrap());
        file
    }

    #[test]
    fn weights_come_back_as_they_went() {
        let device = Device::new();
        for layers in [RELU, DENSE, SPIKES] {
            let mut stack = build(layers);
            fill(&mut stack, 0.25);
            let file = export(&device, &stack).unwrap();
            let mut again = build(layers);
            let report = import(&device, &mut again, &file, false).unwrap();
            assert_eq!(values(&again), values(&stack), "{layers}");
            assert_eq!(report.taken, names(&file));
            assert!(report.kept.is_empty());
        }
    }

    #[test]
    fn layers_have_the_published_names_and_orders() {
        let device = Device::new();
        let relu = export(&device, &build(RELU)).unwrap();
        let norm = |k: usize| format!("batch_normalization_{k}");
        let want = ["conv2d_1", &norm(1), "conv2d_2", &norm(2), "dense_1", &norm(3), "dense_2"];
        assert_eq!(names(&relu), want);
        let shapes = |name: &str| {
            let weights = &relu.layer(name).unwrap().weights;
            weights.iter().map(|w| (w.name.as_str(), w.shape.clone())).collect::<Vec<_>>()
        };
        assert_eq!(shapes("conv2d_2"), [("conv2d_2/kernel:0", vec![3, 3, 2, 3]), ("conv2d_2/bias:0", vec![3])]);
        assert_eq!(shapes("dense_1"), [("dense_1/kernel:0", vec![18, 5]), ("dense_1/bias:0", vec![5])]);
        let order: Vec<&str> = shapes("batch_normalization_1").iter().map(|(n, _)| *n).collect();
        let want = ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"].map(|n| format!("{}/{n}", norm(1)));
        assert_eq!(order, want);
        assert_eq!(names(&export(&device, &build(DENSE)).unwrap()), ["dense_1", "dense_output"]);

        let fused = export(&device, &build(SPIKES)).unwrap();
        assert_eq!(names(&fused), ["conv2d_1", "conv2d_2", "max_min_pool2d", "dense_1", "dense_2"]);
        let shapes =
            |name: &str| fused.layer(name).unwrap().weights.iter().map(|w| w.shape.clone()).collect::<Vec<_>>();
        assert_eq!(shapes("conv2d_2"), [vec![3, 3, 2, 3], vec![9, 3], vec![1], vec![1]]);
        assert_eq!(shapes("max_min_pool2d"), [[1, 1, 1, 3]]);
        let flags: Vec<f64> = ["conv2d_1", "conv2d_2"].map(|n| fused.layer(n).unwrap().weights[2].values[0]).into();
        assert_eq!(flags, [0.0, 1.0]);
    }

    #[test]
    fn names_of_arrays_and_layers_without_them_do_not_matter() {
        let device = Device::new();
        let mut stack = build(RELU);
        fill(&mut stack, 0.5);
        let mut file = export(&device, &stack).unwrap();
        for (i, array) in file.layers.iter_mut().flat_map(|l| &mut l.weights).enumerate() {
            array.name = format!("anything_{i}:0");
        }
        for name in ["dropout_1", "activation_3", "flatten_1"] {
            file.layers.insert(2, KerasLayer { name: name.into(), weights: vec![] });
        }
        let mut again = build(RELU);
        import(&device, &mut again, &file, false).unwrap();
        assert_eq!(values(&again), values(&stack));
        // Both names of the readout.
        for name in ["dense_output", "dense_2"] {
            let file = edited(&file, "dense_2", |l| l.name = name.into());
            import(&device, &mut build(RELU), &file, false).unwrap();
        }
    }

    #[test]
    fn everything_that_does_not_fit_is_said_at_once() {
        let device = Device::new();
        let mut stack = build(RELU);
        fill(&mut stack, 0.5);
        let before = values(&stack);
        let mut file = export(&device, &stack).unwrap();
        file.layers.retain(|l| l.name != "conv2d_2" && l.name != "batch_normalization_3");
        let array = |shape: &[usize]| KerasArray {
            name: "w".into(),
            shape: shape.to_vec(),
            values: vec![1.0; shape.iter().product()],
        };
        file.layers.push(KerasLayer { name: "dense_7".into(), weights: vec![array(&[3, 2]), array(&[2])] });
        let file = edited(&file, "conv2d_1", |l| l.weights[0] = array(&[5, 5, 2, 2]));
        let file = edited(&file, "dense_1", |l| l.weights.truncate(1));
        let file = edited(&file, "dense_2", |l| l.weights[1].values[2] = f64::NAN);
        let file = edited(&file, "batch_normalization_1", |l| drop(l.weights.pop()));
        let file = edited(&file, "batch_normalization_2", |l| l.weights[3].values[1] = -1.0);
        let wants = [
            "conv2d_2: missing in the file",
            "batch_normalization_3: missing in the file",
            "conv2d_1/w has shape [5, 5, 2, 2], layer 0 wants [3, 3, 2, 2]",
            "batch_normalization_1: it has arrays [2], [2], [2], layer 1 wants 4: gamma, beta",
            "batch_normalization_2/batch_normalization_2/moving_variance:0 holds a variance below 0",
            "dense_1: it has arrays [18, 5], layer 6 wants 2: kernel, bias",
            "dense_2/dense_2/bias:0 holds NaN, expected finite numbers",
            "dense_7: nothing in the model takes its arrays [3, 2], [2]",
        ];
        let error = import(&device, &mut stack, &file, false).unwrap_err();
        assert!(matches!(error, Error::Config { .. }));
        let message = error.to_string();
        for want in wants {
            assert!(message.contains(want), "{want}: {message}");
        }
        assert_eq!(message.split("; ").count(), wants.len(), "{message}");
        let found = compare(&stack, &file);
        assert_eq!((found.missing.len(), found.mismatches.len()), (2, 6));
        assert!(import(&device, &mut stack, &file, true).is_err(), "what is there must fit");
        assert_eq!(values(&stack), before, "nothing is changed");
    }

    #[test]
    fn missing_layers_keep_their_values_on_request() {
        let device = Device::new();
        let (mut given, mut stack) = (build(RELU), build(RELU));
        fill(&mut given, 0.5);
        fill(&mut stack, 7.0);
        let before = values(&stack);
        let mut file = export(&device, &given).unwrap();
        file.layers.retain(|l| !l.name.starts_with("dense"));
        let message = import(&device, &mut stack, &file, false).unwrap_err().to_string();
        assert!(message.contains("dense_1: missing in the file; dense_2 or dense_output: missing"), "{message}");
        let report = import(&device, &mut stack, &file, true).unwrap();
        assert_eq!(report.kept, ["dense_1", "dense_2 or dense_output"]);
        for ((old, new), want) in before.iter().zip(values(&stack)).zip(values(&given)) {
            let kept = new.1 == "weight" && [6, 8].contains(&new.0) || new.1 == "bias" && [6, 8].contains(&new.0);
            assert_eq!(&new, if kept { old } else { &want });
        }
    }

    #[test]
    fn nine_rows_go_to_the_regions_of_the_map() {
        let device = Device::new();
        let file = export(&device, &build(SPIKES)).unwrap();
        // Row r of every channel is r.
        let nine = |flags: [f64; 2]| {
            edited(&file, "conv2d_2", |l| {
                l.weights[1].values = (0..27).map(|i| f64::from(i / 3)).collect();
                l.weights[2].values[0] = flags[0];
                l.weights[3].values[0] = flags[1];
            })
        };
        let shift = |file: &KerasFile| {
            let mut stack = build(SPIKES);
            import(&device, &mut stack, file, false).unwrap();
            let (_, p) = stack.parameters().find(|(layer, p)| *layer == 1 && p.name == "shift").unwrap();
            p.value.data.iter().step_by(3).copied().collect::<Vec<f32>>()
        };
        // Regions come up row by row; the published rows begin inside and then go round from the top left.
        assert_eq!(shift(&nine([1.0, 0.0])), [1.0, 2.0, 3.0, 8.0, 0.0, 4.0, 7.0, 6.0, 5.0]);
        for flags in [[0.0, 0.0], [1.0, 1.0]] {
            assert_eq!(shift(&nine(flags)), [0.0; 9], "the first row is that of the whole map");
        }
        // A layer with one shift takes nine rows only if they are the same.
        let plain = edited(&nine([1.0, 0.0]), "conv2d_1", |l| {
            l.weights[2].values[0] = 1.0;
            l.weights[1].values = vec![0.5; 18];
        });
        shift(&plain);
        let plain = edited(&plain, "conv2d_1", |l| l.weights[1].values[2] = 0.25);
        let message = import(&device, &mut build(SPIKES), &plain, false).unwrap_err().to_string();
        assert!(message.contains("conv2d_1/conv2d_1/bias:0: layer 0 has one shift for the whole map"), "{message}");
        // Weights of the network of rectifiers fit as well, where nothing is normalised.
        let relu = edited(&file, "conv2d_1", |l| {
            l.weights.truncate(2);
            l.weights[1].shape = vec![2];
            l.weights[1].values = vec![0.25, 0.75];
        });
        shift(&relu);
    }

    #[test]
    fn signs_need_a_pool_that_keeps_them() {
        let device = Device::new();
        let mut stack = build(SPIKES);
        let file = export(&device, &stack).unwrap();
        let unsigned = || build(&SPIKES.replace(", signed = true", ""));
        import(&device, &mut unsigned(), &file, false).unwrap();
        assert_eq!(export(&device, &unsigned()).unwrap(), file);
        let file = edited(&file, "max_min_pool2d", |l| l.weights[0].values[1] = -1.0);
        import(&device, &mut stack, &file, false).unwrap();
        let message = import(&device, &mut unsigned(), &file, false).unwrap_err().to_string();
        assert!(message.contains("max_min_pool2d/max_min_pool2d/sign:0: layer 2 takes no least"), "{message}");
    }

    #[test]
    fn what_keras_has_no_layer_for_is_refused() {
        let device = Device::new();
        let alpha = SPIKES.replace(
            "width = 5, neuron = { model = 'ttfs'",
            "width = 5, neuron = { model = 'ttfs', slope = 'alpha-smart'",
        );
        let normed = DENSE.replace("width = 5,", "width = 5, norm = { kind = 'batch' },");
        let large = SPIKES.replace("channels = 3, kernel = 3, padding = 1", "channels = 3, kernel = 5, padding = 2");
        for (layers, want) in [
            (alpha, "weights are currents, not those of a rectifier"),
            (normed, "layer 0 (relu"),
            (large, "conv2d_2: its 20 shifts have no place in nine rows"),
        ] {
            let stack = build(&layers);
            let message = export(&device, &stack).unwrap_err().to_string();
            assert!(message.contains(want), "{want}: {message}");
        }
    }

    #[test]
    fn the_public_layout_is_read_into_its_network() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../snn-core/golden/ttfs/keras_vgg_tiny.h5");
        let file = snn_data::formats::keras::read(path.as_ref()).unwrap();
        let mut layers = Vec::new();
        let norm = "{ kind = 'norm', eps = 1e-3 }";
        for (block, channels) in [vec![2, 2], vec![3, 3], vec![4; 3], vec![5; 3], vec![5; 3]].into_iter().enumerate() {
            for c in channels {
                let neuron = "neuron = { model = 'relu' }";
                layers.push(format!("{{ kind = 'conv', channels = {c}, kernel = 3, padding = 1, {neuron} }}, {norm}"));
            }
            let sign = if block == 0 { ", signed = true" } else { "" };
            layers.push(format!("{{ kind = 'pool', window = 2{sign} }}"));
        }
        layers.push(format!("{{ kind = 'dense', width = 6, neuron = {{ model = 'relu' }} }}, {norm}"));
        let text = format!(
            "data = {{ set = 'x', encode = {{ kind = 'values' }} }}\n\
             model = {{ layers = [{}], readout = {{ neuron = {{ model = 'none' }} }} }}",
            layers.join(", ")
        );
        let model = Experiment::from_toml("test", &text).unwrap().model;
        let input = Signal { kind: Kind::Values, steps: 1, map: Map::new(32, 32, 3) };
        let device = Device::new();
        let mut stack = Stack::build(&device, &model, input, 10, 1).unwrap();
        let report = import(&device, &mut stack, &file, false).unwrap();
        assert_eq!(report.taken.len(), 13 + 14 + 2);
        let again = export(&device, &stack).unwrap();
        let with_weights: Vec<&KerasLayer> = file.layers.iter().filter(|l| !l.weights.is_empty()).collect();
        assert_eq!(again.layers.iter().collect::<Vec<_>>(), with_weights);
        let mut x = Tensor::zeros(&device, &[1, input.width()]).unwrap();
        x.data.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32 / 7.0 - 0.5);
        stack.forward(&device, &Activity::Values(x), Pass::evaluate(0)).unwrap();
        let Activity::Values(logits) = stack.output() else { panic!("logits are values") };
        assert!(logits.data.iter().all(|z| z.is_finite()) && logits.data.iter().any(|z| *z != logits.data[0]));
    }
}
