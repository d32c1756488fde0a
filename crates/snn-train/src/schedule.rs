//! Schedules: the learning rate as a function of finished epochs, and what else happens at a milestone.

use crate::config::ScheduleConfig;

/// What happens before an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// The weights go back to the best so far and the optimiser starts afresh.
    ReloadBest,
}

impl ScheduleConfig {
    /// The factor on the initial learning rate after `finished` of `epochs` epochs.
    ///
    /// ```
    /// use snn_train::config::ScheduleConfig;
    /// let s = ScheduleConfig::Milestones { epochs: vec![2, 4], factor: 0.1, reload_best: false };
    /// assert_eq!([0, 1, 2, 3].map(|e| s.factor(e, 5)), [1.0, 1.0, 0.1, 0.1]);
    /// ```
    #[must_use]
    pub fn factor(&self, finished: u32, epochs: u32) -> f64 {
        match self {
            // A decay by updates is the business of `ScheduleConfig::factor_at`.
            Self::Constant | Self::Decay { .. } => 1.0,
            Self::Milestones { epochs, factor, .. } => {
                factor.powi(epochs.iter().filter(|&&m| m <= finished).count() as i32)
            }
            Self::Exponential { factor } => factor.powi(finished as i32),
            Self::Step { every, factor, floor } => factor.powi((finished / every.max(&1)) as i32).max(*floor),
            Self::Cosine { warmup, .. } if finished < *warmup => f64::from(finished + 1) / f64::from(warmup + 1),
            Self::Cosine { warmup, floor } => {
                let done = f64::from(finished - warmup) / f64::from(epochs.saturating_sub(*warmup).max(1));
                floor + (1.0 - floor) * fall(done)
            }
            Self::OneCycle { peak, warmup } => {
                let (start, end) = (peak / 25.0, peak / 25.0 / 1e4);
                // The top lies at the end of an epoch that rises, the lowest rate is that of the last epoch.
                let (at, last) = (f64::from(finished), f64::from(epochs) - 1.0);
                let top = (warmup * f64::from(epochs) - 1.0).max(0.0);
                if at < top {
                    peak + (start - peak) * fall(at / top)
                } else {
                    end + (peak - end) * fall(((at - top) / (last - top).max(1.0)).min(1.0))
                }
            }
        }
    }

    /// The factor within an epoch, after `updates` updates; it comes on top of that of the epoch.
    ///
    /// ```
    /// use snn_train::config::ScheduleConfig;
    /// let s = ScheduleConfig::Decay { factor: 0.9, steps: 5000.0 };
    /// assert_eq!([0, 5000].map(|k| s.factor_at(k)), [1.0, 0.9]);
    /// ```
    #[must_use]
    pub fn factor_at(&self, updates: u64) -> f64 {
        match self {
            Self::Decay { factor, steps } => factor.powf(updates as f64 / steps),
            _ => 1.0,
        }
    }

    /// What happens when `finished` epochs are done.
    #[must_use]
    pub fn turn(&self, finished: u32) -> Turn {
        match self {
            Self::Milestones { epochs, reload_best: true, .. } if epochs.contains(&finished) => Turn::ReloadBest,
            _ => Turn::None,
        }
    }
}

/// Half a cosine from 1 at 0 to 0 at 1.
fn fall(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_rises_then_falls_to_its_floor() {
        let s = ScheduleConfig::Cosine { warmup: 2, floor: 0.1 };
        assert!(s.factor(0, 12) < s.factor(1, 12) && s.factor(1, 12) < 1.0);
        assert_eq!(s.factor(2, 12), 1.0);
        assert!((s.factor(12, 12) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn one_cycle_rises_to_its_peak_and_ends_low() {
        let s = ScheduleConfig::OneCycle { peak: 5.0, warmup: 0.3 };
        let rates: Vec<f64> = (0..100).map(|e| s.factor(e, 100)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-12 && (rates[29] - 5.0).abs() < 1e-12);
        assert!((rates[99] - 2e-5).abs() < 1e-12);
        assert!(rates[..30].is_sorted() && rates[29..].iter().rev().is_sorted());
        assert!((0..3).all(|e| s.factor(e, 1).is_finite()), "a single epoch has a rate too");
    }

    #[test]
    fn published_schedule_reloads_at_milestones_only() {
        let s = ScheduleConfig::Milestones { epochs: vec![30, 60], factor: 0.1, reload_best: true };
        assert_eq!((s.turn(30), s.turn(31)), (Turn::ReloadBest, Turn::None));
        assert!((s.factor(60, 90) - 0.01).abs() < 1e-15);
    }
}
