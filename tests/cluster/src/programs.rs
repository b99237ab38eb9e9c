//! The programs of the cluster, and how they are run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds them. `None`, with a line on standard error, on a machine without Go, where they cannot be built.
    ///
    /// # Errors
    /// They could be built and have not been.
    pub fn find(needed: &[&str]) -> Result<Option<Self>> {
        let missing = match Self::built(needed) {
            Ok(programs) => return Ok(Some(programs)),
            Err(missing) => missing,
        };
        let go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if go.is_ok_and(|status| status.success()) {
            bail!("{} has no {missing}: run `make cluster` first", cache().join("cluster/bin").display());
        }
        eprintln!(
            "SKIPPED: a Kubernetes for tests needs Go, which is missing. Install it (https://go.dev/dl) and run `make cluster`."
        );
        Ok(None)
    }

    /// Finds them, if all of them are there.
    ///
    /// # Errors
    /// The names of the missing ones.
    pub fn built(needed: &[&str]) -> Result<Self, String> {
        let folder = cache().join("cluster/bin");
        let missing: Vec<_> = needed.iter().copied().filter(|name| !folder.join(name).exists()).collect();
        if missing.is_empty() { Ok(Self { folder }) } else { Err(missing.join(", ")) }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The project's cache.
pub fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("UPGRADER_FLEET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("upgrader-fleet")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/upgrader-fleet")))
        .unwrap_or_else(|| PathBuf::from(".cache"))
}

/// One of our own binaries, beside the test's or beside this one.
///
/// # Errors
/// It has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("a program lies in a folder")?;
    // A test lies in target/release/deps.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: `make build` makes it", path.display());
    }
    Ok(path)
}

/// A process that ends with this one, however this one ends: its shell waits for a line that never comes, and kills it when the
/// pipe closes instead.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
}

impl Guarded {
    /// Starts a program with its output in a file.
    ///
    /// # Errors
    /// No shell, or no such folder.
    pub fn start(program: &Path, arguments: &[String], environment: &[(&str, String)], log: &Path) -> Result<Self> {
        let output = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let child = Command::new("sh")
            .args(["-c", r#""$@" </dev/null & child=$!; read -r _; kill -KILL $child 2>/dev/null; wait"#, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("sh")?;
        Ok(Self { child })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Closing its standard input is the sign.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
