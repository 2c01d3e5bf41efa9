//! The audit's errands: reads everything afresh and has it judged.

use crate::audit::{DUTIES, Facts, Findings, audit, unbalanced};
use crate::cluster::{Cluster, Offsets};
use crate::read::{Span, read_books, read_effects, read_journal, read_topics};
use crate::sample::store_of;
use crate::shop::Shop;
use anyhow::Context;

/// What came of it.
pub(super) struct Books {
    pub(super) findings: Findings,
    pub(super) stock: Vec<String>,
    /// What makes the audit unfit to balance.
    pub(super) faults: Vec<String>,
    pub(super) remarks: Vec<String>,
}

/// Audits everything since the offsets `from`.
pub(super) async fn audit_all(
    cluster: &Cluster,
    shop: &Shop<'_>,
    from: Offsets,
) -> anyhow::Result<Books> {
    let (low, to) = cluster.bounds(&cluster.audited_topics().await?).await?;
    let mut facts = Facts::default();
    let mut remarks = Vec::new();
    for (place, low) in &low {
        let taken = low - from.get(place).copied().unwrap_or_default();
        if taken > 0 {
            facts.log_truncated = true;
            remarks.push(format!(
                "retention has already taken {taken} records of {}/{}: what is missing there is audited only as far as the producers' journals name it",
                place.0, place.1
            ));
        }
    }
    for producer in ["stock", "orders"] {
        facts
            .acknowledged
            .extend(read_journal(&shop.journal(producer))?);
    }
    let mut earlier = false;
    for (service, _) in DUTIES {
        let mut effects = read_effects(&store_of(shop.directory, service)).await?;
        let all = effects.len();
        effects.retain(|effect| {
            let place = (effect.at.topic.clone(), effect.at.partition);
            effect.at.offset >= from.get(&place).copied().unwrap_or_default()
        });
        if effects.len() < all {
            earlier = true;
            remarks.push(format!(
                "{service} also handled {} records from before the run",
                all - effects.len()
            ));
        }
        facts.effects.insert((*service).to_owned(), effects);
    }
    let (kafka, span) = (cluster.config.clone(), Span { from, to });
    let (facts, said) = tokio::task::spawn_blocking(move || {
        let said = read_topics(&kafka, &span, &mut facts);
        said.map(|said| (facts, said))
    })
    .await
    .context("reading the topics panicked")??;
    if said.no_events > 0 {
        remarks.push(format!(
            "{} records are no CloudEvents and were not audited",
            said.no_events
        ));
    }
    let mut faults = Vec::new();
    if facts.acknowledged.is_empty() {
        faults.push("the producers' journals are empty: there is nothing to audit".to_owned());
    }
    let books = read_books(&store_of(shop.directory, "inventory")).await?;
    let comparable = !facts.log_truncated && !earlier;
    let stock = unbalanced(&books, comparable.then_some(&said.moved));
    Ok(Books {
        findings: audit(&facts, DUTIES),
        stock,
        faults,
        remarks,
    })
}
