//! `evenkeel outbox relay`: a daemon that publishes what is committed.

use crate::connection::{ConnectionArgs, parse_duration};
use crate::exit::Ending;
use crate::store::StoreArgs;
use anyhow::Context;
use clap::Args;
use evenkeel::outbox::{OutboxStore, Relay, RelaySettings};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use std::net::SocketAddr;
use std::time::Duration;

/// Publish what is committed in an outbox, until SIGTERM or SIGINT, then finish what is under way.
///
/// Several on one store share its work, and take over from each other. Creates the outbox's tables where there are none.
/// Ends with 0 when all that was under way is acknowledged; with 1 when some of it is not (it stays in the outbox), and with
/// --until-empty also when keys are held.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// End when nothing is left but keys that are held behind a refused event, and topics that refuse all.
    #[arg(long)]
    until_empty: bool,

    /// For how long a relay that was killed keeps its share of the work.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    lease: Duration,

    /// How often to look for events without being told of any.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    poll_interval: Duration,

    /// How long a stop waits for acknowledgements.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,

    /// Serve /livez, /readyz and /metrics there.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<SocketAddr>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Publishes.
pub(super) async fn run(args: RelayArgs) -> anyhow::Result<Ending> {
    let kafka = args.connection.kafka()?;
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/evenkeel/outbox"))?;
    let mut daemon = DaemonSettings::new("evenkeel-outbox-relay");
    daemon.admin = args.admin;
    let daemon = Daemon::start(daemon).await.context("starting the daemon")?;
    let store = OutboxStore::open(&args.store.address).await?;
    let mut settings = RelaySettings::default();
    settings.lease = args.lease;
    settings.poll_interval = args.poll_interval;
    settings.drain_timeout = args.drain_timeout;
    let relay = Relay::new(store, publisher)
        .with_settings(settings)
        .with_health(daemon.health);
    let report = match args.until_empty {
        true => relay.run_until_empty(daemon.stop).await?,
        false => relay.run(daemon.stop).await?,
    };
    anstream::eprintln!(
        "evenkeel: {} events published, {} attempts failed, {} keys held, {} events without an acknowledgement",
        report.published,
        report.failed,
        report.held_keys,
        report.unacknowledged
    );
    let is_held = args.until_empty && report.held_keys > 0;
    match report.unacknowledged > 0 || is_held {
        true => Ok(Ending::SomeFailed),
        false => Ok(Ending::Done),
    }
}
