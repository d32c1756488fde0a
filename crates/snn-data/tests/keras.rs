//! Weight files of Keras: the published layout, its variants, and damaged copies.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use hdf5::types::{FixedAscii, FixedUnicode, VarLenAscii, VarLenUnicode};
use proptest::prelude::*;
use snn_data::formats::keras::{self, KerasArray, KerasFile, KerasLayer};

/// Thirteen convolutions and two dense layers with few channels, in the layout of the public CIFAR-10 weights.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/ttfs/keras_vgg_tiny.h5")
}

fn array(name: &str, shape: &[usize]) -> KerasArray {
    let n = shape.iter().product::<usize>();
    let values = (0..n).map(|i| f64::from(i as f32 * 0.37 - 2.0)).collect();
    KerasArray { name: name.into(), shape: shape.to_vec(), values }
}

fn layer(name: &str, weights: Vec<KerasArray>) -> KerasLayer {
    KerasLayer { name: name.into(), weights }
}

fn small() -> KerasFile {
    let conv = vec![array("conv2d_1/kernel:0", &[3, 3, 2, 4]), array("conv2d_1/bias:0", &[4])];
    let dense = vec![array("kernel:0", &[4, 2]), array("bias:0", &[2])];
    KerasFile { layers: vec![layer("conv2d_1", conv), layer("flatten_1", vec![]), layer("dense_1", dense)] }
}

fn message(path: &Path) -> String {
    keras::read(path).unwrap_err().to_string()
}

#[test]
fn fixture_holds_the_layers_of_the_public_network() {
    let file = keras::read(&fixture()).unwrap();
    let channels = [2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5];
    let blocks = [2, 2, 3, 3, 3];
    let mut want = Vec::new();
    let (mut k, mut input, mut dropouts) = (0, 3, 0);
    let norm = |k: usize, c: usize| {
        let arrays = ["gamma", "beta", "moving_mean", "moving_variance"];
        let arrays = arrays.map(|a| (format!("batch_normalization_{k}/{a}:0"), vec![c]));
        (format!("batch_normalization_{k}"), arrays.to_vec())
    };
    let mut dropout = || {
        dropouts += 1;
        (format!("dropout_{dropouts}"), vec![])
    };
    for (pool, convolutions) in blocks.into_iter().enumerate() {
        for i in 0..convolutions {
            let c = channels[k];
            k += 1;
            let arrays = [("kernel", vec![3, 3, input, c]), ("bias", vec![c])];
            let arrays = arrays.map(|(a, shape)| (format!("conv2d_{k}/{a}:0"), shape));
            want.push((format!("conv2d_{k}"), arrays.to_vec()));
            want.push((format!("activation_{k}"), vec![]));
            want.push(norm(k, c));
            if i + 1 < convolutions {
                want.push(dropout());
            }
            input = c;
        }
        want.push((format!("max_pooling2d_{}", pool + 1), vec![]));
    }
    want.extend([dropout(), ("flatten_1".into(), vec![])]);
    let dense = |k: usize, shape: [usize; 2]| {
        let arrays = [(format!("dense_{k}/kernel:0"), shape.to_vec()), (format!("dense_{k}/bias:0"), vec![shape[1]])];
        (format!("dense_{k}"), arrays.to_vec())
    };
    want.extend([dense(1, [5, 6]), ("activation_14".into(), vec![]), norm(14, 6), dropout()]);
    want.extend([dense(2, [6, 10]), ("activation_15".into(), vec![])]);
    let shapes = |l: &KerasLayer| l.weights.iter().map(|w| (w.name.clone(), w.shape.clone())).collect();
    let got: Vec<(String, Vec<_>)> = file.layers.iter().map(|l| (l.name.clone(), shapes(l))).collect();
    assert_eq!(got, want);
    let values = || file.layers.iter().flat_map(|l| &l.weights).flat_map(|w| &w.values);
    assert!(values().all(|x| x.is_finite() && f64::from(*x as f32) == *x) && values().any(|x| *x != 0.0));
    assert!(file.layer("batch_normalization_3").unwrap().weights[3].values.iter().all(|v| *v > 0.0));
    assert!(file.layer("conv2d_14").is_none());
}

