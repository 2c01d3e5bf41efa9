//! A whole gateway with the shop's routes: builds the parts from the settings, and runs them.
//!
//! Owns who is started before whom, and what a failure of one part does to the others. Knows no
//! signal and no exit code: the program does.

use super::connections::{Server, bind};
use super::router::{Parts, RouterSettings, router};
use super::settings::GatewaySettings;
use super::stop::{StopDeadline, StopReport, StopSettings, stop_serving};
use super::stores::OpenStore;
use super::tls::Tls;
use crate::admission::{Admission, AdmissionSettings};
use crate::grpc::{Grpc, HealthHandle};
use crate::post::Posting;
use crate::shop::{self, OrderReader, ReadModelLag};
use crate::status::StatusReader;
use crate::store::AcceptStore;
use crate::stream::Streams;
use anyhow::{Context, Result, anyhow};
use axum::Router;
use evenkeel::outbox::{OutboxError, Relay};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::Health;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The component's name in health.
const STORE: &str = "store";
/// How often the store is asked whether it answers, and how long it may take.
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The `source` of the publisher. Events have those of their callers.
const SOURCE: &str = "/gateway";
/// The group whose read model answers queries of orders.
const READ_MODEL: &str = "orderboard";

/// A gateway that listens. It serves when it runs.
#[derive(Debug)]
#[must_use = "a gateway serves nothing until it runs"]
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    server: Server,
    tls: Option<Tls>,
    router: Router,
    streams: Streams,
    grpc_health: HealthHandle,
    store: OpenStore,
    publisher: Publisher,
    health: Health,
    stop: StopSettings,
}

impl Gateway {
    /// Opens the store, reads the files, and binds the public address. Reports to `health` as the
    /// components `store` and, with an outbox, `relay`. Brokers that do not answer are no error.
    ///
    /// # Errors
    /// If a setting, a file, the store or the address cannot be used.
    pub async fn open(settings: GatewaySettings, health: Health) -> Result<Self> {
        settings.validate().map_err(|reason| anyhow!(reason))?;
        let authenticator = settings.access.authenticator()?;
        let tls = match &settings.tls {
            Some(files) => Some(Tls::from_files(&files.certificate, &files.key)?),
            None => None,
        };
        let allow_list = Arc::new(shop::allow_list()?);
        let kafka = &settings.kafka;
        let publisher = Publisher::new(kafka, PublisherSettings::new(SOURCE))?;
        let store = Box::pin(OpenStore::open(&settings.store, &publisher)).await;
        let store = store.context("the store cannot be used")?;
        health.set_ready(STORE, Ok(()));
        let accept = Arc::clone(&store.store);
        let posting = Posting::new(allow_list.clone(), accept.clone(), settings.post.clone());
        let origins = settings.allowed_origins.clone();
        let stream = settings.stream.clone().with_allowed_origins(origins);
        let streams = Streams::new(kafka.clone(), allow_list.clone(), stream);
        let status = settings.status.clone();
        let status = StatusReader::new(kafka.clone(), allow_list, accept.clone(), status);
        let admission = Admission::new(admission(&settings), move || accept.backlog());
        let worker = settings.worker.clone();
        let parts = Parts::new(
            posting,
            streams.clone(),
            status,
            admission,
            authenticator,
            worker,
        );
        let (parts, grpc_health) = with_shop(parts, &settings).await;
        let around = RouterSettings::default()
            .with_body(settings.body)
            .with_local_only(settings.is_open())
            .with_tls(tls.is_some())
            .with_allowed_origins(settings.allowed_origins);
        let listener = bind(settings.listen).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            server: Server::new(settings.connections),
            tls,
            router: router(parts, around),
            streams,
            grpc_health,
            store,
            publisher,
            health,
            stop: settings.stop,
        })
    }

    /// The public address, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then stops within [`StopSettings::within`]. See the order of a stop
    /// there. If the relay or the store fails permanently, it cancels `stop` itself, so that the
    /// process is restarted.
    ///
    /// # Errors
    /// If the relay failed permanently, with accepted events still in the outbox, or the store did.
    pub async fn run(self, stop: CancellationToken) -> Result<StopReport> {
        let Self {
            listener,
            address,
            server,
            tls,
            router,
            streams,
            grpc_health,
            mut store,
            publisher,
            health,
            stop: settings,
        } = self;
        let (relay_stop, drain_stop) = (CancellationToken::new(), CancellationToken::new());
        let outbox = store.outbox.take();
        let has_outbox = outbox.is_some();
        let deadline = StopDeadline::within(settings.within, has_outbox);
        let relay = outbox.map(|outbox| {
            Relay::new(outbox, publisher.clone())
                .with_settings(deadline.relay_settings())
                .with_health(health.clone())
        });
        let relaying = Box::pin(async {
            let ended = relay_until(relay, &relay_stop, &drain_stop).await;
            // Readiness is off from here on, by the relay's own report and by the stop.
            stop.cancel();
            ended
        });
        tracing::info!(%address, tls = tls.is_some(), "listening");
        let serving = server.serve(listener, tls.clone(), router);
        let stopping = async {
            stop.cancelled().await;
            deadline.begin();
            grpc_health.set_serving(false).await;
            let report = stop_serving(&server, &streams, &settings, &deadline).await;
            relay_stop.cancel();
            report
        };
        let drain_limit = limit_drain(&deadline, &relay_stop, &drain_stop, has_outbox);
        let reloading = reload(tls.as_ref());
        let watching = watch_store(Arc::clone(&store.store), &health, &stop);
        let main = Box::pin(async { tokio::join!(beside(stopping, serving), relaying) });
        let tasks = Box::pin(async { tokio::join!(drain_limit, reloading, watching) });
        let (report, relayed) = beside(main, tasks).await;
        if let Err(unsent) = publisher.flush(deadline.left()).await {
            tracing::warn!(
                records = unsent.records,
                "records without an acknowledgement"
            );
        }
        store.close().await;
        if let Some(reason) = store.store.failed() {
            return Err(anyhow!("the store failed permanently: {reason}"));
        }
        relayed.context("the outbox's relay failed; accepted events stay in the outbox")?;
        Ok(report)
    }
}

