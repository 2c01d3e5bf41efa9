//! A dead letter of each of Kafka's and of Spring's families, and invalid ones. The other families
//! are in `others`.

mod others;

use super::{DeadLetter, Family};
use crate::event::Headers;
use proptest::prelude::*;

/// The failure in headers that all have a value.
fn read(headers: &[(&str, &[u8])]) -> DeadLetter {
    let headers: Headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), Some(*value)))
        .collect();
    DeadLetter::read(headers.iter())
}

fn owned(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A dead letter of this library, with one header of its event.
const OURS: &[(&str, &[u8])] = &[
    ("ce_id", b"1"),
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"3"),
    ("__dlq.errors.offset", b"42"),
    ("__dlq.errors.group", b"payments"),
    ("__dlq.errors.delivery.count", b"7"),
    ("__dlq.errors.message", b"no total"),
    ("evenkeel.dlq.error.class", b"permanent"),
    ("evenkeel.dlq.error.stage", b"schema"),
    ("evenkeel.dlq.error.timestamp", b"2026-11-21T10:11:12Z"),
    ("evenkeel.dlq.error.service", b"payments-1"),
];

/// A dead letter of Spring's error handler. Numbers are big-endian.
const SPRING: &[(&str, &[u8])] = &[
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", &[0, 0, 0, 3]),
    ("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 0, 42]),
    ("kafka_dlt-original-timestamp", &[0, 0, 1, 0, 0, 0, 0, 0]),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"billing"),
    (
        "kafka_dlt-exception-fqcn",
        b"org.ListenerExecutionFailedException",
    ),
    (
        "kafka_dlt-exception-cause-fqcn",
        b"java.lang.IllegalStateException",
    ),
    ("kafka_dlt-exception-message", b"Listener failed"),
    ("retry_topic-attempts", &[0, 0, 0, 4]),
];

#[test]
fn a_dead_letter_of_ours_is_read() {
    let failed = "2026-11-21T10:11:12Z".parse().ok();
    let expected = DeadLetter {
        family: Some(Family::Kafka),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        group: owned("payments"),
        class: owned("permanent"),
        stage: owned("schema"),
        message: owned("no total"),
        attempts: Some(7),
        first_failure: failed,
        last_failure: failed,
        service: owned("payments-1"),
        instance: None,
        replay_count: 0,
        is_reference: false,
        is_bare: false,
    };
    assert_eq!(read(OURS), expected);
}

#[test]
fn a_dead_letter_of_kafka_streams_is_read() {
    let letter = read(&[
        (
            "__streams.errors.exception",
            b"org.apache.kafka.StreamsException",
        ),
        ("__streams.errors.stacktrace", b"at org.apache"),
        ("__streams.errors.message", b"division by zero"),
        ("__streams.errors.topic", b"orders"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"42"),
    ]);
    let expected = DeadLetter {
        family: Some(Family::Streams),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        class: owned("org.apache.kafka.StreamsException"),
        message: owned("division by zero"),
        ..DeadLetter::default()
    };
    assert_eq!(letter, expected);
}

