//! Starts the processes of a plan, starts again those that end, and ends all of them in order.
//!
//! It acts only when told the time ([`Supervisor::tick`]) and from one place, so that a process is never signalled after its end was
//! seen.

use std::io;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::life::{Life, Phase};
use super::plan::{Gate, ProcessSpec, Role};
use super::record::ProcessRecord;
use super::sight::Sight;
use super::spawn::{Running, Spawner, how};

/// How long upgraders wait for the last pods once one is ready. A pod that never gets ready must not keep the others idle.
const LAST_PODS: Duration = Duration::from_mins(1);

/// What a process has beyond its grace period before it is killed: it watches that period itself.
const BEYOND_GRACE: Duration = Duration::from_secs(15);

/// Something that happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The process, or the fleet's name.
    pub name: String,
    /// What happened to it.
    pub text: String,
}

#[derive(Debug)]
struct Process {
    spec: ProcessSpec,
    life: Life,
    running: Option<Running>,
    /// It was told to the person that it is killed.
    killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    /// Processes of this role end now; those of the ones before it still run.
    Draining(Role),
    Over,
}

/// All processes of a fleet.
#[derive(Debug)]
pub struct Supervisor {
    processes: Vec<Process>,
    spawner: Spawner,
    mode: Mode,
    /// Whether the upgraders may start, once and for all: a pod that dies later is no reason to keep an upgrader from starting.
    open: bool,
    first_pod: Option<Instant>,
    forced: bool,
}

impl Supervisor {
    /// Of these processes, none of which runs yet.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(specs: Vec<ProcessSpec>) -> io::Result<Self> {
        let process = |spec: ProcessSpec| Process { life: Life::new(spec.restart), spec, running: None, killed: false };
        Ok(Self {
            processes: specs.into_iter().map(process).collect(),
            spawner: Spawner::new()?,
            mode: Mode::Running,
            open: false,
            first_pod: None,
            forced: false,
        })
    }

    /// Whether every process has ended.
    pub fn is_over(&self) -> bool {
        self.mode == Mode::Over
    }

    /// Whether the processes are being ended.
    pub fn is_draining(&self) -> bool {
        self.mode != Mode::Running
    }

    /// Whether processes were killed that should have ended by themselves.
    pub fn was_forced(&self) -> bool {
        self.forced
    }

    /// As other commands read it.
    pub fn records(&self, directory: &Directory) -> Vec<ProcessRecord> {
        self.processes
            .iter()
            .map(|process| ProcessRecord {
                name: process.spec.name.clone(),
                role: process.spec.role,
                url: process.spec.url.clone(),
                class: process.spec.class,
                device: process.spec.device.clone(),
                phase: process.life.phase(),
                pid: process.running.as_ref().map(Running::pid),
                restarts: process.life.restarts(),
                log: directory.layout().log_file(&process.spec.name),
            })
            .collect()
    }

    /// What the processes answered, in their order.
    pub fn hear(&mut self, sight: &Sight) -> Vec<Event> {
        let mut events = Vec::new();
        for (process, answer) in self.processes.iter_mut().zip(&sight.ready) {
            if process.life.hear(sight.asked, *answer) {
                let took = process.life.started_at().map(|started| sight.asked.saturating_duration_since(started));
                let text = match (process.life.phase(), answer) {
                    (Phase::Ready, _) => format!("ready {:.1} s after its start", took.unwrap_or_default().as_secs_f64()),
                    (_, Some(_)) => "says that it is not ready".to_owned(),
                    (_, None) => "does not answer".to_owned(),
                };
                events.push(Event { name: process.spec.name.clone(), text });
            }
        }
        events
    }

    /// Does what there is to do now.
    pub fn tick(&mut self, now: Instant, directory: &Directory) -> Vec<Event> {
        let mut events = Vec::new();
        for process in &mut self.processes {
            process.reap(now, directory, &mut events);
            if process.life.is_silent(now) && !process.killed {
                process.kill("does not answer any more and is killed", &mut events);
            }
            if process.life.is_overdue(now) && !process.killed {
                self.forced = true;
                process.kill("did not end in its grace period and is killed", &mut events);
            }
        }
        while let Mode::Draining(role) = self.mode {
            let ended = |process: &Process| process.spec.role != role || process.life.phase() == Phase::Ended;
            if !self.processes.iter().all(ended) {
                break;
            }
            match role {
                Role::Upgrader => self.end(Role::Prover, now, &mut events),
                Role::Prover => self.end(Role::Node, now, &mut events),
                Role::Node => self.mode = Mode::Over,
            }
        }
        self.open_gate(now, &mut events);
        self.start(now, directory, &mut events);
        events
    }

    /// Begins to end everything: upgraders first, which still need pods, then those, then the node.
    pub fn drain(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if self.mode == Mode::Running {
            self.end(Role::Upgrader, now, &mut events);
        }
        events
    }

    /// Ends everything at once. What ran is lost here, and is asked for again by whoever has it then.
    pub fn kill(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for process in &mut self.processes {
            process.life.stop(now, Duration::ZERO);
            if !process.killed {
                process.kill("is killed", &mut events);
            }
        }
        self.forced = true;
        // The rest is for the ticks, which see them end.
        self.mode = Mode::Draining(Role::Upgrader);
        events
    }

    fn end(&mut self, role: Role, now: Instant, events: &mut Vec<Event>) {
        self.mode = Mode::Draining(role);
        let mut told = 0;
        let mut grace = Duration::ZERO;
        for process in self.processes.iter_mut().filter(|process| process.spec.role == role) {
            if process.life.stop(now, process.spec.grace + BEYOND_GRACE) && !process.killed {
                told += 1;
                grace = grace.max(process.spec.grace);
                if let Some(running) = &process.running {
                    running.terminate();
                }
            }
        }
        let what = match role {
            Role::Upgrader => "upgrader(s) finish what they have begun",
            Role::Prover => "prover pod(s) finish their proofs",
            Role::Node => "dev node(s) end",
        };
        if told > 0 {
            let most = humantime::format_duration(grace);
            events.push(Event { name: "draining".to_owned(), text: format!("{told} {what}, {most} at most") });
        }
    }

    fn open_gate(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.open || self.mode != Mode::Running {
            return;
        }
        let of = |role: Role| self.processes.iter().filter(move |process| process.spec.role == role);
        let is_ready = |process: &Process| process.life.phase() == Phase::Ready;
        let (pods, ready) = (of(Role::Prover).count(), of(Role::Prover).filter(|process| is_ready(process)).count());
        if ready > 0 && self.first_pod.is_none() {
            self.first_pod = Some(now);
        }
        let waited = self.first_pod.is_some_and(|first| now.saturating_duration_since(first) >= LAST_PODS);
        if of(Role::Node).all(is_ready) && ready > 0 && (ready == pods || waited) {
            self.open = true;
            if ready < pods {
                let text = format!("{ready} of {pods} prover pods are ready; the upgraders start without the others");
                events.push(Event { name: "provers".to_owned(), text });
            }
        }
    }

    fn start(&mut self, now: Instant, directory: &Directory, events: &mut Vec<Event>) {
        for process in &mut self.processes {
            let wanted = match self.mode {
                Mode::Running => true,
                Mode::Draining(role) => process.spec.role < role && !self.forced,
                Mode::Over => false,
            };
            let open = process.spec.gate == Gate::Open || self.open;
            if wanted && open && process.running.is_none() && process.life.may_start(now) {
                process.start(now, directory, &self.spawner, events);
            }
        }
    }
}

