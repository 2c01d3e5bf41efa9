//! README: what it names is there, and what it shows is what is compiled.

use std::path::PathBuf;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_promise_names_tests_that_exist() {
    let readme = read("README.md");
    let mut promises = 0;
    for row in readme.lines().filter(|line| line.starts_with("| G")) {
        promises += 1;
        let last = row.trim_end_matches(" |").rsplit(" | ").next();
        let tests: Vec<&str> = quoted(last.unwrap_or_default()).collect();
        assert!(!tests.is_empty(), "no test in: {row}");
        for test in tests {
            let (module, name) = test.split_once("::").expect("module::test");
            let source = read(&format!("tests/it/{module}.rs"));
            let (before, _) = source
                .split_once(&format!("fn {name}("))
                .unwrap_or_else(|| panic!("{test} is not in tests/it/{module}.rs"));
            let attributes = before.rsplit("\n\n").next().unwrap_or_default();
            assert!(
                attributes.contains("::test") || attributes.contains("#[test]"),
                "{test} is no test"
            );
        }
    }
    assert_eq!(promises, 10, "G1 to G10");
}

#[test]
fn the_service_shown_is_the_example_that_compiles() {
    let readme = read("README.md");
    let shown = readme
        .split_once("```rust\n")
        .and_then(|(_, after)| after.split_once("```\n"))
        .map(|(shown, _)| shown);
    assert_eq!(shown, Some(read("examples/order_mailer.rs").as_str()));
}

#[test]
fn every_file_linked_to_exists() {
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        for link in read(page).split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let is_file = !target.starts_with("http");
            assert!(!is_file || !read(target).is_empty(), "{page}: {target}");
        }
    }
}

#[test]
fn the_architecture_stays_a_page() {
    assert!(read("ARCHITECTURE.md").lines().count() <= 150);
}
