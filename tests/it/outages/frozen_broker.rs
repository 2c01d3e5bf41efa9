//! The only broker stands still, again and again: when it goes on, every member reads on, whatever the broker told the clients
//! while it was fenced.
//!
//! A broker that stood still for longer than its session is fenced by its controller, and answers a metadata request with no
//! brokers at all. A client that believes it knows no broker any more. Such a member is neither dead nor at work, so what is asked
//! here is that each member handles something that was published after the freeze. `EVENKEEL_LONG_TESTS=1` runs the long form,
//! with a production's settings.

use crate::control::operator::Operator;
use crate::support::proxy::{BrokerProxy, Passes};
use crate::support::{Case, Log, Member, publish_by, set};
use evenkeel::control::Scope;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::Admin;
use evenkeel::publisher::Publisher;
use evenkeel::testing::{TestKafka, required, unique};
use futures_util::future::join_all;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const GROUPS: usize = 3;
const MEMBERS_PER_GROUP: usize = 8;
const PARTITIONS: i32 = 24;
/// Records of these values fail once: the group's own producer and the reader of its retry topic are needed for them.
const FAILS_ONCE: &str = "fails once";
const PLAIN: &str = "plain";
/// Between two rounds of records, of which each member has to get one.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Members that were cut off are noticed after some 10 s, and join their group again after that.
const AT_WORK_WITHIN: Duration = Duration::from_secs(120);

/// How often a broker is fenced, under how many groups: some of the clients lose it for ever each time, by a race within librdkafka.
const FENCES: usize = 2;
const FENCED_GROUPS: usize = 2;

/// How often, for how long and under which settings the broker stands still.
struct Plan {
    freezes_s: &'static [u64],
    broker: &'static [(&'static str, &'static str)],
    clients: &'static [&'static str],
}

/// Short sessions and short waits for answers, so that short freezes outlast them.
const SHORT: Plan = Plan {
    freezes_s: &[6, 9, 7],
    broker: &[
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "1500"),
    ],
    clients: &["session.timeout.ms=5000", "socket.timeout.ms=4000"],
};

/// The clients' and the broker's own limits: a broker's session of 9 s, a member's of 45 s, and 60 s for an answer.
const LONG: Plan = Plan {
    freezes_s: &[12, 67, 20, 70, 10, 50, 67, 30, 70, 15],
    broker: &[],
    clients: &[],
};

/// What a member has handled.
#[derive(Clone)]
struct Handled {
    member: usize,
    partition: i32,
    kind: &'static str,
    freeze: usize,
}

/// A group, its members and what they have handled.
struct Group {
    operator: Operator,
    members: Vec<Member>,
    handled: Log<Handled>,
}

impl Group {
    async fn start(case: Case) -> Self {
        let handled = Log::new();
        let failed = Arc::new(Mutex::new(HashSet::new()));
        let start = |member| {
            let mut kafka = case.kafka.clone();
            kafka.client_id = format!("member-{member}");
            let mut settings = case.settings();
            settings.retry.attempts_max = 1;
            settings.retry.park_delays = vec![Duration::from_millis(200); 100];
            let router = router(member, &handled, &failed);
            Member::start(&kafka, settings, router)
        };
        let members: Vec<_> = (0..MEMBERS_PER_GROUP).map(start).collect();
        for member in &members {
            member.joined().await;
        }
        Self {
            operator: Operator::of(case),
            members,
            handled,
        }
    }

    /// What is missing until everything works again after this freeze; empty when nothing is.
    fn missing(&self, freeze: usize) -> Vec<String> {
        let handled = self.handled.entries();
        let handled: Vec<_> = handled.iter().filter(|at| at.freeze == freeze).collect();
        let mut missing = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            let not_ready = member.health.not_ready();
            if !handled.iter().any(|at| at.member == number) || !not_ready.is_empty() {
                let silent = member.health.not_alive();
                missing.push(format!(
                    "member {number} (not ready: {not_ready:?}, not alive: {silent:?})"
                ));
            }
        }
        for kind in [PLAIN, FAILS_ONCE] {
            let of_kind = handled.iter().filter(|at| at.kind == kind);
            let done: HashSet<i32> = of_kind.map(|at| at.partition).collect();
            let open: Vec<_> = (0..PARTITIONS).filter(|at| !done.contains(at)).collect();
            if !open.is_empty() {
                missing.push(format!("{kind} records of partitions {open:?}"));
            }
        }
        missing
    }
}

/// Handles records of the form `KIND FREEZE`.
fn router(
    member: usize,
    handled: &Log<Handled>,
    failed: &Arc<Mutex<HashSet<(i32, i64)>>>,
) -> Router {
    let (handled, failed) = (handled.clone(), Arc::clone(failed));
    Router::new().raw(move |record: Record| {
        let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
        let (kind, freeze) = value.rsplit_once(' ').expect("one of ours");
        let kind = if kind == PLAIN { PLAIN } else { FAILS_ONCE };
        let (partition, offset) = (record.partition(), record.offset());
        let fails = kind == FAILS_ONCE && {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.insert((partition, offset))
        };
        let outcome = match fails {
            true => Outcome::Retry(HandlerError::transient("not now")),
            false => {
                handled.push(Handled {
                    member,
                    partition,
                    kind,
                    freeze: freeze.parse().expect("a number"),
                });
                Outcome::Done
            }
        };
        std::future::ready(outcome)
    })
}

/// Publishes a record of this kind to each partition, and returns when all are acknowledged.
async fn publish(case: &Case, publisher: &Publisher, kind: &str, freeze: usize) {
    let record = |partition: i32| OutgoingRecord {
        partition: Some(partition),
        ..case.record(
            Some(&format!("{kind} {partition}")),
            format!("{kind} {freeze}"),
        )
    };
    publish_by(publisher, (0..PARTITIONS).map(record)).await;
}

