//! Fitting: exact gradients, cells that do not touch each other, known neurons that are found again, bad recordings.

use std::path::PathBuf;

use snn_core::backend::{Memory, SpikeMemory};
use snn_core::fit::{Raster, VanRossum};
use snn_core::neurons::alif::{Constants, trace};
use snn_core::reference::Reference;
use snn_core::testkit::Inputs;
use snn_core::{Dual, Lanes, Real, Spikes};
use snn_data::ephys::{Recording, Segment, SpikesFrom, Stimulus, Trial};
use snn_train::config::AlifGradientConfig;
use snn_train::fit::recorded::{Protocol, Trials, batch, fit_recorded};
use snn_train::fit::{Cells, FitConfig, FitSet, fit};

const GRADIENTS: [AlifGradientConfig; 2] = [AlifGradientConfig::Steps, AlifGradientConfig::Blocks];

/// A short fit of steps of 1 ms.
fn short() -> FitConfig {
    FitConfig { dt_ms: 1.0, epochs: 60, starts: 3, tau_ms: 5.0, ..FitConfig::default() }
}

/// Currents of `cells` neurons of known constants, and their spikes on the grid.
fn known(config: &FitConfig, cells: usize, steps: usize, seed: u64) -> FitSet {
    let window = match config.raster().unwrap() {
        Raster::Spread(window) => window,
        Raster::Pool(_) => 1,
    };
    let (batch, neurons) = (2, config.neurons());
    let neuron = neurons.neuron();
    let mut inputs = Inputs::new(seed);
    let lanes = Lanes::new(batch, steps * window, cells);
    let mut current = vec![0.0; lanes.len()];
    let mut rows = vec![Vec::new(); batch * lanes.steps];
    for n in 0..cells {
        for b in 0..batch {
            let slow = inputs.uniform(steps / 10 + 1, 0.0, 0.01);
            let coarse: Vec<f32> = (0..steps).map(|t| slow[t / 10]).collect();
            for (t, x) in coarse.iter().flat_map(|x| std::iter::repeat_n(x, window)).enumerate() {
                current[(b * lanes.steps + t) * cells + n] = *x;
            }
            let gain = window as f64 * (1.5 + 0.5 * n as f64);
            let drive: Vec<f64> = coarse.iter().map(|&x| gain * f64::from(x)).collect();
            let beta = [(-config.dt_ms / (12.0 + 4.0 * n as f64)).exp()];
            let c =
                Constants { beta: &beta, decay: &[neurons.decay], strength: &[2.0 * neurons.strength], weight: &[] };
            for (t, s) in trace(&neuron, &c, &drive).spikes.iter().enumerate() {
                if *s > 0.0 {
                    rows[b * lanes.steps + t * window].push(n as u32);
                }
            }
        }
    }
    FitSet { lanes, current, spikes: Spikes::from_rows(batch, lanes.steps, cells, rows).unwrap() }
}

/// The distance as a function of every constant, on dual numbers, against the gradients.
#[test]
fn gradients_of_distances_are_exact() {
    let (plain, dual) = (Reference::<f64>::new(), Reference::<Dual>::new());
    for (dt_ms, gradient) in [1.0, 0.1, 0.05].into_iter().flat_map(|dt| GRADIENTS.map(|g| (dt, g))) {
        let config = FitConfig { dt_ms, gradient, refractory_ms: 3.0 * dt_ms, ..FitConfig::default() };
        let raster = config.raster().unwrap();
        let (steps, width) = (60, 3);
        let lanes = Lanes::new(2, steps, width);
        let grid = lanes.with_width(width);
        let grid = Lanes::new(grid.batch, raster.grid_steps(steps), width);
        let mut inputs = Inputs::new(9);
        let current: Vec<f64> = inputs.uniform(lanes.len(), -0.1, 0.5).iter().map(|&x| f64::from(x)).collect();
        let target = inputs.spikes(grid, 0.05);
        let filter = VanRossum { tau: 20.0, dt: 0.3 };
        // Strengths and decays inside of their limits, so that every gradient passes.
        let mut neurons = config.neurons();
        (neurons.beta, neurons.decay, neurons.strength) = (0.8, 0.7, 0.4);
        let mut model = Cells::new(&plain, &neurons, width, 2, 0.9).unwrap();
        let mut twin = Cells::new(&dual, &neurons, width, 2, 0.9).unwrap();
        let mut target_plain = plain.spikes();
        plain.upload_spikes(&target, &mut target_plain).unwrap();
        let mut target_dual = dual.spikes();
        dual.upload_spikes(&target, &mut target_dual).unwrap();
        model.forward(&plain, lanes, &current).unwrap();
        assert!(plain.download_spikes(model.spikes()).unwrap().events() > 0);
        model.distances(&plain, lanes, (&filter, raster, &target_plain)).unwrap();
        model.backward(&plain, lanes, &current).unwrap();
        for which in 0..5 {
            let mut want = vec![0.0; width];
            for (i, (p, q)) in model.parameters().iter().zip(twin.parameters_mut()).enumerate() {
                let direction = inputs.uniform(p.value.len(), -1.0, 1.0);
                for (k, d) in direction.into_iter().enumerate() {
                    let d = if i == which { f64::from(d) } else { 0.0 };
                    q.value.data[k] = Dual::new(p.value.data[k], d);
                    want[k % width] += p.grad.data[k] * d;
                }
            }
            let moved: Vec<Dual> = current.iter().map(|&x| Dual::lit(x)).collect();
            twin.forward(&dual, lanes, &moved).unwrap();
            let (mut distance, mut grad) = (dual.zeros(width).unwrap(), dual.zeros(lanes.len()).unwrap());
            use snn_core::backend::FitOps;
            dual.van_rossum(&filter, raster, twin.spikes(), &target_dual, &mut distance, &mut grad).unwrap();
            for (n, (got, want)) in distance.iter().zip(&want).enumerate() {
                let close = (got.derivative - want).abs() <= 1e-9 * (1.0 + want.abs());
                assert!(close, "dt {dt_ms}, {gradient:?}, list {which}, cell {n}: {} against {want}", got.derivative);
            }
        }
    }
}

