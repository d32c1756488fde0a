//! Conversion of every format, from fixtures made here, and what the converted files refuse.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use half::f16;
use hdf5::types::{FixedAscii, VarLenArray, VarLenUnicode};
use snn_core::Map;
use snn_data::formats::nmnist::Order;
use snn_data::formats::shd::ShdFile;
use snn_data::registry::DataSet;
use snn_data::store::{convert_set, converted_path};
use snn_data::{
    DownloadOptions, Error, OpenOptions, Result, Sample, Silent, Source, SourceKind, convert, download, info,
    materialise, open, open_file, write_vlen,
};

/// A data folder and a mirror folder with fixtures.
struct Home {
    data: tempfile::TempDir,
    mirror: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), mirror: tempfile::tempdir().unwrap() }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.mirror.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { data_dir: self.data.path().to_owned(), ..OpenOptions::default() }
    }

    /// Fetches from the mirror, as a non-standard copy.
    fn fetch(&self, set: &str) {
        let options = DownloadOptions {
            data_dir: self.data.path().to_owned(),
            mirror: Some(self.mirror.path().to_str().unwrap().to_owned()),
            accept_nonstandard: true,
            ..DownloadOptions::default()
        };
        download(set, &options, &mut Silent).unwrap();
    }

    fn label(&self) -> String {
        self.mirror.path().file_name().unwrap().to_str().unwrap().to_owned()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An IDX file of `n` images whose pixels are `pixel(image, row, column)`.
fn idx_images(n: u32, pixel: impl Fn(u32, u32, u32) -> u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    bytes.extend([n, 28, 28].iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend((0..n * 784).map(|i| pixel(i / 784, i % 784 / 28, i % 28)));
    bytes
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend((labels.len() as u32).to_be_bytes());
    bytes.extend_from_slice(labels);
    bytes
}

fn read(source: &dyn Source, index: usize) -> Sample {
    let mut sample = Sample::default();
    source.read(index, &mut sample).unwrap();
    sample
}

fn mnist(home: &Home) {
    let ramp = |i, r, c| (i * 100 + r + c) as u8;
    home.put("train-images-idx3-ubyte.gz", &gzip(&idx_images(2, ramp)));
    // One of the four is not packed at all.
    home.put("train-labels-idx1-ubyte", &idx_labels(&[3, 9]));
    home.put("t10k-images-idx3-ubyte.gz", &gzip(&idx_images(1, ramp)));
    home.put("t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[0])));
}

#[test]
fn idx_sets_convert_on_opening_and_keep_their_label() {
    let home = Home::new();
    mnist(&home);
    let missing = open("mnist", "train", &home.options()).unwrap_err();
    assert!(matches!(missing, Error::NotDownloaded { .. }));
    assert!(missing.to_string().contains("fetch it with `snn data download mnist`"), "{missing}");

    home.fetch("mnist");
    for memory in [0, 1 << 20] {
        let source = open("mnist", "train", &OpenOptions { memory, ..home.options() }).unwrap();
        assert_eq!((source.name(), source.len(), source.classes()), ("mnist/train", 2, 10));
        assert_eq!(source.kind(), SourceKind::Images(Map::new(28, 28, 1)));
        assert_eq!(source.label(), Some(home.label().as_str()));
        for _ in 0..2 {
            let sample = read(&*source, 1);
            assert_eq!((sample.label, sample.pixels[28 * 3 + 4]), (9, 107));
        }
        let beyond = source.read(2, &mut Sample::default()).unwrap_err();
        assert_eq!(beyond.to_string(), "sample 2 of mnist/train: there are 2 samples");
    }
    let all = info("mnist", home.data.path()).unwrap();
    assert_eq!((all[0].published, all[0].samples, all[0].downloaded), (60_000, Some(2), true));
    assert_eq!((all[1].converted.clone(), all[1].downloaded), (None, true));
    assert_eq!(all[0].label, Some(home.label()));
    let unknown = open("mnist", "valid", &home.options()).unwrap_err().to_string();
    assert_eq!(unknown, "data set `mnist` has no split `valid`, it has `train`, `test`");
}

#[test]
fn files_that_nobody_accepted_are_not_converted() {
    let home = Home::new();
    mnist(&home);
    home.fetch("mnist");
    let file = home.data.path().join("downloads/mnist/t10k-labels-idx1-ubyte.gz");
    std::fs::write(&file, gzip(&idx_labels(&[1]))).unwrap();
    let error = open("mnist", "test", &home.options()).unwrap_err();
    assert!(matches!(&error, Error::Checksum { file: f, .. } if *f == file), "{error}");
    assert!(!converted_path(home.data.path(), "mnist", "test").exists());
}

#[test]
fn a_split_is_converted_again_when_its_files_have_changed() {
    let home = Home::new();
    mnist(&home);
    home.fetch("mnist");
    assert_eq!(read(&*open("mnist", "test", &home.options()).unwrap(), 0).label, 0);
    std::fs::remove_dir_all(home.data.path().join("downloads")).unwrap();
    assert_eq!(read(&*open("mnist", "test", &home.options()).unwrap(), 0).label, 0, "the converted file is enough");
    home.put("t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[7])));
    home.fetch("mnist");
    assert_eq!(read(&*open("mnist", "test", &home.options()).unwrap(), 0).label, 7);
}

#[test]
fn damaged_files_leave_no_converted_file() {
    let home = Home::new();
    mnist(&home);
    home.put("t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[10])));
    home.fetch("mnist");
    let error = open("mnist", "test", &home.options()).unwrap_err().to_string();
    assert!(error.contains("t10k-labels-idx1-ubyte: label 0: 10, expected 0..=9"), "{error}");
    let left = std::fs::read_dir(home.data.path().join("h5")).unwrap().count();
    assert_eq!(left, 0, "not even a temporary one");
}

#[test]
fn emnist_is_made_upright_and_labels_begin_at_zero() {
    let home = Home::new();
    let ramp = |_, r, c| (r * 5 + c) as u8;
    let entries = |split: &str, label: u8| {
        [
            (format!("gzip/emnist-letters-{split}-images-idx3-ubyte.gz"), gzip(&idx_images(1, ramp))),
            (format!("gzip/emnist-letters-{split}-labels-idx1-ubyte.gz"), gzip(&idx_labels(&[label]))),
        ]
    };
    home.put("gzip.zip", &zip_of(&[entries("train", 26), entries("test", 1)].concat()));
    home.fetch("emnist-letters");
    let source = open("emnist-letters", "train", &home.options()).unwrap();
    let sample = read(&*source, 0);
    assert_eq!((sample.label, source.classes(), source.class_names()[25].as_str()), (25, 26, "z"));
    assert_eq!(sample.pixels[28 + 2], 2 * 5 + 1, "row 1, column 2 was stored at column 1, row 2");
    let other = open("emnist-digits", "train", &home.options()).unwrap_err().to_string();
    assert!(other.contains("no entry emnist-digits-train-images-idx3-ubyte"), "{other}");
}

fn cifar_file(records: &[(u8, u8)]) -> Vec<u8> {
    records
        .iter()
        .flat_map(|&(label, red)| [vec![label], vec![red; 1024], vec![50; 1024], vec![60; 1024]].concat())
        .collect()
}

#[test]
fn cifar_is_read_loose_or_from_its_archive() {
    let check = |home: &Home| {
        let source = open("cifar10", "train", &home.options()).unwrap();
        assert_eq!((source.len(), source.kind()), (5, SourceKind::Images(Map::new(32, 32, 3))));
        let sample = read(&*source, 3);
        assert_eq!((sample.label, &sample.pixels[..4]), (3, &[103, 50, 60, 103][..]));
    };
    let batch = |i: u8| cifar_file(&[(i, 100 + i)]);
    let loose = Home::new();
    for i in 0..5 {
        loose.put(&format!("data_batch_{}.bin.gz", i + 1), &gzip(&batch(i)));
    }
    loose.put("test_batch.bin", &batch(9));
    loose.fetch("cifar10");
    check(&loose);

    let packed = Home::new();
    let mut tar = tar::Builder::new(Vec::new());
    // Not in order, as in the published archive.
    for (name, bytes) in [
        ("test_batch.bin", batch(9)),
        ("data_batch_3.bin", batch(2)),
        ("data_batch_1.bin", batch(0)),
        ("data_batch_2.bin", batch(1)),
        ("data_batch_5.bin", batch(4)),
        ("data_batch_4.bin", batch(3)),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &bytes[..]).unwrap();
    }
    packed.put("cifar-10-binary.tar.gz", &gzip(&tar.into_inner().unwrap()));
    packed.fetch("cifar10");
    check(&packed);
    assert_eq!(read(&*open("cifar10", "test", &packed.options()).unwrap(), 0).label, 9);
}

/// The digest says it is the published file, the count that it cannot be: the registry and the file disagree.
#[test]
fn a_published_file_with_another_count_is_refused() {
    let home = Home::new();
    let bytes = cifar_file(&[(1, 1), (2, 2)]);
    let folder = home.data.path().join("downloads/toy");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("data.bin"), &bytes).unwrap();
    let digest: String = <md5::Md5 as md5::Digest>::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let set = |samples: usize| -> DataSet {
        toml::from_str(&format!(
            r#"
            name = "toy"
            title = "A toy"
            folder = "toy"
            format = "cifar10"
            licence = "none"
            homepage = "none"
            class_count = 10
            splits = [{{ name = "train", samples = {samples}, parts = ["data.bin"] }}]
            [[group]]
            files = [{{ name = "data.bin", digests = ["md5:{digest}"] }}]
            "#
        ))
        .unwrap()
    };
    let error = convert_set(&set(10_000), home.data.path(), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("data.bin: samples: 2, expected 10000 in the published set"), "{error}");
    let path = convert_set(&set(2), home.data.path(), &mut Silent).unwrap().remove(0);
    assert_eq!(open_file(&path, &home.options()).unwrap().label(), None);
}

#[test]
fn nmnist_comes_in_the_order_of_mnist() {
    let home = Home::new();
    let event = |x: u8| vec![x, 1, 0x80, 0, 7, x, 2, 0, 0, 9];
    let entries = |split: &str| {
        vec![
            (format!("{split}/3/00002.bin"), event(20)),
            (format!("{split}/3/readme.txt"), b"skipped".to_vec()),
            (format!("{split}/8/00001.bin"), event(10)),
        ]
    };
    home.put("Train.zip", &zip_of(&entries("Train")));
    home.put("Test.zip", &zip_of(&entries("Test")));
    home.fetch("nmnist");
    let source = open("nmnist", "train", &home.options()).unwrap();
    assert_eq!(source.kind(), SourceKind::Events { units: 2312, sensor: Some(Map::new(34, 34, 2)) });
    let first = read(&*source, 0);
    assert_eq!((first.label, first.units, first.times), (8, vec![10 + 34 + 1156, 10 + 68], vec![7e-6, 9e-6]));
    assert_eq!(read(&*source, 1).label, 3);

    std::fs::remove_file(home.data.path().join("downloads/nmnist/Train.zip")).unwrap();
    std::fs::remove_dir_all(home.data.path().join("h5")).unwrap();
    let lost = open("nmnist", "train", &home.options()).unwrap_err();
    assert!(matches!(lost, Error::NotDownloaded { .. }), "the other split is not taken for it: {lost}");

    let wrong = Home::new();
    wrong.put("Train.zip", &zip_of(&[("Train/12/1.bin".into(), event(1))]));
    wrong.put("Test.zip", &zip_of(&[("Test/1/1.bin".into(), event(40))]));
    wrong.fetch("nmnist");
    let text = |split| open("nmnist", split, &wrong.options()).unwrap_err().to_string();
    assert!(text("train").contains("entry \"Train/12/1.bin\": another name"), "{}", text("train"));
    assert!(text("test").contains("Test/1/1.bin: event 0 at x 40, y 1"), "{}", text("test"));
}

/// The content of an SHD file, to be spoiled in one place.
struct Shd {
    times: Vec<Vec<f32>>,
    units: Vec<Vec<u16>>,
    labels: Vec<u16>,
    keys: bool,
}

impl Default for Shd {
    fn default() -> Self {
        let times = vec![vec![0.0, 0.25, 1.0], vec![], vec![0.5]];
        Self { times, units: vec![vec![0, 699, 5], vec![], vec![7]], labels: vec![0, 1, 2], keys: true }
    }
}

impl Shd {
    fn write(&self, path: &Path) {
        let file = hdf5::File::create(path).unwrap();
        file.create_group("spikes").unwrap();
        let times: Vec<VarLenArray<f16>> = self
            .times
            .iter()
            .map(|t| VarLenArray::from_slice(&t.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()))
            .collect();
        let units: Vec<VarLenArray<u16>> = self.units.iter().map(|u| VarLenArray::from_slice(u)).collect();
        file.new_dataset_builder().with_data(&times).create("spikes/times").unwrap();
        file.new_dataset_builder().with_data(&units).create("spikes/units").unwrap();
        file.new_dataset_builder().with_data(&self.labels).create("labels").unwrap();
        if self.keys {
            file.create_group("extra").unwrap();
            let keys: Vec<FixedAscii<8>> =
                ["null", "eins", "zwei"].iter().map(|k| FixedAscii::from_ascii(k.as_bytes()).unwrap()).collect();
            file.new_dataset_builder().with_data(&keys).create("extra/keys").unwrap();
            file.new_dataset_builder().with_data(&[4_i64, 5, 4]).create("extra/speaker").unwrap();
        }
    }

    /// Opens and reads everything.
    fn read(&self, order: Order) -> Result<Vec<Sample>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.h5");
        self.write(&path);
        let file = ShdFile::open(&path, "x", None, None, order)?;
        let mut all = Vec::new();
        file.for_each(|_, sample| {
            all.push(sample.clone());
            Ok(())
        })?;
        Ok(all)
    }

    fn error(&self) -> String {
        let error = self.read(Order::Strict).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
        error.to_string()
    }
}

#[test]
fn shd_rows_are_read_and_an_empty_sample_is_fine() {
    let all = Shd::default().read(Order::Strict).unwrap();
    assert_eq!((all[0].label, &all[0].units, &all[0].times), (0, &vec![0, 699, 5], &vec![0.0, 0.25, 1.0]));
    assert!(all[1].units.is_empty());
    let bare = Shd { keys: false, ..Shd::default() };
    assert_eq!(bare.read(Order::Strict).unwrap(), all);
}

#[test]
fn shd_files_that_are_wrong_are_refused() {
    let shd = Shd::default;
    let got = Shd { labels: vec![0, 1], ..shd() }.error();
    assert!(got.contains("/spikes/times: 3 samples, expected 2, as many as /labels"), "{got}");
    let got = Shd { units: vec![vec![0], vec![], vec![7]], ..shd() }.error();
    assert!(got.contains("/spikes/units, sample 0: 1 units, expected 3, as many as times"), "{got}");
    let got = Shd { units: vec![vec![0, 700, 5], vec![], vec![7]], ..shd() }.error();
    assert!(got.contains("/spikes/units, sample 0: unit 700, expected 0..=699"), "{got}");
    for wrong in [f32::NAN, f32::INFINITY, -0.5] {
        let got = Shd { times: vec![vec![0.0, 0.25, 1.0], vec![], vec![wrong]], ..shd() }.error();
        assert!(got.contains("/spikes/times, sample 2: time"), "{got}");
    }
    let backwards = || Shd { times: vec![vec![0.5, 0.25, 1.0], vec![], vec![0.5]], ..shd() };
    assert!(backwards().error().contains("/spikes/times, sample 0: 0.25 s after 0.5 s at spike 1"));
    assert_eq!(backwards().read(Order::Sort).unwrap()[0].units, [699, 0, 5]);
    let got = Shd { labels: vec![0, 1, 3], ..shd() }.error();
    assert!(got.contains("/labels: label 3 of sample 2, expected below 3"), "{got}");
}

#[test]
fn hdf5_files_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5");
    let error = || ShdFile::open(&path, "x", None, None, Order::Strict).unwrap_err().to_string();
    std::fs::write(&path, b"not at all").unwrap();
    assert!(error().contains("signature: no HDF5 signature"));
    std::fs::write(&path, b"\x89HDF\r\n\x1a\n").unwrap();
    assert!(error().contains("expected a complete HDF5 file"), "{}", error());

    Shd::default().write(&path);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    error();

    type Make<'a> = &'a dyn Fn(&hdf5::File);
    let rows = |file: &hdf5::File, name: &str| {
        let rows = [VarLenArray::from_slice(&[1_u8])];
        file.new_dataset_builder().with_data(&rows).create(name).unwrap();
    };
    let plain = |file: &hdf5::File, name: &str| {
        file.new_dataset_builder().with_data(&[1.0_f32]).create(name).unwrap();
    };
    let label = |file: &hdf5::File| {
        file.new_dataset_builder().with_data(&[0_u8]).create("labels").unwrap();
    };
    let cases: [(&str, Make<'_>); 5] = [
        ("/labels: missing", &|_| {}),
        ("/spikes/times: missing", &|f| label(f)),
        ("/spikes/units: missing", &|f| {
            label(f);
            rows(f, "spikes/times");
        }),
        ("/spikes/times: type float32, expected variable-length rows of real numbers", &|f| {
            label(f);
            plain(f, "spikes/times");
            rows(f, "spikes/units");
        }),
        ("/spikes/times: rows of uint8, expected variable-length rows of real numbers", &|f| {
            label(f);
            rows(f, "spikes/times");
            rows(f, "spikes/units");
        }),
    ];
    for (want, make) in cases {
        let file = hdf5::File::create(&path).unwrap();
        file.create_group("spikes").unwrap();
        make(&file);
        file.close().unwrap();
        assert!(error().contains(want), "{} is not {want}", error());
    }
}

/// Public files differ in such details: all widths and signs, 64-bit times, strings of variable length, gzip filters.
#[test]
fn shd_files_of_other_number_types_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5");
    let file = hdf5::File::create(&path).unwrap();
    file.create_group("spikes").unwrap();
    file.create_group("extra").unwrap();
    let times = [VarLenArray::from_slice(&[0.5_f64, 0.75])];
    let units = [VarLenArray::from_slice(&[3_i32, 699])];
    file.new_dataset_builder().with_data(&times).chunk([1]).deflate(3).create("spikes/times").unwrap();
    file.new_dataset_builder().with_data(&units).create("spikes/units").unwrap();
    file.new_dataset_builder().with_data(&[1_i64]).create("labels").unwrap();
    let keys: Vec<VarLenUnicode> = ["vier", "fünf"].iter().map(|k| k.parse().unwrap()).collect();
    file.new_dataset_builder().with_data(&keys).create("extra/keys").unwrap();
    file.close().unwrap();
    let source = ShdFile::open(&path, "x", None, None, Order::Strict).unwrap();
    assert_eq!(source.class_names(), ["vier", "fünf"]);
    let sample = read(&source, 0);
    assert_eq!((sample.label, sample.units, sample.times), (1, vec![3, 699], vec![0.5, 0.75]));
    drop(source);

    let file = hdf5::File::append(&path).unwrap();
    file.unlink("spikes/units").unwrap();
    let negative = [VarLenArray::from_slice(&[3_i32, -1])];
    file.new_dataset_builder().with_data(&negative).create("spikes/units").unwrap();
    file.close().unwrap();
    let source = ShdFile::open(&path, "x", None, None, Order::Strict).unwrap();
    let error = source.read(0, &mut Sample::default()).unwrap_err().to_string();
    assert!(error.contains("unit -1, expected 0..=699"), "{error}");
}

#[test]
fn shd_converts_from_gzip_and_from_zip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5");
    Shd::default().write(&path);
    let bytes = std::fs::read(&path).unwrap();
    let names = ["shd_train", "shd_test"];
    for packing in ["gz", "zip", "plain"] {
        let home = Home::new();
        for name in names {
            match packing {
                "gz" => home.put(&format!("{name}.h5.gz"), &gzip(&bytes)),
                "zip" => home.put(&format!("{name}.h5.zip"), &zip_of(&[(format!("{name}.h5"), bytes.clone())])),
                _ => home.put(&format!("{name}.h5"), &bytes),
            };
        }
        home.fetch("shd");
        assert_eq!(convert("shd", home.data.path(), &mut Silent).unwrap().len(), 2, "{packing}");
        let source = open("shd", "test", &home.options()).unwrap();
        assert_eq!(source.class_names(), ["null", "eins", "zwei"]);
        assert_eq!(read(&*source, 0).units, [0, 699, 5]);
        assert_eq!(read(&*source, 2).times, [0.5]);
        let left: Vec<_> = std::fs::read_dir(home.data.path().join("h5")).unwrap().collect();
        assert_eq!(left.len(), 2, "the unpacked file is gone");
    }
}

