//! The effective settings of topics, whatever their origin.
//!
//! The consumer checks with them that Kafka keeps the records that a group needs, and the
//! publisher reads the largest batch that a topic accepts.

use super::connection::Connection;
use super::topics::valid_name;
use crate::kafka::KafkaError;
use rdkafka::admin::{AdminOptions, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

/// A topic's settings by name.
pub(crate) type Settings = BTreeMap<String, Setting>;

/// The effective value of a topic's setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its value.
    pub(crate) value: String,
    /// Whether the topic itself has the setting. Otherwise it is the brokers' default, which may
    /// change at any time.
    pub(crate) is_own: bool,
}

/// The settings of several topics by one request. Omits topics whose settings the brokers do not
/// show, which requires an ACL for DESCRIBE_CONFIGS.
pub(super) fn of_topics(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, Settings>, KafkaError> {
    let what = "reading the settings of topics";
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    connection.reject_on_mock(what)?;
    let options = AdminOptions::new().request_timeout(Some(connection.remaining(what)?));
    let mut resources = Vec::with_capacity(topics.len());
    for topic in topics {
        resources.push(ResourceSpecifier::Topic(valid_name(topic)?));
    }
    let answer = connection.admin()?.describe_configs(&resources, &options);
    let answer = Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(what, error))?;
    let mut settings = BTreeMap::new();
    for resource in answer.into_iter().flatten() {
        let OwnedResourceSpecifier::Topic(topic) = resource.specifier else {
            continue;
        };
        let entries = resource.entries.into_iter().filter_map(|entry| {
            let is_own = entry.source == ConfigSource::DynamicTopic;
            let value = entry.value?;
            Some((entry.name, Setting { value, is_own }))
        });
        let entries: Settings = entries.collect();
        // The bindings drop the error of a single topic. As every topic has settings, an empty list
        // is an error.
        if !entries.is_empty() {
            settings.insert(topic, entries);
        }
    }
    Ok(settings)
}
