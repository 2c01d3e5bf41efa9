//! Runs a service: assembles store, publisher, router and consumer, from the flags to the exit
//! code.
//!
//! [`options`]: the flags; [`config_file`]: the configuration file; [`inbox_purge`]: deletes old
//! inbox rows; [`layer`]: work around a router.

pub mod config_file;
pub mod inbox_purge;
pub mod layer;
pub mod options;

use crate::effect_journal;
use anyhow::{Context, Result};
use clap::{Args, Command, FromArgMatches};
use evenkeel::consumer::{Consumer, RunReport, StopWhen, Stopped};
use evenkeel::handler::{Delivery, Outcome, Router};
use evenkeel::inbox::{InboxError, SqliteInbox, SqliteSettings};
use evenkeel::outbox::{Relay, RelaySettings, SqliteOutbox};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::signals::{StopRequest, StopRequests, StopSignal};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use evenkeel::telemetry::say;
use evenkeel_program::exit::{self, Ending};
use options::{Options, Settings};
use std::convert::Infallible;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The definition of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Name of the service and of its consumer group. Its events have the source `/shop/<name>`.
    pub name: &'static str,
    /// Description of the service, one line of help.
    pub about: &'static str,
    /// Its tables (`CREATE TABLE IF NOT EXISTS …`), in addition to inbox and journal.
    pub schema: &'static str,
    /// Adds its handlers to a router.
    pub handlers: fn(Router) -> Router,
}

/// A daemon's `main`: parses the flags, runs the service, prints errors to standard error.
pub async fn main(service: &Service) -> ExitCode {
    let matches = command(service).get_matches();
    match Options::from_arg_matches(&matches) {
        Ok(options) => exit(start(service, options).await),
        Err(error) => error.exit(),
    }
}

/// The end of every daemon's help.
const EXIT_CODES: &str = "\
Exit codes:
  0         Stopped after a clean drain, or the bound (--until-end, --idle) was reached
  1         Failed
  2         Wrong usage
  3         The store belongs to another service
  4         No broker can be reached
  5         Not drained in time; unsettled records are redelivered
  130, 143  SIGINT or SIGTERM stopped it before its bound, or a second one ended it at once";

/// A service's command line: the flags of every daemon.
pub fn command(service: &Service) -> Command {
    let name = service.name;
    Options::augment_args(Command::new(name))
        .about(service.about)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(format!(
            "Examples:\n  {name} --brokers localhost:9092 --admin 127.0.0.1:9101\n  \
             {name} --until-end --store /tmp/{name}.db\n\n{EXIT_CODES}"
        ))
}

/// The exit code of a run. Prints an error to standard error first.
pub fn exit(result: Result<Ending>) -> ExitCode {
    let is_of_another_service = |error: &anyhow::Error| {
        let mut causes = error.chain().map(|cause| cause.downcast_ref());
        causes.any(|cause| matches!(cause, Some(InboxError::Foreign { .. })))
    };
    match result {
        Err(error) if is_of_another_service(&error) => {
            say(&described(&error));
            ExitCode::from(exit::FOUND_BAD)
        }
        result => exit::report(result, described),
    }
}

fn described(error: &anyhow::Error) -> String {
    format!("error: {}", exit::message(error))
}

/// Runs a service with these flags. Returns how it ended.
///
/// # Errors
/// As for [`run`], and if a flag, a variable or the configuration file is invalid.
pub async fn start(service: &Service, options: Options) -> Result<Ending> {
    start_with(service, options, |router| router).await
}

/// [`start`] with a layer around the router, such as work that precedes a handler's transaction.
///
/// # Errors
/// As for [`start`].
pub async fn start_with<H: Handle>(
    service: &Service,
    options: Options,
    around: impl FnOnce(Router) -> H,
) -> Result<Ending> {
    let settings = options.settings(service.name)?;
    let bound = settings.consumer.stop_when;
    let (report, signal) = run(service, settings, around).await?;
    Ok(ending(bound, signal, &report))
}

/// The service that a consumer calls for each record: a router, or layers around one.
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

