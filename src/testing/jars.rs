//! Jars: downloaded from Maven Central once, kept in the user's cache, shared by every process.

use super::broker::VERSION;
use super::{StartError, shared, tool};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A Maven project that is nothing but its dependencies; the image for Docker is built of the same.
const PROJECT: &str = include_str!("../../deploy/kafka-image/pom.xml");

/// 45 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// The directory with the jars of Kafka and all it needs; downloaded when it is not there.
pub(super) async fn of_kafka() -> Result<PathBuf, StartError> {
    directory(&format!("kafka-{VERSION}"), PROJECT).await
}

/// The directory with the jars that the Maven project `project` depends on; downloaded when it is not there. Another `project`
/// needs another `name`.
pub(super) async fn directory(name: &str, project: &str) -> Result<PathBuf, StartError> {
    let cache = cache_directory();
    let libs = cache.join(name);
    // The directory is moved into place when it is whole, so that its presence is enough.
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
    shared::say(&format!(
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
    tool::output("mvn", arguments, DOWNLOAD_LIMIT)
        .await
        .map_err(|reason| {
            StartError::java(format!("{reason}; Maven is needed once, to download jars"))
        })?;
    Ok(libs)
}

/// `$XDG_CACHE_HOME/evenkeel`, `~/.cache/evenkeel`, or below the directory for temporary files.
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
    fn what_is_downloaded_is_the_version_that_is_announced() {
        assert!(PROJECT.contains(&format!("<kafka.version>{VERSION}</kafka.version>")));
    }
}
