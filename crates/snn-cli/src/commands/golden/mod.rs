//! The hidden `snn golden`: every case of every golden folder, on the reference and on every backend.
//!
//! A runner belongs to a *kind*, not to a file: other shapes and seeds of the same kind must pass too.

mod alif;
mod arrays;
mod bats;
mod block;
mod ephys;
mod paralif;
mod stream;
mod transforms;
mod ttfs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use snn_core::testkit::golden::{Case, Entry, Outcome, Precision, read_index};
use snn_cuda::Cuda;

use crate::args::Golden;
use crate::console;
use crate::device::required;
use crate::usage;

/// Runs one case with one implementation.
type Runner = Box<dyn Fn(&Case) -> Result<()>>;

/// An implementation of a kind.
struct Implementation {
    name: &'static str,
    precision: Precision,
    run: Runner,
}

/// The kinds that have a runner, by system.
const KINDS: &[(&str, &[&str])] = &[
    ("block", block::KINDS),
    ("paralif", paralif::KINDS),
    ("bats", bats::KINDS),
    ("ttfs", ttfs::KINDS),
    ("alif-blocks", alif::KINDS),
];

/// Everything that implements a kind of a system, or nothing where there is no such kind.
fn implementations(system: &str, kind: &str) -> Result<Option<Vec<Implementation>>> {
    match system {
        "block" => block::implementations(kind),
        "paralif" => paralif::implementations(kind),
        "bats" => bats::implementations(kind),
        "ttfs" => ttfs::implementations(kind),
        "alif-blocks" => alif::implementations(kind),
        _ => Ok(None),
    }
}

/// A generic runner on the `f64` reference and on every backend.
macro_rules! on_devices {
    ($run:ident) => {{
        let (reference, cpu) = (snn_core::reference::Reference::<f64>::new(), snn_cpu::Cpu::new(2)?);
        let mut implementations = vec![
            Implementation {
                name: "reference f64",
                precision: snn_core::testkit::golden::Precision::Double,
                run: Box::new(move |case| $run(&reference, case)),
            },
            Implementation {
                name: "cpu f32",
                precision: snn_core::testkit::golden::Precision::Single,
                run: Box::new(move |case| $run(&cpu, case)),
            },
        ];
        if let Some(gpu) = $crate::commands::golden::gpu() {
            implementations.push(Implementation {
                name: "cuda f32",
                precision: snn_core::testkit::golden::Precision::Single,
                run: Box::new(move |case| $run(&gpu, case)),
            });
        }
        Ok(Some(implementations))
    }};
}
use on_devices;

/// A runner of what happens on the host alone, `name` being where.
fn host_only(name: &'static str, run: fn(&Case) -> Result<()>) -> Result<Option<Vec<Implementation>>> {
    Ok(Some(vec![Implementation { name, precision: Precision::Single, run: Box::new(run) }]))
}

/// What became of the cases.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    unclaimed: usize,
    skipped: usize,
}

/// Where runners find data sets.
static DATA: OnceLock<PathBuf> = OnceLock::new();

/// The GPU, once it has been looked for; absent where there is none.
static GPU: OnceLock<Option<Cuda>> = OnceLock::new();

fn gpu() -> Option<Cuda> {
    GPU.get().cloned().flatten()
}

/// Looks for a GPU, and says so where there is none.
fn find_gpu(index: usize) -> Result<()> {
    match required(Cuda::new(index))? {
        Ok(device) => drop(GPU.set(Some(device))),
        Err(reason) => console::line(format_args!("cuda f32 skipped: no device ({reason})"))?,
    }
    Ok(())
}

fn data_folder() -> PathBuf {
    DATA.get().cloned().unwrap_or_else(|| super::data_dir(None))
}

pub(crate) fn run(args: &Golden) -> Result<()> {
    DATA.get_or_init(|| super::data_dir(args.data_dir.as_deref()));
    find_gpu(args.gpu)?;
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../snn-core/golden"));
    let dir = args.dir.clone().or_else(|| std::env::var_os("SNN_GOLDEN_DIR").map(PathBuf::from));
    let is_own = dir.is_none();
    let folder = dir.unwrap_or(own);
    let mut tally = Tally::default();
    for (system, folder) in systems(&folder, args.system.as_deref())? {
        run_system(&system, &folder, is_own, args, &mut tally)?;
    }
    let Tally { passed, failed, unclaimed, skipped } = tally;
    console::line(format_args!("{passed} passed, {failed} failed, {unclaimed} unclaimed, {skipped} skipped"))?;
    if failed + unclaimed > 0 || passed == 0 {
        anyhow::bail!("golden run of {}: not everything passed", folder.display());
    }
    Ok(())
}

