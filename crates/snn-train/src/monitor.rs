//! Monitors: what a run with spiking outputs says of itself while it trains, as numbers and as snapshots.
//!
//! Everything here works on host arrays and knows no backend: [`Monitors`] adds up batches, [`Monitors::record`] turns
//! the sums into one [`MonitorRecord`] and starts again from zero.
//!
//! | name | value |
//! |---|---|
//! | `accuracy` | hits / samples, in percent |
//! | `loss` | mean of the losses that are finite |
//! | `non_finite` | share of samples whose loss is not finite, in percent |
//! | `silent_labels` | share of samples whose label's output neuron did not fire, in percent |
//! | `silent_neurons/K` | share of the neurons of layer `K` that no sample made fire, in percent |
//! | `spikes/K` | spikes of layer `K` per sample |
//! | `weight_norm/NAME` | Frobenius norm of the weights `NAME` |
//! | `seconds` | time that the caller measured |
//! | `learning_rate` | the rate of the last step |
//!
//! A value that is not a number is left out, in memory and in JSON: a mean over no finite loss, say. The original
//! writes 0 there, which looks like a perfect loss when a run collapses; `non_finite` tells the two apart.
//!
//! Units: layers are counted from 0 in the order of the model; the last one is the output, one neuron per class.
//! Layout: spike counts are `[B, N]`, neurons fastest. Sums of spikes are 64-bit integers, so that a record does not
//! depend on how samples were cut into batches.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView1, ArrayViewD, arr0};
use ndarray_npy::{NpzWriter, ViewNpyExt, WriteNpzError};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zip::ZipArchive;

use crate::checkpoint::write_atomic;
use crate::error::{Error, Result};

/// What one batch gave.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The class of each sample, `[B]`.
    pub labels: &'a [u32],
    /// How many samples were predicted right.
    pub correct: usize,
    /// The loss of each sample, `[B]`; infinities and NaN are counted apart.
    pub losses: &'a [f64],
    /// The spike counts of each layer that fires, `[B, N]`; the output layer is the last one.
    pub spikes: Vec<&'a [u32]>,
}

/// The sums of one layer since the last record.
#[derive(Debug, Clone)]
struct LayerSums {
    width: usize,
    /// Spikes of each neuron, `[N]`.
    fired: Vec<u64>,
    /// Spikes of each neuron by class, `[classes, N]`; empty where no heat maps are wanted.
    by_class: Vec<u64>,
}

/// Mean spike counts by class and neuron, `[classes, N]`.
pub type HeatMap = Array2<f32>;

/// Adds up batches between two records.
#[derive(Debug, Clone)]
pub struct Monitors {
    classes: usize,
    heat: bool,
    layers: Vec<LayerSums>,
    samples: u64,
    per_class: Vec<u64>,
    correct: u64,
    loss_sum: f64,
    non_finite: u64,
    silent_labels: u64,
}

/// What a record holds beside the sums of its batches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra<'a> {
    /// The norm of each weight array by its name, such as `0.weight`.
    pub weight_norms: &'a [(String, f64)],
    /// Seconds since whatever start the caller chose.
    pub seconds: f64,
    /// The learning rate; none for a test.
    pub learning_rate: Option<f64>,
}

impl Monitors {
    /// Monitors of layers of the given widths; the last one is the output and has one neuron per class.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no layer, a layer has no neuron, or the last width is not `classes`.
    pub fn new(widths: &[usize], classes: usize) -> Result<Self> {
        if widths.last() != Some(&classes) || widths.contains(&0) {
            return Err(misuse(format!(
                "layers of {widths:?} neurons do not end with one output neuron for each of {classes} classes"
            )));
        }
        let layers = widths.iter().map(|&width| LayerSums { width, fired: vec![0; width], by_class: Vec::new() });
        Ok(Self {
            classes,
            heat: false,
            layers: layers.collect(),
            samples: 0,
            per_class: vec![0; classes],
            correct: 0,
            loss_sum: 0.0,
            non_finite: 0,
            silent_labels: 0,
        })
    }

    /// Also adds up the spikes of every neuron by class, for [`Monitors::heat`].
    ///
    /// These sums are cleared at every record like all others. The original never clears its own, so that its map of
    /// epoch k is a mean over all epochs up to k, and its memory grows with every sample.
    #[must_use]
    pub fn with_heat(mut self) -> Self {
        self.heat = true;
        self.layers.iter_mut().for_each(|layer| layer.by_class = vec![0; self.classes * layer.width]);
        self
    }

