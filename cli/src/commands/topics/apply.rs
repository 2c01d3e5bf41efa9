//! `evenkeel topics apply`: what the declarations ask of the cluster, shown first and done on request.

use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, OutputFormat, Row};
use anyhow::Context;
use clap::Args;
use evenkeel::kafka::admin::{Admin, NewTopic, TopicDescription};
use serde::Serialize;
use shop_schemas::TopicDeclaration;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Create and change topics as their declarations say; shows what it would do until --execute is given.
///
/// Partitions are never added to a topic that exists: keys would move to other partitions and lose their order. A topic
/// that has another number is reported, and the exit code is 3.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Declarations in JSON, one or an array of them; the shop's own when left out.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Do it, instead of showing it.
    #[arg(long)]
    execute: bool,

    /// Replication factor of topics that are created; the broker's default when left out.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    replication: Option<i32>,

    #[command(flatten)]
    output: OutputArgs,
}

/// What a topic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// It does not exist.
    Create,
    /// A setting differs.
    Change,
    /// It is as declared.
    Keep,
    /// It differs in a way that cannot be mended here.
    Differs,
}

/// A topic's part of the plan.
#[derive(Debug, Serialize)]
struct Step {
    topic: String,
    action: Action,
    /// Whether it was done; false in a dry run.
    done: bool,
    detail: String,
    #[serde(skip)]
    retention_ms: i64,
    #[serde(skip)]
    partitions: i32,
}

impl Row for Step {
    const COLUMNS: &'static [&'static str] = &["topic", "action", "done", "detail"];

    fn cells(&self) -> Vec<Vec<String>> {
        let action = match self.action {
            Action::Create => "create",
            Action::Change => "change",
            Action::Keep => "keep",
            Action::Differs => "differs",
        };
        let done = if self.done { "yes" } else { "no" };
        vec![vec![
            self.topic.clone(),
            action.to_owned(),
            done.to_owned(),
            self.detail.clone(),
        ]]
    }
}

/// Plans, and acts when asked to.
pub(super) async fn run(connection: &ConnectionArgs, args: ApplyArgs) -> anyhow::Result<Ending> {
    let declarations = declarations(&args.file)?;
    let admin = connection.admin().await?;
    let names: Vec<String> = declarations
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    let existing = admin.partition_counts(&names).await?;
    let mut steps = Vec::new();
    for declaration in &declarations {
        let found = match existing.contains_key(&declaration.name) {
            true => Some(admin.describe_topic(&declaration.name).await?),
            false => None,
        };
        steps.push(plan(declaration, found.as_ref()));
    }
    if args.execute {
        execute(&admin, &mut steps, args.replication.unwrap_or(-1)).await?;
    }
    let differs = steps.iter().any(|step| step.action == Action::Differs);
    let waiting = |step: &Step| matches!(step.action, Action::Create | Action::Change);
    let to_do = steps
        .iter()
        .filter(|step| waiting(step) && !step.done)
        .count();
    Listing::print(args.output.output, steps)?;
    if to_do > 0 && args.output.output == OutputFormat::Table {
        anstream::eprintln!("evenkeel: nothing was done; act with --execute");
    }
    Ok(if differs {
        Ending::FoundBad
    } else {
        Ending::Done
    })
}

/// The declarations of files, or the shop's.
fn declarations(files: &[PathBuf]) -> anyhow::Result<Vec<TopicDeclaration>> {
    if files.is_empty() {
        return Ok(shop_schemas::topics().to_vec());
    }
    let mut declarations = Vec::new();
    for path in files {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let several = text.trim_start().starts_with('[');
        let parsed = match several {
            true => serde_json::from_str(&text),
            false => serde_json::from_str(&text).map(|one| vec![one]),
        };
        let parsed: Vec<TopicDeclaration> =
            parsed.with_context(|| format!("{} holds no topic declaration", path.display()))?;
        declarations.extend(parsed);
    }
    Ok(declarations)
}

/// The setting that a declaration makes.
const RETENTION: &str = "retention.ms";

fn plan(declaration: &TopicDeclaration, found: Option<&TopicDescription>) -> Step {
    let retention = declaration.retention_ms.to_string();
    let declared = declaration.partitions;
    let (action, detail) = match found {
        None => (
            Action::Create,
            format!("{declared} partitions, {RETENTION}={retention}"),
        ),
        Some(found) if found.partitions.len() != declared as usize => (
            Action::Differs,
            format!(
                "{} partitions, {declared} declared: another number would move keys to other partitions; create a new \
                 topic, or correct the declaration",
                found.partitions.len()
            ),
        ),
        Some(found) => {
            let is = found.config.get(RETENTION);
            let shown = is.map_or("the broker's default", String::as_str);
            match is == Some(&retention) {
                true => (Action::Keep, String::new()),
                false => (
                    Action::Change,
                    format!("{RETENTION} from {shown} to {retention}"),
                ),
            }
        }
    };
    Step {
        topic: declaration.name.clone(),
        action,
        done: false,
        detail,
        retention_ms: declaration.retention_ms,
        partitions: declared,
    }
}

async fn execute(admin: &Admin, steps: &mut [Step], replication: i32) -> anyhow::Result<()> {
    let new_topic = |step: &Step| NewTopic {
        name: step.topic.clone(),
        partitions: step.partitions,
        replication,
        config: BTreeMap::from([(RETENTION.to_owned(), step.retention_ms.to_string())]),
    };
    let missing: Vec<NewTopic> = steps
        .iter()
        .filter(|step| step.action == Action::Create)
        .map(new_topic)
        .collect();
    // Somebody else may have created one since the plan was made: then it is there, too.
    admin.create_topics(&missing).await?;
    for step in steps {
        if step.action == Action::Change {
            let settings = BTreeMap::from([(RETENTION.to_owned(), step.retention_ms.to_string())]);
            admin.alter_topic(&step.topic, &settings).await?;
        }
        step.done = matches!(step.action, Action::Create | Action::Change);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::kafka::admin::PartitionDescription;

    fn declaration() -> TopicDeclaration {
        TopicDeclaration {
            name: "t".to_owned(),
            partitions: 2,
            retention_ms: 1000,
            key: "id".to_owned(),
            producers: Vec::new(),
            consumers: Vec::new(),
            events: Vec::new(),
        }
    }

    fn found(partitions: i32, retention: Option<&str>) -> TopicDescription {
        let partition = |partition| PartitionDescription {
            partition,
            leader: 1,
            replicas: vec![1],
            in_sync: vec![1],
            low: 0,
            high: 0,
        };
        TopicDescription {
            name: "t".to_owned(),
            partitions: (0..partitions).map(partition).collect(),
            config: retention
                .map(|value| (RETENTION.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn the_plan_names_what_a_topic_needs_and_never_adds_partitions() {
        let check = |found: Option<TopicDescription>, expected| {
            assert_eq!(plan(&declaration(), found.as_ref()).action, expected);
        };
        check(None, Action::Create);
        check(Some(found(2, Some("1000"))), Action::Keep);
        check(Some(found(2, Some("5"))), Action::Change);
        check(Some(found(2, None)), Action::Change);
        check(Some(found(1, Some("1000"))), Action::Differs);
        check(Some(found(3, Some("1000"))), Action::Differs);
    }
}
