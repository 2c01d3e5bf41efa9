//! Adds the entries that arrived to the parked set of their partition.
//!
//! Two doubts are resolved before an entry is added: a truncation of the log, and a gap between
//! entries. Each stops the run of messages and seeks.

use crate::consumer::retry_reader::reader::gap_check::{self, Gap, ReadOutcome};
use crate::consumer::retry_reader::reader::{RetryReader, SEEK_WITHIN};
use crate::consumer::retry_reader::telemetry;
use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::Now;
use crate::consumer::state::assignments::PositionLoss;
use crate::consumer::state::ordering_key::ordering_key;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::{OPEN, RetryPartition};
use crate::event::Headers;
use crate::kafka::native::{Message, set_leader_epoch};
use crate::recovery::parked::{Owner, RetryTopicEntry};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;

impl RetryReader {
    /// Processes consecutive messages of one partition. Returns false if further ones are fetched
    /// again.
    ///
    /// Two doubts are resolved first. If the first entry has a later leader epoch than the
    /// committed offset, a seek with the committed epoch has the brokers check for a truncation
    /// (KIP-320). And entries may be missing before one that arrived ([`gap_check`]).
    pub(super) fn process_run(
        &mut self,
        run: &[Message<'_>],
        partition: &Arc<Partition>,
        now: Now,
    ) -> bool {
        let Some(retry) = &partition.retry else {
            return true;
        };
        let next = retry.state().next();
        let first = run.iter().find(|message| message.error().is_none());
        if let Some(epoch) = first.and_then(|first| retry.check_first_entry(first.leader_epoch()))
            && self.verify_committed(partition.partition, retry, next, epoch)
        {
            return false;
        }
        let Some(gap) = gap_check::find(next, run.iter().map(read_outcome)) else {
            return self.add_entries(run, partition, retry, now);
        };
        if self.gaps.was_fetched_again(partition.epoch, &gap) {
            telemetry::gap_stays(self.logged(retry, partition.partition), &gap);
            return self.add_entries(run, partition, retry, now);
        }
        self.add_entries(&run[..gap.at], partition, retry, now);
        self.fetch_gap(&gap, partition, retry);
        false
    }

    /// Adds entries to the parked set. Returns false if the log does not have the requested offset.
    ///
    /// All entries are added under one lock of the parked set. What they imply for others (losses,
    /// entries of another group, errors) is reported after it.
    ///
    /// A lost position is accepted only while nothing depends on it: before the gate opens, or
    /// while no key waits. Then the partition is read from its beginning. Otherwise it is an error,
    /// and the partition waits for an operator.
    fn add_entries(
        &mut self,
        run: &[Message<'_>],
        partition: &Arc<Partition>,
        retry: &RetryPartition,
        now: Now,
    ) -> bool {
        let entries = run.iter().filter(|message| message.error().is_none());
        retry.observe_leader_epoch(entries.filter_map(Message::leader_epoch).max());
        let (mut is_position_lost, mut truncated_at) = (false, None);
        let (mut read_error, mut is_read, mut foreign) = (None, false, None);
        let owner = Owner {
            group: &self.shared.group,
            topic: &partition.topic,
        };
        retry.change(|state| {
            for message in run {
                is_read |= matches!(
                    read_outcome(message),
                    ReadOutcome::Entry(_) | ReadOutcome::End(_)
                );
                match message.error() {
                    None => {
                        if state.observe_leader_epoch(message.leader_epoch()) {
                            truncated_at = Some(message.offset());
                        }
                        let headers: Headers = message.take_headers().iter().collect();
                        let name = ordering_key(&self.shared.settings, message.key());
                        let entry = RetryTopicEntry::read(headers.iter(), owner);
                        if entry == RetryTopicEntry::Foreign {
                            foreign.get_or_insert((message.offset(), headers));
                        }
                        let entry = now.translated(entry);
                        state.seen(message.offset(), name, entry, now.steady_ms);
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => state.reached(message.offset()),
                    // The log lost the offset, but no parked record depends on it.
                    Some(RDKafkaErrorCode::AutoOffsetReset)
                        if !retry.is_position_lost() && (!retry.is_open() || state.keys() == 0) =>
                    {
                        is_position_lost = true;
                    }
                    Some(RDKafkaErrorCode::AutoOffsetReset) => self.shared.abort_at_doubtful_position(format!(
                        "the retry partition {}/{} does not have the offset {} any more that comes next",
                        retry.topic, partition.partition, state.next()
                    )),
                    Some(error) => {
                        read_error = Some(ClientError::MessageConsumption(error));
                    }
                }
            }
        });
        let number = partition.partition;
        if let Some(offset) = truncated_at {
            let place = (&*retry.topic, number);
            self.shared
                .position_lost(place, PositionLoss::Truncated, None, Some(offset));
        }
        if is_position_lost {
            retry.set_position_lost();
            self.forget(&[partition.epoch]);
            self.unread.add(vec![Arc::clone(partition)]);
            return false;
        }
        if let Some((offset, headers)) = foreign {
            self.report_foreign_entry(retry, number, offset, &headers);
        }
        if is_read {
            self.read_errors.remove(&retry.topic, number);
        }
        if let Some(error) = read_error {
            if !self.read_errors.has(&retry.topic, number) {
                telemetry::read_failed(self.logged(retry, number), &error);
            }
            self.read_errors.add(&retry.topic, number, error.into());
        }
        open_if_complete(&self.shared, retry);
        if is_read {
            self.shared.retry_topics.wake_dispatcher();
        }
        true
    }

    /// Reports an entry of another group whose retry topic has the same name. It is ignored, and
    /// retention never deletes it or later entries.
    ///
    /// The names `a.b` with topic `c` and `a` with topic `b.c` combine to the same retry topic.
    /// Each entry has its group and topic in its headers.
    fn report_foreign_entry(
        &self,
        retry: &RetryPartition,
        number: i32,
        offset: i64,
        headers: &Headers,
    ) {
        if self
            .shared
            .retry_topics
            .bounds()
            .add_foreign_entry(&retry.topic, number, offset)
        {
            let (group, topic) = Owner::named_in(headers);
            telemetry::foreign_entry(self.logged(retry, number), offset, &group, &topic);
        }
    }

    /// Seeks with the committed leader epoch, so that the client checks whether the log was
    /// truncated. Returns false if the seek failed; otherwise all entries are fetched again.
    fn verify_committed(&self, number: i32, retry: &RetryPartition, next: i64, epoch: i32) -> bool {
        let mut place = TopicPartitionList::new();
        let asked = place
            .add_partition_offset(&retry.topic, number, Offset::Offset(next))
            .and_then(|()| set_leader_epoch(&place, &retry.topic, number, Some(epoch)))
            .and_then(|()| self.consumer.seek_partitions(place, SEEK_WITHIN))
            .and_then(|sought| {
                sought
                    .elements()
                    .iter()
                    .try_for_each(TopicPartitionListElem::error)
            });
        if let Err(error) = &asked {
            telemetry::truncation_check_failed(self.logged(retry, number), error);
        }
        asked.is_ok()
    }

    /// Fetches again from the first missing offset.
    fn fetch_gap(&mut self, gap: &Gap, partition: &Partition, retry: &RetryPartition) {
        let (topic, number) = (&retry.topic, partition.partition);
        let place = Offset::Offset(gap.missing);
        match self.consumer.seek(topic, number, place, SEEK_WITHIN) {
            Ok(()) => self.gaps.set_fetched_again(partition.epoch, gap),
            Err(error) => {
                telemetry::gap_seek_failed(self.logged(retry, number), &error);
            }
        }
    }
}

/// Maps a message to the offset that it reports.
fn read_outcome(message: &Message<'_>) -> ReadOutcome {
    match message.error() {
        None => ReadOutcome::Entry(message.offset()),
        Some(RDKafkaErrorCode::PartitionEOF) => ReadOutcome::End(message.offset()),
        Some(_) => ReadOutcome::Error,
    }
}

/// Opens the gate of the partition after its parked set is complete.
///
/// Called after every change of a parked set that may complete it. The poll thread then
/// passes on the messages that it buffered.
pub(crate) fn open_if_complete(shared: &Shared, retry: &RetryPartition) {
    if !retry.is_open() && retry.state().is_whole() {
        retry.set_gate(OPEN);
        shared.intake.wake();
    }
}
