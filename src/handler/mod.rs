//! Handlers: async functions of an event and a context, a router by event type, outcomes and
//! errors.
//!
//! Owns the processing of one delivery: read the record, check its payload, claim it in the inbox,
//! call the function, commit, publish. Knows no client, no lane and no offset: the consumer decides
//! when a delivery is retried and when its record is settled.
//!
//! A handler takes an [`Event`](crate::event::Event) or a raw [`Record`](crate::event::Record), and
//! up to three more arguments: [`Context`], [`State`], or the transaction of the inbox. It returns
//! `()`, an [`Outcome`], or a `Result` of either. The [`Class`] of an error decides how the record
//! continues, never its text:
//!
//! | class | consequence |
//! |---|---|
//! | transient | retried in place with growing, jittered waits, then parked; at last dead-lettered |
//! | permanent | dead-lettered at once |
//! | outage | retried until it ends; no attempt is counted |
//! | timeout | an outage if most attempts that need the same dependency time out, else transient |
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
//! A batch handler takes several events of one type, with one transaction for all and an outcome
//! for each ([`Router::on_batch`]), so that one statement can write many rows.
//!
//! A [`Router`] is a [`tower::Service`] of [`Delivery`]; a consumer accepts any such service. A
//! `tower` layer can wrap it if the layer's service is [`Clone`], as those of `timeout`,
//! `concurrency_limit`, `load_shed` or `map_request` are; `rate_limit` is not, and needs a `buffer`
//! around it. A delivery that waits in a layer holds one of the consumer's permits (`concurrency`)
//! meanwhile, and `handler_timeout` runs: a layer that limits one tenant takes permits from the
//! others. There is no admission by key before the permit. Raise `concurrency` for such a layer, or
//! return [`HandlerError::transient`] with [`retry_after`](HandlerError::retry_after), which waits
//! without a permit.
//!
//! A panic in a handler dead-letters its record and has no other effect. The same holds for a panic
//! in the classifier, in an error's `Display`, `source` or drop, in an extractor, in a layer, or in
//! the drop or the `Clone` of a handler. If the class of an error is known, a panic in its
//! `Display` does not change it: the record is retried by its class.
//!
//! Inside, from the outermost caller to the innermost: `deadline` limits an attempt; `router` reads
//! the record, selects the handler and drives claim, call, commit and publish; `batch` does the
//! same for several deliveries at once; `extract` takes the arguments from the `context`; `outcome`
//! and `error` are the results; `dedup` reports what the inbox recognised. `stores` lists the stores
//! whose transactions are arguments and whose errors have a class.

mod batch;
mod context;
mod deadline;
mod dedup;
mod error;
mod extract;
mod outcome;
mod published_ids;
mod router;
mod stores;

pub use crate::failure::{Class, DeadReason, Stage};
pub use batch::{BatchOutcome, BatchSettings, Delivered, IntoBatchOutcome};
pub use context::{Context, Delivery, DeliveryScope};
pub(crate) use deadline::Limited;
pub use dedup::ReusedIds;
pub(crate) use error::Failure;
pub use error::{Classifier, HandlerError, HttpStatus, default_classifier};
pub use extract::{BatchArgument, BatchFunction, FromContext, Function, Needs, RawFunction, State};
pub use outcome::{IntoOutcome, Outcome};
pub use published_ids::PublishedIds;
pub use router::Router;
pub use router::table::{FALLBACK_HANDLER, RAW_HANDLER};
