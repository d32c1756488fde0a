//! What scripts rely on: JSON lines, CSV, files of a run.

use std::fs;

use serde_json::Value;

use crate::{json_lines, run, run_with, workplace};

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {value}"))
}

#[test]
fn train_eval_predict_and_info_agree() {
    let directory = workplace();
    let directory = directory.path();
    let lines = json_lines(&run(directory, "train small.toml --out run --json").fine());
    let events: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["run", "epoch", "epoch", "epoch", "epoch", "epoch", "epoch", "result"]);
    let measured: Vec<bool> = lines[1..7].iter().map(|l| l["record"]["test_accuracy"].is_f64()).collect();
    assert_eq!(measured, [false, true, false, true, false, false], "every second epoch but the last");
    let result = &lines[7];
    for key in
        ["test_accuracy", "test_loss", "spikes_per_sample", "seconds", "epoch_seconds", "peak_bytes", "parameters"]
    {
        assert!(number(result, key) > 0.0, "{key}: {result}");
    }
    assert!(result["data_label"].is_null() && result["device"].is_string() && result["out"] == "run");

    for model in ["run", "run/model.safetensors"] {
        let eval = json_lines(&run(directory, &format!("eval {model} --json")).fine());
        assert_eq!(eval.len(), 1);
        for key in ["test_accuracy", "test_loss", "spikes_per_sample"] {
            assert_eq!(eval[0][key], result[key], "{key}");
        }
        assert_eq!(eval[0]["samples"], 100);
    }
    let train = json_lines(&run(directory, "eval run --json --split train").fine());
    assert_eq!(train[0]["data"], "yinyang/train");

    let csv = run(directory, "predict run").fine();
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("sample,label,predicted,correct,confidence,\"yin\",\"yang\",\"dot\""));
    let rows: Vec<Vec<&str>> = rows.map(|r| r.split(',').collect()).collect();
    assert_eq!(rows.len(), 100);
    let mut correct = 0;
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row[0], i.to_string());
        assert_eq!(row[3] == "true", row[1] == row[2]);
        correct += usize::from(row[3] == "true");
        let logits: Vec<f64> = row[5..].iter().map(|x| x.parse().unwrap()).collect();
        assert_eq!(logits.len(), 3);
        let best = logits[row[2].parse::<usize>().unwrap()];
        assert!(logits.iter().all(|x| *x <= best));
        let confidence: f64 = row[4].parse().unwrap();
        assert!((confidence * logits.iter().map(|x| (x - best).exp()).sum::<f64>() - 1.0).abs() < 1e-5);
    }
    assert_eq!(correct as f64 / 100.0, number(result, "test_accuracy"));
    run(directory, "predict run --out p.csv").fine();
    assert_eq!(fs::read_to_string(directory.join("p.csv")).unwrap(), csv);

    let info = json_lines(&run(directory, "info small.toml --json").fine());
    assert_eq!(info[0]["parameters"], result["parameters"]);
    assert_eq!(info[0]["parameters"], 4 * 24 + 24 + 24 + 24 * 3 + 3 + 3);
    assert!(number(&info[0], "peak_bytes") > 0.0);
    let counted: u64 = info[0]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|l| l["parameters"].as_array().unwrap())
        .map(|p| p["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(info[0]["parameters"], counted);

    // The log of the run says the same as the standard output.
    let log = json_lines(&fs::read_to_string(directory.join("run/log.jsonl")).unwrap());
    assert_eq!(log[0]["event"], "run");
    assert_eq!(log.iter().filter(|l| l["event"] == "batch").count(), 6 * 19);
    assert_eq!(log.iter().filter(|l| l["event"] == "health").count(), 6);
    let last = log.last().unwrap();
    assert_eq!((&last["event"], &last["test_accuracy"]), (&Value::from("result"), &result["test_accuracy"]));
}

/// The memory that `info` states against what the system says the run has held.
#[cfg(target_os = "linux")]
#[test]
fn stated_memory_is_near_the_measured_one() {
    let directory = workplace();
    let directory = directory.path();
    let wide = "model.layers=[{ kind = 'dense', width = 2000 }]";
    let arguments =
        ["--set", wide, "--set", "data.encode.steps=100", "--set", "train.batch=100", "--epochs", "2", "--json"];
    let with = |first: &[&str]| run_with(directory, &[first, &arguments[..]].concat()).fine();
    let stated = number(&json_lines(&with(&["info", "small.toml"]))[0], "peak_bytes");
    let trained = json_lines(&with(&["train", "small.toml", "--out", "run"]));
    let measured = number(trained.last().unwrap(), "peak_bytes");
    assert!((stated / measured - 1.0).abs() < 0.15, "stated {stated}, measured {measured}");
}

#[test]
fn presets_are_listed_and_shown_as_they_run() {
    let directory = workplace();
    let directory = directory.path();
    let presets = json_lines(&run(directory, "presets --json").fine());
    assert!(presets.len() > 40);
    for p in &presets {
        assert!(p["name"].is_string() && p["title"].is_string() && p["experiment"]["train"]["epochs"].is_u64(), "{p}");
    }
    let table = run(directory, "presets yinyang").fine();
    assert!(
        table.contains("block-yinyang-single") && table.contains("98.02") && !table.contains("block-mnist"),
        "{table}"
    );
    let shown = run(directory, "presets --show block-yinyang").fine();
    fs::write(directory.join("own.toml"), shown).unwrap();
    let parameters =
        |what: &str| json_lines(&run(directory, &format!("info {what} --json")).fine())[0]["parameters"].clone();
    assert_eq!(parameters("own.toml"), parameters("block-yinyang"));
    let changed = run(directory, "info own.toml --set model.layers.0.width=10").fine();
    assert!(changed.contains("block 4 -> 10") && changed.contains("memory while training"), "{changed}");
}

#[test]
fn data_commands_say_what_there_is() {
    let directory = workplace();
    let directory = directory.path();
    let list = run(directory, "data list").fine();
    for name in ["mnist", "shd", "yinyang", "spoken-digits", "generated"] {
        assert!(list.contains(name), "{list}");
    }
    let info = run(directory, "data info mnist yinyang").fine();
    assert!(info.contains("not here: snn data download mnist"), "{info}");
    for vlen in ["", " --vlen"] {
        let said =
            run(directory, &format!("data generate spoken-digits --samples 12 --out words.h5{vlen} --quiet")).fine();
        assert!(said.contains("12 samples in words.h5"), "{said}");
    }
    // A generated set that lies where converted sets lie is what its name means.
    run(directory, "data generate yinyang --samples 64 --out data/h5/yinyang-train.h5 --quiet").fine();
    let info = run(directory, "data info yinyang").fine();
    assert!(info.contains("converted: data/h5/yinyang-train.h5") && info.contains("64"), "{info}");
    let used = json_lines(&run(directory, "info small.toml --set data.train_samples=0 --json").fine());
    assert_eq!(used[0]["samples"], 64);
}

#[test]
fn plots_and_completions_are_written() {
    let directory = workplace();
    let directory = directory.path();
    run(directory, "train small.toml --out a --quiet --epochs 2").fine();
    run(directory, "train small.toml --out b --quiet --epochs 2 --seed 2").fine();
    assert_eq!(run(directory, "plot a").fine(), "a/training.png\n");
    run(directory, "plot a b --out both").fine();
    let svg = fs::read_to_string(directory.join("both/training.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("hidden spikes per sample"));
    assert!(fs::read(directory.join("both/training.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(fs::read_to_string(directory.join("both/training.csv")).unwrap().lines().count() > 4);
    run(directory, "plot small.toml").fails(1, &["is no run's log"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(directory, &format!("completions {shell}")).fine().contains("reproduce"), "{shell}");
    }
    assert!(run(directory, "--version").fine().starts_with("snn "));
}
