//! What a figure shows, as plain data: panels, axes, series, values. No pixels.
//!
//! A figure is laid out like a published one: panels in rows of [`Figure::columns`], each with a bold letter.
//! Coordinates are in the data's own units; a value that is not finite is not drawn.
//! Colours are palette indices, so that the same method keeps its colour over all panels of a report.

use serde::{Deserialize, Serialize};

/// A picture of one or more panels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// File name without extension, also its anchor in reports; letters, digits, `-`, `_`, `.` are kept.
    pub name: String,
    /// One line above the panels.
    pub title: String,
    /// What the reader must know to read it: methods compared, data label, number of seeds.
    pub caption: String,
    /// Panels in reading order.
    pub panels: Vec<Panel>,
    /// Panels per row.
    pub columns: usize,
}

impl Figure {
    /// An empty figure of `columns` panels per row.
    pub(crate) fn new(name: impl Into<String>, title: impl Into<String>, columns: usize) -> Self {
        Self { name: name.into(), title: title.into(), columns: columns.max(1), ..Self::default() }
    }

    /// Sets the caption.
    pub(crate) fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// Adds a panel; one without a letter gets the next one when there is more than one panel.
    pub(crate) fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// The letter drawn for panel `index`: its own, else `a`, `b`, ... if the figure has several panels.
    pub(crate) fn letter(&self, index: usize) -> String {
        match self.panels.get(index) {
            Some(panel) if !panel.letter.is_empty() => panel.letter.clone(),
            Some(_) if self.panels.len() > 1 => {
                char::from_u32('a' as u32 + (index % 26) as u32).map(String::from).unwrap_or_default()
            }
            _ => String::new(),
        }
    }
}

/// One coordinate system of a figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Panel {
    /// Bold letter at the top left; empty for the next one in the alphabet.
    pub letter: String,
    /// One short line.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn.
    pub kind: Kind,
    /// Columns of the grid the panel covers, at least 1.
    pub span: usize,
    /// Whether the legend is drawn; switch it off where a neighbour shows the same one.
    pub legend: bool,
}

impl Panel {
    /// A panel of `kind` with axis labels `x` and `y`.
    pub(crate) fn new(title: impl Into<String>, x: impl Into<Axis>, y: impl Into<Axis>, kind: impl Into<Kind>) -> Self {
        Self {
            letter: String::new(),
            title: title.into(),
            x: x.into(),
            y: y.into(),
            kind: kind.into(),
            span: 1,
            legend: true,
        }
    }

    /// Sets the letter.
    pub(crate) fn letter(mut self, letter: impl Into<String>) -> Self {
        self.letter = letter.into();
        self
    }

    /// Sets how many columns of the grid the panel covers.
    pub(crate) fn span(mut self, span: usize) -> Self {
        self.span = span.max(1);
        self
    }

    /// Leaves the legend out.
    pub(crate) fn without_legend(mut self) -> Self {
        self.legend = false;
        self
    }
}

/// An axis: label, scale, and limits where they must not follow the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Axis {
    /// Quantity and unit, such as `time (ms)`.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// First and last value; `None` follows the data.
    pub limits: Option<(f64, f64)>,
    /// Names at values, in place of numbered ticks: for traces that stand one above the other, or for a place
    /// beyond all numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis that follows the data.
    pub(crate) fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A logarithmic axis with ticks at powers of two.
    pub(crate) fn log2(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log2, ..Self::default() }
    }

    /// A logarithmic axis with ticks at powers of ten.
    pub(crate) fn log10(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log10, ..Self::default() }
    }

    /// Fixes the ends of the axis.
    pub(crate) fn limits(mut self, from: f64, to: f64) -> Self {
        self.limits = Some((from, to));
        self
    }

    /// Writes names at values, in place of numbered ticks.
    pub(crate) fn names(mut self, names: impl IntoIterator<Item = (f64, impl Into<String>)>) -> Self {
        self.names = names.into_iter().map(|(at, name)| (at, name.into())).collect();
        self
    }
}

impl From<&str> for Axis {
    fn from(label: &str) -> Self {
        Self::linear(label)
    }
}

impl From<String> for Axis {
    fn from(label: String) -> Self {
        Self::linear(label)
    }
}

