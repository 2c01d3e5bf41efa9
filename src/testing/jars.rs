//! Apache Kafka's jars: downloaded from Maven Central once, kept in the user's cache, shared by every process.

use super::broker::VERSION;
use super::{StartError, shared, tool};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// 45 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// The directory with the jars of Kafka and all it needs; downloaded when it is not there.
pub(super) async fn directory() -> Result<PathBuf, StartError> {
    let cache = cache_directory();
    let libs = cache.join(format!("kafka-{VERSION}"));
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
        "downloading Apache Kafka {VERSION} from Maven Central into {}, once",
        libs.display()
    ));
    let downloaded = download(work.path()).await?;
    match std::fs::rename(&downloaded, &libs) {
        // Another process was faster.
        Err(_) if libs.is_dir() => Ok(libs),
        Err(source) => Err(StartError::State { path: libs, source }),
        Ok(()) => Ok(libs),
    }
}

async fn download(work: &Path) -> Result<PathBuf, StartError> {
    let pom = work.join("pom.xml");
    std::fs::write(&pom, project()).map_err(|source| StartError::State {
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
            StartError::java(format!(
                "{reason}; Maven is needed once, to download Kafka's jars"
            ))
        })?;
    Ok(libs)
}

/// A Maven project that is nothing but its dependencies: the broker, and somewhere for its log to go.
fn project() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>evenkeel</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#
    )
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
