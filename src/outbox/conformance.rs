//! The suite that every outbox store passes.
//!
//! Owns the contract of [`Store`] as executable cases. Knows no store: each store provides a
//! [`Writer`] that writes in a transaction and commits it or rolls it back. The suite needs an
//! empty store for itself.

use super::store::{Page, RelaysAndLeases, RowId, Store};
use crate::event::{Headers, OutgoingRecord};
use crate::outbox::row::{self, SLOTS};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::time::Duration;

/// A service that publishes through the outbox.
pub(crate) trait Writer: Send + Sync {
    /// Writes the records in one transaction, and commits it or rolls it back.
    fn write(&self, records: Vec<OutgoingRecord>, commit: bool) -> BoxFuture<'_, ()>;
    /// Gives the next row this number, which another row had before.
    fn number_from(&self, sequence: i64) -> BoxFuture<'_, ()>;
}

/// Commits a transaction, or rolls it back.
pub(super) async fn end<D: sqlx::Database>(transaction: sqlx::Transaction<'_, D>, commit: bool) {
    let ended = match commit {
        true => transaction.commit().await,
        false => transaction.rollback().await,
    };
    ended.expect("the transaction ends");
}

/// Longer than any case takes on a slow machine.
const SUITE_LIMIT: Duration = Duration::from_secs(60);

/// A lease that does not expire during the suite.
const LONG_LEASE: Duration = Duration::from_secs(600);

/// Runs the whole suite.
pub(crate) async fn check(store: &dyn Store, writer: &dyn Writer) {
    let run = async {
        a_record_is_stored_and_read_unchanged(store, writer).await;
        only_committed_rows_are_read(store, writer).await;
        a_page_holds_the_first_rows_within_its_limits(store, writer).await;
        excluded_keys_and_topics_are_not_read(store, writer).await;
        a_marked_row_is_shown_with_its_reason(store, writer).await;
        many_rows_are_marked_at_once_each_with_its_own_reason(store, writer).await;
        another_row_with_a_deleted_rows_number_is_kept(store, writer).await;
        a_slot_has_one_relay_until_its_lease_ends(store).await;
        a_relay_that_leaves_releases_everything(store).await;
        a_relay_that_deregisters_keeps_its_slots(store).await;
        a_relay_leaves_only_to_another_one_and_keeps_its_slots(store).await;
        of_relays_that_leave_at_once_one_remains(store).await;
        a_lease_from_before_the_clock_was_set_back_is_freed(store).await;
    };
    tokio::time::timeout(SUITE_LIMIT, run)
        .await
        .expect("the store stands still");
}

/// A small record of a topic and key.
fn record(topic: &str, key: &str) -> OutgoingRecord {
    OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::from_static(b"{}")),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

/// A request for all rows.
fn everything() -> Page {
    Page {
        slots: (0..SLOTS).collect(),
        rows_max: 1_000,
        bytes_max: 1 << 30,
        ..Page::default()
    }
}

/// The topics and keys of a page, and whether it is whole.
async fn read(store: &dyn Store, page: &Page) -> (Vec<(String, String)>, bool) {
    let read = store.read(page).await.expect("readable");
    let name = |row: super::store::StoredRow| {
        let record = row.record.expect("our own record");
        let key = record.key.expect("a key");
        (record.topic, String::from_utf8_lossy(&key).into_owned())
    };
    (read.rows.into_iter().map(name).collect(), read.is_whole)
}

/// Topics and keys as [`read`] returns them.
fn topics_and_keys(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let name = |(topic, key): &(&str, &str)| ((*topic).to_owned(), (*key).to_owned());
    pairs.iter().map(name).collect()
}

/// Deletes all rows, so that the next case begins with an empty store.
async fn clear(store: &dyn Store) {
    let read = store.read(&everything()).await.expect("readable");
    let rows: Vec<RowId> = read.rows.into_iter().map(|row| row.id).collect();
    store.delete(&rows).await.expect("deleted");
    // A second time, because a relay cannot know whether its first request arrived.
    store.delete(&rows).await.expect("gone already");
    assert!(store.is_drained(&[]).await.expect("an answer"));
}

