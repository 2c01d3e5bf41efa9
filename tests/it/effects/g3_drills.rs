//! G3 under drills: on each transactional store, members that are killed, events that come twice, commits that are refused,
//! crashes at every point of a delivery, and stores that are away: one effect for each event, in order, and balances add up.

use crate::support::balances::{self, CrashAt, Store};
use crate::support::member_process::{self, Spec, Work};
use crate::support::{Case, Member, WITHIN};
use evenkeel::consumer::StopWhen;
use evenkeel::event::OutgoingRecord;
use evenkeel::testing::drills::{CrashPoint, Drills};
use evenkeel::testing::{ChildProcess, eventually, postgres};
use std::time::{Duration, Instant};

const ACCOUNTS: u64 = 40;
const KILL_EVERY: Duration = Duration::from_secs(3);

/// How long members are killed; `EVENKEEL_DRILL_SECONDS` makes it longer.
fn drill_for() -> Duration {
    let seconds = std::env::var("EVENKEEL_DRILL_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(15))
}

/// A store on SQLite, in a folder that goes with it.
fn sqlite(folder: &tempfile::TempDir) -> Store {
    Store::Sqlite(folder.path().join("accounts.db"))
}

/// A store in a new database of PostgreSQL, if there is one.
async fn in_postgres() -> Option<Store> {
    let database = postgres().await?.database().await;
    Some(Store::Postgres(database.expect("a database")))
}

/// `numbers` steps for each account, each published twice in a row.
fn steps(case: &Case, numbers: std::ops::Range<u64>) -> Vec<OutgoingRecord> {
    let publisher = case.publisher();
    let step = |number| (0..ACCOUNTS).map(move |account| (format!("a{account}"), number));
    let records = numbers.flat_map(step);
    let records = records.map(|(account, number)| case.step(&publisher, &account, number));
    let twice = records.flat_map(|record| [record.clone(), record]);
    twice.collect()
}

async fn settled(case: &Case, records: usize) {
    let offsets = case.offsets();
    eventually("everything is settled", 3 * WITHIN, || async {
        let committed = offsets.committed().await?;
        (committed.values().sum::<i64>() == records as i64).then_some(())
    })
    .await;
}

/// Kills one of three members every 3 s while everything comes twice and a tenth of the commits is refused.
async fn members_are_killed(test: &str, case: &Case, store: &Store) {
    let work = Work::Account {
        store: store.clone(),
        refused: 0.1,
        crash: None,
    };
    let spec = Spec::new(case, work);
    let mut members: Vec<ChildProcess> = (0..3).map(|_| spec.start(test)).collect();
    let (began, mut number, mut published, mut kills) = (Instant::now(), 0, 0, 0);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + KILL_EVERY, KILL_EVERY);
    while began.elapsed() < drill_for() {
        let batch = steps(case, number..number + 25);
        (number, published) = (number + 25, published + batch.len());
        case.publish(batch).await;
        tick.tick().await;
        let slot = kills % members.len();
        assert!(members[slot].is_running(), "a member ends by a kill only");
        members[slot].kill().await;
        members[slot] = spec.start(test);
        kills += 1;
    }
    settled(case, published).await;
    assert!(kills >= 4, "{kills} kills");
    balances::check(store, ACCOUNTS, number).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_killed_members_leave_one_effect_per_event() {
    let Some(case) = member_process::case("it-drill", 6).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let test = "effects::g3_drills::on_sqlite_killed_members_leave_one_effect_per_event";
    members_are_killed(test, &case, &sqlite(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_killed_members_leave_one_effect_per_event() {
    let Some(case) = member_process::case("it-drill", 6).await else {
        return;
    };
    let Some(store) = in_postgres().await else {
        return;
    };
    let test = "effects::g3_drills::on_postgres_killed_members_leave_one_effect_per_event";
    members_are_killed(test, &case, &store).await;
}

/// Lets a member crash at each point, then another go on.
async fn members_crash(test: &str, case: &Case, store: &Store) {
    let mut number = 0;
    let mut published = 0;
    for point in [
        CrashPoint::BeforeEffect,
        CrashPoint::BeforeCommit,
        CrashPoint::InGroup,
        CrashPoint::AfterCommit,
    ] {
        let batch = steps(case, number..number + 5);
        (number, published) = (number + 5, published + batch.len());
        case.publish(batch).await;
        let work = |crash| Work::Account {
            store: store.clone(),
            refused: 0.0,
            crash,
        };
        let crash = CrashAt { point, nth: 30 };
        let member = Spec::new(case, work(Some(crash))).start(test);
        let crashed = member.finished(WITHIN).await;
        assert_ne!(crashed.code, Some(0), "it crashes at {point:?}");
        let after_crash = balances::effects(store).await;
        assert!(
            after_crash < number * ACCOUNTS,
            "{point:?}: it crashed in the middle"
        );
        let mut member = Spec::new(case, work(None)).start(test);
        settled(case, published).await;
        member.kill().await;
        balances::check(store, ACCOUNTS, number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_crash_anywhere_leaves_one_effect() {
    let Some(case) = member_process::case("it-crash", 3).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let test = "effects::g3_drills::on_sqlite_a_crash_anywhere_leaves_one_effect";
    members_crash(test, &case, &sqlite(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_crash_anywhere_leaves_one_effect() {
    let Some(case) = member_process::case("it-crash", 3).await else {
        return;
    };
    let Some(store) = in_postgres().await else {
        return;
    };
    let test = "effects::g3_drills::on_postgres_a_crash_anywhere_leaves_one_effect";
    members_crash(test, &case, &store).await;
}

/// One process, everything at once: twice, refused, answers lost, a slow store that is down for a while.
#[tokio::test(flavor = "multi_thread")]
async fn all_drills_together_leave_one_effect_and_no_dead_letter() {
    let Some(case) = Case::new("it-drills", 3).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let store = sqlite(&folder);
    let drills = Drills::seeded(11)
        .deliver_twice()
        .refuse_commits(0.1)
        .lose_answers(0.1)
        .slow_store(Duration::from_millis(2))
        .store_down(200, Duration::from_secs(3));
    let batch = steps(&case, 0..20);
    let published = batch.len();
    case.publish(batch).await;
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    settings.retry.backoff.initial = Duration::from_millis(5);
    let router = balances::router(&store, &case.group, Some(&drills)).await;
    let service = drills.wrap(router);
    let report = Member::start(&case.kafka, settings, service).ended().await;
    assert_eq!(report.settled, published as u64);
    assert_eq!((report.dead_letters, report.parked), (0, 0));
    let drilled = drills.report();
    drilled.check().expect("the handlers are idempotent");
    let handler = drilled.handlers.values().next().expect("it was drilled");
    assert!(handler.refused > 20, "{handler:?}");
    balances::check(&store, ACCOUNTS, 20).await;
}

/// PostgreSQL is stopped, then frozen: the breaker holds the handlers, no event is given up, and it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_outage_costs_time_and_no_dead_letter() {
    use evenkeel::testing::TestPostgres;
    let Some(case) = Case::new("it-store-down", 3).await else {
        return;
    };
    // One of its own, as it is taken down.
    let Some(mut server) = evenkeel::testing::required(TestPostgres::start().await) else {
        return;
    };
    let store = Store::Postgres(
        server
            .database()
            .await
            .expect("the server creates a database"),
    );
    let router = balances::router(&store, &case.group, None).await;
    let mut settings = case.settings();
    settings.retry.backoff.initial = Duration::from_millis(20);
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    let mut published = 0;
    for (round, outage) in [Outage::Down, Outage::StandsStill].into_iter().enumerate() {
        let numbers = (round as u64 * 20)..(round as u64 * 20 + 10);
        let more = numbers.end..numbers.end + 10;
        let batch = steps(&case, numbers);
        published += batch.len();
        case.publish(batch).await;
        settled(&case, published).await;
        outage.begin(&mut server).await;
        let batch = steps(&case, more);
        published += batch.len();
        case.publish(batch).await;
        tokio::time::sleep(outage.lasts()).await;
        outage.end(&mut server).await;
        settled(&case, published).await;
    }
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (0, 0));
    balances::check(&store, ACCOUNTS, 40).await;
}

/// A handler's time is short, and what it waits for outside is long: its turn, the claim, the commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgres_shows_within_seconds_and_counts_no_attempt() {
    use evenkeel::testing::TestPostgres;
    let Some(case) = Case::new("it-store-still", 3).await else {
        return;
    };
    let Some(server) = evenkeel::testing::required(TestPostgres::start().await) else {
        return;
    };
    let store = Store::Postgres(
        server
            .database()
            .await
            .expect("the server creates a database"),
    );
    let router = balances::router(&store, &case.group, None).await;
    let mut settings = case.settings();
    settings.handler_timeout = Some(Duration::from_secs(1));
    settings.retry.attempts_max = 3;
    settings.retry.park_delays = Vec::new();
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    let batch = steps(&case, 0..5);
    let published = batch.len();
    case.publish(batch).await;
    settled(&case, published).await;
    server.freeze().await.expect("the server freezes");
    let frozen = Instant::now();
    let batch = steps(&case, 5..10);
    let published = published + batch.len();
    case.publish(batch).await;
    eventually("the health names the inbox", WITHIN, || async {
        let complaints = member.health.not_ready();
        let names_it = |(_, reason): &(String, String)| reason.contains("inbox is down");
        complaints.iter().any(names_it).then_some(())
    })
    .await;
    assert!(
        frozen.elapsed() < Duration::from_secs(12),
        "{:?}",
        frozen.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.thaw().await.expect("the server thaws");
    settled(&case, published).await;
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (0, 0));
    balances::check(&store, ACCOUNTS, 10).await;
}

enum Outage {
    Down,
    StandsStill,
}

impl Outage {
    fn lasts(&self) -> Duration {
        match self {
            Self::Down => drill_for() / 2,
            Self::StandsStill => Duration::from_secs(5),
        }
    }

    async fn begin(&self, server: &mut evenkeel::testing::TestPostgres) {
        let begun = match self {
            Self::Down => server.stop().await,
            Self::StandsStill => server.freeze().await,
        };
        begun.expect("the outage begins");
    }

    async fn end(&self, server: &mut evenkeel::testing::TestPostgres) {
        let ended = match self {
            Self::Down => server.start_again().await,
            Self::StandsStill => server.thaw().await,
        };
        ended.expect("the outage ends");
    }
}
