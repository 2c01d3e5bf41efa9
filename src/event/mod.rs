//! The envelope: CloudEvents 1.0 over Kafka headers.
//!
//! Owns the events and their encoding in records. Knows neither client nor catalogue.
//!
//! | type | use |
//! |---|---|
//! | [`EventType`] | implemented by a payload: its type name, topic and key |
//! | [`Event`] | a payload with its CloudEvents [`Attributes`] |
//! | [`JsonEvent`] | the same for a type that is known only at run time |
//! | [`Record`] | a received Kafka record, shared and cheap to clone |
//! | [`OutgoingRecord`] | a record to publish |
//! | [`Headers`] | the headers of a record |
//! | [`TraceContext`] | the W3C trace context of a hop |
//! | [`ContentDigest`] | a digest that tells a redelivery from another event of the same id |
//!
//! [`encode`] and [`decode`] convert between events and records. Handlers and publishers call them;
//! a service calls them in tests, and where it handles raw records.
//!
//! Everything in this module is pure: no client, no task and no clock, except for the time and the
//! id of a new event. Decoding is total: whatever bytes a record has, the result is an envelope or
//! an error, and never a panic.

mod attributes;
mod binding;
mod content;
mod headers;
mod id;
mod outgoing;
mod record;
#[cfg(test)]
pub(crate) mod test_record;
mod trace;
mod typed;

pub use attributes::Attributes;
pub use binding::{ContentMode, DecodeError, Envelope, JsonEvent, decode, encode, encode_json};
pub(crate) use binding::{Decoded, decode_for};
pub use content::{ContentDigest, raw_identity};
pub use headers::{Headers, HeadersIter};
pub(crate) use id::published_id;
pub use id::{derived_id, new_id};
pub use outgoing::OutgoingRecord;
pub use record::{Record, RecordBatch, RecordBatchBuilder};
pub use trace::TraceContext;
pub use typed::{Event, EventType};
