//! An outbox that answers late, or never.

use crate::outbox::SqliteOutbox;
use crate::outbox::status::{OpenTransaction, OutboxStatus};
use crate::outbox::store::{Answer, Backlog, Page, ReadPage, RelaysAndLeases, RowId, Store};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A store whose calls of some kinds wait.
#[derive(Clone)]
pub(super) struct SlowStore {
    outbox: SqliteOutbox,
    pub(super) register: Arc<Gate>,
    pub(super) lease: Arc<Gate>,
    pub(super) deregister: Arc<Gate>,
    pub(super) delete: Arc<Gate>,
    /// The rows of the last call of `delete`.
    deleting: Arc<AtomicUsize>,
    /// How long a read takes at least.
    read_takes: Duration,
    /// When each read began and ended.
    reads: Arc<Mutex<Vec<[Instant; 2]>>>,
}

/// Lets calls wait until it is opened, and counts them.
#[derive(Default)]
pub(super) struct Gate {
    /// Calls up to this one wait; later ones pass.
    waiting: AtomicUsize,
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
            waiting: AtomicUsize::new(waiting),
            ..Self::default()
        })
    }

    /// Lets the next call wait.
    pub(super) fn hold_next(&self) {
        self.waiting.store(self.begun() + 1, Ordering::SeqCst);
    }

    async fn pass(&self) {
        let waiting = self.waiting.load(Ordering::SeqCst);
        if self.begun.fetch_add(1, Ordering::SeqCst) < waiting {
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
            lease: Gate::before(0),
            deregister: Gate::before(0),
            delete: Gate::before(delete),
            deleting: Arc::default(),
            read_takes: Duration::ZERO,
            reads: Arc::default(),
        }
    }

    /// Lets each read take this long.
    pub(super) fn with_reads_of(mut self, takes: Duration) -> Self {
        self.read_takes = takes;
        self
    }

    /// How many rows were to be deleted by the last call.
    pub(super) fn deleting(&self) -> usize {
        self.deleting.load(Ordering::SeqCst)
    }

    /// When each read began and ended.
    pub(super) fn reads(&self) -> Vec<[Instant; 2]> {
        self.reads.lock().unwrap().clone()
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
        Box::pin(async move {
            self.lease.pass().await;
            self.outbox.lease(relay, slots, lease).await
        })
    }

    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()> {
        self.outbox.release(relay, slots)
    }

    fn deregister<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.deregister.pass().await;
            self.outbox.deregister(relay).await
        })
    }

    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        self.outbox.leave(relay)
    }

    fn leave_to_another<'a>(&'a self, relay: &'a str) -> Answer<'a, bool> {
        self.outbox.leave_to_another(relay)
    }

    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage> {
        Box::pin(async move {
            let begun = Instant::now();
            sleep(self.read_takes).await;
            let read = self.outbox.read(page).await;
            self.reads.lock().unwrap().push([begun, Instant::now()]);
            read
        })
    }

    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.deleting.store(rows.len(), Ordering::SeqCst);
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
