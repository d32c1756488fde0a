//! Command lines: built, printed, run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All went well.
    Fine,
    /// The work failed.
    Failed,
    /// The program refused its arguments.
    Usage,
}

impl Outcome {
    /// The process exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Usage => 2,
        }
    }

    /// Whether to go on.
    pub(crate) fn is_fine(self) -> bool {
        self == Self::Fine
    }

    fn of(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Fine,
            Some(2) => Self::Usage,
            // Any other code, and death by a signal.
            _ => Self::Failed,
        }
    }
}

/// A command line that prints itself before it runs.
#[derive(Debug)]
pub(crate) struct Line {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    folder: PathBuf,
}

impl Line {
    /// `program` run in `folder`.
    pub(crate) fn new(program: impl Into<OsString>, folder: &Path) -> Self {
        Self { program: program.into(), arguments: Vec::new(), variables: Vec::new(), folder: folder.to_owned() }
    }

    /// The cargo that runs us, in the workspace.
    pub(crate) fn cargo(root: &Path) -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), root)
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds `name value` where there is a value.
    pub(crate) fn option(self, name: &str, value: Option<impl AsRef<OsStr>>) -> Self {
        match value {
            Some(value) => self.args([OsStr::new(name), value.as_ref()]),
            None => self,
        }
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The line as one would type it.
    pub(crate) fn shown(&self) -> String {
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        // Cargo gives its own full path; people type its name.
        let program = match Path::new(&self.program).file_stem() {
            Some(stem) if stem == "cargo" => "cargo".to_owned(),
            _ => quoted(&self.program),
        };
        let words = std::iter::once(program).chain(self.arguments.iter().map(|a| quoted(a)));
        variables.chain(words).collect::<Vec<_>>().join(" ")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Prints the line and runs it to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn run(&self) -> Result<Outcome> {
        eprintln!("$ {}", self.shown());
        let status = self.command().status().with_context(|| format!("cannot run {}", quoted(&self.program)))?;
        Ok(Outcome::of(status.code()))
    }

    /// Runs the line unseen and gives its standard output, if it ended well.
    pub(crate) fn output(&self) -> Option<String> {
        let output = self.command().output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The workspace, as cargo says at run time; else where this program was built.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or(own.clone(), Path::to_owned)
}

/// A word as a shell would need it.
fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_as_one_would_type_them() {
        let line = Line::new("/opt/bin/cargo", Path::new("/"))
            .args(["test", "it's here"])
            .option("--dir", Some("a b"))
            .option("--not", None::<&str>)
            .env("SNN_SLOW_TESTS", "1");
        assert_eq!(line.shown(), r"SNN_SLOW_TESTS=1 cargo test 'it'\''s here' --dir 'a b'");
    }

    #[test]
    fn exit_codes_are_passed_on() {
        let exit = |code: &str| Line::new("sh", Path::new("/")).args(["-c", &format!("exit {code}")]).run().unwrap();
        assert_eq!([exit("0"), exit("1"), exit("2"), exit("101")].map(Outcome::code), [0, 1, 2, 1]);
        assert!(Line::new("no-such-program-anywhere", Path::new("/")).run().is_err());
    }

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.toml").is_file() && root().join("xtask").is_dir());
    }
}
