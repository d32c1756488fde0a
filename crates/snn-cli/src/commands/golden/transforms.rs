//! Runners of what happens on the host: encodings, augmentation, generated data.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Deserialize;
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Map, Spikes};
use snn_data::transforms::augment::warp_perspective;
use snn_data::transforms::bins::{Arithmetic, Edges, Rule};
use snn_data::transforms::encode::{latency_step, normalise};
use snn_data::transforms::raster::{Affine, Events};
use snn_data::{Encode, InMemory, Input, Loader, LoaderOptions, Pipeline, Sample, SourceKind, synth};

#[derive(Deserialize)]
struct ByteTable {
    #[serde(rename = "T")]
    steps: usize,
    array: String,
}

#[derive(Deserialize)]
struct Binning {
    name: String,
    #[serde(rename = "T")]
    steps: usize,
    dt_ms: f32,
    n_units: usize,
}

#[derive(Deserialize)]
struct Normalise {
    mean: Vec<f32>,
    std: Vec<f32>,
}

#[derive(Deserialize)]
struct Perspective {
    start: [[f64; 2]; 4],
    end: [[f64; 2]; 4],
}

/// Samples through the loader that training uses.
fn encode(kind: SourceKind, samples: &[Sample], encode: Encode) -> Result<Spikes> {
    let mut source = InMemory::empty("golden", kind, vec!["0".into()]);
    samples.iter().for_each(|s| source.push(s));
    let pipeline = Pipeline::new(encode, vec![], kind)?;
    let options = LoaderOptions { batch: samples.len(), ..LoaderOptions::default() };
    match Loader::new(Arc::new(source), Arc::new(pipeline), options)?.next() {
        Some(batch) => match batch?.input {
            Input::Spikes(spikes) => Ok(spikes),
            Input::Values(_) | Input::Sequence(_) | Input::Trains(_) => bail!("the encoding gave values, not spikes"),
        },
        None => bail!("the loader gave no batch"),
    }
}

pub(super) fn transforms(case: &Case) -> Result<()> {
    for table in case.option::<Vec<ByteTable>>("byte_tables")? {
        let times: Vec<f64> =
            (0..=255_u8).map(|byte| latency_step(f32::from(byte) / 255.0, table.steps) as f64).collect();
        case.compare(&table.array, &times);
    }

    let images = case.array("img_u8")?;
    let [count, c, h, w] = images.shape[..] else { bail!("img_u8 has shape {:?}", images.shape) };
    let pixels = images.permuted(&[0, 2, 3, 1]);
    let samples: Vec<Sample> = pixels
        .data
        .chunks(c * h * w)
        .map(|image| Sample { pixels: image.iter().map(|&v| v as u8).collect(), ..Sample::default() })
        .collect();
    let steps: usize = case.option("image_T")?;
    let spikes = encode(SourceKind::Images(Map::new(h, w, c)), &samples, Encode::Latency { steps })?;
    let dense = Array { shape: vec![count, steps, h, w, c], data: spikes.to_dense() };
    case.compare("img_spikes_cthw", &dense.permuted(&[0, 4, 1, 2, 3]).data);
    // Flat, the units are ordered channel, row, column, and time comes last.
    case.compare("img_spikes_flat", &dense.permuted(&[0, 4, 2, 3, 1]).data);

    let vectors = case.array("vec_values")?;
    let width = vectors.shape[1];
    let samples: Vec<Sample> = vectors
        .data
        .chunks(width)
        .map(|v| Sample { values: v.iter().map(|&x| x as f32).collect(), ..Sample::default() })
        .collect();
    let steps: usize = case.option("vector_T")?;
    let spikes = encode(SourceKind::Vectors(width), &samples, Encode::Latency { steps })?;
    case.compare("vec_times", &times_of(&spikes));

    for binning in case.option::<Vec<Binning>>("binning")? {
        let name = &binning.name;
        let units: Vec<u32> = case.array(&format!("{name}_units"))?.data.iter().map(|&u| u as u32).collect();
        let times: Vec<f32> = case.array(&format!("{name}_times_s"))?.data.iter().map(|&t| t as f32).collect();
        let most = units.iter().max().map_or(0, |&u| u as usize + 1);
        let kind = SourceKind::Events { units: most.max(binning.n_units), sensor: None };
        let bin = Encode::Bin { steps: binning.steps, dt_ms: binning.dt_ms, units: binning.n_units };
        let spikes = encode(kind, &[Sample { units, times, ..Sample::default() }], bin)?;
        // Entries come in order of unit, then time.
        let counts = Array { shape: vec![binning.steps, binning.n_units], data: spikes.to_dense() }.permuted(&[1, 0]);
        let active: Vec<(usize, f64)> = counts.data.iter().copied().enumerate().filter(|e| e.1 > 0.0).collect();
        let of = |f: &dyn Fn(usize, f64) -> f64| active.iter().map(|&(i, n)| f(i, n)).collect::<Vec<f64>>();
        case.compare(&format!("{name}_nz_unit"), &of(&|i, _| (i / binning.steps) as f64));
        case.compare(&format!("{name}_nz_time"), &of(&|i, _| (i % binning.steps) as f64));
        case.compare(&format!("{name}_nz_count"), &of(&|_, n| n));
    }

    let image = case.array("cifar_u8")?;
    let [c, h, w] = image.shape[..] else { bail!("cifar_u8 has shape {:?}", image.shape) };
    let mut pixels: Vec<f32> = image.permuted(&[1, 2, 0]).data.iter().map(|&v| v as u8 as f32 / 255.0).collect();
    let constants: Normalise = case.option("normalise")?;
    normalise(&mut pixels, &constants.mean, &constants.std);
    case.compare("cifar_norm_f32", &channels_first(h, w, c, &pixels));

    let image = case.array("persp_img")?;
    let [c, h, w] = image.shape[..] else { bail!("persp_img has shape {:?}", image.shape) };
    let pixels: Vec<f32> = image.permuted(&[1, 2, 0]).data.iter().map(|&v| v as f32).collect();
    let corners: Perspective = case.option("perspective")?;
    let mut out = vec![0.0; pixels.len()];
    warp_perspective(Map::new(h, w, c), &pixels, &corners.start, &corners.end, &mut out);
    case.compare("persp_out_f32", &channels_first(h, w, c, &out));
    Ok(())
}

