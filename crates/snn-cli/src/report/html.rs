//! A report as one HTML page: inline pictures, inline style, no script, nothing from outside.

use super::writing::{Drawn, Report};

/// System fonts, two colour schemes, tables that scroll instead of breaking the page.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6470;--paper:#fff;--line:#d8dde3;--tint:#f4f6f8;--mark:#0b6aa6}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa4af;--paper:#14171a;--line:#343b43;--tint:#1d2226;--mark:#6cb6e8}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
h1{font-size:1.75rem;line-height:1.25;margin:0 0 .5rem}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
p{max-width:46rem;margin:.6rem 0}
.lead{color:var(--soft)}
.tag{display:inline-block;padding:.05rem .55rem;border:1px solid var(--line);border-radius:1rem;background:var(--tint);font-size:.85rem}
.warn{border-color:#c9822b;color:#c9822b}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);color:var(--soft);font-weight:600}
.n{text-align:right;white-space:nowrap}
.note{color:var(--soft);font-size:.88rem}
figure{margin:1.5rem 0}
figure svg{display:block;width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:4px}
figcaption{max-width:46rem;margin-top:.5rem;font-size:.9rem;color:var(--soft)}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--tint);padding:.1em .3em;border-radius:3px}
a{color:var(--mark)}
@media print{body{max-width:none;padding:0}h2{break-after:avoid}figure{break-inside:avoid}}
";

/// The whole report.
pub(super) fn page(report: &Report, figures: &[Drawn<'_>]) -> String {
    let title = escape(&report.title);
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    text.push_str(&format!(
        "<p class=\"lead\"><span class=\"tag\">{}</span> <span class=\"tag\">{} profile</span> {}</p>\n",
        escape(&report.target),
        report.profile,
        escape(report.profile.meaning())
    ));
    for paragraph in &report.summary {
        text.push_str(&format!("<p>{}</p>\n", escape(paragraph)));
    }
    if !report.data.is_empty() {
        text.push_str("<h2>Data</h2>\n<div class=\"wide\"><table><thead><tr><th>task</th><th>data used</th><th></th></tr></thead>\n<tbody>\n");
        for data in &report.data {
            let mark = if data.as_published {
                "<span class=\"tag\">as published</span>"
            } else {
                "<span class=\"tag warn\">not the published data</span>"
            };
            let (task, label) = (escape(&data.task), escape(&data.label));
            text.push_str(&format!("<tr><td>{task}</td><td>{label}</td><td>{mark}</td></tr>\n"));
        }
        text.push_str("</tbody></table></div>\n");
    }
    text.push_str("<h2>Deviations from the published protocol</h2>\n");
    if report.deviations.is_empty() {
        text.push_str("<p>None.</p>\n");
    } else {
        text.push_str("<div class=\"wide\"><table><thead><tr><th>what</th><th>published</th><th>here</th><th>why</th></tr></thead>\n<tbody>\n");
        for d in &report.deviations {
            let cells = [&d.what, &d.published, &d.here, &d.why].map(|cell| format!("<td>{}</td>", escape(cell)));
            text.push_str(&format!("<tr>{}</tr>\n", cells.concat()));
        }
        text.push_str("</tbody></table></div>\n");
    }
    let tables = report.all_tables();
    if !tables.is_empty() {
        text.push_str("<h2>Numbers</h2>\n");
    }
    for table in tables {
        text.push_str(&table.html());
    }
    if !figures.is_empty() {
        text.push_str("<h2>Figures</h2>\n");
    }
    for drawn in figures {
        let stem = escape(&drawn.stem);
        text.push_str(&format!(
            "<figure id=\"{stem}\">\n{}\n<figcaption><strong>{}.</strong> {} Numbers: <a href=\"{stem}.csv\">{stem}.csv</a>.</figcaption>\n</figure>\n",
            drawn.svg,
            escape(drawn.figure.title.trim_end_matches('.')),
            escape(&drawn.figure.caption),
        ));
    }
    text.push_str("<h2>Run</h2>\n<div class=\"wide\"><table><tbody>\n");
    for (name, fact) in report.facts() {
        let fact = if name == "command" { format!("<code>{}</code>", escape(&fact)) } else { escape(&fact) };
        text.push_str(&format!("<tr><th>{}</th><td>{fact}</td></tr>\n", escape(&name)));
    }
    text.push_str("</tbody></table></div>\n");
    for note in &report.notes {
        text.push_str(&format!("<p class=\"note\">{}</p>\n", escape(note)));
    }
    text.push_str("<p class=\"note\">Every number with its configuration is in <a href=\"results.json\">results.json</a>.</p>\n</body>\n</html>\n");
    text
}

/// Text that means only itself in HTML content and in quoted attributes; control characters become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Figure, Kind, Panel};
    use super::super::{Deviation, Profile, draw};
    use super::*;

    #[test]
    fn hostile_strings_are_shown_not_run() {
        let evil = "</style></svg><script>alert('x')</script>\"><img src=x onerror=alert(1)>";
        let mut report = Report::new(evil, evil, Profile::Smoke);
        report.summary = vec![evil.to_owned()];
        report.deviations = vec![Deviation::new(evil, evil, evil)];
        report.command = evil.to_owned();
        report.notes = vec![evil.to_owned()];
        report.versions = vec![(evil.to_owned(), evil.to_owned())];
        let figure = Figure::new(evil, evil, 1).caption(evil).panel(Panel::new(
            evil,
            evil,
            evil,
            Kind::Note { text: evil.into() },
        ));
        let svg = draw::draw(&figure).unwrap().svg();
        let drawn = Drawn { figure: &figure, stem: super::super::files::file_stem(evil), svg };
        let page = page(&report, &[drawn]);
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        assert!(page.contains("&lt;script&gt;"));
    }
}
