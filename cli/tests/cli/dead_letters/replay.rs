//! A replay publishes each dead letter once and in order, through kills, stops and refused records.

use crate::support::dead_letters::{Mailbox, header, number_of};
use crate::support::tool::{PATIENCE, run_on};
use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::recovery::{ReplayLogEntry, ReplayRun};
use evenkeel::testing::Finished;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const COUNT: usize = 200;
const KEYS: usize = 6;
const PARTITIONS: usize = 3;

fn numbers(run: &Finished, names: [&str; 4]) -> [Value; 4] {
    let [row] = run
        .rows()
        .try_into()
        .expect("one topic and one destination");
    names.map(|name| row[name].clone())
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_a_replay_publishes_once() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let letter =
        |n: usize| mailbox.letter("k", n, if n == 3 { "permanent" } else { "transient" }, "m");
    mailbox.publish((0..4).map(letter)).await;
    let replay = async |more: &[&str]| {
        let mut args = vec![
            "dlq",
            "replay",
            "--group",
            &mailbox.group,
            "--by",
            "ada",
            "-o",
            "jsonl",
        ];
        args.extend(more);
        mailbox.run(&args).await.code(0)
    };
    let names = ["letters", "replayed_before", "replayed", "executed"];

    let dry = replay(&["--class", "transient"]).await;
    assert_eq!(
        numbers(&dry, names),
        [json!(3), json!(0), json!(0), json!(false)]
    );
    assert!(dry.stderr.contains("--execute"), "{}", dry.stderr);
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 0);
    let topics = mailbox
        .run(&["topics", "list", "-o", "jsonl"])
        .await
        .code(0);
    assert!(
        !topics
            .stdout
            .contains(&format!("replays.{}", mailbox.letters))
    );

    let first = replay(&["--class", "transient", "--execute", "--limit", "1"]).await;
    assert_eq!(
        numbers(&first, names),
        [json!(3), json!(0), json!(1), json!(true)]
    );
    let rest = replay(&["--class", "transient", "--execute"]).await;
    assert_eq!(
        numbers(&rest, names),
        [json!(2), json!(1), json!(2), json!(true)]
    );
    let nothing = replay(&["--class", "transient", "--execute"]).await;
    assert_eq!(
        numbers(&nothing, names),
        [json!(0), json!(3), json!(0), json!(true)]
    );

    let records = mailbox.read(&mailbox.source).await;
    assert_eq!(records.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2]);
    let headers: Vec<(String, String)> = records[1]
        .headers
        .iter()
        .map(|(name, value)| (name, value.expect("a value")))
        .map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into(),
                String::from_utf8_lossy(value).into(),
            )
        })
        .filter(|(name, _): &(String, String)| name != "evenkeel.dlq.replayed-at")
        .collect();
    let replay_of = format!("{}/0@1", mailbox.letters);
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "id-1"),
        ("ce_source", "/test"),
        ("ce_type", "test.happened.v1"),
        ("evenkeel.dlq.replay-count", "1"),
        ("evenkeel.dlq.replay-of", &replay_of),
        ("evenkeel.dlq.replayed-by", "ada"),
        ("evenkeel.dlq.first-failure", "2026-11-21T10:11:12Z"),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    let shown = mailbox
        .run(&["dlq", "show", &replay_of])
        .await
        .code(0)
        .stdout;
    assert!(
        shown.contains(&format!("to {}/0@1 by ada", mailbox.source)),
        "{shown}"
    );
    let listed = mailbox.listed().await;
    assert_eq!(
        (&listed[0]["count"], &listed[0]["replayed"]),
        (&json!(3), &json!(3))
    );

    let again = replay(&["--class", "transient", "--execute", "--again"]).await;
    assert_eq!(
        numbers(&again, names),
        [json!(3), json!(0), json!(3), json!(true)]
    );
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 6);
}

