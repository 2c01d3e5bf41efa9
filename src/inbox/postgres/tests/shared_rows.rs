//! Handlers that share rows: whatever they lock and in whatever order, no delivery fails and the
//! sum is right.

use super::*;
use crate::event::test_record::received_event;
use crate::event::{Event, EventType, OutgoingRecord};
use crate::handler::{Delivered, Delivery, DeliveryScope, HandlerError, Outcome, Router};
use crate::inbox::{Claimed, Inbox, InboxKey};
use crate::outbox::PostgresOutbox;
use crate::telemetry::captured_log::capture;
use crate::testing::postgres;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tower::Service;

const STOCK: &str = "
    CREATE TABLE IF NOT EXISTS stock (article bigint PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS parts (id bigint PRIMARY KEY REFERENCES stock DEFERRABLE INITIALLY DEFERRED)";

/// The number of rows.
const ARTICLES: i64 = 20;

/// An event that adds one to each of its articles, in this order.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Taken {
    articles: Vec<i64>,
}

impl EventType for Taken {
    const TYPE: &'static str = "test.taken.v1";
    const TOPIC: &'static str = "test.taken";

    fn key(&self) -> String {
        "any".to_owned()
    }
}

/// How a handler adds one to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteStyle {
    Update,
    SelectForUpdate,
    Upsert,
    AdvisoryLock,
    /// Holds the row for a while.
    Sleep,
    /// Reports every error as permanent.
    Permanent,
}

