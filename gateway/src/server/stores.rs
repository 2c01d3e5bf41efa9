//! Opens the store that an address names, with the outbox that its relay publishes.

use super::settings::StoreAddress;
use crate::store::{
    AcceptStore, BrokerStore, PostgresStore, SqliteStore, StoreError, StoreSettings,
};
use evenkeel::outbox::OutboxStore;
use evenkeel::publisher::Publisher;
use std::sync::Arc;

/// An open store of any kind.
pub(super) struct OpenStore {
    /// The store, as the routes use it.
    pub(super) store: Arc<dyn AcceptStore>,
    /// What a relay publishes. None if the store waits for the brokers itself.
    pub(super) outbox: Option<OutboxStore>,
    kind: Kind,
}

enum Kind {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
    Brokers,
}

impl std::fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenStore")
            .field("store", &self.store.name())
            .finish_non_exhaustive()
    }
}

impl OpenStore {
    /// Opens the store at this address. `publisher` is used by the brokers' store only.
    ///
    /// # Errors
    /// If the file or the database cannot be used. No message contains the address.
    pub(super) async fn open(
        address: &StoreAddress,
        publisher: &Publisher,
    ) -> Result<Self, StoreError> {
        let settings = StoreSettings::default();
        Ok(match address {
            StoreAddress::Sqlite(path) => {
                let store = Arc::new(SqliteStore::open_with(path, &settings).await?);
                Self {
                    store: store.clone(),
                    outbox: Some(store.outbox().into()),
                    kind: Kind::Sqlite(store),
                }
            }
            StoreAddress::Postgres(url) => {
                let store = Arc::new(PostgresStore::open_with(url, &settings).await?);
                Self {
                    store: store.clone(),
                    outbox: Some(store.outbox().into()),
                    kind: Kind::Postgres(store),
                }
            }
            StoreAddress::Brokers => Self {
                store: Arc::new(BrokerStore::new(publisher.clone())),
                outbox: None,
                kind: Kind::Brokers,
            },
        })
    }

    /// Closes the store's connections. After the last request and the relay.
    pub(super) async fn close(&self) {
        match &self.kind {
            Kind::Sqlite(store) => store.close().await,
            Kind::Postgres(store) => store.close().await,
            Kind::Brokers => {}
        }
    }
}
