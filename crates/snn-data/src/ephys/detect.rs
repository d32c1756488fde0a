//! When a neuron fired, from its voltage: the crossing of a threshold of dV/dt, refined to the onset of each spike.
//!
//! 1. The voltage is smoothed with a Bessel low-pass filter forth and back and differentiated:
//!    `dvdt[k] = 1e-3 (vf[k+1] - vf[k]) / (t[k+1] - t[k])` in mV/ms, one entry less than the voltage.
//! 2. Candidates are upward crossings of a threshold of dV/dt inside the window.
//! 3. The peak of a candidate is the largest voltage before the next candidate; candidates without a fall of the
//!    voltage between them are one spike, low or flat peaks are none.
//! 4. The upstroke is the steepest place before the peak; the threshold is where dV/dt was last at or below a fraction
//!    of the mean upstroke.
//! 5. Thresholds too long before their peak are looked for again, or the spike is dropped.
//!
//! It is the detector whose times the Allen Cell Types Database stores beside its recordings. Those were computed on
//! whole sweeps, with another mean upstroke, so that they can differ by a sample or so from those of a window.

use crate::error::{Error, Result};

/// Samples that a trace is extended by at either end before it is filtered.
const PADDING: usize = 15;

/// The settings of the detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detector {
    /// Cut-off frequency of the filter before differentiation, Hz.
    pub filter_hz: f64,
    /// What dV/dt must cross, mV/ms.
    pub slope_mv_per_ms: f64,
    /// The longest time from threshold to peak, ms.
    pub max_interval_ms: f64,
    /// The least height of a peak above the crossing, mV.
    pub min_height_mv: f64,
    /// The least voltage of a peak, mV.
    pub min_peak_mv: f64,
    /// The fraction of the mean upstroke that dV/dt has at threshold.
    pub threshold_fraction: f64,
}

impl Default for Detector {
    /// The published settings: 10 kHz, 20 mV/ms, 5 ms, 2 mV, -30 mV, 0.05.
    fn default() -> Self {
        Self {
            filter_hz: 10_000.0,
            slope_mv_per_ms: 20.0,
            max_interval_ms: 5.0,
            min_height_mv: 2.0,
            min_peak_mv: -30.0,
            threshold_fraction: 0.05,
        }
    }
}

/// A spike, in samples of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spike {
    /// The onset.
    pub threshold: usize,
    /// The steepest place.
    pub upstroke: usize,
    /// The largest voltage.
    pub peak: usize,
    /// Whether the trace ends before the voltage has come down again.
    pub clipped: bool,
}

/// A digital low-pass Bessel filter of fourth order, `y = (sum b z^-k) / (sum a z^-k) x`.
///
/// The analogue prototype is `105 / (s^4 + 10 s^3 + 45 s^2 + 105 s + 105)` with `s` scaled by `105^(1/4)`, so that its
/// phase response is that of `1 / s^4` far from the cut-off; the bilinear transform maps the cut-off to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bessel {
    /// The numerator.
    pub b: [f64; 5],
    /// The denominator; its first entry is 1.
    pub a: [f64; 5],
}

impl Bessel {
    /// The filter for samples at `rate_hz`.
    ///
    /// ```
    /// let filter = snn_data::ephys::Bessel::low_pass(10_000.0, 50_000.0)?;
    /// assert!((filter.b[0] - 0.039277641267493425).abs() < 1e-15);
    /// # Ok::<(), snn_data::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the cut-off is not between 0 and half the rate.
    pub fn low_pass(cutoff_hz: f64, rate_hz: f64) -> Result<Self> {
        if !(rate_hz.is_finite() && cutoff_hz > 0.0 && cutoff_hz < rate_hz / 2.0) {
            let want = format!("above 0 and below half the sampling rate of {rate_hz} Hz");
            return Err(Error::config("filter_hz", cutoff_hz.to_string(), want));
        }
        let scale = 105.0_f64.powf(0.25);
        let analogue = [1.0, 105.0 / scale.powi(3), 45.0 / (scale * scale), 10.0 / scale, 1.0];
        // s = warp (z - 1) / (z + 1), in units of the cut-off.
        let warp = 1.0 / (std::f64::consts::PI * cutoff_hz / rate_hz).tan();
        let mut a = [0.0; 5];
        let mut power = 1.0;
        for (order, coefficient) in analogue.into_iter().enumerate() {
            // (z - 1)^order (z + 1)^(4 - order), the highest power of z first.
            let mut product = [1.0, 0.0, 0.0, 0.0, 0.0];
            for factor in 0..4 {
                let root = if factor < order { -1.0 } else { 1.0 };
                for at in (1..5).rev() {
                    product[at] += root * product[at - 1];
                }
            }
            a.iter_mut().zip(product).for_each(|(a, p)| *a += coefficient * power * p);
            power *= warp;
        }
        let first = a[0];
        a = a.map(|x| x / first);
        Ok(Self { b: [1.0, 4.0, 6.0, 4.0, 1.0].map(|x| x / first), a })
    }

