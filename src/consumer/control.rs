//! What the parts of a consumer share of its live control: the state of the control topic, the records to be skipped, the
//! records that wait for their next attempt, and the way of acknowledgements back to the topic.
//!
//! Reads no topic and holds no partition: that is the poll thread's part (`steering`, `pause`).

#[cfg(test)]
mod tests;

use super::engine::Engine;
use super::ledger::Epoch;
use crate::control::{Ack, Command, ControlState, Outcome, Scope, Status, control_topic};
use crate::event::{Headers, OutgoingRecord, Record};
use crate::kafka::KafkaConfig;
use crate::kafka::queue::TopicId;
use crate::publisher::{PublishError, Publisher, PublisherSettings};
use crate::recovery::Position;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Partition and offset: with the topic beside it, a record is looked up without a copy of the topic's name.
type Place = (i32, i64);

/// A consumer's live control.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<ControlState>,
    /// Records of our partitions that are not to be handled.
    skips: Mutex<HashMap<Place, Vec<(String, Command)>>>,
    /// Whether there are any, for those who ask for every record.
    has_skips: AtomicBool,
    /// Parked records that are not to be handled, by their partition's epoch and their offsets in the retry topic.
    drops: Mutex<HashMap<(Epoch, i64), Command>>,
    /// Whether there are any.
    has_drops: AtomicBool,
    /// Records that failed and wait.
    waiting: Mutex<HashMap<Position, Arc<Waiter>>>,
    member: Mutex<String>,
    topic_ids: Mutex<HashMap<String, String>>,
    notes: Mutex<Option<UnboundedSender<Note>>>,
    /// Whether there is no topic to write notes to.
    is_muted: AtomicBool,
}

impl Control {
    /// With what the topic held, and the way for what is written there.
    pub(crate) fn new(state: ControlState) -> (Self, UnboundedReceiver<Note>) {
        let (sender, receiver) = unbounded_channel();
        let control = Self {
            state: Mutex::new(state),
            notes: Mutex::new(Some(sender)),
            ..Self::default()
        };
        (control, receiver)
    }

