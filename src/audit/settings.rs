//! What is audited, by whose handlers, and with how much memory.

use crate::handler::{FALLBACK_HANDLER, RAW_HANDLER};
use crate::kafka::reader::Start;
use crate::recovery::DeadLetterTopic;
use std::collections::BTreeMap;

use super::subject::Kind;

/// Memory by default.
const MEMORY_BYTES: usize = 256 << 20;

/// What is audited.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuditSettings {
    /// The consumer group.
    pub group: String,
    /// A topic that it reads.
    pub topic: String,
    /// Where the audit starts in each partition; at the first record that is still there by default.
    pub from: Start,
    /// Where it ends; at the end of each partition by default. What the group has not committed is lag, whatever this says.
    pub to: Start,
    /// By what names the inbox knows the handlers of the event types.
    pub handlers: Handlers,
    /// Where the group's dead letters are.
    pub dead_letter_topic: DeadLetterTopic,
    /// Whether the records of a key have to take effect in their order: so they have to, unless the group is unordered.
    pub is_ordered: bool,
    /// Bytes that the audit's tables take, about; 256 MiB by default. Less means more passes over the log. What the client
    /// prefetches (16 MiB) comes on top.
    pub memory_bytes: usize,
    /// How many findings of each kind are listed; 100 by default. All are counted.
    pub listed_max: usize,
}

impl AuditSettings {
    /// The whole topic, everything else by default.
    pub fn new(group: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            topic: topic.into(),
            from: Start::Beginning,
            to: Start::End,
            handlers: Handlers::default(),
            dead_letter_topic: DeadLetterTopic::default(),
            is_ordered: true,
            memory_bytes: MEMORY_BYTES,
            listed_max: 100,
        }
    }
}

/// By what names the inbox knows the handlers of event types: by the type, unless it is said otherwise here.
///
/// A type that is named here is handled, whether or not the store has anything of it. `raw` and `fallback` stand for the handlers
/// of those names, which take events of types that no other handler asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handlers {
    by_type: BTreeMap<String, Vec<String>>,
}

impl Handlers {
    /// The same with a handler of a type: what [`Router::on_named`](crate::handler::Router::on_named) was given. A type may
    /// have several, as it has after a handler was given another name: each event then has its effect with one of them.
    pub fn with(mut self, ty: impl Into<String>, handler: impl Into<String>) -> Self {
        let (names, handler) = (self.by_type.entry(ty.into()).or_default(), handler.into());
        if !names.contains(&handler) {
            names.push(handler);
        }
        self
    }

    /// Whether it was said of the type that it is handled.
    pub(super) fn has(&self, kind: &Kind) -> bool {
        matches!(kind, Kind::Event(ty) if self.by_type.contains_key(ty))
    }

    /// Under what names the inbox may have it; none for what no handler gets.
    pub(super) fn of<'a>(&'a self, kind: &'a Kind) -> Vec<&'a str> {
        match kind {
            Kind::Event(ty) => match self.by_type.get(ty) {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => vec![ty],
            },
            Kind::Raw => vec![RAW_HANDLER, FALLBACK_HANDLER],
            Kind::Unreadable => Vec::new(),
        }
    }
}
