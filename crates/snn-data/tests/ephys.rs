//! Recordings of neurons: golden files, the detector, synthetic sessions, plain arrays, and damaged files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;
use snn_core::testkit::golden::{Case, Entry, Precision, read_index};
use snn_data::ephys::allen;
use snn_data::ephys::session::{self, SessionOptions, Truth};
use snn_data::ephys::slice;
use snn_data::ephys::{Bessel, Clamp, Detector, NwbFile, ReadOptions, Recording, SpikeChoice, SpikesFrom};
use snn_data::{Encode, InMemory, Input, LoaderOptions, Pipeline, Sample, Silent, SourceKind, load_batch};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/alif-blocks")
}

fn entries(kind: &str) -> Vec<Entry> {
    let index = read_index(&folder()).unwrap();
    let entries: Vec<_> = index.cases.into_iter().filter(|c| c.kind == kind).collect();
    assert!(!entries.is_empty(), "no case of kind {kind}");
    entries
}

/// Runs every case of a kind and finishes it.
fn cases(kind: &str, run: impl Fn(&Case)) {
    for entry in entries(kind) {
        let case = Case::open(&folder(), &entry, Precision::Double).unwrap();
        run(&case);
        case.finish().unwrap_or_else(|failures| panic!("{}: {failures:#?}", entry.file));
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-30), "{what}: {got} is not {want}");
}

#[test]
fn golden_files_are_read_as_published() {
    for entry in entries("nwb") {
        let want: Value = serde_json::from_value(entry.options["expected"].clone()).unwrap();
        let path = folder().join(&entry.file);
        let file = NwbFile::open(&path).unwrap();
        assert_eq!(file.format(), want["nwb_version"].as_str());
        assert_eq!((file.pipeline_version(), file.label()), (want["pipeline_version"].as_str(), None));
        let missing: Vec<u32> = numbers(&want["missing_sweeps"]).into_iter().map(|n| n as u32).collect();
        let listed = numbers(&want["listed_sweeps"]).into_iter().map(|n| n as u32);
        assert_eq!(file.sweeps(), listed.filter(|n| !missing.contains(n)).collect::<Vec<_>>());
        for number in missing {
            let message = file.sweep(number).unwrap_err().to_string();
            assert!(message.contains(&format!("Sweep_{number}: missing, expected one of the sweeps")), "{message}");
        }
        let tolerance = |name: &str| want["tolerance"][name].as_f64().unwrap();
        for want_sweep in want["sweeps"].as_array().unwrap() {
            let number = want_sweep["number"].as_u64().unwrap() as u32;
            let sweep = file.sweep(number).unwrap();
            let clamp = if want_sweep["clamp"] == "current" { Clamp::Current } else { Clamp::Voltage };
            assert_eq!((sweep.clamp, Some(sweep.stimulus.as_str())), (clamp, want_sweep["stimulus_name"].as_str()));
            assert_eq!(file.need_current_clamp(&sweep).is_ok(), want_sweep["usable"].as_bool().unwrap());
            assert_eq!(Some(sweep.rate_hz), want_sweep["rate_hz"].as_f64());
            close(
                sweep.start_s,
                want_sweep["starting_time_s"].as_f64().unwrap(),
                tolerance("starting_time_s"),
                "start",
            );
            assert_eq!(sweep.samples as u64, want_sweep["n_samples"].as_u64().unwrap());
            let range = numbers(&want_sweep["index_range"]);
            assert_eq!([sweep.range.start as f64, sweep.range.end as f64 - 1.0], range[..]);
            let factors = &want_sweep["factor_applied"];
            assert_eq!(
                [Some(sweep.factors[0]), Some(sweep.factors[1])],
                [factors["stimulus"].as_f64(), factors["response"].as_f64()]
            );
            let (times, want_times) =
                (sweep.spike_times_s.clone().unwrap_or_default(), numbers(&want_sweep["spike_times_s"]));
            assert_eq!(times.len(), want_times.len());
            times.iter().zip(&want_times).for_each(|(t, w)| close(*t, *w, tolerance("spike_times_s"), "spike"));
            for probe in want_sweep["probes"].as_array().unwrap() {
                let at = probe["index"].as_u64().unwrap() as usize;
                let stimulus = file.stimulus(&sweep, at..at + 1).unwrap()[0];
                let response = file.response(&sweep, at..at + 1).unwrap()[0];
                close(stimulus, probe["stimulus"].as_f64().unwrap(), tolerance("probes_relative"), "stimulus");
                close(response, probe["response"].as_f64().unwrap(), tolerance("probes_relative"), "response");
            }
            let message = file.stimulus(&sweep, 5..sweep.samples + 1).unwrap_err().to_string();
            assert!(message.contains("asked for, expected a range inside 0.."), "{message}");
        }
        windows(&path, &want, &tolerance);
    }
}

