//! Fetching the files of a public data set: resumed, verified, never half-there.
//!
//! A file arrives as `<name>.part`, is compared with the published digests, and only then gets its name. What has the right
//! content in another packing is accepted by its content. A copy that is not the published one is refused, unless it
//! is asked for; then it carries a label, which every conversion and every result made of it repeats.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use md5::{Digest, Md5};
use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::header::{CONTENT_RANGE, RANGE};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::archive::{is_gzip, open_unpacked};
use crate::ephys::allen;
use crate::error::{Error, Result};
use crate::formats::keras;
use crate::progress::Progress;
use crate::registry::{self, DataSet, Group, RemoteFile, Weights};
use crate::store::{Temporary, data_dir, download_folder, publish};

/// No file of any set is larger; a server that sends more is not sending the file.
const MOST_BYTES: u64 = 32 << 30;
/// The record beside the downloaded files.
const MANIFEST: &str = "snn-data.json";

/// How to fetch.
#[derive(Debug, Clone, PartialEq)]
pub struct DownloadOptions {
    /// The folder with `downloads/` and `h5/`.
    pub data_dir: PathBuf,
    /// A folder or an address that holds the files, in place of the published addresses.
    pub mirror: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// Accept a copy whose digests are not the published ones, such as a subset or a look-alike, and label it.
    pub accept_nonstandard: bool,
    /// How often all addresses are tried again after a failure that may pass.
    pub retries: u32,
    /// The pause before trying again; it grows with every round.
    pub retry_wait: Duration,
}

impl Default for DownloadOptions {
    /// Into the folder of [`data_dir`], from the published addresses, three more rounds after the first.
    fn default() -> Self {
        Self {
            data_dir: data_dir(),
            mirror: None,
            offline: false,
            accept_nonstandard: false,
            retries: 3,
            retry_wait: Duration::from_secs(1),
        }
    }
}

/// What [`download`] has left on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Where the files are.
    pub folder: PathBuf,
    /// The files.
    pub files: Vec<PathBuf>,
    /// How many of them were fetched just now; the others were there already.
    pub fetched: usize,
    /// What to print beside results, if any file is not the published one.
    pub label: Option<String>,
}

/// Makes sure that the verified files of a public data set are in `data_dir/downloads/`.
///
/// Of recordings those cells are fetched that the registry lists; [`crate::ephys::allen::download`] fetches others.
///
/// Weights of a published model are copied there from [`DownloadOptions::mirror`], a file or a folder, and can be read.
///
/// # Errors
///
/// [`Error::UnknownSet`]; [`Error::Checksum`] if a file is not the published one, in which case it is not kept;
/// [`Error::Download`] if no address delivers it; [`Error::Io`] if it cannot be written. A download that was interrupted
/// is kept as `.part` and resumed next time.
pub fn download(name: &str, options: &DownloadOptions, progress: &mut dyn Progress) -> Result<Downloaded> {
    if let Some(weights) = registry::weights().iter().find(|w| w.name == name) {
        return take_weights(weights, options, progress);
    }
    if let Some(recordings) = allen::find(name) {
        return allen::download(recordings, &allen::Wanted::Listed(recordings.cells.clone()), options, progress);
    }
    download_set(registry::find(name)?, options, progress)
}

/// As [`download`], for a data set that need not be in the registry.
///
/// # Errors
///
/// As [`download`].
pub fn download_set(set: &DataSet, options: &DownloadOptions, progress: &mut dyn Progress) -> Result<Downloaded> {
    let folder = download_folder(&options.data_dir, set);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
    let mut fetcher = Fetcher { set, folder, options, client: None, manifest: Manifest::default(), fetched: 0 };
    fetcher.manifest = Manifest::read(&fetcher.folder);

    // What is complete already needs no network, whichever packing it has.
    for group in &set.groups {
        let present: Vec<_> =
            group.files.iter().filter_map(|f| fetcher.present(f).transpose()).collect::<Result<_>>()?;
        if present.len() == group.files.len() {
            return fetcher.done(present);
        }
    }
    let mut missing = None;
    for group in &set.groups {
        match fetcher.group(group, progress)? {
            Ok(files) => return fetcher.done(files),
            Err(NotThere(reason)) => {
                missing.get_or_insert((group.files[0].name.clone(), reason));
            }
        }
    }
    let (file, reason) = missing.expect("every set has a group");
    Err(Error::Download { file, reason })
}

