//! The tutorial does what it says: its commands run, its files are read, its programs are the examples.

use std::fs;
use std::path::Path;

use crate::{Got, run_with, slow};

#[path = "../../examples/tutorial.rs"]
#[allow(unreachable_pub, reason = "a program of its own, run here as a module")]
mod tutorial;

#[path = "../../examples/adaptive.rs"]
#[allow(unreachable_pub, reason = "a program of its own, run here as a module")]
mod adaptive;

/// The programs of the page, in their order.
const PROGRAMS: [&str; 2] = ["tutorial.rs", "adaptive.rs"];

/// The fenced blocks of a page, with their languages.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').expect("a fence ends its line")).collect()
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn tutorial_commands_run() {
    let directory = tempfile::tempdir().unwrap();
    let text = page("tutorial.md");
    let (mut commands, mut programs) = (0, PROGRAMS.iter());
    for (language, block) in blocks(&text) {
        match language {
            "toml" => {
                let name =
                    block.strip_prefix("# ").and_then(|b| b.lines().next()).expect("a file begins with its name");
                fs::write(directory.path().join(name), block).unwrap();
            }
            "sh" => {
                for line in block.lines() {
                    let words = line.strip_prefix("snn ").unwrap_or_else(|| panic!("{line}: not a command of ours"));
                    let mut words: Vec<&str> = words.split_whitespace().collect();
                    if words[0] == "train" && !slow() {
                        // As written it takes a minute without optimisation: fewer epochs and samples here.
                        if let Some(at) = words.iter().position(|w| *w == "--epochs") {
                            words.drain(at..at + 2);
                        }
                        let fewer = ["train.epochs=1", "data.train_samples=100", "data.test_samples=50"];
                        fewer.iter().for_each(|change| words.extend(["--set", change]));
                    }
                    if words[0] == "fit-neuron" && !slow() {
                        words.extend(["--set", "epochs=3"]);
                    }
                    run_with(directory.path(), &words).fine();
                    commands += 1;
                }
            }
            "rust" => {
                let name = programs.next().expect("every program is an example");
                let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
                assert_eq!(fs::read_to_string(example).unwrap(), block, "the page and {name} differ");
            }
            other => assert_eq!(other, "text"),
        }
    }
    assert!(commands > 10, "{commands}");
    assert_eq!(programs.next(), None, "every example is on the page");
    for file in [
        "predictions.csv",
        "runs/first/training.png",
        "runs/both/training.svg",
        "runs/digits/model.safetensors",
        "fits/first/cells/2.png",
    ] {
        assert!(directory.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn tutorial_program_runs() {
    tutorial::main().unwrap();
}

/// In a process of its own: one that starts others, as tests beside this one do, lends them the locks of the files that it
/// has open.
#[test]
fn adaptive_program_runs() {
    const ALONE: &str = "SNN_ADAPTIVE_ALONE";
    if std::env::var_os(ALONE).is_some() {
        adaptive::main().unwrap();
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut alone = std::process::Command::new(program);
    alone.args(["--exact", "documents::adaptive_program_runs", "--nocapture"]).env(ALONE, "1");
    let out = Got::of(alone.output().unwrap()).fine();
    for part in ["Steps: forward", "Blocks: forward", "membrane: ", "explained at 15 ms: 0."] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

/// Presets that pages name exist, and links between pages lead somewhere.
#[test]
fn pages_name_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut presets = String::new();
    for line in run_with(&root, &["presets", "--json"]).fine().lines() {
        let preset: serde_json::Value = serde_json::from_str(line).unwrap();
        presets.push_str(&format!("{} ", preset["name"].as_str().unwrap()));
    }
    let known: Vec<&str> = presets.split_whitespace().collect();
    let mut pages = vec![root.join("README.md")];
    for folder in [root.join("docs"), root.join("docs/papers")] {
        pages.extend(
            fs::read_dir(folder)
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        for code in text
            .split('`')
            .filter(|c| c.starts_with("block-") && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        {
            assert!(known.contains(&code), "{}: there is no preset `{code}`", path.display());
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let local = !link.is_empty() && !link.contains("://") && link.ends_with(".md");
            assert!(!local || path.parent().unwrap().join(link).is_file(), "{}: {link} leads nowhere", path.display());
        }
    }
}
