//! SHD and SSC: spoken words as spikes of 700 channels, HDF5 with rows of variable length.
//!
//! `/spikes/times` holds the times of each sample in seconds, half floats in the published files; `/spikes/units` the
//! channels; `/labels` the classes; `/extra/keys` the names of the classes, which are never assumed. Halves are widened
//! before anything is done with them.

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::formats::nmnist::Order;
use crate::h5::File;
use crate::source::{Sample, Source, SourceKind, check_index};

/// Channels of the inner ear model.
pub const UNITS: usize = 700;
const TIMES: &str = "/spikes/times";
const CHANNELS: &str = "/spikes/units";
const LABELS: &str = "/labels";
const KEYS: &str = "/extra/keys";
const SPEAKERS: &str = "/extra/speaker";
/// Rows read at once.
const BLOCK: usize = 256;

/// An open file of this layout; samples are read, and checked, when they are asked for.
#[derive(Debug)]
pub struct ShdFile {
    file: Mutex<File>,
    name: String,
    order: Order,
    labels: Vec<u32>,
    class_names: Vec<String>,
    named: bool,
    speakers: Option<Vec<u32>>,
    label: Option<String>,
}

impl ShdFile {
    /// Opens a file and checks everything but the spikes.
    ///
    /// * `name` — what the source is called, for example `shd/train`.
    /// * `classes` — how many classes there are where the file has no `/extra/keys`; nothing for one more than the
    ///   largest label.
    /// * `label` — see [`Source::label`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Malformed`] if it is no complete HDF5 file, a dataset is missing or has another type, their lengths
    /// differ, or a label is not below the number of classes.
    pub fn open(path: &Path, name: &str, classes: Option<usize>, label: Option<String>, order: Order) -> Result<Self> {
        let file = File::open_foreign(path)?;
        let (labels_set, count) = file.vector(LABELS)?;
        let (times, n_times) = file.vector(TIMES)?;
        let (units, n_units) = file.vector(CHANNELS)?;
        for (place, n) in [(TIMES, n_times), (CHANNELS, n_units)] {
            if n != count {
                return Err(file.wrong(place, format!("{n} samples"), format!("{count}, as many as {LABELS}")));
            }
        }
        if count == 0 || count > u32::MAX as usize {
            return Err(file.wrong(LABELS, format!("{count} samples"), "1..=4294967295"));
        }
        // The types, found out on a first sample so that a wrong one is named before anything long begins.
        file.real_rows(TIMES, &times, 0..1)?;
        file.whole_rows(CHANNELS, &units, 0..1)?;

        let mut class_names = if file.has(KEYS) { file.strings(KEYS)? } else { Vec::new() };
        let named = !class_names.is_empty();
        let known = if class_names.is_empty() { classes } else { Some(class_names.len()) };
        let mut labels = Vec::new();
        for start in (0..count).step_by(1 << 16) {
            let block = file.whole_numbers(LABELS, &labels_set, start..count.min(start + (1 << 16)))?;
            for (i, value) in block.into_iter().enumerate() {
                let limit = known.unwrap_or(1 << 16);
                match u32::try_from(value) {
                    Ok(l) if (l as usize) < limit => labels.push(l),
                    _ => {
                        return Err(file.wrong(
                            LABELS,
                            format!("label {value} of sample {}", start + i),
                            format!("below {limit}"),
                        ));
                    }
                }
            }
        }
        if class_names.is_empty() {
            let most = labels.iter().max().map_or(0, |&l| l as usize + 1);
            class_names = (0..known.unwrap_or(most)).map(|c| c.to_string()).collect();
        }
        let speakers = match file.has(SPEAKERS).then(|| file.vector(SPEAKERS)).transpose()? {
            Some((set, n)) if n == count => {
                let ids = file.whole_numbers(SPEAKERS, &set, 0..n)?;
                ids.into_iter().map(|id| u32::try_from(id).ok()).collect()
            }
            _ => None,
        };
        Ok(Self { file: Mutex::new(file), name: name.to_owned(), order, labels, class_names, named, speakers, label })
    }

