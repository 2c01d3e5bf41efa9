//! Runs blocking work from async operations.
//!
//! Readers of the log block their thread. Operations run them on Tokio's blocking threads, so that
//! a caller's other tasks continue, and check a cancellation token between two polls: a thread
//! cannot be cancelled from outside.

/// Runs `work` on a blocking thread and returns its result. A panic in `work` is resumed in the
/// caller. If the future is dropped, `work` runs on to its end and its result is discarded.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a shutdown of the runtime cancels the work, and that drops this future too.
            Err(_) => std::future::pending().await,
        },
    }
}
