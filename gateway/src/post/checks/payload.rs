//! The check of an event's data: its schema, its key, and its fingerprint.
//!
//! `2.0` is an integer, as JSON Schema says; evenkeel's router reads it as one.

use super::unique_json;
use crate::access::EventRoute;
use crate::http::FieldError;
use crate::post::new_event::NewEvent;
use evenkeel::schema::{Catalogue, JsonTree, Violation};
use serde::Serialize;
use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// The most violations of an event that are named.
const VIOLATIONS_MAX: usize = 16;
/// The size of data, in bytes, above which only the first violation is looked for: all of them are
/// held in memory before the first ones are taken.
const ALL_VIOLATIONS_BYTES: usize = 32 << 10;

/// The first double above the integers that a number without a fraction may be, 2^64.
const INTEGERS_END: f64 = 18_446_744_073_709_551_616.0;

/// What the data of a valid event yields.
#[derive(Debug)]
pub(in crate::post) struct Payload {
    /// The record key.
    pub(in crate::post) key: String,
    /// The SHA-256 of type, key and data. It does not depend on white space, on the order of
    /// members, or on how a number is written; numbers count as integers of 64 bits or doubles.
    /// None if it was not asked for.
    pub(in crate::post) fingerprint: Option<[u8; 32]>,
}

/// Why data is not accepted.
#[derive(Debug)]
pub(in crate::post) enum PayloadFault {
    /// It cannot be read.
    Unreadable(FieldError),
    /// It violates the schema, in these places, or has no key.
    Invalid(Vec<FieldError>),
    /// There is no schema for the type.
    UnknownType,
}

/// Checks the data of an event of this route. Parses it into a tree, which is dropped when this
/// returns. Only a store that keeps identities needs the fingerprint.
pub(in crate::post) fn check(
    catalogue: &Catalogue,
    route: &EventRoute,
    event: &NewEvent,
    needs_fingerprint: bool,
) -> Result<Payload, PayloadFault> {
    let parsed = unique_json::parse(event.data.get());
    let data = parsed.map_err(|fault| {
        PayloadFault::Unreadable(event.data_error(&fault.pointer, &fault.detail))
    })?;
    let valid = catalogue.is_valid(&route.ty, &data);
    if !valid.map_err(|_| PayloadFault::UnknownType)? {
        let faults = faults(catalogue, &route.ty, event, &data)?;
        if !faults.is_empty() {
            return Err(PayloadFault::Invalid(faults));
        }
    }
    let key = route.tree_key(&data).map_err(|error| {
        PayloadFault::Invalid(vec![event.data_error(&error.pointer, &error.detail)])
    })?;
    let fingerprint = needs_fingerprint.then(|| fingerprint(&route.ty, &key, &data));
    Ok(Payload { key, fingerprint })
}

/// The faults of data that violates its schema.
fn faults(
    catalogue: &Catalogue,
    ty: &str,
    event: &NewEvent,
    data: &JsonTree<'_>,
) -> Result<Vec<FieldError>, PayloadFault> {
    let is_small = event.data.get().len() <= ALL_VIOLATIONS_BYTES;
    let max = if is_small { VIOLATIONS_MAX } else { 1 };
    let found = catalogue.violations(ty, &Value::from(data), max);
    let found = found.map_err(|_| PayloadFault::UnknownType)?;
    Ok(found.iter().map(|found| fault(event, found)).collect())
}

fn fault(event: &NewEvent, violation: &Violation) -> FieldError {
    let detail = match violation.keyword.as_str() {
        "required" => "is missing".to_owned(),
        keyword => format!("violates the schema: {keyword}"),
    };
    event.data_error(&violation.pointer, &detail)
}

fn fingerprint(ty: &str, key: &str, data: &JsonTree<'_>) -> [u8; 32] {
    let mut canonical = Vec::new();
    write_canonical(data, &mut canonical);
    let mut sha = Sha256::new();
    for part in [ty.as_bytes(), key.as_bytes(), canonical.as_slice()] {
        // The lengths keep ("ab", "c") and ("a", "bc") apart.
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// Writes JSON without white space, members sorted by their name.
fn write_canonical(tree: &JsonTree<'_>, into: &mut Vec<u8>) {
    match tree {
        JsonTree::Array(items) => {
            into.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_canonical(item, into);
            }
            into.push(b']');
        }
        JsonTree::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
            into.push(b'{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_json(name, into);
                into.push(b':');
                write_canonical(member, into);
            }
            into.push(b'}');
        }
        JsonTree::Number(number) => write_number(number, into),
        JsonTree::String(text) => write_json(text, into),
        JsonTree::Bool(value) => write_json(value, into),
        JsonTree::Null => write_json(&(), into),
    }
}

/// Writes a whole number as an integer, however it was written: `2`, `2.0` and `2e0` are equal.
/// Other doubles have the form of the standard library: that of JSON libraries changes (`1e30` has
/// become `1e+30`).
fn write_number(number: &Number, into: &mut Vec<u8>) {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => write_json(number, into),
        Some(double) if double.fract() == 0.0 && double.abs() < INTEGERS_END => {
            write_json(&(double as i128), into);
        }
        Some(double) => into.extend_from_slice(format!("{double:e}").as_bytes()),
    }
}

