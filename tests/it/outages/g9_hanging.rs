//! G9: a dependency that hangs is an outage like one that refuses, a probe that hangs stops nobody, and a record that alone is
//! too slow is given up.

use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::ConsumerSettings;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::testing::eventually;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PROVIDER: &str = "payment-provider";
const WAREHOUSE: &str = "warehouse";
/// How long handlers wait for an answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Attempts that are counted show soon, and so do probes.
fn settings(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 3;
    settings.retry.park_delays = Vec::new();
    settings.breaker.probe.initial = Duration::from_millis(200);
    settings.breaker.probe.max = Duration::from_millis(500);
    settings
}

fn key(record: &Record) -> String {
    String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned()
}

/// `count` records of keys of their own.
fn keys(case: &Case, name: &str, count: usize) -> Vec<OutgoingRecord> {
    let record = |n: usize| case.record(Some(&format!("{name}{n}")), n.to_string());
    (0..count).map(record).collect()
}

/// The same, as events of a type.
fn events(case: &Case, ty: &str, count: usize) -> Vec<OutgoingRecord> {
    let mut records = keys(case, ty, count);
    for record in &mut records {
        record.headers.push("ce_type", Some(ty.as_bytes()));
    }
    records
}

/// What is wrong, as the health shows it now.
fn complaints(member: &Member) -> String {
    let all = member.health.not_ready().into_iter();
    let all: Vec<String> = all.map(|(_, reason)| reason).collect();
    all.join("; ")
}

async fn complains(member: &Member, of: &str) {
    eventually(&format!("the health names {of}"), WITHIN, || async {
        complaints(member).contains(of).then_some(())
    })
    .await;
}

