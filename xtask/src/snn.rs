//! Building and calling the `snn` program.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::Line;
use crate::preflight;

/// The built program.
#[derive(Debug)]
pub(crate) struct Snn {
    program: PathBuf,
    root: PathBuf,
}

/// Builds the optimised program; `None` if the machine lacks something or the build fails, which has been said.
///
/// # Errors
///
/// If cargo cannot be run.
pub(crate) fn build(root: &Path) -> Result<Option<Snn>> {
    if !preflight::ready(root) {
        return Ok(None);
    }
    let outcome = Line::cargo(root).args(["build", "--release", "--package", "snn-cli", "--bin", "snn"]).run()?;
    if !outcome.is_fine() {
        eprintln!("error: the build failed, see above");
        return Ok(None);
    }
    let metadata = metadata(root)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let program = Path::new(target).join("release").join(format!("snn{}", std::env::consts::EXE_SUFFIX));
    Ok(Some(Snn { program, root: root.to_owned() }))
}

impl Snn {
    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// A line that calls the program in the workspace.
    pub(crate) fn line(&self) -> Line {
        Line::new(&self.program, &self.root)
    }
}

/// What cargo knows about the packages of the workspace.
///
/// # Errors
///
/// If cargo fails or its answer is not JSON.
pub(crate) fn metadata(root: &Path) -> Result<Value> {
    let line = Line::cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = line.output().with_context(|| format!("`{}` failed", line.shown()))?;
    serde_json::from_str(&text).context("cargo metadata did not answer in JSON")
}
