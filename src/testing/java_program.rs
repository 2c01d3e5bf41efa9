//! A program in one Java source file, for tests that need another client or framework beside ours.

use super::{StartError, jars, java, tool};
use std::path::PathBuf;
use std::time::Duration;

/// How long a look at Java may take.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// What a Java program needs beside Java.
#[derive(Debug, Clone, Copy)]
pub enum Libraries<'a> {
    /// The jars of Apache Kafka.
    Kafka,
    /// What a Maven project depends on.
    Project {
        /// The name under which it is kept; another project needs another name.
        name: &'a str,
        /// Its `pom.xml`.
        pom: &'a str,
    },
}

/// A Java source file and the jars that it needs.
#[derive(Debug, Clone)]
pub struct JavaProgram {
    source: PathBuf,
    libraries: PathBuf,
}

impl JavaProgram {
    /// Looks for Java with its compiler, and fetches the jars, once.
    ///
    /// # Errors
    /// Where there is no such Java, or the jars are not there and cannot be fetched.
    pub async fn new(
        source: impl Into<PathBuf>,
        libraries: Libraries<'_>,
    ) -> Result<Self, StartError> {
        let modules = tool::output(java::java(), ["--list-modules"], LOOK_LIMIT).await;
        if !modules.map_err(StartError::java)?.contains("jdk.compiler") {
            return Err(StartError::java(
                "it has no compiler; install a JDK".to_owned(),
            ));
        }
        let libraries = match libraries {
            Libraries::Kafka => jars::of_kafka().await?,
            Libraries::Project { name, pom } => jars::directory(name, pom).await?,
        };
        Ok(Self {
            source: source.into(),
            libraries,
        })
    }

    /// Compiles and runs it, and returns what it printed.
    ///
    /// # Errors
    /// When the program fails or takes longer than `limit`.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, StartError> {
        let mut command = vec!["-cp".into(), self.libraries.join("*").into_os_string()];
        command.push(self.source.clone().into());
        command.extend(arguments.iter().map(Into::into));
        let printed = tool::output(java::java(), command, limit).await;
        printed.map_err(StartError::java)
    }
}
