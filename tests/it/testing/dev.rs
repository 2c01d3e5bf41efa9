//! The development Kafka outlives the process that started it, and ends when told to.

use super::{kind_of_second, second_process};
use evenkeel::testing::{ChildProcess, KafkaKind, StartError, dev, free_port, real_kafka};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A start may download the jars or the image first.
const WITHIN: Duration = Duration::from_secs(600);

/// Runs the test of this name again with a state directory of its own.
async fn runs_apart(test: &str, kind: KafkaKind, state: &Path) {
    let mut command = second_process(test, kind);
    command.env("XDG_STATE_HOME", state);
    let second = ChildProcess::start(command).expect("the test binary starts again");
    second.finished(WITHIN).await.code(0);
}

#[tokio::test]
async fn a_development_kafka_is_found_until_taken_down() {
    const TEST: &str = "testing::dev::a_development_kafka_is_found_until_taken_down";
    let Some(kind) = kind_of_second() else {
        if let Some(shared) = real_kafka()
            .await
            .filter(|kafka| kafka.kind() != KafkaKind::Auto)
        {
            let state = tempfile::tempdir().expect("a temporary folder is created");
            runs_apart(TEST, shared.kind(), state.path()).await;
        }
        return;
    };
    assert_eq!(dev::status().await.expect("the status can be read"), None);
    assert_eq!(dev::down().await.expect("there is nothing to stop"), None);

    let up = dev::up(kind, free_port().expect("a free port"))
        .await
        .expect("the development Kafka starts");
    assert_eq!(up.kind, kind);
    TcpStream::connect(&up.brokers).expect("it listens");
    assert_eq!(
        dev::status().await.expect("the status can be read"),
        Some(up.clone())
    );
    let again = dev::up(kind, free_port().expect("a free port"))
        .await
        .expect("the development Kafka is found");
    assert_eq!(again, up, "a second start finds the first");

    assert_eq!(
        dev::down().await.expect("the development Kafka stops"),
        Some(up.clone())
    );
    assert!(TcpStream::connect(&up.brokers).is_err());
    assert_eq!(dev::status().await.expect("the status can be read"), None);
}

#[tokio::test]
async fn a_port_in_use_is_named_before_anything_is_started() {
    const TEST: &str = "testing::dev::a_port_in_use_is_named_before_anything_is_started";
    let Some(kind) = kind_of_second() else {
        let state = tempfile::tempdir().expect("a temporary folder is created");
        return runs_apart(TEST, KafkaKind::Java, state.path()).await;
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let error = dev::up(kind, port).await.expect_err("the port is taken");
    assert!(matches!(error, StartError::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn the_mock_cluster_is_refused_as_a_development_kafka() {
    const TEST: &str = "testing::dev::the_mock_cluster_is_refused_as_a_development_kafka";
    if kind_of_second().is_none() {
        let state = tempfile::tempdir().expect("a temporary folder is created");
        return runs_apart(TEST, KafkaKind::Java, state.path()).await;
    }
    let error = dev::up(KafkaKind::Mock, free_port().expect("a free port"))
        .await
        .expect_err("it would end with the command");
    assert!(error.to_string().contains("foreground"), "{error}");
}
