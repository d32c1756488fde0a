//! `snn data`: what data sets there are, and getting them.

use std::path::Path;

use anyhow::Result;
use snn_data::ephys::{allen, session};
use snn_data::{DownloadOptions, OpenOptions, registry, store, synth};

use super::data_dir;
use crate::args::{Data, Download, Generate, Names};
use crate::console::{self, Transfers};
use crate::report::{Cell, Column, Table};
use crate::usage;

pub(crate) fn run(args: &Data, quiet: bool) -> Result<()> {
    match args {
        Data::List => list(),
        Data::Download(args) => download(args, quiet),
        Data::Convert(args) => convert(args, quiet),
        Data::Info(args) => info(args),
        Data::Generate(args) => generate(args, quiet),
    }
}

fn list() -> Result<()> {
    let columns = vec![Column::words("name"), Column::words("what"), Column::words("samples"), Column::words("from")];
    let mut table = Table::new("sets", "Data sets", columns);
    for set in registry::all() {
        let samples: Vec<String> = set.splits.iter().map(|s| format!("{} {}", s.samples, s.name)).collect();
        let cells = [set.name.clone(), set.title.clone(), samples.join(", "), set.homepage.clone()];
        table.row(cells.map(Cell::text));
    }
    for set in synth::all() {
        let samples = format!("{} train, {} test", set.samples[0], set.samples[1]);
        table.row([set.name, set.title, &samples, "generated"].map(Cell::text));
    }
    for weights in registry::weights() {
        table.row([&weights.name, &weights.title, "weights", &weights.homepage].map(Cell::text));
    }
    for set in registry::recordings() {
        let cells = format!("{} neurons, and others by number", set.cells.len());
        table.row([&set.name, &set.title, &cells, &set.homepage].map(Cell::text));
    }
    let cells = format!("{} neurons", session::SessionOptions::default().cells);
    let title = "Recordings of adaptive LIF neurons with known parameters, in the format of allen-cells";
    table.row([session::NAME, title, &cells, "generated"].map(Cell::text));
    console::line(table.terminal())
}

fn download(args: &Download, quiet: bool) -> Result<()> {
    let options = DownloadOptions {
        data_dir: data_dir(args.names.data_dir.as_deref()),
        mirror: args.mirror.clone(),
        offline: args.offline,
        accept_nonstandard: args.accept_nonstandard,
        ..DownloadOptions::default()
    };
    for name in &args.names.names {
        let progress = &mut Transfers::new(quiet);
        let got = match (allen::find(name), &args.cells) {
            (Some(set), Some(cells)) => allen::download(set, cells, &options, progress)?,
            (None, Some(_)) => return Err(usage(format!("`--cells` is for recordings, which `{name}` is not"))),
            (_, None) => snn_data::download(name, &options, progress)?,
        };
        let label = got.label.map_or(String::new(), |l| format!(" [{l}: not the published data set]"));
        let (fetched, files) = (got.fetched, got.files.len());
        console::line(format_args!("{name}: {fetched} of {files} files fetched into {}{label}", got.folder.display()))?;
    }
    Ok(())
}

fn convert(args: &Names, quiet: bool) -> Result<()> {
    for name in &args.names {
        for path in snn_data::convert(name, &data_dir(args.data_dir.as_deref()), &mut Transfers::new(quiet))? {
            console::line(format_args!("{name}: {}", path.display()))?;
        }
    }
    Ok(())
}

fn info(args: &Names) -> Result<()> {
    let dir = data_dir(args.data_dir.as_deref());
    let (recorded, sets): (Vec<_>, Vec<_>) = args.names.iter().partition(|name| allen::find(name).is_some());
    for set in recorded.iter().filter_map(|name| allen::find(name)) {
        recordings(set, &dir)?;
    }
    if sets.is_empty() {
        return Ok(());
    }
    let columns = ["set", "split", "published samples", "samples here", "state", "label"].map(Column::words).into();
    let mut table = Table::new("info", "Data sets here", columns);
    for name in sets {
        for split in snn_data::info(name, &dir)? {
            let here = split.samples.map_or_else(|| "-".into(), |n| n.to_string());
            let state = match (&split.converted, split.downloaded) {
                (Some(path), _) => format!("converted: {}", path.display()),
                (None, true) => "downloaded, not converted".into(),
                (None, false) => format!("not here: snn data download {name}"),
            };
            let label = split.label.unwrap_or_default();
            table.row([name.clone(), split.split, split.published.to_string(), here, state, label].map(Cell::text));
        }
    }
    console::line(table.terminal())
}

/// What is here of a collection of recordings, neuron by neuron.
fn recordings(set: &registry::Recordings, dir: &Path) -> Result<()> {
    let columns = ["neuron", "layer", "dendrite", "sweeps", "state", "label"].map(Column::words).into();
    let mut table = Table::new("recordings", format!("{}: recordings here", set.name), columns);
    let folder = allen::folder(dir);
    for info in allen::info(&folder, &set.cells)? {
        let sweeps: Vec<String> = info.sweeps.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let state = match info.bytes {
            Some(bytes) => format!("downloaded, {:.1} MB", bytes as f64 / 1e6),
            None => format!("not here: snn data download {} --cells {}", set.name, info.cell.id),
        };
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let (layer, dendrite) = (known(info.cell.layer), known(info.cell.dendrite));
        let label = info.cell.label.unwrap_or_default();
        table.row([info.cell.id.to_string(), layer, dendrite, sweeps.join(", "), state, label].map(Cell::text));
    }
    console::line(table.terminal())
}

/// Writes recordings of neurons that are computed.
fn sessions(args: &Generate, quiet: bool) -> Result<()> {
    if args.vlen || args.split != "train" {
        let name = session::NAME;
        return Err(usage(format!("`{name}` has no splits and one layout: leave `--split` and `--vlen` out")));
    }
    let mut options = session::SessionOptions::default();
    options.cells = args.samples.unwrap_or(options.cells);
    options.seed = args.seed.unwrap_or(options.seed);
    let ids = session::write(&args.out, &options, &mut Transfers::new(quiet))?;
    let (name, label) = (session::NAME, session::LABEL);
    console::line(format_args!("{name}: {} neurons [{label}] in {}", ids.len(), args.out.display()))
}

fn generate(args: &Generate, quiet: bool) -> Result<()> {
    if args.name == session::NAME {
        return sessions(args, quiet);
    }
    let options = OpenOptions { samples: args.samples, seed: args.seed, ..OpenOptions::default() };
    let source = snn_data::open(&args.name, &args.split, &options)?;
    let progress = &mut Transfers::new(quiet);
    if args.vlen {
        store::write_vlen(&*source, &args.out, progress)?;
    } else {
        store::materialise(&*source, &args.out, progress)?;
    }
    console::line(format_args!("{}: {} samples in {}", source.name(), source.len(), args.out.display()))
}
