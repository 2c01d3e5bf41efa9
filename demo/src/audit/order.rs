//! Order per key: within a service, one topic's records of one key take effect in the order of their offsets.

use super::{Effect, Tally};
use std::collections::HashMap;

/// Counts the effects that came after one of a later record of the same topic and key. Equal offsets are the same record
/// and no matter of order: a doubled effect is found as such.
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