/// The windows of the sweeps that are long enough.
fn windows(path: &Path, want: &Value, tolerance: &dyn Fn(&str) -> f64) {
    let bounds: Vec<_> = want["windows_s"].as_array().unwrap().iter().map(numbers).map(|w| [w[0], w[1]]).collect();
    let whole = want["sweeps"].as_array().unwrap().iter().filter(|s| !s["windows"].is_null());
    for sweep in whole {
        let options = ReadOptions {
            stimuli: vec![sweep["stimulus_name"].as_str().unwrap().to_owned()],
            windows_s: bounds.clone(),
            rate_hz: want["pick_rate_hz"].as_f64().unwrap(),
            bin_s: want["raster_bin_s"].as_f64().unwrap(),
            ..ReadOptions::default()
        };
        let recording = Recording::open(path, &options).unwrap();
        assert_eq!((recording.step_ms, recording.bin_ms, recording.label), (0.1, 0.1, None));
        let trial = &recording.stimuli[0].trials[0];
        assert_eq!((u64::from(trial.sweep), trial.spikes_from), (sweep["number"].as_u64().unwrap(), SpikesFrom::File));
        let expected = sweep["windows"].as_array().unwrap();
        assert_eq!(trial.segments.len(), expected.len());
        for (segment, want_window) in trial.segments.iter().zip(expected) {
            assert_eq!(Some(segment.start_s), want_window["start_s"].as_f64());
            let count = want["picks_per_window"].as_u64().unwrap() as usize;
            assert_eq!((segment.current_pa.len(), segment.voltage_mv.len()), (count, count));
            let times = numbers(&want_window["spike_times_rel_s"]);
            assert_eq!(segment.spike_times_s.len(), times.len());
            segment.spike_times_s.iter().zip(&times).for_each(|(t, w)| assert!((t - w).abs() < 1e-9, "{t} is not {w}"));
            let raster = want["raster_bins"].as_u64().unwrap() as u32;
            let bins: Vec<f64> = segment.spikes.iter().filter(|b| **b < raster).map(|&b| b.into()).collect();
            assert_eq!(bins, numbers(&want_window["raster_idx"]));
            for (values, probes, mean) in
                [(&segment.current_pa, "i_pA", "mean_i_pA"), (&segment.voltage_mv, "v_mV", "mean_v_mV")]
            {
                for (at, x) in numbers(&want_window["probe_picks"]).iter().zip(numbers(&want_window[probes])) {
                    close(values[*at as usize].into(), x, tolerance("probes_relative"), probes);
                }
                let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
                close(sum / count as f64, want_window[mean].as_f64().unwrap(), tolerance("window_mean_relative"), mean);
            }
        }
        // One second is kept of each window: the raster of the published fits.
        let short = Recording::open(path, &ReadOptions { keep_s: Some(1.0), voltage: false, ..options }).unwrap();
        for (short, long) in short.stimuli[0].trials[0].segments.iter().zip(&trial.segments) {
            assert_eq!((short.current_pa.as_slice(), short.voltage_mv.len()), (&long.current_pa[..10_000], 0));
            assert_eq!(short.spikes, long.spikes.iter().copied().filter(|b| *b < 10_000).collect::<Vec<_>>());
            assert_eq!(short.spike_times_s, long.spike_times_s);
        }
    }
}

