//! Runs a simulation: generates events at a steady rate, sends them, and settles them concurrently.

use super::Simulation;
use super::content::{Content, Customers, Happening};
use super::journal::{Journal, SentEvent};
use super::tally::Tally;
use crate::connection::Connection;
use crate::output::Print;
use crate::pipeline::{Underway, WINDOW, settle_in_order};
use crate::progress::ProgressDisplay;
use anyhow::Context;
use evenkeel::event::{Event, EventType, derived_id};
use evenkeel::publisher::{PendingReceipt, Publisher};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use evenkeel_program::stop::Stop;
use jiff::Timestamp;
use shop_schemas::OrderPlaced;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

type Queue = mpsc::Sender<(SentEvent, Underway<PendingReceipt>)>;

/// Publishes simulated orders as events from `source` and writes a summary.
///
/// # Errors
/// If no broker answers, or the journal cannot be written.
pub async fn simulate(
    simulation: Simulation,
    connection: &Connection,
    source: &str,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let stop = Stop::listen()?;
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
    let display = ProgressDisplay::start(simulation.quiet, Some(events));
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
    let pace = Pace::new(&simulation);
    tokio::join!(sender.send(pace, events), settling);
    let summary = tally
        .finish(&simulation.content, started.elapsed())
        .with_context(named)?;
    output.one(&summary, || summary.done())?;
    Ok(match stop.requested() {
        Some(signal) => Ending::Stopped(signal),
        None if summary.is_all_acknowledged() => Ending::Done,
        None => Ending::SomeFailed,
    })
}

/// The times of the events.
struct Pace<'a> {
    rate: u32,
    ticks: Interval,
    /// The file that may contain another rate, and the end of the events in that case.
    file: Option<&'a Path>,
    until: Instant,
    look_at: Instant,
}

impl<'a> Pace<'a> {
    fn new(simulation: &'a Simulation) -> Self {
        let now = Instant::now();
        Self {
            rate: simulation.rate,
            ticks: ticks(simulation.rate),
            file: simulation.rate_file.as_deref(),
            until: now + simulation.length,
            look_at: now + RATE_INTERVAL,
        }
    }

    /// Waits until the next event is due. Returns false at the end of the simulation. Cancel-safe.
    async fn next(&mut self) -> bool {
        self.ticks.tick().await;
        let now = Instant::now();
        let Some(file) = self.file else {
            return true;
        };
        if now >= self.look_at {
            self.look_at = now + RATE_INTERVAL;
            // A missing file or invalid content changes nothing.
            let told = std::fs::read_to_string(file).ok();
            let told = told.and_then(|text| text.trim().parse::<NonZeroU32>().ok());
            if let Some(rate) = told.map(NonZeroU32::get).filter(|rate| *rate != self.rate) {
                (self.rate, self.ticks) = (rate, ticks(rate));
            }
        }
        now < self.until
    }
}

/// Interval at which the file is checked for another rate.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

fn ticks(rate: u32) -> Interval {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

/// Generates events and sends them.
struct Sender<'a> {
    publisher: &'a Publisher,
    halt: &'a CancellationToken,
    content: &'a Content,
    queue: Queue,
}

impl Sender<'_> {
    /// Sends this many events at a rate per second. It sends fewer if it is stopped or slowed down.
    async fn send(self, mut pace: Pace<'_>, events: u64) {
        let mut customers = Customers::new(self.content.clone());
        for _ in 0..events {
            let goes_on = tokio::select! {
                biased;
                () = self.halt.cancelled() => false,
                goes_on = pace.next() => goes_on,
            };
            if !goes_on {
                return;
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

    /// Enqueues an event whose id is derived from run and key, so that a repeated run repeats its
    /// ids. `None` if it was stopped before there was room.
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