    /// Samples since the last record.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Adds a batch.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the batch does not fit the layers or a label is no class; nothing is added then.
    pub fn batch(&mut self, seen: &Seen<'_>) -> Result<()> {
        let batch = seen.labels.len();
        if seen.losses.len() != batch || seen.correct > batch {
            let (losses, correct) = (seen.losses.len(), seen.correct);
            return Err(misuse(format!("{batch} labels came with {losses} losses and {correct} right predictions")));
        }
        let got: Vec<usize> = seen.spikes.iter().map(|counts| counts.len()).collect();
        let want: Vec<usize> = self.layers.iter().map(|layer| batch * layer.width).collect();
        if got != want {
            return Err(misuse(format!("{batch} samples have {got:?} spike counts, the layers need {want:?}")));
        }
        if let Some(label) = seen.labels.iter().find(|&&label| label as usize >= self.classes) {
            return Err(misuse(format!("label {label} is none of {} classes", self.classes)));
        }
        self.samples += batch as u64;
        self.correct += seen.correct as u64;
        for &loss in seen.losses {
            if loss.is_finite() {
                self.loss_sum += loss;
            } else {
                self.non_finite += 1;
            }
        }
        for &label in seen.labels {
            self.per_class[label as usize] += 1;
        }
        if let Some(output) = seen.spikes.last() {
            let own = output.chunks_exact(self.classes).zip(seen.labels).map(|(row, &label)| row[label as usize]);
            self.silent_labels += own.filter(|&count| count == 0).count() as u64;
        }
        for (layer, counts) in self.layers.iter_mut().zip(&seen.spikes) {
            for (row, &label) in counts.chunks_exact(layer.width).zip(seen.labels) {
                add(&mut layer.fired, row);
                if self.heat {
                    let start = label as usize * layer.width;
                    add(&mut layer.by_class[start..start + layer.width], row);
                }
            }
        }
        Ok(())
    }

    /// Mean spike counts by class since the last record, one `[classes, N]` per layer; none without
    /// [`Monitors::with_heat`].
    ///
    /// Rows of classes without a sample are NaN. To be asked for before [`Monitors::record`], which clears the sums.
    #[must_use]
    pub fn heat(&self) -> Option<Vec<HeatMap>> {
        let map = |layer: &LayerSums| {
            Array2::from_shape_fn((self.classes, layer.width), |(class, neuron)| {
                (layer.by_class[class * layer.width + neuron] as f64 / self.per_class[class] as f64) as f32
            })
        };
        self.heat.then(|| self.layers.iter().map(map).collect())
    }

    /// What the batches since the last record came to; the sums start again from zero.
    pub fn record(&mut self, split: Phase, epoch: f64, extra: Extra<'_>) -> MonitorRecord {
        let samples = self.samples as f64;
        let percent = |count: u64| count as f64 / samples * 100.0;
        let finite = self.samples - self.non_finite;
        let mut values = vec![
            ("accuracy".to_owned(), percent(self.correct)),
            ("loss".to_owned(), self.loss_sum / finite as f64),
            ("non_finite".to_owned(), percent(self.non_finite)),
            ("silent_labels".to_owned(), percent(self.silent_labels)),
        ];
        if self.samples > 0 {
            values.extend(self.layers.iter().enumerate().map(|(k, layer)| {
                let silent = layer.fired.iter().filter(|&&count| count == 0).count();
                (format!("silent_neurons/{k}"), silent as f64 / layer.width as f64 * 100.0)
            }));
        }
        values.extend(self.layers.iter().enumerate().map(|(k, layer)| {
            let spikes: u64 = layer.fired.iter().sum();
            (format!("spikes/{k}"), spikes as f64 / samples)
        }));
        values.extend(extra.weight_norms.iter().map(|(name, norm)| (format!("weight_norm/{name}"), *norm)));
        values.push(("seconds".to_owned(), extra.seconds));
        values.extend(extra.learning_rate.map(|rate| ("learning_rate".to_owned(), rate)));
        values.retain(|(_, value)| value.is_finite());
        self.clear();
        MonitorRecord { split, epoch, values }
    }

    fn clear(&mut self) {
        for layer in &mut self.layers {
            layer.fired.fill(0);
            layer.by_class.fill(0);
        }
        self.per_class.fill(0);
        (self.samples, self.correct, self.loss_sum, self.non_finite, self.silent_labels) = (0, 0, 0.0, 0, 0);
    }
}

fn add(sums: &mut [u64], counts: &[u32]) {
    sums.iter_mut().zip(counts).for_each(|(sum, &count)| *sum += u64::from(count));
}

fn misuse(reason: String) -> Error {
    Error::config("monitors", reason)
}