#[test]
fn recordings_without_what_is_asked_for_say_what_there_is() {
    let path = folder().join("nwb_tiny.nwb");
    let message = |change: &dyn Fn(&mut ReadOptions)| {
        let mut options = ReadOptions { stimuli: vec!["Noise 1".into()], ..ReadOptions::default() };
        change(&mut options);
        Recording::open(&path, &options).unwrap_err().to_string()
    };
    for (got, want) in [
        (
            message(&|o| o.stimuli = vec!["Ramp".into()]),
            "no sweep of stimulus `Ramp`, expected one of `Long Square`, `Noise 1`",
        ),
        (
            message(&|o| o.stimuli = vec!["Noise 2".into()]),
            "stimulus `Noise 2`: sweep 7 of 0.0395 s, expected at least 21 s",
        ),
        (message(&|o| o.stimuli = vec!["Test".into()]), "Sweep_11: a voltage clamp, expected a current clamp"),
        (
            message(&|o| o.rate_hz = 15_000.0),
            "Sweep_5: rate of the model: 15000 Hz, expected a rate that divides the 50000 Hz",
        ),
        (message(&|o| o.windows_s = vec![[3.0, 2.0]]), "Sweep_5: window: 3 s to 2 s"),
        (message(&|o| o.windows_s = vec![]), "windows_s: 0 windows"),
        (message(&|o| o.bin_s = 0.0), "bin_s: 0"),
        (message(&|o| o.keep_s = Some(f64::NAN)), "keep_s: NaN"),
        (message(&|o| (o.detector.filter_hz, o.spikes) = (3e4, SpikeChoice::Detected)), "Sweep_5: filter_hz: 30000"),
    ] {
        assert!(got.contains("nwb_tiny.nwb") || !got.contains("Sweep"), "{got}");
        assert!(got.contains(want), "{got} is not {want}");
    }
    // Twice the rate needs no other rule.
    let options = ReadOptions { stimuli: vec!["Noise 1".into()], rate_hz: 25_000.0, ..ReadOptions::default() };
    assert_eq!(Recording::open(&path, &options).unwrap().stimuli[0].trials[0].segments[2].current_pa.len(), 75_000);
}

#[test]
fn detector_finds_the_published_spikes() {
    cases("alif_spikedetect", |case| {
        #[derive(serde::Deserialize)]
        struct Filter {
            b: Vec<f64>,
            a: Vec<f64>,
        }
        let option = |name: &str| case.option::<f64>(name).unwrap();
        let detector = Detector::default();
        assert_eq!(detector.filter_hz, option("filter_hz"));
        assert_eq!(detector.slope_mv_per_ms, option("dv_cutoff_mV_per_ms"));
        assert_eq!(detector.max_interval_ms, option("max_interval_ms"));
        assert_eq!(detector.min_height_mv, option("min_height_mV"));
        assert_eq!(detector.min_peak_mv, option("min_peak_mV"));
        assert_eq!(detector.threshold_fraction, option("thresh_frac"));
        let rate = option("fs_hz");
        let want: Filter = case.option("filter").unwrap();
        let filter = Bessel::low_pass(detector.filter_hz, rate).unwrap();
        for (got, want) in filter.b.iter().chain(&filter.a).zip(want.b.iter().chain(&want.a)) {
            close(*got, *want, 1e-12, "coefficient");
        }
        let voltage: Vec<f64> = case.array("v_q").unwrap().data.iter().map(|q| q * option("v_scale_mV")).collect();
        let found = detector.detect(rate, &voltage, &[[option("start_s"), option("end_s")]]).unwrap();
        let list = |pick: &dyn Fn(&snn_data::ephys::Spike) -> f64| found[0].iter().map(pick).collect::<Vec<_>>();
        case.compare("threshold_idx", &list(&|s| s.threshold as f64));
        case.compare("peak_idx", &list(&|s| s.peak as f64));
        case.compare("threshold_t", &list(&|s| s.threshold as f64 / rate));
    });
}

#[derive(serde::Deserialize)]
struct Raster {
    dt_ms: f32,
    #[serde(rename = "T")]
    steps: usize,
    n_units: usize,
    array: String,
}

