//! Handlers: async functions of an event and a context, a router by event type, outcomes and errors.
//!
//! Owns the way of one delivery: read the record, check its payload, claim it in the inbox, call the function, commit,
//! publish. Knows no client, no lane and no offset; when a delivery is tried again, and when its record counts as settled, is
//! the consumer's business.
//!
//! A handler takes an [`Event`](crate::event::Event) or a raw [`Record`](crate::event::Record), and up to three more
//! arguments: [`Context`], [`State`], or the transaction of the inbox. It returns `()`, an [`Outcome`], or a `Result` of
//! either. What an error leads to is decided by its [`Class`], never by its text:
//!
//! | class | what follows |
//! |---|---|
//! | transient | retried in place with growing, jittered waits; dead-lettered when the attempts are used up |
//! | permanent | dead-lettered at once |
//! | outage | retried until it passes; no attempt is counted |
//!
//! ```
//! use evenkeel::event::Record;
//! use evenkeel::handler::{HandlerError, Router, State};
//!
//! #[derive(Clone)]
//! struct Limit(usize);
//!
//! async fn measure(record: Record, State(limit): State<Limit>) -> Result<(), HandlerError> {
//!     let bytes = record.value().map_or(0, <[u8]>::len);
//!     if bytes > limit.0 {
//!         return Err(HandlerError::permanent(format!("{bytes} bytes are too many")));
//!     }
//!     Ok(())
//! }
//!
//! let router = Router::new().raw(measure).with_state(Limit(1024));
//! router.validate()?;
//! # Ok::<(), evenkeel::kafka::ConfigError>(())
//! ```
//!
//! A batch handler takes a run of events of one type at a time, with one transaction for all and an outcome for each
//! ([`Router::on_batch`]): many rows go in one statement.
//!
//! A [`Router`] is a [`tower::Service`] of [`Delivery`]; so is whatever else is given to a consumer, and every `tower` layer
//! fits around it. A handler that panics costs its record a dead letter and nothing else, and so
//! does a panic in the classifier, in an error's `Display`, `source` or drop, in an extractor, in a layer, or in the drop or
//! the `Clone` of a handler. Where the class of an error is known, a panic in its `Display` changes nothing about it: the record
//! is retried as its class says.

mod batch;
mod classify;
mod context;
mod deadline;
mod error;
mod extract;
mod http;
mod outcome;
pub(crate) mod panics;
mod published_ids;
mod recognition;
mod router;

pub use batch::{BatchOutcome, BatchSettings, Delivered, IntoBatchOutcome};
#[cfg(feature = "postgres")]
pub(crate) use classify::causes;
pub(crate) use classify::default_classifier;
pub use context::{Context, Delivery, Scope};
pub(crate) use deadline::Limited;
pub(crate) use error::Failure;
pub use error::{Class, Classifier, HandlerError};
pub use extract::{BatchArgument, BatchFunction, FromContext, Function, Needs, RawFunction, State};
pub use http::HttpStatus;
pub use outcome::{DeadReason, IntoOutcome, Outcome, Stage};
pub use published_ids::PublishedIds;
pub use recognition::ReusedIds;
pub use router::Router;
pub(crate) use router::routes::{FALLBACK_HANDLER, RAW_HANDLER};
