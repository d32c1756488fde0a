//! A report: what a run found, and the files it becomes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::figure::Figure;
use super::files::{file_stem, write_atomically};
use super::table::{Comparison, Table};
use super::{Machine, Profile, csv, draw, html, markdown};

/// The file with every number.
const RESULTS: &str = "results.json";

/// Everything one run of a target has to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The target's name on the command line, such as `block-fig3`.
    pub target: String,
    /// One line: which published figure or table this is.
    pub title: String,
    /// How much of the protocol was run.
    pub profile: Profile,
    /// What was found, one paragraph per entry, most important first.
    pub summary: Vec<String>,
    /// Where the run left the published protocol.
    pub deviations: Vec<Deviation>,
    /// What the numbers were measured on.
    pub data: Vec<DataLabel>,
    /// Published numbers beside ours.
    pub comparisons: Vec<Comparison>,
    /// Other tables.
    pub tables: Vec<Table>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Every single number with its configuration; goes to `results.json` only.
    pub records: Vec<Record>,
    /// Remarks on the run itself: jobs that ran again, skipped parts.
    pub notes: Vec<String>,
    /// Hardware and software.
    pub machine: Machine,
    /// The command line that repeats the run.
    pub command: String,
    /// Names and versions of what matters beside the program: data sets, converter, reference.
    pub versions: Vec<(String, String)>,
    /// Seeds used.
    pub seeds: Vec<u64>,
    /// Seconds of work behind the numbers, earlier interrupted runs included.
    pub seconds: f64,
    /// When the report was made; empty for now.
    pub finished: String,
}

/// One difference between the published protocol and this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deviation {
    /// What differs, such as `epochs`.
    pub what: String,
    /// As published.
    pub published: String,
    /// In this run.
    pub here: String,
    /// Why; may be empty.
    pub why: String,
}

impl Deviation {
    /// A deviation without a reason.
    pub(crate) fn new(what: impl Into<String>, published: impl Into<String>, here: impl Into<String>) -> Self {
        Self { what: what.into(), published: published.into(), here: here.into(), why: String::new() }
    }

    /// Adds the reason.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
}

/// Which data a number rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataLabel {
    /// The task as published, such as `SHD`.
    pub task: String,
    /// What was really used, such as `shd-sim (simulated)`.
    pub label: String,
    /// Whether it is the published data set itself.
    pub as_published: bool,
}

/// The numbers of one job with what produced them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What was measured on, such as `yin-yang, block`.
    pub what: String,
    /// The complete configuration.
    pub configuration: Value,
    /// The seed, where there is one.
    pub seed: Option<u64>,
    /// Named numbers; one that is not finite is written as `null`.
    pub numbers: BTreeMap<String, f64>,
    /// Longer results (curves, timings) of any shape.
    pub details: Value,
}

/// The files a report became.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Written {
    /// The page for people.
    pub html: PathBuf,
    /// The same as text.
    pub markdown: PathBuf,
    /// The numbers.
    pub results: PathBuf,
    /// SVG, PNG and CSV of each figure.
    pub figures: Vec<PathBuf>,
}

/// A figure with what it was drawn to.
#[derive(Debug)]
pub(super) struct Drawn<'a> {
    /// Its description.
    pub(super) figure: &'a Figure,
    /// File name without extension, unique in the report.
    pub(super) stem: String,
    /// The vector picture.
    pub(super) svg: String,
}

impl Report {
    /// An empty report on this machine.
    pub(crate) fn new(target: impl Into<String>, title: impl Into<String>, profile: Profile) -> Self {
        Self { target: target.into(), title: title.into(), profile, machine: Machine::detect(), ..Self::default() }
    }

