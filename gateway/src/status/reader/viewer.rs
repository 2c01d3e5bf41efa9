//! Which events a caller may see, by its rights and the allow list. Knows nothing of the log.

use super::super::log_search::Visible;
use crate::access::{AllowList, Principal};
use std::collections::BTreeSet;

/// The caller's view: which events it may see.
#[derive(Clone, Copy)]
pub(super) struct Viewer<'a> {
    pub(super) allow_list: &'a AllowList,
    /// `None` sees every event.
    pub(super) principal: Option<&'a Principal>,
}

impl Viewer<'_> {
    pub(super) fn sees(&self, ty: &str, source: &str) -> bool {
        let is_own = |principal: &Principal| *principal.source == *source;
        self.principal.is_none_or(is_own) || self.sees_type(ty)
    }

    fn sees_type(&self, ty: &str) -> bool {
        let (may_post, may_stream) = match self.principal {
            Some(principal) => {
                let rights = &principal.rights;
                (rights.may_post(ty), rights.may_stream(ty))
            }
            None => (true, true),
        };
        may_post && self.allow_list.post(ty).is_some()
            || may_stream && self.allow_list.stream(ty).is_some()
    }

    /// What a search may find. `None` for every event.
    pub(super) fn visible(&self) -> Option<Visible> {
        let principal = self.principal?;
        let routes = self.allow_list.routes();
        let seen = routes.filter(|route| self.sees_type(&route.ty));
        Some(Visible {
            types: seen.map(|route| route.ty.clone()).collect(),
            source: principal.source.to_string(),
        })
    }

    /// The topics of the types that it sees, or of one of them, sorted.
    pub(super) fn topics(&self, ty: Option<&str>) -> Vec<String> {
        let routes = self.allow_list.routes();
        let wanted = routes.filter(|route| ty.is_none_or(|ty| ty == route.ty));
        let seen = wanted.filter(|route| self.sees_type(&route.ty));
        let topics: BTreeSet<String> = seen.map(|route| route.topic.clone()).collect();
        topics.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{EventRoute, Rights};
    use evenkeel::schema::Catalogue;
    use std::sync::Arc;

    #[test]
    fn a_caller_sees_its_own_events_and_those_of_its_types() {
        let types = ["a.posted.v1", "a.streamed.v1", "a.closed.v1"];
        let schema = r#"{"type": "object", "properties": {"key": {"type": "string"}}}"#;
        let catalogue = Catalogue::from_texts(types.map(|ty| (ty, schema))).expect("schemas");
        let routes = vec![
            EventRoute::new(types[0], "posted", "key").with_post(true),
            EventRoute::new(types[1], "streamed", "key").with_stream(true),
            EventRoute::new(types[2], "closed", "key"),
        ];
        let allow_list = AllowList::new(routes, Arc::new(catalogue)).expect("an allow list");
        let rights = Rights {
            post: vec!["*".to_owned()],
            ..Rights::default()
        };
        let poster = Principal::new("poster", rights);
        let owner = Principal::new("owner", Rights::default()).with_source("/own");
        for (principal, ty, source, expected) in [
            (Some(&poster), types[0], "/other", true),
            (Some(&poster), types[1], "/other", false),
            (Some(&poster), types[2], "/other", false),
            (Some(&poster), "unknown.v1", "/other", false),
            (Some(&owner), types[0], "/other", false),
            (Some(&owner), types[0], "/own", true),
            (None, types[2], "/other", true),
        ] {
            let allow_list = &allow_list;
            let viewer = Viewer {
                allow_list,
                principal,
            };
            assert_eq!(
                viewer.sees(ty, source),
                expected,
                "{principal:?} {ty} {source}"
            );
        }
        let of = |principal, ty| {
            let allow_list = &allow_list;
            let viewer = Viewer {
                allow_list,
                principal,
            };
            viewer.topics(ty)
        };
        assert_eq!(of(Some(&poster), None), ["posted"]);
        assert_eq!(of(Some(&poster), Some(types[1])), [""; 0]);
        assert_eq!(of(None, None), ["posted", "streamed"]);
    }
}
