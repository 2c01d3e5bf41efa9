//! The rules of the audit: sources in, a report out.
//!
//! Owns the order of the queries and the tables between them. Depends on neither Kafka nor a store:
//! both are behind [`Sources`], so that a simulation can replace them.
//!
//! 1. Read the dead letters: which types the group handles, and which dead letters' records have an
//!    effect.
//! 2. Read the topic and query the store for each record. Records without an effect are looked up
//!    elsewhere ([`Pending`]). Completions go through the [`OrderTable`].
//! 3. If the table is too small for all keys, read the topic again for the remaining keys, as often
//!    as needed.

use super::identity::{Identity, Kind};
use super::pending::{DeadLetters, End, Pending};
use super::reordering::{OrderTable, ReorderCandidates};
use super::report::{AuditReport, EndCounts, Finding, PartitionRange};
use super::settings::AuditSettings;
use super::sources::{Sources, audited_offsets, length};
use super::{AuditError, Progress, Step};
use evenkeel::handler::{FALLBACK_HANDLER, RAW_HANDLER};
use evenkeel::inbox::InboxKey;
use std::collections::{BTreeSet, HashMap};

/// Records per query of the store.
const BATCH_RECORDS: usize = 1024;

/// Approximate bytes of an entry of the order table. A hash table doubles when it is full, and is
/// then half empty.
const ORDER_ENTRY_BYTES: usize = 128;

/// The maximum size of each table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) order_entries: usize,
    pub(super) pending_bytes: usize,
    pub(super) candidates_bytes: usize,
    pub(super) contradictions_bytes: usize,
    pub(super) batch_bytes: usize,
    pub(super) batch_records: usize,
}

impl Limits {
    pub(super) fn of(memory_bytes: usize) -> Self {
        Self {
            order_entries: memory_bytes / 2 / ORDER_ENTRY_BYTES,
            pending_bytes: memory_bytes / 4,
            candidates_bytes: memory_bytes / 16,
            contradictions_bytes: memory_bytes / 16,
            batch_bytes: memory_bytes / 8,
            batch_records: BATCH_RECORDS,
        }
    }
}

/// A running audit.
pub(super) struct Audit<'a> {
    pub(super) sources: &'a dyn Sources,
    pub(super) settings: &'a AuditSettings,
    pub(super) limits: Limits,
    watch: &'a mut dyn FnMut(Progress),
    pub(super) report: AuditReport,
    /// Whether the group handles records of a kind, for the kinds that were looked up.
    handled: HashMap<Kind, bool>,
    pending: Pending,
    pub(super) candidates: ReorderCandidates,
}

/// Audits the records of these ranges.
pub(super) fn verify(
    sources: &dyn Sources,
    settings: &AuditSettings,
    limits: Limits,
    ranges: Vec<PartitionRange>,
    watch: &mut dyn FnMut(Progress),
) -> Result<AuditReport, AuditError> {
    let mut audit = Audit {
        sources,
        settings,
        limits,
        watch,
        report: AuditReport::new(settings, ranges),
        handled: HashMap::new(),
        pending: Pending::default(),
        candidates: ReorderCandidates::default(),
    };
    audit.run()?;
    audit.report.compute_totals();
    audit.reject_unknown_group()?;
    Ok(audit.report)
}

impl<'a> Audit<'a> {
    fn run(&mut self) -> Result<(), AuditError> {
        let mut start = Some(0);
        while let Some(from) = start {
            self.report.passes += 1;
            let mut order = OrderTable::new(from, self.limits.order_entries);
            self.read_dead_letters(&mut order)?;
            self.read_topic(&mut order)?;
            self.settle()?;
            self.verify(&order)?;
            start = order.next_pass_start().filter(|_| self.settings.is_ordered);
        }
        Ok(())
    }

    /// Most checks happen in the first pass only. Later passes check the order of the keys that did
    /// not fit into the table.
    pub(super) fn is_first_pass(&self) -> bool {
        self.report.passes == 1
    }

    /// Rejects a store that has no row of the group: every record would look ignored.
    fn reject_unknown_group(&self) -> Result<(), AuditError> {
        let total = self.report.total;
        let is_unknown = total.records > 0 && total.ignored == total.records;
        if is_unknown && !self.sources.has_group(&self.settings.group)? {
            return Err(AuditError::UnknownToStore {
                group: self.settings.group.clone(),
            });
        }
        Ok(())
    }

