//! Events in flight: sent one after the other and settled in the same order, in whatever order the
//! answers arrive.
//!
//! One task sends and one settles, with a bounded queue between them. Independent of files and
//! simulations.

use evenkeel::publisher::{PublishError, Receipt};
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Maximum number of items that wait to be settled. The publisher's buffer bounds their bytes.
pub const WINDOW: usize = 10_000;

/// The sender's result for an item. `F` is the pending receipt.
#[derive(Debug)]
pub enum Underway<F> {
    /// There is nothing to send.
    NotSent,
    /// It was not accepted for sending.
    Refused(PublishError),
    /// It was sent.
    Sent(F),
}

/// The outcome of an item.
#[derive(Debug)]
pub enum Outcome {
    /// There was nothing to send.
    NotSent,
    /// The brokers answered, or the publisher on their behalf.
    Answered(Result<Receipt, PublishError>),
    /// No answer arrived before the deadline. The event may or may not be on the log.
    Unanswered,
}

/// Settles the items of `queue` in order until it is closed and empty, or until `settle` breaks.
///
/// Waits for answers without a limit. After `stop` is cancelled, it waits at most for `drain`, and
/// then takes only answers that have already arrived. The sender must drop its end of the queue
/// when `stop` is cancelled.
pub async fn settle_in_order<I, F>(
    mut queue: mpsc::Receiver<(I, Underway<F>)>,
    stop: &CancellationToken,
    drain: Duration,
    mut settle: impl FnMut(I, Outcome) -> ControlFlow<()>,
) where
    F: Future<Output = Result<Receipt, PublishError>>,
{
    let deadline = deadline_after(stop.clone(), drain);
    while let Some((item, underway)) = queue.recv().await {
        let outcome = match underway {
            Underway::NotSent => Outcome::NotSent,
            Underway::Refused(error) => Outcome::Answered(Err(error)),
            Underway::Sent(receipt) => tokio::select! {
                biased;
                answer = pin!(receipt) => Outcome::Answered(answer),
                () = deadline.cancelled() => Outcome::Unanswered,
            },
        };
        if settle(item, outcome).is_break() {
            return;
        }
    }
}

/// A token that is cancelled `drain` after `stop`.
fn deadline_after(stop: CancellationToken, drain: Duration) -> CancellationToken {
    let deadline = CancellationToken::new();
    let token = deadline.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
        token.cancel();
    });
    deadline
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    type Answer = Result<Receipt, PublishError>;

    fn receipt(offset: i64) -> Receipt {
        Receipt::new("topic", 0, offset)
    }

    async fn answered(answer: oneshot::Receiver<Answer>) -> Answer {
        answer.await.expect("the test answers every item")
    }

    #[tokio::test]
    async fn items_settle_in_sending_order_whichever_answer_comes_first() {
        let (sender, queue) = mpsc::channel(WINDOW);
        let mut answers = Vec::new();
        for item in 0..3 {
            let (answer, pending) = oneshot::channel();
            answers.push(answer);
            let underway = Underway::Sent(answered(pending));
            sender.send((item, underway)).await.expect("room");
        }
        drop(sender);
        for (item, answer) in answers.into_iter().enumerate().rev() {
            answer.send(Ok(receipt(item as i64))).expect("awaited");
        }
        let mut settled = Vec::new();
        settle_in_order(
            queue,
            &CancellationToken::new(),
            Duration::MAX,
            |item, outcome| {
                assert!(
                    matches!(outcome, Outcome::Answered(Ok(receipt)) if receipt.offset == item)
                );
                settled.push(item);
                ControlFlow::Continue(())
            },
        )
        .await;
        assert_eq!(settled, [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_only_unanswered_items_wait_until_the_deadline() {
        let (sender, queue) = mpsc::channel(WINDOW);
        let (_never, pending) = oneshot::channel();
        sender
            .send((0, Underway::Sent(answered(pending))))
            .await
            .expect("room");
        let (answer, pending) = oneshot::channel();
        answer.send(Ok(receipt(1))).expect("awaited");
        sender
            .send((1, Underway::Sent(answered(pending))))
            .await
            .expect("room");
        drop(sender);
        let stop = CancellationToken::new();
        stop.cancel();
        let started = tokio::time::Instant::now();
        let mut unanswered = Vec::new();
        settle_in_order(queue, &stop, Duration::from_secs(10), |item, outcome| {
            if matches!(outcome, Outcome::Unanswered) {
                unanswered.push(item);
            }
            ControlFlow::Continue(())
        })
        .await;
        assert_eq!(unanswered, [0]);
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn nothing_is_settled_after_a_break() {
        let (sender, queue) =
            mpsc::channel::<(i32, Underway<std::future::Pending<Answer>>)>(WINDOW);
        for item in 0..3 {
            sender.send((item, Underway::NotSent)).await.expect("room");
        }
        let mut settled = 0;
        settle_in_order(
            queue,
            &CancellationToken::new(),
            Duration::MAX,
            |item, _| {
                settled += 1;
                if item == 1 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
        .await;
        assert_eq!(settled, 2);
    }
}
