//! Training: everything between a backend's operations and a result.
//!
//! * [`config`] — an experiment as data, checked in one place; [`presets`] — every published one.
//! * [`layers`], [`stack`] — models, built from a config, generic over [`snn_core::Backend`].
//! * [`losses`], [`optim`], [`schedule`] — what closes the loop; [`trainer`] — the loop itself.
//! * [`checkpoint`] — atomic, resumed with the same bits; [`log`](mod@log) — JSON lines and TensorBoard.
//! * [`interchange`] — weights of other programs, read and written.
//! * [`monitor`] — accuracy, losses, silent neurons and spikes over parts of epochs, and snapshots of activity.
//! * [`mapping`] — rectifier networks to single-spike networks and back.
//! * [`fit`] — adaptive neurons for recorded cells, many at once; [`metrics`] — how much of a recording they explain.
//! * [`sparsity`] — how much single-spike networks fire, when, and what it costs.
//! * [`propagation`] — how gradients pass through deep single-spike networks, and what training does to their weights.
//! * [`health`] — silent, saturated and exploding layers, with a hint on what to change.
//!
//! No argument parsing and no printing: a run reports to an [`Observer`].

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod fit;
pub mod health;
pub mod interchange;
pub mod layers;
pub mod log;
pub mod losses;
pub mod mapping;
pub mod metrics;
pub mod monitor;
pub mod optim;
pub mod presets;
pub mod propagation;
mod recordings;
pub mod schedule;
pub mod sparsity;
pub mod stack;
pub mod trainer;
mod watch;

pub use config::Experiment;
pub use error::{Error, Result};
pub use stack::Stack;
pub use trainer::{Observer, RunOptions, Summary, evaluate, run};
