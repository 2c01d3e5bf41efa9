//! The messages to a worker, and its mailbox.
//!
//! A worker is a task and must not block, so that its mailbox is a list behind a short lock and a
//! waker, not a channel. The worker takes all messages with one lock and one swap of buffers, and a
//! burst of records is one message with one wake-up. The list has no limit of its own; the
//! in-flight limit bounds the records in it.

use crate::consumer::state::offset_tracker::{Epoch, TrackedBatch};
use crate::consumer::state::partition::Partition;
use crate::event::{Record, RecordBatch};
use crate::recovery::parking::Ticket;
use futures_util::task::AtomicWaker;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// A burst of records for one worker, with its tracked batch.
///
/// `records`, `entries` and the entries of `tracker` have the same order: an index means the same
/// record in all three.
pub(crate) struct Burst {
    pub(crate) records: Arc<RecordBatch>,
    pub(crate) tracker: Arc<TrackedBatch>,
    /// For each record, the index of its partition in `partitions` and the hash of its key.
    pub(crate) entries: Vec<BurstEntry>,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// The routing data of a record, so that a worker need not touch the record's bytes.
#[derive(Clone, Copy)]
pub(crate) struct BurstEntry {
    /// An index into the burst's partitions.
    pub(crate) partition: u32,
    /// The hash of the ordering key, which finds the lane.
    pub(crate) hash: u64,
}

/// A parked record that is due, or that follows a due one of its key. It starts in its lane.
pub(crate) struct ParkedRecord {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    /// Its place in the parked set, by which it is started and settled.
    pub(crate) ticket: Ticket,
    /// Whether a drill redelivers it and must receive its settlement.
    pub(crate) is_repetition: bool,
    pub(crate) hash: u64,
}

/// A message to a worker.
pub(crate) enum Message {
    /// Records from the source topics.
    Burst(Burst),
    /// A parked record that is due. It always goes through its lane.
    Parked(ParkedRecord),
    /// These epochs are fenced. The worker drops their waiting records, and answers when none of
    /// their records runs. A worker that has ended drops the sender instead, which counts as an
    /// answer.
    Fence(Vec<Epoch>, mpsc::Sender<()>),
    /// Answer with the handlers that have been running for at least this long.
    ReportStuck(Duration, mpsc::Sender<StuckHandlers>),
    /// The byte limit is reached. Release bursts that are kept for a few of their records.
    Compact,
    /// Handlers may start again, or must not: check the waiting records.
    RecheckPermits,
    /// The last message.
    Close,
}

/// Handlers that have been running for too long.
#[derive(Debug, Default)]
pub(crate) struct StuckHandlers {
    /// How many.
    pub(crate) handlers: usize,
    /// The record of the longest running handler, and for how long it has been running.
    pub(crate) longest: Option<(Record, Duration)>,
}

/// A worker's mailbox. Any thread sends; the worker takes all messages at once. One wake per
/// message.
#[derive(Default)]
pub(crate) struct Mailbox {
    state: Mutex<MailboxState>,
    /// Wakes the worker. It registers itself before it reads the mailbox.
    pub(crate) worker: AtomicWaker,
}

/// The messages that were not taken yet.
#[derive(Default)]
struct MailboxState {
    messages: Vec<Message>,
    /// The worker has ended. New messages are dropped, and with them the senders of their answers.
    is_closed: bool,
}

impl Mailbox {
    /// Adds a message and wakes the worker. Never blocks for long; drops the message if the worker
    /// has ended.
    pub(crate) fn send(&self, message: Message) {
        {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            state.messages.push(message);
        }
        self.worker.wake();
    }

    /// Takes all messages. `messages` must be empty: its capacity is kept for the next ones.
    pub(crate) fn take_into(&self, messages: &mut Vec<Message>) {
        std::mem::swap(messages, &mut self.lock().messages);
    }

    /// Ignores poisoning: the list is whole after each statement.
    fn lock(&self) -> std::sync::MutexGuard<'_, MailboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the mailbox on drop. The worker's task owns it, so that a task that panicked or was
/// aborted leaves no sender waiting for an answer.
pub(crate) struct OpenMailbox(pub(crate) Arc<Mailbox>);

impl Drop for OpenMailbox {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.lock();
            state.is_closed = true;
            std::mem::take(&mut state.messages)
        };
        // Not under the lock: dropping records runs destructors.
        drop(left);
    }
}