    /// The state of the topic. Held for moments only, and never across a call into the client.
    pub(crate) fn state(&self) -> MutexGuard<'_, ControlState> {
        lock(&self.state)
    }

    /// Whether an operator has paused that partition.
    pub(crate) fn is_paused(&self, topic: &str, partition: i32) -> bool {
        self.state().pause_of(topic, partition).is_some()
    }

    /// Whether any record is to be skipped.
    pub(crate) fn has_skips(&self) -> bool {
        self.has_skips.load(Ordering::Relaxed)
    }

    /// The command that has this record skipped, if one does. To be asked when [`Control::has_skips`].
    pub(crate) fn skip_of(&self, record: &Record) -> Option<Command> {
        let skips = lock(&self.skips);
        let there = skips.get(&(record.partition(), record.offset()))?;
        let here = there.iter().find(|(topic, _)| topic == record.topic());
        here.map(|(_, command)| command.clone())
    }

    /// From now on the record is skipped when it would start, or when its attempt fails, or at once where it waits.
    pub(crate) fn skip(&self, record: &Position, command: &Command) {
        let mut skips = lock(&self.skips);
        let there = skips.entry((record.partition, record.offset)).or_default();
        if there.iter().any(|(topic, _)| *topic == record.topic) {
            return;
        }
        there.push((record.topic.clone(), command.clone()));
        self.has_skips.store(true, Ordering::Relaxed);
        drop(skips);
        if let Some(waiter) = lock(&self.waiting).get(record) {
            waiter.skip.notify_one();
        }
    }

    /// The record is not to be skipped any more, or not by us.
    pub(crate) fn unskip(&self, record: &Position) {
        let mut skips = lock(&self.skips);
        let place = (record.partition, record.offset);
        if let Some(there) = skips.get_mut(&place) {
            there.retain(|(topic, _)| *topic != record.topic);
            if there.is_empty() {
                skips.remove(&place);
            }
        }
        self.has_skips.store(!skips.is_empty(), Ordering::Relaxed);
    }

    /// Says what became of a record that was to be skipped, to all who asked for it and have not heard the last word.
    pub(crate) fn skip_ended(&self, record: &Position, outcome: Outcome, detail: &str) {
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
            self.state().skip_was(&id, outcome);
            self.acknowledge(&id, vec![partition.clone()], outcome, detail);
        }
    }

    /// Has the records of `scope` that wait in place for their next attempt tried again at once; says how many. A breaker
    /// that is open holds them all the same.
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

    /// Records that failed and are neither settled nor let go.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// From now on this parked record is given up when it would start.
    pub(crate) fn drop_parked(&self, epoch: Epoch, offset: i64, command: &Command) {
        let mut drops = lock(&self.drops);
        drops.insert((epoch, offset), command.clone());
        self.has_drops.store(true, Ordering::Relaxed);
    }

    /// Whether this parked record is to be given up.
    pub(crate) fn is_dropped(&self, epoch: Epoch, offset: i64) -> bool {
        self.has_drops.load(Ordering::Relaxed) && lock(&self.drops).contains_key(&(epoch, offset))
    }

    /// These partitions went: what was to be given up there is not any more.
    pub(crate) fn forget_drops(&self, epochs: &[Epoch]) {
        let mut drops = lock(&self.drops);
        drops.retain(|(epoch, _), _| !epochs.contains(epoch));
        self.has_drops.store(!drops.is_empty(), Ordering::Relaxed);
    }

    /// The command that has this parked record given up, if one does. It is asked for once.
    pub(crate) fn take_drop(&self, epoch: Epoch, offset: i64) -> Option<Command> {
        if !self.has_drops.load(Ordering::Relaxed) {
            return None;
        }
        let mut drops = lock(&self.drops);
        let command = drops.remove(&(epoch, offset));
        self.has_drops.store(!drops.is_empty(), Ordering::Relaxed);
        command
    }

    /// The brokers' ids of topics that were assigned.
    pub(crate) fn set_topic_ids<'a>(&self, ids: impl Iterator<Item = (&'a String, TopicId)>) {
        let ids = ids.map(|(topic, id)| (topic.clone(), uuid::Uuid::from_bytes(id).to_string()));
        lock(&self.topic_ids).extend(ids);
    }

    /// The id of an assigned topic, where the brokers tell.
    pub(crate) fn topic_id(&self, topic: &str) -> Option<String> {
        lock(&self.topic_ids).get(topic).cloned()
    }

    /// The id under which acknowledgements are written.
    pub(crate) fn set_member(&self, id: String) {
        *lock(&self.member) = id;
    }

    /// Writes an acknowledgement, in the background.
    pub(crate) fn acknowledge(
        &self,
        command: &str,
        partitions: Vec<Scope>,
        outcome: Outcome,
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
        self.note(ack.key(), ack.value().map(Some));
    }

    /// Says to the group's operators that a dependency is down, or with no reason that it answers again.
    pub(crate) fn down(&self, dependency: &str, reason: Option<&str>) {
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
        self.note(status.key(), value);
    }

    fn note(&self, key: String, value: Result<Option<Vec<u8>>, serde_json::Error>) {
        if self.is_muted.load(Ordering::Relaxed) {
            return;
        }
        match (value, &*lock(&self.notes)) {
            (Ok(value), Some(notes)) => {
                // Who writes them ends after this end is closed.
                let _ = notes.send(Note { key, value });
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(key, %error, "a note for the control topic cannot be written");
            }
        }
    }

    /// Whether there is no topic to write to.
    pub(crate) fn set_muted(&self, is_muted: bool) {
        self.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Nothing is written any more.
    pub(crate) fn close(&self) {
        lock(&self.notes).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a record that failed hears of commands.
#[derive(Default)]
struct Waiter {
    waits: AtomicBool,
    retry: Notify,
    skip: Notify,
}

/// A record that failed, as long as it is neither settled nor let go.
pub(crate) struct Waiting {
    engine: Arc<Engine>,
    record: Record,
    position: Position,
    waiter: Arc<Waiter>,
}

impl Waiting {
    pub(crate) fn new(engine: &Arc<Engine>, record: &Record) -> Self {
        let waiting = Self {
            engine: Arc::clone(engine),
            record: record.clone(),
            position: position(record),
            waiter: Arc::default(),
        };
        let waiter = Arc::clone(&waiting.waiter);
        lock(&engine.control.waiting).insert(waiting.position.clone(), waiter);
        waiting
    }

    /// Waits until a command has the record skipped.
    pub(crate) async fn skipped(&self) -> Command {
        loop {
            if self.engine.control.has_skips()
                && let Some(command) = self.engine.control.skip_of(&self.record)
            {
                return command;
            }
            self.waiter.skip.notified().await;
        }
    }

    /// Waits for `until`, or until a command has the record tried again at once.
    pub(crate) async fn unless_retried(&self, until: impl Future<Output = ()>) {
        self.waiter.waits.store(true, Ordering::Relaxed);
        tokio::select! {
            () = until => {}
            () = self.waiter.retry.notified() => {}
        }
        self.waiter.waits.store(false, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = lock(&self.engine.control.waiting);
        // A record that came again under a new assignment may have taken its place.
        if waiting
            .get(&self.position)
            .is_some_and(|waiter| Arc::ptr_eq(waiter, &self.waiter))
        {
            waiting.remove(&self.position);
        }
    }
}

/// Where a record stands.
pub(crate) fn position(record: &Record) -> Position {
    Position {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
    }
}

/// What is written to the control topic: an acknowledgement, or what is down.
pub(crate) struct Note {
    key: String,
    /// None takes back what stood there.
    value: Option<Vec<u8>>,
}

/// Writes notes one after the other, through a producer that is made for the first. Ends when no more can come.
pub(crate) async fn write_notes(
    group: String,
    kafka: KafkaConfig,
    mut notes: UnboundedReceiver<Note>,
) {
    let mut publisher = None;
    while let Some(note) = notes.recv().await {
        let key = note.key.clone();
        if let Err(error) = write_note(&group, &kafka, &mut publisher, note).await {
            // A command is in force all the same; only its author does not hear of it.
            tracing::warn!(group, key, %error, "a note cannot be written to the control topic");
        }
    }
}

async fn write_note(
    group: &str,
    kafka: &KafkaConfig,
    publisher: &mut Option<Publisher>,
    note: Note,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if publisher.is_none() {
        *publisher = Some(Publisher::new(kafka, PublisherSettings::new(group))?);
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
