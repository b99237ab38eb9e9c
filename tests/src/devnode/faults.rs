//! Answers that go wrong on request.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// HTTP status 500.
    Error,
    /// It comes late.
    Delay(Duration),
    /// It breaks off in the middle.
    Truncate,
    /// It comes byte by byte, with this pause.
    Drip(Duration),
}

/// Faults that wait for their answers, in order; one for each.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    /// The next answers go wrong like this.
    pub fn add(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// What happens to the answer that is due now.
    pub fn next(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