/// How values map to lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    /// Equal differences, equal lengths.
    #[default]
    Linear,
    /// Equal ratios, equal lengths; ticks at powers of two.
    Log2,
    /// Equal ratios, equal lengths; ticks at powers of ten.
    Log10,
}

/// What a panel draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Lines, points, bands.
    Lines(Lines),
    /// Bars of categories and groups.
    Bars(Bars),
    /// Boxes over samples of categories and groups.
    Boxes(Boxes),
    /// A grid of coloured cells.
    Heat(Heat),
    /// One tick mark per event.
    Raster(Raster),
    /// A sentence in place of data, such as "not part of the smoke profile".
    Note {
        /// The sentence.
        text: String,
    },
}

impl Kind {
    /// The name used in CSV files.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lines(_) => "lines",
            Self::Bars(_) => "bars",
            Self::Boxes(_) => "boxes",
            Self::Heat(_) => "heat",
            Self::Raster(_) => "raster",
            Self::Note { .. } => "note",
        }
    }
}

impl From<Lines> for Kind {
    fn from(lines: Lines) -> Self {
        Self::Lines(lines)
    }
}

impl From<Bars> for Kind {
    fn from(bars: Bars) -> Self {
        Self::Bars(bars)
    }
}

impl From<Boxes> for Kind {
    fn from(boxes: Boxes) -> Self {
        Self::Boxes(boxes)
    }
}

impl From<Heat> for Kind {
    fn from(heat: Heat) -> Self {
        Self::Heat(heat)
    }
}

impl From<Raster> for Kind {
    fn from(raster: Raster) -> Self {
        Self::Raster(raster)
    }
}

/// Lines and points over a common pair of axes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lines {
    /// The series, drawn in this order.
    pub series: Vec<Series>,
    /// Thin lines across the panel, such as "equal" at 1.
    pub references: Vec<Reference>,
}

impl Lines {
    /// The given series without reference lines.
    pub(crate) fn new(series: Vec<Series>) -> Self {
        Self { series, references: Vec::new() }
    }

    /// Adds a horizontal reference line at `value`.
    pub(crate) fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push(Reference { value, label: label.into() });
        self
    }
}

/// A thin horizontal line that gives values a meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Where on the vertical axis.
    pub value: f64,
    /// Written at its right end; may be empty.
    pub label: String,
}

/// One named sequence of points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Shown in the legend; an empty name has no entry.
    pub name: String,
    /// Points in drawing order.
    pub points: Vec<Point>,
    /// How the spread of the points is shown.
    pub spread: Spread,
    /// How the points are joined.
    pub stroke: Stroke,
    /// How each point is marked.
    pub marker: Marker,
    /// Palette index; `None` takes the position in the panel.
    pub colour: Option<usize>,
    /// Mixes the colour with white, 0 (full colour) to 0.8: related series share a colour.
    pub fade: f64,
}

impl Series {
    /// A solid line with round markers (none when points are dense).
    pub(crate) fn new(name: impl Into<String>, points: impl IntoIterator<Item = impl Into<Point>>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().map(Into::into).collect(),
            spread: Spread::Bars,
            stroke: Stroke::Solid,
            marker: Marker::Disc,
            colour: None,
            fade: 0.0,
        }
    }

    /// The same points divided by the largest value, with positions on 0..1: curves of unlike units in one panel.
    pub(crate) fn normalised(mut self) -> Self {
        let finite = |f: fn(&Point) -> f64, points: &[Point]| {
            points.iter().map(f).filter(|v| v.is_finite()).fold(f64::NEG_INFINITY, f64::max)
        };
        let top = finite(|p| p.y, &self.points);
        let end = finite(|p| p.x, &self.points);
        let start = -finite(|p| -p.x, &self.points);
        for point in &mut self.points {
            if top > 0.0 {
                point.y /= top;
                point.low = point.low.map(|v| v / top);
                point.high = point.high.map(|v| v / top);
            }
            if end > start {
                point.x = (point.x - start) / (end - start);
            }
        }
        self
    }

    /// Marks the series as taken from a publication: hollow markers, dashed line.
    pub(crate) fn published(mut self) -> Self {
        self.stroke = Stroke::Dashed;
        self.marker = Marker::Ring;
        self
    }

    /// A line without markers.
    pub(crate) fn line(mut self) -> Self {
        self.marker = Marker::None;
        self
    }

    /// Markers without a line.
    pub(crate) fn dots(mut self) -> Self {
        self.stroke = Stroke::None;
        self
    }

    /// Shows the spread as a band instead of error bars.
    pub(crate) fn band(mut self) -> Self {
        self.spread = Spread::Band;
        self
    }

    /// Sets the palette index.
    pub(crate) fn colour(mut self, colour: usize) -> Self {
        self.colour = Some(colour);
        self
    }

    /// Sets the marker.
    pub(crate) fn marker(mut self, marker: Marker) -> Self {
        self.marker = marker;
        self
    }

    /// Sets the stroke.
    pub(crate) fn stroke(mut self, stroke: Stroke) -> Self {
        self.stroke = stroke;
        self
    }

    /// Mixes the colour with white, 0 to 0.8.
    pub(crate) fn fade(mut self, fade: f64) -> Self {
        self.fade = fade.clamp(0.0, 0.8);
        self
    }
}

