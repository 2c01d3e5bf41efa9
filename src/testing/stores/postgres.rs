//! A PostgreSQL for tests, found or started.

use super::server::{self, Server};
use crate::testing::certificate::Certificate;
use crate::testing::names::free_port;
use crate::testing::process::subprocess;
use crate::testing::{StartError, unique};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Names a running PostgreSQL, as `postgres://user:password@host:port/database`. Its user must be
/// allowed to create databases.
const VARIABLE: &str = "EVENKEEL_POSTGRES_URL";

const NAME: &str = "PostgreSQL";

/// Time limit of creating an empty cluster. It takes a second on an idle machine.
const INIT_LIMIT: Duration = Duration::from_secs(90);

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// PostgreSQL refuses to run as root. A root process uses the first of these users that exists.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Never dropped: the reaper stops the server when the process ends.
static SHARED: OnceCell<Result<TestPostgres, String>> = OnceCell::const_new();

/// A PostgreSQL for tests. A started one ends when the value is dropped, at the latest with the
/// process.
///
/// A started server has `fsync` on, so that measurements are realistic, and accepts 200
/// connections. [`postgres`] returns the shared one. A test that stops or suspends a server starts
/// its own:
///
/// ```no_run
/// use evenkeel::testing::{TestPostgres, required};
///
/// # async fn a_test() -> Result<(), evenkeel::testing::StartError> {
/// let Some(postgres) = required(TestPostgres::start().await) else { return Ok(()) };
/// let url = postgres.database().await?;
/// // Start the service with `url`, then take its store away:
/// postgres.kill().await?;
/// // … it has to wait, and to continue when the store is back:
/// postgres.start_again().await?;
/// # let _ = url;
/// # Ok(())
/// # }
/// ```
pub struct TestPostgres {
    /// URL without the database.
    base: String,
    /// The part of the URL after the database's name, with its question mark.
    parameters: String,
    /// The database from which others are created.
    first: String,
    psql: PathBuf,
    /// The process and the path of `pg_isready`. None for a server that the environment names.
    server: Option<(Server, PathBuf)>,
    description: String,
}

impl std::fmt::Debug for TestPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestPostgres")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// The PostgreSQL that the tests of this process share. If none is available, prints to standard
/// error why the test is skipped, and returns `None`.
///
/// The first call finds or starts it. Each test creates a database of its own, and must not stop
/// the server.
///
/// ```no_run
/// # async fn a_test() -> Result<(), evenkeel::testing::StartError> {
/// let Some(postgres) = evenkeel::testing::postgres().await else {
///     return Ok(());
/// };
/// let url = postgres.database().await?;
/// # let _ = url;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// If no PostgreSQL is available and `EVENKEEL_REQUIRE_KAFKA=1` is set: CI must not pass by
/// skipping.
pub async fn postgres() -> Option<&'static TestPostgres> {
    let find = async {
        match server::variable(VARIABLE) {
            Some(url) => TestPostgres::at_named_address(&url).await,
            None => TestPostgres::start().await,
        }
    };
    server::shared(&SHARED, NAME, TestPostgres::description, find).await
}

