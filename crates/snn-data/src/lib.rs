//! Data sets for training spiking neural networks.
//!
//! The way of a data set through this crate:
//!
//! 1. [`registry`] says, as data, what a public set is and where it lies; [`synth`] generates sets that need no download.
//! 2. [`download()`] fetches and verifies its files; [`archive`] and [`formats`] read them as if they were hostile.
//! 3. [`store`] converts them to one HDF5 file per split.
//! 4. [`open()`] gives a [`Source`]: samples by index, from any thread.
//! 5. [`transforms`] augment and encode; a [`Loader`] makes [`Batch`]es of it in the background.
//!
//! Recordings of single neurons go another way: [`ephys`] fetches, reads, slices and synthesises them.
//!
//! ```
//! use std::sync::Arc;
//! use snn_data::{Encode, Input, Loader, LoaderOptions, OpenOptions, Pipeline, open};
//!
//! let source = open("spoken-digits", "train", &OpenOptions { samples: Some(64), ..OpenOptions::default() })?;
//! let encode = Encode::Bin { steps: 100, dt_ms: 10.0, units: 700 };
//! let pipeline = Arc::new(Pipeline::new(encode, vec![], source.kind())?);
//! assert_eq!(pipeline.signal().to_string(), "spikes of 700 neurons over 100 steps");
//! for batch in Loader::new(source, pipeline, LoaderOptions { batch: 32, shuffle: true, ..LoaderOptions::default() })? {
//!     let Input::Spikes(spikes) = batch?.input else { unreachable!("binned events are spikes") };
//!     assert_eq!(spikes.lanes().batch, 32);
//! }
//! # Ok::<(), snn_data::Error>(())
//! ```
//!
//! Results measured on a reduced or simulated copy of a set must say so: [`Source::label`] carries the words.
//!
//! # Building
//!
//! HDF5 is built from source by default, which needs a C compiler and cmake 3.26 or later on `PATH` (or `CMAKE` naming
//! one). With an installed HDF5, set `HDF5_DIR` instead.

pub mod archive;
pub mod download;
pub mod ephys;
pub mod error;
pub mod formats;
mod h5;
mod heap;
pub mod loader;
pub mod progress;
pub mod registry;
pub mod source;
pub mod store;
pub mod synth;
pub mod transforms;

pub use download::{DownloadOptions, download};
pub use error::{Error, Result};
pub use loader::{Batch, Input, Loader, LoaderOptions, load_batch};
pub use progress::{Progress, Silent};
pub use source::{InMemory, Sample, Source, SourceKind};
pub use store::{OpenOptions, convert, data_dir, info, materialise, open, open_file, write_vlen};
pub use transforms::{Augment, Cut, Encode, Pipeline, Rule};
