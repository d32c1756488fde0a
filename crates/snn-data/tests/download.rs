//! Downloads against a server of our own: resumed, verified, never half-there. No network is used.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use snn_data::download::{Downloaded, download_set};
use snn_data::registry::DataSet;
use snn_data::{DownloadOptions, Error, Progress, Result, Silent};

/// What the server does with one request.
#[derive(Debug, Clone)]
enum Reply {
    /// The file, or the rest of it that was asked for.
    File,
    /// The whole file, whatever was asked for.
    Whole,
    /// The whole file is promised, this many bytes come, then the connection closes.
    Drop(usize),
    /// Another range than the one asked for.
    WrongRange,
    /// A status without a body.
    Status(u16),
}

/// Path and range of every request.
type Requests = Vec<(String, Option<usize>)>;

/// A server that follows a script per path; the last reply of a script repeats.
struct Server {
    address: String,
    seen: Arc<Mutex<Requests>>,
}

impl Server {
    fn new(files: &[(&str, &[u8])], script: &[(&str, &[Reply])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files: HashMap<String, Vec<u8>> = files.iter().map(|(n, b)| (format!("/{n}"), b.to_vec())).collect();
        let mut script: HashMap<String, Vec<Reply>> =
            script.iter().map(|(n, r)| (format!("/{n}"), r.iter().rev().cloned().collect())).collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                serve(stream, &files, &mut script, &log);
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Requests {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    script: &mut HashMap<String, Vec<Reply>>,
    log: &Mutex<Requests>,
) {
    let (mut path, mut from) = (String::new(), None);
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap_or_default();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    log.lock().unwrap().push((path.trim_start_matches('/').to_owned(), from));
    let reply = match script.get_mut(&path) {
        Some(replies) if replies.len() > 1 => replies.pop().unwrap(),
        Some(replies) => replies[0].clone(),
        None if files.contains_key(&path) => Reply::File,
        None => Reply::Status(404),
    };
    let body = files.get(&path).cloned().unwrap_or_default();
    let start = from.unwrap_or(0);
    let (head, body) = match reply {
        Reply::File if from.is_some() && start >= body.len() => {
            ("HTTP/1.1 416 Range Not Satisfiable".to_owned(), vec![])
        }
        Reply::File if from.is_some() => {
            let range = format!("Content-Range: bytes {start}-{}/{}", body.len() - 1, body.len());
            (format!("HTTP/1.1 206 Partial Content\r\n{range}"), body[start..].to_vec())
        }
        Reply::WrongRange if from.is_some() => {
            let range = format!("Content-Range: bytes 0-{}/{}", body.len() - 1, body.len());
            (format!("HTTP/1.1 206 Partial Content\r\n{range}"), body)
        }
        Reply::File | Reply::Whole | Reply::WrongRange => ("HTTP/1.1 200 OK".to_owned(), body),
        Reply::Drop(after) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..after]));
            return;
        }
        Reply::Status(code) => (format!("HTTP/1.1 {code} As Scripted"), vec![]),
    };
    let head = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
fn content() -> Vec<u8> {
    let mix =
        |i: u64| (i ^ (i >> 7)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (0..100_000).map(|i| (mix(mix(i)) >> 56) as u8).collect()
}

/// A data set of one file, `data.gz`, packed with level 6.
fn set(urls: &[&str]) -> DataSet {
    let packed = gzip(&content(), 6);
    let urls: Vec<_> = urls.iter().map(|u| format!("\"{u}/\"")).collect();
    toml::from_str(&format!(
        r#"
        name = "toy"
        title = "A toy"
        folder = "toy"
        format = "idx"
        licence = "none"
        homepage = "none"
        class_count = 2
        splits = [{{ name = "train", samples = 1, parts = ["data"] }}]
        [[group]]
        urls = [{}]
        files = [{{ name = "data.gz", size = {}, digests = ["sha256:{}"], content = ["sha256:{}"] }}]
        "#,
        urls.join(", "),
        packed.len(),
        sha256(&packed),
        sha256(&content()),
    ))
    .unwrap()
}

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> DownloadOptions {
        let data_dir = self.folder.path().to_owned();
        DownloadOptions { data_dir, retries: 2, retry_wait: Duration::from_millis(1), ..DownloadOptions::default() }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("downloads/toy").join(name)
    }

    /// Names of all files in the download folder.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path().join("downloads/toy"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fetch(&self, set: &DataSet) -> Result<Downloaded> {
        download_set(set, &self.options(), &mut Silent)
    }
}

