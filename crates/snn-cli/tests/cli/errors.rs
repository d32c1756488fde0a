//! What goes wrong ends in one line that says what and what would be right: exit code 2 for what was asked, 1 for work
//! that failed.

use std::fs;
use std::process::{Command, Stdio};

use crate::{Got, SMALL, run, run_with, snn, workplace};

#[test]
fn unknown_preset_names_the_nearest() {
    let directory = workplace();
    run(directory.path(), "train block-mnst").fails(2, &["block-mnst: is no preset; did you mean `block-mnist`?"]);
    run(directory.path(), "info blok-shd").fails(2, &["did you mean `block-shd`?"]);
    run(directory.path(), "presets --show block-nmnits").fails(2, &["did you mean `block-nmnist`?"]);
}

#[test]
fn unknown_key_names_file_line_and_nearest() {
    let directory = workplace();
    fs::write(directory.path().join("typo.toml"), SMALL.replace("batch = 16", "bacth = 16")).unwrap();
    let line = SMALL.lines().position(|l| l.starts_with("batch")).unwrap() + 1;
    let place = format!("typo.toml:{line}: unknown field `bacth`");
    run(directory.path(), "train typo.toml").fails(2, &[&place, "did you mean `batch`?"]);
    fs::write(directory.path().join("cut.toml"), &SMALL[..60]).unwrap();
    run(directory.path(), "train cut.toml").fails(2, &["cut.toml:"]);
    run(directory.path(), "train missing.toml").fails(2, &["missing.toml: No such file"]);
}

#[test]
fn wrong_changes_are_explained() {
    let directory = workplace();
    let set = |assignment: &str| run_with(directory.path(), &["train", "small.toml", "--set", assignment]);
    set("train.epoch=3").fails(2, &["--set train.epoch=3: no key `epoch` in `train`; did you mean `epochs`?"]);
    set("train.batch").fails(2, &["expected KEY=VALUE"]);
    set("train.batch=many").fails(2, &["--set train.batch=many"]);
    set("train.batch=0").fails(2, &["train.batch = 0: must be at least 1"]);
    set("model.layers.7.width=3").fails(2, &["`model.layers` has entries 0..1, not `7`"]);
    set("model.layers.0.neuron.model=blok").fails(2, &["did you mean `block`?"]);
    set("data.set=mnits").fails(2, &["there is no data set `mnits`; did you mean `mnist`"]);
    set("data.classes=2").fails(2, &["data.classes = 2: the data has 3 classes"]);
    set("data.train=training").fails(2, &["no split `training`, it has `train`, `test`"]);
}

#[test]
fn layers_that_do_not_fit_are_both_named() {
    let directory = workplace();
    let layers =
        |list: &str| run_with(directory.path(), &["info", "small.toml", "--set", &format!("model.layers={list}")]);
    layers("[{ kind = 'pool', window = 2 }]")
        .fails(2, &["layer 0 (pool 2x2) takes a map", "but the input gives spikes of 4 neurons"]);
    layers("[{ kind = 'dense', width = 16 }, { kind = 'conv', channels = 2, kernel = 3 }]")
        .fails(2, &["layer 1 (conv 3x3) takes a map", "but layer 0 gives spikes of 16 neurons over 20 steps"]);
    layers("[{ kind = 'dense', width = 16 }, { kind = 'dense', width = 8, skip = true }]").fails(
        2,
        &["layer 1 (skip) takes spikes of 8 neurons", "layer 0 and the layer's own spikes gives spikes of 16"],
    );
    // A vector as a constant current reaches the readout as it is.
    let repeat = "data.encode={ kind = 'repeat', steps = 4 }";
    run_with(directory.path(), &["info", "small.toml", "--set", repeat, "--set", "model.layers=[]"])
        .fails(2, &["layer 0 (readout) takes spikes: put a hidden layer before it", "but the input gives values"]);
}

#[test]
fn absent_data_come_with_the_command_that_fetches_them() {
    let directory = workplace();
    run(directory.path(), "train block-mnist --data-dir nowhere")
        .fails(1, &["data set `mnist` is not in nowhere", "fetch it with `snn data download mnist`"]);
    let got =
        Got::of(snn(directory.path()).args(["train", "block-shd"]).env("SNN_DATA_DIR", "elsewhere").output().unwrap());
    got.fails(1, &["elsewhere", "`snn data download shd`"]);
    run(directory.path(), "data download yinyang")
        .fails(1, &["data set `yinyang` is generated, there is nothing to download"]);
}

#[test]
fn devices_that_are_not_there_are_explained() {
    let directory = workplace();
    run(directory.path(), "train small.toml --device tpu")
        .fails(2, &["--device tpu: expected `cpu` or `cuda[:N][,tf32]`"]);
}

