//! Waits for a state instead of sleeping.

use std::time::Duration;

/// Interval between two checks: short compared with any action of a broker, long compared with a
/// check.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `check` every 20 ms until it returns a value, for at most `within`. For tests: waiting for
/// a state is faster and more reliable than sleeping for long enough.
///
/// Returns the first value that is not `None`. The deadline also cancels a `check` that hangs, so
/// `check` must be cancel-safe. `what` is the sentence that the panic repeats. Choose `within` far
/// above the usual time: a test that passes never waits for it.
///
/// ```no_run
/// use evenkeel::testing::eventually;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use std::time::Duration;
///
/// # async fn a_test(handled: &AtomicU64) {
/// let three = || async { (handled.load(Relaxed) == 3).then_some(()) };
/// eventually("three events are handled", Duration::from_secs(10), three).await;
/// # }
/// ```
///
/// # Panics
/// If the deadline passes first, with `what` and the time waited.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let seen = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    match tokio::time::timeout(within, seen).await {
        Ok(value) => value,
        Err(_) => panic!("not within {within:?}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test(start_paused = true)]
    async fn the_first_value_ends_the_wait() {
        let mut looks = 0;
        let value = eventually("third look", Duration::from_secs(1), || {
            looks += 1;
            ready((looks == 3).then_some("seen"))
        })
        .await;
        assert_eq!((value, looks), ("seen", 3));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 2s: the moon falls")]
    async fn the_deadline_panics_with_what_was_awaited() {
        eventually("the moon falls", Duration::from_secs(2), || {
            ready(None::<()>)
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 2s: an answer")]
    async fn the_deadline_cuts_off_a_check_that_hangs() {
        eventually("an answer", Duration::from_secs(2), pending::<Option<()>>).await;
    }
}