/// Runs a service until it is stopped or reaches its bound. Returns the report, and the signal that
/// stopped it.
///
/// # Errors
/// If the store, the admin address or the cluster cannot be used, or the client fails permanently.
pub async fn run<H: Handle>(
    service: &Service,
    settings: Settings,
    around: impl FnOnce(Router) -> H,
) -> Result<(RunReport, Option<StopSignal>)> {
    let mut surroundings = DaemonSettings::new(service.name);
    surroundings.admin = settings.admin;
    surroundings.log_json = settings.log_json;
    let daemon = Daemon::start(surroundings).await?;
    let signal = first_signal()?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let schema = [effect_journal::SCHEMA, service.schema].concat();
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
    let deadline = StopDeadline::within(settings.consumer.drain_timeout);
    let stop = daemon.stop.clone();
    // The consumer cannot see the router inside a layer.
    router.validate()?;
    let consumer = settings
        .consumer
        .with_drain_timeout(deadline.for_consumer());
    let consuming = Consumer::new(settings.kafka, consumer, around(router))?
        .with_publisher(publisher.clone())
        .with_health(daemon.health.clone())
        .run(daemon.stop.clone());
    let purging = inbox_purge::hourly(&inbox, settings.inbox_retention);
    let until_stop = async {
        stop.run_until_cancelled(purging).await;
        deadline.begin();
    };
    let consuming = beside(consuming, until_stop);
    let relay = Relay::new(outbox, publisher.clone()).with_health(daemon.health.clone());
    let consuming = Box::pin(async { Ok(consuming.await?) });
    let ended = async {
        let report = with_relay(relay, &deadline, consuming).await?;
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
        let flushed = publisher.flush(deadline.left()).await;
        inbox.close().await;
        flushed?;
        anyhow::Ok((report, signal.get().copied()))
    }
    .await;
    // However it ended: the last spans tell why.
    daemon.finish_spans().await;
    ended
}

/// The first signal that asks this process to stop, once it has arrived. The daemon acts on it.
fn first_signal() -> std::io::Result<Arc<OnceLock<StopSignal>>> {
    let mut requests = StopRequests::listen()?;
    let signal = Arc::new(OnceLock::new());
    let first = Arc::clone(&signal);
    tokio::spawn(async move {
        if let StopRequest::Stop(received) = requests.next().await {
            first.get_or_init(|| received);
        }
    });
    Ok(signal)
}

/// The longest wait for the brokers at the end of a stop.
const ACKNOWLEDGEMENTS_MAX: Duration = Duration::from_millis(2_500);

/// The shortest time for the relay's last results.
const LAST_RESULTS_MIN: Duration = Duration::from_millis(75);

/// The deadline that all parts of a stop share: the consumer's drain comes first, then the end of
/// the relay.
struct StopDeadline {
    within: Duration,
    begun: OnceLock<Instant>,
}

impl StopDeadline {
    fn within(within: Duration) -> Self {
        Self {
            within,
            begun: OnceLock::new(),
        }
    }

    /// Starts the deadline, unless it has started. Returns its time.
    fn begin(&self) -> Instant {
        *self.begun.get_or_init(Instant::now) + self.within
    }

    /// The settings of the relay, whose end takes at most a quarter of the deadline: a tenth for
    /// acknowledgements, and the rest for the last results.
    fn relay_settings(&self) -> RelaySettings {
        RelaySettings::default()
            .with_drain_timeout((self.within / 10).min(ACKNOWLEDGEMENTS_MAX))
            .with_last_results_within((self.within / 20 * 3).max(LAST_RESULTS_MIN))
    }

    /// The part of it in which the relay takes no more rows and ends.
    fn for_relay_end(&self) -> Duration {
        self.relay_settings().stop_within().min(self.within)
    }

    /// The part of it in which the consumer drains, commits and leaves its group. A consumer may
    /// take 3 s in any case, so a stop with a deadline below 4 s may end after it.
    fn for_consumer(&self) -> Duration {
        self.within - self.for_relay_end()
    }

    /// The remaining time.
    fn left(&self) -> Duration {
        self.begin().saturating_duration_since(Instant::now())
    }
}

/// Runs `run` to its end, with a relay that publishes the handlers' events to Kafka. A permanent
/// error of the relay ends both.
///
/// After the last handlers, the rest of the outbox is published until shortly before the deadline
/// of the stop, which leaves time for acknowledgements. Another instance, or the next start,
/// publishes what remains, also of a consumer that took all of its time.
async fn with_relay<T>(
    relay: Relay,
    deadline: &StopDeadline,
    run: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (stop, drain_stop) = (CancellationToken::new(), CancellationToken::new());
    let relay = relay.with_settings(deadline.relay_settings());
    let relaying = Box::pin(relay.run_then_drain(stop.clone(), drain_stop.clone()));
    let relaying = async { relaying.await.context("the outbox's relay failed") };
    let running = async {
        let ended = run.await;
        stop.cancel();
        ended
    };
    let limit = async {
        stop.cancelled().await;
        tokio::time::sleep_until(deadline.begin() - deadline.for_relay_end()).await;
        drain_stop.cancel();
        tracing::warn!(
            "the stop ends although the outbox still has events: another instance or the next \
             start publishes them"
        );
    };
    let both = async { tokio::try_join!(running, relaying) };
    let (ended, _) = beside(both, limit).await?;
    Ok(ended)
}

