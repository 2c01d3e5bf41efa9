//! Settings of an audit: range, handlers and memory.

use super::identity::Kind;
use evenkeel::handler::{FALLBACK_HANDLER, RAW_HANDLER};
use evenkeel::kafka::reader::Start;
use evenkeel::recovery::DeadLetterTopic;
use std::collections::BTreeMap;

/// Default of [`AuditSettings::memory_bytes`].
const MEMORY_BYTES: usize = 256 << 20;

/// Settings of an audit. [`AuditSettings::new`] sets every default; change the fields that differ.
///
/// ```
/// use evenkeel::kafka::reader::Start;
/// use evenkeel_ops::audit::{AuditSettings, Handlers};
///
/// let mut settings = AuditSettings::new("payments", "shop.orders");
/// settings.from = Start::Last(1_000_000);
/// settings.handlers = Handlers::default().with("shop.order-placed.v1", "charge");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuditSettings {
    /// Name of the consumer group.
    pub group: String,
    /// A topic that the group reads.
    pub topic: String,
    /// Where the audit starts in each partition. Default: the first record that still exists.
    pub from: Start,
    /// Where the audit ends in each partition. Default: the end. Offsets that the group has not
    /// committed count as lag in any case.
    pub to: Start,
    /// Handler names of the event types in the inbox. Default: the type's own name.
    pub handlers: Handlers,
    /// The dead-letter topic of the group. Default: `dlq.<group>.<topic>`.
    pub dead_letter_topic: DeadLetterTopic,
    /// Whether records of a key must take effect in order. Default: true. Set it to false for an
    /// unordered group.
    pub is_ordered: bool,
    /// Approximate bytes of the audit's tables. Default: 256 MiB. With less memory, the audit reads
    /// the log more often. The client's prefetch buffer (6 MiB) comes on top.
    pub memory_bytes: usize,
    /// How many findings of each kind are listed. Default: 100. All are counted.
    pub listed_max: usize,
}

impl AuditSettings {
    /// Audits the whole topic, with every other setting at its default.
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

/// Handler names of event types in the inbox. Default: the handler has the name of its type.
///
/// A type that is listed here counts as handled even if the store has no row of it. The names `raw`
/// and `fallback` stand for the raw and the fallback handler, which take events of types without a
/// handler of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handlers {
    by_type: BTreeMap<String, Vec<String>>,
}

impl Handlers {
    /// Adds a handler of a type, by the name that
    /// [`Router::on_named`](evenkeel::handler::Router::on_named) received. A type may have several
    /// handlers, for instance after a handler was renamed: each event then needs an effect of
    /// exactly one of them.
    pub fn with(mut self, ty: impl Into<String>, handler: impl Into<String>) -> Self {
        let (names, handler) = (self.by_type.entry(ty.into()).or_default(), handler.into());
        if !names.contains(&handler) {
            names.push(handler);
        }
        self
    }

    /// Whether the type is listed.
    pub(super) fn has(&self, kind: &Kind) -> bool {
        matches!(kind, Kind::Event(ty) if self.by_type.contains_key(ty))
    }

    /// Handler names that the inbox may have for this kind. Empty for a kind that no handler
    /// receives.
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
