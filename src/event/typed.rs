//! Domain events whose type is known at compile time.

use super::attributes::Attributes;
use super::id::new_id;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The type of a domain event: its versioned name, its topic, and the key that orders it. Implement
/// it for the payload. See [`Event`] for an example.
///
/// The publisher and the outbox call its methods on the task that publishes; the router reads
/// [`TYPE`](Self::TYPE) to find the handler of a record. A payload is serialised with serde as JSON
/// when it is published and deserialised when it is handled. Implementations must not block and
/// must not panic.
///
/// A change of the payload that old consumers cannot read needs a new [`TYPE`](Self::TYPE): publish
/// `…v2` beside `…v1` until every consumer handles it.
///
/// ```
/// use evenkeel::event::EventType;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct PriceChanged {
///     article: String,
///     cents: i64,
/// }
///
/// impl EventType for PriceChanged {
///     const TYPE: &'static str = "shop.price-changed.v1";
///     const TOPIC: &'static str = "shop.prices";
///
///     // Changes of one article stay in their order.
///     fn key(&self) -> String {
///         self.article.clone()
///     }
///
///     fn subject(&self) -> Option<String> {
///         Some(format!("articles/{}", self.article))
///     }
/// }
/// ```
pub trait EventType: Serialize + DeserializeOwned + Send + 'static {
    /// The CloudEvents type with its version, for example `shop.order-placed.v1`. Not empty, and
    /// unique among the events of all services. A router has one handler for each.
    const TYPE: &'static str;
    /// The topic that events of this type are published to. Several types may share a topic: then
    /// events of one key keep their order across these types too.
    const TOPIC: &'static str;
    /// The record key. Events of one key keep their order: the key selects the partition, and a
    /// consumer handles one record of a key at a time. Called once for each event that is encoded.
    ///
    /// Choose the entity whose changes depend on each other, such as the order and not the
    /// customer: a slow or failing event holds up the later ones of its key only.
    fn key(&self) -> String;
    /// The CloudEvents subject. None by default. Called once, by [`Event::new`]. Consumers may
    /// route by it without reading the payload.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// A domain event: CloudEvents attributes around a payload.
///
/// # Examples
/// ```
/// use evenkeel::event::{Event, EventType};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Opened {
///     account: String,
/// }
///
/// impl EventType for Opened {
///     const TYPE: &'static str = "bank.account-opened.v1";
///     const TOPIC: &'static str = "bank.accounts";
///     fn key(&self) -> String {
///         self.account.clone()
///     }
/// }
///
/// let mut event = Event::new("/bank/branch", Opened { account: "a-1".to_owned() });
/// assert_eq!(event.attributes.ty, "bank.account-opened.v1");
///
/// // A row of a file that may be imported twice: the same row must give the same id.
/// event.attributes.id = "2026-11-21/accounts.csv/17".to_owned();
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Event<T> {
    /// CloudEvents attributes. `(source, id)` is the event's identity: an inbox suppresses a second
    /// event of the same identity. [`Event::new`] sets them; they may be changed before the event
    /// is published.
    pub attributes: Attributes,
    /// The payload. It is encoded as JSON.
    pub data: T,
}

impl<T: EventType> Event<T> {
    /// Creates an event from `source` with a new UUIDv7 id and the present time.
    ///
    /// Create an event once, and publish the same value again after an error: a second event would
    /// have another id, and no consumer could recognise the duplicate.
    pub fn new(source: impl Into<String>, data: T) -> Self {
        Self::with_id(new_id(), source, data)
    }

    /// Creates an event with this id and the present time.
    pub(crate) fn with_id(id: String, source: impl Into<String>, data: T) -> Self {
        let mut attributes = Attributes::new(id, source, T::TYPE);
        attributes.subject = data.subject();
        attributes.time = Some(jiff::Timestamp::now());
        attributes.datacontenttype = Some("application/json".to_owned());
        Self { attributes, data }
    }
}
