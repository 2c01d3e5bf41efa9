//! Partitions of which nothing comes although they go on.
//!
//! Runs on the poll thread. The client says nothing of a batch that is damaged inside and still decompresses, or is not compressed:
//! it fetches it again and again. What is suspected is confirmed by a client of its own before anybody hears of it.

use super::ledger::Epoch;
use super::rebalance::Member;
use crate::kafka::queue::cached_watermarks;
use crate::kafka::unreadable::silent_extent;
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How long nothing comes of a partition before it is suspected.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How often the partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long confirming it may take: each look at a damaged batch waits for what does not come.
const CONFIRM_WITHIN: Duration = Duration::from_secs(120);

/// Watches for silence.
pub(crate) struct Silence {
    kafka: KafkaConfig,
    looked_at: Instant,
    /// When the client was seen to have nothing more for us.
    drained_at: Instant,
    /// Where each partition with more to come stands, and since when.
    stands: HashMap<Epoch, (i64, Instant)>,
    suspects: Vec<Suspect>,
    /// Where partitions stand of which nothing comes for a good reason, such as an open transaction.
    cleared: HashMap<Epoch, i64>,
}

/// A partition that is being looked at by another client; none for a batch that can be read after all.
struct Suspect {
    epoch: Epoch,
    batch: UnreadableBatch,
    answer: Receiver<Result<Option<Range<i64>>, KafkaError>>,
}

/// A batch that was found to be damaged inside.
pub(crate) struct Found {
    pub(crate) epoch: Epoch,
    pub(crate) batch: UnreadableBatch,
    pub(crate) range: Range<i64>,
}

impl Silence {
    pub(crate) fn new(kafka: &KafkaConfig) -> Self {
        Self {
            kafka: kafka.clone(),
            looked_at: Instant::now(),
            drained_at: Instant::now(),
            stands: HashMap::new(),
            suspects: Vec::new(),
            cleared: HashMap::new(),
        }
    }

    /// The client has nothing more for us at this moment.
    pub(crate) fn drained(&mut self, now: Instant) {
        self.drained_at = now;
    }

    /// Looks at the partitions from time to time; the batches that are confirmed to be damaged.
    pub(crate) fn mind(
        &mut self,
        consumer: &BaseConsumer<Member>,
        is_known: impl Fn(Epoch) -> bool,
    ) -> Vec<Found> {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return Vec::new();
        }
        self.looked_at = Instant::now();
        let mut silent = Vec::new();
        let mut before = std::mem::take(&mut self.stands);
        for assigned in consumer.context().assignments().all() {
            let (partition, epoch) = (&assigned.partition, assigned.partition.epoch);
            let is_still = assigned.held.is_some() || assigned.is_gated || assigned.is_unreadable;
            if is_still || is_known(epoch) {
                continue;
            }
            let number = partition.partition;
            let Some((low, high)) = cached_watermarks(consumer, &partition.topic, number) else {
                continue;
            };
            let stand = assigned.next.or(assigned.committed).unwrap_or(low).max(low);
            // At the end that is told nothing more is to come, be it that a transaction is open there.
            if stand >= high || assigned.ended_at.is_some_and(|end| end >= stand) {
                continue;
            }
            let since = match before.remove(&epoch) {
                Some((at, since)) if at == stand => since,
                _ => self.looked_at,
            };
            self.stands.insert(epoch, (stand, since));
            let is_cleared = self.cleared.get(&epoch) == Some(&stand);
            let silent_for = self.drained_at.saturating_duration_since(since);
            if silent_for >= SILENT_AFTER && !is_cleared {
                let topic = partition.topic.to_string();
                silent.push((epoch, UnreadableBatch::silent(topic, number, stand)));
            }
        }
        let stands = &self.stands;
        self.cleared.retain(|epoch, _| stands.contains_key(epoch));
        for (epoch, batch) in silent {
            self.suspect(epoch, batch);
        }
        self.confirmed()
    }

    fn suspect(&mut self, epoch: Epoch, batch: UnreadableBatch) {
        // One client at a time: a broker that is gone makes all its partitions silent.
        if !self.suspects.is_empty() {
            return;
        }
        let (answer, answered) = channel();
        let (kafka, asked) = (self.kafka.clone(), batch.clone());
        let ask = move || {
            // The run may have ended meanwhile.
            let _ = answer.send(silent_extent(&kafka, &asked, CONFIRM_WITHIN));
        };
        let thread = std::thread::Builder::new().name("evenkeel-extent".to_owned());
        match thread.spawn(ask) {
            Ok(_) => self.suspects.push(Suspect {
                epoch,
                batch,
                answer: answered,
            }),
            Err(error) => {
                tracing::warn!(%error, "no thread to look at a partition of which nothing comes")
            }
        }
    }

    /// What other clients have confirmed, of partitions that still stand where they stood.
    fn confirmed(&mut self) -> Vec<Found> {
        let (mut found, stands) = (Vec::new(), &mut self.stands);
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
            match (range, stands.remove(&epoch)) {
                (Some(range), Some((stand, _))) if stand == offset => found.push(Found {
                    epoch,
                    batch: suspect.batch.clone(),
                    range,
                }),
                // It is waited for as long again.
                _ => {}
            }
            false
        });
        found
    }
}