#[tokio::test]
async fn exported_dead_letters_are_edited_and_replayed_with_a_mark() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let mut letters: Vec<_> = (0..3)
        .map(|n| mailbox.letter("k", n, "permanent", "m"))
        .collect();
    letters[1].headers.push("raw", Some(&[0, 0xff]));
    mailbox.publish(letters).await;
    let exported = mailbox
        .run(&["dlq", "export", &mailbox.letters])
        .await
        .code(0)
        .stdout;
    let first_two: Vec<&str> = exported.lines().take(2).collect();
    let edited = first_two
        .join("\n")
        .replace("{\\\"number\\\":1}", "{\\\"number\\\":41}");
    let replay = ["dlq", "replay", "--from-file", "-", "--execute"];
    run_on(mailbox.kafka, &replay, &edited).await.code(0);
    mailbox.replay().await;

    let records = mailbox.read(&mailbox.source).await;
    assert_eq!(
        records.iter().map(number_of).collect::<Vec<_>>(),
        [0, 41, 2]
    );
    let edits: Vec<Option<String>> = records
        .iter()
        .map(|record| header(&record.headers, "evenkeel.dlq.edited"))
        .collect();
    assert_eq!(
        edits,
        [Some("true".to_owned()), Some("true".to_owned()), None]
    );
    assert_eq!(
        header(&records[1].headers, "ce_id").as_deref(),
        Some("id-1")
    );
    assert_eq!(records[1].headers.last("raw"), Some(&[0, 0xff][..]));

    let broken = format!("{}\n{{}}", first_two[0]);
    let refused = run_on(mailbox.kafka, &replay, &broken).await.code(1);
    assert!(refused.stderr.contains("line 2"), "{}", refused.stderr);
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 3);
}

#[tokio::test]
async fn a_replay_killed_twice_and_resumed_publishes_once_in_order() {
    let Some(mailbox) = Mailbox::new(PARTITIONS as i32).await else {
        return;
    };
    mailbox.publish_letters(COUNT, KEYS, PARTITIONS).await;
    for reached in [40, 110] {
        let mut run = mailbox.start_replay(&["--rate", "50"]);
        mailbox.reach(reached).await;
        assert!(run.is_running(), "it is still at work");
        run.kill().await;
        let records = mailbox.read(&mailbox.source).await;
        assert!(records.len() < COUNT, "killed too late to show anything");
        // A kill may or may not fall between an acknowledgement and its mark. Here it does.
        let latest = records.iter().max_by_key(|record| record.timestamp_ms);
        unmark(&mailbox, latest.expect("some went back")).await;
    }
    let run = mailbox
        .start_replay(&["-o", "jsonl"])
        .finished(PATIENCE)
        .await
        .code(0);
    let records = mailbox.read(&mailbox.source).await;
    Mailbox::assert_once_and_in_order(&records, COUNT, KEYS);
    let done: u64 = ["replayed_before", "replayed"]
        .iter()
        .filter_map(|name| run.rows()[0][*name].as_u64())
        .sum();
    assert_eq!(done, COUNT as u64);
    let nothing = mailbox
        .start_replay(&["-o", "jsonl"])
        .finished(PATIENCE)
        .await
        .code(0);
    assert_eq!(nothing.rows()[0]["letters"], 0);
}

#[tokio::test]
async fn the_next_replay_ends_a_killed_one_that_was_complete() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    mailbox
        .publish([mailbox.letter("k", 0, "transient", "m")])
        .await;
    mailbox.start_replay(&[]).finished(PATIENCE).await.code(0);
    let marks = format!("replays.{}", mailbox.letters);
    let latest_run = async || {
        let records = mailbox.read(&marks).await;
        let marks = records
            .iter()
            .map(|record| ReplayLogEntry::read(record.key.as_deref(), record.value.as_deref()));
        let mut runs = marks.filter_map(|mark| match mark {
            Some(ReplayLogEntry::Run(run)) => Some(run),
            _ => None,
        });
        runs.next_back().expect("a run is noted")
    };
    let ended = latest_run().await;
    assert!(
        ended.done && ended.ends.contains_key(&mailbox.source),
        "{ended:?}"
    );
    let killed = ReplayLogEntry::Run(ReplayRun {
        done: false,
        ..ended
    });
    let value = killed.value().expect("it can be written");
    mailbox.publish([note(&mailbox, &killed, value)]).await;
    mailbox.start_replay(&[]).finished(PATIENCE).await.code(0);
    assert!(latest_run().await.done);
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 1);
}

