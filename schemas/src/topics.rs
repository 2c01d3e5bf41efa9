//! The declarations of the shop's topics.

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The declaration of a topic: its settings, and the events on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicDeclaration {
    /// Name of the topic.
    pub name: String,
    /// Number of partitions; at least one.
    pub partitions: i32,
    /// Retention in milliseconds; -1 keeps records for ever.
    pub retention_ms: i64,
    /// Field of the payloads that is the record key.
    pub key: String,
    /// Services and commands that publish to it.
    pub producers: Vec<String>,
    /// Consumer groups that read it.
    pub consumers: Vec<String>,
    /// Event types on it, with their version.
    pub events: Vec<String>,
}

const DOCUMENTS: [&str; 5] = [
    include_str!("../topics/shop.deliveries.json"),
    include_str!("../topics/shop.orders.json"),
    include_str!("../topics/shop.payments.json"),
    include_str!("../topics/shop.shipments.json"),
    include_str!("../topics/shop.stock.json"),
];

static TOPICS: LazyLock<Vec<TopicDeclaration>> = LazyLock::new(|| {
    DOCUMENTS
        .iter()
        .map(|document| {
            serde_json::from_str(document)
                .expect("the embedded declarations parse, as a test checks")
        })
        .collect()
});

/// The shop's topics, sorted by name.
pub fn topics() -> &'static [TopicDeclaration] {
    &TOPICS
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_event_of_a_topic_requires_its_key_member() {
        let catalogue = crate::catalogue().expect("the schemas compile");
        for topic in topics() {
            for event in &topic.events {
                let schema = catalogue.schema(event).expect("the event has a schema");
                let required = schema["required"].as_array().expect("some are required");
                assert!(required.contains(&json!(topic.key)), "{event}");
            }
        }
    }
}
