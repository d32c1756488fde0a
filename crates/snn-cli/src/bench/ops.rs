//! Every hot operation at a small (in cache), a typical and a large size (beyond cache).
//!
//! The share of a limit is the time that the limit alone would take, over the measured one. What counts:
//!
//! * scans, pooling, updates: each array read or written once per pass, at copy bandwidth (in cache, a share may exceed
//!   1, because the limit is that of main memory);
//! * dense products: two operations per multiply-add, at the peak of fused multiply-adds;
//! * sparse products: one row add per event and weight row, at the row-add rate, or their arrays at copy bandwidth if
//!   that takes longer.
//!
//! Two shares are given: that of the median, and that of the best timing. A bar is held against the best one, because
//! limits are bests of many rounds too: other programs must not decide whether an operation is fast.

use anyhow::Result;
use serde_json::{Value, json};
use snn_core::backend::{
    AlifGrad, AlifOps, AlifParameters, BlockOps, Gemm, Leak, LeakGrad, LifOps, LinAlg, Memory, Optimise, SpikeMemory,
    Update, UpdateRule, UpdateSlot,
};
use snn_core::neurons::alif::AlifNeuron;
use snn_core::neurons::block::BlockNeuron;
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::{Conv, Lanes, Map, Pool, Spikes};
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;
use snn_data::synth::poisson::{Rate, poisson_spikes};
use snn_train::config::{AlifConfig, AlifGradientConfig};

use super::filtered::{FilteredNeuron, FilteredScan};
use super::timing::{self, Times};
use crate::args::BenchArgs;
use crate::console;
use crate::report::{Cell, Column, Table};

/// One operation at one size.
#[derive(Debug, Clone)]
pub(crate) struct OpTime {
    op: String,
    size: &'static str,
    shape: String,
    threads: usize,
    times: Times,
    work: Work,
    limit: &'static str,
    bound_s: f64,
    bar: Option<f64>,
}

/// What an operation has to do at least.
#[derive(Debug, Clone, Default)]
struct Work {
    /// What the operation gives, for elements per second.
    elements: f64,
    /// Arrays read or written, each once.
    bytes: f64,
    /// Operations of a dense product.
    flops: f64,
    /// Elements of row adds.
    row_adds: f64,
    /// The arrays behind `bytes`, in words.
    arrays: &'static str,
}

/// The neurons of a scan that keeps its membrane alone.
#[derive(Debug, Clone, Copy)]
enum Scanned {
    Block,
    Lif(LifNeuron),
    Alif(AlifNeuron),
}

/// Which limits bind an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Copy bandwidth.
    Copy,
    /// The peak of fused multiply-adds.
    Fma,
    /// The row-add rate or copy bandwidth, whichever takes longer.
    Sparse,
}

impl OpTime {
    fn share(&self) -> f64 {
        self.bound_s / self.times.median
    }

    fn best_share(&self) -> f64 {
        self.bound_s / self.times.best
    }

    fn key(&self) -> String {
        format!("{} {}, {} thread{}", self.op, self.shape, self.threads, if self.threads == 1 { "" } else { "s" })
    }

    /// The record for files and JSON lines.
    pub(crate) fn json(&self) -> Value {
        let per_second = |x: f64| if x > 0.0 { Some(x / self.times.median) } else { None };
        json!({
            "kind": "op",
            "key": self.key(),
            "op": self.op,
            "size": self.size,
            "shape": self.shape,
            "threads": self.threads,
            "median_s": self.times.median,
            "quartiles_s": [self.times.low, self.times.high],
            "all_s": self.times.all,
            "elements_per_s": per_second(self.work.elements),
            "bytes_per_s": per_second(self.work.bytes),
            "flops_per_s": per_second(self.work.flops),
            "row_add_elements_per_s": per_second(self.work.row_adds),
            "bytes_counted": self.work.arrays,
            "limit": self.limit,
            "limit_s": self.bound_s,
            "best_s": self.times.best,
            "share": self.share(),
            "best_share": self.best_share(),
            "bar": self.bar,
        })
    }
}

/// Times all operations whose name contains `--only`.
pub(crate) fn run(cpu: &Cpu, limits: &Limits, args: &BenchArgs, quiet: bool, lines: bool) -> Result<Vec<OpTime>> {
    let bar = console::bar(quiet, 0, "{spinner} {msg}");
    let mut bench =
        Bench { cpu, limits, only: args.only.as_deref(), repeats: args.repeats, lines, done: Vec::new(), bar };
    bench.scans()?;
    bench.dense()?;
    bench.sparse()?;
    bench.convolutions()?;
    bench.dense_convolutions()?;
    bench.others()?;
    bench.bar.finish_and_clear();
    Ok(bench.done)
}

