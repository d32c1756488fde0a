//! N-TIDIGITS and DVS Gesture, from files made here: conversion, and what is refused.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hdf5::types::{FixedAscii, VarLenUnicode};
use snn_core::Map;
use snn_data::{
    DownloadOptions, Error, OpenOptions, Progress, Result, Sample, Silent, Source, SourceKind, convert, download, open,
};

/// Keeps the notes of a conversion.
#[derive(Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn start(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _amount: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

/// Fetches files as a non-standard copy and converts them.
fn converted(set: &str, files: &[(&str, Vec<u8>)]) -> Result<(tempfile::TempDir, OpenOptions, Notes)> {
    let (data, mirror) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, bytes) in files {
        std::fs::write(mirror.path().join(name), bytes).unwrap();
    }
    let options = DownloadOptions {
        data_dir: data.path().to_owned(),
        mirror: Some(mirror.path().to_str().unwrap().to_owned()),
        accept_nonstandard: true,
        ..DownloadOptions::default()
    };
    download(set, &options, &mut Silent)?;
    let mut notes = Notes::default();
    convert(set, data.path(), &mut notes)?;
    let options = OpenOptions { data_dir: data.path().to_owned(), ..OpenOptions::default() };
    Ok((data, options, notes))
}

fn refused(set: &str, files: &[(&str, Vec<u8>)]) -> String {
    match converted(set, files) {
        Err(error @ Error::Malformed { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{set} was converted"),
    }
}

fn read(source: &dyn Source, index: usize) -> Sample {
    let mut sample = Sample::default();
    source.read(index, &mut sample).unwrap();
    sample
}

fn tar_gz(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A table of events with times in milliseconds.
fn table(events: &[[f32; 4]]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 4), }}", events.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(events.iter().flatten().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[test]
fn gestures_are_read_from_tables() {
    let train = tar_gz(&[
        ("ibmGestureTrain/user01_led/3.npy", table(&[[5.0, 2.0, 1.0, 0.0], [127.0, 0.0, 0.0, 1250.0]])),
        ("ibmGestureTrain/user01_led/10.npy", table(&[[500.0, 2.0, 1.0, 0.0]])),
        ("ibmGestureTrain/readme.txt", b"hello".to_vec()),
        ("ibmGestureTrain/user02_lab/0.npy", table(&[[0.0, 1.0, 0.0, 7.0]])),
    ]);
    let test = tar_gz(&[("ibmGestureTest/user24_led/9.npy", table(&[[0.0, 0.0, 0.0, 0.0]]))]);
    let files = [("ibmGestureTrain.tar.gz", train), ("ibmGestureTest.tar.gz", test)];
    let (_data, options, notes) = converted("dvs-gesture", &files).unwrap();
    let source = open("dvs-gesture", "train", &options).unwrap();
    assert_eq!((source.len(), source.classes()), (2, 10));
    assert_eq!(source.kind(), SourceKind::Events { units: 32_768, sensor: Some(Map::new(128, 128, 2)) });
    let sample = read(&*source, 0);
    assert_eq!((sample.label, sample.units, sample.times), (3, vec![5 + 256 + 16_384, 127], vec![0.0, 1.25]));
    assert_eq!(read(&*source, 1).label, 0);
    assert!(notes.0.iter().any(|n| n.contains("dvs-gesture/train: the reader of this format is experimental")));
    assert!(notes.0.iter().any(|n| n.contains("skipped ibmGestureTrain/readme.txt, no gesture")));
}

#[test]
fn broken_tables_and_archives_of_gestures_are_refused() {
    let good = || ("ibmGestureTest.tar.gz", tar_gz(&[("a/1.npy", table(&[[0.0; 4]]))]));
    let whole = tar_gz(&[("a/1.npy", table(&[[0.0; 4], [1.0; 4]]))]);
    for (train, want) in [
        (whole[..whole.len() - 20].to_vec(), "ibmGestureTrain.tar.gz"),
        (tar_gz(&[("a/12.npy", table(&[[0.0; 4]]))]), "entry \"a/12.npy\": another name"),
        (tar_gz(&[("a/1.npy", b"none".to_vec())]), "a/1.npy: npy header: no npy signature"),
        (tar_gz(&[("a/1.npy", table(&[]))]), "a/1.npy: 0 rows of 4 columns"),
        (tar_gz(&[("a/1.npy", table(&[[0.0; 4]])[..60].to_vec())]), "a/1.npy: npy header"),
        (tar_gz(&[("a/1.npy", table(&[[0.0, 0.0, 0.0, f32::NAN]]))]), "event 0: NaN ms after 0 ms"),
        (tar_gz(&[("a/1.npy", table(&[[0.0, 128.0, 0.0, 0.0]]))]), "event 0: x 0, y 128"),
        (tar_gz(&[("a/10.npy", table(&[[0.0; 4]]))]), "no gestures"),
    ] {
        let got = refused("dvs-gesture", &[("ibmGestureTrain.tar.gz", train), good()]);
        assert!(got.contains(want), "{got} is not {want}");
    }
}

/// A recording of events one microsecond apart, from `first_us` on.
fn recording(first_us: i32, events: &[(u32, u32, u32)]) -> Vec<u8> {
    let mut bytes = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n".to_vec();
    bytes.extend([1_i16, 0].iter().flat_map(|n| n.to_le_bytes()));
    let count = events.len() as i32;
    bytes.extend([8, 4, 0, count, count, count].iter().flat_map(|n| n.to_le_bytes()));
    for (at, (x, y, polarity)) in (first_us..).zip(events) {
        bytes.extend((1 | polarity << 1 | y << 2 | x << 17).to_le_bytes());
        bytes.extend(at.to_le_bytes());
    }
    bytes
}

fn recordings(labels: &str) -> Vec<u8> {
    let events = [(1, 0, 0), (2, 0, 1), (3, 0, 0), (4, 0, 0)];
    tar_gz(&[
        ("DvsGesture/user01_led.aedat", recording(100, &events)),
        ("DvsGesture/user24_led.aedat", recording(100, &events)),
        ("DvsGesture/user01_led_labels.csv", labels.as_bytes().to_vec()),
        ("DvsGesture/user24_led_labels.csv", b"class,start,end\n10,100,104\n".to_vec()),
        ("DvsGesture/trials_to_train.txt", b"user01_led.aedat\n".to_vec()),
        ("DvsGesture/trials_to_test.txt", b"user24_led.aedat\r\n\r\n".to_vec()),
    ])
}

#[test]
fn gestures_are_cut_out_of_recordings() {
    let archive = recordings("class,startTime_usec,endTime_usec\n2,101,103\n11,103,200\n");
    let (_data, options, _) = converted("dvs-gesture", &[("DvsGesture.tar.gz", archive)]).unwrap();
    let source = open("dvs-gesture", "train", &options).unwrap();
    let sample = read(&*source, 0);
    assert_eq!((source.len(), sample.label, sample.units), (1, 1, vec![2 + 16_384, 3]));
    assert_eq!(sample.times, [0.0, 1e-6]);
    let test = open("dvs-gesture", "test", &options).unwrap();
    assert_eq!((test.len(), read(&*test, 0).label, read(&*test, 0).units.len()), (1, 9, 4));
}

#[test]
fn broken_recordings_of_gestures_are_refused() {
    let archive = recordings("12,101,103\n");
    let got = refused("dvs-gesture", &[("DvsGesture.tar.gz", archive)]);
    assert!(got.contains("DvsGesture/user01_led_labels.csv: line 1: \"12,101,103\""), "{got}");
    for (entries, want) in [
        (vec![("user01.aedat", recording(0, &[(0, 0, 0)]))], "no entry trials_to_train.txt"),
        (
            vec![("user01.aedat", recording(0, &[(0, 0, 0)])), ("trials_to_train.txt", b"user01.aedat".to_vec())],
            "no entry user01_labels.csv",
        ),
        (
            vec![
                ("user01.aedat", recording(0, &[(0, 0, 0)])[..50].to_vec()),
                ("user01_labels.csv", b"1,0,9".to_vec()),
                ("trials_to_train.txt", b"user01.aedat".to_vec()),
            ],
            "user01.aedat: byte 28: 22 bytes left, expected a packet header of 28 bytes",
        ),
        (
            vec![
                ("user01.aedat", recording(0, &[(0, 200, 0)])),
                ("user01_labels.csv", b"1,0,9".to_vec()),
                ("trials_to_train.txt", b"user01.aedat".to_vec()),
            ],
            "x 0, y 200",
        ),
    ] {
        let got = refused("dvs-gesture", &[("DvsGesture.tar.gz", tar_gz(&entries))]);
        assert!(got.contains(want), "{got} is not {want}");
    }
}

/// Names, times and channels of the samples of both splits.
fn digits(samples: &[(&str, &[f64], &[i16])], change: impl Fn(&hdf5::File)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.hdf5");
    let file = hdf5::File::create(&path).unwrap();
    for split in ["train", "test"] {
        let names: Vec<FixedAscii<24>> = samples.iter().map(|s| FixedAscii::from_ascii(s.0).unwrap()).collect();
        file.new_dataset_builder().with_data(&names).create(format!("{split}_labels").as_str()).unwrap();
        for part in ["timestamps", "addresses"] {
            file.create_group(&format!("{split}_{part}")).unwrap();
        }
        for (name, times, units) in samples.iter().filter(|s| !s.0.contains('/')) {
            let times_at = format!("{split}_timestamps/{name}");
            file.new_dataset_builder().with_data(*times).create(times_at.as_str()).unwrap();
            let units_at = format!("{split}_addresses/{name}");
            file.new_dataset_builder().with_data(*units).create(units_at.as_str()).unwrap();
        }
    }
    change(&file);
    file.close().unwrap();
    std::fs::read(path).unwrap()
}

const SOUND: [(&str, &[f64], &[i16]); 5] = [
    ("man-ae-a-1", &[0.0, 0.25], &[63, 0]),
    ("man-ae-a-19", &[0.5], &[99]),
    ("man-ae-b-z", &[0.5], &[1]),
    ("woman-xx-a-o", &[], &[]),
    ("woman-xx-a-9", &[1.5], &[2]),
];

fn replace<T: hdf5::H5Type>(file: &hdf5::File, place: &str, values: &[T]) {
    file.unlink(place).unwrap();
    file.new_dataset_builder().with_data(values).create(place).unwrap();
}

#[test]
fn isolated_digits_are_read() {
    let (_data, options, notes) = converted("n-tidigits", &[("n-tidigits.hdf5", digits(&SOUND, |_| {}))]).unwrap();
    let source = open("n-tidigits", "test", &options).unwrap();
    assert_eq!(source.kind(), SourceKind::Events { units: 64, sensor: None });
    assert_eq!((source.len(), source.classes(), source.class_names()[10].as_str()), (4, 11, "o"));
    let sample = read(&*source, 0);
    assert_eq!((sample.label, sample.units, sample.times), (1, vec![63, 0], vec![0.0, 0.25]));
    assert_eq!([1, 2, 3].map(|i| read(&*source, i).label), [0, 10, 9]);
    assert!(notes.0.iter().any(|n| n.contains("experimental")), "{:?}", notes.0);
}

#[test]
fn digits_of_other_number_and_string_types_are_read() {
    let other = |file: &hdf5::File| {
        let names: Vec<VarLenUnicode> = SOUND.iter().map(|s| s.0.parse().unwrap()).collect();
        replace(file, "train_labels", &names);
        replace(file, "train_timestamps/man-ae-a-1", &[0.0_f32, 0.25]);
        replace(file, "train_addresses/man-ae-a-1", &[63_u64, 0]);
    };
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&digits(&SOUND, other)).unwrap();
    let (data, options, _) = converted("n-tidigits", &[("n-tidigits.hdf5.gz", packed.finish().unwrap())]).unwrap();
    assert_eq!(read(&*open("n-tidigits", "train", &options).unwrap(), 0).units, [63, 0]);
    let left = std::fs::read_dir(data.path().join("h5")).unwrap().count();
    assert_eq!(left, 2, "the unpacked file is gone");
}

