//! Reads the journals of the producer commands: one JSON object a line per acknowledged event.

use crate::audit::Acknowledged;
use crate::audit::Identity;
use anyhow::Context;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    source: String,
    id: String,
    #[serde(rename = "type")]
    ty: String,
    topic: String,
}

/// All acknowledged events of a journal.
pub(crate) fn read_journal(path: &Path) -> anyhow::Result<Vec<Acknowledged>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the journal {}", path.display()))?;
    parse(&text).with_context(|| format!("the journal {} is damaged", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<Acknowledged>> {
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        events.push(Acknowledged {
            identity: Identity {
                source: line.source,
                id: line.id,
            },
            ty: line.ty,
            topic: line.topic,
        });
    }
    Ok(events)
}
