//! Detects incomplete listings. Kafka silently omits what a client may not see, so an empty listing
//! may mean anything.

use crate::Observer;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;

/// Checks a listing of topics with the prefix `prefix`, which has `listed` entries. If it is not
/// empty and others may be hidden, the observer receives a notice.
///
/// # Errors
/// [`KafkaError::Refused`] if the listing is empty and others may be hidden.
pub async fn check_topics(
    admin: &Admin,
    prefix: &str,
    listed: usize,
    observer: &dyn Observer,
) -> Result<(), KafkaError> {
    if admin.sees_all_topics(prefix).await? {
        return Ok(());
    }
    let begin = match prefix {
        "" => String::new(),
        prefix => format!(" that begins with {prefix}"),
    };
    let right = "DESCRIBE on topics, by name or by prefix";
    hidden(admin, listed, &format!("topic{begin}"), right, observer)
}

/// Checks a listing of a group's offsets in the same way: it contains only topics that the client
/// may see.
///
/// # Errors
/// As for [`check_topics`].
pub async fn check_topics_of(
    admin: &Admin,
    group: &str,
    listed: usize,
    observer: &dyn Observer,
) -> Result<(), KafkaError> {
    if admin.sees_all_topics("").await? {
        return Ok(());
    }
    let what = format!("topic that {group} has committed to");
    hidden(admin, listed, &what, "DESCRIBE on its topics", observer)
}

/// Checks a listing of groups in the same way.
///
/// # Errors
/// As for [`check_topics`].
pub async fn check_groups(
    admin: &Admin,
    listed: usize,
    observer: &dyn Observer,
) -> Result<(), KafkaError> {
    if admin.sees_all_groups().await? {
        return Ok(());
    }
    let right = "DESCRIBE on groups, or on the cluster for all of them";
    hidden(admin, listed, "group", right, observer)
}

fn hidden(
    admin: &Admin,
    listed: usize,
    what: &str,
    right: &str,
    observer: &dyn Observer,
) -> Result<(), KafkaError> {
    let who = admin.principal();
    if listed > 0 {
        observer.notice_once(&format!(
            "every {what} that {who} may not see is left out; seeing them takes an ACL for {right}"
        ));
        return Ok(());
    }
    Err(KafkaError::Refused {
        what: "listing".to_owned(),
        cause: format!(
            "no {what} is visible to {who}, which says nothing about what there is; it takes an ACL for {right}"
        ),
    })
}
