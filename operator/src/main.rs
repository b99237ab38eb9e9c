//! The binary `operator`.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use operator::args::{Cli, Command, LogFormat};
use operator::generate;
use operator::http::LogFilter;
use operator::run::{Ending, run};
use tracing::error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Generate { what } => match generate::text(what) {
            // Whoever reads only the beginning closes the pipe: no failure.
            Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    eprintln!("operator: {error}");
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            },
            Err(error) => {
                eprintln!("operator: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Check { url, within } => {
            let within = Duration::from_secs(within);
            // reqwest is built without a provider of cryptography of its own.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(check_within(&url, within))) {
                Ok(text) => {
                    print!("{text}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("operator: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
        Command::Run(args) => {
            let filter = log(args.log_format);
            // More than one provider of cryptography may be compiled in; nobody else chooses.
            if rustls::crypto::ring::default_provider().install_default().is_err() {
                error!("a provider of cryptography was installed before");
            }
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(*args, Some(filter))));
            match ended {
                Ok(Ending::Told) => ExitCode::SUCCESS,
                Ok(Ending::LeadershipLost) => ExitCode::FAILURE,
                Err(error) => {
                    error!("{error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

async fn check_within(url: &str, within: Duration) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        match check(url).await {
            Err(error) if began.elapsed() < within => {
                eprintln!("operator: {error:#}; asking again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            result => return result,
        }
    }
}

async fn check(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let response = client.get(url).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    anyhow::ensure!(status.is_success(), "{url}: {status}: {}", text.trim());
    Ok(text)
}

fn log(format: LogFormat) -> LogFilter {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init();
        }
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init(),
    }
    handle
}