    /// The state in which a constant input of 1 has lasted for ever.
    fn settled(&self) -> [f64; 4] {
        let rest = |k: usize| self.b[k] - self.a[k] * self.b[0];
        let (mut a_sum, mut rest_sum) = (self.a[0], 0.0);
        let first = (1..5).map(rest).sum::<f64>() / self.a.iter().sum::<f64>();
        let mut state = [first, 0.0, 0.0, 0.0];
        for (k, state) in state.iter_mut().enumerate().skip(1) {
            a_sum += self.a[k];
            rest_sum += rest(k);
            *state = a_sum * first - rest_sum;
        }
        state
    }

    /// Filters in place from a settled state at the first value.
    fn run<'a>(&self, values: impl Iterator<Item = &'a mut f64>) {
        let (a, b) = (&self.a, &self.b);
        let mut state: Option<[f64; 4]> = None;
        for value in values {
            let x = *value;
            let [s0, s1, s2, s3] = state.unwrap_or_else(|| self.settled().map(|s| s * x));
            let y = b[0] * x + s0;
            state = Some([
                b[1] * x + s1 - a[1] * y,
                b[2] * x + s2 - a[2] * y,
                b[3] * x + s3 - a[3] * y,
                b[4] * x - a[4] * y,
            ]);
            *value = y;
        }
    }

    /// Filters forth and back, so that nothing is delayed. Either end is extended by 15 samples, turned about the end
    /// point, and the filter begins settled.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are not more than 15 samples.
    pub fn forth_and_back(&self, values: &[f64]) -> Result<Vec<f64>> {
        let n = values.len();
        if n <= PADDING {
            return Err(Error::config("samples to filter", n.to_string(), format!("more than {PADDING}")));
        }
        let (first, last) = (values[0], values[n - 1]);
        let mut long = Vec::with_capacity(n + 2 * PADDING);
        long.extend((1..=PADDING).rev().map(|k| 2.0 * first - values[k]));
        long.extend_from_slice(values);
        long.extend((1..=PADDING).map(|k| 2.0 * last - values[n - 1 - k]));
        self.run(long.iter_mut());
        self.run(long.iter_mut().rev());
        long.truncate(n + PADDING);
        long.drain(..PADDING);
        Ok(long)
    }
}

/// A trace: sample `k` is at `k / rate_hz` seconds.
#[derive(Clone, Copy)]
struct Trace<'a> {
    rate_hz: f64,
    v: &'a [f64],
}

impl Trace<'_> {
    fn time(&self, sample: usize) -> f64 {
        sample as f64 / self.rate_hz
    }

    /// The first sample at or after `time`; the number of samples if there is none.
    fn first_from(&self, time: f64) -> usize {
        let guess = (time * self.rate_hz).clamp(0.0, self.v.len() as f64) as usize;
        let mut at = guess.saturating_sub(2);
        while at < self.v.len() && self.time(at) < time {
            at += 1;
        }
        at
    }

    /// dV/dt of samples `from` and on, filtered as if there were no others.
    fn slope(&self, filter: &Bessel, from: usize, to: usize) -> Result<Vec<f64>> {
        let smooth = filter.forth_and_back(&self.v[from..to])?;
        let step = |k: usize| self.time(from + k + 1) - self.time(from + k);
        Ok(smooth.windows(2).enumerate().map(|(k, v)| 1e-3 * (v[1] - v[0]) / step(k)).collect())
    }
}

