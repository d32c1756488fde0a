//! Generated data sets: they need no download, so that the first command works anywhere.
//!
//! | name | samples are | imitates |
//! |---|---|---|
//! | `yinyang` | vectors of 4 | nothing: it is the published set, bit for bit |
//! | `yinyang-paralif` | vectors of 4 | nothing either: other seeds |
//! | `randman` | events of 100 units | the random manifolds of Zenke & Vogels 2021 |
//! | `synthetic-poisson` | spikes | the input of the published speed benchmarks |
//! | `spoken-digits` | events of 700 units | SHD |
//! | `digits-sim` | images 28 x 28 | MNIST |
//! | `nmnist-sim` | events of 34 x 34 x 2 units | N-MNIST |
//! | `spike-order` | events of 4 units | nothing: it is the toy of BATS itself |
//!
//! Every sample is a function of the seed, the split and its index. Those that imitate a published set carry a label,
//! so that no result measured on them passes for one of the original.

pub mod digits;
pub mod nmnist;
pub mod order;
pub mod poisson;
pub mod randman;
pub mod spoken;
pub mod yinyang;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::registry::list;
use crate::source::Source;

/// A generated data set.
#[derive(Debug, Clone, Copy)]
pub struct Generated {
    /// The canonical name.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What to print beside results, if it imitates a published set.
    pub label: Option<&'static str>,
    /// Samples of the training and the test split, unless asked otherwise.
    pub samples: [usize; 2],
    make: fn(Recipe) -> Result<Arc<dyn Source>>,
}

/// Which part of a generated set to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Whether this is the training split.
    pub train: bool,
    /// Samples.
    pub samples: usize,
    /// Seed; nothing for the set's own.
    pub seed: Option<u64>,
}

impl Recipe {
    /// `name/train` or `name/test`.
    fn name(&self, set: &str) -> String {
        format!("{set}/{}", if self.train { "train" } else { "test" })
    }

    /// First coordinate of a sample's random stream: splits never share one.
    fn split(&self) -> u32 {
        u32::from(!self.train)
    }
}

/// Every generated data set.
#[must_use]
pub fn all() -> &'static [Generated] {
    const SETS: &[Generated] = &[
        Generated {
            name: "yinyang",
            title: "Yin-Yang (Kriener, Göltz, Petrovici 2022), as the block model's authors generate it",
            label: None,
            samples: [20_000, 10_000],
            make: yinyang::source,
        },
        Generated {
            name: "yinyang-paralif",
            title: "Yin-Yang (Kriener, Göltz, Petrovici 2022), as the authors of ParaLIF generate it",
            label: None,
            samples: [5_000, 1_000],
            make: yinyang::paralif,
        },
        Generated {
            name: "randman",
            title: "Random smooth manifolds (Zenke, Vogels 2021)",
            label: None,
            samples: [8_000, 2_000],
            make: randman::source,
        },
        Generated {
            name: "synthetic-poisson",
            title: "Poisson spikes of a random rate per sample, for speed benchmarks",
            label: None,
            samples: [1_024, 256],
            make: poisson::source,
        },
        Generated {
            name: "spoken-digits",
            title: "Event lists like those of spoken digits, in the style of SHD",
            label: Some("generated look-alike"),
            samples: [2_000, 500],
            make: spoken::source,
        },
        Generated {
            name: "digits-sim",
            title: "Drawn digits, in the style of MNIST",
            label: Some("generated look-alike"),
            samples: [10_000, 2_000],
            make: digits::source,
        },
        Generated {
            name: "nmnist-sim",
            title: "Drawn digits before a moving event camera, in the style of N-MNIST",
            label: Some("generated look-alike"),
            samples: [2_000, 500],
            make: nmnist::source,
        },
        Generated {
            name: "spike-order",
            title: "Two samples of four spikes that differ in the order of two (Bacho, Chu 2023)",
            label: None,
            samples: [2, 2],
            make: order::source,
        },
    ];
    SETS
}

/// The generated data set of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Generated> {
    all().iter().find(|set| set.name == name)
}

impl Generated {
    /// Makes a split, `train` or `test`, of `samples` samples where that is given, from `seed` where that is given.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSplit`] if it is neither, [`Error::Config`] if the count is zero or too large.
    pub fn source(&self, split: &str, samples: Option<usize>, seed: Option<u64>) -> Result<Arc<dyn Source>> {
        let train = match split {
            "train" => true,
            "test" => false,
            _ => {
                let (set, split) = (self.name.to_owned(), split.to_owned());
                return Err(Error::UnknownSplit { set, split, want: list(["train", "test"]) });
            }
        };
        let samples = samples.unwrap_or(self.samples[usize::from(!train)]);
        if samples == 0 || samples > 1 << 30 {
            let what = format!("samples of {}", self.name);
            return Err(Error::config(what, samples.to_string(), "1..=1073741824"));
        }
        (self.make)(Recipe { train, samples, seed })
    }
}
