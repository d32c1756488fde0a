//! Everything that can go wrong in training.

use std::path::PathBuf;

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A run, or what it was given, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration cannot be used.
    #[error("{place}: {reason}")]
    Config {
        /// File and key, or the part of the configuration.
        place: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Two layers do not fit together.
    #[error("layer {second} ({name}) takes {takes}, but {first} gives {gives}")]
    Fit {
        /// What gives: `layer 0`, `the input`.
        first: String,
        /// The position of the layer that takes.
        second: usize,
        /// The layer that takes.
        name: String,
        /// What it takes.
        takes: String,
        /// What it is given.
        gives: String,
    },
    /// The loss is no longer a number.
    #[error("the loss is {loss} in epoch {epoch}, batch {batch}; {hint}")]
    Diverged {
        /// The loss.
        loss: f64,
        /// The epoch, from 1.
        epoch: u32,
        /// The batch, from 1.
        batch: usize,
        /// What to change.
        hint: String,
    },
    /// A checkpoint cannot be used.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Reading or writing a file failed.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data failed.
    #[error(transparent)]
    Data(#[from] snn_data::Error),
    /// The device or a layer failed.
    #[error(transparent)]
    Core(#[from] snn_core::Error),
}

impl Error {
    /// A [`Error::Config`].
    pub fn config(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { place: place.into(), reason: reason.into() }
    }

    /// Turns an I/O error of `path` into this error.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
