//! Puts the parts together: manifest, plan, processes, display, and the end.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::directory::{Directory, Layout};
use super::display::{Display, Totals};
use super::fit::{Fitted, fit};
use super::machine::{Machine, Ports, Programs, check_free};
use super::manifest::{self, ManifestError};
use super::plan::{Places, Plan, ProcessSpec, plan};
use super::record::{FleetRecord, VERSION};
use super::sight::{Counts, Sight, Watcher};
use super::supervisor::{Event, Supervisor};

/// Between two looks at the processes' ends and pauses.
const TICK: Duration = Duration::from_millis(100);

/// Between two rounds of questions.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Signals so close together are one wish: `timeout` and some service managers send it to the process and to its group.
const ONE_WISH: Duration = Duration::from_secs(1);

/// What a person chose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The manifest; `-` is standard input.
    pub file: PathBuf,
    /// A node with mock proofs instead of the manifest's.
    pub devnet: bool,
    /// The one directory that is written to.
    pub dir: PathBuf,
    /// Where pods and upgraders listen.
    pub listen: IpAddr,
    /// The first port; 0 for any free ones.
    pub port_base: u16,
    /// Where the programs are.
    pub programs: Programs,
    /// The secret that the upgraders share, where there is one already.
    pub secret_file: Option<PathBuf>,
    /// Only say what would be started.
    pub dry_run: bool,
}

/// Runs the fleet until it is told to stop.
///
/// # Errors
/// What is wrong with the manifest, or stands in the way on this machine; nothing was started then.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (name, text) = manifest::read(&options.file)?;
    let manifest = manifest::parse(&name, &text)?;
    let fitted =
        fit(manifest.fleet, options.devnet).map_err(|violations| ManifestError::Invalid { name: name.clone(), violations })?;
    let mut notes = fitted.notes.clone();
    if !manifest.others.is_empty() {
        notes.push(format!("other documents in {name} are for kubectl: {}", manifest.others.join(", ")));
    }
    if fitted.spec.suspend {
        println!("{} is suspended (spec.suspend: true): nothing is started", fitted.name);
        return Ok(ExitCode::SUCCESS);
    }
    let layout = Layout::of(&options.dir);
    let plan = planned(&options, &layout, &fitted)?;
    notes.extend(plan.notes.iter().cloned());
    if options.dry_run {
        for note in notes {
            println!("# {note}");
        }
        for process in &plan.processes {
            println!("{}", command_line(process));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let directory = Directory::take(layout)?;
    check_free(plan.processes.iter().map(|process| (process.name.as_str(), process.address)))?;
    directory.make_secrets(options.secret_file.is_none())?;
    Fleet::start(&directory, &fitted.name, &name, plan)?.run(&notes).await
}

/// The plan, for what is found here. Ports that were free are held until it is made.
fn planned(options: &Options, layout: &Layout, fitted: &Fitted) -> anyhow::Result<Plan> {
    let secret_file = match &options.secret_file {
        None => layout.secret_file(),
        Some(path) => {
            check_secret(path)?;
            std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))?
        }
    };
    let places = Places {
        prover_pod: options.programs.find("prover-pod")?,
        upgrader: options.programs.find("upgrader")?,
        dev_node: options.devnet.then(|| options.programs.find("dev-node")).transpose()?,
        listen: options.listen,
        token_file: layout.token_file(),
        secret_file,
    };
    // Mock proofs need nothing of the machine.
    let is_mock = fitted.spec.network.is_mock();
    let machine = if is_mock { Machine::default() } else { Machine::look(&places.prover_pod)? };
    Ok(plan(&fitted.spec, &machine, &places, &mut Ports::new(options.listen, options.port_base))?)
}

fn check_secret(path: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read the fleet secret {}", path.display()))?;
    let least = 32;
    ensure!(
        metadata.len() >= least,
        "{}: a fleet secret has at least {least} characters: openssl rand -hex 32",
        path.display()
    );
    if metadata.permissions().mode() & 0o077 != 0 {
        eprintln!("fleet: others may read the fleet secret; run: chmod 600 {}", path.display());
    }
    Ok(())
}

/// As a person would type it, but for the variables.
fn command_line(process: &ProcessSpec) -> String {
    format!("{}: {} {}", process.name, process.program.display(), process.arguments.join(" "))
}