    /// Whether the class names are those of the file; they are numbers otherwise.
    #[must_use]
    pub fn has_class_names(&self) -> bool {
        self.named
    }

    /// The speaker of every sample, where the file says.
    #[must_use]
    pub fn speakers(&self) -> Option<&[u32]> {
        self.speakers.as_deref()
    }

    /// Reads all samples in order and hands them to `each`, with their index.
    ///
    /// # Errors
    ///
    /// As [`Source::read`], and those of `each`.
    pub fn for_each(&self, mut each: impl FnMut(usize, &Sample) -> Result<()>) -> Result<()> {
        let mut sample = Sample::default();
        for start in (0..self.len()).step_by(BLOCK) {
            self.read_block(start..self.len().min(start + BLOCK), &mut sample, &mut each)?;
        }
        Ok(())
    }

    fn read_block(
        &self,
        range: Range<usize>,
        sample: &mut Sample,
        mut each: impl FnMut(usize, &Sample) -> Result<()>,
    ) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let times = file.real_rows(TIMES, &file.dataset(TIMES)?, range.clone())?;
        let units = file.whole_rows(CHANNELS, &file.dataset(CHANNELS)?, range.clone())?;
        let mut channels = Vec::new();
        for (row, index) in range.enumerate() {
            sample.clear();
            sample.label = self.labels[index];
            let place = |set: &str| format!("{set}, sample {index}");
            if times.row_len(row) != units.row_len(row) {
                let want = format!("{}, as many as times", times.row_len(row));
                return Err(file.wrong(&place(CHANNELS), format!("{} units", units.row_len(row)), want));
            }
            channels.clear();
            units.extend_i64(row, &mut channels);
            times.extend_f32(row, &mut sample.times);
            if let Some(wrong) = channels.iter().find(|u| !(0..UNITS as i64).contains(*u)) {
                return Err(file.wrong(&place(CHANNELS), format!("unit {wrong}"), "0..=699"));
            }
            if let Some(wrong) = sample.times.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
                return Err(file.wrong(&place(TIMES), format!("time {wrong}"), "finite and not negative"));
            }
            sample.units.extend(channels.iter().map(|&u| u as u32));
            if let Some(at) = sample.times.windows(2).position(|t| t[1] < t[0]) {
                if self.order == Order::Strict {
                    let got = format!("{} s after {} s at spike {}", sample.times[at + 1], sample.times[at], at + 1);
                    return Err(file.wrong(&place(TIMES), got, "times that do not decrease"));
                }
                let mut order: Vec<usize> = (0..sample.times.len()).collect();
                order.sort_by(|&a, &b| sample.times[a].total_cmp(&sample.times[b]));
                sample.units = order.iter().map(|&i| sample.units[i]).collect();
                sample.times = order.iter().map(|&i| sample.times[i]).collect();
            }
            each(index, sample)?;
        }
        Ok(())
    }
}

impl Source for ShdFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Events { units: UNITS, sensor: None }
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        self.read_block(index..index + 1, into, |_, _| Ok(()))
    }
}

/// Writes samples in this layout, as other tools expect them: `times` as half floats, `units` as 16-bit numbers.
pub(crate) fn write(source: &dyn Source, path: &Path, mut each: impl FnMut()) -> Result<()> {
    let file = File::create(path)?;
    file.group("spikes")?;
    file.group("extra")?;
    let mut times = file.growing_rows::<half::f16>(TIMES, BLOCK)?;
    let mut units = file.growing_rows::<u16>(CHANNELS, BLOCK)?;
    let (mut sample, mut labels) = (Sample::default(), Vec::<u16>::new());
    for index in 0..source.len() {
        source.read(index, &mut sample)?;
        let halves: Vec<_> = sample.times.iter().map(|&t| half::f16::from_f32(t)).collect();
        let channels: Vec<_> = sample.units.iter().map(|&u| u as u16).collect();
        times.push(&file, &halves)?;
        units.push(&file, &channels)?;
        labels.push(sample.label as u16);
        each();
    }
    times.flush(&file)?;
    units.flush(&file)?;
    file.write(LABELS, &labels)?;
    file.write_strings(KEYS, source.class_names())?;
    drop((times, units));
    file.close()
}
