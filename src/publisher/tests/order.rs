//! Order and back-pressure.

use super::*;
use crate::publisher::buffer_limit::BufferLimit;
use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};

fn small_buffer(bytes_max: usize, records_max: usize) -> PublisherSettings {
    PublisherSettings {
        buffer_bytes_max: bytes_max,
        buffer_records_max: records_max,
        ..PublisherSettings::new("/test")
    }
}

#[tokio::test]
async fn one_key_keeps_its_order_under_back_pressure() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    // A slow broker and room for eight records: almost every call has to wait.
    cluster
        .broker_round_trip_time(-1, Duration::from_millis(2))
        .expect("slow broker");
    let publisher = publisher_with(&cluster, &[], small_buffer(4096, 8));
    let mut receipts = FuturesOrdered::new();
    for number in 0..400_usize {
        // Sizes differ, so that a small record could slip past a large one.
        let value = vec![b'x'; number * 37 % 900];
        let record = record(&topic, "k", value);
        receipts.push_back(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let offsets: Vec<i64> = receipts
        .map(|receipt| receipt.expect("published").offset)
        .collect()
        .await;
    assert_eq!(offsets, (0..400).collect::<Vec<i64>>());
}

#[tokio::test]
async fn concurrent_calls_are_served_in_order_of_first_poll() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster
        .broker_round_trip_time(-1, Duration::from_millis(2))
        .expect("slow broker");
    let publisher = publisher_with(&cluster, &[], small_buffer(4096, 8));
    let calls: FuturesOrdered<_> = (0..400_usize)
        .map(|number| {
            let value = vec![b'x'; number * 37 % 900];
            let record = record(&topic, "k", value);
            let publisher = publisher.clone();
            async move {
                publisher
                    .publish_record(record)
                    .await
                    .expect("the brokers acknowledge the record")
            }
        })
        .collect();
    let offsets: Vec<i64> = calls.map(|receipt| receipt.offset).collect().await;
    assert_eq!(offsets, (0..400).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_full_buffer_makes_callers_wait_for_room() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster.broker_down(-1).expect("the mock broker stops");
    let publisher = publisher_with(&cluster, &[], small_buffer(1 << 20, 2));
    let mut pending = Vec::new();
    for value in ["1", "2"] {
        let record = record(&topic, "k", value);
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let mut third = Box::pin(publisher.enqueue_record(record(&topic, "k", "3")));
    assert!(third.as_mut().now_or_never().is_none(), "there was room");
    cluster.broker_up(-1).expect("the mock broker starts");
    let third = tokio::time::timeout(LONG, third)
        .await
        .expect("room in time")
        .expect("enqueued");
    assert_eq!(third.await.expect("published").offset, 2);
}

#[tokio::test]
async fn no_caller_overtakes_one_that_waits() {
    let room = BufferLimit::new(100, 100);
    room.enter(90).await.keep();
    let mut large = Box::pin(room.enter(50));
    assert!(large.as_mut().now_or_never().is_none());
    let mut small = Box::pin(room.enter(5));
    assert!(
        small.as_mut().now_or_never().is_none(),
        "it fits, but it is later"
    );
    // Now there is room for all of them, but the earlier ones have not run yet.
    room.leave(90);
    let mut newcomer = Box::pin(room.enter(5));
    assert!(newcomer.as_mut().now_or_never().is_none());
    assert!(small.as_mut().now_or_never().is_none());
    large.as_mut().now_or_never().expect("its turn").keep();
    small.as_mut().now_or_never().expect("its turn").keep();
    newcomer.now_or_never().expect("its turn").keep();
}

#[tokio::test]
async fn a_caller_that_stops_waiting_blocks_no_other() {
    let room = BufferLimit::new(100, 100);
    room.enter(100).await.keep();
    let mut first = Box::pin(room.enter(60));
    assert!(first.as_mut().now_or_never().is_none());
    drop(first);
    room.leave(100);
    let entry = room.enter(100).now_or_never();
    drop(entry.expect("all the room is free"));
    // An entry that is dropped unused returns its room too.
    assert!(room.enter(100).now_or_never().is_some());
}

#[tokio::test]
async fn records_and_bytes_are_bounded_and_a_giant_goes_alone() {
    let room = BufferLimit::new(1000, 10);
    for _ in 0..10 {
        room.enter(1).now_or_never().expect("room").keep();
    }
    assert!(room.enter(1).now_or_never().is_none(), "an eleventh record");
    room.leave(1000);
    let giant = room.enter(usize::MAX).now_or_never().expect("room");
    assert_eq!(giant.charge(), 1000);
    assert!(room.enter(0).now_or_never().is_none());
}