/// All timings as a table.
pub(crate) fn table(ops: &[OpTime]) -> Table {
    let columns = vec![
        Column::words("operation"),
        Column::words("size"),
        Column::words("shape"),
        Column::numbers("threads", ""),
        Column::numbers("median", ""),
        Column::numbers("quartiles", ""),
        Column::numbers("elements", "G/s"),
        Column::numbers("bytes", "GB/s"),
        Column::numbers("dense", "GFLOP/s"),
        Column::words("limit"),
        Column::numbers("share", "%"),
        Column::numbers("at best", "%"),
        Column::words("bar"),
    ];
    let mut table = Table::new("ops", "Hot operations", columns);
    for op in ops {
        let giga = |x: f64, digits: usize| {
            if x > 0.0 { format!("{:.digits$}", x / op.times.median / 1e9) } else { "-".to_owned() }
        };
        let bar = op.bar.map_or(String::new(), |bar| {
            format!("{:.0} % {}", 100.0 * bar, if op.best_share() >= bar { "met" } else { "MISSED" })
        });
        let quartiles = format!("{} to {}", timing::show(op.times.low), timing::show(op.times.high));
        table.row(
            [
                op.op.clone(),
                op.size.to_owned(),
                op.shape.clone(),
                op.threads.to_string(),
                timing::show(op.times.median),
                quartiles,
                giga(op.work.elements, 2),
                giga(op.work.bytes, 1),
                giga(op.work.flops, 0),
                op.limit.to_owned(),
                format!("{:.0}", 100.0 * op.share()),
                format!("{:.0}", 100.0 * op.best_share()),
                bar,
            ]
            .map(Cell::text),
        );
    }
    table.note("Elements are entries of the result (of the current for scans, parameters for updates).");
    table.note("Shares of the limit: of the median, and of the best timing, which the bar is held against.");
    table.note("Limits are those of main memory for copies: in cache a share can exceed 100 %.");
    table.note(
        "The dense rate of a convolution counts one multiply-add per tap; the fast way for 3x3 kernels needs fewer.",
    );
    table.note("The dense rate of a sparse operation is that of the dense product which it replaces.");
    table
}

struct Bench<'a> {
    cpu: &'a Cpu,
    limits: &'a Limits,
    only: Option<&'a str>,
    repeats: usize,
    lines: bool,
    done: Vec<OpTime>,
    bar: indicatif::ProgressBar,
}

/// Sizes of scans: 128 KiB, 3.3 MB (the published layer benchmark), 131 MB per array.
const SCANS: [(&str, Lanes); 3] =
    [("small", Lanes::new(4, 64, 128)), ("typical", Lanes::new(64, 128, 100)), ("large", Lanes::new(128, 256, 1000))];

/// Products `(size, m, n, k, a transposed, b transposed)`: forward, input gradient, weight gradient of dense layers.
const PRODUCTS: [(&str, usize, usize, usize, bool, bool); 11] = [
    ("small", 8, 340, 784, false, false),
    ("small", 784, 340, 8, true, false),
    ("small", 128, 128, 128, false, false),
    ("typical", 32_000, 128, 128, false, false),
    ("typical", 8192, 1000, 100, false, true),
    ("typical", 4096, 512, 512, false, false),
    ("typical", 128, 800, 784, false, false),
    ("typical", 8192, 100, 1000, false, false),
    ("typical", 1000, 100, 8192, true, false),
    ("large", 16_384, 1000, 1000, false, false),
    ("large", 700, 128, 32_000, true, false),
];

/// Layers `(size, input, columns)` for sparse products.
const LAYERS: [(&str, Lanes, usize); 3] = [
    ("small", Lanes::new(4, 64, 128), 64),
    ("typical", Lanes::new(64, 128, 1000), 100),
    ("large", Lanes::new(128, 250, 700), 1000),
];

const DENSITIES: [f64; 5] = [0.005, 0.02, 0.05, 0.1, 0.2];

