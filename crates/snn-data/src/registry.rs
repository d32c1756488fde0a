//! The public data sets, as data: `registry.toml` says what they are, where they lie and how to recognise them.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::{Error, Result};

/// A public data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// The canonical name, for example `emnist-balanced`.
    pub name: String,
    /// What it is and who published it.
    pub title: String,
    /// The folder below `downloads/`; the splits of EMNIST share one.
    pub folder: String,
    /// How its files are read.
    pub format: Format,
    /// The licence as publicly stated.
    pub licence: String,
    /// Where to read more.
    pub homepage: String,
    /// Class names in the order of the labels; empty where the files themselves hold them.
    #[serde(default)]
    pub classes: Vec<String>,
    /// How many classes there are, where [`DataSet::classes`] is empty.
    #[serde(default)]
    pub class_count: usize,
    /// The label of the first class in the files; ours begin at 0.
    #[serde(default)]
    pub first_label: u32,
    /// The splits.
    pub splits: Vec<Split>,
    /// Alternative sets of files, each of which holds the whole data set.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

/// A split of a public data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// `train`, `test`, `valid`.
    pub name: String,
    /// Samples in the published set.
    pub samples: usize,
    /// The files it is made of, without packing.
    pub parts: Vec<String>,
}

/// How the files of a data set are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// IDX images and labels.
    Idx,
    /// IDX with transposed images, inside a zip file.
    Emnist,
    /// CIFAR-10 binary.
    Cifar10,
    /// CIFAR-100 binary.
    Cifar100,
    /// Zip files of 40-bit events.
    Nmnist,
    /// HDF5 with variable-length rows.
    Shd,
    /// HDF5 with two datasets per sample.
    Ntidigits,
    /// Tar files of event tables, or of AEDAT recordings.
    Dvs,
}

impl Format {
    /// Whether the reader was written from public descriptions and never met a published file.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Ntidigits | Self::Dvs)
    }
}

/// Files that together hold a data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Folders that hold the files under their names, best first.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The files.
    pub files: Vec<RemoteFile>,
}

/// A published file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// The name it is stored under.
    pub name: String,
    /// Its address, where that does not end in the name.
    pub url: Option<String>,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// Digests as published, `md5:..` or `sha256:..`; any one of them will do.
    #[serde(default)]
    pub digests: Vec<String>,
    /// Digests of the unpacked content.
    #[serde(default)]
    pub content: Vec<String>,
}

impl DataSet {
    /// The split of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSplit`] if there is none.
    pub fn split(&self, name: &str) -> Result<&Split> {
        self.splits.iter().find(|s| s.name == name).ok_or_else(|| Error::UnknownSplit {
            set: self.name.clone(),
            split: name.to_owned(),
            want: list(self.splits.iter().map(|s| s.name.as_str())),
        })
    }

    /// How many classes there are.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.classes.len().max(self.class_count)
    }

    /// The registry's file that `stored` is a copy of: it has the same name up to packing.
    #[must_use]
    pub fn file(&self, stored: &str) -> Option<&RemoteFile> {
        let files = || self.groups.iter().flat_map(|g| &g.files);
        files().find(|f| f.name == stored).or_else(|| files().find(|f| f.stored_names().iter().any(|n| n == stored)))
    }
}

impl RemoteFile {
    /// The names a copy may have: as published, without `.gz`, with `.gz`.
    #[must_use]
    pub fn stored_names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        match self.name.strip_suffix(".gz") {
            Some(plain) if !plain.ends_with(".tar") => names.push(plain.to_owned()),
            None if !self.name.ends_with(".zip") => names.push(format!("{}.gz", self.name)),
            _ => {}
        }
        names
    }
}

/// Weights of a published model. No digest of such a file is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// The canonical name, also that of the folder below `downloads/`.
    pub name: String,
    /// What it is and who published it.
    pub title: String,
    /// The name of the file.
    pub file: String,
    /// The licence as publicly stated.
    pub licence: String,
    /// Where the file is described, and taken from by hand.
    pub homepage: String,
}

/// Recordings of neurons that a service answers for. No digests of its files are published.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recordings {
    /// The canonical name, also that of the folder below `downloads/`.
    pub name: String,
    /// What it is and who published it.
    pub title: String,
    /// The licence as publicly stated.
    pub licence: String,
    /// Where to read more.
    pub homepage: String,
    /// The address of the service.
    pub base: String,
    /// The specimens that are fetched unless others are named.
    pub cells: Vec<u64>,
}

#[derive(Deserialize)]
struct Registry {
    set: Vec<DataSet>,
    weights: Vec<Weights>,
    recordings: Vec<Recordings>,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let parse = || toml::from_str(include_str!("../registry.toml")).expect("the embedded registry is tested");
    REGISTRY.get_or_init(parse)
}

/// Every public data set.
#[must_use]
pub fn all() -> &'static [DataSet] {
    &registry().set
}

/// Every published model whose weights can be imported.
#[must_use]
pub fn weights() -> &'static [Weights] {
    &registry().weights
}

/// Every collection of recorded neurons.
#[must_use]
pub fn recordings() -> &'static [Recordings] {
    &registry().recordings
}

