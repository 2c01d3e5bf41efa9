//! The inbox's part in a batch: it claims all deliveries of the batch, and completes or abandons
//! the claims.
//!
//! Owns the choice between one transaction for the whole batch and one claim per delivery. The
//! latter serves stores without batch transactions and handlers that name no transaction.

use crate::event::OutgoingRecord;
use crate::inbox::{BatchClaim, Claim, Claimed, Inbox, InboxError, InboxKey};
use futures_util::future::join_all;
use std::any::Any;
use std::error::Error;
use std::task::{Context, Poll};

/// The inbox's answer for the deliveries of a batch.
pub(super) struct ClaimedDeliveries {
    /// One entry per delivery, in order: `None` for a fresh delivery, otherwise the events that the
    /// completion of the duplicate left to publish.
    pub(super) known: Vec<Option<Result<Vec<OutgoingRecord>, InboxError>>>,
    /// The claims of the fresh deliveries.
    pub(super) claims: Claims,
}

/// The claims of a batch. Dropping them abandons them.
pub(super) enum Claims {
    /// The router has no inbox.
    Unneeded,
    /// One claim for all deliveries, with one transaction.
    Whole(Box<dyn BatchClaim>),
    /// One claim per delivery.
    Each(Vec<Box<dyn Claim>>),
}

/// How many deliveries of a batch may be claimed together. A store whose claims hand out
/// transactions, but not for several deliveries at once, gets one delivery at a time: claims with a
/// transaction each could wait for each other.
pub(super) fn batch_size_max(inbox: Option<&dyn Inbox>, records_max: usize) -> usize {
    match inbox {
        Some(inbox) if inbox.batches().is_none() && inbox.transaction_type().is_some() => 1,
        _ => records_max,
    }
}

/// Claims deliveries with distinct keys, for a handler that names the store's transaction or does
/// not. On an error, no delivery stays claimed: the claims made so far are dropped.
pub(super) async fn claim(
    inbox: Option<&dyn Inbox>,
    keys: Vec<Option<InboxKey>>,
    names_transaction: bool,
) -> Result<ClaimedDeliveries, InboxError> {
    let Some(inbox) = inbox else {
        return Ok(ClaimedDeliveries {
            known: keys.iter().map(|_| None).collect(),
            claims: Claims::Unneeded,
        });
    };
    let keys: Vec<InboxKey> = keys.into_iter().flatten().collect();
    match inbox.batches() {
        Some(batches) if names_transaction => {
            let claimed = batches.claim_batch(&keys).await?;
            let claims = claimed
                .claim
                .map_or_else(|| Claims::Each(Vec::new()), Claims::Whole);
            Ok(ClaimedDeliveries {
                known: claimed.known,
                claims,
            })
        }
        _ => claim_each(inbox, &keys, names_transaction).await,
    }
}

/// Claims one delivery after the other. All processes use the same order; otherwise two could wait
/// for each other.
async fn claim_each(
    inbox: &dyn Inbox,
    keys: &[InboxKey],
    names_transaction: bool,
) -> Result<ClaimedDeliveries, InboxError> {
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_unstable_by_key(|place| {
        let key = &keys[*place];
        (&key.group, &key.handler, &key.source, &key.id)
    });
    let mut known: Vec<_> = keys.iter().map(|_| None).collect();
    let mut claims = Vec::with_capacity(keys.len());
    for place in places {
        let claimed = match names_transaction {
            true => inbox.claim(&keys[place]).await,
            false => inbox.claim_without_transaction(&keys[place]).await,
        };
        match claimed {
            Ok(Claimed::Fresh(claim)) => claims.push((place, claim)),
            Ok(Claimed::Duplicate { unsent }) => known[place] = Some(Ok(unsent)),
            Err(InboxError::Reused) => known[place] = Some(Err(InboxError::Reused)),
            Err(error) => return Err(error),
        }
    }
    claims.sort_unstable_by_key(|(place, _)| *place);
    let claims = claims.into_iter().map(|(_, claim)| claim).collect();
    Ok(ClaimedDeliveries {
        known,
        claims: Claims::Each(claims),
    })
}

impl Claims {
    /// Returns the transaction for the handler.
    pub(super) fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        match self {
            Self::Whole(claim) => claim.transaction(),
            // A store that has transactions, but none for several deliveries, has one delivery
            // here.
            Self::Each(claims) => claims.first_mut()?.transaction(),
            Self::Unneeded => None,
        }
    }

    /// Ready when the store stopped answering while the handler has its transaction.
    pub(super) fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        match self {
            Self::Whole(claim) => claim.poll_recalled(cx),
            Self::Each(claims) => match claims.first_mut() {
                Some(claim) => claim.poll_recalled(cx),
                None => Poll::Pending,
            },
            Self::Unneeded => Poll::Pending,
        }
    }

    /// Completes the deliveries for which `published` holds the published events, and abandons the
    /// others. Returns, for each completed delivery, the events that remain to be published now.
    ///
    /// The outer error means that the shared transaction was not committed: no delivery of the
    /// batch has an effect. With one claim per delivery each has a result of its own.
    pub(super) async fn complete(
        self,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> Result<Vec<Result<Vec<OutgoingRecord>, InboxError>>, InboxError> {
        match self {
            Self::Unneeded => Ok(published.into_iter().flatten().map(Ok).collect()),
            Self::Whole(claim) => {
                let unsent = claim.complete(published).await?;
                Ok(unsent.into_iter().map(Ok).collect())
            }
            Self::Each(claims) => {
                // Run together, because they may share a commit.
                let ended = claims
                    .into_iter()
                    .zip(published)
                    .map(async |(claim, published)| match published {
                        Some(published) => Some(claim.complete(published).await),
                        None => {
                            log_failure(claim.abandon().await);
                            None
                        }
                    });
                Ok(join_all(ended).await.into_iter().flatten().collect())
            }
        }
    }

    /// Abandons all claims.
    pub(super) async fn abandon(self) {
        match self {
            Self::Unneeded => {}
            Self::Whole(claim) => log_failure(claim.abandon().await),
            Self::Each(claims) => {
                for claim in claims {
                    log_failure(claim.abandon().await);
                }
            }
        }
    }

    /// Abandons all claims after the handler failed with this error. Returns whether the failure
    /// was a collision with another transaction, so that the deliveries may be handled again at
    /// once. That is known only for a single claim, or for one claim that covers the whole batch.
    pub(super) async fn fail(self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        let failed = match self {
            Self::Whole(claim) => claim.fail(error).await,
            Self::Each(mut claims) if claims.len() == 1 => match claims.pop() {
                Some(alone) => alone.fail(error).await,
                None => Ok(false),
            },
            claims => {
                claims.abandon().await;
                Ok(false)
            }
        };
        let collided = matches!(failed, Ok(true));
        log_failure(failed.map(drop));
        collided
    }
}

fn log_failure(abandoned: Result<(), InboxError>) {
    if let Err(error) = abandoned {
        tracing::warn!(%error, "failed to release the claim of a failed batch handler at once");
    }
}