impl TestPostgres {
    /// Starts a separate server, for tests that stop it. Uses `initdb` and `postgres` of the newest
    /// `/usr/lib/postgresql/*/bin`, or on PATH.
    ///
    /// # Errors
    /// If these programs are missing or fail.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_with(false).await
    }

    /// [`TestPostgres::start`] with mandatory TLS. The URL of [`TestPostgres::database`] checks the
    /// server's certificate.
    ///
    /// # Errors
    /// As for [`TestPostgres::start`], and if `openssl` is missing.
    pub async fn start_with_tls() -> Result<Self, StartError> {
        Self::start_with(true).await
    }

    /// Creates a cluster in a temporary directory and starts it, as another user if this process
    /// runs as root.
    async fn start_with(tls: bool) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::server(NAME, reason);
        let in_files = |error: std::io::Error| failed(error.to_string());
        let initdb = program("initdb").ok_or_else(|| {
            failed(format!(
                "{VARIABLE} is not set, and there is no initdb in /usr/lib/postgresql/*/bin or on \
                 PATH; install postgresql"
            ))
        })?;
        let (postgres, ready) = (
            initdb.with_file_name("postgres"),
            initdb.with_file_name("pg_isready"),
        );
        let psql = program("psql")
            .ok_or_else(|| failed("there is no psql; install postgresql".to_owned()))?;
        let user = user().await?;
        let directory = tempfile::Builder::new()
            .prefix("evenkeel-postgres-")
            .tempdir()
            .map_err(in_files)?;
        if let Some(user) = &user {
            std::os::unix::fs::chown(directory.path(), Some(user.id), None).map_err(in_files)?;
        }
        let data = directory.path().join("data");
        let mut init = command(user.as_ref(), &initdb);
        init.extend(
            [
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ]
            .map(OsString::from),
        );
        init.push(data.clone().into());
        subprocess::output(&init[0], &init[1..], INIT_LIMIT)
            .await
            .map_err(failed)?;

        let port = free_port().map_err(in_files)?;
        let mut parameters = String::new();
        let mut run = command(user.as_ref(), &postgres);
        run.push("-D".into());
        run.push(data.clone().into());
        if tls {
            let certificate = Certificate::in_directory(&data).await?;
            let id = user.as_ref().map(|user| user.id);
            certificate.set_owner(id).map_err(in_files)?;
            let rules = "hostssl all all 127.0.0.1/32 trust\n";
            std::fs::write(data.join("pg_hba.conf"), rules).map_err(in_files)?;
            run.extend(["-c".into(), "ssl=on".into()]);
            let path = certificate.certificate.display();
            parameters = format!("?sslmode=verify-full&sslrootcert={path}");
        }
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            "unix_socket_directories=",
            "max_connections=200",
        ] {
            run.extend(["-c".into(), setting.into()]);
        }
        // SIGINT is PostgreSQL's fast stop: it ends sessions. SIGTERM would wait for them.
        let server = Server::new(NAME, directory, "INT", run)?;
        let this = Self {
            base: format!("postgres://postgres@127.0.0.1:{port}/"),
            parameters,
            first: "postgres".to_owned(),
            psql,
            description: format!("{} at 127.0.0.1:{port}", postgres.display()),
            server: Some((server, ready)),
        };
        this.start_again().await?;
        Ok(this)
    }

    /// The server that the environment names. An error if it does not answer: it never falls back
    /// to another one.
    async fn at_named_address(url: &str) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::server(NAME, format!("{VARIABLE}: {reason}"));
        let (address, parameters) = match url.split_once('?') {
            Some((address, parameters)) => (address, format!("?{parameters}")),
            None => (url, String::new()),
        };
        let (scheme, rest) = address.split_once("://").ok_or_else(|| {
            failed("is no URL; postgres://user:password@host:port/database".to_owned())
        })?;
        let (authority, first) = rest.split_once('/').unwrap_or((rest, ""));
        let first = if first.is_empty() { "postgres" } else { first };
        let this = Self {
            base: format!("{scheme}://{authority}/"),
            parameters,
            first: first.to_owned(),
            psql: program("psql")
                .ok_or_else(|| failed("there is no psql to create databases with".to_owned()))?,
            server: None,
            description: format!("the one that {VARIABLE} names"),
        };
        this.run("SELECT 1").await.map_err(failed)?;
        Ok(this)
    }

    /// Creates an empty database that no other test uses, and returns its URL.
    ///
    /// The database ends with a started server. On a server that the environment names, it remains.
    ///
    /// # Errors
    /// If the server does not answer, or refuses.
    pub async fn database(&self) -> Result<String, StartError> {
        let name = unique("evenkeel-test");
        self.run(&format!("CREATE DATABASE \"{name}\""))
            .await
            .map_err(|reason| StartError::server(NAME, reason))?;
        Ok(format!("{}{name}{}", self.base, self.parameters))
    }

    /// Its port on 127.0.0.1.
    pub(in crate::testing) fn port(&self) -> u16 {
        let port = self.base.trim_end_matches('/').rsplit(':').next();
        port.and_then(|port| port.parse().ok()).unwrap_or(5432)
    }

    /// The kind of server, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Stops the server cleanly, and ends its sessions.
    ///
    /// # Errors
    /// If the server does not end, or if the environment named it.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.started_server()?.0.stop().await
    }

    /// Kills the server and its sessions, as a crash does.
    ///
    /// # Errors
    /// As for [`TestPostgres::stop`].
    pub async fn kill(&self) -> Result<(), StartError> {
        self.started_server()?.0.kill().await
    }

    /// Starts the server again after a stop or a kill, on the same port and data. Returns when it
    /// answers.
    ///
    /// # Errors
    /// If the server does not start, or if the environment named it.
    pub async fn start_again(&self) -> Result<(), StartError> {
        let (server, ready) = self.started_server()?;
        let port = self.port().to_string();
        server
            .start(|| async {
                let arguments = ["-h", "127.0.0.1", "-p", &port, "-q"];
                subprocess::output(ready, arguments, COMMAND_LIMIT)
                    .await
                    .is_ok()
            })
            .await
    }

    /// Suspends the server's processes: connections remain open, and no request is answered. Linux
    /// only.
    ///
    /// # Errors
    /// If the environment named the server.
    pub async fn freeze(&self) -> Result<(), StartError> {
        self.started_server()?.0.freeze().await
    }

    /// Resumes the server after [`TestPostgres::freeze`].
    ///
    /// # Errors
    /// If the environment named the server.
    pub async fn thaw(&self) -> Result<(), StartError> {
        self.started_server()?.0.thaw().await
    }

    /// The started server. An error for one that the environment names: other processes may use it.
    fn started_server(&self) -> Result<&(Server, PathBuf), StartError> {
        self.server
            .as_ref()
            .ok_or_else(|| server::not_started_here(NAME, VARIABLE, "TestPostgres::start"))
    }

    /// Runs a statement in the first database.
    async fn run(&self, statement: &str) -> Result<String, String> {
        let url = format!("{}{}{}", self.base, self.first, self.parameters);
        let arguments = [
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--command",
            statement,
            &url,
        ];
        subprocess::output(&self.psql, arguments, COMMAND_LIMIT).await
    }
}

