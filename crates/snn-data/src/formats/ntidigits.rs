//! N-TIDIGITS18: spoken digits before a silicon cochlea of 64 channels, one HDF5 file for both splits.
//!
//! `/<split>_labels` holds the names of the samples, such as `man-ae-a-1`; what follows the last dash is what was said.
//! `/<split>_timestamps/<name>` holds the times of a sample in seconds, `/<split>_addresses/<name>` its channels. Only
//! names that end in a single digit are used, `z` for zero and `o` for oh. Written from public descriptions.

use std::path::Path;

use crate::error::Result;
use crate::h5::File;
use crate::source::Sample;

/// Channels of the cochlea.
pub const UNITS: usize = 64;
/// A digit has a few thousand events; more than this are not believed.
const MOST_EVENTS: usize = 1 << 22;

/// The isolated digits of a split, read one by one.
#[derive(Debug)]
pub struct Digits {
    file: File,
    split: String,
    /// Name and class of every sample.
    samples: Vec<(String, u32)>,
}

impl Digits {
    /// Opens a file and reads which samples the split has.
    ///
    /// * `split` — `train` or `test`.
    /// * `classes` — what is said in each class, one character each.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Malformed`] if it is no complete HDF5 file, the names are missing or no strings, a name cannot be one, a
    /// digit is in no class, or there is no isolated digit.
    pub fn open(path: &Path, split: &str, classes: &[String]) -> Result<Self> {
        let file = File::open_foreign(path)?;
        let place = format!("/{split}_labels");
        let mut samples = Vec::new();
        for (index, name) in file.strings(&place)?.into_iter().enumerate() {
            let name = name.trim_end_matches('\0').trim();
            let wrong = |want: &str| file.wrong(&format!("{place}, sample {index}"), format!("name {name:?}"), want);
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(wrong("the name of a dataset"));
            }
            let said = name.rsplit('-').next().unwrap_or(name).to_ascii_lowercase();
            if said.chars().count() != 1 {
                continue;
            }
            let Some(class) = classes.iter().position(|class| *class == said) else {
                return Err(wrong(&format!("one of {} after the last dash", classes.join(", "))));
            };
            samples.push((name.to_owned(), class as u32));
        }
        if samples.is_empty() {
            return Err(file.wrong(&place, "no isolated digits", "names such as `man-ae-a-1`"));
        }
        Ok(Self { file, split: split.to_owned(), samples })
    }

    /// Samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample, which is not so in a file that could be opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Reads a sample into the buffers of `into`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Malformed`] if its times or channels are missing, not numbers, or not as many as the others; a channel is
    /// above 63; or a time is no number, negative, or earlier than the one before.
    ///
    /// # Panics
    ///
    /// If there is no such sample.
    pub fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        let (name, label) = &self.samples[index];
        let file = &self.file;
        let [times_at, units_at] = ["timestamps", "addresses"].map(|part| format!("/{}_{part}/{name}", self.split));
        let (times, count) = file.vector(&times_at)?;
        let (units, n_units) = file.vector(&units_at)?;
        if n_units != count || count > MOST_EVENTS {
            let want = format!("{count}, as many as times, and at most {MOST_EVENTS}");
            return Err(file.wrong(&units_at, format!("{n_units} channels"), want));
        }
        into.clear();
        into.label = *label;
        for time in file.real_numbers(&times_at, &times, 0..count)? {
            let before = into.times.last().copied().unwrap_or(0.0);
            let time = time as f32;
            if !(time.is_finite() && time >= before) {
                let got = format!("{time} s after {before} s at event {}", into.times.len());
                return Err(file.wrong(&times_at, got, "finite times that do not decrease"));
            }
            into.times.push(time);
        }
        for channel in file.whole_numbers(&units_at, &units, 0..count)? {
            if !(0..UNITS as i64).contains(&channel) {
                let got = format!("channel {channel} at event {}", into.units.len());
                return Err(file.wrong(&units_at, got, "0..=63"));
            }
            into.units.push(channel as u32);
        }
        Ok(())
    }
}
