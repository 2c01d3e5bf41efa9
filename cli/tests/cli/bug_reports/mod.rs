//! Faults that other projects' users reported, tried on the finished programs. A test's name begins with its report; where a test
//! elsewhere has the case already, it is named here instead.
//!
//! | report | what | test |
//! |---|---|---|
//! | debezium/debezium#486, Apicurio/apicurio-registry#6880 | parked records deleted by the brokers' size limit | `tests/it/recovery/own_topics.rs`: `no_default_of_the_brokers_spoils_own_topics`, `deleted_parked_records_alarm_until_the_loss_is_accepted` |
//! | svix/svix-webhooks#2502, #2429, librdkafka#3255 | new records taken for old | `tests/it/effects/g3_identity.rs`: all |
//! | spring-kafka#2282, karafka#1301, ns4kafka#63 | names of retry topics run together | `tests/it/recovery/own_names.rs`: all |
//! | filesql#279, sqlitebrowser#212, mautic#5408 | lines that end in CR | `imports::filesql_279_…` |
//! | highcharts#25193, simple-excel-js#18, domui#641 | a quoted field over several lines | `imports::highcharts_25193_…` |
//! | spring-kafka#1700, spring-cloud-stream-binder-kafka#1181 | a dead-letter topic with fewer partitions than its source | `tests/it/recovery/own_topics.rs`: `own_topics_grow_with_their_source` |
//! | librdkafka#1243, #4401 | new partitions are noticed after minutes | the same |
//! | librdkafka#1716, #1356, kafkajs#1227, #949, rskafka#124 | a batch larger than the topic takes | `tests/it/logs/batch_limits.rs`: all |
//! | smallrye#2061, sdk-php#35, sdk-java#249, cortex#32 | times at the edges of RFC 3339 | `events::smallrye_2061_…` |
//! | sdk-go#757, sdk-javascript#332, knative#6052 | flaws of events that nobody asks for | `events::sdk_go_757_…` |
//! | spring-kafka#2335, #2549 | dead letters of Spring's retry topics | `dead_letters/foreign/mod.rs`: `springs_non_blocking_retries_…` |
//! | restate#4599, risingwave#9292, kcat#195 | codecs that a build lacks | `tests/it/clients/compression.rs`, `tests/it/logs/unreadable.rs` |
//! | kafka-ui#3751, redpanda console#630, kafdrop#338, rocketmq-dashboard#4774 | large numbers are rounded | `tool::kafka_ui_3751_…` |
//! | aide#17, serde-rs/json#320, fff#326 | `2.0` where a type has an integer | `events::serde_json_320_…` |
//! | the same, with a catalogue | numbers beyond 64 bits | `src/handler/router/checked_payload.rs` |
//! | cockroach#48070, sidekiq#509 | SIGTERM comes twice | `src/telemetry/daemon/tests.rs`: `signals_in_quick_succession_ask_once` |
//! | kafka-ui#1039, spring-kafka#1587, akhq#613 | a lag of 1 behind a transaction | `tests/it/logs/end_of_log.rs` |
//! | kcp#431, ns4kafka#802, redpanda console#2222 | groups of newer protocols are `Dead` | `groups/mod.rs`: `kip_848_groups_are_listed_with_their_members` |
//! | node-rdkafka#1050, openwec#263, warmbly#451 | a build without TLS or SCRAM | `tool::node_rdkafka_1050_…` |
//! | jsonlines#68, jq#2351 | a byte order mark | `tool::jsonlines_68_…`, `imports::jsonlines_68_…` |
//! | drush#3761, HammerDB#289, vpp#2494 | a terminal of 0 columns | `cli/src/output/mod.rs` |
//! | claude-code-plugins#260, OrcaReplay#116 | a line break in a record forges a row | `tool::claude_code_plugins_260_…` |
//! | sdk-java#85, spec#553, dapr/dotnet-sdk#583 | `data_base64` of `null` | `events::sdk_java_85_…` |
//! | micronaut-core#605, spring-kafka#1013 | attributes in JSON quotes | `events::micronaut_605_…` |
//! | dapr#574, #7221, sdk-go#1113 | an event without a content type | `events::dapr_574_…` |
//! | librdkafka#488 | one record too large among small ones | `tests/it/logs/batch_limits.rs`: `only_the_record_that_is_too_large_is_refused` |
//! | strimzi.github.io#362, druid#16689, librdkafka#3400 | open and aborted transactions | `tests/it/logs/end_of_log.rs` |
//! | (a class) | one instance id twice | `tests/it/membership/surplus.rs` |
//! | (a class) | terminal escapes in records | `tool::escapes_of_records_…`, `cli/src/output/record_template.rs` |
//! | mirus#22 | garbage in the tool's and the group's own topics | `src/control/entry/tests.rs`, `src/recovery/parked/tests.rs` |
//! | (a class) | closed pipes, full disks, odd file names | `tool::a_full_disk_…`, `imports::odd_names_…`, `events/consume.rs`: `a_broken_pipe_ends_it_quietly` |
//! | kafka-go#659, laravel-kafka#290, spring-cloud-stream#2355 | tombstones | `events::kafka_go_659_…` |
//! | sdk-java#370, spring-cloud-function#1401 | binary events with a stray or no content type | `events::sdk_java_370_…` |
//!
//! Found and tried since, of tools that import:
//!
//! | report | what | test |
//! |---|---|---|
//! | mldb#365, DataBasic#176 | a comma at the end of header or rows | `imports::mldb_365_…` |
//! | firefly-iii#691, omeka CsvImport#73 | rows of nothing but commas | `imports::firefly_iii_691_…` |
//! | PapaParse#161, phpmyadmin#763 | empty lines, and a last line without an end | `imports::papaparse_161_…` |
//! | cartodb#6178, csv2db#43, omeka CsvImport#41 | bad rows are left out in silence, or miscounted | `producers/tests/commands/import.rs`: `bad_lines_are_numbered_without_content_…` |
//! | sqlitebrowser#1212 | an unclosed quote swallows rows | `imports::sqlitebrowser_1212_…` |
//! | Excavator#86, ravel#1713 | an import that goes on leaves out a row, or repeats | `imports::excavator_86_…`, `foreign_or_edited_progress_…` |
//!
//! Of CloudEvents: sdk-python#295, sdk-java#67, #88 and others by the fixtures of `tests/fixtures/cloudevents/`; sdk-java#200,
//! incubator-kie-examples#1495, sdk-go#188 in `events::smallrye_2061_…`; spec#880, #933 in `events::spec_933_…`; sdk-java#540 in
//! `events::sdk_java_540_…`. Of outboxes: watermill#311 by `postgres_keeps_the_contract` and eventuous#222
//! by `a_sequence_that_gives_sessions_numbers_in_stock_is_refused`, both in `src/outbox/postgres/tests.rs`.

