//! Generates the AIR kernels and compiles all kernels ahead of time, if nvcc is there.
//!
//! What comes out, in `OUT_DIR`: `kernels.bin` (a container of fatbins, empty without nvcc; `src/cuda/blob.rs` reads it),
//! `kernel_resources.txt` (registers and spills, which a test holds against a budget) and `air_registry.rs`. Compiled and generated files are kept in the cache folder under the hash of everything that
//! went into them, so that a fresh clone or an unrelated change costs nothing. Nothing here uses the network:
//! `scripts/cuda-toolchain.sh` does, when a person or CI calls it.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Architectures of a build without `GPU_PROVER_ARCHS`: SASS for the H100 and H200, and PTX for what comes after.
const DEFAULT_ARCHS: &str = "90a";

/// Generated kernels at -O1: at -O3 ptxas hoists their loads, and the registers cost more than the latency.
const GENERATED_FLAGS: &[&str] = &["-O3", "-Xptxas", "-O1"];
const WRITTEN_FLAGS: &[&str] = &["-O3"];

fn main() -> Result<()> {
    for variable in ["NVCC", "CUDA_HOME", "GPU_PROVER_ARCHS", "UPGRADER_FLEET_CACHE", "XDG_CACHE_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build.rs");

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let cache = cache_folder().unwrap_or_else(|| out.clone());
    let generated = generated_sources(&cache)?;
    println!("cargo::rustc-env=GPU_PROVER_GENERATED={}", generated.display());
    fs::copy(generated.join("air_registry.rs"), out.join("air_registry.rs"))?;

    let (blob, resources) = if let Some(nvcc) = find_nvcc(&cache) {
        compile_all(&nvcc, &generated, &cache)?
    } else {
        println!("cargo::warning=no nvcc found: building without GPU kernels (scripts/cuda-toolchain.sh gets one)");
        (vec![], String::new())
    };
    fs::write(out.join("kernels.bin"), blob)?;
    fs::write(out.join("kernel_resources.txt"), resources)?;
    Ok(())
}

/// `UPGRADER_FLEET_CACHE`, or the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty()).map(PathBuf::from);
    variable("UPGRADER_FLEET_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("upgrader-fleet")))
        .or_else(|| Some(variable("HOME")?.join(".cache/upgrader-fleet")))
}

/// NVCC, CUDA_HOME, PATH, then the wheels that `scripts/cuda-toolchain.sh` fetched.
fn find_nvcc(cache: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nvcc"));
    let cached = cache.join("cuda/wheels/nvidia/cu13/bin/nvcc");
    println!("cargo::rerun-if-changed={}", cached.display());
    named.into_iter().chain(home).chain(on_path).chain([cached]).find(|candidate| candidate.is_file())
}

/// The folder with the generator's output, made if it is not there.
fn generated_sources(cache: &Path) -> Result<PathBuf> {
    let key = hash(gpu_codegen::FINGERPRINT.iter().map(|part| part.as_bytes()));
    let folder = cache.join("kernels").join(format!("generated-{key}"));
    if !folder.join("air_registry.rs").is_file() {
        fs::create_dir_all(&folder)?;
        write_atomically(&folder.join("tip5_constants.cuh"), gpu_codegen::tip5_constants().as_bytes())?;
        write_atomically(&folder.join("air_names.cuh"), gpu_codegen::air_names().as_bytes())?;
        // The registry comes last in the list: its presence says that all is there.
        for file in gpu_codegen::generate() {
            write_atomically(&folder.join(file.name), file.text.as_bytes())?;
        }
    }
    Ok(folder)
}

