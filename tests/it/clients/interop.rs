//! Other programs read what we publish, and we read what they publish: kcat stands for them.

use crate::support::{Case, Log, Member, Step, kcat};
use evenkeel::event::{Event, Record};
use evenkeel::handler::Router;

/// Runs kcat on the case's topic.
async fn kcat(case: &Case, arguments: &[&str], input: &str) -> Option<String> {
    let arguments = [&["-t", &case.topic][..], arguments].concat();
    kcat::kcat(&case.kafka.brokers, &arguments, input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_what_we_publish() {
    let Some(case) = Case::new("it-interop", 1).await else {
        return;
    };
    let publisher = case.publisher();
    let record = case.step(&publisher, "order-1", 7);
    let id = String::from_utf8(record.headers.last("ce_id").expect("an id").to_vec());
    case.publish([record]).await;
    let Some(seen) = kcat(&case, &["-C", "-e", "-q", "-f", "%p|%o|%k|%s|%h"], "").await else {
        return;
    };
    let mut fields = seen.splitn(5, '|');
    let mut field = || fields.next().expect("five fields");
    assert_eq!((field(), field(), field()), ("0", "0", "order-1"));
    let step: Step = serde_json::from_str(field()).expect("the text is JSON");
    assert_eq!(step.number, 7);
    let headers: Vec<&str> = field().trim().split(',').collect();
    for expected in [
        "ce_specversion=1.0",
        "ce_source=/it",
        "ce_type=it.step.v1",
        &format!("ce_id={}", id.expect("the text is UTF-8")),
    ] {
        assert!(headers.contains(&expected), "{expected} in {headers:?}");
    }
    assert!(
        headers
            .iter()
            .any(|header| header.starts_with("content-type=application/json")),
        "{headers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcats_records_are_read_as_events_and_plain_records() {
    let Some(case) = Case::new("it-interop", 3).await else {
        return;
    };
    let binary = [
        "-P",
        "-K:",
        "-H",
        "ce_specversion=1.0",
        "-H",
        "ce_id=k-1",
        "-H",
        "ce_source=/kcat",
        "-H",
        "ce_type=it.step.v1",
        "-H",
        "content-type=application/json",
    ];
    if kcat(&case, &binary, "a:{\"key\":\"a\",\"number\":1}\n")
        .await
        .is_none()
    {
        return;
    }
    let structured = "b\t{\"specversion\":\"1.0\",\"id\":\"k-2\",\"source\":\"/kcat\",\"type\":\"it.step.v1\",\"datacontenttype\":\"application/json\",\"data\":{\"key\":\"b\",\"number\":2}}\n";
    let arguments = [
        "-P",
        "-K\t",
        "-H",
        "content-type=application/cloudevents+json",
    ];
    kcat(&case, &arguments, structured).await;
    kcat(&case, &["-P", "-K:"], "c:plain text\n").await;

    let (events, records) = (Log::new(), Log::new());
    let (event_log, record_log) = (events.clone(), records.clone());
    let router = Router::new()
        .on(move |event: Event<Step>| {
            event_log.push((event.attributes.id, event.data.key, event.data.number));
            std::future::ready(())
        })
        .raw(move |record: Record| {
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            record_log.push((text(record.key()), text(record.value())));
            std::future::ready(())
        });
    let member = Member::start(&case.kafka, case.settings(), router);
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.dead_letters), (3, 0));
    let mut events = events.entries();
    events.sort();
    let event = |id: &str, key: &str, number| (id.to_owned(), key.to_owned(), number);
    assert_eq!(events, [event("k-1", "a", 1), event("k-2", "b", 2)]);
    assert_eq!(
        records.entries(),
        [("c".to_owned(), "plain text".to_owned())]
    );
}

/// kcat with the partitioner of Java's client, which ours has to agree with.
#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_murmur2_puts_them() {
    let Some(case) = Case::new("it-interop", 7).await else {
        return;
    };
    let keys: Vec<String> = (0..40).map(|n| format!("order-{n}")).collect();
    case.publish(keys.iter().map(|key| case.record(Some(key), "ours")))
        .await;
    let lines: String = keys.iter().map(|key| format!("{key}:theirs\n")).collect();
    let arguments = ["-P", "-K:", "-X", "topic.partitioner=murmur2_random"];
    if kcat(&case, &arguments, &lines).await.is_none() {
        return;
    }
    let mut places: std::collections::BTreeMap<Vec<u8>, Vec<i32>> = Default::default();
    for record in case.read(&case.topic).await {
        places
            .entry(record.key.expect("a key"))
            .or_default()
            .push(record.partition);
    }
    assert_eq!(places.len(), 40);
    for (key, partitions) in places {
        assert_eq!(partitions.len(), 2);
        assert_eq!(
            partitions[0],
            partitions[1],
            "{}",
            String::from_utf8_lossy(&key)
        );
    }
}
