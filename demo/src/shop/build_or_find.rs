//! The shop's programs: built first, or found beside the demo's own executable.
//!
//! Cargo sets `CARGO` for the processes it runs. Under `cargo demo` the programs are therefore
//! built with the same cargo and in the demo's profile, and cargo's messages name their paths. A
//! demo that was copied elsewhere uses the programs beside it.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Paths of the programs, by name.
pub(crate) struct Binaries {
    paths: BTreeMap<String, PathBuf>,
    /// How the programs were found, in one line.
    pub(crate) origin: String,
}

impl Binaries {
    /// Builds or finds the programs named `names`.
    pub(crate) async fn get(names: &[&str]) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot find the demo's own executable")?;
        let directory = own.parent().context("an executable is in a directory")?;
        let binaries = match std::env::var_os("CARGO") {
            Some(cargo) => build(Path::new(&cargo), directory, names).await?,
            None => beside(directory, names),
        };
        for name in names {
            if !binaries.paths.contains_key(*name) {
                bail!(
                    "the program {name} is not in {}; run `cargo demo`, which builds it",
                    directory.display()
                );
            }
        }
        Ok(binaries)
    }

    /// The path of the program `name`.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<&Path> {
        let path = self.paths.get(name).map(PathBuf::as_path);
        path.with_context(|| format!("there is no program {name}"))
    }
}

/// Builds the programs. Cargo's output goes to standard error.
///
/// The build selects the whole workspace, like the alias `cargo demo`: features are unified over
/// the selection, and another selection would compile many dependencies a second time.
async fn build(cargo: &Path, own_directory: &Path, names: &[&str]) -> anyhow::Result<Binaries> {
    let profile = profile(own_directory);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--workspace",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(["--manifest-path", manifest, "--profile", profile]);
    for name in names {
        command.args(["--bin", name]);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    if !output.status.success() {
        bail!("the shop's programs could not be built; see cargo's errors above");
    }
    let paths = executables(&String::from_utf8_lossy(&output.stdout));
    let origin = format!("built by cargo from this workspace (profile {profile})");
    Ok(Binaries { paths, origin })
}

/// The profile that corresponds to a directory below `target`.
fn profile(own_directory: &Path) -> &str {
    // The executable of a test is in `deps`, one level further down.
    let directory = match own_directory.file_name() {
        Some(name) if name == "deps" => own_directory.parent().unwrap_or(own_directory),
        _ => own_directory,
    };
    match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    }
}

/// The executables that cargo's messages name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let named = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = message.get("executable")?.as_str()?;
        let name = message.pointer("/target/name")?.as_str()?;
        Some((name.to_owned(), PathBuf::from(executable)))
    };
    messages.lines().filter_map(named).collect()
}

fn beside(directory: &Path, names: &[&str]) -> Binaries {
    let found = |name: &&str| {
        let path = directory
            .join(name)
            .with_extension(std::env::consts::EXE_EXTENSION);
        path.is_file().then(|| ((*name).to_owned(), path))
    };
    Binaries {
        paths: names.iter().filter_map(found).collect(),
        origin: format!("found in {}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_that_of_the_demos_own_directory() {
        for (directory, expected) in [
            ("/x/target/debug", "dev"),
            ("/x/target/debug/deps", "dev"),
            ("/x/target/release", "release"),
            ("/x/target/x86_64-unknown-linux-gnu/release", "release"),
            ("/x/target/bench-like", "bench-like"),
        ] {
            assert_eq!(profile(Path::new(directory)), expected, "{directory}");
        }
    }

    #[test]
    fn executables_are_those_that_cargo_names() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"shop_consumers"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"payments"},"executable":"/t/debug/payments"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let expected = [("payments".to_owned(), PathBuf::from("/t/debug/payments"))];
        assert_eq!(executables(messages), expected.into());
    }
}
