//! Golden files: numbers of the original implementations, read as data.
//!
//! A folder holds files and an `index.json` that says everything a generic runner needs: for every file its kind,
//! its options, and for each array its role, axes and tolerance. A [`Case`] hands arrays out by name, keeps track of
//! which were read, and compares; an expected array that nobody read is a failure.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The index of one system's folder.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// The system's name.
    pub system: String,
    /// Its cases.
    pub cases: Vec<Entry>,
}

/// One file of the index.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// Path inside the folder.
    pub file: String,
    /// Which runner.
    pub kind: String,
    /// Every constant and name that is not an array.
    #[serde(default)]
    pub options: serde_json::Value,
    /// Data sets that must be at hand.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The `.npz` that holds the arrays, where `file` is of another format.
    #[serde(default)]
    pub expected_file: Option<String>,
    /// The arrays by name.
    #[serde(default)]
    pub arrays: BTreeMap<String, ArrayEntry>,
}

/// What the index says of one array.
#[derive(Debug, Clone, Deserialize)]
pub struct ArrayEntry {
    /// What it is for.
    pub role: Role,
    /// Axis letters, comma separated.
    #[serde(default)]
    pub axes: String,
    /// Allowed differences, if expected.
    #[serde(default)]
    pub tol: Option<Tolerances>,
    /// The array that says, by entries other than 0, which entries count.
    #[serde(default)]
    pub mask: Option<String>,
    /// How many entries may differ by more.
    #[serde(default)]
    pub mismatches: usize,
    /// The `.npy` file in the folder that is the array; without one it is in the case's own file.
    #[serde(default)]
    pub file: Option<String>,
}

/// What an array is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Fed in.
    Input,
    /// Fed in as a parameter.
    Parameter,
    /// Incoming gradient.
    Upstream,
    /// To be compared.
    Expected,
    /// Which entries of another array count.
    Mask,
    /// Not to be compared.
    Informational,
}

/// Allowed differences by the precision of the implementation.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Tolerances {
    /// For an `f32` implementation.
    pub f32: Tolerance,
    /// For an `f64` implementation.
    pub f64: Tolerance,
}

/// One allowed difference.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Tolerance {
    /// Relative to the largest absolute entry.
    Relative(f64),
    /// The text `exact`.
    Exact(ExactWord),
}

/// The word `exact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExactWord {
    /// Equal values.
    Exact,
}

/// A multi-dimensional array of a golden file, widened to `f64`.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Axes.
    pub shape: Vec<usize>,
    /// Entries, last axis contiguous.
    pub data: Vec<f64>,
}

impl Array {
    /// The array with its axes in another order: axis `k` of the result is axis `order[k]` of this one.
    ///
    /// # Panics
    ///
    /// If `order` is no permutation of the axes.
    #[must_use]
    pub fn permuted(&self, order: &[usize]) -> Self {
        assert_eq!(order.len(), self.shape.len(), "one entry per axis");
        let shape: Vec<usize> = order.iter().map(|&a| self.shape[a]).collect();
        let mut strides = vec![1; self.shape.len()];
        for a in (0..self.shape.len().saturating_sub(1)).rev() {
            strides[a] = strides[a + 1] * self.shape[a + 1];
        }
        let data = (0..self.data.len())
            .map(|flat| {
                let (mut rest, mut from) = (flat, 0);
                for (axis, &size) in shape.iter().enumerate().rev() {
                    from += rest % size * strides[order[axis]];
                    rest /= size;
                }
                self.data[from]
            })
            .collect();
        Self { shape, data }
    }
}

fn bad(place: impl ToString, reason: impl ToString) -> Error {
    Error::Golden { place: place.to_string(), reason: reason.to_string() }
}

/// Reads the index of a folder.
///
/// # Errors
///
/// [`Error::Golden`] if the file is missing or malformed.
pub fn read_index(folder: &Path) -> Result<Index> {
    let path = folder.join("index.json");
    let text = std::fs::read_to_string(&path).map_err(|e| bad(path.display(), e))?;
    serde_json::from_str(&text).map_err(|e| bad(path.display(), e))
}

/// Reads all arrays of an `.npz` file.
///
/// # Errors
///
/// [`Error::Golden`] if the file is missing, damaged, or holds anything but little-endian, C-order numbers.
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, Array>> {
    let file = File::open(path).map_err(|e| bad(path.display(), e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| bad(path.display(), e))?;
    let mut arrays = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| bad(path.display(), e))?;
        let name = entry.name().map_err(|e| bad(path.display(), e))?.trim_end_matches(".npy").to_owned();
        let place = format!("{}: {name}", path.display());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| bad(&place, e))?;
        arrays.insert(name, parse_npy(&bytes).map_err(|reason| bad(&place, reason))?);
    }
    Ok(arrays)
}

