//! The converted layout: one HDF5 file per split, and how it is made, opened and read.
//!
//! | path | type | shape | in |
//! |---|---|---|---|
//! | `/labels` | u32 | `[n]` | all |
//! | `/images` | u8 | `[n, h, w, c]` | image sets |
//! | `/values` | f32 | `[n, m]` | vector sets |
//! | `/units` | u16 or u32 | `[events]` | event sets and ready spikes |
//! | `/times` | f32, seconds | `[events]` | event sets |
//! | `/offsets` | u64 | `[n + 1]` | event sets: where each sample's events begin |
//! | `/step_offsets` | u32 | `[n, T + 1]` | ready spikes: where each step begins within the sample |
//! | `/extra/keys` | strings | `[classes]` | all: class names |
//! | `/extra/speaker` | u32 | `[n]` | SHD and SSC |
//!
//! Attributes of the root group say the format and its version, the data set, the files it was made of with their
//! SHA-256, the label of a copy that is not the published one, and the size of the samples.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use snn_core::Map;

use crate::archive::{Limits, Zip, open_unpacked, visit_tar};
use crate::download::{Manifest, identify};
use crate::error::{Error, Result};
use crate::formats::idx::{IdxReader, read_pairs};
use crate::formats::nmnist::{self, Order};
use crate::formats::ntidigits::{self, Digits};
use crate::formats::shd::ShdFile;
use crate::formats::{cifar, dvs, emnist, shd};
use crate::h5::{File, Growing};
use crate::progress::{Progress, Silent};
use crate::registry::{self, DataSet, Format, Split};
use crate::source::{Cached, Sample, Source, SourceKind, check_index};
use crate::synth;

/// What the attribute `format` says.
const FORMAT: &str = "snn-data";
/// Version of the layout and the converter; files of another version are converted again.
const VERSION: &str = "1";
/// Events per chunk: 64 KiB of times. Reading a sample touches one chunk or two.
const CHUNK: usize = 1 << 14;
/// Pixels, units or entries of a sample; more are not believed.
const MOST_ENTRIES: usize = 1 << 28;
/// No set has a split of more bytes than this in one part.
const MOST_PART_BYTES: u64 = 8 << 30;

/// Where data sets lie and which part of them is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// The folder with `downloads/` and `h5/`.
    pub data_dir: PathBuf,
    /// Splits up to this many bytes are kept in memory once read; larger ones are read from the file every epoch.
    pub memory: u64,
    /// Generated sets: how many samples; nothing for the set's own number.
    pub samples: Option<usize>,
    /// Generated sets: the seed; nothing for the set's own.
    pub seed: Option<u64>,
}

/// The folder that data lies in unless an option says otherwise: the environment variable `SNN_DATA_DIR`, else `data`.
#[must_use]
pub fn data_dir() -> PathBuf {
    std::env::var_os("SNN_DATA_DIR").filter(|d| !d.is_empty()).map_or_else(|| "data".into(), PathBuf::from)
}

impl Default for OpenOptions {
    /// The folder of [`data_dir`], and 2 GiB of memory.
    fn default() -> Self {
        Self { data_dir: data_dir(), memory: 2 << 30, samples: None, seed: None }
    }
}

/// Opens a split of a data set, generated or public, converting what is downloaded but not converted yet.
///
/// ```
/// use snn_data::{OpenOptions, Sample, open};
/// let source = open("yinyang", "train", &OpenOptions::default())?;
/// let mut sample = Sample::default();
/// source.read(0, &mut sample)?;
/// assert_eq!((source.len(), source.classes(), sample.label), (20_000, 3, 2));
/// # Ok::<(), snn_data::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::UnknownSet`], [`Error::UnknownSplit`]; [`Error::NotDownloaded`] with the command that fetches it; and whatever
/// converting or reading the files can give.
pub fn open(name: &str, split: &str, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    let path = converted_path(&options.data_dir, name, split);
    if let Some(set) = synth::find(name) {
        let own = options.samples.is_none() && options.seed.is_none();
        if own && path.exists() {
            return open_checked(&path, File::open(&path)?, options);
        }
        return Ok(Cached::wrap(set.source(split, options.samples, options.seed)?, options.memory));
    }
    let set = registry::find(name)?;
    let part = set.split(split)?;
    if !is_current(&path, set, &options.data_dir) {
        convert_split(set, part, &options.data_dir, &mut Silent)?;
    }
    open_checked(&path, File::open(&path)?, options)
}

/// Opens one file: of the converted layout, or of SHD's layout of variable-length rows.
///
/// # Errors
///
/// [`Error::Malformed`] if it is neither or its parts do not fit together.
pub fn open_file(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    open_checked(path, File::open_foreign(path)?, options)
}

/// As [`open_file`], of a file that has been opened.
fn open_checked(path: &Path, file: File, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    let source: Arc<dyn Source> = if file.text("format").as_deref() == Some(FORMAT) {
        Arc::new(Stored::open(file)?)
    } else {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        drop(file);
        // Nobody has verified where this file comes from.
        Arc::new(ShdFile::open(path, &name, None, Some(format!("file {name}")), Order::Strict)?)
    };
    Ok(Cached::wrap(source, options.memory))
}

