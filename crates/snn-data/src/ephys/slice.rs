//! From sweeps to equal steps: windows, samples picked at the rate of a model, spike times in bins.
//!
//! A window `[a, e)` of a sweep recorded at `f` Hz, for a model that runs at `g` Hz, takes the samples
//!
//! ```text
//! trunc(a f), trunc(a f) + f/g, trunc(a f) + 2 f/g, ...  < trunc(e f)                     (SLICE-1)
//! ```
//!
//! without a filter, so that `f/g` must be a whole number. A spike at `t` seconds after the window's beginning belongs
//! to the bin
//!
//! ```text
//! round((t - fmod(t, w)) / w)                                                             (SLICE-2)
//! ```
//!
//! of width `w`, in double precision and with the exact remainder: the floor division of Python, as the published
//! pipeline has it. It is not `floor(t / w)`: a spike at 0.0003 s goes to bin 2 of 0.0001 s, because the number nearest
//! to 0.0001 is a little more than a ten-thousandth.

use std::ops::Range;

use crate::error::{Error, Result};

/// The windows of the noise sweeps of the Allen Cell Types Database, s: three segments of pink noise of rising mean.
pub const NOISE_WINDOWS_S: [[f64; 2]; 3] = [[2.0, 5.0], [10.0, 13.0], [18.0, 21.0]];

/// Which samples of a sweep a window takes (SLICE-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picks {
    /// The samples of the window.
    pub range: Range<usize>,
    /// Every how many of them one is picked.
    pub every: usize,
}

impl Picks {
    /// The picks of a window `[start, end)` in seconds of a sweep at `rate_hz`, at `target_hz`.
    ///
    /// ```
    /// use snn_data::ephys::slice::Picks;
    /// let picks = Picks::new([2.0, 5.0], 50_000.0, 10_000.0)?;
    /// assert_eq!((picks.range.clone(), picks.every, picks.count()), (100_000..250_000, 5, 30_000));
    /// # Ok::<(), snn_data::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a rate is not positive, the target rate does not divide the rate of the sweep, or the window
    /// is empty, negative or longer than an hour.
    pub fn new([start, end]: [f64; 2], rate_hz: f64, target_hz: f64) -> Result<Self> {
        if !(rate_hz > 0.0 && rate_hz <= 1e9) {
            return Err(Error::config("sampling rate", format!("{rate_hz} Hz"), "a positive rate up to 1 GHz"));
        }
        if !(target_hz > 0.0 && target_hz <= rate_hz && (rate_hz / target_hz).fract() == 0.0) {
            let want = format!("a rate that divides the {rate_hz} Hz of the recording");
            return Err(Error::config("rate of the model", format!("{target_hz} Hz"), want));
        }
        let range = (start * rate_hz) as usize..(end * rate_hz) as usize;
        if !(start >= 0.0 && end <= 3600.0 && range.start < range.end) {
            return Err(Error::config("window", format!("{start} s to {end} s"), "times in order, from 0 to an hour"));
        }
        Ok(Self { range, every: (rate_hz / target_hz) as usize })
    }

    /// Samples that are picked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.range.len().div_ceil(self.every)
    }
}

/// The bin of a time that is not negative, both in seconds (SLICE-2).
///
/// ```
/// use snn_data::ephys::slice::bin;
/// assert_eq!([0.0003, 0.00035, 0.0004].map(|t| bin(t, 0.0001)), [2, 3, 4]);
/// ```
#[must_use]
pub fn bin(time_s: f64, width_s: f64) -> usize {
    ((time_s - time_s % width_s) / width_s).round() as usize
}

/// The bins below `count` that times fall into, ascending and each once: a raster holds one spike per bin.
#[must_use]
pub fn bins(times_s: &[f64], width_s: f64, count: usize) -> Vec<u32> {
    let inside = times_s.iter().filter(|t| **t >= 0.0).map(|&t| bin(t, width_s));
    let mut bins: Vec<u32> = inside.filter(|&b| b < count).map(|b| b as u32).collect();
    bins.sort_unstable();
    bins.dedup();
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_cannot_be_cut_say_why() {
        let message = |window, rate, target| Picks::new(window, rate, target).unwrap_err().to_string();
        for (got, want) in [
            (message([0.0, 1.0], 44_100.0, 10_000.0), "10000 Hz, expected a rate that divides the 44100 Hz"),
            (message([0.0, 1.0], 5_000.0, 10_000.0), "divides the 5000 Hz"),
            (message([0.0, 1.0], 50_000.0, 0.0), "rate of the model: 0 Hz"),
            (message([0.0, 1.0], f64::NAN, 10_000.0), "sampling rate: NaN Hz"),
            (message([2.0, 2.0], 50_000.0, 10_000.0), "window: 2 s to 2 s"),
            (message([-1.0, 2.0], 50_000.0, 10_000.0), "window: -1 s"),
            (message([0.0, f64::INFINITY], 50_000.0, 10_000.0), "window: 0 s to inf"),
            (message([f64::NAN, 1.0], 50_000.0, 10_000.0), "window: NaN s"),
        ] {
            assert!(got.contains(want), "{got} is not {want}");
        }
        let picks = Picks::new([0.0, 0.00011], 50_000.0, 10_000.0).unwrap();
        assert_eq!((picks.range.clone(), picks.count()), (0..5, 1));
    }

    #[test]
    fn bins_are_those_of_a_raster() {
        assert_eq!(bins(&[0.00025, 0.00021, -0.5, 0.1, 0.00005], 0.0001, 1000), [0, 2]);
    }
}
