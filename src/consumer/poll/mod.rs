//! The poll thread: owns the client, serves its events at all times, and takes records only while
//! the in-flight limit has room.
//!
//! It never waits for a handler, except in the bounded drain of a revoke and of the stop.
//!
//! # A turn
//!
//! 1. Every 20 ms (100 ms while idle): serve the client's events, which include the rebalance
//!    callbacks; then advance everything that waits for time or for answers: gates, resets, pauses,
//!    commands, read errors. None of these waits, except for lookups and seeks with a deadline.
//! 2. Take records, up to the room that the in-flight limit, a rate limit, an open breaker and the
//!    bound of the run leave. Without room, park the thread until there is some or the next events
//!    are due.
//!
//! Rebalances come before records, so that no record of a revoked partition is passed on. A poll of
//! the client resets `max.poll.interval.ms`, and handlers delay it only in a revoke.
//!
//! # Files
//!
//! - `client`: the client, its queues and its committing thread
//! - `rebalance/`: what an assignment and a revoke do; members without partitions
//! - `intake/`: messages become bursts for workers; gated partitions, transaction markers
//! - `pause`: pause and resume of partitions that stay assigned; used by the next two
//! - `operator/`: commands from the control topic
//! - `log_reset`: truncated and recreated logs
//! - `read_errors/`: partitions and batches that cannot be read
//! - `client_errors`: errors of the client and of partitions
//! - `bounded_run`: when a bounded run is done
//! - `shutdown`: fence, drain and commit at the end
//! - `telemetry`: log lines and counters with a function of their own

mod bounded_run;
mod client;
mod client_errors;
mod intake;
mod log_reset;
pub(crate) mod operator;
mod pause;
mod read_errors;
mod rebalance;
mod shutdown;
mod telemetry;

use crate::consumer::poll::client::MemberClient;
use crate::consumer::poll::intake::Intake;
use crate::consumer::poll::intake::stalled::StalledIntake;
use crate::consumer::poll::intake::transaction_markers::TransactionMarkers;
use crate::consumer::poll::operator::control_topic::ControlTopicReader;
use crate::consumer::poll::operator::reconcile::Reconciler;
use crate::consumer::poll::read_errors::seek_retries::SeekRetries;
use crate::consumer::poll::read_errors::unreadable_batch::UnreadableBatches;
use crate::consumer::poll::rebalance::surplus_member::SurplusMember;
use crate::consumer::report::{ConsumerError, Stopped};
use crate::consumer::retry_reader::reader::{self, RetryReader};
use crate::consumer::settings::StopWhen;
use crate::consumer::shared::Shared;
use crate::consumer::shared::readiness::POLL_LOOP;
use crate::consumer::state::admission;
use crate::kafka::log::next_event;
use crate::kafka::native::Message;
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use crate::telemetry::Beating;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often the client's events are served. The group's rebalances wait this long for this member
/// at most.
const EVENTS_INTERVAL: Duration = Duration::from_millis(20);
/// The same while no record arrives: wake-ups are the only cost of an idle consumer.
const EVENTS_INTERVAL_IDLE: Duration = Duration::from_millis(100);
/// After this time without a record the consumer counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How much longer than the revoke timeout a turn may last before `/livez` fails.
///
/// It covers the last commit, the lookups of an assignment with their retries, and a reserve: slow
/// brokers must not cause a restart of the process.
const HEARTBEAT_RESERVE: Duration = Duration::from_secs(50);

/// How the run ended on the poll thread.
pub(crate) struct RunEnd {
    /// Whether it was requested or the bound was reached.
    pub(crate) stopped: Stopped,
    /// Whether all running handlers were drained, and all settled offsets committed, in time.
    pub(crate) clean: bool,
}

