//! Tests which records are skipped or dropped, and for how long.

use super::*;
use crate::control::Action;
use crate::event::RecordBatchBuilder;

fn record(topic: &str, partition: i32, offset: i64) -> Record {
    let mut builder = RecordBatchBuilder::new();
    let source = builder.source(topic.into(), partition);
    builder.push(source, offset, 0, None, None, []);
    builder.build(None).record(0).expect("a record")
}

fn skip(record: &Record) -> Command {
    let action = Action::Skip {
        record: position(record),
    };
    Command::new("ada", "because", action).expect("a command")
}

#[test]
fn a_skip_concerns_one_record_until_it_is_withdrawn() {
    let control = Control::default();
    let skipped = [record("a", 0, 7), record("b", 0, 7)];
    let commands = skipped.each_ref().map(skip);
    assert!(!control.has_skips());
    for (record, command) in skipped.iter().zip(&commands) {
        control.skip(&position(record), command);
        assert_eq!(control.skip_of(record).as_ref(), Some(command));
    }
    for other in [record("c", 0, 7), record("a", 1, 7), record("a", 0, 8)] {
        assert_eq!(control.skip_of(&other), None);
    }
    control.unskip(&position(&skipped[0]));
    assert_eq!(control.skip_of(&skipped[0]), None);
    assert_eq!(control.skip_of(&skipped[1]).as_ref(), Some(&commands[1]));
    control.unskip(&position(&skipped[1]));
    assert!(!control.has_skips());
}

#[test]
fn parked_records_to_drop_are_forgotten_with_their_partition() {
    let control = Control::default();
    let command = skip(&record("a", 0, 7));
    for epoch in [1, 2] {
        control.drop_parked(Epoch(epoch), 7, &command);
    }
    control.forget_drops(&[Epoch(1)]);
    let are_dropped = [1, 2].map(|epoch| control.is_dropped(Epoch(epoch), 7));
    assert_eq!(are_dropped, [false, true]);
    assert_eq!(control.take_drop(Epoch(2), 8), None);
    assert_eq!(control.take_drop(Epoch(2), 7), Some(command));
    assert_eq!(control.take_drop(Epoch(2), 7), None, "once");
}
