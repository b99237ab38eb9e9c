//! Starting processes so that none outlives this one, whatever happens to it.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getppid};

use super::plan::ProcessSpec;

type Request = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts processes from a thread of its own.
///
/// The kernel signals the death of a parent when the *thread* that forked ends. Threads of the runtime come and go; this one ends
/// with its [`Spawner`].
#[derive(Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever asked is gone: then the child is nobody's.
                if let Err(mpsc::SendError(Ok(child))) = answer.send(command.spawn()) {
                    drop(Running { child });
                }
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a process, its output into `log`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn spawn(&self, spec: &ProcessSpec, log: File) -> io::Result<Running> {
        let mut command = Command::new(&spec.program);
        command.args(&spec.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for name in spec.without {
            command.env_remove(name);
        }
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C on the terminal reaches this program alone, which ends the others in order.
        command.process_group(0);
        let parent = Pid::this();
        // SAFETY: only system calls that are allowed between fork and exec, and nothing that allocates.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // It may have died before the call.
                if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let (answer, result) = mpsc::sync_channel(1);
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.requests.send((command, answer)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?.map(|child| Running { child })
    }
}

/// A process that was started and whose end was not seen yet. Killed, with all that it started, when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Those of the system.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGTERM: it ends by itself. Only to the process, which knows what to do with those that it started.
    pub fn terminate(&self) {
        // The id is ours until its end was seen; a process that is gone meanwhile needs no signal.
        let _already_gone = kill(self.id(), Signal::SIGTERM);
    }

    /// SIGKILL, to it and to all that it started.
    pub fn kill(&self) {
        let _already_gone = killpg(self.id(), Signal::SIGKILL);
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            drop(self.child.wait());
        }
    }
}

/// How a process ended, in words.
pub fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(number)) => {
            let name =
                Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
            format!("was killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}
