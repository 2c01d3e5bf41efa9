//! A dead letter of each family except Kafka's, this library's and Spring Kafka's.

use super::*;

/// Names as in `KafkaMessageChannelBinder` of Spring Cloud Stream. Numbers are text in other
/// systems that adopted the names.
#[test]
fn a_dead_letter_of_spring_cloud_stream_is_read() {
    let letter = |partition: &[u8], offset: &[u8]| {
        read(&[
            ("x-original-topic", b"orders"),
            ("x-original-partition", partition),
            ("x-original-offset", offset),
            ("x-exception-fqcn", b"java.lang.IllegalStateException"),
            ("x-exception-message", b"no card"),
        ])
    };
    let expected = DeadLetter {
        family: Some(Family::SpringCloud),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        class: owned("java.lang.IllegalStateException"),
        message: owned("no card"),
        ..DeadLetter::default()
    };
    assert_eq!(letter(&[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 42]), expected);
    assert_eq!(letter(b"3", b"42"), expected);
}

/// Names as in `KafkaDeadLetterQueue` and `KafkaDelayedRetryTopic` of SmallRye.
#[test]
fn a_dead_letter_of_smallrye_is_read() {
    let first: &[(&str, &[u8])] = &[
        (
            "dead-letter-exception-class-name",
            b"java.lang.RuntimeException",
        ),
        ("dead-letter-reason", b"no card"),
        ("dead-letter-topic", b"orders"),
        ("dead-letter-partition", b"3"),
        ("dead-letter-offset", b"42"),
    ];
    let expected = DeadLetter {
        family: Some(Family::SmallRye),
        topic: owned("orders"),
        partition: Some(3),
        offset: Some(42),
        class: owned("java.lang.RuntimeException"),
        message: owned("no card"),
        ..DeadLetter::default()
    };
    assert_eq!(read(first), expected);
    let delayed: Vec<(String, &[u8])> = first
        .iter()
        .map(|(name, value)| (name.replace("dead-letter", "delayed-retry"), *value))
        .chain([("delayed-retry-count".to_owned(), &b"3"[..])])
        .collect();
    let delayed: Vec<(&str, &[u8])> = delayed
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    assert_eq!(
        read(&delayed),
        DeadLetter {
            attempts: Some(3),
            ..expected
        }
    );
}

/// Names as in the strategies of Karafka.
#[test]
fn a_karafka_dead_letter_is_read_with_its_records_key() {
    for family in ["source", "original"] {
        let names = [
            "topic",
            "partition",
            "offset",
            "consumer_group",
            "key",
            "attempts",
        ];
        let values: [&[u8]; 6] = [b"orders", b"3", b"42", b"billing", b"o-1", b"2"];
        let headers: Headers = names
            .iter()
            .zip(values)
            .map(|(name, value)| (format!("{family}_{name}").into_bytes(), value))
            .collect::<Vec<_>>()
            .iter()
            .map(|(name, value)| (&**name, Some(*value)))
            .collect();
        let letter = DeadLetter::read(headers.iter());
        let expected = DeadLetter {
            family: Some(Family::Karafka),
            topic: owned("orders"),
            partition: Some(3),
            offset: Some(42),
            group: owned("billing"),
            attempts: Some(2),
            ..DeadLetter::default()
        };
        assert_eq!(letter, expected);
        assert_eq!(
            letter.original_key(headers.iter(), Some(b"3")),
            Some(&b"o-1"[..])
        );
        // The dead letter was given another key.
        assert_eq!(letter.original_key(headers.iter(), Some(b"o-2")), None);
    }
}

#[test]
fn dead_letters_of_watermill_and_laravel_are_read() {
    let watermill = read(&[
        ("topic_poisoned", b"orders"),
        ("reason_poisoned", b"no card"),
        ("handler_poisoned", b"billing"),
        ("subscriber_poisoned", b"kafka.Subscriber"),
    ]);
    let expected = DeadLetter {
        family: Some(Family::Watermill),
        topic: owned("orders"),
        service: owned("billing"),
        message: owned("no card"),
        ..DeadLetter::default()
    };
    assert_eq!(watermill, expected);
    let laravel = read(&[
        ("kafka_throwable_message", b"no card"),
        ("kafka_throwable_code", b"0"),
        ("kafka_throwable_class_name", b"RuntimeException"),
    ]);
    assert_eq!(
        (laravel.family, laravel.topic),
        (Some(Family::Laravel), None)
    );
    assert_eq!(
        (laravel.class, laravel.message),
        (owned("RuntimeException"), owned("no card"))
    );
}

/// Words that an application may use as well are failure headers only in dead letters of the family
/// that uses them.
#[test]
fn family_specific_names_are_failure_headers_in_that_family_only() {
    let check = |headers: &[(&str, &[u8])], name: &str, expected| {
        let letter = read(headers);
        assert_eq!(
            letter.is_failure_header(name.as_bytes()),
            expected,
            "{:?} {name}",
            letter.family
        );
    };
    let karafka: &[(&str, &[u8])] = &[("source_topic", b"orders"), ("source_consumer_group", b"g")];
    let binder: &[(&str, &[u8])] = &[("x-original-topic", b"orders")];
    check(karafka, "source_topic", true);
    check(OURS, "source_topic", false);
    check(&[("source_topic", b"orders")], "source_topic", false);
    check(binder, "x-original-timestamp-type", true);
    check(binder, "x-original-filename", false);
    check(OURS, "x-original-topic", false);
    for everywhere in [
        "kafka_original-offset",
        "kafka_exception-stacktrace",
        "kafka_key-exception-message",
        "retry_topic-backoff-timestamp",
        "springDeserializerExceptionValue",
        "kafka_deliveryAttempt",
    ] {
        check(OURS, everywhere, true);
    }
}
