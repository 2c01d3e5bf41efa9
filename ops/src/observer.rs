//! Progress and notices of an operation.

/// Receives the progress and the notices of an operation.
///
/// The task that runs the operation and its blocking threads call it, also concurrently. It must
/// return soon, because the operation waits for it, and must not call back into the operation. It
/// cannot end the operation: cancel the operation's token for that. A panic in it ends the
/// operation with that panic.
///
/// ```
/// use evenkeel_ops::Observer;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Observer for Count {
///     fn advance(&self) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
///
///     fn notice(&self, text: &str) {
///         eprintln!("{text}");
///     }
/// }
///
/// let count = Count::default();
/// count.advance();
/// count.notice("one record was left out");
/// assert_eq!(count.0.into_inner(), 1);
/// ```
pub trait Observer: Send + Sync {
    /// One more item of the operation is done: a dead letter that was replayed, or a repetition
    /// that was answered. Not called for items that failed. Default: ignored.
    fn advance(&self) {}

    /// Receives a message for the operator, on one line: a record that failed, or an omission with
    /// its reason. It may contain text from records; escape control characters before printing it.
    fn notice(&self, text: &str);

    /// Receives a notice that one process needs only once, however often the operation sends it.
    /// Default: [`Observer::notice`], each time.
    fn notice_once(&self, text: &str) {
        self.notice(text);
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentObserver;

impl Observer for SilentObserver {
    fn notice(&self, _: &str) {}
}
