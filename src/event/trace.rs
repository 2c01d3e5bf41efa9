//! W3C trace context.

/// The trace context of a hop: `traceparent` and `tracestate` as they stand in the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// A valid `traceparent`.
    pub traceparent: String,
    /// `tracestate`, passed on untouched.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the context from headers; none when absent or malformed.
    pub fn from_headers(_headers: super::HeadersIter<'_>) -> Option<Self> {
        todo!()
    }
    /// A child of this context: same trace id and flags, new span id.
    pub fn child(&self) -> Self {
        todo!()
    }
    /// A new root context.
    pub fn root() -> Self {
        todo!()
    }
}
