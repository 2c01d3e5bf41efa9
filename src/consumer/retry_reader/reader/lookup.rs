//! Looks up retry partitions at the brokers: whether they exist, the group's committed offsets, and
//! their first and end offsets.
//!
//! Every request to the brokers blocks, up to 5 s for each, and a broker that is down must not
//! delay the partitions of others: each leader is asked separately, on a thread that ends with its
//! answer. A result is either certain or [`LookupResult::Failed`]. A topic counts as absent only if
//! the brokers report it missing *and* refuse its creation. Otherwise a broker that does not know
//! the topic yet would open a partition without its parked records.
//!
//! | topic | creation | result for its partitions |
//! |---|---|---|
//! | exists, with the partition | | found: committed, first and end offset |
//! | too few partitions | partitions are added | found, or failed: add them by hand |
//! | missing | created | found, or failed until all brokers know it |
//! | missing | refused | absent: the source partition opens without parking |
//! | hidden, or no answer | | failed: the source partition waits |
//! | was absent, exists now | | appeared: the source partition is opened again |

use crate::consumer::group_topics;
use crate::consumer::retry_reader::reader::lookup_client::LookupClient;
use crate::consumer::retry_reader::reader::read_errors::ReadError;
use crate::consumer::retry_reader::telemetry;
use crate::consumer::shared::Shared;
use crate::consumer::shared::retry_topics::Waker;
use crate::consumer::state::partition::Partition;
use crate::kafka::log::LoggingContext;
use crate::kafka::native::{Committed, TopicId, committed, topic_ids};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long to wait for one answer of the brokers.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before missing topics and partitions are created again.
const CREATE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The result of a lookup for some partitions of one retry topic.
pub(crate) struct LookupAnswer {
    /// The source partitions that it is about.
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// The same for all of them.
    pub(crate) result: LookupResult,
}

/// What a lookup found out.
pub(crate) enum LookupResult {
    /// They exist.
    Found(Arc<PartitionOffsets>),
    /// Their topic does not exist and cannot be created.
    Absent,
    /// Their topic was created since the last lookup.
    Appeared,
    /// The parked records are unknown.
    Failed(ReadError),
}

/// The committed, first and end offsets of retry partitions.
pub(crate) struct PartitionOffsets {
    /// The group's committed offsets.
    pub(crate) committed: Vec<Committed>,
    /// The first offsets.
    pub(crate) beginnings: TopicPartitionList,
    /// The end offsets, which decide when the parked set is complete.
    pub(crate) ends: TopicPartitionList,
    /// The id of the topic.
    pub(crate) topic_id: Option<TopicId>,
}

/// The subject of a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupKind {
    /// All offsets of partitions that are to be read.
    Offsets,
    /// Whether a missing topic has been created.
    Existence,
}

/// Whether the topic exists, with the leaders of its partitions.
enum Presence {
    /// The leader of each partition; -1 for none.
    Present(HashMap<i32, i32>),
    Absent,
    /// It is unknown whether the topic exists.
    Unknown(ReadError),
}

/// Creates missing topics and partitions, at a limited rate, for all lookups of a member: many
/// partitions miss the same topic.
struct TopicCreator {
    shared: Arc<Shared>,
    kafka: KafkaConfig,
    runtime: Handle,
    /// The time of the last attempt, and whether the brokers refused it.
    last: Mutex<Option<(Instant, bool)>>,
}

impl TopicCreator {
    /// Creates missing topics and partitions. Returns true if the brokers refuse, so that they stay
    /// missing.
    ///
    /// Serialised: the second of two callers finds the result of the first.
    fn create(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, is_refused)) = *last
            && at.elapsed() < CREATE_AGAIN_AFTER
        {
            return is_refused;
        }
        let made = group_topics::create_missing_topics(&self.kafka, &self.shared.settings);
        let is_refused = match self.runtime.block_on(made) {
            Ok(()) => false,
            Err(error) => {
                telemetry::topics_not_created(&self.shared.group, &error);
                !matches!(
                    error,
                    KafkaError::Unreachable { .. }
                        | KafkaError::Tls { .. }
                        | KafkaError::Timeout { .. }
                        | KafkaError::UnknownTopic { .. }
                )
            }
        };
        *last = Some((Instant::now(), is_refused));
        is_refused
    }
}

