//! Whether the machine has what the build needs, said in one message before the build rather than deep inside it.

use std::path::{Path, PathBuf};

use crate::command::Line;

/// Says what is missing, with what would help; `true` if nothing is.
pub(crate) fn ready(root: &Path) -> bool {
    let missing = missing(root);
    if missing.is_empty() {
        return true;
    }
    eprintln!("error: the build needs what this machine does not have:");
    for item in missing {
        eprintln!("  - {item}");
    }
    false
}

fn missing(root: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    if !has_c_compiler(root) {
        missing.push(
            "a C compiler, for the bundled HDF5 library and for TLS (Debian, Ubuntu: apt-get install build-essential; \
             Fedora: dnf install gcc; macOS: xcode-select --install; or set CC)"
                .to_owned(),
        );
    }
    // With an installed HDF5 nothing is built by cmake.
    let own_hdf5 = std::env::var_os("HDF5_DIR").is_some();
    if !own_hdf5 && !has_cmake(root) && !has_python_venv(root) {
        missing.push(
            "cmake 3.26 or later, for the same library, or python3 with venv, which installs it under target/, or \
             an HDF5 of your own named by HDF5_DIR \
             (Debian, Ubuntu: apt-get install python3-venv; Fedora: dnf install cmake)"
                .to_owned(),
        );
    }
    missing
}

/// Whether there is a C++ compiler, which the tests alone need, for the emulated GPU; says what is missing.
pub(crate) fn has_cpp_compiler(root: &Path) -> bool {
    let chosen = std::env::var("CXX").ok().filter(|cxx| !cxx.trim().is_empty());
    let candidates = match &chosen {
        Some(cxx) => vec![cxx.split_whitespace().next().unwrap_or("c++")],
        None => vec!["c++", "g++", "clang++"],
    };
    let found = candidates.into_iter().any(|name| Line::new(name, root).args(["--version"]).output().is_some());
    if !found {
        eprintln!(
            "error: the tests need a C++ compiler, for the emulated GPU (Debian, Ubuntu: apt-get install g++; Fedora: dnf \
             install gcc-c++; or set CXX)"
        );
    }
    found
}

fn has_c_compiler(root: &Path) -> bool {
    let chosen = std::env::var("CC").ok().filter(|cc| !cc.trim().is_empty());
    let candidates = match &chosen {
        Some(cc) => vec![cc.split_whitespace().next().unwrap_or("cc")],
        None => vec!["cc", "gcc", "clang"],
    };
    candidates.into_iter().any(|name| Line::new(name, root).args(["--version"]).output().is_some())
}

/// A recent cmake on the search path, or the one that an earlier build has installed.
///
/// Where `CMAKE` names our own script, the script finds one of these two itself; another value is believed.
fn has_cmake(root: &Path) -> bool {
    let own = root.join("xtask").join("cmake");
    if std::env::var_os("CMAKE").is_some_and(|cmake| Path::new(&cmake) != own && Path::new(&cmake).is_file()) {
        return true;
    }
    let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(format!("cmake{}", std::env::consts::EXE_SUFFIX)))
        .filter(|place| place.is_file() && *place != own)
        .collect();
    places.push(root.join("target").join("cmake-venv").join("bin").join("cmake"));
    let recent = |place: &PathBuf| {
        Line::new(place, root)
            .args(["--version"])
            .output()
            .and_then(|text| version(&text))
            .is_some_and(|v| v >= (3, 26))
    };
    places.iter().any(recent)
}

fn has_python_venv(root: &Path) -> bool {
    Line::new("python3", root).args(["-c", "import venv, ensurepip"]).output().is_some()
}

/// The first `major.minor` of a program's version text.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("cmake version 3.25.1\n\nCMake suite"), Some((3, 25)));
        assert!(version("cmake version 4.0.3") > Some((3, 26)));
        assert!(version("cmake version 3.9.0") < Some((3, 26)));
        assert_eq!(version("no number"), None);
    }
}
