//! `schemas/openapi/gateway.json` describes this gateway: its payload schemas are those of the
//! catalogue, its problems those of the code, and its references lead to parts of it.

use evenkeel_gateway::http::ProblemKind;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every route over HTTP, as a method and a path.
const ROUTES: [(&str, &str); 10] = [
    ("get", "/events"),
    ("post", "/events"),
    ("get", "/events/{name}"),
    ("post", "/events/{name}"),
    ("get", "/openapi.json"),
    ("post", "/orders"),
    ("get", "/orders/{id}"),
    ("post", "/orders/{id}/cancellation"),
    ("get", "/problems/{name}"),
    ("get", "/ws"),
];

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> Value {
    let text = read(&schemas().join("openapi/gateway.json"));
    serde_json::from_str(&text).expect("the document is JSON")
}

/// Calls `visit` with every reference of a document.
fn references<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str)) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                visit(reference);
            }
            members
                .values()
                .for_each(|member| references(member, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, visit)),
        _ => {}
    }
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let documented: BTreeSet<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("an object of methods");
            methods
                .keys()
                .map(move |method| (method.as_str(), path.as_str()))
        })
        .collect();
    assert_eq!(documented, BTreeSet::from(ROUTES));
}

#[test]
fn the_payload_schemas_are_those_of_the_catalogue() {
    let document = document();
    let embedded = &document["components"]["schemas"];
    let mut files = 0;
    for entry in std::fs::read_dir(schemas().join("events")).expect("the folder of schemas") {
        let path = entry.expect("a file").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(ty) = name.strip_suffix(".schema.json") else {
            continue;
        };
        // A reference inside of a schema counts from the root of the document it is in.
        let own = "\"#/$defs/";
        let text = read(&path).replace(own, &format!("\"#/components/schemas/{ty}/$defs/"));
        let schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
        assert_eq!(embedded[ty], schema, "{ty}");
        files += 1;
    }
    let types = embedded.as_object().expect("schemas").keys();
    assert_eq!(types.filter(|ty| ty.starts_with("shop.")).count(), files);
}

#[test]
fn every_reference_leads_to_a_part_of_the_document() {
    let document = document();
    let mut count = 0;
    references(&document, &mut |reference| {
        let pointer = reference
            .strip_prefix('#')
            .expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
        count += 1;
    });
    assert!(count > 0);
}

#[test]
fn every_documented_problem_is_one_of_the_code() {
    let kinds = [
        ProblemKind::Malformed,
        ProblemKind::InvalidEvent,
        ProblemKind::Unauthenticated,
        ProblemKind::Forbidden,
        ProblemKind::NotFound,
        ProblemKind::MethodNotAllowed,
        ProblemKind::InProgress,
        ProblemKind::Reused,
        ProblemKind::Gone,
        ProblemKind::TooLarge,
        ProblemKind::SlowBody,
        ProblemKind::UriTooLong,
        ProblemKind::UnsupportedMediaType,
        ProblemKind::RateLimited,
        ProblemKind::Overloaded,
        ProblemKind::DeadlineExceeded,
        ProblemKind::Unavailable,
        ProblemKind::Unsupported,
        ProblemKind::Internal,
    ];
    let expected: BTreeSet<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let document = document();
    let names = document["components"]["schemas"]["ProblemName"]["enum"].as_array();
    let names = names.expect("a list").iter().filter_map(Value::as_str);
    assert_eq!(names.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn each_operation_has_an_id_of_its_own() {
    let document = document();
    let ids: Vec<&str> = ROUTES
        .iter()
        .map(|(method, path)| {
            let operation = &document["paths"][*path][*method];
            operation["operationId"].as_str().expect("an operation id")
        })
        .collect();
    let distinct: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len());
}
