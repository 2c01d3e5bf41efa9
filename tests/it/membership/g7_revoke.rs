//! G7: on a revoke nothing new starts, what runs is drained up to a deadline and committed before the partition goes, and
//! results that come later count for nothing.

use crate::support::{Case, Gate, Log, Member, Place, WITHIN, place, set};
use evenkeel::consumer::{Assignment, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::eventually;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A handler that takes `takes` and logs the starts and ends of its member.
fn router(
    member: char,
    takes: Duration,
    started: &Log<Place>,
    done: &Log<(char, Place)>,
) -> Router {
    let (started, done) = (started.clone(), done.clone());
    Router::new().raw(move |record: Record| {
        let (started, done) = (started.clone(), done.clone());
        async move {
            started.push(place(&record));
            tokio::time::sleep(takes).await;
            done.push((member, place(&record)));
        }
    })
}

/// A member joins and the first one leaves while handlers run: every record is handled once, by one of the two.
async fn check(assignment: Assignment, change: impl Fn(&mut ConsumerSettings)) {
    const RECORDS: usize = 5000;
    let Some(case) = Case::new("it-g7", 6).await else {
        return;
    };
    case.publish_load(RECORDS, 300).await;
    let (started, done) = (Log::new(), Log::new());
    let start = |name| {
        let mut settings = case.settings();
        settings.assignment = assignment;
        settings.concurrency = 8;
        change(&mut settings);
        let router = router(name, Duration::from_millis(20), &started, &done);
        Member::start(&case.kafka, settings, router)
    };
    let by = |name: char| done.entries().iter().filter(|(by, _)| *by == name).count();
    let first = start('a');
    done.reach("records handled", 200).await;
    let second = start('b');
    eventually("the second member works", WITHIN, || async {
        (by('b') > 100).then_some(())
    })
    .await;
    assert!(first.stop().await.clean);
    case.all_committed().await;
    assert!(second.stop().await.clean);
    assert!(by('a') > 200, "{} records by the first", by('a'));
    let mut times: HashMap<Place, usize> = HashMap::new();
    for place in started.entries() {
        *times.entry(place).or_default() += 1;
    }
    let twice = times.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "records started by both");
    assert_eq!((times.len(), done.len()), (RECORDS, RECORDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_partition_goes_without_a_redelivery_with_cooperative_sticky() {
    check(Assignment::CooperativeSticky, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_partition_goes_without_a_redelivery_with_range() {
    check(Assignment::Range, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_assignment_moves_drained_partitions_without_redelivery() {
    check(Assignment::Broker, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_while_intake_has_no_room() {
    check(Assignment::CooperativeSticky, |settings| {
        settings.in_flight_records_max = Some(settings.concurrency);
    })
    .await;
}

/// Holds the records at offset 0 and logs all that are done.
fn holding(gate: &Gate, started: &Log<Place>, done: &Log<Place>) -> Router {
    let (gate, started, done) = (gate.clone(), started.clone(), done.clone());
    Router::new().raw(move |record: Record| {
        let (gate, started, done) = (gate.clone(), started.clone(), done.clone());
        async move {
            started.push(place(&record));
            if record.offset() == 0 {
                gate.pass().await;
            }
            done.push(place(&record));
        }
    })
}

/// The revoke waits no longer than that, and the late result is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_handler_is_fenced_at_the_revoke_deadline() {
    let Some(case) = Case::new("it-g7", 2).await else {
        return;
    };
    let records = |partition: i32| {
        // Keys of their own in each partition: one key is one lane across partitions.
        [0, 1].map(|number| {
            let key = format!("{partition}-{number}");
            let mut record = case.record(Some(&key), "");
            record.partition = Some(partition);
            record
        })
    };
    case.publish((0..2).flat_map(records)).await;
    let mut settings = case.settings();
    settings.revoke_timeout = Duration::from_secs(1);
    let (gate, started, done) = (Gate::closed(), Log::new(), Log::new());
    let first = Member::start(
        &case.kafka,
        settings.clone(),
        holding(&gate, &started, &done),
    );
    started.reach("records started", 4).await;
    done.reach("records beside the stuck ones", 2).await;

    let (second_gate, second_started, second_done) = (Gate::closed(), Log::new(), Log::new());
    let joined_at = Instant::now();
    let router = holding(&second_gate, &second_started, &second_done);
    let second = Member::start(&case.kafka, settings, router);
    second_started.reach("stuck records handed over", 1).await;
    assert!(
        joined_at.elapsed() < Duration::from_secs(20),
        "{:?}",
        joined_at.elapsed()
    );
    let (moved, offset) = second_started.entries()[0];
    assert_eq!(
        offset, 0,
        "the second record of its partition was settled and committed by the first member"
    );
    let kept = 1 - moved;
    // The second member has committed once: what the first one commits from now on would not be covered up by it.
    let offsets = case.offsets();
    let metadata = offsets.metadata_of(moved).await;
    let mut more = case.record(Some("more"), "");
    more.partition = Some(moved);
    case.publish([more]).await;
    eventually("the second member commits", WITHIN, || async {
        (offsets.metadata_of(moved).await != metadata).then_some(())
    })
    .await;

    gate.open();
    // The first member's committer has come by: it has committed what the first member still owns.
    offsets.reach(kept, 2).await;
    done.reach("late results", 4).await;
    let mut more = case.record(Some("third"), "2");
    more.partition = Some(kept);
    case.publish([more]).await;
    offsets.reach(kept, 3).await;
    assert_eq!(
        offsets.committed_of(moved).await,
        0,
        "a late result of the member before moved the watermark"
    );
    second_gate.open();
    offsets.reach(moved, 3).await;
    assert_eq!(second_done.entries(), [(moved, 2), (moved, 0)]);
    assert!(first.stop().await.clean && second.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_partition_ignores_what_ran_before() {
    let Some(case) = Case::new("it-g7", 2).await else {
        return;
    };
    let record = |partition: i32, key: &str| {
        let mut record = case.record(Some(key), "");
        record.partition = Some(partition);
        record
    };
    case.publish([record(0, "a"), record(0, "b")]).await;
    let (old, new) = (Gate::closed(), Gate::closed());
    let (started, done) = (Log::new(), Log::new());
    let (gates, starts, ends) = ([old.clone(), new.clone()], started.clone(), done.clone());
    let router = Router::new().raw(move |record: Record| {
        let (gates, starts, ends) = (gates.clone(), starts.clone(), ends.clone());
        async move {
            starts.push(place(&record));
            if place(&record) == (0, 0) {
                let earlier = starts
                    .entries()
                    .iter()
                    .filter(|place| **place == (0, 0))
                    .count()
                    - 1;
                gates[earlier].pass().await;
                ends.push(earlier);
            }
        }
    });
    // With this assignor every rebalance revokes all partitions. The other member wants none of this topic, so its coming
    // gives the partition back to whom it was taken from.
    let mut settings = case.settings();
    settings.assignment = Assignment::Range;
    settings.revoke_timeout = Duration::from_millis(300);
    let member = Member::start(&case.kafka, settings.clone(), router);
    started.reach("records", 2).await;
    let Some(elsewhere) = Case::new("it-g7", 1).await else {
        return;
    };
    settings.topics = vec![elsewhere.topic];
    let other = Member::start(&case.kafka, settings, Router::new());
    other.joined().await;
    case.publish([record(0, "c")]).await;
    started.reach("records", 3).await;
    assert_eq!(
        started.entries()[2],
        (0, 2),
        "the key of the record that still runs waits, and the settled one does not come again"
    );

    old.open();
    started.reach("deliveries", 4).await;
    assert_eq!((started.entries()[3], done.entries()), ((0, 0), vec![0]));
    // The committer has come by: it has committed another partition, and nothing that would cover up this one's commit.
    let offsets = case.offsets();
    case.publish([record(1, "d")]).await;
    offsets.reach(1, 1).await;
    assert_eq!(
        offsets.committed_of(0).await,
        0,
        "a result of the assignment before moved the watermark"
    );
    new.open();
    offsets.reach(0, 3).await;
    assert_eq!(done.entries(), [0, 1]);
    assert!(member.stop().await.clean && other.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_members_that_come_and_go_lose_nothing() {
    let Some(mut case) = Case::new("it-g7", 6).await else {
        return;
    };
    // A member that leaves in the middle of a rebalance may be waited for as long as its session lasts.
    set(&mut case.kafka, "session.timeout.ms=6000");
    let (started, done) = (Log::new(), Log::new());
    let start = |name| {
        let router = router(name, Duration::from_millis(3), &started, &done);
        Member::start(&case.kafka, case.settings(), router)
    };
    let stays = start('a');
    stays.joined().await;
    let come_and_go = async {
        for _ in 0..10 {
            case.publish_load(300, 50).await;
            let guest = start('b');
            guest.joined().await;
            assert!(guest.stop().await.clean);
        }
        case.all_committed().await;
    };
    let offsets = case.offsets();
    let watch = async {
        let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            for (partition, offset) in offsets.committed().await.unwrap_or_default() {
                let before = seen.insert(partition, offset).unwrap_or(0);
                assert!(
                    before <= offset,
                    "{partition} went from {before} to {offset}"
                );
            }
        }
    };
    tokio::select! {
        () = come_and_go => {}
        () = watch => {}
    }
    assert!(stays.stop().await.clean);
    let places: std::collections::HashSet<Place> =
        done.entries().into_iter().map(|(_, place)| place).collect();
    assert_eq!(places.len(), 3000);
    assert_eq!(
        done.len(),
        3000,
        "clean stops and drained revokes redeliver nothing"
    );
}
