//! The development Kafka as a Java process that outlives this process. It is identified by its
//! process id and its data directory.

use super::record::{self, Record, Running};
use crate::testing::kafka::broker::VERSION;
use crate::testing::kafka::java::{self, Installation};
use crate::testing::process::subprocess;
use crate::testing::{StartError, wait};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a clean stop may take before the process is killed. Kafka needs about a second.
const STOP_LIMIT: Duration = Duration::from_secs(20);

const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Starts the process with a new data directory, and returns when Kafka is ready. Stops it again if
/// Kafka does not start.
pub(super) async fn start(port: u16) -> Result<Record, StartError> {
    let installation = Installation::find().await?;
    // A killed Kafka leaves a directory with another cluster's data and ports.
    Record::remove()?;
    let directory = data_directory();
    let in_directory = |source| record::state(&directory, source);
    std::fs::create_dir_all(&directory).map_err(in_directory)?;
    let properties = java::write_properties(&directory, port, &[]).map_err(in_directory)?;
    installation.format(&properties).await?;
    let log = directory.join("kafka.log");
    let mut child = spawn(&installation, &properties, &log).map_err(in_directory)?;
    let pid = child.id();
    // Not by its command line: that is empty for a moment while `nohup` becomes `java`.
    let ended = |_: &str| matches!(child.try_wait(), Ok(Some(_)) | Err(_));
    if let Err(error) = java::await_ready(&log, ended).await {
        stop(pid).await?;
        return Err(error);
    }
    let brokers = format!("127.0.0.1:{port}");
    Ok(Record {
        description: format!(
            "Apache Kafka {VERSION} on Java {} at {brokers}, process {pid}, log: {}",
            installation.version(),
            log.display()
        ),
        running: Running::Process { pid },
        brokers,
    })
}

/// Sends SIGTERM to the process, and SIGKILL if it does not end in time.
pub(super) async fn stop(pid: u32) -> Result<(), StartError> {
    for signal in ["-TERM", "-KILL"] {
        if !is_ours(pid) {
            return Ok(());
        }
        let pid_text = pid.to_string();
        // The shell's builtin `kill`: a program of that name may be missing.
        let arguments = ["-c", r#"kill "$1" "$2""#, "sh", signal, &pid_text];
        subprocess::output("sh", arguments, COMMAND_LIMIT)
            .await
            .map_err(StartError::java)?;
        let signalled = Instant::now();
        while signalled.elapsed() < STOP_LIMIT {
            if !is_ours(pid) {
                return Ok(());
            }
            tokio::time::sleep(wait::POLL_INTERVAL).await;
        }
    }
    Err(StartError::java(format!(
        "the process {pid} did not stop, not even by SIGKILL"
    )))
}

/// Whether the process exists and is the Kafka of our directory. The process id may have been
/// reused.
pub(super) fn is_ours(pid: u32) -> bool {
    let directory = data_directory().display().to_string();
    command_line(pid).is_some_and(|line| line.contains(&directory))
}

/// Starts Kafka detached: it survives this process and its terminal.
fn spawn(installation: &Installation, properties: &Path, log: &Path) -> std::io::Result<Child> {
    let output = File::create(log)?;
    let mut command = Command::new("nohup");
    command
        .args(installation.command("kafka.Kafka", &[properties.into()]))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// The arguments of a running process. `None` if the process is gone or a zombie.
fn command_line(pid: u32) -> Option<String> {
    let line = if Path::new("/proc/self/cmdline").exists() {
        std::fs::read(format!("/proc/{pid}/cmdline")).ok()?
    } else {
        let pid = pid.to_string();
        Command::new("ps")
            .args(["-o", "command=", "-p", &pid])
            .output()
            .ok()?
            .stdout
    };
    Some(String::from_utf8_lossy(&line).into_owned())
}

fn data_directory() -> PathBuf {
    record::directory().join("kafka")
}
