//! Hands parked records that are due to the workers.

use super::super::partition::Partition;
use super::super::worker::{Message, ParkedRecord};
use super::fetch::Picked;
use super::follow::Follower;
use super::write;
use crate::recovery::parking::Ticket;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How long a record waits that could not be fetched.
const FETCH_AGAIN_AFTER_MS: i64 = 1_000;

impl Follower {
    /// Hands what is due to the workers.
    pub(super) fn hand_out(&mut self) {
        let now_ms = write::now_ms();
        let mut room = self.room();
        let mut wanted = Vec::new();
        for partition in self.followed.values().flat_map(HashMap::values) {
            let Some(retry) = partition.retry.as_ref().filter(|retry| !retry.is_empty()) else {
                continue;
            };
            let tickets = retry.change(|state| state.take_due(now_ms, room));
            room -= tickets.len();
            if !tickets.is_empty() {
                wanted.push((Arc::clone(partition), tickets));
            }
        }
        if wanted.is_empty() {
            return;
        }
        let fetched = self.fetcher.fetch(&self.engine, &wanted);
        self.settle_missing(&fetched.missing);
        // The fetch may have taken its time.
        let now_ms = write::now_ms();
        for (partition, ticket) in fetched.left.iter().rev() {
            let is_unanswered = fetched.unanswered.contains(&partition.epoch);
            let later_ms = if is_unanswered {
                FETCH_AGAIN_AFTER_MS
            } else {
                0
            };
            let until_ms = now_ms.saturating_add(later_ms);
            if let Some(retry) = &partition.retry {
                retry.change(|state| state.hand_back(*ticket, until_ms));
            }
        }
        self.engine.admitted(fetched.records.len());
        self.engine
            .parking
            .loaded
            .fetch_add(fetched.records.len(), Relaxed);
        for picked in fetched.records {
            let Picked {
                partition,
                ticket,
                record,
                is_repetition,
            } = picked;
            let hash = {
                let routing = &self.engine.routing;
                let seed = routing.seed(&partition.topic);
                routing.hash(
                    seed,
                    partition.partition,
                    record.key(),
                    ticket.offset as u64,
                )
            };
            let worker = self.engine.routing.worker(hash);
            let parked = ParkedRecord {
                record,
                partition,
                ticket,
                is_repetition,
                hash,
            };
            self.engine.workers[worker].send(Message::Parked(parked));
        }
    }

    /// Records that are not on the log any more: somebody deleted them. What waits behind them goes on.
    fn settle_missing(&self, missing: &[(Arc<Partition>, Ticket)]) {
        for (partition, ticket) in missing {
            let Some(retry) = &partition.retry else {
                continue;
            };
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, offset = ticket.offset, "a parked record is not in the retry topic any more: it was deleted there, and is lost");
            retry.change(|state| {
                state.settle(*ticket);
                // It was not the first of its key: it is found missing again in its turn.
                state.hand_back(*ticket, 0);
            });
        }
    }
}
