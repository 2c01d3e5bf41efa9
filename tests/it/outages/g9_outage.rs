//! G9: an outage of a dependency pauses and probes; it spends no attempt and fills no dead-letter topic.

use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::ConsumerSettings;
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::testing::{eventually, unique};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const DEPENDENCY: &str = "payment-provider";
const KEYS: usize = 100;
const PER_SECOND: usize = 500;

/// A provider of payments that can be down, for everybody or for some keys.
#[derive(Clone)]
struct Provider {
    up: Gate,
    asked: Arc<AtomicUsize>,
    /// Key and number of what it took.
    took: Log<(String, usize)>,
}

impl Provider {
    fn down() -> Self {
        Self {
            up: Gate::closed(),
            asked: Arc::default(),
            took: Log::new(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Handlers that ask it; while it is down, it refuses the keys that `refuses` names.
    fn router(&self, refuses: fn(&str) -> bool) -> Router {
        let provider = self.clone();
        Router::new().raw(move |record: Record| {
            let provider = provider.clone();
            async move {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                let (key, number) = (text(record.key()), text(record.value()));
                provider.asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !provider.up.is_open() && refuses(&key) {
                    return Outcome::Retry(HandlerError::outage("refused").dependency(DEPENDENCY));
                }
                provider.took.push((key, number.parse().expect("a number")));
                Outcome::Done
            }
        })
    }

    /// That it took records 0 to `records` once each, in the order of their keys.
    fn check(&self, records: usize) {
        let mut by_key = BTreeMap::<_, Vec<usize>>::new();
        for (key, number) in self.took.entries() {
            by_key.entry(key).or_default().push(number);
        }
        for (key, numbers) in &by_key {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
        let mut all: Vec<usize> = by_key.into_values().flatten().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..records), "each once");
    }
}

/// One attempt is all that a record has, so that one which is counted shows.
fn settings(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings
}

/// Publishes `records` records at [`PER_SECOND`], beginning with number `first`.
async fn publish(case: &Case, first: usize, records: usize) {
    let publisher = case.publisher();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / PER_SECOND as u32);
    for number in first..first + records {
        ticks.tick().await;
        let record = case.record(Some(&format!("k{}", number % KEYS)), number.to_string());
        let receipt = publisher
            .enqueue_record(record)
            .await
            .expect("the buffer takes the record");
        drop(receipt);
    }
    publisher
        .flush(WITHIN)
        .await
        .expect("every record is sent in time");
}

/// Waits until the member says what it waits for.
async fn pauses(member: &Member) {
    eventually("the member says what is down", WITHIN, || async {
        let complaints = member.health.not_ready();
        let names_it = |(_, reason): &(String, String)| reason.contains(DEPENDENCY);
        complaints.iter().any(names_it).then_some(())
    })
    .await;
}

/// The backlog drains afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_outage_costs_no_attempt_or_dead_letter() {
    const OUTAGE: Duration = Duration::from_secs(60);
    let Some(case) = Case::new("it-g9", 4).await else {
        return;
    };
    let provider = Provider::down();
    let settings = settings(&case);
    let (concurrency, room) = (settings.concurrency, settings.in_flight_records_max());
    let member = Member::start(&case.kafka, settings, provider.router(|_| true));
    let records = PER_SECOND * OUTAGE.as_secs() as usize;
    tokio::join!(publish(&case, 0, records), pauses(&member));
    let asked = provider.asked();
    // Those that ran when it began; probes after 1, 2, 4, 8 seconds and then every 10, less up to a fifth; and one more
    // record after each.
    assert!(asked <= concurrency + 24, "asked {asked} times");
    assert!(asked >= 5, "probed, too: asked {asked} times");
    assert!(records > room, "more than a member may hold is waiting");
    assert_eq!(provider.took.len(), 0);

    provider.up.open();
    publish(&case, records, PER_SECOND).await;
    case.all_committed().await;
    member.joined().await;
    provider.check(records + PER_SECOND);
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.clean), (0, true));
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    assert!(case.read(&letters).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_refuses_few_keys_stops_no_others() {
    let Some(case) = Case::new("it-g9", 4).await else {
        return;
    };
    let provider = Provider::down();
    // Five of a hundred.
    let refuses = |key: &str| ["k0", "k20", "k40", "k60", "k80"].contains(&key);
    let member = Member::start(&case.kafka, settings(&case), provider.router(refuses));
    member.joined().await;
    let records = PER_SECOND * 10;
    let others = records / KEYS * 95;
    let publishing = publish(&case, 0, records);
    let watched = async {
        while provider.took.len() < others {
            assert!(member.health.not_ready().is_empty(), "the breaker opened");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let both = async { tokio::join!(publishing, watched) };
    let done = tokio::time::timeout(WITHIN, both).await;
    done.expect("records of the other keys are handled");
    assert_eq!(provider.took.len(), others, "and only those");

    provider.up.open();
    case.all_committed().await;
    provider.check(records);
    assert_eq!(member.stop().await.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_handler_at_a_time_suffices_to_end_an_outage() {
    let Some(case) = Case::new("it-g9", 4).await else {
        return;
    };
    let records = 400;
    case.publish((0..records).map(|number| {
        let key = format!("k{}", number % KEYS);
        case.record(Some(&key), number.to_string())
    }))
    .await;
    for (concurrency, workers) in [(1, 1), (2, 2), (4, 4)] {
        let provider = Provider::down();
        let mut settings = settings(&case);
        settings.group = unique("it");
        (settings.concurrency, settings.workers) = (concurrency, Some(workers));
        let member = Member::start(&case.kafka, settings, provider.router(|_| true));
        pauses(&member).await;
        provider.up.open();
        let what = format!("records handled by {concurrency} at a time");
        provider.took.reach(&what, records).await;
        provider.check(records);
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_records_refused_keys_stop_others_only_briefly() {
    let Some(case) = Case::new("it-g9", 4).await else {
        return;
    };
    let provider = Provider::down();
    let refuses = |key: &str| key.starts_with("refused");
    let member = Member::start(&case.kafka, settings(&case), provider.router(refuses));
    member.joined().await;
    let refused = (0..8).map(|n| case.record(Some(&format!("refused{n}")), n.to_string()));
    case.publish(refused).await;
    pauses(&member).await;
    let others = (8..40).map(|n| case.record(Some(&format!("other{n}")), n.to_string()));
    case.publish(others).await;
    provider.took.reach("records of other keys", 32).await;
    member.joined().await;

    provider.up.open();
    case.all_committed().await;
    provider.check(40);
    assert_eq!(member.stop().await.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_while_a_dependency_is_down() {
    let Some(case) = Case::new("it-g9", 4).await else {
        return;
    };
    let provider = Provider::down();
    let records = 2_000;
    case.publish((0..records).map(|number| {
        let key = format!("k{}", number % KEYS);
        case.record(Some(&key), number.to_string())
    }))
    .await;
    let start = || Member::start(&case.kafka, settings(&case), provider.router(|_| true));
    let first = start();
    pauses(&first).await;
    // It takes half of the partitions, and with them records that waited.
    let second = start();
    pauses(&second).await;
    let report = first.stop().await;
    assert!(
        !report.clean,
        "what waits for the dependency is not settled"
    );
    assert_eq!((report.settled, report.dead_letters), (0, 0));

    provider.up.open();
    case.all_committed().await;
    provider.check(records);
    assert_eq!(second.stop().await.settled, records as u64);
}