/// Runs `run` to its end, with `task` concurrently until then.
async fn beside<T>(run: impl Future<Output = T>, task: impl Future) -> T {
    let mut run = pin!(run);
    tokio::select! {
        outcome = &mut run => outcome,
        _ = task => run.await,
    }
}

/// The ending of a run. A signal is the normal end of a run without a bound.
fn ending(bound: StopWhen, signal: Option<StopSignal>, report: &RunReport) -> Ending {
    match report.stopped {
        // Not drained in time: uncommitted records are redelivered.
        _ if !report.clean => Ending::Unknown,
        Stopped::Requested if bound != StopWhen::Endless => {
            Ending::Stopped(signal.unwrap_or(StopSignal::Interrupt).number())
        }
        _ => Ending::Done,
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
    fn the_exit_code_shows_how_the_run_ended() {
        use StopSignal::{Interrupt, Terminate};
        use Stopped::{BoundReached, Requested};
        let (endless, bounded) = (StopWhen::Endless, StopWhen::UntilEnd);
        for (bound, stopped, signal, clean, expected) in [
            (endless, Requested, Some(Interrupt), true, exit::DONE),
            (endless, Requested, Some(Terminate), true, exit::DONE),
            (bounded, BoundReached, None, true, exit::DONE),
            (bounded, Requested, Some(Interrupt), true, exit::INTERRUPTED),
            (bounded, Requested, Some(Terminate), true, 143),
            (bounded, Requested, None, true, exit::INTERRUPTED),
            (endless, Requested, Some(Terminate), false, exit::NO_ANSWER),
        ] {
            let mut report = RunReport::new(stopped);
            report.clean = clean;
            assert_eq!(
                ending(bound, signal, &report).code(),
                expected,
                "{bound:?} {report:?}"
            );
        }
    }

    #[test]
    fn the_consumer_leaves_time_for_the_end_of_the_relay() {
        for (within, consumer) in [(25_000, 18_750), (10_000, 7_500), (2_000, 1_500), (0, 0)] {
            let [within, consumer] = [within, consumer].map(Duration::from_millis);
            let deadline = StopDeadline::within(within);
            assert_eq!(deadline.for_consumer(), consumer, "{within:?}");
        }
        let [consumer_min, shortest] = [3, 4].map(Duration::from_secs);
        for within in [0, 2, 3, 4, 10, 15, 25, 120].map(Duration::from_secs) {
            let deadline = StopDeadline::within(within);
            let consumed = deadline.for_consumer().max(consumer_min);
            let ended = consumed + deadline.relay_settings().stop_within();
            assert!(ended <= within.max(shortest), "{within:?}: {ended:?}");
        }
    }

    #[test]
    fn a_short_stop_does_not_shorten_the_leases_of_the_relay() {
        let settings = StopDeadline::within(Duration::from_secs(2)).relay_settings();
        assert_eq!(settings.lease, RelaySettings::default().lease);
    }

    #[tokio::test]
    async fn all_parts_of_a_stop_share_one_deadline_without_brokers() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let path = directory.path().join("service.db");
        let outbox = SqliteOutbox::open(&path).await.expect("the outbox opens");
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

        let within = Duration::from_secs(4);
        let (began, deadline) = (Instant::now(), StopDeadline::within(within));
        let drain = async {
            deadline.begin();
            tokio::time::sleep(deadline.for_consumer()).await;
            Ok(())
        };
        let relay = Relay::new(outbox, publisher.clone());
        let stop = async {
            with_relay(relay, &deadline, drain).await.expect("it ends");
            publisher.flush(deadline.left()).await
        };
        let ended = tokio::time::timeout(within * 3, stop).await;
        let unsent = ended.expect("it ends").expect_err("nobody took it");
        assert_eq!(unsent.records, 1);
        let took = began.elapsed();
        assert!(took < within + Duration::from_secs(2), "{took:?}");
    }
}
