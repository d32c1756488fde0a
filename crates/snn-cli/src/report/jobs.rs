//! Finished jobs on disk, so that an interrupted reproduction continues and no job runs twice.
//!
//! A job is named by its description (any serialisable value: preset, seed, epochs, data label, ...), the profile
//! and the code version. Its result lies in `jobs/PROFILE/HASH.json` with the full description beside it, so that
//! the file explains itself and a colliding hash cannot pass for another job's result.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Profile;
use super::files::write_atomically;
use super::machine;

/// The store of one target and profile. Shared references suffice, also from several threads.
#[derive(Debug)]
pub(crate) struct Jobs {
    directory: PathBuf,
    profile: Profile,
    code_version: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    run: usize,
    reused: usize,
    seconds: f64,
    notes: Vec<String>,
}

/// What has happened in a store since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JobCounts {
    /// Jobs that were computed.
    pub run: usize,
    /// Jobs whose stored result was used.
    pub reused: usize,
    /// Seconds spent on all of them, those of earlier runs included.
    pub seconds: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    job: Value,
    profile: Profile,
    code_version: String,
    finished: String,
    seconds: f64,
    result: Value,
}

impl Jobs {
    /// Opens the store below `results` (such as `results/block-fig3`) for this program's version.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub(crate) fn open(results: &Path, profile: Profile) -> Result<Self> {
        Self::open_version(results, profile, machine::CODE_VERSION)
    }

    /// Opens the store for results of `code_version` only.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub(crate) fn open_version(results: &Path, profile: Profile, code_version: &str) -> Result<Self> {
        let directory = results.join("jobs").join(profile.name());
        fs::create_dir_all(&directory).with_context(|| format!("cannot make directory {}", directory.display()))?;
        Ok(Self { directory, profile, code_version: code_version.to_owned(), state: Mutex::default() })
    }

    /// Gives the stored result of the job that `description` names, or does the `work` and stores its result.
    ///
    /// A stored file that cannot be read is noted (see [`Jobs::notes`]) and the job runs again.
    /// Non-finite numbers do not survive JSON: let the work return `Option<f64>` where they can occur.
    ///
    /// # Errors
    ///
    /// Those of `work`, in which case nothing is stored; or if the result cannot be written.
    pub(crate) fn run<T>(&self, description: &impl Serialize, work: impl FnOnce() -> Result<T>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let job = serde_json::to_value(description).context("a job description cannot be written as JSON")?;
        let path = self.path(&job);
        match self.load(&path, &job) {
            Ok(Some((result, seconds))) => {
                self.update(|state| {
                    state.reused += 1;
                    state.seconds += seconds;
                });
                return Ok(result);
            }
            Ok(None) => {}
            Err(error) => {
                let note = format!("the stored result {} is damaged ({error:#}); its job ran again", path.display());
                self.update(|state| state.notes.push(note));
            }
        }
        let start = Instant::now();
        let result = work()?;
        let seconds = start.elapsed().as_secs_f64();
        let stored = Stored {
            job,
            profile: self.profile,
            code_version: self.code_version.clone(),
            finished: machine::utc_now(),
            seconds,
            result: serde_json::to_value(&result).context("a job result cannot be written as JSON")?,
        };
        let mut text = serde_json::to_vec_pretty(&stored).context("a job result cannot be written as JSON")?;
        text.push(b'\n');
        write_atomically(&path, &text)?;
        self.update(|state| {
            state.run += 1;
            state.seconds += seconds;
        });
        Ok(result)
    }

    /// Whether the job that `description` names has a stored file (which may still turn out damaged).
    pub(crate) fn is_done(&self, description: &impl Serialize) -> bool {
        serde_json::to_value(description).is_ok_and(|job| self.path(&job).is_file())
    }

    /// What a reader of the report should know: jobs that ran again, say.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.update(|state| state.notes.clone())
    }

    /// How many jobs ran, how many were reused, and the seconds they took in all.
    pub(crate) fn counts(&self) -> JobCounts {
        self.update(|state| JobCounts { run: state.run, reused: state.reused, seconds: state.seconds })
    }

    fn load<T: DeserializeOwned>(&self, path: &Path, job: &Value) -> Result<Option<(T, f64)>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stored: Stored = serde_json::from_slice(&text)?;
        // Compared as text: that is what survives a file, whatever the order of keys was in memory.
        let same = canonical(&stored.job) == canonical(job)
            && stored.profile == self.profile
            && stored.code_version == self.code_version;
        anyhow::ensure!(same, "it belongs to another job");
        Ok(Some((serde_json::from_value(stored.result)?, stored.seconds)))
    }

    fn path(&self, job: &Value) -> PathBuf {
        let key = format!("{}\n{}\n{}", self.profile, self.code_version, canonical(job));
        self.directory.join(format!("{:032x}.json", stable_hash(key.as_bytes())))
    }

    fn update<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        // Counters and notes stay usable even if a thread died while holding the lock.
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// JSON text with sorted keys and no spaces: equal values give equal text whatever built them.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let inner: Vec<String> =
                entries.into_iter().map(|(k, v)| format!("{}:{}", Value::String(k.clone()), canonical(v))).collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// FNV-1a in 128 bits: the same on every machine and in every release, unlike the standard library's hashes.
