//! The groups that read a topic, by the brokers. Finding them takes a request for each group of the
//! cluster: it runs as a task of its own, which no request waits for to the end.
//!
//! Owns the lists and their age. Knows nothing of events.

use super::super::brokers::{Brokers, unavailable};
use super::super::settings::StatusSettings;
use crate::http::Problem;
use evenkeel::consumer::group_progress;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// The most topics whose groups are kept.
const TOPICS_MAX: usize = 1_000;
/// How long after a failure the brokers are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The groups that read a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct GroupList {
    /// Their names, sorted.
    pub(in super::super) names: Vec<String>,
    /// The number of groups whose offsets could not be read. Some of them may read the topic.
    pub(in super::super) unread: usize,
}

/// The latest result for a topic.
#[derive(Debug, Clone, Default)]
struct Latest {
    list: Option<Arc<GroupList>>,
    /// Why the latest attempt failed.
    failure: Option<String>,
    /// When the latest attempt ended. `None` before the first one.
    ended: Option<Instant>,
}

impl Latest {
    /// Takes over the result of an attempt. After a failure the old list stays.
    fn end(&mut self, result: Result<GroupList, Problem>) {
        self.ended = Some(Instant::now());
        self.failure = None;
        match result {
            Ok(list) => self.list = Some(Arc::new(list)),
            Err(problem) => self.failure = Some(problem.detail.to_string()),
        }
    }

    fn is_old(&self, ttl: Duration) -> bool {
        let lasts = match self.failure {
            Some(_) => ASK_AGAIN_AFTER.min(ttl),
            None => ttl,
        };
        self.ended.is_none_or(|ended| ended.elapsed() >= lasts)
    }

    /// The list, or for people why there is none.
    fn answer(self) -> Result<Arc<GroupList>, String> {
        match (self.list, self.failure) {
            (Some(list), _) => Ok(list),
            (None, Some(why)) => Err(format!("the groups of the topic are unknown: {why}")),
            (None, None) => Err("the groups of the topic are being read; ask again".to_owned()),
        }
    }
}

/// A topic, and the task that reads its groups.
#[derive(Debug, Default)]
struct Topic {
    latest: Arc<watch::Sender<Latest>>,
    task: Option<JoinHandle<()>>,
}

impl Topic {
    fn is_due(&self, ttl: Duration) -> bool {
        let mut task = self.task.iter();
        let is_running = task.any(|task| !task.is_finished());
        !is_running && self.latest.borrow().is_old(ttl)
    }
}

/// The groups of topics. A list is read again by the first request after
/// [`StatusSettings::groups_ttl`]; requests get the old one until the new one is there.
#[derive(Debug)]
pub(super) struct GroupLists {
    brokers: Arc<Brokers>,
    settings: Arc<StatusSettings>,
    topics: Mutex<HashMap<String, Topic>>,
}

impl GroupLists {
    pub(super) fn new(brokers: Arc<Brokers>, settings: Arc<StatusSettings>) -> Self {
        Self {
            brokers,
            settings,
            topics: Mutex::default(),
        }
    }

    /// The groups that read a topic. Waits until `until` for the first list. Cancel-safe.
    ///
    /// # Errors
    /// Why there is no list, for people.
    pub(super) async fn of_topic(
        &self,
        topic: &str,
        until: Instant,
    ) -> Result<Arc<GroupList>, String> {
        if let Some(named) = self.settings.groups.get(topic) {
            let sorted: BTreeSet<&String> = named.iter().collect();
            let names = sorted.into_iter().cloned().collect();
            return Ok(Arc::new(GroupList { names, unread: 0 }));
        }
        let mut latest = self.follow(topic);
        let is_there = latest.wait_for(|latest| latest.ended.is_some());
        // Without a result in time, the answer says so.
        drop(timeout_at(until, is_there).await);
        let latest = latest.borrow().clone();
        latest.answer()
    }

