//! Selects the records to print. Pure.

use evenkeel::event::decode;
use evenkeel::kafka::reader::LogRecord;
use evenkeel_ops::names::wildcard::matches;
use std::str::FromStr;

/// The field that a filter checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Type,
    Source,
    Id,
    Subject,
    Key,
}

/// One `FIELD=PATTERN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// The field that is compared.
    field: Field,
    /// The pattern, with the wildcards `*` and `?`.
    pattern: Vec<u8>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, pattern) = text
            .split_once('=')
            .ok_or("write FIELD=PATTERN, for example type=shop.order-*")?;
        let field = match field {
            "type" => Field::Type,
            "source" => Field::Source,
            "id" => Field::Id,
            "subject" => Field::Subject,
            "key" => Field::Key,
            other => {
                return Err(format!(
                    "unknown field {other:?}; the fields are type, source, id, subject and key"
                ));
            }
        };
        let pattern = pattern.as_bytes().to_vec();
        Ok(Self { field, pattern })
    }
}

/// All filters of a command. Filters of one field are alternatives; different fields must all
/// match.
pub(super) struct Filters {
    /// Each field once, with its alternatives.
    by_field: Vec<(Field, Vec<Vec<u8>>)>,
}

impl Filters {
    /// Groups the filters by field.
    pub(super) fn new(filters: Vec<Filter>) -> Self {
        let mut by_field: Vec<(Field, Vec<Vec<u8>>)> = Vec::new();
        for Filter { field, pattern } in filters {
            match by_field.iter_mut().find(|(known, _)| *known == field) {
                Some((_, patterns)) => patterns.push(pattern),
                None => by_field.push((field, vec![pattern])),
            }
        }
        Self { by_field }
    }

    /// Whether to print the record. A missing field matches nothing.
    pub(super) fn admit(&self, record: &LogRecord) -> bool {
        let reads_event = self.by_field.iter().any(|(field, _)| *field != Field::Key);
        let attributes = reads_event
            .then(|| decode(record.headers.iter(), record.value.as_deref()).ok())
            .flatten()
            .map(|envelope| envelope.attributes);
        self.by_field.iter().all(|(field, patterns)| {
            let event = attributes.as_ref();
            let text = match field {
                Field::Key => record.key.as_deref(),
                Field::Type => event.map(|event| event.ty.as_bytes()),
                Field::Source => event.map(|event| event.source.as_bytes()),
                Field::Id => event.map(|event| event.id.as_bytes()),
                Field::Subject => event.and_then(|e| e.subject.as_deref().map(str::as_bytes)),
            };
            text.is_some_and(|text| patterns.iter().any(|pattern| matches(pattern, text)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::TimestampKind;

    fn record(ty: &str, key: &str) -> LogRecord {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("ce_source", "/s"),
            ("ce_type", ty),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        LogRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: None,
            key: Some(key.as_bytes().to_vec()),
            value: Some(b"{}".to_vec()),
            headers,
        }
    }

    #[test]
    fn one_field_offers_alternatives_and_all_fields_must_match() {
        let filters =
            |texts: &[&str]| Filters::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let check = |texts: &[&str], expected| {
            let admitted = filters(texts).admit(&record("shop.order-placed.v1", "o-1"));
            assert_eq!(admitted, expected, "{texts:?}");
        };
        check(&[], true);
        check(&["type=shop.order-*"], true);
        check(&["type=shop.stock-*", "type=shop.order-*"], true);
        check(&["type=shop.order-*", "key=o-2"], false);
        check(&["key=o-1", "source=/s", "id=1"], true);
        check(&["subject=*"], false);
    }

    #[test]
    fn a_record_that_is_no_event_has_a_key_only() {
        let mut raw = record("", "o-1");
        raw.headers = Headers::new();
        assert!(Filters::new(vec!["key=o-1".parse().unwrap()]).admit(&raw));
        assert!(!Filters::new(vec!["type=*".parse().unwrap()]).admit(&raw));
    }
}
