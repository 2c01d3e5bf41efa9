//! Dead letters: the original record byte for byte, with the failure in its headers.
//!
//! Owns the name of the dead-letter topic and the added headers. Sends nothing: the caller must
//! have the brokers' acknowledgement before it settles the source offset.
//!
//! The names under `__dlq.errors.` are Kafka's own (KIP-1191), with Kafka's meaning. Headers
//! without a name in Kafka are under `evenkeel.dlq.`. All values are UTF-8 text. A record that
//! comes from a dead letter, because it was replayed or because the dead-letter topic is consumed,
//! already has these headers: they are replaced, so that they always describe the latest failure
//! and do not grow with each failure. Every other header stays in its place, including those of a
//! replay (`failure_headers.rs`): the number of replays and the time of the first failure must
//! survive the next failure.
//!
//! A record that is too large for the dead-letter topic becomes a [`Form::Reference`], without its
//! value.
//!
//! - `topic`: the topic's name; `failure_headers`: the names of our headers; `write`: creates a dead
//!   letter
//! - `details`: the failure as data; `read`, `header_families`, `values`: reads it from headers of
//!   any writer
//! - `truncated`: completes a dead letter from its original record

mod details;
mod failure_headers;
mod header_families;
mod read;
mod topic;
mod truncated;
mod values;
mod write;

#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod tests;

pub use details::{DeadLetter, Family};
pub(crate) use failure_headers::known_first_failure;
pub(super) use failure_headers::{
    EDITED, FIRST_FAILURE, REPLAY_COUNT, REPLAY_OF, REPLAYED_AT, REPLAYED_BY,
};
pub use failure_headers::{is_edited, record_timestamp_ms};
pub use topic::DeadLetterTopic;
pub use truncated::{NotTheOriginal, is_empty_without_original, restored};
pub(crate) use write::{Failure, Form, dead_letter};