    /// Writes the report into `directory` (made if missing), which holds the latest run.
    ///
    /// The report of another profile found there moves to a sub-directory named after that profile, so that a
    /// smoke run never replaces the numbers of a paper run.
    /// `results.json` comes last: where it exists, everything it names exists.
    ///
    /// # Errors
    ///
    /// If a figure cannot be drawn or a file cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<Written> {
        let mut report = self.clone();
        if report.finished.is_empty() {
            report.finished = super::machine::utc_now();
        }
        let mut drawn: Vec<Drawn<'_>> = Vec::new();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for figure in &report.figures {
            let mut stem = file_stem(&figure.name);
            while drawn.iter().any(|other| other.stem == stem) || matches!(&*stem, "report" | "results") {
                stem.push('_');
            }
            let context = || format!("figure {}", figure.name);
            let picture = draw::draw(figure).with_context(context)?;
            files.push((format!("{stem}.csv"), csv::figure_csv(figure).into_bytes()));
            files.push((format!("{stem}.png"), picture.png().with_context(context)?));
            let svg = picture.svg();
            files.push((format!("{stem}.svg"), svg.clone().into_bytes()));
            drawn.push(Drawn { figure, stem, svg });
        }
        files.push(("report.md".to_owned(), markdown::page(&report, &drawn).into_bytes()));
        files.push(("report.html".to_owned(), html::page(&report, &drawn).into_bytes()));
        let names: Vec<&str> = files.iter().map(|(name, _)| &**name).collect();
        let mut results = serde_json::to_vec_pretty(&report.results(&names)).context("results.json")?;
        results.push(b'\n');

        set_aside_other_profile(directory, report.profile)?;
        for (name, bytes) in &files {
            write_atomically(&directory.join(name), bytes)?;
        }
        write_atomically(&directory.join(RESULTS), &results)?;
        let pictures = names.iter().filter(|name| !name.starts_with("report.")).map(|name| directory.join(name));
        Ok(Written {
            html: directory.join("report.html"),
            markdown: directory.join("report.md"),
            results: directory.join(RESULTS),
            figures: pictures.collect(),
        })
    }

    /// The tables to show, comparisons first.
    pub(super) fn all_tables(&self) -> Vec<Table> {
        self.comparisons.iter().map(Comparison::table).chain(self.tables.iter().cloned()).collect()
    }

    /// Facts about the run, as pairs of name and text.
    pub(super) fn facts(&self) -> Vec<(String, String)> {
        let mut facts = vec![
            ("profile".to_owned(), self.profile.to_string()),
            ("command".to_owned(), self.command.clone()),
            ("seeds".to_owned(), self.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
            ("duration".to_owned(), super::machine::duration(self.seconds)),
            ("finished".to_owned(), self.finished.clone()),
            ("machine".to_owned(), self.machine.line()),
            ("program".to_owned(), self.program()),
            ("compiler".to_owned(), self.machine.rustc.clone()),
        ];
        facts.extend(self.versions.iter().cloned());
        facts.retain(|(_, text)| !text.is_empty());
        facts
    }

    fn program(&self) -> String {
        let unoptimised =
            if self.machine.optimised { "" } else { " (built without optimisation: timings mean nothing)" };
        format!("{}{unoptimised}", self.machine.program)
    }

    fn results(&self, files: &[&str]) -> Value {
        let compared = |comparison: &Comparison| -> Value {
            let rows = comparison.rows.iter().map(|row| json!({ "row": row, "compared": row.compared() }));
            json!({ "name": comparison.name, "title": comparison.title, "rows": rows.collect::<Vec<_>>(), "notes": comparison.notes })
        };
        json!({
            "format": 1,
            "target": self.target,
            "title": self.title,
            "profile": self.profile,
            "summary": self.summary,
            "deviations": self.deviations,
            "data": self.data,
            "comparisons": self.comparisons.iter().map(compared).collect::<Vec<_>>(),
            "tables": self.tables,
            "figures": self.figures,
            "records": self.records,
            "notes": self.notes,
            "machine": self.machine,
            "command": self.command,
            "versions": self.versions.iter().cloned().collect::<BTreeMap<_, _>>(),
            "seeds": self.seeds,
            "seconds": if self.seconds.is_finite() { Some(self.seconds) } else { None },
            "finished": self.finished,
            "files": files,
        })
    }
}