#[test]
fn damaged_models_are_refused() {
    let directory = workplace();
    let directory = directory.path();
    run(directory, "train small.toml --out run --quiet --epochs 1").fine();
    let model = fs::read(directory.join("run/model.safetensors")).unwrap();
    for (name, bytes) in
        [("cut", &model[..model.len() - 7]), ("short", &model[..5]), ("empty", &[]), ("text", b"no model at all")]
    {
        fs::write(directory.join(name), bytes).unwrap();
        run(directory, &format!("eval {name}")).fails(1, &[&format!("{name}: is no safetensors file")]);
    }
    run(directory, "eval nothing").fails(1, &["nothing"]);
    run(directory, "predict run --set model.layers.0.width=25")
        .fails(1, &["0.weight", "has shape [4, 24], the model needs [4, 25]"]);

    // A flipped bit in the state shows itself in the manifest's digest.
    let states = fs::read_dir(directory.join("run/checkpoints")).unwrap().map(|e| e.unwrap().path());
    let state = states.into_iter().find(|p| p.to_string_lossy().contains("state-")).unwrap();
    let mut bytes = fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&state, bytes).unwrap();
    run(directory, "train --resume --out run")
        .fails(1, &["state-1-0.safetensors: does not match the manifest's digest"]);
}

#[test]
fn runs_do_not_overwrite_each_other() {
    let directory = workplace();
    let directory = directory.path();
    run(directory, "train small.toml --out run --quiet --epochs 1").fine();
    run(directory, "train small.toml --out run").fails(2, &["--out run: holds a run already; add --resume"]);
    run(directory, "train small.toml --out run --resume --epochs 2")
        .fails(1, &["manifest.json: belongs to another configuration"]);
    run(directory, "train --resume --out empty").fails(2, &["--resume: the directory holds no run"]);
    // Without --out every run gets a directory of its own.
    for want in ["runs/small\n", "runs/small-2\n"] {
        assert!(run(directory, "train small.toml --quiet --epochs 1").fine().ends_with(want));
    }
}

#[test]
fn loss_that_is_no_number_ends_the_run_and_keeps_its_checkpoint() {
    let directory = workplace();
    let directory = directory.path();
    let huge =
        "--set train.optimiser.kind=sgd --set train.optimiser.learning_rate=1e38 --set train.checkpoint_batches=1";
    run(directory, &format!("train small.toml --quiet --out run {huge}"))
        .fails(1, &["the loss is", "in epoch 1, batch", "train.optimiser.learning_rate", "train.clip_norm"]);
    let manifest = fs::read_to_string(directory.join("run/checkpoints/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert!(directory.join("run/checkpoints").join(manifest["state"].as_str().unwrap()).is_file());
    assert!(!directory.join("run/model.safetensors").exists(), "a run that failed has no result");
}

#[test]
fn reader_that_has_gone_is_no_failure() {
    let directory = workplace();
    run(directory.path(), "train small.toml --out run --quiet --epochs 1").fine();
    let commands = [
        "presets",
        "presets --json",
        "completions bash",
        "data list",
        "info small.toml",
        "predict run",
        "train small.toml --epochs 1 --json",
    ];
    for arguments in commands {
        let mut child = snn(directory.path())
            .args(arguments.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A file system that takes no more, and what is left afterwards.
#[cfg(unix)]
#[test]
fn disk_that_is_full_is_named_and_the_run_goes_on_when_it_is_not() {
    let directory = workplace();
    let directory = directory.path();
    run(directory, "train small.toml --out whole --quiet").fine();
    let whole = fs::read(directory.join("whole/model.safetensors")).unwrap();

    // Files of 8 KiB at most: the log is the first to grow beyond.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" train small.toml --out full --quiet";
    let limited = Command::new("bash").args(["-c", limited, env!("CARGO_BIN_EXE_snn")]).current_dir(directory).output();
    match limited {
        Ok(output) => {
            Got::of(output).fails(1, &["full/log.jsonl: File too large"]);
            run(directory, "train small.toml --out full --quiet --resume").fine();
            assert_eq!(fs::read(directory.join("full/model.safetensors")).unwrap(), whole);
        }
        Err(error) => eprintln!("skipped: no bash to limit the size of files with ({error})"),
    }

    let mount = directory.join("tiny");
    fs::create_dir(&mount).unwrap();
    let Some(_mounted) = Tiny::mount(&mount, "32k") else {
        eprintln!("skipped: a file system of 32 KiB can be mounted by root alone");
        return;
    };
    run(directory, "train small.toml --out tiny/run --quiet").fails(1, &["tiny/run/", "No space left on device"]);
    let remounted = Command::new("mount").args(["-o", "remount,size=1m"]).arg(&mount).status().unwrap();
    assert!(remounted.success());
    run(directory, "train small.toml --out tiny/run --quiet --resume").fine();
    assert_eq!(fs::read(mount.join("run/model.safetensors")).unwrap(), whole);
}

/// A small file system in memory, gone when dropped.
#[cfg(unix)]
struct Tiny<'a>(&'a std::path::Path);

#[cfg(unix)]
impl<'a> Tiny<'a> {
    fn mount(at: &'a std::path::Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success());
        mounted.then_some(Self(at))
    }
}

#[cfg(unix)]
impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure here but to leave an empty mount behind.
        let _ = Command::new("umount").arg(self.0).status();
    }
}
