//! The measured servers, each on a free port of this machine, and what they use under a load.
//!
//! Knows what a server is made of and how it stops. Does not know what a load sends.

use super::answer_times::{AnswerTimes, time_answer};
use crate::measure::usage::{Usage, UsageReading, resident_mib};
use crate::order_event::OrderEvent;
use crate::rounds::run_in_process;
use crate::spec::{Spec, Turn};
use anyhow::bail;
use axum::middleware::from_fn_with_state;
use evenkeel::event::EventType;
use evenkeel::kafka::admin::Admin;
use evenkeel::outbox::{OutboxError, Relay, RelayReport};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel_gateway::access::{AllowList, Authenticator, EventRoute, Principal, Rights};
use evenkeel_gateway::admission::{Admission, AdmissionSettings};
use evenkeel_gateway::post::{PostLimits, Posting};
use evenkeel_gateway::server::{ConnectionLimits, Parts, RouterSettings, Server, bind, router};
use evenkeel_gateway::status::{StatusReader, StatusSettings};
use evenkeel_gateway::store::{AcceptStore, BrokerStore, SqliteStore};
use evenkeel_gateway::stream::{StreamSettings, Streams};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often the resident memory is read under a load.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit of each step of a stop, and of each request to the brokers.
pub(super) const WITHIN: Duration = Duration::from_secs(120);
/// Begins the name of the contestant that is the clients of a server. It does not take part.
const CLIENTS: &str = "clients ";
/// Longer than any turn: a stream has one heartbeat, its first frame, so its frames can be counted.
const NO_HEARTBEAT: Duration = Duration::from_secs(3_600);

/// Where orders are posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) path: String,
}

/// What the clients do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Load {
    /// The number of connections.
    pub(super) clients: usize,
    /// Requests per second of all clients together. None: each client sends a request when it has
    /// the answer to its last one.
    pub(super) per_second: Option<f64>,
    /// The first requests do not count.
    pub(super) warm_up: Duration,
    pub(super) counted: Duration,
    /// Whether refused requests of a fixed rate come back when they were told. Those of a closed
    /// loop always do.
    pub(super) returns: bool,
}

impl Load {
    /// Clients that await each answer.
    pub(super) const fn closed(clients: usize, warm_up: Duration, counted: Duration) -> Self {
        Self {
            clients,
            per_second: None,
            warm_up,
            counted,
            returns: true,
        }
    }

    /// The load that this process is to run, if it is one of clients.
    pub(super) fn of(spec: &Spec) -> anyhow::Result<Option<(Target, Self)>> {
        let load = spec.contestant.strip_prefix(CLIENTS);
        Ok(load.map(serde_json::from_str).transpose()?)
    }
}

/// How a gateway makes events durable.
#[derive(Debug, Clone, Copy)]
pub(super) enum Durability {
    /// By the brokers' acknowledgement.
    Brokers,
    /// By an outbox in SQLite, which waits for the disk. A relay publishes meanwhile.
    Outbox,
}

/// A server that runs.
pub(super) struct Running {
    target: Target,
    serving: JoinHandle<()>,
    /// None for the plain route.
    gateway: Option<Gateway>,
}

struct Gateway {
    server: Server,
    publisher: Publisher,
    admission: Admission,
    streams: Streams,
    store: Arc<dyn AcceptStore>,
    outbox: Option<Outbox>,
}

struct Outbox {
    store: Arc<SqliteStore>,
    stop: CancellationToken,
    relaying: JoinHandle<Result<RelayReport, OutboxError>>,
    /// Deletes the file at the end.
    _folder: TempDir,
}

/// What a server used under a load.
pub(super) struct Loaded {
    /// What the clients measured.
    pub(super) clients: Turn,
    /// Time and processor time of the server.
    pub(super) spent: Usage,
    /// The growth of its resident memory, at most.
    pub(super) growth_mib: f64,
}

/// Starts a whole gateway without authentication: validation by the schema, admission and all
/// middlewares are on. Like a gateway without an admin server, it has no recorder of metrics.
/// With `times`, a middleware measures the answers.
pub(super) async fn gateway(
    spec: &Spec,
    durability: Durability,
    times: Option<&AnswerTimes>,
) -> anyhow::Result<Running> {
    let kafka = spec.kafka()?;
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/bench/gateway"))?;
    let route = EventRoute::new(OrderEvent::TYPE, spec.topic.as_str(), "key")
        .with_post(true)
        .with_stream(true);
    let allow_list = AllowList::new(vec![route], Arc::new(OrderEvent::catalogue()?))?;
    let allow_list = Arc::new(allow_list);
    let outbox = match durability {
        Durability::Brokers => None,
        Durability::Outbox => Some(Outbox::open(&publisher).await?),
    };
    let store: Arc<dyn AcceptStore> = match &outbox {
        None => Arc::new(BrokerStore::new(publisher.clone())),
        Some(outbox) => outbox.store.clone(),
    };
    let admission = admission(durability, Arc::clone(&store));
    let settings = StreamSettings::default().with_heartbeat(NO_HEARTBEAT);
    let streams = Streams::new(kafka.clone(), Arc::clone(&allow_list), settings);
    let status = StatusReader::new(
        kafka,
        Arc::clone(&allow_list),
        Arc::clone(&store),
        StatusSettings::default(),
    );
    let parts = Parts::new(
        Posting::new(allow_list, Arc::clone(&store), PostLimits::default()),
        streams.clone(),
        status,
        admission.clone(),
        Authenticator::open(Principal::new("bench", Rights::all())),
        "gateway-of-bench".into(),
    );
    let mut router = router(parts, RouterSettings::default().with_local_only(true));
    if let Some(times) = times {
        router = router.layer(from_fn_with_state(times.clone(), time_answer));
    }
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let address = listener.local_addr()?;
    let path = format!("/events/{}", OrderEvent::TYPE);
    let server = Server::new(ConnectionLimits::default());
    let accepting = server.clone();
    let serving = async move { Box::pin(accepting.serve(listener, None, router)).await };
    Ok(Running {
        target: Target { address, path },
        serving: tokio::spawn(serving),
        gateway: Some(Gateway {
            server,
            publisher,
            admission,
            streams,
            store,
            outbox,
        }),
    })
}

