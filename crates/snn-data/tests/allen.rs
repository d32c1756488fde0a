//! Fetching recordings from a service of our own on this machine: queries, pages, files. No network is used.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use snn_data::ephys::allen::{self, Selection, SweepRow, Wanted};
use snn_data::ephys::session::{self, SessionOptions};
use snn_data::ephys::{NwbFile, ReadOptions, Recording};
use snn_data::registry::Recordings;
use snn_data::{DownloadOptions, Silent};

/// How the service errs.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// `success` is false with these words.
    says: Option<&'static str>,
    /// Rows of a page.
    page: Option<usize>,
    /// Total rows that are claimed beyond those there are.
    more: usize,
    /// This many bytes of a file come at first, then the connection closes.
    drop: Option<usize>,
    /// Bytes in place of every file.
    file: Option<Vec<u8>>,
    /// The answer to every query.
    answer: Option<&'static str>,
    /// The status of the first answers.
    busy: usize,
}

struct Service {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

/// A recording as bytes: small, so that tests are quick.
static RECORDING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/alif-blocks/nwb_tiny_v11.nwb"))
        .unwrap()
});

fn cell(id: u64, layer: &str, species: &str, disease: Value) -> Value {
    json!({
        "specimen__id": id, "specimen__name": format!("cell {id}"), "structure__layer": layer, "donor__species": species,
        "donor__disease_state": disease, "tag__dendrite_type": "spiny", "line_name": "Scnn1a-Tg3-Cre",
    })
}

fn tables() -> HashMap<&'static str, Vec<Value>> {
    let mouse = "Mus musculus";
    let cells = vec![
        cell(11, "4", mouse, json!("")),
        cell(12, "4", mouse, Value::Null),
        cell(13, "2/3", mouse, json!("")),
        cell(14, "4", "Homo Sapiens", json!("")),
        cell(15, "4", mouse, json!("epilepsy")),
        cell(16, "4", mouse, json!("")),
        cell(17, "4", mouse, json!("")),
    ];
    // 16 is not measured, 17 has three repetitions.
    let feature =
        |id: u64| json!({"specimen_id": id, "vrest": -70.5, "threshold_v_long_square": -41.25, "note": "a \"b\", c"});
    let features = [11, 12, 13, 14, 15, 17].map(feature).to_vec();
    let sweep = |id: u64, number: u32, name: &str| json!({"specimen_id": id, "sweep_number": number, "stimulus_name": name, "num_spikes": 3});
    let mut sweeps = Vec::new();
    for id in 11..=17 {
        // Not in order.
        sweeps.extend([sweep(id, 30, "Noise 2"), sweep(id, 4, "Noise 1"), sweep(id, 6, "Test")]);
        sweeps.extend((0..if id == 17 { 2 } else { 3 }).map(|k| sweep(id, 10 + k, "Noise 2")));
    }
    let file = |id: u64| {
        let other = json!({"download_link": "/wrong", "well_known_file_type": {"name": "Other"}});
        let link = format!("/api/v2/well_known_file_download/{}", 1000 + id);
        let nwb = json!({"download_link": link, "well_known_file_type": {"name": "NWBDownload"}});
        json!({"id": id, "ephys_result": {"well_known_files": [other, nwb]}})
    };
    let specimens = (11..=17).map(file).collect();
    HashMap::from([
        ("ApiCellTypesSpecimenDetail", cells),
        ("EphysFeature", features),
        ("EphysSweep", sweeps),
        ("Specimen", specimens),
    ])
}

impl Service {
    fn new(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let (tables, mut faults) = (tables(), faults);
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                serve(stream, &tables, &mut faults, &log);
            }
        });
        Self { base, seen }
    }

    fn seen(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|s| s.contains(part)).count()
    }
}

fn decode(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        out.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap().into());
        rest = &rest[at + 3..];
    }
    out + rest
}

