//! Weights of BATS and of its follow-up: a folder with one NumPy file for each layer that has weights.
//!
//! | layer | there | ours |
//! |---|---|---|
//! | dense | `[n_post, n_pre]` | `[n_pre, n_post]` |
//! | convolution | `[c_out, fx, fy, c_in]` | `[k, k, c_in, c_out]` |
//!
//! Files are called `<layer name>_weights.npy`. The names are `Hidden layer 1`, `Hidden layer 2`, ... and `Output layer`;
//! hidden layers are numbered over all that have weights, convolutions among them, and pools have no file.
//! A folder with other names is read all the same if it has as many files as the model has layers with weights and their
//! shapes leave no choice.
//!
//! Files are written as 32-bit numbers and read as such or as 64-bit numbers, in either order of axes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::WriteNpyExt;
use snn_core::{Backend, Kind, Parameter, Real, Signal};
use snn_data::formats::npy::Array;

use crate::checkpoint::write_atomic;
use crate::config::{Experiment, LayerConfig, ReadoutNeuron};
use crate::error::{Error, Result};
use crate::stack::Stack;

/// How the names of all files end.
const SUFFIX: &str = "_weights.npy";

/// Found files that a message lists at most.
const LISTED: usize = 16;

fn fail(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason: reason.into() }
}

/// The file of layer `index` of so many that have weights.
fn file_name(index: usize, layers: usize) -> String {
    if index + 1 == layers { format!("Output layer{SUFFIX}") } else { format!("Hidden layer {}{SUFFIX}", index + 1) }
}

/// The file that a layer's weights are expected in, and its axes there; nothing where any length will do.
#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<Option<usize>>,
}

impl Slot {
    fn fits(&self, shape: &[usize]) -> bool {
        let fits = |(want, &got): (&Option<usize>, &usize)| want.map_or(got > 0, |want| want == got);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    fn axes(&self) -> String {
        let axes = self.shape.iter().map(|axis| axis.map_or_else(|| "any".into(), |n| n.to_string()));
        format!("[{}]", axes.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.axes())
    }
}

/// A file's numbers, the last axis fastest.
#[derive(Debug)]
struct Weights {
    path: PathBuf,
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Weights {
    fn read(path: PathBuf) -> Result<Self> {
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        Self::parse(path, &bytes)
    }

    fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self> {
        let array = Array::parse(bytes, &path, "npy header")?;
        if !array.is_float() {
            return Err(fail(&path, "holds whole numbers, expected float32 or float64"));
        }
        Ok(Self { shape: array.shape().to_vec(), values: array.values(), path })
    }

    /// Uploads the values in the layout of a parameter: the first axis, of the layer's neurons or maps, comes last.
    fn fill<B: Backend>(&self, device: &B, parameter: &mut Parameter<B>) -> Result<()> {
        let lift = |(at, &value): (usize, &f64)| {
            let real = B::Real::lit(value);
            if real.value().is_finite() {
                return Ok(real);
            }
            let place = place(at, &self.shape);
            let want = format!("expected finite {} numbers", B::Real::NAME);
            Err(fail(&self.path, format!("the weight at {place:?} is {value:e}, {want}")))
        };
        let values: Vec<B::Real> = self.values.iter().enumerate().map(lift).collect::<Result<_>>()?;
        let neurons = self.shape.first().copied().unwrap_or(1);
        Ok(device.upload(&transposed(&values, neurons), &mut parameter.value.data)?)
    }
}

/// A table of so many rows with its axes exchanged.
fn transposed<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let columns = values.len() / rows.max(1);
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// The index along each axis of the number at `at`.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (index, &axis) in place.iter_mut().zip(shape).rev() {
        (*index, at) = (at % axis, at / axis);
    }
    place
}

/// The names of all files of weights in a folder, sorted.
fn present(folder: &Path) -> Result<Vec<String>> {
    let io = |e| Error::io(folder)(e);
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder).map_err(io)?.collect::<std::io::Result<_>>().map_err(io)?;
    let names = entries.into_iter().filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|n| n.ends_with(SUFFIX)).collect();
    names.sort();
    Ok(names)
}

/// Whether this is a folder with files of weights.
#[must_use]
pub fn is_folder(path: &Path) -> bool {
    present(path).is_ok_and(|names| !names.is_empty())
}

