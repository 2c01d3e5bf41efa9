//! The settings of status answers.

use evenkeel::recovery::DeadLetterTopic;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Settings of status answers. [`StatusSettings::default`] suits a gateway that finds the groups by
/// itself.
///
/// ```
/// use evenkeel_gateway::status::{GroupStore, StatusSettings};
///
/// let settings = StatusSettings::default()
///     .with_groups("shop.orders", ["payments"])
///     .with_completions("payments", GroupStore::new("sqlite:payments.db"));
/// assert_eq!(settings.groups["shop.orders"], ["payments"]);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StatusSettings {
    /// The groups to report, by topic. For a topic that is not listed, the gateway asks the brokers
    /// for the groups that have committed offsets on it: that takes the ACL DESCRIBE on all groups,
    /// and shows a new group only after [`groups_ttl`](Self::groups_ttl).
    pub groups: BTreeMap<String, Vec<String>>,
    /// Inboxes by group, so that `settled` has the time of the effect. Default: none.
    pub completions: BTreeMap<String, GroupStore>,
    /// Dead-letter topics of groups that do not use the default, `dlq.<group>.<topic>`.
    pub dead_letter_topics: BTreeMap<String, DeadLetterTopic>,
    /// The most records that one search of a topic reads. Default 200,000. A search that ends here
    /// says so in the answer.
    pub search_records_max: u64,
    /// The longest time of one search of a topic, and of each request to the brokers. Default 2 s.
    pub search_timeout: Duration,
    /// The most blocking reads at a time, each on a thread of its own with a client of its own.
    /// Default 4. Further searches wait for at most [`search_timeout`](Self::search_timeout), and
    /// then the request is refused with 503. Reads for a group wait until the deadline of the
    /// request, and then the group is `unknown`. So many groups of a request are read at a time.
    pub searches_max: usize,
    /// The longest time of a whole answer, for a request without a deadline. Default 10 s. After it
    /// the request is refused with 504.
    pub answer_timeout: Duration,
    /// How long facts about a group are reused, so that many polls cost little. Default 500 ms.
    pub snapshot_ttl: Duration,
    /// How long the list of groups of a topic is reused, if the brokers were asked for it. Default
    /// 30 s. It is read in the background, by a request for each group of the cluster; until the
    /// new list is there, answers have the old one.
    pub groups_ttl: Duration,
    /// The most groups that are reported of a topic. Default 32, in the order of their names.
    pub groups_max: usize,
    /// The most unsettled entries of a retry partition that are read. Default 20,000. With more,
    /// the state of a parked event is `unknown`. The waiting keys of up to 8 partitions are kept
    /// for [`snapshot_ttl`](Self::snapshot_ttl) and longer.
    pub parked_records_max: u64,
    /// The most positions of events that are kept. Default 10,000; the oldest are dropped.
    pub positions_max: usize,
    /// How long the inbox of a group may take. Default 1 s. After it the time of the effect is left
    /// out.
    pub store_timeout: Duration,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            completions: BTreeMap::new(),
            dead_letter_topics: BTreeMap::new(),
            search_records_max: 200_000,
            search_timeout: Duration::from_secs(2),
            searches_max: 4,
            answer_timeout: Duration::from_secs(10),
            snapshot_ttl: Duration::from_millis(500),
            groups_ttl: Duration::from_secs(30),
            groups_max: 32,
            parked_records_max: 20_000,
            positions_max: 10_000,
            store_timeout: Duration::from_secs(1),
        }
    }
}

impl StatusSettings {
    /// Sets the [`groups`](Self::groups) of a topic.
    #[must_use]
    pub fn with_groups<G: Into<String>>(
        mut self,
        topic: impl Into<String>,
        groups: impl IntoIterator<Item = G>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        self.groups.insert(topic.into(), groups);
        self
    }

    /// Sets the inbox of a group ([`completions`](Self::completions)).
    #[must_use]
    pub fn with_completions(mut self, group: impl Into<String>, store: GroupStore) -> Self {
        self.completions.insert(group.into(), store);
        self
    }

    /// Sets the dead-letter topic of a group ([`dead_letter_topics`](Self::dead_letter_topics)).
    #[must_use]
    pub fn with_dead_letter_topic(
        mut self,
        group: impl Into<String>,
        topic: DeadLetterTopic,
    ) -> Self {
        self.dead_letter_topics.insert(group.into(), topic);
        self
    }

    /// Sets [`search_timeout`](Self::search_timeout).
    #[must_use]
    pub fn with_search_timeout(mut self, timeout: Duration) -> Self {
        self.search_timeout = timeout;
        self
    }

    /// Sets [`search_records_max`](Self::search_records_max).
    #[must_use]
    pub fn with_search_records_max(mut self, records: u64) -> Self {
        self.search_records_max = records;
        self
    }

    /// Sets [`snapshot_ttl`](Self::snapshot_ttl).
    #[must_use]
    pub fn with_snapshot_ttl(mut self, ttl: Duration) -> Self {
        self.snapshot_ttl = ttl;
        self
    }

    /// Sets [`searches_max`](Self::searches_max).
    #[must_use]
    pub fn with_searches_max(mut self, searches: usize) -> Self {
        self.searches_max = searches;
        self
    }
}

/// The inbox of a group, for reading.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStore {
    /// Its address, as the audit takes it: `postgres://user@host/database` or `sqlite:PATH`. It may
    /// contain a password, so that it is never shown.
    pub address: String,
    /// The names of the handlers of a type in the inbox. Default: one with the name of the type.
    pub handlers: BTreeMap<String, Vec<String>>,
}

impl GroupStore {
    /// A store at this address, whose handlers have the names of their types.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            handlers: BTreeMap::new(),
        }
    }

    /// Adds a handler of a type ([`handlers`](Self::handlers)).
    #[must_use]
    pub fn with_handler(mut self, ty: impl Into<String>, handler: impl Into<String>) -> Self {
        let handlers = self.handlers.entry(ty.into()).or_default();
        handlers.push(handler.into());
        self
    }

    /// The names that the handlers of a type may have.
    pub(super) fn handlers_of<'a>(&'a self, ty: &'a str) -> Vec<&'a str> {
        match self.handlers.get(ty) {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => vec![ty],
        }
    }
}

impl fmt::Debug for GroupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupStore")
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_shown() {
        let store = GroupStore::new("postgres://user:hunter2@host/db").with_handler("a.v1", "mail");
        let settings = StatusSettings::default().with_completions("g", store.clone());
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(store.handlers_of("a.v1"), ["mail"]);
        assert_eq!(store.handlers_of("b.v1"), ["b.v1"]);
    }
}
