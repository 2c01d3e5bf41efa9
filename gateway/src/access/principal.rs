//! A caller and its rights.

use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// What a caller may do. An entry is an event type, or a prefix that ends with `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Rights {
    /// The types that it may post.
    pub post: Vec<String>,
    /// The types that it may stream.
    pub stream: Vec<String>,
    /// Whether it may read the status of events, and the read model.
    pub status: bool,
}

impl Rights {
    /// All rights.
    pub fn all() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            post: all(),
            stream: all(),
            status: true,
        }
    }

    /// Whether it may post events of this type.
    pub fn may_post(&self, ty: &str) -> bool {
        covers(&self.post, ty)
    }

    /// Whether it may stream events of this type.
    pub fn may_stream(&self, ty: &str) -> bool {
        covers(&self.stream, ty)
    }
}

fn covers(entries: &[String], ty: &str) -> bool {
    entries.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => ty.starts_with(prefix),
        None => entry == ty,
    })
}

/// The caller of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Its name, for logs, rate limits and the scope of an `Idempotency-Key`.
    pub name: Arc<str>,
    /// The `source` that its events have. It can set no other.
    pub source: Arc<str>,
    /// What it may do.
    pub rights: Arc<Rights>,
    /// Requests per second that it may make on average; none: no limit of its own.
    pub rate: Option<u32>,
    /// When its token expires. Its streams end then. None: never.
    pub valid_until: Option<Timestamp>,
}

impl Principal {
    /// A caller of this name, whose events have the source `/callers/<name>`.
    pub fn new(name: impl Into<Arc<str>>, rights: Rights) -> Self {
        let name = name.into();
        Self {
            source: format!("/callers/{name}").into(),
            name,
            rights: Arc::new(rights),
            rate: None,
            valid_until: None,
        }
    }

    /// Sets the `source` of its events.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Arc<str>>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets its rate, in requests per second.
    #[must_use]
    pub fn with_rate(mut self, rate: impl Into<Option<u32>>) -> Self {
        self.rate = rate.into();
        self
    }

    /// Sets when its token expires.
    #[must_use]
    pub fn with_valid_until(mut self, valid_until: impl Into<Option<Timestamp>>) -> Self {
        self.valid_until = valid_until.into();
        self
    }

    /// The time until its token expires; zero if it has. None: it does not expire.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.valid_until?.duration_since(Timestamp::now());
        Some(Duration::try_from(left).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_has_no_time_left() {
        let left = |seconds| {
            let until = Timestamp::now() + Duration::from_secs(60);
            let until = until - Duration::from_secs(seconds);
            let principal = Principal::new("shop", Rights::all()).with_valid_until(until);
            principal.time_left().expect("it expires").as_secs()
        };
        assert!((50..=60).contains(&left(0)));
        assert_eq!(left(61), 0);
        let principal = Principal::new("shop", Rights::all());
        assert_eq!(principal.time_left(), None);
    }

    #[test]
    fn a_right_covers_its_type_or_what_its_prefix_begins() {
        let rights = |entry: &str| Rights {
            post: vec![entry.to_owned()],
            ..Rights::default()
        };
        for (entry, ty, expected) in [
            ("shop.order-placed.v1", "shop.order-placed.v1", true),
            ("shop.order-placed.v1", "shop.order-placed.v10", false),
            ("shop.*", "shop.order-placed.v1", true),
            ("shop.*", "bank.order", false),
            ("*", "anything", true),
            ("", "anything", false),
        ] {
            assert_eq!(rights(entry).may_post(ty), expected, "{entry} {ty}");
            assert!(!rights(entry).may_stream(ty));
        }
    }
}
