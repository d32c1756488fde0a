//! The Allen Cell Types Database: which cells there are, what is known of them, and their recordings.
//!
//! The service answers queries of the form (RMA, "RESTful model access")
//!
//! ```text
//! BASE/api/v2/data/query.json?q=model::MODEL,rma::criteria,...,rma::options[num_rows$eq2000][start_row$eq0]
//! ```
//!
//! with an envelope `{"success": .., "start_row": .., "num_rows": .., "total_rows": .., "msg": [rows]}`; pages are asked
//! for until all rows are there. Files lie below
//!
//! | path | what |
//! |---|---|
//! | `cells.json` | rows of `ApiCellTypesSpecimenDetail`: every cell |
//! | `ephys_features.csv` | rows of `EphysFeature` |
//! | `specimen_ID/ephys_sweeps.json` | rows of `EphysSweep` of one cell |
//! | `specimen_ID/ephys.nwb` | its recording, NWB 1.x, tens to hundreds of MB |
//!
//! as the AllenSDK puts them. No checksums of recordings are published: a file is taken if it came complete, has the
//! signature of HDF5 and can be opened with sweeps in it. Nothing of it is known beyond that.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::blocking::Client;
use serde_json::{Map, Value};

use super::nwb::NwbFile;
use crate::download::{DownloadOptions, Downloaded, Transfer, chain, client, copy_file, is_address, transfer};
use crate::error::{Error, Result};
use crate::h5;
use crate::progress::Progress;
use crate::registry::{self, Recordings};
use crate::store::{Temporary, publish};

/// Rows of one page.
const PAGE: u64 = 2000;
/// The most rows of a query.
const MOST_ROWS: u64 = 1_000_000;
/// The most bytes of an answer, and of a table on disk.
const MOST_BYTES: u64 = 1 << 28;
const CELLS: &str = "cells.json";
const FEATURES: &str = "ephys_features.csv";
const SWEEPS: &str = "ephys_sweeps.json";
const NWB: &str = "ephys.nwb";

/// A cell of the database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// The number of the specimen.
    pub id: u64,
    /// The name of the specimen.
    pub name: Option<String>,
    /// The species of the donor, for example `Mus musculus`.
    pub species: Option<String>,
    /// The cortical layer, for example `4` or `2/3`.
    pub layer: Option<String>,
    /// The disease of the donor; nothing for none.
    pub disease: Option<String>,
    /// The kind of dendrite: `spiny`, `aspiny`, `sparsely spiny`.
    pub dendrite: Option<String>,
    /// The transgenic line.
    pub line: Option<String>,
    /// What to print beside results if this is no cell of the database.
    pub label: Option<String>,
    /// Of a synthetic cell the parameters that made it.
    pub truth: Option<BTreeMap<String, f64>>,
}

/// What was measured of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Features {
    /// The number of the specimen.
    pub id: u64,
    /// The resting potential, mV.
    pub rest_mv: Option<f64>,
    /// The voltage at threshold during long square currents, mV.
    pub threshold_mv: Option<f64>,
}

/// A sweep of a cell, as the service lists it; the file may lack some.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepRow {
    /// The number of the sweep.
    pub number: u32,
    /// The stimulus, for example `Noise 1`.
    pub stimulus: String,
    /// How many spikes were found in it.
    pub spikes: Option<u64>,
}

fn text(row: &Value, key: &str) -> Option<String> {
    row.get(key).and_then(Value::as_str).map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

fn number(row: &Value, key: &str) -> Option<f64> {
    row.get(key).and_then(|v| v.as_f64().or_else(|| v.as_str()?.trim().parse().ok())).filter(|x| x.is_finite())
}

fn whole(row: &Value, key: &str) -> Option<u64> {
    number(row, key).filter(|x| *x >= 0.0 && *x < 9e15 && x.fract() == 0.0).map(|x| x as u64)
}

impl Cell {
    /// A row of the cell table; nothing if it names no specimen.
    fn parse(row: &Value) -> Option<Self> {
        // A layer can be the string "4" or the number.
        let layer = text(row, "structure__layer").or_else(|| whole(row, "structure__layer").map(|n| n.to_string()));
        let truth = row.get("true_parameters").and_then(Value::as_object);
        Some(Self {
            id: whole(row, "specimen__id")?,
            name: text(row, "specimen__name"),
            species: text(row, "donor__species"),
            layer,
            disease: text(row, "donor__disease_state"),
            dendrite: text(row, "tag__dendrite_type"),
            line: text(row, "line_name"),
            label: text(row, "synthetic"),
            truth: truth.map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_f64()?))).collect()),
        })
    }
}

