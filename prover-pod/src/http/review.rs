//! Service accounts of a Kubernetes cluster as callers: their projected tokens, checked by the API server (TokenReview).

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracing::{info, warn};

/// How long a token that was refused stays so without another question.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Tokens whose answers are remembered.
const REMEMBERED: usize = 1024;
/// Questions at once: who sends rubbish must not make the API server work for us.
const AT_ONCE: usize = 4;
/// How long the API server may take, and how long a caller waits for a seat.
const PATIENCE: Duration = Duration::from_secs(10);
/// No token of a service account is longer.
const LONGEST: usize = 8 * 1024;

/// What to check tokens with.
#[derive(Debug, Clone)]
pub struct ReviewOptions {
    /// The API server.
    pub api: String,
    /// Folder with our own `token` for it and its `ca.crt`.
    pub directory: PathBuf,
    /// The audience that tokens have to be for.
    pub audience: String,
    /// The accounts that are let in, `namespace:name`.
    pub accounts: Vec<String>,
    /// How long an answer is believed: as long may a deleted account's token go on working.
    pub believed_for: Duration,
}

/// Checks tokens of service accounts.
#[derive(Debug)]
pub struct Reviewer {
    client: reqwest::Client,
    options: ReviewOptions,
    users: BTreeSet<String>,
    answers: Mutex<Answers>,
    seats: Semaphore,
}

/// The API server has not said yes or no.
#[derive(Debug, thiserror::Error)]
#[error("the token cannot be checked now")]
pub struct Unchecked;

impl Reviewer {
    /// A reviewer. Nothing is asked yet.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub fn new(options: ReviewOptions) -> anyhow::Result<Self> {
        // More than one provider of cryptography may be compiled in; nobody else chooses.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let path = options.directory.join("ca.crt");
        let pem = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{} is no bundle of PEM certificates", path.display()))?;
        let client =
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only(authorities).build().context("a client")?;
        let users = options.accounts.iter().map(|account| format!("system:serviceaccount:{account}")).collect();
        info!(accounts = ?options.accounts, audience = options.audience, "service accounts may use this pod");
        Ok(Self { client, options, users, answers: Mutex::default(), seats: Semaphore::new(AT_ONCE) })
    }

    /// Whether the bearer of this token is let in.
    ///
    /// # Errors
    /// [`Unchecked`]: the API server does not answer, or does not let us ask.
    pub async fn admits(&self, token: &str) -> Result<bool, Unchecked> {
        if !looks_like_one(token) {
            return Ok(false);
        }
        let key = key_of(token);
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let seat = tokio::time::timeout(PATIENCE, self.seats.acquire()).await;
        let _seat = seat.map_err(|_| Unchecked)?.map_err(|_| Unchecked)?;
        // Whoever waited for a seat may find that another request with the same token has been answered.
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let answer = self.ask(token).await.map_err(|error| {
            // Neither token is in the error: it has the address and the reason.
            warn!(error = format!("{error:#}"), "a service account's token cannot be checked");
            Unchecked
        })?;
        let admitted = verdict(&answer, &self.options.audience, &self.users);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = if admitted { self.options.believed_for } else { REFUSED_FOR.min(self.options.believed_for) };
        answers.keep(key, admitted, Instant::now(), keep);
        Ok(admitted)
    }

    fn known(&self, key: &Key) -> Option<bool> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(key, Instant::now())
    }

    async fn ask(&self, token: &str) -> anyhow::Result<Value> {
        // The kubelet replaces it now and then.
        let own = tokio::fs::read_to_string(self.options.directory.join("token")).await.context("our own token")?;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token, "audiences": [self.options.audience] },
        });
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.options.api.trim_end_matches('/'));
        let response = self.client.post(url).bearer_auth(own.trim()).json(&body).send().await?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "the API server answers {status}: may this account create tokenreviews?");
        Ok(response.json().await?)
    }
}

/// Three parts with dots between them, as any JSON Web Token: nothing else is worth a question.
fn looks_like_one(token: &str) -> bool {
    let mut parts = token.split('.');
    token.len() <= LONGEST && parts.by_ref().take(3).filter(|part| !part.is_empty()).count() == 3 && parts.next().is_none()
}

/// Whether the answer lets the caller in: the token holds, is meant for us, and is one of these users'.
fn verdict(answer: &Value, audience: &str, users: &BTreeSet<String>) -> bool {
    let status = &answer["status"];
    // An API server that ignores audiences names none: then the token may be anybody's for anything.
    let for_us = status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience));
    let user = status["user"]["username"].as_str().unwrap_or_default();
    status["authenticated"] == true && for_us && users.contains(user)
}

/// A digest, so that no token stays in memory longer than its request.
type Key = [u8; 32];

fn key_of(token: &str) -> Key {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// Answers, each for its time.
#[derive(Debug, Default)]
struct Answers(HashMap<Key, (bool, Instant)>);

impl Answers {
    fn get(&self, key: &Key, now: Instant) -> Option<bool> {
        self.0.get(key).filter(|(_, until)| now < *until).map(|(admitted, _)| *admitted)
    }

    fn keep(&mut self, key: Key, admitted: bool, now: Instant, keep: Duration) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() >= REMEMBERED {
            // Rubbish goes first; what holds is asked again if it must be.
            self.0.retain(|_, (admitted, _)| *admitted);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, (admitted, now + keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_accounts_with_tokens_for_us_are_let_in() {
        let users = BTreeSet::from(["system:serviceaccount:a:caller".to_owned()]);
        let answer = |authenticated: bool, audience: &str, user: &str| json!({ "status": { "authenticated": authenticated, "audiences": [audience], "user": { "username": user } } });
        let lets_in = |answer: &Value| verdict(answer, "provers", &users);
        assert!(lets_in(&answer(true, "provers", "system:serviceaccount:a:caller")));
        assert!(!lets_in(&answer(false, "provers", "system:serviceaccount:a:caller")));
        assert!(!lets_in(&answer(true, "https://kubernetes.default.svc", "system:serviceaccount:a:caller")));
        assert!(!lets_in(&answer(true, "provers", "system:serviceaccount:b:caller")));
        let mut silent = answer(true, "provers", "system:serviceaccount:a:caller");
        silent["status"]["audiences"] = Value::Null;
        assert!(!lets_in(&silent), "an API server that ignores audiences");
        assert!(!lets_in(&json!({})));
    }

    #[test]
    fn rubbish_is_not_worth_a_question() {
        assert!(looks_like_one("a.b.c"));
        for bad in ["", "abc", "a.b", "a..c", "a.b.c.d", &"a.b.c".repeat(10_000)] {
            assert!(!looks_like_one(bad), "{bad:.20}");
        }
    }

    #[test]
    fn answers_hold_for_their_time_and_are_few() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(key_of("good"), true, now, Duration::from_mins(1));
        assert_eq!(answers.get(&key_of("good"), now + Duration::from_secs(59)), Some(true));
        assert_eq!(answers.get(&key_of("good"), now + Duration::from_mins(1)), None);
        for number in 0..3 * REMEMBERED {
            answers.keep(key_of(&number.to_string()), false, now, REFUSED_FOR);
        }
        assert!(answers.0.len() <= REMEMBERED);
        assert_eq!(answers.get(&key_of("good"), now), Some(true), "rubbish drives no good answer out");
    }
}
