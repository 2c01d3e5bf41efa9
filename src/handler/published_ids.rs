//! What the ids of published events are derived from.

/// What the ids of events are derived from that handlers publish with [`Context::publish`](super::Context::publish): always from the
/// source and id of the handled event, and the position among those that its delivery publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublishedIds {
    /// From the group, the handler and the type of the published event as well. So two groups that publish for one event publish two
    /// events, and a group that handles a topic again under another name is not taken for the first one.
    #[default]
    OfGroupAndType,
    /// From the handler alone, as builds before 0.1 did: for a group whose events are on the log already, and may be published again.
    OfHandler,
}
