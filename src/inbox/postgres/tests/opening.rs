//! Opening a store: its version, its migration, and a server that cannot be reached.

use super::*;

#[tokio::test]
async fn concurrent_instances_can_open_an_empty_database() {
    let Some(url) = database().await else { return };
    let opened = (0..8).map(|_| open(&url));
    for inbox in futures_util::future::join_all(opened).await {
        complete(fresh(&inbox, &crate::event::new_id()).await)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_outdated_or_newer_database_is_refused() {
    let Some(url) = database().await else { return };
    let settings = PostgresSettings::new(EFFECTS).with_migration(Migration::Elsewhere);
    let refused = async || match PostgresInbox::open_with(&url, &settings).await {
        Err(error @ InboxError::Foreign { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    };
    assert!(refused().await.contains("evenkeel store migrate"));
    let versions = async || PostgresInbox::versions(&url).await.unwrap().unwrap();
    let before = versions().await;
    assert_eq!((before.stored, before.newest), (0, tables::VERSION));
    let inbox = open(&url).await;
    assert_eq!(versions().await.stored, tables::VERSION);
    let of_sqlite = PostgresInbox::versions("sqlite:service.db").await;
    assert!(of_sqlite.unwrap().is_none());
    PostgresInbox::open_with(&url, &settings).await.unwrap();
    sqlx::raw_sql("UPDATE evenkeel_meta SET value = '99' WHERE name = 'version'")
        .execute(inbox.pool())
        .await
        .unwrap();
    assert!(refused().await.contains("newer release"));
    assert!(PostgresInbox::open(&url, "").await.is_err());
}

#[tokio::test]
async fn an_older_database_is_migrated() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    complete(fresh(&inbox, "1").await).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE evenkeel_inbox DROP COLUMN content;
         UPDATE evenkeel_meta SET value = '3' WHERE name = 'version'",
    )
    .execute(inbox.pool())
    .await
    .unwrap();
    inbox.close().await;
    let inbox = open(&url).await;
    // The content of its event is not known.
    let said = InboxKey {
        content: Some(crate::event::ContentDigest::of_event("test.said.v1", b"")),
        ..key("1")
    };
    let again = inbox.claim(&said).await.unwrap();
    assert!(matches!(again, Claimed::Duplicate { .. }));
}

#[tokio::test]
async fn an_unavailable_server_is_reported_without_the_password() {
    let settings = PostgresSettings::new("").with_lock_timeout(Duration::from_millis(300));
    let url = "postgres://user:secret@127.0.0.1:1/database";
    let Err(error) = PostgresInbox::open_with(url, &settings).await else {
        panic!("there is no server");
    };
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    let message = format!("{error} {error:?}");
    assert!(!message.contains("secret"), "{message}");
    let Err(error) = PostgresInbox::open("no url with a secret", "").await else {
        panic!("that is no URL");
    };
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn opening_and_claims_do_not_wait_for_each_other() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "1").await.unwrap();
    let slow = PostgresSettings::new("SELECT pg_sleep(3)");
    let opening = PostgresInbox::open_with(&url, &slow);
    let working = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = std::time::Instant::now();
        complete(fresh(&inbox, "2").await).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "it waited");
    };
    let (opened, ()) = tokio::join!(opening, working);
    opened.unwrap();
    drop(transaction);
    complete(claim).await.unwrap();
}
