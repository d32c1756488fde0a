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
            Self::Constant => 1.0,
            Self::Milestones { epochs, factor, .. } => {
                factor.powi(epochs.iter().filter(|&&m| m <= finished).count() as i32)
            }
            Self::Exponential { factor } => factor.powi(finished as i32),
            Self::Step { every, factor } => factor.powi((finished / every.max(&1)) as i32),
            Self::Cosine { warmup, .. } if finished < *warmup => f64::from(finished + 1) / f64::from(warmup + 1),
            Self::Cosine { warmup, floor } => {
                let done = f64::from(finished - warmup) / f64::from(epochs.saturating_sub(*warmup).max(1));
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
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
    fn published_schedule_reloads_at_milestones_only() {
        let s = ScheduleConfig::Milestones { epochs: vec![30, 60], factor: 0.1, reload_best: true };
        assert_eq!((s.turn(30), s.turn(31)), (Turn::ReloadBest, Turn::None));
        assert!((s.factor(60, 90) - 0.01).abs() < 1e-15);
    }
}
