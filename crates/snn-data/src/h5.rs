//! All access to HDF5, behind few operations: open, look, read ranges, read rows, read strings, append;
//! arrays, attributes, links.
//!
//! Another implementation of the format could take this module's place. The C library has one global lock, so
//! there is nothing to gain from reading on several threads.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use hdf5::dataset::Layout;
use hdf5::types::{
    FixedAscii, FixedUnicode, FloatSize, IntSize, TypeDescriptor, VarLenArray, VarLenAscii, VarLenUnicode,
};
use hdf5::{Container, Dataset, H5Type, Location};

use crate::error::{Error, Result};

/// Entries that a byte of a file can stand for at most: deflate packs a thousand to one.
const BEST_PACKING: u64 = 1100;

/// The longest string of an attribute, bytes.
pub(crate) const LONGEST: usize = 1024;
const SHORT_ASCII: &str = "ASCII without NUL of at most 1024 bytes";
/// The largest chunk that the library may be made to hold, bytes.
const MOST_CHUNK: usize = 1 << 28;

/// A file that is being read or written.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    file: hdf5::File,
    bytes: u64,
    // More entries than any dataset of the file can hold; see `vector`.
    most: u64,
}

/// Rows of variable length, in one of the four types that they are read as.
pub(crate) enum Rows {
    U16(Vec<VarLenArray<u16>>),
    I64(Vec<VarLenArray<i64>>),
    F16(Vec<VarLenArray<f16>>),
    F64(Vec<VarLenArray<f64>>),
}

impl Rows {
    pub(crate) fn row_len(&self, row: usize) -> usize {
        match self {
            Self::U16(r) => r[row].len(),
            Self::I64(r) => r[row].len(),
            Self::F16(r) => r[row].len(),
            Self::F64(r) => r[row].len(),
        }
    }

    /// Appends a row of whole numbers.
    pub(crate) fn extend_i64(&self, row: usize, out: &mut Vec<i64>) {
        match self {
            Self::U16(r) => out.extend(r[row].iter().map(|&x| i64::from(x))),
            Self::I64(r) => out.extend_from_slice(&r[row]),
            Self::F16(_) | Self::F64(_) => unreachable!("whole numbers were asked for"),
        }
    }

    /// Appends a row of real numbers. Halves are widened before anything is done with them.
    pub(crate) fn extend_f32(&self, row: usize, out: &mut Vec<f32>) {
        match self {
            Self::F16(r) => out.extend(r[row].iter().map(|x| x.to_f32())),
            Self::F64(r) => out.extend(r[row].iter().map(|&x| x as f32)),
            Self::U16(_) | Self::I64(_) => unreachable!("real numbers were asked for"),
        }
    }
}

/// Where the HDF5 signature is, of the places that the format allows: 0, 512, 1024, 2048 ...
pub(crate) fn superblock(path: &Path) -> Result<Option<u64>> {
    const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
    let len = file.metadata().map_err(Error::io(path, "read"))?.len();
    let mut at = 0_u64;
    while at + 8 <= len {
        let mut bytes = [0; 8];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)).map_err(Error::io(path, "read"))?;
        if bytes == SIGNATURE {
            return Ok(Some(at));
        }
        at = if at == 0 { 512 } else { at * 2 };
    }
    Ok(None)
}

/// Byte strings of one length, if all of them are short ASCII.
fn fixed(values: &[String]) -> Option<Vec<FixedAscii<LONGEST>>> {
    values.iter().map(|s| FixedAscii::from_ascii(s.as_bytes()).ok()).collect()
}

/// Checks the signature; gives its place.
fn signature(path: &Path) -> Result<u64> {
    superblock(path)?.ok_or_else(|| Error::malformed(path, "signature", "no HDF5 signature", "an HDF5 file"))
}

impl File {
    /// Opens a file of any origin for reading: parts that the library could not leave again are looked at first, for
    /// which the file is read from end to end.
    pub(crate) fn open_foreign(path: &Path) -> Result<Self> {
        crate::heap::check(path, signature(path)?)?;
        Self::open(path)
    }

