//! Checks which versions of an outbox's tables this release supports.
//!
//! A newer version is refused before anything is changed: an older release could not know what it
//! breaks. There is no way back to older tables.

use super::OutboxError;

/// Parses the stored version, 0 if there is none. An error for a version above `newest`.
pub(super) fn check(stored: Option<&str>, newest: usize) -> Result<usize, OutboxError> {
    let Some(stored) = stored else {
        return Ok(0);
    };
    let reason = match stored.parse::<usize>() {
        Ok(version) if version <= newest => return Ok(version),
        Ok(version) => format!(
            "has version {version}, written by a newer release; this one knows versions up to \
             {newest}: run the newer release"
        ),
        Err(_) => format!("has the version {stored:?}, which no release of evenkeel writes"),
    };
    Err(OutboxError::Foreign { reason })
}

/// Why an outbox with old tables is not used by a process that may not upgrade them: a reader of
/// its status, or one under `Migration::Elsewhere`.
pub(super) fn behind(stored: usize, newest: usize) -> OutboxError {
    let migrate = "first run `evenkeel store migrate --execute`, or, for PostgreSQL, the SQL of \
                   `evenkeel store migrate --print`";
    let reason = match stored {
        0 => format!("has no tables of the outbox: {migrate}"),
        _ => format!("has schema version {stored}, and this release needs {newest}: {migrate}"),
    };
    OutboxError::Foreign { reason }
}

/// The version of an outbox's tables, and the version that this release creates. Returned by
/// [`OutboxStore::versions`](super::OutboxStore::versions). The tables need an upgrade while
/// `stored` is below `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxVersions {
    /// The version in the store; 0 if there is no outbox yet.
    pub stored: usize,
    /// The newest version that this release supports.
    pub newest: usize,
}

#[cfg(test)]
mod tests {
    use super::{behind, check};

    #[test]
    fn an_unknown_version_is_refused_with_the_reason() {
        let reason = |stored| check(Some(stored), 2).expect_err("refused").to_string();
        assert!(reason("3").contains("newer release"));
        assert!(reason("x").contains("\"x\""));
        assert_eq!(check(None, 2).expect("none yet"), 0);
        assert_eq!(check(Some("1"), 2).expect("an older one"), 1);
    }

    #[test]
    fn an_older_version_is_named_with_the_remedy() {
        let older = behind(1, 2).to_string();
        assert!(older.contains("schema version 1"), "{older}");
        assert!(older.contains("store migrate --execute"), "{older}");
        let none = behind(0, 2).to_string();
        assert!(none.contains("no tables"), "{none}");
    }
}