/// The public data set of this name.
///
/// # Errors
///
/// [`Error::UnknownSet`] with the nearest names if there is none, [`Error::Generated`] if the set is a generated one, and
/// [`Error::Config`] if the name is that of weights or of recordings.
pub fn find(name: &str) -> Result<&'static DataSet> {
    if let Some(set) = all().iter().find(|s| s.name == name) {
        return Ok(set);
    }
    if crate::synth::find(name).is_some() {
        return Err(Error::Generated { set: name.to_owned(), verb: "download or convert" });
    }
    if let Some(weights) = weights().iter().find(|w| w.name == name) {
        let want = format!("a data set; import them with `snn import {} --as PRESET --out DIR`", weights.file);
        return Err(Error::config(name, "weights of a model, without samples", want));
    }
    if name == crate::ephys::session::NAME || recordings().iter().any(|r| r.name == name) {
        let want = "a data set; a neuron is fitted to them with `snn fit-neuron`";
        return Err(Error::config(name, "recordings of neurons, without classes", want));
    }
    Err(unknown(name))
}

/// Names of all data sets, public and generated.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().iter().map(|s| s.name.as_str()).chain(crate::synth::all().iter().map(|s| s.name))
}

/// The error for a name that nothing has.
pub(crate) fn unknown(name: &str) -> Error {
    let recorded = || recordings().iter().map(|r| r.name.as_str()).chain([crate::ephys::session::NAME]);
    let known = || names().chain(weights().iter().map(|w| w.name.as_str())).chain(recorded());
    let mut near: Vec<_> = known().map(|n| (strsim::damerau_levenshtein(n, &name.to_lowercase()), n)).collect();
    near.sort();
    let best: Vec<_> = near.iter().filter(|(d, n)| *d <= 1 + n.len() / 3).take(3).map(|(_, n)| *n).collect();
    let hint = if best.is_empty() {
        format!("; there are {}", list(names()))
    } else {
        format!("; did you mean {}?", list(best))
    };
    Error::UnknownSet { name: name.to_owned(), hint }
}

/// `a`, `b`, `c`.
pub(crate) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    items.into_iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_registry_is_sound() {
        let mut seen = std::collections::HashSet::new();
        for set in all() {
            assert!(seen.insert(&set.name), "{} twice", set.name);
            assert!(set.class_count() > 1 && !set.splits.is_empty(), "{}", set.name);
            for file in set.groups.iter().flat_map(|g| &g.files) {
                for digest in file.digests.iter().chain(&file.content) {
                    let (kind, hex) = digest.split_once(':').unwrap();
                    let want = match kind {
                        "md5" => 32,
                        "sha256" => 64,
                        other => panic!("{}: digest {other}", set.name),
                    };
                    assert!(hex.len() == want && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{digest}");
                }
            }
            let first = &set.groups[0];
            assert!(first.files.iter().all(|f| f.url.is_some() || !first.urls.is_empty()), "{}: no address", set.name);
            assert!(first.urls.iter().all(|u| u.ends_with('/')), "{}: folders end in a slash", set.name);
        }
        for weights in weights() {
            assert!(seen.insert(&weights.name), "{} twice", weights.name);
            assert!(weights.homepage.starts_with("https://") && !weights.file.contains('/'), "{}", weights.name);
            let e = find(&weights.name).unwrap_err().to_string();
            assert!(e.contains("weights of a model") && e.contains("snn import"), "{e}");
        }
        for recordings in recordings() {
            assert!(seen.insert(&recordings.name), "{} twice", recordings.name);
            assert!(recordings.homepage.starts_with("https://") && recordings.base.starts_with("http"));
            assert!(!recordings.cells.is_empty() && !recordings.licence.is_empty());
            let e = find(&recordings.name).unwrap_err().to_string();
            assert!(e.contains("recordings of neurons"), "{e}");
        }
        assert_eq!(find("emnist-byclass").unwrap().class_count(), 62);
        assert_eq!(find("emnist-balanced").unwrap().class_count(), 47);
        assert_eq!(find("emnist-letters").unwrap().first_label, 1);
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let e = find("mnits").unwrap_err().to_string();
        assert!(e.starts_with("there is no data set `mnits`; did you mean `mnist`"), "{e}");
        let e = find("imagenet-22k-of-everything").unwrap_err().to_string();
        assert!(e.contains("there are `mnist`"), "{e}");
        let e = find("cifar10-vgg").unwrap_err().to_string();
        assert!(e.contains("`cifar10vgg`"), "{e}");
        assert!(matches!(find("yinyang"), Err(Error::Generated { .. })));
    }

    #[test]
    fn unknown_split_lists_the_splits() {
        let e = find("ssc").unwrap().split("dev").unwrap_err();
        assert_eq!(e.to_string(), "data set `ssc` has no split `dev`, it has `train`, `valid`, `test`");
    }

    #[test]
    fn copies_are_known_by_name_up_to_packing() {
        let set = find("cifar10").unwrap();
        assert_eq!(set.file("test_batch.bin.gz").unwrap().name, "test_batch.bin");
        assert_eq!(find("mnist").unwrap().file("t10k-labels-idx1-ubyte").unwrap().name, "t10k-labels-idx1-ubyte.gz");
        assert!(set.file("readme.html").is_none());
    }
}