mod events;
mod imports;
mod tool;

use crate::support::tool::run_command;
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{ChildProcess, Finished, KafkaKind, TestKafka, read_topic};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long an answer of the mock cluster may take.
const WITHIN: Duration = Duration::from_secs(20);

/// The shop's topics on a mock cluster, and a folder.
struct Shop {
    kafka: TestKafka,
    folder: TempDir,
}

impl Shop {
    async fn open() -> Self {
        let kafka = TestKafka::start(KafkaKind::Mock).await;
        let kafka = kafka.expect("the mock cluster needs nothing");
        for topic in [
            "shop.orders",
            "shop.deliveries",
            "shop.payments",
            "dlq.payments.shop.orders",
        ] {
            kafka.create_topic(topic, 1).await.expect("a new topic");
        }
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        Self { kafka, folder }
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path.to_str().expect("the text is UTF-8").to_owned()
    }

    /// Runs one of the workspace's programs to its end.
    async fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Finished {
        let mut command = ChildProcess::command(program_path(program));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("KAFKA_BOOTSTRAP_SERVERS", self.kafka.brokers());
        run_command(command, input).await
    }

    async fn publish(&self, records: impl IntoIterator<Item = OutgoingRecord>) {
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&self.kafka.config(), settings)
            .expect("the settings of the publisher are valid");
        for record in records {
            publisher
                .publish_record(record)
                .await
                .expect("the brokers acknowledge the record");
        }
    }

    async fn read(&self, topic: &str) -> Vec<LogRecord> {
        read_topic(&self.kafka.config(), topic, WITHIN).await
    }
}

/// A program of the workspace, which stands beside this crate's own.
fn program_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_evenkeel")).with_file_name(name);
    assert!(
        path.exists(),
        "{name} is not built: test the whole workspace, cargo test --workspace"
    );
    path
}

/// A record of the shop's orders with these headers.
fn record(key: &str, headers: &[(&str, &str)], value: Option<&str>) -> OutgoingRecord {
    let headers: Headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
        .collect();
    OutgoingRecord {
        topic: "shop.orders".to_owned(),
        partition: Some(0),
        key: Some(key.to_owned().into()),
        value: value.map(|value| value.to_owned().into()),
        headers,
        timestamp_ms: None,
    }
}
