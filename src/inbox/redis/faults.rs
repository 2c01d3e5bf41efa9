//! Faults of the server and of owners: waiting claims continue, and no completed delivery is
//! handled again.

use super::tests::{fresh, is_duplicate, key, refused, send, settings};
use super::{RedisInbox, RedisSettings};
use crate::inbox::{Claimed, Inbox, InboxError};
use crate::testing::{TestRedis, eventually, redis, required};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// Long, because test machines are slow and a passing test does not wait for it.
const WITHIN: Duration = Duration::from_secs(30);

/// A server of its own, and settings under which its faults are detected soon.
async fn start() -> Option<(TestRedis, RedisSettings)> {
    let redis = required(TestRedis::start().await)?;
    Some((redis, settings().with_timeout(Duration::from_millis(500))))
}

/// Opens the store like one more process.
async fn open(redis: &TestRedis, settings: &RedisSettings) -> RedisInbox {
    RedisInbox::open_with(redis.url(), settings).await.unwrap()
}

/// Claims like a consumer: again and again while the store is unavailable.
async fn claimed(inbox: &RedisInbox, id: &str) -> Claimed {
    eventually("the claim is answered", WITHIN, || async {
        match inbox.claim(&key(id)).await {
            Ok(claimed) => Some(claimed),
            Err(InboxError::Unavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await
}

/// The server is killed while one claim runs and others wait. Each claim soon fails with a
/// temporary error, and nothing that was completed is handled again.
#[tokio::test(flavor = "multi_thread")]
async fn claims_wait_for_a_stopped_server_and_resume_with_it() {
    let Some((redis, settings)) = start().await else {
        return;
    };
    let (inbox, other) = (open(&redis, &settings).await, open(&redis, &settings).await);
    fresh(&inbox, "before")
        .await
        .complete(Vec::new())
        .await
        .unwrap();
    let running = fresh(&inbox, "running").await;
    let waiting = {
        let other = other.clone();
        tokio::spawn(async move { claimed(&other, "running").await })
    };
    redis.kill().await.unwrap();
    let begun = Instant::now();
    let error = refused(&inbox, "new").await;
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("check that it runs"), "{error}");
    assert!(begun.elapsed() < WITHIN / 2, "it is said soon");
    let many: Vec<_> = (0..50)
        .map(|n| {
            let inbox = inbox.clone();
            tokio::spawn(async move { claimed(&inbox, &format!("many {n}")).await })
        })
        .collect();
    // An outage, not a short interruption.
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.start_again().await.unwrap();

    let mut completed = running.complete(Vec::new()).await;
    if let Err(InboxError::Unavailable(_)) = completed {
        // The first request may find the old connection broken. The record is then handled again,
        // since effects are at least once in this store.
        match claimed(&inbox, "running").await {
            Claimed::Fresh(claim) => completed = claim.complete(Vec::new()).await,
            Claimed::Duplicate { .. } => completed = Ok(Vec::new()),
        }
    }
    match waiting.await.unwrap() {
        Claimed::Duplicate { .. } => drop(completed.unwrap()),
        Claimed::Fresh(claim) => drop(claim.complete(Vec::new()).await.unwrap()),
    }
    for claim in many {
        match claim.await.unwrap() {
            Claimed::Fresh(claim) => drop(claim.complete(Vec::new()).await.unwrap()),
            Claimed::Duplicate { .. } => panic!("nobody handled it"),
        }
    }
    for id in ["before", "running", "many 0", "many 49"] {
        assert!(is_duplicate(&inbox, id).await, "{id}");
    }
}

/// Claims that a frozen server grants late are released by their owners, although they had given
/// up.
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_claim_is_free_before_its_lease_ends() {
    let Some((redis, settings)) = start().await else {
        return;
    };
    // A lease longer than any test.
    let settings = settings.with_lease(Duration::from_secs(600));
    let inbox = open(&redis, &settings).await;
    redis.freeze().await.unwrap();
    // Redis executes these requests when it resumes, and grants the claims to owners that have
    // stopped waiting.
    for n in 0..5 {
        let error = refused(&inbox, &format!("frozen {n}")).await;
        assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
        assert!(
            error.to_string().contains("no answer within 500ms"),
            "{error}"
        );
    }
    redis.thaw().await.unwrap();
    for n in 0..5 {
        let id = format!("frozen {n}");
        match tokio::time::timeout(WITHIN, claimed(&inbox, &id))
            .await
            .unwrap()
        {
            Claimed::Fresh(claim) => drop(claim.complete(Vec::new()).await.unwrap()),
            Claimed::Duplicate { .. } => panic!("nobody handled it"),
        }
    }
}

/// The completion has no answer and is executed late. The release that follows an unanswered
/// request must leave it untouched.
#[tokio::test(flavor = "multi_thread")]
async fn a_completion_applied_late_is_found_as_a_duplicate() {
    let Some((redis, settings)) = start().await else {
        return;
    };
    let inbox = open(&redis, &settings).await;
    let claim = fresh(&inbox, "1").await;
    redis.freeze().await.unwrap();
    let error = claim.complete(Vec::new()).await.unwrap_err();
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    redis.thaw().await.unwrap();
    match claimed(&inbox, "1").await {
        Claimed::Duplicate { .. } => {}
        Claimed::Fresh(_) => panic!("it was completed, and what gives claims back left it so"),
    }
}

/// Redis restarts with its data twice; the owner renews in between, so no other owner takes its
/// delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_an_outage_shorter_than_it() {
    let Some((redis, settings)) = start().await else {
        return;
    };
    let settings = settings.with_lease(Duration::from_secs(4));
    let (owner, other) = (open(&redis, &settings).await, open(&redis, &settings).await);
    let claim = fresh(&owner, "1").await;
    // At the end of each outage the lease is renewed, not expired.
    for _ in 0..2 {
        redis.kill().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        redis.start_again().await.unwrap();
        let held = tokio::time::timeout(Duration::from_secs(2), claimed(&other, "1")).await;
        assert!(held.is_err(), "the owner is at work, and others wait");
    }
    eventually("the completion is taken", WITHIN, || async {
        owner.claim(&key("unrelated")).await.is_ok().then_some(())
    })
    .await;
    claim.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&other, "1").await);
}

