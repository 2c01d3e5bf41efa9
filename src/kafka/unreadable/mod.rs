//! Batches that cannot be read: their detection and their extent.

mod batch;
mod extent;

pub use batch::UnreadableBatch;
pub(crate) use batch::is_unreadable;
pub(crate) use extent::silent_extent;
