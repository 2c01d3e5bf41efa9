//! Checks of the tree's layout: what a reader relies on when opening a folder, and what no compiler
//! checks.
//!
//! [`imports`]: which file imports from which; [`readme`]: the first pages name what exists.

mod imports;
mod readme;

use imports::Imports;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The library's modules, from the lowest floor up. A module imports from lower floors only.
const FLOORS: &[&[&str]] = &[
    &["durations", "event", "signals"],
    &["failure", "schema", "telemetry"],
    &["kafka"],
    &["control"],
    &["publisher"],
    &["sql", "store_address"],
    &["postgres", "sqlite"],
    &["outbox"],
    &["inbox"],
    &["recovery"],
    &["handler"],
    &["consumer"],
    &["testing"],
];

/// Folders with more entries than [`ENTRIES_MAX`]: the library's root holds its modules.
const FULL: &[&str] = &["src"];

/// Entries that a reader takes in at a glance.
const ENTRIES_MAX: usize = 12;

/// The lists of the stores that a build has; a store has a line in each that concerns it.
const STORE_LISTS: &[&str] = &[
    "src/handler/stores.rs",
    "src/inbox/mod.rs",
    "src/lib.rs",
    "src/outbox/mod.rs",
];

const STORE_FEATURES: &[&str] = &["postgres", "redis", "sqlite"];

#[test]
fn no_file_imports_in_a_circle() {
    let mut circles = Vec::new();
    for root in roots() {
        for circle in circles_of(&imports::of_crate(&root)) {
            let names: Vec<_> = circle.iter().map(|file| short(file)).collect();
            circles.push(names.join(" "));
        }
    }
    assert!(
        circles.is_empty(),
        "import each other:\n{}",
        circles.join("\n")
    );
}

#[test]
fn modules_of_the_library_import_from_below_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, modules)| modules.iter().map(move |module| (*module, floor)))
        .collect();
    let mut wrong = BTreeSet::new();
    let mut of_crate = imports::of_crate(&root);
    of_crate.remove(&root);
    for (file, imported) in of_crate {
        for other in imported {
            let (from, to) = (module_of(&file), module_of(&other));
            let floors = floor_of.get(&*from).zip(floor_of.get(&*to));
            let (from_floor, to_floor) =
                floors.unwrap_or_else(|| panic!("{from} or {to} is on no floor"));
            if from != to && from_floor <= to_floor {
                wrong.insert(format!("{} imports from {}", short(&file), short(&other)));
            }
        }
    }
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "against FLOORS:\n{}", wrong.join("\n"));
}

#[test]
fn folders_stay_within_the_entry_limit() {
    let mut full = Vec::new();
    for_each_folder(workspace(), &mut |folder, entries| {
        let within = folder.strip_prefix(workspace()).unwrap_or(folder);
        let mut parts = within.components().map(|part| part.as_os_str());
        let is_source = parts.any(|part| part == "src" || part == "tests");
        let is_full = entries.len() > ENTRIES_MAX && !FULL.contains(&&*short(folder));
        if is_source && is_full {
            full.push(format!("{}: {}", short(folder), entries.len()));
        }
    });
    assert!(
        full.is_empty(),
        "more than {ENTRIES_MAX} entries:\n{}",
        full.join("\n")
    );
}

#[test]
fn only_the_lists_of_stores_name_their_features() {
    let mut wrong = Vec::new();
    for_each_folder(&workspace().join("src"), &mut |_, entries| {
        let is_source = |file: &&PathBuf| file.extension().is_some_and(|ext| ext == "rs");
        for file in entries.iter().filter(is_source) {
            let text = std::fs::read_to_string(file).expect("a readable source");
            let mut features = STORE_FEATURES.iter();
            let is_named = features.any(|name| text.contains(&format!("feature = \"{name}\"")));
            if is_named && !STORE_LISTS.contains(&&*short(file)) {
                wrong.push(short(file));
            }
        }
    });
    assert!(
        wrong.is_empty(),
        "name the feature of a store beside STORE_LISTS:\n{}",
        wrong.join("\n")
    );
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The root files of all crates and test programs.
fn roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for_each_folder(workspace(), &mut |folder, entries| {
        let is_crate = folder.ends_with("src");
        let is_test = folder
            .parent()
            .is_some_and(|parent| parent.ends_with("tests"));
        let names = ["lib.rs", "main.rs"]
            .into_iter()
            .filter(|_| is_crate || is_test);
        let files = names.map(|name| folder.join(name));
        roots.extend(files.filter(|file| entries.contains(file)));
    });
    assert!(roots.len() > 5, "{roots:?}");
    roots
}

/// Shows every folder of the sources with its entries.
fn for_each_folder(folder: &Path, show: &mut impl FnMut(&Path, &[PathBuf])) {
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    let entries: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && name != "target" && name != "node_modules"
        })
        .collect();
    show(folder, &entries);
    for entry in entries.iter().filter(|entry| entry.is_dir()) {
        for_each_folder(entry, show);
    }
}

/// The library's module that a file belongs to.
fn module_of(file: &Path) -> String {
    let within = short(file);
    let within = within.strip_prefix("src/").unwrap_or(&within);
    let first = within.split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

fn short(file: &Path) -> String {
    let within = file.strip_prefix(workspace()).unwrap_or(file);
    within.display().to_string()
}

/// Files that import from each other, directly or by way of others.
fn circles_of(imports: &Imports) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = imports
        .keys()
        .map(|file| (file, reached_from(file, imports)))
        .collect();
    let mut circles: Vec<BTreeSet<PathBuf>> = Vec::new();
    for (file, others) in &reached {
        let is_known = circles.iter().any(|circle| circle.contains(*file));
        if others.contains(*file) && !is_known {
            let comes_back = |other: &&PathBuf| reached[*other].contains(*file);
            circles.push(others.iter().filter(comes_back).cloned().collect());
        }
    }
    circles
}

fn reached_from(file: &Path, imports: &Imports) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Path> = vec![file];
    while let Some(next) = open.pop() {
        for other in imports.get(next).into_iter().flatten() {
            if reached.insert(other.clone()) {
                open.push(other);
            }
        }
    }
    reached
}
