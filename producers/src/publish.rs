//! Publishes a single event, with an error message for unknown outcomes.

use anyhow::Context;
use evenkeel::event::{Event, EventType};
use evenkeel::publisher::{PublishError, Publisher, Receipt};

/// Publishes an event and waits for the brokers' acknowledgement. If the outcome is unknown, the
/// error names the flags that repeat the same event, `same_event` and its id, so that the
/// repetition has no second effect.
pub async fn publish<T: EventType>(
    publisher: &Publisher,
    event: &Event<T>,
    same_event: &str,
) -> anyhow::Result<Receipt> {
    let id = &event.attributes.id;
    match publisher.publish(event).await {
        Err(error @ PublishError::Unknown { .. }) => Err(error).with_context(|| {
            format!("event {id}: run the command again with {same_event} --event-id {id}")
        }),
        other => Ok(other?),
    }
}
