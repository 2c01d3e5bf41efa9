//! Output and exit codes of every command: readers that leave, full disks, `--check`, and the keys
//! of JSON.

use crate::groups::commit;
use crate::support::dead_letters::Mailbox;
use crate::support::tool::{command, run, run_command};
use evenkeel::inbox::SqliteInbox;
use evenkeel::testing::{Finished, unique};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::process::Stdio;
use tempfile::TempDir;

const TYPE: &str = "shop.order-cancelled.v1";

/// A group with lag, a dead letter, a parked record, commands, and stores.
struct Bench {
    mailbox: Mailbox,
    folder: TempDir,
}

/// A command, and what has to be done before each of its runs.
struct Case {
    args: Vec<String>,
    before: Option<Vec<String>>,
}

impl Bench {
    async fn new() -> Option<Self> {
        let mailbox = Mailbox::new(1).await?;
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let bench = Self { mailbox, folder };
        let mailbox = &bench.mailbox;
        let records = (0..3).map(|number| mailbox.written("k", number, &[]));
        let records: Vec<_> = records
            .map(|record| evenkeel::event::OutgoingRecord {
                topic: mailbox.source.clone(),
                ..record
            })
            .collect();
        mailbox.publish(records).await;
        commit(mailbox.kafka, &mailbox.group, &mailbox.source, 1).await;
        for line in [
            "groups topics GROUP --topic SOURCE --execute",
            "store migrate --store OUTBOX --execute",
        ] {
            bench.run(&bench.words(line)).await.code(0);
        }
        let letters = (0..2).map(|number| mailbox.letter("k", number, "transient", "timed out"));
        mailbox.publish(letters).await;
        bench
            .run(&bench.words("dlq replay LETTERS --execute -n 1"))
            .await
            .code(0);
        let inbox = bench.folder.path().join("inbox.db");
        let inbox = SqliteInbox::open(&inbox, &mailbox.group, "").await;
        drop(inbox.expect("the store opens"));
        Some(bench)
    }

    /// The words of a line, with what stands for names of this bench replaced.
    fn words(&self, line: &str) -> Vec<String> {
        let Mailbox {
            group,
            source,
            letters,
            ..
        } = &self.mailbox;
        let store = |name: &str| format!("sqlite:{}", self.folder.path().join(name).display());
        let word = |word: &str| match word {
            "NEW" => unique("cli-new"),
            word => word
                .replace("GROUP", group)
                .replace("SOURCE", source)
                .replace("LETTERS", letters)
                .replace("OUTBOX", &store("outbox.db"))
                .replace("INBOX", &store("inbox.db"))
                .replace("TYPE", TYPE),
        };
        line.split(' ').map(word).collect()
    }

    fn command(&self, args: &[String]) -> tokio::process::Command {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = command(&args);
        command.env("KAFKA_BOOTSTRAP_SERVERS", self.mailbox.kafka.brokers());
        command
    }

    async fn run(&self, args: &[String]) -> Finished {
        self.run_with(args, |_| {}).await
    }

    async fn run_with(
        &self,
        args: &[String],
        change: impl FnOnce(&mut tokio::process::Command),
    ) -> Finished {
        let mut command = self.command(args);
        change(&mut command);
        run_command(command, "{\"order_id\":\"o-1\"}").await
    }

    /// Every command, and how one that fails or finds something ends.
    fn cases(&self) -> Vec<Case> {
        let lines = [
            "publish TYPE -t SOURCE -d order_id=o-1 -d reason=r",
            "publish TYPE -t SOURCE",
            "consume SOURCE -e",
            "consume LETTERS -e -o json",
            "topics list",
            "topics describe SOURCE",
            "topics create NEW",
            "topics create SOURCE",
            "topics apply --check",
            "groups list --check",
            "groups describe GROUP --check",
            "groups lag GROUP --threshold 0",
            "groups lag GROUP",
            "groups members GROUP",
            "config show --origin",
            "groups topics GROUP --topic SOURCE",
            "groups history GROUP",
            "groups pause GROUP --why w",
            "groups skip GROUP --record SOURCE/0@2 --why w",
            "groups rate GROUP 50 --why w",
            "groups retry-now GROUP --why w",
            "groups accept-loss GROUP --why w",
            "dlq list LETTERS --check",
            "dlq show LETTERS/0@0",
            "dlq export LETTERS",
            "dlq replay LETTERS",
            "dlq purge LETTERS --all-replayed",
            "parked list GROUP --check",
            "parked list GROUP --by-cause",
            "parked show GROUP --key k",
            "parked release GROUP --key k --why w",
            "parked drop GROUP --key k --why w",
            "audit GROUP --topic SOURCE --store INBOX",
            "drill duplicates GROUP",
            "outbox status --store OUTBOX",
            "store migrate --store OUTBOX",
            "schemas list",
            "schemas show TYPE",
            "schemas check TYPE",
            "dev status",
            "completions bash",
            "man",
            "--help",
            "--version",
            "groups lag --help",
        ];
        let case = |line: &&str| Case {
            args: self.words(line),
            before: None,
        };
        let mut cases: Vec<Case> = lines.iter().map(case).collect();
        cases.push(Case {
            args: self.words("groups resume GROUP --why w"),
            before: Some(self.words("groups pause GROUP --why w")),
        });
        cases
    }
}