#[test]
fn what_was_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new folder").join("weights.h5");
    for file in [small(), KerasFile::default(), keras::read(&fixture()).unwrap()] {
        keras::write(&path, &file).unwrap();
        assert_eq!(keras::read(&path).unwrap(), file);
    }
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["weights.h5"], "nothing else stays");

    let file = hdf5::File::open(&path).unwrap();
    let text = |name: &str| file.attr(name).unwrap().read_scalar::<FixedAscii<64>>().unwrap().to_string();
    assert_eq!((text("backend"), text("keras_version")), ("tensorflow".into(), "2.15.0".into()));
    let names = file.attr("layer_names").unwrap().dtype().unwrap().to_descriptor().unwrap();
    assert_eq!(names, hdf5::types::TypeDescriptor::FixedAscii("batch_normalization_14".len()));
    let empty = file.group("flatten_1").unwrap().attr("weight_names").unwrap();
    assert!(empty.shape() == [0] && empty.dtype().unwrap().is::<f64>());
    let kernel = file.dataset("conv2d_1/conv2d_1/kernel:0").unwrap();
    assert!(kernel.dtype().unwrap().is::<f32>());
}

#[test]
fn long_lists_of_names_go_into_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    let name = |i: usize| format!("{}{i:05}", "long_".repeat(20));
    let file = KerasFile { layers: (0..1500).map(|i| layer(&name(i), vec![])).collect() };
    keras::write(&path, &file).unwrap();
    assert_eq!(keras::read(&path).unwrap(), file);
    let file = hdf5::File::open(&path).unwrap();
    assert!(file.attr("layer_names").is_err() && file.attr("layer_names2").is_ok());
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    let text = |layers: Vec<KerasLayer>| keras::write(&path, &KerasFile { layers }).unwrap_err().to_string();
    let one = |name: &str, shape: &[usize], values: Vec<f64>| {
        vec![layer("dense_1", vec![KerasArray { name: name.into(), shape: shape.to_vec(), values }])]
    };
    for (layers, want) in [
        (one("kernel:0", &[2, 3], vec![0.0; 5]), "/dense_1/kernel:0: 5 values, expected those of the shape [2, 3]"),
        (one("kernel:0", &[usize::MAX, 3], vec![]), "0 values"),
        (one("kernel:0", &[1], vec![1e39]), "/dense_1/kernel:0: the value 1"),
        (one("/kernel", &[1], vec![0.0]), "the name \"/kernel\", expected visible ASCII"),
        (one("k\0", &[1], vec![0.0]), "the name \"k\\0\""),
        (one("", &[1], vec![0.0]), "the name \"\""),
        (vec![layer("größe", vec![])], "the name \"größe\""),
        (vec![layer("a", vec![]), layer("a", vec![])], "/a: a second layer of this name"),
        (vec![layer("a", vec![array("w", &[1]), array("w", &[1])])], "/a/w: a second array"),
        (vec![layer("a", vec![array("w", &[1]), array("w/w", &[1])])], "cannot write: /a/w/w: "),
    ] {
        let got = text(layers);
        assert!(got.contains("weights.h5") && got.contains(want), "{got} is not {want}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // What is no number may be: a run that went wrong can be looked at elsewhere.
    keras::write(&path, &KerasFile { layers: one("w", &[2], vec![f64::INFINITY, f64::NAN]) }).unwrap();
    assert!(keras::read(&path).unwrap().layers[0].weights[0].values[1].is_nan());
}

/// How the strings of attributes are stored.
#[derive(Debug, Clone, Copy)]
enum Strings {
    Fixed,
    FixedUnicode,
    Variable,
    VariableAscii,
}

fn set(group: &hdf5::Group, attribute: &str, names: &[&str], strings: Strings) {
    let n = names.len();
    match strings {
        Strings::Fixed => {
            let names: Vec<FixedAscii<40>> = names.iter().map(|s| FixedAscii::from_ascii(s).unwrap()).collect();
            group.new_attr::<FixedAscii<40>>().shape(n).create(attribute).unwrap().write(&names).unwrap();
        }
        Strings::FixedUnicode => {
            let names: Vec<FixedUnicode<40>> = names.iter().map(|s| s.parse().unwrap()).collect();
            group.new_attr::<FixedUnicode<40>>().shape(n).create(attribute).unwrap().write(&names).unwrap();
        }
        Strings::Variable => {
            let names: Vec<VarLenUnicode> = names.iter().map(|s| s.parse().unwrap()).collect();
            group.new_attr::<VarLenUnicode>().shape(n).create(attribute).unwrap().write(&names).unwrap();
        }
        Strings::VariableAscii => {
            let names: Vec<VarLenAscii> = names.iter().map(|s| VarLenAscii::from_ascii(s).unwrap()).collect();
            group.new_attr::<VarLenAscii>().shape(n).create(attribute).unwrap().write(&names).unwrap();
        }
    }
}

/// Writes weights as other versions of Keras do.
fn write_variant(path: &Path, weights: &KerasFile, strings: Strings, whole_model: bool) {
    let file = hdf5::File::create(path).unwrap();
    let root = if whole_model { file.create_group("model_weights").unwrap() } else { file.group("/").unwrap() };
    let layers: Vec<&str> = weights.layers.iter().map(|l| l.name.as_str()).collect();
    set(&root, "layer_names", &layers, strings);
    for layer in &weights.layers {
        let group = root.create_group(&layer.name).unwrap();
        let names: Vec<&str> = layer.weights.iter().map(|w| w.name.as_str()).collect();
        if names.is_empty() {
            group.new_attr::<f64>().shape([0]).create("weight_names").unwrap();
        } else {
            set(&group, "weight_names", &names, strings);
        }
        for w in &layer.weights {
            let values: Vec<f32> = w.values.iter().map(|x| *x as f32).collect();
            let dataset = group.new_dataset::<f32>().shape(w.shape.clone()).create(w.name.as_str()).unwrap();
            dataset.write_raw(&values).unwrap();
        }
    }
    let top = root.create_group("top_level_model_weights").unwrap();
    top.new_attr::<f64>().shape([0]).create("weight_names").unwrap();
}

#[test]
fn every_kind_of_string_and_both_roots_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    for strings in [Strings::Fixed, Strings::FixedUnicode, Strings::Variable, Strings::VariableAscii] {
        for whole_model in [false, true] {
            write_variant(&path, &small(), strings, whole_model);
            assert_eq!(keras::read(&path).unwrap(), small(), "{strings:?}, {whole_model}");
        }
    }
}

