//! The audit: does every acknowledged event have its effect exactly once, in order, in every
//! service that handles it?
//!
//! Pure: facts in, findings out. Independent of the sources of the facts.

mod facts;
mod order;
mod stock;
mod streams;
mod tally;

pub(crate) use facts::{
    Acknowledged, Cause, Dead, Effect, Facts, Identity, Position, Published, Sent,
};
pub(crate) use stock::{Books, Moved, unbalanced};
pub(crate) use streams::{StreamRecord, compare};
pub(crate) use tally::Tally;

use crate::shop::services::Services;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The findings of the audit. An event that is missing in two services counts twice in `lost`.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Number of distinct events on the topics.
    pub(crate) published: u64,
    /// Number of distinct events that producer commands recorded as acknowledged.
    pub(crate) acknowledged: u64,
    /// Number of distinct events with an effect, by service.
    pub(crate) effects: BTreeMap<String, u64>,
    /// Number of second appearances on a topic without a second effect, over all services.
    pub(crate) duplicates_suppressed: u64,
    /// Number of dead letters of all groups.
    pub(crate) dead_letters: u64,
    /// Number of dead letters by service and cause.
    pub(crate) causes: BTreeMap<(String, Cause), u64>,
    /// Number of records that wait in retry topics at the end.
    pub(crate) parked: u64,
    /// Events with neither effect nor dead letter in a service that handles the type.
    pub(crate) lost: Tally,
    /// Effects beyond the first.
    pub(crate) twice: Tally,
    /// Effects that came after a later one of the same topic and key, and events on the log out of
    /// order.
    pub(crate) out_of_order: Tally,
    /// Effects of events that are on no topic, although the topics are complete.
    pub(crate) unexplained: Tally,
}

impl Findings {
    /// Whether there are no findings.
    pub(crate) fn balanced(&self) -> bool {
        [
            &self.lost,
            &self.twice,
            &self.out_of_order,
            &self.unexplained,
        ]
        .iter()
        .all(|tally| tally.count == 0)
    }
}

/// Audits the facts against the subscriptions of each service.
pub(crate) fn audit(facts: &Facts, services: Services<'_>) -> Findings {
    let appearances = appearances(&facts.published);
    let mut expected: BTreeMap<&Identity, (&str, &str)> = facts
        .acknowledged
        .iter()
        .map(|event| (&event.identity, (event.topic.as_str(), event.ty.as_str())))
        .collect();
    let acknowledged = expected.len() as u64;
    for event in &facts.published {
        expected.insert(&event.identity, (&event.at.topic, &event.ty));
    }
    let mut findings = Findings {
        out_of_order: order::check_log(&facts.acknowledged, &facts.published),
        published: appearances.len() as u64,
        acknowledged,
        dead_letters: facts
            .dead_letters
            .values()
            .map(|all| all.len() as u64)
            .sum(),
        parked: facts.parked.values().sum(),
        ..Findings::default()
    };
    for (service, dead) in &facts.dead_letters {
        for letter in dead {
            let cause = (service.clone(), letter.cause.clone());
            *findings.causes.entry(cause).or_default() += 1;
        }
    }
    for (service, subscriptions) in services {
        let effects = facts.effects.get(*service).map_or(&[][..], Vec::as_slice);
        let dead: HashSet<&Identity> = facts
            .dead_letters
            .get(*service)
            .into_iter()
            .flatten()
            .map(|letter| &letter.identity)
            .collect();
        let done = count_effects(service, effects, &mut findings);
        order::check(service, effects, &mut findings.out_of_order);
        for (identity, (topic, ty)) in &expected {
            if !subscriptions.contains(&(*topic, *ty)) {
                continue;
            }
            match done.get(identity) {
                None if !dead.contains(identity) => findings
                    .lost
                    .add(|| format!("{service} has no effect of {ty} {identity}")),
                Some(1) => {
                    findings.duplicates_suppressed +=
                        appearances.get(identity).copied().unwrap_or(1) - 1;
                }
                _ => {}
            }
        }
        if !facts.log_truncated {
            for effect in effects.iter().filter(|effect| !effect.before_run) {
                if !appearances.contains_key(&effect.identity) {
                    findings.unexplained.add(|| {
                        format!(
                            "{service} has an effect of {}, which is on no topic",
                            effect.identity
                        )
                    });
                }
            }
        }
    }
    findings
}

/// The number of appearances of each event on the topics.
fn appearances(published: &[Published]) -> HashMap<&Identity, u64> {
    let mut appearances = HashMap::new();
    for event in published {
        *appearances.entry(&event.identity).or_default() += 1;
    }
    appearances
}

/// Counts a service's effects by event. Every effect beyond the first is a finding. Effects from
/// before the run count as effects of their events, in case such an event is published again during
/// the run, but not as effects of the run.
fn count_effects<'a>(
    service: &str,
    effects: &'a [Effect],
    findings: &mut Findings,
) -> HashMap<&'a Identity, u64> {
    let mut done: HashMap<&Identity, u64> = HashMap::with_capacity(effects.len());
    for effect in effects {
        let times = done.entry(&effect.identity).or_default();
        *times += 1;
        if *times > 1 {
            findings.twice.add(|| {
                format!(
                    "{service} has effect {times} of {} at {}",
                    effect.identity, effect.at
                )
            });
        }
    }
    let run: HashSet<&Identity> = effects
        .iter()
        .filter(|effect| !effect.before_run)
        .map(|effect| &effect.identity)
        .collect();
    findings
        .effects
        .insert(service.to_owned(), run.len() as u64);
    done
}

#[cfg(test)]
mod tests;
