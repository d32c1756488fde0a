//! NumPy's `.npy` files, as far as arrays of numbers need them.
//!
//! A file is the signature `\x93NUMPY`, two bytes of version, the length of the header (2 bytes in version 1, 4 in later
//! ones), the header, which is the text of a Python dictionary with `descr`, `fortran_order` and `shape`, and the
//! numbers. Numbers stay where they are and are converted when asked for: no length is believed that the bytes do not
//! bear out.

use std::path::Path;

use crate::error::{Error, Result};

/// How one number is stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F4,
    F8,
    I1,
    I2,
    I4,
    I8,
    U1,
    U2,
    U4,
    U8,
}

impl Number {
    fn parse(descr: &str) -> Option<Self> {
        Some(match descr {
            "<f4" => Self::F4,
            "<f8" => Self::F8,
            "|i1" => Self::I1,
            "<i2" => Self::I2,
            "<i4" => Self::I4,
            "<i8" => Self::I8,
            "|u1" | "|b1" => Self::U1,
            "<u2" => Self::U2,
            "<u4" => Self::U4,
            "<u8" => Self::U8,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::I1 | Self::U1 => 1,
            Self::I2 | Self::U2 => 2,
            Self::F4 | Self::I4 | Self::U4 => 4,
            Self::F8 | Self::I8 | Self::U8 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> f64 {
        macro_rules! number {
            ($type:ty) => {
                <$type>::from_le_bytes(bytes.try_into().expect("as many bytes as the number has")) as f64
            };
        }
        match self {
            Self::F4 => number!(f32),
            Self::F8 => number!(f64),
            Self::I1 => number!(i8),
            Self::I2 => number!(i16),
            Self::I4 => number!(i32),
            Self::I8 => number!(i64),
            Self::U1 => number!(u8),
            Self::U2 => number!(u16),
            Self::U4 => number!(u32),
            Self::U8 => number!(u64),
        }
    }
}

/// An array of numbers inside the bytes of a file.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    shape: Vec<usize>,
    by_column: bool,
    number: Number,
    body: &'a [u8],
}

impl<'a> Array<'a> {
    /// Reads the header and checks that the numbers are there. `file` and `place` name the bytes in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is no such file, is cut short or too long, or holds anything but little-endian numbers.
    pub fn parse(bytes: &'a [u8], file: &Path, place: &str) -> Result<Self> {
        let wrong = |got: String, want: &str| Error::malformed(file, place, got, want);
        let version = bytes.get(6).copied().filter(|_| bytes.starts_with(b"\x93NUMPY"));
        let (size_bytes, text_at): (usize, usize) = match version {
            Some(1) => (2, 10),
            Some(2 | 3) => (4, 12),
            Some(other) => return Err(wrong(format!("version {other}"), "version 1, 2 or 3")),
            None => return Err(wrong("no npy signature".into(), "an npy file")),
        };
        let size = bytes.get(8..8 + size_bytes).map(|b| b.iter().rev().fold(0_usize, |n, &b| n << 8 | usize::from(b)));
        let header = size.and_then(|size| bytes.get(text_at..text_at.checked_add(size)?));
        let Some(header) = header else { return Err(wrong(format!("{} bytes", bytes.len()), "a whole header")) };
        let body = &bytes[text_at + header.len()..];
        let text = String::from_utf8_lossy(header);
        let field = |key: &str| {
            let after = text.find(&format!("'{key}'")).map(|at| text[at + key.len() + 2..].trim_start());
            let value = after.and_then(|rest| rest.strip_prefix(':')).map(str::trim_start);
            value.ok_or_else(|| wrong(format!("no {key}"), "descr, fortran_order and shape"))
        };
        let descr = field("descr")?.trim_start_matches('\'').split('\'').next().unwrap_or_default();
        let number = Number::parse(descr)
            .ok_or_else(|| wrong(format!("numbers of type {descr:?}"), "little-endian numbers of 1 to 8 bytes"))?;
        let by_column = field("fortran_order")?.starts_with("True");
        let axes = field("shape")?.trim_start_matches('(').split(')').next().unwrap_or_default();
        let shape: Option<Vec<usize>> =
            axes.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| t.parse().ok()).collect();
        let Some(shape) = shape else { return Err(wrong(format!("shape ({axes})"), "axes of whole numbers")) };
        let need = shape.iter().try_fold(number.bytes(), |n, &axis| n.checked_mul(axis));
        if need != Some(body.len()) {
            let want = "as many as the shape says";
            return Err(wrong(format!("shape ({axes}) of {descr} with {} bytes", body.len()), want));
        }
        Ok(Self { shape, by_column, number, body })
    }

    /// The axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether the numbers are stored as floats, of 4 or 8 bytes.
    #[must_use]
    pub fn is_float(&self) -> bool {
        matches!(self.number, Number::F4 | Number::F8)
    }

    /// All numbers, the last axis fastest, however they are stored.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        let size = self.number.bytes();
        let count = self.body.len() / size;
        let stored_at = |row_major: usize| {
            let (mut rest, mut stride, mut index) = (row_major, count, 0);
            for &axis in self.shape.iter().rev() {
                stride /= axis;
                index += rest % axis * stride;
                rest /= axis;
            }
            index
        };
        let read = |index: usize| self.number.read(&self.body[index * size..(index + 1) * size]);
        (0..count).map(|i| read(if self.by_column { stored_at(i) } else { i })).collect()
    }
}

