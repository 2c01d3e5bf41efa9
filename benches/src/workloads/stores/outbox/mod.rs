//! The outbox of a service: publishing its rows, and writing them.
//!
//! - [`relay`]: a relay publishes a full outbox, beside a loop written by hand (`hand_written`)
//! - [`publish`]: clients publish while commits are slow; `delays` measures the relay meanwhile
//! - `events`: the events of both, and the check of the topic

mod delays;
mod events;
pub(in crate::workloads) mod hand_written;
pub(in crate::workloads) mod publish;
pub(in crate::workloads) mod relay;
