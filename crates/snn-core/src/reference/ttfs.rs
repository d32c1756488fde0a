//! Neurons that spike at most once on the reference backend.

use super::Reference;
use crate::backend::{Census, TtfsOps};
use crate::error::{Result, check_len};
use crate::neurons::ttfs::{self, Grid, Perturbation, TtfsNeuron};
use crate::random::SpikeDraws;
use crate::real::Real;
use crate::shape::Borders;

/// Channels of a layer, from its shift `[R, C]`, after checking it and the samples in `len` entries.
fn channels(op: &'static str, borders: &Borders, shift: usize, len: usize) -> Result<usize> {
    let channels = shift / borders.regions();
    check_len(op, "shift", shift, channels * borders.regions())?;
    let width = (channels * borders.positions()).max(1);
    check_len(op, "x", len, len / width * width)?;
    Ok(channels)
}

/// Entries of a row, after checking that `len` is `rows` of them.
fn row_width(op: &'static str, rows: usize, len: usize) -> Result<usize> {
    let width = len / rows.max(1);
    check_len(op, "x", len, rows * width)?;
    Ok(width)
}

impl<R: Real> TtfsOps for Reference<R> {
    fn ttfs_forward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        shift: &Vec<R>,
        slope: Option<&Vec<R>>,
        window: &Vec<R>,
        x: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "ttfs_forward";
        check_len(OP, "window", window.len(), 1)?;
        let channels = channels(OP, borders, shift.len(), x.len())?;
        slope.map_or(Ok(()), |slope| check_len(OP, "slope", slope.len(), channels))?;
        for (i, x) in x.iter_mut().enumerate() {
            let (position, c) = (i / channels % borders.positions(), i % channels);
            let rises = slope.is_none_or(|slope| slope[c] > R::ZERO);
            let potential = *x + shift[borders.region(position) * channels + c];
            *x = if rises { neuron.earliness(potential, window[0]) } else { R::ZERO };
        }
        Ok(())
    }

    fn ttfs_backward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        window: &Vec<R>,
        x: &Vec<R>,
        grad: &mut Vec<R>,
        grad_shift: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "ttfs_backward";
        check_len(OP, "window", window.len(), 1)?;
        let channels = channels(OP, borders, grad_shift.len(), x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        grad_shift.fill(R::ZERO);
        for (i, (&x, grad)) in x.iter().zip(grad).enumerate() {
            let (position, c) = (i / channels % borders.positions(), i % channels);
            if !neuron.passes(x, window[0]) {
                *grad = R::ZERO;
            }
            let sum = &mut grad_shift[borders.region(position) * channels + c];
            *sum += *grad;
        }
        Ok(())
    }

    fn ttfs_perturb(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Vec<R>,
        x: &Vec<R>,
        out: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb";
        check_len(OP, "window", window.len(), 1)?;
        let width = row_width(OP, rows, x.len())?;
        check_len(OP, "out", out.len(), x.len())?;
        for (i, (out, &x)) in out.iter_mut().zip(x).enumerate() {
            *out = perturbation.apply(x, draws.normal(i / width, i % width, width), window[0]);
        }
        Ok(())
    }

    fn ttfs_perturb_grad(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Vec<R>,
        x: &Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb_grad";
        check_len(OP, "window", window.len(), 1)?;
        let width = row_width(OP, rows, x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        for (i, (grad, &x)) in grad.iter_mut().zip(x).enumerate() {
            if !perturbation.passes(x, draws.normal(i / width, i % width, width), window[0]) {
                *grad = R::ZERO;
            }
        }
        Ok(())
    }

    fn ttfs_census(&self, rows: usize, window: &Vec<R>, x: &Vec<R>, census: &mut Census<Self>) -> Result<()> {
        const OP: &str = "ttfs_census";
        check_len(OP, "window", window.len(), 1)?;
        let width = row_width(OP, rows, x.len())?;
        census.peaks = vec![R::ZERO; rows];
        census.fired = vec![0; rows];
        census.early = vec![0; rows];
        for (i, &x) in x.iter().enumerate() {
            let row = i / width;
            if x > census.peaks[row] {
                census.peaks[row] = x;
            }
            census.fired[row] += u32::from(x > R::ZERO);
            census.early[row] += u32::from(x > window[0]);
        }
        Ok(())
    }

    fn ttfs_grow(&self, growth: f64, peaks: &Vec<R>, window: &mut Vec<R>) -> Result<()> {
        check_len("ttfs_grow", "window", window.len(), 1)?;
        for &peak in peaks {
            let wanted = R::lit(growth) * peak;
            if wanted > window[0] {
                window[0] = wanted;
            }
        }
        Ok(())
    }

    fn ttfs_slope(&self, current: &Vec<R>, slope: &mut Vec<R>, weight: &mut Vec<R>) -> Result<()> {
        const OP: &str = "ttfs_slope";
        let width = slope.len();
        check_len(OP, "current", current.len(), current.len() / width.max(1) * width)?;
        check_len(OP, "weight", weight.len(), current.len())?;
        for (n, slope) in slope.iter_mut().enumerate() {
            *slope = ttfs::slope(current.iter().skip(n).step_by(width).copied());
        }
        for (i, (weight, &current)) in weight.iter_mut().zip(current).enumerate() {
            *weight = ttfs::effective_weight(current, slope[i % width]);
        }
        Ok(())
    }

    fn ttfs_slope_grad(&self, slope: &Vec<R>, weight: &Vec<R>, grad: &mut Vec<R>) -> Result<()> {
        const OP: &str = "ttfs_slope_grad";
        let width = slope.len();
        check_len(OP, "weight", weight.len(), weight.len() / width.max(1) * width)?;
        check_len(OP, "grad", grad.len(), weight.len())?;
        for (n, &slope) in slope.iter().enumerate() {
            let at = || (n..weight.len()).step_by(width);
            let common = at().fold(R::ZERO, |sum, i| sum + weight[i] * grad[i]);
            for i in at() {
                grad[i] = if slope > R::ZERO { (grad[i] - common) / slope } else { R::ZERO };
            }
        }
        Ok(())
    }

    fn quantise(&self, grid: &Grid, x: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        check_len("quantise", "out", out.len(), x.len())?;
        for (out, x) in out.iter_mut().zip(x) {
            let given = x.value() as f32;
            let level = f64::from(grid.level(given));
            *out = if grid.passes(given) { x.straight_through(level) } else { R::lit(level) };
        }
        Ok(())
    }

    fn quantise_grad(&self, grid: &Grid, x: &Vec<R>, grad: &mut Vec<R>) -> Result<()> {
        check_len("quantise_grad", "grad", grad.len(), x.len())?;
        for (grad, x) in grad.iter_mut().zip(x) {
            if !grid.passes(x.value() as f32) {
                *grad = R::ZERO;
            }
        }
        Ok(())
    }
}