/// Which samples a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A piece of an epoch of training.
    Train,
    /// A test.
    Test,
}

impl Phase {
    /// `train` or `test`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// The monitors at one moment of a run.
///
/// As JSON it is flat, `{"split": "test", "epoch": 1.0, "values": {"accuracy": 97.5, "spikes/0": 494.4}}`; a value that
/// is no finite number is left out, and a `null` is read as if it were not there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitorRecord {
    /// What the samples were for.
    pub split: Phase,
    /// Epochs since the start of training, with a fraction within an epoch.
    pub epoch: f64,
    /// Values by name, in the order of this module's table.
    #[serde(serialize_with = "write_values", deserialize_with = "read_values")]
    pub values: Vec<(String, f64)>,
}

fn write_values<S: Serializer>(values: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let finite = || values.iter().filter(|(_, value)| value.is_finite());
    let mut map = serializer.serialize_map(Some(finite().count()))?;
    for (name, value) in finite() {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

fn read_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    struct Values;
    impl<'de> Visitor<'de> for Values {
        type Value = Vec<(String, f64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from names to numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                values.extend(value.map(|value| (name, value)));
            }
            Ok(values)
        }
    }
    deserializer.deserialize_map(Values)
}

impl MonitorRecord {
    /// The value of a monitor, if the record has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The values whose names begin with `family/`, in order.
    fn family(&self, family: &str) -> Vec<f64> {
        let of = |name: &str| name.strip_prefix(family).is_some_and(|rest| rest.starts_with('/'));
        self.values.iter().filter(|(name, _)| of(name)).map(|(_, value)| *value).collect()
    }
}

/// One line for a console: `Train | epoch 0.1 | accuracy 93.20 %, loss 5.09, spikes 494.4 / 38.7`.
///
/// Layers stand one after the other, from the first to the output.
impl fmt::Display for MonitorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = if self.split == Phase::Train { "Train" } else { "Test " };
        let epoch = (self.epoch * 1000.0).round() / 1000.0;
        let mut parts = Vec::new();
        let mut single = |name: &str, show: &dyn Fn(f64) -> String| parts.extend(self.get(name).map(show));
        single("accuracy", &|v| format!("accuracy {v:.2} %"));
        single("loss", &|v| format!("loss {}", significant(v)));
        // A loss that is not finite is news; that there is none is not.
        single("non_finite", &|v| if v > 0.0 { format!("non-finite losses {v:.2} %") } else { String::new() });
        single("silent_labels", &|v| format!("silent labels {v:.2} %"));
        for (family, title, unit) in
            [("silent_neurons", "silent neurons", " %"), ("spikes", "spikes", ""), ("weight_norm", "weight norms", "")]
        {
            let values: Vec<String> = self.family(family).into_iter().map(significant).collect();
            if !values.is_empty() {
                parts.push(format!("{title} {}{unit}", values.join(" / ")));
            }
        }
        parts.extend(self.get("learning_rate").map(|v| format!("learning rate {}", significant(v))));
        parts.extend(self.get("seconds").map(|v| format!("{v:.1} s")));
        parts.retain(|part| !part.is_empty());
        write!(f, "{phase} | epoch {epoch} | {}", parts.join(", "))
    }
}

/// A number with four significant digits and no idle zeros.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-5..7).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", (3 - magnitude).max(0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What a monitor shows, for the axis of a picture: `silent neurons, layer 0 (%)`.
///
/// A name that is none of this module's stands for itself.
#[must_use]
pub fn label(name: &str) -> String {
    let (family, member) = name.split_once('/').unwrap_or((name, ""));
    match family {
        "accuracy" => "accuracy (%)".to_owned(),
        "non_finite" => "losses not finite (%)".to_owned(),
        "silent_labels" => "silent labels (%)".to_owned(),
        "silent_neurons" => format!("silent neurons, layer {member} (%)"),
        "spikes" => format!("spikes per sample, layer {member}"),
        "weight_norm" => format!("weight norm, {member}"),
        "seconds" => "time (s)".to_owned(),
        "learning_rate" => "learning rate".to_owned(),
        _ => name.to_owned(),
    }
}

fn broken(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason: reason.into() }
}

/// Fills an archive and writes it under its final name when it is complete.
fn write_npz(
    path: &Path,
    fill: impl FnOnce(&mut NpzWriter<&mut Cursor<Vec<u8>>>) -> Result<(), WriteNpzError>,
) -> Result<()> {
    let failed = |e: WriteNpzError| broken(path, format!("cannot be written: {e}"));
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = NpzWriter::new_compressed(&mut bytes);
    fill(&mut writer).map_err(failed)?;
    writer.finish().map_err(failed)?;
    write_atomic(path, &bytes.into_inner())
}

