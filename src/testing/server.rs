//! A server program of this machine, such as PostgreSQL or Redis, as a plain process in a temporary directory.
//!
//! Owns its start, its stop and its end: a shell on a [`Leash`] runs it, so that it ends with this process however that
//! ends. Knows neither its protocol nor its flags.

use super::leash::Leash;
use super::{StartError, tool, wait};
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// PostgreSQL needs a second for its stop, or for coming up after a crash.
const LIMIT: Duration = Duration::from_secs(60);

/// Follows the orders on its standard input, a number and a word each, and notes the number in `answered` when one is
/// carried out. When the pipe closes it kills what runs, with its children, and removes the directory `$1`.
///
/// The children are looked up before their parent dies: one that is stopped would not notice.
const FOLLOW: &str = r#"
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

/// A server that can be stopped, started again on the same port and data, and held still.
pub(super) struct Server {
    name: &'static str,
    directory: PathBuf,
    /// The signal that makes it end in good order.
    stop_signal: &'static str,
    leash: Mutex<Orders>,
}

/// The pipe to the shell, and how many orders went through it.
struct Orders {
    leash: Leash,
    given: u32,
}

impl Server {
    /// Prepares to run `command` in `directory`, which is removed in the end. Nothing runs before [`Server::start`].
    pub(super) fn new(
        name: &'static str,
        directory: TempDir,
        stop_signal: &'static str,
        command: Vec<OsString>,
    ) -> Result<Self, StartError> {
        let path = directory.path().to_owned();
        let mut arguments = vec![path.clone().into_os_string()];
        arguments.extend(command);
        let leash = Leash::hold(FOLLOW, arguments, Stdio::null())
            .map_err(|error| StartError::server(name, error.to_string()))?;
        // From here on the shell removes the directory, also when we are killed.
        let _ = directory.keep();
        Ok(Self {
            name,
            directory: path,
            stop_signal,
            leash: Mutex::new(Orders { leash, given: 0 }),
        })
    }

    /// Starts it, and returns when `serves` says so.
    pub(super) async fn start<F: Future<Output = bool>>(
        &self,
        serves: impl Fn() -> F,
    ) -> Result<(), StartError> {
        self.order("start").await?;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if serves().await {
                return Ok(());
            }
            tokio::time::sleep(wait::POLL_INTERVAL).await;
        }
        let log = std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default();
        let reason = tool::last_words(&log, "");
        Err(StartError::server(
            self.name,
            format!("it does not serve after {} s: {reason}", LIMIT.as_secs()),
        ))
    }

    /// Ends it in good order, and returns when it has ended.
    pub(super) async fn stop(&self) -> Result<(), StartError> {
        self.order(self.stop_signal).await
    }

    /// Ends it as a crash would (SIGKILL), and returns when it has ended.
    pub(super) async fn kill(&self) -> Result<(), StartError> {
        self.order("KILL").await
    }

    /// Stops it and its children where they stand (SIGSTOP): connections stay open, and nothing answers.
    pub(super) async fn freeze(&self) -> Result<(), StartError> {
        self.order("STOP").await
    }

    /// Has it go on (SIGCONT).
    pub(super) async fn thaw(&self) -> Result<(), StartError> {
        self.order("CONT").await
    }

    /// Gives the shell an order, and waits until it is carried out.
    async fn order(&self, order: &str) -> Result<(), StartError> {
        let failed = |reason: String| StartError::server(self.name, format!("{order}: {reason}"));
        let number = {
            let mut orders = self.leash.lock().unwrap_or_else(PoisonError::into_inner);
            orders.given += 1;
            let line = format!("{} {order}\n", orders.given);
            orders
                .leash
                .tell(&line)
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

/// Where `program` is: in one of `directories`, or on PATH.
pub(super) fn find(program: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    directories
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The value of an environment variable that is set and not blank.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}
