//! The name, kind, unit and labels of all metrics, in one enum.
//!
//! Owns the names under which evenkeel reports through the `metrics` facade. Knows no exporter: the
//! program that installs a recorder decides where the numbers go. No label contains a key, an event
//! id or the text of an error, so that the number of series is bounded by topics, partitions,
//! groups and handlers.
//!
//! | metric | name | kind | labels | OpenTelemetry's name for it |
//! |---|---|---|---|---|
//! | [`Metric::Received`] | `evenkeel_records_received_total` | counter | group, topic | `messaging.client.consumed.messages` |
//! | [`Metric::Settled`] | `evenkeel_records_settled_total` | counter | group, topic, outcome | – |
//! | [`Metric::InFlight`] | `evenkeel_records_in_flight` | gauge | group | – |
//! | [`Metric::InFlightBytes`] | `evenkeel_in_flight_bytes` | gauge | group | – |
//! | [`Metric::Lag`] | `kafka_consumergroup_lag` | gauge | consumergroup, topic, partition | – |
//! | [`Metric::OldestUnsettledSeconds`] | `evenkeel_oldest_unsettled_seconds` | gauge | group, topic, partition | – |
//! | [`Metric::HandlerSeconds`] | `evenkeel_handler_duration_seconds` | histogram | group | `messaging.process.duration` |
//! | [`Metric::Commits`] | `evenkeel_commits_total` | counter | group, result | – |
//! | [`Metric::CommitsCut`] | `evenkeel_commits_cut_total` | counter | group, topic | – |
//! | [`Metric::PositionsLost`] | `evenkeel_positions_lost_total` | counter | group, topic, reason | – |
//! | [`Metric::Rebalances`] | `evenkeel_rebalances_total` | counter | group, kind | – |
//! | [`Metric::Duplicates`] | `evenkeel_duplicates_suppressed_total` | counter | group, handler | – |
//! | [`Metric::ReusedIds`] | `evenkeel_ids_reused_total` | counter | group, handler | – |
//! | [`Metric::PossibleDuplicates`] | `evenkeel_duplicates_possible_total` | counter | group, handler | – |
//! | [`Metric::Collisions`] | `evenkeel_inbox_collisions_total` | counter | group, cause | – |
//! | [`Metric::Failures`] | `evenkeel_handler_failures_total` | counter | group, class | – |
//! | [`Metric::BreakerOpen`] | `evenkeel_breaker_open` | gauge | group, dependency | – |
//! | [`Metric::PausedPartitions`] | `evenkeel_paused_partitions` | gauge | group | – |
//! | [`Metric::ParkedKeys`] | `evenkeel_parked_keys` | gauge | group, topic, partition | – |
//! | [`Metric::ParkedRecords`] | `evenkeel_parked_records` | gauge | group, topic, partition | – |
//! | [`Metric::ParkedLost`] | `evenkeel_parked_lost` | gauge | group, topic, partition | – |
//! | [`Metric::OwnTopicFaults`] | `evenkeel_own_topic_faults` | gauge | group, topic | – |
//! | [`Metric::DeadLetters`] | `evenkeel_dead_letters_total` | counter | group, topic, stage | – |
//! | [`Metric::DeadLettersWaiting`] | `evenkeel_dead_letters_waiting` | gauge | group, topic | – |
//! | [`Metric::DeadLetterFlood`] | `evenkeel_dead_letter_flood` | gauge | group | – |
//! | [`Metric::Published`] | `evenkeel_records_published_total` | counter | topic, result | `messaging.client.sent.messages` |
//! | [`Metric::PublisherBufferBytes`] | `evenkeel_publisher_buffer_bytes` | gauge | – | – |
//! | [`Metric::OutboxPending`] | `evenkeel_outbox_pending` | gauge | – | – |
//! | [`Metric::OutboxOldestSeconds`] | `evenkeel_outbox_oldest_seconds` | gauge | – | – |
//! | [`Metric::OutboxPublished`] | `evenkeel_outbox_published_total` | counter | topic | – |
//! | [`Metric::OutboxFailed`] | `evenkeel_outbox_failures_total` | counter | topic, result | – |
//! | [`Metric::OutboxHeldKeys`] | `evenkeel_outbox_held_keys` | gauge | – | – |
//! | [`Metric::OutboxSlots`] | `evenkeel_outbox_slots` | gauge | – | – |
//! | [`Metric::OutboxOpenTransactionSeconds`] | `evenkeel_outbox_open_transaction_seconds` | gauge | – | – |
//! | [`Metric::MemberInfo`] | `evenkeel_member_info` | gauge | group, member_id, client_id, instance_id | – |
//! | [`Metric::ServiceInfo`] | `evenkeel_service_info` | gauge | service, version | – |
//!
//! The lag has the name and the labels of kafka_exporter, so that dashboards and alerts made for it
//! work unchanged. If both are scraped, tell them apart by `job` before summing. A member that
//! loses a partition sets its gauges of that partition to 0: series do not expire while the process
//! runs.
//!
//! If two members of one group, or two relays, run in one process, the gauges of the second have an
//! additional label `member` (`member="2"`), so that neither overwrites the other's. Sum over it.
//! Counters are shared by both.