async fn add(tx: &mut PgConnection, article: i64, style: WriteStyle) -> Result<(), sqlx::Error> {
    let before = match style {
        WriteStyle::SelectForUpdate => Some("SELECT n FROM stock WHERE article = $1 FOR UPDATE"),
        WriteStyle::AdvisoryLock => Some("SELECT pg_advisory_xact_lock($1)"),
        _ => None,
    };
    if let Some(before) = before {
        sqlx::query(before).bind(article).execute(&mut *tx).await?;
    }
    let add = match style {
        WriteStyle::Upsert => {
            "INSERT INTO stock VALUES ($1, 1) ON CONFLICT (article) DO UPDATE SET n = stock.n + 1"
        }
        _ => "UPDATE stock SET n = n + 1 WHERE article = $1",
    };
    sqlx::query(add).bind(article).execute(tx).await?;
    if style == WriteStyle::Sleep {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Errors that the handlers of a test received.
#[derive(Clone, Default)]
struct HandlerErrors(Arc<AtomicUsize>);

impl HandlerErrors {
    fn failed(&self, error: sqlx::Error, style: WriteStyle) -> HandlerError {
        self.0.fetch_add(1, Ordering::Relaxed);
        match style {
            WriteStyle::Permanent => HandlerError::permanent(error),
            _ => error.into(),
        }
    }
}

fn router(inbox: &PostgresInbox, style: WriteStyle, errors: &HandlerErrors) -> Router {
    let errors = errors.clone();
    let router = Router::new().on(move |event: Event<Taken>, mut tx: PostgresTx| {
        let errors = errors.clone();
        async move {
            for article in event.data.articles {
                let added = add(&mut tx, article, style).await;
                added.map_err(|error| errors.failed(error, style))?;
            }
            Ok::<_, HandlerError>(())
        }
    });
    router.with_inbox(inbox.clone())
}

fn batch_router(inbox: &PostgresInbox, style: WriteStyle, errors: &HandlerErrors) -> Router {
    let errors = errors.clone();
    let router =
        Router::new().on_batch(move |events: Vec<Delivered<Taken>>, mut tx: PostgresTx| {
            let errors = errors.clone();
            async move {
                for article in events
                    .into_iter()
                    .flat_map(|taken| taken.event.data.articles)
                {
                    let added = add(&mut tx, article, style).await;
                    added.map_err(|error| errors.failed(error, style))?;
                }
                Ok::<_, HandlerError>(())
            }
        });
    router.with_inbox(inbox.clone())
}

fn delivery(source: &str, id: usize, taken: &Taken) -> Delivery {
    let record = received_event(source, id as i64, taken);
    Delivery::new(record, 1, Arc::new(DeliveryScope::new("stock")))
}

/// Has each router handle its share of the events, up to 64 at a time. Returns the outcomes that
/// are no success.
async fn deliver(routers: &[Router], events: &[Taken]) -> Vec<Outcome> {
    let next = Arc::new(AtomicUsize::new(0));
    let run = crate::testing::unique("/run");
    let events: Arc<[Taken]> = events.into();
    let workers = (0..64 * routers.len()).map(|worker| {
        let mut router = routers[worker % routers.len()].clone();
        let (next, events, run) = (Arc::clone(&next), Arc::clone(&events), run.clone());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                let Some(taken) = events.get(id) else {
                    return failed;
                };
                match router.call(delivery(&run, id, taken)).await {
                    Ok(Outcome::Done) => {}
                    Ok(outcome) => failed.push(outcome),
                }
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut failed = Vec::new();
    for worker in workers {
        failed.extend(worker.await.unwrap());
    }
    failed
}

/// `count` events of `articles` different articles each, in random order.
fn events(count: usize, articles: usize) -> Vec<Taken> {
    let taken = |_| Taken {
        articles: rand::seq::index::sample(&mut rand::rng(), ARTICLES as usize, articles)
            .into_iter()
            .map(|article| article as i64)
            .collect(),
    };
    (0..count).map(taken).collect()
}

async fn database() -> Option<String> {
    let url = postgres().await?.database().await.expect("a database");
    let inbox = PostgresInbox::open(&url, STOCK).await.unwrap();
    let fill = "INSERT INTO stock SELECT article, 0 FROM generate_series(0, $1) AS article";
    let fill = sqlx::query(fill).bind(ARTICLES - 1);
    fill.execute(inbox.pool()).await.unwrap();
    inbox.close().await;
    Some(url)
}

async fn open(url: &str, settings: impl Fn(PostgresSettings) -> PostgresSettings) -> PostgresInbox {
    let settings = settings(PostgresSettings::new(STOCK));
    PostgresInbox::open_with(url, &settings).await.unwrap()
}

async fn sum(inbox: &PostgresInbox) -> usize {
    let sum = sqlx::query_scalar("SELECT sum(n)::bigint FROM stock");
    let sum: i64 = sum.fetch_one(inbox.pool()).await.unwrap();
    sum as usize
}

/// Opens this many instances and has them handle the events: none fails, few collide, and the sum
/// is right.
async fn check(
    url: &str,
    instances: usize,
    style: WriteStyle,
    events: &[Taken],
    route: impl Fn(&PostgresInbox, WriteStyle, &HandlerErrors) -> Router,
    settings: impl Fn(PostgresSettings) -> PostgresSettings,
) {
    let errors = HandlerErrors::default();
    let mut inboxes = Vec::new();
    for _ in 0..instances {
        inboxes.push(open(url, &settings).await);
    }
    let before = sum(&inboxes[0]).await;
    let routers: Vec<_> = inboxes
        .iter()
        .map(|inbox| route(inbox, style, &errors))
        .collect();
    let failed = deliver(&routers, events).await;
    let collisions = errors.0.load(Ordering::Relaxed);
    let case = format!("{style:?}, {instances} instances, {collisions} collisions");
    assert!(
        failed.is_empty(),
        "{case}: {} failed: {:?}",
        failed.len(),
        failed[0]
    );
    let added: usize = events.iter().map(|taken| taken.articles.len()).sum();
    assert_eq!(sum(&inboxes[0]).await - before, added, "{case}");
    // A few at the start, and a few each time several transactions are tried again.
    assert!(collisions <= 60 * instances, "{case}");
    eprintln!("{case}");
}

/// Like [`check`], with the defaults: a handler for each event, and the settings as they are.
async fn check_defaults(url: &str, instances: usize, style: WriteStyle, events: &[Taken]) {
    check(url, instances, style, events, router, |s| s).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_fails_none_of_the_events_that_share_rows() {
    let Some(url) = database().await else { return };
    for style in [
        WriteStyle::Update,
        WriteStyle::SelectForUpdate,
        WriteStyle::Upsert,
        WriteStyle::AdvisoryLock,
        WriteStyle::Permanent,
    ] {
        check_defaults(&url, 1, style, &events(1_000, 1)).await;
    }
    check_defaults(&url, 1, WriteStyle::Sleep, &events(200, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_fail_none_of_the_events_that_share_rows() {
    let Some(url) = database().await else { return };
    check_defaults(&url, 2, WriteStyle::Update, &events(2_000, 1)).await;
    check_defaults(&url, 2, WriteStyle::Upsert, &events(1_000, 1)).await;
    check_defaults(&url, 2, WriteStyle::Sleep, &events(200, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_may_take_rows_in_different_orders() {
    let Some(url) = database().await else { return };
    check_defaults(&url, 1, WriteStyle::Update, &events(1_000, 3)).await;
    check_defaults(&url, 2, WriteStyle::Update, &events(1_000, 3)).await;
    let alone = |settings: PostgresSettings| settings.with_group_max(1);
    check(&url, 2, WriteStyle::Update, &events(500, 3), router, alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stricter_isolation_fails_none_of_the_events() {
    let Some(url) = database().await else { return };
    for level in ["repeatable%20read", "serializable"] {
        let separator = if url.contains('?') { '&' } else { '?' };
        let option = level.replace("%20", "\\%20");
        let url = format!("{url}{separator}options=-c%20default_transaction_isolation%3D{option}");
        check_defaults(&url, 1, WriteStyle::Update, &events(500, 2)).await;
        check_defaults(&url, 2, WriteStyle::SelectForUpdate, &events(500, 2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_share_rows_fail_none_of_their_events() {
    let Some(url) = database().await else { return };
    check(
        &url,
        3,
        WriteStyle::Update,
        &events(2_000, 1),
        batch_router,
        |s| s,
    )
    .await;
}

/// Another program locks the same rows in another order: PostgreSQL ends one of the two after a
/// second.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_takes_the_same_rows_costs_no_attempt() {
    let Some(url) = database().await else { return };
    let inbox = open(&url, |settings| settings).await;
    let errors = HandlerErrors::default();
    let routers = [router(&inbox, WriteStyle::Update, &errors)];
    let is_over = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let (url, is_over) = (url.clone(), Arc::clone(&is_over));
        async move {
            let pool = PgPool::connect(&url).await.unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let both = async {
                    let mut transaction = pool.begin().await?;
                    for article in (0..ARTICLES).rev() {
                        let touch = "UPDATE stock SET n = n WHERE article = $1";
                        let touch = sqlx::query(touch).bind(article);
                        touch.execute(&mut *transaction).await?;
                    }
                    transaction.commit().await
                };
                // PostgreSQL may end this one.
                let _: Result<(), sqlx::Error> = both.await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let failed = deliver(&routers, &events(100, 3)).await;
    is_over.store(true, Ordering::Relaxed);
    other.await.unwrap();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed[0]
    );
    assert_eq!(sum(&inbox).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_deferred_constraint_fails_its_own_delivery_only() {
    let Some(url) = database().await else { return };
    let inbox = open(&url, |settings| settings.with_connections(1)).await;
    let handler = async |event: Event<Taken>, mut tx: PostgresTx| {
        // The last article does not exist, which is detected at the commit.
        let insert = sqlx::query("INSERT INTO parts VALUES ($1)").bind(event.data.articles[0]);
        insert.execute(&mut *tx).await.map(drop)
    };
    let routers = [Router::new().on(handler).with_inbox(inbox.clone())];
    let events: Vec<_> = (0..=ARTICLES)
        .map(|article| Taken {
            articles: vec![article],
        })
        .collect();
    let failed = deliver(&routers, &events).await;
    assert_eq!(failed.len(), 1, "{failed:?}");
    let Outcome::Retry(error) = &failed[0] else {
        panic!("{failed:?}");
    };
    assert!(error.message().contains("parts_id_fkey"), "{error}");
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM parts")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert_eq!(kept, ARTICLES);
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_may_check_all_their_constraints_at_once() {
    let Some(url) = database().await else { return };
    let inbox = open(&url, |settings| settings.with_connections(1)).await;
    let handler = async |event: Event<Taken>, mut tx: PostgresTx| {
        let set = sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE");
        set.execute(&mut *tx).await?;
        let insert = sqlx::query("INSERT INTO parts VALUES ($1)").bind(event.data.articles[0]);
        insert.execute(&mut *tx).await.map(drop)
    };
    let routers = [Router::new().on(handler).with_inbox(inbox.clone())];
    let events: Vec<_> = (0..ARTICLES)
        .map(|article| Taken {
            articles: vec![article],
        })
        .collect();
    let failed = deliver(&routers, &events).await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// The keys of published events are locked like rows.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_publish_on_few_keys_do_not_collide() {
    let Some(url) = database().await else { return };
    let outbox = PostgresOutbox::open(&url).await.unwrap();
    let inbox = open(&url, |settings| settings).await;
    let inbox = inbox.with_outbox(outbox).unwrap();
    let publish = |worker: usize| {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            for id in 0..30 {
                let key = InboxKey {
                    group: "stock".to_owned(),
                    handler: "h".to_owned(),
                    source: "/s".to_owned(),
                    id: format!("{worker}/{id}"),
                    content: None,
                };
                let Claimed::Fresh(claim) = inbox.claim(&key).await.unwrap() else {
                    panic!("{key:?} is new");
                };
                let keys = [rand::random_range(0..5), rand::random_range(0..5)];
                let records = keys.map(|key: u32| OutgoingRecord {
                    key: Some(key.to_string().into_bytes().into()),
                    ..crate::inbox::conformance::record(&id.to_string())
                });
                claim.complete(records.into()).await.unwrap();
            }
        })
    };
    let workers: Vec<_> = (0..64).map(publish).collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert_eq!(count, 64 * 30 * 2);
}

#[test]
fn collisions_are_counted_and_named_with_the_setting() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(url) = runtime.block_on(database()) else {
        return;
    };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let log = capture(tracing_subscriber::fmt(), || {
        metrics::with_local_recorder(&recorder, || {
            // A group holds its rows longer than others wait for them.
            let events = events(200, 2);
            runtime.block_on(check_defaults(&url, 1, WriteStyle::Sleep, &events));
        });
    });
    let counted = recorder.handle().render();
    let name = "evenkeel_inbox_collisions_total{group=\"stock\",cause=\"lock_wait\"}";
    assert!(counted.contains(name), "{counted}");
    // The client warns of slow statements, too.
    let is_ours = |line: &&str| line.contains("WARN") && line.contains("collided on shared rows");
    let warnings: Vec<_> = log.lines().filter(is_ours).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("`connections` = 1"), "{log}");
}
