//! `snn gpu-check`: whether a GPU computes what it should, and how fast.
//!
//! | part | what is asked |
//! |---|---|
//! | `suite` | the behaviour suite of all backends, against the `f64` reference |
//! | `golden` | every golden case |
//! | `agreement` | the spikes of the processor, one by one; gradients within 1e-5 of the largest entry |
//! | `recorded` | training with recorded passes, bit for bit as without |
//! | `memory` | no error of `compute-sanitizer` in the suite, where it is installed |
//! | `scans` | 70 % of the measured copy bandwidth |
//! | `layers` | 1.5 times the floor at most; PyTorch's block 10 times as long, its sequential model 50 times at n 100 |
//! | `busy` | a training step takes hardly longer than its kernels |
//!
//! The floor of a layer is that of `snn bench layer`, from limits measured in the same run.

mod recorded;
mod scans;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use snn_core::Lanes;
use snn_core::backend::Memory;
use snn_core::testkit::agreement::agreement;
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;
use snn_cuda::Cuda;
use snn_cuda::limits::Sizes;
use snn_data::synth::poisson::{Rate, poisson_spikes};

use self::recorded::Steps;
use self::scans::scan_times;
use crate::args::GpuCheck;
use crate::bench::device::{Timeable, gpu_limits};
use crate::bench::layer::{Floor, Fused, LayerCell, LayerModel, Timed, peer_cell, time_layer};
use crate::bench::peer::{PeerCell, Peers};
use crate::bench::timing;
use crate::console;
use crate::report::files::write_atomically;
use crate::report::{Cell, Column, Machine, Table};

/// A part of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Suite,
    Golden,
    Agreement,
    Recorded,
    Memory,
    Scans,
    Layers,
    Busy,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What came of one check.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    part: Part,
    what: String,
    /// What was found, in words.
    found: String,
    /// The number behind it.
    value: Option<f64>,
    /// What was asked for, if anything.
    asked: String,
    /// Nothing where nothing was asked for, or where it could not be checked.
    passed: Option<bool>,
}

/// Everything that the parts need.
struct Check<'a> {
    args: &'a GpuCheck,
    device: Cuda,
    quiet: bool,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: &GpuCheck, quiet: bool) -> Result<()> {
    let device = Cuda::new(args.gpu)?;
    let mut check = Check { args, device, quiet, findings: Vec::new() };
    console::line(format_args!("{}", check.device.info()))?;
    let wanted = |part: &Part| args.only.is_empty() || args.only.contains(part);
    let mut limits = None;
    for part in Part::value_variants().iter().filter(|part| wanted(part)) {
        check.say(&part.name());
        let done = match part {
            Part::Suite => check.suite(),
            Part::Golden => check.golden(),
            Part::Agreement => check.agreement(),
            Part::Recorded => check.recorded(),
            Part::Memory => check.memory(),
            Part::Scans => check.limits(&mut limits).and_then(|limits| check.scans(&limits)),
            Part::Layers => check.limits(&mut limits).and_then(|limits| check.layers(&limits)),
            Part::Busy => check.busy(),
        };
        // What one part runs into must not hide what the others find.
        if let Err(error) = done {
            check.find(*part, "the whole part", (format!("{error:#}"), None), ("no error", Some(false)));
        }
    }
    if let Some(limits) = &limits {
        console::line(crate::bench::limits_line(&check.device, limits))?;
    }
    console::line(check.table().terminal())?;
    if let Some(file) = &args.json {
        let document = json!({
            "format": 1,
            "device": check.device.describe(),
            "machine": Machine::detect(),
            "limits": limits.as_ref().map(crate::bench::limits_json),
            "finished": crate::report::machine::utc_now(),
            "findings": check.findings,
        });
        write_atomically(file, &serde_json::to_vec_pretty(&document).context("the findings cannot be written")?)?;
    }
    let failed = check.findings.iter().filter(|f| f.passed == Some(false)).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", check.findings.len());
    }
    Ok(())
}

