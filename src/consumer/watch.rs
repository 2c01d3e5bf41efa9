//! The watchdog: says which record has been running for too long, and which worker does not answer.

use super::commit::Owned;
use super::engine::Engine;
use super::worker::{LongestRunning, Message};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long a worker may take to answer before its thread counts as blocked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The component under which a stuck handler shows in the health.
const COMPONENT: &str = "handlers";

/// Looks after the handlers.
pub(crate) struct Watch {
    engine: Arc<Engine>,
    /// When to look again: soon enough to be useful, rarely enough not to flood the log.
    next_look: Instant,
    complained: bool,
    in_flight: metrics::Gauge,
    in_flight_bytes: metrics::Gauge,
}

impl Watch {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        use crate::telemetry::Metric;
        let gauge = |metric| engine.health.gauge(metric, &[("group", &engine.group)]);
        let (in_flight, in_flight_bytes) = (gauge(Metric::InFlight), gauge(Metric::InFlightBytes));
        let next_look = Instant::now() + engine.settings.stuck_after;
        Self {
            engine,
            next_look,
            complained: false,
            in_flight,
            in_flight_bytes,
        }
    }

    /// Reports what is in flight, and complains about a handler that runs for longer than `stuck_after`.
    pub(crate) fn look<'a>(&mut self, owned: impl Iterator<Item = &'a Owned>) {
        let engine = &self.engine;
        self.in_flight.set(engine.in_flight() as f64);
        self.in_flight_bytes
            .set(engine.budget.load(std::sync::atomic::Ordering::Relaxed) as f64);
        let stuck_after = engine.settings.stuck_after;
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + stuck_after / 2;
        let (longest, silent) = self.longest_running();
        let stuck = longest.filter(|longest| longest.running_for >= stuck_after);
        match stuck {
            None if silent > 0 => {
                let reason =
                    format!("{silent} workers do not answer: a handler blocks their threads");
                engine.health.set_ready(COMPONENT, Err(reason));
                self.complained = true;
            }
            Some(longest) => {
                tracing::warn!(group = engine.group, record = ?longest.record, running_for_s = longest.running_for.as_secs(), partitions = owned.count(), "a handler has been running for long; its key waits, its partition cannot be committed past it");
                let reason = format!(
                    "the handler of {:?} has been running for {} s",
                    longest.record,
                    longest.running_for.as_secs()
                );
                engine.health.set_ready(COMPONENT, Err(reason));
                self.complained = true;
            }
            None if self.complained => {
                engine.health.set_ready(COMPONENT, Ok(()));
                self.complained = false;
            }
            None => {}
        }
    }

    /// Asks all workers at once; complains about those that do not answer, and counts them.
    fn longest_running(&self) -> (Option<LongestRunning>, usize) {
        let (answer, answers) = mpsc::channel();
        for worker in &self.engine.workers {
            worker.send(Message::LongestRunning(answer.clone()));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut answered = 0;
        let mut longest: Option<LongestRunning> = None;
        while answered < self.engine.workers.len() {
            let Ok(running) =
                answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            answered += 1;
            if let Some(running) = running
                && longest
                    .as_ref()
                    .is_none_or(|longest| running.running_for > longest.running_for)
            {
                longest = Some(running);
            }
        }
        let silent = self.engine.workers.len() - answered;
        if silent > 0 {
            tracing::warn!(
                group = self.engine.group,
                workers = silent,
                "workers do not answer: a handler blocks their threads; move blocking work into spawn_blocking"
            );
        }
        (longest, silent)
    }
}
