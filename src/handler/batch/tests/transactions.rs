//! The transaction that a batch shares.

use super::*;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS paid (cents INTEGER NOT NULL)";

async fn sqlite() -> (tempfile::TempDir, SqliteInbox) {
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let path = folder.path().join("store.db");
    let inbox = SqliteInbox::open(&path, "group", TABLE).await;
    (folder, inbox.expect("a store"))
}

async fn paid(inbox: &SqliteInbox) -> Vec<i64> {
    let paid = sqlx::query_scalar("SELECT cents FROM paid ORDER BY cents");
    paid.fetch_all(inbox.pool())
        .await
        .expect("the query returns its rows")
}

/// Writes a row for each event, except for amounts above 10, which fail. A batch with the event 0
/// fails as a whole.
pub(super) async fn pay(
    events: Vec<Delivered<Paid>>,
    mut tx: SqliteTx,
    State(seen): State<Seen>,
) -> Result<Vec<Outcome>, HandlerError> {
    seen.see(&events);
    let mut outcomes = Vec::new();
    for paid in events {
        let cents = paid.event.data.cents;
        outcomes.push(if cents > 10 {
            Outcome::Retry(HandlerError::transient("too much"))
        } else {
            let insert = sqlx::query("INSERT INTO paid VALUES (?)").bind(cents);
            insert.execute(&mut *tx).await?;
            Outcome::Done
        });
        if cents == 0 {
            return Err(HandlerError::transient("nothing"));
        }
    }
    Ok(outcomes)
}

#[tokio::test]
async fn a_batch_has_one_transaction_and_failed_events_stay_fresh() {
    let (_folder, inbox) = sqlite().await;
    let seen = Seen::default();
    let router = Router::new().on_batch(pay).with_state(seen.clone());
    let mut router = router.with_inbox(inbox.clone());
    router.validate().expect("it has what it needs");
    for _ in 0..2 {
        let outcomes = deliver(&mut router, [1, 11, 2]).await;
        assert_eq!(classes(&outcomes[1..2]), [Class::Transient]);
        assert_eq!(paid(&inbox).await, [1, 2]);
    }
    assert_eq!(seen.taken(), [&[1, 11, 2][..], &[11]]);
    let outcomes = deliver(&mut router, [3, 0, 4]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 3]);
    assert_eq!(paid(&inbox).await, [1, 2], "all of it is undone");
    assert!(are_done(&deliver(&mut router, [3, 4]).await));
    assert_eq!(paid(&inbox).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_failed_commit_completes_none_and_keeps_earlier_outcomes() {
    let (_folder, inbox) = sqlite().await;
    let handle = async |events: Vec<Delivered<Paid>>, mut tx: SqliteTx| {
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await?;
        let outcomes = events.iter().map(|paid| match paid.event.data.cents {
            11 => Outcome::Retry(HandlerError::permanent("too much")),
            _ => Outcome::Done,
        });
        Ok::<_, HandlerError>(outcomes.collect::<Vec<_>>())
    };
    let mut router = Router::new().on_batch(handle).with_inbox(inbox);
    for _ in 0..2 {
        let outcomes = deliver(&mut router, [1, 11, 2]).await;
        let expected = [Class::Transient, Class::Permanent, Class::Transient];
        assert_eq!(classes(&outcomes), expected);
        let message = format!("{:?}", outcomes[0]);
        assert!(message.contains("misused"), "{message}");
    }
}

#[tokio::test]
async fn a_batch_handler_that_names_no_transaction_holds_none() {
    async fn wait(_: Vec<Delivered<Paid>>, State(gate): State<Arc<Semaphore>>) {
        let _ = gate.acquire().await;
    }
    let (_folder, inbox) = sqlite().await;
    let gate = Arc::new(Semaphore::new(0));
    let router = Router::new().on_batch(wait).with_state(Arc::clone(&gate));
    let mut router = router.with_inbox(inbox.clone());
    let other = InboxKey {
        group: "group".to_owned(),
        handler: "another".to_owned(),
        source: "/test".to_owned(),
        id: "1".to_owned(),
        content: None,
    };
    let beside = async {
        let Ok(Claimed::Fresh(claim)) = inbox.claim(&other).await else {
            panic!("it is new");
        };
        claim
            .complete(Vec::new())
            .await
            .expect("the claim completes");
        gate.add_permits(1);
    };
    let (outcomes, ()) = tokio::join!(deliver(&mut router, [1, 2, 3]), within(beside));
    assert!(are_done(&outcomes), "{outcomes:?}");
    let again = deliver(&mut router, [1, 2, 3]).await;
    let mut again = again.iter();
    assert!(again.all(|outcome| matches!(outcome, Outcome::Duplicate)));
}

/// A transactional store without support for batches.
struct Single(SqliteInbox);

impl Inbox for Single {
    fn claim<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> crate::inbox::BoxFuture<'a, Result<Claimed, InboxError>> {
        self.0.claim(key)
    }

    fn sent(&self, key: &InboxKey) {
        self.0.sent(key);
    }

    fn transaction_type(&self) -> Option<TypeId> {
        self.0.transaction_type()
    }
}

#[tokio::test]
async fn without_batch_support_a_transactional_store_handles_events_singly() {
    let (_folder, inbox) = sqlite().await;
    let seen = Seen::default();
    let router = Router::new().on_batch(pay).with_state(seen.clone());
    let mut router = router.with_inbox(Single(inbox.clone()));
    assert!(are_done(&deliver(&mut router, [1, 2, 3]).await));
    assert_eq!(seen.taken(), [[1], [2], [3]]);
    assert_eq!(paid(&inbox).await, [1, 2, 3]);
}