/// Copies weights that somebody has fetched by hand, and looks whether they can be read.
fn take_weights(weights: &Weights, options: &DownloadOptions, progress: &mut dyn Progress) -> Result<Downloaded> {
    let folder = options.data_dir.join("downloads").join(&weights.name);
    let path = folder.join(&weights.file);
    let done = |fetched| Ok(Downloaded { folder: folder.clone(), files: vec![path.clone()], fetched, label: None });
    let by_hand = |reason: String| Error::Download { file: weights.file.clone(), reason };
    let Some(mirror) = options.mirror.as_deref() else {
        if path.is_file() {
            keras::read(&path)?;
            return done(0);
        }
        let reason = "it has no address of its own; take it from";
        return Err(by_hand(format!("{reason} {} and say where it is with `--from FILE`", weights.homepage)));
    };
    if is_address(mirror) {
        return Err(by_hand(format!("{mirror}: weights are taken from a file or a folder only")));
    }
    let given = Path::new(mirror.strip_prefix("file://").unwrap_or(mirror));
    let from = if given.is_dir() { given.join(&weights.file) } else { given.to_owned() };
    if !from.is_file() {
        return Err(by_hand(format!("not in {}", given.display())));
    }
    keras::read(&from)?;
    let copy = Temporary::beside(&path)?;
    copy_file(&from, &copy.path, &weights.file, progress)?;
    copy.keep(&path)?;
    let name = &weights.name;
    progress.note(&format!("{name}: no digest of this file is published; it can be read, more is not known of it"));
    done(1)
}

/// A file that no address of a group has; another packing may be there.
struct NotThere(String);

struct Fetcher<'a> {
    set: &'a DataSet,
    folder: PathBuf,
    options: &'a DownloadOptions,
    client: Option<Client>,
    manifest: Manifest,
    fetched: usize,
}

