//! Waiting keys as rows, by key or by cause. Pure, except for the current time.

use super::key_text;
use evenkeel::consumer::ParkedKey;
use evenkeel::recovery::error_fingerprint;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A waiting key as a row. Its serialised form is stable.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WaitingKey {
    /// Name of the source topic.
    pub topic: String,
    /// Partition of the source topic.
    pub partition: i32,
    /// The key as text. `None` for a record without a key.
    pub key: Option<String>,
    /// Number of waiting records.
    pub records: usize,
    /// Source position of the first waiting record, behind which the others wait.
    pub behind: Option<String>,
    /// Time since when the first record waits.
    pub since: Option<Timestamp>,
    /// Time of the next attempt. `None` if the key is held or the attempt is due.
    pub next_attempt: Option<Timestamp>,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Class of the failure.
    pub class: Option<String>,
    /// Message of the failure.
    pub message: Option<String>,
    /// Source position of the dead letter whose replay the key waits for.
    pub held_for: Option<String>,
}

impl WaitingKey {
    /// The row of a key from the retry topic. Whether an attempt is due is decided by the time of
    /// this call.
    pub fn new(key: ParkedKey) -> Self {
        let place = |offset: i64| format!("{}/{}@{offset}", key.topic, key.partition);
        let time = |ms: i64| Timestamp::from_millisecond(ms).ok();
        let is_held = key.held_for.is_some();
        Self {
            behind: key.source_offset.map(place),
            held_for: key.held_for.map(place),
            key: key_text(key.key.as_deref()),
            records: key.offsets.len(),
            since: key.why.since_ms.and_then(time),
            next_attempt: time(key.wait.not_before_ms)
                .filter(|at| *at > Timestamp::now() && !is_held),
            attempts: key.wait.attempts,
            class: key.why.class,
            message: key.why.message,
            partition: key.partition,
            topic: key.topic,
        }
    }
}

/// Keys that wait for one cause. Its serialised form is stable, except for the text of the message.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Cause {
    /// Name of the source topic.
    pub topic: String,
    /// Class of the failure.
    pub class: Option<String>,
    /// Message of the failure, without its numbers and ids.
    pub message: String,
    /// Number of waiting keys.
    pub keys: usize,
    /// Number of waiting records.
    pub records: usize,
    /// Time since when the first of them waits.
    pub since: Option<Timestamp>,
    /// Time of their next attempt.
    pub next_attempt: Option<Timestamp>,
    /// The key that has waited longest.
    pub example: Option<String>,
}

/// Groups keys by cause. The most frequent cause comes first. The example of a cause is the first
/// of its keys: pass keys sorted by age to see the one that has waited longest.
pub fn by_cause(keys: &[WaitingKey]) -> Vec<Cause> {
    let mut causes: BTreeMap<(String, Option<String>, String), Cause> = BTreeMap::new();
    for key in keys {
        let message = match &key.held_for {
            Some(_) => "held until a dead letter is replayed".to_owned(),
            None => error_fingerprint(key.message.as_deref().unwrap_or_default()),
        };
        let name = (key.topic.clone(), key.class.clone(), message.clone());
        let cause = causes.entry(name).or_insert_with(|| Cause {
            topic: key.topic.clone(),
            class: key.class.clone(),
            message,
            keys: 0,
            records: 0,
            since: None,
            next_attempt: None,
            example: key.key.clone(),
        });
        cause.keys += 1;
        cause.records += key.records;
        cause.since = cause.since.into_iter().chain(key.since).min();
        let next = key.next_attempt;
        cause.next_attempt = cause.next_attempt.into_iter().chain(next).min();
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.keys));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_cause_are_one_row() {
        let waiting = |key: &str, second, message: &str| WaitingKey {
            topic: "orders".to_owned(),
            partition: 0,
            key: Some(key.to_owned()),
            records: 2,
            behind: None,
            since: Timestamp::from_second(second).ok(),
            next_attempt: None,
            attempts: 1,
            class: Some("transient".to_owned()),
            message: Some(message.to_owned()),
            held_for: None,
        };
        let keys = [
            waiting("a", 1, "customer 17 answered 500"),
            waiting("b", 2, "no stock"),
            waiting("c", 3, "customer 4711 answered 500"),
        ];
        let causes = by_cause(&keys);
        let seen: Vec<_> = causes
            .iter()
            .map(|cause| (cause.keys, cause.records, cause.example.as_deref()))
            .collect();
        assert_eq!(seen, [(2, 4, Some("a")), (1, 2, Some("b"))]);
        assert_eq!(causes[0].since, Timestamp::from_second(1).ok());
    }
}
