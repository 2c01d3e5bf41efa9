//! The allow list: which event types callers may post and stream, and to which topic they belong.
//!
//! Must not know callers: their [`Rights`](super::Rights) come on top.

use super::files::parse_toml;
use crate::http::FieldError;
use evenkeel::kafka::is_topic_name;
use evenkeel::schema::{Catalogue, JsonTree};
use serde::Deserialize;
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The size that a record key may have.
const MAX_KEY_BYTES: usize = 1024;

/// The prefixes of topics that belong to evenkeel or to Kafka. A caller that could write to them
/// could forge retries and operators' commands; one that could read them would get the events of
/// other types.
const INTERNAL_PREFIXES: [&str; 5] = ["retry.", "dlq.", "control.", "replays.", "__"];

/// How many similar types an error names.
const NEAREST_MAX: usize = 3;

/// An event type that callers may post, stream, or both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EventRoute {
    /// The event type, in TOML `type`.
    #[serde(rename = "type")]
    pub ty: String,
    /// The topic of its records.
    pub topic: String,
    /// The member of the payload that is the record key: events with equal values stay in order.
    pub key: String,
    /// Whether callers may post it. Default: false.
    #[serde(default)]
    pub post: bool,
    /// Whether callers may stream it. Default: false.
    #[serde(default)]
    pub stream: bool,
}

/// The member of a payload that is the record key.
enum KeyMember<'a> {
    Missing,
    Text(&'a str),
    Number(&'a Number),
    Other,
}

impl EventRoute {
    /// A route that allows nothing yet; see [`with_post`](Self::with_post) and
    /// [`with_stream`](Self::with_stream).
    pub fn new(ty: impl Into<String>, topic: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            ty: ty.into(),
            topic: topic.into(),
            key: key.into(),
            post: false,
            stream: false,
        }
    }

    /// Sets whether callers may post the type.
    #[must_use]
    pub fn with_post(mut self, post: bool) -> Self {
        self.post = post;
        self
    }

    /// Sets whether callers may stream the type.
    #[must_use]
    pub fn with_stream(mut self, stream: bool) -> Self {
        self.stream = stream;
        self
    }

    /// The record key of an event with this payload: the value of the member [`key`](Self::key).
    ///
    /// # Errors
    /// If the member is missing, or is not a non-empty string or an integer of at most 1,024 bytes
    /// without control characters. The pointer of the error is relative to the payload.
    pub fn record_key(&self, data: &Value) -> Result<String, FieldError> {
        let member = data
            .as_object()
            .map(|members| match members.get(&self.key) {
                None => KeyMember::Missing,
                Some(Value::String(text)) => KeyMember::Text(text),
                Some(Value::Number(number)) => KeyMember::Number(number),
                Some(_) => KeyMember::Other,
            });
        self.key_of(member)
    }

    /// [`record_key`](Self::record_key) of a payload that borrows its texts.
    ///
    /// # Errors
    /// As for [`record_key`](Self::record_key).
    pub(crate) fn tree_key(&self, data: &JsonTree<'_>) -> Result<String, FieldError> {
        let JsonTree::Object(members) = data else {
            return self.key_of(None);
        };
        let member = members.iter().find(|(name, _)| **name == *self.key);
        self.key_of(Some(match member {
            None => KeyMember::Missing,
            Some((_, JsonTree::String(text))) => KeyMember::Text(text),
            Some((_, JsonTree::Number(number))) => KeyMember::Number(number),
            Some(_) => KeyMember::Other,
        }))
    }

    /// The record key in the member of a payload. None if the payload is no object.
    fn key_of(&self, member: Option<KeyMember<'_>>) -> Result<String, FieldError> {
        let Some(member) = member else {
            return Err(FieldError {
                pointer: String::new(),
                detail: format!("must be an object with the record key `{}`", self.key),
            });
        };
        let refused = |detail: String| FieldError {
            pointer: pointer_to(&self.key),
            detail,
        };
        let key = match member {
            KeyMember::Missing => {
                return Err(refused("is required: it is the record key".to_owned()));
            }
            KeyMember::Text(text) => text.to_owned(),
            KeyMember::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            KeyMember::Number(_) | KeyMember::Other => {
                let detail = "is the record key, and must be a string or an integer";
                return Err(refused(detail.to_owned()));
            }
        };
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            let detail = format!("is the record key, and must have 1 to {MAX_KEY_BYTES} bytes");
            return Err(refused(detail));
        }
        if key.contains(char::is_control) {
            let detail = "is the record key, and must not contain control characters";
            return Err(refused(detail.to_owned()));
        }
        Ok(key)
    }

    /// What is wrong with the route.
    fn fault(&self, catalogue: &Catalogue) -> Option<AllowListError> {
        let ty = || self.ty.clone();
        if catalogue.schema(&self.ty).is_none() {
            let nearest = nearest(&self.ty, catalogue);
            return Some(AllowListError::UnknownType { ty: ty(), nearest });
        }
        let is_internal = |prefix: &&str| self.topic.starts_with(prefix);
        let reason = if !is_topic_name(&self.topic) {
            "is not a topic name; use at most 249 letters, digits, dots, underscores and hyphens"
        } else if INTERNAL_PREFIXES.iter().any(is_internal) {
            "is an internal topic, which callers can neither post to nor stream"
        } else if self.key.is_empty() {
            return Some(AllowListError::NoKey { ty: ty() });
        } else {
            return None;
        };
        let topic = self.topic.clone();
        Some(AllowListError::Topic {
            ty: ty(),
            topic,
            reason,
        })
    }
}

