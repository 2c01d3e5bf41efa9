//! G3 where handlers share rows: transactions that are in each other's way cost no attempt and no dead letter.

use crate::support::{Case, Member, Step};
use evenkeel::event::Event;
use evenkeel::handler::{Context, HandlerError, Router, State};
use evenkeel::inbox::{PostgresInbox, PostgresTx};
use evenkeel::testing::{eventually, postgres};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const STOCK: &str =
    "CREATE TABLE IF NOT EXISTS stock (article bigint PRIMARY KEY, taken bigint NOT NULL)";

const TAKE: &str = "
    INSERT INTO stock VALUES ($1, 1) ON CONFLICT (article) DO UPDATE SET taken = stock.taken + 1";

const TAKEN: &str = "SELECT coalesce(sum(taken), 0)::bigint FROM stock";

/// So many rows are shared by all events; each event takes from two, in either order.
const ARTICLES: u64 = 20;

/// The highest attempt that a handler saw.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicU32>);

async fn take(
    event: Event<Step>,
    mut tx: PostgresTx,
    context: Context,
    State(attempts): State<Attempts>,
) -> Result<(), HandlerError> {
    attempts.0.fetch_max(context.attempt(), Ordering::Relaxed);
    let number = event.data.number;
    for article in [number % ARTICLES, number * 7 % ARTICLES] {
        let take = sqlx::query(TAKE).bind(article as i64);
        take.execute(&mut *tx).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_sharing_rows_count_no_attempt_and_lose_nothing() {
    const EVENTS: u64 = 2_000;
    let Some(case) = Case::new("it-g3-shared-rows", 4).await else {
        return;
    };
    let Some(postgres) = postgres().await else {
        return;
    };
    let url = postgres
        .database()
        .await
        .expect("the server creates a database");
    let publisher = case.publisher();
    let steps = (0..EVENTS).map(|number| case.step(&publisher, &format!("k{number}"), number));
    case.publish(steps.collect::<Vec<_>>()).await;

    let attempts = Attempts::default();
    let mut members = Vec::new();
    for _ in 0..2 {
        let inbox = PostgresInbox::open(&url, STOCK)
            .await
            .expect("the store opens");
        let router = Router::new().on(take).with_state(attempts.clone());
        let router = router.with_inbox(inbox);
        let member = Member::start_with(&case.kafka, case.settings(), router, None);
        member.joined().await;
        members.push(member);
    }
    let pool = sqlx::PgPool::connect(&url)
        .await
        .expect("the server takes a connection");
    eventually("all are taken", Duration::from_secs(120), || async {
        let taken: i64 = sqlx::query_scalar(TAKEN)
            .fetch_one(&pool)
            .await
            .expect("the query returns a row");
        (taken as u64 >= 2 * EVENTS).then_some(())
    })
    .await;
    case.all_committed().await;
    for member in members {
        let report = member.stop().await;
        assert_eq!((report.dead_letters, report.parked), (0, 0), "{report:?}");
    }
    let taken: i64 = sqlx::query_scalar(TAKEN)
        .fetch_one(&pool)
        .await
        .expect("the query returns a row");
    assert_eq!(taken as u64, 2 * EVENTS);
    assert_eq!(attempts.0.load(Ordering::Relaxed), 1, "no attempt counts");
}
