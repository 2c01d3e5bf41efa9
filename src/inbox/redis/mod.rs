//! An inbox in Redis: claims are leases, shared by instances on any number of machines.
//!
//! Owns how a claim is made and waited for. It hands out no transaction: an effect is made
//! elsewhere, beside the claim.
//!
//! # Leases
//! A claim is a key with a token and a time to live (`SET … PX`). The owner renews it while its
//! handler runs. Every change compares the token in a script, which Redis runs atomically; an owner
//! that lost its lease can therefore change nothing. The clock of Redis alone decides when a lease
//! ends.
//!
//! # Requests without an answer
//! A request may have been executed although its answer did not arrive. A claim whose answer is
//! missing is released in the background, so that no delivery waits for a whole lease because of a
//! lost packet.
//!
//! # Files
//! `inbox.rs` claims and waits, `claim.rs` renews and ends a claim, `scripts.rs` holds the data and
//! its transitions, `connection.rs` sends requests, and `error.rs` maps errors to remedies.

mod claim;
mod connection;
mod error;
mod inbox;
mod scripts;
mod settings;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

pub use inbox::RedisInbox;
pub use settings::RedisSettings;
