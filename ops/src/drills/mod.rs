//! Drills: faults injected into a running group, and a verdict on its handlers.
//!
//! - `duplicates`: delivers every event twice; `selection`: the events; `delivery`: publishing and
//!   answers; `tally`, `verdict`: the result

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
pub use tally::{Judgement, Tally};
pub use verdict::{TypeRow, Verdict};
