//! Damaged HDF5 files end in an error or in other numbers, but they end.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use snn_data::{OpenOptions, Sample, Silent, open, open_file, write_vlen};

/// A small file with rows of variable length, as bytes.
fn sound() -> Vec<u8> {
    let source = open("spoken-digits", "train", &OpenOptions { samples: Some(6), ..OpenOptions::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.h5");
    write_vlen(&*source, &path, &mut Silent).unwrap();
    std::fs::read(path).unwrap()
}

/// Reads everything; gives the number of samples that could be read.
fn read_all(path: &Path) -> usize {
    let Ok(source) = open_file(path, &OpenOptions::default()) else { return 0 };
    let mut sample = Sample::default();
    (0..source.len()).filter(|&i| source.read(i, &mut sample).is_ok()).count()
}

/// Reads on another thread; panics if that does not end.
fn read_in_time(path: PathBuf) -> usize {
    let (send, receive) = channel();
    std::thread::spawn({
        let path = path.clone();
        move || send.send(read_all(&path))
    });
    // A sound file takes a millisecond.
    receive.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Where the objects of the global heaps have their headers.
fn object_headers(bytes: &[u8]) -> Vec<usize> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let mut headers = Vec::new();
    for start in (0..bytes.len() - 16).filter(|&i| bytes[i..].starts_with(b"GCOL\x01")) {
        let (mut at, end) = (start + 16, start + number(start + 8));
        while at + 16 <= end {
            headers.push(at);
            let size = number(at + 8);
            at += if bytes[at..at + 2] == [0, 0] { size } else { 16 + size.next_multiple_of(8) };
        }
    }
    headers
}

fn cases() -> u32 {
    if std::env::var_os("SNN_SLOW_TESTS").is_some() { 10_000 } else { 200 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_hang(
        anywhere in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..4),
        heap in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..16, 1_u8..), 0..3),
    ) {
        static SOUND: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(sound);
        let mut bytes = SOUND.clone();
        let headers = object_headers(&bytes);
        for (at, flip) in anywhere {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        for (header, offset, flip) in heap {
            bytes[headers[header.index(headers.len())] + offset] ^= flip;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped.h5");
        std::fs::write(&path, bytes).unwrap();
        read_in_time(path);
    }
}

#[test]
fn sound_file_is_read_and_a_looping_heap_is_named() {
    let bytes = sound();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.h5");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_in_time(path.clone()), 6);
    for (what, size) in [("nothing", 0_u64), ("all", u64::MAX - 15)] {
        for (i, header) in object_headers(&bytes).into_iter().enumerate() {
            let mut bytes = bytes.clone();
            bytes[header..header + 2].copy_from_slice(&[u8::from(size > 0), 0]);
            bytes[header + 8..header + 16].copy_from_slice(&size.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
            let error =
                open_file(&path, &OpenOptions::default()).err().unwrap_or_else(|| panic!("{what}, {i}")).to_string();
            assert!(error.contains("global heap at byte"), "{what}, {i}: {error}");
        }
    }
}

#[test]
fn leftovers_of_a_killed_conversion_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.h5");
    let old = std::time::SystemTime::now() - Duration::from_secs(100_000);
    let make = |name: &str, age: bool| {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        if age {
            file.set_modified(old).unwrap();
        }
        path
    };
    let dead = make("words.h5.tmp-4194304999-0", true);
    let kept =
        [make("words.h5.tmp-4194304999-1", false), make("words.h5.tmp-notes", true), make("other.h5.tmp-1-0", true)];
    let source = open("spoken-digits", "train", &OpenOptions { samples: Some(2), ..OpenOptions::default() }).unwrap();
    snn_data::materialise(&*source, &path, &mut Silent).unwrap();
    assert!(!dead.exists(), "its process is long gone");
    for file in kept {
        assert!(file.exists(), "{}", file.display());
    }
}
