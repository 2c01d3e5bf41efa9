//! The inbox: an event's inbox row and its effect commit together, so a redelivery has no effect.
//!
//! An [`Inbox`] knows the deliveries that a group's handlers have completed. Give one to
//! [`Router::with_inbox`](crate::handler::Router::with_inbox). Without one every redelivery runs
//! the handler again.
//!
//! | store | effect and row | shared by | feature |
//! |---|---|---|---|
//! | `SqliteInbox` | one transaction | the processes of one machine | `sqlite` |
//! | `PostgresInbox` | one transaction | instances on any machine | `postgres` |
//! | `RedisInbox` | separate: effects are at least once | instances on any machine | `redis` |
//! | [`MemoryInbox`] | separate: effects are at least once | its clones, in one process | |

mod claim;
pub mod completions;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod group_commit;
mod key;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;

pub(crate) use claim::CLAIMS_MAX;
pub use claim::{BatchClaim, BatchInbox, BoxFuture, Claim, Claimed, ClaimedBatch, Inbox};
pub use completions::{Completion, Completions};
pub use error::InboxError;
pub use key::InboxKey;
pub use memory::MemoryInbox;
#[cfg(all(test, feature = "postgres"))]
pub(crate) use postgres::tests as postgres_tests;
#[cfg(feature = "postgres")]
pub use postgres::{InboxVersions, PostgresInbox, PostgresSettings, PostgresTx};
#[cfg(feature = "redis")]
pub use redis::{RedisInbox, RedisSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, SqliteCompletions, SqliteInbox, SqliteSettings, SqliteTx};
