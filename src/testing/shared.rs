//! The one Apache Kafka that the tests of a process share, and what a test does where there is none.

use super::{KafkaKind, StartError, TestKafka};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::OnceCell;

/// Set to `1` where a test without Apache Kafka, or without another server that it needs, is a failure: on CI.
const REQUIRE: &str = "EVENKEEL_REQUIRE_KAFKA";

/// Never dropped: the leash ends what was started when the process ends.
static SHARED: OnceCell<Result<TestKafka, String>> = OnceCell::const_new();

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

pub(super) async fn shared_real() -> Result<&'static TestKafka, StartError> {
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

/// The shared Apache Kafka for a test that needs one; none after saying on standard error why the test is skipped.
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
/// Where `EVENKEEL_REQUIRE_KAFKA=1` is set and there is no Apache Kafka: CI must not pass by skipping.
pub async fn real_kafka() -> Option<&'static TestKafka> {
    required(shared_real().await)
}

/// What a test needs and may not be there; none after saying on standard error why the test is skipped.
///
/// # Panics
/// Where `EVENKEEL_REQUIRE_KAFKA=1` is set: CI must not pass by skipping.
pub fn required<T>(needed: Result<T, StartError>) -> Option<T> {
    let reason = match needed {
        Ok(needed) => return Some(needed),
        Err(reason) => reason,
    };
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "{REQUIRE}=1 is set, so this test must not be skipped: {reason}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    say(&format!("skipped {test} ({count} so far): {reason}"));
    None
}

/// Writes a line to standard error past the test harness, which keeps what `eprintln!` prints to itself.
pub(super) fn say(line: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