/// Compiles every `.cu` and packs the fatbins: count, then for each name length, name, data length, data (u32 LE). And says
/// what each kernel takes.
fn compile_all(nvcc: &Path, generated: &Path, cache: &Path) -> Result<(Vec<u8>, String)> {
    let archs = std::env::var("GPU_PROVER_ARCHS").unwrap_or_else(|_| DEFAULT_ARCHS.into());
    // For people who ask what a binary runs on.
    println!("cargo::rustc-env=GPU_PROVER_EMBEDDED_ARCHS={archs}");
    let gencode = gencode_flags(&archs);
    let version = Command::new(nvcc).arg("--version").output()?.stdout;

    let mut sources = vec![];
    for (folder, flags) in [(Path::new("kernels"), WRITTEN_FLAGS), (generated, GENERATED_FLAGS)] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "cu") {
                sources.push((path, flags));
            }
        }
    }
    sources.sort();
    let objects = cache.join("kernels");
    fs::create_dir_all(&objects)?;

    let queue = Mutex::new(sources.iter());
    let failures = Mutex::new(vec![]);
    let done = Mutex::new(vec![]);
    let jobs: usize = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut q| q.next()).ok().flatten();
                    let Some((source, flags)) = next else { break };
                    let result = compile(nvcc, source, flags, &gencode, generated, &version, &objects);
                    match result {
                        Ok(object) => {
                            if let Ok(mut done) = done.lock() {
                                done.push((source.clone(), object));
                            }
                        }
                        Err(error) => {
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(format!("{}: {error}", source.display()));
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner()?;
    if !failures.is_empty() {
        return Err(failures.join("\n").into());
    }

    let mut done = done.into_inner()?;
    done.sort();
    let mut blob = vec![];
    let mut resources = String::new();
    blob.extend(u32::try_from(done.len())?.to_le_bytes());
    for (source, object) in done {
        resources.push_str(&kernel_resources(&fs::read_to_string(object.with_extension("log")).unwrap_or_default()));
        let name = source.file_stem().ok_or("a kernel without a name")?.to_string_lossy().into_owned();
        let data = fs::read(object)?;
        blob.extend(u32::try_from(name.len())?.to_le_bytes());
        blob.extend(name.as_bytes());
        blob.extend(u32::try_from(data.len())?.to_le_bytes());
        blob.extend(data);
    }
    Ok((blob, resources))
}

/// From ptxas' report: a line `kernel architecture registers spilled-bytes` for each kernel.
fn kernel_resources(log: &str) -> String {
    let number_before =
        |line: &str, word: &str| -> Option<u32> { line.split(word).next()?.split_whitespace().last()?.parse().ok() };
    let mut text = String::new();
    let (mut kernel, mut spilled) = (None, 0);
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let mut parts = rest.split('\'');
            kernel = parts.next().zip(parts.nth(1));
        } else if line.contains("bytes spill stores") {
            spilled = number_before(line, " bytes spill stores").unwrap_or(0);
        } else if let (Some((name, arch)), true) = (kernel, line.contains(" registers")) {
            let registers = number_before(line, " registers").unwrap_or(0);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} {arch} {registers} {spilled}");
            kernel = None;
        }
    }
    text
}

/// `90a,100` to nvcc's flags; the last architecture's PTX comes along for devices that are newer.
fn gencode_flags(archs: &str) -> Vec<String> {
    let archs: Vec<&str> = archs.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    let sass = archs.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    // PTX of an "a" architecture runs nowhere else.
    let newest = archs.last().map(|arch| arch.trim_end_matches(char::is_alphabetic));
    let ptx = newest.map(|arch| format!("-gencode=arch=compute_{arch},code=compute_{arch}"));
    sass.chain(ptx).collect()
}

/// Compiles one file to a fatbin, or finds it in the cache.
fn compile(
    nvcc: &Path,
    source: &Path,
    flags: &[&str],
    gencode: &[String],
    generated: &Path,
    version: &[u8],
    objects: &Path,
) -> Result<PathBuf> {
    let text = with_includes(source, &[Path::new("kernels"), generated])?;
    let key = hash(
        [version, text.as_slice()]
            .into_iter()
            .chain(flags.iter().map(|f| f.as_bytes()))
            .chain(gencode.iter().map(String::as_bytes)),
    );
    let stem = source.file_stem().ok_or("a kernel without a name")?.to_string_lossy().into_owned();
    let object = objects.join(format!("{stem}-{key}.fatbin"));
    if object.is_file() && object.with_extension("log").is_file() {
        return Ok(object);
    }
    let partial = objects.join(format!("{stem}-{key}.{}.partial", std::process::id()));
    let output = Command::new(nvcc)
        .args(flags)
        .args(gencode)
        .args(["-fatbin", "-Xfatbin", "-compress-all", "-Xptxas", "-v", "-diag-suppress", "186", "-I", "kernels", "-I"])
        .arg(generated)
        .arg(source)
        .arg("-o")
        .arg(&partial)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    // Registers and spills of each kernel, for the budget test.
    fs::write(objects.join(format!("{stem}-{key}.log")), &output.stderr)?;
    fs::rename(&partial, &object)?;
    Ok(object)
}

/// A file's text and that of everything it includes with quotes, each once.
fn with_includes(source: &Path, folders: &[&Path]) -> Result<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![source.to_path_buf()];
    let mut text = vec![];
    while let Some(path) = stack.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let mut content = String::new();
        fs::File::open(&path)?.read_to_string(&mut content)?;
        for line in content.lines() {
            if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
                let found = folders.iter().map(|folder| folder.join(name)).find(|p| p.is_file());
                stack.push(found.ok_or_else(|| format!("{}: no file {name}", path.display()))?);
            }
        }
        text.extend(content.into_bytes());
    }
    Ok(text)
}

fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::File::create(&partial)?.write_all(data)?;
    fs::rename(partial, path)?;
    Ok(())
}

/// 128 bits of FNV-1a over all parts and their lengths: a file name, not a security measure.
fn hash<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        for byte in part.iter().copied().chain((part.len() as u64).to_le_bytes()) {
            state = (state ^ u128::from(byte)).wrapping_mul(PRIME);
        }
    }
    format!("{state:032x}")
}
