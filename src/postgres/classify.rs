//! The classes of PostgreSQL's errors, as handlers receive them.
//!
//! Codes: PostgreSQL's documentation, appendix A.

use crate::failure::Class;
use crate::sql;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use std::error::Error;

/// The class of an error of the driver, or `None` if it has no meaning of its own.
pub(crate) fn class_of(error: &(dyn Error + 'static)) -> Option<Class> {
    sql::class_of(error, class_of_code)
}

/// Whether a statement was prepared before a table that it reads was changed, so that it would
/// return other columns. It fails on its connection until it is prepared again; the event did not
/// cause it. The code alone does not tell: it means that the server lacks some feature.
pub(crate) fn is_outdated_plan(error: &PgDatabaseError) -> bool {
    const FEATURE_NOT_SUPPORTED: &str = "0A000";
    error.code() == FEATURE_NOT_SUPPORTED && error.routine() == Some("RevalidateCachedQuery")
}

/// A deadlock or a serialisation failure (`40...`) may pass at once. A statement (57014) or a
/// transaction (25P03, 25P04) that exceeded its time limit is a timeout: this event alone may cause
/// it.
fn class_of_code(error: &(dyn DatabaseError + 'static)) -> Option<Class> {
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    const INVALID_CATALOG_NAME: &str = "3D000";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const TIMEOUTS: [&str; 3] = ["57014", "25P03", "25P04"];
    /// A pooler lost the connection's prepared statements: the event did not cause it.
    const STATEMENTS_LOST: [&str; 2] = ["26000", "42P05"];
    /// Corrupted data and indexes.
    const CORRUPTED: [&str; 2] = ["XX001", "XX002"];
    const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    /// Connections, authorisation, resources, operator intervention, and system errors.
    const CLASSES: [&str; 5] = ["08", "28", "53", "57P", "58"];
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    if is_outdated_plan(error) {
        return Some(Class::Outage);
    }
    let code = error.code();
    if TIMEOUTS.contains(&code) {
        return Some(Class::Timeout);
    }
    let is_of_the_server = matches!(
        code,
        INSUFFICIENT_PRIVILEGE
            | INVALID_CATALOG_NAME
            | LOCK_NOT_AVAILABLE
            | READ_ONLY_SQL_TRANSACTION
    ) || STATEMENTS_LOST.contains(&code)
        || CORRUPTED.contains(&code)
        || CLASSES.iter().any(|class| code.starts_with(class));
    is_of_the_server.then_some(Class::Outage)
}

#[cfg(test)]
mod tests {
    use crate::handler::{Class, HandlerError, default_classifier};

    fn class(error: sqlx::Error) -> Class {
        HandlerError::from(error).class(&default_classifier())
    }

    #[tokio::test]
    async fn postgres_errors_are_classified_by_code() {
        use sqlx::{Connection, PgConnection};
        let Some(postgres) = crate::testing::postgres().await else {
            return;
        };
        let url = postgres
            .database()
            .await
            .expect("the server creates a database");
        let mut store = PgConnection::connect(&url)
            .await
            .expect("the server takes a connection");
        for (code, expected) in [
            ("23505", Class::Permanent),
            ("25006", Class::Outage),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("42501", Class::Outage),
            ("42P01", Class::Transient),
            ("53100", Class::Outage),
            ("53300", Class::Outage),
            ("55P03", Class::Outage),
            ("57014", Class::Timeout),
            ("25P03", Class::Timeout),
            ("26000", Class::Outage),
            ("XX001", Class::Outage),
            ("XX000", Class::Transient),
            ("57P01", Class::Outage),
        ] {
            let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$");
            let raised = sqlx::raw_sql(sqlx::AssertSqlSafe(raise))
                .execute(&mut store)
                .await;
            assert_eq!(class(raised.expect_err(code)), expected, "{code}");
        }
        let ended = "SELECT pg_terminate_backend(pg_backend_pid())";
        let error = sqlx::raw_sql(ended).execute(&mut store).await;
        assert_eq!(class(error.expect_err(ended)), Class::Outage);
        let error = sqlx::raw_sql("SELECT 1").execute(&mut store).await;
        assert_eq!(class(error.expect_err("it is closed")), Class::Outage);
    }
}
