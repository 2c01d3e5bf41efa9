//! The facts of one topic, requested once for all who ask at the same time.
//!
//! Owns the last answer of the brokers. Knows no ring and no subscription.

use crate::stream::source::{LogSource, TopicFacts};
use evenkeel::kafka::KafkaError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a failed request answers all who ask.
const FAILURE_AGE_MAX: Duration = Duration::from_secs(1);

/// The last answer. Its lock is held during a request, so that others wait for the same one.
#[derive(Debug, Default)]
pub(super) struct FactsCache(Mutex<KnownFacts>);

#[derive(Debug, Default)]
struct KnownFacts {
    /// With the time of the request.
    facts: Option<(Instant, Arc<TopicFacts>)>,
    /// When the last request failed, if the brokers did not answer it.
    failed: Option<Instant>,
}

impl FactsCache {
    /// Facts that are at most `age_max` old. `limit` is the time-out that an error names.
    ///
    /// # Errors
    /// Returns the errors of [`LogSource::facts`], and [`KafkaError::Timeout`] if the brokers did
    /// not answer a request that ended less than a second ago, or after this call began: those who
    /// waited for it do not each wait for one more.
    pub(super) async fn get(
        &self,
        source: &LogSource,
        topic: &str,
        age_max: Duration,
        limit: Duration,
    ) -> Result<Arc<TopicFacts>, KafkaError> {
        let asked = Instant::now();
        let mut known = self.0.lock().await;
        if let Some((at, facts)) = &known.facts
            && (*at >= asked || at.elapsed() < age_max)
        {
            return Ok(Arc::clone(facts));
        }
        if let Some(at) = known.failed
            && (at >= asked || at.elapsed() < FAILURE_AGE_MAX)
        {
            return Err(KafkaError::Timeout {
                what: format!("requesting the offsets of {topic}"),
                seconds: limit.as_secs(),
            });
        }
        let at = Instant::now();
        let answer = source.facts(topic).await;
        let is_silent = matches!(
            answer,
            Err(KafkaError::Unreachable { .. } | KafkaError::Timeout { .. })
        );
        known.failed = is_silent.then(Instant::now);
        let facts = Arc::new(answer?);
        known.facts = Some((at, Arc::clone(&facts)));
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AllowList;
    use evenkeel::kafka::KafkaConfig;
    use evenkeel::schema::Catalogue;

    #[tokio::test(start_paused = true)]
    async fn a_failure_answers_for_a_second() {
        let catalogue = Catalogue::from_texts([]).expect("an empty catalogue");
        let allow_list = AllowList::new(Vec::new(), Arc::new(catalogue)).expect("an empty list");
        let limit = Duration::from_secs(3_600);
        // No request of the test is sent.
        let kafka = KafkaConfig::new("127.0.0.1:9");
        let source = LogSource::new(kafka, Arc::new(allow_list), limit);
        let cache = FactsCache::default();
        cache.0.lock().await.failed = Some(Instant::now());
        for _ in 0..3 {
            let answer = cache.get(&source, "topic", Duration::ZERO, limit).await;
            assert!(
                matches!(answer, Err(KafkaError::Timeout { .. })),
                "{answer:?}"
            );
            tokio::time::advance(Duration::from_millis(300)).await;
        }
    }
}
