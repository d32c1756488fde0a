//! `snn presets`: every published experiment and the row that it stands for.

use anyhow::Result;
use snn_train::presets;

use crate::args::Presets;
use crate::console;
use crate::report::{Cell, Column, Measured, Table};

pub(crate) fn run(args: &Presets) -> Result<()> {
    if let Some(name) = &args.show {
        let preset = presets::find(name)?;
        return console::line(format_args!("# {}\n{}", preset.title, preset.experiment.to_toml()));
    }
    let wanted = presets::all().into_iter().filter(|p| args.filter.as_ref().is_none_or(|f| p.name.contains(f)));
    if args.json {
        return wanted.into_iter().try_for_each(|p| console::json(&p));
    }
    let columns = vec![
        Column::words("preset"),
        Column::words("what"),
        Column::numbers("published accuracy", "%"),
        Column::numbers("published spikes", "per sample"),
    ];
    let mut table = Table::new("presets", "Presets and the published rows they stand for", columns);
    for p in wanted {
        let row = p.published.unwrap_or_default();
        let accuracy = p.published.map(|r| measured(r.accuracy, r.accuracy_sd));
        let spikes = row.spikes.map(|s| measured(s, row.spikes_sd));
        let cell =
            |value: Option<Measured>, decimals| value.map_or_else(|| Cell::text("-"), |v| Cell::number(v, decimals));
        table.row([Cell::text(p.name), Cell::text(p.title), cell(accuracy, 2), cell(spikes, 1)]);
    }
    console::line(table.terminal())
}

/// A published value with its deviation.
fn measured(mean: f64, sd: Option<f64>) -> Measured {
    sd.map_or_else(|| Measured::value(mean), |sd| Measured::with_sd(mean, sd))
}
