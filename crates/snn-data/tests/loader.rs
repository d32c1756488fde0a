//! Batches are functions of seed, epoch and index; errors come through; threads end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use snn_core::{Kind, Map};
use snn_data::{
    Augment, Cut, Encode, Error, InMemory, Input, Loader, LoaderOptions, OpenOptions, Pipeline, Result, Rule, Sample,
    Source, SourceKind, load_batch, open,
};

fn images(samples: usize) -> Arc<dyn Source> {
    open("digits-sim", "train", &OpenOptions { samples: Some(samples), ..OpenOptions::default() }).unwrap()
}

fn augmented(source: &dyn Source) -> Arc<Pipeline> {
    let list = vec![
        Augment::Perspective { distortion: 0.4, prob: 0.7 },
        Augment::Flip { prob: 0.5 },
        Augment::Crop { padding: 3 },
        Augment::Noise { sigma: 0.05, prob: 0.5 },
    ];
    Arc::new(Pipeline::new(Encode::Latency { steps: 20 }, list, source.kind()).unwrap())
}

fn options() -> LoaderOptions {
    LoaderOptions { batch: 16, seed: 5, epoch: 2, shuffle: true, ..LoaderOptions::default() }
}

#[test]
fn batches_do_not_depend_on_threads_or_on_where_the_epoch_begins() {
    let source = images(100);
    let pipeline = augmented(&*source);
    let load =
        |options| Loader::new(source.clone(), pipeline.clone(), options).unwrap().collect::<Result<Vec<_>>>().unwrap();
    let all = load(options());
    assert_eq!(all.iter().map(|b| b.samples.len()).collect::<Vec<_>>(), [16, 16, 16, 16, 16, 16, 4]);
    for threads in [0, 2, 3, 9] {
        assert_eq!(load(LoaderOptions { threads, ..options() }), all, "{threads} threads");
    }
    assert_eq!(load(LoaderOptions { first_batch: 3, threads: 2, ..options() }), all[3..]);
    for (index, batch) in all.iter().enumerate() {
        assert_eq!(&load_batch(source.clone(), pipeline.clone(), options(), index).unwrap(), batch);
    }
    let mut seen: Vec<u32> = all.iter().flat_map(|b| b.samples.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_ne!(load(LoaderOptions { epoch: 3, ..options() }), all);
    assert_ne!(load(LoaderOptions { seed: 6, ..options() }), all);
}

#[test]
fn augmentation_of_a_sample_does_not_depend_on_its_batch() {
    let source = images(40);
    let pipeline = augmented(&*source);
    let rows = |batch| {
        let options = LoaderOptions { batch, shuffle: batch > 8, ..options() };
        let mut all = vec![Vec::new(); 40];
        for batch in Loader::new(source.clone(), pipeline.clone(), options).unwrap() {
            let batch = batch.unwrap();
            let Input::Spikes(spikes) = &batch.input else { panic!("latencies are spikes") };
            for (b, &sample) in batch.samples.iter().enumerate() {
                all[sample as usize] = (0..20).map(|t| spikes.row(b * 20 + t).to_vec()).collect();
            }
        }
        all
    };
    assert_eq!(rows(8), rows(20));
}

#[test]
fn recycled_memory_changes_nothing() {
    let source = images(64);
    let pipeline = augmented(&*source);
    let plain: Vec<_> = Loader::new(source.clone(), pipeline.clone(), options()).unwrap().map(Result::unwrap).collect();
    let mut loader = Loader::new(source, pipeline, options()).unwrap();
    for want in plain {
        let got = loader.next().unwrap().unwrap();
        assert_eq!(got, want);
        loader.recycle(got);
    }
    assert!(loader.next().is_none());
}

#[test]
fn limit_takes_the_first_samples() {
    let source = images(100);
    let loader =
        Loader::new(source.clone(), augmented(&*source), LoaderOptions { limit: Some(20), ..options() }).unwrap();
    assert_eq!((loader.samples(), loader.batches()), (20, 2));
    let mut seen: Vec<u32> = loader.flat_map(|b| b.unwrap().samples).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[test]
fn latency_batch_is_the_dense_encoding() {
    let mut set = InMemory::empty("toy", SourceKind::Images(Map::new(1, 3, 1)), vec!["a".into(), "b".into()]);
    set.push(&Sample { label: 1, pixels: vec![255, 0, 128], ..Sample::default() });
    set.push(&Sample { label: 0, pixels: vec![0, 0, 255], ..Sample::default() });
    let source: Arc<dyn Source> = Arc::new(set);
    let pipeline = Arc::new(Pipeline::new(Encode::Latency { steps: 3 }, vec![], source.kind()).unwrap());
    assert_eq!(pipeline.signal().map, Map::new(1, 3, 1));
    let batch = load_batch(source, pipeline, LoaderOptions::default(), 0).unwrap();
    assert_eq!(batch.labels, [1, 0]);
    let Input::Spikes(spikes) = batch.input else { panic!("latencies are spikes") };
    let rows: Vec<_> = (0..6).map(|r| spikes.row(r).to_vec()).collect();
    assert_eq!(rows, [vec![0, 2], vec![], vec![1], vec![2], vec![], vec![0, 1]]);
}

#[test]
fn bins_count_repeats_and_report_what_they_drop() {
    let mut set = InMemory::empty("toy", SourceKind::Events { units: 6, sensor: None }, vec!["a".into()]);
    let (units, times) = (vec![1, 4, 1, 5, 0], vec![0.0, 0.0001, 0.0021, 0.004, 0.0045]);
    set.push(&Sample { units, times, ..Sample::default() });
    let source: Arc<dyn Source> = Arc::new(set);
    let encode = Encode::Bin { steps: 4, dt_ms: 1.0, units: 3 };
    let pipeline = Arc::new(Pipeline::new(encode, vec![], source.kind()).unwrap());
    let mut loader = Loader::new(source, pipeline, LoaderOptions::default()).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let Input::Spikes(spikes) = batch.input else { panic!("bins are spikes") };
    assert_eq!(spikes.row(0), [1, 1]);
    assert_eq!(spikes.row(2), [1]);
    assert_eq!((spikes.events(), batch.dropped, loader.dropped()), (3, 2, 2));
}

/// Aligned events as rows per sample.
fn aligned(settings: &str, samples: &[(&[u32], &[f32])], list: Vec<Augment>) -> (Vec<Vec<Vec<u32>>>, u64) {
    let kind = SourceKind::Events { units: 6, sensor: None };
    let mut set = InMemory::empty("toy", kind, vec!["a".into()]);
    for (units, times) in samples {
        set.push(&Sample { units: units.to_vec(), times: times.to_vec(), ..Sample::default() });
    }
    let encode = toml::from_str(&format!("kind = \"align\"\ndt_ms = 1.0\n{settings}")).unwrap();
    let pipeline = Arc::new(Pipeline::new(encode, list, kind).unwrap());
    let batch = load_batch(Arc::new(set), pipeline, LoaderOptions::default(), 0).unwrap();
    let Input::Spikes(spikes) = batch.input else { panic!("bins are spikes") };
    let steps = spikes.lanes().steps;
    let rows = |b| (0..steps).map(|t| spikes.row(b * steps + t).to_vec()).collect();
    ((0..samples.len()).map(rows).collect(), batch.dropped)
}

#[test]
fn aligned_samples_end_together() {
    let samples: [(&[u32], &[f32]); 3] =
        [(&[5, 1, 5], &[0.0005, 0.0022, 0.0025]), (&[], &[]), (&[3, 2, 0], &[0.0, 0.0011, 0.0900])];
    let (rows, dropped) = aligned("steps = 50", &samples, vec![]);
    assert_eq!(dropped, 1, "the event at 90 ms");
    assert_eq!(rows[0], [vec![5], vec![], vec![1, 5]]);
    assert_eq!(rows[1], [const { Vec::<u32>::new() }; 3], "one step of its own");
    assert_eq!(rows[2], [vec![], vec![3], vec![2]]);
    let (rows, _) = aligned("steps = 50\nrule = \"ceil\"\ngroup = 2", &samples[..1], vec![]);
    assert_eq!(rows[0], [vec![], vec![2], vec![], vec![0, 2]]);
    let (rows, _) = aligned("steps = 50\nunits = 2", &samples[..1], vec![]);
    assert_eq!(rows[0], [vec![1], vec![], vec![1, 1]]);
    let (rows, _) = aligned("steps = 9", &samples[1..2], vec![Augment::Affine { shift: 0.5, scale: 0.5 }]);
    assert_eq!(rows, [[Vec::<u32>::new()]]);
}

proptest! {
    #[test]
    fn alignment_loses_no_event_and_ends_with_one(
        samples in prop::collection::vec(prop::collection::vec((0_u32..6, 0.0_f32..0.08), 0..30), 1..5),
        ceil in any::<bool>(),
    ) {
        let lists: Vec<(Vec<u32>, Vec<f32>)> = samples
            .iter()
            .map(|list| {
                let mut list = list.clone();
                list.sort_by(|a, b| a.1.total_cmp(&b.1));
                list.into_iter().unzip()
            })
            .collect();
        let lists: Vec<(&[u32], &[f32])> = lists.iter().map(|l| (&l.0[..], &l.1[..])).collect();
        let settings = format!("steps = 60\nrule = \"{}\"", if ceil { "ceil" } else { "floor" });
        let (rows, dropped) = aligned(&settings, &lists, vec![]);
        let kept: usize = rows.iter().flatten().map(Vec::len).sum();
        prop_assert_eq!(kept as u64 + dropped, lists.iter().map(|l| l.0.len() as u64).sum::<u64>());
        for rows in &rows {
            prop_assert!(rows.iter().all(Vec::is_empty) || !rows[rows.len() - 1].is_empty());
        }
    }
}

#[test]
fn one_polarity_of_a_sensor_leaves_the_length_as_it_is() {
    let kind = SourceKind::Events { units: 8, sensor: Some(Map::new(2, 2, 2)) };
    let mut set = InMemory::empty("toy", kind, vec!["a".into()]);
    set.push(&Sample { units: vec![3, 7, 1, 4], times: vec![0.0, 0.001, 0.002, 0.004], ..Sample::default() });
    let encode = |channel| Encode::Align {
        steps: 99,
        dt_ms: 1.0,
        rule: Rule::Floor,
        half: false,
        units: 0,
        group: 1,
        side: 0,
        channel,
    };
    let source: Arc<dyn Source> = Arc::new(set);
    let load = |channel| {
        let pipeline = Arc::new(Pipeline::new(encode(channel), vec![], kind).unwrap());
        let map = pipeline.signal().map;
        let batch = load_batch(source.clone(), pipeline, LoaderOptions::default(), 0).unwrap();
        let Input::Spikes(spikes) = batch.input else { panic!("bins are spikes") };
        assert_eq!((spikes.lanes().steps, batch.dropped), (5, 0));
        (map, (0..5).map(|t| spikes.row(t).to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(load(Some(0)), (Map::new(2, 2, 1), vec![vec![3], vec![], vec![1], vec![], vec![]]));
    assert_eq!(load(Some(1)).1, [vec![], vec![3], vec![], vec![], vec![0]]);
    assert_eq!(load(None), (Map::new(2, 2, 2), vec![vec![6], vec![7], vec![2], vec![], vec![1]]));
}

#[test]
fn augmented_and_noisy_events_do_not_depend_on_their_batch() {
    let options = OpenOptions { samples: Some(30), ..OpenOptions::default() };
    let source = open("spoken-digits", "train", &options).unwrap();
    let align = Encode::Align {
        steps: 400,
        dt_ms: 4.0,
        rule: Rule::Floor,
        half: true,
        units: 0,
        group: 5,
        side: 0,
        channel: None,
    };
    let bin = Encode::Bin { steps: 200, dt_ms: 5.0, units: 0 };
    let frames = Encode::Frames { steps: 8, by: Cut::Time, side: 0 };
    for encode in [align, bin, frames] {
        let list = vec![
            Augment::Stretch { low: 0.9, high: 1.1, prob: 0.5 },
            Augment::Affine { shift: 0.1, scale: 0.3 },
            Augment::FlipNoise { snr_db: 10.0 },
            Augment::Jitter { sigma_ms: 3.0, prob: 0.5 },
        ];
        let pipeline = Arc::new(Pipeline::new(encode.clone(), list, source.kind()).unwrap());
        let rows = |batch, threads, epoch| {
            let options = LoaderOptions { batch, threads, epoch, ..options_of(7) };
            let mut all = vec![Vec::new(); 30];
            for batch in Loader::new(source.clone(), pipeline.clone(), options).unwrap() {
                let batch = batch.unwrap();
                let Input::Spikes(spikes) = &batch.input else { panic!("events are spikes") };
                let steps = spikes.lanes().steps;
                for (b, &sample) in batch.samples.iter().enumerate() {
                    let rows = (0..steps).map(|t| spikes.row(b * steps + t).to_vec());
                    // Batches differ in their empty steps at the beginning.
                    all[sample as usize] = rows.skip_while(Vec::is_empty).collect::<Vec<_>>();
                }
            }
            all
        };
        let all = rows(8, 0, 1);
        assert_eq!(rows(30, 2, 1), all, "{encode:?}");
        assert_ne!(rows(8, 0, 2), all, "{encode:?}");
        assert!(all.iter().all(|rows| rows.iter().all(|row| row.is_sorted())));
    }
}

fn options_of(seed: u64) -> LoaderOptions {
    LoaderOptions { seed, shuffle: true, ..LoaderOptions::default() }
}

#[test]
fn frames_hold_every_event_of_a_sensor() {
    let options = OpenOptions { samples: Some(3), ..OpenOptions::default() };
    let source = open("nmnist-sim", "train", &options).unwrap();
    let mut sample = Sample::default();
    let events: usize = (0..3).map(|i| source.read(i, &mut sample).map(|()| sample.units.len()).unwrap()).sum();
    for by in [Cut::Number, Cut::Time] {
        let encode = Encode::Frames { steps: 10, by, side: 0 };
        let pipeline = Arc::new(Pipeline::new(encode, vec![], source.kind()).unwrap());
        assert_eq!((pipeline.signal().map, pipeline.signal().steps), (Map::new(34, 34, 2), 10));
        let batch = load_batch(source.clone(), pipeline, LoaderOptions::default(), 0).unwrap();
        let Input::Spikes(spikes) = batch.input else { panic!("frames are spikes") };
        assert_eq!((spikes.events(), batch.dropped), (events, 0));
        if by == Cut::Number {
            let sizes: Vec<usize> = (0..10).map(|t| spikes.row(t).len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }
    let scaled = Pipeline::new(
        Encode::Frames { steps: 10, by: Cut::Time, side: 17 },
        vec![Augment::Affine { shift: 0.1, scale: 0.2 }],
        source.kind(),
    );
    let error = scaled.unwrap_err().to_string();
    assert_eq!(error, "augmentation affine: scale: 0.2 for a sensor 17x17x2, expected 0, which only moves");
}

#[test]
fn rates_are_drawn_once_for_all_epochs() {
    let source = open("yinyang-paralif", "test", &OpenOptions::default()).unwrap();
    let load = |seed, epoch| {
        let pipeline = Arc::new(Pipeline::new(Encode::Rate { steps: 400, seed }, vec![], source.kind()).unwrap());
        let options = LoaderOptions { batch: 50, epoch, seed: u64::from(epoch), ..LoaderOptions::default() };
        load_batch(source.clone(), pipeline, options, 0).unwrap()
    };
    let batch = load(3, 0);
    assert_eq!(batch.input, load(3, 9).input);
    assert_ne!(batch.input, load(4, 0).input);
    let Input::Spikes(spikes) = batch.input else { panic!("rates are spikes") };
    let dense: Vec<f32> = spikes.to_dense();
    let mut sample = Sample::default();
    for b in 0..50 {
        source.read(b, &mut sample).unwrap();
        for (unit, &rate) in sample.values.iter().enumerate() {
            let mean = (0..400).map(|t| dense[(b * 400 + t) * 4 + unit]).sum::<f32>() / 400.0;
            assert!((mean - rate).abs() < 0.13, "sample {b}, unit {unit}: {mean}, expected {rate}");
        }
    }
}

#[test]
fn columns_of_an_image_come_one_after_the_other() {
    let mut set = InMemory::empty("toy", SourceKind::Images(Map::new(2, 3, 2)), vec!["a".into()]);
    set.push(&Sample { pixels: (0..12).map(|i| 20 * i).collect(), ..Sample::default() });
    let source: Arc<dyn Source> = Arc::new(set);
    let encode = Encode::Columns { mean: vec![0.0, 0.0], std: vec![20.0 / 255.0, 10.0 / 255.0] };
    let pipeline = Arc::new(Pipeline::new(encode, vec![], source.kind()).unwrap());
    let signal = pipeline.signal();
    assert_eq!((signal.kind, signal.steps, signal.map), (Kind::Sequence, 3, Map::new(2, 1, 2)));
    let batch = load_batch(source, pipeline, LoaderOptions::default(), 0).unwrap();
    let Input::Sequence(values) = batch.input else { panic!("columns are a sequence") };
    let rounded: Vec<f32> = values.iter().map(|v| v.round()).collect();
    assert_eq!(rounded, [0.0, 2.0, 6.0, 14.0, 2.0, 6.0, 8.0, 18.0, 4.0, 10.0, 10.0, 22.0]);
}

#[test]
fn repeat_gives_the_normalised_image_once() {
    let mut set = InMemory::empty("toy", SourceKind::Images(Map::new(1, 1, 3)), vec!["a".into()]);
    set.push(&Sample { pixels: vec![255, 0, 51], ..Sample::default() });
    let source: Arc<dyn Source> = Arc::new(set);
    let encode = Encode::Repeat { steps: 4, mean: vec![0.5, 0.0, 0.2], std: vec![0.5, 1.0, 0.1] };
    let pipeline = Arc::new(Pipeline::new(encode, vec![], source.kind()).unwrap());
    assert_eq!((pipeline.signal().kind, pipeline.signal().steps), (Kind::Values, 4));
    let batch = load_batch(source, pipeline, LoaderOptions::default(), 0).unwrap();
    assert_eq!(batch.input, Input::Values(vec![1.0, 0.0, 0.0]));
}

fn values_of(kind: SourceKind, sample: Sample, encode: Encode, augment: Vec<Augment>) -> Vec<f32> {
    let mut set = InMemory::empty("toy", kind, vec!["a".into()]);
    set.push(&sample);
    let source: Arc<dyn Source> = Arc::new(set);
    let pipeline = Arc::new(Pipeline::new(encode, augment, source.kind()).unwrap());
    let signal = pipeline.signal();
    let map = if let SourceKind::Images(map) = kind { map } else { Map::new(1, 1, sample.values.len()) };
    assert_eq!((signal.kind, signal.steps, signal.map), (Kind::Values, 1, map));
    let Input::Values(values) = load_batch(source, pipeline, LoaderOptions::default(), 0).unwrap().input else {
        panic!("values are values")
    };
    values
}

fn values(mean: &[f32], std: &[f32], low: f32, high: f32) -> Encode {
    Encode::Values { mean: mean.to_vec(), std: std.to_vec(), low, high }
}

#[test]
fn values_are_standardised_then_moved_to_their_range() {
    let pixel = SourceKind::Images(Map::new(1, 1, 3));
    let sample = || Sample { pixels: vec![255, 0, 51], ..Sample::default() };
    let get = |encode| values_of(pixel, sample(), encode, vec![]);
    assert_eq!(get(values(&[], &[], 0.0, 1.0)), [1.0, 0.0, 51.0 / 255.0]);
    assert_eq!(get(values(&[0.5], &[0.5], -1.0, 1.0))[..2], [1.0, 0.0]);
    assert_eq!(get(values(&[0.5, 0.0, 0.2], &[0.5, 1.0, 0.1], -1.0, 3.0)), [0.5, 0.25, 0.25]);
    // The published constants of CIFAR-10, there on values up to 255.
    let got = get(values(&[120.707 / 255.0], &[64.15 / 255.0], -3.0, 3.0));
    for (x, v) in got.iter().zip([255.0, 0.0, 51.0_f64]) {
        let want = ((v - 120.707) / (64.15 + 1e-7) + 3.0) / 6.0;
        assert!((f64::from(*x) - want).abs() < 2e-7, "{x}, expected {want}");
    }
}

#[test]
fn values_of_vectors_take_one_constant_or_one_for_each() {
    let sample = || Sample { values: vec![0.25, 0.5], ..Sample::default() };
    let get = |encode| values_of(SourceKind::Vectors(2), sample(), encode, vec![]);
    assert_eq!(get(values(&[], &[], 0.0, 0.5)), [0.5, 1.0]);
    assert_eq!(get(values(&[0.25], &[0.25], 0.0, 1.0)), [0.0, 1.0]);
    assert_eq!(get(values(&[0.25, 0.0], &[1.0, 0.25], 0.0, 1.0)), [0.0, 2.0]);
}

#[test]
fn background_of_augmented_values_is_the_mean_colour() {
    let (side, grey) = (6, 204_u8);
    let kind = SourceKind::Images(Map::new(side, side, 1));
    let sample = Sample { pixels: vec![grey; side * side], ..Sample::default() };
    let encode = values(&[0.5], &[0.25], -3.0, 3.0);
    let inside = ((f32::from(grey) / 255.0 - 0.5) / 0.25 + 3.0) / 6.0;
    let erase = Augment::Erase { prob: 1.0, low: 0.2, high: 0.3 };
    for step in [Augment::Crop { padding: 5 }, erase, Augment::Elastic { points: 3, sigma: 4.0 }] {
        let got = values_of(kind, sample.clone(), encode.clone(), vec![step.clone()]);
        assert!(got.iter().all(|x| *x == 0.5 || (x - inside).abs() < 1e-6), "{step:?}: {got:?}");
        assert!(got.contains(&0.5), "{step:?}");
    }
    // An augmentation that moves nothing leaves the same values as none.
    let still = values_of(kind, sample.clone(), encode.clone(), vec![Augment::Crop { padding: 0 }]);
    assert_eq!(still, values_of(kind, sample, encode, vec![]));
}

#[test]
fn values_that_cannot_be_are_refused_with_numbers() {
    let (images, vectors) = (SourceKind::Images(Map::new(2, 2, 3)), SourceKind::Vectors(4));
    let events = SourceKind::Events { units: 700, sensor: None };
    let spikes = SourceKind::Spikes { steps: 5, width: 3 };
    for (kind, encode, want) in [
        (events, values(&[], &[], 0.0, 1.0), "encoding values: events of 700 units, expected images or vectors"),
        (events, values(&[0.1, 0.2], &[0.1, 0.2], 0.0, 1.0), "events of 700 units, expected images or vectors"),
        (spikes, values(&[], &[], 0.0, 1.0), ", expected images or vectors"),
        (images, values(&[0.1, 0.2], &[0.1, 0.2], 0.0, 1.0), "2 means, 2 deviations, expected none, one of each, or"),
        (images, values(&[0.1], &[], 0.0, 1.0), "1 means, 0 deviations, expected none"),
        (images, values(&[], &[1.0], 0.0, 1.0), "0 means, 1 deviations, expected none"),
        (vectors, values(&[0.1; 3], &[0.1; 3], 0.0, 1.0), "one of each for all 4 channels"),
        (images, values(&[0.1], &[0.0], 0.0, 1.0), "expected finite, std above 0"),
        (images, values(&[f32::NAN], &[1.0], 0.0, 1.0), "expected finite, std above 0"),
        (images, values(&[], &[], 1.0, 1.0), "low, high: 1, 1, expected finite numbers, high above low"),
        (images, values(&[], &[], 2.0, 1.0), "high above low"),
        (images, values(&[], &[], f32::NAN, 1.0), "high above low"),
        (images, values(&[], &[], -3e38, 3e38), "high above low"),
        (images, values(&[], &[], 0.0, f32::INFINITY), "high above low"),
    ] {
        let got = Pipeline::new(encode, vec![], kind).map(|_| ()).unwrap_err().to_string();
        assert!(got.contains(want), "{got} is not {want}");
    }
}

#[test]
fn ready_spikes_pass_unchanged() {
    let source =
        open("synthetic-poisson", "test", &OpenOptions { samples: Some(2), ..OpenOptions::default() }).unwrap();
    let pipeline = Arc::new(Pipeline::new(Encode::Ready, vec![], source.kind()).unwrap());
    let batch = load_batch(source.clone(), pipeline, LoaderOptions::default(), 0).unwrap();
    let Input::Spikes(spikes) = batch.input else { panic!("spikes stay spikes") };
    let mut sample = Sample::default();
    source.read(1, &mut sample).unwrap();
    for t in 0..100 {
        assert_eq!(spikes.row(100 + t), &sample.units[sample.offsets[t]..sample.offsets[t + 1]]);
    }
}

fn trains(batch: snn_data::Batch) -> snn_core::Events {
    let Input::Trains(events) = batch.input else { panic!("spike times are trains") };
    events
}

#[test]
fn images_fire_once_for_each_pixel_the_earlier_the_brighter() {
    let source = images(9);
    let encode = Encode::Times { window_ms: 100.0, most: 1 };
    let plain = Arc::new(Pipeline::new(encode.clone(), vec![], source.kind()).unwrap());
    assert_eq!((plain.signal().kind, plain.signal().steps), (Kind::Trains, 1));
    let options = LoaderOptions { batch: 9, ..LoaderOptions::default() };
    let events = trains(load_batch(source.clone(), plain, options.clone(), 0).unwrap());
    let mut sample = Sample::default();
    for index in 0..9 {
        source.read(index, &mut sample).unwrap();
        let (times, units) = events.sample(index);
        assert_eq!(times.len(), sample.pixels.iter().filter(|p| **p > 0).count(), "black pixels are silent");
        assert!(times.is_sorted() && !times.is_empty());
        for (&time, &unit) in times.iter().zip(units) {
            let want = (0.1 * (1.0 - f64::from(sample.pixels[unit as usize]) / 255.0)) as f32;
            assert_eq!(time, want);
        }
    }
    // What augmentation leaves as it is has the same spikes, but for the rounding of grey values.
    let still = Augment::Elastic { points: 2, sigma: 0.0 };
    let augmented = Arc::new(Pipeline::new(encode, vec![still], source.kind()).unwrap());
    let same = trains(load_batch(source, augmented, options, 0).unwrap());
    for index in 0..9 {
        let (a, b) = (events.sample(index), same.sample(index));
        assert!(a.0.iter().zip(b.0).all(|(x, y)| (x - y).abs() < 1e-6) && a.0.len() == b.0.len());
    }
}

#[test]
fn recordings_keep_their_times() {
    let mut source = InMemory::empty("events", SourceKind::Events { units: 3, sensor: None }, vec!["0".into()]);
    let (times, units) = (vec![0.3, 0.1, 0.1, 0.2, 0.9], vec![0, 2, 1, 0, 1]);
    source.push(&Sample { units, times, ..Sample::default() });
    let source: Arc<dyn Source> = Arc::new(source);
    let load = |most: usize, list: Vec<Augment>| {
        let encode = Encode::Times { window_ms: 500.0, most };
        let pipeline = Arc::new(Pipeline::new(encode, list, source.kind()).unwrap());
        let batch = load_batch(source.clone(), pipeline, LoaderOptions::default(), 0).unwrap();
        let dropped = batch.dropped;
        let events = trains(batch);
        let (times, units) = events.sample(0);
        (times.to_vec(), units.to_vec(), dropped)
    };
    assert_eq!(load(9, vec![]), (vec![0.1, 0.1, 0.2, 0.3], vec![1, 2, 0, 0], 1));
    assert_eq!(load(1, vec![]), (vec![0.1, 0.1, 0.2], vec![1, 2, 0], 2), "the first ones of each unit are kept");
    let stretch = Augment::Stretch { low: 2.0, high: 2.0, prob: 1.0 };
    assert_eq!(load(9, vec![stretch]).0, [0.2, 0.2, 0.4]);
    let noise = vec![Augment::FlipNoise { snr_db: 3.0 }];
    let error = Pipeline::new(Encode::Times { window_ms: 5.0, most: 1 }, noise, source.kind()).unwrap_err();
    assert!(error.to_string().contains("flip-noise"), "{error}");
}

#[test]
fn toy_of_two_orders_is_what_it_says() {
    let source = open("spike-order", "test", &OpenOptions::default()).unwrap();
    let mut sample = Sample::default();
    let mut read = |index| {
        source.read(index, &mut sample).unwrap();
        (sample.label, sample.times.clone(), sample.units.clone())
    };
    assert_eq!(read(0), (0, vec![0.0, 0.0, 1.0, 2.0], vec![0, 1, 2, 3]));
    assert_eq!(read(1), (1, vec![0.0, 0.0, 1.0, 2.0], vec![0, 1, 3, 2]));
    assert_eq!(source.len(), 2);
}

#[test]
fn stretch_and_jitter_move_events() {
    let options = OpenOptions { samples: Some(20), ..OpenOptions::default() };
    let source = open("spoken-digits", "train", &options).unwrap();
    let encode = Encode::Bin { steps: 300, dt_ms: 5.0, units: 700 };
    let load = |list| {
        let pipeline = Arc::new(Pipeline::new(encode.clone(), list, source.kind()).unwrap());
        load_batch(source.clone(), pipeline, LoaderOptions::default(), 0).unwrap()
    };
    let plain = load(vec![]);
    let moved =
        load(vec![Augment::Jitter { sigma_ms: 6.0, prob: 1.0 }, Augment::Stretch { low: 0.9, high: 1.1, prob: 1.0 }]);
    let (Input::Spikes(a), Input::Spikes(b)) = (&plain.input, &moved.input) else { panic!("bins are spikes") };
    assert_ne!(a, b);
    // A few events near the start may be moved before it.
    assert!(b.events() <= a.events() && b.events() + 50 > a.events(), "{} of {}", b.events(), a.events());
    assert_eq!(load(vec![Augment::Jitter { sigma_ms: 6.0, prob: 0.0 }]), plain);
}

/// A source that fails at one sample and counts what is read.
#[derive(Debug)]
struct Fragile {
    inner: Arc<dyn Source>,
    bad: usize,
    panics: bool,
    reads: AtomicUsize,
}

impl Source for Fragile {
    fn name(&self) -> &str {
        "fragile"
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }
    fn label(&self) -> Option<&str> {
        None
    }
    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }
    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(!(self.panics && index == self.bad), "on purpose");
        if index == self.bad {
            return Err(Error::Index { set: "fragile".into(), index, len: 0 });
        }
        self.inner.read(index, into)
    }
}

fn fragile(bad: usize, panics: bool) -> (Arc<Fragile>, Arc<Pipeline>) {
    let inner = images(200);
    let pipeline = augmented(&*inner);
    (Arc::new(Fragile { inner, bad, panics, reads: AtomicUsize::new(0) }), pipeline)
}

#[test]
fn an_error_in_the_background_ends_the_epoch_where_it_happens() {
    for threads in [0, 1, 3] {
        let (source, pipeline) = fragile(70, false);
        let options = LoaderOptions { batch: 10, threads, ..LoaderOptions::default() };
        let results: Vec<_> = Loader::new(source, pipeline, options).unwrap().collect();
        assert_eq!(results.len(), 8);
        assert!(results[..7].iter().all(Result::is_ok));
        assert!(matches!(results[7], Err(Error::Index { index: 70, .. })));
    }
}

#[test]
fn a_panic_in_the_background_is_an_error_of_its_batch() {
    let (source, pipeline) = fragile(25, true);
    let options = LoaderOptions { batch: 10, ..LoaderOptions::default() };
    let results: Vec<_> = Loader::new(source, pipeline, options).unwrap().collect();
    assert_eq!(results.len(), 3);
    assert!(matches!(results[2], Err(Error::LoaderStopped { batch: 2 })));
}

#[test]
fn dropping_a_loader_ends_its_threads() {
    let (source, pipeline) = fragile(usize::MAX, false);
    let options = LoaderOptions { batch: 10, threads: 2, prefetch: 2, ..LoaderOptions::default() };
    let mut loader = Loader::new(source.clone(), pipeline, options).unwrap();
    loader.next().unwrap().unwrap();
    drop(loader);
    // The threads held the only other references, and nothing more is read.
    assert_eq!(Arc::strong_count(&source), 1);
    assert!(source.reads.load(Ordering::Relaxed) < 200);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let source = images(10);
    let text = |r: Result<Pipeline>| r.unwrap_err().to_string();
    let bin = Encode::Bin { steps: 10, dt_ms: 1.0, units: 0 };
    let kind = source.kind();
    assert_eq!(text(Pipeline::new(bin, vec![], kind)), "encoding bin: images 28x28x1, expected events");
    assert_eq!(
        text(Pipeline::new(Encode::Latency { steps: 0 }, vec![], kind)),
        "encoding latency: steps: 0, expected 1..=1048576"
    );
    let latency = || Encode::Latency { steps: 4 };
    let events = SourceKind::Events { units: 700, sensor: None };
    assert_eq!(
        text(Pipeline::new(latency(), vec![], events)),
        "encoding latency: events of 700 units, expected images or vectors"
    );
    assert!(text(Pipeline::new(Encode::Ready, vec![], kind)).contains("expected spikes"));
    let dt = Encode::Bin { steps: 10, dt_ms: f32::NAN, units: 0 };
    assert!(text(Pipeline::new(dt, vec![], events)).contains("encoding bin: dt_ms: NaN"));
    let repeat = Encode::Repeat { steps: 4, mean: vec![0.5], std: vec![] };
    assert!(text(Pipeline::new(repeat, vec![], kind)).contains("1 means, 0 deviations"));
    let repeat = Encode::Repeat { steps: 4, mean: vec![0.5], std: vec![0.0] };
    assert!(text(Pipeline::new(repeat, vec![], kind)).contains("std above 0"));
    for (list, want) in [
        (Augment::Flip { prob: 1.5 }, "augmentation flip: prob: 1.5, expected 0..=1"),
        (Augment::Jitter { sigma_ms: 1.0, prob: 1.0 }, "augmentation jitter: images 28x28x1, expected events"),
        (Augment::Perspective { distortion: -0.1, prob: 1.0 }, "augmentation perspective: distortion: -0.1"),
    ] {
        let got = text(Pipeline::new(latency(), vec![list], kind));
        assert!(got.contains(want), "{got}");
    }
    let stretch = Augment::Stretch { low: 1.1, high: 0.9, prob: 1.0 };
    let bin = Encode::Bin { steps: 10, dt_ms: 1.0, units: 0 };
    assert!(text(Pipeline::new(bin, vec![stretch], events)).contains("stretch: high"));

    let pipeline = Arc::new(Pipeline::new(latency(), vec![], SourceKind::Vectors(4)).unwrap());
    let wrong = Loader::new(source.clone(), pipeline, options()).unwrap_err().to_string();
    assert_eq!(wrong, "data set digits-sim/train: images 28x28x1, expected vectors of 4 values");
    let pipeline = Arc::new(Pipeline::new(latency(), vec![], kind).unwrap());
    let new = |options| Loader::new(source.clone(), pipeline.clone(), options).map(|_| ()).unwrap_err().to_string();
    assert_eq!(new(LoaderOptions { batch: 0, ..options() }), "batch size: 0, expected at least 1");
    assert_eq!(new(LoaderOptions { first_batch: 2, ..options() }), "first batch: 2, expected at most 1");
    assert!(new(LoaderOptions { limit: Some(0), ..options() }).contains("0 samples"));
    assert!(load_batch(source, pipeline, options(), 1).unwrap_err().to_string().contains("batch: 1, expected below 1"));
}
