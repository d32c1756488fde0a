//! Everything that can go wrong in `snn-data`.

use std::io;
use std::path::{Path, PathBuf};

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A data set could not be found, fetched, read, converted or encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data set has this name.
    #[error("there is no data set `{name}`{hint}")]
    UnknownSet {
        /// The name asked for.
        name: String,
        /// The nearest names, as the end of the sentence.
        hint: String,
    },
    /// The data set has no such split.
    #[error("data set `{set}` has no split `{split}`, it has {want}")]
    UnknownSplit {
        /// The data set.
        set: String,
        /// The split asked for.
        split: String,
        /// The splits there are.
        want: String,
    },
    /// The files of a data set are not on this machine.
    #[error("data set `{set}` is not in {}; fetch it with `{command}`", folder.display())]
    NotDownloaded {
        /// The data set.
        set: String,
        /// Where its files were looked for.
        folder: PathBuf,
        /// The command that fetches it.
        command: String,
    },
    /// A generated data set was asked to be downloaded or converted.
    #[error("data set `{set}` is generated, there is nothing to {verb}")]
    Generated {
        /// The data set.
        set: String,
        /// What cannot be done.
        verb: &'static str,
    },
    /// Reading or writing a file failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted: `read`, `write`, `create`.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what its format demands.
    #[error("{}: {place}: {got}, expected {want}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where in the file: a header field, an archive entry, an HDF5 path.
        place: String,
        /// What was found.
        got: String,
        /// What would be right.
        want: String,
    },
    /// A file is not the published one.
    #[error(
        "{}: its digest is {got}, the published one is {want}; \
         if this copy is wanted all the same, accept it as non-standard", file.display()
    )]
    Checksum {
        /// The file.
        file: PathBuf,
        /// Digests of the file, packed and unpacked.
        got: String,
        /// Digests that would be right.
        want: String,
    },
    /// No source delivered a file.
    #[error("cannot fetch {file}: {reason}")]
    Download {
        /// The file.
        file: String,
        /// What each source said.
        reason: String,
    },
    /// A setting is out of range or does not fit the data.
    #[error("{what}: {got}, expected {want}")]
    Config {
        /// The setting.
        what: String,
        /// What was given.
        got: String,
        /// What would be right.
        want: String,
    },
    /// A sample was asked for that the data set does not have.
    #[error("sample {index} of {set}: there are {len} samples")]
    Index {
        /// The data set.
        set: String,
        /// The sample asked for.
        index: usize,
        /// Samples in the set.
        len: usize,
    },
    /// The background thread of a loader ended without delivering its batches.
    #[error("the loader's background thread ended at batch {batch}")]
    LoaderStopped {
        /// The batch that never came.
        batch: usize,
    },
    /// An operation of `snn-core` failed.
    #[error(transparent)]
    Core(#[from] snn_core::Error),
}

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// An [`Error::Malformed`].
    pub(crate) fn malformed(
        file: &Path,
        place: impl Into<String>,
        got: impl Into<String>,
        want: impl Into<String>,
    ) -> Self {
        Self::Malformed { file: file.to_owned(), place: place.into(), got: got.into(), want: want.into() }
    }

    /// An [`Error::Config`].
    pub(crate) fn config(what: impl Into<String>, got: impl Into<String>, want: impl Into<String>) -> Self {
        Self::Config { what: what.into(), got: got.into(), want: want.into() }
    }
}
