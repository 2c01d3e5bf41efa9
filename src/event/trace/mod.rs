//! W3C trace context.
//!
//! Owns the validation of `traceparent` and the continuation of a context over a hop. Does not know
//! any tracing library: a service without one still propagates its callers' context.
//!
//! Reference: W3C Trace Context, level 2. Its flags are propagated as defined there, and its rules
//! for a later version of `traceparent` are followed: the known part is read, the rest ignored.

use super::{Headers, HeadersIter};
use std::fmt::{Display, Write};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00, and of the part of a later version that is understood.
const LENGTH: usize = 55;

/// The most characters of a `tracestate` that are propagated: as many as the specification
/// requires. A longer one would be part of every later event of the trace, and of every row that is
/// stored for it.
const STATE_MAX: usize = 512;

/// If members of a `tracestate` must be removed, those longer than this are first.
const MEMBER_MAX: usize = 128;

/// The flags that are defined, and therefore propagated: sampled (1) and random trace id (2).
const KNOWN_FLAGS: u8 = 0b11;

/// The trace context of a hop: `traceparent` and `tracestate` as in the headers.
///
/// Exhaustive on purpose: the specification defines these two headers. A context from another
/// transport, such as an HTTP request, is made of its header texts.
///
/// # Examples
/// ```
/// use evenkeel::event::{Headers, TraceContext};
///
/// let mut headers = Headers::new();
/// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// headers.push("traceparent", Some(traceparent.as_bytes()));
///
/// let context = TraceContext::from_headers(headers.iter()).expect("a valid traceparent");
/// let child = context.child();
/// assert!(child.traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
/// assert_ne!(child.traceparent, traceparent);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// A valid `traceparent`.
    pub traceparent: String,
    /// `tracestate`, propagated unchanged up to 512 characters.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the context from headers. None if `traceparent` is absent or malformed.
    ///
    /// A `tracestate` that is empty or not UTF-8 is dropped, as is one without a valid
    /// `traceparent`. One longer than 512 characters keeps the members that fit, in their order:
    /// the long ones are removed first, then the last ones.
    pub fn from_headers(headers: HeadersIter<'_>) -> Option<Self> {
        let traceparent = text(headers.clone().last_value(TRACEPARENT)?)?;
        Parent::parse(traceparent)?;
        let tracestate = headers
            .last_value(TRACESTATE)
            .and_then(text)
            .map(bounded)
            .filter(|state| !state.is_empty());
        Some(Self {
            traceparent: traceparent.to_owned(),
            tracestate,
        })
    }

    /// Creates a child of this context: same trace id, flags and `tracestate`, new span id.
    ///
    /// The child is of version 00, and keeps only the flags of a later version. A `traceparent`
    /// that was set by hand and is invalid has no child: the result is a new root.
    pub fn child(&self) -> Self {
        Parent::parse(&self.traceparent).map_or_else(Self::root, |parent| Self {
            traceparent: format(parent.trace_id, parent.flags & KNOWN_FLAGS),
            tracestate: self.tracestate.clone(),
        })
    }

    /// The trace id: 32 hexadecimal digits. Empty if `traceparent` was set by hand and is invalid.
    ///
    /// ```
    /// use evenkeel::event::TraceContext;
    ///
    /// let root = TraceContext::root();
    /// assert_eq!(root.trace_id().len(), 32);
    /// assert_eq!(root.child().trace_id(), root.trace_id());
    /// ```
    pub fn trace_id(&self) -> &str {
        Parent::parse(&self.traceparent).map_or("", |parent| parent.trace_id)
    }

    /// Creates a new root context, marked as sampled so that services that record spans record
    /// those of this trace.
    pub fn root() -> Self {
        let trace_id = nonzero(rand::random::<u128>);
        Self {
            traceparent: format(format_args!("{trace_id:032x}"), 1),
            tracestate: None,
        }
    }

    /// Writes the context into headers.
    pub(crate) fn write(&self, headers: &mut Headers) {
        headers.push(TRACEPARENT, Some(self.traceparent.as_bytes()));
        if let Some(tracestate) = &self.tracestate {
            headers.push(TRACESTATE, Some(tracestate.as_bytes()));
        }
    }
}

/// The members of a `tracestate` that are propagated.
fn bounded(state: &str) -> String {
    if state.len() <= STATE_MAX {
        return state.to_owned();
    }
    let mut kept = String::new();
    let members = state.split(',').filter(|member| member.len() <= MEMBER_MAX);
    for member in members {
        let separator = usize::from(!kept.is_empty());
        if kept.len() + separator + member.len() > STATE_MAX {
            break;
        }
        if separator > 0 {
            kept.push(',');
        }
        kept.push_str(member);
    }
    kept
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Formats a `traceparent` of version 00 with a new span id.
fn format(trace_id: impl Display, flags: u8) -> String {
    let span_id = nonzero(rand::random::<u64>);
    let mut text = String::with_capacity(LENGTH);
    write!(text, "00-{trace_id}-{span_id:016x}-{flags:02x}")
        .expect("writing to a string does not fail");
    text
}

/// Draws until the number is not zero: an all-zero id is invalid.
fn nonzero<N: Default + PartialEq>(mut draw: impl FnMut() -> N) -> N {
    loop {
        let number = draw();
        if number != N::default() {
            return number;
        }
    }
}

/// The fields of a valid `traceparent` that a child needs.
#[derive(Debug, PartialEq)]
struct Parent<'a> {
    trace_id: &'a str,
    flags: u8,
}

impl<'a> Parent<'a> {
    /// Validates by the specification: lower-case hexadecimal, no all-zero id, no version ff.
    /// Version 00 has exactly four fields, a later one may have more.
    fn parse(traceparent: &'a str) -> Option<Self> {
        let (known, rest) = traceparent.split_at_checked(LENGTH)?;
        let mut fields = known.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let span_id = hex(fields.next()?, 16)?;
        let flags = hex(fields.next()?, 2)?;
        let rest_valid = rest.is_empty() || (version != "00" && rest.starts_with('-'));
        let ids_valid = [trace_id, span_id]
            .iter()
            .all(|id| id.bytes().any(|digit| digit != b'0'));
        if version == "ff" || !ids_valid || !rest_valid {
            return None;
        }
        Some(Self {
            trace_id,
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    }
}

/// The text, if it consists of this many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let valid = text.len() == digits
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    valid.then_some(text)
}

#[cfg(test)]
mod tests;
