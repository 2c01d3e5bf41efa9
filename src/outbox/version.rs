//! Which versions of an outbox's tables this release can work with.

use super::OutboxError;

/// The version that a store says it has, 0 where it says nothing; an error for one that is not among those up to `newest`.
pub(super) fn check(stored: Option<&str>, newest: usize) -> Result<usize, OutboxError> {
    let Some(stored) = stored else {
        return Ok(0);
    };
    let reason = match stored.parse::<usize>() {
        Ok(version) if version <= newest => return Ok(version),
        Ok(version) => format!(
            "has version {version}, written by a newer release; this one knows versions up to {newest}: run the newer \
             release"
        ),
        Err(_) => format!("says its version is {stored:?}, which no release of evenkeel writes"),
    };
    Err(OutboxError::Foreign { reason })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_version_that_is_not_known_is_refused_with_the_reason() {
        let reason = |stored| check(Some(stored), 2).expect_err("refused").to_string();
        assert!(reason("3").contains("newer release"));
        assert!(reason("x").contains("\"x\""));
        assert_eq!(check(None, 2).expect("none yet"), 0);
        assert_eq!(check(Some("1"), 2).expect("an older one"), 1);
    }
}
