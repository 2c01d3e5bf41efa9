//! Bounds of durations from settings, so that arithmetic with them cannot overflow.
//!
//! `Duration::MAX` is the usual value for "for ever", and adding it to an instant panics. Settings
//! are bounded once, where they are passed in, so that no sum of theirs has to be checked.

use std::time::Duration;

/// Longer than any process runs, and short enough for sums of instants and for milliseconds in 64
/// bits.
///
/// Ten years. An instant plus a few of them is below the limits of every platform's clock.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The longest time that librdkafka accepts for one call: milliseconds in 31 bits, nearly 25 days.
pub(crate) const CALL_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// The duration, at most [`FOREVER`].
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(FOREVER)
}

/// Bounds these durations in place.
pub(crate) fn bound<'a>(durations: impl IntoIterator<Item = &'a mut Duration>) {
    durations
        .into_iter()
        .for_each(|duration| *duration = bounded(*duration));
}

/// Formats a duration for people: `2m 10s`, and `0.4s` below a second. Rounds down; hours have no
/// seconds.
pub(crate) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{:.1}s", duration.as_secs_f64()),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}
