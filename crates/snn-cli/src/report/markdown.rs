//! A report as Markdown, one sentence or table row per line.

use super::writing::{Drawn, Report};

/// The whole report.
pub(super) fn page(report: &Report, figures: &[Drawn<'_>]) -> String {
    let mut text = format!("# {}\n\n", inline(&report.title));
    text.push_str(&format!("Target `{}`, profile `{}`.\n", code(&report.target), report.profile));
    text.push_str(&format!("{}\n", report.profile.meaning()));
    for paragraph in &report.summary {
        text.push_str(&format!("\n{}\n", inline(paragraph)));
    }
    if !report.data.is_empty() {
        text.push_str("\n## Data\n\n| task | data used | as published |\n| --- | --- | --- |\n");
        for data in &report.data {
            let same = if data.as_published { "yes" } else { "**no**" };
            text.push_str(&format!("| {} | {} | {same} |\n", inline(&data.task), inline(&data.label)));
        }
    }
    text.push_str("\n## Deviations from the published protocol\n\n");
    if report.deviations.is_empty() {
        text.push_str("None.\n");
    } else {
        text.push_str("| what | published | here | why |\n| --- | --- | --- | --- |\n");
        for d in &report.deviations {
            let cells = [&d.what, &d.published, &d.here, &d.why].map(|cell| inline(cell));
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    let tables = report.all_tables();
    if !tables.is_empty() {
        text.push_str("\n## Numbers\n");
    }
    for table in tables {
        text.push_str(&format!("\n### {}\n\n{}", inline(&table.title), table.markdown()));
    }
    if !figures.is_empty() {
        text.push_str("\n## Figures\n");
    }
    for drawn in figures {
        let (title, stem) = (inline(&drawn.figure.title), &drawn.stem);
        text.push_str(&format!("\n### {title}\n\n![{title}]({stem}.svg)\n"));
        if !drawn.figure.caption.is_empty() {
            text.push_str(&format!("\n{}\n", inline(&drawn.figure.caption)));
        }
        text.push_str(&format!("\nThe numbers: [{stem}.csv]({stem}.csv); the picture: [{stem}.png]({stem}.png).\n"));
    }
    text.push_str("\n## Run\n\n| | |\n| --- | --- |\n");
    for (name, fact) in report.facts() {
        let fact = if name == "command" { format!("`{}`", code(&fact)) } else { inline(&fact) };
        text.push_str(&format!("| {} | {fact} |\n", inline(&name)));
    }
    for note in &report.notes {
        text.push_str(&format!("\n{}\n", inline(note)));
    }
    text.push_str("\nEvery number with its configuration is in [results.json](results.json).\n");
    text
}

/// Text that stays one line of plain text wherever it lands, in a table cell too.
pub(super) fn inline(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => safe.push(' '),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '$' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Text for a code span in a table cell.
fn code(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_shown_not_followed() {
        assert_eq!(inline("[x](y) *b* <i> a|b\nc"), "\\[x\\](y) \\*b\\* &lt;i&gt; a\\|b c");
        assert_eq!(code("a`b|c\n"), "a b\\|c ");
    }
}
