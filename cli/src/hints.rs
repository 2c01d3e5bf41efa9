//! The output of a failed command: the error, and for a name that does not exist, similar names or
//! a command that creates it.

use crate::arguments::connection::ConnectionArgs;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaError, is_topic_name};
use evenkeel_ops::UnknownGroup;
use evenkeel_ops::names::similar_names::{OFFERED_MAX, nearest};
use evenkeel_program::exit;
use std::time::Duration;

/// Time limit of the search for similar names. The error is printed in any case.
const SEARCH_LIMIT: Duration = Duration::from_secs(3);

/// The error and its causes, as in [`evenkeel_program::exit::message`], without the remedy, which
/// depends on the command.
fn message(error: &anyhow::Error) -> String {
    exit::message_of(error, |cause| match cause.downcast_ref::<KafkaError>() {
        Some(KafkaError::UnknownTopic { topic }) => no_such_topic(topic),
        _ => cause.to_string(),
    })
}

/// The last line of a failed command.
pub(crate) fn failure_line(error: &anyhow::Error) -> String {
    format!("evenkeel: {}", message(error))
}

/// The problem with the name of a missing topic.
fn no_such_topic(topic: &str) -> String {
    if is_topic_name(topic) {
        return format!("the topic {topic} does not exist");
    }
    let is_pattern = topic.contains(['*', '?', '[', '^']);
    let why = match is_pattern {
        true => "patterns are not understood, name each topic",
        false => "a name has at most 249 characters: letters, digits, dots, hyphens, underscores",
    };
    format!("{topic:?} is not a topic name: {why}")
}

/// Adds a hint to an error: for a missing topic, similar names. With `creates`, also the command
/// that creates the topic.
///
/// Other errors are returned unchanged. If the topics cannot be listed within [`SEARCH_LIMIT`], the
/// error has no hint.
pub(crate) async fn with_hint(
    error: anyhow::Error,
    connection: &ConnectionArgs,
    creates: bool,
) -> anyhow::Error {
    let unknown = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(KafkaError::UnknownTopic { topic }) => Some(topic.clone()),
        _ => None,
    });
    let Some(topic) = unknown else {
        return error;
    };
    let message = message(&error);
    let topics = async {
        connection
            .admin()
            .await?
            .topics()
            .await
            .map_err(anyhow::Error::from)
    };
    let existing = match tokio::time::timeout(SEARCH_LIMIT, topics).await {
        Ok(Ok(existing)) => existing,
        _ => return anyhow::anyhow!(message),
    };
    let mut hints = vec![message];
    let pattern = pattern_prefix(&topic);
    let meant: Vec<&str> = match &pattern {
        Some(begin) => with_prefix(begin, &existing),
        None => nearest(&topic, &existing),
    };
    if !meant.is_empty() {
        hints.push(format!("did you mean {}?", meant.join(" or ")));
    }
    if creates && is_topic_name(&topic) {
        hints.push(format!("create it with: evenkeel topics create {topic}"));
    } else if meant.is_empty() {
        hints.push("see: evenkeel topics list".to_owned());
    }
    anyhow::anyhow!(hints.join("; "))
}

/// The literal prefix of a regular expression. `None` if the name has only characters of topic
/// names.
fn pattern_prefix(topic: &str) -> Option<String> {
    let begin = topic.trim_start_matches('^');
    let end = begin.find(['*', '?', '[', '(', '$'])?;
    Some(begin[..end].trim_end_matches('.').to_owned())
}

/// The first names with this prefix.
fn with_prefix<'a>(begin: &str, existing: &'a [String]) -> Vec<&'a str> {
    let names = existing.iter().map(String::as_str);
    names
        .filter(|name| name.starts_with(begin))
        .take(OFFERED_MAX)
        .collect()
}

/// Fails for named groups that do not exist, after the others were printed.
pub(crate) async fn all_groups_exist(admin: &Admin, missing: &[String]) -> anyhow::Result<()> {
    match missing {
        [] => Ok(()),
        [name] => Err(UnknownGroup::new(admin, name).await.into()),
        names => Err(anyhow::anyhow!("there are no groups {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_called_one() {
        assert!(no_such_topic("shop.*").contains("patterns are not understood"));
        assert!(no_such_topic("a b").contains("is not a topic name"));
        assert_eq!(no_such_topic("a"), "the topic a does not exist");
        assert_eq!(pattern_prefix("^shop.*"), Some("shop".to_owned()));
        assert_eq!(pattern_prefix("shop.orders"), None);
    }
}
