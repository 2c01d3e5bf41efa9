//! A request that may outlast the round that sent it.

use std::time::Instant;
use tokio::task::JoinHandle;

/// At most one request under way. The rounds after the one that sent it await its answer instead
/// of sending another, so that a slow broker or store gets no queue of requests.
pub(super) struct Request<T>(Option<(Instant, JoinHandle<anyhow::Result<T>>)>);

impl<T> Default for Request<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Request<T> {
    /// Sends the request on a thread that may block. Does nothing while one is under way.
    pub(super) fn send_blocking(
        &mut self,
        ask: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) {
        if self.0.is_none() {
            self.0 = Some((Instant::now(), tokio::task::spawn_blocking(ask)));
        }
    }

    /// Sends the request in a task. Does nothing while one is under way.
    pub(super) fn send(&mut self, ask: impl Future<Output = anyhow::Result<T>> + Send + 'static) {
        if self.0.is_none() {
            self.0 = Some((Instant::now(), tokio::spawn(ask)));
        }
    }

    /// The answer, with the time at which the request was sent. `None` if there is none by `until`,
    /// or if no request is under way.
    pub(super) async fn answer(&mut self, until: Instant) -> Option<(Instant, anyhow::Result<T>)> {
        let (sent, task) = self.0.as_mut()?;
        let sent = *sent;
        let joined = tokio::time::timeout_at(until.into(), task).await.ok()?;
        self.0 = None;
        Some((sent, joined.map_err(anyhow::Error::from).flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_late_answer_is_that_of_the_first_request() {
        let long = Duration::from_secs(30);
        let (answer, answered) = mpsc::channel();
        let mut request = Request::default();
        let before = Instant::now();
        request.send_blocking(move || Ok(answered.recv_timeout(long)?));
        assert!(request.answer(Instant::now()).await.is_none());
        let after = Instant::now();
        request.send(async { Ok("of the second request") });
        answer.send("of the first request").expect("it waits");
        let (sent, answer) = request.answer(after + long).await.expect("an answer");
        assert_eq!(answer.expect("no error"), "of the first request");
        assert!(sent >= before && sent <= after);
        assert!(request.answer(Instant::now()).await.is_none());
    }
}
