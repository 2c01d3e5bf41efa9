//! Shared by the stores: key digests, error texts, stored replies, the purge watermark.
//!
//! None of them knows a store; each store passes its own statements and values in.
//!
//! - `digest.rs`: a delivery's identity in a fixed length, stable across releases
//! - `error.rs`: a driver's error with a remedy, as an inbox error
//! - `replies.rs`: a delivery's published events as JSON
//! - `sent_replies.rs`: deletes replies after the brokers acknowledged them
//! - `purge_watermark.rs`: the time up to which deliveries are forgotten

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(super) mod digest;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(super) mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) mod purge_watermark;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(super) mod replies;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(super) mod sent_replies;
