//! How an outbox encodes events.

use super::OutboxError;
use crate::event::{ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::publisher;
use crate::schema::PayloadValidator;
use std::sync::Arc;

/// How an outbox encodes and validates events: the same choices as for a publisher.
/// `OutboxSettings::default()` is binary mode without validation.
#[derive(Clone, Default)]
pub struct OutboxSettings {
    /// Binary or structured content mode. Default: binary.
    pub content_mode: ContentMode,
    /// Validates payloads before they are written; usually a
    /// [`Catalogue`](crate::schema::Catalogue), with the feature `json-schema`. Default: none, so
    /// payloads are written unchecked.
    pub catalogue: Option<Arc<dyn PayloadValidator>>,
}

impl OutboxSettings {
    /// Validates and encodes an event like the publisher.
    pub(super) fn encode<T: EventType>(
        &self,
        event: &Event<T>,
    ) -> Result<OutgoingRecord, OutboxError> {
        let trace = TraceContext::root();
        publisher::encode(
            event,
            self.content_mode,
            self.catalogue.as_deref(),
            Some(&trace),
        )
        .map_err(OutboxError::Event)
    }
}
