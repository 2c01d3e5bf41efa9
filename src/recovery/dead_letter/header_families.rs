//! The families of failure headers: their names and meanings.
//!
//! The names are those in the sources of the writers. Some of them are words that an application
//! may use as well (`source_topic`): they count, and are removed by a replay, only if a name that
//! no other system writes identifies the family.
//!
//! | family | identified by | numbers | knows beside the topic |
//! |---|---|---|---|
//! | Kafka | `__dlq.errors.`, `evenkeel.dlq.error.` | text | position, group, attempts, message |
//! | Streams | `__streams.errors.` | text | position, class, message |
//! | Connect | `__connect.errors.` | text | position, connector, class, stage, message |
//! | Spring | `kafka_dlt-`, `kafka_original-` | binary | position, group, class, attempts |
//! | Spring Cloud | `x-exception-`, `x-original-topic` | either | position, class, message |
//! | SmallRye | `dead-letter-`, `delayed-retry-` | text | position, class, message, attempts |
//! | Karafka | `source_consumer_group` | text | position, group, attempts, key |
//! | Watermill | `reason_poisoned` | – | handler, message |
//! | Laravel | `kafka_throwable_` | – | class and message, not even the topic |
//!
//! A family that is added here needs a prefix in [`IDENTIFYING_PREFIXES`], its other names in [`prefixes`], a
//! reader in [`read`], and a dead letter that its writer has really written in `read_tests`.

use super::details::{DeadLetter, Family};
use super::failure_headers as ours;
use super::values::Values;

/// Prefixes of names that identify each family. The headers of a replay do not describe a failure.
/// The names under `evenkeel.dlq.` that a replay adds are therefore not among them: a replayed
/// record on its way is no dead letter.
const IDENTIFYING_PREFIXES: &[(&str, Family)] = &[
    ("__dlq.errors.", Family::Kafka),
    ("evenkeel.dlq.error.", Family::Kafka),
    ("__streams.errors.", Family::Streams),
    ("__connect.errors.", Family::Connect),
    ("kafka_dlt-", Family::Spring),
    ("kafka_original-", Family::Spring),
    ("kafka_exception-", Family::Spring),
    ("kafka_key-exception-", Family::Spring),
    ("x-exception-", Family::SpringCloud),
    ("x-original-topic", Family::SpringCloud),
    ("dead-letter-", Family::SmallRye),
    ("delayed-retry-", Family::SmallRye),
    ("source_consumer_group", Family::Karafka),
    ("original_consumer_group", Family::Karafka),
    ("reason_poisoned", Family::Watermill),
    ("kafka_throwable_", Family::Laravel),
];

/// The family that the name of a header identifies.
pub(super) fn of(name: &[u8]) -> Option<Family> {
    let tells = |(prefix, _): &&(&str, Family)| name.starts_with(prefix.as_bytes());
    IDENTIFYING_PREFIXES
        .iter()
        .find(tells)
        .map(|(_, family)| *family)
}

/// The prefixes of a family's failure headers, beyond those that are failure headers in any record
/// ([`FAILURE_PREFIXES`](super::failure_headers::FAILURE_PREFIXES)). They are removed by a replay
/// only if the record is a dead letter of this family.
pub(super) fn prefixes(family: Family) -> &'static [&'static str] {
    match family {
        Family::Kafka | Family::Streams | Family::Connect | Family::Spring => &[],
        Family::SpringCloud => &[
            "x-original-topic",
            "x-original-partition",
            "x-original-offset",
            "x-original-timestamp",
            "x-exception-",
        ],
        Family::SmallRye => &["dead-letter-", "delayed-retry-"],
        Family::Karafka => KARAFKA_NAMES,
        Family::Watermill => &[
            "reason_poisoned",
            "topic_poisoned",
            "handler_poisoned",
            "subscriber_poisoned",
        ],
        Family::Laravel => &["kafka_throwable_"],
    }
}

/// Karafka's headers, since 2.5 and before.
const KARAFKA_NAMES: &[&str] = &[
    "source_topic",
    "source_partition",
    "source_offset",
    "source_consumer_group",
    "source_key",
    "source_attempts",
    "source_trace_id",
    "original_topic",
    "original_partition",
    "original_offset",
    "original_consumer_group",
    "original_key",
    "original_attempts",
];

/// The key of the original record, if its dead letter has another key: Karafka's has the number of
/// the partition.
pub(super) fn key<'a>(family: Family, values: &Values<'a>, key: Option<&[u8]>) -> Option<&'a [u8]> {
    if family != Family::Karafka {
        return None;
    }
    let partition = karafka(values, "partition", Values::bytes)?;
    (key == Some(partition))
        .then(|| karafka(values, "key", Values::bytes))
        .flatten()
}

/// Reads the headers of this family.
pub(super) fn read(family: Family, values: &Values<'_>) -> DeadLetter {
    let dead_letter = match family {
        Family::Kafka => kafka(values),
        Family::Streams => streams(values),
        Family::Connect => connect(values),
        Family::Spring => spring(values),
        Family::SpringCloud => spring_cloud(values),
        Family::SmallRye => smallrye(values),
        Family::Karafka => of_karafka(values),
        Family::Watermill => watermill(values),
        Family::Laravel => laravel(values),
    };
    DeadLetter {
        family: Some(family),
        ..dead_letter
    }
}

/// KIP-1191 defines six headers, `__dlq.errors.*`. This library writes them with the same meaning,
/// and its own beside them.
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
        // This library writes its own headers beside these six.
        is_bare: values.all_begin_with("__dlq.errors."),
        ..DeadLetter::default()
    }
}

