//! The project's tasks: `cargo xtask COMMAND`.
//!
//! Checks that the machine has what the build needs, builds, then runs the real thing.
//! Depends on no crate that ships: it drives the built `snn` from outside, as a user would.
//! Exit codes: 0 fine, 1 the work failed, 2 wrong usage; those of `snn` are passed through.

mod check;
mod command;
mod edges;
mod gpu;
mod preflight;
mod snn;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use command::{Line, Outcome};

/// Prepares the machine, builds, and runs downloads, reproductions, benchmarks and checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Fetches data sets, verifies them and converts them to HDF5 (all sets when none is named).
    DownloadData {
        /// Data sets, as `snn data list` names them.
        names: Vec<OsString>,
        /// A folder or an address that holds the files, in place of the published addresses.
        #[arg(long, value_name = "DIR|URL")]
        mirror: Option<OsString>,
        /// Where downloads and converted files go.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Takes copies that are not the published files, and labels them in every result.
        #[arg(long)]
        accept_nonstandard: bool,
        /// Of recordings: the specimens, or `published`, as `snn data download` takes them.
        #[arg(long, value_name = "ID,ID,...|published")]
        cells: Option<OsString>,
    },
    /// Reproduces a published figure or table: TARGET [--profile smoke|quick|paper] [...].
    ///
    /// All arguments go to `snn reproduce`, where `--list` names the targets; paths are relative to the workspace.
    Reproduce {
        /// The target, the profile and any other argument of `snn reproduce`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "TARGET", required = true)]
        rest: Vec<OsString>,
    },
    /// Measures speed with `snn bench` and keeps the numbers under `results/bench`.
    Bench {
        /// An earlier result to compare with.
        #[arg(long, value_name = "FILE")]
        compare: Option<PathBuf>,
        /// Further arguments of `snn bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
    /// Runs all tests.
    Test {
        /// The long ones too, optimised.
        #[arg(long)]
        slow: bool,
    },
    /// Everything that must hold before a change goes in: format, lints, docs, tests, dependency edges, fresh files.
    Check,
    /// Puts what a machine with a GPU needs into one file: the program, golden cases, a script that checks and measures.
    ///
    /// The file runs on a bare machine with a driver, NVRTC and cuBLAS: unpack it and run `./check`.
    GpuCheck {
        /// Where the file goes [default: `gpu-check.tar.gz` beside the optimised program].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Run it here too.
        #[arg(long)]
        run: bool,
        /// Further arguments of `snn gpu-check`, for that run.
        #[arg(last = true, value_name = "ARGUMENT", requires = "run")]
        rest: Vec<OsString>,
    },
    /// Compares every operation with the golden vectors of the original implementations.
    Golden {
        /// One system (all when none is named).
        system: Option<OsString>,
        /// Another folder of golden cases of the same layout.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Where data sets lie that a case may need.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<Outcome> {
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let root = command::root();
    match task {
        Task::DownloadData { names, mirror, data_dir, accept_nonstandard, cells } => {
            let Some(snn) = snn::build(&root)? else { return Ok(Outcome::Failed) };
            let data_dir = data_dir.map(|dir| absolute(&here, &dir));
            let mut download =
                snn.line().args(["data", "download"]).args(&names).option("--data-dir", data_dir.as_ref());
            if let Some(mirror) = mirror {
                download = download.option("--mirror", Some(mirror_place(&here, &mirror)));
            }
            if accept_nonstandard {
                download = download.args(["--accept-nonstandard"]);
            }
            let outcome = download.option("--cells", cells).run()?;
            if !outcome.is_fine() {
                return Ok(outcome);
            }
            snn.line().args(["data", "convert"]).args(&names).option("--data-dir", data_dir.as_ref()).run()
        }
        Task::Reproduce { rest } => {
            let Some(snn) = snn::build(&root)? else { return Ok(Outcome::Failed) };
            snn.line().args(["reproduce"]).args(rest).run()
        }
        Task::Bench { compare, rest } => {
            let Some(snn) = snn::build(&root)? else { return Ok(Outcome::Failed) };
            let mut line = snn.line().args(["bench"]).args(&rest);
            // Asking for help or naming a file of one's own needs no new file.
            let plain = !rest.iter().any(|a| ["--json", "--help", "-h", "--list"].iter().any(|known| a == known));
            if plain {
                let folder = root.join("results").join("bench");
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                line = line.option("--json", Some(folder.join(format!("bench-{seconds}.json"))));
            }
            line.option("--compare", compare.map(|file| absolute(&here, &file))).run()
        }
        Task::Test { slow } => {
            if !preflight::ready(&root) {
                return Ok(Outcome::Failed);
            }
            let line = Line::cargo(&root).args(["test", "--workspace"]);
            if slow { line.args(["--release"]).env("SNN_SLOW_TESTS", "1").run() } else { line.run() }
        }
        Task::Check => check::check(&root),
        Task::GpuCheck { out, run, rest } => {
            let Some(snn) = snn::build(&root)? else { return Ok(Outcome::Failed) };
            let out = out.map(|file| absolute(&here, &file));
            gpu::bundle(&root, &snn, out, run.then_some(&rest[..]))
        }
        Task::Golden { system, dir, data_dir } => {
            let Some(snn) = snn::build(&root)? else { return Ok(Outcome::Failed) };
            let path = |path: Option<PathBuf>| path.map(|path| absolute(&here, &path));
            snn.line()
                .args(["golden"])
                .args(system)
                .option("--dir", path(dir))
                .option("--data-dir", path(data_dir))
                .run()
        }
    }
}

/// Commands run in the workspace: a path given elsewhere must not depend on that.
fn absolute(here: &Path, path: &Path) -> PathBuf {
    here.join(path)
}

/// A mirror is an address or a folder; only the folder depends on where the command was given.
fn mirror_place(here: &Path, mirror: &OsString) -> OsString {
    let is_address = mirror.to_str().is_some_and(|text| text.contains("://"));
    if is_address { mirror.clone() } else { here.join(mirror).into_os_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_of_snn_are_passed_on_in_any_order() {
        for line in ["block-fig3 --profile smoke --seeds 1,2 -v", "--profile smoke block-fig3", "--list"] {
            let words: Vec<&str> = line.split(' ').collect();
            let Task::Reproduce { rest } = Arguments::parse_from(["x", "reproduce"].iter().chain(&words)).task else {
                panic!("another task")
            };
            assert_eq!(rest, words);
        }
        let bench = |line: &str| match Arguments::parse_from(line.split(' ')).task {
            Task::Bench { compare, rest } => (compare, rest.len()),
            _ => panic!("another task"),
        };
        assert_eq!(bench("x bench --compare a.json block --steps 8"), (Some("a.json".into()), 3));
        assert_eq!(bench("x bench --list"), (None, 1));
    }

    #[test]
    fn wrong_usage_is_code_two() {
        for line in
            [&["x", "reproduce"][..], &["x", "fly"], &["x", "check", "--hard"], &["x", "download-data", "--huh"]]
        {
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn only_folders_become_absolute() {
        let here = Path::new("/here");
        assert_eq!(mirror_place(here, &"https://host/x".into()), "https://host/x");
        assert_eq!(mirror_place(here, &"mirror".into()), "/here/mirror");
        assert_eq!(absolute(here, Path::new("/data")), Path::new("/data"));
    }
}
