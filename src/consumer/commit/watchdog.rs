//! The watchdog: reports handlers that run for too long, and workers that do not answer.
//!
//! It asks the workers through their mailboxes and waits a second for their answers. A worker that
//! does not answer is busy in one handler that does not yield; Tokio cannot interrupt it, and all
//! keys of the worker wait. It runs on the committing thread, which no handler can block.
//!
//! | finding | health `handlers` | log |
//! |---|---|---|
//! | a handler runs for longer than `stuck_handler_after` | its record and its time | the same |
//! | as many as there are permits | and the advice to set `handler_timeout` | the same |
//! | a worker does not answer | a handler blocks its thread | the advice of `spawn_blocking` |
//! | nothing | ready | |

use crate::consumer::commit::telemetry;
use crate::consumer::shared::Shared;
use crate::consumer::shared::mailbox::{Message, StuckHandlers};
use crate::event::Record;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long a worker may take to answer before its thread counts as blocked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The health component of stuck handlers.
const COMPONENT: &str = "handlers";

/// Checks per `stuck_handler_after`, so that a stuck handler is reported soon after.
const CHECKS: u32 = 6;

/// Watches the handlers. Runs on the committing thread.
pub(crate) struct Watchdog {
    /// The consumer that it watches.
    shared: Arc<Shared>,
    /// When to check again.
    next_check: Instant,
    /// When to log again: after half of `stuck_handler_after`, so that warnings do not flood the
    /// log.
    next_warning: Instant,
    /// Whether the health names stuck handlers.
    is_reported: bool,
    in_flight: metrics::Gauge,
    in_flight_bytes: metrics::Gauge,
}

impl Watchdog {
    /// The first check is due after a sixth of `stuck_handler_after`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        use crate::telemetry::Metric;
        let gauge = |metric| shared.health.gauge(metric, &[("group", &shared.group)]);
        let (in_flight, in_flight_bytes) = (gauge(Metric::InFlight), gauge(Metric::InFlightBytes));
        let now = Instant::now();
        Self {
            next_check: now + shared.settings.stuck_handler_after / CHECKS,
            next_warning: now,
            shared,
            is_reported: false,
            in_flight,
            in_flight_bytes,
        }
    }

    /// Reports the records in flight, and handlers that run for longer than `stuck_handler_after`.
    ///
    /// Called at each commit interval. Also updates the gauges of records and bytes in flight,
    /// which are then as old as that interval.
    pub(crate) fn check(&mut self, partitions: usize) {
        let shared = &self.shared;
        self.in_flight.set(shared.in_flight() as f64);
        self.in_flight_bytes
            .set(shared.budget.load(std::sync::atomic::Ordering::Relaxed) as f64);
        let stuck_handler_after = shared.settings.stuck_handler_after;
        let now = Instant::now();
        if now < self.next_check {
            return;
        }
        self.next_check = now + stuck_handler_after / CHECKS;
        let warns = now >= self.next_warning;
        let (stuck, silent) = self.stuck_handlers(stuck_handler_after, warns);
        let reason = match &stuck.longest {
            None if silent > 0 => Some(format!(
                "{silent} workers do not answer: a handler blocks their threads"
            )),
            Some((record, running_for)) => {
                if warns {
                    let longest = (record, *running_for);
                    telemetry::handlers_stuck(&shared.group, longest, stuck.handlers, partitions);
                }
                Some(stuck_reason(
                    stuck.handlers,
                    shared.settings.concurrency,
                    record,
                    *running_for,
                ))
            }
            None => None,
        };
        if warns && reason.is_some() {
            self.next_warning = now + stuck_handler_after / 2;
        }
        if reason.is_some() || self.is_reported {
            self.is_reported = reason.is_some();
            shared
                .health
                .set_ready(COMPONENT, reason.map_or(Ok(()), Err));
        }
    }

    /// Asks all workers at once for handlers that run for longer than `after`. Returns the number
    /// of workers that did not answer as well.
    fn stuck_handlers(&self, after: Duration, warns: bool) -> (StuckHandlers, usize) {
        let (answer, answers) = mpsc::channel();
        for worker in &self.shared.workers {
            worker.send(Message::ReportStuck(after, answer.clone()));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut answer_count = 0;
        let mut all = StuckHandlers::default();
        while answer_count < self.shared.workers.len() {
            let Ok(stuck) =
                answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            answer_count += 1;
            all.handlers += stuck.handlers;
            let longest = all.longest.into_iter().chain(stuck.longest);
            all.longest = longest.max_by_key(|(_, running_for)| *running_for);
        }
        let silent = self.shared.workers.len() - answer_count;
        if silent > 0 && warns {
            telemetry::workers_blocked(&self.shared.group, silent);
        }
        (all, silent)
    }
}

/// The reason in the health for `handlers` stuck handlers, of at most `concurrency`.
///
/// If all permits are used up by stuck handlers, the remedy is added: nothing else will help.
fn stuck_reason(handlers: usize, concurrency: usize, record: &Record, longest: Duration) -> String {
    let seconds = longest.as_secs();
    match handlers {
        1 => format!("the handler of {record:?} has been running for {seconds} s"),
        all if all >= concurrency => format!(
            "all {all} handlers are stuck and no other record can start, that of {record:?} for {seconds} s: set handler_timeout"
        ),
        some => format!("{some} handlers are stuck, that of {record:?} for {seconds} s"),
    }
}
