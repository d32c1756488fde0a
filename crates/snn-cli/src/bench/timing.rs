//! Medians and spreads.

use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Timings of one thing, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// The median.
    pub(crate) median: f64,
    /// The shortest.
    pub(crate) best: f64,
    /// First quartile.
    pub(crate) low: f64,
    /// Third quartile.
    pub(crate) high: f64,
    /// All, in order of time.
    pub(crate) all: Vec<f64>,
}

impl Times {
    /// Of at least one timing.
    pub(crate) fn new(all: Vec<f64>) -> Self {
        Self {
            median: quantile(&all, 0.5),
            best: quantile(&all, 0.0),
            low: quantile(&all, 0.25),
            high: quantile(&all, 0.75),
            all,
        }
    }
}

/// The value below which a share of all values lies, interpolated; not a number for no values.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize));
    match (below, above) {
        (Some(a), Some(b)) => a + (b - a) * at.fract(),
        _ => f64::NAN,
    }
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Times `work` on `state`; `prepare` goes before each time and is not counted. The first time is dropped.
///
/// `repeats` is the least number of timings; short work is repeated until it filled a twentieth of a second, long
/// work stops at three timings once it took two seconds.
pub(crate) fn repeat<S>(
    repeats: usize,
    state: &mut S,
    mut prepare: impl FnMut(&mut S) -> Result<()>,
    mut work: impl FnMut(&mut S) -> Result<()>,
) -> Result<Times> {
    const ENOUGH: f64 = 0.05;
    const PLENTY: f64 = 2.0;
    let (mut all, mut total) = (Vec::new(), 0.0);
    for i in 0.. {
        prepare(state)?;
        let start = Instant::now();
        work(state)?;
        let seconds = start.elapsed().as_secs_f64();
        if i > 0 {
            all.push(seconds);
            total += seconds;
        }
        let done = all.len() >= repeats && (total >= ENOUGH || all.len() >= 1000);
        if done || all.len() >= repeats.min(3) && total >= PLENTY {
            break;
        }
    }
    Ok(Times::new(all))
}

/// A duration in the unit that suits it.
pub(crate) fn show(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", 1e3 * s),
        s => format!("{:.1} µs", 1e6 * s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let times = Times::new(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((times.low, times.median, times.high), (1.75, 2.5, 3.25));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_first_timing_is_dropped() {
        let mut calls = 0;
        let times = repeat(
            3,
            &mut calls,
            |_| Ok(()),
            |n| {
                *n += 1;
                std::thread::sleep(std::time::Duration::from_millis(30));
                Ok(())
            },
        );
        assert_eq!((times.unwrap().all.len(), calls), (3, 4));
    }
}
