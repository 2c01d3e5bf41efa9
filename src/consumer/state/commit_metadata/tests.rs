use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const TAG: Tag<'_> = Tag {
    group: "g",
    topic: "t",
    partition: 3,
};
const LOG: Log = Log {
    topic_id: Some([7; 16]),
    leader_epoch: Some(300),
};

fn settled(above: &SettledAbove, from: i64, to: i64) -> BTreeSet<i64> {
    (from..to)
        .filter(|offset| above.contains(*offset))
        .collect()
}

fn encoded(watermark: i64, next: i64, unsettled: &[Range<i64>]) -> Encoded {
    encode(TAG, LOG, watermark, next, unsettled, BYTES_MAX)
}

fn text(watermark: i64, next: i64, unsettled: &[Range<i64>]) -> String {
    encoded(watermark, next, unsettled).text.expect("metadata")
}

#[test]
fn nothing_is_written_where_nothing_is_known() {
    let unknown = |next, unsettled: &[Range<i64>]| {
        encode(TAG, Log::default(), 5, next, unsettled, BYTES_MAX).text
    };
    assert_eq!(unknown(5, &[]), None);
    assert_eq!(unknown(9, &[5..9]), None);
}

#[test]
fn the_log_comes_back_without_anything_settled() {
    let text = text(5, 9, &[5..9]);
    assert!(text.len() < 48, "{text}");
    let decoded = decode(TAG, 5, text.as_bytes());
    assert_eq!(decoded.topic_id, LOG.topic_id);
    assert_eq!(decoded.settled_above.leader_epoch(), Some(300));
    assert!(decoded.settled_above.is_empty());
}

#[test]
fn metadata_of_another_group_topic_partition_or_offset_is_ignored() {
    let text = text(5, 9, &[5..6]);
    let decoded = decode(TAG, 5, text.as_bytes());
    assert_eq!(
        settled(&decoded.settled_above, 0, 20),
        BTreeSet::from([6, 7, 8])
    );
    for tag in [
        Tag { group: "h", ..TAG },
        Tag { topic: "u", ..TAG },
        Tag {
            partition: 4,
            ..TAG
        },
    ] {
        assert_eq!(decode(tag, 5, text.as_bytes()), Decoded::default());
    }
    let cut = &text.as_bytes()[..text.len() - 1];
    assert_eq!(decode(TAG, 5, cut), Decoded::default());
    assert_eq!(decode(TAG, 5, b""), Decoded::default());
}

#[test]
fn an_offset_set_by_hand_keeps_only_the_topic_id() {
    let decoded = decode(TAG, 6, text(5, 9, &[5..6]).as_bytes());
    assert!(decoded.settled_above.is_empty());
    assert_eq!(decoded.topic_id, LOG.topic_id);
}

#[test]
fn metadata_of_earlier_releases_is_read() {
    // Metadata of `ek1`: 6, 7, 8 and 10 are settled above 5.
    let mut body = Vec::new();
    [5, 1, 3, 1, 1]
        .into_iter()
        .for_each(|number| push_varint(&mut body, number));
    let mut bytes = checksum(TAG, &body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let text = format!("ek1.{}", URL_SAFE_NO_PAD.encode(bytes));
    let decoded = decode(TAG, 5, text.as_bytes());
    assert_eq!(
        settled(&decoded.settled_above, 0, 20),
        BTreeSet::from([6, 7, 8, 10])
    );
    assert_eq!(decoded.topic_id, None);
    assert_eq!(decode(TAG, 6, text.as_bytes()), Decoded::default());
}

#[test]
fn a_record_of_a_later_leader_outlives_what_was_settled() {
    let decoded = decode(TAG, 5, text(5, 9, &[5..6]).as_bytes());
    let above = decoded.settled_above;
    assert!(!above.is_invalidated_by(Some(300)));
    assert!(!above.is_invalidated_by(None));
    assert!(above.is_invalidated_by(Some(301)));
    assert!(!SettledAbove::default().is_invalidated_by(Some(301)));
}

#[test]
fn every_second_record_of_eight_thousand_is_encoded_in_full() {
    let unsettled: Vec<_> = (0..8_192).map(|n| n * 2..n * 2 + 1).collect();
    let all = encoded(0, 16_384, &unsettled);
    assert!(all.is_whole);
    let text = all.text.expect("metadata");
    assert!(text.len() <= 4_096, "{}", text.len());
    let decoded = settled(&decode(TAG, 0, text.as_bytes()).settled_above, 0, 16_384);
    assert_eq!(decoded.len(), 8_192);
}

#[test]
fn the_lowest_runs_are_encoded_if_not_all_fit() {
    let unsettled: Vec<_> = (0..50_000).map(|n| n * 2..n * 2 + 1).collect();
    for bytes_max in [4_096, 2_048, 100] {
        let all = encode(TAG, LOG, 0, 100_000, &unsettled, bytes_max);
        assert!(!all.is_whole);
        let text = all.text.expect("metadata");
        assert!(
            (bytes_max - 20..=bytes_max).contains(&text.len()),
            "{}",
            text.len()
        );
        let decoded = settled(&decode(TAG, 0, text.as_bytes()).settled_above, 0, 100_000);
        assert!(
            decoded.len() > bytes_max,
            "{} offsets decoded",
            decoded.len()
        );
        assert!(decoded.iter().all(|offset| offset % 2 == 1));
    }
    let none = encode(TAG, LOG, 0, 100_000, &unsettled, 10);
    assert_eq!((none.text, none.is_whole), (None, false));
}

proptest! {
    #[test]
    fn any_set_of_unsettled_offsets_comes_back(
        watermark in 0_i64..1 << 40,
        mut gaps in proptest::collection::vec((0_i64..50, 1_i64..50), 1..100),
        far in 0_usize..100,
        tail in 0_i64..50,
    ) {
        gaps[0].0 = 0;
        if let Some(gap) = gaps[1..].get_mut(far) {
            gap.0 += 1 << 31;
        }
        let mut at = watermark;
        let unsettled: Vec<_> = gaps.iter().map(|(gap, length)| { let start = at + gap; at = start + length; start..at }).collect();
        let next = at + tail;
        let all = encoded(watermark, next, &unsettled);
        prop_assert!(all.is_whole);
        let text = all.text.expect("metadata");
        prop_assert!(text.len() <= 4096);
        let mut expected = Vec::new();
        let mut at = watermark;
        for range in unsettled.iter().cloned().chain([next..next]) {
            match expected.last_mut() {
                _ if range.start == at => {}
                _ => expected.push(at..range.start),
            }
            at = range.end;
        }
        let above = decode(TAG, watermark, text.as_bytes()).settled_above;
        prop_assert_eq!(above.runs(), &expected[..]);
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in 0_usize..3, checked in any::<bool>()) {
        let mut metadata = [&b""[..], b"ek1.", b"ek1.2."][magic].to_vec();
        if checked {
            let mut whole = checksum(TAG, &bytes).to_le_bytes().to_vec();
            whole.extend_from_slice(&bytes);
            metadata.extend_from_slice(URL_SAFE_NO_PAD.encode(whole).as_bytes());
        } else {
            metadata.extend_from_slice(&bytes);
        }
        let _ = decode(TAG, 0, &metadata);
    }
}
