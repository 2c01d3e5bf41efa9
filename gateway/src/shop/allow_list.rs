//! The shop's allow list: every event may be streamed, and what customers and suppliers say may be
//! posted.

use crate::access::{AllowList, AllowListError, EventRoute};
use evenkeel::event::EventType;
use evenkeel::schema::SchemaError;
use shop_schemas::{OrderCancelled, OrderPlaced, StockReceived};
use std::sync::Arc;

/// The types that callers may post. All others are published by the shop's services alone.
const POSTED: [&str; 3] = [OrderPlaced::TYPE, OrderCancelled::TYPE, StockReceived::TYPE];

/// Why the shop's allow list cannot be made. Its tests make it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShopError {
    /// A schema does not compile.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A route is invalid.
    #[error(transparent)]
    AllowList(#[from] AllowListError),
}

/// The shop's allow list, from its topic declarations.
///
/// # Errors
/// Never with the declarations of this workspace, as a test checks.
pub fn allow_list() -> Result<AllowList, ShopError> {
    let catalogue = Arc::new(shop_schemas::catalogue()?);
    let routes = shop_schemas::topics().iter().flat_map(|topic| {
        topic.events.iter().map(|ty| {
            EventRoute::new(ty.as_str(), topic.name.as_str(), topic.key.as_str())
                .with_post(POSTED.contains(&ty.as_str()))
                .with_stream(true)
        })
    });
    Ok(AllowList::new(routes.collect(), catalogue)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shop_schemas::PaymentAuthorized;

    #[test]
    fn services_events_can_be_streamed_but_not_posted() {
        let list = allow_list().expect("the declarations are valid");
        for ty in POSTED {
            assert!(list.post(ty).is_some(), "{ty}");
        }
        assert!(list.post(PaymentAuthorized::TYPE).is_none());
        assert!(list.stream(PaymentAuthorized::TYPE).is_some());
    }
}