#[test]
fn a_file_is_fetched_once() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let (home, set) = (Home::new(), set(&[&server.address]));
    let done = home.fetch(&set).unwrap();
    assert_eq!((done.fetched, done.label, done.files), (1, None, vec![home.file("data.gz")]));
    assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
    assert_eq!(home.files(), ["data.gz", "snn-data.json"]);
    assert_eq!(home.fetch(&set).unwrap().fetched, 0);
    assert_eq!(server.seen(), [("data.gz".to_owned(), None)]);
}

#[test]
fn a_dropped_connection_is_resumed() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[("data.gz", &[Reply::Drop(70_000), Reply::File])]);
    let home = Home::new();
    home.fetch(&set(&[&server.address])).unwrap();
    assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
    assert_eq!(server.seen(), [("data.gz".to_owned(), None), ("data.gz".to_owned(), Some(70_000))]);
}

#[test]
fn an_interrupted_download_is_resumed_by_the_next_run() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let home = Home::new();
    std::fs::create_dir_all(home.file("x").parent().unwrap()).unwrap();
    std::fs::write(home.file("data.gz.part"), &packed[..1000]).unwrap();
    home.fetch(&set(&[&server.address])).unwrap();
    assert_eq!(server.seen(), [("data.gz".to_owned(), Some(1000))]);
    assert_eq!(home.files(), ["data.gz", "snn-data.json"]);
}

#[test]
fn a_complete_part_file_is_recognised() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let home = Home::new();
    std::fs::create_dir_all(home.file("x").parent().unwrap()).unwrap();
    std::fs::write(home.file("data.gz.part"), &packed).unwrap();
    home.fetch(&set(&[&server.address])).unwrap();
    assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
}

#[test]
fn a_part_of_another_file_is_thrown_away() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let home = Home::new();
    for rubbish in [vec![7; 500], vec![7; packed.len() + 5]] {
        std::fs::create_dir_all(home.file("x").parent().unwrap()).unwrap();
        std::fs::write(home.file("data.gz.part"), rubbish).unwrap();
        home.fetch(&set(&[&server.address])).unwrap();
        assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
        std::fs::remove_file(home.file("data.gz")).unwrap();
    }
}

#[test]
fn a_server_without_ranges_starts_again() {
    let packed = gzip(&content(), 6);
    for reply in [Reply::Whole, Reply::WrongRange] {
        let server = Server::new(&[("data.gz", &packed)], &[("data.gz", &[Reply::Drop(9_000), reply])]);
        let home = Home::new();
        home.fetch(&set(&[&server.address])).unwrap();
        assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
    }
}

#[test]
fn the_next_mirror_is_asked_when_one_fails() {
    let packed = gzip(&content(), 6);
    for code in [404, 403, 500, 503] {
        let bad = Server::new(&[], &[("data.gz", &[Reply::Status(code)])]);
        let good = Server::new(&[("data.gz", &packed)], &[]);
        let home = Home::new();
        home.fetch(&set(&[&bad.address, &good.address])).unwrap();
        assert_eq!((bad.seen().len(), good.seen().len()), (1, 1), "status {code}");
    }
    // A mirror with other contents under the name is passed over as well.
    let wrong = Server::new(&[("data.gz", b"something else")], &[]);
    let good = Server::new(&[("data.gz", &packed)], &[]);
    let home = Home::new();
    home.fetch(&set(&[&wrong.address, &good.address])).unwrap();
    assert_eq!(std::fs::read(home.file("data.gz")).unwrap(), packed);
}