#[test]
fn events_and_spike_times_fall_into_the_published_bins() {
    cases("alif_events", |case| {
        let units: Vec<u32> = case.array("units").unwrap().data.iter().map(|&u| u as u32).collect();
        let times: Vec<f32> = case.array("times_s").unwrap().data.iter().map(|&t| t as f32).collect();
        let kind = SourceKind::Events { units: 1 + *units.iter().max().unwrap() as usize, sensor: None };
        for raster in case.option::<Vec<Raster>>("rasters").unwrap() {
            let mut source = InMemory::empty("golden", kind, vec!["0".into()]);
            source.push(&Sample { units: units.clone(), times: times.clone(), ..Sample::default() });
            let encode = Encode::Bin { steps: raster.steps, dt_ms: raster.dt_ms, units: raster.n_units };
            let pipeline = Pipeline::new(encode, vec![], kind).unwrap();
            let batch = load_batch(std::sync::Arc::new(source), pipeline.into(), LoaderOptions::default(), 0);
            let Input::Spikes(spikes) = batch.unwrap().input else { panic!("binned events are spikes") };
            let dense: Vec<f64> = spikes.to_dense();
            let by_unit = (0..raster.n_units).flat_map(|u| (u..raster.n_units * raster.steps).step_by(raster.n_units));
            let image: Vec<f64> = by_unit.map(|at| dense[at]).collect();
            case.compare(&raster.array, &image);
        }
        let (width, count) = (case.option("bin_s").unwrap(), case.option("n_bins").unwrap());
        let times = &case.array("spike_times_s").unwrap().data;
        case.compare("spike_floor_raw", &times.iter().map(|&t| slice::bin(t, width) as f64).collect::<Vec<_>>());
        let bins: Vec<f64> = slice::bins(times, width, count).into_iter().map(f64::from).collect();
        case.compare("spike_bin_idx", &bins);
    });
}

/// Two neurons, without noise, in a folder that lives as long as the tests.
static SESSION: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let options = SessionOptions { cells: 2, seed: 3, noise: 0.0, fit_sweeps: 1, test_sweeps: 2 };
    assert_eq!(session::write(folder.path(), &options, &mut Silent).unwrap(), [1, 2]);
    folder
});

#[test]
fn synthetic_sessions_are_read_like_recordings() {
    let folder = SESSION.path();
    assert_eq!(allen::specimens(folder), [1, 2]);
    let cells = allen::read_cells(folder).unwrap();
    for (cell, dendrite) in cells.iter().zip(["spiny", "aspiny"]) {
        assert_eq!((cell.dendrite.as_deref(), cell.label.as_deref()), (Some(dendrite), Some(session::LABEL)));
        let truth = Truth::from_fields(cell.truth.as_ref().unwrap()).unwrap();
        let file = NwbFile::open(&allen::nwb_path(folder, cell.id)).unwrap();
        assert_eq!((file.label(), file.sweeps()), (Some(session::LABEL), &[5, 10, 11, 14][..]));
        let kinds = allen::read_sweeps(folder, cell.id).unwrap();
        for (row, &number) in kinds.iter().zip(file.sweeps()) {
            let sweep = file.sweep(number).unwrap();
            assert_eq!((row.number, row.stimulus.as_str()), (number, sweep.stimulus.as_str()));
            assert_eq!(row.spikes, sweep.spike_times_s.map(|t| t.len() as u64));
            assert_eq!((sweep.rate_hz, sweep.clamp, sweep.range.start), (50_000.0, Clamp::Current, 37_500));
        }
        let recording = Recording::open_specimen(folder, cell.id, &ReadOptions::default()).unwrap();
        assert_eq!((recording.specimen, recording.label.as_deref()), (Some(cell.id), Some(session::LABEL)));
        assert_eq!((recording.rest_mv, recording.threshold_mv), (Some(truth.rest_mv), Some(truth.threshold_mv)));
        assert_eq!(recording.stimuli.iter().map(|s| s.trials.len()).collect::<Vec<_>>(), [1, 2]);
        let (mut spikes, mut seconds) = (0, 0.0);
        for stimulus in &recording.stimuli {
            // The published normalisation, and the weight that it asks for.
            let weight = truth.gain * 100.0 * f64::from(stimulus.peak_pa());
            assert!((0.5..5.0).contains(&weight), "weight {weight}");
            for segment in stimulus.trials.iter().flat_map(|t| &t.segments) {
                assert_eq!(segment.spikes, truth.spikes(&segment.current_pa), "the true neuron gives the spikes back");
                assert!(segment.voltage_mv.iter().all(|v| (-90.0..40.0).contains(v)));
                (spikes, seconds) = (spikes + segment.spikes.len(), seconds + 3.0);
            }
        }
        let hertz = spikes as f64 / seconds;
        assert!((3.0..40.0).contains(&hertz), "{hertz} Hz");
        let bytes = std::fs::metadata(allen::nwb_path(folder, cell.id)).unwrap().len();
        assert!(bytes < 6 << 20, "{bytes} bytes of four sweeps");
    }
    let message = Recording::open_specimen(folder, 7, &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("specimen: 7, expected one of those in") && message.ends_with(": 1, 2"), "{message}");
}