/// The admission with the default bounds of the store.
fn admission(durability: Durability, store: Arc<dyn AcceptStore>) -> Admission {
    let settings = match durability {
        Durability::Brokers => AdmissionSettings::brokers(),
        Durability::Outbox => AdmissionSettings::outbox(),
    };
    // The only caller may use all places for bodies, as in a gateway without authentication.
    let uploads_max = settings.uploads_max;
    let settings = settings.with_uploads_per_caller_max(uploads_max);
    Admission::new(settings, move || store.backlog())
}

impl Outbox {
    async fn open(publisher: &Publisher) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("gateway.db");
        let store = Arc::new(Box::pin(SqliteStore::open(&path)).await?);
        let stop = CancellationToken::new();
        let relay = Relay::new(store.outbox(), publisher.clone());
        let relaying = relay.run_then_drain(stop.clone(), CancellationToken::new());
        Ok(Self {
            store,
            stop,
            relaying: tokio::spawn(Box::pin(relaying)),
            _folder: folder,
        })
    }
}

impl Running {
    /// A plain route. Its task ends when the server is stopped.
    pub(super) fn of_plain(target: Target, serving: JoinHandle<()>) -> Self {
        Self {
            target,
            serving,
            gateway: None,
        }
    }

    /// Where orders are posted.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The accepted events that wait for the brokers, as of at most a second ago.
    pub(super) fn waiting(&self) -> u64 {
        let gateway = self.gateway.as_ref();
        gateway.map_or(0, |gateway| gateway.store.backlog().events)
    }

    /// The number of open streams.
    pub(super) fn streams(&self) -> usize {
        let gateway = self.gateway.as_ref();
        gateway.map_or(0, |gateway| gateway.streams.clients())
    }

    /// The concurrency limit at present. None for the plain route.
    pub(super) fn limit(&self) -> Option<u32> {
        let gateway = self.gateway.as_ref();
        gateway.map(|gateway| gateway.admission.limit())
    }

    /// Runs a load in a process of its own, and measures this process meanwhile. Calls `sample`
    /// with the resident memory in MiB, at each [`SAMPLE_INTERVAL`].
    pub(super) async fn under(
        &self,
        spec: &Spec,
        load: Load,
        mut sample: impl FnMut(f64),
    ) -> anyhow::Result<Loaded> {
        let task = serde_json::to_string(&(&self.target, load))?;
        let clients = Spec {
            contestant: format!("{CLIENTS}{task}"),
            ..spec.clone()
        };
        let before = resident_mib()?;
        let mut highest = before;
        let begun = UsageReading::now();
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        let mut running = pin!(run_in_process(&clients));
        let clients = loop {
            tokio::select! {
                ended = &mut running => break ended?,
                _ = ticks.tick() => {
                    let resident = resident_mib()?;
                    highest = highest.max(resident);
                    sample(resident);
                }
            }
        };
        Ok(Loaded {
            clients,
            spent: UsageReading::now().since(&begun)?,
            growth_mib: highest - before,
        })
    }

    /// Stops the server, and publishes what waits. Its clients are gone.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Some(gateway) = self.gateway else {
            self.serving.abort();
            return Ok(());
        };
        gateway.server.stop_accepting();
        gateway.server.close_all();
        tokio::time::timeout(WITHIN, self.serving).await??;
        drop(gateway.store);
        if let Some(outbox) = gateway.outbox {
            outbox.stop.cancel();
            tokio::time::timeout(WITHIN, outbox.relaying).await???;
            outbox.store.close().await;
        }
        gateway.publisher.flush(WITHIN).await?;
        Ok(())
    }
}

/// Fails unless the topic has exactly as many records as events were accepted.
pub(super) async fn check_topic(spec: &Spec, accepted: u64) -> anyhow::Result<()> {
    let admin = Admin::connect(&spec.kafka()?, WITHIN).await?;
    let topic = admin.describe_topic(&spec.topic).await?;
    let found: i64 = topic.partitions.iter().map(|p| p.high - p.low).sum();
    if found.unsigned_abs() != accepted {
        bail!("wrong answer: {accepted} events were accepted, {found} are on the topic");
    }
    Ok(())
}
