//! The turns of a transaction that deliveries share: what is kept, what is undone, and what is
//! written at its end.

use super::*;
use crate::inbox::group_commit::GroupStore;
use crate::inbox::group_commit::tests::shared_turns;
use crate::inbox::sqlite::statements::{FORGET_REPLIES, RELEASE_CLAIMS};
use crate::inbox::sqlite::transaction::Held;
use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, Row};

/// Begins a transaction with claims of these ids.
async fn claimed(inbox: &SqliteInbox, ids: &[&str]) -> Held {
    let keys: Vec<InboxKey> = ids.iter().map(|id| key(id)).collect();
    shared_turns::claimed(inbox.store(), &keys).await
}

async fn execute(held: &mut Held, sql: &'static str) {
    let executed = sqlx::raw_sql(sql).execute(&mut *held.transaction).await;
    executed.expect(sql);
}

/// Sends a statement that nobody waits for, like a handler that gave up waiting.
fn send(held: &mut Held, sql: &'static str) {
    let executed = sqlx::raw_sql(sql).execute(&mut *held.transaction);
    assert!(executed.now_or_never().is_none(), "{sql}");
}

/// Keeps the connection's thread busy for longer than a test takes to send its statements.
const SLOW: &str = "
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500000)
    SELECT count(*) FROM numbers";

/// The turn of a handler that writes an effect.
async fn write_in_turn(held: &mut Held, name: &str) {
    held.begin_turn();
    let insert = sqlx::query("INSERT INTO effects (name) VALUES (?)").bind(name);
    insert.execute(&mut *held.transaction).await.unwrap();
}

#[tokio::test]
async fn an_undone_turn_leaves_the_turns_before_and_after_it() {
    let file = File::new();
    let inbox = file.open().await;
    let store = inbox.store();
    let ids = ["1", "2", "3", "4"];
    let mut held = claimed(&inbox, &ids).await;
    for id in ids {
        write_in_turn(&mut held, id).await;
        if id == "2" || id == "4" {
            store.undo_turn(&mut held, &key(id)).await.unwrap();
        }
        store.keep_turn(&mut held).await.unwrap();
    }
    shared_turns::commit(inbox.store(), held).await;
    for id in ids {
        let is_kept = id == "1" || id == "3";
        assert_eq!(count(&inbox, id).await, u64::from(is_kept), "{id}");
        assert_eq!(is_duplicate(&inbox, id).await, is_kept, "{id}");
    }
}

/// A delivery whose handler names no transaction has a turn without a savepoint.
#[tokio::test]
async fn a_turn_without_a_handler_undoes_its_claim_only() {
    let file = File::new();
    let inbox = file.open().await;
    let store = inbox.store();
    let mut held = claimed(&inbox, &["1", "2"]).await;
    write_in_turn(&mut held, "1").await;
    store.keep_turn(&mut held).await.unwrap();
    store.undo_turn(&mut held, &key("2")).await.unwrap();
    shared_turns::commit(inbox.store(), held).await;
    assert_eq!(count(&inbox, "1").await, 1);
    assert!(is_duplicate(&inbox, "1").await && !is_duplicate(&inbox, "2").await);
}

/// The next handler would otherwise write outside of the transaction.
#[tokio::test]
async fn a_rollback_by_hand_is_found_before_the_next_turn() {
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let file = File::new();
        let inbox = file.open().await;
        let store = inbox.store();
        let mut held = claimed(&inbox, &["1", "2"]).await;
        write_in_turn(&mut held, "1").await;
        execute(&mut held, sql).await;
        let error = store.keep_turn(&mut held).await.unwrap_err();
        assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
        let error = store.undo_turn(&mut held, &key("1")).await.unwrap_err();
        assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
        drop(held);
        let held = claimed(&inbox, &["1", "2"]).await;
        shared_turns::commit(inbox.store(), held).await;
        assert_eq!(count(&inbox, "1").await, 0, "{sql}");
    }
}

/// The handler no longer waited for the statement that rolled back, and nobody noticed the end. The
/// savepoint of the second turn begins a transaction, and its release would commit it.
#[tokio::test]
async fn turns_after_an_unnoticed_rollback_commit_nothing() {
    let file = File::new();
    let inbox = file.open().await;
    let ids = ["1", "2", "3"];
    let mut held = claimed(&inbox, &ids).await;
    write_in_turn(&mut held, "1").await;
    execute(&mut held, "ROLLBACK").await;
    write_in_turn(&mut held, "2").await;
    write_in_turn(&mut held, "3").await;
    let error = inbox.store().prepare(&mut held).await.unwrap_err();
    assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    drop(held);
    for id in ids {
        assert_eq!(count(&inbox, id).await, 0, "{id}");
        assert!(!is_duplicate(&inbox, id).await, "{id}");
    }
}

