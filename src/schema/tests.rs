//! The catalogue from outside: accepted documents, and errors of payloads.

use super::{Catalogue, JsonTree, SchemaError, ValidationError, Violation};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

fn catalogue(schema: &Value) -> Catalogue {
    Catalogue::from_texts([("test.thing.v1", schema.to_string().as_str())]).expect("compiles")
}

fn refusal(schema: &str) -> String {
    Catalogue::from_texts([("test.thing.v1", schema)])
        .expect_err(schema)
        .to_string()
}

fn violation(schema: &Value, data: &Value) -> Violation {
    match catalogue(schema).validate("test.thing.v1", data) {
        Err(ValidationError::Violation(violation)) => violation,
        other => panic!("{data} against {schema}: {other:?}"),
    }
}

#[test]
fn a_violation_names_type_pointer_and_keyword() {
    let schema = json!({
        "type": "object",
        "required": ["id", "a/b"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "a/b": {"type": "integer"},
            "at": {"type": "string", "format": "date-time"},
            "code": {"type": "string", "pattern": "^[a-z]+$"},
            "kind": {"enum": ["x", "y"]},
            "rows": {"type": "array", "items": {"type": "object", "required": ["n"]}}
        }
    });
    let id = "6f1c2b7e-8a43-4c1e-9a39-2d1a5b0c7f10";
    let rows = [
        (json!({"id": id}), "/a~1b", "required"),
        (
            json!({"id": id, "a/b": 1, "extra": 1}),
            "",
            "additionalProperties",
        ),
        (json!({"id": "no uuid", "a/b": 1}), "/id", "format"),
        (json!({"id": id, "a/b": 1.5}), "/a~1b", "type"),
        (
            json!({"id": id, "a/b": 1, "at": "yesterday"}),
            "/at",
            "format",
        ),
        (json!({"id": id, "a/b": 1, "code": "A"}), "/code", "pattern"),
        (json!({"id": id, "a/b": 1, "kind": "z"}), "/kind", "enum"),
        (
            json!({"id": id, "a/b": 1, "rows": [{"n": 1}, {}]}),
            "/rows/1/n",
            "required",
        ),
        (json!("text"), "", "type"),
    ];
    for (data, pointer, keyword) in rows {
        let violation = violation(&schema, &data);
        let found = (violation.pointer.as_str(), violation.keyword.as_str());
        assert_eq!(found, (pointer, keyword), "{data}");
        assert_eq!(violation.ty, "test.thing.v1");
    }
}

#[test]
fn all_violations_are_found_up_to_a_bound() {
    let schema = json!({
        "required": ["id"],
        "properties": {"a": {"type": "integer"}, "b": {"minimum": 1, "multipleOf": 2}}
    });
    let catalogue = catalogue(&schema);
    for (data, max, expected) in [
        (json!({"id": 1, "a": 1}), 16, &[][..]),
        (json!({"a": "x", "b": -1}), 16, &["/a", "/b", "/b", "/id"]),
        (json!({"id": 1, "a": "x"}), 16, &["/a"]),
        (json!({"id": 1, "a": "x"}), 1, &["/a"]),
        (json!({"id": 1, "a": "x"}), 0, &[]),
    ] {
        let found = catalogue.violations("test.thing.v1", &data, max);
        let found = found.expect("a known type");
        let mut pointers: Vec<_> = found.iter().map(|found| found.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, expected, "{data} {max}");
    }
    let all = catalogue.violations("test.thing.v1", &json!({"a": "x", "b": -1}), 2);
    assert_eq!(all.expect("a known type").len(), 2);
    let unknown = catalogue.violations("test.thing.v2", &json!(1), 16);
    let expected = ValidationError::UnknownType("test.thing.v2".to_owned());
    assert_eq!(unknown, Err(expected));
}

