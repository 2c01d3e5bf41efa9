//! The shop's consumer daemons: one service, one file, one group, one store.
//!
//! A service is a [`Service`](daemon::Service): its name (which is its consumer group), its tables, and a router of async
//! functions. What it decides stands in functions over a SQLite connection that know no Kafka, so that tests can put every
//! order of events to them.
//!
//! Topics are independent of each other: the events of one order that travel on different topics reach a service in any
//! order. Every service here copes with every interleaving, and says in its file how.
//!
//! - [`payments`]: authorizes or declines the payment of each order.
//! - [`provider`]: whom `payments` may ask, or rather who stands in for it.
//! - [`inventory`]: keeps stock, reserves it for orders and releases it again.
//! - [`shipping`]: dispatches an order once it is paid and its stock is reserved.
//! - [`notifications`]: one message to the customer per event.
//! - [`orderboard`]: what state each order is in.
//! - [`journal`]: the `effects` table that every store has, from which an audit counts.
//! - [`daemon`]: runs a service; [`options`] its flags, [`file`](mod@file) its configuration file, [`exit`] its exit codes,
//!   [`purge`] what keeps its inbox from growing.

pub mod daemon;
pub mod exit;
pub mod file;
pub mod inventory;
pub mod journal;
pub mod notifications;
pub mod options;
pub mod orderboard;
pub mod payments;
pub mod provider;
pub mod purge;
pub mod shipping;
#[cfg(test)]
mod testing;
