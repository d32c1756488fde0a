//! Fitting adaptive neurons to recorded ones: every cell is a neuron and every stretch of its recording a sample, so
//! that many cells are one batch (arXiv 2311.11390).
//!
//! A cell has one input, the current that was injected, and a loss of its own, the van Rossum distance of its spikes
//! from the recorded ones ([`snn_core::fit`]). Cells do not touch each other: what a cell comes to does not depend on
//! who is fitted beside it.

pub mod recorded;

use serde::{Deserialize, Serialize};
use snn_core::backend::AlifGrad;
use snn_core::fit::{Raster, VanRossum};
use snn_core::neurons::alif::AlifNeuron;
use snn_core::random::{Purpose, Stream};
use snn_core::{Backend, Lanes, Parameter, Real, Spikes};

use crate::config::{
    AlifConfig, AlifGradientConfig, LimitGradientConfig, LimitsConfig, OptimiserConfig, ResetPath, out_of_range,
};
use crate::error::{Error, Result};
use crate::layers::alif::Constants;
use crate::optim::Optimiser;

/// How long a sample of the recordings is, ms.
pub const GRID_MS: f64 = 0.1;

/// How cells are fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Length of a step of the model, ms: a whole number of samples of 0.1 ms, or a whole part of one.
    pub dt_ms: f64,
    /// Refractory period, ms; whole steps of it are taken.
    pub refractory_ms: f64,
    /// Steps of its current that a neuron sees.
    pub field: usize,
    /// Time constant of the distance, ms.
    pub tau_ms: f64,
    /// Time constant that learning begins with, ms; it falls to the other one in the first half of the epochs. Trains that
    /// are smoothed more are pulled together from further away. What is kept is decided by the distance itself.
    pub first_tau_ms: f64,
    /// Whether weights start where a cell fires as often as its recording.
    pub match_rates: bool,
    /// Epochs at most.
    pub epochs: u32,
    /// A cell is done when the least loss of so many epochs in a row is above its best; 0 for never.
    pub patience: u32,
    /// Learning rate.
    pub learning_rate: f64,
    /// Whether each constant learns at the rate times its own scale: a weight and the strength times their first values,
    /// the decays times their distance from 1, the bias times a hundredth of that of beta. Otherwise all learn at the rate
    /// itself, as published.
    pub relative_steps: bool,
    /// Share of the learning rate that is left at the end; the way there is half a cosine.
    pub final_share: f64,
    /// Starting points of each cell: the first is the published one, the others are drawn around it.
    pub starts: u32,
    /// Seed of the starting points.
    pub seed: u64,
    /// Which model the gradients are those of.
    pub gradient: AlifGradientConfig,
    /// Whether limits let gradients lead back inside, and are wide enough for every time constant in use.
    pub wide_limits: bool,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            dt_ms: 0.1,
            refractory_ms: 2.0,
            field: 1,
            tau_ms: 10.0,
            first_tau_ms: 50.0,
            match_rates: true,
            epochs: 300,
            patience: 0,
            learning_rate: 0.03,
            relative_steps: true,
            final_share: 0.01,
            starts: 8,
            seed: 1,
            gradient: AlifGradientConfig::Steps,
            wide_limits: true,
        }
    }
}

impl FitConfig {
    /// The published protocol: one start, gradients of the block model, Adam at 1e-4 for 200 epochs at most.
    #[must_use]
    pub fn published() -> Self {
        Self {
            first_tau_ms: 10.0,
            match_rates: false,
            epochs: 200,
            patience: 5,
            learning_rate: 1e-4,
            relative_steps: false,
            final_share: 1.0,
            starts: 1,
            gradient: AlifGradientConfig::Blocks,
            wide_limits: false,
            ..Self::default()
        }
    }