/// A pipe whose reader has left.
fn left() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// What is different about a run.
type Change = fn(&mut tokio::process::Command);

/// How the readers of a command leave before it writes anything.
const READERS: [(&str, Change); 2] = [
    ("standard output", |command| {
        command.stdout(left());
    }),
    ("standard error", |command| {
        command.stderr(left());
    }),
];

/// Every command without subcommands, by the files of its manual pages.
async fn leaves() -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let path = folder.path().to_string_lossy().into_owned();
    run(&["man", "--dir", &path]).await.code(0);
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let names: Vec<String> = files
        .map(|file| {
            file.expect("the folder can be listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .map(|name| name.trim_end_matches(".1").to_owned())
        .collect();
    let is_leaf = |name: &&String| {
        let inner = format!("{name}-");
        // `groups retry-now` begins with no other command's name.
        !names.iter().any(|other| other.starts_with(&inner))
    };
    names.iter().filter(is_leaf).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_ignore_the_reader_and_lost_output_is_reported() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let cases = bench.cases();
    // Daemons and what changes this machine are left out.
    let mut untried = leaves().await;
    for name in ["dev-up", "dev-down", "outbox-relay"] {
        untried.remove(&format!("evenkeel-{name}"));
    }
    let mut codes = BTreeSet::new();
    for Case { args, before } in &cases {
        let named = format!("evenkeel-{}", args.join("-"));
        untried.retain(|name| !named.starts_with(name));
        let run = async |change: Change| {
            if let Some(before) = before {
                bench.run(before).await.code(0);
            }
            // A topic can be created once.
            let args = match args.as_slice() {
                [topics, create, name] if create == "create" && name.starts_with("cli-new") => {
                    vec![topics.clone(), create.clone(), unique("cli-new")]
                }
                args => args.to_vec(),
            };
            bench.run_with(&args, change).await
        };
        let whole = run(|_| {}).await;
        codes.insert(whole.code);
        for (reader, change) in READERS {
            let cut = run(change).await;
            assert_eq!(
                cut.code, whole.code,
                "{args:?} without a reader of {reader}: {cut:?} {whole:?}"
            );
        }
        let full = run(|command| {
            let full = File::options()
                .write(true)
                .open("/dev/full")
                .expect("Linux has it");
            command.stdout(full);
        })
        .await;
        match whole.stdout.is_empty() {
            true => assert_eq!(full.code, whole.code, "{args:?}"),
            false => {
                assert_eq!(full.code, Some(1), "{args:?}: {full:?}");
                assert!(
                    full.stderr.contains("standard output cannot be written"),
                    "{args:?}: {full:?}"
                );
            }
        }
        if args[0] == "publish" && whole.code == Some(0) {
            assert!(full.stderr.contains("published 1, failed 0"), "{full:?}");
        }
    }
    assert!(untried.is_empty(), "{untried:?}");
    // So the verdicts that readers could change were among them.
    assert!(
        [0, 1, 3].iter().all(|code| codes.contains(&Some(*code))),
        "{codes:?}"
    );
}

/// The paths of all keys; those below names that others choose are one.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            let is_map = ["config", "assignment", "types"]
                .iter()
                .any(|map| path.ends_with(map));
            for (name, value) in object {
                let name = if is_map { "*" } else { name };
                let path = format!("{path}.{name}");
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            for item in items {
                keys(item, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_in_json_are_a_promise() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    bench
        .run(&bench.words("groups pause GROUP --why w"))
        .await
        .code(0);
    let mut told = String::new();
    for line in [
        "publish TYPE -t SOURCE -d order_id=o-1 -d reason=r -o jsonl",
        "consume SOURCE -e -o jsonl",
        "topics list -o jsonl",
        "topics describe LETTERS -o jsonl",
        "topics create NEW -o jsonl",
        "topics apply -o jsonl",
        "groups list -o jsonl",
        "groups describe GROUP -o jsonl",
        "groups lag GROUP -o jsonl",
        "groups topics GROUP --topic SOURCE -o jsonl",
        "groups history GROUP -o jsonl",
        "dlq list LETTERS -o jsonl",
        "dlq show LETTERS/0@0 -o jsonl",
        "dlq export LETTERS",
        "dlq replay LETTERS -o jsonl",
        "dlq purge LETTERS --all-replayed -o jsonl",
        "parked list GROUP -o jsonl",
        "parked list GROUP --by-cause -o jsonl",
        "parked show GROUP --key k -o jsonl",
        "audit GROUP --topic SOURCE --store INBOX -o jsonl",
        "drill duplicates GROUP -o jsonl",
        "outbox status --store OUTBOX -o jsonl",
        "store migrate --store OUTBOX -o jsonl",
        "schemas list -o jsonl",
        "schemas check TYPE -o jsonl",
    ] {
        let run = bench.run(&bench.words(line)).await;
        let mut found = BTreeSet::new();
        for row in run.stdout.lines() {
            let row: Value = serde_json::from_str(row).expect("every line is JSON");
            keys(&row, "", &mut found);
        }
        assert!(!found.is_empty(), "{line}: {run:?}");
        // A topic is `topic` everywhere, and never its name.
        assert!(!found.contains(".name"), "{line}: {found:?}");
        told += &format!("{line}\n");
        for path in found {
            told += &format!("  {path}\n");
        }
    }
    let expected = include_str!("json_keys.txt");
    assert_eq!(told, expected, "the keys are now:\n{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_exits_with_3_for_problems_and_0_without() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let pause = bench.words("groups pause GROUP --why w --by ada");
    bench.run(&pause).await.code(0);
    for (line, expected) in [
        ("groups list", "the whole group is paused since"),
        ("groups describe GROUP", "2 records wait"),
        ("groups lag GROUP", "the whole group is paused since"),
        ("dlq list LETTERS", "1 dead letters were not replayed"),
        ("parked list GROUP", "1 keys wait"),
        ("topics apply", "not as declared"),
    ] {
        let listed = bench.run(&bench.words(line)).await;
        let checked = bench.run(&bench.words(&format!("{line} --check"))).await;
        assert_eq!(
            checked.stdout.is_empty(),
            listed.stdout.is_empty(),
            "{line}"
        );
        assert_eq!(
            (listed.code, checked.code),
            (Some(0), Some(3)),
            "{line}: {checked:?}"
        );
        assert!(
            checked.stderr.contains(expected),
            "{line}: {}",
            checked.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_arguments_or_flags_and_missing_partitions_fail() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    for line in [
        "groups describe --group GROUP",
        "groups lag -g GROUP",
        "groups history --group GROUP",
        "parked list --group GROUP",
        "drill duplicates GROUP",
        "groups rate --group GROUP off --why w",
    ] {
        bench.run(&bench.words(line)).await.code(0);
    }
    // What is there is shown, also beside what is not.
    for line in [
        "groups describe no-such-group GROUP",
        "groups lag GROUP no-such-group",
        "topics describe SOURCE no-such-topic",
    ] {
        let part = bench.run(&bench.words(line)).await.code(1);
        assert!(
            part.stdout.contains(&bench.mailbox.source),
            "{line}: {part:?}"
        );
        assert!(part.stderr.contains("no-such-"), "{line}: {part:?}");
    }
    let lag = bench.words("groups lag GROUP --topic no-such-topic");
    let lag = bench.run(&lag).await.code(1);
    assert!(lag.stderr.contains("no-such-topic"), "{lag:?}");
    for line in [
        "consume SOURCE -e -p 99",
        "groups pause GROUP -t SOURCE -p 99 --why w",
        "groups skip GROUP --record SOURCE/99@0 --why w",
        "dlq show LETTERS/99@0",
    ] {
        let missing = bench.run(&bench.words(line)).await.code(1);
        assert!(
            missing.stderr.contains("has no partition 99, it has 1"),
            "{line}: {}",
            missing.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_always_names_its_operator() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let pause = bench.words("groups pause GROUP --why w");
    let nameless = bench
        .run_with(&pause, |command| {
            command.env_remove("USER").env_remove("LOGNAME");
        })
        .await;
    nameless.code(0);
    let history = bench
        .run(&bench.words("groups history GROUP -o jsonl"))
        .await;
    let by = history.rows()[0]["by"].clone();
    assert!(
        by.as_str()
            .is_some_and(|by| !by.is_empty() && by != "unknown"),
        "{by}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcats_o_is_a_position_and_ours_a_format() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    let shown = async |line: &str| {
        let run = bench.run(&bench.words(line)).await.code(0);
        run.stdout.lines().count()
    };
    assert_eq!(shown("consume SOURCE -e -o -2").await, 2);
    assert_eq!(shown("consume SOURCE -e -o beginning -o jsonl").await, 3);
    assert_eq!(shown("consume SOURCE -e --from -1h").await, 3);
    assert_eq!(
        shown("consume SOURCE -e --from 2100-01-01T00:00:00Z").await,
        0
    );
    let wrong = bench
        .run(&bench.words("consume SOURCE -o yaml"))
        .await
        .code(2);
    assert!(wrong.stderr.contains("jsonl"), "{}", wrong.stderr);
}
