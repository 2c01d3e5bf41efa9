//! The audit of `evenkeel-ops`, of each group and topic: inboxes, dead letters and retry topics.
//!
//! Its sources differ from those of the demo's audit, which reads the effects with a client of its
//! own. The demo's audit finds an inbox row without an effect; that of `evenkeel-ops` finds a
//! record that is no event. If the two count different numbers of records, one of them is wrong.

use crate::audit::Facts;
use crate::cluster::{Cluster, Offsets};
use crate::monitoring::store::store_of;
use crate::shop::services::SERVICES;
use anyhow::Context;
use evenkeel::inbox::SqliteCompletions;
use evenkeel::kafka::reader::Start;
use evenkeel_ops::audit::{
    AuditError, AuditReport, AuditSettings, Finding, Findings, Handlers, audit,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of a request to the brokers.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The result of the audits of all groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Number of records whose end was proven, counted in every group that reads them.
    pub(super) proven: u64,
    pub(super) faults: Vec<String>,
    pub(super) remarks: Vec<String>,
}

/// The range of the audit.
pub(super) struct Scope<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) directory: &'a Path,
    /// End offsets of the topics before the run.
    pub(super) from: &'a Offsets,
    /// The time of these offsets, in milliseconds since the epoch.
    pub(super) since_ms: i64,
}

impl Scope<'_> {
    /// Audits every group on every topic of its subscriptions.
    pub(super) async fn audit(&self, facts: &Facts, no_events: u64) -> anyhow::Result<Groups> {
        let mut groups = Groups::default();
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for event in &facts.published {
            *seen.entry(&event.at.topic).or_default() += 1;
        }
        let cluster = evenkeel_ops::Cluster::new(self.cluster.config.clone(), TIMEOUT);
        for (service, subscriptions) in SERVICES {
            let store = store_of(self.directory, service);
            let store = Arc::new(SqliteCompletions::open(&store, service).await?);
            let mut topics: BTreeMap<&str, Handlers> = BTreeMap::new();
            for (topic, ty) in *subscriptions {
                let handlers = topics.entry(topic).or_default();
                *handlers = std::mem::take(handlers).with(*ty, *ty);
            }
            for (topic, handlers) in topics {
                let mut settings = AuditSettings::new(*service, topic);
                settings.handlers = handlers;
                settings.from = self.start(topic);
                let report = audit(&cluster, settings, store.clone(), |_| {}).await;
                let seen = seen.get(topic).copied().unwrap_or_default();
                match report {
                    // No event was published there in so short a run.
                    Err(AuditError::NeverCommitted { .. }) if seen == 0 => {}
                    report => {
                        let report = report
                            .map_err(of_cluster)
                            .with_context(|| format!("cannot audit {service} on {topic}"))?;
                        let is_whole = !facts.log_truncated && no_events == 0;
                        groups.add(&report, is_whole.then_some(seen));
                    }
                }
            }
            store.close().await;
        }
        Ok(groups)
    }

    /// The start of the run: by offset if the topic was empty, else by time. Topics of a mock
    /// cluster, which has no times, are always empty.
    fn start(&self, topic: &str) -> Start {
        let mut own = self.from.iter().filter(|((name, _), _)| name == topic);
        match own.all(|(_, offset)| *offset == 0) {
            true => Start::Beginning,
            false => Start::Time(self.since_ms),
        }
    }
}

/// Extracts the cluster's error, on which the exit code depends.
fn of_cluster(error: AuditError) -> anyhow::Error {
    let error = error.into_kafka();
    error.map_or_else(anyhow::Error::from, anyhow::Error::from)
}

impl Groups {
    /// `seen` is the number of events that the demo's reader found on the topic.
    fn add(&mut self, report: &AuditReport, seen: Option<u64>) {
        let AuditReport { group, topic, .. } = report;
        let lines = |what: &str, findings: &Findings| -> Vec<String> {
            let listed = findings.listed.iter().take(5);
            let line = |found: &Finding| {
                let (partition, offset) = (found.partition, found.offset);
                let detail = &found.detail;
                format!("{what}: {group} on {topic}/{partition}@{offset}: {detail}")
            };
            listed.map(line).collect()
        };
        self.faults.extend(lines("missing", &report.missing));
        self.faults
            .extend(lines("out of order", &report.out_of_order));
        self.faults.extend(lines("reused id", &report.reused));
        self.faults.extend(lines("unreadable", &report.unreadable));
        // A kill between the dead letter and the commit causes this: the record was redelivered and
        // handled.
        self.remarks.extend(lines("doubled", &report.doubled));
        let records = report.total.records;
        if let Some(seen) = seen.filter(|seen| *seen != records + report.lag) {
            self.faults.push(format!(
                "the audit of {group} saw {records} of the {seen} events of {topic}"
            ));
        }
        if report.missing.count + report.out_of_order.count + report.reused.count == 0 {
            self.proven += records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_ops::audit::EndCounts;

    fn report(change: impl FnOnce(&mut AuditReport)) -> AuditReport {
        let mut report = AuditReport {
            group: "payments".to_owned(),
            topic: "shop.orders".to_owned(),
            proven: true,
            partitions: Vec::new(),
            types: BTreeMap::new(),
            total: EndCounts::default(),
            lag: 0,
            missing: Findings::default(),
            doubled: Findings::default(),
            out_of_order: Findings::default(),
            reused: Findings::default(),
            unreadable: Findings::default(),
            passes: 1,
        };
        report.total.records = 7;
        change(&mut report);
        report
    }

    fn found() -> Findings {
        let finding = Finding {
            partition: 1,
            offset: 2,
            ty: "t".to_owned(),
            source: "s".to_owned(),
            id: "i".to_owned(),
            detail: "no effect".to_owned(),
        };
        Findings {
            count: 1,
            listed: vec![finding],
        }
    }

    /// Records that the audit has not seen are a fault as well.
    #[test]
    fn missing_or_disordered_records_are_faults_and_contradictions_are_remarks() {
        let check = |change: fn(&mut AuditReport), faults: usize, remarks: usize, proven| {
            let mut groups = Groups::default();
            groups.add(&report(change), Some(7));
            let counts = (groups.faults.len(), groups.remarks.len(), groups.proven);
            assert_eq!(counts, (faults, remarks, proven), "{groups:?}");
        };
        check(|_| {}, 0, 0, 7);
        check(|report| report.missing = found(), 1, 0, 0);
        check(|report| report.out_of_order = found(), 1, 0, 0);
        check(|report| report.doubled = found(), 0, 1, 7);
        check(|report| report.total.records = 6, 1, 0, 6);
    }
}
