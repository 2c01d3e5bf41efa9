//! Looks up retry partitions at the brokers: whether they exist, the group's committed offsets, and
//! their first and end offsets.
//!
//! Every request to the brokers blocks, up to 5 s for each, and a broker that is down must not
//! delay the partitions of others: offsets are asked of each leader separately, on threads that end
//! with their answer. A result is either certain or [`LookupResult::Trouble`]. A topic counts as
//! absent only if the brokers say so *and* refuse its creation: otherwise a broker that does not
//! know it yet would open a partition without its parked records.
//!
//! | topic | creation | result for its partitions |
//! |---|---|---|
//! | exists, with the partition | | found: committed, first and end offset |
//! | too few partitions | partitions are added | found, or trouble: add them by hand |
//! | missing | created | found, or trouble until all brokers know it |
//! | missing | refused | absent: the source partition opens without parking |
//! | hidden, or no answer | | trouble: the source partition waits |
//! | was absent, exists now | | appeared: the source partition is opened again |

use crate::consumer::group_topics;
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
pub(crate) struct Answer {
    /// The source partitions that it is about.
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// The same for all of them.
    pub(crate) told: LookupResult,
}

/// What a lookup found out.
pub(crate) enum LookupResult {
    /// They exist.
    Found(Arc<Places>),
    /// Their topic does not exist and cannot be created.
    Absent,
    /// Their topic was created since the last lookup.
    Appeared,
    /// The parked records are unknown.
    Trouble(ReadError),
}

/// The committed, first and end offsets of retry partitions.
pub(crate) struct Places {
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
pub(crate) enum Question {
    /// All offsets of partitions that are to be read.
    Places,
    /// Whether a missing topic has been created.
    Appeared,
}

/// Whether the topic exists, with the leaders of its partitions.
enum Presence {
    /// The leader of each partition; -1 for none.
    Present(HashMap<i32, i32>),
    Absent,
    /// It is unknown whether the topic exists.
    Trouble(ReadError),
}

/// Creates missing topics and partitions, at a limited rate, for all lookups of a member: many
/// partitions miss the same topic.
struct Maker {
    shared: Arc<Shared>,
    kafka: KafkaConfig,
    runtime: Handle,
    /// The time of the last attempt, and whether the brokers refused it.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Maker {
    /// Creates missing topics and partitions. Returns true if the brokers refuse, so that they stay
    /// missing.
    ///
    /// Serialised: the second of two callers finds the result of the first.
    fn make(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, is_refused)) = *last
            && at.elapsed() < CREATE_AGAIN_AFTER
        {
            return is_refused;
        }
        let made = group_topics::make(&self.kafka, &self.shared.settings);
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
pub(crate) struct LookupThread {
    consumer: Arc<BaseConsumer<LoggingContext>>,
    /// Creates what is missing.
    maker: Arc<Maker>,
    answers: mpsc::Sender<Answer>,
    waker: Waker,
}

impl LookupThread {
    /// Creates it with the receiver of its answers. Every answer wakes `waker`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        kafka: KafkaConfig,
        runtime: Handle,
        consumer: Arc<BaseConsumer<LoggingContext>>,
        waker: Waker,
    ) -> (Self, mpsc::Receiver<Answer>) {
        let (answers, answered) = mpsc::channel();
        let maker = Maker {
            shared,
            kafka,
            runtime,
            last: Mutex::default(),
        };
        let asker = Self {
            consumer,
            maker: Arc::new(maker),
            answers,
            waker,
        };
        (asker, answered)
    }

    /// Looks up partitions of this retry topic. Every partition gets an answer, whatever happens.
    pub(crate) fn ask(&self, topic: Arc<str>, partitions: Vec<Arc<Partition>>, question: Question) {
        let asker = self.clone();
        let asked = partitions.clone();
        let ask = move || asker.run(&topic, asked, question);
        let spawned = thread::Builder::new()
            .name("evenkeel-lookup".to_owned())
            .spawn(ask);
        if let Err(error) = spawned {
            let trouble = ReadError::Other(format!("no thread to look it up: {error}"));
            self.answer(partitions, LookupResult::Trouble(trouble));
        }
    }

    /// Sends an answer, and wakes the reader.
    fn answer(&self, partitions: Vec<Arc<Partition>>, told: LookupResult) {
        // The receiver is dropped at the end of the run.
        let _ = self.answers.send(Answer { partitions, told });
        self.waker.wake();
    }