/// Any record comes back byte for byte: repeated and binary headers, binary keys, absent and empty
/// values.
async fn a_record_is_stored_and_read_unchanged(store: &dyn Store, writer: &dyn Writer) {
    let mut event = record("t", "k'\"\u{1F600}");
    event.headers.push("ce_id", Some(b"1"));
    event.headers.push("twice", Some(b"a"));
    event.headers.push("twice", Some(&[0, 0xff]));
    event.headers.push_bytes(&[0xfe], None);
    let binary = OutgoingRecord {
        partition: Some(3),
        key: Some(Bytes::from_static(&[0, 0xff])),
        timestamp_ms: Some(-5),
        ..record("t", "")
    };
    let tombstone = OutgoingRecord {
        value: None,
        ..record("t", "gone")
    };
    let bare = OutgoingRecord {
        key: None,
        value: Some(Bytes::new()),
        ..record("t", "")
    };
    let written = vec![event, binary, tombstone, bare];
    writer.write(written.clone(), true).await;
    let read = store.read(&everything()).await.expect("readable");
    assert!(read.rows.is_sorted_by_key(|row| row.id.sequence));
    let topic_and_slot =
        |row: &super::store::StoredRow| row.topic == "t" && row.slot == row::slot(row.key_hash);
    assert!(read.rows.iter().all(topic_and_slot));
    let records: Vec<_> = read
        .rows
        .into_iter()
        .map(|row| row.record.expect("readable"))
        .collect();
    assert_eq!(records, written);
    clear(store).await;
}

/// A rolled back row is not there; a relay never publishes it.
async fn only_committed_rows_are_read(store: &dyn Store, writer: &dyn Writer) {
    writer.write(vec![record("t", "rolled-back")], false).await;
    writer.write(vec![record("t", "committed")], true).await;
    let (rows, is_whole) = read(store, &everything()).await;
    assert_eq!(
        (rows, is_whole),
        (topics_and_keys(&[("t", "committed")]), true)
    );
    clear(store).await;
}

/// The first rows by number, at most as many and as large as asked for. `is_whole` is true only if
/// nothing more was found.
async fn a_page_holds_the_first_rows_within_its_limits(store: &dyn Store, writer: &dyn Writer) {
    let keys = ["a", "b", "c"];
    writer
        .write(keys.map(|key| record("t", key)).to_vec(), true)
        .await;
    let check = async |rows_max, bytes_max, expected: &[&str], is_whole| {
        let page = Page {
            rows_max,
            bytes_max,
            ..everything()
        };
        let expected: Vec<_> = expected.iter().map(|key| ("t", *key)).collect();
        assert_eq!(
            read(store, &page).await,
            (topics_and_keys(&expected), is_whole)
        );
    };
    check(4, 1 << 20, &["a", "b", "c"], true).await;
    check(2, 1 << 20, &["a", "b"], false).await;
    // A full page does not prove that there is nothing more.
    check(3, 1 << 20, &["a", "b", "c"], false).await;
    check(4, 1, &["a"], false).await;
    let of = |key: &str| row::slot(row::key_hash("t", key.as_bytes()));
    let page = Page {
        slots: vec![of("b")],
        ..everything()
    };
    let in_slot: Vec<_> = keys
        .into_iter()
        .filter(|key| of(key) == of("b"))
        .map(|key| ("t", key))
        .collect();
    assert_eq!(read(store, &page).await, (topics_and_keys(&in_slot), true));
    assert_eq!(store.backlog().await.expect("an answer").pending, 3);
    clear(store).await;
}

/// Excluded keys and topics are left out, except for keys that are asked for by name.
async fn excluded_keys_and_topics_are_not_read(store: &dyn Store, writer: &dyn Writer) {
    let records = [("t", "a"), ("t", "b"), ("u", "a"), ("u", "b")];
    writer
        .write(
            records.map(|(topic, key)| record(topic, key)).to_vec(),
            true,
        )
        .await;
    let hash = |topic: &str, key: &str| row::key_hash(topic, key.as_bytes());
    let page = Page {
        without_keys: vec![hash("t", "a")],
        without_topics: vec!["u".to_owned()],
        due_keys: vec![hash("u", "b")],
        ..everything()
    };
    let (rows, _) = read(store, &page).await;
    assert_eq!(rows, topics_and_keys(&[("t", "b"), ("u", "b")]));
    clear(store).await;
}

