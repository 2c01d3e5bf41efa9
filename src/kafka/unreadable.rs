//! Batches on the log that the client cannot read: damaged, or compressed by a codec that it does not know.
//!
//! Owns which of the client's errors stand for one, what they say of its codec, and how far it reaches. Knows no group.

use super::error::failed;
use super::queue::{ForwardedQueue, Message, Messages, forward};
use super::{KafkaConfig, KafkaError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client that reads one offset waits for a record before it counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(4);

/// A batch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBatch {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Its first offset, or where reading stood where the client does not tell it.
    pub offset: i64,
    /// What is wrong with it, and with which codec it is compressed where the client tells it.
    pub cause: String,
}

impl fmt::Display for UnreadableBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            partition,
            offset,
            cause,
        } = self;
        write!(
            f,
            "{topic}/{partition} cannot be read at offset {offset}: {cause}"
        )
    }
}

impl UnreadableBatch {
    /// A batch of which the client gives out nothing and says nothing.
    pub(crate) fn silent(topic: String, partition: i32, offset: i64) -> Self {
        Self {
            topic,
            partition,
            offset,
            cause: "its batch is damaged inside: no record of it comes, and no error (check.crcs=true tells more)"
                .to_owned(),
        }
    }

    /// The batch that an error stands for, if it stands for one.
    pub(crate) fn of(code: Code, message: &Message<'_>) -> Option<Self> {
        let cause = cause(code, &message.error_text())?;
        Some(Self {
            topic: message.topic()?.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            cause,
        })
    }
}

/// Whether the error stands for a batch that reading again does not mend.
pub(crate) fn is_unreadable(code: Code) -> bool {
    matches!(
        code,
        Code::NotImplemented
            | Code::BadCompression
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
    )
}

/// What is wrong with the batch. `text` is what the client says of it.
fn cause(code: Code, text: &str) -> Option<String> {
    let codec = codec(text);
    Some(match (code, codec) {
        (Code::NotImplemented, Some(4)) => {
            "its batch is compressed with zstd, which this build does not know; build with evenkeel's feature zstd"
                .to_owned()
        }
        (Code::NotImplemented, Some(codec)) => {
            format!("its batch is compressed with {}", codec_name(codec))
        }
        (Code::NotImplemented, None) => {
            "its batch is damaged, or of a format that the client does not know".to_owned()
        }
        (Code::BadCompression, Some(codec)) => format!(
            "its batch is compressed with {} and cannot be decompressed: it is damaged",
            codec_name(codec)
        ),
        (Code::BadCompression, None) => "its batch cannot be decompressed: it is damaged".to_owned(),
        (Code::BadMessage, _) => "its batch is damaged: the checksum is another one".to_owned(),
        (Code::InvalidMessage, _) => "the broker says that its batch is damaged".to_owned(),
        (Code::MessageSizeTooLarge, _) => {
            "its batch is damaged, or larger than the client takes in (receive.message.max.bytes)"
                .to_owned()
        }
        _ => return None,
    })
}

/// The codec's number in librdkafka's text: `Decompression (codec 0x4) of message at 5 of 80 bytes failed`.
fn codec(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("codec 0x")?;
    let digits = after.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u32::from_str_radix(digits, 16).ok()
}

fn codec_name(codec: u32) -> String {
    match codec {
        1 => "gzip".to_owned(),
        2 => "snappy".to_owned(),
        3 => "lz4".to_owned(),
        4 => "zstd".to_owned(),
        unknown => format!("codec {unknown}, which Kafka does not define"),
    }
}

/// The offsets that an unreadable batch takes, from `batch.offset` on. The client does not tell where it ends: what follows is
/// found by reading from further offsets. Unreadable batches behind it count as its own where the client tells no batch's
/// beginning.
///
/// Blocks for as long as that takes, up to `timeout`.
///
/// # Errors
/// When the client cannot be made, or does not find out in time.
pub(crate) fn extent(
    kafka: &KafkaConfig,
    batch: &UnreadableBatch,
    timeout: Duration,
) -> Result<Range<i64>, KafkaError> {
    let mut probe = Probe::new(kafka, batch, timeout)?;
    let (_, high) = probe.watermarks()?;
    let end = first_outside(batch.offset, high, |offset| probe.is_inside(offset))?;
    Ok(batch.offset..end)
}