/// One point, with the ends of its spread where known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Position.
    pub x: f64,
    /// Value.
    pub y: f64,
    /// Lower end of the spread.
    pub low: Option<f64>,
    /// Upper end of the spread.
    pub high: Option<f64>,
}

impl Point {
    /// A point with a symmetric spread (a standard deviation, say).
    pub(crate) fn with_spread(x: f64, y: f64, spread: f64) -> Self {
        Self { x, y, low: Some(y - spread), high: Some(y + spread) }
    }
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, low: None, high: None }
    }
}

impl From<(f64, f64, f64)> for Point {
    fn from((x, y, spread): (f64, f64, f64)) -> Self {
        Self::with_spread(x, y, spread)
    }
}

/// How the spread of a series is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spread {
    /// Not at all.
    None,
    /// A bar with caps at each point.
    #[default]
    Bars,
    /// A shaded band.
    Band,
}

/// How points are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stroke {
    /// Not at all.
    None,
    /// A solid line.
    #[default]
    Solid,
    /// Dashes of equal length along the line, however dense the points are.
    Dashed,
}

/// How a point is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Marker {
    /// Not at all.
    None,
    /// A filled circle.
    #[default]
    Disc,
    /// A circle filled with white.
    Ring,
    /// A filled square.
    Square,
    /// A filled triangle.
    Triangle,
    /// A filled diamond.
    Diamond,
}

/// Bars: one cluster per category, one bar per group in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bars {
    /// Names below the clusters.
    pub categories: Vec<String>,
    /// One per legend entry.
    pub groups: Vec<BarGroup>,
    /// Whether each bar carries its value.
    pub labels: bool,
    /// Thin lines across the panel.
    pub references: Vec<Reference>,
}

/// The bars of one legend entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BarGroup {
    /// Shown in the legend.
    pub name: String,
    /// One per category; `None` leaves the place empty.
    pub values: Vec<Option<Point>>,
    /// Palette index; `None` takes the position in the panel.
    pub colour: Option<usize>,
    /// Drawn as an outline: a published number.
    pub hollow: bool,
}

impl Bars {
    /// No bars yet, for the given categories.
    pub(crate) fn new(categories: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { categories: categories.into_iter().map(Into::into).collect(), labels: true, ..Self::default() }
    }

    /// Adds a group: one `(value, spread)` per category.
    pub(crate) fn group(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = Option<(f64, Option<f64>)>>,
    ) -> Self {
        let values = values
            .into_iter()
            .enumerate()
            .map(|(i, v)| {
                v.map(|(y, spread)| Point { x: i as f64, y, low: spread.map(|s| y - s), high: spread.map(|s| y + s) })
            })
            .collect();
        self.groups.push(BarGroup { name: name.into(), values, colour: None, hollow: false });
        self
    }

    /// Adds a group of published numbers, drawn as outlines.
    pub(crate) fn published(
        self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = Option<(f64, Option<f64>)>>,
    ) -> Self {
        let mut bars = self.group(name, values);
        if let Some(group) = bars.groups.last_mut() {
            group.hollow = true;
        }
        bars
    }

    /// Sets the palette index of the group added last.
    pub(crate) fn colour(mut self, colour: usize) -> Self {
        if let Some(group) = self.groups.last_mut() {
            group.colour = Some(colour);
        }
        self
    }

