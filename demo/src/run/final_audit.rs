//! The final audit: reads every source again and audits it.

use super::groups::Scope;
use crate::audit::{Facts, Findings, audit, compare, unbalanced};
use crate::callers::StreamOutcome;
use crate::cluster::{Cluster, Offsets};
use crate::monitoring::store::store_of;
use crate::shop::Shop;
use crate::shop::services::{GATEWAY, SERVICES};
use crate::sources::{Defaults, Span, read_books, read_effects, read_journal, read_topics};
use anyhow::Context;
use evenkeel::event::EventType;
use shop_schemas::{OrderPlaced, StockReceived};

/// The attributes that lines of the journals omit. Those of the callers of gateways omit none.
const DELIVERY: Defaults = Defaults {
    source: "/shop/stock",
    ty: StockReceived::TYPE,
};
const ORDER: Defaults = Defaults {
    source: "/shop/orders",
    ty: OrderPlaced::TYPE,
};

/// The result of the audit.
pub(super) struct AuditResult {
    pub(super) findings: Findings,
    /// Number of records whose end the audit of `evenkeel-ops` proved, counted in every group that
    /// reads them.
    pub(super) proven: u64,
    pub(super) stock: Vec<String>,
    /// Faults that make the audit incomplete. The run is then not balanced.
    pub(super) faults: Vec<String>,
    pub(super) remarks: Vec<String>,
}

/// Audits all records since the offsets `from`, which were the end offsets at the time `since_ms`,
/// and compares the streams with them.
pub(super) async fn audit_all(
    cluster: &Cluster,
    shop: &Shop<'_>,
    from: Offsets,
    since_ms: i64,
    streams: &[StreamOutcome],
) -> anyhow::Result<AuditResult> {
    let (low, to) = cluster.bounds(&cluster.audited_topics().await?).await?;
    let gone = without_end(&from, &to);
    let mut remarks = taken_by_retention(&from, &low);
    let mut facts = Facts {
        log_truncated: !remarks.is_empty(),
        parked: cluster.parked().await?,
        ..Facts::default()
    };
    for (producer, defaults) in [("stock", DELIVERY), ("orders", ORDER), (GATEWAY, ORDER)] {
        let events = read_journal(&shop.journal(producer), &defaults)?;
        facts.acknowledged.extend(events);
    }
    let mut earlier = 0;
    for (service, _) in SERVICES {
        let mut effects = read_effects(&store_of(shop.directory, service)).await?;
        for effect in &mut effects {
            let place = (effect.at.topic.clone(), effect.at.partition);
            effect.before_run = from
                .get(&place)
                .is_some_and(|from| effect.at.offset < *from);
            earlier += u64::from(effect.before_run);
        }
        facts.effects.insert((*service).to_owned(), effects);
    }
    if earlier > 0 {
        remarks.push(format!(
            "the services also handled {earlier} records from before the run"
        ));
    }
    let scope = Scope {
        cluster,
        directory: shop.directory,
        from: &from.clone(),
        since_ms,
    };
    let (kafka, span) = (cluster.config.clone(), Span { from, low, to });
    let (facts, totals) = tokio::task::spawn_blocking(move || {
        let totals = read_topics(&kafka, &span, &mut facts);
        totals.map(|totals| (facts, totals))
    })
    .await
    .context("reading the topics panicked")??;
    let groups = scope.audit(&facts, totals.no_events).await?;
    remarks.extend(groups.remarks);
    let mut faults = groups.faults;
    faults.extend(gone);
    faults.extend(stream_faults(streams, &facts));
    if facts.acknowledged.is_empty() {
        faults.push("the producers' journals are empty: there is nothing to audit".to_owned());
    }
    let books = read_books(&store_of(shop.directory, "inventory")).await?;
    let comparable = !facts.log_truncated && earlier == 0;
    Ok(AuditResult {
        findings: audit(&facts, SERVICES),
        proven: groups.proven,
        stock: unbalanced(&books, comparable.then_some(&totals.moved)),
        faults,
        remarks,
    })
}

/// The faults of the streams, and what they did not deliver as it is on the log. If retention
/// deleted records, only the comparison is left out.
fn stream_faults(streams: &[StreamOutcome], facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for stream in streams {
        let mut findings: Vec<String> = stream.record.without_end().collect();
        if !facts.log_truncated {
            findings.extend(compare(&stream.record, &facts.published).lines());
        }
        let faults = stream.faults.iter().chain(&findings);
        lines.extend(faults.map(|fault| format!("the stream of {}: {fault}", stream.name)));
    }
    lines
}

/// Messages about partitions that had offsets at the start, and have none now.
fn without_end(from: &Offsets, to: &Offsets) -> Vec<String> {
    let gone = from.keys().filter(|place| !to.contains_key(*place));
    let line = |(topic, partition): &(String, i32)| {
        format!("{topic}/{partition} is gone: its records cannot be audited")
    };
    gone.map(line).collect()
}

/// Messages about partitions whose records since `from` are incomplete.
fn taken_by_retention(from: &Offsets, low: &Offsets) -> Vec<String> {
    let taken = |(place, low): (&(String, i32), &i64)| {
        let taken = low - from.get(place).copied().unwrap_or_default();
        let (topic, partition) = place;
        (taken > 0).then(|| {
            format!(
                "retention deleted {taken} records of {topic}/{partition}: they are audited only \
                 as far as the producers' journals name them"
            )
        })
    };
    low.iter().filter_map(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Identity, Position, Published, StreamRecord};

    #[test]
    fn a_stream_that_differs_from_the_log_is_a_fault() {
        let place = || ("shop.orders".to_owned(), 0);
        let identity = Identity {
            source: "/callers/a".to_owned(),
            id: "e".to_owned(),
        };
        let mut stream = StreamOutcome {
            name: "all types",
            record: StreamRecord {
                types: vec![OrderPlaced::TYPE.to_owned()],
                from: [(place(), 0)].into(),
                to: [(place(), 1)].into(),
                events: vec![identity.clone()],
                ..StreamRecord::default()
            },
            cuts: 1,
            faults: Vec::new(),
        };
        let (topic, partition) = place();
        let mut facts = Facts::default();
        facts.published.push(Published {
            identity,
            ty: OrderPlaced::TYPE.to_owned(),
            key: None,
            at: Position {
                topic,
                partition,
                offset: 0,
            },
        });
        let faults = |stream: &StreamOutcome, facts: &Facts| {
            stream_faults(std::slice::from_ref(stream), facts)
        };
        assert_eq!(faults(&stream, &facts), Vec::<String>::new());
        stream.record.events.clear();
        stream.faults.push("a gap".to_owned());
        let found = faults(&stream, &facts);
        assert_eq!(found[0], "the stream of all types: a gap");
        assert!(found[1].contains("1 missing"), "{found:?}");
        facts.log_truncated = true;
        let found = faults(&stream, &facts);
        assert_eq!(found, ["the stream of all types: a gap"]);
        stream.record.to.clear();
        let found = faults(&stream, &facts);
        assert!(found[1].contains("no end"), "{found:?}");
    }

    #[test]
    fn only_records_deleted_since_the_start_are_reported() {
        let offsets = |values: [i64; 3]| -> Offsets {
            let places = (0..).map(|partition| ("shop.orders".to_owned(), partition));
            places.zip(values).collect()
        };
        let remarks = taken_by_retention(&offsets([10, 10, 10]), &offsets([4, 10, 13]));
        assert_eq!(remarks.len(), 1);
        assert!(
            remarks[0].contains("3 records of shop.orders/2"),
            "{remarks:?}"
        );
    }
}
