//! Prover pods as child processes, the built binary and nothing else.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A pod makes and checks a proof of its own before it is ready; on two loaded cores that takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// The path of a binary of this workspace, beside the running one.
///
/// # Errors
///
/// When it is not built: `cargo test` alone does not build other crates' binaries.
pub fn binary(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let found = me.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built; run `cargo build --release --workspace --bins` first"))
}

/// A running pod; killed when dropped.
#[derive(Debug)]
pub struct Pod {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Pod {
    /// Starts `prover-pod serve` on a free port of the loopback interface, with further arguments.
    ///
    /// # Errors
    ///
    /// When the binary is missing or the process does not listen in time; the error shows its log.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_at("127.0.0.1:0", arguments, &[])
    }

    /// The same on an address of the caller's choice, with further variables in its environment.
    ///
    /// # Errors
    ///
    /// As [`Pod::start`].
    pub fn start_at(listen: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port_file = folder.path().join("port");
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(binary("prover-pod")?)
            .args(["serve", "--listen", listen, "--port-file"])
            .arg(&port_file)
            .args(arguments)
            // Tests of the contract name the CPU; those of GPUs ask for one.
            .env("PROVER_POD_BACKEND", std::env::var_os("PROVER_POD_BACKEND").unwrap_or_else(|| "cpu".into()))
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start prover-pod")?;
        let mut pod = Self { child, url: String::new(), folder };
        let deadline = Instant::now() + READY_WITHIN;
        let port = loop {
            // The file may be there before its content.
            if let Some(port) = fs::read_to_string(&port_file).ok().and_then(|text| port_in(&text)) {
                break port;
            }
            pod.still_runs()?;
            ensure!(Instant::now() < deadline, "prover-pod does not listen:\n{}", pod.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        pod.url = format!("http://127.0.0.1:{port}");
        Ok(pod)
    }

    /// Waits until `/readyz` says 200: a worker is up and has proven that it can prove.
    ///
    /// # Errors
    ///
    /// When it does not get ready in time; the error shows its log.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let client = crate::http::client()?;
        loop {
            let answer = client.get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(2)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.still_runs()?;
            ensure!(Instant::now() < deadline, "{} does not get ready:\n{}", self.url, self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("prover-pod ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// Base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id of the service process; its workers are its children.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no goodbye to anybody.
    ///
    /// # Errors
    ///
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM: the pod drains.
    ///
    /// # Errors
    ///
    /// When there is no such process any more.
    pub fn terminate(&self) -> Result<()> {
        signal(self.pid(), "TERM")
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    ///
    /// When it does not in time; the error shows its log.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "prover-pod does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        match self.whole_log() {
            Ok(text) => text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// All that it and its workers logged.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn whole_log(&self) -> Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.folder.path().join("log"))?.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The folder that it was started in; the log lies there too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Sends a signal by its name without `SIG`.
///
/// # Errors
///
/// When there is no such process.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    ensure!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?.success(), "kill -{name} {pid}");
    Ok(())
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A test that ends early must leave nothing behind; a pod that is gone already is just that.
        drop(self.kill());
    }
}

/// The port in a port file: a number, or an address that ends in one. Nothing while the line is not complete.
fn port_in(text: &str) -> Option<u16> {
    let line = text.strip_suffix('\n')?;
    line.rsplit(':').next()?.parse().ok()
}

/// Resident bytes of a process and all that it started.
///
/// # Errors
///
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let own = own_resident_bytes(pid)?;
    // A child that ends in between counts nothing.
    Ok(own + children(pid).into_iter().filter_map(|child| resident_bytes(child).ok()).sum::<u64>())
}

/// Resident bytes of one process.
///
/// # Errors
///
/// When the process is gone.
pub fn own_resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let lists = tasks.into_iter().flatten().flatten().map(of_task);
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_file_is_read_only_when_complete() {
        assert_eq!(Some(8080), port_in("8080\n"));
        assert_eq!(Some(8080), port_in("127.0.0.1:8080\n"));
        assert_eq!(None, port_in("80"));
        assert_eq!(None, port_in(""));
    }

    #[test]
    fn memory_counts_children() {
        let mut child = Command::new("sleep").arg("5").spawn().expect("sleep exists");
        let me = std::process::id();
        let (own, all) = (own_resident_bytes(me).expect("own"), resident_bytes(me).expect("all"));
        child.kill().and_then(|()| child.wait().map(drop)).expect("own child");
        assert!(own > 0 && all > own, "{own} {all}");
    }
}