fn write_json(value: &impl Serialize, into: &mut Vec<u8>) {
    serde_json::to_writer(into, value).unwrap_or_else(|_| unreachable!("scalars always serialise"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeSet;

    const TYPE: &str = "test.step.v1";
    const SCHEMA: &str = r#"{
        "type": "object",
        "required": ["key", "count"],
        "properties": {
            "key": {"type": "string"},
            "count": {"type": "integer"},
            "price": {"type": "number"},
            "list": {"items": {"type": "integer"}}
        }
    }"#;

    /// The pointers of all faults, sorted.
    fn faults(data: &str) -> Vec<String> {
        let catalogue = Catalogue::from_texts([(TYPE, SCHEMA)]).expect("a schema");
        let route = EventRoute::new(TYPE, "steps", "key").with_post(true);
        let raw = RawValue::from_string(data.to_owned()).expect("JSON");
        let event = NewEvent::new(TYPE, raw).with_pointer("/data");
        let mut pointers: Vec<_> = match check(&catalogue, &route, &event, true) {
            Ok(_) => Vec::new(),
            Err(PayloadFault::Invalid(faults)) => {
                faults.into_iter().map(|fault| fault.pointer).collect()
            }
            Err(other) => panic!("{data}: {other:?}"),
        };
        pointers.sort_unstable();
        pointers
    }

    #[test]
    fn all_violations_are_named_up_to_a_bound() {
        assert_eq!(faults(r#"{"key": "k", "count": 1}"#), [""; 0]);
        let found = faults(r#"{"key": 1, "price": "x", "list": [1, "2", null]}"#);
        let expected = [
            "/data/count",
            "/data/key",
            "/data/list/1",
            "/data/list/2",
            "/data/price",
        ];
        assert_eq!(found, expected);
        let items = |count: usize| format!("[{}0]", "\"x\",".repeat(count));
        let many = |count| format!(r#"{{"key": "k", "count": 1, "list": {}}}"#, items(count));
        assert_eq!(faults(&many(100)).len(), VIOLATIONS_MAX);
        assert_eq!(faults(&many(ALL_VIOLATIONS_BYTES / 4)).len(), 1);
    }

    #[test]
    fn a_fingerprint_is_made_only_if_it_is_needed() {
        let catalogue = Catalogue::from_texts([(TYPE, SCHEMA)]).expect("a schema");
        let route = EventRoute::new(TYPE, "steps", "key").with_post(true);
        let text = r#"{"key": "k", "count": 1}"#;
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        let event = NewEvent::new(TYPE, raw);
        for (needs_fingerprint, expected) in [(false, None), (true, Some(of(TYPE, "k", text)))] {
            let payload = check(&catalogue, &route, &event, needs_fingerprint);
            let payload = payload.expect("it is valid");
            assert_eq!(payload.key, "k");
            assert_eq!(payload.fingerprint, expected);
        }
    }

    fn of(ty: &str, key: &str, data: &str) -> [u8; 32] {
        fingerprint(ty, key, &unique_json::parse(data).expect(data))
    }

    #[test]
    fn a_fingerprint_ignores_spelling() {
        let first = of("t", "k", r#"{"a":1,"b":[{"c":"é","d":null}]}"#);
        for data in [
            r#" {"b" : [ {"d":null, "c":"\u00e9"} ] , "a":1 } "#,
            r#"{"b":[{"d":null,"c":"é"}],"a":1}"#,
        ] {
            assert_eq!(of("t", "k", data), first, "{data}");
        }
        for (one, other) in [
            ("2", "2.0"),
            ("200", "2e2"),
            ("-7", "-70E-1"),
            ("0", "-0.0"),
            ("0", "-0"),
            ("0.1", "1e-1"),
            ("18446744073709549568", "18446744073709549568.0"),
        ] {
            let [one, other] = [one, other].map(|number| format!(r#"{{"a":{number}}}"#));
            assert_eq!(of("t", "k", &one), of("t", "k", &other), "{one} {other}");
        }
    }

    #[test]
    fn fingerprints_differ_in_every_part() {
        let all = BTreeSet::from([
            of("t", "k", r#"{"a":1}"#),
            of("tk", "", r#"{"a":1}"#),
            of("t", "l", r#"{"a":1}"#),
            of("t", "k", r#"{"a":2}"#),
            of("t", "k", r#"{"a":"1"}"#),
            of("t", "k", r#"{"a":[1]}"#),
            of("t", "k", r#"{"a":1,"b":null}"#),
            of("t", "k", r#"["a",1]"#),
            of("t", "k", r#"["a,1"]"#),
            of("t", "k", r#"{"a":1.5}"#),
            of("t", "k", r#"{"a":9007199254740992}"#),
            of("t", "k", r#"{"a":9007199254740993}"#),
            of("t", "k", r#"{"a":18446744073709551615}"#),
            of("t", "k", r#"{"a":18446744073709551616}"#),
        ]);
        assert_eq!(all.len(), 14);
    }

    /// Stores keep fingerprints, and later releases compare with them.
    #[test]
    fn canonical_json_never_changes() {
        let mut text = Vec::new();
        let data = r#"{"b":[1.50,-2,2.0,1e30,"x\n"],"a":{"é":true}}"#;
        let data = unique_json::parse(data).expect("JSON");
        write_canonical(&data, &mut text);
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        assert_eq!(text, r#"{"a":{"é":true},"b":[1.5e0,-2,2,1e30,"x\n"]}"#);
    }
}
