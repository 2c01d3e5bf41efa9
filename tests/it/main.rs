//! Integration tests of the library, in one binary: a folder per capability, whose `mod.rs` lists
//! its modules, and a module per promise.
//!
//! Tests that need Apache Kafka share one broker (`evenkeel::testing::real_kafka`). Where there is
//! none they skip, and log the reason.

/// Clients: records of other clients, compression codecs, and tokens.
mod clients;
/// Live control: pause, skip, retry now and rate take effect within a second, exactly, and are
/// acknowledged.
mod control;
/// G1, G2, G4: every record reaches a handler, in the order of its key and in bounded memory.
mod delivery;
/// G3: one effect for each event, on every store.
mod effects;
/// What a log may contain or lose: batch limits, transaction markers, lost and unreadable parts.
mod logs;
/// G5, G6, G7: the place in the group, from the first assignment to a stop or a revoke.
mod membership;
/// G9: outages, faults and parts that hang cost time, and nothing else.
mod outages;
/// G10 and the outbox: publishing, the meaning of receipts, and traces.
mod publish;
/// G8 and parking: records that fail, and the group's own topics that hold them.
mod recovery;
/// Helpers: topics and groups for one test, members in this process or another, damaged brokers.
mod support;
/// The test kit and `evenkeel dev`.
mod testing;
