//! The originals of letters that only refer to them: they stand on the topic that they failed on, until it deletes them.

use super::Cluster;
use super::letters::{Letter, Look, look};
use crate::stop::Stop;
use evenkeel::kafka::KafkaError;
use evenkeel::recovery::{Position, restored};

/// A letter with its value, if that is to be had.
pub(super) enum Restored {
    /// It is whole, or was so before.
    Whole(Letter),
    /// Its value is gone for good, for this reason.
    Gone(Letter, String),
    /// A signal of that number came first.
    Stopped(u8),
}

/// Gives a letter that is a reference its original's value and headers; any other stays as it is. Blocks.
pub(super) fn restore(cluster: &Cluster, letter: Letter, stop: &Stop) -> anyhow::Result<Restored> {
    if !letter.failure.is_reference {
        return Ok(Restored::Whole(letter));
    }
    let failure = &letter.failure;
    let (Some(topic), Some(partition), Some(offset)) =
        (failure.topic.clone(), failure.partition, failure.offset)
    else {
        let why = "it does not say where its original stands".to_owned();
        return Ok(Restored::Gone(letter, why));
    };
    let at = Position {
        topic,
        partition,
        offset,
    };
    let gone = |letter, why: &str| {
        let why = format!("its original at {at} is gone: {why}; nothing of it is left to replay");
        Ok(Restored::Gone(letter, why))
    };
    let original = match look(cluster, &at, stop) {
        Ok(Look::Record(original)) => *original,
        Ok(Look::Stopped(signal)) => return Ok(Restored::Stopped(signal)),
        Ok(Look::Nothing) => return gone(letter, "the topic has deleted it"),
        Err(error) => {
            return match error.downcast_ref::<KafkaError>() {
                Some(KafkaError::UnknownTopic { .. } | KafkaError::Config(_)) => {
                    gone(letter, &error.to_string())
                }
                _ => Err(error),
            };
        }
    };
    match restored(letter.record.clone(), original) {
        Ok(record) => Ok(Restored::Whole(Letter::new(record))),
        Err(why) => gone(letter, &why.to_string()),
    }
}
