//! The progress of one partition through its span.
//!
//! Owns the rule by which a span ends. Knows no client.

use super::span::Span;
use std::time::{Duration, Instant};

/// The progress of one partition through its span.
///
/// `done` only ever changes from false to true, except in
/// [`Reader::follow`](super::Reader::follow) before the first record is taken. The reader counts
/// the partitions that are not done, so each change adjusts its count.
pub(super) struct PartitionCursor {
    pub(super) span: Span,
    pub(super) done: bool,
    /// The end of the log at the opening, for a partition without an end that has not reached it
    /// yet.
    behind: Option<i64>,
    /// The end of the log as a broker reported it, below the end that is to be reached, with the
    /// time of the report. None after a later record.
    short: Option<(i64, Instant)>,
}

impl PartitionCursor {
    pub(super) fn new(span: Span) -> Self {
        Self {
            done: span.end.is_some_and(|end| span.start >= end),
            span,
            behind: None,
            short: None,
        }
    }

    /// Removes the end.
    pub(super) fn remove_end(&mut self) {
        self.behind = self.span.end.take().filter(|end| self.span.start < *end);
        self.done = false;
    }

    /// Whether it has not reached the end that the log had at the opening.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Ends it where it is.
    pub(super) fn stop(&mut self) {
        (self.behind, self.short) = (None, None);
        self.done = true;
    }

    /// Ends before a batch that cannot be read: later records would hide the gap. Returns whether
    /// the batch belongs to the reading.
    pub(super) fn end_before_unreadable(&mut self, offset: i64) -> bool {
        self.stop();
        self.span.end.is_none_or(|end| offset < end)
    }

    /// Whether a record of this offset belongs to the reading. Moves the position past it.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        let inside = !self.done && self.span.end.is_none_or(|end| offset < end);
        self.done |= self.span.end.is_some_and(|end| offset + 1 >= end);
        self.behind = self.behind.filter(|end| offset + 1 < *end);
        self.short = None;
        inside
    }

    /// A broker reports that its log ends at this offset, and that all records before it were
    /// returned. Ends the span if that is its end or above: the rest are transaction markers or
    /// compacted records.
    pub(super) fn reached_end_of_log(&mut self, offset: i64) {
        if self.done {
            return;
        }
        if self.goal().is_some_and(|end| offset < end) {
            let known = self.short.filter(|(at, _)| *at == offset);
            self.short = known.or_else(|| Some((offset, Instant::now())));
            return;
        }
        (self.behind, self.short) = (None, None);
        self.done = self.span.end.is_some();
    }

    /// What did not come for this long, if a broker's log ended below the end that is to be
    /// reached. Once for each such time.
    pub(super) fn overdue(&mut self, after: Duration) -> Option<String> {
        let (goal, (offset, since)) = (self.goal()?, self.short.as_mut()?);
        if since.elapsed() < after {
            return None;
        }
        *since = Instant::now();
        let (topic, partition) = (&self.span.topic, self.span.partition);
        Some(format!(
            "reading {topic}/{partition} from offset {offset}, where the log ends, to {goal}"
        ))
    }

    /// The end that is to be reached.
    fn goal(&self) -> Option<i64> {
        self.span.end.or(self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(end: i64) -> PartitionCursor {
        PartitionCursor::new(Span {
            topic: "topic".into(),
            partition: 0,
            start: 0,
            end: Some(end),
        })
    }

    #[test]
    fn only_an_end_of_log_at_its_end_ends_a_span() {
        for (offset, ends) in [(0, false), (9, false), (10, true), (11, true)] {
            let mut bounded = cursor(10);
            bounded.reached_end_of_log(offset);
            assert_eq!(bounded.done, ends, "{offset}");
            assert_eq!(bounded.overdue(Duration::ZERO).is_some(), !ends, "{offset}");

            let mut following = cursor(10);
            following.remove_end();
            following.reached_end_of_log(offset);
            assert_eq!(following.is_behind(), !ends, "{offset}");
            assert!(!following.done, "{offset}");
        }
    }

    #[test]
    fn a_record_after_a_short_log_clears_the_delay() {
        let mut cursor = cursor(10);
        cursor.reached_end_of_log(5);
        assert!(cursor.overdue(Duration::from_secs(3_600)).is_none());
        assert!(cursor.overdue(Duration::ZERO).is_some());
        assert!(cursor.admit(5));
        assert!(cursor.overdue(Duration::ZERO).is_none());
        assert!(cursor.admit(9) && cursor.done);
    }
}
