//! The judgement: evidence in, a report out.
//!
//! Owns the order in which things are asked, and what stays in memory between. Knows neither Kafka nor a store: both are
//! behind [`Evidence`], so that a simulation can play them.
//!
//! 1. The dead letters are read: what types the group handles, and which letters' records have an effect.
//! 2. The topic is read, and the store asked for each record. What lacks an effect is looked up elsewhere ([`Pending`]), and
//!    the completions go through the [`OrderTable`].
//! 3. Where the keys were too many for the table, the topic is read again for the rest of them, as often as it takes.

use super::evidence::{Evidence, Offsets, judged};
use super::order::OrderTable;
use super::pending::{End, Letters, Pending};
use super::report::{AuditReport, Finding, Stretch, Tally};
use super::settings::AuditSettings;
use super::subject::{Kind, Subject};
use super::suspects::Suspects;
use super::{AuditError, Progress, Step};
use crate::handler::{FALLBACK_HANDLER, RAW_HANDLER};
use crate::inbox::InboxKey;
use std::collections::{BTreeSet, HashMap};

/// Records that the store is asked for at a time.
const BATCH_RECORDS: usize = 1024;

/// Bytes of an entry of the order table, about: a hash table doubles, and is half empty then.
const ORDER_ENTRY_BYTES: usize = 128;

/// How many bytes each of the tables may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) order_entries: usize,
    pub(super) pending_bytes: usize,
    pub(super) suspects_bytes: usize,
    pub(super) contradictions_bytes: usize,
    pub(super) batch_bytes: usize,
    pub(super) batch_records: usize,
}

impl Limits {
    pub(super) fn of(memory_bytes: usize) -> Self {
        Self {
            order_entries: memory_bytes / 2 / ORDER_ENTRY_BYTES,
            pending_bytes: memory_bytes / 4,
            suspects_bytes: memory_bytes / 16,
            contradictions_bytes: memory_bytes / 16,
            batch_bytes: memory_bytes / 8,
            batch_records: BATCH_RECORDS,
        }
    }
}

/// An audit under way.
pub(super) struct Audit<'a> {
    pub(super) evidence: &'a dyn Evidence,
    pub(super) settings: &'a AuditSettings,
    pub(super) limits: Limits,
    watch: &'a mut dyn FnMut(Progress),
    pub(super) report: AuditReport,
    /// Whether the group handles what is of this kind, as far as that was asked.
    handled: HashMap<Kind, bool>,
    pending: Pending,
    pub(super) suspects: Suspects,
}

/// Judges the records of these stretches.
pub(super) fn judge(
    evidence: &dyn Evidence,
    settings: &AuditSettings,
    limits: Limits,
    stretches: Vec<Stretch>,
    watch: &mut dyn FnMut(Progress),
) -> Result<AuditReport, AuditError> {
    let mut audit = Audit {
        evidence,
        settings,
        limits,
        watch,
        report: AuditReport::new(settings, stretches),
        handled: HashMap::new(),
        pending: Pending::default(),
        suspects: Suspects::default(),
    };
    audit.run()?;
    audit.report.close();
    audit.refuse_a_stranger()?;
    Ok(audit.report)
}

impl<'a> Audit<'a> {
    fn run(&mut self) -> Result<(), AuditError> {
        let mut start = Some(0);
        while let Some(from) = start {
            self.report.passes += 1;
            let mut order = OrderTable::new(from, self.limits.order_entries);
            self.read_letters(&mut order)?;
            self.read_topic(&mut order)?;
            self.settle()?;
            self.verify(&order)?;
            start = order.rest().filter(|_| self.settings.is_ordered);
        }
        Ok(())
    }

    /// What is judged once is judged in the first pass; the others are for the order of the keys that it had no room for.
    pub(super) fn is_first_pass(&self) -> bool {
        self.report.passes == 1
    }

    /// A store that has never heard of the group would make everything look ignored.
    fn refuse_a_stranger(&self) -> Result<(), AuditError> {
        let total = self.report.total;
        let is_strange = total.records > 0 && total.ignored == total.records;
        if is_strange && !self.evidence.has_group(&self.settings.group)? {
            return Err(AuditError::UnknownToStore {
                group: self.settings.group.clone(),
            });
        }
        Ok(())
    }

