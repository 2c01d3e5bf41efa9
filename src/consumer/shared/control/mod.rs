//! The live control of a consumer as its threads share it: the state of the control topic, the
//! records to skip, the records that wait for their next attempt, and the queue of acknowledgements
//! to the topic.
//!
//! It reads no topic and owns no partition. The poll thread does (`poll/operator/`, `poll/pause`).
//!
//! A command reaches a record in one of three ways: as a mark that a worker finds before an attempt
//! (skip, drop), as a notification of a retry that waits ([`RetryRegistration`]), or through the
//! parked set. Marks exist only for records of owned partitions. `has_skips` and `has_drops` keep
//! the hot path free of locks while no mark exists.
//!
//! Notes to the control topic are best effort. The command is in force whether or not its
//! acknowledgement arrives, and a failed write never stops a record.
//!
//! | note | key | written when |
//! |---|---|---|
//! | acknowledgement | `ack/…` | a command is in force, carried out or refused |
//! | outage | `status/…` | a breaker opens; deleted when it closes |
//! | member | `member/…` | the group has assigned an id; deleted at the stop |

#[cfg(test)]
mod tests;

use crate::consumer::state::offset_tracker::Epoch;
use crate::control::{
    Ack, Command, CommandOutcome, ControlState, MemberInfo, Scope, Status, control_topic,
};
use crate::event::{Headers, OutgoingRecord, Record};
use crate::kafka::KafkaConfig;
use crate::kafka::RecordPosition;
use crate::kafka::native::TopicId;
use crate::publisher::{PublishError, Publisher, PublisherSettings};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Partition and offset. With the topic in the value, a lookup does not copy the topic's name.
type PartitionOffset = (i32, i64);

/// The live control of a consumer.
#[derive(Default)]
pub(crate) struct Control {
    /// The state of the control topic. Written by the poll thread.
    state: Mutex<ControlState>,
    /// Records of owned partitions that are to be skipped.
    skips: Mutex<HashMap<PartitionOffset, Vec<(String, Command)>>>,
    /// Whether `skips` has an entry, for the check of every record.
    has_skips: AtomicBool,
    /// Parked records to be dropped, by their partition's epoch and their offset in the retry
    /// topic.
    drops: Mutex<HashMap<(Epoch, i64), Command>>,
    /// Whether `drops` has an entry.
    has_drops: AtomicBool,
    /// Failed records that wait.
    waiting: Mutex<HashMap<RecordPosition, Arc<Waiter>>>,
    /// The id of this member, for notes. Empty before the group has assigned one.
    member: Mutex<String>,
    /// The ids of assigned topics, for acknowledgements.
    topic_ids: Mutex<HashMap<String, String>>,
    /// The queue of notes. None after it was closed.
    notes: Mutex<Option<UnboundedSender<Note>>>,
    /// Whether notes are discarded because the control topic does not exist.
    is_muted: AtomicBool,
}

impl Control {
    /// Creates it from the state of the topic. Returns the receiver of notes as well.
    pub(crate) fn new(state: ControlState) -> (Self, UnboundedReceiver<Note>) {
        let (sender, receiver) = unbounded_channel();
        let control = Self {
            state: Mutex::new(state),
            notes: Mutex::new(Some(sender)),
            ..Self::default()
        };
        (control, receiver)
    }

