//! Handlers: async functions of an event and a context, a router by event type, outcomes and errors.

mod context;
mod error;
mod extract;
pub mod layers;
mod outcome;
mod router;

pub use context::{Context, Delivery, Scope};
pub(crate) use error::default_classifier;
pub use error::{Class, Classifier, HandlerError};
pub use extract::{FromContext, Function, Needs, RawFunction, State};
pub use outcome::{DeadReason, IntoOutcome, Outcome, Stage};
pub use router::Router;
