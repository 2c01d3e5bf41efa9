//! Parses server-sent events, as the HTML standard defines them. Pure.

use std::time::Duration;

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SseEvent {
    /// Its `event` field.
    pub(super) name: String,
    /// Its `data` fields, joined by line feeds.
    pub(super) data: String,
    /// The last event id after it.
    pub(super) id: String,
}

/// A parser of a byte stream in chunks of any size.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: Option<String>,
    id: String,
    retry: Option<Duration>,
}

impl SseParser {
    /// The last reconnection time, if there was one.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Parses the next bytes. Returns the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let is_second_half = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            match byte {
                _ if is_second_half => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.take_line(&String::from_utf8_lossy(&line)));
                }
                byte => self.line.push(byte),
            }
        }
        events
    }

    /// Bytes of the unfinished line and event, for the reader's bound.
    pub(super) fn buffered(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn take_line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = self.data.take()?;
            let id = self.id.clone();
            return Some(SseEvent { name, data, id });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                let millis = value.parse().ok().filter(|_| is_number);
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                data => *data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, id: &str) -> SseEvent {
        SseEvent {
            name: name.to_owned(),
            data: data.to_owned(),
            id: id.to_owned(),
        }
    }

    #[test]
    fn events_are_the_same_however_their_bytes_are_cut() {
        let text = ": comment\nretry: 2000\n\nid: 1\nevent: a\ndata: x\ndata:y\n\n\
                    id: 2\r\ndata:  z\r\n\r\nid: 3\n\ndata: last\n\ndata: unfinished\n";
        let expected = [
            event("a", "x\ny", "1"),
            event("", " z", "2"),
            event("", "last", "3"),
        ];
        for size in 1..text.len() {
            let mut parser = SseParser::default();
            let chunks = text.as_bytes().chunks(size);
            let events: Vec<SseEvent> = chunks.flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(events, expected, "chunks of {size}");
            assert_eq!(parser.buffered(), "unfinished".len());
            assert_eq!(parser.retry(), Some(Duration::from_secs(2)));
        }
    }
}
