//! `evenkeel topics apply`: applies declarations to the cluster, after showing the plan.
//!
//! A declaration determines the number of partitions and the retention. The plan is computed by a
//! pure function, and each of its steps has one action; only `create` and `change` are executed.

use crate::arguments::check_flag::CheckArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, text};
use anyhow::Context;
use clap::Args;
use evenkeel::kafka::admin::{Admin, NewTopic, TopicDescription};
use evenkeel_program::exit::Ending;
use serde::Serialize;
use shop_schemas::TopicDeclaration;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Create and change topics as declared; shows the plan until --execute is given.
///
/// Never adds partitions to an existing topic: keys would move to other partitions and lose their
/// order. A topic with another number of partitions is reported. Safe to repeat.
///
/// Exit codes: 0 done, or planned; 1 the settings of a topic may not be read; 3 a topic differs in
/// a way that cannot be repaired; 3 also with --check, if a topic is still to be created or
/// changed.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// File with a declaration in JSON, or an array of them; may be repeated [default: the shop's
    /// declarations].
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Create and change the topics. Without this flag, nothing is changed.
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    check: CheckArgs,

    /// Replication factor of created topics [default: the broker's].
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    replication: Option<i32>,

    #[command(flatten)]
    output: OutputArgs,
}

/// The change that a topic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// The topic does not exist.
    Create,
    /// A setting differs.
    Change,
    /// The topic matches its declaration.
    Keep,
    /// The topic differs in a way that this command cannot repair.
    Differs,
    /// The client may not see the topic's settings, so the required change is unknown.
    Hidden,
}

/// The plan for one topic.
#[derive(Debug, Serialize)]
struct Step {
    /// Name of the topic.
    topic: String,
    /// What the topic needs.
    action: Action,
    /// Whether the change was made. False in a dry run.
    done: bool,
    /// The change or the difference, in words. Empty if there is none.
    detail: String,
    /// The declared retention.
    #[serde(skip)]
    retention_ms: i64,
    /// The declared number of partitions.
    #[serde(skip)]
    partitions: i32,
}

impl Row for Step {
    const COLUMNS: &'static [Column] =
        &[name("topic"), name("action"), name("done"), text("detail")];

    fn cells(&self) -> Vec<Vec<String>> {
        let action = match self.action {
            Action::Create => "create",
            Action::Change => "change",
            Action::Keep => "keep",
            Action::Differs => "differs",
            Action::Hidden => "hidden",
        };
        let done = match (self.action, self.done) {
            (Action::Keep | Action::Differs, _) => "-",
            (_, true) => "yes",
            (_, false) => "no",
        };
        vec![vec![
            self.topic.clone(),
            action.to_owned(),
            done.to_owned(),
            self.detail.clone(),
        ]]
    }
}

/// Prints the plan, and makes the changes with `--execute`.
pub(super) async fn run(connection: &ConnectionArgs, args: ApplyArgs) -> anyhow::Result<Ending> {
    let declarations = declarations(&args.file)?;
    let admin = match args.execute {
        true => connection.admin_to_change().await?,
        false => connection.admin().await?,
    };
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
    let is_hidden = steps.iter().any(|step| step.action == Action::Hidden);
    let differs = steps.iter().any(|step| step.action == Action::Differs);
    let waiting = |step: &Step| matches!(step.action, Action::Create | Action::Change);
    let to_do: Vec<String> = steps
        .iter()
        .filter(|step| waiting(step) && !step.done)
        .map(|step| step.topic.clone())
        .collect();
    let done = match args.execute {
        true => "all possible changes were made",
        false => "nothing was changed",
    };
    Listing::print(args.output, steps).after_done(|| done.to_owned())?;
    if !to_do.is_empty() && args.output.is_table() {
        say!("nothing was changed; apply the declarations with --execute");
    }
    let drift = match to_do.is_empty() {
        true => Vec::new(),
        false => vec![format!("not as declared: {}", to_do.join(", "))],
    };
    let checked = args.check.ending_for(&drift);
    Ok(match (is_hidden, differs) {
        (true, _) => Ending::SomeFailed,
        (_, true) => Ending::FoundBad,
        _ => checked,
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

/// The setting that a declaration determines.
const RETENTION: &str = "retention.ms";

/// Compares a declaration with the topic. Pure. `found` is `None` if the topic does not exist.
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
                "{} partitions, {declared} declared: another number would move keys to other \
                 partitions; create a new topic, or correct the declaration",
                found.partitions.len()
            ),
        ),
        Some(TopicDescription {
            config_refused: Some(refused),
            ..
        }) => (Action::Hidden, refused.clone()),
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

/// Makes the planned changes, and marks each step as done. The first error ends it; what was done
/// until then stays, so the command can be repeated.
async fn execute(admin: &Admin, steps: &mut [Step], replication: i32) -> anyhow::Result<()> {
    let new_topic = |step: &Step| {
        NewTopic::new(step.topic.clone())
            .with_partitions(step.partitions)
            .with_replication(replication)
            .with_setting(RETENTION, step.retention_ms.to_string())
    };
    let missing: Vec<NewTopic> = steps
        .iter()
        .filter(|step| step.action == Action::Create)
        .map(new_topic)
        .collect();
    // A topic may have been created since the plan was made. That is no error.
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
        let partition = |partition| {
            let mut partition = PartitionDescription::new(partition);
            partition.leader = 1;
            partition.replicas = vec![1];
            partition.in_sync = vec![1];
            partition
        };
        let mut topic = TopicDescription::new("t");
        topic.partitions = (0..partitions).map(partition).collect();
        topic.config = retention
            .map(|value| (RETENTION.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        topic
    }

    #[test]
    fn plan_names_needed_changes_and_never_adds_partitions() {
        let check = |found: Option<TopicDescription>, expected| {
            assert_eq!(plan(&declaration(), found.as_ref()).action, expected);
        };
        check(None, Action::Create);
        check(Some(found(2, Some("1000"))), Action::Keep);
        check(Some(found(2, Some("5"))), Action::Change);
        check(Some(found(2, None)), Action::Change);
        let mut hidden = found(2, None);
        hidden.config_refused = Some("it takes an ACL".to_owned());
        check(Some(hidden), Action::Hidden);
        check(Some(found(1, Some("1000"))), Action::Differs);
        check(Some(found(3, Some("1000"))), Action::Differs);
    }
}
