//! Domain events whose type is known at compile time.

use super::attributes::Attributes;
use super::id::new_id;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The type of a domain event: its versioned name, its topic, and the key that orders it. Implement
/// it for the payload. See [`Event`] for an example.
pub trait EventType: Serialize + DeserializeOwned + Send + 'static {
    /// The CloudEvents type with its version, for example `shop.order-placed.v1`.
    const TYPE: &'static str;
    /// The topic that events of this type are published to.
    const TOPIC: &'static str;
    /// The record key. Events of one key keep their order. Called once for each event that is
    /// encoded.
    fn key(&self) -> String;
    /// The CloudEvents subject. None by default.
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
    /// CloudEvents attributes. `(source, id)` is the event's identity.
    pub attributes: Attributes,
    /// The payload, encoded as JSON.
    pub data: T,
}

impl<T: EventType> Event<T> {
    /// Creates an event from `source` with a new UUIDv7 id and the present time.
    pub fn new(source: impl Into<String>, data: T) -> Self {
        let mut attributes = Attributes::new(new_id(), source, T::TYPE);
        attributes.subject = data.subject();
        attributes.time = Some(jiff::Timestamp::now());
        attributes.datacontenttype = Some("application/json".to_owned());
        Self { attributes, data }
    }
}
