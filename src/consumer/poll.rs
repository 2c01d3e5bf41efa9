//! The poll thread: owns the client, serves its events all the time, and takes records only while there is room.
//!
//! It never waits for a handler, except in the bounded drain of a revoke and of the stop.

use super::commands::Commands;
use super::commit::{Committer, Order};
use super::engine::Engine;
use super::flow::{self, Progress};
use super::intake::Intake;
use super::ledger::Epoch;
use super::parking::follow::{self, Follower};
use super::rebalance::{Drain, Member};
use super::steering::Steering;
use super::{Bound, ConsumerError, Stopped};
use crate::kafka::queue::{ForwardedQueue, Message};
use crate::kafka::{KafkaConfig, KafkaError};
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

/// How often the client's events are served: rebalances wait no longer than this.
const EVENTS_EVERY: Duration = Duration::from_millis(20);
/// The same while nothing happens: looking costs a wake-up, and those are all that an idle consumer costs.
const EVENTS_EVERY_QUIET: Duration = Duration::from_millis(100);
/// How long no record came when it is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for the end of a partition, for runs that stop there.
const END_WITHIN: Duration = Duration::from_secs(10);
/// The loop that has to move for the process to be alive.
const LOOP: &str = "consumer_poll";
/// How much longer than a revoke's drain the loop may stand still: its commit and the look-up of committed offsets fit in.
const BEAT_WITHIN: Duration = Duration::from_secs(50);

/// How the run ended on this thread.
pub(crate) struct Ended {
    pub(crate) stopped: Stopped,
    /// Whether everything that ran was drained, and everything settled committed, in time.
    pub(crate) clean: bool,
}

/// What the poll thread is made of.
pub(crate) struct PollThread {
    engine: Arc<Engine>,
    // Before the client: the queue must go first.
    queue: ForwardedQueue<Member>,
    consumer: Arc<BaseConsumer<Member>>,
    orders: mpsc::Sender<Order>,
    intake: Intake,
    steering: Steering,
    beating: Beating,
    stop: Arc<AtomicBool>,
    events_served_at: Instant,
    last_record_at: Option<Instant>,
    /// Whether partitions wait for their parked sets.
    are_gated: bool,
    bounded_received: u64,
}

/// Runs a consumer from the first poll to the closed client.
pub(crate) fn run(
    engine: Arc<Engine>,
    config: &ClientConfig,
    kafka: &KafkaConfig,
    commands: Option<Commands>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
) -> Result<Ended, ConsumerError> {
    let (orders, taken) = mpsc::channel();
    let (followed, follow) = mpsc::channel();
    let follower = Follower::new(Arc::clone(&engine), kafka, runtime, follow)?;
    let member = Member::new(Arc::clone(&engine), orders.clone(), followed.clone());
    let consumer: BaseConsumer<Member> =
        config
            .create_with_context(member)
            .map_err(|source| KafkaError::Client {
                what: "the consumer cannot be created".to_owned(),
                source,
            })?;
    let consumer = Arc::new(consumer);
    let committer = Committer::new(Arc::clone(&engine), Arc::clone(&consumer), taken);
    let committed_for = Arc::clone(&engine);
    let commit = move || {
        if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
            committed_for.fail("the committing thread panicked");
        }
    };
    let committing = std::thread::Builder::new()
        .name("evenkeel-commit".to_owned())
        .spawn(commit)
        .map_err(|error| ConsumerError::Fatal(format!("no thread for commits: {error}")))?;
    let following = spawn_follower(&engine, follower)?;
    let queue = ForwardedQueue::new(Arc::clone(&consumer));
    consumer.context().set_target(Some(queue.target()));
    engine.intake_is_here();
    let beat_within = engine.settings.revoke_timeout + BEAT_WITHIN;
    let beating = engine.health.expect_beat(LOOP, beat_within);
    let intake = Intake::new(Arc::clone(&engine));
    let steering = Steering::new(Arc::clone(&engine), commands);
    let mut thread = PollThread {
        steering,
        engine,
        queue,
        consumer,
        orders,
        intake,
        beating,
        stop,
        events_served_at: Instant::now(),
        last_record_at: None,
        are_gated: false,
        bounded_received: 0,
    };
    let ran = thread.subscribe_and_poll();
    // It ends by itself when nobody is left to tell it anything.
    let _ = followed.send(follow::Order::Close);
    thread.engine.parking.wake();
    let deadline = Instant::now() + thread.engine.settings.drain_timeout;
    let clean = thread.shut_down(ran.is_ok(), deadline);
    let ended = ran.map(|stopped| Ended { stopped, clean });
    let left = deadline.saturating_duration_since(Instant::now());
    if following.recv_timeout(left.max(EVENTS_EVERY)) == Err(RecvTimeoutError::Timeout) {
        // It waits for brokers that do not answer, with a client of its own, and nobody waits for what they would say.
        tracing::debug!(
            group = thread.engine.group,
            "stopped before the reader of the retry topics was done"
        );
    }
    thread.close(committing);
    ended
}