    pub(super) fn letters(&self) -> Letters<'a> {
        Letters {
            evidence: self.evidence,
            group: &self.settings.group,
            topic: &self.settings.topic,
        }
    }

    pub(super) fn tell(&mut self, step: Step, done: u64, total: u64) {
        let pass = self.report.passes;
        (self.watch)(Progress {
            step,
            pass,
            done,
            total,
        });
    }

    fn read_topic(&mut self, order: &mut OrderTable) -> Result<(), AuditError> {
        let parts = judged(&self.report.partitions);
        let evidence = self.evidence;
        let total = length(&parts);
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        evidence.topic(&parts, &mut |record| {
            let subject = Subject::of(&record);
            bytes += subject.bytes();
            batch.push(subject);
            if batch.len() >= self.limits.batch_records || bytes >= self.limits.batch_bytes {
                done += batch.len() as u64;
                self.take(std::mem::take(&mut batch), order)?;
                bytes = 0;
                self.tell(Step::Topic, done, total);
            }
            Ok(())
        })?;
        self.take(batch, order)
    }

    /// Judges some records by what the store says of them.
    fn take(&mut self, batch: Vec<Subject>, order: &mut OrderTable) -> Result<(), AuditError> {
        self.learn(&batch)?;
        let is_first = self.is_first_pass();
        let is_asked = |subject: &Subject| {
            let is_ordered = subject.lane.is_some_and(|lane| order.has(lane));
            self.handled[&subject.kind] && (is_first || is_ordered)
        };
        let (asked, ignored): (Vec<Subject>, Vec<Subject>) = batch.into_iter().partition(is_asked);
        if is_first {
            for subject in ignored {
                let tally = self.tally(&subject.kind);
                tally.records += 1;
                tally.ignored += 1;
            }
        }
        let completed = self.completed(&asked)?;
        for (subject, completions) in asked.into_iter().zip(completions_of(completed)) {
            self.judge_one(subject, completions, order)?;
        }
        Ok(())
    }

    fn judge_one(
        &mut self,
        subject: Subject,
        completions: Completed,
        order: &mut OrderTable,
    ) -> Result<(), AuditError> {
        if self.is_first_pass() {
            self.tally(&subject.kind).records += 1;
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
            self.tally(&subject.kind).effects += 1;
            if completions.handlers > 1 {
                let names = self.settings.handlers.of(&subject.kind).join(", ");
                let detail = format!("had an effect by more than one of the handlers {names}");
                let listed_max = self.settings.listed_max;
                let doubled = &mut self.report.doubled;
                doubled.add(listed_max, || Finding::new(&subject, detail));
            }
        }
        match subject.lane.filter(|_| self.settings.is_ordered) {
            Some(lane) => self.see(lane, subject, at_ms, order),
            None => Ok(()),
        }
    }

    /// Asks once of each kind whether the group handles it.
    fn learn(&mut self, batch: &[Subject]) -> Result<(), AuditError> {
        let kinds = batch.iter().map(|subject| &subject.kind);
        let unknown: BTreeSet<&Kind> = kinds
            .filter(|kind| !self.handled.contains_key(kind))
            .collect();
        for kind in unknown {
            let handlers = &self.settings.handlers;
            // What is no event is handled or dead, never ignored.
            let is_handled = handlers.has(kind) || !matches!(kind, Kind::Event(_)) || {
                let names: Vec<String> = handlers.of(kind).into_iter().map(Into::into).collect();
                let known = self.evidence.has_handlers(&self.settings.group, &names)?;
                known.contains(&true)
            };
            self.handled.insert(kind.clone(), is_handled);
        }
        Ok(())
    }

    /// A record of this kind failed, so the group handles it.
    pub(super) fn is_handled(&mut self, kind: Kind) {
        self.handled.insert(kind, true);
    }

    /// How each record was completed, by each handler that it may have.
    pub(super) fn completed<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
    ) -> Result<Vec<Vec<Told>>, AuditError> {
        completed(self.evidence, self.settings, subjects)
    }

    /// Finds out what became of the records without an effect.
    fn settle(&mut self) -> Result<(), AuditError> {
        let (evidence, settings) = (self.evidence, self.settings);
        let ends = |subjects: &[Subject]| {
            let completed = completed(evidence, settings, subjects)?;
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
        let letters = self.letters();
        for (subject, end) in self.pending.settle(&letters, ends)? {
            let tally = self.tally(&subject.kind);
            match end {
                End::Parked => tally.parked += 1,
                End::Dead => tally.dead_letters += 1,
                End::Skipped => tally.skipped += 1,
                End::Effect => tally.effects += 1,
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

    fn tally(&mut self, kind: &Kind) -> &mut Tally {
        let types = &mut self.report.types;
        types.entry(kind.name().to_owned()).or_default()
    }
}

/// What the store says of one record and one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// It was completed then.
    At(i64),
    /// Another record of its identity was.
    Reused,
}

/// What the store says of one record.
pub(super) struct Completed {
    /// When it was completed first.
    pub(super) first_ms: Option<i64>,
    /// By how many handlers.
    handlers: usize,
    /// Whether another record of its identity was.
    is_reused: bool,
}

pub(super) fn completions_of(completed: Vec<Vec<Told>>) -> impl Iterator<Item = Completed> {
    completed.into_iter().map(|by_handler| {
        let at_ms = by_handler.iter().filter_map(|told| match told {
            Told::At(at_ms) => Some(*at_ms),
            Told::Nothing | Told::Reused => None,
        });
        Completed {
            first_ms: at_ms.clone().min(),
            handlers: at_ms.count(),
            is_reused: by_handler.contains(&Told::Reused),
        }
    })
}

fn completed<'s>(
    evidence: &dyn Evidence,
    settings: &AuditSettings,
    subjects: impl IntoIterator<Item = &'s Subject>,
) -> Result<Vec<Vec<Told>>, AuditError> {
    let (mut keys, mut handlers) = (Vec::new(), Vec::new());
    for subject in subjects {
        let names = settings.handlers.of(&subject.kind);
        handlers.push(names.len());
        keys.extend(names.into_iter().map(|handler| {
            let ((source, id), content) = match handler {
                // They know events, too, as records.
                RAW_HANDLER | FALLBACK_HANDLER => (subject.as_raw(&settings.topic), None),
                _ => {
                    let identity = (subject.source.clone(), subject.id.clone());
                    (identity, subject.content)
                }
            };
            InboxKey {
                group: settings.group.clone(),
                handler: handler.to_owned(),
                source,
                id,
                content,
            }
        }));
    }
    let found = match keys.is_empty() {
        true => Vec::new(),
        false => evidence.completed(&keys)?,
    };
    let mut told = keys.iter().zip(found).map(|(key, found)| match found {
        None => Told::Nothing,
        Some(found) if key.is_reused(found.content) => Told::Reused,
        Some(found) => Told::At(found.at_ms),
    });
    let of_one = |handlers| told.by_ref().take(handlers).collect();
    Ok(handlers.into_iter().map(of_one).collect())
}

/// How many offsets these are.
pub(super) fn length(parts: &[Offsets]) -> u64 {
    let length = parts.iter().map(|part| part.end - part.start);
    length.map(i64::unsigned_abs).sum()
}
