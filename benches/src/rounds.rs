//! Runs the rounds of a workload. Contestants take turns, so that other load of the machine affects
//! all of them. Each turn is a process of its own, so that none inherits the memory of another.

use crate::cluster::Cluster;
use crate::spec::{Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::testing::unique;
use serde::Serialize;
use std::process::Stdio;
use tokio::process::Command;

/// All turns of one contestant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ContestantTurns {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

/// A contestant and its topic.
pub(crate) struct PreparedContestant {
    pub(crate) spec: Spec,
    /// Whether it writes to its topic itself. Each of its turns then has an empty topic.
    pub(crate) writes: bool,
}

/// Runs `turns` turns of each contestant. Every second round reverses their order.
pub(crate) async fn run_rounds(
    cluster: &Cluster,
    contestants: &[PreparedContestant],
    turns: usize,
    unit: &str,
) -> anyhow::Result<Vec<ContestantTurns>> {
    let mut results: Vec<ContestantTurns> = contestants
        .iter()
        .map(|contestant| ContestantTurns {
            name: contestant.spec.contestant.clone(),
            turns: Vec::new(),
        })
        .collect();
    for round in 0..turns {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let name = &contestants[number].spec.contestant;
            let turn = contestants[number]
                .turn(cluster)
                .await
                .with_context(|| format!("{name} in round {}", round + 1))?;
            eprintln!(
                "round {}: {name:<16} {:>12.1} {unit}",
                round + 1,
                turn.value
            );
            results[number].turns.push(turn);
        }
    }
    Ok(results)
}

impl PreparedContestant {
    async fn turn(&self, cluster: &Cluster) -> anyhow::Result<Turn> {
        if !self.writes {
            return run_in_process(&self.spec).await;
        }
        let topic = unique("evenkeel-bench");
        cluster.create(&topic, self.spec.data.partitions).await?;
        let spec = Spec {
            topic: topic.clone(),
            ..self.spec.clone()
        };
        let taken = run_in_process(&spec).await;
        cluster.delete(&topic).await?;
        taken
    }
}

/// Runs a turn in a process of its own.
pub(crate) async fn run_in_process(spec: &Spec) -> anyhow::Result<Turn> {
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