    /// Adds a horizontal reference line at `value`.
    pub(crate) fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push(Reference { value, label: label.into() });
        self
    }
}

/// Box plots: one cluster per category, one box per group in it.
///
/// A box reaches from the first to the third quartile, with a line at the median; its whiskers end at the values
/// farthest out that lie within 1.5 times the box's length of it. Every value is drawn as a dot as well, those beyond
/// the whiskers as rings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Boxes {
    /// Names below the clusters.
    pub categories: Vec<String>,
    /// One per legend entry.
    pub groups: Vec<BoxGroup>,
}

/// The boxes of one legend entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BoxGroup {
    /// Shown in the legend.
    pub name: String,
    /// The sample of each category; an empty one leaves the place empty.
    pub samples: Vec<Vec<f64>>,
    /// Palette index; `None` takes the position in the panel.
    pub colour: Option<usize>,
}

impl Boxes {
    /// No boxes yet, for the given categories.
    pub(crate) fn new(categories: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { categories: categories.into_iter().map(Into::into).collect(), groups: Vec::new() }
    }

    /// Adds a group: one sample per category.
    pub(crate) fn group(mut self, name: impl Into<String>, samples: impl IntoIterator<Item = Vec<f64>>) -> Self {
        self.groups.push(BoxGroup { name: name.into(), samples: samples.into_iter().collect(), colour: None });
        self
    }

    /// Sets the palette index of the group added last.
    pub(crate) fn colour(mut self, colour: usize) -> Self {
        if let Some(group) = self.groups.last_mut() {
            group.colour = Some(colour);
        }
        self
    }
}

/// What a box plot shows of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BoxStatistics {
    /// The end of the lower whisker.
    pub low: f64,
    /// The first quartile.
    pub first: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub third: f64,
    /// The end of the upper whisker.
    pub high: f64,
}

impl BoxStatistics {
    /// The statistics of the finite values of a sample, if it has any.
    ///
    /// A quartile between two values is interpolated between them: quantile `q` of `n` sorted values stands at place
    /// `q (n - 1)`, counted from 0, as NumPy and R have it by default.
    pub(crate) fn of(sample: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = sample.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let quantile = |share: f64| {
            let place = share * last as f64;
            let below = place.floor() as usize;
            let above = (below + 1).min(last);
            sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
        };
        let (first, median, third) = (quantile(0.25), quantile(0.5), quantile(0.75));
        let reach = 1.5 * (third - first);
        let within = |v: &&f64| (first - reach..=third + reach).contains(*v);
        // A quartile may lie beyond all values within reach; a whisker never points into its box.
        let low = sorted.iter().find(within).map_or(first, |v| v.min(first));
        let high = sorted.iter().rev().find(within).map_or(third, |v| v.max(third));
        Some(Self { low, first, median, third, high })
    }

    /// Whether a value lies beyond the whiskers.
    pub(crate) fn is_outlier(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// A grid of coloured cells; the first row is drawn at the bottom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heat {
    /// Names of the columns, left to right.
    pub x_ticks: Vec<String>,
    /// Names of the rows, bottom to top.
    pub y_ticks: Vec<String>,
    /// `values[row][column]`; `None` is drawn as an empty cell.
    pub values: Vec<Vec<Option<f64>>>,
    /// Quantity and unit of the colour bar.
    pub colour_label: String,
    /// Scale, limits and centre of the colours.
    pub colours: Colours,
    /// Whether each cell carries its value (when it fits).
    pub annotate: bool,
}

impl Heat {
    /// Annotated cells with a linear one-hue colour scale.
    pub(crate) fn new(
        x_ticks: impl IntoIterator<Item = impl Into<String>>,
        y_ticks: impl IntoIterator<Item = impl Into<String>>,
        values: Vec<Vec<Option<f64>>>,
        colour_label: impl Into<String>,
    ) -> Self {
        Self {
            x_ticks: x_ticks.into_iter().map(Into::into).collect(),
            y_ticks: y_ticks.into_iter().map(Into::into).collect(),
            values,
            colour_label: colour_label.into(),
            colours: Colours::default(),
            annotate: true,
        }
    }

