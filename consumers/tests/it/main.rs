//! Integration tests of the shop's daemons.
//!
//! - `batches`: events in batches have one effect each
//! - `cache`: the orderboard's instances share their answers in Redis, and none depends on it
//! - `command_line`: exit codes and messages of the binaries, and the output of `orderboard`
//! - `daemons`: the whole shop as processes on a cluster
//! - `interleavings`: all decisions of the shop, with the topics' events in random orders
//! - `node`: a service in Node.js, with KafkaJS, and the shop read each other's events
//! - `process`: a daemon as a child process
//! - `provider`: `payments` queries a payment provider with each behaviour
//! - `purge`: a daemon deletes old inbox rows

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod cache;
mod command_line;
mod daemons;
mod interleavings;
mod node;
mod process;
mod provider;
mod purge;
