//! Drills: faults injected into a running group, and a verdict on its handlers.
//!
//! - `duplicates`: delivers every event twice; `selection`: the events; `delivery`: publishing and
//!   answers; `tally`, `verdict`: the result
//!
//! A drill has real effects: handlers that are not idempotent repeat theirs, and repetitions that
//! fail become dead letters. Not for production.
//!
//! ```no_run
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::drills::{DrillError, DrillResult, DrillSettings, Duplicates, Limits};
//! use evenkeel_ops::{Cluster, SilentObserver};
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), DrillError> {
//! let settings = DrillSettings::new("payments");
//! let stop = CancellationToken::new();
//! let observer = Arc::new(SilentObserver);
//! let plan = Duplicates::plan(&cluster, &admin, &settings, &[], true, &stop, observer);
//! let drill = plan.await?;
//! let (by, limits) = ("jane".to_owned(), Limits::default());
//! let outcome = drill.execute(by, limits, &stop, &SilentObserver).await?;
//! let (result, text) = outcome.tally.result("payments");
//! if result != DrillResult::Idempotent {
//!     println!("{text}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! Events that the group has settled are written into the group's own retry topics, with their ids,
//! as repetitions. Members handle them like parked records and write into the same topic how each
//! was settled. So the group itself reports whether it recognised an event, whatever its store,
//! and no other group receives anything.

mod delivery;
mod duplicates;
mod error;
mod selection;
mod tally;
mod verdict;

pub use delivery::Limits;
pub use duplicates::{DrillOutcome, Duplicates};
pub use error::DrillError;
pub use selection::DrillSettings;
pub use tally::{DrillResult, Tally};
pub use verdict::{TypeRow, Verdict};
