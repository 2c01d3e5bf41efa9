//! Parses JSON in which no object has a member name twice. Knows no event.
//!
//! Parsers differ in which of two equal names counts. A payload with both could pass validation
//! here and have another value for a consumer.

use crate::post::new_event::{bounded, escaped};
use evenkeel::schema::JsonTree;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

/// Up to so many members of an object are compared one by one.
const FEW_MEMBERS: usize = 32;

/// Why a text is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::post) struct JsonFault {
    /// JSON Pointer to the fault in the text; empty if only the line is known.
    pub(in crate::post) pointer: String,
    /// What is wrong, without any value.
    pub(in crate::post) detail: String,
}

/// Parses a text, of which the tree is a part. The depth is limited to 128.
pub(in crate::post) fn parse(text: &str) -> Result<JsonTree<'_>, JsonFault> {
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

/// The name of a member: a part of the text, unless it has escapes.
#[derive(Deserialize)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

impl<'de> DeserializeSeed<'de> for UniqueValue<'_> {
    type Value = JsonTree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonTree<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueValue<'_> {
    type Value = JsonTree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonTree<'de>, E> {
        // JSON has no other numbers than finite ones.
        Ok(Number::from_f64(value).map_or(JsonTree::Null, JsonTree::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::String(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<JsonTree<'de>, A::Error> {
        let mut items = Vec::new();
        loop {
            let item = UniqueValue {
                place: Place::Item(&self.place, items.len()),
                repeated: self.repeated,
            };
            match access.next_element_seed(item)? {
                Some(item) => items.push(item),
                None => return Ok(JsonTree::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<JsonTree<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, JsonTree<'de>)> = Vec::new();
        let mut names = Names::default();
        while let Some(Name(name)) = access.next_key()? {
            let place = Place::Member(&self.place, &name);
            if names.has(&members, &name) {
                self.repeated.replace(Some(place.pointer()));
                return Err(A::Error::custom("a repeated member"));
            }
            let member = UniqueValue {
                place,
                repeated: self.repeated,
            };
            let value = access.next_value_seed(member)?;
            members.push((name, value));
        }
        Ok(JsonTree::Object(members))
    }
}

/// The names of an object with many members. Few are compared one by one.
#[derive(Default)]
struct Names<'de>(BTreeSet<Cow<'de, str>>);

impl<'de> Names<'de> {
    /// Whether one of these members has the name, which is then that of the next one.
    #[expect(
        clippy::ptr_arg,
        reason = "a name that is borrowed is kept without a copy"
    )]
    fn has(&mut self, members: &[(Cow<'de, str>, JsonTree<'de>)], name: &Cow<'de, str>) -> bool {
        if members.len() < FEW_MEMBERS {
            return members.iter().any(|(known, _)| known == name);
        }
        if self.0.is_empty() {
            self.0
                .extend(members.iter().map(|(known, _)| known.clone()));
        }
        !self.0.insert(name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

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
    fn a_repeated_member_is_found_among_many() {
        for (count, repeated) in [(31, 30), (32, 0), (33, 32), (100, 40)] {
            let members = (0..count).map(|number| format!(r#""m{number}":0"#));
            let members = members.collect::<Vec<_>>().join(",");
            parse(&format!("{{{members}}}")).expect("different names");
            let text = format!(r#"{{{members},"\u006d{repeated}":1}}"#);
            let fault = parse(&text).expect_err("a repeated name");
            assert_eq!(fault.pointer, format!("/m{repeated}"));
        }
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let JsonTree::Object(members) = parse(r#"{"a":"b","c\n":"d\n"}"#).expect("JSON") else {
            panic!("an object")
        };
        let is_borrowed = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        let found: Vec<_> = members
            .iter()
            .map(|(name, value)| match value {
                JsonTree::String(text) => (is_borrowed(name), is_borrowed(text)),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, [(true, true), (false, false)]);
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
            if let Ok(tree) = parse(&text) {
                let expected = serde_json::from_str::<Value>(&text).ok();
                prop_assert_eq!(expected, Some(Value::from(&tree)));
            }
        }
    }
}