#[test]
fn cells_do_not_touch_each_other() {
    let config = FitConfig { epochs: 12, ..short() };
    let set = known(&config, 3, 300, 5);
    let device = Reference::<f32>::new();
    let together = fit(&device, &config, &set, |_, _| true).unwrap();
    for n in 0..3 {
        let current = set.current.iter().skip(n).step_by(3).copied().collect();
        let rows = (0..set.lanes.rows()).map(|row| match set.spikes.row(row).contains(&(n as u32)) {
            true => vec![0],
            false => vec![],
        });
        let lanes = set.lanes.with_width(1);
        let spikes = Spikes::from_rows(lanes.batch, lanes.steps, 1, rows).unwrap();
        let alone = fit(&device, &config, &FitSet { lanes, current, spikes }, |_, _| true).unwrap();
        assert_eq!(alone.cells[0], together.cells[n]);
    }
}

#[test]
fn known_neurons_are_found_again() {
    let device = Reference::<f32>::new();
    for gradient in GRADIENTS {
        let config = FitConfig { gradient, epochs: 200, starts: 8, ..short() };
        let set = known(&config, 2, 600, 7);
        let mut first = Vec::new();
        let unmatched = FitConfig { match_rates: false, starts: 1, ..config.clone() };
        fit(&device, &unmatched, &set, |_, best| {
            first = best.to_vec();
            false
        })
        .unwrap();
        let fitted = fit(&device, &config, &set, |_, _| true).unwrap();
        let simulated = fitted.simulate(&device, &set).unwrap();
        for (n, cell) in fitted.cells.iter().enumerate() {
            let share = if gradient == AlifGradientConfig::Steps { 0.6 } else { 0.8 };
            assert!(cell.loss < share * first[n], "{gradient:?}, cell {n}: {} from {}", cell.loss, first[n]);
            assert_eq!(cell.history[cell.epoch as usize], cell.loss);
            // What is simulated is what was fitted: its distance is the loss.
            let rows = |spikes: &[Vec<Vec<usize>>]| {
                let grid = set.spikes.lanes();
                let mut out = vec![vec![0.0; grid.steps]; grid.batch];
                for (b, cells) in spikes.iter().enumerate() {
                    cells[n].iter().for_each(|&t| out[b][t] = 1.0);
                }
                out
            };
            let target: Vec<Vec<f64>> = (0..2)
                .map(|b| {
                    let steps = set.spikes.lanes().steps;
                    let row = |t: usize| set.spikes.row(b * steps + t).contains(&(n as u32));
                    (0..steps).map(|t| f64::from(u8::from(row(t)))).collect()
                })
                .collect();
            let (distance, _) = config.distance().distance(Raster::Spread(1), &rows(&simulated.spikes), &target);
            assert!((distance - cell.loss).abs() < 1e-4 * cell.loss.max(1e-3), "{distance} against {}", cell.loss);
        }
    }
}

