//! Compiles the kernels of `snn-cuda` as C++ together with stand-ins for CUDA's libraries.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let kernels = here.join("../src/kernels");
    for path in [&kernels, &here.join("src"), &here.join("build.rs")] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let mut files: Vec<PathBuf> = fs::read_dir(&kernels)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files
        .retain(|file| file.extension().is_some_and(|e| e == "cu") && file.file_stem().is_some_and(|s| s != "prelude"));
    files.sort();

    let mut names = Vec::new();
    let mut sources = vec![here.join("src/device.cpp"), here.join("src/driver.cpp")];
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let unit = out.join(format!("{name}.cpp"));
        fs::write(&unit, unit_of(&name, file, &kernels.join("prelude.cu"))?)?;
        sources.push(unit);
        names.push(name);
    }
    let table = out.join("table.cpp");
    fs::write(&table, table_of(&names))?;
    sources.push(table);

    let compiler = cc::Build::new().cpp(true).opt_level(1).cargo_metadata(false).try_get_compiler()?;
    let base = || {
        let mut command = compiler.to_command();
        command.args([
            "-std=c++17",
            "-O2",
            "-g1",
            "-fPIC",
            "-pthread",
            "-ffp-contract=off",
            "-fvisibility=hidden",
            "-w",
        ]);
        // Arrays of known size: a wrong index is an illegal instruction.
        command.args(["-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"]);
        command.arg("-I").arg(here.join("src"));
        command
    };
    let objects = compile_all(&sources, &out, &base)?;
    let lib = out.join("lib");
    fs::create_dir_all(&lib)?;
    let link = |name: &str, inputs: &[PathBuf]| {
        let mut command = base();
        command.args(["-shared", &format!("-Wl,-soname,{name}"), "-Wl,-rpath,$ORIGIN", "-o"]).arg(lib.join(name));
        run(command.args(inputs))
    };
    // The names under which the backend looks first.
    link("libcuda.so", &objects)?;
    link("libcublas.so", &[here.join("src/cublas.cpp"), lib.join("libcuda.so")])?;
    link("libnvrtc.so", &[here.join("src/nvrtc.cpp")])
}

/// Compiles each source, two at a time or as many as cargo allows.
fn compile_all(
    sources: &[PathBuf],
    out: &Path,
    base: &(impl Fn() -> Command + Sync),
) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let object = |source: &Path| out.join(source.file_name().unwrap_or_default()).with_extension("o");
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1_usize).clamp(1, 16);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            while let Some(source) = sources.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                if let Err(error) = run(base().arg("-c").arg(source).arg("-o").arg(object(source))) {
                    failures.push(error.to_string());
                }
            }
            failures
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    if failures.is_empty() { Ok(sources.iter().map(|s| object(s)).collect()) } else { Err(failures.join("\n").into()) }
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("{said}");
    Err(format!("{command:?}: {}\n{said}", output.status).into())
}

/// One file of kernels as C++, with a table of its kernels at the end.
fn unit_of(name: &str, file: &Path, prelude: &Path) -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let (mut callers, mut rows) = (String::new(), String::new());
    for (at, word) in text.match_indices("KERNEL ") {
        let together = text[..at].ends_with("BLOCK_");
        let before = text[..at].trim_end_matches("BLOCK_");
        if !before.is_empty() && !before.ends_with('\n') {
            continue;
        }
        let rest = &text[at + word.len()..];
        let (kernel, rest) = rest.split_once('(').ok_or("a kernel without parameters")?;
        let (list, _) = rest.split_once(')').ok_or("a kernel whose parameters do not end")?;
        let types = list.split(',').map(str::trim).filter(|parameter| !parameter.is_empty());
        let types = types.map(|p| p.rsplit_once(char::is_whitespace).map_or(p, |(of, _)| of.trim()));
        let (mut arguments, mut sizes) = (Vec::new(), String::new());
        for (i, of) in types.enumerate() {
            arguments.push(format!("emulator::argument<{of}>(a[{i}])"));
            write!(sizes, "emulator::size_of<{of}>(), ")?;
        }
        writeln!(callers, "static void call_{kernel}(void** a) {{ {kernel}({}); }}", arguments.join(", "))?;
        writeln!(callers, "static const int sizes_{kernel}[] = {{{sizes}0}};")?;
        writeln!(rows, "    {{\"{kernel}\", call_{kernel}, {together}, sizes_{kernel}}},")?;
    }
    Ok(format!(
        "#include \"emulator.h\"\n#include \"{}\"\n#include \"{}\"\n{callers}\
         extern const emulator::Kernel kernels_{name}[] = {{\n{rows}    {{nullptr, nullptr, false, nullptr}}}};\n",
        prelude.display(),
        file.display()
    ))
}

fn table_of(names: &[String]) -> String {
    let mut text = String::from("#include \"emulator.h\"\n");
    for name in names {
        text += &format!("extern const emulator::Kernel kernels_{name}[];\n");
    }
    text += "const emulator::File emulator::files[] = {\n";
    for name in names {
        text += &format!("    {{\"{name}\", kernels_{name}}},\n");
    }
    text + "    {nullptr, nullptr}};\n"
}
