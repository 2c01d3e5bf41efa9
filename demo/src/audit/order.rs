//! Order per key: events are on the log in the order of sending, and take effect in the order of
//! the log.

use super::{Acknowledged, Effect, Sent, Tally};
use std::collections::HashMap;

/// Counts the acknowledged events that precede one of the same topic and key that was sent earlier.
pub(super) fn check_log(acknowledged: &[Acknowledged]) -> Tally {
    let mut sent: Vec<(&Acknowledged, &Sent)> = acknowledged
        .iter()
        .filter_map(|event| Some((event, event.sent.as_ref()?)))
        .collect();
    sent.sort_by_key(|(event, sent)| (&event.topic, &sent.key, sent.number));
    let mut out_of_order = Tally::default();
    for pair in sent.windows(2) {
        let [(before, first), (event, second)] = pair else {
            continue;
        };
        let same = before.topic == event.topic && first.key == second.key;
        if same && second.offset <= first.offset {
            out_of_order.add(|| {
                format!(
                    "{} of key {} is at offset {}, before an event that was sent earlier",
                    event.identity, second.key, second.offset
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