/// The first of the largest entries of `values[from..to]`.
fn largest(values: &[f64], from: usize, to: usize) -> usize {
    let mut best = from;
    for at in from..to {
        if values[at] > values[best] {
            best = at;
        }
    }
    best
}

impl Detector {
    /// The spikes of `voltage_mv`, whose first sample is at time 0, in each of the `windows_s`: pairs of first and last
    /// time in seconds, both included.
    ///
    /// Windows that reach beyond the trace end with it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the rate is not above twice the filter's cut-off, or the trace or a window has fewer than
    /// 16 samples.
    pub fn detect(&self, rate_hz: f64, voltage_mv: &[f64], windows_s: &[[f64; 2]]) -> Result<Vec<Vec<Spike>>> {
        let filter = Bessel::low_pass(self.filter_hz, rate_hz)?;
        let trace = Trace { rate_hz, v: voltage_mv };
        let slope = trace.slope(&filter, 0, voltage_mv.len())?;
        windows_s.iter().map(|&window| self.spikes(trace, &filter, &slope, window)).collect()
    }

    fn spikes(&self, trace: Trace<'_>, filter: &Bessel, slope: &[f64], [start, end]: [f64; 2]) -> Result<Vec<Spike>> {
        let v = trace.v;
        let end = trace.first_from(end).min(v.len() - 1);
        let start = trace.first_from(start).min(end);
        let inside = trace.slope(filter, start, end + 1)?;
        let candidates = self.candidates(&inside, start);
        let mut spikes = self.peaks(v, slope, &candidates, end);
        for spike in &mut spikes {
            spike.upstroke = largest(slope, spike.threshold, spike.peak.min(slope.len()));
        }
        let target = |spikes: &[Spike]| {
            let sum: f64 = spikes.iter().map(|s| slope[s.upstroke]).sum();
            sum / spikes.len() as f64 * self.threshold_fraction
        };
        let level = target(&spikes);
        let mut before = 0;
        for spike in &mut spikes {
            spike.threshold = onset(slope, spike.upstroke, before, level).unwrap_or(before);
            before = spike.upstroke;
        }
        let mut spikes = merge(spikes);
        let level = target(&spikes);
        self.shorten(trace, slope, level, &mut spikes);
        if let Some(last) = spikes.last_mut() {
            last.clipped = !v[last.peak..(end + 1).max(last.peak)].iter().any(|x| *x <= v[last.threshold] + 1.0);
        }
        Ok(spikes)
    }

    /// Upward crossings of the slope's threshold, between which the voltage fell.
    fn candidates(&self, slope: &[f64], offset: usize) -> Vec<usize> {
        let above = |x: f64| x >= self.slope_mv_per_ms;
        let raw: Vec<usize> =
            (1..slope.len()).filter(|&k| !above(slope[k - 1]) && above(slope[k])).map(|k| k - 1).collect();
        let fell = |(i, &at): (usize, &usize)| i == 0 || slope[raw[i - 1]..at].iter().any(|x| *x < 0.0);
        raw.iter().enumerate().filter(|&c| fell(c)).map(|(_, at)| at + offset).collect()
    }

    /// The peaks of all candidates that are spikes; the crossing stands in for the threshold.
    fn peaks(&self, v: &[f64], slope: &[f64], candidates: &[usize], end: usize) -> Vec<Spike> {
        let next = |i: usize| candidates.get(i + 1).copied().unwrap_or(end);
        let peaks: Vec<usize> = candidates.iter().enumerate().map(|(i, &at)| largest(v, at, next(i))).collect();
        // Between a peak and the next candidate the voltage falls, or both belong to one spike.
        let ends = |i: usize| {
            candidates.get(i + 1).is_none_or(|&next| slope[peaks[i]..next.max(peaks[i])].iter().any(|x| *x < 0.0))
        };
        let firsts = (0..candidates.len()).filter(|&i| i == 0 || ends(i - 1)).map(|i| candidates[i]);
        let tops = (0..candidates.len()).filter(|&i| ends(i)).map(|i| peaks[i]);
        firsts
            .zip(tops)
            .filter(|&(_, peak)| v[peak] >= self.min_peak_mv)
            .filter(|&(at, peak)| v[peak] - v[at] >= self.min_height_mv)
            .map(|(threshold, peak)| Spike { threshold, upstroke: threshold, peak, clipped: false })
            .collect()
    }