/// [`extent`] for a batch of which nothing comes; none when something does.
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

/// The first offset after `first` that is not inside, at most `high`: with steps that double, then by halves.
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

/// A client that reads one partition from one offset after the other.
struct Probe<'a> {
    batch: &'a UnreadableBatch,
    until: Instant,
    /// After how long without a word an offset counts as inside, where it does at all.
    silent_after: Option<Duration>,
    timeout: Duration,
    messages: Messages,
    queue: ForwardedQueue<rdkafka::consumer::DefaultConsumerContext>,
    consumer: Arc<BaseConsumer>,
}

impl<'a> Probe<'a> {
    fn new(
        kafka: &KafkaConfig,
        batch: &'a UnreadableBatch,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        // The client insists on a group to assign at all; nothing ever joins this one or commits to it.
        let mut client = kafka.consumer("evenkeel-reader")?;
        client
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "1")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "10");
        client.remove("group.instance.id");
        let consumer: BaseConsumer = client
            .create()
            .map_err(|error| failed("creating a reader", error))?;
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
            queue,
            consumer,
        })
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn watermarks(&self) -> Result<(i64, i64), KafkaError> {
        self.consumer
            .fetch_watermarks(&self.batch.topic, self.batch.partition, self.left())
            .map_err(|error| failed("asking for the ends of a partition", error))
    }

    /// Whether what is read from `offset` on is the batch still.
    fn is_inside(&mut self, offset: i64) -> Result<bool, KafkaError> {
        let (topic, partition) = (self.batch.topic.as_str(), self.batch.partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.unassign())
            .and_then(|()| forward(&self.consumer, topic, partition, self.queue.target()))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| failed("reading a batch", error))?;
        let asked = Instant::now();
        while !self.left().is_zero() {
            if self
                .silent_after
                .is_some_and(|long| asked.elapsed() >= long)
            {
                // Without an answer to this one it is the broker that is silent.
                return self.watermarks().map(|_| true);
            }
            // Errors of connections come here; the client connects again by itself.
            let _ = self.consumer.poll(Duration::ZERO);
            let wait = self.left().min(Duration::from_millis(50));
            self.queue.take(&mut self.messages, 1, wait);
            let answer = self
                .messages
                .iter()
                .find_map(|message| self.judge(&message));
            if let Some(is_inside) = answer {
                return Ok(is_inside);
            }
        }
        Err(KafkaError::Timeout {
            what: "finding the end of an unreadable batch".to_owned(),
            seconds: self.timeout.as_secs(),
        })
    }

    /// Whether it is inside; none where the message says nothing of it.
    fn judge(&self, message: &Message<'_>) -> Option<bool> {
        match message.error() {
            None | Some(Code::PartitionEOF) => Some(false),
            // Of a damaged batch the broker tells where reading stood, and not where the batch begins.
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

    #[test]
    fn a_cause_names_the_codec_where_the_client_tells_it() {
        let text = |codec| {
            format!("Decompression (codec {codec}) of message at 5 of 80 bytes failed: Local")
        };
        let check = |code, text: &str, expected: &str| {
            let cause = cause(code, text).expect("it stands for a batch");
            assert!(cause.contains(expected), "{cause}");
        };
        check(Code::NotImplemented, &text("0x4"), "feature zstd");
        check(Code::NotImplemented, &text("0x7"), "codec 7");
        check(Code::NotImplemented, "Unsupported MagicByte 9", "format");
        check(Code::BadCompression, &text("0x1"), "gzip");
        check(Code::BadCompression, "", "decompressed");
        check(Code::BadMessage, "failed CRC32C check", "checksum");
        assert_eq!(cause(Code::TopicAuthorizationFailed, ""), None);
        assert_eq!(codec("codec 0x"), None);
    }

    #[test]
    fn what_stands_for_a_batch_has_a_cause() {
        for code in [
            Code::NotImplemented,
            Code::BadCompression,
            Code::BadMessage,
            Code::InvalidMessage,
            Code::MessageSizeTooLarge,
            Code::PartitionEOF,
            Code::UnknownTopicOrPartition,
        ] {
            assert_eq!(is_unreadable(code), cause(code, "").is_some(), "{code:?}");
        }
    }
}