#[test]
fn a_violation_never_shows_the_value() {
    let secret = "hunter2-4111111111111111";
    let schemas = [
        json!({"properties": {"card": {"type": "integer"}}}),
        json!({"properties": {"card": {"maxLength": 3}}}),
        json!({"properties": {"card": {"pattern": "^[0-9]+$"}}}),
        json!({"properties": {"card": {"format": "email"}}}),
        json!({"properties": {"card": {"enum": [1, 2]}}}),
        json!({"properties": {"card": {"const": 1}}}),
        json!({"properties": {"card": {"not": {"type": "string"}}}}),
        json!({"properties": {"card": {"anyOf": [{"type": "null"}, {"type": "array"}]}}}),
        json!({"properties": {"card": {"oneOf": [{"type": "string"}, {"minLength": 1}]}}}),
        json!({"properties": {"card": false}}),
        json!({"maxProperties": 0}),
    ];
    for schema in schemas {
        let catalogue = catalogue(&schema);
        let error = catalogue
            .validate("test.thing.v1", &json!({"card": secret}))
            .expect_err("refused");
        let all = catalogue.violations("test.thing.v1", &json!({"card": secret}), 16);
        let shown = format!("{error} {error:?} {all:?}");
        assert!(!shown.contains("hunter2"), "{schema}: {shown}");
        assert!(std::error::Error::source(&error).is_none(), "{schema}");
    }
}

/// A tree of the value that borrows its texts.
fn tree(value: &Value) -> JsonTree<'_> {
    match value {
        Value::Null => JsonTree::Null,
        Value::Bool(value) => JsonTree::Bool(*value),
        Value::Number(number) => JsonTree::Number(number.clone()),
        Value::String(text) => JsonTree::String(Cow::Borrowed(text)),
        Value::Array(items) => JsonTree::Array(items.iter().map(tree).collect()),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (Cow::Borrowed(name.as_str()), tree(value)));
            JsonTree::Object(members.collect())
        }
    }
}

#[test]
fn a_borrowed_tree_is_judged_like_a_value() {
    let item = json!({
        "type": "object",
        "required": ["n"],
        "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 1}, "next": {"$ref": "#/$defs/item"}}
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "code": {"pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3},
            "kind": {"enum": ["x", 1, {"a": [1.0]}]},
            "fixed": {"const": null},
            "items": {"items": {"$ref": "#/$defs/item"}, "uniqueItems": true, "maxItems": 3}
        },
        "propertyNames": {"maxLength": 6},
        "$defs": {"item": item}
    });
    let catalogue = catalogue(&schema);
    let (mut valid, mut invalid) = (0, 0);
    for data in [
        json!({}),
        json!([]),
        json!("text"),
        json!({"id": "6f1c2b7e-8a43-4c1e-9a39-2d1a5b0c7f10", "fixed": null}),
        json!({"id": "no uuid"}),
        json!({"id": null}),
        json!({"fixed": false}),
        json!({"code": "ab"}),
        json!({"code": "a"}),
        json!({"code": "äöü"}),
        json!({"kind": "x"}),
        json!({"kind": "1"}),
        json!({"kind": 1.0}),
        json!({"kind": {"a": [1]}}),
        json!({"kind": {"a": [2]}}),
        json!({"too-long-a-name": true}),
        json!({"items": [{"n": 1}, {"n": 2, "next": {"n": 3.0}}]}),
        json!({"items": [{"n": 1}, {"n": 1.0}]}),
        json!({"items": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]}),
        json!({"items": [{"n": 0}]}),
        json!({"items": [{"n": 1.5}]}),
        json!({"items": [{"m": 1}]}),
        json!({"items": [{"n": 1, "next": {"n": 1, "next": {}}}]}),
    ] {
        let expected = catalogue.validate("test.thing.v1", &data).is_ok();
        let found = catalogue.is_valid("test.thing.v1", &tree(&data));
        assert_eq!(found, Ok(expected), "{data}");
        assert_eq!(Value::from(&tree(&data)), data);
        *if expected { &mut valid } else { &mut invalid } += 1;
    }
    assert!(valid > 5 && invalid > 10, "{valid} {invalid}");
    let unknown = catalogue.is_valid("test.thing.v2", &JsonTree::Null);
    assert!(unknown.is_err());
}

#[test]
fn an_unknown_type_is_an_error() {
    let refused = catalogue(&json!({})).validate("test.thing.v2", &json!(1));
    let expected = ValidationError::UnknownType("test.thing.v2".to_owned());
    assert_eq!(refused, Err(expected));
}

#[test]
fn references_within_the_document_are_followed() {
    let schema = json!({
        "$id": "https://schemas.example/thing",
        "properties": {
            "by_pointer": {"$ref": "#/$defs/short"},
            "by_anchor": {"$ref": "#brief"},
            "by_id": {"$ref": "embedded"}
        },
        "$defs": {
            "short": {"maxLength": 2},
            "named": {"$anchor": "brief", "maxLength": 2},
            "embedded": {"$id": "embedded", "maxLength": 2}
        }
    });
    for name in ["by_pointer", "by_anchor", "by_id"] {
        let violation = violation(&schema, &json!({name: "long"}));
        assert_eq!(violation.pointer, format!("/{name}"));
        assert_eq!(violation.keyword, "maxLength");
    }
}

