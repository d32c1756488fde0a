//! `snn reproduce`: the targets that are quick, and the refusals of those that are not.

use std::fs;

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

#[test]
fn targets_are_listed_and_wrong_arguments_refused() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let list = run(place, "reproduce --list").fine();
    for target in ["figure4", "spsn-table", "paralif-time", "paralif-biology", "paralif-robustness"]
        .into_iter()
        .chain(["bats-mnist", "bats-emnist", "bats-fashion", "bats-conv", "bats-combinations", "bats-convergence"])
        .chain(["bats-stdp"])
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
    run(place, "reproduce bats-convergence --sets mnist").fails(2, &["--sets mnist", "spike-order"]);
    run(place, "reproduce paralif-time --peer-python /nonexistent/python").fails(1, &["cannot be run"]);
}
