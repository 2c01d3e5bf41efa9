//! The final audit: reads every source again and audits it.

use super::groups::Scope;
use crate::audit::{Facts, Findings, audit, unbalanced};
use crate::cluster::{Cluster, Offsets};
use crate::monitoring::sample::store_of;
use crate::shop::Shop;
use crate::shop::services::SERVICES;
use crate::sources::{Defaults, Span, read_books, read_effects, read_journal, read_topics};
use anyhow::Context;
use evenkeel::event::EventType;
use shop_schemas::{OrderPlaced, StockReceived};

/// The attributes that the lines of the producers' journals omit.
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

/// Audits all records since the offsets `from`, which were the end offsets at the time `since_ms`.
pub(super) async fn audit_all(
    cluster: &Cluster,
    shop: &Shop<'_>,
    from: Offsets,
    since_ms: i64,
) -> anyhow::Result<AuditResult> {
    let (low, to) = cluster.bounds(&cluster.audited_topics().await?).await?;
    let mut remarks = taken_by_retention(&from, &low);
    let mut facts = Facts {
        log_truncated: !remarks.is_empty(),
        parked: cluster.parked().await?,
        ..Facts::default()
    };
    for (producer, defaults) in [("stock", DELIVERY), ("orders", ORDER)] {
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
    let (facts, said) = tokio::task::spawn_blocking(move || {
        let said = read_topics(&kafka, &span, &mut facts);
        said.map(|said| (facts, said))
    })
    .await
    .context("reading the topics panicked")??;
    let groups = scope.audit(&facts, said.no_events).await?;
    remarks.extend(groups.remarks);
    let mut faults = groups.faults;
    if facts.acknowledged.is_empty() {
        faults.push("the producers' journals are empty: there is nothing to audit".to_owned());
    }
    let books = read_books(&store_of(shop.directory, "inventory")).await?;
    let comparable = !facts.log_truncated && earlier == 0;
    Ok(AuditResult {
        findings: audit(&facts, SERVICES),
        proven: groups.proven,
        stock: unbalanced(&books, comparable.then_some(&said.moved)),
        faults,
        remarks,
    })
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
