//! The outbox: what commits is published at least once and in order per key, what rolls back is not, whatever is killed.

use crate::support::{Case, WITHIN, second_process, set};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::outbox::{
    OutboxStatus, OutboxStore, PostgresOutbox, Relay, RelayReport, RelaySettings, SqliteOutbox,
};
use evenkeel::testing::{ChildProcess, eventually, postgres};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(2);

/// What a relay in a process of its own works for.
#[derive(Serialize, Deserialize)]
struct Spec {
    brokers: String,
    store: String,
}

impl Spec {
    /// Runs the test of this name again as a relay of this store.
    fn start(test: &str, case: &Case, store: &str) -> ChildProcess {
        let spec = Self {
            brokers: case.kafka.brokers.clone(),
            store: store.to_owned(),
        };
        second_process::start(test, &spec)
    }
}

/// In the second process: publishes until it is killed, and does not return. Returns at once in the first one.
async fn relay_if_second() {
    let Some(spec) = second_process::role::<Spec>() else {
        return;
    };
    second_process::end_with_the_first();
    let store = OutboxStore::open(&spec.store)
        .await
        .expect("the outbox opens");
    let kafka = evenkeel::kafka::KafkaConfig::new(&spec.brokers);
    let case = Case::named(kafka, String::new(), 1);
    let ended = relay(&case, store).run(CancellationToken::new()).await;
    panic!("a relay ends by a kill only: {ended:?}");
}

fn settings() -> RelaySettings {
    let mut settings = RelaySettings::default();
    settings.lease = LEASE;
    settings
}

fn relay(case: &Case, store: impl Into<OutboxStore>) -> Relay {
    Relay::new(store, case.publisher()).with_settings(settings())
}

/// A relay in this process.
struct Running {
    stop: CancellationToken,
    run: JoinHandle<RelayReport>,
}

impl Running {
    fn start(relay: Relay) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = async move { relay.run(stopped).await.expect("it ends well") };
        Self {
            stop,
            run: tokio::spawn(run),
        }
    }

    async fn stop(self) -> RelayReport {
        self.stop.cancel();
        let ended = tokio::time::timeout(WITHIN, self.run).await;
        ended.expect("it ends in time").expect("it does not panic")
    }
}

fn record(case: &Case, key: &str, id: &str) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push("ce_id", Some(id.as_bytes()));
    OutgoingRecord {
        headers,
        ..case.record(Some(key), id.to_owned())
    }
}

/// The ids on the log, by key, first occurrences in order; and how many records there are.
async fn published(case: &Case) -> (BTreeMap<String, Vec<String>>, usize) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut by_key, mut seen) = (BTreeMap::<_, Vec<String>>::new(), BTreeSet::new());
    let records = case.read(&case.topic).await;
    let count = records.len();
    for record in records {
        let id = text(record.headers.last("ce_id").expect("an id"));
        if seen.insert(id.clone()) {
            let key = text(record.key.as_deref().expect("a key"));
            by_key.entry(key).or_default().push(id);
        }
    }
    (by_key, count)
}

async fn status_where(
    store: &OutboxStore,
    what: &str,
    is_so: impl Fn(&OutboxStatus) -> bool,
) -> OutboxStatus {
    let within = WITHIN * 2;
    eventually(what, within, || async {
        let status = store.status().await.ok()?;
        is_so(&status).then_some(status)
    })
    .await
}

async fn emptied(store: &OutboxStore) {
    status_where(store, "the outbox is empty", |status| status.pending == 0).await;
}

