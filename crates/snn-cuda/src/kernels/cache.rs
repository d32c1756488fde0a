//! Compiled kernels on disk.
//!
//! An entry is named by a hash of everything that it was made from, and begins with a hash of itself: one that was
//! damaged or half-written counts as absent and is made anew.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A directory of compiled kernels; without one, everything is compiled in every process.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: Option<PathBuf>,
}

/// Bytes of a hash.
const HASH: usize = 32;

impl Cache {
    /// In a directory, or else in `$SNN_CACHE_DIR`, or in `snn` in the user's directory of caches.
    pub(crate) fn new(chosen: Option<&Path>) -> Self {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = chosen
            .map(Path::to_owned)
            .or_else(|| named("SNN_CACHE_DIR"))
            .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("snn")))
            .or_else(|| named("HOME").map(|dir| dir.join(".cache").join("snn")));
        Self { directory: directory.map(|dir| dir.join("kernels")) }
    }

    /// The name of what is made of these parts.
    pub(crate) fn key(parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// An entry, if it is there and whole.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let entry = std::fs::read(self.directory.as_ref()?.join(key)).ok()?;
        let (hash, image) = entry.split_at_checked(HASH)?;
        (Sha256::digest(image).as_slice() == hash).then(|| image.to_vec())
    }

    /// Keeps an entry. Where that fails, as in a directory that cannot be written, it is compiled again next time.
    pub(crate) fn put(&self, key: &str, image: &[u8]) {
        let Some(directory) = &self.directory else { return };
        let write = || {
            std::fs::create_dir_all(directory)?;
            // Under a name of this process alone until it is whole.
            let partial = directory.join(format!("{key}.{}", std::process::id()));
            std::fs::write(&partial, [Sha256::digest(image).as_slice(), image].concat())?;
            std::fs::rename(&partial, directory.join(key))
        };
        let _: std::io::Result<()> = write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_entries_count_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { directory: Some(directory.path().join("new")) };
        let key = Cache::key(&["source", "options"]);
        assert_ne!(key, Cache::key(&["sourceo", "ptions"]));
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"code");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"code"[..]));
        let path = directory.path().join("new").join(&key);
        for damaged in [&b""[..], b"short", &[0; 40]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get(&key), None);
            cache.put(&key, b"again");
            assert_eq!(cache.get(&key).as_deref(), Some(&b"again"[..]));
        }
        // Nothing half-written is left.
        assert_eq!(std::fs::read_dir(directory.path().join("new")).unwrap().count(), 1);
    }
}
