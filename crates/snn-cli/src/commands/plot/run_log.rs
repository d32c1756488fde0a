//! What a run's log says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_json::Value;
use snn_train::monitor::{MonitorRecord, Phase};

use crate::report::Series;

/// The parts of a run's log that are drawn.
#[derive(Debug)]
pub(super) struct RunLog {
    /// The run's directory.
    pub(super) directory: PathBuf,
    /// The name of that directory.
    pub(super) name: String,
    /// The experiment's name; the directory's where the log does not say.
    pub(super) experiment: String,
    /// The whole experiment without its seed: what two runs of the same protocol have in common.
    pub(super) protocol: String,
    /// The seed, as the configuration has it.
    pub(super) seed: String,
    /// A record of each epoch.
    pub(super) epochs: Vec<Value>,
    /// Monitors, in the order in which they were recorded.
    pub(super) monitors: Vec<MonitorRecord>,
    /// What the run came to, if it has ended.
    pub(super) result: Option<Value>,
}

impl RunLog {
    /// A log without a line.
    pub(super) fn empty(directory: &Path) -> Self {
        let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        Self {
            directory: directory.to_owned(),
            experiment: name.clone(),
            name,
            protocol: String::new(),
            seed: String::new(),
            epochs: Vec::new(),
            monitors: Vec::new(),
            result: None,
        }
    }

    /// Reads `log.jsonl` in a run's directory; a last line that was cut off is left out.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("log.jsonl");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: is no run's log", path.display()))?;
        let mut log = Self::empty(directory);
        for (number, line) in text.lines().enumerate() {
            let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
            match value["event"].as_str() {
                Some("run") => log.header(&value),
                Some("epoch") => log.epochs.push(value),
                Some("monitor") => {
                    let record = MonitorRecord::deserialize(&value);
                    let place = || format!("{}: line {}: is no record of monitors", path.display(), number + 1);
                    log.monitors.push(record.with_context(place)?);
                }
                Some("result") => log.result = Some(value),
                _ => {}
            }
        }
        Ok(log)
    }

    fn header(&mut self, line: &Value) {
        if let Some(name) = line["info"]["name"].as_str() {
            name.clone_into(&mut self.experiment);
        }
        let text = line["experiment"].as_str().unwrap_or_default();
        let mut table: toml::Table = text.parse().unwrap_or_default();
        let seed = table.get_mut("train").and_then(|train| train.as_table_mut()?.remove("seed"));
        self.seed = seed.map(|seed| seed.to_string()).unwrap_or_default();
        self.protocol = table.to_string();
    }

    /// A number of every epoch's record.
    pub(super) fn series(&self, name: &str, field: &str, scale: f64) -> Series {
        Series::new(name, self.of_epochs(field, scale))
    }

    fn of_epochs(&self, field: &str, scale: f64) -> Vec<(f64, f64)> {
        let point = |e: &Value| Some((e["epoch"].as_f64()?, e[field].as_f64()? * scale));
        self.epochs.iter().filter_map(point).collect()
    }

    /// A monitor over epochs.
    pub(super) fn course(&self, split: Phase, name: &str) -> Vec<(f64, f64)> {
        let records = self.monitors.iter().filter(|record| record.split == split);
        records.filter_map(|record| Some((record.epoch, record.get(name)?))).collect()
    }

    /// Test accuracy in percent over epochs: the monitors', else that of the epochs' records, else the result's alone.
    pub(super) fn test_accuracy(&self) -> Vec<(f64, f64)> {
        let monitored = self.course(Phase::Test, "accuracy");
        if !monitored.is_empty() {
            return monitored;
        }
        let tested = self.of_epochs("test_accuracy", 100.0);
        let last = self.epochs.last().and_then(|epoch| epoch["epoch"].as_f64()).unwrap_or_default();
        let result = self.result.as_ref().and_then(|result| result["test_accuracy"].as_f64());
        if tested.is_empty() { result.map(|accuracy| (last, accuracy * 100.0)).into_iter().collect() } else { tested }
    }

    /// The last test's loss: the monitors', else the result's.
    pub(super) fn test_loss(&self) -> Option<f64> {
        let last_test = self.monitors.iter().rev().find(|record| record.split == Phase::Test);
        match last_test {
            Some(record) => record.get("loss"),
            None => self.result.as_ref()?["test_loss"].as_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RunLog> {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("seed1");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("log.jsonl"), text).unwrap();
        RunLog::read(&run)
    }

    const HEAD: &str =
        r#"{"event":"run","info":{"name":"digits"},"experiment":"name = \"digits\"\n[train]\nseed = 7\nepochs = 2\n"}"#;

    #[test]
    fn a_log_gives_protocol_seed_and_monitors() {
        let log = read(&format!(
            "{HEAD}\n{}\n{}\n{}",
            r#"{"event":"monitor","split":"test","epoch":1.0,"values":{"accuracy":97.5}}"#,
            r#"{"event":"monitor","split":"test","epoch":2.0,"values":{"accuracy":98.5,"loss":5.0}}"#,
            r#"{"event":"monitor","split":"te"#
        ));
        let log = log.unwrap();
        assert_eq!((&*log.name, &*log.experiment, &*log.seed), ("seed1", "digits", "7"));
        assert!(log.protocol.contains("epochs = 2") && !log.protocol.contains("seed"), "{}", log.protocol);
        assert_eq!(log.test_accuracy(), [(1.0, 97.5), (2.0, 98.5)]);
        assert_eq!(log.test_loss(), Some(5.0));
    }

    #[test]
    fn without_monitors_epochs_and_the_result_speak() {
        let epoch = r#"{"event":"epoch","epoch":4,"accuracy":0.5,"test_accuracy":null}"#;
        let result = r#"{"event":"result","test_accuracy":0.75,"test_loss":0.25}"#;
        let log = read(&format!("{HEAD}\n{epoch}\n{result}\n")).unwrap();
        assert_eq!((log.test_accuracy(), log.test_loss()), (vec![(4.0, 75.0)], Some(0.25)));
        let log = read(&format!("{HEAD}\n{}\n{result}\n", epoch.replace("null", "0.625"))).unwrap();
        assert_eq!(log.test_accuracy(), [(4.0, 62.5)]);
    }

    #[test]
    fn a_false_record_is_named_by_its_line() {
        let message = format!("{:#}", read(&format!("{HEAD}\n{{\"event\":\"monitor\",\"split\":3}}")).unwrap_err());
        assert!(message.contains("log.jsonl: line 2: is no record of monitors"), "{message}");
    }
}
