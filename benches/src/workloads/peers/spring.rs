//! The contestant `spring-kafka`: the Maven project in `benches/peers/spring`, which is built when
//! its jar is missing or older than its sources.

use super::work::{RESULTS, Work};
use crate::spec::Spec;
use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::process::Command;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/spring");
const JAR: &str = "target/peers-spring.jar";
/// What is missing, and what to do instead.
const NEEDS: &str = "spring-kafka needs Maven (mvn) and a JDK, 17 or newer: install both, or name \
                     the other contestants with --contestant";

/// The command that runs the service. Builds its jar if necessary.
pub(super) fn command(spec: &Spec, database: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    command.arg("-jar").arg(jar(Path::new(PROJECT))?);
    command.args(arguments(spec, &Work::new(spec, database))?);
    Ok(command)
}

/// The properties of the service that only a turn knows.
fn arguments(spec: &Spec, work: &Work) -> anyhow::Result<[String; 6]> {
    let database: PgConnectOptions = work.database.parse()?;
    let (host, port) = (database.get_host(), database.get_port());
    let name = database.get_database().context("the URL has a database")?;
    Ok([
        format!("--spring.kafka.bootstrap-servers={}", spec.brokers),
        format!("--spring.kafka.consumer.group-id={}", work.group),
        format!("--spring.datasource.url=jdbc:postgresql://{host}:{port}/{name}"),
        format!("--spring.datasource.username={}", database.get_username()),
        format!("--peers.topic={}", spec.topic),
        format!("--peers.results={RESULTS}"),
    ])
}

/// The jar of the project at this path.
fn jar(project: &Path) -> anyhow::Result<PathBuf> {
    let jar = project.join(JAR);
    if is_current(&jar, project).with_context(|| format!("cannot read {}", project.display()))? {
        return Ok(jar);
    }
    eprintln!("building {}", jar.display());
    let built = std::process::Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(project.join("pom.xml"))
        .arg("package")
        .stdout(io::stderr())
        .status();
    let built = built.context(NEEDS)?;
    if !built.success() {
        bail!("mvn package ended with {built}; {NEEDS}");
    }
    Ok(jar)
}

/// Whether the jar exists and is not older than any source of the project.
fn is_current(jar: &Path, project: &Path) -> io::Result<bool> {
    let Ok(built) = jar.metadata().and_then(|jar| jar.modified()) else {
        return Ok(false);
    };
    let pom = project.join("pom.xml").metadata()?.modified()?;
    Ok(built >= pom.max(newest(&project.join("src"))?))
}

/// When the newest file below this folder was changed.
fn newest(folder: &Path) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in folder.read_dir()? {
        let entry = entry?;
        let changed = if entry.file_type()?.is_dir() {
            self::newest(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use std::fs::File;
    use std::time::Duration;

    #[test]
    fn a_jar_older_than_a_source_is_not_current() {
        let project = tempfile::tempdir().expect("a temporary folder is created");
        let at = |name: &str| project.path().join(name);
        for folder in ["src/main/java", "target"] {
            std::fs::create_dir_all(at(folder)).expect("it is writable");
        }
        let write = |name: &str, seconds| {
            let file = File::create(at(name)).expect("it is writable");
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(time).expect("a file of ours");
        };
        let is_current = || is_current(&at(JAR), project.path()).expect("it is readable");
        write("pom.xml", 1_000);
        write("src/main/java/Service.java", 1_000);
        assert!(!is_current(), "there is no jar");
        write(JAR, 2_000);
        assert!(is_current());
        write("src/main/java/Service.java", 3_000);
        assert!(!is_current(), "a source is newer");
        write("src/main/java/Service.java", 1_000);
        write("pom.xml", 3_000);
        assert!(!is_current(), "the project is newer");
    }

    #[test]
    fn the_service_gets_the_database_as_a_jdbc_url() {
        let spec = Spec {
            workload: Workload::Peers,
            contestant: "spring-kafka".to_owned(),
            brokers: "127.0.0.1:9092".to_owned(),
            topic: "orders".to_owned(),
            data: crate::workloads::throughput::consume::DATA,
            properties: Vec::new(),
        };
        let work = Work::new(&spec, "postgres://postgres@127.0.0.1:5433/bench_1");
        let arguments = arguments(&spec, &work).expect("the URL has a database");
        let url = "--spring.datasource.url=jdbc:postgresql://127.0.0.1:5433/bench_1";
        assert!(arguments.iter().any(|argument| argument == url));
    }
}
