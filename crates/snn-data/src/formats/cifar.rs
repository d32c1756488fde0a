//! CIFAR-10 and CIFAR-100, binary editions.
//!
//! A file is a sequence of records: the label (CIFAR-100: coarse, then fine), then 1024 red, 1024 green and 1024 blue
//! bytes, each plane row-major. There is no header.

use std::io::Read;
use std::path::Path;

use crate::archive::reading;
use crate::error::{Error, Result};

/// Side of an image.
pub const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// Reads all records and hands each label and image, `[32, 32, 3]` channel-last, to `each`; returns their number.
///
/// * `label_bytes` — 1 for CIFAR-10, 2 for CIFAR-100, of which the last counts (the fine label).
/// * `classes` — labels must be below.
///
/// # Errors
///
/// [`Error::Malformed`] if the file is empty, ends inside a record or has a label that is too large; and those of `each`.
pub fn read_records(
    mut reader: impl Read,
    file: &Path,
    label_bytes: usize,
    classes: usize,
    mut each: impl FnMut(u32, &[u8]) -> Result<()>,
) -> Result<usize> {
    let mut record = vec![0; label_bytes + 3 * PLANE];
    let mut pixels = vec![0; 3 * PLANE];
    let mut index = 0;
    loop {
        let mut filled = 0;
        while filled < record.len() {
            match reader.read(&mut record[filled..]).map_err(reading(file, "records"))? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 && index > 0 {
            return Ok(index);
        }
        if filled < record.len() {
            let got = format!("{} bytes", index * record.len() + filled);
            return Err(Error::malformed(file, "length", got, format!("a multiple of {}, not zero", record.len())));
        }
        let label = u32::from(record[label_bytes - 1]);
        if label as usize >= classes {
            let want = format!("0..={}", classes - 1);
            return Err(Error::malformed(file, format!("record {index}"), format!("label {label}"), want));
        }
        let planes = &record[label_bytes..];
        for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[planes[i], planes[PLANE + i], planes[2 * PLANE + i]]);
        }
        each(label, &pixels)?;
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], label_bytes: usize) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut all = Vec::new();
        read_records(bytes, Path::new("x.bin"), label_bytes, 10, |label, pixels| {
            all.push((label, pixels.to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn planes_become_channels() {
        let mut bytes = vec![7];
        bytes.extend((0..3 * PLANE).map(|i| (i / PLANE * 100 + i % PLANE % 50) as u8));
        let all = read(&bytes, 1).unwrap();
        assert_eq!(all[0].0, 7);
        assert_eq!(all[0].1[3 * 33..3 * 33 + 3], [33, 133, 233]);
    }

    #[test]
    fn the_fine_label_counts() {
        let mut bytes = vec![19, 3];
        bytes.resize(2 + 3 * PLANE, 0);
        assert_eq!(read(&bytes, 2).unwrap()[0].0, 3);
    }

    #[test]
    fn files_of_another_length_are_refused() {
        let text = |n: usize| read(&vec![0; n], 1).unwrap_err().to_string();
        assert_eq!(text(0), "x.bin: length: 0 bytes, expected a multiple of 3073, not zero");
        assert_eq!(text(3074), "x.bin: length: 3074 bytes, expected a multiple of 3073, not zero");
    }

    #[test]
    fn labels_above_the_classes_are_refused() {
        let mut bytes = vec![0; 2 * 3073];
        bytes[3073] = 10;
        assert_eq!(read(&bytes, 1).unwrap_err().to_string(), "x.bin: record 1: label 10, expected 0..=9");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), records in 0_usize..3) {
            let mut file = vec![1; records * 3073];
            file.extend_from_slice(&bytes);
            prop_assert_eq!(read(&file, 1).is_ok(), records > 0 && bytes.is_empty());
        }
    }
}
