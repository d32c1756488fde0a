//! How much of a published protocol a reproduction runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of a published protocol a reproduction runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// Minutes on two cores: shows that everything runs, proves nothing about the numbers.
    #[default]
    Smoke,
    /// Tens of minutes: shortened, trends should be visible.
    Quick,
    /// The full published protocol.
    Paper,
}

impl Profile {
    /// The name used on the command line and in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Quick => "quick",
            Self::Paper => "paper",
        }
    }

    /// What the profile means, as one sentence for a report.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Smoke => "A smoke run shows that everything works; its numbers say nothing about the method.",
            Self::Quick => "A quick run is shortened; its trends are meaningful, its values are not final.",
            Self::Paper => "A paper run follows the full published protocol, apart from the deviations named below.",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
