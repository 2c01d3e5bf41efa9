//! G1: an offset is committed only when every record at or below it is settled, whatever is killed whenever.

use crate::support::member_process::{self, EFFECTS, Spec, Work};
use crate::support::{Case, WITHIN};
use evenkeel::inbox::SqliteInbox;
use evenkeel::testing::{ChildProcess, eventually};
use sqlx::SqlitePool;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

const TEST: &str =
    "delivery::g1_no_loss::members_killed_under_load_lose_nothing_and_double_nothing";
const PARTITIONS: i32 = 6;
const KEYS: u64 = 500;
const EVENTS: u64 = 20_000;
/// The load is spread over this time, so that every kill hits members at work.
const LOAD_FOR: Duration = Duration::from_secs(20);
const KILL_EVERY: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn members_killed_under_load_lose_nothing_and_double_nothing() {
    let Some(case) = member_process::case("it-g1", PARTITIONS).await else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let store = directory.path().join("effects.db");
    let inbox = SqliteInbox::open(&store, &case.group, EFFECTS).await;
    let pool = inbox.expect("the store opens").pool().clone();

    let load = publish_steps(&case);
    let kills = kill_members(&case, &store);
    let (looked, acknowledged, (kills, mut members)) = tokio::select! {
        // Ends when everything is committed, which cannot be before everything is published.
        done = async { tokio::join!(watch_commits(&case, &pool), load, kills) } => done,
        () = tokio::time::sleep(3 * WITHIN) => panic!("not everything was committed in time"),
    };
    for member in &mut members {
        member.kill().await;
    }
    assert!(looked > 20, "{looked} looks at committed offsets");
    assert!(kills >= 8, "{kills} kills");
    check_effects(&pool, &acknowledged).await;
}

/// Publishes numbered steps at a steady rate; returns the ids of those acknowledged.
async fn publish_steps(case: &Case) -> HashSet<String> {
    let publisher = case.publisher();
    let mut tick = tokio::time::interval(LOAD_FOR / 200);
    let mut pending = Vec::new();
    for number in 0..EVENTS {
        if number.is_multiple_of(EVENTS / 200) {
            tick.tick().await;
        }
        let record = case.step(&publisher, &format!("k{}", number % KEYS), number / KEYS);
        let id = record.headers.last("ce_id").expect("an id").to_vec();
        let receipt = publisher
            .enqueue_record(record)
            .await
            .expect("the buffer takes the record");
        pending.push((id, receipt));
    }
    let mut ids = HashSet::new();
    for (id, receipt) in pending {
        receipt.await.expect("the brokers acknowledge the record");
        ids.insert(String::from_utf8(id).expect("the bytes are UTF-8"));
    }
    ids
}

/// Runs three members and kills one after the other while the load lasts; each is started again at once.
async fn kill_members(case: &Case, store: &Path) -> (usize, Vec<ChildProcess>) {
    let start = |slot: usize| {
        let spec = Spec {
            // One member is a new one after each kill and costs a rebalance; the others come back as themselves.
            instance: (slot > 0).then(|| format!("m{slot}")),
            ..Spec::new(case, Work::Journal(store.to_owned()))
        };
        spec.start(TEST)
    };
    let mut members: Vec<ChildProcess> = (0..3).map(start).collect();
    let (began, mut kills) = (Instant::now(), 0);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + KILL_EVERY, KILL_EVERY);
    while began.elapsed() < LOAD_FOR {
        tick.tick().await;
        let slot = kills % members.len();
        assert!(members[slot].is_running(), "a member ends by a kill only");
        members[slot].kill().await;
        members[slot] = start(slot);
        kills += 1;
    }
    (kills, members)
}

/// Looks at the committed offsets until they reach the end; returns how often. Never may one go back, or be past a record
/// that has no effect yet.
async fn watch_commits(case: &Case, pool: &SqlitePool) -> usize {
    let offsets = case.offsets();
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    let mut looks = 0;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        let Some(committed) = offsets.committed().await else {
            continue;
        };
        looks += 1;
        for (partition, offset) in &committed {
            let before = seen.insert(*partition, *offset).unwrap_or(0);
            assert!(
                before <= *offset,
                "{partition} went from {before} to {offset}"
            );
            // Read after the commit was seen: what was committed must have its effect by now.
            let handled = sqlx::query_scalar::<_, i64>(
                "SELECT COUNT(DISTINCT \"offset\") FROM effects WHERE partition = ? AND \"offset\" < ?",
            )
            .bind(partition)
            .bind(offset);
            let handled = handled
                .fetch_one(pool)
                .await
                .expect("the query returns a row");
            assert_eq!(
                handled, *offset,
                "{partition} is committed past a record without effect"
            );
        }
        if seen.values().sum::<i64>() == EVENTS as i64 {
            return looks;
        }
    }
}

async fn check_effects(pool: &SqlitePool, acknowledged: &HashSet<String>) {
    let rows: Vec<(String, String, i64, i64)> =
        sqlx::query_as("SELECT id, record_key, number, process FROM effects ORDER BY seq")
            .fetch_all(pool)
            .await
            .expect("the query returns its rows");
    assert_eq!(acknowledged.len() as u64, EVENTS);
    assert_eq!(rows.len() as u64, EVENTS, "one effect for each event");
    let effects: HashSet<&str> = rows.iter().map(|(id, ..)| id.as_str()).collect();
    assert!(acknowledged.iter().all(|id| effects.contains(id.as_str())));
    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, key, number, _) in &rows {
        let next = next.entry(key).or_default();
        assert_eq!(number, next, "the order of {key}");
        *next += 1;
    }
    let processes: HashSet<i64> = rows.iter().map(|(.., process)| *process).collect();
    assert!(
        processes.len() > 3,
        "killed members were replaced and went on: {processes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_past_a_record_that_still_runs() {
    use crate::support::{Gate, Log, Member};
    use evenkeel::event::Record;
    use evenkeel::handler::Router;
    let Some(case) = Case::new("it-g1", 1).await else {
        return;
    };
    case.publish_load(500, 500).await;
    let (gate, handled) = (Gate::closed(), Log::new());
    let (held, log) = (gate.clone(), handled.clone());
    let router = Router::new().raw(move |record: Record| {
        let (held, log) = (held.clone(), log.clone());
        async move {
            if record.offset() == 250 {
                held.pass().await;
            }
            log.push(record.offset());
        }
    });
    let member = Member::start(&case.kafka, case.settings(), router);
    handled.reach("records handled", 499).await;
    let offsets = case.offsets();
    offsets.reach(0, 250).await;
    // Another record, settled later: its commit would carry the watermark further if anything could.
    case.publish_load(1, 1).await;
    handled.reach("records handled", 500).await;
    eventually(
        "the later record is in the commit's metadata",
        WITHIN,
        || async {
            offsets
                .metadata_of(0)
                .await
                .filter(|metadata| metadata.starts_with("ek1."))
        },
    )
    .await;
    assert_eq!(offsets.committed_of(0).await, 250);
    gate.open();
    offsets.reach(0, 501).await;
    assert!(member.stop().await.clean);
}
