//! Weights of Keras in the HDF5 layout of version 2: `save_weights("x.h5")`, or `save("x.h5")` with the whole model.
//!
//! | path | what |
//! |---|---|
//! | `/` | attribute `layer_names`: all layers in their order, those without weights too; `backend`, `keras_version` |
//! | `/LAYER` | attribute `weight_names`: the arrays of a layer in their order; empty for a layer without weights |
//! | `/LAYER/WEIGHT` | an array; weight names are paths and mostly repeat the layer, as in `/conv2d_1/conv2d_1/kernel:0` |
//!
//! In a file with the whole model the same tree lies in the group `model_weights`. Strings are of fixed or, from newer
//! writers, of variable length. Lists of more than 64 KiB are in pieces, `layer_names0` and so on. A group
//! `top_level_model_weights` holds what belongs to no layer and is mostly empty. Which arrays a layer has, and in which
//! order, its `weight_names` alone say.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::h5::{File, LONGEST};
use crate::store::Temporary;

/// The most layers, and the most arrays of a layer.
const MOST_NAMES: usize = 1 << 14;
/// The most numbers in all arrays together.
const MOST_VALUES: usize = 1 << 28;
/// The most bytes of a list of names in one attribute: an object header holds no more.
const MOST_HEADER: usize = 64_512;
/// The group of a file with the whole model.
const MODEL: &str = "/model_weights";
/// The group of arrays that belong to no layer.
const TOP_LEVEL: &str = "top_level_model_weights";

/// The weights of a Keras model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KerasFile {
    /// All layers in the order of the file, those without weights too.
    pub layers: Vec<KerasLayer>,
}

/// A layer with its weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KerasLayer {
    /// The name, for example `conv2d_1`.
    pub name: String,
    /// The weights in the order of `weight_names`.
    pub weights: Vec<KerasArray>,
}

/// An array of a layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KerasArray {
    /// The path inside the layer's group, for example `conv2d_1/kernel:0`.
    pub name: String,
    /// The length of each axis; a number alone has none.
    pub shape: Vec<usize>,
    /// The values, the last axis contiguous.
    pub values: Vec<f64>,
}

impl KerasFile {
    /// The layer of this name.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<&KerasLayer> {
        self.layers.iter().find(|l| l.name == name)
    }
}

/// Reads all weights of a file.
///
/// # Errors
///
/// [`Error::Malformed`] naming the place in the file; [`Error::Io`] if it cannot be read.
pub fn read(path: &Path) -> Result<KerasFile> {
    let file = File::open_foreign(path)?;
    let (root, names) = match names(&file, "/", "layer_names")? {
        Some(names) => ("/", names),
        None if file.has(MODEL) => match names(&file, MODEL, "layer_names")? {
            Some(names) => (MODEL, names),
            None => return Err(file.wrong(MODEL, "no attribute layer_names", "the names of the layers")),
        },
        None => {
            let got = if file.has("/layers") { "the layout of Keras 3" } else { "no attribute layer_names" };
            let want = "weights as Keras 2 writes them to .h5, or a whole model in one .h5 file";
            return Err(file.wrong("/", got, want));
        }
    };
    let root = root.trim_end_matches('/');
    let mut left = MOST_VALUES;
    let mut layers = Vec::new();
    for name in names {
        layers.push(layer(&file, root, name, &mut left)?);
    }
    if file.has(&format!("{root}/{TOP_LEVEL}")) && !layers.iter().any(|l: &KerasLayer| l.name == TOP_LEVEL) {
        // Most files have the group, few have anything in it.
        let rest = layer(&file, root, TOP_LEVEL.to_owned(), &mut left)?;
        layers.extend(Some(rest).filter(|l| !l.weights.is_empty()));
    }
    Ok(KerasFile { layers })
}

/// A list of names that are all different, in one attribute or in pieces.
fn names(file: &File, place: &str, attribute: &str) -> Result<Option<Vec<String>>> {
    let list = match file.attribute(place, attribute, MOST_NAMES)? {
        Some(list) => list,
        None => {
            let mut list = Vec::new();
            for piece in 0.. {
                let left = MOST_NAMES - list.len();
                match file.attribute(place, &format!("{attribute}{piece}"), left)? {
                    Some(more) => list.extend(more),
                    None if piece == 0 => return Ok(None),
                    None => break,
                }
            }
            list
        }
    };
    let mut seen = HashSet::new();
    for name in &list {
        let at = format!("{place}: attribute {attribute}");
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(file.wrong(&at, format!("the name {name:?}"), "visible characters"));
        }
        if !seen.insert(name.as_str()) {
            return Err(file.wrong(&at, format!("`{name}` twice"), "different names"));
        }
    }
    Ok(Some(list))
}

