//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::gpu::choice::BackendChoice;
use crate::scheduler::Backend;

/// Takes proof jobs over HTTP and returns verified proofs.
#[derive(Debug, Parser)]
#[command(name = "prover-pod", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API.
    Serve(Box<Serve>),
    /// Prove what the service says, on stdin and stdout. Started by `serve`.
    #[command(hide = true)]
    Worker(Worker),
    /// Say in plain words why the GPU is or is not used. Ends with 0 when it is usable, with 1 when it is not.
    Doctor(Doctor),
    /// Print, as JSON, the GPUs that a pod here would prove on and the memory that is free. Proves nothing.
    Devices,
    /// Measure CPU and GPU at each height, and write the table that `serve --routing` reads.
    Bench(Bench),
    /// Print the API's description (OpenAPI 3.1).
    Openapi,
    /// Put prover-proxy into a folder, for the pod of a stock node.
    GiveProxy {
        /// The folder.
        to: PathBuf,
    },
    /// Put a wallet into the data of a stock node. Fails when there is none to give, and when the node has another.
    GiveWallet {
        /// The folder with wallet.dat.
        from: PathBuf,
        /// The node's folder for its wallet.
        to: PathBuf,
    },
}

/// How lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The network that jobs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Neptune Cash or XNT main net.
    Main,
    /// A test network with real proofs.
    Testnet,
    /// A local network with mock proofs.
    Regtest,
    /// A public network with mock proofs.
    TestnetMock,
}

impl Network {
    /// Whether upstream has mock proofs there.
    pub fn is_mock(self) -> bool {
        matches!(self, Self::Regtest | Self::TestnetMock)
    }
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, env = "PROVER_POD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// File to write the port to, once it is bound.
    #[arg(long)]
    pub port_file: Option<PathBuf>,
    /// How to prove.
    #[arg(long, env = "PROVER_POD_BACKEND", value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// The network that jobs come from. Mock networks need `--backend mock`, and only they may have it.
    #[arg(long, env = "PROVER_POD_NETWORK", value_enum)]
    pub network: Option<Network>,
    /// Jobs at once. Default: 1 on the CPU; 2 for each GPU: one that it proves, and 16 GiB of the host's memory for those
    /// that are traced ahead of it; 16 with the mock backend.
    #[arg(long, env = "TRITON_VM_MAX_CONCURRENT_JOBS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_concurrent_jobs: Option<u16>,
    /// File with bearer tokens, one a line, read again when it changes. Without it the API is open.
    #[arg(long, env = "PROVER_POD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Service account of the cluster whose projected tokens open the API, too, as namespace:name; several times for several. The
    /// API server checks each token (TokenReview), which this pod's own account must be allowed to ask for.
    #[arg(long = "allow-service-account", env = "PROVER_POD_SERVICE_ACCOUNTS", value_delimiter = ',', value_parser = parse_account)]
    pub service_accounts: Vec<String>,
    /// The audience that these tokens have to be for.
    #[arg(long, env = "PROVER_POD_TOKEN_AUDIENCE", default_value = "upgrader-fleet.dev/provers")]
    pub token_audience: String,
    /// The API server that checks them.
    #[arg(long, env = "PROVER_POD_KUBE_API", default_value = "https://kubernetes.default.svc")]
    pub kube_api: String,
    /// Folder with this pod's own `token` for the API server, and its `ca.crt`.
    #[arg(long, env = "PROVER_POD_KUBE_DIR", default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    pub kube_dir: PathBuf,
    /// Seconds for which an answer of the API server about a token is believed.
    #[arg(long, env = "PROVER_POD_TOKEN_REVIEW_SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub token_review_seconds: Duration,
    /// PEM file with the certificate chain, read again when it changes.
    #[arg(long, env = "PROVER_POD_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(long, env = "PROVER_POD_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Largest log2 padded height taken, over and above what memory allows.
    #[arg(long, env = "PROVER_POD_MAX_LOG2_PADDED_HEIGHT", value_parser = clap::value_parser!(u8).range(8..=29))]
    pub max_log2_padded_height: Option<u8>,
    /// Bytes of memory that proofs may take together (suffixes Ki, Mi, Gi, Ti). Default: what the control group or the host
    /// leaves, less what the queue may take.
    #[arg(long, env = "PROVER_POD_MEMORY_LIMIT", value_parser = parse_bytes)]
    pub memory_limit: Option<u64>,
    /// Clock cycles after which a program counts as endless.
    #[arg(long, env = "PROVER_POD_CYCLE_LIMIT", default_value_t = 1 << 25)]
    pub cycle_limit: u64,
    /// Jobs that may wait.
    #[arg(long, env = "PROVER_POD_MAX_QUEUED", default_value_t = 16_384)]
    pub max_queued: usize,
    /// Bytes of job bodies held at once (suffixes Ki, Mi, Gi, Ti); past it jobs get 429.
    #[arg(long, env = "PROVER_POD_MAX_BODY_BYTES", default_value = "1Gi", value_parser = parse_bytes)]
    pub max_body_bytes: u64,
    /// Bytes of finished proofs kept for later callers.
    #[arg(long, env = "PROVER_POD_PROOF_CACHE_BYTES", default_value = "128Mi", value_parser = parse_bytes)]
    pub proof_cache_bytes: u64,
    /// Wrong proofs after which a device gets no more jobs; 0 never.
    #[arg(long, env = "PROVER_POD_QUARANTINE_AFTER", default_value_t = 2)]
    pub quarantine_after: u32,
    /// Silence of a worker after which it is killed, in seconds.
    #[arg(long, env = "PROVER_POD_HEARTBEAT_TIMEOUT", default_value = "30", value_parser = parse_seconds)]
    pub heartbeat_timeout: Duration,
    /// Time that running jobs have to end after SIGTERM, in seconds.
    #[arg(long, env = "PROVER_POD_GRACE_PERIOD", default_value = "3600", value_parser = parse_seconds)]
    pub grace_period: Duration,
    /// Serve the TVMP socket protocol on this TCP address, for nodes with TRITON_VM_PROVER_SOCKET.
    #[arg(long, env = "PROVER_POD_TVMP_TCP")]
    pub tcp: Option<SocketAddr>,
    /// Serve the TVMP socket protocol on this Unix socket.
    #[arg(long, env = "PROVER_POD_TVMP_UNIX")]
    pub unix: Option<PathBuf>,
    /// Most GPUs to use, a worker process each. Default: all that `CUDA_VISIBLE_DEVICES` shows.
    #[arg(long, env = "TRITON_GPU_COUNT")]
    pub num_gpus: Option<u16>,
    /// CPU proofs at once beside the GPUs, for jobs that ask for the CPU, that the routing sends there, or that are too big for
    /// the GPU; 0 for none.
    #[arg(long, env = "TRITON_VM_MAX_CPU_JOBS", default_value_t = 1)]
    pub cpu_jobs: u16,
    /// Which jobs go to the CPU of a pod with GPUs: `gpu` (none), `collections-on-cpu` (the members of ProofCollections), or a
    /// file that `prover-pod bench` wrote.
    #[arg(long, env = "PROVER_POD_ROUTING", default_value = "gpu", value_parser = parse_routing)]
    pub routing: RoutingChoice,
    /// How lines are logged; `RUST_LOG` says which.
    #[arg(long, env = "PROVER_POD_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Another program to run as worker; for tests of what happens when a device goes wrong.
    #[arg(long, hide = true)]
    pub worker_program: Option<PathBuf>,
}

