//! What neurons did after each epoch: spikes of one sample, and mean spikes by class, as pictures and as animations.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use snn_train::monitor::Snapshot;

use super::run_log::RunLog;
use crate::report::animation::gif;
use crate::report::draw::draw;
use crate::report::{Axis, Figure, Heat, Panel, Raster, files};

/// Neurons that are drawn apart, wide enough to be told from each other.
const FIRST: usize = 100;
/// Cells that fit side by side; more neurons are drawn as means of neighbours.
const CELLS: usize = 1000;
/// Neurons whose numbers all fit along an axis.
const NAMED: usize = 16;

/// Writes `raster` and one `heat-LAYER` per layer, each as a picture of the last epoch and as an animation over all.
pub(super) fn write(run: &RunLog, directory: &Path) -> Result<Vec<PathBuf>> {
    let snapshots = read(&run.directory)?;
    let Some(last) = snapshots.last() else { return Ok(Vec::new()) };
    let mut written = vec![animate(directory, "raster", snapshots.len(), |i| raster(&snapshots, &snapshots[i]))?];
    for layer in 0..last.heat.len() {
        let name = format!("heat-{layer}");
        written.push(animate(directory, &name, snapshots.len(), |i| heat(&snapshots, &snapshots[i], layer))?);
    }
    Ok(written)
}

/// The snapshots of a run, all of the same model.
fn read(run: &Path) -> Result<Vec<Snapshot>> {
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for path in Snapshot::list(run)? {
        let snapshot = Snapshot::read(&path)?;
        if let Some(first) = snapshots.first() {
            let shapes = |s: &Snapshot| s.heat.iter().map(|map| map.dim()).collect::<Vec<_>>();
            let same = snapshot.raster.len() == first.raster.len() && shapes(&snapshot) == shapes(first);
            ensure!(same, "{}: has other layers than the snapshots before it; is it of another run?", path.display());
        }
        snapshots.push(snapshot);
    }
    Ok(snapshots)
}

/// Writes frame after frame as `NAME.gif`, and the last one as `NAME.png`; says where the animation is.
fn animate(directory: &Path, name: &str, count: usize, figure: impl Fn(usize) -> Figure) -> Result<PathBuf> {
    let Some(last) = count.checked_sub(1) else { bail!("{name}: there is no frame") };
    files::write_atomically(&directory.join(format!("{name}.png")), &draw(&figure(last))?.png()?)?;
    let path = directory.join(format!("{name}.gif"));
    files::write_atomically(&path, &gif(count, |i| draw(&figure(i)))?)?;
    Ok(path)
}

fn layer_title(layer: usize, layers: usize) -> String {
    if layer + 1 == layers { format!("layer {layer} (output)") } else { format!("layer {layer}") }
}

/// The spikes of the sample, a panel per layer; all frames have the same axes.
fn raster(all: &[Snapshot], shown: &Snapshot) -> Figure {
    let layers = shown.raster.len();
    let times = all.iter().flat_map(|s| &s.raster).flat_map(|layer| &layer.times).filter(|t| t.is_finite());
    let (first, last) = times.fold((0.0_f32, 0.0_f32), |(low, high), t| (low.min(*t), high.max(*t)));
    let (first, last) = if last > first { (f64::from(first), f64::from(last)) } else { (0.0, 1.0) };
    let title = format!("A test sample of class {}, epoch {}", shown.label, shown.epoch);
    let mut figure = Figure::new("raster", title, 1);
    for (k, layer) in shown.raster.iter().enumerate() {
        let highest = all.iter().flat_map(|s| &s.raster[k].units).max().map_or(1, |unit| *unit as usize + 1);
        let width = shown.heat.get(k).map_or(highest, |map| map.ncols());
        let events = |wanted: &dyn Fn(u32) -> bool| -> Vec<(f64, f64)> {
            let spikes = layer.times.iter().zip(&layer.units).filter(|(_, unit)| wanted(**unit));
            spikes.map(|(time, unit)| (f64::from(*time), f64::from(*unit))).collect()
        };
        let raster = if k + 1 == layers {
            Raster::default()
                .group("other classes", events(&|unit| unit != shown.label))
                .group("the sample's class", events(&|unit| unit == shown.label))
        } else {
            Raster::default().group("", events(&|_| true))
        };
        let (end, free) = (width as f64 - 0.5, width as f64 * 0.02);
        let mut y = Axis::linear("neuron").limits(-0.5 - free, end + free);
        if width <= NAMED {
            y = y.names((0..width).map(|unit| (unit as f64, unit.to_string())));
        }
        let x = Axis::linear("time (s)").limits(first, last + (last - first) * 0.02);
        figure = figure.panel(Panel::new(layer_title(k, layers), x, y, raster));
    }
    figure
}

