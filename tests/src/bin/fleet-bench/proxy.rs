//! How long a node waits for `prover-proxy`: from its start to its first byte at a pod.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleet::program;
use triton_vm::prelude::{NonDeterminism, PublicInput};
use upgrader_fleet_tests::pods::binary;

use crate::spread::{Spread, ms};

const STARTS: usize = 50;

pub fn measure() -> Result<()> {
    let proxy = binary("prover-proxy")?;
    let job = program::job(program::assemble("halt")?, PublicInput::default(), NonDeterminism::default())?.to_json()?;
    let mut measured = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        // A listener for each: the proxy asks two questions at once, and the second connection would be taken for the next start.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let began = Instant::now();
        let mut child = Command::new(&proxy)
            .args(["--endpoints", &endpoint, "--fallback", "none"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        child.stdin.take().context("stdin is a pipe")?.write_all(&job)?;
        let (mut connection, _) = listener.accept()?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.read_exact(&mut [0])?;
        measured.push(began.elapsed());
        child.kill()?;
        child.wait()?;
    }
    let spread = Spread::of(measured);
    println!(
        "proxy     p50 {}, worst {}: from the start of prover-proxy to its first byte at a pod ({STARTS} starts)",
        ms(spread.quantile(0.5)),
        ms(spread.max()),
    );
    Ok(())
}