/// Which event types exist for callers. What is not on the list cannot be posted or streamed,
/// whatever the rights of the caller are.
///
/// # Examples
/// ```
/// use evenkeel::schema::Catalogue;
/// use evenkeel_gateway::access::AllowList;
/// use std::sync::Arc;
///
/// let catalogue = Catalogue::from_texts([("shop.order-placed.v1", r#"{"type": "object"}"#)])?;
/// let section = r#"
///     [[events]]
///     type = "shop.order-placed.v1"
///     topic = "shop.orders"
///     key = "order_id"
///     post = true
/// "#;
/// let allow_list = AllowList::from_toml(section, Arc::new(catalogue))?;
///
/// let route = allow_list.post("shop.order-placed.v1").expect("callers may post it");
/// let key = route.record_key(&serde_json::json!({"order_id": "o-17"})).expect("a key");
/// assert_eq!(key, "o-17");
/// assert!(allow_list.stream("shop.order-placed.v1").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AllowList {
    routes: BTreeMap<String, EventRoute>,
    catalogue: Arc<Catalogue>,
}

/// The TOML section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    events: Vec<EventRoute>,
}

impl AllowList {
    /// Reads the list from TOML: one table `[[events]]` per type, with the members of
    /// [`EventRoute`].
    ///
    /// # Errors
    /// [`AllowListError::Toml`] for what is not TOML, or has a member that is unknown, missing or
    /// of the wrong kind, and the errors of [`new`](Self::new).
    pub fn from_toml(text: &str, catalogue: Arc<Catalogue>) -> Result<Self, AllowListError> {
        let section: Section = parse_toml(text).map_err(|fault| AllowListError::Toml {
            line: fault.line,
            reason: fault.reason,
        })?;
        Self::new(section.events, catalogue)
    }

    /// Creates the list.
    ///
    /// # Errors
    /// For a type that the catalogue does not have or that comes twice, a topic with an invalid
    /// name or one that is internal to evenkeel or Kafka, and an empty name of the key's member.
    pub fn new(routes: Vec<EventRoute>, catalogue: Arc<Catalogue>) -> Result<Self, AllowListError> {
        let mut by_type = BTreeMap::new();
        for route in routes {
            if let Some(fault) = route.fault(&catalogue) {
                return Err(fault);
            }
            match by_type.entry(route.ty.clone()) {
                Entry::Vacant(place) => place.insert(route),
                Entry::Occupied(_) => return Err(AllowListError::Duplicate { ty: route.ty }),
            };
        }
        Ok(Self {
            routes: by_type,
            catalogue,
        })
    }