#[test]
fn a_wrong_checksum_says_both_and_keeps_nothing() {
    let server = Server::new(&[("data.gz", b"something else")], &[]);
    let home = Home::new();
    let error = home.fetch(&set(&[&server.address])).unwrap_err();
    let Error::Checksum { got, want, .. } = &error else { panic!("{error}") };
    assert!(got.contains(&sha256(b"something else")) && got.contains("14 bytes"), "{got}");
    assert!(want.contains(&sha256(&gzip(&content(), 6))), "{want}");
    assert!(error.to_string().contains("accept it as non-standard"));
    assert_eq!(home.files(), [""; 0]);
    assert_eq!(server.seen().len(), 1, "asking again for the wrong file is no use");
}

#[test]
fn the_same_content_packed_again_is_accepted() {
    let again = gzip(&content(), 1);
    assert_ne!(again, gzip(&content(), 6));
    let server = Server::new(&[("data.gz", &again)], &[]);
    let home = Home::new();
    assert_eq!(home.fetch(&set(&[&server.address])).unwrap().label, None);
    // And unpacked, from a mirror that has it so.
    let plain = Server::new(&[("data", &content())], &[]);
    let home = Home::new();
    let options = DownloadOptions { mirror: Some(format!("{}/", plain.address)), ..home.options() };
    let done = download_set(&set(&[]), &options, &mut Silent).unwrap();
    assert_eq!((done.label, done.files), (None, vec![home.file("data")]));
}

#[test]
fn a_copy_that_is_accepted_carries_a_label() {
    let mirror = tempfile::tempdir().unwrap();
    let folder = mirror.path().join("toy-subset");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("data.gz"), gzip(b"a subset", 6)).unwrap();
    let (home, set) = (Home::new(), set(&["http://127.0.0.1:9"]));
    let strict = DownloadOptions { mirror: Some(folder.to_str().unwrap().into()), ..home.options() };
    assert!(matches!(download_set(&set, &strict, &mut Silent), Err(Error::Checksum { .. })));
    assert_eq!(home.files(), [""; 0]);

    let lenient = DownloadOptions { accept_nonstandard: true, ..strict };
    let done = download_set(&set, &lenient, &mut Silent).unwrap();
    assert_eq!((done.fetched, done.label.as_deref()), (1, Some("toy-subset")));
    // What was accepted once serves offline without asking again.
    let offline = DownloadOptions { offline: true, ..home.options() };
    assert_eq!(download_set(&set, &offline, &mut Silent).unwrap().label.as_deref(), Some("toy-subset"));
}

#[test]
fn the_published_file_replaces_a_labelled_copy() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let mirror = tempfile::tempdir().unwrap();
    std::fs::write(mirror.path().join("data"), b"a subset").unwrap();
    let (home, set) = (Home::new(), set(&[&server.address]));
    let mirror = Some(mirror.path().to_str().unwrap().to_owned());
    let lenient = DownloadOptions { mirror, accept_nonstandard: true, ..home.options() };
    assert!(download_set(&set, &lenient, &mut Silent).unwrap().label.is_some());
    assert_eq!(home.files(), ["data", "snn-data.json"]);
    assert_eq!(home.fetch(&set).unwrap().label, None);
    assert_eq!(home.files(), ["data.gz", "snn-data.json"]);
}

#[test]
fn offline_never_asks_the_network() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[]);
    let (home, set) = (Home::new(), set(&[&server.address]));
    let offline = DownloadOptions { offline: true, ..home.options() };
    let error = download_set(&set, &offline, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("cannot fetch data.gz") && error.contains("network is not to be used"), "{error}");
    assert_eq!(server.seen(), []);
    std::fs::write(home.file("data.gz"), &packed).unwrap();
    assert_eq!(download_set(&set, &offline, &mut Silent).unwrap().fetched, 0);
}

#[test]
fn failures_name_every_address() {
    let gone = Server::new(&[], &[]);
    let home = Home::new();
    let set = set(&[&gone.address, "http://127.0.0.1:9"]);
    let error = home.fetch(&set).unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("127.0.0.1:9"), "{error}");
    assert_eq!(gone.seen().len(), 1, "what is not there is not asked for again");
    let nowhere = DownloadOptions { mirror: Some("/no/such/folder".into()), ..home.options() };
    let error = download_set(&set, &nowhere, &mut Silent).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/folder: cannot read"), "{error}");
}

