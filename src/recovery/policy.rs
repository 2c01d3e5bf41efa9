//! The retry policy: pure; clock and randomness come in as arguments.

use crate::handler::Class;
use std::time::Duration;

/// Jittered exponential backoff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Delay before the second attempt.
    pub initial: Duration,
    /// Delay at most.
    pub max: Duration,
    /// Growth per attempt.
    pub factor: f64,
    /// Share of the delay that is random, 0 to 1.
    pub jitter: f64,
}

/// How failed attempts are retried in place.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts at a transiently failing record before it is dead-lettered.
    pub attempts_max: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Wait that long, then try again.
    RetryAfter(Duration),
    /// Write it to the dead-letter topic.
    DeadLetter,
}

impl RetryPolicy {
    /// Decides after attempt number `attempt` (from 1) failed with `class`; `random` is uniform in [0, 1).
    pub fn decide(&self, _class: Class, _attempt: u32, _random: f64) -> Decision {
        todo!()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(30),
                factor: 2.0,
                jitter: 0.2,
            },
        }
    }
}
