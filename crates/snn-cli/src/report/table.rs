//! Tables: plain data, rendered as Markdown, HTML and aligned terminal text.
//!
//! A [`Comparison`] is the table *published | ours | difference*: the two numbers never share a column, every
//! quantity has a unit, and a mean comes with its standard deviation and the number of runs.

use serde::{Deserialize, Serialize};

use super::html::escape;

/// A rectangle of cells with titled columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Short name, the table's anchor in a report.
    pub name: String,
    /// One line above the table.
    pub title: String,
    /// Columns, left to right.
    pub columns: Vec<Column>,
    /// Rows; a short one is filled with empty cells.
    pub rows: Vec<Vec<Cell>>,
    /// Sentences below the table.
    pub notes: Vec<String>,
}

/// A column's head and alignment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// Name of the quantity.
    pub title: String,
    /// Its unit, shown in the head; empty for none.
    pub unit: String,
    /// Left for words, right for numbers.
    pub align: Align,
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Align {
    /// At the left, for words.
    #[default]
    Left,
    /// At the right, for numbers.
    Right,
}

/// One value of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cell", rename_all = "lowercase")]
pub(crate) enum Cell {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// A number.
    Number {
        /// The number, with its spread where known.
        value: Measured,
        /// Digits after the point.
        decimals: usize,
    },
    /// No value; says why in a word or two (`not run`, `-`).
    Missing {
        /// The reason.
        reason: String,
    },
}

impl Cell {
    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// A number with `decimals` digits after the point.
    pub(crate) fn number(value: impl Into<Measured>, decimals: usize) -> Self {
        Self::Number { value: value.into(), decimals }
    }

    /// No value, and why.
    pub(crate) fn missing(reason: impl Into<String>) -> Self {
        Self::Missing { reason: reason.into() }
    }

    fn show(&self) -> String {
        match self {
            Self::Text { text } => text.clone(),
            Self::Number { value, decimals } => value.show(*decimals),
            Self::Missing { reason } if reason.is_empty() => "-".to_owned(),
            Self::Missing { reason } => reason.clone(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// A number, with its standard deviation and the number of runs where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The mean, or the only value. Not finite (no run finished, say) becomes `null` in JSON.
    #[serde(deserialize_with = "null_is_nan")]
    pub mean: f64,
    /// Standard deviation over the runs.
    pub sd: Option<f64>,
    /// Number of runs (seeds); `None` where a publication does not say.
    pub n: Option<usize>,
}

impl Measured {
    /// One value of unknown spread.
    pub(crate) fn value(mean: f64) -> Self {
        Self { mean, sd: None, n: None }
    }

    /// A published mean with its standard deviation.
    pub(crate) fn with_sd(mean: f64, sd: f64) -> Self {
        Self { mean, sd: Some(sd), n: None }
    }

    /// Mean and sample standard deviation (divided by `n - 1`) of one value per run; `None` without a run.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let sd = (n > 1).then(|| {
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            (squares / (n - 1) as f64).sqrt()
        });
        Some(Self { mean, sd, n: Some(n) })
    }

    /// `97.91 ± 0.08 (n = 3)`, without the parts that are not known.
    pub(crate) fn show(&self, decimals: usize) -> String {
        if !self.mean.is_finite() {
            return "-".to_owned();
        }
        let mut text = format!("{:.decimals$}", self.mean);
        if let Some(sd) = self.sd {
            text.push_str(&format!(" ± {sd:.decimals$}"));
        }
        if let Some(n) = self.n {
            text.push_str(&format!(" (n = {n})"));
        }
        text
    }
}

impl From<f64> for Measured {
    fn from(mean: f64) -> Self {
        Self::value(mean)
    }
}