/// What committed, by key, in the order of the commits.
#[derive(Clone, Default)]
struct Committed(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Committed {
    /// To be called between the last write and the commit: whatever keeps commits of a key in order covers that.
    fn note(&self, events: &[(String, String)]) {
        let mut by_key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, id) in events {
            by_key.entry(key.clone()).or_default().push(id.clone());
        }
    }

    fn events(&self) -> BTreeMap<String, Vec<String>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One or two events of different keys.
fn some_events(writer: usize, turn: usize, keys: usize) -> Vec<(String, String)> {
    let mut random = rand::rng();
    let first = random.random_range(0..keys);
    let event = |n: usize| {
        (
            format!("k{}", (first + n) % keys),
            format!("{writer}-{turn}-{n}"),
        )
    };
    (0..random.random_range(1..=2)).map(event).collect()
}

/// Two relays that are killed at random and started again until `writers` are done; then judges what is on the log.
async fn kill_relays_while(
    test: &'static str,
    case: &Case,
    store: &str,
    mut writers: JoinSet<()>,
    committed: &Committed,
) {
    let mut relays: Vec<ChildProcess> = (0..2).map(|_| Spec::start(test, case, store)).collect();
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(rand::rng().random_range(500..1_500));
        let done = async {
            while writers
                .join_next()
                .await
                .transpose()
                .expect("the task does not panic")
                .is_some()
            {}
        };
        let is_done = tokio::time::timeout(pause, done).await.is_ok();
        if is_done && kills >= 3 {
            break;
        }
        let victim = rand::rng().random_range(0..2);
        relays[victim] = Spec::start(test, case, store);
        kills += 1;
    }
    let outbox = OutboxStore::open(store).await.expect("the outbox opens");
    emptied(&outbox).await;
    for relay in &mut relays {
        relay.kill().await;
    }
    let (published, records) = published(case).await;
    let committed = committed.events();
    let events: usize = committed.values().map(Vec::len).sum();
    println!("{events} events committed, {records} records published, {kills} kills");
    for (key, ids) in &committed {
        assert_eq!(
            published.get(key),
            Some(ids),
            "{key}: as committed, in that order"
        );
    }
    assert_eq!(published.len(), committed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_commits_are_published_in_order_despite_killed_relays() {
    const NAME: &str =
        "publish::outbox::on_postgres_commits_are_published_in_order_despite_killed_relays";
    relay_if_second().await;
    let (Some(case), Some(postgres)) = (Case::new("outbox-postgres", 4).await, postgres().await)
    else {
        return;
    };
    let url = postgres
        .database()
        .await
        .expect("the server creates a database");
    let pool = PgPoolOptions::new()
        .max_connections(50)
        .connect(&url)
        .await
        .expect("the pool connects");
    let outbox = PostgresOutbox::with_pool(pool.clone())
        .await
        .expect("the outbox opens");
    let (mut writers, committed) = (JoinSet::new(), Committed::default());
    for writer in 0..50 {
        let (pool, outbox, committed) = (pool.clone(), outbox.clone(), committed.clone());
        let topic = case.topic.clone();
        let kafka = case.kafka.clone();
        writers.spawn(async move {
            let case = Case::named(kafka, topic, 4);
            for turn in 0..3 {
                let events = some_events(writer, turn, 25);
                let records: Vec<_> = events
                    .iter()
                    .map(|(key, id)| record(&case, key, id))
                    .collect();
                let mut transaction = pool.begin().await.expect("a transaction begins");
                let written = outbox.publish_records(&mut transaction, &records).await;
                written.expect("the outbox takes the records");
                let delay = rand::rng().random_range(0..2_000);
                tokio::time::sleep(Duration::from_millis(delay)).await;
                if rand::rng().random_bool(0.05) {
                    transaction
                        .rollback()
                        .await
                        .expect("the transaction rolls back");
                    continue;
                }
                committed.note(&events);
                transaction.commit().await.expect("the transaction commits");
            }
        });
    }
    kill_relays_while(NAME, &case, &url, writers, &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_commits_are_published_in_order_despite_killed_relays() {
    const NAME: &str =
        "publish::outbox::on_sqlite_commits_are_published_in_order_despite_killed_relays";
    relay_if_second().await;
    let Some(case) = Case::new("outbox-sqlite", 4).await else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("outbox.db");
    let outbox = SqliteOutbox::open(&path).await.expect("the outbox opens");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .busy_timeout(WITHIN);
    let pool = SqlitePoolOptions::new()
        .max_connections(5)
        .connect_with(options);
    let pool = pool.await.expect("the pool connects");
    let (mut writers, committed) = (JoinSet::new(), Committed::default());
    for writer in 0..5 {
        let (pool, outbox, committed) = (pool.clone(), outbox.clone(), committed.clone());
        let (topic, kafka) = (case.topic.clone(), case.kafka.clone());
        writers.spawn(async move {
            let case = Case::named(kafka, topic, 4);
            for turn in 0..20 {
                let events = some_events(writer, turn, 10);
                let records: Vec<_> = events
                    .iter()
                    .map(|(key, id)| record(&case, key, id))
                    .collect();
                let mut transaction = pool
                    .begin_with("BEGIN IMMEDIATE")
                    .await
                    .expect("a transaction");
                let written = outbox.publish_records(&mut transaction, &records).await;
                written.expect("the outbox takes the records");
                let delay = rand::rng().random_range(0..40);
                tokio::time::sleep(Duration::from_millis(delay)).await;
                if rand::rng().random_bool(0.05) {
                    transaction
                        .rollback()
                        .await
                        .expect("the transaction rolls back");
                    continue;
                }
                committed.note(&events);
                transaction.commit().await.expect("the transaction commits");
            }
        });
    }
    let store = format!("sqlite:{}", path.display());
    kill_relays_while(NAME, &case, &store, writers, &committed).await;
}

/// A topic, and an outbox in an empty database.
async fn case_on_postgres(name: &str) -> Option<(Case, PostgresOutbox, String)> {
    let case = Case::new(name, 1).await?;
    let url = postgres()
        .await?
        .database()
        .await
        .expect("the server creates a database");
    let outbox = PostgresOutbox::open(&url).await.expect("the outbox opens");
    Some((case, outbox, url))
}

async fn commit(outbox: &PostgresOutbox, records: &[OutgoingRecord]) {
    let mut connection = outbox.pool().acquire().await.expect("a connection");
    let written = outbox.publish_records(&mut connection, records).await;
    written.expect("the outbox takes the records");
}

#[tokio::test]
async fn a_killed_relay_is_taken_over_when_its_lease_ends() {
    const NAME: &str = "publish::outbox::a_killed_relay_is_taken_over_when_its_lease_ends";
    relay_if_second().await;
    let Some((case, outbox, url)) = case_on_postgres("outbox-takeover").await else {
        return;
    };
    let store = OutboxStore::from(outbox.clone());
    let mut first = Spec::start(NAME, &case, &url);
    status_where(&store, "the first relay has all slots", |status| {
        status.slots_free == 0
    })
    .await;
    first.kill().await;
    let killed_at = Instant::now();
    let second = Running::start(relay(&case, store.clone()));
    commit(&outbox, &[record(&case, "k", "1")]).await;
    emptied(&store).await;
    let took = killed_at.elapsed();
    assert!(
        took < LEASE + Duration::from_secs(2),
        "taken over after {took:?}"
    );
    let report = second.stop().await;
    assert_eq!(report.published, 1);
    let status = store.status().await.expect("the outbox reports its status");
    assert_eq!(
        (status.relays.len(), status.slots_free),
        (0, 64),
        "it gave everything back"
    );
}

#[tokio::test]
async fn two_relays_have_half_of_the_slots_each() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-shares").await else {
        return;
    };
    let store = OutboxStore::from(outbox);
    let relays = [(); 2].map(|()| Running::start(relay(&case, store.clone())));
    status_where(&store, "each has half", |status| {
        status.relays.iter().map(|relay| relay.slots).eq([32, 32])
    })
    .await;
    for relay in relays {
        relay.stop().await;
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// Logs into it until the guard is dropped.
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// It is named as the reason.
#[tokio::test]
async fn an_open_transaction_delays_only_its_keys_and_skips_nothing() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-open").await else {
        return;
    };
    let logged = Logged::default();
    let _logging = logged.start();
    let store = OutboxStore::from(outbox.clone());
    let mut alarmed = settings();
    alarmed.open_transaction_max = Duration::from_millis(500);
    alarmed.watch_interval = Duration::from_millis(200);
    let running = Running::start(relay(&case, store.clone()).with_settings(alarmed));
    let mut idle = outbox.pool().begin().await.expect("a transaction begins");
    let written = outbox
        .publish_records(&mut idle, &[record(&case, "slow", "1")])
        .await;
    written.expect("the outbox takes the records");
    let follower = {
        let (outbox, record) = (outbox.clone(), record(&case, "slow", "2"));
        tokio::spawn(async move { commit(&outbox, &[record]).await })
    };
    for id in ["3", "4"] {
        commit(&outbox, &[record(&case, "fast", id)]).await;
    }
    emptied(&store).await;
    let fast: Vec<_> = ["3", "4"].map(str::to_owned).into();
    assert_eq!(
        published(&case).await.0,
        BTreeMap::from([("fast".to_owned(), fast.clone())])
    );
    let status = status_where(&store, "it is named", |status| {
        status.open_transaction.is_some()
    })
    .await;
    let open = status.open_transaction.expect("it is open");
    assert_eq!(
        (open.application.as_str(), open.state.as_str()),
        ("evenkeel", "idle in transaction")
    );
    assert!(open.age_ms >= 1_000);
    let named = format!(
        "pid={} application=\"evenkeel\" state=\"idle in transaction\"",
        open.pid
    );
    eventually("the relay warns", WITHIN, || async {
        logged.text().contains(&named).then_some(())
    })
    .await;
    assert!(!follower.is_finished(), "its key waits");
    idle.commit().await.expect("the transaction commits");
    follower.await.expect("the task does not panic");
    emptied(&store).await;
    let slow: Vec<_> = ["1", "2"].map(str::to_owned).into();
    let expected = BTreeMap::from([("fast".to_owned(), fast), ("slow".to_owned(), slow)]);
    assert_eq!(published(&case).await.0, expected);
    running.stop().await;
}

#[tokio::test]
async fn rows_wait_while_kafka_is_down_and_none_is_lost() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-down").await else {
        return;
    };
    let store = OutboxStore::from(outbox.clone());
    let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
    let records: Vec<_> = ids.iter().map(|id| record(&case, "k", id)).collect();
    commit(&outbox, &records).await;
    // Nobody listens there.
    let mut nowhere = evenkeel::kafka::KafkaConfig::new("127.0.0.1:1");
    set(&mut nowhere, "message.timeout.ms=500");
    let down = Case::named(nowhere, case.topic.clone(), 1);
    let running = Running::start(relay(&down, store.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let report = running.stop().await;
    assert!(report.failed > 0 && report.published == 0, "{report:?}");
    let status = store.status().await.expect("the outbox reports its status");
    assert_eq!(
        (status.pending, status.held),
        (100, vec![]),
        "an outage holds no key"
    );

    let report = relay(&case, store.clone())
        .drain(CancellationToken::new())
        .await;
    assert_eq!(report.expect("it ends well").published, 100);
    assert_eq!(
        published(&case).await.0,
        BTreeMap::from([("k".to_owned(), ids)])
    );
}

/// It is shown, and other keys go on.
#[tokio::test]
async fn a_refused_event_holds_its_key_and_is_never_skipped() {
    let Some((mut case, outbox, _)) = case_on_postgres("outbox-refused").await else {
        return;
    };
    set(&mut case.kafka, "message.max.bytes=10000");
    let store = OutboxStore::from(outbox.clone());
    let large = OutgoingRecord {
        value: Some(vec![b'x'; 20_000].into()),
        ..record(&case, "held", "1")
    };
    commit(
        &outbox,
        &[
            large,
            record(&case, "held", "2"),
            record(&case, "free", "3"),
        ],
    )
    .await;
    let running = Running::start(relay(&case, store.clone()));
    let status = status_where(&store, "one key is held", |status| {
        status.pending == 2 && status.held.len() == 1
    })
    .await;
    let held = &status.held[0];
    assert_eq!(
        (held.id.as_str(), held.key.as_deref(), held.pending),
        ("1", Some("held"), 2)
    );
    assert!(held.reason.contains("larger than"), "{}", held.reason);
    let only_free = BTreeMap::from([("free".to_owned(), vec!["3".to_owned()])]);
    assert_eq!(published(&case).await.0, only_free);

    let give_up =
        sqlx::query("DELETE FROM evenkeel_outbox WHERE sequence = $1").bind(held.sequence);
    give_up
        .execute(outbox.pool())
        .await
        .expect("the statement succeeds");
    emptied(&store).await;
    let both = [("free", "3"), ("held", "2")];
    let both = both.map(|(key, id)| (key.to_owned(), vec![id.to_owned()]));
    assert_eq!(published(&case).await.0, BTreeMap::from(both));
    running.stop().await;
}

#[tokio::test]
async fn individually_unfit_records_do_not_stop_their_topic() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-unfit").await else {
        return;
    };
    let store = OutboxStore::from(outbox.clone());
    let unfit = |key: usize| OutgoingRecord {
        partition: Some(99),
        ..record(&case, &format!("unfit-{key}"), "1")
    };
    commit(&outbox, &(0..20).map(unfit).collect::<Vec<_>>()).await;
    let running = Running::start(relay(&case, store.clone()));
    let status = status_where(&store, "all are held", |status| status.held.len() == 20).await;
    assert!(status.held[0].reason.contains("no such partition"));
    commit(&outbox, &[record(&case, "fit", "2")]).await;
    status_where(&store, "the fit one is published", |status| {
        status.pending == 20
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_drain_ends_when_only_a_missing_topic_is_left() {
    let Some((mut case, outbox, _)) = case_on_postgres("outbox-missing").await else {
        return;
    };
    set(&mut case.kafka, "topic.metadata.propagation.max.ms=500");
    let missing = format!("{}-missing", case.topic);
    let lost = |key: usize| OutgoingRecord {
        topic: missing.clone(),
        ..record(&case, &key.to_string(), "1")
    };
    commit(&outbox, &(0..60).map(lost).collect::<Vec<_>>()).await;
    commit(&outbox, &[record(&case, "k", "2")]).await;
    // Most keys are not tried before the topic is stopped.
    let mut few = settings();
    few.rows_max = 20;
    let relay = relay(&case, outbox.clone()).with_settings(few);
    let run = relay.drain(CancellationToken::new());
    let ended = tokio::time::timeout(WITHIN, run)
        .await
        .expect("it ends in time");
    let report = ended.expect("it ends well");
    assert_eq!((report.published, report.held_keys), (1, 20));
    let status = OutboxStore::from(outbox)
        .status()
        .await
        .expect("the outbox reports its status");
    assert_eq!((status.pending, status.held.len()), (60, 20));
}

/// Once the drain is cancelled it sends no more.
#[tokio::test]
async fn a_relay_beside_handlers_drains_what_they_leave() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-leave").await else {
        return;
    };
    let records: Vec<_> = (0..100)
        .map(|id| record(&case, "k", &id.to_string()))
        .collect();
    commit(&outbox, &records).await;
    let (stop, drain_stop) = (CancellationToken::new(), CancellationToken::new());
    stop.cancel();
    let run = relay(&case, outbox.clone()).run_then_drain(stop.clone(), drain_stop.clone());
    let report = tokio::time::timeout(WITHIN, run)
        .await
        .expect("it ends in time");
    assert_eq!(report.expect("it ends well").published, 100);

    commit(&outbox, &records).await;
    drain_stop.cancel();
    let run = relay(&case, outbox).run_then_drain(stop, drain_stop);
    let report = tokio::time::timeout(WITHIN, run)
        .await
        .expect("it ends in time");
    let report = report.expect("it ends well");
    assert!(
        report.published + report.unacknowledged as u64 <= 1,
        "{report:?}"
    );
}

/// Another instance commits faster than this one publishes.
#[tokio::test]
async fn a_drain_without_an_end_leaves_nothing_unacknowledged() {
    let Some((case, outbox, _)) = case_on_postgres("outbox-endless").await else {
        return;
    };
    let records: Vec<_> = (0..500)
        .map(|id| record(&case, &id.to_string(), "1"))
        .collect();
    commit(&outbox, &records).await;
    let (stop, drain_stop) = (CancellationToken::new(), CancellationToken::new());
    stop.cancel();
    let filling = async {
        loop {
            commit(&outbox, &records).await;
        }
    };
    let run = async {
        let run = relay(&case, outbox.clone()).run_then_drain(stop, drain_stop.clone());
        let (report, ()) = tokio::join!(run, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drain_stop.cancel();
        });
        report.expect("it ends well")
    };
    let report = tokio::select! {
        report = tokio::time::timeout(WITHIN, run) => report.expect("it ends in time"),
        () = filling => unreachable!("it has no end"),
    };
    assert!(report.published > 0, "{report:?}");
    assert_eq!(report.unacknowledged, 0, "{report:?}");
    let status = OutboxStore::from(outbox).status().await;
    assert!(status.expect("the outbox reports its status").pending > 0);
}
