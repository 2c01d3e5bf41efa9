//! Batches that cannot be read: their detection and their extent.
//!
//! Brokers store batches without reading them, so a damaged batch, or one compressed by a codec
//! that the client lacks, is found by consumers only. The client returns an error in place of its
//! records, and then tries the same offset again for ever. `batch.rs` recognises these errors.
//! `extent.rs` finds the offset after the batch, so that a consumer can continue there.

mod batch;
mod extent;

pub use batch::UnreadableBatch;
pub(crate) use batch::is_unreadable;
pub(crate) use extent::silent_extent;