/// The mean spikes of a layer by class: its first neurons, and all of them; all frames have the same colours.
fn heat(all: &[Snapshot], shown: &Snapshot, layer: usize) -> Figure {
    let map = &shown.heat[layer];
    let values = all.iter().flat_map(|s| &s.heat[layer]).copied().filter(|v| v.is_finite());
    let top = values.fold(0.0_f32, f32::max);
    let top = if top > 0.0 { f64::from(top) } else { 1.0 };
    let panel = |title: String, neurons: usize, together: usize| {
        let cells = neurons.div_ceil(together);
        let row = |class: usize| -> Vec<Option<f64>> {
            let cell = |c: usize| {
                let range = c * together..((c + 1) * together).min(neurons);
                let of: Vec<f64> = range.map(|n| f64::from(map[[class, n]])).filter(|v| v.is_finite()).collect();
                (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64)
            };
            (0..cells).map(cell).collect()
        };
        let names = (0..cells).map(|c| (c * together).to_string());
        let classes = (0..map.nrows()).map(|class| class.to_string());
        let rows = (0..map.nrows()).map(row).collect();
        let mut heat = Heat::new(names, classes, rows, "spikes per sample").limits(0.0, top);
        heat.annotate = false;
        Panel::new(title, "neuron", "class", heat)
    };
    let width = map.ncols();
    let title = format!("Mean spikes by class, {}, epoch {}", layer_title(layer, shown.heat.len()), shown.epoch);
    let mut figure = Figure::new(format!("heat-{layer}"), title, 1);
    if width > FIRST {
        figure = figure.panel(panel(format!("first {FIRST} neurons"), FIRST, 1));
    }
    let together = width.div_ceil(CELLS).max(1);
    let means = if together > 1 { format!(", means of {together} neighbours") } else { String::new() };
    figure.panel(panel(format!("all {width} neurons{means}"), width, together))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;
    use snn_train::monitor::{HeatMap, LayerRaster};

    fn snapshot(epoch: u32, peak: f32) -> Snapshot {
        let layer = |times: Vec<f32>, units: Vec<u32>| LayerRaster { times, units };
        let heat =
            |width| HeatMap::from_shape_fn((2, width), |(c, n)| if c == 1 { peak * (n % 2) as f32 } else { f32::NAN });
        Snapshot {
            epoch,
            label: 1,
            raster: vec![layer(vec![0.1 * peak], vec![3]), layer(vec![0.2, 0.3], vec![1, 0])],
            heat: vec![heat(2300), heat(2)],
        }
    }

    fn heats(figure: &Figure) -> Vec<&Heat> {
        figure.panels.iter().filter_map(|p| if let Kind::Heat(heat) = &p.kind { Some(heat) } else { None }).collect()
    }

    #[test]
    fn colours_and_axes_are_the_same_in_all_frames() {
        let all = [snapshot(1, 4.0), snapshot(2, 8.0)];
        for shown in &all {
            let figure = heat(&all, shown, 0);
            assert!(heats(&figure).iter().all(|h| h.colours.limits == Some((0.0, 8.0))));
            let x: Vec<_> = raster(&all, shown).panels.iter().map(|p| p.x.limits).collect();
            assert!(x.iter().all(|limits| limits.is_some_and(|(a, b)| a == 0.0 && (b - 0.816).abs() < 1e-6)), "{x:?}");
        }
    }

    #[test]
    fn wide_layers_are_drawn_as_their_first_neurons_and_means_of_all() {
        let all = [snapshot(1, 4.0)];
        let figure = heat(&all, &all[0], 0);
        let titles: Vec<&str> = figure.panels.iter().map(|p| &*p.title).collect();
        assert_eq!(titles, ["first 100 neurons", "all 2300 neurons, means of 3 neighbours"]);
        let maps = heats(&figure);
        assert_eq!((maps[0].x_ticks.len(), maps[1].x_ticks.len()), (100, 767));
        assert_eq!((maps[0].values[1][1], maps[0].values[0][1]), (Some(4.0), None));
        assert_eq!((maps[1].values[1][0], &*maps[1].x_ticks[1]), (Some(4.0 / 3.0), "3"));
        assert_eq!(heat(&all, &all[0], 1).panels.len(), 1);
    }
}
