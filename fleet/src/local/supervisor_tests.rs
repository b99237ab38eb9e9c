//! With shells for pods and upgraders.

use std::net::Ipv4Addr;
use std::thread;

use super::super::directory::Layout;
use super::super::life::RestartPolicy;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn spec(name: &str, role: Role, script: &str) -> ProcessSpec {
    let gate = if role == Role::Upgrader { Gate::Provers } else { Gate::Open };
    let fast = RestartPolicy { first: Duration::from_millis(10), ..RestartPolicy::default() };
    ProcessSpec {
        name: name.to_owned(),
        role,
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![("TOLD", "by its variable".to_owned())],
        without: &["HOME"],
        address: (Ipv4Addr::LOCALHOST, 1).into(),
        url: String::new(),
        gate,
        restart: fast,
        grace: Duration::from_mins(10),
        class: None,
        device: None,
    }
}

struct Stage {
    supervisor: Supervisor,
    directory: Directory,
    told: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(specs: Vec<ProcessSpec>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::take(Layout::of(folder.path())).expect("is free");
        Self { supervisor: Supervisor::new(specs).expect("a thread"), directory, told: vec![], _folder: folder }
    }

    fn tick(&mut self) {
        let events = self.supervisor.tick(Instant::now(), &self.directory);
        self.tell(events);
    }

    fn tell(&mut self, events: Vec<Event>) {
        self.told.extend(events.into_iter().map(|event| format!("{} {}", event.name, event.text)));
    }

    /// Ticks until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.told.join("\n"));
            self.tick();
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn hear(&mut self, ready: &[Option<bool>]) {
        let sight = Sight { asked: Instant::now(), ready: ready.to_vec(), upgraders: vec![], pods: vec![] };
        let events = self.supervisor.hear(&sight);
        self.tell(events);
    }

    fn phases(&self) -> Vec<Phase> {
        self.supervisor.processes.iter().map(|process| process.life.phase()).collect()
    }

    fn has_told(&self, text: &str) -> bool {
        self.told.iter().any(|line| line.contains(text))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.layout().log_file(name)).unwrap_or_default()
    }
}

#[test]
fn whoever_ends_is_started_again_and_its_last_words_are_told() {
    let mut stage = Stage::new(vec![spec("pod", Role::Prover, "echo \"$TOLD, home '$HOME'\"; echo why >&2; exit 3")]);
    stage.until("two restarts", |stage| stage.has_told("restart 2"));
    assert!(stage.told[0].starts_with("pod started (process "), "{:?}", stage.told);
    assert_eq!(stage.told[1], "pod ended with exit code 3: why; again in 0.0 s");
    let log = stage.log("pod");
    assert!(log.contains("by its variable, home ''\nwhy\n") && log.contains("pod: restart 1"), "{log}");
    assert!(stage.supervisor.records(&stage.directory)[0].restarts >= 2);
}

#[test]
fn a_program_that_is_not_there_is_told_and_tried_again() {
    let missing = ProcessSpec { program: "/nowhere/at/all".into(), ..spec("pod", Role::Prover, "") };
    let mut stage = Stage::new(vec![missing]);
    stage.until("tried twice", |stage| stage.told.len() >= 2);
    assert!(stage.told.iter().all(|line| line.contains("pod cannot be started: No such file")), "{:?}", stage.told);
}