#[test]
fn broken_files_of_digits_are_refused() {
    let sound = digits(&SOUND, |_| {});
    let error = |bytes: Vec<u8>| refused("n-tidigits", &[("n-tidigits.hdf5", bytes)]);
    assert!(error(b"not hdf5".to_vec()).contains("n-tidigits.hdf5: signature"), "no signature");
    assert!(error(sound[..sound.len() / 2].to_vec()).contains("n-tidigits.hdf5"), "truncated");
    type Change<'a> = &'a dyn Fn(&hdf5::File);
    let first = "train_timestamps/man-ae-a-1";
    let cases: [(&str, Change<'_>); 12] = [
        ("/train_labels: missing", &|f| f.unlink("train_labels").unwrap()),
        ("/train_timestamps/man-ae-a-1: missing", &|f| f.unlink(first).unwrap()),
        ("/train_addresses/man-ae-b-z: missing", &|f| f.unlink("train_addresses/man-ae-b-z").unwrap()),
        ("/train_addresses/man-ae-a-1: missing", &|f| f.unlink("train_addresses").unwrap()),
        ("/train_labels: type", &|f| replace(f, "train_labels", &[1_u8])),
        ("/train_timestamps/man-ae-a-1: type int64, expected real numbers", &|f| replace(f, first, &[0_i64, 1])),
        ("/train_timestamps/man-ae-a-1: NaN s after 0 s at event 1", &|f| replace(f, first, &[0.0, f64::NAN])),
        ("/train_timestamps/man-ae-a-1: 0.25 s after 0.5 s at event 1", &|f| replace(f, first, &[0.5, 0.25])),
        ("/train_timestamps/man-ae-a-1: -1 s after 0 s at event 0", &|f| replace(f, first, &[-1.0, 0.25])),
        ("/train_addresses/man-ae-a-1: 2 channels, expected 3, as many as times", &|f| {
            replace(f, first, &[0.0, 0.1, 0.2]);
        }),
        ("/train_addresses/man-ae-a-1: channel 64 at event 1, expected 0..=63", &|f| {
            replace(f, "train_addresses/man-ae-a-1", &[0, 64]);
        }),
        ("/train_timestamps/man-ae-a-1: shape [4398046511104], expected one axis, and no more than", &|f| {
            f.unlink(first).unwrap();
            f.new_dataset::<f64>().shape((1_usize << 42..,)).chunk([1024]).create(first).unwrap();
        }),
    ];
    for (want, change) in cases {
        let got = error(digits(&SOUND, change));
        assert!(got.contains(want), "{got} is not {want}");
    }
    for (name, want) in [
        ("man-a-x", "name \"man-a-x\", expected one of z, 1"),
        ("../1", "expected the name of a dataset"),
        ("man-19", "no isolated digits"),
    ] {
        let got = error(digits(&[(name, &[], &[])], |_| {}));
        assert!(got.contains(want), "{got} is not {want}");
    }
}
