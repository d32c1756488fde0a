//! Weights of the SPSN and ParaLIF repositories, as NumPy archives of their state dictionaries.
//!
//! | parameter of layer k | SPSN | ParaLIF | ours |
//! |---|---|---|---|
//! | weights, `[N, M]` there, `[M, N]` here | `k.fc.weight` | `2k.weight` | `k.weight` |
//! | bias | `k.fc.bias` | `2k.bias` | `k.bias` |
//! | threshold | - | `2k+1._spk_threshold` | `k.threshold` |
//! | stored decays, where learned | - | `2k+1._alpha`, `2k+1._beta` | `k.alpha`, `k.beta` |
//! | recurrent weights and bias | - | `2k+1.fc_recu.weight`, `2k+1.fc_recu.bias` | `k.recurrent_weight`, `k.recurrent_bias` |
//!
//! Names may stand in a folder of the archive, such as `param/`. What is fixed here, because the experiment says so, is
//! neither read nor written.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzReader, NpzWriter};
use snn_core::{Backend, Kind, Parameter, Real, Signal};

use crate::checkpoint::write_atomic;
use crate::config::Experiment;
use crate::error::{Error, Result};
use crate::stack::Stack;

/// Whose names an archive has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `k.fc.weight`.
    Spsn,
    /// `2k.weight`.
    ParaLif,
}

impl Naming {
    /// The name of parameter `name` of layer `layer`, if the original has such a one.
    #[must_use]
    pub fn name(self, layer: usize, name: &str) -> Option<String> {
        Some(match (self, name) {
            (Self::Spsn, "weight" | "bias") => format!("{layer}.fc.{name}"),
            (Self::Spsn, _) => return None,
            (Self::ParaLif, "weight" | "bias") => format!("{}.{name}", 2 * layer),
            (Self::ParaLif, "threshold") => format!("{}._spk_threshold", 2 * layer + 1),
            (Self::ParaLif, "alpha" | "beta") => format!("{}._{name}", 2 * layer + 1),
            (Self::ParaLif, "recurrent_weight") => format!("{}.fc_recu.weight", 2 * layer + 1),
            (Self::ParaLif, "recurrent_bias") => format!("{}.fc_recu.bias", 2 * layer + 1),
            (Self::ParaLif, _) => return None,
        })
    }
}

/// An archive with the folder and the names that its weights have.
struct Archive<R: Read + Seek> {
    reader: NpzReader<R>,
    names: Vec<String>,
    folder: String,
    naming: Naming,
}

fn fail(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason: reason.into() }
}

impl<R: Read + Seek> Archive<R> {
    fn open(path: &Path, reader: R) -> Result<Self> {
        let mut reader = NpzReader::new(reader).map_err(|e| fail(path, format!("is no npz archive: {e}")))?;
        let names = reader.names().map_err(|e| fail(path, format!("its names cannot be read: {e}")))?;
        let names: Vec<String> = names.iter().map(|n| n.trim_end_matches(".npy").to_owned()).collect();
        for naming in [Naming::Spsn, Naming::ParaLif] {
            let first = naming.name(0, "weight").unwrap_or_default();
            let found = names.iter().find(|n| **n == first || n.ends_with(&format!("/{first}")));
            if let Some(found) = found {
                let folder = found[..found.len() - first.len()].to_owned();
                return Ok(Self { reader, names, folder, naming });
            }
        }
        let known = names.join(", ");
        Err(fail(path, format!("has no array `0.fc.weight` (SPSN) or `0.weight` (ParaLIF); it has: {known}")))
    }

    fn array(&mut self, path: &Path, name: &str) -> Result<Option<ArrayD<f64>>> {
        let full = format!("{}{name}", self.folder);
        if !self.names.contains(&full) {
            return Ok(None);
        }
        let file = format!("{full}.npy");
        if let Ok(single) = self.reader.by_name::<ndarray::OwnedRepr<f32>, IxDyn>(&file) {
            return Ok(Some(single.mapv(f64::from)));
        }
        let double = self.reader.by_name::<ndarray::OwnedRepr<f64>, IxDyn>(&file);
        double.map(Some).map_err(|e| fail(path, format!("{full}: {e}; expected float32 or float64")))
    }
}

/// A model with the weights of an archive, and the arrays in it that the model has no place for.
///
/// The experiment says what the layers are; their number and widths must be those of the archive.
///
/// # Errors
///
/// [`Error::Checkpoint`] naming the array that is missing or of another shape, with both shapes; [`Error::Io`].
pub fn import<B: Backend>(device: &B, path: &Path, experiment: &Experiment) -> Result<(Stack<B>, Vec<String>)> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut archive = Archive::open(path, BufReader::new(file))?;
    let last = experiment.model.layers.len();
    let mut sizes = |layer: usize| -> Result<(usize, usize)> {
        let name = archive.naming.name(layer, "weight").unwrap_or_default();
        let array = archive.array(path, &name)?;
        let array = array.ok_or_else(|| {
            fail(path, format!("has no array `{name}`, but the experiment has {last} hidden layers and a readout"))
        })?;
        match array.shape() {
            [outputs, inputs] => Ok((*outputs, *inputs)),
            other => Err(fail(path, format!("{name} has shape {other:?}, expected two axes"))),
        }
    };
    let ((_, inputs), (classes, _)) = (sizes(0)?, sizes(last)?);
    let input = Signal::flat(Kind::Spikes, 1, inputs);
    let mut stack = Stack::build(device, &experiment.model, input, classes, experiment.train.seed)?;
    let places: Vec<usize> = stack.parameters().map(|(layer, _)| layer).collect();
    let mut used = Vec::new();
    for (parameter, layer) in stack.parameters_mut().zip(places) {
        let fixed_decay = !parameter.learnable && matches!(parameter.name, "alpha" | "beta" | "threshold");
        let Some(name) = archive.naming.name(layer, parameter.name).filter(|_| !fixed_decay) else { continue };
        let array = archive.array(path, &name)?;
        let array = array.ok_or_else(|| fail(path, format!("has no array `{name}`, which the experiment asks for")))?;
        let values = ours(path, &name, parameter, &array)?;
        device.upload(&values, &mut parameter.value.data)?;
        used.push(format!("{}{name}", archive.folder));
    }
    let unused = archive.names.iter().filter(|n| n.starts_with(&archive.folder) && !used.contains(n));
    Ok((stack, unused.cloned().collect()))
}

