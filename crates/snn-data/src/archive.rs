//! Packed files, read as if they were hostile: gzip, zip, tar.
//!
//! Nothing is ever unpacked under a name that an archive gives: entries are handed to a reader one by one. Names that
//! could leave a folder, links and devices are refused all the same, because an archive that holds them is not
//! the data set it claims to be. Sizes are counted on the bytes that really come out, never taken from a header.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// How much an archive may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one entry.
    pub entry: u64,
    /// Bytes of all entries.
    pub total: u64,
}

impl Default for Limits {
    /// 4 GiB per entry, 64 GiB in all.
    fn default() -> Self {
        Self { entry: 4 << 30, total: 64 << 30 }
    }
}

/// Opens a file, unpacking it on the way if its first two bytes say gzip, whatever its name says.
///
/// A gzip of several members is legal. A stream that is cut short, a wrong CRC or length, and data after the
/// stream are errors of the returned reader, which is why a caller must read it to its end.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be opened.
pub fn open_unpacked(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let gzip = is_gzip(reader.fill_buf().map_err(Error::io(path, "read"))?);
    Ok(if gzip { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))) } else { Box::new(reader) })
}

/// Whether these are the first bytes of a gzip stream.
#[must_use]
pub fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1F, 0x8B])
}

/// Turns an error of a reader into one that names the file: a damaged stream is malformed, anything else is I/O.
pub(crate) fn reading<'a>(file: &'a Path, place: &'a str) -> impl Fn(io::Error) -> Error + 'a {
    move |source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::malformed(file, place, "the stream ends too early", "a complete file"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::malformed(file, place, source.to_string(), "an intact stream")
        }
        _ => Error::Io { path: file.to_owned(), action: "read", source },
    }
}

/// Reads to the end, or fails once more than `limit` bytes have come.
pub(crate) fn read_limited(reader: impl Read, limit: u64, file: &Path, place: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(reading(file, place))?;
    if bytes.len() as u64 > limit {
        return Err(Error::malformed(
            file,
            place,
            format!("more than {limit} bytes"),
            format!("at most {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Reads and drops what is left, so that a trailing checksum is checked; returns how many bytes there were.
pub(crate) fn drain(mut reader: impl Read, file: &Path) -> Result<u64> {
    io::copy(&mut reader, &mut io::sink()).map_err(reading(file, "end of the stream"))
}

/// Refuses a name that could lead out of the folder it is joined to.
fn check_name(file: &Path, name: &str) -> Result<()> {
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    let reason = if name.is_empty() {
        "an empty name"
    } else if name.contains('\0') {
        "a name with a NUL"
    } else if name.contains('\\') {
        "a name with a backslash"
    } else if name.starts_with('/') || drive {
        "an absolute name"
    } else if name.split('/').any(|part| part == "..") {
        "a name with a `..` component"
    } else {
        return Ok(());
    };
    Err(Error::malformed(file, format!("entry {name:?}"), reason, "a plain relative name"))
}

/// Counts what all entries have unpacked to.
struct Budget {
    limits: Limits,
    spent: u64,
}

impl Budget {
    /// Reads one entry completely.
    fn read(&mut self, reader: impl Read, file: &Path, place: &str) -> Result<Vec<u8>> {
        let left = self.limits.total.saturating_sub(self.spent);
        let bytes = read_limited(reader, self.limits.entry.min(left), file, place)?;
        self.spent += bytes.len() as u64;
        Ok(bytes)
    }
}

/// A zip file whose entries are read by index.
pub struct Zip {
    archive: zip::ZipArchive<BufReader<File>>,
    path: std::path::PathBuf,
    budget: Budget,
    names: Vec<(String, usize)>,
}

impl std::fmt::Debug for Zip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zip").field("path", &self.path).field("entries", &self.names.len()).finish_non_exhaustive()
    }
}

impl Zip {
    /// Opens `path` and checks the name and type of every entry.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read; [`Error::Malformed`] if it is no complete zip file, has two entries of one
    /// name, or has an entry that is a link, is encrypted, or whose name could leave the folder.
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let broken = |e: zip::result::ZipError| zip_error(path, "archive", e);
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        if archive.has_duplicate_names() {
            return Err(Error::malformed(path, "archive", "two entries of one name", "distinct names"));
        }
        let mut names = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(broken)?;
            let entry = entry.entry();
            let name = entry.name().map_err(broken)?.into_owned();
            check_name(path, &name)?;
            let place = || format!("entry {name:?}");
            // The file type sits in the upper four bits of the Unix mode, itself in the upper half of the
            // external attributes: 0o10 is a file, 0o04 a folder, 0 says nothing, anything else is a link or device.
            let kind = entry.external_attributes() >> 28;
            if entry.is_symlink() || !matches!(kind, 0 | 0o10 | 0o04) {
                return Err(Error::malformed(path, place(), "a link or a device", "a plain file or a folder"));
            }
            if entry.encrypted() {
                return Err(Error::malformed(path, place(), "encrypted", "an entry without a password"));
            }
            if !name.ends_with('/') {
                names.push((name, index));
            }
        }
        Ok(Self { archive, path: path.to_owned(), budget: Budget { limits, spent: 0 }, names })
    }

    /// Name and index of every file, in the order of the archive.
    #[must_use]
    pub fn files(&self) -> &[(String, usize)] {
        &self.names
    }

    /// Unpacks the entry with this index; its CRC is checked.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is damaged or larger than the limits allow.
    pub fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let entry = self.archive.by_index(index).map_err(|e| zip_error(&self.path, "archive", e))?;
        let place = format!("entry {:?}", entry.entry().name().unwrap_or_default());
        self.budget.read(entry, &self.path, &place)
    }

    /// Hands the unpacked entry to `consume` as a stream, which must be read to its end for the CRC to be checked.
    ///
    /// # Errors
    ///
    /// As [`Zip::read`], and those of `consume`.
    pub fn stream<T>(&mut self, index: usize, consume: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let entry = self.archive.by_index(index).map_err(|e| zip_error(&self.path, "archive", e))?;
        let limit = self.budget.limits.entry.min(self.budget.limits.total - self.budget.spent);
        let mut counted = Counted { inner: entry, left: limit };
        let result = consume(&mut counted);
        self.budget.spent += limit - counted.left;
        result
    }
}

