//! JSON from the command line: the schema decides the type of the value in `quantity=3`. Pure.
//!
//! Texts are kept unchanged: a number beyond the precision of `f64` is published digit by digit.

use evenkeel::schema::Catalogue;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Checks that a text is one JSON value. The error names the column; the caller adds the line.
pub(super) fn parse(text: &[u8]) -> Result<Box<RawValue>, String> {
    serde_json::from_slice(text).map_err(|error| {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = message.strip_suffix(&place).unwrap_or(&message);
        format!("not JSON: {reason} at column {}", error.column())
    })
}

/// The payload object of `NAME=VALUE` fields.
pub(super) fn from_fields(
    catalogue: &Catalogue,
    ty: &str,
    fields: &[String],
) -> Result<Box<RawValue>, String> {
    let mut payload = BTreeMap::<&str, Box<RawValue>>::new();
    for field in fields {
        let (name, text) = field
            .split_once('=')
            .ok_or_else(|| format!("{field}: write a field as NAME=VALUE"))?;
        let is_text = catalogue
            .schema(ty)
            .is_some_and(|schema| is_text(schema, name));
        let value = match serde_json::from_str(text) {
            Ok(value) if !is_text => value,
            _ => raw(&text)?,
        };
        if payload.insert(name, value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    raw(&payload)
}

/// The JSON text of a value.
fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, String> {
    serde_json::value::to_raw_value(value).map_err(|error| error.to_string())
}

/// The text of the value at a JSON pointer.
pub(super) fn at<'a>(text: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    let mut place = text;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        place = match place.get().as_bytes().first()? {
            b'{' => {
                let members: BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue> =
                    serde_json::from_str(place.get()).ok()?;
                members.get(token.as_str()).copied()?
            }
            _ => {
                let items: Vec<&'a RawValue> = serde_json::from_str(place.get()).ok()?;
                items.get(token.parse::<usize>().ok()?).copied()?
            }
        };
    }
    Some(place)
}

/// Maximum number of local references that are followed. It ends cycles.
const REFERENCES_MAX: usize = 8;

/// Whether the schema requires a string for this member.
fn is_text(schema: &Value, member: &str) -> bool {
    let mut place = schema.get("properties").and_then(|all| all.get(member));
    for _ in 0..REFERENCES_MAX {
        let Some(subschema) = place else { return false };
        if let Some(ty) = subschema.get("type") {
            return ty == "string";
        }
        place = subschema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| schema.pointer(reference.strip_prefix('#')?));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalogue() -> Catalogue {
        let schema = json!({
            "type": "object",
            "properties": {
                "id": {"$ref": "#/$defs/identifier"},
                "loop": {"$ref": "#/properties/loop"},
                "pieces": {"type": "integer"},
                "lines": {"type": "array"},
            },
            "$defs": {"identifier": {"type": "string"}},
        });
        Catalogue::from_texts([("t.v1", schema.to_string().as_str())]).unwrap()
    }

    #[test]
    fn a_field_gets_the_type_of_its_schema() {
        let check = |field: &str, expected: Value| {
            let payload = from_fields(&catalogue(), "t.v1", &[field.to_owned()]).unwrap();
            let payload: Value = serde_json::from_str(payload.get()).unwrap();
            assert_eq!(payload, expected, "{field}");
        };
        check("id=17", json!({"id": "17"}));
        check("id=\"quoted\"", json!({"id": "\"quoted\""}));
        check("pieces=17", json!({"pieces": 17}));
        check("pieces=many", json!({"pieces": "many"}));
        check("lines=[1,2]", json!({"lines": [1, 2]}));
        check("unknown=true", json!({"unknown": true}));
        check("loop=1", json!({"loop": 1}));
        check("id=a=b", json!({"id": "a=b"}));
    }

    #[test]
    fn numbers_are_kept_digit_by_digit() {
        let fields = [
            "pieces=12345678901234567890123".to_owned(),
            "x=1.10".to_owned(),
        ];
        let payload = from_fields(&catalogue(), "t.v1", &fields).unwrap();
        assert_eq!(
            payload.get(),
            r#"{"pieces":12345678901234567890123,"x":1.10}"#
        );
        let text = br#"{"z": 0.1234567890123456789, "a": 18446744073709551616}"#;
        assert_eq!(parse(text).unwrap().get().as_bytes(), text);
    }

    #[test]
    fn a_pointer_finds_the_text_at_its_place() {
        let text = parse(br#"{"a/b":{"~":[1, 23958446825181076828]},"\u0061":"x"}"#).unwrap();
        let check = |pointer, expected| assert_eq!(at(&text, pointer).map(RawValue::get), expected);
        check("", Some(text.get()));
        check("/a~1b/~0/1", Some("23958446825181076828"));
        check("/a", Some("\"x\""));
        check("/a~1b/~0/2", None);
        check("/a~1b/~0/x", None);
        check("/a/b", None);
        check("/none", None);
    }

    #[test]
    fn a_field_without_a_name_or_given_twice_is_refused() {
        let fields = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            from_fields(&catalogue(), "t.v1", &texts)
        };
        assert!(fields(&["id"]).is_err());
        assert!(fields(&["id=1", "id=2"]).is_err());
    }

    #[test]
    fn a_syntax_error_names_the_column_alone() {
        assert_eq!(
            parse(b"{\"a\":}").unwrap_err(),
            "not JSON: expected value at column 6"
        );
        assert!(parse(b"\xff").is_err());
    }
}