    /// Checks every option.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the option and what would be right.
    pub fn check(&self) -> Result<()> {
        self.raster()?;
        let numbers = [
            (
                "refractory_ms",
                self.refractory_ms,
                self.refractory_ms >= 0.0 && self.refractory_ms <= 1000.0,
                "0 to 1000",
            ),
            ("tau_ms", self.tau_ms, self.tau_ms > 0.0 && self.tau_ms.is_finite(), "a number above 0"),
            (
                "first_tau_ms",
                self.first_tau_ms,
                self.first_tau_ms >= self.tau_ms && self.first_tau_ms.is_finite(),
                "tau_ms or more",
            ),
            (
                "learning_rate",
                self.learning_rate,
                self.learning_rate > 0.0 && self.learning_rate.is_finite(),
                "a number above 0",
            ),
            ("final_share", self.final_share, self.final_share > 0.0 && self.final_share <= 1.0, "above 0, at most 1"),
        ];
        for (name, value, fits, want) in numbers {
            if !fits {
                return Err(out_of_range(name, &value, want));
            }
        }
        let counts = [
            ("field", self.field, 4096),
            ("epochs", self.epochs as usize, 1_000_000),
            ("starts", self.starts as usize, 1024),
        ];
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(out_of_range(name, &value, &format!("1 to {most}")));
            }
        }
        Ok(())
    }

    /// How the model's steps lie on the samples of the recordings.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if neither is a whole number of the other.
    pub fn raster(&self) -> Result<Raster> {
        let whole = |x: f64| (x - x.round()).abs() < 1e-9 && x.round() >= 1.0 && x.round() <= 100_000.0;
        let (long, short) = (self.dt_ms / GRID_MS, GRID_MS / self.dt_ms);
        if whole(long) {
            Ok(Raster::Spread(long.round() as usize))
        } else if whole(short) {
            Ok(Raster::Pool(short.round() as usize))
        } else {
            Err(out_of_range("dt_ms", &self.dt_ms, "a whole number of samples of 0.1 ms, or a whole part of one"))
        }
    }

    /// Length of a sample of the currents, ms: that of the grid, or of a step where steps are shorter.
    #[must_use]
    pub fn input_ms(&self) -> f64 {
        self.dt_ms.min(GRID_MS)
    }

    /// Steps of the model per sample of the recordings, or the other way round.
    fn downsampling(&self) -> f64 {
        self.dt_ms / GRID_MS
    }

    /// The neurons with the constants that a fit starts from.
    #[must_use]
    pub fn neurons(&self) -> AlifConfig {
        let limits = match self.wide_limits {
            false => LimitsConfig { gradient: LimitGradientConfig::Open, ..LimitsConfig::default() },
            true => LimitsConfig {
                beta: [0.001, 0.999_99],
                decay: [0.0, 0.999_99],
                strength: [0.0, 100.0],
                gradient: LimitGradientConfig::Inward,
            },
        };
        AlifConfig {
            // A little more than a whole number of steps may come out as a little less.
            refractory: (self.refractory_ms / self.dt_ms + 1e-9) as u32,
            beta: (-self.dt_ms / 20.0).exp(),
            decay: (-self.dt_ms / 100.0).exp(),
            strength: 0.1 / self.downsampling(),
            recurrent: false,
            gradient: self.gradient,
            spike_path: ResetPath::Detached,
            limits,
            ..AlifConfig::default()
        }
    }

    /// The distance that gradients are taken of after `epoch` epochs.
    fn distance_at(&self, epoch: u32) -> VanRossum {
        let done = 2.0 * f64::from(epoch) / f64::from(self.epochs);
        if done >= 1.0 || self.first_tau_ms == self.tau_ms {
            return self.distance();
        }
        let tau_ms = self.first_tau_ms * (self.tau_ms / self.first_tau_ms).powf(done);
        VanRossum { tau: tau_ms / GRID_MS, dt: self.dt_ms }
    }

    /// The distance of a cell; its time constant is in samples of the recordings, its step that of the model.
    #[must_use]
    pub fn distance(&self) -> VanRossum {
        VanRossum { tau: self.tau_ms / GRID_MS, dt: self.dt_ms }
    }
}

/// Recordings of many cells: the currents that went in and the spikes that came out.
#[derive(Debug, Clone)]
pub struct FitSet {
    /// Stretches of recordings, samples of each (at the rate of the model's input), cells.
    pub lanes: Lanes,
    /// The currents `[stretch, sample, cell]`, scaled to the model's units.
    pub current: Vec<f32>,
    /// The spikes on the grid of 0.1 ms.
    pub spikes: Spikes,
}

