//! When the next rows are sent: in bursts, so that those that are ready at about the same time share
//! requests.
//!
//! Pure: time is an argument. Why bursts: librdkafka's idempotent producer keeps one request of a
//! partition in flight once that has five records. If more come meanwhile, its thread spends the
//! time until the answer in a busy loop, which takes the processor from the brokers beside it, so
//! that they answer still later.

use std::time::Duration;
use tokio::time::Instant;

/// The least and the most time that ready rows wait for the acknowledgements of the burst before
/// them.
pub(in crate::outbox::relay) const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Ready rows wait so many times the usual time of an acknowledgement.
const WAIT_ANSWERS: u32 = 4;

/// The weight of the earlier acknowledgements in the usual time: the last eight or so count.
const EARLIER: u32 = 7;

/// The burst that was sent last, and how long the next one waits for it.
///
/// The next burst follows at once when all acknowledgements have arrived. The wait bounds what a
/// partition without a leader costs the others, once for each burst that has a row for it.
#[derive(Debug)]
pub(super) struct Bursts {
    last: Burst,
    /// How many sends of the last burst have not ended.
    unsettled: usize,
    /// The usual time of an acknowledgement.
    answer_time: Duration,
}

/// A burst of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Burst {
    number: u64,
    sent_at: Instant,
}

impl Bursts {
    pub(super) fn new(now: Instant) -> Self {
        let last = Burst {
            number: 0,
            sent_at: now,
        };
        Self {
            last,
            unsettled: 0,
            answer_time: Duration::ZERO,
        }
    }

    /// The burst that may be sent now, if any.
    pub(super) fn next(&self, now: Instant) -> Option<Burst> {
        let number = self.last.number + 1;
        (now >= self.next_at()).then_some(Burst {
            number,
            sent_at: now,
        })
    }

    /// When the next burst may be sent, if no result arrives.
    pub(super) fn next_at(&self) -> Instant {
        if self.unsettled == 0 {
            return self.last.sent_at;
        }
        let wait = self.answer_time * WAIT_ANSWERS;
        self.last.sent_at + wait.clamp(WAIT_MIN, WAIT_MAX)
    }

    /// Records that the rows of a burst were handed to the publisher.
    pub(super) fn sent(&mut self, burst: Burst, rows: usize) {
        if rows > 0 {
            self.last = burst;
            self.unsettled = rows;
        }
    }

    /// Records the result of a row. A late result of an earlier burst holds back no rows.
    pub(super) fn settled(&mut self, burst: Burst, is_acknowledged: bool, now: Instant) {
        self.unsettled -= usize::from(burst == self.last);
        if is_acknowledged {
            let took = now.saturating_duration_since(burst.sent_at);
            self.answer_time = (self.answer_time * EARLIER + took) / (EARLIER + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends a burst of `rows` at `now`.
    fn send(bursts: &mut Bursts, rows: usize, now: Instant) -> Burst {
        let burst = bursts.next(now).expect("a burst may be sent");
        bursts.sent(burst, rows);
        burst
    }

    #[test]
    fn a_burst_follows_the_last_result_of_the_one_before_at_once() {
        let now = Instant::now();
        let mut bursts = Bursts::new(now);
        let first = send(&mut bursts, 2, now);
        bursts.settled(first, true, now + MS);
        assert_eq!(bursts.next(now + MS), None);
        bursts.settled(first, false, now + 2 * MS);
        assert!(bursts.next(now + 2 * MS).is_some());
    }

    #[test]
    fn a_burst_without_answers_holds_the_next_one_back_for_the_least_wait() {
        let now = Instant::now();
        let mut bursts = Bursts::new(now);
        send(&mut bursts, 1, now);
        assert_eq!(bursts.next(now + WAIT_MIN - MS), None);
        assert!(bursts.next(now + WAIT_MIN).is_some());
    }

    #[test]
    fn slow_answers_prolong_the_wait_up_to_its_bound() {
        let mut now = Instant::now();
        let mut bursts = Bursts::new(now);
        for (answer, wait) in [(100 * MS, 400 * MS), (700 * MS, WAIT_MAX), (MS, WAIT_MIN)] {
            for _ in 0..40 {
                let burst = send(&mut bursts, 1, now);
                now += answer;
                bursts.settled(burst, true, now);
            }
            send(&mut bursts, 1, now);
            let waits = bursts.next_at() - now;
            assert!(waits.abs_diff(wait) < 5 * MS, "{answer:?}: {waits:?}");
            now += WAIT_MAX;
        }
    }

    #[test]
    fn a_late_result_of_an_earlier_burst_holds_back_no_rows() {
        let now = Instant::now();
        let mut bursts = Bursts::new(now);
        let first = send(&mut bursts, 1, now);
        let second = send(&mut bursts, 1, now + WAIT_MIN);
        bursts.settled(first, false, now + WAIT_MIN);
        assert_eq!(bursts.next(now + WAIT_MIN), None);
        bursts.settled(second, false, now + WAIT_MIN);
        assert!(bursts.next(now + WAIT_MIN).is_some());
    }
}
