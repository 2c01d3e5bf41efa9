//! `evenkeel outbox relay`: a daemon that publishes committed events.
//!
//! For services that do not run a relay themselves. The relay is `evenkeel::outbox::Relay`; this
//! file owns flags, defaults, the daemon around it, and the exit code.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::store_address::StoreArgs;
use crate::output::stderr::say;
use anyhow::Context;
use clap::Args;
use evenkeel::outbox::{OutboxStore, Relay, RelaySettings};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings, admin_address};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use std::net::SocketAddr;
use std::time::Duration;

/// Publish the committed events of an outbox, until SIGTERM or SIGINT.
///
/// Several relays of one store share its events, and take over from each other. Creates the
/// outbox's tables if they are missing. Safe to run any number of times: an event that is published
/// twice, after a crash, has the same id.
///
/// Exit codes: 0 all events in flight were acknowledged; 1 some were not (they stay in the outbox),
/// or, with --until-empty, keys are held.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// End when only held keys are left, and topics that reject every event.
    #[arg(long)]
    until_empty: bool,

    /// Slot lease duration: another relay takes over the slots of a killed one after this time; a
    /// bare number is seconds.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "15s",
        value_parser = parse_duration_or_seconds
    )]
    lease: Duration,

    /// Interval between reads of the outbox without a notification.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "200ms",
        value_parser = parse_duration_or_seconds
    )]
    poll_interval: Duration,

    /// How long a stop waits for acknowledgements.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration_or_seconds
    )]
    drain_timeout: Duration,

    /// Address of /livez, /readyz and /metrics: a port alone is on 127.0.0.1; 0.0.0.0:PORT is
    /// reachable from other machines [default: no server].
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = admin_address)]
    admin: Option<SocketAddr>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the relay. The daemon, not the tool, handles the signals, because a stop drains.
pub(super) async fn run(args: RelayArgs) -> anyhow::Result<Ending> {
    let kafka = args.connection.kafka()?;
    say!("publishing to {}", kafka.brokers);
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/evenkeel/outbox"))?;
    let mut daemon = DaemonSettings::new("evenkeel-outbox-relay");
    daemon.admin = args.admin;
    let daemon = Daemon::start(daemon).await.context("starting the daemon")?;
    let store = OutboxStore::open(args.store.address.as_str()).await?;
    let mut settings = RelaySettings::default();
    settings.lease = args.lease;
    settings.poll_interval = args.poll_interval;
    settings.drain_timeout = args.drain_timeout;
    let relay = Relay::new(store, publisher)
        .with_settings(settings)
        .with_health(daemon.health.clone());
    let stop = daemon.stop.clone();
    let ran = match args.until_empty {
        true => relay.drain(stop).await,
        false => relay.run(stop).await,
    };
    daemon.finish_spans().await;
    let report = ran?;
    say!(
        "{} events published, {} attempts failed, {} keys held, {} events not acknowledged",
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
