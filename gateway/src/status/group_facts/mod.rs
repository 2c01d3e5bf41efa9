//! Reads what is known of an event in the groups of its topic: progress, retry topic, dead letters,
//! commands and inbox.
//!
//! The reads follow the way of a record: progress, retry topic, dead letters, inbox. A running
//! group moves a record only in this direction, so that none is missed between two reads. Cached
//! reads keep the order: each belongs to the read of the progress that it followed
//! ([`Generation`]). A read that is not needed for the state is left out.

mod group_list;

use self::group_list::{GroupList, GroupLists};
use super::answer::GroupStatus;
use super::brokers::{Brokers, unavailable};
use super::log_search::{self, DeadLetterPlace, SearchLimits, Since};
use super::settings::StatusSettings;
use super::shared_cache::SharedCache;
use super::verdict::{DeadLetterSearch, Facts, Members, Parked, parked_in, unknown, verdict};
use crate::http::Problem;
use evenkeel::consumer::{ParkedKey, PartitionProgress, group_progress, parked_keys_in};
use evenkeel::control::{Action, CommandOutcome, History};
use evenkeel::inbox::{Completions, InboxKey, completions};
use evenkeel::kafka::reader::{Reader, Reading, Start};
use evenkeel::kafka::{KafkaConfig, KafkaError, RecordPosition};
use evenkeel::recovery::retry_topic;
use evenkeel_ops::groups::control_log::ControlLog;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OnceCell;

/// The most entries of each cache.
const ENTRIES_MAX: usize = 1_000;
/// A dead letter is searched from this long before the time of its record, in milliseconds: clocks
/// differ.
const CLOCK_SKEW_MS: i64 = 60_000;

/// The identity of an event.
#[derive(Debug, Clone)]
pub(super) struct EventIdentity {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) ty: String,
    /// The position of its record.
    pub(super) at: RecordPosition,
    /// A time before any group read its record. `None` if nothing is known.
    pub(super) written: Option<Since>,
}

/// A time before any group read a record. The timestamp that its publisher set may be any time, and
/// one in the future may be over by now: it is no more than a claim.
pub(super) fn written(
    accepted_ms: Option<i64>,
    timestamp_ms: Option<i64>,
    has_append_time: bool,
    now_ms: i64,
) -> Option<Since> {
    let of_timestamp = |ms: i64| match has_append_time {
        true => Since::Known(ms),
        false => Since::Claimed(ms.min(now_ms)),
    };
    accepted_ms
        .map(Since::Known)
        .or(timestamp_ms.map(of_timestamp))
}

/// A group and a partition that it reads.
type GroupPartition = (String, String, i32);

/// When the progress of a partition was read. What is read after it belongs to it.
type Generation = Instant;

/// The most partitions whose waiting keys are kept, each with at most
/// [`StatusSettings::parked_records_max`] records.
const WAITING_KEPT_MAX: usize = 8;
/// The most control topics whose skips are kept.
const SKIPS_KEPT_MAX: usize = 32;

/// Operators of skips by the record that was skipped.
type Skips = Arc<HashMap<RecordPosition, String>>;

/// The waiting keys of a partition.
#[derive(Debug)]
enum WaitingKeys {
    Keys(Vec<ParkedKey>),
    TooMany,
}

/// The groups that read topics, and what they have done. Its facts are shared between callers, and
/// at most [`StatusSettings::snapshot_ttl`] old.
#[derive(Debug)]
pub(super) struct Groups {
    brokers: Arc<Brokers>,
    settings: Arc<StatusSettings>,
    lists: GroupLists,
    members: SharedCache<String, Members>,
    progress: SharedCache<GroupPartition, (Generation, PartitionProgress)>,
    waiting: SharedCache<(GroupPartition, Generation), Arc<WaitingKeys>>,
    skips: SharedCache<(String, Generation), Skips>,
    dead_letters: SharedCache<(String, RecordPosition, Generation), DeadLetterSearch>,
    stores: HashMap<String, Store>,
}

