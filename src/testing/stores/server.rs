//! A local server program, such as PostgreSQL or Redis, as a plain process in a temporary
//! directory.
//!
//! Owns its start, stop and end. A shell on a [`Reaper`] runs it, so that it ends with this process
//! however that ends. Independent of the server's protocol and flags.
//!
//! This process sends commands through the pipe that the reaper holds, one a line with a number.
//! The shell is the parent of the server, so it alone can wait for its end. It answers by writing
//! the number into a file, which this process polls. The file is moved into place, so that no
//! partial number is read. A command that is not answered within the limit is an error, and the
//! shell may still carry it out.

use crate::telemetry::say;
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::skipped_tests::required;
use crate::testing::{StartError, wait};
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Time limit of a start or stop. PostgreSQL needs a second for a stop or a crash recovery.
const LIMIT: Duration = Duration::from_secs(60);

/// Executes the commands on its standard input, a number and a word each, and writes the number to
/// `answered` when one is done. When the pipe closes, it kills the server with its children and
/// removes the directory `$1`.
///
/// It lists the children before it kills their parent: a suspended child would not notice the
/// parent's death.
///
/// If this process dies while the server is suspended, the system sends SIGHUP to the orphaned
/// process group. The shell must survive that to clean up.
const COMMAND_LOOP: &str = r#"
trap : HUP
directory=$1
shift
server=
exec 3<&0
family() {
  cat "/proc/$server/task/$server/children" 2>/dev/null
}
while read -r number order <&3; do
  case $order in
    start) "$@" </dev/null >>"$directory/server.log" 2>&1 3<&- & server=$! ;;
    STOP) kill -STOP "$server" && for child in $(family); do kill -STOP "$child"; done ;;
    CONT) for child in $(family); do kill -CONT "$child"; done; kill -CONT "$server" ;;
    *) children=$(family); kill "-$order" "$server"
       [ "$order" != KILL ] || for child in $children; do kill -KILL "$child"; done
       wait "$server"; server= ;;
  esac
  echo "$number" >"$directory/answered.part" && mv "$directory/answered.part" "$directory/answered"
done
if [ -n "$server" ]; then
  children=$(family)
  kill -KILL "$server"
  for child in $children; do kill -KILL "$child"; done
  wait "$server"
fi
rm -rf -- "$directory"
"#;

/// A server that can be stopped, started again on the same port and data, and suspended.
pub(in crate::testing) struct Server {
    name: &'static str,
    directory: PathBuf,
    /// The signal for a clean stop.
    stop_signal: &'static str,
    orders: Mutex<CommandPipe>,
}

/// The pipe to the shell, and the number of commands sent through it.
struct CommandPipe {
    reaper: Reaper,
    given: u32,
}

impl Server {
    /// Prepares to run `command` in `directory`, which is removed at the end. Nothing runs before
    /// [`Server::start`].
    pub(in crate::testing) fn new(
        name: &'static str,
        directory: TempDir,
        stop_signal: &'static str,
        command: Vec<OsString>,
    ) -> Result<Self, StartError> {
        let path = directory.path().to_owned();
        let mut arguments = vec![path.clone().into_os_string()];
        arguments.extend(command);
        let reaper = Reaper::spawn(COMMAND_LOOP, arguments, Stdio::null())
            .map_err(|error| StartError::server(name, error.to_string()))?;
        // From here on the shell removes the directory, even if this process is killed.
        let _ = directory.keep();
        Ok(Self {
            name,
            directory: path,
            stop_signal,
            orders: Mutex::new(CommandPipe { reaper, given: 0 }),
        })
    }

    /// Starts the server. Returns when `serves` returns true. If it does not within the limit, the
    /// error has the last line of the server's log, and the server keeps running until the drop.
    pub(in crate::testing) async fn start<F: Future<Output = bool>>(
        &self,
        serves: impl Fn() -> F,
    ) -> Result<(), StartError> {
        self.send_command("start").await?;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if serves().await {
                return Ok(());
            }
            tokio::time::sleep(wait::POLL_INTERVAL).await;
        }
        let log = std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default();
        let reason = subprocess::last_line(&log, "");
        Err(StartError::server(
            self.name,
            format!("it is not ready after {} s: {reason}", LIMIT.as_secs()),
        ))
    }

    /// Stops the server cleanly. Returns when it has ended.
    pub(in crate::testing) async fn stop(&self) -> Result<(), StartError> {
        self.send_command(self.stop_signal).await
    }

    /// Kills the server (SIGKILL), as a crash does. Returns when it has ended.
    pub(in crate::testing) async fn kill(&self) -> Result<(), StartError> {
        self.send_command("KILL").await
    }

    /// Suspends the server and its children (SIGSTOP): connections remain open, and no request is
    /// answered.
    pub(in crate::testing) async fn freeze(&self) -> Result<(), StartError> {
        self.send_command("STOP").await
    }

    /// Resumes the server and its children (SIGCONT).
    pub(in crate::testing) async fn thaw(&self) -> Result<(), StartError> {
        self.send_command("CONT").await
    }

    /// Sends a command to the shell and waits until it is done.
    async fn send_command(&self, order: &str) -> Result<(), StartError> {
        let failed = |reason: String| StartError::server(self.name, format!("{order}: {reason}"));
        let number = {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            orders.given += 1;
            let line = format!("{} {order}\n", orders.given);
            orders
                .reaper
                .write_line(&line)
                .map_err(|error| failed(error.to_string()))?;
            orders.given
        };
        let answered = self.directory.join("answered");
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let last = std::fs::read_to_string(&answered).unwrap_or_default();
            if last.trim().parse().is_ok_and(|last: u32| last >= number) {
                return Ok(());
            }
            tokio::time::sleep(wait::POLL_INTERVAL).await;
        }
        Err(failed(format!("not done within {} s", LIMIT.as_secs())))
    }
}

/// The server that the tests of this process share: the one in `cell`, which the first call finds
/// or starts by `find`. If none is available, prints why the test is skipped, and returns `None`.
///
/// # Panics
/// As [`required`] does.
pub(super) async fn shared<T: 'static>(
    cell: &'static OnceCell<Result<T, String>>,
    name: &'static str,
    description: fn(&T) -> &str,
    find: impl Future<Output = Result<T, StartError>>,
) -> Option<&'static T> {
    let shared = cell.get_or_init(move || async move {
        let found = find.await;
        if let Ok(server) = &found {
            say(&format!("{name} for these tests: {}", description(server)));
        }
        found.map_err(|error| error.reason())
    });
    let shared = shared.await.as_ref();
    required(shared.map_err(|reason| StartError::server(name, reason)))
}

/// The error of a stop or start of a server that the environment names by `variable`: other
/// processes may use it. `start` is what a test calls for a server of its own.
pub(super) fn not_started_here(name: &'static str, variable: &str, start: &str) -> StartError {
    let reason = format!("a test must not stop the server that {variable} names; use {start}");
    StartError::server(name, reason)
}

/// Path of `program`: in one of `directories`, or on PATH.
pub(in crate::testing) fn find(program: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    directories
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The value of an environment variable. `None` if it is not set or blank.
pub(in crate::testing) fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}
