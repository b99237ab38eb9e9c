//! Writes the generated files to a folder: `cargo run -p gpu-codegen --example dump -- DIR`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "generated".into());
    std::fs::create_dir_all(&folder)?;
    for file in gpu_codegen::generate() {
        std::fs::write(Path::new(&folder).join(file.name), file.text)?;
    }
    std::fs::write(Path::new(&folder).join("air_names.cuh"), gpu_codegen::air_names())?;
    std::fs::write(Path::new(&folder).join("tip5_constants.cuh"), gpu_codegen::tip5_constants())
}
