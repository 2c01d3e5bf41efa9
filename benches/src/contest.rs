//! Runs a contest. Contestants take turns, so that other load of the machine affects all of them.
//! Each turn is a process of its own, so that none inherits the memory of another.

use crate::cluster::Cluster;
use crate::spec::{Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::testing::unique;
use serde::Serialize;
use std::process::Stdio;
use tokio::process::Command;

/// All turns of one contestant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Score {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

/// A contestant and its topic.
pub(crate) struct Entrant {
    pub(crate) spec: Spec,
    /// Whether it writes to its topic itself. Each of its turns then has an empty topic.
    pub(crate) writes: bool,
}

/// Runs `turns` turns of each contestant. Every second round reverses their order.
pub(crate) async fn hold(
    cluster: &Cluster,
    entrants: &[Entrant],
    turns: usize,
    unit: &str,
) -> anyhow::Result<Vec<Score>> {
    let mut scores: Vec<Score> = entrants
        .iter()
        .map(|entrant| Score {
            name: entrant.spec.contestant.clone(),
            turns: Vec::new(),
        })
        .collect();
    for round in 0..turns {
        let mut order: Vec<usize> = (0..entrants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let name = &entrants[number].spec.contestant;
            let turn = entrants[number]
                .turn(cluster)
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

impl Entrant {
    async fn turn(&self, cluster: &Cluster) -> anyhow::Result<Turn> {
        if !self.writes {
            return take(&self.spec).await;
        }
        let topic = unique("evenkeel-bench");
        cluster.create(&topic, self.spec.data.partitions).await?;
        let spec = Spec {
            topic: topic.clone(),
            ..self.spec.clone()
        };
        let taken = take(&spec).await;
        cluster.delete(&topic).await?;
        taken
    }
}

/// Runs a turn in a process of its own.
pub(crate) async fn take(spec: &Spec) -> anyhow::Result<Turn> {
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
