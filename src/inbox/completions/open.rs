//! Opens a store of any kind for reading.

use super::port::Completions;
use crate::inbox::InboxError;
use crate::store_address::{StoreAddress, not_built_in};
use std::sync::Arc;

/// Opens the store of `group` at `postgres://user@host/database` or `sqlite:PATH` for reading.
/// Creates and upgrades nothing.
///
/// # Errors
/// [`InboxError::Setting`] for an address of another form, and the errors of the store's own
/// `open`.
pub async fn open(address: &str, group: &str) -> Result<Arc<dyn Completions>, InboxError> {
    #[cfg(not(feature = "sqlite"))]
    let _ = group;
    match StoreAddress::of(address).map_err(InboxError::Setting)? {
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(url) => {
            use crate::inbox::PostgresInbox;
            use crate::inbox::PostgresSettings;
            use crate::postgres::Migration;
            let settings = PostgresSettings::new("")
                .with_migration(Migration::Elsewhere)
                .with_connections(1);
            Ok(Arc::new(PostgresInbox::open_with(url, &settings).await?))
        }
        #[cfg(feature = "sqlite")]
        StoreAddress::Sqlite(path) => {
            let reader = crate::inbox::SqliteCompletions::open(path, group).await?;
            Ok(Arc::new(reader))
        }
        #[allow(unreachable_patterns)]
        _ => Err(InboxError::Setting(not_built_in())),
    }
}
