//! A batch that cannot be read, and its detection from the client's errors.

use crate::kafka::native::Message;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::fmt;

/// A batch on the log that the client cannot read: damaged, or compressed by an unknown codec.
///
/// A consumer blocks the partition, reports it as not ready, and reads the batch again at an
/// interval: a restored disk or another leader may have it whole. An operator can skip it. A
/// [`Reader`](crate::kafka::reader::Reader) ends the partition there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableBatch {
    /// The topic of the batch.
    pub topic: String,
    /// The partition of the batch.
    pub partition: i32,
    /// Its first offset, or the position of the reader if the client does not report it.
    pub offset: i64,
    /// The fault, and the codec if the client reports it.
    pub cause: String,
}

impl fmt::Display for UnreadableBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            partition,
            offset,
            cause,
        } = self;
        write!(
            f,
            "{topic}/{partition} cannot be read at offset {offset}: {cause}"
        )
    }
}

impl UnreadableBatch {
    /// A batch for which the client returns neither a record nor an error.
    pub(crate) fn silent(topic: String, partition: i32, offset: i64) -> Self {
        Self {
            topic,
            partition,
            offset,
            cause: "its batch is damaged inside: the client returns neither a record nor an error \
                    (check.crcs=true shows more)"
                .to_owned(),
        }
    }

    /// The batch behind an error, if the error means one.
    pub(crate) fn of(code: Code, message: &Message<'_>) -> Option<Self> {
        let cause = cause(code, &message.error_text())?;
        Some(Self {
            topic: message.topic()?.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            cause,
        })
    }
}

/// Whether the error means a batch that remains unreadable, as opposed to one that the next fetch
/// may return whole. Every such code has a text in [`cause`].
pub(crate) fn is_unreadable(code: Code) -> bool {
    matches!(
        code,
        Code::NotImplemented
            | Code::BadCompression
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
    )
}

/// The fault of the batch. `text` is the client's error.
fn cause(code: Code, text: &str) -> Option<String> {
    let codec = codec(text);
    Some(match (code, codec) {
        (Code::NotImplemented, Some(4)) => {
            "its batch is compressed with zstd, which this librdkafka lacks; use one that is \
             built with zstd"
                .to_owned()
        }
        (Code::NotImplemented, Some(codec)) => {
            format!("its batch is compressed with {}", codec_name(codec))
        }
        (Code::NotImplemented, None) => {
            "its batch is damaged, or of a format that the client does not know".to_owned()
        }
        (Code::BadCompression, Some(codec)) => format!(
            "its batch is compressed with {} and cannot be decompressed: it is damaged",
            codec_name(codec)
        ),
        (Code::BadCompression, None) => {
            "its batch cannot be decompressed: it is damaged".to_owned()
        }
        (Code::BadMessage, _) => "its batch is damaged: its checksum does not match".to_owned(),
        (Code::InvalidMessage, _) => "the broker reports that its batch is damaged".to_owned(),
        (Code::MessageSizeTooLarge, _) => {
            "its batch is damaged, or larger than the client accepts (receive.message.max.bytes)"
                .to_owned()
        }
        _ => return None,
    })
}

/// The codec's number in librdkafka's text: `Decompression (codec 0x4) of message at 5 of 80 bytes
/// failed`.
fn codec(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("codec 0x")?;
    let digits = after.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u32::from_str_radix(digits, 16).ok()
}

fn codec_name(codec: u32) -> String {
    match codec {
        1 => "gzip".to_owned(),
        2 => "snappy".to_owned(),
        3 => "lz4".to_owned(),
        4 => "zstd".to_owned(),
        unknown => format!("codec {unknown}, which Kafka does not define"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_names_the_codec_where_the_client_tells_it() {
        let text = |codec| {
            format!("Decompression (codec {codec}) of message at 5 of 80 bytes failed: Local")
        };
        let check = |code, text: &str, expected: &str| {
            let cause = cause(code, text).expect("it stands for a batch");
            assert!(cause.contains(expected), "{cause}");
        };
        check(Code::NotImplemented, &text("0x4"), "built with zstd");
        check(Code::NotImplemented, &text("0x7"), "codec 7");
        check(Code::NotImplemented, "Unsupported MagicByte 9", "format");
        check(Code::BadCompression, &text("0x1"), "gzip");
        check(Code::BadCompression, "", "decompressed");
        check(Code::BadMessage, "failed CRC32C check", "checksum");
        assert_eq!(cause(Code::TopicAuthorizationFailed, ""), None);
        assert_eq!(codec("codec 0x"), None);
    }

    #[test]
    fn every_error_of_an_unreadable_batch_has_a_cause() {
        for code in [
            Code::NotImplemented,
            Code::BadCompression,
            Code::BadMessage,
            Code::InvalidMessage,
            Code::MessageSizeTooLarge,
            Code::PartitionEOF,
            Code::UnknownTopicOrPartition,
        ] {
            assert_eq!(is_unreadable(code), cause(code, "").is_some(), "{code:?}");
        }
    }
}
