//! A contest: contestants take turns, so that whatever else the machine does falls on all of them, and each turn is a
//! process of its own, so that none inherits another's memory.

use crate::spec::{Spec, Turn};
use anyhow::{Context, bail};
use serde::Serialize;
use std::process::Stdio;
use tokio::process::Command;

/// All turns of one contestant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Score {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

/// Lets each contestant take `turns` turns, one after the other and in every second round the other way round.
pub(crate) async fn hold(specs: &[Spec], turns: usize, unit: &str) -> anyhow::Result<Vec<Score>> {
    let mut scores: Vec<Score> = specs
        .iter()
        .map(|spec| Score {
            name: spec.contestant.clone(),
            turns: Vec::new(),
        })
        .collect();
    for round in 0..turns {
        let mut order: Vec<usize> = (0..specs.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let name = &specs[number].contestant;
            let turn = take(&specs[number])
                .await
                .with_context(|| format!("{name} in round {}", round + 1))?;
            eprintln!(
                "round {}: {name:<16} {:>12.1} {unit}",
                round + 1,
                turn.value
            );
            scores[number].turns.push(turn);
        }
    }
    Ok(scores)
}

async fn take(spec: &Spec) -> anyhow::Result<Turn> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--turn")
        .arg(serde_json::to_string(spec)?)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        bail!("the turn failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the turn's answer cannot be read")
}
