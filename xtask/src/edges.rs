//! Which of our crates may depend on which: `docs/architecture.md` as a test.
//!
//! Development dependencies count as well: a test that needs a crate from above belongs above.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Each crate with the crates of ours it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("snn-core", &[]),
    ("snn-cpu", &["snn-core"]),
    ("snn-cuda", &["snn-core"]),
    ("snn-cuda-emulator", &[]),
    ("snn-data", &["snn-core"]),
    ("snn-train", &["snn-core", "snn-data"]),
    ("snn-cli", &["snn-core", "snn-cpu", "snn-cuda", "snn-data", "snn-train"]),
    ("xtask", &[]),
];

/// Edges that tests and benches alone may add, as `(from, to)`: the stand-in for CUDA's libraries. The layers hold for
/// tests too.
const ALLOWED_IN_TESTS: &[(&str, &str)] = &[("snn-cuda", "snn-cuda-emulator"), ("snn-cli", "snn-cuda-emulator")];

/// Every edge in `cargo metadata`'s answer that is not allowed, as a sentence.
///
/// # Errors
///
/// If the answer has not the expected form.
pub(crate) fn forbidden(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let name =
        |value: &Value| value["name"].as_str().map(str::to_owned).context("cargo metadata: a package has no name");
    let ours = packages.iter().map(name).collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for package in packages {
        let from = name(package)?;
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == from) else {
            found.push(format!("{from} is not in the table of crates in xtask/src/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = name(dependency)?;
            // A crate may ask for itself with other features in its tests.
            let in_tests = dependency["kind"] == "dev" && ALLOWED_IN_TESTS.contains(&(&*from, &*to));
            if in_tests || to == from || !ours.contains(&to) || allowed.contains(&&*to) {
                continue;
            }
            let kind = dependency["kind"].as_str().map(|kind| format!(" ({kind}-dependency)")).unwrap_or_default();
            found.push(format!("{from} must not depend on {to}{kind}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edges_point_one_way_only() {
        let metadata = json!({"packages": [
            {"name": "snn-core", "dependencies": [{"name": "rand", "kind": null}, {"name": "snn-core", "kind": "dev"}]},
            {"name": "snn-cpu", "dependencies": [{"name": "snn-core", "kind": null}]},
            {"name": "snn-train", "dependencies": [{"name": "snn-data", "kind": null}, {"name": "snn-cpu", "kind": "dev"}]},
            {"name": "snn-data", "dependencies": []},
            {"name": "xtask", "dependencies": [{"name": "snn-core", "kind": null}]},
            {"name": "stray", "dependencies": []},
        ]});
        assert_eq!(
            forbidden(&metadata).unwrap(),
            [
                "snn-train must not depend on snn-cpu (dev-dependency)",
                "xtask must not depend on snn-core",
                "stray is not in the table of crates in xtask/src/edges.rs",
            ]
        );
        assert!(forbidden(&json!({})).is_err());
    }

    #[test]
    fn this_workspace_keeps_to_the_table() {
        let metadata = crate::snn::metadata(&crate::command::root()).unwrap();
        assert_eq!(forbidden(&metadata).unwrap(), Vec::<String>::new());
    }
}
