//! Parses a member's assignment as consumers encode it.
//!
//! Total: another program wrote the bytes, and the coordinator does not validate them.
//!
//! The format is `ConsumerProtocolAssignment` of Kafka's protocol: a version as 16 bits, the number
//! of topics, for each its name and partitions, and user data that is not read. Numbers are big
//! endian. Later versions append fields only, so any version is accepted.

use std::collections::BTreeMap;

/// Partitions by topic. None if the bytes are no assignment of the consumers' protocol.
pub(super) fn parse(bytes: &[u8]) -> Option<BTreeMap<String, Vec<i32>>> {
    let mut rest = Bytes(bytes);
    // Later versions only append fields.
    let _version = rest.int16()?;
    let mut assignment: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for _ in 0..rest.int32()? {
        let name_length = usize::try_from(rest.int16()?).ok()?;
        let topic = std::str::from_utf8(rest.take(name_length)?).ok()?;
        let partitions = assignment.entry(topic.to_owned()).or_default();
        for _ in 0..rest.int32()? {
            partitions.push(rest.int32()?);
        }
    }
    for partitions in assignment.values_mut() {
        partitions.sort_unstable();
    }
    Some(assignment)
}

/// The unread rest. A count never reserves memory: each element has to be present.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn int16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn int32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::*;

    /// Version 0, topic `ab` with partitions 2 and 0, no user data.
    const TWO_PARTITIONS: &[u8] = &[
        0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 255, 255, 255, 255,
    ];

    #[test]
    fn an_assignment_is_read() {
        let parsed = parse(TWO_PARTITIONS).expect("an assignment");
        assert_eq!(
            parsed.into_iter().collect::<Vec<_>>(),
            [("ab".to_owned(), vec![0, 2])]
        );
    }

    #[test]
    fn cut_anywhere_before_its_user_data_it_is_none() {
        let end = TWO_PARTITIONS.len() - 4;
        for length in 0..end {
            assert_eq!(parse(&TWO_PARTITIONS[..length]), None, "{length} bytes");
        }
        assert!(parse(&TWO_PARTITIONS[..end]).is_some());
    }

    #[test]
    fn a_huge_count_takes_no_memory() {
        let mut bytes = TWO_PARTITIONS.to_vec();
        bytes[10..14].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(parse(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
