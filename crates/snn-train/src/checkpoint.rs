//! Checkpoints: safetensors files and a manifest, written so that a kill at any moment loses nothing.
//!
//! A file is written to a temporary sibling, flushed to the disk and renamed; the manifest is renamed last and names
//! the state file with its digest, so what it points to is always complete. Whatever it does not name is deleted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snn_core::{Backend, Real};

use crate::error::{Error, Result};
use crate::losses::Scores;
use crate::optim::Optimiser;
use crate::stack::Stack;
use crate::trainer::EpochRecord;

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Finished epochs.
    pub epoch: u32,
    /// Finished batches of the current epoch.
    pub batch: usize,
    /// What the finished batches of the current epoch came to.
    pub scores: PartialScores,
    /// What the best epoch so far came to, the lower the better: its training loss, or what else
    /// [`Keep`](crate::config::Keep) chooses by.
    pub best: Option<f64>,
    /// The epoch that gave it.
    pub best_epoch: u32,
    /// Optimiser steps since its last fresh start.
    pub optimiser_step: u64,
    /// Finished epochs in detail.
    pub history: Vec<EpochRecord>,
    /// Seconds spent in earlier sessions, the current epoch excluded.
    pub seconds: f64,
    /// The epoch after which training was given up, if it was.
    pub collapsed: Option<u32>,
}

/// Sums over the finished batches of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialScores {
    /// Samples.
    pub samples: usize,
    /// Sum of finite losses.
    pub loss_sum: f64,
    /// Samples with infinite loss.
    pub infinite: usize,
    /// Updates left out because their gradient was not finite.
    pub skipped: usize,
    /// Correct samples.
    pub correct: usize,
    /// Hidden spikes.
    pub spikes: u64,
    /// Of neurons that spike at most once: spikes that would have come before their window.
    #[serde(default)]
    pub early: u64,
}

impl PartialScores {
    /// Adds a batch.
    pub fn add(&mut self, scores: Scores, (spikes, early): (u64, u64)) {
        self.samples += scores.samples;
        self.loss_sum += scores.loss_sum;
        self.infinite += scores.infinite;
        self.correct += scores.correct;
        self.spikes += spikes;
        self.early += early;
    }

    /// Without the spikes.
    #[must_use]
    pub fn scores(&self) -> Scores {
        let Self { samples, loss_sum, infinite, correct, .. } = *self;
        Scores { samples, loss_sum, infinite, correct }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    experiment: String,
    state: String,
    state_sha256: String,
    best: Option<String>,
    log_bytes: u64,
    progress: Progress,
}

const FORMAT: u32 = 2;

/// Writes a file under its final name only when it is complete and on the disk.
///
/// # Errors
///
/// [`Error::Io`]; the temporary file is then removed and whatever had the final name is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.part"));
    let attempt = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    attempt().map_err(|e| {
        // The write has failed already; a leftover is all that a second failure could mean.
        let _ = fs::remove_file(&temporary);
        Error::io(path)(e)
    })
}

/// One named array on the host.
type Named = (String, Vec<usize>, Vec<u8>);

fn named<B: Backend>(device: &B, name: String, shape: &[usize], buffer: &B::Buffer<B::Real>) -> Result<Named> {
    let values = device.to_host(buffer)?;
    let bytes = if is_single::<B>() {
        values.iter().flat_map(|v| (v.value() as f32).to_le_bytes()).collect()
    } else {
        values.iter().flat_map(|v| v.value().to_le_bytes()).collect()
    };
    Ok((name, shape.to_vec(), bytes))
}

fn is_single<B: Backend>() -> bool {
    <B::Real as Real>::NAME == "f32"
}

fn dtype<B: Backend>() -> Dtype {
    if is_single::<B>() { Dtype::F32 } else { Dtype::F64 }
}

/// The parameters of a stack by name: `0.weight`, `0.bias`, `0.beta`, ...
fn weights<B: Backend>(device: &B, stack: &Stack<B>) -> Result<Vec<Named>> {
    stack
        .parameters()
        .map(|(layer, p)| named(device, format!("{layer}.{}", p.name), &p.value.shape, &p.value.data))
        .collect()
}

