//! The reports of a producer: deliveries, refusals, and errors of its connections.
//!
//! Runs on the producers' own threads. Keeps refused batches for [`SendAlone`] and settles all
//! other records.
//!
//! The reports of a refused batch arrive one record at a time, among those of other batches. Each
//! is kept and leaves its route. The last record to leave a closed route starts the resending, on
//! the thread that reported it.

use super::partitioner::OwnPartitioner;
use crate::kafka::log;
use crate::publisher::buffer::Buffer;
use crate::publisher::delivery::{Delivery, Resend, Route};
use crate::publisher::error::{is_of_batch, is_of_size};
use bytes::Bytes;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Timestamp};
use std::sync::{Arc, Weak};

/// Sends the records of refused batches, each in a batch of its own. The producers' own threads
/// call it; it must not block for long.
pub(in crate::publisher) trait SendAlone: Send + Sync {
    /// Sends the refused records, once no other record of the topic is in flight.
    fn resend(&self, route: &Arc<Route>);
}

/// The context of one producer.
pub(in crate::publisher) struct Reports {
    pub(in crate::publisher) buffer: Arc<Buffer>,
    /// Sends the records of refused batches, as long as the publisher lives: a producer's thread must
    /// not keep the producer for single records alive. None for a producer whose batches are single
    /// records.
    pub(in crate::publisher) alone: Option<Weak<dyn SendAlone>>,
    /// The most bytes of a batch. A larger record is in a batch of its own.
    pub(in crate::publisher) batch_bytes: usize,
    pub(in crate::publisher) partitioner: OwnPartitioner,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.buffer.client_error(&error, reason);
    }
}

impl ProducerContext<OwnPartitioner> for Reports {
    type DeliveryOpaque = Arc<Delivery>;

    fn get_custom_partitioner(&self) -> Option<&OwnPartitioner> {
        self.partitioner.get()
    }

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        let route = Arc::clone(&delivery.route);
        let outcome = match result {
            Ok(message) => {
                let partition = message.partition();
                route.record_written(partition, message.key(), delivery.sequence);
                if self.alone.is_none() {
                    route.record_accepted_alone();
                }
                Ok((partition, message.offset()))
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let was_alone = delivery.bytes >= self.batch_bytes;
                if let Some(alone) = &self.alone
                    && is_of_batch(code)
                    && !was_alone
                    && let Some(alone) = alone.upgrade()
                {
                    let record = resend(message, Arc::clone(&delivery), code);
                    route.refuse(record, is_of_size(code));
                    if route.leave() {
                        alone.resend(&route);
                    }
                    return;
                }
                Err(self.buffer.failure(code, &delivery))
            }
        };
        self.buffer.settle(&delivery, outcome);
        if route.leave() {
            match &self.alone {
                Some(alone) => match alone.upgrade() {
                    Some(alone) => alone.resend(&route),
                    None => self.fail_refused(&route),
                },
                // No batch is refused while single records are sent again: the route opens.
                None => drop(route.take_refused()),
            }
        }
    }
}

impl Reports {
    /// The publisher was dropped: nothing is sent again.
    fn fail_refused(&self, route: &Route) {
        for (record, _) in route.take_refused() {
            let failure = self.buffer.failure(record.code, &record.delivery);
            self.buffer.settle(&record.delivery, Err(failure));
        }
    }
}

/// Copies a refused record. Its partition is kept: a function or hash that depends on the number of
/// partitions could choose another one now.
fn resend(message: &BorrowedMessage<'_>, delivery: Arc<Delivery>, code: Code) -> Resend {
    let timestamp_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) => Some(ms),
        Timestamp::NotAvailable | Timestamp::LogAppendTime(_) => None,
    };
    Resend {
        delivery,
        partition: message.partition(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: message
            .headers()
            .filter(|headers| headers.count() > 0)
            .map(rdkafka::message::BorrowedHeaders::detach),
        timestamp_ms,
        code,
    }
}