    /// The route of a type that callers may post.
    pub fn post(&self, ty: &str) -> Option<&EventRoute> {
        self.routes.get(ty).filter(|route| route.post)
    }

    /// The route of a type that callers may stream.
    pub fn stream(&self, ty: &str) -> Option<&EventRoute> {
        self.routes.get(ty).filter(|route| route.stream)
    }

    /// All routes, sorted by type.
    pub fn routes(&self) -> impl Iterator<Item = &EventRoute> {
        self.routes.values()
    }

    /// The types of all routes, sorted.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }

    /// The schemas of the types.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }
}

/// Why an allow list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllowListError {
    /// The text is not the TOML of an allow list.
    #[error("the allow list is invalid{}: {reason}", in_line(.line))]
    Toml {
        /// The line, from 1, if it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// The catalogue does not have the type.
    #[error("the allow list has the type {ty:?}, which has no schema{}", similar(.nearest))]
    UnknownType {
        /// The type.
        ty: String,
        /// Types of the catalogue that have a similar name, at most three.
        nearest: Vec<String>,
    },
    /// The type is on the list twice.
    #[error("the allow list has the type {ty:?} twice; keep one of the entries")]
    Duplicate {
        /// The type.
        ty: String,
    },
    /// The topic cannot be used.
    #[error("the topic {topic:?} of the type {ty:?} {reason}")]
    Topic {
        /// The type.
        ty: String,
        /// The topic.
        topic: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// The record key has no name.
    #[error("the type {ty:?} needs `key`: the member of its payload that is the record key")]
    NoKey {
        /// The type.
        ty: String,
    },
}

fn in_line(line: &Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" in line {line}"))
}

fn similar(nearest: &[String]) -> String {
    match nearest {
        [] => "; the catalogue is empty".to_owned(),
        nearest => format!("; similar types: {}", nearest.join(", ")),
    }
}

/// The types of the catalogue that share the most characters at the begin and the end.
fn nearest(ty: &str, catalogue: &Catalogue) -> Vec<String> {
    let mut types: Vec<&str> = catalogue.types().collect();
    types.sort_by_key(|known| std::cmp::Reverse(shared(ty.bytes(), known.bytes())));
    types
        .into_iter()
        .take(NEAREST_MAX)
        .map(str::to_owned)
        .collect()
}

fn shared<I: DoubleEndedIterator<Item = u8> + Clone>(left: I, right: I) -> usize {
    let start = left.clone().zip(right.clone());
    let end = left.rev().zip(right.rev());
    start.take_while(|(left, right)| left == right).count()
        + end.take_while(|(left, right)| left == right).count()
}