/// The text after `start`, up to one of the characters.
fn between<'a>(text: &'a str, start: &str, end: &[char]) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end).unwrap_or(rest.len())])
}

fn serve(mut stream: TcpStream, tables: &HashMap<&str, Vec<Value>>, faults: &mut Faults, log: &Mutex<Vec<String>>) {
    let (mut path, mut from) = (String::new(), None);
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap_or_default();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            let raw = rest.split(' ').next().unwrap();
            assert!(!raw.contains(['[', ']', '\'', '$', ' ']), "{raw} is encoded");
            path = decode(raw);
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<usize>().ok();
        }
    }
    log.lock().unwrap().push(format!("{path}{}", from.map_or(String::new(), |n| format!(" from {n}"))));
    if faults.busy > 0 {
        faults.busy -= 1;
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let (head, body) = match path.strip_prefix("/api/v2/data/query.json?q=model::") {
        Some(query) => ("HTTP/1.1 200 OK".to_owned(), answer(query, tables, faults).into_bytes()),
        None if path.starts_with("/api/v2/well_known_file_download/") => {
            let whole = faults.file.clone().unwrap_or_else(|| RECORDING.clone());
            if let Some(after) = faults.drop.take() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&whole[..after]));
                return;
            }
            let start = from.unwrap_or(0);
            match from {
                Some(_) if start >= whole.len() => ("HTTP/1.1 416 No".to_owned(), vec![]),
                Some(_) => {
                    let range = format!("Content-Range: bytes {start}-{}/{}", whole.len() - 1, whole.len());
                    (format!("HTTP/1.1 206 Partial\r\n{range}"), whole[start..].to_vec())
                }
                None => ("HTTP/1.1 200 OK".to_owned(), whole),
            }
        }
        None => ("HTTP/1.1 404 No".to_owned(), vec![]),
    };
    let head = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn answer(query: &str, tables: &HashMap<&str, Vec<Value>>, faults: &Faults) -> String {
    if let Some(answer) = faults.answer {
        return answer.to_owned();
    }
    if let Some(says) = faults.says {
        return json!({"success": false, "msg": says}).to_string();
    }
    let model = query.split(',').next().unwrap();
    let rows = tables.get(model).unwrap_or_else(|| panic!("model {model}"));
    let number = |start: &str| between(query, start, &[']']).and_then(|n| n.parse::<usize>().ok());
    let filter = [("[specimen_id$eq", "specimen_id"), ("[id$eq", "id")];
    let filter = filter.into_iter().find_map(|(start, key)| Some((key, number(start)?)));
    let chosen: Vec<&Value> =
        rows.iter().filter(|r| filter.is_none_or(|(key, id)| r[key].as_u64() == Some(id as u64))).collect();
    if model == "EphysFeature" {
        assert!(query.contains("rma::criteria,specimen(ephys_result[failed$eqfalse])"), "{query}");
    }
    let (start, most) = (number("[start_row$eq").unwrap(), number("[num_rows$eq").unwrap());
    let page: Vec<&Value> = chosen.iter().skip(start).take(most.min(faults.page.unwrap_or(most))).copied().collect();
    json!({
        "success": true, "id": 0, "start_row": start, "num_rows": page.len(),
        "total_rows": chosen.len() + faults.more, "msg": page,
    })
    .to_string()
}

struct Home {
    folder: tempfile::TempDir,
    set: Recordings,
}

impl Home {
    fn new(service: &Service) -> Self {
        let set = Recordings { base: service.base.clone(), cells: vec![11, 12], ..registered() };
        Self { folder: tempfile::tempdir().unwrap(), set }
    }

    fn options(&self) -> DownloadOptions {
        let data_dir = self.folder.path().to_owned();
        DownloadOptions { data_dir, retries: 2, retry_wait: Duration::from_millis(1), ..DownloadOptions::default() }
    }

    fn cells(&self) -> PathBuf {
        allen::folder(self.folder.path())
    }

