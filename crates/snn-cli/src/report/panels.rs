//! What each kind of panel puts into its plot area, and the axes and legend entries it needs.

use super::axis::{Ruler, alike};
use super::colour::{self, ColourMap, EMPTY, INK, SOFT, text_on};
use super::figure::{
    Bars, BoxStatistics, Boxes, Heat, Kind, Lines, Marker, Panel, Point, Raster, Reference, Scale, Series, Spread,
    Stroke,
};
use super::marks::{Anchor, HOLLOW, Mark, text, thinned};
use super::plan::{Entry, Frame, LABEL, Sample, TICK, draw_marker, draw_stroke};
use super::text::{widest, width};

/// Size of numbers on bars and cells.
const VALUE: u32 = 11;
/// Width of a colour bar and its distance from the cells.
const COLOUR_BAR: (f64, f64) = (12.0, 12.0);

/// One direction of a plot area.
#[derive(Clone, Debug)]
pub(super) enum Across {
    /// Values on a scale.
    Values(Ruler),
    /// Equal slots, each with a name.
    Names(Vec<String>),
}

/// Both directions.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    pub(super) x: Across,
    pub(super) y: Across,
    /// Whether value labels on bars are turned to fit.
    pub(super) turned: bool,
}

/// The axes of a panel whose plot area is about `width` by `height`.
pub(super) fn axes(panel: &Panel, width: f64, height: f64) -> Axes {
    let x = |values: Vec<f64>, pad| match panel.x.limits {
        Some((from, to)) => Ruler::fixed(panel.x.scale, from, to),
        None => Ruler::spanning(panel.x.scale, values, pad),
    };
    let y = |values: Vec<f64>, below, above| match panel.y.limits {
        Some((from, to)) => Ruler::fixed(panel.y.scale, from, to),
        None => Ruler::around(panel.y.scale, values, below, above),
    };
    match &panel.kind {
        Kind::Lines(lines) => {
            let points = || lines.series.iter().flat_map(|series| series.points.iter().map(move |p| (series, p)));
            let dense = lines.series.iter().all(|series| marker_of(series, width) == Marker::None);
            let xs = points().map(|(_, p)| p.x).collect();
            let ys = points().flat_map(|(series, p)| extent(p, series.spread)).chain(at_references(&lines.references));
            Axes {
                x: Across::Values(x(xs, if dense { 0.0 } else { 0.035 })),
                y: Across::Values(y(ys.collect(), 0.05, 0.05)),
                turned: false,
            }
        }
        Kind::Bars(bars) => {
            let mut ys: Vec<f64> = bars
                .groups
                .iter()
                .flat_map(|g| g.values.iter().flatten())
                .flat_map(|p| extent(p, Spread::Bars))
                .collect();
            let negative = ys.iter().any(|v| *v < 0.0);
            ys.extend(at_references(&bars.references));
            if panel.y.scale == Scale::Linear {
                ys.push(0.0);
            }
            let turned = labels_turned(bars, width);
            let room = if bars.labels { label_room(bars, turned) / height } else { 0.04 };
            let below = if !negative { 0.03 } else { room.max(0.04) };
            let positive = ys.iter().any(|v| *v > 0.0);
            Axes {
                x: Across::Names(bars.categories.clone()),
                y: Across::Values(y(ys, below, if positive { room.max(0.04) } else { 0.04 })),
                turned,
            }
        }
        Kind::Boxes(boxes) => {
            let ys = boxes.groups.iter().flat_map(|group| &group.samples).flatten().copied();
            Axes {
                x: Across::Names(boxes.categories.clone()),
                y: Across::Values(y(ys.collect(), 0.06, 0.06)),
                turned: false,
            }
        }
        Kind::Heat(heat) => {
            Axes { x: Across::Names(heat.x_ticks.clone()), y: Across::Names(heat.y_ticks.clone()), turned: false }
        }
        Kind::Raster(raster) => {
            let events = || raster.groups.iter().flat_map(|group| &group.events);
            Axes {
                x: Across::Values(x(events().map(|e| e.0).collect(), 0.01)),
                y: Across::Values(y(events().map(|e| e.1).collect(), 0.03, 0.03)),
                turned: false,
            }
        }
        Kind::Note { .. } => Axes { x: Across::Names(Vec::new()), y: Across::Names(Vec::new()), turned: false },
    }
}