    /// Looks again for thresholds that lie too long before their peaks, or drops the spike.
    fn shorten(&self, trace: Trace<'_>, slope: &[f64], level: f64, spikes: &mut Vec<Spike>) {
        let longest = self.max_interval_ms / 1000.0;
        let too_long = |s: &Spike| trace.time(s.peak) - trace.time(s.threshold) >= longest;
        let long: Vec<usize> = (0..spikes.len()).filter(|&i| too_long(&spikes[i])).collect();
        let mut dropped = Vec::new();
        for i in long {
            let spike = spikes[i];
            // The peak may be right and the threshold wrong, or the other way round.
            let from = trace.first_from(trace.time(spike.peak) - longest);
            if let Some(threshold) = onset(slope, spike.upstroke, from, level) {
                spikes[i].threshold = threshold;
                continue;
            }
            let to = trace.first_from(trace.time(spike.threshold) + 2.0 * longest);
            let peak = largest(trace.v, spike.threshold, to);
            let near = trace.time(peak) - trace.time(spike.threshold) < longest;
            if near && spikes.get(i + 1).is_none_or(|next| trace.time(peak) < trace.time(next.threshold)) {
                spikes[i].peak = peak;
            } else {
                dropped.push(i);
            }
        }
        let mut at = 0;
        spikes.retain(|_| {
            at += 1;
            !dropped.contains(&(at - 1))
        });
    }
}

/// Walks back from `upstroke` to the first sample where the slope is at most `level`, not as far as `before`.
fn onset(slope: &[f64], upstroke: usize, before: usize, level: f64) -> Option<usize> {
    (before + 1..=upstroke).rev().find(|&at| slope[at] <= level)
}

/// Joins spikes whose threshold does not lie behind the peak before it.
fn merge(spikes: Vec<Spike>) -> Vec<Spike> {
    let overlaps = |i: usize| spikes.get(i + 1).is_some_and(|next| next.threshold <= spikes[i].peak + 1);
    let thresholds = (0..spikes.len()).filter(|&i| i == 0 || !overlaps(i - 1)).map(|i| spikes[i].threshold);
    let rest = (0..spikes.len()).filter(|&i| !overlaps(i)).map(|i| spikes[i]);
    thresholds.zip(rest).map(|(threshold, spike)| Spike { threshold, ..spike }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_passes_constants_and_lines() {
        let filter = Bessel::low_pass(10_000.0, 50_000.0).unwrap();
        let gain = filter.b.iter().sum::<f64>() / filter.a.iter().sum::<f64>();
        assert!((gain - 1.0).abs() < 1e-12);
        for out in filter.forth_and_back(&[-70.0; 40]).unwrap() {
            assert!((out + 70.0).abs() < 1e-10, "{out}");
        }
        assert!(filter.forth_and_back(&[0.0; 15]).unwrap_err().to_string().contains("more than 15"));
    }

    #[test]
    fn rates_that_the_filter_cannot_serve_are_refused() {
        for rate in [20_000.0, 10_000.0, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            let message = Detector::default().detect(rate, &[0.0; 100], &[[0.0, 1.0]]).unwrap_err().to_string();
            assert!(message.contains("filter_hz: 10000, expected above 0 and below half"), "{message}");
        }
    }

    #[test]
    fn traces_that_are_no_recordings_have_no_spikes() {
        let detector = Detector::default();
        let noise = |k: usize| ((k * 7919) % 101) as f64 - 50.0;
        for v in
            [vec![-70.0; 500], vec![f64::NAN; 500], (0..500).map(noise).collect(), (0..500).map(|k| k as f64).collect()]
        {
            for window in [[0.0, 0.01], [0.001, 5.0], [-1.0, 0.005]] {
                detector.detect(50_000.0, &v, &[window]).unwrap();
            }
            assert!(detector.detect(50_000.0, &v, &[[3.0, 5.0]]).is_err(), "fewer than 16 samples");
        }
    }
}
