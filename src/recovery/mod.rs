//! What happens to a record that fails: in-place retries, dead letters and their way back; and to all records while
//! something that their handlers depend on is down.

mod breaker;
pub(crate) mod dead_letter;
mod flood_guard;
mod letter;
mod mark;
pub(crate) mod parked;
pub(crate) mod parking;
mod pattern;
mod policy;
mod position;
mod reference;
mod replay;
mod window;

pub use breaker::BreakerPolicy;
pub(crate) use breaker::{Breaker, Change, ProbeId};
pub use dead_letter::DeadLetterTopic;
pub(crate) use dead_letter::record_timestamp_ms;
pub use flood_guard::FloodGuardPolicy;
pub(crate) use flood_guard::{Flood, FloodGuard};
pub use letter::{DeadLetter, Family};
pub use mark::{Ends, Mark, Replayed, Replays, Run, replay_topic};
pub use parked::repetition::{
    Drill, RepetitionOutcome, repetition, repetition_answer, repetition_of,
};
pub use parked::{Entry, Owner, Wait, Why, retry_topic};
pub use pattern::message_pattern;
pub use policy::{Backoff, Decision, RetryPolicy};
pub use position::Position;
pub use reference::{NotTheOriginal, restored};
pub(crate) use replay::is_edited;
pub use replay::{Destination, Provenance, is_failure_header, replay_of, replayed};
pub(crate) use window::Window;
