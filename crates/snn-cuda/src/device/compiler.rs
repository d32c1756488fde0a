//! NVRTC, the compiler for kernels.

use std::ffi::CString;

use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};

use crate::kernels::Source;
use crate::libraries::Needed;

/// NVRTC, for one architecture.
#[derive(Debug)]
pub struct Compiler {
    /// `sm_90` for machine code, `compute_90` for PTX, which any driver at least as new as the compiler can load.
    architecture: String,
    /// The compiler's version.
    pub(super) version: String,
}

impl Compiler {
    /// For an architecture: PTX for one such as `compute_80`, machine code for one such as `sm_80`.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn for_architecture(architecture: &str) -> Result<Self, String> {
        Needed::all_present(&[Needed::Compiler])?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to numbers of the right size.
        unsafe { nvrtc_sys::nvrtcVersion(&raw mut major, &raw mut minor) }
            .result()
            .map_err(|e| format!("NVRTC: {e}"))?;
        Ok(Self { architecture: architecture.into(), version: format!("{major}.{minor}") })
    }

    /// Machine code for a device; PTX of the newest architecture that the compiler knows for a device that is newer.
    pub(super) fn for_capability(major: u32, minor: u32) -> Result<Self, String> {
        let compiler = Self::for_architecture("")?;
        let known = architectures()?;
        let wanted = (10 * major + minor) as i32;
        let architecture = if known.contains(&wanted) {
            format!("sm_{wanted}")
        } else {
            let newest = known.iter().filter(|&&arch| arch <= wanted).max();
            let newest = newest.ok_or_else(|| {
                format!(
                    "NVRTC {} compiles for none of the architectures of this GPU ({major}.{minor})",
                    compiler.version
                )
            })?;
            format!("compute_{newest}")
        };
        Ok(Self { architecture, ..compiler })
    }

    /// What the compiler is told. Products and sums are not fused, so that scans round as on the CPU; a kernel that
    /// wants it writes `fmaf`.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = vec!["--std=c++17".into(), "--fmad=false".into()];
        options.push(format!("--gpu-architecture={}", self.architecture));
        options
    }

    /// A file's kernels as machine code or PTX.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub fn compile(&self, source: &Source) -> Result<Vec<u8>, String> {
        let text = CString::new(source.text()).map_err(|e| e.to_string())?;
        let name = CString::new(format!("{}.cu", source.name)).map_err(|e| e.to_string())?;
        let program = nvrtc::create_program(&text, Some(&name)).map_err(|e| format!("NVRTC: {e:?}"))?;
        // SAFETY: the program was created just now and is destroyed here, once.
        unsafe {
            let image = nvrtc::compile_program(program, &self.options())
                .and_then(|()| image(program, self.architecture.starts_with("sm_")));
            let log = nvrtc::get_program_log(program).unwrap_or_default();
            let _ = nvrtc::destroy_program(program);
            let log: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
            image.map_err(|e| {
                let log = String::from_utf8_lossy(&log).into_owned();
                format!("kernels {} do not compile for {}: {e:?}\n{}", source.name, self.architecture, log.trim_end())
            })
        }
    }
}

/// What a compiled program came to.
///
/// # Safety
///
/// The program exists.
unsafe fn image(program: nvrtc_sys::nvrtcProgram, machine_code: bool) -> Result<Vec<u8>, nvrtc::NvrtcError> {
    if !machine_code {
        // SAFETY: the caller's promise.
        let ptx = unsafe { nvrtc::get_ptx(program) }?;
        return Ok(ptx.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect());
    }
    let mut bytes = 0;
    // SAFETY: the caller's promise; the compiler says how many bytes it writes.
    unsafe {
        nvrtc_sys::nvrtcGetCUBINSize(program, &raw mut bytes).result()?;
        let mut code = vec![0_u8; bytes];
        nvrtc_sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

/// The architectures that the compiler knows, as numbers such as 90.
fn architectures() -> Result<Vec<i32>, String> {
    let failed = |e| format!("NVRTC: {e:?}");
    let mut count = 0;
    // SAFETY: the compiler says how many numbers it writes.
    unsafe {
        nvrtc_sys::nvrtcGetNumSupportedArchs(&raw mut count).result().map_err(failed)?;
        let mut known = vec![0; count as usize];
        nvrtc_sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result().map_err(failed)?;
        Ok(known)
    }
}