#[test]
fn a_dead_letter_of_kafka_connect_is_read() {
    let letter = read(&[
        ("__connect.errors.topic", b"orders"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.connector.name", b"warehouse"),
        ("__connect.errors.task.id", b"0"),
        ("__connect.errors.stage", b"VALUE_CONVERTER"),
        ("__connect.errors.class.name", b"org.JsonConverter"),
        (
            "__connect.errors.exception.class.name",
            b"org.DataException",
        ),
        ("__connect.errors.exception.message", b"not JSON"),
    ]);
    let expected = DeadLetter {
        family: Some(Family::Connect),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        group: owned("warehouse"),
        class: owned("org.DataException"),
        stage: owned("VALUE_CONVERTER"),
        message: owned("not JSON"),
        ..DeadLetter::default()
    };
    assert_eq!(letter, expected);
}

#[test]
fn a_dead_letter_of_spring_is_read() {
    let expected = DeadLetter {
        family: Some(Family::Spring),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        group: owned("billing"),
        class: owned("java.lang.IllegalStateException"),
        message: owned("Listener failed"),
        attempts: Some(3),
        ..DeadLetter::default()
    };
    assert_eq!(read(SPRING), expected);
    let unreadable_key = read(&[
        ("kafka_dlt-key-exception-fqcn", b"DeserializationException"),
        ("kafka_dlt-key-exception-message", b"not a number"),
    ]);
    assert_eq!(unreadable_key.class, owned("DeserializationException"));
    assert_eq!(unreadable_key.message, owned("not a number"));
}

const RETRYABLE: &[(&str, &[u8])] = &[
    ("kafka_original-topic", b"orders"),
    ("kafka_original-partition", &[0, 0, 0, 3]),
    ("kafka_original-offset", &[0, 0, 0, 0, 0, 0, 0, 42]),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("retry_topic-attempts", &[0, 0, 0, 2]),
    ("retry_topic-attempts", &[0, 0, 0, 4]),
    (
        "kafka_exception-fqcn",
        b"org.ListenerExecutionFailedException",
    ),
    (
        "kafka_exception-cause-fqcn",
        b"java.lang.IllegalStateException",
    ),
    ("kafka_exception-message", b"Listener failed"),
];

#[test]
fn a_dead_letter_of_springs_retry_topics_is_read() {
    let read_of = |headers: &[(&str, &[u8])]| read(headers);
    assert_eq!(read_of(RETRYABLE), read(SPRING));
    let of_key = read(&[
        ("kafka_key-exception-fqcn", b"DeserializationException"),
        ("kafka_key-exception-message", b"not a number"),
    ]);
    assert_eq!(of_key.class, owned("DeserializationException"));
    assert_eq!(of_key.message, owned("not a number"));
    // In one byte, as before 2.8, and without retry topics.
    assert_eq!(
        read(&[
            ("kafka_original-topic", b"t"),
            ("retry_topic-attempts", &[5])
        ])
        .attempts,
        Some(4)
    );
    let delivered: &[(&str, &[u8])] = &[
        ("kafka_dlt-original-topic", b"t"),
        ("kafka_deliveryAttempt", &[0, 0, 0, 6]),
    ];
    assert_eq!(read(delivered).attempts, Some(6));
}

#[test]
fn the_later_of_springs_two_recoverers_counts() {
    let later: &[(&str, &[u8])] = &[
        ("kafka_dlt-original-topic", b"orders-dlt"),
        ("kafka_dlt-exception-fqcn", b"java.net.ConnectException"),
    ];
    let letter = read(&[RETRYABLE, later].concat());
    assert_eq!(
        (letter.topic, letter.class),
        (owned("orders-dlt"), owned("java.net.ConnectException"))
    );
    let letter = read(&[later, RETRYABLE].concat());
    assert_eq!((letter.topic, letter.partition), (owned("orders"), Some(3)));
}

/// Dead letters of Kafka's share groups have none of the record's headers, and by default neither
/// key nor value.
#[test]
fn share_groups_dead_letters_are_bare_and_ours_are_not() {
    let of_kafka: Vec<_> = OURS
        .iter()
        .copied()
        .filter(|(name, _)| name.starts_with("__dlq.errors."))
        .collect();
    assert!(read(&of_kafka).is_bare);
    assert!(!read(OURS).is_bare);
    assert!(!read(&[]).is_bare);
}

#[test]
fn a_record_without_failure_headers_is_no_dead_letter() {
    assert_eq!(read(&[]), DeadLetter::default());
    let replayed = read(&[("ce_id", b"1"), ("evenkeel.dlq.replay-count", b"2")]);
    assert_eq!((replayed.family, replayed.replay_count), (None, 2));
}

#[test]
fn numbers_that_cannot_be_are_left_out_and_counts_clamped() {
    let check = |name: &str, value: &[u8], seen: fn(&DeadLetter) -> Option<i64>, expected| {
        let letter = read(&[(name, value)]);
        assert_eq!(seen(&letter), expected, "{name} {value:?}");
    };
    let partition = |letter: &DeadLetter| letter.partition.map(i64::from);
    let offset = |letter: &DeadLetter| letter.offset;
    let attempts = |letter: &DeadLetter| letter.attempts.map(i64::from);
    let replays = |letter: &DeadLetter| Some(i64::from(letter.replay_count));
    for bad in [
        &b""[..],
        b"-1",
        b"x",
        b"\xff\xfe",
        b"1.5",
        b" 1",
        b"9223372036854775808",
    ] {
        check("__dlq.errors.partition", bad, partition, None);
        check("__dlq.errors.offset", bad, offset, None);
    }
    for bad in [&b""[..], b"-1", b"x", b"\xff"] {
        check("__dlq.errors.delivery.count", bad, attempts, None);
        check("evenkeel.dlq.replay-count", bad, replays, Some(0));
    }
    let largest = Some(i64::from(u32::MAX));
    for huge in [&b"9223372036854775808"[..], &[b'9'; 1000]] {
        check("__dlq.errors.delivery.count", huge, attempts, largest);
        check("evenkeel.dlq.replay-count", huge, replays, largest);
    }
    for bad in [
        &b""[..],
        &[0],
        &[0, 0, 0],
        &[0xff; 4],
        &[0x80, 0, 0, 0],
        b"00003",
    ] {
        check("kafka_dlt-original-partition", bad, partition, None);
    }
    for bad in [
        &[0; 7][..],
        &[0; 9],
        &[0xff; 8],
        &[0x80, 0, 0, 0, 0, 0, 0, 0],
    ] {
        check("kafka_dlt-original-offset", bad, offset, None);
    }
    let last = [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    check("kafka_dlt-original-offset", &last, offset, Some(i64::MAX));
}

#[test]
fn invalid_topics_and_times_are_ignored() {
    for bad in [&b""[..], b"a b", b"\xff", b"..", b"../etc", &[b'x'; 250]] {
        assert_eq!(read(&[("__dlq.errors.topic", bad)]).topic, None);
    }
    for bad in [&b""[..], b"yesterday", b"\xff", b"999999-01-01T00:00:00Z"] {
        let letter = read(&[("evenkeel.dlq.error.timestamp", bad)]);
        assert_eq!((letter.first_failure, letter.last_failure), (None, None));
    }
}

#[test]
fn text_that_is_not_utf_8_is_shown_as_such() {
    let letter = read(&[
        ("__dlq.errors.message", b"bad \xff byte"),
        ("__dlq.errors.group", b""),
    ]);
    assert_eq!(letter.message, owned("bad \u{fffd} byte"));
    assert_eq!(letter.group, None);
}

#[test]
fn of_several_headers_and_families_the_last_counts() {
    let twice = read(&[("__dlq.errors.offset", b"1"), ("__dlq.errors.offset", b"2")]);
    assert_eq!(twice.offset, Some(2));
    let spring_then_ours = read(&[SPRING, OURS].concat());
    assert_eq!(spring_then_ours.family, Some(Family::Kafka));
    assert_eq!(spring_then_ours.group, owned("payments"));
    let ours_then_spring = read(&[OURS, SPRING].concat());
    assert_eq!(ours_then_spring.family, Some(Family::Spring));
    assert_eq!(ours_then_spring.stage, None);
}

#[test]
fn the_first_failure_is_what_replays_handed_on() {
    let mut headers = vec![("evenkeel.dlq.first-failure", &b"2026-01-01T00:00:00Z"[..])];
    headers.extend(OURS);
    let letter = read(&headers);
    assert_eq!(letter.first_failure, "2026-01-01T00:00:00Z".parse().ok());
    assert_eq!(letter.last_failure, "2026-11-21T10:11:12Z".parse().ok());
}

proptest! {
    #[test]
    fn any_values_are_read(
        values in proptest::collection::vec((0..40_usize, any::<Option<Vec<u8>>>()), 0..20),
    ) {
        let names: Vec<&str> = OURS.iter().chain(SPRING).chain(RETRYABLE).map(|(name, _)| *name).collect();
        let mut headers = Headers::new();
        for (name, value) in &values {
            headers.push(names[name % names.len()], value.as_deref());
        }
        let letter = DeadLetter::read(headers.iter());
        prop_assert!(letter.partition.is_none_or(|partition| partition >= 0));
        prop_assert!(letter.offset.is_none_or(|offset| offset >= 0));
    }
}
