//! Shared by the stores: key digests, error texts, stored replies, the purge watermark.

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
