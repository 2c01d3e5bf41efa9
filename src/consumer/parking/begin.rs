//! Finds out what is known of newly assigned retry partitions, and starts to read them.

use super::super::fall_back::Lost;
use super::super::ledger::Epoch;
use super::super::metadata::{self, Decoded, Log, Tag};
use super::super::partition::Partition;
use super::clean::Bounds;
use super::follow::{Follower, open};
use super::hand_out;
use super::lookup::{Answer, Places, Question, Told};
use super::trouble::Trouble;
use super::{APPEARED, RetryPartition, WITHOUT};
use crate::kafka::queue::{Committed, TopicId, forward, set_leader_epoch};
use crate::recovery::parking::Parking;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

/// How long to wait before what was not answered is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is asked whether a retry topic that does not exist has been created.
const APPEARED_EVERY: Duration = Duration::from_secs(5);

/// Assigned partitions whose retry partitions are not read.
#[derive(Default)]
pub(super) struct Unread {
    /// To be asked about, from that moment on.
    unknown: Vec<(Instant, Arc<Partition>)>,
    /// Asked about, and not answered yet.
    asked: Vec<Arc<Partition>>,
    /// Those without a retry topic, and when it is looked for again.
    without: Vec<(Instant, Arc<Partition>)>,
}

impl Unread {
    pub(super) fn add(&mut self, partitions: Vec<Arc<Partition>>) {
        let now = Instant::now();
        let unknown = partitions.into_iter().map(|partition| (now, partition));
        self.unknown.extend(unknown);
    }

    /// Forgets those that went, and gives them back.
    pub(super) fn forget(&mut self, epochs: &[Epoch]) -> Vec<Arc<Partition>> {
        let is_gone = |partition: &Partition| epochs.contains(&partition.epoch);
        let mut gone: Vec<Arc<Partition>> = Vec::new();
        gone.extend(self.asked.extract_if(.., |partition| is_gone(partition)));
        for list in [&mut self.unknown, &mut self.without] {
            let of_list = list.extract_if(.., |(_, partition)| is_gone(partition));
            gone.extend(of_list.map(|(_, partition)| partition));
        }
        gone
    }

    /// When something is to be asked next.
    pub(super) fn next(&self) -> Option<Instant> {
        let timed = self.unknown.iter().chain(&self.without);
        timed.map(|(at, _)| *at).min()
    }

    /// Whether this was asked about, and still is to be known.
    fn answered(&mut self, partition: &Arc<Partition>) -> bool {
        let at = self
            .asked
            .iter()
            .position(|asked| asked.epoch == partition.epoch);
        at.map(|at| self.asked.swap_remove(at)).is_some()
    }

    /// Takes out what is to be asked now, by retry topic.
    fn due(&mut self) -> Vec<(Question, Arc<str>, Vec<Arc<Partition>>)> {
        let now = Instant::now();
        let lists = [
            (Question::Places, &mut self.unknown),
            (Question::Appeared, &mut self.without),
        ];
        let mut due = Vec::new();
        for (question, list) in lists {
            let mut topics: HashMap<Arc<str>, Vec<Arc<Partition>>> = HashMap::new();
            for (_, partition) in list.extract_if(.., |(at, _)| *at <= now) {
                if let Some(retry) = &partition.retry {
                    let of_topic = topics.entry(Arc::clone(&retry.topic)).or_default();
                    of_topic.push(partition);
                }
            }
            due.extend(topics.into_iter().map(|(topic, of)| (question, topic, of)));
        }
        for (_, _, partitions) in &due {
            self.asked.extend(partitions.iter().cloned());
        }
        due
    }
}

