//! The watchdog: says which record has been running for too long, and which worker does not answer.

use super::commit::Owned;
use super::engine::Engine;
use super::worker::{Message, Stuck};
use crate::event::Record;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long a worker may take to answer before its thread counts as blocked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The component under which a stuck handler shows in the health.
const COMPONENT: &str = "handlers";

/// Looks within the time after which a handler is stuck: what is stuck shows soon after.
const LOOKS: u32 = 6;

/// Looks after the handlers.
pub(crate) struct Watch {
    engine: Arc<Engine>,
    /// When to look again, and when to log again: rarely enough not to flood the log.
    next_look: Instant,
    next_warning: Instant,
    complained: bool,
    in_flight: metrics::Gauge,
    in_flight_bytes: metrics::Gauge,
}

impl Watch {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        use crate::telemetry::Metric;
        let gauge = |metric| engine.health.gauge(metric, &[("group", &engine.group)]);
        let (in_flight, in_flight_bytes) = (gauge(Metric::InFlight), gauge(Metric::InFlightBytes));
        let now = Instant::now();
        Self {
            next_look: now + engine.settings.stuck_after / LOOKS,
            next_warning: now,
            engine,
            complained: false,
            in_flight,
            in_flight_bytes,
        }
    }

    /// Reports what is in flight, and complains about handlers that run for longer than `stuck_after`.
    pub(crate) fn look<'a>(&mut self, owned: impl Iterator<Item = &'a Owned>) {
        let engine = &self.engine;
        self.in_flight.set(engine.in_flight() as f64);
        self.in_flight_bytes
            .set(engine.budget.load(std::sync::atomic::Ordering::Relaxed) as f64);
        let stuck_after = engine.settings.stuck_after;
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + stuck_after / LOOKS;
        let warns = now >= self.next_warning;
        let (stuck, silent) = self.stuck(stuck_after, warns);
        let complaint = match &stuck.longest {
            None if silent > 0 => Some(format!(
                "{silent} workers do not answer: a handler blocks their threads"
            )),
            Some((record, running_for)) => {
                if warns {
                    tracing::warn!(group = engine.group, record = ?record, running_for_s = running_for.as_secs(), handlers = stuck.handlers, partitions = owned.count(), "a handler has been running for long; its key waits, its partition cannot be committed past it; handler_timeout would end it");
                }
                Some(complaint(
                    stuck.handlers,
                    engine.settings.concurrency,
                    record,
                    *running_for,
                ))
            }
            None => None,
        };
        if warns && complaint.is_some() {
            self.next_warning = now + stuck_after / 2;
        }
        if complaint.is_some() || self.complained {
            self.complained = complaint.is_some();
            engine
                .health
                .set_ready(COMPONENT, complaint.map_or(Ok(()), Err));
        }
    }

    /// Asks all workers at once for handlers that run for longer than `after`; counts the workers that do not answer.
    fn stuck(&self, after: Duration, warns: bool) -> (Stuck, usize) {
        let (answer, answers) = mpsc::channel();
        for worker in &self.engine.workers {
            worker.send(Message::Stuck(after, answer.clone()));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut answered = 0;
        let mut all = Stuck::default();
        while answered < self.engine.workers.len() {
            let Ok(stuck) =
                answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            answered += 1;
            all.handlers += stuck.handlers;
            let longest = all.longest.into_iter().chain(stuck.longest);
            all.longest = longest.max_by_key(|(_, running_for)| *running_for);
        }
        let silent = self.engine.workers.len() - answered;
        if silent > 0 && warns {
            tracing::warn!(
                group = self.engine.group,
                workers = silent,
                "workers do not answer: a handler blocks their threads; move blocking work into spawn_blocking"
            );
        }
        (all, silent)
    }
}

/// How it shows that so many of at most `concurrency` handlers are stuck.
fn complaint(handlers: usize, concurrency: usize, record: &Record, longest: Duration) -> String {
    let seconds = longest.as_secs();
    match handlers {
        1 => format!("the handler of {record:?} has been running for {seconds} s"),
        all if all >= concurrency => format!(
            "all {all} handlers are stuck and no other record can start, that of {record:?} for {seconds} s: set handler_timeout"
        ),
        some => format!("{some} handlers are stuck, that of {record:?} for {seconds} s"),
    }
}
