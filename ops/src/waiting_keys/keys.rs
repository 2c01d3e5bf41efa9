//! Finds the waiting keys of a group.

use super::WaitingKeysError;
use crate::{Cluster, Observer, UnknownGroup, blocking, visibility};
use evenkeel::consumer::{ParkedKey, parked_keys};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::retry_topic;

/// The waiting keys of a group in these source topics, topic by topic. Reads the unsettled part of
/// each retry topic on a blocking thread; that takes as long as a member needs at its start.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn waiting_keys(
    cluster: &Cluster,
    group: &str,
    topics: Vec<String>,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let (cluster, group) = (cluster.clone(), group.to_owned());
    let look = move || {
        let mut keys = Vec::new();
        for topic in topics {
            let of_topic = parked_keys(&cluster.kafka, &group, &topic, cluster.timeout)?;
            keys.extend(of_topic);
        }
        Ok(keys)
    };
    blocking::run(look).await
}

/// The source topics of the group that have a retry topic, or `named` if each of them has one. A
/// topic counts as a source if a topic with the name of its retry topic exists; whether the group
/// reads it is not checked.
///
/// # Errors
/// [`WaitingKeysError::NoRetryTopic`], [`WaitingKeysError::NoRetryTopics`] or
/// [`WaitingKeysError::UnknownGroup`]. Also if a request to the cluster fails.
pub async fn source_topics(
    admin: &Admin,
    group: &str,
    named: &[String],
    observer: &dyn Observer,
) -> Result<Vec<String>, WaitingKeysError> {
    if !named.is_empty() {
        let retries: Vec<String> = named
            .iter()
            .map(|topic| retry_topic(group, topic))
            .collect();
        // A topic that the client may not see is an error, not a missing topic.
        let counts = admin.partition_counts(&retries).await?;
        let mut pairs = named.iter().zip(&retries);
        return match pairs.find(|(_, retry)| !counts.contains_key(*retry)) {
            Some((topic, retry)) => Err(WaitingKeysError::NoRetryTopic {
                group: group.to_owned(),
                topic: topic.clone(),
                retry: retry.clone(),
            }),
            None => Ok(named.to_vec()),
        };
    }
    let names = admin.topics().await?;
    let has_retry = |topic: &&String| names.contains(&retry_topic(group, topic));
    let sources: Vec<String> = names.iter().filter(has_retry).cloned().collect();
    if sources.is_empty() {
        // Topics that the client may not see may exist.
        visibility::check_topics(admin, &retry_topic(group, ""), 0, observer).await?;
        if admin.describe_group(group).await?.is_none() {
            return Err(UnknownGroup::new(admin, group).await.into());
        }
        let group = group.to_owned();
        return Err(WaitingKeysError::NoRetryTopics { group });
    }
    Ok(sources)
}

/// A key as text. Bytes that are not UTF-8 become replacement characters.
pub fn key_text(key: Option<&[u8]>) -> Option<String> {
    key.map(|key| String::from_utf8_lossy(key).into_owned())
}
