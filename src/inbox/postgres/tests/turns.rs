//! The turns of a transaction that deliveries share: what is kept, what is undone, and what is
//! written at its end.

use super::*;
use crate::inbox::group_commit::tests::shared_turns;
use crate::inbox::group_commit::{GroupStore, Known, Level};
use crate::inbox::postgres::transaction::Open;

/// Begins a transaction with claims of these ids.
async fn claimed(inbox: &PostgresInbox, ids: &[&str]) -> Open {
    let keys: Vec<InboxKey> = ids.iter().map(|id| key(id)).collect();
    shared_turns::claimed(inbox.store(), &keys).await
}

async fn execute(open: &mut Open, sql: &'static str) {
    let executed = sqlx::raw_sql(sql).execute(&mut *open.transaction).await;
    executed.expect(sql);
}

/// The turn of a handler that writes an effect.
async fn write_in_turn(open: &mut Open, name: &str) {
    open.is_used = true;
    let insert = sqlx::query("INSERT INTO effects VALUES ($1)").bind(name);
    insert.execute(&mut *open.transaction).await.unwrap();
}

/// Turns without a handler use no savepoint: those of deliveries whose handlers name no
/// transaction.
#[tokio::test]
async fn an_undone_turn_leaves_the_turns_before_and_after_it() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let store = inbox.store();
    let ids = ["1", "2", "3", "4", "5", "6"];
    let mut open = claimed(&inbox, &ids).await;
    for id in ids {
        let has_handler = id != "2" && id != "4";
        if has_handler {
            write_in_turn(&mut open, id).await;
        }
        if id == "2" || id == "3" || id == "6" {
            store.undo_turn(&mut open, &key(id)).await.unwrap();
        }
        store.keep_turn(&mut open).await.unwrap();
    }
    shared_turns::commit(inbox.store(), open).await;
    for id in ids {
        let is_completed = id == "1" || id == "4" || id == "5";
        let has_effect = is_completed && id != "4";
        assert_eq!(count(&inbox, id).await, u64::from(has_effect), "{id}");
        assert_eq!(is_duplicate(&inbox, id).await, is_completed, "{id}");
    }
}

/// A batch is committed or rolled back as a whole. Of a single event it holds nothing while it
/// waits for its first row.
#[tokio::test]
async fn a_batch_has_no_savepoint_and_waits_briefly_for_locks() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let store = inbox.store();
    for (ids, expected) in [(&["1"][..], "10s"), (&["2", "3"][..], "30ms")] {
        let keys: Vec<InboxKey> = ids.iter().map(|id| key(id)).collect();
        let open = store.begin().await.unwrap();
        let claimed = store.claim_batch(open, &keys, Level::Parallel).await;
        let (mut open, known) = claimed.unwrap();
        assert!(known.iter().all(|known| matches!(known, Known::Nothing)));
        let timeout = sqlx::query_scalar("SHOW lock_timeout");
        let timeout: String = timeout.fetch_one(&mut *open.transaction).await.unwrap();
        assert_eq!(timeout, expected);
        let undo = sqlx::raw_sql("ROLLBACK TO SAVEPOINT evenkeel_claim");
        let error = undo.execute(&mut *open.transaction).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("3B001"), "{error}");
    }
}

/// After a rollback by hand another owner can complete the deliveries. A statement in no
/// transaction would change its rows: an event would be handled twice, or other events be published
/// for it.
#[tokio::test]
async fn after_a_rollback_the_completions_of_others_are_kept() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let store = inbox.store();
    let other = vec![conformance::record("of the other")];
    for (id, sql) in [("1", "ROLLBACK"), ("2", "ROLLBACK; BEGIN")] {
        let neighbour = format!("beside {id}");
        let mut open = claimed(&inbox, &[id, &neighbour]).await;
        write_in_turn(&mut open, id).await;
        execute(&mut open, sql).await;
        let claim = fresh(&inbox, id).await;
        claim.complete(other.clone()).await.unwrap();
        store.stage(&mut open, &key(id), vec![conformance::record("own")]);
        store.release_claims(&mut open, &[key(id)]).await.unwrap();
        let error = store.prepare(&mut open).await.unwrap_err();
        assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
        drop(open);
        match inbox.claim(&key(id)).await.unwrap() {
            Claimed::Fresh(_) => panic!("{sql}: the completion is gone"),
            Claimed::Duplicate { unsent } => assert_eq!(unsent, other, "{sql}"),
        }
    }
}

#[tokio::test]
async fn replies_are_stored_at_the_end_with_their_own_deliveries() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    shared_turns::check_replies(&inbox, inbox.store(), key).await;
}