use metrics::Unit;

/// A metric that evenkeel reports through the `metrics` facade.
///
/// The names and labels are a contract: dashboards and alerts depend on them.
///
/// ```
/// use evenkeel::telemetry::{Metric, MetricKind};
///
/// // A list for the documentation of a service.
/// for metric in Metric::ALL {
///     println!("{} ({:?}): {}", metric.name(), metric.kind(), metric.help());
/// }
/// assert_eq!(Metric::Lag.kind(), MetricKind::Gauge);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Records received from Kafka (counter; group, topic).
    Received,
    /// Records settled (counter; group, topic, outcome =
    /// done|duplicate|ignored|dead|skipped|parked).
    Settled,
    /// Records admitted and not settled (gauge; group).
    InFlight,
    /// Bytes of the records in flight (gauge; group).
    InFlightBytes,
    /// Records between the committed position and the end of the partition (gauge; consumergroup,
    /// topic, partition).
    Lag,
    /// Age of the oldest record that is not settled, in seconds (gauge; group, topic, partition).
    OldestUnsettledSeconds,
    /// Handler duration in seconds (histogram; group).
    HandlerSeconds,
    /// Offset commits (counter; group, result = ok|error).
    Commits,
    /// Commits of a partition without room for all settled offsets above the committed one: the
    /// rest is handled again after a restart (counter; group, topic).
    CommitsCut,
    /// Positions that were lost and reset (counter; group, topic, reason =
    /// truncated|recreated|deleted).
    PositionsLost,
    /// Rebalances (counter; group, kind = assigned|revoked|lost).
    Rebalances,
    /// Events that were already handled, and suppressed (counter; group, handler).
    Duplicates,
    /// Events without an effect: the inbox knows their id with other content (counter; group,
    /// handler).
    ReusedIds,
    /// Events handled as new that are older than the retention of the inbox (counter; group,
    /// handler).
    PossibleDuplicates,
    /// Transactions of the inbox that conflicted with another one (counter; group, cause =
    /// deadlock|serialization|lock_wait).
    Collisions,
    /// Attempts that failed (counter; group, class).
    Failures,
    /// 1 while handlers wait for a dependency that is down (gauge; group, dependency).
    BreakerOpen,
    /// Partitions of this member that an operator has paused (gauge; group).
    PausedPartitions,
    /// Keys with parked records (gauge; group, topic, partition).
    ParkedKeys,
    /// Parked records (gauge; group, topic, partition).
    ParkedRecords,
    /// Entries of a retry topic that Kafka deleted unsettled, until an operator accepts the loss
    /// (gauge; group, topic, partition).
    ParkedLost,
    /// Effective settings of one of the group's own topics that could lose or refuse records
    /// (gauge; group, topic).
    OwnTopicFaults,
    /// Records written to a dead-letter topic (counter; group, topic, stage).
    DeadLetters,
    /// Records that wait because their dead letters cannot be written (gauge; group, topic).
    DeadLettersWaiting,
    /// 1 while the flood guard stops the writing of dead letters (gauge; group).
    DeadLetterFlood,
    /// Records published (counter; topic, result = ok|refused|unknown).
    Published,
    /// Bytes in the publisher's buffer without an acknowledgement (gauge).
    PublisherBufferBytes,
    /// Committed events in the outbox that are not published yet (gauge).
    OutboxPending,
    /// Age in seconds of the oldest event that is not published yet (gauge).
    OutboxOldestSeconds,
    /// Events of the outbox that the brokers acknowledged (counter; topic).
    OutboxPublished,
    /// Failed attempts to publish events of the outbox (counter; topic, result = refused|unknown).
    OutboxFailed,
    /// Keys that wait because their first event was refused (gauge).
    OutboxHeldKeys,
    /// Slots of the outbox that this relay has leased (gauge).
    OutboxSlots,
    /// Age of the oldest open transaction that has written to the outbox, if it is too old,
    /// otherwise 0 (gauge).
    OutboxOpenTransactionSeconds,
    /// 1 for the group membership of this process, 0 after it has ended (gauge; group, member_id,
    /// client_id, instance_id, which is empty without static membership).
    MemberInfo,
    /// Always 1: the service of this process, and its release (gauge; service, version).
    ServiceInfo,
}