/// Parses one `.npy` file, versions 1 to 3.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn parse_npy(bytes: &[u8]) -> Result<Array, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("no npy signature")?;
    let (version, rest) = (*rest.first().ok_or("truncated header")?, rest.get(2..).ok_or("truncated header")?);
    let size_bytes = if version == 1 { 2 } else { 4 };
    let size = rest.get(..size_bytes).ok_or("truncated header")?;
    let size = size.iter().rev().fold(0_usize, |n, &b| n << 8 | usize::from(b));
    let header = rest.get(size_bytes..size_bytes + size).ok_or("truncated header")?;
    let header = std::str::from_utf8(header).map_err(|_| "header is not text")?;
    let body = &rest[size_bytes + size..];
    let field = |key: &str| {
        let from = header.find(&format!("'{key}':")).ok_or(format!("header lacks {key}"))? + key.len() + 3;
        Ok::<_, String>(header[from..].trim_start())
    };
    if field("fortran_order")?.starts_with("True") {
        return Err("Fortran order is not supported".into());
    }
    let descr = field("descr")?.trim_start_matches('\'').split('\'').next().unwrap_or_default();
    let shape_text = field("shape")?.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape: Vec<usize> = shape_text
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| t.parse().map_err(|_| format!("bad axis `{t}`")))
        .collect::<Result<_, String>>()?;
    let len = shape.iter().try_fold(1_usize, |n, &a| n.checked_mul(a)).ok_or("shape overflows")?;
    let width: usize = descr.get(2..).and_then(|t| t.parse().ok()).ok_or(format!("unknown type `{descr}`"))?;
    if len.checked_mul(width) != Some(body.len()) {
        return Err(format!("shape {shape:?} of {descr} needs {} bytes, found {}", len * width, body.len()));
    }
    macro_rules! parse {
        ($type:ty) => {
            body.chunks_exact(size_of::<$type>())
                .map(|c| <$type>::from_le_bytes(c.try_into().expect("chunks have the type's size")) as f64)
                .collect()
        };
    }
    let data = match descr {
        "<f4" => parse!(f32),
        "<f8" => parse!(f64),
        "|u1" | "|b1" => parse!(u8),
        "|i1" => parse!(i8),
        "<u2" => parse!(u16),
        "<i2" => parse!(i16),
        "<u4" => parse!(u32),
        "<i4" => parse!(i32),
        "<u8" => parse!(u64),
        "<i8" => parse!(i64),
        other => return Err(format!("unknown type `{other}`")),
    };
    Ok(Array { shape, data })
}

/// Which tolerance applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// An `f32` implementation.
    Single,
    /// An `f64` implementation.
    Double,
}

/// One case being run by one implementation.
#[derive(Debug)]
pub struct Case {
    /// The file, for messages.
    pub path: PathBuf,
    /// The index entry.
    pub entry: Entry,
    precision: Precision,
    arrays: BTreeMap<String, Array>,
    read: RefCell<BTreeSet<String>>,
    failures: RefCell<Vec<String>>,
    worst: RefCell<f64>,
}

impl Case {
    /// Opens a case of `folder` for an implementation of the given precision.
    ///
    /// # Errors
    ///
    /// [`Error::Golden`] if the file cannot be read or holds other arrays than the index says.
    pub fn open(folder: &Path, entry: &Entry, precision: Precision) -> Result<Self> {
        let path = folder.join(&entry.file);
        let own = entry.arrays.iter().filter(|(_, a)| a.file.is_none()).map(|(name, _)| name);
        let archive = entry.expected_file.as_ref().map_or(path.clone(), |file| folder.join(file));
        // A file of another format without arrays is for its runner alone to read.
        let is_npz = archive.extension().is_some_and(|e| e == "npz");
        let mut arrays = if is_npz || own.clone().next().is_some() { read_npz(&archive)? } else { BTreeMap::new() };
        let (in_file, in_index): (BTreeSet<_>, BTreeSet<_>) = (arrays.keys().collect(), own.collect());
        if let Some(name) = in_file.symmetric_difference(&in_index).next() {
            let reason = if in_file.contains(name) { "is not in the index" } else { "is not in the file" };
            return Err(bad(path.display(), format!("array `{name}` {reason}")));
        }
        for (name, file) in entry.arrays.iter().filter_map(|(name, a)| Some((name, a.file.as_ref()?))) {
            let path = folder.join(file);
            let bytes = std::fs::read(&path).map_err(|e| bad(path.display(), e))?;
            arrays.insert(name.clone(), parse_npy(&bytes).map_err(|reason| bad(path.display(), reason))?);
        }
        let entry = entry.clone();
        let (read, failures) = (RefCell::default(), RefCell::default());
        Ok(Self { path, entry, precision, arrays, read, failures, worst: RefCell::new(0.0) })
    }

    /// An array that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::Golden`] if it is not.
    pub fn array(&self, name: &str) -> Result<&Array> {
        self.find(name).ok_or_else(|| bad(self.path.display(), format!("no array `{name}`")))
    }

