//! The version and settings of a single test broker, shared by Docker and Java.
//!
//! One process is broker and controller (KRaft). Clients, the broker itself and the controller have
//! a listener each, so that clients can be given an address that the broker itself cannot reach.

/// The version of Apache Kafka that is started.
pub(in crate::testing) const VERSION: &str = "4.1.1";

/// The log line that Kafka writes when it is ready.
pub(in crate::testing) const READY_LINE: &str = "Kafka Server started";

/// Heap settings, as arguments of `java`.
pub(in crate::testing) const HEAP: [&str; 2] = ["-Xms128m", "-Xmx512m"];

/// Settings that do not depend on how the broker is started. Listeners, addresses and directories
/// do.
pub(in crate::testing) const SETTINGS: [(&str, &str); 20] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "BROKER"),
    (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    ),
    // A misspelt topic must fail instead of being created.
    ("auto.create.topics.enable", "false"),
    // One broker cannot replicate.
    ("default.replication.factor", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    // The first member of a group does not wait 3 s for others.
    ("group.initial.rebalance.delay.ms", "0"),
    // Tests may detect a killed member within seconds, in both group protocols.
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
];

/// A random cluster id: 22 digits of Kafka's base64 alphabet. Hexadecimal digits are part of it.
pub(in crate::testing) fn cluster_id() -> String {
    format!("{:022x}", rand::random::<u128>() >> 40)
}
