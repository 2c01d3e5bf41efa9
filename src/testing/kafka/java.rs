//! Apache Kafka as a local Java process: one broker with its own controller, on free ports of
//! 127.0.0.1.
//!
//! Its start has three steps, each a Java process or a wait: format the data directory, run the
//! broker under a reaper, and read its log until it is ready. Ports are chosen before the broker
//! binds them, so another process may be faster. Then the start is repeated with other ports.

use super::broker::{HEAP, READY_LINE, SETTINGS, VERSION, cluster_id};
use super::cluster::{ClusterOwner, Freezer};
use crate::kafka::KafkaConfig;
use crate::testing::jvm::maven;
use crate::testing::names::free_port;
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::{KafkaKind, StartError, TestKafka, wait};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The oldest Java version that Kafka's broker supports.
const OLDEST_JAVA: u32 = 17;

/// Time limit of a start. It takes 3 s on an idle machine.
pub(in crate::testing) const START_LIMIT: Duration = Duration::from_secs(90);

/// Attempts to start. Another process may take the free port before Kafka does.
const ATTEMPTS: usize = 3;

/// Runs `$3...` until our end of the pipe closes, with its process id in the file `$2`. Then removes
/// the directory `$1` unless that is empty. If Kafka ends by itself, the script writes a line to the
/// log and waits until the pipe closes, so that the log remains readable.
const RUN_SCRIPT: &str = r#"
exec 3<&0
directory=$1
pid_file=$2
shift 2
"$@" </dev/null 2>&1 3<&- &
kafka=$!
echo "$kafka" >"$pid_file"
{ read -r _ <&3; kill -KILL "$kafka"; } &
watch=$!
wait "$kafka"
kill "$watch" 2>/dev/null
echo "KAFKA HAS ENDED"
read -r _ <&3
[ -z "$directory" ] || rm -rf -- "$directory"
"#;

/// A pseudo setting of [`start`], not one of Kafka: listeners in addition to those of every test
/// broker.
pub(in crate::testing) const MORE_LISTENERS: &str = "more.listeners";

/// The line that [`RUN_SCRIPT`] writes when Kafka has ended.
const ENDED_LINE: &str = "KAFKA HAS ENDED";

/// A Java of sufficient version, and Kafka's jars.
pub(in crate::testing) struct Installation {
    java: OsString,
    version: u32,
    libs: PathBuf,
}

/// Starts a broker with these settings in addition to those of every test broker.
pub(in crate::testing) async fn start(settings: &[(&str, &str)]) -> Result<TestKafka, StartError> {
    let installation = Installation::find().await?;
    let mut attempt = 1;
    loop {
        match launch(&installation, settings).await {
            Err(error) if attempt < ATTEMPTS && error.to_string().contains("already in use") => {
                attempt += 1
            }
            launched => return launched,
        }
    }
}

/// Starts a broker whose data remains in `directory`: a new one, or the former one again at the
/// same address.
pub(in crate::testing) async fn start_in(directory: &Path) -> Result<TestKafka, StartError> {
    let failed = |error: std::io::Error| StartError::java(error.to_string());
    let installation = Installation::find().await?;
    let (port, properties) = (directory.join("port"), directory.join("server.properties"));
    if !properties.exists() {
        let free = free_port().map_err(failed)?;
        write_properties(directory, free, &[]).map_err(failed)?;
        installation.format(&properties).await?;
        std::fs::write(&port, free.to_string()).map_err(failed)?;
    }
    let port = std::fs::read_to_string(port).map_err(failed)?;
    run(&installation, directory, properties, &port, false).await
}

/// Starts a broker once, in a temporary directory that is removed at its end.
async fn launch(
    installation: &Installation,
    settings: &[(&str, &str)],
) -> Result<TestKafka, StartError> {
    let failed = |error: std::io::Error| StartError::java(error.to_string());
    let directory = tempfile::Builder::new()
        .prefix("evenkeel-kafka-")
        .tempdir()
        .map_err(failed)?;
    let port = free_port().map_err(failed)?;
    let properties = write_properties(directory.path(), port, settings).map_err(failed)?;
    installation.format(&properties).await?;
    // From here on the shell removes the directory, even if this process is killed.
    let directory = directory.keep();
    run(
        installation,
        &directory,
        properties,
        &port.to_string(),
        true,
    )
    .await
}

/// Runs the broker with these properties. With `removes`, its end removes the directory.
async fn run(
    installation: &Installation,
    directory: &Path,
    properties: PathBuf,
    port: &str,
    removes: bool,
) -> Result<TestKafka, StartError> {
    let failed = |error: std::io::Error| StartError::java(error.to_string());
    let log = directory.join("kafka.log");
    let output = File::create(&log).map_err(failed)?;
    let removed = if removes { directory } else { Path::new("") };
    let mut arguments = vec![removed.into(), directory.join("pid").into()];
    arguments.extend(installation.command("kafka.Kafka", &[properties.into()]));
    let reaper = Reaper::spawn(RUN_SCRIPT, arguments, output.into()).map_err(failed)?;
    await_ready(&log, |text| text.contains(ENDED_LINE)).await?;

    let brokers = format!("127.0.0.1:{port}");
    Ok(TestKafka {
        kind: KafkaKind::Java,
        description: format!(
            "Apache Kafka {VERSION} on Java {} at {brokers}",
            installation.version
        ),
        config: KafkaConfig::new(brokers),
        backing: ClusterOwner::Started {
            _reaper: reaper,
            freezer: Freezer::Process(directory.join("pid")),
        },
    })
}

