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
//! - `rebalance`: what an assignment and a revoke do
//! - `intake/`: messages become bursts for workers; gated partitions, transaction markers
//! - `pause`: stop and restart a partition that stays assigned, the tool of the next two
//! - `operator/`: commands from the control topic
//! - `log_reset`: truncated and recreated logs
//! - `read_errors/`: partitions and batches that cannot be read
//! - `surplus_member`: members without partitions under KIP-848
//!
//! # The end
//!
//! The order of [`PollThread::shut_down`] is that of a revoke of everything: fence, drain, commit;
//! the client is polled meanwhile, because the group's coordinator expects it. The end is reported
//! before the client is closed, which may take as long as the brokers do not answer.

mod intake;
mod log_reset;
pub(crate) mod operator;
mod pause;
mod read_errors;
mod rebalance;
mod surplus_member;

use crate::consumer::commit::{COMMIT_WITHIN, CommitRequest, Committer};
use crate::consumer::poll::intake::Intake;
use crate::consumer::poll::intake::gated_partitions::GatedPartitions;
use crate::consumer::poll::intake::stalled::StalledIntake;
use crate::consumer::poll::intake::transaction_markers::TransactionMarkers;
use crate::consumer::poll::operator::control_topic::ControlTopicReader;
use crate::consumer::poll::operator::reconcile::Reconciler;
use crate::consumer::poll::read_errors::reread::Rereading;
use crate::consumer::poll::read_errors::unreadable_batch::Unreadable;
use crate::consumer::poll::rebalance::{RebalanceContext, Targets};
use crate::consumer::poll::surplus_member::Surplus;
use crate::consumer::report::{ConsumerError, Stopped};
use crate::consumer::retry_reader::reader::{self, RetryReader};
use crate::consumer::settings::StopWhen;
use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::steady_ms;
use crate::consumer::shared::readiness::POLL_LOOP;
use crate::consumer::shared::stop_deadlines::{Deadlines, left_until};
use crate::consumer::state::admission::{self, Progress};
use crate::consumer::state::assignments::Drain;
use crate::consumer::state::offset_tracker::Epoch;
use crate::kafka::connection_fault::advice;
use crate::kafka::log::next_event;
use crate::kafka::native::{ForwardedQueue, Login, Message, Watched, logged_in};
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use crate::telemetry::Beating;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often the client's events are served. It bounds how long a rebalance waits.
///
/// A rebalance of the group waits for its slowest member.
const EVENTS_EVERY: Duration = Duration::from_millis(20);
/// The same while no record arrives: wake-ups are the only cost of an idle consumer.
const EVENTS_EVERY_QUIET: Duration = Duration::from_millis(100);
/// How long no record has arrived until the consumer counts as idle.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How long a run of a number of records waits for further records if a partition cannot be read.
///
/// The bound may be reached by records of other partitions, so that the error is not returned at
/// once.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long end offsets may be unknown before a run to the end fails.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How long one lookup of end offsets may take.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How much longer than the drain of a revoke the loop may block: time for the commit and the
/// lookup of committed offsets.
///
/// The lookups of an assignment, with their retries, and a reserve: slow brokers must not cause a
/// restart of the process.
const BEAT_WITHIN: Duration = Duration::from_secs(50);

/// The name of the committing thread.
const COMMIT_THREAD: &str = "evenkeel-commit";

/// The complaint about a client without a broker.
const NO_BROKER: &str = "no broker can be reached";

/// The complaint about a committed offset that the log no longer has, if no reset is allowed.
const OUT_OF_RANGE: &str =
    "the committed offset is out of range and auto.offset.reset=error; reset the group's offset";

