//! Event-driven training: the count network of BATS, per image, against the weights that its events touch.
//!
//! An event of a layer needs one row of weights. The floor of a forward pass is the time to copy all of these rows once,
//! `events x neurons x 4` bytes, at the machine's copy bandwidth.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snn_core::{Activity, Pass};
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;
use snn_data::{Batch, Loader, LoaderOptions, OpenOptions};
use snn_train::losses::Loss;
use snn_train::optim::Optimiser;
use snn_train::trainer::{RunOptions, Split, Upload, build_model};
use snn_train::{Experiment, Stack, presets};

use super::timing::{self, Times};
use crate::report::{Cell, Column, Measured, Table};

/// Batches that the network is trained on first, so that it fires as trained networks do.
const TRAINED: usize = 300;
/// Batches that are timed together.
const TIMED: usize = 20;

/// What was timed, on one number of threads.
pub(crate) struct EventTimes {
    threads: usize,
    data: String,
    images: usize,
    /// Spikes per image that reach each layer.
    events: Vec<f64>,
    /// Bytes of the weight rows that these touch, per image.
    bytes: f64,
    /// Seconds per image.
    forward: Times,
    backward: Times,
    update: Times,
    /// Seconds per image to copy those bytes.
    floor: f64,
}

/// A network with batches to run it on.
struct Bench {
    device: Cpu,
    experiment: Experiment,
    stack: Stack<Cpu>,
    optimiser: Optimiser<Cpu>,
    loss: Loss<Cpu>,
    upload: Upload<Cpu>,
    batches: Vec<Batch>,
}

impl Bench {
    fn new(device: &Cpu, data: &OpenOptions) -> Result<Self> {
        let mut experiment = presets::find("bats-mnist")?.experiment;
        let here = snn_data::info("mnist", &data.data_dir)?.iter().all(|s| s.converted.is_some() || s.downloaded);
        if !here {
            experiment.data.set = "digits-sim".into();
        }
        let options = RunOptions { data: data.clone(), ..RunOptions::default() };
        let split = Split::train(&experiment, &options)?;
        let stack = build_model(device, &experiment, &split)?;
        let loader = LoaderOptions { batch: experiment.train.batch, shuffle: true, ..LoaderOptions::default() };
        let loader = Loader::new(split.source.clone(), split.pipeline.clone(), loader)?;
        let batches = loader.take(TIMED).collect::<snn_data::Result<Vec<_>>>()?;
        Ok(Self {
            device: device.clone(),
            optimiser: Optimiser::new(device, experiment.train.optimiser, &stack)?,
            loss: Loss::new(device, experiment.train.loss)?,
            upload: Upload::new(device, split.pipeline.signal()),
            batches,
            stack,
            experiment,
        })
    }

    fn images(&self) -> usize {
        self.batches.iter().map(|b| b.labels.len()).sum()
    }

    /// Runs all batches; gives the seconds of forward passes, of losses with backward passes, and of updates.
    fn pass(&mut self, train: bool) -> Result<[f64; 3]> {
        let Self { device, experiment, stack, optimiser, loss, upload, batches } = self;
        let mut seconds = [0.0; 3];
        for batch in batches.iter() {
            let input = upload.batch(device, batch)?;
            let mut start = Instant::now();
            let mut lap = |part: &mut f64| {
                *part += start.elapsed().as_secs_f64();
                start = Instant::now();
            };
            stack.forward(device, input, Pass::train(0))?;
            lap(&mut seconds[0]);
            if train {
                loss.forward(device, stack.output(), &batch.labels)?;
                stack.backward(device, input, loss.grad())?;
                lap(&mut seconds[1]);
                optimiser.update(device, stack, experiment.train.optimiser.learning_rate)?;
                lap(&mut seconds[2]);
            }
        }
        Ok(seconds)
    }