/// The systems in a folder: the folder itself if it has an index, its subfolders that have one otherwise.
fn systems(folder: &Path, wanted: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    if folder.join("index.json").is_file() {
        found.push((read_index(folder)?.system, folder.to_owned()));
    } else {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.join("index.json").is_file() {
                found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
            }
        }
        found.sort();
    }
    if let Some(wanted) = wanted {
        let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
        found.retain(|(name, _)| name == wanted);
        if found.is_empty() {
            let folder = folder.display();
            return Err(usage(format!("no golden system `{wanted}` in {folder}; it has: {}", names.join(", "))));
        }
    }
    Ok(found)
}

fn run_system(system: &str, folder: &Path, is_own: bool, args: &Golden, tally: &mut Tally) -> Result<()> {
    let index = read_index(folder)?;
    let files = index.cases.iter().flat_map(|c| [Some(&c.file), c.expected_file.as_ref()]).flatten();
    let claimed: BTreeSet<&str> = files.filter_map(|file| file.split('/').next()).collect();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "index.json" && name != "README.md" && !claimed.contains(name.as_str()) {
            tally.unclaimed += 1;
            console::line(format_args!("{system}/{name}: unclaimed, the index does not mention it"))?;
        }
    }
    for entry in &index.cases {
        let line = run_case(system, folder, entry, args, tally)?;
        console::line(format_args!("{system}/{} [{}]: {line}", entry.file, entry.kind))?;
    }
    // In the project's own copy every kind that has a runner must have a case.
    let kinds = KINDS.iter().find(|(name, _)| *name == system).map_or(&[][..], |(_, kinds)| kinds);
    for kind in kinds.iter().filter(|kind| is_own && !index.cases.iter().any(|c| c.kind == **kind)) {
        tally.failed += 1;
        console::line(format_args!("{system}: kind {kind} has no case"))?;
    }
    Ok(())
}

/// Runs one case with all implementations; gives what to print.
fn run_case(system: &str, folder: &Path, entry: &Entry, args: &Golden, tally: &mut Tally) -> Result<String> {
    if let Some(missing) = missing(folder, entry, args) {
        tally.skipped += 1;
        return Ok(format!("skipped, {missing}"));
    }
    let Some(implementations) = implementations(system, &entry.kind)? else {
        tally.unclaimed += 1;
        return Ok("unclaimed, no runner for this kind".into());
    };
    let mut lines = Vec::new();
    let mut ok = true;
    for implementation in implementations {
        let name = implementation.name;
        match attempt(folder, entry, &implementation) {
            Ok(outcome) => lines.push(format!("{name} ok ({:.0} % of tolerance)", 100.0 * outcome.share_of_tolerance)),
            Err(failures) => {
                ok = false;
                lines.push(format!("{name} FAILED: {}", failures.join("; ")));
            }
        }
    }
    *(if ok { &mut tally.passed } else { &mut tally.failed }) += 1;
    Ok(lines.join(", "))
}

fn attempt(folder: &Path, entry: &Entry, implementation: &Implementation) -> Result<Outcome, Vec<String>> {
    let case = Case::open(folder, entry, implementation.precision).map_err(|e| vec![e.to_string()])?;
    if let Err(error) = (implementation.run)(&case) {
        case.fail(format!("{error:#}"));
    }
    case.finish()
}

/// Why a case cannot run here, if it cannot.
fn missing(folder: &Path, entry: &Entry, args: &Golden) -> Option<String> {
    if !folder.join(&entry.file).exists() {
        return Some(format!("{} is not in the folder", entry.file));
    }
    let dir = super::data_dir(args.data_dir.as_deref());
    let absent = |set: &&String| {
        snn_data::info(set, &dir).map_or(true, |splits| splits.iter().any(|s| s.converted.is_none() && !s.downloaded))
    };
    entry.needs.iter().find(absent).map(|set| format!("needs the data set {set} in {}", dir.display()))
}
