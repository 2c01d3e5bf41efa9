//! Progress and notices of an operation.

/// Receives the progress and the notices of an operation.
///
/// The task that runs the operation and its blocking threads call it, also concurrently. It must
/// return soon, because the operation waits for it.
pub trait Observer: Send + Sync {
    /// One more item of the operation is done.
    fn advance(&self) {}

    /// Receives a message for the operator, on one line: a record that failed, or an omission with
    /// its reason.
    fn notice(&self, text: &str);

    /// Receives a notice that one process needs only once, however often the operation sends it.
    fn notice_once(&self, text: &str) {
        self.notice(text);
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn notice(&self, _: &str) {}
}
