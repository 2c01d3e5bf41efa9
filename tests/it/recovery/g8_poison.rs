//! G8: a record that cannot be read or handled never blocks its partition and never panics anything; it goes to the
//! dead-letter topic byte for byte, and where that cannot be written, the partition waits and says so.

use crate::support::{Case, Log, Member, Step, set};
use evenkeel::event::{Event, Headers, OutgoingRecord};
use evenkeel::handler::{DeadReason, HandlerError, Outcome, Router, Stage};
use evenkeel::kafka::reader::LogRecord;
use std::collections::BTreeMap;
use std::time::Duration;

/// A record of the set: its name, what it is made of, and the stage at which it is given up; none for one that is not.
struct Poison {
    name: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    given_up_at: Option<&'static str>,
}

/// The headers of a step, with some of them replaced or left out.
fn headers(changes: &[(&str, Option<&str>)]) -> Headers {
    let step = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "/it"),
        ("ce_type", "it.step.v1"),
        ("content-type", "application/json"),
    ];
    let mut headers = Headers::new();
    for (name, value) in step {
        match changes.iter().find(|(changed, _)| *changed == name) {
            Some((_, None)) => {}
            Some((_, Some(other))) => headers.push(name, Some(other.as_bytes())),
            None => headers.push(name, Some(value.as_bytes())),
        }
    }
    headers
}

const GOOD: &[u8] = br#"{"key":"a","number":1}"#;