/// What is on this machine of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitInfo {
    /// The split.
    pub split: String,
    /// Samples of the published or generated set.
    pub published: usize,
    /// The converted file, if there is one.
    pub converted: Option<PathBuf>,
    /// Whether the files to convert it from are here.
    pub downloaded: bool,
    /// Samples in the converted file.
    pub samples: Option<usize>,
    /// What to print beside results, if the copy is not the published one.
    pub label: Option<String>,
}

/// Says for every split of a data set what is here; reads headers only and converts nothing.
///
/// # Errors
///
/// [`Error::UnknownSet`], and [`Error::Malformed`] if a converted file is damaged.
pub fn info(name: &str, data_dir: &Path) -> Result<Vec<SplitInfo>> {
    let splits: Vec<(String, usize)> = match synth::find(name) {
        Some(set) => ["train", "test"].iter().zip(set.samples).map(|(s, n)| ((*s).to_owned(), n)).collect(),
        None => registry::find(name)?.splits.iter().map(|s| (s.name.clone(), s.samples)).collect(),
    };
    splits
        .into_iter()
        .map(|(split, published)| {
            let path = converted_path(data_dir, name, &split);
            let source = if path.exists() { Some(Stored::open(File::open(&path)?)?) } else { None };
            let downloaded = registry::find(name).is_ok_and(|set| {
                let folder = download_folder(data_dir, set);
                set.split(&split).is_ok_and(|s| s.parts.iter().all(|part| locate(set, &folder, part).is_some()))
            });
            Ok(SplitInfo {
                published,
                downloaded,
                samples: source.as_ref().map(|s| s.len()),
                label: source.as_ref().and_then(|s| s.label().map(str::to_owned)),
                converted: source.is_some().then_some(path),
                split,
            })
        })
        .collect()
}

/// Converts every split of a public data set whose files are here; returns the converted files.
///
/// # Errors
///
/// [`Error::NotDownloaded`] if they are not, [`Error::Checksum`] if they are neither the published ones nor accepted as
/// non-standard, [`Error::Malformed`] if they are damaged.
pub fn convert(name: &str, data_dir: &Path, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
    if crate::ephys::allen::find(name).is_some() {
        progress.note(&format!("{name}: recordings are read as they are, there is nothing to convert"));
        return Ok(Vec::new());
    }
    convert_set(registry::find(name)?, data_dir, progress)
}

/// As [`convert`], for a data set that need not be in the registry.
///
/// # Errors
///
/// As [`convert`].
pub fn convert_set(set: &DataSet, data_dir: &Path, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
    set.splits.iter().map(|split| convert_split(set, split, data_dir, progress)).collect()
}

/// Writes all samples of a source to a file of the converted layout.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written, in which case nothing is left behind; and those of reading the source.
pub fn materialise(source: &dyn Source, path: &Path, progress: &mut dyn Progress) -> Result<()> {
    let mut writer = Writer::create(path, source.name(), source.kind())?;
    progress.start(&format!("writing {}", source.name()), Some(source.len() as u64));
    let mut sample = Sample::default();
    for index in 0..source.len() {
        source.read(index, &mut sample)?;
        writer.push(&sample)?;
        progress.advance(1);
    }
    writer.finish(source.class_names(), source.label(), &BTreeMap::new(), None)?;
    progress.finish();
    Ok(())
}

/// Writes an event set in SHD's layout of variable-length rows, which other tools read.
///
/// Times become half floats, as in the published files: near one second they have steps of half a millisecond.
///
/// # Errors
///
/// [`Error::Config`] if the source holds no events or its units do not fit 16 bits; [`Error::Io`] if the file cannot be
/// written.
pub fn write_vlen(source: &dyn Source, path: &Path, progress: &mut dyn Progress) -> Result<()> {
    if !matches!(source.kind(), SourceKind::Events { units, .. } if units <= 1 << 16) {
        let want = "events of at most 65536 units";
        return Err(Error::config(format!("data set {}", source.name()), source.kind().to_string(), want));
    }
    let temporary = Temporary::beside(path)?;
    progress.start(&format!("writing {}", source.name()), Some(source.len() as u64));
    shd::write(source, &temporary.path, || progress.advance(1))?;
    temporary.keep(path)?;
    progress.finish();
    Ok(())
}

/// `data_dir/h5/<set>-<split>.h5`.
#[must_use]
pub fn converted_path(data_dir: &Path, set: &str, split: &str) -> PathBuf {
    data_dir.join("h5").join(format!("{set}-{split}.h5"))
}

/// `data_dir/downloads/<folder of the set>`.
#[must_use]
pub fn download_folder(data_dir: &Path, set: &DataSet) -> PathBuf {
    data_dir.join("downloads").join(&set.folder)
}

/// Whether the converted file is there, of this version, and made of the files that are in the download folder now.
fn is_current(path: &Path, set: &DataSet, data_dir: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    if file.text("version").as_deref() != Some(VERSION) {
        return false;
    }
    let manifest = Manifest::read(&download_folder(data_dir, set));
    let made_of: BTreeMap<String, String> =
        file.text("source").and_then(|s| serde_json::from_str(&s).ok()).unwrap_or_default();
    made_of.iter().all(|(name, sha256)| manifest.files.get(name).is_none_or(|f| f.sha256 == *sha256))
}

