//! G9, G4: what waits costs its own bytes. Few keys that wait, however they do, stop none of the others, whatever the backlog;
//! where they do take all the room, the member says so.

use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::ConsumerSettings;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::testing::eventually;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One in so many keys waits.
const FEW: usize = 100;

/// How a record waits.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// Between attempts, while what it depends on is down.
    Outage,
    /// Between attempts that failed by themselves.
    Backoff,
    /// In its handler, which holds it.
    Handler,
}

/// A backlog of records, of which `count / FEW` wait as long as `up` is closed.
struct Backlog {
    case: Case,
    count: usize,
    up: Gate,
    took: Arc<AtomicUsize>,
}

impl Backlog {
    async fn new(count: usize, bytes: impl Fn(usize) -> usize) -> Option<Self> {
        let case = Case::new("it-g9-few", 4).await?;
        let record = |n: usize| -> OutgoingRecord {
            let mut value = format!("{n} ").into_bytes();
            value.resize(bytes(n).max(value.len()), b'x');
            case.record(Some(&format!("{n}")), value)
        };
        case.publish((0..count).map(record)).await;
        Some(Self {
            case,
            count,
            up: Gate::closed(),
            took: Arc::default(),
        })
    }

    fn router(&self, wait: Wait) -> Router {
        let (up, took) = (self.up.clone(), Arc::clone(&self.took));
        Router::new().raw(move |record: Record| {
            let (up, took) = (up.clone(), Arc::clone(&took));
            async move {
                let key = std::str::from_utf8(record.key().unwrap_or_default())
                    .expect("the bytes are UTF-8");
                let number: usize = key.parse().expect("a number");
                if number.is_multiple_of(FEW) && !up.is_open() {
                    match wait {
                        Wait::Outage => {
                            return Outcome::Retry(
                                HandlerError::outage("503").dependency("provider"),
                            );
                        }
                        Wait::Backoff => return Outcome::Retry(HandlerError::transient("409")),
                        Wait::Handler => up.pass().await,
                    }
                }
                assert!(
                    record
                        .value()
                        .is_some_and(|value| value.starts_with(key.as_bytes()))
                );
                took.fetch_add(1, Ordering::SeqCst);
                Outcome::Done
            }
        })
    }

    /// That all of the others are handled while the few wait, and then those.
    async fn check(&self, settings: ConsumerSettings, wait: Wait) {
        let member = Member::start(&self.case.kafka, settings, self.router(wait));
        let others = self.count - self.count.div_ceil(FEW);
        eventually("all others are handled", WITHIN, || async {
            (self.took.load(Ordering::SeqCst) == others).then_some(())
        })
        .await;
        let not_ready = member.health.not_ready();
        assert!(not_ready.is_empty(), "{not_ready:?}");
        self.up.open();
        self.case.all_committed().await;
        let report = member.stop().await;
        assert_eq!((report.settled, report.clean), (self.count as u64, true));
    }

    fn settings(&self) -> ConsumerSettings {
        let mut settings = self.case.settings();
        // Shares as large as they get, whatever the machine.
        settings.workers = Some(4);
        settings
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_keys_in_an_outage_stop_no_others() {
    let Some(backlog) = Backlog::new(40_000, |_| 1024).await else {
        return;
    };
    let mut settings = backlog.settings();
    // What waits is 400 KiB.
    settings.in_flight_bytes_max = 8 << 20;
    backlog.check(settings, Wait::Outage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_keys_in_backoff_stop_no_others() {
    let bytes = |n: usize| if n.is_multiple_of(250) { 200_000 } else { 200 };
    let Some(backlog) = Backlog::new(20_000, bytes).await else {
        return;
    };
    let mut settings = backlog.settings();
    // 40 of 200 that wait are large.
    settings.in_flight_bytes_max = 16 << 20;
    settings.retry.attempts_max = u32::MAX;
    settings.retry.backoff.initial = Duration::from_secs(1);
    backlog.check(settings, Wait::Backoff).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_keys_whose_handlers_hold_their_records_stop_no_others() {
    let Some(backlog) = Backlog::new(40_000, |_| 1024).await else {
        return;
    };
    let mut settings = backlog.settings();
    settings.in_flight_bytes_max = 8 << 20;
    settings.concurrency = 1000;
    backlog.check(settings, Wait::Handler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_record_that_waits_stops_no_small_ones() {
    let bytes = |n: usize| if n == 0 { 900_000 } else { 100 };
    let Some(backlog) = Backlog::new(99, bytes).await else {
        return;
    };
    let mut settings = backlog.settings();
    settings.in_flight_bytes_max = 1_100_000;
    backlog.check(settings, Wait::Outage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_full_of_waiting_records_is_not_ready() {
    let Some(case) = Case::new("it-g9-few", 1).await else {
        return;
    };
    let up = Gate::closed();
    let handled = Log::new();
    let (open, log) = (up.clone(), handled.clone());
    let router = Router::new().raw(move |record: Record| {
        let is_refused = record.key().is_some_and(|key| key.ends_with(b"0"));
        let refused = is_refused && !open.is_open();
        if !refused {
            log.push(());
        }
        std::future::ready(match refused {
            true => Outcome::Retry(HandlerError::outage("503").dependency("provider")),
            false => Outcome::Done,
        })
    });
    case.publish((0..2000).map(|n| case.record(Some(&format!("{n}")), "x")))
        .await;
    let mut settings = case.settings();
    (settings.concurrency, settings.in_flight_records_max) = (10, Some(50));
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    let complaint = member.complaint("consumer").await;
    assert!(
        complaint.contains("no room for further records: 50 of 50"),
        "{complaint}"
    );
    assert!(complaint.contains("50 of them failed"), "{complaint}");
    up.open();
    case.all_committed().await;
    member.ready_again().await;
    assert_eq!(handled.len(), 2000);
    member.stop().await;
}