    fn fetch(&self, ids: &[u64]) -> Result<usize, String> {
        self.want(&Wanted::Listed(ids.to_vec()), &self.options())
    }

    fn want(&self, wanted: &Wanted, options: &DownloadOptions) -> Result<usize, String> {
        let got = allen::download(&self.set, wanted, options, &mut Silent).map_err(|e| e.to_string())?;
        assert_eq!(got.folder, self.cells());
        assert!(got.files.iter().all(|f| f.is_file()));
        Ok(got.fetched)
    }

    /// Everything in the folder, relative to it.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.cells()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => names.push(path.strip_prefix(self.cells()).unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        names.sort();
        names
    }
}

fn registered() -> Recordings {
    allen::find("allen-cells").unwrap().clone()
}

#[test]
fn cells_are_fetched_once_in_the_layout_of_the_sdk() {
    let service = Service::new(Faults { page: Some(3), ..Faults::default() });
    let home = Home::new(&service);
    assert_eq!(home.fetch(&[11, 12]), Ok(2));
    let specimen = |id: u64| ["ephys.nwb", "ephys_sweeps.json"].map(|f| format!("specimen_{id}/{f}"));
    let tables = ["cells.json", "ephys_features.csv"].map(str::to_owned);
    assert_eq!(home.files(), [tables, specimen(11), specimen(12)].concat());
    assert_eq!(std::fs::read(allen::nwb_path(&home.cells(), 12)).unwrap(), *RECORDING);
    assert_eq!(service.seen("ApiCellTypesSpecimenDetail"), 3, "seven cells in pages of three");
    assert_eq!(service.seen("well_known_file_download/1011"), 1);

    let cells = allen::read_cells(&home.cells()).unwrap();
    assert_eq!(cells.iter().map(|c| c.id).collect::<Vec<_>>(), [11, 12, 13, 14, 15, 16, 17]);
    assert_eq!((cells[1].disease.as_deref(), cells[4].disease.as_deref()), (None, Some("epilepsy")));
    assert_eq!((cells[0].layer.as_deref(), cells[0].line.as_deref()), (Some("4"), Some("Scnn1a-Tg3-Cre")));
    let features = allen::read_features(&home.cells()).unwrap();
    assert_eq!((features.len(), features[0].rest_mv, features[0].threshold_mv), (6, Some(-70.5), Some(-41.25)));
    let sweeps = allen::read_sweeps(&home.cells(), 11).unwrap();
    assert_eq!(sweeps.iter().map(|s| s.number).collect::<Vec<_>>(), [4, 6, 10, 11, 12, 30]);
    assert_eq!(sweeps[0], SweepRow { number: 4, stimulus: "Noise 1".into(), spikes: Some(3) });
    let info = allen::info(&home.cells(), &[13]).unwrap();
    assert_eq!(
        info.iter().map(|i| (i.cell.id, i.bytes.is_some())).collect::<Vec<_>>(),
        [(13, false), (11, true), (12, true)]
    );
    assert_eq!(info[1].sweeps, [("Noise 1".into(), 1), ("Noise 2".into(), 4), ("Test".into(), 1)]);

    let asked = service.seen("");
    assert_eq!((home.fetch(&[12, 11]), service.seen("")), (Ok(0), asked), "nothing is asked for again");
    let offline = DownloadOptions { offline: true, ..home.options() };
    assert_eq!(home.want(&Wanted::Listed(vec![11]), &offline), Ok(0));
    let message = home.want(&Wanted::Listed(vec![13]), &offline).unwrap_err();
    assert!(message.contains("cannot fetch allen-cells") && message.contains("network is not to be used"), "{message}");

    let options =
        ReadOptions { stimuli: vec!["Noise 1".into()], windows_s: vec![[0.011, 0.05]], ..ReadOptions::default() };
    let recording = Recording::open_specimen(&home.cells(), 11, &options).unwrap();
    assert_eq!((recording.specimen, recording.rest_mv, recording.label), (Some(11), Some(-70.5), None));
    assert_eq!((recording.dendrite.as_deref(), recording.line.as_deref()), (Some("spiny"), Some("Scnn1a-Tg3-Cre")));
}

