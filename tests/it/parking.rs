//! Parking: a key that fails waits in the retry topic with everything behind it, and nobody else waits with it.

use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::recovery::retry_topic;
use evenkeel::testing::eventually;
use std::collections::BTreeMap;
use std::time::Duration;

const FAILING: &str = "failing";

/// Steps by key and number, as they had their effect, and as they were tried.
#[derive(Clone)]
struct Effects {
    done: Log<(String, u64)>,
    tried: Log<(String, u64)>,
    /// Closed, the failing key fails.
    mended: Gate,
}

impl Effects {
    fn new() -> Self {
        Self {
            done: Log::new(),
            tried: Log::new(),
            mended: Gate::closed(),
        }
    }

    /// Handlers to which the failing key's steps from `first` on fail with `outcome` until the gate is open.
    fn router(&self, first: u64, outcome: fn() -> Outcome) -> Router {
        let effects = self.clone();
        Router::new().raw(move |record: Record| {
            let effects = effects.clone();
            async move {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                let (key, number) = (text(record.key()), text(record.value()));
                let number: u64 = number.parse().expect("a number");
                effects.tried.push((key.clone(), number));
                if key == FAILING && number >= first && !effects.mended.is_open() {
                    return outcome();
                }
                effects.done.push((key, number));
                Outcome::Done
            }
        })
    }

    /// The numbers of a key in the order of their effects.
    fn of(&self, key: &str) -> Vec<u64> {
        let entries = self.done.entries().into_iter();
        let own = entries.filter(|(found, _)| found == key);
        own.map(|(_, number)| number).collect()
    }

    /// That every key had `steps` effects, each once and in order.
    fn check(&self, steps: u64) {
        let mut by_key = BTreeMap::<String, Vec<u64>>::new();
        for (key, number) in self.done.entries() {
            by_key.entry(key).or_default().push(number);
        }
        for (key, numbers) in by_key {
            assert!(numbers.iter().copied().eq(0..steps), "{key}: {numbers:?}");
        }
    }
}

fn fails() -> Outcome {
    Outcome::Retry(HandlerError::transient("not now"))
}

fn dies() -> Outcome {
    Outcome::Retry(HandlerError::permanent("never"))
}

/// Records are parked after one attempt, and tried again each half second.
fn settings(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_millis(500); 1_000];
    settings
}

/// Steps `from` to `to` of these keys, in turn.
async fn publish(case: &Case, keys: &[String], from: u64, to: u64) {
    let steps = (from..to).flat_map(|number| keys.iter().map(move |key| (key, number)));
    let record = |(key, number): (&String, u64)| case.record(Some(key), number.to_string());
    case.publish(steps.map(record)).await;
}

fn keys(others: usize) -> Vec<String> {
    let others = (0..others).map(|n| format!("k{n}"));
    others.chain([FAILING.to_owned()]).collect()
}