impl Bench<'_> {
    fn wanted(&self, op: &str) -> bool {
        self.only.is_none_or(|only| op.contains(only))
    }

    /// Times one operation and keeps the result.
    #[expect(clippy::too_many_arguments, reason = "a name, what is to be done, and how")]
    fn time<S>(
        &mut self,
        op: &str,
        size: &'static str,
        shape: String,
        threads: usize,
        (bound, work, bar): (Bound, Work, Option<f64>),
        state: &mut S,
        prepare: impl FnMut(&mut S) -> Result<()>,
        run: impl FnMut(&mut S) -> Result<()>,
    ) -> Result<()> {
        self.bar.set_message(format!("{op} {shape}"));
        self.bar.tick();
        let times = timing::repeat(self.repeats, state, prepare, run)?;
        let rate = |r: snn_cpu::limits::Rate| if threads == 1 { r.one } else { r.all };
        let copy_s = work.bytes / rate(self.limits.copy);
        let adds_s = work.row_adds / rate(self.limits.row_add);
        let (limit, bound_s) = match bound {
            Bound::Copy => ("copy", copy_s),
            Bound::Fma => ("multiply-adds", work.flops / rate(self.limits.fma)),
            Bound::Sparse if adds_s >= copy_s => ("row adds", adds_s),
            Bound::Sparse => ("copy", copy_s),
        };
        let done = OpTime { op: op.to_owned(), size, shape, threads, times, work, limit, bound_s, bar };
        if self.lines {
            console::json(&done.json())?;
        }
        self.done.push(done);
        Ok(())
    }

    fn scans(&mut self) -> Result<()> {
        let alif = |gradient| {
            let config = AlifConfig { gradient, recurrent: false, ..AlifConfig::default() };
            Scanned::Alif(config.neuron())
        };
        let single = LifNeuron::new(LifKind::Single { mask: Path::Attached });
        let multi = LifNeuron::new(LifKind::Multi { reset: Path::Attached });
        let neurons = [
            ("block", Scanned::Block),
            ("lif single", Scanned::Lif(single)),
            ("lif multi", Scanned::Lif(multi)),
            ("lif integrator", Scanned::Lif(LifNeuron::INTEGRATOR)),
            ("alif steps", alif(AlifGradientConfig::Steps)),
            ("alif blocks", alif(AlifGradientConfig::Blocks)),
        ];
        for (name, neuron) in neurons {
            let (forward, backward) = (format!("{name} forward"), format!("{name} backward"));
            if !self.wanted(&forward) && !self.wanted(&backward) {
                continue;
            }
            for (size, lanes) in SCANS {
                self.scan(name, neuron, size, lanes)?;
            }
        }
        for neuron in FilteredNeuron::ALL {
            for (size, lanes) in SCANS {
                self.filtered_scan(neuron, size, lanes)?;
            }
        }
        Ok(())
    }

    fn filtered_scan(&mut self, neuron: FilteredNeuron, size: &'static str, lanes: Lanes) -> Result<()> {
        let (forward, backward) = (format!("{} forward", neuron.name()), format!("{} backward", neuron.name()));
        if !self.wanted(&forward) && !self.wanted(&backward) {
            return Ok(());
        }
        let cpu = self.cpu;
        let mut scan = FilteredScan::new(cpu, neuron, lanes)?;
        let shape = format!("[{}, {}, {}]", lanes.batch, lanes.steps, lanes.width);
        let entries = lanes.len() as f64;
        let noise = if neuron.reads_noise() { 4.0 * entries } else { 0.0 };
        let bar = (size == "large").then_some(0.6);
        let work = |bytes, arrays| (Bound::Copy, Work { elements: entries, bytes, arrays, ..Work::default() }, bar);
        scan.reset(cpu)?;
        scan.forward(cpu)?;
        if self.wanted(&forward) {
            let arrays = "current read, membrane written, given noise read, row lists written";
            let what = work(8.0 * entries + noise + list_bytes(&scan.spikes), arrays);
            self.time(
                &forward,
                size,
                shape.clone(),
                cpu.threads(),
                what,
                &mut scan,
                |s| s.reset(cpu),
                |s| s.forward(cpu),
            )?;
        }
        if self.wanted(&backward) {
            scan.reset(cpu)?;
            scan.forward(cpu)?;
            let arrays = "membrane read, gradient read and written, given noise read where the slope depends on it";
            let what = work(12.0 * entries + if neuron.slope_reads_noise() { noise } else { 0.0 }, arrays);
            self.time(
                &backward,
                size,
                shape,
                cpu.threads(),
                what,
                &mut scan,
                |s| s.reset_grad(cpu),
                |s| s.backward(cpu),
            )?;
        }
        Ok(())
    }

    fn scan(&mut self, name: &str, neuron: Scanned, size: &'static str, lanes: Lanes) -> Result<()> {
        struct State {
            state: Vec<f32>,
            grad: Vec<f32>,
            spikes: Spikes,
            beta: Vec<f32>,
            sums: Vec<f32>,
        }
        let cpu = self.cpu;
        let block = BlockNeuron::default();
        let beta = vec![0.9_f32; lanes.width];
        let leak = || Leak { beta_raw: &beta, initial: None };
        let constants = || AlifParameters { beta: &beta, decay: &beta, strength: &beta, recurrent: None };
        // A mean of 0.1 per step at decay 0.9 hovers about the threshold: neurons fire, but not all the time.
        let current = values(lanes.len(), -0.1, 0.3);
        let lane_count = lanes.batch * lanes.width;
        let mut all = State {
            state: current.clone(),
            grad: vec![1.0; lanes.len()],
            spikes: Spikes::new(),
            beta: vec![0.0; lane_count],
            sums: vec![0.0; lane_count],
        };
        let forward = |s: &mut State| {
            match &neuron {
                Scanned::Block => cpu.block_forward(&block, lanes, leak(), &mut s.state, &mut s.spikes)?,
                Scanned::Lif(neuron) => cpu.lif_forward(neuron, lanes, leak(), &mut s.state, &mut s.spikes)?,
                Scanned::Alif(neuron) => {
                    cpu.alif_forward(neuron, lanes, constants(), &mut s.state, &mut s.spikes)?;
                }
            }
            Ok(())
        };
        let shape = format!("[{}, {}, {}]", lanes.batch, lanes.steps, lanes.width);
        let entries = lanes.len() as f64;
        let bar = (size == "large").then_some(0.6);
        forward(&mut all)?;
        let lists = list_bytes(&all.spikes);
        let op = format!("{name} forward");
        if self.wanted(&op) {
            let multi =
                matches!(neuron, Scanned::Lif(LifNeuron { kind: LifKind::Multi { .. }, .. }) | Scanned::Alif(_));
            let bits = if multi { 8.0 * (lanes.rows() * lanes.width.div_ceil(32)) as f64 } else { 0.0 };
            let arrays = match (neuron, multi) {
                (Scanned::Lif(LifNeuron { kind: LifKind::Integrator, .. }), _) => "current read, membrane written",
                (_, true) => "current read, membrane written, spike bits written and read, row lists written",
                _ => "current read, membrane written, row lists written",
            };
            let work = Work { elements: entries, bytes: 8.0 * entries + bits + lists, arrays, ..Work::default() };
            let what = (Bound::Copy, work, bar);
            let reset = |s: &mut State| Ok(cpu.copy(&current, &mut s.state)?);
            self.time(&op, size, shape.clone(), cpu.threads(), what, &mut all, reset, forward)?;
        }
        let op = format!("{name} backward");
        if self.wanted(&op) {
            cpu.copy(&current, &mut all.state)?;
            forward(&mut all)?;
            let integrator = matches!(neuron, Scanned::Lif(LifNeuron { kind: LifKind::Integrator, .. }));
            let ones = vec![1.0_f32; if integrator { lanes.len() } else { 0 }];
            let arrays = if integrator {
                "membrane and its gradient read, gradient of the current written"
            } else {
                "membrane read, gradient read and written"
            };
            let bytes = 12.0 * entries + 8.0 * lane_count as f64;
            let work = Work { elements: entries, bytes, arrays, ..Work::default() };
            let what = (Bound::Copy, work, bar);
            let reset = |s: &mut State| Ok(cpu.fill(&mut s.grad, if integrator { 0.0 } else { 1.0 })?);
            let backward = |s: &mut State| {
                let membrane = integrator.then_some(&ones);
                if let Scanned::Alif(neuron) = &neuron {
                    let grads = AlifGrad { current_sum: Some(&mut s.sums), ..AlifGrad::default() };
                    cpu.alif_backward(neuron, lanes, constants(), &s.state, &mut s.grad, grads)?;
                    return Ok(());
                }
                let grads =
                    LeakGrad { membrane, beta: Some(&mut s.beta), initial: None, current_sum: Some(&mut s.sums) };
                match &neuron {
                    Scanned::Lif(neuron) => cpu.lif_backward(neuron, lanes, leak(), &s.state, &mut s.grad, grads)?,
                    _ => cpu.block_backward(&block, lanes, leak(), &s.state, &mut s.grad, grads)?,
                }
                Ok(())
            };
            self.time(&op, size, shape, cpu.threads(), what, &mut all, reset, backward)?;
        }
        Ok(())
    }

    fn dense(&mut self) -> Result<()> {
        if !self.wanted("gemm") {
            return Ok(());
        }
        let one = Cpu::new(1)?;
        let devices = if self.cpu.threads() == 1 { vec![&one] } else { vec![&one, self.cpu] };
        for (size, m, n, k, transpose_a, transpose_b) in PRODUCTS {
            let gemm = Gemm { m, n, k, transpose_a, transpose_b, accumulate: false };
            let (a, b) = (values(m * k, -1.0, 1.0), values(k * n, -1.0, 1.0));
            let mut c = vec![0.0_f32; m * n];
            let mark = |transposed| if transposed { "^T" } else { "" };
            let shape = format!("({m} x {k}){} ({k} x {n}){}", mark(transpose_a), mark(transpose_b));
            for cpu in &devices {
                let work = Work {
                    elements: (m * n) as f64,
                    bytes: 4.0 * (m * k + k * n + m * n) as f64,
                    flops: 2.0 * (m * n * k) as f64,
                    arrays: "both factors read, product written",
                    ..Work::default()
                };
                let bar = if size == "small" { None } else { Some(if k >= 512 { 0.8 } else { 0.7 }) };
                let what = (Bound::Fma, work, bar);
                self.time(
                    "gemm",
                    size,
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut c,
                    |_| Ok(()),
                    |c| Ok(cpu.gemm(gemm, &a, &b, c)?),
                )?;
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> Result<()> {
        const FORWARD: &str = "spikes gemm";
        const BACKWARD: &str = "spikes gemm weight gradient";
        if !self.wanted(FORWARD) && !self.wanted(BACKWARD) {
            return Ok(());
        }
        let cpu = self.cpu;
        for (size, lanes, width) in LAYERS {
            let weight = values(lanes.width * width, -0.03, 0.03);
            let bias = vec![0.0_f32; width];
            let mut out = vec![0.0_f32; lanes.rows() * width];
            let mut grad_weight = vec![0.0_f32; weight.len()];
            for density in DENSITIES {
                let spikes = poisson_spikes(lanes.batch, lanes.steps, lanes.width, Rate::Density(density), 1);
                let shape =
                    format!("({} x {})({} x {width}), {} %", lanes.rows(), lanes.width, lanes.width, 100.0 * density);
                let (inputs, outputs) = (weight.len() as f64, out.len() as f64);
                let work = Work {
                    elements: outputs,
                    bytes: list_bytes(&spikes) + 4.0 * (inputs + outputs),
                    flops: 2.0 * (lanes.len() * width) as f64,
                    row_adds: (spikes.events() * width) as f64,
                    arrays: "row lists, weights and currents (or their gradients)",
                };
                let what = (Bound::Sparse, work.clone(), None);
                if self.wanted(FORWARD) {
                    self.time(
                        FORWARD,
                        size,
                        shape.clone(),
                        cpu.threads(),
                        what.clone(),
                        &mut out,
                        |_| Ok(()),
                        |out| Ok(cpu.spikes_gemm(&spikes, width, &weight, Some(&bias), out)?),
                    )?;
                }
                if self.wanted(BACKWARD) {
                    let grad = &out;
                    self.time(
                        BACKWARD,
                        size,
                        shape,
                        cpu.threads(),
                        what,
                        &mut grad_weight,
                        |_| Ok(()),
                        |gw| Ok(cpu.spikes_gemm_weight_grad(&spikes, width, grad, gw)?),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn convolutions(&mut self) -> Result<()> {
        let names = ["conv spikes", "conv spikes weight gradient", "conv input gradient", "pool", "pool gradient"];
        if !names.iter().any(|n| self.wanted(n)) {
            return Ok(());
        }
        let cpu = self.cpu;
        // The two convolutions of the published MNIST model, small and whole, and the widest of the CIFAR10 model.
        let cases = [
            ("small", Map::new(28, 28, 1), 32, 5, 2, 4, 8, 0.125),
            ("typical", Map::new(28, 28, 1), 32, 5, 2, 64, 8, 0.125),
            ("typical", Map::new(14, 14, 32), 64, 5, 2, 64, 8, 0.05),
            ("large", Map::new(16, 16, 256), 256, 3, 1, 64, 4, 0.1),
        ];
        for (size, map, channels, kernel, padding, batch, steps, density) in cases {
            let conv = Conv::new(map, channels, kernel, 1, padding)?;
            let spikes = poisson_spikes(batch, steps, map.len(), Rate::Density(density), 1);
            let rows = batch * steps;
            let out_len = rows * conv.output().len();
            let weight = values(conv.fan_in() * channels, -0.1, 0.1);
            let mut out = values(out_len, -0.1, 0.1);
            let shape = format!("{rows} x {map} -> {channels}, {kernel}x{kernel}, {} %", 100.0 * density);
            let flops = 2.0 * (out_len * conv.fan_in()) as f64;
            let taps: usize = tap_counts(&conv, &spikes);
            let mut work = Work {
                elements: out_len as f64,
                bytes: list_bytes(&spikes) + 4.0 * (weight.len() + out_len) as f64,
                flops,
                row_adds: (taps * channels) as f64,
                arrays: "row lists, weights and currents (or their gradients)",
            };
            if self.wanted(names[0]) {
                let what = (Bound::Sparse, work.clone(), None);
                self.time(
                    names[0],
                    size,
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut out,
                    |_| Ok(()),
                    |out| Ok(cpu.conv_spikes(&conv, &spikes, &weight, None, out)?),
                )?;
            }
            if self.wanted(names[1]) {
                let what = (Bound::Sparse, work.clone(), None);
                let mut grad_weight = weight.clone();
                self.time(
                    names[1],
                    size,
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut grad_weight,
                    |_| Ok(()),
                    |gw| Ok(cpu.conv_spikes_weight_grad(&conv, &spikes, &out, gw)?),
                )?;
            }
            if self.wanted(names[2]) {
                let mut grad_input = vec![0.0_f32; rows * map.len()];
                work.elements = grad_input.len() as f64;
                work.row_adds = 0.0;
                work.bytes = 4.0 * (weight.len() + out_len + grad_input.len()) as f64;
                work.arrays = "gradients read and written, weights read";
                let what = (Bound::Fma, work, (size != "small").then_some(if channels >= 512 { 0.8 } else { 0.7 }));
                self.time(
                    names[2],
                    size,
                    shape,
                    cpu.threads(),
                    what,
                    &mut grad_input,
                    |_| Ok(()),
                    |gi| Ok(cpu.conv_input_grad(&conv, rows, &out, &weight, gi)?),
                )?;
            }
        }
        let cases = [
            ("small", Map::new(28, 28, 32), 1, 8, 0.05),
            ("typical", Map::new(28, 28, 32), 64, 8, 0.05),
            ("large", Map::new(32, 32, 128), 128, 4, 0.05),
        ];
        for (size, map, batch, steps, density) in cases {
            let pool = Pool::new(map, 2)?;
            let spikes = poisson_spikes(batch, steps, map.len(), Rate::Density(density), 1);
            let rows = batch * steps;
            let mut out = Spikes::new();
            cpu.pool_spikes(&pool, &spikes, &mut out)?;
            let shape = format!("{rows} x {map}, 2x2, {} %", 100.0 * density);
            if self.wanted(names[3]) {
                let bytes = list_bytes(&spikes) + list_bytes(&out);
                let arrays = "row lists read and written";
                let work = Work { elements: out.events() as f64, bytes, arrays, ..Work::default() };
                let what = (Bound::Copy, work, None);
                self.time(
                    names[3],
                    size,
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut out,
                    |_| Ok(()),
                    |out| Ok(cpu.pool_spikes(&pool, &spikes, out)?),
                )?;
            }
            if self.wanted(names[4]) {
                let grad = values(rows * pool.output().len(), -1.0, 1.0);
                let mut grad_input = vec![0.0_f32; rows * map.len()];
                let bytes = list_bytes(&spikes) + 4.0 * (grad.len() + grad_input.len()) as f64;
                let arrays = "row lists and gradient read, gradient of the input written";
                let work = Work { elements: grad_input.len() as f64, bytes, arrays, ..Work::default() };
                let what = (Bound::Copy, work, None);
                self.time(
                    names[4],
                    size,
                    shape,
                    cpu.threads(),
                    what,
                    &mut grad_input,
                    |_| Ok(()),
                    |gi| Ok(cpu.pool_spikes_grad(&pool, &spikes, &grad, gi)?),
                )?;
            }
        }
        Ok(())
    }

    /// Layers of a VGG16 for 32x32 images at batch 8, forward and both gradients.
    fn dense_convolutions(&mut self) -> Result<()> {
        const BATCH: usize = 8;
        let names = ["conv dense", "conv dense weight gradient", "conv dense input gradient"];
        if !names.iter().any(|n| self.wanted(n)) {
            return Ok(());
        }
        let cpu = self.cpu;
        let layers = [(32, 3, 64), (32, 64, 64), (16, 128, 128), (8, 256, 256), (4, 512, 512), (2, 512, 512)];
        for (side, channels_in, channels) in layers {
            let map = Map::new(side, side, channels_in);
            let conv = Conv::new(map, channels, 3, 1, 1)?;
            let shape = format!("{BATCH} x {map} -> {channels}, 3x3");
            let weight = values(conv.fan_in() * channels, -0.1, 0.1);
            let (bias, input) = (values(channels, -0.1, 0.1), values(BATCH * map.len(), 0.0, 1.0));
            let mut out = values(BATCH * conv.output().len(), -0.1, 0.1);
            let grad = out.clone();
            let (mut grad_weight, mut grad_input) = (weight.clone(), input.clone());
            let work = |elements: usize, arrays| Work {
                elements: elements as f64,
                bytes: 4.0 * (weight.len() + input.len() + grad.len()) as f64,
                flops: 2.0 * (grad.len() * conv.fan_in()) as f64,
                arrays,
                ..Work::default()
            };
            if self.wanted(names[0]) {
                let what = (Bound::Fma, work(grad.len(), "maps and weights read, maps written"), None);
                self.time(
                    names[0],
                    "typical",
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut out,
                    |_| Ok(()),
                    |out| Ok(cpu.conv_dense(&conv, BATCH, &input, &weight, Some(&bias), out)?),
                )?;
            }
            if self.wanted(names[1]) {
                let what = (Bound::Fma, work(weight.len(), "maps and gradients read, weights written"), None);
                self.time(
                    names[1],
                    "typical",
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut grad_weight,
                    |_| Ok(()),
                    |gw| Ok(cpu.conv_dense_weight_grad(&conv, BATCH, &input, &grad, gw)?),
                )?;
            }
            if self.wanted(names[2]) {
                let what = (Bound::Fma, work(input.len(), "gradients and weights read, gradients written"), None);
                self.time(
                    names[2],
                    "typical",
                    shape,
                    cpu.threads(),
                    what,
                    &mut grad_input,
                    |_| Ok(()),
                    |gi| Ok(cpu.conv_input_grad(&conv, BATCH, &grad, &weight, gi)?),
                )?;
            }
        }
        Ok(())
    }

    fn others(&mut self) -> Result<()> {
        let cpu = self.cpu;
        if self.wanted("adam") {
            for (size, len) in [("small", 8_192), ("typical", 800_000), ("large", 32_000_000)] {
                let grad = values(len, -0.1, 0.1);
                let mut state = [values(len, -1.0, 1.0), vec![0.0; len], vec![0.0; len]];
                let rule = UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: false };
                let mut update = Update { rule, learning_rate: 1e-3, weight_decay: 0.0, step: 0 };
                let arrays = "parameter and two moments read and written, gradient read";
                let work = Work { elements: len as f64, bytes: 28.0 * len as f64, arrays, ..Work::default() };
                let what = (Bound::Copy, work, None);
                self.time(
                    "adam",
                    size,
                    format!("[{len}]"),
                    cpu.threads(),
                    what,
                    &mut state,
                    |_| Ok(()),
                    |state| {
                        update.step += 1;
                        let [value, first, second] = state;
                        Ok(cpu.update(&update, &mut [UpdateSlot { value, grad: &grad, first, second, decays: true }])?)
                    },
                )?;
            }
        }
        if self.wanted("softmax cross entropy") {
            for (size, batch, classes) in [("small", 128, 10), ("typical", 1024, 20), ("large", 1 << 20, 20)] {
                let logits = values(batch * classes, -5.0, 5.0);
                let targets: Vec<u32> = (0..batch).map(|b| (b % classes) as u32).collect();
                let mut state = (vec![0.0_f32; batch], vec![0.0_f32; logits.len()]);
                let arrays = "logits and targets read, losses and gradient written";
                let bytes = 8.0 * (logits.len() + batch) as f64;
                let work = Work { elements: logits.len() as f64, bytes, arrays, ..Work::default() };
                let (what, op, shape) =
                    ((Bound::Copy, work, None), "softmax cross entropy", format!("[{batch}, {classes}]"));
                self.time(
                    op,
                    size,
                    shape,
                    cpu.threads(),
                    what,
                    &mut state,
                    |_| Ok(()),
                    |(losses, grad)| Ok(cpu.softmax_cross_entropy(classes, &logits, &targets, losses, grad)?),
                )?;
            }
        }
        let names = ["spikes upload", "spikes merge"];
        for (size, lanes, _) in LAYERS {
            if !names.iter().any(|n| self.wanted(n)) {
                break;
            }
            let of = |seed| poisson_spikes(lanes.batch, lanes.steps, lanes.width, Rate::Density(0.05), seed);
            let (a, b) = (of(1), of(2));
            let mut out = Spikes::new();
            let shape = format!("[{}, {}, {}], 5 %", lanes.batch, lanes.steps, lanes.width);
            if self.wanted(names[0]) {
                let arrays = "row lists read and written";
                let work = Work { elements: a.events() as f64, bytes: 2.0 * list_bytes(&a), arrays, ..Work::default() };
                let what = (Bound::Copy, work, None);
                self.time(
                    names[0],
                    size,
                    shape.clone(),
                    cpu.threads(),
                    what,
                    &mut out,
                    |_| Ok(()),
                    |out| Ok(cpu.upload_spikes(&a, out)?),
                )?;
            }
            if self.wanted(names[1]) {
                cpu.add_spikes(&a, &b, &mut out)?;
                let arrays = "row lists of both read, of the sum written";
                let bytes = list_bytes(&a) + list_bytes(&b) + list_bytes(&out);
                let work = Work { elements: out.events() as f64, bytes, arrays, ..Work::default() };
                let what = (Bound::Copy, work, None);
                self.time(
                    names[1],
                    size,
                    shape,
                    cpu.threads(),
                    what,
                    &mut out,
                    |_| Ok(()),
                    |out| Ok(cpu.add_spikes(&a, &b, out)?),
                )?;
            }
        }
        Ok(())
    }
}

/// Bytes of row lists: one offset per row, one unit per event.
fn list_bytes(spikes: &Spikes) -> f64 {
    (size_of_val(spikes.offsets()) + size_of_val(spikes.units())) as f64
}

/// Kernel taps that all events reach together: rows of weights that a sparse convolution adds.
fn tap_counts(conv: &Conv, spikes: &Spikes) -> usize {
    let cover = |side: usize, out: usize| {
        let mut cover = vec![0_usize; side];
        for o in 0..out {
            for k in 0..conv.kernel {
                if let Some(at) = conv.source(o, k, side) {
                    cover[at] += 1;
                }
            }
        }
        cover
    };
    let (m, o) = (conv.input, conv.output());
    let (rows, columns) = (cover(m.height, o.height), cover(m.width, o.width));
    let taps = |unit: u32| {
        let position = unit as usize / m.channels;
        rows[position / m.width] * columns[position % m.width]
    };
    spikes.units().iter().map(|&u| taps(u)).sum()
}

/// Numbers between two bounds in no recognisable order, from the golden-ratio sequence: cheap at any length.
fn values(len: usize, low: f32, high: f32) -> Vec<f32> {
    let at = |i: usize| (i as u32).wrapping_mul(2_654_435_769) as f32 / u32::MAX as f32;
    (0..len).map(|i| low + (high - low) * at(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_at_the_border_are_fewer() {
        let conv = Conv::new(Map::new(3, 3, 1), 4, 3, 1, 1).unwrap();
        let corner = Spikes::from_rows(1, 1, 9, [vec![0]]).unwrap();
        let centre = Spikes::from_rows(1, 1, 9, [vec![4]]).unwrap();
        assert_eq!((tap_counts(&conv, &corner), tap_counts(&conv, &centre)), (4, 9));
    }

    #[test]
    fn shares_follow_the_limit_that_binds() {
        let cpu = Cpu::new(1).unwrap();
        let rate = |x: f64| snn_cpu::limits::Rate { one: x, all: x };
        let limits = Limits { threads: 1, copy: rate(1e9), fma: rate(1e9), row_add: rate(1e9) };
        let bar = indicatif::ProgressBar::hidden();
        let mut bench =
            Bench { cpu: &cpu, limits: &limits, only: None, repeats: 1, lines: false, done: Vec::new(), bar };
        for (row_adds, limit) in [(2e6, "row adds"), (5e5, "copy")] {
            let work = Work { bytes: 1e6, row_adds, ..Work::default() };
            let sleep = |_: &mut ()| {
                std::thread::sleep(std::time::Duration::from_millis(60));
                Ok(())
            };
            bench
                .time("op", "small", String::new(), 1, (Bound::Sparse, work, None), &mut (), |_| Ok(()), sleep)
                .unwrap();
            let last = bench.done.last().unwrap();
            assert_eq!(last.limit, limit);
            assert!(last.share() < 0.05);
        }
    }
}
