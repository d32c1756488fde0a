//! Runners of what happens on the host: encodings, augmentation, generated data.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Deserialize;
use snn_core::testkit::golden::{Array, Case};
use snn_core::{Map, Spikes};
use snn_data::transforms::augment::warp_perspective;
use snn_data::transforms::encode::{latency_step, normalise};
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
            Input::Values(_) | Input::Sequence(_) => bail!("the encoding gave values, not spikes"),
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
