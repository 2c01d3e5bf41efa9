//! Announces this member's process: in the log, the metrics, the health, and on the group's control
//! topic.
//!
//! Runs on the poll thread. The brokers list a group's members by id only. The announcement maps
//! the id to a host and a process, also for the tool when a member does not answer a command.
//!
//! | place | content | ends |
//! |---|---|---|
//! | log | the member id, once per id | |
//! | metric `evenkeel_member_info` | 1 for the present id | 0 for an earlier one |
//! | health, notes of `member` and the poll loop | id, client and instance | with the run |
//! | control topic | [`MemberInfo`] | deleted by the stop, or after three days by another member |

use crate::consumer::poll::operator::telemetry;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::control::MemberInfo;
use crate::kafka::native::member_id;
use crate::telemetry::Metric;
use jiff::{SignedDuration, Timestamp};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often the client is asked for its member id: a member that was removed gets another one.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The same until the group has assigned an id.
const CHECK_INTERVAL_AT_FIRST: Duration = Duration::from_millis(200);
/// How often a member announces itself, so that stale announcements can be recognised.
const ANNOUNCE_INTERVAL: Duration = Duration::from_hours(24);
/// How soon the announcement is repeated while the control topic does not exist.
const ANNOUNCE_INTERVAL_WITHOUT_TOPIC: Duration = Duration::from_secs(10);
/// Announcements older than this are deleted: their members were killed.
const ANNOUNCEMENT_EXPIRY: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Announcements deleted at a time.
const DELETIONS_MAX: usize = 100;
/// The most ids of one process in the metrics: their series stay until the process ends.
const SERIES_MAX: usize = 200;

/// Ids of this process in the metrics so far.
static SERIES: AtomicUsize = AtomicUsize::new(0);

/// The health component of the announcement.
const COMPONENT: &str = "member";

/// Announces this member.
pub(crate) struct MemberAnnouncement {
    shared: Arc<Shared>,
    /// The client's `client.id`.
    client_id: String,
    /// Empty before the group has assigned one.
    id: String,
    /// When the id is checked next.
    check_at: Instant,
    /// When the announcement is due.
    announce_at: Instant,
    /// The gauge of the present id, unless there were too many.
    gauge: Option<metrics::Gauge>,
}

impl MemberAnnouncement {
    /// Not a member yet.
    pub(crate) fn new(shared: Arc<Shared>, client_id: &str) -> Self {
        Self {
            shared,
            client_id: client_id.to_owned(),
            id: String::new(),
            check_at: Instant::now(),
            announce_at: Instant::now(),
            gauge: None,
        }
    }

    /// Checks the id on the next turn.
    pub(crate) fn check_soon(&mut self) {
        self.check_at = Instant::now();
    }

    /// Announces a new id, and repeats the announcement when it is due.
    pub(crate) fn update(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        let now = Instant::now();
        if now >= self.check_at {
            let has_joined = consumer.context().assignments().joined;
            let id = has_joined.then(|| member_id(consumer)).flatten();
            self.check_at = match id {
                Some(_) => now + CHECK_INTERVAL,
                None => now + CHECK_INTERVAL_AT_FIRST,
            };
            if let Some(id) = id.filter(|id| *id != self.id) {
                self.set_id(id);
            }
        }
        if now >= self.announce_at && !self.id.is_empty() {
            self.announce();
        }
    }

    /// Takes over an id that the group has assigned.
    fn set_id(&mut self, id: String) {
        let shared = &self.shared;
        let instance_id = shared.settings.instance_id.as_deref();
        telemetry::member_id_assigned(&shared.group, &id, &self.client_id, instance_id);
        let old = std::mem::replace(&mut self.id, id);
        if !old.is_empty() {
            self.shared.control.forget_member(&old);
        }
        self.shared.control.set_member(self.id.clone());
        self.publish_id();
        self.announce_at = Instant::now();
    }

    /// Shows the id in metrics and health.
    fn publish_id(&mut self) {
        let shared = &self.shared;
        let instance_id = shared.settings.instance_id.as_deref().unwrap_or_default();
        if let Some(gauge) = self.gauge.take() {
            gauge.set(0.0);
        }
        if SERIES.fetch_add(1, Ordering::Relaxed) < SERIES_MAX {
            let labels = [
                ("group", shared.group.as_str()),
                ("member_id", &self.id),
                ("client_id", &self.client_id),
                ("instance_id", instance_id),
            ];
            let gauge = shared.health.gauge(Metric::MemberInfo, &labels);
            gauge.set(1.0);
            self.gauge = Some(gauge);
        }
        let mut note = format!("{}, client {}", self.id, self.client_id);
        if !instance_id.is_empty() {
            note = format!("{note}, instance {instance_id}");
        }
        shared.health.set_ready(COMPONENT, Ok(()));
        shared.health.set_note(COMPONENT, Some(note.clone()));
        // Set at the loop of the same part as well, so that `/livez` shows it.
        shared
            .health
            .set_note(crate::consumer::shared::readiness::POLL_LOOP, Some(note));
    }

    /// Writes the entry of this member, and deletes those of members that were killed long ago.
    fn announce(&mut self) {
        let control = &self.shared.control;
        let now = Instant::now();
        if control.is_muted() {
            self.announce_at = now + ANNOUNCE_INTERVAL_WITHOUT_TOPIC;
            return;
        }
        self.announce_at = now + ANNOUNCE_INTERVAL;
        let at = Timestamp::now();
        let mut expired: Vec<String> = Vec::new();
        for info in control.state().members() {
            if at.duration_since(info.at) > ANNOUNCEMENT_EXPIRY && expired.len() < DELETIONS_MAX {
                expired.push(info.member.clone());
            }
        }
        for member in expired.iter().filter(|member| **member != self.id) {
            control.forget_member(member);
        }
        let mut info = MemberInfo::new(self.id.as_str(), self.client_id.as_str());
        info.instance_id = self.shared.settings.instance_id.clone();
        info.admin = self.shared.health.admin().map(|admin| admin.to_string());
        control.announce(&info);
    }

    /// Removes the announcement when the member stops.
    pub(crate) fn withdraw(&mut self) {
        if !self.id.is_empty() {
            self.shared.control.forget_member(&self.id);
        }
        self.announce_at = Instant::now() + ANNOUNCE_INTERVAL;
    }
}