/// Publishes until each member of each group handles something of this freeze, and everything of each partition is handled.
async fn all_at_work(groups: &[Group], publisher: &Publisher, freeze: usize) {
    let case = &groups[0].operator;
    let publish_all = async {
        publish(case, publisher, FAILS_ONCE, freeze).await;
        loop {
            publish(case, publisher, PLAIN, freeze).await;
            tokio::time::sleep(PUBLISH_EVERY).await;
        }
    };
    let missing = || {
        let of_group = |(number, group): (usize, &Group)| {
            let missing = group.missing(freeze);
            (!missing.is_empty()).then(|| format!("group {number}: {}", missing.join(", ")))
        };
        let missing: Vec<_> = groups.iter().enumerate().filter_map(of_group).collect();
        missing
    };
    let look = async {
        while !missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let either = async {
        tokio::select! {
            () = look => {}
            () = publish_all => {}
        }
    };
    if tokio::time::timeout(AT_WORK_WITHIN, either).await.is_err() {
        let shared = join_all(groups.iter().map(|group| shared_out(&group.operator))).await;
        panic!(
            "not at work {AT_WORK_WITHIN:?} after trouble {freeze}:\n{}\n{}",
            missing().join("\n"),
            shared.join("\n")
        );
    }
}

/// Which member has which partitions, as the brokers see it, and where the group stands.
async fn shared_out(case: &Case) -> String {
    let admin = match Admin::connect(&case.kafka, Duration::from_secs(10)).await {
        Ok(admin) => admin,
        Err(error) => return error.to_string(),
    };
    let described = admin.describe_group(&case.group).await;
    let lag = admin
        .group_lag(&case.group, std::slice::from_ref(&case.topic))
        .await;
    format!("{described:#?}\n{lag:#?}")
}

/// The groups, and a publisher that lives through everything, as a service's does.
struct World {
    groups: Vec<Group>,
    publisher: Publisher,
    troubles: usize,
}

impl World {
    /// Starts this many groups on a topic of this cluster that clients find at `brokers`, and waits until all are at work.
    async fn start(cluster: &TestKafka, brokers: &str, groups: usize, clients: &[&str]) -> Self {
        let topic = unique("it-frozen");
        let created = cluster.create_topic(&topic, PARTITIONS).await;
        created.expect("the topic is created");
        let case = || {
            let mut case = Case::named(KafkaConfig::new(brokers), topic.clone(), PARTITIONS);
            for property in clients {
                set(&mut case.kafka, property);
            }
            case
        };
        let world = Self {
            groups: join_all((0..groups).map(|_| Group::start(case()))).await,
            publisher: case().publisher(),
            troubles: 0,
        };
        all_at_work(&world.groups, &world.publisher, 0).await;
        world
    }

    /// Waits until all are at work after one more trouble, which is over.
    async fn recovers(&mut self, trouble: &str) {
        let began = Instant::now();
        self.troubles += 1;
        all_at_work(&self.groups, &self.publisher, self.troubles).await;
        let members = self.groups.len() * MEMBERS_PER_GROUP;
        let after = began.elapsed().as_secs_f64();
        println!("{trouble}: {members} members at work after {after:.1} s");
    }

    /// Checks that all members hear commands and can answer, and stops them.
    async fn end(self) {
        join_all(self.groups.iter().map(|group| async {
            group.operator.pause(Scope::Group).await;
            group.operator.resume(Scope::Group).await;
        }))
        .await;
        let members = self.groups.into_iter().flat_map(|group| group.members);
        for report in join_all(members.map(Member::stop)).await {
            assert!(report.clean, "{report:?}");
            assert_eq!(report.dead_letters, 0, "{report:?}");
        }
    }
}

/// Freezes the broker again and again, and checks after each freeze that everything works again.
async fn freeze_again_and_again(plan: &Plan) {
    let Some(cluster) = required(TestKafka::start_with(plan.broker).await) else {
        return;
    };
    let mut world = World::start(&cluster, cluster.brokers(), GROUPS, plan.clients).await;
    for seconds in plan.freezes_s {
        cluster.freeze().await.expect("the server freezes");
        tokio::time::sleep(Duration::from_secs(*seconds)).await;
        cluster.thaw().await.expect("the server thaws");
        world.recovers(&format!("frozen for {seconds} s")).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_recovers_after_the_only_broker_froze() {
    freeze_again_and_again(&SHORT).await;
}

/// It takes 11 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn ten_long_freezes_leave_every_member_at_work() {
    if std::env::var_os("EVENKEEL_LONG_TESTS").is_none() {
        return;
    }
    freeze_again_and_again(&LONG).await;
}

/// How long a real broker is fenced after it stood still is a matter of chance, and mostly of milliseconds.
#[tokio::test(flavor = "multi_thread")]
async fn every_member_recovers_from_a_fenced_broker_naming_no_brokers() {
    let Some((proxy, cluster)) = BrokerProxy::before_kafka().await else {
        return;
    };
    let mut world = World::start(&cluster, &proxy.address(), FENCED_GROUPS, SHORT.clients).await;
    for _ in 0..FENCES {
        proxy.let_pass(Passes::Nothing);
        tokio::time::sleep(Duration::from_secs(7)).await;
        proxy.let_pass(Passes::NoBrokers);
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.let_pass(Passes::Everything);
        world.recovers("held up for 7 s, fenced for 3 s").await;
    }
    world.end().await;
}