#[test]
fn detected_spikes_are_the_stored_ones_to_a_sample_or_two() {
    let folder = SESSION.path();
    let [stored, detected] = [SpikeChoice::Stored, SpikeChoice::Detected].map(|spikes| {
        let options = ReadOptions { spikes, stimuli: vec!["Noise 1".into()], ..ReadOptions::default() };
        Recording::open_specimen(folder, 1, &options).unwrap().stimuli.remove(0).trials.remove(0)
    });
    assert_eq!((stored.spikes_from, detected.spikes_from), (SpikesFrom::File, SpikesFrom::Detector));
    for (stored, detected) in stored.segments.iter().zip(&detected.segments) {
        assert_eq!(stored.spike_times_s.len(), detected.spike_times_s.len());
        for (stored, detected) in stored.spike_times_s.iter().zip(&detected.spike_times_s) {
            assert!((stored - detected).abs() < 2.5 / 50_000.0, "{stored} s, found at {detected} s");
        }
    }
}

#[test]
fn noise_makes_trials_differ_a_little() {
    let folder = tempfile::tempdir().unwrap();
    let options = SessionOptions { cells: 1, seed: 5, fit_sweeps: 1, test_sweeps: 2, ..SessionOptions::default() };
    session::write(folder.path(), &options, &mut Silent).unwrap();
    let options = ReadOptions { stimuli: vec!["Noise 2".into()], voltage: false, ..ReadOptions::default() };
    let recording = Recording::open_specimen(folder.path(), 1, &options).unwrap();
    let [first, second] = &recording.stimuli[0].trials[..] else { panic!("two trials") };
    let spikes = |t: &snn_data::ephys::Trial| t.segments.iter().map(|s| s.spikes.clone()).collect::<Vec<_>>();
    let (a, b) = (spikes(first), spikes(second));
    assert_ne!(a, b);
    assert_eq!(first.segments[0].current_pa, second.segments[0].current_pa, "the stimulus is the same");
    let counts = |s: &[Vec<u32>]| s.iter().map(Vec::len).sum::<usize>() as f64;
    assert!((counts(&a) / counts(&b) - 1.0).abs() < 0.25, "{} and {} spikes", counts(&a), counts(&b));
    // Most spikes have a partner within 5 ms.
    let near = |x: &u32, list: &[u32]| list.iter().any(|y| x.abs_diff(*y) <= 50);
    let met = a.iter().zip(&b).map(|(a, b)| a.iter().filter(|x| near(x, b)).count()).sum::<usize>() as f64;
    assert!(met / counts(&a) > 0.6, "{met} of {} spikes have a partner", counts(&a));
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let message = |change: &dyn Fn(&mut SessionOptions)| {
        let mut options = SessionOptions::default();
        change(&mut options);
        session::write(folder.path(), &options, &mut Silent).unwrap_err().to_string()
    };
    assert!(message(&|o| o.cells = 0).contains("cells: 0, expected 1..=10000"));
    assert!(message(&|o| o.test_sweeps = 101).contains("test_sweeps: 101"));
    assert!(message(&|o| o.noise = f64::NAN).contains("noise: NaN"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(folder.path().join("cells.json"), r#"[{"specimen__id": 488359338}]"#).unwrap();
    assert!(message(&|_| ()).contains("specimen 488359338 of a real neuron"));
}

/// An npz file of arrays: name, type, shape, bytes.
fn npz(path: &Path, arrays: &[(&str, &str, &[usize], Vec<u8>)]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, descr, shape, body) in arrays {
        let axes: String = shape.iter().map(|n| format!("{n},")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}\n");
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap();
}

fn f8(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn plain_arrays_are_recordings_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.npz");
    let current: Vec<f64> = (0..2 * 1000).map(|k| k as f64 / 10.0).collect();
    let times = [0.00025, 0.01005, f64::NAN, 0.01235, f64::NAN, f64::NAN];
    let mut raster = vec![0; 2 * 100];
    (raster[3], raster[199]) = (1, 2);
    npz(
        &path,
        &[
            ("fs", "<f8", &[], f8(&[50_000.0])),
            ("i", "<f8", &[2, 1000], f8(&current)),
            ("s", "<f8", &[2, 3], f8(&times)),
            ("i_test", "<f8", &[1, 2, 1000], f8(&current)),
            ("s_test", "|u1", &[1, 2, 100], raster),
        ],
    );
    let options = ReadOptions { stimuli: vec!["fit".into(), "test".into()], ..ReadOptions::default() };
    let recording = Recording::open(&path, &options).unwrap();
    let [fit, test] = &recording.stimuli[..] else { panic!("two stimuli") };
    assert_eq!((fit.name.as_str(), fit.trials.len(), test.trials.len()), ("fit", 2, 1));
    let segment = &fit.trials[0].segments[0];
    assert_eq!((segment.current_pa.len(), segment.current_pa[1], segment.spikes.as_slice()), (200, 0.5, &[2, 100][..]));
    assert_eq!(fit.trials[1].segments[0].spikes, [123]);
    assert_eq!(test.trials[0].segments.iter().map(|s| s.spikes.clone()).collect::<Vec<_>>(), [vec![3], vec![99]]);
    assert_eq!((recording.label, fit.trials[0].spikes_from), (None, SpikesFrom::File));

    let message = |arrays: &[(&str, &str, &[usize], Vec<u8>)], spikes: SpikeChoice| {
        npz(&path, arrays);
        let options = ReadOptions { stimuli: vec!["fit".into()], spikes, ..ReadOptions::default() };
        Recording::open(&path, &options).unwrap_err().to_string()
    };
    let fs = || ("fs", "<f8", &[][..], f8(&[50_000.0]));
    let i = || ("i", "<f8", &[2, 20][..], f8(&[1.0; 40]));
    for (got, want) in [
        (message(&[i()], SpikeChoice::Either), "array fs: missing, expected one of the arrays of the file: i"),
        (message(&[fs()], SpikeChoice::Either), "array i: missing"),
        (message(&[fs(), i()], SpikeChoice::Either), "array s: missing"),
        (message(&[fs(), i()], SpikeChoice::Detected), "array v: missing, expected a voltage"),
        (message(&[fs(), i(), ("v", "<f8", &[2, 19], f8(&[0.0; 38]))], SpikeChoice::Either), "array v: shape [2, 19]"),
        (message(&[fs(), i(), ("s", "<f8", &[3, 1], f8(&[0.0; 3]))], SpikeChoice::Either), "array s: shape [3, 1]"),
        (message(&[fs(), i(), ("s", "<f8", &[2, 1], f8(&[0.0, -1.0]))], SpikeChoice::Either), "array s: time -1"),
        (
            message(&[fs(), i(), ("s", "<f8", &[2, 2], f8(&[0.2, 0.1, 0.0, 0.0]))], SpikeChoice::Either),
            "0.1 s after 0.2 s",
        ),
        (message(&[fs(), ("i", "<f8", &[4], f8(&[1.0; 4]))], SpikeChoice::Either), "two or three axes"),
        (message(&[fs(), ("i", "<f8", &[0, 4], vec![])], SpikeChoice::Either), "axes that are not empty"),
        (message(&[fs(), ("i", "<f8", &[1, 1], f8(&[f64::NAN]))], SpikeChoice::Either), "entry 0 is no number"),
        (message(&[("fs", "<f8", &[], f8(&[-5.0])), i()], SpikeChoice::Either), "array fs: something else"),
        (
            message(&[("fs", "<f8", &[], f8(&[44_100.0])), i(), ("s", "<f8", &[2, 0], vec![])], SpikeChoice::Either),
            "divides",
        ),
    ] {
        assert!(got.contains(want), "{got} is not {want}");
    }
    std::fs::write(&path, b"no zip").unwrap();
    assert!(Recording::open(&path, &options).is_err());
}

/// Reads all that a file has to say on another thread; panics if that does not end.
fn read_in_time(path: PathBuf) -> Result<usize, String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let read = || -> Result<usize, snn_data::Error> {
            let file = NwbFile::open(&path)?;
            let mut sound = 0;
            for &number in file.sweeps() {
                let Ok(sweep) = file.sweep(number) else { continue };
                let all = 0..sweep.samples;
                sound += usize::from(file.stimulus(&sweep, all.clone()).is_ok() && file.response(&sweep, all).is_ok());
            }
            Ok(sound)
        };
        send.send(read().map_err(|e| e.to_string()))
    });
    receive.recv_timeout(Duration::from_secs(30)).expect("reading ends")
}