    /// The lookup, on its thread. Ends with an answer for every partition.
    fn run(&self, topic: &str, partitions: Vec<Arc<Partition>>, question: Question) {
        let mut presence = self.presence(topic);
        let is_lacking = |leaders: &HashMap<i32, i32>| {
            let mut numbers = partitions.iter().map(|partition| partition.partition);
            numbers.any(|number| !leaders.contains_key(&number))
        };
        if question == Question::Appeared {
            let result = match presence {
                Presence::Absent => LookupResult::Absent,
                Presence::Present(_) => LookupResult::Appeared,
                Presence::Trouble(trouble) => LookupResult::Trouble(trouble),
            };
            return self.answer(partitions, result);
        }
        match &presence {
            Presence::Absent => {
                let is_refused = self.maker.make();
                presence = self.presence(topic);
                if matches!(presence, Presence::Absent) {
                    let result = match is_refused {
                        true => LookupResult::Absent,
                        // The topic was created just now, here or by another member. This broker
                        // does not know it yet.
                        false => LookupResult::Trouble(ReadError::InDoubt),
                    };
                    return self.answer(partitions, result);
                }
            }
            Presence::Present(leaders) if is_lacking(leaders) => {
                self.maker.make();
                presence = self.presence(topic);
            }
            Presence::Present(_) | Presence::Trouble(_) => {}
        }
        match presence {
            Presence::Present(leaders) => self.ask_leaders(topic, partitions, &leaders),
            Presence::Absent => self.answer(partitions, LookupResult::Trouble(ReadError::InDoubt)),
            Presence::Trouble(trouble) => self.answer(partitions, LookupResult::Trouble(trouble)),
        }
    }

    /// Looks up the topic by name: a list of all topics omits topics without permission.
    ///
    /// The answer of one broker, which may be behind the others.
    fn presence(&self, topic: &str) -> Presence {
        let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
            Ok(metadata) => metadata,
            Err(error) => return Presence::Trouble(error.into()),
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else {
            return Presence::Trouble(ReadError::InDoubt);
        };
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Presence::Absent,
            Some(error) => Presence::Trouble(ClientError::MetadataFetch(error).into()),
            None if found.partitions().is_empty() => Presence::Trouble(ReadError::InDoubt),
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

    /// Asks each leader about its own partitions.
    ///
    /// Committed offsets come from the group's coordinator, in one request for all. Partitions that
    /// the topic does not have, although its source has them, are a trouble of their own: they can
    /// be added.
    fn ask_leaders(
        &self,
        topic: &str,
        partitions: Vec<Arc<Partition>>,
        leaders: &HashMap<i32, i32>,
    ) {
        let (known, lacking): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .partition(|partition| leaders.contains_key(&partition.partition));
        if !lacking.is_empty() {
            let partitions = leaders.len();
            self.answer(
                lacking,
                LookupResult::Trouble(ReadError::Lacking { partitions }),
            );
        }
        let committed = match list(topic, &known, Offset::Invalid)
            .and_then(|list| committed(&self.consumer, &list, ANSWER_WITHIN))
        {
            Ok(committed) => committed,
            Err(error) => return self.answer(known, LookupResult::Trouble(error.into())),
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
                        self.places(topic, &partitions, committed)
                    };
                    let result = result.map_or_else(
                        |error| LookupResult::Trouble(error.into()),
                        |places| LookupResult::Found(Arc::new(places)),
                    );
                    self.answer(partitions, result);
                };
                scope.spawn(ask);
            }
        });
    }

    /// All offsets of partitions with one leader. Blocks for up to four requests.
    fn places(
        &self,
        topic: &str,
        partitions: &[Arc<Partition>],
        committed: &[Committed],
    ) -> KafkaResult<Places> {
        let ask = |offset| {
            let places = list(topic, partitions, offset)?;
            self.consumer.offsets_for_times(places, ANSWER_WITHIN)
        };
        let is_asked = |found: &&Committed| {
            let mut numbers = partitions.iter().map(|partition| partition.partition);
            numbers.any(|number| number == found.partition)
        };
        Ok(Places {
            committed: committed.iter().filter(is_asked).cloned().collect(),
            beginnings: ask(Offset::Beginning)?,
            ends: ask(Offset::End)?,
            topic_id: topic_ids(self.consumer.client(), &[topic], ANSWER_WITHIN).remove(topic),
        })
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
