//! The one description of a single test broker: which Apache Kafka, and its settings, for Docker and for Java alike.

/// The version of Apache Kafka that is started.
pub(super) const VERSION: &str = "4.1.1";

/// The line in its log that says it serves.
pub(super) const READY_LINE: &str = "Kafka Server started";

/// How much heap it gets, as arguments to `java`.
pub(super) const HEAP: [&str; 2] = ["-Xms128m", "-Xmx512m"];

/// Settings beside listeners, addresses and directories, which depend on how the broker is started.
pub(super) const SETTINGS: [(&str, &str); 20] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "BROKER"),
    (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    ),
    // A misspelt topic must fail, not come into being.
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
    // The first member of a group need not wait 3 s for others.
    ("group.initial.rebalance.delay.ms", "0"),
    // A killed member is missed within seconds where a test asks for it, in both group protocols.
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
];

/// A random cluster id: 22 digits of Kafka's base64 alphabet.
pub(super) fn cluster_id() -> String {
    format!("{:022x}", rand::random::<u128>() >> 40)
}