/// Writes one monitor's course as an archive of two arrays, `epochs` and `values`, both `[records]` of 64-bit numbers.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be written.
pub fn write_course(path: &Path, course: &[(f64, f64)]) -> Result<()> {
    let (epochs, values): (Vec<f64>, Vec<f64>) = course.iter().copied().unzip();
    write_npz(path, |npz| {
        npz.add_array("epochs", &ArrayView1::from(&epochs))?;
        npz.add_array("values", &ArrayView1::from(&values))
    })
}

/// The spikes of one layer for one sample, in any order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerRaster {
    /// When, s.
    pub times: Vec<f32>,
    /// Which neuron, one per time.
    pub units: Vec<u32>,
}

/// A look into a model after one epoch.
///
/// As a file it is an archive of `epoch` and `label` (single 32-bit numbers without sign), `times_K` and `units_K` of
/// every layer (`[spikes]`, 32-bit), and `heat_K` (`[classes, N]`, 32-bit) where heat maps were made.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The epoch, from 1; 0 is the untrained model.
    pub epoch: u32,
    /// The class of the sample in the raster.
    pub label: u32,
    /// The spikes of one test sample, one entry per layer that fires; always the same sample within a run.
    pub raster: Vec<LayerRaster>,
    /// Mean spike counts by class and neuron over the test set, one per layer, or none at all.
    pub heat: Vec<HeatMap>,
}

/// Unpacked bytes that a snapshot may have: far more than any model's, far less than a machine's memory.
const LARGEST: u64 = 1 << 30;

impl Snapshot {
    /// The directory of a run's snapshots.
    #[must_use]
    pub fn directory(run: &Path) -> PathBuf {
        run.join("snapshots")
    }

    /// Writes `snapshots/epoch-0001.npz` into a run's directory and says where that is.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if a reader would refuse the snapshot, [`Error::Io`] if it cannot be written.
    pub fn write(&self, run: &Path) -> Result<PathBuf> {
        let directory = Self::directory(run);
        let path = directory.join(format!("epoch-{:04}.npz", self.epoch));
        self.check().map_err(|reason| broken(&path, reason))?;
        std::fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        write_npz(&path, |npz| {
            npz.add_array("epoch", &arr0(self.epoch))?;
            npz.add_array("label", &arr0(self.label))?;
            for (k, layer) in self.raster.iter().enumerate() {
                npz.add_array(format!("times_{k}"), &ArrayView1::from(&layer.times))?;
                npz.add_array(format!("units_{k}"), &ArrayView1::from(&layer.units))?;
            }
            for (k, heat) in self.heat.iter().enumerate() {
                npz.add_array(format!("heat_{k}"), &heat.as_standard_layout())?;
            }
            Ok(())
        })?;
        Ok(path)
    }

