//! Detects incomplete listings. Kafka silently omits what a client may not see, so an empty listing
//! may mean anything.
//!
//! A listing that is empty because of missing rights is an error and not an empty result: a check
//! that finds nothing must not pass for that reason. A listing with entries is returned, with a
//! notice if others may be hidden.

use crate::Observer;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;

/// Checks a listing of topics with the prefix `prefix`, which has `listed` entries. If it is not
/// empty and others may be hidden, the observer receives a notice, once per process.
///
/// # Errors
/// [`KafkaError::Refused`] if the listing is empty and others may be hidden: it names the ACL that
/// shows them. Also if a request to the cluster fails.
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
    report_hidden(admin, listed, &format!("topic{begin}"), right, observer)
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
    report_hidden(admin, listed, &what, "DESCRIBE on its topics", observer)
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
    report_hidden(admin, listed, "group", right, observer)
}

/// Sends the notice about hidden entries, or returns the error. `what` is a singular noun such as
/// `topic`, `right` the ACL that shows the entries.
fn report_hidden(
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
            "no {what} is visible to {who}, so what exists is unknown; it takes an ACL for {right}"
        ),
    })
}
