//! Finds or starts a Kafka of a given kind.
//!
//! A description contains why the kinds before it were passed over, so that a test run's output
//! shows which Kafka it used.

use super::cluster::{ClusterOwner, KafkaKind, TestKafka};
use super::mock::Mock;
#[cfg(feature = "testing")]
use super::shared;
use super::{container, environment, java};
use crate::kafka::KafkaConfig;
use crate::testing::error::StartError;

impl TestKafka {
    /// Finds or starts a Kafka of `kind`.
    ///
    /// [`KafkaKind::Auto`] tries the kinds in the order of the module's list. Any other kind is
    /// used, or reported as unavailable. The first start may download about 45 MB of jars, or the
    /// image.
    ///
    /// # Errors
    /// With [`KafkaKind::Auto`]: if the environment names brokers that do not answer. With another
    /// kind: if it is not available or fails to start.
    pub async fn start(kind: KafkaKind) -> Result<Self, StartError> {
        match kind {
            KafkaKind::Auto => {
                Self::first_of(&[KafkaKind::Docker, KafkaKind::Java, KafkaKind::Mock]).await
            }
            KafkaKind::Docker => container::start().await,
            KafkaKind::Java => java::start(&[]).await,
            KafkaKind::Mock => start_mock(),
        }
    }

    /// Starts Apache Kafka as a Java process with additional broker settings (`name`, `value`), for
    /// tests that cannot use the shared one. They override those of every test broker.
    ///
    /// ```no_run
    /// use evenkeel::testing::{TestKafka, required};
    ///
    /// # async fn a_test() {
    /// let settings = [("message.max.bytes", "10000")];
    /// let Some(kafka) = required(TestKafka::start_with(&settings).await) else { return };
    /// # let _ = kafka;
    /// # }
    /// ```
    ///
    /// # Errors
    /// If Java is missing, or if Kafka's jars are not cached and Maven cannot download them.
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self, StartError> {
        java::start(settings).await
    }

    /// Starts Apache Kafka as a Java process that keeps its data in `directory`, in
    /// `data/TOPIC-PARTITION/`. The process is killed when the value is dropped. A second start in
    /// the same directory is the same cluster at the same address. Between the two, a test can
    /// change the files, as a lost or restored disk does.
    ///
    /// # Errors
    /// As for [`TestKafka::start_with`].
    pub async fn start_in(directory: &std::path::Path) -> Result<Self, StartError> {
        java::start_in(directory).await
    }

    /// The Apache Kafka that the tests of this process share. The first call finds or starts it; it
    /// ends with the process.
    ///
    /// Tests avoid conflicts by [`unique`](crate::testing::unique) names. It is never the mock
    /// cluster.
    ///
    /// # Errors
    /// If neither the environment nor Docker nor Java provides one, with the reason for each. Every
    /// call returns the same error.
    #[cfg(feature = "testing")]
    pub async fn shared_real() -> Result<&'static TestKafka, StartError> {
        shared::shared_real().await
    }

    /// The brokers of the environment if it names any, else the first available one of `kinds`.
    pub(in crate::testing) async fn first_of(kinds: &[KafkaKind]) -> Result<Self, StartError> {
        if let Some(found) = environment::find().await? {
            return Ok(found);
        }
        let mut passed_over = vec![format!("{} is not set", environment::VARIABLE)];
        for kind in kinds {
            match Box::pin(Self::start(*kind)).await {
                Ok(mut kafka) => {
                    kafka.description += &format!(" ({})", passed_over.join("; "));
                    return Ok(kafka);
                }
                Err(error) => passed_over.push(error.to_string()),
            }
        }
        Err(StartError::NoneFound {
            tried: passed_over.join("; "),
        })
    }
}

/// Starts a mock cluster.
fn start_mock() -> Result<TestKafka, StartError> {
    let (mock, brokers) = Mock::start()?;
    Ok(TestKafka {
        kind: KafkaKind::Mock,
        description: format!("librdkafka's mock cluster in this process, at {brokers}"),
        config: KafkaConfig::new(brokers),
        backing: ClusterOwner::Mock(mock),
    })
}
