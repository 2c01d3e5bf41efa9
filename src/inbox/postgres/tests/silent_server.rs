//! A server that stops answering, and calls that are cancelled.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_begin_leaves_no_open_transaction() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let settings = PostgresSettings::new(EFFECTS).with_connections(1);
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    complete(fresh(&inbox, "before").await).await.unwrap();
    server.freeze().await.unwrap();
    let begins = (0..8).map(|_| {
        let begin = inbox.store().database.begin(statements::GUARD);
        tokio::time::timeout(Duration::from_millis(200), begin)
    });
    let begun = futures_util::future::join_all(begins).await;
    assert!(begun.iter().all(Result::is_err), "the server stands still");
    server.thaw().await.unwrap();
    for id in 0..8 {
        let claim = fresh(&inbox, &id.to_string()).await;
        complete(claim)
            .await
            .expect("no transaction was open before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_loses_its_connections() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let settings = PostgresSettings::new(EFFECTS)
        .with_connections(1)
        .with_lock_timeout(Duration::from_secs(1));
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    let claim = fresh(&inbox, "1").await;
    server.freeze().await.unwrap();
    let limit = ANSWER_LIMIT * 6;
    let completed = tokio::time::timeout(limit, complete(claim)).await;
    let error = completed.expect("it waits for ever").expect_err("silence");
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    server.thaw().await.unwrap();
    crate::testing::eventually("it goes on", limit, async || {
        match inbox.claim(&key("1")).await {
            Ok(Claimed::Fresh(claim)) => complete(claim).await.ok(),
            // The commit was already sent.
            Ok(Claimed::Duplicate { .. }) => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

/// With the default limits: 10 s for a lock, 20 s for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_server_is_detected_within_seconds() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let inbox = PostgresInbox::open(&url, EFFECTS).await.unwrap();
    let mut claim = fresh(&inbox, "1").await;
    let transaction = claim.transaction().expect("one");
    let mut transaction = transaction.downcast::<PostgresTx>().expect("of PostgreSQL");
    server.freeze().await.unwrap();
    let began = std::time::Instant::now();
    let statement = async {
        let sql = sqlx::query("SELECT 1");
        let _ = sql.execute(&mut **transaction).await;
    };
    let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
    let error: InboxError = tokio::select! {
        error = recalled => error,
        () = statement => panic!("it was answered"),
    };
    assert!(error.to_string().contains("no answer within"), "{error}");
    // One waits for an answer of its own, the others wait behind it.
    let others = (2..40).map(|id| {
        let inbox = inbox.clone();
        async move { inbox.claim(&key(&id.to_string())).await.map(drop) }
    });
    let others = futures_util::future::join_all(others).await;
    assert!(others.iter().all(Result::is_err));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop((transaction, claim));
    server.thaw().await.unwrap();
    crate::testing::eventually("it goes on", ANSWER_LIMIT * 6, async || {
        match inbox.claim(&key("1")).await {
            Ok(Claimed::Fresh(claim)) => complete(claim).await.ok(),
            Ok(Claimed::Duplicate { .. }) => panic!("it was undone"),
            Err(_) => None,
        }
    })
    .await;
}
