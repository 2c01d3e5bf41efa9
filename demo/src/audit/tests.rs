//! A run without findings, and the findings after one fact is changed.

use super::tally::EXAMPLES_MAX;
use super::*;

const SERVICES_HERE: Services<'_> = &[
    ("billing", &[("orders", "placed"), ("orders", "cancelled")]),
    ("board", &[("orders", "placed"), ("bills", "billed")]),
];

fn identity(source: &str, number: usize) -> Identity {
    Identity {
        source: source.to_owned(),
        id: number.to_string(),
    }
}

fn position(topic: &str, offset: usize) -> Position {
    Position {
        topic: topic.to_owned(),
        partition: 0,
        offset: offset as i64,
    }
}

fn published(topic: &str, source: &str, ty: &str, number: usize) -> Published {
    Published {
        identity: identity(source, number),
        ty: ty.to_owned(),
        key: Some((number % 3).to_string()),
        at: position(topic, number),
    }
}

fn dead(number: usize) -> Dead {
    Dead {
        identity: identity("/shop", number),
        cause: Cause {
            ty: "placed".to_owned(),
            class: "permanent".to_owned(),
            stage: "handler".to_owned(),
            message: "no card".to_owned(),
        },
    }
}

fn effect_of(event: &Published) -> Effect {
    Effect {
        identity: event.identity.clone(),
        at: event.at.clone(),
        key: (event.at.offset % 3).to_string(),
        before_run: false,
    }
}

/// Twenty orders, each billed. The board handles orders and bills.
fn balanced() -> Facts {
    let orders: Vec<_> = (0..20)
        .map(|n| published("orders", "/shop", "placed", n))
        .collect();
    let bills: Vec<_> = (0..20)
        .map(|n| published("bills", "/billing", "billed", n))
        .collect();
    let acknowledged = orders
        .iter()
        .map(|order| Acknowledged {
            identity: order.identity.clone(),
            ty: order.ty.clone(),
            topic: order.at.topic.clone(),
            sent: Some(Sent {
                key: (order.at.offset % 3).to_string(),
                number: order.at.offset as u64,
                offset: Some(order.at.offset),
            }),
        })
        .collect();
    let billing = orders.iter().map(effect_of).collect();
    let board = orders.iter().chain(&bills).map(effect_of).collect();
    Facts {
        acknowledged,
        effects: [("billing".to_owned(), billing), ("board".to_owned(), board)].into(),
        published: orders.into_iter().chain(bills).collect(),
        ..Facts::default()
    }
}

/// Counts of lost, twice, out of order and unexplained after `change`.
fn check(change: impl FnOnce(&mut Facts), expected: [u64; 4]) -> Findings {
    let mut facts = balanced();
    change(&mut facts);
    let findings = audit(&facts, SERVICES_HERE);
    let found = [
        findings.lost.count,
        findings.twice.count,
        findings.out_of_order.count,
        findings.unexplained.count,
    ];
    assert_eq!(found, expected, "{findings:?}");
    assert_eq!(findings.balanced(), expected == [0; 4]);
    findings
}

fn effects<'a>(facts: &'a mut Facts, service: &str) -> &'a mut Vec<Effect> {
    facts.effects.entry(service.to_owned()).or_default()
}

#[test]
fn an_untouched_run_balances() {
    let findings = check(|_| {}, [0, 0, 0, 0]);
    assert_eq!((findings.published, findings.acknowledged), (40, 20));
    assert_eq!(
        findings.effects,
        [("billing".to_owned(), 20), ("board".to_owned(), 40)].into()
    );
    assert_eq!(findings.duplicates_suppressed, 0);
}

#[test]
fn a_dropped_effect_is_one_lost_event_and_is_named() {
    let findings = check(
        |facts| drop(effects(facts, "billing").remove(7)),
        [1, 0, 0, 0],
    );
    assert_eq!(
        findings.lost.examples,
        ["billing has no effect of placed /shop 7"]
    );
}

#[test]
fn a_service_without_any_effect_has_lost_everything_it_handles() {
    check(|facts| drop(facts.effects.remove("board")), [40, 0, 0, 0]);
}

/// Lost: acknowledged, on no topic, and without an effect.
#[test]
fn a_lost_event_is_reported_once_for_each_service() {
    check(
        |facts| {
            facts.acknowledged.push(Acknowledged {
                identity: identity("/shop", 99),
                ty: "placed".to_owned(),
                topic: "orders".to_owned(),
                sent: None,
            });
        },
        [2, 0, 0, 0],
    );
}

#[test]
fn events_of_unhandled_types_are_not_missed() {
    check(
        |facts| {
            facts
                .published
                .push(published("orders", "/shop", "viewed", 50))
        },
        [0, 0, 0, 0],
    );
}

#[test]
fn a_type_is_expected_only_from_topics_the_service_reads() {
    check(
        |facts| {
            facts
                .published
                .push(published("archive", "/shop", "placed", 50))
        },
        [0, 0, 0, 0],
    );
}