    /// The results for a topic. Starts to read its groups if the list is old.
    fn follow(&self, topic: &str) -> watch::Receiver<Latest> {
        let mut topics = self.topics();
        if topics.len() >= TOPICS_MAX && !topics.contains_key(topic) {
            topics.clear();
        }
        let entry = topics.entry(topic.to_owned()).or_default();
        if entry.is_due(self.settings.groups_ttl) {
            let (brokers, groups_max) = (Arc::clone(&self.brokers), self.settings.groups_max);
            let (latest, topic) = (Arc::clone(&entry.latest), topic.to_owned());
            entry.task = Some(tokio::spawn(async move {
                let old = latest.borrow().list.clone().unwrap_or_default();
                let found = Box::pin(discover(&brokers, &topic, groups_max, &old)).await;
                latest.send_modify(|latest| latest.end(found));
            }));
        }
        entry.latest.subscribe()
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the brokers for the groups that have committed on the topic, or are assigned it. The lists
/// of all topics take turns, request by request, so that together they block one thread. A group
/// whose offsets cannot be read is in the list if the old one has it.
async fn discover(
    brokers: &Brokers,
    topic: &str,
    groups_max: usize,
    old: &GroupList,
) -> Result<GroupList, Problem> {
    let admin = brokers.admin().await?;
    let listed = match brokers.read_for_list(admin.groups()).await {
        Ok(listed) => listed,
        // The mock cluster lists none.
        Err(KafkaError::Unsupported { .. }) => Vec::new(),
        Err(error) => return Err(unavailable(&error)),
    };
    let name = topic.to_owned();
    let counts = admin.partition_counts(std::slice::from_ref(&name));
    let counts = brokers.read_for_list(counts).await;
    let counts = counts.map_err(|error| unavailable(&error))?;
    let count = counts.get(topic).copied().unwrap_or(0);
    let partitions: Vec<i32> = (0..i32::try_from(count).unwrap_or(i32::MAX)).collect();
    let mut found = GroupList::default();
    for group in listed {
        let is_of_consumers = group.protocol.is_empty() || group.protocol.starts_with("consumer");
        if !is_of_consumers || found.names.len() >= groups_max {
            continue;
        }
        let mut members = group.members.iter();
        let is_assigned = members.any(|member| member.assignment.contains_key(topic));
        let is_reader = match is_assigned {
            true => Ok(true),
            false => {
                let read = has_committed(admin, &group.group, topic, &partitions);
                brokers.read_for_list(read).await
            }
        };
        let is_reader = is_reader.unwrap_or_else(|error| {
            let group = group.group.as_str();
            tracing::warn!(group, %error, "the offsets of a group could not be read");
            found.unread += 1;
            old.names.iter().any(|name| name == group)
        });
        if is_reader {
            found.names.push(group.group);
        }
    }
    Ok(found)
}

/// Whether the group has committed an offset of the topic.
async fn has_committed(
    admin: &Admin,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<bool, KafkaError> {
    match group_progress(admin, group, topic, partitions).await {
        Ok(progress) => Ok(progress.iter().any(|part| part.committed.is_some())),
        // A group that the gateway may not see is not reported.
        Err(KafkaError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ProblemKind;
    use evenkeel::kafka::KafkaConfig;
    use evenkeel::testing::{KafkaKind, TestKafka};
    use futures_util::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn an_old_list_stays_until_a_new_one_is_there() {
        let ttl = Duration::from_secs(30);
        let mut latest = Latest::default();
        assert!(latest.is_old(ttl));
        let reading = latest.clone().answer().expect_err("nothing is known");
        assert!(reading.contains("ask again"), "{reading}");

        let failure = || Err(Problem::new(ProblemKind::Unavailable, "no brokers"));
        latest.end(failure());
        let why = latest.clone().answer().expect_err("nothing is known");
        assert!(why.contains("no brokers"), "{why}");
        assert!(!latest.is_old(ttl));
        tokio::time::advance(ASK_AGAIN_AFTER).await;
        assert!(latest.is_old(ttl));

        let list = GroupList {
            names: vec!["payments".to_owned()],
            unread: 1,
        };
        latest.end(Ok(list.clone()));
        assert_eq!(latest.clone().answer().as_deref(), Ok(&list));
        tokio::time::advance(ASK_AGAIN_AFTER).await;
        assert!(!latest.is_old(ttl));
        latest.end(failure());
        assert_eq!(latest.answer().as_deref(), Ok(&list));
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_the_groups() {
        let settings = StatusSettings::default().with_search_timeout(Duration::from_millis(200));
        let brokers = Brokers::new(KafkaConfig::new("localhost:1"), &settings);
        let lists = GroupLists::new(Arc::new(brokers), Arc::new(settings));
        let now = Instant::now();
        let why = lists.of_topic("t", now).await.expect_err("none is known");
        assert!(why.contains("ask again"), "{why}");
        // The task has gone on without its first caller.
        let why = lists.of_topic("t", now + Duration::from_secs(60)).await;
        let why = why.expect_err("no broker answers");
        assert!(why.contains("unknown"), "{why}");
    }

    #[tokio::test]
    async fn the_lists_of_all_topics_take_turns() {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster starts");
        for topic in ["first", "second"] {
            kafka.create_topic(topic, 1).await.expect("a topic");
        }
        let settings = StatusSettings::default();
        let brokers = Arc::new(Brokers::new(kafka.config(), &settings));
        let lists = GroupLists::new(Arc::clone(&brokers), Arc::new(settings));
        let within = |seconds| Instant::now() + Duration::from_secs(seconds);
        let found = lists.of_topic("first", within(60)).await;
        found.expect("the mock cluster has no groups");
        let mut other = Box::pin(brokers.read_for_list(std::future::pending::<()>()));
        assert!(other.as_mut().now_or_never().is_none(), "it never ends");
        let waits = lists.of_topic("second", within(1)).await;
        let why = waits.expect_err("it is not its turn");
        assert!(why.contains("ask again"), "{why}");
        drop(other);
        let found = lists.of_topic("second", within(60)).await;
        found.expect("it is its turn");
    }
}
