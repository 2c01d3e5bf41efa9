//! The answers to the requests of a load, as figures of a turn.
//!
//! Latencies of accepted orders are measured from the time at which they were due, so that a slow
//! answer that delays later requests is visible in their latencies (no coordinated omission).

use super::servers::Load;
use crate::measure::run::quantile;
use crate::measure::usage::resident_max_mib;
use crate::spec::Turn;
use anyhow::bail;
use std::collections::BTreeMap;
use std::time::Duration;

/// Counts of all answers, as the clients pass them to the server.
pub(super) const ACCEPTED: &str = "accepted";
pub(super) const REQUESTS: &str = "requests";

/// An answer.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) has_retry_after: bool,
    /// How often the order was sent before.
    pub(super) returns: u32,
    /// Whether the order was due after the warm-up.
    pub(super) counts: bool,
    /// Since the order was due. In a closed loop: since it was sent for the first time.
    pub(super) since_due: Duration,
    /// Since this request was sent.
    pub(super) since_sent: Duration,
}

/// The answers to requests. The numbers are of all, the times of those that count.
#[derive(Default)]
pub(super) struct Answers {
    requests: u64,
    accepted: u64,
    unsent: u64,
    without_retry_after: u64,
    /// Requests that came back, and those of them that were accepted.
    returned: u64,
    returned_accepted: u64,
    attempts_max: u32,
    accepted_ms: Vec<f64>,
    accepted_since_sent_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    /// How long after it was due an order of an open loop was sent.
    late_ms: Vec<f64>,
}

impl Answers {
    /// Adds an answer. Returns whether the order was accepted.
    pub(super) fn add(&mut self, answered: &Answered) -> anyhow::Result<bool> {
        let is_accepted = match answered.status {
            202 => true,
            429 | 503 => false,
            status => bail!("wrong answer: status {status}"),
        };
        self.requests += 1;
        self.accepted += u64::from(is_accepted);
        self.without_retry_after += u64::from(!is_accepted && !answered.has_retry_after);
        self.attempts_max = self.attempts_max.max(answered.returns + 1);
        if answered.returns > 0 {
            self.returned += 1;
            self.returned_accepted += u64::from(is_accepted);
        }
        if answered.counts {
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            if is_accepted {
                self.accepted_ms.push(ms(answered.since_due));
                self.accepted_since_sent_ms.push(ms(answered.since_sent));
            } else {
                self.refused_ms.push(ms(answered.since_sent));
            }
        }
        Ok(is_accepted)
    }

    /// Adds the delay of a request of an open loop.
    pub(super) fn add_late(&mut self, late: Duration) {
        self.late_ms.push(late.as_secs_f64() * 1e3);
    }

    /// Counts a request that was due and that the clients could not send before the end.
    pub(super) fn add_unsent(&mut self) {
        self.unsent += 1;
    }

    pub(super) fn add_all(&mut self, other: Self) {
        self.requests += other.requests;
        self.accepted += other.accepted;
        self.unsent += other.unsent;
        self.without_retry_after += other.without_retry_after;
        self.returned += other.returned;
        self.returned_accepted += other.returned_accepted;
        self.attempts_max = self.attempts_max.max(other.attempts_max);
        self.accepted_ms.extend(other.accepted_ms);
        self.accepted_since_sent_ms
            .extend(other.accepted_since_sent_ms);
        self.refused_ms.extend(other.refused_ms);
        self.late_ms.extend(other.late_ms);
    }

    /// The turn, whose value is the rate of accepted orders.
    pub(super) fn into_turn(mut self, load: &Load) -> anyhow::Result<Turn> {
        if self.accepted_ms.is_empty() {
            let requests = self.requests;
            bail!("wrong answer: of {requests} requests none was accepted");
        }
        let (accepted, refused) = (self.accepted_ms.len() as f64, self.refused_ms.len() as f64);
        let counted = load.counted.as_secs_f64();
        let mut details = BTreeMap::new();
        let mut add = |name: &str, value: f64| details.insert(name.to_owned(), value);
        add(ACCEPTED, self.accepted as f64);
        add(REQUESTS, self.requests as f64);
        add("refused_share", refused / (accepted + refused));
        add("without_retry_after", self.without_retry_after as f64);
        add("p50_ms", quantile(&mut self.accepted_ms, 0.5));
        add("p99_ms", quantile(&mut self.accepted_ms, 0.99));
        add("p999_ms", quantile(&mut self.accepted_ms, 0.999));
        let since_sent = quantile(&mut self.accepted_since_sent_ms, 0.99);
        add("sent_p99_ms", since_sent);
        if !self.refused_ms.is_empty() {
            add("refused_p99_ms", quantile(&mut self.refused_ms, 0.99));
        }
        if self.returned > 0 {
            let returned = self.returned as f64;
            add("returned", returned);
            let share = self.returned_accepted as f64 / returned;
            add("returned_accepted_share", share);
            add("attempts_max", self.attempts_max.into());
        }
        if !self.late_ms.is_empty() {
            let (sent, unsent) = (self.late_ms.len() as f64, self.unsent as f64);
            let lasted = load.warm_up.as_secs_f64() + counted;
            add("sent", sent / lasted);
            add("unsent_share", unsent / (sent + unsent));
            add("late_p99_ms", quantile(&mut self.late_ms, 0.99));
        }
        Ok(Turn {
            value: accepted / counted,
            us_per_message: None,
            rss_mib: resident_max_mib()?,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, returns: u32, ms: u64) -> Answered {
        Answered {
            status,
            has_retry_after: status != 202,
            returns,
            counts: true,
            since_due: Duration::from_millis(ms),
            since_sent: Duration::from_millis(1),
        }
    }

    #[test]
    fn latencies_count_from_the_time_that_was_due() {
        let mut answers = Answers::default();
        for (answered, is_accepted) in [
            (answered(202, 0, 7), true),
            (answered(503, 0, 1), false),
            (answered(202, 1, 7), true),
        ] {
            let added = answers.add(&answered).expect("a known status");
            assert_eq!(added, is_accepted);
        }
        assert!(answers.add(&answered(500, 0, 1)).is_err());
        let load = Load::closed(64, Duration::ZERO, Duration::from_secs(2));
        let turn = answers.into_turn(&load).expect("a turn");
        assert_eq!(turn.value, 1.0);
        for (name, expected) in [
            ("p99_ms", 7.0),
            ("sent_p99_ms", 1.0),
            ("returned_accepted_share", 1.0),
            ("attempts_max", 2.0),
            ("without_retry_after", 0.0),
        ] {
            assert_eq!(turn.details.get(name), Some(&expected), "{name}");
        }
    }
}
