//! Runners of what the alif-blocks system says of recordings: files, detected spikes, events in bins.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use snn_core::testkit::golden::{Case, Precision};
use snn_data::ephys::{Bessel, Clamp, Detector, NwbFile, ReadOptions, Recording, Segment, Sweep, slice};
use snn_data::{Encode, InMemory, Input, LoaderOptions, Pipeline, Sample, SourceKind, load_batch};

use super::{Implementation, host_only};

/// Everything that implements a kind, or nothing for a kind of another system.
pub(super) fn implementations(kind: &str) -> Result<Option<Vec<Implementation>>> {
    let exact = |run: fn(&Case) -> Result<()>| {
        let name = "snn-data f64";
        Ok(Some(vec![Implementation { name, precision: Precision::Double, run: Box::new(run) }]))
    };
    match kind {
        "alif_events" => host_only("snn-data f32", events),
        "alif_spikedetect" => exact(detect),
        "nwb" => exact(nwb),
        _ => Ok(None),
    }
}

#[derive(Debug, Deserialize)]
struct Raster {
    dt_ms: f32,
    #[serde(rename = "T")]
    steps: usize,
    n_units: usize,
    array: String,
}

fn events(case: &Case) -> Result<()> {
    let units: Vec<u32> = case.array("units")?.data.iter().map(|&u| u as u32).collect();
    let times: Vec<f32> = case.array("times_s")?.data.iter().map(|&t| t as f32).collect();
    let kind = SourceKind::Events { units: 1 + units.iter().max().copied().unwrap_or(0) as usize, sensor: None };
    for Raster { dt_ms, steps, n_units, array } in case.option::<Vec<Raster>>("rasters")? {
        let mut source = InMemory::empty("golden", kind, vec!["0".into()]);
        source.push(&Sample { units: units.clone(), times: times.clone(), ..Sample::default() });
        let pipeline = Pipeline::new(Encode::Bin { steps, dt_ms, units: n_units }, vec![], kind)?;
        let batch = load_batch(Arc::new(source), pipeline.into(), LoaderOptions::default(), 0)?;
        let Input::Spikes(spikes) = batch.input else { bail!("binned events are no spikes") };
        let dense: Vec<f64> = spikes.to_dense();
        let by_unit = (0..n_units).flat_map(|u| (u..n_units * steps).step_by(n_units));
        case.compare(&array, &by_unit.map(|at| dense[at]).collect::<Vec<_>>());
    }
    let (width, count) = (case.option("bin_s")?, case.option("n_bins")?);
    let times = &case.array("spike_times_s")?.data;
    case.compare("spike_floor_raw", &times.iter().map(|&t| slice::bin(t, width) as f64).collect::<Vec<_>>());
    let bins: Vec<f64> = slice::bins(times, width, count).into_iter().map(f64::from).collect();
    case.compare("spike_bin_idx", &bins);
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Filter {
    b: Vec<f64>,
    a: Vec<f64>,
}

fn detect(case: &Case) -> Result<()> {
    let option = |name: &str| case.option::<f64>(name);
    let detector = Detector {
        filter_hz: option("filter_hz")?,
        slope_mv_per_ms: option("dv_cutoff_mV_per_ms")?,
        max_interval_ms: option("max_interval_ms")?,
        min_height_mv: option("min_height_mV")?,
        min_peak_mv: option("min_peak_mV")?,
        threshold_fraction: option("thresh_frac")?,
    };
    let (rate, scale) = (option("fs_hz")?, option("v_scale_mV")?);
    let (got, want): (Bessel, Filter) = (Bessel::low_pass(detector.filter_hz, rate)?, case.option("filter")?);
    same(case, "filter.b", &got.b, &want.b, 1e-12);
    same(case, "filter.a", &got.a, &want.a, 1e-12);
    let voltage: Vec<f64> = case.array("v_q")?.data.iter().map(|q| q * scale).collect();
    let found = detector.detect(rate, &voltage, &[[option("start_s")?, option("end_s")?]])?;
    let spikes = found.first().context("one window")?;
    case.compare("threshold_idx", &spikes.iter().map(|s| s.threshold as f64).collect::<Vec<_>>());
    case.compare("peak_idx", &spikes.iter().map(|s| s.peak as f64).collect::<Vec<_>>());
    case.compare("threshold_t", &spikes.iter().map(|s| s.threshold as f64 / rate).collect::<Vec<_>>());
    Ok(())
}

/// Numbers that must be those of the options, each to a share of itself.
fn same(case: &Case, what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    if got.len() != want.len() {
        return case.fail(format!("{what}: {} entries, expected {}", got.len(), want.len()));
    }
    // Comparisons with NaN are false, so nothing but a small difference passes.
    let close = |(g, w): &(&f64, &f64)| (*g - *w).abs() <= tolerance * w.abs();
    if let Some((got, want)) = got.iter().zip(want).find(|pair| !close(pair)) {
        case.fail(format!("{what}: {got}, expected {want}"));
    }
}

/// Something other than a number that must be as expected.
fn equal<T: PartialEq + std::fmt::Debug>(case: &Case, what: &str, got: T, want: T) {
    if got != want {
        case.fail(format!("{what}: {got:?}, expected {want:?}"));
    }
}

/// What a recording holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    nwb_version: String,
    pipeline_version: String,
    listed_sweeps: Vec<u32>,
    missing_sweeps: Vec<u32>,
    windows_s: Vec<[f64; 2]>,
    pick_rate_hz: f64,
    picks_per_window: usize,
    raster_bin_s: f64,
    raster_bins: u32,
    tolerance: Tolerances,
    sweeps: Vec<WantedSweep>,
}

