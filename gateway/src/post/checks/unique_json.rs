//! Parses JSON in which no object has a member name twice. Knows no event.
//!
//! Parsers differ in which of two equal names counts. A payload with both could pass validation
//! here and have another value for a consumer.

use crate::post::new_event::{bounded, escaped};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;

/// Why a text is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::post) struct JsonFault {
    /// JSON Pointer to the fault in the text; empty if only the line is known.
    pub(in crate::post) pointer: String,
    /// What is wrong, without any value.
    pub(in crate::post) detail: String,
}

/// Parses a text. The depth is limited to 128.
pub(in crate::post) fn parse(text: &str) -> Result<Value, JsonFault> {
    let repeated = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let root = UniqueValue {
        place: Place::Root,
        repeated: &repeated,
    };
    let parsed = root
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| match repeated.take() {
        Some(pointer) => JsonFault {
            pointer,
            detail: "is there twice: no member name may be repeated".to_owned(),
        },
        // The parser's messages about syntax quote nothing.
        None => JsonFault {
            pointer: String::new(),
            detail: format!("is not JSON: {error}"),
        },
    })
}

/// The place of a value, from the inside out.
enum Place<'p> {
    Root,
    Member(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(parent, name) => {
                format!("{}/{}", parent.pointer(), escaped(&bounded(name)))
            }
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

/// A value to parse.
struct UniqueValue<'p> {
    place: Place<'p>,
    /// The pointer of the first repeated member.
    repeated: &'p RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for UniqueValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let item = UniqueValue {
                place: Place::Item(&self.place, items.len()),
                repeated: self.repeated,
            };
            match access.next_element_seed(item)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let place = Place::Member(&self.place, &name);
            if members.contains_key(&name) {
                self.repeated.replace(Some(place.pointer()));
                return Err(A::Error::custom("a repeated member"));
            }
            let member = UniqueValue {
                place,
                repeated: self.repeated,
            };
            let value = access.next_value_seed(member)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_repeated_member_is_found_at_any_depth() {
        for (text, pointer) in [
            (r#"{"a":1,"a":1}"#, "/a"),
            (r#"{"a":1,"\u0061":2}"#, "/a"),
            (r#"{"a":{"b":1,"c":2,"b":3}}"#, "/a/b"),
            (r#"[{}, {"x":[{"a/b":1,"a/b":2}]}]"#, "/1/x/0/a~1b"),
        ] {
            assert_eq!(parse(text).expect_err(text).pointer, pointer, "{text}");
        }
        for text in [
            r#"{"a":1,"A":2}"#,
            r#"[{"a":1},{"a":1}]"#,
            r#"{"a":{"a":1}}"#,
        ] {
            parse(text).expect(text);
        }
    }

    #[test]
    fn other_texts_are_no_json() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let surrogate = r#""\ud800""#;
        for text in [
            "", "{", "{} {}", "nul", "1e999", surrogate, "NaN", "{'a':1}", &*deep,
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!(fault.pointer, "", "{text}");
            assert!(
                fault.detail.starts_with("is not JSON: "),
                "{}",
                fault.detail
            );
        }
    }

    #[test]
    fn a_fault_quotes_no_value() {
        let fault = parse(r#"{"card": "hunter2" "x"}"#).expect_err("no comma");
        assert!(!fault.detail.contains("hunter2"), "{}", fault.detail);
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_by_serde_json_or_refused(text in r#"[\[\]{}:,"a0-9. -]{0,24}"#) {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
            }
        }
    }
}