fn channels_first(h: usize, w: usize, c: usize, pixels: &[f32]) -> Vec<f64> {
    let data = pixels.iter().map(|&p| f64::from(p)).collect();
    Array { shape: vec![h, w, c], data }.permuted(&[2, 0, 1]).data
}

/// The step of every unit's one spike, `[B, N]`.
fn times_of(spikes: &Spikes) -> Vec<f64> {
    let lanes = spikes.lanes();
    let mut times = vec![f64::NAN; lanes.batch * lanes.width];
    for row in 0..lanes.rows() {
        for &unit in spikes.row(row) {
            times[row / lanes.steps * lanes.width + unit as usize] = (row % lanes.steps) as f64;
        }
    }
    times
}

#[derive(Deserialize)]
struct YinYangSet {
    name: String,
    seed: u32,
    start_index: usize,
    count: usize,
    times_array: String,
}

pub(super) fn yinyang(case: &Case) -> Result<()> {
    let steps: usize = case.option("T")?;
    for set in case.option::<Vec<YinYangSet>>("sets")? {
        let (points, labels) = synth::yinyang::samples(set.seed, set.start_index + set.count);
        let (points, labels) = (&points[set.start_index..], &labels[set.start_index..]);
        let name = &set.name;
        case.compare(&format!("{name}_x"), &points.iter().flatten().map(|&v| f64::from(v)).collect::<Vec<_>>());
        case.compare(&format!("{name}_label"), &labels.iter().map(|&l| f64::from(l)).collect::<Vec<_>>());
        let samples: Vec<Sample> = points.iter().map(|p| Sample { values: p.to_vec(), ..Sample::default() }).collect();
        let spikes = encode(SourceKind::Vectors(4), &samples, Encode::Latency { steps })?;
        case.compare(&set.times_array, &times_of(&spikes));
    }
    Ok(())
}

/// The events of a dense image `[T, N]` of counts.
fn events(image: &Array) -> Events {
    let mut events = Events::default();
    for (at, &count) in image.data.iter().enumerate() {
        for _ in 0..count as usize {
            events.push((at / image.shape[1]) as u32, (at % image.shape[1]) as u32);
        }
    }
    events
}