/// The inbox of a group, which is opened by the first read that succeeds.
#[derive(Default)]
struct Store(OnceCell<Arc<dyn Completions>>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.0.initialized()).finish()
    }
}

impl Groups {
    pub(super) fn new(brokers: Arc<Brokers>, settings: Arc<StatusSettings>) -> Self {
        let ttl = settings.snapshot_ttl;
        let stores = settings.completions.keys();
        Self {
            lists: GroupLists::new(Arc::clone(&brokers), Arc::clone(&settings)),
            members: SharedCache::new(ttl, ENTRIES_MAX),
            progress: SharedCache::new(ttl, ENTRIES_MAX),
            waiting: SharedCache::new(ttl, WAITING_KEPT_MAX),
            skips: SharedCache::new(ttl, SKIPS_KEPT_MAX),
            dead_letters: SharedCache::new(ttl, ENTRIES_MAX),
            stores: stores
                .map(|group| (group.clone(), Store::default()))
                .collect(),
            brokers,
            settings,
        }
    }

    /// The groups that read a topic, sorted. Waits until `until` for the first list.
    ///
    /// # Errors
    /// Why they are not known, for people.
    pub(super) async fn of_topic(
        &self,
        topic: &str,
        until: tokio::time::Instant,
    ) -> Result<Arc<GroupList>, String> {
        self.lists.of_topic(topic, until).await
    }

    /// The state of an event in a group. If it cannot be read, it is `unknown`, with the reason.
    pub(super) async fn status(&self, group: &str, event: &EventIdentity) -> GroupStatus {
        match self.facts(group, event).await {
            Ok(facts) => verdict(group, &facts),
            Err(problem) => unknown(group, problem.detail),
        }
    }

    /// The facts that decide the state.
    async fn facts(&self, group: &str, event: &EventIdentity) -> Result<Facts, Problem> {
        let (generation, progress) = self.progress(group, &event.at).await?;
        let mut facts = Facts::new(event.at.clone(), Members::Unknown, progress);
        facts.completed_ms = self.completed_ms(group, event).await;
        if facts.completed_ms.is_some() {
            return Ok(facts);
        }
        if !facts.progress.is_settled(event.at.offset) {
            facts.members = self.members(group).await?;
            return Ok(facts);
        }
        facts.parked = self.parked(group, &event.at, generation).await?;
        if facts.parked != Parked::No {
            return Ok(facts);
        }
        facts.dead_letter = self.dead_letter(group, event, generation).await?;
        if !matches!(facts.dead_letter, DeadLetterSearch::Found(_)) {
            let skips = self.skips(group, generation).await?;
            facts.skipped_by = skips.get(&event.at).cloned();
        }
        // A parked record may have been handled since the inbox was asked.
        facts.completed_ms = self.completed_ms(group, event).await;
        Ok(facts)
    }

    async fn progress(
        &self,
        group: &str,
        at: &RecordPosition,
    ) -> Result<(Generation, PartitionProgress), Problem> {
        let key = (group.to_owned(), at.topic.clone(), at.partition);
        let read = async {
            let progress = self.progress_of(group, &at.topic, at.partition).await?;
            Ok((Instant::now(), progress))
        };
        self.progress.get(key, read).await
    }

