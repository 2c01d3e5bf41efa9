//! Jars from Maven Central: downloaded once into the user's cache, shared by all processes.
//!
//! Maven copies them into a temporary directory beside the final one, which is then renamed. So a
//! directory under its final name is complete, and of two processes that download at the same time
//! the second discards its copy.

use crate::telemetry::say;
use crate::testing::StartError;
use crate::testing::kafka::broker::VERSION;
use crate::testing::process::subprocess;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A Maven project that only declares dependencies. The Docker image is built from the same file.
const PROJECT: &str = include_str!("../../../deploy/kafka-image/pom.xml");

/// Time limit of a download: 45 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// The directory with Kafka's jars and their dependencies. Downloads them if they are missing.
pub(in crate::testing) async fn of_kafka() -> Result<PathBuf, StartError> {
    directory(&format!("kafka-{VERSION}"), PROJECT).await
}

/// The directory with the dependencies of the Maven project `project`. Downloads them if they are
/// missing. Each `project` needs its own `name`.
pub(in crate::testing) async fn directory(
    name: &str,
    project: &str,
) -> Result<PathBuf, StartError> {
    let cache = cache_directory();
    let libs = cache.join(name);
    // The complete directory is moved into place, so its existence is sufficient.
    if libs.is_dir() {
        return Ok(libs);
    }
    std::fs::create_dir_all(&cache).map_err(|source| StartError::State {
        path: cache.clone(),
        source,
    })?;
    let work = tempfile::tempdir_in(&cache).map_err(|source| StartError::State {
        path: cache.clone(),
        source,
    })?;
    say(&format!(
        "downloading {name} from Maven Central into {}, once",
        libs.display()
    ));
    let downloaded = download(work.path(), project).await?;
    match std::fs::rename(&downloaded, &libs) {
        // Another process was faster.
        Err(_) if libs.is_dir() => Ok(libs),
        Err(source) => Err(StartError::State { path: libs, source }),
        Ok(()) => Ok(libs),
    }
}

/// Downloads the dependencies of a project into a directory below `work`, and returns its path.
async fn download(work: &Path, project: &str) -> Result<PathBuf, StartError> {
    let pom = work.join("pom.xml");
    std::fs::write(&pom, project).map_err(|source| StartError::State {
        path: pom.clone(),
        source,
    })?;
    let libs = work.join("libs");
    let output = format!("-DoutputDirectory={}", libs.display());
    let pom = pom.display().to_string();
    let arguments = [
        "--batch-mode",
        "--quiet",
        "--file",
        &pom,
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        &output,
    ];
    subprocess::output("mvn", arguments, DOWNLOAD_LIMIT)
        .await
        .map_err(|reason| {
            StartError::java(format!("{reason}; Maven is needed once, to download jars"))
        })?;
    Ok(libs)
}

/// `$XDG_CACHE_HOME/evenkeel`, else `~/.cache/evenkeel`, else a directory below the one for
/// temporary files.
fn cache_directory() -> PathBuf {
    let named = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    named("XDG_CACHE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("evenkeel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_downloaded_version_is_the_announced_one() {
        assert!(PROJECT.contains(&format!("<kafka.version>{VERSION}</kafka.version>")));
    }
}
