//! Bounds the waits for the store.

use super::super::OutboxError;
use super::super::store::Answer;
use std::time::Duration;
use tokio::time::timeout;

/// Bounds the wait for the store's answer. At the bound the call is dropped, which leaves the store
/// consistent.
#[derive(Clone, Copy)]
pub(super) struct AnswerLimit(pub(super) Duration);

impl AnswerLimit {
    /// Waits for an answer. `doing` completes "the outbox cannot …".
    ///
    /// # Errors
    /// The store's error, or [`OutboxError::NoAnswer`].
    pub(super) async fn wait_for<T>(
        self,
        doing: &'static str,
        answer: Answer<'_, T>,
    ) -> Result<T, OutboxError> {
        match timeout(self.0, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.exceeded(doing)),
        }
    }

    /// The error of an operation that reached the bound.
    pub(super) fn exceeded(self, doing: &'static str) -> OutboxError {
        OutboxError::NoAnswer {
            doing,
            seconds: self.0.as_secs(),
        }
    }
}