impl Features {
    fn parse(row: &Value) -> Option<Self> {
        let id = whole(row, "specimen_id")?;
        Some(Self { id, rest_mv: number(row, "vrest"), threshold_mv: number(row, "threshold_v_long_square") })
    }
}

impl SweepRow {
    fn parse(row: &Value) -> Option<Self> {
        let number = u32::try_from(whole(row, "sweep_number")?).ok()?;
        Some(Self { number, stimulus: text(row, "stimulus_name")?, spikes: whole(row, "num_spikes") })
    }
}

/// Which cells are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The species of the donor.
    pub species: Option<String>,
    /// The cortical layer.
    pub layer: Option<String>,
    /// Whether donors with a disease are left out.
    pub healthy: bool,
    /// The kind of dendrite.
    pub dendrite: Option<String>,
    /// A stimulus that must be there.
    pub fit: String,
    /// A stimulus that must be there `repeats` times.
    pub test: String,
    /// How often.
    pub repeats: usize,
}

impl Default for Selection {
    /// The published rule: mice without disease, layer 4, `Noise 1`, and exactly four times `Noise 2`.
    fn default() -> Self {
        Self {
            species: Some("Mus musculus".into()),
            layer: Some("4".into()),
            healthy: true,
            dendrite: None,
            fit: "Noise 1".into(),
            test: "Noise 2".into(),
            repeats: 4,
        }
    }
}

impl Selection {
    /// Whether what is known of the cell itself is right.
    #[must_use]
    pub fn takes_cell(&self, cell: &Cell) -> bool {
        let same = |want: &Option<String>, got: &Option<String>| want.is_none() || want == got;
        same(&self.species, &cell.species)
            && same(&self.layer, &cell.layer)
            && same(&self.dendrite, &cell.dendrite)
            && !(self.healthy && cell.disease.is_some())
    }

    /// Whether the sweeps are those that are needed.
    #[must_use]
    pub fn takes_sweeps(&self, sweeps: &[SweepRow]) -> bool {
        let count = |name: &str| sweeps.iter().filter(|s| s.stimulus == name).count();
        count(&self.fit) > 0 && count(&self.test) == self.repeats
    }
}

/// The cells that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These specimens.
    Listed(Vec<u64>),
    /// All of the database that the rule takes.
    Selected(Selection),
}

/// The folder of downloaded recordings.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("downloads").join("allen-cells")
}

/// Where the recording of a specimen lies in a folder of recordings.
#[must_use]
pub fn nwb_path(folder: &Path, id: u64) -> PathBuf {
    specimen_folder(folder, id).join(NWB)
}

pub(crate) fn specimen_folder(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("specimen_{id}"))
}

/// The specimens whose recordings lie in a folder, ascending.
#[must_use]
pub fn specimens(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("specimen_")?.parse::<u64>().ok());
    let mut ids: Vec<u64> = names.filter(|&id| nwb_path(folder, id).is_file()).collect();
    ids.sort_unstable();
    ids
}

/// The cell table of a folder; empty if there is none.
///
/// # Errors
///
/// [`Error::Malformed`] if it is no list of rows.
pub fn read_cells(folder: &Path) -> Result<Vec<Cell>> {
    Ok(read_rows(&folder.join(CELLS))?.iter().filter_map(Cell::parse).collect())
}

