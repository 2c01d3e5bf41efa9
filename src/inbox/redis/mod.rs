//! An inbox in Redis: claims are leases, shared by instances on any number of machines.
//!
//! Owns how a claim is made and waited for. It hands out no transaction: an effect is made
//! elsewhere, beside the claim.

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
