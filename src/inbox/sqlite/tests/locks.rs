//! The write lock of the file, between instances.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_long_queue_does_not_starve_another() {
    let file = File::new();
    let (busy, modest) = (file.open().await, file.open().await);
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (inbox, stop) = (busy.clone(), stop.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    let claim = fresh(&inbox, &format!("busy {writer} {n}")).await;
                    // A slow handler: the lock is held nearly all the time.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    claim.complete(Vec::new()).await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..10 {
        let claim = fresh(&modest, &format!("modest {n}")).await;
        claim.complete(Vec::new()).await.unwrap();
    }
    stop.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_lock_is_unavailable_until_it_is_released() {
    let file = File::new();
    let (keeper, other) = (file.open().await, file.open_impatient().await);
    let kept = fresh(&keeper, "1").await;
    match other.claim(&key("2")).await {
        Err(error @ InboxError::Unavailable(_)) => {
            let message = error.to_string();
            assert!(
                message.contains("another process holds the write lock"),
                "{message}"
            );
            assert!(message.contains("store.db"), "{message}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("two writers at once"),
    }
    kept.complete(Vec::new()).await.unwrap();
    fresh(&other, "2").await.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&other, "1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_claims_on_a_locked_file_fail_within_seconds() {
    let file = File::new();
    let inbox = file.open().await;
    let path = format!("sqlite:{}", file.path().display());
    let mut locker = SqliteConnection::connect(&path).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut locker)
        .await
        .unwrap();
    let began = std::time::Instant::now();
    let claims = (0..40).map(|id| {
        let inbox = inbox.clone();
        async move { inbox.claim(&key(&id.to_string())).await.map(drop) }
    });
    let claimed = futures_util::future::join_all(claims).await;
    assert!(
        claimed
            .iter()
            .all(|claimed| matches!(claimed, Err(InboxError::Unavailable(_))))
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    sqlx::raw_sql("COMMIT").execute(&mut locker).await.unwrap();
    drop(fresh(&inbox, "1").await);
}
