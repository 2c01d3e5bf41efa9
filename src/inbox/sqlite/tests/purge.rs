//! Purging: what is deleted, and the reported watermark.

use super::*;

#[tokio::test]
async fn purging_forgets_old_completions_in_batches_and_keeps_young_ones() {
    let file = File::new();
    let inbox = file.open().await;
    for id in 0..25 {
        fresh(&inbox, &id.to_string())
            .await
            .complete(Vec::new())
            .await
            .unwrap();
    }
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 0);
    sqlx::query("UPDATE evenkeel_inbox SET completed_at = completed_at - ? WHERE id <> '7'")
        .bind(2 * 24 * 3600 * 1000_i64)
        .execute(&mut connect(&file).await)
        .await
        .unwrap();
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 24);
    assert!(is_duplicate(&inbox, "7").await);
    assert!(!is_duplicate(&inbox, "8").await);
}

struct Purged(SqliteInbox, PathBuf);

impl Forgetting for Purged {
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A delivery completed in this very millisecond is not older than it.
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.0.purge(Duration::ZERO, 10).await.unwrap();
        })
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        let path = self.1.clone();
        Box::pin(async move {
            let inbox = SqliteInbox::open(&path, "payments", SCHEMA).await.unwrap();
            Arc::new(inbox) as Arc<dyn Inbox>
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_inbox_reports_its_purge_watermark() {
    let file = File::new();
    conformance::check_forgetting(Arc::new(Purged(file.open().await, file.path()))).await;
}

/// A purge that deletes nothing sets no time.
#[tokio::test]
async fn purges_that_delete_less_never_lower_the_forgotten_time() {
    let file = File::new();
    let inbox = file.open().await;
    inbox.purge(Duration::ZERO, 10).await.unwrap();
    assert_eq!(inbox.forgotten_before_ms(), None);
    for (id, completed_ms) in [("1", 5_000), ("2", 1_000)] {
        fresh(&inbox, id).await.complete(Vec::new()).await.unwrap();
        sqlx::query("UPDATE evenkeel_inbox SET completed_at = ? WHERE id = ?")
            .bind(completed_ms)
            .bind(id)
            .execute(&mut connect(&file).await)
            .await
            .unwrap();
        inbox.purge(Duration::from_secs(60), 10).await.unwrap();
        // A process opened later knows the stored time, and no more.
        let later = file.open().await;
        drop(fresh(&later, "later").await);
        assert_eq!(later.forgotten_before_ms(), Some(5_001));
        assert_eq!(inbox.forgotten_before_ms(), Some(5_001));
    }
}
