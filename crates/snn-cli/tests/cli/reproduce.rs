//! `snn reproduce`: the targets that are quick, and the refusals of those that are not.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::run;

#[test]
fn biology_is_reproduced_spike_by_spike() {
    let place = tempfile::tempdir().unwrap();
    let out = run(place.path(), "reproduce paralif-biology --profile smoke --out here").fine();
    assert!(out.contains("paralif-biology.png") && out.contains("report.html"), "{out}");
    let folder = place.path().join("here/paralif-biology");
    for file in ["report.md", "report.html", "paralif-biology.svg", "paralif-biology.png", "paralif-biology.csv"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let results: Value = serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap();
    let rows = results["comparisons"][0]["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &results["profile"]), (13, &Value::from("smoke")));
    assert!(rows.iter().all(|row| row["compared"] == 0.0), "{rows:?}");
}

/// Runs the smoke profile of a target without data; what it printed, `report.md` and `results.json`.
fn smoke(place: &Path, target: &str, figure: &str) -> (String, String, Value) {
    let got = run(place, &format!("reproduce {target} --profile smoke --out here"));
    let said = got.err.clone();
    let out = got.fine();
    assert!(out.contains(&format!("{figure}.png")) && out.contains("report.html"), "{out}");
    let folder = place.join("here").join(target);
    for file in ["report.html".to_owned(), format!("{figure}.svg"), format!("{figure}.png"), format!("{figure}.csv")] {
        assert!(folder.join(&file).is_file(), "{file}");
    }
    let text = fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(text.contains("digits-sim: generated look-alike (not the published data set)"), "{text}");
    (said, text, serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap())
}

#[test]
fn spikes_and_rectifiers_take_the_same_course() {
    let place = tempfile::tempdir().unwrap();
    let (_, text, results) = smoke(place.path(), "ttfs-mnist", "ttfs-mnist");
    for part in ["Epoch by epoch", "Spikes per hidden neuron", "Protocol: 3 epochs", "1 of 1 demands are met"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let records = results["records"].as_array().unwrap();
    let [spikes, twin] = &records[..] else { panic!("{records:?}") };
    let losses = |r: &Value| -> Vec<f64> {
        r["details"]["epochs"].as_array().unwrap().iter().map(|e| e["loss"].as_f64().unwrap()).collect()
    };
    assert!(losses(spikes).len() == 3 && losses(spikes)[2] < 0.5 * losses(spikes)[0], "{:?}", losses(spikes));
    for (a, b) in losses(spikes).into_iter().zip(losses(twin)) {
        assert!((a - b).abs() < 1e-4 * b, "{a} {b}");
    }
    assert!(spikes["numbers"]["spikes_per_hidden_neuron"].as_f64().unwrap() > 0.1);
    assert_eq!(spikes["numbers"]["latency"], 1501.0);
    // A second run takes every training from the first.
    let (said, again, _) = smoke(place.path(), "ttfs-mnist", "ttfs-mnist");
    assert_eq!(said.matches("done before").count(), 2, "{said}");
    assert!(again.contains("Epoch by epoch"));
}

#[test]
fn mapped_networks_say_what_rectifiers_say() {
    for (target, networks) in [("ttfs-finetune", 3), ("ttfs-cifar10", 1)] {
        let place = tempfile::tempdir().unwrap();
        let (_, text, results) = smoke(place.path(), target, target);
        assert!(text.contains(&format!("{networks} of {networks} demands are met")), "{text}");
        for part in ["The three stages", "Networks of rectifiers and mapped networks", "X\\_n", "snn map relu"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let records = results["records"].as_array().unwrap();
        assert_eq!(records.len(), networks);
        for record in records {
            let numbers = &record["numbers"];
            assert_eq!(numbers["accuracy_of_rectifiers"], numbers["accuracy_mapped"], "{}", record["what"]);
            let mapped = &record["details"]["mapped"];
            assert!(mapped["same"] == mapped["clear"] && mapped["clear"].as_u64().unwrap() > 100, "{}", record["what"]);
            assert!(numbers["accuracy_tuned"].as_f64().unwrap() > 0.5, "{numbers}");
            assert!(numbers["latency_mapped"].as_f64().unwrap() < 100.0, "{numbers}");
        }
    }
}

#[test]
fn damage_is_repaired_by_training_under_it() {
    let place = tempfile::tempdir().unwrap();
    let (_, text, results) = smoke(place.path(), "ttfs-robustness", "ttfs-robustness-digits-sim-fc2");
    for part in
        ["noise on spike times", "coarse times", "coarse weights", "short windows", "Windows of 784-340-10: 1 (input)"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let records = results["records"].as_array().unwrap();
    assert_eq!(records.len(), 8);
    let find = |what: &str, level: f64| {
        let of = |r: &&Value| r["what"].as_str().unwrap().ends_with(what) && r["numbers"]["level"] == level;
        &records.iter().find(of).unwrap()["numbers"]
    };
    let one_bit = find("coarse times", 1.0);
    assert!(one_bit["accuracy_before"].as_f64().unwrap() + 0.05 < one_bit["accuracy_after"].as_f64().unwrap());
    // Windows for the largest activation of the training set cut hardly anything; shorter ones are read earlier.
    let (short, long) = (find("short windows", 0.9), find("short windows", 1.0));
    assert!(short["latency"].as_f64().unwrap() < 0.8 * long["latency"].as_f64().unwrap(), "{short} {long}");
    let lost = long["accuracy_undamaged"].as_f64().unwrap() - long["accuracy_before"].as_f64().unwrap();
    assert!(lost.abs() < 0.005, "{long}");
}

#[test]
fn gradients_explode_unless_the_slope_is_constant() {
    let place = tempfile::tempdir().unwrap();
    let (said, text, results) = smoke(place.path(), "ttfs-gradients", "ttfs-gradients");
    assert_eq!(said.matches("trains beside its twin").count(), 6, "{said}");
    assert!(text.contains("2 of 2 demands are met") && text.contains("alpha1, naive"), "{text}");
    let table = results["tables"].as_array().unwrap().iter().find(|t| t["name"] == "results").unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 8, "four models at two depths");
    let records = results["records"].as_array().unwrap();
    let find = |what: &str| &records.iter().find(|r| r["what"] == what).unwrap()["details"];
    let first = |model: &str| {
        let look = find(&format!("{model}, 6 hidden layers, before the first step"));
        let gradients = look["gradients"].as_array().unwrap();
        assert_eq!(gradients.len(), 6);
        gradients[0].as_f64().unwrap()
    };
    assert_eq!(first("rectifiers"), first("slope 1 (B1)"));
    let trained = find("slope 1 (B1), 6 hidden layers, training");
    assert_eq!(trained["steps"].as_array().unwrap().len(), 7, "200 samples by 32");
    assert_eq!(trained["spikes"], trained["twin"]);
    // A second run takes every job from the first.
    let (said, _, _) = smoke(place.path(), "ttfs-gradients", "ttfs-gradients");
    assert_eq!(said.matches("done before").count(), 6, "{said}");
}

#[test]
fn blocks_are_timed_without_python() {
    let place = tempfile::tempdir().unwrap();
    let files = [("blocks-speed", "blocks-speed-layers"), ("blocks-libraries", "blocks-libraries")];
    for (target, figure) in files {
        let out = run(place.path(), &format!("reproduce {target} --profile smoke --out here")).fine();
        assert!(out.contains(&format!("{target}.png")) && out.contains("report.html"), "{out}");
        let folder = place.path().join("here").join(target);
        let text = fs::read_to_string(folder.join("report.md")).unwrap();
        for part in ["--peer-python", "not run", "Published: ", &format!("{figure}.svg")] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let results: Value = serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap();
        let records = results["records"].as_array().unwrap();
        // Four forms at three refractory periods, and two layers; four forms.
        assert_eq!(records.len(), if target == "blocks-speed" { 4 * 4 } else { 4 });
        assert!(records.iter().all(|r| r["numbers"]["forward_s"].as_f64().unwrap() > 0.0), "{records:?}");
        let numbers = |name: &str| results["tables"].as_array().unwrap().iter().any(|t| t["name"] == name);
        assert!(numbers("published") && numbers("rows"));
    }
}

#[test]
fn generated_neurons_are_fitted_at_every_setting() {
    let place = tempfile::tempdir().unwrap();
    let smoke = || run(place.path(), "reproduce blocks-figure5 --profile smoke --out here");
    let got = smoke();
    assert_eq!(got.err.matches(": fitting").count(), 5, "{}", got.err);
    let out = got.fine();
    assert!(out.contains("blocks-figure5.png") && out.contains("report.html"), "{out}");
    let folder = place.path().join("here/blocks-figure5");
    assert!(folder.join("sessions/2-cells-seed-5/specimen_2/ephys.nwb").is_file());
    let text = fs::read_to_string(folder.join("report.md")).unwrap();
    for part in [
        "2 neurons, synthetic recording (not the published recordings)",
        "read off a figure",
        "all 2 cells in one batch",
        "108.36",
        "No demand holds for these data in this profile",
        "at least 16 of 20",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let results: Value = serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap();
    let records = results["records"].as_array().unwrap();
    assert_eq!(records.len(), 5, "three settings, and both published ways at one");
    for record in records {
        assert_eq!(record["details"]["cells"].as_array().unwrap().len(), 2, "{record}");
        assert!(record["numbers"]["median_explained_15_ms"].as_f64().unwrap() > 0.3, "{record}");
    }
    // A second run takes every fit from the first.
    let again = smoke();
    assert_eq!(again.err.matches("done before").count(), 5, "{}", again.err);
    again.fine();
    run(place.path(), "reproduce blocks-figure5 --sets allen-cells").fails(2, &["no recordings in", "allen-cells"]);
}

#[test]
fn refractory_periods_are_swept_on_both_sets() {
    let place = tempfile::tempdir().unwrap();
    let out = run(place.path(), "reproduce blocks-figure4 --profile smoke --out here").fine();
    assert!(out.contains("blocks-figure4.png") && out.contains("blocks-figure4-surrogates.png"), "{out}");
    let folder = place.path().join("here").join("blocks-figure4");
    let text = fs::read_to_string(folder.join("report.md")).unwrap();
    let results: Value = serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap();
    assert!(text.contains("spoken-digits") && text.contains("nmnist-sim") && text.contains("87.5"), "{text}");
    let records = results["records"].as_array().unwrap();
    // The control in two forms, 30 steps in three, and attached spikes on spoken digits.
    assert_eq!(records.len(), 5 + 1 + 5);
    assert!(records.iter().all(|r| r["numbers"]["epoch_seconds"].as_f64().unwrap() > 0.0));
    let spikes = |what: &str| {
        let record = records.iter().find(|r| r["what"] == what).unwrap();
        record["numbers"]["hidden_spikes_per_sample"].as_f64().unwrap()
    };
    assert!(spikes("N-MNIST, blocks-nmnist-30") > 0.0);
}

#[test]
fn targets_are_listed_and_wrong_arguments_refused() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let list = run(place, "reproduce --list").fine();
    for target in ["figure4", "spsn-table", "paralif-time", "paralif-biology", "paralif-robustness"]
        .into_iter()
        .chain(["bats-mnist", "bats-emnist", "bats-fashion", "bats-conv", "bats-combinations", "bats-convergence"])
        .chain([
            "bats-stdp",
            "blocks-figure4",
            "blocks-speed",
            "blocks-figure5",
            "blocks-libraries",
            "ttfs-mnist",
            "ttfs-finetune",
            "ttfs-cifar10",
            "ttfs-robustness",
            "ttfs-gradients",
        ])
    {
        assert!(list.lines().any(|line| line.starts_with(&format!("{target} "))), "{list}");
    }
    run(place, "reproduce paralif-biologie").fails(2, &["no target", "did you mean `paralif-biology`"]);
    for target in ["spsn-table", "paralif-robustness"] {
        run(place, &format!("reproduce {target} --sets mnist")).fails(2, &["--sets mnist", "shd or spoken-digits"]);
    }
    for target in ["bats-mnist", "bats-combinations"] {
        run(place, &format!("reproduce {target} --sets shd")).fails(2, &["--sets shd", "mnist or digits-sim"]);
    }
    for target in ["ttfs-mnist", "ttfs-finetune", "ttfs-robustness"] {
        run(place, &format!("reproduce {target} --sets shd"))
            .fails(2, &["--sets shd", "mnist or fashion-mnist or digits-sim"]);
    }
    run(place, "reproduce ttfs-cifar10 --sets mnist").fails(2, &["--sets mnist", "cifar10 or digits-sim"]);
    run(place, "reproduce blocks-figure5 --sets shd").fails(2, &["--sets shd", "allen-cells or allen-sim"]);
    run(place, "reproduce bats-convergence --sets mnist").fails(2, &["--sets mnist", "spike-order"]);
    for target in ["paralif-time", "blocks-speed", "blocks-libraries"] {
        run(place, &format!("reproduce {target} --peer-python /nonexistent/python")).fails(1, &["cannot be run"]);
    }
}