fn at_references(references: &[Reference]) -> impl Iterator<Item = f64> + '_ {
    references.iter().map(|reference| reference.value)
}

/// The value and, where they are drawn, the ends of its spread.
fn extent(point: &Point, spread: Spread) -> impl Iterator<Item = f64> {
    let ends = if spread == Spread::None { [None; 2] } else { [point.low, point.high] };
    std::iter::once(point.y).chain(ends.into_iter().flatten())
}

/// The legend of a panel; nothing for a single unnamed series.
pub(super) fn entries(panel: &Panel) -> Vec<Entry> {
    let box_of = |name: &str, index: usize, colour: Option<usize>, hollow| Entry {
        name: name.to_owned(),
        sample: Sample::Box { colour: colour::series(colour.unwrap_or(index), 0.0), hollow },
    };
    let mut entries: Vec<Entry> = match &panel.kind {
        Kind::Lines(lines) => lines
            .series
            .iter()
            .enumerate()
            .map(|(i, series)| Entry {
                name: series.name.clone(),
                sample: Sample::Line {
                    colour: colour::series(series.colour.unwrap_or(i), series.fade),
                    stroke: series.stroke,
                    marker: marker_of(series, 400.0),
                },
            })
            .collect(),
        Kind::Bars(bars) if bars.groups.len() == 1 => Vec::new(),
        Kind::Bars(bars) => {
            bars.groups.iter().enumerate().map(|(i, g)| box_of(&g.name, i, g.colour, g.hollow)).collect()
        }
        Kind::Boxes(boxes) if boxes.groups.len() == 1 => Vec::new(),
        Kind::Boxes(boxes) => {
            boxes.groups.iter().enumerate().map(|(i, g)| box_of(&g.name, i, g.colour, false)).collect()
        }
        Kind::Raster(raster) => {
            raster.groups.iter().enumerate().map(|(i, g)| box_of(&g.name, i, g.colour, false)).collect()
        }
        Kind::Heat(_) | Kind::Note { .. } => Vec::new(),
    };
    entries.retain(|entry| !entry.name.trim().is_empty());
    entries
}

/// Room right of the plot area: half a tick label, reference labels, or a colour bar.
pub(super) fn right_margin(panel: &Panel, axes: &Axes) -> f64 {
    let references = match &panel.kind {
        Kind::Lines(Lines { references, .. }) | Kind::Bars(Bars { references, .. }) => &references[..],
        Kind::Heat(heat) => {
            let ticks = colours(heat).ruler.ticks(6);
            let names = widest(ticks.iter().map(|tick| &*tick.label), TICK);
            let label = if heat.colour_label.is_empty() { 0.0 } else { f64::from(LABEL) + 8.0 };
            return COLOUR_BAR.1 + COLOUR_BAR.0 + 8.0 + names + label;
        }
        _ => &[],
    };
    let labels = widest(references.iter().map(|r| &*r.label), VALUE);
    let last_tick = if matches!(axes.x, Across::Values(_)) { 10.0 } else { 0.0 };
    if labels > 0.0 { labels + 7.0 } else { last_tick }
}

/// Draws the data of a panel.
pub(super) fn draw(panel: &Panel, axes: &Axes, frame: Frame, marks: &mut Vec<Mark>) {
    match (&panel.kind, &axes.x, &axes.y) {
        (Kind::Lines(lines), Across::Values(x), Across::Values(y)) => draw_lines(lines, x, y, frame, marks),
        (Kind::Bars(bars), _, Across::Values(y)) => draw_bars(bars, axes.turned, y, frame, marks),
        (Kind::Boxes(boxes), _, Across::Values(y)) => draw_boxes(boxes, y, frame, marks),
        (Kind::Heat(heat), _, _) => draw_heat(heat, frame, marks),
        (Kind::Raster(raster), Across::Values(x), Across::Values(y)) => draw_raster(raster, x, y, frame, marks),
        _ => {}
    }
}

