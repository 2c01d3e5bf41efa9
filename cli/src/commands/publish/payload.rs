//! JSON from the command line: `quantity=3` becomes what the schema says it is. Pure.

use evenkeel::schema::Catalogue;
use serde_json::{Map, Value};

/// Parses one JSON text; the error names the column, not the line, which is the caller's to name.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
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
) -> Result<Value, String> {
    let mut payload = Map::new();
    for field in fields {
        let (name, text) = field
            .split_once('=')
            .ok_or_else(|| format!("{field}: write a field as NAME=VALUE"))?;
        let is_text = catalogue
            .schema(ty)
            .is_some_and(|schema| is_text(schema, name));
        let value = match serde_json::from_str(text) {
            Ok(value) if !is_text => value,
            _ => Value::String(text.to_owned()),
        };
        if payload.insert(name.to_owned(), value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(Value::Object(payload))
}

/// Local references that are followed from one place at most; a cycle ends here.
const REFERENCES_MAX: usize = 8;

/// Whether the schema wants a text for this member.
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
    fn a_field_becomes_what_the_schema_says() {
        let check = |field: &str, expected: Value| {
            let payload = from_fields(&catalogue(), "t.v1", &[field.to_owned()]).unwrap();
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
