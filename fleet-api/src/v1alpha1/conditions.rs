//! Conditions, and the one function that sets them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The conditions of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// All that is wanted is there and ready.
    Ready,
    /// Each transaction has a ready upgrader.
    Covered,
    /// Shards are being changed.
    Resharding,
    /// At least one prover pod is ready of each kind that should have one.
    ProversAvailable,
    /// Something needs a person: the message says what.
    Degraded,
}

impl ConditionType {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Covered, Self::Resharding, Self::ProversAvailable, Self::Degraded];

    /// The name in the resource.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Covered => "Covered",
            Self::Resharding => "Resharding",
            Self::ProversAvailable => "ProversAvailable",
            Self::Degraded => "Degraded",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A condition: `status` is true, false or unknown; the reason is one word in camel case.
pub fn condition(
    kind: ConditionType,
    status: Option<bool>,
    reason: &str,
    message: String,
    generation: i64,
    now: &Time,
) -> Condition {
    Condition {
        type_: kind.name().to_owned(),
        status: match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: now.clone(),
    }
}

/// Puts a condition in place of the one of its type and returns whether its status changed. The time of transition stays when
/// the status does.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    let changed = old.status != new.status;
    if !changed {
        new.last_transition_time = old.last_transition_time.clone();
    }
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    #[test]
    fn the_time_of_transition_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        let set = |conditions: &mut Vec<Condition>, status, reason: &str, second| {
            set_condition(conditions, condition(ConditionType::Ready, status, reason, String::new(), second, &at(second)))
        };
        assert!(set(&mut conditions, Some(true), "A", 1));
        assert!(!set(&mut conditions, Some(true), "B", 2));
        assert_eq!((conditions[0].last_transition_time.clone(), conditions[0].reason.as_str()), (at(1), "B"));
        assert_eq!(conditions[0].observed_generation, Some(2));
        assert!(set(&mut conditions, None, "B", 3));
        assert_eq!((conditions.len(), conditions[0].last_transition_time.clone()), (1, at(3)));
    }
}
