//! Opening a file: its owner, its version, its migration, and files that are refused.

use super::*;

async fn refused(path: &Path, group: &str) -> String {
    match SqliteInbox::open(path, group, SCHEMA).await {
        Err(InboxError::Foreign { path, reason }) => format!("{path} {reason}"),
        Err(error) => panic!("refused, but as {error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_instances_can_open_a_new_file() {
    let file = Arc::new(File::new());
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let file = file.clone();
            tokio::spawn(async move { file.open().await })
        })
        .collect();
    for opener in openers {
        let inbox = opener.await.unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(inbox.pool())
            .await
            .unwrap();
        assert_eq!(mode, "wal");
    }
}

#[tokio::test]
async fn a_foreign_or_newer_store_is_refused_untouched() {
    let file = File::new();
    file.open().await.close().await;
    let message = refused(&file.path(), "inventory").await;
    assert!(
        message.contains("belongs to the group \"payments\""),
        "{message}"
    );
    assert!(message.contains("store of its own"), "{message}");

    let mut connection = connect(&file).await;
    let newer = (tables::VERSION + 1).to_string();
    sqlx::query("UPDATE evenkeel_meta SET value = ? WHERE name = 'version'")
        .bind(&newer)
        .execute(&mut connection)
        .await
        .unwrap();
    let message = refused(&file.path(), "payments").await;
    assert!(message.contains("run the newer release"), "{message}");
    let stored: String =
        sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = 'version'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(stored, newer, "a refused store is not written to");
}

#[tokio::test]
async fn a_store_of_version_one_is_migrated() {
    let file = File::new();
    let inbox = file.open().await;
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    inbox.close().await;
    let mut connection = connect(&file).await;
    sqlx::raw_sql(
        "ALTER TABLE evenkeel_inbox DROP COLUMN content;
         UPDATE evenkeel_meta SET value = '1' WHERE name = 'version';
         INSERT INTO evenkeel_inbox SELECT consumer_group, handler, source, '2', NULL, NULL FROM evenkeel_inbox",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    drop(connection);
    let inbox = file.open().await;
    assert!(is_duplicate(&inbox, "1").await);
    // A row left by a handler that committed by hand: it was never completed.
    fresh(&inbox, "2").await.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&inbox, "2").await);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let file = File::new();
    std::fs::write(
        file.path(),
        "not a database, but long enough to have a header".repeat(4),
    )
    .unwrap();
    let message = refused(&file.path(), "payments").await;
    assert!(message.contains("is no SQLite database"), "{message}");
    let message = refused(Path::new(":memory:"), "payments").await;
    assert!(message.contains("is no file"), "{message}");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_reports_the_remedy() {
    let file = File::new();
    let path = file.directory.path().join("absent").join("store.db");
    match SqliteInbox::open(&path, "payments", SCHEMA).await {
        Err(error @ InboxError::NotWritable(_)) => {
            let message = error.to_string();
            assert!(message.contains("directory exists"), "{message}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn only_a_store_of_the_group_and_version_is_read() {
    let file = File::new();
    let open = async |group| SqliteCompletions::open(&file.path(), group).await;
    assert!(open("payments").await.is_err());
    assert!(!file.path().exists(), "looking makes no file");
    let _inbox = file.open().await;
    let error = open("another").await.err().unwrap();
    assert!(matches!(error, InboxError::Foreign { .. }), "{error}");
    for (version, is_readable) in [("2", false), ("3", true), ("4", false)] {
        sqlx::query("UPDATE evenkeel_meta SET value = ? WHERE name = 'version'")
            .bind(version)
            .execute(&mut connect(&file).await)
            .await
            .unwrap();
        assert_eq!(open("payments").await.is_ok(), is_readable, "{version}");
    }
}

/// SQLite would go on with a file that nobody can read, and the offsets would be committed.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_in_its_place_is_not_written() {
    let file = File::new();
    let inbox = file.open().await;
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    let wal = file.directory.path().join("store.db-wal");
    let elsewhere = file.directory.path().join("moved");
    for moved in [file.path(), wal] {
        std::fs::rename(&moved, &elsewhere).unwrap();
        let refused = async || match inbox.claim(&key("2")).await {
            Err(error @ InboxError::NotWritable(_)) => Some(error.to_string()),
            Err(error) => panic!("{error:?}"),
            Ok(_) => None,
        };
        let within = Duration::from_secs(20);
        let message = crate::testing::eventually("it is noticed", within, refused).await;
        assert!(message.contains("moved or replaced"), "{message}");
        std::fs::write(&moved, "another file").unwrap();
        let refused = inbox.claim(&key("2")).await;
        assert!(matches!(refused, Err(InboxError::NotWritable(_))));
        std::fs::rename(&elsewhere, &moved).unwrap();
        assert!(is_duplicate(&inbox, "1").await, "it is back");
    }
}
