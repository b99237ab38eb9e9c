//! What this machine has: GPUs and memory as `prover-pod` sees them, programs, free ports.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// What there is to prove on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Machine {
    /// GPUs that pods can use, as entries of `CUDA_VISIBLE_DEVICES`.
    pub gpus: Vec<String>,
    /// Why there are none.
    #[serde(default)]
    pub no_gpu: Option<String>,
    /// Bytes of memory that are free.
    #[serde(default)]
    pub free_memory_bytes: Option<u64>,
}

/// Why nothing is known of the machine, or something on it is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A program is nowhere.
    #[error("{name} is not found, neither {} nor on the PATH{}", .looked_in, hint(.name))]
    NoProgram {
        /// Which.
        name: &'static str,
        /// Where it was looked for.
        looked_in: String,
    },
    /// `prover-pod devices` cannot be run.
    #[error("cannot run {} devices", .program.display())]
    Devices {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `prover-pod devices` says something else.
    #[error("{} devices: {reason}", .program.display())]
    Answer {
        /// The program.
        program: PathBuf,
        /// What is wrong with its answer.
        reason: String,
    },
    /// A port is in use, or the address is not ours.
    #[error("cannot listen on {address} for {name}; give another --port-base, or 0 for any free ports")]
    Port {
        /// The process that would.
        name: String,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

fn hint(name: &str) -> &'static str {
    match name {
        "dev-node" => {
            "; it is built with the tests: run `cargo build --release --workspace --bins` in a checkout, and name its \
             target/release with --binaries"
        }
        _ => "; install it beside fleet, or name its folder with --binaries",
    }
}

/// Finds the programs that a fleet consists of.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The only folder to look in, where a person named one.
    pub folder: Option<PathBuf>,
}

impl Programs {
    /// The path of a program: in the folder that was named, else beside this program, else on the `PATH`.
    ///
    /// # Errors
    /// [`MachineError::NoProgram`].
    pub fn find(&self, name: &'static str) -> Result<PathBuf, MachineError> {
        let own = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
        let path = env::var_os("PATH");
        self.find_in(name, own.as_deref(), path.as_deref())
    }

    fn find_in(&self, name: &'static str, own: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, MachineError> {
        let folders: Vec<PathBuf> = match &self.folder {
            Some(folder) => vec![folder.clone()],
            None => own.map(Path::to_owned).into_iter().chain(path.map(env::split_paths).into_iter().flatten()).collect(),
        };
        let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
        // Children may be started in another folder.
        found.map(|file| std::path::absolute(&file).unwrap_or(file)).ok_or_else(|| MachineError::NoProgram {
            name,
            looked_in: match (&self.folder, own) {
                (Some(folder), _) => format!("in {}", folder.display()),
                (None, Some(own)) => format!("in {}", own.display()),
                (None, None) => "beside fleet".to_owned(),
            },
        })
    }
}

impl Machine {
    /// Asks `prover-pod`, which will have to use what it sees.
    ///
    /// # Errors
    /// [`MachineError`]: it cannot be run, or is of another version.
    pub fn look(prover_pod: &Path) -> Result<Self, MachineError> {
        let output = Command::new(prover_pod)
            .arg("devices")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| MachineError::Devices { program: prover_pod.to_owned(), source })?;
        let answer = |reason| MachineError::Answer { program: prover_pod.to_owned(), reason };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(answer(format!("{}: {}", output.status, said.lines().next().unwrap_or_default())));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| answer(error.to_string()))
    }
}

/// Where ports come from: one after the other from a base, or any free ones.
#[derive(Debug)]
pub enum Ports {
    /// From this one on.
    From(Option<u16>),
    /// Free ones of this address. They are held until all are chosen, so that none comes twice.
    Free(IpAddr, Vec<TcpListener>),
}

impl Ports {
    /// Ports from `base` on; any free ones of this address for 0.
    pub fn new(address: IpAddr, base: u16) -> Self {
        if base == 0 { Self::Free(address, Vec::new()) } else { Self::From(Some(base)) }
    }
}

impl Iterator for Ports {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        match self {
            Self::From(next) => {
                let port = (*next)?;
                *next = port.checked_add(1);
                Some(port)
            }
            Self::Free(address, held) => {
                let listener = TcpListener::bind((*address, 0)).ok()?;
                let port = listener.local_addr().ok()?.port();
                held.push(listener);
                Some(port)
            }
        }
    }
}

/// Whether all of these addresses can be listened on now.
///
/// # Errors
/// [`MachineError::Port`] for the first that cannot.
pub fn check_free<'a>(addresses: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Result<(), MachineError> {
    let mut seen = HashSet::new();
    for (name, address) in addresses.into_iter().filter(|(_, address)| seen.insert(*address)) {
        TcpListener::bind(address).map_err(|source| MachineError::Port { name: name.to_owned(), address, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_named_folder_is_the_only_one_and_else_ones_own_comes_before_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for sub in ["own", "path", "named"] {
            std::fs::create_dir(at(sub)).expect("a folder");
            std::fs::write(at(sub).join("upgrader"), "").expect("a file");
        }
        std::fs::write(at("path").join("dev-node"), "").expect("a file");
        let path = env::join_paths([at("nothing"), at("path")]).expect("a path");
        let find = |programs: &Programs, name| programs.find_in(name, Some(&at("own")), Some(&path));
        let anywhere = Programs::default();
        assert_eq!(find(&anywhere, "upgrader").ok(), Some(at("own").join("upgrader")));
        assert_eq!(find(&anywhere, "dev-node").ok(), Some(at("path").join("dev-node")));
        let named = Programs { folder: Some(at("named")) };
        assert_eq!(find(&named, "upgrader").ok(), Some(at("named").join("upgrader")));
        let missing = find(&named, "dev-node").expect_err("is not there").to_string();
        assert!(missing.contains("named") && missing.contains("cargo build --release --workspace --bins"), "{missing}");
        let missing = find(&anywhere, "prover-pod").expect_err("is nowhere").to_string();
        assert!(missing.contains("own") && missing.contains("--binaries"), "{missing}");
    }

    #[test]
    fn ports_never_come_twice_and_end_where_ports_end() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(Ports::new(loopback, 9820).take(3).collect::<Vec<_>>(), [9820, 9821, 9822]);
        assert_eq!(Ports::new(loopback, 65_534).collect::<Vec<_>>(), [65_534, 65_535]);
        let free: HashSet<u16> = Ports::new(loopback, 0).take(50).collect();
        assert_eq!(free.len(), 50);
    }

    #[test]
    fn a_taken_port_is_told_with_who_wanted_it() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
        let address = taken.local_addr().expect("has one");
        let error = check_free([("prover-default-0", address)]).expect_err("is taken").to_string();
        assert!(error.contains(&format!("{address} for prover-default-0")) && error.contains("--port-base"), "{error}");
        drop(taken);
        assert!(check_free([("a", address)]).is_ok());
    }

    #[test]
    fn what_prover_pod_says_is_read() {
        let machine: Machine = serde_json::from_str(r#"{"gpus": ["0", "MIG-a"], "free_memory_bytes": 5}"#).expect("is read");
        assert_eq!((machine.gpus.len(), machine.no_gpu, machine.free_memory_bytes), (2, None, Some(5)));
        let missing = Machine::look(Path::new("/nowhere/prover-pod")).expect_err("is missing");
        assert!(matches!(missing, MachineError::Devices { .. }));
        let other = Machine::look(Path::new("/bin/false")).expect_err("says nothing");
        assert!(matches!(other, MachineError::Answer { .. }), "{other}");
    }
}
