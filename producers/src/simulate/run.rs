//! Runs a simulation: makes events at a steady rate, sends them, and settles them side by side.

use super::Simulation;
use super::content::{Content, Customers, Happening};
use super::journal::{Journal, SentEvent};
use super::tally::Tally;
use crate::connection::Connection;
use crate::display::Display;
use crate::exit::Ended;
use crate::output::Output;
use crate::pipeline::{Underway, WINDOW, settle_in_order};
use crate::stop::Stop;
use anyhow::Context;
use evenkeel::event::{Event, EventType, derived_id};
use evenkeel::publisher::{PendingReceipt, Publisher};
use jiff::Timestamp;
use shop_schemas::OrderPlaced;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

type Queue = mpsc::Sender<(SentEvent, Underway<PendingReceipt>)>;

/// Publishes simulated orders as events from `source` and writes a summary.
///
/// # Errors
/// No broker answers, or the journal cannot be written.
pub async fn simulate(
    simulation: Simulation,
    connection: &Connection,
    source: &str,
    output: Output,
) -> anyhow::Result<Ended> {
    let stop = Stop::on_signals()?;
    let path = simulation.journal.as_deref();
    let named = || {
        format!(
            "cannot write the journal {}",
            path.unwrap_or("".as_ref()).display()
        )
    };
    let journal = path
        .map(Journal::append_to)
        .transpose()
        .with_context(named)?;
    let publisher = connection.publisher(source, OrderPlaced::TOPIC).await?;
    let events = (f64::from(simulation.rate) * simulation.length.as_secs_f64()).round() as u64;
    let display = Display::start(simulation.quiet, Some(events));
    let halt = stop.token().child_token();
    let (queue, sent) = mpsc::channel(WINDOW);
    let sender = Sender {
        publisher: &publisher,
        halt: &halt,
        content: &simulation.content,
        queue,
    };
    let mut tally = Tally::new(journal, display);
    let started = Instant::now();
    let settling = async {
        let settle = |event: SentEvent, outcome| tally.settle(&event, outcome);
        settle_in_order(sent, stop.token(), simulation.drain_timeout, settle).await;
        halt.cancel();
    };
    tokio::join!(sender.send(simulation.rate, events), settling);
    let summary = tally
        .finish(&simulation.content, started.elapsed())
        .with_context(named)?;
    output.one(&summary)?;
    Ok(match stop.signal() {
        Some(signal) => Ended::Interrupted { signal },
        None if summary.is_all_acknowledged() => Ended::Complete,
        None => Ended::SomeFailed,
    })
}

/// Makes events and sends them.
struct Sender<'a> {
    publisher: &'a Publisher,
    halt: &'a CancellationToken,
    content: &'a Content,
    queue: Queue,
}

impl Sender<'_> {
    /// Sends so many events at a rate per second, or fewer when it is told to halt.
    async fn send(self, rate: u32, events: u64) {
        let mut customers = Customers::new(self.content.clone());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..events {
            tokio::select! {
                biased;
                () = self.halt.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Timestamp::now();
            let sent = match customers.next(now) {
                Happening::Placed(order) => self.enqueue(order, 0).await,
                Happening::Cancelled(order) => self.enqueue(order, 1).await,
            };
            let Some(sent) = sent else { return };
            if self.queue.send(sent).await.is_err() {
                return;
            }
        }
    }

    /// Enqueues an event whose id follows from run and key, so that a run that is repeated repeats its ids; none when it was
    /// told to halt before there was room.
    async fn enqueue<T: EventType>(
        &self,
        data: T,
        seq: u64,
    ) -> Option<(SentEvent, Underway<PendingReceipt>)> {
        let source = self.publisher.source();
        let mut event = Event::new(source, data);
        let key = event.data.key();
        event.attributes.id = derived_id(source, &key, T::TYPE, 0);
        let enqueued = tokio::select! {
            biased;
            () = self.halt.cancelled() => return None,
            enqueued = self.publisher.enqueue(&event) => enqueued,
        };
        let sent = SentEvent {
            event_id: event.attributes.id,
            source: event.attributes.source,
            ty: T::TYPE,
            key,
            topic: T::TOPIC,
            seq,
        };
        let underway = enqueued.map_or_else(Underway::Refused, Underway::Sent);
        Some((sent, underway))
    }
}
