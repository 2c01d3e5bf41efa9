//! Every codec that Kafka defines is written and read by a default build.

use crate::support::{Case, Log, Member, set};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{TestKafka, required, unique};

const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_of_producer_or_topic_is_written_and_read() {
    // A broker that compresses anew needs libraries of its own for it, which those of the Docker image do not load.
    let Some(kafka) = required(TestKafka::start_with(&[]).await) else {
        return;
    };
    for recompressed in [false, true] {
        for codec in CODECS {
            let case = Case::named(kafka.config(), unique("it-codec"), 1);
            let by_the_brokers = [("compression.type", codec)];
            let settings = if recompressed {
                &by_the_brokers[..]
            } else {
                &[]
            };
            case.create_topic(&case.topic, 1, settings).await;
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