/// The features of the cells of a folder; empty if there is no such table.
///
/// # Errors
///
/// [`Error::Malformed`] if the table has no column `specimen_id`, or a row of another length.
pub fn read_features(folder: &Path) -> Result<Vec<Features>> {
    let path = folder.join(FEATURES);
    let Some(text) = read_text(&path)? else { return Ok(Vec::new()) };
    let mut lines = text.lines().filter(|l| !l.trim().is_empty()).enumerate();
    let head = lines.next().map(|(_, line)| split(line)).unwrap_or_default();
    if !head.iter().any(|h| h == "specimen_id") {
        return Err(Error::malformed(&path, "line 1", "no column specimen_id", "the table of features"));
    }
    let mut features = Vec::new();
    for (at, line) in lines {
        let fields = split(line);
        if fields.len() != head.len() {
            let got = format!("{} fields", fields.len());
            return Err(Error::malformed(&path, format!("line {}", at + 1), got, format!("{}", head.len())));
        }
        let row: Map<String, Value> = head.iter().cloned().zip(fields.into_iter().map(Value::String)).collect();
        features.extend(Features::parse(&Value::Object(row)));
    }
    Ok(features)
}

/// The sweeps of a specimen in a folder, as the service lists them; empty if there is no list.
///
/// # Errors
///
/// [`Error::Malformed`] if it is no list of rows.
pub fn read_sweeps(folder: &Path, id: u64) -> Result<Vec<SweepRow>> {
    let rows = read_rows(&specimen_folder(folder, id).join(SWEEPS))?;
    Ok(rows.iter().filter_map(SweepRow::parse).collect())
}

fn read_text(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
    let bytes = crate::archive::read_limited(file, MOST_BYTES, path, "table")?;
    String::from_utf8(bytes).map(Some).map_err(|_| Error::malformed(path, "table", "other bytes", "text in UTF-8"))
}

fn read_rows(path: &Path) -> Result<Vec<Value>> {
    let Some(text) = read_text(path)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|e| Error::malformed(path, "table", e.to_string(), "a JSON list of rows"))
}

/// Writes a table of rows as a JSON list.
pub(crate) fn write_rows(path: &Path, rows: &[Value]) -> Result<()> {
    let text = serde_json::to_string_pretty(rows).expect("rows are plain values") + "\n";
    write_text(path, &text)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    let temporary = Temporary::beside(path)?;
    std::fs::write(&temporary.path, text).map_err(Error::io(&temporary.path, "write"))?;
    temporary.keep(path)
}

/// The fields of a line, quoted or not.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields.iter().map(|f| f.trim().to_owned()).collect()
}

/// Writes rows as a table with the columns of all of them.
pub(crate) fn write_csv(path: &Path, rows: &[Value]) -> Result<()> {
    let mut columns: Vec<&String> = rows.iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    columns.sort_unstable();
    columns.dedup();
    let field = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => format!("\"{}\"", s.replace('"', "\"\"").replace(['\n', '\r'], " ")),
        Some(other) => other.to_string(),
    };
    let mut text = columns.iter().map(|c| c.as_str()).collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        let fields: Vec<String> = columns.iter().map(|&c| field(row.get(c))).collect();
        text += &(fields.join(",") + "\n");
    }
    write_text(path, &text)
}

pub(crate) const TABLES: [&str; 2] = [CELLS, FEATURES];
pub(crate) const SWEEP_TABLE: &str = SWEEPS;

/// The service that answers queries.
#[derive(Debug)]
pub struct Service<'a> {
    base: String,
    client: Client,
    options: &'a DownloadOptions,
}