/// The last reason and the first time of a refusal are shown. Held keys and excluded topics do not
/// keep an outbox from being drained.
async fn a_marked_row_is_shown_with_its_reason(store: &dyn Store, writer: &dyn Writer) {
    writer
        .write(vec![record("t", "held"), record("t", "held")], true)
        .await;
    let read = store.read(&everything()).await.expect("readable");
    let first = read.rows[0].id.clone();
    assert!(!store.is_drained(&[]).await.expect("an answer"));
    let mark = async |why: &str| {
        let marks = BTreeMap::from([(first.clone(), why.to_owned())]);
        store.mark(&marks).await.expect("marked");
    };
    mark("too\0 large").await;
    let before = store.status().await.expect("a status").held;
    mark("no such topic").await;
    let status = store.status().await.expect("a status");
    let [held] = &status.held[..] else {
        panic!("one key is held: {:?}", status.held);
    };
    assert_eq!(
        (held.sequence, held.pending, held.key.as_deref()),
        (first.sequence, 2, Some("held"))
    );
    assert_eq!(
        (before[0].reason.as_str(), held.reason.as_str()),
        ("too large", "no such topic")
    );
    assert_eq!(held.since_ms, before[0].since_ms, "the first time counts");
    assert_eq!(status.pending, 2);
    let backlog = store.backlog().await.expect("an answer");
    assert_eq!((backlog.pending, backlog.held_keys), (2, 1));
    assert!(backlog.oldest.is_some());
    assert!(
        store.is_drained(&[]).await.expect("an answer"),
        "held keys do not count"
    );
    writer.write(vec![record("stopped", "free")], true).await;
    let is_drained = async |without: &str| {
        let answer = store.is_drained(&[without.to_owned()]).await;
        answer.expect("an answer")
    };
    assert!(!is_drained("another").await);
    assert!(is_drained("stopped").await, "nor do topics that are named");
    clear(store).await;
}

/// A relay that a topic refuses marks all it has read at once.
async fn many_rows_are_marked_at_once_each_with_its_own_reason(
    store: &dyn Store,
    writer: &dyn Writer,
) {
    let keys: Vec<String> = (0..500).map(|key| key.to_string()).collect();
    let records = keys.iter().map(|key| record("t", key)).collect();
    writer.write(records, true).await;
    let read = store.read(&everything()).await.expect("readable");
    let (gone, kept) = read.rows.split_first().expect("rows");
    let gone_id = std::slice::from_ref(&gone.id);
    store.delete(gone_id).await.expect("deleted");
    let why = |sequence: i64| format!("\"{sequence}\" is 'bad', [] and {{}}");
    let marks = read.rows.iter();
    let marks = marks
        .map(|row| (row.id.clone(), why(row.id.sequence)))
        .collect();
    store.mark(&marks).await.expect("marked, and one is gone");
    let held = store.status().await.expect("a status").held;
    let shown = held.into_iter().map(|held| (held.sequence, held.reason));
    let marked = kept.iter().map(|row| row.id.sequence);
    let marked = marked.map(|sequence| (sequence, why(sequence)));
    assert_eq!(
        shown.collect::<BTreeMap<_, _>>(),
        marked.collect::<BTreeMap<_, _>>()
    );
    clear(store).await;
}

/// After a failover or a restored backup numbers are reused, and a relay may know the earlier rows
/// with these numbers.
async fn another_row_with_a_deleted_rows_number_is_kept(store: &dyn Store, writer: &dyn Writer) {
    // An event, and a record that is no event.
    let mut event = record("t", "a");
    event.headers.push("ce_id", Some(b"before"));
    writer.write(vec![event, record("t", "b")], true).await;
    let before = store.read(&everything()).await.expect("readable").rows;
    clear(store).await;
    let first = before[0].id.sequence;
    writer.number_from(first).await;
    let mut event = record("t", "a");
    event.headers.push("ce_id", Some(b"after"));
    writer.write(vec![event, record("t", "b")], true).await;
    let after = store.read(&everything()).await.expect("readable").rows;
    let numbers = |rows: &[super::store::StoredRow]| -> Vec<i64> {
        rows.iter().map(|row| row.id.sequence).collect()
    };
    assert_eq!(numbers(&after), numbers(&before), "the same numbers");
    let known: Vec<RowId> = before.into_iter().map(|row| row.id).collect();
    store.delete(&known).await.expect("none of them is there");
    let marks = known.into_iter().map(|row| (row, "refused".to_owned()));
    store.mark(&marks.collect()).await.expect("marked");
    let left = store.read(&everything()).await.expect("readable").rows;
    assert_eq!(left, after, "other rows are not deleted");
    let held = store.status().await.expect("a status").held;
    assert!(held.is_empty(), "nor marked: {held:?}");
    clear(store).await;
}

