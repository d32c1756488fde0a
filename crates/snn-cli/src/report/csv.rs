//! Comma-separated values (RFC 4180), and the numbers of a figure in that form.
//!
//! A figure becomes one long table, a row per drawn number: `panel, title, kind, series, x, y, value, low, high`.
//! `value` is the quantity drawn; `x` its position or category; `y` is used by heat maps (row) and rasters (unit).
//! A box has a row `boxes` (median and quartiles), a row `whiskers` (their ends), and a row `sample` for each value.

use super::figure::{Bars, BoxStatistics, Figure, Kind, Lines, Point};

/// The columns of a figure's file.
pub(crate) const COLUMNS: [&str; 9] = ["panel", "title", "kind", "series", "x", "y", "value", "low", "high"];

/// Every number a figure draws, header included.
pub(crate) fn figure_rows(figure: &Figure) -> Vec<Vec<String>> {
    let mut rows = vec![COLUMNS.map(String::from).to_vec()];
    for (index, panel) in figure.panels.iter().enumerate() {
        let letter = figure.letter(index);
        let mut row = |kind: &str, series: &str, x: String, y: String, value: [Option<f64>; 3]| {
            let [value, low, high] = value.map(|v| v.map(number).unwrap_or_default());
            rows.push(vec![letter.clone(), panel.title.clone(), kind.into(), series.into(), x, y, value, low, high]);
        };
        let spread = |p: &Point| [Some(p.y), p.low, p.high];
        let name = panel.kind.name();
        match &panel.kind {
            Kind::Lines(lines) => {
                for series in &lines.series {
                    for point in &series.points {
                        row(name, &series.name, number(point.x), String::new(), spread(point));
                    }
                }
            }
            Kind::Bars(bars) => {
                for group in &bars.groups {
                    for (category, value) in bars.categories.iter().zip(&group.values) {
                        let value = value.as_ref().map_or([None; 3], spread);
                        row(name, &group.name, category.clone(), String::new(), value);
                    }
                }
            }
            Kind::Boxes(boxes) => {
                for group in &boxes.groups {
                    for (category, sample) in boxes.categories.iter().zip(&group.samples) {
                        let Some(s) = BoxStatistics::of(sample) else { continue };
                        let mut row =
                            |kind: &str, value| row(kind, &group.name, category.clone(), String::new(), value);
                        row(name, [Some(s.median), Some(s.first), Some(s.third)]);
                        row("whiskers", [None, Some(s.low), Some(s.high)]);
                        for value in sample {
                            row("sample", [Some(*value), None, None]);
                        }
                    }
                }
            }
            Kind::Heat(heat) => {
                for (y, values) in heat.y_ticks.iter().zip(&heat.values) {
                    for (x, value) in heat.x_ticks.iter().zip(values) {
                        row(name, &heat.colour_label, x.clone(), y.clone(), [*value, None, None]);
                    }
                }
            }
            Kind::Raster(raster) => {
                for group in &raster.groups {
                    for (time, unit) in &group.events {
                        row(name, &group.name, number(*time), number(*unit), [None; 3]);
                    }
                }
            }
            Kind::Note { text } => row(name, text, String::new(), String::new(), [None; 3]),
        }
        if let Kind::Lines(Lines { references, .. }) | Kind::Bars(Bars { references, .. }) = &panel.kind {
            for reference in references {
                row("reference", &reference.label, String::new(), String::new(), [Some(reference.value), None, None]);
            }
        }
    }
    rows
}

/// The numbers of a figure as file content.
pub(crate) fn figure_csv(figure: &Figure) -> String {
    write(&figure_rows(figure))
}

/// The shortest text that reads back as the same number.
fn number(value: f64) -> String {
    let plain = format!("{value}");
    if plain.len() > 20 { format!("{value:e}") } else { plain }
}

/// Rows as text; a field with a comma, quote or line break is quoted.
pub(crate) fn write(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        for (i, field) in row.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            if field.contains([',', '"', '\n', '\r']) {
                text.push('"');
                text.push_str(&field.replace('"', "\"\""));
                text.push('"');
            } else {
                text.push_str(field);
            }
        }
        text.push('\n');
    }
    text
}

/// Text as rows.
///
/// # Errors
///
/// If a quoted field does not end.
#[cfg(test)]
pub(crate) fn read(text: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            _ => field.push(c),
        }
    }
    anyhow::ensure!(!quoted, "row {}: a quoted field does not end", rows.len() + 1);
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Boxes, Heat, Panel, Raster, Series};
    use super::*;

    #[test]
    fn awkward_fields_survive_a_round_trip() {
        let rows = vec![
            vec!["a,b".into(), "say \"x\"".into(), "two\nlines\r\n".into()],
            vec!["".into(), "ü".into(), "1".into()],
        ];
        assert_eq!(read(&write(&rows)).unwrap(), rows);
        assert_eq!(read("a,b\r\nc,d").unwrap(), [["a", "b"], ["c", "d"]]);
        assert!(read("a,\"b").is_err());
    }

    #[test]
    fn every_number_of_a_figure_is_written_exactly() {
        let third = 1.0 / 3.0;
        let figure = Figure::new("f", "", 2)
            .panel(Panel::new(
                "l",
                "x",
                "y",
                Lines::new(vec![Series::new("s", [(1e-9, third, 0.1)])]).reference(1.0, "equal"),
            ))
            .panel(Panel::new("b", "x", "y", Bars::new(["c1", "c2"]).group("g", [Some((2.5, None)), None])))
            .panel(Panel::new(
                "h",
                "x",
                "y",
                Heat::new(["8"], ["100", "200"], vec![vec![Some(4.0)], vec![None]], "speed-up"),
            ))
            .panel(Panel::new("r", "x", "y", Raster::default().group("in", vec![(0.5, 7.0)])));
        let rows = read(&figure_csv(&figure)).unwrap();
        assert_eq!(rows[0], COLUMNS);
        assert_eq!(rows[1][6].parse::<f64>().unwrap(), third);
        assert_eq!(rows[1][4].parse::<f64>().unwrap(), 1e-9);
        assert_eq!(rows[2][2..7], ["reference", "equal", "", "", "1"]);
        assert_eq!(rows[3][..7], ["b", "b", "bars", "g", "c1", "", "2.5"]);
        assert_eq!(rows[4][6], "");
        assert_eq!(rows[5][3..7], ["speed-up", "8", "100", "4"]);
        assert_eq!(rows[7][2..6], ["raster", "in", "0.5", "7"]);
        assert_eq!(rows.len(), 8);
    }

    #[test]
    fn a_box_is_written_with_its_sample() {
        let boxes = Boxes::new(["best", "last"]).group("g", [vec![1.0, 3.0, 2.0], Vec::new()]);
        let rows = read(&figure_csv(&Figure::new("f", "", 1).panel(Panel::new("b", "", "%", boxes)))).unwrap();
        assert_eq!(rows[1][2..], ["boxes", "g", "best", "", "2", "1.5", "2.5"]);
        assert_eq!(rows[2][2..], ["whiskers", "g", "best", "", "", "1", "3"]);
        let sample: Vec<&str> = rows[3..].iter().map(|row| &*row[6]).collect();
        assert_eq!(sample, ["1", "3", "2"]);
    }
}