/// A record of the topic that remembers replays.
fn note(mailbox: &Mailbox, mark: &ReplayLogEntry, value: Option<Vec<u8>>) -> OutgoingRecord {
    OutgoingRecord {
        topic: format!("replays.{}", mailbox.letters),
        partition: mark.partition(),
        key: Some(mark.key().into()),
        value: value.map(Into::into),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

/// Deletes the entry of a replayed dead letter from the replay log.
async fn unmark(mailbox: &Mailbox, record: &LogRecord) {
    let letter = header(&record.headers, "evenkeel.dlq.replay-of").expect("a replay");
    let letter: RecordPosition = letter.parse().expect("a position");
    let tombstone = ReplayLogEntry::of(&letter, None);
    mailbox.publish([note(mailbox, &tombstone, None)]).await;
}

#[tokio::test]
async fn a_second_replay_is_refused_and_a_stopped_one_resumes() {
    let Some(mailbox) = Mailbox::new(PARTITIONS as i32).await else {
        return;
    };
    mailbox.publish_letters(60, KEYS, PARTITIONS).await;
    let running = mailbox.start_replay(&["--rate", "4", "--by", "ada"]);
    mailbox.reach(2).await;
    let second = mailbox.start_replay(&[]).finished(PATIENCE).await.code(1);
    assert!(
        second.stderr.contains("ada has been replaying"),
        "{}",
        second.stderr
    );
    running.signal("INT");
    let stopped = running.finished(PATIENCE).await.code(130);
    assert!(
        stopped.stderr.contains("stopped") && stopped.stderr.contains("replayed"),
        "{}",
        stopped.stderr
    );
    let before = mailbox.read(&mailbox.source).await.len();
    assert!((2..60).contains(&before), "{before}");
    mailbox.start_replay(&[]).finished(PATIENCE).await.code(0);
    Mailbox::assert_once_and_in_order(&mailbox.read(&mailbox.source).await, 60, KEYS);
}

#[tokio::test]
async fn of_two_replays_that_begin_together_one_does_the_work() {
    let Some(mailbox) = Mailbox::new(PARTITIONS as i32).await else {
        return;
    };
    mailbox.publish_letters(30, KEYS, PARTITIONS).await;
    let both = [0, 1].map(|_| mailbox.start_replay(&["--rate", "20"]));
    let [one, other] = both.map(|replay| replay.finished(PATIENCE));
    let (one, other) = tokio::join!(one, other);
    let mut codes = [one.code, other.code];
    codes.sort_unstable();
    // One that starts late, on a slow machine, finds nothing left to do.
    assert!(
        codes == [Some(0), Some(1)] || codes == [Some(0); 2],
        "{one:?} {other:?}"
    );
    Mailbox::assert_once_and_in_order(&mailbox.read(&mailbox.source).await, 30, KEYS);
}

/// Handles what the mailbox's group is due, or fails each record for good; the headers of the records.
async fn consume(mailbox: &Mailbox, fail: bool) -> Vec<Headers> {
    let seen: Arc<Mutex<Vec<Headers>>> = Arc::default();
    let list = Arc::clone(&seen);
    let router = Router::new().raw(move |record: Record| {
        list.lock()
            .expect("no thread panicked with the lock")
            .push(record.headers().collect());
        async move {
            match fail {
                true => Err(HandlerError::permanent("no stock")),
                false => Ok(()),
            }
        }
    });
    let mut settings = ConsumerSettings::new(&mailbox.group, [&mailbox.source]);
    settings.stop_when = StopWhen::UntilEnd;
    let consumer = Consumer::new(mailbox.kafka.config(), settings, router)
        .expect("the settings of the consumer are valid");
    consumer
        .run(Default::default())
        .await
        .expect("it ends well");
    std::mem::take(&mut *seen.lock().expect("no thread panicked with the lock"))
}

#[tokio::test]
async fn a_replayed_record_returns_with_its_id_and_history() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let mut record = mailbox.written("k", 0, &[("id", b"id-0")]);
    record.topic.clone_from(&mailbox.source);
    mailbox.publish([record]).await;
    let to_source = ["--to", "source", "--execute"];
    let replay = [
        &["dlq", "replay", "--group", &mailbox.group][..],
        &to_source,
    ]
    .concat();
    for trip in 0..2 {
        assert_eq!(consume(&mailbox, true).await.len(), 1);
        let letter = format!("{}/0@{trip}", mailbox.letters);
        let shown = mailbox.run(&["dlq", "show", &letter]).await.code(0).stdout;
        assert!(
            shown.contains("no stock") && shown.contains("permanent"),
            "{shown}"
        );
        assert_eq!(shown.contains("replays before 1"), trip == 1, "{shown}");
        mailbox.run(&replay).await.code(0);
    }
    let handled = consume(&mailbox, false).await;
    let [headers] = handled.as_slice() else {
        panic!("{handled:?}");
    };
    assert_eq!(header(headers, "id").as_deref(), Some("id-0"));
    assert_eq!(
        header(headers, "evenkeel.dlq.replay-count").as_deref(),
        Some("2")
    );
    assert_eq!(mailbox.read(&mailbox.letters).await.len(), 2);
}

#[tokio::test]
async fn an_unpublishable_dead_letter_holds_back_only_its_key() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let small = format!("{}-small", mailbox.source);
    let create = ["topics", "create", &small, "-c", "max.message.bytes=2000"];
    mailbox.run(&create).await.code(0);
    let letter = |n: usize| mailbox.letter(["a", "a", "b", "a", "b"][n], n, "permanent", "m");
    let mut letters: Vec<_> = (0..5).map(letter).collect();
    // Bytes that compression leaves as many.
    let noise = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    letters[1]
        .headers
        .push("large", Some(&noise.collect::<Vec<u8>>()));
    mailbox.publish(letters).await;

    let replay = [
        "dlq",
        "replay",
        &mailbox.letters,
        "--to",
        &small,
        "--execute",
        "-o",
        "jsonl",
    ];
    let run = mailbox.run(&replay).await.code(1);
    let names = ["letters", "replayed", "failed", "held_back"];
    assert_eq!(
        numbers(&run, names),
        [json!(5), json!(3), json!(1), json!(1)]
    );
    let letter = format!("{}/0@1", mailbox.letters);
    assert!(
        run.stderr.contains(&letter) && run.stderr.contains("max.message.bytes"),
        "{}",
        run.stderr
    );
    let numbers_of =
        async || -> Vec<usize> { mailbox.read(&small).await.iter().map(number_of).collect() };
    assert_eq!(numbers_of().await, [0, 2, 4]);

    let alter = [
        "dlq",
        "replay",
        &mailbox.letters,
        "--to",
        &mailbox.source,
        "--execute",
    ];
    mailbox.run(&alter).await.code(0);
    let rest: Vec<usize> = mailbox
        .read(&mailbox.source)
        .await
        .iter()
        .map(number_of)
        .collect();
    assert_eq!(rest, [1, 3]);
}

#[tokio::test]
async fn dead_letters_without_a_source_need_a_destination() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    mailbox
        .publish([mailbox.written("k", 0, &[("ce_id", b"1")])])
        .await;
    let replay = ["dlq", "replay", &mailbox.letters, "--execute"];
    let refused = mailbox.run(&replay).await.code(1);
    assert!(
        refused.stderr.contains("--to") && refused.stderr.contains("/0@0"),
        "{}",
        refused.stderr
    );
    let itself = [&replay[..], &["--to", &mailbox.letters]].concat();
    assert!(
        mailbox
            .run(&itself)
            .await
            .code(1)
            .stderr
            .contains("another --to")
    );
    let missing = [&replay[..], &["--to", "no-such-topic"]].concat();
    assert!(
        mailbox
            .run(&missing)
            .await
            .code(1)
            .stderr
            .contains("no-such-topic")
    );
    let named = [&replay[..], &["--to", &mailbox.source]].concat();
    mailbox.run(&named).await.code(0);
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 1);
}
