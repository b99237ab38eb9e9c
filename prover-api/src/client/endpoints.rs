//! Which pods there are: a fixed list, or what a DNS name resolves to right now.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use reqwest::{Certificate, Url};

use super::BuildError;

/// Resolves a host name to all its addresses.
pub type Resolver = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// One pod.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Base URL, with the pod's own address; no slash at the end. Routing hashes it.
    pub name: Arc<str>,
    base: Arc<str>,
    /// The connections to it.
    pub http: reqwest::Client,
}

impl Endpoint {
    /// URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// As configured.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Fixed(String),
    Headless { scheme: String, host: String, port: u16 },
}

impl Source {
    /// Reads `http[s]://host:port` or `dns+http[s]://name:port`.
    fn parse(text: &str) -> Result<Self, BuildError> {
        let text = text.trim().trim_end_matches('/');
        let bad = |why: &str| BuildError::Endpoint { endpoint: text.to_owned(), why: why.to_owned() };
        let headless = text.strip_prefix("dns+");
        let url = Url::parse(headless.unwrap_or(text)).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("the scheme is http, https, dns+http or dns+https"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("only scheme, host, port and path may be given; the token has an option of its own"));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(bad("host or port is missing"));
        };
        if headless.is_none() {
            return Ok(Self::Fixed(url.as_str().trim_end_matches('/').to_owned()));
        }
        if url.path() != "/" {
            return Err(bad("a headless Service has no path"));
        }
        Ok(Self::Headless { scheme: url.scheme().to_owned(), host: host.to_owned(), port })
    }

    fn is_tls(&self) -> bool {
        match self {
            Self::Fixed(url) => url.starts_with("https:"),
            Self::Headless { scheme, .. } => scheme == "https",
        }
    }
}

/// The pods, kept up to date.
pub struct Endpoints {
    sources: Vec<Source>,
    resolver: Resolver,
    every: Duration,
    maker: HttpMaker,
    shared: reqwest::Client,
    state: Mutex<State>,
    resolving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    known: Arc<[Endpoint]>,
    resolved: Option<Instant>,
    /// Some name did not resolve then.
    failed: bool,
    /// When it became another set of pods.
    moved: Option<Instant>,
}