fn draw_references(references: &[Reference], y: &Ruler, frame: Frame, marks: &mut Vec<Mark>) {
    for reference in references.iter().filter(|r| y.can_place(r.value)) {
        let place = y.place(reference.value);
        if !(-1e-6..=1.0 + 1e-6).contains(&place) {
            continue;
        }
        let (left, right) = (frame.at(0.0, place), frame.at(1.0, place));
        marks.push(Mark::Strokes { ends: vec![[left, right]], colour: SOFT, width: 1.25 });
        let at = (right.0 + 6.0, right.1 + 4.0);
        marks.push(text(at, &*reference.label, VALUE, Anchor::Start).tinted(SOFT));
    }
}

/// A series' marker; none where points stand so dense that markers would hide the line.
fn marker_of(series: &Series, width: f64) -> Marker {
    let dense = series.points.len() as f64 * 8.0 > width;
    if dense && series.stroke != Stroke::None { Marker::None } else { series.marker }
}

fn draw_lines(lines: &Lines, x: &Ruler, y: &Ruler, frame: Frame, marks: &mut Vec<Mark>) {
    draw_references(&lines.references, y, frame, marks);
    // Markers at the edge of a plot area stay whole.
    let margin = 5.0;
    marks.push(Mark::Clip {
        at: (frame.left - margin, frame.top - margin),
        size: (frame.width + 2.0 * margin, frame.height + 2.0 * margin),
    });
    let colour_of = |i: usize, series: &Series| colour::series(series.colour.unwrap_or(i), series.fade);
    // What cannot be placed (zero on a logarithmic axis, say) sinks below the plot area, so that lines lead to it.
    let height = |value: f64| if y.can_place(value) { y.place(value).clamp(-0.5, 1.5) } else { -0.5 };
    let at = |px: f64, value: f64| frame.at(x.place(px), height(value));
    let drawable = |p: &&Point| x.can_place(p.x) && p.y.is_finite();
    for (i, series) in lines.series.iter().enumerate().filter(|(_, s)| s.spread == Spread::Band) {
        let ends = |f: fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
            let points = series.points.iter().filter(drawable);
            points.filter_map(|p| f(p).filter(|v| v.is_finite()).map(|v| at(p.x, v))).collect()
        };
        let mut outline = thinned(ends(|p| p.low));
        outline.extend(thinned(ends(|p| p.high)).into_iter().rev());
        if outline.len() > 2 {
            marks.push(Mark::Area { points: outline, fill: colour_of(i, series), opacity: 0.18, outline: None });
        }
    }
    for (i, series) in lines.series.iter().enumerate() {
        let colour = colour_of(i, series);
        let marker = marker_of(series, frame.width);
        // A value that is missing breaks the line instead of being bridged.
        for run in series.points.split(|p| !drawable(&p)) {
            let points: Vec<(f64, f64)> = run.iter().map(|p| at(p.x, p.y)).collect();
            if points.len() > 1 {
                draw_stroke(thinned(points), series.stroke, colour, marks);
            }
        }
        for point in series.points.iter().filter(drawable) {
            if series.spread == Spread::Bars {
                draw_spread(point, at(point.x, point.y).0, |v| at(point.x, v).1, 3.5, colour, marks);
            }
            if y.can_place(point.y) {
                draw_marker(at(point.x, point.y), marker, colour, marks);
            }
        }
    }
    marks.push(Mark::EndClip);
}

fn draw_spread(
    point: &Point,
    x: f64,
    height: impl Fn(f64) -> f64,
    cap: f64,
    colour: colour::Rgb,
    marks: &mut Vec<Mark>,
) {
    let ends = [point.low, point.high].map(|v| v.filter(|v| v.is_finite()));
    if ends.iter().all(Option::is_none) || ends == [Some(point.y); 2] {
        return;
    }
    let [low, high] = ends.map(|v| height(v.unwrap_or(point.y)));
    let strokes = vec![[(x, low), (x, high)], [(x - cap, low), (x + cap, low)], [(x - cap, high), (x + cap, high)]];
    marks.push(Mark::Strokes { ends: strokes, colour, width: 1.4 });
}

