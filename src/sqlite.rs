//! SQLite for inbox and outbox: the form of its addresses, its result codes, and whether an open
//! file is still in its place.
//!
//! The driver returns the extended code as text; its low byte is the primary one, which is stable.

use crate::failure::Class;
use crate::sql;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteError};
use std::error::Error;
use std::io;
#[cfg(unix)]
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The path in an address of the form `sqlite:PATH` or `sqlite://PATH`. It is taken as it is,
/// without decoding.
pub(crate) fn path_in(address: &str) -> Option<&Path> {
    let path = address.strip_prefix("sqlite:")?;
    (!path.is_empty()).then(|| Path::new(path.strip_prefix("//").unwrap_or(path)))
}

/// The settings of every connection that writes.
///
/// - A changed page is copied before the statements of the next savepoint. Copies of a group's pages
///   stay in memory, where SQLite would else create a temporary file for each larger group. A
///   handler that changes much of a large file in one turn needs as much memory.
/// - The log is written to the file every 16 MiB, not every 4: most pages of one checkpoint are those
///   of the one before.
pub(crate) fn for_writing(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", "4096")
}

/// SQLite's primary result codes (the low byte of an extended code), see
/// <https://www.sqlite.org/rescode.html>.
pub(crate) mod code {
    pub(crate) const PERM: u32 = 3;
    pub(crate) const BUSY: u32 = 5;
    pub(crate) const LOCKED: u32 = 6;
    pub(crate) const NOMEM: u32 = 7;
    pub(crate) const READONLY: u32 = 8;
    pub(crate) const IOERR: u32 = 10;
    pub(crate) const CORRUPT: u32 = 11;
    pub(crate) const FULL: u32 = 13;
    pub(crate) const CANTOPEN: u32 = 14;
    pub(crate) const TOOBIG: u32 = 18;
    pub(crate) const CONSTRAINT: u32 = 19;
    pub(crate) const MISMATCH: u32 = 20;
    pub(crate) const NOTADB: u32 = 26;
}

/// Whether another connection holds the lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// The primary code of `error`, if SQLite returned it.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    primary(error.as_database_error()?)
}

