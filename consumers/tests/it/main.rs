//! Integration tests of the shop's daemons.
//!
//! - `cache`: the orderboard's instances share their answers in Redis, and none needs it
//! - `command_line`: exit codes and messages of the binaries, and what `orderboard` shows
//! - `daemons`: the whole shop as processes on a cluster
//! - `interleavings`: the whole shop's decisions, with the topics' events in random orders
//! - `process`: a daemon as a child process
//! - `provider`: `payments` asks a payment provider, however that behaves
//! - `purge`: a daemon forgets what its inbox need not remember any more

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod command_line;
mod daemons;
mod interleavings;
mod process;
mod provider;
mod purge;
