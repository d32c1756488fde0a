//! A look at the global heaps of an HDF5 file before the C library reads them.
//!
//! Rows of variable length and strings lie in *collections*: the signature `GCOL`, a version, the collection's size, then
//! objects, each a header (index, references, size) and its data, padded to 8 bytes. The library walks the objects from
//! size to size, and a damaged size can send it in circles: zero, or so large that the position wraps around.
//! [`check`] walks the same way and refuses what does not advance or leaves its collection.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Signature and version of a collection; the library itself refuses any other version.
const SIGNATURE: &[u8; 5] = b"GCOL\x01";
/// Signature, version, three reserved bytes, the size.
const COLLECTION_HEADER: u64 = 16;
/// Index, references, four reserved bytes, the size.
const OBJECT_HEADER: u64 = 16;
/// Bytes that are searched at a time.
const PIECE: usize = 1 << 20;

/// Checks every collection of a file whose superblock lies at `superblock`.
///
/// The file is searched from end to end, because a damaged reference can point anywhere. What looks like a collection
/// but is said to reach beyond the file is passed over: the library refuses it.
///
/// # Errors
///
/// [`Error::Malformed`] naming the place of the collection and of the object.
pub(crate) fn check(path: &Path, superblock: u64) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let len = file.metadata().map_err(Error::io(path, "read"))?.len();
    let lengths = size_of_lengths(&mut file, superblock).map_err(Error::io(path, "read"))?;
    if lengths != 8 {
        return Err(Error::malformed(path, "superblock", format!("lengths of {lengths} bytes"), "8"));
    }
    for at in collections(&mut file).map_err(Error::io(path, "read"))? {
        let fault = walk(&mut file, at, len).map_err(Error::io(path, "read"))?;
        if let Some((object, got)) = fault {
            let place = format!("global heap at byte {at}, object at byte {object}");
            return Err(Error::malformed(path, place, got, "a size that ends inside the heap"));
        }
    }
    Ok(())
}

/// How many bytes a length takes, which the superblock says in a place that depends on its version.
fn size_of_lengths(file: &mut File, superblock: u64) -> std::io::Result<u8> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(superblock))?;
    file.by_ref().take(16).read_to_end(&mut head)?;
    // A file that ends here holds no heap either; the library says what it lacks.
    let at = if head.get(8).is_some_and(|version| *version < 2) { 14 } else { 10 };
    Ok(head.get(at).copied().unwrap_or(8))
}

/// Where the signature stands, at whatever byte.
fn collections(file: &mut File) -> std::io::Result<Vec<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut found, mut piece, mut start) = (Vec::new(), Vec::with_capacity(PIECE + SIGNATURE.len()), 0_u64);
    loop {
        let kept = piece.len();
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        let mut at = 0;
        while let Some(next) = piece[at..].iter().position(|&b| b == SIGNATURE[0]) {
            at += next;
            if piece[at..].starts_with(SIGNATURE) {
                found.push(start + at as u64);
            }
            at += 1;
        }
        if read == 0 {
            return Ok(found);
        }
        // A signature may lie across the border: its length less one goes over to the next piece.
        let over = (kept + read).min(SIGNATURE.len() - 1);
        start += (piece.len() - over) as u64;
        piece.drain(..piece.len() - over);
    }
}

/// Walks one collection; gives the object at fault and what its header says, if there is one.
fn walk(file: &mut File, at: u64, len: u64) -> std::io::Result<Option<(u64, String)>> {
    let mut header = [0; COLLECTION_HEADER as usize];
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(1 << 14, file);
    if reader.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    let size = number(&header[8..]);
    let Some(end) = at.checked_add(size).filter(|end| *end <= len) else { return Ok(None) };
    let mut object = at + COLLECTION_HEADER;
    // What is too small for a header counts as free.
    while object + OBJECT_HEADER <= end {
        let mut header = [0; OBJECT_HEADER as usize];
        reader.read_exact(&mut header)?;
        let (index, size) = (u16::from_le_bytes([header[0], header[1]]), number(&header[8..]));
        // The size of object 0, the free space, includes its header; that of others neither header nor padding.
        let need = match index {
            0 => Some(size).filter(|size| *size >= OBJECT_HEADER),
            _ => size.checked_next_multiple_of(8).and_then(|size| size.checked_add(OBJECT_HEADER)),
        };
        let Some(next) = need.and_then(|need| object.checked_add(need)).filter(|next| *next <= end) else {
            return Ok(Some((
                object,
                format!("object {index} of {size} bytes, {} bytes before the end", end - object),
            )));
        };
        reader.seek_relative((next - object - OBJECT_HEADER) as i64)?;
        object = next;
    }
    Ok(None)
}

fn number(bytes: &[u8]) -> u64 {
    bytes[..8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a superblock of version 0 and one collection at byte 21, of objects with index and size.
    fn file(objects: &[(u16, u64)], size: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let mut bytes = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0".to_vec();
        bytes.extend(b"GCOLG");
        bytes.extend(SIGNATURE);
        bytes.extend([0; 3]);
        bytes.extend(size.to_le_bytes());
        for (index, size) in objects {
            bytes.extend(index.to_le_bytes());
            bytes.extend([0; 6]);
            bytes.extend(size.to_le_bytes());
            let data = if *index == 0 { size.saturating_sub(16) } else { size.next_multiple_of(8) };
            bytes.extend(vec![7; data.min(4096) as usize]);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.h5");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn sound_collection_passes() {
        // Two objects of 5 and 8 bytes, free space of 32, and a rest too small for a header.
        let (_folder, path) = file(&[(1, 5), (2, 8), (0, 32)], 16 + 24 + 24 + 32);
        check(&path, 0).unwrap();
    }

    #[test]
    fn objects_that_do_not_advance_or_leave_are_refused() {
        for (objects, size) in [
            (vec![(1, 5), (0, 0)], 16 + 24 + 16),
            (vec![(0, 15)], 32),
            (vec![(1, u64::MAX - 7)], 16 + 16 + 8),
            (vec![(1, u64::MAX - 23)], 16 + 16 + 8),
            (vec![(1, 64)], 16 + 16 + 8),
        ] {
            let (_folder, path) = file(&objects, size);
            let message = check(&path, 0).unwrap_err().to_string();
            assert!(message.contains("global heap at byte 21, object at byte"), "{objects:?}: {message}");
        }
    }

    #[test]
    fn collection_that_ends_beyond_the_file_is_left_to_the_library() {
        let (_folder, path) = file(&[(1, 5)], 1 << 40);
        check(&path, 0).unwrap();
    }

    #[test]
    fn signature_across_a_border_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for at in PIECE - 6..PIECE + 2 {
            let mut bytes = vec![b'G'; PIECE + 100];
            bytes[at..at + 5].copy_from_slice(SIGNATURE);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(collections(&mut File::open(&path).unwrap()).unwrap(), [at as u64]);
        }
    }
}
