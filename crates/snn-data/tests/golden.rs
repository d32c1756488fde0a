//! Binning, augmentation, padding and Yin-Yang against the numbers of the original implementations, all of them exact.

use std::path::Path;
use std::sync::Arc;

use snn_core::Spikes;
use snn_core::testkit::golden::{Array, Case, Precision, read_index};
use snn_data::synth::yinyang;
use snn_data::transforms::bins::{Arithmetic, Edges};
use snn_data::transforms::raster::{Affine, Events};
use snn_data::{
    Encode, InMemory, Input, LoaderOptions, OpenOptions, Pipeline, Rule, Sample, SourceKind, load_batch, open,
};

/// Runs every case of a kind and finishes it.
fn cases(kind: &str, run: impl Fn(&Case)) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../snn-core/golden/paralif"));
    let index = read_index(folder).unwrap();
    let all: Vec<_> = index.cases.iter().filter(|c| c.kind == kind).collect();
    assert!(!all.is_empty(), "no case of kind {kind}");
    for entry in all {
        let case = Case::open(folder, entry, Precision::Single).unwrap();
        run(&case);
        case.finish().unwrap_or_else(|failures| panic!("{}: {failures:#?}", entry.file));
    }
}

fn scalar(case: &Case, name: &str) -> f64 {
    case.array(name).unwrap().data[0]
}

fn numbers(values: impl IntoIterator<Item = usize>) -> Vec<f64> {
    values.into_iter().map(|v| v as f64).collect()
}

/// The events of a dense image of counts.
fn events(image: &Array) -> Events {
    let mut events = Events::default();
    for (at, &count) in image.data.iter().enumerate() {
        for _ in 0..count as usize {
            events.push((at / image.shape[1]) as u32, (at % image.shape[1]) as u32);
        }
    }
    events
}

fn dense(steps: usize, width: usize, events: &Events) -> Vec<f64> {
    let mut image = vec![0.0; steps * width];
    events.steps.iter().zip(&events.units).for_each(|(&s, &u)| image[s as usize * width + u as usize] += 1.0);
    image
}

/// Samples through the loader that training uses, in one batch.
fn load(width: usize, samples: &[Sample], encode: Encode) -> Spikes {
    let kind = SourceKind::Events { units: width, sensor: None };
    let mut source = InMemory::empty("golden", kind, vec!["0".into()]);
    samples.iter().for_each(|s| source.push(s));
    let pipeline = Pipeline::new(encode, vec![], kind).unwrap();
    let options = LoaderOptions { batch: samples.len(), ..LoaderOptions::default() };
    match load_batch(Arc::new(source), Arc::new(pipeline), options, 0).unwrap().input {
        Input::Spikes(spikes) => spikes,
        other => panic!("{other:?}"),
    }
}

fn align(rule: Rule, dt_ms: f32, half: bool) -> Encode {
    Encode::Align { steps: 4096, dt_ms, rule, half, units: 0, group: 1, side: 0, channel: None }
}

#[test]
fn augmented_images_are_those_of_the_original() {
    cases("augment", |case| {
        let (mut affine, mut out) = (Affine::default(), Events::default());
        for prefix in case.option::<Vec<String>>("prefixes").unwrap() {
            let image = case.array(&format!("{prefix}in")).unwrap();
            let [steps, width] = image.shape[..] else { panic!("{prefix}in has shape {:?}", image.shape) };
            let (shift, scale) = (scalar(case, &format!("{prefix}tx")), scalar(case, &format!("{prefix}scale")));
            affine.set(steps, width, shift, scale);
            affine.apply(&events(image), &mut out);
            case.compare(&format!("{prefix}out"), &dense(steps, width, &out));
        }
        pad(case);
    });
}

/// Shorter samples come after empty steps: an event in every last step keeps each image its length.
fn pad(case: &Case) {
    let names: Vec<String> = case.option("pad_inputs").unwrap();
    let images: Vec<&Array> = names.iter().map(|name| case.array(name).unwrap()).collect();
    let width = images[0].shape[1];
    let samples: Vec<Sample> = images
        .iter()
        .map(|image| {
            let Events { steps, units } = events(image);
            let times = steps.iter().map(|&s| (s as f32 + 0.5) * 1e-3).collect();
            assert_eq!(*steps.last().unwrap() as usize + 1, image.shape[0], "the last step has an event");
            Sample { units, times, ..Sample::default() }
        })
        .collect();
    case.compare("pad/out", &load(width, &samples, align(Rule::Floor, 1.0, false)).to_dense());
}

#[derive(serde::Deserialize)]
struct Stored {
    prefix: String,
    arithmetic: String,
}

#[derive(serde::Deserialize)]
struct Scheme {
    name: String,
    rule: String,
    #[serde(default)]
    unit: f64,
    window: f64,
}