impl<'a> Service<'a> {
    /// A service at `base`, for example `http://api.brain-map.org`.
    ///
    /// # Errors
    ///
    /// [`Error::Download`] if no connection can be made on this machine at all.
    pub fn new(base: &str, options: &'a DownloadOptions) -> Result<Self> {
        let client = client(base)?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, options })
    }

    /// All cells, as rows.
    ///
    /// # Errors
    ///
    /// As [`Service::query`].
    pub fn cells(&self) -> Result<Vec<Value>> {
        self.query("ApiCellTypesSpecimenDetail", "", "specimen__id")
    }

    /// What was measured of the cells that passed, as rows.
    ///
    /// # Errors
    ///
    /// As [`Service::query`].
    pub fn features(&self) -> Result<Vec<Value>> {
        self.query("EphysFeature", ",rma::criteria,specimen(ephys_result[failed$eqfalse])", "id")
    }

    /// The sweeps of a specimen in the order of their numbers, as rows.
    ///
    /// # Errors
    ///
    /// As [`Service::query`].
    pub fn sweeps(&self, id: u64) -> Result<Vec<Value>> {
        let mut rows = self.query("EphysSweep", &format!(",rma::criteria,[specimen_id$eq{id}]"), "sweep_number")?;
        rows.sort_by_key(|row| whole(row, "sweep_number"));
        Ok(rows)
    }

    /// The address of the recording of a specimen.
    ///
    /// # Errors
    ///
    /// As [`Service::query`]; [`Error::Config`] if there is no such specimen or it has no recording.
    pub fn recording(&self, id: u64) -> Result<String> {
        let stages = format!(
            ",rma::criteria,[id$eq{id}],ephys_result(well_known_files(well_known_file_type[name$eqNWBDownload])),\
             rma::include,ephys_result(well_known_files(well_known_file_type))"
        );
        let rows = self.query("Specimen", &stages, "id")?;
        let files = |row: &Value| row["ephys_result"]["well_known_files"].as_array().cloned().unwrap_or_default();
        let is_nwb = |file: &Value| file["well_known_file_type"]["name"] == "NWBDownload";
        let file = rows.iter().flat_map(files).find(is_nwb);
        match file.as_ref().and_then(|f| text(f, "download_link")) {
            Some(link) if is_address(&link) => Ok(link),
            Some(link) => Ok(format!("{}/{}", self.base, link.trim_start_matches('/'))),
            None => Err(self.unknown(id)),
        }
    }

    fn unknown(&self, id: u64) -> Error {
        let want = "the number of a specimen with a recording; see https://celltypes.brain-map.org/data";
        Error::config(format!("specimen {id}"), format!("not in the database at {}", self.base), want)
    }

    /// Every row of a model, page by page.
    ///
    /// `stages` are those after the model, from their comma on; `order` is the column by which pages are ordered.
    ///
    /// # Errors
    ///
    /// [`Error::Download`] if the service does not answer, answers with something else, or says that it failed.
    pub fn query(&self, model: &str, stages: &str, order: &str) -> Result<Vec<Value>> {
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let start = rows.len();
            let query = format!(
                "model::{model}{stages},rma::options[num_rows$eq{PAGE}][start_row$eq{start}][order$eq'{order}']"
            );
            let address = format!("{}/api/v2/data/query.json?q={}", self.base, encode(&query));
            let failed = |reason: String| Error::Download { file: model.to_owned(), reason };
            let answer = self.get(model, &address)?;
            let answer: Value =
                serde_json::from_slice(&answer).map_err(|e| failed(format!("{address}: no JSON: {e}")))?;
            if answer["success"] != true {
                let said = answer["msg"].as_str().map_or_else(|| answer["msg"].to_string(), str::to_owned);
                let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
                return Err(failed(format!("{}: the service says: {said}", self.base)));
            }
            let Value::Array(page) = &answer["msg"] else {
                return Err(failed(format!("{}: an answer without rows", self.base)));
            };
            let total = whole(&answer, "total_rows").unwrap_or((start + page.len()) as u64);
            if total > MOST_ROWS {
                return Err(failed(format!("{}: {total} rows, expected at most {MOST_ROWS}", self.base)));
            }
            rows.extend(page.iter().cloned());
            if rows.len() as u64 >= total {
                return Ok(rows);
            }
            if page.is_empty() {
                return Err(failed(format!("{}: {} rows came of {total}", self.base, rows.len())));
            }
        }
    }

    /// The body at an address.
    fn get(&self, what: &str, address: &str) -> Result<Vec<u8>> {
        let mut reason = String::new();
        for round in 0..=self.options.retries {
            if round > 0 {
                std::thread::sleep(self.options.retry_wait * round);
            }
            match self.client.get(address).send() {
                Ok(response) if response.status().is_success() => {
                    let mut bytes = Vec::new();
                    match response.take(MOST_BYTES).read_to_end(&mut bytes) {
                        Ok(_) => return Ok(bytes),
                        Err(e) => reason = chain(&e),
                    }
                }
                Ok(response) => {
                    reason = response.status().to_string();
                    if response.status().is_client_error() {
                        break;
                    }
                }
                Err(e) => reason = chain(&e.without_url()),
            }
        }
        Err(Error::Download { file: what.to_owned(), reason: format!("{address}: {reason}") })
    }

    /// Fetches the file at `address` to `path`, resuming what has come of it before.
    fn fetch(&self, address: &str, path: &Path, name: &str, progress: &mut dyn Progress) -> Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut failure = None;
        for round in 0..=self.options.retries {
            if round > 0 {
                std::thread::sleep(self.options.retry_wait * round);
            }
            let resumed = std::fs::metadata(&part).map_or(0, |m| m.len()) > 0;
            match transfer(&self.client, address, &part, None, name, progress)? {
                Transfer::Complete => match check_recording(&part) {
                    Ok(()) => return publish(&part, path),
                    Err(e) => {
                        let reason = format!("{address}: {}", said(&e));
                        std::fs::remove_file(&part).map_err(Error::io(&part, "remove"))?;
                        failure = Some(reason);
                        // What was resumed may be the rest of another file, and is then fetched from the start.
                        if !resumed {
                            break;
                        }
                    }
                },
                Transfer::Gone(reason) => {
                    failure = Some(format!("{address}: {reason}"));
                    break;
                }
                Transfer::Dropped(reason) => failure = Some(format!("{address}: {reason}")),
            }
        }
        Err(Error::Download { file: name.to_owned(), reason: failure.unwrap_or_default() })
    }
}

