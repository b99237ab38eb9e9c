//! What can go wrong, in classes that decide what happens next.

use std::fmt;

use crate::build::BuildError;

/// The class of an error: it decides when to try again, and is a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The server is away or busy: again soon, then later and later.
    Transient,
    /// Somebody else wrote at the same time: again at once.
    Conflict,
    /// The operator may not, or a quota is used up: later, a person has to act.
    Forbidden,
    /// The server or we refuse the object: when the specification changes, or much later.
    Invalid,
    /// The namespace or the fleet is going away.
    Gone,
    /// This process may not write any more.
    LeadershipLost,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 6] =
        [Self::Transient, Self::Conflict, Self::Forbidden, Self::Invalid, Self::Gone, Self::LeadershipLost];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Gone => "gone",
            Self::LeadershipLost => "leadership-lost",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What went wrong while reconciling a fleet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or nothing.
    #[error("{action}: {source}")]
    Api {
        /// What was tried.
        action: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The specification cannot be turned into objects.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Several objects could not be written; the first error of the worst class.
    #[error("{count} of the fleet's objects could not be written, the first: {first}")]
    Several {
        /// How many.
        count: usize,
        /// The first.
        first: Box<Error>,
    },
    /// An object of a deleted fleet of the same name is still there.
    #[error("{0} of a deleted fleet of this name is still there")]
    Leftover(String),
    /// This process is not the leader any more.
    #[error("not the leader any more")]
    LeadershipLost,
    /// It took too long.
    #[error("no end after {0} seconds")]
    Timeout(u64),
}

impl Error {
    /// Wraps an error of the client.
    pub fn api(action: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { action: action.into(), source: Box::new(source) }
    }

    /// The class.
    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => of_status(status),
                _ => Class::Transient,
            },
            Self::Build(_) => Class::Invalid,
            Self::Several { first, .. } => first.class(),
            Self::LeadershipLost => Class::LeadershipLost,
            Self::Leftover(_) => Class::Gone,
            Self::Timeout(_) => Class::Transient,
        }
    }
}

fn of_status(status: &kube::core::Status) -> Class {
    match status.code {
        // A namespace that is going away forbids new objects, too.
        403 if status.message.contains("being terminated") => Class::Gone,
        401 | 403 => Class::Forbidden,
        404 | 410 => Class::Gone,
        409 => Class::Conflict,
        400 | 405 | 413 | 415 | 422 => Class::Invalid,
        _ => Class::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_follows_from_the_servers_answer() {
        let class = |code: u16, message: &str| {
            let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
            Error::api("test", kube::Error::Api(Box::new(status))).class()
        };
        assert_eq!(class(409, ""), Class::Conflict);
        assert_eq!(class(403, "exceeded quota: pods"), Class::Forbidden);
        assert_eq!(class(403, "unable to create: namespace x is being terminated"), Class::Gone);
        assert_eq!(class(422, ""), Class::Invalid);
        for code in [429, 500, 503, 504] {
            assert_eq!(class(code, ""), Class::Transient);
        }
    }
}