/// Where a part of a split was found.
enum Place {
    /// A file, perhaps packed with gzip.
    Loose(PathBuf),
    /// A zip archive that holds it.
    Zip(PathBuf),
    /// A tar archive that holds it.
    Tar(PathBuf),
}

impl Place {
    fn file(&self) -> &Path {
        let (Self::Loose(path) | Self::Zip(path) | Self::Tar(path)) = self;
        path
    }
}

/// Looks for a part: as it is, packed on its own, or inside an archive of the set.
fn locate(set: &DataSet, folder: &Path, part: &str) -> Option<Place> {
    let there = |name: &str| Some(folder.join(name)).filter(|p| p.is_file());
    let loose = there(part).or_else(|| there(&format!("{part}.gz"))).map(Place::Loose);
    let zipped = || there(&format!("{part}.zip")).map(Place::Zip);
    // A file that is itself a part, or packs a single one, holds no other.
    let single = |name: &str| set.splits.iter().flat_map(|s| &s.parts).any(|p| name.starts_with(p.as_str()));
    let archived = || {
        set.groups.iter().flat_map(|g| &g.files).filter(|f| !single(&f.name)).find_map(|f| match f.name.as_str() {
            name if name.ends_with(".tar.gz") => there(name).map(Place::Tar),
            name if name.ends_with(".zip") => there(name).map(Place::Zip),
            _ => None,
        })
    };
    loose.or_else(zipped).or_else(archived)
}

/// The name of an archive entry without folders and gzip ending.
fn stem(entry: &str) -> &str {
    let name = entry.rsplit('/').next().unwrap_or(entry);
    name.strip_suffix(".gz").unwrap_or(name)
}

fn convert_split(set: &DataSet, split: &Split, data_dir: &Path, progress: &mut dyn Progress) -> Result<PathBuf> {
    let folder = download_folder(data_dir, set);
    let path = converted_path(data_dir, &set.name, &split.name);
    let missing = || Error::NotDownloaded {
        set: set.name.clone(),
        folder: folder.clone(),
        command: format!("snn data download {}", set.name),
    };
    let places: Vec<Place> =
        split.parts.iter().map(|part| locate(set, &folder, part).ok_or_else(missing)).collect::<Result<_>>()?;

    // Nothing is parsed before it is known to be the published file, or accepted as another.
    let manifest = Manifest::read(&folder);
    let (mut made_of, mut label) = (BTreeMap::new(), None);
    for place in &places {
        let name = place.file().file_name().unwrap_or_default().to_string_lossy().into_owned();
        if made_of.contains_key(&name) {
            continue;
        }
        let identity = identify(set, &name, place.file())?;
        if !identity.is_published() {
            match manifest.accepted(&name, &identity.sha256) {
                Some(accepted) => label = Some(accepted.to_owned()),
                None => return Err(identity.mismatch(place.file())),
            }
        }
        made_of.insert(name, identity.sha256);
    }

    let name = format!("{}/{}", set.name, split.name);
    progress.start(&format!("converting {name}"), label.is_none().then_some(split.samples as u64));
    let job = Job { set, split, places: &places, path: &path, name: &name };
    let done = match set.format {
        Format::Idx | Format::Emnist => job.idx(progress)?,
        Format::Cifar10 => job.cifar(1, progress)?,
        Format::Cifar100 => job.cifar(2, progress)?,
        Format::Nmnist => job.nmnist(progress)?,
        Format::Shd => job.shd(&made_of, label.as_deref(), progress)?,
        Format::Ntidigits => job.ntidigits(progress)?,
        Format::Dvs => job.dvs(progress)?,
    };
    if set.format.is_experimental() {
        progress.note(&format!(
            "{name}: the reader of this format is experimental, written from public descriptions; check what it gives"
        ));
    }
    if let Some((writer, class_names)) = done {
        let samples = writer.labels.len();
        if label.is_none() && samples != split.samples {
            if !set.format.is_experimental() {
                let want = format!("{} in the published set", split.samples);
                return Err(Error::malformed(places[0].file(), "samples", samples.to_string(), want));
            }
            progress.note(&other_count(&name, samples, split.samples));
        }
        writer.finish(&class_names, label.as_deref(), &made_of, None)?;
    }
    progress.finish();
    Ok(path)
}

/// The conversion of one split.
struct Job<'a> {
    set: &'a DataSet,
    split: &'a Split,
    places: &'a [Place],
    path: &'a Path,
    name: &'a str,
}

type Unfinished = Option<(Writer, Vec<String>)>;