/// What an error says of a file, without its temporary name.
fn said(error: &Error) -> String {
    match error {
        Error::Malformed { place, got, want, .. } => format!("{place}: {got}, expected {want}"),
        other => other.to_string(),
    }
}

/// Whether a file can be a recording: complete, of HDF5, with sweeps.
fn check_recording(path: &Path) -> Result<()> {
    if h5::superblock(path)? != Some(0) {
        return Err(Error::malformed(path, "signature", "no HDF5 signature", "a recording in HDF5"));
    }
    NwbFile::open(path).map(|_| ())
}

/// A query as part of an address.
fn encode(query: &str) -> String {
    let mut out = String::new();
    for byte in query.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b'(' | b')' => {
                out.push(byte.into());
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

/// Makes sure that the recordings of the wanted cells are in [`folder`], from the service, or from the address or folder
/// that [`DownloadOptions::mirror`] names: a folder has the layout of this one.
///
/// What is there already stays as it is. Interrupted files are kept as `.part` and resumed.
///
/// # Errors
///
/// [`Error::Config`] if a specimen is not in the database; [`Error::Download`] if something cannot be fetched or is no
/// recording, in which case it is not kept; [`Error::Malformed`] if a table on disk is damaged; [`Error::Io`].
pub fn download(
    set: &Recordings,
    wanted: &Wanted,
    options: &DownloadOptions,
    progress: &mut dyn Progress,
) -> Result<Downloaded> {
    let folder = folder(&options.data_dir);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
    let complete = |id: &u64| nwb_path(&folder, *id).is_file() && specimen_folder(&folder, *id).join(SWEEPS).is_file();
    if let Wanted::Listed(ids) = wanted {
        let known = read_cells(&folder)?;
        let tables = TABLES.iter().all(|name| folder.join(name).is_file());
        if tables && ids.iter().all(|id| complete(id) && known.iter().any(|c| c.id == *id)) {
            return done(folder, ids, 0);
        }
    }
    let mirror = options.mirror.as_deref();
    if let Some(mirror) = mirror.filter(|m| !is_address(m)) {
        return copy(Path::new(mirror.strip_prefix("file://").unwrap_or(mirror)), folder, wanted, progress);
    }
    if options.offline {
        let reason = format!("not all in {}, and the network is not to be used", folder.display());
        return Err(Error::Download { file: set.name.clone(), reason });
    }
    let service = Service::new(mirror.unwrap_or(&set.base), options)?;
    let ids = tables(&service, &folder, wanted, progress)?;
    let mut fetched = 0;
    for id in &ids {
        let place = specimen_folder(&folder, *id);
        std::fs::create_dir_all(&place).map_err(Error::io(&place, "create"))?;
        let list = place.join(SWEEPS);
        if !list.is_file() {
            write_rows(&list, &service.sweeps(*id)?)?;
        }
        let path = nwb_path(&folder, *id);
        if !path.is_file() {
            let address = service.recording(*id)?;
            service.fetch(&address, &path, &format!("specimen_{id}/{NWB}"), progress)?;
            fetched += 1;
        }
    }
    if fetched > 0 {
        let name = &set.name;
        progress
            .note(&format!("{name}: no checksums are published; the files can be opened, more is not known of them"));
    }
    done(folder, &ids, fetched)
}

/// Fetches the tables of all cells where they are missing or do not know a cell; gives the specimens that are wanted.
fn tables(service: &Service<'_>, folder: &Path, wanted: &Wanted, progress: &mut dyn Progress) -> Result<Vec<u64>> {
    let mut cells = read_cells(folder)?;
    let lacks = |cells: &[Cell], id: &u64| cells.iter().all(|c| c.id != *id);
    let stale = match wanted {
        Wanted::Listed(ids) => ids.iter().any(|id| lacks(&cells, id)),
        Wanted::Selected(_) => cells.is_empty(),
    };
    if stale {
        let rows = service.cells()?;
        cells = rows.iter().filter_map(Cell::parse).collect();
        if let Wanted::Listed(ids) = wanted
            && let Some(id) = ids.iter().find(|id| lacks(&cells, id))
        {
            return Err(service.unknown(*id));
        }
        write_rows(&folder.join(CELLS), &rows)?;
    }
    if stale || !folder.join(FEATURES).is_file() {
        write_csv(&folder.join(FEATURES), &service.features()?)?;
    }
    let selection = match wanted {
        Wanted::Listed(ids) => return Ok(ids.clone()),
        Wanted::Selected(selection) => selection,
    };
    let measured: Vec<u64> = read_features(folder)?.iter().map(|f| f.id).collect();
    let mut ids: Vec<u64> = cells.iter().filter(|c| selection.takes_cell(c)).map(|c| c.id).collect();
    ids.retain(|id| measured.contains(id));
    let mut chosen = Vec::new();
    progress.start("sweeps", Some(ids.len() as u64));
    for id in ids {
        let list = specimen_folder(folder, id).join(SWEEPS);
        let sweeps = if list.is_file() {
            read_sweeps(folder, id)?
        } else {
            service.sweeps(id)?.iter().filter_map(SweepRow::parse).collect()
        };
        if selection.takes_sweeps(&sweeps) {
            chosen.push(id);
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(chosen)
}

/// Copies cells from another folder of the same layout.
fn copy(from: &Path, folder: PathBuf, wanted: &Wanted, progress: &mut dyn Progress) -> Result<Downloaded> {
    let there = specimens(from);
    let cells = read_cells(from)?;
    let ids: Vec<u64> = match wanted {
        Wanted::Listed(ids) => ids.clone(),
        Wanted::Selected(selection) => {
            let mut chosen = Vec::new();
            for cell in cells.iter().filter(|c| there.contains(&c.id) && selection.takes_cell(c)) {
                if selection.takes_sweeps(&read_sweeps(from, cell.id)?) {
                    chosen.push(cell.id);
                }
            }
            chosen
        }
    };
    if let Some(id) = ids.iter().find(|id| !there.contains(id)) {
        let list: Vec<String> = there.iter().take(20).map(u64::to_string).collect();
        let want = format!("one of those there: {}", list.join(", "));
        return Err(Error::config(format!("specimen {id}"), format!("not in {}", from.display()), want));
    }
    let mut take = |from: PathBuf, to: PathBuf, name: String| -> Result<bool> {
        if to.is_file() || !from.is_file() {
            return Ok(false);
        }
        let temporary = Temporary::beside(&to)?;
        copy_file(&from, &temporary.path, &name, progress)?;
        if name.ends_with(NWB) {
            check_recording(&temporary.path).map_err(|e| Error::Download {
                file: name.clone(),
                reason: format!("{}: {}", from.display(), said(&e)),
            })?;
        }
        temporary.keep(&to)?;
        Ok(true)
    };
    for name in TABLES {
        // A table that does not know the cells gives way to one that does.
        let (old, new) = (folder.join(name), from.join(name));
        if new.is_file() && old.is_file() {
            merge(&old, &new)?;
        } else {
            take(new, old, name.to_owned())?;
        }
    }
    let mut fetched = 0;
    for id in &ids {
        let (mine, theirs) = (specimen_folder(&folder, *id), specimen_folder(from, *id));
        take(theirs.join(SWEEPS), mine.join(SWEEPS), format!("specimen_{id}/{SWEEPS}"))?;
        fetched += usize::from(take(theirs.join(NWB), mine.join(NWB), format!("specimen_{id}/{NWB}"))?);
    }
    done(folder, &ids, fetched)
}

/// Adds the rows of a JSON table `new` that `old` lacks; a table of features is read as a whole and replaced.
fn merge(old: &Path, new: &Path) -> Result<()> {
    if old.extension().is_some_and(|e| e == "json") {
        let mut rows = read_rows(old)?;
        let known: Vec<Option<u64>> = rows.iter().map(|r| whole(r, "specimen__id")).collect();
        rows.extend(read_rows(new)?.into_iter().filter(|r| !known.contains(&whole(r, "specimen__id"))));
        return write_rows(old, &rows);
    }
    let (Some(mine), Some(theirs)) = (read_text(old)?, read_text(new)?) else { return Ok(()) };
    if mine.lines().next() == theirs.lines().next() {
        let known: Vec<&str> = mine.lines().collect();
        let more: Vec<&str> = theirs.lines().filter(|l| !known.contains(l)).collect();
        let lines: Vec<&str> = known.iter().copied().chain(more).collect();
        write_text(old, &(lines.join("\n") + "\n"))?;
    }
    Ok(())
}

fn done(folder: PathBuf, ids: &[u64], fetched: usize) -> Result<Downloaded> {
    let cells = read_cells(&folder)?;
    let label = cells.iter().filter(|c| ids.contains(&c.id)).find_map(|c| c.label.clone());
    let files = ids.iter().map(|&id| nwb_path(&folder, id)).collect();
    Ok(Downloaded { folder, files, fetched, label })
}

/// What is here of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellInfo {
    /// The cell; all but its number is empty where the cell table does not know it.
    pub cell: Cell,
    /// How many sweeps of each stimulus are listed, in the order of the names.
    pub sweeps: Vec<(String, usize)>,
    /// Bytes of the recording, if it is here.
    pub bytes: Option<u64>,
}

/// What is in a folder of recordings: the cells of `wanted`, here or not, and all others that are here.
///
/// # Errors
///
/// [`Error::Malformed`] if a table is damaged.
pub fn info(folder: &Path, wanted: &[u64]) -> Result<Vec<CellInfo>> {
    let cells = read_cells(folder)?;
    let mut ids = wanted.to_vec();
    ids.extend(specimens(folder).into_iter().filter(|id| !wanted.contains(id)));
    let mut infos = Vec::new();
    for id in ids {
        let cell = cells.iter().find(|c| c.id == id).cloned().unwrap_or(Cell { id, ..Cell::default() });
        let mut sweeps: BTreeMap<String, usize> = BTreeMap::new();
        for row in read_sweeps(folder, id)? {
            *sweeps.entry(row.stimulus).or_default() += 1;
        }
        let bytes = std::fs::metadata(nwb_path(folder, id)).ok().map(|m| m.len());
        infos.push(CellInfo { cell, sweeps: sweeps.into_iter().collect(), bytes });
    }
    Ok(infos)
}

/// The recordings of the registry under this name, if there are any.
#[must_use]
pub fn find(name: &str) -> Option<&'static Recordings> {
    registry::recordings().iter().find(|r| r.name == name)
}
