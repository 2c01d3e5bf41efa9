//! What stands at the end of a partition and is no record, such as a transaction's marker, is no lag.

use crate::support::{Case, Member};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_commits_past_the_markers_of_transactions() {
    let Some(case) = Case::new("it-marker", 1).await else {
        return;
    };
    let member = Member::start(
        &case.kafka,
        case.settings(),
        Router::new().raw(async |_: Record| {}),
    );
    member.joined().await;
    let (brokers, topic) = (case.kafka.brokers.clone(), case.topic.clone());
    let transact = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("transactional.id", &topic)
            .create()
            .expect("a producer");
        let within = Duration::from_secs(30);
        producer.init_transactions(within).expect("it starts");
        let write = |value: &str| {
            producer.begin_transaction().expect("it begins");
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).payload(value);
            producer.send(record).expect("it is sent");
            producer.flush(within).expect("it is acknowledged");
        };
        write("kept");
        producer.commit_transaction(within).expect("it commits");
        write("taken back");
        producer.abort_transaction(within).expect("it aborts");
    };
    tokio::task::spawn_blocking(transact).await.expect("done");
    // Two records, a marker behind each.
    case.offsets().reach(0, 4).await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.clean), (1, true));
}