impl FitSet {
    /// The currents at the model's steps: the mean over each step, where steps are longer than samples.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a stretch is no whole number of steps.
    fn at_steps(&self, raster: Raster) -> Result<(Lanes, Vec<f32>)> {
        let window = match raster {
            Raster::Spread(window) => window,
            // Currents of models with shorter steps are given at that rate.
            Raster::Pool(_) => 1,
        };
        let Lanes { batch, steps, width } = self.lanes;
        if !steps.is_multiple_of(window) {
            let (what, reason) = (format!("{steps} samples"), format!("must be a whole number of steps of {window}"));
            return Err(Error::config(what, reason));
        }
        let lanes = Lanes::new(batch, steps / window, width);
        let mut out = vec![0.0_f32; lanes.len()];
        for (row, samples) in out.chunks_mut(width.max(1)).zip(self.current.chunks((window * width).max(1))) {
            for sample in samples.chunks(width) {
                row.iter_mut().zip(sample).for_each(|(sum, x)| *sum += x);
            }
            row.iter_mut().for_each(|sum| *sum /= window as f32);
        }
        Ok((lanes, out))
    }
}

/// Neurons that have an input each.
#[derive(Debug)]
pub struct Cells<B: Backend> {
    neuron: AlifNeuron,
    weight: Parameter<B>,
    bias: Parameter<B>,
    constants: Constants<B>,
    state: B::Buffer<B::Real>,
    spikes: B::Spikes,
    grad: B::Buffer<B::Real>,
    distance: B::Buffer<B::Real>,
}

impl<B: Backend> Cells<B> {
    /// `cells` neurons that see the last `field` steps of their current, all with the weight `weight` for the present
    /// one, 0 for the others, and no bias.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: &AlifConfig, cells: usize, field: usize, weight: f64) -> Result<Self> {
        let weights: Vec<B::Real> =
            (0..field * cells).map(|i| B::Real::lit(if i < cells { weight } else { 0.0 })).collect();
        Ok(Self {
            neuron: config.neuron(),
            weight: Parameter::new(device, "weight", &[field, cells], &weights)?,
            bias: Parameter::new(device, "bias", &[cells], &vec![B::Real::ZERO; cells])?,
            constants: Constants::new(device, config, cells)?,
            state: device.zeros(0)?,
            spikes: device.spikes(),
            grad: device.zeros(0)?,
            distance: device.zeros(cells)?,
        })
    }

    /// Runs the neurons over `current`; see [`Cells::state`] and [`Cells::spikes`].
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn forward(&mut self, device: &B, lanes: Lanes, current: &B::Buffer<B::Real>) -> Result<()> {
        device.resize(&mut self.state, lanes.len())?;
        let (weight, bias) = (&self.weight.value.data, &self.bias.value.data);
        device.own_current(lanes, current, weight, bias, &mut self.state)?;
        let parameters = self.constants.view(None);
        Ok(device.alif_forward(&self.neuron, lanes, parameters, &mut self.state, &mut self.spikes)?)
    }

    /// The distance of every neuron's spikes from its target, with its gradient on the spikes, which
    /// [`Cells::backward`] starts from.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn distances(
        &mut self,
        device: &B,
        lanes: Lanes,
        (filter, raster, target): (&VanRossum, Raster, &B::Spikes),
    ) -> Result<Vec<f64>> {
        device.resize(&mut self.grad, lanes.len())?;
        device.van_rossum(filter, raster, &self.spikes, target, &mut self.distance, &mut self.grad)?;
        Ok(device.to_host(&self.distance)?.iter().map(|d| d.value()).collect())
    }

    /// The gradients of all constants, of the distance that was taken last.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn backward(&mut self, device: &B, lanes: Lanes, current: &B::Buffer<B::Real>) -> Result<()> {
        let grads = AlifGrad::default();
        self.constants.backward(device, &self.neuron, lanes, None, &self.state, &mut self.grad, grads)?;
        let (weight, bias) = (&mut self.weight.grad.data, &mut self.bias.grad.data);
        Ok(device.own_current_grad(lanes, current, &self.grad, weight, bias)?)
    }

    /// The membrane of the last forward pass, `[B, T, N]`.
    pub fn state(&self) -> &B::Buffer<B::Real> {
        &self.state
    }

    /// The spikes of the last forward pass.
    pub fn spikes(&self) -> &B::Spikes {
        &self.spikes
    }

    /// The thresholds of the last forward pass, `[B, T, N]`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn thresholds(&self, device: &B, lanes: Lanes) -> Result<Vec<f64>> {
        let mut out = device.zeros(lanes.len())?;
        device.alif_thresholds(&self.neuron, lanes, self.constants.view(None), &self.state, &mut out)?;
        Ok(device.to_host(&out)?.iter().map(|x| x.value()).collect())
    }

    /// Weight, bias, beta, p and b.
    pub fn parameters(&self) -> [&Parameter<B>; 5] {
        let [beta, decay, strength] = self.constants.parameters();
        [&self.weight, &self.bias, beta, decay, strength]
    }

    /// Weight, bias, beta, p and b, to be updated.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 5] {
        let [beta, decay, strength] = self.constants.parameters_mut();
        [&mut self.weight, &mut self.bias, beta, decay, strength]
    }
}

