//! Batches that fail, as a whole or in one event.

use super::*;

/// Fails while the event 2 is in the batch.
async fn refuse_2(
    events: Vec<Delivered<Paid>>,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    seen.see(&events);
    match events.iter().any(|paid| paid.event.data.cents == 2) {
        true => Err(HandlerError::permanent("2 is refused")),
        false => Ok(()),
    }
}

#[tokio::test]
async fn events_of_a_failed_batch_are_retried_alone() {
    let seen = Seen::default();
    let router = Router::new().on_batch(refuse_2).with_state(seen.clone());
    let mut router = router.with_inbox(MemoryInbox::default());
    let outcomes = deliver(&mut router, [1, 2, 3]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 3]);
    let again = deliver_again(&mut router, [1, 2, 3], 2).await;
    assert!(are_done(&again[..1]) && are_done(&again[2..]));
    assert_eq!(classes(&again[1..2]), [Class::Permanent], "it is alone");
    assert_eq!(seen.taken(), [&[1, 2, 3][..], &[1], &[2], &[3]]);
    let alone = deliver(&mut router, [2]).await;
    assert_eq!(classes(&alone), [Class::Permanent]);
}

#[tokio::test]
async fn an_unclassified_batch_error_dead_letters_no_neighbour() {
    let handle = async |_: Vec<Delivered<Paid>>| -> Result<(), HandlerError> {
        serde_json::from_str::<u32>("{").map(drop)?;
        Ok(())
    };
    let mut router = Router::new().on_batch(handle);
    let alone = classes(&deliver(&mut router, [1]).await);
    assert_eq!(alone, [Class::Permanent], "the classifier's word");
    let together = classes(&deliver(&mut router, [1, 2]).await);
    assert_eq!(together, [Class::Transient; 2]);
}

#[tokio::test]
async fn a_wrong_number_of_outcomes_fails_the_batch() {
    for count in [0, 2, 4] {
        let handle = move |_: Vec<Delivered<Paid>>| async move {
            (0..count).map(|_| Outcome::Done).collect::<Vec<_>>()
        };
        let mut router = Router::new()
            .on_batch(handle)
            .with_inbox(MemoryInbox::default());
        for _ in 0..2 {
            let outcomes = deliver(&mut router, 0..3).await;
            assert_eq!(classes(&outcomes), [Class::Transient; 3]);
        }
        let outcomes = deliver(&mut router, [7]).await;
        assert_eq!(classes(&outcomes), [Class::Permanent]);
        let message = format!("{:?}", outcomes[0]);
        assert!(message.contains("outcomes for 1 events"), "{message}");
    }
}

#[tokio::test]
async fn a_panic_dead_letters_its_own_event_only() {
    let handle = async |events: Vec<Delivered<Paid>>| {
        let found = events.iter().any(|paid| paid.event.data.cents == 2);
        assert!(!found, "2 is too much");
    };
    let mut router = Router::new()
        .on_batch(handle)
        .with_inbox(MemoryInbox::default());
    let outcomes = deliver(&mut router, [1, 2]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 2]);
    let again = deliver_again(&mut router, [1, 2], 2).await;
    assert!(are_done(&again[..1]));
    let Outcome::Dead(reason) = &again[1] else {
        panic!("{again:?}");
    };
    assert_eq!(reason.stage, Stage::Panic);
    assert!(reason.message.contains("2 is too much"), "{reason:?}");
}

/// An event whose drop panics if its amount is unlucky.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Touchy {
    cents: i64,
}

impl EventType for Touchy {
    const TYPE: &'static str = Paid::TYPE;
    const TOPIC: &'static str = Paid::TOPIC;

    fn key(&self) -> String {
        "account".to_owned()
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(self.cents != 13, "unlucky");
    }
}

#[tokio::test]
async fn a_panic_outside_the_handler_fails_the_batch_without_outage() {
    let forget = async |events: Vec<Delivered<Touchy>>| {
        events.into_iter().for_each(std::mem::forget);
    };
    let mut router = Router::new()
        .on_batch(forget)
        .with_inbox(MemoryInbox::default());
    assert!(are_done(&deliver(&mut router, [13]).await));
    // The batch itself drops it as a duplicate.
    let outcomes = deliver(&mut router, [13, 14]).await;
    assert!(matches!(outcomes[0], Outcome::Duplicate), "it is known");
    assert_eq!(classes(&outcomes[1..]), [Class::Transient]);
    assert!(are_done(&deliver(&mut router, [15]).await), "the next runs");
}
