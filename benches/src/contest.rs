//! A contest: contestants take turns, so that whatever else the machine does falls on all of them, and each turn is a
//! process of its own, so that none inherits another's memory.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use tokio::process::Command;

/// What one turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// Records a second, from the first to the last.
    pub(crate) records_per_second: f64,
    /// Processor time of all threads per record, in microseconds.
    pub(crate) processor_us_per_record: f64,
    /// The most memory that was resident, in MiB.
    pub(crate) resident_max_mib: f64,
}

/// All turns of one contestant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Score {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

/// Lets each contestant take `turns` turns, one after the other and in every second round the other way round.
pub(crate) async fn hold(
    names: &[&str],
    turns: usize,
    arguments: impl Fn(&str) -> Vec<String>,
) -> anyhow::Result<Vec<Score>> {
    let mut scores: Vec<Score> = names
        .iter()
        .map(|name| Score {
            name: (*name).to_owned(),
            turns: Vec::new(),
        })
        .collect();
    for round in 0..turns {
        let mut order: Vec<usize> = (0..names.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let turn = take(&arguments(names[number])).await;
            let turn = turn.with_context(|| format!("{} in round {}", names[number], round + 1))?;
            eprintln!(
                "round {}: {:<10} {:>9.0}/s",
                round + 1,
                names[number],
                turn.records_per_second
            );
            scores[number].turns.push(turn);
        }
    }
    Ok(scores)
}

async fn take(arguments: &[String]) -> anyhow::Result<Turn> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        bail!("the turn failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the turn's answer cannot be read")
}