/// A fleet that runs.
struct Fleet<'a> {
    directory: &'a Directory,
    record: FleetRecord,
    supervisor: Supervisor,
    display: Display,
    totals: Totals,
    counts: Vec<Counts>,
    draining_since: Option<Instant>,
}

impl<'a> Fleet<'a> {
    fn start(directory: &'a Directory, name: &str, manifest: &str, plan: Plan) -> anyhow::Result<Self> {
        let width = plan.processes.iter().map(|process| process.name.len()).max().unwrap_or(0).max("draining".len());
        let supervisor = Supervisor::new(plan.processes).context("cannot start a thread")?;
        let record = FleetRecord {
            version: VERSION,
            name: name.to_owned(),
            network: plan.network.to_string(),
            pid: std::process::id(),
            manifest: manifest.to_owned(),
            token_file: directory.layout().token_file(),
            processes: supervisor.records(directory),
        };
        directory.write(&record)?;
        Ok(Self {
            directory,
            record,
            supervisor,
            display: Display::new(width),
            totals: Totals::default(),
            counts: vec![],
            draining_since: None,
        })
    }

    async fn run(mut self, notes: &[String]) -> anyhow::Result<ExitCode> {
        let mut stop = Stop::new()?;
        let (sights, mut seen) = watch::channel(None);
        let watching = tokio::spawn(look_again_and_again(Watcher::new(&self.record)?, sights));
        let Self { record, display, .. } = &self;
        for note in notes {
            display.say(&format!("# {note}"));
        }
        let path = self.directory.layout().path();
        display.say(&format!("# {}: {} processes; logs and state in {}", record.name, record.processes.len(), path.display()));

        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.supervisor.is_over() {
            let events = tokio::select! {
                _ = clock.tick() => Vec::new(),
                Ok(()) = seen.changed() => {
                    let sight = seen.borrow_and_update().clone();
                    sight.map(|sight| self.see(&sight)).unwrap_or_default()
                }
                () = stop.asked() => self.stop(),
            };
            self.tell(&events);
            let events = self.supervisor.tick(Instant::now(), self.directory);
            self.tell(&events);
        }
        watching.abort();
        Ok(self.farewell())
    }

    /// What the processes answered.
    fn see(&mut self, sight: &Sight) -> Vec<Event> {
        self.counts = self.totals.add(sight);
        let events = self.supervisor.hear(sight);
        self.record.processes = self.supervisor.records(self.directory);
        self.display.show(&self.record, sight, &self.counts);
        events
    }

    /// The first time all end by themselves, the second time at once.
    fn stop(&mut self) -> Vec<Event> {
        let now = Instant::now();
        match self.draining_since {
            None => {
                self.draining_since = Some(now);
                self.display.say("# draining; once more (Ctrl-C) kills");
                self.supervisor.drain(now)
            }
            Some(since) if now.saturating_duration_since(since) < ONE_WISH => Vec::new(),
            Some(_) => self.supervisor.kill(now),
        }
    }

    /// Tells what happened, and writes it down for others.
    fn tell(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for event in events {
            self.display.event(event);
        }
        self.record.processes = self.supervisor.records(self.directory);
        // The fleet works without its record; a full disk is no reason to end it.
        if let Err(error) = self.directory.write(&self.record) {
            self.display.say(&format!("# {:#}", anyhow::Error::from(error)));
        }
    }

    fn farewell(&self) -> ExitCode {
        let upgrades: f64 = self.counts.iter().map(|counts| counts.upgrades).sum::<f64>() + 0.0; // no sum is -0
        let fees: f64 = self.counts.iter().map(|counts| counts.fees_submitted).sum::<f64>() + 0.0;
        let restarts: u32 = self.record.processes.iter().map(|process| process.restarts).sum();
        let how = if self.supervisor.was_forced() { "killed" } else { "ended, nothing is left running" };
        self.display.finish(&format!("{} {how}: {upgrades} upgrades, fees {fees:.4}, {restarts} restarts", self.record.name));
        if self.supervisor.was_forced() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

async fn look_again_and_again(watcher: Watcher, sights: watch::Sender<Option<Sight>>) {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        sights.send_replace(Some(watcher.look().await));
    }
}

/// What asks for the end: Ctrl-C, a service manager, a terminal that was closed.
struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?],
        })
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
