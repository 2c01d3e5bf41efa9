//! Helper: a member of a group in this process, and the event that it handles.

use super::dead_letters::Mailbox;
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::EventType;
use evenkeel::handler::{Delivery, Outcome};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The event of the mailbox's records.
#[derive(Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) number: usize,
}

impl EventType for Happened {
    const TYPE: &'static str = "test.happened.v1";
    const TOPIC: &'static str = "test";

    fn key(&self) -> String {
        String::new()
    }
}

/// Keys and numbers in the order in which they were handled.
#[derive(Clone, Default)]
pub(crate) struct Handled(Arc<Mutex<Vec<(String, usize)>>>);

impl Handled {
    /// Appends a record. Returns whether it was handled before.
    pub(crate) fn push(&self, key: String, number: usize) -> bool {
        let mut list = self.0.lock().expect("no thread panicked with the lock");
        let handled = (key, number);
        let is_again = list.contains(&handled);
        list.push(handled);
        is_again
    }

    /// All so far.
    pub(crate) fn entries(&self) -> Vec<(String, usize)> {
        let list = self.0.lock().expect("no thread panicked with the lock");
        list.clone()
    }
}

/// A consumer that runs until it is stopped.
pub(crate) struct Running {
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Running {
    /// Starts a consumer on the mailbox's cluster.
    pub(crate) fn start<H>(mailbox: &Mailbox, settings: ConsumerSettings, handler: H) -> Self
    where
        H: tower::Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let consumer = Consumer::new(mailbox.kafka.config(), settings, handler)
            .expect("the settings of the consumer are valid");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = tokio::spawn(async move {
            consumer.run(stopped).await.expect("it ends well");
        });
        Self { stop, run }
    }

    /// Stops it, and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.run.await.expect("it does not panic");
    }
}