/// Each relative, but those of times, which are seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerances {
    rate_hz: f64,
    spike_times_s: f64,
    starting_time_s: f64,
    probes_relative: f64,
    window_mean_relative: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedSweep {
    number: u32,
    clamp: String,
    usable: bool,
    stimulus_name: String,
    rate_hz: f64,
    starting_time_s: f64,
    n_samples: usize,
    index_range: [usize; 2],
    stimulus_si_unit: String,
    response_si_unit: String,
    factor_applied: Factors,
    spike_times_s: Vec<f64>,
    probes: Vec<Probe>,
    windows: Option<Vec<WantedWindow>>,
}

#[derive(Debug, Deserialize)]
struct Factors {
    stimulus: f64,
    response: f64,
}

#[derive(Debug, Deserialize)]
struct Probe {
    index: usize,
    stimulus: f64,
    response: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(non_snake_case, reason = "the names of the file, which hold units")]
struct WantedWindow {
    start_s: f64,
    end_s: f64,
    spike_times_rel_s: Vec<f64>,
    raster_idx: Vec<u32>,
    probe_picks: Vec<usize>,
    i_pA: Vec<f64>,
    v_mV: Vec<f64>,
    mean_i_pA: f64,
    mean_v_mV: f64,
}

fn nwb(case: &Case) -> Result<()> {
    let want: Expected = case.option("expected")?;
    let file = NwbFile::open(&case.path)?;
    equal(case, "version", file.format(), Some(&*want.nwb_version));
    equal(case, "version of the pipeline", file.pipeline_version(), Some(&*want.pipeline_version));
    equal(case, "label", file.label(), None);
    let there = want.listed_sweeps.iter().filter(|n| !want.missing_sweeps.contains(n));
    equal(case, "sweeps", file.sweeps(), &there.copied().collect::<Vec<_>>());
    for &missing in &want.missing_sweeps {
        equal(case, &format!("sweep {missing} is refused"), file.sweep(missing).is_err(), true);
    }
    for wanted in &want.sweeps {
        let sweep = file.sweep(wanted.number)?;
        compare_sweep(case, &file, &sweep, wanted, &want.tolerance)?;
        if let Some(windows) = &wanted.windows {
            let options = ReadOptions {
                stimuli: vec![wanted.stimulus_name.clone()],
                windows_s: want.windows_s.clone(),
                rate_hz: want.pick_rate_hz,
                bin_s: want.raster_bin_s,
                ..ReadOptions::default()
            };
            let recording = Recording::open(&case.path, &options)?;
            let trials = &recording.stimuli.first().context("one stimulus")?.trials;
            let trial = trials.iter().find(|t| t.sweep == wanted.number).context("the sweep is a trial")?;
            equal(case, "windows", trial.segments.len(), windows.len());
            for ((segment, window), bounds) in trial.segments.iter().zip(windows).zip(&want.windows_s) {
                equal(case, "bounds of a window", *bounds, [window.start_s, window.end_s]);
                compare_window(case, segment, window, &want);
            }
        }
    }
    Ok(())
}

