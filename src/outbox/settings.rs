//! How an outbox encodes what is published through it.

use super::OutboxError;
use crate::event::{ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::publisher;
use crate::schema::Catalogue;
use std::sync::Arc;

/// How an outbox encodes what is published through it; the same choices as a publisher's.
#[derive(Clone, Default)]
pub struct OutboxSettings {
    /// Binary (default) or structured.
    pub content_mode: ContentMode,
    /// Validates payloads before they are written; none writes unchecked.
    pub catalogue: Option<Arc<Catalogue>>,
}

impl OutboxSettings {
    /// Validates and encodes, as the publisher does.
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