    /// Events that reach each layer, and bytes of the weight rows that they touch, per image.
    fn traffic(&mut self) -> Result<(Vec<f64>, f64)> {
        let (mut events, mut bytes) = (Vec::new(), 0.0);
        for batch in &self.batches {
            let input = self.upload.batch(&self.device, batch)?;
            self.stack.forward(&self.device, input, Pass::evaluate(0))?;
            let mut given: &Activity<Cpu> = input;
            let mut at = 0;
            for layer in self.stack.layers() {
                if layer.trains().is_some() {
                    let count = given.trains("the benchmark")?.events(&self.device) as f64;
                    events.resize(events.len().max(at + 1), 0.0);
                    events[at] += count;
                    bytes += count * layer.output_signal().width() as f64 * size_of::<f32>() as f64;
                    at += 1;
                }
                given = layer.output();
            }
        }
        let images = self.images() as f64;
        Ok((events.into_iter().map(|e| e / images).collect(), bytes / images))
    }
}

/// Times the network on one thread and on all threads of the device.
pub(crate) fn run(cpu: &Cpu, limits: &Limits, data: &OpenOptions, repeats: usize) -> Result<Vec<EventTimes>> {
    let mut bench = Bench::new(cpu, data)?;
    for _ in 0..TRAINED.div_ceil(TIMED) {
        bench.pass(true)?;
    }
    let (events, bytes) = bench.traffic()?;
    let images = bench.images();
    let mut threads = vec![1];
    threads.extend((cpu.threads() > 1).then(|| cpu.threads()));
    let mut all = Vec::new();
    for threads in threads {
        bench.device = Cpu::new(threads)?;
        let mut parts = [vec![], vec![], vec![]];
        bench.pass(true)?;
        for _ in 0..repeats.max(3) {
            for (list, seconds) in parts.iter_mut().zip(bench.pass(true)?) {
                list.push(seconds / images as f64);
            }
        }
        let [forward, backward, update] = parts.map(Times::new);
        let rate = if threads == 1 { limits.copy.one } else { limits.copy.all };
        let (data, events) = (bench.experiment.data.set.clone(), events.clone());
        all.push(EventTimes {
            threads,
            data,
            images,
            events,
            bytes,
            forward,
            backward,
            update,
            floor: 2.0 * bytes / rate,
        });
    }
    Ok(all)
}

impl EventTimes {
    fn whole(&self) -> f64 {
        self.forward.median + self.backward.median + self.update.median
    }

    /// One line of `--json`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "kind": "events",
            "key": format!("events {} threads", self.threads),
            "threads": self.threads,
            "data": self.data,
            "images": self.images,
            "events_per_image": self.events,
            "weight_bytes_per_image": self.bytes,
            "median_s": self.whole(),
            "forward_s": self.forward.median,
            "backward_s": self.backward.median,
            "update_s": self.update.median,
            "floor_s": self.floor,
        })
    }
}

/// All of them as a table.
pub(crate) fn table(times: &[EventTimes]) -> Result<Table> {
    let first = times.first().context("something was timed")?;
    let columns = vec![
        Column::numbers("threads", ""),
        Column::numbers("forward", "µs"),
        Column::numbers("backward", "µs"),
        Column::numbers("update", "µs"),
        Column::numbers("copy of the rows", "µs"),
        Column::numbers("forward / copy", ""),
        Column::numbers("all / forward", ""),
        Column::numbers("against one thread", ""),
    ];
    let title = format!("784-800-10, spike counts, {} ({} images), per image", first.data, first.images);
    let mut table = Table::new("events", title, columns);
    let number = |x: f64, digits| Cell::number(Measured::value(x), digits);
    for t in times {
        let micro = |s: f64| number(1e6 * s, 1);
        table.row([
            number(t.threads as f64, 0),
            micro(t.forward.median),
            micro(t.backward.median),
            micro(t.update.median),
            micro(t.floor),
            number(t.forward.median / t.floor, 2),
            number(t.whole() / t.forward.median, 2),
            number(first.whole() / t.whole(), 2),
        ]);
    }
    let events = first.events.iter().map(|e| format!("{e:.1}")).collect::<Vec<_>>().join(" and ");
    let bytes = first.bytes / 1024.0;
    table.note(format!("{events} events per image reach the layers and touch {bytes:.0} KiB of weights."));
    let spread = |t: &Times| timing::show(t.high - t.low);
    table.note(format!("Spread of the middle half, one thread: forward {}.", spread(&first.forward)));
    Ok(table)
}