    /// The snapshots of a run, the earliest epoch first; none where the run has made none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory is there and cannot be read.
    pub fn list(run: &Path) -> Result<Vec<PathBuf>> {
        let directory = Self::directory(run);
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let path = entry.map_err(Error::io(&directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let epoch = name.strip_prefix("epoch-").and_then(|name| name.strip_suffix(".npz"));
            if let Some(epoch) = epoch.and_then(|digits| digits.parse::<u32>().ok()) {
                found.push((epoch, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] naming what is missing or does not fit, [`Error::Io`] if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mut arrays = Arrays::open(path, bytes)?;
        let (epoch, label) = (arrays.number("epoch")?, arrays.number("label")?);
        let (mut raster, mut heat) = (Vec::new(), Vec::new());
        while arrays.has(&format!("times_{}", raster.len())) {
            let k = raster.len();
            let times = arrays.values(&format!("times_{k}"), "[spikes]", |shape| shape.len() == 1)?.1;
            let units = arrays.values(&format!("units_{k}"), "[spikes]", |shape| shape.len() == 1)?.1;
            raster.push(LayerRaster { times, units });
        }
        while arrays.has(&format!("heat_{}", heat.len())) {
            let name = format!("heat_{}", heat.len());
            let (shape, values) = arrays.values(&name, "[classes, neurons]", |shape| shape.len() == 2)?;
            let map = Array2::from_shape_vec((shape[0], shape[1]), values);
            heat.push(map.map_err(|e| broken(path, format!("`{name}`: {e}")))?);
        }
        let snapshot = Self { epoch, label, raster, heat };
        snapshot.check().map_err(|reason| broken(path, reason))?;
        Ok(snapshot)
    }

    /// What does not fit together, if anything does not.
    fn check(&self) -> Result<(), String> {
        let (layers, maps) = (self.raster.len(), self.heat.len());
        if layers == 0 {
            return Err("has no array `times_0`: a snapshot shows at least one layer".to_owned());
        }
        if maps != 0 && maps != layers {
            return Err(format!("has spikes of {layers} layers, but heat maps of {maps}"));
        }
        for (k, layer) in self.raster.iter().enumerate() {
            let (times, units) = (layer.times.len(), layer.units.len());
            if times != units {
                return Err(format!("`times_{k}` has {times} values, `units_{k}` has {units}; each spike needs both"));
            }
        }
        let classes = self.heat.first().map_or(0, Array2::nrows);
        for (k, (map, layer)) in self.heat.iter().zip(&self.raster).enumerate() {
            let width = map.ncols();
            if map.nrows() != classes || map.is_empty() {
                let shape = map.shape();
                return Err(format!("`heat_{k}` has shape {shape:?}, expected [{classes}, neurons], no axis empty"));
            }
            if let Some(unit) = layer.units.iter().find(|&&unit| unit as usize >= width) {
                return Err(format!("`units_{k}` names unit {unit}, but `heat_{k}` has {width} neurons"));
            }
        }
        if classes > 0 && self.label as usize >= classes {
            return Err(format!("`label` is {}, but the heat maps have {classes} classes", self.label));
        }
        Ok(())
    }
}

/// The arrays of an archive. What they unpack to is counted, not believed.
struct Arrays<'a> {
    path: &'a Path,
    archive: ZipArchive<Cursor<Vec<u8>>>,
    left: u64,
}

impl<'a> Arrays<'a> {
    fn open(path: &'a Path, bytes: Vec<u8>) -> Result<Self> {
        let archive = ZipArchive::new(Cursor::new(bytes));
        let archive = archive.map_err(|e| broken(path, format!("is no complete npz archive: {e}")))?;
        Ok(Self { path, archive, left: LARGEST })
    }

    fn has(&self, name: &str) -> bool {
        self.archive.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// The shape and the values, in row-major order, of an array whose shape must be as `fits` wants it.
    fn values<T: Copy>(
        &mut self,
        name: &str,
        want: &str,
        fits: impl FnOnce(&[usize]) -> bool,
    ) -> Result<(Vec<usize>, Vec<T>)>
    where
        for<'v> ArrayViewD<'v, T>: ViewNpyExt<'v>,
    {
        let path = self.path;
        let fail = |reason: String| broken(path, format!("`{name}` {reason}"));
        if !self.has(name) {
            return Err(broken(path, format!("has no array `{name}`")));
        }
        let entry = self.archive.by_name(&format!("{name}.npy")).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let mut bytes = Vec::new();
        entry.take(self.left + 1).read_to_end(&mut bytes).map_err(|e| fail(format!("cannot be unpacked: {e}")))?;
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(fail(format!("unpacks to more than {LARGEST} bytes")));
        };
        self.left = left;
        let view = ArrayViewD::<T>::view_npy(&bytes).map_err(|e| fail(format!("is no such array: {e}")))?;
        if !fits(view.shape()) {
            return Err(fail(format!("has shape {:?}, expected {want}", view.shape())));
        }
        Ok((view.shape().to_vec(), view.iter().copied().collect()))
    }

    fn number(&mut self, name: &str) -> Result<u32> {
        let (_, values) = self.values(name, "[], a single number", <[usize]>::is_empty)?;
        values.first().copied().ok_or_else(|| broken(self.path, format!("`{name}` holds no number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers, three hidden neurons and two classes.
    fn monitors() -> Monitors {
        Monitors::new(&[3, 2], 2).unwrap().with_heat()
    }

    fn first_batch(monitors: &mut Monitors) {
        let hidden = [4, 0, 0, 2, 0, 0];
        let output = [3, 1, 0, 0];
        let seen =
            Seen { labels: &[0, 1], correct: 1, losses: &[0.5, f64::INFINITY], spikes: vec![&hidden[..], &output] };
        monitors.batch(&seen).unwrap();
    }

    fn second_batch(monitors: &mut Monitors) {
        let hidden = [0, 0, 7, 1, 0, 1];
        let output = [0, 9, 5, 0];
        let seen = Seen { labels: &[0, 0], correct: 1, losses: &[f64::NAN, 1.0], spikes: vec![&hidden[..], &output] };
        monitors.batch(&seen).unwrap();
    }

    #[test]
    fn a_record_holds_what_the_batches_come_to() {
        let mut monitors = monitors();
        first_batch(&mut monitors);
        second_batch(&mut monitors);
        let norms = [("0.weight".to_owned(), 470.25), ("1.weight".to_owned(), f64::NAN)];
        let extra = Extra { weight_norms: &norms, seconds: 1.5, learning_rate: Some(0.003) };
        let record = monitors.record(Phase::Train, 0.1, extra);
        let want = [
            ("accuracy", 50.0),
            // 0.5 and 1.0 are finite, one infinity and one NaN are not.
            ("loss", 0.75),
            ("non_finite", 50.0),
            // Of the labels 0, 1, 0, 0 the output neurons fired 3, 0, 0 and 5 times.
            ("silent_labels", 50.0),
            ("silent_neurons/0", 100.0 / 3.0),
            ("silent_neurons/1", 0.0),
            ("spikes/0", 15.0 / 4.0),
            ("spikes/1", 18.0 / 4.0),
            ("weight_norm/0.weight", 470.25),
            ("seconds", 1.5),
            ("learning_rate", 0.003),
        ];
        let got: Vec<(&str, f64)> = record.values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(got.len(), want.len(), "{got:?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-12, "{got:?} {want:?}");
        }
    }

    #[test]
    fn heat_is_a_mean_over_the_samples_of_a_class() {
        let mut monitors = monitors();
        first_batch(&mut monitors);
        second_batch(&mut monitors);
        let heat = monitors.heat().unwrap();
        assert_eq!(heat[0], ndarray::arr2(&[[5.0 / 3.0, 0.0, 8.0 / 3.0], [2.0, 0.0, 0.0]]));
        assert_eq!(heat[1], ndarray::arr2(&[[8.0 / 3.0, 10.0 / 3.0], [0.0, 0.0]]));
        assert!(Monitors::new(&[2], 2).unwrap().heat().is_none());
    }

    #[test]
    fn a_record_starts_everything_again() {
        let mut monitors = monitors();
        first_batch(&mut monitors);
        monitors.record(Phase::Train, 0.5, Extra::default());
        assert_eq!(monitors.samples(), 0);
        second_batch(&mut monitors);
        let second = monitors.record(Phase::Train, 1.0, Extra::default());
        let mut fresh = self::monitors();
        second_batch(&mut fresh);
        assert!(fresh.heat().unwrap()[0].row(1).iter().all(|v| v.is_nan()), "class 1 had no sample");
        assert_eq!(second, fresh.record(Phase::Train, 1.0, Extra::default()));
    }

    #[test]
    fn records_do_not_depend_on_how_samples_are_batched() {
        let (labels, losses) = ([1, 0, 1], [0.25, 0.5, 0.125]);
        let (hidden, output) = ([1, 0, 3, 0, 0, 2, 9, 0, 0], [0, 1, 2, 3, 0, 0]);
        let mut whole = monitors();
        whole.batch(&Seen { labels: &labels, correct: 2, losses: &losses, spikes: vec![&hidden, &output] }).unwrap();
        let mut pieces = monitors();
        for i in 0..3 {
            let seen = Seen {
                labels: &labels[i..=i],
                correct: usize::from(i != 1),
                losses: &losses[i..=i],
                spikes: vec![&hidden[3 * i..3 * i + 3], &output[2 * i..2 * i + 2]],
            };
            pieces.batch(&seen).unwrap();
        }
        assert_eq!(whole.heat(), pieces.heat());
        let record = |m: &mut Monitors| m.record(Phase::Test, 1.0, Extra::default());
        assert_eq!(record(&mut whole), record(&mut pieces));
    }

    #[test]
    fn without_a_finite_loss_or_a_sample_there_is_no_value() {
        let mut monitors = monitors();
        let seen = Seen { labels: &[0], correct: 0, losses: &[f64::NAN], spikes: vec![&[0; 3], &[0; 2]] };
        monitors.batch(&seen).unwrap();
        let collapsed = monitors.record(Phase::Test, 2.0, Extra::default());
        assert_eq!((collapsed.get("loss"), collapsed.get("non_finite")), (None, Some(100.0)));
        assert_eq!(collapsed.get("silent_neurons/0"), Some(100.0));
        let nothing = monitors.record(Phase::Test, 2.0, Extra::default());
        assert_eq!(nothing.values, [("seconds".to_owned(), 0.0)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        for (widths, classes) in [(&[][..], 2), (&[3, 4], 2), (&[0, 2], 2), (&[0], 0)] {
            assert!(Monitors::new(widths, classes).is_err(), "{widths:?} {classes}");
        }
        let mut monitors = monitors();
        let (hidden, output) = ([0; 3], [0; 2]);
        let good = Seen { labels: &[0], correct: 1, losses: &[0.0], spikes: vec![&hidden, &output] };
        for (bad, text) in [
            (Seen { losses: &[], ..good.clone() }, "1 labels came with 0 losses"),
            (Seen { correct: 2, ..good.clone() }, "2 right predictions"),
            (Seen { spikes: vec![&hidden], ..good.clone() }, "have [3] spike counts, the layers need [3, 2]"),
            (Seen { labels: &[2], ..good.clone() }, "label 2 is none of 2 classes"),
        ] {
            let message = monitors.batch(&bad).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        }
        assert_eq!(monitors.samples(), 0);
    }

    #[test]
    fn a_record_survives_json_without_what_is_no_number() {
        #[derive(Serialize)]
        #[serde(tag = "event", rename_all = "kebab-case")]
        enum Line<'a> {
            Monitor(&'a MonitorRecord),
        }
        let values = [("accuracy", 93.2), ("loss", f64::NAN), ("spikes/10", 0.25), ("spikes/2", f64::INFINITY)];
        let values = values.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let record = MonitorRecord { split: Phase::Test, epoch: 0.1, values };
        let text = serde_json::to_string(&Line::Monitor(&record)).unwrap();
        let want = r#"{"event":"monitor","split":"test","epoch":0.1,"values":{"accuracy":93.2,"spikes/10":0.25}}"#;
        assert_eq!(text, want);
        let back: MonitorRecord = serde_json::from_str(&text).unwrap();
        assert_eq!((back.get("accuracy"), back.get("loss"), back.values.len()), (Some(93.2), None, 2));
        let with_null = r#"{"split":"train","epoch":1,"values":{"loss":null,"accuracy":1}}"#;
        assert_eq!(serde_json::from_str::<MonitorRecord>(with_null).unwrap().values, [("accuracy".to_owned(), 1.0)]);
    }

    #[test]
    fn a_record_is_one_readable_line() {
        let mut monitors = monitors();
        first_batch(&mut monitors);
        let norms = [("0.weight".to_owned(), 470.25), ("1.weight".to_owned(), 59.0)];
        let extra = Extra { weight_norms: &norms, seconds: 12.345, learning_rate: Some(0.003) };
        let line = monitors.record(Phase::Train, 0.1 + 0.2, extra).to_string();
        let want = "Train | epoch 0.3 | accuracy 50.00 %, loss 0.5, non-finite losses 50.00 %, silent labels 50.00 %, \
                    silent neurons 66.67 / 0 %, spikes 3 / 2, weight norms 470.2 / 59, learning rate 0.003, 12.3 s";
        assert_eq!(line, want);
        assert_eq!([0.0, 1e-9, 12345.6, 5.0917, -0.25].map(significant), ["0", "1.000e-9", "12346", "5.092", "-0.25"]);
    }

    #[test]
    fn names_become_labels() {
        assert_eq!(label("silent_neurons/1"), "silent neurons, layer 1 (%)");
        assert_eq!(label("weight_norm/0.weight"), "weight norm, 0.weight");
        assert_eq!(label("my own"), "my own");
    }

    fn snapshot() -> Snapshot {
        let layer = |shift: f32| LayerRaster { times: vec![0.5 + shift, 0.25], units: vec![1, 0] };
        Snapshot {
            epoch: 3,
            label: 1,
            raster: vec![layer(0.0), layer(1.0), LayerRaster::default()],
            heat: vec![
                ndarray::arr2(&[[1.0, 2.5, 0.0], [0.0, 3.0, 4.0]]),
                // Not in row-major order.
                ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]).reversed_axes(),
                ndarray::arr2(&[[0.125], [7.0]]),
            ],
        }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_went() {
        let run = tempfile::tempdir().unwrap();
        let path = snapshot().write(run.path()).unwrap();
        assert!(path.ends_with("snapshots/epoch-0003.npz"));
        assert_eq!(Snapshot::read(&path).unwrap(), snapshot());
        let plain = Snapshot { epoch: 0, heat: Vec::new(), ..snapshot() };
        let first = plain.write(run.path()).unwrap();
        assert_eq!(Snapshot::read(&first).unwrap(), plain);
        let late = Snapshot { epoch: 12_345, ..snapshot() }.write(run.path()).unwrap();
        std::fs::write(Snapshot::directory(run.path()).join("notes.txt"), "x").unwrap();
        assert_eq!(Snapshot::list(run.path()).unwrap(), [first, path, late]);
        assert!(Snapshot::list(&run.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_snapshot_that_does_not_fit_together_is_not_written() {
        let run = tempfile::tempdir().unwrap();
        let change = |change: fn(&mut Snapshot), text: &str| {
            let mut snapshot = snapshot();
            change(&mut snapshot);
            let message = snapshot.write(run.path()).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        };
        change(|s| s.raster.clear(), "has no array `times_0`");
        change(|s| s.label = 2, "`label` is 2, but the heat maps have 2 classes");
        change(|s| s.raster[0].units[0] = 3, "`units_0` names unit 3, but `heat_0` has 3 neurons");
        change(|s| s.raster[1].times.truncate(1), "`times_1` has 1 values, `units_1` has 2");
        change(|s| s.heat.truncate(1), "has spikes of 3 layers, but heat maps of 1");
        change(|s| s.heat[2] = Array2::zeros((3, 1)), "`heat_2` has shape [3, 1], expected [2, neurons]");
        assert!(!Snapshot::directory(run.path()).exists());
    }

    /// A file of the given arrays, written past all checks.
    fn hostile(
        folder: &Path,
        fill: impl FnOnce(&mut NpzWriter<&mut Cursor<Vec<u8>>>) -> Result<(), WriteNpzError>,
    ) -> String {
        let path = folder.join("epoch-0001.npz");
        write_npz(&path, fill).unwrap();
        Snapshot::read(&path).unwrap_err().to_string()
    }

    #[test]
    fn hostile_snapshots_end_in_one_error_that_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let whole = std::fs::read(snapshot().write(folder).unwrap()).unwrap();
        let path = folder.join("cut.npz");
        for length in (0..whole.len()).step_by(3) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = Snapshot::read(&path).unwrap_err().to_string();
            assert!(message.contains("cut.npz: is no complete npz archive"), "{length}: {message}");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            std::fs::write(&path, &changed).unwrap();
            // Names and times of entries are not covered by checksums; nothing may panic.
            let _ = Snapshot::read(&path);
        }

        let head = |npz: &mut NpzWriter<&mut Cursor<Vec<u8>>>| {
            npz.add_array("epoch", &arr0(1_u32))?;
            npz.add_array("label", &arr0(0_u32))
        };
        let message = hostile(folder, |npz| npz.add_array("epoch", &arr0(1_u32)));
        assert!(message.ends_with("epoch-0001.npz: has no array `label`"), "{message}");
        let message = hostile(folder, |npz| npz.add_array("epoch", &ndarray::arr1(&[1_u32])));
        assert!(message.ends_with("`epoch` has shape [1], expected [], a single number"), "{message}");
        let message = hostile(folder, |npz| npz.add_array("epoch", &arr0(1.0_f64)));
        assert!(message.contains("`epoch` is no such array"), "{message}");
        let message = hostile(folder, head);
        assert!(message.contains("has no array `times_0`"), "{message}");
        let message = hostile(folder, |npz| {
            head(npz)?;
            npz.add_array("times_0", &Array2::<f32>::zeros((2, 2)))
        });
        assert!(message.ends_with("`times_0` has shape [2, 2], expected [spikes]"), "{message}");
        let message = hostile(folder, |npz| {
            head(npz)?;
            npz.add_array("times_0", &ndarray::arr1(&[0.5_f32]))?;
            npz.add_array("units_0", &ndarray::arr1(&[7_u32]))?;
            npz.add_array("heat_0", &ndarray::arr1(&[7_f32]))
        });
        assert!(message.ends_with("`heat_0` has shape [1], expected [classes, neurons]"), "{message}");
    }

    #[test]
    fn a_header_that_promises_much_costs_nothing() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.npz");
        let mut header = b"{'descr': '<u4', 'fortran_order': False, 'shape': (1000000000000000,), }".to_vec();
        header.resize(117, b' ');
        header.push(b'\n');
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((header.len() as u16).to_le_bytes());
        npy.extend(header);
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("epoch.npy", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&npy).unwrap();
        zip.finish().unwrap();
        let message = Snapshot::read(&path).unwrap_err().to_string();
        assert!(message.contains("`epoch` is no such array: "), "{message}");
    }

    #[test]
    fn a_course_is_an_archive_of_epochs_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test-loss.npz");
        write_course(&path, &[(0.1, 5.0), (0.2, 4.5)]).unwrap();
        let mut arrays = Arrays::open(&path, std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(arrays.values::<f64>("epochs", "", |_| true).unwrap(), (vec![2], vec![0.1, 0.2]));
        assert_eq!(arrays.values::<f64>("values", "", |_| true).unwrap(), (vec![2], vec![5.0, 4.5]));
    }
}
