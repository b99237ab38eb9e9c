//! Whether the node still waits. It stops a proof by killing its child, which is not always this process: neptune-prover may
//! have put a shell in between, and a kill reaches neither the shell nor us.

use std::os::unix::process::parent_id;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// How often the parents and standard output are looked at. The kernel tells of a parent's death itself; this is for the rest.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why the work is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The parent ended.
    Parent,
    /// The shell between the node's prover and this process was orphaned.
    Grandparent,
    /// Nobody can read the proof any more.
    Reader,
    /// A signal.
    Signal(i32),
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parent => f.write_str("the parent process is gone"),
            Self::Grandparent => f.write_str("the process that started the shell is gone"),
            Self::Reader => f.write_str("the reader of standard output is gone"),
            Self::Signal(number) => write!(f, "signal {number} came"),
        }
    }
}

/// The processes that wait for the proof, as they were at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    parent: u32,
    /// Known when the parent is a shell: any other parent wants the proof itself.
    grandparent: Option<u32>,
}

impl Caller {
    /// Notes who waits, and asks the kernel to tell of the parent's death. To be called first of all.
    pub fn note() -> Self {
        // The signal also comes when just the thread ends that started us, as those of a node's runtime do; what it means is
        // looked up when it comes. So not SIGTERM, which means what it says.
        if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGUSR1) {
            tracing::debug!(%error, "the kernel does not tell of the parent's death");
        }
        let parent = parent_id();
        let grandparent = Process::of(parent).filter(Process::is_shell).map(|shell| shell.parent);
        Self { parent, grandparent }
    }

    /// Who of them is gone.
    fn gone(self) -> Option<Gone> {
        if parent_id() != self.parent {
            return Some(Gone::Parent);
        }
        let shell = self.grandparent.and_then(|_| Process::of(self.parent));
        if let (Some(grandparent), Some(shell)) = (self.grandparent, shell)
            && shell.parent != grandparent
        {
            return Some(Gone::Grandparent);
        }
        stdout_is_closed().then_some(Gone::Reader)
    }

    /// Waits until nobody wants the proof any more.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn until_gone(self) -> std::io::Result<Gone> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut parent_died = signal(SignalKind::user_defined1())?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Gone::Signal(Signal::SIGTERM as i32)),
                _ = interrupt.recv() => return Ok(Gone::Signal(Signal::SIGINT as i32)),
                _ = hang_up.recv() => return Ok(Gone::Signal(Signal::SIGHUP as i32)),
                _ = parent_died.recv() => (),
                _ = look.tick() => (),
            }
            if let Some(gone) = self.gone() {
                return Ok(gone);
            }
        }
    }
}

/// A process by `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    name: String,
    parent: u32,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `PID (name) state parent ...`; the name may hold anything, parentheses too.
    fn parse(stat: &str) -> Option<Self> {
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        Some(Self { name: name.to_owned(), parent: tail.split_whitespace().nth(1)?.parse().ok()? })
    }

    fn is_shell(&self) -> bool {
        matches!(self.name.as_str(), "sh" | "dash" | "bash" | "ash" | "busybox" | "zsh" | "ksh")
    }
}

fn stdout_is_closed() -> bool {
    let mut entry = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
    // SAFETY: `entry` is one valid, exclusively borrowed pollfd for the whole call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready > 0 && entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_whatever_their_name() {
        let parse = |stat| Process::parse(stat).map(|process| (process.is_shell(), process.parent));
        assert_eq!(parse("12 (sh) S 7 12 12 0 -1"), Some((true, 7)));
        assert_eq!(parse("12 (a) b (sh) R 9 12"), Some((false, 9)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("12 (sh)"), None);
        let own = Process::of(std::process::id()).expect("exists");
        assert_eq!(own.parent, parent_id());
    }
}
