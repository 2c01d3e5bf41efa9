//! Reads the journals of the producer commands: one JSON object per line and event, with its
//! outcome.

use crate::audit::{Acknowledged, Identity, Sent};
use anyhow::Context;
use serde::Deserialize;
use std::path::Path;

/// Source and type of events whose lines omit them, as receipts do.
pub(crate) struct Defaults {
    pub(crate) source: &'static str,
    pub(crate) ty: &'static str,
}

#[derive(Deserialize)]
struct Line {
    event_id: String,
    source: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
    topic: String,
    key: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    outcome: Outcome,
    offset: Option<i64>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// A receipt is an acknowledgement.
    #[default]
    Acknowledged,
    Failed,
    Unknown,
}

/// The acknowledged events of a journal. Failed events cannot be lost. Unknown ones are audited if
/// they are on a topic.
pub(crate) fn read_journal(path: &Path, defaults: &Defaults) -> anyhow::Result<Vec<Acknowledged>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the journal {}", path.display()))?;
    parse(&text, defaults).with_context(|| format!("the journal {} is damaged", path.display()))
}

fn parse(text: &str, defaults: &Defaults) -> anyhow::Result<Vec<Acknowledged>> {
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        if line.outcome != Outcome::Acknowledged {
            continue;
        }
        let sent = line.key.zip(line.seq).map(|(key, number)| Sent {
            key,
            number,
            offset: line.offset,
        });
        events.push(Acknowledged {
            identity: Identity {
                source: line.source.unwrap_or_else(|| defaults.source.to_owned()),
                id: line.event_id,
            },
            ty: line.ty.unwrap_or_else(|| defaults.ty.to_owned()),
            topic: line.topic,
            sent,
        });
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        source: "/here",
        ty: "t",
    };

    #[test]
    fn only_acknowledged_events_count() {
        let text = concat!(
            r#"{"event_id":"1","source":"/s","type":"u","key":"k","topic":"o","seq":0,"outcome":"acknowledged","partition":1,"offset":7}"#,
            "\n",
            r#"{"event_id":"2","source":"/s","type":"u","key":"k","topic":"o","seq":1,"outcome":"unknown","partition":null,"offset":null}"#,
            "\n",
            r#"{"event_id":"3","source":"/s","type":"u","key":"k","topic":"o","seq":2,"outcome":"failed","partition":null,"offset":null}"#,
        );
        let events = parse(text, &DEFAULTS).expect("a journal");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].identity.to_string(), "/s 1");
        assert_eq!(events[0].ty, "u");
        let sent = events[0].sent.as_ref().expect("its place");
        assert_eq!(
            (sent.key.as_str(), sent.number, sent.offset),
            ("k", 0, Some(7))
        );
    }

    #[test]
    fn a_receipt_acknowledges_an_event_of_default_source_and_type() {
        let text = r#"{"article":"a","event_id":"1","topic":"d","partition":0,"offset":3}"#;
        let events = parse(text, &DEFAULTS).expect("a receipt");
        assert_eq!(
            (
                events[0].identity.to_string().as_str(),
                events[0].ty.as_str()
            ),
            ("/here 1", "t")
        );
    }

    #[test]
    fn a_line_that_is_cut_off_is_named() {
        let error = parse("{\"event_id\":\"1\",\"topic\":\"d\"}\n{\"ev", &DEFAULTS).err();
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some("line 2")
        );
    }
}
