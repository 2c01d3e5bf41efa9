//! The choices of the settings: one enum each, with its default.

use std::time::Duration;

/// Which records are handled one after the other, in the order of their offsets.
///
/// The choice decides what a failed record holds back while it is retried in place, and what is
/// parked behind it afterwards.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, KeylessOrdering, RecordOrdering};
///
/// let by_key = ConsumerSettings::new("billing", ["shop.orders"])
///     .with_keyless_ordering(KeylessOrdering::Partition);
/// assert_eq!(by_key.ordering, RecordOrdering::Key);
///
/// // A change log without keys whose lines build on each other.
/// let by_partition = ConsumerSettings::new("replica", ["db.changes"])
///     .with_ordering(RecordOrdering::Partition);
/// # drop((by_key, by_partition));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordOrdering {
    /// Records of one key of a topic. The default. A failed record holds back its key only, also
    /// while it is parked. The same key in two topics has two orders.
    #[default]
    Key,
    /// All records of one partition. A failed record then holds back its whole partition.
    Partition,
    /// None. Every record is handled on its own.
    Unordered,
}

/// How records without a key are ordered under [`RecordOrdering::Key`]. An empty key is a key.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, KeylessOrdering};
///
/// // Producers that spread keyless lines over partitions, in the order of each partition.
/// let lines = ConsumerSettings::new("indexer", ["app.log"])
///     .with_keyless_ordering(KeylessOrdering::Partition);
/// # drop(lines);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeylessOrdering {
    /// Not at all: each is handled on its own. The default.
    #[default]
    Unordered,
    /// Like records of one key, in each partition.
    Partition,
}

/// Whether the consumer reads the headers of records.
///
/// A record that was read without headers and fails is read again with them, by a client of its
/// own, before it is parked or dead-lettered: no header is lost. That read is repeated until the
/// brokers answer.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, RecordHeaders};
///
/// // For a raw handler that copies values to a disk.
/// let settings = ConsumerSettings::new("archive", ["shop.orders"])
///     .with_headers(RecordHeaders::Skip);
/// assert_eq!(settings.headers, RecordHeaders::Skip);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordHeaders {
    /// With headers. CloudEvents in binary mode need them. The default.
    #[default]
    Read,
    /// Without headers: for raw handlers that need none. Saves a little time per record.
    Skip,
}

/// How partitions are assigned to the members of the group. All members need the same choice.
///
/// | variant | who assigns | a rebalance revokes | needs |
/// |---|---|---|---|
/// | `CooperativeSticky` | a member | the partitions that move | |
/// | `Range`, `RoundRobin` | a member | all partitions | |
/// | `Broker` | the group's coordinator | the partitions that move | brokers from 4.0 |
///
/// ```
/// use evenkeel::consumer::{Assignment, ConsumerSettings};
///
/// // Orders and payments of one key meet in one member: equal keys, equal numbers of partitions.
/// let joined = ConsumerSettings::new("joiner", ["shop.orders", "shop.payments"])
///     .with_assignment(Assignment::Range);
/// assert_eq!(joined.assignment, Assignment::Range);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignment {
    /// `cooperative-sticky`: a rebalance revokes only the partitions that move. The default.
    #[default]
    CooperativeSticky,
    /// `range`: one range per topic, so that equal partitions of several topics meet in one member.
    /// A rebalance revokes all partitions of every member first.
    Range,
    /// `roundrobin`: all partitions of all topics, one by one over the members. A rebalance revokes
    /// all partitions of every member first.
    RoundRobin,
    /// The brokers assign (KIP-848, `group.protocol=consumer`, brokers from 4.0). The client's
    /// `session.timeout.ms` and `heartbeat.interval.ms` do not apply: the brokers have them. The
    /// client property `group.protocol=consumer` selects this variant as well.
    Broker,
}

/// How a key continues after one of its records was dead-lettered.
///
/// Skips by an operator never hold a key.
///
/// ```
/// use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
///
/// // A balance must not be booked after one that failed.
/// let ledger = ConsumerSettings::new("ledger", ["shop.payments"])
///     .with_after_dead_letter(AfterDeadLetter::HoldKey);
/// # drop(ledger);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterDeadLetter {
    /// Its later records are handled. The default.
    #[default]
    ContinueKey,
    /// Its later records are parked until the dead letter is replayed to the group's retry topic or
    /// an operator releases the key. Needs a retry topic and a record with an ordering key:
    /// otherwise the later records are handled.
    HoldKey,
}

/// When a run ends by itself. Bounded runs serve backfills, cron jobs and CI.
///
/// A bounded run drains and commits like a stop that was requested, and then returns
/// [`Stopped::BoundReached`](crate::consumer::Stopped::BoundReached). A partition that cannot be
/// read until an operator acts ends it with
/// [`ConsumerError::Unreadable`](crate::consumer::ConsumerError::Unreadable).
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, StopWhen};
/// use std::time::Duration;
///
/// let nightly = ConsumerSettings::new("report", ["shop.orders"])
///     .with_stop_when(StopWhen::UntilEnd);
/// let sample = ConsumerSettings::new("sample", ["shop.orders"])
///     .with_stop_when(StopWhen::Records(100));
/// let test = ConsumerSettings::new("test", ["shop.orders"])
///     .with_stop_when(StopWhen::Idle(Duration::from_secs(5)));
/// # drop((nightly, sample, test));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StopWhen {
    /// Never. The default.
    #[default]
    Endless,
    /// When every record up to the end offsets at the assignment is settled, and every record that
    /// was parked and due by then. The ends are looked up once per assignment. If they stay unknown
    /// for 60 s, the run fails.
    UntilEnd,
    /// When this many records are settled. No more are taken. Records that were released unsettled
    /// by a rebalance do not count: their next owner has them.
    Records(u64),
    /// When no record arrived for this long and all received ones are settled. Times in which no
    /// record can arrive do not count: an open breaker, a pause or rate limit by an operator, a log
    /// reset.
    Idle(Duration),
}