/// A fitted cell: constants as stored, per step of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellFit {
    /// Weights of the last steps of the current, the present one first.
    pub weight: Vec<f64>,
    /// Bias.
    pub bias: f64,
    /// Decay of the membrane.
    pub beta: f64,
    /// Decay p of the adaptation.
    pub decay: f64,
    /// Strength b of the adaptation.
    pub strength: f64,
    /// The least distance.
    pub loss: f64,
    /// The epoch that had it, from 0.
    pub epoch: u32,
    /// Epochs that the cell took part in.
    pub epochs: u32,
    /// The starting point that it came from, from 0.
    pub start: u32,
    /// The distance after every epoch.
    pub history: Vec<f64>,
}

/// Fitted cells and how they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// How.
    pub config: FitConfig,
    /// The cells.
    pub cells: Vec<CellFit>,
}

/// What fitted cells do on a current.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// The size in steps of the model.
    pub lanes: Lanes,
    /// Membranes, `[B, T, N]`.
    pub membrane: Vec<f64>,
    /// Thresholds, `[B, T, N]`.
    pub threshold: Vec<f64>,
    /// Spikes on the grid of 0.1 ms: for each stretch and cell the samples that have one.
    pub spikes: Vec<Vec<Vec<usize>>>,
}

/// One neuron's way through a fit.
#[derive(Debug, Clone)]
struct Course {
    best: f64,
    at: u32,
    values: Vec<Vec<f64>>,
    history: Vec<f64>,
    done: bool,
}

/// Fits every cell of `set`. `seen` is called after each epoch with its number and the least distance of every cell so
/// far; it says whether to go on.
///
/// # Errors
///
/// [`Error::Config`] for options that do not fit, and if the device fails.
pub fn fit<B: Backend>(
    device: &B,
    config: &FitConfig,
    set: &FitSet,
    mut seen: impl FnMut(u32, &[f64]) -> bool,
) -> Result<Fitted> {
    config.check()?;
    let raster = config.raster()?;
    let cells = set.lanes.width;
    let starts = config.starts as usize;
    let (one, current) = set.at_steps(raster)?;
    let lanes = one.with_width(cells * starts);
    // Starting points lie side by side: start by start, each with all cells.
    let repeat = |row: &[f32]| -> Vec<f32> { row.iter().copied().cycle().take(lanes.width).collect() };
    let current: Vec<f32> = current.chunks(cells.max(1)).flat_map(repeat).collect();
    let target = device_target(device, set, starts)?;
    let current = device.buffer_from(&current.iter().map(|&x| B::Real::lit(x.into())).collect::<Vec<_>>())?;

    let neurons = config.neurons();
    let mut model = Cells::new(device, &neurons, lanes.width, config.field, config.downsampling())?;
    spread_starts(device, config, cells, &mut model)?;
    if config.match_rates {
        match_rates(device, lanes, &current, &device.download_spikes(&target)?, &mut model)?;
    }
    if config.relative_steps {
        let scales = [config.downsampling(), 0.01 * (1.0 - neurons.beta), 1.0 - neurons.beta, 1.0 - neurons.decay];
        let scales = scales.into_iter().chain([neurons.strength]);
        model.parameters_mut().into_iter().zip(scales).for_each(|(p, scale)| p.rate = scale);
    }
    let adam = OptimiserConfig { learning_rate: config.learning_rate, eps: 1e-5, ..OptimiserConfig::default() };
    let mut optimiser = Optimiser::over(device, adam, model.parameters().into_iter())?;
    let loss = config.distance();
    let fresh = Course { best: f64::INFINITY, at: 0, values: vec![], history: vec![], done: false };
    let mut courses = vec![fresh; lanes.width];
    for epoch in 0..config.epochs {
        model.forward(device, lanes, &current)?;
        let distances = model.distances(device, lanes, (&loss, raster, &target))?;
        let values: Vec<Vec<f64>> = model
            .parameters()
            .iter()
            .map(|p| Ok(device.to_host(&p.value.data)?.iter().map(|v| v.value()).collect()))
            .collect::<Result<_>>()?;
        for (n, (course, &distance)) in courses.iter_mut().zip(&distances).enumerate() {
            follow(course, epoch, distance, config.patience, || {
                values.iter().map(|list| list.iter().skip(n).step_by(lanes.width).copied().collect()).collect()
            });
        }
        let best: Vec<f64> = (0..cells).map(|c| courses[best_start(&courses, c, cells)].best).collect();
        if !seen(epoch, &best) || courses.iter().all(|c| c.done) {
            break;
        }
        let learned = config.distance_at(epoch);
        if learned != loss {
            model.distances(device, lanes, (&learned, raster, &target))?;
        }
        model.backward(device, lanes, &current)?;
        let turn = std::f64::consts::PI * f64::from(epoch) / f64::from(config.epochs);
        let share = config.final_share + (1.0 - config.final_share) * 0.5 * (1.0 + turn.cos());
        optimiser.step_over(device, model.parameters_mut().into_iter(), config.learning_rate * share)?;
    }
    let cells = (0..cells).map(|cell| {
        let at = best_start(&courses, cell, cells);
        let Course { best, at: epoch, values, history, .. } = &courses[at];
        let number = |i: usize| values.get(i).and_then(|list| list.first()).copied().unwrap_or(f64::NAN);
        CellFit {
            weight: values.first().cloned().unwrap_or_default(),
            bias: number(1),
            beta: number(2),
            decay: number(3),
            strength: number(4),
            loss: *best,
            epoch: *epoch,
            epochs: history.len() as u32,
            start: (at / cells) as u32,
            history: history.clone(),
        }
    });
    Ok(Fitted { config: config.clone(), cells: cells.collect() })
}

