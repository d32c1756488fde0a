//! `snn bench`: how fast the hot operations and whole layers are, and how near to what the machine can do.
//!
//! | file | holds |
//! |---|---|
//! | `ops.rs` | every hot operation at a small, a typical and a large size |
//! | `filtered.rs` | one scan of neurons with two filters, with random numbers drawn or given |
//! | `alif.rs` | layers of adaptive neurons, for `layer.rs` |
//! | `layer.rs` | a whole layer with the published protocol, and the floor under its time |
//! | `events.rs` | event-driven training of a published network, and the floor under its time |
//! | `networks.rs` | training steps of whole single-spike networks |
//! | `device.rs` | what benchmarks ask of a device beside its operations |
//! | `peer.rs` | the same layer in PyTorch, timed by the script in `peers/` |
//! | `timing.rs` | medians and spreads |
//!
//! The machine's limits are measured at the start of every run ([`snn_cpu::limits`]): a share of a limit that was
//! measured on another day, or on another machine, would mean nothing.

mod alif;
pub(crate) mod device;
mod events;
pub(crate) mod filtered;
pub(crate) mod layer;
mod networks;
mod ops;
pub(crate) mod peer;
pub(crate) mod timing;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snn_cpu::Cpu;
use snn_cpu::limits::Limits;

use crate::args::{BenchArgs, BenchWhat};
use crate::console;
use crate::device::{Device, on_device};
use crate::report::files::write_atomically;
use crate::report::{Cell, Column, Machine, Table};
use crate::usage;

use device::Timeable;
pub(crate) use layer::LayerModel;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    check(args)?;
    match args.what {
        BenchWhat::Layer | BenchWhat::Networks => {
            on_device!(Device::open(&args.device, args.threads)?, device => either(&device, args, quiet))
        }
        BenchWhat::Ops | BenchWhat::Events => {
            let cpu = Device::processor(&args.device, args.threads)?;
            measured(&cpu, args, quiet, |limits, lines| processor(&cpu, limits, args, quiet, lines))
        }
    }
}

/// What runs on any device.
fn either<D: Timeable>(device: &D, args: &BenchArgs, quiet: bool) -> Result<()> {
    measured(device, args, quiet, |limits, lines| {
        if args.what == BenchWhat::Layer {
            let cells = layer::run(device, limits, args, quiet, lines)?;
            if !lines {
                console::line(layer::table(&cells).terminal())?;
            }
            return Ok(cells.iter().map(layer::Outcome::json).collect());
        }
        let times = networks::run(device, limits, args)?;
        match lines {
            true => times.iter().try_for_each(|t| console::json(&t.json()))?,
            false => console::line(networks::table(&times).terminal())?,
        }
        Ok(times.iter().map(networks::NetworkTimes::json).collect())
    })
}

/// What runs on the processor alone.
fn processor(cpu: &Cpu, limits: &Limits, args: &BenchArgs, quiet: bool, lines: bool) -> Result<Vec<Value>> {
    if args.what == BenchWhat::Ops {
        let ops = ops::run(cpu, limits, args, quiet, lines)?;
        if !lines {
            console::line(ops::table(&ops).terminal())?;
        }
        return Ok(ops.iter().map(ops::OpTime::json).collect());
    }
    let data_dir = crate::commands::data_dir(args.data_dir.as_deref());
    let data = snn_data::OpenOptions { data_dir, ..snn_data::OpenOptions::default() };
    let times = events::run(cpu, limits, &data, args.repeats)?;
    match lines {
        true => times.iter().try_for_each(|t| console::json(&t.json()))?,
        false => console::line(events::table(&times)?.terminal())?,
    }
    Ok(times.iter().map(events::EventTimes::json).collect())
}

/// Measures the limits, runs the benchmark, compares and writes.
fn measured<D: Timeable>(
    device: &D,
    args: &BenchArgs,
    quiet: bool,
    benchmark: impl FnOnce(&Limits, bool) -> Result<Vec<Value>>,
) -> Result<()> {
    let earlier = args.compare.as_deref().map(earlier).transpose()?;
    let lines = matches!(args.json, Some(None));
    let machine = Machine::detect();
    if !machine.optimised {
        console::message("warning: built without optimisation: these times mean nothing (build with --release)");
    }
    let limits = device.limits()?;
    if lines {
        console::json(&json!({ "kind": "limits", "machine": machine, "limits": limits_json(&limits) }))?;
    } else {
        console::line(limits_line(device, &limits))?;
    }
    let records = benchmark(&limits, lines)?;
    if let Some(earlier) = &earlier {
        let table = compared(earlier, &records);
        if lines { console::message(table.terminal()) } else { console::line(table.terminal())? }
    }
    if let Some(Some(file)) = &args.json {
        let document = json!({
            "format": 1,
            "machine": machine,
            "device": snn_core::backend::Memory::describe(device),
            "limits": limits_json(&limits),
            "command": std::env::args().collect::<Vec<_>>().join(" "),
            "finished": crate::report::machine::utc_now(),
            "records": records,
        });
        let mut text = serde_json::to_vec_pretty(&document).context("the results cannot be written as JSON")?;
        text.push(b'\n');
        write_atomically(file, &text)?;
        if !quiet {
            console::message(format_args!("written: {}", file.display()));
        }
    }
    Ok(())
}