/// The state of the poll thread.
///
/// Everything in it is used by this thread only, except for the shared state.
pub(crate) struct PollThread {
    // Declared first: everything that uses the client is dropped before the client.
    /// Passes messages to the workers.
    intake: Intake,
    /// Applies the commands of operators.
    reconciler: Reconciler,
    /// Reports that the in-flight limit is used up.
    stalled: StalledIntake,
    /// Batches that cannot be read.
    unreadable: UnreadableBatches,
    /// Passes offsets without a record.
    markers: TransactionMarkers,
    /// Detects a member without partitions.
    surplus_member: SurplusMember,
    /// The client, dropped last of all that uses it.
    client: MemberClient,
    shared: Arc<Shared>,
    /// The heartbeat of this thread, for `/livez`.
    heartbeat: Beating,
    stop: Arc<AtomicBool>,
    /// When the client's events were served last.
    events_served_at: Instant,
    /// When a record arrived last: the idle time of a bounded run. None before the first
    /// assignment.
    last_record_at: Option<Instant>,
    /// Whether partitions are gated.
    has_gated: bool,
    /// Whether partitions are being reread after log resets.
    is_resetting: bool,
    /// Partitions with read errors.
    seek_retries: SeekRetries,
    /// Whether records were requested from the client since events were served last.
    has_taken: bool,
    /// Records received in this run.
    received: u64,
    /// When a run to the end had its first assignment. Parked records that were due by then belong
    /// to the run.
    first_assigned_ms: Option<i64>,
    /// Since when the parked records of a retry partition are unknown.
    retry_unknown_since: Option<Instant>,
    /// Since when the lookup of end offsets has been failing.
    ends_unknown_since: Option<Instant>,
}

/// Runs a consumer from the first poll until the client is closed. It reports the end of the run
/// before it closes the client.
///
/// Called once, on a thread of its own. `report_end` is always answered or dropped, also after a
/// panic: the run waits for it. `stop` is set when the stop was requested or the run was dropped.
pub(crate) fn run(
    shared: Arc<Shared>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<ControlTopicReader>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
    report_end: oneshot::Sender<Result<RunEnd, ConsumerError>>,
) {
    // A panic ends the run as well.
    let _end_on_drop = EndRunOnDrop(Arc::clone(&shared));
    let set_up = set_up(Arc::clone(&shared), config, kafka, commands, runtime, stop);
    let (mut thread, retry_threads) = match set_up {
        Ok(parts) => parts,
        Err(error) => {
            // The receiver may have been dropped, here and below.
            let _ = report_end.send(Err(error));
            return;
        }
    };
    let result = thread.subscribe_and_poll();
    let failure = result.as_ref().err();
    thread.client.note_failure(failure);
    let clean = thread.shut_down(failure, retry_threads);
    let _ = report_end.send(result.map(|stopped| RunEnd { stopped, clean }));
    shared.end.begin();
    drop(thread);
    shared.breakers.end();
}

/// Begins the end of the run on drop, if it has not begun.
struct EndRunOnDrop(Arc<Shared>);

impl Drop for EndRunOnDrop {
    fn drop(&mut self) {
        self.0.end.begin();
    }
}

/// Creates the client, its threads and the state of this thread. If one of them cannot be created,
/// those created before it end when their senders are dropped.
fn set_up(
    shared: Arc<Shared>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<ControlTopicReader>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
) -> Result<(PollThread, RetryThreads), ConsumerError> {
    let (reader_requests, requests) = mpsc::channel();
    let (retry_reader, dispatcher) =
        RetryReader::new(Arc::clone(&shared), kafka, runtime, requests)?;
    let client = MemberClient::new(&shared, config, kafka, reader_requests.clone())?;
    let (alive, ended) = mpsc::channel();
    spawn_retry_thread(&shared, "evenkeel-parked", &alive, || retry_reader.run())?;
    spawn_retry_thread(&shared, "evenkeel-due", &alive, || dispatcher.run())?;
    let retry_threads = RetryThreads {
        requests: reader_requests,
        ended,
    };
    shared.intake.register();
    let beat_within = shared.settings.revoke_timeout + HEARTBEAT_RESERVE;
    let thread = PollThread {
        intake: Intake::new(Arc::clone(&shared)),
        reconciler: Reconciler::new(Arc::clone(&shared), commands, &kafka.client_id),
        stalled: StalledIntake::default(),
        unreadable: UnreadableBatches::new(Arc::clone(&shared), kafka),
        markers: TransactionMarkers::new(Arc::clone(&shared)),
        surplus_member: SurplusMember::new(),
        client,
        heartbeat: shared.health.expect_beat(POLL_LOOP, beat_within),
        shared,
        stop,
        events_served_at: Instant::now(),
        last_record_at: None,
        has_gated: false,
        is_resetting: false,
        seek_retries: SeekRetries::default(),
        received: 0,
        first_assigned_ms: None,
        retry_unknown_since: None,
        has_taken: true,
        ends_unknown_since: None,
    };
    Ok((thread, retry_threads))
}