/// The neuron with the least loss among the starting points of a cell.
fn best_start(courses: &[Course], cell: usize, cells: usize) -> usize {
    let all = (cell..courses.len()).step_by(cells.max(1));
    all.min_by(|&a, &b| courses[a].best.total_cmp(&courses[b].best)).unwrap_or(cell)
}

/// Takes a neuron's distance down; `values` are its constants, taken when it is the least so far.
fn follow(course: &mut Course, epoch: u32, distance: f64, patience: u32, values: impl FnOnce() -> Vec<Vec<f64>>) {
    if course.done {
        return;
    }
    course.history.push(distance);
    if distance < course.best {
        (course.best, course.at, course.values) = (distance, epoch, values());
    }
    let recent = course.history.iter().rev().take(patience as usize);
    course.done = patience > 0
        && course.history.len() >= patience as usize
        && recent.copied().fold(f64::INFINITY, f64::min) > course.best;
}

/// Draws the starting points after the first: decays from half to twice as far from 1, strengths and weights from half to
/// twice as large, evenly in their logarithms; no bias.
fn spread_starts<B: Backend>(device: &B, config: &FitConfig, cells: usize, model: &mut Cells<B>) -> Result<()> {
    let starts = config.starts as usize;
    let drawn = |from: f64, list: u32, start: usize| -> f64 {
        let mut stream = Stream::new(config.seed, Purpose::Init, [start as u32, list]);
        from * 4.0_f64.powf(f64::from(stream.unit()) - 0.5)
    };
    for (list, parameter) in model.parameters_mut().into_iter().enumerate() {
        let mut values: Vec<f64> = device.to_host(&parameter.value.data)?.iter().map(|v| v.value()).collect();
        let width = cells * starts;
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| i % width >= cells && i / width == 0) {
            let start = i % width / cells;
            *value = match parameter.name {
                "beta" | "decay" => 1.0 - drawn(1.0 - *value, list as u32, start),
                "bias" => 0.0,
                _ => drawn(*value, list as u32, start),
            };
        }
        let values: Vec<B::Real> = values.into_iter().map(B::Real::lit).collect();
        device.upload(&values, &mut parameter.value.data)?;
    }
    Ok(())
}

