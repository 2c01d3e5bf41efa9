//! The Apache Kafka that the tests of a process share. Without one, tests are skipped.
//!
//! A failed start is remembered like a successful one: otherwise each test of a machine without
//! Kafka would wait for the same failure.

use crate::telemetry::say;
use crate::testing::skipped_tests::required;
use crate::testing::{KafkaKind, StartError, TestKafka};
use tokio::sync::OnceCell;

/// Never dropped: the reaper stops the server when the process ends.
static SHARED: OnceCell<Result<TestKafka, String>> = OnceCell::const_new();

/// The shared Kafka. Concurrent first calls wait for one start.
pub(in crate::testing) async fn shared_real() -> Result<&'static TestKafka, StartError> {
    let shared = SHARED
        .get_or_init(|| async {
            match TestKafka::first_of(&[KafkaKind::Docker, KafkaKind::Java]).await {
                Ok(kafka) => {
                    say(&format!(
                        "Apache Kafka for these tests: {}",
                        kafka.description()
                    ));
                    Ok(kafka)
                }
                Err(StartError::NoneFound { tried }) => Err(tried),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    shared.as_ref().map_err(|tried| StartError::NoneFound {
        tried: tried.clone(),
    })
}

/// The shared Apache Kafka for a test. If none is available, prints to standard error why the test
/// is skipped, and returns `None`.
///
/// The first call of a process finds or starts it, by the environment, Docker or Java, and takes
/// some seconds. It is never the mock cluster, and it ends with the process. Do not freeze it:
/// other tests use it at the same time.
///
/// ```no_run
/// # async fn a_test() {
/// let Some(kafka) = evenkeel::testing::real_kafka().await else {
///     return;
/// };
/// # }
/// ```
///
/// # Panics
/// If no Apache Kafka is available and `EVENKEEL_REQUIRE_KAFKA=1` is set: CI must not pass by
/// skipping.
pub async fn real_kafka() -> Option<&'static TestKafka> {
    required(shared_real().await)
}
