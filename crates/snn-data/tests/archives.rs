//! Hostile and damaged archives, made here, are refused with an error that says what is wrong.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use snn_data::Error;
use snn_data::archive::{Limits, Zip, open_unpacked, visit_tar};
use zip::write::SimpleFileOptions;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn unpack(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    open_unpacked(path).unwrap().read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn gzip_is_known_by_its_bytes_and_may_have_several_members() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&put(&folder, "plain.gz", b"hello")).unwrap(), b"hello");
    let two = [gzip(b"hel"), gzip(b"lo")].concat();
    assert_eq!(unpack(&put(&folder, "packed", &two)).unwrap(), b"hello");
    assert_eq!(unpack(&put(&folder, "empty", b"")).unwrap(), b"");
}

#[test]
fn damaged_gzip_is_an_error_never_a_short_read() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..5000_u32).map(|i| (i * i % 251) as u8).collect();
    let sound = gzip(&data);
    for cut in [1, 4, 8, 9, 100, sound.len() - 11] {
        let path = put(&folder, "cut.gz", &sound[..sound.len() - cut]);
        assert!(unpack(&path).is_err(), "{cut} bytes cut off");
    }
    for (name, from_end) in [("crc", 8), ("length", 4)] {
        let mut wrong = sound.clone();
        let at = wrong.len() - from_end;
        wrong[at] ^= 1;
        assert!(unpack(&put(&folder, name, &wrong)).is_err(), "wrong {name}");
    }
    for tail in [&b"x"[..], b"trailing garbage of more than ten bytes", &[0x1F, 0x8B]] {
        let path = put(&folder, "tail.gz", &[&sound[..], tail].concat());
        assert!(unpack(&path).is_err(), "garbage {tail:?}");
    }
}

