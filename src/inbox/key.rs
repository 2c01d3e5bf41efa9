//! The identity of a delivery.
//!
//! Equality and hash leave out the content, so that a map of keys finds a completed delivery also
//! for an event that reuses its id.

use crate::event::ContentDigest;
use std::hash::{Hash, Hasher};

/// The identity of a delivery: group, handler, and the event's source and id. Two keys with the
/// same identity are equal, whatever the content of their events.
///
/// Any text is allowed in each part, of any length; a store must not confuse two keys that differ
/// in any character. Group and handler are part of the key, so one store can serve several
/// services, and two handlers of one event are two deliveries. Renaming a handler makes all its
/// past deliveries unknown.
///
/// # Examples
/// ```
/// use evenkeel::event::ContentDigest;
/// use evenkeel::inbox::InboxKey;
///
/// let key = InboxKey::new("payments", "authorize", "/shop/orders", "o-1");
/// let digest = ContentDigest::of_event("shop.paid.v1", br#"{"cents":100}"#);
/// assert_eq!(key.clone().with_content(digest), key, "content is no part of the identity");
/// assert_ne!(InboxKey::new("refunds", "authorize", "/shop/orders", "o-1"), key);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InboxKey {
    /// Consumer group, as in [`ConsumerSettings::group`](crate::consumer::ConsumerSettings::group).
    pub group: String,
    /// Handler name; stable across releases.
    pub handler: String,
    /// CloudEvents source.
    pub source: String,
    /// CloudEvents id.
    pub id: String,
    /// The digest of the event's content; `None` if content is not compared. A store keeps it with
    /// the completed delivery and returns [`InboxError::Reused`](super::InboxError::Reused) for
    /// another one. Completions without a digest, and keys without one, match any content.
    pub content: Option<ContentDigest>,
}

impl InboxKey {
    /// Creates the key of a delivery whose content is not compared.
    pub fn new(
        group: impl Into<String>,
        handler: impl Into<String>,
        source: impl Into<String>,
        id: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            handler: handler.into(),
            source: source.into(),
            id: id.into(),
            content: None,
        }
    }

    /// Sets the digest of the event's content, by which a store detects that the id was reused.
    #[must_use]
    pub fn with_content(mut self, content: impl Into<Option<ContentDigest>>) -> Self {
        self.content = content.into();
        self
    }

    /// The parts that make two deliveries the same: all except the content.
    fn identity(&self) -> [&str; 4] {
        [&self.group, &self.handler, &self.source, &self.id]
    }

    /// Whether the delivery was completed with other content than this key has. Unknown content is
    /// never different.
    ///
    /// A store must reject the claim of such a key with
    /// [`InboxError::Reused`](super::InboxError::Reused).
    pub fn is_reused(&self, completed: Option<ContentDigest>) -> bool {
        matches!((self.content, completed), (Some(own), Some(other)) if own != other)
    }
}

impl PartialEq for InboxKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for InboxKey {}

impl Hash for InboxKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
