//! Durations from settings, made safe to reckon with.
//!
//! `Duration::MAX` is how people write "for ever", and added to a moment it panics. Settings are bounded once, where they are handed
//! over, so that no sum of theirs has to be checked.

use std::time::Duration;

/// Longer than any process runs, and short enough for sums of moments and for milliseconds in 64 bits.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The longest time that librdkafka takes for one call: milliseconds in 31 bits, nearly 25 days.
pub(crate) const CALL_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// A duration, [`FOREVER`] at most.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(FOREVER)
}

/// Bounds these durations in place.
pub(crate) fn bound<'a>(durations: impl IntoIterator<Item = &'a mut Duration>) {
    durations
        .into_iter()
        .for_each(|duration| *duration = bounded(*duration));
}
