//! `fleet local` with the real binaries: a manifest becomes processes that upgrade, die, come back and end in order.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use upgrader::{Shard, TxId};
use upgrader_fleet_tests::pods::{binary, signal};
use upgrader_fleet_tests::upgraders::fee_address;

/// Two loaded cores start a dozen processes and make mock proofs in a few seconds; this is for worse days.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running `fleet local`; killed when dropped, and its children with it.
struct Local {
    child: Child,
    /// Folders that it could write to: its own, and those that it must leave alone.
    folder: tempfile::TempDir,
}

/// `fleet` in this folder, with a home and a place for temporary files of its own.
fn fleet(folder: &Path, arguments: &[&str]) -> Result<Command> {
    for name in ["home", "cwd", "tmp"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let mut command = Command::new(binary("fleet")?);
    command
        .args(arguments)
        .current_dir(folder.join("cwd"))
        .env("HOME", folder.join("home"))
        .env("TMPDIR", folder.join("tmp"))
        .env_remove("XDG_STATE_HOME")
        .env_remove("UPGRADER_FLEET_DIR")
        .env_remove("UPGRADER_FLEET_PODS")
        .env_remove("UPGRADER_FLEET_UPGRADERS")
        .env("DEV_NODE_ARRIVALS", "40")
        .env("DEV_NODE_BLOCK_INTERVAL", "8")
        // A shell's leavings must not change what the manifest says.
        .env("UPGRADER_FEE_ADDRESS", "nonsense")
        .env("PROVER_POD_MAX_LOG2_PADDED_HEIGHT", "8");
    Ok(command)
}

impl Local {
    /// Starts it with this manifest on standard input.
    fn start(manifest: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut child = fleet(folder.path(), &["local", "-f", "-", "--dir", "../fleet", "--port-base", "0"])?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(folder.path().join("out"))?)
            .stderr(fs::File::create(folder.path().join("err"))?)
            .spawn()?;
        child.stdin.take().context("is piped")?.write_all(manifest.as_bytes())?;
        Ok(Self { child, folder })
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn fleet(&self, arguments: &[&str]) -> Result<Output> {
        Ok(fleet(self.folder.path(), arguments)?.output()?)
    }

    /// What `fleet status` says; nothing while there is no fleet yet.
    fn status(&self) -> Option<Value> {
        let output = self.fleet(&["status", "--local", "../fleet", "-o", "json"]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Polls until there is something; the error shows what was said and logged.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let mut logs = String::new();
                for entry in fs::read_dir(self.dir().join("logs")).into_iter().flatten() {
                    let path = entry?.path();
                    let text = fs::read_to_string(&path)?;
                    let tail: Vec<&str> = text.lines().rev().take(15).collect();
                    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                    logs.extend(["--- ", &path.display().to_string(), "\n", &tail, "\n"]);
                }
                bail!("not in time: {what} (ended: {ended:?})\n{}{}\n{logs}", self.read("out"), self.read("err"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it does not end\n{}{}", self.read("out"), self.read("err"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Transactions that the dev node sent, in order.
    fn sent(&self) -> Vec<TxId> {
        let log = self.read("fleet/logs/node.log");
        log.lines().filter_map(|line| line.strip_prefix("sent ")?.parse().ok()).collect()
    }

    /// Whether an upgrade of this transaction was submitted, as its upgrader says.
    fn is_upgraded(&self, txid: TxId) -> bool {
        let output = self.fleet(&["explain", &txid.to_string(), "--local", "../fleet", "--json"]);
        let Some(explained) = output.ok().and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok()) else {
            return false;
        };
        explained["history"].as_array().is_some_and(|history| history.iter().any(|recent| recent["outcome"] == "submitted"))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn manifest() -> Result<String> {
    let address = fee_address()?;
    Ok(format!(
        "apiVersion: upgrader-fleet.dev/v1alpha1\nkind: UpgraderFleet\nmetadata: {{name: small}}\nspec:\n  network: regtest\n  node: \
         {{urls: [\"http://nowhere:1\"]}}\n  upgraders: {{shards: 4, receivingAddress: {address}}}\n  provers: {{replicas: 2, \
         scheduling: {{nodeSelector: {{a: b}}}}}}\n"
    ))
}

fn processes(status: &Value) -> Vec<&Value> {
    status["processes"].as_array().into_iter().flatten().collect()
}

fn process<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    processes(status).into_iter().find(|process| process["name"] == name)
}

/// All processes of a fleet, the workers of its pods included.
fn pids(status: &Value) -> BTreeSet<u64> {
    let workers =
        status["pods"].as_array().into_iter().flatten().flat_map(|pod| pod["devices"].as_array().into_iter().flatten());
    processes(status).into_iter().chain(workers).filter_map(|process| process["pid"].as_u64()).collect()
}

/// Those of them that run; one that was not waited for yet does not.
fn alive(pids: &BTreeSet<u64>) -> Vec<u64> {
    let runs = |pid: &u64| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    pids.iter().copied().filter(runs).collect()
}

fn is_complete(status: &Value) -> bool {
    let fleet = &status["fleet"];
    fleet["ready_shards"] == 4 && fleet["coverage"] == 256 && fleet["ready_provers"] == 2
}

/// Processes that were started with this text among their arguments.
fn with_argument(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(text)).collect()
}

#[test]
fn a_manifest_becomes_a_fleet_that_upgrades_survives_and_ends_in_order() -> Result<()> {
    let mut local = Local::start(&manifest()?, &["--devnet"])?;
    let status = local.until("all are ready", |local| local.status().filter(is_complete))?;
    ensure!(status["fleet"]["coverage_mask"] == "f".repeat(64) && processes(&status).len() == 7, "{status}");
    let out = local.read("out");
    ensure!(out.contains("# ignored on one machine: spec.provers.scheduling\n"), "{out}");

    // Nothing secret where others look.
    let dir = local.dir().canonicalize()?;
    let arguments = with_argument(&dir.display().to_string());
    ensure!(arguments.len() == 6, "two pods and four upgraders: {arguments:?}");
    for name in ["fleet-secret", "prover-token", "fleet.json"] {
        ensure!(fs::metadata(dir.join(name))?.permissions().mode() & 0o777 == 0o600, "{name}");
    }
    let secrets = ["fleet-secret", "prover-token"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default());
    let leaks = |text: &str| secrets.iter().any(|secret| text.contains(secret.trim()));
    ensure!(!arguments.iter().any(|line| leaks(line) || line.contains("nolga")), "{arguments:?}");

    // Its transactions are upgraded, whichever shard they are in.
    let shards: Vec<Shard> = (0..4).map(|rest| Shard::new(4, rest)).collect::<Result<_, _>>()?;
    for shard in &shards {
        local.until(&format!("one of shard {shard} is upgraded"), |local| {
            local.sent().into_iter().filter(|txid| shard.matches(*txid)).find(|txid| local.is_upgraded(*txid))
        })?;
    }

    // An upgrader and a pod die.
    let (pod, upgrader) = ("prover-default-0", "upgrader-d4-r2");
    let before = local.status().context("answers")?;
    let pid = |status: &Value, name: &str| process(status, name).and_then(|process| process["pid"].as_u64());
    for name in [pod, upgrader] {
        signal(u32::try_from(pid(&before, name).context("runs")?)?, "KILL")?;
    }
    let after = local.until("both are back", |local| {
        let back = |status: &Value, name| process(status, name).is_some_and(|p| p["restarts"] == 1 && p["phase"] == "ready");
        local.status().filter(|status| is_complete(status) && back(status, pod) && back(status, upgrader))
    })?;
    for name in [pod, upgrader] {
        ensure!(pid(&after, name) != pid(&before, name), "{name} is another process");
        let log = fs::read_to_string(dir.join(format!("logs/{name}.log")))?;
        ensure!(log.contains(&format!("{name}: first start\n")) && log.contains(&format!("{name}: restart 1\n")), "{log}");
    }
    let untouched = "upgrader-d4-r1";
    ensure!(pid(&after, untouched) == pid(&before, untouched), "the others went on");
    let known = local.sent().len();
    let shard = shards[2];
    let txid = local.until("the new upgrader upgrades what came after its start", |local| {
        local.sent().into_iter().skip(known).filter(|txid| shard.matches(*txid)).find(|txid| local.is_upgraded(*txid))
    })?;

    // What a person sees, also without saying which fleet, where it is the only one.
    let explained = local.fleet(&["explain", &txid.to_string(), "--local", "../fleet"])?;
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    ensure!(explained.contains("shard        4:2 (this upgrader's"), "{explained}");
    let shown = fleet(local.folder.path(), &["status"])?.env("UPGRADER_FLEET_DIR", "../fleet").output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.starts_with("small on regtest: shards 4/4, coverage 256/256, provers 2/2"), "{shown}");
    ensure!(shown.contains("upgrader-d4-r3") && shown.contains("prover-default-1"), "{shown}");
    local.until("a block takes upgraded transactions", |local| {
        let log = local.read("fleet/logs/node.log");
        log.lines().any(|line| line.starts_with("block ") && !line.ends_with("with 0 transactions")).then_some(())
    })?;

    // A second one does not share the directory.
    fs::write(local.folder.path().join("second.yaml"), manifest()?)?;
    let second = local.fleet(&["local", "-f", "../second.yaml", "--devnet", "--dir", "../fleet", "--port-base", "0"])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && said.contains("a fleet runs in") && said.contains("(small, process"), "{said}");
    fs::remove_file(local.folder.path().join("second.yaml"))?;

    // The end.
    let everyone = pids(&local.status().context("answers")?);
    ensure!(everyone.len() >= 9 && alive(&everyone).len() == everyone.len(), "7 processes and 2 workers: {everyone:?}");
    signal(local.child.id(), "INT")?;
    let ended = local.ended()?;
    let out = local.read("out");
    ensure!(ended.success() && out.contains("small ended, nothing is left running: "), "{ended}\n{out}{}", local.read("err"));
    let at = |text: &str| out.rfind(text).with_context(|| format!("{text:?} is not in\n{out}"));
    ensure!(at("4 upgrader(s) finish")? < at("2 prover pod(s) finish")?, "{out}");
    ensure!(at("upgrader-d4-r0    ended with exit code 0")? < at("2 prover pod(s) finish")?, "{out}");
    ensure!(alive(&everyone).is_empty(), "left: {:?}", alive(&everyone));
    ensure!(with_argument(&dir.display().to_string()).is_empty());
    ensure!(!dir.join("fleet.json").exists());

    // Nothing but its directory was written to, and nothing secret to its logs.
    for name in ["home", "cwd", "tmp"] {
        let found: Vec<_> = fs::read_dir(local.folder.path().join(name))?.collect();
        ensure!(found.is_empty(), "{name}: {found:?}");
    }
    let mut found: Vec<_> = fs::read_dir(&dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    found.sort();
    ensure!(found == ["fleet-secret", "lock", "logs", "prover-token"], "{found:?}");
    for entry in fs::read_dir(dir.join("logs"))? {
        let path = entry?.path();
        ensure!(!leaks(&fs::read_to_string(&path)?), "{}", path.display());
    }
    ensure!(!leaks(&out) && !leaks(&local.read("err")));
    Ok(())
}

#[test]
fn a_fleet_whose_parent_is_killed_leaves_nothing_running_and_its_directory_can_be_used_again() -> Result<()> {
    let mut local = Local::start(&manifest()?, &["--devnet"])?;
    let status = local.until("all are ready", |local| local.status().filter(is_complete))?;
    let everyone = pids(&status);
    signal(local.child.id(), "KILL")?;
    local.ended()?;
    let deadline = Instant::now() + PATIENCE;
    while !alive(&everyone).is_empty() {
        ensure!(Instant::now() < deadline, "left: {:?}", alive(&everyone));
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = local.fleet(&["status", "--local", "../fleet"])?;
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    ensure!(!status.status.success() && said.contains("no fleet runs in"), "{said}");

    // The same directory, the same secret.
    let secret = fs::read(local.dir().join("fleet-secret"))?;
    let mut again = fleet(local.folder.path(), &["local", "-f", "-", "--devnet", "--dir", "../fleet", "--port-base", "0"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    again.stdin.take().context("is piped")?.write_all(manifest()?.as_bytes())?;
    local.child = again;
    local.until("it runs again", Local::status)?;
    ensure!(fs::read(local.dir().join("fleet-secret"))? == secret);

    // Two signals end it at once, whatever is under way.
    let everyone = pids(&local.until("all are ready", |local| local.status().filter(is_complete))?);
    for wish in ["INT", "TERM"] {
        // Twice in a moment is once, as `timeout` sends it.
        signal(local.child.id(), wish)?;
        signal(local.child.id(), wish)?;
        std::thread::sleep(Duration::from_millis(1500));
        if local.child.try_wait()?.is_some() {
            // On an idle fleet it may be over before the second wish.
            break;
        }
    }
    local.ended()?;
    ensure!(alive(&everyone).is_empty(), "left: {:?}", alive(&everyone));
    Ok(())
}

#[test]
fn what_cannot_be_run_is_told_and_nothing_is_started_or_written() -> Result<()> {
    let good = manifest()?;
    for (manifest, arguments, message) in [
        (good.replace("shards: 4", "shards: 0"), &[][..], "spec.upgraders.shards: 0 shards: not from 1 to 128"),
        (good.replace("shards: 4", "shard: 4"), &[], "spec.upgraders.shard: no such field"),
        (good.replace("{name: small}", "{name: small"), &[], "standard input: not YAML: "),
        (good.replace("network: regtest", "network: main"), &[], "spec.upgraders.receivingAddress: this is no address on main"),
        (good.clone(), &["--devnet", "--binaries", "../home"], "prover-pod is not found"),
        (good.replace("UpgraderFleet", "Deployment"), &[], "no document of kind UpgraderFleet; found: Deployment"),
    ] {
        let mut local = Local::start(&manifest, arguments)?;
        let ended = local.ended()?;
        let said = local.read("err");
        ensure!(ended.code() == Some(1) && said.contains(message), "expected: {message}\nsaid: {said}");
        ensure!(!local.dir().exists(), "{message}");
    }

    let mut suspended = Local::start(&format!("{good}  suspend: true\n"), &["--devnet"])?;
    ensure!(suspended.ended()?.success() && suspended.read("out").contains("small is suspended"));
    let mut dry = Local::start(&good, &["--devnet", "--dry-run"])?;
    ensure!(dry.ended()?.success(), "{}", dry.read("err"));
    let out = dry.read("out");
    ensure!(out.lines().filter(|line| !line.starts_with('#')).count() == 7 && out.contains("--tx-upgrade-filter=4:3"), "{out}");
    ensure!(!dry.dir().exists());
    Ok(())
}