/// A reader that fails once more than `left` bytes have come.
struct Counted<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unpacks to more than the limit"))?;
        Ok(n)
    }
}

fn zip_error(file: &Path, place: &str, e: zip::result::ZipError) -> Error {
    match e {
        zip::result::ZipError::Io(e) => reading(file, place)(e),
        other => Error::malformed(file, place, other.to_string(), "a complete zip archive"),
    }
}

/// Reads a tar file, packed with gzip or not, and hands every plain file in it to `visit`.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read; [`Error::Malformed`] if it is cut short or damaged, is larger than the limits,
/// or has an entry that is a link or a device or whose name could leave the folder; and those of `visit`.
pub fn visit_tar(path: &Path, limits: Limits, mut visit: impl FnMut(&str, Vec<u8>) -> Result<()>) -> Result<()> {
    let mut archive = tar::Archive::new(open_unpacked(path)?);
    let mut budget = Budget { limits, spent: 0 };
    let broken = reading(path, "archive");
    for entry in archive.entries().map_err(&broken)? {
        let entry = entry.map_err(tar_error(path))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_name(path, &name)?;
        let place = format!("entry {name:?}");
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            other => {
                let got = format!("an entry of type {other:?}");
                return Err(Error::malformed(path, place, got, "a plain file or a folder"));
            }
        }
        let size = entry.size();
        let bytes = budget.read(entry, path, &place)?;
        if bytes.len() as u64 != size {
            return Err(Error::malformed(path, place, format!("{} bytes", bytes.len()), format!("{size} bytes")));
        }
        visit(&name, bytes)?;
    }
    // The rest of the last block, and after it the CRC of the gzip stream around the archive.
    drain(archive.into_inner().take(limits.total), path)?;
    Ok(())
}

fn tar_error(file: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |e| match e.kind() {
        // The tar reader reports damage as `Other`.
        io::ErrorKind::Other => Error::malformed(file, "archive", e.to_string(), "a complete tar archive"),
        _ => reading(file, "archive")(e),
    }
}
