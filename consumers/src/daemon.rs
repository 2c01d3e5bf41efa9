//! Runs a service: store, publisher, router and consumer put together, from the flags to the exit code.

use crate::exit;
use crate::journal;
use crate::options::{Options, Settings};
use crate::purge;
use anyhow::{Context, Result};
use clap::{Args, Command, FromArgMatches};
use evenkeel::consumer::{Bound, Consumer, RunReport, Stopped};
use evenkeel::handler::{Delivery, Outcome, Router};
use evenkeel::inbox::{SqliteInbox, SqliteSettings};
use evenkeel::outbox::{Relay, SqliteOutbox};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use std::convert::Infallible;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A service: what distinguishes one daemon from the others.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its name, which is its consumer group, and `/shop/<name>` the source of the events it publishes.
    pub name: &'static str,
    /// What it does, in a line of help.
    pub about: &'static str,
    /// Its tables (`CREATE TABLE IF NOT EXISTS …`), beside inbox and journal.
    pub schema: &'static str,
    /// Adds its handlers to a router.
    pub handlers: fn(Router) -> Router,
}

/// A daemon's `main`: reads the flags, runs the service, says on standard error what went wrong.
pub async fn main(service: &Service) -> ExitCode {
    let matches = command(service).get_matches();
    match Options::from_arg_matches(&matches) {
        Ok(options) => exit(start(service, options).await),
        Err(error) => error.exit(),
    }
}

/// A service's command line: the flags that every daemon has.
pub fn command(service: &Service) -> Command {
    Options::augment_args(Command::new(service.name))
        .about(service.about)
        .version(env!("CARGO_PKG_VERSION"))
}

/// The exit code of a run; an error is said on standard error first.
pub fn exit(result: Result<u8>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        exit::code(&error)
    });
    ExitCode::from(code)
}

/// Runs a service with these flags and returns its exit code.
///
/// # Errors
/// See [`run`], and when a flag, a variable or the configuration file cannot be used.
pub async fn start(service: &Service, options: Options) -> Result<u8> {
    start_with(service, options, |router| router).await
}

/// [`start`] with something around the router, such as what has to happen before a handler has its transaction.
///
/// # Errors
/// As for [`start`].
pub async fn start_with<H: Handle>(
    service: &Service,
    options: Options,
    around: impl FnOnce(Router) -> H,
) -> Result<u8> {
    let settings = options.settings(service.name)?;
    let bound = settings.consumer.bound;
    let report = run(service, settings, around).await?;
    Ok(code(bound, &report))
}

/// What a consumer calls for each record: a router, or layers around one.
pub trait Handle:
    tower::Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<H> Handle for H where
    H: tower::Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Runs a service until it is stopped or its bound is reached.
///
/// # Errors
/// When the store, the admin address or the cluster cannot be used, or the client fails for good.
pub async fn run<H: Handle>(
    service: &Service,
    settings: Settings,
    around: impl FnOnce(Router) -> H,
) -> Result<RunReport> {
    let daemon = Daemon::start(DaemonSettings {
        service: service.name.to_owned(),
        admin: settings.admin,
        log_json: settings.log_json,
    })
    .await?;
    let schema = [journal::SCHEMA, service.schema].concat();
    let outbox = SqliteOutbox::open(&settings.store).await?;
    let inbox = SqliteSettings::new(service.name, &schema).with_durability(settings.durability);
    let inbox = SqliteInbox::open_with(&settings.store, &inbox)
        .await?
        .with_outbox(outbox.clone())?;
    let catalogue = Arc::new(shop_schemas::catalogue()?);
    let mut router = (service.handlers)(Router::new()).with_inbox(inbox.clone());
    if settings.validate {
        router = router.with_catalogue(Arc::clone(&catalogue));
    }
    let mut publishing = PublisherSettings::new(format!("/shop/{}", service.name));
    publishing.catalogue = Some(catalogue);
    let publisher = Publisher::new(&settings.kafka, publishing)?;
    let ending = Ending::within(settings.consumer.drain_timeout);
    let stop = daemon.stop.clone();
    // Out of the consumer's sight where something is around it.
    router.validate()?;
    let consuming = Consumer::new(settings.kafka, settings.consumer, around(router))?
        .with_publisher(publisher.clone())
        .with_health(daemon.health.clone())
        .run(daemon.stop);
    let purging = purge::hourly(&inbox, settings.inbox_retention);
    let until_stop = async {
        stop.run_until_cancelled(purging).await;
        ending.begin();
    };
    let consuming = beside(consuming, until_stop);
    let relay = Relay::new(outbox, publisher.clone()).with_health(daemon.health);
    let consuming = Box::pin(async { Ok(consuming.await?) });
    let report = with_relay(relay, &ending, consuming).await?;
    tracing::info!(
        stopped = ?report.stopped,
        received = report.received,
        settled = report.settled,
        duplicates = report.duplicates,
        ignored = report.ignored,
        dead_letters = report.dead_letters,
        parked = report.parked,
        clean = report.clean,
        "run ended"
    );
    publisher.flush(ending.left()).await?;
    inbox.close().await;
    Ok(report)
}

