//! The poll thread: owns the client, serves its events all the time, and takes records only while there is room.
//!
//! It never waits for a handler, except in the bounded drain of a revoke and of the stop.

use super::commands::Commands;
use super::commit::{Committer, Order};
use super::crowding::Crowding;
use super::ending::{Deadlines, left_until};
use super::engine::Engine;
use super::flow::{self, Progress};
use super::gates::Gates;
use super::intake::Intake;
use super::ledger::Epoch;
use super::markers::Markers;
use super::parking::follow::{self, Follower};
use super::parking::steady_ms;
use super::rebalance::{COMMIT_WITHIN, Drain, Member, Targets};
use super::reread::Rereading;
use super::steering::Steering;
use super::surplus::Surplus;
use super::unreadable::Unreadable;
use super::{Bound, ConsumerError, Stopped};
use crate::kafka::queue::{ForwardedQueue, Message, Watched};
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use crate::telemetry::Beating;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often the client's events are served: rebalances wait no longer than this.
const EVENTS_EVERY: Duration = Duration::from_millis(20);
/// The same while nothing happens: looking costs a wake-up, and those are all that an idle consumer costs.
const EVENTS_EVERY_QUIET: Duration = Duration::from_millis(100);
/// How long no record came when it is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How long a run for some records waits for others to come when a partition cannot be read.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long the ends of partitions are looked up in vain before a run that stops there fails.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How long one look at them may take.
const END_WITHIN: Duration = Duration::from_secs(10);
/// The loop that has to move for the process to be alive.
const LOOP: &str = "consumer_poll";
/// How much longer than a revoke's drain the loop may stand still: its commit and the look-up of committed offsets fit in.
const BEAT_WITHIN: Duration = Duration::from_secs(50);

/// What is said of a client that has no broker.
const NO_BROKER: &str = "no broker can be reached";

/// How the run ended on this thread.
pub(crate) struct Ended {
    pub(crate) stopped: Stopped,
    /// Whether everything that ran was drained, and everything settled committed, in time.
    pub(crate) clean: bool,
}

/// What the poll thread is made of.
pub(crate) struct PollThread {
    // First, because everything of the client must be gone before the client is given back.
    intake: Intake,
    steering: Steering,
    crowding: Crowding,
    unreadable: Unreadable,
    markers: Markers,
    surplus: Surplus,
    client: OwnClient,
    engine: Arc<Engine>,
    beating: Beating,
    stop: Arc<AtomicBool>,
    events_served_at: Instant,
    last_record_at: Option<Instant>,
    /// Whether partitions wait for their parked sets.
    are_gated: bool,
    /// Whether partitions are being set back, as their logs begin anew.
    are_falling: bool,
    /// Partitions that cannot be read.
    rereading: Rereading,
    /// Whether anything was taken of the client since events were served.
    has_taken: bool,
    bounded_received: u64,
    /// When a run to the end had its first assignment: what is due in its retry topics by then is a part of it.
    bounded_since_ms: Option<i64>,
    /// Since when it is not known what waits in a retry partition.
    retry_unknown_since: Option<Instant>,
    /// Since when the ends of partitions cannot be looked up.
    ends_unknown_since: Option<Instant>,
}

/// Runs a consumer from the first poll to the closed client. Tells how the run ended before it gives the client back.
pub(crate) fn run(
    engine: Arc<Engine>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<Commands>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
    tell_ended: oneshot::Sender<Result<Ended, ConsumerError>>,
) {
    // A panic's way out ends the run, too.
    let _ends = EndsRun(Arc::clone(&engine));
    let begun = begin(Arc::clone(&engine), config, kafka, commands, runtime, stop);
    let (mut thread, follower) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // The run may have been dropped meanwhile, here and below.
            let _ = tell_ended.send(Err(error));
            return;
        }
    };
    let ran = thread.subscribe_and_poll();
    let clean = thread.shut_down(ran.as_ref().err(), follower);
    let _ = tell_ended.send(ran.map(|stopped| Ended { stopped, clean }));
    engine.ending.begin();
    drop(thread);
    engine.end_breakers();
}

/// Begins the end of the run, at the latest with its drop.
struct EndsRun(Arc<Engine>);

impl Drop for EndsRun {
    fn drop(&mut self) {
        self.0.ending.begin();
    }
}

