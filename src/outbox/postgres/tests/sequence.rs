//! The sequence of the row numbers, as an administrator or a failover may leave it.

use super::*;

/// With cached numbers the second of two commits of a key would be published first.
#[tokio::test]
async fn a_sequence_that_gives_sessions_numbers_in_stock_is_refused() {
    let Some(url) = database().await else { return };
    let stock = async |numbers: u32| {
        let outbox = PostgresOutbox::open(&url)
            .await
            .expect("numbers one by one");
        let set = format!("ALTER TABLE evenkeel_outbox ALTER COLUMN sequence SET CACHE {numbers}");
        let set = sqlx::raw_sql(sqlx::AssertSqlSafe(set));
        set.execute(outbox.pool()).await.expect("it is set");
        PostgresOutbox::open(&url).await
    };
    let refused = stock(50).await.expect_err("order would be lost");
    let refused = refused.to_string();
    assert!(
        refused.contains("caches 50 numbers") && refused.contains("SET CACHE 1"),
        "{refused}"
    );
}

/// A server that was filled by logical replication has the rows, but its sequence begins anew.
#[tokio::test]
async fn a_sequence_behind_the_rows_is_refused() {
    let Some(url) = database().await else { return };
    let first = outbox(&url).await;
    first.write(vec![record("k"), record("k")], true).await;
    outbox(&url).await;
    first.number_from(3).await;
    outbox(&url).await;
    first.number_from(1).await;
    let refused = PostgresOutbox::open(&url).await.err();
    let refused = refused.expect("order would be lost").to_string();
    let (_, repair) = refused.split_once("fix it with: ").expect("a repair");
    let repair = sqlx::raw_sql(sqlx::AssertSqlSafe(repair.to_owned()));
    repair.execute(first.pool()).await.expect("it is repaired");
    outbox(&url).await;
}
