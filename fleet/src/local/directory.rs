//! The one directory that a fleet writes to: its lock, its secrets, its logs and its record.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::record::{FleetRecord, VERSION};

const LOCK: &str = "lock";
const RECORD: &str = "fleet.json";
const LOGS: &str = "logs";
const TOKEN: &str = "prover-token";
const SECRET: &str = "fleet-secret";

/// Characters of a secret that the upgrader takes at least.
const LEAST_SECRET: u64 = 32;

/// How far from its end a log is searched for its last line.
const TAIL: u64 = 4096;

/// How often the lock is tried.
const LOCK_ATTEMPTS: u32 = 10;

/// Begins the lines that are not the process's own.
const NOTE: &str = "=== fleet local:";

/// Why the directory cannot be used, or holds no running fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The file system says no.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Another fleet has it.
    #[error("a fleet runs in {}{}; end it, or give another --dir", .path.display(), who(.fleet.as_deref()))]
    Taken {
        /// The directory.
        path: PathBuf,
        /// What that fleet wrote down, if it could be read.
        fleet: Option<Box<FleetRecord>>,
    },
    /// No fleet has it.
    #[error("no fleet runs in {}; start one with `fleet local -f fleet.yaml`, or name its directory with --local DIR", .0.display())]
    NotRunning(PathBuf),
    /// Its record is not one, or of another version.
    #[error("{}: {reason}", .path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

fn who(fleet: Option<&FleetRecord>) -> String {
    fleet.map(|fleet| format!(" ({}, process {})", fleet.name, fleet.pid)).unwrap_or_default()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    |source| DirectoryError::Io { path, source }
}

/// Where a fleet is when nobody says: `UPGRADER_FLEET_DIR`, else `upgrader-fleet` in `XDG_STATE_HOME`, which is `~/.local/state`
/// by default. The same from every folder, so that `fleet status` finds it in another terminal.
pub fn default_path() -> PathBuf {
    if let Some(path) = std::env::var_os("UPGRADER_FLEET_DIR").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")));
    state.unwrap_or_else(|| ".".into()).join("upgrader-fleet")
}

/// Where the parts of a directory are. Nothing is made or read.
#[derive(Debug, Clone)]
pub struct Layout {
    path: PathBuf,
}

