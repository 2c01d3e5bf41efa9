//! An outbox that answers late, or never.

use crate::outbox::SqliteOutbox;
use crate::outbox::status::{OpenTransaction, OutboxStatus};
use crate::outbox::store::{Answer, Backlog, Page, ReadPage, RelaysAndLeases, RowId, Store};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A store whose first calls of two kinds wait.
#[derive(Clone)]
pub(super) struct SlowStore {
    outbox: SqliteOutbox,
    pub(super) register: Arc<Gate>,
    pub(super) delete: Arc<Gate>,
}

/// Lets calls wait until it is opened, and counts them.
#[derive(Default)]
pub(super) struct Gate {
    /// So many calls wait; later ones pass.
    waiting: usize,
    begun: AtomicUsize,
    interrupted: AtomicUsize,
    opened: CancellationToken,
}

/// A call that waits. It counts as interrupted if it is dropped before the gate opens.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.0.opened.is_cancelled() {
            self.0.interrupted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Gate {
    fn before(waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting,
            ..Self::default()
        })
    }

    async fn pass(&self) {
        if self.begun.fetch_add(1, Ordering::SeqCst) < self.waiting {
            let _waiting = Waiting(self);
            self.opened.cancelled().await;
        }
    }

    /// The calls up to now.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The calls that were dropped while they waited.
    pub(super) fn interrupted(&self) -> usize {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Lets the waiting calls pass.
    pub(super) fn open(&self) {
        self.opened.cancel();
    }
}

impl SlowStore {
    /// Lets so many first calls of `register` and of `delete` wait.
    pub(super) fn new(outbox: SqliteOutbox, register: usize, delete: usize) -> Self {
        Self {
            outbox,
            register: Gate::before(register),
            delete: Gate::before(delete),
        }
    }
}

impl Store for SlowStore {
    fn register<'a>(&'a self, relay: &'a str, lease: Duration) -> Answer<'a, RelaysAndLeases> {
        Box::pin(async move {
            self.register.pass().await;
            self.outbox.register(relay, lease).await
        })
    }

    fn lease<'a>(
        &'a self,
        relay: &'a str,
        slots: &'a [i16],
        lease: Duration,
    ) -> Answer<'a, Vec<i16>> {
        self.outbox.lease(relay, slots, lease)
    }

    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()> {
        self.outbox.release(relay, slots)
    }

    fn deregister<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        self.outbox.deregister(relay)
    }

    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        self.outbox.leave(relay)
    }

    fn leave_to_another<'a>(&'a self, relay: &'a str) -> Answer<'a, bool> {
        self.outbox.leave_to_another(relay)
    }

    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage> {
        self.outbox.read(page)
    }

    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.delete.pass().await;
            self.outbox.delete(rows).await
        })
    }

    fn mark<'a>(&'a self, failures: &'a BTreeMap<RowId, String>) -> Answer<'a, ()> {
        self.outbox.mark(failures)
    }

    fn is_drained<'a>(&'a self, without_topics: &'a [String]) -> Answer<'a, bool> {
        self.outbox.is_drained(without_topics)
    }

    fn backlog(&self) -> Answer<'_, Backlog> {
        self.outbox.backlog()
    }

    fn open_transaction(&self, age: Duration) -> Answer<'_, Option<OpenTransaction>> {
        self.outbox.open_transaction(age)
    }

    fn status(&self) -> Answer<'_, OutboxStatus> {
        self.outbox.status()
    }

    fn committed(&self) -> BoxFuture<'_, ()> {
        Store::committed(&self.outbox)
    }
}
