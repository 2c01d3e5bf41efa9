//! Entries decode as they were encoded, and nothing else is accepted as an entry.

use super::*;
use proptest::prelude::*;

fn command(action: Action) -> Command {
    Command::new("ada", "a bad deploy", action).expect("a command")
}

fn read(command: &Command) -> Result<Entry, Malformed> {
    let value = command.value().expect("JSON");
    Entry::read(Some(command.key().as_bytes()), Some(&value))
}

fn actions() -> Vec<Action> {
    let scope = |text: &str| -> Scope { text.parse().expect("a scope") };
    let pause = |text: &str| Action::Pause { scope: scope(text) };
    vec![
        pause("group"),
        pause("topic/orders"),
        pause("partition/orders/3"),
        pause("key/orders/a%20b"),
        Action::Resume {
            scope: Scope::Group,
        },
        Action::Skip {
            record: "orders/3@17".parse().expect("a position"),
        },
        Action::RetryNow {
            scope: scope("record/orders/3@17"),
        },
        Action::Rate {
            records_per_second: NonZeroU32::new(5),
        },
        Action::Rate {
            records_per_second: None,
        },
    ]
}

#[test]
fn every_command_reads_back_as_written() {
    for action in actions() {
        let command = command(action);
        assert_eq!(read(&command), Ok(Entry::Command(command)));
    }
}

#[test]
fn a_command_looks_like_this() {
    let mut command = command(Action::Pause {
        scope: Scope::Topic("orders".to_owned()),
    });
    command.id = "0199".to_owned();
    command.at = Timestamp::UNIX_EPOCH;
    let value = String::from_utf8(command.value().expect("JSON")).expect("the bytes are UTF-8");
    let expected = r#"{"id":"0199","by":"ada","why":"a bad deploy","at":"1970-01-01T00:00:00Z","action":"pause","scope":"topic/orders"}"#;
    assert_eq!(value, expected);
}

#[test]
fn only_what_lasts_shares_a_key_with_what_it_replaces() {
    let key = |action| command(action).key();
    let scope = Scope::Topic("orders".to_owned());
    assert_eq!(
        key(Action::Pause {
            scope: scope.clone()
        }),
        key(Action::Resume {
            scope: scope.clone()
        })
    );
    let retry = || Action::RetryNow {
        scope: scope.clone(),
    };
    assert_ne!(key(retry()), key(retry()));
}

#[test]
fn an_acknowledgement_reads_back_as_written() {
    let ack = Ack {
        command: "0199".to_owned(),
        member: "payments-1/x y".to_owned(),
        partitions: vec!["partition/orders/3".parse().expect("a scope")],
        outcome: CommandOutcome::AlreadySettled,
        at: Timestamp::UNIX_EPOCH,
        detail: "it had been".to_owned(),
        topic_id: None,
    };
    let value = ack.value().expect("JSON");
    let entry = Entry::read(Some(ack.key().as_bytes()), Some(&value));
    assert_eq!(entry, Ok(Entry::Ack(ack)));
}

#[test]
fn a_malformed_entry_is_refused_and_never_misread() {
    let good = command(Action::Pause {
        scope: Scope::Group,
    });
    let text = String::from_utf8(good.value().expect("JSON")).expect("the bytes are UTF-8");
    let refused = |key: Option<&[u8]>, value: &str| {
        let entry = Entry::read(key, Some(value.as_bytes()));
        assert!(entry.is_err(), "{entry:?}");
    };
    let key = Some(&b"pause/group"[..]);
    assert!(Entry::read(key, Some(text.as_bytes())).is_ok());
    refused(None, &text);
    refused(Some(b"\xff"), &text);
    refused(Some(b"pause/topic/orders"), &text);
    refused(Some(b"ack/1/2"), &text);
    refused(key, "");
    refused(key, &"[".repeat(10_000));
    refused(key, &text.replace("\"pause\"", "\"explode\""));
    refused(key, &text.replace("\"group\"", "\"record/a/0@1\""));
    refused(key, &text.replace("a bad deploy", " "));
    refused(key, &text.replace("a bad deploy", &"x".repeat(2000)));
    refused(key, &text.replace("\"ada\"", "7"));
    let long = text.replace(
        "\"ada\"",
        &format!("\"ada\",\"x\":\"{}\"", "x".repeat(70_000)),
    );
    refused(key, &long);
    let later = text.replace("\"ada\"", "\"ada\",\"of-a-later-version\":{}");
    assert!(Entry::read(key, Some(later.as_bytes())).is_ok());
    assert_eq!(
        Entry::read(key, None),
        Ok(Entry::Deleted("pause/group".to_owned()))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        let _ = Entry::read(key.as_deref(), value.as_deref());
    }

    #[test]
    fn any_damage_to_a_command_is_read_or_refused(which in 0..9_usize, at: usize, byte: u8, cut: bool) {
        let command = command(actions().swap_remove(which));
        let mut value = command.value().expect("JSON");
        let at = at % value.len();
        if cut { value.truncate(at) } else { value[at] = byte }
        if let Ok(Entry::Command(read)) = Entry::read(Some(command.key().as_bytes()), Some(&value)) {
            prop_assert_eq!(read.key(), command.key());
        }
    }
}