impl Follower {
    /// Asks about those that are not known yet, and reads those that were answered for.
    pub(super) fn look_up(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            self.take_answer(answer);
        }
        for (question, topic, partitions) in self.unread.due() {
            self.asker.ask(topic, partitions, question);
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        for partition in answer.partitions {
            // It may have gone meanwhile.
            if !self.unread.answered(&partition) {
                continue;
            }
            let Some(retry) = &partition.retry else {
                continue;
            };
            match &answer.told {
                Told::Found(places) => {
                    if let Err(error) = self.begin(&partition, places) {
                        self.wait_for(&partition, retry, error.into());
                    }
                }
                Told::Appeared => {
                    tracing::warn!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, "the retry topic exists now; the partition begins anew, so that nothing overtakes what may be parked there");
                    retry.set_gate(APPEARED);
                    self.engine.parking.appeared.store(true, Release);
                }
                Told::Trouble(trouble) if !retry.is_open() => {
                    self.wait_for(&partition, retry, trouble.clone());
                }
                Told::Absent | Told::Trouble(_) => self.go_without(&partition, retry),
            }
        }
    }

    /// It is not known what waits there: the partition waits, too.
    fn wait_for(&mut self, partition: &Arc<Partition>, retry: &RetryPartition, trouble: Trouble) {
        let number = partition.partition;
        if !self.troubles.has(&retry.topic, number) {
            tracing::warn!(group = self.engine.group, topic = %retry.topic, partition = number, ?trouble, "it is not known what is parked; the partition waits for that");
        }
        self.troubles.add(&retry.topic, number, trouble);
        let at = Instant::now() + AGAIN_AFTER;
        self.unread.unknown.push((at, Arc::clone(partition)));
    }

    /// Nothing can be parked, so nothing has to be waited for. The topic is looked for again.
    fn go_without(&mut self, partition: &Arc<Partition>, retry: &RetryPartition) {
        let at = Instant::now() + APPEARED_EVERY;
        self.unread.without.push((at, Arc::clone(partition)));
        if retry.is_open() {
            return;
        }
        tracing::warn!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, "the retry topic does not exist and cannot be created: until it is there nothing can be parked, and what fails too often is dead-lettered");
        self.troubles.remove(&retry.topic, partition.partition);
        retry.set_gate(WITHOUT);
        self.engine.wake_intake();
    }

    fn begin(&mut self, partition: &Arc<Partition>, places: &Places) -> KafkaResult<()> {
        let Some(retry) = &partition.retry else {
            return Ok(());
        };
        let number = partition.partition;
        let offset_in = |list: &TopicPartitionList| -> KafkaResult<i64> {
            let found = list.find_partition(&retry.topic, number);
            let found = found.ok_or(ClientError::Canceled)?;
            found.error()?;
            Ok(found.offset().to_raw().unwrap_or(0).max(0))
        };
        let (low, end) = (offset_in(&places.beginnings)?, offset_in(&places.ends)?);
        let found = places
            .committed
            .iter()
            .find(|found| found.topic == *retry.topic && found.partition == number);
        if let Some(error) = found.and_then(|found| found.error) {
            return Err(ClientError::OffsetFetch(error));
        }
        let nothing = Committed::default();
        let found = found.unwrap_or(&nothing);
        let (committed, told) = self.stands(partition, retry, found, places.topic_id, end);
        let wait_max = self.engine.settings.retry.park_delay_max();
        let wait_max_ms = i64::try_from(wait_max.as_millis()).unwrap_or(i64::MAX);
        let start = committed.unwrap_or(low).max(low);
        let is_committed = committed.is_some();
        let (settled, leader_epoch) =
            (told.settled_above.runs(), told.settled_above.leader_epoch());
        let mut state = Parking::new(start, end, settled, wait_max_ms, is_committed);
        state.settled_under(leader_epoch);
        if let Some(committed) = committed {
            state.begins_at(low, committed);
        }
        if let Some(first) = state.first_lost() {
            let entries = state.lost();
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = number, entries, first, "entries of the retry partition were deleted before they were settled, and what was parked there is lost");
        }
        retry.change(|set| *set = state);
        self.engine.show_loss(partition);
        let leader_epoch = committed.and(found.leader_epoch).max(leader_epoch);
        retry.reads(Log {
            topic_id: places.topic_id,
            leader_epoch,
        });
        forward(&self.consumer, &retry.topic, number, self.queue.target())?;
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(&retry.topic, number, Offset::Offset(start))?;
        if committed == Some(start) {
            set_leader_epoch(&assigned, &retry.topic, number, leader_epoch)?;
        }
        self.consumer.incremental_assign(&assigned)?;
        let bounds = Bounds::new(low, start);
        self.engine
            .parking
            .bounds()
            .begin(&retry.topic, number, bounds);
        self.troubles.remove(&retry.topic, number);
        open(&self.engine, retry);
        let partitions = self.followed.entry(Arc::clone(&retry.topic)).or_default();
        partitions.insert(number, Arc::clone(partition));
        let begun = hand_out::Order::Begun(Arc::clone(partition));
        self.engine.parking.tell_dispatcher(begun);
        Ok(())
    }

    /// Where the group stands in a retry partition, and what is settled above that; nothing where that is of another log.
    fn stands(
        &self,
        partition: &Partition,
        retry: &RetryPartition,
        found: &Committed,
        id: Option<TopicId>,
        end: i64,
    ) -> (Option<i64>, Decoded) {
        let Some(offset) = found.offset else {
            return Default::default();
        };
        let tag = Tag {
            group: &self.engine.group,
            topic: &retry.topic,
            partition: partition.partition,
        };
        let told = metadata::decode(tag, offset, &found.metadata);
        let lost = match told.topic_id.zip(id) {
            Some((was, is)) if was != is => Lost::Recreated,
            _ if offset > end || retry.is_anew() => Lost::Truncated,
            _ => return (Some(offset), told),
        };
        let place = (&*retry.topic, partition.partition);
        self.engine.position_lost(place, lost, Some(offset), None);
        Default::default()
    }
}
