//! The frames of a stream and their cursors, with paused time.

use super::super::cursor::Cursor;
use super::super::ring::LogItem;
use super::super::settings::StreamSettings;
use super::super::source::LogSource;
use super::super::topic_log::TopicLog;
use super::*;
use crate::access::AllowList;
use evenkeel::kafka::KafkaConfig;
use evenkeel::schema::Catalogue;
use tokio::sync::Semaphore;

/// When the token of the caller expires.
const EXPIRES_IN: Duration = Duration::from_secs(100);

struct Stream {
    logs: Vec<Arc<TopicLog>>,
    draining: watch::Sender<bool>,
    subscription: Subscription,
}

/// A stream of the type `a` in these topics, each with one partition, from offset 5 on.
fn stream(topics: &[&str]) -> Stream {
    let catalogue = Catalogue::from_texts([]).expect("an empty catalogue");
    let allow_list = AllowList::new(Vec::new(), Arc::new(catalogue)).expect("an empty list");
    let second = Duration::from_secs(1);
    let kafka = KafkaConfig::new("127.0.0.1:9");
    let source = LogSource::new(kafka, Arc::new(allow_list), second);
    let logs = Arc::new(TopicLogs::new(source, StreamSettings::default()));
    let running = topics.iter().map(|topic| logs.with_running(topic, vec![5]));
    let parts = running
        .map(|log| Part::new(log, None, vec![5], 0))
        .collect();
    let permit = Arc::new(Semaphore::new(1))
        .try_acquire_owned()
        .expect("one permit");
    let draining = watch::Sender::new(false);
    let terms = Terms {
        logs: Arc::clone(&logs),
        filter: Filter::new(["a"]),
        draining: draining.subscribe(),
        expires_in: Some(EXPIRES_IN),
        client: (permit, OpenStream::new()),
    };
    let subscription = Subscription::new(parts, terms);
    let logs = subscription
        .parts
        .iter()
        .map(|part| Arc::clone(&*part.log))
        .collect();
    Stream {
        logs,
        draining,
        subscription,
    }
}

fn event(ty: &str, offset: i64) -> LogItem {
    let event = StreamedEvent {
        topic: "topic".into(),
        partition: 0,
        offset,
        ty: ty.to_owned(),
        key: None,
        json: "{}".into(),
    };
    LogItem {
        partition: 0,
        offset,
        event: Some(Arc::new(event)),
    }
}

/// The kind of the frame and the positions of its cursor.
async fn next(stream: &mut Stream) -> (&'static str, Vec<i64>) {
    let frame = stream
        .subscription
        .next()
        .await
        .expect("the stream is open");
    let (kind, cursor) = match frame {
        Frame::Event { cursor, .. } => ("event", cursor),
        Frame::Heartbeat { cursor } => ("heartbeat", cursor),
        Frame::Gap { cursor, .. } => ("gap", cursor),
        Frame::Slow { cursor } => ("slow", cursor),
        Frame::Reconnect { cursor } => ("reconnect", cursor),
        Frame::Failed { cursor, .. } => ("failed", cursor),
    };
    let cursor: Cursor = cursor.parse().expect("a cursor");
    (
        kind,
        cursor
            .topics()
            .iter()
            .flat_map(|topic| topic.next.clone())
            .collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_its_cursor_and_beats_while_idle() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await, ("heartbeat", vec![5]));
    stream.logs[0].append(vec![event("a", 5), event("other", 6), event("a", 9)]);
    assert_eq!(next(&mut stream).await, ("event", vec![6]));
    assert_eq!(next(&mut stream).await, ("event", vec![10]));
    // What the stream does not want moves its cursor too.
    stream.logs[0].append(vec![event("other", 10)]);
    let before = Instant::now();
    assert_eq!(next(&mut stream).await, ("heartbeat", vec![11]));
    assert!(
        before.elapsed() >= Duration::from_secs(14),
        "{:?}",
        before.elapsed()
    );
    stream.logs[0].append(vec![event("a", 11)]);
    assert_eq!(next(&mut stream).await, ("event", vec![12]));
}

