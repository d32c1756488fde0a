//! What the numbers of a report were made on: processor, memory, system, program.
//!
//! Read once from the system; a fact that cannot be found is an empty string or `None`, never an error.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The version stored with finished jobs. Raise the suffix whenever a change makes results differ.
pub(crate) const CODE_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+2");

/// Hardware and software of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Logical processors this process may use.
    pub cores: usize,
    /// Main memory in GiB.
    pub memory_gib: Option<f64>,
    /// Operating system and architecture.
    pub os: String,
    /// Accelerators used, as the caller names them.
    pub accelerators: Vec<String>,
    /// Compiler.
    pub rustc: String,
    /// Version of this program.
    pub program: String,
    /// Whether the program was built with optimisation; timings of others say nothing.
    pub optimised: bool,
}

impl Machine {
    /// Asks the system.
    pub(crate) fn detect() -> Self {
        Self {
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_gib(),
            os: format!("{} {}", os_name(), std::env::consts::ARCH),
            accelerators: Vec::new(),
            rustc: rustc_version(),
            program: format!("snn {}", env!("CARGO_PKG_VERSION")),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// One line for a table or a log.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![
            if self.cpu.is_empty() { "unknown processor".to_owned() } else { self.cpu.clone() },
            format!("{} logical core{}", self.cores, if self.cores == 1 { "" } else { "s" }),
        ];
        parts.extend(self.memory_gib.map(|gib| format!("{gib:.1} GiB")));
        parts.extend(self.accelerators.iter().cloned());
        parts.push(self.os.clone());
        parts.join(", ")
    }
}

fn cpu_model() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| field(&text, &["model name", "Model", "Hardware"], ':'))
        .or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_default()
}

fn memory_gib() -> Option<f64> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let from_proc = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| field(&text, &["MemTotal"], ':'))
        .and_then(|value| value.trim_end_matches("kB").trim().parse::<f64>().ok())
        .map(|kib| kib * 1024.0);
    let bytes = from_proc.or_else(|| output("sysctl", &["-n", "hw.memsize"])?.parse().ok())?;
    Some((bytes / GIB * 10.0).round() / 10.0)
}

fn os_name() -> String {
    fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| field(&text, &["PRETTY_NAME"], '='))
        .map(|name| name.trim_matches('"').to_owned())
        .or_else(|| output("sw_vers", &["-productVersion"]).map(|version| format!("macOS {version}")))
        .unwrap_or_else(|| std::env::consts::OS.to_owned())
}

/// The compiler that built this program where the build recorded it, else the one on the search path.
fn rustc_version() -> String {
    match option_env!("SNN_RUSTC_VERSION") {
        Some(version) => version.to_owned(),
        None => output("rustc", &["--version"]).map(|v| format!("{v} (on the search path)")).unwrap_or_default(),
    }
}

fn field(text: &str, names: &[&str], separator: char) -> Option<String> {
    names.iter().find_map(|name| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(separator)?;
            (key.trim() == *name && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The time now, as `2026-01-31T12:00:00Z`.
pub(crate) fn utc_now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Seconds since 1970 as a date (the civil calendar counted in eras of 400 years from 1 March 0000).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// A duration as a reader says it: `42 s`, `3 min 20 s`, `5 h 12 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn this_machine_has_a_core_and_a_system() {
        let machine = Machine::detect();
        assert!(machine.cores >= 1);
        assert!(machine.os.contains(std::env::consts::ARCH));
        assert!(machine.line().contains("logical core"));
    }

    #[test]
    fn fields_are_found_by_whole_name() {
        let text = "model\t: 1\nmodel name\t: EPYC: 7\n";
        assert_eq!(field(text, &["model name"], ':').as_deref(), Some("EPYC: 7"));
        assert_eq!(field(text, &["name"], ':'), None);
    }

    #[test]
    fn durations_are_said_in_two_units() {
        assert_eq!(duration(0.25), "0.2 s");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(18_720.0), "5 h 12 min");
        assert_eq!(duration(f64::NAN), "unknown");
    }
}
