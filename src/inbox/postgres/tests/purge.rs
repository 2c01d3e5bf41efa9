//! Purging: what is deleted, and the reported watermark.

use super::*;

#[tokio::test]
async fn purging_forgets_old_completions_in_batches_and_keeps_young_ones() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    for id in 0..25 {
        complete(fresh(&inbox, &id.to_string()).await)
            .await
            .unwrap();
    }
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 0);
    sqlx::raw_sql(
        "UPDATE evenkeel_inbox SET completed_at = completed_at - interval '2 days' WHERE id <> '7'",
    )
    .execute(inbox.pool())
    .await
    .unwrap();
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 24);
    assert!(is_duplicate(&inbox, "7").await);
    assert!(!is_duplicate(&inbox, "8").await);
}

struct Purged(PostgresInbox, String);

impl Forgetting for Purged {
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.0
                .purge(Duration::ZERO, 10)
                .await
                .expect("the purge succeeds");
        })
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        let url = self.1.clone();
        Box::pin(async move { Arc::new(open(&url).await) as Arc<dyn Inbox> })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_reports_its_purge_watermark() {
    let Some(url) = database().await else { return };
    conformance::check_forgetting(Arc::new(Purged(open(&url).await, url))).await;
}

/// A purge that deletes nothing sets no time.
#[tokio::test]
async fn purges_that_delete_less_never_lower_the_forgotten_time() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    inbox
        .purge(Duration::ZERO, 10)
        .await
        .expect("the purge succeeds");
    assert_eq!(inbox.forgotten_before_ms(), None);
    for (id, completed_s) in [("1", 5.0), ("2", 1.0)] {
        complete(fresh(&inbox, id).await)
            .await
            .expect("the claim completes");
        let set = "UPDATE evenkeel_inbox SET completed_at = to_timestamp($1) WHERE id = $2";
        let set = sqlx::query(set).bind(completed_s).bind(id);
        set.execute(inbox.pool())
            .await
            .expect("the statement succeeds");
        let hour = Duration::from_secs(3600);
        assert_eq!(inbox.purge(hour, 10).await.expect("the purge succeeds"), 1);
        // A process opened later knows the stored time, and no more.
        let later = open(&url).await;
        drop(fresh(&later, "later").await);
        assert_eq!(later.forgotten_before_ms(), Some(5_001));
        assert_eq!(inbox.forgotten_before_ms(), Some(5_001));
    }
}
