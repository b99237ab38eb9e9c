//! A temporary folder that goes when the process does, also when a static holds it, which Rust never drops.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// The folder, and who removes it.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Waits for the end of its standard input, which is the end of this process.
    _janitor: Child,
}

/// Removes the folder and the control groups of the same name, which nodes make (see `node.rs`) and the kernel keeps.
const CLEAN: &str = r#"read -r _; sleep 3
find /sys/fs/cgroup -depth -type d -path "*/${1##*/}*" -exec rmdir {} + 2>/dev/null
rm -rf "$1""#;

/// A new folder.
///
/// # Errors
/// None can be made.
pub fn folder() -> Result<Folder> {
    let path = tempfile::Builder::new().prefix("uf-cluster-").tempdir()?.keep();
    let janitor = Command::new("sh")
        .args(["-c", CLEAN, "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("sh")?;
    Ok(Folder { path, _janitor: janitor })
}
