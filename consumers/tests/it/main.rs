//! Integration tests of the shop's daemons.
//!
//! - `interleavings`: the whole shop's decisions, with the topics' events in random orders

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod interleavings;