impl Endpoints {
    /// Reads the list; resolves nothing yet.
    pub fn new(list: &[String], maker: HttpMaker, resolver: Option<Resolver>, every: Duration) -> Result<Self, BuildError> {
        let sources = list.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            return Err(BuildError::NoEndpoints);
        }
        let maker = HttpMaker { tls: sources.iter().any(Source::is_tls), ..maker };
        let shared = maker.make(None)?;
        Ok(Self {
            sources,
            resolver: resolver.unwrap_or_else(system_resolver),
            every,
            maker,
            shared,
            state: Mutex::default(),
            resolving: tokio::sync::Mutex::default(),
        })
    }

    /// Whether the pods are those of a list, not what a name stands for.
    pub fn is_fixed(&self) -> bool {
        self.sources.iter().all(|source| matches!(source, Source::Fixed(_)))
    }

    fn known_since(&self, most: Duration) -> Option<Arc<[Endpoint]>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asks a name server that does not answer waits for seconds: not each job does.
        let most = if state.failed { self.every } else { most.min(self.every) };
        let fresh = state.resolved.is_some_and(|at| self.is_fixed() || at.elapsed() < most);
        fresh.then(|| state.known.clone())
    }

    /// The pods. Names that do not resolve at the moment keep the addresses that they had.
    pub async fn current(&self) -> Arc<[Endpoint]> {
        self.within(self.every).await
    }

    /// The pods as of so long ago at most, as far as the name server answers.
    pub async fn within(&self, most: Duration) -> Arc<[Endpoint]> {
        if let Some(known) = self.known_since(most) {
            return known;
        }
        let _one_at_a_time = self.resolving.lock().await;
        if let Some(known) = self.known_since(most) {
            return known;
        }
        let mut failed = false;
        let old = self.state.lock().unwrap_or_else(PoisonError::into_inner).known.clone();
        let old_by_name: HashMap<_, _> = old.iter().map(|endpoint| (endpoint.name.clone(), endpoint)).collect();
        let mut new: Vec<Endpoint> = Vec::new();
        for source in &self.sources {
            match source {
                Source::Fixed(url) => {
                    let name: Arc<str> = url.as_str().into();
                    new.push(Endpoint { base: name.clone(), name, http: self.shared.clone() });
                }
                Source::Headless { scheme, host, port } => match (self.resolver)(host.clone(), *port).await {
                    Ok(addresses) => {
                        for address in addresses {
                            let name: Arc<str> = format!("{scheme}://{address}").into();
                            match old_by_name.get(&name) {
                                Some(&endpoint) => new.push(endpoint.clone()),
                                None => new.extend(self.address(name, scheme, host, address)),
                            }
                        }
                    }
                    Err(error) => {
                        failed = true;
                        tracing::warn!(%host, %error, "the name of the prover pods does not resolve; keeping the addresses that were");
                        new.extend(old.iter().filter(|endpoint| endpoint.base.contains(host.as_str())).cloned());
                    }
                },
            }
        }
        new.sort_by(|one, other| one.name.cmp(&other.name));
        new.dedup_by(|one, other| one.name == other.name);
        let known: Arc<[Endpoint]> = new.into();
        let names = |endpoints: &[Endpoint]| endpoints.iter().map(|endpoint| endpoint.name.clone()).collect::<Vec<_>>();
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = if names(&old) == names(&known) { state.moved } else { Some(now) };
        *state = State { known: known.clone(), resolved: Some(now), failed, moved };
        known
    }

    /// Whether pods have come or gone lately, as far as is known: what this client has not seen may have happened just before its
    /// start. A fixed list does not change.
    pub fn moved_within(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_fixed() && state.moved.is_some_and(|at| at.elapsed() < time)
    }

    /// A pod behind a name: connections go to its address, certificates and `Host` are about the name.
    fn address(&self, name: Arc<str>, scheme: &str, host: &str, address: SocketAddr) -> Option<Endpoint> {
        let http = self.maker.make(Some((host, address))).ok()?;
        let base = format!("{scheme}://{host}:{}", address.port()).into();
        Some(Endpoint { name, base, http })
    }
}

fn system_resolver() -> Resolver {
    Arc::new(|host, port| async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) }.boxed())
}

/// Makes HTTP clients that are alike.
#[derive(Debug, Clone, Default)]
pub struct HttpMaker {
    /// The only authorities that are trusted; empty: those of the system.
    pub authorities: Vec<Certificate>,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Whether TLS will be spoken at all.
    pub tls: bool,
}

impl HttpMaker {
    /// Reads a PEM file of certificate authorities.
    pub fn authorities_from(path: &Path) -> Result<Vec<Certificate>, BuildError> {
        let bad = |why: String| BuildError::Authorities { path: path.to_owned(), why };
        let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
        Ok(certificates)
    }