#[test]
fn weights_of_no_layer_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    write_variant(&path, &small(), Strings::Variable, false);
    let file = hdf5::File::open_rw(&path).unwrap();
    let top = file.group("top_level_model_weights").unwrap();
    top.delete_attr("weight_names").unwrap();
    set(&top, "weight_names", &["scale:0"], Strings::Variable);
    top.new_dataset::<f32>().shape(()).create("scale:0").unwrap().write_scalar(&2.5_f32).unwrap();
    file.close().unwrap();
    let got = keras::read(&path).unwrap();
    let scale = KerasArray { name: "scale:0".into(), shape: vec![], values: vec![2.5] };
    assert_eq!(got.layer("top_level_model_weights").unwrap().weights, [scale]);
}

#[test]
fn numbers_of_any_type_and_storage_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    let file = hdf5::File::create(&path).unwrap();
    set(&file, "layer_names", &["a"], Strings::Fixed);
    let group = file.create_group("a").unwrap();
    set(&group, "weight_names", &["half", "double", "whole", "flag", "packed"], Strings::Fixed);
    group.new_dataset_builder().with_data(&[half::f16::from_f32(0.5), half::f16::ONE]).create("half").unwrap();
    group.new_dataset_builder().with_data(&[0.1_f64, 1e300]).create("double").unwrap();
    group.new_dataset_builder().with_data(&[-3_i64, 7]).create("whole").unwrap();
    group.new_dataset_builder().with_data(&[true, false]).create("flag").unwrap();
    let packed = group.new_dataset::<f32>().chunk([7]).deflate(9).shape([20]).create("packed").unwrap();
    packed.write_raw(&[1.5_f32; 20]).unwrap();
    file.close().unwrap();
    let got = keras::read(&path).unwrap();
    let values: Vec<&[f64]> = got.layers[0].weights.iter().map(|w| &w.values[..]).collect();
    assert_eq!(values[..4], [&[0.5, 1.0][..], &[0.1, 1e300], &[-3.0, 7.0], &[1.0, 0.0]]);
    assert_eq!(values[4], [1.5; 20]);
}

