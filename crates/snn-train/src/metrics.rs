//! How well a model's spikes explain a recording: smoothed trains and the share of their variance in time that is
//! explained (arXiv 2311.11390).
//!
//! ```text
//! EV(a, c) = (var a + var c - var(a - c)) / (var a + var c)                                             (ETV-1)
//! raw  = mean over trials of EV(trial, model);   norm = mean over trials of EV(trial, mean of all trials)
//! explained temporal variance = raw / norm                                                              (ETV-2)
//! ```
//!
//! Variances are unbiased. A neuron that repeats itself no better than chance cannot be explained: `norm` is what is
//! there to be explained. Of silent trains nothing can be said.

/// A spike train smoothed with a Gaussian of `sigma` samples, of the same length.
///
/// As published, the bell lies on the sample after the spike's place, which is the same for every train, and is not
/// scaled to an area of 1: its factor is `1 / (sigma (2 pi)^2)`. Where it is below 1e-17 of its peak it is left out.
///
/// ```
/// let smooth = snn_train::metrics::smooth(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], 1.0);
/// assert!(smooth[2] > smooth[3] && smooth[2] > smooth[1] && smooth.len() == 6);
/// ```
#[must_use]
pub fn smooth(train: &[f64], sigma: f64) -> Vec<f64> {
    const REACH: f64 = 9.0;
    let factor = 1.0 / (sigma * (2.0 * std::f64::consts::PI).powi(2));
    let reach = (REACH * sigma).ceil() as isize;
    let bell: Vec<f64> = (-reach..=reach).map(|d| factor * (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let mut out = vec![0.0; train.len()];
    for (at, &count) in train.iter().enumerate().filter(|(_, count)| **count != 0.0) {
        // out[o] takes in[o + 1 + d] with the weight of d: from the train's side, o = at - 1 - d.
        let first = at as isize - 1 - reach;
        for (o, weight) in (first..).zip(bell.iter().rev()) {
            if let Ok(o) = usize::try_from(o)
                && o < out.len()
            {
                out[o] += count * weight;
            }
        }
    }
    out
}

/// The unbiased variance; of fewer than two numbers, nothing.
fn variance(x: impl ExactSizeIterator<Item = f64> + Clone) -> Option<f64> {
    let n = x.len();
    if n < 2 {
        return None;
    }
    let mean = x.clone().sum::<f64>() / n as f64;
    Some(x.map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1) as f64)
}

/// (ETV-1); nothing if both are constant.
#[must_use]
pub fn explained_variance(a: &[f64], c: &[f64]) -> Option<f64> {
    let (of_a, of_c) = (variance(a.iter().copied())?, variance(c.iter().copied())?);
    let rest = variance(a.iter().zip(c).map(|(a, c)| a - c))?;
    let all = of_a + of_c;
    (all > 0.0).then(|| (all - rest) / all)
}

/// The explained temporal variance of a neuron, with its two parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Explained {
    /// What the model explains of single trials; nothing if a trial and the model are silent.
    pub raw: Option<f64>,
    /// What the mean trial explains of single trials.
    pub norm: Option<f64>,
}

impl Explained {
    /// Of a model against trials: each one train, smoothed, segments one after the other.
    #[must_use]
    pub fn of(trials: &[Vec<f64>], model: &[f64]) -> Self {
        let mean: Vec<f64> = (0..model.len())
            .map(|t| trials.iter().map(|trial| trial.get(t).copied().unwrap_or(0.0)).sum::<f64>() / trials.len() as f64)
            .collect();
        let against = |other: &[f64]| {
            let each: Option<Vec<f64>> = trials.iter().map(|trial| explained_variance(trial, other)).collect();
            each.filter(|e| !e.is_empty()).map(|e| e.iter().sum::<f64>() / e.len() as f64)
        };
        Self { raw: against(model), norm: against(&mean) }
    }

    /// The share of what can be explained; nothing where nothing can.
    #[must_use]
    pub fn normalised(&self) -> Option<f64> {
        let (raw, norm) = (self.raw?, self.norm?);
        (norm != 0.0).then(|| raw / norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn silence_explains_nothing_and_is_no_number() {
        let silent = vec![vec![0.0; 50]; 3];
        assert_eq!(Explained::of(&silent, &[0.0; 50]).normalised(), None);
        assert_eq!(Explained::of(&[], &[0.0; 50]).raw, None);
        let trial = smooth(&(0..50).map(|t| f64::from(u8::from(t % 9 == 4))).collect::<Vec<_>>(), 2.0);
        let explained = Explained::of(std::slice::from_ref(&trial), &trial);
        assert!((explained.normalised().unwrap() - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_model_is_explained_by_itself_and_by_its_negative_not(
            x in prop::collection::vec(-1.0..1.0_f64, 2..40),
            scale in 0.1..3.0_f64,
        ) {
            prop_assume!(x.iter().any(|v| (v - x[0]).abs() > 1e-3));
            let other: Vec<f64> = x.iter().map(|v| -scale * v).collect();
            prop_assert!((explained_variance(&x, &x).unwrap() - 1.0).abs() < 1e-9);
            prop_assert!(explained_variance(&x, &other).unwrap() < 0.0);
            let (ab, ba) = (explained_variance(&x, &other).unwrap(), explained_variance(&other, &x).unwrap());
            prop_assert!((ab - ba).abs() < 1e-9);
        }

        #[test]
        fn smoothing_is_linear_and_keeps_its_place(spikes in prop::collection::vec(0_u8..3, 60), sigma in 0.5..8.0_f64) {
            let train: Vec<f64> = spikes.iter().map(|&s| f64::from(s)).collect();
            let all = smooth(&train, sigma);
            let mut sum = vec![0.0; 60];
            for (t, &count) in train.iter().enumerate() {
                let mut one = vec![0.0; 60];
                one[t] = count;
                let one = smooth(&one, sigma);
                if count > 0.0 && t > 0 {
                    let peak = one.iter().copied().fold(0.0, f64::max);
                    prop_assert_eq!(one[t - 1], peak);
                }
                sum.iter_mut().zip(one).for_each(|(s, x)| *s += x);
            }
            prop_assert!(all.iter().zip(sum).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }
}
