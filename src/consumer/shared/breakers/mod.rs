//! The circuit breakers of a running consumer: one for each dependency that has been down.
//!
//! They decide which record may probe a dependency that is down, and report the outage: workers
//! start no handler, intake takes no record, the health and a metric name the dependency and the
//! reason. The decision to open or close is made by [`Breaker`](crate::recovery::Breaker).

mod by_dependency;
mod probe;
mod record_kinds;

pub(crate) use by_dependency::{Affected, Breakers, Evidence, INBOX};
pub(crate) use probe::{Answer, Probe};
