//! G2: records of one key are handled in their order, one at a time, also through retries; other keys do not wait.

use crate::support::{Case, Member, WITHIN, assignment};
use evenkeel::consumer::{ConsumerSettings, StopWhen};
use evenkeel::event::Record;
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::testing::{TestKafka, eventually, real_kafka, unique};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What handlers may see of a key: who is at work, and what comes next.
#[derive(Default)]
struct Lanes {
    next: HashMap<(String, Vec<u8>), u64>,
    running: HashMap<(String, Vec<u8>), u64>,
    most_running: usize,
    violations: Vec<String>,
}

impl Lanes {
    fn enter(&mut self, lane: &(String, Vec<u8>), number: u64) {
        if let Some(other) = self.running.insert(lane.clone(), number) {
            self.violations
                .push(format!("{number} began while {other} ran in {lane:?}"));
        }
        self.most_running = self.most_running.max(self.running.len());
    }

    fn leave(&mut self, lane: &(String, Vec<u8>), number: u64, handled: bool) {
        self.running.remove(lane);
        let next = self.next.entry(lane.clone()).or_default();
        if *next != number {
            self.violations
                .push(format!("{number} came instead of {next} in {lane:?}"));
        }
        *next += u64::from(handled);
    }
}

/// A failing first attempt for some records, so that lanes have to wait for a retry.
fn fails_first(number: u64, key: &[u8]) -> bool {
    (number + key.len() as u64).is_multiple_of(13)
}

async fn handle(
    record: Record,
    attempt: u32,
    lanes: Arc<Mutex<Lanes>>,
) -> Result<(), HandlerError> {
    let key = record.key().expect("every record has a key").to_vec();
    let value = std::str::from_utf8(record.value().expect("a value")).expect("the bytes are UTF-8");
    let number: u64 = value.parse().expect("a number");
    let lane = (record.topic().to_owned(), key);
    lanes
        .lock()
        .expect("no thread panicked with the lock")
        .enter(&lane, number);
    tokio::time::sleep(Duration::from_micros(500 * (number % 7))).await;
    let fails = attempt == 1 && fails_first(number, &lane.1);
    lanes
        .lock()
        .expect("no thread panicked with the lock")
        .leave(&lane, number, !fails);
    if fails {
        return Err(HandlerError::transient("not yet"));
    }
    Ok(())
}

/// Publishes `per_key` numbered records of each of `keys` keys to two topics, and handles them with concurrency 64.
async fn check(kafka: &TestKafka, keys: usize, per_key: u64, at_least_at_once: usize) {
    let first = Case::on(kafka, "it-g2", 6).await;
    let second = Case::on(kafka, "it-g2", 6).await;
    for case in [&first, &second] {
        let records = (0..per_key).flat_map(|number| {
            (0..keys).map(move |key| case.record(Some(&format!("k{key}")), number.to_string()))
        });
        case.publish(records).await;
    }
    let mut settings = ConsumerSettings::new(unique("it"), [&first.topic, &second.topic]);
    settings.assignment = assignment();
    settings.stop_when = StopWhen::Records(2 * keys as u64 * per_key);
    settings.retry.backoff.initial = Duration::from_millis(5);
    let lanes = Arc::new(Mutex::new(Lanes::default()));
    let shared = Arc::clone(&lanes);
    let router = Router::new().raw(move |record: Record, context: Context| {
        handle(record, context.attempt(), Arc::clone(&shared))
    });
    let report = Member::start(&first.kafka, settings, router).ended().await;
    assert_eq!(
        (report.settled, report.dead_letters),
        (2 * keys as u64 * per_key, 0)
    );
    let lanes = lanes.lock().expect("no thread panicked with the lock");
    assert_eq!(lanes.violations, Vec::<String>::new());
    assert_eq!(lanes.next.len(), 2 * keys, "each topic has its own lanes");
    assert!(lanes.next.values().all(|next| *next == per_key));
    assert!(
        (at_least_at_once..=64).contains(&lanes.most_running),
        "{} lanes ran at once",
        lanes.most_running
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_keep_their_order_and_share_the_concurrency() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    // More at once than there are partitions: keys are what is parallel.
    check(kafka, 1000, 4, 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_keys_keep_their_order_however_much_concurrency_there_is() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    check(kafka, 3, 300, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_holds_back_only_its_own_records() {
    let Some(case) = Case::new("it-g2", 1).await else {
        return;
    };
    case.publish_load(400, 4).await;
    let mut settings = case.settings();
    settings.retry.attempts_max = u32::MAX;
    settings.retry.backoff.max = Duration::from_millis(50);
    let handled = Arc::new(Mutex::new(Vec::<u64>::new()));
    let (mends, has_mended) = tokio::sync::watch::channel(false);
    let log = Arc::clone(&handled);
    let router = Router::new().raw(move |record: Record| {
        let (log, has_mended) = (Arc::clone(&log), has_mended.clone());
        async move {
            let value =
                std::str::from_utf8(record.value().expect("a value")).expect("the bytes are UTF-8");
            let number: u64 = value.parse().expect("a number");
            if number == 0 && !*has_mended.borrow() {
                return Err(HandlerError::transient("not yet"));
            }
            log.lock()
                .expect("no thread panicked with the lock")
                .push(number);
            Ok(())
        }
    });
    let member = Member::start(&case.kafka, settings, router);
    let numbers = || {
        handled
            .lock()
            .expect("no thread panicked with the lock")
            .clone()
    };
    eventually("the other keys are through", WITHIN, || async {
        (numbers().len() == 300).then_some(())
    })
    .await;
    assert!(numbers().iter().all(|number| !number.is_multiple_of(4)));
    assert_eq!(case.offsets().committed_of(0).await, 0);
    mends.send_replace(true);
    case.all_committed().await;
    let failing: Vec<u64> = numbers()[300..].to_vec();
    assert!(failing.iter().copied().eq((0..400).step_by(4)));
    assert!(member.stop().await.clean);
}
