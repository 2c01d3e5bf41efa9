//! Shared by the stores: key digests, error texts, published events, the purge watermark.
//!
//! None of them knows a store; each store passes its own statements and values in. No store uses
//! all of them, so a build without some stores leaves a few unused.
//!
//! - `digest.rs`: a delivery's identity in a fixed length, stable across releases
//! - `error.rs`: a driver's error with a remedy, as an inbox error
//! - `replies.rs`: a delivery's published events as JSON
//! - `sent_replies.rs`: deletes replies after the brokers acknowledged them
//! - `staged_events.rs`: what a transaction published, until its end
//! - `purge_watermark.rs`: the time up to which deliveries are forgotten

pub(super) mod digest;
pub(super) mod error;
pub(super) mod purge_watermark;
pub(super) mod replies;
pub(super) mod sent_replies;
pub(super) mod staged_events;