impl Installation {
    /// Finds Java and checks its version. Downloads the jars if they are missing.
    pub(in crate::testing) async fn find() -> Result<Self, StartError> {
        let java = java();
        // Uses standard output: `java -version` writes to standard error.
        let printed = subprocess::output(&java, ["--version"], Duration::from_secs(20))
            .await
            .map_err(StartError::java)?;
        let version = major_version(&printed).ok_or_else(|| {
            StartError::java(format!(
                "cannot read its version from {:?}",
                printed.lines().next()
            ))
        })?;
        if version < OLDEST_JAVA {
            return Err(StartError::java(format!(
                "version {version} is too old, Kafka {VERSION} needs {OLDEST_JAVA}"
            )));
        }
        let libs = maven::of_kafka().await?;
        Ok(Self {
            java,
            version,
            libs,
        })
    }

    /// The major version of Java.
    pub(in crate::testing) fn version(&self) -> u32 {
        self.version
    }

    /// The command line that runs the class `main`.
    pub(in crate::testing) fn command(&self, main: &str, arguments: &[OsString]) -> Vec<OsString> {
        let mut command = vec![self.java.clone()];
        command.extend(HEAP.map(OsString::from));
        command.push("-Dorg.slf4j.simpleLogger.logFile=System.out".into());
        command.push("-cp".into());
        command.push(self.libs.join("*").into());
        command.push(main.into());
        command.extend_from_slice(arguments);
        command
    }

    /// Formats the directory in `properties` for a new cluster.
    pub(in crate::testing) async fn format(&self, properties: &Path) -> Result<(), StartError> {
        let arguments = [
            "format".into(),
            "-t".into(),
            cluster_id().into(),
            "-c".into(),
            properties.into(),
        ];
        let command = self.command("kafka.tools.StorageTool", &arguments);
        subprocess::output(&command[0], &command[1..], START_LIMIT)
            .await
            .map_err(|reason| StartError::java(format!("formatting the storage: {reason}")))?;
        Ok(())
    }
}

/// The Java program: of `JAVA_HOME` if set, else on PATH.
pub(in crate::testing) fn java() -> OsString {
    let home = std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    home.map_or_else(
        || "java".into(),
        |home| Path::new(&home).join("bin/java").into_os_string(),
    )
}

/// Writes `server.properties` with `settings` into `directory`, which also receives the data. The
/// controller uses a free port.
pub(in crate::testing) fn write_properties(
    directory: &Path,
    port: u16,
    settings: &[(&str, &str)],
) -> std::io::Result<PathBuf> {
    let controller = free_port()?;
    let internal = free_port()?;
    let more = settings.iter().find(|(name, _)| *name == MORE_LISTENERS);
    let more = more.map_or_else(String::new, |(_, listeners)| format!(",{listeners}"));
    let mut text = format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},BROKER://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}{more}\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         log.dirs={}\n",
        directory.join("data").display()
    );
    let settings = settings.iter().filter(|(name, _)| *name != MORE_LISTENERS);
    for (name, value) in SETTINGS.iter().chain(settings) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={value}");
    }
    let path = directory.join("server.properties");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Reads the log until Kafka is ready. Fails with the most relevant log line if Kafka has `ended`
/// or takes too long.
pub(in crate::testing) async fn await_ready(
    log: &Path,
    mut ended: impl FnMut(&str) -> bool,
) -> Result<(), StartError> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).map_err(|source| StartError::State {
            path: log.to_owned(),
            source,
        })?;
        if text.contains(READY_LINE) {
            return Ok(());
        }
        if ended(&text) {
            return Err(StartError::java(format!(
                "Kafka ended: {}",
                likely_cause(&text)
            )));
        }
        if started.elapsed() > START_LIMIT {
            return Err(StartError::java(format!(
                "Kafka is not ready after {} s: {}",
                START_LIMIT.as_secs(),
                likely_cause(&text)
            )));
        }
        tokio::time::sleep(wait::POLL_INTERVAL).await;
    }
}

/// The log line that most likely contains the cause of a failure.
fn likely_cause(log: &str) -> &str {
    ["already in use", "Exception", "Error", "ERROR"]
        .into_iter()
        .find_map(|sign| log.lines().find(|line| line.contains(sign)))
        .unwrap_or_else(|| subprocess::last_line(log, ""))
        .trim()
}

/// `17` from `openjdk 17.0.15 2025-04-15`.
fn major_version(printed: &str) -> Option<u32> {
    let number = printed.split_whitespace().nth(1)?;
    number.split(['.', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_vendors_print() {
        for (printed, expected) in [
            (
                "openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment",
                Some(17),
            ),
            ("java 21 2023-09-19 LTS", Some(21)),
            ("openjdk 24-ea 2025-03-18", Some(24)),
            ("Unrecognized option: --version", None),
            ("", None),
        ] {
            assert_eq!(major_version(printed), expected, "{printed}");
        }
    }

    #[test]
    fn the_complaint_is_the_bind_failure_not_its_consequences() {
        let log = "[main] INFO starting\n[main] ERROR x\nKafkaException: Address already in use.\n[main] INFO bye\n";
        assert_eq!(likely_cause(log), "KafkaException: Address already in use.");
        assert_eq!(likely_cause("one\ntwo\n"), "two");
    }
}
