//! Waiting keys are listed and shown, and a replay goes to the group that dead-lettered the record,
//! and to no other.

use crate::support::dead_letters::{Mailbox, header};
use crate::support::member::{Handled, Happened, Member, settings};
use crate::support::tool::PATIENCE;
use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
use evenkeel::event::{Event, OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::recovery::{FloodGuardPolicy, retry_topic};
use evenkeel::testing::eventually;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(120);

/// Starts a member that handles records, but those that `dies` picks.
fn start_member(
    mailbox: &Mailbox,
    settings: ConsumerSettings,
    dies: impl Fn(&str, usize) -> bool + Send + Sync + 'static,
) -> Member {
    start_failing_member(mailbox, settings, move |key, number| {
        dies(key, number).then(|| HandlerError::permanent("no stock"))
    })
}

/// Starts a member that handles records, but those that `fails` picks.
fn start_failing_member(
    mailbox: &Mailbox,
    settings: ConsumerSettings,
    fails: impl Fn(&str, usize) -> Option<HandlerError> + Send + Sync + 'static,
) -> Member {
    let handled = Handled::default();
    let list = Arc::clone(&handled);
    let handle = Arc::new(move |key: String, number: usize| {
        let failure = fails(&key, number);
        list.lock()
            .expect("no thread panicked with the lock")
            .push((key, number));
        failure.map_or(Ok(()), Err)
    });
    let handle_event = Arc::clone(&handle);
    let router = Router::new()
        .on(move |event: Event<Happened>| {
            std::future::ready(handle_event(String::new(), event.data.number))
        })
        .raw(move |record: Record| {
            let value = serde_json::from_slice(record.value().expect("a value"));
            let Happened { number } = value.expect("the value is JSON");
            let key = String::from_utf8_lossy(record.key().expect("a key"));
            std::future::ready(handle(key.into_owned(), number))
        });
    Member::start(mailbox.kafka, settings, router, &handled)
}

/// A record of the source topic.
fn record(mailbox: &Mailbox, (key, number): (&str, usize)) -> OutgoingRecord {
    OutgoingRecord {
        topic: mailbox.source.clone(),
        ..mailbox.written(key, number, &[("id", b"1")])
    }
}

/// Waits until a topic holds so many records.
async fn reach(mailbox: &Mailbox, topic: &str, records: usize) {
    eventually(&format!("{records} records in {topic}"), WITHIN, || async {
        let names = mailbox.run(&["topics", "list", "-o", "jsonl"]).await.stdout;
        let is_there = names.contains(&format!("\"{topic}\""));
        (is_there && mailbox.read(topic).await.len() >= records).then_some(())
    })
    .await;
}

/// The dead letters return to their own group only.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_twice_returns_each_dead_letter_once() {
    const COUNT: usize = 10_000;
    const KEYS: usize = 100;
    let Some(mailbox) = Mailbox::new(3).await else {
        return;
    };
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    let mut settings = settings(&mailbox.group, &mailbox.source);
    // Half of them die, which is what the guard is there to stop.
    settings.flood_guard = FloodGuardPolicy::OFF;
    let member = start_member(&mailbox, settings, |_, number| number % 2 == 0);
    reach(&mailbox, &retry, 0).await;
    mailbox.publish_letters(COUNT, KEYS, 3).await;
    for reached in [1_000, 4_000] {
        let mut replay = mailbox.start_replay(&["--rate", "1500"]);
        reach(&mailbox, &retry, reached).await;
        assert!(replay.is_running(), "it is still at work");
        replay.kill().await;
    }
    let done = mailbox
        .start_replay(&["-o", "jsonl"])
        .finished(PATIENCE)
        .await
        .code(0);
    assert_eq!(done.rows()[0]["to"], json!(retry));
    // Half of them fail again, and come back after the end of the run that replayed them.
    reach(&mailbox, &mailbox.letters, COUNT + COUNT / 2).await;
    eventually("every letter was handled", WITHIN, || async {
        (member.handled().len() >= COUNT).then_some(())
    })
    .await;
    let handled = member.handled();
    for key in 0..KEYS {
        let of_key = handled.iter().map(|(_, number)| *number);
        let of_key: Vec<usize> = of_key.filter(|number| number % KEYS == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    let mut numbers: Vec<usize> = handled.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "each once");
    let letters = mailbox.read(&mailbox.letters).await;
    let (first, second): (Vec<_>, Vec<_>) = letters
        .iter()
        .partition(|letter| header(&letter.headers, "evenkeel.dlq.replay-count").is_none());
    assert_eq!((first.len(), second.len()), (COUNT, COUNT / 2));
    for letter in second {
        let value = |name| header(&letter.headers, name);
        let number = crate::support::dead_letters::number_of(letter);
        assert_eq!(value("evenkeel.dlq.replay-count").as_deref(), Some("1"));
        assert_eq!(value("ce_id"), Some(format!("id-{number}")));
        assert_eq!(value("__dlq.errors.message").as_deref(), Some("no stock"));
        assert_eq!(value("__dlq.errors.topic"), Some(mailbox.source.clone()));
        assert_eq!(value("__dlq.errors.offset"), Some(number.to_string()));
    }
    assert_eq!(
        mailbox.read(&mailbox.source).await.len(),
        0,
        "no other group sees anything"
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_key_is_listed_and_continues_after_its_replay() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let mut settings = settings(&mailbox.group, &mailbox.source);
    settings.after_dead_letter = AfterDeadLetter::HoldKey;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let member = start_member(&mailbox, settings, move |key, number| {
        key == "held" && number == 3 && !is_mended.load(Ordering::SeqCst)
    });
    let steps = (0..6).flat_map(|number| ["held", "other"].map(|key| (key, number)));
    mailbox.publish(steps.map(|at| record(&mailbox, at))).await;
    let list = ["parked", "list", &mailbox.group, "-o", "jsonl"];
    let row = eventually(
        "the key is listed as held, with two records",
        WITHIN,
        || async {
            let rows = mailbox.run(&list).await.rows();
            rows.into_iter()
                .find(|row| row["records"] == 2 && !row["held_for"].is_null())
        },
    )
    .await;
    assert_eq!(row["key"], "held");
    assert_eq!(row["held_for"], json!(format!("{}/0@6", mailbox.source)));
    let show = [
        "parked",
        "show",
        &mailbox.group,
        "--key",
        "held",
        "-o",
        "jsonl",
    ];
    assert_eq!(mailbox.run(&show).await.code(0).rows().len(), 2);
    let unknown = ["parked", "show", &mailbox.group, "--key", "other"];
    assert!(
        mailbox
            .run(&unknown)
            .await
            .code(1)
            .stderr
            .contains("parked list")
    );
    assert_eq!(
        (member.of("held"), member.of("other").len()),
        (vec![0, 1, 2, 3], 6)
    );
    mended.store(true, Ordering::SeqCst);
    mailbox.start_replay(&[]).finished(PATIENCE).await.code(0);
    eventually("the key goes on", WITHIN, || async {
        (member.of("held") == [0, 1, 2, 3, 3, 4, 5]).then_some(())
    })
    .await;
    eventually("nothing is listed", WITHIN, || async {
        mailbox.run(&list).await.rows().is_empty().then_some(())
    })
    .await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_release_waiting_keys_and_drop_their_records() {
    let Some(mailbox) = Mailbox::new(2).await else {
        return;
    };
    let mut settings = settings(&mailbox.group, &mailbox.source);
    settings.after_dead_letter = AfterDeadLetter::HoldKey;
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3_600); 9];
    let member = start_failing_member(&mailbox, settings, |key, number| match (key, number) {
        ("held", 1) => Some(HandlerError::permanent("no stock")),
        ("waits", 1) => Some(HandlerError::transient("not now")),
        _ => None,
    });
    let steps = (0..4).flat_map(|number| ["held", "waits"].map(|key| (key, number)));
    mailbox.publish(steps.map(|at| record(&mailbox, at))).await;
    let list = ["parked", "list", &mailbox.group, "-o", "jsonl"];
    eventually("both keys wait with all behind them", WITHIN, || async {
        let rows = mailbox.run(&list).await.rows();
        let records = |key: &str| {
            rows.iter()
                .find(|row| row["key"] == key)
                .map(|row| &row["records"])
        };
        (records("held") == Some(&json!(2)) && records("waits") == Some(&json!(3))).then_some(())
    })
    .await;
    let command = async |what: &str, key: &str| {
        let args = [
            "parked",
            what,
            &mailbox.group,
            "--key",
            key,
            "--why",
            "test",
            "-o",
            "jsonl",
        ];
        mailbox.run(&args).await
    };
    let refused = command("drop", "held").await.code(1);
    assert!(refused.stdout.contains("release it instead"), "{refused:?}");
    let released = command("release", "held").await.code(0);
    assert!(
        released.stdout.contains("1 parked key is released"),
        "{released:?}"
    );
    eventually("the held key goes on", WITHIN, || async {
        (member.of("held") == [0, 1, 2, 3]).then_some(())
    })
    .await;
    assert_eq!(member.of("waits"), [0, 1]);
    command("release", "waits").await.code(0);
    eventually("the key that waits is tried again", WITHIN, || async {
        (member.of("waits") == [0, 1, 1]).then_some(())
    })
    .await;
    command("drop", "waits").await.code(0);
    eventually(
        "what is behind the dropped record goes on",
        WITHIN,
        || async { (member.of("waits") == [0, 1, 1, 2, 3]).then_some(()) },
    )
    .await;
    let letters = mailbox.read(&mailbox.letters).await;
    let stages: Vec<_> = letters
        .iter()
        .map(|letter| header(&letter.headers, "evenkeel.dlq.error.stage"))
        .collect();
    assert_eq!(
        stages,
        [Some("handler".to_owned()), Some("skipped".to_owned())]
    );
    let history = ["groups", "history", &mailbox.group, "-o", "jsonl"];
    let history = mailbox.run(&history).await.code(0).stdout;
    assert!(
        history.contains("retry-now") && history.contains("\"drop\""),
        "{history}"
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_shows_the_dependency_that_a_group_waits_for() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let is_down = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&is_down);
    let member = start_failing_member(
        &mailbox,
        settings(&mailbox.group, &mailbox.source),
        move |_, _| {
            let outage = || HandlerError::outage("refused").dependency("bank");
            answers.load(Ordering::SeqCst).then(outage)
        },
    );
    let records = (0..50).map(|number| record(&mailbox, (&format!("k{number}"), number)));
    mailbox.publish(records).await;
    let describe = ["groups", "describe", &mailbox.group, "-o", "jsonl"];
    eventually("the bank is said to be down", WITHIN, || async {
        let run = mailbox.run(&describe).await;
        let down = run.rows().first()?["down"].as_array()?.clone();
        let [status] = down.as_slice() else {
            return None;
        };
        assert_eq!(
            (&status["dependency"], &status["reason"]),
            (&json!("bank"), &json!("refused"))
        );
        assert!(run.stderr.contains("bank is down"), "{}", run.stderr);
        Some(())
    })
    .await;
    is_down.store(false, Ordering::SeqCst);
    eventually("nothing is said to be down", WITHIN, || async {
        let run = mailbox.run(&describe).await;
        run.rows().first()?["down"]
            .as_array()?
            .is_empty()
            .then_some(())
    })
    .await;
    member.stop().await;
}