    pub(super) fn dead_letters(&self) -> DeadLetters<'a> {
        DeadLetters {
            sources: self.sources,
            group: &self.settings.group,
            topic: &self.settings.topic,
        }
    }

    pub(super) fn report_progress(&mut self, step: Step, done: u64, total: u64) {
        let pass = self.report.passes;
        (self.watch)(Progress {
            step,
            pass,
            done,
            total,
        });
    }

    fn read_topic(&mut self, order: &mut OrderTable) -> Result<(), AuditError> {
        let parts = audited_offsets(&self.report.partitions);
        let sources = self.sources;
        let total = length(&parts);
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        sources.topic(&parts, &mut |record| {
            let subject = Identity::of(&record);
            bytes += subject.bytes();
            batch.push(subject);
            if batch.len() >= self.limits.batch_records || bytes >= self.limits.batch_bytes {
                done += batch.len() as u64;
                self.check_batch(std::mem::take(&mut batch), order)?;
                bytes = 0;
                self.report_progress(Step::Topic, done, total);
            }
            Ok(())
        })?;
        self.check_batch(batch, order)
    }

    /// Checks a batch of records against the store.
    fn check_batch(
        &mut self,
        batch: Vec<Identity>,
        order: &mut OrderTable,
    ) -> Result<(), AuditError> {
        self.look_up_kinds(&batch)?;
        let is_first = self.is_first_pass();
        let is_queried = |subject: &Identity| {
            let is_ordered = subject.lane.is_some_and(|lane| order.covers(lane));
            self.handled[&subject.kind] && (is_first || is_ordered)
        };
        let (queried, ignored): (Vec<Identity>, Vec<Identity>) =
            batch.into_iter().partition(is_queried);
        if is_first {
            for subject in ignored {
                let counts = self.counts_of(&subject.kind);
                counts.records += 1;
                counts.ignored += 1;
            }
        }
        let completed = self.completed(&queried)?;
        for (subject, completions) in queried.into_iter().zip(completions_of(completed)) {
            self.check_record(subject, completions, order)?;
        }
        Ok(())
    }

    fn check_record(
        &mut self,
        subject: Identity,
        completions: Completed,
        order: &mut OrderTable,
    ) -> Result<(), AuditError> {
        if self.is_first_pass() {
            self.counts_of(&subject.kind).records += 1;
        }
        let Some(at_ms) = completions.first_ms else {
            if self.is_first_pass() {
                self.pending.add(subject);
                if self.pending.bytes() >= self.limits.pending_bytes {
                    self.settle()?;
                }
            }
            return Ok(());
        };
        if self.is_first_pass() {
            self.counts_of(&subject.kind).effects += 1;
            if completions.handlers > 1 {
                let names = self.settings.handlers.of(&subject.kind).join(", ");
                let detail = format!("had an effect by more than one of the handlers {names}");
                let listed_max = self.settings.listed_max;
                let doubled = &mut self.report.doubled;
                doubled.add(listed_max, || Finding::new(&subject, detail));
            }
        }
        match subject.lane.filter(|_| self.settings.is_ordered) {
            Some(lane) => self.check_order(lane, subject, at_ms, order),
            None => Ok(()),
        }
    }

    /// Looks up, once for each kind, whether the group handles it.
    fn look_up_kinds(&mut self, batch: &[Identity]) -> Result<(), AuditError> {
        let kinds = batch.iter().map(|subject| &subject.kind);
        let unknown: BTreeSet<&Kind> = kinds
            .filter(|kind| !self.handled.contains_key(kind))
            .collect();
        for kind in unknown {
            let handlers = &self.settings.handlers;
            // A record that is no event is handled or dead-lettered, never ignored.
            let is_handled = handlers.has(kind) || !matches!(kind, Kind::Event(_)) || {
                let names: Vec<String> = handlers.of(kind).into_iter().map(Into::into).collect();
                let known = self.sources.has_handlers(&self.settings.group, &names)?;
                known.contains(&true)
            };
            self.handled.insert(kind.clone(), is_handled);
        }
        Ok(())
    }

    /// A record of this kind failed, so the group handles the kind.
    pub(super) fn mark_handled(&mut self, kind: Kind) {
        self.handled.insert(kind, true);
    }

    /// The completions of each record, one for each handler that it may have.
    pub(super) fn completed<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Identity>,
    ) -> Result<Vec<Vec<CompletionState>>, AuditError> {
        completed(self.sources, self.settings, subjects)
    }

    /// Finds the ends of the records without an effect.
    fn settle(&mut self) -> Result<(), AuditError> {
        let (sources, settings) = (self.sources, self.settings);
        let ends = |subjects: &[Identity]| {
            let completed = completed(sources, settings, subjects)?;
            let ends = completions_of(completed).map(|found| match found {
                Completed {
                    first_ms: Some(_), ..
                } => End::Effect,
                Completed {
                    is_reused: true, ..
                } => End::Reused,
                _ => End::Missing,
            });
            Ok(ends.collect())
        };
        let dead_letters = self.dead_letters();
        for (subject, end) in self.pending.settle(&dead_letters, ends)? {
            let counts = self.counts_of(&subject.kind);
            match end {
                End::Parked => counts.parked += 1,
                End::Dead => counts.dead_letters += 1,
                End::Skipped => counts.skipped += 1,
                End::Effect => counts.effects += 1,
                End::Reused => {
                    let detail = "its source and id were completed with other content";
                    let reused = &mut self.report.reused;
                    reused.add(settings.listed_max, || {
                        Finding::new(&subject, detail.to_owned())
                    });
                }
                End::Missing => {
                    let detail = "no effect, no dead letter, not parked and not skipped";
                    let missing = &mut self.report.missing;
                    missing.add(settings.listed_max, || {
                        Finding::new(&subject, detail.to_owned())
                    });
                }
            }
        }
        Ok(())
    }

    fn counts_of(&mut self, kind: &Kind) -> &mut EndCounts {
        let types = &mut self.report.types;
        types.entry(kind.name().to_owned()).or_default()
    }
}

