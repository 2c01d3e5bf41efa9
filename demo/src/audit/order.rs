//! Order per key: events are on the log in the order of sending, and take effect in the order of
//! the log.

use super::{Acknowledged, Effect, Identity, Published, Sent, Tally};
use std::collections::HashMap;

/// Counts the acknowledged events that precede one of the same topic and key that was sent earlier.
/// An event without an acknowledged offset is where it first appears on the log.
pub(super) fn check_log(acknowledged: &[Acknowledged], published: &[Published]) -> Tally {
    let mut first: HashMap<&Identity, i64> = HashMap::with_capacity(published.len());
    for event in published {
        let offset = first.entry(&event.identity).or_insert(event.at.offset);
        *offset = event.at.offset.min(*offset);
    }
    let mut sent: Vec<(&Acknowledged, &Sent, i64)> = acknowledged
        .iter()
        .filter_map(|event| {
            let sent = event.sent.as_ref()?;
            let offset = sent
                .offset
                .or_else(|| first.get(&event.identity).copied())?;
            Some((event, sent, offset))
        })
        .collect();
    sent.sort_by_key(|(event, sent, _)| (&event.topic, &sent.key, sent.number));
    let mut out_of_order = Tally::default();
    for pair in sent.windows(2) {
        let [(before, first, earlier), (event, second, later)] = pair else {
            continue;
        };
        let same = before.topic == event.topic && first.key == second.key;
        if same && later <= earlier {
            out_of_order.add(|| {
                format!(
                    "{} of key {} is at offset {later}, before an event that was sent earlier",
                    event.identity, second.key
                )
            });
        }
    }
    out_of_order
}

/// Counts the effects that came after one of a later record of the same topic and key. Equal
/// offsets are the same record: a doubled effect is counted elsewhere.
pub(super) fn check(service: &str, effects: &[Effect], out_of_order: &mut Tally) {
    let mut latest: HashMap<(&str, i32, &str), i64> = HashMap::new();
    for effect in effects {
        let lane = (
            effect.at.topic.as_str(),
            effect.at.partition,
            effect.key.as_str(),
        );
        let latest = latest.entry(lane).or_insert(effect.at.offset);
        if effect.at.offset < *latest {
            out_of_order.add(|| {
                format!(
                    "{service} handled {} of key {} after offset {latest}",
                    effect.at, effect.key
                )
            });
        } else {
            *latest = effect.at.offset;
        }
    }
}
