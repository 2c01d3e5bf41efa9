//! The shop's consumer daemons: one service, one file, one group, one store.
//!
//! A service is a [`Service`](daemon::Service): its name (which is its consumer group), its tables,
//! and a router of async functions. Its decisions are functions over a SQLite connection,
//! independent of Kafka, so that tests can run every order of events.
//!
//! Topics are independent: events of one order on different topics reach a service in any order.
//! Every service here handles every interleaving; its file describes how.
//!
//! - [`payments`]: authorizes or declines the payment of each order.
//! - [`provider`]: a fake payment provider, which `payments` may query.
//! - [`inventory`]: keeps stock, reserves it for orders and releases it again.
//! - [`shipping`]: dispatches an order once it is paid and its stock is reserved.
//! - [`notifications`]: one message to the customer per event.
//! - [`orderboard`]: the state of each order.
//! - [`effect_journal`]: the `effects` table of every store, which audits read.
//! - [`daemon`]: runs a service, from its flags and its configuration file. Exit codes and
//!   durations are shared by all programs: `evenkeel_program`.

pub mod daemon;
pub mod effect_journal;
pub mod inventory;
pub mod notifications;
pub mod orderboard;
pub mod payments;
pub mod provider;
pub mod shipping;
#[cfg(test)]
mod testing;
