//! `consume` prints the records of topics in every format, to the end or until it is stopped.

use crate::support::tool::{Cluster, PATIENCE, start};
use evenkeel::testing::{ChildProcess, eventually};
use std::io::BufRead;

fn orders(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("o-{number}"))
}

/// Waits until a command that goes on running has printed that many lines.
async fn lines(consume: &ChildProcess, count: usize, why: &str) {
    eventually(why, PATIENCE, || async {
        (consume.stdout().matches('\n').count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn until_end_shows_every_record_once_in_partition_order() {
    let cluster = Cluster::with_topic(4).await;
    cluster.publish_orders(orders(500)).await;
    let records = cluster.records(&[]).await;
    assert_eq!(records.len(), 500);
    for partition in 0..4 {
        let offsets: Vec<u64> = records
            .iter()
            .filter(|record| record["partition"] == partition)
            .map(|record| record["offset"].as_u64().expect("it is a number"))
            .collect();
        let expected: Vec<u64> = (0..offsets.len() as u64).collect();
        assert_eq!(offsets, expected);
    }
}

#[tokio::test]
async fn an_empty_topic_ends_at_once() {
    let cluster = Cluster::with_topic(2).await;
    assert_eq!(cluster.records(&[]).await.len(), 0);
    let array = ["consume", &cluster.topic, "-e", "--output", "json"];
    assert_eq!(cluster.run(&array, "").await.code(0).stdout, "[]\n");
}

#[tokio::test]
async fn start_count_and_format_work_as_in_kcat() {
    let cluster = Cluster::with_topic(1).await;
    cluster.publish_orders(orders(5)).await;
    let check = async |more: &[&str], expected: &str| {
        let mut args = vec!["tail", "-e", "-f", r"%o:%k\n", "-t", &cluster.topic];
        args.extend(more);
        assert_eq!(
            cluster.run(&args, "").await.code(0).stdout,
            expected,
            "{more:?}"
        );
    };
    check(&["-o", "3"], "3:o-3\n4:o-4\n").await;
    check(&["-o", "-1"], "4:o-4\n").await;
    check(&["-o", "-100", "-c", "2"], "0:o-0\n1:o-1\n").await;
    check(&["-o", "end"], "").await;
    check(&["-o", "beginning", "--filter", "key=*-2"], "2:o-2\n").await;
    check(&["--filter", "type=shop.order-placed.*"], "").await;
}

#[tokio::test]
async fn a_broken_pipe_ends_it_quietly() {
    let cluster = Cluster::with_topic(1).await;
    // More than a pipe and our own buffer hold, so that the rest of it has to be written after the pipe is closed.
    cluster.publish_orders(orders(5_000)).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = cluster.command(&["consume", &cluster.topic, "-J"]);
    command.stdout(writer);
    let child = start(command);
    let read = move || {
        let mut line = String::new();
        let mut reader = std::io::BufReader::with_capacity(1, reader);
        reader.read_line(&mut line).expect("it can be read");
        line
    };
    let line = tokio::task::spawn_blocking(read).await.expect("it is read");
    assert!(line.ends_with('\n'), "there are records: {line:?}");
    assert_eq!(child.finished(PATIENCE).await.code(0).stderr, "");
}

#[tokio::test]
async fn it_follows_until_a_signal_and_exits_with_its_code() {
    let cluster = Cluster::with_topic(1).await;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        cluster.publish_orders(orders(1)).await;
        let child = start(cluster.command(&["consume", &cluster.topic, "-J", "-o", "-1"]));
        lines(&child, 1, "a record that waits in a buffer is passed on").await;
        cluster.publish_orders(orders(1)).await;
        lines(&child, 2, "it follows the topic").await;
        child.signal(signal);
        child.finished(PATIENCE).await.code(code);
    }
}

#[tokio::test]
async fn a_missing_topic_or_partition_is_named() {
    let cluster = Cluster::with_topic(2).await;
    let run = cluster.run(&["tail", "no-such-topic", "-e"], "").await;
    assert!(run.code(1).stderr.contains("no-such-topic"));
    let run = cluster
        .run(&["tail", &cluster.topic, "-p", "7", "-e"], "")
        .await;
    assert!(run.code(1).stderr.contains("no partition 7"));
}
