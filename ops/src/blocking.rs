//! Runs blocking work from async operations.

/// Runs `work` on a blocking thread and returns its result. A panic in `work` is resumed in the
/// caller.
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
