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
            let (module, name) = test.rsplit_once("::").expect("module::test");
            let file = format!("tests/it/{}.rs", module.replace("::", "/"));
            let source = read(&file);
            let (before, _) = source
                .split_once(&format!("fn {name}("))
                .unwrap_or_else(|| panic!("{test} is not in {file}"));
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

/// The block of this language that is shown first.
fn block(page: &str, language: &str) -> String {
    let text = read(page).replace("//! ", "");
    let (_, after) = text
        .split_once(&format!("```{language}\n"))
        .unwrap_or_else(|| panic!("no {language} in {page}"));
    let (block, _) = after.split_once("```").expect("a block ends");
    block.to_owned()
}

/// Name and features of the dependencies in a block.
fn dependencies(toml: &str) -> Vec<(String, Option<String>, Vec<String>)> {
    let quoted = |text: &str| {
        let words = text.split('"').skip(1).step_by(2);
        words.map(str::to_owned).collect::<Vec<String>>()
    };
    let lines = toml.lines().filter_map(|line| line.split_once(" = { "));
    lines
        .map(|(name, value)| {
            let (rest, features) = value.split_once("features").unwrap_or((value, ""));
            let version = rest.contains("version").then(|| quoted(rest).remove(0));
            (name.to_owned(), version, quoted(features))
        })
        .collect()
}

#[test]
fn the_dependencies_shown_are_all_that_the_service_needs() {
    let shown = block("README.md", "toml");
    assert_eq!(shown, block("src/lib.rs", "toml"), "README and front page");
    let service = read("examples/order_mailer.rs");
    let manifest = read("Cargo.toml");
    let workspace = dependencies(&manifest);
    let shown = dependencies(&shown);
    // Whatever the service names by its path is a dependency.
    for word in service.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let Some((root, _)) = word.split_once("::") else {
            continue;
        };
        let is_crate = root.starts_with(|c: char| c.is_ascii_lowercase());
        let is_ours =
            ["std", "sqlx"].contains(&root) || shown.iter().any(|(name, ..)| name == root);
        assert!(!is_crate || is_ours, "{root} of {word}");
    }
    assert!(
        service.contains("use evenkeel::sqlx;"),
        "no crate sqlx is asked for"
    );
    for (name, version, features) in shown {
        if name == "evenkeel" {
            for feature in features {
                let line = format!("\n{feature} = [");
                assert!(manifest.contains(&line), "no feature {feature}");
            }
            continue;
        }
        let ours = workspace.iter().find(|(ours, ..)| *ours == name);
        let (_, our_version, _) = ours.unwrap_or_else(|| panic!("{name} is none of ours"));
        assert_eq!(&version, our_version, "{name}");
        if name == "tokio" {
            let needed = ["macros", "rt-multi-thread"].map(str::to_owned);
            assert_eq!(features, needed, "for tokio::main");
        }
    }
    let sqlx = workspace.iter().find(|(name, ..)| name == "sqlx");
    let sqlx = sqlx.and_then(|(_, version, _)| version.clone());
    assert_eq!(
        sqlx.as_deref(),
        Some("0.9.0"),
        "README and front page say 0.9"
    );
}

#[test]
fn the_front_page_lists_every_feature() {
    let (front, manifest) = (read("src/lib.rs"), read("Cargo.toml"));
    let (_, features) = manifest.split_once("[features]\n").expect("features");
    let (features, _) = features.split_once("\n\n").expect("an end");
    let names = features.lines().filter_map(|line| line.split_once(" = ["));
    for name in names
        .map(|(name, _)| name)
        .filter(|name| *name != "default")
    {
        assert!(front.contains(&format!("//! | `{name}`")), "{name}");
    }
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