    /// The progress of a group on a partition of any topic.
    async fn progress_of(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<PartitionProgress, Problem> {
        let _slot = self.brokers.free_slot().await?;
        let admin = self.brokers.admin().await?;
        let progress = group_progress(admin, group, topic, &[partition]).await;
        let mut progress = progress.map_err(|error| unavailable(&error))?.into_iter();
        let own = progress.find(|part| part.partition == partition);
        Ok(own.unwrap_or_else(|| PartitionProgress::new(partition)))
    }

    async fn members(&self, group: &str) -> Result<Members, Problem> {
        let read = async {
            let admin = self.brokers.admin().await?;
            match admin.describe_group(group).await {
                Ok(None) => Ok(Members::NoGroup),
                Ok(Some(found)) if !found.are_members_known => Ok(Members::Unknown),
                Ok(Some(found)) => Ok(Members::Count(found.members.len())),
                // The mock cluster, and very old brokers.
                Err(KafkaError::Unsupported { .. }) => Ok(Members::Unknown),
                Err(error) => Err(unavailable(&error)),
            }
        };
        self.members.get(group.to_owned(), read).await
    }

    async fn parked(
        &self,
        group: &str,
        at: &RecordPosition,
        generation: Generation,
    ) -> Result<Parked, Problem> {
        let place = (group.to_owned(), at.topic.clone(), at.partition);
        let key = (place.clone(), generation);
        let records_max = self.settings.parked_records_max;
        let read = async {
            let retry = retry_topic(group, &at.topic);
            let progress = self.progress_of(group, &retry, at.partition).await?;
            let read = move |kafka: &KafkaConfig, limits| {
                waiting_keys(kafka, &place, progress, records_max, limits).map(Arc::new)
            };
            self.brokers.read_when_free(read).await
        };
        let waiting = self.waiting.get(key, read).await?;
        Ok(match &*waiting {
            WaitingKeys::Keys(keys) => parked_in(keys, at.offset),
            WaitingKeys::TooMany => Parked::TooMany,
        })
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: &EventIdentity,
        generation: Generation,
    ) -> Result<DeadLetterSearch, Problem> {
        let topic = self.settings.dead_letter_topics.get(group).cloned();
        let place = DeadLetterPlace {
            topic: topic.unwrap_or_default().of(group, &event.at.topic),
            group: group.to_owned(),
            origin: event.at.clone(),
            since: event.written.map(|since| since.before(CLOCK_SKEW_MS)),
        };
        let search =
            move |kafka: &KafkaConfig, limits| log_search::dead_letter(kafka, &place, limits);
        let key = (group.to_owned(), event.at.clone(), generation);
        self.dead_letters
            .get(key, self.brokers.read_when_free(search))
            .await
    }

    /// The skips that members of the group acknowledged, by its control topic.
    async fn skips(&self, group: &str, generation: Generation) -> Result<Skips, Problem> {
        let read = async {
            let _slot = self.brokers.free_slot().await?;
            let admin = self.brokers.admin().await?;
            let log = ControlLog::open(&self.brokers.cluster(), admin, group).await;
            let Some(log) = log.map_err(|error| unavailable(&error))? else {
                return Ok(Skips::default());
            };
            let skips = acknowledged_skips(&log.history);
            // Closing its client blocks.
            drop(tokio::task::spawn_blocking(move || drop(log)));
            Ok(Arc::new(skips))
        };
        self.skips.get((group.to_owned(), generation), read).await
    }

    /// When the effect of the event was committed, by the group's inbox. `None` if it was not, if
    /// no inbox is configured, and if it does not answer.
    async fn completed_ms(&self, group: &str, event: &EventIdentity) -> Option<i64> {
        let (settings, store) = (
            self.settings.completions.get(group)?,
            self.stores.get(group)?,
        );
        let read = async {
            let open = || completions::open(&settings.address, group);
            let inbox = store.0.get_or_try_init(open).await?;
            let handlers = settings.handlers_of(&event.ty).into_iter();
            let keys: Vec<InboxKey> = handlers
                .map(|handler| InboxKey::new(group, handler, &event.source, &event.id))
                .collect();
            inbox.completed(&keys).await
        };
        match tokio::time::timeout(self.settings.store_timeout, read).await {
            Ok(Ok(found)) => found.into_iter().flatten().map(|found| found.at_ms).min(),
            Ok(Err(error)) => {
                tracing::warn!(group, %error, "the inbox of a group could not be read");
                None
            }
            Err(_) => {
                tracing::warn!(group, "the inbox of a group does not answer in time");
                None
            }
        }
    }
}

/// The waiting keys of a partition, unless they are too many to be kept, by the group's progress on
/// its retry topic. Blocks.
fn waiting_keys(
    kafka: &KafkaConfig,
    (group, topic, partition): &GroupPartition,
    progress: PartitionProgress,
    records_max: u64,
    limits: SearchLimits,
) -> Result<WaitingKeys, KafkaError> {
    let retry = retry_topic(group, topic);
    // An empty extent: it is opened for the end of the partition only.
    let reading = Reading::whole([retry.as_str()])
        .with_partitions([*partition])
        .with_start(Start::End);
    let end = match Reader::open(kafka, &reading, limits.request_timeout()) {
        Ok(reader) => reader.spans().map(|span| span.start).max().unwrap_or(0),
        Err(KafkaError::UnknownTopic { .. } | KafkaError::UnknownPartition { .. }) => {
            return Ok(WaitingKeys::Keys(Vec::new()));
        }
        Err(error) => return Err(error),
    };
    let committed = progress.committed.unwrap_or(0);
    match u64::try_from(end.saturating_sub(committed)).unwrap_or(0) {
        0 => Ok(WaitingKeys::Keys(Vec::new())),
        entries if entries > records_max => Ok(WaitingKeys::TooMany),
        _ => {
            let timeout = limits.request_timeout();
            let keys = parked_keys_in(kafka, group, topic, &[progress], timeout)?;
            Ok(WaitingKeys::Keys(keys))
        }
    }
}

/// The operator of each skip that a member carried out.
fn acknowledged_skips(history: &History) -> HashMap<RecordPosition, String> {
    let skips = history.recorded().filter_map(|recorded| {
        let mut acks = recorded.acks.iter();
        let is_done = acks.any(|ack| ack.outcome == CommandOutcome::Skipped);
        match recorded.command.action {
            Action::Skip { record } if is_done => Some((record, recorded.command.by)),
            _ => None,
        }
    });
    skips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::control::{Ack, Command, Entry};

    fn position(offset: i64) -> RecordPosition {
        RecordPosition {
            topic: "shop.orders".to_owned(),
            partition: 3,
            offset,
        }
    }

    #[test]
    fn a_timestamp_of_a_publisher_is_a_claim() {
        let now = 1_000_000;
        for (accepted, timestamp, has_append_time, expected) in [
            (Some(5), Some(7), false, Some(Since::Known(5))),
            (None, Some(7), true, Some(Since::Known(7))),
            (None, Some(7), false, Some(Since::Claimed(7))),
            (None, Some(now + 1), false, Some(Since::Claimed(now))),
            (None, None, false, None),
        ] {
            let found = written(accepted, timestamp, has_append_time, now);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn only_a_skip_that_was_carried_out_counts() {
        let mut history = History::default();
        for (offset, outcome) in [
            (1, Some(CommandOutcome::Skipped)),
            (2, Some(CommandOutcome::AlreadySettled)),
            (3, None),
        ] {
            let record = position(offset);
            let skip = Command::new("ada", "a bad order", Action::Skip { record });
            let skip = skip.expect("a command");
            history.apply(&skip.key(), Entry::Command(skip.clone()));
            if let Some(outcome) = outcome {
                let ack = serde_json::json!({
                    "command": skip.id, "member": "m", "partitions": [], "outcome": outcome,
                    "at": skip.at, "detail": "",
                });
                let ack: Ack = serde_json::from_value(ack).expect("an acknowledgement");
                history.apply(&ack.key(), Entry::Ack(ack.clone()));
            }
        }
        let skips = acknowledged_skips(&history);
        assert_eq!(skips, HashMap::from([(position(1), "ada".to_owned())]));
    }
}
