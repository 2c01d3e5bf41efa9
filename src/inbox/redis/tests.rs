//! The contract, and the cases that concern only a store in Redis.

use super::{RedisInbox, RedisSettings, scripts};
use crate::inbox::conformance::{self, Forgetting, Leases};
use crate::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey};
use crate::testing::{TestRedis, redis, required, unique};
use std::sync::Arc;
use std::time::Duration;

/// Long compared with the delay of a renewal on a busy machine, short compared with a test.
const LEASE: Duration = Duration::from_millis(1_500);

pub(super) fn key(id: &str) -> InboxKey {
    InboxKey::new("payments", "authorize", "/shop/orders", id)
}

/// Settings with keys that no other test uses.
pub(super) fn settings() -> RedisSettings {
    RedisSettings::default().with_prefix(unique("evenkeel-test") + ":")
}

/// Claims the delivery, which is fresh.
pub(super) async fn fresh(inbox: &RedisInbox, id: &str) -> Box<dyn Claim> {
    match inbox.claim(&key(id)).await.unwrap() {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is a duplicate"),
    }
}

pub(super) async fn is_duplicate(inbox: &RedisInbox, id: &str) -> bool {
    let claimed = inbox.claim(&key(id)).await.unwrap();
    matches!(claimed, Claimed::Duplicate { .. })
}

/// The error of a claim.
pub(super) async fn refused(inbox: &RedisInbox, id: &str) -> InboxError {
    match inbox.claim(&key(id)).await {
        Err(error) => error,
        Ok(Claimed::Fresh(_)) => panic!("{id} is fresh"),
        Ok(Claimed::Duplicate { .. }) => panic!("{id} is a duplicate"),
    }
}

/// Sends a command and returns Redis's answer.
pub(super) async fn send<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut built = redis::Cmd::new();
    for word in command {
        built.arg(word);
    }
    built.query_async(&mut connection).await.unwrap()
}

/// A store with short leases.
struct Short {
    url: String,
    settings: RedisSettings,
}

