//! The identity of a delivery.

use crate::event::ContentDigest;
use std::hash::{Hash, Hasher};

/// The identity of a delivery: group, handler, and the event's source and id. Two keys with the
/// same identity are equal, whatever the content of their events.
#[derive(Debug, Clone)]
pub struct InboxKey {
    /// Consumer group.
    pub group: String,
    /// Handler name; stable across releases.
    pub handler: String,
    /// CloudEvents source.
    pub source: String,
    /// CloudEvents id.
    pub id: String,
    /// The digest of the event's content; `None` if content is not compared. A store keeps it with
    /// the completed delivery and returns [`InboxError::Reused`](super::InboxError::Reused) for
    /// another one.
    pub content: Option<ContentDigest>,
}

impl InboxKey {
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
