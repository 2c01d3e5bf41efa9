//! Clients that log in with tokens go on beyond the end of each of them.

use crate::support::{Case, Log, Member, Step, set};
use evenkeel::event::Event;
use evenkeel::handler::Router;
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::kafka::reader::Reader;
use evenkeel::testing::{Listener, SecuredKafka, eventually, secured_kafka, unique};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a token lasts. Connections end with it.
const LASTS: Duration = Duration::from_secs(20);
/// How often the file is replaced.
const REPLACED_EVERY: Duration = Duration::from_secs(5);
/// How long one step may take: less than it takes a client to be refused, give up and be lucky.
const WITHIN: Duration = Duration::from_secs(10);

/// Replaces the file as sidecars and kubelets do, in one step.
fn replace(file: &Path) {
    let next = file.with_extension("next");
    std::fs::write(
        &next,
        SecuredKafka::token("admin", 0, LASTS.as_secs() as i64),
    )
    .expect("the file is written");
    std::fs::rename(next, file).expect("the file is renamed");
}

/// Replaces the file now and again until it is dropped.
struct Sidecar(Arc<AtomicBool>);

impl Sidecar {
    fn start(file: &Path) -> Self {
        let (file, stop) = (file.to_owned(), Arc::new(AtomicBool::new(false)));
        replace(&file);
        let asked = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut replaced_at = Instant::now();
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                if replaced_at.elapsed() > REPLACED_EVERY {
                    replace(&file);
                    replaced_at = Instant::now();
                }
            }
        });
        Self(stop)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a topic of one partition as it grows until it is told to stop.
fn follow(kafka: KafkaConfig, topic: String, read: Log<i64>, stop: Arc<AtomicBool>) {
    let mut reader = Reader::follow(&kafka, [topic], WITHIN).expect("a reader");
    while !stop.load(Ordering::Relaxed) {
        // It connects again by itself; whether in time is for who waits for the record.
        if let Ok(Some(record)) = reader.next(Duration::from_millis(100)) {
            read.push(record.offset);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_continues_with_the_files_next_token() {
    let Some(secured) = secured_kafka().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let file = folder.path().join("token");
    let sidecar = Sidecar::start(&file);
    let mut kafka = KafkaConfig::new(secured.address(Listener::Tokens));
    for property in SecuredKafka::token_login(&file) {
        set(&mut kafka, &property);
    }
    let admin = Admin::connect(&kafka, WITHIN)
        .await
        .expect("the admin client connects");
    let topic = unique("it-tokens");
    let spec = |name: &str| NewTopic::new(name).with_partitions(1).with_replication(1);
    admin
        .create_topics(&[spec(&topic)])
        .await
        .expect("the broker creates the topic");

    let case = Case::named(kafka.clone(), topic.clone(), 1);
    let (handled, read) = (Log::new(), Log::new());
    let seen = handled.clone();
    let router = Router::new().on(move |step: Event<Step>| {
        seen.push(step.data.number);
        async {}
    });
    let member = Member::start(&kafka, case.settings(), router);
    let stop = Arc::new(AtomicBool::new(false));
    let following = {
        let (read, stop) = (read.clone(), Arc::clone(&stop));
        std::thread::spawn(move || follow(kafka, topic, read, stop))
    };
    member.joined().await;
    let publisher = case.publisher();
    let started = Instant::now();
    let mut number = 0;
    // Beyond the end of the second token of each client.
    while started.elapsed() < LASTS * 5 / 2 {
        let record = case.step(&publisher, "k", number);
        let sent = async {
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record")
                .await
        };
        let sent = tokio::time::timeout(WITHIN, sent).await;
        sent.expect("it ends in time")
            .expect("the brokers acknowledge the record");
        eventually("it is handled and read", WITHIN, || async {
            let is_there =
                handled.entries().contains(&number) && read.entries().contains(&(number as i64));
            is_there.then_some(())
        })
        .await;
        number += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Its clients did nothing all the while, and nobody polled them.
    let later = unique("it-tokens");
    admin
        .create_topics(&[spec(&later)])
        .await
        .expect("the broker creates the topic");
    assert!(
        admin
            .topics()
            .await
            .expect("the cluster lists its topics")
            .contains(&later)
    );
    let report = member.stop().await;
    assert_eq!(report.settled, number);
    stop.store(true, Ordering::Relaxed);
    following.join().expect("the reader ends");
    drop(sidecar);
}
