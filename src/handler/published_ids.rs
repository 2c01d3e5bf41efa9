//! The inputs of the ids of published events.
//!
//! Ids are derived and not random, so that a redelivery publishes the same ids and consumers
//! recognise the repetition.

/// The inputs of the ids of events that handlers publish with
/// [`Context::publish`](super::Context::publish). The source and id of the handled event, and the
/// position among the events that its delivery publishes, are always among them. Set by
/// [`Router::with_published_ids`](super::Router::with_published_ids).
///
/// A change of this setting, of the group's name or of a handler's name changes the ids: an event
/// that is redelivered after the change publishes events that consumers take for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublishedIds {
    /// Also the group, the handler and the type of the published event. Two groups that publish for
    /// the same event then publish two events, and a group that handles a topic again under another
    /// name is not taken for the first one. The default.
    #[default]
    OfGroupAndType,
    /// Also the handler, but neither group nor type, like builds before 0.1: for a group whose
    /// events are on the log already and may be published again.
    OfHandler,
}