/// Runs lookups on threads of their own.
///
/// Cheap to clone. Each lookup has a thread, and one more for each leader.
#[derive(Clone)]
pub(crate) struct Lookups {
    client: Arc<LookupClient>,
    /// Creates what is missing.
    creator: Arc<TopicCreator>,
    answers: mpsc::Sender<LookupAnswer>,
    waker: Waker,
}

impl Lookups {
    /// Creates it with the receiver of its answers. Every answer wakes `waker`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        kafka: KafkaConfig,
        runtime: Handle,
        client: LookupClient,
        waker: Waker,
    ) -> (Self, mpsc::Receiver<LookupAnswer>) {
        let (answers, answered) = mpsc::channel();
        let creator = TopicCreator {
            shared,
            kafka,
            runtime,
            last: Mutex::default(),
        };
        let lookups = Self {
            client: Arc::new(client),
            creator: Arc::new(creator),
            answers,
            waker,
        };
        (lookups, answered)
    }

    /// Looks up partitions of this retry topic. Every partition gets an answer, whatever happens.
    pub(crate) fn start(&self, topic: Arc<str>, partitions: Vec<Arc<Partition>>, kind: LookupKind) {
        let lookups = self.clone();
        let looked_up = partitions.clone();
        let look_up = move || lookups.run(&topic, looked_up, kind);
        let spawned = thread::Builder::new()
            .name("evenkeel-lookup".to_owned())
            .spawn(look_up);
        if let Err(error) = spawned {
            let error = ReadError::Other(format!("no thread to look it up: {error}"));
            self.answer(partitions, LookupResult::Failed(error));
        }
    }

    /// Sends an answer, and wakes the reader.
    fn answer(&self, partitions: Vec<Arc<Partition>>, result: LookupResult) {
        // The receiver is dropped at the end of the run.
        let _ = self.answers.send(LookupAnswer { partitions, result });
        self.waker.wake();
    }

    /// The lookup, on its thread. Ends with an answer for every partition.
    fn run(&self, topic: &str, partitions: Vec<Arc<Partition>>, kind: LookupKind) {
        let consumer = &self.client.consumer;
        let mut presence = presence_of(consumer, topic);
        let lacks_partitions = |leaders: &HashMap<i32, i32>| {
            let mut numbers = partitions.iter().map(|partition| partition.partition);
            numbers.any(|number| !leaders.contains_key(&number))
        };
        if kind == LookupKind::Existence {
            let result = match presence {
                Presence::Absent => LookupResult::Absent,
                Presence::Present(_) => LookupResult::Appeared,
                Presence::Unknown(error) => LookupResult::Failed(error),
            };
            return self.answer(partitions, result);
        }
        match &presence {
            Presence::Absent => {
                let is_refused = self.creator.create();
                presence = presence_of(consumer, topic);
                if matches!(presence, Presence::Absent) {
                    let result = match is_refused {
                        true => LookupResult::Absent,
                        // The topic was created just now, here or by another member. This broker
                        // does not know it yet.
                        false => LookupResult::Failed(ReadError::InDoubt),
                    };
                    return self.answer(partitions, result);
                }
            }
            Presence::Present(leaders) if lacks_partitions(leaders) => {
                self.creator.create();
                presence = presence_of(consumer, topic);
            }
            Presence::Present(_) | Presence::Unknown(_) => {}
        }
        match presence {
            Presence::Present(leaders) => {
                self.look_up_offsets(consumer, topic, partitions, &leaders);
            }
            Presence::Absent => self.answer(partitions, LookupResult::Failed(ReadError::InDoubt)),
            Presence::Unknown(error) => self.answer(partitions, LookupResult::Failed(error)),
        }
    }

    /// Asks each leader about its own partitions.
    ///
    /// Committed offsets come from the group's coordinator, in one request for all. Partitions that
    /// the topic does not have, although its source has them, have an answer of their own: they can
    /// be added.
    fn look_up_offsets(
        &self,
        consumer: &BaseConsumer<LoggingContext>,
        topic: &str,
        partitions: Vec<Arc<Partition>>,
        leaders: &HashMap<i32, i32>,
    ) {
        let (known, missing): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .partition(|partition| leaders.contains_key(&partition.partition));
        if !missing.is_empty() {
            let partitions = leaders.len();
            self.answer(
                missing,
                LookupResult::Failed(ReadError::Lacking { partitions }),
            );
        }
        let committed = match list(topic, &known, Offset::Invalid)
            .and_then(|list| committed(consumer, &list, ANSWER_WITHIN))
        {
            Ok(committed) => committed,
            Err(error) => return self.answer(known, LookupResult::Failed(error.into())),
        };
        let mut by_leader: HashMap<i32, Vec<Arc<Partition>>> = HashMap::new();
        for partition in known {
            let leader = leaders.get(&partition.partition).copied().unwrap_or(-1);
            by_leader.entry(leader).or_default().push(partition);
        }
        thread::scope(|scope| {
            for (leader, partitions) in by_leader {
                let committed = &committed;
                let ask = move || {
                    let result = if leader < 0 {
                        Err(ClientError::MetadataFetch(Code::LeaderNotAvailable))
                    } else {
                        offsets_of(consumer, topic, &partitions, committed)
                    };
                    let result = result.map_or_else(
                        |error| LookupResult::Failed(error.into()),
                        |offsets| LookupResult::Found(Arc::new(offsets)),
                    );
                    self.answer(partitions, result);
                };
                scope.spawn(ask);
            }
        });
    }
}