/// Options of `worker`.
#[derive(Debug, Args)]
pub struct Worker {
    /// How to prove.
    #[arg(long, value_enum)]
    pub backend: Backend,
    /// Jobs at once, of the GPU and the mock backend.
    #[arg(long, default_value_t = 1)]
    pub slots: usize,
    /// Clock cycles after which a program counts as endless.
    #[arg(long, default_value_t = 1 << 25)]
    pub cycle_limit: u64,
    /// How lines are logged.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Prove heights up to this log2 to time them; 22 takes a minute.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(0..=29))]
    pub prove_up_to: u8,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// First log2 padded height.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(8..=29))]
    pub first: u8,
    /// Last log2 padded height.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u8).range(8..=29))]
    pub last: u8,
    /// Proofs at each height, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub runs: u8,
    /// Heights that take the CPU longer than this are left out there.
    #[arg(long, default_value_t = 60.0)]
    pub cpu_seconds: f64,
    /// File to write the table to. Default: only print it.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Where the routing of a pod with GPUs comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutingChoice {
    /// All on the GPU.
    Gpu,
    /// Members of ProofCollections on the CPU.
    CollectionsOnCpu,
    /// A measured table.
    File(PathBuf),
}

fn parse_routing(text: &str) -> Result<RoutingChoice, String> {
    match text {
        "" => Err("give gpu, collections-on-cpu, or a file".to_owned()),
        "gpu" => Ok(RoutingChoice::Gpu),
        "collections-on-cpu" => Ok(RoutingChoice::CollectionsOnCpu),
        file => Ok(RoutingChoice::File(file.into())),
    }
}

fn parse_account(text: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-.".contains(&letter))
    };
    match text.split_once(':') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(text.to_owned()),
        _ => Err("not of the form namespace:name".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Reads a number of bytes with an optional binary suffix, as Kubernetes writes them.
///
/// # Errors
/// A text for people.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let suffixes = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];
    let found = suffixes.into_iter().find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, shift)));
    let (digits, shift) = found.unwrap_or((text, 0));
    let number: u64 = digits.trim().parse().map_err(|_| "not a number of bytes; write 1073741824 or 1Gi".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more bytes than there can be".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_account_has_a_namespace() {
        assert!(parse_account("proofs:node").is_ok());
        for bad in ["node", ":node", "proofs:", "system:serviceaccount:a:b", "a:B", "a:*"] {
            assert!(parse_account(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_have_binary_suffixes() {
        assert_eq!(parse_bytes("12"), Ok(12));
        assert_eq!(parse_bytes("3Gi"), Ok(3 << 30));
        for bad in ["", "x", "-1", "1G", "99999999999Ti"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