fn zip_of(entries: &[(&str, &[u8], SimpleFileOptions)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes, options) in entries {
        writer.start_file(*name, *options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn open_zip(bytes: &[u8], limits: Limits) -> snn_data::Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().unwrap();
    let mut zip = Zip::open(&put(&folder, "a.zip", bytes), limits)?;
    zip.files().to_vec().into_iter().map(|(name, at)| Ok((name, zip.read(at)?))).collect()
}

fn refusal<T: std::fmt::Debug>(result: snn_data::Result<T>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_sound_zip_gives_its_files() {
    let plain = SimpleFileOptions::default();
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_directory("Train/", plain).unwrap();
    writer.start_file("Train/1/00001.bin", plain).unwrap();
    writer.write_all(b"abc").unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let files = open_zip(&bytes, Limits::default()).unwrap();
    assert_eq!(files, [("Train/1/00001.bin".to_owned(), b"abc".to_vec())]);
}

/// The names are written over in both headers, for the writer makes no such names itself.
#[test]
fn names_that_could_leave_the_folder_are_refused() {
    for (name, reason) in [
        ("/etc/xx", "an absolute name"),
        ("../../x", "a name with a `..` component"),
        ("a/../bb", "a name with a `..` component"),
        ("a\\..\\bb", "a name with a backslash"),
        ("C:/temp", "an absolute name"),
        ("ab\0cdef", "a name with a NUL"),
    ] {
        let stand_in = "q".repeat(name.len());
        let mut bytes = zip_of(&[(stand_in.as_str(), b"x", SimpleFileOptions::default())]);
        for at in 0..bytes.len() - name.len() {
            if bytes[at..].starts_with(stand_in.as_bytes()) {
                bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
        }
        let text = refusal(open_zip(&bytes, Limits::default()));
        assert!(text.contains(reason), "{name:?}: {text}");
    }
}

#[test]
fn links_in_a_zip_are_refused() {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_symlink("Train/1/00001.bin", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert!(refusal(open_zip(&bytes, Limits::default())).contains("a link or a device"));
}

#[test]
fn entries_are_limited_by_the_bytes_that_come_out() {
    let bytes =
        zip_of(&[("a", &[0; 60_000], SimpleFileOptions::default()), ("b", &[0; 60_000], SimpleFileOptions::default())]);
    assert_eq!(open_zip(&bytes, Limits { entry: 60_000, total: 120_000 }).unwrap().len(), 2);
    let text = refusal(open_zip(&bytes, Limits { entry: 59_999, total: 1 << 30 }));
    assert!(text.contains("entry \"a\": more than 59999 bytes"), "{text}");
    let text = refusal(open_zip(&bytes, Limits { entry: 60_000, total: 119_999 }));
    assert!(text.contains("entry \"b\": more than 59999 bytes"), "{text}");

    // The header may claim any size: only what comes out counts.
    let mut lying = bytes;
    let size = 60_000_u32.to_le_bytes();
    for at in 0..lying.len() - 4 {
        if lying[at..].starts_with(&size) {
            lying[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
        }
    }
    if let Ok(files) = open_zip(&lying, Limits { entry: 100, total: 100 }) {
        panic!("read {} files", files.len());
    }
}

#[test]
fn damaged_zips_are_refused() {
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let sound = zip_of(&[("Train/1/1.bin", b"twelve bytes", stored)]);
    for cut in [1, 10, 22, 40] {
        refusal(open_zip(&sound[..sound.len() - cut], Limits::default()));
    }
    refusal(open_zip(b"", Limits::default()));
    refusal(open_zip(b"PK\x03\x04 not really", Limits::default()));
    let mut flipped = sound;
    let at = flipped.windows(12).position(|w| w == b"twelve bytes").unwrap();
    flipped[at] ^= 1;
    assert!(open_zip(&flipped, Limits::default()).is_err(), "the CRC is checked");
}

fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        // The builder refuses such names; the header's bytes do not.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn open_tar(bytes: &[u8], limits: Limits) -> snn_data::Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    visit_tar(&put(&folder, "a.tar.gz", bytes), limits, |name, bytes| {
        files.push((name.to_owned(), bytes));
        Ok(())
    })?;
    Ok(files)
}

#[test]
fn a_sound_tar_gives_its_files_packed_or_not() {
    use tar::EntryType::{Directory, Regular};
    let bytes = tar_of(&[("a/", Directory, b""), ("a/b.bin", Regular, b"abc"), ("c", Regular, &[7; 1000])]);
    let want = [("a/b.bin".to_owned(), b"abc".to_vec()), ("c".to_owned(), vec![7; 1000])];
    assert_eq!(open_tar(&bytes, Limits::default()).unwrap(), want);
    assert_eq!(open_tar(&gzip(&bytes), Limits::default()).unwrap(), want);
}

#[test]
fn hostile_tars_are_refused() {
    use tar::EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
    for name in ["/etc/x", "../x", "a/../../x", "a\\b", "c:/x"] {
        let bytes = tar_of(&[(name, Regular, b"x")]);
        assert!(refusal(open_tar(&bytes, Limits::default())).contains("a plain relative name"), "{name}");
    }
    for kind in [Symlink, Link, Char, Block, Fifo] {
        let bytes = tar_of(&[("a", kind, b"")]);
        assert!(refusal(open_tar(&bytes, Limits::default())).contains("a plain file or a folder"), "{kind:?}");
    }
    let bytes = tar_of(&[("a", Regular, &[0; 2000]), ("b", Regular, &[0; 2000])]);
    assert!(refusal(open_tar(&bytes, Limits { entry: 1999, total: 9999 })).contains("more than 1999 bytes"));
    assert!(refusal(open_tar(&bytes, Limits { entry: 2000, total: 3000 })).contains("more than 1000 bytes"));
}

#[test]
fn damaged_tars_are_refused() {
    use tar::EntryType::Regular;
    let bytes = tar_of(&[("a", Regular, &[1; 2000])]);
    let text = refusal(open_tar(&bytes[..512 + 700], Limits::default()));
    assert!(text.contains("700 bytes, expected 2000 bytes"), "{text}");
    refusal(open_tar(&bytes[..300], Limits::default()));
    let mut wrong = bytes.clone();
    wrong[150] ^= 1;
    refusal(open_tar(&wrong, Limits::default()));
    // The archive ends well before the gzip stream around it does: its CRC is checked all the same.
    let mut packed = gzip(&bytes);
    let at = packed.len() - 8;
    packed[at] ^= 1;
    refusal(open_tar(&packed, Limits::default()));
    let mut trailing = gzip(&bytes);
    trailing.extend_from_slice(b"trailing garbage");
    refusal(open_tar(&trailing, Limits::default()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..400, flip: u8) {
        let _ = open_zip(&bytes, Limits::default());
        let _ = open_tar(&bytes, Limits::default());
        // A sound archive with one byte changed comes closer to being read.
        let mut zip = zip_of(&[("1/1.bin", b"abcdefgh", SimpleFileOptions::default())]);
        let len = zip.len();
        zip[at % len] ^= flip;
        let _ = open_zip(&zip, Limits { entry: 1 << 16, total: 1 << 16 });
        let mut tar = tar_of(&[("a", tar::EntryType::Regular, b"abcdefgh")]);
        tar[at] ^= flip;
        let _ = open_tar(&tar, Limits { entry: 1 << 16, total: 1 << 16 });
    }
}