/// Makes the client and what belongs to it.
fn begin(
    engine: Arc<Engine>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<Commands>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
) -> Result<(PollThread, FollowerThread), ConsumerError> {
    let (followed, follow) = mpsc::channel();
    let (follower, dispatcher) = Follower::new(Arc::clone(&engine), kafka, runtime, follow)?;
    let client = OwnClient::new(&engine, config, kafka, followed.clone())?;
    let (runs, ended) = mpsc::channel();
    spawn_parked(&engine, "evenkeel-parked", &runs, || follower.run())?;
    spawn_parked(&engine, "evenkeel-due", &runs, || dispatcher.run())?;
    let follower = FollowerThread {
        orders: followed,
        ended,
    };
    engine.intake_is_here();
    let beat_within = engine.settings.revoke_timeout + BEAT_WITHIN;
    let thread = PollThread {
        intake: Intake::new(Arc::clone(&engine)),
        steering: Steering::new(Arc::clone(&engine), commands),
        crowding: Crowding::default(),
        unreadable: Unreadable::new(Arc::clone(&engine), kafka),
        markers: Markers::new(Arc::clone(&engine)),
        surplus: Surplus::new(),
        client,
        beating: engine.health.expect_beat(LOOP, beat_within),
        engine,
        stop,
        events_served_at: Instant::now(),
        last_record_at: None,
        are_gated: false,
        are_falling: false,
        rereading: Rereading::default(),
        bounded_received: 0,
        bounded_since_ms: None,
        retry_unknown_since: None,
        has_taken: true,
        ends_unknown_since: None,
    };
    Ok((thread, follower))
}

/// The reader of the retry topics and what hands out of them, as the poll thread knows it.
struct FollowerThread {
    orders: mpsc::Sender<follow::Order>,
    /// Disconnected when both have ended.
    ended: mpsc::Receiver<()>,
}

/// The client, its queue and the thread that commits for it. The drop leaves the group and gives the client back, also when the poll
/// thread panics: otherwise the committing thread would keep a member alive that reads nothing.
struct OwnClient {
    engine: Arc<Engine>,
    orders: mpsc::Sender<Order>,
    committing: Option<std::thread::JoinHandle<()>>,
    // These before the client, and the client last: they must go first.
    watched: Watched,
    queue: ForwardedQueue<Member>,
    gates: Gates,
    consumer: Arc<BaseConsumer<Member>>,
}

impl OwnClient {
    fn new(
        engine: &Arc<Engine>,
        config: &ClientConfig,
        kafka: &KafkaConfig,
        followed: mpsc::Sender<follow::Order>,
    ) -> Result<Self, ConsumerError> {
        let (orders, taken) = mpsc::channel();
        let member = Member::new(Arc::clone(engine), orders.clone(), followed);
        let consumer: BaseConsumer<Member> =
            config
                .create_with_context(member)
                .map_err(|source| KafkaError::Client {
                    what: "the consumer cannot be created".to_owned(),
                    source,
                })?;
        let consumer = Arc::new(consumer);
        let committer = Committer::new(Arc::clone(engine), Arc::clone(&consumer), taken);
        let committed_for = Arc::clone(engine);
        let commit = move || {
            if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
                committed_for.fail("the committing thread panicked");
            }
        };
        let committing = std::thread::Builder::new()
            .name("evenkeel-commit".to_owned())
            .spawn(commit)
            .map_err(|error| ConsumerError::Fatal(format!("no thread for commits: {error}")))?;
        let queue = || match engine.settings.bound {
            Bound::UntilEnd => ForwardedQueue::new(Arc::clone(&consumer)).one_by_one(),
            _ => ForwardedQueue::new(Arc::clone(&consumer)),
        };
        let (gates, queue) = (Gates::new(queue()), queue());
        consumer.context().set_targets(Some(Targets {
            open: queue.target(),
            gated: gates.target(),
        }));
        let topic = engine.settings.topics.first().map(String::as_str);
        Ok(Self {
            watched: Watched::new(consumer.client(), &kafka.brokers, topic),
            engine: Arc::clone(engine),
            orders,
            committing: Some(committing),
            queue,
            gates,
            consumer,
        })
    }
}

