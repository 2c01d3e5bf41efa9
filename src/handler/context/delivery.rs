//! One delivery of a record to a handler.

use crate::event::Record;
use crate::publisher::Publisher;
use std::sync::Arc;
use std::time::Duration;

/// Shared by all deliveries of one consumer.
#[derive(Clone)]
pub struct DeliveryScope {
    /// The consumer group.
    pub group: String,
    /// Publishes the events that handlers publish through their context. `None` for a consumer that
    /// publishes nothing.
    pub publisher: Option<Publisher>,
    /// Bounds one attempt of a handler; `None` for no limit. See
    /// [`ConsumerSettings::handler_timeout`](crate::consumer::ConsumerSettings::handler_timeout).
    pub handler_timeout: Option<Duration>,
}

/// One attempt at one record: the request of the handler service.
#[derive(Clone)]
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// The attempt, from 1, counted in this process.
    pub attempt: u32,
    /// Shared by all deliveries of the consumer.
    pub scope: Arc<DeliveryScope>,
}
