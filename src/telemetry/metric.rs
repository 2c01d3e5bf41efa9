//! Every metric's name, type, unit and labels, in one enum.

/// A metric that evenkeel reports through the `metrics` facade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Records received from Kafka (counter; group, topic).
    Received,
    /// Records settled (counter; group, topic, outcome = done|duplicate|skipped|dead|ignored).
    Settled,
    /// Records admitted and not settled (gauge; group).
    InFlight,
    /// Bytes held for them (gauge; group).
    InFlightBytes,
    /// Records between the committed position and the end of the partition (gauge; group, topic, partition).
    Lag,
    /// Age of the oldest record that is not settled, in seconds (gauge; group, topic, partition).
    OldestUnsettledSeconds,
    /// Handler duration in seconds (histogram; group).
    HandlerSeconds,
    /// Offset commits (counter; group, result = ok|error).
    Commits,
    /// Rebalances (counter; group, kind = assigned|revoked|lost).
    Rebalances,
    /// Events that had been handled before and were suppressed (counter; group, handler).
    Duplicates,
    /// Attempts that failed (counter; group, class).
    Failures,
    /// Records written to a dead-letter topic (counter; group, topic, stage).
    DeadLetters,
    /// Records published (counter; topic, result = ok|refused|unknown).
    Published,
    /// Bytes waiting for an acknowledgement (gauge).
    PublisherBufferBytes,
}

impl Metric {
    /// The name under which it is reported.
    pub fn name(self) -> &'static str {
        todo!()
    }
    /// Registers descriptions of all metrics with the installed recorder.
    pub fn describe_all() {
        todo!()
    }
}
