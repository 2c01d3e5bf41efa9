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
//!
//! Without a transaction (Redis, memory) a handler's effect is repeated after a crash between the
//! effect and its completion. With one, the store decides by a unique key and no clock, so neither
//! a crash nor a second owner repeats the effect. Work of a handler outside of the store, such as a
//! mail or an HTTP call, happens at least once with every store.
//!
//! # Life of a delivery
//!
//! 1. The router asks the store for a claim of the [`InboxKey`]. A completed delivery is a
//!    [`Claimed::Duplicate`]: its handler is not called.
//! 2. The handler runs with the transaction of the [`Claim`], if it names one.
//! 3. [`Claim::complete`] commits the effect, the inbox row and the published events together.
//!    [`Claim::fail`] or [`Claim::abandon`] undoes the effect.
//! 4. The consumer publishes the events that the store left to it and reports them by
//!    [`Inbox::sent`]. Only then is the offset settled.
//!
//! # Stores of your own
//!
//! Implement [`Inbox`] and [`Claim`], and [`BatchInbox`] if one transaction can hold several
//! deliveries. `inbox::conformance` (feature `testing`) checks the contract. [`Completions`] makes
//! a store readable for the audit.
//!
//! # Files
//!
//! `claim.rs` and `key.rs` hold the traits and the identity; `completions` reads completed
//! deliveries. `memory.rs`, `sqlite`, `postgres` and `redis` are the stores. `group_commit` shares
//! a transaction between deliveries for SQLite and PostgreSQL, and `shared` holds the parts that
//! several stores use. A store imports from `group_commit` and `shared`, never from another store.
//! This file lists the stores of a build.

mod claim;
pub mod completions;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "transactions of SQLite never collide")
)]
mod group_commit;
mod key;
mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg_attr(
    not(all(feature = "postgres", feature = "redis", feature = "sqlite")),
    allow(dead_code, reason = "no store uses all of it")
)]
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;

pub(crate) use claim::CLAIMS_MAX;
pub use claim::{BatchClaim, BatchInbox, BoxFuture, Claim, Claimed, ClaimedBatch, Inbox};
pub use completions::{Completion, Completions};
pub use error::InboxError;
pub use key::InboxKey;
pub use memory::MemoryInbox;
#[cfg(feature = "postgres")]
pub use postgres::{InboxVersions, PostgresInbox, PostgresSettings, PostgresTx};
#[cfg(feature = "redis")]
pub use redis::{RedisInbox, RedisSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, SqliteCompletions, SqliteInbox, SqliteSettings, SqliteTx};

/// How the stores of this build are opened by an address, for reading.
const READERS: &[completions::completion::Opener] = &[
    #[cfg(feature = "postgres")]
    postgres::open_for_reading,
    #[cfg(feature = "sqlite")]
    sqlite::open_for_reading,
];