/// A table of numbers `[rows, columns]` inside the bytes of a file.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    rows: usize,
    columns: usize,
    by_column: bool,
    number: Number,
    body: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads the header and checks that the numbers are there. `file` and `place` name the bytes in errors.
    ///
    /// # Errors
    ///
    /// As [`Array::parse`], or if there are not two axes.
    pub fn parse(bytes: &'a [u8], file: &Path, place: &str) -> Result<Self> {
        let place = format!("{place}: npy header");
        let Array { shape, by_column, number, body } = Array::parse(bytes, file, &place)?;
        let [rows, columns] = shape[..] else {
            return Err(Error::malformed(file, place, format!("shape {shape:?}"), "two axes"));
        };
        Ok(Self { rows, columns, by_column, number, body })
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// One number.
    ///
    /// # Panics
    ///
    /// If there is no such row or column.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f64 {
        assert!(row < self.rows && column < self.columns, "({row}, {column}) of {:?}", self.shape());
        let index = if self.by_column { column * self.rows + row } else { row * self.columns + column };
        let size = self.number.bytes();
        self.number.read(&self.body[index * size..(index + 1) * size])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(header: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn header(descr: &str, order: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
    }

    fn error(bytes: &[u8]) -> String {
        Table::parse(bytes, Path::new("x.tar.gz"), "a.npy").unwrap_err().to_string()
    }

    #[test]
    fn both_orders_and_all_widths_are_read() {
        let body: Vec<u8> = [1_i16, 2, 3, 4, 5, -6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let rows = npy(&header("<i2", "False", "(3, 2)"), &body);
        let table = Table::parse(&rows, Path::new("x"), "y").unwrap();
        assert_eq!((table.shape(), table.at(0, 1), table.at(2, 1)), ((3, 2), 2.0, -6.0));
        let columns = npy(&header("<i2", "True", "(3, 2)"), &body);
        let table = Table::parse(&columns, Path::new("x"), "y").unwrap();
        assert_eq!((table.at(0, 1), table.at(2, 0)), (4.0, 3.0));
        for (descr, body) in [("<f8", 2.5_f64.to_le_bytes().to_vec()), ("<f4", 2.5_f32.to_le_bytes().to_vec())] {
            let bytes = npy(&header(descr, "False", "(1, 1)"), &body);
            assert_eq!(Table::parse(&bytes, Path::new("x"), "y").unwrap().at(0, 0), 2.5);
        }
    }

    #[test]
    fn arrays_come_in_row_order_whatever_the_file_has() {
        let shape = [2_usize, 3, 4];
        let at = |i: usize, j: usize, k: usize| (100 * i + 10 * j + k) as f32;
        let places = |outer: usize| (0..outer).flat_map(|a| (0..3).map(move |b| (a, b)));
        let by_row = places(2).flat_map(|(i, j)| (0..4).map(move |k| at(i, j, k)));
        let by_column = places(4).flat_map(|(k, j)| (0..2).map(move |i| at(i, j, k)));
        let bytes = |numbers: &mut dyn Iterator<Item = f32>| numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let want: Vec<f64> = by_row.clone().map(f64::from).collect();
        for (order, body) in [("False", bytes(&mut by_row.clone())), ("True", bytes(&mut by_column.clone()))] {
            let file = npy(&header("<f4", order, "(2, 3, 4)"), &body);
            let array = Array::parse(&file, Path::new("x"), "y").unwrap();
            assert_eq!((array.shape(), array.is_float()), (&shape[..], true));
            assert_eq!(array.values(), want, "{order}");
        }
        let single = npy(&header("|u1", "False", "()"), &[7]);
        let array = Array::parse(&single, Path::new("x"), "y").unwrap();
        assert_eq!((array.shape().len(), array.is_float(), array.values()), (0, false, vec![7.0]));
        let empty = npy(&header("<f8", "True", "(3, 0)"), &[]);
        assert!(Array::parse(&empty, Path::new("x"), "y").unwrap().values().is_empty());
    }

    #[test]
    fn files_that_lie_are_refused() {
        for (bytes, want) in [
            (b"PK".to_vec(), "a.npy: npy header: no npy signature, expected an npy file"),
            (b"\x93NUMPY\x09\x00".to_vec(), "version 9"),
            (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "a whole header"),
            (b"\x93NUMPY\x03\x00\xff\xff\xff\xff{".to_vec(), "a whole header"),
            (npy("{}", &[]), "no descr"),
            (npy(&header("|O", "False", "(1, 1)"), &[0]), "numbers of type \"|O\""),
            (npy(&header(">i2", "False", "(1, 1)"), &[0, 0]), "numbers of type \">i2\""),
            (npy(&header("|u1", "False", "(4,)"), &[0; 4]), "shape [4], expected two axes"),
            (npy(&header("<f4", "False", "(2, 2)"), &[0; 15]), "shape (2, 2) of <f4 with 15 bytes"),
            (npy(&header("<f8", "False", "(9223372036854775807, 4)"), &[0; 8]), "as many as the shape says"),
            (npy(&header("<f8", "False", "(99999999999999999999999, 4)"), &[0; 8]), "axes of whole numbers"),
        ] {
            let got = error(&bytes);
            assert!(got.contains(want), "{got} is not {want}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[ '{}():,a-z0-9<_]{0,80}") {
            let _ = Table::parse(&bytes, Path::new("x"), "y");
            let _ = Table::parse(&npy(&text, &bytes), Path::new("x"), "y");
            for order in ["True", "False"] {
                let count = bytes.len();
                let file = npy(&header("|u1", order, &format!("({count}, 1, 1)")), &bytes);
                prop_assert_eq!(Array::parse(&file, Path::new("x"), "y").unwrap().values().len(), count);
            }
        }
    }
}
