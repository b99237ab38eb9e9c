//! A test on a machine of its own, as far as Linux goes: namespaces for the network, processes and mounts.
//!
//! A kubelet and containerd mount, start and configure what outlives them. Here all of it is in namespaces that end with the
//! test's process, however that ends: the kernel then kills every process in them and drops mounts and interfaces. What is left,
//! a folder and empty control groups, goes with the janitor, who stands outside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use crate::programs::Programs;
use crate::{janitor, node};

/// Set by `make e2e`: tests of this tier take minutes, and `cargo test` alone does not begin with them.
const WANTED: &str = "UPGRADER_FLEET_E2E";
/// The folder of the test that runs inside.
const INSIDE: &str = "UPGRADER_FLEET_MACHINE";

/// What is there beside `build.sh`'s programs.
const OF_THE_SYSTEM: [&str; 6] = ["ip", "mount", "nft", "python3", "setpriv", "unshare"];

/// The machine, seen from inside.
pub struct Machine {
    programs: Programs,
    folder: PathBuf,
}

impl Machine {
    /// The programs of the cluster.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A folder that is removed with the machine.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// One test at a time: each of these has a whole cluster.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test on a machine of its own: starts this test binary again for this one test, in new namespaces, and there the body.
/// Says why, and does nothing, where that cannot be.
///
/// # Errors
/// What the body says; outside, that it failed.
pub fn alone(test: &str, body: impl FnOnce(&Machine) -> Result<()>) -> Result<()> {
    let programs = match usable() {
        Ok(programs) => programs,
        Err(reason) => {
            eprintln!("SKIPPED: {test} runs a Kubernetes node of its own: {reason}");
            return Ok(());
        }
    };
    if let Some(folder) = std::env::var_os(INSIDE).map(PathBuf::from) {
        isolate(&folder)?;
        return body(&Machine { programs, folder });
    }
    let _turn = TURN.lock();
    // Where the host has no such folder, it has none afterwards.
    let made: Vec<_> = HIDDEN.into_iter().filter(|path| std::fs::create_dir(path).is_ok()).collect();
    let folder = janitor::folder()?;
    // The shell is process 1 of the new namespace and collects what is orphaned. The kernel kills `unshare` when this thread
    // ends, and the shell when `unshare` does; with process 1 goes every other.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", r#""$@"; exit $?"#, "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &folder.path)
        .status()
        .context("setpriv")?;
    for path in made {
        drop(std::fs::remove_dir(path));
    }
    if !status.success()
        && let Some(keep) = std::env::var_os("UPGRADER_FLEET_E2E_KEEP")
    {
        // For whoever looks for the reason: what the containers said.
        drop(Command::new("cp").arg("-r").arg(folder.path.join("kept")).arg(keep).status());
    }
    ensure!(status.success(), "{test} failed on its machine: {status}");
    Ok(())
}

/// The programs, or why there is no such machine.
fn usable() -> Result<Programs, String> {
    if std::env::var_os(WANTED).is_none_or(|value| value.is_empty()) {
        return Err("run it with `make e2e`".to_owned());
    }
    if !geteuid().is_root() {
        return Err("that needs root".to_owned());
    }
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let missing: Vec<_> =
        OF_THE_SYSTEM.into_iter().filter(|name| !folders.iter().any(|folder| folder.join(name).exists())).collect();
    if !missing.is_empty() {
        return Err(format!("{} missing; `scripts/deps.sh node` installs them", missing.join(", ")));
    }
    let may = Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return Err("this container may not make namespaces".to_owned());
    }
    Programs::built(&node::PROGRAMS).map_err(|missing| format!("no {missing}; `tests/cluster/build.sh real` makes them"))
}

/// Kernel settings that a kubelet wants and writes; they hold for the whole host.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Where the programs write beside their own folder.
const HIDDEN: [&str; 4] = ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"];

/// Puts something else where programs would write outside of the folder.
fn isolate(folder: &Path) -> Result<()> {
    for path in HIDDEN {
        run("mount", &["-t", "tmpfs", "tmpfs", path])?;
    }
    // Copies of the settings: the kubelet finds what it wrote, and the host keeps what it had.
    for setting in SETTINGS {
        let (setting, copy) = (Path::new("/proc/sys").join(setting), folder.join(setting.replace('/', ".")));
        if setting.exists() {
            std::fs::write(&copy, std::fs::read(&setting)?)?;
            run("mount", &["--bind", &copy.display().to_string(), &setting.display().to_string()])?;
        }
    }
    Ok(())
}

/// Runs a program that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}{complaint}", arguments.join(" "));
    Ok(said)
}
