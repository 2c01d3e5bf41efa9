//! Detects partitions from which no record arrives although their end offset advances.
//!
//! librdkafka drops some damaged responses without an error, and fetches them again for ever. The
//! partition then looks idle. It is suspected if its end is ahead of the next offset for 30 s
//! although the client had nothing else to deliver, and another client confirms it by a read of
//! that place. Open transactions look the same from here and are cleared by that read.
//!
//! | the other client finds | then |
//! |---|---|
//! | a damaged batch | its partition is blocked, as if the client had reported it |
//! | readable records or a control batch | the place is cleared: it is not asked about again |
//! | no answer | the time of silence starts again |

use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::state::offset_tracker::Epoch;
use crate::kafka::native::cached_watermarks;
use crate::kafka::unreadable::silent_extent;
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How long no record has arrived from a partition until it is suspected.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How often the partitions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the confirmation may take: each read of a damaged batch waits until its timeout.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(120);

/// Watches for silent partitions.
pub(crate) struct SilentPartitions {
    kafka: KafkaConfig,
    /// When the partitions were checked last.
    checked_at: Instant,
    /// When the client last had no further message.
    drained_at: Instant,
    /// The next offset of each partition with records to come, and since when it has not changed.
    positions: HashMap<Epoch, (i64, Instant)>,
    /// The partition that is being confirmed. At most one.
    suspects: Vec<Suspect>,
    /// Next offsets of partitions that are silent for a good reason, such as an open transaction.
    cleared: HashMap<Epoch, i64>,
}

/// A partition that another client is reading. It answers none if the batch can be read.
struct Suspect {
    epoch: Epoch,
    batch: UnreadableBatch,
    answer: Receiver<Result<Option<Range<i64>>, KafkaError>>,
}

/// A batch that was found to be damaged inside.
pub(crate) struct DamagedBatch {
    pub(crate) epoch: Epoch,
    pub(crate) batch: UnreadableBatch,
    pub(crate) range: Range<i64>,
}

impl SilentPartitions {
    /// No partition is suspected.
    pub(crate) fn new(kafka: &KafkaConfig) -> Self {
        Self {
            kafka: kafka.clone(),
            checked_at: Instant::now(),
            drained_at: Instant::now(),
            positions: HashMap::new(),
            suspects: Vec::new(),
            cleared: HashMap::new(),
        }
    }

    /// Notes that the client had no further message.
    pub(crate) fn note_drained(&mut self, now: Instant) {
        self.drained_at = now;
    }

    /// Checks the partitions at an interval. Returns the batches that are confirmed to be damaged.
    ///
    /// A partition that is held, gated or blocked is silent for a known reason.
    pub(crate) fn check(
        &mut self,
        consumer: &BaseConsumer<RebalanceContext>,
        is_known: impl Fn(Epoch) -> bool,
    ) -> Vec<DamagedBatch> {
        if self.checked_at.elapsed() < CHECK_INTERVAL {
            return Vec::new();
        }
        self.checked_at = Instant::now();
        let mut silent = Vec::new();
        let mut before = std::mem::take(&mut self.positions);
        for assigned in consumer.context().assignments().all() {
            let (partition, epoch) = (&assigned.partition, assigned.partition.epoch);
            let is_stopped = assigned.held.is_some() || assigned.is_gated || assigned.is_unreadable;
            if is_stopped || is_known(epoch) {
                continue;
            }
            let number = partition.partition;
            let Some((low, high)) = cached_watermarks(consumer, &partition.topic, number) else {
                continue;
            };
            let position = assigned.next.or(assigned.committed).unwrap_or(low).max(low);
            // At the reported end no record is to come, even if a transaction is open there.
            if position >= high || assigned.ended_at.is_some_and(|end| end >= position) {
                continue;
            }
            let since = match before.remove(&epoch) {
                Some((at, since)) if at == position => since,
                _ => self.checked_at,
            };
            self.positions.insert(epoch, (position, since));
            let is_cleared = self.cleared.get(&epoch) == Some(&position);
            let silent_for = self.drained_at.saturating_duration_since(since);
            if silent_for >= SILENT_AFTER && !is_cleared {
                let topic = partition.topic.to_string();
                silent.push((epoch, UnreadableBatch::silent(topic, number, position)));
            }
        }
        let positions = &self.positions;
        self.cleared
            .retain(|epoch, _| positions.contains_key(epoch));
        for (epoch, batch) in silent {
            self.start_confirmation(epoch, batch);
        }
        self.take_confirmed()
    }

    /// Starts the confirmation, on a thread of its own: it blocks for up to two minutes.
    fn start_confirmation(&mut self, epoch: Epoch, batch: UnreadableBatch) {
        // One client at a time: an unreachable broker makes all its partitions silent.
        if !self.suspects.is_empty() {
            return;
        }
        let (answer, answered) = channel();
        let (kafka, suspected) = (self.kafka.clone(), batch.clone());
        let confirm = move || {
            // The run may have ended meanwhile.
            let _ = answer.send(silent_extent(&kafka, &suspected, CONFIRM_TIMEOUT));
        };
        let thread = std::thread::Builder::new().name("evenkeel-extent".to_owned());
        match thread.spawn(confirm) {
            Ok(_) => self.suspects.push(Suspect {
                epoch,
                batch,
                answer: answered,
            }),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no thread to check a partition from which no record arrives"
                )
            }
        }
    }

    /// The confirmed batches of partitions whose next offset has not changed.
    ///
    /// An answer for a partition that has moved on, or was revoked, counts for nothing.
    fn take_confirmed(&mut self) -> Vec<DamagedBatch> {
        let (mut found, positions) = (Vec::new(), &mut self.positions);
        let cleared = &mut self.cleared;
        self.suspects.retain(|suspect| {
            let (epoch, offset) = (suspect.epoch, suspect.batch.offset);
            let range = match suspect.answer.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Ok(Ok(None)) => {
                    cleared.insert(epoch, offset);
                    None
                }
                Ok(Ok(range)) => range,
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => None,
            };
            match (range, positions.remove(&epoch)) {
                (Some(range), Some((position, _))) if position == offset => {
                    found.push(DamagedBatch {
                        epoch,
                        batch: suspect.batch.clone(),
                        range,
                    })
                }
                // The time of silence starts again.
                _ => {}
            }
            false
        });
        found
    }
}
