//! Reports one consumer or relay of this process in health and metrics.
//!
//! Owns the names that distinguish it from others of the same process: `consumer payments`, and
//! `consumer payments #2` for a second member of the same group. When a reporter ends, its
//! components and loops are removed from the health and its gauges are set to 0.
//!
//! # Lifetime
//!
//! A reporter claims two names at its creation, the lowest free number in each of two tables: one
//! of the health it reports to, and one of the process's metrics, because several healths share one
//! recorder. It gives both back on [`Reporter::end`] or with its last clone. A reporter that has
//! ended reports nothing more: its names may belong to another one by then. So late threads cannot
//! change the health of their successor.
//!
//! A gauge cannot be removed from a recorder. It is set to 0 instead, when the last clone is
//! dropped and no thread can set it any more.

use super::health::Health;
use super::metric::Metric;
use metrics::{Gauge, Key, Label, gauge};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The names in use among the metrics of this process, for reporters of all healths.
static SERIES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Reports a running consumer or relay. Clones share it. It ends with [`Reporter::end`], or with
/// its last clone.
///
/// Every method locks for a moment and may be called from any thread.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<Inner>);

struct Inner {
    health: Health,
    /// The kind of the reporter, which is also the name of its main component.
    kind: &'static str,
    /// Its name in the health.
    name: String,
    /// Its name among the metrics, and the label that distinguishes it from others of the same
    /// name.
    series: String,
    member: Option<Label>,
    gauges: Mutex<HashMap<Key, Gauge>>,
    /// Its components and loops in the health. None after it has ended.
    reported: Mutex<Option<BTreeSet<String>>>,
}

impl Reporter {
    /// Creates a reporter of this kind, such as `consumer`, with this name, such as its group. The
    /// name may be empty.
    pub(crate) fn new(health: Health, kind: &'static str, name: &str) -> Self {
        let (number, series) = claim(&mut lock(&SERIES), &joined(kind, name));
        let (_, name) = claim(&mut health.names(), name);
        Self(Arc::new(Inner {
            health,
            kind,
            name,
            series,
            member: (number > 1).then(|| Label::new("member", number.to_string())),
            gauges: Mutex::default(),
            reported: Mutex::new(Some(BTreeSet::new())),
        }))
    }

    /// Reports whether this reporter's `component` is ready, with the reason if it is not.
    pub(crate) fn set_ready(&self, component: &str, state: Result<(), String>) {
        self.report(component, |health, name| health.set_ready(name, state));
    }

    /// Sets a note about this reporter's `component`.
    pub(crate) fn set_note(&self, component: &str, note: Option<String>) {
        self.report(component, |health, name| health.set_note(name, note));
    }

    /// The address that serves the health of this process, if there is one.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.0.health.admin()
    }

    /// Registers a loop of this reporter that must beat at least this often. Does not affect its
    /// readiness.
    pub(crate) fn expect_beat(&self, name: &str, within: Duration) -> Beating {
        self.report(name, |health, name| health.expect_beat(name, within));
        Beating {
            reporter: self.clone(),
            name: joined(name, &self.0.name),
        }
    }

    /// A gauge of this reporter. If another reporter of the process has the same kind and name, the
    /// gauge has an additional label `member`.
    pub(crate) fn gauge(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
        let labels = labels
            .iter()
            .map(|(name, value)| Label::new(*name, (*value).to_owned()));
        let labels: Vec<Label> = labels.chain(self.0.member.clone()).collect();
        let key = Key::from_parts(metric.name(), labels.clone());
        let mut gauges = lock(&self.0.gauges);
        let gauge = gauges
            .entry(key)
            .or_insert_with(|| gauge!(metric.name(), labels));
        gauge.clone()
    }

    /// Ends the reporter. After a failure its main component stays in the health as not ready,
    /// until a reporter of the same name replaces it.
    pub(crate) fn end(&self, failure: Option<&str>) {
        self.0.end(failure);
    }

    /// Changes the health, unless the reporter has ended: another reporter may have its name by
    /// now.
    fn report(&self, component: &str, report: impl FnOnce(&Health, &str)) {
        if let Some(reported) = &mut *lock(&self.0.reported) {
            let name = joined(component, &self.0.name);
            report(&self.0.health, &name);
            reported.insert(name);
        }
    }
}

impl Inner {
    fn end(&self, failure: Option<&str>) {
        let Some(reported) = lock(&self.reported).take() else {
            return;
        };
        reported.iter().for_each(|name| self.health.forget(name));
        if let Some(failure) = failure {
            let main = joined(self.kind, &self.name);
            self.health
                .set_ready(&main, Err(format!("ended: {failure}")));
        }
        self.health.names().remove(&self.name);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(None);
        lock(&self.gauges).values().for_each(|gauge| gauge.set(0.0));
        lock(&SERIES).remove(&self.series);
    }
}

/// A registered loop. Dropping it retires the loop, which then needs no more beats.
pub(crate) struct Beating {
    reporter: Reporter,
    name: String,
}