/// How the run ended on the poll thread.
pub(crate) struct Ended {
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
    unreadable: Unreadable,
    /// Passes offsets without a record.
    markers: TransactionMarkers,
    /// Detects a member without partitions.
    surplus: Surplus,
    /// The client, dropped last of all that uses it.
    client: OwnClient,
    shared: Arc<Shared>,
    /// The heartbeat of this thread, for `/livez`.
    beating: Beating,
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
    rereading: Rereading,
    /// Whether records were requested from the client since events were served last.
    has_taken: bool,
    bounded_received: u64,
    /// When a run to the end received its first assignment. It includes the parked records due by
    /// then.
    bounded_since_ms: Option<i64>,
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
    report_end: oneshot::Sender<Result<Ended, ConsumerError>>,
) {
    // A panic ends the run as well.
    let _ends = EndsRun(Arc::clone(&shared));
    let begun = begin(Arc::clone(&shared), config, kafka, commands, runtime, stop);
    let (mut thread, retry_threads) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // The receiver may have been dropped, here and below.
            let _ = report_end.send(Err(error));
            return;
        }
    };
    let ran = thread.subscribe_and_poll();
    let clean = thread.shut_down(ran.as_ref().err(), retry_threads);
    let _ = report_end.send(ran.map(|stopped| Ended { stopped, clean }));
    shared.end.begin();
    drop(thread);
    shared.breakers.end();
}

/// Begins the end of the run on drop, if it has not begun.
struct EndsRun(Arc<Shared>);

impl Drop for EndsRun {
    fn drop(&mut self) {
        self.0.end.begin();
    }
}