impl Job<'_> {
    fn class_names(&self) -> Vec<String> {
        if self.set.classes.is_empty() {
            return (0..self.set.class_count()).map(|c| c.to_string()).collect();
        }
        self.set.classes.clone()
    }

    /// Images and labels from loose files or from a zip archive.
    fn idx(&self, progress: &mut dyn Progress) -> Result<Unfinished> {
        const SIDE: usize = 28;
        let mut writer = Writer::create(self.path, self.name, SourceKind::Images(Map::new(SIDE, SIDE, 1)))?;
        let transposed = self.set.format == Format::Emnist;
        let mut sample = Sample::default();
        let [images, labels] = [0, 1].map(|i| self.part_bytes(i));
        let (images, labels) = (images?, labels?);
        let named = |i: usize| self.places[i].file().with_file_name(&self.split.parts[i]);
        let images = IdxReader::new(images, &named(0), 3)?;
        let labels = IdxReader::new(labels, &named(1), 1)?;
        let classes = (self.set.first_label, self.set.class_count());
        read_pairs(images, labels, (SIDE, SIDE), classes, |label, pixels| {
            if transposed {
                emnist::transpose(pixels, SIDE);
            }
            sample.label = label;
            std::mem::swap(&mut sample.pixels, pixels);
            let pushed = writer.push(&sample);
            std::mem::swap(&mut sample.pixels, pixels);
            progress.advance(1);
            pushed
        })?;
        Ok(Some((writer, self.class_names())))
    }

    /// The unpacked bytes of a part as a stream.
    fn part_bytes(&self, index: usize) -> Result<Box<dyn Read>> {
        let part = &self.split.parts[index];
        match &self.places[index] {
            Place::Loose(path) => Ok(open_unpacked(path)?),
            Place::Zip(path) => {
                let mut zip = Zip::open(path, Limits::default())?;
                let found = zip.files().iter().find(|(name, _)| stem(name) == part).map(|&(_, i)| i);
                let Some(at) = found else { return Err(lacks(path, part)) };
                // The packed entry is held in memory; it is unpacked as it is read.
                let packed = zip.read(at)?;
                if crate::archive::is_gzip(&packed) {
                    return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(std::io::Cursor::new(packed))));
                }
                Ok(Box::new(std::io::Cursor::new(packed)))
            }
            Place::Tar(path) => {
                let mut found = None;
                visit_tar(path, Limits { entry: MOST_PART_BYTES, ..Limits::default() }, |name, bytes| {
                    if stem(name) == part {
                        found = Some(bytes);
                    }
                    Ok(())
                })?;
                found.map(|b| Box::new(std::io::Cursor::new(b)) as Box<dyn Read>).ok_or_else(|| lacks(path, part))
            }
        }
    }

    fn cifar(&self, label_bytes: usize, progress: &mut dyn Progress) -> Result<Unfinished> {
        let map = Map::new(cifar::SIDE, cifar::SIDE, 3);
        let mut writer = Writer::create(self.path, self.name, SourceKind::Images(map))?;
        let (mut sample, mut class_names) = (Sample::default(), self.class_names());
        // A tar archive can only be read from front to back: one pass takes everything that is wanted out of it.
        let mut entries: HashMap<String, Vec<u8>> = HashMap::new();
        if let Some(Place::Tar(path)) = self.places.first() {
            visit_tar(path, Limits { entry: 1 << 30, total: 4 << 30 }, |name, bytes| {
                if self.split.parts.iter().any(|p| stem(name) == p) || name.ends_with("fine_label_names.txt") {
                    entries.insert(stem(name).to_owned(), bytes);
                }
                Ok(())
            })?;
        }
        if let Some(names) = entries.get("fine_label_names.txt") {
            let names =
                String::from_utf8_lossy(names).lines().map(str::to_owned).filter(|l| !l.is_empty()).collect::<Vec<_>>();
            if names.len() == class_names.len() {
                class_names = names;
            }
        }
        for (part, place) in self.split.parts.iter().zip(self.places) {
            let reader: Box<dyn Read> = match place {
                Place::Loose(path) => Box::new(open_unpacked(path)?),
                _ => Box::new(std::io::Cursor::new(entries.remove(part).ok_or_else(|| lacks(place.file(), part))?)),
            };
            let file = place.file().with_file_name(part);
            cifar::read_records(reader, &file, label_bytes, class_names.len(), |label, pixels| {
                sample.label = label;
                sample.pixels.clear();
                sample.pixels.extend_from_slice(pixels);
                progress.advance(1);
                writer.push(&sample)
            })?;
        }
        Ok(Some((writer, class_names)))
    }

    fn nmnist(&self, progress: &mut dyn Progress) -> Result<Unfinished> {
        let kind = SourceKind::Events { units: nmnist::SENSOR.len(), sensor: Some(nmnist::SENSOR) };
        let mut writer = Writer::create(self.path, self.name, kind)?;
        let path = self.places[0].file();
        let mut zip = Zip::open(path, Limits { entry: nmnist::MOST_BYTES, total: 16 << 30 })?;
        // Folders are classes; the order of MNIST is that of the indices.
        let mut recordings = Vec::new();
        for (name, at) in zip.files() {
            match nmnist::parse_name(path, name)? {
                Some((class, index)) => recordings.push((index, class, *at, name.clone())),
                None => progress.note(&format!("{}: skipped {name}, not a recording", path.display())),
            }
        }
        recordings.sort();
        if recordings.is_empty() {
            return Err(Error::malformed(path, "archive", "no recordings", "`<digit>/<index>.bin` files"));
        }
        let mut sample = Sample::default();
        for (_, class, at, name) in recordings {
            let bytes = zip.read(at)?;
            sample.label = class;
            nmnist::decode(&bytes, path, &name, Order::Strict, &mut sample.units, &mut sample.times)?;
            writer.push(&sample)?;
            progress.advance(1);
        }
        Ok(Some((writer, self.class_names())))
    }

    /// The first part as a plain file, which HDF5 needs: a packed one is unpacked beside the result.
    fn plain(&self) -> Result<Plain> {
        if let Place::Loose(path) = &self.places[0]
            && crate::h5::superblock(path)?.is_some()
        {
            return Ok(Plain::Own(path.clone()));
        }
        let unpacked = Temporary::beside(self.path)?;
        let out = std::fs::File::create(&unpacked.path).map_err(Error::io(&unpacked.path, "create"))?;
        let mut out = std::io::BufWriter::new(out);
        let packed = self.places[0].file();
        let mut copy = |reader: &mut dyn Read| {
            let copied = std::io::copy(&mut reader.take(MOST_PART_BYTES + 1), &mut out);
            let bytes = copied.map_err(crate::archive::reading(packed, "packed stream"))?;
            if bytes > MOST_PART_BYTES {
                let want = format!("at most {MOST_PART_BYTES} bytes");
                return Err(Error::malformed(packed, "packed stream", format!("more than {bytes} bytes"), want));
            }
            Ok(())
        };
        match &self.places[0] {
            Place::Zip(path) => {
                let mut zip = Zip::open(path, Limits { entry: MOST_PART_BYTES, total: MOST_PART_BYTES })?;
                let part = &self.split.parts[0];
                let at = zip.files().iter().find(|(name, _)| stem(name) == part).map(|&(_, i)| i);
                zip.stream(at.ok_or_else(|| lacks(path, part))?, copy)?;
            }
            place => copy(&mut open_unpacked(place.file())?)?,
        }
        std::io::Write::flush(&mut out).map_err(Error::io(&unpacked.path, "write"))?;
        Ok(Plain::Unpacked(unpacked))
    }

    fn shd(
        &self,
        made_of: &BTreeMap<String, String>,
        label: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Unfinished> {
        let plain = self.plain()?;
        let file = plain.path();
        let classes = Some(self.set.class_count());
        let source = ShdFile::open(file, self.name, classes, None, Order::Strict)
            .map_err(|e| renamed(e, file, self.places[0].file()))?;
        let mut writer = Writer::create(self.path, self.name, source.kind())?;
        let mut silent = 0;
        let read = source.for_each(|_, sample| {
            progress.advance(1);
            silent += usize::from(sample.units.is_empty());
            writer.push(sample)
        });
        read.map_err(|e| renamed(e, file, self.places[0].file()))?;
        if silent > 0 {
            progress.note(&format!("{}: {silent} samples have no spikes", self.name));
        }
        if !source.has_class_names() {
            progress.note(&format!("{}: the file names no classes, they are numbered", self.name));
        }
        if label.is_none() && source.len() != self.split.samples {
            progress.note(&other_count(self.name, source.len(), self.split.samples));
        }
        writer.finish(source.class_names(), label, made_of, source.speakers())?;
        Ok(None)
    }

    fn ntidigits(&self, progress: &mut dyn Progress) -> Result<Unfinished> {
        let plain = self.plain()?;
        let known = |e| renamed(e, plain.path(), self.places[0].file());
        let kind = SourceKind::Events { units: ntidigits::UNITS, sensor: None };
        let class_names = self.class_names();
        let digits = Digits::open(plain.path(), &self.split.name, &class_names).map_err(known)?;
        let mut writer = Writer::create(self.path, self.name, kind)?;
        let mut sample = Sample::default();
        for index in 0..digits.len() {
            digits.read(index, &mut sample).map_err(known)?;
            writer.push(&sample)?;
            progress.advance(1);
        }
        Ok(Some((writer, class_names)))
    }

    fn dvs(&self, progress: &mut dyn Progress) -> Result<Unfinished> {
        let kind = SourceKind::Events { units: dvs::SENSOR.len(), sensor: Some(dvs::SENSOR) };
        let mut writer = Writer::create(self.path, self.name, kind)?;
        match &self.places[0] {
            Place::Tar(path) => self.dvs_recordings(path, &mut writer, progress)?,
            place => self.dvs_tables(place.file(), &mut writer, progress)?,
        }
        if writer.labels.is_empty() {
            return Err(Error::malformed(self.places[0].file(), "archive", "no gestures", "an edition of DVS Gesture"));
        }
        Ok(Some((writer, self.class_names())))
    }

    /// The pre-processed edition: a table per gesture, in the order of the archive.
    fn dvs_tables(&self, path: &Path, writer: &mut Writer, progress: &mut dyn Progress) -> Result<()> {
        let mut sample = Sample::default();
        visit_tar(path, DVS_LIMITS, |name, bytes| {
            match dvs::parse_name(path, name)? {
                dvs::Entry::Gesture(class) => {
                    sample.label = class;
                    dvs::decode_table(&bytes, path, name, &mut sample.units, &mut sample.times)?;
                    progress.advance(1);
                    writer.push(&sample)?;
                }
                dvs::Entry::Other => {}
                dvs::Entry::Foreign => progress.note(&format!("{}: skipped {name}, no gesture", path.display())),
            }
            Ok(())
        })
    }

    /// The original edition: recordings whose labels may lie behind them in the archive, which is thus read twice.
    fn dvs_recordings(&self, path: &Path, writer: &mut Writer, progress: &mut dyn Progress) -> Result<()> {
        let list = format!("trials_to_{}.txt", self.split.name);
        let (mut trials, mut labels) = (None, HashMap::new());
        visit_tar(path, DVS_LIMITS, |name, bytes| {
            if stem(name) == list {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                trials = Some(text.lines().map(|line| line.trim().to_owned()).collect::<HashSet<_>>());
            } else if let Some(trial) = stem(name).strip_suffix("_labels.csv") {
                labels.insert(format!("{trial}.aedat"), dvs::parse_labels(&bytes, path, name)?);
            }
            Ok(())
        })?;
        let trials = trials.ok_or_else(|| lacks(path, &list))?;
        let mut sample = Sample::default();
        visit_tar(path, DVS_LIMITS, |name, bytes| {
            if !trials.contains(stem(name)) {
                return Ok(());
            }
            let trial = stem(name);
            let gestures = labels.get(trial).ok_or_else(|| lacks(path, &trial.replace(".aedat", "_labels.csv")))?;
            let events = dvs::decode_aedat(&bytes, path, name)?;
            for gesture in gestures {
                let Some(class) = gesture.class else { continue };
                sample.label = class;
                dvs::cut(&events, gesture, &mut sample.units, &mut sample.times);
                if sample.units.is_empty() {
                    progress.note(&format!("{}: {name}: no events at {} us", path.display(), gesture.start_us));
                }
                progress.advance(1);
                writer.push(&sample)?;
            }
            Ok(())
        })
    }
}