fn check(args: &BenchArgs) -> Result<()> {
    let empty = |name: &str, values: &[usize]| {
        if name != "batch" && values.is_empty() || values.contains(&0) {
            Err(usage(format!("--{name}: expected numbers above 0")))
        } else {
            Ok(())
        }
    };
    empty("batch", &args.batch)?;
    empty("steps", &args.steps)?;
    empty("n", &args.n)?;
    empty("n-in", &[args.n_in])?;
    empty("repeats", &[args.repeats])?;
    empty("layers", &[args.layers])?;
    if let Some(d) = args.density.filter(|d| !(0.0..1.0).contains(d)) {
        return Err(usage(format!("--density {d}: expected a share in [0, 1)")));
    }
    if !args.peer.is_empty() && args.peer_python.is_none() {
        return Err(usage("--peer needs --peer-python: a Python with torch"));
    }
    if !matches!(args.what, BenchWhat::Layer | BenchWhat::Networks) && args.peer_python.is_some() {
        return Err(usage("--peer-python: peers are timed by `snn bench layer` and `snn bench networks` only"));
    }
    if let Some(Some(file)) = &args.json {
        // `--json layer` is a forgotten order of words, hardly a file.
        if ["ops", "layer", "events", "networks"].iter().any(|word| file.as_os_str() == *word) {
            let word = file.display();
            return Err(usage(format!("--json {word}: expected a file; write `snn bench {word} --json`")));
        }
    }
    Ok(())
}

pub(crate) fn limits_json(limits: &Limits) -> Value {
    let rate = |r: snn_cpu::limits::Rate| json!({ "one_thread": r.one, "all_threads": r.all });
    json!({
        "threads": limits.threads,
        "copy_bytes_per_s": rate(limits.copy),
        "fma_flops_per_s": rate(limits.fma),
        "row_add_elements_per_s": rate(limits.row_add),
    })
}

/// The limits in one paragraph.
pub(crate) fn limits_line<D: Timeable>(device: &D, limits: &Limits) -> String {
    let giga = |x: f64| x / 1e9;
    let what = device.describe();
    if limits.threads == 0 {
        return format!(
            "{what}\nlimits measured now: copy {:.1} GB/s; f32 products {:.0} GFLOP/s; row adds {:.1} G elements/s\n",
            giga(limits.copy.all),
            giga(limits.fma.all),
            giga(limits.row_add.all),
        );
    }
    format!(
        "{what}\nlimits measured now (one thread, all threads): copy {:.1}, {:.1} GB/s; f32 multiply-adds {:.0}, {:.0} \
         GFLOP/s; row adds {:.1}, {:.1} G elements/s\n",
        giga(limits.copy.one),
        giga(limits.copy.all),
        giga(limits.fma.one),
        giga(limits.fma.all),
        giga(limits.row_add.one),
        giga(limits.row_add.all),
    )
}

/// Median seconds of every record, by its key.
type Medians = BTreeMap<String, f64>;

fn medians(records: &[Value]) -> Medians {
    let entries = records.iter().filter_map(|r| Some((r["key"].as_str()?.to_owned(), r["median_s"].as_f64()?)));
    entries.collect()
}

/// The records of an earlier `--json FILE`.
fn earlier(file: &Path) -> Result<Medians> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let records = document["records"].as_array();
    let records = records.with_context(|| format!("{}: not written by `snn bench --json FILE`", file.display()))?;
    Ok(medians(records))
}

/// Now against earlier, for what both runs measured.
fn compared(earlier: &Medians, records: &[Value]) -> Table {
    let columns = vec![
        Column::words("what"),
        Column::numbers("earlier", "ms"),
        Column::numbers("now", "ms"),
        Column::numbers("now / earlier", ""),
    ];
    let mut table = Table::new("compared", "Against the earlier run (below 1 is faster)", columns);
    let now = medians(records);
    for (key, &median) in &now {
        if let Some(&before) = earlier.get(key) {
            let ms = |s: f64| Cell::number(crate::report::Measured::value(1e3 * s), 3);
            let ratio = crate::report::Measured::value(median / before);
            table.row([Cell::text(&**key), ms(before), ms(median), Cell::number(ratio, 2)]);
        }
    }
    if table.rows.is_empty() {
        table.note("The two runs have nothing in common.");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_runs_measured_is_compared() {
        let record = |key: &str, s: f64| json!({ "key": key, "median_s": s });
        let earlier = medians(&[record("a", 2.0), record("b", 1.0)]);
        let table = compared(&earlier, &[record("a", 1.0), record("c", 1.0)]);
        assert_eq!(table.rows.len(), 1);
        assert!(table.terminal().contains("0.50"));
    }
}
