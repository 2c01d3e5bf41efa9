//! An inbox in one SQLite file (WAL), shared by the instances of a service on one machine.

use super::{BoxFuture, Claimed, Inbox, InboxError, InboxKey};
use std::path::Path;

/// An inbox in a SQLite file.
#[derive(Clone)]
pub struct SqliteInbox {}

/// The transaction that a handler writes its effect through; dereferences to `sqlx::SqliteConnection`.
/// It commits with the inbox row when the handler succeeds. Dropping it hands it back.
pub struct SqliteTx {}

impl SqliteInbox {
    /// Opens or creates the store of `group`. `schema` is the service's own DDL (`CREATE TABLE IF NOT EXISTS …`).
    pub async fn open(_path: &Path, _group: &str, _schema: &str) -> Result<Self, InboxError> {
        todo!()
    }
    /// A pool for reading.
    pub fn pool(&self) -> &sqlx::SqlitePool {
        todo!()
    }
}

impl std::ops::Deref for SqliteTx {
    type Target = sqlx::SqliteConnection;
    fn deref(&self) -> &Self::Target {
        todo!()
    }
}
impl std::ops::DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        todo!()
    }
}

impl Inbox for SqliteInbox {
    fn claim<'a>(&'a self, _key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        todo!()
    }
    fn transaction_type(&self) -> Option<std::any::TypeId> {
        Some(std::any::TypeId::of::<SqliteTx>())
    }
}
