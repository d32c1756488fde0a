//! What a person sees while work goes on: messages on standard error, results on standard output.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use snn_train::health::LayerHealth;
use snn_train::monitor::MonitorRecord;
use snn_train::trainer::{BatchProgress, EpochRecord, RunInfo};

/// Prints an error with its causes; colour only on a terminal.
pub(crate) fn error(error: &anyhow::Error) {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if coloured { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent errors repeat their cause word for word.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Nothing is left to be done if even this cannot be written.
    let _ = writeln!(std::io::stderr(), "{on}error{off}: {text}");
}

/// Writes one line to standard output.
///
/// # Errors
///
/// If standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Writes one JSON object as a line of standard output.
///
/// # Errors
///
/// If standard output is closed.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// A progress bar on a terminal, nothing elsewhere.
pub(crate) fn bar(quiet: bool, length: u64, template: &str) -> ProgressBar {
    let hidden = quiet || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style.progress_chars("=> "))
}

/// Draws downloads and conversions.
#[derive(Debug)]
pub(crate) struct Transfers {
    quiet: bool,
    bar: ProgressBar,
}

impl Transfers {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, bar: ProgressBar::hidden() }
    }
}

impl snn_data::Progress for Transfers {
    fn start(&mut self, what: &str, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg:40!} [{bar:30}] {percent:>3} % {eta:>4}",
            None => "{msg:40!} {spinner} {pos}",
        };
        self.bar = bar(self.quiet, total.unwrap_or(0), template);
        self.bar.enable_steady_tick(Duration::from_millis(200));
        self.bar.set_message(what.to_owned());
        if !self.quiet && !std::io::stderr().is_terminal() {
            message(what);
        }
    }
    fn advance(&mut self, amount: u64) {
        self.bar.inc(amount);
    }
    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| message(text));
        }
    }
}

/// Writes a line to standard error.
pub(crate) fn message(text: impl std::fmt::Display) {
    // Messages are for people; a closed standard error must not stop the work.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Draws a training run.
#[derive(Debug)]
pub(crate) struct Watch {
    quiet: bool,
    json: bool,
    bar: ProgressBar,
    hinted: Vec<String>,
    broken: Option<anyhow::Error>,
}

impl Watch {
    pub(crate) fn new(quiet: bool, json: bool) -> Self {
        Self { quiet, json, bar: ProgressBar::hidden(), hinted: Vec::new(), broken: None }
    }

    /// The error that writing to standard output met, if it did.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.broken.map_or(Ok(()), Err)
    }

    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.bar.suspend(|| message(text));
        }
    }

    fn emit(&mut self, value: &impl Serialize) {
        if self.json && self.broken.is_none() {
            self.broken = json(value).err();
        }
    }
}

impl snn_train::Observer for Watch {
    fn started(&mut self, info: &RunInfo) {
        let label = info.data_label.as_ref().map_or(String::new(), |l| format!(" [{l}: not the published data set]"));
        let (train, test) = (info.train_samples, info.test_samples);
        self.say(format_args!("{}{label}: {train} training and {test} test samples", info.data));
        self.say(format_args!("{}: {} parameters on {}", info.layers.join(", "), info.parameters, info.device));
        self.emit(&serde_json::json!({ "event": "run", "info": info }));
    }

    fn batch(&mut self, p: &BatchProgress) {
        if p.batch == 1 || self.bar.is_hidden() && self.bar.length().is_none() {
            let template = "epoch {prefix:>3} [{bar:30}] {pos}/{len} {msg} {eta:>4}";
            self.bar = bar(self.quiet, p.batches as u64, template);
            self.bar.set_prefix(p.epoch.to_string());
        }
        self.bar.set_position(p.batch as u64);
        self.bar.set_message(format!("loss {:.4} accuracy {:.2} %", p.loss, 100.0 * p.accuracy));
    }

    fn epoch(&mut self, r: &EpochRecord) {
        self.bar.finish_and_clear();
        let test = r.test_accuracy.map_or(String::new(), |a| format!(", test accuracy {:.2} %", 100.0 * a));
        let mut odd = String::new();
        if r.infinite_share > 0.0 {
            odd.push_str(&format!(", {:.2} % of infinite loss", 100.0 * r.infinite_share));
        }
        if r.skipped_updates > 0 {
            odd.push_str(&format!(", {} updates left out", r.skipped_updates));
        }
        if r.early_per_sample > 0.0 {
            odd.push_str(&format!(", {:.2} spikes per sample before their window", r.early_per_sample));
        }
        self.say(format_args!(
            "epoch {:>3}: loss {:.4}, accuracy {:.2} %, {:.1} spikes per sample, rate {:.1e}, {:.1} s{test}{odd}",
            r.epoch,
            r.loss,
            100.0 * r.accuracy,
            r.spikes_per_sample,
            r.learning_rate,
            r.seconds
        ));
        self.emit(&serde_json::json!({ "event": "epoch", "record": r }));
    }

    fn monitor(&mut self, record: &MonitorRecord) {
        self.emit(&serde_json::json!({ "event": "monitor", "record": record }));
    }

    fn health(&mut self, epoch: u32, report: &[LayerHealth]) {
        for hint in report.iter().filter_map(LayerHealth::hint) {
            // Each hint once: the numbers in it change, its first words do not.
            let kind = hint.split('(').next().unwrap_or_default().to_owned();
            if !self.hinted.contains(&kind) {
                self.say(format_args!("hint, epoch {epoch}: {hint}"));
                self.hinted.push(kind);
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}
