//! Posting events: the core that every protocol shares, and its HTTP binding.
//!
//! [`Posting::accept`] decides whether events may be posted, completes and validates them, encodes
//! them and hands them to the store. It knows no protocol: gRPC and the shop's routes call it too.
//! [`router`] has the routes `POST /events` and `POST /events/{type}`.
//!
//! | request | content type | event |
//! |---|---|---|
//! | `POST /events`, structured | `application/cloudevents+json` | the body |
//! | `POST /events`, batched | `application/cloudevents-batch+json` | each item of the body |
//! | `POST /events`, binary | `application/json`, any `+json` | `ce-*` headers, the body as data |
//! | `POST /events/{type}` | `application/json`, any `+json` | the body as data, `ce-*` optional |
//!
//! Reference: CloudEvents 1.0.2, its HTTP protocol binding and its JSON event format. Stricter than
//! they are: only JSON data, no `dataschema`, no member name twice. Looser: the gateway completes a
//! missing `id`, `source` and `time`, and skips one byte order mark at the start of a body.
//!
//! # The data that is published
//! A record has the data as the caller wrote it, so that numbers keep all digits. The copy that is
//! validated is read from the same text, and a text in which a member name is repeated is refused:
//! readers differ in which of the two values counts, so a consumer could see another value than
//! the one that was validated.
//!
//! # Files
//! | file | content |
//! |---|---|
//! | `posting.rs` | [`Posting`], the core |
//! | `new_event.rs`, `limits.rs`, `answer.rs`, `idempotency.rs` | what goes in and out |
//! | `checks/` | the checks of an event |
//! | `binding/`, `routes.rs` | the HTTP binding |
//! | `data_request.rs` | [`DataRequest`], for routes of a team's own |

mod answer;
mod binding;
mod checks;
mod data_request;
mod idempotency;
mod limits;
mod new_event;
mod posting;
mod routes;
#[cfg(test)]
mod tests;

pub use answer::{PostAnswer, PostedEvent};
pub use data_request::DataRequest;
pub use idempotency::IdempotencyKey;
pub use limits::PostLimits;
pub use new_event::NewEvent;
pub use posting::Posting;
pub(crate) use routes::answer_read;
pub use routes::router;
