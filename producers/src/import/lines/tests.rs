//! Tests of line ends, quoted line breaks and rejected input.

use super::*;

fn read(format: Format, input: &[u8]) -> Vec<Line> {
    let mut lines = Lines::after(input, format, None, At::default());
    std::iter::from_fn(|| lines.next().expect("reads from memory")).collect()
}

fn bytes(content: &[u8]) -> Content {
    Content::Bytes(content.to_vec())
}

/// Checks first line, last line and content of each row.
fn check(input: &[u8], expected: &[(u64, u64, Content)]) {
    let rows: Vec<_> = read(Format::Csv, input)
        .into_iter()
        .map(|line| (line.number, line.last, line.content))
        .collect();
    assert_eq!(rows, expected, "{}", String::from_utf8_lossy(input));
}

#[test]
fn lines_end_at_any_line_break_or_at_the_end() {
    let lines = read(Format::Jsonl, b"\xef\xbb\xbfa\r\n\nb\rc\r\rd\n\re");
    let found: Vec<_> = lines
        .iter()
        .map(|line| (line.number, line.end.bytes, line.content.clone()))
        .collect();
    let expected = [
        (1, 6, "a"),
        (2, 7, ""),
        (3, 9, "b"),
        (4, 11, "c"),
        (5, 12, ""),
        (6, 14, "d"),
        (7, 15, ""),
        (8, 16, "e"),
    ];
    assert_eq!(
        found,
        expected.map(|(number, end, text)| (number, end, bytes(text.as_bytes())))
    );
}

#[test]
fn a_row_continues_over_the_line_breaks_of_quoted_fields() {
    check(
        b"a,\"b\nc\"\nd,e\n",
        &[(1, 2, bytes(b"a,\"b\nc\"")), (3, 3, bytes(b"d,e"))],
    );
    check(
        b"a,\"b\r\n\"\"c\rd\" \r\ne",
        &[(1, 3, bytes(b"a,\"b\r\n\"\"c\rd\" ")), (4, 4, bytes(b"e"))],
    );
    check(
        b" \"a,\n\",b\rc",
        &[(1, 2, bytes(b"\"a,\n\",b")), (3, 3, bytes(b"c"))],
    );
    check(b"\"\",\"\"\n", &[(1, 1, bytes(b"\"\",\"\""))]);
}

#[test]
fn quotes_that_hide_the_end_of_a_row_are_reported() {
    let check = |input: &[u8], expected| {
        let content = read(Format::Csv, input)[0].content.clone();
        assert_eq!(content, Content::Misquoted(expected));
    };
    let unclosed = "a quote is opened and not closed";
    check(b"a,\"b\nc,d\n", unclosed);
    check(b"a,\"b\"\"", unclosed);
    check(b"\"", unclosed);
    check(b"\"a\"b\n", "text follows the closing quote of a field");
    check(b"a,b\"c\n", "a quote is inside of an unquoted field");
    let long = [b"\"".as_slice(), &vec![b'x'; 2 * LINE_BYTES_MAX]].concat();
    check(&long, unclosed);
}

#[test]
fn quotes_of_json_lines_span_no_lines() {
    let rows = read(Format::Jsonl, b"{\"a\n\"b\n");
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_row_is_the_same_whatever_the_reads_return() {
    /// Returns one byte per read.
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let taken = self.0.len().min(into.len()).min(1);
            into[..taken].copy_from_slice(&self.0[..taken]);
            self.0 = &self.0[taken..];
            Ok(taken)
        }
    }
    let input = b"a,\"b\r\nc\"\r\nd\re\n\r\nf\"\"\n";
    let mut slow = Lines::after(Slow(input), Format::Csv, None, At::default());
    let found: Vec<_> = std::iter::from_fn(|| slow.next().expect("reads")).collect();
    assert_eq!(found, read(Format::Csv, input));
}

#[test]
fn a_first_line_of_excel_declares_the_delimiter() {
    let check = |input: &[u8], given, expected: &[(u64, u8, &str)]| {
        let mut lines = Lines::after(input, Format::Csv, given, At::default());
        for (number, delimiter, content) in expected {
            let line = lines.next().expect("reads").expect("a row");
            assert_eq!((line.number, line.delimiter), (*number, *delimiter));
            assert_eq!(line.content, bytes(content.as_bytes()));
        }
        assert_eq!(lines.next().expect("reads"), None);
    };
    check(
        b"\xef\xbb\xbfsep=;\r\n a; \"b;\"\n",
        None,
        &[(2, b';', "a;\"b;\"")],
    );
    check(b"sep=\t\ra\t\tb", None, &[(2, b'\t', "a\t\tb")]);
    check(b"sep=;\na;b", Some(b'|'), &[(2, b'|', "a;b")]);
    check(
        b"a,b\nsep=;\n",
        None,
        &[(1, b',', "a,b"), (2, b',', "sep=;")],
    );
    check(b"a;\"b\n;\"", Some(b';'), &[(1, b';', "a;\"b\n;\"")]);
}

#[test]
fn utf16_is_refused_with_advice() {
    for mark in UTF16_MARKS.into_iter().chain([&b"o\0r\0"[..], b"\0o\0r"]) {
        let mut lines = Lines::after(mark, Format::Csv, None, At::default());
        let error = lines.next().expect_err("not UTF-8");
        assert!(error.to_string().contains("UTF-16"), "{error}");
    }
}

#[test]
fn an_overlong_line_is_skipped_and_the_next_is_read() {
    let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
    input.extend_from_slice(b"\nnext\n");
    let lines = read(Format::Csv, &input);
    assert_eq!(lines[0].content, Content::TooLong);
    assert_eq!(lines[1].content, bytes(b"next"));
    assert_eq!(lines[1].number, 2);
    assert_eq!(lines[1].end.bytes, input.len() as u64);
}

#[test]
fn the_longest_line_allowed_is_kept() {
    let mut input = vec![b'x'; LINE_BYTES_MAX];
    let longest = bytes(&input);
    assert_eq!(read(Format::Csv, &input)[0].content, longest);
    input.push(b'\n');
    assert_eq!(read(Format::Csv, &input)[0].content, longest);
}

#[test]
fn reading_resumes_after_a_row_with_the_right_numbers() {
    let input = b"first\r\n\"sec\nond\"\rthird\n";
    let whole = read(Format::Csv, input);
    for ended in 0..whole.len() - 1 {
        let end = whole[ended].end;
        let rest = &input[end.bytes as usize..];
        let mut rest = Lines::after(rest, Format::Csv, None, end);
        for expected in &whole[ended + 1..] {
            assert_eq!(rest.next().expect("reads").as_ref(), Some(expected));
        }
    }
}

#[tokio::test]
async fn the_thread_hands_on_every_line_in_order() {
    let text: String = (1..=20_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let input = std::io::Cursor::new(text.into_bytes());
    let mut runs = read_on_thread(Lines::after(input, Format::Csv, None, At::default()));
    let mut numbers = Vec::new();
    while let Some(run) = runs.recv().await {
        numbers.extend(run.expect("reads").iter().map(|line| line.number));
    }
    assert!(numbers.iter().copied().eq(1..=20_000));
}