/// Width of the slot of one bar in a plot area of `width`.
fn bar_slot(bars: &Bars, width: f64) -> f64 {
    slot(bars.categories.len(), bars.groups.len(), width)
}

fn slot(categories: usize, groups: usize, width: f64) -> f64 {
    let cluster = width / categories.max(1) as f64;
    // A gap of a third of a cluster, and single bars that do not become slabs.
    (cluster * 0.76 / groups.max(1) as f64).min(64.0)
}

fn bar_values(bars: &Bars) -> impl Iterator<Item = f64> + '_ {
    bars.groups.iter().flat_map(|group| &group.values).flatten().map(|p| p.y).filter(|v| v.is_finite())
}

fn widest_value(bars: &Bars) -> f64 {
    let show = alike(bar_values(bars));
    bar_values(bars).map(|value| width(&show(value), VALUE)).fold(0.0, f64::max)
}

/// Whether value labels do not fit beside each other.
fn labels_turned(bars: &Bars, width: f64) -> bool {
    let cluster = width / bars.categories.len().max(1) as f64;
    let room = if bars.groups.len() == 1 { cluster } else { bar_slot(bars, width) };
    bars.labels && widest_value(bars) + 3.0 > room
}

/// Free height that value labels need beyond the bars.
fn label_room(bars: &Bars, turned: bool) -> f64 {
    10.0 + if turned { widest_value(bars) } else { f64::from(VALUE) }
}

fn draw_bars(bars: &Bars, turned: bool, y: &Ruler, frame: Frame, marks: &mut Vec<Mark>) {
    let slot = bar_slot(bars, frame.width);
    let show = alike(bar_values(bars));
    let base = if y.is_linear() { 0.0 } else { y.from() };
    let base_y = frame.at(0.0, y.place(base).clamp(0.0, 1.0)).1;
    for (g, group) in bars.groups.iter().enumerate() {
        let colour = colour::series(group.colour.unwrap_or(g), 0.0);
        for (c, point) in group.values.iter().enumerate().take(bars.categories.len()) {
            let Some(point) = point.as_ref().filter(|p| y.can_place(p.y)) else { continue };
            let middle = frame.at((c as f64 + 0.5) / bars.categories.len() as f64, 0.0).0
                + (g as f64 - (bars.groups.len() as f64 - 1.0) / 2.0) * slot;
            let height = |v: f64| frame.at(0.0, if y.can_place(v) { y.place(v).clamp(0.0, 1.0) } else { 0.0 }).1;
            let end = height(point.y);
            let inset = (slot * 0.06).min(2.0);
            marks.push(Mark::Rect {
                at: (middle - slot / 2.0 + inset, end.min(base_y)),
                size: (slot - 2.0 * inset, (end - base_y).abs()),
                fill: if group.hollow { HOLLOW } else { colour },
                outline: group.hollow.then_some((colour, 1.6)),
            });
            draw_spread(point, middle, height, (slot * 0.18).min(4.0), INK, marks);
            if bars.labels {
                let down = point.y < base;
                let tips = [Some(point.y), point.low, point.high].into_iter().flatten().map(height);
                let tip = if down { tips.fold(f64::MIN, f64::max) } else { tips.fold(f64::MAX, f64::min) };
                let label = show(point.y);
                marks.push(match (turned, down) {
                    (false, false) => text((middle, tip - 5.0), label, VALUE, Anchor::Middle),
                    (false, true) => text((middle, tip + 13.0), label, VALUE, Anchor::Middle),
                    (true, false) => text((middle + 4.0, tip - 5.0), label, VALUE, Anchor::Start).turned(-90.0),
                    (true, true) => text((middle + 4.0, tip + 5.0), label, VALUE, Anchor::End).turned(-90.0),
                });
            }
        }
    }
    if y.is_linear() && y.place(0.0) > 0.001 {
        marks.push(Mark::Strokes {
            ends: vec![[(frame.left, base_y), (frame.right(), base_y)]],
            colour: INK,
            width: 1.25,
        });
    }
    draw_references(&bars.references, y, frame, marks);
}

