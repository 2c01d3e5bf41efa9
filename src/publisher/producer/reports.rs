//! The reports of a producer: deliveries, refusals, and errors of its connections.
//!
//! Runs on the producers' own threads. Keeps refused batches for [`SendAlone`] and settles all
//! other records.
//!
//! The reports of a refused batch may arrive in parts, among those of other batches. Each record is
//! kept and leaves its route. The last one to leave a closed route starts the resending, on the
//! thread that reported it.

use crate::kafka::log;
use crate::kafka::native::{DeliveryReports, Message};
use crate::publisher::buffer::{Buffer, Burst, Released};
use crate::publisher::delivery::{Delivery, Outcome, Resend, Topic};
use crate::publisher::error::{is_of_batch, is_of_size};
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::{Arc, Weak};

/// The most records that are settled together. More would leave the processor's caches between the
/// accounting and the receipts.
const BURST_RECORDS_MAX: usize = 256;

/// Sends the records of refused batches, each in a batch of its own. The producers' own threads
/// call it; it must not block for long.
pub(in crate::publisher) trait SendAlone: Send + Sync {
    /// Sends the refused records, once no other record of the topic is in flight.
    fn resend(&self, topic: &Topic);
}

/// The context of one producer.
pub(in crate::publisher) struct Reports {
    pub(in crate::publisher) buffer: Arc<Buffer>,
    /// Sends the records of refused batches, as long as the publisher lives: a producer's thread
    /// must not keep the producer for single records alive. None for a producer whose batches are
    /// single records.
    pub(in crate::publisher) alone: Option<Weak<dyn SendAlone>>,
    /// The most bytes of a batch. A larger record is in a batch of its own.
    pub(in crate::publisher) batch_bytes: usize,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.buffer.client_error(&error, reason);
    }
}

/// The reports of one topic that are being collected.
struct Collected {
    topic: Arc<Topic>,
    /// Whether the topic's route is closed, so that it notes written records. A refusal is reported
    /// before the later records of its partition, so it is enough to look at the beginning.
    is_closed: bool,
    burst: Burst,
}

impl Collected {
    fn new(topic: &Arc<Topic>, reports: usize) -> Self {
        Self {
            topic: Arc::clone(topic),
            is_closed: topic.route.is_closed(),
            burst: Burst {
                settled: Vec::with_capacity(reports.min(BURST_RECORDS_MAX)),
                kept: 0,
            },
        }
    }

    /// Whether a record of this topic may be added.
    fn has_room(&self, topic: &Arc<Topic>) -> bool {
        let records = self.burst.settled.len() + self.burst.kept;
        records < BURST_RECORDS_MAX && Arc::ptr_eq(&self.topic, topic)
    }
}

impl Reports {
    /// Settles the records of these reports. The result is to be released after the records are
    /// freed.
    pub(super) fn settle(&self, reports: &mut DeliveryReports<'_, Delivery>) -> Released {
        let mut released = Released::default();
        let mut collected: Option<Collected> = None;
        let mut left = reports.len();
        while let Some((message, delivery)) = reports.next_report() {
            // The client reports each batch by itself, so that its records have one topic.
            if let Some(full) = collected.take_if(|present| !present.has_room(&delivery.topic)) {
                self.finish(full, &mut released);
            }
            let collected = collected.get_or_insert_with(|| Collected::new(&delivery.topic, left));
            left = left.saturating_sub(1);
            if let Some(outcome) = self.outcome(message, &delivery, collected) {
                collected.burst.settled.push((delivery, outcome));
            }
        }
        if let Some(rest) = collected {
            self.finish(rest, &mut released);
        }
        released
    }

    /// The outcome of a record. None if its batch was refused, and the route keeps it.
    fn outcome(
        &self,
        message: Message<'_>,
        delivery: &Arc<Delivery>,
        collected: &mut Collected,
    ) -> Option<Outcome> {
        let route = &delivery.topic.route;
        let Some(code) = message.error() else {
            let partition = message.partition();
            if collected.is_closed {
                route.record_written(partition, message.key(), delivery.sequence);
                if self.alone.is_none() {
                    route.record_accepted_alone();
                }
            }
            return Some(Ok((partition, message.offset())));
        };
        if self.is_sent_again(code, delivery) {
            let record = resend(message, Arc::clone(delivery), code);
            route.refuse(record, is_of_size(code));
            collected.is_closed = true;
            collected.burst.kept += 1;
            return None;
        }
        Some(Err(self.buffer.failure(code, delivery)))
    }

    /// Whether a failed record is to be sent in a batch of its own. Not if it was in one.
    fn is_sent_again(&self, code: Code, delivery: &Delivery) -> bool {
        let has_sender = self
            .alone
            .as_ref()
            .is_some_and(|alone| alone.strong_count() > 0);
        has_sender && is_of_batch(code) && delivery.bytes < self.batch_bytes
    }

    /// Settles collected records. The last ones in flight on a closed route start the resending.
    fn finish(&self, collected: Collected, released: &mut Released) {
        let Collected {
            topic, mut burst, ..
        } = collected;
        if !self.buffer.settle(&topic, &mut burst, released) {
            return;
        }
        match &self.alone {
            Some(alone) => match alone.upgrade() {
                Some(alone) => alone.resend(&topic),
                None => self.fail_refused(&topic),
            },
            // No batch is refused while single records are sent again: the route opens.
            None => drop(topic.route.take_refused()),
        }
    }

    /// The publisher was dropped: nothing is sent again.
    fn fail_refused(&self, topic: &Topic) {
        for (record, _) in topic.route.take_refused() {
            let failure = self.buffer.failure(record.code, &record.delivery);
            if self.buffer.settle_one(&record.delivery, Err(failure)) {
                // The last one was settled: the route opens.
                drop(topic.route.take_refused());
            }
        }
    }
}

/// Keeps a refused record. Its partition stays the same: a function or hash that depends on the
/// number of partitions could choose another one now.
fn resend(message: Message<'_>, delivery: Arc<Delivery>, code: Code) -> Resend {
    Resend {
        delivery,
        partition: message.partition(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.value().map(Bytes::copy_from_slice),
        headers: message.take_headers(),
        code,
    }
}
