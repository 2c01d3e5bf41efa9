//! How an outbox encodes events.
//!
//! An event is encoded when it is written, not when it is published: a relay of another release, or
//! one without the catalogue, publishes the same bytes.

use super::OutboxError;
use crate::event::{ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::publisher;
use crate::schema::PayloadValidator;
use crate::telemetry::current_trace;
use std::fmt;
use std::sync::Arc;

/// How an outbox encodes and validates events: the same choices as for a publisher.
/// `OutboxSettings::default()` is binary mode without validation. They apply to events that are
/// published with `publish` and `publish_all`; records that are already encoded are written as they
/// are.
///
/// # Examples
/// ```
/// use evenkeel::event::ContentMode;
/// use evenkeel::outbox::OutboxSettings;
///
/// let settings = OutboxSettings::default().with_content_mode(ContentMode::Structured);
/// assert_eq!(settings.content_mode, ContentMode::Structured);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct OutboxSettings {
    /// Binary or structured content mode. Default: binary, with the attributes in headers.
    /// Structured mode carries them in the value, which tools that ignore headers need, such as
    /// Debezium as the relay.
    pub content_mode: ContentMode,
    /// Validates payloads before they are written; usually a
    /// [`Catalogue`](crate::schema::Catalogue), with the feature `json-schema`. Default: none, so
    /// payloads are written unchecked. A payload that fails is refused with
    /// [`OutboxError::Event`], and nothing is written: a poison event is found by its producer
    /// instead of every consumer.
    pub catalogue: Option<Arc<dyn PayloadValidator>>,
}

impl fmt::Debug for OutboxSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxSettings")
            .field("content_mode", &self.content_mode)
            .field("validates", &self.catalogue.is_some())
            .finish()
    }
}

impl OutboxSettings {
    /// Sets the content mode.
    pub fn with_content_mode(mut self, content_mode: ContentMode) -> Self {
        self.content_mode = content_mode;
        self
    }

    /// Sets the catalogue that payloads are validated against.
    pub fn with_catalogue(mut self, catalogue: Arc<impl PayloadValidator>) -> Self {
        self.catalogue = Some(catalogue);
        self
    }

    /// Validates and encodes an event like the publisher, with the trace context of the current
    /// span while spans are exported, otherwise with one of its own.
    ///
    /// # Errors
    /// [`OutboxError::Event`] with the first violation.
    pub(super) fn encode<T: EventType>(
        &self,
        event: &Event<T>,
    ) -> Result<OutgoingRecord, OutboxError> {
        let trace = current_trace().unwrap_or_else(TraceContext::root);
        publisher::encode(
            event,
            self.content_mode,
            self.catalogue.as_deref(),
            Some(&trace),
        )
        .map_err(OutboxError::Event)
    }
}
