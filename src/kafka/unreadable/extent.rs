//! Batches on the log that the client cannot read: damaged, or compressed by a codec that it does
//! not know.
//!
//! Finds where such a batch ends. Knows no group.
//!
//! The client reports at most where a batch begins. But a read at any offset inside of a batch
//! fetches the whole batch and fails, and a read after it succeeds. That is monotonic, so the end
//! is found by a search that doubles its step until it is outside and then halves the interval. A
//! batch of n records takes about 2 log2(n) reads.
//!
//! A batch that is damaged inside, behind an intact header, may return neither record nor error
//! unless `check.crcs` is set. Then silence counts as inside, after a wait, and a request for the
//! partition's ends makes sure that the broker itself answers.

use super::batch::{UnreadableBatch, is_unreadable};
use crate::kafka::error::connection_fault::LastFault;
use crate::kafka::error::failed;
use crate::kafka::log::next_event;
use crate::kafka::native::{ForwardedQueue, Login, Message, Messages, forward, logged_in};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client that reads at an offset waits for a record before the offset counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(4);

impl UnreadableBatch {
    /// The offsets of this batch, from [`UnreadableBatch::offset`] on. The client does not report
    /// its end: reads at later offsets find the next readable record. Unreadable batches behind it
    /// count as part of it if the client does not report where a batch begins.
    ///
    /// Blocks the calling thread for as long as that takes, up to `timeout`.
    ///
    /// # Errors
    /// Returns an error if the client cannot be created, or the end is not found in time.
    pub fn extent(&self, kafka: &KafkaConfig, timeout: Duration) -> Result<Range<i64>, KafkaError> {
        let mut probe = Probe::new(kafka, self, timeout)?;
        let (_, high) = probe.watermarks()?;
        let end = first_outside(self.offset, high, |offset| probe.is_inside(offset))?;
        Ok(self.offset..end)
    }
}

/// [`UnreadableBatch::extent`] for a batch that returns nothing. None if it does return a record.
pub(crate) fn silent_extent(
    kafka: &KafkaConfig,
    batch: &UnreadableBatch,
    timeout: Duration,
) -> Result<Option<Range<i64>>, KafkaError> {
    let mut probe = Probe::new(kafka, batch, timeout)?;
    probe.silent_after = Some(SILENT_AFTER);
    let (_, high) = probe.watermarks()?;
    if !probe.is_inside(batch.offset)? {
        return Ok(None);
    }
    let end = first_outside(batch.offset, high, |offset| probe.is_inside(offset))?;
    Ok(Some(batch.offset..end))
}

/// The first offset after `first` that is outside, at most `high`. The search doubles its steps,
/// then halves them.
fn first_outside<E>(
    first: i64,
    high: i64,
    mut is_inside: impl FnMut(i64) -> Result<bool, E>,
) -> Result<i64, E> {
    let (mut inside, mut step) = (first, 1);
    let mut outside = loop {
        let at = inside.saturating_add(step);
        if at >= high {
            break high.max(first + 1);
        }
        if !is_inside(at)? {
            break at;
        }
        (inside, step) = (at, step * 2);
    };
    while outside - inside > 1 {
        let middle = inside + (outside - inside) / 2;
        match is_inside(middle)? {
            true => inside = middle,
            false => outside = middle,
        }
    }
    Ok(outside)
}

/// A client that reads one partition at different offsets.
struct Probe<'a> {
    batch: &'a UnreadableBatch,
    until: Instant,
    /// How long an offset may be silent before it counts as inside, if silence counts at all.
    silent_after: Option<Duration>,
    timeout: Duration,
    messages: Messages,
    // Fields drop in order: both must be dropped before the client.
    _login: Login,
    queue: ForwardedQueue<LastFault>,
    consumer: Arc<BaseConsumer<LastFault>>,
}

impl<'a> Probe<'a> {
    fn new(
        kafka: &KafkaConfig,
        batch: &'a UnreadableBatch,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        // The client requires a group for an assignment. No client joins this one or commits to it.
        let mut client = kafka.consumer("evenkeel-reader")?;
        client
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "1")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "10");
        client.remove("group.instance.id");
        let made = logged_in(&client, LastFault::default());
        let (consumer, login) = made.map_err(|error| failed("creating a reader", error))?;
        let consumer = Arc::new(consumer);
        let queue = ForwardedQueue::new(Arc::clone(&consumer));
        forward(&consumer, &batch.topic, batch.partition, queue.target())
            .map_err(|error| failed("reading a batch", error))?;
        Ok(Self {
            batch,
            until: Instant::now() + timeout,
            silent_after: None,
            timeout,
            messages: Messages::with_capacity(1),
            _login: login,
            queue,
            consumer,
        })
    }

    /// The rest of the time for the whole search.
    fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The partition's first offset, and the one after its last record.
    fn watermarks(&self) -> Result<(i64, i64), KafkaError> {
        self.consumer
            .fetch_watermarks(&self.batch.topic, self.batch.partition, self.remaining())
            .map_err(|error| failed("requesting the ends of a partition", error))
    }

    /// Whether a read at `offset` still returns the batch.
    fn is_inside(&mut self, offset: i64) -> Result<bool, KafkaError> {
        let (topic, partition) = (self.batch.topic.as_str(), self.batch.partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.unassign())
            .and_then(|()| forward(&self.consumer, topic, partition, self.queue.target()))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| failed("reading a batch", error))?;
        let asked = Instant::now();
        while !self.remaining().is_zero() {
            if self
                .silent_after
                .is_some_and(|long| asked.elapsed() >= long)
            {
                // If this request fails too, the broker is silent and not the batch.
                return self.watermarks().map(|_| true);
            }
            // Errors of connections arrive here. The client reconnects by itself.
            let _ = next_event(&self.consumer);
            let wait = self.remaining().min(Duration::from_millis(50));
            self.queue.take(&mut self.messages, 1, wait);
            let answer = self
                .messages
                .iter()
                .find_map(|message| self.is_inside_by(&message));
            if let Some(is_inside) = answer {
                return Ok(is_inside);
            }
        }
        Err(KafkaError::Timeout {
            what: "finding the end of an unreadable batch".to_owned(),
            seconds: self.timeout.as_secs(),
        })
    }

    /// Whether the offset is inside. None if the message does not tell.
    fn is_inside_by(&self, message: &Message<'_>) -> Option<bool> {
        match message.error() {
            None | Some(Code::PartitionEOF) => Some(false),
            // For a damaged batch the broker returns the reader's position, and not the beginning
            // of the batch.
            Some(Code::InvalidMessage | Code::MessageSizeTooLarge) => Some(true),
            Some(code) if is_unreadable(code) => Some(message.offset() <= self.batch.offset),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn the_end_of_a_batch_is_found_in_few_looks() {
        for (first, last, high) in [
            (0, 0, 1),
            (5, 5, 9),
            (5, 11, 12),
            (5, 11, 13),
            (7, 100_006, 1 << 40),
            (0, 3, 4),
        ] {
            let mut looks = 0;
            let Ok(end) = first_outside(first, high, |offset| {
                looks += 1;
                assert!((first + 1..high).contains(&offset), "{offset}");
                Ok::<_, Infallible>(offset <= last)
            });
            assert_eq!(end, last + 1);
            assert!(looks <= 36, "{looks}");
        }
    }
}