    fn make(&self, pinned: Option<(&str, SocketAddr)>) -> Result<reqwest::Client, BuildError> {
        // Fails only when the program has chosen a provider already: then that one it is.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("upgrader-fleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15))
            // Jobs hold spending secrets: they go to the pod and nowhere else, whatever HTTP_PROXY says or a pod redirects to.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if !self.tls || !self.authorities.is_empty() {
            // Without TLS nothing is read: the system's authorities would cost more than the rest of a short program's start.
            builder = builder.tls_certs_only(self.authorities.iter().cloned());
        }
        if let Some((host, address)) = pinned {
            builder = builder.resolve(host, address);
        }
        builder.build().map_err(|error| BuildError::Http(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn endpoints_are_read_or_refused() {
        let fixed = |text| Source::parse(text).expect("is an endpoint");
        assert_eq!(fixed(" http://pod:8080/ "), Source::Fixed("http://pod:8080".to_owned()));
        assert_eq!(fixed("https://gateway/prover"), Source::Fixed("https://gateway/prover".to_owned()));
        let headless = Source::Headless { scheme: "https".to_owned(), host: "pods.ns.svc".to_owned(), port: 443 };
        assert_eq!(fixed("dns+https://pods.ns.svc"), headless);
        for bad in ["", "pod:8080", "ftp://pod", "http://user:pass@pod", "http://pod?x", "dns+http://pods/path", "dns+unix://x"]
        {
            assert!(matches!(Source::parse(bad), Err(BuildError::Endpoint { .. })), "{bad}");
        }
    }

    fn endpoints(answers: Vec<io::Result<Vec<SocketAddr>>>) -> (Endpoints, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answers = Mutex::new(answers.into_iter());
        let resolver: Resolver = Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            let answer = answers.lock().expect("no panic").next().expect("is asked as often as expected");
            async move { answer }.boxed()
        });
        let list = ["dns+http://pods:80".to_owned()];
        let endpoints =
            Endpoints::new(&list, HttpMaker::default(), Some(resolver), Duration::from_millis(20)).expect("is valid");
        (endpoints, asked)
    }

    fn names(endpoints: &[Endpoint]) -> Vec<&str> {
        endpoints.iter().map(|endpoint| &*endpoint.name).collect()
    }

    #[tokio::test]
    async fn a_name_is_resolved_again_and_again() {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        let gone = || Err(io::Error::other("SERVFAIL"));
        let (endpoints, asked) =
            endpoints(vec![Ok(vec![address(2), address(1), address(1)]), gone(), Ok(vec![address(3), address(2)]), Ok(vec![])]);
        let first = endpoints.current().await;
        assert_eq!(names(&first), ["http://10.0.0.1:80", "http://10.0.0.2:80"]);
        assert_eq!(first[0].url("/v1"), "http://pods:80/v1");
        assert_eq!(names(&endpoints.current().await).len(), 2);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "fresh enough");
        let wait = || tokio::time::sleep(Duration::from_millis(25));
        wait().await;
        assert_eq!(names(&endpoints.current().await), names(&first), "no answer is not an empty answer");
        assert_eq!(names(&endpoints.within(Duration::ZERO).await), names(&first));
        assert_eq!(asked.load(Ordering::Relaxed), 2, "who does not answer is not asked by each job");
        wait().await;
        assert_eq!(names(&endpoints.current().await), ["http://10.0.0.2:80", "http://10.0.0.3:80"]);
        assert!(endpoints.within(Duration::ZERO).await.is_empty(), "fresher than usual");
    }

    #[tokio::test]
    async fn a_set_that_stays_has_not_moved() {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        let (endpoints, _) = endpoints(vec![
            Ok(vec![address(1), address(2)]),
            Ok(vec![address(2), address(1)]),
            Ok(vec![address(2), address(3)]),
        ]);
        let long = Duration::from_mins(1);
        assert!(!endpoints.moved_within(long), "nothing is known");
        endpoints.current().await;
        assert!(endpoints.moved_within(long));
        tokio::time::sleep(Duration::from_millis(25)).await;
        let since = Instant::now();
        endpoints.current().await;
        assert!(!endpoints.moved_within(since.elapsed()), "the same pods in another order");
        tokio::time::sleep(Duration::from_millis(25)).await;
        endpoints.current().await;
        assert!(endpoints.moved_within(since.elapsed()));
        let fixed = ["http://pod:80".to_owned()];
        let fixed = Endpoints::new(&fixed, HttpMaker::default(), None, long).expect("is valid");
        fixed.current().await;
        assert!(!fixed.moved_within(long));
    }
}