/// Moves the report of another profile out of the way, file by file as its `results.json` names them.
fn set_aside_other_profile(directory: &Path, profile: Profile) -> Result<()> {
    #[derive(Deserialize)]
    struct Old {
        profile: Profile,
        files: Vec<String>,
    }
    let Ok(text) = fs::read(directory.join(RESULTS)) else { return Ok(()) };
    // A damaged or foreign file is simply replaced: it protects nothing.
    let Ok(old) = serde_json::from_slice::<Old>(&text) else { return Ok(()) };
    if old.profile == profile {
        return Ok(());
    }
    let aside = directory.join(old.profile.name());
    fs::create_dir_all(&aside).with_context(|| format!("cannot make directory {}", aside.display()))?;
    for name in old.files.iter().map(String::as_str).chain([RESULTS]) {
        let (from, to) = (directory.join(name), aside.join(name));
        // The names come from a file: only plain ones are followed.
        if file_stem(name) == name && from.is_file() {
            fs::rename(&from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Lines, Panel, Series};
    use super::super::files::testing::Scratch;
    use super::super::table::{ComparisonRow, Measured};
    use super::*;

    fn example(profile: Profile) -> Report {
        let mut report = Report::new("block-fig4", "Block model, figure 4", profile);
        report.summary = vec!["The <block> model trains & spikes.".to_owned()];
        report.deviations = vec![Deviation::new("epochs", "200", "2").why("smoke profile")];
        report.data =
            vec![DataLabel { task: "SHD".to_owned(), label: "shd-sim (simulated)".to_owned(), as_published: false }];
        let mut comparison = Comparison::new("accuracy", "Accuracy");
        comparison.row(
            ComparisonRow::new("SHD", "accuracy", "%").published(70.32).ours(Measured::of(&[60.0, 62.0]).unwrap()),
        );
        report.comparisons.push(comparison);
        let series = Series::new("loss", [(0.0, 1.0), (1.0, 0.5)]);
        report.figures.push(Figure::new("fig4", "Training", 1).panel(Panel::new(
            "d",
            "epoch",
            "loss",
            Lines::new(vec![series]),
        )));
        report.records.push(Record {
            what: "shd".to_owned(),
            configuration: json!({"epochs": 2}),
            seed: Some(1),
            numbers: [("accuracy".to_owned(), 60.0), ("broken".to_owned(), f64::NAN)].into(),
            details: Value::Null,
        });
        report.command = "snn reproduce block-fig4 --profile smoke".to_owned();
        report.seeds = vec![1, 2];
        report.seconds = 61.0;
        report
    }

    #[test]
    fn a_report_becomes_files_that_agree() {
        let scratch = Scratch::new("report");
        let directory = scratch.path().join("block-fig4");
        let written = example(Profile::Smoke).write(&directory).unwrap();
        assert_eq!(written.figures.len(), 3);
        let html = fs::read_to_string(&written.html).unwrap();
        assert!(html.contains("&lt;block&gt; model trains &amp; spikes") && html.contains("<svg"));
        for outside in ["<script", "http-equiv", "src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!html.contains(outside), "{outside}");
        }
        for needed in ["shd-sim (simulated)", "prefers-color-scheme", "epochs", "61.00 ± 1.41 (n = 2)"] {
            assert!(html.contains(needed), "{needed}");
        }
        let markdown = fs::read_to_string(&written.markdown).unwrap();
        for needed in [
            "# Block model, figure 4",
            "| SHD | accuracy | % | 70.32 | 61.00 ± 1.41 (n = 2) | -9.32 pp |",
            "![",
            "fig4.svg",
            "1 min 1 s",
        ] {
            assert!(markdown.contains(needed), "{needed}");
        }
        let results: Value = serde_json::from_slice(&fs::read(&written.results).unwrap()).unwrap();
        assert_eq!(results["records"][0]["configuration"]["epochs"], 2);
        assert_eq!(results["records"][0]["numbers"]["broken"], Value::Null);
        assert_eq!(results["comparisons"][0]["rows"][0]["row"]["published"]["mean"], 70.32);
        assert!((results["comparisons"][0]["rows"][0]["compared"].as_f64().unwrap() + 9.32).abs() < 1e-9);
        for file in results["files"].as_array().unwrap() {
            assert!(directory.join(file.as_str().unwrap()).is_file());
        }
    }

    #[test]
    fn the_report_of_another_profile_is_kept() {
        let scratch = Scratch::new("profiles");
        example(Profile::Paper).write(scratch.path()).unwrap();
        example(Profile::Smoke).write(scratch.path()).unwrap();
        example(Profile::Smoke).write(scratch.path()).unwrap();
        let profile = |path: &str| -> Value {
            serde_json::from_slice::<Value>(&fs::read(scratch.path().join(path)).unwrap()).unwrap()["profile"].clone()
        };
        assert_eq!((profile("results.json"), profile("paper/results.json")), (json!("smoke"), json!("paper")));
        assert!(scratch.path().join("paper/fig4.png").is_file() && scratch.path().join("fig4.png").is_file());
    }

    #[test]
    fn figures_of_one_name_do_not_overwrite_each_other() {
        let scratch = Scratch::new("names");
        let mut report = example(Profile::Smoke);
        report.figures.push(report.figures[0].clone());
        report.figures[0].name = "../../report".to_owned();
        report.figures[1].name = "../../report".to_owned();
        let written = report.write(&scratch.path().join("in")).unwrap();
        assert_eq!(written.figures.len(), 6);
        assert!(written.figures.iter().all(|path| path.is_file()));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