fn draw_boxes(boxes: &Boxes, y: &Ruler, frame: Frame, marks: &mut Vec<Mark>) {
    let slot = slot(boxes.categories.len(), boxes.groups.len(), frame.width);
    let height = |v: f64| frame.at(0.0, if y.can_place(v) { y.place(v).clamp(0.0, 1.0) } else { 0.0 }).1;
    for (g, group) in boxes.groups.iter().enumerate() {
        let index = group.colour.unwrap_or(g);
        let (colour, pale) = (colour::series(index, 0.0), colour::series(index, 0.75));
        for (c, sample) in group.samples.iter().enumerate().take(boxes.categories.len()) {
            let Some(s) = BoxStatistics::of(sample) else { continue };
            let middle = frame.at((c as f64 + 0.5) / boxes.categories.len() as f64, 0.0).0
                + (g as f64 - (boxes.groups.len() as f64 - 1.0) / 2.0) * slot;
            let half = (slot * 0.38).min(20.0);
            let cap = half * 0.5;
            let [low, first, median, third, high] = [s.low, s.first, s.median, s.third, s.high].map(height);
            let whiskers = vec![
                [(middle, first), (middle, low)],
                [(middle - cap, low), (middle + cap, low)],
                [(middle, third), (middle, high)],
                [(middle - cap, high), (middle + cap, high)],
            ];
            marks.push(Mark::Strokes { ends: whiskers, colour, width: 1.4 });
            marks.push(Mark::Rect {
                at: (middle - half, third),
                size: (2.0 * half, first - third),
                fill: pale,
                outline: Some((colour, 1.4)),
            });
            let line = vec![[(middle - half, median), (middle + half, median)]];
            marks.push(Mark::Strokes { ends: line, colour, width: 2.6 });
            // Dots side by side, so that equal values can be counted.
            let places = sample.iter().filter(|v| y.can_place(**v)).count();
            let step = (half * 1.2 / places.max(1) as f64).min(5.0);
            for (i, value) in sample.iter().filter(|v| y.can_place(**v)).enumerate() {
                let at = (middle + (i as f64 - (places as f64 - 1.0) / 2.0) * step, height(*value));
                marks.push(if s.is_outlier(*value) {
                    Mark::Dot { at, radius: 3.0, fill: HOLLOW, outline: Some((colour, 1.4)) }
                } else {
                    Mark::Dot { at, radius: 2.2, fill: INK, outline: None }
                });
            }
        }
    }
}

/// The colour scale of a heat map; around a centre both ends are equally far from it.
fn colours(heat: &Heat) -> ColourMap {
    let scale = heat.colours.scale;
    let usable = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
    let values = || heat.values.iter().flatten().flatten().copied().filter(usable);
    let ruler = match (heat.colours.limits, heat.colours.centre) {
        (Some((from, to)), _) => Ruler::fixed(scale, from, to),
        (None, Some(centre)) if scale == Scale::Linear => {
            let reach = values().map(|v| (v - centre).abs()).fold(0.0, f64::max);
            Ruler::fixed(scale, centre - reach, centre + reach)
        }
        (None, Some(centre)) if centre > 0.0 => {
            let reach = values().map(|v| (v / centre).ln().abs()).fold(0.0, f64::max);
            Ruler::fixed(scale, centre * (-reach).exp(), centre * reach.exp())
        }
        _ => {
            let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            Ruler::fixed(scale, low, high)
        }
    };
    ColourMap::new(ruler, heat.colours.centre)
}