#[test]
fn a_dead_letter_replaces_the_effect_in_its_group_only() {
    let findings = check(
        |facts| {
            effects(facts, "billing").remove(7);
            let dead = vec![dead(7)];
            facts.dead_letters.insert("billing".to_owned(), dead);
        },
        [0, 0, 0, 0],
    );
    assert_eq!(findings.dead_letters, 1);
    let causes: Vec<_> = findings.causes.iter().collect();
    assert_eq!(
        causes,
        [(&("billing".to_owned(), dead(7).cause), &1)],
        "what is dead, and why"
    );
    check(
        |facts| {
            effects(facts, "billing").remove(7);
            let dead = vec![dead(7)];
            facts.dead_letters.insert("board".to_owned(), dead);
        },
        [1, 0, 0, 0],
    );
}

#[test]
fn a_duplicate_effect_is_found_once_and_breaks_no_order() {
    check(
        |facts| {
            let again = effects(facts, "board")[3].clone();
            effects(facts, "board").insert(4, again);
        },
        [0, 1, 0, 0],
    );
}

#[test]
fn two_swapped_effects_of_a_key_are_one_violation() {
    let findings = check(|facts| effects(facts, "billing").swap(3, 6), [0, 0, 1, 0]);
    assert_eq!(
        findings.out_of_order.examples,
        ["billing handled orders/0@3 of key 0 after offset 6"]
    );
}

/// Swapped on the log.
#[test]
fn two_swapped_events_of_a_key_are_one_violation() {
    let swap = |facts: &mut Facts, one: usize, other: usize| {
        for (number, offset) in [(one, other), (other, one)] {
            if let Some(sent) = &mut facts.acknowledged[number].sent {
                sent.offset = Some(offset as i64);
            }
        }
    };
    check(|facts| swap(facts, 3, 6), [0, 0, 1, 0]);
    check(|facts| swap(facts, 3, 4), [0, 0, 0, 0]);
}

#[test]
fn without_an_acknowledged_offset_the_order_is_that_of_the_log() {
    let forget = |facts: &mut Facts| {
        for event in &mut facts.acknowledged {
            if let Some(sent) = &mut event.sent {
                sent.offset = None;
            }
        }
    };
    check(forget, [0, 0, 0, 0]);
    let swapped = |facts: &mut Facts| {
        forget(facts);
        let (one, other) = (facts.published[3].at.offset, facts.published[6].at.offset);
        facts.published[3].at.offset = other;
        facts.published[6].at.offset = one;
    };
    check(swapped, [0, 0, 1, 0]);
}

#[test]
fn effects_of_different_keys_have_no_order() {
    check(|facts| effects(facts, "billing").swap(3, 4), [0, 0, 0, 0]);
}

#[test]
fn a_second_appearance_without_a_second_effect_was_suppressed() {
    let again = |facts: &mut Facts| {
        let mut again = facts.published[5].clone();
        again.at.offset = 40;
        facts.published.push(again);
    };
    let findings = check(again, [0, 0, 0, 0]);
    assert_eq!(
        findings.duplicates_suppressed, 2,
        "billing's and the board's"
    );
    assert_eq!(findings.published, 40);
}

#[test]
fn a_second_appearance_with_a_second_effect_was_not_suppressed() {
    let findings = check(
        |facts| {
            let mut again = facts.published[5].clone();
            again.at.offset = 40;
            effects(facts, "billing").push(effect_of(&again));
            facts.published.push(again);
        },
        [0, 1, 0, 0],
    );
    assert_eq!(findings.duplicates_suppressed, 1, "the board's alone");
}

#[test]
fn an_effect_of_nothing_is_unexplained_unless_retention_took_records() {
    let invent = |facts: &mut Facts| {
        let event = published("orders", "/elsewhere", "placed", 60);
        effects(facts, "billing").push(effect_of(&event));
    };
    check(invent, [0, 0, 0, 1]);
    let truncated = |facts: &mut Facts| {
        invent(facts);
        facts.log_truncated = true;
    };
    check(truncated, [0, 0, 0, 0]);
}

/// Nor are they unexplained.
#[test]
fn effects_from_before_the_run_suppress_but_are_not_counted() {
    let findings = check(
        |facts| {
            let event = published("orders", "/shop", "placed", 60);
            let mut earlier = effect_of(&event);
            earlier.at.offset = 0;
            earlier.before_run = true;
            effects(facts, "billing").insert(0, earlier.clone());
            effects(facts, "board").insert(0, earlier);
            facts.published.push(event);
            let mut unseen = effect_of(&published("orders", "/shop", "placed", 61));
            unseen.at.offset = 0;
            unseen.before_run = true;
            effects(facts, "billing").insert(0, unseen);
        },
        [0, 0, 0, 0],
    );
    assert_eq!(findings.effects["billing"], 20);
}

#[test]
fn examples_stay_few_however_much_is_lost() {
    let findings = check(|facts| facts.effects.clear(), [60, 0, 0, 0]);
    assert_eq!(findings.lost.examples.len(), EXAMPLES_MAX);
}