/// What DVS Gesture may unpack to.
const DVS_LIMITS: Limits = Limits { entry: dvs::MOST_BYTES, total: 64 << 30 };

/// The note on a file whose digest is right and whose number of samples is not.
fn other_count(name: &str, got: usize, reported: usize) -> String {
    format!("{name}: {got} samples where {reported} are reported, the digest is the published one")
}

/// A file that is not packed.
enum Plain {
    /// The one that is there.
    Own(PathBuf),
    /// An unpacked copy.
    Unpacked(Temporary),
}

impl Plain {
    fn path(&self) -> &Path {
        match self {
            Self::Own(path) => path,
            Self::Unpacked(temporary) => &temporary.path,
        }
    }
}

/// Names the file the user knows instead of a temporary one.
fn renamed(error: Error, temporary: &Path, known: &Path) -> Error {
    match error {
        Error::Malformed { file, place, got, want } if file == temporary => {
            Error::Malformed { file: known.to_owned(), place, got, want }
        }
        other => other,
    }
}

fn lacks(archive: &Path, part: &str) -> Error {
    Error::malformed(archive, "archive", format!("no entry {part}"), "the published archive")
}

/// A file that is removed unless it is kept.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
}

impl Temporary {
    /// A new name in the folder of `path`, which is made if it is missing.
    pub(crate) fn beside(path: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp-");
        sweep(folder, &name.to_string_lossy());
        name.push(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: folder.join(name) })
    }

    /// Makes the contents durable and gives the file its name.
    pub(crate) fn keep(self, path: &Path) -> Result<()> {
        publish(&self.path, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes temporary files that a killed process has left under names that begin with `prefix`. What cannot be removed
/// stays, which harms nothing.
fn sweep(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()) else { continue };
        // Another process may be writing it at this moment: then it is there, or the file has just changed.
        let processes = Path::new("/proc");
        let ended = processes.join("self").exists() && !processes.join(process).exists();
        let untouched = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        let patience = Duration::from_secs(if ended { 60 } else { 24 * 3600 });
        if process.parse::<u32>().is_ok() && untouched.is_some_and(|time| time > patience) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes `from` durable, then renames it to `to`: a name never stands for half a file, not even after a power cut.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<()> {
    std::fs::File::open(from).and_then(|f| f.sync_all()).map_err(Error::io(from, "write"))?;
    std::fs::rename(from, to).map_err(Error::io(to, "write"))?;
    // The folder as well, where the system can.
    if let Some(Ok(folder)) = to.parent().map(std::fs::File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Writes a file of the converted layout, sample by sample.
struct Writer {
    file: Option<File>,
    path: PathBuf,
    name: String,
    kind: SourceKind,
    pixels: Option<Growing<u8>>,
    values: Option<Growing<f32>>,
    units: Option<Units>,
    times: Option<Growing<f32>>,
    steps: Option<Growing<u32>>,
    offsets: Vec<u64>,
    labels: Vec<u32>,
    // Last, so that everything is closed before the file is removed.
    temporary: Temporary,
}

/// Units are as wide as they need to be.
enum Units {
    Narrow(Growing<u16>),
    Wide(Growing<u32>),
}

impl Writer {
    fn create(path: &Path, name: &str, kind: SourceKind) -> Result<Self> {
        let temporary = Temporary::beside(path)?;
        let file = File::create(&temporary.path)?;
        let units_for = |width: usize| -> Result<Units> {
            Ok(match width {
                0..=65_536 => Units::Narrow(file.growing("/units", &[], 2 * CHUNK)?),
                _ => Units::Wide(file.growing("/units", &[], CHUNK)?),
            })
        };
        let (mut pixels, mut values, mut units, mut times, mut steps) = (None, None, None, None, None);
        match kind {
            SourceKind::Images(map) => {
                let chunk = ((1 << 16) / map.len().max(1)).max(1);
                pixels = Some(file.growing("/images", &[map.height, map.width, map.channels], chunk)?);
            }
            SourceKind::Vectors(width) => {
                values = Some(file.growing("/values", &[width], (CHUNK / width.max(1)).max(1))?);
            }
            SourceKind::Events { units: width, .. } => {
                units = Some(units_for(width)?);
                times = Some(file.growing("/times", &[], CHUNK)?);
            }
            SourceKind::Spikes { steps: count, width } => {
                units = Some(units_for(width)?);
                steps = Some(file.growing("/step_offsets", &[count + 1], (CHUNK / (count + 1)).max(1))?);
            }
        }
        let (path, name) = (path.to_owned(), name.to_owned());
        let (offsets, labels) = (vec![0], Vec::new());
        let file = Some(file);
        Ok(Self { file, temporary, path, name, kind, pixels, values, units, times, steps, offsets, labels })
    }

    fn push(&mut self, sample: &Sample) -> Result<()> {
        let file = self.file.as_ref().expect("open until finished");
        if let Some(pixels) = &mut self.pixels {
            pixels.extend(file, &sample.pixels)?;
        }
        if let Some(values) = &mut self.values {
            values.extend(file, &sample.values)?;
        }
        match &mut self.units {
            Some(Units::Narrow(units)) => {
                let narrow: Vec<u16> = sample.units.iter().map(|&u| u as u16).collect();
                units.extend(file, &narrow)?;
            }
            Some(Units::Wide(units)) => units.extend(file, &sample.units)?,
            None => {}
        }
        if let Some(times) = &mut self.times {
            times.extend(file, &sample.times)?;
        }
        if let Some(steps) = &mut self.steps {
            let offsets: Vec<u32> = sample.offsets.iter().map(|&o| o as u32).collect();
            steps.extend(file, &offsets)?;
        }
        self.offsets.push(self.offsets.last().expect("begins with 0") + sample.units.len() as u64);
        self.labels.push(sample.label);
        Ok(())
    }

    fn finish(
        mut self,
        class_names: &[String],
        label: Option<&str>,
        made_of: &BTreeMap<String, String>,
        speakers: Option<&[u32]>,
    ) -> Result<()> {
        let file = self.file.take().expect("finished once");
        self.pixels.take().map_or(Ok(()), |mut g| g.flush(&file))?;
        self.values.take().map_or(Ok(()), |mut g| g.flush(&file))?;
        self.times.take().map_or(Ok(()), |mut g| g.flush(&file))?;
        self.steps.take().map_or(Ok(()), |mut g| g.flush(&file))?;
        match self.units.take() {
            Some(Units::Narrow(mut units)) => units.flush(&file)?,
            Some(Units::Wide(mut units)) => units.flush(&file)?,
            None => {}
        }
        if matches!(self.kind, SourceKind::Events { .. } | SourceKind::Spikes { .. }) {
            file.write("/offsets", &self.offsets)?;
        }
        file.write("/labels", &self.labels)?;
        file.group("extra")?;
        file.write_strings("/extra/keys", class_names)?;
        if let Some(speakers) = speakers {
            file.write("/extra/speaker", speakers)?;
        }
        let (kind, size) = match self.kind {
            SourceKind::Images(map) => ("images", vec![map.height, map.width, map.channels]),
            SourceKind::Vectors(width) => ("vectors", vec![width]),
            SourceKind::Events { units, sensor: None } => ("events", vec![units]),
            SourceKind::Events { sensor: Some(map), .. } => ("events", vec![map.height, map.width, map.channels]),
            SourceKind::Spikes { steps, width } => ("spikes", vec![steps, width]),
        };
        file.set_text("format", FORMAT)?;
        file.set_text("version", VERSION)?;
        file.set_text("name", &self.name)?;
        file.set_text("kind", kind)?;
        file.set_text("size", &size.iter().map(usize::to_string).collect::<Vec<_>>().join("x"))?;
        file.set_text("source", &serde_json::to_string(made_of).expect("a map of strings"))?;
        if let Some(label) = label {
            file.set_text("label", label)?;
        }
        file.close()?;
        let Self { temporary, path, .. } = self;
        temporary.keep(&path)
    }
}

/// A split in the converted layout. Labels and offsets are in memory, samples are read when they are asked for.
#[derive(Debug)]
struct Stored {
    file: Mutex<Open>,
    name: String,
    kind: SourceKind,
    class_names: Vec<String>,
    label: Option<String>,
    labels: Vec<u32>,
    offsets: Vec<u64>,
}

/// The file and the datasets that samples are read from, opened once.
#[derive(Debug)]
struct Open {
    file: File,
    first: hdf5::Dataset,
    second: Option<hdf5::Dataset>,
}

impl Stored {
    fn open(file: File) -> Result<Self> {
        let version = file.text("version").unwrap_or_default();
        if version != VERSION {
            return Err(file.wrong(
                "attribute version",
                format!("{version:?}"),
                format!("{VERSION:?}; convert it again"),
            ));
        }
        let text =
            |name: &str| file.text(name).ok_or_else(|| file.wrong(&format!("attribute {name}"), "missing", "text"));
        let (name, kind, size) = (text("name")?, text("kind")?, text("size")?);
        let numbers: Option<Vec<usize>> = size.split('x').map(|n| n.parse().ok().filter(|&n| n > 0)).collect();
        // A sample is read as a whole: its size is bounded before anything believes it.
        let numbers = numbers.filter(|n| {
            n.iter().try_fold(1_usize, |all, &n| all.checked_mul(n)).is_some_and(|all| all <= MOST_ENTRIES)
        });
        let kind = match (kind.as_str(), numbers.as_deref()) {
            ("images", Some(&[h, w, c])) => SourceKind::Images(Map::new(h, w, c)),
            ("vectors", Some(&[width])) => SourceKind::Vectors(width),
            ("events", Some(&[units])) => SourceKind::Events { units, sensor: None },
            ("events", Some(&[h, w, c])) => SourceKind::Events { units: h * w * c, sensor: Some(Map::new(h, w, c)) },
            ("spikes", Some(&[steps, width])) => SourceKind::Spikes { steps, width },
            _ => {
                return Err(file.wrong("attribute size", format!("{size:?} of {kind:?}"), "a size that fits the kind"));
            }
        };
        let class_names = file.strings("/extra/keys")?;
        let (set, count) = file.vector("/labels")?;
        let labels: Vec<u32> = file.read("/labels", &set, 0..count)?;
        if let Some(wrong) = labels.iter().find(|&&l| l as usize >= class_names.len()) {
            return Err(file.wrong("/labels", format!("label {wrong}"), format!("below {}", class_names.len())));
        }
        let events = matches!(kind, SourceKind::Events { .. } | SourceKind::Spikes { .. });
        let (mut offsets, mut second) = (Vec::new(), None);
        let rows = |place: &str, want: &[usize]| {
            let dataset = file.dataset(place)?;
            let shape = dataset.shape();
            if shape == want {
                Ok(dataset)
            } else {
                Err(file.wrong(place, format!("shape {shape:?}"), format!("{want:?}")))
            }
        };
        let first = match kind {
            SourceKind::Images(map) => rows("/images", &[count, map.height, map.width, map.channels])?,
            SourceKind::Vectors(width) => rows("/values", &[count, width])?,
            SourceKind::Events { .. } | SourceKind::Spikes { .. } => file.vector("/units")?.0,
        };
        if events {
            let (set, n) = file.vector("/offsets")?;
            offsets = file.read::<u64>("/offsets", &set, 0..n)?;
            let total = first.shape()[0];
            let sound = n == count + 1 && offsets[0] == 0 && offsets.is_sorted() && offsets[count] == total as u64;
            if !sound {
                return Err(file.wrong(
                    "/offsets",
                    "other entries",
                    format!("{} ascending from 0 to {total}", count + 1),
                ));
            }
            second = Some(match kind {
                SourceKind::Spikes { steps, .. } => rows("/step_offsets", &[count, steps + 1])?,
                _ => rows("/times", &[total])?,
            });
        }
        let label = file.text("label");
        Ok(Self { file: Mutex::new(Open { file, first, second }), name, kind, class_names, label, labels, offsets })
    }
}

impl Source for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    fn kind(&self) -> SourceKind {
        self.kind
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        into.label = self.labels[index];
        let open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { file, first, second } = &*open;
        match self.kind {
            SourceKind::Images(_) => into.pixels = file.read("/images", first, index..index + 1)?,
            SourceKind::Vectors(_) => into.values = file.read("/values", first, index..index + 1)?,
            SourceKind::Events { units, .. } | SourceKind::Spikes { width: units, .. } => {
                let range = self.offsets[index] as usize..self.offsets[index + 1] as usize;
                if units <= 65_536 {
                    into.units.extend(file.read::<u16>("/units", first, range.clone())?.iter().map(|&u| u32::from(u)));
                } else {
                    into.units = file.read("/units", first, range.clone())?;
                }
                if let Some(wrong) = into.units.iter().find(|&&u| u as usize >= units) {
                    let place = format!("/units, sample {index}");
                    return Err(file.wrong(&place, format!("unit {wrong}"), format!("below {units}")));
                }
                let second = second.as_ref().expect("opened with the file");
                if matches!(self.kind, SourceKind::Events { .. }) {
                    into.times = file.read("/times", second, range)?;
                } else {
                    let steps: Vec<u32> = file.read("/step_offsets", second, index..index + 1)?;
                    into.offsets.extend(steps.iter().map(|&o| o as usize));
                    if into.offsets[0] != 0
                        || !into.offsets.is_sorted()
                        || into.offsets.last() != Some(&into.units.len())
                    {
                        let place = format!("/step_offsets, sample {index}");
                        return Err(file.wrong(&place, "other entries", "ascending from 0 to the number of spikes"));
                    }
                }
            }
        }
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        let per_sample = match self.kind {
            SourceKind::Images(map) => map.len(),
            SourceKind::Vectors(width) => 4 * width,
            SourceKind::Events { .. } => 0,
            SourceKind::Spikes { steps, .. } => 8 * (steps + 1),
        };
        Some(per_sample as u64 * self.labels.len() as u64 + 8 * self.offsets.last().unwrap_or(&0))
    }
}