impl Layout {
    /// Of this directory.
    pub fn of(path: &Path) -> Self {
        // Of one that is not there yet, the folder that it will be in.
        let parent = || {
            Some(fs::canonicalize(path.parent().filter(|parent| !parent.as_os_str().is_empty())?).ok()?.join(path.file_name()?))
        };
        let known = fs::canonicalize(path).ok().or_else(parent).or_else(|| std::path::absolute(path).ok());
        Self { path: known.unwrap_or_else(|| path.to_owned()) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File with the prover pods' bearer token.
    pub fn token_file(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// File with the secret that the upgraders share.
    pub fn secret_file(&self) -> PathBuf {
        self.path.join(SECRET)
    }

    /// The log of a process.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.path.join(LOGS).join(format!("{name}.log"))
    }

    fn record_file(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    /// What the fleet that runs here wrote down.
    ///
    /// # Errors
    /// [`DirectoryError`]: none runs here, or another version's.
    pub fn running(&self) -> Result<FleetRecord, DirectoryError> {
        let not_running = || DirectoryError::NotRunning(self.path.clone());
        let path = self.path.join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running()),
            Err(error) => return Err(at(&path)(error)),
        };
        match lock.try_lock_shared() {
            // Whoever ended without a goodbye left a record, and no lock.
            Ok(()) => Err(not_running()),
            Err(TryLockError::WouldBlock) => self.record(),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    fn record(&self) -> Result<FleetRecord, DirectoryError> {
        let path = self.record_file();
        let bad = |reason| DirectoryError::Record { path: path.clone(), reason };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // It has just got the lock, and starts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(bad("the fleet is starting".to_owned())),
            Err(error) => return Err(at(&path)(error)),
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(bad(format!("a record of version {}; this program knows {VERSION}", value["version"])));
        }
        serde_json::from_value(value).map_err(|error| bad(error.to_string()))
    }
}

/// A directory that this process has for itself.
#[derive(Debug)]
pub struct Directory {
    layout: Layout,
    /// Locked until it is dropped.
    _lock: File,
}

impl Directory {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// [`DirectoryError`]; `Taken` when another fleet has it.
    pub fn take(layout: Layout) -> Result<Self, DirectoryError> {
        for path in [layout.path.clone(), layout.path.join(LOGS)] {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
        }
        let path = layout.path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(at(&path))?;
        for attempt in 1.. {
            match lock.try_lock() {
                Ok(()) => break,
                // `fleet status` holds it for a moment, to see whether anybody else does.
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::WouldBlock) => {
                    let fleet = layout.record().ok().map(Box::new);
                    return Err(DirectoryError::Taken { path: layout.path, fleet });
                }
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
        }
        Ok(Self { layout, _lock: lock })
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes the prover pods' token, and the upgraders' secret unless they have another, where they are missing. They stay: proofs
    /// that were made before a restart are found again with the same secret only.
    ///
    /// # Errors
    /// [`DirectoryError::Io`].
    pub fn make_secrets(&self, own_secret: bool) -> Result<(), DirectoryError> {
        let secret = own_secret.then(|| self.layout.secret_file());
        for path in std::iter::once(self.layout.token_file()).chain(secret) {
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= LEAST_SECRET) {
                fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(at(&path))?;
            } else {
                let random = format!("{:032x}{:032x}\n", rand::random::<u128>(), rand::random::<u128>());
                replace(&path, random.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Opens the log of a process that is to be started, and says so in it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn log(&self, name: &str, restarts: Option<u32>) -> io::Result<File> {
        let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.layout.log_file(name))?;
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let which = restarts.map_or("first start".to_owned(), |restarts| format!("restart {restarts}"));
        writeln!(log, "{NOTE} {now} {name}: {which}")?;
        Ok(log)
    }

    /// The last line that a process wrote to its log since its start.
    pub fn last_line(&self, name: &str) -> Option<String> {
        let mut file = File::open(self.layout.log_file(name)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rfind(|line| !line.trim().is_empty())?;
        (!last.starts_with(NOTE)).then(|| last.chars().filter(|c| !c.is_control()).take(240).collect())
    }

    /// Writes the record anew.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn write(&self, record: &FleetRecord) -> Result<(), DirectoryError> {
        let path = self.layout.record_file();
        let json = serde_json::to_vec_pretty(record)
            .map_err(|error| DirectoryError::Record { path: path.clone(), reason: error.to_string() })?;
        replace(&path, &json)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // While the lock is held: whoever takes it next has written none yet. What stays is told from a running one by the lock.
        drop(fs::remove_file(self.layout.record_file()));
    }
}

/// Writes a file that only its owner can read, and of which nobody sees half.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let beside = path.with_extension("part");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&beside, path)
    };
    write().map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FleetRecord {
        FleetRecord {
            version: VERSION,
            name: "main".to_owned(),
            network: "regtest".to_owned(),
            pid: 7,
            manifest: "fleet.yaml".to_owned(),
            token_file: "/dir/token".into(),
            processes: vec![],
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn one_fleet_has_it_and_others_find_that_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::of(&folder.path().join("new/fleet"));
        assert!(matches!(layout.running(), Err(DirectoryError::NotRunning(_))));
        let directory = Directory::take(layout.clone()).expect("is free");
        assert!(layout.running().expect_err("wrote nothing yet").to_string().contains("is starting"));
        directory.write(&record()).expect("writes");
        assert_eq!(layout.running().expect("runs"), record());
        let taken = Directory::take(layout.clone()).expect_err("is taken").to_string();
        assert!(taken.contains("(main, process 7)") && taken.contains("--dir"), "{taken}");
        assert_eq!((mode(layout.path()), mode(&layout.record_file())), (0o700, 0o600));

        // One that is killed says no goodbye: its record stays, its lock does not.
        let left = fs::read(layout.record_file()).expect("is there");
        drop(directory);
        fs::write(layout.record_file(), left).expect("writes");
        assert!(matches!(layout.running(), Err(DirectoryError::NotRunning(_))));
        assert!(Directory::take(layout).is_ok());
    }

    #[test]
    fn a_record_of_another_version_is_not_guessed_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::take(Layout::of(folder.path())).expect("is free");
        directory.write(&FleetRecord { version: 2, ..record() }).expect("writes");
        let error = directory.layout().running().expect_err("is of another version").to_string();
        assert!(error.contains("a record of version 2"), "{error}");
    }

    #[test]
    fn secrets_are_made_once_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::take(Layout::of(folder.path())).expect("is free");
        let (token, secret) = (directory.layout().token_file(), directory.layout().secret_file());
        directory.make_secrets(false).expect("makes the token");
        assert!(token.exists() && !secret.exists());
        directory.make_secrets(true).expect("makes the secret");
        let first = fs::read_to_string(&secret).expect("is there");
        assert_eq!((first.trim().len(), mode(&secret), mode(&token)), (64, 0o600, 0o600));
        assert_ne!(first, fs::read_to_string(&token).expect("is there"));

        fs::set_permissions(&secret, Permissions::from_mode(0o644)).expect("may");
        directory.make_secrets(true).expect("keeps it");
        assert_eq!((fs::read_to_string(&secret).expect("is there"), mode(&secret)), (first.clone(), 0o600));
        fs::write(&secret, "").expect("writes");
        directory.make_secrets(true).expect("makes another");
        assert_ne!(fs::read_to_string(&secret).expect("is there"), first);
    }

    #[test]
    fn logs_are_continued_and_their_last_line_is_the_processs() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::take(Layout::of(folder.path())).expect("is free");
        assert_eq!(directory.last_line("pod"), None);
        let mut log = directory.log("pod", None).expect("opens");
        assert_eq!(directory.last_line("pod"), None, "a note is nothing that it said");
        writeln!(log, "one\n\u{1b}[31mERROR two\n").expect("writes");
        assert_eq!(directory.last_line("pod").as_deref(), Some("[31mERROR two"));
        directory.log("pod", Some(1)).expect("opens");
        assert_eq!(directory.last_line("pod"), None);
        let text = fs::read_to_string(directory.layout().log_file("pod")).expect("is there");
        assert!(text.contains("pod: first start\none\n") && text.ends_with("pod: restart 1\n"), "{text}");
    }
}
