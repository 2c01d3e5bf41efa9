//! Live control: real members of a group in this process, commanded by the real binary.

use crate::tool::{Run, run_on};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::control::{control_topic, control_topic_config};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{TestKafka, eventually, real_kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to happen.
const WITHIN: Duration = Duration::from_secs(30);

/// A topic that a group reads.
struct Shop {
    kafka: &'static TestKafka,
    group: String,
    topic: String,
}

impl Shop {
    /// None where there is no Apache Kafka.
    async fn new(partitions: i32) -> Option<Self> {
        let kafka = real_kafka().await?;
        let (group, topic) = (unique("payments"), unique("orders"));
        let created = kafka.create_topic(&topic, partitions).await;
        created.expect("the topic is new");
        Some(Self {
            kafka,
            group,
            topic,
        })
    }

    /// A member that handles everything at once.
    fn member(&self) -> Member {
        let stop = CancellationToken::new();
        let mut settings = ConsumerSettings::new(&self.group, [&self.topic]);
        settings.commit_interval = Duration::from_millis(100);
        let router = Router::new().raw(async |_: Record| ());
        let consumer = Consumer::new(self.kafka.config(), settings, router);
        let run = consumer.expect("settings").run(stop.clone());
        let run = tokio::spawn(async move {
            run.await.expect("it ends well");
        });
        Member { stop, run }
    }

    /// Publishes that many records to a partition.
    async fn publish(&self, partition: i32, records: usize) {
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&self.kafka.config(), settings).expect("a publisher");
        for number in 0..records {
            let record = OutgoingRecord {
                topic: self.topic.clone(),
                partition: Some(partition),
                key: Some(number.to_string().into()),
                value: Some("{}".into()),
                headers: Headers::new(),
                timestamp_ms: None,
            };
            publisher.publish_record(record).await.expect("published");
        }
    }

    /// Runs `groups COMMAND GROUP`.
    async fn groups(&self, command: &str, more: &[&str]) -> Run {
        let mut args = vec!["groups", command, &self.group];
        args.extend(more);
        run_on(self.kafka, &args, "").await
    }

    /// The same for a command that changes something, with JSON lines as output.
    async fn order(&self, command: &str, more: &[&str]) -> Run {
        let mut args = more.to_vec();
        args.extend(["--why", "a bad deploy", "--by", "ada", "-o", "jsonl"]);
        self.groups(command, &args).await
    }

    async fn described(&self) -> Value {
        let described = self.groups("describe", &["-o", "jsonl"]).await.code(0);
        described.rows().remove(0)
    }

    /// Waits until all partitions are assigned.
    async fn assigned(&self, partitions: usize) {
        eventually("all partitions are assigned", WITHIN, || async {
            let run = self.groups("describe", &["-o", "jsonl"]).await;
            let rows = (run.code == Some(0)).then(|| run.rows())?;
            let members = rows[0]["members"].as_array()?;
            let of = |member: &Value| {
                member["assignment"].as_object().map(|topics| {
                    topics
                        .values()
                        .filter_map(|list| Some(list.as_array()?.len()))
                        .sum::<usize>()
                })
            };
            (members.iter().filter_map(of).sum::<usize>() == partitions).then_some(())
        })
        .await;
    }
}