    /// An array, if the case has it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Array> {
        let array = self.arrays.get(name)?;
        self.read.borrow_mut().insert(name.to_owned());
        Some(array)
    }

    /// An option that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::Golden`] if it is missing or of another type.
    pub fn option<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.entry.options.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| bad(self.path.display(), format!("option `{name}`: {e}")))
    }

    /// Compares a result with the expected array of that name, if the case expects it; a result that the case does
    /// not mention is passed over.
    pub fn compare(&self, name: &str, got: &[f64]) {
        let Some(entry) = self.entry.arrays.get(name).filter(|a| a.role == Role::Expected) else { return };
        let Some(want) = self.find(name) else { return };
        let tolerance = entry.tol.map(|t| match self.precision {
            Precision::Single => t.f32,
            Precision::Double => t.f64,
        });
        let allowed = match tolerance {
            Some(Tolerance::Relative(x)) => x,
            Some(Tolerance::Exact(_)) => 0.0,
            None => return self.fail(format!("{name}: the index gives no tolerance")),
        };
        if got.len() != want.data.len() {
            return self.fail(format!("{name}: {} entries, expected {}", got.len(), want.data.len()));
        }
        let mask = entry.mask.as_ref().and_then(|mask| self.find(mask));
        let counts = |i: usize| mask.is_none_or(|m| m.data[i] != 0.0);
        // Infinity meets infinity; every other difference is relative to the largest number.
        let pairs = got.iter().zip(&want.data).enumerate().filter(|(i, _)| counts(*i)).map(|(_, (g, w))| (*g, *w));
        let scale = pairs.clone().map(|(_, w)| w.abs()).filter(|w| w.is_finite()).fold(0.0, f64::max);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let mut differences: Vec<f64> = pairs
            .map(|(g, w)| {
                let d = if g == w { 0.0 } else { (g - w).abs() / scale };
                // Comparisons with NaN are false, so it is caught here.
                if d.is_finite() { d } else { f64::INFINITY }
            })
            .collect();
        differences.sort_by(f64::total_cmp);
        let kept = differences.len() - entry.mismatches.min(differences.len());
        let difference = differences[..kept].last().copied().unwrap_or(0.0);
        if allowed > 0.0 {
            let mut worst = self.worst.borrow_mut();
            *worst = worst.max(difference / allowed);
        }
        if difference > allowed {
            self.fail(format!("{name}: difference {difference:.3e}, allowed {allowed:.1e}"));
        }
    }

    /// Compares with `name` and with `name_f64`, whichever of them the case has.
    pub fn compare_both(&self, name: &str, got: &[f64]) {
        self.compare(name, got);
        self.compare(&format!("{name}_f64"), got);
    }

    /// Compares with `name` or with `name_f64`, whichever the case has: the latter is the convention for results
    /// that exist in both precisions.
    pub fn compare_result(&self, name: &str, got: &[f64]) {
        if self.entry.arrays.contains_key(name) {
            self.compare(name, got);
        } else {
            self.compare(&format!("{name}_f64"), got);
        }
    }

    /// The precision of the implementation that is tested.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Records a failure.
    pub fn fail(&self, reason: String) {
        self.failures.borrow_mut().push(reason);
    }

    /// Ends the case: every array must have been read, compared, or be informational.
    ///
    /// # Errors
    ///
    /// The failures, if there are any.
    pub fn finish(self) -> Result<Outcome, Vec<String>> {
        let read = self.read.into_inner();
        let mut failures = self.failures.into_inner();
        for (name, entry) in &self.entry.arrays {
            if entry.role != Role::Informational && !read.contains(name) {
                failures.push(format!("{name}: nobody read this array"));
            }
        }
        if failures.is_empty() { Ok(Outcome { share_of_tolerance: self.worst.into_inner() }) } else { Err(failures) }
    }
}

/// How a passed case went.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The largest difference as a share of what was allowed.
    pub share_of_tolerance: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn npy_reads_shapes_and_types() {
        let body: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(parse_npy(&npy("<f4", "(2,)", &body)).unwrap(), Array { shape: vec![2], data: vec![1.5, -2.0] });
        assert_eq!(parse_npy(&npy("|u1", "()", &[7])).unwrap(), Array { shape: vec![], data: vec![7.0] });
    }

    #[test]
    fn npy_that_lies_is_refused() {
        for (bytes, reason) in [
            (npy("<f4", "(3,)", &[0; 8]), "needs 12 bytes, found 8"),
            (npy("<f4", "(18446744073709551615, 2)", &[]), "overflows"),
            (npy("|O", "(1,)", &[0]), "unknown type"),
            (b"not npy".to_vec(), "no npy signature"),
            (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "truncated header"),
        ] {
            assert!(parse_npy(&bytes).unwrap_err().contains(reason), "{reason}");
        }
    }

    #[test]
    fn permuted_transposes() {
        let a = Array { shape: vec![2, 3], data: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
        assert_eq!(a.permuted(&[1, 0]).data, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    proptest! {
        #[test]
        fn npy_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_npy(&bytes);
            let mut signed = b"\x93NUMPY".to_vec();
            signed.extend(bytes);
            let _ = parse_npy(&signed);
        }
    }
}
