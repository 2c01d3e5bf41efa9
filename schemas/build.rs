//! Writes one test per file below `examples/`, so that each example passes or fails under its own
//! name.
//!
//! `examples/<event type>/valid-<what>.json` becomes `<event_type>::valid_<what>`, which calls
//! `super::valid` with the event type and the file's text; likewise for `invalid-`. A file with any
//! other name fails the build, because no test would read it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=examples");
    let mut tests = String::new();
    for folder in entries(Path::new("examples"))? {
        let ty = name(&folder);
        let module = identifier(ty);
        writeln!(tests, "mod {module} {{").map_err(io::Error::other)?;
        for file in entries(&folder)? {
            tests += &test(ty, &file)?;
        }
        tests += "}\n";
    }
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("examples.rs"), tests)
}

fn test(ty: &str, file: &Path) -> io::Result<String> {
    let stem = name(file).strip_suffix(".json").unwrap_or_default();
    let check = match stem.split_once('-') {
        Some((check @ ("valid" | "invalid"), _)) => check,
        _ => {
            let message = format!(
                "{} is not named valid-*.json or invalid-*.json",
                file.display()
            );
            return Err(io::Error::other(message));
        }
    };
    let function = identifier(stem);
    let path = file.display();
    Ok(format!(
        "    #[test]\n    fn {function}() {{\n        super::{check}({ty:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{path}\")));\n    }}\n"
    ))
}

/// What is in a folder, sorted, so that the same files give the same tests.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn identifier(text: &str) -> String {
    text.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}
