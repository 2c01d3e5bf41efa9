//! How to handle an id that two different events carry.

/// How to handle an event whose source and id the inbox knows from an event with other content. In
/// either case the event has no effect, is counted, and is named in a warning.
///
/// The event is a different one if a producer assigned an id twice: a counter was reset, or a key
/// was used as an id. It is the same event if a producer created it twice for one cause and the
/// copies differ in some bytes: for example a handler without an inbox that publishes the current
/// time.
///
/// ```
/// use evenkeel::handler::{ReusedIds, Router};
/// use evenkeel::inbox::MemoryInbox;
///
/// let router = Router::new()
///     .with_inbox(MemoryInbox::default())
///     .with_reused_ids(ReusedIds::DeadLetter);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReusedIds {
    /// Treat the event as a copy and suppress its effect. The default. If it was another event
    /// after all, its effect is missing: the warning and the metric
    /// `evenkeel_ids_reused_total` are the only traces.
    #[default]
    Suppress,
    /// Dead-letter the event, with the stage [`Stage::Inbox`](crate::handler::Stage::Inbox), so
    /// that an operator decides. A replay is suppressed like the event itself unless it was edited.
    DeadLetter,
}