#[test]
fn damaged_recordings_end_in_errors() {
    let sound = std::fs::read(folder().join("nwb_tiny_v11.nwb")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.nwb");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        read_in_time(path.clone())
    };
    assert_eq!(read(&sound), Ok(2));
    for length in (0..sound.len()).step_by(1499).chain([1, 8, 100, sound.len() - 1]) {
        let message = read(&sound[..length]).unwrap_err();
        assert!(message.contains("cell.nwb"), "{message}");
    }
    // Single bytes: an error or other numbers.
    for at in (0..sound.len()).step_by(if std::env::var_os("SNN_SLOW_TESTS").is_some() { 7 } else { 331 }) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x91;
        let _ = read(&bytes);
    }
}

/// A small recording, and what is done to it before it is read.
fn altered(change: impl Fn(&hdf5::File) -> hdf5::Result<()>) -> (tempfile::TempDir, PathBuf) {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("cell.nwb");
    std::fs::copy(folder().join("nwb_tiny_v11.nwb"), &path).unwrap();
    let file = hdf5::File::append(&path).unwrap();
    change(&file).unwrap();
    file.close().unwrap();
    (target, path)
}

/// Replaces a dataset.
fn replace<T: hdf5::H5Type>(file: &hdf5::File, place: &str, values: &[T]) -> hdf5::Result<hdf5::Dataset> {
    file.unlink(place)?;
    let dataset = file.new_dataset::<T>().shape([values.len()]).create(place)?;
    dataset.write(values)?;
    Ok(dataset)
}