#[tokio::test(start_paused = true)]
async fn a_busy_topic_does_not_starve_another() {
    let mut stream = stream(&["busy", "quiet"]);
    assert_eq!(next(&mut stream).await, ("heartbeat", vec![5, 5]));
    stream.logs[0].append((5..15).map(|offset| event("a", offset)).collect());
    stream.logs[1].append(vec![event("a", 5)]);
    assert_eq!(next(&mut stream).await, ("event", vec![6, 5]));
    assert_eq!(next(&mut stream).await, ("event", vec![6, 6]));
    assert_eq!(next(&mut stream).await, ("event", vec![7, 6]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_frames_in_time_is_cut() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await.0, "heartbeat");
    tokio::time::advance(Duration::from_secs(9)).await;
    stream.logs[0].append(vec![event("a", 5), event("a", 6)]);
    assert_eq!(next(&mut stream).await, ("event", vec![6]));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(next(&mut stream).await, ("slow", vec![6]));
    assert!(stream.subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_draining_gateway_asks_to_reconnect() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await.0, "heartbeat");
    stream.logs[0].append(vec![event("a", 5)]);
    stream.draining.send_replace(true);
    assert_eq!(next(&mut stream).await, ("reconnect", vec![5]));
    assert!(stream.subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_token_of_its_caller() {
    let mut stream = stream(&["topic"]);
    let began = Instant::now();
    while next(&mut stream).await.0 == "heartbeat" {
        assert!(began.elapsed() < EXPIRES_IN, "{:?}", began.elapsed());
    }
    assert!(began.elapsed() >= EXPIRES_IN, "{:?}", began.elapsed());
    assert!(stream.subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_loses_no_frame() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await.0, "heartbeat");
    for offset in 5..50 {
        let wait = tokio::time::timeout(Duration::from_millis(1), stream.subscription.next());
        assert!(wait.await.is_err(), "nothing was appended");
        stream.logs[0].append(vec![event("a", offset)]);
        assert_eq!(next(&mut stream).await, ("event", vec![offset + 1]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_cut_from_outside_is_over() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await.0, "heartbeat");
    stream.logs[0].append(vec![event("a", 5), event("a", 6)]);
    assert_eq!(next(&mut stream).await, ("event", vec![6]));
    let Frame::Slow { cursor } = stream.subscription.cut_slow() else {
        panic!("the last frame of a slow client");
    };
    assert_eq!(cursor, stream.subscription.cursor());
    assert!(stream.subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn cursors_before_a_gap_have_the_positions_of_before() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await.0, "heartbeat");
    let part = &mut stream.subscription.parts[0];
    part.place.advance_all(&[9, 7]);
    part.joined = Some([1; 16]);
    for (partition, from, to) in [(0, 5, 9), (1, 8, 7)] {
        part.gaps.push_back(LogGap {
            partition,
            from,
            to,
        });
    }
    assert_eq!(*part.positions(), [5, 8]);
    assert_eq!(next(&mut stream).await, ("gap", vec![9, 8]));
    assert_eq!(stream.subscription.parts[0].identity, None);
    assert_eq!(next(&mut stream).await, ("gap", vec![9, 7]));
    assert_eq!(stream.subscription.parts[0].identity, Some([1; 16]));
}

#[tokio::test(start_paused = true)]
async fn a_gap_comes_before_any_cursor_that_passed_it() {
    let mut stream = stream(&["topic"]);
    assert_eq!(next(&mut stream).await, ("heartbeat", vec![5]));
    let gap = |from, to| LogGap {
        partition: 0,
        from,
        to,
    };
    stream.logs[0].append(vec![gap(5, 8)]);
    stream.logs[0].append(vec![event("a", 8)]);
    assert_eq!(next(&mut stream).await, ("gap", vec![8]));
    assert_eq!(next(&mut stream).await, ("event", vec![9]));
    // Found too late: the cursor has passed it, and it is not reported any more.
    stream.logs[0].append(vec![gap(6, 9)]);
    stream.logs[0].append(vec![gap(7, 12)]);
    assert_eq!(next(&mut stream).await, ("gap", vec![12]));
}