/// The delivery of a dropped claim is free at once, not after its lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_cut_off_gives_its_delivery_back() {
    let Some(redis) = redis().await else {
        return;
    };
    let settings = settings().with_lease(Duration::from_secs(600));
    let inbox = open(redis, &settings).await;
    let handler = {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            let claim = fresh(&inbox, "1").await;
            std::future::pending::<()>().await;
            drop(claim);
        })
    };
    let name = super::scripts::redis_key(&settings.prefix, &key("1"));
    eventually("the delivery is claimed", WITHIN, || async {
        let exists: i64 = super::tests::send(redis.url(), &["EXISTS", &name]).await;
        (exists == 1).then_some(())
    })
    .await;
    handler.abort();
    let claim = tokio::time::timeout(WITHIN, fresh(&inbox, "1"))
        .await
        .unwrap();
    claim.complete(Vec::new()).await.unwrap();
}

/// Host and port of a server.
fn address(redis: &TestRedis) -> String {
    let address = redis.url().strip_prefix("redis://");
    address.unwrap().trim_end_matches('/').to_owned()
}

/// A failover after which an address leads to another server, while the old one is a replica and
/// keeps its connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_replica_is_replaced() {
    let Some((old, settings)) = start().await else {
        return;
    };
    let Some(new) = required(TestRedis::start().await) else {
        return;
    };
    let primary = Arc::new(Mutex::new(address(&old)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let leads_to = Arc::clone(&primary);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = leads_to.lock().unwrap().clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let inbox = RedisInbox::open_with(&url, &settings).await.unwrap();
    drop(fresh(&inbox, "before").await.complete(Vec::new()).await);
    *primary.lock().unwrap() = address(&new);
    let replica: String = send(old.url(), &["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(replica, "OK");
    let error = refused(&inbox, "1").await;
    assert!(matches!(error, InboxError::NotWritable(_)), "{error:?}");
    let claimed = eventually("the new primary is written", WITHIN, || async {
        match inbox.claim(&key("1")).await {
            Ok(claimed) => Some(claimed),
            Err(InboxError::NotWritable(_) | InboxError::Unavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    });
    assert!(matches!(claimed.await, Claimed::Fresh(_)));
}
