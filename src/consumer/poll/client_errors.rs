//! Reactions to errors that the client returns: of the client itself, and of single partitions.

use crate::consumer::poll::{PollThread, telemetry};
use crate::consumer::report::ConsumerError;
use crate::consumer::settings::StopWhen;
use crate::kafka::KafkaError;
use crate::kafka::connection_fault::advice;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

/// The complaint about a client without a broker.
const NO_BROKER: &str = "no broker can be reached";

/// The complaint about a committed offset that the log no longer has, if no reset is allowed.
const OUT_OF_RANGE: &str =
    "the committed offset is out of range and auto.offset.reset=error; reset the group's offset";

impl PollThread {
    /// Handles an error of the client itself. Before the group was joined, a refusal ends the run:
    /// it is most likely a wrong credential or ACL. Afterwards it may pass, and the member waits.
    ///
    /// | error | before the group was joined | afterwards |
    /// |---|---|---|
    /// | fatal | the run ends | the run ends |
    /// | the instance id is in use | the run waits and retries | the same |
    /// | authentication, authorisation | the run ends | not ready, retried by the client |
    /// | all brokers down | not ready | not ready |
    /// | unknown topic | not ready | not ready |
    /// | any other | a debug line: the client retries | the same |
    pub(super) fn client_error(&self, error: &ClientError) -> Result<(), ConsumerError> {
        if let Some((code, reason)) = self.client.consumer.client().fatal_error() {
            if code == RDKafkaErrorCode::UnreleasedInstanceId {
                return Err(ConsumerError::InstanceInUse);
            }
            return Err(ConsumerError::Fatal(format!("{code}: {reason}")));
        }
        if let ClientError::MessageConsumptionFatal(code) = error {
            return Err(ConsumerError::Fatal(code.to_string()));
        }
        let code = error.rdkafka_error_code();
        let joined = self.client.consumer.context().assignments().joined;
        match code {
            Some(code) if is_refusal(code) && !joined => Err(KafkaError::Refused {
                what: format!("joining the group {}", self.shared.group),
                cause: code.to_string(),
            }
            .into()),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.shared
                    .readiness
                    .report_cluster_error(&self.no_broker_reason());
                Ok(())
            }
            Some(code @ RDKafkaErrorCode::GroupAuthorizationFailed) => {
                let reason = format!("refused by the group: {code}");
                self.shared.readiness.refused(&reason);
                Ok(())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.shared.readiness.topic_missing();
                Ok(())
            }
            Some(code) if is_refusal(code) => {
                self.shared
                    .readiness
                    .report_cluster_error(&format!("refused: {code}"));
                Ok(())
            }
            _ => {
                tracing::debug!(group = self.shared.group, %error, "client error");
                Ok(())
            }
        }
    }

    /// The complaint that no broker can be reached, with the cause and the advice if they are
    /// known.
    pub(super) fn no_broker_reason(&self) -> String {
        let fault = self.client.consumer.context().last_fault.get();
        fault.map_or_else(
            || NO_BROKER.to_owned(),
            |fault| match advice(&fault.cause) {
                Some(advice) => format!("{NO_BROKER}: {}; {advice}", fault.cause),
                None => format!("{NO_BROKER}: {}", fault.cause),
            },
        )
    }

    /// Handles an error that the client returned for a partition. A bounded run ends on errors that
    /// do not pass by themselves. An endless one becomes not ready and continues with its other
    /// partitions.
    ///
    /// | error | reaction |
    /// |---|---|
    /// | end of the partition | offsets up to it are passed: what is missing below are markers |
    /// | offset out of range, no reset allowed | not ready; a bounded run ends |
    /// | refusal | not ready, retried; a bounded run ends |
    /// | any other | not ready, retried |
    pub(super) fn partition_error(
        &mut self,
        code: RDKafkaErrorCode,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), ConsumerError> {
        match code {
            RDKafkaErrorCode::PartitionEOF => {
                let mut assignments = self.client.consumer.context().assignments();
                if let Some(assigned) = assignments.get(topic, partition)
                    && assigned.held.is_none()
                    && !assigned.is_unreadable
                {
                    assigned.ended_at = Some(offset);
                    // No record below the end is missing: offsets without a record hold transaction
                    // markers.
                    self.shared
                        .tracker()
                        .advance(assigned.partition.epoch, offset);
                }
                Ok(())
            }
            RDKafkaErrorCode::AutoOffsetReset => {
                telemetry::offset_out_of_range(&self.shared.group, topic, partition, OUT_OF_RANGE);
                self.shared
                    .readiness
                    .cannot_read(topic, partition, OUT_OF_RANGE);
                self.fail_bounded_run(topic, partition, OUT_OF_RANGE)
            }
            code if is_refusal(code) => {
                let why = code.to_string();
                self.read_failed(topic, partition, offset, &why);
                self.fail_bounded_run(topic, partition, &why)
            }
            code => {
                self.read_failed(topic, partition, offset, &code.to_string());
                Ok(())
            }
        }
    }

    /// Reports a read error. The client repeats it on every attempt.
    fn read_failed(&mut self, topic: &str, partition: i32, offset: i64, error: &str) {
        let readiness = &self.shared.readiness;
        if readiness.cannot_read_now(topic, partition, error) {
            telemetry::partition_unreadable(&self.shared.group, topic, partition, error);
        }
        self.seek_retries
            .schedule(&self.client.consumer, topic, partition, offset);
    }

    /// Fails a bounded run whose partition cannot be read until an operator acts.
    fn fail_bounded_run(
        &self,
        topic: &str,
        partition: i32,
        why: &str,
    ) -> Result<(), ConsumerError> {
        match self.shared.settings.stop_when {
            StopWhen::Endless => Ok(()),
            StopWhen::UntilEnd | StopWhen::Records(_) | StopWhen::Idle(_) => {
                Err(ConsumerError::Unreadable {
                    topic: topic.to_owned(),
                    partition,
                    why: why.to_owned(),
                })
            }
        }
    }
}

/// Whether the brokers refused a request for its credentials or for lack of a permission.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}