/// Creates the client and the threads and state that belong to it. If one of them fails, those
/// before it end with their senders.
fn begin(
    shared: Arc<Shared>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<ControlTopicReader>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
) -> Result<(PollThread, RetryThreads), ConsumerError> {
    let (followed, follow) = mpsc::channel();
    let (retry_reader, dispatcher) = RetryReader::new(Arc::clone(&shared), kafka, runtime, follow)?;
    let client = OwnClient::new(&shared, config, kafka, followed.clone())?;
    let (runs, ended) = mpsc::channel();
    spawn_parked(&shared, "evenkeel-parked", &runs, || retry_reader.run())?;
    spawn_parked(&shared, "evenkeel-due", &runs, || dispatcher.run())?;
    let retry_threads = RetryThreads {
        requests: followed,
        ended,
    };
    shared.intake.register();
    let beat_within = shared.settings.revoke_timeout + BEAT_WITHIN;
    let thread = PollThread {
        intake: Intake::new(Arc::clone(&shared)),
        reconciler: Reconciler::new(Arc::clone(&shared), commands, &kafka.client_id),
        stalled: StalledIntake::default(),
        unreadable: Unreadable::new(Arc::clone(&shared), kafka),
        markers: TransactionMarkers::new(Arc::clone(&shared)),
        surplus: Surplus::new(),
        client,
        beating: shared.health.expect_beat(POLL_LOOP, beat_within),
        shared,
        stop,
        events_served_at: Instant::now(),
        last_record_at: None,
        has_gated: false,
        is_resetting: false,
        rereading: Rereading::default(),
        bounded_received: 0,
        bounded_since_ms: None,
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

/// The client, its queue and the committing thread. The drop leaves the group and closes the
/// client, also when the poll thread panics. Otherwise the committing thread would keep a member in
/// the group that reads nothing.
///
/// The order of a drop: the committing thread ends, then revokes only fence, then the queues go,
/// and the client is closed last.
struct OwnClient {
    shared: Arc<Shared>,
    requests: mpsc::Sender<CommitRequest>,
    committing: Option<std::thread::JoinHandle<()>>,
    // The fields are dropped in this order, the client last.
    watched: Watched,
    _login: Login,
    queue: ForwardedQueue<RebalanceContext>,
    gates: GatedPartitions,
    consumer: Arc<BaseConsumer<RebalanceContext>>,
}

impl OwnClient {
    fn new(
        shared: &Arc<Shared>,
        config: &ClientConfig,
        kafka: &KafkaConfig,
        followed: mpsc::Sender<reader::ReaderRequest>,
    ) -> Result<Self, ConsumerError> {
        let (requests, taken) = mpsc::channel();
        let reset = config.get("auto.offset.reset");
        let member = RebalanceContext::new(Arc::clone(shared), requests.clone(), followed, reset);
        let made = logged_in(config, member);
        let (consumer, login) = made.map_err(|source| KafkaError::Client {
            what: "the consumer cannot be created".to_owned(),
            source,
        })?;
        let consumer = Arc::new(consumer);
        let committer = Committer::new(Arc::clone(shared), Arc::clone(&consumer), taken);
        let committed_for = Arc::clone(shared);
        let commit = move || {
            if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
                committed_for.abort("the committing thread panicked");
            }
        };
        let committing = std::thread::Builder::new()
            .name(COMMIT_THREAD.to_owned())
            .spawn(commit)
            .map_err(|source| ConsumerError::Thread {
                name: COMMIT_THREAD,
                source,
            })?;
        let queue = || match shared.settings.stop_when {
            StopWhen::UntilEnd => ForwardedQueue::new(Arc::clone(&consumer)).one_by_one(),
            _ => ForwardedQueue::new(Arc::clone(&consumer)),
        };
        let (gates, queue) = (GatedPartitions::new(queue()), queue());
        consumer.context().set_targets(Some(Targets {
            open: queue.target(),
            gated: gates.target(),
        }));
        let topic = shared.settings.topics.first().map(String::as_str);
        Ok(Self {
            watched: Watched::new(consumer.client(), &kafka.brokers, topic),
            _login: login,
            shared: Arc::clone(shared),
            requests,
            committing: Some(committing),
            queue,
            gates,
            consumer,
        })
    }
}

impl Drop for OwnClient {
    fn drop(&mut self) {
        let shared = &self.shared;
        let _ = self.requests.send(CommitRequest::Close);
        if let Some(committing) = self.committing.take()
            && committing.join().is_err()
        {
            tracing::error!(group = shared.group, "the thread for commits panicked");
        }
        let member = self.consumer.context();
        member.set_closing();
        member.set_targets(None);
        let has_partitions = member.assignments().all().next().is_some();
        if !has_partitions && shared.settings.instance_id.is_none() {
            // With the cooperative protocol, librdkafka's close leaves the group only if partitions
            // were assigned: a rebalance would wait for an unassigned member until its session
            // times out. Static members stay, as intended.
            self.consumer.unsubscribe();
        }
    }
}

/// Starts a thread for parked records. It holds `runs` until it ends.
///
/// A panic in it, which is a bug of this library, ends the run: parked records would wait
/// unnoticed.
fn spawn_parked(
    shared: &Arc<Shared>,
    name: &'static str,
    runs: &mpsc::Sender<()>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), ConsumerError> {
    let (shared, runs) = (Arc::clone(shared), runs.clone());
    let run = move || {
        let _runs: mpsc::Sender<()> = runs;
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
            if self.events_served_at.elapsed() >= self.events_every() {
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
    fn events_every(&self) -> Duration {
        let is_quiet = self
            .last_record_at
            .is_some_and(|at| at.elapsed() > QUIET_AFTER && self.shared.in_flight() == 0);
        if is_quiet && self.shared.settings.stop_when == StopWhen::Endless {
            EVENTS_EVERY_QUIET
        } else {
            EVENTS_EVERY
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
            .events_every()
            .saturating_sub(self.events_served_at.elapsed());
        let wanted = admission::wanted(self.shared.settings.stop_when, self.kept());
        let free = self.intake.room();
        let room = self.reconciler.room(free.min(wanted));
        // While a dependency is down, records would only wait. One is taken as a trial.
        let is_open = self.shared.breakers.is_open();
        let room = match is_open {
            true if self.shared.permits.has_trial() => room.min(1),
            true => 0,
            false => room,
        };
        if room == 0 {
            self.check_room(free == 0 && wanted > 0 && !is_open);
            self.shared.intake.wait_for_room(until_events);
            return Ok(());
        }
        self.stalled.has_room(&self.shared);
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
            self.unreadable.drained(self.events_served_at);
        }
        if received > 0 {
            self.reconciler.took(received);
            self.bounded_received += received as u64;
            self.last_record_at = Some(self.events_served_at);
        }
        for batch in unreadable {
            self.unreadable.found(&self.client.consumer, batch);
        }
        for (code, topic, partition, offset) in errors {
            self.partition_error(code, &topic, partition, offset)?;
        }
        Ok(())
    }

    /// Reports that nothing can be taken, if the in-flight limit is the reason.
    fn check_room(&mut self, is_full: bool) {
        if !is_full {
            return self.stalled.has_room(&self.shared);
        }
        if self.shared.in_flight() < self.intake.records_max() {
            self.shared.compact();
        }
        let bytes = self.shared.budget.load(Ordering::Relaxed);
        self.stalled.is_full(&self.shared, bytes);
    }

    /// Handles an error that the client returned for a partition. Only errors that no wait mends
    /// end a bounded run; an endless one is not ready and continues with its other partitions.
    ///
    /// | error | reaction |
    /// |---|---|
    /// | end of the partition | offsets up to it are passed: what is missing below are markers |
    /// | offset out of range, no reset allowed | not ready; a bounded run ends |
    /// | refusal | not ready, retried; a bounded run ends |
    /// | any other | not ready, retried |
    fn partition_error(
        &mut self,
        code: RDKafkaErrorCode,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), ConsumerError> {
        match code {
            RDKafkaErrorCode::PartitionEOF => {
                let mut assignments = self.client.consumer.context().assignments();
                if let Some(assigned) = assignments.get(topic, partition)
                    && assigned.held.is_none()
                    && !assigned.is_unreadable
                {
                    assigned.ended_at = Some(offset);
                    // No record below the end is missing: offsets without a record hold transaction
                    // markers.
                    self.shared
                        .tracker()
                        .advance(assigned.partition.epoch, offset);
                }
                Ok(())
            }
            RDKafkaErrorCode::AutoOffsetReset => {
                tracing::error!(
                    group = self.shared.group,
                    topic,
                    partition,
                    "{OUT_OF_RANGE}"
                );
                self.shared
                    .readiness
                    .cannot_read(topic, partition, OUT_OF_RANGE);
                self.cannot_end(topic, partition, OUT_OF_RANGE)
            }
            code if is_refusal(code) => {
                let why = code.to_string();
                self.cannot_read_now(topic, partition, offset, &why);
                self.cannot_end(topic, partition, &why)
            }
            code => {
                self.cannot_read_now(topic, partition, offset, &code.to_string());
                Ok(())
            }
        }
    }

    /// Reports a read error. The client repeats it on every attempt.
    fn cannot_read_now(&mut self, topic: &str, partition: i32, offset: i64, error: &str) {
        let readiness = &self.shared.readiness;
        if readiness.cannot_read_now(topic, partition, error) {
            tracing::error!(
                group = self.shared.group,
                topic,
                partition,
                %error,
                "the partition cannot be read"
            );
        }
        self.rereading
            .failed(&self.client.consumer, topic, partition, offset);
    }

    /// Fails a bounded run whose partition cannot be read until an operator mends it.
    fn cannot_end(&self, topic: &str, partition: i32, why: &str) -> Result<(), ConsumerError> {
        match self.shared.settings.stop_when {
            StopWhen::Endless => Ok(()),
            StopWhen::UntilEnd | StopWhen::Records(_) | StopWhen::Idle(_) => {
                Err(ConsumerError::Unreadable {
                    topic: topic.to_owned(),
                    partition,
                    why: why.to_owned(),
                })
            }
        }
    }

    /// Serves rebalances and errors. Polling keeps this member in the group.
    ///
    /// The order within it is part of the contract. The heartbeat comes first, so that a long turn
    /// is noticed. Gates are opened before events, so that no record waits a turn longer than
    /// necessary. The client's events, with the rebalances, come before everything that looks at
    /// assignments. Commands and resets come after them, and see the partitions that are assigned
    /// now.
    fn serve_events(&mut self) -> Result<(), ConsumerError> {
        self.events_served_at = Instant::now();
        self.beating.beat();
        self.shared.breakers.check();
        self.has_gated = self.client.gates.mind(&self.client.consumer);
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
        self.rereading.mind(&self.client.consumer);
        for complaint in self.client.consumer.context().take_complaints() {
            self.client_error(&complaint)?;
        }
        self.surplus.look(&self.shared, &self.client.consumer);
        if self.last_record_at.is_none() && self.client.consumer.context().assignments().joined {
            // No record has arrived since the assignment: the idle time starts now.
            self.last_record_at = Some(Instant::now());
        }
        if self.client.watched.is_cut_off() {
            self.shared.readiness.complain(&self.no_broker());
        }
        let consumer = &self.client.consumer;
        self.is_resetting = consumer.context().advance_log_resets(consumer);
        self.reconciler.serve(consumer);
        self.unreadable.mind(consumer);
        // Records that were taken before a gate opened are passed on first.
        if !self.client.gates.has_open() {
            self.markers.pass(consumer);
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

    /// The complaint that no broker can be reached, with the cause and the advice if they are
    /// known.
    fn no_broker(&self) -> String {
        let fault = self.client.consumer.context().fault.get();
        fault.map_or_else(
            || NO_BROKER.to_owned(),
            |fault| match advice(&fault.cause) {
                Some(advice) => format!("{NO_BROKER}: {}; {advice}", fault.cause),
                None => format!("{NO_BROKER}: {}", fault.cause),
            },
        )
    }

    /// Handles an error of the client itself. Before the group was joined, a refusal ends the run:
    /// it is most likely a wrong credential or ACL. After that it may pass, and the member waits.
    ///
    /// | error | before the group was joined | afterwards |
    /// |---|---|---|
    /// | fatal | the run ends | the run ends |
    /// | the instance id is in use | the run waits and retries | the same |
    /// | authentication, authorisation | the run ends | not ready, retried by the client |
    /// | all brokers down | not ready | not ready |
    /// | unknown topic | not ready | not ready |
    /// | any other | a debug line: the client retries | the same |
    fn client_error(&self, error: &ClientError) -> Result<(), ConsumerError> {
        if let Some((code, reason)) = self.client.consumer.client().fatal_error() {
            if code == RDKafkaErrorCode::UnreleasedInstanceId {
                return Err(ConsumerError::InstanceInUse);
            }
            return Err(ConsumerError::Fatal(format!("{code}: {reason}")));
        }
        if let ClientError::MessageConsumptionFatal(code) = error {
            return Err(ConsumerError::Fatal(code.to_string()));
        }
        let code = error.rdkafka_error_code();
        let joined = self.client.consumer.context().assignments().joined;
        match code {
            Some(code) if is_refusal(code) && !joined => Err(KafkaError::Refused {
                what: format!("joining the group {}", self.shared.group),
                cause: code.to_string(),
            }
            .into()),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.shared.readiness.complain(&self.no_broker());
                Ok(())
            }
            Some(code @ RDKafkaErrorCode::GroupAuthorizationFailed) => {
                let reason = format!("refused by the group: {code}");
                self.shared.readiness.refused(&reason);
                Ok(())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.shared.readiness.topic_missing();
                Ok(())
            }
            Some(code) if is_refusal(code) => {
                self.shared.readiness.complain(&format!("refused: {code}"));
                Ok(())
            }
            _ => {
                tracing::debug!(group = self.shared.group, %error, "client error");
                Ok(())
            }
        }
    }

    /// Whether the run is done. An unreadable batch ends it with an error, after everything else is
    /// done.
    ///
    /// Between a revoke and the next assignment the member has no partition, and all partitions of
    /// none are at their end: the flag `awaited` keeps a run from ending there.
    fn bound_reached(&mut self) -> Result<bool, ConsumerError> {
        let bound = self.shared.settings.stop_when;
        if bound == StopWhen::Endless {
            return Ok(false);
        }
        let joined = {
            let mut assignments = self.client.consumer.context().assignments();
            // Between a revoke and the next assignment, an empty assignment does not mean that the
            // ends are reached.
            let is_between = assignments.awaited && assignments.all().next().is_none();
            assignments.joined && !is_between
        };
        let ends_reached =
            joined && bound == StopWhen::UntilEnd && !self.is_resetting && self.ends_reached()?;
        let progress = Progress {
            received: self.kept(),
            in_flight: self.shared.in_flight(),
            idle_for: self.last_record_at.map(|at| at.elapsed()),
            ends_reached,
        };
        let is_done = admission::is_done(bound, progress);
        let is_stuck = progress.in_flight == 0 && (is_done || progress.is_idle(STUCK_AFTER));
        match self.unreadable.blocking_batch() {
            None => Ok(is_done),
            // The error is returned after all other records are done and the extent of the batch is
            // known.
            Some((batch, true)) if is_stuck => {
                Err(KafkaError::UnreadableBatch(batch.clone()).into())
            }
            Some(_) => Ok(false),
        }
    }

    /// Records received, without those released unsettled: they are redelivered.
    ///
    /// A run of a number of records counts them only once.
    fn kept(&self) -> u64 {
        let abandoned = self.shared.counters.abandoned.load(Ordering::Relaxed);
        self.bounded_received.saturating_sub(abandoned)
    }

    /// Whether every assigned partition is settled up to its end at the assignment.
    ///
    /// A partition counts as done in one of these ways: settled up to its end, blocked by a batch
    /// that cannot be read (the error follows when all others are done), or absent from a recreated
    /// topic. Its parked records that were due at the first assignment must be done as well.
    fn ends_reached(&mut self) -> Result<bool, ConsumerError> {
        if let Err(error) = self.look_up_ends() {
            // The next lookup finds a leader that has moved.
            let since = *self.ends_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < ENDS_WITHIN {
                true => Ok(false),
                false => Err(error),
            };
        }
        self.ends_unknown_since = None;
        let settled: HashMap<_, _> = self
            .shared
            .tracker()
            .positions()
            .into_iter()
            .map(|position| (position.epoch, position.watermark))
            .collect();
        let begun_ms = *self.bounded_since_ms.get_or_insert_with(steady_ms);
        let mut assignments = self.client.consumer.context().assignments();
        let closed = assignments.all().find_map(|assigned| {
            let retry = assigned.partition.retry.as_ref()?;
            (!retry.is_open()).then(|| (Arc::clone(&retry.topic), assigned.partition.partition))
        });
        if let Some((topic, partition)) = closed {
            // It is unknown whether a record is due there.
            let since = *self.retry_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < ENDS_WITHIN {
                true => Ok(false),
                false => Err(ConsumerError::Unreadable {
                    topic: topic.to_string(),
                    partition,
                    why: "its parked records are unknown".to_owned(),
                }),
            };
        }
        self.retry_unknown_since = None;
        Ok(assignments.all().all(|assigned| {
            let retry = assigned.partition.retry.as_ref();
            if retry.is_some_and(|retry| !retry.is_done_with(begun_ms)) {
                return false;
            }
            let watermark = settled
                .get(&assigned.partition.epoch)
                .copied()
                .flatten()
                .unwrap_or(i64::MIN);
            // A partition that cannot be read does not block: its error is returned after the
            // others are done.
            assigned.is_absent()
                || assigned.end.is_some_and(|end| watermark >= end)
                || self.unreadable.stands(assigned.partition.epoch)
        }))
    }

    /// Looks up the ends of partitions that have none yet, in one request: single requests would
    /// each wait behind the partition's fetches.
    ///
    /// The end is the one at the assignment: records that are written during the run do not extend
    /// it. A partition whose committed offset is its end needs nothing, which `i64::MIN` expresses.
    fn look_up_ends(&self) -> Result<(), ConsumerError> {
        let mut unknown = TopicPartitionList::new();
        for assigned in self.client.consumer.context().assignments().all() {
            if assigned.end.is_none() && !assigned.is_absent() {
                let partition = &assigned.partition;
                let element = unknown.add_partition_offset(
                    &partition.topic,
                    partition.partition,
                    Offset::End,
                );
                element.map_err(cannot_read_ends)?;
            }
        }
        if unknown.count() == 0 {
            return Ok(());
        }
        let ends = self
            .client
            .consumer
            .offsets_for_times(unknown, END_WITHIN)
            .map_err(cannot_read_ends)?;
        let mut assignments = self.client.consumer.context().assignments();
        for element in ends.elements() {
            element.error().map_err(cannot_read_ends)?;
            let Some(assigned) = assignments.get(element.topic(), element.partition()) else {
                continue;
            };
            let end = element.offset().to_raw().unwrap_or(0).max(0);
            // A committed offset above the end means a log reset: the partition is read from its
            // beginning.
            let is_there = assigned.committed.unwrap_or(0) == end;
            assigned.end = Some(if is_there { i64::MIN } else { end });
        }
        Ok(())
    }

    /// Drains running handlers and commits settled offsets. Returns whether both were done in time.
    ///
    /// After an error of the run the settled offsets are committed too, unless the client failed or
    /// a position is in doubt: then they may belong to other records.
    fn shut_down(&mut self, failure: Option<&ConsumerError>, retry_threads: RetryThreads) -> bool {
        let shared = Arc::clone(&self.shared);
        let deadlines: Deadlines = shared.end.begin();
        // The threads end by themselves after the last sender is dropped.
        let _ = retry_threads.requests.send(reader::ReaderRequest::Close);
        shared.retry_topics.wake_reader();
        shared.readiness.stop();
        self.reconciler.stop();
        let member = self.client.consumer.context();
        let epochs = member.fence_all();
        let mut drain = member.fence(&epochs);
        let drained = self.drain(&mut drain, deadlines.handlers);
        let may_commit = match failure {
            Some(ConsumerError::Fatal(_)) => shared.may_commit_after_failure(),
            Some(_) | None => true,
        };
        let committed = !may_commit || self.commit_last(&epochs, deadlines.commit);
        if !drained {
            tracing::warn!(
                group = shared.group,
                in_flight = shared.in_flight(),
                "stopped before every running handler was done; their records are redelivered"
            );
        }
        let left = left_until(deadlines.commit).max(EVENTS_EVERY);
        if retry_threads.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            // The thread waits, with a client of its own, for brokers that do not answer. The stop
            // does not depend on it.
            tracing::debug!(
                group = shared.group,
                "stopped before the reader of the retry topics was done"
            );
        }
        let is_lost = self.client.consumer.context().is_lost_at_end();
        // Offsets that did not fit into the last commits are handled again.
        drained && committed && !is_lost && !shared.is_cut()
    }

    /// Commits the settled offsets of these epochs. Retries until the deadline: the group refuses
    /// commits during a rebalance, which happens whenever several members stop together.
    ///
    /// Serves the client's events between two tries, as the rebalance continues only with this
    /// member.
    fn commit_last(&mut self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            let within = left_until(deadline).min(COMMIT_WITHIN);
            if self.client.consumer.context().commit(epochs, within) {
                return true;
            }
            std::thread::sleep(EVENTS_EVERY);
            // The rebalance continues only while this member takes part in it.
            if Instant::now() >= deadline || self.serve_events().is_err() {
                return false;
            }
        }
    }

    /// Waits for running handlers while it serves events: this member stays in the group until the
    /// end.
    ///
    /// The drain of a stop differs from that of a revoke: it does not block, because the partitions
    /// stay assigned and the group expects this member's polls until it leaves.
    fn drain(&mut self, drain: &mut Drain, deadline: Instant) -> bool {
        loop {
            if drain.wait(EVENTS_EVERY) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if let Err(error) = self.serve_events() {
                tracing::warn!(
                    group = self.shared.group,
                    %error,
                    "the client failed while handlers were drained"
                );
                return false;
            }
        }
    }
}

/// The error of a lookup of end offsets.
fn cannot_read_ends(source: ClientError) -> ConsumerError {
    KafkaError::Client {
        what: "the ends of the assigned partitions cannot be read".to_owned(),
        source,
    }
    .into()
}

/// Whether the error is a refusal, which waiting does not mend before the group is joined.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}