async fn silence<T>() -> Result<T, HandlerError> {
    let never = std::future::pending::<T>();
    let answer = tokio::time::timeout(PATIENCE, never).await;
    answer.map_err(|elapsed| HandlerError::from(elapsed).dependency(PROVIDER))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_hangs_stops_no_other_key() {
    // With one permit the probe that hangs has it.
    for concurrency in [64, 1] {
        let Some(case) = Case::new("it-hang", 4).await else {
            return;
        };
        let (calls, handled) = (Arc::new(AtomicUsize::new(0)), Log::new());
        let (count, log) = (Arc::clone(&calls), handled.clone());
        let router = Router::new().raw(move |record: Record| {
            let (call, log) = (count.fetch_add(1, Ordering::SeqCst), log.clone());
            async move {
                match call {
                    0..5 => {
                        return Outcome::Retry(
                            HandlerError::outage("refused").dependency(PROVIDER),
                        );
                    }
                    5 => std::future::pending().await,
                    _ => log.push(key(&record)),
                }
                Outcome::Done
            }
        });
        let mut settings = settings(&case);
        settings.concurrency = concurrency;
        settings.drain_timeout = Duration::from_millis(100);
        let member = Member::start(&case.kafka, settings, router);
        member.joined().await;
        let began = Instant::now();
        case.publish(keys(&case, "k", 60)).await;
        handled.reach("all other keys are handled", 59).await;
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(complaints(&member), "");
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_hangs_spends_no_records() {
    let Some(case) = Case::new("it-hang", 4).await else {
        return;
    };
    let (up, calls, took) = (Gate::closed(), Arc::new(AtomicUsize::new(0)), Log::new());
    let (answers, count, log) = (up.clone(), Arc::clone(&calls), took.clone());
    let router = Router::new().raw(move |record: Record| {
        let (answers, log) = (answers.clone(), log.clone());
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if !answers.is_open() {
                silence::<()>().await?;
            }
            log.push(key(&record));
            Ok::<_, HandlerError>(())
        }
    });
    // Fewer at a time than would open a breaker in its window.
    let mut settings = settings(&case);
    settings.concurrency = 3;
    settings.breaker.window = Duration::from_millis(200);
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    case.publish(keys(&case, "k", 200)).await;
    complains(&member, PROVIDER).await;
    let before = calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let while_down = calls.load(Ordering::SeqCst) - before;
    assert!(
        while_down <= 24,
        "probes only, and one beside each: {while_down}"
    );
    assert!(complaints(&member).contains(PROVIDER));

    up.open();
    case.all_committed().await;
    assert_eq!(took.len(), 200);
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_timeout_that_all_reach_is_an_outage() {
    let Some(case) = Case::new("it-hang", 4).await else {
        return;
    };
    let (up, took) = (Gate::closed(), Log::new());
    let (answers, log) = (up.clone(), took.clone());
    let router = Router::new().raw(move |record: Record| {
        let (answers, log) = (answers.clone(), log.clone());
        async move {
            answers.pass().await;
            log.push(key(&record));
        }
    });
    let mut settings = settings(&case);
    settings.handler_timeout = Some(PATIENCE);
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    case.publish(keys(&case, "k", 100)).await;
    complains(&member, "handler_timeout").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    up.open();
    case.all_committed().await;
    assert_eq!(took.len(), 100);
    assert_eq!(member.stop().await.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_alone_times_out_is_given_up() {
    let Some(case) = Case::new("it-hang", 4).await else {
        return;
    };
    let (took, tried) = (Log::new(), Log::new());
    let (log, tries) = (took.clone(), tried.clone());
    let router = Router::new().raw(move |record: Record| {
        let (log, tries) = (log.clone(), tries.clone());
        async move {
            let key = key(&record);
            if key.starts_with("slow") {
                tries.push(());
                silence::<()>().await?;
            }
            log.push(key);
            Ok::<_, HandlerError>(())
        }
    });
    let member = Member::start(&case.kafka, settings(&case), router);
    member.joined().await;
    let publisher = case.publisher();
    let send = async |record| {
        drop(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        )
    };
    let dead_letters = case.offsets_of(&format!("dlq.{}.{}", case.group, case.topic), 4);
    let mut others = 0;
    // Others of their kind go on until the last slow one is given up: with none that succeeds, a
    // time-out is an outage.
    let began = Instant::now();
    loop {
        if others == 100 {
            for slow in keys(&case, "slow", 6) {
                send(slow).await;
            }
        }
        send(case.record(Some(&format!("k{others}")), "")).await;
        others += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(complaints(&member), "", "after {others}");
        if others % 50 == 0 && tried.len() == 6 * 3 {
            let given_up: i64 = dead_letters.ends().await.values().sum();
            if given_up == 6 {
                break;
            }
        }
        assert!(began.elapsed() < WITHIN, "tried {}", tried.len());
    }
    case.all_committed().await;
    assert_eq!(took.len(), others);
    assert_eq!(member.stop().await.dead_letters, 6);
}

/// Independent: they do not need the dependency.
#[tokio::test(flavor = "multi_thread")]
async fn independent_records_do_not_close_the_breaker() {
    let Some(case) = Case::new("it-hang", 1).await else {
        return;
    };
    let (up, asked, took) = (Gate::closed(), Arc::new(AtomicUsize::new(0)), Log::new());
    let (answers, count, log) = (up.clone(), Arc::clone(&asked), took.clone());
    let router = Router::new().raw(move |record: Record| {
        let key = key(&record);
        if key.starts_with("placed") {
            count.fetch_add(1, Ordering::SeqCst);
            if !answers.is_open() {
                return std::future::ready(Outcome::Retry(
                    HandlerError::outage("refused").dependency(PROVIDER),
                ));
            }
        }
        log.push(key);
        std::future::ready(Outcome::Done)
    });
    let member = Member::start(&case.kafka, settings(&case), router);
    member.joined().await;
    case.publish(events(&case, "placed", 10)).await;
    complains(&member, PROVIDER).await;
    let mut mixed = events(&case, "cancelled", 30);
    mixed.extend(events(&case, "placed-later", 30));
    case.publish(mixed).await;
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        assert!(complaints(&member).contains(PROVIDER), "it was closed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Beside each failed probe another may start, and those that need nothing let the next one go.
    assert!(took.len() >= 10, "{} got through", took.len());
    assert!(asked.load(Ordering::SeqCst) < 50, "{asked:?} asked");
    up.open();
    case.all_committed().await;
    assert_eq!(took.len(), 70);
    member.stop().await;
}

/// What handlers need, one after the other, and whether it answers.
#[derive(Clone, Default)]
struct Down(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Down {
    fn set(&self, dependency: &'static str, is_down: bool) {
        self.0
            .lock()
            .expect("not poisoned")
            .insert(dependency, is_down);
    }

    fn ask(&self, dependency: &'static str) -> Result<(), HandlerError> {
        match self.0.lock().expect("not poisoned").get(dependency) {
            Some(true) => Err(HandlerError::outage("refused").dependency(dependency)),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_meets_another_outage_names_that_one_too() {
    let Some(case) = Case::new("it-hang", 4).await else {
        return;
    };
    for [first, second] in [[PROVIDER, WAREHOUSE], [WAREHOUSE, PROVIDER]] {
        let (down, took) = (Down::default(), Log::new());
        let (asked, log) = (down.clone(), took.clone());
        let router = Router::new().raw(move |record: Record| {
            let (asked, log) = (asked.clone(), log.clone());
            async move {
                asked.ask(PROVIDER)?;
                asked.ask(WAREHOUSE)?;
                log.push(key(&record));
                Ok::<_, HandlerError>(())
            }
        });
        let mut settings = settings(&case);
        settings.group = evenkeel::testing::unique("it");
        down.set(first, true);
        let member = Member::start(&case.kafka, settings, router);
        member.joined().await;
        case.publish(keys(&case, "k", 100)).await;
        complains(&member, first).await;
        down.set(second, true);
        down.set(first, second == PROVIDER);
        complains(&member, second).await;
        down.set(second, false);
        down.set(first, false);
        let began = Instant::now();
        eventually("all are handled", WITHIN, || async {
            (took.len() >= 100).then_some(())
        })
        .await;
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
        eventually("all is well", WITHIN, || async {
            complaints(&member).is_empty().then_some(())
        })
        .await;
        assert_eq!(member.stop().await.dead_letters, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panicking_probes_cost_their_records_and_delay_no_others() {
    let Some(case) = Case::new("it-hang", 4).await else {
        return;
    };
    let (calls, took) = (Arc::new(AtomicUsize::new(0)), Log::new());
    let (count, log) = (Arc::clone(&calls), took.clone());
    let router = Router::new().raw(move |record: Record| {
        let log = log.clone();
        let call = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match call {
                0..5 => {
                    return Outcome::Retry(HandlerError::outage("refused").dependency(PROVIDER));
                }
                5..8 => panic!("of the probe"),
                _ => log.push(key(&record)),
            }
            Outcome::Done
        }
    });
    let mut settings = settings(&case);
    settings.concurrency = 5;
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    case.publish(keys(&case, "k", 50)).await;
    case.all_committed().await;
    assert_eq!(took.len(), 47);
    assert_eq!(complaints(&member), "");
    assert_eq!(member.stop().await.dead_letters, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_handlers_are_counted_and_waiting_ones_are_not() {
    let Some(case) = Case::new("it-hang", 1).await else {
        return;
    };
    let up = Gate::closed();
    let answers = up.clone();
    let router = Router::new().raw(move |record: Record| {
        let answers = answers.clone();
        async move {
            if key(&record).starts_with("refused") {
                return Outcome::Retry(HandlerError::outage("refused").dependency(PROVIDER));
            }
            answers.pass().await;
            Outcome::Done
        }
    });
    let mut settings = settings(&case);
    settings.concurrency = 8;
    settings.stuck_handler_after = Duration::from_secs(1);
    settings.drain_timeout = Duration::from_millis(100);
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    // They wait for what is down, and no handler runs.
    case.publish(keys(&case, "refused", 6)).await;
    complains(&member, PROVIDER).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reasons = complaints(&member);
    assert!(
        !reasons.contains("running for") && !reasons.contains("stuck"),
        "{reasons}"
    );
    member.stop().await;

    let mut settings = case.settings();
    settings.group = evenkeel::testing::unique("it");
    settings.concurrency = 8;
    settings.stuck_handler_after = Duration::from_secs(1);
    settings.stop_when = evenkeel::consumer::StopWhen::UntilEnd;
    case.publish(keys(&case, "k", 20)).await;
    let answers = up.clone();
    let all_hang = Router::new().raw(move |_: Record| {
        let answers = answers.clone();
        async move { answers.pass().await }
    });
    let member = Member::start(&case.kafka, settings, all_hang);
    complains(&member, "all 8 handlers are stuck").await;
    up.open();
    assert_eq!(member.ended().await.settled, 26);
}