    /// Opens a file of our own for reading.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        signature(path)?;
        let file = hdf5::File::open(path)
            .map_err(|e| Error::malformed(path, "superblock", e.to_string(), "a complete HDF5 file"))?;
        let bytes = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
        Ok(Self { path: path.to_owned(), file, bytes, most: bytes.saturating_mul(BEST_PACKING) })
    }

    /// Creates, replacing what is there.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = hdf5::File::create(path).map_err(|e| Error::Io {
            path: path.to_owned(),
            action: "create",
            source: e.into(),
        })?;
        Ok(Self { path: path.to_owned(), file, bytes: u64::MAX, most: u64::MAX })
    }

    /// Writes everything out and closes.
    pub(crate) fn close(self) -> Result<()> {
        let written = self.file.flush().and_then(|()| self.file.close());
        written.map_err(|e| Error::Io { path: self.path, action: "write", source: e.into() })
    }

    pub(crate) fn has(&self, place: &str) -> bool {
        // `link_exists` looks at one level only and fails where a group on the way is missing.
        let mut at = String::new();
        place.split('/').filter(|p| !p.is_empty()).all(|part| {
            at.push('/');
            at.push_str(part);
            self.file.link_exists(&at)
        })
    }

    /// An error at `place`.
    pub(crate) fn wrong(&self, place: &str, got: impl Into<String>, want: impl Into<String>) -> Error {
        Error::malformed(&self.path, place, got, want)
    }

    fn failed<'a>(&'a self, place: &'a str, want: &'a str) -> impl FnOnce(hdf5::Error) -> Error + 'a {
        move |e| self.wrong(place, e.to_string(), want)
    }

    fn writing<'a>(&'a self, place: &'a str) -> impl Fn(hdf5::Error) -> Error + 'a {
        move |e| Error::Io {
            path: self.path.clone(),
            action: "write",
            source: std::io::Error::other(format!("{place}: {e}")),
        }
    }

    /// A dataset that must be there.
    pub(crate) fn dataset(&self, place: &str) -> Result<Dataset> {
        if !self.has(place) {
            return Err(self.wrong(place, "missing", "a dataset"));
        }
        self.file.dataset(place).map_err(self.failed(place, "a dataset"))
    }

    /// A dataset with one axis, and its length.
    pub(crate) fn vector(&self, place: &str) -> Result<(Dataset, usize)> {
        let dataset = self.dataset(place)?;
        match dataset.shape()[..] {
            // A shape costs nothing to write down: it is believed only as far as the file's bytes could fill it.
            [n] if n as u64 <= self.most => Ok((dataset, n)),
            ref shape => {
                let want = format!("one axis, and no more than the {} entries such a file can hold", self.most);
                Err(self.wrong(place, format!("shape {shape:?}"), want))
            }
        }
    }

    fn descriptor(&self, place: &str, dataset: &Dataset) -> Result<TypeDescriptor> {
        dataset.dtype().and_then(|t| t.to_descriptor()).map_err(self.failed(place, "a known type"))
    }

    /// Reads entries `range` of the first axis, all of the others; whole numbers and reals are converted.
    pub(crate) fn read<T: H5Type>(&self, place: &str, dataset: &Dataset, range: Range<usize>) -> Result<Vec<T>> {
        let want = "numbers that can be read";
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if dataset.ndim() == 1 {
            let values = dataset.read_slice_1d::<T, _>(range).map_err(self.failed(place, want))?;
            return Ok(values.into_raw_vec_and_offset().0);
        }
        let mut slices = vec![hdf5::SliceOrIndex::from(range)];
        slices.resize(dataset.ndim(), hdf5::SliceOrIndex::from(..));
        let hyperslab = hdf5::Hyperslab::from(slices);
        let values = dataset.read_slice::<T, _, ndarray::IxDyn>(hyperslab).map_err(self.failed(place, want))?;
        Ok(values.into_raw_vec_and_offset().0)
    }

    /// Whole numbers of any width and sign, `range` of a dataset with one axis.
    pub(crate) fn whole_numbers(&self, place: &str, dataset: &Dataset, range: Range<usize>) -> Result<Vec<i64>> {
        match self.descriptor(place, dataset)? {
            TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => self.read(place, dataset, range),
            other => Err(self.wrong(place, format!("type {other}"), "whole numbers")),
        }
    }

    /// Real numbers of any width, `range` of a dataset with one axis.
    pub(crate) fn real_numbers(&self, place: &str, dataset: &Dataset, range: Range<usize>) -> Result<Vec<f64>> {
        match self.descriptor(place, dataset)? {
            TypeDescriptor::Float(_) => self.read(place, dataset, range),
            other => Err(self.wrong(place, format!("type {other}"), "real numbers")),
        }
    }

    /// Variable-length rows `range` of whole numbers.
    pub(crate) fn whole_rows(&self, place: &str, dataset: &Dataset, range: Range<usize>) -> Result<Rows> {
        let want = "variable-length rows of whole numbers";
        match self.row_type(place, dataset, want)? {
            TypeDescriptor::Unsigned(IntSize::U2) => Ok(Rows::U16(self.read(place, dataset, range)?)),
            TypeDescriptor::Unsigned(_) | TypeDescriptor::Integer(_) => {
                Ok(Rows::I64(self.read(place, dataset, range)?))
            }
            other => Err(self.wrong(place, format!("rows of {other}"), want)),
        }
    }

    /// Variable-length rows `range` of real numbers.
    pub(crate) fn real_rows(&self, place: &str, dataset: &Dataset, range: Range<usize>) -> Result<Rows> {
        let want = "variable-length rows of real numbers";
        match self.row_type(place, dataset, want)? {
            // The library's own conversion of halves is many times slower than widening them here.
            TypeDescriptor::Float(FloatSize::U2) => Ok(Rows::F16(self.read(place, dataset, range)?)),
            TypeDescriptor::Float(_) => Ok(Rows::F64(self.read(place, dataset, range)?)),
            other => Err(self.wrong(place, format!("rows of {other}"), want)),
        }
    }

    fn row_type(&self, place: &str, dataset: &Dataset, want: &str) -> Result<TypeDescriptor> {
        match self.descriptor(place, dataset)? {
            TypeDescriptor::VarLenArray(inner) => Ok(*inner),
            other => Err(self.wrong(place, format!("type {other}"), want)),
        }
    }

    /// Strings of fixed or variable length.
    pub(crate) fn strings(&self, place: &str) -> Result<Vec<String>> {
        let (dataset, n) = self.vector(place)?;
        if n > 1 << 16 {
            return Err(self.wrong(place, format!("{n} strings"), "at most 65536"));
        }
        let want = "strings";
        let all = 0..n;
        Ok(match self.descriptor(place, &dataset)? {
            TypeDescriptor::VarLenUnicode => {
                let strings: Vec<VarLenUnicode> = self.read(place, &dataset, all)?;
                strings.iter().map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned()).collect()
            }
            TypeDescriptor::VarLenAscii => {
                let strings: Vec<VarLenAscii> = self.read(place, &dataset, all)?;
                strings.iter().map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned()).collect()
            }
            // A longer string is cut by the library, which no class name is.
            TypeDescriptor::FixedAscii(_) => {
                let strings: Vec<FixedAscii<256>> = self.read(place, &dataset, all)?;
                strings.iter().map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned()).collect()
            }
            TypeDescriptor::FixedUnicode(_) => {
                let strings: Vec<FixedUnicode<256>> = self.read(place, &dataset, all)?;
                strings.iter().map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned()).collect()
            }
            other => return Err(self.wrong(place, format!("type {other}"), want)),
        })
    }

    /// A text attribute of the root group, if there is one.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let value: VarLenUnicode = self.file.attr(name).ok()?.read_scalar().ok()?;
        Some(value.as_str().to_owned())
    }

    /// Writes a text attribute of the root group.
    pub(crate) fn set_text(&self, name: &str, value: &str) -> Result<()> {
        let value: VarLenUnicode = value.replace('\0', " ").parse().expect("no NUL is left");
        let written = self.file.new_attr::<VarLenUnicode>().create(name).and_then(|a| a.write_scalar(&value));
        written.map_err(self.writing(name))
    }

    /// The strings of an attribute of the group at `place`, of fixed or variable length, if it is there.
    ///
    /// One without entries may be of any type. At most `most` strings are read, each of up to [`LONGEST`] bytes.
    pub(crate) fn attribute(&self, place: &str, name: &str, most: usize) -> Result<Option<Vec<String>>> {
        let at = format!("{place}: attribute {name}");
        let group = self.file.group(place).map_err(self.failed(place, "a group"))?;
        // The library does not tell a missing attribute from a damaged one.
        let Ok(attribute) = group.attr(name) else { return Ok(None) };
        self.texts_in(&at, &attribute, most).map(Some)
    }

    /// The strings of a dataset of any shape, of fixed or variable length; at most `most`, each of up to [`LONGEST`] bytes.
    pub(crate) fn texts(&self, place: &str, most: usize) -> Result<Vec<String>> {
        let dataset = self.dataset(place)?;
        self.texts_in(place, &dataset, most)
    }

    /// The string of an attribute of the dataset at `place`, if it is there.
    pub(crate) fn text_of(&self, place: &str, name: &str) -> Result<Option<String>> {
        let Ok(attribute) = self.dataset(place)?.attr(name) else { return Ok(None) };
        Ok(self.texts_in(&format!("{place}: attribute {name}"), &attribute, 1)?.into_iter().next())
    }

    /// The number of an attribute of the dataset at `place`, if it is there.
    pub(crate) fn number_of(&self, place: &str, name: &str) -> Result<Option<f64>> {
        let Ok(attribute) = self.dataset(place)?.attr(name) else { return Ok(None) };
        let (at, want) = (format!("{place}: attribute {name}"), "a number");
        let dtype = attribute.dtype().map_err(self.failed(&at, want))?;
        if attribute.space().map_err(self.failed(&at, want))?.size() != 1 || dtype.conv_to::<f64>().is_none() {
            return Err(self.wrong(&at, "something else", want));
        }
        Ok(attribute.read_raw::<f64>().map_err(self.failed(&at, want))?.first().copied())
    }

    fn texts_in(&self, at: &str, strings: &Container, most: usize) -> Result<Vec<String>> {
        let want = "strings that can be read";
        let n = strings.space().map_err(self.failed(at, want))?.size();
        if n == 0 {
            return Ok(Vec::new());
        }
        let dtype = strings.dtype().map_err(self.failed(at, want))?;
        let width = dtype.size();
        if n > most || n as u64 * width.max(1) as u64 > self.bytes {
            return Err(self.wrong(
                at,
                format!("{n} entries"),
                format!("at most {most}, and no more than the file holds"),
            ));
        }
        // Tried one after the other and not chosen by a description of the type, which can be of any form in a foreign
        // file; the library converts between strings of one kind only.
        fn list<T: H5Type>(strings: &Container, bytes: impl Fn(&T) -> &[u8]) -> Option<Vec<Vec<u8>>> {
            let strings = strings.read_raw::<T>().ok()?;
            Some(strings.iter().map(|s| bytes(s).to_vec()).collect())
        }
        let of_one_length = || {
            list::<FixedAscii<LONGEST>>(strings, |s| s.as_bytes())
                .or_else(|| list::<FixedUnicode<LONGEST>>(strings, |s| s.as_bytes()))
        };
        let variable = || {
            list::<VarLenUnicode>(strings, |s| s.as_bytes()).or_else(|| list::<VarLenAscii>(strings, |s| s.as_bytes()))
        };
        let lists = Some(()).filter(|()| width <= LONGEST).and_then(|()| of_one_length()).or_else(variable);
        let Some(lists) = lists else {
            let got = format!("entries of {width} bytes");
            return Err(self.wrong(at, got, format!("strings of up to {LONGEST} bytes that can be read")));
        };
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|e| self.wrong(at, format!("{:?}", e.as_bytes()), "text in UTF-8"))
        };
        lists.into_iter().map(text).collect()
    }

    /// Numbers of any type and shape, at most `most` of them.
    pub(crate) fn array(&self, place: &str, most: usize) -> Result<(Vec<usize>, Vec<f64>)> {
        let (dataset, shape, n) = self.numbers(place, most)?;
        if n == 0 {
            return Ok((shape, Vec::new()));
        }
        Ok((shape, dataset.read_raw::<f64>().map_err(self.failed(place, "numbers that can be read"))?))
    }

    /// A dataset of at most `most` numbers on one axis, and its length; ranges of it are for [`File::read`].
    pub(crate) fn series(&self, place: &str, most: usize) -> Result<(Dataset, usize)> {
        let (dataset, shape, n) = self.numbers(place, most)?;
        if shape.len() != 1 {
            return Err(self.wrong(place, format!("shape {shape:?}"), "one axis"));
        }
        Ok((dataset, n))
    }

    /// A dataset of numbers whose shape the bytes of the file bear out, its shape and how many numbers there are.
    fn numbers(&self, place: &str, most: usize) -> Result<(Dataset, Vec<usize>, usize)> {
        let dataset = self.dataset(place)?;
        let want = "numbers that can be read";
        let space = dataset.space().map_err(self.failed(place, want))?;
        let dtype = dataset.dtype().map_err(self.failed(place, want))?;
        if space.is_null() || dtype.conv_to::<f64>().is_none() {
            return Err(self.wrong(place, "no numbers", "numbers"));
        }
        let shape = space.shape();
        let Some(n) = shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side)).filter(|n| *n <= most) else {
            return Err(self.wrong(place, format!("shape {shape:?}"), format!("at most {most} numbers")));
        };
        if n == 0 {
            return Ok((dataset, shape, n));
        }
        // A shape costs nothing to write down: it is believed only as far as there are bytes for it.
        let (stored, need) = (dataset.storage_size(), (n as u64).saturating_mul(dtype.size() as u64));
        let sound = match dataset.layout() {
            Layout::Compact => stored >= need,
            // One without an address is empty, or lies in another file.
            Layout::Contiguous => stored >= need && dataset.offset().is_some(),
            Layout::Chunked => {
                let chunk = dataset.chunk().unwrap_or_default().iter().try_fold(dtype.size(), |n, &c| n.checked_mul(c));
                stored.saturating_mul(BEST_PACKING) >= need && chunk.is_some_and(|bytes| bytes <= MOST_CHUNK)
            }
            _ => false,
        };
        if !sound || stored > self.bytes {
            let got = format!("shape {shape:?} with {stored} bytes");
            return Err(self.wrong(place, got, format!("{need} bytes inside this file")));
        }
        Ok((dataset, shape, n))
    }

    /// The names of at most `most` members of the group at `place`.
    pub(crate) fn members(&self, place: &str, most: usize) -> Result<Vec<String>> {
        let want = "a group that can be listed";
        let group = self.file.group(place).map_err(self.failed(place, want))?;
        let mut names = Vec::new();
        let listed = group.iter_visit_default(|name, _| {
            if names.len() == most {
                return Err(hdf5::Error::Internal(format!("more than {most} members")));
            }
            names.push(name.to_owned());
            Ok(())
        });
        listed.map_err(self.failed(place, want))?;
        Ok(names)
    }

    /// The group or dataset at `place`.
    fn object(&self, place: &str) -> hdf5::Result<Location> {
        match self.file.group(place) {
            Ok(group) => Ok((*group).clone()),
            Err(_) => Ok((**self.file.dataset(place)?).clone()),
        }
    }

    /// Writes a number as an attribute of the group or dataset at `place`.
    pub(crate) fn set_number<T: H5Type>(&self, place: &str, name: &str, value: T) -> Result<()> {
        let written = self.object(place).and_then(|o| o.new_attr::<T>().create(name)?.write_scalar(&value));
        written.map_err(self.writing(&format!("{place}: attribute {name}")))
    }

    /// Writes numbers on one axis in chunks packed with deflate.
    pub(crate) fn write_packed<T: H5Type>(&self, place: &str, values: &[T], chunk: usize) -> Result<()> {
        let built = self.file.new_dataset::<T>().shape([values.len()]).chunk([chunk.clamp(1, values.len().max(1))]);
        built.deflate(4).create(place).and_then(|d| d.write(values)).map_err(self.writing(place))
    }

    /// Writes a single number as a dataset.
    pub(crate) fn write_number<T: H5Type>(&self, place: &str, value: T) -> Result<()> {
        self.file.new_dataset::<T>().create(place).and_then(|d| d.write_scalar(&value)).map_err(self.writing(place))
    }

    /// Writes a single string of variable length as a dataset.
    pub(crate) fn write_string(&self, place: &str, value: &str) -> Result<()> {
        let value: VarLenUnicode = value.replace('\0', " ").parse().expect("no NUL is left");
        self.write_number(place, value)
    }

    /// Makes the object at `target` known at `place` too, as a hard link.
    pub(crate) fn link(&self, target: &str, place: &str) -> Result<()> {
        self.file.link_hard(target, place).map_err(self.writing(place))
    }

    /// Writes an attribute of byte strings of one length, ASCII, to the group or dataset at `place`.
    pub(crate) fn set_attribute(&self, place: &str, name: &str, values: &[String]) -> Result<()> {
        let at = format!("{place}: attribute {name}");
        let group = self.object(place).map_err(self.writing(&at))?;
        let created = if values.is_empty() {
            group.new_attr::<f64>().shape([0]).create(name).map(|_| ())
        } else {
            let width = values.iter().map(String::len).max().unwrap_or(0).max(1);
            let strings = fixed(values).ok_or_else(|| self.wrong(&at, "other text", SHORT_ASCII))?;
            let attribute =
                group.new_attr_builder().empty_as(TypeDescriptor::FixedAscii(width)).shape([values.len()]).create(name);
            attribute.and_then(|a| a.write(&strings))
        };
        created.map_err(self.writing(&at))
    }

    /// Writes an attribute of one byte string, ASCII, to the group or dataset at `place`.
    pub(crate) fn set_scalar(&self, place: &str, name: &str, value: &str) -> Result<()> {
        let at = format!("{place}: attribute {name}");
        let group = self.object(place).map_err(self.writing(&at))?;
        let strings = fixed(&[value.to_owned()]).ok_or_else(|| self.wrong(&at, value, SHORT_ASCII))?;
        let attribute = group.new_attr_builder().empty_as(TypeDescriptor::FixedAscii(value.len().max(1))).create(name);
        attribute.and_then(|a| a.write_scalar(&strings[0])).map_err(self.writing(&at))
    }

    /// Writes a whole dataset of any shape, with the groups that it lies in.
    pub(crate) fn write_array<T: H5Type>(&self, place: &str, shape: &[usize], values: &[T]) -> Result<()> {
        let created = self.file.new_dataset::<T>().shape(shape.to_vec()).create(place);
        let write = |d: Dataset| if values.is_empty() { Ok(()) } else { d.write_raw(values) };
        created.and_then(write).map_err(self.writing(place))
    }

    pub(crate) fn group(&self, name: &str) -> Result<()> {
        self.file.create_group(name).map(|_| ()).map_err(self.writing(name))
    }

    /// Writes a whole dataset with one axis.
    pub(crate) fn write<T: H5Type>(&self, place: &str, values: &[T]) -> Result<()> {
        let written = self.file.new_dataset::<T>().shape([values.len()]).create(place).and_then(|d| d.write(values));
        written.map_err(self.writing(place))
    }

    /// Writes variable-length strings.
    pub(crate) fn write_strings(&self, place: &str, values: &[String]) -> Result<()> {
        let strings: Vec<VarLenUnicode> =
            values.iter().map(|s| s.replace('\0', " ").parse().expect("no NUL is left")).collect();
        self.write(place, &strings)
    }

    /// A dataset that grows along its first axis; rows have `row` further axes.
    pub(crate) fn growing<T: H5Type + Copy>(&self, place: &str, row: &[usize], chunk: usize) -> Result<Growing<T>> {
        let mut extents = vec![hdf5::Extent::resizable(0)];
        extents.extend(row.iter().map(|&n| hdf5::Extent::fixed(n)));
        let mut chunks = vec![chunk];
        chunks.extend_from_slice(row);
        let dataset = self
            .file
            .new_dataset::<T>()
            .shape(hdf5::SimpleExtents::from_vec(extents))
            .chunk(chunks)
            .create(place)
            .map_err(self.writing(place))?;
        let row_len = row.iter().product::<usize>();
        Ok(Growing { dataset, place: place.to_owned(), row: row.to_vec(), row_len, rows: 0, held: Vec::new(), chunk })
    }

    /// Variable-length rows that grow.
    pub(crate) fn growing_rows<T: H5Type + Copy>(&self, place: &str, chunk: usize) -> Result<GrowingRows<T>> {
        let dataset = self
            .file
            .new_dataset::<VarLenArray<T>>()
            .shape((0..,))
            .chunk(vec![chunk])
            .create(place)
            .map_err(self.writing(place))?;
        Ok(GrowingRows { dataset, place: place.to_owned(), rows: 0, held: Vec::new(), chunk })
    }
}