fn pack<B: Backend>(arrays: &[Named], note: Option<String>) -> Result<Vec<u8>> {
    let fail = |e: safetensors::SafeTensorError| Error::config("safetensors", e.to_string());
    let views = arrays.iter().map(|(name, shape, bytes)| {
        Ok((name.as_str(), TensorView::new(dtype::<B>(), shape.clone(), bytes).map_err(fail)?))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    // One entry at most: the order of several would not be fixed, and equal runs must give equal files.
    let metadata = note.map(|n| HashMap::from([("experiment".to_owned(), n)]));
    serialize(views, metadata).map_err(fail)
}

fn restore<B: Backend>(
    device: &B,
    path: &Path,
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
    buffer: &mut B::Buffer<B::Real>,
) -> Result<()> {
    let fail = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let view = file.tensor(name).map_err(|_| fail(format!("has no tensor `{name}`")))?;
    if view.shape() != shape {
        return Err(fail(format!("tensor `{name}` has shape {:?}, the model needs {shape:?}", view.shape())));
    }
    let values: Vec<B::Real> = match view.dtype() {
        Dtype::F32 => view
            .data()
            .chunks_exact(4)
            .map(|c| B::Real::lit(f32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()))
            .collect(),
        Dtype::F64 => {
            let word = |c: &[u8]| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
            view.data().chunks_exact(8).map(|c| B::Real::lit(word(c))).collect()
        }
        other => return Err(fail(format!("tensor `{name}` has type {other:?}, expected F32 or F64"))),
    };
    device.upload(&values, buffer)?;
    Ok(())
}

/// Writes the weights with the experiment that they belong to.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be written.
pub fn save_model<B: Backend>(device: &B, path: &Path, stack: &Stack<B>, experiment: &str) -> Result<()> {
    write_atomic(path, &pack::<B>(&weights(device, stack)?, Some(experiment.to_owned()))?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(path))
}

fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    let fail = |e: safetensors::SafeTensorError| Error::Checkpoint {
        path: path.to_owned(),
        reason: format!("is no complete safetensors file: {e}"),
    };
    SafeTensors::deserialize(bytes).map_err(fail)
}

/// Reads weights into a stack.
///
/// # Errors
///
/// [`Error::Checkpoint`] naming the tensor that is missing or does not fit, [`Error::Io`].
pub fn load_model<B: Backend>(device: &B, path: &Path, stack: &mut Stack<B>) -> Result<()> {
    let bytes = read(path)?;
    load_weights(device, path, &open(path, &bytes)?, stack)
}

fn load_weights<B: Backend>(device: &B, path: &Path, file: &SafeTensors<'_>, stack: &mut Stack<B>) -> Result<()> {
    let names: Vec<String> = stack.parameters().map(|(layer, p)| format!("{layer}.{}", p.name)).collect();
    for (name, p) in names.iter().zip(stack.parameters_mut()) {
        restore(device, path, file, name, &p.value.shape, &mut p.value.data)?;
    }
    Ok(())
}

/// The axes of a tensor in a weights file.
///
/// # Errors
///
/// [`Error::Checkpoint`] if there is no such tensor, [`Error::Io`].
pub fn shape_of(path: &Path, name: &str) -> Result<Vec<usize>> {
    let bytes = read(path)?;
    let file = open(path, &bytes)?;
    let missing = |_| Error::Checkpoint { path: path.to_owned(), reason: format!("has no tensor `{name}`") };
    Ok(file.tensor(name).map_err(missing)?.shape().to_vec())
}

/// The experiment that a weights file belongs to, as TOML.
///
/// # Errors
///
/// [`Error::Checkpoint`] if the file carries none, [`Error::Io`].
pub fn experiment_of(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let fail = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| fail(format!("is no safetensors file: {e}")))?;
    let note = header.metadata().as_ref().and_then(|m| m.get("experiment")).cloned();
    note.ok_or_else(|| fail("carries no experiment; it was not written by this program".into()))
}

/// The checkpoints of one run, in one directory.
#[derive(Debug)]
pub struct Checkpoints {
    directory: PathBuf,
    experiment: String,
}

