//! Live control: what an operator says to a running group through its control topic, holds within a second, exactly, and is
//! acknowledged.

mod answers;
mod hidden;
pub(crate) mod operator;
mod pauses;

use crate::support::{Gate, Log, Member, WITHIN, place};
use evenkeel::control::{Action, CommandOutcome, Scope};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::testing::eventually;
use operator::{Operator, held, in_order_by_key, load, logging, of};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// On a group of three members.
#[tokio::test(flavor = "multi_thread")]
async fn pause_skip_and_resume_under_load_are_exact() {
    const PARTITIONS: i32 = 6;
    const PAUSED: i32 = 2;
    let Some(case) = Operator::new(PARTITIONS).await else {
        return;
    };
    let case = Arc::new(case);
    let handled = Log::new();
    let own = [Log::new(), Log::new(), Log::new()];
    let members = own.each_ref().map(|own| {
        let (handled, own) = (handled.clone(), own.clone());
        let router = Router::new().raw(move |record: Record| {
            own.push(record.partition());
            handled.push((Instant::now(), place(&record)));
            async {}
        });
        Member::start(&case.kafka, case.settings(), router)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = load(&case, PARTITIONS, &stop);
    // Each has its two partitions: the group is in no rebalance.
    eventually("all three members work", WITHIN, || async {
        let latest = own.each_ref().map(|own| own.entries());
        let latest = latest.iter().flat_map(|own| own.iter().rev().take(100));
        let mut working: Vec<i32> = latest.copied().collect();
        working.sort_unstable();
        working.dedup();
        let all_work = own.iter().all(|own| own.len() >= 200);
        (all_work && working.len() == PARTITIONS as usize).then_some(())
    })
    .await;

    let scope = case.partition_scope(PAUSED);
    let (pause, paused_at) = case
        .command(Action::Pause {
            scope: scope.clone(),
        })
        .await;
    assert_eq!(
        case.acknowledged(&pause, &[PAUSED]).await,
        [CommandOutcome::Applied]
    );
    let others_before = handled.len();
    handled
        .reach("records beside the paused partition", others_before + 1000)
        .await;
    let noted = |member: &Member| member.notes().len();
    assert_eq!(
        members.iter().map(noted).sum::<usize>(),
        1,
        "one owner shows the pause"
    );
    let limit = paused_at + Duration::from_secs(1);
    let late = |handled: &Log<_>| {
        of(handled, PAUSED)
            .iter()
            .filter(|(at, _)| *at > limit)
            .count()
    };
    assert_eq!(
        late(&handled),
        0,
        "handled later than a second after the pause"
    );
    let reached = of(&handled, PAUSED).iter().map(|(_, offset)| *offset).max();
    let reached = reached.expect("it was handled before the pause");

    // One of those that wait, and there are more behind it.
    let skipped = reached + 3;
    let offsets = case.offsets();
    eventually("the record to be skipped is there", WITHIN, || async {
        (offsets.ends().await[&PAUSED] > skipped + 10).then_some(())
    })
    .await;
    let record = case.position(PAUSED, skipped);
    let (skip, _) = case.command(Action::Skip { record }).await;
    eventually("the owner says that the skip waits", WITHIN, || async {
        let history = case.history().await;
        let recorded = history.into_iter().find(|at| at.command.id == skip.id)?;
        recorded
            .acks
            .iter()
            .any(|ack| ack.outcome == CommandOutcome::Pending)
            .then_some(())
    })
    .await;
    assert_eq!(late(&handled), 0, "the skip let something through");

    let (resume, resumed_at) = case.command(Action::Resume { scope }).await;
    assert_eq!(
        case.acknowledged(&resume, &[PAUSED]).await,
        [CommandOutcome::Applied]
    );
    assert_eq!(
        case.acknowledged(&skip, &[PAUSED]).await,
        [CommandOutcome::Skipped]
    );
    stop.store(true, Ordering::Relaxed);
    let rounds = publishing.await.expect("the task does not panic");
    case.all_committed().await;
    for member in members {
        assert!(member.stop().await.clean);
    }

    let first_after = of(&handled, PAUSED)
        .into_iter()
        .map(|(at, _)| at)
        .find(|at| *at > resumed_at);
    assert!(first_after.is_some_and(|at| at < resumed_at + Duration::from_secs(5)));
    for partition in 0..PARTITIONS {
        let mut offsets: Vec<i64> = of(&handled, partition)
            .iter()
            .map(|(_, offset)| *offset)
            .collect();
        in_order_by_key(&offsets);
        offsets.sort_unstable();
        let expected: Vec<i64> = (0..rounds as i64)
            .filter(|offset| (partition, *offset) != (PAUSED, skipped))
            .collect();
        assert_eq!(
            offsets, expected,
            "each record of partition {partition} once, but the skipped one"
        );
    }
    let letters = case
        .read(&format!("dlq.{}.{}", case.group, case.topic))
        .await;
    let [letter] = letters.try_into().expect("one dead letter");
    let header = |name: &str| letter.headers.last(name).map(String::from_utf8_lossy);
    assert_eq!(
        header("__dlq.errors.offset").as_deref(),
        Some(&*skipped.to_string())
    );
    assert_eq!(
        header("evenkeel.dlq.error.stage").as_deref(),
        Some("skipped")
    );
    assert_eq!(header("evenkeel.dlq.skipped-by").as_deref(), Some("ada"));
    assert_eq!(
        header("evenkeel.dlq.skipped-why").as_deref(),
        Some("a test")
    );
    assert_eq!(
        header("evenkeel.dlq.skip-command").as_deref(),
        Some(&*skip.id)
    );
    let given: Vec<String> = case
        .history()
        .await
        .into_iter()
        .map(|at| at.command.id)
        .collect();
    assert_eq!(given, [pause.id, skip.id, resume.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_rebalance_and_a_full_restart() {
    let Some(case) = Operator::new(4).await else {
        return;
    };
    let handled = Log::new();
    let start = || Member::start(&case.kafka, case.settings(), logging(&handled));
    let first = start();
    first.joined().await;
    let topic = case.topic.clone();
    let pause = case.pause(Scope::Topic(topic.clone())).await;
    case.publish_rounds(&[0, 1, 2, 3], 0..50).await;

    let second = start();
    let is_paused = |member: &Member| {
        let notes = member.notes();
        notes.iter().any(|(_, note)| note.contains("paused"))
    };
    eventually(
        "the second member has paused partitions",
        WITHIN,
        || async { is_paused(&second).then_some(()) },
    )
    .await;
    assert!(first.stop().await.clean);
    assert!(second.stop().await.clean);
    let third = start();
    eventually("the third member has paused partitions", WITHIN, || async {
        is_paused(&third).then_some(())
    })
    .await;
    // Resuming one partition, which the pause of the topic still covers, changes nothing.
    let scope = case.partition_scope(1);
    let (no_resume, _) = case.command(Action::Resume { scope }).await;
    assert_eq!(
        case.acknowledged(&no_resume, &[1]).await,
        [CommandOutcome::Applied]
    );
    assert_eq!(handled.len(), 0, "handled while it was paused");

    case.resume(Scope::Topic(topic)).await;
    handled.reach("records handled", 200).await;
    case.all_committed().await;
    assert!(third.notes().is_empty());
    assert!(third.stop().await.clean);
    assert_eq!(handled.len(), 200, "each once");
    let history = case.history().await;
    let recorded = history.iter().find(|at| at.command.id == pause.id);
    let acks = &recorded.expect("it is in the history").acks;
    let mut partitions: Vec<_> = acks.iter().flat_map(|ack| &ack.partitions).collect();
    partitions.sort_unstable();
    let each: Vec<_> = (0..4).map(|at| case.partition_scope(at)).collect();
    assert_eq!(
        partitions,
        each.iter().collect::<Vec<_>>(),
        "new owners do not acknowledge it again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_pauses_and_resumes_under_load_lose_and_duplicate_nothing() {
    const PARTITIONS: i32 = 4;
    let Some(case) = Operator::new(PARTITIONS).await else {
        return;
    };
    let case = Arc::new(case);
    let handled = Log::new();
    let slow = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                handled.push((Instant::now(), place(&record)));
            }
        })
    };
    // Fewer than what comes: at each pause records wait in their lanes, which have to come again.
    let mut settings = case.settings();
    settings.concurrency = 4;
    let member = Member::start(&case.kafka, settings, slow);
    member.joined().await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = load(&case, PARTITIONS, &stop);
    handled.reach("records handled", 200).await;
    for turn in 0..8 {
        let scope = match turn % 2 {
            0 => Scope::Group,
            _ => case.partition_scope(turn % PARTITIONS),
        };
        case.command(Action::Pause {
            scope: scope.clone(),
        })
        .await;
        let (resume, _) = case
            .command(Action::Resume {
                scope: scope.clone(),
            })
            .await;
        let concerned: Vec<i32> = (0..PARTITIONS)
            .filter(|number| scope.covers(&case.topic, *number))
            .collect();
        case.acknowledged(&resume, &concerned).await;
        let before = handled.len();
        handled
            .reach("records handled after the pause", before + 100)
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = publishing.await.expect("the task does not panic");
    case.all_committed().await;
    assert!(member.stop().await.clean);
    for partition in 0..PARTITIONS {
        let mut offsets: Vec<i64> = of(&handled, partition)
            .iter()
            .map(|(_, offset)| *offset)
            .collect();
        in_order_by_key(&offsets);
        offsets.sort_unstable();
        assert_eq!(
            offsets,
            (0..rounds as i64).collect::<Vec<_>>(),
            "partition {partition}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_waiting_for_retry_are_skipped_or_retried_at_once() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let (attempts, works) = (Log::new(), Arc::new(AtomicBool::new(false)));
    let router = {
        let (attempts, works) = (attempts.clone(), Arc::clone(&works));
        Router::new().raw(move |record: Record| {
            let (attempts, works) = (attempts.clone(), Arc::clone(&works));
            async move {
                attempts.push(record.offset());
                match record.offset() < 2 && !works.load(Ordering::Relaxed) {
                    true => Err(HandlerError::from(std::io::Error::other("not now"))),
                    false => Ok(()),
                }
            }
        })
    };
    let mut settings = case.settings();
    settings.retry.backoff.initial = Duration::from_secs(600);
    settings.retry.backoff.max = Duration::from_secs(600);
    let member = Member::start(&case.kafka, settings, router);
    case.publish_rounds(&[0], 0..3).await;
    attempts.reach("attempts", 3).await;

    let record = case.position(0, 0);
    let (skip, _) = case
        .command(Action::Skip {
            record: record.clone(),
        })
        .await;
    assert_eq!(
        case.acknowledged(&skip, &[0]).await,
        [CommandOutcome::Skipped]
    );
    let settled = case.position(0, 2);
    let (late, _) = case.command(Action::Skip { record: settled }).await;
    assert_eq!(
        case.acknowledged(&late, &[0]).await,
        [CommandOutcome::AlreadySettled]
    );
    works.store(true, Ordering::Relaxed);
    let (retry, _) = case
        .command(Action::RetryNow {
            scope: Scope::Group,
        })
        .await;
    assert_eq!(
        case.acknowledged(&retry, &[0]).await,
        [CommandOutcome::Applied]
    );
    case.all_committed().await;
    assert_eq!(
        attempts.entries().len(),
        4,
        "one more attempt, of the one that waited"
    );
    let report = member.stop().await;
    assert_eq!((report.settled, report.dead_letters), (3, 0));
    let letters = case
        .read(&format!("dlq.{}.{}", case.group, case.topic))
        .await;
    assert_eq!(letters.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_is_pending_while_the_records_handler_runs() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let (gate, started) = (Gate::closed(), Log::new());
    let router = held(&started, &gate, |offset| match offset {
        0 => Err(HandlerError::from(std::io::Error::other("not now"))),
        _ => Ok(()),
    });
    let member = Member::start(&case.kafka, case.settings(), router);
    case.publish_rounds(&[0], 0..2).await;
    started.reach("handlers started", 2).await;
    let mut skips = Vec::new();
    for offset in [0, 1] {
        let record = case.position(0, offset);
        let (skip, _) = case.command(Action::Skip { record }).await;
        let is_pending = async || {
            let history = case.history().await;
            let recorded = history.into_iter().find(|at| at.command.id == skip.id)?;
            (recorded.acks.len() == 1 && recorded.acks[0].outcome == CommandOutcome::Pending)
                .then_some(())
        };
        eventually("the skip is pending", WITHIN, is_pending).await;
        skips.push(skip);
    }
    gate.open();
    assert_eq!(
        case.acknowledged(&skips[0], &[0]).await,
        [CommandOutcome::Skipped]
    );
    assert_eq!(
        case.acknowledged(&skips[1], &[0]).await,
        [CommandOutcome::AlreadySettled]
    );
    case.all_committed().await;
    assert_eq!(started.len(), 2, "no second attempt");
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_until_removed_and_outlives_a_member() {
    const RATE: u32 = 50;
    let Some(case) = Operator::new(2).await else {
        return;
    };
    let handled = Log::new();
    let start = || Member::start(&case.kafka, case.settings(), logging(&handled));
    let first = start();
    first.joined().await;
    let (rate, _) = case
        .command(Action::Rate {
            records_per_second: NonZeroU32::new(RATE),
        })
        .await;
    assert_eq!(
        case.acknowledged(&rate, &[0, 1]).await,
        [CommandOutcome::Applied; 2]
    );
    case.publish_rounds(&[0, 1], 0..1000).await;
    handled.reach("records handled", 100).await;
    assert!(first.stop().await.clean);
    let second = start();
    let before = handled.len();
    handled
        .reach("records handled by the next member", before + 100)
        .await;
    let times: Vec<Instant> = handled.entries().into_iter().map(|(at, _)| at).collect();
    for member in [&times[..before], &times[before..]] {
        let took = member[member.len() - 1] - member[0];
        let due = took.as_secs_f64() * f64::from(RATE) + f64::from(RATE) / 10.0 + 1.0;
        assert!(
            member.len() as f64 <= due * 1.1,
            "{} in {took:?}",
            member.len()
        );
    }
    let (off, _) = case
        .command(Action::Rate {
            records_per_second: None,
        })
        .await;
    assert_eq!(
        case.acknowledged(&off, &[0, 1]).await,
        [CommandOutcome::Applied; 2]
    );
    // At the rate this would take longer than the test waits.
    let wait = Instant::now();
    handled.reach("records handled", 2000).await;
    assert!(
        wait.elapsed() < Duration::from_secs(20),
        "{:?}",
        wait.elapsed()
    );
    assert!(second.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_command_is_ignored_and_the_next_holds() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    member.joined().await;
    let deep = "[".repeat(100_000).into_bytes();
    for value in [
        &b"\xff\xfe"[..],
        b"{}",
        b"null",
        b"{\"action\":\"explode\"}",
        &deep,
        b"",
    ] {
        case.write("pause/group", Some(value.to_vec())).await;
        case.write("command/1", Some(value.to_vec())).await;
    }
    case.write("", None).await;
    case.pause(Scope::Group).await;
    assert!(member.stop().await.clean);
    // A member that begins with such a topic starts all the same.
    let again = Member::start(&case.kafka, case.settings(), logging(&handled));
    eventually("the pause is in force", WITHIN, || async {
        (again.notes().len() == 1).then_some(())
    })
    .await;
    assert!(again.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_record_dropped_during_handling_does_not_wait_again() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let (gate, attempts) = (Gate::closed(), Log::new());
    let router = {
        let (gate, attempts) = (gate.clone(), attempts.clone());
        Router::new().raw(move |record: Record| {
            let (gate, attempts) = (gate.clone(), attempts.clone());
            async move {
                attempts.push(record.offset());
                if attempts.len() > 1 {
                    gate.pass().await;
                }
                Err::<(), _>(HandlerError::transient("not now"))
            }
        })
    };
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    // The second wait is longer than the test.
    settings.retry.park_delays = vec![Duration::ZERO, WITHIN * 10];
    let member = Member::start(&case.kafka, settings, router);
    case.publish([case.record(Some("k"), "v")]).await;
    attempts.reach("attempts", 2).await;
    let scope = Scope::Key {
        topic: case.topic.clone(),
        key: b"k".to_vec(),
    };
    let (drop, _) = case.command(Action::Drop { scope }).await;
    assert_eq!(
        case.acknowledged(&drop, &[0]).await,
        [CommandOutcome::Applied]
    );
    gate.open();
    eventually("it is a dead letter", WITHIN, || async {
        let letters = format!("dlq.{}.{}", case.group, case.topic);
        (case.read(&letters).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(attempts.len(), 2, "no third attempt");
    assert!(member.stop().await.clean);
}
