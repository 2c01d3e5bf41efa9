//! How to handle an id that two different events carry.

/// How to handle an event whose source and id the inbox knows from an event with other content. In
/// either case the event has no effect, is counted, and is named in a warning.
///
/// The event is a different one if a producer assigned an id twice: a counter was reset, or a key
/// was used as an id. It is the same event if a producer created it twice for one cause and the
/// copies differ in some bytes: for example a handler without an inbox that publishes the current
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReusedIds {
    /// Treat the event as a copy and suppress its effect. The default.
    #[default]
    Suppress,
    /// Dead-letter the event, with the stage [`Stage::Inbox`](crate::handler::Stage::Inbox).
    DeadLetter,
}