/// Whether this is a model of event-driven neurons whose weights alone do not say how large it is, because it has maps:
/// then the data must.
#[must_use]
pub fn needs_data(experiment: &Experiment) -> bool {
    let model = &experiment.model;
    let event_driven = matches!(model.readout.neuron, ReadoutNeuron::Event(_));
    event_driven && model.layers.iter().any(|layer| !matches!(layer, LayerConfig::Dense { .. }))
}

/// The file of each slot, or nothing if the shapes leave none or a choice.
///
/// Where only one assignment is possible, there is always a slot that only one file fits; without it both are left.
fn assign(slots: &[Slot], files: &[Weights]) -> Option<Vec<usize>> {
    let mut taken: Vec<Option<usize>> = vec![None; slots.len()];
    for _ in slots {
        let forced = (0..slots.len()).filter(|&s| taken[s].is_none()).find_map(|s| {
            let free = (0..files.len()).filter(|f| !taken.contains(&Some(*f)));
            let mut fitting = free.filter(|&f| slots[s].fits(&files[f].shape));
            let only = fitting.next()?;
            fitting.next().is_none().then_some((s, only))
        });
        let (slot, file) = forced?;
        taken[slot] = Some(file);
    }
    taken.into_iter().collect()
}

fn listed(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}

/// Reads the file of every slot; also gives what a person may want to know about the choice.
fn choose(folder: &Path, slots: &[Slot]) -> Result<(Vec<Weights>, Vec<String>)> {
    let present = present(folder)?;
    let read = |name: &String| Weights::read(folder.join(name));
    if slots.iter().all(|slot| present.contains(&slot.name)) {
        let files = slots.iter().map(|slot| {
            let file = read(&slot.name)?;
            let fits = slot.fits(&file.shape);
            let reason = || format!("has shape {:?}, the experiment wants {}", file.shape, slot.axes());
            if fits { Ok(file) } else { Err(fail(&file.path, reason())) }
        });
        let files = files.collect::<Result<_>>()?;
        let spare = present.into_iter().filter(|name| slots.iter().all(|slot| slot.name != *name));
        let spare = listed(spare.map(|name| format!("`{name}`")));
        let note = (!spare.is_empty()).then(|| format!("files without a layer in the model, left out: {spare}"));
        return Ok((files, note.into_iter().collect()));
    }
    if present.len() == slots.len() {
        let files: Vec<Weights> = present.iter().map(read).collect::<Result<_>>()?;
        if let Some(order) = assign(slots, &files) {
            let pairs = order.iter().zip(slots).map(|(&f, slot)| format!("`{}` as `{}`", present[f], slot.name));
            let note = format!("files have other names, read by their shapes: {}", listed(pairs));
            let mut files: Vec<Option<Weights>> = files.into_iter().map(Some).collect();
            return Ok((order.iter().filter_map(|&f| files[f].take()).collect(), vec![note]));
        }
    }
    let missing = slots.iter().filter(|slot| !present.contains(&slot.name)).map(|slot| format!("`{}`", slot.name));
    let found = present.iter().take(LISTED).map(|name| match read(name) {
        Ok(file) => format!("`{name}` {:?}", file.shape),
        Err(_) => format!("`{name}`, which cannot be read"),
    });
    let mut found = listed(found);
    if present.len() > LISTED {
        found += &format!(" and {} more", present.len() - LISTED);
    }
    let found = if found.is_empty() { format!("no `*{SUFFIX}`") } else { found };
    let reason = format!(
        "has no {}, and no other files whose shapes leave one choice; expected {}; found {found}",
        listed(missing),
        listed(slots.iter().map(Slot::to_string))
    );
    Err(fail(folder, reason))
}

/// The axes that weights have there.
fn theirs(ours: &[usize]) -> Vec<usize> {
    let mut shape = ours.to_vec();
    shape.rotate_right(1);
    shape
}

/// The files of a model.
fn slots<B: Backend>(path: &Path, stack: &Stack<B>) -> Result<Vec<Slot>> {
    if !stack.is_event_driven() {
        return Err(foreign(path));
    }
    let layers = stack.parameters().count();
    let slot = |(index, (_, parameter)): (usize, (usize, &Parameter<B>))| Slot {
        name: file_name(index, layers),
        shape: theirs(&parameter.value.shape).into_iter().map(Some).collect(),
    };
    Ok(stack.parameters().enumerate().map(slot).collect())
}

fn foreign(path: &Path) -> Error {
    fail(path, "files of weights, one for each layer, are those of event-driven neurons, which the model has not")
}

