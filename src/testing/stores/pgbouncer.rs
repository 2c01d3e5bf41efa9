//! A PgBouncer in front of a PostgreSQL, for tests.

use super::postgres::{TestPostgres, command, user};
use super::server::{self, Server};
use crate::testing::StartError;
use crate::testing::certificate::Certificate;
use crate::testing::names::free_port;
use std::path::{Path, PathBuf};
use tokio::net::TcpStream;

const NAME: &str = "PgBouncer";

/// A PgBouncer that pools the server connections of a PostgreSQL by transaction. It ends when the
/// value is dropped.
///
/// Clients must connect by TLS. Session state is lost between transactions, which is the point: a
/// store that works here works behind a transaction pooler.
///
/// ```no_run
/// use evenkeel::testing::{TestPgBouncer, TestPostgres, required};
///
/// # async fn a_test() {
/// let Some(postgres) = required(TestPostgres::start().await) else { return };
/// let Some(pooler) = required(TestPgBouncer::start(&postgres, 4).await) else { return };
/// let url = format!("{}&pgbouncer=true", pooler.url("postgres"));
/// # let _ = url;
/// # }
/// ```
pub struct TestPgBouncer {
    port: u16,
    certificate: PathBuf,
    _server: Server,
}

impl std::fmt::Debug for TestPgBouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestPgBouncer")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl TestPgBouncer {
    /// Starts a PgBouncer in front of `postgres`, with at most this many server connections per
    /// database and user. Further clients wait for one. Returns when it accepts connections.
    ///
    /// # Errors
    /// If `pgbouncer` is missing or does not start.
    pub async fn start(postgres: &TestPostgres, connections: u32) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::server(NAME, reason);
        let in_files = |error: std::io::Error| failed(error.to_string());
        let program = server::find("pgbouncer", &["/usr/sbin".into()])
            .ok_or_else(|| failed("there is no pgbouncer; install pgbouncer".to_owned()))?;
        let user = user().await?;
        let id = user.as_ref().map(|user| user.id);
        let directory = tempfile::Builder::new()
            .prefix("evenkeel-pgbouncer-")
            .tempdir()
            .map_err(in_files)?;
        let path = directory.path();
        let certificate = Certificate::in_directory(path).await?;
        certificate.set_owner(id).map_err(in_files)?;
        let port = free_port().map_err(in_files)?;
        let (users, settings) = (path.join("users.txt"), path.join("pgbouncer.ini"));
        std::fs::write(&users, "\"postgres\" \"\"\n").map_err(in_files)?;
        let text = text(postgres.port(), port, connections, &users, &certificate);
        std::fs::write(&settings, text).map_err(in_files)?;
        for path in [path, &users, &settings] {
            std::os::unix::fs::chown(path, id, None).map_err(in_files)?;
        }
        let mut run = command(user.as_ref(), &program);
        run.extend(["-q".into(), settings.into_os_string()]);
        let server = Server::new(NAME, directory, "INT", run)?;
        let serves = || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
        server.start(serves).await?;
        Ok(Self {
            port,
            certificate: certificate.certificate,
            _server: server,
        })
    }

    /// The URL of a database of that PostgreSQL through this PgBouncer. It checks the server's
    /// certificate and lacks `pgbouncer=true`.
    pub fn url(&self, database: &str) -> String {
        let name = database.rsplit('/').next().unwrap_or_default();
        let name = name.split('?').next().unwrap_or_default();
        format!(
            "postgres://postgres@127.0.0.1:{}/{name}?sslmode=verify-full&sslrootcert={}",
            self.port,
            self.certificate.display()
        )
    }
}

/// The content of `pgbouncer.ini`.
fn text(
    postgres: u16,
    port: u16,
    connections: u32,
    users: &Path,
    certificate: &Certificate,
) -> String {
    format!(
        "[databases]
* = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 200
client_tls_sslmode = require
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
",
        users = users.display(),
        certificate = certificate.certificate.display(),
        key = certificate.key.display(),
    )
}
