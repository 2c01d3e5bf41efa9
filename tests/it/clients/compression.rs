//! Every codec that Kafka defines is written and read by a default build.

use crate::support::{Case, Log, Member, set};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{TestKafka, required, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_of_producer_or_topic_is_written_and_read() {
    // A broker that compresses anew needs libraries of its own for it, which those of the Docker image do not load.
    let Some(kafka) = required(TestKafka::start_with(&[]).await) else {
        return;
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .expect("a client");
    for recompressed in [false, true] {
        for codec in CODECS {
            let topic = unique("it-codec");
            let mut new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
            if recompressed {
                new = new.set("compression.type", codec);
            }
            let created = admin.create_topics([&new], &AdminOptions::new()).await;
            let created = created.expect("the cluster answers");
            assert!(created.iter().all(Result::is_ok), "{created:?}");
            let case = Case::named(kafka.config(), topic, 1);
            let mut config = case.kafka.clone();
            if !recompressed {
                set(&mut config, &format!("compression.type={codec}"));
            }
            let publisher = Publisher::new(&config, PublisherSettings::new("/it"))
                .expect("the settings of the publisher are valid");
            let value = "a value that is worth compressing ".repeat(50);
            for _ in 0..10 {
                let record = case.record(Some("k"), value.clone());
                publisher
                    .publish_record(record)
                    .await
                    .expect("the brokers acknowledge the record");
            }
            let handled = Log::new();
            let log = handled.clone();
            let router = Router::new().raw(move |record: Record| {
                log.push(record.value().map(<[u8]>::to_vec));
                async {}
            });
            let member = Member::start(&case.kafka, case.settings(), router);
            handled.reach("records", 10).await;
            assert_eq!(member.stop().await.dead_letters, 0);
            let expected = Some(value.into_bytes());
            assert!(
                handled.entries().iter().all(|value| *value == expected),
                "{codec}"
            );
        }
    }
}
