//! Shared by the cases: the features of a store under test, keys, and claims with expectations.

use crate::event::{Headers, OutgoingRecord};
use crate::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxKey};
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A transactional store: effects commit with the inbox row. Called by the suite, from its own
/// tasks. The futures may wait for the store and panic if it fails; `has_outbox` must not block.
///
/// # Examples
/// For a store whose claims hand out a `MyTx`:
/// ```
/// use evenkeel::inbox::BoxFuture;
/// use evenkeel::inbox::conformance::Effects;
/// use std::any::Any;
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// struct MyTx(Vec<String>);
///
/// /// The committed effects and how often each was made.
/// struct MyEffects(Arc<Mutex<BTreeMap<String, u64>>>);
///
/// impl Effects for MyEffects {
///     fn write<'a>(
///         &'a self,
///         transaction: Box<dyn Any + Send>,
///         name: &'a str,
///     ) -> BoxFuture<'a, ()> {
///         Box::pin(async move {
///             let mut tx = transaction.downcast::<MyTx>().expect("the store's transaction");
///             tx.0.push(name.to_owned());
///         })
///     }
///
///     fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, u64> {
///         let committed = self.0.lock().expect("not poisoned");
///         let count = committed.get(name).copied().unwrap_or(0);
///         Box::pin(async move { count })
///     }
///
///     fn has_outbox(&self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Effects: Send + Sync {
    /// Writes the effect `name` through `transaction`, which a claim handed out, and drops the
    /// transaction, which returns it to the claim.
    fn write<'a>(&'a self, transaction: Box<dyn Any + Send>, name: &'a str) -> BoxFuture<'a, ()>;
    /// How often the effect `name` is committed, as seen by another reader.
    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, u64>;
    /// Whether the store publishes the events of a completed delivery through an outbox, and leaves
    /// none to the caller.
    fn has_outbox(&self) -> bool;
}

/// A store whose claims are leases: a claim expires when its owner no longer renews it. Called by
/// the suite, which suspends and ends the runtimes that it calls it on.
pub trait Leases: Send + Sync {
    /// How long a claim lasts without a renewal. The suite waits for some of them to expire: use a
    /// second or two.
    fn lease(&self) -> Duration;
    /// Opens the same store like another process: sharing nothing, and with its own tasks on the
    /// current runtime. Its claims wait for longer than three leases.
    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>>;
}

/// A store that forgets completions, because rows are purged or expire. Called by the suite, from
/// one task.
pub trait Forgetting: Send + Sync {
    /// Forgets all completions made before the call, now or soon.
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()>;
    /// Opens the same store like another process.
    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>>;
}

/// Longer than any case takes on a slow machine: a wait of this length is a deadlock.
pub(super) const DEADLOCK: Duration = Duration::from_secs(60);

/// Bounds the time after which a store must have deleted sent replies.
pub(super) const SENT: Duration = Duration::from_secs(20);

/// A key that no other case and no other run uses.
pub(super) fn key(case: &str) -> InboxKey {
    InboxKey::new(
        "conformance",
        case,
        "/conformance",
        uuid::Uuid::now_v7().to_string(),
    )
}

/// Claims a key. Panics on an error, which no case expects from a working store.
pub(super) async fn claim(inbox: &dyn Inbox, key: &InboxKey) -> Claimed {
    inbox.claim(key).await.expect("a claim is answered")
}

/// Claims a key that must be fresh, for the reason `why`.
pub(super) async fn fresh(inbox: &dyn Inbox, key: &InboxKey, why: &str) -> Box<dyn Claim> {
    match claim(inbox, key).await {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{key:?} is reported as a duplicate, but {why}"),
    }
}

/// Claims a key that must be a duplicate, and returns its unsent events.
pub(super) async fn duplicate(inbox: &dyn Inbox, key: &InboxKey, why: &str) -> Vec<OutgoingRecord> {
    match claim(inbox, key).await {
        Claimed::Duplicate { unsent } => unsent,
        Claimed::Fresh(_) => panic!("{key:?} is reported as fresh, but {why}"),
    }
}

/// Completes a claim without events.
pub(super) async fn complete(claim: Box<dyn Claim>) {
    complete_with(claim, Vec::new()).await;
}

/// Completes a claim, and returns the events that are left to publish.
pub(super) async fn complete_with(
    claim: Box<dyn Claim>,
    published: Vec<OutgoingRecord>,
) -> Vec<OutgoingRecord> {
    let completed = claim.complete(published).await;
    completed.expect("a claim completes")
}

/// The events that a completion must leave to its caller.
pub(super) fn left(published: Vec<OutgoingRecord>, has_outbox: bool) -> Vec<OutgoingRecord> {
    match has_outbox {
        true => Vec::new(),
        false => published,
    }
}

/// A record with this value and a key.
pub(in crate::inbox) fn record(value: &str) -> OutgoingRecord {
    OutgoingRecord {
        topic: "conformance".to_owned(),
        partition: None,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}
