//! Admission: which requests that post are served, and when the others come back.
//!
//! A gateway stays responsive under overload because it serves only as many requests at a time as
//! its store can finish at a normal latency, and refuses the rest. A body is read before that is
//! decided, so that a slow upload holds no place of the store's; uploads have a bound of their own,
//! of which each caller has a share (`uploads.rs`).
//! Requests that only read are never refused here.
//!
//! | check, in this order | refused with | file |
//! |---|---|---|
//! | the caller keeps its rate | 429 | `rate_limit.rs` |
//! | the body finds room, is small, and arrives in time | 503, 429, 413, 408 | `middleware.rs` |
//! | the caller's deadline has not passed | 504 | `decision/` |
//! | the store's backlog is within its bounds | 503 | `queue_limit.rs` |
//! | the deadline leaves enough time | 503 or 504 | `decision/` |
//! | the concurrency limit has room | 503 | `concurrency_limit/` |
//!
//! A 503 carries a `Retry-After` from a ledger of booked places (`retry_after.rs`), so that callers
//! that obey it come spread over time and find room. A request that returns with the same
//! `Idempotency-Key` or `ce-id` goes before new ones.
//!
//! [`admit`] is the middleware; [`Admission::try_admit`] is its decision for other protocols. The
//! checks are pure: the clock and random numbers are arguments.
//!
//! Memory: at most 10,000 token buckets by default, 20,000 booked places, about 15 KB of counters,
//! and 256 bodies of at most 1 MiB that arrive.

mod concurrency_limit;
mod controller;
mod decision;
mod middleware;
mod queue_limit;
mod rate_limit;
mod refusal;
mod retry_after;
mod settings;
mod telemetry;
mod uploads;

pub use controller::{Admission, Outcome, Permit};
pub use middleware::admit;
pub(crate) use middleware::{Admitted, AdmittedRequest, outcome_of, timed_out_response};
pub use settings::AdmissionSettings;