/// Scales the weights of every neuron until it fires as often as its target, by halving the range of the scale.
fn match_rates<B: Backend>(
    device: &B,
    lanes: Lanes,
    current: &B::Buffer<B::Real>,
    target: &Spikes,
    model: &mut Cells<B>,
) -> Result<()> {
    const ROUNDS: usize = 12;
    let count = |spikes: &Spikes| {
        let mut counts = vec![0_usize; lanes.width];
        spikes.units().iter().for_each(|&n| counts[n as usize] += 1);
        counts
    };
    let wanted = count(target);
    let start: Vec<f64> = device.to_host(&model.weight.value.data)?.iter().map(|w| w.value()).collect();
    // Exponents of 2 between which the scale lies.
    let mut ends = vec![[-4.0_f64, 4.0_f64]; lanes.width];
    for _ in 0..ROUNDS {
        let middle: Vec<f64> = ends.iter().map(|[low, high]| 0.5 * (low + high)).collect();
        let scaled = start.iter().enumerate().map(|(i, w)| B::Real::lit(w * middle[i % lanes.width].exp2()));
        device.upload(&scaled.collect::<Vec<_>>(), &mut model.weight.value.data)?;
        model.forward(device, lanes, current)?;
        let counts = count(&device.download_spikes(&model.spikes)?);
        for (n, end) in ends.iter_mut().enumerate() {
            end[usize::from(counts[n] >= wanted[n])] = middle[n];
        }
    }
    Ok(())
}

/// The recorded spikes, once for each starting point.
fn device_target<B: Backend>(device: &B, set: &FitSet, starts: usize) -> Result<B::Spikes> {
    let Lanes { batch, steps, width } = set.spikes.lanes();
    let repeat = |row: usize| {
        let units = set.spikes.row(row);
        (0..starts).flat_map(|s| units.iter().map(move |u| u + (s * width) as u32)).collect::<Vec<_>>()
    };
    let host = Spikes::from_rows(batch, steps, width * starts, (0..batch * steps).map(repeat))?;
    let mut target = device.spikes();
    device.upload_spikes(&host, &mut target)?;
    Ok(target)
}

impl Fitted {
    /// Runs the fitted cells over the currents of `set`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are more or fewer cells, and if the device fails.
    pub fn simulate<B: Backend>(&self, device: &B, set: &FitSet) -> Result<Simulated> {
        let raster = self.config.raster()?;
        let (lanes, current) = set.at_steps(raster)?;
        if lanes.width != self.cells.len() {
            let what = format!("{} cells", lanes.width);
            return Err(Error::config(what, format!("{} were fitted", self.cells.len())));
        }
        let mut model = Cells::new(device, &self.config.neurons(), lanes.width, self.config.field, 1.0)?;
        let lists: [Vec<f64>; 5] = [
            (0..self.config.field).flat_map(|d| self.cells.iter().map(move |c| c.weight[d])).collect(),
            self.cells.iter().map(|c| c.bias).collect(),
            self.cells.iter().map(|c| c.beta).collect(),
            self.cells.iter().map(|c| c.decay).collect(),
            self.cells.iter().map(|c| c.strength).collect(),
        ];
        for (parameter, list) in model.parameters_mut().into_iter().zip(lists) {
            let list: Vec<B::Real> = list.into_iter().map(B::Real::lit).collect();
            device.upload(&list, &mut parameter.value.data)?;
        }
        let current: Vec<B::Real> = current.into_iter().map(|x| B::Real::lit(x.into())).collect();
        model.forward(device, lanes, &device.buffer_from(&current)?)?;
        let coarse = device.download_spikes(model.spikes())?;
        let mut spikes = vec![vec![Vec::new(); lanes.width]; lanes.batch];
        for row in 0..lanes.rows() {
            let (b, t) = (row / lanes.steps, row % lanes.steps);
            let sample = match raster {
                Raster::Spread(window) => t * window,
                Raster::Pool(window) => t / window,
            };
            for &n in coarse.row(row) {
                let train: &mut Vec<usize> = &mut spikes[b][n as usize];
                if train.last() != Some(&sample) {
                    train.push(sample);
                }
            }
        }
        Ok(Simulated {
            lanes,
            membrane: device.to_host(model.state())?.iter().map(|x| x.value()).collect(),
            threshold: model.thresholds(device, lanes)?,
            spikes,
        })
    }
}
