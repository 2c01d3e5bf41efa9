//! What every route shares: problems (RFC 9457), the context of a request, and percent-encoding.
//!
//! Knows neither Kafka nor a store.

mod context;
mod percent;
mod problem;

pub(crate) use context::{AnswerHeaders, Worker, caller_trace};
pub use context::{RequestContext, TRACE_ID_HEADER, WORKER_HEADER, add_context};
pub(crate) use percent::{is_utf8_query, percent_decoded, percent_encoded, push_percent_encoded};
pub use problem::{FieldError, Problem, ProblemKind};
