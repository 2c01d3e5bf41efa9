//! Checks of the cluster that the committing thread makes between commits: whether the brokers
//! answer, whether the subscribed topics exist, and whether a topic was created again.

use crate::consumer::commit::Committer;
use crate::consumer::commit::next_commit::TrackedPartition;
use crate::kafka::native::topic_ids;
use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a check of the cluster waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How often the ids of the topics are compared with those at the assignment: a recreated topic has
/// another id.
const TOPICS_EVERY: Duration = Duration::from_secs(5);

impl<C: ConsumerContext + 'static> Committer<C> {
    /// Checks whether the brokers answer and the topics exist, after an error was reported:
    /// librdkafka reports that brokers are down, but not that they are up again.
    pub(super) fn check_cluster(&self) {
        let readiness = &self.shared.readiness;
        if !readiness.has_cluster_error() && !readiness.is_topic_missing() {
            return;
        }
        let mut all_exist = true;
        for topic in &self.shared.settings.topics {
            match self.topic_error(topic) {
                None => {}
                // A missing topic is an answer as well.
                Some(Code::UnknownTopicOrPartition) => all_exist = false,
                Some(_) => return,
            }
        }
        readiness.cluster_answers();
        if all_exist {
            readiness.topics_exist();
        }
    }

    /// The error that the brokers report for a topic, if any.
    ///
    /// Blocks for at most a second.
    fn topic_error(&self, topic: &str) -> Option<Code> {
        let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
            Ok(metadata) => metadata,
            Err(error) => return Some(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        let error = metadata.topics().iter().find_map(|topic| topic.error());
        error.map(Code::from)
    }

    /// Looks up the ids of the topics. A recreated topic has none of the records of the committed
    /// offsets, so that nothing more is committed for it.
    ///
    /// The poll thread takes the epochs ([`Shared::add_recreated`]) and assigns their partitions
    /// anew. A retry topic that was recreated ends the run instead: its parked records are lost,
    /// and the offsets of those records in the source are committed.
    pub(super) fn compare_topics(&mut self) {
        if self.topics_compared_at.elapsed() < TOPICS_EVERY
            || self.shared.readiness.has_cluster_error()
        {
            return;
        }
        let known = self
            .partitions
            .values()
            .filter(|tracked| tracked.topic_id.is_some());
        let topics: BTreeSet<&str> = known.map(|tracked| &*tracked.owned.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = topic_ids(self.consumer.client(), &topics, ANSWER_WITHIN);
        self.topics_compared_at = Instant::now();
        let is_another = |tracked: &TrackedPartition| {
            let id = ids.get(&*tracked.owned.topic);
            tracked.topic_id.zip(id).is_some_and(|(was, is)| was != *is)
        };
        let gone: Vec<TrackedPartition> = self
            .partitions
            .extract_if(|_, tracked| is_another(tracked))
            .map(|(_, tracked)| tracked)
            .collect();
        if let Some(retry) = gone
            .iter()
            .find(|tracked| tracked.owned.parked_of.is_some())
        {
            let topic = &retry.owned.topic;
            let (keys, records) = self.shared.retry_topics.waiting_in(topic);
            self.shared.abort(format!(
                "the retry topic {topic} was deleted and created again while {records} records of {keys} keys were parked in the \
                 partitions of this member: they are lost; evenkeel audit names them; handle them again from the source"
            ));
        }
        let gone = gone.iter().map(|tracked| tracked.owned.epoch);
        self.shared.add_recreated(gone);
    }
}
