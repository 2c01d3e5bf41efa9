//! The end of a request of HTTP/1.1 among the bytes of its connection. Pure.
//!
//! HTTP reads what follows a request while that is answered, and keeps it. So neither the socket
//! nor the handler knows whether the next head has begun: this counts the bytes.

/// The bytes of a request, and of what follows it.
#[derive(Debug, Default)]
pub(super) struct MessageEnd {
    /// The bytes since the beginning of the request.
    received: u64,
    /// The bytes of its head. None before its end.
    head_len: Option<u64>,
    /// Whether a line of the head has begun. Empty lines before it are no head.
    has_begun: bool,
    /// Whether the line of the head that is being read is empty so far.
    is_line_empty: bool,
    /// The last bytes.
    last: [u8; 3],
    /// The bytes of the body. None if it is sent in chunks, which have an end of their own.
    body_len: Option<u64>,
    /// Whether the request before was followed by bytes of this one: its beginning was missed.
    is_lost: bool,
}

impl MessageEnd {
    /// Counts these bytes.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.head_len.is_none()
            && let Some((byte, others)) = rest.split_first()
        {
            rest = others;
            self.received += 1;
            match byte {
                b'\n' if self.has_begun && self.is_line_empty => {
                    self.head_len = Some(self.received)
                }
                b'\n' => self.is_line_empty = true,
                b'\r' => {}
                _ => (self.has_begun, self.is_line_empty) = (true, false),
            }
        }
        self.received += rest.len() as u64;
        for byte in &bytes[bytes.len().saturating_sub(self.last.len())..] {
            self.last.rotate_left(1);
            self.last[2] = *byte;
        }
    }

    /// Whether the head of a request has begun. Empty lines before it do not count.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Notes the body of the request whose head was read.
    pub(super) fn begun(&mut self, body_len: Option<u64>) {
        self.body_len = body_len;
    }

    /// Whether bytes follow the request, which is answered, and they are no whole request. Without
    /// them, the next bytes begin a request.
    pub(super) fn is_followed(&mut self) -> bool {
        // No part of a head ends with an empty line.
        let is_followed = !self.ends_with_empty_line() && !self.ends_with_body();
        // One whose beginning was missed, or that came as a whole before, has no bytes of the next.
        let is_lost = is_followed && !self.is_lost && self.received > 0;
        *self = Self {
            is_lost,
            last: self.last,
            ..Self::default()
        };
        is_followed
    }

    fn ends_with_empty_line(&self) -> bool {
        matches!(self.last, [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n'])
    }

    fn ends_with_body(&self) -> bool {
        let length = self.head_len.zip(self.body_len);
        let length = length.and_then(|(head, body)| head.checked_add(body));
        // Some clients send an empty line behind a body.
        let has_empty_line = self.last.ends_with(b"\r\n");
        let is_end = |end: u64| {
            end == self.received || has_empty_line && end.checked_add(2) == Some(self.received)
        };
        !self.is_lost && length.is_some_and(is_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd";
    const CHUNKS: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";

    /// Bytes in steps, which are whole requests or parts of one, with the body of the request that
    /// is answered after them.
    fn check(steps: &[(&str, Option<u64>, bool)]) {
        for size in [1, 3, 1_000] {
            let mut end = MessageEnd::default();
            for (bytes, body_len, expected) in steps {
                bytes
                    .as_bytes()
                    .chunks(size)
                    .for_each(|part| end.received(part));
                end.begun(*body_len);
                assert_eq!(end.is_followed(), *expected, "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn only_a_part_of_a_request_follows() {
        let none = Some(0);
        check(&[
            (GET, none, false),
            (POST, Some(4), false),
            (CHUNKS, None, false),
        ]);
        check(&[("GET / HTTP/1.1\nhost: a\n\n", none, false)]);
        check(&[(&format!("\r\n\r\n{POST}"), Some(4), false)]);
        for (first, body_len) in [(GET, none), (POST, Some(4)), (CHUNKS, None)] {
            for part in [
                "G",
                "GET / HTTP/1.1",
                "GET / HTTP/1.1\r\n",
                "GET / HTTP/1.1\r\nx: y\r\n",
            ] {
                check(&[(&format!("{first}{part}"), body_len, true)]);
            }
            // A whole one is answered next.
            check(&[
                (&format!("{first}{GET}"), body_len, false),
                ("", none, false),
            ]);
        }
    }

    #[test]
    fn the_count_begins_again_behind_an_empty_line() {
        let none = Some(0);
        check(&[
            (&format!("{GET}GE"), none, true),
            ("T / HTTP/1.1\r\n\r\n", none, false),
            (POST, Some(4), false),
        ]);
        // The body of the second one may be followed by another head.
        check(&[
            (&format!("{GET}{POST}"), none, true),
            ("", Some(4), true),
            (GET, none, false),
            (POST, Some(4), false),
        ]);
    }

    #[test]
    fn posts_behind_requests_sent_together_are_counted_again() {
        let none = Some(0);
        check(&[
            (&format!("{GET}{POST}"), none, true),
            ("", Some(4), true),
            (POST, Some(4), false),
            (POST, Some(4), false),
        ]);
        check(&[
            (&format!("{GET}{POST}{POST}"), none, true),
            ("", Some(4), true),
            ("", Some(4), true),
            (POST, Some(4), false),
        ]);
        let (begin, end) = POST.split_at(POST.len() - 2);
        check(&[
            (&format!("{GET}{begin}"), none, true),
            (end, Some(4), true),
            (POST, Some(4), false),
        ]);
    }

    #[test]
    fn an_empty_line_behind_a_body_is_no_head() {
        let part = format!("{POST}\r\nG");
        for (followed, expected) in [
            (&*format!("{POST}\r\n"), false),
            (&*format!("{POST}ab"), true),
            (&*part, true),
        ] {
            check(&[(followed, Some(4), expected)]);
        }
        check(&[
            (&format!("{POST}\r\n"), Some(4), false),
            (POST, Some(4), false),
        ]);
    }
}
