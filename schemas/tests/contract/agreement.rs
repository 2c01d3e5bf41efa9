//! Every type has its document, its examples and its place on a declared topic, and nothing is left over.

use crate::events;
use crate::examples::Invalid;
use evenkeel::schema::Catalogue;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

fn types() -> Vec<&'static str> {
    let types: BTreeSet<_> = events::all().iter().map(|facts| facts.ty).collect();
    types.into_iter().collect()
}

#[test]
fn every_type_has_a_document_and_every_document_a_type() {
    let embedded = shop_schemas::catalogue().expect("compiles");
    assert_eq!(embedded.types().collect::<Vec<_>>(), types());
    let read = Catalogue::from_dir(&folder("events")).expect("compiles");
    assert_eq!(read.types().collect::<Vec<_>>(), types());
    for ty in types() {
        assert_eq!(embedded.schema(ty), read.schema(ty), "{ty}");
        let title = embedded.schema(ty).map(|document| &document["title"]);
        assert_eq!(title, Some(&ty.into()), "the title of {ty}");
    }
}

#[test]
fn every_document_with_lines_rejects_more_than_the_most() {
    let documents = shop_schemas::catalogue().expect("compiles");
    let mut with_lines = 0;
    for ty in types() {
        let lines = documents
            .schema(ty)
            .and_then(|document| document.pointer("/properties/lines"));
        if let Some(lines) = lines {
            with_lines += 1;
            assert_eq!(lines["maxItems"], shop_schemas::LINES_MAX, "{ty}");
        }
    }
    assert_eq!(with_lines, 4, "the events with lines");
}

#[test]
fn every_type_has_two_valid_and_four_differently_invalid_examples() {
    assert_eq!(names(&folder("examples")), types());
    for ty in types() {
        let examples = folder("examples").join(ty);
        let (valid, invalid): (Vec<_>, Vec<_>) = names(&examples)
            .into_iter()
            .partition(|name| name.starts_with("valid-"));
        let reasons: BTreeSet<_> = invalid
            .iter()
            .map(|name| {
                let text = fs::read_to_string(examples.join(name)).expect("the file is readable");
                let example: Invalid = serde_json::from_str(&text).expect(name);
                example.refused
            })
            .collect();
        assert!(valid.len() >= 2, "{ty}: {valid:?}");
        assert!(reasons.len() >= 4, "{ty}: {reasons:?}");
        assert_eq!(
            reasons.len(),
            invalid.len(),
            "{ty} has two examples for one reason"
        );
    }
}

#[test]
fn each_topic_declares_exactly_the_types_published_on_it() {
    let mut declared = Vec::new();
    for topic in shop_schemas::topics() {
        for event in &topic.events {
            declared.push((event.as_str(), topic.name.as_str()));
        }
    }
    declared.sort_unstable();
    let mut expected = events::all().map(|facts| (facts.ty, facts.topic));
    expected.sort_unstable();
    assert_eq!(declared, expected);
}

#[test]
fn every_declaration_is_embedded_under_its_name() {
    let embedded: Vec<_> = shop_schemas::topics()
        .iter()
        .map(|topic| format!("{}.json", topic.name))
        .collect();
    assert_eq!(embedded, names(&folder("topics")));
}

#[test]
fn every_topic_can_be_created_and_is_written_and_read() {
    for topic in shop_schemas::topics() {
        assert!(topic.partitions >= 1, "{topic:?}");
        assert!(
            topic.retention_ms == -1 || topic.retention_ms > 0,
            "{topic:?}"
        );
        assert!(!topic.producers.is_empty(), "{topic:?}");
        assert!(!topic.consumers.is_empty(), "{topic:?}");
    }
}
