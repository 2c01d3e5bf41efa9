//! Parses a line into a row: CSV with a header, or one JSON object per line. Independent of files
//! and clients.
//!
//! Error messages name columns and the expected values, never the actual content: it may contain a
//! customer's data.

use super::row::Row;
use clap::ValueEnum;
use csv::StringRecord;
use std::io::{Cursor, SeekFrom};
use std::path::Path;

/// The default separator of CSV fields.
pub(super) const COMMA: u8 = b',';

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A header, then one row per line, as in RFC 4180
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// The error of a line that is no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not CSV, or a field is missing or has the wrong type.
    #[error("{0}")]
    Csv(String),
    /// Not JSON, or a field is missing or has the wrong type.
    #[error("{0}")]
    Json(String),
}

/// Parses lines into rows.
#[derive(Debug)]
pub enum Parser {
    /// CSV, with the names from the header.
    Csv(CsvParser),
    /// JSON lines, with the names in every line.
    Jsonl,
}

/// Parses lines of CSV into rows.
///
/// Each row is parsed on its own, but the reader is reused: a new reader builds its state machine
/// again, which takes longer than parsing a row.
#[derive(Debug)]
pub struct CsvParser {
    header: StringRecord,
    reader: csv::Reader<Cursor<Vec<u8>>>,
}

impl Format {
    /// The format that a file's extension implies. `None` for other extensions.
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

impl Parser {
    /// A CSV parser for this header, whose fields are separated by `delimiter`.
    ///
    /// # Errors
    /// If a column is missing, is unknown or appears twice.
    pub fn with_header<R: Row>(line: &[u8], delimiter: u8) -> Result<Self, LineError> {
        let mut parser = CsvParser::new(delimiter);
        let header = parser.record(line)?;
        let required = R::COLUMNS_REQUIRED;
        if let Some(missing) = required
            .iter()
            .find(|name| !header.iter().any(|found| found == **name))
        {
            let delimiter = [(";", "semicolons"), ("\t", "tabs")]
                .into_iter()
                .find(|(delimiter, _)| header.len() == 1 && header[0].contains(delimiter))
                .map_or(String::new(), |(delimiter, name)| {
                    let delimiter = delimiter.escape_default();
                    format!("; its fields are separated by {name}: --delimiter '{delimiter}'")
                });
            return Err(LineError::Csv(format!(
                "the header has no column {missing}; {} need {}{delimiter}",
                R::NOUN,
                required.join(", ")
            )));
        }
        let known = |name: &str| required.contains(&name) || R::COLUMNS_OPTIONAL.contains(&name);
        if let Some(position) = header.iter().position(|name| !known(name)) {
            return Err(LineError::Csv(format!(
                "column {} of the header is none that {} have: {}",
                position + 1,
                R::NOUN,
                [required, R::COLUMNS_OPTIONAL].concat().join(", ")
            )));
        }
        let twice =
            |(at, name): &(usize, &str)| header.iter().take(*at).any(|other| other == *name);
        if let Some((_, name)) = header.iter().enumerate().find(twice) {
            return Err(LineError::Csv(format!(
                "the header has the column {name} twice"
            )));
        }
        parser.header = header;
        Ok(Self::Csv(parser))
    }

    /// Parses a line into a row.
    pub fn row<R: Row>(&mut self, line: &[u8]) -> Result<R, LineError> {
        match self {
            Self::Csv(parser) => parser.row(line),
            // serde accepts an array for a struct.
            Self::Jsonl if line.trim_ascii_start().starts_with(b"[") => Err(LineError::Json(
                "it begins with an array; write one object a line, as jq -c '.[]' does".to_owned(),
            )),
            Self::Jsonl => serde_json::from_slice(line)
                .map_err(|error| LineError::Json(without_value(&error.to_string()))),
        }
    }
}

impl CsvParser {
    fn new(delimiter: u8) -> Self {
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(Cursor::new(Vec::new()));
        Self {
            header: StringRecord::new(),
            reader,
        }
    }

    fn row<R: Row>(&mut self, line: &[u8]) -> Result<R, LineError> {
        let record = self.record(line)?;
        if record.len() != self.header.len() {
            return Err(LineError::Csv(format!(
                "it has {} fields and the header has {}",
                record.len(),
                self.header.len()
            )));
        }
        record
            .deserialize(Some(&self.header))
            .map_err(|error| LineError::Csv(csv_reason(&error, &self.header)))
    }

    /// The fields of a line.
    fn record(&mut self, line: &[u8]) -> Result<StringRecord, LineError> {
        let input = self.reader.get_mut().get_mut();
        input.clear();
        input.extend_from_slice(line);
        let mut record = StringRecord::new();
        self.reader
            .seek_raw(SeekFrom::Start(0), csv::Position::new())
            .and_then(|()| self.reader.read_record(&mut record))
            .map_err(|error| match error.kind() {
                csv::ErrorKind::Utf8 { .. } => LineError::NotUtf8,
                _ => LineError::Csv(error.to_string()),
            })?;
        // A row by its quotes must also be a single record for the CSV reader. Otherwise its rest
        // would be lost.
        let mut rest = StringRecord::new();
        match self.reader.read_record(&mut rest) {
            Ok(false) => Ok(record),
            _ => Err(LineError::Csv(
                "a quote is where none is allowed, for example after a blank".to_owned(),
            )),
        }
    }
}

fn csv_reason(error: &csv::Error, header: &StringRecord) -> String {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
        return error.to_string();
    };
    let reason = without_value(&err.kind().to_string());
    match err.field().and_then(|field| header.get(field as usize)) {
        Some(column) => format!("{column}: {reason}"),
        None => reason,
    }
}

