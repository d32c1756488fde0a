//! IDX: the format of MNIST and its relatives.
//!
//! Big-endian: two zero bytes, the element type (8 = unsigned byte), the number of axes, their lengths as `u32`, then
//! the elements, last axis fastest. Images have three axes (magic number 2051), labels one (2049).

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::archive::{drain, reading};
use crate::error::{Error, Result};

/// More items than any set of this format has; counts such as 0xFFFF_FFFF occur in damaged files.
const MOST_ITEMS: u64 = 1 << 28;
/// More bytes per item than any image of this format has.
const MOST_BYTES: u64 = 1 << 20;

/// An IDX file whose header has been read and checked; items follow one by one.
pub struct IdxReader<R> {
    reader: R,
    file: PathBuf,
    dims: Vec<usize>,
    taken: usize,
}

impl<R> std::fmt::Debug for IdxReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdxReader").field("file", &self.file).field("dims", &self.dims).finish_non_exhaustive()
    }
}

impl<R: Read> IdxReader<R> {
    /// Reads the header; `file` names the stream in errors, `axes` is 3 for images and 1 for labels.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the header is cut short, is no IDX header, has another element type than bytes, another
    /// number of axes, an empty axis, or promises more than any data set holds.
    pub fn new(mut reader: R, file: &Path, axes: u8) -> Result<Self> {
        let mut head = [0; 4];
        reader.read_exact(&mut head).map_err(reading(file, "header"))?;
        let wrong = |place: &str, got: String, want: String| Err(Error::malformed(file, place, got, want));
        if head[..2] != [0, 0] {
            return wrong("magic number", format!("{:02x} {:02x}", head[0], head[1]), "two zero bytes".into());
        }
        if head[2] != 0x08 {
            let known = matches!(head[2], 0x09 | 0x0B..=0x0E);
            let kind = if known { "a type that no image set uses" } else { "an unknown type" };
            return wrong("element type", format!("0x{:02x}, {kind}", head[2]), "0x08 (unsigned bytes)".into());
        }
        if head[3] != axes {
            return wrong("number of axes", head[3].to_string(), axes.to_string());
        }
        let mut dims = Vec::new();
        for axis in 0..axes {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes).map_err(reading(file, "header"))?;
            let n = u32::from_be_bytes(bytes);
            if n == 0 {
                return wrong(&format!("axis {axis}"), "0 entries".into(), "at least 1".into());
            }
            dims.push(n as usize);
        }
        let item = dims[1..].iter().try_fold(1_u64, |n, &d| n.checked_mul(d as u64));
        match item {
            Some(bytes) if bytes <= MOST_BYTES && dims[0] as u64 <= MOST_ITEMS => {}
            _ => {
                return wrong(
                    "header",
                    format!("axes {dims:?}"),
                    format!("{MOST_ITEMS} items of {MOST_BYTES} bytes at most"),
                );
            }
        }
        Ok(Self { reader, file: file.to_owned(), dims, taken: 0 })
    }

    /// Items: images or labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims[0]
    }

    /// Whether there is no item; a file without items is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns of an image; 1 and 1 for labels.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        match self.dims[..] {
            [_, rows, columns] => (rows, columns),
            _ => (1, 1),
        }
    }

    /// Reads the next item into `out`, replacing what is there.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the file ends before it, or if all items have been read.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let bytes = self.dims[1..].iter().product::<usize>();
        if self.taken == self.len() {
            let want = format!("at most the {} the header says", self.len());
            return Err(Error::malformed(&self.file, "items", format!("item {} asked for", self.taken), want));
        }
        out.resize(bytes, 0);
        let mut filled = 0;
        while filled < bytes {
            match self.reader.read(&mut out[filled..]).map_err(reading(&self.file, "items"))? {
                0 => {
                    let got = self.taken * bytes + filled;
                    let want = format!("{} items = {} bytes, as the header says", self.len(), self.len() * bytes);
                    return Err(Error::malformed(&self.file, "items", format!("truncated after {got} bytes"), want));
                }
                n => filled += n,
            }
        }
        self.taken += 1;
        Ok(())
    }

    /// Checks that the file ends where the header says.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if bytes follow, or if the packed stream is damaged at its end.
    pub fn finish(self) -> Result<()> {
        let rest = drain(self.reader, &self.file)?;
        if rest > 0 {
            let want = format!("nothing after {} items", self.dims[0]);
            return Err(Error::malformed(&self.file, "end", format!("{rest} trailing bytes"), want));
        }
        Ok(())
    }
}

