//! `drill duplicates` delivers settled records to a running group again, in order, and names
//! handlers that are not idempotent.

use crate::support::dead_letters::{Mailbox, header};
use crate::support::member::{Handled, Happened, Member, settings};
use crate::support::tool::{PATIENCE, command, start};
use evenkeel::consumer::Assignment;
use evenkeel::event::{Event, EventType, OutgoingRecord, decode};
use evenkeel::handler::{Context, Delivery, HandlerError, Router};
use evenkeel::inbox::MemoryInbox;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{Finished, eventually};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::Service;

const WITHIN: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Mailed {
    number: usize,
}

impl EventType for Mailed {
    const TYPE: &'static str = "test.mailed.v1";
    const TOPIC: &'static str = "test";

    fn key(&self) -> String {
        String::new()
    }
}

/// Starts a member that handles events of one type with an inbox, and of the other without one where `mails_twice`; gives numbers from 10 up,
/// and parks those from 20 up; from 1,000 up it handles each once and gives it up the second time.
fn start_member(mailbox: &Mailbox, group: &str, mails_twice: bool) -> Member {
    let handled = Handled::default();
    let list = Arc::clone(&handled);
    let handle = Arc::new(move |context: Context, number: usize| {
        let key = String::from_utf8_lossy(context.key().unwrap_or_default()).into_owned();
        let mut list = list.lock().expect("no thread panicked with the lock");
        let handled = (key, number);
        let is_again = list.contains(&handled);
        list.push(handled);
        match number {
            1_000.. if is_again => Err(HandlerError::permanent("it is there already")),
            10..20 => Err(HandlerError::permanent("no stock")),
            20..30 => Err(HandlerError::transient("not now")),
            _ => Ok(()),
        }
    });
    let mail = Arc::clone(&handle);
    let guarded = Router::new()
        .on(move |event: Event<Happened>, context: Context| {
            std::future::ready(handle(context, event.data.number))
        })
        .with_inbox(MemoryInbox::default());
    let outside = Router::new().on(move |event: Event<Mailed>, context: Context| {
        std::future::ready(mail(context, event.data.number))
    });
    let split = tower::service_fn(move |delivery: Delivery| {
        let record = &delivery.record;
        let event = decode(record.headers(), record.value());
        let is_mail = event.is_ok_and(|event| event.attributes.ty == Mailed::TYPE);
        let mut router = match is_mail && mails_twice {
            true => outside.clone(),
            false => guarded.clone(),
        };
        router.call(delivery)
    });
    let mut settings = settings(group, &mailbox.source);
    settings.retry.attempts_max = 1;
    // Of a group whose partitions the brokers assign they do not tell the members.
    if mails_twice {
        settings.assignment = Assignment::Broker;
    }
    settings.retry.park_delays = vec![Duration::from_secs(3_600)];
    Member::start(mailbox.kafka, settings, split, &handled)
}

/// An event whose id is its number, in the partition of its key.
fn event(mailbox: &Mailbox, ty: &str, key: &str, number: usize) -> OutgoingRecord {
    OutgoingRecord {
        partition: None,
        ..mailbox.event(ty, &format!("id-{number}"), key, number)
    }
}