impl Check<'_> {
    /// The limits, measured once.
    fn limits(&self, known: &mut Option<Limits>) -> Result<Limits> {
        if known.is_none() {
            let sizes = if self.args.small { Sizes::SMALL } else { Sizes::full(&self.device) };
            *known = Some(gpu_limits(&self.device, sizes)?);
        }
        known.context("limits were measured just now")
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            console::message(text);
        }
    }

    fn find(
        &mut self,
        part: Part,
        what: impl Into<String>,
        (found, value): (String, Option<f64>),
        (asked, passed): (&str, Option<bool>),
    ) {
        self.findings.push(Finding { part, what: what.into(), found, value, asked: asked.into(), passed });
    }

    fn suite(&mut self) -> Result<()> {
        // A case that fails says why by itself.
        for (name, case) in snn_core::backend_suite!(table Cuda) {
            let passed = catch_unwind(AssertUnwindSafe(|| case(&self.device))).is_ok();
            let found = if passed { "yes" } else { "no, see above" };
            self.find(Part::Suite, name.replace('_', " "), (found.into(), None), ("yes", Some(passed)));
        }
        Ok(())
    }

    /// This program, to be run again.
    fn again(&self, under: Option<&str>) -> Result<Command> {
        let own = std::env::current_exe().context("where is this program?")?;
        let mut command = match under {
            Some(tool) => {
                let mut command = Command::new(tool);
                command.args(["--error-exitcode", "9"]).arg(own);
                command
            }
            None => Command::new(own),
        };
        command.stdin(Stdio::null()).env("SNN_REQUIRE_CUDA", "1");
        Ok(command)
    }

    fn golden(&mut self) -> Result<()> {
        let mut command = self.again(None)?;
        command.arg("golden").args(["--gpu", &self.args.gpu.to_string()]);
        if let Some(dir) = &self.args.golden {
            command.arg("--dir").arg(dir);
        }
        let output = command.output().context("the golden cases cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for failure in text.lines().filter(|line| line.contains("FAILED") || line.contains(": unclaimed")) {
            console::message(failure);
        }
        let last = text.lines().last().unwrap_or("no output").to_owned();
        if !output.status.success() {
            console::message(String::from_utf8_lossy(&output.stderr));
        }
        let found = (last, None);
        self.find(Part::Golden, "golden cases", found, ("no failure", Some(output.status.success())));
        Ok(())
    }

    fn agreement(&mut self) -> Result<()> {
        let lanes = if self.args.small { Lanes::new(2, 40, 33) } else { Lanes::new(32, 250, 300) };
        let cpu = Cpu::new(0)?;
        for one in agreement(&cpu, &self.device, lanes)? {
            let found = match one.events {
                0 => format!("values within {:.1e}", one.difference),
                events => format!("{} of {events} spikes differ, values within {:.1e}", one.differing, one.difference),
            };
            let passed = one.differing == 0 && one.difference <= 1e-5;
            self.find(
                Part::Agreement,
                one.what,
                (found, Some(one.difference)),
                ("the same spikes, 1e-5", Some(passed)),
            );
        }
        Ok(())
    }

    /// Trains a network twice, with recorded passes and without.
    fn recorded(&mut self) -> Result<()> {
        let device = &self.device;
        let mut networks = [Steps::new(device)?, Steps::new(device)?];
        // A model whose caller sets numbers for each pass is not recorded; these make no difference.
        networks[1].stack.set_rate_gradient(0.0, 0.0);
        // Batches of another size come between, and a larger one moves buffers, so that passes are recorded anew.
        for (i, batch) in [6, 6, 6, 4, 6, 6, 6, 9, 9, 9, 6, 9, 9].into_iter().enumerate() {
            for network in &mut networks {
                network.step(device, batch, i as u64)?;
            }
        }
        let [recorded, plain] = [networks[0].weights(device)?, networks[1].weights(device)?];
        let differing = recorded.iter().zip(&plain).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        // Passes that cannot be recorded are queued one by one, which would be the same bits too.
        let passes = networks[0].stack.recorded_passes();
        let found = format!("{passes} passes recorded, {differing} of {} weights differ", plain.len());
        let passed = differing == 0 && passes >= 2 && networks[1].stack.recorded_passes() == 0;
        let what = "training with recorded passes";
        self.find(Part::Recorded, what, (found, Some(differing as f64)), ("passes, the same bits", Some(passed)));
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        let what = "compute-sanitizer on the suite";
        let Some(tool) = on_path("compute-sanitizer") else {
            self.find(Part::Memory, what, ("not installed".into(), None), ("no error", None));
            return Ok(());
        };
        let mut command = self.again(Some(&tool.display().to_string()))?;
        command.args(["gpu-check", "--only", "suite", "--small", "--gpu", &self.args.gpu.to_string()]);
        let output = command.output().context("compute-sanitizer cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = text.lines().find(|line| line.contains("ERROR SUMMARY")).unwrap_or("no summary");
        let found = summary.trim_start_matches(['=', ' ']).to_owned();
        self.find(Part::Memory, what, (found, None), ("no error", Some(output.status.success())));
        Ok(())
    }

    /// Keeps a speed. That of a size that is only there to run says nothing and has no verdict.
    fn speed(
        &mut self,
        part: Part,
        what: impl Into<String>,
        (found, value): (String, f64),
        asked: Option<(&str, bool)>,
    ) {
        if self.args.small {
            return self.find(part, what, ("ran".into(), None), ("", None));
        }
        let (asked, passed) = asked.map_or(("", None), |(asked, passed)| (asked, Some(passed)));
        self.find(part, what, (found, Some(value)), (asked, passed));
    }

    fn scans(&mut self, limits: &Limits) -> Result<()> {
        let lanes = if self.args.small { Lanes::new(2, 16, 33) } else { Lanes::new(128, 1024, 1000) };
        for (name, [forward, backward]) in scan_times(&self.device, lanes)? {
            // One array is read and written forward; backward one is read, another read and written.
            for (pass, seconds, bytes) in [("forward", forward, 8.0), ("backward", backward, 12.0)] {
                let share = bytes * lanes.len() as f64 / limits.copy.all / seconds;
                let found = format!("{:.0} % of copy bandwidth, {}", 100.0 * share, timing::show(seconds));
                self.speed(Part::Scans, format!("{name}, {pass}"), (found, share), Some(("70 %", share >= 0.7)));
            }
        }
        Ok(())
    }

    fn layers(&mut self, limits: &Limits) -> Result<()> {
        let peers = self.args.peer_python.as_deref().map(Peers::find).transpose()?;
        let (widths, steps, repeats): (&[usize], &[usize], usize) =
            if self.args.small { (&[31], &[20], 2) } else { (&[100, 300, 1000], &[128, 512, 2048], 10) };
        for (&n, &t) in widths.iter().flat_map(|n| steps.iter().map(move |t| (n, t))) {
            let batch = if self.args.small { 2 } else { 128 };
            let cell = LayerCell::new(LayerModel::Block, [batch, t, 1000, n], repeats);
            let time = time_layer(&self.device, &cell)?;
            let floor = Floor::new(limits, &cell, &time).total();
            let (ours, shape) = (time.total_s(), format!("block layer, n {n}, T {t}, batch {batch}"));
            let times = ours / floor;
            let found = format!("{}, {times:.2} times the floor", timing::show(ours));
            self.speed(Part::Layers, &shape, (found, times), Some(("1.5 times the floor", times <= 1.5)));
            for (peer, bar) in [("block", 10.0), ("single", 50.0)] {
                let Some(peers) = &peers else { continue };
                let cell = PeerCell { device: Cuda::PEER.into(), ..peer_cell(peer, &cell, 0, false) };
                let what = format!("{shape}: PyTorch's {peer}");
                let theirs = match peers.time(&cell) {
                    Ok(time) => time.total_s(),
                    Err(error) => {
                        self.find(Part::Layers, what, (format!("not timed: {error:#}"), None), ("", None));
                        continue;
                    }
                };
                let ratio = theirs / ours;
                let found = format!("{}, {ratio:.1} times as long", timing::show(theirs));
                let asked = format!("{bar:.0} times");
                let asked = (peer == "block" || n == 100).then_some((asked.as_str(), ratio >= bar));
                self.speed(Part::Layers, what, (found, ratio), asked);
            }
        }
        if peers.is_none() {
            let what = "PyTorch's layers";
            self.find(Part::Layers, what, ("not timed: name a Python with --peer-python".into(), None), ("", None));
        }
        Ok(())
    }

    /// The layer of an SHD-sized network, queued kernel by kernel and replayed as a whole: the latter has no gaps.
    fn busy(&mut self) -> Result<()> {
        let (cell, repeats) = if self.args.small {
            (LayerCell::new(LayerModel::Block, [2, 20, 70, 33], 1), 2)
        } else {
            (LayerCell::new(LayerModel::Block, [128, 250, 700, 256], 1), 50)
        };
        let device = &self.device;
        let mut layer = Fused::new(device, &cell)?;
        let rate = Rate::Density(0.02);
        layer.load(device, poisson_spikes(cell.batch, cell.steps, cell.n_in, rate, 1))?;
        let mut step = || {
            layer.queue_forward(device)?;
            layer.queue_ones(device)?;
            layer.queue_backward(device)
        };
        let queued = each(device, repeats, || Ok(step()?))?;
        let Some(recording) = device.record(&mut step)? else { return Ok(()) };
        let replayed = each(device, repeats, || Ok(device.replay(&recording)?))?;
        let share = replayed / queued;
        let found = format!(
            "{:.0} %: {} replayed, {} queued one by one",
            100.0 * share,
            timing::show(replayed),
            timing::show(queued)
        );
        let what = "GPU at work in a step of an SHD-sized layer";
        self.speed(Part::Busy, what, (found, share), Some(("90 %", share >= 0.9)));
        Ok(())
    }

    fn table(&self) -> Table {
        let columns = ["part", "what", "found", "asked", ""].map(Column::words);
        let mut table = Table::new("gpu-check", self.device.info().name.clone(), columns.to_vec());
        for f in &self.findings {
            let verdict = f.passed.map_or("", |passed| if passed { "ok" } else { "FAILED" });
            table.row([&f.part.name(), &f.what, &f.found, &f.asked, verdict].map(Cell::text));
        }
        table
    }
}

/// A program on the search path.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Seconds of one repeat of some work, the best of three rounds with one wait each.
fn each(device: &Cuda, repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        device.synchronise()?;
        let start = Instant::now();
        for _ in 0..repeats {
            work()?;
        }
        device.synchronise()?;
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    Ok(best)
}