#[test]
fn files_that_are_none_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    assert!(message(&path).contains("weights.h5: cannot read"));
    std::fs::write(&path, b"PK nothing").unwrap();
    assert!(message(&path).contains("weights.h5: signature: no HDF5 signature"));

    let refused = |want: &str, make: &dyn Fn(&hdf5::File)| {
        let file = hdf5::File::create(&path).unwrap();
        make(&file);
        file.close().unwrap();
        let got = message(&path);
        assert!(got.contains("weights.h5") && got.contains(want), "{got} is not {want}");
    };
    let in_layer = |want: &str, make: &dyn Fn(&hdf5::Group)| {
        refused(want, &|file| {
            set(file, "layer_names", &["a"], Strings::Fixed);
            let group = file.create_group("a").unwrap();
            set(&group, "weight_names", &["b/w"], Strings::Fixed);
            make(&group);
        });
    };
    refused("/: no attribute layer_names, expected weights as Keras 2 writes them", &|_| ());
    refused("/: the layout of Keras 3, expected", &|f| drop(f.create_group("layers").unwrap()));
    refused("/model_weights: no attribute layer_names", &|f| drop(f.create_group("model_weights").unwrap()));
    refused("/: attribute layer_names: entries of 8 bytes, expected strings", &|f| {
        f.new_attr::<f64>().shape([2]).create("layer_names").unwrap();
    });
    refused("`a` twice", &|f| set(f, "layer_names", &["a", "a"], Strings::Variable));
    refused("the name \"\"", &|f| set(f, "layer_names", &[""], Strings::Variable));
    refused("entries, expected at most 16384", &|f| {
        // Dense storage of attributes holds lists of any length.
        let names = vec!["x"; 20_000];
        let group = f.create_group("model_weights").unwrap();
        let short: Vec<FixedAscii<1>> = names.iter().map(|s| FixedAscii::from_ascii(s).unwrap()).collect();
        group.new_attr::<FixedAscii<1>>().shape(20_000).create("layer_names").unwrap().write(&short).unwrap();
    });
    refused("/a: missing, expected a group", &|f| set(f, "layer_names", &["a"], Strings::Fixed));
    refused("/a: no attribute weight_names", &|f| {
        set(f, "layer_names", &["a"], Strings::Fixed);
        f.create_group("a").unwrap();
    });
    in_layer("/a/b/w: missing, expected a dataset", &|_| ());
    in_layer("/a/b/w: ", &|g| drop(g.create_group("b/w").unwrap()));
    in_layer("/a/b/w: no numbers, expected numbers", &|g| {
        let text: [VarLenUnicode; 1] = ["x".parse().unwrap()];
        g.new_dataset_builder().with_data(&text).create("b/w").unwrap();
    });
    in_layer("/a/b/w: shape [1099511627776], expected at most", &|g| {
        g.new_dataset::<f32>().chunk([1 << 16]).shape([1_usize << 40]).create("b/w").unwrap();
    });
    in_layer("/a/b/w: shape [1000000] with 0 bytes, expected 4000000 bytes", &|g| {
        g.new_dataset::<f32>().shape([1_000_000]).create("b/w").unwrap();
    });
    in_layer("bytes inside this file", &|g| {
        let secret = folder.path().join("secret");
        std::fs::write(&secret, [1; 64]).unwrap();
        let builder = g.new_dataset::<f32>().external(secret.to_str().unwrap(), 0, 64).shape([16]);
        builder.create("b/w").unwrap();
    });
}