#[test]
fn references_to_other_documents_are_refused() {
    for uri in [
        "https://schemas.example/other.json",
        "http://127.0.0.1:1/other.json",
        "file:///etc/passwd",
        "other.json",
        "other.json#/$defs/x",
        "urn:example:other",
    ] {
        for keyword in ["$ref", "$dynamicRef"] {
            let schema = json!({"properties": {"x": {keyword: uri}}});
            let message = refusal(&schema.to_string());
            assert!(message.contains("test.thing.v1"), "{message}");
            assert!(message.contains("under $defs"), "{message}");
            assert!(
                message.contains("other") || message.contains("passwd"),
                "{message}"
            );
        }
    }
}

#[test]
fn documents_that_are_no_usable_schema_are_refused() {
    for (schema, expected) in [
        ("{", "not JSON"),
        ("3", "3"),
        (r#"{"type": "strin"}"#, "strin"),
        (r#"{"minimum": "1"}"#, "minimum"),
        (r#"{"pattern": "("}"#, "pattern"),
        (r#"{"pattern": "(?=x)y"}"#, "pattern"),
        (r#"{"format": "date-tme"}"#, "date-tme"),
        (r##"{"$ref": "#/$defs/absent"}"##, "absent"),
        (
            r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#,
            "only https://json-schema.org/draft/2020-12",
        ),
    ] {
        let message = refusal(schema);
        assert!(message.contains(expected), "{schema}: {message}");
    }
}

#[test]
fn two_documents_for_one_type_are_refused() {
    let refused = Catalogue::from_texts([("a.v1", "{}"), ("b.v1", "{}"), ("a.v1", "{}")]);
    let message = refused.expect_err("twice").to_string();
    assert_eq!(
        message,
        "the schema of a.v1 is not usable: there are two documents for it"
    );
}

#[test]
fn a_folder_is_read_with_the_folders_below_it() {
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let below = dir.path().join("below");
    let hidden = dir.path().join("..2026");
    for folder in [&below, &hidden] {
        std::fs::create_dir(folder).expect("the folder is created");
    }
    for path in [
        dir.path().join("b.v1.schema.json"),
        below.join("a.v1.schema.json"),
        hidden.join("b.v1.schema.json"),
    ] {
        std::fs::write(path, r#"{"type": "integer"}"#).expect("the file is written");
    }
    std::fs::write(dir.path().join("notes.json"), "no schema").expect("the file is written");

    let catalogue = Catalogue::from_dir(dir.path()).expect("read");
    assert_eq!(catalogue.types().collect::<Vec<_>>(), ["a.v1", "b.v1"]);
    assert_eq!(catalogue.schema("a.v1"), Some(&json!({"type": "integer"})));
    assert_eq!(catalogue.schema("c.v1"), None);
    assert!(catalogue.validate("a.v1", &json!("1")).is_err());
}

#[test]
fn an_empty_or_missing_schema_folder_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let empty = Catalogue::from_dir(dir.path()).expect_err("empty");
    assert!(matches!(empty, SchemaError::Empty { .. }), "{empty}");
    let absent = dir.path().join("absent");
    let message = Catalogue::from_dir(&absent)
        .expect_err("absent")
        .to_string();
    assert!(message.contains(&absent.display().to_string()), "{message}");
}

#[cfg(unix)]
#[test]
fn linked_files_are_read_and_linked_folders_are_not() {
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let data = dir.path().join(".data");
    std::fs::create_dir(&data).expect("the folder is created");
    std::fs::write(data.join("a.v1.schema.json"), "{}").expect("the file is written");
    let link = |from: &Path, name: &str| {
        std::os::unix::fs::symlink(from, dir.path().join(name)).expect("linked");
    };
    link(&data.join("a.v1.schema.json"), "a.v1.schema.json");
    link(&data, "data");
    link(dir.path(), "round");

    let catalogue = Catalogue::from_dir(dir.path()).expect("read");
    assert_eq!(catalogue.types().collect::<Vec<_>>(), ["a.v1"]);
}
