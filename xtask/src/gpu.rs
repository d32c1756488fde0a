//! `cargo xtask gpu-check`: everything that a bare machine with a GPU needs to check and measure it, in one file.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{Line, Outcome};
use crate::snn::Snn;

/// Bytes of the file, at most: what a machine at the end of a slow line can be sent.
const MOST: u64 = 60 << 20;

/// What runs on the other machine; its arguments go to `snn gpu-check`.
const SCRIPT: &str = r#"#!/bin/sh
# Checks and measures the GPU of this machine; needs its driver, NVRTC and cuBLAS.
# Libraries that lie elsewhere: SNN_CUDA_LIB_DIR=DIR:DIR ./check
# With a Python that has torch, its layers are timed beside ours: ./check --peer-python python3
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
SNN_CACHE_DIR=${SNN_CACHE_DIR:-$here/cache}
export SNN_CACHE_DIR
exec "$here/snn" gpu-check --golden "$here/golden" --json "$here/gpu-check.json" "$@"
"#;

/// Writes the file; runs its script here if arguments for it are given.
///
/// # Errors
///
/// If a file cannot be written, or the result is too large.
pub(crate) fn bundle(root: &Path, snn: &Snn, out: Option<PathBuf>, run: Option<&[OsString]>) -> Result<Outcome> {
    let release = snn.program().parent().context("the program lies in a directory")?;
    let folder = release.join("gpu-check");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    fs::copy(snn.program(), folder.join("snn"))?;
    copy_folder(&root.join("crates/snn-core/golden"), &folder.join("golden"))?;
    let script = folder.join("check");
    fs::write(&script, SCRIPT)?;
    executable(&script)?;
    // What tells functions by their names is most of the program, and no help there.
    let strip = Line::new("strip", &folder).args(["snn"]);
    if strip.output().is_none() {
        eprintln!("note: `strip` is missing; the file is larger than it need be");
    }
    let out = out.unwrap_or_else(|| release.join("gpu-check.tar.gz"));
    let tar = Line::new("tar", release).args(["-czf".as_ref(), out.as_os_str(), "gpu-check".as_ref()]);
    if !tar.run()?.is_fine() {
        return Ok(Outcome::Failed);
    }
    let bytes = fs::metadata(&out)?.len();
    println!("{}: {:.1} MB", out.display(), bytes as f64 / 1e6);
    if bytes > MOST {
        bail!("more than {} MB", MOST >> 20);
    }
    match run {
        Some(arguments) => Line::new(&script, &folder).args(arguments).run(),
        None => Ok(Outcome::Fine),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}
