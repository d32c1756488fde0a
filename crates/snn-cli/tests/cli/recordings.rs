//! Recordings of neurons on the command line: generated, taken from a folder, listed. No network is used.

use crate::{run, workplace};

#[test]
fn recordings_are_generated_taken_and_listed() {
    let workplace = workplace();
    let directory = workplace.path();
    let list = run(directory, "data list").fine();
    assert!(list.contains("allen-cells") && list.contains("allen-sim"), "{list}");
    let made = run(directory, "data generate allen-sim --samples 1 --seed 4 --out sim --quiet").fine();
    assert!(made.contains("1 neurons [synthetic recording] in sim"), "{made}");

    let take = "data download allen-cells --mirror sim --data-dir data --quiet";
    let taken = run(directory, &format!("{take} --cells published")).fine();
    assert!(taken.contains("1 of 1 files fetched") && taken.contains("[synthetic recording: not"), "{taken}");
    let taken = run(directory, &format!("{take} --cells 1 --offline")).fine();
    assert!(taken.contains("0 of 1 files fetched"), "{taken}");
    let info = run(directory, "data info allen-cells mnist --data-dir data").fine();
    for part in ["1 Long Square, 3 Noise 1, 4 Noise 2", "--cells 505808144", "not here: snn data download mnist"] {
        assert!(info.contains(part), "{info}");
    }
    run(directory, "data convert allen-cells --data-dir data --quiet").fine();

    run(directory, &format!("{take} --cells 1,7")).fails(2, &["specimen 7: not in sim", "one of those there: 1"]);
    run(directory, "data download mnist --cells 1 --offline").fails(2, &["`--cells` is for recordings"]);
    run(directory, "data generate allen-sim --out sim --vlen").fails(2, &["no splits and one layout"]);
    run(directory, "data generate allen-sim --out sim --samples 0").fails(2, &["cells: 0, expected 1..=10000"]);
    assert_eq!(run(directory, "data download allen-cells --cells 1,x").code, Some(2));
}