/// Path of a PostgreSQL program, in the newest installed version.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    let directories: Vec<PathBuf> = versions.iter().map(|path| path.join("bin")).collect();
    server::find(name, &directories)
}

/// A user of this machine.
pub(in crate::testing) struct User {
    name: &'static str,
    pub(in crate::testing) id: u32,
}

/// The user that runs the server. `None` unless this process runs as root.
pub(in crate::testing) async fn user() -> Result<Option<User>, StartError> {
    let id = async |arguments: &[&str]| -> Option<u32> {
        let printed = subprocess::output("id", arguments, COMMAND_LIMIT)
            .await
            .ok()?;
        printed.trim().parse().ok()
    };
    if id(&["-u"]).await != Some(0) {
        return Ok(None);
    }
    for name in USERS {
        if let Some(id) = id(&["-u", name]).await {
            return Ok(Some(User { name, id }));
        }
    }
    Err(StartError::server(
        NAME,
        "it refuses to be run by root, and there is no user postgres or nobody",
    ))
}

/// The beginning of a command line that runs `program` as `user`, in the started process itself and
/// not in a child of it.
pub(in crate::testing) fn command(user: Option<&User>, program: &Path) -> Vec<OsString> {
    let mut command = Vec::new();
    if let Some(user) = user {
        command.push("setpriv".into());
        command.push(format!("--reuid={}", user.name).into());
        command.push(format!("--regid={}", user.id).into());
        command.push("--clear-groups".into());
    }
    command.push(program.into());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::skipped_tests::required;

    #[tokio::test]
    async fn a_database_survives_a_crash_and_a_frozen_server() {
        let Some(postgres) = required(TestPostgres::start().await) else {
            return;
        };
        let url = postgres
            .database()
            .await
            .expect("the server creates a database");
        let ask = async |sql: &str, within: Duration| {
            let arguments = [
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--command",
                sql,
                &url,
            ];
            subprocess::output(&postgres.psql, arguments, within).await
        };
        ask(
            "CREATE TABLE t (n int); INSERT INTO t VALUES (7)",
            COMMAND_LIMIT,
        )
        .await
        .expect("a row");
        for crash in [true, false] {
            match crash {
                true => postgres.kill().await.expect("the process is killed"),
                false => postgres.stop().await.expect("stopped"),
            }
            ask("SELECT n FROM t", COMMAND_LIMIT)
                .await
                .expect_err("it is down");
            postgres
                .start_again()
                .await
                .expect("the server starts again");
            assert_eq!(
                ask("SELECT n FROM t", COMMAND_LIMIT).await.as_deref(),
                Ok("7\n")
            );
        }
        assert_eq!(
            ask("SHOW fsync", COMMAND_LIMIT).await.as_deref(),
            Ok("on\n")
        );
        postgres.freeze().await.expect("the server freezes");
        let short = Duration::from_millis(300);
        let error = ask("SELECT n FROM t", short)
            .await
            .expect_err("it is frozen");
        assert!(error.contains("did not end"), "{error}");
        postgres.thaw().await.expect("the server thaws");
        assert_eq!(
            ask("SELECT n FROM t", COMMAND_LIMIT).await.as_deref(),
            Ok("7\n")
        );
    }

    #[tokio::test]
    async fn the_shared_server_gives_each_test_its_own_database() {
        let Some(postgres) = postgres().await else {
            return;
        };
        let (first, second) = (postgres.database().await, postgres.database().await);
        assert_ne!(first.expect("a database"), second.expect("another"));
    }
}