/// Adds gRPC and the shop's routes. Returns the handle of the health that gRPC reports.
async fn with_shop(parts: Parts, settings: &GatewaySettings) -> (Parts, HealthHandle) {
    let orders = OrderReader::new(settings.orderboards.clone());
    let lag = ReadModelLag::new(settings.kafka.clone(), READ_MODEL, read_model_topics());
    let grpc = Grpc::new(
        parts.posting.clone(),
        parts.admission.clone(),
        parts.status.clone(),
        parts.streams.clone(),
        parts.authenticator.clone(),
        Arc::clone(&parts.worker),
    );
    let (grpc, health) = grpc.with_orders(orders.clone(), lag.clone()).routes().await;
    let (posts, reads) = shop::router(parts.posting.clone(), orders, lag);
    (parts.with_grpc(grpc).with_own_routes(posts, reads), health)
}

/// Publishes the outbox until it is drained after `stop`, or until `drain_stop`. Waits for `stop`
/// without a relay.
async fn relay_until(
    relay: Option<Relay>,
    stop: &CancellationToken,
    drain_stop: &CancellationToken,
) -> Result<(), OutboxError> {
    let Some(relay) = relay else {
        stop.cancelled().await;
        return Ok(());
    };
    let report = Box::pin(relay.run_then_drain(stop.clone(), drain_stop.clone())).await?;
    tracing::info!(published = report.published, "the relay ended");
    Ok(())
}

/// Ends the relay's drain shortly before the deadline of the stop.
async fn limit_drain(
    deadline: &StopDeadline,
    stop: &CancellationToken,
    drain_stop: &CancellationToken,
    has_outbox: bool,
) {
    stop.cancelled().await;
    sleep_until(deadline.relay_ends()).await;
    drain_stop.cancel();
    if has_outbox {
        tracing::warn!(
            "the stop ends although the outbox still has events: another gateway or the next \
             start publishes them"
        );
    }
}

async fn reload(tls: Option<&Tls>) {
    if let Some(tls) = tls {
        tls.reload_regularly().await;
    }
}

/// The bounds of posts: those of the settings, or the defaults for the store. A body that posts may
/// have is read whatever they are. Without authentication all requests are of one caller, which has
/// all uploads.
fn admission(settings: &GatewaySettings) -> AdmissionSettings {
    let default = || settings.store.admission();
    let mut admission = settings.admission.clone().unwrap_or_else(default);
    admission.body_bytes_max = admission.body_bytes_max.max(settings.post.body_bytes_max);
    if settings.is_open() {
        let uploads_max = admission.uploads_max;
        admission.uploads_per_caller_max.get_or_insert(uploads_max);
    }
    admission
}

/// The topics that the read model reads.
fn read_model_topics() -> Vec<String> {
    let topics = shop_schemas::topics().iter();
    topics
        .filter(|topic| {
            topic
                .consumers
                .iter()
                .any(|consumer| consumer == READ_MODEL)
        })
        .map(|topic| topic.name.clone())
        .collect()
}

/// Reports whether the store answers, and what waits in it, until the future is dropped. A store
/// that waits for the brokers itself counts as answering: the gateway cannot heal the brokers, and
/// a restart does not either. Cancels `stop`, and returns, if the store failed permanently.
async fn watch_store(store: Arc<dyn AcceptStore>, health: &Health, stop: &CancellationToken) {
    let is_outbox = store.keeps_identities();
    let mut due = interval(STORE_CHECK_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Some(reason) = store.failed() {
            tracing::error!(reason, "the store failed permanently; the gateway stops");
            health.set_ready(STORE, Err(reason));
            stop.cancel();
            return;
        }
        if is_outbox {
            // Any query does; no event has this id.
            let state = match timeout(STORE_CHECK_INTERVAL, store.find("", None)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {STORE_CHECK_INTERVAL:?}")),
            };
            health.set_ready(STORE, state);
        }
        let backlog = store.backlog();
        let age = backlog.oldest_age.unwrap_or_default().as_secs();
        let note = format!("{} events wait for the brokers, {age} s", backlog.events);
        health.set_note(STORE, (backlog.events > 0).then_some(note));
    }
}

/// Runs `run` to its end, with `task` concurrently until then.
async fn beside<T>(run: impl Future<Output = T>, task: impl Future) -> T {
    let mut run = pin!(run);
    tokio::select! {
        outcome = &mut run => outcome,
        _ = task => run.await,
    }
}