/// The values of an array in the layout of a parameter.
fn ours<B: Backend>(path: &Path, name: &str, parameter: &Parameter<B>, array: &ArrayD<f64>) -> Result<Vec<B::Real>> {
    let ours = &parameter.value.shape[..];
    let view = if ours.len() == 2 { array.t() } else { array.view() };
    // One number for a whole layer is an array without axes there.
    if view.shape() != ours && !(view.len() == 1 && ours == [1]) {
        let mut want = ours.to_vec();
        want.reverse();
        return Err(fail(path, format!("{name} has shape {:?}, the experiment wants {want:?}", array.shape())));
    }
    Ok(view.iter().map(|&x| B::Real::lit(x)).collect())
}

/// Writes the weights of a model as an archive of 32-bit numbers with the names of an original.
///
/// # Errors
///
/// [`Error::Checkpoint`] naming a learned parameter that the original has no name for; [`Error::Io`].
pub fn export<B: Backend>(device: &B, stack: &Stack<B>, naming: Naming, path: &Path) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = NpzWriter::new_compressed(&mut bytes);
    let write_failed = |e: ndarray_npy::WriteNpzError| fail(path, format!("cannot be written: {e}"));
    for (layer, parameter) in stack.parameters() {
        let fixed = !parameter.learnable && !matches!(parameter.name, "weight" | "bias");
        let Some(name) = naming.name(layer, parameter.name) else {
            if fixed {
                continue;
            }
            let reason = format!("layer {layer} has learned `{}`, which {naming:?} has no name for", parameter.name);
            return Err(fail(path, reason));
        };
        if fixed {
            continue;
        }
        let host = device.to_host(&parameter.value.data)?;
        let values: Vec<f32> = host.iter().map(|x| x.value() as f32).collect();
        let shape = match parameter.value.shape[..] {
            [1] if parameter.name != "bias" => vec![],
            ref shape => shape.to_vec(),
        };
        let array = ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|e| fail(path, e.to_string()))?;
        let array = if shape.len() == 2 { array.t().as_standard_layout().into_owned() } else { array };
        writer.add_array(name, &array).map_err(write_failed)?;
    }
    writer.finish().map_err(write_failed)?;
    write_atomic(path, &bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;
    use snn_core::reference::Reference;

    fn values(stack: &Stack<Reference<f32>>) -> Vec<Vec<f32>> {
        stack.parameters().map(|(_, p)| p.value.data.clone()).collect()
    }

    #[test]
    fn weights_come_back_as_they_went() {
        let device = Reference::<f32>::new();
        let folder = tempfile::tempdir().unwrap();
        for (preset, naming, count) in [
            ("spsn-shd-gs", Naming::Spsn, 8),
            ("paralif-shd-sd-recurrent", Naming::ParaLif, 7),
            ("paralif-shd-lif-lt", Naming::ParaLif, 11),
        ] {
            let mut experiment = presets::find(preset).unwrap().experiment;
            for layer in 0..experiment.model.layers.len() {
                experiment.set(&format!("model.layers.{layer}.width=5")).unwrap();
            }
            let signal = Signal::flat(Kind::Spikes, 9, 7);
            let mut stack = Stack::build(&device, &experiment.model, signal, 3, 1).unwrap();
            for (i, p) in stack.parameters_mut().filter(|p| p.learnable).enumerate() {
                p.value.data.iter_mut().enumerate().for_each(|(k, x)| *x += (i * 100 + k) as f32 * 1e-3);
            }
            let path = folder.path().join(format!("{preset}.npz"));
            export(&device, &stack, naming, &path).unwrap();
            let names = NpzReader::new(File::open(&path).unwrap()).unwrap().names().unwrap();
            assert_eq!(names.len(), count, "{preset}: {names:?}");
            let (again, unused) = import(&device, &path, &experiment).unwrap();
            assert_eq!(values(&again), values(&stack), "{preset}");
            assert!(unused.is_empty(), "{unused:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let device = Reference::<f32>::new();
        let folder = tempfile::tempdir().unwrap();
        let experiment = presets::find("spsn-shd-sb").unwrap().experiment;
        let mut small = experiment.clone();
        small.set("model.layers.1.width=9").unwrap();
        let stack = Stack::build(&device, &small.model, Signal::flat(Kind::Spikes, 1, 7), 3, 1).unwrap();
        let path = folder.path().join("weights.npz");
        export(&device, &stack, Naming::Spsn, &path).unwrap();
        let message = import(&device, &path, &experiment).unwrap_err().to_string();
        assert!(message.contains("1.fc.weight has shape [9, 128], the experiment wants [128, 128]"), "{message}");

        let deeper = presets::find("paralif-shd-sd-recurrent").unwrap().experiment;
        let message = import(&device, &path, &deeper).unwrap_err().to_string();
        assert!(message.contains("weights.npz: "), "{message}");

        std::fs::write(&path, b"PK nothing").unwrap();
        let message = import(&device, &path, &experiment).unwrap_err().to_string();
        assert!(message.contains("is no npz archive"), "{message}");
    }
}
