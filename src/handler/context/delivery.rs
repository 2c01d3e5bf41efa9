//! One delivery of a record to a handler.

use crate::event::Record;
use crate::publisher::Publisher;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Shared by all deliveries of one consumer. The consumer creates it; a test of a handler service
/// creates its own with [`DeliveryScope::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct DeliveryScope {
    /// The consumer group. It is part of the inbox's keys.
    pub group: String,
    /// Publishes the events that handlers publish through their context. `None` for a consumer that
    /// publishes nothing.
    pub publisher: Option<Publisher>,
    /// Bounds one attempt of a handler; `None` for no limit. See
    /// [`ConsumerSettings::handler_timeout`](crate::consumer::ConsumerSettings::handler_timeout).
    pub handler_timeout: Option<Duration>,
}

impl DeliveryScope {
    /// Creates the scope of a group without a publisher and without a limit.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            publisher: None,
            handler_timeout: None,
        }
    }

    /// Sets [`publisher`](Self::publisher).
    #[must_use]
    pub fn with_publisher(mut self, publisher: impl Into<Option<Publisher>>) -> Self {
        self.publisher = publisher.into();
        self
    }

    /// Sets [`handler_timeout`](Self::handler_timeout).
    #[must_use]
    pub fn with_handler_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = limit.into();
        self
    }
}

impl fmt::Debug for DeliveryScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryScope")
            .field("group", &self.group)
            .field("publishes", &self.publisher.is_some())
            .field("handler_timeout", &self.handler_timeout)
            .finish()
    }
}

/// One attempt at one record: the request of the handler service.
///
/// A consumer passes it through the layers to the router. A layer may read it, delay it or answer
/// in the router's place. A test calls a service with deliveries of its own:
///
/// ```
/// use evenkeel::event::{Record, RecordBatchBuilder};
/// use evenkeel::handler::{Delivery, DeliveryScope, Outcome, Router};
/// use std::sync::Arc;
/// use tower::ServiceExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut batch = RecordBatchBuilder::new();
/// let source = batch.source("shop.orders".into(), 0);
/// batch.push(source, 42, 0, Some(b"o-1"), Some(b"{}"), []);
/// let record = batch.build(None).record(0).expect("one record was added");
///
/// let scope = Arc::new(DeliveryScope::new("payments"));
/// let router = Router::new().raw(async |_: Record| Outcome::Done);
/// let Ok(outcome) = router.oneshot(Delivery::new(record, 1, scope)).await;
/// assert!(matches!(outcome, Outcome::Done));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The record. Cheap to clone.
    pub record: Record,
    /// The attempt, from 1, counted in this process: a redelivery to another process counts from 1
    /// again.
    pub attempt: u32,
    /// Shared by all deliveries of the consumer.
    pub scope: Arc<DeliveryScope>,
}

impl Delivery {
    /// Creates an attempt at a record, for tests and for services that deliver to others.
    pub fn new(record: Record, attempt: u32, scope: Arc<DeliveryScope>) -> Self {
        Self {
            record,
            attempt,
            scope,
        }
    }
}