/// Waits until everything in the retry topic is settled and committed.
async fn nothing_parked(case: &Case) {
    let retry = Case {
        topic: retry_topic(&case.group, &case.topic),
        kafka: case.kafka.clone(),
        group: case.group.clone(),
        ..*case
    };
    retry.all_committed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_waits_with_all_behind_it_and_the_others_go_on() {
    let Some(case) = Case::new("it-park", 3).await else {
        return;
    };
    let (effects, keys) = (Effects::new(), keys(20));
    let member = Member::start(&case.kafka, settings(&case), effects.router(5, fails));
    publish(&case, &keys, 0, 20).await;
    // All of the source is settled although the key fails.
    case.all_committed().await;
    assert_eq!(effects.of(FAILING), [0, 1, 2, 3, 4]);
    assert_eq!(effects.done.len(), 20 * 20 + 5);
    let later = effects.tried.entries().into_iter();
    let later = later.filter(|(key, number)| key == FAILING && *number > 5);
    assert_eq!(
        later.count(),
        0,
        "nothing behind the failing step was tried"
    );
    effects.mended.open();
    effects.done.reach("effects", 21 * 20).await;
    effects.check(20);
    nothing_parked(&case).await;
    // The key is like every other again.
    publish(&case, &keys, 20, 25).await;
    case.all_committed().await;
    effects.check(25);
    let report = member.stop().await;
    assert!(report.clean && report.parked >= 15, "{report:?}");
    assert_eq!(report.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_known_before_the_first_record_after_a_restart() {
    let Some(case) = Case::new("it-park", 1).await else {
        return;
    };
    let (effects, keys) = (Effects::new(), keys(3));
    let member = Member::start(&case.kafka, settings(&case), effects.router(2, fails));
    publish(&case, &keys, 0, 5).await;
    case.all_committed().await;
    member.stop().await;
    // They are there already when the next member comes.
    publish(&case, &keys, 5, 10).await;
    let member = Member::start(&case.kafka, settings(&case), effects.router(2, fails));
    case.all_committed().await;
    assert_eq!(effects.of(FAILING), [0, 1]);
    effects.mended.open();
    effects.done.reach("effects", 4 * 10).await;
    effects.check(10);
    nothing_parked(&case).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_after_its_last_wait_is_a_dead_letter() {
    let Some(case) = Case::new("it-park", 1).await else {
        return;
    };
    let effects = Effects::new();
    let mut settings = settings(&case);
    settings.retry.park_delays.truncate(2);
    let member = Member::start(&case.kafka, settings, effects.router(0, fails));
    publish(&case, &[FAILING.to_owned()], 0, 1).await;
    case.all_committed().await;
    let dead_letters = format!("dlq.{}.{}", case.group, case.topic);
    let letter = eventually("a dead letter", WITHIN, || async {
        case.read(&dead_letters).await.pop()
    })
    .await;
    let header = |name| letter.headers.last(name).map(String::from_utf8_lossy);
    assert_eq!(header("__dlq.errors.delivery.count").as_deref(), Some("3"));
    assert_eq!(header("__dlq.errors.topic").as_deref(), Some(&*case.topic));
    assert_eq!(header("__dlq.errors.offset").as_deref(), Some("0"));
    let mut names = letter.headers.iter().map(|(name, _)| name.to_vec());
    assert!(!names.any(|name| name.starts_with(b"evenkeel.parked.")));
    nothing_parked(&case).await;
    let report = member.stop().await;
    assert_eq!((effects.tried.len(), report.dead_letters), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_key_waits_until_its_dead_letter_is_replayed() {
    let Some(case) = Case::new("it-park", 1).await else {
        return;
    };
    let (effects, keys) = (Effects::new(), keys(3));
    let mut settings = settings(&case);
    settings.after_dead_letter = AfterDeadLetter::HoldKey;
    let member = Member::start(&case.kafka, settings.clone(), effects.router(5, dies));
    publish(&case, &keys, 0, 10).await;
    case.all_committed().await;
    assert_eq!(effects.of(FAILING), [0, 1, 2, 3, 4]);
    member.stop().await;
    effects.mended.open();
    let member = Member::start(&case.kafka, settings, effects.router(5, dies));
    publish(&case, &keys, 10, 12).await;
    case.all_committed().await;
    assert_eq!(effects.of(FAILING), [0, 1, 2, 3, 4], "held over a restart");
    let offset = case.read(&case.topic).await.into_iter().find(|record| {
        record.key.as_deref() == Some(FAILING.as_bytes()) && record.value.as_deref() == Some(b"5")
    });
    let offset = offset.expect("step 5").offset.to_string();
    let mut headers = Headers::new();
    headers.push("evenkeel.dlq.replay-of", Some(b"dlq/0@0"));
    headers.push("evenkeel.parked.offset", Some(offset.as_bytes()));
    let replay = OutgoingRecord {
        topic: retry_topic(&case.group, &case.topic),
        partition: Some(0),
        headers,
        ..case.record(Some(FAILING), "5")
    };
    case.publish([replay]).await;
    effects.done.reach("effects", 4 * 12).await;
    effects.check(12);
    nothing_parked(&case).await;
    member.stop().await;
}