/// Reads a layer; `left` is how many numbers there may be still.
fn layer(file: &File, root: &str, name: String, left: &mut usize) -> Result<KerasLayer> {
    let place = format!("{root}/{name}");
    if !file.has(&place) {
        return Err(file.wrong(&place, "missing", "a group, as layer_names lists it"));
    }
    let Some(weight_names) = names(file, &place, "weight_names")? else {
        return Err(file.wrong(&place, "no attribute weight_names", "the names of the layer's arrays"));
    };
    let mut weights = Vec::new();
    for weight in weight_names {
        let (shape, values) = file.array(&format!("{place}/{weight}"), *left)?;
        *left -= values.len();
        weights.push(KerasArray { name: weight, shape, values });
    }
    Ok(KerasLayer { name, weights })
}

/// Writes weights in single precision, with byte strings of fixed length, so that every version of Keras reads them.
///
/// The file gets its name once it is complete.
///
/// # Errors
///
/// [`Error::Malformed`] naming the array whose values do not fit its shape or single precision, or the name that cannot
/// be written; [`Error::Io`].
pub fn write(path: &Path, weights: &KerasFile) -> Result<()> {
    check(path, weights)?;
    let temporary = Temporary::beside(path)?;
    let file = File::create(&temporary.path)?;
    let layer_names: Vec<String> = weights.layers.iter().map(|l| l.name.clone()).collect();
    set_names(&file, "/", "layer_names", &layer_names)?;
    file.set_scalar("/", "backend", "tensorflow")?;
    // The last version with this layout as its own. Without a version Keras takes a file for one of version 1.
    file.set_scalar("/", "keras_version", "2.15.0")?;
    for layer in &weights.layers {
        let place = format!("/{}", layer.name);
        file.group(&place)?;
        let names: Vec<String> = layer.weights.iter().map(|w| w.name.clone()).collect();
        set_names(&file, &place, "weight_names", &names)?;
        for array in &layer.weights {
            let values: Vec<f32> = array.values.iter().map(|&x| x as f32).collect();
            file.write_array(&format!("{place}/{}", array.name), &array.shape, &values)?;
        }
    }
    file.close()?;
    temporary.keep(path)
}

/// Writes a list of names, in pieces if it is too long for one attribute.
fn set_names(file: &File, place: &str, attribute: &str, names: &[String]) -> Result<()> {
    let width = names.iter().map(String::len).max().unwrap_or(0).max(1);
    let most = MOST_HEADER / width;
    if names.len() <= most {
        return file.set_attribute(place, attribute, names);
    }
    let mut pieces = names.chunks(most).enumerate();
    pieces.try_for_each(|(i, piece)| file.set_attribute(place, &format!("{attribute}{i}"), piece))
}

/// Refuses what a reader could not make sense of, before anything is written.
fn check(path: &Path, weights: &KerasFile) -> Result<()> {
    let name = |place: &str, name: &str| {
        let parts = name.split('/').all(|part| !matches!(part, "" | "."));
        if parts && name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Ok(());
        }
        let want = format!("visible ASCII characters, at most {LONGEST}, without empty parts between slashes");
        Err(Error::malformed(path, place, format!("the name {name:?}"), want))
    };
    if weights.layers.len() > MOST_NAMES {
        let want = format!("at most {MOST_NAMES}");
        return Err(Error::malformed(path, "/", format!("{} layers", weights.layers.len()), want));
    }
    let mut layers = HashSet::new();
    for layer in &weights.layers {
        let place = format!("/{}", layer.name);
        name(&place, &layer.name)?;
        if !layers.insert(&layer.name) {
            return Err(Error::malformed(path, place, "a second layer of this name", "different names"));
        }
        if layer.weights.len() > MOST_NAMES {
            let got = format!("{} arrays", layer.weights.len());
            return Err(Error::malformed(path, place, got, format!("at most {MOST_NAMES}")));
        }
        let mut arrays = HashSet::new();
        for array in &layer.weights {
            let place = format!("{place}/{}", array.name);
            name(&place, &array.name)?;
            if !arrays.insert(&array.name) {
                return Err(Error::malformed(path, place, "a second array of this name", "different names"));
            }
            let n = array.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
            if n != Some(array.values.len()) {
                let got = format!("{} values", array.values.len());
                return Err(Error::malformed(path, place, got, format!("those of the shape {:?}", array.shape)));
            }
            if let Some(x) = array.values.iter().find(|x| x.is_finite() && !(**x as f32).is_finite()) {
                return Err(Error::malformed(path, place, format!("the value {x}"), "values of single precision"));
            }
        }
    }
    Ok(())
}