fn compare_sweep(case: &Case, file: &NwbFile, sweep: &Sweep, want: &WantedSweep, tolerance: &Tolerances) -> Result<()> {
    let at = |what: &str| format!("sweep {}, {what}", want.number);
    let clamp = match sweep.clamp {
        Clamp::Current => ["current", "A", "V"],
        Clamp::Voltage => ["voltage", "V", "A"],
    };
    equal(case, &at("clamp and units"), clamp, [&*want.clamp, &*want.stimulus_si_unit, &*want.response_si_unit]);
    equal(case, &at("whether it is usable"), file.need_current_clamp(sweep).is_ok(), want.usable);
    equal(case, &at("stimulus"), &sweep.stimulus, &want.stimulus_name);
    equal(case, &at("samples"), sweep.samples, want.n_samples);
    let [first, last] = want.index_range;
    equal(case, &at("range"), sweep.range.clone(), first..last + 1);
    equal(case, &at("factors"), sweep.factors, [want.factor_applied.stimulus, want.factor_applied.response]);
    same(case, &at("rate"), &[sweep.rate_hz], &[want.rate_hz], tolerance.rate_hz);
    same(case, &at("start"), &[sweep.start_s], &[want.starting_time_s], tolerance.starting_time_s);
    let times = sweep.spike_times_s.clone().unwrap_or_default();
    same(case, &at("spike times"), &times, &want.spike_times_s, tolerance.spike_times_s);
    for Probe { index, stimulus, response } in &want.probes {
        let one = *index..index + 1;
        let got = [file.stimulus(sweep, one.clone())?, file.response(sweep, one)?].concat();
        same(case, &at(&format!("sample {index}")), &got, &[*stimulus, *response], tolerance.probes_relative);
    }
    Ok(())
}

fn compare_window(case: &Case, segment: &Segment, window: &WantedWindow, want: &Expected) {
    let at = |what: &str| format!("window from {} s, {what}", window.start_s);
    equal(case, &at("start"), segment.start_s, window.start_s);
    same(case, &at("spike times"), &segment.spike_times_s, &window.spike_times_rel_s, want.tolerance.spike_times_s);
    let bins: Vec<u32> = segment.spikes.iter().copied().filter(|b| *b < want.raster_bins).collect();
    equal(case, &at("raster"), &bins, &window.raster_idx);
    for (what, values, picks, mean) in [
        ("current", &segment.current_pa, &window.i_pA, window.mean_i_pA),
        ("voltage", &segment.voltage_mv, &window.v_mV, window.mean_v_mV),
    ] {
        equal(case, &at("picks"), values.len(), want.picks_per_window);
        let got: Vec<f64> = window.probe_picks.iter().filter_map(|&i| values.get(i).map(|&x| x.into())).collect();
        same(case, &at(what), &got, picks, want.tolerance.probes_relative);
        let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
        same(case, &at(what), &[sum / values.len() as f64], &[mean], want.tolerance.window_mean_relative);
    }
}
