//! What every route shares: problems (RFC 9457), and the context of a request.
//!
//! Knows neither Kafka nor a store.

mod context;
mod problem;

pub use context::{RequestContext, TRACE_ID_HEADER, WORKER_HEADER, add_context};
pub use problem::{FieldError, Problem, ProblemKind};