#[test]
fn bins_are_those_of_the_original() {
    cases("binning", |case| {
        let count: usize = case.option("n_samples").unwrap();
        for stored in case.option::<Vec<Stored>>("stored").unwrap() {
            for scheme in case.option::<Vec<Scheme>>("schemes").unwrap() {
                bin(case, count, &stored, &scheme);
            }
        }
    });
}

fn bin(case: &Case, count: usize, stored: &Stored, scheme: &Scheme) {
    let prefix = &stored.prefix;
    let arithmetic = match stored.arithmetic.as_str() {
        "float16" => Arithmetic::Half,
        "float32" => Arithmetic::Single,
        "float64" => Arithmetic::Double,
        other => panic!("arithmetic {other}"),
    };
    let array = |name: &str, i: usize| case.array(&format!("{prefix}{name}{i}")).unwrap();
    let spsn = scheme.rule == "spsn";
    let unit = if spsn { scheme.unit } else { scheme.window };
    let quotients: Vec<Vec<f64>> =
        (0..count).map(|i| array("times", i).data.iter().map(|&t| arithmetic.quotient(t, unit)).collect()).collect();
    let bins: Vec<Vec<usize>> = if spsn {
        let largest = quotients.iter().flatten().copied().fold(0.0, f64::max);
        let edges = Edges::new(largest, scheme.window);
        case.compare(&format!("{prefix}{}/max_duration", scheme.name), &[largest.floor()]);
        case.compare(&format!("{prefix}{}/max_bin", scheme.name), &[edges.count() as f64]);
        quotients.iter().map(|q| q.iter().map(|&q| edges.bin(q)).collect()).collect()
    } else {
        quotients.iter().map(|q| q.iter().map(|&q| Rule::Floor.bin(q)).collect()).collect()
    };
    for (i, bins) in bins.iter().enumerate() {
        let name = format!("{prefix}{}", scheme.name);
        case.compare(&format!("{name}/bins{i}"), &numbers(bins.iter().copied()));
        case.compare(&format!("{name}/steps{i}"), &numbers(bins.iter().max().map(|most| most + 1)));
    }
    assert!((0..count).all(|i| array("units", i).data.iter().all(|&u| u < 700.0)));
    // The loader gives the same where it holds such times and has such a rule.
    if arithmetic != Arithmetic::Double && (!spsn || scheme.window == 1.0) {
        let rule = if spsn { Rule::Ceil } else { Rule::Floor };
        let encode = align(rule, (unit * 1000.0) as f32, arithmetic == Arithmetic::Half);
        let samples: Vec<Sample> = (0..count)
            .map(|i| {
                let units = array("units", i).data.iter().map(|&u| u as u32).collect();
                let times = array("times", i).data.iter().map(|&t| t as f32).collect();
                Sample { units, times, ..Sample::default() }
            })
            .collect();
        let spikes = load(700, &samples, encode);
        let steps = spikes.lanes().steps;
        for (i, (sample, bins)) in samples.iter().zip(&bins).enumerate() {
            let own = bins.iter().max().unwrap() + 1;
            let mut want: Vec<_> = bins.iter().zip(&sample.units).map(|(b, &u)| (steps - own + b, u)).collect();
            want.sort_unstable();
            let got: Vec<_> = (0..steps).flat_map(|t| spikes.row(i * steps + t).iter().map(move |&u| (t, u))).collect();
            assert_eq!(got, want, "{prefix}{} {i}", scheme.name);
        }
    }
}

#[test]
fn yinyang_is_that_of_the_original() {
    cases("yinyang", |case| {
        for (split, first) in [("train", 64), ("test", 16)] {
            let (seed, size) =
                (case.option(&format!("{split}_seed")).unwrap(), case.option(&format!("{split}_size")).unwrap());
            let (points, labels) = yinyang::samples(seed, size);
            let values: Vec<f64> = points[..first].iter().flatten().map(|&v| f64::from(v)).collect();
            assert_eq!(values, case.array(&format!("{split}_vals_first{first}")).unwrap().data, "to the bit");
            let classes: Vec<f64> = labels.iter().map(|&l| f64::from(l)).collect();
            case.compare(&format!("{split}_class_first{first}"), &classes[..first]);
            let counts = (0..3).map(|class| labels.iter().filter(|&&l| l == class).count());
            case.compare(&format!("{split}_class_counts"), &numbers(counts));
            let source = open("yinyang-paralif", split, &OpenOptions::default()).unwrap();
            let mut sample = Sample::default();
            source.read(size - 1, &mut sample).unwrap();
            assert_eq!((source.len(), sample.values.as_slice()), (size, points[size - 1].as_slice()));
        }
    });
}
