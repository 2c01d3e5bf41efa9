//! A member of a consumer group: it receives records, runs their handlers and commits their offsets.
//!
//! Start with [`Consumer`] and [`ConsumerSettings`]. The consumer owns a member of a group from its first poll to its last
//! commit. It knows nothing about what a handler does: a record goes to it as a [`Delivery`](crate::handler::Delivery), and an
//! [`Outcome`](crate::handler::Outcome) comes back.
//!
//! # The way of a record
//!
//! | stage | what happens | where |
//! |---|---|---|
//! | poll | One thread owns the client. It serves rebalances and errors at all times and takes records only while there is room. Only the bounded drain of a revoke makes it wait for handlers. | `poll/` |
//! | admit | Records and bytes in flight are limited, whatever the backlog. | `poll/intake/`, `state/admission` |
//! | lane | A record waits behind the unsettled ones of its key, or of its partition ([`RecordOrdering`]). The hash of the key picks the worker, so ordering needs no lock. | `state/lanes`, `worker/` |
//! | handle | At most [`ConsumerSettings::concurrency`] handlers run at a time. A failed record is retried in its lane; the other lanes continue. | `worker/`, `worker/retry` |
//! | park | A record that keeps failing is written to the retry topic and is handled again when it is due. Later records of its key wait behind it. | `worker/park`, `retry_reader/` |
//! | settle | The record's bit in the offset tracker is set, under the epoch of the assignment. A result that arrives after the partition was revoked is ignored. | `state/offset_tracker` |
//! | commit | One thread commits the first unsettled offset of each partition: at an interval, on a revoke, at the stop. Offsets settled above it travel in the commit's metadata, so that a restart does not repeat them. | `commit/`, `state/commit_metadata` |
//!
//! # Who runs what
//!
//! - `state/`: what is known and decided, without a client, a task or a clock
//! - `shared/`: what the threads and tasks share: mailboxes, concurrency, breakers, dead letters, readiness
//! - `poll/`: the poll thread, with rebalances, pauses, reset logs and the commands of operators
//! - `worker/`: the tasks that drive handlers
//! - `commit/`: the committing thread and the watchdog
//! - `retry_reader/`: the threads that read the retry topics and hand out due records
//! - `group_topics/`: the topics that a group has for itself, how they must be configured, and how they are created
//!
//! A running group is controlled through its topic `control.<group>` ([`crate::control`]); `poll/operator/` reads it and
//! compares the state that operators want with the state that is.

mod commit;
mod group_topics;
mod member;
mod poll;
mod report;
mod retry_reader;
mod settings;
mod shared;
mod startup;
mod state;
mod worker;

pub use group_topics::{GroupTopic, GroupTopicKind, GroupTopicState, GroupTopics, TopicFault};
pub use member::Consumer;
pub use report::{ConsumerError, RunReport, Stopped};
pub use retry_reader::inspect::{ParkedKey, parked_keys, parked_records};
pub use settings::{
    AfterDeadLetter, Assignment, ConsumerSettings, KeylessOrdering, RecordHeaders, RecordOrdering,
    StopWhen,
};
