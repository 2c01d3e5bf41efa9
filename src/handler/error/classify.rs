//! The default classifier: the classes of the errors of common libraries.
//!
//! It decides by types and codes, never by text. The first known error of the chain decides, so
//! that a wrapper has the class of the error it wraps.

use crate::failure::causes;
use crate::handler::deadline::TooSlow;
use crate::handler::{Class, Classifier, HttpStatus};
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

/// The classifier of a consumer that has no other one
/// ([`Consumer::with_classifier`](crate::consumer::Consumer::with_classifier)). It knows the errors
/// of I/O, HTTP, JSON, timeouts and, with their features, of sqlx and reqwest, also inside wrapping
/// errors. An unknown error is [`Class::Transient`].
///
/// | error | class |
/// |---|---|
/// | `serde_json::Error` | permanent |
/// | `Elapsed` of tokio and tower, `handler_timeout` | timeout |
/// | [`HttpStatus`] | by its table |
/// | I/O: connection refused, reset or broken; host, network or disk unavailable | outage |
/// | I/O: timed out, would block | timeout |
/// | I/O: invalid input or data, unsupported | permanent |
/// | reqwest: no connection; no answer; a status | outage; timeout; as [`HttpStatus`] |
/// | sqlx: no connection, a server or file out of order | outage |
/// | sqlx: constraint violated, value that cannot be encoded or decoded | permanent |
/// | PostgreSQL: statement or transaction exceeded its time limit | timeout |
/// | any other | transient |
///
/// A classifier of a service classifies the errors it knows and calls this one for the others:
///
/// ```
/// use evenkeel::handler::{Class, Classifier, default_classifier};
/// use std::sync::Arc;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the limit of the account is reached")]
/// struct LimitReached;
///
/// let known = default_classifier();
/// let classifier: Classifier = Arc::new(move |error| match error.downcast_ref::<LimitReached>() {
///     Some(_) => Class::Permanent,
///     None => known(error),
/// });
/// assert_eq!(classifier(&LimitReached), Class::Permanent);
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(classifier(&refused), Class::Outage);
/// ```
pub fn default_classifier() -> Classifier {
    Arc::new(|error| {
        let known = causes(error).find_map(known);
        known.unwrap_or(Class::Transient)
    })
}

/// The class of one error of a chain. None for a type or a code without a meaning of its own: the
/// next cause decides.
fn known(error: &(dyn Error + 'static)) -> Option<Class> {
    if error.is::<serde_json::Error>() {
        return Some(Class::Permanent);
    }
    if error.is::<TooSlow>()
        || error.is::<tower::timeout::error::Elapsed>()
        || error.is::<tokio::time::error::Elapsed>()
    {
        return Some(Class::Timeout);
    }
    if let Some(status) = error.downcast_ref::<HttpStatus>() {
        return Some(status.class());
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return known_io(error);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return known_reqwest(error);
    }
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    if let Some(error) = error.downcast_ref::<sqlx::Error>() {
        return known_sqlx(error);
    }
    None
}

fn known_io(error: &std::io::Error) -> Option<Class> {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem => Some(Class::Outage),
        // A socket with a timeout of its own returns `WouldBlock`.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(Class::Timeout),
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Unsupported => {
            Some(Class::Permanent)
        }
        // A wrapper without a meaning of its own.
        ErrorKind::Other => None,
        _ => Some(Class::Transient),
    }
}

/// A failed connection attempt is an outage, also when it timed out. A late answer is a timeout,
/// since the next request may be answered in time. Other errors have the class of the error they
/// wrap.
#[cfg(feature = "reqwest")]
fn known_reqwest(error: &reqwest::Error) -> Option<Class> {
    if let Some(status) = error.status() {
        return Some(HttpStatus(status.as_u16()).class());
    }
    if error.is_connect() {
        return Some(Class::Outage);
    }
    if error.is_timeout() {
        return Some(Class::Timeout);
    }
    error.is_builder().then_some(Class::Permanent)
}

/// A violated constraint is the event's fault; a connection is the server's. Other database errors
/// are judged by the server's code.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn known_sqlx(error: &sqlx::Error) -> Option<Class> {
    use sqlx::error::ErrorKind as Kind;
    match error {
        // A connection was lost or could not be opened: the event did not cause it. It may cause
        // `Protocol`, for example by too many arguments.
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_) => Some(Class::Outage),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            Some(Class::Permanent)
        }
        sqlx::Error::Database(error) => match error.kind() {
            Kind::UniqueViolation
            | Kind::CheckViolation
            | Kind::ForeignKeyViolation
            | Kind::NotNullViolation => Some(Class::Permanent),
            _ => known_code(error.as_ref()),
        },
        _ => None,
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn known_code(error: &dyn sqlx::error::DatabaseError) -> Option<Class> {
    #[cfg(feature = "postgres")]
    if let Some(class) = known_postgres(error) {
        return Some(class);
    }
    #[cfg(feature = "sqlite")]
    if let Some(class) = known_sqlite(error) {
        return Some(class);
    }
    None
}

