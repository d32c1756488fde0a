//! `snn data`: what data sets there are, and getting them.

use anyhow::Result;
use snn_data::{DownloadOptions, OpenOptions, registry, store, synth};

use super::data_dir;
use crate::args::{Data, Download, Generate, Names};
use crate::console::{self, Transfers};
use crate::report::{Cell, Column, Table};

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
        let got = snn_data::download(name, &options, &mut Transfers::new(quiet))?;
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
    let columns = ["set", "split", "published samples", "samples here", "state", "label"].map(Column::words).into();
    let mut table = Table::new("info", "Data sets here", columns);
    for name in &args.names {
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

fn generate(args: &Generate, quiet: bool) -> Result<()> {
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
