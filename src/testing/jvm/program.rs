//! A program in a single Java source file, for tests that need another client or framework.

use super::maven;
use crate::testing::StartError;
use crate::testing::kafka::java;
use crate::testing::process::subprocess;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit of the check for Java.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// The jars that a Java program needs. They are downloaded once into the user's cache.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Libraries<'a> {
    /// The jars of Apache Kafka.
    Kafka,
    /// The dependencies of a Maven project.
    Project {
        /// Name of its directory in the cache. Each project needs its own name.
        name: &'a str,
        /// Content of its `pom.xml`.
        pom: &'a str,
    },
}

/// A Java source file and the jars that it needs. For tests that compare with another client or
/// exchange records with it.
///
/// ```no_run
/// use evenkeel::testing::{JavaProgram, Libraries, required};
/// use std::time::Duration;
///
/// # async fn a_test(brokers: &str) -> Result<(), evenkeel::testing::StartError> {
/// let program = JavaProgram::new("tests/Produce.java", Libraries::Kafka).await;
/// let Some(program) = required(program) else { return Ok(()) };
/// let printed = program.run(&[brokers, "orders"], Duration::from_secs(60)).await?;
/// println!("{printed}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct JavaProgram {
    source: PathBuf,
    libraries: PathBuf,
}

impl JavaProgram {
    /// Finds Java with its compiler, and downloads the jars if they are not cached.
    ///
    /// # Errors
    /// If there is no Java with a compiler, or the jars are missing and cannot be downloaded.
    pub async fn new(
        source: impl Into<PathBuf>,
        libraries: Libraries<'_>,
    ) -> Result<Self, StartError> {
        let modules = subprocess::output(java::java(), ["--list-modules"], CHECK_LIMIT).await;
        if !modules.map_err(StartError::java)?.contains("jdk.compiler") {
            return Err(StartError::java(
                "it has no compiler; install a JDK".to_owned(),
            ));
        }
        let libraries = match libraries {
            Libraries::Kafka => maven::of_kafka().await?,
            Libraries::Project { name, pom } => maven::directory(name, pom).await?,
        };
        Ok(Self {
            source: source.into(),
            libraries,
        })
    }

    /// Compiles and runs the program. Returns its standard output. The program is killed after
    /// `limit`, which includes the compilation of about a second, and when the future is dropped.
    ///
    /// # Errors
    /// If the program fails, or runs longer than `limit`.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, StartError> {
        let mut command = vec!["-cp".into(), self.libraries.join("*").into_os_string()];
        command.push(self.source.clone().into());
        command.extend(arguments.iter().map(Into::into));
        let printed = subprocess::output(java::java(), command, limit).await;
        printed.map_err(StartError::java)
    }
}