impl Leases for Short {
    fn lease(&self) -> Duration {
        self.settings.lease
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        let (url, settings) = (self.url.clone(), self.settings.clone());
        Box::pin(async move {
            let inbox = RedisInbox::open_with(&url, &settings).await.unwrap();
            Arc::new(inbox) as Arc<dyn Inbox>
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_inbox_keeps_the_contract() {
    let Some(redis) = redis().await else {
        return;
    };
    let inbox = RedisInbox::open_with(redis.url(), &settings())
        .await
        .unwrap();
    conformance::check(Arc::new(inbox), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_claim_lasts_as_long_as_its_owner() {
    let Some(redis) = redis().await else {
        return;
    };
    let (url, settings) = (redis.url().to_owned(), settings().with_lease(LEASE));
    conformance::check_leases(Arc::new(Short { url, settings })).await;
}

impl Forgetting for Short {
    /// Its retention is as short as its leases.
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        Leases::open(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_inbox_reports_its_retention_as_forgotten() {
    let Some(redis) = redis().await else {
        return;
    };
    let settings = settings().with_lease(LEASE).with_retention(LEASE);
    let url = redis.url().to_owned();
    conformance::check_forgetting(Arc::new(Short { url, settings })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_the_same_events_handle_each_once() {
    let Some(redis) = redis().await else {
        return;
    };
    let settings = settings();
    let handled = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut racers = Vec::new();
    for _ in 0..4 {
        let inbox = RedisInbox::open_with(redis.url(), &settings).await.unwrap();
        racers.extend((0..4).map(|_| {
            let (inbox, handled) = (inbox.clone(), handled.clone());
            tokio::spawn(async move {
                for id in 0..100 {
                    let id = id.to_string();
                    if let Claimed::Fresh(claim) = inbox.claim(&key(&id)).await.unwrap() {
                        handled.lock().unwrap().push(id.clone());
                        claim.complete(Vec::new()).await.unwrap();
                    }
                }
            })
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let mut handled = handled.lock().unwrap().clone();
    handled.sort_unstable();
    let events = handled.len();
    handled.dedup();
    assert_eq!((handled.len(), events), (100, 100));
}

#[tokio::test]
async fn a_claim_waits_for_another_owner_up_to_the_limit() {
    let Some(redis) = redis().await else {
        return;
    };
    let settings = settings().with_wait(Duration::from_millis(300));
    let owner = RedisInbox::open_with(redis.url(), &settings).await.unwrap();
    let other = RedisInbox::open_with(redis.url(), &settings).await.unwrap();
    let claim = fresh(&owner, "1").await;
    let error = refused(&other, "1").await;
    let message = error.to_string();
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    assert!(
        message.contains("more than 300ms; find the stuck handler"),
        "{message}"
    );
    claim.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&other, "1").await);
}

#[tokio::test]
async fn deliveries_last_for_the_retention_and_claims_for_the_lease() {
    let Some(redis) = redis().await else {
        return;
    };
    let settings = settings()
        .with_lease(Duration::from_secs(100))
        .with_retention(Duration::from_secs(10_000));
    let inbox = RedisInbox::open_with(redis.url(), &settings).await.unwrap();
    let name = scripts::redis_key(&settings.prefix, &key("1"));
    assert_eq!(name.len(), settings.prefix.len() + 64);
    let left = async || send::<i64>(redis.url(), &["TTL", &name]).await;
    let claim = fresh(&inbox, "1").await;
    assert!((90..=100).contains(&left().await), "{} s", left().await);
    claim.complete(Vec::new()).await.unwrap();
    assert!(
        (9_900..=10_000).contains(&left().await),
        "{} s",
        left().await
    );
    fresh(&inbox, "2").await.abandon().await.unwrap();
    let name = scripts::redis_key(&settings.prefix, &key("2"));
    assert_eq!(send::<i64>(redis.url(), &["EXISTS", &name]).await, 0);
}

/// Makes a server of its own refuse writes and checks the claim's error; then makes it accept
/// writes again.
async fn check_refusal(
    refuse: &[&str],
    kind: fn(&InboxError) -> bool,
    advice: &str,
    restore: &[&str],
) {
    let Some(redis) = required(TestRedis::start().await) else {
        return;
    };
    let inbox = RedisInbox::open_with(redis.url(), &settings())
        .await
        .unwrap();
    send::<redis::Value>(redis.url(), refuse).await;
    let error = refused(&inbox, "1").await;
    let message = error.to_string();
    assert!(kind(&error), "{error:?}");
    assert!(message.contains(advice), "{message}");
    assert!(
        message.contains("claim on Redis at 127.0.0.1:"),
        "{message}"
    );
    send::<redis::Value>(redis.url(), restore).await;
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&inbox, "1").await);
}

fn is_not_writable(error: &InboxError) -> bool {
    matches!(error, InboxError::NotWritable(_))
}

#[tokio::test]
async fn a_full_redis_reports_the_remedy_and_recovers() {
    check_refusal(
        &["CONFIG", "SET", "maxmemory", "1"],
        is_not_writable,
        "its memory is used up (maxmemory)",
        &["CONFIG", "SET", "maxmemory", "0"],
    )
    .await;
}

#[tokio::test]
async fn a_replica_is_reported_and_accepts_claims_as_primary() {
    check_refusal(
        &["REPLICAOF", "127.0.0.1", "1"],
        is_not_writable,
        "it is a replica; name the primary",
        &["REPLICAOF", "NO", "ONE"],
    )
    .await;
}

#[tokio::test]
async fn too_few_replicas_are_waited_for() {
    check_refusal(
        &["CONFIG", "SET", "min-replicas-to-write", "1"],
        |error| matches!(error, InboxError::Unavailable(_)),
        "too few of its replicas are connected",
        &["CONFIG", "SET", "min-replicas-to-write", "0"],
    )
    .await;
}

/// The error of opening a store.
async fn open_error(url: &str) -> InboxError {
    match RedisInbox::open_with(url, &settings()).await {
        Err(error) => error,
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn an_unusable_url_is_refused_without_its_password() {
    for (url, expected) in [
        ("rediss+x://user:secret@cache:6379/", "is invalid"),
        ("http://user:secret@cache/", "is invalid"),
        ("", "is invalid"),
    ] {
        let error = open_error(url).await;
        let message = format!("{error} {error:?}");
        assert!(matches!(error, InboxError::Setting(_)), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_not_shown() {
    let Some(redis) = required(TestRedis::start().await) else {
        return;
    };
    send::<redis::Value>(redis.url(), &["CONFIG", "SET", "requirepass", "right"]).await;
    for user in ["", ":wrongsecret@"] {
        let error = open_error(&redis.url().replace("//", &format!("//{user}"))).await;
        let message = format!("{error} {error:?}");
        assert!(is_not_writable(&error), "{message}");
        assert!(message.contains("password"), "{message}");
        assert!(!message.contains("wrongsecret"), "{message}");
    }
    let right = redis.url().replace("//", "//:right@");
    RedisInbox::open_with(&right, &settings()).await.unwrap();
}
