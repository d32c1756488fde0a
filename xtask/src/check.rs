//! `cargo xtask check`: everything that must hold before a change goes in. CI runs this and nothing else.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::command::{Line, Outcome};
use crate::{edges, preflight, snn};

/// Runs every check, also after one has failed, and closes with a table of them.
///
/// # Errors
///
/// If a program cannot be started.
pub(crate) fn check(root: &Path) -> Result<Outcome> {
    if !preflight::ready(root) || !components_ready(root) || !preflight::has_cpp_compiler(root) {
        return Ok(Outcome::Failed);
    }
    let cargo = || Line::cargo(root);
    let commands = [
        ("lock file fresh", cargo().args(["metadata", "--locked", "--quiet", "--format-version", "1"])),
        ("format", cargo().args(["fmt", "--all", "--check"])),
        ("lints", cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("docs", cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
        ("tests", cargo().args(["test", "--workspace", "--no-fail-fast"])),
    ];
    let mut done = vec![("dependency edges", timed(|| dependency_edges(root))?)];
    for (name, line) in commands {
        done.push((name, timed(|| if name == "lock file fresh" { quiet(&line) } else { line.run() })?));
    }
    eprintln!();
    for (name, (outcome, seconds)) in &done {
        eprintln!("{}  {name} ({seconds:.0} s)", if outcome.is_fine() { "ok    " } else { "FAILED" });
    }
    let fine = done.iter().all(|(_, (outcome, _))| outcome.is_fine());
    Ok(if fine { Outcome::Fine } else { Outcome::Failed })
}

fn timed(work: impl FnOnce() -> Result<Outcome>) -> Result<(Outcome, f64)> {
    let start = Instant::now();
    let outcome = work()?;
    Ok((outcome, start.elapsed().as_secs_f64()))
}

/// Runs a command whose output says nothing to people.
fn quiet(line: &Line) -> Result<Outcome> {
    eprintln!("$ {}", line.shown());
    if line.output().is_some() {
        return Ok(Outcome::Fine);
    }
    eprintln!("error: Cargo.lock does not fit the manifests; run `cargo update --workspace` and keep the new file");
    Ok(Outcome::Failed)
}

fn dependency_edges(root: &Path) -> Result<Outcome> {
    let found = edges::forbidden(&snn::metadata(root)?)?;
    for edge in &found {
        eprintln!("error: {edge}");
    }
    Ok(if found.is_empty() { Outcome::Fine } else { Outcome::Failed })
}

/// Whether rustfmt and clippy are there; says how to get them otherwise.
fn components_ready(root: &Path) -> bool {
    let has = |name: &str| Line::cargo(root).args([name, "--version"]).output().is_some();
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(tool, _)| !has(tool))
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        eprintln!("error: the checks need {0}: rustup component add {1}", missing.join(" and "), missing.join(" "));
    }
    missing.is_empty()
}