#[test]
fn generated_sets_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = |memory| OpenOptions { data_dir: folder.path().to_owned(), memory, samples: Some(5), seed: None };
    for name in
        ["spoken-digits", "nmnist-sim", "digits-sim", "yinyang", "yinyang-paralif", "synthetic-poisson", "randman"]
    {
        let source = open(name, "train", &options(0)).unwrap();
        let path = converted_path(folder.path(), name, "train");
        materialise(&*source, &path, &mut Silent).unwrap();
        // The written file is what the plain name means from now on.
        let back = open(name, "train", &OpenOptions { samples: None, ..options(0) }).unwrap();
        assert_eq!((back.len(), back.kind(), back.label()), (5, source.kind(), source.label()), "{name}");
        assert_eq!(back.class_names(), source.class_names());
        for index in [4, 0, 2] {
            assert_eq!(read(&*back, index), read(&*source, index), "{name} {index}");
        }
        assert_eq!(info(name, folder.path()).unwrap()[0].samples, Some(5));
    }
    assert!(matches!(convert("yinyang", folder.path(), &mut Silent), Err(Error::Generated { .. })));
    let none = open("yinyang", "train", &OpenOptions { samples: Some(0), ..options(0) }).unwrap_err().to_string();
    assert_eq!(none, "samples of yinyang: 0, expected 1..=1073741824");
    let seeds =
        [None, Some(1)].map(|seed| read(&*open("randman", "test", &OpenOptions { seed, ..options(0) }).unwrap(), 0));
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn events_are_written_in_the_layout_of_variable_length_rows() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { data_dir: folder.path().to_owned(), samples: Some(300), ..OpenOptions::default() };
    let source = open("spoken-digits", "test", &options).unwrap();
    let path = folder.path().join("vlen.h5");
    write_vlen(&*source, &path, &mut Silent).unwrap();
    let back = open_file(&path, &options).unwrap();
    assert_eq!((back.len(), back.class_names()), (300, source.class_names()));
    assert_eq!(back.label(), Some("file vlen"), "nobody knows where such a file comes from");
    for index in [0, 255, 256, 299] {
        let (a, b) = (read(&*source, index), read(&*back, index));
        assert_eq!((a.label, &a.units), (b.label, &b.units));
        assert!(a.times.iter().zip(&b.times).all(|(x, y)| (x - y).abs() < 1e-3));
    }
    let images = open("digits-sim", "test", &options).unwrap();
    assert!(matches!(write_vlen(&*images, &path, &mut Silent), Err(Error::Config { .. })));
}