#[test]
fn recordings_that_lie_are_named() {
    const RESPONSE: &str = "/acquisition/timeseries/Sweep_4";
    const STIMULUS: &str = "/stimulus/presentation/Sweep_4";
    type Change<'a> = &'a dyn Fn(&hdf5::File) -> hdf5::Result<()>;
    let rate = |file: &hdf5::File, value: Option<f64>| {
        for group in [RESPONSE, STIMULUS] {
            let clock = file.dataset(&format!("{group}/starting_time"))?;
            clock.delete_attr("rate")?;
            if let Some(value) = value {
                clock.new_attr::<f64>().create("rate")?.write_scalar(&value)?;
            }
        }
        Ok(())
    };
    let count = |file: &hdf5::File, name: &str, value: f64| {
        let place = format!("/epochs/Experiment_4/stimulus/{name}");
        file.unlink(&place)?;
        file.new_dataset::<f64>().create(place.as_str())?.write_scalar(&value)
    };
    let changes: [(Change<'_>, &str); 18] = [
        (&|f| rate(f, Some(0.0)), "/starting_time: a rate of 0 Hz, expected a positive sampling rate"),
        (&|f| rate(f, Some(f64::NAN)), "a rate of NaN Hz"),
        (&|f| rate(f, None), "no attribute rate"),
        (
            &|f| count(f, "count", 3001.0),
            "Experiment_4/stimulus: 3001 samples from 500, expected at least one, inside the 3001",
        ),
        (&|f| count(f, "count", 0.0), "0 samples from 500"),
        (&|f| count(f, "idx_start", -1.0), "idx_start: -1, expected a number of samples"),
        (&|f| count(f, "idx_start", 1e300), "a number of samples"),
        (&|f| count(f, "idx_start", 0.5), "idx_start: 0.5"),
        (
            &|f| f.unlink("/epochs/Experiment_4").and_then(|()| f.unlink("/epochs/Sweep_4/stimulus")),
            "Sweep_4/stimulus/idx_start: missing",
        ),
        (
            &|f| {
                f.unlink(&format!("{STIMULUS}/aibs_stimulus_name"))
                    .and_then(|()| f.unlink(&format!("{RESPONSE}/aibs_stimulus_name")))
            },
            "aibs_stimulus_name: missing",
        ),
        (&|f| f.unlink(&format!("{STIMULUS}/data")), "presentation/Sweep_4/data: missing"),
        (&|f| f.unlink(&format!("{RESPONSE}/starting_time")), "starting_time: missing"),
        (
            &|f| replace(f, &format!("{RESPONSE}/data"), &[0.5_f32; 2999]).map(|_| ()),
            "timeseries/Sweep_4/data: 2999 samples, expected 3001",
        ),
        (
            &|f| replace(f, &format!("{STIMULUS}/data"), &[0.5_f32; 3001]).map(|_| ()),
            "no attribute unit, expected amperes or volts",
        ),
        (&|f| replace(f, &format!("{STIMULUS}/data"), &[0.5_f32; 0]).map(|_| ()), "no attribute unit"),
        (
            &|f| replace(f, "/analysis/aibs_spike_times/Sweep_4", &[0.2, 0.1]).map(|_| ()),
            "0.1 s after 0.2 s at spike 1",
        ),
        (
            &|f| replace(f, "/analysis/aibs_spike_times/Sweep_4", &[f64::INFINITY]).map(|_| ()),
            "time inf, expected finite",
        ),
        (&|f| f.dataset(&format!("{STIMULUS}/data"))?.delete_attr("conversion"), "no attribute conversion"),
    ];
    for (change, want) in changes {
        let (_folder, path) = altered(|file| change(file));
        let got = NwbFile::open(&path).unwrap().sweep(4).map(|s| format!("{s:?}")).unwrap_or_else(|e| e.to_string());
        assert!(got.contains("cell.nwb") && got.contains(want), "{got} is not {want}");
    }
    // Values in millivolts where volts are due.
    let (_folder, path) = altered(|f| {
        let data = f.dataset(&format!("{RESPONSE}/data"))?;
        data.delete_attr("conversion")?;
        data.new_attr::<f64>().create("conversion")?.write_scalar(&1.0)
    });
    let file = NwbFile::open(&path).unwrap();
    let sweep = file.sweep(4).unwrap();
    let message = file.response(&sweep, 0..10).unwrap_err().to_string();
    assert!(message.contains("V at sample 0, expected less than 2e-1 V; is the unit right?"), "{message}");
    for (change, want) in [
        (
            &(|f: &hdf5::File| f.unlink("/epochs").and_then(|()| f.create_group("/epochs")).map(|_| ())) as Change<'_>,
            "/epochs: no member Sweep_0",
        ),
        (&|f| f.unlink("/epochs").and_then(|()| f.unlink("/acquisition")), "/epochs: missing, expected the sweeps"),
    ] {
        let (_folder, path) = altered(|file| change(file));
        let message = NwbFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(want), "{message} is not {want}");
    }
    // Without its own group a sweep is found through the links of its epochs.
    let (_folder, path) = altered(|f| f.unlink(RESPONSE));
    assert_eq!(NwbFile::open(&path).unwrap().sweep(4).unwrap().samples, 3001);
}