/// Reads images and labels side by side and hands each pair to `each`.
///
/// # Errors
///
/// [`Error::Malformed`] as [`IdxReader`], and if the counts differ, an image is not of `size` or a label is not in
/// `first_label..first_label + classes`; and those of `each`.
pub fn read_pairs(
    mut images: IdxReader<impl Read>,
    mut labels: IdxReader<impl Read>,
    size: (usize, usize),
    (first_label, classes): (u32, usize),
    mut each: impl FnMut(u32, &mut Vec<u8>) -> Result<()>,
) -> Result<usize> {
    if images.size() != size {
        let (got, want) = (images.size(), size);
        let text = |(r, c)| format!("{r}x{c} pixels");
        return Err(Error::malformed(&images.file, "header", text(got), text(want)));
    }
    if images.len() != labels.len() {
        let want = format!("{}, as many as labels in {}", labels.len(), labels.file.display());
        return Err(Error::malformed(&images.file, "header", format!("{} images", images.len()), want));
    }
    let (count, mut pixels, mut label) = (images.len(), Vec::new(), Vec::new());
    for index in 0..count {
        labels.read(&mut label)?;
        images.read(&mut pixels)?;
        let last = first_label + classes as u32 - 1;
        let class = u32::from(label[0]).checked_sub(first_label).filter(|&c| (c as usize) < classes);
        let Some(class) = class else {
            let want = format!("{first_label}..={last}");
            return Err(Error::malformed(&labels.file, format!("label {index}"), label[0].to_string(), want));
        };
        each(class, &mut pixels)?;
    }
    images.finish()?;
    labels.finish()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend_from_slice(data);
        bytes
    }

    fn read(bytes: &[u8], axes: u8) -> Result<Vec<Vec<u8>>> {
        let mut reader = IdxReader::new(bytes, Path::new("x.idx"), axes)?;
        let mut items = Vec::new();
        for _ in 0..reader.len() {
            let mut item = Vec::new();
            reader.read(&mut item)?;
            items.push(item);
        }
        reader.finish()?;
        Ok(items)
    }

    fn error(bytes: &[u8], axes: u8) -> String {
        read(bytes, axes).unwrap_err().to_string()
    }

    #[test]
    fn images_come_out_as_written() {
        let items = read(&idx(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]), 3).unwrap();
        assert_eq!(items, [[1, 2, 3, 4], [5, 6, 7, 8]]);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert!(error(&[], 3).contains("header: the stream ends too early"));
        assert!(error(&[0, 0, 8], 3).contains("header: the stream ends too early"));
        assert!(error(&[0, 0, 8, 3, 0, 0], 3).contains("header: the stream ends too early"));
        assert_eq!(error(&[1, 0, 8, 3], 3), "x.idx: magic number: 01 00, expected two zero bytes");
        assert!(error(&[0, 0, 0x0D, 3], 3).contains("element type: 0x0d, a type that no image set uses"));
        assert!(error(&[0, 0, 0x42, 3], 3).contains("element type: 0x42, an unknown type"));
        assert!(error(&idx(&[1, 1], &[0]), 3).contains("number of axes: 2, expected 3"));
        assert!(error(&idx(&[3], &[0; 3]), 3).contains("number of axes: 1, expected 3"));
        assert!(error(&idx(&[0], &[]), 1).contains("axis 0: 0 entries"));
        assert!(error(&idx(&[1, 0, 28], &[]), 3).contains("axis 1: 0 entries"));
        assert!(error(&idx(&[u32::MAX, 28, 28], &[]), 3).contains("header: axes [4294967295, 28, 28]"));
        assert!(error(&idx(&[1, u32::MAX, u32::MAX], &[]), 3).contains("items of"));
    }

    #[test]
    fn payloads_of_another_length_are_refused() {
        assert_eq!(
            error(&idx(&[2, 2, 2], &[0; 7]), 3),
            "x.idx: items: truncated after 7 bytes, expected 2 items = 8 bytes, as the header says"
        );
        assert_eq!(
            error(&idx(&[2, 2, 2], &[0; 11]), 3),
            "x.idx: end: 3 trailing bytes, expected nothing after 2 items"
        );
    }

    fn pairs(images: &[u8], labels: &[u8]) -> Result<usize> {
        let images = IdxReader::new(images, Path::new("images"), 3)?;
        let labels = IdxReader::new(labels, Path::new("labels"), 1)?;
        read_pairs(images, labels, (2, 2), (0, 10), |_, _| Ok(()))
    }

    #[test]
    fn pairs_that_do_not_fit_are_refused() {
        let images = idx(&[2, 2, 2], &[0; 8]);
        assert_eq!(pairs(&images, &idx(&[2], &[9, 0])).unwrap(), 2);
        let text = |r: Result<usize>| r.unwrap_err().to_string();
        assert_eq!(
            text(pairs(&images, &idx(&[3], &[0; 3]))),
            "images: header: 2 images, expected 3, as many as labels in labels"
        );
        assert_eq!(text(pairs(&images, &idx(&[2], &[0, 10]))), "labels: label 1: 10, expected 0..=9");
        assert_eq!(
            text(pairs(&idx(&[2, 1, 4], &[0; 8]), &idx(&[2], &[0, 0]))),
            "images: header: 1x4 pixels, expected 2x2 pixels"
        );
    }

    #[test]
    fn labels_that_begin_at_one_are_shifted() {
        let images = idx(&[2, 1, 1], &[0; 2]);
        let mut seen = Vec::new();
        let mut run = |labels: &[u8]| {
            let images = IdxReader::new(&images[..], Path::new("images"), 3)?;
            let labels = IdxReader::new(labels, Path::new("labels"), 1)?;
            read_pairs(images, labels, (1, 1), (1, 26), |label, _| {
                seen.push(label);
                Ok(())
            })
        };
        run(&idx(&[2], &[1, 26])).unwrap();
        assert!(run(&idx(&[2], &[0, 1])).unwrap_err().to_string().contains("label 0: 0, expected 1..=26"));
        assert_eq!(seen, [0, 25]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), axes in prop::sample::select(vec![1_u8, 3])) {
            let _ = read(&bytes, axes);
            let mut sound = idx(&[2, 2, 2][..usize::from(axes)], &[]);
            sound.extend_from_slice(&bytes);
            let _ = read(&sound, axes);
        }
    }
}