fn cases() -> u32 {
    if std::env::var_os("SNN_SLOW_TESTS").is_some() { 10_000 } else { 150 }
}

/// Reads on another thread; panics if that does not end or panics itself.
fn read_in_time(path: PathBuf) -> bool {
    let (send, receive) = channel();
    std::thread::spawn({
        let path = path.clone();
        move || send.send(keras::read(&path).is_ok())
    });
    // A sound file takes milliseconds.
    receive.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read(fixture()).unwrap());
static VARIABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.h5");
    write_variant(&path, &small(), Strings::Variable, true);
    std::fs::read(path).unwrap()
});

#[test]
fn shortened_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.h5");
    let step = if std::env::var_os("SNN_SLOW_TESTS").is_some() { 64 } else { 997 };
    for sound in [&*SOUND, &*VARIABLE] {
        for len in (0..sound.len()).step_by(step).chain([sound.len() - 1]) {
            std::fs::write(&path, &sound[..len]).unwrap();
            assert!(!read_in_time(path.clone()), "{len} bytes of {}", sound.len());
        }
        std::fs::write(&path, sound).unwrap();
        assert!(read_in_time(path.clone()));
    }
}

fn names() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_.: ]{0,12}"
}

fn arrays() -> impl Strategy<Value = KerasArray> {
    let shapes = prop::collection::vec(0_usize..4, 0..5);
    (names(), prop::option::of(names()), shapes).prop_flat_map(|(name, more, shape)| {
        let n = shape.iter().product::<usize>();
        let values = prop::collection::vec(any::<f32>().prop_filter("equality", |x| !x.is_nan()), n);
        // The first part has an ending of its own, so that no array's name is the folder of another.
        let name = more.map_or_else(|| format!("{name}-"), |more| format!("{name}+/{more}"));
        values.prop_map(move |values| KerasArray {
            name: name.clone(),
            shape: shape.clone(),
            values: values.into_iter().map(f64::from).collect(),
        })
    })
}

proptest! {
    // Every file that is written is flushed to the disk, which takes its time.
    #![proptest_config(ProptestConfig {
        cases: cases().min(1000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn anything_written_is_read_again(layers in prop::collection::btree_map(
        names(),
        prop::collection::vec(arrays(), 0..4),
        0..5,
    )) {
        let distinct = |mut weights: Vec<KerasArray>| {
            weights.sort_by(|x, y| x.name.cmp(&y.name));
            weights.dedup_by(|x, y| x.name == y.name);
            weights
        };
        let layers = layers.into_iter().map(|(name, weights)| KerasLayer { name, weights: distinct(weights) }).collect();
        let file = KerasFile { layers };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.h5");
        keras::write(&path, &file).unwrap();
        prop_assert_eq!(keras::read(&path).unwrap(), file);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_end_in_an_error_or_in_other_numbers(
        variable in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..5),
        early in prop::collection::vec((0_usize..8192, 1_u8..), 0..3),
    ) {
        let mut bytes = if variable { VARIABLE.clone() } else { SOUND.clone() };
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        // Most of what structures the file lies at its beginning.
        for (at, flip) in early {
            let at = at % bytes.len();
            bytes[at] ^= flip;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped.h5");
        std::fs::write(&path, bytes).unwrap();
        read_in_time(path);
    }
}
