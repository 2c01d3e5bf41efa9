//! librdkafka's producers: the batching ones, the one for single records, and their reports.
//!
//! A publisher has one producer for topics with the usual limits. Others are created when they are
//! needed: one for each smaller batch size that a topic requires, and one that sends each record in
//! a batch of its own. A topic's route moves from one producer to another only when none of its
//! records is in flight, so the order of a key does not depend on several producers.
//!
//! | file | content |
//! |---|---|
//! | `client.rs` | which producer sends a record |
//! | `single_sender.rs` | the producer for single records |
//! | `polled_producer.rs` | a producer with the thread that serves its reports |
//! | `reports.rs` | delivery reports, on those threads |
//! | `partitioner.rs` | the service's own function from key to partition |

mod client;
mod partitioner;
mod polled_producer;
mod reports;
mod single_sender;

pub(super) use client::Client;
pub use partitioner::PartitionOf;