/// PostgreSQL's codes, by appendix A of its documentation.
///
/// A deadlock or a serialisation failure (`40...`) may pass at once. A statement (57014) or a
/// transaction (25P03, 25P04) that exceeded its time limit is a timeout: this event alone may cause
/// it.
#[cfg(feature = "postgres")]
fn known_postgres(error: &dyn sqlx::error::DatabaseError) -> Option<Class> {
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    const INVALID_CATALOG_NAME: &str = "3D000";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const TIMEOUTS: [&str; 3] = ["57014", "25P03", "25P04"];
    /// A pooler lost the connection's prepared statements: the event did not cause it.
    const STATEMENTS_LOST: [&str; 2] = ["26000", "42P05"];
    /// Corrupted data and indexes.
    const CORRUPTED: [&str; 2] = ["XX001", "XX002"];
    const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    /// Connections, authorisation, resources, operator intervention, and system errors.
    const CLASSES: [&str; 5] = ["08", "28", "53", "57P", "58"];
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    let code = error.code()?;
    let code = &*code;
    if TIMEOUTS.contains(&code) {
        return Some(Class::Timeout);
    }
    let is_of_the_server = matches!(
        code,
        INSUFFICIENT_PRIVILEGE
            | INVALID_CATALOG_NAME
            | LOCK_NOT_AVAILABLE
            | READ_ONLY_SQL_TRANSACTION
    ) || STATEMENTS_LOST.contains(&code)
        || CORRUPTED.contains(&code)
        || CLASSES.iter().any(|class| code.starts_with(class));
    is_of_the_server.then_some(Class::Outage)
}

