//! Where everything in a figure goes: rows of panels with aligned plot areas, titles, legends, axes.
//!
//! Plot areas in a column share their left and right edges, those in a row their top and bottom edges.
//! A legend stands below its panel, so that it never hides data and plot areas start right below their titles.

use super::axis::Tick;
use super::colour::{self, GRID, INK, Rgb, SOFT};
use super::figure::{Figure, Kind, Marker, Panel, Stroke};
use super::marks::{Anchor, HOLLOW, Mark, dashes, text};
use super::panels::{self, Across, Axes};
use super::text::{bold_width, widest, width, wrap};

pub(super) const TICK: u32 = 12;
pub(super) const LABEL: u32 = 13;
const LEGEND: u32 = 12;
const TITLE: u32 = 13;
const HEAD: u32 = 16;
const LETTER: u32 = 18;
/// Length of a tick mark.
const MARK: f64 = 4.0;
/// Free space around everything.
const EDGE: f64 = 14.0;
/// Between panels.
const GAP: (f64, f64) = (26.0, 26.0);
const LINE: f64 = 1.25;

/// A figure as shapes.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) marks: Vec<Mark>,
}

/// A plot area.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Frame {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The point at shares of the width (from the left) and height (from the bottom).
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + x * self.width, self.bottom() - y * self.height)
    }
}

/// One entry of a legend.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) sample: Sample,
}

/// What stands before a legend's name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sample {
    /// A piece of line with its marker.
    Line { colour: Rgb, stroke: Stroke, marker: Marker },
    /// A filled or hollow box.
    Box { colour: Rgb, hollow: bool },
}

/// A panel's place in the grid and what it needs around its plot area.
struct Place<'a> {
    panel: &'a Panel,
    letter: String,
    row: usize,
    column: usize,
    span: usize,
    axes: Axes,
    entries: Vec<Entry>,
    left: f64,
    right: f64,
    head: f64,
    foot: f64,
}

