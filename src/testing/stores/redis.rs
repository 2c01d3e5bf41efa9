//! A Redis for tests, found or started.

use super::server::{self, Server};
use crate::testing::StartError;
use crate::testing::names::free_port;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// Names a running Redis, as `redis://user:password@host:port/database`.
const VARIABLE: &str = "EVENKEEL_REDIS_URL";

const NAME: &str = "Redis";

/// Time limit of one check.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Never dropped: the reaper stops the server when the process ends.
static SHARED: OnceCell<Result<TestRedis, String>> = OnceCell::const_new();

/// A Redis for tests. A started one ends when the value is dropped, at the latest with the process.
///
/// A started server logs its commands (`appendonly yes`), so that it keeps its keys across a stop
/// or a kill. [`redis`](fn@redis) returns the shared one. A test that stops a server starts its
/// own:
///
/// ```no_run
/// use evenkeel::testing::{TestRedis, required};
///
/// # async fn a_test() -> Result<(), evenkeel::testing::StartError> {
/// let Some(redis) = required(TestRedis::start().await) else { return Ok(()) };
/// // A suspended server keeps its connections open and answers nothing.
/// redis.freeze().await?;
/// redis.thaw().await?;
/// # Ok(())
/// # }
/// ```
pub struct TestRedis {
    url: String,
    /// None for a server that the environment names.
    server: Option<Server>,
    description: String,
}

impl std::fmt::Debug for TestRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestRedis")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// The Redis that the tests of this process share. If none is available, prints to standard error
/// why the test is skipped, and returns `None`.
///
/// Tests avoid conflicts by [`unique`](crate::testing::unique) prefixes of their keys.
///
/// ```no_run
/// # async fn a_test() {
/// let Some(redis) = evenkeel::testing::redis().await else {
///     return;
/// };
/// let url = redis.url();
/// # let _ = url;
/// # }
/// ```
///
/// # Panics
/// If no Redis is available and `EVENKEEL_REQUIRE_KAFKA=1` is set: CI must not pass by skipping.
pub async fn redis() -> Option<&'static TestRedis> {
    let find = async {
        match server::variable(VARIABLE) {
            Some(url) => TestRedis::at_named_address(url).await,
            None => TestRedis::start().await,
        }
    };
    server::shared(&SHARED, NAME, TestRedis::description, find).await
}

impl TestRedis {
    /// Starts a separate server, for tests that stop it: `redis-server` on PATH.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_with(&[]).await
    }

    /// [`TestRedis::start`] with additional arguments of `redis-server`, such as `["--maxmemory",
    /// "2mb"]`.
    ///
    /// # Errors
    /// As for [`TestRedis::start`].
    pub async fn start_with(arguments: &[&str]) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::server(NAME, reason);
        let in_files = |error: std::io::Error| failed(error.to_string());
        let program = server::find("redis-server", &[]).ok_or_else(|| {
            failed(format!(
                "{VARIABLE} is not set, and there is no redis-server on PATH; install redis-server"
            ))
        })?;
        let directory = tempfile::Builder::new()
            .prefix("evenkeel-redis-")
            .tempdir()
            .map_err(in_files)?;
        let port = free_port().map_err(in_files)?;
        let mut command = vec![program.clone().into_os_string()];
        command.extend(["--port".into(), port.to_string().into()]);
        command.extend(
            [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--dir",
            ]
            .map(Into::into),
        );
        command.push(directory.path().into());
        command.extend(arguments.iter().map(Into::into));
        let this = Self {
            url: format!("redis://127.0.0.1:{port}/"),
            server: Some(Server::new(NAME, directory, "TERM", command)?),
            description: format!("{} at 127.0.0.1:{port}", program.display()),
        };
        this.start_again().await?;
        Ok(this)
    }

    /// The server that the environment names. An error if nothing listens there: it never falls
    /// back to another one.
    async fn at_named_address(url: String) -> Result<Self, StartError> {
        let connected = tokio::time::timeout(CHECK_LIMIT, TcpStream::connect(address(&url))).await;
        let problem = match connected {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", CHECK_LIMIT.as_secs())),
        };
        match problem {
            Some(problem) => Err(StartError::server(NAME, format!("{VARIABLE}: {problem}"))),
            None => Ok(Self {
                url,
                server: None,
                description: format!("the one that {VARIABLE} names"),
            }),
        }
    }

    /// URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The kind of server, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Stops the server cleanly.
    ///
    /// # Errors
    /// If the server does not end, or if the environment named it.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.started_server()?.stop().await
    }

    /// Kills the server, as a crash does.
    ///
    /// # Errors
    /// If the server does not end, or if the environment named it.
    pub async fn kill(&self) -> Result<(), StartError> {
        self.started_server()?.kill().await
    }

    /// Starts the server again after a stop or a kill, on the same port and data. Returns when it
    /// answers.
    ///
    /// # Errors
    /// If the server does not start, or if the environment named it.
    pub async fn start_again(&self) -> Result<(), StartError> {
        let address = address(&self.url);
        self.started_server()?.start(|| answers(&address)).await
    }

    /// Suspends the server: connections remain open, and no request is answered.
    ///
    /// # Errors
    /// If the environment named the server.
    pub async fn freeze(&self) -> Result<(), StartError> {
        self.started_server()?.freeze().await
    }

    /// Resumes the server after [`TestRedis::freeze`].
    ///
    /// # Errors
    /// If the environment named the server.
    pub async fn thaw(&self) -> Result<(), StartError> {
        self.started_server()?.thaw().await
    }

    /// The started server. An error for one that the environment names: other processes may use it.
    fn started_server(&self) -> Result<&Server, StartError> {
        self.server
            .as_ref()
            .ok_or_else(|| server::not_started_here(NAME, VARIABLE, "TestRedis::start"))
    }
}

