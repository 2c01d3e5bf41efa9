//! When a request is repeated. Pure.

use std::time::Duration;

/// The pause after the first failure without a `Retry-After`. Doubled by each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause without a `Retry-After`.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Repeat the request after this time.
    RetryAfter(Duration),
    /// The answer is final.
    Final,
}

/// Decides after an answer with this status, or after none, for the attempt of this number, from 0
/// on. `jitter` is between 0 and 1.
pub(super) fn next(
    status: Option<u16>,
    retry_after: Option<Duration>,
    attempt: u32,
    jitter: f64,
) -> Next {
    let is_temporary = match status {
        // No answer, or one of a balancer without a gateway behind it.
        None | Some(408 | 409 | 425 | 429 | 502 | 503 | 504) => true,
        Some(_) => false,
    };
    if !is_temporary {
        return Next::Final;
    }
    // The gateway spreads its callers itself.
    Next::RetryAfter(retry_after.unwrap_or_else(|| pause(attempt, jitter)))
}

/// Between half of the doubled pause and all of it.
fn pause(attempt: u32, jitter: f64) -> Duration {
    let doubled = PAUSE_FIRST * 2_u32.saturating_pow(attempt.min(16));
    doubled
        .min(PAUSE_MAX)
        .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_change_is_repeated() {
        for (status, expected) in [
            (None, true),
            (Some(202), false),
            (Some(400), false),
            (Some(401), false),
            (Some(409), true),
            (Some(410), false),
            (Some(422), false),
            (Some(429), true),
            (Some(500), false),
            (Some(502), true),
            (Some(503), true),
            (Some(504), true),
        ] {
            let retried = next(status, None, 0, 0.5) != Next::Final;
            assert_eq!(retried, expected, "{status:?}");
        }
    }

    #[test]
    fn the_gateways_time_wins_over_the_own_pause() {
        let told = Duration::from_secs(7);
        assert_eq!(next(Some(503), Some(told), 9, 0.0), Next::RetryAfter(told));
        let (first, last) = (next(None, None, 0, 1.0), next(None, None, 40, 1.0));
        assert_eq!(first, Next::RetryAfter(PAUSE_FIRST));
        assert_eq!(last, Next::RetryAfter(PAUSE_MAX));
    }
}
