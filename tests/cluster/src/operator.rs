//! The operator as a process of its own, which can be stopped, killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::programs::binary;
use crate::server::{Cluster, free_port};
use crate::wait::until;

/// How to run it.
#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    /// Another kubeconfig than the administrator's.
    pub kubeconfig: Option<PathBuf>,
    /// More options.
    pub arguments: Vec<String>,
    /// Without a line for each write in the log.
    pub quiet: bool,
}

/// A running operator. Killed when dropped.
pub struct Operator {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Operator {
    /// Starts it. `name` is its identity and the name of its log.
    ///
    /// # Errors
    /// The binary has not been built.
    pub fn start(cluster: &Cluster, name: &str, options: &OperatorOptions) -> Result<Self> {
        let port = free_port()?;
        let log = cluster.folder().join(format!("operator-{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let filter = if options.quiet { "warn" } else { "info,operator=debug" };
        let child = Command::new(binary("operator")?)
            .arg("run")
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--identity={name}"))
            .args(&options.arguments)
            .env("KUBECONFIG", options.kubeconfig.clone().unwrap_or_else(|| cluster.kubeconfig()))
            .env("RUST_LOG", std::env::var("OPERATOR_TEST_LOG").unwrap_or_else(|_| filter.to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("the operator")?;
        Ok(Self { child, port, log })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn ready(&self) -> Result<()> {
        until("ready operator", Duration::from_mins(1), || async {
            let (status, text) = self.get("/readyz").await?;
            Ok(if status == 200 { Ok(()) } else { Err(text) })
        })
        .await
        .map(|_| ())
    }

    /// Status and text of one of its pages.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let response =
            reqwest::Client::builder().no_proxy().build()?.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The value of a metric whose line starts so; the sum, if there are several.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, start: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics").await?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(start))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Whether it has ended, and how: its exit code, or `None` for a signal.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<Option<i32>>> {
        Ok(self.child.try_wait()?.map(|status| status.code()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn end(&mut self, limit: Duration) -> Result<Option<i32>> {
        let mut code = None;
        let child = &mut self.child;
        let began = std::time::Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = child.try_wait()? {
                code = Some(status.code());
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        code.context("it goes on")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the program, in parentheses, may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').context("a stat line")?.1.split_whitespace().collect();
        let ticks = |index: usize| -> Result<u64> { Ok(fields.get(index).context("a field")?.parse()?) };
        let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("ticks a second")?;
        Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) as f64 / each as f64))
    }

    fn memory(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = status.lines().find_map(|text| text.strip_prefix(line)).context("a line on memory")?;
        Ok(found.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