impl Beating {
    /// Notes progress of the loop.
    pub(crate) fn beat(&self) {
        if lock(&self.reporter.0.reported).is_some() {
            self.reporter.0.health.beat(&self.name);
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        if lock(&self.reporter.0.reported).is_some() {
            self.reporter.0.health.retire(&self.name);
        }
    }
}

/// Claims the name, with the lowest free number: `payments`, `payments #2`, `payments #3`.
fn claim(names: &mut BTreeSet<String>, name: &str) -> (usize, String) {
    let mut number = 1;
    loop {
        let numbered = match number {
            1 => name.to_owned(),
            number => joined(name, &format!("#{number}")),
        };
        if names.insert(numbered.clone()) {
            return (number, numbered);
        }
        number += 1;
    }
}

/// Two words with a space between them, or the one that is not empty.
fn joined(first: &str, second: &str) -> String {
    match first.is_empty() || second.is_empty() {
        true => [first, second].concat(),
        false => format!("{first} {second}"),
    }
}

/// The guarded values are consistent after each statement, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(health: &Health, group: &str) -> Reporter {
        Reporter::new(health.clone(), "consumer", group)
    }

    #[test]
    fn reporters_of_one_process_hide_nothing_of_each_other() {
        let health = Health::default();
        let (one, other) = (consumer(&health, "a"), consumer(&health, "b"));
        one.set_ready("consumer", Err("no broker".to_owned()));
        other.set_ready("consumer", Ok(()));
        other.set_note("consumer", Some("paused".to_owned()));
        let not_ready = [("consumer a".to_owned(), "no broker".to_owned())];
        assert_eq!(health.not_ready(), not_ready);
        assert_eq!(
            health.notes(),
            [("consumer b".to_owned(), "paused".to_owned())]
        );
    }

    #[test]
    fn namesakes_are_numbered_and_a_free_number_is_used_again() {
        let health = Health::default();
        let [first, second, third] = [(); 3].map(|()| consumer(&health, "payments"));
        for reporter in [&first, &second, &third] {
            reporter.set_ready("handlers", Ok(()));
        }
        let names = [
            "handlers payments",
            "handlers payments #2",
            "handlers payments #3",
        ];
        assert_eq!(health.components(), names);
        drop(second);
        let next = consumer(&health, "payments");
        next.set_ready("handlers", Err("stuck".to_owned()));
        assert_eq!(health.not_ready()[0].0, "handlers payments #2");
    }

    #[test]
    fn a_group_named_like_a_numbered_one_stays_distinct() {
        let health = Health::default();
        let [called, one, two] =
            ["payments #2", "payments", "payments"].map(|name| consumer(&health, name));
        for reporter in [&called, &one, &two] {
            reporter.set_ready("consumer", Ok(()));
        }
        assert_eq!(health.components().len(), 3);
    }

    #[test]
    fn the_end_of_a_reporter_leaves_others_unchanged() {
        let health = Health::default();
        let (ends, stays) = (consumer(&health, "a"), consumer(&health, "a"));
        let beating = ends.expect_beat("consumer_poll", Duration::ZERO);
        let other = stays.expect_beat("consumer_poll", Duration::from_secs(60));
        for reporter in [&ends, &stays] {
            reporter.set_ready("consumer", Err("stopping".to_owned()));
        }
        stays.set_ready("consumer", Ok(()));
        ends.end(None);
        ends.set_ready("consumer", Err("late".to_owned()));
        assert!(health.not_ready().is_empty());
        assert_eq!(health.loops(), ["consumer_poll a #2"]);
        let next = consumer(&health, "a");
        let third = next.expect_beat("consumer_poll", Duration::from_secs(60));
        drop(beating);
        assert_eq!(
            health.loops().len(),
            2,
            "a late drop retires nobody else's loop"
        );
        drop((other, third));
        assert!(health.loops().is_empty());
    }

    #[test]
    fn a_failure_is_shown_until_its_name_is_reused() {
        let health = Health::default();
        let failed = consumer(&health, "a");
        failed.set_ready("handlers", Err("stuck".to_owned()));
        failed.end(Some("a worker panicked"));
        drop(failed);
        let reported = (
            "consumer a".to_owned(),
            "ended: a worker panicked".to_owned(),
        );
        assert_eq!(health.not_ready(), [reported]);
        consumer(&health, "a").set_ready("consumer", Ok(()));
        assert!(health.not_ready().is_empty());
    }

    #[test]
    fn gauges_of_equal_names_are_separate_and_end_at_zero() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let group = crate::testing::unique("gauges");
        let of = |reporter: &Reporter, value: f64| {
            reporter
                .gauge(Metric::InFlight, &[("group", &group)])
                .set(value);
        };
        metrics::with_local_recorder(&recorder, || {
            // Each with its own health: the metrics are those of the process nevertheless.
            let reporters = [(); 2].map(|()| consumer(&Health::default(), &group));
            of(&reporters[0], 7.0);
            of(&reporters[1], 5.0);
            let reported = recorder.handle().render();
            let name = Metric::InFlight.name();
            let (first, second) = (
                format!("{name}{{group=\"{group}\"}} "),
                format!("{name}{{group=\"{group}\",member=\"2\"}} "),
            );
            assert!(reported.contains(&format!("{first}7\n")), "{reported}");
            assert!(reported.contains(&format!("{second}5\n")), "{reported}");
            drop(reporters);
            let reported = recorder.handle().render();
            assert!(reported.contains(&format!("{first}0\n")), "{reported}");
            assert!(reported.contains(&format!("{second}0\n")), "{reported}");
        });
    }
}
