//! The `snn` command: it parses arguments, picks the device, calls the libraries and prints.

mod args;
mod bench;
mod commands;
mod console;
mod device;
mod report;
mod reproduce;

use std::process::ExitCode;

use clap::Parser;

/// The work could not be done because of how it was asked for: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// A [`Usage`] as an error.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has gone (`| head`) is no failure.
            if is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            console::error(&error);
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

/// Whether the fault lies in what was asked: arguments, configuration, names.
fn is_usage(error: &anyhow::Error) -> bool {
    let data = |e: &snn_data::Error| {
        use snn_data::Error::{Config, UnknownSet, UnknownSplit};
        matches!(e, Config { .. } | UnknownSet { .. } | UnknownSplit { .. })
    };
    error.chain().any(|e| {
        e.is::<Usage>()
            || e.downcast_ref().is_some_and(data)
            || match e.downcast_ref::<snn_train::Error>() {
                Some(snn_train::Error::Config { .. } | snn_train::Error::Fit { .. }) => true,
                // Its source is what lies behind the inner error, so the inner one is no link of the chain.
                Some(snn_train::Error::Data(e)) => data(e),
                _ => false,
            }
    })
}
