//! Every arrival order of an order and its cancellation.

use super::*;
use crate::testing::{effect, effects, permutations, store};

fn placed(total_cents: u64) -> OrderPlaced {
    OrderPlaced {
        order_id: "o-1".to_owned(),
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total_cents,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn cancelled() -> OrderCancelled {
    OrderCancelled {
        order_id: "o-1".to_owned(),
        reason: "changed my mind".to_owned(),
    }
}

async fn state(store: &mut SqliteConnection) -> String {
    sqlx::query_scalar("SELECT state FROM payments WHERE order_id = 'o-1'")
        .fetch_one(store)
        .await
        .unwrap()
}

#[test]
fn help_describes_the_service() {
    let help = command().render_long_help().to_string();
    assert!(help.starts_with(SERVICE.about), "{help}");
    assert!(
        help.contains("--provider-url") && help.contains("Examples:"),
        "{help}"
    );
}

#[tokio::test]
async fn totals_up_to_the_limit_are_authorized_larger_ones_declined() {
    for (total, authorized) in [
        (0, true),
        (AMOUNT_CENTS_MAX, true),
        (AMOUNT_CENTS_MAX + 1, false),
    ] {
        let mut store = store(SCHEMA).await;
        let decision = decide(&mut store, effect("e-1"), &placed(total), None)
            .await
            .unwrap();
        assert_eq!(
            matches!(decision, Some(Decision::Authorized(_))),
            authorized,
            "{decision:?}"
        );
        let expected = if authorized { "authorized" } else { "declined" };
        assert_eq!(state(&mut store).await, expected);
    }
}

#[tokio::test]
async fn an_order_is_decided_once() {
    let mut store = store(SCHEMA).await;
    assert!(
        decide(&mut store, effect("e-1"), &placed(100), None)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        decide(&mut store, effect("e-1"), &placed(100), None)
            .await
            .unwrap(),
        None
    );
    void(&mut store, effect("e-2"), &cancelled()).await.unwrap();
    assert_eq!(
        decide(&mut store, effect("e-1"), &placed(100), None)
            .await
            .unwrap(),
        None
    );
    assert_eq!(state(&mut store).await, "void");
    assert_eq!(effects(&mut store).await, ["e-1", "e-1", "e-2", "e-1"]);
}

#[tokio::test]
async fn a_cancelled_order_holds_no_authorization_whichever_event_comes_first() {
    for cancelled_at in permutations(&[true, false]) {
        let mut store = store(SCHEMA).await;
        let mut decisions = Vec::new();
        for is_cancellation in &cancelled_at {
            if *is_cancellation {
                void(&mut store, effect("e-2"), &cancelled()).await.unwrap();
            } else {
                decisions.extend(
                    decide(&mut store, effect("e-1"), &placed(100), None)
                        .await
                        .unwrap(),
                );
            }
        }
        assert_eq!(decisions.len(), 1);
        assert_ne!(state(&mut store).await, "authorized");
        let was_authorized = matches!(decisions[0], Decision::Authorized(_));
        assert_eq!(was_authorized, !cancelled_at[0]);
    }
}

#[tokio::test]
async fn an_amount_that_the_store_cannot_hold_is_refused() {
    let mut store = store(SCHEMA).await;
    assert!(
        decide(&mut store, effect("e-1"), &placed(u64::MAX), None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_providers_answer_counts_but_not_for_a_cancelled_order() {
    let authorized = || Answer::Authorized {
        authorization: "a-1".to_owned(),
    };
    let mut fresh = store(SCHEMA).await;
    let decision = decide(&mut fresh, effect("e-1"), &placed(100), Some(authorized())).await;
    let Ok(Some(Decision::Authorized(event))) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(event.authorization, "a-1");
    let mut fresh = store(SCHEMA).await;
    let decision = decide(
        &mut fresh,
        effect("e-1"),
        &placed(100),
        Some(Answer::Declined {
            reason: "no money".to_owned(),
        }),
    )
    .await;
    let Ok(Some(Decision::Declined(event))) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(event.reason, "no money");
    let mut cancelled_before = store(SCHEMA).await;
    void(&mut cancelled_before, effect("e-2"), &cancelled())
        .await
        .unwrap();
    let decision = decide(
        &mut cancelled_before,
        effect("e-1"),
        &placed(100),
        Some(authorized()),
    )
    .await;
    let Ok(Some(Decision::Declined(event))) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(event.reason, "the order was cancelled");
    let stored: (Option<i64>, Option<String>, Option<String>) =
        sqlx::query_as("SELECT amount_cents, authorization, reason FROM payments")
            .fetch_one(&mut cancelled_before)
            .await
            .unwrap();
    assert_eq!(stored, (Some(100), None, Some(event.reason)));
    assert_eq!(state(&mut cancelled_before).await, "declined");
}