#[test]
fn sweeps_of_one_stimulus_that_differ_in_length_are_named() {
    let (_folder, path) = altered(|file| {
        // A second sweep of the same stimulus that ends before the window does.
        file.unlink("/stimulus/presentation/Sweep_12/aibs_stimulus_name")?;
        file.unlink("/acquisition/timeseries/Sweep_12/aibs_stimulus_name")?;
        for group in ["/stimulus/presentation", "/acquisition/timeseries"] {
            file.link_hard(
                &format!("{group}/Sweep_4/aibs_stimulus_name"),
                &format!("{group}/Sweep_12/aibs_stimulus_name"),
            )?;
        }
        Ok(())
    });
    let windows_s = vec![[0.011, 0.05]];
    let options = ReadOptions { stimuli: vec!["Noise 1".into()], windows_s, ..ReadOptions::default() };
    let message = Recording::open(&path, &options).unwrap_err().to_string();
    assert!(message.contains("cell.nwb: stimulus `Noise 1`: sweep 12 of 0.0300 s"), "{message}");
    assert!(message.contains("expected at least 0.05 s, as has sweep 4 of 0.0580 s"), "{message}");
    let options = ReadOptions { windows_s: vec![[0.011, 0.03]], ..options };
    let recording = Recording::open(&path, &options).unwrap();
    assert_eq!(recording.stimuli[0].trials.iter().map(|t| t.rate_hz).collect::<Vec<_>>(), [50_000.0, 200_000.0]);
}