impl Checkpoints {
    /// Checkpoints in `directory` for the experiment with this TOML text.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be made.
    pub fn new(directory: PathBuf, experiment: String) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        Ok(Self { directory, experiment })
    }

    fn manifest(&self) -> PathBuf {
        self.directory.join("manifest.json")
    }

    /// Writes everything that resuming needs; `log_bytes` is the length of the log at this moment.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; the checkpoint before stays valid.
    pub fn save<B: Backend>(
        &self,
        device: &B,
        stack: &Stack<B>,
        optimiser: &Optimiser<B>,
        progress: &Progress,
        log_bytes: u64,
    ) -> Result<()> {
        let mut arrays = weights(device, stack)?;
        let learnable = stack.parameters().filter(|(_, p)| p.learnable);
        for ((layer, p), m) in learnable.zip(optimiser.moments()) {
            for (moment, buffer) in [("first", &m.first), ("second", &m.second)] {
                arrays.push(named(device, format!("{layer}.{}.{moment}", p.name), &p.value.shape, buffer)?);
            }
        }
        let bytes = pack::<B>(&arrays, None)?;
        let state = format!("state-{}-{}.safetensors", progress.epoch, progress.batch);
        write_atomic(&self.directory.join(&state), &bytes)?;
        let manifest = Manifest {
            format: FORMAT,
            experiment: self.experiment.clone(),
            state_sha256: digest(&bytes),
            best: progress.best.map(|_| best_name(progress.best_epoch)),
            log_bytes,
            progress: progress.clone(),
            state,
        };
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest has a JSON form");
        write_atomic(&self.manifest(), &text)?;
        self.sweep(&manifest);
        Ok(())
    }

    /// Deletes what the manifest does not name. A failure leaves a spare file behind and harms nothing.
    fn sweep(&self, manifest: &Manifest) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let spare = name.ends_with(".safetensors") || name.ends_with(".part");
            if spare && name != manifest.state && Some(&name) != manifest.best.as_ref() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes the weights of the best epoch so far.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save_best<B: Backend>(&self, device: &B, stack: &Stack<B>, epoch: u32) -> Result<()> {
        save_model(device, &self.directory.join(best_name(epoch)), stack, &self.experiment)
    }

    /// Reads the weights of the best epoch back.
    ///
    /// # Errors
    ///
    /// As [`load_model`].
    pub fn load_best<B: Backend>(&self, device: &B, stack: &mut Stack<B>, epoch: u32) -> Result<()> {
        load_model(device, &self.directory.join(best_name(epoch)), stack)
    }

    /// Restores the last checkpoint; gives where the run stood and the length of its log, or nothing if there is no
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if it belongs to another experiment or is damaged.
    pub fn resume<B: Backend>(
        &self,
        device: &B,
        stack: &mut Stack<B>,
        optimiser: &mut Optimiser<B>,
    ) -> Result<Option<(Progress, u64)>> {
        let path = self.manifest();
        if !path.exists() {
            return Ok(None);
        }
        let fail = |path: &Path, reason: String| Error::Checkpoint { path: path.to_owned(), reason };
        let manifest: Manifest =
            serde_json::from_slice(&read(&path)?).map_err(|e| fail(&path, format!("is no manifest: {e}")))?;
        if manifest.format != FORMAT {
            return Err(fail(&path, format!("has format {}, this program writes {FORMAT}", manifest.format)));
        }
        if manifest.experiment != self.experiment {
            let reason =
                "belongs to another configuration; resume with the one beside it or choose another --out".into();
            return Err(fail(&path, reason));
        }
        let path = self.directory.join(&manifest.state);
        let bytes = read(&path)?;
        if digest(&bytes) != manifest.state_sha256 {
            return Err(fail(&path, "does not match the manifest's digest; it is damaged".into()));
        }
        let file = open(&path, &bytes)?;
        load_weights(device, &path, &file, stack)?;
        let learnable: Vec<(String, Vec<usize>)> = stack
            .parameters()
            .filter(|(_, p)| p.learnable)
            .map(|(layer, p)| (format!("{layer}.{}", p.name), p.value.shape.clone()))
            .collect();
        for ((name, shape), m) in learnable.iter().zip(optimiser.moments_mut()) {
            restore(device, &path, &file, &format!("{name}.first"), shape, &mut m.first)?;
            restore(device, &path, &file, &format!("{name}.second"), shape, &mut m.second)?;
        }
        optimiser.set_step(manifest.progress.optimiser_step);
        Ok(Some((manifest.progress, manifest.log_bytes)))
    }
}

fn best_name(epoch: u32) -> String {
    format!("best-{epoch}.safetensors")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        write_atomic(&path, b"old").unwrap();
        // A directory in the temporary file's place makes the write fail.
        fs::create_dir(dir.path().join(".model.part")).unwrap();
        assert!(write_atomic(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