#[test]
fn upgraders_wait_for_the_pods_and_everything_ends_in_order() {
    let mut stage = Stage::new(vec![
        spec("node", Role::Node, "exec sleep 600"),
        // It has something to finish, and is not to be ended before the upgrader.
        spec("pod", Role::Prover, "trap 'echo finished; exit 0' TERM; echo up; while :; do sleep 0.01; done"),
        spec(
            "upgrader",
            Role::Upgrader,
            "trap 'sleep 0.1; echo submitted; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        ),
    ]);
    stage.until("pod and node are up", |stage| stage.phases()[..2] == [Phase::Starting; 2]);
    stage.tick();
    assert_eq!(stage.phases()[2], Phase::Waiting);
    stage.hear(&[None, Some(true), None]);
    stage.tick();
    assert_eq!(stage.phases(), [Phase::Starting, Phase::Ready, Phase::Waiting], "the node is not ready");
    stage.hear(&[Some(true), Some(true), None]);
    stage.until("the upgrader is up", |stage| stage.phases()[2] == Phase::Starting);
    stage.hear(&[Some(true), Some(false), Some(true)]);
    assert_eq!(stage.phases(), [Phase::Ready, Phase::Unready, Phase::Ready]);
    assert!(stage.has_told("pod says that it is not ready"));

    // A signal before a shell has set its trap would end it at once.
    stage.until("both have set their traps", |stage| {
        stage.log("pod").contains("up\n") && stage.log("upgrader").contains("up\n")
    });
    let events = stage.supervisor.drain(Instant::now());
    stage.tell(events);
    assert!(stage.supervisor.is_draining() && !stage.supervisor.is_over());
    assert_eq!(stage.phases(), [Phase::Ready, Phase::Unready, Phase::Stopping]);
    stage.until("all have ended", |stage| stage.supervisor.is_over());
    assert_eq!(stage.phases(), [Phase::Ended; 3]);
    let order: Vec<usize> =
        ["draining 1 upgrader(s)", "upgrader ended", "draining 1 prover pod(s)", "pod ended", "draining 1 dev"]
            .iter()
            .map(|text| stage.told.iter().position(|line| line.starts_with(text) || line.contains(text)).unwrap_or(usize::MAX))
            .collect();
    assert!(order.is_sorted() && order.iter().all(|place| *place < usize::MAX), "{order:?}\n{}", stage.told.join("\n"));
    assert!(!stage.supervisor.was_forced());
}

#[test]
fn pods_are_started_again_while_upgraders_finish_and_nobody_is_after_the_end() {
    let mut stage = Stage::new(vec![
        spec("pod", Role::Prover, "exec sleep 600"),
        spec("upgrader", Role::Upgrader, "trap '' TERM; echo up; while [ ! -e done ]; do sleep 0.01; done"),
    ]);
    stage.until("the pod is up", |stage| stage.phases()[0] == Phase::Starting);
    stage.hear(&[Some(true), None]);
    stage.until("the upgrader is up", |stage| stage.phases()[1] == Phase::Starting);
    stage.until("it has set its trap", |stage| stage.log("upgrader").contains("up\n"));
    drop(stage.supervisor.drain(Instant::now()));
    if let Some(running) = &stage.supervisor.processes[0].running {
        running.kill();
    }
    stage.until("the pod is back", |stage| stage.has_told("pod started again"));
    assert!(stage.has_told("pod was killed by SIGKILL"));
    let events = stage.supervisor.kill(Instant::now());
    stage.tell(events);
    stage.until("all have ended", |stage| stage.supervisor.is_over());
    assert!(stage.supervisor.was_forced() && stage.has_told("upgrader is killed"));
}

#[test]
fn a_pod_that_never_gets_ready_does_not_keep_the_others_idle() {
    let mut stage = Stage::new(vec![
        spec("one", Role::Prover, "exec sleep 600"),
        spec("two", Role::Prover, "exec sleep 600"),
        spec("upgrader", Role::Upgrader, "exec sleep 600"),
    ]);
    stage.tick();
    stage.hear(&[Some(true), Some(false), None]);
    stage.tick();
    assert_eq!(stage.phases()[2], Phase::Waiting);
    let later = stage.supervisor.tick(Instant::now() + LAST_PODS, &stage.directory);
    stage.tell(later);
    assert_eq!(stage.phases()[2], Phase::Starting);
    assert!(stage.has_told("1 of 2 prover pods are ready; the upgraders start without the others"), "{:?}", stage.told);
}

#[test]
fn whoever_is_silent_is_killed_with_all_that_it_started() {
    let mut stage = Stage::new(vec![spec("pod", Role::Prover, "sleep 600 & echo $! > child; wait")]);
    let child = stage.directory.layout().path().join("child");
    stage.supervisor.processes[0].spec.arguments[1] = format!("sleep 600 & echo $! > {}; wait", child.display());
    stage.until("its child is up", |_| std::fs::read_to_string(&child).is_ok_and(|text| text.ends_with('\n')));
    stage.hear(&[Some(true)]);
    let late = Instant::now() + Duration::from_mins(2);
    let events = stage.supervisor.tick(late, &stage.directory);
    stage.tell(events);
    assert!(stage.has_told("pod does not answer any more and is killed"));
    let pid = std::fs::read_to_string(&child).expect("is there").trim().to_owned();
    stage.until("its child is gone", |_| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Nobody may have waited for it yet.
        stat.is_empty() || stat.contains(") Z ")
    });
}
