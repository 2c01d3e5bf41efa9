//! Topics of a case: created with settings, grown, deleted and created again.
//!
//! A change returns when the brokers show it: they acknowledge it before that.

use super::{Case, WITHIN};
use evenkeel::kafka::admin::Admin;
use evenkeel::testing::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::time::{Duration, Instant};

impl Case {
    /// An admin client of the cluster.
    pub(crate) async fn admin(&self) -> Admin {
        let admin = Admin::connect(&self.kafka, WITHIN).await;
        admin.expect("the admin client connects")
    }

    /// Creates a topic with these settings. One of that name that is being deleted is waited for.
    pub(crate) async fn create_topic(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) {
        let (client, options) = (self.admin_client(), AdminOptions::new());
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let began = Instant::now();
        loop {
            let created = client.create_topics([&new], &options).await;
            match created.as_deref() {
                Ok([Ok(_)]) => break,
                refused => assert!(began.elapsed() < WITHIN, "topic {topic}: {refused:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        partitions_are_shown(&self.admin().await, topic, partitions).await;
    }

    /// Adds partitions to the case's topic, up to a total of `partitions`.
    pub(crate) async fn grow_topic(&self, partitions: i32) {
        let admin = self.admin().await;
        let count = usize::try_from(partitions).expect("a number of partitions");
        let grown = admin.grow_topic(&self.topic, count).await;
        grown.expect("the brokers accept the partitions");
        partitions_are_shown(&admin, &self.topic, partitions).await;
    }

    /// Deletes a topic.
    pub(crate) async fn delete_topic(&self, topic: &str) {
        let (client, options) = (self.admin_client(), AdminOptions::new());
        let deleted = client.delete_topics(&[topic], &options).await;
        let deleted = deleted.expect("the cluster answers");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Deletes the case's topic, and creates it again with that many partitions.
    pub(crate) async fn recreate_topic(&self, partitions: i32) {
        self.delete_topic(&self.topic).await;
        self.create_topic(&self.topic, partitions, &[]).await;
    }

    /// The client's own: it can delete topics, and create one without a wait for another of its name.
    fn admin_client(&self) -> AdminClient<DefaultClientContext> {
        let client = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.brokers)
            .create();
        client.expect("the settings of the client are valid")
    }
}

async fn partitions_are_shown(admin: &Admin, topic: &str, partitions: i32) {
    let topics = [topic.to_owned()];
    let count = usize::try_from(partitions).expect("a number of partitions");
    let what = format!("the brokers show {partitions} partitions of {topic}");
    eventually(&what, WITHIN, || async {
        let counts = admin.partition_counts(&topics).await.ok()?;
        (counts.get(topic) == Some(&count)).then_some(())
    })
    .await;
}
