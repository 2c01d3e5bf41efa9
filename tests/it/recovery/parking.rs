//! Parking: a key that fails waits in the retry topic with everything behind it, and nobody else waits with it.

use crate::support::member_process::{self, EFFECTS, Spec, Work};
use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::inbox::SqliteInbox;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{ChildProcess, eventually};
use sqlx::SqlitePool;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// What is behind it waits with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_waits_and_the_others_go_on() {
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
async fn parked_keys_are_known_before_other_records_after_restart() {
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
async fn a_record_failing_after_its_last_wait_is_dead_lettered() {
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
    let offset = offset.expect("step 5 is a dead letter").offset.to_string();
    let mut headers = Headers::new();
    headers.push("evenkeel.parked.kind", Some(b"replay"));
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

#[tokio::test(flavor = "multi_thread")]
async fn settled_records_are_deleted_from_the_retry_topic() {
    let Some(case) = Case::new("it-park", 1).await else {
        return;
    };
    let effects = Effects::new();
    let mut settings = settings(&case);
    settings.retry_topic_retention = Duration::from_secs(1);
    let member = Member::start(&case.kafka, settings, effects.router(0, fails));
    publish(&case, &[FAILING.to_owned()], 0, 5).await;
    case.all_committed().await;
    let retry = retry_topic(&case.group, &case.topic);
    assert!(case.read(&retry).await.len() >= 5);
    effects.mended.open();
    effects.done.reach("effects", 5).await;
    eventually("the retry topic is empty", WITHIN, || async {
        case.read(&retry).await.is_empty().then_some(())
    })
    .await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_grows_with_its_source() {
    let Some(case) = Case::new("it-park", 1).await else {
        return;
    };
    let mut kafka = case.kafka.clone();
    crate::support::set(&mut kafka, "topic.metadata.refresh.interval.ms=1000");
    let effects = Effects::new();
    let member = Member::start(&kafka, settings(&case), effects.router(0, fails));
    member.joined().await;
    case.grow_topic(2).await;
    let record = |number: u64| OutgoingRecord {
        partition: Some(1),
        ..case.record(Some(FAILING), number.to_string())
    };
    case.publish((0..3).map(record)).await;
    let grown = Case {
        partitions: 2,
        ..case
    };
    grown.all_committed().await;
    assert_eq!(effects.done.len(), 0);
    effects.mended.open();
    effects.done.reach("effects", 3).await;
    effects.check(3);
    nothing_parked(&grown).await;
    member.stop().await;
}

const MINUTE_TEST: &str = "recovery::parking::a_key_failing_for_a_minute_keeps_its_order";
const OTHERS: u64 = 10_000;
const PER_SECOND: u64 = 250;
const BASELINE: Duration = Duration::from_secs(20);
const FAILS_FOR: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million")
}

/// When each step was published, by key and number.
type Published = HashMap<(String, i64), i64>;

/// Publishes steps of the other keys at a steady rate for so long, and one of the failing key each so often.
async fn publish_for(
    case: &Case,
    published: &mut Published,
    lasts: Duration,
    failing_every: Duration,
) {
    let publisher = case.publisher();
    let ticks = lasts.as_secs() * PER_SECOND;
    let failing_every = failing_every.as_secs() * PER_SECOND;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND as u32);
    let mut receipts = Vec::new();
    for n in 0..ticks {
        tick.tick().await;
        let all = published.len() as u64;
        let mut keys = vec![format!("k{}", all % OTHERS)];
        if n.is_multiple_of(failing_every) {
            keys.push(FAILING.to_owned());
        }
        for key in keys {
            let number = (0..).find(|number| !published.contains_key(&(key.clone(), *number)));
            let number = number.expect("there is always another number");
            published.insert((key.clone(), number), now_ms());
            let record = case.step(&publisher, &key, number.unsigned_abs());
            receipts.push(
                publisher
                    .enqueue_record(record)
                    .await
                    .expect("the buffer takes the record"),
            );
        }
    }
    for receipt in receipts {
        receipt.await.expect("the brokers acknowledge the record");
    }
}

/// How long steps of the other keys took that were published from `from` to `to`: the share 0.99 was not slower, in
/// milliseconds.
async fn p99(pool: &SqlitePool, published: &Published, from: i64, to: i64) -> i64 {
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT record_key, number, at_ms FROM effects")
            .fetch_all(pool)
            .await
            .expect("the query returns its rows");
    let taken = rows.into_iter().filter_map(|(key, number, at_ms)| {
        let is_other = key != FAILING;
        let sent = published.get(&(key, number)).copied()?;
        (is_other && (from..to).contains(&sent)).then_some(at_ms - sent)
    });
    let mut taken: Vec<i64> = taken.collect();
    taken.sort_unstable();
    assert!(taken.len() > 1_000, "{} steps to look at", taken.len());
    taken[taken.len() * 99 / 100]
}

fn start(case: &Case, store: &Path, fails: &Path) -> ChildProcess {
    let work = Work::Fail {
        store: store.to_owned(),
        key: FAILING.to_owned(),
        from: 5,
        while_exists: fails.to_owned(),
    };
    Spec::new(case, work).start(MINUTE_TEST)
}

/// It delays no other key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_failing_for_a_minute_keeps_its_order() {
    let Some(case) = member_process::case("it-park", 6).await else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let (store, fails) = (
        directory.path().join("effects.db"),
        directory.path().join("fails"),
    );
    let inbox = SqliteInbox::open(&store, &case.group, EFFECTS).await;
    let pool = inbox.expect("the store opens").pool().clone();
    let mut members: Vec<ChildProcess> = (0..3).map(|_| start(&case, &store, &fails)).collect();
    let mut published = Published::new();
    // So that the baseline knows no start.
    publish_for(
        &case,
        &mut published,
        Duration::from_secs(5),
        Duration::from_secs(60),
    )
    .await;
    case.all_committed().await;

    let baseline = now_ms();
    publish_for(&case, &mut published, BASELINE, BASELINE / 4).await;
    let began = now_ms();
    std::fs::write(&fails, "").expect("the file is written");
    let third = FAILS_FOR / 3;
    publish_for(&case, &mut published, third, Duration::from_secs(1)).await;
    let disturbed = now_ms();
    // Whoever applied the key's last step owns it, unless it moved since.
    let owner: i64 =
        sqlx::query_scalar("SELECT process FROM effects WHERE record_key = ? ORDER BY seq DESC")
            .bind(FAILING)
            .fetch_one(&pool)
            .await
            .expect("an effect of the key");
    let owner = members
        .iter_mut()
        .find(|member| i64::from(member.id()) == owner);
    owner.expect("one of the members").kill().await;
    members.push(start(&case, &store, &fails));
    publish_for(&case, &mut published, third, Duration::from_secs(1)).await;
    members.push(start(&case, &store, &fails));
    publish_for(&case, &mut published, third, Duration::from_secs(1)).await;

    let applied = "SELECT COUNT(*) FROM effects WHERE record_key = ?";
    let applied: i64 = sqlx::query_scalar(applied)
        .bind(FAILING)
        .fetch_one(&pool)
        .await
        .expect("a count");
    assert_eq!(applied, 5, "nothing of the key from its failing step on");
    std::fs::remove_file(&fails).expect("the file is removed");
    case.all_committed().await;
    nothing_parked(&case).await;

    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT record_key, number FROM effects ORDER BY seq")
            .fetch_all(&pool)
            .await
            .expect("the query returns its rows");
    assert_eq!(rows.len(), published.len(), "each once");
    let mut next: HashMap<String, i64> = HashMap::new();
    for (key, number) in rows {
        let expected = next.entry(key.clone()).or_default();
        assert_eq!(number, *expected, "of {key}");
        *expected += 1;
    }
    assert!(next[FAILING] > 60);
    let before = p99(&pool, &published, baseline, began).await;
    let meanwhile = p99(&pool, &published, began, disturbed).await;
    println!("p99 of the others: {before} ms before, {meanwhile} ms meanwhile");
    // Tests that run beside this one make milliseconds into hundreds of them. A partition that stood still for the key's sake
    // would make them into tens of thousands.
    let most = 2 * before.max(2_500);
    assert!(
        meanwhile < most,
        "{before} ms before, {meanwhile} ms meanwhile"
    );
}
