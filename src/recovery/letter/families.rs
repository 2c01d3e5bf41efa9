//! The four families: which header belongs to which, and what each calls what.

use super::{DeadLetter, Family, Values};
use crate::recovery::dead_letter as ours;

/// What the names of each family begin with. A replay's own headers say nothing about a failure.
const PREFIXES: &[(&str, Family)] = &[
    ("__dlq.errors.", Family::Kafka),
    ("evenkeel.dlq.error.", Family::Kafka),
    ("__streams.errors.", Family::Streams),
    ("__connect.errors.", Family::Connect),
    ("kafka_dlt-", Family::Spring),
];

/// The family that a header's name belongs to.
pub(super) fn of(name: &[u8]) -> Option<Family> {
    let belongs = |(prefix, _): &&(&str, Family)| name.starts_with(prefix.as_bytes());
    PREFIXES.iter().find(belongs).map(|(_, family)| *family)
}

/// What the headers of that family say.
pub(super) fn read(family: Family, values: &Values<'_>) -> DeadLetter {
    let letter = match family {
        Family::Kafka => kafka(values),
        Family::Streams => streams(values),
        Family::Connect => connect(values),
        Family::Spring => spring(values),
    };
    DeadLetter {
        family: Some(family),
        ..letter
    }
}

fn kafka(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: values.topic(ours::TOPIC),
        partition: values.partition(ours::PARTITION),
        offset: values.offset(ours::OFFSET),
        group: values.text(ours::GROUP),
        class: values.text(ours::CLASS),
        stage: values.text(ours::STAGE),
        message: values.text(ours::MESSAGE),
        attempts: values.count(ours::DELIVERY_COUNT),
        last_failure: values.time(ours::TIMESTAMP),
        service: values.text(ours::SERVICE),
        instance: values.text(ours::INSTANCE),
        is_reference: values.bytes(ours::REFERENCE) == Some(b"true"),
        ..DeadLetter::default()
    }
}

fn streams(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: values.topic("__streams.errors.topic"),
        partition: values.partition("__streams.errors.partition"),
        offset: values.offset("__streams.errors.offset"),
        class: values.text("__streams.errors.exception"),
        message: values.text("__streams.errors.message"),
        ..DeadLetter::default()
    }
}

fn connect(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: values.topic("__connect.errors.topic"),
        partition: values.partition("__connect.errors.partition"),
        offset: values.offset("__connect.errors.offset"),
        group: values.text("__connect.errors.connector.name"),
        class: values.text("__connect.errors.exception.class.name"),
        stage: values.text("__connect.errors.stage"),
        message: values.text("__connect.errors.exception.message"),
        ..DeadLetter::default()
    }
}

/// Numbers are binary here. The exception that is named first is Spring's wrapper around the cause; of a key that cannot be
/// read it is told under names of its own.
fn spring(values: &Values<'_>) -> DeadLetter {
    let first = |names: [&str; 3]| names.iter().find_map(|name| values.text(name));
    DeadLetter {
        topic: values.topic("kafka_dlt-original-topic"),
        partition: values.int32("kafka_dlt-original-partition"),
        offset: values.int64("kafka_dlt-original-offset"),
        group: values.text("kafka_dlt-original-consumer-group"),
        class: first([
            "kafka_dlt-exception-cause-fqcn",
            "kafka_dlt-exception-fqcn",
            "kafka_dlt-key-exception-fqcn",
        ]),
        message: values
            .text("kafka_dlt-exception-message")
            .or_else(|| values.text("kafka_dlt-key-exception-message")),
        attempts: values.int32("retry_topic-attempts").map(i32::unsigned_abs),
        ..DeadLetter::default()
    }
}
