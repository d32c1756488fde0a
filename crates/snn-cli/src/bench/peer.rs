//! The same layer in PyTorch: what a user would run today, timed in the same run on the same machine.
//!
//! The script `peers/torch_peers.py` is part of this program. It goes to the interpreter's standard input, so that
//! nothing has to be installed and no temporary file can be left behind or tampered with.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

const SCRIPT: &str = include_str!("../../peers/torch_peers.py");

/// A Python that can run peers.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    python: PathBuf,
    version: String,
}

/// What a peer is asked to time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerCell {
    /// What it runs on, as PyTorch names it.
    #[serde(default = "processor", skip_serializing_if = "is_processor")]
    pub(crate) device: String,
    /// The script's name of the peer.
    pub(crate) peer: String,
    /// Samples.
    pub(crate) batch: usize,
    /// Time steps.
    pub(crate) steps: usize,
    /// Inputs.
    pub(crate) n_in: usize,
    /// Neurons.
    pub(crate) n: usize,
    /// Share of active inputs; the published rates without one.
    pub(crate) density: Option<f64>,
    /// Timings; one more comes first and is dropped.
    pub(crate) repeats: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Whether time loops slice the current, as the originals do.
    pub(crate) sliced: bool,
    /// Time constants in steps, of peers that have them; their own without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tau: Option<f64>,
    /// Whether the backward pass, and everything kept for it, is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forward_only: bool,
    /// Refractory period in steps, of peers that have one; 40 without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refractory: Option<u32>,
    /// Equal layers, one on top of the other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) layers: usize,
    /// Whether adaptive neurons have no recurrent connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) feed_forward: bool,
}

fn processor() -> String {
    "cpu".into()
}

fn is_processor(device: &str) -> bool {
    device == "cpu"
}

fn one() -> usize {
    1
}

fn is_one(layers: &usize) -> bool {
    *layers == 1
}

/// What a peer took, as the script prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerTime {
    /// The peer, `+sliced` if its loops slice.
    pub(crate) peer: String,
    /// Median of the forward pass.
    pub(crate) forward_s: f64,
    /// Median of the backward pass.
    pub(crate) backward_s: f64,
    /// All forward timings.
    pub(crate) forward_all: Vec<f64>,
    /// All backward timings.
    pub(crate) backward_all: Vec<f64>,
    /// Version of torch.
    pub(crate) torch: String,
    /// Threads it used.
    pub(crate) threads: usize,
    /// The forward pass that is dropped, the first one.
    #[serde(default)]
    pub(crate) first_forward_s: Option<f64>,
}

/// What the script prints for a peer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Time(PeerTime),
    Missing { missing: String },
}

impl PeerTime {
    /// Forward and backward.
    pub(crate) fn total_s(&self) -> f64 {
        self.forward_s + self.backward_s
    }
}

impl Peers {
    /// Asks the interpreter for its torch.
    ///
    /// # Errors
    ///
    /// If the interpreter cannot be run or has no torch.
    pub(crate) fn find(python: &Path) -> Result<Self> {
        let shown = python.display();
        let output = Command::new(python)
            .args(["-c", "import torch; print(torch.__version__)"])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("--peer-python {shown}: cannot be run"))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            let last = error.lines().last().unwrap_or("no message").trim();
            bail!("--peer-python {shown}: cannot import torch ({last}); name a Python that has PyTorch 2");
        }
        Ok(Self { python: python.to_owned(), version: String::from_utf8_lossy(&output.stdout).trim().to_owned() })
    }

    /// Version of torch.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Times one peer.
    ///
    /// # Errors
    ///
    /// If the script fails or prints something else than timings, or a library is missing.
    pub(crate) fn time(&self, cell: &PeerCell) -> Result<PeerTime> {
        let time = self.time_if_installed(cell)?;
        time.map_err(|library| anyhow::anyhow!("the peer `{}` needs the Python package {library}", cell.peer))
    }

    /// Times one peer, or gives the name of the library that is not installed.
    ///
    /// # Errors
    ///
    /// If the script fails or prints something else than timings.
    pub(crate) fn time_if_installed(&self, cell: &PeerCell) -> Result<Result<PeerTime, String>> {
        let mut command = Command::new(&self.python);
        command.arg("-").args(["--peer", &cell.peer, "--device", &cell.device]);
        let numbers = [
            ("--batch", cell.batch),
            ("--steps", cell.steps),
            ("--n-in", cell.n_in),
            ("--n", cell.n),
            ("--repeats", cell.repeats),
            ("--threads", cell.threads),
        ];
        for (option, value) in numbers.into_iter().filter(|(option, value)| *option != "--threads" || *value > 0) {
            command.arg(option).arg(value.to_string());
        }
        if let Some(density) = cell.density {
            command.arg("--density").arg(density.to_string());
        }
        if let Some(tau) = cell.tau {
            command.arg("--tau").arg(tau.to_string());
        }
        if let Some(refractory) = cell.refractory {
            command.arg("--refractory").arg(refractory.to_string());
        }
        if cell.layers > 1 {
            command.arg("--layers").arg(cell.layers.to_string());
        }
        let flags =
            [("--sliced", cell.sliced), ("--forward-only", cell.forward_only), ("--feed-forward", cell.feed_forward)];
        command.args(flags.iter().filter(|flag| flag.1).map(|flag| flag.0));
        let context = || format!("the peer `{}` in {}", cell.peer, self.python.display());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(context)?;
        let mut input = child.stdin.take().context("the interpreter has no standard input")?;
        // An interpreter that stops early closes its input; its own message below says why.
        let _ = input.write_all(SCRIPT.as_bytes());
        drop(input);
        let output = child.wait_with_output().with_context(context)?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed: {}", context(), error.lines().last().unwrap_or("no message").trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("{} printed no timing", context()))?;
        let answer = serde_json::from_str(line);
        Ok(match answer.with_context(|| format!("{} printed an unknown form of timing", context()))? {
            Answer::Time(time) => Ok(time),
            Answer::Missing { missing } => Err(missing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_script_is_understood() {
        let line = r#"{"peer": "block", "device": "cpu", "batch": 4, "steps": 8, "n_in": 10, "n": 5, "refractory": 40,
            "forward_s": 0.5, "backward_s": 1.0, "forward_all": [0.5], "backward_all": [1.0], "peak_bytes": null,
            "torch": "2.0", "threads": 1, "output_mean": 0.1}"#;
        let time: PeerTime = serde_json::from_str(line).unwrap();
        assert_eq!(time.total_s(), 1.5);
        let missing = r#"{"peer": "norse", "missing": "h5py"}"#;
        assert!(matches!(serde_json::from_str(missing).unwrap(), Answer::Missing { missing } if missing == "h5py"));
    }

    #[cfg(unix)]
    #[test]
    fn an_interpreter_without_torch_gives_one_clear_message() {
        let error = Peers::find(Path::new("/nonexistent/python")).unwrap_err();
        assert_eq!(error.to_string(), "--peer-python /nonexistent/python: cannot be run");
        let error = Peers::find(Path::new("false")).unwrap_err().to_string();
        assert!(error.contains("cannot import torch"), "{error}");
    }
}
