fn main() {
    // Only the dependencies matter.
    println!("cargo::rerun-if-changed=build.rs");
}
