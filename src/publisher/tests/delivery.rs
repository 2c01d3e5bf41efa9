//! Where records arrive, and their receipts.

use super::*;
use crate::kafka::admin::Admin;

#[tokio::test]
async fn a_receipt_says_where_the_record_is() {
    let cluster = cluster();
    let topic = topic(&cluster, 4);
    let publisher = publisher(&cluster, &[]);
    let first = publisher
        .publish_record(record(&topic, "k", "1"))
        .await
        .expect("the brokers acknowledge the record");
    let second = publisher
        .publish_record(record(&topic, "k", "2"))
        .await
        .expect("the brokers acknowledge the record");
    assert_eq!((&first.topic, first.offset), (&topic, 0));
    assert_eq!((second.partition, second.offset), (first.partition, 1));
    let read = read_back(&cluster, &second);
    assert_eq!(read.value.as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn bytes_absent_values_and_header_order_survive() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &[]);
    let mut headers = Headers::new();
    headers.push("twice", Some(&[0, 255, 0xc3]));
    headers.push("absent", None);
    headers.push("empty", Some(&[]));
    headers.push("twice", Some(b"again"));
    headers.push_bytes(b"\xff\xfe", Some(b"no text"));
    let tombstone = OutgoingRecord {
        topic: topic.clone(),
        partition: Some(0),
        key: Some(Bytes::from_static(&[0, 0xff])),
        value: None,
        headers: headers.clone(),
        timestamp_ms: Some(1_700_000_000_123),
    };
    let receipt = publisher
        .publish_record(tombstone)
        .await
        .expect("the brokers acknowledge the record");
    let read = read_back(&cluster, &receipt);
    assert_eq!(read.key.as_deref(), Some(&[0, 0xff][..]));
    assert_eq!(read.value, None);
    assert_eq!(read.timestamp_ms, Some(1_700_000_000_123));
    assert!(read.headers == headers, "{:?}", read.headers);
}

/// The result of `org.apache.kafka.common.utils.Utils.murmur2`: hash, made positive, modulo the
/// partition count.
#[tokio::test]
async fn keys_land_where_java_puts_them() {
    // Hashes from Kafka's own unit test of murmur2.
    let java: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];
    const PARTITIONS: i32 = 12;
    let cluster = cluster();
    let topic = topic(&cluster, PARTITIONS);
    let publisher = publisher(&cluster, &[]);
    for (key, hash) in java {
        let receipt = publisher
            .publish_record(record(&topic, key, "v"))
            .await
            .expect("the brokers acknowledge the record");
        let expected = (hash & i32::MAX) % PARTITIONS;
        assert_eq!(receipt.partition, expected, "{key}");
    }
}

/// CRC-32 of the key, modulo the partition count: the default of librdkafka, and so of Python's,
/// Go's and .NET's clients.
#[tokio::test]
async fn keys_land_where_librdkafka_puts_them_by_choice() {
    const PARTITIONS: u32 = 12;
    let cluster = cluster();
    let topic = topic(&cluster, PARTITIONS as i32);
    let publisher = publisher(&cluster, &["partitioner=consistent_random"]);
    for key in ["21", "foobar", "a-little-bit-long-string", "abc", "ö"] {
        let published = publisher.publish_record(record(&topic, key, "v")).await;
        let expected = crc32fast::hash(key.as_bytes()) % PARTITIONS;
        let partition = published.expect("published").partition;
        assert_eq!(partition, expected as i32, "{key}");
    }
}

#[tokio::test]
async fn keys_land_where_the_service_puts_them_by_choice() {
    let cluster = cluster();
    let topic = topic(&cluster, 5);
    let settings = PublisherSettings::new("/test").with_partitioner(Arc::new(|_, key, count| {
        match key.len() as u32 {
            7 => panic!("seven"),
            length => length % (count + 1),
        }
    }));
    let publisher = publisher_with(&cluster, &[], settings);
    let publish = |key: &str| publisher.publish_record(record(&topic, key, "v"));
    for key in ["", "1", "1234", "123456789"] {
        let published = publish(key).await.expect("published");
        assert_eq!(published.partition, key.len() as i32 % 6, "{key:?}");
    }
    // A partition that does not exist, or none at all: the record is refused, the others continue.
    for key in ["12345", "1234567"] {
        let refused = tokio::time::timeout(Duration::from_secs(30), publish(key)).await;
        let refused = refused.expect("at once").expect_err("refused");
        assert!(
            matches!(refused, PublishError::NoPartition { .. }),
            "{refused}"
        );
    }
    let mut keyless = record(&topic, "", "v");
    keyless.key = None;
    publisher
        .publish_record(keyless)
        .await
        .expect("the brokers acknowledge the record");
    assert_eq!(publish("12").await.expect("published").partition, 2);
}

#[tokio::test]
async fn a_flush_waits_for_everything_enqueued() {
    let cluster = cluster();
    let topic = topic(&cluster, 3);
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let admin = Admin::connect(&kafka, LONG)
        .await
        .expect("the admin client connects");
    // Long enough that no record is on the log when a flush without waiting returns.
    let publisher = publisher(&cluster, &["linger.ms=500"]);
    let mut pending = Vec::new();
    for number in 0..500 {
        let record = record(&topic, &number.to_string(), "v");
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    publisher
        .flush(LONG)
        .await
        .expect("every record is sent in time");
    let described = admin.describe_topic(&topic).await.expect("described");
    let on_the_log: i64 = described.partitions.iter().map(|p| p.high).sum();
    assert_eq!(on_the_log, 500);
    publisher.flush(Duration::ZERO).await.expect("nothing left");
    for receipt in pending {
        receipt.await.expect("published");
    }
}

#[tokio::test]
async fn whoever_has_a_receipt_finds_the_buffer_without_the_record() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &[]);
    for _ in 0..200 {
        let record = record(&topic, "k", "v");
        publisher
            .publish_record(record)
            .await
            .expect("the brokers acknowledge the record");
        let left = publisher.flush(Duration::ZERO).await;
        left.expect("nothing pending");
    }
}

#[tokio::test]
async fn a_dropped_receipt_does_not_take_the_record_back() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &[]);
    drop(publisher.enqueue_record(record(&topic, "k", "1")).await);
    publisher
        .flush(LONG)
        .await
        .expect("every record is sent in time");
    let next = publisher
        .publish_record(record(&topic, "k", "2"))
        .await
        .expect("the brokers acknowledge the record");
    assert_eq!(next.offset, 1);
}