impl Drop for OwnClient {
    fn drop(&mut self) {
        let engine = &self.engine;
        let _ = self.orders.send(Order::Close);
        if let Some(committing) = self.committing.take()
            && committing.join().is_err()
        {
            tracing::error!(group = engine.group, "the thread for commits panicked");
        }
        let member = self.consumer.context();
        member.set_closing();
        member.set_targets(None);
        let has_partitions = member.assignments().all().next().is_some();
        if !has_partitions && engine.settings.instance_id.is_none() {
            // With the cooperative protocol librdkafka's close leaves the group only once partitions were unassigned: a rebalance
            // would wait for a member without any until its session times out. Static members stay, as they are meant to.
            self.consumer.unsubscribe();
        }
    }
}

/// Starts a thread for parked records, which holds `runs` until it ends.
fn spawn_parked(
    engine: &Arc<Engine>,
    name: &str,
    runs: &mpsc::Sender<()>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), ConsumerError> {
    let (engine, runs) = (Arc::clone(engine), runs.clone());
    let run = move || {
        let _runs: mpsc::Sender<()> = runs;
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            engine.fail("a thread for parked records panicked");
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|error| ConsumerError::Fatal(format!("no thread for parked records: {error}")))
}

impl PollThread {
    fn subscribe_and_poll(&mut self) -> Result<Stopped, ConsumerError> {
        let topics: Vec<&str> = self
            .engine
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
                if let Some(reason) = self.engine.failure() {
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

    fn events_every(&self) -> Duration {
        let is_quiet = self
            .last_record_at
            .is_some_and(|at| at.elapsed() > QUIET_AFTER && self.engine.in_flight() == 0);
        if is_quiet && self.engine.settings.bound == Bound::Endless {
            EVENTS_EVERY_QUIET
        } else {
            EVENTS_EVERY
        }
    }

    fn take_records(&mut self) -> Result<(), ConsumerError> {
        let until_events = self
            .events_every()
            .saturating_sub(self.events_served_at.elapsed());
        let wanted = flow::wanted(self.engine.settings.bound, self.kept());
        let free = self.intake.room();
        let room = self.steering.room(free.min(wanted));
        // What is in flight waits for what is down, and what would come would wait as well, but for one that is tried.
        let is_open = self.engine.breakers.is_open();
        let room = match is_open {
            true if self.engine.permits.has_trial() => room.min(1),
            true => 0,
            false => room,
        };
        if room == 0 {
            self.mind_crowding(free == 0 && wanted > 0 && !is_open);
            self.engine.wait_for_room(until_events);
            return Ok(());
        }
        self.crowding.has_room(&self.engine);
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
        // At least a millisecond: a wait of none would spin until the next events are due.
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
            self.steering.took(received);
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

    /// Nothing can be taken: for want of room, or because of something else.
    fn mind_crowding(&mut self, is_for_want_of_room: bool) {
        if !is_for_want_of_room {
            return self.crowding.has_room(&self.engine);
        }
        if self.engine.in_flight() < self.intake.records_max() {
            self.engine.compact();
        }
        let bytes = self.engine.budget.load(Ordering::Relaxed);
        self.crowding.is_full(&self.engine, bytes);
    }

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
                    // Nothing below the end is missing: what stands there, such as a transaction's marker, is no record.
                    self.engine
                        .ledger()
                        .advance(assigned.partition.epoch, offset);
                }
                Ok(())
            }
            RDKafkaErrorCode::AutoOffsetReset => {
                tracing::error!(
                    group = self.engine.group,
                    topic,
                    partition,
                    "the committed offset is out of range and auto.offset.reset says not to guess; reset the group's offset"
                );
                self.engine.readiness.cannot_read(
                    topic,
                    partition,
                    "the committed offset is out of range",
                );
                self.cannot_end(
                    topic,
                    partition,
                    "the committed offset is out of range, and auto.offset.reset says not to guess",
                )
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

    /// Told each time that the client has tried to read a partition.
    fn cannot_read_now(&mut self, topic: &str, partition: i32, offset: i64, error: &str) {
        let readiness = &self.engine.readiness;
        if readiness.cannot_read_now(topic, partition, error) {
            tracing::error!(group = self.engine.group, topic, partition, %error, "the partition cannot be read");
        }
        self.rereading
            .failed(&self.client.consumer, topic, partition, offset);
    }

    /// A partition cannot be read until somebody mends that: a run with an end would never reach it.
    fn cannot_end(&self, topic: &str, partition: i32, why: &str) -> Result<(), ConsumerError> {
        match self.engine.settings.bound {
            Bound::Endless => Ok(()),
            Bound::UntilEnd | Bound::Records(_) | Bound::Idle(_) => {
                Err(ConsumerError::Unreadable {
                    topic: topic.to_owned(),
                    partition,
                    why: why.to_owned(),
                })
            }
        }
    }

    /// Serves rebalances and errors. Polling is what keeps this member in the group.
    fn serve_events(&mut self) -> Result<(), ConsumerError> {
        self.events_served_at = Instant::now();
        self.beating.beat();
        self.engine.mind_breakers();
        self.are_gated = self.client.gates.mind(&self.client.consumer);
        self.engine.dead_letters.mind_flood();
        let has_taken = std::mem::replace(&mut self.has_taken, false);
        self.engine.readiness.mind_unreadable(has_taken);
        while let Some(event) = self.client.consumer.poll(Duration::ZERO) {
            match event {
                // Partitions are forwarded before they are assigned, so no record comes this way.
                Ok(message) => {
                    return Err(ConsumerError::Fatal(format!(
                        "a record of {} came outside of its partition's queue",
                        rdkafka::Message::topic(&message)
                    )));
                }
                Err(error) => self.client_error(&error)?,
            }
        }
        // Behind the events, as a rebalance is among them, and before anything is taken.
        self.rereading.mind(&self.client.consumer);
        for complaint in self.client.consumer.context().take_complaints() {
            self.client_error(&complaint)?;
        }
        self.surplus.look(&self.engine, &self.client.consumer);
        if self.last_record_at.is_none() && self.client.consumer.context().assignments().joined {
            // Nothing came since then, which counts as quiet and as idle from then on.
            self.last_record_at = Some(Instant::now());
        }
        if self.client.watched.is_cut_off() {
            self.engine.readiness.complain(NO_BROKER);
        }
        let consumer = &self.client.consumer;
        self.are_falling = consumer.context().mind_fallen(consumer);
        self.steering.serve(consumer);
        self.unreadable.mind(consumer);
        // What was taken of a partition before its gate opened is handed on first.
        if !self.client.gates.has_open() {
            self.markers.pass(consumer);
        }
        // A run without an end has nothing to wait for.
        let is_bounded = self.engine.settings.bound != Bound::Endless;
        if self.engine.breakers.is_open()
            || self.are_gated
            || self.are_falling
            || (is_bounded && self.steering.holds_back())
        {
            // Nothing is taken, which does not mean that nothing is there.
            self.last_record_at = self.last_record_at.map(|_| Instant::now());
        }
        Ok(())
    }

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
                what: format!("joining the group {}", self.engine.group),
                cause: code.to_string(),
            }
            .into()),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.engine.readiness.complain(NO_BROKER);
                Ok(())
            }
            Some(code @ RDKafkaErrorCode::GroupAuthorizationFailed) => {
                let reason = format!("refused by the group: {code}");
                self.engine.readiness.refused(&reason);
                Ok(())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.engine.readiness.lacks_topic();
                Ok(())
            }
            Some(code) if is_refusal(code) => {
                self.engine.readiness.complain(&format!("refused: {code}"));
                Ok(())
            }
            _ => {
                tracing::debug!(group = self.engine.group, %error, "client error");
                Ok(())
            }
        }
    }

    fn bound_reached(&mut self) -> Result<bool, ConsumerError> {
        let bound = self.engine.settings.bound;
        if bound == Bound::Endless {
            return Ok(false);
        }
        let joined = {
            let mut assignments = self.client.consumer.context().assignments();
            // That nothing is assigned between a revoke and the assignment that follows says nothing about the ends.
            let is_between = assignments.awaited && assignments.all().next().is_none();
            assignments.joined && !is_between
        };
        let ends_reached =
            joined && bound == Bound::UntilEnd && !self.are_falling && self.ends_reached()?;
        let progress = Progress {
            received: self.kept(),
            in_flight: self.engine.in_flight(),
            idle_for: self.last_record_at.map(|at| at.elapsed()),
            ends_reached,
        };
        let is_done = flow::is_done(bound, progress);
        let is_stuck = progress.in_flight == 0 && (is_done || progress.is_idle(STUCK_AFTER));
        match self.unreadable.in_the_way() {
            None => Ok(is_done),
            // It is told when all others are done, and it is known how far it reaches.
            Some((batch, true)) if is_stuck => {
                Err(KafkaError::UnreadableBatch(batch.clone()).into())
            }
            Some(_) => Ok(false),
        }
    }

    /// Records received and not let go unsettled: those come again, here or elsewhere.
    fn kept(&self) -> u64 {
        let abandoned = self.engine.counters.abandoned.load(Ordering::Relaxed);
        self.bounded_received.saturating_sub(abandoned)
    }

    /// Whether every assigned partition is settled up to the end that it had when it was assigned.
    fn ends_reached(&mut self) -> Result<bool, ConsumerError> {
        if let Err(error) = self.look_up_ends() {
            // A leader that has moved is found by the next look.
            let since = *self.ends_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < ENDS_WITHIN {
                true => Ok(false),
                false => Err(error),
            };
        }
        self.ends_unknown_since = None;
        let settled: HashMap<_, _> = self
            .engine
            .ledger()
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
            // Whether anything is due there is not known.
            let since = *self.retry_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < ENDS_WITHIN {
                true => Ok(false),
                false => Err(ConsumerError::Unreadable {
                    topic: topic.to_string(),
                    partition,
                    why: "it is not known what is parked there".to_owned(),
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
            // What cannot be read is told when the others are done.
            assigned.end.is_some_and(|end| watermark >= end)
                || self.unreadable.stands(assigned.partition.epoch)
        }))
    }

    /// Asks for the ends of partitions that were assigned since the last look, all in one request: one for each would
    /// wait behind the partition's fetches.
    fn look_up_ends(&self) -> Result<(), ConsumerError> {
        let mut unknown = TopicPartitionList::new();
        for assigned in self.client.consumer.context().assignments().all() {
            if assigned.end.is_none() {
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
            // More committed than there is: the partition fell back, and is read from its beginning.
            let is_there = assigned.committed.unwrap_or(0) == end;
            assigned.end = Some(if is_there { i64::MIN } else { end });
        }
        Ok(())
    }

    /// Drains what runs and commits what is settled; true when both were done in time.
    fn shut_down(&mut self, failure: Option<&ConsumerError>, follower: FollowerThread) -> bool {
        let engine = Arc::clone(&self.engine);
        let deadlines: Deadlines = engine.ending.begin();
        // It ends by itself when nobody is left to tell it anything.
        let _ = follower.orders.send(follow::Order::Close);
        engine.parking.wake_reader();
        engine.readiness.stop();
        self.steering.stop();
        let member = self.client.consumer.context();
        let epochs = member.fence_all();
        let mut drain = member.fence(&epochs);
        let drained = self.drain(&mut drain, deadlines.handlers);
        let may_commit = match failure {
            Some(ConsumerError::Fatal(_)) => engine.may_commit_after_failure(),
            Some(_) | None => true,
        };
        let committed = !may_commit || self.commit_last(&epochs, deadlines.commit);
        if !drained {
            tracing::warn!(
                group = engine.group,
                in_flight = engine.in_flight(),
                "stopped before every running handler was done; their records come again"
            );
        }
        let left = left_until(deadlines.commit).max(EVENTS_EVERY);
        if follower.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            // It waits for brokers that do not answer, with a client of its own, and nobody waits for what they would say.
            tracing::debug!(
                group = engine.group,
                "stopped before the reader of the retry topics was done"
            );
        }
        // What did not fit into the last commits is handled again.
        drained && committed && !engine.is_cut()
    }

    /// Commits what is settled of these epochs, again and again until it is taken or the time is up: a commit is refused while the
    /// group rebalances, which it does whenever several members stop together.
    fn commit_last(&mut self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            let within = left_until(deadline).min(COMMIT_WITHIN);
            if self.client.consumer.context().commit(epochs, within) {
                return true;
            }
            std::thread::sleep(EVENTS_EVERY);
            // The rebalance goes on only while this member takes part in it.
            if Instant::now() >= deadline || self.serve_events().is_err() {
                return false;
            }
        }
    }

    /// Waits for running handlers, and goes on serving events meanwhile: this member keeps its place until the end.
    fn drain(&mut self, drain: &mut Drain, deadline: Instant) -> bool {
        loop {
            if drain.wait(EVENTS_EVERY) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if let Err(error) = self.serve_events() {
                tracing::warn!(group = self.engine.group, %error, "the client failed while handlers were drained");
                return false;
            }
        }
    }
}

fn cannot_read_ends(source: ClientError) -> ConsumerError {
    KafkaError::Client {
        what: "the ends of the assigned partitions cannot be read".to_owned(),
        source,
    }
    .into()
}

/// Errors that no waiting mends before the group was joined.
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