fn arguments<'a>(mailbox: &'a Mailbox, more: &[&'a str]) -> Vec<&'a str> {
    let group = ["drill", "duplicates", "--group", &mailbox.group];
    let output = ["--by", "ada", "-o", "jsonl"];
    [&group[..], &output, more].concat()
}

async fn dry(mailbox: &Mailbox) -> Finished {
    mailbox.run(&arguments(mailbox, &[])).await
}

async fn drill(mailbox: &Mailbox, more: &[&str]) -> Finished {
    let execute = ["--execute", "--not-production"];
    let more = [&execute[..], more].concat();
    mailbox.run(&arguments(mailbox, &more)).await
}

/// Stops a group from handling anything, or lets it go on.
async fn order(mailbox: &Mailbox, what: &str) {
    let why = ["--why", "a test", "--by", "ada"];
    let args = [&["groups", what, &mailbox.group][..], &why].concat();
    mailbox.run(&args).await.code(0);
}

/// Some fields of the row of a type.
fn row<const N: usize>(run: &Finished, ty: &str, names: [&str; N]) -> [Value; N] {
    let rows = run.rows();
    let row = rows.iter().find(|row| row["type"] == ty);
    let row = row.unwrap_or_else(|| panic!("no {ty} in {run:?}"));
    names.map(|name| row[name].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_recognises_every_repetition_and_other_groups_see_none() {
    let Some(mailbox) = Mailbox::new(3).await else {
        return;
    };
    let other = format!("{}-other", mailbox.group);
    let member = start_member(&mailbox, &mailbox.group, false);
    let neighbour = start_member(&mailbox, &other, false);
    let keys = ["a", "b", "c", "d"];
    let number = |n: usize| event(&mailbox, Happened::TYPE, keys[n % 4], 100 + n);
    let ignored = event(&mailbox, "test.ignored.v1", "a", 200);
    mailbox.publish((0..40).map(number).chain([ignored])).await;
    mailbox.settled_by(&mailbox.group).await;
    mailbox.settled_by(&other).await;
    let handled = [member.handled(), neighbour.handled()];
    assert_eq!(handled[0].len(), 40);

    let deserted = format!("{}-deserted", mailbox.source);
    for topic in [&deserted, &retry_topic(&mailbox.group, &deserted)] {
        let created = mailbox.kafka.create_topic(topic, 1).await;
        created.expect("the topic is new");
    }
    let shown = dry(&mailbox).await.code(0);
    let left = format!("{deserted} is left out: no member");
    assert!(shown.stderr.contains(&left), "{}", shown.stderr);
    let at = format!("{} at {}", mailbox.group, mailbox.kafka.brokers());
    assert!(shown.stderr.contains(&at), "{}", shown.stderr);
    let names = ["events", "recognised", "verdict", "executed"];
    let expected = [json!(40), json!(0), json!("not-repeated"), json!(false)];
    assert_eq!(row(&shown, Happened::TYPE, names), expected);
    assert!(shown.stderr.contains("--execute"), "{}", shown.stderr);
    let refused = mailbox
        .run(&arguments(&mailbox, &["--execute"]))
        .await
        .code(2);
    assert!(
        refused.stderr.contains("--not-production"),
        "{}",
        refused.stderr
    );
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    assert_eq!(mailbox.read(&retry).await.len(), 0, "nothing was written");

    let run = drill(&mailbox, &[]).await.code(0);
    let expected = [json!(40), json!(40), json!("idempotent"), json!(true)];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    let ignored = row(&run, "test.ignored.v1", ["events", "ignored", "verdict"]);
    assert_eq!(ignored, [json!(1), json!(1), json!("ignored")]);
    assert_eq!([member.handled(), neighbour.handled()], handled);
    let written = mailbox.read(&retry).await;
    let by = written
        .iter()
        .find_map(|record| header(&record.headers, "evenkeel.parked.by"));
    assert_eq!(by.as_deref(), Some("ada"));
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 41);

    let last = drill(&mailbox, &["--from", "-2"]).await.code(0);
    let [events] = row(&last, Happened::TYPE, ["events"]);
    assert!(
        events.as_u64().is_some_and(|events| events <= 6),
        "{last:?}"
    );
    mailbox.settled_by(&mailbox.group).await;
    member.stop().await;
    neighbour.stop().await;
    let shown = dry(&mailbox).await.code(0);
    assert!(
        !shown.stderr.contains(&left),
        "nobody tells: {}",
        shown.stderr
    );
    let gone = drill(&mailbox, &[]).await.code(1);
    assert!(gone.stderr.contains("no member"), "{}", gone.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_inbox_is_named_and_repeated_in_order() {
    let Some(mailbox) = Mailbox::new(2).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, true);
    let keys = ["a", "b", "c"];
    let mail = |n: usize| event(&mailbox, Mailed::TYPE, keys[n % 3], 100 + n);
    let happened = (0..5).map(|n| event(&mailbox, Happened::TYPE, "a", 200 + n));
    mailbox.publish((0..30).map(mail).chain(happened)).await;
    mailbox.settled_by(&mailbox.group).await;
    let before = member.handled().len();
    assert_eq!(before, 35);

    let run = drill(&mailbox, &[]).await.code(3);
    let names = ["recognised", "handled_again", "verdict"];
    let bad = [json!(0), json!(30), json!("not-idempotent")];
    assert_eq!(row(&run, Mailed::TYPE, names), bad);
    let good = [json!(5), json!(0), json!("idempotent")];
    assert_eq!(row(&run, Happened::TYPE, names), good);
    assert!(run.stderr.contains(Mailed::TYPE), "{}", run.stderr);
    assert!(!run.stderr.contains(Happened::TYPE), "{}", run.stderr);
    assert!(
        run.stderr.contains(&format!("{}/", mailbox.source)),
        "{}",
        run.stderr
    );
    let repeated = member.handled().split_off(before);
    assert_eq!(repeated.len(), 30);
    for key in keys {
        let own = repeated.iter().filter(|(found, _)| found == key);
        assert!(own.map(|(_, number)| number).is_sorted(), "{repeated:?}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_wait_and_dead_letters_are_left_out() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, true);
    let mail = |key, number| event(&mailbox, Mailed::TYPE, key, number);
    let records = [
        mail("a", 1),
        mail("waits", 2),
        mail("waits", 20),
        mail("waits", 3),
        mail("dies", 10),
    ];
    mailbox.publish(records).await;
    mailbox.settled_by(&mailbox.group).await;
    let handled = member.handled();
    let shown = async || {
        let show = ["parked", "show", &mailbox.group, "--key", "waits"];
        mailbox.run(&show).await.code(0).stdout
    };
    let waiting = shown().await;

    let run = drill(&mailbox, &[]).await.code(3);
    let names = ["events", "handled_again", "key_waits", "dead_letters"];
    let expected = [json!(1), json!(1), json!(3), json!(1)];
    assert_eq!(row(&run, Mailed::TYPE, names), expected);
    let again = [handled, vec![("a".to_owned(), 1)]].concat();
    assert_eq!(member.handled(), again);
    assert_eq!(shown().await, waiting);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_repetitions_prove_nothing_and_an_interrupted_drill_says_so() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, false);
    let happened = (0..20).map(|n| event(&mailbox, Happened::TYPE, "a", 100 + n));
    mailbox.publish(happened).await;
    mailbox.settled_by(&mailbox.group).await;

    let slow = ["--execute", "--not-production", "--rate", "1"];
    let mut slow = command(&arguments(&mailbox, &slow));
    slow.env("KAFKA_BOOTSTRAP_SERVERS", mailbox.kafka.brokers());
    let slow = start(slow);
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    eventually("a repetition is delivered", WITHIN, || async {
        (!mailbox.read(&retry).await.is_empty()).then_some(())
    })
    .await;
    slow.signal("INT");
    let stopped = slow.finished(PATIENCE).await.code(130);
    assert!(stopped.stderr.contains("stopped"), "{}", stopped.stderr);

    order(&mailbox, "pause").await;
    let run = drill(&mailbox, &["--wait", "2s"]).await.code(5);
    let names = ["recognised", "unanswered", "verdict"];
    let expected = [json!(0), json!(20), json!("unanswered")];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    order(&mailbox, "resume").await;
    drill(&mailbox, &[]).await.code(0);
    assert_eq!(member.handled().len(), 20);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_answers_nothing_any_more_gets_nothing_more() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, false);
    let happened = (0..200).map(|n| event(&mailbox, Happened::TYPE, &format!("{n}"), 100 + n));
    mailbox.publish(happened).await;
    mailbox.settled_by(&mailbox.group).await;
    order(&mailbox, "pause").await;
    let unanswered = |run: &Finished| {
        let [count] = row(run, Happened::TYPE, ["unanswered"]);
        count.as_u64().expect("a number")
    };

    let slow = drill(&mailbox, &["--rate", "5", "--wait", "2s"])
        .await
        .code(5);
    assert!((1..50).contains(&unanswered(&slow)), "{slow:?}");
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    let stays = format!(
        "stay in {retry}, and are handled when {} continues",
        mailbox.group
    );
    assert!(slow.stderr.contains(&stays), "{}", slow.stderr);

    let show = ["parked", "show", &mailbox.group, "--key", "100"];
    let shown = mailbox.run(&[&show[..], &["-o", "jsonl"]].concat()).await;
    assert_eq!(shown.code(0).rows()[0]["repeated_by"], "ada");

    let fast = ["--from", "beginning", "--rate", "100000", "--wait", "4s"];
    let fast = drill(&mailbox, &fast).await.code(5);
    assert_eq!(unanswered(&fast), 80, "{fast:?}");
    order(&mailbox, "resume").await;
    drill(&mailbox, &["--from", "-2"]).await.code(0);
    assert_eq!(member.handled().len(), 200);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_repetitions_end_the_drill_before_all_are_dead_letters() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, true);
    let mail = |n: usize| event(&mailbox, Mailed::TYPE, &format!("{n}"), 1_000 + n);
    mailbox.publish((0..200).map(mail)).await;
    mailbox.settled_by(&mailbox.group).await;

    let run = drill(&mailbox, &["--from", "beginning"]).await.code(3);
    let [failed] = row(&run, Mailed::TYPE, ["failed"]);
    let failed = failed.as_u64().expect("a number");
    assert!((10..90).contains(&failed), "{run:?}");
    assert!(
        run.stderr.contains("the rest is not delivered"),
        "{}",
        run.stderr
    );
    let letters = mailbox.read(&mailbox.letters).await;
    assert_eq!(letters.len() as u64, failed);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_keyless_record_is_skipped_its_neighbours_are_not() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, false);
    let keyless = |number| OutgoingRecord {
        key: None,
        ..event(&mailbox, Happened::TYPE, "", number)
    };
    mailbox.publish([1, 20, 2, 21].map(keyless)).await;
    mailbox.settled_by(&mailbox.group).await;

    let run = drill(&mailbox, &[]).await.code(0);
    let names = ["events", "recognised", "key_waits"];
    let expected = [json!(2), json!(2), json!(2)];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    assert_eq!(member.handled().len(), 4);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_refused_without_access_to_dead_letters() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let named = arguments(&mailbox, &["--dead-letter-topic", "letters-of-nobody"]);
    let group = format!("{}-fresh", mailbox.group);
    let retry = retry_topic(&group, &mailbox.source);
    let own = retry_topic(&mailbox.group, &mailbox.source);
    for topic in [&retry, &own] {
        let created = mailbox.kafka.create_topic(topic, 1).await;
        created.expect("the topic is new");
    }
    let refused = mailbox.run(&named).await.code(1);
    assert!(
        refused.stderr.contains("letters-of-nobody"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("--dead-letter-topic"),
        "{}",
        refused.stderr
    );

    let without = ["drill", "duplicates", "--group", &group];
    let shown = mailbox.run(&without).await.code(0);
    let absent = format!("there is no dlq.{group}.{}", mailbox.source);
    assert!(shown.stderr.contains(&absent), "{}", shown.stderr);
    let shown = dry(&mailbox).await.code(0);
    assert!(!shown.stderr.contains("there is no"), "{}", shown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn negative_from_counts_back_from_the_last_settled_records() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = start_member(&mailbox, &mailbox.group, false);
    let happened = |n: usize| event(&mailbox, Happened::TYPE, "a", 100 + n);
    mailbox.publish((0..20).map(happened)).await;
    mailbox.settled_by(&mailbox.group).await;
    member.stop().await;
    mailbox.publish((20..50).map(happened)).await;

    let check = async |more: &[&str], expected: u64| {
        let shown = mailbox.run(&arguments(&mailbox, more)).await.code(0);
        let [events] = row(&shown, Happened::TYPE, ["events"]);
        assert_eq!(events, json!(expected), "{more:?}");
    };
    check(&["--from", "-5"], 5).await;
    check(&["--from", "-100"], 20).await;
    check(&["--from", "-5", "--to", "-2"], 3).await;
}