struct Member {
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Member {
    async fn stop(self) {
        self.stop.cancel();
        self.run.await.expect("it does not panic");
    }
}

fn outcomes(run: &Run) -> Vec<String> {
    let outcome = |row: &Value| row["outcome"].as_str().unwrap_or_default().to_owned();
    run.rows().iter().map(outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_group_does_what_it_is_told_and_the_history_has_it() {
    let Some(shop) = Shop::new(4).await else {
        return;
    };
    let members = [shop.member(), shop.member()];
    shop.assigned(4).await;
    let partition = ["--topic", &shop.topic, "--partition", "1"];
    let name = format!("partition/{}/1", shop.topic);

    let paused = shop.order("pause", &partition).await.code(0);
    assert_eq!(outcomes(&paused), ["applied"]);
    let row = &paused.rows()[0];
    assert_eq!(row["partitions"], serde_json::json!([name]));
    assert!(
        row["member"]
            .as_str()
            .is_some_and(|member| !member.is_empty()),
        "{row}"
    );
    let described = shop.described().await;
    assert_eq!(described["paused"][0]["scope"], name.as_str());
    assert_eq!(described["paused"][0]["by"], "ada");
    let table = shop.groups("describe", &[]).await.code(0).out;
    assert_eq!(table.matches("by ada: a bad deploy").count(), 1, "{table}");

    shop.publish(1, 3).await;
    let record = format!("{}/1@1", shop.topic);
    let asked = Instant::now();
    let skip = shop
        .order("skip", &["--record", &record, "--wait", "20s"])
        .await
        .code(0);
    assert_eq!(outcomes(&skip), ["pending"], "{skip:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "it does not wait for the resume"
    );

    let resumed = shop.order("resume", &partition).await.code(0);
    assert_eq!(outcomes(&resumed), ["applied"]);
    let rate = shop.order("rate", &["50"]).await.code(0);
    assert_eq!(outcomes(&rate), ["applied"; 2]);
    let described = shop.groups("describe", &["-o", "jsonl"]).await.code(0);
    assert_eq!(described.rows()[0]["rate"]["records_per_second"], 50);
    assert!(
        described.err.contains("50 records a second"),
        "{}",
        described.err
    );
    shop.order("rate", &["off"]).await.code(0);
    let retried = shop
        .order("retry-now", &["--topic", &shop.topic])
        .await
        .code(0);
    assert_eq!(outcomes(&retried), ["applied"; 2]);

    let history = eventually("the history has the skip's end", WITHIN, || async {
        let rows = shop
            .groups("history", &["-o", "jsonl"])
            .await
            .code(0)
            .rows();
        let acks = rows[1]["acknowledgements"].as_array()?;
        (acks.len() == 2).then_some(rows)
    })
    .await;
    let given: Vec<&str> = history
        .iter()
        .filter_map(|row| row["action"].as_str())
        .collect();
    assert_eq!(
        given,
        ["pause", "skip", "resume", "rate", "rate", "retry-now"]
    );
    assert_eq!(history[1]["acknowledgements"][1]["outcome"], "skipped");
    assert_eq!(
        (&history[0]["by"], &history[0]["why"]),
        (&"ada".into(), &"a bad deploy".into())
    );
    let later = shop
        .groups(
            "history",
            &["--since", "2100-01-01T00:00:00Z", "-o", "jsonl"],
        )
        .await;
    assert!(later.code(0).rows().is_empty());
    let table = shop.groups("history", &[]).await.code(0).out;
    assert!(
        table.contains(&format!("skip the record {record}")),
        "{table}"
    );
    assert_eq!(
        table.matches("a bad deploy").count(),
        6,
        "each command once: {table}"
    );

    let letters = run_on(
        shop.kafka,
        &["dlq", "list", "--group", &shop.group, "-o", "jsonl"],
        "",
    )
    .await;
    let letters = letters.code(0).rows();
    assert_eq!(
        (&letters[0]["stage"], &letters[0]["count"]),
        (&"skipped".into(), &1.into())
    );
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_on_this_cluster_is_refused_and_nothing_is_given() {
    let Some(shop) = Shop::new(1).await else {
        return;
    };
    let no_topic = shop.order("pause", &[]).await.code(1);
    assert!(no_topic.err.contains("control."), "{}", no_topic.err);
    shop.groups("history", &[]).await.code(1);
    let member = shop.member();
    shop.assigned(1).await;
    let check = async |command: &str, more: &[&str], expected: &str| {
        let run = shop.order(command, more).await.code(1);
        assert!(run.err.contains(expected), "{}", run.err);
    };
    check("pause", &["--topic", "no-such-topic"], &shop.topic).await;
    check(
        "pause",
        &["--topic", &shop.topic, "--partition", "9"],
        "no partition 9",
    )
    .await;
    let record = format!("{}/0@7", shop.topic);
    check("skip", &["--record", &record], "there is no record").await;
    check("resume", &[], "nothing is paused").await;
    member.stop().await;

    check("retry-now", &[], "no member").await;
    let kept = shop.order("pause", &[]).await.code(0);
    assert!(
        kept.err.contains("holds for the members that start"),
        "{}",
        kept.err
    );
    check(
        "resume",
        &["--topic", &shop.topic],
        "paused is the whole group",
    )
    .await;
    let history = shop
        .groups("history", &["-o", "jsonl"])
        .await
        .code(0)
        .rows();
    assert_eq!(history.len(), 1, "{history:?}");
    let member = shop.member();
    eventually("a new member answers for what it found", WITHIN, || async {
        let history = shop.groups("history", &["-o", "jsonl"]).await.rows();
        (history[0]["acknowledgements"].as_array()?.len() == 1).then_some(())
    })
    .await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_answer_in_time_is_told_by_the_exit_code() {
    let Some(shop) = Shop::new(1).await else {
        return;
    };
    let admin = Admin::connect(&shop.kafka.config(), WITHIN)
        .await
        .expect("connected");
    let topic = NewTopic {
        name: control_topic(&shop.group),
        partitions: 1,
        replication: 1,
        config: control_topic_config(),
    };
    admin.create_topics(&[topic]).await.expect("created");
    // A member that knows nothing of commands.
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", shop.kafka.brokers())
        .set("group.id", &shop.group)
        .create()
        .expect("a consumer");
    client.subscribe(&[&shop.topic]).expect("subscribed");
    let over = Arc::new(AtomicBool::new(false));
    let polling = {
        let over = Arc::clone(&over);
        tokio::task::spawn_blocking(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = client.poll(Duration::from_millis(50));
            }
        })
    };
    shop.assigned(1).await;
    let run = shop.order("pause", &["--wait", "1s"]).await.code(5);
    assert!(
        run.err.contains(&format!("no answer for {}/0", shop.topic)),
        "{}",
        run.err
    );
    assert!(run.err.contains("groups history"), "{}", run.err);
    over.store(true, Ordering::Relaxed);
    polling.await.expect("it ends");
}
