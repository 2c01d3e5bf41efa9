//! The event of the workloads that read CloudEvents: a shop's order.

use anyhow::Context;
use evenkeel::event::{ContentMode, Event, EventType, encode};
use evenkeel::schema::Catalogue;
use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};

/// An order. The check reads `key` and `place`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderEvent {
    pub(crate) key: u32,
    pub(crate) place: u64,
    pub(crate) customer: String,
    pub(crate) total_cents: i64,
    pub(crate) express: bool,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) note: String,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderLine {
    pub(crate) article: String,
    pub(crate) quantity: u32,
    pub(crate) price_cents: i64,
}

/// The source of the orders.
pub(crate) const SOURCE: &str = "/bench/samples";

/// The JSON schema of an [`OrderEvent`].
const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "bench.sample.v1",
  "type": "object",
  "required": ["key", "place", "customer", "total_cents", "express", "lines", "note"],
  "additionalProperties": false,
  "properties": {
    "key": { "type": "integer", "minimum": 0 },
    "place": { "type": "integer", "minimum": 0 },
    "customer": { "type": "string", "minLength": 1 },
    "total_cents": { "type": "integer" },
    "express": { "type": "boolean" },
    "lines": {
      "type": "array",
      "minItems": 1,
      "items": {
        "type": "object",
        "required": ["article", "quantity", "price_cents"],
        "additionalProperties": false,
        "properties": {
          "article": { "type": "string", "minLength": 1 },
          "quantity": { "type": "integer", "minimum": 1 },
          "price_cents": { "type": "integer" }
        }
      }
    },
    "note": { "type": "string" }
  }
}"#;

impl EventType for OrderEvent {
    const TYPE: &'static str = "bench.sample.v1";
    const TOPIC: &'static str = "bench.samples";

    fn key(&self) -> String {
        crate::measure::result_check::key(self.key as usize)
    }
}

impl OrderEvent {
    /// The order with this key and position, with `size` bytes of JSON.
    pub(crate) fn new(key: usize, place: u64, size: usize) -> Self {
        let line = |number: u64| OrderLine {
            article: format!("article-{:04}", (place + number) % 10_000),
            quantity: 1 + (number as u32),
            price_cents: 1_000 + place as i64 % 1_000,
        };
        let mut sample = Self {
            key: key as u32,
            place,
            customer: format!("customer-{key:06}"),
            total_cents: 3_000,
            express: place.is_multiple_of(2),
            lines: vec![line(0), line(1)],
            note: String::new(),
        };
        let bare = serde_json::to_vec(&sample).map_or(0, |json| json.len());
        sample.note = crate::measure::result_check::noise(place, size.saturating_sub(bare));
        sample
    }

    /// Value and headers of its record.
    pub(crate) fn encoded(self) -> anyhow::Result<(Vec<u8>, OwnedHeaders)> {
        encoded(&Event::new(SOURCE, self))
    }

    /// Value and headers of its record, with this id instead of a new one.
    pub(crate) fn encoded_with_id(self, id: String) -> anyhow::Result<(Vec<u8>, OwnedHeaders)> {
        let mut event = Event::new(SOURCE, self);
        event.attributes.id = id;
        encoded(&event)
    }

    /// A catalogue with its compiled schema.
    pub(crate) fn catalogue() -> anyhow::Result<Catalogue> {
        Ok(Catalogue::from_texts([("bench.sample.v1", SCHEMA)])?)
    }
}

fn encoded(event: &Event<OrderEvent>) -> anyhow::Result<(Vec<u8>, OwnedHeaders)> {
    let record = encode(event, ContentMode::Binary, None)?;
    let mut headers = OwnedHeaders::new();
    for (name, value) in record.headers.iter() {
        let key = std::str::from_utf8(name)?;
        headers = headers.insert(Header { key, value });
    }
    let value = record.value.context("an event has a payload")?;
    Ok((value.to_vec(), headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers;

    #[test]
    fn a_given_id_replaces_the_new_one() {
        let sample = OrderEvent::new(7, 42, 328);
        let (_, headers) = sample
            .encoded_with_id("o-1".to_owned())
            .expect("it encodes");
        let id = headers.iter().find(|header| header.key == "ce_id");
        assert_eq!(id.and_then(|id| id.value), Some(&b"o-1"[..]));
    }

    #[test]
    fn a_sample_has_the_requested_size_and_follows_its_schema() {
        let sample = OrderEvent::new(7, 42, 328);
        let json = serde_json::to_value(&sample).expect("it serialises");
        assert_eq!(json.to_string().len(), 328);
        let catalogue = OrderEvent::catalogue().expect("the schema compiles");
        catalogue
            .validate(OrderEvent::TYPE, &json)
            .expect("it is valid");
    }
}