async fn register(store: &dyn Store, relay: &str, lease: Duration) -> RelaysAndLeases {
    store.register(relay, lease).await.expect("registered")
}

async fn lease(store: &dyn Store, relay: &str, slots: &[i16], lease: Duration) -> Vec<i16> {
    let mut granted = store.lease(relay, slots, lease).await.expect("answered");
    granted.sort_unstable();
    granted
}

/// A lease is granted to one relay, renewed by it alone, and taken by another one only after it has
/// ended or was released.
async fn a_slot_has_one_relay_until_its_lease_ends(store: &dyn Store) {
    let short = Duration::from_millis(200);
    assert_eq!(register(store, "b", LONG_LEASE).await.relays, ["b"]);
    assert_eq!(register(store, "a", LONG_LEASE).await.relays, ["a", "b"]);
    assert_eq!(lease(store, "a", &[1, 2], short).await, [1, 2]);
    assert_eq!(lease(store, "b", &[2, 3], LONG_LEASE).await, [3]);
    let registered = register(store, "b", LONG_LEASE).await;
    let owners: Vec<_> = registered
        .leases
        .iter()
        .map(|lease| (lease.slot, lease.owner.as_str()))
        .collect();
    assert_eq!(owners, [(1, "a"), (2, "a"), (3, "b")]);
    assert!(
        registered
            .leases
            .iter()
            .all(|lease| lease.expires_in <= LONG_LEASE)
    );
    // Long enough for another slot, by its owner.
    assert_eq!(lease(store, "a", &[1], LONG_LEASE).await, [1]);
    let taken = crate::testing::eventually("the lease ends", SUITE_LIMIT, || async {
        let granted = lease(store, "b", &[1, 2], LONG_LEASE).await;
        (!granted.is_empty()).then_some(granted)
    });
    assert_eq!(taken.await, [2], "1 was renewed");
    assert_eq!(
        lease(store, "a", &[2], LONG_LEASE).await,
        [0_i16; 0],
        "2 is another's now"
    );
    store
        .release("a", &[2, 3])
        .await
        .expect("nothing to give back");
    assert_eq!(lease(store, "a", &[3], LONG_LEASE).await, [0_i16; 0]);
    store.release("b", &[3]).await.expect("given back");
    assert_eq!(lease(store, "a", &[3], LONG_LEASE).await, [3]);
}

/// A relay that leaves frees its slots at once; one that does not come back is forgotten later.
async fn a_relay_that_leaves_releases_everything(store: &dyn Store) {
    let status = store.status().await.expect("a status");
    let shares: Vec<_> = status
        .relays
        .iter()
        .map(|share| (share.relay.as_str(), share.slots))
        .collect();
    assert_eq!((shares, status.slots_free), (vec![("a", 2), ("b", 1)], 61));
    store.leave("a").await.expect("left");
    let registered = register(store, "b", LONG_LEASE).await;
    assert_eq!(registered.relays, ["b"]);
    assert_eq!(registered.leases.len(), 1);
    store.leave("b").await.expect("left");
    register(store, "c", Duration::ZERO).await;
    let gone = register(store, "d", LONG_LEASE).await;
    assert_eq!(gone.relays, ["d"], "who does not come back is forgotten");
    store.leave("d").await.expect("left");
}

