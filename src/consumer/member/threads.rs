//! The poll thread and the worker tasks of a run: their start, and their end within a deadline.

use crate::consumer::poll::operator::control_topic::ControlTopicReader;
use crate::consumer::poll::{self, RunEnd};
use crate::consumer::report::{ConsumerError, Stopped};
use crate::consumer::shared::Shared;
use crate::consumer::shared::concurrency::Permits;
use crate::consumer::shared::mailbox::{Message, OpenMailbox};
use crate::consumer::worker;
use crate::handler::{Delivery, Outcome};
use crate::kafka::KafkaConfig;
use futures_util::FutureExt;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The name of the thread that owns the client.
const POLL_THREAD: &str = "evenkeel-poll";

/// Starts one task per mailbox. A worker that panics, which is a bug of this library, ends the run:
/// its lanes would stop unnoticed. Its mailbox closes, so that no sender waits for an answer.
pub(super) fn spawn_workers<H>(shared: &Arc<Shared>, handler: &H) -> JoinSet<()>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let mut workers = JoinSet::new();
    for inbox in &shared.workers {
        let permits = Permits::new(Arc::clone(&shared.permits));
        let worker = worker::run(
            handler.clone(),
            Arc::clone(shared),
            Arc::clone(inbox),
            permits,
        );
        let (shared, inbox) = (Arc::clone(shared), Arc::clone(inbox));
        let worker = async move {
            // After the task has ended, no sender waits for its answers.
            let _open = OpenMailbox(inbox);
            // Panics of the service's code are outcomes. Any other panic is a bug of this library,
            // and the worker's lanes would stop.
            if AssertUnwindSafe(worker).catch_unwind().await.is_err() {
                shared.abort("a worker panicked");
            }
        };
        // Many handlers share the worker's task: tokio's budget per task would make them appear
        // pending.
        workers.spawn(tokio::task::unconstrained(worker));
    }
    workers
}

/// Stops the poll thread when the run is dropped, or when its end was requested. The thread drains,
/// commits and closes its client either way.
pub(super) struct StopPolling {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

impl Drop for StopPolling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.shared.intake.wake();
    }
}

/// The signals of the poll thread.
pub(super) struct PollSignals {
    /// How the run ended. Sent before the client is closed.
    ended: oneshot::Receiver<Result<RunEnd, ConsumerError>>,
    /// Dropped after the client is closed.
    closed: oneshot::Receiver<()>,
}

/// Starts the thread that owns the client. Returns the signals of its end and the guard that stops
/// it.
pub(super) fn spawn_poll_thread(
    shared: &Arc<Shared>,
    config: rdkafka::ClientConfig,
    kafka: KafkaConfig,
    commands: Option<ControlTopicReader>,
) -> Result<(PollSignals, StopPolling), ConsumerError> {
    let (report_end, ended) = oneshot::channel();
    let (is_open, closed) = oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stop_polling = StopPolling {
        shared: Arc::clone(shared),
        stop: Arc::clone(&stop),
    };
    let shared = Arc::clone(shared);
    let runtime = tokio::runtime::Handle::current();
    let poll = move || {
        // Dropped at the end of the thread, also after a panic.
        let _is_open: oneshot::Sender<()> = is_open;
        poll::run(shared, &config, &kafka, commands, runtime, stop, report_end);
    };
    let spawned = std::thread::Builder::new()
        .name(POLL_THREAD.to_owned())
        .spawn(poll);
    spawned.map_err(|source| ConsumerError::Thread {
        name: POLL_THREAD,
        source,
    })?;
    Ok((PollSignals { ended, closed }, stop_polling))
}

/// Waits for the end of the run, by itself or on request, and then until the client is closed, both
/// within the deadline of the stop. A client that cannot be closed in time is abandoned with its
/// thread: brokers that do not answer must not hold up the process.
pub(super) async fn wait_for_end(
    shared: &Shared,
    polling: PollSignals,
    stop_polling: StopPolling,
    stop: CancellationToken,
) -> Result<RunEnd, ConsumerError> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.end.begun() => {}
    }
    let deadline = shared.end.begin().whole.into();
    drop(stop_polling);
    let ended = match tokio::time::timeout_at(deadline, polling.ended).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(ConsumerError::Fatal("the poll thread panicked".to_owned())),
        Err(_) => Ok(RunEnd {
            stopped: Stopped::Requested,
            clean: false,
        }),
    };
    if tokio::time::timeout_at(deadline, polling.closed)
        .await
        .is_err()
    {
        tracing::error!(
            group = shared.group,
            "the client cannot leave the group in time and is abandoned; the group waits for its session to end"
        );
    }
    ended
}

/// Ends the workers. Running handlers had their time in the drain. A handler that blocks its thread
/// cannot be ended; its worker is detached. Every other handler is dropped at its await.
pub(super) async fn finish_workers(shared: &Shared, mut workers: JoinSet<()>) {
    shared
        .workers
        .iter()
        .for_each(|worker| worker.send(Message::Close));
    let idle = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(100), idle)
        .await
        .is_err()
    {
        workers.abort_all();
        workers.detach_all();
    }
}
