//! Finding the three libraries of CUDA that the backend uses.
//!
//! They are looked for where the system looks for libraries. Where they lie elsewhere, as those of a Python wheel do,
//! `SNN_CUDA_LIB_DIR` names their directories, separated by colons. Where the system has a library of the same name too,
//! that with the shorter version in its name is taken.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Once;

use libloading::Library;

/// Directories with libraries, separated by colons.
pub const VARIABLE: &str = "SNN_CUDA_LIB_DIR";

/// Beginnings of the names of libraries, each before those that need it.
const NAMES: [&str; 5] = ["libcuda.so", "libnvrtc-builtins.so", "libnvrtc.so", "libcublasLt.so", "libcublas.so"];

/// A library that the backend needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// `libcuda`, which comes with the driver.
    Driver,
    /// `libnvrtc`, the compiler for kernels.
    Compiler,
    /// `libcublas`, dense products.
    Products,
}

impl Needed {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Driver, Self::Compiler, Self::Products];

    /// What the library is, and where it comes from if it is missing.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Driver => "the NVIDIA driver (libcuda.so)",
            Self::Compiler => "the CUDA compiler NVRTC (libnvrtc.so)",
            Self::Products => "cuBLAS (libcublas.so)",
        }
    }

    /// Where the library comes from.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Driver => "install the driver of the GPU",
            Self::Compiler => {
                "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc-cu12` and name its directory of libraries \
                 in SNN_CUDA_LIB_DIR"
            }
            Self::Products => {
                "install the CUDA toolkit, or `pip install nvidia-cublas-cu12` and name its directory of libraries in \
                 SNN_CUDA_LIB_DIR"
            }
        }
    }

    /// Whether the library is there.
    #[must_use]
    pub fn is_present(self) -> bool {
        load();
        // SAFETY: opening a library runs its initialisers; these are NVIDIA's own.
        #[expect(unsafe_code, reason = "libraries are opened at run time")]
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::is_culib_present(),
                Self::Compiler => cudarc::nvrtc::sys::is_culib_present(),
                Self::Products => cudarc::cublas::sys::is_culib_present(),
            }
        }
    }

    /// The first of some libraries that is missing, as a sentence.
    ///
    /// # Errors
    ///
    /// That sentence.
    pub fn all_present(needed: &[Self]) -> Result<(), String> {
        match needed.iter().find(|library| !library.is_present()) {
            Some(missing) => Err(format!("{} is missing: {}", missing.what(), missing.remedy())),
            None => Ok(()),
        }
    }
}

/// Opens the libraries in the directories of [`VARIABLE`], once; by their names alone they are found from then on.
pub fn load() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Some(directories) = std::env::var_os(VARIABLE) {
            load_from(std::env::split_paths(&directories));
        }
    });
}

/// Opens the libraries in some directories. Only what comes before the first device counts.
pub fn load_from(directories: impl IntoIterator<Item = PathBuf>) {
    for directory in directories {
        for path in NAMES.iter().filter_map(|name| newest(&directory, name)) {
            // SAFETY: opening a library runs its initialisers; the user has named the directory.
            #[expect(unsafe_code, reason = "libraries are opened at run time")]
            let library = unsafe { Library::new(&path) };
            // It stays open; one that cannot be opened is as good as absent.
            std::mem::forget(library);
        }
    }
}

/// The library of that name in a directory: the one with the longest version, if there are several.
fn newest(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    let matching = |path: &PathBuf| {
        let file = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(matching).max_by_key(|path| path.as_os_str().len())
}
