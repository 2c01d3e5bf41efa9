//! The development Kafka as a Java process that outlives us, known by its process id and by its data directory.

use super::record::{self, Record, Running};
use crate::testing::broker::VERSION;
use crate::testing::java::{self, Installation};
use crate::testing::{StartError, tool, wait};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A clean stop takes Kafka about a second.
const STOP_LIMIT: Duration = Duration::from_secs(20);

const COMMAND_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn start(port: u16) -> Result<Record, StartError> {
    let installation = Installation::find().await?;
    // A directory left by a Kafka that was killed holds another cluster's data and ports.
    Record::remove()?;
    let directory = data_directory();
    let in_directory = |source| record::state(&directory, source);
    std::fs::create_dir_all(&directory).map_err(in_directory)?;
    let properties = java::write_properties(&directory, port, &[]).map_err(in_directory)?;
    installation.format(&properties).await?;
    let log = directory.join("kafka.log");
    let mut child = spawn(&installation, &properties, &log).map_err(in_directory)?;
    let pid = child.id();
    // Not by its command line, which is empty for a moment while `nohup` becomes `java`.
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

/// Asks the process to stop, and kills it when it does not.
pub(super) async fn stop(pid: u32) -> Result<(), StartError> {
    for signal in ["-TERM", "-KILL"] {
        if !is_ours(pid) {
            return Ok(());
        }
        let pid_text = pid.to_string();
        // The shell's own `kill`: there need not be a program of that name.
        let arguments = ["-c", r#"kill "$1" "$2""#, "sh", signal, &pid_text];
        tool::output("sh", arguments, COMMAND_LIMIT)
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
    Err(StartError::java(format!("the process {pid} does not end")))
}

/// Whether the process exists and is the Kafka of our directory: its id may have gone to another since.
pub(super) fn is_ours(pid: u32) -> bool {
    let directory = data_directory().display().to_string();
    command_line(pid).is_some_and(|line| line.contains(&directory))
}

/// Starts Kafka so that neither our end nor that of the terminal reaches it.
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

/// The arguments of a running process; none when it is gone or only waits to be reaped.
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
