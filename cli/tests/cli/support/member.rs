//! A member of a group in this process, and the events that it handles.

use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::EventType;
use evenkeel::handler::{Delivery, Outcome};
use evenkeel::testing::TestKafka;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// An event with a number.
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
pub(crate) type Handled = Arc<Mutex<Vec<(String, usize)>>>;

/// A running member of a group.
pub(crate) struct Member {
    handled: Handled,
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Member {
    /// Starts a member whose handlers log to `handled`.
    pub(crate) fn start<H>(
        kafka: &TestKafka,
        settings: ConsumerSettings,
        handler: H,
        handled: &Handled,
    ) -> Self
    where
        H: Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>,
        H: Clone + Send + Sync + 'static,
    {
        let consumer = Consumer::new(kafka.config(), settings, handler)
            .expect("the settings of the consumer are valid");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = tokio::spawn(async move {
            consumer.run(stopped).await.expect("it ends well");
        });
        let handled = Arc::clone(handled);
        Self { handled, stop, run }
    }

    /// All that it handled.
    pub(crate) fn handled(&self) -> Vec<(String, usize)> {
        self.handled
            .lock()
            .expect("no thread panicked with the lock")
            .clone()
    }

    /// The numbers of a key in the order in which they were handled.
    pub(crate) fn of(&self, key: &str) -> Vec<usize> {
        let handled = self.handled().into_iter();
        let own = handled.filter(|(found, _)| found == key);
        own.map(|(_, number)| number).collect()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.run.await.expect("it does not panic");
    }
}

/// Defaults, but commits that come soon enough for a test.
pub(crate) fn settings(group: &str, topic: &str) -> ConsumerSettings {
    let mut settings = ConsumerSettings::new(group, [topic]);
    settings.commit_interval = Duration::from_millis(100);
    settings
}