#[test]
fn the_published_rule_chooses() {
    let service = Service::new(Faults::default());
    let home = Home::new(&service);
    assert_eq!(home.want(&Wanted::Selected(Selection::default()), &home.options()), Ok(2));
    assert_eq!(allen::specimens(&home.cells()), [11, 12]);
    for id in [13, 14, 15, 16] {
        assert_eq!(service.seen(&format!("[specimen_id$eq{id}]")), 0, "the tables say enough of {id}");
    }
    assert_eq!(service.seen("[specimen_id$eq17]"), 1);
    let any = Selection { species: None, layer: None, healthy: false, repeats: 3, ..Selection::default() };
    assert_eq!(home.want(&Wanted::Selected(any), &home.options()), Ok(1));
    assert_eq!(allen::specimens(&home.cells()), [11, 12, 17]);
}

#[test]
fn what_the_service_refuses_is_said() {
    for (faults, want) in [
        (Faults { says: Some("no such model"), ..Faults::default() }, "the service says: no such model"),
        (Faults { more: 5, ..Faults::default() }, "7 rows came of 12"),
        (Faults { more: 9_000_000, ..Faults::default() }, "expected at most 1000000"),
        (Faults { answer: Some("<html>"), ..Faults::default() }, "no JSON"),
        (Faults { answer: Some(r#"{"success": true, "msg": "?"}"#), ..Faults::default() }, "an answer without rows"),
        (Faults { busy: 3, ..Faults::default() }, "503"),
    ] {
        let service = Service::new(faults.clone());
        let home = Home::new(&service);
        let message = home.fetch(&[11]).unwrap_err();
        assert!(message.contains("cannot fetch ApiCellTypesSpecimenDetail") && message.contains(want), "{message}");
        assert!(message.contains(&service.base), "{message}");
        assert!(home.files().is_empty(), "{faults:?} leaves nothing");
    }
    let service = Service::new(Faults { busy: 2, ..Faults::default() });
    assert_eq!(Home::new(&service).fetch(&[11]), Ok(1), "what fails for a moment is asked for again");
    let service = Service::new(Faults::default());
    let home = Home::new(&service);
    let message = home.fetch(&[11, 999]).unwrap_err();
    assert!(message.contains("specimen 999: not in the database at http://127.0.0.1"), "{message}");
    assert!(home.files().is_empty());
}

#[test]
fn a_file_comes_whole_or_not_at_all() {
    let service = Service::new(Faults { drop: Some(30_000), ..Faults::default() });
    let home = Home::new(&service);
    assert_eq!(home.fetch(&[11]), Ok(1));
    assert_eq!((service.seen("1011 from 30000"), service.seen("1011")), (1, 2), "the rest is resumed");
    assert_eq!(std::fs::read(allen::nwb_path(&home.cells(), 11)).unwrap(), *RECORDING);

    // A part of an earlier run, of this file and of another.
    for part in [RECORDING[..1000].to_vec(), vec![7; 500], vec![7; RECORDING.len() + 3]] {
        let path = allen::nwb_path(&home.cells(), 12);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path.with_extension("nwb.part"), part).unwrap();
        assert_eq!(home.fetch(&[12]), Ok(1));
        assert_eq!(std::fs::read(&path).unwrap(), *RECORDING);
        assert!(!path.with_extension("nwb.part").exists());
        std::fs::remove_file(path).unwrap();
    }

    for (file, want) in [
        (b"<html>not today</html>".to_vec(), "signature: no HDF5 signature"),
        (RECORDING[..RECORDING.len() / 2].to_vec(), "expected a complete HDF5 file"),
        (Vec::new(), "no HDF5 signature"),
    ] {
        let service = Service::new(Faults { file: Some(file), ..Faults::default() });
        let home = Home::new(&service);
        let message = home.fetch(&[11]).unwrap_err();
        assert!(message.contains("cannot fetch specimen_11/ephys.nwb: http://127.0.0.1"), "{message}");
        assert!(message.contains(want), "{message} is not {want}");
        assert_eq!(home.files(), ["cells.json", "ephys_features.csv", "specimen_11/ephys_sweeps.json"]);
        assert_eq!(service.seen("1011"), 1, "asking again for the wrong file is no use");
    }
}

#[test]
fn a_folder_serves_in_place_of_the_service() {
    let mirror = tempfile::tempdir().unwrap();
    let options = SessionOptions { cells: 2, fit_sweeps: 1, test_sweeps: 4, ..SessionOptions::default() };
    session::write(mirror.path(), &options, &mut Silent).unwrap();
    let home = Home::new(&Service::new(Faults::default()));
    let options = DownloadOptions { mirror: Some(mirror.path().to_str().unwrap().into()), ..home.options() };
    let wanted = Wanted::Selected(Selection::default());
    let got = allen::download(&home.set, &wanted, &options, &mut Silent).unwrap();
    assert_eq!((got.fetched, got.label.as_deref()), (2, Some(session::LABEL)));
    assert_eq!(NwbFile::open(&got.files[1]).unwrap().label(), Some(session::LABEL));
    assert_eq!(allen::download(&home.set, &wanted, &options, &mut Silent).unwrap().fetched, 0);
    let message = home.want(&Wanted::Listed(vec![488_359_338]), &options).unwrap_err();
    assert!(
        message.contains("specimen 488359338: not in") && message.ends_with("one of those there: 1, 2"),
        "{message}"
    );
}

#[test]
fn recordings_are_known_by_name() {
    let home = Home::new(&Service::new(Faults::default()));
    let set = registered();
    assert_eq!(set.cells.len(), 8);
    let offline = DownloadOptions { offline: true, ..home.options() };
    let message = snn_data::download("allen-cells", &offline, &mut Silent).unwrap_err().to_string();
    assert!(message.contains("cannot fetch allen-cells"), "{message}");
    assert_eq!(snn_data::convert("allen-cells", home.folder.path(), &mut Silent).unwrap(), [""; 0].map(PathBuf::from));
    for name in ["allen-cells", "allen-sim"] {
        let message = snn_data::open(name, "train", &snn_data::OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains("recordings of neurons, without classes"), "{message}");
    }
    let message = snn_data::download("allen-cell", &offline, &mut Silent).unwrap_err().to_string();
    assert!(message.contains("did you mean `allen-cells`"), "{message}");
}

#[test]
fn damaged_tables_are_named() {
    let home = Home::new(&Service::new(Faults::default()));
    let folder = home.cells();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("cells.json"), "[{").unwrap();
    assert!(home.fetch(&[11]).unwrap_err().contains("cells.json: table: "));
    std::fs::write(folder.join("ephys_features.csv"), "id,vrest\n1,2\n").unwrap();
    let message = allen::read_features(&folder).unwrap_err().to_string();
    assert!(message.contains("ephys_features.csv: line 1: no column specimen_id"), "{message}");
    std::fs::write(folder.join("ephys_features.csv"), "specimen_id,vrest\n1,2\n\n3,x\n4\n").unwrap();
    let message = allen::read_features(&folder).unwrap_err().to_string();
    assert!(message.contains("line 5: 1 fields") || message.contains("line 4: 1 fields"), "{message}");
    std::fs::write(folder.join("ephys_features.csv"), "vrest,\"specimen_id\"\n-70,7.0\n,8\n").unwrap();
    let features = allen::read_features(&folder).unwrap();
    assert_eq!(features.iter().map(|f| (f.id, f.rest_mv)).collect::<Vec<_>>(), [(7, Some(-70.0)), (8, None)]);
}
