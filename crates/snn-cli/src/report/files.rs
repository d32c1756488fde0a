//! Writing files whole or not at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path`: to a temporary sibling first, flushed to disk, then renamed over the old file.
///
/// Missing parent directories are made. A reader sees the old file or the new one, never a part.
///
/// # Errors
///
/// If a directory or file cannot be written; the temporary file is removed.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).with_context(|| format!("cannot make directory {}", directory.display()))?;
    let name = path.file_name().with_context(|| format!("{} is not a file name", path.display()))?;
    // Process and serial number keep writers of the same file apart, in one process and in several.
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{}.{}.{serial}.tmp", name.to_string_lossy(), std::process::id()));
    let written = (|| -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself lasts only once the directory is on disk; not every system can do that.
        if let Ok(directory) = File::open(directory) {
            let _ = directory.sync_all();
        }
        Ok(())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps letters, digits, `-`, `_` and `.` of `name`; all else becomes `-`, so that it is one plain file name.
pub(crate) fn file_stem(name: &str) -> String {
    let stem: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let stem = stem.trim_start_matches('.');
    if stem.is_empty() { "unnamed".to_owned() } else { stem.to_owned() }
}

/// A fresh directory for one test; removed when dropped.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::{Path, PathBuf};

    #[derive(Debug)]
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("snn-report-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Scratch;
    use super::*;

    #[test]
    fn writing_replaces_the_file_and_leaves_no_temporary() {
        let scratch = Scratch::new("atomic");
        let path = scratch.path().join("deep/er/file.txt");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_it() {
        let scratch = Scratch::new("atomic-fail");
        let directory = scratch.path().join("taken");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("inside"), b"x").unwrap();
        let error = write_atomically(&directory, b"no").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_stems_cannot_leave_the_directory() {
        assert_eq!(file_stem("fig 3/../a"), "fig-3-..-a");
        assert_eq!(file_stem("../.."), "-..");
        assert_eq!(file_stem(""), "unnamed");
    }
}
