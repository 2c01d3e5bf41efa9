//! Redis as the inbox of a group: effects outside of it are made once while nothing crashes, and events wait for it.

use crate::support::{Case, Log, Member, Step, WITHIN};
use evenkeel::consumer::StopWhen;
use evenkeel::event::{Event, OutgoingRecord};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::{RedisInbox, RedisSettings};
use evenkeel::testing::{TestRedis, eventually, redis, required, unique};
use std::collections::BTreeMap;
use std::time::Duration;

/// What handlers did, as key and number.
type Effects = Log<(String, u64)>;

/// Handlers that write down what they do, some of them at the second attempt.
fn router(inbox: RedisInbox, effects: &Effects) -> Router {
    let effects = effects.clone();
    let book = move |event: Event<Step>, context: Context| {
        let effects = effects.clone();
        async move {
            if event.data.number.is_multiple_of(7) && context.attempt() == 1 {
                return Err(HandlerError::transient("not yet"));
            }
            effects.push((event.data.key, event.data.number));
            Ok(())
        }
    };
    Router::new().on(book).with_inbox(inbox)
}

/// Steps 1 to `numbers` of each key.
fn steps(case: &Case, keys: u64, numbers: u64) -> Vec<OutgoingRecord> {
    let publisher = case.publisher();
    (1..=numbers)
        .flat_map(|number| (0..keys).map(move |key| (format!("k{key}"), number)))
        .map(|(key, number)| case.step(&publisher, &key, number))
        .collect()
}

/// Each once, and in order per key.
fn check(effects: &Effects, keys: u64, numbers: u64) {
    let mut by_key = BTreeMap::<String, Vec<u64>>::new();
    for (key, number) in effects.entries() {
        by_key.entry(key).or_default().push(number);
    }
    assert_eq!(by_key.len() as u64, keys);
    for (key, done) in by_key {
        assert!(done.iter().copied().eq(1..=numbers), "{key}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_produced_twice_has_one_effect_without_crashes() {
    const KEYS: u64 = 20;
    const NUMBERS: u64 = 30;
    let (Some(case), Some(redis)) = (Case::new("it-redis", 3).await, redis().await) else {
        return;
    };
    let steps = steps(&case, KEYS, NUMBERS);
    case.publish(steps.iter().flat_map(|step| [step.clone(), step.clone()]))
        .await;
    let settings = RedisSettings::default().with_prefix(unique("it") + ":");
    let inbox = RedisInbox::open_with(redis.url(), &settings).await;
    let effects = Effects::new();
    let mut consumer = case.settings();
    consumer.stop_when = StopWhen::UntilEnd;
    consumer.retry.backoff.initial = Duration::from_millis(5);
    let router = router(inbox.expect("the store opens"), &effects);
    let report = Member::start(&case.kafka, consumer, router).ended().await;
    assert_eq!(report.settled, 2 * KEYS * NUMBERS);
    assert_eq!(report.duplicates, KEYS * NUMBERS);
    assert_eq!(report.dead_letters, 0);
    check(&effects, KEYS, NUMBERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_redis_and_none_is_dead_lettered() {
    const KEYS: u64 = 100;
    const NUMBERS: u64 = 6;
    let Some(case) = Case::new("it-redis", 3).await else {
        return;
    };
    let Some(redis) = required(TestRedis::start().await) else {
        return;
    };
    // A completion that takes too long is made again, and its effect too: here that would be the machine's doing.
    let settings = RedisSettings::default().with_timeout(WITHIN);
    let inbox = RedisInbox::open_with(redis.url(), &settings).await;
    let effects = Effects::new();
    let mut consumer = case.settings();
    // So that an attempt which is counted shows.
    consumer.retry.attempts_max = 2;
    let router = router(inbox.expect("the store opens"), &effects);
    let member = Member::start(&case.kafka, consumer, router);
    let steps = steps(&case, KEYS, NUMBERS);
    // Few at first: an outage is when most of the attempts of the last seconds fail, and of each key one record is attempted.
    let (before, after) = steps.split_at(steps.len() / 20);
    case.publish(before.iter().cloned()).await;
    case.all_committed().await;
    redis.kill().await.expect("the process is killed");
    case.publish(after.iter().cloned()).await;
    eventually("the member says what it waits for", WITHIN, || async {
        let complaints = member.health.not_ready();
        let names_it = |(_, reason): &(String, String)| reason.contains("inbox");
        complaints.iter().any(names_it).then_some(())
    })
    .await;
    redis.start_again().await.expect("the server starts again");
    case.all_committed().await;
    assert_eq!(member.stop().await.dead_letters, 0);
    check(&effects, KEYS, NUMBERS);
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    assert!(case.read(&letters).await.is_empty());
}
