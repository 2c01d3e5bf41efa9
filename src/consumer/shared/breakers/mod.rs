//! The circuit breakers of a running consumer: one for each dependency that has been down.
//!
//! They decide which record may probe a dependency that is down, and report the outage: workers
//! start no handler, intake takes no record, the health and a metric name the dependency and the
//! reason. The decision to open or close is made by [`Breaker`](crate::recovery::Breaker).
//!
//! # From a failure to an open breaker
//!
//! 1. An attempt fails with class outage or timeout. The retry reports it with its dependency
//!    ([`Breakers::count_outage`]); only the first failure of a record by a dependency counts.
//! 2. The breaker compares the failures in its window with other attempts at the same kinds of
//!    records (topic and event type). Kinds that never failed by the dependency probably do not use
//!    it, and would hide the outage.
//! 3. When it opens, no handler starts in this member, whatever its dependency, intake takes no
//!    record, and the health names the dependency.
//! 4. Waiting records of the dependency take turns as probes. The first that is handled closes the
//!    breaker. Meanwhile trials, single records that have not failed, find out whether records that
//!    use the dependency succeed although the probes fail.
//! 5. If no record waits for it any more (revoked, skipped), it closes after a time, and the next
//!    record tests the dependency.

mod by_dependency;
mod probe;
mod record_kinds;
mod telemetry;

pub(crate) use by_dependency::{BreakerTargets, Breakers, Evidence, INBOX};
pub(crate) use probe::{Probe, ProbeAnswer};
