//! Everything that a topic holds.

use crate::kafka::reader::{LogRecord, Reader, Reading};
use crate::kafka::{KafkaConfig, KafkaError};
use std::time::{Duration, Instant};

/// How long to wait for one record before the deadline is checked again.
const NEXT_LIMIT: Duration = Duration::from_secs(1);

/// All records that a topic holds at the time of the call, those of each partition in the order of
/// their offsets. For tests of what a service published, parked or dead-lettered. It joins no group.
///
/// ```no_run
/// use evenkeel::testing::{TestKafka, read_topic};
/// use std::time::Duration;
///
/// # async fn a_test(kafka: &TestKafka) {
/// let receipts = read_topic(&kafka.config(), "receipts", Duration::from_secs(10)).await;
/// assert_eq!(receipts.len(), 3);
/// # }
/// ```
///
/// # Panics
/// If the topic cannot be read to its end within `within`.
pub async fn read_topic(kafka: &KafkaConfig, topic: &str, within: Duration) -> Vec<LogRecord> {
    let (kafka, reading) = (kafka.clone(), Reading::whole([topic]));
    let read = move || {
        let begun = Instant::now();
        let mut reader = Reader::open(&kafka, &reading, within)?;
        let mut records = Vec::new();
        while !reader.at_end() && begun.elapsed() < within {
            records.extend(reader.next(NEXT_LIMIT)?);
        }
        Ok::<_, KafkaError>((reader.at_end(), records))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok((true, records))) => records,
        Ok(Ok((false, records))) => {
            panic!(
                "not within {within:?}: the end of {topic}, after {} records",
                records.len()
            )
        }
        Ok(Err(error)) => panic!("the topic {topic} cannot be read: {error}"),
        Err(error) => panic!("the topic {topic} cannot be read: {error}"),
    }
}
