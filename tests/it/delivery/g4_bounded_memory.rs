//! G4: records and bytes in flight are capped, whatever the backlog and however slow the handler.

use crate::support::member_process::{self, Spec, Work};
use crate::support::memory::{noise, resident_bytes_max};
use crate::support::{Case, Log, Member, WITHIN, outlast_the_poll_interval, set};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::testing::eventually;
use std::time::{Duration, Instant};

const TEST: &str =
    "delivery::g4_bounded_memory::a_backlog_of_large_and_small_records_stays_bounded";
/// A tenth of the backlog's bytes, so that a member without a limit would be far above its bound.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// The limit, the client's prefetch of 16 MiB and one fetch more, and what a test binary takes by itself.
const RESIDENT_BYTES_MAX: u64 = 112 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_and_small_records_stays_bounded() {
    let Some(case) = member_process::case("it-g4", 4).await else {
        return;
    };
    let (small, large) = (noise(1024, 1), noise(900_000, 2));
    let record = |n: usize| {
        let value = if n.is_multiple_of(1000) {
            &large
        } else {
            &small
        };
        case.record(Some(&format!("k{n}")), value.clone())
    };
    // 80,000 KiB and 72 MB.
    case.publish((0..80_000).map(record)).await;
    let work = Work::Stall {
        in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
    };
    let mut spec = Spec::new(&case, work);
    spec.properties.push("max.poll.interval.ms=6000".to_owned());
    let mut member = spec.start(TEST);
    let before = eventually("the member is in its group", WITHIN, || async {
        Some(case.members().await).filter(|members| members.len() == 1)
    })
    .await;
    outlast_the_poll_interval(Instant::now()).await;
    let most = resident_bytes_max(member.id());
    assert!(most < RESIDENT_BYTES_MAX, "{} MiB", most >> 20);
    assert!(
        most > IN_FLIGHT_BYTES_MAX as u64,
        "it has taken what it may"
    );
    assert_eq!(
        case.members().await,
        before,
        "a member whose handlers stand still is not evicted"
    );
    assert!(member.is_running(), "a member ends by a kill only");
}

const VALIDATED: &str =
    "delivery::g4_bounded_memory::payloads_waiting_for_the_store_cost_only_their_bytes";
/// One payload as a tree at a time, and what a test binary takes by itself.
const VALIDATED_BYTES_MAX: u64 = 288 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn payloads_waiting_for_the_store_cost_only_their_bytes() {
    let Some(case) = member_process::case("it-g4", 1).await else {
        return;
    };
    // Valid, and as a tree a hundred times as large: 1 GB for all of them.
    let tiny = r#"{"":0},"#.repeat(130_000);
    let payload = format!(r#"{{"key":"k","number":1,"x":[{tiny}0]}}"#);
    let publisher = case.publisher();
    let record = |n: u64| OutgoingRecord {
        value: Some(payload.clone().into()),
        ..case.step(&publisher, &format!("k{n}"), n)
    };
    case.publish((0..12).map(record)).await;
    let spec = Spec {
        properties: Vec::new(),
        ..Spec::new(&case, Work::Validate)
    };
    let mut member = spec.start(VALIDATED);
    let (mut most, mut quiet) = (0, 0);
    while quiet < 6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_bytes_max(member.id());
        let has_begun = now > 90 << 20;
        quiet = if has_begun && now == most {
            quiet + 1
        } else {
            0
        };
        most = now;
        assert!(most < VALIDATED_BYTES_MAX, "{} MiB", most >> 20);
    }
    assert!(member.is_running(), "a member ends by a kill only");
}

/// Publishes `count` records of `bytes` bytes, lets a member that never finishes any take what it takes, and returns how
/// many it took.
async fn taken(
    case: &Case,
    count: usize,
    bytes: usize,
    change: impl FnOnce(&mut evenkeel::consumer::ConsumerSettings),
) -> u64 {
    let value = noise(bytes, 3);
    case.publish((0..count).map(|n| case.record(Some(&format!("k{n}")), value.clone())))
        .await;
    let started = Log::new();
    let log = started.clone();
    let router = Router::new().raw(move |record: Record| {
        log.push(record.offset());
        std::future::pending::<()>()
    });
    let mut settings = case.settings();
    settings.concurrency = 8;
    // Each worker keeps a permit for itself, and a handful of records may miss one of several workers.
    settings.workers = Some(1);
    settings.drain_timeout = Duration::ZERO;
    change(&mut settings);
    let group = settings.group.clone();
    let member = Member::start(&case.kafka, settings, router);
    started.reach("handlers started", 8).await;
    // The client has fetched far more by the time the group's state was asked for a few times.
    for _ in 0..20 {
        assert_eq!(case.members().await.len(), 1, "{group}");
    }
    assert_eq!(started.len(), 8, "no more handlers than the concurrency");
    let report = member.stop().await;
    assert_eq!((report.settled, report.clean), (0, false));
    report.received
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_records_are_taken_than_may_be_in_flight() {
    let Some(case) = Case::new("it-g4", 1).await else {
        return;
    };
    let taken = taken(&case, 5000, 100, |settings| {
        settings.in_flight_records_max = Some(100)
    })
    .await;
    assert_eq!(taken, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_bytes_are_taken_than_may_be_in_flight() {
    let Some(mut case) = Case::new("it-g4", 1).await else {
        return;
    };
    set(&mut case.kafka, "fetch.message.max.bytes=1000000");
    let taken = taken(&case, 60, 900_000, |settings| {
        settings.in_flight_bytes_max = 10_000_000
    })
    .await;
    assert!(
        (8..=12).contains(&taken),
        "{taken} records of 900 kB with room for 11"
    );
}
