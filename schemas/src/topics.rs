//! The declarations of the shop's topics.

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// What a topic is for and how it is to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicDeclaration {
    /// The topic's name.
    pub name: String,
    /// Number of partitions; at least one.
    pub partitions: i32,
    /// How long records are kept, in milliseconds; -1 keeps them for good.
    pub retention_ms: i64,
    /// The member of every payload that is its record's key.
    pub key: String,
    /// Services and commands that write to it.
    pub producers: Vec<String>,
    /// Consumer groups that read it.
    pub consumers: Vec<String>,
    /// Event types that travel on it, with their version.
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
            serde_json::from_str(document).expect("the embedded declarations parse, as a test says")
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
