//! The envelope: CloudEvents 1.0 over Kafka headers.
//!
//! Owns the events and their encoding in records. Knows neither client nor catalogue.

mod attributes;
mod binding;
mod content;
mod headers;
mod id;
mod outgoing;
mod record;
mod trace;
mod typed;

pub use attributes::Attributes;
pub use binding::{ContentMode, DecodeError, Envelope, JsonEvent, decode, encode, encode_json};
pub(crate) use binding::{Decoded, decode_asked};
pub use content::{ContentDigest, raw_identity};
pub use headers::{Headers, HeadersIter};
pub(crate) use id::published_id;
pub use id::{derived_id, new_id};
pub use outgoing::OutgoingRecord;
pub use record::{Record, RecordBatch, RecordBatchBuilder};
pub use trace::TraceContext;
pub use typed::{Event, EventType};