/// The kind of a metric, as the `metrics` facade has them. Exhaustive: an exporter must handle
/// each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A count that only grows while the process runs.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution over [`Metric::DURATION_BUCKETS`].
    Histogram,
}

impl Metric {
    /// All metrics, in the order of the table above.
    pub const ALL: &[Self] = &[
        Self::Received,
        Self::Settled,
        Self::InFlight,
        Self::InFlightBytes,
        Self::Lag,
        Self::OldestUnsettledSeconds,
        Self::HandlerSeconds,
        Self::Commits,
        Self::CommitsCut,
        Self::PositionsLost,
        Self::Rebalances,
        Self::Duplicates,
        Self::ReusedIds,
        Self::PossibleDuplicates,
        Self::Collisions,
        Self::Failures,
        Self::BreakerOpen,
        Self::PausedPartitions,
        Self::ParkedKeys,
        Self::ParkedRecords,
        Self::ParkedLost,
        Self::OwnTopicFaults,
        Self::DeadLetters,
        Self::DeadLettersWaiting,
        Self::DeadLetterFlood,
        Self::Published,
        Self::PublisherBufferBytes,
        Self::OutboxPending,
        Self::OutboxOldestSeconds,
        Self::OutboxPublished,
        Self::OutboxFailed,
        Self::OutboxHeldKeys,
        Self::OutboxSlots,
        Self::OutboxOpenTransactionSeconds,
        Self::MemberInfo,
        Self::ServiceInfo,
    ];

    /// Upper bounds of the duration histogram's buckets in seconds: OpenTelemetry's advice for
    /// messaging durations.
    pub const DURATION_BUCKETS: &[f64] = &[
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];