/// Removes the value from serde's `invalid type: string "Jane", expected u32 at line 1 column 8`.
fn without_value(message: &str) -> String {
    let Some((kind, rest)) = message
        .split_once(": ")
        .filter(|(kind, _)| kind.starts_with("invalid "))
    else {
        return message.to_owned();
    };
    match rest.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{kind}, expected {expected}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::row::DeliveryRow;

    fn check(parser: &mut Parser, line: &str, expected: Result<(&str, u32), &str>) {
        let found = parser
            .row::<DeliveryRow>(line.as_bytes())
            .map(|row| (row.article, row.quantity))
            .map_err(|error| error.to_string());
        let expected = expected
            .map(|(article, quantity)| (article.to_owned(), quantity))
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn json_lines_are_rows_or_errors_without_values() {
        let check = |line, expected| check(&mut Parser::Jsonl, line, expected);
        check(
            r#"{"article":"a","quantity":2,"delivery_id":"d"}"#,
            Ok(("a", 2)),
        );
        check(
            r#"{"article":"a","quantity":"secret","delivery_id":"d"}"#,
            Err("invalid type, expected u32 at line 1 column 34"),
        );
        check(
            r#"{"article":"a","quantity":-2,"delivery_id":"d"}"#,
            Err("invalid value, expected u32 at line 1 column 28"),
        );
        check(
            r#"{"article":"a","delivery_id":"d"}"#,
            Err("missing field `quantity` at line 1 column 33"),
        );
        check(
            r#"{"article":"#,
            Err("EOF while parsing a value at line 1 column 11"),
        );
        check("secret", Err("expected value at line 1 column 1"));
        check(
            r#"["a",2,"d"]"#,
            Err("it begins with an array; write one object a line, as jq -c '.[]' does"),
        );
        let row = r#"{"article":"a","quantity":2,"delivery_id":"d"}"#;
        let (two, comma) = (format!("{row} {row}"), format!("{row},"));
        check(&two, Err("trailing characters at line 1 column 48"));
        check(&comma, Err("trailing characters at line 1 column 47"));
        check(
            r#"{"article":"a","article":"b","quantity":2,"delivery_id":"d"}"#,
            Err("duplicate field `article` at line 1 column 24"),
        );
        check(
            r#"{"article":"a","quantity":NaN,"delivery_id":"d"}"#,
            Err("expected value at line 1 column 27"),
        );
        check(
            r#"{"article":"a","quantity":123456789012345678901,"delivery_id":"d"}"#,
            Err("invalid type, expected u32 at line 1 column 47"),
        );
    }

    #[test]
    fn csv_lines_are_rows_or_errors_without_values() {
        let mut parser =
            Parser::with_header::<DeliveryRow>(b"quantity, article,delivery_id", COMMA)
                .expect("a complete header");
        let mut check = |line, expected| check(&mut parser, line, expected);
        check("2,a,d", Ok(("a", 2)));
        check("\"2\", a ,d", Ok(("a", 2)));
        check("secret,a,d", Err("quantity: invalid digit found in string"));
        check("2,a", Err("it has 2 fields and the header has 3"));
        check("2,a,d,e", Err("it has 4 fields and the header has 3"));
        check("2,\"a\r\nb\",d", Ok(("a\r\nb", 2)));
        let error = parser.row::<DeliveryRow>(b"2,\xff,d").expect_err("no text");
        assert_eq!(error, LineError::NotUtf8);
    }

    #[test]
    fn fields_are_separated_by_the_given_delimiter() {
        let header = b"article;quantity;delivery_id";
        let mut parser = Parser::with_header::<DeliveryRow>(header, b';').expect("a header");
        check(&mut parser, "a,b;2;d", Ok(("a,b", 2)));
        check(&mut parser, "\"a;b\";2;d", Ok(("a;b", 2)));
    }

    #[test]
    fn a_header_has_all_needed_columns_and_no_unknown_ones() {
        let check = |header: &str, expected: &str| {
            let error =
                Parser::with_header::<DeliveryRow>(header.as_bytes(), COMMA).expect_err(header);
            assert_eq!(error.to_string(), expected);
        };
        check(
            "article,delivery_id",
            "the header has no column quantity; deliveries need article, quantity, delivery_id",
        );
        check(
            "article;quantity;delivery_id",
            "the header has no column article; deliveries need article, quantity, delivery_id; its fields are separated by semicolons: --delimiter ';'",
        );
        check(
            "article\tquantity\tdelivery_id",
            "the header has no column article; deliveries need article, quantity, delivery_id; its fields are separated by tabs: --delimiter '\\t'",
        );
        check(
            "article,quantity,delivery_id, article",
            "the header has the column article twice",
        );
        check(
            "Article,quantity,delivery_id",
            "the header has no column article; deliveries need article, quantity, delivery_id",
        );
        check(
            "article,quantity,delivery_id,colour",
            "column 4 of the header is none that deliveries have: article, quantity, delivery_id",
        );
    }

    #[test]
    fn the_format_is_guessed_from_the_names_ending() {
        let check =
            |name: &str, expected| assert_eq!(Format::of_name(Path::new(name)), expected, "{name}");
        check("orders.csv", Some(Format::Csv));
        check("ORDERS.CSV", Some(Format::Csv));
        check("orders.2026.jsonl", Some(Format::Jsonl));
        check("orders.ndjson", Some(Format::Jsonl));
        check("orders.txt", None);
        check("orders", None);
    }
}
