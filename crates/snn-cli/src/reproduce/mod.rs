//! `snn reproduce`: the figures and tables of the papers, computed.

use anyhow::Result;

use crate::args::Reproduce;
use crate::usage;

/// The targets, in the order of the papers.
const TARGETS: &[&str] = &["figure1", "figure2", "figure3", "figure4"];

pub(crate) fn run(args: &Reproduce, _quiet: bool) -> Result<()> {
    match args.target.as_str() {
        other => {
            let hint = snn_train::config::nearest(other, TARGETS.iter().copied());
            Err(usage(format!("no target `{other}`{hint}; there are {}", TARGETS.join(", "))))
        }
    }
}