/// Host and port of a URL. The default port is Redis's.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:6379")
    }
}

/// Whether the server answers commands. It refuses them while it reads its log.
async fn answers(address: &str) -> bool {
    let look = async {
        let mut connection = TcpStream::connect(address).await.ok()?;
        connection.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await.ok()?;
        Some(&answer == b"+PONG")
    };
    tokio::time::timeout(CHECK_LIMIT, look)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::skipped_tests::required;

    async fn send_command(redis: &TestRedis, command: &str) -> Option<String> {
        let look = async {
            let mut connection = TcpStream::connect(address(redis.url())).await.ok()?;
            connection
                .write_all(format!("{command}\r\n").as_bytes())
                .await
                .ok()?;
            let mut answer = [0; 64];
            let read = connection.read(&mut answer).await.ok()?;
            Some(String::from_utf8_lossy(&answer[..read]).into_owned())
        };
        tokio::time::timeout(Duration::from_millis(500), look)
            .await
            .ok()
            .flatten()
    }

    #[tokio::test]
    async fn keys_survive_a_crash_and_a_frozen_server() {
        let Some(redis) = required(TestRedis::start().await) else {
            return;
        };
        assert_eq!(
            send_command(&redis, "SET k 7").await.as_deref(),
            Some("+OK\r\n")
        );
        for crash in [true, false] {
            match crash {
                true => redis.kill().await.expect("the process is killed"),
                false => redis.stop().await.expect("stopped"),
            }
            assert_eq!(send_command(&redis, "GET k").await, None, "it is down");
            redis.start_again().await.expect("the server starts again");
            assert_eq!(
                send_command(&redis, "GET k").await.as_deref(),
                Some("$1\r\n7\r\n")
            );
        }
        redis.freeze().await.expect("the server freezes");
        assert_eq!(send_command(&redis, "GET k").await, None, "it is frozen");
        redis.thaw().await.expect("the server thaws");
        assert_eq!(
            send_command(&redis, "GET k").await.as_deref(),
            Some("$1\r\n7\r\n")
        );
    }

    #[test]
    fn host_and_port_are_found_in_a_url() {
        for (url, expected) in [
            ("redis://127.0.0.1:16379/", "127.0.0.1:16379"),
            ("redis://user:p@ss@cache/3", "cache:6379"),
            ("rediss://cache:7000?x=1", "cache:7000"),
            ("redis://[::1]/0", "[::1]:6379"),
            ("redis://[::1]:7/0", "[::1]:7"),
        ] {
            assert_eq!(address(url), expected, "{url}");
        }
    }
}