/// The kind `augment`: images moved and scaled, and a batch of samples that end together.
pub(super) fn affine(case: &Case) -> Result<()> {
    let (mut affine, mut out) = (Affine::default(), Events::default());
    for prefix in case.option::<Vec<String>>("prefixes")? {
        let image = case.array(&format!("{prefix}in"))?;
        let [steps, width] = image.shape[..] else { bail!("{prefix}in has shape {:?}", image.shape) };
        let scalar = |name: &str| case.array(&format!("{prefix}{name}")).map(|a| a.data[0]);
        affine.set(steps, width, scalar("tx")?, scalar("scale")?);
        affine.apply(&events(image), &mut out);
        let mut dense = vec![0.0; steps * width];
        out.steps.iter().zip(&out.units).for_each(|(&s, &u)| dense[s as usize * width + u as usize] += 1.0);
        case.compare(&format!("{prefix}out"), &dense);
    }
    let names: Vec<String> = case.option("pad_inputs")?;
    let mut samples = Vec::new();
    let mut width = 0;
    for name in names {
        let image = case.array(&name)?;
        width = image.shape[1];
        let Events { steps, units } = events(image);
        let times = steps.iter().map(|&s| (s as f32 + 0.5) * 1e-3).collect();
        samples.push(Sample { units, times, ..Sample::default() });
    }
    let kind = SourceKind::Events { units: width, sensor: None };
    case.compare("pad/out", &encode(kind, &samples, align(Rule::Floor, 1.0, false))?.to_dense());
    Ok(())
}

fn align(rule: Rule, dt_ms: f32, half: bool) -> Encode {
    Encode::Align { steps: 4096, dt_ms, rule, half, units: 0, group: 1, side: 0, channel: None }
}

#[derive(Deserialize)]
struct Stored {
    prefix: String,
    arithmetic: String,
}

#[derive(Deserialize)]
struct Scheme {
    name: String,
    rule: String,
    #[serde(default)]
    unit: f64,
    window: f64,
}

/// The kind `binning`: event times to bins, in each arithmetic and scheme.
pub(super) fn binning(case: &Case) -> Result<()> {
    let count: usize = case.option("n_samples")?;
    for Stored { prefix, arithmetic } in case.option::<Vec<Stored>>("stored")? {
        let arithmetic = match arithmetic.as_str() {
            "float16" => Arithmetic::Half,
            "float32" => Arithmetic::Single,
            "float64" => Arithmetic::Double,
            other => bail!("unknown arithmetic `{other}`"),
        };
        for scheme in case.option::<Vec<Scheme>>("schemes")? {
            let name = format!("{prefix}{}", scheme.name);
            let spsn = scheme.rule == "spsn";
            let unit = if spsn { scheme.unit } else { scheme.window };
            let mut quotients: Vec<Vec<f64>> = Vec::new();
            for i in 0..count {
                let units = case.array(&format!("{prefix}units{i}"))?;
                let times = &case.array(&format!("{prefix}times{i}"))?.data;
                if units.data.len() != times.len() {
                    bail!("{prefix}units{i} has {} entries, its times {}", units.data.len(), times.len());
                }
                quotients.push(times.iter().map(|&t| arithmetic.quotient(t, unit)).collect());
            }
            let largest = quotients.iter().flatten().copied().fold(0.0, f64::max);
            let edges = Edges::new(largest, scheme.window);
            if spsn {
                case.compare(&format!("{name}/max_duration"), &[largest.floor()]);
                case.compare(&format!("{name}/max_bin"), &[edges.count() as f64]);
            }
            for (i, quotients) in quotients.iter().enumerate() {
                let bin = |&q: &f64| if spsn { edges.bin(q) } else { Rule::Floor.bin(q) };
                let bins: Vec<f64> = quotients.iter().map(|q| bin(q) as f64).collect();
                case.compare(&format!("{name}/bins{i}"), &bins);
                let last: Vec<f64> = bins.iter().copied().reduce(f64::max).into_iter().map(|b| b + 1.0).collect();
                case.compare(&format!("{name}/steps{i}"), &last);
            }
        }
    }
    Ok(())
}

/// The kind `yinyang` of the paralif system: values, classes and their counts.
pub(super) fn yinyang_rates(case: &Case) -> Result<()> {
    for (split, first) in [("train", 64), ("test", 16)] {
        let (seed, size) = (case.option(&format!("{split}_seed"))?, case.option(&format!("{split}_size"))?);
        let (points, labels) = synth::yinyang::samples(seed, size);
        let values: Vec<f64> = points[..first].iter().flatten().map(|&v| f64::from(v)).collect();
        case.compare(&format!("{split}_vals_first{first}"), &values);
        let classes: Vec<f64> = labels.iter().map(|&l| f64::from(l)).collect();
        case.compare(&format!("{split}_class_first{first}"), &classes[..first]);
        let counts: Vec<f64> = (0..3).map(|class| labels.iter().filter(|&&l| l == class).count() as f64).collect();
        case.compare(&format!("{split}_class_counts"), &counts);
    }
    Ok(())
}
