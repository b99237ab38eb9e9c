//! Only the dependencies matter: see `Cargo.toml`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