/// KIP-1034. The exception's header contains its `toString()`: the class, and after a colon the
/// message.
fn streams(values: &Values<'_>) -> DeadLetter {
    let exception = values.text("__streams.errors.exception");
    let class = exception.map(|text| match text.split_once(": ") {
        Some((class, _)) => class.to_owned(),
        None => text,
    });
    DeadLetter {
        topic: values.topic("__streams.errors.topic"),
        partition: values.partition("__streams.errors.partition"),
        offset: values.offset("__streams.errors.offset"),
        class,
        message: values.text("__streams.errors.message"),
        ..DeadLetter::default()
    }
}

/// `errors.deadletterqueue.context.headers.enable` (KIP-298). Numbers are text. The connector takes
/// the place of the group.
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

/// The recoverer of error handlers writes `kafka_dlt-*`. That of `@RetryableTopic` omits `dlt-`,
/// except for the group. If a record has both, as one that failed again on its way out of a retry
/// topic, the origin that was added last counts.
///
/// Numbers are binary. The exception that is named first is Spring's wrapper around the cause. The
/// exception of an unreadable key has its own header names.
fn spring(values: &Values<'_>) -> DeadLetter {
    let origins = ["kafka_dlt-original-topic", "kafka_original-topic"];
    let exceptions = [
        "kafka_dlt-exception-",
        "kafka_dlt-key-exception-",
        "kafka_exception-",
        "kafka_key-exception-",
    ];
    let is_dlt = values.last_that_begins_with(&origins) != Some(1);
    let is_dlt_failure = matches!(
        values.last_that_begins_with(&exceptions),
        None | Some(0 | 1)
    );
    let at = |dlt: bool, name: &str| format!("kafka_{}{name}", if dlt { "dlt-" } else { "" });
    let origin = |name: &str| at(is_dlt, &format!("original-{name}"));
    let failure = |name: &str| at(is_dlt_failure, name);
    let first = |names: &[&str]| names.iter().find_map(|name| values.text(&failure(name)));
    DeadLetter {
        topic: values.topic(&origin("topic")),
        partition: values.int32(&origin("partition")),
        offset: values.int64(&origin("offset")),
        group: values.text("kafka_dlt-original-consumer-group"),
        class: first(&[
            "exception-cause-fqcn",
            "exception-fqcn",
            "key-exception-fqcn",
        ]),
        message: first(&["exception-message", "key-exception-message"]),
        attempts: spring_attempts(values),
        ..DeadLetter::default()
    }
}

/// `retry_topic-attempts` counts the attempt that would have been next. Versions before 2.8 wrote
/// it in one byte.
fn spring_attempts(values: &Values<'_>) -> Option<u32> {
    let next = match values.bytes("retry_topic-attempts") {
        Some([next]) => Some(i32::from(*next)),
        _ => values.int32("retry_topic-attempts"),
    };
    next.map(|next| next.unsigned_abs().saturating_sub(1).max(1))
        .or_else(|| Some(values.int32("kafka_deliveryAttempt")?.unsigned_abs()))
}

/// Spring Cloud Stream's binder writes binary numbers. Other systems that adopted its names write
/// them as text.
fn spring_cloud(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: values.topic("x-original-topic"),
        partition: values
            .partition("x-original-partition")
            .or_else(|| values.int32("x-original-partition")),
        offset: values
            .offset("x-original-offset")
            .or_else(|| values.int64("x-original-offset")),
        class: values.text("x-exception-fqcn"),
        message: values.text("x-exception-message"),
        ..DeadLetter::default()
    }
}

/// Headers of Quarkus and SmallRye. A record that passed through their retry topics names the one
/// on which it failed last.
fn smallrye(values: &Values<'_>) -> DeadLetter {
    let retry = values.last_that_begins_with(&["dead-letter-", "delayed-retry-"]) == Some(1);
    let family = if retry {
        "delayed-retry"
    } else {
        "dead-letter"
    };
    let name = |name: &str| format!("{family}-{name}");
    DeadLetter {
        topic: values.topic(&name("topic")),
        partition: values.partition(&name("partition")),
        offset: values.offset(&name("offset")),
        class: values
            .text(&name("cause-class-name"))
            .or_else(|| values.text(&name("exception-class-name"))),
        message: values.text(&name("reason")),
        attempts: values.count("delayed-retry-count").filter(|_| retry),
        ..DeadLetter::default()
    }
}

/// One of Karafka's headers under its present name, or the one before 2.5.
fn karafka<'a, T>(
    values: &Values<'a>,
    name: &str,
    read: impl Fn(&Values<'a>, &str) -> Option<T>,
) -> Option<T> {
    read(values, &format!("source_{name}")).or_else(|| read(values, &format!("original_{name}")))
}

/// Karafka writes no error: only where the record failed, and how often.
fn of_karafka(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: karafka(values, "topic", Values::topic),
        partition: karafka(values, "partition", Values::partition),
        offset: karafka(values, "offset", Values::offset),
        group: karafka(values, "consumer_group", Values::text),
        attempts: karafka(values, "attempts", Values::count),
        ..DeadLetter::default()
    }
}

/// The poison queue middleware names neither partition nor offset: such a record can be replayed to
/// its topic, and its original cannot be looked up.
fn watermill(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        topic: values.topic("topic_poisoned"),
        service: values.text("handler_poisoned"),
        message: values.text("reason_poisoned"),
        ..DeadLetter::default()
    }
}

/// Without any position: an operator must name the destination of a replay.
fn laravel(values: &Values<'_>) -> DeadLetter {
    DeadLetter {
        class: values.text("kafka_throwable_class_name"),
        message: values.text("kafka_throwable_message"),
        ..DeadLetter::default()
    }
}