/// The threads that read the retry topics, as the poll thread controls them.
struct RetryThreads {
    requests: mpsc::Sender<reader::ReaderRequest>,
    /// Disconnected after both have ended.
    ended: mpsc::Receiver<()>,
}

/// Starts a thread for parked records. It holds `alive` until it ends.
///
/// A panic in it, which is a bug of this library, ends the run: parked records would wait
/// unnoticed.
fn spawn_retry_thread(
    shared: &Arc<Shared>,
    name: &'static str,
    alive: &mpsc::Sender<()>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), ConsumerError> {
    let (shared, alive) = (Arc::clone(shared), alive.clone());
    let run = move || {
        let _alive: mpsc::Sender<()> = alive;
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            shared.abort("a thread for parked records panicked");
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|source| ConsumerError::Thread { name, source })
}

impl PollThread {
    /// The loop. Returns at a stop, at the bound of the run, or with the error that ends it.
    fn subscribe_and_poll(&mut self) -> Result<Stopped, ConsumerError> {
        let topics: Vec<&str> = self
            .shared
            .settings
            .topics
            .iter()
            .map(String::as_str)
            .collect();
        self.client
            .consumer
            .subscribe(&topics)
            .map_err(|source| KafkaError::Client {
                what: format!("cannot subscribe to {}", topics.join(", ")),
                source,
            })?;
        loop {
            if self.events_served_at.elapsed() >= self.events_interval() {
                self.serve_events()?;
                if let Some(reason) = self.shared.failure() {
                    return Err(ConsumerError::Fatal(reason.to_owned()));
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(Stopped::Requested);
                }
                if self.bound_reached()? {
                    return Ok(Stopped::BoundReached);
                }
            }
            self.take_records()?;
        }
    }

    /// How long records are taken before events are served again. Longer while nothing arrives:
    /// each turn costs a wake-up.
    fn events_interval(&self) -> Duration {
        let is_idle = self
            .last_record_at
            .is_some_and(|at| at.elapsed() > IDLE_AFTER && self.shared.in_flight() == 0);
        if is_idle && self.shared.settings.stop_when == StopWhen::Endless {
            EVENTS_INTERVAL_IDLE
        } else {
            EVENTS_INTERVAL
        }
    }