/// The store's answer for one record and one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompletionState {
    Nothing,
    /// It was completed at this time.
    At(i64),
    /// Another record of its identity was completed.
    Reused,
}

/// The store's answers for one record.
pub(super) struct Completed {
    /// The time of its first completion.
    pub(super) first_ms: Option<i64>,
    /// The number of handlers that completed it.
    handlers: usize,
    /// Whether another record of its identity was completed.
    is_reused: bool,
}

pub(super) fn completions_of(
    completed: Vec<Vec<CompletionState>>,
) -> impl Iterator<Item = Completed> {
    completed.into_iter().map(|by_handler| {
        let at_ms = by_handler.iter().filter_map(|state| match state {
            CompletionState::At(at_ms) => Some(*at_ms),
            CompletionState::Nothing | CompletionState::Reused => None,
        });
        Completed {
            first_ms: at_ms.clone().min(),
            handlers: at_ms.count(),
            is_reused: by_handler.contains(&CompletionState::Reused),
        }
    })
}

fn completed<'s>(
    sources: &dyn Sources,
    settings: &AuditSettings,
    subjects: impl IntoIterator<Item = &'s Identity>,
) -> Result<Vec<Vec<CompletionState>>, AuditError> {
    let (mut keys, mut handlers) = (Vec::new(), Vec::new());
    for subject in subjects {
        let names = settings.handlers.of(&subject.kind);
        handlers.push(names.len());
        keys.extend(names.into_iter().map(|handler| {
            let ((source, id), content) = match handler {
                // Raw and fallback handlers treat events as records.
                RAW_HANDLER | FALLBACK_HANDLER => (subject.as_raw(&settings.topic), None),
                _ => {
                    let identity = (subject.source.clone(), subject.id.clone());
                    (identity, subject.content)
                }
            };
            InboxKey::new(&settings.group, handler, source, id).with_content(content)
        }));
    }
    let found = match keys.is_empty() {
        true => Vec::new(),
        false => sources.completed(&keys)?,
    };
    let mut state = keys.iter().zip(found).map(|(key, found)| match found {
        None => CompletionState::Nothing,
        Some(found) if key.is_reused(found.content) => CompletionState::Reused,
        Some(found) => CompletionState::At(found.at_ms),
    });
    let of_one = |handlers| state.by_ref().take(handlers).collect();
    Ok(handlers.into_iter().map(of_one).collect())
}