impl Fetcher<'_> {
    /// The stored copy of a file, if there is one that may be used.
    fn present(&mut self, file: &RemoteFile) -> Result<Option<String>> {
        for name in file.stored_names() {
            let path = self.folder.join(&name);
            if !path.is_file() {
                continue;
            }
            let identity = identify(self.set, &name, &path)?;
            let accepted = self.manifest.accepted(&name, &identity.sha256).is_some();
            // A labelled copy gives way to the published file, unless that cannot or shall not be fetched.
            let usable = self.options.accept_nonstandard || (accepted && self.options.offline);
            if identity.is_published() || usable {
                let label = (!identity.is_published() && !accepted).then(|| "non-standard copy".to_owned());
                if !accepted {
                    self.manifest.enter(&name, &identity, label);
                }
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Fetches what is missing of a group.
    fn group(&mut self, group: &Group, progress: &mut dyn Progress) -> Result<Result<Vec<String>, NotThere>> {
        let mut names = Vec::new();
        for file in &group.files {
            if let Some(name) = self.present(file)? {
                names.push(name);
                continue;
            }
            match self.file(group, file, progress)? {
                Ok(name) => {
                    self.fetched += 1;
                    names.push(name);
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(names))
    }

    /// Fetches one file and gives it its name.
    fn file(
        &mut self,
        group: &Group,
        file: &RemoteFile,
        progress: &mut dyn Progress,
    ) -> Result<Result<String, NotThere>> {
        match self.options.mirror.as_deref().map(|m| (m, is_address(m))) {
            Some((mirror, false)) => {
                let from = Path::new(mirror.strip_prefix("file://").unwrap_or(mirror));
                if !from.is_dir() {
                    let source = io::Error::new(io::ErrorKind::NotFound, "there is no such folder");
                    return Err(Error::Io { path: from.to_owned(), action: "read", source });
                }
                let Some(name) = file.stored_names().into_iter().find(|n| from.join(n).is_file()) else {
                    return Ok(Err(NotThere(format!("not in {}", from.display()))));
                };
                let copy = Temporary::beside(&self.folder.join(&name))?;
                copy_file(&from.join(&name), &copy.path, &name, progress)?;
                let identity = identify(self.set, &name, &copy.path)?;
                if !identity.is_published() && !self.options.accept_nonstandard {
                    return Err(identity.mismatch(&from.join(&name)));
                }
                copy.keep(&self.folder.join(&name))?;
                self.enter(&name, &identity)?;
                Ok(Ok(name))
            }
            _ if self.options.offline => {
                Ok(Err(NotThere(format!("not in {}, and the network is not to be used", self.folder.display()))))
            }
            Some((mirror, true)) => {
                let base = mirror.trim_end_matches('/');
                let mut reason = String::new();
                for name in file.stored_names() {
                    match self.fetch(file, &name, &[format!("{base}/{name}")], progress)? {
                        Ok(()) => return Ok(Ok(name)),
                        Err(NotThere(why)) => reason = why,
                    }
                }
                Ok(Err(NotThere(reason)))
            }
            None => {
                let addresses = match &file.url {
                    Some(url) => vec![url.clone()],
                    None => group.urls.iter().map(|base| format!("{base}{}", file.name)).collect(),
                };
                if addresses.is_empty() {
                    return Ok(Err(NotThere("it has no published address".into())));
                }
                Ok(self.fetch(file, &file.name, &addresses, progress)?.map(|()| file.name.clone()))
            }
        }
    }

    fn enter(&mut self, name: &str, identity: &Identity<'_>) -> Result<()> {
        let label = (!identity.is_published()).then(|| {
            let mirror = self.options.mirror.as_deref().unwrap_or_default().trim_end_matches('/');
            let folder = mirror.rsplit('/').next().unwrap_or_default();
            if folder.is_empty() || folder == "." { "non-standard copy".to_owned() } else { folder.to_owned() }
        });
        self.manifest.enter(name, identity, label);
        self.manifest.write(&self.folder)
    }

    /// Tries the addresses in turn, in several rounds, until a verified copy is there.
    fn fetch(
        &mut self,
        file: &RemoteFile,
        name: &str,
        addresses: &[String],
        progress: &mut dyn Progress,
    ) -> Result<Result<(), NotThere>> {
        let part = self.folder.join(format!("{name}.part"));
        let client = self.client()?;
        let mut reasons = BTreeMap::new();
        let mut gone = vec![false; addresses.len()];
        let mut mismatch = None;
        for round in 0..=self.options.retries {
            if round > 0 && gone.iter().all(|&g| g) {
                break;
            }
            if round > 0 {
                std::thread::sleep(self.options.retry_wait * round);
            }
            for (address, gone) in addresses.iter().zip(&mut gone).filter(|(_, gone)| !**gone) {
                // Two goes: what was resumed may be the rest of another file, and is then fetched from the start.
                for _ in 0..2 {
                    let resumed = std::fs::metadata(&part).map_or(0, |m| m.len()) > 0;
                    match transfer(&client, address, &part, file.size, name, progress)? {
                        Transfer::Complete => {
                            let identity = identify(self.set, name, &part)?;
                            let empty = identity.size == 0;
                            if identity.is_published() || (self.options.accept_nonstandard && !empty) {
                                publish(&part, &self.folder.join(name))?;
                                self.enter(name, &identity)?;
                                return Ok(Ok(()));
                            }
                            let error = identity.mismatch(Path::new(address));
                            reasons.insert(address.clone(), error.to_string());
                            mismatch = Some(error);
                            std::fs::remove_file(&part).map_err(Error::io(&part, "remove"))?;
                            *gone = !resumed;
                            if !resumed {
                                break;
                            }
                        }
                        Transfer::Gone(reason) => {
                            reasons.insert(address.clone(), reason);
                            *gone = true;
                            break;
                        }
                        Transfer::Dropped(reason) => {
                            reasons.insert(address.clone(), reason);
                            break;
                        }
                    }
                }
            }
        }
        let all_gone = gone.iter().all(|&g| g);
        let reason = reasons.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ");
        match mismatch {
            Some(error) => Err(error),
            None if all_gone => Ok(Err(NotThere(reason))),
            None => Err(Error::Download { file: name.to_owned(), reason }),
        }
    }

    fn client(&mut self) -> Result<Client> {
        if self.client.is_none() {
            self.client = Some(client(&self.set.name)?);
        }
        Ok(self.client.clone().expect("made above"))
    }

    /// Writes the record, and removes labelled copies that published files have replaced.
    fn done(mut self, names: Vec<String>) -> Result<Downloaded> {
        let all = self.set.groups.iter().flat_map(|g| &g.files).flat_map(RemoteFile::stored_names);
        for other in all.filter(|n| !names.contains(n)).collect::<Vec<_>>() {
            if self.manifest.files.get(&other).is_some_and(|f| f.label.is_some()) {
                let path = self.folder.join(&other);
                if path.is_file() {
                    std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
                }
                self.manifest.files.remove(&other);
            }
        }
        self.manifest.write(&self.folder)?;
        let label = names.iter().find_map(|n| self.manifest.files.get(n).and_then(|f| f.label.clone()));
        let files = names.iter().map(|n| self.folder.join(n)).collect();
        Ok(Downloaded { folder: self.folder, files, fetched: self.fetched, label })
    }
}

/// A client of the web, for what is called `name`.
pub(crate) fn client(name: &str) -> Result<Client> {
    static PROVIDER: Once = Once::new();
    // Fails only if somebody else has installed a provider, which will do as well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let client = Client::builder()
        .user_agent(concat!("snn-data/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        // No limit on the whole: a gigabyte on a slow line takes its time.
        .timeout(None)
        .build();
    client.map_err(|e| Error::Download { file: name.to_owned(), reason: chain(&e) })
}

pub(crate) fn is_address(mirror: &str) -> bool {
    mirror.starts_with("http://") || mirror.starts_with("https://")
}

/// How an attempt to fetch has ended.
pub(crate) enum Transfer {
    /// The part file is complete, as far as the server says.
    Complete,
    /// The server does not have it; asking again is no use.
    Gone(String),
    /// The connection failed; the part file holds what came.
    Dropped(String),
}

pub(crate) fn transfer(
    client: &Client,
    address: &str,
    part: &Path,
    size: Option<u64>,
    name: &str,
    progress: &mut dyn Progress,
) -> Result<Transfer> {
    let have = std::fs::metadata(part).map_or(0, |m| m.len());
    let mut request = client.get(address);
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let mut response = match request.send() {
        Ok(response) => response,
        Err(e) => return Ok(Transfer::Dropped(chain(&e))),
    };
    let status = response.status();
    let start = match status {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                // Not what was asked for: forget the part, the next round starts again.
                std::fs::remove_file(part).map_err(Error::io(part, "remove"))?;
                return Ok(Transfer::Dropped(format!("asked for bytes from {have}, was offered {range:?}")));
            }
            have
        }
        // Nothing lies beyond what is here: it is complete, or it is another file, which its digest will tell.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(Transfer::Complete),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            return Ok(Transfer::Dropped(status.to_string()));
        }
        _ if status.is_server_error() => return Ok(Transfer::Dropped(status.to_string())),
        _ => return Ok(Transfer::Gone(status.to_string())),
    };
    let total = response.content_length().map(|n| n + start).or(size);
    progress.start(name, total);
    progress.advance(start);
    let mut out = OpenOptions::new()
        .create(true)
        .write(true)
        .append(start > 0)
        .truncate(start == 0)
        .open(part)
        .map_err(Error::io(part, "create"))?;
    let mut buffer = vec![0; 1 << 16];
    let mut got = start;
    let end = loop {
        match response.read(&mut buffer) {
            Ok(0) => break Transfer::Complete,
            Ok(n) => {
                got += n as u64;
                if got > MOST_BYTES {
                    let reason = format!("{address} sends more than {MOST_BYTES} bytes");
                    return Err(Error::Download { file: name.to_owned(), reason });
                }
                out.write_all(&buffer[..n]).map_err(Error::io(part, "write"))?;
                progress.advance(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Transfer::Dropped(format!("connection lost after {got} bytes: {}", chain(&e))),
        }
    };
    out.flush().map_err(Error::io(part, "write"))?;
    progress.finish();
    Ok(match (end, total) {
        (Transfer::Complete, Some(total)) if got < total && size == Some(total) => {
            Transfer::Dropped(format!("connection closed after {got} of {total} bytes"))
        }
        (end, _) => end,
    })
}

pub(crate) fn copy_file(from: &Path, to: &Path, name: &str, progress: &mut dyn Progress) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from, "read"))?;
    let mut out = File::create(to).map_err(Error::io(to, "create"))?;
    progress.start(name, source.metadata().ok().map(|m| m.len()));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = source.read(&mut buffer).map_err(Error::io(from, "read"))?;
        if n == 0 {
            break;
        }
        out.write_all(&buffer[..n]).map_err(Error::io(to, "write"))?;
        progress.advance(n as u64);
    }
    progress.finish();
    Ok(())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = e.source();
    }
    text
}