/// A dataset that grows by whole chunks.
pub(crate) struct Growing<T> {
    dataset: Dataset,
    place: String,
    row: Vec<usize>,
    row_len: usize,
    rows: usize,
    held: Vec<T>,
    chunk: usize,
}

impl<T: H5Type + Copy> Growing<T> {
    /// Appends whole rows.
    pub(crate) fn extend(&mut self, file: &File, values: &[T]) -> Result<()> {
        self.held.extend_from_slice(values);
        if self.held.len() >= self.chunk * self.row_len { self.flush(file) } else { Ok(()) }
    }

    /// Writes what is held back.
    pub(crate) fn flush(&mut self, file: &File) -> Result<()> {
        let new = self.held.len() / self.row_len.max(1);
        if new == 0 {
            return Ok(());
        }
        let mut shape = vec![self.rows + new];
        shape.extend_from_slice(&self.row);
        let mut slices = vec![hdf5::SliceOrIndex::from(self.rows..self.rows + new)];
        slices.resize(shape.len(), hdf5::SliceOrIndex::from(..));
        let mut block = shape.clone();
        block[0] = new;
        let held = ndarray::ArrayViewD::from_shape(block, &self.held).expect("whole rows are held");
        let written =
            self.dataset.resize(shape).and_then(|()| self.dataset.write_slice(held, hdf5::Hyperslab::from(slices)));
        written.map_err(file.writing(&self.place))?;
        self.rows += new;
        self.held.clear();
        Ok(())
    }
}

/// Variable-length rows that grow by whole chunks.
pub(crate) struct GrowingRows<T: Copy> {
    dataset: Dataset,
    place: String,
    rows: usize,
    held: Vec<VarLenArray<T>>,
    chunk: usize,
}

impl<T: H5Type + Copy> GrowingRows<T> {
    pub(crate) fn push(&mut self, file: &File, row: &[T]) -> Result<()> {
        self.held.push(VarLenArray::from_slice(row));
        if self.held.len() == self.chunk { self.flush(file) } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self, file: &File) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let end = self.rows + self.held.len();
        let written =
            self.dataset.resize(end).and_then(|()| self.dataset.write_slice(self.held.as_slice(), self.rows..end));
        written.map_err(file.writing(&self.place))?;
        self.rows = end;
        self.held.clear();
        Ok(())
    }
}