    /// One round of intake: takes what there is room for, and reports errors that came in place of
    /// records.
    ///
    /// The room is the smallest of what these leave:
    ///
    /// | limit | none left means |
    /// |---|---|
    /// | in-flight limit | the workers are behind; reported if it lasts |
    /// | bound of the run | all wanted records were received |
    /// | rate limit | an operator slows the member down |
    /// | open breaker | a dependency is down; one record is taken as a trial |
    fn take_records(&mut self) -> Result<(), ConsumerError> {
        let until_events = self
            .events_interval()
            .saturating_sub(self.events_served_at.elapsed());
        let wanted = admission::wanted(self.shared.settings.stop_when, self.net_received());
        let free = self.intake.room();
        let room = self.reconciler.limit_room(free.min(wanted));
        // While a dependency is down, records would only wait. One is taken as a trial.
        let is_open = self.shared.breakers.is_open();
        let room = match is_open {
            true if self.shared.permits.has_trial() => room.min(1),
            true => 0,
            false => room,
        };
        if room == 0 {
            self.report_stall(free == 0 && wanted > 0 && !is_open);
            self.shared.intake.wait_for_room(until_events);
            return Ok(());
        }
        self.stalled.note_room(&self.shared);
        self.has_taken = true;
        let (mut errors, mut unreadable) = (Vec::new(), Vec::new());
        let on_error = |code: RDKafkaErrorCode, message: &Message<'_>| {
            if let Some(batch) = UnreadableBatch::of(code, message) {
                unreadable.push(batch);
                return;
            }
            errors.push((
                code,
                message.topic().unwrap_or_default().to_owned(),
                message.partition(),
                message.offset(),
            ));
        };
        // At least a millisecond: a wait of zero would spin until the next events are due.
        let timeout = until_events.max(Duration::from_millis(1));
        let received = self.intake.take(
            &self.client.queue,
            &mut self.client.gates,
            self.client.consumer.context(),
            room,
            timeout,
            on_error,
        );
        if self.intake.has_drained() {
            self.unreadable.note_drained(self.events_served_at);
        }
        if received > 0 {
            self.reconciler.count_taken(received);
            self.received += received as u64;
            self.last_record_at = Some(self.events_served_at);
        }
        for batch in unreadable {
            self.unreadable.register(&self.client.consumer, batch);
        }
        for (code, topic, partition, offset) in errors {
            self.partition_error(code, &topic, partition, offset)?;
        }
        Ok(())
    }

    /// Reports that nothing can be taken, if the in-flight limit is the reason.
    fn report_stall(&mut self, is_full: bool) {
        if !is_full {
            return self.stalled.note_room(&self.shared);
        }
        if self.shared.in_flight() < self.intake.records_max() {
            self.shared.compact();
        }
        let bytes = self.shared.budget.load(Ordering::Relaxed);
        self.stalled.note_full(&self.shared, bytes);
    }

    /// Serves rebalances and errors. Polling keeps this member in the group.
    ///
    /// The order within it is part of the contract. The heartbeat comes first, so that a long turn
    /// is noticed. Gates are opened before events, so that no record waits a turn longer than
    /// necessary. The client's events, with the rebalances, come before everything that reads the
    /// assignments. Commands and resets come after them, and see the partitions that are assigned
    /// now.
    fn serve_events(&mut self) -> Result<(), ConsumerError> {
        self.events_served_at = Instant::now();
        self.heartbeat.beat();
        self.shared.breakers.check();
        self.has_gated = self.client.gates.advance(&self.client.consumer);
        self.shared.dead_letters.update_flood_guard();
        let has_taken = std::mem::replace(&mut self.has_taken, false);
        self.shared.readiness.expire_read_errors(has_taken);
        while let Some(event) = next_event(&self.client.consumer) {
            match event {
                // Partitions are forwarded before they are assigned, so that no record arrives
                // here.
                Ok(message) => {
                    return Err(ConsumerError::Fatal(format!(
                        "a record of {} arrived outside of its partition's queue",
                        rdkafka::Message::topic(&message)
                    )));
                }
                Err(error) => self.client_error(&error)?,
            }
        }
        // After the events, which include rebalances, and before records are taken.
        self.seek_retries.seek_due(&self.client.consumer);
        for complaint in self.client.consumer.context().take_client_errors() {
            self.client_error(&complaint)?;
        }
        self.surplus_member
            .check(&self.shared, &self.client.consumer);
        if self.last_record_at.is_none() && self.client.consumer.context().assignments().joined {
            // No record has arrived since the assignment: the idle time starts now.
            self.last_record_at = Some(Instant::now());
        }
        if self.client.watched.is_cut_off() {
            self.shared
                .readiness
                .report_cluster_error(&self.no_broker_reason());
        }
        let consumer = &self.client.consumer;
        self.is_resetting = consumer.context().advance_log_resets(consumer);
        self.reconciler.reconcile(consumer);
        self.unreadable.advance(consumer);
        // Records that were taken before a gate opened are passed on first.
        if !self.client.gates.has_ungated() {
            self.markers.advance(consumer);
        }
        // An endless run has nothing to wait for.
        let is_bounded = self.shared.settings.stop_when != StopWhen::Endless;
        if self.shared.breakers.is_open()
            || self.has_gated
            || self.is_resetting
            || (is_bounded && self.reconciler.withholds_records())
        {
            // Nothing is taken, so that this time does not count as idle.
            self.last_record_at = self.last_record_at.map(|_| Instant::now());
        }
        Ok(())
    }
}