    /// The name of the metric, as it is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "evenkeel_records_received_total",
            Self::Settled => "evenkeel_records_settled_total",
            Self::InFlight => "evenkeel_records_in_flight",
            Self::InFlightBytes => "evenkeel_in_flight_bytes",
            Self::Lag => "kafka_consumergroup_lag",
            Self::OldestUnsettledSeconds => "evenkeel_oldest_unsettled_seconds",
            Self::HandlerSeconds => "evenkeel_handler_duration_seconds",
            Self::Commits => "evenkeel_commits_total",
            Self::CommitsCut => "evenkeel_commits_cut_total",
            Self::PositionsLost => "evenkeel_positions_lost_total",
            Self::Rebalances => "evenkeel_rebalances_total",
            Self::Duplicates => "evenkeel_duplicates_suppressed_total",
            Self::ReusedIds => "evenkeel_ids_reused_total",
            Self::PossibleDuplicates => "evenkeel_duplicates_possible_total",
            Self::Collisions => "evenkeel_inbox_collisions_total",
            Self::Failures => "evenkeel_handler_failures_total",
            Self::BreakerOpen => "evenkeel_breaker_open",
            Self::PausedPartitions => "evenkeel_paused_partitions",
            Self::ParkedKeys => "evenkeel_parked_keys",
            Self::ParkedRecords => "evenkeel_parked_records",
            Self::ParkedLost => "evenkeel_parked_lost",
            Self::OwnTopicFaults => "evenkeel_own_topic_faults",
            Self::DeadLetters => "evenkeel_dead_letters_total",
            Self::DeadLettersWaiting => "evenkeel_dead_letters_waiting",
            Self::DeadLetterFlood => "evenkeel_dead_letter_flood",
            Self::Published => "evenkeel_records_published_total",
            Self::PublisherBufferBytes => "evenkeel_publisher_buffer_bytes",
            Self::OutboxPending => "evenkeel_outbox_pending",
            Self::OutboxOldestSeconds => "evenkeel_outbox_oldest_seconds",
            Self::OutboxPublished => "evenkeel_outbox_published_total",
            Self::OutboxFailed => "evenkeel_outbox_failures_total",
            Self::OutboxHeldKeys => "evenkeel_outbox_held_keys",
            Self::OutboxSlots => "evenkeel_outbox_slots",
            Self::OutboxOpenTransactionSeconds => "evenkeel_outbox_open_transaction_seconds",
            Self::MemberInfo => "evenkeel_member_info",
            Self::ServiceInfo => "evenkeel_service_info",
        }
    }

    /// The kind of the metric.
    pub fn kind(self) -> MetricKind {
        match self {
            Self::HandlerSeconds => MetricKind::Histogram,
            Self::InFlight
            | Self::InFlightBytes
            | Self::Lag
            | Self::OldestUnsettledSeconds
            | Self::BreakerOpen
            | Self::PausedPartitions
            | Self::ParkedKeys
            | Self::ParkedRecords
            | Self::ParkedLost
            | Self::OwnTopicFaults
            | Self::DeadLettersWaiting
            | Self::DeadLetterFlood
            | Self::PublisherBufferBytes
            | Self::OutboxPending
            | Self::OutboxOldestSeconds
            | Self::OutboxHeldKeys
            | Self::OutboxSlots
            | Self::OutboxOpenTransactionSeconds
            | Self::MemberInfo
            | Self::ServiceInfo => MetricKind::Gauge,
            Self::Received
            | Self::Settled
            | Self::Commits
            | Self::CommitsCut
            | Self::PositionsLost
            | Self::Rebalances
            | Self::Duplicates
            | Self::ReusedIds
            | Self::PossibleDuplicates
            | Self::Collisions
            | Self::Failures
            | Self::DeadLetters
            | Self::OutboxPublished
            | Self::OutboxFailed
            | Self::Published => MetricKind::Counter,
        }
    }

    /// The names of the metric's labels, in order.
    ///
    /// Gauges of a second member of a group in one process have the label `member` in addition.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Received => &["group", "topic"],
            Self::Settled => &["group", "topic", "outcome"],
            Self::InFlight
            | Self::InFlightBytes
            | Self::HandlerSeconds
            | Self::PausedPartitions
            | Self::DeadLetterFlood => &["group"],
            Self::Lag => &["consumergroup", "topic", "partition"],
            Self::OldestUnsettledSeconds
            | Self::ParkedKeys
            | Self::ParkedRecords
            | Self::ParkedLost => &["group", "topic", "partition"],
            Self::OwnTopicFaults => &["group", "topic"],
            Self::Commits => &["group", "result"],
            Self::Rebalances => &["group", "kind"],
            Self::Duplicates | Self::ReusedIds | Self::PossibleDuplicates => &["group", "handler"],
            Self::Collisions => &["group", "cause"],
            Self::Failures => &["group", "class"],
            Self::BreakerOpen => &["group", "dependency"],
            Self::DeadLetters => &["group", "topic", "stage"],
            Self::DeadLettersWaiting | Self::CommitsCut => &["group", "topic"],
            Self::PositionsLost => &["group", "topic", "reason"],
            Self::Published | Self::OutboxFailed => &["topic", "result"],
            Self::OutboxPublished => &["topic"],
            Self::PublisherBufferBytes
            | Self::OutboxPending
            | Self::OutboxOldestSeconds
            | Self::OutboxHeldKeys
            | Self::OutboxSlots
            | Self::OutboxOpenTransactionSeconds => &[],
            Self::MemberInfo => &["group", "member_id", "client_id", "instance_id"],
            Self::ServiceInfo => &["service", "version"],
        }
    }

    /// The description of the metric for operators.
    pub fn help(self) -> &'static str {
        match self {
            Self::Received => "Records received from Kafka",
            Self::Settled => "Records settled, by outcome",
            Self::InFlight => "Records admitted and not settled",
            Self::InFlightBytes => "Bytes held for records that are not settled",
            Self::Lag => {
                "Records between the group's committed position and the end of the partition"
            }
            Self::OldestUnsettledSeconds => "Age of the partition's oldest unsettled record",
            Self::HandlerSeconds => "Duration of one attempt of the handler",
            Self::Commits => "Offset commits, by result",
            Self::CommitsCut => {
                "Commits without room for all settled offsets: a restart handles the rest again"
            }
            Self::PositionsLost => "Positions of the group that were lost and reset, by reason",
            Self::Rebalances => "Changes of this member's assignment, by kind",
            Self::ReusedIds => {
                "Events without an effect: their id was completed before with other content"
            }
            Self::Duplicates => "Redelivered events whose effect was suppressed",
            Self::PossibleDuplicates => {
                "Events handled as new that are older than the retention of the inbox"
            }
            Self::Collisions => {
                "Transactions of the inbox that conflicted with another one, by cause"
            }
            Self::Failures => "Attempts that failed, by class of error",
            Self::BreakerOpen => "1 while handlers wait for a dependency that is down",
            Self::PausedPartitions => "Partitions of this member that an operator has paused",
            Self::ParkedKeys => "Keys that wait in a retry topic",
            Self::ParkedRecords => "Records that wait in a retry topic",
            Self::ParkedLost => {
                "Entries of a retry topic that Kafka deleted before they were settled"
            }
            Self::OwnTopicFaults => {
                "Settings of one of the group's own topics that could lose or refuse records"
            }
            Self::DeadLetters => "Records written to a dead-letter topic",
            Self::DeadLettersWaiting => {
                "Records that wait because their dead letters cannot be written"
            }
            Self::DeadLetterFlood => "1 while the flood guard stops the writing of dead letters",
            Self::Published => "Records published, by result",
            Self::PublisherBufferBytes => "Bytes that wait for the brokers' acknowledgement",
            Self::OutboxPending => "Committed events in the outbox that are not published yet",
            Self::OutboxOldestSeconds => "Age of the outbox's oldest event",
            Self::OutboxPublished => "Events of the outbox that the brokers acknowledged",
            Self::OutboxFailed => "Attempts to publish events of the outbox that failed, by result",
            Self::OutboxHeldKeys => "Keys that wait because their first event was refused",
            Self::OutboxSlots => "Slots of the outbox that this relay has leased",
            Self::OutboxOpenTransactionSeconds => {
                "Age of the oldest open transaction that has written to the outbox, if too old"
            }
            Self::MemberInfo => "1 for the group membership of this process",
            Self::ServiceInfo => "Always 1: the service of this process, and its release",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::InFlightBytes | Self::PublisherBufferBytes => Unit::Bytes,
            Self::OldestUnsettledSeconds
            | Self::HandlerSeconds
            | Self::OutboxOldestSeconds
            | Self::OutboxOpenTransactionSeconds => Unit::Seconds,
            _ => Unit::Count,
        }
    }

    /// Registers the descriptions of all metrics with the installed recorder. Call it once, after
    /// the recorder was installed: without one it does nothing. A daemon (feature `daemon`) calls
    /// it by itself.
    pub fn describe_all() {
        for metric in Self::ALL {
            let (name, unit, help) = (metric.name(), metric.unit(), metric.help());
            match metric.kind() {
                MetricKind::Counter => metrics::describe_counter!(name, unit, help),
                MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
                MetricKind::Histogram => metrics::describe_histogram!(name, unit, help),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Metric, MetricKind};
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_follow_prometheus_conventions() {
        let mut seen = HashSet::new();
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(seen.insert(name), "{name} is used twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert_eq!(
                metric.kind() == MetricKind::Counter,
                name.ends_with("_total"),
                "{name}: exactly the counters end in _total"
            );
        }
    }

    /// The cells that the tables of the docs have in common: name, kind and labels.
    fn cells(metric: Metric) -> String {
        let labels = match metric.labels() {
            [] => "–".to_owned(),
            labels => labels.join(", "),
        };
        let kind = format!("{:?}", metric.kind()).to_lowercase();
        format!("`{}` | {kind} | {labels}", metric.name())
    }

    #[test]
    fn the_module_docs_list_every_metric_as_coded() {
        let source = include_str!("metric.rs");
        for metric in Metric::ALL {
            let row = format!("//! | [`Metric::{metric:?}`] | {} |", cells(*metric));
            assert!(source.contains(&row), "missing in the table: {row}");
        }
    }

    #[test]
    fn the_reference_page_lists_exactly_the_metrics() {
        let page = include_str!("../../docs/src/reference/metrics.md");
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let coded = Metric::ALL.iter();
        let coded: Vec<String> = coded
            .map(|metric| format!("| {} | {} |", cells(*metric), metric.help()))
            .collect();
        assert_eq!(rows, coded);
        let names: HashSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        for word in page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let is_name = word.starts_with("evenkeel_");
            assert!(!is_name || names.contains(word), "no metric: {word}");
        }
    }
}