/// The one deadline that all parts of a stop share.
struct Ending {
    within: Duration,
    begun: OnceLock<Instant>,
}

impl Ending {
    fn within(within: Duration) -> Self {
        Self {
            within,
            begun: OnceLock::new(),
        }
    }

    /// Counts from now on, if it does not yet; says until when.
    fn begin(&self) -> Instant {
        *self.begun.get_or_init(Instant::now) + self.within
    }

    /// What is left of it.
    fn left(&self) -> Duration {
        self.begin().saturating_duration_since(Instant::now())
    }
}

/// Runs to the end of `run`, with a relay that takes to Kafka what the handlers publish. One that cannot go on ends both.
///
/// What the last handlers left in the outbox is published for as long as the stop may take; what is left then is published by
/// another instance, or after the next start.
async fn with_relay<T>(
    relay: Relay,
    ending: &Ending,
    run: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (stop, late) = (CancellationToken::new(), CancellationToken::new());
    let relaying = Box::pin(relay.run_then_empty(stop.clone(), late.clone()));
    let relaying = async { relaying.await.context("the outbox's relay failed") };
    let running = async {
        let ended = run.await;
        stop.cancel();
        ended
    };
    let limit = async {
        stop.cancelled().await;
        tokio::time::sleep_until(ending.begin()).await;
        late.cancel();
        tracing::warn!("events are left in the outbox; they are published after the next start");
    };
    let both = async { tokio::try_join!(running, relaying) };
    let (ended, _) = beside(both, limit).await?;
    Ok(ended)
}

/// Runs to the end of `run`, with `task` beside it until then.
async fn beside<T>(run: impl Future<Output = T>, task: impl Future) -> T {
    let mut run = pin!(run);
    tokio::select! {
        outcome = &mut run => outcome,
        _ = task => run.await,
    }
}

fn code(bound: Bound, report: &RunReport) -> u8 {
    match report.stopped {
        _ if !report.clean => exit::TIMEOUT,
        Stopped::Requested if bound != Bound::Endless => exit::INTERRUPTED,
        _ => exit::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::{Headers, OutgoingRecord};
    use evenkeel::kafka::KafkaConfig;
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    #[test]
    fn the_exit_code_says_how_the_run_ended() {
        for (bound, stopped, clean, expected) in [
            (Bound::Endless, Stopped::Requested, true, exit::OK),
            (Bound::UntilEnd, Stopped::BoundReached, true, exit::OK),
            (Bound::UntilEnd, Stopped::Requested, true, exit::INTERRUPTED),
            (Bound::Endless, Stopped::Requested, false, exit::TIMEOUT),
        ] {
            let report = RunReport {
                stopped,
                received: 0,
                settled: 0,
                duplicates: 0,
                ignored: 0,
                dead_letters: 0,
                parked: 0,
                clean,
            };
            assert_eq!(code(bound, &report), expected, "{bound:?} {report:?}");
        }
    }

    #[tokio::test]
    async fn the_parts_of_a_stop_share_one_deadline_also_while_the_brokers_are_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("service.db");
        let outbox = SqliteOutbox::open(&path).await.expect("an outbox");
        let record = OutgoingRecord {
            topic: "t".to_owned(),
            partition: None,
            key: None,
            value: None,
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.expect("a connection");
        let written = outbox.publish_records(&mut connection, &[record]).await;
        written.expect("written");
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&KafkaConfig::new("127.0.0.1:1"), settings);
        let publisher = publisher.expect("a publisher");

        let (within, draining) = (Duration::from_secs(4), Duration::from_secs(3));
        let (began, ending) = (Instant::now(), Ending::within(within));
        let drain = async {
            ending.begin();
            tokio::time::sleep(draining).await;
            Ok(())
        };
        let relay = Relay::new(outbox, publisher.clone());
        let stop = async {
            with_relay(relay, &ending, drain).await.expect("it ends");
            publisher.flush(ending.left()).await
        };
        let ended = tokio::time::timeout(within * 3, stop).await;
        let unsent = ended.expect("it ends").expect_err("nobody took it");
        assert_eq!(unsent.records, 1);
        let took = began.elapsed();
        assert!(took < within + Duration::from_secs(2), "{took:?}");
    }
}