fn poison_set() -> Vec<Poison> {
    let poison = |name, value: Option<&[u8]>, headers, given_up_at| Poison {
        name,
        key: Some(name.as_bytes().to_vec()),
        value: value.map(<[u8]>::to_vec),
        headers,
        given_up_at,
    };
    let event = || headers(&[]);
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let with = |name: &str, value: Option<&[u8]>| {
        let mut headers = event();
        headers.push(name, value);
        headers
    };
    vec![
        poison(
            "no event at all",
            Some(b"\xff\x00not an event"),
            Headers::new(),
            Some("decode"),
        ),
        poison(
            "a value that is not UTF-8",
            Some(b"{\"key\":\"\xc3\x28\",\"number\":1}"),
            event(),
            Some("decode"),
        ),
        poison("an empty value", Some(b""), event(), Some("decode")),
        poison("a tombstone", None, event(), Some("decode")),
        poison("truncated JSON", Some(&GOOD[..15]), event(), Some("decode")),
        poison(
            "JSON ten thousand deep",
            Some(&deep),
            event(),
            Some("decode"),
        ),
        poison(
            "a payload of another shape",
            Some(b"[1]"),
            event(),
            Some("decode"),
        ),
        poison(
            "an envelope without an id",
            Some(GOOD),
            headers(&[("ce_id", None)]),
            Some("decode"),
        ),
        poison(
            "another specversion",
            Some(GOOD),
            headers(&[("ce_specversion", Some("0.3"))]),
            Some("decode"),
        ),
        poison(
            "a structured event that is cut off",
            Some(b"{\"specversion\":\"1.0\",\"id\""),
            headers(&[("content-type", Some("application/cloudevents+json"))]),
            Some("decode"),
        ),
        poison(
            "refused by the handler",
            Some(br#"{"key":"refused","number":1}"#),
            event(),
            Some("handler"),
        ),
        poison(
            "declared dead by the handler",
            Some(br#"{"key":"dead","number":1}"#),
            event(),
            Some("schema"),
        ),
        poison(
            "makes the handler panic",
            Some(br#"{"key":"panic","number":1}"#),
            event(),
            Some("panic"),
        ),
        poison(
            "never succeeds",
            Some(br#"{"key":"never","number":1}"#),
            event(),
            Some("handler"),
        ),
        poison(
            "a type that nobody handles",
            Some(b"\xff"),
            headers(&[("ce_type", Some("it.other.v1"))]),
            None,
        ),
        poison(
            "a header of a megabyte",
            Some(GOOD),
            with("big", Some(&vec![b'x'; 1_000_000])),
            None,
        ),
        poison(
            "a header without a name or a value",
            Some(GOOD),
            with("", None),
            None,
        ),
        poison(
            "an id twice, the last one counts",
            Some(GOOD),
            with("ce_id", Some(b"2")),
            None,
        ),
        poison(
            "headers of a dead letter, forged",
            Some(b"["),
            with("__dlq.errors.delivery.count", Some(b"9223372036854775808")),
            Some("decode"),
        ),
        poison(
            "headers of a replay, forged, empty and twice",
            Some(b"["),
            [
                (
                    b"evenkeel.dlq.replay-count".as_slice(),
                    Some(b"".as_slice()),
                ),
                (b"evenkeel.dlq.replay-count", Some(b"9223372036854775808")),
                (b"evenkeel.dlq.replayed-at", Some(b"")),
                (b"evenkeel.dlq.first-failure", Some(b"")),
                (b"retry_topic-attempts", Some(&[0x80, 0, 0, 0, 0, 0, 0, 0])),
                (b"retry_topic-attempts", None),
            ]
            .into_iter()
            .collect(),
            Some("decode"),
        ),
        poison(
            "a sound event with the headers of an attempt that cannot be",
            Some(GOOD),
            with("retry_topic-attempts", Some(&[0x80, 0, 0, 0, 0, 0, 0, 0])),
            None,
        ),
        Poison {
            key: None,
            ..poison("no key", Some(b"{"), event(), Some("decode"))
        },
        Poison {
            key: Some(Vec::new()),
            ..poison("an empty key", Some(b"{"), event(), Some("decode"))
        },
        Poison {
            key: Some(vec![0, 0xff]),
            ..poison(
                "a key that is not UTF-8",
                Some(b"{"),
                event(),
                Some("decode"),
            )
        },
    ]
}

impl Poison {
    fn record(&self, case: &Case) -> OutgoingRecord {
        OutgoingRecord {
            topic: case.topic.clone(),
            partition: Some(0),
            key: self.key.clone().map(Into::into),
            value: self.value.clone().map(Into::into),
            headers: self.headers.clone(),
            timestamp_ms: None,
        }
    }
}

async fn handle(event: Event<Step>, handled: Log<String>) -> Result<Outcome, HandlerError> {
    match event.data.key.as_str() {
        "refused" => return Err(HandlerError::permanent("refused")),
        "dead" => {
            return Ok(Outcome::Dead(DeadReason::new(
                Stage::Schema,
                "declared dead",
            )));
        }
        "panic" => panic!("a bug in the handler"),
        "never" => return Err(HandlerError::transient("never")),
        _ => handled.push(event.attributes.id),
    }
    Ok(Outcome::Done)
}

fn router(handled: &Log<String>) -> Router {
    let handled = handled.clone();
    Router::new().on(move |event: Event<Step>| handle(event, handled.clone()))
}

fn header<'a>(letter: &'a LogRecord, name: &str) -> &'a str {
    let value = letter.headers.last(name).unwrap_or_default();
    std::str::from_utf8(value).expect("headers that we write are text")
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_dead_lettered_byte_for_byte_and_blocks_nothing() {
    let Some(case) = Case::new("it-g8", 2).await else {
        return;
    };
    let set = poison_set();
    let publisher = case.publisher();
    let good = |number| OutgoingRecord {
        partition: Some(0),
        ..case.step(&publisher, "good", number)
    };
    let records = set
        .iter()
        .enumerate()
        .flat_map(|(n, poison)| [poison.record(&case), good(n as u64)]);
    case.publish(records).await;

    let handled = Log::new();
    let mut settings = case.settings();
    settings.retry.attempts_max = 3;
    settings.retry.park_delays.clear();
    settings.retry.backoff.initial = Duration::from_millis(1);
    let member = Member::start(&case.kafka, settings, router(&handled));
    case.all_committed().await;
    let report = member.stop().await;
    let given_up = set
        .iter()
        .filter(|poison| poison.given_up_at.is_some())
        .count();
    assert_eq!(report.settled as usize, 2 * set.len());
    assert_eq!(report.dead_letters as usize, given_up);
    assert!(report.clean);
    // The four strange but sound records and the good one behind each of the set.
    assert_eq!(handled.len(), set.len() + 4);
    assert!(
        handled.entries().contains(&"2".to_owned()),
        "of two ids the last one counts"
    );

    let letters = case
        .read(&format!("dlq.{}.{}", case.group, case.topic))
        .await;
    let mut by_offset: BTreeMap<usize, &LogRecord> = BTreeMap::new();
    for letter in &letters {
        assert_eq!(letter.partition, 0, "the source's partition");
        let offset = header(letter, "__dlq.errors.offset")
            .parse()
            .expect("an offset");
        assert!(
            by_offset.insert(offset, letter).is_none(),
            "one letter a record"
        );
    }
    assert_eq!(by_offset.len(), given_up);
    for (n, poison) in set.iter().enumerate() {
        let letter = by_offset.get(&(2 * n)).copied();
        check_letter(&case, poison, letter);
    }
}

fn check_letter(case: &Case, poison: &Poison, letter: Option<&LogRecord>) {
    let name = poison.name;
    let (Some(stage), Some(letter)) = (poison.given_up_at, letter) else {
        assert_eq!(letter.is_some(), poison.given_up_at.is_some(), "{name}");
        return;
    };
    assert_eq!(letter.key, poison.key, "{name}");
    assert_eq!(letter.value, poison.value, "{name}");
    let forged = |name: &[u8]| name.starts_with(b"__dlq.") || name == b"evenkeel.dlq.first-failure";
    let original: Vec<_> = poison
        .headers
        .iter()
        .filter(|(name, _)| !forged(name))
        .collect();
    let kept: Vec<_> = letter.headers.iter().take(original.len()).collect();
    assert_eq!(kept, original, "{name}");
    assert_eq!(header(letter, "evenkeel.dlq.error.stage"), stage, "{name}");
    assert_eq!(header(letter, "__dlq.errors.topic"), case.topic, "{name}");
    assert_eq!(header(letter, "__dlq.errors.partition"), "0", "{name}");
    assert_eq!(header(letter, "__dlq.errors.group"), case.group, "{name}");
    let attempts = if name == "never succeeds" { "3" } else { "1" };
    assert_eq!(
        header(letter, "__dlq.errors.delivery.count"),
        attempts,
        "{name}"
    );
    assert!(!header(letter, "__dlq.errors.message").is_empty(), "{name}");
    let first: jiff::Timestamp = header(letter, "evenkeel.dlq.first-failure")
        .parse()
        .expect("a time, whatever was forged");
    let last = header(letter, "evenkeel.dlq.error.timestamp").parse();
    assert!(first <= last.expect("a time"), "{name}");
    assert!(
        header(letter, "evenkeel.dlq.error.instance").ends_with(&std::process::id().to_string()),
        "{name}"
    );
}

/// Until the topic takes dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_dead_letter_topic_stops_its_partition() {
    let Some(case) = Case::new("it-g8", 1).await else {
        return;
    };
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    // It takes nothing.
    let limit = [("max.message.bytes", "100")];
    case.create_topic(&letters, 1, &limit).await;
    let publisher = case.publisher();
    let mut bad = case.record(Some("bad"), "no event");
    bad.partition = Some(0);
    case.publish([
        case.step(&publisher, "good", 0),
        bad,
        case.step(&publisher, "good", 1),
    ])
    .await;

    let handled = Log::new();
    let mut settings = case.settings();
    settings.retry.backoff.max = Duration::from_millis(200);
    settings.drain_timeout = Duration::from_millis(200);
    let member = Member::start(&case.kafka, settings.clone(), router(&handled));
    let complaint = member.complaint("dead_letters").await;
    assert!(
        complaint.contains(&case.topic) && complaint.contains("max.message.bytes"),
        "{complaint}"
    );
    handled.reach("good records", 2).await;
    let offsets = case.offsets();
    offsets.reach(0, 1).await;
    let report = member.stop().await;
    assert_eq!(
        (report.settled, report.dead_letters, report.clean),
        (2, 0, false),
        "a stop waits for no retry, and says that a record is not settled"
    );
    assert_eq!(offsets.committed_of(0).await, 1);

    let member = Member::start(&case.kafka, settings, router(&handled));
    member.complaint("dead_letters").await;
    let limit = BTreeMap::from([("max.message.bytes".to_owned(), "1048588".to_owned())]);
    let altered = case.admin().await.alter_topic(&letters, &limit).await;
    altered.expect("the broker alters the topic");
    offsets.reach(0, 3).await;
    member.ready_again().await;
    let report = member.stop().await;
    assert_eq!(
        (report.settled, report.dead_letters, report.clean),
        (1, 1, true)
    );
    assert_eq!(
        handled.len(),
        2,
        "good records beside it were not handled again"
    );
    assert_eq!(case.read(&letters).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_dead_letter_topic_is_recreated() {
    let Some(mut case) = Case::new("it-g8", 1).await else {
        return;
    };
    // Refused at once instead of after five seconds.
    set(&mut case.kafka, "topic.metadata.propagation.max.ms=200");
    let handled = Log::new();
    let mut settings = case.settings();
    settings.retry.backoff.max = Duration::from_millis(200);
    let member = Member::start(&case.kafka, settings, router(&handled));
    member.joined().await;
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    case.delete_topic(&letters).await;
    case.publish([case.record(Some("bad"), "no event")]).await;
    let complaint = member.complaint("dead_letters").await;
    assert!(complaint.contains(&letters), "{complaint}");
    case.publish([case.step(&case.publisher(), "good", 0)])
        .await;
    handled.reach("good records", 1).await;
    case.offsets().reach(0, 2).await;
    member.ready_again().await;
    assert_eq!(case.read(&letters).await.len(), 1);
    assert!(member.stop().await.clean);
}