/// What a file on disk is, by its digests.
pub(crate) struct Identity<'a> {
    file: Option<&'a RemoteFile>,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    digests: Vec<String>,
}

impl Identity<'_> {
    /// Whether any digest, packed or unpacked, is a published one.
    pub(crate) fn is_published(&self) -> bool {
        self.file.is_some_and(|f| self.digests.iter().any(|d| f.digests.contains(d) || f.content.contains(d)))
    }

    /// The error that says how it differs.
    pub(crate) fn mismatch(&self, file: &Path) -> Error {
        let known: Vec<_> =
            self.file.iter().flat_map(|f| f.digests.iter().chain(&f.content)).map(String::as_str).collect();
        let want = match (known.is_empty(), self.file.and_then(|f| f.size)) {
            (true, _) => "not known for this packing".to_owned(),
            (false, Some(size)) => format!("{} ({size} bytes)", known.join(" or ")),
            (false, None) => known.join(" or "),
        };
        let (stored, unpacked) = self.digests.split_at(2);
        let mut got = format!("{} ({} bytes)", stored.join(", "), self.size);
        if !unpacked.is_empty() {
            got = format!("{got}, unpacked {}", unpacked.join(", "));
        }
        Error::Checksum { file: file.to_owned(), got, want }
    }
}