/// The first handler did not wait for its `ROLLBACK`, which is executed after its turn.
#[tokio::test]
async fn a_rollback_after_its_turn_blames_no_other_turn() {
    for has_handler in [true, false] {
        let file = File::new();
        let inbox = file.open().await;
        let store = inbox.store();
        let mut held = claimed(&inbox, &["1", "2"]).await;
        write_in_turn(&mut held, "1").await;
        store.keep_turn(&mut held).await.unwrap();
        execute(&mut held, "ROLLBACK").await;
        if has_handler {
            write_in_turn(&mut held, "2").await;
        }
        let error = store.prepare(&mut held).await.unwrap_err();
        assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_rollback_that_nobody_waits_for_is_found_before_the_commit() {
    let file = File::new();
    let inbox = file.open().await;
    let mut held = claimed(&inbox, &["1"]).await;
    write_in_turn(&mut held, "1").await;
    send(&mut held, SLOW);
    send(&mut held, "ROLLBACK");
    let error = inbox.store().prepare(&mut held).await.unwrap_err();
    assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
    drop(held);
    assert!(!is_duplicate(&inbox, "1").await);
}

/// A savepoint that found the queue of the thread full would not be sent.
#[tokio::test]
async fn every_turn_has_its_savepoint_while_the_connection_is_busy() {
    let file = File::new();
    let inbox = file.open().await;
    let store = inbox.store();
    let mut held = claimed(&inbox, &["1", "2"]).await;
    write_in_turn(&mut held, "1").await;
    send(&mut held, SLOW);
    for _ in 0..200 {
        store.keep_turn(&mut held).await.unwrap();
        held.begin_turn();
    }
    let insert = sqlx::query("INSERT INTO effects (name) VALUES ('2')");
    insert.execute(&mut *held.transaction).await.unwrap();
    store.undo_turn(&mut held, &key("2")).await.unwrap();
    store.keep_turn(&mut held).await.unwrap();
    shared_turns::commit(inbox.store(), held).await;
    assert_eq!(count(&inbox, "1").await, 1);
    assert_eq!(count(&inbox, "2").await, 0);
    assert!(is_duplicate(&inbox, "1").await && !is_duplicate(&inbox, "2").await);
}

/// After a rollback another process can complete the deliveries. A release in no transaction would
/// delete its rows, and the events would be handled twice.
#[tokio::test]
async fn a_release_after_a_rollback_keeps_the_completions_of_others() {
    for is_undo in [false, true] {
        let file = File::new();
        let (inbox, other) = (file.open().await, file.open().await);
        let mut held = claimed(&inbox, &["1"]).await;
        execute(&mut held, "ROLLBACK").await;
        let claim = fresh(&other, "1").await;
        claim.complete(Vec::new()).await.unwrap();
        let released = match is_undo {
            true => inbox.store().undo_turn(&mut held, &key("1")).await,
            false => inbox.store().release_claims(&mut held, &[key("1")]).await,
        };
        let error = released.unwrap_err();
        assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
        drop(held);
        assert!(is_duplicate(&other, "1").await);
    }
}

/// Nobody reads the answer to a savepoint: the undo must notice that there is none.
#[tokio::test]
async fn an_undo_without_its_savepoint_undoes_no_other_turn() {
    let file = File::new();
    let inbox = file.open().await;
    let store = inbox.store();
    let mut held = claimed(&inbox, &["1", "2"]).await;
    write_in_turn(&mut held, "1").await;
    store.keep_turn(&mut held).await.unwrap();
    write_in_turn(&mut held, "2").await;
    execute(&mut held, "RELEASE evenkeel_2").await;
    let error = store.undo_turn(&mut held, &key("2")).await.unwrap_err();
    assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    let written = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects");
    let written = written.fetch_one(&mut *held.transaction).await.unwrap();
    assert_eq!(
        written, 2,
        "the transaction is lost as a whole, or not at all"
    );
}

#[tokio::test]
async fn replies_are_stored_at_the_end_with_their_own_deliveries() {
    let file = File::new();
    let inbox = file.open().await;
    shared_turns::check_replies(&inbox, inbox.store(), key).await;
}

/// Otherwise each would read the whole table, which keeps the deliveries of weeks.
#[tokio::test]
async fn lists_of_keys_are_looked_up_by_the_primary_key() {
    let file = File::new();
    let inbox = file.open().await;
    for sql in [RELEASE_CLAIMS, FORGET_REPLIES] {
        let sql = sql.replace("/*keys*/", "(?, ?, ?, ?), (?, ?, ?, ?)");
        let plan = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let plan = plan.fetch_all(inbox.pool()).await.unwrap();
        let mut steps = plan.iter().map(|row| row.get::<String, _>("detail"));
        let is_looked_up = steps.any(|step| step.contains("SEARCH evenkeel_inbox USING PRIMARY"));
        assert!(is_looked_up, "{sql}");
    }
}