pub(crate) fn stable_hash(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::super::files::testing::Scratch;
    use super::*;
    use serde_json::json;

    fn only_file(scratch: &Scratch) -> PathBuf {
        fs::read_dir(scratch.path().join("jobs/smoke")).unwrap().next().unwrap().unwrap().path()
    }

    #[test]
    fn a_finished_job_never_runs_twice() {
        let scratch = Scratch::new("jobs-once");
        let job = json!({"preset": "shd", "seed": 3});
        let first = Jobs::open(scratch.path(), Profile::Smoke).unwrap();
        assert!(!first.is_done(&job));
        assert_eq!(first.run(&job, || Ok(vec![0.1, 2.0])).unwrap(), [0.1, 2.0]);
        let second = Jobs::open(scratch.path(), Profile::Smoke).unwrap();
        assert!(second.is_done(&job));
        let again: Vec<f64> = second.run(&job, || panic!("ran again")).unwrap();
        assert_eq!(again, [0.1, 2.0]);
        assert_eq!((second.counts().run, second.counts().reused), (0, 1));
        assert!(second.notes().is_empty());
    }

    #[test]
    fn profiles_versions_and_descriptions_are_kept_apart() {
        let scratch = Scratch::new("jobs-apart");
        let smoke = Jobs::open_version(scratch.path(), Profile::Smoke, "1").unwrap();
        let paper = Jobs::open_version(scratch.path(), Profile::Paper, "1").unwrap();
        let newer = Jobs::open_version(scratch.path(), Profile::Smoke, "2").unwrap();
        let mut value = 0;
        for jobs in [&smoke, &paper, &newer] {
            for seed in [1, 2] {
                value += 1;
                assert_eq!(jobs.run(&json!({"seed": seed}), || Ok(value)).unwrap(), value);
            }
        }
        assert_eq!(smoke.run(&json!({"seed": 1}), || Ok(0)).unwrap(), 1);
    }

    #[test]
    fn a_failed_job_leaves_nothing_behind() {
        let scratch = Scratch::new("jobs-fail");
        let jobs = Jobs::open(scratch.path(), Profile::Smoke).unwrap();
        assert!(jobs.run::<i32>(&1, || anyhow::bail!("no data")).is_err());
        assert_eq!(jobs.run(&1, || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn a_damaged_file_is_noted_and_its_job_runs_again() {
        let scratch = Scratch::new("jobs-damaged");
        let job = json!({"b": 1, "a": [1.5, null]});
        Jobs::open(scratch.path(), Profile::Smoke).unwrap().run(&job, || Ok(1)).unwrap();
        let path = only_file(&scratch);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [&text[..text.len() / 2], "", &text.replace("1.5", "2.5"), &text.replace("smoke", "paper")] {
            fs::write(&path, damaged).unwrap();
            let jobs = Jobs::open(scratch.path(), Profile::Smoke).unwrap();
            assert_eq!(jobs.run(&job, || Ok(2)).unwrap(), 2);
            assert_eq!(jobs.notes().len(), 1, "{damaged}");
            assert!(jobs.notes()[0].contains("ran again"));
            assert_eq!(jobs.run(&job, || Ok(3)).unwrap(), 2);
        }
    }

    #[test]
    fn the_hash_is_fnv_1a_and_ignores_key_order() {
        assert_eq!(stable_hash(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(stable_hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(canonical(&json!({"b": {"d": 1, "c": "x\"y"}, "a": [2]})), r#"{"a":[2],"b":{"c":"x\"y","d":1}}"#);
    }
}