/// Starts the reader of the retry topics. What it gives back is disconnected when that ends.
fn spawn_follower(
    engine: &Arc<Engine>,
    follower: Follower,
) -> Result<mpsc::Receiver<()>, ConsumerError> {
    let engine = Arc::clone(engine);
    let (runs, ended) = mpsc::channel();
    let follow = move || {
        let _runs: mpsc::Sender<()> = runs;
        if catch_unwind(AssertUnwindSafe(|| follower.run())).is_err() {
            engine.fail("the thread for parked records panicked");
        }
    };
    std::thread::Builder::new()
        .name("evenkeel-parked".to_owned())
        .spawn(follow)
        .map(|_| ended)
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
        self.consumer
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
        let room = self.steering.room(self.intake.room().min(wanted));
        // What is in flight waits for what is down, and what would come would wait as well, but for one that is tried.
        let is_open = self.engine.breakers.is_open();
        let room = match is_open {
            true if self.engine.permits.has_trial() => room.min(1),
            true => 0,
            false => room,
        };
        if room == 0 {
            if !is_open
                && wanted > 0
                && !self.steering.holds_back()
                && self.engine.in_flight() < self.intake.records_max()
            {
                self.engine.compact();
            }
            self.engine.wait_for_room(until_events);
            return Ok(());
        }
        let mut errors = Vec::new();
        let on_error = |code: RDKafkaErrorCode, message: &Message<'_>| {
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
            &self.queue,
            self.consumer.context(),
            room,
            timeout,
            on_error,
        );
        if received > 0 {
            self.steering.took(received);
            self.bounded_received += received as u64;
            self.last_record_at = Some(self.events_served_at);
        }
        for (code, topic, partition, offset) in errors {
            self.partition_error(code, &topic, partition, offset)?;
        }
        Ok(())
    }

    fn partition_error(
        &self,
        code: RDKafkaErrorCode,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), ConsumerError> {
        match code {
            RDKafkaErrorCode::PartitionEOF => {
                let mut assignments = self.consumer.context().assignments();
                if let Some(assigned) = assignments.get(topic, partition)
                    && assigned.held.is_none()
                {
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
                Ok(())
            }
            code => {
                tracing::error!(group = self.engine.group, topic, partition, error = %code, "the partition cannot be read");
                self.engine
                    .readiness
                    .cannot_read(topic, partition, &code.to_string());
                Ok(())
            }
        }
    }

    /// Serves rebalances and errors. Polling is what keeps this member in the group.
    fn serve_events(&mut self) -> Result<(), ConsumerError> {
        self.events_served_at = Instant::now();
        self.beating.beat();
        self.engine.mind_breakers();
        self.are_gated = self.consumer.context().open_gates(&self.consumer);
        self.engine.dead_letters.mind_flood();
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
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
        for complaint in self.consumer.context().take_complaints() {
            self.client_error(&complaint)?;
        }
        if self.last_record_at.is_none() && self.consumer.context().assignments().joined {
            // Nothing came since then, which counts as quiet and as idle from then on.
            self.last_record_at = Some(Instant::now());
        }
        self.steering.serve(&self.consumer);
        // A run without an end has nothing to wait for.
        let is_bounded = self.engine.settings.bound != Bound::Endless;
        if self.engine.breakers.is_open()
            || self.are_gated
            || (is_bounded && self.steering.holds_back())
        {
            // Nothing is taken, which does not mean that nothing is there.
            self.last_record_at = self.last_record_at.map(|_| Instant::now());
        }
        Ok(())
    }

    fn client_error(&self, error: &ClientError) -> Result<(), ConsumerError> {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            return Err(ConsumerError::Fatal(format!("{code}: {reason}")));
        }
        if let ClientError::MessageConsumptionFatal(code) = error {
            return Err(ConsumerError::Fatal(code.to_string()));
        }
        let code = error.rdkafka_error_code();
        let joined = self.consumer.context().assignments().joined;
        match code {
            Some(code) if is_refusal(code) && !joined => Err(KafkaError::Refused {
                what: format!("joining the group {}", self.engine.group),
                cause: code.to_string(),
            }
            .into()),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.engine.readiness.complain("no broker can be reached");
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
            let mut assignments = self.consumer.context().assignments();
            // That nothing is assigned between a revoke and the assignment that follows says nothing about the ends.
            let is_between = assignments.awaited && assignments.all().next().is_none();
            assignments.joined && !is_between
        };
        let ends_reached = joined && bound == Bound::UntilEnd && self.ends_reached()?;
        let progress = Progress {
            received: self.kept(),
            in_flight: self.engine.in_flight(),
            idle_for: self.last_record_at.map(|at| at.elapsed()),
            ends_reached,
        };
        Ok(flow::is_done(bound, progress))
    }

    /// Records received and not let go unsettled: those come again, here or elsewhere.
    fn kept(&self) -> u64 {
        let abandoned = self.engine.counters.abandoned.load(Ordering::Relaxed);
        self.bounded_received.saturating_sub(abandoned)
    }

    /// Whether every assigned partition is settled up to the end that it had when it was assigned.
    fn ends_reached(&self) -> Result<bool, ConsumerError> {
        self.look_up_ends()?;
        let settled: HashMap<_, _> = self
            .engine
            .ledger()
            .positions()
            .into_iter()
            .map(|position| (position.epoch, position.watermark))
            .collect();
        let mut assignments = self.consumer.context().assignments();
        Ok(assignments.all().all(|assigned| {
            let watermark = settled
                .get(&assigned.partition.epoch)
                .copied()
                .flatten()
                .unwrap_or(i64::MIN);
            assigned.end.is_some_and(|end| watermark >= end)
        }))
    }

    /// Asks for the ends of partitions that were assigned since the last look, all in one request: one for each would
    /// wait behind the partition's fetches.
    fn look_up_ends(&self) -> Result<(), ConsumerError> {
        let mut unknown = TopicPartitionList::new();
        for assigned in self.consumer.context().assignments().all() {
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
            .consumer
            .offsets_for_times(unknown, END_WITHIN)
            .map_err(cannot_read_ends)?;
        let mut assignments = self.consumer.context().assignments();
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
    fn shut_down(&mut self, commit: bool, deadline: Instant) -> bool {
        let engine = Arc::clone(&self.engine);
        engine.readiness.stop();
        self.steering.stop();
        let epochs = self.consumer.context().fence_all();
        let mut drain = self.consumer.context().fence(&epochs);
        let drained = self.drain(&mut drain, deadline);
        let committed = !commit || self.commit_last(&epochs, deadline);
        if !drained {
            tracing::warn!(
                group = engine.group,
                in_flight = engine.in_flight(),
                "stopped before every running handler was done; their records come again"
            );
        }
        drained && committed
    }

    /// Commits what is settled of these epochs, again and again until it is taken or the drain's time is up: a commit is
    /// refused while the group rebalances, which it does whenever several members stop together.
    fn commit_last(&mut self, epochs: &[Epoch], deadline: Instant) -> bool {
        while !self.consumer.context().commit(epochs) {
            std::thread::sleep(EVENTS_EVERY);
            // The rebalance goes on only while this member takes part in it.
            if Instant::now() >= deadline || self.serve_events().is_err() {
                return false;
            }
        }
        true
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

    /// Leaves the group and gives the client back. Everything of it must be gone before, or it would never end.
    fn close(self, committing: std::thread::JoinHandle<()>) {
        let Self {
            engine,
            queue,
            consumer,
            orders,
            intake,
            steering,
            ..
        } = self;
        drop(intake);
        drop(steering);
        let _ = orders.send(Order::Close);
        if committing.join().is_err() {
            tracing::error!(group = engine.group, "the thread for commits panicked");
        }
        consumer.context().set_closing();
        consumer.context().set_target(None);
        let has_partitions = consumer.context().assignments().all().next().is_some();
        if !has_partitions && engine.settings.instance_id.is_none() {
            // With the cooperative protocol librdkafka's close leaves the group only once partitions were unassigned: a rebalance
            // would wait for a member without any until its session times out. Static members stay, as they are meant to.
            consumer.unsubscribe();
        }
        drop(queue);
        drop(consumer);
        engine.end_breakers();
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