fn null_is_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Column {
    /// A column of words.
    pub(crate) fn words(title: impl Into<String>) -> Self {
        Self { title: title.into(), unit: String::new(), align: Align::Left }
    }

    /// A column of numbers in `unit`.
    pub(crate) fn numbers(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { title: title.into(), unit: unit.into(), align: Align::Right }
    }

    fn head(&self) -> String {
        if self.unit.is_empty() { self.title.clone() } else { format!("{} ({})", self.title, self.unit) }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(name: impl Into<String>, title: impl Into<String>, columns: Vec<Column>) -> Self {
        Self { name: name.into(), title: title.into(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// All rows as text, filled up to the width of the widest.
    fn shown(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let width = self.rows.iter().map(Vec::len).chain([self.columns.len()]).max().unwrap_or(0);
        let fill = |mut row: Vec<String>| {
            row.resize(width, String::new());
            row
        };
        let head = fill(self.columns.iter().map(Column::head).collect());
        (head, self.rows.iter().map(|row| fill(row.iter().map(Cell::show).collect())).collect())
    }

    fn align(&self, column: usize) -> Align {
        self.columns.get(column).map_or(Align::Left, |c| c.align)
    }

    /// A pipe table, without the title; notes follow as paragraphs.
    pub(crate) fn markdown(&self) -> String {
        let (head, rows) = self.shown();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let safe = |cells: &[String]| cells.iter().map(|c| super::markdown::inline(c)).collect::<Vec<_>>();
        let mut text = line(safe(&head));
        let rule = |i: usize| match self.align(i) {
            Align::Left => "---".to_owned(),
            Align::Right => "---:".to_owned(),
        };
        text.push_str(&line((0..head.len()).map(rule).collect()));
        for row in &rows {
            text.push_str(&line(safe(row)));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{}\n", super::markdown::inline(note)));
        }
        text
    }

    /// A `<table>` element with its caption; all text is escaped.
    pub(crate) fn html(&self) -> String {
        let (head, rows) = self.shown();
        let class = |i: usize| if self.align(i) == Align::Right { " class=\"n\"" } else { "" };
        let mut text = format!(
            "<div class=\"wide\"><table id=\"{}\"><caption>{}</caption>\n<thead><tr>",
            escape(&super::files::file_stem(&self.name)),
            escape(&self.title)
        );
        for (i, cell) in head.iter().enumerate() {
            text.push_str(&format!("<th{}>{}</th>", class(i), escape(cell)));
        }
        text.push_str("</tr></thead>\n<tbody>\n");
        for row in &rows {
            text.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                text.push_str(&format!("<td{}>{}</td>", class(i), escape(cell)));
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</tbody></table></div>\n");
        for note in &self.notes {
            text.push_str(&format!("<p class=\"note\">{}</p>\n", escape(note)));
        }
        text
    }

    /// Aligned columns for a terminal, title first; control characters are made visible.
    pub(crate) fn terminal(&self) -> String {
        let (head, rows) = self.shown();
        let clean = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let rows: Vec<Vec<String>> =
            std::iter::once(&head).chain(&rows).map(|row| row.iter().map(|c| clean(c)).collect()).collect();
        let widths: Vec<usize> =
            (0..head.len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        if !self.title.is_empty() {
            text.push_str(&clean(&self.title));
            text.push('\n');
        }
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(i, cell)| {
                    let gap = " ".repeat(widths[i] - cell.chars().count());
                    if self.align(i) == Align::Right { format!("{gap}{cell}") } else { format!("{cell}{gap}") }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if index == 0 {
                text.push_str(&widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().join("  "));
                text.push('\n');
            }
        }
        for note in &self.notes {
            text.push_str(&format!("{}\n", clean(note)));
        }
        text
    }
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Difference {
    /// Ours minus published, in the quantity's unit (percent become percentage points).
    #[default]
    Absolute,
    /// Ours divided by published, for times, counts and factors.
    Ratio,
    /// Not compared: the two were not measured on the same thing.
    None,
}

/// A table of published numbers beside our own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Short name, the table's anchor in a report.
    pub name: String,
    /// One line above the table.
    pub title: String,
    /// Rows in reading order.
    pub rows: Vec<ComparisonRow>,
    /// Sentences below the table.
    pub notes: Vec<String>,
}

/// One published number beside our own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ComparisonRow {
    /// Task, method, variant: what was measured on.
    pub what: String,
    /// Which quantity.
    pub quantity: String,
    /// Its unit, such as `%` or `s`.
    pub unit: String,
    /// Digits after the point.
    pub decimals: usize,
    /// The published number.
    pub published: Option<Measured>,
    /// Our number.
    pub ours: Option<Measured>,
    /// How the two are compared.
    pub difference: Difference,
    /// The data label where ours was measured on other data than published, such as `shd-sim (simulated)`.
    pub data: String,
    /// Anything else the reader must know, such as `not run in this profile`.
    pub note: String,
}

impl ComparisonRow {
    /// A row without numbers yet.
    pub(crate) fn new(what: impl Into<String>, quantity: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { what: what.into(), quantity: quantity.into(), unit: unit.into(), decimals: 2, ..Self::default() }
    }

    /// Sets the published number.
    pub(crate) fn published(mut self, value: impl Into<Measured>) -> Self {
        self.published = Some(value.into());
        self
    }

    /// Sets our number.
    #[cfg_attr(not(test), expect(dead_code, reason = "drawn and tested; no reproduction uses it yet"))]
    pub(crate) fn ours(mut self, value: impl Into<Measured>) -> Self {
        self.ours = Some(value.into());
        self
    }

    /// Sets our number where there is one.
    pub(crate) fn ours_if(mut self, value: Option<Measured>) -> Self {
        self.ours = value;
        self
    }

    /// Sets the digits after the point.
    pub(crate) fn decimals(mut self, decimals: usize) -> Self {
        self.decimals = decimals;
        self
    }

    /// Compares by ratio.
    pub(crate) fn ratio(mut self) -> Self {
        self.difference = Difference::Ratio;
        self
    }

    /// Does not compare, because our number was measured on the data named by `label`.
    pub(crate) fn other_data(mut self, label: impl Into<String>) -> Self {
        self.difference = Difference::None;
        self.data = label.into();
        self
    }

    /// Adds what the reader must know.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The comparison as a number: a difference in the row's unit, or a ratio.
    pub(crate) fn compared(&self) -> Option<f64> {
        let (published, ours) = (self.published?.mean, self.ours?.mean);
        let value = match self.difference {
            Difference::Absolute => ours - published,
            Difference::Ratio => ours / published,
            Difference::None => return None,
        };
        value.is_finite().then_some(value)
    }

    fn show_compared(&self) -> String {
        let decimals = self.decimals;
        match (self.compared(), self.difference) {
            (Some(value), Difference::Ratio) => format!("× {value:.2}"),
            (Some(value), _) => {
                let unit = if self.unit == "%" { "pp" } else { &self.unit };
                // Rounding must not leave a signed zero.
                let shown = format!("{value:+.decimals$}");
                let zero = shown.trim_start_matches(['+', '-']).chars().all(|c| matches!(c, '0' | '.'));
                let shown = if zero { shown[1..].to_owned() } else { shown };
                format!("{shown} {unit}").trim_end().to_owned()
            }
            (None, Difference::None) if self.published.is_some() && self.ours.is_some() => "other data".to_owned(),
            (None, _) => "-".to_owned(),
        }
    }
}

impl Comparison {
    /// An empty comparison.
    pub(crate) fn new(name: impl Into<String>, title: impl Into<String>) -> Self {
        Self { name: name.into(), title: title.into(), ..Self::default() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: ComparisonRow) {
        self.rows.push(row);
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The comparison as a table; columns that would be empty throughout (data, note) are left out.
    pub(crate) fn table(&self) -> Table {
        let with_data = self.rows.iter().any(|row| !row.data.is_empty());
        let with_note = self.rows.iter().any(|row| !row.note.is_empty());
        let mut columns = vec![
            Column::words("what"),
            Column::words("quantity"),
            Column::words("unit"),
            Column::numbers("published", ""),
            Column::numbers("ours", ""),
            Column::numbers("difference", ""),
        ];
        if with_data {
            columns.push(Column::words("our data"));
        }
        if with_note {
            columns.push(Column::words("note"));
        }
        let mut table = Table::new(&*self.name, &*self.title, columns);
        for row in &self.rows {
            let number = |value: Option<Measured>, missing: &str| match value {
                Some(value) => Cell::number(value, row.decimals),
                None => Cell::missing(missing),
            };
            let mut cells = vec![
                Cell::text(&*row.what),
                Cell::text(&*row.quantity),
                Cell::text(&*row.unit),
                number(row.published, "not published"),
                number(row.ours, "not run"),
                Cell::text(row.show_compared()),
            ];
            if with_data {
                cells.push(Cell::text(if row.data.is_empty() { "as published" } else { &row.data }));
            }
            if with_note {
                cells.push(Cell::text(&*row.note));
            }
            table.row(cells);
        }
        table.notes.clone_from(&self.notes);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Comparison {
        let mut comparison = Comparison::new("accuracy", "Test accuracy");
        comparison.row(
            ComparisonRow::new("Yin-Yang, block", "accuracy", "%")
                .published(Measured::with_sd(98.02, 0.16))
                .ours(Measured::of(&[97.0, 98.0, 99.0]).unwrap()),
        );
        comparison.row(ComparisonRow::new("SHD, block", "epoch", "s").published(11.28).ours(5.64).ratio());
        comparison.row(
            ComparisonRow::new("SHD, block", "accuracy", "%")
                .published(70.32)
                .ours(90.0)
                .other_data("shd-sim (simulated)"),
        );
        comparison.row(ComparisonRow::new("SHD, multi", "accuracy", "%").published(70.82).note("paper profile only"));
        comparison
    }

    #[test]
    fn mean_and_sample_deviation_of_runs() {
        let measured = Measured::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((measured.mean, measured.sd, measured.n), (2.0, Some(1.0), Some(3)));
        assert_eq!(Measured::of(&[5.0]).unwrap().show(1), "5.0 (n = 1)");
        assert_eq!(Measured::of(&[]), None);
        assert_eq!(Measured::value(f64::NAN).show(2), "-");
    }

    #[test]
    fn published_and_ours_stand_in_columns_of_their_own() {
        let text = example().table().markdown();
        let line = text.lines().nth(2).unwrap();
        assert_eq!(
            line,
            "| Yin-Yang, block | accuracy | % | 98.02 ± 0.16 | 98.00 ± 1.00 (n = 3) | -0.02 pp | as published |  |"
        );
        assert!(text.contains("| 11.28 | 5.64 | × 0.50 |"));
        assert!(text.contains("| 70.32 | 90.00 | other data | shd-sim (simulated) |"));
        assert!(text.contains("| 70.82 | not run | - | as published | paper profile only |"));
    }

    #[test]
    fn a_zero_difference_has_no_sign() {
        let row = ComparisonRow::new("a", "b", "s").published(1.0).ours(0.999_9);
        assert_eq!(row.show_compared(), "0.00 s");
    }

    #[test]
    fn terminal_columns_line_up() {
        let mut table = Table::new("t", "A title", vec![Column::words("name"), Column::numbers("time", "s")]);
        table.row(["a".into(), Cell::number(1.0, 1)]);
        table.row(["longer ± name".into(), Cell::number(100.0, 1)]);
        table.row(["short row".into()]);
        assert_eq!(
            table.terminal(),
            "A title\nname           time (s)\n-------------  --------\na                   1.0\nlonger ± name     100.0\nshort row\n"
        );
    }

    #[test]
    fn hostile_cells_stay_cells() {
        let mut table = Table::new("t\"><script>", "<b>", vec![Column::words("a|b")]);
        table.row(["<script>alert(1)</script>\n| x \u{1b}[31m".into()]);
        let html = table.html();
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;"));
        let markdown = table.markdown();
        assert_eq!(markdown.lines().count(), 3);
        assert!(markdown.contains("a\\|b") && !markdown.contains("<script>"), "{markdown}");
        assert!(!table.terminal().contains('\u{1b}'));
    }

    #[test]
    fn a_table_survives_json() {
        let table = example().table();
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
        let nothing = serde_json::to_string(&Measured::value(f64::NAN)).unwrap();
        assert!(serde_json::from_str::<Measured>(&nothing).unwrap().mean.is_nan());
    }
}