/// Lays a figure out.
pub(super) fn plan(figure: &Figure) -> Plan {
    let columns = figure.columns.max(1).min(figure.panels.len().max(1));
    let (total, plot_height) = match columns {
        1 => (560.0, 300.0),
        2 => (840.0, 260.0),
        3 => (1_080.0, 220.0),
        n => (340.0 * n as f64, 210.0),
    };
    let cell = (total - 2.0 * EDGE - GAP.0 * (columns - 1) as f64) / columns as f64;
    let mut places = place(figure, columns, cell, plot_height);

    // Ranges depend on the width (labels on bars turn where they do not fit), and the width on the ranges' tick
    // labels: the second round starts from the width the first one found.
    for _ in 0..2 {
        align_left_edges(&mut places, columns);
        for place in &mut places {
            let plot = plot_width(place, cell);
            place.axes = panels::axes(place.panel, plot, plot_height);
            place.left = left_margin(place.panel, &place.axes, plot_height, &place.letter);
            place.right = panels::right_margin(place.panel, &place.axes);
        }
    }
    align_left_edges(&mut places, columns);
    for place in &mut places {
        let plot = plot_width(place, cell);
        place.head = head_height(place, plot);
        place.foot = foot_height(place, plot) + legend_height(place, plot);
    }

    let mut marks = Vec::new();
    let mut top = EDGE;
    for line in wrap(&figure.title, total - 2.0 * EDGE, |t| bold_width(t, HEAD)) {
        top += f64::from(HEAD);
        marks.push(text((EDGE, top), line, HEAD, Anchor::Start).bold());
        top += 5.0;
    }
    if !figure.title.trim().is_empty() {
        top += 8.0;
    }
    let rows = places.iter().map(|p| p.row + 1).max().unwrap_or(0);
    for row in 0..rows {
        let tallest = |f: fn(&Place<'_>) -> f64| places.iter().filter(|p| p.row == row).map(f).fold(0.0, f64::max);
        let (head, foot) = (tallest(|p| p.head), tallest(|p| p.foot));
        for place in places.iter().filter(|p| p.row == row) {
            let left = EDGE + place.column as f64 * (cell + GAP.0);
            let frame =
                Frame { left: left + place.left, top: top + head, width: plot_width(place, cell), height: plot_height };
            draw_panel(place, (left, top), frame, &mut marks);
        }
        top += head + plot_height + foot + if row + 1 < rows { GAP.1 } else { 0.0 };
    }
    Plan { width: total, height: (top + EDGE).ceil(), marks }
}

/// Panels of one column agree on the left edge of their plot areas.
fn align_left_edges(places: &mut [Place<'_>], columns: usize) {
    for column in 0..columns {
        let left = places.iter().filter(|p| p.column == column).map(|p| p.left).fold(0.0, f64::max);
        places.iter_mut().filter(|p| p.column == column).for_each(|p| p.left = left);
    }
}

/// Panels in reading order onto the grid, each with its axes and margins.
fn place(figure: &Figure, columns: usize, cell: f64, plot_height: f64) -> Vec<Place<'_>> {
    let (mut row, mut column) = (0, 0);
    let mut places = Vec::new();
    for (index, panel) in figure.panels.iter().enumerate() {
        let span = panel.span.clamp(1, columns);
        if column + span > columns {
            (row, column) = (row + 1, 0);
        }
        let room = cell * span as f64 + GAP.0 * (span - 1) as f64;
        let axes = panels::axes(panel, room - 60.0, plot_height);
        let letter = figure.letter(index);
        let entries = if panel.legend { panels::entries(panel) } else { Vec::new() };
        let (left, right) = (left_margin(panel, &axes, plot_height, &letter), panels::right_margin(panel, &axes));
        places.push(Place { panel, letter, row, column, span, axes, entries, left, right, head: 0.0, foot: 0.0 });
        column += span;
    }
    places
}

fn plot_width(place: &Place<'_>, cell: f64) -> f64 {
    let room = cell * place.span as f64 + GAP.0 * (place.span - 1) as f64;
    (room - place.left - place.right).max(40.0)
}

fn left_margin(panel: &Panel, axes: &Axes, height: f64, letter: &str) -> f64 {
    if matches!(panel.kind, Kind::Note { .. }) {
        return if letter.is_empty() { 0.0 } else { bold_width(letter, LETTER) + 8.0 };
    }
    let ticks = y_ticks(panel, &axes.y, height);
    let names = widest(ticks.iter().map(|(_, label)| &**label), TICK);
    let label = if panel.y.label.is_empty() { 0.0 } else { f64::from(LABEL) + 10.0 };
    (label + names + MARK + 5.0).max(if letter.is_empty() { 0.0 } else { bold_width(letter, LETTER) + 8.0 })
}

fn title_lines(place: &Place<'_>, plot: f64) -> Vec<String> {
    wrap(&place.panel.title, plot + place.right, |t| bold_width(t, TITLE))
}

fn head_height(place: &Place<'_>, plot: f64) -> f64 {
    let titles = title_lines(place, plot).len() as f64 * (f64::from(TITLE) + 4.0);
    let letter = if place.letter.is_empty() { 0.0 } else { f64::from(LETTER) };
    titles.max(letter) + 8.0
}

fn legend_height(place: &Place<'_>, plot: f64) -> f64 {
    match legend_rows(&place.entries, legend_limit(place, plot)).len() {
        0 => 0.0,
        rows => rows as f64 * (f64::from(LEGEND) + 7.0) + 6.0,
    }
}

/// A legend may use the whole panel's width.
fn legend_limit(place: &Place<'_>, plot: f64) -> f64 {
    place.left + plot + place.right - LEGEND_INSET
}

const LEGEND_INSET: f64 = 24.0;

fn foot_height(place: &Place<'_>, plot: f64) -> f64 {
    if matches!(place.panel.kind, Kind::Note { .. }) {
        return 0.0;
    }
    let ticks = match &place.axes.x {
        Across::Values(_) => f64::from(TICK),
        Across::Names(names) => match name_layout(names, plot) {
            NameLayout::Lines(lines, _) => {
                lines.iter().map(Vec::len).max().unwrap_or(0) as f64 * (f64::from(TICK) + 2.0)
            }
            NameLayout::Every(_) => f64::from(TICK),
            NameLayout::Slanted => widest(names.iter().map(|n| &**n), TICK) * SLANT.sin() + f64::from(TICK),
        },
    };
    let label = if place.panel.x.label.is_empty() { 0.0 } else { f64::from(LABEL) + 8.0 };
    MARK + 4.0 + ticks + label
}

/// Entries in rows no wider than `limit`.
fn legend_rows(entries: &[Entry], limit: f64) -> Vec<Vec<&Entry>> {
    let mut rows: Vec<Vec<&Entry>> = Vec::new();
    let mut used = 0.0;
    for entry in entries {
        let needed = entry_width(entry);
        if rows.is_empty() || used + needed - ENTRY_GAP > limit {
            rows.push(Vec::new());
            used = 0.0;
        }
        used += needed;
        if let Some(row) = rows.last_mut() {
            row.push(entry);
        }
    }
    rows
}

const ENTRY_GAP: f64 = 14.0;

fn sample_width(sample: Sample) -> f64 {
    match sample {
        Sample::Line { .. } => 24.0,
        Sample::Box { .. } => 12.0,
    }
}

fn entry_width(entry: &Entry) -> f64 {
    sample_width(entry.sample) + 5.0 + width(&entry.name, LEGEND) + ENTRY_GAP
}

fn draw_panel(place: &Place<'_>, corner: (f64, f64), frame: Frame, marks: &mut Vec<Mark>) {
    let panel = place.panel;
    marks.push(text((corner.0, corner.1 + 14.0), &*place.letter, LETTER, Anchor::Start).bold());
    let mut baseline = corner.1 + 13.0;
    let lines = title_lines(place, frame.width);
    for line in &lines {
        marks.push(text((frame.left, baseline), &**line, TITLE, Anchor::Start).bold());
        baseline += f64::from(TITLE) + 4.0;
    }
    let rows = legend_rows(&place.entries, legend_limit(place, frame.width));
    let step = f64::from(LEGEND) + 7.0;
    let mut middle = frame.bottom() + foot_height(place, frame.width) + 6.0 + step / 2.0;
    for row in rows {
        // Centred below the plot area where there is room for that.
        let wide = row.iter().map(|entry| entry_width(entry)).sum::<f64>() - ENTRY_GAP;
        let last = corner.0 + LEGEND_INSET + legend_limit(place, frame.width) - wide;
        let mut x = (frame.left + (frame.width - wide) / 2.0).min(last).max(corner.0 + LEGEND_INSET);
        for entry in row {
            draw_sample(entry.sample, (x, middle), marks);
            let start = x + sample_width(entry.sample) + 5.0;
            marks.push(text((start, middle + 4.3), &*entry.name, LEGEND, Anchor::Start));
            x += entry_width(entry);
        }
        middle += step;
    }
    if let Kind::Note { text: note } = &panel.kind {
        marks.push(Mark::Rect {
            at: (frame.left, frame.top),
            size: (frame.width, frame.height),
            fill: colour::EMPTY,
            outline: None,
        });
        let lines = wrap(note, frame.width - 40.0, |t| width(t, LABEL));
        let first = frame.top + frame.height / 2.0 - (lines.len() as f64 - 1.0) * 9.0 + 4.0;
        for (i, line) in lines.into_iter().enumerate() {
            let at = (frame.left + frame.width / 2.0, first + i as f64 * 18.0);
            marks.push(text(at, line, LABEL, Anchor::Middle).tinted(SOFT));
        }
        return;
    }
    draw_axes(place, frame, marks);
    panels::draw(panel, &place.axes, frame, marks);
}

/// Names or values along the vertical axis as place and label.
fn y_ticks(panel: &Panel, across: &Across, height: f64) -> Vec<(f64, String)> {
    match across {
        Across::Values(ruler) if !panel.y.names.is_empty() => {
            panel.y.names.iter().map(|(value, name)| (ruler.place(*value), name.clone())).collect()
        }
        Across::Values(ruler) => {
            let at = |tick: Tick| (ruler.place(tick.value), tick.label);
            ruler.ticks((height / 38.0) as usize).into_iter().map(at).collect()
        }
        Across::Names(names) => {
            let stride = (names.len() * (TICK as usize + 2)).div_ceil(height as usize).max(1);
            let at = |(i, name): (usize, &String)| ((i as f64 + 0.5) / names.len() as f64, name.clone());
            names.iter().enumerate().step_by(stride).filter(|(_, name)| !name.is_empty()).map(at).collect()
        }
    }
}

/// How names along the horizontal axis fit.
enum NameLayout {
    /// Upright, each broken into lines.
    Lines(Vec<Vec<String>>, u32),
    /// Upright, one line, only every n-th: for ordered names such as numbers.
    Every(usize),
    /// At an angle.
    Slanted,
}

/// The angle of slanted names, in radians.
const SLANT: f64 = 0.7;

fn name_layout(names: &[String], plot: f64) -> NameLayout {
    let slot = plot / names.len().max(1) as f64 - 4.0;
    // A little smaller is easier to read than slanted.
    for size in [TICK, TICK - 1, TICK - 2] {
        let lines: Vec<Vec<String>> = names.iter().map(|name| wrap(name, slot, |t| width(t, size))).collect();
        let widest_line = widest(lines.iter().flatten().map(|line| &**line), size);
        if widest_line <= slot && lines.iter().all(|lines| lines.len() <= 3) {
            return NameLayout::Lines(lines, size);
        }
    }
    if names.iter().all(|name| name.trim().parse::<f64>().is_ok()) {
        let needed = widest(names.iter().map(|n| &**n), TICK) + 8.0;
        let stride = (needed / (slot + 4.0)).ceil().max(1.0);
        // Long runs of numbers are counted in round steps.
        let decade = 10_f64.powf(stride.log10().floor());
        let round = [1.0, 2.0, 5.0, 10.0].map(|k| k * decade).into_iter().find(|step| *step >= stride);
        let step = round.filter(|_| names.len() > 40).unwrap_or(stride);
        return NameLayout::Every(step as usize);
    }
    NameLayout::Slanted
}

fn draw_axes(place: &Place<'_>, frame: Frame, marks: &mut Vec<Mark>) {
    let heat = matches!(place.panel.kind, Kind::Heat(_));
    let stroke = |ends, colour, width| Mark::Strokes { ends, colour, width };
    let ticks = y_ticks(place.panel, &place.axes.y, frame.height);
    let mut ends = Vec::new();
    let mut grid = Vec::new();
    for (at, label) in &ticks {
        let (x, y) = frame.at(0.0, *at);
        grid.push([(x, y), (frame.right(), y)]);
        ends.push([(x - MARK, y), (x, y)]);
        marks.push(text((x - MARK - 4.0, y + 4.3), &**label, TICK, Anchor::End));
    }
    if !heat {
        marks.push(stroke(grid, GRID, 1.0));
    }
    if let Across::Values(ruler) = &place.axes.y {
        ends.extend(ruler.minor_ticks().into_iter().map(|v| {
            let (x, y) = frame.at(0.0, ruler.place(v));
            [(x - MARK / 2.0, y), (x, y)]
        }));
    }
    let below = frame.bottom() + MARK + 4.0 + f64::from(TICK) - 2.0;
    match &place.axes.x {
        Across::Values(ruler) => {
            let names = &place.panel.x.names;
            let ticks = if names.is_empty() {
                fitting_ticks(ruler, frame.width)
            } else {
                names.iter().map(|(value, name)| Tick { value: *value, label: name.clone() }).collect()
            };
            for tick in ticks {
                let (x, y) = frame.at(ruler.place(tick.value), 0.0);
                ends.push([(x, y), (x, y + MARK)]);
                marks.push(text((x, below), tick.label, TICK, Anchor::Middle));
            }
            ends.extend(ruler.minor_ticks().into_iter().map(|v| {
                let (x, y) = frame.at(ruler.place(v), 0.0);
                [(x, y), (x, y + MARK / 2.0)]
            }));
        }
        Across::Names(names) => {
            let layout = name_layout(names, frame.width);
            for (i, name) in names.iter().enumerate() {
                let (x, y) = frame.at((i as f64 + 0.5) / names.len() as f64, 0.0);
                match &layout {
                    NameLayout::Lines(lines, size) => {
                        for (line, words) in lines[i].iter().enumerate() {
                            let at = (x, below + line as f64 * (f64::from(TICK) + 2.0));
                            marks.push(text(at, &**words, *size, Anchor::Middle));
                        }
                    }
                    NameLayout::Every(stride) if i % stride == 0 => {
                        marks.push(text((x, below), &**name, TICK, Anchor::Middle));
                    }
                    NameLayout::Every(_) => continue,
                    NameLayout::Slanted => {
                        let at = (x + 4.0, y + MARK + 10.0);
                        marks.push(text(at, &**name, TICK, Anchor::End).turned(-SLANT.to_degrees()));
                    }
                }
                if heat && !name.is_empty() {
                    ends.push([(x, y), (x, y + MARK)]);
                }
            }
        }
    }
    let corner = frame.at(0.0, 0.0);
    ends.push([frame.at(0.0, 1.0), corner]);
    ends.push([corner, frame.at(1.0, 0.0)]);
    marks.push(stroke(ends, INK, LINE));
    let panel = place.panel;
    if !panel.x.label.is_empty() {
        // At the panel's own foot, whatever its neighbours need.
        let y = frame.bottom() + foot_height(place, frame.width) - 3.0;
        marks.push(text((frame.left + frame.width / 2.0, y), &*panel.x.label, LABEL, Anchor::Middle));
    }
    if !panel.y.label.is_empty() {
        let names = widest(ticks.iter().map(|(_, label)| &**label), TICK);
        let x = frame.left - MARK - 4.0 - names - 11.0;
        let at = (x, frame.top + frame.height / 2.0);
        marks.push(text(at, &*panel.y.label, LABEL, Anchor::Middle).turned(-90.0));
    }
}

/// As many ticks as fit without touching.
fn fitting_ticks(ruler: &super::axis::Ruler, length: f64) -> Vec<Tick> {
    for count in (2..=10).rev() {
        let ticks = ruler.ticks(count);
        let free = ticks.windows(2).all(|pair| {
            let distance = (ruler.place(pair[1].value) - ruler.place(pair[0].value)) * length;
            distance > (width(&pair[0].label, TICK) + width(&pair[1].label, TICK)) / 2.0 + 12.0
        });
        if free && ticks.len() <= 9 {
            return ticks;
        }
    }
    ruler.ticks(2)
}

fn draw_sample(sample: Sample, (x, y): (f64, f64), marks: &mut Vec<Mark>) {
    match sample {
        Sample::Line { colour, stroke, marker } => {
            let points = vec![(x, y), (x + 24.0, y)];
            draw_stroke(points, stroke, colour, marks);
            draw_marker((x + 12.0, y), marker, colour, marks);
        }
        Sample::Box { colour, hollow } => marks.push(Mark::Rect {
            at: (x, y - 5.5),
            size: (12.0, 11.0),
            fill: if hollow { HOLLOW } else { colour },
            outline: Some((colour, 1.5)),
        }),
    }
}

/// Joins points as the series wishes.
pub(super) fn draw_stroke(points: Vec<(f64, f64)>, stroke: Stroke, colour: Rgb, marks: &mut Vec<Mark>) {
    match stroke {
        Stroke::None => {}
        Stroke::Solid => marks.push(Mark::Line { points, colour, width: 2.0 }),
        Stroke::Dashed => {
            let pieces = dashes(&points, 6.0, 4.0);
            marks.extend(pieces.into_iter().map(|points| Mark::Line { points, colour, width: 1.6 }));
        }
    }
}

/// Marks one point as the series wishes.
pub(super) fn draw_marker(at: (f64, f64), marker: Marker, colour: Rgb, marks: &mut Vec<Mark>) {
    let (x, y) = at;
    let shape = |points: &[(f64, f64)]| Mark::Area {
        points: points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect(),
        fill: colour,
        opacity: 1.0,
        outline: None,
    };
    marks.push(match marker {
        Marker::None => return,
        Marker::Disc => Mark::Dot { at, radius: 3.6, fill: colour, outline: None },
        Marker::Ring => Mark::Dot { at, radius: 3.4, fill: HOLLOW, outline: Some((colour, 1.6)) },
        Marker::Square => shape(&[(-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)]),
        Marker::Triangle => shape(&[(0.0, -4.4), (4.2, 3.2), (-4.2, 3.2)]),
        Marker::Diamond => shape(&[(0.0, -4.8), (4.4, 0.0), (0.0, 4.8), (-4.4, 0.0)]),
    });
}