fn primary(error: &(dyn DatabaseError + 'static)) -> Option<u32> {
    let code: u32 = error.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// The class of an error of the driver, or `None` if it has no meaning of its own.
pub(crate) fn class_of(error: &(dyn Error + 'static)) -> Option<Class> {
    sql::class_of(error, class_of_code)
}

/// An operator must repair the file first; then every record passes.
fn class_of_code(error: &(dyn DatabaseError + 'static)) -> Option<Class> {
    error.try_downcast_ref::<SqliteError>()?;
    let is_of_the_file = matches!(
        primary(error)?,
        code::NOMEM
            | code::READONLY
            | code::IOERR
            | code::CORRUPT
            | code::FULL
            | code::CANTOPEN
            | code::NOTADB
    );
    is_of_the_file.then_some(Class::Outage)
}

/// How often it is checked whether the file is in its place.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Notices that an open SQLite file is not the one at its path any more: it was deleted, moved or
/// replaced, or its WAL was. SQLite goes on with the open file, and all that is written to it is
/// lost at the end of the process. A file that was overwritten in its place is not noticed.
///
/// A [`SqliteInbox`](crate::inbox::SqliteInbox) has one. This one is for programs that write to the
/// file of an outbox on a connection of their own: call [`reconnected`](Self::reconnected) for each
/// new connection, and [`is_in_place`](Self::is_in_place) in each transaction. If it is not in its
/// place, roll back: what would be committed would not last.
///
/// # Examples
/// ```no_run
/// use evenkeel::outbox::SqliteFileWatch;
/// use evenkeel::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
/// use std::path::Path;
/// use std::sync::Arc;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let path = Path::new("shop.db");
/// let watch = Arc::new(SqliteFileWatch::new(path));
/// let connected = Arc::clone(&watch);
/// let pool = SqlitePoolOptions::new()
///     .max_connections(1)
///     .after_connect(move |_, _| {
///         connected.reconnected();
///         Box::pin(async { Ok(()) })
///     })
///     .connect_lazy_with(SqliteConnectOptions::new().filename(path));
/// let transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
/// if !watch.is_in_place() {
///     return Err("shop.db was deleted, moved or replaced".into());
/// }
/// # drop(transaction);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteFileWatch {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// The files of the open connections, as far as they are known.
#[derive(Debug, Default)]
struct Seen {
    file: Option<FileId>,
    wal: Option<(PathBuf, FileId)>,
    /// When both were last in their place.
    checked: Option<Instant>,
}

/// Device and inode.
type FileId = (u64, u64);

impl SqliteFileWatch {
    /// Watches the file at this path, which need not exist yet. Reads nothing.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            // The process may change its directory.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            seen: Mutex::default(),
        }
    }

    /// A new connection was opened: the last one may have deleted the WAL at its end.
    pub fn reconnected(&self) {
        let mut seen = self.seen();
        seen.wal = None;
        seen.checked = None;
    }

    /// Whether the file is still in its place. Called in a transaction: both files exist then. The
    /// first call of a connection decides which files they are. Reads their metadata once a second,
    /// while the answer is yes.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let now = Instant::now();
        let mut seen = self.seen();
        if seen.checked.is_some_and(|at| now - at < CHECK_INTERVAL) {
            return true;
        }
        // Where the system refuses to tell, as after the process gave up a right, nothing shows that
        // a file was moved.
        let is_in_place = seen.are_in_place(&self.path).unwrap_or(true);
        seen.checked = is_in_place.then_some(now);
        is_in_place
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether the files are in their places. The first call decides which files they are.
    fn are_in_place(&mut self, path: &Path) -> io::Result<bool> {
        let file = file_id(path)?;
        if self.file.is_none() {
            self.file = file;
        }
        if self.wal.is_none() && file.is_some() {
            // SQLite puts it beside the file that a link leads to.
            let mut wal = std::fs::canonicalize(path)?.into_os_string();
            wal.push("-wal");
            let wal = PathBuf::from(wal);
            self.wal = file_id(&wal)?.map(|id| (wal, id));
        }
        let is_wal_in_place = match &self.wal {
            Some((path, id)) => file_id(path)? == Some(*id),
            None => true,
        };
        Ok(self.file == file && is_wal_in_place)
    }
}

/// The file at a path, if there is one.
#[cfg(unix)]
fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Other systems refuse to delete or replace an open file.
#[cfg(not(unix))]
fn file_id(_: &Path) -> io::Result<Option<FileId>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use super::SqliteFileWatch;
    use crate::handler::{Class, HandlerError, default_classifier};
    #[cfg(unix)]
    use std::path::{Path, PathBuf};

    fn class(error: sqlx::Error) -> Class {
        HandlerError::from(error).class(&default_classifier())
    }

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

    /// A watch on a link to one of two files, checked once.
    #[cfg(unix)]
    fn watched_link(directory: &Path) -> (SqliteFileWatch, PathBuf) {
        for name in ["a", "b"] {
            std::fs::write(directory.join(name), name).expect("a file is written");
        }
        let link = directory.join("link");
        std::os::unix::fs::symlink(directory.join("a"), &link).expect("a link is created");
        let watch = SqliteFileWatch::new(&link);
        assert!(watch.is_in_place(), "the first check decides");
        (watch, link)
    }

    /// Replaces a link, and checks again without a wait for the interval.
    #[cfg(unix)]
    fn is_in_place_after(watch: &SqliteFileWatch, link: &Path, target: &str) -> bool {
        std::fs::remove_file(link).expect("the link is removed");
        std::os::unix::fs::symlink(target, link).expect("a link is created");
        watch.reconnected();
        watch.is_in_place()
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_to_another_file_is_noticed() {
        let directory = tempfile::tempdir().expect("a folder");
        let (watch, link) = watched_link(directory.path());
        assert!(is_in_place_after(&watch, &link, "a"), "by another path");
        assert!(!is_in_place_after(&watch, &link, "b"));
        assert!(!is_in_place_after(&watch, &link, "nothing"));
        assert!(is_in_place_after(&watch, &link, "a"), "it is back");
    }

    /// A process may lose the right to look at its files, which are where they were.
    #[cfg(unix)]
    #[test]
    fn an_error_of_the_system_is_no_sign_of_a_move() {
        let directory = tempfile::tempdir().expect("a folder");
        let (watch, link) = watched_link(directory.path());
        // The right itself cannot be taken from a test that is run by root.
        assert!(is_in_place_after(&watch, &link, "link"), "a circle");
    }
}