#[test]
fn converted_files_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { data_dir: folder.path().to_owned(), memory: 0, samples: Some(3), seed: None };
    let path = folder.path().join("x.h5");
    let spoil = |change: &dyn Fn(&hdf5::File)| {
        materialise(&*open("spoken-digits", "train", &options).unwrap(), &path, &mut Silent).unwrap();
        let file = hdf5::File::append(&path).unwrap();
        change(&file);
        file.close().unwrap();
        let opened = open_file(&path, &options);
        opened.and_then(|s| s.read(0, &mut Sample::default())).unwrap_err().to_string()
    };
    let replace = |file: &hdf5::File, name: &str, values: &[u64]| {
        file.unlink(name).unwrap();
        file.new_dataset_builder().with_data(values).create(name).unwrap();
    };
    for (want, change) in [
        (
            "/labels: label 99, expected below 20",
            &(|f: &hdf5::File| replace(f, "labels", &[0, 99, 1])) as &dyn Fn(&hdf5::File),
        ),
        ("/offsets: other entries", &|f| replace(f, "offsets", &[0, 5, 3, 9])),
        ("/offsets: other entries", &|f| replace(f, "offsets", &[0, u64::MAX])),
        ("/labels: shape [4398046511104], expected one axis, and no more than", &|f| {
            f.unlink("labels").unwrap();
            f.new_dataset::<u32>().shape((1_usize << 42..,)).chunk([1024]).create("labels").unwrap();
        }),
        ("attribute size: \"70000000000\" of \"events\"", &|f| {
            let size: VarLenUnicode = "70000000000".parse().unwrap();
            f.attr("size").unwrap().write_scalar(&size).unwrap();
        }),
        ("/units: missing", &|f| f.unlink("units").unwrap()),
        ("/times: shape [2]", &|f| replace(f, "times", &[0, 1])),
        ("/extra/keys: missing", &|f| f.unlink("extra/keys").unwrap()),
    ] {
        let got = spoil(change);
        assert!(got.contains(want), "{got} is not {want}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("file");
    std::fs::write(&in_the_way, b"").unwrap();
    let source = open("yinyang", "test", &OpenOptions { samples: Some(3), ..OpenOptions::default() }).unwrap();
    let error = materialise(&*source, &in_the_way.join("x.h5"), &mut Silent).unwrap_err();
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error:?}");
}

#[test]
fn samples_are_read_from_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { data_dir: folder.path().to_owned(), memory: 0, samples: Some(40), seed: None };
    let path = folder.path().join("x.h5");
    let source = open("spoken-digits", "train", &options).unwrap();
    materialise(&*source, &path, &mut Silent).unwrap();
    let stored = open_file(&path, &options).unwrap();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (source, stored) = (&source, &stored);
            scope.spawn(move || {
                for i in 0..40 {
                    let index = (i * 7 + start * 11) % 40;
                    assert_eq!(read(&**stored, index), read(&**source, index));
                }
            });
        }
    });
}
