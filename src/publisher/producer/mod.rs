//! librdkafka's producers: the batching ones, the one for single records, and their reports.

mod client;
mod partitioner;
mod reports;
mod single_sender;

pub(super) use client::Client;
pub use partitioner::PartitionOf;