/// A dense model with the weights of a folder, and what a person may want to know about the files.
///
/// The experiment says how many neurons the hidden layers have; the weights say how many inputs and classes there are.
///
/// # Errors
///
/// [`Error::Checkpoint`] naming the file that is missing, damaged, or of another shape, with both shapes, or the weight
/// that is no finite number; [`Error::Config`] if [`needs_data`]; [`Error::Io`].
pub fn import<B: Backend>(device: &B, folder: &Path, experiment: &Experiment) -> Result<(Stack<B>, Vec<String>)> {
    if !matches!(experiment.model.readout.neuron, ReadoutNeuron::Event(_)) {
        return Err(foreign(folder));
    }
    let mut widths = vec![None];
    for (i, layer) in experiment.model.layers.iter().enumerate() {
        let LayerConfig::Dense { width, .. } = layer else {
            let reason = "has maps, whose size the weights do not say: build the model for its data, then load them";
            return Err(Error::config(format!("model.layers.{i}"), reason));
        };
        widths.push(Some(*width));
    }
    widths.push(None);
    let layers = widths.len() - 1;
    let slots = widths.windows(2).enumerate();
    let slots = slots.map(|(i, pair)| Slot { name: file_name(i, layers), shape: vec![pair[1], pair[0]] });
    let (files, notes) = choose(folder, &slots.collect::<Vec<_>>())?;
    let (Some([_, inputs]), Some([classes, _])) =
        (files.first().map(|f| &f.shape[..]), files.last().map(|f| &f.shape[..]))
    else {
        unreachable!("every slot of a dense model has two axes and there is one at least")
    };
    let input = Signal::flat(Kind::Trains, 1, *inputs);
    let mut stack = Stack::build(device, &experiment.model, input, *classes, experiment.train.seed)?;
    files.iter().zip(stack.parameters_mut()).try_for_each(|(file, parameter)| file.fill(device, parameter))?;
    Ok((stack, notes))
}

/// Reads the weights of a folder into a model; gives what a person may want to know about the files.
///
/// # Errors
///
/// As [`import`].
pub fn load<B: Backend>(device: &B, folder: &Path, stack: &mut Stack<B>) -> Result<Vec<String>> {
    let (files, notes) = choose(folder, &slots(folder, stack)?)?;
    files.iter().zip(stack.parameters_mut()).try_for_each(|(file, parameter)| file.fill(device, parameter))?;
    Ok(notes)
}