/// Hashes the stored copy `name` of a file of `set`, and its unpacked content where the file itself is no published one.
pub(crate) fn identify<'a>(set: &'a DataSet, name: &str, path: &Path) -> Result<Identity<'a>> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let mut start = [0; 2];
    let read = file.read(&mut start).map_err(Error::io(path, "read"))?;
    let packed = is_gzip(&start[..read]);
    drop(file);
    let plain = File::open(path).map_err(Error::io(path, "read"))?;
    let (size, [md5, sha256]) = hash(plain).map_err(Error::io(path, "read"))?;
    let mut identity = Identity { file: set.file(name), size, sha256: sha256.clone(), digests: digests(&md5, &sha256) };
    if packed && !identity.is_published() {
        match hash(open_unpacked(path)?.take(MOST_BYTES)) {
            Ok((_, [md5, sha256])) => identity.digests.extend(digests(&md5, &sha256)),
            Err(e) => identity.digests.push(format!("damaged gzip: {e}")),
        }
    }
    Ok(identity)
}

fn digests(md5: &str, sha256: &str) -> Vec<String> {
    vec![format!("md5:{md5}"), format!("sha256:{sha256}")]
}

/// Bytes, MD5 and SHA-256.
fn hash(mut reader: impl Read) -> io::Result<(u64, [String; 2])> {
    let (mut md5, mut sha256, mut size) = (Md5::new(), Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                md5.update(&buffer[..n]);
                sha256.update(&buffer[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok((size, [hex(&md5.finalize()), hex(&sha256.finalize())]))
}

/// What is known of the files in a download folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) files: BTreeMap<String, Entry>,
}

/// A file that was verified, or accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// Nothing for the published file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

impl Manifest {
    /// Reads the record of a folder; a missing or damaged one says nothing.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join(MANIFEST)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The label under which exactly these bytes were accepted.
    pub(crate) fn accepted(&self, name: &str, sha256: &str) -> Option<&str> {
        let entry = self.files.get(name).filter(|f| f.sha256 == sha256)?;
        entry.label.as_deref()
    }

    fn enter(&mut self, name: &str, identity: &Identity<'_>, label: Option<String>) {
        let entry = Entry { size: identity.size, sha256: identity.sha256.clone(), label };
        self.files.insert(name.to_owned(), entry);
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let temporary = Temporary::beside(&path)?;
        let text = serde_json::to_string_pretty(self).expect("a map of plain values") + "\n";
        std::fs::write(&temporary.path, text).map_err(Error::io(&temporary.path, "write"))?;
        temporary.keep(&path)
    }
}