/// SQLite's primary codes; an extended code has its primary code in the lowest byte.
#[cfg(feature = "sqlite")]
fn known_sqlite(error: &dyn sqlx::error::DatabaseError) -> Option<Class> {
    const NOMEM: i64 = 7;
    const READONLY: i64 = 8;
    const IOERR: i64 = 10;
    const CORRUPT: i64 = 11;
    const FULL: i64 = 13;
    const CANTOPEN: i64 = 14;
    const NOTADB: i64 = 26;
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    let code: i64 = error.code()?.parse().ok()?;
    // An operator must repair the file first; then every record passes.
    let is_of_the_file = matches!(
        code & 0xff,
        NOMEM | READONLY | IOERR | CORRUPT | FULL | CANTOPEN | NOTADB
    );
    is_of_the_file.then_some(Class::Outage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerError;
    use std::io;

    fn class(error: impl Into<HandlerError>) -> Class {
        error.into().class(&default_classifier())
    }

    #[derive(Debug, thiserror::Error)]
    #[error("calling the provider")]
    struct Wrapped(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn io_errors_are_known_by_their_kind() {
        for (expected, kinds) in [
            (
                Class::Outage,
                &[
                    ErrorKind::ConnectionRefused,
                    ErrorKind::NetworkUnreachable,
                    ErrorKind::StorageFull,
                    ErrorKind::ReadOnlyFilesystem,
                ][..],
            ),
            (
                Class::Timeout,
                &[ErrorKind::TimedOut, ErrorKind::WouldBlock],
            ),
            (
                Class::Transient,
                &[
                    ErrorKind::UnexpectedEof,
                    ErrorKind::Interrupted,
                    ErrorKind::Other,
                ],
            ),
            (
                Class::Permanent,
                &[ErrorKind::InvalidInput, ErrorKind::InvalidData],
            ),
        ] {
            for kind in kinds {
                assert_eq!(class(io::Error::from(*kind)), expected, "{kind:?}");
            }
        }
    }

    #[test]
    fn the_wrapped_error_decides_the_class() {
        let wrapped = |error: Box<dyn Error + Send + Sync>| class(Wrapped(error));
        assert_eq!(wrapped(HttpStatus(503).into()), Class::Outage);
        assert_eq!(
            wrapped(io::Error::other(HttpStatus(404)).into()),
            Class::Permanent
        );
        assert_eq!(wrapped("anything".into()), Class::Transient);
        let json = serde_json::from_str::<u8>("x").expect_err("no number");
        assert_eq!(wrapped(json.into()), Class::Permanent);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exceeded_time_limit_is_a_timeout() {
        let elapsed = tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>());
        assert_eq!(class(elapsed.await.expect_err("too late")), Class::Timeout);
        assert_eq!(class(tower::timeout::error::Elapsed::new()), Class::Timeout);
    }

    #[test]
    fn a_handlers_own_word_counts_more() {
        let error = HandlerError::permanent(HttpStatus(503));
        assert_eq!(error.class(&default_classifier()), Class::Permanent);
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_errors_are_classified_by_code() {
        use sqlx::{ConnectOptions, Connection, SqliteConnection};
        let file = tempfile::NamedTempFile::new().expect("a file");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
        let mut store = options.connect().await.expect("a store");
        let run = async |store: &mut SqliteConnection, sql: &'static str| {
            sqlx::raw_sql(sql).execute(store).await
        };
        run(
            &mut store,
            "CREATE TABLE t (a TEXT PRIMARY KEY, b INT NOT NULL CHECK (b > 0)); INSERT INTO t VALUES ('x', 1)",
        )
        .await
        .expect("a table");
        for (sql, expected) in [
            ("INSERT INTO t VALUES ('x', 1)", Class::Permanent),
            ("INSERT INTO t VALUES ('y', 0)", Class::Permanent),
            ("INSERT INTO t VALUES ('y', NULL)", Class::Permanent),
            ("SELECT nothing FROM nowhere", Class::Transient),
            (
                "PRAGMA query_only = ON; INSERT INTO t VALUES ('y', 1)",
                Class::Outage,
            ),
        ] {
            let error = run(&mut store, sql).await.expect_err(sql);
            assert_eq!(class(error), expected, "{sql}");
        }
        store.close().await.expect("closed");
        std::fs::write(file.path(), "no database at all").expect("the file is written");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
        let error = match options.connect().await {
            Err(error) => error,
            Ok(mut store) => run(&mut store, "SELECT * FROM t")
                .await
                .expect_err("spoilt"),
        };
        assert_eq!(class(error), Class::Outage);
        assert_eq!(class(sqlx::Error::PoolTimedOut), Class::Outage);
    }

    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn postgres_errors_are_classified_by_code() {
        use sqlx::{Connection, PgConnection};
        let Some(postgres) = crate::testing::postgres().await else {
            return;
        };
        let url = postgres
            .database()
            .await
            .expect("the server creates a database");
        let mut store = PgConnection::connect(&url)
            .await
            .expect("the server takes a connection");
        for (code, expected) in [
            ("23505", Class::Permanent),
            ("25006", Class::Outage),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("42501", Class::Outage),
            ("42P01", Class::Transient),
            ("53100", Class::Outage),
            ("53300", Class::Outage),
            ("55P03", Class::Outage),
            ("57014", Class::Timeout),
            ("25P03", Class::Timeout),
            ("26000", Class::Outage),
            ("XX001", Class::Outage),
            ("XX000", Class::Transient),
            ("57P01", Class::Outage),
        ] {
            let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$");
            let raised = sqlx::raw_sql(sqlx::AssertSqlSafe(raise))
                .execute(&mut store)
                .await;
            assert_eq!(class(raised.expect_err(code)), expected, "{code}");
        }
        let ended = "SELECT pg_terminate_backend(pg_backend_pid())";
        let error = sqlx::raw_sql(ended).execute(&mut store).await;
        assert_eq!(class(error.expect_err(ended)), Class::Outage);
        let error = sqlx::raw_sql("SELECT 1").execute(&mut store).await;
        assert_eq!(class(error.expect_err("it is closed")), Class::Outage);
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn reqwest_errors_are_classified_by_kind() {
        use std::time::Duration;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpListener;

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        // Each request opens a connection, because each answer in this test closes it.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build();
        let client = client.expect("a client");
        let get = async |path: &str, within: Duration| {
            let asked = client
                .get(format!("http://{address}{path}"))
                .timeout(within);
            asked
                .send()
                .await
                .and_then(|answer| answer.error_for_status())
        };
        let serve = async |answer: &[u8]| {
            let (mut peer, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let _ = peer.read(&mut request).await.expect("a request");
            peer.write_all(answer).await.expect("answered");
            peer
        };
        let minute = Duration::from_secs(60);
        let unavailable = b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n";
        let (error, _) = tokio::join!(get("/", minute), serve(unavailable));
        assert_eq!(class(error.expect_err("503")), Class::Outage);
        let refused = b"HTTP/1.1 422 x\r\ncontent-length: 0\r\n\r\n";
        let (error, _) = tokio::join!(get("/", minute), serve(refused));
        assert_eq!(class(error.expect_err("422")), Class::Permanent);
        let (error, _) = tokio::join!(get("/", Duration::from_millis(50)), serve(b""));
        assert_eq!(class(error.expect_err("silence")), Class::Timeout);
        drop(listener);
        let error = get("/", minute).await.expect_err("nobody listens");
        assert_eq!(class(error), Class::Outage);
        let error = client.get("no address").send().await.expect_err("no URL");
        assert_eq!(class(error), Class::Permanent);
    }
}