    /// Two hues that meet at `centre` (1 for a speed-up), on the given scale.
    pub(crate) fn diverging(mut self, scale: Scale, centre: f64) -> Self {
        self.colours.scale = scale;
        self.colours.centre = Some(centre);
        self
    }

    /// Fixes the ends of the colour scale.
    pub(crate) fn limits(mut self, from: f64, to: f64) -> Self {
        self.colours.limits = Some((from, to));
        self
    }
}

/// The colour scale of a heat map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Colours {
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Where two hues meet; `None` is a one-way scale from dark to light.
    pub centre: Option<f64>,
    /// First and last value; `None` follows the data (symmetric around the centre).
    pub limits: Option<(f64, f64)>,
}

/// Spikes: one short vertical mark per event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Raster {
    /// Named groups of events (layers, classes), each in its colour.
    pub groups: Vec<Events>,
}

/// The events of one legend entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Shown in the legend.
    pub name: String,
    /// `(time, unit)` of each event.
    pub events: Vec<(f64, f64)>,
    /// Palette index; `None` takes the position in the panel.
    pub colour: Option<usize>,
}

impl Raster {
    /// Adds a group of `(time, unit)` events.
    pub(crate) fn group(mut self, name: impl Into<String>, events: Vec<(f64, f64)>) -> Self {
        self.groups.push(Events { name: name.into(), events, colour: None });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_follow_the_alphabet_unless_given() {
        let note = || Panel::new("", "", "", Kind::Note { text: String::new() });
        let figure = Figure::new("f", "", 2).panel(note()).panel(note().letter("x")).panel(note());
        assert_eq!([figure.letter(0), figure.letter(1), figure.letter(2)], ["a", "x", "c"]);
        assert_eq!(Figure::new("f", "", 1).panel(note()).letter(0), "");
    }

    #[test]
    fn normalised_series_end_at_one() {
        let series = Series::new("loss", [(10.0, 4.0, 1.0), (20.0, 2.0, 1.0)]).normalised();
        assert_eq!(series.points[0], Point { x: 0.0, y: 1.0, low: Some(0.75), high: Some(1.25) });
        assert_eq!((series.points[1].x, series.points[1].y), (1.0, 0.5));
    }

    #[test]
    fn a_figure_survives_json() {
        let figure = Figure::new("f", "t", 1)
            .panel(Panel::new("p", Axis::log2("T"), "s", Lines::new(vec![Series::new("a", [(1.0, 2.0)])])))
            .panel(Panel::new("p", "x", "y", Bars::new(["a"]).group("g", [Some((1.0, None))])))
            .panel(Panel::new("p", "x", "y", Boxes::new(["a"]).group("g", [vec![1.0, 2.0]]).colour(3)));
        let text = serde_json::to_string(&figure).unwrap();
        assert_eq!(serde_json::from_str::<Figure>(&text).unwrap(), figure);
    }

    #[test]
    fn box_statistics_are_those_of_a_calculation_by_hand() {
        // Sorted: 1 2 4 7 11 16 40. Quartiles at places 1.5, 3 and 4.5: 3, 7 and 13.5. Reach 15.75: up to 29.25.
        let statistics = BoxStatistics::of(&[16.0, 1.0, 40.0, 4.0, 7.0, f64::NAN, 2.0, 11.0]).unwrap();
        assert_eq!(statistics, BoxStatistics { low: 1.0, first: 3.0, median: 7.0, third: 13.5, high: 16.0 });
        assert!(statistics.is_outlier(40.0) && !statistics.is_outlier(16.0) && !statistics.is_outlier(1.0));
        // Four values: quartiles at places 0.75, 1.5 and 2.25.
        let four = BoxStatistics::of(&[97.0, 98.0, 98.5, 99.5]).unwrap();
        assert_eq!((four.first, four.median, four.third), (97.75, 98.25, 98.75));
        // 97 lies within 97.75 - 1.5, 99.5 within 98.75 + 1.5.
        assert_eq!((four.low, four.high), (97.0, 99.5));
        let one = BoxStatistics::of(&[5.0]).unwrap();
        assert_eq!(one, BoxStatistics { low: 5.0, first: 5.0, median: 5.0, third: 5.0, high: 5.0 });
        assert_eq!(BoxStatistics::of(&[f64::INFINITY]), None);
    }
}