/// All offsets of partitions with one leader. Blocks for up to four requests.
fn offsets_of(
    consumer: &BaseConsumer<LoggingContext>,
    topic: &str,
    partitions: &[Arc<Partition>],
    committed: &[Committed],
) -> KafkaResult<PartitionOffsets> {
    let offsets_at = |offset| {
        let places = list(topic, partitions, offset)?;
        consumer.offsets_for_times(places, ANSWER_WITHIN)
    };
    let is_wanted = |found: &&Committed| {
        let mut numbers = partitions.iter().map(|partition| partition.partition);
        numbers.any(|number| number == found.partition)
    };
    Ok(PartitionOffsets {
        committed: committed.iter().filter(is_wanted).cloned().collect(),
        beginnings: offsets_at(Offset::Beginning)?,
        ends: offsets_at(Offset::End)?,
        topic_id: topic_ids(consumer.client(), &[topic], ANSWER_WITHIN).remove(topic),
    })
}

/// Looks up the topic by name: a list of all topics omits topics without permission.
///
/// The answer of one broker, which may be behind the others.
fn presence_of(consumer: &BaseConsumer<LoggingContext>, topic: &str) -> Presence {
    let metadata = match consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
        Ok(metadata) => metadata,
        Err(error) => return Presence::Unknown(error.into()),
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else {
        return Presence::Unknown(ReadError::InDoubt);
    };
    match found.error().map(Code::from) {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Presence::Absent,
        Some(error) => Presence::Unknown(ClientError::MetadataFetch(error).into()),
        None if found.partitions().is_empty() => Presence::Unknown(ReadError::InDoubt),
        None => {
            let partitions = found.partitions().iter();
            Presence::Present(
                partitions
                    .map(|partition| (partition.id(), partition.leader()))
                    .collect(),
            )
        }
    }
}

/// These partitions at this offset, as a list of the client.
fn list(
    topic: &str,
    partitions: &[Arc<Partition>],
    offset: Offset,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, partition.partition, offset)?;
    }
    Ok(list)
}