#[test]
fn a_server_that_always_drops_leaves_a_part_and_no_file() {
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[("data.gz", &[Reply::Drop(500)])]);
    let home = Home::new();
    assert!(matches!(home.fetch(&set(&[&server.address])), Err(Error::Download { .. })));
    assert_eq!(home.files(), ["data.gz.part"]);
    assert_eq!(server.seen().len(), 3, "one try and two more");
}

/// Where the system has a device that is always full.
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    #[cfg(unix)]
    {
        let packed = gzip(&content(), 6);
        let server = Server::new(&[("data.gz", &packed)], &[]);
        let home = Home::new();
        std::fs::create_dir_all(home.file("x").parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", home.file("data.gz.part")).unwrap();
        let error = home.fetch(&set(&[&server.address])).unwrap_err();
        assert!(matches!(&error, Error::Io { action: "write", .. }), "{error:?}");
        assert!(error.to_string().contains("data.gz.part: cannot write"), "{error}");
        assert!(!home.file("data.gz").exists());
    }
}

#[test]
fn progress_counts_every_byte() {
    #[derive(Default)]
    struct Count(u64, Option<u64>);
    impl Progress for Count {
        fn start(&mut self, what: &str, total: Option<u64>) {
            assert_eq!(what, "data.gz");
            *self = Self(0, total);
        }
        fn advance(&mut self, amount: u64) {
            self.0 += amount;
        }
        fn finish(&mut self) {}
    }
    let packed = gzip(&content(), 6);
    let server = Server::new(&[("data.gz", &packed)], &[("data.gz", &[Reply::Drop(1234), Reply::File])]);
    let (home, mut count) = (Home::new(), Count::default());
    download_set(&set(&[&server.address]), &home.options(), &mut count).unwrap();
    assert_eq!((count.0, count.1), (packed.len() as u64, Some(packed.len() as u64)));
}

#[test]
fn weights_are_taken_from_a_file_that_can_be_read() {
    let home = tempfile::tempdir().unwrap();
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/ttfs/keras_vgg_tiny.h5");
    let options = |mirror: Option<&std::path::Path>| DownloadOptions {
        data_dir: home.path().join("data"),
        mirror: mirror.map(|m| m.to_str().unwrap().to_owned()),
        ..DownloadOptions::default()
    };
    let get = |mirror| snn_data::download("cifar10vgg", &options(mirror), &mut snn_data::Silent);
    let text = |mirror| get(mirror).unwrap_err().to_string();
    let e = text(None);
    assert!(e.contains("https://github.com/geifmany/cifar-vgg") && e.contains("--from FILE"), "{e}");
    assert!(text(Some(home.path())).contains("cannot fetch cifar10vgg.h5: not in "));
    assert!(text(Some("https://example.org/".as_ref())).contains("from a file or a folder only"));
    let damaged = home.path().join("cifar10vgg.h5");
    std::fs::write(&damaged, b"no such thing").unwrap();
    assert!(text(Some(home.path())).contains("cifar10vgg.h5: signature: no HDF5 signature"));
    assert!(!home.path().join("data").exists(), "nothing half-there");

    let got = get(Some(&fixture)).unwrap();
    let path = home.path().join("data/downloads/cifar10vgg/cifar10vgg.h5");
    assert_eq!((got.fetched, &got.files[..]), (1, &[path.clone()][..]));
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&fixture).unwrap());
    assert_eq!(get(None).unwrap().fetched, 0);
    std::fs::copy(&fixture, &damaged).unwrap();
    assert_eq!(get(Some(home.path())).unwrap().fetched, 1);

    let e = snn_data::convert("cifar10vgg", home.path(), &mut snn_data::Silent).unwrap_err().to_string();
    assert_eq!(
        e,
        "cifar10vgg: weights of a model, without samples, expected a data set; import them with `snn import \
         cifar10vgg.h5 --as PRESET --out DIR`"
    );
}