fn draw_heat(heat: &Heat, frame: Frame, marks: &mut Vec<Mark>) {
    let map = colours(heat);
    let (columns, rows) = (heat.x_ticks.len().max(1) as f64, heat.y_ticks.len().max(1) as f64);
    let cell = (frame.width / columns, frame.height / rows);
    let gap = if cell.0.min(cell.1) > 12.0 { 1.0 } else { 0.0 };
    // Cells without a gap reach a little into the next one, so that no background shines through between them.
    let over = if gap > 0.0 { 0.0 } else { 0.5 };
    let values = || heat.values.iter().flatten().flatten().copied().filter(|v| v.is_finite());
    let show = alike(values());
    let size = (8..=VALUE).rev().find(|size| {
        let widest = values().map(|v| width(&show(v), *size)).fold(0.0, f64::max);
        widest + 3.0 <= cell.0 && f64::from(*size) + 2.0 <= cell.1
    });
    for (r, row) in heat.values.iter().enumerate().take(heat.y_ticks.len()) {
        for (c, value) in row.iter().enumerate().take(heat.x_ticks.len()) {
            let value = value.filter(|v| map.ruler.can_place(*v));
            let fill = value.map_or(EMPTY, |v| map.of(v));
            let at = (frame.left + c as f64 * cell.0, frame.bottom() - (r + 1) as f64 * cell.1);
            let right = if c + 1 < heat.x_ticks.len() { over } else { 0.0 };
            let below = if r > 0 { over } else { 0.0 };
            marks.push(Mark::Rect {
                at: (at.0 + gap / 2.0, at.1 + gap / 2.0),
                size: (cell.0 - gap + right, cell.1 - gap + below),
                fill,
                outline: None,
            });
            if let (Some(value), Some(size), true) = (value, size, heat.annotate) {
                let middle = (at.0 + cell.0 / 2.0, at.1 + cell.1 / 2.0 + f64::from(size) * 0.36);
                marks.push(text(middle, show(value), size, Anchor::Middle).tinted(text_on(fill)));
            }
        }
    }
    let left = frame.right() + COLOUR_BAR.1;
    let slices = frame.height as usize;
    for slice in 0..slices {
        let (from, to) = (slice as f64 / slices as f64, (slice + 1) as f64 / slices as f64);
        let top = frame.at(0.0, to).1;
        // Slices overlap by a little, so that no background shines through between them.
        let height = frame.at(0.0, from).1 - top + if slice > 0 { 0.5 } else { 0.0 };
        marks.push(Mark::Rect {
            at: (left, top),
            size: (COLOUR_BAR.0, height),
            fill: map.at((from + to) / 2.0),
            outline: None,
        });
    }
    let right = left + COLOUR_BAR.0;
    let ticks = map.ruler.ticks(6);
    let mut ends = Vec::new();
    for tick in &ticks {
        let y = frame.at(0.0, map.ruler.place(tick.value)).1;
        ends.push([(right, y), (right + 4.0, y)]);
        marks.push(text((right + 7.0, y + 4.3), &*tick.label, TICK, Anchor::Start));
    }
    marks.push(Mark::Strokes { ends, colour: INK, width: 1.25 });
    if !heat.colour_label.is_empty() {
        let names = widest(ticks.iter().map(|tick| &*tick.label), TICK);
        let at = (right + 8.0 + names + f64::from(LABEL) + 3.0, frame.top + frame.height / 2.0);
        marks.push(text(at, &*heat.colour_label, LABEL, Anchor::Middle).turned(-90.0));
    }
}

fn draw_raster(raster: &Raster, x: &Ruler, y: &Ruler, frame: Frame, marks: &mut Vec<Mark>) {
    marks.push(Mark::Clip { at: (frame.left, frame.top), size: (frame.width, frame.height) });
    // As high as one unit's row, within what can be seen and told apart.
    let unit = (y.place(y.from() + 1.0) * frame.height).abs();
    let half = (unit * 0.4).clamp(0.8, 5.0);
    let wide = if half < 1.5 { 1.3 } else { 1.5 };
    for (i, group) in raster.groups.iter().enumerate() {
        let ends = group.events.iter().filter(|(t, u)| x.can_place(*t) && y.can_place(*u)).map(|(t, u)| {
            let (px, py) = frame.at(x.place(*t), y.place(*u));
            [(px, py - half), (px, py + half)]
        });
        let colour = colour::series(group.colour.unwrap_or(i), 0.0);
        marks.push(Mark::Strokes { ends: ends.collect(), colour, width: wide });
    }
    marks.push(Mark::EndClip);
}
