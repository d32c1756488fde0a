//! The built `snn`, driven as a user drives it: no network, no data but generated ones, every folder a temporary one.

mod documents;
mod errors;
mod fitting;
mod golden;
mod gpu;
mod interchange;
mod interfaces;
#[cfg(unix)]
mod interrupted;
mod mapped;
mod plots;
mod recordings;
mod reproduce;
mod threads;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A small experiment: two milestones, many checkpoints, a fraction of a second.
const SMALL: &str = r#"
name = "small"

[data]
set = "yinyang"
encode = { kind = "latency", steps = 20 }
train_samples = 300
test_samples = 100

[model]
layers = [{ kind = "dense", width = 24, init = { kind = "uniform", bound = 2.0 } }]

[train]
epochs = 6
batch = 16
evaluate_every = 2
checkpoint_batches = 3
schedule = { kind = "milestones", epochs = [2, 4], reload_best = true }
"#;

/// The program in a directory, with nothing of the caller's environment that could change what it does.
fn snn(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snn"));
    command.current_dir(directory).stdin(Stdio::null());
    let cuda = ["SNN_CUDA_LIB_DIR", "SNN_CACHE_DIR", "SNN_REQUIRE_CUDA", "SNN_EMULATOR_DEVICES"];
    for name in ["SNN_DATA_DIR", "SNN_GOLDEN_DIR", "NO_COLOR", "RUST_BACKTRACE"].into_iter().chain(cuda) {
        command.env_remove(name);
    }
    command
}

/// What a call gave.
#[derive(Debug)]
struct Got {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Got {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts success; gives standard output.
    fn fine(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Asserts the exit code and that the message holds all of `parts`.
    fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.lines().last().is_some_and(|l| l.starts_with("error: ")), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// Runs the program with arguments separated by blanks.
fn run(directory: &Path, arguments: &str) -> Got {
    run_with(directory, &arguments.split_whitespace().collect::<Vec<_>>())
}

fn run_with(directory: &Path, arguments: &[&str]) -> Got {
    Got::of(snn(directory).args(arguments).output().expect("the program starts"))
}

/// A temporary directory with the small experiment in `small.toml`.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("small.toml"), SMALL).unwrap();
    directory
}

/// Every line of a text as JSON.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// The long form of a test was asked for.
fn slow() -> bool {
    std::env::var_os("SNN_SLOW_TESTS").is_some_and(|v| !v.is_empty() && v != "0")
}
