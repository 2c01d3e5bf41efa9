//! Why a request is refused, and the answer to it.
//!
//! Owns the texts and the labels. Decides nothing.

use crate::http::{Problem, ProblemKind};
use std::time::Duration;

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The caller exceeds its rate.
    Rate {
        /// The time until it may come back.
        wait: Duration,
    },
    /// Too many events wait for the brokers.
    BacklogEvents {
        /// The time until it may come back.
        wait: Duration,
    },
    /// Events wait too long for the brokers.
    QueueAge {
        /// The time until it may come back.
        wait: Duration,
    },
    /// There are as many requests in flight as the store can finish.
    Concurrency {
        /// The time until it may come back.
        wait: Duration,
    },
    /// There are as many bodies on their way as may be.
    Uploads {
        /// The time until it may come back.
        wait: Duration,
    },
    /// As many bodies of this caller are on their way as may be.
    UploadsOfCaller {
        /// The time until it may come back.
        wait: Duration,
    },
    /// The deadline passed before the request was begun.
    DeadlinePassed,
    /// Requests take longer at present than the deadline leaves.
    DeadlineShort {
        /// The time that a request takes.
        expected: Duration,
        /// The time until it may come back, if requests normally take less.
        wait: Option<Duration>,
    },
}

/// The label of a refusal in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalReason {
    Rate,
    BacklogEvents,
    QueueAge,
    Concurrency,
    Uploads,
    Deadline,
}

impl RefusalReason {
    /// All reasons, in the order of their declaration.
    pub(super) const ALL: [Self; 6] = [
        Self::Rate,
        Self::BacklogEvents,
        Self::QueueAge,
        Self::Concurrency,
        Self::Uploads,
        Self::Deadline,
    ];

    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::BacklogEvents => "backlog_events",
            Self::QueueAge => "queue_age",
            Self::Concurrency => "concurrency",
            Self::Uploads => "uploads",
            Self::Deadline => "deadline",
        }
    }
}

impl Refusal {
    /// Its label in metrics.
    pub(super) fn reason(&self) -> RefusalReason {
        match self {
            Self::Rate { .. } => RefusalReason::Rate,
            Self::BacklogEvents { .. } => RefusalReason::BacklogEvents,
            Self::QueueAge { .. } => RefusalReason::QueueAge,
            Self::Concurrency { .. } => RefusalReason::Concurrency,
            Self::Uploads { .. } | Self::UploadsOfCaller { .. } => RefusalReason::Uploads,
            Self::DeadlinePassed | Self::DeadlineShort { .. } => RefusalReason::Deadline,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (kind, detail, wait) = match refusal {
            Refusal::Rate { wait } => (
                ProblemKind::RateLimited,
                "this caller exceeds its rate; nothing was accepted; repeat the request after the \
                 time in Retry-After",
                Some(wait),
            ),
            Refusal::BacklogEvents { wait } => (
                ProblemKind::Overloaded,
                "too many events wait for the brokers; nothing was accepted; repeat the request \
                 after the time in Retry-After",
                Some(wait),
            ),
            Refusal::QueueAge { wait } => (
                ProblemKind::Overloaded,
                "events wait too long for the brokers; nothing was accepted; repeat the request \
                 after the time in Retry-After",
                Some(wait),
            ),
            Refusal::Concurrency { wait } => (
                ProblemKind::Overloaded,
                "more requests are in progress than can be served; nothing was accepted; repeat \
                 the request after the time in Retry-After, with the same Idempotency-Key to be \
                 served first",
                Some(wait),
            ),
            Refusal::Uploads { wait } => (
                ProblemKind::Overloaded,
                "too many bodies are on their way; nothing was accepted; repeat the request after \
                 the time in Retry-After",
                Some(wait),
            ),
            Refusal::UploadsOfCaller { wait } => (
                ProblemKind::RateLimited,
                "too many bodies of this caller are on their way; nothing was accepted; repeat the \
                 request after the time in Retry-After",
                Some(wait),
            ),
            Refusal::DeadlinePassed => (
                ProblemKind::DeadlineExceeded,
                "the deadline passed before the request was begun; nothing was accepted",
                None,
            ),
            Refusal::DeadlineShort { expected, wait } => {
                return deadline_short(expected, wait);
            }
        };
        Self::new(kind, detail).with_retry_after(wait)
    }
}

fn deadline_short(expected: Duration, wait: Option<Duration>) -> Problem {
    let (kind, next) = match wait {
        Some(_) => (
            ProblemKind::Overloaded,
            "repeat it after the time in Retry-After",
        ),
        None => (ProblemKind::DeadlineExceeded, "repeat it with a later one"),
    };
    let expected_ms = expected.as_millis() as u64;
    let detail = format!(
        "a request takes {expected_ms} ms at present, longer than the deadline allows; nothing \
         was accepted; {next}"
    );
    Problem::new(kind, detail)
        .with_retry_after(wait)
        .with_member("expectedMs", expected_ms)
}

/// The answer to a request that was begun and not done within its deadline.
pub(super) fn timed_out() -> Problem {
    Problem::new(
        ProblemKind::DeadlineExceeded,
        "the deadline passed; it is not known whether the events were accepted; repeat the request \
         with the same Idempotency-Key or event id",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_that_nothing_was_accepted() {
        let wait = Duration::from_secs(7);
        for (refusal, status, retry_after) in [
            (Refusal::Rate { wait }, 429_u16, Some(7)),
            (Refusal::BacklogEvents { wait }, 503, Some(7)),
            (Refusal::QueueAge { wait }, 503, Some(7)),
            (Refusal::Concurrency { wait }, 503, Some(7)),
            (Refusal::Uploads { wait }, 503, Some(7)),
            (Refusal::UploadsOfCaller { wait }, 429, Some(7)),
            (Refusal::DeadlinePassed, 504, None),
            (
                Refusal::DeadlineShort {
                    expected: wait,
                    wait: Some(wait),
                },
                503,
                Some(7),
            ),
            (
                Refusal::DeadlineShort {
                    expected: wait,
                    wait: None,
                },
                504,
                None,
            ),
        ] {
            let problem = Problem::from(refusal);
            assert_eq!(problem.kind.status(), status, "{refusal:?}");
            assert_eq!(problem.retry_after_seconds(), retry_after, "{refusal:?}");
            assert!(
                problem.detail.contains("nothing was accepted"),
                "{refusal:?}"
            );
        }
        assert!(timed_out().detail.contains("not known"));
    }

    #[test]
    fn the_reasons_are_declared_in_their_order() {
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }
}
