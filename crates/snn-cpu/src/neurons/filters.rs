//! What the filtered families share: decays as used, checks, places for gradients, and the rows of one step.

use snn_core::Lanes;
use snn_core::backend::{DecayMap, FilterGrad, Filters};
use snn_core::error::{Result, check_len};

use crate::memory::Cpu;

/// The decays of every neuron.
#[derive(Debug)]
pub(super) struct Decays {
    pub(super) alpha: Vec<f32>,
    pub(super) beta: Vec<f32>,
    /// 1 - beta.
    pub(super) gain: Vec<f32>,
    /// Derivatives of the maps that alpha and beta went through.
    slopes: [Vec<f32>; 2],
}

/// A list of one entry for all neurons or one each, spelled out.
pub(super) fn spread(op: &'static str, arg: &'static str, list: &[f32], width: usize) -> Result<Vec<f32>> {
    if let [shared] = list {
        return Ok(vec![*shared; width]);
    }
    check_len(op, arg, list.len(), width)?;
    Ok(list.to_vec())
}

impl Decays {
    pub(super) fn new(op: &'static str, filters: &Filters<'_, Cpu>, width: usize) -> Result<Self> {
        let raw_beta = spread(op, "beta", filters.beta, width)?;
        let raw_alpha = filters.alpha.map(|alpha| spread(op, "alpha", alpha, width)).transpose()?;
        let logistic = |x: f32| 1.0 / (1.0 + (-x).exp());
        let map = |x: f32| match filters.map {
            DecayMap::Direct => x,
            DecayMap::Sigmoid => logistic(x),
        };
        let rest = |x: f32| match filters.map {
            DecayMap::Direct => 1.0 - x,
            // Not 1 - d, which cancels, and never 0.
            DecayMap::Sigmoid => logistic(-x).max(f32::MIN_POSITIVE),
        };
        let slope = |x: &f32| match filters.map {
            DecayMap::Direct => 1.0,
            DecayMap::Sigmoid => logistic(*x) * logistic(-*x),
        };
        let zeros = || vec![0.0; width];
        Ok(Self {
            alpha: raw_alpha.as_ref().map_or_else(zeros, |a| a.iter().map(|&x| map(x)).collect()),
            beta: raw_beta.iter().map(|&x| map(x)).collect(),
            gain: raw_beta.iter().map(|&x| rest(x)).collect(),
            slopes: [
                raw_alpha.map_or_else(zeros, |a| a.iter().map(slope).collect()),
                raw_beta.iter().map(slope).collect(),
            ],
        })
    }
}

/// The thresholds as used.
pub(super) fn thresholds(op: &'static str, list: &[f32], width: usize) -> Result<Vec<f32>> {
    Ok(spread(op, "threshold", list, width)?.into_iter().map(|x| x.max(0.0)).collect())
}

/// The gradients of one sample's lanes, a row of N entries each.
#[derive(Debug)]
pub(super) struct LaneGrads<'a> {
    pub(super) alpha: Option<&'a mut [f32]>,
    pub(super) beta: Option<&'a mut [f32]>,
    pub(super) threshold: Option<&'a mut [f32]>,
    pub(super) sum: Option<&'a mut [f32]>,
}

impl LaneGrads<'_> {
    pub(super) fn clear(&mut self) {
        for row in [&mut self.alpha, &mut self.beta, &mut self.threshold, &mut self.sum].into_iter().flatten() {
            row.fill(0.0);
        }
    }

    /// Turns gradients on what was used into gradients on what is stored.
    pub(super) fn finish(&mut self, decays: Option<&Decays>, thresholds: &[f32]) {
        let scale = |row: &mut [f32], by: &[f32]| row.iter_mut().zip(by).for_each(|(g, s)| *g *= s);
        if let Some(d) = decays {
            self.alpha.as_deref_mut().into_iter().for_each(|row| scale(row, &d.slopes[0]));
            self.beta.as_deref_mut().into_iter().for_each(|row| scale(row, &d.slopes[1]));
        }
        if let Some(row) = self.threshold.as_deref_mut() {
            row.iter_mut().zip(thresholds).filter(|(_, theta)| **theta <= 0.0).for_each(|(g, _)| *g = 0.0);
        }
    }
}

/// Checks the places for gradients and cuts them into samples.
pub(super) fn lane_grads<'a>(
    op: &'static str,
    lanes: Lanes,
    grads: FilterGrad<'a, Cpu>,
) -> Result<(Option<&'a [f32]>, Vec<LaneGrads<'a>>)> {
    let FilterGrad { membrane, alpha, beta, threshold, current_sum } = grads;
    if let Some(m) = membrane {
        check_len(op, "grad_membrane", m.len(), lanes.len())?;
    }
    let cut = |arg, place: Option<&'a mut Vec<f32>>| -> Result<Box<dyn Iterator<Item = Option<&'a mut [f32]>>>> {
        match place {
            None => Ok(Box::new(std::iter::repeat_with(|| None))),
            Some(buffer) => {
                check_len(op, arg, buffer.len(), lanes.batch * lanes.width)?;
                Ok(Box::new(buffer.chunks_mut(lanes.width.max(1)).map(Some)))
            }
        }
    };
    let places = cut("grad_alpha", alpha)?
        .zip(cut("grad_beta", beta)?)
        .zip(cut("grad_threshold", threshold)?.zip(cut("current_sum", current_sum)?));
    let rows = places.take(lanes.batch).map(|((alpha, beta), (threshold, sum))| {
        let mut rows = LaneGrads { alpha, beta, threshold, sum };
        rows.clear();
        rows
    });
    Ok((membrane.map(|m| &m[..]), rows.collect()))
}

/// `s = alpha s + x; v = beta v + gain s` for one step, `now` going from x to v.
#[inline(always)]
pub(super) fn filter_row(d: &Decays, s: &mut [f32], past: Option<&[f32]>, now: &mut [f32]) {
    match past {
        None => first_row(&d.gain, s, now),
        Some(past) => next_row(&d.alpha, &d.beta, &d.gain, s, past, now),
    }
}

#[inline(always)]
fn first_row(gain: &[f32], s: &mut [f32], now: &mut [f32]) {
    let n = now.len();
    let (gain, s) = (&gain[..n], &mut s[..n]);
    for k in 0..n {
        s[k] = now[k];
        now[k] = gain[k] * s[k];
    }
}

#[inline(always)]
fn next_row(alpha: &[f32], beta: &[f32], gain: &[f32], s: &mut [f32], past: &[f32], now: &mut [f32]) {
    let n = now.len();
    let (alpha, beta, gain, s, past) = (&alpha[..n], &beta[..n], &gain[..n], &mut s[..n], &past[..n]);
    for k in 0..n {
        s[k] = alpha[k] * s[k] + now[k];
        now[k] = beta[k] * past[k] + gain[k] * s[k];
    }
}

/// `y += x`.
#[inline(always)]
pub(super) fn add_row(x: &[f32], y: &mut [f32]) {
    let n = y.len();
    let x = &x[..n];
    for k in 0..n {
        y[k] += x[k];
    }
}

/// `y -= x`.
#[inline(always)]
pub(super) fn subtract_row(x: &[f32], y: &mut [f32]) {
    let n = y.len();
    let x = &x[..n];
    for k in 0..n {
        y[k] -= x[k];
    }
}

/// `y += a b`.
#[inline(always)]
pub(super) fn add_product_row(a: &[f32], b: &[f32], y: &mut [f32]) {
    let n = y.len();
    let (a, b) = (&a[..n], &b[..n]);
    for k in 0..n {
        y[k] += a[k] * b[k];
    }
}