impl Process {
    fn start(&mut self, now: Instant, directory: &Directory, spawner: &Spawner, events: &mut Vec<Event>) {
        let name = &self.spec.name;
        let restarts = self.life.started_at().map(|_| self.life.restarts() + 1);
        let started = directory.log(name, restarts).and_then(|log| spawner.spawn(&self.spec, log));
        let text = match started {
            Ok(running) => {
                self.life.start(now);
                self.killed = false;
                let text = match restarts {
                    None => format!("started (process {})", running.pid()),
                    Some(number) => format!("started again (process {}, restart {number})", running.pid()),
                };
                self.running = Some(running);
                text
            }
            Err(error) => {
                let pause = self.life.end(now).unwrap_or_default();
                format!("cannot be started: {error}; again in {}", seconds(pause))
            }
        };
        events.push(Event { name: name.clone(), text });
    }

    /// Sees whether it has ended.
    fn reap(&mut self, now: Instant, directory: &Directory, events: &mut Vec<Event>) {
        let Some(running) = &mut self.running else { return };
        let status = match running.ended() {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(error) => {
                // It cannot be that somebody else has waited for it; if so, it is gone.
                events.push(Event { name: self.spec.name.clone(), text: format!("cannot be waited for: {error}") });
                return;
            }
        };
        self.running = None;
        let pause = self.life.end(now);
        let mut text = how(status);
        if let Some(pause) = pause {
            // Whoever ends by itself says why in its last line; one that is killed has no last words.
            let last = status.code().and_then(|_| directory.last_line(&self.spec.name));
            if let Some(last) = last {
                text = format!("{text}: {last}");
            }
            text = format!("{text}; again in {}", seconds(pause));
        }
        events.push(Event { name: self.spec.name.clone(), text });
    }

    fn kill(&mut self, text: &str, events: &mut Vec<Event>) {
        if let Some(running) = &self.running {
            running.kill();
            self.killed = true;
            events.push(Event { name: self.spec.name.clone(), text: text.to_owned() });
        }
    }
}

fn seconds(pause: Duration) -> String {
    format!("{:.1} s", pause.as_secs_f64())
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
