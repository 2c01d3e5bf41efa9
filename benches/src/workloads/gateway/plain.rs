//! Plain routes of axum, with the durability of the gateway that they are compared with, and
//! nothing else: no schema, no CloudEvent, no admission.

use super::servers::{Running, Target, WITHIN};
use crate::order_event::OrderEvent;
use crate::spec::Spec;
use anyhow::bail;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use evenkeel_gateway::server::bind;
use rdkafka::producer::FutureProducer;
use rdkafka::producer::future_producer::FutureRecord;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

const PATH: &str = "/orders";
const CREATE: &str =
    "CREATE TABLE orders (sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL)";
const INSERT: &str = "INSERT INTO orders (key, body) VALUES ($1, $2)";
const COUNT: &str = "SELECT count(*) FROM orders";
/// The most orders of a transaction, as in the gateway's store.
const GROUP_MAX: usize = 256;
/// Orders that may wait for the writer, as in the gateway's store.
const WAITING_MAX: usize = 4_096;

/// The file of a plain route.
pub(super) struct OrderFile {
    pool: SqlitePool,
    /// Deletes the file at the end.
    _folder: TempDir,
}

/// An order that waits for the writer.
struct Waiting {
    key: String,
    body: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// State of the route that publishes.
struct Publishing {
    producer: FutureProducer,
    topic: String,
}

/// Starts a route that parses the order as a struct, publishes it, and answers when all in-sync
/// replicas have it. The producer has the settings of evenkeel's publisher.
pub(super) async fn on_brokers(spec: &Spec) -> anyhow::Result<Running> {
    let config = spec.raw(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("compression.type", "lz4"),
        ("linger.ms", "2"),
    ]);
    let publishing = Publishing {
        producer: config.create()?,
        topic: spec.topic.clone(),
    };
    let route = post(publish).with_state(Arc::new(publishing));
    serve(Router::new().route(PATH, route)).await
}

/// Starts a route that inserts each order in a transaction of its own, which waits for the disk, on
/// one connection.
pub(super) async fn on_sqlite() -> anyhow::Result<(Running, OrderFile)> {
    let file = OrderFile::create().await?;
    let route = post(insert).with_state(file.pool.clone());
    let running = serve(Router::new().route(PATH, route)).await?;
    Ok((running, file))
}

/// Starts a route whose orders share transactions: those that wait while one is committed are in
/// the next one.
pub(super) async fn on_sqlite_in_groups() -> anyhow::Result<(Running, OrderFile)> {
    let file = OrderFile::create().await?;
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let pool = file.pool.clone();
    tokio::spawn(async move {
        if let Err(error) = write_groups(pool, waiting).await {
            eprintln!("the plain route cannot write: {error}");
        }
    });
    let route = post(enqueue).with_state(sender);
    let running = serve(Router::new().route(PATH, route)).await?;
    Ok((running, file))
}

async fn serve(router: Router) -> anyhow::Result<Running> {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let target = Target {
        address: listener.local_addr()?,
        path: PATH.to_owned(),
    };
    let listener = listener.tap_io(|stream| {
        // Without it, answers are late, which the clients would measure.
        let _ = stream.set_nodelay(true);
    });
    let serving = tokio::spawn(async move {
        // It ends only with the task.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Running::of_plain(target, serving))
}

/// The record key of an order. None if it is not valid.
fn key(body: &[u8]) -> Option<String> {
    let order: OrderEvent = serde_json::from_slice(body).ok()?;
    Some(order.key.to_string())
}

async fn publish(State(publishing): State<Arc<Publishing>>, body: Bytes) -> StatusCode {
    let Some(key) = key(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let record = FutureRecord::to(&publishing.topic)
        .key(&key)
        .payload(&*body);
    match publishing.producer.send(record, WITHIN).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn insert(State(pool): State<SqlitePool>, body: Bytes) -> StatusCode {
    let Some(key) = key(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let insert = sqlx::query(INSERT).bind(key).bind(body.to_vec());
    match insert.execute(&pool).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn enqueue(State(sender): State<mpsc::Sender<Waiting>>, body: Bytes) -> StatusCode {
    let Some(key) = key(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let (done, is_done) = oneshot::channel();
    let body = body.to_vec();
    let sent = sender.send(Waiting { key, body, done }).await;
    match (sent, is_done.await) {
        (Ok(()), Ok(())) => StatusCode::ACCEPTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn write_groups(
    pool: SqlitePool,
    mut waiting: mpsc::Receiver<Waiting>,
) -> Result<(), sqlx::Error> {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut answers = Vec::with_capacity(group.len());
        let mut transaction = pool.begin().await?;
        for Waiting { key, body, done } in group.drain(..) {
            let insert = sqlx::query(INSERT).bind(key).bind(body);
            insert.execute(&mut *transaction).await?;
            answers.push(done);
        }
        transaction.commit().await?;
        for done in answers {
            // Its client may be gone.
            let _ = done.send(());
        }
    }
    Ok(())
}

impl OrderFile {
    /// A new file with the settings of the gateway's store: it survives a power failure.
    async fn create() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("orders.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        sqlx::query(CREATE).execute(&pool).await?;
        Ok(Self {
            pool,
            _folder: folder,
        })
    }

    /// Fails unless the file has exactly as many orders as were accepted.
    pub(super) async fn check(&self, accepted: u64) -> anyhow::Result<()> {
        let found: i64 = sqlx::query_scalar(COUNT).fetch_one(&self.pool).await?;
        if found.unsigned_abs() != accepted {
            bail!("wrong answer: {accepted} orders were accepted, {found} are in the file");
        }
        Ok(())
    }
}
