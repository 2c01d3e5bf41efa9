//! The spans of one trace as a tree, in the order of their beginnings.

use crate::collector::Received;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::fmt::Write;

/// One trace.
#[derive(Debug)]
pub(crate) struct Trace {
    spans: Vec<Received>,
}

impl Trace {
    /// The trace of this id, 32 hexadecimal digits, among all spans.
    pub(crate) fn of(id: &str, mut spans: Vec<Received>) -> Self {
        spans.retain(|found| hex(&found.span.trace_id) == id);
        spans.sort_by_key(|found| found.span.start_time_unix_nano);
        Self { spans }
    }

    /// Its spans, in the order of their beginnings.
    pub(crate) fn spans(&self) -> &[Received] {
        &self.spans
    }

    /// The spans of a service with this name.
    pub(crate) fn named(&self, service: &str, name: &str) -> Vec<&Received> {
        let spans = self.spans.iter();
        spans
            .filter(|found| found.service == service && found.span.name == name)
            .collect()
    }

    /// The only span of a service with this name.
    pub(crate) fn only(&self, service: &str, name: &str) -> &Received {
        let found = self.named(service, name);
        let [only] = found[..] else {
            panic!("{} spans {name} of {service}:\n{self}", found.len());
        };
        only
    }

    /// The span of this id.
    pub(crate) fn by_id(&self, id: &[u8]) -> Option<&Received> {
        self.spans.iter().find(|found| found.span.span_id == id)
    }

    /// Service and name of a span and of its ancestors, up to the root.
    pub(crate) fn ancestry(&self, of: &Received) -> Vec<(String, String)> {
        let mut names = Vec::new();
        let mut next = Some(of);
        while let Some(found) = next {
            names.push((found.service.clone(), found.span.name.clone()));
            assert!(names.len() <= self.spans.len(), "a circle of parents");
            next = self.by_id(&found.span.parent_span_id);
        }
        names
    }

    /// Appends the spans below a parent. `depth` is theirs.
    fn append(&self, parent: &[u8], depth: usize, text: &mut String) -> std::fmt::Result {
        let begin = self.spans.first().map_or(0, start);
        let is_child = |found: &&Received| found.span.parent_span_id == parent;
        for found in self.spans.iter().filter(is_child) {
            let span = &found.span;
            let took = span.end_time_unix_nano.saturating_sub(start(found));
            write!(
                text,
                "{:>9.1} ms {:>8.1} ms  {:indent$}{}: {} ({})",
                millis(start(found).saturating_sub(begin)),
                millis(took),
                "",
                found.service,
                span.name,
                kind(span.kind),
                indent = depth * 2,
            )?;
            let attempt = found.attribute("evenkeel.attempt");
            if !attempt.is_empty() {
                write!(text, ", attempt {attempt}")?;
            }
            if found.has_failed() {
                write!(text, ", failed: {}", found.attribute("error.type"))?;
            }
            for link in &span.links {
                let to = self.by_id(&link.span_id);
                let to = to.map_or("a span elsewhere", |to| to.span.name.as_str());
                write!(text, ", linked to {to}")?;
            }
            writeln!(text)?;
            // A span is no ancestor of itself, or the trace would not end.
            if depth < self.spans.len() {
                self.append(&span.span_id, depth + 1, text)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.append(&[], 0, &mut text)?;
        f.write_str(&text)
    }
}

fn start(found: &Received) -> u64 {
    found.span.start_time_unix_nano
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn kind(kind: i32) -> &'static str {
    match SpanKind::try_from(kind) {
        Ok(SpanKind::Server) => "server",
        Ok(SpanKind::Client) => "client",
        Ok(SpanKind::Producer) => "producer",
        Ok(SpanKind::Consumer) => "consumer",
        Ok(SpanKind::Internal) => "internal",
        Ok(SpanKind::Unspecified) | Err(_) => "unspecified",
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