/// The JSON pointer to a member of the payload.
fn pointer_to(member: &str) -> String {
    format!("/{}", member.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalogue() -> Arc<Catalogue> {
        let schema = r#"{"type": "object"}"#;
        let types = [
            "depot.counted.v1",
            "shop.order-placed.v1",
            "shop.order-cancelled.v1",
        ];
        let catalogue = Catalogue::from_texts(types.map(|ty| (ty, schema)));
        Arc::new(catalogue.expect("valid schemas"))
    }

    fn list(routes: Vec<EventRoute>) -> Result<AllowList, AllowListError> {
        AllowList::new(routes, catalogue())
    }

    fn placed(topic: &str) -> EventRoute {
        EventRoute::new("shop.order-placed.v1", topic, "order_id")
    }

    #[test]
    fn a_type_is_allowed_only_for_what_its_entry_says() {
        let text = "[[events]]\ntype = \"shop.order-placed.v1\"\ntopic = \"shop.orders\"\n\
                    key = \"order_id\"\npost = true\n\
                    [[events]]\ntype = \"shop.order-cancelled.v1\"\ntopic = \"shop.orders\"\n\
                    key = \"order_id\"\nstream = true\n";
        let list = AllowList::from_toml(text, catalogue()).expect("a valid list");
        let allowed = |ty| (list.post(ty).is_some(), list.stream(ty).is_some());
        assert_eq!(allowed("shop.order-placed.v1"), (true, false));
        assert_eq!(allowed("shop.order-cancelled.v1"), (false, true));
        assert_eq!(
            allowed("depot.counted.v1"),
            (false, false),
            "not on the list"
        );
        let types: Vec<&str> = list.types().collect();
        assert_eq!(types, ["shop.order-cancelled.v1", "shop.order-placed.v1"]);
    }

    #[test]
    fn faults_in_toml_name_the_line() {
        let entry = "[[events]]\ntype = \"shop.order-placed.v1\"\ntopic = \"shop.orders\"\n";
        for (text, line) in [
            (format!("{entry}key = \"order_id\"\nposts = true\n"), 5),
            (format!("{entry}key = \"order_id\"\npost = 1\n"), 5),
            (format!("{entry}key = 7\n"), 4),
            (format!("{entry}key = \"order_id\"\n[streams]\n"), 5),
            (entry.replace("topic =", "topic"), 3),
        ] {
            let error = AllowList::from_toml(&text, catalogue()).expect_err(&text);
            let AllowListError::Toml { line: found, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(found, Some(line), "{text}");
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_similar_names() {
        let route = EventRoute::new("shop.order-plcaed.v1", "shop.orders", "order_id");
        let Err(AllowListError::UnknownType { nearest, .. }) = list(vec![route]) else {
            panic!("the catalogue does not have it")
        };
        assert_eq!(
            nearest.first().map(String::as_str),
            Some("shop.order-placed.v1")
        );
    }

    #[test]
    fn a_type_twice_is_refused() {
        let error = list(vec![placed("shop.orders"), placed("other")]).expect_err("twice");
        assert!(matches!(error, AllowListError::Duplicate { .. }), "{error}");
    }

    #[test]
    fn internal_and_invalid_topics_are_refused() {
        for topic in [
            "",
            "shop orders",
            "retry.payments.shop.orders",
            "dlq.payments.shop.orders",
            "control.payments",
            "replays.dlq.payments.shop.orders",
            "__consumer_offsets",
        ] {
            let error = list(vec![placed(topic).with_stream(true)]).expect_err(topic);
            assert!(matches!(error, AllowListError::Topic { .. }), "{error}");
        }
        for topic in ["shop.orders", "retry", "shop.retry.orders"] {
            assert!(list(vec![placed(topic)]).is_ok(), "{topic}");
        }
        let no_key = EventRoute::new("shop.order-placed.v1", "shop.orders", "");
        assert!(matches!(
            list(vec![no_key]),
            Err(AllowListError::NoKey { .. })
        ));
    }

    #[test]
    fn record_keys_are_strings_or_integers() {
        let longest = "k".repeat(1024);
        let longer = "k".repeat(1025);
        for (data, expected) in [
            (json!({"order_id": "o-1"}), Some("o-1")),
            (json!({"order_id": 17}), Some("17")),
            (json!({"order_id": -3}), Some("-3")),
            (json!({"order_id": u64::MAX}), Some("18446744073709551615")),
            (json!({"order_id": "zoë"}), Some("zoë")),
            (json!({"order_id": longest}), Some(&*longest)),
            (json!({"order_id": longer}), None),
            (json!({"order_id": ""}), None),
            (json!({"order_id": "a\nb"}), None),
            (json!({"order_id": "a\u{85}b"}), None),
            (json!({"order_id": 1.5}), None),
            (json!({"order_id": true}), None),
            (json!({"order_id": null}), None),
            (json!({"order_id": ["o-1"]}), None),
            (json!({}), None),
        ] {
            let key = placed("shop.orders").record_key(&data);
            match expected {
                Some(expected) => assert_eq!(key.as_deref(), Ok(expected)),
                None => assert_eq!(key.expect_err("refused").pointer, "/order_id", "{data}"),
            }
        }
    }

    #[test]
    fn errors_of_record_keys_point_to_the_member() {
        let route = EventRoute::new("shop.order-placed.v1", "shop.orders", "a/b~c");
        let pointer = |data| route.record_key(&data).expect_err("no key").pointer;
        assert_eq!(pointer(json!({})), "/a~1b~0c");
        assert_eq!(pointer(json!([1])), "");
    }
}
