//! G5: a handler may take longer than the group allows between polls; one that is stuck is named.

use crate::support::{Case, Gate, Log, Member, POLL_INTERVAL_MAX, outlast_the_poll_interval, set};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use std::time::{Duration, Instant};

/// It takes longer than the poll interval.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handler_keeps_its_member_and_is_named() {
    let Some(mut case) = Case::new("it-g5", 1).await else {
        return;
    };
    set(&mut case.kafka, "session.timeout.ms=6000");
    set(&mut case.kafka, "max.poll.interval.ms=6000");
    case.publish_load(50, 5).await;
    let (gate, started, done) = (Gate::closed(), Log::new(), Log::new());
    let (held, starts, ends) = (gate.clone(), started.clone(), done.clone());
    let router = Router::new().raw(move |record: Record| {
        let (held, starts, ends) = (held.clone(), starts.clone(), ends.clone());
        async move {
            starts.push(record.offset());
            if record.offset() == 0 {
                held.pass().await;
            }
            ends.push(record.offset());
        }
    });
    let mut settings = case.settings();
    settings.stuck_handler_after = Duration::from_secs(1);
    // The stuck record and the nine behind it leave no room, so the client is not asked for records any more.
    settings.concurrency = 10;
    settings.in_flight_records_max = Some(10);
    let began = Instant::now();
    let member = Member::start(&case.kafka, settings, router);
    done.reach("records of other keys", 36).await;
    let before = case.members().await;
    assert_eq!(before.len(), 1);
    let complaint = member.complaint("handlers").await;
    assert!(
        complaint.contains(&format!("{}/0@0", case.topic)),
        "{complaint}"
    );
    outlast_the_poll_interval(began).await;
    assert_eq!(
        case.members().await,
        before,
        "the same member, not one that joined again"
    );
    assert_eq!(case.offsets().committed_of(0).await, 0);

    gate.open();
    case.all_committed().await;
    member.joined().await;
    let mut starts = started.entries();
    starts.sort_unstable();
    assert!(starts.into_iter().eq(0..50), "each record was handled once");
    let report = member.stop().await;
    assert_eq!((report.settled, report.clean), (50, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_handler_keeps_its_place_in_the_group() {
    let Some(mut case) = Case::new("it-g5", 1).await else {
        return;
    };
    set(&mut case.kafka, "session.timeout.ms=6000");
    set(&mut case.kafka, "max.poll.interval.ms=6000");
    case.publish_load(1, 1).await;
    let handled = Log::new();
    let log = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        let log = log.clone();
        async move {
            // What a handler should not do, for longer than a member may stay away.
            std::thread::sleep(POLL_INTERVAL_MAX + Duration::from_secs(1));
            log.push(record.offset());
        }
    });
    let member = Member::start(&case.kafka, case.settings(), router);
    member.joined().await;
    let before = case.members().await;
    case.all_committed().await;
    assert_eq!(case.members().await, before);
    assert_eq!(handled.entries(), [0]);
    member.stop().await;
}