/// A relay that stops takes no more rows, but still waits for acknowledgements: no other relay
/// leaves the rest to it, and none takes its slots.
async fn a_relay_that_deregisters_keeps_its_slots(store: &dyn Store) {
    register(store, "a", LONG_LEASE).await;
    register(store, "b", LONG_LEASE).await;
    assert_eq!(lease(store, "a", &[1, 2], LONG_LEASE).await, [1, 2]);
    // A relay cannot know whether its first request arrived.
    for _ in 0..2 {
        store.deregister("a").await.expect("deregistered");
    }
    assert!(!leave_to_another(store, "b").await, "it is the last one");
    assert_eq!(register(store, "b", LONG_LEASE).await.relays, ["b"]);
    assert_eq!(lease(store, "b", &[1, 2], LONG_LEASE).await, [0_i16; 0]);
    store.leave("a").await.expect("left");
    assert_eq!(lease(store, "b", &[1, 2], LONG_LEASE).await, [1, 2]);
    store.leave("b").await.expect("left");
}

async fn leave_to_another(store: &dyn Store, relay: &str) -> bool {
    store.leave_to_another(relay).await.expect("answered")
}

/// A relay that hands over still sends from its slots, until it releases them without being
/// registered.
async fn a_relay_leaves_only_to_another_one_and_keeps_its_slots(store: &dyn Store) {
    register(store, "a", LONG_LEASE).await;
    assert!(!leave_to_another(store, "a").await, "it is the only one");
    register(store, "b", Duration::ZERO).await;
    assert!(!leave_to_another(store, "a").await, "the other has expired");
    assert_eq!(register(store, "a", LONG_LEASE).await.relays, ["a"]);
    assert_eq!(lease(store, "a", &[1, 2], LONG_LEASE).await, [1, 2]);

    register(store, "b", LONG_LEASE).await;
    assert!(leave_to_another(store, "a").await);
    // A relay cannot know whether its first request arrived.
    assert!(leave_to_another(store, "a").await, "it has left already");
    assert!(!leave_to_another(store, "b").await, "it is the last one");
    let registered = register(store, "b", LONG_LEASE).await;
    assert_eq!(registered.relays, ["b"]);
    let owners = registered
        .leases
        .iter()
        .map(|lease| (lease.slot, &*lease.owner));
    assert_eq!(owners.collect::<Vec<_>>(), [(1, "a"), (2, "a")]);
    assert_eq!(lease(store, "b", &[1, 2], LONG_LEASE).await, [0_i16; 0]);
    // It may renew the leases of its last rows.
    assert_eq!(lease(store, "a", &[1, 2], LONG_LEASE).await, [1, 2]);

    store.leave("a").await.expect("left");
    assert_eq!(lease(store, "b", &[1, 2], LONG_LEASE).await, [1, 2]);
    store.leave("b").await.expect("left");
}

/// Each call runs on a connection of its own.
async fn of_relays_that_leave_at_once_one_remains(store: &dyn Store) {
    let relays = ["a", "b", "c"];
    for round in 0..20 {
        for relay in relays {
            register(store, relay, LONG_LEASE).await;
        }
        let left = relays.map(|relay| leave_to_another(store, relay));
        let left = futures_util::future::join_all(left).await;
        let stayed = relays.iter().zip(&left).filter(|(_, left)| !**left);
        let stayed: Vec<&str> = stayed.map(|(relay, _)| *relay).collect();
        let status = store.status().await.expect("a status");
        let registered: Vec<&str> = status.relays.iter().map(|share| &*share.relay).collect();
        assert_eq!(
            (stayed.len(), registered),
            (1, stayed.clone()),
            "round {round}"
        );
        for relay in relays {
            store.leave(relay).await.expect("left");
        }
    }
}

/// A killed relay would otherwise keep its slots for as long as the clock was set back. A relay
/// with a long lease of its own cannot tell that.
async fn a_lease_from_before_the_clock_was_set_back_is_freed(store: &dyn Store) {
    let set_back = Duration::from_secs(5 * 3_600);
    register(store, "killed", set_back).await;
    assert_eq!(lease(store, "killed", &[1], set_back).await, [1]);
    let registered = register(store, "slow", LONG_LEASE).await;
    assert_eq!((registered.relays.len(), registered.leases.len()), (2, 1));
    let registered = register(store, "b", Duration::from_secs(15)).await;
    assert_eq!(registered.relays, ["b", "slow"]);
    assert!(registered.leases.is_empty(), "{registered:?}");
    assert_eq!(lease(store, "b", &[1], LONG_LEASE).await, [1]);
    for relay in ["b", "slow"] {
        store.leave(relay).await.expect("left");
    }
}