    /// Locks the state of the topic. Hold it briefly, and never across a call into the client.
    pub(crate) fn state(&self) -> MutexGuard<'_, ControlState> {
        lock(&self.state)
    }

    /// Whether an operator has paused the partition.
    pub(crate) fn is_paused(&self, topic: &str, partition: i32) -> bool {
        self.state().pause_of(topic, partition).is_some()
    }

    /// Whether any record is to be skipped.
    pub(crate) fn has_skips(&self) -> bool {
        self.has_skips.load(Ordering::Relaxed)
    }

    /// The command that requested the skip of this record. Call it only if [`Control::has_skips`].
    pub(crate) fn skip_of(&self, record: &Record) -> Option<Command> {
        let skips = lock(&self.skips);
        let marks = skips.get(&(record.partition(), record.offset()))?;
        let mark = marks.iter().find(|(topic, _)| topic == record.topic());
        mark.map(|(_, command)| command.clone())
    }

    /// Marks a record to be skipped: at its start, after a failed attempt, or at once if it waits.
    pub(crate) fn skip(&self, record: &RecordPosition, command: &Command) {
        let mut skips = lock(&self.skips);
        let marks = skips.entry((record.partition, record.offset)).or_default();
        if marks.iter().any(|(topic, _)| *topic == record.topic) {
            return;
        }
        marks.push((record.topic.clone(), command.clone()));
        self.has_skips.store(true, Ordering::Relaxed);
        drop(skips);
        if let Some(waiter) = lock(&self.waiting).get(record) {
            waiter.skip.notify_one();
        }
    }

    /// Removes the mark: the skip was withdrawn, or the partition was revoked.
    pub(crate) fn unskip(&self, record: &RecordPosition) {
        let mut skips = lock(&self.skips);
        let place = (record.partition, record.offset);
        if let Some(marks) = skips.get_mut(&place) {
            marks.retain(|(topic, _)| *topic != record.topic);
            if marks.is_empty() {
                skips.remove(&place);
            }
        }
        self.has_skips.store(!skips.is_empty(), Ordering::Relaxed);
    }

    /// Acknowledges the outcome of a skip to every command that has no final outcome yet.
    ///
    /// Several commands may ask for the same record: each is acknowledged.
    pub(crate) fn skip_ended(
        &self,
        record: &RecordPosition,
        outcome: CommandOutcome,
        detail: &str,
    ) {
        let open: Vec<String> = self
            .state()
            .skips()
            .filter(|skip| skip.record == *record)
            .filter(|skip| skip.outcome.is_none_or(|before| !before.is_final()))
            .map(|skip| skip.command.id.clone())
            .collect();
        let partition = Scope::Partition {
            topic: record.topic.clone(),
            partition: record.partition,
        };
        for id in open {
            self.state().set_skip_outcome(&id, outcome);
            self.acknowledge(&id, vec![partition.clone()], outcome, detail);
        }
    }

    /// Starts the next attempt of the records of `scope` that wait in place. Returns their number.
    /// An open breaker still holds them.
    ///
    /// Only records that wait between two attempts. A running attempt is not disturbed.
    pub(crate) fn retry_now(&self, scope: &Scope) -> usize {
        let waiting = lock(&self.waiting);
        let concerned = waiting.iter().filter(|(record, waiter)| {
            scope.has(&record.topic, record.partition, record.offset)
                && waiter.waits.load(Ordering::Relaxed)
        });
        concerned
            .map(|(_, waiter)| waiter.retry.notify_one())
            .count()
    }

    /// The number of records that failed and are neither settled nor released.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Marks a parked record to be dropped when it would start.
    pub(crate) fn drop_parked(&self, epoch: Epoch, offset: i64, command: &Command) {
        let mut drops = lock(&self.drops);
        drops.insert((epoch, offset), command.clone());
        self.has_drops.store(true, Ordering::Relaxed);
    }

    /// Whether this parked record is to be dropped.
    pub(crate) fn is_dropped(&self, epoch: Epoch, offset: i64) -> bool {
        self.has_drops.load(Ordering::Relaxed) && lock(&self.drops).contains_key(&(epoch, offset))
    }

    /// Removes the marks of revoked epochs.
    pub(crate) fn forget_drops(&self, epochs: &[Epoch]) {
        let mut drops = lock(&self.drops);
        drops.retain(|(epoch, _), _| !epochs.contains(epoch));
        self.has_drops.store(!drops.is_empty(), Ordering::Relaxed);
    }

    /// Takes the command that requested to drop this parked record.
    pub(crate) fn take_drop(&self, epoch: Epoch, offset: i64) -> Option<Command> {
        if !self.has_drops.load(Ordering::Relaxed) {
            return None;
        }
        let mut drops = lock(&self.drops);
        let command = drops.remove(&(epoch, offset));
        self.has_drops.store(!drops.is_empty(), Ordering::Relaxed);
        command
    }

    /// Sets the ids of assigned topics.
    pub(crate) fn set_topic_ids<'a>(&self, ids: impl Iterator<Item = (&'a String, TopicId)>) {
        let ids = ids.map(|(topic, id)| (topic.clone(), uuid::Uuid::from_bytes(id).to_string()));
        lock(&self.topic_ids).extend(ids);
    }

    /// The id of an assigned topic. None if the brokers do not report it.
    pub(crate) fn topic_id(&self, topic: &str) -> Option<String> {
        lock(&self.topic_ids).get(topic).cloned()
    }

    /// Sets the member id of acknowledgements.
    pub(crate) fn set_member(&self, id: String) {
        *lock(&self.member) = id;
    }

    /// Queues an acknowledgement. A task writes it to the control topic.
    pub(crate) fn acknowledge(
        &self,
        command: &str,
        partitions: Vec<Scope>,
        outcome: CommandOutcome,
        detail: &str,
    ) {
        let topic_id = match &partitions[..] {
            [Scope::Partition { topic, .. }] => self.topic_id(topic),
            _ => None,
        };
        let ack = Ack {
            topic_id,
            command: command.to_owned(),
            member: lock(&self.member).clone(),
            partitions,
            outcome,
            at: jiff::Timestamp::now(),
            detail: detail.to_owned(),
        };
        self.queue_note(ack.key(), ack.value().map(Some));
    }

    /// Reports to operators that a dependency is down, or (without a reason) that it answers again.
    pub(crate) fn report_outage(&self, dependency: &str, reason: Option<&str>) {
        let status = Status {
            member: lock(&self.member).clone(),
            dependency: dependency.to_owned(),
            reason: reason.unwrap_or_default().to_owned(),
            at: jiff::Timestamp::now(),
        };
        let value = match reason {
            Some(_) => status.value().map(Some),
            None => Ok(None),
        };
        self.queue_note(status.key(), value);
    }

    /// Reports this member's process to operators.
    pub(crate) fn announce(&self, info: &MemberInfo) {
        self.queue_note(info.key(), info.value().map(Some));
    }

    /// Removes the report of a member.
    pub(crate) fn forget_member(&self, id: &str) {
        self.queue_note(MemberInfo::key_of(id), Ok(None));
    }

    /// Queues a note, unless notes are discarded. Never blocks.
    fn queue_note(&self, key: String, value: Result<Option<Vec<u8>>, serde_json::Error>) {
        if self.is_muted.load(Ordering::Relaxed) {
            return;
        }
        match (value, &*lock(&self.notes)) {
            (Ok(value), Some(notes)) => {
                // The writer ends only after this sender is closed.
                let _ = notes.send(Note { key, value });
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(key, %error, "a note for the control topic cannot be encoded");
            }
        }
    }

    /// Whether notes are discarded.
    pub(crate) fn is_muted(&self) -> bool {
        self.is_muted.load(Ordering::Relaxed)
    }

    /// Sets whether notes are discarded, because the control topic does not exist.
    pub(crate) fn set_muted(&self, is_muted: bool) {
        self.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Closes the queue of notes.
    pub(crate) fn close(&self) {
        lock(&self.notes).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notifies a failed record of commands.
#[derive(Default)]
struct Waiter {
    /// Whether it waits between attempts: only then a retry reaches it.
    waits: AtomicBool,
    /// The next attempt may start.
    retry: Notify,
    /// A skip was requested.
    skip: Notify,
}

/// A failed record, registered for commands until it is settled or released.
///
/// Created when the retry of a record begins. Its drop removes the registration.
pub(crate) struct RetryRegistration {
    control: Arc<Control>,
    record: Record,
    position: RecordPosition,
    waiter: Arc<Waiter>,
}

impl RetryRegistration {
    /// Registers the record. A registration of the same position, from an earlier assignment, is
    /// replaced.
    pub(crate) fn new(control: &Arc<Control>, record: &Record) -> Self {
        let registration = Self {
            control: Arc::clone(control),
            record: record.clone(),
            position: position(record),
            waiter: Arc::default(),
        };
        let waiter = Arc::clone(&registration.waiter);
        lock(&control.waiting).insert(registration.position.clone(), waiter);
        registration
    }

    /// Waits until a command skips the record. Cancel-safe.
    pub(crate) async fn skipped(&self) -> Command {
        loop {
            if self.control.has_skips()
                && let Some(command) = self.control.skip_of(&self.record)
            {
                return command;
            }
            self.waiter.skip.notified().await;
        }
    }

    /// Waits for `until`, or until a command requests the next attempt.
    pub(crate) async fn wait_unless_retried(&self, until: impl Future<Output = ()>) {
        self.waiter.waits.store(true, Ordering::Relaxed);
        tokio::select! {
            () = until => {}
            () = self.waiter.retry.notified() => {}
        }
        self.waiter.waits.store(false, Ordering::Relaxed);
    }
}

impl Drop for RetryRegistration {
    fn drop(&mut self) {
        let mut waiting = lock(&self.control.waiting);
        // The same record, redelivered under a new assignment, may have replaced the entry.
        if waiting
            .get(&self.position)
            .is_some_and(|waiter| Arc::ptr_eq(waiter, &self.waiter))
        {
            waiting.remove(&self.position);
        }
    }
}

/// The position of a record.
pub(crate) fn position(record: &Record) -> RecordPosition {
    RecordPosition {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
    }
}

/// A record for the control topic: an acknowledgement or a report.
pub(crate) struct Note {
    key: String,
    /// None writes a tombstone.
    value: Option<Vec<u8>>,
}

/// How long an idle producer of notes is kept. Notes are rare, and a producer costs threads and
/// connections.
const PRODUCER_KEPT: Duration = Duration::from_secs(30);

/// Writes notes one after the other, with a producer that is created on demand. Ends after the
/// queue was closed and its last note was written; the run aborts it if that takes long.
pub(crate) async fn write_notes(
    group: String,
    kafka: KafkaConfig,
    mut notes: UnboundedReceiver<Note>,
) {
    let mut publisher = None;
    loop {
        let next = match publisher {
            Some(_) => tokio::time::timeout(PRODUCER_KEPT, notes.recv()).await,
            None => Ok(notes.recv().await),
        };
        let note = match next {
            Ok(Some(note)) => note,
            Ok(None) => return,
            Err(_) => {
                publisher = None;
                continue;
            }
        };
        let key = note.key.clone();
        if let Err(error) = write_note(&group, &kafka, &mut publisher, note).await {
            // The command is in force anyway. Only its author receives no acknowledgement.
            tracing::warn!(group, key, %error, "a note cannot be written to the control topic");
        }
    }
}

/// Writes one note, with a new producer if the last one was dropped or failed for good.
async fn write_note(
    group: &str,
    kafka: &KafkaConfig,
    publisher: &mut Option<Publisher>,
    note: Note,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if publisher.is_none() {
        // Notes that are unsent at the end of the run are dropped: they would only arrive late.
        let made = Publisher::new(kafka, PublisherSettings::new(group))?;
        *publisher = Some(made.expendable());
    }
    let record = OutgoingRecord {
        topic: control_topic(group),
        partition: Some(0),
        key: Some(note.key.into()),
        value: note.value.map(Into::into),
        headers: Headers::new(),
        timestamp_ms: None,
    };
    if let Some(made) = &*publisher {
        let written = made.publish_record(record).await;
        if matches!(written, Err(PublishError::Fatal(_))) {
            *publisher = None;
        }
        written?;
    }
    Ok(())
}