/// Writes the weights of a model of event-driven neurons to a folder, which is made if it is not there.
///
/// # Errors
///
/// [`Error::Checkpoint`] if the model has other neurons; [`Error::Io`].
pub fn export<B: Backend>(device: &B, stack: &Stack<B>, folder: &Path) -> Result<()> {
    let slots = slots(folder, stack)?;
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for (slot, (_, parameter)) in slots.iter().zip(stack.parameters()) {
        let path = folder.join(&slot.name);
        let host = device.to_host(&parameter.value.data)?;
        let values: Vec<f32> = host.iter().map(|x| x.value() as f32).collect();
        let shape = theirs(&parameter.value.shape);
        let inputs = values.len() / shape.first().copied().unwrap_or(1).max(1);
        let array = ArrayD::from_shape_vec(IxDyn(&shape), transposed(&values, inputs));
        let array = array.map_err(|e| fail(&path, e.to_string()))?;
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).map_err(|e| fail(&path, format!("cannot be written: {e}")))?;
        write_atomic(&path, &bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snn_core::Map;
    use snn_core::reference::Reference;

    use super::*;
    use crate::presets;

    type Host = Reference<f32>;

    const FIRST: &str = "Hidden layer 1_weights.npy";
    const LAST: &str = "Output layer_weights.npy";

    fn values(stack: &Stack<Host>) -> Vec<Vec<f32>> {
        stack.parameters().map(|(_, p)| p.value.data.clone()).collect()
    }

    /// The experiment of two hidden layers with 6 and 5 neurons.
    fn experiment() -> Experiment {
        let mut experiment = presets::find("bats-fashion").unwrap().experiment;
        for set in ["model.layers.0.width=6", "model.layers.1.width=5"] {
            experiment.set(set).unwrap();
        }
        experiment
    }

    /// 7 inputs and 3 classes.
    fn stack(experiment: &Experiment, seed: u64) -> Stack<Host> {
        Stack::build(&Host::new(), &experiment.model, Signal::flat(Kind::Trains, 1, 7), 3, seed).unwrap()
    }

    fn file(descr: &str, order: &str, shape: &[usize], body: &[u8]) -> Vec<u8> {
        let shape = listed(shape.iter().map(usize::to_string));
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape},), }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn ones(shape: &[usize]) -> Vec<u8> {
        file("<f4", "False", shape, &1_f32.to_le_bytes().repeat(shape.iter().product()))
    }

    /// A folder with the exported weights of the experiment.
    fn exported() -> (tempfile::TempDir, Experiment) {
        let (folder, experiment) = (tempfile::tempdir().unwrap(), experiment());
        export(&Host::new(), &stack(&experiment, 1), folder.path()).unwrap();
        (folder, experiment)
    }

    /// What loading into a model and importing without one say.
    fn refusals(folder: &Path, experiment: &Experiment) -> [String; 2] {
        let mut model = stack(experiment, 1);
        let loaded = load(&Host::new(), folder, &mut model).unwrap_err();
        [loaded, import(&Host::new(), folder, experiment).unwrap_err()].map(|e| e.to_string())
    }

    #[test]
    fn dense_weights_come_back_as_they_went() {
        let device = Host::new();
        let (folder, experiment) = exported();
        let model = stack(&experiment, 1);
        let names = ["Hidden layer 1_weights.npy", "Hidden layer 2_weights.npy", "Output layer_weights.npy"];
        assert_eq!(present(folder.path()).unwrap(), names);
        let first = Weights::read(folder.path().join(FIRST)).unwrap();
        assert_eq!(first.shape, [6, 7], "neurons, inputs");
        let ours = &values(&model)[0];
        assert_eq!(first.values[2 * 7 + 3], f64::from(ours[3 * 6 + 2]), "from input 3 to neuron 2");

        let mut other = stack(&experiment, 2);
        assert_ne!(values(&other), values(&model));
        assert!(load(&device, folder.path(), &mut other).unwrap().is_empty());
        assert_eq!(values(&other), values(&model));
        let (imported, notes) = import(&device, folder.path(), &experiment).unwrap();
        assert_eq!((values(&imported), notes), (values(&model), vec![]));
        assert_eq!(imported.input().width(), 7);
    }

    #[test]
    fn filters_come_back_as_they_went() {
        let device = Host::new();
        let folder = tempfile::tempdir().unwrap();
        let mut experiment = presets::find("bats-mnist-conv").unwrap().experiment;
        experiment.set("model.layers.4.width=8").unwrap();
        assert!(needs_data(&experiment));
        let maps = Signal { kind: Kind::Trains, steps: 1, map: Map::new(16, 16, 1) };
        let build = |seed| Stack::build(&device, &experiment.model, maps, 3, seed).unwrap();
        let (model, mut other) = (build(1), build(2));
        export(&device, &model, folder.path()).unwrap();
        let shape = |name: &str| Weights::read(folder.path().join(name)).unwrap().shape;
        assert_eq!(shape(FIRST), [15, 5, 5, 1]);
        assert_eq!(shape("Hidden layer 2_weights.npy"), [40, 5, 5, 15], "a pool has no number");
        assert_eq!((shape("Hidden layer 3_weights.npy"), shape(LAST)), (vec![8, 40], vec![3, 8]));
        let second = Weights::read(folder.path().join("Hidden layer 2_weights.npy")).unwrap();
        let (filter, row, column, channel) = (30, 1, 3, 7);
        let ours = values(&model)[1][((row * 5 + column) * 15 + channel) * 40 + filter];
        assert_eq!(second.values[((filter * 5 + row) * 5 + column) * 15 + channel], f64::from(ours));
        assert!(load(&device, folder.path(), &mut other).unwrap().is_empty());
        assert_eq!(values(&other), values(&model));
        let message = import(&device, folder.path(), &experiment).unwrap_err().to_string();
        assert!(message.contains("model.layers.0: has maps"), "{message}");
    }

    #[test]
    fn wide_numbers_and_columns_first_are_read() {
        let (folder, experiment) = exported();
        let number = |neuron: usize, input: usize| 10.0 * neuron as f64 + input as f64 + 0.5;
        let columns = (0..7).flat_map(|input| (0..6).map(move |neuron| number(neuron, input)));
        let body: Vec<u8> = columns.flat_map(f64::to_le_bytes).collect();
        fs::write(folder.path().join(FIRST), file("<f8", "True", &[6, 7], &body)).unwrap();
        let (model, _) = import(&Host::new(), folder.path(), &experiment).unwrap();
        let rows = (0..7).flat_map(|input| (0..6).map(move |neuron| number(neuron, input) as f32));
        assert_eq!(values(&model)[0], rows.collect::<Vec<_>>());
    }

    #[test]
    fn other_names_are_read_where_shapes_leave_no_choice() {
        let device = Host::new();
        let (folder, experiment) = exported();
        let path = |name: &str| folder.path().join(name);
        for (from, to) in [(FIRST, "a_weights.npy"), ("Hidden layer 2_weights.npy", FIRST), (LAST, "0_weights.npy")] {
            fs::rename(path(from), path(to)).unwrap();
        }
        let want = "files have other names, read by their shapes: `a_weights.npy` as `Hidden layer 1_weights.npy`, \
                    `Hidden layer 1_weights.npy` as `Hidden layer 2_weights.npy`, \
                    `0_weights.npy` as `Output layer_weights.npy`";
        let mut model = stack(&experiment, 2);
        assert_eq!(load(&device, folder.path(), &mut model).unwrap(), [want]);
        let (imported, notes) = import(&device, folder.path(), &experiment).unwrap();
        assert_eq!(notes, [want]);
        let original = values(&stack(&experiment, 1));
        assert_eq!((values(&model), values(&imported)), (original.clone(), original));

        // The first hidden layer could as well be the second.
        let mut equal = experiment.clone();
        equal.set("model.layers.1.width=6").unwrap();
        for name in ["a_weights.npy", FIRST] {
            fs::write(path(name), ones(&[6, 6])).unwrap();
        }
        fs::write(path("0_weights.npy"), ones(&[3, 6])).unwrap();
        let message = import(&device, folder.path(), &equal).unwrap_err().to_string();
        assert!(
            message.contains("has no `Hidden layer 2_weights.npy`, `Output layer_weights.npy`, and no"),
            "{message}"
        );
    }

    #[test]
    fn files_too_many_are_named_and_left_out() {
        let (folder, experiment) = exported();
        fs::write(folder.path().join("Extra_weights.npy"), b"anything").unwrap();
        fs::write(folder.path().join("notes.txt"), b"anything").unwrap();
        let (_, notes) = import(&Host::new(), folder.path(), &experiment).unwrap();
        assert_eq!(notes, ["files without a layer in the model, left out: `Extra_weights.npy`"]);
    }

    #[test]
    fn missing_files_are_listed_with_those_that_are_there() {
        let (folder, experiment) = exported();
        fs::remove_file(folder.path().join(LAST)).unwrap();
        let [loaded, imported] = refusals(folder.path(), &experiment);
        let want = "has no `Output layer_weights.npy`, and no other files whose shapes leave one choice; \
                    expected `Hidden layer 1_weights.npy` [6, 7], `Hidden layer 2_weights.npy` [5, 6], \
                    `Output layer_weights.npy` [3, 5]; found `Hidden layer 1_weights.npy` [6, 7], \
                    `Hidden layer 2_weights.npy` [5, 6]";
        assert!(loaded.ends_with(want), "{loaded}");
        assert!(imported.contains("expected `Hidden layer 1_weights.npy` [6, any]"), "{imported}");

        fs::write(folder.path().join("c_weights.npy"), b"no numbers").unwrap();
        for message in refusals(folder.path(), &experiment) {
            assert!(message.contains("c_weights.npy: npy header: no npy signature, expected an npy file"), "{message}");
        }
        for i in 0..20 {
            fs::write(folder.path().join(format!("d{i:02}_weights.npy")), b"no numbers").unwrap();
        }
        for message in refusals(folder.path(), &experiment) {
            assert!(message.contains("`c_weights.npy`, which cannot be read, `d00"), "{message}");
            assert!(message.ends_with(" and 7 more"), "{message}");
        }

        let empty = tempfile::tempdir().unwrap();
        assert!(!is_folder(empty.path()));
        for message in refusals(empty.path(), &experiment) {
            assert!(message.ends_with("found no `*_weights.npy`"), "{message}");
        }
        assert!(matches!(import(&Host::new(), &empty.path().join("x"), &experiment), Err(Error::Io { .. })));
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let (folder, experiment) = exported();
        let path = folder.path().join(FIRST);
        let mut numbers = [0.5_f32; 42];
        let mut with = |at: usize, value: f32| {
            numbers[at] = value;
            let bytes = file("<f4", "False", &[6, 7], &numbers.map(f32::to_le_bytes).concat());
            numbers[at] = 0.5;
            bytes
        };
        let huge = file("<f8", "False", &[6, 7], &1e300_f64.to_le_bytes().repeat(42));
        for (bytes, want) in [
            (ones(&[5, 7]), "has shape [5, 7], the experiment wants [6, "),
            (ones(&[42]), "has shape [42], the experiment wants [6, "),
            (ones(&[6, 7, 1]), "has shape [6, 7, 1], the experiment wants [6, "),
            (file("<f4", "False", &[6, 0], &[]), "has shape [6, 0], the experiment wants [6, "),
            (with(2 * 7 + 3, f32::NAN), "the weight at [2, 3] is NaN, expected finite f32 numbers"),
            (with(5 * 7 + 6, f32::NEG_INFINITY), "the weight at [5, 6] is -inf, expected finite f32 numbers"),
            (huge, "the weight at [0, 0] is 1e300"),
            (file("<i4", "False", &[6, 7], &[0; 168]), "holds whole numbers, expected float32 or float64"),
            (file("<c8", "False", &[6, 7], &[0; 336]), "npy header: numbers of type \"<c8\""),
            (file(">f4", "False", &[6, 7], &[0; 168]), "numbers of type \">f4\", expected little-endian numbers"),
            (ones(&[6, 7])[..200].to_vec(), "npy header: shape (6, 7,) of <f4 with "),
            (file("<f4", "False", &[usize::MAX, 7], &[0; 168]), "expected as many as the shape says"),
            (file("<f4", "False", &[1 << 40, 1 << 22], &[0; 168]), "expected as many as the shape says"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'".to_vec(), "npy header: 20 bytes, expected a whole header"),
            (vec![], "npy header: no npy signature, expected an npy file"),
        ] {
            fs::write(&path, bytes).unwrap();
            for message in refusals(folder.path(), &experiment) {
                let place = format!("{}: ", path.display());
                assert!(message.starts_with(&place) && message.contains(want), "{message} is not {want}");
            }
        }
    }

    #[test]
    fn models_of_other_neurons_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let experiment = presets::find("block-shd").unwrap().experiment;
        let device = Host::new();
        let stack = Stack::build(&device, &experiment.model, Signal::flat(Kind::Spikes, 1, 7), 3, 1).unwrap();
        let want = "are those of event-driven neurons, which the model has not";
        for error in [
            export(&device, &stack, folder.path()).unwrap_err(),
            import(&device, folder.path(), &experiment).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            descr in "(<f4|<f8|>f4|<i4|[|]b1)",
            order in "(True|False|None)",
            shape in prop::collection::vec(0_usize..20, 0..4),
        ) {
            let _ = Weights::parse("x".into(), &bytes);
            let crafted = file(&descr, &order, &shape, &bytes);
            if let Ok(weights) = Weights::parse("x".into(), &crafted) {
                prop_assert_eq!(weights.values.len(), shape.iter().product::<usize>());
            }
            let mut cut = crafted;
            cut.truncate(bytes.len());
            let _ = Weights::parse("x".into(), &cut);
        }

        #[test]
        fn only_forced_assignments_are_found(
            wanted in prop::collection::vec((0_usize..3, 0_usize..3), 1..5),
            given in prop::collection::vec((1_usize..3, 1_usize..3), 5),
        ) {
            // Zero stands for any length.
            let axis = |n: usize| (n > 0).then_some(n);
            let slots: Vec<Slot> =
                wanted.iter().map(|&(a, b)| Slot { name: String::new(), shape: vec![axis(a), axis(b)] }).collect();
            let weights = |&(a, b): &(usize, usize)| Weights { path: "x".into(), shape: vec![a, b], values: vec![] };
            let files: Vec<Weights> = given[..slots.len()].iter().map(weights).collect();
            let mut all = vec![vec![]];
            for slot in &slots {
                let longer = |taken: Vec<usize>| {
                    let free = (0..files.len()).filter(|f| !taken.contains(f) && slot.fits(&files[*f].shape));
                    free.map(|f| [&taken[..], &[f]].concat()).collect::<Vec<_>>()
                };
                all = all.into_iter().flat_map(longer).collect();
            }
            let only = (all.len() == 1).then(|| all.remove(0));
            prop_assert_eq!(assign(&slots, &files), only);
        }
    }
}
