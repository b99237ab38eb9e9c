//! Events, published beside the reconciles: they are a courtesy, and nobody waits for them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::debug;

use crate::status::Change;
use crate::writer::Writer;

/// Events that may wait; what comes on top is dropped.
const WAITING: usize = 4096;

/// Where events are left. The task that publishes them ends when all of these are gone and nothing waits any more.
#[derive(Clone)]
pub struct Announcer(Sender<(ObjectReference, Event)>);

impl Announcer {
    /// Starts publishing, one after the other and in order.
    pub fn start(recorder: Recorder, writer: Arc<Writer>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = channel(WAITING);
        (Self(sender), tokio::spawn(publish(receiver, recorder, writer)))
    }

    /// Leaves an event for a change.
    pub fn leave(&self, about: ObjectReference, change: &Change) {
        let event = Event {
            type_: if change.good { EventType::Normal } else { EventType::Warning },
            reason: change.reason.clone(),
            note: Some(format!("{}: {}", change.kind, change.message)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if self.0.try_send((about, event)).is_err() {
            debug!("an event was dropped: too many wait");
        }
    }
}

async fn publish(mut events: Receiver<(ObjectReference, Event)>, recorder: Recorder, writer: Arc<Writer>) {
    while let Some((about, event)) = events.recv().await {
        // Whoever does not lead any more has nothing to say.
        if writer.permit("create", "Event").is_err() {
            continue;
        }
        if let Err(error) = recorder.publish(&event, &about).await {
            debug!(%error, "an event was not taken");
        }
    }
}
