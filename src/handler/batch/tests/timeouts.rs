//! Deliveries that time out while they wait for their batch.

use super::*;

/// Records its drop.
struct SignalOnDrop(Arc<Semaphore>);

impl Drop for SignalOnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// The next batch runs, and may claim the same deliveries.
#[tokio::test]
async fn a_batch_of_timed_out_deliveries_is_cancelled() {
    let (started, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (start, end) = (Arc::clone(&started), Arc::clone(&ended));
    let handle = move |events: Vec<Delivered<Paid>>| {
        let signal = SignalOnDrop(Arc::clone(&end));
        start.add_permits(1);
        async move {
            let _signal = signal;
            if events.iter().any(|paid| paid.event.data.cents == 1) {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut router = Router::new()
        .on_batch(handle)
        .with_inbox(MemoryInbox::default());
    let mut calls: Vec<_> = (1..3).map(|id| router.call(delivery(id, 1))).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    started.acquire().await.expect("never closed").forget();
    drop(calls.pop());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.available_permits(), 0, "one waits still");
    drop(calls);
    let given_up = within(ended.acquire()).await;
    given_up.expect("never closed").forget();
    let again = deliver(&mut router, [2]).await;
    assert!(are_done(&again), "its claim was given back");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_batch_does_not_use_the_handlers_time() {
    let slow = async |events: Vec<Delivered<Paid>>, State(seen): State<Seen>| {
        seen.see(&events);
        // Three batches run one after the other, each within its own timeout.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if events.iter().any(|paid| paid.event.data.cents == 5) {
            std::future::pending::<()>().await;
        }
    };
    let seen = Seen::default();
    let router = Router::new().with_state(seen.clone());
    let router = router.on_batch_with(limits(2), slow);
    let limit = Some(Duration::from_secs(3));
    let calls = (0..6).map(|id| {
        let mut delivery = delivery(id, 1);
        let scope = DeliveryScope {
            handler_timeout: limit,
            ..DeliveryScope::clone(&delivery.scope)
        };
        delivery.scope = Arc::new(scope);
        let mut handler = crate::handler::Limited::new(router.clone(), limit);
        async move { handler.call(delivery).await }
    });
    let outcomes = within(join_all(calls)).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(|Ok(outcome)| outcome).collect();
    assert!(are_done(&outcomes[..4]), "{outcomes:?}");
    assert_eq!(classes(&outcomes[4..]), [Class::Timeout; 2]);
    let stage = |outcome: &Outcome| match outcome {
        Outcome::Retry(error) => error.stage(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(&outcomes[5]), crate::handler::Stage::Timeout);
}
