//! Leader election on a `coordination.k8s.io/v1` Lease: of several operators one writes.
//!
//! The rules are those of client-go. A holder renews every fifth of the Lease's duration and counts itself out when it has not
//! managed to for two thirds of it. Others take the Lease over when its record has not changed for the whole duration *by their own
//! clock*; the times in the record are for people. All writes carry the resource version that was read, so that of two who try
//! at once one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Says whether this process may write now. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct Leadership {
    origin: Instant,
    /// Milliseconds after the origin until which the Lease is ours; 0 while it is not.
    until: Arc<AtomicU64>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self { origin: Instant::now(), until: Arc::new(AtomicU64::new(0)) }
    }
}

impl Leadership {
    /// Whether the Lease is ours at this moment. A process that was stopped for a while finds that it is not.
    pub fn holds(&self) -> bool {
        (self.origin.elapsed().as_millis() as u64) < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, from: Instant, hold: Duration) {
        let until = from.saturating_duration_since(self.origin) + hold;
        self.until.store(until.as_millis() as u64, Ordering::Release);
    }

    fn drop_it(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// The Lease and who wants it.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    leadership: Leadership,
    seen: Option<Seen>,
}

/// The record as it was read last, and when it was first read so.
struct Seen {
    record: Option<LeaseSpec>,
    since: Instant,
}

/// What to do about a Lease that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ours,
    Free,
    Theirs,
}

impl Candidate {
    /// A candidate for the Lease.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            duration,
            leadership: Leadership::default(),
            seen: None,
        }
    }

    /// What tells whether we hold it.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    fn retry(&self) -> Duration {
        self.duration / 5
    }

    fn hold(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Waits until the Lease is ours, or the token says stop: then false.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.attempt().await {
                Ok(true) => {
                    info!(identity = self.identity, lease = self.name, "leading");
                    return true;
                }
                Ok(false) => debug!(lease = self.name, "another operator leads"),
                Err(error) => warn!(%error, lease = self.name, "cannot read or write the Lease"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(self.retry()) => {}
            }
        }
    }

    /// Renews until the token says stop (true) or the Lease is lost (false).
    pub async fn keep(&mut self, stop: &CancellationToken) -> bool {
        loop {
            tokio::select! {
                () = stop.cancelled() => return true,
                () = tokio::time::sleep(self.retry()) => {}
            }
            match self.attempt().await {
                Ok(true) => {}
                Ok(false) => {
                    warn!(lease = self.name, "another operator has taken the Lease");
                    return false;
                }
                Err(error) => warn!(%error, lease = self.name, "cannot renew the Lease"),
            }
            if !self.leadership.holds() {
                self.leadership.drop_it();
                return false;
            }
        }
    }

    /// Gives the Lease up, so that the next operator need not wait for its end.
    pub async fn release(&mut self) {
        self.leadership.drop_it();
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.retry(), released).await {
            Ok(Ok(())) => info!(lease = self.name, "gave up the Lease"),
            Ok(Err(error)) => warn!(%error, lease = self.name, "cannot give up the Lease: it ends by itself"),
            Err(_) => warn!(lease = self.name, "no time to give up the Lease: it ends by itself"),
        }
    }

    /// One try to take or renew it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        // Counted from before the write: others count from when they see it, which is later.
        let began = Instant::now();
        let limit = self.hold() / 2;
        match tokio::time::timeout(limit, self.write()).await {
            Ok(Ok(true)) => {
                self.leadership.extend(began, self.hold());
                Ok(true)
            }
            Ok(Ok(false)) => {
                self.leadership.drop_it();
                Ok(false)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(self.leadership.holds()),
        }
    }

    async fn write(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.record(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let now = Instant::now();
        if self.seen.as_ref().is_none_or(|seen| seen.record != lease.spec) {
            self.seen = Some(Seen { record: lease.spec.clone(), since: now });
        }
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |seen| now - seen.since);
        if judge(lease.spec.as_ref(), &self.identity, unchanged) == Verdict::Theirs {
            return Ok(false);
        }
        lease.spec = Some(self.record(lease.spec.as_ref()));
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// The record with us as holder.
    fn record(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.and_then(|old| old.holder_identity.as_deref()) == Some(&self.identity);
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs() as i32),
            acquire_time: if ours { old.and_then(|old| old.acquire_time.clone()) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours || old.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn won<T>(written: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whose the Lease is. `unchanged` is how long we have seen this very record.
fn judge(record: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Verdict {
    let holder = record.and_then(|record| record.holder_identity.as_deref()).unwrap_or_default();
    let seconds = record.and_then(|record| record.lease_duration_seconds).unwrap_or(0);
    if holder == identity {
        Verdict::Ours
    } else if holder.is_empty() || unchanged >= Duration::from_secs(u64::from(seconds.unsigned_abs())) {
        Verdict::Free
    } else {
        Verdict::Theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_free_when_empty_or_unchanged_for_its_duration() {
        let record = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let seconds = Duration::from_secs;
        assert_eq!(judge(Some(&record("a")), "a", seconds(0)), Verdict::Ours);
        assert_eq!(judge(Some(&record("b")), "a", seconds(14)), Verdict::Theirs);
        assert_eq!(judge(Some(&record("b")), "a", seconds(15)), Verdict::Free);
        assert_eq!(judge(Some(&record("")), "a", seconds(0)), Verdict::Free);
        assert_eq!(judge(None, "a", seconds(0)), Verdict::Free);
    }

    #[test]
    fn leadership_ends_by_itself() {
        let leadership = Leadership::default();
        assert!(!leadership.holds());
        leadership.extend(Instant::now(), Duration::from_mins(1));
        assert!(leadership.holds());
        leadership.drop_it();
        assert!(!leadership.holds());
        leadership.extend(leadership.origin, Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!leadership.holds());
    }
}
