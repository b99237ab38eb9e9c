//! The listener: plain or TLS, with bounds on connections and on patience.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

/// Connections at once. Each waiting caller holds one.
const MAX_CONNECTIONS: usize = 16_384;

/// Time for a TLS handshake and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often certificate files are read.
const RELOAD: Duration = Duration::from_secs(10);

/// Where certificate and key stand, as PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, own certificate first.
    pub certificates: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The current certificate. Files are read again now and then: rotation needs no restart.
#[derive(Debug, Clone)]
pub struct TlsReloader {
    current: Arc<ArcSwap<ServerConfig>>,
}

impl TlsReloader {
    /// Reads the files and goes on reading them.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub fn start(files: TlsFiles) -> anyhow::Result<Self> {
        let (config, mut seen) = load(&files)?;
        let current = Arc::new(ArcSwap::from_pointee(config));
        let weak = Arc::downgrade(&current);
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(RELOAD);
            loop {
                clock.tick().await;
                let Some(current) = weak.upgrade() else { return };
                match load(&files) {
                    Ok((config, bytes)) if bytes != seen => {
                        info!(path = %files.certificates.display(), "certificate reloaded");
                        current.store(Arc::new(config));
                        seen = bytes;
                    }
                    Ok(_) => {}
                    // Certificate and key are replaced one after the other; between them they do not match.
                    Err(error) => warn!(%error, "certificate not reloaded, the old one holds"),
                }
            }
        });
        Ok(Self { current })
    }
}

fn load(files: &TlsFiles) -> anyhow::Result<(ServerConfig, Vec<u8>)> {
    use anyhow::Context;
    let pem = std::fs::read(&files.certificates).with_context(|| format!("cannot read {}", files.certificates.display()))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{} is not a PEM certificate chain", files.certificates.display()))?;
    anyhow::ensure!(!chain.is_empty(), "there is no PEM certificate in {}", files.certificates.display());
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read a PEM private key from {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, pem))
}

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsReloader>,
}

impl Server {
    /// Binds.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr, tls: Option<TlsReloader>) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop` turns true, then lets open requests finish.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: accepting at once would spin.
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            drop(stream.set_nodelay(true));
            let (builder, router, watcher) = (builder.clone(), router.clone(), graceful.watcher());
            let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current.load_full()));
            tokio::spawn(async move {
                let _permit = permit;
                match acceptor {
                    None => converse(&builder, router, stream, watcher).await,
                    Some(acceptor) => match timeout(PATIENCE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => converse(&builder, router, stream, watcher).await,
                        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => debug!(%peer, "TLS handshake too slow"),
                    },
                }
            });
        }
        drop(self.listener);
        graceful.shutdown().await;
    }
}

async fn converse<S>(
    builder: &Builder<TokioExecutor>,
    router: Router,
    stream: S,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(error = %error, "connection ended");
    }
}