#[test]
fn the_published_protocol_ends_a_cell_that_gets_no_better() {
    let config = FitConfig { dt_ms: 1.0, epochs: 200, ..FitConfig::published() };
    let set = known(&config, 2, 300, 11);
    let fitted = fit(&Reference::<f32>::new(), &config, &set, |_, _| true).unwrap();
    for cell in &fitted.cells {
        assert!(cell.epochs < 200 && cell.epochs >= 5, "{} epochs", cell.epochs);
        let worse = &cell.history[cell.history.len() - 5..];
        assert!(worse.iter().all(|&loss| loss > cell.loss) || cell.epochs == 200);
    }
    let stopped = fit(&Reference::<f32>::new(), &config, &set, |epoch, _| epoch < 2).unwrap();
    assert_eq!(stopped.cells[0].epochs, 3);
}

fn recording(name: &str, segments: usize, samples: usize, step_ms: f64, level: f32) -> Recording {
    let segment = |k: usize| Segment {
        start_s: k as f64,
        current_pa: (0..samples).map(|t| level * ((t / 50 + k) % 5) as f32).collect(),
        voltage_mv: vec![],
        spike_times_s: vec![],
        spikes: (0..samples as u32).filter(|t| t % 90 == 40).collect(),
    };
    let trial = |sweep| Trial {
        sweep,
        rate_hz: 50_000.0,
        spikes_from: SpikesFrom::File,
        segments: (0..segments).map(segment).collect(),
    };
    let stimulus = |name: &str| Stimulus { name: name.into(), trials: (1..3).map(trial).collect() };
    Recording {
        file: PathBuf::from(format!("{name}.nwb")),
        specimen: None,
        label: None,
        rest_mv: None,
        threshold_mv: None,
        dendrite: None,
        line: None,
        step_ms,
        bin_ms: 0.1,
        stimuli: vec![stimulus("Noise 1"), stimulus("Noise 2")],
    }
}

#[test]
fn recordings_become_a_batch_and_are_judged() {
    let cells = [recording("a", 3, 1000, 0.1, 20.0), recording("b", 3, 1200, 0.1, 5.0)];
    let config = FitConfig { dt_ms: 0.5, epochs: 3, starts: 2, ..FitConfig::default() };
    let set = batch(&config, &cells, ("Noise 1", "Noise 1"), Trials::All, 0.1).unwrap();
    assert_eq!(set.lanes, Lanes::new(6, 1000, 2));
    let peak = set.current.iter().copied().fold(0.0, f32::max);
    assert!((peak - 0.01).abs() < 1e-6, "{peak}");
    // Both cells have the same shape of current, whatever their amplifiers say.
    assert!(set.current.chunks(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-8));
    let protocol = Protocol { seconds: 0.1, ..Protocol::default() };
    let outcome = fit_recorded(&Reference::<f32>::new(), &config, &protocol, &cells, |_, _| true).unwrap();
    assert_eq!((outcome.scores.len(), outcome.on_test.lanes), (2, Lanes::new(3, 200, 2)));
    let again = outcome.scores[0][2].explained.norm.unwrap();
    assert!((again - 1.0).abs() < 1e-9, "two equal repetitions explain each other: {again}");
}

#[test]
fn recordings_that_do_not_fit_are_named() {
    let config = FitConfig::default();
    let good = || recording("good", 3, 1000, 0.1, 20.0);
    let silent = recording("silent", 3, 1000, 0.1, 0.0);
    let mut other = good();
    other.stimuli[0].name = "Ramp".into();
    for (bad, want) in [
        (recording("short", 3, 900, 0.1, 20.0), "short.nwb: `Noise 1` has a segment of 900 samples in sweep 1"),
        (recording("two", 2, 1000, 0.1, 20.0), "two.nwb: `Noise 1` has 2 segments in sweep 1"),
        (recording("fast", 3, 1000, 0.05, 20.0), "fast.nwb: samples of 0.05 ms: must be of 0.1 ms"),
        (silent, "silent.nwb: `Noise 1` has a largest current of 0 pA: must have one above 0"),
        (other, "good.nwb: has no recording of the stimulus `Noise 1`"),
    ] {
        let error = batch(&config, &[good(), bad], ("Noise 1", "Noise 1"), Trials::All, 0.1).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    for (config, want) in [
        (
            FitConfig { dt_ms: 0.15, ..FitConfig::default() },
            "dt_ms = 0.15: must be a whole number of samples of 0.1 ms",
        ),
        (FitConfig { starts: 0, ..FitConfig::default() }, "starts = 0: must be 1 to 1024"),
        (FitConfig { tau_ms: 0.0, ..FitConfig::default() }, "tau_ms = 0: must be a number above 0"),
        (FitConfig { dt_ms: 0.7, ..FitConfig::default() }, "1000 samples: must be a whole number of steps of 7"),
    ] {
        let set = batch(&FitConfig::default(), &[good()], ("Noise 1", "Noise 1"), Trials::First, 0.1).unwrap();
        let error = fit(&Reference::<f32>::new(), &config, &set, |_, _| true).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
